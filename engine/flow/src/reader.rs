//! Walk out: path → dentry → inode → extent → chunk → bytes.
//!
//! Neighbours: a [`ChunkSource`] below; `extract`, `verify`, `diff` and the
//! mount above, which do not know what kind of source it is. Promises: bytes
//! come back exactly or as an error; each chunk is opened once while it stays
//! in memory. Never: trusts a length, an order or a name that it has not
//! checked. Tested by `tests/tests/archive.rs` and `tests/tests/damage.rs`.

use crate::archive::TreeKeys;
use crate::error::{FlowError, Result};
use crate::limits::{NODE_BYTES, NODES_AHEAD, OPENED_BYTES};
use crate::source::{ChunkSource, note};
use std::cell::RefCell;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use warp_cache::tier::Tier;
use warp_format::codec::Unpacker;
use warp_format::record::{
    Body, Dentry, Extent, FileType, Inode, Key, KeyKind, Name, Record, Summary, Xattr,
};
use warp_format::tree::{Node, Walk, first_key_of};
use warp_format::{ChunkRef, FileId, FormatError, NameHash, PlainChunk, SealedChunk};

thread_local! {
    /// zstd's context is large; each thread keeps one.
    static UNPACKER: RefCell<Unpacker> = RefCell::new(Unpacker::new());
}

/// Opened bytes, shared.
pub type Opened = Arc<Vec<u8>>;

/// An inode with how many names lead to it.
#[derive(Debug, Clone)]
pub struct Attributes {
    /// The record.
    pub inode: Inode,
    /// Names that lead here (directories: one).
    pub links: u32,
}

/// Fetches nodes from a [`TreeReader`].
type Fetch<'a> = Box<dyn FnMut(&ChunkRef) -> Result<Arc<Node>> + 'a>;

/// A walk over the records of a [`TreeReader`].
pub type Records<'a> = Walk<Fetch<'a>>;

/// Reads one tree.
pub struct TreeReader<S> {
    source: S,
    keys: Arc<TreeKeys>,
    root: ChunkRef,
    memory: Arc<Memory>,
}

/// Where a walk is among the children of the nodes above: who goes from one to
/// the next will want those behind it, and each is a way through the network.
#[derive(Default)]
struct Siblings {
    /// The last node of each level above the leaves, and the child of it that
    /// was fetched last.
    above: Vec<(Arc<Node>, Option<usize>)>,
}

impl Siblings {
    /// What will be wanted after this node, if the walk comes from the one
    /// before it.
    fn after(&mut self, want: &ChunkRef) -> Vec<ChunkRef> {
        let child = |node: &Node, at: usize| node.child(at).map(|child| child.node);
        for (node, last) in self.above.iter_mut().rev() {
            let next = last.map_or(0, |last| last + 1);
            if last.is_some() && child(node, next) == Some(*want) {
                *last = Some(next);
                return (next + 1..=next + NODES_AHEAD).map_while(|at| child(node, at)).collect();
            }
            if let Some(at) = (0..node.len()).find(|at| child(node, *at) == Some(*want)) {
                *last = Some(at);
                return Vec::new();
            }
        }
        Vec::new()
    }

    fn note(&mut self, node: &Arc<Node>) {
        if node.level() > 0 {
            self.above.retain(|(other, _)| other.level() > node.level());
            self.above.push((Arc::clone(node), None));
        }
    }
}

/// What has been opened, by the whole reference: two that differ in one field
/// are two claims, and each is checked.
struct Memory {
    nodes: Tier<ChunkRef, Arc<Node>>,
    chunks: Tier<ChunkRef, Opened>,
}

impl<S: ChunkSource> TreeReader<S> {
    /// A reader of the tree with this root.
    pub fn new(source: S, keys: impl Into<Arc<TreeKeys>>, root: ChunkRef) -> Self {
        let nodes = Tier::new(NODE_BYTES, |node: &Arc<Node>| node.memory_len());
        let chunks = Tier::new(OPENED_BYTES, |bytes: &Opened| bytes.capacity() + 64);
        Self { source, keys: keys.into(), root, memory: Arc::new(Memory { nodes, chunks }) }
    }

    /// A reader of another tree in the same source; what has been opened
    /// serves both.
    pub(crate) fn at_root(&self, root: ChunkRef) -> Self
    where
        S: Clone,
    {
        let (source, keys, memory) = (self.source.clone(), &self.keys, &self.memory);
        Self { source, keys: Arc::clone(keys), root, memory: Arc::clone(memory) }
    }

    /// Where the chunks come from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The keys in use.
    pub fn keys(&self) -> &TreeKeys {
        &self.keys
    }

    /// The root's reference.
    pub fn root(&self) -> &ChunkRef {
        &self.root
    }

    /// Fetches, opens and checks a data chunk, past the memory tier.
    pub fn open_chunk(&self, want: &ChunkRef) -> Result<PlainChunk> {
        self.open_sealed(want, &self.source.fetch(&want.id)?)
    }

    /// Opens and checks a data chunk that has been fetched.
    pub(crate) fn open_sealed(&self, want: &ChunkRef, sealed: &SealedChunk) -> Result<PlainChunk> {
        UNPACKER.with_borrow_mut(|unpacker| {
            Ok(self.keys.sealer().open(&self.keys.naming, unpacker, want, sealed)?)
        })
    }

    /// Fetches, opens and checks a tree node, past the memory tier.
    pub fn open_node(&self, want: &ChunkRef) -> Result<Node> {
        let sealed = self.source.fetch(&want.id)?;
        UNPACKER.with_borrow_mut(|unpacker| {
            Ok(self.keys.sealer().open_node(&self.keys.naming, unpacker, want, &sealed)?)
        })
    }

    /// A tree node.
    pub fn node(&self, want: &ChunkRef) -> Result<Arc<Node>> {
        let (began, mut is_made) = (Instant::now(), false);
        let make = || -> Result<_> {
            is_made = true;
            Ok(Arc::new(self.open_node(want)?))
        };
        let node = self.memory.nodes.get_or_make(*want, make)?;
        if !is_made {
            note(&want.id, "mem", began);
        }
        Ok(node)
    }

    /// The bytes of a data chunk.
    pub fn chunk(&self, want: &ChunkRef) -> Result<Opened> {
        let (began, mut is_made) = (Instant::now(), false);
        let make = || -> Result<_> {
            is_made = true;
            Ok(Arc::new(self.open_chunk(want)?.into_bytes()))
        };
        let opened = self.memory.chunks.get_or_make(*want, make)?;
        if !is_made {
            note(&want.id, "mem", began);
        }
        Ok(opened)
    }

    /// The records from this key on.
    pub fn records(&self, from: &[u8]) -> Result<Records<'_>> {
        if !self.source.is_far() {
            return Walk::seek(&self.root, from, Box::new(|want| self.node(want)));
        }
        let mut walked = Siblings::default();
        let fetch = move |want: &ChunkRef| {
            self.expect_nodes(&walked.after(want));
            let node = self.node(want)?;
            walked.note(&node);
            Ok(node)
        };
        Walk::seek(&self.root, from, Box::new(fetch))
    }

    fn expect_nodes(&self, soon: &[ChunkRef]) {
        let missing = soon.iter().filter(|node| !self.memory.nodes.contains(node));
        let missing: Vec<_> = missing.copied().collect();
        if !missing.is_empty() {
            self.source.expect(&missing);
        }
    }

    /// Fetches the leaves where these keys are or would be, which must be in
    /// order. Where chunks are far, those of one level come together: one after
    /// the other, each is a way through the network.
    pub(crate) fn gather(&self, keys: &[Vec<u8>]) -> Result<()> {
        if !self.source.is_far() || keys.len() < 2 {
            return Ok(());
        }
        let mut level = vec![(self.root, keys)];
        while !level.is_empty() {
            let nodes: Vec<_> = level.iter().map(|(node, _)| *node).collect();
            self.expect_nodes(&nodes);
            let mut below: Vec<(ChunkRef, &[Vec<u8>])> = Vec::new();
            for (node, mut keys) in level {
                let node = self.node(&node)?;
                while let Some(child) = keys.first().and_then(|key| node.child_for(key)) {
                    let is_here = |key: &&Vec<u8>| {
                        node.child_for(key).is_some_and(|other| other.node == child.node)
                    };
                    let count = keys.iter().take_while(is_here).count();
                    below.push((child.node, &keys[..count]));
                    keys = &keys[count..];
                }
            }
            level = below;
        }
        Ok(())
    }

    /// Calls `each` with every record of one inode, in key order.
    pub(crate) fn each_record(
        &self,
        file: FileId,
        from: &Key,
        mut each: impl FnMut(Key, Record) -> Result<bool>,
    ) -> Result<()> {
        let mut walk = self.records(&from.to_bytes())?;
        while let Some((key, record)) = walk.next_record()? {
            if key.file != file {
                break;
            }
            // A name or attribute must be filed under its own hash, or a
            // lookup would not find what a listing shows.
            let filed = match (&key.kind, &record) {
                (KeyKind::Dentry(hash), Record::Dentry(d)) => Some((hash, d.name.as_bytes())),
                (KeyKind::Xattr(hash), Record::Xattr(x)) => Some((hash, x.name.as_slice())),
                _ => None,
            };
            if filed.is_some_and(|(hash, name)| self.keys.naming.name_hash(name) != *hash) {
                return Err(FormatError::Invalid { at: "name" }.into());
            }
            if !each(key, record)? {
                break;
            }
        }
        Ok(())
    }

    /// Attributes of an inode; `None` if it was deleted or never read.
    pub fn attributes(&self, file: FileId) -> Result<Option<Attributes>> {
        self.inodes().attributes(file)
    }

    /// Reads the attributes of many inodes; fastest in order of their ids.
    pub fn inodes(&self) -> Inodes<'_, S> {
        Inodes { reader: self, walk: None, last: None }
    }

    /// Attributes of what each of these names leads to; in the order of ids, one
    /// walk serves them all.
    pub(crate) fn described(
        &self,
        entries: &[(NameHash, Dentry)],
    ) -> Result<Vec<Option<Attributes>>> {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_unstable_by_key(|i| entries[*i].1.file);
        let key = |i: &usize| Key::new(entries[*i].1.file, KeyKind::Inode).to_bytes();
        self.gather(&order.iter().map(key).collect::<Vec<_>>())?;
        let mut attributes = vec![None; entries.len()];
        let mut inodes = self.inodes();
        for i in order {
            let dentry = &entries[i].1;
            let found = inodes.attributes(dentry.file)?;
            found.as_ref().map_or(Ok(()), |found| check_type(dentry, found))?;
            attributes[i] = found;
        }
        Ok(attributes)
    }

    /// The extended attributes of an inode.
    pub fn xattrs(&self, file: FileId) -> Result<Vec<Xattr>> {
        let mut found = Vec::new();
        let from = Key::new(file, KeyKind::Xattr(NameHash([0; 16])));
        self.each_record(file, &from, |key, record| match (key.kind, record) {
            (KeyKind::Xattr(_), Record::Xattr(xattr)) => {
                found.push(xattr);
                Ok(true)
            }
            (KeyKind::Xattr(_), _) => Ok(true),
            _ => Ok(false),
        })?;
        Ok(found)
    }

    /// One extended attribute.
    pub fn xattr(&self, file: FileId, name: &[u8]) -> Result<Option<Xattr>> {
        let key = Key::new(file, KeyKind::Xattr(self.keys.naming.name_hash(name)));
        match self.exact(&key)? {
            Some(Record::Xattr(xattr)) if xattr.name == name => Ok(Some(xattr)),
            _ => Ok(None),
        }
    }

    pub(crate) fn exact(&self, key: &Key) -> Result<Option<Record>> {
        let mut walk = self.records(&key.to_bytes())?;
        Ok(walk.next_record()?.filter(|(found, _)| found == key).map(|(_, record)| record))
    }

    /// What a name in a directory leads to.
    pub fn lookup(&self, dir: FileId, name: &[u8]) -> Result<Option<Dentry>> {
        let hash = self.keys.naming.name_hash(name);
        match self.exact(&Key::new(dir, KeyKind::Dentry(hash)))? {
            Some(Record::Dentry(dentry)) if dentry.name.as_bytes() == name => Ok(Some(dentry)),
            _ => Ok(None),
        }
    }

    /// Up to `limit` entries of a directory whose name hash is above `after`,
    /// in order of name hashes, with those hashes.
    pub fn entries_after(
        &self,
        dir: FileId,
        after: Option<NameHash>,
        limit: usize,
    ) -> Result<Vec<(NameHash, Dentry)>> {
        let mut found = Vec::new();
        let from = Key::new(dir, KeyKind::Dentry(after.unwrap_or(NameHash([0; 16]))));
        self.each_record(dir, &from, |key, record| {
            if let (KeyKind::Dentry(hash), Record::Dentry(dentry)) = (key.kind, record)
                && Some(hash) != after
            {
                found.push((hash, dentry));
            }
            Ok(found.len() < limit)
        })?;
        Ok(found)
    }

    /// All entries of a directory whose inodes exist, sorted by name.
    pub fn read_dir(&self, dir: FileId) -> Result<Vec<Dentry>> {
        let mut entries: Vec<Dentry> =
            self.entries_after(dir, None, usize::MAX)?.into_iter().map(|(_, d)| d).collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The inode at a path: components relative to the root, links not
    /// followed.
    pub fn resolve(&self, path: &Path) -> Result<FileId> {
        self.resolve_from(FileId::ROOT, path)
    }

    /// The same, relative to a directory.
    pub(crate) fn resolve_from(&self, top: FileId, path: &Path) -> Result<FileId> {
        let missing = || FlowError::NotFound { path: path.into() };
        let mut at = top;
        for name in components(path)? {
            at = self.lookup(at, name.as_bytes())?.ok_or_else(missing)?.file;
        }
        Ok(at)
    }

    /// Extents of a file that touch the range, sorted, checked not to overlap
    /// and to lie within `size`.
    pub fn extents(
        &self,
        file: FileId,
        from: u64,
        to: u64,
        size: u64,
    ) -> Result<Vec<(u64, Extent)>> {
        let mut found: Vec<(u64, Extent)> = Vec::new();
        let bad = || FlowError::from(FormatError::Invalid { at: "extent" });
        // An extent is at most a chunk long, so what covers `from` starts
        // no earlier than this.
        let start = from.saturating_sub(warp_format::limits::MAX_CHUNK_LEN as u64);
        let mut covered = 0u64;
        self.each_record(file, &Key::new(file, KeyKind::Extent(start)), |key, record| {
            let (KeyKind::Extent(offset), Record::Extent(extent)) = (key.kind, record) else {
                return Ok(matches!(key.kind, KeyKind::Extent(_)));
            };
            let end = offset + u64::from(extent.len);
            if offset < covered || end > size {
                return Err(bad());
            }
            covered = end;
            if offset >= to {
                return Ok(false);
            }
            if end > from {
                found.push((offset, extent));
            }
            Ok(true)
        })?;
        Ok(found)
    }

    /// All extents of a file, and that they are all that was stored.
    pub fn whole_extents(&self, file: FileId, inode: &Inode) -> Result<Vec<(u64, Extent)>> {
        let Body::Extents(stored) = inode.body else { return Ok(Vec::new()) };
        let extents = self.extents(file, 0, u64::MAX, inode.size)?;
        let found: u64 = extents.iter().map(|(_, extent)| u64::from(extent.len)).sum();
        if found == stored { Ok(extents) } else { Err(FlowError::Lost { what: "content" }) }
    }

    /// Bytes of a regular file: from `offset`, at most `len`, fewer only at
    /// the end. Holes read as zeros.
    pub fn read(&self, file: FileId, inode: &Inode, offset: u64, len: usize) -> Result<Vec<u8>> {
        let end = inode.size.min(offset.saturating_add(len as u64));
        if offset >= end {
            return Ok(Vec::new());
        }
        if let Body::Inline(bytes) = &inode.body {
            return Ok(bytes[offset as usize..end as usize].to_vec());
        }
        let mut out = vec![0; (end - offset) as usize];
        let extents = self.extents(file, offset, end, inode.size)?;
        if extents.len() > 1 {
            self.expect(&extents);
        }
        for (at, extent) in extents {
            let chunk = self.chunk(&extent.chunk)?;
            let (from, to) = (at.max(offset), (at + u64::from(extent.len)).min(end));
            let source_at = extent.start as usize + (from - at) as usize;
            let count = (to - from) as usize;
            out[(from - offset) as usize..][..count]
                .copy_from_slice(&chunk[source_at..source_at + count]);
        }
        Ok(out)
    }

    /// Says which chunks will be read.
    pub(crate) fn expect(&self, extents: &[(u64, Extent)]) {
        let mut soon: Vec<_> = extents.iter().map(|(_, extent)| extent.chunk).collect();
        soon.dedup();
        soon.retain(|chunk| !self.memory.chunks.contains(chunk));
        if !soon.is_empty() {
            self.source.expect(&soon);
        }
    }

    /// What the archive says of itself.
    pub fn summary(&self) -> Result<Summary> {
        match self.exact(&Key::new(FileId::META, KeyKind::Meta))? {
            Some(Record::Summary(summary)) => Ok(summary),
            _ => Err(FormatError::Invalid { at: "summary" }.into()),
        }
    }

    /// Goes through all names of the tree: directories before what is in
    /// them, names sorted. `visit` gets each path with its entry, or with
    /// what keeps it (for a directory: its entries) from being read; names
    /// whose inode was never read are passed over.
    pub fn visit_all(&self, visit: &mut Visit<'_>) -> Result<()> {
        self.visit_below(FileId::ROOT, b"", visit)
    }

    /// The same for everything below one directory.
    pub fn visit_below(&self, top: FileId, path: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let mut seen = std::collections::HashSet::from([top]);
        let mut stack = Vec::new();
        let mut inodes = self.inodes();
        self.open_level(top, path.to_vec(), &mut stack, visit)?;
        while let Some((path, entries)) = stack.last_mut() {
            let Some(dentry) = entries.next() else {
                stack.pop();
                continue;
            };
            let below = join(path, dentry.name.as_bytes());
            let attributes = inodes.attributes(dentry.file).and_then(|found| {
                found.as_ref().map_or(Ok(()), |a| check_type(&dentry, a))?;
                Ok(found)
            });
            let attributes = match attributes {
                Ok(Some(attributes)) => attributes,
                Ok(None) => continue,
                Err(e) => {
                    visit(&below, Err(e))?;
                    continue;
                }
            };
            visit(&below, Ok((&dentry, &attributes)))?;
            if dentry.file_type == FileType::Directory {
                if !seen.insert(dentry.file) || stack.len() > crate::limits::MAX_DEPTH {
                    visit(&below, Err(FormatError::Invalid { at: "directory" }.into()))?;
                } else {
                    self.open_level(dentry.file, below, &mut stack, visit)?;
                }
            }
        }
        Ok(())
    }

    fn open_level(
        &self,
        dir: FileId,
        path: Vec<u8>,
        stack: &mut Vec<(Vec<u8>, std::vec::IntoIter<Dentry>)>,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        match self.read_dir(dir) {
            Ok(entries) => {
                stack.push((path, entries.into_iter()));
                Ok(())
            }
            Err(e) => visit(&path, Err(e)),
        }
    }

    /// The key under which a name is filed.
    pub(crate) fn dentry_key(&self, dir: FileId, name: &[u8]) -> Vec<u8> {
        Key::new(dir, KeyKind::Dentry(self.keys.naming.name_hash(name))).to_bytes()
    }

    /// All records of the tree.
    pub fn all_records(&self) -> Result<Records<'_>> {
        self.records(&first_key_of(FileId::ROOT))
    }
}

/// Reads attributes one after the other without coming down from the root
/// each time.
pub struct Inodes<'a, S> {
    reader: &'a TreeReader<S>,
    walk: Option<Records<'a>>,
    /// The last inode read: a walk goes forward only.
    last: Option<FileId>,
}

impl<S: ChunkSource> Inodes<'_, S> {
    /// Attributes of an inode; `None` if it was deleted or never read.
    pub fn attributes(&mut self, file: FileId) -> Result<Option<Attributes>> {
        let key = Key::new(file, KeyKind::Inode).to_bytes();
        if self.last.is_none_or(|last| last >= file) {
            self.walk = None;
        }
        // After an error the walk is gone, and the next call starts anew.
        let mut walk = match self.walk.take() {
            Some(mut walk) => {
                walk.seek_forward(&key)?;
                walk
            }
            None => self.reader.records(&key)?,
        };
        let mut inode = None;
        let mut links = 0;
        while let Some(Key { file: at, kind }) = walk.peek_key()? {
            match kind {
                _ if at != file => break,
                KeyKind::Extent(_) | KeyKind::Dentry(_) => break,
                KeyKind::Xattr(_) => walk.seek_forward(&first_link_of(file))?,
                _ => match walk.next_record()? {
                    Some((_, Record::Link(_))) => links += 1,
                    Some((_, found)) if kind == KeyKind::Inode => inode = Some(found),
                    _ => {}
                },
            }
        }
        (self.walk, self.last) = (Some(walk), Some(file));
        match inode {
            Some(Record::Inode(_)) if links == 0 && file != FileId::ROOT => {
                Err(FlowError::Lost { what: "link record" })
            }
            Some(Record::Inode(inode))
                if file == FileId::ROOT && inode.file_type() != FileType::Directory =>
            {
                Err(FormatError::Invalid { at: "file type of the root" }.into())
            }
            Some(Record::Inode(inode)) => Ok(Some(Attributes { inode, links: links.max(1) })),
            Some(_) => Ok(None),
            None => Err(FlowError::Lost { what: "inode record" }),
        }
    }
}

fn first_link_of(file: FileId) -> Vec<u8> {
    Key::new(file, KeyKind::Link(FileId::ROOT, NameHash([0; 16]))).to_bytes()
}

/// What [`TreeReader::visit_all`] calls for each path.
pub type Visit<'a> = dyn FnMut(&[u8], Result<(&Dentry, &Attributes)>) -> Result<()> + 'a;

/// A name must lead to an inode of the type that it says.
pub(crate) fn check_type(dentry: &Dentry, attributes: &Attributes) -> Result<()> {
    if dentry.file_type == attributes.inode.file_type() {
        Ok(())
    } else {
        Err(FormatError::Invalid { at: "file type" }.into())
    }
}

/// A path in the tree and a name below it.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        return name.to_vec();
    }
    [path, b"/", name].concat()
}

/// The names of a path in a tree: `/` and `.` are the root, `..` is refused.
pub(crate) fn components(path: &Path) -> Result<Vec<Name>> {
    let bad = |why| FlowError::BadPath { path: path.into(), why };
    path.as_os_str()
        .as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| {
            if part == b".." {
                return Err(bad("`..` has no meaning in an archive"));
            }
            Name::new(part).map_err(|_| bad("a name in it is longer than 255 bytes"))
        })
        .collect()
}

//! Step *check*: what of a portal is damaged, which files that hits, and what
//! was not read.
//!
//! Neighbours: `cache::store` audits packs; `reader` walks trees with the checks
//! that every read goes through, so that what is named is what cannot be read.
//! Promises: after a check that has read everything and found nothing, every
//! byte of every pack is as it was written and every file can be read; what was
//! not read is counted. Never: takes what is in memory for what is on the disk,
//! or stops at damage. Tested by `engine/flow/tests/check.rs` and
//! `tests/tests/check.rs`.

use crate::error::{FlowError, Result};
use crate::limits::{MAX_DEPTH, workers};
use crate::live::{Live, Tree};
use crate::portal::Portal;
use crate::progress::{Problem, Progress};
use crate::reader::{Inodes, TreeReader, check_type};
use crate::snapshots::Snapshot;
use crate::source::ChunkSource;
use crate::verify::Depth;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use warp_cache::CacheError;
use warp_cache::store::{Audit, PackName};
use warp_format::record::{Body, Dentry, FileType, Key, KeyKind, Record};
use warp_format::{ChunkId, ChunkRef, FileId, FormatError, NameHash, SealedChunk};

pub use warp_cache::store::Damage;

/// How much of the packs is read, beside frames and tree nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reads {
    /// No data.
    Nothing,
    /// This share (0 to 1) of the data chunks, chosen by `seed`.
    Sample {
        /// Share of the data chunks.
        share: f64,
        /// Which of them.
        seed: u64,
    },
    /// Every byte of every pack.
    Everything,
}

impl Reads {
    fn takes(self, id: &ChunkId) -> bool {
        match self {
            Self::Nothing => false,
            Self::Sample { share, seed } => {
                let (first, _) = id.0.split_first_chunk().expect("an id has 32 bytes");
                Depth::Sample { share, seed }.takes(u64::from_le_bytes(*first))
            }
            Self::Everything => true,
        }
    }
}

/// A tree to check.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// What stands before the paths of its files: empty, or `/.snapshots/NAME`.
    pub(crate) path: Vec<u8>,
    /// Its root.
    pub(crate) root: ChunkRef,
}

impl Root {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let path = [b"/.snapshots/", snapshot.name.as_bytes()].concat();
        Self { path, root: snapshot.root }
    }
}

/// What was checked, and what is wrong.
#[derive(Debug, Default)]
pub struct Checked {
    /// Files, directories and other names.
    pub names: u64,
    /// Tree nodes; all of them are read.
    pub nodes: u64,
    /// Data chunks that the trees name.
    pub chunks: u64,
    /// Of those, how many were read, opened and compared with their hashes.
    pub chunks_read: u64,
    /// Bytes of those data chunks.
    pub data_bytes: u64,
    /// Of those, bytes that were read.
    pub data_bytes_read: u64,
    /// Bytes of packs, whether a tree names what is in them or not.
    pub stored_bytes: u64,
    /// Of those, bytes that were read (nodes are read once more, by the tree).
    pub stored_bytes_read: u64,
    /// Packs.
    pub packs: u64,
    /// Places in packs that are not as they were written.
    pub damage: Vec<Damage>,
    /// Each damaged file by its path, with the first reason.
    pub problems: Vec<Problem>,
    /// Why the last changes are in no published tree, and so were not checked.
    pub unpublished: Option<String>,
}

impl Checked {
    /// True if nothing is wrong with what was read.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.problems.is_empty()
    }
}

impl Portal {
    /// Checks all that is stored of it. It may be in use meanwhile: what is
    /// written from now on is not checked, what was written before is.
    pub fn check(&self, reads: Reads, progress: &Progress) -> Result<Checked> {
        // What is in no tree has no place that could be checked.
        let published = self.publish();
        let live = self.live();
        let mut checked = check(live, &roots(live), reads, progress)?;
        if let Err(e) = published
            && live.unpublished().1 > 0
        {
            checked.unpublished = Some(e.to_string());
        }
        Ok(checked)
    }
}

/// The trees that a portal has to be able to read.
fn roots(live: &Live) -> Vec<Root> {
    let head = live.read_state().head.as_ref().map(|head| head.root);
    let head = head.map(|root| Root { path: Vec::new(), root });
    head.into_iter().chain(live.snapshots().iter().map(Root::of)).collect()
}

/// Checks trees, the first of them being the one that is shown, and all packs.
pub(crate) fn check(
    live: &Live,
    roots: &[Root],
    reads: Reads,
    progress: &Progress,
) -> Result<Checked> {
    progress.set_total(live.stored().0);
    // Readers of their own: what another has in memory says nothing of the
    // disk. Known to sweeps, which keep what these name.
    let reader = |root: &Root| {
        live.register(TreeReader::new(Arc::clone(&live.store), Arc::clone(&live.keys), root.root))
    };
    let readers: Vec<Arc<Tree>> = roots.iter().map(reader).collect();
    let mut survey = Survey::default();
    for reader in &readers {
        survey.add(reader, progress)?;
    }
    let mut bad = Bad::new();
    let audit = match readers.first() {
        Some(reader) => audit(live, reader, &survey, reads, &mut bad, progress)?,
        None => Audit::default(),
    };
    let mut checked = Checked {
        nodes: survey.nodes.len() as u64,
        chunks: survey.data.len() as u64,
        stored_bytes: audit.bytes,
        stored_bytes_read: audit.bytes_read,
        packs: live.store.packs().len() as u64,
        ..Checked::default()
    };
    for id in survey.data.keys() {
        let len = live.store.len_of(id).unwrap_or_default();
        checked.data_bytes += len;
        if reads.takes(id) {
            checked.chunks_read += 1;
            checked.data_bytes_read += len;
        }
    }
    let mut damaged: HashSet<ChunkId> =
        audit.damage.iter().filter_map(|damage| damage.chunk).collect();
    // What somebody has stumbled over, or scrub found.
    damaged.extend(live.store.damaged());
    if let Some(reader) = readers.first() {
        survey.confirm(reader, &damaged, |id| live.store.len_of(id).is_some(), &mut bad);
    }
    checked.damage = audit.damage;
    let broken = survey.broken || !bad.is_empty();
    for (i, (root, reader)) in roots.iter().zip(&readers).enumerate() {
        // The names of older trees are worth the time only where some of them
        // have to be told.
        if i == 0 || broken {
            checked.names += name(&root.path, reader, &bad, progress, &mut checked.problems)?;
        }
    }
    Ok(checked)
}

/// References whose chunks are missing, damaged or not what they say.
pub(crate) type Bad = HashMap<ChunkRef, FlowError>;

/// What trees name, each chunk once.
#[derive(Default)]
pub(crate) struct Survey {
    nodes: HashSet<ChunkRef>,
    data: HashMap<ChunkId, ChunkRef>,
    /// References that differ from the one in `data` in something else.
    also: Vec<ChunkRef>,
    /// Some nodes cannot be read.
    pub(crate) broken: bool,
}

impl Survey {
    /// Reads all nodes of a tree that no tree before it had.
    pub(crate) fn add<S: ChunkSource>(
        &mut self,
        reader: &TreeReader<S>,
        progress: &Progress,
    ) -> Result<()> {
        let mut stack = vec![*reader.root()];
        while let Some(at) = stack.pop() {
            if !self.nodes.insert(at) {
                continue;
            }
            progress.check()?;
            let Ok(node) = reader.open_node(&at) else {
                self.broken = true;
                continue;
            };
            for i in 0..node.len() {
                if let Some(child) = node.child(i) {
                    stack.push(child.node);
                } else if let Some(Ok((_, Record::Extent(extent)))) = node.record(i) {
                    let chunk = extent.chunk;
                    if *self.data.entry(chunk.id).or_insert(chunk) != chunk {
                        self.also.push(chunk);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads once more what is said to be damaged or missing: what can be read
    /// after all, from another pack, is not bad.
    pub(crate) fn confirm<S: ChunkSource>(
        &self,
        reader: &TreeReader<S>,
        damaged: &HashSet<ChunkId>,
        is_here: impl Fn(&ChunkId) -> bool,
        bad: &mut Bad,
    ) {
        let doubtful =
            self.data.values().filter(|chunk| damaged.contains(&chunk.id) || !is_here(&chunk.id));
        for chunk in doubtful.chain(&self.also) {
            if let Err(e) = reader.open_chunk(chunk) {
                bad.insert(*chunk, e);
            }
        }
    }
}

/// Reads all packs, all cores at work, and opens what is read whole.
fn audit(
    live: &Live,
    reader: &Tree,
    survey: &Survey,
    reads: Reads,
    bad: &mut Bad,
    progress: &Progress,
) -> Result<Audit> {
    // What a sweep moves meanwhile into later packs, it has read and compared.
    let packs = live.store.packs();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(bad);
    let takes = |id: &ChunkId| {
        progress.add_bytes(1);
        reads.takes(id) && (reads == Reads::Everything || survey.data.contains_key(id))
    };
    let open = |chunk: &SealedChunk| {
        if let Some(want) = survey.data.get(&chunk.id())
            && let Err(e) = reader.open_sealed(want, chunk)
        {
            wrong.lock().unwrap_or_else(PoisonError::into_inner).insert(*want, e);
        }
    };
    let work = || -> Result<Audit> {
        let mut found = Audit::default();
        while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
            progress.check()?;
            found.add(audit_pack(live, *pack, &takes, &mut { open })?);
        }
        Ok(found)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers()).map(|_| scope.spawn(work)).collect();
        let mut all = Audit::default();
        for thread in threads {
            all.add(thread.join().expect("a worker does not panic")?);
        }
        all.damage.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        Ok(all)
    })
}

/// One that is gone meanwhile had nothing that stays.
fn audit_pack(
    live: &Live,
    pack: PackName,
    takes: &dyn Fn(&ChunkId) -> bool,
    each: &mut dyn FnMut(&SealedChunk),
) -> Result<Audit, CacheError> {
    Ok(live.store.audit(pack, takes, each)?.unwrap_or_default())
}

/// Goes through all names of a tree as a reader would, and adds each that
/// cannot be read whole; gives how many there are.
pub(crate) fn name<S: ChunkSource>(
    before: &[u8],
    reader: &TreeReader<S>,
    bad: &Bad,
    progress: &Progress,
    problems: &mut Vec<Problem>,
) -> Result<u64> {
    let mut names = Names { reader, inodes: reader.inodes(), bad, found: Vec::new(), count: 0 };
    let mut seen = HashSet::from([FileId::ROOT]);
    let mut stack = vec![(FileId::ROOT, before.to_vec(), 0)];
    if let Err(e) = reader.attributes(FileId::ROOT).and_then(|_| reader.xattrs(FileId::ROOT)) {
        names.say(&join_root(before), e);
    }
    while let Some((dir, path, depth)) = stack.pop() {
        progress.check()?;
        for dentry in names.entries(dir, &path) {
            names.count += 1;
            let below = [&path, b"/".as_slice(), dentry.name.as_bytes()].concat();
            if let Err(e) = names.check(&dentry) {
                names.say(&below, e);
            } else if dentry.file_type == FileType::Directory {
                if seen.insert(dentry.file) && depth < MAX_DEPTH {
                    stack.push((dentry.file, below, depth + 1));
                } else {
                    names.say(&below, FormatError::Invalid { at: "directory" }.into());
                }
            }
        }
    }
    let Names { mut found, count, .. } = names;
    // The first reason of each is enough.
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    problems.append(&mut found);
    Ok(count)
}

/// `/` for the root of the tree that is shown.
fn join_root(before: &[u8]) -> Vec<u8> {
    if before.is_empty() { b"/".to_vec() } else { before.to_vec() }
}

struct Names<'a, S> {
    reader: &'a TreeReader<S>,
    inodes: Inodes<'a, S>,
    bad: &'a Bad,
    found: Vec<Problem>,
    count: u64,
}

impl<S: ChunkSource> Names<'_, S> {
    fn say(&mut self, path: &[u8], error: FlowError) {
        self.found.push(Problem { path: path.to_vec(), error });
    }

    /// The entries of a directory; of one that is damaged, those that are left.
    fn entries(&mut self, dir: FileId, path: &[u8]) -> Vec<Dentry> {
        match self.reader.read_dir(dir) {
            Ok(entries) => entries,
            Err(e) => {
                self.say(&join_root(path), e);
                let bounds = [[0; 16], [0xff; 16]]
                    .map(|hash| Key::new(dir, KeyKind::Dentry(NameHash(hash))).to_bytes());
                let mut found = Vec::new();
                self.left(self.reader.root(), [&bounds[0], &bounds[1]], &mut found);
                found
            }
        }
    }

    /// Collects the entries between two keys below a node, past what cannot be
    /// read.
    fn left(&self, at: &ChunkRef, [from, to]: [&[u8]; 2], found: &mut Vec<Dentry>) {
        let Ok(node) = self.reader.node(at) else { return };
        for i in 0..node.len() {
            let key = node.key_bytes(i).unwrap_or_default();
            let ends = node.key_bytes(i + 1).is_some_and(|next| next <= from);
            if key > to {
                return;
            }
            match node.child(i) {
                Some(child) if !ends => self.left(&child.node, [from, to], found),
                None if key >= from => {
                    if let Some(Ok((_, Record::Dentry(dentry)))) = node.record(i) {
                        found.push(dentry);
                    }
                }
                _ => {}
            }
        }
    }

    /// All that a name leads to, but for what is in a directory.
    fn check(&mut self, dentry: &Dentry) -> Result<()> {
        let Some(attributes) = self.inodes.attributes(dentry.file)? else {
            return Err(FlowError::Lost { what: "inode record" });
        };
        check_type(dentry, &attributes)?;
        self.reader.xattrs(dentry.file)?;
        if let Body::Extents(_) = attributes.inode.body {
            let extents = self.reader.whole_extents(dentry.file, &attributes.inode)?;
            for (_, extent) in &extents {
                if let Some(error) = self.bad.get(&extent.chunk) {
                    return Err(error.clone());
                }
            }
        }
        Ok(())
    }
}

//! Step *ingest*: what was written of files into chunks and extents.
//!
//! Neighbours: `publish` above, whose writer packs, seals and stores;
//! `format::chunk` for where to cut. Promises: a file reads after it as it
//! read before; equal content is stored once, whichever files it is in. Never:
//! changes what is shown meanwhile. Tested by `engine/flow/tests/model_live.rs`.
//!
//! Files up to 512 bytes go into their inode, files up to 64 KiB into groups
//! of neighbours: both are written anew as a whole. Of larger files, only what
//! was written is cut into chunks.

use crate::error::Result;
use crate::live::{Below, Stored, Tree};
use crate::overlay::{Layer, Piece, Pieces};
use crate::publish::Writer;
use crate::reader::Opened;
use std::collections::{BTreeMap, HashMap};
use warp_format::chunk::{CutRule, GroupRule, SMALL_FILE_LEN};
use warp_format::dedup::Part;
use warp_format::limits::INLINE_LEN;
use warp_format::record::{Body, Extent, Inode, Key, KeyKind, Record};
use warp_format::{ChunkRef, ContentHash, FileId, FormatError};

/// Changes of a tree's records; `None` = removed.
pub(crate) type Edits = BTreeMap<Key, Option<Record>>;
type Extents = BTreeMap<u64, Extent>;

/// Bytes of chunks that are stored at once.
const BATCH_LEN: usize = 4 << 20;
/// Bytes of small files that are held to be grouped.
const SMALL_BYTES: usize = 32 << 20;

/// The changes of records that a layer makes to a tree.
pub(crate) fn ingest(layer: &Layer, base: Option<&Tree>, writer: &mut Writer<'_>) -> Result<Edits> {
    let mut edits = layer.records.clone();
    for (key, change) in &mut edits {
        if let Some(Record::Inode(inode)) = change
            && matches!(inode.body, Body::Extents(_) | Body::Inline(_))
            && !layer.content.contains_key(&key.file)
        {
            // Attributes alone were changed: the content is where it was.
            let before = Below { file: key.file, base }.inode()?;
            inode.body = match before {
                Some(before) if before.size == inode.size => {
                    inode.versions = before.versions;
                    before.body
                }
                _ => empty(inode.size),
            };
        }
    }
    let mut small = SmallFiles::default();
    for (file, pieces) in &layer.content {
        let key = Key::new(*file, KeyKind::Inode);
        let below = Below { file: *file, base: base.filter(|_| !layer.deleted.contains(file)) };
        let inode = match layer.records.get(&key) {
            Some(Some(Record::Inode(inode))) => Some(inode.clone()),
            Some(_) => None,
            None => below.inode()?,
        };
        // Without an inode nothing leads here.
        let Some(mut inode) = inode else { continue };
        // A layer's inode may be older than the tree's: the tree counts.
        if let Some(before) = below.inode()? {
            inode.versions = before.versions;
        }
        count_version(&mut inode, writer);
        if inode.size > SMALL_FILE_LEN as u64 {
            let (before, after) = large_file(below, pieces, inode.size, writer)?;
            settle(*file, inode, &before, after, &mut edits);
            continue;
        }
        let open = |chunk: &ChunkRef| open(base, chunk);
        let bytes = below.read(pieces, (0, inode.size as usize), &open)?;
        let before = extents_of(below)?;
        if bytes.len() <= INLINE_LEN {
            settle(*file, inode.clone(), &before, Extents::new(), &mut edits);
            let body = Body::Inline(bytes);
            edits.insert(key, Some(Record::Inode(Inode { body, ..inode })));
        } else {
            let hash = writer.naming().content_hash(&bytes);
            match writer.find(&hash, bytes.len()) {
                Some(extent) => {
                    settle(*file, inode, &before, Extents::from([(0, extent)]), &mut edits);
                }
                None => small.add(order(layer, *file), hash, bytes, (*file, inode, before)),
            }
            // Few bytes may have been written to many files, which are read
            // whole.
            if small.len >= SMALL_BYTES {
                std::mem::take(&mut small).store(writer, &mut edits)?;
            }
        }
    }
    small.store(writer, &mut edits)?;
    Ok(edits)
}

/// Opens what a layer names in the store: it is cloned of a tree, so there is
/// one.
fn open(base: Option<&Tree>, chunk: &ChunkRef) -> Result<Opened> {
    base.ok_or(FormatError::Invalid { at: "extent" })?.chunk(chunk)
}

/// A file of which nothing was ever written.
fn empty(size: u64) -> Body {
    if size == 0 { Body::Inline(Vec::new()) } else { Body::Extents(0) }
}

/// This device made another version of the content.
fn count_version(inode: &mut Inode, writer: &Writer<'_>) {
    let device = writer.device();
    match inode.versions.binary_search_by_key(&device, |(device, _)| *device) {
        Ok(at) => inode.versions[at].1 += 1,
        Err(at) => inode.versions.insert(at, (device, 1)),
    }
}

/// Takes the edits from a file's extents as they were to what they are now.
fn settle(file: FileId, inode: Inode, before: &Extents, after: Extents, edits: &mut Edits) {
    let key = |offset: &u64| Key::new(file, KeyKind::Extent(*offset));
    for offset in before.keys().filter(|offset| !after.contains_key(offset)) {
        edits.insert(key(offset), None);
    }
    let stored = after.values().map(|extent| u64::from(extent.len)).sum();
    for (offset, extent) in after {
        if before.get(&offset) != Some(&extent) {
            edits.insert(key(&offset), Some(Record::Extent(extent)));
        }
    }
    let body = Body::Extents(stored);
    edits.insert(Key::new(file, KeyKind::Inode), Some(Record::Inode(Inode { body, ..inode })));
}

fn extents_of(below: Below<'_>) -> Result<Extents> {
    Ok(match below.content(0, u64::MAX)? {
        Stored::Extents(extents) => extents.into_iter().collect(),
        Stored::Inline(_) => Extents::new(),
    })
}

/// Extents of a large file before and after what was written.
fn large_file(
    below: Below<'_>,
    pieces: &Pieces,
    size: u64,
    writer: &mut Writer<'_>,
) -> Result<(Extents, Extents)> {
    let mut pieces = pieces.within(0, size);
    let (before, inline) = match below.content(0, u64::MAX)? {
        Stored::Extents(extents) => (extents.into_iter().collect::<Extents>(), Vec::new()),
        Stored::Inline(bytes) => (Extents::new(), bytes),
    };
    if !inline.is_empty() {
        // It has outgrown its inode.
        let mut all = Pieces::default();
        all.write(0, inline);
        all.lay_over(&pieces);
        pieces = all.within(0, size);
    }
    let mut after = before.clone();
    // What lies behind the end was cut off.
    cut(&mut after, size, u64::MAX);
    let mut run = Run { rule: CutRule::for_len(size), start: 0, end: 0, bytes: Vec::new() };
    let mut batch = Batch::default();
    for (at, piece) in pieces.iter() {
        if at != run.end || !matches!(piece, Piece::Bytes(_)) {
            run.finish(&mut batch, &mut after, writer)?;
        }
        match piece {
            Piece::Hole(len) => cut(&mut after, at, at + len),
            Piece::Stored(extent) => {
                cut(&mut after, at, at + piece.len());
                after.insert(at, *extent);
            }
            Piece::Bytes(bytes) => {
                if run.bytes.is_empty() && run.start == run.end {
                    run.begin(at, below, &after, &batch)?;
                }
                run.bytes.extend_from_slice(bytes);
                run.end = at + bytes.len() as u64;
                run.cut_off(false, &mut batch, writer);
                batch.store_if_full(&mut after, writer)?;
            }
        }
    }
    run.finish(&mut batch, &mut after, writer)?;
    batch.store(&mut after, writer)?;
    Ok((before, after))
}

/// Takes `from..to` out of the extents.
pub(crate) fn cut(extents: &mut Extents, from: u64, to: u64) {
    let mut put = Vec::new();
    let before = extents.range(..from).next_back().map(|(at, _)| *at);
    let inside: Vec<u64> = extents.range(from..to.max(from)).map(|(at, _)| *at).collect();
    for at in before.into_iter().chain(inside) {
        let Some(extent) = extents.get(&at).copied() else { continue };
        let end = at + u64::from(extent.len);
        if end <= from {
            continue;
        }
        extents.remove(&at);
        if at < from {
            put.push((at, Extent { len: (from - at) as u32, ..extent }));
        }
        if end > to {
            let skipped = (to - at) as u32;
            let (start, len) = (extent.start + skipped, extent.len - skipped);
            put.push((to, Extent { start, len, ..extent }));
        }
    }
    extents.extend(put);
}

/// Bytes that follow one another in a file, on their way into chunks.
struct Run {
    rule: CutRule,
    /// Where `bytes` begin, and end, in the file.
    start: u64,
    end: u64,
    bytes: Vec<u8>,
}

impl Run {
    /// Begins at an offset. What is appended behind a chunk is cut together
    /// with that chunk: where it ended is where the file ended.
    fn begin(&mut self, at: u64, below: Below<'_>, after: &Extents, batch: &Batch) -> Result<()> {
        (self.start, self.end) = (at, at);
        if let Some((offset, last)) = after.last_key_value()
            // Written to since, and on its way: it is no more what it was.
            && batch.end <= *offset
            && offset + u64::from(last.len) == at
            && last.start == 0
            && last.len == last.chunk.len
            && (last.len as usize) < self.rule.max
            && let Ok(chunk) = below.chunk(&last.chunk)
        {
            self.bytes.extend_from_slice(&chunk);
            self.start = *offset;
        }
        Ok(())
    }

    /// Moves whole chunks into the batch; with `last`, all of it.
    fn cut_off(&mut self, last: bool, batch: &mut Batch, writer: &Writer<'_>) {
        let mut at = 0;
        while self.bytes.len() - at >= self.rule.max || (last && at < self.bytes.len()) {
            let rest = &self.bytes[at..];
            let len = self.rule.first_cut(writer.naming(), rest, last);
            batch.add(self.start + at as u64, rest[..len].to_vec());
            at += len;
        }
        self.bytes.drain(..at);
        self.start += at as u64;
    }

    fn finish(
        &mut self,
        batch: &mut Batch,
        after: &mut Extents,
        writer: &mut Writer<'_>,
    ) -> Result<()> {
        self.cut_off(true, batch, writer);
        self.start = self.end;
        batch.store_if_full(after, writer)
    }
}

/// Chunks of one file that are stored together.
#[derive(Default)]
struct Batch {
    offsets: Vec<u64>,
    chunks: Vec<(Vec<u8>, Vec<Part>)>,
    len: usize,
    /// Where the last of them ends in the file.
    end: u64,
}

impl Batch {
    fn add(&mut self, offset: u64, bytes: Vec<u8>) {
        self.end = offset + bytes.len() as u64;
        self.len += bytes.len();
        self.offsets.push(offset);
        self.chunks.push((bytes, Vec::new()));
    }

    fn store_if_full(&mut self, after: &mut Extents, writer: &mut Writer<'_>) -> Result<()> {
        if self.len >= BATCH_LEN { self.store(after, writer) } else { Ok(()) }
    }

    fn store(&mut self, after: &mut Extents, writer: &mut Writer<'_>) -> Result<()> {
        let extents = writer.put_all(std::mem::take(&mut self.chunks))?;
        for (offset, extent) in self.offsets.drain(..).zip(extents) {
            cut(after, offset, offset + u64::from(extent.len));
            after.insert(offset, extent);
        }
        (self.len, self.end) = (0, 0);
        Ok(())
    }
}

/// Where a small file stands among its neighbours: by directory and name, as
/// an archive has them.
type Order = (FileId, Vec<u8>);

fn order(layer: &Layer, file: FileId) -> Order {
    let all = crate::overlay::all_of(file);
    for (key, change) in layer.records.range(all) {
        if let (KeyKind::Link(parent, hash), Some(_)) = (key.kind, change)
            && let Some(Some(Record::Dentry(dentry))) =
                layer.records.get(&Key::new(parent, KeyKind::Dentry(hash)))
        {
            return (parent, dentry.name.as_bytes().to_vec());
        }
    }
    (file, Vec::new())
}

/// A file, its inode, and the extents that it had.
type Rewritten = (FileId, Inode, Extents);

struct Small {
    order: Order,
    hash: ContentHash,
    bytes: Vec<u8>,
    /// All that have this content.
    files: Vec<Rewritten>,
}

/// Small files that the store does not have yet.
#[derive(Default)]
struct SmallFiles {
    files: Vec<Small>,
    by_hash: HashMap<ContentHash, usize>,
    /// Bytes of all of them.
    len: usize,
}

impl SmallFiles {
    fn add(&mut self, order: Order, hash: ContentHash, bytes: Vec<u8>, file: Rewritten) {
        let next = self.files.len();
        let at = *self.by_hash.entry(hash).or_insert(next);
        match self.files.get_mut(at) {
            Some(same) => same.files.push(file),
            None => {
                self.len += bytes.len();
                self.files.push(Small { order, hash, bytes, files: vec![file] });
            }
        }
    }

    /// Cuts them into groups of neighbours and stores those.
    fn store(mut self, writer: &mut Writer<'_>, edits: &mut Edits) -> Result<()> {
        self.files.sort_unstable_by(|a, b| a.order.cmp(&b.order));
        let mut groups: Vec<Group> = Vec::new();
        let mut len = 0;
        let mut open = Group::default();
        let rule = GroupRule::DEFAULT;
        let mut files = self.files.into_iter().peekable();
        while let Some(file) = files.next() {
            let ends = rule.ends_after(open.bytes.len() + file.bytes.len(), &file.hash);
            len += file.bytes.len();
            open.add(file);
            let full = files.peek().is_none_or(|n| open.bytes.len() + n.bytes.len() > rule.max);
            if ends || full {
                groups.push(std::mem::take(&mut open));
            }
            if len >= BATCH_LEN {
                store_groups(std::mem::take(&mut groups), writer, edits)?;
                len = open.bytes.len();
            }
        }
        store_groups(groups, writer, edits)
    }
}

/// Neighbours that go into one chunk.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    parts: Vec<Part>,
    files: Vec<Vec<Rewritten>>,
}

impl Group {
    fn add(&mut self, file: Small) {
        let (start, len) = (self.bytes.len() as u32, file.bytes.len() as u32);
        self.bytes.extend_from_slice(&file.bytes);
        self.parts.push(Part { hash: file.hash, start, len });
        self.files.push(file.files);
    }
}

fn store_groups(groups: Vec<Group>, writer: &mut Writer<'_>, edits: &mut Edits) -> Result<()> {
    let mut chunks = Vec::with_capacity(groups.len());
    let mut members = Vec::with_capacity(groups.len());
    for Group { bytes, parts, files } in groups {
        members.push((parts.clone(), files));
        chunks.push((bytes, parts));
    }
    let extents = writer.put_all(chunks)?;
    for (whole, (parts, files)) in extents.into_iter().zip(members) {
        for (part, files) in parts.into_iter().zip(files) {
            // A group that is stored already as a part of something else
            // starts where that part starts.
            let start = whole.start + part.start;
            let extent = Extent { chunk: whole.chunk, start, len: part.len };
            for (file, inode, before) in files {
                settle(file, inode, &before, Extents::from([(0, extent)]), edits);
            }
        }
    }
    Ok(())
}

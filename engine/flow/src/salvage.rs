//! What can still be had from a damaged archive.
//!
//! Neighbours: `format::archive` for the frames, `format::tree` to put inner
//! nodes over the leaves that are left, `extract` to restore. Promises: needs
//! neither footer nor index nor inner nodes; every file whose records and
//! chunks are there is restored exactly; what is known to be lost is named.
//! Never: gives a file of which a part is missing. Tested by
//! `tests/tests/damage.rs`.

use crate::archive::{AskPassphrase, ReadKeys, open_regular, read_header};
use crate::error::{FlowError, Result};
use crate::extract::{ExtractOptions, Extracted, extract_salvaged};
use crate::progress::{Problem, Progress};
use crate::reader::TreeReader;
use crate::source::ChunkSource;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use warp_format::archive::{
    FOOTER_LEN, FOOTER_MAGIC, FRAME_LEN, Frame, HEADER_LEN, Header, RECORD_MAGIC,
};
use warp_format::codec::{Level, Packer, Unpacker};
use warp_format::record::{Key, KeyKind, Record};
use warp_format::tree::{Builder, Node};
use warp_format::{
    ChunkId, ChunkKind, ChunkRef, FileId, PlainChunk, SEAL_HEADER_LEN, SealHeader, SealedChunk,
};

/// Bytes read at once while looking for records.
const SCAN_LEN: usize = 4 << 20;

/// What a scan found, and nodes made here over it.
struct Rescued {
    file: File,
    path: std::path::PathBuf,
    places: HashMap<ChunkId, (u64, u32)>,
    made: HashMap<ChunkId, SealedChunk>,
}

impl ChunkSource for Rescued {
    fn fetch(&self, id: &ChunkId) -> Result<SealedChunk> {
        if let Some(sealed) = self.made.get(id) {
            return Ok(sealed.clone());
        }
        let (offset, len) = self.places.get(id).ok_or(FlowError::Missing { id: *id })?;
        let mut bytes = vec![0; *len as usize];
        self.file.read_exact_at(&mut bytes, *offset).map_err(|e| FlowError::io(&self.path, e))?;
        Ok(SealedChunk::verify(*id, bytes)?)
    }
}

/// A leaf found by the scan.
struct Leaf {
    reference: ChunkRef,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
    /// End of its record in the file.
    end: u64,
    start: u64,
}

/// Restores what is left of the archive at `path`.
pub fn salvage(
    path: &Path,
    ask: AskPassphrase<'_>,
    options: &ExtractOptions,
    progress: &Progress,
) -> Result<Extracted> {
    let (file, len) = open_regular(path)?;
    let header = find_header(&file, path, len)?;
    let keys = ReadKeys::unlock(&header, path, ask)?;
    progress.set_total(len);
    let mut scan = Scan { file: &file, path, len, keys: &keys, unpacker: Unpacker::new() };
    let mut found = scan.run(progress)?;
    found.leaves.sort_by(|a, b| a.first_key.cmp(&b.first_key));
    let mut rescued = Rescued {
        file,
        path: path.into(),
        places: std::mem::take(&mut found.places),
        made: HashMap::new(),
    };
    let root = grow_tree(&mut rescued, &keys, &mut found.leaves)?;
    let torn = torn_files(&found);
    let reader = TreeReader::new(rescued, keys, root);
    let orphans = |reached: &HashSet<FileId>| orphans(&reader, reached);
    let mut result = extract_salvaged(&reader, options, &torn, &orphans, progress)?;
    // Of chosen paths nobody expects all files.
    if options.paths.is_empty()
        && let Some(lost) = lost_count(&reader, &result.reached)?
    {
        use std::os::unix::ffi::OsStrExt;
        let path = path.as_os_str().as_bytes().to_vec();
        result.extracted.problems.push(Problem { path, error: lost });
    }
    Ok(result.extracted)
}

/// The header, or its copy in the footer, or the assumption of an unsealed
/// archive (whose keys are public), which the scan then proves or not.
fn find_header(file: &File, path: &Path, len: u64) -> Result<Header> {
    let first = match read_header(file, path) {
        Ok(header) => return Ok(header),
        Err(e @ FlowError::Io { .. }) => return Err(e),
        Err(e) => e,
    };
    if let Some(at) = len.checked_sub(FOOTER_LEN as u64) {
        let mut footer = [0; FOOTER_LEN];
        file.read_exact_at(&mut footer, at).map_err(|e| FlowError::io(path, e))?;
        let copy = &footer[FOOTER_MAGIC.len() + 4..][..HEADER_LEN];
        if let Ok(header) = Header::decode(copy) {
            return Ok(header);
        }
    }
    // A sealed chunk's suite byte tells whether keys would be needed.
    match first_suite(file, len) {
        Some(warp_format::Suite::Plain) => Ok(Header { slot: None }),
        _ => Err(first),
    }
}

fn first_suite(file: &File, len: u64) -> Option<warp_format::Suite> {
    let mut window = vec![0; SCAN_LEN.min(usize::try_from(len).ok()?)];
    file.read_exact_at(&mut window, 0).ok()?;
    window.windows(FRAME_LEN + SEAL_HEADER_LEN).find_map(|bytes| {
        let frame = bytes.starts_with(&RECORD_MAGIC).then(|| Frame::decode(bytes).ok())??;
        let header = SealHeader::decode(&bytes[FRAME_LEN..]).ok()?;
        (header.sealed_len() == frame.len).then_some(header.suite)
    })
}

#[derive(Default)]
struct Found {
    places: HashMap<ChunkId, (u64, u32)>,
    leaves: Vec<Leaf>,
    /// Ranges of the file in which a leaf may have been.
    unread: Vec<(u64, u64)>,
    /// Leaves of which an inner node says that they follow each other.
    adjacent: HashSet<(ChunkId, ChunkId)>,
}

struct Scan<'a> {
    file: &'a File,
    path: &'a Path,
    len: u64,
    keys: &'a ReadKeys,
    unpacker: Unpacker,
}

impl Scan<'_> {
    fn run(&mut self, progress: &Progress) -> Result<Found> {
        let mut found = Found::default();
        let mut at = HEADER_LEN as u64;
        let mut readable_to = at;
        while let Some(frame_at) = self.next_magic(at)? {
            progress.check()?;
            match self.record(frame_at, &mut found)? {
                Some(end) => {
                    if frame_at > readable_to && !self.was_data(readable_to, frame_at)? {
                        found.unread.push((readable_to, frame_at));
                    }
                    readable_to = end;
                    at = end;
                }
                // Not a record, or a damaged one: a whole one may begin at
                // the next byte.
                None => at = frame_at + 1,
            }
            progress.add_bytes(at.saturating_sub(progress.done()));
        }
        found.unread.push((readable_to, self.len));
        Ok(found)
    }

    /// True if the damaged bytes from `from` to `to` are one data chunk, by
    /// what its frame and header still say.
    fn was_data(&self, from: u64, to: u64) -> Result<bool> {
        let mut bytes = [0; FRAME_LEN + SEAL_HEADER_LEN];
        if from + bytes.len() as u64 > to {
            return Ok(false);
        }
        self.read(&mut bytes, from)?;
        let (frame, header) = bytes.split_at(FRAME_LEN);
        Ok(match (Frame::decode(frame), SealHeader::decode(header)) {
            (Ok(frame), Ok(header)) => {
                header.kind == ChunkKind::Data
                    && header.sealed_len() == frame.len
                    && from + (FRAME_LEN + frame.len) as u64 == to
            }
            _ => false,
        })
    }

    /// Offset of the next record magic at or after `from`.
    fn next_magic(&self, mut from: u64) -> Result<Option<u64>> {
        let mut window = Vec::new();
        while from + (FRAME_LEN as u64) <= self.len {
            // Records follow each other, so mostly the first bytes match.
            let want = if window.is_empty() { FRAME_LEN } else { SCAN_LEN };
            let want = want.min((self.len - from) as usize);
            window.resize(want, 0);
            self.file.read_exact_at(&mut window, from).map_err(|e| FlowError::io(self.path, e))?;
            let place = window.windows(RECORD_MAGIC.len()).position(|w| w == RECORD_MAGIC);
            match place {
                Some(place) => return Ok(Some(from + place as u64)),
                None => from += (want - (RECORD_MAGIC.len() - 1)) as u64,
            }
        }
        Ok(None)
    }

    /// Reads the record at `at`; gives its end if it is whole.
    fn record(&mut self, at: u64, found: &mut Found) -> Result<Option<u64>> {
        let mut frame = [0; FRAME_LEN];
        if at + FRAME_LEN as u64 > self.len {
            return Ok(None);
        }
        self.read(&mut frame, at)?;
        let Ok(frame) = Frame::decode(&frame) else { return Ok(None) };
        let start = at + FRAME_LEN as u64;
        let end = start + frame.len as u64;
        if end > self.len {
            return Ok(None);
        }
        // Its own header must agree before so many bytes are read for it.
        let mut header = [0; SEAL_HEADER_LEN];
        self.read(&mut header, start)?;
        let kind = match SealHeader::decode(&header) {
            Ok(header) if header.sealed_len() == frame.len => header.kind,
            _ => return Ok(None),
        };
        let mut bytes = vec![0; frame.len];
        self.read(&mut bytes, start)?;
        let sealed = SealedChunk::found(bytes);
        if !frame.is_for(&sealed.id()) {
            return Ok(None);
        }
        found.places.insert(sealed.id(), (start, frame.len as u32));
        if kind == ChunkKind::Node
            && let Ok((_, plain)) = self.keys.sealer.open_any(&mut self.unpacker, &sealed)
        {
            self.node(&sealed, plain, at, end, found);
        }
        Ok(Some(end))
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(bytes, at).map_err(|e| FlowError::io(self.path, e))
    }

    fn node(&self, sealed: &SealedChunk, plain: Vec<u8>, start: u64, end: u64, found: &mut Found) {
        let len = plain.len();
        let Ok(node) = Node::decode(plain) else { return };
        if node.level() == 1 {
            let id = |i: usize| node.child(i).map(|child| child.node.id);
            for i in 1..node.len() {
                found.adjacent.extend(id(i - 1).zip(id(i)));
            }
        }
        let last = node.len().checked_sub(1).and_then(|i| node.key_bytes(i));
        if let (0, Some(first), Some(last)) = (node.level(), node.key_bytes(0), last) {
            let hash = node.content_hash(&self.keys.naming);
            let reference = self.keys.sealer.reference(sealed, hash, len);
            let (first_key, last_key) = (first.to_vec(), last.to_vec());
            found.leaves.push(Leaf { reference, first_key, last_key, end, start });
        }
    }
}

/// Puts inner nodes over the leaves, which are sorted; drops what does not
/// fit (an older leaf left behind in the file).
fn grow_tree(rescued: &mut Rescued, keys: &ReadKeys, leaves: &mut Vec<Leaf>) -> Result<ChunkRef> {
    let mut last: Vec<u8> = Vec::new();
    leaves.retain(|leaf| {
        let fits = leaf.first_key > last;
        if fits {
            last.clone_from(&leaf.last_key);
        }
        fits
    });
    let mut packer = Packer::new(Level::DEFAULT);
    let mut unpacker = Unpacker::new();
    let mut made = HashMap::new();
    let mut tree = Builder::new(&keys.naming, |node: PlainChunk| -> Result<ChunkRef> {
        let sealed = keys.sealer.seal(&packer.pack(&node));
        let reference = keys.sealer.reference(&sealed, node.hash(), node.bytes().len());
        made.insert(sealed.id(), sealed);
        Ok(reference)
    });
    for leaf in leaves.iter() {
        let sealed = rescued.fetch(&leaf.reference.id)?;
        let node = keys.sealer.open_node(&keys.naming, &mut unpacker, &leaf.reference, &sealed)?;
        tree.push_leaf(leaf.reference, &node)?;
    }
    let root = tree.finish()?;
    rescued.made = made;
    Ok(root)
}

/// Files whose records run over a place where a leaf may have been lost, and
/// which other checks would not find incomplete: attributes may be missing.
fn torn_files(found: &Found) -> HashSet<FileId> {
    let mut torn = HashSet::new();
    for pair in found.leaves.windows(2) {
        let [before, after] = pair else { continue };
        // Leaves are written in key order, so one that is missing here was in
        // an unreadable range between these two.
        let gap = found.unread.iter().any(|(from, to)| *from < after.start && *to > before.end)
            && !found.adjacent.contains(&(before.reference.id, after.reference.id));
        let keys = (Key::decode(&before.last_key), Key::decode(&after.first_key));
        if let (true, (Ok(last), Ok(first))) = (gap, keys) {
            // From its first link record on, a file's attributes are all
            // there; missing extents show in the stored length.
            let attributes_done = !matches!(last.kind, KeyKind::Inode | KeyKind::Xattr(_));
            if last.file == first.file && !attributes_done {
                torn.insert(last.file);
            }
        }
    }
    torn
}

/// Inodes that no restored name leads to, and whose directory is not among
/// them: the tops of what goes to `lost+found`.
fn orphans(reader: &TreeReader<Rescued>, reached: &HashSet<FileId>) -> Result<Vec<FileId>> {
    let mut unreached = Vec::new();
    let mut below_unreached = HashSet::new();
    let mut walk = reader.all_records()?;
    loop {
        let (key, record) = match walk.next_record() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            // Its file was named when it was to be restored.
            Err(e) if e.is_damage() => {
                walk.skip();
                continue;
            }
            Err(e) => return Err(e),
        };
        if reached.contains(&key.file) || key.file == FileId::META {
            continue;
        }
        if let Record::Dentry(dentry) = &record {
            below_unreached.insert(dentry.file);
        }
        let top = matches!(record, Record::Inode(_) | Record::Dentry(_));
        if top && unreached.last() != Some(&key.file) {
            unreached.push(key.file);
        }
    }
    unreached.retain(|file| *file != FileId::ROOT && !below_unreached.contains(file));
    Ok(unreached)
}

/// How many inodes the archive had beyond those that were found, if it says.
fn lost_count(
    reader: &TreeReader<Rescued>,
    reached: &HashSet<FileId>,
) -> Result<Option<FlowError>> {
    let Ok(summary) = reader.summary() else {
        return Ok(Some(FlowError::Lost { what: "end, with the count of files," }));
    };
    // A tombstone is reached as its file would be.
    let (found, had) = (reached.len() as u64, summary.inodes + summary.unread);
    Ok((found < had).then_some(FlowError::LostFiles { found, had }))
}

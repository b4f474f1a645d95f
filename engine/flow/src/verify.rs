//! Reads and checks an archive, and says what it did not read.
//!
//! Neighbours: `reader` walks the tree with the same checks that extraction
//! goes through, so the two agree. Promises: after a whole verification
//! without findings, every byte of the file has been checked and every file
//! can be extracted; with findings, each damaged file is named.
//! Tested by `tests/tests/archive.rs` and `tests/tests/damage.rs`.

use crate::archive::ArchiveFile;
use crate::error::{FlowError, Result};
use crate::limits::{SEAL_QUEUE, workers};
use crate::progress::{Problem, Progress};
use crate::reader::{Attributes, TreeReader};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use warp_format::record::{Body, Dentry, Extent};
use warp_format::tree::Node;
use warp_format::{ChunkId, ChunkRef, FileId, FormatError, SealedChunk};

/// How much to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Depth {
    /// Every byte.
    Everything,
    /// Everything but data chunks, and of those this share (0 to 1), chosen
    /// by `seed`.
    Sample {
        /// Share of the data chunks.
        share: f64,
        /// Which of them.
        seed: u64,
    },
}

/// What was checked.
#[derive(Debug)]
pub struct Verified {
    /// Files, directories and other names whose records were checked.
    pub names: u64,
    /// Data chunks in the archive.
    pub chunks: u64,
    /// Data chunks that were read, opened and compared with their hashes.
    pub chunks_read: u64,
    /// Tree nodes (all are always checked).
    pub nodes: u64,
    /// Bytes of the archive file.
    pub archive_bytes: u64,
    /// What is wrong; each damaged file by its path.
    pub problems: Vec<Problem>,
}

/// Which claims about each index entry have been seen: 0 for none, else a
/// mark of the last. Of two references that differ, both are checked; marks
/// are hashes under a key of this run, so nobody can choose two that agree.
struct Claims {
    marks: Vec<u64>,
    hasher: RandomState,
}

impl Claims {
    fn new(count: u64) -> Self {
        Self { marks: vec![0; count as usize], hasher: RandomState::new() }
    }

    /// True if this claim is a new one.
    fn add(&mut self, at: u64, claim: &ChunkRef) -> bool {
        let mark = self.hasher.hash_one(claim).max(1);
        std::mem::replace(&mut self.marks[at as usize], mark) != mark
    }

    fn none(&self, at: u64) -> bool {
        self.marks[at as usize] == 0
    }
}

/// Verifies an archive with its keys.
pub fn verify(
    reader: &TreeReader<ArchiveFile>,
    depth: Depth,
    progress: &Progress,
) -> Result<Verified> {
    let archive = reader.source();
    let count = archive.footer().index_count;
    progress.set_total(count);
    let mut problems = Vec::new();
    if let Err(e) = archive.check_layout() {
        problems.push(about_archive(archive, e)?);
    }
    let mut seen = Claims::new(count);
    let bad: Bad = Mutex::default();
    let (tx, rx) = sync_channel::<ChunkRef>(SEAL_QUEUE * 8);
    let rx = Mutex::new(rx);
    let mut verified = Verified {
        names: 0,
        chunks: 0,
        chunks_read: 0,
        nodes: 0,
        archive_bytes: archive.file_len(),
        problems: Vec::new(),
    };
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..workers() {
            scope.spawn(|| check_chunks(reader, &rx, &bad, progress));
        }
        let tx = tx;
        walk(reader, progress, &mut problems, &mut verified.names, &mut |_, extents| {
            for (_, extent) in extents {
                let Some((at, _)) = archive.position(&extent.chunk.id)? else {
                    let error = FlowError::Missing { id: extent.chunk.id };
                    lock(&bad).insert(extent.chunk, error);
                    continue;
                };
                if !seen.add(at, &extent.chunk) {
                    continue;
                }
                verified.chunks += 1;
                if depth.takes(at) {
                    verified.chunks_read += 1;
                    // The workers outlive this sender.
                    let _ = tx.send(extent.chunk);
                } else {
                    progress.add_bytes(1);
                }
            }
            Ok(())
        })
    })?;
    rest(reader, &seen, &mut verified, &mut problems, progress)?;
    let bad = bad.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !bad.is_empty() {
        name_damaged(reader, &bad, progress, &mut problems)?;
    }
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    problems.dedup_by(|a, b| a.path == b.path);
    verified.problems = problems;
    Ok(verified)
}

impl Depth {
    pub(crate) fn takes(self, at: u64) -> bool {
        match self {
            Self::Everything => true,
            Self::Sample { share, seed } => {
                // A multiplicative hash: any fixed share of the positions.
                let mixed = (at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                ((mixed >> 11) as f64) < share * (1u64 << 53) as f64
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Damage is a finding about the archive; anything else ends the job.
fn about_archive(archive: &ArchiveFile, error: FlowError) -> Result<Problem> {
    use std::os::unix::ffi::OsStrExt;
    if error.is_damage() {
        Ok(Problem { path: archive.path().as_os_str().as_bytes().to_vec(), error })
    } else {
        Err(error)
    }
}

/// References whose chunks are damaged or are not what the reference says.
type Bad = Mutex<HashMap<ChunkRef, FlowError>>;

type EachFile<'a> = dyn FnMut(&[u8], &[(u64, Extent)]) -> Result<()> + 'a;

/// Goes through all names as an extraction would, and gives each regular
/// file's extents to `each`.
fn walk(
    reader: &TreeReader<ArchiveFile>,
    progress: &Progress,
    problems: &mut Vec<Problem>,
    names: &mut u64,
    each: &mut EachFile<'_>,
) -> Result<()> {
    let mut root_problems = Vec::new();
    if let Err(e) = reader.attributes(FileId::ROOT).and_then(|_| reader.xattrs(FileId::ROOT))
        && !matches!(e, FlowError::Lost { .. })
    {
        root_problems.push(about_archive(reader.source(), e)?);
    }
    reader.visit_all(&mut |path, found| {
        progress.check()?;
        let result = found.and_then(|(dentry, attributes)| {
            *names += 1;
            check_entry(reader, path, dentry, attributes, each)
        });
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.is_damage() => {
                problems.push(Problem { path: path.to_vec(), error });
                Ok(())
            }
            Err(error) => Err(error),
        }
    })?;
    problems.append(&mut root_problems);
    Ok(())
}

fn check_entry(
    reader: &TreeReader<ArchiveFile>,
    path: &[u8],
    dentry: &Dentry,
    attributes: &Attributes,
    each: &mut EachFile<'_>,
) -> Result<()> {
    reader.xattrs(dentry.file)?;
    if let Body::Extents(_) = attributes.inode.body {
        let extents = reader.whole_extents(dentry.file, &attributes.inode)?;
        each(path, &extents)?;
    }
    Ok(())
}

fn check_chunks(
    reader: &TreeReader<ArchiveFile>,
    chunks: &Mutex<Receiver<ChunkRef>>,
    bad: &Bad,
    progress: &Progress,
) {
    loop {
        let Ok(chunk) = lock(chunks).recv() else { return };
        if let Err(e) = reader.open_chunk(&chunk) {
            lock(bad).insert(chunk, e);
        }
        progress.add_bytes(1);
    }
}

/// What no file refers to: the tree's nodes (which the walk has opened, and
/// which are hashed here once more, with any that it did not reach).
fn rest(
    reader: &TreeReader<ArchiveFile>,
    seen: &Claims,
    verified: &mut Verified,
    problems: &mut Vec<Problem>,
    progress: &Progress,
) -> Result<()> {
    let archive = reader.source();
    for at in (0..archive.footer().index_count).filter(|at| seen.none(*at)) {
        progress.check()?;
        verified.nodes += 1;
        let checked = archive.entry(at).and_then(|entry| check_id(archive, &entry));
        if let Err(e) = checked {
            problems.push(about_archive(archive, e)?);
        }
        progress.add_bytes(1);
    }
    Ok(())
}

fn check_id(archive: &ArchiveFile, entry: &warp_format::archive::IndexEntry) -> Result<()> {
    let found = SealedChunk::found(archive.read_entry(entry)?);
    if entry.is_for(&found.id()) {
        Ok(())
    } else {
        let mut id = [0; 32];
        id[..16].copy_from_slice(&entry.prefix);
        Err(FormatError::WrongId { id: ChunkId(id) }.into())
    }
}

/// A second walk, only after damage was found: which files it hits.
fn name_damaged(
    reader: &TreeReader<ArchiveFile>,
    bad: &HashMap<ChunkRef, FlowError>,
    progress: &Progress,
    problems: &mut Vec<Problem>,
) -> Result<()> {
    let mut found = Vec::new();
    let mut known = Vec::new();
    walk(reader, progress, &mut known, &mut 0, &mut |path, extents| {
        if let Some(error) = extents.iter().find_map(|(_, extent)| bad.get(&extent.chunk)) {
            found.push(Problem { path: path.to_vec(), error: error.clone() });
        }
        Ok(())
    })?;
    problems.append(&mut found);
    Ok(())
}

/// Checks a sealed archive without its passphrase: layout, every chunk
/// against its id, and the signature if there is one.
pub fn verify_without_keys(archive: &ArchiveFile, progress: &Progress) -> Result<Verified> {
    let count = archive.footer().index_count;
    progress.set_total(count);
    let mut problems = Vec::new();
    if let Err(e) = archive.check_layout() {
        problems.push(about_archive(archive, e)?);
    }
    for at in 0..count {
        progress.check()?;
        if let Err(e) = archive.entry(at).and_then(|entry| check_id(archive, &entry)) {
            problems.push(about_archive(archive, e)?);
        }
        progress.add_bytes(1);
    }
    Ok(Verified {
        names: 0,
        chunks: count,
        chunks_read: count,
        nodes: 0,
        archive_bytes: archive.file_len(),
        problems,
    })
}

/// One step of a proof.
#[derive(Debug, Clone)]
pub enum Step {
    /// A tree node, root first.
    Node {
        /// Its level; 0 is a leaf.
        level: u8,
        /// How its parent (or the footer) names it.
        node: ChunkRef,
        /// The name that was looked up through it.
        name: Vec<u8>,
    },
    /// A piece of the file.
    Extent {
        /// Offset in the file.
        offset: u64,
        /// Where the bytes are.
        extent: Extent,
    },
}

/// One file's way to the root: every node on the way down to each component
/// of `path`, and every chunk of its content, all of them read and checked.
pub fn prove(reader: &TreeReader<ArchiveFile>, path: &Path) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut at = FileId::ROOT;
    let mut names: Vec<Vec<u8>> = Vec::new();
    for name in crate::reader::components(path)? {
        let next = reader
            .lookup(at, name.as_bytes())?
            .ok_or_else(|| FlowError::NotFound { path: path.into() })?;
        names.push(name.as_bytes().to_vec());
        nodes_to(reader, &reader.dentry_key(at, name.as_bytes()), name.as_bytes(), &mut steps)?;
        at = next.file;
    }
    nodes_to(reader, &warp_format::tree::first_key_of(at), b"", &mut steps)?;
    let Some(attributes) = reader.attributes(at)? else {
        return Err(FlowError::NotFound { path: path.into() });
    };
    for (offset, extent) in reader.whole_extents(at, &attributes.inode)? {
        reader.open_chunk(&extent.chunk)?;
        steps.push(Step::Extent { offset, extent });
    }
    Ok(steps)
}

fn nodes_to(
    reader: &TreeReader<ArchiveFile>,
    key: &[u8],
    name: &[u8],
    steps: &mut Vec<Step>,
) -> Result<()> {
    let mut at = *reader.root();
    loop {
        let node: std::sync::Arc<Node> = reader.node(&at)?;
        steps.push(Step::Node { level: node.level(), node: at, name: name.to_vec() });
        match node.child_for(key) {
            Some(child) => at = child.node,
            None => return Ok(()),
        }
    }
}

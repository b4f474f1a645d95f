//! An archive file as a source of chunks.
//!
//! Neighbours: `format::archive` decodes its parts, `reader` walks the tree
//! in it. Promises: opening reads header, footer and nothing else; a lookup
//! reads a page or two of the index, whatever its size; every byte that is
//! given out has been checked against its id. Never: maps the file (a file
//! that another program cuts short would then kill the process: `pread`
//! gives an error instead). Tested by `tests/tests/archive.rs` and
//! `tests/tests/damage.rs`.

use crate::error::{FlowError, Result};
use crate::sink::Hasher;
use crate::source::ChunkSource;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use warp_format::archive::{
    FOOTER_LEN, FRAME_LEN, Footer, Frame, HEADER_LEN, Header, INDEX_ENTRY_LEN, IndexEntry,
};
use warp_format::{ChunkId, ContentSecret, FormatError, NamingKeys, SealedChunk, Sealer, Secret};

/// The keys that a reader of a tree needs.
pub struct ReadKeys {
    /// Names and content hashes.
    pub naming: NamingKeys,
    /// Opens chunks.
    pub sealer: Sealer,
}

/// The keys of an open tree, shared by all readers of one source: they take in
/// the secrets of later epochs.
pub struct TreeKeys {
    /// Names and content hashes.
    pub naming: NamingKeys,
    sealer: RwLock<Arc<Sealer>>,
}

impl From<ReadKeys> for Arc<TreeKeys> {
    fn from(ReadKeys { naming, sealer }: ReadKeys) -> Self {
        Self::new(TreeKeys { naming, sealer: RwLock::new(Arc::new(sealer)) })
    }
}

impl TreeKeys {
    /// Opens and seals chunks, as it stands now: who seals a chunk and then
    /// refers to it does both with one of these.
    pub fn sealer(&self) -> Arc<Sealer> {
        Arc::clone(&self.sealer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on chunks of these epochs open, too, and the newest seals.
    pub(crate) fn take(&self, epochs: &[(u32, Secret)]) {
        let mut sealer = self.sealer.write().unwrap_or_else(PoisonError::into_inner);
        let with = |sealer: Sealer, (epoch, secret): &(u32, Secret)| {
            sealer.with(ContentSecret::derive(secret, *epoch), *epoch)
        };
        *sealer = Arc::new(epochs.iter().fold(Sealer::clone(&sealer), with));
    }
}

/// Asks for a passphrase, once, when an archive turns out to be sealed.
pub type AskPassphrase<'a> = &'a dyn Fn() -> Result<zeroize::Zeroizing<Vec<u8>>>;

impl ReadKeys {
    /// The keys of an archive with this header.
    pub fn unlock(header: &Header, path: &Path, ask: AskPassphrase<'_>) -> Result<Self> {
        let Some(slot) = &header.slot else {
            return Ok(Self { naming: NamingKeys::public(), sealer: Sealer::plain() });
        };
        let passphrase = ask()?;
        let root: Secret = slot
            .unwrap(&passphrase)
            .map_err(|source| FlowError::File { path: path.into(), source })?;
        let sealer = Sealer::new(ContentSecret::derive(&root, 0), 0);
        Ok(Self { naming: NamingKeys::derive(&root), sealer })
    }
}

/// An open archive file.
pub struct ArchiveFile {
    file: File,
    path: PathBuf,
    footer: Footer,
}

impl ArchiveFile {
    /// Opens an archive and checks header and footer.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, len) = open_regular(path)?;
        let bad = |source| FlowError::File { path: path.into(), source };
        let header = read_header(&file, path)?;
        let footer_at = len
            .checked_sub(FOOTER_LEN as u64)
            .filter(|at| *at >= HEADER_LEN as u64)
            .ok_or(bad(FormatError::Truncated { at: "archive" }))?;
        let mut bytes = [0; FOOTER_LEN];
        file.read_exact_at(&mut bytes, footer_at).map_err(|e| FlowError::io(path, e))?;
        let footer = Footer::decode(&bytes, len).map_err(bad)?;
        if footer.header != header {
            return Err(bad(FormatError::Invalid { at: "archive header" }));
        }
        Ok(Self { file, path: path.into(), footer })
    }

    /// The footer.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The file's path, as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.footer.file_len().expect("a decoded footer has a length")
    }

    /// Reads the whole index and checks its hash and that it and the record
    /// frames tell the same: records without gaps from header to index, each
    /// indexed once. Afterwards every byte but the sealed chunks themselves
    /// has been checked.
    pub fn check_layout(&self) -> Result<()> {
        let bad = |at| FlowError::File { path: self.path.clone(), source: at };
        let mut hasher = Hasher::default();
        let mut places: Vec<IndexEntry> = Vec::new();
        let mut last: Option<IndexEntry> = None;
        for at in 0..self.footer.index_count {
            let (entry, bytes) = self.index_entry(at)?;
            hasher.update(&bytes);
            if last.is_some_and(|last| last >= entry) {
                return Err(bad(FormatError::Invalid { at: "archive index" }));
            }
            last = Some(entry);
            places.push(entry);
        }
        if hasher.finish() != self.footer.index_hash {
            return Err(bad(FormatError::Checksum { at: "archive index" }));
        }
        places.sort_unstable_by_key(|entry| entry.offset);
        let mut expected = HEADER_LEN as u64;
        for entry in places {
            let adjacent = entry.offset == expected + FRAME_LEN as u64;
            if !adjacent || !self.frame_at(expected)?.agrees_with(&entry) {
                return Err(bad(FormatError::Invalid { at: "record" }));
            }
            expected = entry.offset + u64::from(entry.len);
        }
        if expected == self.footer.index_at {
            Ok(())
        } else {
            Err(bad(FormatError::Invalid { at: "record" }))
        }
    }

    /// Position of a chunk in the index.
    pub fn position(&self, id: &ChunkId) -> Result<Option<(u64, IndexEntry)>> {
        // Ids are hashes, so the place of one among n is near its value: two
        // or three steps of interpolation, then halving as a safeguard.
        let (mut low, mut high) = (0, self.footer.index_count);
        let want = number(&id.0);
        let (mut low_key, mut high_key) = (0u64, u64::MAX);
        let mut steps = 0;
        while low < high {
            let middle = if steps < 6 && high_key > low_key {
                let span = u128::from(high - low);
                let part = u128::from(want.saturating_sub(low_key));
                let guess = (span * part / u128::from(high_key - low_key)) as u64;
                low + guess.min(high - low - 1)
            } else {
                low + (high - low) / 2
            };
            steps += 1;
            let (entry, _) = self.index_entry(middle)?;
            if entry.is_for(id) {
                return Ok(Some((middle, entry)));
            }
            if entry.prefix.as_slice() < &id.0[..16] {
                low = middle + 1;
                low_key = number(&entry.prefix);
            } else {
                high = middle;
                high_key = number(&entry.prefix);
            }
        }
        Ok(None)
    }

    /// The `n`-th index entry.
    pub fn entry(&self, n: u64) -> Result<IndexEntry> {
        Ok(self.index_entry(n)?.0)
    }

    fn index_entry(&self, n: u64) -> Result<(IndexEntry, [u8; INDEX_ENTRY_LEN])> {
        let mut bytes = [0; INDEX_ENTRY_LEN];
        let at = self.footer.index_at + n * INDEX_ENTRY_LEN as u64;
        self.read(&mut bytes, at)?;
        let entry = IndexEntry::decode(&bytes)
            .map_err(|source| FlowError::File { path: self.path.clone(), source })?;
        Ok((entry, bytes))
    }

    fn frame_at(&self, at: u64) -> Result<Frame> {
        let mut bytes = [0; FRAME_LEN];
        self.read(&mut bytes, at)?;
        Frame::decode(&bytes).map_err(|source| FlowError::File { path: self.path.clone(), source })
    }

    /// The sealed bytes that an index entry points to, whatever they are.
    pub fn read_entry(&self, entry: &IndexEntry) -> Result<Vec<u8>> {
        let end = entry.offset.checked_add(u64::from(entry.len));
        let inside = entry.offset >= (HEADER_LEN + FRAME_LEN) as u64
            && end.is_some_and(|end| end <= self.footer.index_at);
        if !inside || !self.frame_at(entry.offset - FRAME_LEN as u64)?.agrees_with(entry) {
            let source = FormatError::Invalid { at: "index entry" };
            return Err(FlowError::File { path: self.path.clone(), source });
        }
        let mut bytes = vec![0; entry.len as usize];
        self.read(&mut bytes, entry.offset)?;
        Ok(bytes)
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(bytes, at).map_err(|e| {
            if e.kind() == io::ErrorKind::UnexpectedEof {
                // It was whole when it was opened.
                let source = FormatError::Truncated { at: "archive" };
                FlowError::File { path: self.path.clone(), source }
            } else {
                FlowError::io(&self.path, e)
            }
        })
    }
}

impl ChunkSource for ArchiveFile {
    fn fetch(&self, id: &ChunkId) -> Result<SealedChunk> {
        let (_, entry) = self.position(id)?.ok_or(FlowError::Missing { id: *id })?;
        Ok(SealedChunk::verify(*id, self.read_entry(&entry)?)?)
    }
}

/// Opens what must be a regular file; gives its length too.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64)> {
    let meta = std::fs::metadata(path).map_err(|e| FlowError::io(path, e))?;
    if meta.is_dir() {
        return Err(FlowError::BadPath {
            path: path.into(),
            why: "is a directory, not an archive",
        });
    }
    if !meta.is_file() {
        let why = "is not a regular file (an archive is read at random)";
        return Err(FlowError::BadPath { path: path.into(), why });
    }
    let file = File::open(path).map_err(|e| FlowError::io(path, e))?;
    let len = file.metadata().map_err(|e| FlowError::io(path, e))?.len();
    Ok((file, len))
}

/// Reads and decodes the header at the start of a file.
pub(crate) fn read_header(file: &File, path: &Path) -> Result<Header> {
    let bad = |source| FlowError::File { path: path.into(), source };
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    io::Read::read_to_end(&mut io::Read::take(file, HEADER_LEN as u64), &mut bytes)
        .map_err(|e| FlowError::io(path, e))?;
    Header::decode(&bytes).map_err(bad)
}

fn number(prefix: &[u8]) -> u64 {
    prefix.first_chunk::<8>().map_or(0, |head| u64::from_be_bytes(*head))
}

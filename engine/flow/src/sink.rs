//! The archive file as it is written: records as they come, then index and
//! footer.
//!
//! Neighbours: `create` gives sealed chunks in order. Promises: front to back
//! only, so a pipe will do; [`OutputFile`] appears under its name whole or
//! not at all. Tested by `tests/tests/archive.rs`.

use crate::error::{FlowError, Result};
use rustix::fs as rfs;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use warp_format::archive::{FRAME_LEN, Footer, Frame, HEADER_LEN, Header, IndexEntry};
use warp_format::keys::SigningKey;
use warp_format::{ChunkRef, SealedChunk};

/// Writes the container.
pub(crate) struct Sink<'a> {
    output: BufWriter<&'a mut (dyn Write + Send)>,
    at: u64,
    index: Vec<IndexEntry>,
}

fn failed(e: io::Error) -> FlowError {
    FlowError::io("output", e)
}

impl<'a> Sink<'a> {
    pub(crate) fn new(output: &'a mut (dyn Write + Send), header: &Header) -> Result<Self> {
        let mut output = BufWriter::with_capacity(1 << 20, output);
        output.write_all(&header.encode()).map_err(failed)?;
        Ok(Self { output, at: HEADER_LEN as u64, index: Vec::new() })
    }

    /// Appends a chunk.
    pub(crate) fn put(&mut self, sealed: &SealedChunk) -> Result<()> {
        let bytes = sealed.bytes();
        self.output.write_all(&Frame::of(sealed).encode()).map_err(failed)?;
        self.output.write_all(bytes).map_err(failed)?;
        let offset = self.at + FRAME_LEN as u64;
        self.index.push(IndexEntry::new(&sealed.id(), offset, bytes.len() as u32));
        self.at = offset + bytes.len() as u64;
        Ok(())
    }

    /// Writes index and footer; gives the length of the whole.
    pub(crate) fn finish(
        mut self,
        root: ChunkRef,
        header: Header,
        signer: Option<&SigningKey>,
    ) -> Result<u64> {
        self.index.sort_unstable();
        let mut hasher = Hasher::default();
        for entry in &self.index {
            let bytes = entry.encode();
            hasher.update(&bytes);
            self.output.write_all(&bytes).map_err(failed)?;
        }
        let mut footer = Footer {
            header,
            root,
            index_at: self.at,
            index_count: self.index.len() as u64,
            index_hash: hasher.finish(),
            signature: None,
        };
        if let Some(key) = signer {
            footer.sign(key);
        }
        self.output.write_all(&footer.encode()).map_err(failed)?;
        self.output.flush().map_err(failed)?;
        Ok(footer.file_len().expect("what was written has a length"))
    }
}

/// The hash over the index.
#[derive(Default)]
pub(crate) struct Hasher(blake3::Hasher);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

/// A file that is written under a temporary name beside its final one.
pub struct OutputFile {
    file: Option<File>,
    temporary: PathBuf,
    target: PathBuf,
    force: bool,
}

impl OutputFile {
    /// Starts a file that will be `target`; fails if that exists, unless
    /// `force`.
    pub fn create(target: &Path, force: bool) -> Result<Self> {
        if !force && rfs::lstat(target).is_ok() {
            return Err(FlowError::Exists { path: target.into() });
        }
        let bad = |why| FlowError::BadPath { path: target.into(), why };
        let name = target.file_name().ok_or_else(|| bad("not a file name"))?;
        if target.is_dir() {
            return Err(bad("is a directory"));
        }
        if target.exists() && !target.is_file() {
            return Err(bad("is no regular file, and is not replaced"));
        }
        let mut hidden = std::ffi::OsString::from(".");
        // The name of the temporary file must fit too.
        hidden.push(if name.len() < 200 { name } else { std::ffi::OsStr::new("archive") });
        let random = u64::from_le_bytes(crate::home::random_array()?);
        hidden.push(format!(".{random:016x}.tmp"));
        let temporary = target.with_file_name(hidden);
        // A new file only: in a directory of others, a name that could be
        // guessed may be a link to anywhere.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(&temporary)
            .map_err(|e| FlowError::io(target, e))?;
        Ok(Self { file: Some(file), temporary, target: target.into(), force })
    }

    /// Device and inode of the file, and of the one that it will replace.
    pub fn identities(&self) -> Vec<(u64, u64)> {
        [&self.temporary, &self.target]
            .into_iter()
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|meta| (meta.dev(), meta.ino()))
            .collect()
    }

    /// Makes the file durable and gives it its name.
    pub fn commit(mut self) -> Result<()> {
        let at = |e: io::Error| FlowError::io(&self.target, e);
        let file = self.file.take().expect("commit comes once");
        file.sync_all().map_err(at)?;
        let flags =
            if self.force { rfs::RenameFlags::empty() } else { rfs::RenameFlags::NOREPLACE };
        let cwd = rfs::CWD;
        let renamed = match rfs::renameat_with(cwd, &self.temporary, cwd, &self.target, flags) {
            // A filesystem without NOREPLACE: the check at the start stands.
            Err(rustix::io::Errno::INVAL) => rfs::rename(&self.temporary, &self.target),
            other => other,
        };
        renamed.map_err(|e| match e {
            rustix::io::Errno::EXIST => FlowError::Exists { path: self.target.clone() },
            e => FlowError::io(&self.target, e),
        })?;
        let dir = match self.target.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| FlowError::io(dir, e))
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().expect("not committed").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        // After a commit the temporary name is gone already.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

//! Fetches content before anybody reads it.
//!
//! Neighbours: `warp warmup` asks for it; `follow` has the tree, `swarm` the
//! peers. Promises: what it says is here, was here when it looked. Never: opens
//! what it fetches. Tested by `tests/tests/peers.rs`.

use super::{Follower, Tree};
use crate::error::Result;
use crate::limits::WARM_AHEAD;
use crate::progress::{Problem, Progress};
use crate::source::ChunkSource as _;
use crate::swarm::Explained;
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use warp_format::record::{FileType, Inode};
use warp_format::{ChunkRef, FileId};

/// What a warm-up found, and did.
#[derive(Debug, Default)]
pub struct Warmed {
    /// Files.
    pub files: u64,
    /// Chunks of their content.
    pub chunks: u64,
    /// Bytes in these.
    pub bytes: u64,
    /// Of these, how many were here before.
    pub bytes_here: u64,
    /// What could not be looked at or had.
    pub problems: Vec<Problem>,
    /// How chunks came, if that was asked for: those of content and those
    /// of the tree.
    pub explained: Vec<Explained>,
}

/// What a warm-up does besides.
#[derive(Debug, Clone, Copy, Default)]
pub struct WarmHow {
    /// Fetches no content: it only says how much is here.
    pub check: bool,
    /// Notes how each chunk comes.
    pub explain: bool,
}

/// What is to be fetched.
#[derive(Default)]
struct Wanted {
    chunks: Vec<ChunkRef>,
    seen: HashSet<ChunkRef>,
}

impl Wanted {
    fn add(&mut self, tree: &Tree, file: FileId, inode: &Inode) -> Result<()> {
        for (_, extent) in tree.whole_extents(file, inode)? {
            if self.seen.insert(extent.chunk) {
                self.chunks.push(extent.chunk);
            }
        }
        Ok(())
    }
}

impl Follower {
    /// Fetches all content of a file, or of everything below a directory.
    pub fn warm(&self, path: &Path, how: WarmHow, progress: &Progress) -> Result<Warmed> {
        let listener = how.explain.then(|| self.source.swarm.explain());
        let tree = self.tree()?;
        let mut warmed = Warmed::default();
        let mut wanted = Wanted::default();
        let problem = |path: &[u8], error| Problem { path: path.to_vec(), error };
        let (top, inode) = Self::find(&tree, path)?;
        match inode.file_type() {
            FileType::Regular => {
                warmed.files = 1;
                wanted.add(&tree, top, &inode)?;
            }
            FileType::Directory => tree.visit_below(top, b"", &mut |path, found| {
                progress.check()?;
                let added = match found {
                    Ok((dentry, found)) if dentry.file_type == FileType::Regular => {
                        warmed.files += 1;
                        wanted.add(&tree, dentry.file, &found.inode)
                    }
                    Ok(_) => Ok(()),
                    Err(e) => Err(e),
                };
                if let Err(e) = added {
                    warmed.problems.push(problem(path, e));
                }
                Ok(())
            })?,
            _ => {}
        }
        warmed.chunks = wanted.chunks.len() as u64;
        warmed.bytes = wanted.chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        let here = |chunk: &&ChunkRef| self.store().contains(&chunk.id);
        warmed.bytes_here =
            wanted.chunks.iter().filter(here).map(|chunk| u64::from(chunk.len)).sum();
        if !how.check {
            progress.set_total(warmed.bytes);
            if let Err(e) = self.fetch_all(&wanted.chunks, progress) {
                // The others would fail for the same reason, each after a while.
                warmed.problems.push(problem(path.as_os_str().as_bytes(), e));
            }
        }
        warmed.explained = listener.map(|listener| listener.take()).unwrap_or_default();
        Ok(warmed)
    }

    fn fetch_all(&self, chunks: &[ChunkRef], progress: &Progress) -> Result<()> {
        for (n, chunk) in chunks.iter().enumerate() {
            progress.check()?;
            if n % (WARM_AHEAD / 2) == 0 {
                self.source.expect(&chunks[n..chunks.len().min(n + WARM_AHEAD)]);
            }
            if !self.store().contains(&chunk.id) {
                self.source.fetch(&chunk.id)?;
            }
            progress.add_bytes(u64::from(chunk.len));
        }
        Ok(())
    }
}

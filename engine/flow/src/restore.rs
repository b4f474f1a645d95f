//! A snapshot, brought back onto the host.
//!
//! Neighbours: `snapshots` has its tree, `extract` writes it. Promises: what
//! is counted first is what is written then; the snapshot stays until it is
//! done, whoever takes it away. Never: replaces anything, unless told to.
//! Tested by `tests/tests/snapshots.rs`.

use crate::error::{FlowError, Result};
use crate::extract::{ExtractOptions, Extracted, extract};
use crate::live::Tree;
use crate::portal::Portal;
use crate::progress::{Problem, Progress};
use crate::reader::{Attributes, components};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use warp_format::record::{Body, FileType};

impl Portal {
    /// Extracts from the snapshot of this name.
    pub fn restore(
        &self,
        snapshot: &str,
        options: &ExtractOptions,
        progress: &Progress,
    ) -> Result<Extracted> {
        let (_, tree) = self.open_snapshot(snapshot)?;
        progress.set_total(count(&tree, options, progress)?.bytes);
        extract(&tree, options, progress)
    }

    /// Says what [`Self::restore`] would do: how much it would write, and what
    /// is in the way.
    pub fn plan_restore(
        &self,
        snapshot: &str,
        options: &ExtractOptions,
        progress: &Progress,
    ) -> Result<Extracted> {
        let (_, tree) = self.open_snapshot(snapshot)?;
        count(&tree, options, progress)
    }
}

/// What would be extracted.
fn count(tree: &Tree, options: &ExtractOptions, progress: &Progress) -> Result<Extracted> {
    let mut found = Extracted { names: 0, bytes: 0, problems: Vec::new() };
    let top = tree.resolve(&options.top)?;
    let whole = [PathBuf::new()];
    let paths = if options.paths.is_empty() { &whole[..] } else { &options.paths };
    for path in paths {
        let file = tree.resolve_from(top, path)?;
        let names: Vec<Vec<u8>> =
            components(path)?.iter().map(|name| name.as_bytes().to_vec()).collect();
        let path = names.join(&b'/');
        let attributes = tree.attributes(file)?.ok_or(FlowError::Lost { what: "inode record" })?;
        if !path.is_empty() {
            one(&path, &attributes, options, &mut found);
        }
        if attributes.inode.file_type() == FileType::Directory {
            tree.visit_below(file, &path, &mut |path, entry| {
                progress.check()?;
                match entry {
                    Ok((_, attributes)) => one(path, attributes, options, &mut found),
                    Err(error) => found.problems.push(Problem { path: path.into(), error }),
                }
                Ok(())
            })?;
        }
    }
    Ok(found)
}

fn one(path: &[u8], attributes: &Attributes, options: &ExtractOptions, found: &mut Extracted) {
    let on_host = options.target.join(Path::new(OsStr::from_bytes(path)));
    let is_directory = attributes.inode.file_type() == FileType::Directory;
    let there = std::fs::symlink_metadata(&on_host);
    if there.is_ok_and(|there| !(is_directory && there.is_dir() || options.force)) {
        let error = FlowError::Exists { path: OsStr::from_bytes(path).into() };
        found.problems.push(Problem { path: path.into(), error });
        return;
    }
    found.names += 1;
    if let Body::Extents(_) | Body::Inline(_) = attributes.inode.body {
        found.bytes += attributes.inode.size;
    }
}

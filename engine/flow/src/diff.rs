//! What differs between two archives.
//!
//! Neighbours: `reader` twice. Promises: equal hashes are trusted (both
//! readers check them on every byte they open), everything else is compared
//! byte by byte, so archives of different keys can be compared. Tested by
//! `tests/tests/archive.rs`.

use crate::error::{FlowError, Result};
use crate::progress::Progress;
use crate::reader::{Attributes, TreeReader, join};
use crate::source::ChunkSource;
use std::cmp::Ordering;
use warp_format::record::{Body, Dentry, FileType};
use warp_format::{FileId, FormatError};

/// How one path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only in the second.
    Added,
    /// Only in the first.
    Removed,
    /// Content or type differs.
    Content,
    /// Only mode, owner, time, count of names or attributes differ.
    Attributes,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path in both trees.
    pub path: Vec<u8>,
    /// How.
    pub change: Change,
}

/// Compares two trees; `found` gets each difference, in order of paths.
pub fn diff<A: ChunkSource, B: ChunkSource>(
    a: &TreeReader<A>,
    b: &TreeReader<B>,
    progress: &Progress,
    found: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    if a.root().hash == b.root().hash {
        return Ok(());
    }
    if let (Some(x), Some(y)) = (root_of(a)?, root_of(b)?)
        && !same_attributes(a, FileId::ROOT, &x, b, FileId::ROOT, &y)?
    {
        found(Difference { path: b".".to_vec(), change: Change::Attributes })?;
    }
    let mut stack = vec![(Vec::new(), FileId::ROOT, FileId::ROOT)];
    while let Some((path, left, right)) = stack.pop() {
        progress.check()?;
        if path.iter().filter(|byte| **byte == b'/').count() > crate::limits::MAX_DEPTH {
            return Err(FormatError::Invalid { at: "directory" }.into());
        }
        let (left, right) = (listing(a, left)?, listing(b, right)?);
        let (mut l, mut r) = (left.into_iter().peekable(), right.into_iter().peekable());
        let mut below = Vec::new();
        loop {
            let order = match (l.peek(), r.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((x, _)), Some((y, _))) => x.name.cmp(&y.name),
            };
            let left = if order.is_le() { l.next() } else { None };
            let right = if order.is_ge() { r.next() } else { None };
            let name = left.as_ref().or(right.as_ref()).map(|(d, _)| d.name.as_bytes().to_vec());
            let path = join(&path, &name.unwrap_or_default());
            let change = match (&left, &right) {
                (Some(_), None) => Some(Change::Removed),
                (None, Some(_)) => Some(Change::Added),
                (Some(x), Some(y)) => {
                    if x.0.file_type == FileType::Directory && y.0.file_type == FileType::Directory
                    {
                        below.push((path.clone(), x.0.file, y.0.file));
                    }
                    compare(a, x, b, y)?
                }
                (None, None) => None,
            };
            if let Some(change) = change {
                found(Difference { path, change })?;
            }
        }
        stack.extend(below.into_iter().rev());
    }
    Ok(())
}

/// The root's attributes; an archive of loose files says nothing of its root.
fn root_of<S: ChunkSource>(reader: &TreeReader<S>) -> Result<Option<Attributes>> {
    match reader.attributes(FileId::ROOT) {
        Err(FlowError::Lost { .. }) => Ok(None),
        other => other,
    }
}

fn listing<S: ChunkSource>(
    reader: &TreeReader<S>,
    dir: FileId,
) -> Result<Vec<(Dentry, Attributes)>> {
    let mut found = Vec::new();
    for dentry in reader.read_dir(dir)? {
        if let Some(attributes) = reader.attributes(dentry.file)? {
            found.push((dentry, attributes));
        }
    }
    Ok(found)
}

fn compare<A: ChunkSource, B: ChunkSource>(
    a: &TreeReader<A>,
    (left, left_attributes): &(Dentry, Attributes),
    b: &TreeReader<B>,
    (right, right_attributes): &(Dentry, Attributes),
) -> Result<Option<Change>> {
    let (x, y) = (&left_attributes.inode, &right_attributes.inode);
    let same_content = match (&x.body, &y.body) {
        (Body::Extents(_) | Body::Inline(_), Body::Extents(_) | Body::Inline(_)) => {
            x.size == y.size && same_bytes(a, left, x, b, right, y)?
        }
        (left, right) => left == right,
    };
    if !same_content {
        return Ok(Some(Change::Content));
    }
    let same = same_attributes(a, left.file, left_attributes, b, right.file, right_attributes)?;
    Ok((!same).then_some(Change::Attributes))
}

/// Mode, owner, time, count of names and extended attributes.
fn same_attributes<A: ChunkSource, B: ChunkSource>(
    a: &TreeReader<A>,
    left: FileId,
    x: &Attributes,
    b: &TreeReader<B>,
    right: FileId,
    y: &Attributes,
) -> Result<bool> {
    let of = |at: &Attributes| {
        (at.inode.permissions, at.inode.uid, at.inode.gid, at.inode.mtime, at.links)
    };
    Ok(of(x) == of(y) && a.xattrs(left)? == b.xattrs(right)?)
}

fn same_bytes<A: ChunkSource, B: ChunkSource>(
    a: &TreeReader<A>,
    left: &Dentry,
    x: &warp_format::record::Inode,
    b: &TreeReader<B>,
    right: &Dentry,
    y: &warp_format::record::Inode,
) -> Result<bool> {
    let (left_extents, right_extents) =
        (a.whole_extents(left.file, x)?, b.whole_extents(right.file, y)?);
    // The hash is keyed: it says the same thing in both only under one key.
    let one_key = a.keys().naming.content_hash(b"") == b.keys().naming.content_hash(b"");
    let same_pieces = left_extents.len() == right_extents.len()
        && left_extents.iter().zip(&right_extents).all(|((at, l), (bt, r))| {
            (at, l.chunk.hash, l.start, l.len) == (bt, r.chunk.hash, r.start, r.len)
        });
    if one_key && same_pieces && matches!((&x.body, &y.body), (Body::Extents(_), Body::Extents(_)))
    {
        return Ok(true);
    }
    const STEP: usize = 1 << 20;
    let mut at = 0;
    while at < x.size {
        if a.read(left.file, x, at, STEP)? != b.read(right.file, y, at, STEP)? {
            return Ok(false);
        }
        at += STEP as u64;
    }
    Ok(true)
}

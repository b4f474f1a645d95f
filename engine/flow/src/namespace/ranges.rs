//! Ranges of files: allocated, cleared, and cloned.
//!
//! Neighbours: `namespace`, whose room this is; `spans` for what is where.
//! Promises: a clone of what a tree has reads no byte and stores none; like
//! every operation it is made whole or not at all, and journalled as such.
//! Never: names a chunk that a crash could take. Tested by
//! `tests/tests/ranges.rs` and `engine/flow/tests/ranges.rs`.

use super::{Namespace, Orphan, put_inode, stored};
use crate::about::{self, About};
use crate::error::{Refusal, Result};
use crate::live::{Below, Content, Tree};
use crate::volume::Allocate;
use std::ops::Range;
use std::sync::Arc;
use warp_format::FileId;
use warp_format::change::Change;
use warp_format::limits::MAX_FILE_SIZE;
use warp_format::record::{Body, FileType, Inode, Key, KeyKind, Record};

/// Bytes that are looked through first for data or holes.
const SEEK_STEP: u64 = 4 << 20;
/// Spans in one clone: an entry of the journal takes so many.
const CLONE_SPANS: usize = 4096;
/// Bytes in one clone that are in no tree yet, and are copied.
pub(crate) const COPY_BYTES: u64 = 1 << 20;

/// A file to copy from.
pub(crate) enum Source {
    /// One that can change.
    Live(FileId),
    /// One in a tree, which stays as it is.
    Tree(Arc<Tree>, FileId),
}

impl Namespace {
    /// A regular file to copy from, as [`Self::regular`] gives it.
    fn source(&self, source: &Source, from: u64, to: u64) -> Result<(Inode, Content)> {
        let (tree, file) = match source {
            Source::Live(file) => return self.regular(*file, from, to),
            Source::Tree(tree, file) => (tree, *file),
        };
        let base = Some(Arc::clone(tree));
        let inode = Below { file, base: base.as_deref() }.inode()?.ok_or(Refusal::Missing)?;
        let (pieces, stashed) = Default::default();
        regular((inode, Content { file, pieces, stashed, base }))
    }

    /// A regular file and what it has between two offsets, both as they are at
    /// one moment.
    pub(super) fn regular(&self, file: FileId, from: u64, to: u64) -> Result<(Inode, Content)> {
        let orphan = || {
            let part = |o: &mut Orphan| (o.inode.clone(), o.content.between(from, to));
            self.of_orphan(file, part)
        };
        let found = self.live.file(file, from, to)?.or_else(orphan);
        regular(found.ok_or(Refusal::Missing)?)
    }

    /// How many bytes of a range are holes.
    pub(crate) fn holes(&self, file: FileId, range: &Range<u64>) -> Result<u64> {
        let (_, content) = self.regular(file, range.start, range.end)?;
        let spans = content.spans(range.start, range.end)?;
        let data: u64 = spans.iter().map(|span| span.len).sum();
        Ok((range.end - range.start).saturating_sub(data))
    }

    /// The first data (or hole) at or after `offset`, as `lseek` has it.
    pub(crate) fn seek(&self, file: FileId, offset: u64, hole: bool) -> Result<Option<u64>> {
        let (mut at, mut step) = (offset, SEEK_STEP);
        loop {
            let to = at.saturating_add(step);
            // The longest hole has 2^63 bytes.
            step = step.saturating_mul(4);
            let (inode, content) = self.regular(file, at, to)?;
            if at >= inode.size {
                // What goes up to the end has a hole behind it.
                return Ok((hole && offset < inode.size).then_some(inode.size));
            }
            let to = to.min(inode.size);
            for span in content.spans(at, to)? {
                match (hole, span.at > at) {
                    (true, true) => return Ok(Some(at)),
                    (false, _) => return Ok(Some(span.at)),
                    (true, false) => at = span.at + span.len,
                }
            }
            if hole && at < to {
                return Ok(Some(at));
            }
            at = to;
        }
    }

    /// What is to be said of an inode; `None`: nothing, or nothing yet.
    pub(crate) fn about(&self, file: FileId, what: About) -> Result<Option<Vec<u8>>> {
        let inode = self.existing(file)?.inode;
        match what {
            About::State => return Ok(Some(about::LOCAL.to_vec())),
            About::Replicas => return Ok(Some(about::ONE.to_vec())),
            About::Chunks | About::Hash if inode.file_type() != FileType::Regular => {
                return Ok(None);
            }
            About::Chunks | About::Hash => {}
        }
        // Before its bytes are copied out, which may be many.
        let held = |orphan: &mut Orphan| orphan.content.pieces.bytes() > 0;
        if self.live.holds_bytes(file) || self.of_orphan(file, held).unwrap_or(false) {
            return Ok(None);
        }
        let (inode, content) = self.regular(file, 0, u64::MAX)?;
        let whole = content.whole(inode.size)?;
        Ok(whole.and_then(|whole| whole.says(what, &self.live.naming, inode.size)))
    }

    pub(crate) fn allocate(&self, file: FileId, range: Range<u64>, how: Allocate) -> Result<()> {
        if range.end > MAX_FILE_SIZE {
            return Err(Refusal::TooLarge.into());
        }
        let _changing = self.changing();
        let (inode, content) = self.regular(file, range.start, range.end)?;
        let size = if how.keeps_size() { inode.size } else { inode.size.max(range.end) };
        let mut changes = Vec::new();
        let mut body = stored(&inode, 0, size);
        let to = range.end.min(inode.size);
        if how.clears() && range.start < to {
            let gone: u64 = content.spans(range.start, to)?.iter().map(|span| span.len).sum();
            if let Body::Extents(stored) = &mut body {
                *stored = stored.saturating_sub(gone);
            }
            changes.push(Change::Clear { file, from: range.start, to });
        }
        if size > inode.size {
            changes.push(Change::Clear { file, from: inode.size, to: u64::MAX });
        }
        let inode = Inode { size, body, ..self.touched(inode, true) };
        changes.push(put_inode(file, inode));
        self.change(file, changes)
    }

    /// Copies bytes from one file into another, or within one; gives how many,
    /// which may be fewer than asked for. What a tree has is not copied but
    /// named again.
    pub(crate) fn copy(
        &self,
        (from, start): (&Source, u64),
        (to, target): (FileId, u64),
        len: u64,
    ) -> Result<u64> {
        let _changing = self.changing();
        let (source, content) = self.source(from, start, start.saturating_add(len))?;
        let len = len.min(source.size.saturating_sub(start));
        if len == 0 {
            return Ok(0);
        }
        let same = matches!(from, Source::Live(from) if *from == to);
        let overlap = same && start < target + len && target < start + len;
        if overlap || target.checked_add(len).is_none_or(|end| end > MAX_FILE_SIZE) {
            return Err(if overlap { Refusal::Invalid } else { Refusal::TooLarge }.into());
        }
        let (mut changes, mut end, mut data, mut copied) = (Vec::new(), start + len, 0, 0);
        for (i, span) in content.spans(start, end)?.into_iter().enumerate() {
            let room = if i < CLONE_SPANS { COPY_BYTES - copied } else { 0 };
            let offset = target + (span.at - start);
            let taken = match span.extent {
                Some(extent) if i < CLONE_SPANS => {
                    let key = Key::new(to, KeyKind::Extent(offset));
                    changes.push(Change::Put(key, Record::Extent(extent)));
                    span.len
                }
                _ => {
                    // Enough for one change.
                    let len = span.len.min(room);
                    let bytes = content.read(&self.live, span.at, len as usize)?;
                    changes.push(Change::Write { file: to, offset, bytes });
                    copied += len;
                    len
                }
            };
            data += taken;
            if taken < span.len {
                end = span.at + taken;
                break;
            }
        }
        let len = end - start;
        let (inode, _) = self.regular(to, target, target + len)?;
        let size = inode.size.max(target + len);
        let body = stored(&inode, data, size);
        let inode = Inode { size, body, ..self.touched(inode, true) };
        // Holes are copied, too.
        changes.insert(0, Change::Clear { file: to, from: target, to: target + len });
        changes.push(put_inode(to, inode));
        self.change(to, changes)?;
        Ok(len)
    }
}

fn regular((inode, content): (Inode, Content)) -> Result<(Inode, Content)> {
    match inode.file_type() {
        FileType::Regular => Ok((inode, content)),
        FileType::Directory => Err(Refusal::IsADirectory.into()),
        _ => Err(Refusal::Invalid.into()),
    }
}

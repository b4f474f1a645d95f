//! What has changed since the last published tree.
//!
//! Neighbours: `live` applies changes and asks; `publish` folds a layer into a
//! new tree. Promises: a layer says what was done, not what came of it: it
//! means the same over any tree that the same acts may already be in, so that
//! it can be laid over the next tree, and be replayed; what it names in the
//! store was durable before. Never: touches a disk, or says where in the store
//! content lies that was written: only a tree does, and what was cloned of one.
//! Tested by `engine/flow/tests/model_live.rs`.

use crate::error::Result;
use crate::reader::Opened;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use warp_format::change::Change;
use warp_format::record::{Extent, Key, KeyKind, Record};
use warp_format::{ChunkId, ChunkRef, FileId};

/// Longest run of written bytes that is kept in one piece.
const MAX_PIECE_LEN: usize = 1 << 20;

/// A range of a file, as it was last written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// This many bytes of nothing, which read as zeros.
    Hole(u64),
    /// Bytes of another file, where they lie in the store.
    Stored(Extent),
}

impl Piece {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Hole(len) => *len,
            Self::Stored(extent) => extent.len.into(),
        }
    }

    /// The part of it that lies in `from..to`, which it must contain.
    fn part(&self, from: u64, to: u64) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(bytes[from as usize..to as usize].to_vec()),
            Self::Hole(_) => Self::Hole(to - from),
            Self::Stored(extent) => {
                let (start, len) = (extent.start + from as u32, (to - from) as u32);
                Self::Stored(Extent { start, len, ..*extent })
            }
        }
    }
}

/// What was written of one file: offset → piece, none overlapping another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pieces(BTreeMap<u64, Piece>);

impl Pieces {
    /// Bytes written at an offset.
    pub(crate) fn write(&mut self, offset: u64, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        if let Some((start, Piece::Bytes(before))) = self.0.range_mut(..=offset).next_back() {
            let at = (offset - start) as usize;
            // Overwritten in place: a database's pages.
            if at + len <= before.len() {
                before[at..at + len].copy_from_slice(&bytes);
                return;
            }
        }
        self.take_out(offset, offset + len as u64);
        // Sequential writes grow one piece.
        if let Some((start, Piece::Bytes(before))) = self.0.range_mut(..offset).next_back()
            && start + before.len() as u64 == offset
            && before.len() + len <= MAX_PIECE_LEN
        {
            before.extend_from_slice(&bytes);
        } else {
            self.0.insert(offset, Piece::Bytes(bytes));
        }
    }

    /// Nothing there any more.
    pub(crate) fn clear(&mut self, from: u64, to: u64) {
        self.take_out(from, to);
        if from < to {
            self.0.insert(from, Piece::Hole(to - from));
        }
    }

    /// Bytes that lie in the store.
    pub(crate) fn place(&mut self, at: u64, extent: Extent) {
        self.take_out(at, at + u64::from(extent.len));
        self.0.insert(at, Piece::Stored(extent));
    }

    /// What was done later, on top of this.
    pub(crate) fn lay_over(&mut self, later: &Self) {
        for (at, piece) in &later.0 {
            match piece {
                Piece::Bytes(bytes) => self.write(*at, bytes.clone()),
                Piece::Hole(len) => self.clear(*at, at + len),
                Piece::Stored(extent) => self.place(*at, *extent),
            }
        }
    }

    /// Copies into `out`, which starts at `offset` in the file, what is known
    /// of it. `open` gives what lies in the store.
    pub(crate) fn copy_to(
        &self,
        offset: u64,
        out: &mut [u8],
        open: &dyn Fn(&ChunkRef) -> Result<Opened>,
    ) -> Result<()> {
        let end = offset.saturating_add(out.len() as u64);
        for (at, piece) in self.touching(offset, end) {
            let (from, to) = (at.max(offset), (at + piece.len()).min(end));
            let target = &mut out[(from - offset) as usize..(to - offset) as usize];
            match piece {
                Piece::Bytes(bytes) => {
                    target.copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
                }
                Piece::Hole(_) => target.fill(0),
                Piece::Stored(extent) => {
                    let chunk = open(&extent.chunk)?;
                    let start = extent.start as usize + (from - at) as usize;
                    target.copy_from_slice(&chunk[start..start + target.len()]);
                }
            }
        }
        Ok(())
    }

    /// True if nothing below shows through anywhere in `from..to`.
    pub(crate) fn covers(&self, from: u64, to: u64) -> bool {
        let mut at = from;
        for (start, piece) in self.touching(from, to) {
            if start > at {
                return false;
            }
            at = start + piece.len();
        }
        at >= to
    }

    /// The parts that lie in `from..to`, in order.
    pub(crate) fn within(&self, from: u64, to: u64) -> Self {
        let parts = self.touching(from, to).map(|(at, piece)| {
            let (start, end) = (at.max(from), (at + piece.len()).min(to));
            (start, piece.part(start - at, end - at))
        });
        Self(parts.collect())
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let held = self.0.values().map(|piece| match piece {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Hole(_) | Piece::Stored(_) => 0,
        });
        held.sum()
    }

    /// The chunks that it names.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.0.values().filter_map(|piece| match piece {
            Piece::Stored(extent) => Some(extent.chunk.id),
            _ => None,
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Piece)> {
        self.0.iter().map(|(at, piece)| (*at, piece))
    }

    fn touching(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &Piece)> {
        let before = self.0.range(..from).next_back();
        let before = before.filter(|(at, piece)| **at + piece.len() > from);
        let first = before.map_or(from, |(at, _)| *at);
        let range = (from < to).then(|| self.0.range(first..to)).into_iter().flatten();
        range.map(|(at, piece)| (*at, piece))
    }

    /// Takes a range out: what was below shows through.
    pub(crate) fn take_out(&mut self, from: u64, to: u64) {
        let touched: Vec<u64> = self.touching(from, to).map(|(at, _)| at).collect();
        for at in touched {
            let Some(piece) = self.0.remove(&at) else { continue };
            let end = at + piece.len();
            if end > to {
                self.0.insert(to, piece.part(to - at, end - at));
            }
            if at < from {
                self.0.insert(at, piece.part(0, from - at));
            }
        }
    }
}

/// Changes, in the order in which they were made, laid into one another.
#[derive(Debug, Default, Clone)]
pub(crate) struct Layer {
    /// `None` = removed. Never an extent: those are in `content`, or follow
    /// from it.
    pub(crate) records: BTreeMap<Key, Option<Record>>,
    /// What was written; an inode in `records` says how long the file is.
    pub(crate) content: BTreeMap<FileId, Pieces>,
    /// Inodes of which nothing below is left. Ids are never used again.
    pub(crate) deleted: BTreeSet<FileId>,
    /// Bytes that came in, those since overwritten included.
    pub(crate) bytes: u64,
    /// Changes that came in.
    pub(crate) changes: u64,
}

impl Layer {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes == 0
    }

    pub(crate) fn apply(&mut self, change: Change) {
        self.changes += 1;
        match change {
            // Cloned: bytes of the file, which lie there.
            Change::Put(Key { file, kind: KeyKind::Extent(offset) }, Record::Extent(extent)) => {
                self.content.entry(file).or_default().place(offset, extent);
            }
            Change::Put(key, record) => {
                self.records.insert(key, Some(record));
            }
            Change::Remove(key) => {
                self.records.insert(key, None);
            }
            Change::Write { file, offset, bytes } => {
                self.bytes += bytes.len() as u64;
                self.content.entry(file).or_default().write(offset, bytes);
            }
            Change::Clear { file, from, to } => {
                self.content.entry(file).or_default().clear(from, to);
            }
            Change::Delete(file) => {
                let keys: Vec<Key> =
                    self.records.range(all_of(file)).map(|(key, _)| *key).collect();
                for key in keys {
                    self.records.remove(&key);
                }
                self.content.remove(&file);
                self.deleted.insert(file);
            }
            // Says something of the disk, not of the portal.
            Change::Published(_) => self.changes -= 1,
        }
    }
}

impl Layer {
    /// The chunks that it names.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.content.values().flat_map(Pieces::chunks)
    }
}

/// The keys of one inode.
pub(crate) fn all_of(file: FileId) -> std::ops::RangeInclusive<Key> {
    let last = KeyKind::Dentry(warp_format::NameHash([0xff; 16]));
    Key::new(file, KeyKind::Meta)..=Key::new(file, last)
}

/// The layers over a tree: the one that takes changes, and below it the one
/// that is being published.
#[derive(Clone, Copy)]
pub(crate) struct Layers<'a> {
    pub(crate) active: &'a Layer,
    pub(crate) frozen: Option<&'a Layer>,
}

impl<'a> Layers<'a> {
    /// True if what the tree has of this inode no longer counts.
    pub(crate) fn hide(&self, file: FileId) -> bool {
        self.active.deleted.contains(&file)
            || self.frozen.is_some_and(|frozen| frozen.deleted.contains(&file))
    }

    /// What was made of a key; `None`: ask the tree.
    pub(crate) fn get(&self, key: &Key) -> Option<&'a Option<Record>> {
        let found = self.active.records.get(key);
        if found.is_some() || self.active.deleted.contains(&key.file) {
            return found;
        }
        self.frozen?.records.get(key)
    }

    /// The changed keys of one inode in this range, in order.
    pub(crate) fn range(&self, from: Key, to: Key) -> Changed<'a> {
        assert_eq!(from.file, to.file, "a range is of one inode");
        let hidden = self.active.deleted.contains(&from.file);
        let frozen = self.frozen.filter(|_| !hidden).map(|frozen| frozen.records.range(from..=to));
        Changed {
            active: self.active.records.range(from..=to).peekable(),
            frozen: frozen.unwrap_or_default().peekable(),
        }
    }

    /// What was written of a file: lower layer first.
    pub(crate) fn content(&self, file: FileId) -> impl Iterator<Item = &'a Pieces> {
        let hidden = self.active.deleted.contains(&file);
        let frozen = self.frozen.filter(|_| !hidden).and_then(|frozen| frozen.content.get(&file));
        frozen.into_iter().chain(self.active.content.get(&file))
    }
}

type RecordRange<'a> = std::collections::btree_map::Range<'a, Key, Option<Record>>;

/// Changed keys of two layers, the upper one's change of each.
pub(crate) struct Changed<'a> {
    active: Peekable<RecordRange<'a>>,
    frozen: Peekable<RecordRange<'a>>,
}

impl<'a> Iterator for Changed<'a> {
    type Item = (&'a Key, &'a Option<Record>);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.active.peek(), self.frozen.peek()) {
            (Some((upper, _)), Some((lower, _))) if lower < upper => self.frozen.next(),
            (Some((upper, _)), Some((lower, _))) => {
                if upper == lower {
                    self.frozen.next();
                }
                self.active.next()
            }
            (None, _) => self.frozen.next(),
            (_, None) => self.active.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &ChunkRef) -> Result<Opened> {
        unreachable!("nothing is stored")
    }

    /// Each act on pieces and on plain bytes over a ground of sevens.
    #[test]
    fn pieces_read_as_what_was_written_and_cleared_last() {
        let mut state = 0x9e37_79b9u64;
        let mut draw = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..200 {
            let (mut lower, mut upper) = (Pieces::default(), Pieces::default());
            let mut plain = vec![7u8; 100];
            for step in 0..30 {
                let pieces = if step < 15 { &mut lower } else { &mut upper };
                let (from, len) = (draw(100) as usize, draw(30) as usize);
                let to = (from + len).min(100);
                let fill = draw(250) as u8;
                if draw(3) == 0 {
                    pieces.clear(from as u64, to as u64);
                    plain[from..to].fill(0);
                } else {
                    pieces.write(from as u64, vec![fill; to - from]);
                    plain[from..to].fill(fill);
                }
                let mut merged = lower.clone();
                merged.lay_over(&upper);
                let mut out = vec![7u8; 100];
                merged.copy_to(0, &mut out, &none).unwrap();
                assert_eq!(out, plain);
                let (a, b) = (draw(100), draw(100));
                let (a, b) = (a.min(b), a.max(b));
                let mut out = vec![7u8; (b - a) as usize];
                merged.within(a, b).copy_to(a, &mut out, &none).unwrap();
                assert_eq!(out, plain[a as usize..b as usize]);
                let known = (a..b).all(|at| merged.covers(at, at + 1));
                assert_eq!(merged.covers(a, b), known);
            }
        }
    }

    #[test]
    fn a_cut_to_the_end_hides_all_that_is_behind() {
        let mut pieces = Pieces::default();
        pieces.write(10, vec![1; 10]);
        pieces.clear(15, u64::MAX);
        pieces.write(30, vec![2; 4]);
        let mut out = [9; 40];
        pieces.copy_to(0, &mut out, &none).unwrap();
        let want = [vec![9; 10], vec![1; 5], vec![0; 15], vec![2; 4], vec![0; 6]].concat();
        assert_eq!(out.as_slice(), want);
    }
}

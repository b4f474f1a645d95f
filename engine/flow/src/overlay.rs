//! What has changed since the last published tree.
//!
//! Neighbours: `live` applies changes and asks; `publish` takes it all.
//! Promises: what is asked is answered as if all changes were in the tree;
//! applying a sequence of changes again to its own result changes nothing.
//! Never: writes to a disk. Tested by `engine/flow/tests/model_live.rs`.

use crate::error::Result;
use crate::live::Base;
use std::collections::BTreeMap;
use warp_format::change::Change;
use warp_format::limits::MAX_CHUNK_LEN;
use warp_format::record::{Extent, Key, KeyKind, Record};
use warp_format::{FileId, FormatError, NameHash};

/// Written bytes of one file that are in no chunk yet: offset → bytes, none
/// overlapping another.
pub(crate) type Pieces = BTreeMap<u64, Vec<u8>>;

/// Changes over a published tree.
#[derive(Default)]
pub(crate) struct Overlay {
    /// `None` = removed.
    pub(crate) records: BTreeMap<Key, Option<Record>>,
    pub(crate) written: BTreeMap<FileId, Pieces>,
}

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.written.is_empty()
    }

    pub(crate) fn apply(&mut self, base: &Base, change: Change) -> Result<()> {
        match change {
            Change::Put(key, record) => {
                self.records.insert(key, Some(record));
            }
            Change::Remove(key) => {
                self.records.insert(key, None);
            }
            Change::Write { file, offset, bytes } => self.write(file, offset, bytes),
            Change::Truncate { file, len } => {
                clear(self.written.entry(file).or_default(), len, u64::MAX);
                self.cut_extents(base, file, len, u64::MAX)?;
            }
            Change::Published(_) => {}
        }
        Ok(())
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: Vec<u8>) {
        let pieces = self.written.entry(file).or_default();
        clear(pieces, offset, offset + bytes.len() as u64);
        if bytes.is_empty() {
            return;
        }
        // Sequential writes grow one piece, up to a chunk.
        if let Some((start, before)) = pieces.range_mut(..offset).next_back()
            && start + before.len() as u64 == offset
            && before.len() + bytes.len() <= MAX_CHUNK_LEN
        {
            before.extend_from_slice(&bytes);
        } else {
            pieces.insert(offset, bytes);
        }
    }

    /// Takes `from..to` out of the file's extents.
    pub(crate) fn cut_extents(
        &mut self,
        base: &Base,
        file: FileId,
        from: u64,
        to: u64,
    ) -> Result<()> {
        for (offset, extent) in self.extents(base, file, from, to)? {
            let end = offset + u64::from(extent.len);
            self.records.insert(Key::new(file, KeyKind::Extent(offset)), None);
            if offset < from {
                let kept = Extent { len: (from - offset) as u32, ..extent };
                self.put_extent(file, offset, kept);
            }
            if end > to {
                let skipped = (to - offset) as u32;
                let (start, len) = (extent.start + skipped, extent.len - skipped);
                self.put_extent(file, to, Extent { start, len, ..extent });
            }
        }
        Ok(())
    }

    pub(crate) fn put_extent(&mut self, file: FileId, offset: u64, extent: Extent) {
        let key = Key::new(file, KeyKind::Extent(offset));
        self.records.insert(key, Some(Record::Extent(extent)));
    }

    pub(crate) fn get(&self, base: &Base, key: &Key) -> Result<Option<Record>> {
        match (self.records.get(key), base) {
            (Some(changed), _) => Ok(changed.clone()),
            (None, Some(base)) => base.exact(key),
            (None, None) => Ok(None),
        }
    }

    pub(crate) fn records_of(
        &self,
        base: &Base,
        file: FileId,
        from: &Key,
    ) -> Result<Vec<(Key, Record)>> {
        self.records_between(base, from, &Key::new(file, KeyKind::Dentry(NameHash([0xff; 16]))))
    }

    /// All records from this key to that of the same inode.
    fn records_between(&self, base: &Base, from: &Key, to: &Key) -> Result<Vec<(Key, Record)>> {
        let mut merged: BTreeMap<Key, Record> = BTreeMap::new();
        if let Some(base) = base {
            base.each_record(from.file, from, |key, record| {
                let inside = key <= *to;
                if inside {
                    merged.insert(key, record);
                }
                Ok(inside)
            })?;
        }
        for (key, change) in self.records.range(from..=to) {
            match change {
                Some(record) => merged.insert(*key, record.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().collect())
    }

    /// Extents that touch `from..to`.
    pub(crate) fn extents(
        &self,
        base: &Base,
        file: FileId,
        from: u64,
        to: u64,
    ) -> Result<Vec<(u64, Extent)>> {
        // An extent is at most a chunk long.
        let first = from.saturating_sub(MAX_CHUNK_LEN as u64);
        let key = |offset| Key::new(file, KeyKind::Extent(offset));
        let records = self.records_between(base, &key(first), &key(to))?;
        let mut found = Vec::new();
        for (key, record) in records {
            if let (KeyKind::Extent(offset), Record::Extent(extent)) = (key.kind, record)
                && offset < to
                && offset + u64::from(extent.len) > from
            {
                found.push((offset, extent));
            }
        }
        Ok(found)
    }

    pub(crate) fn read(
        &self,
        base: &Base,
        file: FileId,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>> {
        let mut out = vec![0; len];
        let end = offset.saturating_add(len as u64);
        let mut copy = |at: u64, bytes: &[u8]| {
            let (from, to) = (at.max(offset), (at + bytes.len() as u64).min(end));
            if from < to {
                let source = &bytes[(from - at) as usize..(to - at) as usize];
                out[(from - offset) as usize..][..source.len()].copy_from_slice(source);
            }
        };
        for (at, extent) in self.extents(base, file, offset, end)? {
            let Some(base) = base else { return Err(FormatError::Invalid { at: "extent" }.into()) };
            let chunk = base.chunk(&extent.chunk)?;
            copy(at, &chunk[extent.start as usize..][..extent.len as usize]);
        }
        if let Some(pieces) = self.written.get(&file) {
            pieces.range(..end).for_each(|(at, bytes)| copy(*at, bytes));
        }
        Ok(out)
    }
}

/// Takes `from..to` out of the pieces.
fn clear(pieces: &mut Pieces, from: u64, to: u64) {
    let touched: Vec<u64> = pieces
        .range(..to)
        .rev()
        .take_while(|(at, bytes)| **at + bytes.len() as u64 > from)
        .map(|(at, _)| *at)
        .collect();
    for at in touched {
        let bytes = pieces.remove(&at).unwrap_or_default();
        let end = at + bytes.len() as u64;
        if end > to {
            pieces.insert(to, bytes[(to - at) as usize..].to_vec());
        }
        if at < from {
            pieces.insert(at, bytes[..(from - at) as usize].to_vec());
        }
    }
}

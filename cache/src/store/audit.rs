//! Reading packs to see whether they are as they were written.
//!
//! Neighbours: the store above; `check` and scrub in `flow`, which say how much
//! to read. Promises: of a pack that is read whole, every byte is compared with
//! what it must be, so any changed one is noticed; of one that is not, the
//! frames and lengths are. Never: changes a pack, or holds the store's lock
//! while it reads. Tested by `tests/audit_store.rs`.

use super::{Pack, PackName, State, Store, index_name, pack_name, read_chunk};
use crate::disk::DiskFile;
use crate::error::{CacheError, Result};
use std::sync::Arc;
use warp_format::archive::{FRAME_LEN, Frame};
use warp_format::pack::{PACK_HEADER_LEN, PackHeader, PackIndex, Place};
use warp_format::{ChunkId, SealedChunk};

/// Bytes of a pack that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it, and how long what is damaged is.
    pub offset: u64,
    /// Bytes of the record, or of what lies between records.
    pub len: u64,
    /// The chunk whose record it is; `None`: no chunk is known to be there.
    pub chunk: Option<ChunkId>,
    /// The chunk itself is whole: only what would find it again is damaged.
    pub readable: bool,
}

/// What reading a pack found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Bytes of the pack, and how many of them were read.
    pub bytes: u64,
    /// See [`Self::bytes`].
    pub bytes_read: u64,
    /// Chunks in it.
    pub chunks: u64,
    /// Of those, how many were read whole and are as they were.
    pub chunks_read: u64,
    /// What is not.
    pub damage: Vec<Damage>,
}

impl Audit {
    /// Adds another pack's.
    pub fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.bytes_read += other.bytes_read;
        self.chunks += other.chunks;
        self.chunks_read += other.chunks_read;
        self.damage.extend(other.damage);
    }
}

impl Store {
    /// All packs, in order.
    pub fn packs(&self) -> Vec<PackName> {
        self.state().packs.keys().copied().collect()
    }

    /// Bytes of a chunk that the index has, whether they are whole or not.
    pub fn len_of(&self, id: &ChunkId) -> Option<u64> {
        self.state().index.get(id).map(|(_, place)| place.len.into())
    }

    /// Chunks that were found damaged, by whomever, and are nowhere else.
    pub fn damaged(&self) -> Vec<ChunkId> {
        self.state().damaged.iter().copied().collect()
    }

    /// Reads a pack, as far as it was written when this began: all frames, and
    /// of the chunks those that `takes` names; `each` gets what is whole of
    /// them. `None` if the pack is gone.
    pub fn audit(
        &self,
        name: PackName,
        takes: &dyn Fn(&ChunkId) -> bool,
        each: &mut dyn FnMut(&SealedChunk),
    ) -> Result<Option<Audit>> {
        let (file, end, entries, closed) = {
            let state = self.state();
            let Some(pack) = state.packs.get(&name) else { return Ok(None) };
            (Arc::clone(&pack.file), pack.end, pack.entries.clone(), pack.closed)
        };
        let len = file.len().map_err(|e| CacheError::io(&pack_name(name), e))?;
        let audit = Audit { bytes: end, ..Audit::default() };
        let mut reading = Reading { file: &*file, name: pack_name(name), len, audit };
        reading.header(name);
        let mut at = PACK_HEADER_LEN as u64;
        for (id, place) in entries {
            reading.between(at, place.offset.saturating_sub(FRAME_LEN as u64));
            let whole = if takes(&id) {
                let chunk = reading.record(id, place);
                if let Some(chunk) = &chunk {
                    each(chunk);
                }
                Some(chunk.is_some())
            } else {
                reading.frame(id, place)
            };
            if let Some(whole) = whole {
                self.judge(&id, (name, place), whole);
            }
            at = place.offset + u64::from(place.len);
        }
        reading.between(at, end);
        if closed && !self.is_index_right(name, end)? {
            let file = index_name(name);
            let damage = Damage { file, offset: 0, len: 0, chunk: None, readable: true };
            reading.audit.damage.push(damage);
        }
        Ok(Some(reading.audit))
    }

    /// These were found damaged before the store was closed.
    pub fn note_damaged(&self, ids: impl IntoIterator<Item = ChunkId>) {
        let mut state = self.state();
        let State { index, damaged, .. } = &mut *state;
        damaged.extend(ids.into_iter().filter(|id| index.contains_key(id)));
    }

    /// Notes what was found at a place of the index; gives a copy of what is
    /// not whole there, if another pack has one.
    pub(super) fn judge(
        &self,
        id: &ChunkId,
        at: (PackName, Place),
        whole: bool,
    ) -> Option<SealedChunk> {
        if !whole {
            return self.doubt(id, at);
        }
        let mut state = self.state();
        if state.index.get(id) == Some(&at) {
            // What failed once may have been a cable.
            state.damaged.remove(id);
        }
        None
    }

    /// A chunk could not be read at its place: a copy in another pack takes
    /// that place and is given; without one, it is known as damaged.
    fn doubt(&self, id: &ChunkId, bad: (PackName, Place)) -> Option<SealedChunk> {
        let copies: Vec<_> = {
            let mut state = self.state();
            if state.index.get(id) != Some(&bad) || !state.damaged.insert(*id) {
                return None;
            }
            let of = |(name, pack): (&PackName, &Pack)| {
                let here = pack.entries.iter().filter(|(found, _)| found == id);
                let (name, file) = (*name, &pack.file);
                here.map(|(_, place)| (name, Arc::clone(file), *place)).collect::<Vec<_>>()
            };
            state.packs.iter().flat_map(of).collect()
        };
        let others = copies.into_iter().filter(|(name, _, place)| (*name, *place) != bad);
        for (name, file, place) in others {
            let Ok(chunk) = read_chunk(&*file, name, id, place) else { continue };
            let mut state = self.state();
            if state.index.get(id) == Some(&bad) && state.packs.contains_key(&name) {
                state.index.insert(*id, (name, place));
                state.damaged.remove(id);
            }
            return Some(chunk);
        }
        None
    }

    /// False if the index beside a pack is damaged, or another pack's. One
    /// that is missing, or that the pack has outgrown, is not wrong.
    fn is_index_right(&self, name: PackName, end: u64) -> Result<bool> {
        let file_name = index_name(name);
        let io = |e| CacheError::io(&file_name, e);
        let Some(file) = self.disk.open(&file_name).map_err(io)? else { return Ok(true) };
        let mut bytes = vec![0; usize::try_from(file.len().map_err(io)?).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, 0).map_err(io)?;
        let Ok(index) = PackIndex::decode(&bytes) else { return Ok(false) };
        let state = self.state();
        let entries = state.packs.get(&name).map(|pack| pack.entries.as_slice());
        let fits = |entries: &[_]| index.pack_len < end || entries.starts_with(&index.entries);
        Ok(entries.is_none_or(fits))
    }
}

struct Reading<'a> {
    file: &'a dyn DiskFile,
    name: String,
    /// Of the file, now.
    len: u64,
    audit: Audit,
}

impl Reading<'_> {
    /// `None`: the disk does not give them. A bad sector is damage like any
    /// other.
    fn read(&mut self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_at(&mut bytes, offset).ok()?;
        self.audit.bytes_read += len as u64;
        Some(bytes)
    }

    fn damaged(&mut self, offset: u64, len: u64, chunk: Option<ChunkId>, readable: bool) {
        let file = self.name.clone();
        self.audit.damage.push(Damage { file, offset, len, chunk, readable });
    }

    fn header(&mut self, (class, number): PackName) {
        let header = self.read(0, PACK_HEADER_LEN);
        if header.is_none_or(|header| header != PackHeader { class, number }.encode()) {
            self.damaged(0, PACK_HEADER_LEN as u64, None, true);
        }
    }

    /// Nothing lies between records but what was damaged.
    fn between(&mut self, from: u64, to: u64) {
        if from < to {
            self.damaged(from, to - from, None, false);
        }
    }

    /// Reads a record; gives the chunk if it is whole.
    fn record(&mut self, id: ChunkId, place: Place) -> Option<SealedChunk> {
        self.audit.chunks += 1;
        let start = place.offset - FRAME_LEN as u64;
        let len = FRAME_LEN as u64 + u64::from(place.len);
        let record = self.read(start, FRAME_LEN + place.len as usize);
        let whole = record.and_then(|mut bytes| {
            let chunk = bytes.split_off(FRAME_LEN);
            Some((bytes, SealedChunk::verify(id, chunk).ok()?))
        });
        let Some((frame, chunk)) = whole else {
            self.damaged(start, len, Some(id), false);
            return None;
        };
        self.audit.chunks_read += 1;
        if frame != Frame::of(&chunk).encode() {
            self.damaged(start, FRAME_LEN as u64, Some(id), true);
        }
        Some(chunk)
    }

    /// Reads a record's frame only; gives `false` if the record cannot be
    /// whole, and nothing if it may be.
    fn frame(&mut self, id: ChunkId, place: Place) -> Option<bool> {
        self.audit.chunks += 1;
        let start = place.offset - FRAME_LEN as u64;
        let end = place.offset + u64::from(place.len);
        if end > self.len {
            self.damaged(start, end - start, Some(id), false);
            return Some(false);
        }
        let frame = self.read(start, FRAME_LEN).and_then(|bytes| Frame::decode(&bytes).ok());
        if frame.is_some_and(|frame| frame.is_for(&id) && frame.len == place.len as usize) {
            return None;
        }
        // Whether the chunk behind it is whole, only reading it tells.
        self.audit.chunks -= 1;
        Some(self.record(id, place).is_some())
    }
}

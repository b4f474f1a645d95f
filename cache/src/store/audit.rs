//! Reading a whole pack to see whether it is as it was written.
//!
//! Neighbours: the store above; `check`, scrub and `repair` in `flow`. Promises:
//! every byte of a pack is compared with what it must be, so any changed one is
//! noticed. Never: changes a pack that is being read, or holds the store's lock
//! while it reads. Tested by `tests/audit_store.rs`.

use super::{PackName, Store, pack_name, read_index};
use crate::disk::DiskFile;
use crate::error::{CacheError, Result};
use std::sync::Arc;
use warp_format::archive::{FRAME_LEN, Frame};
use warp_format::pack::{PACK_HEADER_LEN, PackHeader, Place};
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
    /// Bytes that were read.
    pub bytes: u64,
    /// Chunks that are as they were.
    pub chunks: u64,
    /// What is not.
    pub damage: Vec<Damage>,
}

impl Audit {
    /// Adds another pack's.
    pub fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.chunks += other.chunks;
        self.damage.extend(other.damage);
    }
}

impl Store {
    /// All packs, in order.
    pub fn packs(&self) -> Vec<PackName> {
        self.state().packs.keys().copied().collect()
    }

    /// Reads a pack, as far as it was written when this began; `None` if it
    /// is gone.
    pub fn audit(&self, name: PackName) -> Result<Option<Audit>> {
        let (file, end, entries, closed) = {
            let state = self.state();
            let Some(pack) = state.packs.get(&name) else { return Ok(None) };
            (Arc::clone(&pack.file), pack.end, pack.entries.clone(), pack.closed)
        };
        let mut reading = Reading { file: &*file, name: pack_name(name), audit: Audit::default() };
        reading.header(name)?;
        let mut at = PACK_HEADER_LEN as u64;
        for (id, place) in entries {
            let start = place.offset.saturating_sub(FRAME_LEN as u64);
            reading.between(at, start);
            reading.record(id, place)?;
            at = place.offset + u64::from(place.len);
        }
        reading.between(at, end);
        let mut audit = reading.audit;
        // One that sits beside a pack and does not fit spares nothing any more.
        if closed && self.has_index(name)? && read_index(&*self.disk, name, end)?.is_none() {
            let file = super::index_name(name);
            audit.damage.push(Damage { file, offset: 0, len: 0, chunk: None, readable: true });
        }
        Ok(Some(audit))
    }

    fn has_index(&self, name: PackName) -> Result<bool> {
        let file = super::index_name(name);
        let found = self.disk.open(&file).map_err(|e| CacheError::io(&file, e))?;
        Ok(found.is_some())
    }

    /// Takes a damaged chunk for one that is not here: what brings its content
    /// again stores it again.
    pub fn disown(&self, id: &ChunkId) {
        self.state().index.remove(id);
    }

    /// Moves what is whole out of a damaged pack, and sets the pack aside under
    /// another name; gives that. What is not whole is no longer here.
    pub fn set_aside(&self, name: PackName) -> Result<Option<String>> {
        let (file, entries) = {
            let mut state = self.state();
            let Some(pack) = state.packs.get_mut(&name) else { return Ok(None) };
            pack.closed = true;
            (Arc::clone(&pack.file), pack.entries.clone())
        };
        for (id, place) in entries {
            let mut bytes = vec![0; place.len as usize];
            let whole = file.read_at(&mut bytes, place.offset).ok();
            let whole = whole.and_then(|()| SealedChunk::verify(id, bytes).ok());
            let mut state = self.state();
            if state.index.get(&id) != Some(&(name, place)) {
                continue;
            }
            match whole {
                Some(chunk) => self.append(&mut state, &chunk, name.0)?,
                None => {
                    state.index.remove(&id);
                }
            }
        }
        self.sync()?;
        let mut state = self.state();
        state.packs.remove(&name);
        let aside = format!("{}.damaged", pack_name(name));
        let index = super::index_name(name);
        let gone = match self.disk.remove(&index) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => self.disk.rename(&pack_name(name), &aside),
        };
        state.names_changed = true;
        gone.map_err(|e| CacheError::io(&index, e))?;
        drop(state);
        self.sync()?;
        Ok(Some(aside))
    }
}

struct Reading<'a> {
    file: &'a dyn DiskFile,
    name: String,
    audit: Audit,
}

impl Reading<'_> {
    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_at(&mut bytes, offset).map_err(|e| CacheError::io(&self.name, e))?;
        self.audit.bytes += len as u64;
        Ok(bytes)
    }

    fn damaged(&mut self, offset: u64, len: u64, chunk: Option<ChunkId>, readable: bool) {
        let file = self.name.clone();
        self.audit.damage.push(Damage { file, offset, len, chunk, readable });
    }

    fn header(&mut self, (class, number): PackName) -> Result<()> {
        let header = self.read(0, PACK_HEADER_LEN)?;
        if header != (PackHeader { class, number }).encode() {
            self.damaged(0, PACK_HEADER_LEN as u64, None, true);
        }
        Ok(())
    }

    /// Nothing lies between records but what was damaged.
    fn between(&mut self, from: u64, to: u64) {
        if from < to {
            self.audit.bytes += to - from;
            self.damaged(from, to - from, None, false);
        }
    }

    fn record(&mut self, id: ChunkId, place: Place) -> Result<()> {
        let start = place.offset - FRAME_LEN as u64;
        let len = FRAME_LEN as u64 + u64::from(place.len);
        let mut bytes = match self.read(start, FRAME_LEN + place.len as usize) {
            Ok(bytes) => bytes,
            // The pack is shorter than it was.
            Err(CacheError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::UnexpectedEof =>
            {
                self.damaged(start, len, Some(id), false);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let chunk = bytes.split_off(FRAME_LEN);
        match SealedChunk::verify(id, chunk) {
            Ok(chunk) if Frame::of(&chunk).encode() == bytes.as_slice() => self.audit.chunks += 1,
            Ok(_) => self.damaged(start, len, Some(id), true),
            Err(_) => self.damaged(start, len, Some(id), false),
        }
        Ok(())
    }
}

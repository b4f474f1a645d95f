//! What packs hold by themselves, whatever their indexes say, and making them
//! sound again.
//!
//! Neighbours: `repair` in `flow`, which runs it while nobody has the store open;
//! the store above for names and bytes. Promises: nothing that is in a pack is
//! deleted: a damaged pack gets another name, after what is whole in it is
//! durable in a new one; whoever is cut off half way may start over. Never:
//! changes anything while it looks. Tested by `tests/audit_store.rs` and
//! `engine/flow/tests/check.rs`.

use super::{
    Class, Damage, PackName, Scanned, index_name, is_headed, pack_name, parse_name, read_chunk,
    read_index, scan, write_index,
};
use crate::disk::{Disk, DiskFile};
use crate::error::{CacheError, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use warp_format::archive::{FRAME_LEN, Frame};
use warp_format::pack::{PACK_HEADER_LEN, PackHeader, PackIndex, Place};
use warp_format::{ChunkId, SealedChunk};

/// What a pack needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It is as it should be.
    Nothing,
    /// Its index is lost or wrong, and is made from its records.
    Index,
    /// It is damaged: what is whole moves to a new pack.
    SetAside,
}

/// A pack that was read from its first byte to its last.
#[derive(Debug, Clone)]
pub struct Examined {
    /// The pack.
    pub name: PackName,
    /// Its file.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// What is whole in it, in order.
    pub entries: Vec<(ChunkId, Place)>,
    /// What is not.
    pub damage: Vec<Damage>,
    /// What to do about it.
    pub remedy: Remedy,
}

/// What was done.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mended {
    /// What the damaged pack is called now.
    pub aside: Option<String>,
    /// The pack that holds what is whole of it.
    pub moved_to: Option<String>,
}

/// All packs of a disk as they are, without a store that has them open.
pub struct Contents {
    disk: Arc<dyn Disk>,
    files: BTreeMap<PackName, Arc<dyn DiskFile>>,
    index: HashMap<ChunkId, (PackName, Place)>,
}

impl Contents {
    /// Of this disk; none is read yet.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, files: BTreeMap::new(), index: HashMap::new() }
    }

    /// The packs that there are, with their lengths.
    pub fn packs(&self) -> Result<Vec<(PackName, u64)>> {
        let names = self.disk.names().map_err(|e| CacheError::io("store", e))?;
        let mut packs = Vec::new();
        for name in names.iter().filter_map(|name| parse_name(name)) {
            let io = |e| CacheError::io(&pack_name(name), e);
            if let Some(file) = self.disk.open(&pack_name(name)).map_err(io)? {
                packs.push((name, file.len().map_err(io)?));
            }
        }
        packs.sort_unstable();
        Ok(packs)
    }

    /// Reads a pack whole; from then on [`Self::get`] finds what is in it.
    /// `is_filled`: it is the last one of its class, into which the store may
    /// have been writing.
    pub fn examine(&mut self, name: PackName, is_filled: bool) -> Result<Examined> {
        let file_name = pack_name(name);
        let io = |e| CacheError::io(&file_name, e);
        let found = self.disk.open(&file_name).map_err(io)?;
        let file = found.ok_or_else(|| io(std::io::ErrorKind::NotFound.into()))?;
        let len = file.len().map_err(io)?;
        let headed = is_headed(&*file, name, len)?;
        let index = read_index(&*self.disk, name, len)?.map(|index| index.entries);
        let Scanned { mut entries, .. } = scan(&*file, &file_name, len)?;
        let known = index.as_deref().unwrap_or_default();
        let lost = add_known(&*file, name, known, &mut entries);
        let mut damage = Vec::new();
        let mut say = |offset, len, chunk, readable| {
            damage.push(Damage { file: file_name.clone(), offset, len, chunk, readable });
        };
        if !headed {
            say(0, len.min(PACK_HEADER_LEN as u64), None, true);
        }
        let mut at = PACK_HEADER_LEN as u64;
        for (id, place) in &entries {
            let start = place.offset - FRAME_LEN as u64;
            if at < start {
                say_gap(at, start, &lost, &mut say);
            }
            let mut frame = [0; FRAME_LEN];
            file.read_at(&mut frame, start).map_err(io)?;
            if !Frame::decode(&frame).is_ok_and(|f| f.is_for(id) && f.len == place.len as usize) {
                say(start, FRAME_LEN as u64, Some(*id), true);
            }
            at = place.offset + u64::from(place.len);
        }
        let torn = index.is_none() && at < len && is_torn(&*file, at, len).map_err(io)?;
        if at < len && !torn {
            say_gap(at, len, &lost, &mut say);
        }
        // A power cut while it was made leaves one that holds nothing.
        let empty = !headed && entries.is_empty() && is_filled && index.is_none();
        let remedy = if !damage.is_empty() && !empty {
            Remedy::SetAside
        } else if torn || empty || index.as_ref() == Some(&entries) {
            // The store cuts a torn end when it is opened.
            Remedy::Nothing
        } else {
            Remedy::Index
        };
        if remedy == Remedy::Nothing {
            damage.clear();
        }
        for (id, place) in &entries {
            self.index.entry(*id).or_insert((name, *place));
        }
        self.files.insert(name, file);
        Ok(Examined { name, file: file_name, bytes: len, entries, damage, remedy })
    }

    /// True if the chunk is whole in a pack that was examined.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.index.contains_key(id)
    }

    /// The chunk, its bytes checked against its id.
    pub fn get(&self, id: &ChunkId) -> Result<SealedChunk> {
        let (name, place) = self.index.get(id).ok_or(CacheError::Missing { id: *id })?;
        read_chunk(&*self.files[name], *name, id, *place)
    }

    /// Does what a pack needs; nobody may have the store open.
    pub fn mend(&self, found: &Examined) -> Result<Mended> {
        match found.remedy {
            Remedy::Nothing => Ok(Mended::default()),
            Remedy::Index => {
                let index = PackIndex { pack_len: found.bytes, entries: found.entries.clone() };
                let write = || {
                    write_index(&*self.disk, found.name, &index)?;
                    if let Some(file) = self.disk.open(&index_name(found.name))? {
                        file.sync()?;
                    }
                    self.disk.sync_names()
                };
                write().map_err(|e| CacheError::io(&index_name(found.name), e))?;
                Ok(Mended::default())
            }
            Remedy::SetAside => self.set_aside(found),
        }
    }

    fn set_aside(&self, found: &Examined) -> Result<Mended> {
        let (name, file) = (found.name, &self.files[&found.name]);
        let moved_to = if found.entries.is_empty() {
            None
        } else {
            let new = (name.0, self.next_number(name.0)?);
            if let Err(e) = self.copy(found, &**file, new) {
                // The disk is full, say: nothing is there that was not before.
                let _ = self.disk.remove(&index_name(new));
                let _ = self.disk.remove(&pack_name(new));
                return Err(e);
            }
            Some(pack_name(new))
        };
        // The index first: without its pack it would be somebody else's.
        let index = index_name(name);
        match self.disk.remove(&index) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(CacheError::io(&index, e));
            }
            _ => {}
        }
        let aside = self.free_name(name)?;
        self.disk
            .rename(&found.file, &aside)
            .and_then(|()| self.disk.sync_names())
            .map_err(|e| CacheError::io(&found.file, e))?;
        Ok(Mended { aside: Some(aside), moved_to })
    }

    /// Writes what is whole into a new pack, and makes it durable.
    fn copy(&self, found: &Examined, from: &dyn DiskFile, new: PackName) -> Result<()> {
        let file_name = pack_name(new);
        let io = |e| CacheError::io(&file_name, e);
        let (class, number) = new;
        let to = self.disk.create(&file_name).map_err(io)?;
        to.write_at(&PackHeader { class, number }.encode(), 0).map_err(io)?;
        let mut index = PackIndex { pack_len: PACK_HEADER_LEN as u64, entries: Vec::new() };
        for (id, place) in &found.entries {
            let chunk = read_chunk(from, found.name, id, *place)?;
            let record = [&Frame::of(&chunk).encode(), chunk.bytes()].concat();
            to.write_at(&record, index.pack_len).map_err(io)?;
            let offset = index.pack_len + FRAME_LEN as u64;
            index.entries.push((*id, Place { offset, len: place.len }));
            index.pack_len += record.len() as u64;
        }
        to.sync().map_err(io)?;
        write_index(&*self.disk, new, &index)
            .and_then(|()| self.disk.sync_names())
            .map_err(|e| CacheError::io(&index_name(new), e))
    }

    /// A number that no pack of this class has, or had when it was set aside.
    fn next_number(&self, class: Class) -> Result<u32> {
        let names = self.disk.names().map_err(|e| CacheError::io("store", e))?;
        let of = |name: &String| parse_name(name.split(".damaged").next().unwrap_or_default());
        let numbers = names.iter().filter_map(of).filter(|(of, _)| *of == class);
        Ok(numbers.map(|(_, number)| number).max().unwrap_or(0) + 1)
    }

    /// A name that nothing has: what was set aside before stays.
    fn free_name(&self, name: PackName) -> Result<String> {
        let names = self.disk.names().map_err(|e| CacheError::io("store", e))?;
        let taken: HashSet<String> = names.into_iter().collect();
        let first = format!("{}.damaged", pack_name(name));
        let more = (2u32..).map(|n| format!("{first}-{n}"));
        let mut all = std::iter::once(first.clone()).chain(more);
        Ok(all.find(|name| !taken.contains(name)).unwrap_or(first))
    }
}

/// Adds to what was found in a pack what its index knows of and what is whole
/// though its frame is not; gives what the index knows of and what is lost.
fn add_known(
    file: &dyn DiskFile,
    name: PackName,
    known: &[(ChunkId, Place)],
    entries: &mut Vec<(ChunkId, Place)>,
) -> Vec<(ChunkId, Place)> {
    let found: HashSet<u64> = entries.iter().map(|(_, place)| place.offset).collect();
    let mut lost = Vec::new();
    for (id, place) in known.iter().filter(|(_, place)| !found.contains(&place.offset)) {
        // One that lies cannot be told from one whose chunk is damaged, unless
        // it speaks of a place where another chunk is.
        match read_chunk(file, name, id, *place) {
            Ok(_) => entries.push((*id, *place)),
            Err(_) => lost.push((*id, *place)),
        }
    }
    entries.sort_unstable_by_key(|(_, place)| place.offset);
    lost
}

/// Damage between two whole records: of the chunks that were there, or of no
/// known one.
fn say_gap(
    from: u64,
    to: u64,
    lost: &[(ChunkId, Place)],
    say: &mut impl FnMut(u64, u64, Option<ChunkId>, bool),
) {
    let mut at = from;
    for (id, place) in lost {
        let (start, end) = (place.offset - FRAME_LEN as u64, place.offset + u64::from(place.len));
        if start >= at && end <= to {
            if at < start {
                say(at, start - at, None, false);
            }
            say(start, end - start, Some(*id), false);
            at = end;
        }
    }
    if at < to {
        say(at, to - at, None, false);
    }
}

/// True if what is there from `at` on is the beginning of a record whose end
/// was never written.
fn is_torn(file: &dyn DiskFile, at: u64, len: u64) -> std::io::Result<bool> {
    let there = (len - at).min(FRAME_LEN as u64) as usize;
    let mut frame = [0; FRAME_LEN];
    file.read_at(&mut frame[..there], at)?;
    let Ok(decoded) = Frame::decode(&frame) else { return Ok(there < FRAME_LEN) };
    Ok(at + FRAME_LEN as u64 + decoded.len as u64 > len)
}

//! Step *store* of both walks: sealed chunks in append-only packs.
//!
//! Neighbours: ingest and (later) the network hand chunks in; readers and the
//! server take them out. Promises: a chunk given back equals its id; after
//! `sync` returns, every chunk put before survives a power cut; a torn tail is
//! cut when the store is opened; the index is rebuilt from the packs alone; a
//! chunk that is known to be damaged is stored again by who has its content.
//! Never: decrypts, awaits, or evicts what is *own*; a sweep takes only what
//! its caller does not name. Tested by `tests/model_store.rs`,
//! `tests/crash_store.rs` and `tests/audit_store.rs`.
//!
//! Files `CLASS-NUMBER.pack`: a header, then records as in an archive
//! (`format::archive::Frame`, sealed chunk). A pack that is full, or that was
//! being filled when the store was closed, has an index `CLASS-NUMBER.idx`
//! beside it, which spares reading it at start. `CLASS-NUMBER.pack.damaged` is
//! what `repair` has set aside.

mod audit;
mod list;
mod mend;
mod sweep;

use crate::disk::{Disk, DiskFile};
use crate::error::{CacheError, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warp_format::archive::{FRAME_LEN, Frame, RECORD_MAGIC};
use warp_format::pack::{PACK_HEADER_LEN, PackHeader, PackIndex, Place};
use warp_format::{ChunkId, FormatError, SealedChunk};

pub use audit::{Audit, Damage};
pub use list::Listed;
pub use mend::{Contents, Examined, Mended, Remedy};
pub use sweep::{Sweep, Swept};
pub use warp_format::pack::Class;

/// Bytes after which a pack is full.
pub const PACK_LEN: u64 = 16 << 20;

/// A pack: its class, and its number in it.
pub type PackName = (Class, u32);

/// Chunks in packs on one disk.
pub struct Store {
    disk: Arc<dyn Disk>,
    pack_len: u64,
    state: Mutex<State>,
    /// Held by the one that syncs.
    syncing: Mutex<()>,
}

struct State {
    packs: BTreeMap<PackName, Pack>,
    index: HashMap<ChunkId, (PackName, Place)>,
    /// Where what came lies, in its order, and how many came.
    runs: Vec<list::Run>,
    arrived: u64,
    /// The greatest number that a pack of each class had.
    newest: BTreeMap<Class, u32>,
    /// What was put since a sweep began, which must not take it.
    kept: Option<HashSet<ChunkId>>,
    /// What the index has and what could not be read there, nor elsewhere.
    damaged: HashSet<ChunkId>,
    /// Names were made or taken away since the last `sync_names`.
    names_changed: bool,
    /// A barrier failed: see [`CacheError::Doubtful`].
    doubtful: bool,
}

struct Pack {
    file: Arc<dyn DiskFile>,
    end: u64,
    entries: Vec<(ChunkId, Place)>,
    /// Written since the last sync.
    dirty: bool,
    /// Full, and its index is written.
    closed: bool,
}

/// What opening found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Packs whose index had to be made from their records.
    pub scanned: usize,
    /// Bytes of torn tails that were cut.
    pub cut_bytes: u64,
    /// Bytes that hold no whole record although one follows: damage.
    pub damaged_bytes: u64,
}

/// What was dropped to make room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Of packs.
    pub bytes: u64,
    /// Chunks that are not here any more.
    pub chunks: Vec<ChunkId>,
}

/// How much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Chunks.
    pub chunks: usize,
    /// Bytes of packs.
    pub bytes: u64,
}

fn pack_name((class, number): PackName) -> String {
    format!("{}-{number:08x}.pack", class.word())
}

fn index_name((class, number): PackName) -> String {
    format!("{}-{number:08x}.idx", class.word())
}

fn parse_name(name: &str) -> Option<PackName> {
    let (class, number) = name.strip_suffix(".pack")?.split_once('-')?;
    let parsed = (Class::from_word(class)?, u32::from_str_radix(number, 16).ok()?);
    // Our own spelling only: another file's name is not ours to touch.
    (pack_name(parsed) == name).then_some(parsed)
}

fn parse_index_name(name: &str) -> Option<PackName> {
    parse_name(&[name.strip_suffix(".idx")?, ".pack"].concat())
}

impl Store {
    /// Opens the store on this disk, or starts one.
    pub fn open(disk: Arc<dyn Disk>) -> Result<(Self, Recovery)> {
        Self::open_with(disk, PACK_LEN)
    }

    /// The same with packs of another length, for tests.
    pub fn open_with(disk: Arc<dyn Disk>, pack_len: u64) -> Result<(Self, Recovery)> {
        let mut recovery = Recovery::default();
        let mut state = State {
            packs: BTreeMap::new(),
            index: HashMap::new(),
            runs: Vec::new(),
            arrived: 0,
            newest: BTreeMap::new(),
            kept: None,
            damaged: HashSet::new(),
            names_changed: false,
            doubtful: false,
        };
        let names = disk.names().map_err(|e| CacheError::io("store", e))?;
        let mut found: Vec<PackName> = names.iter().filter_map(|name| parse_name(name)).collect();
        found.sort_unstable();
        // After a kill, names and bytes may be in memory only; they count as
        // durable after the next sync, like those of new packs.
        state.names_changed = !found.is_empty();
        // The index of a pack that is gone must not be taken for that of the
        // next one of its number.
        for name in names.iter().filter_map(|name| parse_index_name(name)) {
            if found.binary_search(&name).is_err() {
                let file = index_name(name);
                disk.remove(&file).map_err(|e| CacheError::io(&file, e))?;
            }
        }
        for name in found {
            state.newest.insert(name.0, name.1);
            match open_pack(&*disk, name, pack_len, &mut recovery)? {
                Some(pack) => {
                    // Classes come in the order of how long they are kept: a
                    // chunk in two packs belongs to the one kept longer.
                    for (id, place) in &pack.entries {
                        state.index.entry(*id).or_insert((name, *place));
                    }
                    state.note_arrived(name, 0, pack.entries.len());
                    state.packs.insert(name, pack);
                }
                None => {
                    let file = pack_name(name);
                    disk.remove(&file).map_err(|e| CacheError::io(&file, e))?;
                }
            }
        }
        Ok((Self { disk, pack_len, state: Mutex::new(state), syncing: Mutex::new(()) }, recovery))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the chunk is here, and not known to be damaged.
    pub fn contains(&self, id: &ChunkId) -> bool {
        let state = self.state();
        state.index.contains_key(id) && !state.damaged.contains(id)
    }

    /// All chunks that are here and not known to be damaged, in no order.
    pub fn ids(&self) -> Vec<ChunkId> {
        let state = self.state();
        state.index.keys().filter(|id| !state.damaged.contains(id)).copied().collect()
    }

    /// How many chunks are here, damaged ones too.
    pub fn len(&self) -> usize {
        self.state().index.len()
    }

    /// True if none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a chunk; it is durable once [`Self::sync`] has returned. A chunk
    /// that is here already is not written again, unless it was merely cached
    /// and is now to be kept, or is known to be damaged.
    pub fn put(&self, chunk: &SealedChunk, class: Class) -> Result<()> {
        let mut state = self.state();
        if state.doubtful {
            return Err(CacheError::Doubtful { file: "store".into() });
        }
        if let Some(kept) = &mut state.kept {
            kept.insert(chunk.id());
        }
        if let Some(((held, _), _)) = state.index.get(&chunk.id())
            && *held <= class
            && !state.damaged.contains(&chunk.id())
        {
            return Ok(());
        }
        self.append(&mut state, chunk, class)
    }

    /// Writes a chunk into the pack that is being filled.
    fn append(&self, state: &mut State, chunk: &SealedChunk, class: Class) -> Result<()> {
        let name = self.open_pack_of(state, class)?;
        let pack = state.packs.get_mut(&name).expect("just looked up");
        let frame = Frame::of(chunk).encode();
        let bytes = [frame.as_slice(), chunk.bytes()].concat();
        let file = pack_name(name);
        pack.dirty = true;
        pack.file.write_at(&bytes, pack.end).map_err(|e| CacheError::io(&file, e))?;
        let len = u32::try_from(chunk.bytes().len()).expect("a sealed chunk is within its limit");
        let place = Place { offset: pack.end + FRAME_LEN as u64, len };
        let entry = pack.entries.len();
        pack.entries.push((chunk.id(), place));
        pack.end += bytes.len() as u64;
        state.note_arrived(name, entry, 1);
        state.index.insert(chunk.id(), (name, place));
        state.damaged.remove(&chunk.id());
        Ok(())
    }

    /// The pack of this class that is being filled.
    fn open_pack_of(&self, state: &mut State, class: Class) -> Result<PackName> {
        let newest = state.packs.range((class, 0)..=(class, u32::MAX)).next_back();
        if let Some((name, pack)) = newest
            && !pack.closed
            && pack.end < self.pack_len
        {
            return Ok(*name);
        }
        let number = state.newest.get(&class).map_or(1, |number| number + 1);
        let name = (class, number);
        let file = pack_name(name);
        let make = || {
            let pack = self.disk.create(&file)?;
            pack.write_at(&PackHeader { class, number }.encode(), 0)?;
            Ok(pack)
        };
        let handle = make().map_err(|e| {
            // The disk is full, say: the name must be free for the next try.
            let _ = self.disk.remove(&file);
            CacheError::io(&file, e)
        })?;
        let end = PACK_HEADER_LEN as u64;
        let pack = Pack { file: handle, end, entries: Vec::new(), dirty: true, closed: false };
        state.packs.insert(name, pack);
        state.newest.insert(class, number);
        state.names_changed = true;
        Ok(name)
    }

    /// The chunk, its bytes checked against its id.
    pub fn get(&self, id: &ChunkId) -> Result<SealedChunk> {
        let (name, file, place, doubted) = {
            let state = self.state();
            let (name, place) = state.index.get(id).ok_or(CacheError::Missing { id: *id })?;
            let file = Arc::clone(&state.packs[name].file);
            (*name, file, *place, state.damaged.contains(id))
        };
        let read = read_chunk(&*file, name, id, place);
        if read.is_err() || doubted {
            let copy = self.judge(id, (name, place), read.is_ok());
            return read.or_else(|e| copy.ok_or(e));
        }
        read
    }

    /// Makes every chunk put so far durable, and closes packs that are full.
    /// A failed barrier is final: see [`CacheError::Doubtful`]. Chunks may be
    /// put and read meanwhile.
    pub fn sync(&self) -> Result<()> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let (dirty, names_changed) = {
            let mut state = self.state();
            if state.doubtful {
                return Err(CacheError::Doubtful { file: "store".into() });
            }
            let mut dirty = Vec::new();
            for (name, pack) in &mut state.packs {
                if std::mem::take(&mut pack.dirty) {
                    dirty.push((*name, Arc::clone(&pack.file)));
                }
            }
            (dirty, std::mem::take(&mut state.names_changed))
        };
        if let Err(e) = self.barrier(&dirty, names_changed) {
            self.state().doubtful = true;
            return Err(e);
        }
        let full: Vec<(PackName, PackIndex)> = {
            let state = self.state();
            let full = |pack: &Pack| !pack.closed && !pack.dirty && pack.end >= self.pack_len;
            let index =
                |pack: &Pack| PackIndex { pack_len: pack.end, entries: pack.entries.clone() };
            let packs = state.packs.iter().filter(|(_, pack)| full(pack));
            packs.map(|(name, pack)| (*name, index(pack))).collect()
        };
        for (name, index) in full {
            // Without its index a pack is read at the next start: slower, and
            // nothing is lost.
            if write_index(&*self.disk, name, &index).is_ok()
                && let Some(pack) = self.state().packs.get_mut(&name)
            {
                pack.closed = true;
            }
        }
        Ok(())
    }

    fn barrier(&self, dirty: &[(PackName, Arc<dyn DiskFile>)], names_changed: bool) -> Result<()> {
        for (name, file) in dirty {
            file.sync().map_err(|e| CacheError::io(&pack_name(*name), e))?;
        }
        if names_changed {
            self.disk.sync_names().map_err(|e| CacheError::io("store", e))?;
        }
        Ok(())
    }

    /// Writes the indexes of packs that are not full. The store may be used
    /// on: it is opened faster if this was the last thing, and a damaged last
    /// record is told from one that was being written.
    pub fn settle(&self) -> Result<()> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state();
        if state.doubtful {
            return Err(CacheError::Doubtful { file: "store".into() });
        }
        let open = state.packs.iter().filter(|(_, pack)| !pack.closed && !pack.dirty);
        for (name, pack) in open {
            let right = read_index(&*self.disk, *name, pack.end)?;
            if right.is_none() {
                let index = PackIndex { pack_len: pack.end, entries: pack.entries.clone() };
                write_index(&*self.disk, *name, &index)
                    .map_err(|e| CacheError::io(&index_name(*name), e))?;
            }
        }
        Ok(())
    }

    /// Drops whole packs of cached chunks, oldest first, until at least
    /// `bytes` are free or none is left. Nothing is copied, and neither *own*
    /// nor *replica* is touched.
    pub fn evict(&self, bytes: u64) -> Result<Evicted> {
        let mut state = self.state();
        let mut evicted = Evicted::default();
        while evicted.bytes < bytes {
            let oldest = state.packs.range((Class::Cached, 0)..=(Class::Cached, u32::MAX)).next();
            let Some(name) = oldest.map(|(name, _)| *name) else { break };
            let dropped = self.drop_pack(&mut state, name)?;
            evicted.bytes += dropped.bytes;
            evicted.chunks.extend(dropped.chunks);
        }
        Ok(evicted)
    }

    /// Takes a pack away with all chunks that lie nowhere else.
    fn drop_pack(&self, state: &mut State, name: PackName) -> Result<Evicted> {
        let Some(pack) = state.packs.remove(&name) else { return Ok(Evicted::default()) };
        let mut gone = HashSet::new();
        for (id, _) in &pack.entries {
            if state.index.get(id).is_some_and(|(holder, _)| *holder == name) {
                state.index.remove(id);
                state.damaged.remove(id);
                gone.insert(*id);
            }
        }
        // It may be kept for another reason as well.
        let others = state.packs.iter().filter(|((class, _), _)| *class > name.0);
        for (other, pack) in others {
            for (id, place) in pack.entries.iter().filter(|(id, _)| gone.contains(id)) {
                state.index.entry(*id).or_insert((*other, *place));
            }
        }
        gone.retain(|id| !state.index.contains_key(id));
        // The index first: without its pack it would be somebody else's.
        for file in [index_name(name), pack_name(name)] {
            match self.disk.remove(&file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CacheError::io(&file, e));
                }
                _ => {}
            }
        }
        state.names_changed = true;
        Ok(Evicted { bytes: pack.end, chunks: gone.into_iter().collect() })
    }

    /// How much is stored in this class.
    pub fn usage(&self, class: Class) -> Usage {
        let state = self.state();
        let packs = state.packs.range((class, 0)..=(class, u32::MAX));
        let mut usage = Usage { chunks: 0, bytes: 0 };
        for (_, pack) in packs {
            usage.chunks += pack.entries.len();
            usage.bytes += pack.end;
        }
        usage
    }
}

/// Opens a pack; `None` if its header never became durable.
fn open_pack(
    disk: &dyn Disk,
    name: PackName,
    pack_len: u64,
    recovery: &mut Recovery,
) -> Result<Option<Pack>> {
    let file_name = pack_name(name);
    let io = |e| CacheError::io(&file_name, e);
    let Some(file) = disk.open(&file_name).map_err(io)? else { return Ok(None) };
    let len = file.len().map_err(io)?;
    let headed = is_headed(&*file, name, len)?;
    if let Some(index) = read_index(disk, name, len)? {
        let (entries, closed) = (index.entries, len >= pack_len);
        return Ok(Some(Pack { file, end: len, entries, dirty: false, closed }));
    }
    recovery.scanned += 1;
    let Scanned { entries, end, damaged } = scan(&*file, &file_name, len)?;
    recovery.damaged_bytes += damaged;
    if !headed && entries.is_empty() {
        // The power went while it was being made: nothing was acknowledged.
        return Ok(None);
    }
    if end < len {
        recovery.cut_bytes += len - end;
        file.truncate(end).and_then(|()| file.sync()).map_err(io)?;
    }
    Ok(Some(Pack { file, end, entries, dirty: true, closed: false }))
}

/// True if the pack begins as it must. Fails if it is of a newer version.
fn is_headed(file: &dyn DiskFile, name: PackName, len: u64) -> Result<bool> {
    let file_name = pack_name(name);
    let mut header = [0; PACK_HEADER_LEN];
    if len >= PACK_HEADER_LEN as u64 {
        file.read_at(&mut header, 0).map_err(|e| CacheError::io(&file_name, e))?;
    }
    match PackHeader::decode(&header) {
        Ok(found) => Ok((found.class, found.number) == name),
        // Damage of the version's byte must not hide what is in the pack: all
        // the rest is then what this version writes.
        Err(source @ FormatError::Version { .. }) => {
            let (class, number) = name;
            let ours = PackHeader { class, number }.encode();
            let differ = ours.iter().zip(&header).filter(|(a, b)| a != b).count();
            if differ > 1 { Err(CacheError::corrupt(&file_name, 0, source)) } else { Ok(false) }
        }
        Err(_) => Ok(false),
    }
}

/// Reads a chunk at its place, and checks it against its id.
fn read_chunk(
    file: &dyn DiskFile,
    name: PackName,
    id: &ChunkId,
    place: Place,
) -> Result<SealedChunk> {
    let mut bytes = vec![0; place.len as usize];
    file.read_at(&mut bytes, place.offset).map_err(|e| CacheError::io(&pack_name(name), e))?;
    SealedChunk::verify(*id, bytes)
        .map_err(|source| CacheError::corrupt(&pack_name(name), place.offset, source))
}

/// Writes the index of a pack. It is an aid: a power cut may lose or tear it,
/// and the pack is then read instead.
fn write_index(disk: &dyn Disk, name: PackName, index: &PackIndex) -> std::io::Result<()> {
    let file = index_name(name);
    let bytes = index.encode();
    // What an earlier, interrupted attempt left, or is of before.
    if disk.open(&file)?.is_some() {
        disk.remove(&file)?;
    }
    disk.create(&file)?.write_at(&bytes, 0)
}

fn read_index(disk: &dyn Disk, name: PackName, pack_len: u64) -> Result<Option<PackIndex>> {
    let file_name = index_name(name);
    let io = |e| CacheError::io(&file_name, e);
    let Some(file) = disk.open(&file_name).map_err(io)? else { return Ok(None) };
    let len = file.len().map_err(io)?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_at(&mut bytes, 0).map_err(io)?;
    // A torn index is as good as none.
    Ok(PackIndex::decode(&bytes).ok().filter(|index| index.pack_len == pack_len))
}

struct Scanned {
    entries: Vec<(ChunkId, Place)>,
    /// Behind the last whole record.
    end: u64,
    damaged: u64,
}

/// Reads a pack front to back. A record that is not whole ends it, unless a
/// whole one follows: then it is damage, and what follows is kept.
fn scan(file: &dyn DiskFile, name: &str, len: u64) -> Result<Scanned> {
    let mut found = Scanned { entries: Vec::new(), end: PACK_HEADER_LEN as u64, damaged: 0 };
    let mut at = found.end;
    while at < len {
        let Some(chunk) = read_record(file, name, at, len)? else {
            match next_magic(file, name, at + 1, len)? {
                Some(next) => at = next,
                None => break,
            }
            continue;
        };
        found.damaged += at - found.end;
        let place = Place { offset: at + FRAME_LEN as u64, len: chunk.bytes().len() as u32 };
        found.entries.push((chunk.id(), place));
        found.end = place.offset + u64::from(place.len);
        at = found.end;
    }
    Ok(found)
}

/// The next place from `at` on where a record may begin.
fn next_magic(file: &dyn DiskFile, name: &str, at: u64, len: u64) -> Result<Option<u64>> {
    const STEP: u64 = 64 << 10;
    let mut at = at;
    while at < len {
        // So much further that none is missed on the border.
        let end = len.min(at + STEP + RECORD_MAGIC.len() as u64 - 1);
        let mut bytes = vec![0; (end - at) as usize];
        file.read_at(&mut bytes, at).map_err(|e| CacheError::io(name, e))?;
        if let Some(place) = bytes.windows(RECORD_MAGIC.len()).position(|b| b == RECORD_MAGIC) {
            return Ok(Some(at + place as u64));
        }
        at += STEP;
    }
    Ok(None)
}

fn read_record(file: &dyn DiskFile, name: &str, at: u64, len: u64) -> Result<Option<SealedChunk>> {
    let io = |e| CacheError::io(name, e);
    if at + FRAME_LEN as u64 > len {
        return Ok(None);
    }
    let mut frame = [0; FRAME_LEN];
    file.read_at(&mut frame, at).map_err(io)?;
    let Ok(frame) = Frame::decode(&frame) else { return Ok(None) };
    let start = at + FRAME_LEN as u64;
    if start + frame.len as u64 > len {
        return Ok(None);
    }
    let mut bytes = vec![0; frame.len];
    file.read_at(&mut bytes, start).map_err(io)?;
    let chunk = SealedChunk::found(bytes);
    Ok(frame.is_for(&chunk.id()).then_some(chunk))
}

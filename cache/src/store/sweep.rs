//! Taking away what nothing refers to, and moving what stays together.
//!
//! Neighbours: the store above; its caller knows what is referred to.
//! Promises: a chunk that the caller names, or that was put since the sweep
//! began, stays; it is durable in its new pack before its old one goes; a
//! sweep that fails half way leaves all that it did not finish as it was.
//! Never: needs more room than about one pack has.
//! Tested by `tests/model_store.rs` and `tests/crash_store.rs`.

use super::{Class, PackName, State, Store, read_chunk};
use crate::error::{CacheError, Result};
use std::collections::HashSet;
use std::sync::Arc;
use warp_format::ChunkId;
use warp_format::archive::FRAME_LEN;
use warp_format::pack::{PACK_HEADER_LEN, Place};

/// What a sweep did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Bytes of packs that are gone.
    pub dropped_bytes: u64,
    /// Bytes of those that stay, in other packs now.
    pub moved_bytes: u64,
    /// Bytes of what nothing refers to and that is left where it is.
    pub left_bytes: u64,
}

impl Swept {
    /// Bytes that the disk has got back.
    pub fn freed_bytes(&self) -> u64 {
        self.dropped_bytes.saturating_sub(self.moved_bytes)
    }
}

/// A sweep under way; the store remembers what is put meanwhile.
pub struct Sweep<'a> {
    store: &'a Store,
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        self.store.state().kept = None;
    }
}

struct Victim {
    name: PackName,
    /// Bytes of its records that stay, and that do not.
    live: u64,
    dead: u64,
}

fn record_len(place: &Place) -> u64 {
    FRAME_LEN as u64 + u64::from(place.len)
}

impl State {
    /// The chunks of a pack that are found there and have to stay.
    fn staying<'s>(
        &'s self,
        name: PackName,
        live: &'s HashSet<ChunkId>,
    ) -> impl Iterator<Item = &'s (ChunkId, Place)> {
        let entries = self.packs.get(&name).map(|pack| pack.entries.as_slice()).unwrap_or_default();
        entries.iter().filter(move |(id, place)| {
            self.index.get(id) == Some(&(name, *place))
                && (live.contains(id) || self.kept.as_ref().is_some_and(|kept| kept.contains(id)))
        })
    }
}

impl Store {
    /// Begins a sweep of what is *own*; a chunk that was *own* first is named
    /// by the caller also where it is wanted as a replica. What refers to a chunk from now on
    /// puts it first, or finds it through what the caller will name.
    pub fn begin_sweep(&self) -> Sweep<'_> {
        self.state().kept = Some(HashSet::new());
        Sweep { store: self }
    }
}

impl Sweep<'_> {
    /// Takes away what is not in `live`: packs in which nothing else is, and
    /// of others those in which at least `percent` of the bytes go; what
    /// stays of them is moved.
    pub fn finish(self, live: &HashSet<ChunkId>, percent: u64) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut batch = Vec::new();
        let mut moved = 0;
        for victim in self.victims(live) {
            let len = victim.live + victim.dead + PACK_HEADER_LEN as u64;
            if victim.live > 0 && victim.dead * 100 < len * percent || victim.dead == 0 {
                swept.left_bytes += victim.dead;
                continue;
            }
            // Damage is for `check` to tell and for `repair`; here it only
            // must not get worse.
            match self.empty(victim.name, live) {
                Ok(bytes) => moved += bytes,
                Err(CacheError::Corrupt { .. }) => {
                    swept.left_bytes += victim.dead;
                    continue;
                }
                Err(e) => return Err(e),
            }
            batch.push(victim.name);
            // So much room more than before is needed at most.
            if moved >= self.store.pack_len / 4 || victim.live == 0 {
                swept.moved_bytes += moved;
                swept.dropped_bytes += self.drop_all(&mut batch, live, moved > 0)?;
                moved = 0;
            }
        }
        swept.moved_bytes += moved;
        swept.dropped_bytes += self.drop_all(&mut batch, live, moved > 0)?;
        // The names that are gone are gone for good.
        self.store.sync()?;
        Ok(swept)
    }

    /// All packs, those of which the least stays first: they cost the least
    /// room.
    fn victims(&self, live: &HashSet<ChunkId>) -> Vec<Victim> {
        let state = self.store.state();
        let own = state.packs.range((Class::Own, 0)..=(Class::Own, u32::MAX));
        let mut victims: Vec<Victim> = own
            .map(|(name, pack)| {
                let live = state.staying(*name, live).map(|(_, place)| record_len(place)).sum();
                let dead = (pack.end - PACK_HEADER_LEN as u64).saturating_sub(live);
                Victim { name: *name, live, dead }
            })
            .collect();
        victims.sort_by_key(|victim| victim.live);
        victims
    }

    /// Moves what stays out of a pack, into which nothing more is put; gives
    /// how many bytes that were.
    fn empty(&self, name: PackName, live: &HashSet<ChunkId>) -> Result<u64> {
        let (file, staying) = {
            let mut state = self.store.state();
            let Some(pack) = state.packs.get_mut(&name) else { return Ok(0) };
            pack.closed = true;
            let file = Arc::clone(&pack.file);
            (file, state.staying(name, live).copied().collect::<Vec<_>>())
        };
        let mut moved = 0;
        for (id, place) in staying {
            let chunk = read_chunk(&*file, name, &id, place)?;
            let mut state = self.store.state();
            self.store.append(&mut state, &chunk, name.0)?;
            moved += record_len(&place);
        }
        Ok(moved)
    }

    /// Drops packs that are empty but for what was put again meanwhile.
    fn drop_all(
        &self,
        batch: &mut Vec<PackName>,
        live: &HashSet<ChunkId>,
        moved: bool,
    ) -> Result<u64> {
        if moved {
            self.store.sync()?;
        }
        let mut dropped = 0;
        for name in batch.drain(..) {
            loop {
                let mut state = self.store.state();
                if state.staying(name, live).next().is_none() {
                    dropped += self.store.drop_pack(&mut state, name)?.bytes;
                    break;
                }
                drop(state);
                self.empty(name, live)?;
                self.store.sync()?;
            }
        }
        Ok(dropped)
    }
}

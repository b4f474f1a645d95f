//! What is wanted, in order of urgency, and who was asked for it.
//!
//! Neighbours: `planner` changes it on events, `list` walks what is pending,
//! `decide` what is under way. Promises: a wanted chunk is pending exactly if
//! no live peer was asked for it; it is asked of two peers at most. Never:
//! forgets a chunk unless it was received or cancelled. Tested by
//! `tests/prop_events.rs`.

use crate::Micros;
use crate::holders::{ChunkNo, Holders, PeerNo};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// When a chunk has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// A `read()` waits for it: it should be there by then (the planner's
    /// clock, microseconds). These go before all bulk chunks.
    By(Micros),
    /// As early as the rest allows; lower numbers first.
    Bulk(u64),
}

/// A place in the order of urgency.
pub(crate) type Key = (Due, ChunkNo);

/// One peer was asked for a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) peer: PeerNo,
    /// Whether the peer is believed to be there.
    pub(crate) is_live: bool,
    /// When it was expected to be here, at the time of asking.
    pub(crate) promised: Micros,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub(crate) len: u32,
    pub(crate) due: Due,
    pub(crate) holders: Holders,
    pub(crate) asks: [Option<Ask>; 2],
}

impl Chunk {
    pub(crate) fn live(&self) -> impl Iterator<Item = &Ask> {
        self.asks.iter().flatten().filter(|ask| ask.is_live)
    }

    fn asks_of(&self, peer: PeerNo) -> bool {
        self.asks.iter().flatten().any(|ask| ask.peer == peer)
    }
}

/// A pending chunk, as the plan needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) len: u32,
    /// Holders that are not being asked.
    pub(crate) free: Holders,
    /// Whom the large plan gives it to.
    pub(crate) share_of: Option<PeerNo>,
}

#[derive(Debug, Default)]
pub(crate) struct Wants {
    chunks: HashMap<ChunkNo, Chunk, BuildHasherDefault<Spread>>,
    pub(crate) pending: BTreeMap<Key, Ready>,
    /// Asked of a live peer.
    pub(crate) asked: BTreeSet<Key>,
    pub(crate) pending_bytes: u64,
}

impl Wants {
    pub(crate) fn get(&self, chunk: ChunkNo) -> Option<&Chunk> {
        self.chunks.get(&chunk)
    }

    /// How many chunks are wanted.
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// All wanted chunks, in no order.
    pub(crate) fn numbers(&self) -> Vec<ChunkNo> {
        self.chunks.keys().copied().collect()
    }

    /// Wants a chunk; says whether it is a new one.
    pub(crate) fn add(&mut self, number: ChunkNo, len: u32, due: Due, holders: Holders) -> bool {
        let Entry::Vacant(place) = self.chunks.entry(number) else { return false };
        let chunk = Chunk { len, due, holders, asks: [None; 2] };
        place.insert(chunk);
        self.file(number, &chunk);
        true
    }

    /// Forgets a chunk and gives back what was known of it.
    pub(crate) fn remove(&mut self, number: ChunkNo) -> Option<Chunk> {
        let chunk = self.chunks.remove(&number)?;
        self.unfile(number, &chunk);
        Some(chunk)
    }

    /// Changes a chunk and files it where it then belongs.
    pub(crate) fn change(&mut self, number: ChunkNo, act: impl FnOnce(&mut Chunk)) {
        let Some(chunk) = self.chunks.get_mut(&number) else { return };
        let before = *chunk;
        act(chunk);
        let after = *chunk;
        self.unfile(number, &before);
        self.file(number, &after);
    }

    pub(crate) fn ask(&mut self, number: ChunkNo, peer: PeerNo, promised: Micros) {
        self.change(number, |chunk| {
            assert!(!chunk.asks_of(peer), "a peer is asked once for a chunk");
            let free = chunk.asks.iter_mut().find(|ask| ask.is_none());
            let free = free.expect("a chunk is asked of two peers at most");
            *free = Some(Ask { peer, is_live: true, promised });
        });
    }

    pub(crate) fn unask(&mut self, number: ChunkNo, peer: PeerNo) {
        self.change(number, |chunk| {
            for ask in &mut chunk.asks {
                ask.take_if(|ask| ask.peer == peer);
            }
        });
    }

    pub(crate) fn set_live(&mut self, number: ChunkNo, peer: PeerNo, is_live: bool) {
        self.change(number, |chunk| {
            for ask in chunk.asks.iter_mut().flatten().filter(|ask| ask.peer == peer) {
                ask.is_live = is_live;
            }
        });
    }

    fn file(&mut self, number: ChunkNo, chunk: &Chunk) {
        let key = (chunk.due, number);
        if chunk.live().next().is_some() {
            self.asked.insert(key);
        } else {
            let mut free = chunk.holders;
            chunk.asks.iter().flatten().for_each(|ask| free.remove(ask.peer));
            self.pending_bytes += u64::from(chunk.len);
            self.pending.insert(key, Ready { len: chunk.len, free, share_of: None });
        }
    }

    fn unfile(&mut self, number: ChunkNo, chunk: &Chunk) {
        let key = (chunk.due, number);
        if !self.asked.remove(&key) && self.pending.remove(&key).is_some() {
            self.pending_bytes -= u64::from(chunk.len);
        }
    }
}

/// Spreads the caller's own numbers; nobody else chooses them, so no secret
/// is needed.
#[derive(Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

//! What peers sent, checked and stored, on threads that may.
//!
//! Neighbours: `task`, which hands over what comes; `cache::store` keeps what
//! is right. Promises: as many threads as there are cores, whatever comes; a
//! disk that is full costs a cached chunk, and no reader. Never: blames a peer
//! for what this device did. Tested by `engine/flow/tests/swarm.rs`.

use super::{CacheLimit, Changes};
use crate::limits::{CACHE_LOOK_EVERY, workers};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;
use warp_cache::store::{Class, Store};
use warp_format::limits::MAX_HELD_PRINTS;
use warp_format::{ChunkId, FormatError, SealedChunk};
use warp_net::Received;
use warp_plan::{ChunkNo, PeerNo};

/// Bytes that a peer sent for a chunk.
pub(super) struct Arrived {
    pub(super) peer: PeerNo,
    pub(super) chunk: ChunkNo,
    pub(super) id: ChunkId,
    pub(super) bytes: Received,
}

/// What they are.
pub(super) struct Checked {
    pub(super) peer: PeerNo,
    pub(super) chunk: ChunkNo,
    pub(super) len: u64,
    pub(super) found: Result<SealedChunk, FormatError>,
}

/// The threads; they end when this is dropped.
pub(super) struct Checkers {
    work: Sender<Arrived>,
}

/// What they share.
struct Bench {
    work: Mutex<Receiver<Arrived>>,
    store: Arc<Store>,
    /// Why chunks are kept.
    class: Class,
    cache: CacheLimit,
    changes: Changes,
    /// Chunks stored since it was looked how much there is.
    stored: AtomicU64,
    done: UnboundedSender<Checked>,
}

impl Checkers {
    pub(super) fn start(
        (store, class): (&Arc<Store>, Class),
        cache: &CacheLimit,
        changes: &Changes,
        done: &UnboundedSender<Checked>,
    ) -> Self {
        let (work, receiver) = channel();
        let bench = Arc::new(Bench {
            work: Mutex::new(receiver),
            store: Arc::clone(store),
            class,
            cache: Arc::clone(cache),
            changes: Arc::clone(changes),
            stored: AtomicU64::new(0),
            done: done.clone(),
        });
        for _ in 0..workers() {
            let bench = Arc::clone(&bench);
            let thread = std::thread::Builder::new().name("check".into());
            if let Err(e) = thread.spawn(move || bench.serve()) {
                tracing::error!("a thread cannot be started: {e}");
            }
        }
        Self { work }
    }

    pub(super) fn check(&self, arrived: Arrived) {
        // They run as long as this is there.
        let _ = self.work.send(arrived);
    }
}

impl Bench {
    fn serve(&self) {
        loop {
            let next = self.work.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Arrived { peer, chunk, id, bytes }) = next else { return };
            let len = bytes.len() as u64;
            let found = bytes.verify(id);
            if let Ok(sealed) = &found {
                self.keep(sealed);
            }
            if self.done.send(Checked { peer, chunk, len, found }).is_err() {
                return;
            }
        }
    }

    fn keep(&self, sealed: &SealedChunk) {
        match self.store.put(sealed, self.class) {
            Ok(()) => {
                let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
                // If nobody takes them, nobody is told: that costs a question.
                if changes.0.len() < MAX_HELD_PRINTS {
                    changes.0.push(sealed.id());
                }
            }
            Err(e) => tracing::warn!(chunk = %sealed.id(), "is not kept: {e}"),
        }
        let stored = self.stored.fetch_add(1, Ordering::Relaxed) + 1;
        if stored.is_multiple_of(CACHE_LOOK_EVERY) {
            let limit = self.cache.load(Ordering::Relaxed);
            let bytes = self.store.usage(Class::Cached).bytes;
            // Packs that are full get their index with this: without it they
            // would all be read at the next start, after a kill.
            let evicted = self.store.evict(bytes.saturating_sub(limit));
            let kept = evicted.and_then(|evicted| {
                let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MAX_HELD_PRINTS.saturating_sub(changes.1.len());
                changes.1.extend(evicted.chunks.into_iter().take(room));
                drop(changes);
                self.store.sync()
            });
            if let Err(e) = kept {
                tracing::warn!("the cache is not in order: {e}");
            }
        }
    }
}

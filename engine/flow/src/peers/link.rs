//! A session with a peer, as the swarm sees it.
//!
//! Neighbours: `peers`, which hears what the peer says; `swarm` asks through
//! it. Promises: a peer that said what it has is asked for that only; one that
//! has said nothing yet may be asked for anything. Never: keeps more of what a
//! peer says than the wire's limits allow. Tested by `tests/tests/peers.rs`.

use crate::swarm::{Asked, Peer};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use warp_format::wire::Held;
use warp_format::{ChunkId, DeviceId, FormatError};
use warp_net::{Event, Have, Session, Wish};

/// A peer that is connected.
pub(crate) struct Link {
    pub(crate) session: Session,
    /// What it said it has; `None` before it said anything.
    held: RwLock<Option<Held>>,
    received: Arc<AtomicU64>,
    /// How far a custodian has read what it holds.
    listed: AtomicU64,
    /// Bits of the fingerprints that it is told.
    bits: Mutex<u8>,
}

impl Link {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            session,
            held: RwLock::new(None),
            received: Arc::default(),
            listed: AtomicU64::new(0),
            bits: Mutex::new(0),
        }
    }

    /// The peer says what it has.
    pub(crate) fn hear(&self, have: Have) -> Result<(), FormatError> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.get_or_insert_default().hear(have)
    }

    /// True if it said that it has everything below this root.
    pub(crate) fn has_root(&self, root: &ChunkId) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().is_some_and(|held| held.roots().contains(root))
    }

    /// How far a custodian has read what it holds.
    pub(crate) fn listed(&self) -> u64 {
        self.listed.load(Ordering::Relaxed)
    }

    /// It has read on to here.
    pub(crate) fn set_listed(&self, next: u64) {
        self.listed.store(next, Ordering::Relaxed);
    }

    /// Bits of the fingerprints that it is told; 0 before it is told any. To
    /// be held while it is told some.
    pub(crate) fn bits(&self) -> MutexGuard<'_, u8> {
        self.bits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of chunks that it gave.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Peer for Link {
    fn device(&self) -> DeviceId {
        self.session.peer()
    }

    fn rtt(&self) -> Duration {
        self.session.rtt()
    }

    fn received(&self) -> u64 {
        self.session.received()
    }

    fn may_have(&self, id: &ChunkId) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()
            .is_none_or(|held| !held.roots().is_empty() || held.has(&self.session.salt_there(), id))
    }

    fn request(&self, number: u64, wish: Wish, events: UnboundedSender<Event>) -> Asked {
        let (counted, mut happened) = unbounded_channel();
        let received = Arc::clone(&self.received);
        let asked = self.session.request(number, wish, counted);
        tokio::spawn(async move {
            while let Some(event) = happened.recv().await {
                if let Event::Progress { bytes, .. } = &event {
                    received.fetch_add(*bytes as u64, Ordering::Relaxed);
                }
                if events.send(event).is_err() {
                    return;
                }
            }
        });
        Box::new(asked)
    }
}

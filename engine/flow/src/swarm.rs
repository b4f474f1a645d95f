//! Step *swarm* of the walk out: chunks from every peer that has them.
//!
//! Neighbours: `follow` asks for chunks by id, `peers` says which peers are
//! connected; `plan` decides whom to ask for what, `net` asks. Promises: of
//! all who want a chunk, one asks for it and all get it; what is given out and
//! stored is what its id says; who waits is answered in bounded time, with the
//! reason if there is none to be had. Never: decides by itself whom to ask.
//! Tested by `engine/flow/tests/swarm.rs` and `tests/tests/peers.rs`.

mod check;
mod explain;
mod task;

pub use explain::{AskedOf, Explained, Listener};

use crate::error::{FlowError, Result};
use crate::limits::{AHEAD_BYTES, CACHE_BYTES, FETCH_WITHIN};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use warp_cache::store::{Class, Store};
use warp_format::{ChunkId, ChunkRef, DeviceId, SealedChunk};
use warp_net::{Event, Wish};

/// How much longer than it may take an answer is waited for: the task that
/// gives it is ours.
const GRACE: Duration = Duration::from_secs(1);

/// How long a chunk is taken to be that is asked for by its id alone, in bytes.
const TYPICAL_LEN: u32 = 64 << 10;

/// Chunks that were stored, and chunks that were dropped, of which peers have
/// not been told.
type Changes = Arc<Mutex<(Vec<ChunkId>, Vec<ChunkId>)>>;

/// Most bytes of cached chunks.
type CacheLimit = Arc<AtomicU64>;

/// How far ahead of a reader it is worth to ask, in bytes.
type Ahead = Arc<AtomicU64>;

/// A way to a peer that has chunks of the portal.
pub trait Peer: Send + Sync + 'static {
    /// Who it is.
    fn device(&self) -> DeviceId;
    /// How long the way there and back takes.
    fn rtt(&self) -> Duration;
    /// Bytes that came from it, readable yet or not.
    fn received(&self) -> u64;
    /// False if it is known not to have a chunk.
    fn may_have(&self, id: &ChunkId) -> bool;
    /// Asks for chunks, in this order; what comes of it is told under this
    /// number. When what it gives is dropped, nobody waits for it any more.
    fn request(&self, number: u64, wish: Wish, events: UnboundedSender<Event>) -> Asked;
}

/// A request under way.
pub type Asked = Box<dyn Send>;

/// What a swarm has done since it began.
#[derive(Debug, Default)]
pub struct Counters {
    /// Chunks that came and were what they should be.
    pub chunks: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Bytes that came and were of no use: second copies, wrong ones.
    pub wasted_bytes: AtomicU64,
    /// Chunks that were asked for a second time while the first was under way.
    pub hedges: AtomicU64,
    /// Chunks that were not what their id says.
    pub bad_chunks: AtomicU64,
    /// Readers that were told that there is no chunk to be had.
    pub failures: AtomicU64,
}

/// What one that waits is told.
enum Outcome {
    Here(SealedChunk),
    /// It is in the store.
    Stored,
    Failed(String),
}

enum Ask {
    Fetch {
        id: ChunkId,
        until: Instant,
        waiter: SyncSender<Outcome>,
    },
    Expect {
        soon: Vec<(ChunkId, u32)>,
    },
    Joined(Arc<dyn Peer>),
    Left(DeviceId),
    /// What peers have is known better.
    Told(DeviceId),
}

/// The peers of one portal, as one source of chunks.
pub struct Swarm {
    store: Arc<Store>,
    asks: UnboundedSender<Ask>,
    offline: AtomicBool,
    cache: CacheLimit,
    changes: Changes,
    ahead: Ahead,
    listeners: explain::Listeners,
    counters: Arc<Counters>,
}

impl Swarm {
    /// With what is here already; it works on this runtime until it is
    /// dropped. `class` says why what comes is kept.
    pub fn start(store: Arc<Store>, class: Class, runtime: &tokio::runtime::Handle) -> Arc<Self> {
        let (asks, asked) = unbounded_channel();
        let counters = Arc::new(Counters::default());
        let cache: CacheLimit = Arc::new(AtomicU64::new(CACHE_BYTES));
        let changes = Changes::default();
        let ahead: Ahead = Arc::new(AtomicU64::new(AHEAD_BYTES));
        let listeners = explain::Listeners::default();
        let checkers = |done: &_| check::Checkers::start((&store, class), &cache, &changes, done);
        let told = (Arc::clone(&counters), Arc::clone(&ahead), listeners.clone());
        let task = task::Task::new(Arc::clone(&store), told, checkers);
        runtime.spawn(task.run(asked));
        let offline = AtomicBool::new(false);
        Arc::new(Self { store, asks, offline, cache, changes, ahead, listeners, counters })
    }

    /// What it has done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// From now on it is noted how chunks come, until this is dropped.
    pub fn explain(&self) -> Listener {
        self.listeners.add()
    }

    /// From now on it asks nobody, or does again.
    pub fn set_offline(&self, offline: bool) {
        self.offline.store(offline, Ordering::Relaxed);
    }

    /// Most bytes of chunks that are kept here because they came once.
    pub fn set_cache_limit(&self, bytes: u64) {
        self.cache.store(bytes, Ordering::Relaxed);
    }

    /// How far ahead of a reader in order it should be told what is to come,
    /// for every peer to have something to do.
    pub(crate) fn ahead(&self) -> u64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// What has been stored and what was dropped since this was asked the last
    /// time; some may be both.
    pub(crate) fn take_changes(&self) -> (Vec<ChunkId>, Vec<ChunkId>) {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// There is a way to a peer.
    pub fn joined(&self, peer: Arc<dyn Peer>) {
        self.tell(Ask::Joined(peer));
    }

    /// It is gone.
    pub fn left(&self, device: DeviceId) {
        self.tell(Ask::Left(device));
    }

    /// A peer said what it has.
    pub fn told(&self, device: DeviceId) {
        self.tell(Ask::Told(device));
    }

    fn tell(&self, ask: Ask) {
        // The runtime ends: nobody waits any more.
        let _ = self.asks.send(ask);
    }

    /// A chunk that is not in the store, from whoever gives it first. Waits;
    /// `FlowError::Unreachable` when nobody does in time.
    pub(crate) fn fetch(&self, id: &ChunkId) -> Result<SealedChunk> {
        let unreachable = |why: &str| FlowError::Unreachable {
            what: "chunk",
            id: Some(*id),
            why: Some(why.to_owned()),
        };
        if self.offline.load(Ordering::Relaxed) {
            return Err(unreachable("it is mounted with --offline"));
        }
        let (waiter, answer) = sync_channel(1);
        self.tell(Ask::Fetch { id: *id, until: Instant::now() + FETCH_WITHIN, waiter });
        match answer.recv_timeout(FETCH_WITHIN + GRACE) {
            Ok(Outcome::Here(chunk)) => Ok(chunk),
            Ok(Outcome::Stored) => Ok(self.store.get(id)?),
            Ok(Outcome::Failed(why)) => Err(unreachable(&why)),
            Err(_) => Err(unreachable("the daemon is about to end")),
        }
    }

    /// Asks for what will be wanted soon, in this order, behind what is waited
    /// for.
    pub(crate) fn expect(&self, soon: &[ChunkRef]) {
        self.expect_of(soon.iter().map(|chunk| (chunk.id, chunk.len)));
    }

    /// The same of chunks of which nothing but the id is known.
    pub(crate) fn expect_ids(&self, soon: &[ChunkId]) {
        self.expect_of(soon.iter().map(|id| (*id, TYPICAL_LEN)));
    }

    fn expect_of(&self, soon: impl Iterator<Item = (ChunkId, u32)>) {
        if self.offline.load(Ordering::Relaxed) {
            return;
        }
        let soon: Vec<_> = soon.filter(|(id, _)| !self.store.contains(id)).collect();
        if !soon.is_empty() {
            self.tell(Ask::Expect { soon });
        }
    }
}

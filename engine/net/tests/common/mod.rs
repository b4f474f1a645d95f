//! Two devices in one process, and a peer that says what a test wants it to.
//! Everything stays on the loopback interface.
#![expect(dead_code, unreachable_pub, reason = "each test file uses a part")]

#[path = "../../../../tests/tests/raw/mod.rs"]
pub mod raw;

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use warp_format::keys::SigningKey;
use warp_format::{ChunkId, DeviceId, PortalId, SealedChunk, Secret};
use warp_net::{
    Change, Changed, Denied, Endpoint, Event, Joiner, Listed, News, Rates, Service, Session,
    Welcome,
};

pub const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
pub const PORTAL: PortalId = PortalId([7; 32]);

pub fn access() -> Secret {
    Secret::new([70; 32])
}

pub fn device(seed: u8) -> DeviceId {
    SigningKey::from_seed(&Secret::new([seed; 32])).device_id()
}

/// What a service was called for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Joined(PortalId, DeviceId),
    Left(PortalId, DeviceId),
    Heard(DeviceId, News),
    Redeemed(Joiner),
    Asked(DeviceId, Change),
}

/// A service that is told what it has and whom it admits.
#[derive(Default)]
pub struct Shelf {
    pub portals: Mutex<Vec<(PortalId, Secret)>>,
    pub members: Mutex<HashSet<DeviceId>>,
    pub strangers: Mutex<HashSet<DeviceId>>,
    pub chunks: Mutex<HashMap<ChunkId, SealedChunk>>,
    pub heads: Mutex<Vec<Vec<u8>>>,
    pub records: Mutex<Vec<u8>>,
    /// Hearing these records makes this device a member.
    pub learns: Mutex<Option<(Vec<u8>, DeviceId)>>,
    pub seen: Mutex<Vec<Seen>>,
    pub sessions: Mutex<Vec<Session>>,
    pub answer: Mutex<Option<Result<Welcome, Denied>>>,
    /// How long a chunk takes to be found.
    pub delay: Mutex<Duration>,
    pub served: Mutex<usize>,
}

impl Shelf {
    /// Serves [`PORTAL`] and admits these devices.
    pub fn with(members: &[u8]) -> Arc<Self> {
        let shelf = Self::default();
        shelf.portals.lock().unwrap().push((PORTAL, access()));
        shelf.members.lock().unwrap().extend(members.iter().map(|seed| device(*seed)));
        Arc::new(shelf)
    }

    pub fn put(&self, bytes: Vec<u8>) -> ChunkId {
        let chunk = SealedChunk::found(bytes);
        let id = chunk.id();
        self.chunks.lock().unwrap().insert(id, chunk);
        id
    }

    /// `count` chunks of `len` bytes, all different.
    pub fn fill(&self, count: usize, len: usize) -> Vec<ChunkId> {
        let byte = |n: usize, i: usize| (n * 31 + i * 7 + (i >> 8) * 13) as u8;
        (0..count)
            .map(|n| {
                let mut bytes: Vec<u8> = (0..len).map(|i| byte(n, i)).collect();
                bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
                self.put(bytes)
            })
            .collect()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn remove(&self, seed: u8) {
        self.members.lock().unwrap().remove(&device(seed));
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().unwrap().push(seen);
    }
}

impl Service for Shelf {
    fn portals(&self) -> Vec<(PortalId, Secret)> {
        self.portals.lock().unwrap().clone()
    }

    fn admits(&self, _portal: &PortalId, device: &DeviceId) -> bool {
        self.members.lock().unwrap().contains(device)
    }

    fn is_stranger(&self, _portal: &PortalId, device: &DeviceId) -> bool {
        self.strangers.lock().unwrap().contains(device)
    }

    fn chunk(&self, _portal: &PortalId, id: &ChunkId) -> Option<SealedChunk> {
        std::thread::sleep(*self.delay.lock().unwrap());
        *self.served.lock().unwrap() += 1;
        self.chunks.lock().unwrap().get(id).cloned()
    }

    fn list(&self, _portal: &PortalId, after: u64) -> Listed {
        let mut ids: Vec<_> = self.chunks.lock().unwrap().keys().copied().collect();
        ids.sort_unstable_by_key(|id| id.0);
        let ids: Vec<_> = ids.into_iter().skip(after as usize).take(3).collect();
        Listed { next: after + ids.len() as u64, ids }
    }

    fn change(&self, _portal: &PortalId, member: &DeviceId, change: Change) -> Changed {
        self.note(Seen::Asked(*member, change));
        Changed::Done { invites: 7 }
    }

    fn heads(&self, _portal: &PortalId) -> Vec<Vec<u8>> {
        self.heads.lock().unwrap().clone()
    }

    fn members(&self, _portal: &PortalId, from: u64) -> Vec<u8> {
        self.records.lock().unwrap().get(from as usize..).unwrap_or_default().to_vec()
    }

    fn heard(&self, _portal: &PortalId, peer: &DeviceId, news: News) {
        if let Some((records, device)) = &*self.learns.lock().unwrap()
            && news == News::Members(records.clone())
        {
            self.members.lock().unwrap().insert(*device);
            self.strangers.lock().unwrap().remove(device);
        }
        self.note(Seen::Heard(*peer, news));
    }

    fn redeem(&self, ask: Joiner) -> Result<Welcome, Denied> {
        self.note(Seen::Redeemed(ask));
        self.answer.lock().unwrap().clone().unwrap_or(Err(Denied::Unknown))
    }

    fn joined(&self, session: Session) {
        self.note(Seen::Joined(session.portal(), session.peer()));
        self.sessions.lock().unwrap().push(session);
    }

    fn left(&self, portal: &PortalId, peer: &DeviceId) {
        self.note(Seen::Left(*portal, *peer));
    }
}

/// A device that has nothing yet.
pub struct Nothing;

impl Service for Nothing {
    fn portals(&self) -> Vec<(PortalId, Secret)> {
        Vec::new()
    }
    fn admits(&self, _: &PortalId, _: &DeviceId) -> bool {
        false
    }
    fn chunk(&self, _: &PortalId, _: &ChunkId) -> Option<SealedChunk> {
        None
    }
    fn list(&self, _: &PortalId, _: u64) -> Listed {
        Listed::default()
    }
    fn change(&self, _: &PortalId, _: &DeviceId, _: Change) -> Changed {
        Changed::Done { invites: 0 }
    }
    fn heads(&self, _: &PortalId) -> Vec<Vec<u8>> {
        Vec::new()
    }
    fn members(&self, _: &PortalId, _: u64) -> Vec<u8> {
        Vec::new()
    }
    fn heard(&self, _: &PortalId, _: &DeviceId, _: News) {}
    fn redeem(&self, _: Joiner) -> Result<Welcome, Denied> {
        Err(Denied::Unknown)
    }
    fn joined(&self, _: Session) {}
    fn left(&self, _: &PortalId, _: &DeviceId) {}
}

pub async fn bind(seed: u8, service: Arc<dyn Service>) -> Endpoint {
    bind_at(seed, service, Rates::default()).await
}

pub async fn bind_at(seed: u8, service: Arc<dyn Service>, rates: Rates) -> Endpoint {
    Endpoint::bind(&Secret::new([seed; 32]), LOOPBACK, rates, service).await.unwrap()
}

/// Two members of [`PORTAL`], 1 and 2, of whom 1 has dialled 2.
pub struct Pair {
    pub a: Endpoint,
    pub b: Endpoint,
    pub at: Arc<Shelf>,
    pub bt: Arc<Shelf>,
    pub session: Session,
}

pub async fn pair() -> Pair {
    pair_at(Rates::default(), Rates::default()).await
}

pub async fn pair_at(a_rates: Rates, b_rates: Rates) -> Pair {
    let (at, bt) = (Shelf::with(&[2]), Shelf::with(&[1]));
    let a = bind_at(1, at.clone(), a_rates).await;
    let b = bind_at(2, bt.clone(), b_rates).await;
    let session = a.open(b.device(), &b.local_addrs(), PORTAL).await.unwrap();
    Pair { a, b, at, bt, session }
}

/// Waits until something is so, and fails if that takes ten seconds.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(10), "still not: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The events of one request up to its end, without progress.
pub async fn events(session: &Session, ids: &[ChunkId]) -> Vec<Event> {
    let (tell, mut told) = unbounded_channel();
    let _request = session.request(9, ids.to_vec(), tell);
    all(&mut told).await
}

pub async fn all(told: &mut UnboundedReceiver<Event>) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = told.recv().await {
        let is_last = matches!(event, Event::Done { .. } | Event::Failed { .. });
        if !matches!(event, Event::Progress { .. }) {
            events.push(event);
        }
        if is_last {
            break;
        }
    }
    events
}

/// Resident memory of this process, in bytes.
pub fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

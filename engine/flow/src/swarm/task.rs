//! The task of a swarm: events in, the planner's decisions out.
//!
//! Neighbours: `swarm`, whose requests it takes; `plan` decides; `check`
//! verifies and stores what comes. Promises: it never waits for one thing
//! alone; whatever is told of a request that is over is passed by. Never:
//! hashes or touches a disk. Tested by `engine/flow/tests/swarm.rs`.

use super::check::{Arrived, Checked, Checkers};
use super::explain::{AskedOf, Explained, Listeners};
use super::{Ahead, Ask, Asked, Counters, Outcome, Peer};
use crate::limits::{
    AHEAD_BYTES, AHEAD_CHUNK_BYTES, AHEAD_MOST_BYTES, AHEAD_SPAN, EXPECTED_CHUNKS, FETCH_WITHIN,
    REQUEST_BYTES, REQUEST_CHUNKS,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use warp_cache::store::Store;
use warp_format::{ChunkId, DeviceId};
use warp_net::{Event, Wish};
use warp_plan::{
    Assignment, ChunkNo, Decision, Due, Holders, PEERS_MAX, PeerNo, Planner, Traits, Why,
};

/// How often round trips are measured anew while something is under way.
const MEASURE_EVERY: Duration = Duration::from_millis(100);
/// How long what could not be had is remembered, and how long it is waited for
/// then.
const REMEMBER_FAILURE: Duration = Duration::from_secs(10);
const ONCE_MORE: Duration = Duration::from_secs(1);
/// How often it is looked whether packets come, at most.
const LISTEN_EVERY: Duration = Duration::from_millis(5);
/// Bytes of a packet that carries a piece of a chunk.
const FULL_PACKET: u64 = 1200;
/// Without anything else to do it looks around this often.
const IDLE: Duration = Duration::from_secs(3600);

/// A peer that is connected.
struct Way {
    peer: Arc<dyn Peer>,
    device: DeviceId,
    /// What had come from it when that was last looked at.
    received: u64,
}

/// A chunk that is wanted.
struct Wanted {
    id: ChunkId,
    len: u32,
    waiters: Vec<(Instant, SyncSender<Outcome>)>,
    /// Since when, and who was asked, if somebody wants to know that.
    since: Instant,
    asked: Vec<AskedOf>,
    /// What came of asking for it the last time.
    trouble: Option<String>,
}

/// A request under way.
struct Open {
    peer: PeerNo,
    /// Not answered yet, and still wanted from this peer.
    chunks: Vec<ChunkNo>,
    _asked: Asked,
}

/// What one peer is asked for at once.
struct Batch {
    peer: PeerNo,
    urgent: bool,
    chunks: Vec<ChunkNo>,
    bytes: u64,
}

/// See the module.
pub(super) struct Task {
    store: Arc<Store>,
    counters: Arc<Counters>,
    ahead: Ahead,
    listeners: Listeners,
    checkers: Checkers,
    checked: UnboundedReceiver<Checked>,
    planner: Planner,
    began: Instant,
    ways: HashMap<PeerNo, Way>,
    /// Also of peers that are gone: what is held against them stays.
    numbers: HashMap<DeviceId, PeerNo>,
    wanted: HashMap<ChunkNo, Wanted>,
    chunks: HashMap<ChunkId, ChunkNo>,
    /// Until when somebody waits.
    ends: BTreeSet<(Instant, ChunkNo)>,
    /// What could not be had, and when: nobody waits long for it again at
    /// once. The kernel asks a second time before it tells anybody.
    failed: HashMap<ChunkId, Instant>,
    /// Somebody waited in vain since the last peer has gone.
    alone: bool,
    open: HashMap<u64, Open>,
    events: UnboundedSender<Event>,
    happened: UnboundedReceiver<Event>,
    next_request: u64,
    next_chunk: u64,
    measured: Instant,
    listened: Instant,
}

impl Task {
    pub(super) fn new(
        store: Arc<Store>,
        (counters, ahead, listeners): (Arc<Counters>, Ahead, Listeners),
        checkers: impl FnOnce(&UnboundedSender<Checked>) -> Checkers,
    ) -> Self {
        let (events, happened) = unbounded_channel();
        let (done, checked) = unbounded_channel();
        let checkers = checkers(&done);
        let (ways, numbers, wanted, chunks, open) = Default::default();
        let (ends, failed, began) = (BTreeSet::new(), HashMap::new(), Instant::now());
        let (planner, next_request, next_chunk) = (Planner::new(), 0, 0);
        Self {
            store,
            counters,
            ahead,
            listeners,
            checkers,
            checked,
            planner,
            began,
            ways,
            numbers,
            wanted,
            chunks,
            ends,
            failed,
            alone: false,
            open,
            events,
            happened,
            next_request,
            next_chunk,
            measured: began,
            listened: began,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Works until nobody can ask any more.
    pub(super) async fn run(mut self, mut asks: UnboundedReceiver<Ask>) {
        let mut wake = IDLE;
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => self.ask(ask),
                    None => return,
                },
                Some(event) = self.happened.recv() => self.event(event),
                Some(checked) = self.checked.recv() => self.checked(checked),
                () = tokio::time::sleep(wake) => {}
            }
            // All that has happened by now counts for one decision.
            while let Ok(ask) = asks.try_recv() {
                self.ask(ask);
            }
            while let Ok(event) = self.happened.try_recv() {
                self.event(event);
            }
            while let Ok(checked) = self.checked.try_recv() {
                self.checked(checked);
            }
            self.give_up_late();
            self.measure();
            self.listen();
            let now = self.now();
            let decision = self.planner.decide(now);
            wake = self.wake(now, &decision);
            self.act(decision);
        }
    }

    /// How long it may sleep.
    fn wake(&self, now: u64, decision: &Decision) -> Duration {
        let planned = decision.wake_at.map(|at| Duration::from_micros(at.saturating_sub(now)));
        let late = self.ends.first().map(|(end, _)| end.saturating_duration_since(Instant::now()));
        planned.unwrap_or(IDLE).min(late.unwrap_or(IDLE))
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Fetch { id, until, waiter } => self.fetch(id, until, waiter),
            Ask::Expect { soon } => {
                for (id, len) in soon {
                    let is_room = self.wanted.len() < EXPECTED_CHUNKS;
                    if is_room && !self.chunks.contains_key(&id) && !self.store.contains(&id) {
                        // Not by a time: a chunk that nobody waits for yet would
                        // be rescued from slow peers that do well with it.
                        self.want(id, len, Due::Bulk(self.next_chunk));
                    }
                }
            }
            Ask::Joined(peer) => self.joined(peer),
            Ask::Left(device) => {
                if let Some(number) = self.numbers.get(&device).copied() {
                    self.left(number);
                }
            }
            Ask::Told(device) => {
                if let Some(number) = self.numbers.get(&device).copied() {
                    self.note_holdings(number);
                }
            }
        }
    }

    fn fetch(&mut self, id: ChunkId, until: Instant, waiter: SyncSender<Outcome>) {
        let due = Due::By(self.now());
        let number = match self.chunks.get(&id).copied() {
            Some(number) => {
                self.planner.due(number, due);
                number
            }
            // It came since the reader looked.
            None if self.store.contains(&id) => {
                let _ = waiter.try_send(Outcome::Stored);
                return;
            }
            None => self.want(id, super::TYPICAL_LEN, due),
        };
        let until = until.min(self.patience(&id));
        if let Some(wanted) = self.wanted.get_mut(&number) {
            wanted.waiters.push((until, waiter));
            self.ends.insert((until, number));
        }
    }

    /// Until when a reader waits at most, for what others waited for in vain.
    fn patience(&mut self, id: &ChunkId) -> Instant {
        let now = Instant::now();
        let before = self.failed.get(id).is_some_and(|at| now < *at + REMEMBER_FAILURE);
        if before || (self.alone && self.ways.is_empty()) {
            now + ONCE_MORE
        } else {
            now + FETCH_WITHIN
        }
    }

    fn want(&mut self, id: ChunkId, len: u32, due: Due) -> ChunkNo {
        let number = ChunkNo(self.next_chunk);
        self.next_chunk += 1;
        let holders: Holders = self
            .ways
            .iter()
            .filter(|(_, way)| way.peer.may_have(&id))
            .map(|(number, _)| *number)
            .collect();
        self.planner.want(number, len, due, holders);
        let (waiters, since, asked) = (Vec::new(), Instant::now(), Vec::new());
        let wanted = Wanted { id, len, waiters, since, asked, trouble: None };
        self.wanted.insert(number, wanted);
        self.chunks.insert(id, number);
        number
    }

    /// A number for a device: the same again, if it had one.
    fn number(&mut self, device: DeviceId) -> Option<PeerNo> {
        if let Some(number) = self.numbers.get(&device) {
            return Some(*number);
        }
        let taken: Holders = self.numbers.values().copied().collect();
        let mut all = (0..PEERS_MAX).filter_map(|n| u8::try_from(n).ok().map(PeerNo));
        let number = all.find(|number| !taken.contains(*number)).or_else(|| {
            // One that is gone, and against which nothing is held.
            let planner = &self.planner;
            let mut gone = self.numbers.values().copied().filter(|n| !self.ways.contains_key(n));
            gone.find(|number| !planner.is_quarantined(*number))
        })?;
        self.numbers.retain(|_, other| *other != number);
        self.planner.forget(number);
        self.numbers.insert(device, number);
        Some(number)
    }

    fn joined(&mut self, peer: Arc<dyn Peer>) {
        let device = peer.device();
        self.alone = false;
        self.failed.clear();
        let Some(number) = self.number(device) else {
            tracing::warn!(peer = %device, limit = PEERS_MAX, "too many peers; it is not asked");
            return;
        };
        self.left(number);
        let rtt = micros(peer.rtt());
        let now = self.now();
        let received = peer.received();
        self.planner.joined(now, number, Traits { rtt: Some(rtt), ..Traits::default() });
        self.ways.insert(number, Way { peer, device, received });
        self.note_holdings(number);
    }

    fn left(&mut self, number: PeerNo) {
        if self.ways.remove(&number).is_none() {
            return;
        }
        self.open.retain(|_, open| open.peer != number);
        let now = self.now();
        self.planner.left(now, number);
        if self.ways.is_empty() {
            // What nobody waits for is asked for again by who wants it then.
            let idle = self.wanted.iter().filter(|(_, wanted)| wanted.waiters.is_empty());
            let idle: Vec<ChunkNo> = idle.map(|(number, _)| *number).collect();
            idle.into_iter().for_each(|number| drop(self.forget(number)));
        }
    }

    fn note_holdings(&mut self, number: PeerNo) {
        let Some(way) = self.ways.get(&number) else { return };
        for (chunk, wanted) in &self.wanted {
            self.planner.holds(number, *chunk, way.peer.may_have(&wanted.id));
        }
    }

    /// Nobody wants it any more.
    fn forget(&mut self, number: ChunkNo) -> Option<Wanted> {
        self.planner.cancel(number);
        let wanted = self.wanted.remove(&number)?;
        self.chunks.remove(&wanted.id);
        Some(wanted)
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Progress { number, bytes } => {
                if let Some(open) = self.open.get(&number) {
                    self.planner.progress(now, open.peer, bytes as u64);
                }
            }
            Event::Chunk { number, id, bytes } => {
                let Some(open) = self.open.get(&number) else {
                    self.counters.wasted_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    return;
                };
                // Blame must be certain after this, too.
                let Some(chunk) = self.chunks.get(&id).copied() else {
                    self.counters.wasted_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    self.answered(number, id);
                    return;
                };
                let peer = open.peer;
                self.checkers.check(Arrived { peer, chunk, id, bytes });
                self.answered(number, id);
            }
            Event::NotFound { number, id } => {
                if let Some((peer, chunk)) = self.answered(number, id) {
                    self.planner.not_found(now, peer, chunk);
                    self.trouble(chunk, peer, "does not have it");
                }
            }
            Event::Busy { number, id } => {
                if let Some((peer, chunk)) = self.answered(number, id) {
                    self.planner.busy(now, peer, chunk);
                    self.trouble(chunk, peer, "is busy");
                }
            }
            Event::Done { number } => drop(self.open.remove(&number)),
            Event::Failed { number, error } => {
                let Some(open) = self.open.remove(&number) else { return };
                let said = error.to_string();
                for chunk in open.chunks {
                    self.planner.failed(now, open.peer, chunk);
                    self.trouble(chunk, open.peer, &said);
                }
            }
        }
    }

    /// A request has brought what it will of one chunk; gives who was asked,
    /// if it was not stopped.
    fn answered(&mut self, request: u64, id: ChunkId) -> Option<(PeerNo, ChunkNo)> {
        let chunk = self.chunks.get(&id).copied()?;
        let open = self.open.get_mut(&request)?;
        let at = open.chunks.iter().position(|other| *other == chunk)?;
        open.chunks.swap_remove(at);
        Some((open.peer, chunk))
    }

    fn trouble(&mut self, chunk: ChunkNo, peer: PeerNo, what: &str) {
        let device = self.ways.get(&peer).map(|way| way.device);
        if let (Some(wanted), Some(device)) = (self.wanted.get_mut(&chunk), device) {
            tracing::debug!(chunk = %wanted.id, peer = %device, what, "not served");
            wanted.trouble = Some(format!("peer {device} {what}"));
        }
    }

    fn checked(&mut self, checked: Checked) {
        let Checked { peer, chunk, len, found } = checked;
        let now = self.now();
        let device = self.ways.get(&peer).map(|way| way.device);
        match found {
            Ok(sealed) => {
                self.planner.received(now, peer, chunk, warp_plan::Outcome::Good);
                let Some(wanted) = self.forget(chunk) else {
                    self.counters.wasted_bytes.fetch_add(len, Ordering::Relaxed);
                    return;
                };
                self.counters.chunks.fetch_add(1, Ordering::Relaxed);
                self.counters.bytes.fetch_add(len, Ordering::Relaxed);
                if let Some(peer) = device {
                    let us = micros(wanted.since.elapsed());
                    tracing::trace!(chunk = %wanted.id, %peer, bytes = len, us, "came");
                }
                if !wanted.asked.is_empty() {
                    let (chunk, bytes, took) = (wanted.id, len, wanted.since.elapsed());
                    let (from, asked) = (device, wanted.asked);
                    self.listeners.tell(&Explained { chunk, bytes, from, took, asked });
                }
                for (_, waiter) in wanted.waiters {
                    // One that has stopped waiting has gone.
                    let _ = waiter.try_send(Outcome::Here(sealed.clone()));
                }
            }
            Err(e) => {
                self.counters.bad_chunks.fetch_add(1, Ordering::Relaxed);
                self.counters.wasted_bytes.fetch_add(len, Ordering::Relaxed);
                if let Some(device) = device {
                    tracing::warn!(peer = %device, "sent bytes that are not the chunk asked for: {e}; it is asked nothing more");
                }
                self.planner.received(now, peer, chunk, warp_plan::Outcome::Bad);
                self.trouble(chunk, peer, "sent other bytes");
            }
        }
    }

    /// Tells those whose time is up.
    fn give_up_late(&mut self) {
        let now = Instant::now();
        while let Some((end, number)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            self.ends.pop_first();
            let Some(wanted) = self.wanted.get_mut(&number) else { continue };
            let late = wanted.waiters.extract_if(.., |(until, _)| *until <= end);
            let late: Vec<_> = late.collect();
            if late.is_empty() {
                continue;
            }
            self.alone |= self.ways.is_empty();
            if self.failed.len() >= EXPECTED_CHUNKS {
                self.failed.clear();
            }
            self.failed.insert(wanted.id, now);
            let (is_idle, trouble) = (wanted.waiters.is_empty(), wanted.trouble.clone());
            let why = match (self.ways.len(), trouble) {
                (0, _) => "no peer is connected".to_owned(),
                (_, Some(trouble)) => trouble,
                (1, None) => "the one peer that is connected did not answer in time".to_owned(),
                (n, None) => format!("none of {n} connected peers gave it in time"),
            };
            tracing::warn!(chunk = %wanted.id, why, "a chunk could not be had in time");
            self.counters.failures.fetch_add(late.len() as u64, Ordering::Relaxed);
            for (_, waiter) in late {
                let _ = waiter.try_send(Outcome::Failed(why.clone()));
            }
            if is_idle {
                self.forget(number);
            }
        }
    }

    fn measure(&mut self) {
        if self.wanted.is_empty() || self.measured.elapsed() < MEASURE_EVERY {
            return;
        }
        self.measured = Instant::now();
        for (number, way) in &self.ways {
            self.planner.rtt(*number, micros(way.peer.rtt()));
        }
        let rates = self.ways.keys().filter_map(|number| self.planner.rate(*number));
        self.ahead.store(ahead_of(rates), Ordering::Relaxed);
    }

    /// Packets are a sign of life before their bytes can be read. Short ones are
    /// not: a peer that owes chunks and sends acknowledgements brings nothing.
    fn listen(&mut self) {
        if self.listened.elapsed() < LISTEN_EVERY {
            return;
        }
        self.listened = Instant::now();
        let now = self.now();
        for (number, way) in &mut self.ways {
            if self.planner.backlog(*number) == 0 {
                continue;
            }
            let received = way.peer.received();
            let before = std::mem::replace(&mut way.received, received);
            if received >= before + FULL_PACKET {
                self.planner.heard(now, *number);
            }
        }
    }

    fn act(&mut self, decision: Decision) {
        for stop in decision.stops {
            self.open.retain(|_, open| {
                if open.peer == stop.peer {
                    open.chunks.retain(|chunk| *chunk != stop.chunk);
                }
                // Dropped, it is stopped.
                !open.chunks.is_empty() || open.peer != stop.peer
            });
        }
        let explain = !decision.assignments.is_empty() && self.listeners.any();
        // What goes to one peer goes together, in order.
        let mut batches: Vec<Batch> = Vec::new();
        for assignment in decision.assignments {
            if explain {
                self.note(&assignment);
            }
            let Some(wanted) = self.wanted.get(&assignment.chunk) else { continue };
            if assignment.why == Why::Hedge {
                self.counters.hedges.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(way) = self.ways.get(&assignment.peer) {
                let (chunk, peer, why) = (wanted.id, way.device, assignment.why);
                let candidates = assignment.candidates.iter().flatten().count();
                tracing::trace!(%chunk, %peer, ?why, finish_us = assignment.finish, candidates, "asks");
            }
            let (peer, bytes) = (assignment.peer, u64::from(wanted.len));
            // A second copy is for somebody who waits, or will in a moment.
            let urgent = !wanted.waiters.is_empty() || assignment.why != Why::Planned;
            let fits = |batch: &&mut Batch| {
                (batch.peer, batch.urgent) == (peer, urgent)
                    && batch.chunks.len() < REQUEST_CHUNKS
                    && batch.bytes + bytes <= REQUEST_BYTES
            };
            match batches.iter_mut().rev().find(fits) {
                Some(batch) => {
                    batch.chunks.push(assignment.chunk);
                    batch.bytes += bytes;
                }
                None => batches.push(Batch { peer, urgent, chunks: vec![assignment.chunk], bytes }),
            }
        }
        batches.into_iter().for_each(|batch| self.request(batch));
    }

    /// Notes a decision for those who want to know.
    fn note(&mut self, assignment: &Assignment) {
        let now = self.now();
        let device = |peer: &PeerNo| self.ways.get(peer).map(|way| way.device);
        let until = |finish: u64| Duration::from_micros(finish.saturating_sub(now));
        let Some(peer) = device(&assignment.peer) else { return };
        let candidates = assignment.candidates.iter().flatten();
        let candidates = candidates.filter_map(|c| Some((device(&c.peer)?, until(c.finish))));
        let (why, expected) = (assignment.why, until(assignment.finish));
        let candidates = candidates.collect();
        if let Some(wanted) = self.wanted.get_mut(&assignment.chunk) {
            let after = wanted.since.elapsed();
            wanted.asked.push(AskedOf { peer, why, after, expected, candidates });
        }
    }

    fn request(&mut self, batch: Batch) {
        let Batch { peer, urgent, chunks, .. } = batch;
        let Some(way) = self.ways.get(&peer) else { return };
        let ids = chunks.iter().filter_map(|chunk| self.wanted.get(chunk)).map(|w| w.id);
        let number = self.next_request;
        self.next_request += 1;
        let wish = Wish { ids: ids.collect(), urgent };
        let asked = way.peer.request(number, wish, self.events.clone());
        self.open.insert(number, Open { peer, chunks, _asked: asked });
    }
}

/// How far ahead a reader's next chunks should be known. A slow peer is of use
/// only for what is so far away that it brings it before it is read: at the
/// pace of all together, that is one chunk in its queue and one under way.
fn ahead_of(rates: impl Iterator<Item = u64>) -> u64 {
    let mut rates: Vec<u64> = rates.collect();
    let longest = 2 * AHEAD_CHUNK_BYTES;
    let span = AHEAD_SPAN.as_secs();
    // Rates of those that bring nothing in time are no rates to plan with.
    rates.retain(|rate| rate.saturating_mul(span) >= longest);
    let sum: u64 = rates.iter().sum();
    let Some(slowest) = rates.into_iter().min() else { return AHEAD_BYTES };
    let far = u128::from(sum) * u128::from(longest) / u128::from(slowest.max(1));
    let far = u64::try_from(far).unwrap_or(u64::MAX);
    far.clamp(AHEAD_BYTES, AHEAD_MOST_BYTES)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_so_far_ahead_that_the_slowest_peer_is_of_use() {
        assert_eq!(ahead_of([].into_iter()), AHEAD_BYTES);
        // Alone or among equals, a peer brings what is next.
        assert_eq!(ahead_of([1_000_000].into_iter()), AHEAD_BYTES);
        assert_eq!(ahead_of([50_000_000; 4].into_iter()), AHEAD_BYTES);
        let far = ahead_of([24_000_000, 12_000_000, 5_000_000, 1_200_000].into_iter());
        let wait = 2.0 * AHEAD_CHUNK_BYTES as f64 / 1.2e6;
        assert!((far as f64 / 42.2e6 - wait).abs() < 0.01, "{far}");
        // One that takes too long does not count.
        let few = [24_000_000, 12_000_000, 5_000_000, 1_000];
        assert_eq!(ahead_of(few.into_iter()), ahead_of(few[..3].iter().copied()));
        assert!(ahead_of([u64::MAX / 4, 1_000_000].into_iter()) == AHEAD_MOST_BYTES);
    }
}

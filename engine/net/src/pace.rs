//! Rate limits, shared fairly: deficit round robin over peers behind token
//! buckets.
//!
//! Between `serve` or `fetch` and the stream: both ask for a turn for each
//! slice. Promises: over a second and more, no more than the rate passes; of
//! peers that always want more, each gets the same number of bytes, however
//! many requests it has; without a limit nobody waits and nothing is kept.
//! Never: holds bytes, only their number. Tested below in virtual time, and
//! by `tests/rates.rs`.

use crate::limits::SLICE_BYTES;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use warp_format::DeviceId;

/// Tokens are let go below zero by one slice and then waited for, so the long
/// run is exact whatever the size of the slices.
#[derive(Debug)]
struct Bucket {
    rate: Option<NonZeroU64>,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: Option<NonZeroU64>, now: Instant) -> Self {
        Self { rate, tokens: 0.0, at: now }
    }

    /// When the next slice may pass: now or later.
    fn ready(&mut self, now: Instant) -> Instant {
        let Some(rate) = self.rate else { return now };
        let rate = rate.get() as f64;
        // What was not used within a tenth of a second is forfeit.
        let most = (rate / 10.0).max(1.0);
        self.tokens = (self.tokens + (now - self.at).as_secs_f64() * rate).min(most);
        self.at = now;
        if self.tokens >= 0.0 { now } else { now + Duration::from_secs_f64(-self.tokens / rate) }
    }

    fn take(&mut self, bytes: usize) {
        if self.rate.is_some() {
            self.tokens -= bytes as f64;
        }
    }
}

/// One peer's place in the round.
struct Lane {
    bucket: Bucket,
    waiting: VecDeque<(usize, oneshot::Sender<()>)>,
    deficit: usize,
}

struct State {
    per_peer: Option<NonZeroU64>,
    all: Bucket,
    lanes: HashMap<DeviceId, Lane>,
    /// The peers that wait, the one whose turn it is in front.
    round: VecDeque<DeviceId>,
}

/// Lets slices pass at a rate.
pub(crate) struct Pacer {
    state: Mutex<State>,
    changed: Notify,
}

impl Pacer {
    pub(crate) fn new(all: Option<NonZeroU64>, per_peer: Option<NonZeroU64>) -> Self {
        let state = State {
            per_peer,
            all: Bucket::new(all, Instant::now()),
            lanes: HashMap::new(),
            round: VecDeque::new(),
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other rates from now on.
    pub(crate) fn set(&self, all: Option<NonZeroU64>, per_peer: Option<NonZeroU64>) {
        let now = Instant::now();
        let mut state = self.state();
        state.per_peer = per_peer;
        state.all = Bucket::new(all, now);
        for lane in state.lanes.values_mut() {
            lane.bucket = Bucket::new(per_peer, now);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Bytes to ask for at once.
    pub(crate) fn slice(&self) -> usize {
        let state = self.state();
        let limited = state.all.rate.is_some() || state.per_peer.is_some();
        if limited { SLICE_BYTES } else { usize::MAX }
    }

    /// Returns when so many bytes may pass. A future that is dropped gives its
    /// turn up.
    pub(crate) async fn turn(&self, peer: DeviceId, bytes: usize) {
        let (tell, told) = oneshot::channel();
        {
            let mut state = self.state();
            let State { per_peer, all, lanes, round } = &mut *state;
            if all.rate.is_none() && per_peer.is_none() {
                return;
            }
            let lane = lanes.entry(peer).or_insert_with(|| Lane {
                bucket: Bucket::new(*per_peer, Instant::now()),
                waiting: VecDeque::new(),
                deficit: 0,
            });
            if lane.waiting.is_empty() {
                round.push_back(peer);
            }
            lane.waiting.push_back((bytes, tell));
        }
        self.changed.notify_one();
        // An error means that the pacer is gone, and with it every stream.
        let _ = told.await;
    }

    /// The peer is gone: what waits for it is let go.
    pub(crate) fn forget(&self, peer: &DeviceId) {
        let mut state = self.state();
        state.lanes.remove(peer);
        state.round.retain(|other| other != peer);
    }

    /// Gives turns as they come due; never returns.
    pub(crate) async fn run(&self) {
        loop {
            let next = self.state().step(Instant::now());
            match next {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }
}

impl State {
    /// Lets pass what may pass now; says when to look again.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        let mut later: Option<Instant> = None;
        // Peers whose own limit holds them up in this pass.
        let mut held_up = 0;
        while held_up < self.round.len() {
            let at = self.all.ready(now);
            if at > now {
                return Some(later.map_or(at, |later| later.min(at)));
            }
            let Some(peer) = self.round.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&peer) else { continue };
            while lane.waiting.front().is_some_and(|(_, tell)| tell.is_closed()) {
                lane.waiting.pop_front();
            }
            let Some((bytes, _)) = lane.waiting.front() else {
                lane.deficit = 0;
                continue;
            };
            let own = lane.bucket.ready(now);
            if own > now {
                later = Some(later.map_or(own, |later| later.min(own)));
                held_up += 1;
                self.round.push_back(peer);
                continue;
            }
            let bytes = *bytes;
            if lane.deficit < bytes {
                lane.deficit += SLICE_BYTES;
            }
            if lane.deficit >= bytes
                && let Some((_, tell)) = lane.waiting.pop_front()
                && tell.send(()).is_ok()
            {
                lane.deficit -= bytes;
                lane.bucket.take(bytes);
                self.all.take(bytes);
                held_up = 0;
            }
            // A peer stays in front as long as its deficit lasts.
            if lane.waiting.is_empty() {
                lane.deficit = 0;
            } else if lane.waiting.front().is_some_and(|(bytes, _)| lane.deficit >= *bytes) {
                self.round.push_front(peer);
            } else {
                self.round.push_back(peer);
            }
        }
        later
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn rate(bytes: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(bytes)
    }

    /// Bytes that each of `peers` gets within ten seconds, asking for slices
    /// of this size from so many tasks.
    async fn passed(pacer: Pacer, peers: &[(u8, usize, usize)]) -> Vec<usize> {
        let pacer = Arc::new(pacer);
        let mut tasks = tokio::task::JoinSet::new();
        let runner = pacer.clone();
        tasks.spawn(async move { runner.run().await });
        let counts: Vec<_> = peers.iter().map(|_| Arc::new(Mutex::new(0))).collect();
        for ((peer, slice, streams), count) in peers.iter().copied().zip(&counts) {
            for _ in 0..streams {
                let (pacer, count) = (pacer.clone(), count.clone());
                tasks.spawn(async move {
                    loop {
                        pacer.turn(DeviceId([peer; 32]), slice).await;
                        *count.lock().unwrap() += slice;
                    }
                });
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        counts.iter().map(|count| *count.lock().unwrap()).collect()
    }

    fn is_near(value: usize, wanted: usize) -> bool {
        value.abs_diff(wanted) * 100 <= wanted * 2
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_for_all_is_kept_and_shared_by_peers_not_by_streams() {
        let pacer = Pacer::new(rate(10 << 20), None);
        let got = passed(pacer, &[(1, 32 << 10, 1), (2, 32 << 10, 20), (3, 7000, 4)]).await;
        assert!(is_near(got.iter().sum(), 100 << 20), "{got:?}");
        assert!(got.iter().all(|one| is_near(*one, (100 << 20) / 3)), "{got:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_for_each_peer_is_kept_and_leaves_the_rest_to_others() {
        let pacer = Pacer::new(None, rate(1 << 20));
        let got = passed(pacer, &[(1, 32 << 10, 3), (2, 1000, 2)]).await;
        assert!(got.iter().all(|one| is_near(*one, 10 << 20)), "{got:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_waits_for_little_does_not_wait_for_one_that_waits_for_much() {
        let pacer = Arc::new(Pacer::new(rate(1 << 20), None));
        let runner = pacer.clone();
        let task = tokio::spawn(async move { runner.run().await });
        let greedy = pacer.clone();
        let other = tokio::spawn(async move {
            let turns = (0..1000).map(|_| greedy.turn(DeviceId([1; 32]), 32 << 10));
            let mut all = tokio::task::JoinSet::new();
            drop(turns);
            for _ in 0..1000 {
                let greedy = greedy.clone();
                all.spawn(async move { greedy.turn(DeviceId([1; 32]), 32 << 10).await });
            }
            while all.join_next().await.is_some() {}
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let start = Instant::now();
        pacer.turn(DeviceId([2; 32]), 1000).await;
        assert!(start.elapsed() < Duration::from_millis(80), "{:?}", start.elapsed());
        other.abort();
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let pacer = Pacer::new(None, None);
        let start = Instant::now();
        pacer.turn(DeviceId([1; 32]), usize::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(pacer.state().lanes.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_and_who_gave_up_keep_nobody_waiting() {
        let pacer = Arc::new(Pacer::new(rate(1 << 20), None));
        let runner = pacer.clone();
        let task = tokio::spawn(async move { runner.run().await });
        pacer.turn(DeviceId([1; 32]), 1 << 20).await;
        let given_up =
            tokio::time::timeout(Duration::from_millis(1), pacer.turn(DeviceId([1; 32]), 1 << 20));
        assert!(given_up.await.is_err());
        let start = Instant::now();
        pacer.turn(DeviceId([2; 32]), 1000).await;
        assert!(start.elapsed() < Duration::from_millis(1100), "{:?}", start.elapsed());
        pacer.forget(&DeviceId([2; 32]));
        task.abort();
    }
}

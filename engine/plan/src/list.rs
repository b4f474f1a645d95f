//! The list plan: the most urgent chunk goes to the holder that would have it
//! here first, which is then that much later for the next, and so on.
//!
//! Neighbours: reads `peer` and `wants`; `decide` takes from it what a peer
//! with room is to be asked next. Promises: a slow peer gets a chunk so far
//! ahead that others reach it no earlier, or nothing if too few are left
//! (the wait rule of ECF); a peer that is spared gets what would be late
//! without it, or what nobody else holds. Never: sends anything. Tested by
//! `tests/sim_*`.

use crate::Micros;
use crate::holders::{ChunkNo, Holders, PEERS_MAX, PeerNo};
use crate::lanes::{Lane, Lanes};
use crate::levels::Levels;
use crate::limits::{
    COLD_COMMIT_BYTES, FAR_CHUNKS_MAX, FEARED_RATE, PLAN_AGE_MAX, PLAN_CHUNKS_MAX, SECOND,
};
use crate::peer::{span, volume};
use crate::planner::Planner;
use crate::wants::{Due, Key, Ready};
use std::collections::VecDeque;
use warp_kernels::{CostKernel, Cpu, Edges, pace};

/// How many holders are kept beside a decision.
pub(crate) const CANDIDATES: usize = 3;

/// A holder that could be asked, and when the chunk would be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub peer: PeerNo,
    /// The planner's clock, microseconds.
    pub finish: Micros,
}

/// The first few of them, best first.
pub(crate) type Candidates = [Option<Candidate>; CANDIDATES];

/// What a peer is to be asked next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) key: Key,
    /// The chosen one first.
    pub(crate) candidates: Candidates,
}

/// For each peer, what it is to be asked, in order.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<VecDeque<Step>>,
    made_at: Micros,
    /// The least urgent chunk that the plan looked at.
    last: Option<Key>,
    pub(crate) levels: Levels,
    /// The unproven peer that is begun with.
    pub(crate) nearest: Option<PeerNo>,
    pub(crate) is_stale: bool,
}

impl Plan {
    pub(crate) fn new() -> Self {
        let steps = vec![VecDeque::new(); PEERS_MAX];
        let levels = Levels::default();
        Self { steps, made_at: 0, last: None, levels, nearest: None, is_stale: true }
    }

    /// A chunk became wanted: it matters if it is more urgent than others.
    pub(crate) fn wanted(&mut self, key: Key) {
        if self.last.is_none_or(|last| key < last) {
            self.is_stale = true;
        }
    }

    pub(crate) fn is_old(&self, now: Micros) -> bool {
        self.is_stale || now >= self.made_at + PLAN_AGE_MAX
    }

    pub(crate) fn made_at(&self) -> Micros {
        self.made_at
    }
}

impl Planner {
    /// Makes the plan for the time until the next one.
    pub(crate) fn make_plan(&mut self, now: Micros) {
        self.counts.plans += 1;
        self.plan.steps.iter_mut().for_each(VecDeque::clear);
        self.plan.made_at = now;
        self.plan.is_stale = false;
        self.plan.last = None;
        let open = self.open(now);
        self.plan.nearest = self.nearest(&open);
        let mut lanes = self.lanes(now, &open);
        if self.goal_is_missed(&lanes) {
            lanes.spared = Holders::NONE;
        }
        if self.plan.levels.is_stale(now) {
            let runners = lanes.runners();
            self.plan.levels.find(now, &mut self.wants, &runners);
        }
        lanes.slack = self.plan.levels.slack();
        for lane in &mut lanes.lanes {
            lane.level = self.plan.levels.of(lane.peer);
        }
        self.probes(now, &lanes);
        self.walk(now, &mut lanes);
    }

    /// The peers that may be asked now.
    pub(crate) fn open(&self, now: Micros) -> Holders {
        let is_open = |peer: &PeerNo| {
            self.peers[peer.index()].as_ref().is_some_and(|known| known.is_open(now))
        };
        self.here.iter().filter(is_open).collect()
    }

    /// Whether what is pending comes too late if nobody is asked who is spared.
    fn goal_is_missed(&self, lanes: &Lanes) -> bool {
        let Some(goal) = self.bulk_goal.filter(|_| !lanes.spared.is_empty()) else { return false };
        let asked = lanes.lanes.iter().filter(|lane| !lanes.spared.contains(lane.peer));
        let (start_us, paces): (Vec<Micros>, Vec<u64>) =
            asked.map(|lane| (lane.start, pace(lane.rate))).unzip();
        let edges = Edges { start_us: &start_us, pace: &paces };
        let count = self.wants.pending.len() as u64;
        Cpu.water_fill(&edges, lanes.usual_len, count).is_none_or(|last| last > goal)
    }

    fn lanes(&self, now: Micros, open: &Holders) -> Lanes {
        let count = self.wants.pending.len().max(1) as u64;
        let usual_len = self.wants.pending_bytes / count;
        let mut lanes = Vec::with_capacity(open.len());
        let mut all = Lanes::new(usual_len);
        for peer in open.iter() {
            let Some(known) = &self.peers[peer.index()] else { continue };
            let is_nearest = self.plan.nearest == Some(peer);
            if known.traits.is_spared() {
                all.spared.insert(peer);
            }
            if known.is_proven() || is_nearest {
                all.first.insert(peer);
            } else {
                all.untried.insert(peer);
            }
            let (start, rate) = (known.free_at(now), known.rate());
            let soon = volume(rate, PLAN_AGE_MAX);
            let limit = match (known.is_proven(), is_nearest) {
                (true, _) => known.commit_bytes() + soon + 1,
                (false, true) => COLD_COMMIT_BYTES,
                (false, false) => u64::from(known.queue.is_empty()),
            };
            let need = limit as i64 - known.backlog() as i64;
            let finish = start + span(usual_len, rate);
            let pace = pace(rate);
            lanes.push((finish, Lane { start, rate, pace, level: 0, need, peer }));
        }
        all.set(lanes);
        all
    }

    /// The unproven peer to begin with: the one with the shortest round trip,
    /// as long as nobody is proven.
    fn nearest(&self, open: &Holders) -> Option<PeerNo> {
        let known = |peer: PeerNo| self.peers[peer.index()].as_ref();
        let useful = |peer: &PeerNo| known(*peer).is_some_and(|peer| !peer.traits.is_spared());
        if open.iter().filter(useful).any(|peer| known(peer).is_some_and(|p| p.is_proven())) {
            return None;
        }
        let rtt = |peer: &PeerNo| (known(*peer).map(|known| known.rtt.smooth()), *peer);
        open.iter().filter(useful).min_by_key(rtt)
    }

    /// Gives each unproven peer one chunk from the far end, where nobody
    /// waits for it soon.
    fn probes(&mut self, now: Micros, lanes: &Lanes) {
        let first = lanes.lanes.iter().filter(|lane| lanes.first.contains(lane.peer));
        let total: u64 = first.map(|lane| lane.rate).sum();
        let bulk_turn = now + span(self.wants.pending_bytes, total.max(1));
        let mut given = Vec::new();
        for lane in lanes.by_finish() {
            let is_new = lanes.untried.contains(lane.peer) && !lanes.spared.contains(lane.peer);
            if !is_new || lane.need <= 0 {
                continue;
            }
            let far = self.wants.pending.iter().rev().take(FAR_CHUNKS_MAX);
            let found = far
                .filter(|(key, ready)| {
                    ready.free.contains(lane.peer) && !given.iter().any(|given| given == *key)
                })
                .map(|(key, ready)| (*key, *ready))
                .next();
            let Some((key, ready)) = found else { continue };
            let turn = match key.0 {
                Due::By(due) => due,
                Due::Bulk(_) => bulk_turn,
            };
            let finish = lane.start + span(u64::from(ready.len), FEARED_RATE);
            if finish <= turn {
                given.push(key);
                let candidates = [Some(Candidate { peer: lane.peer, finish }), None, None];
                self.plan.steps[lane.peer.index()].push_back(Step { key, candidates });
            }
        }
    }

    /// Goes through what is pending by urgency until every peer with room has
    /// something, or nothing that is left is for it.
    fn walk(&mut self, now: Micros, lanes: &mut Lanes) {
        let mut needy = lanes.needy();
        let goal = self.bulk_goal.unwrap_or(Micros::MAX);
        for (key, ready) in self.wants.pending.iter().take(PLAN_CHUNKS_MAX) {
            if needy == 0 {
                break;
            }
            self.plan.last = Some(*key);
            let goal = match key.0 {
                Due::By(due) => due,
                Due::Bulk(_) => goal,
            };
            let Some(candidates) = choose(lanes, ready, goal) else { continue };
            let Some(Candidate { peer, .. }) = candidates[0] else { continue };
            self.plan.steps[peer.index()].push_back(Step { key: *key, candidates });
            needy -= usize::from(lanes.give(peer, ready));
        }
        if needy > 0 && self.wants.pending.len() > PLAN_CHUNKS_MAX {
            self.far(now, lanes);
        }
    }

    /// What a slow peer with room is given beyond the chunks of the plan: of
    /// the next that it holds, the one with the fewest other holders.
    fn far(&mut self, now: Micros, lanes: &Lanes) {
        let Some(last) = self.plan.last else { return };
        let mut given: Vec<ChunkNo> = Vec::new();
        for lane in lanes.by_finish().filter(|lane| lane.need > 0) {
            if !lanes.first.contains(lane.peer) || lanes.spared.contains(lane.peer) {
                continue;
            }
            let beyond = self
                .wants
                .pending
                .range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded));
            let held = beyond
                .take(4 * FAR_CHUNKS_MAX)
                .filter(|(key, ready)| ready.free.contains(lane.peer) && !given.contains(&key.1));
            let Some((key, ready)) = held.min_by_key(|(_, ready)| ready.free.len()) else {
                continue;
            };
            let finish = lane.start + span(u64::from(ready.len), lane.rate);
            if finish.saturating_sub(now) < 60 * SECOND {
                given.push(key.1);
                let candidates = [Some(Candidate { peer: lane.peer, finish }), None, None];
                self.plan.steps[lane.peer.index()].push_back(Step { key: *key, candidates });
            }
        }
    }
}

/// Who should have this chunk: the best among the peers to begin with, if it
/// is in time or nobody is spared; else the best of all that hold it.
fn choose(lanes: &Lanes, ready: &Ready, goal: Micros) -> Option<Candidates> {
    let free = ready.free.and(&lanes.first).without(&lanes.spared);
    let fair = lanes.best(&free, ready, true);
    if fair[0].is_some_and(|first| first.finish <= goal) {
        return Some(fair);
    }
    let best = lanes.best(&free, ready, false);
    if let Some(first) = best[0]
        && (first.finish <= goal || ready.free.and(&lanes.spared).is_empty())
    {
        return Some(best);
    }
    // Nobody proven holds it, or too late: an untried peer is better than
    // none, and a spared one better than one too late.
    let untried = ready.free.and(&lanes.untried).without(&lanes.spared);
    let untried = lanes.best(&untried, ready, false);
    if best[0].is_none() && untried[0].is_some_and(|first| first.finish <= goal) {
        return Some(untried);
    }
    let any = lanes.best(&ready.free, ready, false);
    any[0].is_some().then_some(any)
}

//! Which peers have no time to spare: the large plan over all that is pending.
//!
//! Neighbours: `list` asks it whether a peer may be given a chunk that the
//! large plan gives to another; the numbers come from
//! `warp_kernels::CostKernel`. Promises: what the large plan gives a peer, the
//! peer may have. Never: orders chunks; that is the list plan's work. Tested
//! by `sim_random` and `sim_scenarios` (chunks that half of the peers hold).
//!
//! In order of urgency alone, a slow peer would be given chunks that others
//! hold as well, and in the end those that only it has would be left. So the
//! kernel balances everything that is pending; a peer's *level* is when it
//! would then be done, and whoever has time until the last is done may take
//! more than its share. Where all hold all, nobody needs a level.

use crate::Micros;
use crate::holders::{Holders, PEERS_MAX, PeerNo};
use crate::limits::{
    LEVELS_AGE_MAX, LEVELS_AGE_MIN, LEVELS_CHUNKS_MAX, LEVELS_ROUNDS, LEVELS_SLACK,
};
use crate::wants::{Ready, Wants};
use warp_kernels::{Classes, CostKernel, Cpu, EDGES_MAX, Edges, Placement, pace};

const WORDS: usize = PEERS_MAX / 64;
const _: () = assert!(PEERS_MAX == EDGES_MAX, "a bitmap means the same on both sides");

/// A peer that takes part: when it could begin, and its rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runner {
    pub(crate) peer: PeerNo,
    pub(crate) start: Micros,
    pub(crate) rate: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Levels {
    /// By peer, when it is done; 0 for all others, and if there is no plan.
    level: Vec<Micros>,
    slack: Micros,
    found_at: Micros,
    /// When they are to be found anew.
    stale_at: Micros,
}

impl Levels {
    pub(crate) fn is_stale(&self, now: Micros) -> bool {
        now >= self.stale_at
    }

    /// Something changed: they are found anew soon, but not each time.
    pub(crate) fn disturb(&mut self) {
        self.stale_at = self.stale_at.min(self.found_at + LEVELS_AGE_MIN);
    }

    /// When a peer is done.
    pub(crate) fn of(&self, peer: PeerNo) -> Micros {
        self.level.get(peer.index()).copied().unwrap_or(0)
    }

    /// So much later than whose share it is may a taker of a chunk be done;
    /// with no plan, as late as it likes.
    pub(crate) fn slack(&self) -> Micros {
        if self.level.is_empty() { Micros::MAX } else { self.slack }
    }

    /// A peer took what was another's share.
    pub(crate) fn taken(&mut self, peer: PeerNo, took: Micros) {
        if let Some(level) = self.level.get_mut(peer.index()) {
            *level += took;
        }
    }

    /// A peer was spared what was its share.
    pub(crate) fn spared(&mut self, peer: PeerNo, took: Micros) {
        if let Some(level) = self.level.get_mut(peer.index()) {
            *level = level.saturating_sub(took);
        }
    }

    /// Balances what is pending over the runners, and notes each chunk's.
    pub(crate) fn find(&mut self, now: Micros, wants: &mut Wants, runners: &[Runner]) {
        self.level.clear();
        let all: Holders = runners.iter().map(|runner| runner.peer).collect();
        let every = wants.pending.len().div_ceil(LEVELS_CHUNKS_MAX).max(1);
        let is_partial = |ready: &Ready| ready.free.and(&all) != all;
        (self.found_at, self.stale_at) = (now, now + LEVELS_AGE_MAX);
        if runners.len() < 2 || !wants.pending.values().step_by(every).any(is_partial) {
            return;
        }
        let mut chunks: Vec<(&mut Ready, Holders)> = wants
            .pending
            .values_mut()
            .step_by(every)
            .map(|ready| {
                let holders = ready.free.and(&all);
                (ready, holders)
            })
            .collect();
        // Who has few holders chooses first.
        chunks.sort_by_cached_key(|(_, holders)| holders.len());
        let placement = balance(&mut chunks, every as u64, runners);
        let last = runners.iter().map(|runner| placement[runner.peer.index()]).max();
        let left = last.unwrap_or(now).saturating_sub(now);
        self.stale_at = now + (left / 12).clamp(LEVELS_AGE_MIN, LEVELS_AGE_MAX);
        self.slack = left / LEVELS_SLACK;
        self.level = placement;
    }
}

/// When each peer is done if all chunks are divided as well as can be.
fn balance(chunks: &mut [(&mut Ready, Holders)], every: u64, runners: &[Runner]) -> Vec<Micros> {
    let edge_count = runners.iter().map(|r| r.peer.index() + 1).max().unwrap_or(0);
    let (mut start_us, mut paces) = (vec![0; edge_count], vec![0; edge_count]);
    for runner in runners {
        start_us[runner.peer.index()] = runner.start;
        paces[runner.peer.index()] = pace(runner.rate);
    }
    let words = edge_count.div_ceil(64).min(WORDS);
    let holders: Vec<u64> =
        chunks.iter().flat_map(|(_, holders)| holders.words().into_iter().take(words)).collect();
    let bytes: Vec<u64> = chunks.iter().map(|(ready, _)| u64::from(ready.len) * every).collect();
    let edges = Edges { start_us: &start_us, pace: &paces };
    let classes = Classes { holders: &holders, words, bytes: &bytes };
    let mut placement = Placement::new(chunks.len(), edge_count);
    Cpu.settle(&edges, &classes, 1, LEVELS_ROUNDS, &mut placement);
    for ((ready, _), edge) in chunks.iter_mut().zip(&placement.edge) {
        ready.share_of = u8::try_from(*edge).ok().map(PeerNo);
    }
    placement.finish_us(&edges)
}

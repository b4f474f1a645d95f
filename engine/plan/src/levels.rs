//! Which peers have no time to spare: the large plan over all that is pending.
//!
//! Neighbours: `list` asks it which holders of a chunk should be asked at all;
//! the numbers come from `warp_kernels::CostKernel`. Promises: a peer that
//! would be done later than another is left the chunks that the other does
//! not hold. Never: forbids a chunk's last holder. Tested by
//! `sim_random` and `sim_scenarios` (chunks that half of the peers hold).
//!
//! In order of urgency alone, a slow peer would be given chunks that others
//! hold as well, and in the end those that only it has would be left. So the
//! kernel balances everything that is pending; a peer's *level* is when it
//! would then be done. Holders with the lowest level of a chunk may be asked
//! for it. Without a bottleneck all levels are the same, and nothing changes.

use crate::Micros;
use crate::holders::{Holders, PEERS_MAX, PeerNo};
use crate::limits::{LEVELS_AGE_MAX, LEVELS_AGE_MIN, LEVELS_CHUNKS_MAX, LEVELS_ROUNDS, MS};
use crate::wants::Wants;
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
    /// Peers by level, each with all peers that are hardly higher.
    tiers: Vec<(PeerNo, Holders)>,
    /// When they are to be found anew.
    stale_at: Micros,
}

impl Levels {
    pub(crate) fn is_stale(&self, now: Micros) -> bool {
        now >= self.stale_at
    }

    pub(crate) fn disturb(&mut self) {
        self.stale_at = 0;
    }

    /// The holders that should be asked, out of some.
    pub(crate) fn fair(&self, holders: &Holders) -> Holders {
        match self.tiers.iter().find(|(peer, _)| holders.contains(*peer)) {
            Some((_, hardly_higher)) => holders.and(hardly_higher),
            None => *holders,
        }
    }

    /// Balances what is pending over the runners.
    pub(crate) fn find(&mut self, now: Micros, wants: &Wants, runners: &[Runner]) {
        self.tiers.clear();
        let all: Holders = runners.iter().map(|runner| runner.peer).collect();
        let every = wants.pending.len().div_ceil(LEVELS_CHUNKS_MAX).max(1);
        let mut chunks: Vec<(Holders, u64)> = Vec::with_capacity(wants.pending.len() / every + 1);
        let mut is_partial = false;
        for ready in wants.pending.values().step_by(every) {
            let holders = ready.free.and(&all);
            is_partial |= holders != all;
            chunks.push((holders, u64::from(ready.len) * every as u64));
        }
        self.stale_at = now + LEVELS_AGE_MAX;
        if !is_partial || runners.len() < 2 || chunks.is_empty() {
            return;
        }
        // Who has few holders chooses first.
        chunks.sort_by_cached_key(|(holders, _)| holders.len());
        let usual =
            chunks.iter().map(|(_, len)| *len).sum::<u64>() / (chunks.len() as u64 * every as u64);
        let levels = balance(&chunks, runners);
        let last = levels.iter().max().copied().unwrap_or(now);
        let age = (last.saturating_sub(now) / 16).clamp(LEVELS_AGE_MIN, LEVELS_AGE_MAX);
        self.stale_at = now + age;
        let mut order: Vec<usize> = (0..runners.len()).collect();
        order.sort_by_key(|index| (levels[*index], *index));
        let spread = levels[order[order.len() - 1]] - levels[order[0]];
        if spread < 2 * MS {
            return;
        }
        for index in &order {
            let chunk_took = crate::peer::span(usual, runners[*index].rate);
            let until = levels[*index] + 2 * chunk_took + 5 * MS;
            let near = order.iter().filter(|other| levels[**other] <= until);
            let near = near.map(|other| runners[*other].peer).collect();
            self.tiers.push((runners[*index].peer, near));
        }
    }
}

/// When each runner is done if all chunks are divided as well as can be.
fn balance(chunks: &[(Holders, u64)], runners: &[Runner]) -> Vec<Micros> {
    let edge_count = runners.iter().map(|r| r.peer.index() + 1).max().unwrap_or(0);
    let (mut start_us, mut paces) = (vec![u64::MAX; edge_count], vec![0; edge_count]);
    for runner in runners {
        start_us[runner.peer.index()] = runner.start;
        paces[runner.peer.index()] = pace(runner.rate);
    }
    let words = edge_count.div_ceil(64).min(WORDS);
    let holders: Vec<u64> =
        chunks.iter().flat_map(|(holders, _)| holders.words().into_iter().take(words)).collect();
    let bytes: Vec<u64> = chunks.iter().map(|(_, len)| *len).collect();
    let edges = Edges { start_us: &start_us, pace: &paces };
    let classes = Classes { holders: &holders, words, bytes: &bytes };
    let mut placement = Placement::new(chunks.len(), edge_count);
    Cpu.settle(&edges, &classes, 1, LEVELS_ROUNDS, &mut placement);
    let finish = placement.finish_us(&edges);
    runners.iter().map(|runner| finish[runner.peer.index()]).collect()
}

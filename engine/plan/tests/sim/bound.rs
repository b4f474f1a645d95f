//! What no planner could beat: the fluid bound.
//!
//! Bytes are as fine as water, every rate is known, and every peer delivers
//! from one round trip after the start without a pause. `T` is possible if for
//! each set of peers the chunks that only these hold fit into what they can
//! deliver by `T`: that is the smallest cut of the flow from chunks to peers,
//! so this is the maximal flow at `T`, and `T` is bisected.

use crate::world::{Actor, MS, Piece};
use std::collections::HashMap;
use warp_plan::Micros;

/// Most peers for which all sets are gone through.
const PEERS_MAX: usize = 16;

/// The least time in which the chunks can be here.
pub(crate) fn fluid(actors: &[Actor], pieces: &[Piece]) -> Micros {
    let only = only_held_by(actors, pieces);
    bisect(|until| fits(&capacities(actors, until), &only))
}

/// The same for peers of which nothing is known: one chunk is asked of each,
/// and what is asked when its first bytes are here comes a round trip later.
/// That is the price of not knowing, for whoever does not bet.
pub(crate) fn fluid_unknown(actors: &[Actor], pieces: &[Piece]) -> Micros {
    let only = only_held_by(actors, pieces);
    let len = pieces.iter().map(|piece| piece.len).max().unwrap_or(0) as f64;
    bisect(|until| {
        let mut capacity = capacities(actors, until);
        for (capacity, actor) in capacity.iter_mut().zip(actors) {
            let second = actor.joins + 2 * actor.rtt;
            let before = actor.volume(actor.joins + actor.rtt, until.min(second));
            *capacity -= (before - len).max(0.0);
        }
        fits(&capacity, &only)
    })
}

/// What each peer can deliver by then.
fn capacities(actors: &[Actor], until: Micros) -> Vec<f64> {
    let dies = |actor: &Actor| {
        let ends = [actor.faults.dies, actor.faults.leaves];
        ends.into_iter().flatten().min().unwrap_or(Micros::MAX)
    };
    actors
        .iter()
        .map(|actor| actor.volume(actor.joins + actor.rtt, until.min(dies(actor))))
        .collect()
}

/// For each set of peers, the bytes that nobody outside of it holds.
fn only_held_by(actors: &[Actor], pieces: &[Piece]) -> Vec<f64> {
    assert!(actors.len() <= PEERS_MAX);
    let mut bytes = vec![0.0; 1 << actors.len()];
    for piece in pieces {
        let set: usize = piece.holders.iter().map(|peer| 1 << peer.0).sum();
        bytes[set] += piece.len as f64;
    }
    for peer in 0..actors.len() {
        for set in 0..bytes.len() {
            if set >> peer & 1 == 1 {
                bytes[set] += bytes[set ^ (1 << peer)];
            }
        }
    }
    bytes
}

fn fits(capacity: &[f64], only: &[f64]) -> bool {
    let mut sums = vec![0.0; only.len()];
    (1..only.len()).all(|set| {
        let lowest = set.trailing_zeros() as usize;
        sums[set] = sums[set & (set - 1)] + capacity[lowest];
        only[set] <= sums[set] + 0.5
    })
}

/// The least time, to a tenth of a millisecond, at which something is true.
pub(crate) fn bisect(possible: impl Fn(Micros) -> bool) -> Micros {
    let mut high = MS;
    while !possible(high) {
        high *= 2;
        assert!(high < 1 << 40, "never possible");
    }
    let mut low = high / 2;
    while high - low > MS / 10 {
        let middle = (low + high) / 2;
        if possible(middle) { high = middle } else { low = middle }
    }
    high
}

/// The same by a maximal flow, for more peers than there are sets for.
pub(crate) fn fluid_by_flow(actors: &[Actor], pieces: &[Piece]) -> Micros {
    bisect(|until| flows(&capacities(actors, until), pieces))
}

/// Whether all chunks can flow into peers of these capacities: augmenting
/// paths, found breadth first from the chunks that are left over.
fn flows(capacity: &[f64], pieces: &[Piece]) -> bool {
    let mut classes: HashMap<_, f64> = HashMap::new();
    for piece in pieces {
        *classes.entry(piece.holders).or_default() += piece.len as f64;
    }
    let holders: Vec<Vec<usize>> =
        classes.keys().map(|set| set.iter().map(|peer| usize::from(peer.0)).collect()).collect();
    let mut left: Vec<f64> = classes.values().copied().collect();
    let mut room = capacity.to_vec();
    let mut flow: Vec<HashMap<usize, f64>> = vec![HashMap::new(); capacity.len()];
    for class in 0..left.len() {
        while left[class] > 0.5 {
            let Some(path) = path(class, &holders, &room, &flow) else { return false };
            push(&path, &mut left, &mut room, &mut flow);
        }
    }
    true
}

/// Classes and peers in turn: the class gives bytes to the peer, which passes
/// as many of the next class on to the next peer; the last has room.
fn path(
    class: usize,
    holders: &[Vec<usize>],
    room: &[f64],
    flow: &[HashMap<usize, f64>],
) -> Option<Vec<(usize, usize)>> {
    // How a peer was reached: from which class, and from which peer.
    let mut reached: Vec<Option<(usize, Option<usize>)>> = vec![None; room.len()];
    let mut waiting = std::collections::VecDeque::from([(class, None)]);
    let mut seen = vec![false; holders.len()];
    while let Some((class, from)) = waiting.pop_front() {
        for peer in &holders[class] {
            if reached[*peer].is_some() {
                continue;
            }
            reached[*peer] = Some((class, from));
            if room[*peer] > 0.5 {
                let mut path = Vec::new();
                let mut at = Some(*peer);
                while let Some(peer) = at {
                    let (class, before) = reached[peer]?;
                    path.push((class, peer));
                    at = before;
                }
                path.reverse();
                return Some(path);
            }
            for next in flow[*peer].iter().filter(|(_, bytes)| **bytes > 0.5).map(|(c, _)| *c) {
                if !std::mem::replace(&mut seen[next], true) {
                    waiting.push_back((next, Some(*peer)));
                }
            }
        }
    }
    None
}

fn push(
    path: &[(usize, usize)],
    left: &mut [f64],
    room: &mut [f64],
    flow: &mut [HashMap<usize, f64>],
) {
    let (first, last) = (path[0].0, path[path.len() - 1].1);
    let mut bytes = left[first].min(room[last]);
    for pair in path.windows(2) {
        let (from, class) = (pair[0].1, pair[1].0);
        bytes = bytes.min(flow[from].get(&class).copied().unwrap_or(0.0));
    }
    left[first] -= bytes;
    room[last] -= bytes;
    for (class, peer) in path {
        *flow[*peer].entry(*class).or_default() += bytes;
    }
    for pair in path.windows(2) {
        *flow[pair[0].1].entry(pair[1].0).or_default() -= bytes;
    }
}

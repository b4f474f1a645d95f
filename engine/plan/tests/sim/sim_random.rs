//! Ten thousand seeded runs, each beside its exact bound.

use crate::bound;
use crate::noise::Noise;
use crate::world::{Actor, KIB, MIB, MS, Piece, Run, SECOND, run, scattered, whole};
use warp_plan::{Due, Micros, PeerNo};

/// A random fleet and what is wanted of it.
struct Story {
    actors: Vec<Actor>,
    pieces: Vec<Piece>,
    /// Chunks before this one only make the peers known.
    first: usize,
    start: Micros,
}

fn story(seed: u64, share: f64, warm: bool) -> Story {
    let mut noise = Noise::new(seed);
    let count = noise.between(2, 10);
    let actors: Vec<Actor> = (0..count)
        .map(|_| {
            let rate = (15e6 * noise.lognormal(1.0)).clamp(0.5e6, 200e6);
            Actor::new(rate as u64, noise.between(1, 120) * MS)
        })
        .collect();
    let sum: u64 = actors.iter().map(|actor| actor.rates[0].1).sum();
    // About four to eight seconds.
    let seconds = noise.between(4, 8);
    // Runs with partial holders are planned at greater length, so these are
    // shorter: all ten thousand are to take less than a minute on two cores.
    let chunks = if share < 1.0 { 300 } else { 600 };
    let len = (sum * seconds / noise.between(chunks, 2 * chunks)).clamp(64 * KIB, MIB);
    let total = (sum * seconds).min(5 * chunks / 2 * len);
    let mut pieces = if share < 1.0 {
        scattered(&actors, total, len, share, &mut noise)
    } else {
        whole(&actors, total, len)
    };
    if !warm {
        return Story { actors, pieces, first: 0, start: 0 };
    }
    // Each peer first delivers something that only it has.
    let start = 3 * SECOND;
    for piece in &mut pieces {
        piece.from = start;
    }
    let own = |index: usize| {
        let bytes = (actors[index].rates[0].1 / 4).max(1);
        let holders = [PeerNo(index as u8)].into_iter().collect();
        let piece =
            move |number| Piece { len: len.min(bytes), holders, due: Due::By(number), from: 0 };
        (0..(bytes / len).clamp(1, 16)).map(piece)
    };
    let mut all: Vec<Piece> = (0..actors.len()).flat_map(own).collect();
    let first = all.len();
    all.append(&mut pieces);
    Story { actors, pieces: all, first, start }
}

struct Outcome {
    seed: u64,
    /// Of the fluid bound.
    ratio: f64,
    /// Of the bound for peers that are not known, if they are not.
    ratio_unknown: f64,
    waste: f64,
}

fn tell(seed: u64, share: f64, warm: bool) -> Outcome {
    let story = story(seed, share, warm);
    let run: Run = run(&story.actors, &story.pieces);
    let pieces = &story.pieces[story.first..];
    let took = (run.makespan() - story.start) as f64;
    let fluid = bound::fluid(&story.actors, pieces);
    let unknown = if warm { fluid } else { bound::fluid_unknown(&story.actors, pieces) };
    Outcome {
        seed,
        ratio: took / fluid as f64,
        ratio_unknown: took / unknown as f64,
        waste: run.waste_share(),
    }
}

/// Runs per test; eight tests make ten thousand.
const RUNS: u64 = 1_250;

/// Runs them, prints a row, and gives the ratios at 95 % and at the worst,
/// and the worst for peers that are not known.
fn many(name: &str, part: u64, share: f64, warm: bool) -> [f64; 3] {
    let seeds = part * RUNS..(part + 1) * RUNS;
    let mut all: Vec<Outcome> = seeds.map(|seed| tell(seed, share, warm)).collect();
    all.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let at = |share: f64| &all[((all.len() - 1) as f64 * share) as usize];
    let most = |of: fn(&Outcome) -> f64| all.iter().map(of).fold(0.0, f64::max);
    let (waste, unknown) = (most(|o| o.waste), most(|o| o.ratio_unknown));
    let waster = all.iter().find(|o| o.waste >= waste).map_or(0, |o| o.seed);
    println!(
        "{name}, {RUNS} runs: p50 {:.4}, p95 {:.4}, p99 {:.4}, worst {:.4} (seed {}) of the fluid \
         bound; worst {unknown:.4} of that for unknown peers; most waste {:.2} % (seed {waster})",
        at(0.5).ratio,
        at(0.95).ratio,
        at(0.99).ratio,
        at(1.0).ratio,
        at(1.0).seed,
        waste * 100.0
    );
    assert!(waste <= 0.01, "{waste}");
    [at(0.95).ratio, at(1.0).ratio, unknown]
}

fn full_known(part: u64) {
    let [_, worst, _] = many("full holders, known peers", part, 1.0, true);
    assert!(worst <= 1.02, "{worst}");
}

fn full_unknown(part: u64) {
    let [p95, _, unknown] = many("full holders, unknown peers", part, 1.0, false);
    assert!(p95 <= 1.02 && unknown <= 1.02, "{p95} {unknown}");
}

fn half_known(part: u64) {
    let [p95, ..] = many("half of the holders, known peers", part, 0.5, true);
    assert!(p95 <= 1.06, "{p95}");
}

fn half_unknown(part: u64) {
    let [p95, ..] = many("half of the holders, unknown peers", part, 0.5, false);
    assert!(p95 <= 1.06, "{p95}");
}

#[test]
fn sim_random_full_known_1() {
    full_known(0);
}

#[test]
fn sim_random_full_known_2() {
    full_known(1);
}

#[test]
fn sim_random_full_unknown_1() {
    full_unknown(2);
}

#[test]
fn sim_random_full_unknown_2() {
    full_unknown(3);
}

#[test]
fn sim_random_half_known_1() {
    half_known(4);
}

#[test]
fn sim_random_half_known_2() {
    half_known(5);
}

#[test]
fn sim_random_half_unknown_1() {
    half_unknown(6);
}

#[test]
fn sim_random_half_unknown_2() {
    half_unknown(7);
}

/// The maximal flow and the smallest cut say the same.
#[test]
fn the_two_bounds_agree() {
    for seed in 0..40 {
        let story = story(seed, 0.3, false);
        let cut = bound::fluid(&story.actors, &story.pieces);
        let flow = bound::fluid_by_flow(&story.actors, &story.pieces);
        assert!(cut.abs_diff(flow) <= MS / 5, "seed {seed}: {cut} and {flow} µs");
    }
}

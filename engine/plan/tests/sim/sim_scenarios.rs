//! The scenarios of research/swarm.md 2.5, with the figures of its goals.

use crate::bound;
use crate::noise::Noise;
use crate::world::{Actor, GIB, KIB, MB, MIB, MS, Piece, Run, SECOND, run, scattered, whole};

/// Peers A: 100, 50, 20 and 5 MB/s at 5, 20, 50 and 100 ms.
fn peers_a() -> Vec<Actor> {
    [(100, 5), (50, 20), (20, 50), (5, 100)]
        .map(|(rate, rtt)| Actor::new(rate * MB, rtt * MS))
        .to_vec()
}

struct Figures {
    ratio: f64,
    stall_ms: u64,
    waste: f64,
}

fn judge(story: &str, actors: &[Actor], pieces: &[Piece], run: &Run) -> Figures {
    let bound = if actors.len() <= 16 {
        bound::fluid(actors, pieces)
    } else {
        bound::fluid_by_flow(actors, pieces)
    };
    let figures = Figures {
        ratio: run.makespan() as f64 / bound as f64,
        stall_ms: run.stall(actors, pieces) / MS,
        waste: run.waste_share(),
    };
    println!(
        "{story}: {:.3} s, {:.4} of the bound; stall {} ms; waste {:.2} %; {:?}",
        run.makespan() as f64 / SECOND as f64,
        figures.ratio,
        figures.stall_ms,
        figures.waste * 100.0,
        run.counts,
    );
    figures
}

#[test]
fn four_equal_peers() {
    let actors: Vec<Actor> = (0..4).map(|_| Actor::new(25 * MB, 20 * MS)).collect();
    let pieces = whole(&actors, GIB, MIB);
    let f = judge("4 equal", &actors, &pieces, &run(&actors, &pieces));
    assert!(f.ratio <= 1.02 && f.stall_ms <= 300 && f.waste <= 0.01);
}

#[test]
fn a_with_chunks_of_a_mib() {
    let actors = peers_a();
    let pieces = whole(&actors, GIB, MIB);
    let f = judge("A, 1 MiB", &actors, &pieces, &run(&actors, &pieces));
    assert!(f.ratio <= 1.02 && f.stall_ms <= 300 && f.waste <= 0.01);
}

#[test]
fn a_with_chunks_of_a_quarter_mib() {
    let actors = peers_a();
    let pieces = whole(&actors, GIB, 256 * KIB);
    let f = judge("A, 256 KiB", &actors, &pieces, &run(&actors, &pieces));
    assert!(f.ratio <= 1.02 && f.stall_ms <= 300 && f.waste <= 0.01);
}

/// The bound knows how rates will change and no planner can, so a single run
/// may be unlucky: if all rates sink at the end, what was not made use of in
/// the first round trips weighs more. The mean of twenty is held to the goal.
#[test]
fn a_with_rates_that_change_every_second() {
    const RUNS: u64 = 20;
    let mut sum = 0.0;
    for seed in 0..RUNS {
        let mut noise = Noise::new(seed);
        let mut actors = peers_a();
        for actor in &mut actors {
            let rate = actor.rates[0].1 as f64;
            actor.rates =
                (0..60).map(|s| (s * SECOND, (rate * noise.lognormal(0.5)) as u64)).collect();
        }
        let pieces = whole(&actors, GIB, MIB);
        let f = judge("A, jitter", &actors, &pieces, &run(&actors, &pieces));
        assert!(f.ratio <= 1.08 && f.stall_ms <= 300 && f.waste <= 0.01);
        sum += f.ratio;
    }
    let mean = sum / RUNS as f64;
    println!("A, jitter, mean of {RUNS}: {mean:.4}");
    assert!(mean <= 1.02, "{mean}");
}

#[test]
fn a_whose_fastest_dies_silently() {
    let mut actors = peers_a();
    actors[0].faults.dies = Some(2 * SECOND);
    let pieces = whole(&actors, GIB, MIB);
    let run = run(&actors, &pieces);
    let f = judge("A, silent death", &actors, &pieces, &run);
    println!("gap {} ms", run.gap(2 * SECOND) / MS);
    assert!(run.gap(2 * SECOND) <= 150 * MS);
    assert!(f.ratio <= 1.02 && f.stall_ms <= 300 && f.waste <= 0.01);
}

#[test]
fn a_whose_fastest_becomes_twenty_times_slower() {
    let mut actors = peers_a();
    actors[0] = actors[0].clone().then(2 * SECOND, 5 * MB);
    let pieces = whole(&actors, GIB, MIB);
    let run = run(&actors, &pieces);
    let f = judge("A, 20 x slower", &actors, &pieces, &run);
    println!("gap {} ms", run.gap(2 * SECOND) / MS);
    assert!(f.ratio <= 1.02 && f.stall_ms <= 300 && f.waste <= 0.01);
}

#[test]
fn sixteen_peers_with_half_of_the_chunks_each() {
    for seed in 0..10 {
        let mut noise = Noise::new(seed);
        let actors: Vec<Actor> = (0..16)
            .map(|_| Actor::new((20e6 * noise.lognormal(1.0)) as u64, noise.between(2, 60) * MS))
            .collect();
        let pieces = scattered(&actors, GIB, MIB, 0.5, &mut noise);
        let f = judge("16 peers, half", &actors, &pieces, &run(&actors, &pieces));
        assert!(f.ratio <= 1.06 && f.waste <= 0.01);
    }
}

#[test]
fn a_hundred_peers_with_half_of_the_chunks_each() {
    let mut noise = Noise::new(7);
    let actors: Vec<Actor> = (0..100)
        .map(|_| Actor::new((20e6 * noise.lognormal(1.0)) as u64, noise.between(2, 60) * MS))
        .collect();
    let pieces = scattered(&actors, 4 * GIB, 256 * KIB, 0.5, &mut noise);
    let f = judge("100 peers, half", &actors, &pieces, &run(&actors, &pieces));
    assert!(f.ratio <= 1.06 && f.waste <= 0.01);
}

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
    let len = (sum * seconds / noise.between(600, 1200)).clamp(64 * KIB, MIB);
    let total = (sum * seconds).min(1_500 * len);
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
    ratio: f64,
    /// Makespan less the bound.
    over: f64,
    waste: f64,
    bound: f64,
}

fn tell(story: &Story, seed: u64) -> Outcome {
    let run: Run = run(&story.actors, &story.pieces);
    let bound = bound::fluid(&story.actors, &story.pieces[story.first..]);
    let took = run.makespan() - story.start;
    Outcome {
        seed,
        ratio: took as f64 / bound as f64,
        over: (took as f64 - bound as f64) / 1e3,
        waste: run.waste_share(),
        bound: bound as f64 / 1e6,
    }
}

fn many(name: &str, seeds: std::ops::Range<u64>, share: f64, warm: bool) -> Vec<Outcome> {
    let mut all: Vec<Outcome> = seeds.map(|seed| tell(&story(seed, share, warm), seed)).collect();
    all.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let at = |share: f64| &all[((all.len() - 1) as f64 * share) as usize];
    let waste = all.iter().map(|o| o.waste).fold(0.0, f64::max);
    println!(
        "{name}: p50 {:.4} p95 {:.4} p99 {:.4} worst {:.4} (seed {}, {:.2} s + {:.0} ms); most waste {:.3} %",
        at(0.5).ratio,
        at(0.95).ratio,
        at(0.99).ratio,
        at(1.0).ratio,
        at(1.0).seed,
        at(1.0).bound,
        at(1.0).over,
        waste * 100.0
    );
    all
}

#[test]
fn random_explore() {
    let n: u64 = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    for (name, share, warm) in [
        ("full cold", 1.0, false),
        ("full warm", 1.0, true),
        ("half cold", 0.5, false),
        ("half warm", 0.5, true),
    ] {
        let t = std::time::Instant::now();
        many(name, 0..n, share, warm);
        println!("  {:?} a run", t.elapsed() / n as u32);
    }
}

#[test]
fn random_debug() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(130);
    let warm = std::env::var("WARM").is_ok();
    let share = if std::env::var("HALF").is_ok() { 0.5 } else { 1.0 };
    let story = story(seed, share, warm);
    let run: Run = run(&story.actors, &story.pieces);
    let bound = bound::fluid(&story.actors, &story.pieces[story.first..]);
    println!(
        "bound {} took {} chunks {} x {}",
        bound / MS,
        (run.makespan() - story.start) / MS,
        story.pieces.len() - story.first,
        story.pieces[story.first].len
    );
    println!("{:?} waste {}", run.counts, run.waste);
    for (i, a) in story.actors.iter().enumerate() {
        let mine: Vec<_> = run.log.iter().filter(|(_, x)| usize::from(x.peer.0) == i).collect();
        let last = mine.iter().map(|(_, x)| run.done[x.chunk.0 as usize]).max().unwrap_or(0);
        println!(
            "peer {i} rate {} rtt {} chunk time {} asked {} first {:?} last done {} ideal {}",
            a.rates[0].1,
            a.rtt / MS,
            story.pieces[story.first].len * 1000 / a.rates[0].1,
            mine.len(),
            mine.iter().take(12).map(|(t, x)| (*t / MS, x.chunk.0)).collect::<Vec<_>>(),
            (last.max(story.start) - story.start) / MS,
            a.volume(a.rtt, bound) as u64 / story.pieces[story.first].len
        );
    }
    let mut last: Vec<_> = run.done.iter().enumerate().map(|(i, t)| (*t, i)).collect();
    last.sort();
    for (t, i) in last.iter().rev().take(12) {
        let who: Vec<_> = run
            .log
            .iter()
            .filter(|(_, a)| a.chunk.0 as usize == *i)
            .map(|(t, a)| (*t / 1000, a.peer.0, a.why, a.finish / 1000))
            .collect();
        println!("   {} at {} {:?}", i, t / 1000, who);
    }
}

#[test]
fn random_debug2() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(130);
    let warm = std::env::var("WARM").is_ok();
    let who: u8 = std::env::var("WHO").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let story = story(seed, 0.5, warm);
    let run: Run = run(&story.actors, &story.pieces);
    for (t, a) in run.log.iter().filter(|(_, a)| a.peer.0 == who) {
        let h = story.pieces[a.chunk.0 as usize].holders;
        println!(
            "{} chunk {} holders {:?} done {} cand {:?}",
            t / MS,
            a.chunk.0,
            h.iter().map(|p| p.0).collect::<Vec<_>>(),
            run.done[a.chunk.0 as usize] / MS,
            a.candidates.iter().flatten().map(|c| (c.peer.0, c.finish / MS)).collect::<Vec<_>>()
        );
    }
}

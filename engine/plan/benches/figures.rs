//! What decisions cost, each beside its goal; run by `cargo xtask bench plan`.
//!
//! Plain loops and the least of several times: on a shared machine the least
//! is what the code takes, and the rest is what others took.

use std::hint::black_box;
use std::time::{Duration, Instant};
use warp_kernels::{Classes, CostKernel, Cpu, Edges, Placement, pace};
use warp_plan::{ChunkNo, Due, Holders, Micros, Outcome, PeerNo, Planner, Traits};

const CHUNK: u32 = 256 << 10;

fn main() {
    println!("| figure | measured | goal |\n|---|---|---|");
    for share in [1.0, 0.5] {
        let [event, plan, mean] = decisions(share);
        let percent = share * 100.0;
        let what = format!("decision at 100 peers, {percent} % holders: event and decide");
        row(&what, &micros(event), "≤ 2 µs");
        row("  the same with a plan", &micros(plan), "–");
        row("  with its part of the plans", &micros(mean), "–");
    }
    row("the same work if it waited for a tick of 50 ms", "25 ms mean, 50 ms worst", "–");
    row(
        "failover: a closed connection's chunks given to others, 20,000 wanted",
        &micros(failover()),
        "< 50 ms",
    );
    let (fill, classes, settled, best) = grouped();
    row("water-fill, 10 M chunks, 100 edges", &micros(fill), "24 µs (study)");
    row("10 M chunks, 100 edges, 64 k classes: a round", &micros(classes), "≤ 3 ms");
    row("  the three best holders of each class", &micros(best), "–");
    row("  settled from nothing, rounds", &settled, "–");
    let (round, settled) = arbitrary();
    row("10 M chunks, 100 edges, arbitrary holders: a round", &micros(round), "≤ 100 ms");
    row("  settled from nothing, rounds", &settled, "≤ 2 s");
}

fn row(what: &str, measured: &str, goal: &str) {
    println!("| {what} | {measured} | {goal} |");
}

fn micros(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    match us {
        0.0..10.0 => format!("{us:.2} µs"),
        10.0..1_000.0 => format!("{us:.0} µs"),
        1_000.0..10_000.0 => format!("{:.2} ms", us / 1e3),
        _ => format!("{:.0} ms", us / 1e3),
    }
}

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A hundred peers that all are known and busy, and the next chunks wanted.
fn fleet(noise: &mut Noise, share: f64) -> (Planner, Vec<(PeerNo, ChunkNo)>, Micros, u64) {
    let mut planner = Planner::new();
    for peer in 0..100 {
        let rtt = Some(1_000 + noise.next() % 60_000);
        planner.joined(0, PeerNo(peer), Traits { rtt, ..Traits::default() });
    }
    let mut open = Vec::new();
    let mut next = 0;
    let mut now = 0;
    while next < 20_000 {
        want(&mut planner, noise, share, next);
        next += 1;
    }
    // Everybody delivers at its own rate until everybody is known.
    let mut credit = [0; 100];
    for _ in 0..600 {
        now += 1_000;
        let decision = planner.decide(now);
        open.extend(decision.assignments.iter().map(|a| (a.peer, a.chunk)));
        for peer in 0..100u8 {
            let Some(at) = open.iter().position(|(of, _): &(PeerNo, _)| of.0 == peer) else {
                continue;
            };
            planner.progress(now, PeerNo(peer), rate_of(peer));
            credit[usize::from(peer)] += rate_of(peer);
            if credit[usize::from(peer)] >= u64::from(CHUNK) {
                credit[usize::from(peer)] -= u64::from(CHUNK);
                let (peer, chunk) = open.remove(at);
                planner.received(now, peer, chunk, Outcome::Good);
                want(&mut planner, noise, share, next);
                next += 1;
            }
        }
    }
    (planner, open, now, next)
}

fn want(planner: &mut Planner, noise: &mut Noise, share: f64, number: u64) {
    let held = |noise: &mut Noise| noise.next() as f64 / u64::MAX as f64 <= share;
    let holders: Holders = (0..100).filter(|_| held(noise)).map(PeerNo).collect();
    planner.want(ChunkNo(number), CHUNK, Due::Bulk(number), holders);
}

/// Time from an event to its decision, as medians (on a shared machine means
/// tell of others): without a plan, with one, and their mix. Chunks complete every 120 µs, 2.2 GB/s, at each peer in proportion to
/// its rate and in the order in which they were asked for.
fn decisions(share: f64) -> [Duration; 3] {
    let mut noise = Noise(88_172_645_463_325_252);
    let (mut planner, mut open, mut now, mut next) = fleet(&mut noise, share);
    let (mut plain, mut planned) = (Vec::new(), Vec::new());
    while plain.len() + planned.len() < 20_000 {
        now += 120;
        let Some(at) = answered(&mut noise, &open) else { continue };
        let (peer, chunk) = open.remove(at);
        let before = planner.counts().plans;
        let start = Instant::now();
        planner.received(now, peer, chunk, Outcome::Good);
        let decision = black_box(planner.decide(now));
        let took = start.elapsed();
        if planner.counts().plans == before { &mut plain } else { &mut planned }.push(took);
        for stop in &decision.stops {
            open.retain(|one| *one != (stop.peer, stop.chunk));
        }
        open.extend(decision.assignments.iter().map(|a| (a.peer, a.chunk)));
        want(&mut planner, &mut noise, share, next);
        next += 1;
    }
    let [event, plan] = [&mut plain, &mut planned].map(|times| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    });
    let (plain, planned) = (plain.len() as u32, planned.len() as u32);
    [event, plan, (event * plain + plan * planned) / (plain + planned)]
}

/// The oldest request of a peer drawn by its rate, if it has one.
fn answered(noise: &mut Noise, open: &[(PeerNo, ChunkNo)]) -> Option<usize> {
    const SUM: u64 = 100 * 2_000 + 400 * (99 * 100 / 2);
    let mut at = noise.next() % SUM;
    let mut peer = 0u8;
    while at >= rate_of(peer) {
        at -= rate_of(peer);
        peer += 1;
    }
    open.iter().position(|(of, _)| of.0 == peer)
}

/// Bytes a millisecond.
fn rate_of(peer: u8) -> u64 {
    2_000 + 400 * u64::from(peer)
}

/// The connection that owes most is closed: until its chunks are asked of
/// others, or are planned for them.
fn failover() -> Duration {
    let mut noise = Noise(7);
    let (mut planner, open, now, _) = fleet(&mut noise, 1.0);
    let count = |peer: u8| open.iter().filter(|(of, _)| of.0 == peer).count();
    let most = (0..100u8).max_by_key(|peer| count(*peer)).unwrap_or(0);
    let start = Instant::now();
    planner.left(now, PeerNo(most));
    black_box(planner.decide(now));
    start.elapsed()
}

struct Case {
    start_us: Vec<u64>,
    pace: Vec<u64>,
    holders: Vec<u64>,
    bytes: Vec<u64>,
}

fn case(classes: usize, bytes: u64) -> Case {
    let mut noise = Noise(42);
    let start_us = (0..100).map(|_| noise.next() % 60_000).collect();
    let pace = (0..100).map(|_| pace(5_000_000 + noise.next() % 95_000_000)).collect();
    let mask = |word: usize, bits: u64| if word == 1 { bits & ((1 << 36) - 1) } else { bits };
    let holders = (0..classes * 2).map(|at| mask(at % 2, noise.next() | 1)).collect();
    Case { start_us, pace, holders, bytes: vec![bytes; classes] }
}

fn least<T>(times: usize, mut act: impl FnMut() -> T) -> Duration {
    let one = |_| {
        let start = Instant::now();
        black_box(act());
        start.elapsed()
    };
    (0..times).map(one).min().unwrap_or_default()
}

fn grouped() -> (Duration, Duration, String, Duration) {
    let case = case(64 << 10, 153 * 65_536);
    let edges = Edges { start_us: &case.start_us, pace: &case.pace };
    let classes = Classes { holders: &case.holders, words: 2, bytes: &case.bytes };
    let fill = least(20, || Cpu.water_fill(&edges, 65_536, 10_000_000));
    let mut placement = Placement::new(case.bytes.len(), 100);
    Cpu.settle(&edges, &classes, 512, 4, &mut placement);
    let round = least(10, || Cpu.round(&edges, &classes, 4_096, &mut placement.clone()));
    let best = least(10, || Cpu.best(&edges, &classes, &placement));
    (fill, round, settle(&edges, &classes, 512), best)
}

fn arbitrary() -> (Duration, String) {
    let case = case(10_000_000, 65_536);
    let edges = Edges { start_us: &case.start_us, pace: &case.pace };
    let classes = Classes { holders: &case.holders, words: 2, bytes: &case.bytes };
    let mut placement = Placement::new(case.bytes.len(), 100);
    Cpu.round(&edges, &classes, 8_192, &mut placement);
    let round = least(3, || Cpu.round(&edges, &classes, 8_192, &mut placement));
    (round, settle(&edges, &classes, 8_192))
}

/// Rounds from nothing until the last edge is done within a hundredth of what
/// the fluid bound asks, at most eight.
fn settle(edges: &Edges<'_>, classes: &Classes<'_>, block: usize) -> String {
    let len = classes.bytes[0];
    let bound = Cpu.water_fill(edges, len, classes.bytes.len() as u64).unwrap_or(u64::MAX);
    let mut placement = Placement::new(classes.bytes.len(), edges.pace.len());
    let start = Instant::now();
    for round in 1..=8 {
        Cpu.round(edges, classes, block, &mut placement);
        let ratio = placement.last_us(edges) as f64 / bound as f64;
        if ratio <= 1.01 || round == 8 {
            let time = micros(start.elapsed());
            return format!("{time}, {round} rounds, {ratio:.4} of the fluid bound");
        }
    }
    String::new()
}

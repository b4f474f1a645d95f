//! Sixteen peers, each chunk with half of them: the bound is that of the
//! transport problem, exact.

use super::scene::{Scene, name};
use super::{GONE, bytes, row};
use anyhow::Result;
use std::time::Duration;

const PEERS: u8 = 16;
const FILES: usize = 64;
/// Bytes of each file: a few chunks.
const LEN: usize = 2 << 20;
/// Of the peers, in megabits a second: from 2 to 32, in turn.
const RATES: [u32; 4] = [4, 8, 16, 32];

/// The peers that have a file: half of them, in a pattern that does not
/// repeat soon.
fn holders(file: usize) -> Vec<usize> {
    let mut peers: Vec<usize> = (0..PEERS.into()).collect();
    let mut dice = file as u64 + 1;
    for n in (1..peers.len()).rev() {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        peers.swap(n, (dice >> 33) as usize % (n + 1));
    }
    peers.truncate(usize::from(PEERS) / 2);
    peers
}

/// The least time in seconds: no set of peers can bring what only they have
/// sooner than at the sum of their rates, and some order reaches the worst of
/// these bounds (Gale 1957).
fn bound(rates: &[f64]) -> f64 {
    let holders: Vec<u32> =
        (0..FILES).map(|file| holders(file).iter().map(|peer| 1 << peer).sum()).collect();
    let time = |set: u32| {
        let only = holders.iter().filter(|holders| **holders & !set == 0).count();
        let rate: f64 = (0..rates.len()).filter(|p| set >> p & 1 == 1).map(|p| rates[p]).sum();
        only as f64 * LEN as f64 / rate
    };
    (1..1u32 << PEERS).map(time).fold(0.0, f64::max)
}

pub(super) fn bench() -> Result<()> {
    let scene = Scene::new(PEERS + 1, &[LEN; FILES]);
    for file in 0..FILES {
        for peer in holders(file) {
            scene.devices[1 + peer].warp(["warmup", &format!("m/{}", name(file))]).ok();
        }
    }
    let rate = |peer: u8| RATES[usize::from(peer) % RATES.len()];
    (0..PEERS).for_each(|peer| scene.lan().sends_at(peer + 2, rate(peer)));
    scene.connect(usize::from(PEERS) + 1)?;
    // The names, from the writer; then it is away.
    scene.list()?;
    scene.devices[0].warp(["down"]).ok();
    std::thread::sleep(GONE);
    scene.connect(PEERS.into())?;
    let before = scene.received()?;
    let began = std::time::Instant::now();
    scene.reader().warp(["warmup", "m"]).ok();
    let took = began.elapsed();
    let total = (FILES * LEN) as f64;
    let waste = ((scene.received()? - before) / total - 1.0) * 100.0;
    for n in 0..FILES {
        scene.read(n, |_| {})?;
    }
    // What a link carries of its rate, as `unequal` measures it.
    let rates: Vec<f64> = (0..PEERS).map(|peer| bytes(rate(peer)) * 0.935).collect();
    let least = bound(&rates);
    row(
        "16 peers, each file with half of them",
        &format!("{:.3} x bound", took.as_secs_f64() / least),
        &format!("{took:.2?} of {:.2?}, at 0.935 of their rates", Duration::from_secs_f64(least)),
    );
    row("… received beyond the files", &format!("{waste:.2} %"), "nodes, seals and second copies");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_sum_of_rates_or_what_few_alone_have() {
        let all = bound(&[1e6; PEERS as usize]);
        let sum = (FILES * LEN) as f64 / (1e6 * f64::from(PEERS));
        assert!(all >= sum && all < 1.2 * sum, "{all} {sum}");
        let mut slow = [1e6; PEERS as usize];
        holders(0).iter().for_each(|peer| slow[*peer] = 1.0);
        // One file is with none but the slow.
        assert!(bound(&slow) >= LEN as f64 / 8.0);
    }
}

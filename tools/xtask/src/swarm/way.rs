//! One peer: how soon it is found, and what a way that is far or lossy costs.

use super::scene::Scene;
use super::{bytes, row};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// Of the way, in megabits a second.
const RATE: u32 = 100;
/// One way; there and back it takes twice as long.
const DELAY: Duration = Duration::from_millis(10);
/// Lengths of files that are read whole and cold, and how many of each: none
/// so short that it shares a chunk with others.
const SMALL: [usize; 3] = [66 << 10, 256 << 10, 1 << 20];
const EACH: usize = 9;

/// Both devices have other addresses than they remember of each other: only
/// multicast can bring them together.
pub(super) fn found() -> Result<()> {
    let scene = Scene::new(1, &[1000]);
    let [writer, reader] = &scene.devices[..] else { unreachable!("one peer and a reader") };
    let mut times = Vec::new();
    for (n, late) in [(0, reader), (1, writer)] {
        for (device, machine) in [(reader, 2), (writer, 1)] {
            device.warp(["down"]).ok();
            scene.lan().readdress(machine, machine + 100 + 2 * n);
        }
        let early = if std::ptr::eq(late, reader) { writer } else { reader };
        early.mount();
        std::thread::sleep(Duration::from_secs(3));
        let began = Instant::now();
        late.mount();
        scene.connect(1)?;
        times.push(began.elapsed().as_secs_f64());
    }
    row(
        "found by multicast: by one that starts",
        &format!("{:.2} s", times[0]),
        "from `warp mount` to connected, the daemon's start with it",
    );
    row("… one that starts", &format!("{:.2} s", times[1]), "the same");
    Ok(())
}

/// Cold reads of small files, each alone in a directory that was listed, at
/// 20 ms and 100 Mbit/s.
pub(super) fn far() -> Result<()> {
    let lens: Vec<usize> = SMALL.iter().flat_map(|len| [*len; EACH]).collect();
    let scene = Scene::over(1, &lens, |lan| {
        lan.sends_at(1, RATE);
        lan.is_far(2, DELAY, 0.0);
    });
    scene.connect(1)?;
    scene.list()?;
    for (kind, len) in SMALL.iter().enumerate() {
        let bound = 2.0 * DELAY.as_secs_f64() + *len as f64 / bytes(RATE);
        let mut times = Vec::new();
        for n in 0..EACH {
            let pass = scene.read(kind * EACH + n, |_| {})?;
            times.push(pass.took.as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let (median, longest) = (times[EACH / 2] * 1e3, times[EACH - 1] * 1e3);
        row(
            &format!("cold read of {} KiB at 20 ms, 100 Mbit/s", len >> 10),
            &format!("{:.2} x bound", median / bound / 1e3),
            &format!("median {median:.1} ms, longest {longest:.1} ms, of {:.1} ms", bound * 1e3),
        );
    }
    Ok(())
}

/// One packet in a hundred is lost each way, at 20 ms and 100 Mbit/s.
pub(super) fn lossy() -> Result<()> {
    let scene = Scene::over(1, &[48 << 20; 2], |lan| {
        lan.sends_at(1, RATE);
        lan.is_far(2, DELAY, 0.01);
    });
    scene.connect(1)?;
    let mut best: f64 = 0.0;
    for n in 0..2 {
        best = best.max(scene.read(n, |_| {})?.bytes_per_s() / bytes(RATE));
    }
    ensure!(best < 1.0, "{best} of the link: the link is not what it says");
    row("1 % loss, 20 ms, 100 Mbit/s", &format!("{best:.2} of rate"), "best of 2; 48 MiB");
    Ok(())
}

//! `cargo xtask bench swarm`: what a mount reads from its peers, beside what
//! their links could give.
//!
//! Neighbours: the tests' machines (`warp_tests::lan`), each a network namespace
//! whose rate a token bucket bounds, and the release binary on them. Promises:
//! each figure stands beside the bound of the same run; everything goes away
//! with it. Never: part of `check`: its figures are this machine's. Tested by
//! its use: a step that fails ends it.

mod halves;
mod scene;
mod way;

use crate::workspace::{Workspace, cargo};
use anyhow::{Context, Result, ensure};
use scene::Scene;
use std::process::Command;
use std::time::Duration;
use warp_tests::must;

/// Rates of four unequal peers, in megabits a second.
const UNEQUAL: [u32; 4] = [200, 100, 40, 10];
/// Bytes of a file that is read, and of one that is read at a pace.
const LEN: usize = 96 << 20;
const LONG: usize = 512 << 20;
/// How long it takes until peers that were cut off are known to be gone.
const GONE: Duration = Duration::from_secs(7);

/// Builds the binary, and runs the bench in a process that knows it.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    if std::env::var_os("WARP_BIN").is_some() {
        return bench();
    }
    let built = Command::new(cargo())
        .args(["build", "--quiet", "--release", "--package", "warp"])
        .status()
        .context("cargo")?;
    ensure!(built.success(), "the release build failed");
    let binary = workspace.target_directory.join("release/warp");
    let done = Command::new(std::env::current_exe()?)
        .args(["bench", "swarm"])
        .env("WARP_BIN", binary)
        .status()
        .context("xtask")?;
    ensure!(done.success(), "the bench failed");
    Ok(())
}

fn row(what: &str, figure: &str, beside: &str) {
    println!("{what:<44} {figure:>16}   {beside}");
}

/// Bytes a second.
fn bytes(megabits: u32) -> f64 {
    f64::from(megabits) / 8.0 * 1e6
}

fn bench() -> Result<()> {
    single("one peer, loopback, cold", Scene::on_loopback(&[LEN; 3]))?;
    single("one peer, veth without offloads, cold", Scene::new(1, &[LEN; 3]))?;
    way::found()?;
    way::far()?;
    way::lossy()?;
    unequal()?;
    halves::bench()
}

/// One peer, its link unbounded.
fn single(what: &str, scene: Scene) -> Result<()> {
    scene.connect(1)?;
    let cpu = scene.cpu()?;
    let mut best: f64 = 0.0;
    for n in 0..3 {
        best = best.max(scene.read(n, |_| {})?.mib_per_s());
    }
    let cpu = (scene.cpu()? - cpu) / (3.0 * LEN as f64) * f64::from(1 << 30);
    row(what, &format!("{best:.0} MiB/s"), "verified, stored, opened; best of 3");
    row("… CPU of both daemons", &format!("{cpu:.2} s/GiB"), "the reader's mount with it");
    Ok(())
}

/// Four unequal peers; then the fastest is stopped, and one killed.
fn unequal() -> Result<()> {
    let scene = Scene::new(4, &[LEN, LEN, LEN, LEN, LONG]).warm();
    scene.connect(4)?;
    // What a link of this rate carries, by the same transport.
    scene.lan().sends_at(1, UNEQUAL[1]);
    for machine in 2..=4 {
        scene.lan().silence(machine);
    }
    std::thread::sleep(GONE);
    let alone = scene.read(0, |_| {})?;
    let share = alone.bytes_per_s() / bytes(UNEQUAL[1]);
    row(
        "one peer at 100 Mbit/s",
        &format!("{:.2} MiB/s", alone.mib_per_s()),
        &format!("{share:.3} of the link's rate: what is taken for its capacity below"),
    );
    for (machine, rate) in (1..).zip(UNEQUAL) {
        scene.lan().sends_at(machine, rate);
        if machine > 1 {
            scene.lan().restore(machine);
        }
    }
    scene.connect(4)?;
    let sum: f64 = UNEQUAL.iter().map(|rate| bytes(*rate) * share).sum();
    let bound = Duration::from_secs_f64(LEN as f64 / sum);
    let before = scene.received()?;
    let pass = scene.read(1, |_| {})?;
    let ratio = pass.took.as_secs_f64() / bound.as_secs_f64();
    row(
        "200 + 100 + 40 + 10 Mbit/s: makespan",
        &format!("{ratio:.3} x bound"),
        &format!("{:.2?} of {bound:.2?}; longest read {:.0?}", pass.took, pass.gap),
    );
    let waste = ((scene.received()? - before) / LEN as f64 - 1.0) * 100.0;
    row("… received beyond the file", &format!("{waste:.2} %"), "nodes, seals and second copies");
    let pass = scene.play(4, 0.9 * sum)?;
    let stall = pass.stall.as_secs_f64() * 1e3 / LONG as f64 * f64::from(1 << 30);
    row(
        "… in order at 90 % of that: stall",
        &format!("{stall:.0} ms/GiB"),
        &format!("{:.0?} in this file; longest read {:.0?}", pass.stall, pass.gap),
    );
    deaths(&scene)
}

fn deaths(scene: &Scene) -> Result<()> {
    let fastest = scene.devices[0].daemon().to_string();
    let mut stopped = false;
    let pass = scene.read(2, |at| {
        if !stopped && at > Duration::from_millis(700) {
            must("kill", ["-STOP", &fastest]);
            stopped = true;
        }
    })?;
    must("kill", ["-CONT", &fastest]);
    row(
        "the fastest is stopped after 0.7 s",
        &format!("{:.0} ms", pass.gap.as_secs_f64() * 1e3),
        &format!("longest read; all in {:.2?}", pass.took),
    );
    std::thread::sleep(GONE);
    scene.connect(4)?;
    let mut killed = false;
    let pass = scene.read(3, |at| {
        if !killed && at > Duration::from_millis(700) {
            scene.devices[1].kill();
            killed = true;
        }
    })?;
    row(
        "the second is killed after 0.7 s",
        &format!("{:.0} ms", pass.gap.as_secs_f64() * 1e3),
        &format!("longest read; all in {:.2?}", pass.took),
    );
    Ok(())
}

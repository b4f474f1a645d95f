//! `cargo xtask bench swarm`: what a mount reads from several peers, beside
//! what their links could give.
//!
//! Neighbours: the tests' machines (`warp_tests::lan`), each a network namespace
//! whose rate a token bucket bounds, and the release binary on them. Promises:
//! each figure stands beside the bound of the same run; everything goes away
//! with it. Never: part of `check`: its figures are this machine's. Tested by
//! its use: a step that fails ends it.

use crate::workspace::{Workspace, cargo};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warp_tests::device::Device;
use warp_tests::lan::Lan;
use warp_tests::must;
use warp_tests::nasty::{noise, write};

/// Rates of four unequal peers, in megabits a second.
const UNEQUAL: [u32; 4] = [200, 100, 40, 10];
/// Bytes of the file that is read.
const LEN: usize = 96 << 20;
/// Bytes of a read.
const STEP: usize = 128 << 10;

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

/// A read of a whole file, in order.
struct Pass {
    took: Duration,
    /// The longest that one read took.
    gap: Duration,
}

impl Pass {
    fn of(path: &Path, want: &[u8], mut at: impl FnMut(Duration)) -> Result<Self> {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        let (began, mut last, mut gap) = (Instant::now(), Instant::now(), Duration::ZERO);
        let mut buffer = vec![0; STEP];
        let mut done = 0;
        loop {
            let len = file.read(&mut buffer).context("read")?;
            gap = gap.max(last.elapsed());
            last = Instant::now();
            if len == 0 {
                break;
            }
            ensure!(want[done..done + len] == buffer[..len], "other bytes at {done}");
            done += len;
            at(began.elapsed());
        }
        ensure!(done == want.len(), "{done} bytes instead of {}", want.len());
        Ok(Self { took: began.elapsed(), gap })
    }

    fn mib_per_s(&self) -> f64 {
        LEN as f64 / (1 << 20) as f64 / self.took.as_secs_f64()
    }
}

/// A writer, peers that have everything, and a reader that has nothing.
struct Scene {
    lan: Arc<Lan>,
    devices: Vec<Device>,
    files: Vec<Vec<u8>>,
}

impl Scene {
    /// With so many peers, the writer among them, and so many files `f0`, …
    fn new(peers: u8, files: u64) -> Result<Self> {
        let lan = Arc::new(Lan::new(peers + 1));
        let devices: Vec<Device> = (1..=peers + 1).map(|n| Device::on(&lan, n)).collect();
        devices[0].create("p");
        devices[0].mount();
        let files: Vec<Vec<u8>> = (0..files).map(|seed| noise(LEN, seed)).collect();
        for (n, bytes) in files.iter().enumerate() {
            write(&devices[0].at(format!("f{n}")), bytes);
        }
        devices[0].sync();
        let scene = Self { lan, devices, files };
        for peer in &scene.devices[1..] {
            let invited = scene.devices[0].warp(["portal", "invite", "p", "--json"]).ok();
            let ticket = scene.devices[0].json(&invited, "d['ticket']");
            peer.warp(["portal", "join", &ticket]).ok();
            peer.mount();
        }
        for peer in &scene.devices[1..usize::from(peers)] {
            peer.warp(["warmup", "m"]).ok();
        }
        Ok(scene)
    }

    fn reader(&self) -> &Device {
        &self.devices[self.devices.len() - 1]
    }

    /// Waits until the reader is connected to all.
    fn connect(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let peers = self.reader().warp(["peers", "--json"]).ok();
            let count = self.reader().json(&peers, "sum(p['connected'] for p in d['peers'])");
            if count.parse() == Ok(self.devices.len() - 1) {
                return Ok(());
            }
            ensure!(began.elapsed() < Duration::from_secs(10), "{count} peers are connected");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn read(&self, n: usize, at: impl FnMut(Duration)) -> Result<Pass> {
        Pass::of(&self.reader().at(format!("f{n}")), &self.files[n], at)
    }
}

fn row(what: &str, figure: &str, beside: &str) {
    println!("{what:<44} {figure:>16}   {beside}");
}

fn bench() -> Result<()> {
    single()?;
    unequal()
}

/// One peer, its link unbounded.
fn single() -> Result<()> {
    let scene = Scene::new(1, 1)?;
    scene.connect()?;
    let pass = scene.read(0, |_| {})?;
    row(
        "one peer, veth, cold",
        &format!("{:.0} MiB/s", pass.mib_per_s()),
        "verified, stored, opened",
    );
    Ok(())
}

/// Four unequal peers; then the fastest is stopped, and one killed.
fn unequal() -> Result<()> {
    let scene = Scene::new(4, 4)?;
    scene.connect()?;
    // What a link of this rate carries, by the same transport.
    scene.lan.sends_at(1, UNEQUAL[1]);
    for machine in 2..=4 {
        scene.lan.silence(machine);
    }
    std::thread::sleep(Duration::from_secs(7));
    let alone = scene.read(0, |_| {})?;
    let share = alone.mib_per_s() / (f64::from(UNEQUAL[1]) / 8.0 * 1e6 / f64::from(1 << 20));
    row(
        "one peer at 100 Mbit/s",
        &format!("{:.2} MiB/s", alone.mib_per_s()),
        &format!("{share:.3} of the link's rate: what is taken for its capacity below"),
    );
    for (machine, rate) in (1..).zip(UNEQUAL) {
        scene.lan.sends_at(machine, rate);
        if machine > 1 {
            scene.lan.restore(machine);
        }
    }
    scene.connect()?;
    let sum: f64 = UNEQUAL.iter().map(|rate| f64::from(*rate) / 8.0 * 1e6 * share).sum();
    let bound = Duration::from_secs_f64(LEN as f64 / sum);
    let pass = scene.read(1, |_| {})?;
    let ratio = pass.took.as_secs_f64() / bound.as_secs_f64();
    row(
        "200 + 100 + 40 + 10 Mbit/s: makespan",
        &format!("{ratio:.3} x bound"),
        &format!("{:.2?} of {bound:.2?}; longest read {:.0?}", pass.took, pass.gap),
    );
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
    std::thread::sleep(Duration::from_secs(7));
    scene.connect()?;
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

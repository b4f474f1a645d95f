//! A writer, peers that have some of it, and a reader that has nothing.
//!
//! Neighbours: the parts of `swarm`, which read and measure. Promises: what is
//! read is compared; a step that fails ends the bench. Never: reads a file
//! twice: then it is not cold.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warp_tests::device::Device;
use warp_tests::lan::Lan;
use warp_tests::nasty::{mkdir, noise, write};

/// Bytes of a read.
const STEP: usize = 128 << 10;

/// A read of a whole file, in order.
pub(super) struct Pass {
    pub(super) took: Duration,
    /// The longest that one read took.
    pub(super) gap: Duration,
    /// How long the reader waited for what it was due, all together.
    pub(super) stall: Duration,
    pub(super) len: usize,
}

impl Pass {
    /// Reads at `pace` bytes a second, or as fast as it goes; `at` is told how
    /// far it is.
    fn of(
        path: &Path,
        want: &[u8],
        pace: Option<f64>,
        mut at: impl FnMut(Duration),
    ) -> Result<Self> {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        let (began, mut last, mut gap) = (Instant::now(), Instant::now(), Duration::ZERO);
        let mut buffer = vec![0; STEP];
        let (mut done, mut stall) = (0, Duration::ZERO);
        // When the first bytes are there the reader begins to use them up.
        let mut plays: Option<Instant> = None;
        loop {
            let len = file.read(&mut buffer).context("read")?;
            gap = gap.max(last.elapsed());
            if len == 0 {
                break;
            }
            ensure!(want[done..done + len] == buffer[..len], "other bytes at {done}");
            if let Some(pace) = pace {
                let now = Instant::now();
                let due = *plays.get_or_insert(now) + Duration::from_secs_f64(done as f64 / pace);
                let late = now.saturating_duration_since(due);
                stall += late;
                plays = plays.map(|plays| plays + late);
                std::thread::sleep(due.saturating_duration_since(now));
            }
            last = Instant::now();
            done += len;
            at(began.elapsed());
        }
        ensure!(done == want.len(), "{done} bytes instead of {}", want.len());
        Ok(Self { took: began.elapsed(), gap, stall, len: done })
    }

    pub(super) fn bytes_per_s(&self) -> f64 {
        self.len as f64 / self.took.as_secs_f64()
    }

    pub(super) fn mib_per_s(&self) -> f64 {
        self.bytes_per_s() / f64::from(1 << 20)
    }
}

/// A writer, peers, and a reader that has nothing.
pub(super) struct Scene {
    /// Where they are, if not all on this machine's loopback.
    lan: Option<Arc<Lan>>,
    pub(super) devices: Vec<Device>,
    pub(super) files: Vec<Vec<u8>>,
}

impl Scene {
    /// With so many peers, the writer among them, and files of these lengths,
    /// each in a directory of its own, of which they have nothing yet.
    pub(super) fn new(peers: u8, lens: &[usize]) -> Self {
        Self::over(peers, lens, |_| {})
    }

    /// The same over a network that is `shaped` before they meet.
    pub(super) fn over(peers: u8, lens: &[usize], shaped: impl FnOnce(&Lan)) -> Self {
        let lan = Arc::new(Lan::new(peers + 1));
        let devices = (1..=peers + 1).map(|n| Device::on(&lan, n)).collect();
        shaped(&lan);
        Self::of(Some(lan), devices, lens)
    }

    /// One peer and the reader, on the loopback of this machine.
    pub(super) fn on_loopback(lens: &[usize]) -> Self {
        let device = || {
            let device = Device::new();
            mkdir(&device.m());
            device
        };
        Self::of(None, vec![device(), device()], lens)
    }

    fn of(lan: Option<Arc<Lan>>, devices: Vec<Device>, lens: &[usize]) -> Self {
        devices[0].create("p");
        devices[0].mount();
        let files: Vec<Vec<u8>> = (0..).zip(lens).map(|(seed, len)| noise(*len, seed)).collect();
        for (n, bytes) in files.iter().enumerate() {
            mkdir(&devices[0].at(format!("d{n}")));
            write(&devices[0].at(name(n)), bytes);
        }
        devices[0].sync();
        for peer in &devices[1..] {
            let invited = devices[0].warp(["portal", "invite", "p", "--json"]).ok();
            let ticket = devices[0].json(&invited, "d['ticket']");
            peer.warp(["portal", "join", &ticket]).ok();
            peer.mount();
        }
        Self { lan, devices, files }
    }

    /// The network.
    pub(super) fn lan(&self) -> &Lan {
        self.lan.as_ref().expect("a scene with a network")
    }

    /// The reader lists everything.
    pub(super) fn list(&self) -> Result<()> {
        for n in 0..self.files.len() {
            for entry in std::fs::read_dir(self.reader().at(format!("d{n}")))? {
                entry?.metadata()?;
            }
        }
        Ok(())
    }

    /// All peers have all of it.
    pub(super) fn warm(self) -> Self {
        for peer in &self.devices[1..self.devices.len() - 1] {
            peer.warp(["warmup", "m"]).ok();
        }
        self
    }

    pub(super) fn reader(&self) -> &Device {
        &self.devices[self.devices.len() - 1]
    }

    /// Waits until the reader is connected to so many.
    pub(super) fn connect(&self, peers: usize) -> Result<()> {
        let began = Instant::now();
        loop {
            let seen = self.reader().warp(["peers", "--json"]).ok();
            let count = self.reader().json(&seen, "sum(p['connected'] for p in d['peers'])");
            if count.parse() == Ok(peers) {
                return Ok(());
            }
            ensure!(began.elapsed() < Duration::from_secs(20), "{count} peers are connected");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn read(&self, n: usize, at: impl FnMut(Duration)) -> Result<Pass> {
        Pass::of(&self.reader().at(name(n)), &self.files[n], None, at)
    }

    /// Reads at so many bytes a second.
    pub(super) fn play(&self, n: usize, pace: f64) -> Result<Pass> {
        Pass::of(&self.reader().at(name(n)), &self.files[n], Some(pace), |_| {})
    }

    /// Bytes of chunks that the reader has received from all.
    pub(super) fn received(&self) -> Result<f64> {
        let seen = self.reader().warp(["peers", "--json"]).ok();
        let sum = self.reader().json(&seen, "sum(p['received_bytes'] for p in d['peers'])");
        sum.parse().context("received_bytes")
    }

    /// Seconds of CPU that all daemons have used.
    pub(super) fn cpu(&self) -> Result<f64> {
        self.devices.iter().map(|device| cpu_of(device.daemon())).sum()
    }
}

/// Where a file is in the portal.
pub(super) fn name(n: usize) -> String {
    format!("d{n}/f")
}

/// Seconds of CPU that a process has used.
fn cpu_of(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).context("stat")?;
    let after = stat.rsplit(')').next().context("stat")?;
    let field = |n: usize| -> Result<f64> {
        after.split_whitespace().nth(n).context("stat")?.parse().context("stat")
    };
    // Clock ticks are hundredths of a second on every Linux there is.
    Ok((field(11)? + field(12)?) / 100.0)
}

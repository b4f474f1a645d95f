//! `cargo xtask bench million [FILES]`: what a portal with a million files
//! takes, on this machine.
//!
//! Neighbours: runs the release binary as a person would, with a `WARP_HOME`
//! of its own. Promises: prints one table, each row a time or a size with what
//! was done; unmounts and removes what it made, also when a step fails. Never:
//! part of `check`, since it takes minutes and its figures are this machine's.
//! Tested by its use: a step that fails ends it with the step's name.

use crate::workspace::{Workspace, cargo};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How many files, unless another number is asked for.
pub(crate) const FILES: usize = 1_000_000;
/// Entries of the one large directory; the rest lies in small ones.
const LARGE: usize = 100_000;
/// Entries of each small directory.
const SMALL: usize = 1_000;
/// Programs that make files at a time.
const MAKERS: usize = 4;

/// A portal of its own, and where it is mounted.
struct Portal {
    warp: PathBuf,
    dir: PathBuf,
}

impl Portal {
    fn mountpoint(&self) -> PathBuf {
        self.dir.join("m")
    }

    fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// Runs `warp ARGS…`, which must succeed; gives the time it took.
    fn warp(&self, args: &[&str]) -> Result<Duration> {
        let mut command = Command::new(&self.warp);
        command.args(args).env("WARP_HOME", self.home()).current_dir(&self.dir);
        command.env("WARP_LISTEN", "127.0.0.1:0").env("WARP_MDNS", "off");
        timed(&mut command)
    }

    /// The daemon's process: whoever runs with this home and is one.
    fn daemon(&self) -> Result<u32> {
        let home = format!("WARP_HOME={}", self.home().display());
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let has = |file: &str, word: &str| {
                let text = fs::read(entry.path().join(file)).unwrap_or_default();
                text.split(|byte| *byte == 0).any(|found| found == word.as_bytes())
            };
            if has("environ", &home) && has("cmdline", "daemon") {
                return Ok(pid);
            }
        }
        bail!("no daemon serves {}", self.home().display())
    }

    /// A line of the daemon's status that tells a size, in MiB.
    fn memory_mib(&self, line: &str) -> Result<u64> {
        let file = format!("/proc/{}/status", self.daemon()?);
        let status = fs::read_to_string(&file).with_context(|| file.clone())?;
        let found = status.lines().find_map(|row| row.strip_prefix(line));
        let size = found.and_then(|rest| rest.split_whitespace().next());
        let kib: u64 = size.with_context(|| format!("{file} has no {line}"))?.parse()?;
        Ok(kib / 1024)
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        // Nothing is to be kept: no need to publish it.
        let _ = self.warp(&["umount", "--no-flush", "m"]);
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("xtask: {} stays: {e}", self.dir.display());
        }
    }
}

/// Makes them and prints the table.
pub(crate) fn run(workspace: &Workspace, files: usize) -> Result<()> {
    if files < LARGE {
        bail!("{files} files: the large directory alone has {LARGE}");
    }
    timed(Command::new(cargo()).args(["build", "--quiet", "--release", "--package", "warp"]))?;
    let dir = std::env::temp_dir().join(format!("warp-million-{}", std::process::id()));
    fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
    let warp = workspace.target_directory.join("release/warp");
    let portal = Portal { warp, dir };
    fs::create_dir(portal.mountpoint())?;
    portal.warp(&["key", "init", "--phrase-file", "phrase"])?;
    portal.warp(&["portal", "create", "p"])?;
    portal.warp(&["mount", "p", "m"])?;
    println!("| {files} files of 100 bytes, {LARGE} of them in one directory | |\n|---|---|");
    let took = make(&portal.mountpoint(), files)?;
    let rate = files as f64 / took.as_secs_f64();
    row(&format!("make them, {MAKERS} at a time"), &format!("{:.1} s", took.as_secs_f64()));
    row("  a second", &format!("{rate:.0}"));
    row("memory, highest so far", &format!("{} MiB", portal.memory_mib("VmHWM:")?));
    seconds("warp sync", portal.warp(&["sync", "m"])?);
    row("memory, highest with it", &format!("{} MiB", portal.memory_mib("VmHWM:")?));
    seconds("warp umount", portal.warp(&["umount", "m"])?);
    seconds("warp mount", portal.warp(&["mount", "p", "m"])?);
    let large = portal.mountpoint().join("large");
    for (what, args) in [
        ("first `ls` of the large directory", &["-U"][..]),
        ("`ls` again, sorted", &[]),
        ("`ls -l`, 100,000 attributes", &["-l"]),
    ] {
        seconds(what, timed(Command::new("ls").args(args).arg(&large).stdout(Stdio::null()))?);
    }
    seconds("`find` of everything", timed(Command::new("find").arg(portal.mountpoint()))?);
    row("memory after it", &format!("{} MiB", portal.memory_mib("VmRSS:")?));
    killed(&portal)
}

/// Kills the daemon with changes that are durable and not published.
fn killed(portal: &Portal) -> Result<()> {
    let dir = portal.mountpoint().join("more");
    fs::create_dir(&dir)?;
    fill(&dir, 0, LARGE)?;
    let last = dir.join("0");
    fs::File::open(&last)?.sync_all()?;
    timed(Command::new("kill").args(["-9", &portal.daemon()?.to_string()]))?;
    let took = portal.warp(&["mount", "p", "m"])?;
    seconds(&format!("kill -9 with {LARGE} files unpublished, warp mount"), took);
    let found = fs::read_dir(&dir)?.count();
    if found != LARGE {
        bail!("{found} of {LARGE} files that were durable are there after kill -9");
    }
    Ok(())
}

/// Makes all files, as several programs would.
fn make(dir: &Path, files: usize) -> Result<Duration> {
    let large = dir.join("large");
    fs::create_dir(&large)?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS)
            .map(|maker| {
                let large = &large;
                scope.spawn(move || -> Result<()> {
                    let share = LARGE / MAKERS;
                    fill(large, maker * share, share)?;
                    for number in (LARGE / SMALL..files / SMALL).skip(maker).step_by(MAKERS) {
                        let small = dir.join(format!("{}/{number}", number % 10));
                        fs::create_dir_all(&small)?;
                        fill(&small, 0, SMALL)?;
                    }
                    Ok(())
                })
            })
            .collect();
        makers.into_iter().try_for_each(|maker| match maker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(start.elapsed())
}

/// Makes files with these numbers for names, each with content of its own.
fn fill(dir: &Path, first: usize, count: usize) -> Result<()> {
    for number in first..first + count {
        let path = dir.join(number.to_string());
        let content = format!("{:0>99}\n", path.display());
        fs::write(&path, &content.as_bytes()[content.len() - 100..])
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn timed(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(start.elapsed())
}

fn seconds(what: &str, took: Duration) {
    row(what, &format!("{:.3} s", took.as_secs_f64()));
}

fn row(what: &str, figure: &str) {
    println!("| {what} | {figure} |");
}

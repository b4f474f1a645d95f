//! `warp umount`.

use crate::args::Umount;
use crate::report::{Exit, Failure, Result, Ui};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};
use warp_fs::kernel::{absolute, mounts, unmount};

/// How long the process behind a mount may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn run(args: &Umount, ui: &Ui) -> Result<Exit> {
    let directory = absolute(&args.directory);
    let there = mounts().into_iter().rev().find(|mount| mount.directory == directory);
    match there {
        Some(mount) if mount.is_ours() => {}
        Some(mount) => {
            let cause =
                format!("{}: is a {} mount, not warp's", directory.display(), mount.fs_type);
            return Err(
                Failure::new(Exit::Usage, cause).hint(format!("umount {}", directory.display()))
            );
        }
        None => {
            let cause = format!("{}: nothing of warp is mounted there", directory.display());
            return Err(Failure::new(Exit::NotFound, cause)
                .hint("`findmnt -t fuse.warp` lists what is mounted"));
        }
    }
    unmount(&directory, args.lazy).map_err(|e| {
        let path = directory.display();
        match e.kind() {
            io::ErrorKind::ResourceBusy => Failure::new(Exit::Busy, format!("{path}: is in use"))
                .hint(format!("leave it (`fuser -vm {path}` says who is there), or `warp umount --lazy {path}`")),
            _ => Failure::new(Exit::Failed, format!("{path}: {e}")),
        }
    })?;
    if !args.lazy {
        wait_for_end(&directory);
    }
    ui.summary(&format!("{} is unmounted", directory.display()));
    Ok(Exit::Ok)
}

/// The process that served the mount ends by itself; the command returns when
/// nothing is left running.
fn wait_for_end(directory: &Path) {
    let until = Instant::now() + END_WITHIN;
    while Instant::now() < until && serving(directory) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// True while a `warp mount --foreground … DIR` process runs.
fn serving(directory: &Path) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        let name = process.file_name();
        let is_pid = name.as_bytes().first().is_some_and(u8::is_ascii_digit);
        let line = if is_pid {
            std::fs::read(process.path().join("cmdline")).unwrap_or_default()
        } else {
            Vec::new()
        };
        let mut words = line.split(|b| *b == 0).filter(|word| !word.is_empty());
        let started_here = words.any(|word| word == b"--foreground");
        started_here
            && words.next_back().is_some_and(|last| last == directory.as_os_str().as_bytes())
    })
}

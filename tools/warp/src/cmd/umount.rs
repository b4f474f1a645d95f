//! `warp umount`.

use crate::args::Umount;
use crate::client::Daemon;
use crate::daemon::wire::{Unmount, Unmounted};
use crate::places::{is_archive_mount, unmount_failure};
use crate::report::{Exit, Failure, Result, Ui};
use crate::show;
use hyper::Method;
use rustix::fs::{Mode, OFlags};
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use warp_flow::FlowError;
use warp_flow::home::Home;
use warp_fs::Mounted;
use warp_fs::kernel::{absolute, is_dead, mounts, unmount};

/// How long the process behind a mount may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn run(args: &Umount, ui: &Ui) -> Result<Exit> {
    let (directory, mount) = mountpoint(&args.directory)?;
    let dead = is_dead(&directory);
    if dead {
        // Nobody is left who could flush anything, and who is still in it
        // has nothing to lose.
        unmount(&directory, true).map_err(|e| unmount_failure(&directory, &e))?;
    } else if is_archive_mount(&mount) {
        unmount(&directory, args.lazy).map_err(|e| unmount_failure(&directory, &e))?;
        if !args.lazy {
            wait_for_end(&directory);
        }
    } else if !ask_daemon(args, &directory)? {
        return of_another(args, &directory, ui);
    }
    if ui.json {
        let document = json!({ "directory": directory.to_string_lossy(), "was_dead": dead });
        ui.print(&document.to_string())?;
    }
    let what = if dead { "was dead, and is cleared" } else { "is unmounted" };
    ui.summary(&format!("{} {what}", directory.display()));
    Ok(Exit::Ok)
}

/// A portal that another home's daemon serves: it is made durable here, and
/// published there, which cannot be waited for.
fn of_another(args: &Umount, directory: &Path, ui: &Ui) -> Result<Exit> {
    if !args.lazy {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty());
        let durable = opened.and_then(|directory| {
            rustix::fs::syncfs(&directory)?;
            rustix::fs::fsync(&directory)
        });
        durable.map_err(|e| Failure::from(FlowError::io(directory, e)))?;
    }
    unmount(directory, args.lazy).map_err(|e| unmount_failure(directory, &e))?;
    let cause = format!(
        "{}: is unmounted, and durable; the daemon of another WARP_HOME still publishes it",
        directory.display()
    );
    let hint = "`warp status` with that WARP_HOME, as its user, shows how far it is";
    ui.fail(&Failure::new(Exit::Temporary, cause).hint(hint));
    Ok(Exit::Temporary)
}

/// The directory on which something of ours is mounted, and what it is.
fn mountpoint(typed: &Path) -> Result<(PathBuf, Mounted)> {
    let mut directory = absolute(typed);
    let at = |directory: &Path| mounts().into_iter().rev().find(|m| m.directory == directory);
    let mut there = at(&directory);
    // A symbolic link to it, which is followed only if nothing is there.
    if there.is_none()
        && let Ok(target) = std::fs::canonicalize(&directory)
    {
        there = at(&target).filter(|mount| mount.is_ours());
        directory = if there.is_some() { target } else { directory };
    }
    let path = directory.display();
    match there {
        Some(mount) if mount.is_ours() => Ok((directory, mount)),
        Some(mount) => {
            let cause = format!("{path}: is a {} mount, not warp's", mount.fs_type);
            Err(Failure::new(Exit::Usage, cause).hint(format!("umount {}", show::word(&directory))))
        }
        None => {
            let cause = format!("{path}: nothing of warp is mounted there");
            Err(Failure::new(Exit::NotFound, cause)
                .hint("`findmnt -t fuse.warp` lists what is mounted"))
        }
    }
}

/// Unmounts it through this home's daemon; false if that does not serve it.
fn ask_daemon(args: &Umount, directory: &Path) -> Result<bool> {
    let home = Home::from_environment()?;
    let Some(mut daemon) = Daemon::running(&home)? else { return Ok(false) };
    let ask = Unmount { directory: directory.into(), lazy: args.lazy, flush: !args.no_flush };
    let done: Unmounted = daemon.ask(Method::DELETE, "/v1/mounts", &ask)?;
    if done.ends {
        daemon.wait_for_end(END_WITHIN);
    }
    Ok(done.served)
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

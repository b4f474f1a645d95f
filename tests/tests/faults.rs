//! A disk that fails to make things durable: the k-th barrier that a thread of
//! the daemon asks for gives EIO, once, as a kernel reports a failed write.
//!
//! The program that waited is told, nothing is called durable on top of what
//! failed, and after a restart everything that was called durable is there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use warp_tests::device::{Device, Running};
use warp_tests::nasty::noise;
use warp_tests::suite::suite;

/// Which barrier fails: each of the first so many.
const BARRIERS: usize = 50;
/// By then the one that fails has come, or it never does.
const FILES_MAX: usize = 4 * BARRIERS;

/// Makes the `k`-th barrier of each thread of the daemon fail from now on.
fn inject(device: &Device, k: usize) -> Running {
    let daemon = device.daemon();
    let mut command = suite("strace");
    command.args(["-f", "-y", "-qq", "-e", "trace=fsync,fdatasync,unlink,unlinkat", "-e"]);
    command.arg(format!("inject=fsync,fdatasync:error=EIO:when={k}"));
    command.arg("-o").arg(device.path("strace")).args(["-p", &daemon.to_string()]);
    let strace = Running::start(command.stdout(Stdio::null()));
    let traced = || {
        let threads = fs::read_dir(format!("/proc/{daemon}/task")).expect("it lives").flatten();
        let mut states =
            threads.map(|thread| fs::read_to_string(thread.path().join("status")).ok());
        states.all(|state| state.is_none_or(|state| !state.contains("TracerPid:\t0\n")))
    };
    let until = Instant::now() + Duration::from_secs(10);
    while !traced() {
        assert!(Instant::now() < until, "strace does not get hold of the daemon");
        std::thread::sleep(Duration::from_millis(1));
    }
    strace
}

/// A pack or journal of which a barrier failed has no barrier that succeeds
/// later, unless it is thrown away first and made anew. (The log of what the store has is an aid, which may be lost; a head
/// is written anew.)
fn nothing_failed_is_called_durable(trace: &str) {
    let mut failed = BTreeSet::new();
    for line in trace.lines() {
        if line.contains("unlink") {
            let name = line.split('"').nth(1).and_then(|path| path.rsplit('/').next());
            failed.retain(|file: &&str| name.is_none_or(|name| !file.ends_with(name)));
            continue;
        }
        let call = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        let Some((file, result)) = call else { continue };
        let name = file.rsplit('/').next().unwrap_or(file);
        if !name.ends_with(".pack") && !name.starts_with("journal-") {
            continue;
        }
        if result.contains("(INJECTED)") {
            failed.insert(file);
        } else {
            assert!(!failed.contains(file), "{file} has failed, and is called durable: {trace}");
        }
    }
}

/// Writes a file and asks for it to be durable.
fn write_durably(path: &Path, content: &[u8]) -> std::io::Result<()> {
    fs::write(path, content)?;
    File::open(path)?.sync_all()
}

fn content(k: usize, n: usize) -> Vec<u8> {
    noise(100 + 731 * (n % 9), (k * FILES_MAX + n) as u64)
}

/// What a program does that wants its file to be safe.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Fsync,
    /// And `warp sync`: the barriers of packs, trees and heads come in between.
    Publish,
}

/// One life of a daemon with a failing barrier; the portal is unmounted before
/// and after.
fn the_kth_barrier_fails(device: &Device, k: usize, way: Way) {
    device.mount();
    let mut strace = inject(device, k);
    let name = |n: usize| device.at(format!("{k} {n}"));
    let mut durable = Vec::new();
    let mut failed = None;
    for n in 0..FILES_MAX {
        match write_durably(&name(n), &content(k, n)) {
            Ok(()) if way == Way::Fsync => durable.push(n),
            Ok(()) => {
                durable.push(n);
                if device.types("sync m").code != 0 {
                    failed = Some(n);
                    break;
                }
            }
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{e}");
                failed = Some(n);
                break;
            }
        }
    }
    let failed = failed.unwrap_or_else(|| panic!("barrier {k} failed, and no program was told"));
    match way {
        // The kernel says once that a write has failed, and may have dropped
        // what it was: who asks again must not be told that all is well.
        Way::Fsync => {
            for n in [failed, FILES_MAX] {
                let again = write_durably(&name(n), &content(k, n));
                assert!(again.is_err(), "barrier {k} has failed, and a later fsync has not");
            }
            let sync = device.types("sync m");
            assert_ne!(sync.code, 0, "barrier {k} has failed, and `warp sync` has not");
        }
        // A publish may be tried again, with files of its own.
        Way::Publish => drop(device.types("sync m")),
    }
    device.crash();
    let _ = strace.ends(Duration::from_secs(10));
    // What failed is what was made to fail, and not before its turn.
    let trace = fs::read_to_string(device.path("strace")).expect("text");
    assert!(trace.contains("(INJECTED)"), "barrier {k}: {trace}");
    assert!(trace.lines().count() >= k, "barrier {k}: {trace}");
    nothing_failed_is_called_durable(&trace);
    println!("barrier {k}: {} files were durable before", durable.len());
    device.mount();
    for n in durable {
        let found = fs::read(name(n)).unwrap_or_else(|e| panic!("barrier {k}, file {n}: {e}"));
        assert!(found == content(k, n), "barrier {k}, file {n}: {} bytes", found.len());
    }
    // A restart reads what is there, and goes on.
    write_durably(&name(FILES_MAX), &content(k, 0)).expect("durable again");
    for entry in fs::read_dir(device.m()).expect("a directory") {
        fs::remove_file(entry.expect("an entry").path()).expect("removed");
    }
    device.umount();
}

#[test]
fn a_failed_barrier_under_a_portal_mount_is_told_and_is_final() {
    // The two halves side by side: most of the time they wait.
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                let device = Device::with_portal();
                for k in (1..=BARRIERS).filter(|k| k % 2 == half) {
                    the_kth_barrier_fails(&device, k, Way::Fsync);
                }
            });
        }
    });
}

#[test]
fn a_failed_barrier_of_a_publish_costs_a_portal_mount_nothing() {
    let device = Device::with_portal();
    for k in 1..=BARRIERS {
        the_kth_barrier_fails(&device, k, Way::Publish);
    }
}

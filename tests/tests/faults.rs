//! A disk that fails. First to make things durable: the k-th barrier that a
//! thread of the daemon asks for gives EIO, once, as a kernel reports a failed
//! write. The program that waited is told, nothing is called durable on top of
//! what failed, and after a restart everything that was called durable is there.
//!
//! Then for want of room, for one kind of file at a time; a disk that is full
//! for all of them is in `full.rs`.

use rustix::fs as rfs;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use warp_tests::device::{Device, Running};
use warp_tests::must;
use warp_tests::nasty::noise;
use warp_tests::suite::suite;

/// Which barrier fails: each of the first so many.
const BARRIERS: usize = 50;
/// By then the one that fails has come, or it never does.
const FILES_MAX: usize = 4 * BARRIERS;

/// Makes system calls of the daemon fail from now on, as strace is told to:
/// those about these files, or about any.
fn inject(device: &Device, calls: &str, how: &str, files: &[PathBuf]) -> Running {
    let daemon = device.daemon();
    let mut command = suite("strace");
    command.args(["-f", "-y", "-qq"]).arg(format!("-etrace={calls},unlink,unlinkat"));
    command.arg(format!("-einject={calls}:{how}"));
    for file in files {
        command.arg("-P").arg(file);
    }
    command.arg("-o").arg(device.path("strace")).args(["-p", &daemon.to_string()]);
    let strace = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
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
/// later, unless it is thrown away first and made anew. (The log of what the
/// store has is an aid, which may be lost; a head is written anew.)
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
    let mut strace = inject(device, "fsync,fdatasync", &format!("error=EIO:when={k}"), &[]);
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

/// Ends what `inject` began; the daemon goes on.
#[track_caller]
fn end(mut strace: Running) {
    must("kill", [strace.0.id().to_string()]);
    strace.ends(Duration::from_secs(10));
}

/// Files of the portal whose names start so: those there are and the next ones.
fn files(device: &Device, start: &str) -> Vec<PathBuf> {
    let portals = fs::read_dir(device.home().join("portals")).expect("a directory").flatten();
    let portal = portals.map(|entry| entry.path()).find(|path| path.is_dir());
    let state = portal.expect("a portal").join("state");
    let name = |n: u32| match start {
        "own-" => format!("{start}{n:08x}.pack"),
        _ => format!("{start}{n:016x}"),
    };
    (1..20).map(|n| state.join(name(n))).collect()
}

/// For one kind of file there is no room; `told` says who is told: who asks
/// for durability, and who publishes.
fn full_for(start: &str, told: [bool; 2]) {
    let device = Device::mounted();
    let name = |n: usize| device.at(n.to_string());
    write_durably(&name(0), &content(0, 0)).expect("durable");
    device.sync();
    let strace = inject(&device, "pwrite64", "error=ENOSPC", &files(&device, start));
    let written = write_durably(&name(1), &content(0, 1));
    let is_full = |e: &std::io::Error| e.kind() == std::io::ErrorKind::StorageFull;
    assert_eq!(written.as_ref().is_err_and(is_full), told[0], "{start}: {written:?}");
    assert_eq!(written.is_err(), told[0], "{start}: {written:?}");
    let sync = device.types("sync m");
    assert_eq!(sync.code, if told[1] { 8 } else { 0 }, "{start}: {}", sync.stderr);
    assert!(fs::read(name(0)).expect("readable") == content(0, 0), "{start}");
    assert_eq!(fs::read_dir(device.m()).expect("listed").count(), 2, "{start}");
    // Not started anew, and nothing but room is needed.
    end(strace);
    write_durably(&name(2), &content(0, 2)).expect("durable again");
    device.sync();
    write_durably(&name(3), &content(0, 3)).expect("durable again");
    device.crash();
    device.mount();
    for n in (0..4).filter(|n| *n != 1 || written.is_ok()) {
        assert!(fs::read(name(n)).expect("there") == content(0, n), "{start}: file {n}");
    }
    device.umount();
    let trace = fs::read_to_string(device.path("strace")).expect("text");
    assert!(trace.contains("(INJECTED)"), "{start}: nothing has failed: {trace}");
}

#[test]
fn a_disk_full_for_one_kind_of_file_is_told_by_a_portal_mount_where_it_matters() {
    full_for("journal-", [true, true]);
    full_for("own-", [false, true]);
    full_for("head-", [false, true]);
    // An aid: it may be incomplete.
    full_for("dedup-", [false, false]);
}

/// Of a disk on which a barrier takes seconds, `syncfs` and `sync` know
/// nothing: the kernel does not pass them on. Who waits for `fsync` waits.
#[test]
fn only_fsync_waits_for_the_barriers_of_a_portal_mount() {
    const TAKES: Duration = Duration::from_secs(3);
    let device = Device::mounted();
    let strace = inject(&device, "fsync,fdatasync", "delay_enter=3000000", &[]);
    let file = File::create(device.at("file")).expect("created");
    file.write_all_at(&content(0, 1), 0).expect("written");
    let timed = |act: &dyn Fn()| {
        let started = Instant::now();
        act();
        started.elapsed()
    };
    let syncfs = timed(&|| rfs::syncfs(File::open(device.m()).expect("opens")).expect("done"));
    let sync = timed(&|| drop(must("sync", ["-f".as_ref(), device.m().as_os_str()])));
    let fsync = timed(&|| file.sync_all().expect("durable"));
    assert!(syncfs < TAKES / 2 && sync < TAKES / 2, "{syncfs:?}, {sync:?}");
    assert!(fsync >= TAKES, "{fsync:?}");
    end(strace);
    drop(file);
    device.umount();
}

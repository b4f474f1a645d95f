//! A disk that answers nothing, below a mount that does: every request is
//! answered in its time, whoever waits can be killed, and what needs no disk
//! goes on.

mod common;

use common::{Place, Served};
use rustix::fs::statvfs;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use warp_cache::testing::Call;

const DEADLINE: Duration = Duration::from_secs(2);
const IN_TIME: Duration = Duration::from_secs(3);
/// Well below the deadline, and above what a busy machine needs.
const AT_ONCE: Duration = Duration::from_millis(1500);
/// More than there are threads that read requests.
const MANY: usize = 16;
const LEN: usize = 300_000;
/// Bytes of one request.
const PART: usize = 64 << 10;

fn noise(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 * 2 + 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..LEN).map(|_| next()).collect()
}

fn mount(place: &Place) -> Served {
    place.mount(|options| options.deadline = DEADLINE)
}

/// Does it on a thread of its own; gives what came of it, and how long it
/// took.
fn timed<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> JoinHandle<(io::Result<T>, Duration)> {
    std::thread::spawn(move || {
        let started = Instant::now();
        let result = act();
        (result, started.elapsed())
    })
}

/// It is answered within `limit`; gives what came of it.
fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (result, took) = timed(act).join().unwrap();
    assert!(took <= limit, "{what} took {took:?}");
    if let Err(e) = &result {
        assert_eq!(e.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{what}: {e}");
    }
    result
}

fn names(dir: PathBuf) -> io::Result<usize> {
    fs::read_dir(dir)?.try_fold(0, |count, entry| entry.map(|_| count + 1))
}

/// Opens a file past the kernel's cache: a call is one request, where a read
/// ahead that fails would be followed by another.
fn direct(file: PathBuf, write: bool) -> io::Result<File> {
    let flag = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap();
    OpenOptions::new().read(!write).write(write).custom_flags(flag).open(file)
}

/// A process that reads a file past the kernel's cache: such a read can not
/// be killed while it is not answered.
fn direct_reader(file: PathBuf) -> Child {
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", file.display())).args(["of=/dev/null", "bs=64k", "iflag=direct"]);
    dd.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Files `0` to `MANY`, published, and nothing of their content in memory.
fn with_cold_files(place: &Place) -> Served {
    let served = mount(place);
    for n in 0..MANY {
        fs::write(served.path(&n.to_string()), noise(n)).unwrap();
    }
    served.close();
    let served = mount(place);
    assert_eq!(names(served.path("")).unwrap(), MANY);
    for n in 0..MANY {
        assert_eq!(fs::metadata(served.path(&n.to_string())).unwrap().len(), LEN as u64);
    }
    served
}

#[test]
fn mount_on_a_disk_that_reads_nothing_answers_in_time_and_what_is_in_memory_at_once() {
    let place = Place::new();
    let served = with_cold_files(&place);
    served.disk.stall(&[Call::Read]);
    let mut readers: Vec<_> = (1..MANY)
        .map(|n| {
            let file = direct(served.path(&n.to_string()), false).unwrap();
            timed(move || file.read_exact_at(&mut [0; PART], 0))
        })
        .collect();
    let started = Instant::now();
    let mut killed = direct_reader(served.path("0"));
    wait_for("reads reach the disk", || served.disk.waiting() >= MANY);
    // All the rest goes on.
    let dir = served.path("");
    assert_eq!(within(AT_ONCE, "ls", move || names(dir)).unwrap(), MANY);
    let new = served.path("new");
    within(AT_ONCE, "create, write, stat, unlink", move || {
        fs::write(&new, b"new")?;
        assert_eq!(fs::metadata(&new)?.len(), 3);
        assert_eq!(fs::read(&new)?, b"new");
        fs::remove_file(&new)
    })
    .unwrap();
    let dir = served.path("");
    within(AT_ONCE, "df", move || Ok(statvfs(dir)?)).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(started.elapsed() <= IN_TIME, "a killed process stayed for {:?}", started.elapsed());
    for reader in readers.drain(..) {
        let (result, took) = reader.join().unwrap();
        assert!(took <= IN_TIME, "a read took {took:?}");
        assert_eq!(result.unwrap_err().raw_os_error(), Some(5));
    }
    served.disk.resume();
    for n in 0..MANY {
        assert!(fs::read(served.path(&n.to_string())).unwrap() == noise(n), "file {n}");
    }
    served.close();
}

#[test]
fn mount_on_a_disk_that_writes_nothing_answers_in_time_and_does_nothing_late() {
    let place = Place::new();
    let served = mount(&place);
    let kept = served.path("kept");
    fs::write(&kept, noise(1)).unwrap();
    let open = OpenOptions::new().write(true).open(&kept).unwrap();
    open.sync_all().unwrap();
    served.disk.stall(&[Call::Write]);
    // More than waits in memory for a disk that is slow.
    let mut refused = Vec::new();
    for n in 0..40 {
        let (big, name) = (served.path(&format!("big{n}")), format!("big{n}"));
        let created = within(IN_TIME, "create", move || File::create(big)).map(drop);
        if created.is_err() {
            refused.push(name);
        } else {
            let big = Arc::new(direct(served.path(&name), true).unwrap());
            for part in 0..16 {
                let big = Arc::clone(&big);
                let write = move || big.write_all_at(&[7; PART], part * PART as u64);
                // One that fails behind the end of a file is two requests:
                // the kernel truncates the file to what it was.
                if within(IN_TIME + DEADLINE, "write", write).is_err() {
                    break;
                }
            }
        }
        if refused.len() == 2 {
            break;
        }
    }
    assert_eq!(refused.len(), 2, "the disk was never needed");
    let (seen, dir) = (kept.clone(), served.path(""));
    assert!(within(AT_ONCE, "read", move || fs::read(seen)).unwrap() == noise(1));
    within(AT_ONCE, "ls", move || names(dir)).unwrap();
    let gone = kept.clone();
    let unlinked = within(IN_TIME, "unlink", move || fs::remove_file(gone));
    assert!(unlinked.is_err(), "an unlink needs the disk here");
    let synced = timed(move || open.sync_all());
    std::thread::sleep(IN_TIME);
    assert!(!synced.is_finished(), "an fsync was answered before anything was durable");
    served.disk.resume();
    synced.join().unwrap().0.unwrap();
    // What was refused has not been done behind anybody's back.
    for name in &refused {
        OpenOptions::new().write(true).create_new(true).open(served.path(name)).unwrap();
    }
    let mut after = File::create(served.path("after")).unwrap();
    after.write_all(b"after").unwrap();
    after.sync_all().unwrap();
    // An open file would keep the mount.
    drop(after);
    served.kill();
    let served = mount(&place);
    assert!(fs::read(served.path("kept")).unwrap() == noise(1));
    assert_eq!(fs::read(served.path("after")).unwrap(), b"after");
    served.close();
}

#[test]
fn mount_on_a_disk_that_syncs_nothing_goes_on_and_acknowledges_nothing() {
    let place = Place::new();
    let served = mount(&place);
    served.disk.stall(&[Call::Sync]);
    let file = served.path("file");
    let open = within(AT_ONCE, "create", move || File::create(file)).unwrap();
    let write = open.try_clone().unwrap();
    within(AT_ONCE, "write", move || write.write_all_at(&noise(3), 0)).unwrap();
    let synced = timed(move || open.sync_all());
    wait_for("the sync reaches the disk", || served.disk.waiting() > 0);
    // Behind the sync, and past the time when a publish would begin.
    for round in 0..5 {
        let (one, two) = (served.path(&format!("one{round}")), served.path("two"));
        let _ = within(IN_TIME, "create, rename, unlink", move || {
            fs::write(&one, b"1")?;
            fs::rename(&one, &two)?;
            fs::remove_file(&two)
        });
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(!synced.is_finished(), "an fsync was answered before anything was durable");
    served.disk.resume();
    synced.join().unwrap().0.unwrap();
    served.kill();
    let served = mount(&place);
    assert!(fs::read(served.path("file")).unwrap() == noise(3));
    served.close();
}

#[test]
fn mount_on_a_stalled_disk_lets_go_whoever_is_killed_long_before_the_deadline() {
    let place = Place::new();
    with_cold_files(&place).close();
    // As long as it is for users.
    let served = place.mount(|_| {});
    let (cold, new) = (served.path("0"), served.path("new"));
    assert_eq!(fs::metadata(&cold).unwrap().len(), LEN as u64);
    fs::write(&new, b"new").unwrap();
    served.disk.stall(&[Call::Read, Call::Sync]);
    let reads = direct_reader(cold);
    let mut dd = Command::new("dd");
    dd.arg("if=/dev/zero").arg(format!("of={}", new.display()));
    dd.args(["bs=4k", "count=1", "conv=fsync,notrunc"]).stderr(Stdio::null());
    let syncs = dd.spawn().unwrap();
    wait_for("a read and a sync reach the disk", || served.disk.waiting() >= 2);
    for mut stuck in [reads, syncs] {
        std::thread::sleep(Duration::from_millis(200));
        assert!(stuck.try_wait().unwrap().is_none(), "it is answered without the disk");
        stuck.kill().unwrap();
        let started = Instant::now();
        stuck.wait().unwrap();
        assert!(started.elapsed() <= IN_TIME, "it stayed for {:?}", started.elapsed());
    }
    served.disk.resume();
    served.close();
}

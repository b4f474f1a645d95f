//! A full disk below a portal: who writes is told, everything that is there
//! can be read, what was durable stays, and room that somebody else gives back
//! is enough to go on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use warp_tests::device::Device;
use warp_tests::must;
use warp_tests::nasty::{mkdir, noise, write};
use warp_tests::small_disk::{DISK_LEN, Filesystem};

/// Bytes of each file that a disk is filled with.
const FILE_LEN: usize = 1 << 20;
/// What somebody else has on the disk, and takes away: first more than waits to
/// be published, since that needs as much again, then a little.
const BALLASTS: [(&str, usize); 2] = [("ballast 1", 9 << 20), ("ballast 2", 3 << 20)];
/// No disk here has room for so many.
const FILES_MAX: u64 = DISK_LEN / FILE_LEN as u64;

/// What of a `WARP_HOME` lies on the small disk.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    /// All of it, log and socket too.
    Home,
    /// Packs, journal, heads, and what the store remembers to find duplicates.
    State,
}

/// A device with a portal, of which a part is on a small disk; mounted. Gives
/// also where the disk is.
#[track_caller]
fn device(filesystem: Filesystem, part: Part) -> (Device, PathBuf) {
    let device = Device::without_key();
    let image = device.path("image");
    if part == Part::Home {
        filesystem.mount(&image, &mkdir(device.home()));
    }
    device.make_key();
    device.create("p");
    mkdir(&device.m());
    let mut disk = device.home().to_owned();
    if part == Part::State {
        device.until_gone();
        let portals = fs::read_dir(disk.join("portals")).expect("a directory").flatten();
        let portal = portals.map(|entry| entry.path()).find(|path| path.is_dir());
        disk = portal.expect("a portal").join("state");
        let before = device.path("before");
        fs::rename(&disk, &before).expect("moved");
        filesystem.mount(&image, &mkdir(&disk));
        must("cp", ["-a".as_ref(), "-T".as_ref(), before.as_os_str(), disk.as_os_str()]);
    }
    device.mount();
    (device, disk)
}

fn content(n: u64) -> Vec<u8> {
    noise(FILE_LEN, n)
}

fn name(device: &Device, n: u64) -> PathBuf {
    device.at(format!("file {n}"))
}

/// Writes a file and makes it durable; an error is one that says that the disk
/// is full.
#[track_caller]
fn write_durably(path: &Path, bytes: &[u8]) -> bool {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    is_done(written, path)
}

#[track_caller]
fn is_done(result: io::Result<()>, path: &Path) -> bool {
    match result {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::StorageFull => false,
        Err(e) => panic!("{}: {e}", path.display()),
    }
}

/// Writes files, `first` and following, until there is no room; gives those
/// that were durable.
#[track_caller]
fn fill(device: &Device, first: u64) -> Vec<u64> {
    let numbers = first..first + FILES_MAX;
    let durable: Vec<u64> =
        numbers.take_while(|n| write_durably(&name(device, *n), &content(*n))).collect();
    assert!((durable.len() as u64) < FILES_MAX, "it is never full");
    durable
}

/// Reads everything that has to be there, from the daemon.
#[track_caller]
fn holds(device: &Device, durable: &[u64], when: &str) {
    // What the kernel keeps says nothing about the disk.
    fs::write("/proc/sys/vm/drop_caches", "1").expect("root drops what the kernel keeps");
    for n in durable {
        let read = fs::read(name(device, *n)).unwrap_or_else(|e| panic!("{when}, file {n}: {e}"));
        assert!(read == content(*n), "{when}: file {n} has {} bytes", read.len());
    }
}

/// Fills the disk, twice, and tries other changes; everything durable is read
/// meanwhile. Gives the directories that were made nevertheless.
#[track_caller]
fn fill_and_try(device: &Device, durable: &mut Vec<u64>, first: u64, what: &str) -> Vec<PathBuf> {
    durable.extend(fill(device, first));
    holds(device, durable, &format!("{what}, full"));
    // Who writes is told each time, whatever it is; names too are changes.
    durable.extend(fill(device, first + FILES_MAX));
    let directories = (0..20).map(|n| device.at(format!("dir {first} {n}")));
    let made = directories.filter(|path| is_done(fs::create_dir(path), path)).collect();
    let sync = device.types("sync m");
    assert!([0, 8].contains(&sync.code), "{what}: {}: {}", sync.code, sync.stderr);
    assert!(sync.code == 0 || sync.stderr.contains("hint: "), "{what}: {}", sync.stderr);
    holds(device, durable, &format!("{what}, full again"));
    let listed = fs::read_dir(device.m()).expect("listed").count();
    assert!(listed >= durable.len(), "{what}: {listed} names");
    made
}

/// Somebody else gives room back, and that is all it takes.
#[track_caller]
fn give_room(device: &Device, ballast: &Path, n: u64, what: &str) {
    fs::remove_file(ballast).expect("removed");
    let until = Instant::now() + Duration::from_secs(10);
    while !write_durably(&name(device, n), &content(n)) {
        assert!(Instant::now() < until, "{what}: there is room, and it does not go on");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn a_full_disk_is_told_and_harms_nothing(filesystem: Filesystem, part: Part) {
    let what = &format!("{filesystem:?}, {part:?}");
    let (device, disk) = device(filesystem, part);
    let ballasts = BALLASTS.map(|(name, len)| {
        let path = disk.join(name);
        write(&path, &noise(len, 1));
        File::open(&path).and_then(|file| file.sync_all()).expect("durable");
        path
    });
    let daemon = device.daemon();
    // In packs, and in the journal only.
    let mut durable: Vec<u64> =
        (0..3).filter(|n| write_durably(&name(&device, *n), &content(*n))).collect();
    device.sync();
    fill_and_try(&device, &mut durable, 100, what);
    assert!(durable.len() >= 6, "{what}: only {} MiB fit", durable.len());
    give_room(&device, &ballasts[0], 10, what);
    durable.push(10);
    let sync = device.types("sync m");
    assert_eq!(sync.code, 0, "{what}, with room: {}", sync.stderr);
    holds(&device, &durable, &format!("{what}, with room"));
    // What was taken while the disk was full is durable with what comes after.
    let made = fill_and_try(&device, &mut durable, 300, what);
    give_room(&device, &ballasts[1], 11, what);
    durable.push(11);
    assert_eq!(device.daemon(), daemon, "{what}: it was started anew");
    device.crash();
    device.mount();
    for path in made {
        assert!(path.is_dir(), "{what}: {} was made, and is lost", path.display());
    }
    holds(&device, &durable, &format!("{what}, after a crash"));
}

#[test]
fn a_full_tmpfs_below_a_portal_mount_is_told_and_harms_nothing() {
    for part in [Part::Home, Part::State] {
        a_full_disk_is_told_and_harms_nothing(Filesystem::Tmpfs, part);
    }
}

#[test]
fn a_full_ext4_below_a_portal_mount_is_told_and_harms_nothing() {
    for part in [Part::Home, Part::State] {
        a_full_disk_is_told_and_harms_nothing(Filesystem::Ext4, part);
    }
}

/// The share of what fitted first that has to fit again, in percent.
const AGAIN_PERCENT: usize = 80;
/// So long may the sweep take that nobody asks for.
const SWEPT_WITHIN: Duration = Duration::from_secs(20);

/// Fills the disk again, once what was deleted has gone.
#[track_caller]
fn fill_again(device: &Device, before: usize, what: &str) -> Vec<u64> {
    let until = Instant::now() + SWEPT_WITHIN;
    let mut durable = Vec::new();
    for start in (100..).step_by(100) {
        durable.extend(fill(device, start));
        let now = durable.len();
        if now * 100 >= before * AGAIN_PERCENT {
            break;
        }
        assert!(Instant::now() < until, "{what}: {now} MiB fit where {before} MiB were deleted");
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("{what}: {before} MiB, and again {} MiB", durable.len());
    durable
}

/// Fill, publish, delete, publish, fill: what nothing refers to any more gives
/// its room to what comes next, and nobody starts anything anew.
fn deleted_files_make_room(filesystem: Filesystem) {
    let what = &format!("{filesystem:?}");
    let (device, _) = device(filesystem, Part::Home);
    let daemon = device.daemon();
    let first = fill(&device, 0);
    assert!(first.len() >= 5, "{what}: only {} MiB fit", first.len());
    // Publishing and deleting have a reserve, or nothing would ever end this.
    let publish = |when: &str| {
        let mut sync = device.types("sync m");
        // The kernel tells once more of what was refused.
        if sync.code == 8 {
            sync = device.types("sync m");
        }
        assert_eq!(sync.code, 0, "{what}, {when}: {}", sync.stderr);
    };
    publish("full");
    holds(&device, &first, &format!("{what}, full"));
    for entry in fs::read_dir(device.m()).expect("a directory") {
        let path = entry.expect("an entry").path();
        fs::remove_file(&path).unwrap_or_else(|e| panic!("{what}: {}: {e}", path.display()));
    }
    publish("empty");
    let second = fill_again(&device, first.len(), what);
    assert_eq!(device.daemon(), daemon, "{what}: it was started anew");
    holds(&device, &second, &format!("{what}, full again"));
    device.crash();
    device.mount();
    holds(&device, &second, &format!("{what}, after a crash"));
}

#[test]
fn deleted_files_make_room_on_a_full_tmpfs_below_a_portal_mount() {
    deleted_files_make_room(Filesystem::Tmpfs);
}

#[test]
fn deleted_files_make_room_on_a_full_ext4_below_a_portal_mount() {
    deleted_files_make_room(Filesystem::Ext4);
}

/// A file that had no name and was open when the daemon was killed is nobody's:
/// its room is there for others.
#[test]
fn open_files_without_a_name_leave_their_room_to_others_after_a_crash_of_a_mount() {
    let what = "unlinked and open";
    let (device, _) = device(Filesystem::Tmpfs, Part::Home);
    let first = fill(&device, 0);
    assert!(first.len() >= 5, "{what}: only {} MiB fit", first.len());
    let entries = fs::read_dir(device.m()).expect("a directory").map(|e| e.expect("an entry"));
    let open: Vec<File> = entries
        .map(|entry| {
            let file = File::open(entry.path()).expect("opens");
            fs::remove_file(entry.path()).expect("removed");
            file
        })
        .collect();
    assert!(open.len() >= first.len());
    File::open(device.m()).and_then(|root| root.sync_all()).expect("durable");
    device.crash();
    drop(open);
    device.mount();
    assert_eq!(fs::read_dir(device.m()).expect("a directory").count(), 0);
    let second = fill_again(&device, first.len(), what);
    holds(&device, &second, what);
}

/// A program that never asked whether its bytes were safe: somebody is told
/// that they were refused, and told once.
#[test]
fn what_a_full_disk_refused_is_told_by_the_next_sync_of_a_portal_mount() {
    let (device, _) = device(Filesystem::Tmpfs, Part::Home);
    let mut file = File::create(device.at("open before")).expect("created");
    let durable = fill(&device, 0);
    let _ = file.write_all(&content(FILES_MAX));
    // It does not look at what `close` says.
    drop(file);
    let told = device.types("sync m").exits(8);
    assert!(told.stderr.contains("No space left"), "{}", told.stderr);
    device.sync();
    holds(&device, &durable, "told");
}

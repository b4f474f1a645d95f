//! What the kernel keeps to itself, told by how many requests it makes.

mod common;

use common::{Place, Served};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use warp_fs::Caching;

const PAGE: usize = 4096;
const PAGES: usize = 256;

/// This process serves and asks: one test at a time, or each would count the
/// requests of all.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mount(place: &Place, caching: Caching) -> Served {
    place.mount(|options| options.caching = caching)
}

/// Reads by this process: each request is one, and little else is.
fn reads() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let count = io.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap();
    count.parse().unwrap()
}

/// How many requests something makes, or a few more.
fn requests(act: impl FnOnce()) -> u64 {
    let before = reads();
    act();
    reads() - before
}

fn write_pages(file: &File) {
    for n in 0..PAGES {
        file.write_all_at(&[n as u8; PAGE], (n * PAGE) as u64).unwrap();
    }
}

/// Writes to a file that stays open and is not synced; then all that the daemon
/// was told is made durable, and it is killed. Gives what is left of the file.
fn left_of_writes(caching: Caching) -> Vec<u8> {
    let place = Place::new();
    let served = mount(&place, caching);
    let file = File::create(served.path("file")).unwrap();
    write_pages(&file);
    served.portal.commit().unwrap();
    served.disk.kill();
    // What it hands over goes nowhere; an open file would keep the mount.
    drop(file);
    served.kill();
    let served = mount(&place, caching);
    let left = fs::read(served.path("file")).unwrap();
    served.close();
    left
}

#[test]
fn mount_gathers_writes_and_hands_them_over_in_large_pieces() {
    let _alone = alone();
    assert_eq!(left_of_writes(Caching::WriteBack), b"", "the daemon was told already");
    let place = Place::new();
    let served = mount(&place, Caching::WriteBack);
    let file = File::create(served.path("file")).unwrap();
    write_pages(&file);
    let made = requests(|| file.sync_all().unwrap());
    assert!(made < PAGES as u64 / 8, "{made} requests to hand over {PAGES} pages");
    drop(file);
    served.close();
}

#[test]
fn mount_that_writes_through_hands_over_each_write_before_the_program_goes_on() {
    let _alone = alone();
    let left = left_of_writes(Caching::WriteThrough);
    assert_eq!(left.len(), PAGES * PAGE);
    assert!(left.chunks(PAGE).enumerate().all(|(n, page)| page == [n as u8; PAGE]));
}

#[test]
fn mount_keeps_that_a_name_is_not_there_until_it_is() {
    let _alone = alone();
    let place = Place::new();
    let served = mount(&place, Caching::default());
    let at = served.path("name");
    let is_there = |at: &Path| fs::symlink_metadata(at).is_ok();
    let made = requests(|| (0..1000).for_each(|_| assert!(!is_there(&at))));
    assert!(made < 100, "{made} requests for a name that is not there");
    let from = served.path("from");
    fs::write(&from, b"x").unwrap();
    let gone = |at: &Path| if at.is_dir() { fs::remove_dir(at) } else { fs::remove_file(at) };
    for round in 0..20 {
        match round % 5 {
            0 => drop(File::create(&at).unwrap()),
            1 => fs::create_dir(&at).unwrap(),
            2 => fs::hard_link(&from, &at).unwrap(),
            3 => std::os::unix::fs::symlink("nowhere", &at).unwrap(),
            _ => fs::rename(&from, &at).unwrap(),
        }
        assert!(is_there(&at), "round {round}");
        if round % 5 == 4 {
            assert!(!is_there(&from));
            fs::rename(&at, &from).unwrap();
            assert!(is_there(&from));
        } else {
            gone(&at).unwrap();
        }
        assert!(!is_there(&at), "round {round}");
    }
    served.close();
}

#[test]
fn mount_keeps_attributes_and_content_when_a_file_is_opened_again() {
    let _alone = alone();
    let place = Place::new();
    let served = mount(&place, Caching::default());
    fs::write(served.path("file"), vec![7; PAGES * PAGE]).unwrap();
    served.close();
    for read_only in [false, true] {
        let served = place.mount(|options| options.read_only = read_only);
        let at = served.path("file");
        let read = || assert_eq!(fs::read(&at).unwrap(), vec![7; PAGES * PAGE]);
        // The kernel reads ahead a mebibyte at a time: root may raise that.
        let made = requests(read);
        assert!(made < 30, "{made} requests for {PAGES} pages");
        let made = requests(|| (0..20).for_each(|_| read()));
        // A read by a program counts too, of a file two: content, and its end.
        assert!(made < 20 * 3 + 10, "{made} reads for 20 times the same");
        let made = requests(|| (0..500).for_each(|_| assert!(fs::metadata(&at).is_ok())));
        assert!(made < 50, "{made} requests for the same attributes");
        served.close();
    }
}

#[test]
fn mount_has_its_limits_and_its_threads() {
    let _alone = alone();
    let place = Place::new();
    let served = mount(&place, Caching::default());
    let dev = fs::metadata(served.path("")).unwrap().dev();
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    let number = |path: PathBuf| -> u64 {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        text.trim().parse().unwrap()
    };
    // Where the kernel says what was agreed; not every machine has it mounted.
    let control = tempfile::tempdir().unwrap();
    let run = |line: &[&str]| {
        let status = Command::new(line[0]).args(&line[1..]).arg(control.path()).status();
        assert!(status.unwrap().success(), "{line:?}");
    };
    run(&["mount", "-t", "fusectl", "fusectl"]);
    let said = |name: &str| number(control.path().join(format!("{minor}/{name}")));
    let agreed = (said("max_background"), said("congestion_threshold"));
    run(&["umount"]);
    assert!(agreed.0 >= 64 && agreed.1 >= 48, "{agreed:?}");
    assert_eq!(number(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb").into()), 1024);
    let opened = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let devices = opened.filter_map(|fd| fs::read_link(fd.path()).ok());
    let devices = devices.filter(|at| at == Path::new("/dev/fuse")).count();
    // One for each thread that reads requests: no two wait for one queue.
    assert!(devices >= 4, "{devices} open devices");
    served.close();
}

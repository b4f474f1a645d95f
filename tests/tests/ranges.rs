//! Ranges of files in a mounted portal, as programs ask for them: allocated,
//! cleared, cloned, and looked for.

use rustix::fs::{self as rfs, FallocateFlags, SeekFrom};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};
use warp_tests::device::{Device, bash};
use warp_tests::must;
use warp_tests::nasty::{data_len, mkdir, noise, write};

fn edit(path: &Path) -> File {
    let mut how = OpenOptions::new();
    how.read(true).write(true).create(true).truncate(false);
    how.open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn holds(path: &Path, want: &[u8]) {
    let found = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if found != want {
        let differs = found.iter().zip(want).position(|(a, b)| a != b);
        panic!("{}: {} for {} bytes, {differs:?}", path.display(), found.len(), want.len());
    }
}

#[test]
fn a_mounted_portal_allocates_punches_and_zeroes() {
    const KEEP: FallocateFlags = FallocateFlags::KEEP_SIZE;
    const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE;
    const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE;
    let device = Device::mounted();
    let path = device.at("file");
    let mut want = noise(300_000, 1);
    write(&path, &want);
    let file = edit(&path);
    let fallocate = |flags, at, len| rfs::fallocate(&file, flags, at, len);
    fallocate(FallocateFlags::empty(), 200_000, 150_000).expect("allocated");
    want.resize(350_000, 0);
    holds(&path, &want);
    fallocate(KEEP, 300_000, 1 << 20).expect("allocated");
    holds(&path, &want);
    // Dirty pages in it and around it are no older than the request.
    file.write_all_at(&[7; 20_000], 95_000).expect("written");
    want[95_000..115_000].fill(7);
    fallocate(PUNCH | KEEP, 100_001, 9_998).expect("punched");
    want[100_001..109_999].fill(0);
    holds(&path, &want);
    fallocate(ZERO | KEEP, 349_000, 5_000).expect("zeroed");
    want[349_000..].fill(0);
    holds(&path, &want);
    fallocate(ZERO, 340_000, 60_000).expect("zeroed");
    want.resize(400_000, 0);
    want[340_000..].fill(0);
    holds(&path, &want);
    for unknown in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(fallocate(unknown, 0, 4096), Err(Errno::OPNOTSUPP));
    }
    assert_eq!(fallocate(FallocateFlags::empty(), 0, 0), Err(Errno::INVAL));
    // What the disk does not have cannot be promised.
    assert_eq!(fallocate(KEEP, 0, 1 << 60), Err(Errno::NOSPC));
    file.sync_all().expect("durable");
    drop(file);
    device.crash();
    device.mount();
    holds(&path, &want);
    // A hole gives its room back.
    let file = edit(&path);
    let before = file.metadata().expect("there").blocks();
    rfs::fallocate(&file, PUNCH | KEEP, 0, 300_000).expect("punched");
    want[..300_000].fill(0);
    let after = file.metadata().expect("there").blocks();
    assert!(after + 300 < before, "{before} blocks became {after}");
    drop(file);
    device.remount();
    holds(&path, &want);
    assert!(fs::metadata(&path).expect("there").blocks() < 100);
    device.umount();
}

#[test]
fn a_copy_within_a_mounted_portal_stores_nothing_again() {
    let device = Device::mounted();
    let content = noise(16 << 20, 2);
    let source = device.at("source");
    write(&source, &content);
    device.sync();
    let before = data_len(device.home());
    let started = Instant::now();
    must("cp", [OsStr::new("--reflink=auto"), source.as_ref(), device.at("copy").as_ref()]);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let grown = data_len(device.home()).saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes for a copy");
    holds(&device.at("copy"), &content);
    // Durable by an fsync; it needs the source no more.
    File::open(device.at("copy")).and_then(|file| file.sync_all()).expect("durable");
    fs::remove_file(&source).expect("removed");
    File::open(device.m()).and_then(|root| root.sync_all()).expect("durable");
    device.crash();
    device.mount();
    holds(&device.at("copy"), &content);
    device.sync();
    let grown = data_len(device.home()).saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes for a copy, published");
    // Parts at any offset, over what was there, and what nobody has published.
    let mut want = noise(5 << 20, 3);
    write(&device.at("parts"), &want);
    let (from, to) = (edit(&device.at("copy")), edit(&device.at("parts")));
    from.write_all_at(&[9; 100_000], 1_000_000).expect("written");
    let (mut source_at, mut target_at, mut left) = (999_001, 70_003, 3_000_000);
    while left > 0 {
        let (source_at, target_at) = (Some(&mut source_at), Some(&mut target_at));
        let copied = rfs::copy_file_range(&from, source_at, &to, target_at, left).expect("copied");
        assert!(copied > 0, "{left} bytes left");
        left -= copied;
    }
    let mut now = content.clone();
    now[1_000_000..1_100_000].fill(9);
    want[70_003..3_070_003].copy_from_slice(&now[999_001..3_999_001]);
    holds(&device.at("parts"), &want);
    drop((from, to));
    device.remount();
    holds(&device.at("parts"), &want);
    holds(&device.at("copy"), &now);
    device.umount();
}

/// What is written and only the kernel has seen is no hole, and what is a hole
/// is one.
#[test]
fn programs_that_look_for_holes_in_a_mounted_portal_copy_every_byte() {
    let device = Device::mounted();
    let path = device.at("sparse");
    let file = edit(&path);
    file.set_len(8 << 20).expect("length");
    file.write_all_at(&noise(100_000, 1), 1 << 20).expect("written");
    file.sync_all().expect("durable");
    let seek = |to| rfs::seek(&file, to);
    let begins = seek(SeekFrom::Data(0)).expect("data");
    assert!((1 << 20) - 4096 < begins && begins <= 1 << 20, "{begins}");
    let ends = seek(SeekFrom::Hole(begins)).expect("a hole");
    assert!(((1 << 20) + 100_000..=(1 << 20) + 106_000).contains(&ends), "{ends}");
    assert_eq!(seek(SeekFrom::Data(ends)), Err(Errno::NXIO));
    assert_eq!(seek(SeekFrom::Hole(0)), Ok(0));
    // In the kernel alone, in the middle and behind the end.
    file.write_all_at(&noise(50_000, 2), 5 << 20).expect("written");
    file.write_all_at(&noise(50_000, 3), 9 << 20).expect("written");
    assert_eq!(seek(SeekFrom::Data(5 << 20)), Ok(5 << 20));
    assert_eq!(seek(SeekFrom::Data(9 << 20)), Ok(9 << 20));
    let end = file.metadata().expect("there").len();
    assert!(seek(SeekFrom::Hole(5 << 20)).expect("a hole") >= (5 << 20) + 50_000);
    assert_eq!(seek(SeekFrom::Hole(9 << 20)), Ok(end));
    assert_eq!(seek(SeekFrom::Data(end)), Err(Errno::NXIO));
    mkdir(&device.path("out"));
    let script = "for how in auto always never; do cp --sparse=$how m/sparse out/$how; done\n\
         cp --sparse=always m/sparse m/within\n\
         rsync -S m/sparse out/rsync\n\
         tar -S -cf out/tar -C m sparse; mkdir out/from; tar -xf out/tar -C out/from\n\
         for copy in out/auto out/always out/never m/within out/rsync out/from/sparse; do\n\
         cmp m/sparse $copy; done\n";
    bash(&device.path(""), script).exits(0);
    drop(file);
    let small = |path: &Path| fs::metadata(path).expect("there").blocks() * 512;
    for copy in [device.path("out/always"), device.path("out/rsync"), device.at("within")] {
        assert!(small(&copy) < 1 << 20, "{}: {}", copy.display(), small(&copy));
    }
    device.umount();
}

/// Many at once: each makes the kernel hand over pages, which needs threads
/// that answer.
#[test]
fn many_look_for_holes_in_a_mounted_portal_at_once() {
    let device = Device::mounted();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..120_u64 {
            let path = device.at(format!("f{n}"));
            scope.spawn(move || {
                let file = edit(&path);
                file.set_len(64 << 20).expect("length");
                for at in [1, 20, 40] {
                    file.write_all_at(&[1; 9000], at << 20).expect("written");
                }
                let (mut found, mut at) = (Vec::new(), 0);
                while let Ok(data) = rfs::seek(&file, SeekFrom::Data(at)) {
                    found.push(data >> 20);
                    at = rfs::seek(&file, SeekFrom::Hole(data)).expect("a hole");
                }
                assert_eq!(found, [1, 20, 40]);
            });
        }
    });
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    device.umount();
}

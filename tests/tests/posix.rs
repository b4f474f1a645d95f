//! The walk through POSIX in a mounted portal: each call does what it does on
//! the machine's own disk, and what it did is there after the next mount.

use rustix::fs::{
    self as rfs, AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use warp_tests::device::{Device, Running, bash, python};
use warp_tests::nasty::{data_len, mkdir, mode, noise, same_tree, write};
use warp_tests::{must, run};

/// It fails for this reason.
#[track_caller]
fn refused<T>(result: std::io::Result<T>, why: Errno) {
    let code = result.err().and_then(|e| e.raw_os_error());
    assert_eq!(code, Some(why.raw_os_error()), "not {why}");
}

#[track_caller]
fn holds(path: &Path, want: &[u8]) {
    let found = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(found == want, "{}: {} bytes, not {}", path.display(), found.len(), want.len());
}

fn stat(path: &Path) -> fs::Metadata {
    fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_mounted_portal_opens_files_as_it_is_asked_to() {
    let device = Device::mounted();
    let file = device.at("file");
    let exclusive = || OpenOptions::new().write(true).create_new(true).open(&file);
    exclusive().and_then(|mut file| file.write_all(b"first content")).expect("new");
    refused(exclusive(), Errno::EXIST);
    refused(OpenOptions::new().write(true).open(device.at("none")), Errno::NOENT);
    // Appending goes to the end, wherever the position is.
    let mut append = OpenOptions::new().append(true).read(true).open(&file).expect("opens");
    append.seek(std::io::SeekFrom::Start(2)).expect("moved");
    append.write_all(b", appended").expect("written");
    holds(&file, b"first content, appended");
    // Reading only is reading only, and the other way round.
    refused(File::open(&file).and_then(|mut file| file.write_all(b"x")), Errno::BADF);
    let write_only = OpenOptions::new().write(true).open(&file).expect("opens");
    refused((&write_only).read(&mut [0; 4]), Errno::BADF);
    write_only.write_all_at(b"FIRST", 0).expect("written");
    holds(&file, b"FIRST content, appended");
    OpenOptions::new().write(true).truncate(true).open(&file).expect("truncated");
    holds(&file, b"");
    append.write_all(b"anew").expect("written");
    holds(&file, b"anew");
    refused(OpenOptions::new().write(true).open(mkdir(&device.at("dir"))), Errno::ISDIR);
    let directory = |path: &Path| rfs::open(path, OFlags::DIRECTORY, Mode::empty());
    assert_eq!(directory(&file).err(), Some(Errno::NOTDIR));
    symlink("file", device.at("link")).expect("symlink");
    let follow = rfs::open(device.at("link"), OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty());
    assert_eq!(follow.err(), Some(Errno::LOOP));
    // A file that may only be read is written by who made it so.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let made = rfs::open(device.at("read-only"), flags, Mode::from_raw_mode(0o400)).expect("made");
    rustix::io::write(&made, b"written once").expect("written");
    drop((append, write_only, made));
    device.remount();
    holds(&file, b"anew");
    holds(&device.at("read-only"), b"written once");
    assert_eq!(stat(&device.at("read-only")).mode() & 0o7777, 0o400);
    device.umount();
}

#[test]
fn a_mounted_portal_loses_no_line_of_two_that_append() {
    const APPEND: &str = r"
import os, sys
fd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for n in range(1500):
    os.write(fd, f'{sys.argv[1]} {n:06} {sys.argv[1] * 100}\n'.encode())
";
    let device = Device::mounted();
    let start = |who: &str| {
        let mut command = Command::new("python3");
        Running::start(command.args(["-c", APPEND, who]).current_dir(device.m()))
    };
    let mut both = [start("a"), start("b")];
    for running in &mut both {
        assert_eq!(running.ends(Duration::from_secs(60)), Some(0));
    }
    for _ in 0..2 {
        let text = fs::read_to_string(device.at("log")).expect("text");
        let mut next = BTreeMap::from([("a", 0), ("b", 0)]);
        for line in text.lines() {
            let who = line.get(..1).expect("a line");
            let number = next.get_mut(who).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(line, format!("{who} {number:06} {}", who.repeat(100)));
            *number += 1;
        }
        assert_eq!(next, BTreeMap::from([("a", 1500), ("b", 1500)]));
        device.remount();
    }
    device.umount();
}

#[test]
fn a_mounted_portal_reads_and_writes_directly() {
    let device = Device::mounted();
    let content = noise(3 << 20, 1);
    write(&device.path("source"), &content);
    let dd = |args: &str| bash(&device.path(""), &format!("dd status=none {args}")).exits(0);
    dd("if=source of=m/direct bs=64k oflag=direct");
    holds(&device.at("direct"), &content);
    dd("if=m/direct of=copy bs=128k iflag=direct");
    holds(&device.path("copy"), &content);
    // Over part of a file that is in the page cache.
    dd("if=source of=m/direct bs=4k count=1 skip=7 seek=3 conv=notrunc oflag=direct");
    let mut want = content;
    want.copy_within(7 * 4096..8 * 4096, 3 * 4096);
    holds(&device.at("direct"), &want);
    // Direct reads see what was written in the ordinary way.
    let file = OpenOptions::new().write(true).open(device.at("direct")).expect("opens");
    file.write_all_at(&[7; 4096], 40 * 4096).expect("written");
    want[40 * 4096..41 * 4096].fill(7);
    dd("if=m/direct of=copy bs=4k iflag=direct");
    holds(&device.path("copy"), &want);
    drop(file);
    device.remount();
    holds(&device.at("direct"), &want);
    device.umount();
}

#[test]
fn a_mounted_portal_keeps_what_is_written_through_memory() {
    const MAP: &str = r"
import mmap, os
with open('file', 'wb') as f: f.write(b'a' * 300_000)
fd = os.open('file', os.O_RDWR)
m = mmap.mmap(fd, 300_000)
m[0:5] = b'first'
m[150_000:150_006] = b'middle'
# Another descriptor sees it, before any msync.
with open('file', 'rb') as f:
    assert f.read(6) == b'firsta'
    f.seek(150_000); assert f.read(7) == b'middlea'
# And the map sees what is written in the ordinary way.
os.pwrite(fd, b'written', 200_000)
assert m[200_000:200_007] == b'written'
m[299_996:300_000] = b'last'
m.flush()
# Only closed, not flushed.
m[100_000:100_004] = b'late'
m.close(); os.close(fd)
# A private map changes nothing.
fd = os.open('file', os.O_RDWR)
p = mmap.mmap(fd, 0, access=mmap.ACCESS_COPY)
p[0:5] = b'NEVER'
";
    let device = Device::mounted();
    python(&device.m(), MAP, &[]).exits(0);
    let mut want = vec![b'a'; 300_000];
    for (at, bytes) in [
        (0, "first"),
        (150_000, "middle"),
        (200_000, "written"),
        (299_996, "last"),
        (100_000, "late"),
    ] {
        want[at..at + bytes.len()].copy_from_slice(bytes.as_bytes());
    }
    holds(&device.at("file"), &want);
    device.remount();
    holds(&device.at("file"), &want);
    let read =
        "import mmap; f = open('file', 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
assert m[150_000:150_006] == b'middle' and len(m) == 300_000";
    python(&device.m(), read, &[]).exits(0);
    device.umount();
}

#[test]
fn a_file_in_a_mounted_portal_that_shrinks_and_grows_reads_zeros() {
    let device = Device::mounted();
    // Around blocks and chunks, and over what is published already.
    let lens: [usize; 5] = [300, 5_000, 65_536, 200_000, 3 << 20];
    let check = |cut: usize| {
        for len in lens {
            let path = device.at(format!("file {len}"));
            let mut want = noise(len, 1);
            want[len / 3 + cut..].fill(0);
            want.resize(len + 10_000, 0);
            holds(&path, &want);
        }
    };
    for cut in [0, 1] {
        for len in lens {
            write(&device.at(format!("file {len}")), &noise(len, 1));
        }
        if cut == 1 {
            device.sync();
        }
        for len in lens {
            let file = OpenOptions::new().write(true).open(device.at(format!("file {len}")));
            let file = file.expect("opens");
            file.set_len((len / 3 + cut) as u64).expect("shrunk");
            assert_eq!(file.metadata().expect("there").len(), (len / 3 + cut) as u64);
            file.set_len(len as u64 + 10_000).expect("grown");
        }
        check(cut);
        device.remount();
        check(cut);
    }
    // Writing after the end leaves zeros, too.
    let file = File::create(device.at("gap")).expect("created");
    file.write_all_at(b"end", 100_000).expect("written");
    file.set_len(100_002).expect("shrunk");
    file.set_len(100_010).expect("grown");
    drop(file);
    device.remount();
    let want = [vec![0; 100_000], b"en".to_vec(), vec![0; 8]].concat();
    holds(&device.at("gap"), &want);
    device.umount();
}

#[test]
fn a_mounted_portal_renames_over_files_and_empty_directories() {
    let device = Device::mounted();
    let at = |name: &str| device.at(name);
    let rename = |from: &str, to: &str| fs::rename(at(from), at(to));
    for name in ["a", "b", "c"] {
        write(&at(name), name.as_bytes());
        write(&mkdir(&at(&format!("full {name}"))).join("inside"), name.as_bytes());
        mkdir(&at(&format!("empty {name}")));
    }
    let inode = stat(&at("a")).ino();
    let open = File::open(at("b")).expect("opens");
    rename("a", "b").expect("over a file");
    holds(&at("b"), b"a");
    assert_eq!(stat(&at("b")).ino(), inode);
    refused(fs::metadata(at("a")), Errno::NOENT);
    // Who had the other one open has it still.
    let mut text = String::new();
    (&open).read_to_string(&mut text).expect("readable");
    assert_eq!((text.as_str(), open.metadata().expect("there").nlink()), ("b", 0));
    rename("full a", "empty a").expect("over an empty directory");
    holds(&at("empty a/inside"), b"a");
    refused(rename("empty b", "full b"), Errno::NOTEMPTY);
    refused(rename("full c", "full b"), Errno::NOTEMPTY);
    refused(rename("c", "empty c"), Errno::ISDIR);
    refused(rename("empty c", "c"), Errno::NOTDIR);
    refused(rename("full b", "full b/below"), Errno::INVAL);
    refused(rename("none", "c"), Errno::NOENT);
    refused(rename("c", "none/c"), Errno::NOENT);
    refused(fs::remove_dir(at("full b")), Errno::NOTEMPTY);
    refused(fs::remove_dir(at("c")), Errno::NOTDIR);
    refused(fs::remove_file(at("empty c")), Errno::ISDIR);
    // Two names of one file: both stay.
    fs::hard_link(at("c"), at("d")).expect("hard link");
    rename("c", "d").expect("nothing to do");
    assert_eq!((stat(&at("c")).nlink(), stat(&at("d")).nlink()), (2, 2));
    // A directory moves with all that is below, and `..` with it.
    rename("full b", "full c/moved").expect("moved");
    holds(&at("full c/moved/../moved/inside"), b"b");
    assert_eq!(stat(&at("full c/moved/..")).ino(), stat(&at("full c")).ino());
    drop(open);
    device.remount();
    holds(&at("b"), b"a");
    holds(&at("empty a/inside"), b"a");
    holds(&at("full c/moved/inside"), b"b");
    assert_eq!(stat(&at("c")).ino(), stat(&at("d")).ino());
    refused(fs::metadata(at("full b")), Errno::NOENT);
    device.umount();
}

#[test]
fn hard_links_in_a_mounted_portal_are_one_file() {
    let device = Device::mounted();
    write(&device.at("one"), b"content");
    mkdir(&device.at("dir"));
    let names = ["one", "two", "dir/three"];
    for name in &names[1..] {
        fs::hard_link(device.at("one"), device.at(name)).expect("hard link");
    }
    refused(fs::hard_link(device.at("one"), device.at("two")), Errno::EXIST);
    refused(fs::hard_link(device.at("dir"), device.at("dir too")), Errno::PERM);
    symlink("one", device.at("soft")).expect("symlink");
    fs::hard_link(device.at("soft"), device.at("soft too")).expect("hard link of a symlink");
    let same = |count: u64| {
        let inode = stat(&device.at("dir/three")).ino();
        for name in names {
            let Ok(meta) = fs::symlink_metadata(device.at(name)) else { continue };
            assert_eq!((meta.ino(), meta.nlink()), (inode, count), "{name}");
        }
        assert_eq!(stat(&device.at("soft too")).nlink(), 2);
        assert_eq!(stat(&device.at("soft")).ino(), stat(&device.at("soft too")).ino());
    };
    same(3);
    device.remount();
    same(3);
    // What is done to one is done to all.
    OpenOptions::new()
        .append(true)
        .open(device.at("two"))
        .expect("opens")
        .write_all(b"!")
        .expect("");
    mode(&device.at("dir/three"), 0o640);
    holds(&device.at("one"), b"content!");
    assert_eq!(stat(&device.at("one")).mode() & 0o7777, 0o640);
    fs::remove_file(device.at("one")).expect("removed");
    same(2);
    device.remount();
    same(2);
    fs::remove_file(device.at("two")).expect("removed");
    same(1);
    holds(&device.at("dir/three"), b"content!");
    device.umount();
}

#[test]
fn a_removed_file_of_a_mounted_portal_lives_as_long_as_it_is_open() {
    let device = Device::mounted();
    let content = noise(200_000, 1);
    let open = |name: &str| {
        write(&device.at(name), &content);
        let file = OpenOptions::new().read(true).write(true).open(device.at(name)).expect("opens");
        fs::remove_file(device.at(name)).expect("removed");
        refused(fs::metadata(device.at(name)), Errno::NOENT);
        file
    };
    let first = open("first");
    // Another of that name is another file.
    write(&device.at("first"), b"another");
    first.write_all_at(b"changed", 100_000).expect("written");
    first.set_len(150_000).expect("shrunk");
    first.sync_all().expect("durable");
    device.sync();
    let mut want = content.clone();
    want[100_000..100_007].copy_from_slice(b"changed");
    want.truncate(150_000);
    let mut found = vec![0; 150_000];
    first.read_exact_at(&mut found, 0).expect("readable");
    assert!(found == want);
    let meta = first.metadata().expect("there");
    assert_eq!((meta.nlink(), meta.len()), (0, 150_000));
    holds(&device.at("first"), b"another");
    drop(first);
    // Removed before the crash, it is not back after it.
    let second = open("second");
    File::open(device.m()).and_then(|dir| dir.sync_all()).expect("durable");
    device.crash();
    drop(second);
    device.mount();
    let names: Vec<_> =
        fs::read_dir(device.m()).expect("usable").map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["first"]);
    device.remount();
    holds(&device.at("first"), b"another");
    device.umount();
}

#[test]
fn a_mounted_portal_takes_every_name_that_a_disk_takes() {
    let device = Device::mounted();
    let list: [Vec<u8>; 7] = [
        vec![b'n'; 255],
        "ü".repeat(127).into_bytes(),
        b"not \xff\xfe UTF-8 \x80".to_vec(),
        b"a line\nand another".to_vec(),
        b"...".to_vec(),
        b"\x01".to_vec(),
        vec![0xff; 255],
    ];
    let path = |name: &[u8]| device.at(OsStr::from_bytes(name));
    for name in &list {
        write(&path(name), name);
    }
    for len in [256, 300, 4000] {
        refused(fs::write(path(&vec![b'n'; len]), b""), Errno::NAMETOOLONG);
        refused(fs::create_dir(path(&vec![b'n'; len])), Errno::NAMETOOLONG);
        refused(symlink("x", path(&vec![b'n'; len])), Errno::NAMETOOLONG);
        refused(fs::rename(path(&list[0]), path(&vec![b'n'; len])), Errno::NAMETOOLONG);
        refused(fs::metadata(path(&vec![b'n'; len])), Errno::NAMETOOLONG);
    }
    let target = OsString::from_vec([vec![b't'; 3_990], b"/\xff\n\x1b".to_vec()].concat());
    symlink(&target, device.at("link")).expect("symlink of 3,994 bytes");
    symlink("t".repeat(4000), device.at("long")).expect("symlink of 4,000 bytes");
    device.remount();
    for name in &list {
        holds(&path(name), name);
    }
    assert_eq!(fs::read_link(device.at("link")).expect("a link"), target);
    assert_eq!(stat(&device.at("link")).len(), 3_994);
    assert_eq!(fs::read_link(device.at("long")).expect("a link"), Path::new(&"t".repeat(4000)));
    // Each is listed, and once.
    let mut found: Vec<Vec<u8>> = fs::read_dir(device.m())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_vec())
        .collect();
    found.sort();
    let mut want = [list.to_vec(), vec![b"link".to_vec(), b"long".to_vec()]].concat();
    want.sort();
    assert_eq!(found, want);
    device.umount();
}

#[test]
fn a_mounted_portal_makes_fifos_and_devices() {
    let device = Device::mounted();
    let make = |name: &str, kind, number| {
        rfs::mknodat(CWD, device.at(name), kind, Mode::from_raw_mode(0o640), number).expect(name);
    };
    make("fifo", FileType::Fifo, 0);
    make("character", FileType::CharacterDevice, rfs::makedev(240, 70_000));
    make("block", FileType::BlockDevice, rfs::makedev(7, 200));
    make("socket", FileType::Socket, 0);
    make("regular", FileType::RegularFile, 0);
    // Two processes meet in it.
    let talk = "(echo through > fifo) & read -t 10 line < fifo; echo $line; wait";
    assert_eq!(bash(&device.m(), talk).exits(0).text(), "through\n");
    // The mount is nodev: nobody gets at a device through it.
    refused(File::open(device.at("character")), Errno::ACCESS);
    for _ in 0..2 {
        let kind = |name: &str| stat(&device.at(name)).mode();
        assert_eq!(kind("fifo"), 0o010_640);
        assert_eq!(kind("character"), 0o020_640);
        assert_eq!(kind("block"), 0o060_640);
        assert_eq!(kind("socket"), 0o140_640);
        assert_eq!(kind("regular"), 0o100_640);
        assert_eq!(stat(&device.at("character")).rdev(), rfs::makedev(240, 70_000));
        assert_eq!(stat(&device.at("block")).rdev(), rfs::makedev(7, 200));
        device.remount();
    }
    assert_eq!(bash(&device.m(), talk).exits(0).text(), "through\n");
    device.umount();
}

#[test]
fn a_mounted_portal_keeps_attributes() {
    let device = Device::mounted();
    let file = device.at("file");
    write(&file, b"");
    let set = |name: &str, value: &[u8], flags| rfs::setxattr(&file, name, value, flags);
    let any = XattrFlags::empty();
    set("user.one", b"first", any).expect("set");
    set("user.one", b"second", any).expect("replaced");
    set("user.empty", b"", XattrFlags::CREATE).expect("made");
    set("user.large", &noise(4000, 1), any).expect("set");
    set("trusted.root", b"\0\xff", any).expect("set");
    set("user.gone", b"x", any).expect("set");
    assert_eq!(set("user.one", b"x", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.none", b"x", XattrFlags::REPLACE), Err(Errno::NODATA));
    set("user.one", b"third", XattrFlags::REPLACE).expect("replaced");
    rfs::removexattr(&file, "user.gone").expect("removed");
    assert_eq!(rfs::removexattr(&file, "user.gone"), Err(Errno::NODATA));
    let get = |name: &str| {
        let mut value = vec![0; 5000];
        rfs::getxattr(&file, name, &mut value).map(|len| value[..len].to_vec())
    };
    for _ in 0..2 {
        assert_eq!(get("user.one"), Ok(b"third".to_vec()));
        assert_eq!(get("user.empty"), Ok(vec![]));
        assert_eq!(get("user.large"), Ok(noise(4000, 1)));
        assert_eq!(get("trusted.root"), Ok(b"\0\xff".to_vec()));
        assert_eq!(get("user.gone"), Err(Errno::NODATA));
        let mut small = [0; 2];
        assert_eq!(rfs::getxattr(&file, "user.one", &mut small), Err(Errno::RANGE));
        let mut list = vec![0; 1000];
        let len = rfs::listxattr(&file, &mut list).expect("a list");
        let mut names: Vec<&[u8]> = list[..len].split(|b| *b == 0).collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        let want: [&[u8]; 4] = [b"trusted.root", b"user.empty", b"user.large", b"user.one"];
        assert_eq!(names, want);
        device.remount();
    }
    device.umount();
}

/// The same on the machine's own disk and in a portal: modes, the mask of new
/// files, owners, times, access lists that are inherited and masked.
const METADATA: &str = r#"
umask 027
: > plain; mkdir dir; (umask 0; : > open; mkdir opendir); (umask 0777; : > none)
chmod 4711 plain; chmod 1777 dir; chmod u-s,o+w open
chown 1234:4000000000 open; chown -h 5:6 dir; ln -s nowhere link; chown -h 7:8 link
mkdir shared; chown :4321 shared; chmod 2775 shared
: > shared/file; mkdir shared/dir; mkdir -p shared/dir/below; ln -s x shared/link
mkfifo shared/fifo
: > acl; setfacl -m u:12345:rw,g:54321:r acl
mkdir heir; setfacl -m u:12345:rwx,d:u:12345:rwx,d:g::r-x,d:o::- heir
: > heir/file; mkdir heir/dir; : > heir/dir/file; (umask 0; : > heir/wide)
setfacl -m u:12345:rwx heir/file; chmod g-w heir/file; chmod 700 heir/dir
: > masked; setfacl -m u:12345:rwx masked; chmod 644 masked
: > cleared; setfacl -m u:12345:rwx cleared; setfacl -b cleared
mv heir/wide moved; cp --preserve=all acl copied
: > setuid; chmod 6755 setuid; chown 99:99 setuid
touch -d '1969-12-31 23:59:58.25 UTC' before
touch -d '1902-01-01 00:00:00.5 UTC' long-before
touch -d '2038-01-19 03:14:08.000000001 UTC' after; touch -d '2400-01-01 UTC' late
touch -d '2001-02-03 04:05:06.789012345 UTC' precise; touch -h -d '1970-01-01 UTC' link
touch -d '1999-09-09 09:09:09.999999999 UTC' dir; touch -r precise plain
"#;
/// What of it is to be seen: all but inodes and the times that `now` left.
const SHOW: &str = r#"
stat -c '%n %A %u %g %h %s' plain open none link setuid cleared masked moved copied \
  shared/file shared/link shared/fifo heir/file heir/dir/file
stat -c '%n %A %u %g' . dir opendir shared shared/dir shared/dir/below heir heir/dir
stat -c '%n %.9Y' before long-before after late precise link dir plain
getfacl -n -p acl heir heir/file heir/dir heir/dir/file moved masked cleared copied
"#;

#[test]
fn a_mounted_portal_keeps_modes_owners_times_and_access_lists() {
    let device = Device::mounted();
    let (here, there) = (mkdir(&device.path("here")), mkdir(&device.at("there")));
    let show = |dir: &Path| bash(dir, SHOW).exits(0).text();
    for dir in [&here, &there] {
        bash(dir, METADATA).exits(0);
    }
    let want = show(&here);
    assert!(want.contains("before -1.750000000\n"), "the control is right: {want}");
    assert_eq!(show(&there), want);
    device.remount();
    assert_eq!(show(&there), want);
    // To the nanosecond, and after the year 2106.
    let at = Timespec { tv_sec: 1 << 33, tv_nsec: 999_999_999 };
    let times = Timestamps { last_access: at, last_modification: at };
    write(&device.at("late"), b"x");
    rfs::utimensat(CWD, device.at("late"), &times, AtFlags::empty()).expect("set");
    device.remount();
    let meta = stat(&device.at("late"));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1 << 33, 999_999_999));
    device.umount();
}

#[test]
fn a_mounted_portal_moves_times_as_calls_demand() {
    let device = Device::mounted();
    let (dir, file) = (mkdir(&device.at("dir")), device.at("dir/file"));
    let times = |path: &Path| {
        let meta = stat(path);
        ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()))
    };
    let pause = || thread::sleep(Duration::from_millis(20));
    let moved = |what: &str, path: &Path, act: &dyn Fn(), mtime: bool, ctime: bool| {
        let before = times(path);
        pause();
        act();
        let after = times(path);
        assert_eq!((after.0 > before.0, after.1 > before.1), (mtime, ctime), "{what}");
    };
    moved("make", &dir, &|| write(&file, b"x"), true, true);
    moved("write", &file, &|| write(&file, b"more"), true, true);
    moved("mode", &file, &|| mode(&file, 0o640), false, true);
    moved("link", &file, &|| fs::hard_link(&file, dir.join("too")).expect("linked"), false, true);
    moved("unlink", &file, &|| fs::remove_file(dir.join("too")).expect("removed"), false, true);
    moved("rename", &dir, &|| fs::rename(&file, dir.join("f")).expect("renamed"), true, true);
    moved("read", &dir.join("f"), &|| holds(&dir.join("f"), b"more"), false, false);
    moved("mkdir", &dir, &|| drop(mkdir(&dir.join("sub"))), true, true);
    let shrink = || {
        let file = OpenOptions::new().write(true).open(dir.join("f")).expect("opens");
        file.set_len(2).expect("shrunk");
    };
    moved("truncate", &dir.join("f"), &shrink, true, true);
    let attribute = || {
        rfs::setxattr(dir.join("f"), "user.x", b"1", XattrFlags::empty()).expect("set");
    };
    moved("attribute", &dir.join("f"), &attribute, false, true);
    let last = times(&dir.join("f"));
    device.remount();
    assert_eq!(times(&dir.join("f")).0, last.0);
    device.umount();
}

#[test]
fn a_sparse_file_in_a_mounted_portal_takes_little_room() {
    let device = Device::mounted();
    let before = data_len(device.home());
    let (len, at) = (1_u64 << 30, (1 << 30) - 4096);
    let end = noise(4096, 1);
    let file = File::create(device.at("sparse")).expect("created");
    file.set_len(len).expect("length");
    file.write_all_at(&end, at).expect("written");
    file.sync_all().expect("durable");
    drop(file);
    device.remount();
    let taken = data_len(device.home()).saturating_sub(before);
    assert!(taken < 1 << 20, "{taken} bytes for 4 KiB at the end of 1 GiB");
    let file = File::open(device.at("sparse")).expect("opens");
    let meta = file.metadata().expect("there");
    assert_eq!(meta.len(), len);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    let mut bytes = vec![1; 8192];
    file.read_exact_at(&mut bytes, at - 4096).expect("read");
    assert!(bytes[..4096].iter().all(|b| *b == 0) && bytes[4096..] == end);
    drop(file);
    // Copied with its hole, it is as small.
    must(
        "cp",
        [OsStr::new("--sparse=always"), device.at("sparse").as_ref(), device.at("copy").as_ref()],
    );
    assert!(stat(&device.at("copy")).blocks() * 512 < 1 << 20);
    device.umount();
}

#[test]
fn a_mounted_portal_shows_the_free_space_of_its_disk() {
    let device = Device::mounted();
    let df = |path: &Path, what: &str| -> u64 {
        let text = must("df", [OsStr::new("-B1"), what.as_ref(), path.as_os_str()]);
        let number = text.lines().nth(1).unwrap_or_default().trim();
        number.parse().unwrap_or_else(|e| panic!("{number}: {e}"))
    };
    // 2 % stay for deleting; of a small disk more, which this is not.
    let reserve = df(device.home(), "--output=size") / 50;
    let free = df(device.home(), "--output=avail");
    let (here, there) = (free.saturating_sub(reserve), df(&device.m(), "--output=avail"));
    // Others write to this disk meanwhile.
    assert!(here.abs_diff(there) < here / 20 + (1 << 28), "{there} free, {here} on the disk");
    assert!(df(&device.m(), "--output=size") >= there);
    let statfs = rfs::statvfs(device.m()).expect("known");
    assert_eq!(statfs.f_namemax, 255);
    assert!(df(&device.m(), "--output=iavail") > 0, "there is room for files");
    device.umount();
}

#[test]
fn a_directory_of_a_mounted_portal_lists_each_name_once_while_it_changes() {
    const NAMES: usize = 100_000;
    let device = Device::mounted();
    let dir = mkdir(&device.at("dir"));
    for n in 0..NAMES {
        File::create(dir.join(format!("stays {n}"))).expect("created");
    }
    let listed = || {
        let mut counts = vec![0; NAMES];
        for entry in fs::read_dir(&dir).expect("a directory") {
            let name = entry.expect("an entry").file_name().into_string().expect("text");
            if let Some(number) = name.strip_prefix("stays ") {
                counts[number.parse::<usize>().expect("a number")] += 1;
            } else {
                assert!(name.starts_with("goes "), "{name}");
            }
        }
        counts
    };
    let (done, changes) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                File::create(dir.join(format!("goes {n}"))).expect("created");
                if n >= 50 {
                    fs::remove_file(dir.join(format!("goes {}", n - 50))).expect("removed");
                }
                changes.store(n, Ordering::SeqCst);
                if done.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        let (mut all, until) = (Vec::new(), Instant::now() + Duration::from_secs(30));
        while (all.len() < 5 || changes.load(Ordering::SeqCst) < 300) && Instant::now() < until {
            all.push(listed());
        }
        done.store(true, Ordering::SeqCst);
        assert!(changes.load(Ordering::SeqCst) >= 300, "the directory hardly changed");
        for counts in all {
            let wrong: Vec<_> =
                counts.iter().enumerate().filter(|(_, count)| **count != 1).collect();
            assert!(wrong.is_empty(), "{} names not listed once: {wrong:?}", wrong.len());
        }
    });
    device.remount();
    assert!(listed().iter().all(|count| *count == 1));
    must("rm", [OsStr::new("-r"), dir.as_os_str()]);
    device.remount();
    assert_eq!(fs::read_dir(device.m()).expect("a directory").count(), 0);
    device.umount();
}

/// What `rsync` does, whose two processes work in one directory: one changes
/// it while the other asks for it, and then the first asks. The kernel stores
/// attributes one by one and reads them without its lock: who asks in that very
/// moment may be shown a time that was (as on every FUSE mount, whatever the
/// daemon tells it), but never for longer.
#[test]
fn a_directory_of_a_mounted_portal_never_keeps_a_time_that_it_had() {
    let device = Device::mounted();
    let dir = mkdir(&device.at("d"));
    write(&dir.join("a"), b"x");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let shows_old = || stat(&dir).modified().expect("a time") == long_ago;
    let (mut from, mut to) = (dir.join("a"), dir.join("b"));
    let set = || {
        let opened = File::open(&dir).expect("a directory");
        opened.set_modified(long_ago).expect("a time is set");
    };
    let mut change = || {
        fs::rename(&from, &to).expect("a file is renamed");
        std::mem::swap(&mut from, &mut to);
    };
    for round in 0..500 {
        set();
        assert!(shows_old(), "the time that was set, in round {round}");
        change();
        assert!(!shows_old(), "nobody else asked: the old time, in round {round}");
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for n in 0..8 {
            let (dir, over) = (&dir, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let _ = stat(dir).modified();
                    let _ = fs::metadata(dir.join(format!("none-{n}")));
                }
            });
        }
        let (mut kept, until) = (0, Instant::now() + Duration::from_secs(5));
        while Instant::now() < until {
            set();
            change();
            let soon = Instant::now() + Duration::from_secs(1);
            while shows_old() && Instant::now() < soon {
                thread::sleep(Duration::from_millis(1));
            }
            kept += u32::from(shows_old());
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(kept, 0, "so often a time from before the rename was kept");
    });
    device.umount();
}

#[test]
fn a_mounted_portal_locks_files_between_processes() {
    let device = Device::mounted();
    let script = "exec 9> lock; flock -x 9
        flock -n -x lock true && exit 1
        python3 -c 'import fcntl, os
fd = os.open(\"record\", os.O_RDWR | os.O_CREAT)
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 5)
if os.fork() == 0:
    other = os.open(\"record\", os.O_RDWR)
    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 20)
    try: fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
    except OSError: os._exit(0)
    os._exit(1)
assert os.wait()[1] == 0' || exit 2
        flock -u 9; flock -n -x lock true || exit 3";
    bash(&device.m(), script).exits(0);
    device.umount();
}

#[test]
fn a_mounted_portal_is_walked_by_many_at_once() {
    let device = Device::mounted();
    let tree = device.path("tree");
    for n in 0..400_u64 {
        let dir = mkdir(&tree.join(format!("{}/{}", n % 5, n % 7)));
        write(&dir.join(format!("file {n}")), &noise((n as usize * 977) % 50_000, n));
    }
    let script = "for n in 1 2 3 4; do cp -a tree m/$n & done; wait
        for n in 1 2 3 4; do (cd m/$n; find . -type f -exec cat {} + | wc -c) & done; wait
        mkdir m/one; for n in 1 2 3 4; do (mv m/$n m/one/; rm -r m/one/$n/3) & done; wait";
    bash(&device.path(""), script).exits(0);
    fs::remove_dir_all(tree.join("3")).expect("removed");
    // The removal changed the time of the directory, everywhere.
    let settle = |dir: &Path| must("touch", [OsStr::new("-d@1000"), dir.as_os_str()]);
    settle(&tree);
    (1..=4).for_each(|n| drop(settle(&device.at(format!("one/{n}")))));
    device.remount();
    for n in 1..=4 {
        same_tree(&tree, &device.at(format!("one/{n}")));
    }
    device.umount();
}

/// A user other than the one who mounts gets what the modes allow, if let in.
#[test]
fn a_portal_mounted_for_all_obeys_its_modes() {
    let device = Device::with_portal();
    let cat = |name: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "cat"]);
        command.arg(device.at(name));
        run::run(command, Duration::from_secs(10)).code
    };
    device.mount();
    write(&device.at("public"), b"x");
    write(&device.at("private"), b"x");
    mode(&device.at("private"), 0o600);
    fs::set_permissions(device.m(), fs::Permissions::from_mode(0o755)).expect("the root is a file");
    assert_ne!(cat("public"), 0);
    device.umount();
    device.warp(["mount", "-o", "allow_other", "p", "m"]).ok();
    assert_eq!(cat("public"), 0);
    assert_ne!(cat("private"), 0);
    assert_eq!(stat(&device.m()).mode() & 0o7777, 0o755);
    // New files there have the mode that was asked for.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o604).open(device.at("new"));
    drop(file.expect("created"));
    assert_eq!(stat(&device.at("new")).mode() & 0o7777, 0o604);
    device.umount();
}

//! The edges of what a mounted portal takes: counts, lengths and sizes that
//! programs rely on without asking.

use rustix::fs::{self as rfs, CWD, FallocateFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::thread;
use std::time::Duration;
use warp_tests::device::{Device, bash};
use warp_tests::must;
use warp_tests::nasty::{data_len, mkdir, mode, own, write};

/// The largest file that the kernel knows of, in bytes.
const LARGEST: u64 = i64::MAX as u64;

fn links(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).nlink()
}

/// What `find` and `fts` rely on: 2, and one for each directory in it.
#[track_caller]
fn counts(device: &Device, want: &[(&str, u64)]) {
    for (name, count) in want {
        assert_eq!(links(&device.at(name)), *count, "{name}");
    }
}

#[test]
fn a_directory_of_a_mounted_portal_counts_the_directories_in_it() {
    let device = Device::mounted();
    assert_eq!(links(&device.m()), 2);
    for name in ["a", "a/one", "a/two", "a/two/deep", "b", "b/three", "c"] {
        mkdir(&device.at(name));
    }
    write(&device.at("a/file"), b"counts for nothing");
    let at_first = [("", 5), ("a", 4), ("a/two", 3), ("a/one", 2), ("b", 3), ("c", 2)];
    counts(&device, &at_first);
    device.remount();
    counts(&device, &at_first);
    let rename = |from: &str, to: &str| fs::rename(device.at(from), device.at(to)).expect(from);
    rename("a/one", "a/renamed");
    counts(&device, &[("a", 4)]);
    rename("a/two", "b/two");
    rename("a/file", "b/file");
    counts(&device, &[("a", 3), ("b", 4), ("b/two", 3)]);
    // Over an empty directory, which is gone then.
    rename("a/renamed", "b/three");
    counts(&device, &[("a", 2), ("b", 4)]);
    // A directory for a file, and a directory for a directory.
    write(&device.at("a/plain"), b"");
    for other in ["b/two", "c"] {
        let (one, other) = (device.at("a/plain"), device.at(other));
        rfs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("exchanged");
    }
    counts(&device, &[("a", 3), ("b", 3), ("c", 3), ("", 5)]);
    fs::remove_dir(device.at("c/deep")).expect("removed");
    fs::remove_dir(device.at("a/plain")).expect("removed");
    let at_last = [("", 5), ("a", 2), ("b", 3), ("c", 2)];
    counts(&device, &at_last);
    File::open(device.m()).and_then(|root| root.sync_all()).expect("durable");
    device.crash();
    device.mount();
    counts(&device, &at_last);
    // One that is removed and open has no name.
    let open = File::open(device.at("c")).expect("opens");
    fs::remove_dir(device.at("c")).expect("removed");
    assert_eq!(open.metadata().expect("there").nlink(), 0);
    assert_eq!(links(&device.m()), 4);
    drop(open);
    device.remount();
    counts(&device, &[("", 4), ("a", 2), ("b", 3)]);
    device.umount();
}

#[test]
fn a_mounted_portal_takes_links_and_names_up_to_what_the_kernel_takes() {
    let device = Device::mounted();
    // One byte of 4,096 is the kernel's.
    let longest = "t".repeat(4095);
    symlink(&longest, device.at("longest")).expect("a link of 4,095 bytes");
    let long = symlink("t".repeat(4096), device.at("longer")).map_err(|e| e.raw_os_error());
    assert_eq!(long, Err(Some(Errno::NAMETOOLONG.raw_os_error())));
    let (name, longer) = ("n".repeat(255), "n".repeat(256));
    write(&device.at(&name), b"named");
    let refused = fs::write(device.at(longer), b"").map_err(|e| e.raw_os_error());
    assert_eq!(refused, Err(Some(Errno::NAMETOOLONG.raw_os_error())));
    for _ in 0..2 {
        let target = fs::read_link(device.at("longest")).expect("a link");
        assert_eq!(target, Path::new(&longest));
        assert_eq!(fs::symlink_metadata(device.at("longest")).expect("there").len(), 4095);
        assert_eq!(fs::read(device.at(&name)).expect("readable"), b"named");
        assert_eq!(fs::read_dir(device.m()).expect("listed").count(), 2);
        device.remount();
    }
    device.umount();
}

#[test]
fn a_file_in_a_mounted_portal_is_as_large_as_any_can_be() {
    let device = Device::mounted();
    let before = data_len(device.home());
    let path = device.at("largest");
    let file = File::create_new(&path).expect("created");
    // The last byte that a file can have, and none after it.
    file.write_all_at(b"$", LARGEST - 1).expect("written");
    assert_eq!(file.metadata().expect("there").len(), LARGEST);
    let code = |result: std::io::Result<usize>| result.map_err(|e| e.raw_os_error());
    let too_large = Err(Some(Errno::FBIG.raw_os_error()));
    let mut append = OpenOptions::new().append(true).open(&path).expect("opens");
    assert_eq!(code(append.write(b"x")), too_large);
    assert_eq!(code(file.write_at(b"x", LARGEST - 1)), Ok(1));
    let beyond = rfs::fallocate(&file, FallocateFlags::ZERO_RANGE, LARGEST - 1, 2);
    assert_eq!(beyond, Err(Errno::FBIG));
    drop(append);
    file.write_all_at(b"middle", LARGEST / 2).expect("written");
    file.sync_all().expect("durable");
    drop(file);
    device.remount();
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("opens");
    let mut last = [1; 4];
    file.read_exact_at(&mut last, LARGEST - 4).expect("read");
    assert_eq!(&last, b"\0\0\0x");
    let mut bytes = [1; 8];
    file.read_exact_at(&mut bytes, LARGEST / 2 - 1).expect("read");
    assert_eq!(&bytes, b"\0middle\0");
    let middle = rfs::seek(&file, SeekFrom::Data(5)).expect("data");
    assert!((LARGEST / 2 - 4096..=LARGEST / 2).contains(&middle), "{middle}");
    assert_eq!(rfs::seek(&file, SeekFrom::Hole(5)), Ok(5));
    let behind = rfs::seek(&file, SeekFrom::Hole(middle)).expect("a hole");
    assert!((LARGEST / 2 + 6..LARGEST / 2 + 8192).contains(&behind), "{behind}");
    assert!(rfs::seek(&file, SeekFrom::Data(behind)).expect("data") > LARGEST - 4096);
    assert_eq!(rfs::seek(&file, SeekFrom::Data(LARGEST)), Err(Errno::NXIO));
    // Cut and grown again, nothing of the end comes back.
    file.set_len(LARGEST / 2 + 3).expect("cut");
    file.set_len(LARGEST).expect("grown");
    file.read_exact_at(&mut bytes, LARGEST / 2 - 1).expect("read");
    assert_eq!(&bytes, b"\0mid\0\0\0\0");
    file.read_exact_at(&mut last, LARGEST - 4).expect("read");
    assert_eq!(last, [0; 4]);
    drop(file);
    device.remount();
    let meta = fs::metadata(&path).expect("there");
    assert_eq!(meta.len(), LARGEST);
    assert!(meta.blocks() <= 16, "{} blocks for three bytes", meta.blocks());
    let grown = data_len(device.home()).saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes on the disk for three");
    device.umount();
}

/// Each name of an inode shows what is done to another, at once.
#[test]
fn all_names_of_a_file_in_a_mounted_portal_show_its_count_and_its_change() {
    let device = Device::mounted();
    let names = ["one", "two", "dir/three"];
    mkdir(&device.at("dir"));
    write(&device.at("one"), b"content");
    write(&device.at("other"), b"another");
    names[1..].iter().for_each(|name| {
        fs::hard_link(device.at("one"), device.at(name)).expect("linked");
    });
    let open = File::open(device.at("one")).expect("opens");
    // Known to the kernel, which would keep them for ever.
    let look = |left: &[&str]| {
        let seen = left.iter().map(|name| fs::symlink_metadata(device.at(name)).expect("there"));
        let seen: Vec<_> = seen.chain([open.metadata().expect("open")]).collect();
        let all: Vec<_> = seen.iter().map(|m| (m.nlink(), m.ctime(), m.ctime_nsec())).collect();
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
        all[0]
    };
    let mut last = look(&names);
    let mut after = |what: &str, act: &dyn Fn(), left: &[&str], count: u64| {
        thread::sleep(Duration::from_millis(20));
        act();
        let now = look(left);
        assert_eq!(now.0, count, "{what}");
        assert!((now.1, now.2) > (last.1, last.2), "{what}");
        last = now;
    };
    assert_eq!(look(&names).0, 3);
    let chmod = || mode(&device.at("dir/three"), 0o640);
    after("a mode", &chmod, &names, 3);
    let replace = || fs::rename(device.at("other"), device.at("two")).expect("renamed");
    after("a rename over one", &replace, &["one", "dir/three"], 2);
    let link = || fs::hard_link(device.at("dir/three"), device.at("four")).expect("linked");
    after("a link more", &link, &["one", "dir/three", "four"], 3);
    let remove = || fs::remove_file(device.at("dir/three")).expect("removed");
    after("one removed", &remove, &["one", "four"], 2);
    drop(open);
    device.remount();
    for name in ["one", "four"] {
        let meta = fs::symlink_metadata(device.at(name)).expect("there");
        assert_eq!((meta.nlink(), meta.ctime(), meta.ctime_nsec()), last, "{name}");
    }
    device.umount();
}

/// Whoever makes something owns it, unless the directory passes its group on.
#[test]
fn what_is_made_in_a_mounted_portal_is_its_makers() {
    const MAKE: &str = "umask 022; mkdir d; echo x > f; ln -s x l; mkfifo q; ln f h; mkdir -p d/e
        touch d/e/g; cp f copied; mknod n p";
    let device = Device::with_portal();
    device.warp(["mount", "--allow-other", "p", "m"]).ok();
    for (name, bits) in [("plain", 0o777), ("shared", 0o2777)] {
        mkdir(&device.at(name));
        own(&device.at(name), 77, 4321);
        mode(&device.at(name), bits);
        let script = format!(
            "cd m/{name}; setpriv --reuid 1234 --regid 5678 --groups 5679 bash -euc '{MAKE}'"
        );
        bash(&device.path(""), &script).exits(0);
    }
    let made = ["d", "f", "l", "q", "h", "d/e", "d/e/g", "copied", "n"];
    for _ in 0..2 {
        for (dir, gid) in [("plain", 5678), ("shared", 4321)] {
            for name in made {
                let meta = fs::symlink_metadata(device.at(dir).join(name)).expect("made");
                assert_eq!((meta.uid(), meta.gid()), (1234, gid), "{dir}/{name}");
                let passes_on = meta.is_dir() && dir == "shared";
                assert_eq!(meta.mode() & 0o2000 != 0, passes_on, "{dir}/{name}");
            }
        }
        device.umount();
        device.warp(["mount", "--allow-other", "p", "m"]).ok();
    }
    // What is somebody's own, others get at as its modes say.
    let script = "cd m; chmod 700 plain/d; echo secret > plain/f; chmod 600 plain/f
        as() { setpriv --reuid $1 --regid 5678 --clear-groups \"${@:2}\"; }
        as 1234 cat plain/f; as 1234 ls plain/d
        ! as 1235 cat plain/f 2> ../said; ! as 1235 ls plain/d 2>> ../said
        ! as 1235 rm -f shared/../plain/d/e/g 2>> ../said
        ! as 1235 chmod 777 plain/copied 2>> ../said
        chmod 1777 plain; ! as 1235 rm -f plain/copied 2>> ../said
        cat ../said | wc -l";
    let said = bash(&device.path(""), script).exits(0).text();
    assert_eq!(said, "secret\ne\n5\n", "{}", must("cat", [device.path("said")]));
    device.umount();
}

/// A place in a listing that a program keeps means the same after others were
/// made and removed.
#[test]
fn a_place_in_a_directory_of_a_mounted_portal_stays_where_it_is() {
    const SCRIPT: &str = r#"
use strict; my ($dir) = @ARGV; my (@names, @places);
opendir(my $list, $dir) or die;
for (;;) { my $at = telldir $list; my $name = readdir $list; last unless defined $name;
    push @places, $at; push @names, $name; }
die scalar @names unless @names == 20_002;
for my $n (1..3000) { unlink "$dir/stays $n" or die; open(my $f, '>', "$dir/new $n") or die; }
for my $i (17, 19_000, 1, 10_001, 5_000) {
    seekdir $list, $places[$i];
    my $want; for my $j ($i..$#names) { if (-e "$dir/$names[$j]") { $want = $names[$j]; last; } }
    # What came or went meanwhile may be listed or not.
    my $found; do { $found = readdir $list }
        while defined $found && ($found =~ /^new/ || !-e "$dir/$found");
    die "$found, not $want" unless $found eq $want;
}
rewinddir $list; my %seen; $seen{$_}++ while defined($_ = readdir $list);
die scalar keys %seen unless keys %seen == 20_002 && !grep { $_ != 1 } values %seen;
"#;
    let device = Device::mounted();
    let dir = mkdir(&device.at("dir"));
    for n in 0..20_000 {
        File::create(dir.join(format!("stays {n}"))).expect("created");
    }
    must("perl", ["-e", SCRIPT].map(OsStr::new).into_iter().chain([dir.as_os_str()]));
    device.umount();
}

//! Snapshots and what is restored from them, as users have them.

use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use warp_tests::device::{Device, Running, bash, fails, python};
use warp_tests::must;
use warp_tests::nasty::{build, data_len, mkdir, noise, same_tree, write};

fn snapshot(device: &Device, name: &str) {
    device.types(&format!("snapshot create p {name}")).exits(0);
}

fn copy(from: &Path, to: &Path) {
    // To the nanosecond.
    let how = ["-aHAX", "--modify-window=-1"].map(OsStr::new);
    let places = [from.join(""), to.join("")];
    must("rsync", how.into_iter().chain(places.iter().map(|place| place.as_os_str())));
}

fn listed(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// All kinds of files, with all that they have, through every tool that copies.
#[test]
fn a_mount_shows_a_snapshot_as_it_was_and_tools_copy_out_of_it() {
    let device = Device::mounted();
    let source = mkdir(&device.path("source"));
    build(&source);
    let tree = device.at("tree");
    copy(&source, &tree);
    // Written, not synced: it is in the snapshot all the same.
    write(&device.at("late"), b"late");
    snapshot(&device, "s");
    bash(&device.m(), "rm -rf tree late; echo new > new").exits(0);
    let then = device.at(".snapshots/s");
    assert_eq!(listed(&device.m()), ["new"]);
    assert_eq!(listed(&then), ["late", "tree"]);
    same_tree(&source, &then.join("tree"));
    assert_eq!(fs::read(then.join("late")).unwrap(), b"late");
    bash(&device.m(), "cp -a .snapshots/s/tree back").exits(0);
    same_tree(&source, &device.at("back"));
    device.remount();
    same_tree(&source, &device.at(".snapshots/s/tree"));
    // What a walk of the mount does not find, no backup takes twice.
    let found = must("find", [device.m()]);
    assert!(!found.contains(".snapshots"), "{found}");
    device.umount();
}

/// Two contents of one file are two inodes: neither the kernel's pages nor its
/// attributes are mixed up, and what is live goes on changing.
#[test]
fn each_snapshot_in_a_mount_has_inodes_of_its_own() {
    let device = Device::mounted();
    let file = device.at("f");
    for n in 0..3_u8 {
        write(&file, &vec![n; 10_000 + usize::from(n)]);
        snapshot(&device, &format!("s{n}"));
    }
    write(&file, b"now");
    let of = |path: &str| fs::metadata(device.at(path)).unwrap().ino();
    let mut numbers: Vec<u64> =
        ["f", ".snapshots/s0/f", ".snapshots/s1/f", ".snapshots/s2/f"].map(of).into();
    for n in 0..3_u8 {
        let then = fs::read(device.at(format!(".snapshots/s{n}/f"))).unwrap();
        assert!(then == vec![n; 10_000 + usize::from(n)], "s{n}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"now");
    let before = numbers.clone();
    device.remount();
    let again = ["f", ".snapshots/s0/f", ".snapshots/s1/f", ".snapshots/s2/f"].map(of);
    assert_eq!(again.as_slice(), before, "other numbers after a remount");
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 4);
    device.umount();
}

/// Root may do anything to a file, but not here; and what a program does
/// through a shared map, of which the kernel asks nobody, is not kept.
#[test]
fn no_program_changes_a_snapshot_in_a_mount() {
    let device = Device::mounted();
    write(&device.at("f"), b"content");
    write(&device.at("big"), &noise(300_000, 1));
    mkdir(&device.at("d"));
    snapshot(&device, "s");
    let script = "import errno, mmap, os
def refused(act):
    try: act()
    except OSError as e: assert e.errno == errno.EROFS, e; return
    raise AssertionError('was not refused')
writable = os.open('f', os.O_RDWR)
for act in [
    lambda: os.write(writable, b'x'),
    lambda: os.pwrite(writable, b'x', 3),
    lambda: os.write(os.open('f', os.O_WRONLY | os.O_APPEND), b'x'),
    lambda: os.open('f', os.O_WRONLY | os.O_TRUNC),
    lambda: os.open('new', os.O_WRONLY | os.O_CREAT),
    lambda: os.truncate('f', 2), lambda: os.posix_fallocate(writable, 0, 99),
    lambda: os.mkdir('new'), lambda: os.rmdir('d'), lambda: os.unlink('f'),
    lambda: os.rename('f', 'g'), lambda: os.rename('f', '../../g'), lambda: os.rename('../../f', 'g'),
    lambda: os.symlink('f', 'g'), lambda: os.mkfifo('g'), lambda: os.link('f', 'g'),
    lambda: os.chmod('f', 0), lambda: os.chown('f', 1, 1), lambda: os.utime('f'),
    lambda: os.setxattr('f', 'user.x', b'x'), lambda: os.removexattr('f', 'user.x'),
    lambda: os.mkdir('../new'), lambda: os.rename('../s', '../t'), lambda: os.rmdir('../s'),
    lambda: os.rename('../../d', '../../.snapshots'),
]: refused(act)
try: os.link('f', '../../g'); raise AssertionError('linked')
except OSError as e: assert e.errno == errno.EXDEV, e
mapped = mmap.mmap(os.open('big', os.O_RDWR), 300000)
mapped[100000:100003] = b'BAD'
refused(mapped.flush)";
    python(&device.at(".snapshots/s"), script, &[]).exits(0);
    assert_eq!(fs::read(device.at(".snapshots/s/f")).unwrap(), b"content");
    assert!(fs::read(device.at(".snapshots/s/big")).unwrap() == noise(300_000, 1));
    assert_eq!(listed(&device.at(".snapshots/s")), ["big", "d", "f"]);
    assert_eq!(listed(&device.m()), ["big", "d", "f"]);
    // A file that runs is asked for its capabilities, too.
    bash(&device.m(), "cp /bin/true . && cp -a true run && ./run").exits(0);
    snapshot(&device, "t");
    bash(&device.m(), ".snapshots/t/run").exits(0);
    device.umount();
}

/// The kernel is not left with names of snapshots that came and went.
#[test]
fn snapshots_come_and_go_under_a_mount() {
    let device = Device::mounted();
    write(&device.at("f"), &noise(2 << 20, 1));
    let all = device.at(".snapshots");
    assert_eq!(listed(&all), [""; 0]);
    assert!(!all.join("a").exists());
    snapshot(&device, "a");
    assert!(all.join("a").exists() && all.join("a/f").exists());
    snapshot(&device, "b");
    assert_eq!(listed(&all), ["a", "b"]);
    fs::remove_file(device.at("f")).unwrap();
    let open = rustix::fs::open(all.join("a/f"), OFlags::RDONLY, Mode::empty()).unwrap();
    device.types("snapshot rm p a b").exits(0);
    assert_eq!(listed(&all), [""; 0]);
    assert_eq!(fs::metadata(all.join("a/f")).unwrap_err().raw_os_error(), Some(2));
    let mut bytes = vec![0; 2 << 20];
    assert_eq!(rustix::io::pread(&open, &mut bytes, 0), Ok(2 << 20));
    assert!(bytes == noise(2 << 20, 1), "an open file of it reads on");
    drop(open);
    device.umount();
    // Of a portal that is not mounted, too; then nothing has its room any more.
    device.types("snapshot create p c").exits(0);
    device.types("snapshot rm p c").exits(0);
    let left = data_len(device.home());
    assert!(left < 1 << 20, "{left} bytes are left");
}

#[test]
fn what_was_deleted_is_brought_back_into_the_mount() {
    let device = Device::mounted();
    let source = mkdir(&device.path("source"));
    bash(&source, "mkdir -p a/b && echo x > a/b/f && ln a/b/f a/g && ln -s g a/l && chmod 640 a/g
        truncate -s 1M a/hole && setfattr -n user.x -v y a && mkfifo a/p && touch -d 2001-02-03 a/b")
    .exits(0);
    let tree = mkdir(&device.at("sub")).join("tree");
    copy(&source, &tree);
    write(&device.at("sub/other"), b"then");
    snapshot(&device, "first");
    write(&device.at("sub/other"), b"now");
    snapshot(&device, "second");
    bash(&device.m(), "rm -rf sub/tree").exits(0);
    // Nothing is said to be there that is not asked for, and nothing changes.
    let m = device.m();
    let m = m.to_str().unwrap();
    let plan = device.types(&format!("restore -n {m}/sub/tree --json")).exits(0);
    let planned = device.json(&plan, "[d['dry_run'], d['snapshot'], d['not_restored']]");
    assert_eq!(planned, "[True, 'second', []]");
    assert!(!tree.exists());
    device.types(&format!("restore {m}/sub/tree")).exits(0);
    same_tree(&source, &tree);
    // What is there stays, unless it is said to go.
    let output = device.types(&format!("restore --at first {m}/sub/other")).exits(2);
    assert!(output.stderr.contains("warning: sub/other: exists already"), "{}", output.stderr);
    assert!(output.stderr.contains("`--overwrite` replaces"), "{}", output.stderr);
    assert_eq!(fs::read(device.at("sub/other")).unwrap(), b"now");
    device.types(&format!("restore --at first --overwrite {m}/sub/other")).exits(0);
    assert_eq!(fs::read(device.at("sub/other")).unwrap(), b"then");
    // To another place, by the portal's name, mounted or not; by a time.
    let out = device.path("out");
    let to = out.to_str().unwrap();
    device.types(&format!("restore p:/sub/tree -C {to}")).exits(0);
    same_tree(&source, &out.join("sub/tree"));
    assert_eq!(listed(&out.join("sub")), ["tree"]);
    device.umount();
    device.types(&format!("restore p --at 0s -C {to}/all")).exits(0);
    same_tree(&source, &out.join("all/sub/tree"));
    assert_eq!(fs::read(out.join("all/sub/other")).unwrap(), b"now");
    let times = |path: &Path| fs::metadata(path).unwrap().mtime_nsec();
    assert_eq!(times(&source), times(&out.join("all/sub/tree")));
}

#[test]
fn a_directory_of_a_portal_that_is_mounted_alone_is_restored_alone() {
    let device = Device::with_portal();
    device.mount().exits(0);
    bash(&device.m(), "mkdir -p a/b && echo x > a/b/f && echo y > outside").exits(0);
    snapshot(&device, "s");
    device.umount();
    let m = device.m();
    device.mount_at("p:/a", "m").exits(0);
    assert_eq!(listed(&m.join(".snapshots/s")), ["b"]);
    bash(&m, "rm -r b").exits(0);
    device.types(&format!("restore {}", m.to_str().unwrap())).exits(0);
    bash(&m, "rm b/f").exits(0);
    device.types(&format!("restore {}/b/f", m.to_str().unwrap())).exits(0);
    assert_eq!(fs::read(m.join("b/f")).unwrap(), b"x\n");
    assert_eq!(listed(&m), ["b"]);
    device.umount();
}

#[test]
fn what_cannot_be_restored_from_a_mount_is_refused() {
    let device = Device::mounted();
    write(&device.at("f"), b"x");
    let m = device.m();
    let m = m.to_str().unwrap();
    let rows = [
        ("restore p", 2, "where to restore", "-C DIR"),
        ("restore p -C out", 4, "no snapshot", "warp snapshot create p"),
        ("restore none -C out", 4, "no portal of that name", "warp portal"),
        ("restore ./x", 4, "not in a mounted portal", "warp status"),
        ("snapshot rm p none", 4, "none of that name", "warp snapshot ls"),
        ("snapshot create p .x", 2, "starts with neither", "another name"),
        ("snapshot create none", 4, "no portal of that name", "warp portal"),
    ];
    for (line, code, cause, hint) in rows {
        fails(device.types(line), code, cause, hint);
    }
    snapshot(&device, "s");
    let rows = [
        ("restore p --at t -C out".to_owned(), 4, "none of that name", "warp snapshot ls p"),
        ("restore p --at 9d -C out".to_owned(), 4, "made by 9d", "warp snapshot ls p"),
        ("restore p:/none -C out".to_owned(), 4, "none", ""),
        (format!("restore {m}/none"), 4, "none", ""),
        ("snapshot create p s".to_owned(), 2, "of that name already", "another name"),
    ];
    for (line, code, cause, hint) in rows {
        fails(device.types(&line), code, cause, hint);
    }
    assert!(!device.path("out").exists());
    device.umount();
}

/// The work ends when nobody waits for it; what was restored by then is whole.
#[test]
fn a_restore_of_a_mounted_portal_is_stopped_by_a_signal() {
    let device = Device::mounted();
    // So many that it takes longer than to hear of the signal.
    let files = 3000;
    for n in 0..files {
        write(&device.at(format!("f{n:04}")), &noise(40_000, n * 1000));
    }
    snapshot(&device, "s");
    let out = device.path("out");
    let mut restore = device.warp(["restore", "p", "-C", out.to_str().unwrap()]);
    let mut child = Running::start(restore.command());
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while !out.join("f0003").exists() {
        assert!(std::time::Instant::now() < until, "nothing was restored");
        std::thread::sleep(Duration::from_millis(2));
    }
    must("kill", ["-INT", &child.0.id().to_string()]);
    assert_eq!(child.ends(Duration::from_secs(10)), Some(130));
    std::thread::sleep(Duration::from_millis(500));
    let made = listed(&out).len();
    for name in listed(&out).iter().filter(|name| name.starts_with('f')) {
        let n: u64 = name[1..].parse().unwrap();
        assert!(fs::read(out.join(name)).unwrap() == noise(40_000, n * 1000), "{name}");
    }
    assert!(made < files as usize, "it was not stopped");
    device.types(&format!("restore p --overwrite -C {}", out.display())).exits(0);
    assert_eq!(listed(&out).len(), files as usize);
    device.umount();
}

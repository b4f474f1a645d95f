//! What docs/semantics.md says and no other file here tries: each test quotes
//! its sentence. The document names the file that proves each of the others.

use rustix::fs::{self as rfs, AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use warp_tests::device::{Device, Running, bash, python};
use warp_tests::must;
use warp_tests::nasty::{mkdir, mode, mtime, noise, own, write};

/// When a file was accessed, changed in content, and changed at all.
fn times(path: &Path) -> [(i64, i64); 3] {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let atime = (meta.atime(), meta.atime_nsec());
    [atime, (meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())]
}

/// Bytes and changes that the daemon knows of and has not published.
fn unpublished(device: &Device) -> (u64, u64) {
    let status = device.warp(["portal", "status", "p", "--json"]).ok();
    let number = |field: &str| {
        let text = device.json(&status, &format!("d['{field}']"));
        text.parse().unwrap_or_else(|e| panic!("{field} {text}: {e}"))
    };
    (number("unpublished_bytes"), number("unpublished_changes"))
}

/// "`atime` and `ctime` show the mtime: an archive keeps neither."
#[test]
fn a_mounted_archive_shows_its_mtimes_as_all_times() {
    let device = Device::without_key();
    let file = mkdir(&device.path("t")).join("f");
    write(&file, b"x");
    let (accessed, changed) = ((1_600_000_000, 5), (1_500_000_000, 123_456_789));
    let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    let set = Timestamps { last_access: time(accessed), last_modification: time(changed) };
    rfs::utimensat(CWD, &file, &set, AtFlags::empty()).expect("set");
    mtime(&device.path("t"), 1_400_000_000, 1);
    device.types("archive create t.warp t").exits(0);
    mkdir(&device.m());
    device.types("mount t.warp m").exits(0);
    assert_eq!(times(&device.at("t/f")), [changed; 3]);
    assert_eq!(times(&device.at("t")), [(1_400_000_000, 1); 3]);
    device.types("umount m").exits(0);
}

/// "Reading changes no access time: it is what a program has set, and until then
/// the mtime"
#[test]
fn reading_changes_no_access_time_of_a_mounted_portal() {
    let device = Device::mounted();
    let (file, dir) = (device.at("file"), mkdir(&device.at("dir")));
    write(&file, b"content");
    write(&dir.join("inside"), b"x");
    mtime(&file, 1_500_000_000, 7);
    device.remount();
    let read = || {
        assert_eq!(fs::read(&file).expect("readable"), b"content");
        assert_eq!(fs::read_dir(&dir).expect("listed").count(), 1);
    };
    let before = (times(&file), times(&dir));
    assert_eq!(before.1[0], before.1[1], "nobody has set it");
    std::thread::sleep(Duration::from_millis(20));
    read();
    assert_eq!((times(&file), times(&dir)), before);
    let accessed = Timespec { tv_sec: 1_234_567_890, tv_nsec: 987_654_321 };
    let omit = Timespec { tv_sec: 0, tv_nsec: rfs::UTIME_OMIT };
    let set = Timestamps { last_access: accessed, last_modification: omit };
    rfs::utimensat(CWD, &file, &set, AtFlags::empty()).expect("set");
    for _ in 0..2 {
        read();
        let shown = times(&file);
        assert_eq!(shown[..2], [(1_234_567_890, 987_654_321), (1_500_000_000, 7)]);
        device.remount();
    }
    // Writing neither.
    OpenOptions::new().write(true).open(&file).and_then(|f| f.write_all_at(b"C", 0)).expect("");
    device.remount();
    assert_eq!(times(&file)[0], (1_234_567_890, 987_654_321));
    assert!(times(&file)[1].0 > 1_500_000_000);
    device.umount();
}

/// "`O_TMPFILE` and `FICLONE` are refused (FUSE does not carry them), and
/// programs fall back"
#[test]
fn what_fuse_does_not_carry_is_refused_by_a_mounted_portal_and_programs_go_on() {
    let device = Device::mounted();
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let made = rfs::open(device.m(), flags, Mode::from_raw_mode(0o600));
    assert_eq!(made.err(), Some(Errno::OPNOTSUPP));
    let unnamed = "import tempfile
with tempfile.TemporaryFile(dir='.') as f:
    f.write(b'unnamed'); f.seek(0); assert f.read() == b'unnamed'";
    python(&device.m(), unnamed, &[]).exits(0);
    let content = noise(300_000, 1);
    write(&device.at("source"), &content);
    let (source, target) = (File::open(device.at("source")), File::create(device.at("target")));
    let cloned = rfs::ioctl_ficlone(target.expect("made"), source.expect("opens"));
    assert_eq!(cloned, Err(Errno::OPNOTSUPP));
    let always = bash(&device.m(), "cp --reflink=always source never");
    assert_eq!(always.code, 1, "{}", always.stderr);
    must("cp", [device.at("source"), device.at("copy")]);
    assert!(fs::read(device.at("copy")).expect("readable") == content);
    device.umount();
}

/// "What nobody syncs is durable about a second after the kernel has handed it
/// over: names and attributes at once, content when its file is closed"
#[test]
fn what_nobody_syncs_in_a_mounted_portal_is_durable_soon() {
    let device = Device::mounted();
    let content = noise(200_000, 1);
    write(&device.at("closed"), &content);
    mkdir(&device.at("dir"));
    fs::rename(device.at("closed"), device.at("dir/moved")).expect("renamed");
    mode(&device.at("dir/moved"), 0o604);
    own(&device.at("dir"), 77, 88);
    let handed_over = unpublished(&device);
    assert!(handed_over.0 >= 200_000 && handed_over.1 > 0, "{handed_over:?}");
    std::thread::sleep(Duration::from_secs(2));
    device.crash();
    device.mount();
    assert!(fs::read(device.at("dir/moved")).expect("there") == content);
    let (file, dir) = (fs::metadata(device.at("dir/moved")), fs::metadata(device.at("dir")));
    assert_eq!(file.expect("there").mode() & 0o7777, 0o604);
    assert_eq!(dir.map(|dir| (dir.uid(), dir.gid())).expect("there"), (77, 88));
    assert_eq!(fs::read_dir(device.m()).expect("listed").count(), 1);
    device.umount();
}

/// "Another process of this machine sees a write at once … `mount --bind`
/// gives more"
#[test]
fn a_mounted_portal_is_one_wherever_it_is_bound_to() {
    let device = Device::mounted();
    let bound = mkdir(&device.path("bound"));
    must("mount", ["--bind".as_ref(), device.m().as_os_str(), bound.as_os_str()]);
    let file = File::create(device.at("file")).expect("made");
    for part in 0..20_u64 {
        let bytes = noise(5_000, part);
        file.write_all_at(&bytes, part * 5_000).expect("written");
        write(&device.path("want"), &bytes);
        // Another process, through the other mount, while it is open here.
        let script = format!("tail -c +{} bound/file | cmp - want", part * 5_000 + 1);
        bash(&device.path(""), &script).exits(0);
    }
    drop(file);
    bash(&bound, "mv file moved; echo new > new").exits(0);
    assert_eq!(fs::metadata(device.at("moved")).expect("there").len(), 100_000);
    assert_eq!(fs::read(device.at("new")).expect("there"), b"new\n");
    must("umount", [bound.as_os_str()]);
    device.umount();
}

/// "`syncfs` and `sync` write dirty pages to the daemon"; that they wait for no
/// barrier is in `faults.rs`.
#[test]
fn syncfs_hands_over_what_the_kernel_keeps_of_a_mounted_portal() {
    let device = Device::mounted();
    // A process of its own: whoever starts another closes, in the child, what
    // it has open, and then the kernel keeps nothing.
    let write = "import os; fd = os.open('open', os.O_CREAT | os.O_RDWR)
os.write(fd, b'x' * 40_000); print('ready', flush=True); input()";
    let mut writer = ready(Command::new("python3").args(["-c", write]).current_dir(device.m()));
    let before = unpublished(&device).0;
    rfs::syncfs(File::open(device.m()).expect("opens")).expect("handed over");
    let after = unpublished(&device).0;
    assert_eq!((before, after), (0, 40_000));
    drop(writer.0.stdin.take());
    writer.ends(Duration::from_secs(10));
    device.umount();
}

/// A process that says that it is ready, and goes on.
#[track_caller]
fn ready(command: &mut Command) -> Running {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Running(command.spawn().expect("it runs"));
    let mut line = [0; 6];
    child.0.stdout.as_mut().expect("piped").read_exact(&mut line).expect("it begins");
    child
}

/// So many processes that rename, link and unlink until they are killed.
const RESTLESS: &str = "import os
for n in range(40):
    a, b = f'{n}.a', f'{n}.b'
    open(a, 'w').close()
    if os.fork() == 0:
        while True:
            os.rename(a, b); os.link(b, a); os.unlink(b)
print('ready', flush=True); os.wait()";

/// Kills many of them in the middle of something, and waits until all are gone.
#[track_caller]
fn kill_in_the_middle(device: &Device, round: usize) {
    // What is left of the last round would be in the way.
    let dir = mkdir(&device.at(format!("round {round}")));
    let mut command = Command::new("python3");
    let restless = ready(command.args(["-c", RESTLESS]).current_dir(dir).process_group(0));
    let daemon = device.daemon().to_string();
    // While the daemon stands still.
    must("kill", ["-STOP", &daemon]);
    let group = format!("-{}", restless.0.id());
    must("kill", ["-9", "--", &group]);
    must("kill", ["-CONT", &daemon]);
    drop(restless);
    let there = || {
        let mut kill = Command::new("kill");
        kill.args(["-0", "--", &group]).stderr(Stdio::null());
        kill.status().expect("kill runs").success()
    };
    let until = Instant::now() + Duration::from_secs(20);
    while there() {
        assert!(Instant::now() < until, "who is killed does not go");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// "A process that is killed in the middle of `rename`, `link` or `unlink`
/// counts as a failed write for the kernel, which tells the next `syncfs` …
/// (EINTR or EIO, once). `warp sync` and `warp umount` pass over that"
#[test]
fn the_kernel_tells_once_of_who_was_killed_in_a_rename_in_a_mounted_portal() {
    let device = Device::mounted();
    write(&device.at("kept"), b"kept");
    let syncfs = || rfs::syncfs(File::open(device.m()).expect("opens"));
    let until = Instant::now() + Duration::from_secs(120);
    let mut rounds = 0..;
    for round in rounds.by_ref() {
        assert!(Instant::now() < until, "nobody was ever told");
        kill_in_the_middle(&device, round);
        if let Err(told) = syncfs() {
            assert!([Errno::INTR, Errno::IO].contains(&told), "{told}");
            break;
        }
    }
    syncfs().expect("told once");
    // As many again, and more: in some of them there is something to tell.
    let so_far = rounds.start;
    for round in rounds.take(so_far.clamp(8, 16)) {
        kill_in_the_middle(&device, round);
        device.sync();
    }
    kill_in_the_middle(&device, usize::MAX);
    assert_eq!(fs::read(device.at("kept")).expect("readable"), b"kept");
    device.umount();
}

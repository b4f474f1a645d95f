//! Mounts, with the real binary and the real kernel: what is mounted is what
//! went in, it is usable when the command returns, and nothing stays behind.

use rustix::fs::SeekFrom;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use warp_tests::nasty::{
    self, BIG, SPARSE, SPARSE_LEN, all_acls, all_stats, all_xattrs, mkdir, mode, noise, own,
    same_tree, scratch, sums, tar_sum, write,
};
use warp_tests::{Output, Warp, must, run};

/// A mount must be usable after this.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// The process behind a mount must have ended this long after the unmount.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// A directory with an archive `a.warp` of tree `a` and a mountpoint `m`;
/// unmounted and removed at the end, however the test ends.
struct Place {
    dir: TempDir,
}

impl Place {
    /// With an archive of whatever `build` puts into `a`.
    #[track_caller]
    fn new(build: impl FnOnce(&Path)) -> Self {
        let place = Self { dir: scratch() };
        build(&mkdir(&place.tree()));
        mkdir(&place.mountpoint());
        Warp::new([OsStr::new("archive"), OsStr::new("create"), place.archive().as_os_str()])
            .words(["-C".as_ref(), place.dir.path().as_os_str(), "a".as_ref()])
            .ok();
        place
    }

    /// With a few small files and one of 5 MiB.
    #[track_caller]
    fn small() -> Self {
        Self::new(|tree| {
            write(&tree.join("hello"), b"hello, world\n");
            write(&tree.join("big"), &noise(5 << 20, 1));
            write(&mkdir(&tree.join("sub")).join("note"), b"a note\n");
        })
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("a")
    }

    fn archive(&self) -> PathBuf {
        self.dir.path().join("a.warp")
    }

    fn mountpoint(&self) -> PathBuf {
        self.dir.path().join("m")
    }

    /// Path of a file of the tree in the mount.
    fn mounted(&self, name: &str) -> PathBuf {
        self.mountpoint().join("a").join(name)
    }

    fn mount_command(&self) -> Warp {
        Warp::new([OsStr::new("mount"), self.archive().as_os_str(), self.mountpoint().as_os_str()])
    }

    #[track_caller]
    fn mount(&self) -> Output {
        let output = self.mount_command().ok();
        assert!(self.is_mounted(), "the command returned, and nothing is mounted");
        output
    }

    fn umount_command(&self) -> Warp {
        Warp::new([OsStr::new("umount"), self.mountpoint().as_os_str()])
    }

    #[track_caller]
    fn umount(&self) {
        self.umount_command().ok();
        self.is_gone();
    }

    /// The line of the mount table about the mountpoint.
    fn table_line(&self) -> Option<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
        let directory = format!(" {} ", self.mountpoint().display());
        table.lines().find(|line| line.contains(&directory)).map(str::to_owned)
    }

    fn is_mounted(&self) -> bool {
        self.table_line().is_some()
    }

    /// Processes that have the mountpoint in their command line.
    fn servers(&self) -> Vec<u32> {
        let wanted = self.mountpoint();
        let wanted = wanted.as_os_str().as_bytes();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if line.windows(wanted.len()).any(|window| window == wanted) {
                found.push(pid);
            }
        }
        found
    }

    /// Fails unless neither mount nor process is left.
    #[track_caller]
    fn is_gone(&self) {
        assert!(!self.is_mounted(), "still mounted: {:?}", self.table_line());
        let until = Instant::now() + GONE_WITHIN;
        while !self.servers().is_empty() {
            assert!(Instant::now() < until, "still running: {:?}", self.servers());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(fs::read_dir(self.mountpoint()).expect("a directory").count(), 0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while self.is_mounted() {
            let done = Command::new("umount").arg("-l").arg(self.mountpoint()).status();
            if !done.is_ok_and(|status| status.success()) {
                break;
            }
        }
        for pid in self.servers() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

/// [`Warp`], with a command line that grows.
trait Words {
    fn words<'a>(self, words: impl IntoIterator<Item = &'a OsStr>) -> Self;
}

impl Words for Warp {
    fn words<'a>(mut self, words: impl IntoIterator<Item = &'a OsStr>) -> Self {
        self.command().args(words);
        self
    }
}

/// Ends a process that a test started, however the test ends.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    fn signal(&self, signal: &str) {
        must("kill", [signal, &self.0.id().to_string()]);
    }

    /// Its exit code, which must come soon.
    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < until, "still running");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn same_content(a: &Path, b: &Path) {
    let same = fs::read(a).expect("readable") == fs::read(b).expect("readable");
    assert!(same, "{} and {} differ", a.display(), b.display());
}

#[test]
fn a_mounted_nasty_tree_is_the_tree() {
    let place = Place::new(nasty::build);
    let took = place.mount().took;
    assert!(took < READY_WITHIN, "{took:?}");
    let (tree, mounted) = (place.tree(), place.mountpoint().join("a"));
    same_tree(&tree, &mounted);
    assert_eq!(sums(&tree), sums(&mounted));
    assert_eq!(all_stats(&tree), all_stats(&mounted));
    assert_eq!(all_xattrs(&tree), all_xattrs(&mounted));
    assert_eq!(all_acls(&tree), all_acls(&mounted));
    place.umount();
}

#[test]
fn a_mounted_real_tree_is_the_tree() {
    let place = Place::new(nasty::real_copy);
    let took = place.mount().took;
    assert!(took < READY_WITHIN, "{took:?}");
    let (tree, mounted) = (place.tree(), place.mountpoint().join("a"));
    same_tree(&tree, &mounted);
    assert_eq!(sums(&tree), sums(&mounted));
    assert_eq!(all_stats(&tree), all_stats(&mounted));
    place.umount();
}

#[test]
fn a_mount_shows_directories_deeper_than_a_path() {
    let place = Place::new(nasty::deep);
    place.mount();
    assert_eq!(tar_sum(&place.tree()), tar_sum(&place.mountpoint().join("a")));
    place.umount();
}

#[test]
fn a_mounted_sparse_file_has_its_holes() {
    let place = Place::new(nasty::build);
    place.mount();
    let meta = fs::metadata(place.mounted(SPARSE)).expect("there");
    assert_eq!(meta.len(), SPARSE_LEN);
    let blocks = meta.blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks of 512 bytes for 105 KB of data");

    let opened = |name: &str| fs::File::open(place.mounted(name)).expect("opens");
    let file = opened(SPARSE);
    let seek = |from| rustix::fs::seek(&file, from);
    let hole = seek(SeekFrom::Hole(0)).expect("a hole after the first data");
    assert!((5000..=8192).contains(&hole), "{hole}");
    let middle = seek(SeekFrom::Data(hole)).expect("data in the middle");
    assert!(middle <= SPARSE_LEN / 2 && middle + 8192 > SPARSE_LEN / 2, "{middle}");
    let again = seek(SeekFrom::Hole(middle)).expect("a hole after it");
    assert!((SPARSE_LEN / 2 + 100_000..SPARSE_LEN - (1 << 20)).contains(&again), "{again}");
    let last = seek(SeekFrom::Data(again)).expect("data at the end");
    assert!(last > SPARSE_LEN - 8192 && last <= SPARSE_LEN - 100, "{last}");
    assert_eq!(seek(SeekFrom::Hole(last)), Ok(SPARSE_LEN));
    assert_eq!(seek(SeekFrom::Data(SPARSE_LEN)), Err(rustix::io::Errno::NXIO));

    // Nothing but a hole, and nothing but data.
    let first = |name, from| rustix::fs::seek(opened(name), from);
    assert_eq!(first("sparse/hole", SeekFrom::Data(0)), Err(rustix::io::Errno::NXIO));
    assert_eq!(first(BIG, SeekFrom::Hole(0)), Ok(5 << 20));

    // Read across the edge of a hole, and past the end.
    let here = fs::File::open(place.tree().join(SPARSE)).expect("opens");
    for at in [0, 4999, SPARSE_LEN / 2 - 5000, SPARSE_LEN / 2 + 99_000, SPARSE_LEN - 4000] {
        let read = |file: &fs::File| {
            let mut bytes = vec![0xaa; 10_000];
            let len = file.read_at(&mut bytes, at).expect("read");
            bytes.truncate(len);
            bytes
        };
        assert!(read(&here) == read(&file), "10,000 bytes at {at} differ");
    }
    drop(file);
    place.umount();
}

#[test]
fn a_mounted_hard_link_is_the_same_inode() {
    let place = Place::new(nasty::build);
    place.mount();
    let stat = |name: &str| fs::symlink_metadata(place.mounted(name)).expect("there");
    let one = stat("links/one");
    assert_eq!(one.nlink(), 4);
    for name in ["links/two", "links/below/three", "links/AAA"] {
        assert_eq!((stat(name).ino(), stat(name).nlink()), (one.ino(), 4), "{name}");
    }
    assert_eq!(stat("links/soft").ino(), stat("links/soft-too").ino());
    assert_eq!(stat("links/soft").nlink(), 2);
    // Nobody counted the directories in it.
    assert_eq!(stat("links").nlink(), 1);
    assert_ne!(stat("sizes/text-1").ino(), stat("sizes/noise-1").ino());
    place.umount();
}

#[test]
fn a_mount_says_what_it_is() {
    let place = Place::small();
    place.mount();
    let line = place.table_line().expect("mounted");
    let (left, right) = line.split_once(" - ").expect("a line of the mount table");
    let options: Vec<&str> = left.split(' ').nth(5).unwrap_or_default().split(',').collect();
    for option in ["ro", "nosuid", "nodev"] {
        assert!(options.contains(&option), "{option}: {line}");
    }
    assert!(right.starts_with("fuse.warp "), "{line}");
    assert!(right.contains(&*place.archive().to_string_lossy()), "{line}");

    let mountpoint = place.mountpoint();
    let df = |what: &str| -> u64 {
        let args = [OsStr::new("-B1"), OsStr::new(what), mountpoint.as_os_str()];
        let text = must("df", args);
        let number = text.lines().nth(1).unwrap_or_default().trim();
        number.parse().unwrap_or_else(|e| panic!("{number}: {e}"))
    };
    let size = df("--output=size");
    assert!((5 << 20..64 << 20).contains(&size), "{size}");
    assert_eq!(df("--output=avail"), 0);
    assert_eq!(df("--output=used"), size);
    assert!((5..100).contains(&df("--output=itotal")), "{}", df("--output=itotal"));
    place.umount();
}

#[test]
fn a_mount_refuses_every_change() {
    let place = Place::small();
    place.mount();
    let read_only = |what: &str, result: std::io::Result<()>| {
        let e = result.expect_err(what);
        assert_eq!(e.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{what}: {e}");
    };
    let hello = place.mounted("hello");
    read_only("write", fs::write(&hello, b"x"));
    read_only("append", fs::OpenOptions::new().append(true).open(&hello).map(drop));
    read_only("make", fs::write(place.mounted("new"), b"x"));
    read_only("mkdir", fs::create_dir(place.mounted("dir")));
    read_only("remove", fs::remove_file(&hello));
    read_only("rename", fs::rename(&hello, place.mounted("moved")));
    read_only("link", fs::hard_link(&hello, place.mounted("linked")));
    read_only("symlink", std::os::unix::fs::symlink("x", place.mounted("soft")));
    read_only(
        "mode",
        fs::set_permissions(&hello, fs::metadata(&place.dir).expect("").permissions()),
    );
    let set = rustix::fs::setxattr(&hello, "user.x", b"1", rustix::fs::XattrFlags::empty());
    read_only("attribute", set.map_err(Into::into));
    // And what is not there is not there, twice.
    for _ in 0..2 {
        for name in ["missing", "sub/missing", "missing/below"] {
            let e = fs::metadata(place.mounted(name)).expect_err(name);
            assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{name}: {e}");
        }
    }
    let e = fs::metadata(place.mounted(&"n".repeat(256))).expect_err("too long");
    assert_eq!(e.raw_os_error(), Some(rustix::io::Errno::NAMETOOLONG.raw_os_error()), "{e}");
    let e = fs::metadata(place.mounted("hello/below")).expect_err("not a directory");
    assert_eq!(e.kind(), std::io::ErrorKind::NotADirectory, "{e}");
    assert_eq!(fs::read(&hello).expect("readable"), b"hello, world\n");
    place.umount();
}

/// `warp mount -f`, once it has said that it is ready.
fn foreground(place: &Place) -> (Running, BufReader<std::process::ChildStdout>) {
    let mut warp = place.mount_command().words(["-f".as_ref()]);
    let mut running = Running::start(warp.command().stdout(Stdio::piped()));
    let mut out = BufReader::new(running.0.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert_eq!(line, format!("ready {}\n", place.mountpoint().display()));
    same_content(&place.tree().join("hello"), &place.mounted("hello"));
    (running, out)
}

#[test]
fn a_foreground_mount_says_ready_and_ends_with_the_mount() {
    let place = Place::small();
    for lazy in [false, true] {
        let (mut running, mut out) = foreground(&place);
        let mut args = vec![OsStr::new("umount")];
        args.extend(lazy.then_some(OsStr::new("--lazy")));
        Warp::new(args).words([place.mountpoint().as_os_str()]).ok();
        assert_eq!(running.ends(), Some(0));
        place.is_gone();
        let mut rest = String::new();
        out.read_to_string(&mut rest).expect("the end");
        assert_eq!(rest, "");
    }
}

#[test]
fn a_signal_to_a_foreground_mount_unmounts() {
    let place = Place::small();
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let (mut running, _out) = foreground(&place);
        running.signal(signal);
        assert_eq!(running.ends(), Some(code), "{signal}");
        place.is_gone();
    }
    // Even while it is in use.
    let (mut running, _out) = foreground(&place);
    let open = fs::File::open(place.mounted("hello")).expect("opens");
    running.signal("-TERM");
    let until = Instant::now() + GONE_WITHIN;
    while place.is_mounted() {
        assert!(Instant::now() < until, "still mounted");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(open);
    assert_eq!(running.ends(), Some(143));
    place.is_gone();
}

#[test]
fn every_way_to_unmount_a_mount_leaves_nothing_running() {
    let place = Place::small();
    let mountpoint = place.mountpoint();
    for program in [&["umount"][..], &["fusermount3", "-u"], &["umount", "-l"]] {
        place.mount();
        assert!(!place.servers().is_empty(), "a process serves the mount");
        let args = program[1..].iter().map(OsStr::new).chain([mountpoint.as_os_str()]);
        must(program[0], args);
        place.is_gone();
    }
    place.mount();
    // A relative path with a detour does as well, and so does the alias.
    let mut warp = Warp::new(["unmount", "../m"]);
    warp.command().current_dir(place.tree());
    warp.ok();
    // `warp umount` returns when nothing is left, not a moment before.
    assert_eq!(place.servers(), [0; 0]);
    place.is_gone();
}

#[test]
fn a_mount_in_use_is_busy_and_goes_lazily() {
    let place = Place::small();
    place.mount();
    let mut open = fs::File::open(place.mounted("big")).expect("opens");
    let refused = place.umount_command().run().exits(11);
    assert!(refused.stderr.starts_with("error: "), "{}", refused.stderr);
    assert!(refused.stderr.contains("\nhint: ") && refused.stderr.contains("--lazy"));
    assert!(place.is_mounted());
    place.umount_command().words(["--lazy".as_ref()]).ok();
    assert!(!place.is_mounted());
    // Who had it open can go on.
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).expect("readable");
    assert!(bytes == fs::read(place.tree().join("big")).expect("readable"));
    drop(open);
    place.is_gone();
}

#[test]
fn a_second_mount_on_a_mount_is_refused() {
    let place = Place::small();
    place.mount();
    for options in [&[][..], &["-o", "nonempty"], &["-f"]] {
        let again = place.mount_command().words(options.iter().map(OsStr::new)).run().exits(11);
        let first = format!("error: {}: ", place.mountpoint().display());
        assert!(again.stderr.starts_with(&first), "{}", again.stderr);
        assert!(again.stderr.contains("hint: warp umount "), "{}", again.stderr);
    }
    // The first is none the worse.
    same_content(&place.tree().join("hello"), &place.mounted("hello"));
    place.umount();
    let missing = place.umount_command().run().exits(4);
    assert!(missing.stderr.contains("hint: "), "{}", missing.stderr);
}

#[test]
fn a_dead_mount_is_recovered() {
    let place = Place::small();
    let die = || {
        place.mount();
        let servers = place.servers();
        assert_eq!(servers.len(), 1);
        must("kill", ["-9", &servers[0].to_string()]);
        let until = Instant::now() + GONE_WITHIN;
        while fs::metadata(place.mountpoint()).is_ok() {
            assert!(Instant::now() < until, "still answers");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    die();
    let says = Warp::new(["doctor"]).run().exits(1).text();
    assert!(says.contains("warp umount --lazy"), "{says}");
    // Mounted over.
    place.mount();
    same_content(&place.tree().join("big"), &place.mounted("big"));
    place.umount();
    // Unmounted.
    die();
    place.umount_command().ok();
    place.is_gone();
}

#[test]
fn a_sealed_archive_mounts_with_its_passphrase_only() {
    let place = Place::small();
    let dir = place.dir.path();
    let (right, wrong) = (dir.join("right"), dir.join("wrong"));
    write(&right, b"open sesame\nsecond line\n");
    write(&wrong, b"open barley\n");
    let given = |file: &Path| ["--passphrase-file".into(), file.as_os_str().to_owned()];
    let create = ["archive", "create", "--force", "--encrypt"].map(OsStr::new);
    Warp::new(create)
        .words(given(&right).iter().map(AsRef::as_ref))
        .words([place.archive().as_os_str(), "-C".as_ref(), dir.as_os_str(), "a".as_ref()])
        .ok();
    for flag in [None, Some(OsStr::new("-f"))] {
        let mount = || place.mount_command().words(flag);
        let refused = mount().words(given(&wrong).iter().map(AsRef::as_ref)).run().exits(7);
        assert!(refused.stderr.starts_with("error: "), "{}", refused.stderr);
        place.is_gone();
        mount().run().exits(7);
        mount().env("WARP_PASSPHRASE", "open barley").run().exits(7);
        place.is_gone();
    }
    place.mount_command().words(given(&right).iter().map(AsRef::as_ref)).ok();
    same_tree(&place.tree(), &place.mountpoint().join("a"));
    place.umount();
    place.mount_command().env("WARP_PASSPHRASE", "open sesame").ok();
    same_content(&place.tree().join("big"), &place.mounted("big"));
    // The passphrase is in no process's arguments or environment.
    for pid in place.servers() {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).expect("readable");
            assert!(!String::from_utf8_lossy(&bytes).contains("open sesame"), "{file}");
        }
    }
    place.umount();
}

const AS_NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups --";

/// Runs a script in a mount namespace of its own, with `$1` the test's
/// directory and `$warp` a binary that any user may run; `nobody` runs a
/// command without rights.
fn apart(place: &Place, script: &str) -> Output {
    let warp = place.dir.path().join("warp-for-everyone");
    if !warp.exists() {
        fs::copy(Warp::binary(), &warp).expect("copied");
        mode(&warp, 0o755);
    }
    own(&place.mountpoint(), 65534, 65534);
    mode(&place.archive(), 0o644);
    let prelude = format!(
        "set -u; cd \"$1\" || exit 99; warp=$1/warp-for-everyone; dev=$1/dev; mkdir $dev
        mount -t tmpfs -o mode=0755,dev tmpfs $dev || exit 99
        nobody() {{ {AS_NOBODY} \"$@\"; }}"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c"]);
    command.arg(format!("{prelude}\n{script}")).arg("bash").arg(place.dir.path());
    let output = run::run(command, Duration::from_secs(60));
    fs::remove_dir(place.dir.path().join("dev")).expect("the namespace is gone");
    output
}

/// What makes /dev/fuse open to everyone, as it is on most machines.
const OPEN_DEVICE: &str =
    "mknod -m 0666 $dev/fuse c 10 229 && mount --bind $dev/fuse /dev/fuse || exit 99";

#[test]
fn an_ordinary_user_mounts_through_fusermount() {
    let place = Place::small();
    own(&place.tree().join("hello"), 1000, 1000);
    let script = format!(
        "{OPEN_DEVICE}
        nobody $warp mount a.warp m || exit 1
        nobody cat m/a/hello || exit 2
        nobody stat -c '%u %g' m/a/hello m/a/sub || exit 3
        nobody sha256sum m/a/big || exit 4
        grep \" $1/m .*nosuid,nodev.* - fuse.warp \" /proc/self/mountinfo | wc -l || exit 5
        nobody $warp umount m || exit 6
        nobody $warp mount a.warp m || exit 7
        nobody fusermount3 -u m || exit 8
        # Its process still takes a mount away by that name, as the library has it.
        for _ in {{1..200}}; do pgrep -x warp-for-everyo >/dev/null || break; sleep 0.02; done
        nobody $warp mount a.warp m || exit 9
        {BUSY_AS_NOBODY} || exit 10
        nobody $warp umount --lazy m || exit 11
        {AS_NOBODY} $warp mount -f a.warp m > ready & server=$!
        for _ in {{1..200}}; do [ -s ready ] && break; sleep 0.01; done
        cat ready; kill $server; wait $server; echo $?"
    );
    write(&place.dir.path().join("ready"), b"");
    let output = apart(&place, &script).exits(0);
    let sum = must("sha256sum", [place.tree().join("big")]);
    let sum = sum.split(' ').next().unwrap_or_default();
    let want = format!(
        "hello, world\n65534 65534\n65534 65534\n{sum}  m/a/big\n1\nbusy 11\nready m\n143\n"
    );
    assert_eq!(output.text(), want, "{}", output.stderr);
    place.is_gone();
}

/// Root cannot enter a user's mount, so the user keeps it busy herself.
const BUSY_AS_NOBODY: &str =
    r#"nobody bash -c 'exec 3< m/a/hello; "$0" umount m; echo "busy $?"' $warp"#;

#[test]
fn a_user_without_the_device_cannot_mount_and_is_told_why() {
    let place = Place::small();
    let closed = "mknod -m 0600 $dev/fuse c 10 229 && mount --bind $dev/fuse /dev/fuse || exit 99
        nobody $warp mount a.warp m";
    let output = apart(&place, closed).exits(1);
    assert!(output.stderr.starts_with("error: /dev/fuse"), "{}", output.stderr);
    assert!(
        output.stderr.contains("\nhint: ") && output.stderr.contains("chmod"),
        "{}",
        output.stderr
    );
    let missing = "mknod -m 0666 $dev/null c 1 3 && mount --rbind $dev /dev || exit 99
        $warp mount a.warp m; first=$?; $warp doctor; echo $?; exit $first";
    let output = apart(&place, missing).exits(1);
    assert!(output.stderr.starts_with("error: /dev/fuse does not exist"), "{}", output.stderr);
    assert!(
        output.stderr.contains("\nhint: ") && output.stderr.contains("modprobe"),
        "{}",
        output.stderr
    );
    assert!(output.text().contains("BROKEN /dev/fuse") && output.text().ends_with("\n1\n"));
    place.is_gone();
}

#[test]
fn an_ordinary_user_cannot_open_a_mount_to_others_unless_allowed() {
    let place = Place::small();
    // As Debian ships /etc/fuse.conf: without user_allow_other.
    let script = format!(
        "{OPEN_DEVICE}
        : > $dev/fuse.conf; chmod 644 $dev/fuse.conf
        [ -e /etc/fuse.conf ] || : > /etc/fuse.conf
        mount --bind $dev/fuse.conf /etc/fuse.conf || exit 99
        nobody $warp mount --allow-other a.warp m; echo $?
        echo user_allow_other > $dev/fuse.conf
        nobody $warp mount --allow-other a.warp m || exit 1
        cat m/a/hello && nobody $warp umount m"
    );
    let output = apart(&place, &script).exits(0);
    assert_eq!(output.text(), "1\nhello, world\n", "{}", output.stderr);
    assert!(output.stderr.contains("hint: ") && output.stderr.contains("user_allow_other"));
    place.is_gone();
}

#[test]
fn a_mount_lets_others_in_only_if_told_to() {
    let place = Place::small();
    write(&place.tree().join("private"), b"root's");
    mode(&place.tree().join("private"), 0o600);
    let dir = place.dir.path();
    let create = ["archive", "create", "--force"].map(OsStr::new);
    Warp::new(create)
        .words([place.archive().as_os_str(), "-C".as_ref(), dir.as_os_str(), "a".as_ref()])
        .ok();
    let read_as_nobody = |name: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "cat"]);
        command.arg(place.mounted(name));
        run::run(command, Duration::from_secs(10))
    };
    place.mount();
    assert_ne!(read_as_nobody("hello").code, 0);
    place.umount();
    place.mount_command().words(["--allow-other".as_ref()]).ok();
    assert_eq!(read_as_nobody("hello").exits(0).text(), "hello, world\n");
    // As the files' modes allow, and no more.
    assert_ne!(read_as_nobody("private").code, 0);
    place.umount();
}

#[test]
fn a_mount_serves_four_readers_at_once() {
    let place = Place::new(|tree| {
        for n in 0..4 {
            write(&tree.join(format!("file {n}")), &noise(16 << 20, n));
        }
    });
    place.mount();
    let mut readers: Vec<Running> = (0..4)
        .map(|n| {
            let mut cat = Command::new("cmp");
            Running::start(
                cat.arg(place.tree().join(format!("file {n}")))
                    .arg(place.mounted(&format!("file {n}"))),
            )
        })
        .collect();
    for reader in &mut readers {
        assert_eq!(reader.ends(), Some(0));
    }
    // The same file, from four places, without the kernel's pages of it.
    fs::write("/proc/sys/vm/drop_caches", "3").expect("root drops caches");
    let want = fs::read(place.tree().join("file 0")).expect("readable");
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (want, path) = (&want, place.mounted("file 0"));
            scope.spawn(move || {
                let file = fs::File::open(path).expect("opens");
                let mut bytes = vec![0; 100_000];
                for step in 0..100 {
                    let at = (step * 1_234_567 + n * 4_000_000) % (want.len() - bytes.len());
                    file.read_exact_at(&mut bytes, at as u64).expect("read");
                    assert!(bytes == want[at..at + bytes.len()], "100,000 bytes at {at} differ");
                }
            });
        }
    });
    place.umount();
}

#[test]
fn a_mount_outlives_readers_that_are_killed() {
    let place = Place::new(nasty::build);
    place.mount();
    for after_ms in [0, 1, 3, 10, 30] {
        fs::write("/proc/sys/vm/drop_caches", "3").expect("root drops caches");
        let mut find = Command::new("bash");
        find.arg("-c").arg("while :; do cat \"$0\"/sizes/* \"$0\"/sparse/*; find \"$0\"; done");
        find.arg(place.mountpoint().join("a")).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own, so that what it starts dies with it.
        std::os::unix::process::CommandExt::process_group(&mut find, 0);
        let running = Running::start(&mut find);
        std::thread::sleep(Duration::from_millis(after_ms));
        must("kill", ["-9", "--", &format!("-{}", running.0.id())]);
        drop(running);
    }
    same_content(&place.tree().join(BIG), &place.mounted(BIG));
    assert_eq!(sums(&place.tree()), sums(&place.mountpoint().join("a")));
    place.umount();
}

#[test]
fn a_mount_is_made_by_relative_paths_too() {
    let place = Place::small();
    let mut warp = Warp::new(["archive", "mount", "../a.warp", "../m"]);
    warp.command().current_dir(place.tree());
    let output = warp.ok();
    assert!(output.took < READY_WITHIN, "{:?}", output.took);
    assert_eq!(output.text(), "");
    same_content(&place.tree().join("hello"), &place.mounted("hello"));
    // It holds neither the directory that it was started in nor the archive's.
    for pid in place.servers() {
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).expect("there"), Path::new("/"));
    }
    // The archive may be renamed or replaced meanwhile: the mount keeps its own.
    fs::remove_file(place.archive()).expect("removed");
    same_content(&place.tree().join("big"), &place.mounted("big"));
    place.umount();
}

/// The process of the first mount may end late: it takes away its own, and not
/// what is mounted in its place by then.
#[test]
fn a_mount_in_place_of_one_that_has_just_gone_stays() {
    let place = Place::small();
    place.mount();
    for round in 0..30 {
        must("fusermount3", ["-u".as_ref(), place.mountpoint().as_os_str()]);
        place.mount();
        std::thread::sleep(Duration::from_millis(20));
        assert!(place.mounted("hello").exists(), "round {round}");
    }
    place.umount();
}

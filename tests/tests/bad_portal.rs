//! What is typed wrongly, missing, damaged, full or in the way of a portal: one
//! line says why, one says what to do, and the exit code is the documented
//! one. A daemon that has died, and what it left behind, is in nobody's way.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use warp_tests::device::{Device, Running, Words, fails};
use warp_tests::nasty::{mkdir, mode, noise, own, write};
use warp_tests::{Output, Warp, must, run};

/// The file or directory whose name starts so, below the only portal's state.
fn state(device: &Device, start: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![device.home().join("portals")];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else if path
                .file_name()
                .is_some_and(|n| n.as_encoded_bytes().starts_with(start.as_bytes()))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Puts the home on a tmpfs of its own, or changes how it is mounted.
#[track_caller]
fn mount_home(device: &Device, options: &str) {
    let words = ["-t", "tmpfs", "-o", options, "tmpfs"].map(OsStr::new);
    must("mount", words.into_iter().chain([device.home().as_os_str()]));
}

/// Writes a file and makes it durable.
#[track_caller]
fn write_durably(path: &Path, bytes: &[u8]) {
    write(path, bytes);
    File::open(path).and_then(|file| file.sync_all()).expect("durable");
}

#[track_caller]
fn holds(path: &Path, want: &[u8]) {
    let found = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(found == want, "{}: {} bytes", path.display(), found.len());
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("readable");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

#[test]
fn an_unknown_portal_is_not_found_and_the_nearest_is_named() {
    let device = Device::new();
    device.create("photos");
    mkdir(&device.m());
    for line in
        ["mount photo m", "portal status photo", "portal leave --yes photo", "mount photo:/x m"]
    {
        fails(device.types(line), 4, "photo", "photos");
    }
    fails(device.types("mount something m"), 4, "something", "");
    fails(device.types("portal status something"), 4, "something", "");
    // Without a key there is no portal either.
    let empty = Device::without_key();
    mkdir(&empty.m());
    for line in ["mount photos m", "portal status photos", "portal leave --yes photos"] {
        fails(empty.types(line), 4, "photos", "warp portal create");
    }
    assert!(!empty.home().join("keyring").exists());
}

#[test]
fn a_portal_needs_a_key_and_says_how_to_get_one() {
    let device = Device::without_key();
    // Nobody is there to be shown 24 words.
    fails(device.types("portal create p"), 2, "key", "warp key init");
    assert!(!device.home().join("keyring").exists());
    assert!(!device.home().join("portals").exists());
    device.make_key();
    device.create("p");
}

#[test]
fn a_portal_needs_a_name_that_is_free_and_is_one() {
    let device = Device::new();
    device.create("photos");
    fails(device.types("portal create photos"), 2, "photos", "");
    let long = "n".repeat(300);
    for bad in ["", "a/b", "a:b", ".", "..", "a b", "a\nb", "\x1b[2J", "x.warp", "--", "-x", &long]
    {
        let output = device.warp(["portal", "create", "--", bad]).run();
        fails(output, 2, "", "");
    }
    let ls = device.types("portal ls --json").exits(0);
    assert_eq!(device.json(&ls, "[p['name'] for p in d['portals']]"), "['photos']");
    for good in ["Familie-2.0", "ü", "a", &"n".repeat(64)] {
        device.create(good);
    }
}

#[test]
fn a_portal_mount_needs_an_empty_directory() {
    let device = Device::with_portal();
    write(&device.path("file"), b"x");
    write(&mkdir(&device.path("full")).join("inside"), b"x");
    fails(device.types("mount p missing"), 4, "missing", "mkdir");
    fails(device.types("mount p file"), 2, "file", "directory");
    fails(device.types("mount p full"), 2, "not empty", "nonempty");
    fails(device.types("mount -f p missing"), 4, "missing", "mkdir");
    fails(device.types("mount -o bogus p m"), 2, "bogus", "nonempty");
    fails(device.types("mount p:/none m"), 4, "none", "");
    fails(device.types("umount m"), 4, "m", "");
    assert!(!device.is_mounted("m"));
    // Over files if told to; they are back afterwards.
    device.types("mount -o nonempty p full").exits(0);
    assert!(!device.path("full/inside").exists());
    device.types("umount full").exits(0);
    assert!(device.path("full/inside").exists());
}

#[test]
fn a_part_of_a_portal_that_is_no_directory_is_not_mounted() {
    let device = Device::mounted();
    write(&device.at("file"), b"x");
    device.umount();
    fails(device.types("mount p:/file m"), 2, "file", "");
    // A path that leads nowhere, or out, is not there or makes no sense.
    for line in ["mount p:/file/below m", "mount p:/../p m", "mount p:/.. m"] {
        let output = device.types(line);
        let code = if output.code == 2 { 2 } else { 4 };
        fails(output, code, "p:/", "");
    }
    assert!(!device.is_mounted("m"));
}

#[test]
fn a_portal_is_mounted_once_and_a_mountpoint_is_used_once() {
    let device = Device::mounted();
    device.create("q");
    mkdir(&device.path("n"));
    write(&device.at("file"), b"x");
    fails(device.types("mount p n"), 11, "p", "");
    fails(device.types("mount p m"), 11, "m", "");
    fails(device.types("mount q m"), 11, "m", "warp umount");
    fails(device.types("mount -o nonempty q m"), 11, "m", "warp umount");
    fails(device.types("portal leave --yes p"), 11, "p", "warp umount");
    // In use, it stays; and the first mount is none the worse for all that.
    let open = File::open(device.at("file")).expect("opens");
    fails(device.types("umount m"), 11, "m", "--lazy");
    holds(&device.at("file"), b"x");
    device.types("umount --lazy m").exits(0);
    assert!(!device.is_mounted("m"));
    drop(open);
    device.until_gone();
    device.mount();
    holds(&device.at("file"), b"x");
    device.umount();
}

#[test]
fn only_a_portal_mount_is_synced() {
    let device = Device::with_portal();
    mkdir(&device.path("tree"));
    Warp::new(["archive", "create"]).word(device.path("a.warp")).word(device.path("tree")).ok();
    fails(device.types("sync m"), 4, "m", "");
    fails(device.types("sync missing"), 4, "missing", "");
    fails(device.types("status m"), 4, "m", "");
    device.types("mount a.warp m").exits(0);
    fails(device.types("sync m"), 4, "m", "");
    fails(device.types("sync m/tree"), 4, "m", "");
    device.types("umount m").exits(0);
    device.mount();
    // Anything in the mount stands for it.
    mkdir(&device.at("dir/below"));
    for line in ["sync m", "sync m/dir", "sync m/dir/below", "status m/dir"] {
        device.types(line).exits(0);
    }
    fails(device.types("sync m/none"), 4, "m/none", "");
    device.umount();
}

#[test]
fn a_portal_is_left_only_on_purpose_and_never_while_mounted() {
    let device = Device::mounted();
    write(&device.at("file"), &noise(1 << 20, 1));
    device.umount();
    fails(device.types("portal leave p"), 2, "p", "--yes");
    device.mount();
    fails(device.types("portal leave --yes p"), 11, "p", "umount");
    device.umount();
    device.create("q");
    device.types("portal leave --yes --keep-data p").exits(0);
    fails(device.types("mount p m"), 4, "p", "");
    let kept = |device: &Device| warp_tests::nasty::data_len(device.home());
    assert!(kept(&device) > 1 << 20, "{} bytes are kept", kept(&device));
    // Its name is free, and the other portal is untouched.
    device.create("p");
    device.mount();
    assert_eq!(fs::read_dir(device.m()).expect("usable").count(), 0);
    write(&device.at("second"), &noise(8 << 20, 2));
    device.umount();
    assert!(kept(&device) > 9 << 20, "{} bytes are kept", kept(&device));
    device.types("portal leave --yes p").exits(0);
    assert!(kept(&device) < 3 << 20, "{} bytes are left", kept(&device));
    let ls = device.types("portal ls --json").exits(0);
    assert_eq!(device.json(&ls, "[p['name'] for p in d['portals']]"), "['q']");
}

/// A script in a mount namespace of its own, as a user without rights, with
/// `$warp` the binary and `m` a mountpoint; `device` says what `/dev/fuse` is.
fn as_nobody(device: &Device, fuse: &str, script: &str) -> Output {
    let warp = device.path("warp");
    if !warp.exists() {
        fs::copy(Warp::binary(), &warp).expect("copied");
        mode(&warp, 0o755);
        own(&device.path(""), 65534, 65534);
        own(&mkdir(&device.m()), 65534, 65534);
        mkdir(&device.path("dev"));
    }
    let script = format!(
        "set -eu; cd \"$1\"; mount -t tmpfs -o mode=0755,dev tmpfs dev; {fuse}
        exec setpriv --reuid 65534 --regid 65534 --clear-groups -- bash -uc '{script}'"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", &script, "bash"]);
    command.arg(device.path("")).env("WARP_HOME", device.home());
    command.env("WARP_LISTEN", "127.0.0.1:0").env("WARP_MDNS", "off");
    run::run(command, Duration::from_secs(60))
}

#[test]
fn a_portal_mount_without_the_fuse_device_says_what_to_do() {
    let device = Device::without_key();
    let closed = "mknod -m 0600 dev/fuse c 10 229; mount --bind dev/fuse /dev/fuse";
    let make = "./warp -q key init --phrase-file phrase 2>&1 && ./warp -q portal create p";
    as_nobody(&device, closed, make).exits(0);
    device.until_gone();
    fails(as_nobody(&device, closed, "./warp mount p m"), 1, "/dev/fuse", "chmod");
    fails(as_nobody(&device, closed, "./warp mount -f p m"), 1, "/dev/fuse", "chmod");
    // The daemon that could not mount does not wait for better times.
    device.until_gone();
    let missing = "mknod -m 0666 dev/null c 1 3; mount --rbind dev /dev";
    fails(as_nobody(&device, missing, "./warp mount p m"), 1, "/dev/fuse", "modprobe");
    device.until_gone();
    let open = "mknod -m 0666 dev/fuse c 10 229; mount --bind dev/fuse /dev/fuse";
    let works = "./warp mount p m && echo x > m/x && cat m/x && ./warp umount m";
    assert_eq!(as_nobody(&device, open, works).exits(0).text(), "x\n");
}

#[test]
fn a_damaged_keyring_lets_no_portal_mount_and_says_so() {
    let device = Device::with_portal();
    let path = device.home().join("keyring");
    let whole = fs::read(&path).expect("readable");
    for at in [0, 20, whole.len() / 2, whole.len() - 1] {
        device.until_gone();
        flip(&path, at);
        for line in ["mount p m", "portal ls", "portal create q", "portal status p"] {
            fails(device.types(line), 6, "keyring", "");
        }
        fails(device.types("portal leave --yes p"), 6, "keyring", "");
        write(&path, &whole);
    }
    device.until_gone();
    write(&path, &whole[..whole.len() / 2]);
    fails(device.types("mount p m"), 6, "keyring", "");
    assert!(!device.is_mounted("m"));
    device.until_gone();
    write(&path, &whole);
    device.mount();
    device.umount();
}

#[test]
fn a_portal_of_a_sealed_keyring_is_mounted_with_its_passphrase_only() {
    let device = Device::without_key();
    write(&device.path("right"), b"open sesame\n");
    write(&device.path("wrong"), b"open barley\n");
    mkdir(&device.m());
    let types = |line: &str, file: &str| device.types(&format!("{line} --passphrase-file {file}"));
    types("key init --phrase-file phrase", "right").exits(0);
    fails(types("portal create p", "wrong"), 7, "passphrase", "passphrase");
    fails(device.types("portal create p"), 7, "passphrase", "--passphrase-file");
    types("portal create p", "right").exits(0);
    device.until_gone();
    for (output, hint) in [
        (types("mount p m", "wrong"), "passphrase"),
        (device.types("mount p m"), "--passphrase-file"),
        (device.warp(["mount", "p", "m"]).env("WARP_PASSPHRASE", "barley").run(), "passphrase"),
        (types("mount -f p m", "wrong"), "passphrase"),
        (types("portal ls", "wrong"), "passphrase"),
    ] {
        fails(output, 7, "", hint);
        assert!(!device.is_mounted("m"));
    }
    fails(types("mount p m", "missing"), 4, "missing", "");
    device.warp(["mount", "p", "m"]).env("WARP_PASSPHRASE", "open sesame").ok();
    write_durably(&device.at("file"), b"x");
    // The open daemon needs no passphrase for what it serves.
    for line in ["sync m", "status --json", "umount m"] {
        device.types(line).exits(0);
    }
    device.until_gone();
    // The next one does, and after a crash, too.
    fails(device.types("mount p m"), 7, "", "--passphrase-file");
    types("mount p m", "right").exits(0);
    device.crash();
    fails(types("mount p m", "wrong"), 7, "", "passphrase");
    types("mount p m", "right").exits(0);
    holds(&device.at("file"), b"x");
    device.umount();
}

#[test]
fn a_damaged_portal_record_keeps_no_other_portal_from_its_mount() {
    let device = Device::with_portal();
    device.mount();
    write(&device.at("file"), b"in p");
    device.umount();
    let before = state(&device, "portal");
    device.create("q");
    let record = state(&device, "portal").into_iter().find(|path| !before.contains(path));
    let record = record.expect("a new portal has a record of its own");
    let whole = fs::read(&record).expect("readable");
    device.until_gone();
    for at in [0, whole.len() / 2, whole.len() - 1] {
        flip(&record, at);
        for line in ["mount q m", "portal status q", "portal leave --yes q"] {
            fails(device.types(line), 6, "portal", "");
        }
        device.types("portal ls").exits(0);
        device.mount();
        holds(&device.at("file"), b"in p");
        device.umount();
        write(&record, &whole);
    }
    write(&record, b"");
    fails(device.types("mount q m"), 6, "portal", "");
    write(&record, &whole);
    device.mount_at("q", "m");
    device.umount();
}

#[test]
fn damaged_packs_of_a_portal_mount_give_an_error_and_no_other_bytes() {
    let device = Device::mounted();
    let content = noise(2 << 20, 1);
    write(&device.at("file"), &content);
    device.umount();
    let packs: Vec<_> = state(&device, "")
        .into_iter()
        .filter(|p| p.extension() == Some(OsStr::new("pack")))
        .collect();
    assert!(!packs.is_empty(), "{:?}", state(&device, ""));
    let pack =
        packs.iter().max_by_key(|path| fs::metadata(path).expect("there").len()).expect("one");
    let len = fs::metadata(pack).expect("there").len() as usize;
    assert!(len > content.len(), "{len}");
    flip(pack, len / 2);
    let output = device.types("mount p m");
    if output.code == 0 {
        let e = fs::read(device.at("file")).expect_err("a part of it is damaged");
        assert_eq!(e.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{e}");
        device.umount();
    } else {
        fails(output, 6, "", "");
    }
}

#[test]
fn every_command_works_after_the_daemon_of_a_portal_mount_was_killed() {
    let device = Device::with_portal();
    device.create("q");
    mkdir(&device.path("n"));
    let dies = || {
        device.mount();
        write_durably(&device.at("file"), b"x");
        device.crash();
        assert!(device.is_mounted("m"), "the dead mount is still in the table");
        let socket = fs::symlink_metadata(device.home().join("run/edge.sock")).expect("stale");
        assert!(socket.file_type().is_socket());
    };
    for line in [
        "status",
        "status --json",
        "portal ls",
        "portal ls --json",
        "portal status p",
        "info",
        "portal create r",
        "mount q n",
        "umount m",
        "mount p m",
        "down",
        "up",
        "portal status q",
    ] {
        dies();
        device.types(line).exits(0);
        for clear in ["umount n", "umount m", "down"] {
            // What is there, dead or alive, goes; what is not is no matter.
            let cleared = device.types(clear);
            assert!([0, 4].contains(&cleared.code), "{line}, {clear}: {}", cleared.stderr);
        }
        device.until_gone();
        assert!(!device.is_mounted("m") && !device.is_mounted("n"), "{line}");
    }
    dies();
    // There is nothing to sync, and it says so at once.
    let sync = device.warp(["sync", "m"]).within(Duration::from_secs(5)).run();
    assert_ne!(sync.code, 0);
    assert!(
        sync.stderr.starts_with("error: ") && sync.stderr.contains("\nhint: "),
        "{}",
        sync.stderr
    );
    assert_eq!(device.types("doctor").code, 1);
    device.mount();
    holds(&device.at("file"), b"x");
    device.umount();
}

#[test]
fn what_lies_in_place_of_the_socket_is_in_no_portal_mounts_way() {
    let device = Device::with_portal();
    device.until_gone();
    let socket = mkdir(&device.home().join("run")).join("edge.sock");
    let lock = device.home().join("run/edge.lock");
    let works = || {
        device.mount();
        write(&device.at("file"), b"x");
        device.types("status --json").exits(0);
        device.umount();
    };
    // A regular file.
    let _ = fs::remove_file(&socket);
    write(&socket, b"garbage");
    device.types("status --json").exits(0);
    works();
    // A socket that nobody listens at.
    let _ = fs::remove_file(&socket);
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    device.types("status --json").exits(0);
    works();
    // A link that leads nowhere.
    let _ = fs::remove_file(&socket);
    std::os::unix::fs::symlink("nowhere", &socket).expect("symlink");
    works();
    // A lock that nobody holds, with something in it; and none at all.
    write(&lock, b"999999999\n");
    works();
    let _ = fs::remove_file(&lock);
    works();
    fs::remove_dir_all(device.home().join("run")).expect("removed");
    works();
    fs::remove_dir_all(device.home().join("log")).expect("removed");
    works();
}

#[test]
fn two_portals_are_mounted_at_the_same_moment() {
    let device = Device::with_portal();
    device.create("q");
    mkdir(&device.path("n"));
    for round in 0..5 {
        device.until_gone();
        let start = |portal: &str, directory: &str| {
            let mut warp = device.warp(["mount", portal, directory]);
            Running::start(warp.command().stdout(Stdio::null()))
        };
        let mut both = [start("p", "m"), start("q", "n")];
        for running in &mut both {
            assert_eq!(running.ends(Duration::from_secs(20)), Some(0), "round {round}");
        }
        device.daemon();
        write(&device.at("file"), b"in p");
        write(&device.path("n/file"), b"in q");
        // And unmounted at the same moment.
        let start = |directory: &str| {
            let mut warp = device.warp(["umount", directory]);
            Running::start(warp.command().stdout(Stdio::null()))
        };
        let mut both = [start("m"), start("n")];
        for running in &mut both {
            assert_eq!(running.ends(Duration::from_secs(20)), Some(0), "round {round}");
        }
    }
    device.mount();
    holds(&device.at("file"), b"in p");
    device.umount();
    // The same portal twice: one of them is told.
    let start = |directory: &str| {
        let mut warp = device.warp(["mount", "p", directory]);
        Running::start(warp.command().stdout(Stdio::null()).stderr(Stdio::null()))
    };
    let mut both = [start("m"), start("n")];
    let mut codes: Vec<_> = both.iter_mut().map(|r| r.ends(Duration::from_secs(20))).collect();
    codes.sort();
    assert_eq!(codes, [Some(0), Some(11)]);
    device.types(if device.is_mounted("m") { "umount m" } else { "umount n" }).exits(0);
    device.until_gone();
}

#[test]
fn the_daemon_of_portal_mounts_stays_from_up_to_down() {
    let device = Device::with_portal();
    device.until_gone();
    device.types("down").exits(0);
    assert_eq!(device.daemons(), [0; 0], "nothing is started to be ended");
    device.types("up").exits(0);
    let daemon = device.daemon();
    device.types("up").exits(0);
    device.mount();
    device.types("umount m").exits(0);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(device.daemon(), daemon, "it stays");
    let status = device.types("status --json").exits(0);
    assert_eq!(device.json(&status, "d['daemon']['running'], d['daemon']['stays']"), "True True");
    device.types("down").exits(0);
    assert_eq!(device.daemons(), [0; 0]);
    // It takes the mounts along, and what was written with them.
    device.mount();
    let content = noise(1 << 20, 1);
    write(&device.at("file"), &content);
    device.types("down").exits(0);
    assert_eq!((device.daemons().len(), device.is_mounted("m")), (0, false));
    device.mount();
    holds(&device.at("file"), &content);
    device.umount();
}

#[test]
fn status_of_portals_needs_no_daemon_and_starts_none() {
    let device = Device::with_portal();
    device.until_gone();
    let status = device.types("status --json").exits(0);
    assert_eq!(device.json(&status, "d['daemon']['running'], d['mounts']"), "False []");
    assert_eq!(device.json(&status, "[p['name'] for p in d['portals']]"), "['p']");
    assert!(device.types("status").exits(0).text().contains("not running"));
    assert_eq!(device.daemons(), [0; 0]);
    // With nothing at all there, it is still an answer.
    let empty = Device::without_key();
    let status = empty.types("status --json").exits(0);
    assert_eq!(empty.json(&status, "d['portals'], d['mounts']"), "[] []");
    assert!(!empty.home().exists(), "to look at it makes nothing");
}

#[test]
fn a_portal_mounts_from_a_home_with_a_long_path() {
    // An address of a socket has room for 108 bytes.
    let device = Device::with_home_at(&format!("{}/{}", "a".repeat(75), "b".repeat(75)));
    assert!(device.home().as_os_str().len() > 150);
    mkdir(device.home().parent().expect("not the root"));
    device.make_key();
    device.create("p");
    mkdir(&device.m());
    device.mount();
    write_durably(&device.at("file"), b"x");
    device.crash();
    device.mount();
    holds(&device.at("file"), b"x");
    device.sync();
    device.umount();
}

#[test]
fn a_home_that_cannot_be_written_lets_no_portal_mount() {
    let device = Device::without_key();
    mkdir(device.home());
    let mount = |options: &str| mount_home(&device, options);
    mount("mode=0700,size=64m");
    device.make_key();
    device.create("p");
    mkdir(&device.m());
    device.until_gone();
    mount("remount,ro");
    for line in ["mount p m", "portal create q", "up"] {
        let output = device.types(line);
        fails(output, 1, "Read-only file system", "");
    }
    assert!(!device.is_mounted("m"));
    device.types("status --json").exits(0);
    mount("remount,rw");
    device.mount();
    device.umount();
    // A file where the home should be.
    let other = Device::without_key();
    write(other.home(), b"x");
    mkdir(&other.m());
    for line in ["mount p m", "portal create q", "key init --phrase-file phrase", "up"] {
        let output = other.types(line);
        assert!(output.stderr.starts_with("error: "), "{}", output.stderr);
        fails(output, 1, "", "");
    }
}

#[test]
fn a_portal_mounts_with_a_journal_that_ends_in_the_middle() {
    let device = Device::mounted();
    // The first is what must not be lost; the second is what the cut hits.
    let (first, second) = (noise(400_000, 1), noise(300_000, 2));
    let journal = || {
        let path = state(&device, "journal-").pop().expect("a journal");
        // It may be longer than what is in it.
        let bytes = fs::read(&path).expect("readable");
        (path, bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1))
    };
    for part in [1, 2, 10, 1000, 100_000] {
        write_durably(&device.at("first"), &first);
        let before = journal();
        write_durably(&device.at("second"), &second);
        device.crash();
        let (journal, end) = journal();
        let start = if before.0 == journal { before.1 } else { 0 };
        assert!(end > start, "the second is in the journal");
        let cut = ((end - start) / part).max(1);
        let file = File::options().write(true).open(&journal).expect("opens");
        file.set_len((end - cut) as u64).expect("cut");
        device.mount();
        holds(&device.at("first"), &first);
        let found = fs::read(device.at("second")).unwrap_or_default();
        assert!(second.starts_with(&found), "{cut} bytes cut: {} bytes of it", found.len());
        // It is written on as if nothing had been.
        write_durably(&device.at("third"), &second);
        device.crash();
        device.mount();
        holds(&device.at("third"), &second);
        for name in ["first", "second", "third"] {
            let _ = fs::remove_file(device.at(name));
        }
        device.sync();
    }
    device.umount();
}

fn filling(n: u64) -> Vec<u8> {
    noise(1 << 20, n)
}

/// Writes files of 1 MiB until there is no room; gives the names of those that
/// were durable.
#[track_caller]
fn fill(device: &Device, start: u64) -> Vec<u64> {
    let mut durable = Vec::new();
    for n in start..start + 100 {
        write(&device.path("source"), &filling(n));
        let mut command = Command::new("dd");
        command.args(["if=source", &format!("of=m/file {n}"), "bs=64k", "conv=fsync"]);
        command.current_dir(device.path(""));
        let output = run::run(command, Duration::from_secs(35));
        if output.code == 0 {
            durable.push(n);
            continue;
        }
        assert!(output.stderr.contains("No space left on device"), "{}", output.stderr);
        return durable;
    }
    panic!("it is never full")
}

#[test]
fn a_full_disk_costs_a_portal_mount_nothing_that_was_durable() {
    let device = Device::without_key();
    mkdir(device.home());
    let mount = |options: &str| mount_home(&device, options);
    mount("mode=0700,size=24m");
    device.make_key();
    device.create("p");
    mkdir(&device.m());
    device.mount();
    let check = |durable: &[u64], when: &str| {
        for n in durable {
            let read = fs::read(device.at(format!("file {n}"))).expect("readable");
            assert!(read == filling(*n), "{when}: file {n} has {} bytes", read.len());
        }
    };
    let mut durable = fill(&device, 0);
    assert!(durable.len() >= 5, "only {} MiB fit on a disk of 24 MiB", durable.len());
    check(&durable, "full");
    // Who fills it once more is told once more.
    durable.extend(fill(&device, 1000));
    check(&durable, "full again");
    // Nothing can be published, and that is said; but everything ends.
    let sync = device.types("sync m");
    assert!([0, 8].contains(&sync.code), "{}: {}", sync.code, sync.stderr);
    let umount = device.types("umount m");
    assert!([0, 8].contains(&umount.code), "{}: {}", umount.code, umount.stderr);
    if device.is_mounted("m") {
        must("umount", [device.m()]);
    }
    device.until_gone();
    device.mount();
    check(&durable, "mounted again");
    device.crash();
    device.mount();
    check(&durable, "after a crash");
    // With room, it goes on without being started anew.
    mount("remount,size=200m");
    write_durably(&device.at("more"), &noise(3 << 20, 3));
    device.sync();
    device.umount();
    device.mount();
    check(&durable, "with room");
    holds(&device.at("more"), &noise(3 << 20, 3));
    device.umount();
}

/// Who may not write the home at all, and who is not its owner.
#[test]
fn a_portal_is_not_mounted_by_another_user() {
    let device = Device::with_portal();
    device.until_gone();
    let open = "mknod -m 0666 dev/fuse c 10 229; mount --bind dev/fuse /dev/fuse";
    for line in ["mount p m", "portal ls", "portal create q", "status"] {
        let output = as_nobody(&device, open, &format!("./warp {line}"));
        fails(output, 1, "ermission denied", "");
    }
    device.mount();
    // Nor does the running daemon listen to others.
    for line in ["status", "umount m", "down"] {
        let output = as_nobody(&device, open, &format!("./warp {line}"));
        assert_ne!(output.code, 0, "{line}: {}", output.text());
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    }
    assert!(device.is_mounted("m"));
    device.umount();
}

#[test]
fn every_portal_command_has_help() {
    let device = Device::without_key();
    for line in [
        "portal",
        "portal create",
        "portal ls",
        "portal status",
        "portal leave",
        "mount",
        "umount",
        "sync",
        "status",
        "up",
        "down",
        "info",
        "doctor",
    ] {
        let help = device.types(&format!("{line} --help")).exits(0);
        assert!(help.text().contains("Usage: warp"), "{line}");
        assert_eq!(help.stderr, "", "{line}");
        assert!(help.text().contains("--json"), "{line}: {}", help.text());
    }
    for line in ["portal", "portal bogus", "portal create", "mount p", "sync", "up --bogus"] {
        let output = device.types(line).exits(2);
        assert_eq!(output.text(), "", "{line}");
        assert!(!output.stderr.is_empty(), "{line}");
    }
    assert!(!device.home().exists(), "to ask for help makes nothing");
}

//! `-o`, `mount.warp` and lines of /etc/fstab.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use warp_tests::apart::apart;
use warp_tests::device::{Device, Words, fails};
use warp_tests::nasty::{mkdir, noise, write};

#[test]
fn a_portal_mount_by_mount_8_and_fstab() {
    let device = Device::with_portal();
    mkdir(&device.path("a b"));
    let script = "mount -t warp p $PWD/m -o home=$WARP_HOME,noexec
        echo one > m/f; grep -c \"$PWD/m .*nosuid,nodev,noexec.* fuse.warp p:/ \" /proc/self/mountinfo
        umount m
        # Of what fstab says, mount(8) passes on more than it should.
        echo \"p $PWD/m warp home=$WARP_HOME,defaults,noauto,nofail,_netdev,users,x-a.b=c 0 0\" > /etc/fstab
        mount $PWD/m; cat m/f; umount m
        # The line that warp makes itself, for a directory with a blank.
        $warp -q mount --fstab -o ro,noauto p 'a b' | tee /etc/fstab
        mount \"$PWD/a b\"; cat 'a b/f'; ! touch 'a b/f' 2> refused; cat refused; umount 'a b'
        mount -t fuse.warp -f p $PWD/m; ! grep \"$PWD/m \" /proc/self/mountinfo";
    let said = apart(&device, script).exits(0).text();
    let (dir, home) = (device.path(""), device.home().display().to_string());
    let dir = dir.display().to_string();
    let line = format!("p {}/a\\040b warp ro,home={home},noauto 0 0", dir.trim_end_matches('/'));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..4], ["1", "one", line.as_str(), "one"], "{said}");
    assert!(lines[4].contains("Read-only file system"), "{said}");
    device.until_gone();
}

#[test]
fn what_mount_8_cannot_mount_is_said_and_its_code_is_mount_8s() {
    let device = Device::with_portal();
    let rows = [
        ("nope", "m", "rw", 32, "no portal of that name"),
        ("p", "gone", "rw", 32, "no such directory"),
        ("p", "m", "bogus", 1, "unknown mount option"),
        ("p", "m", "nonemty", 1, "is it `nonempty`"),
        ("p", "m", "suid", 1, "always nosuid"),
        ("p", "m", "home=/does/not/exist", 32, "home=/does/not/exist"),
    ];
    for (portal, directory, option, code, says) in rows {
        // As mount(8) calls it; that itself refuses a directory that is missing.
        let script = format!("sbin/mount.warp {portal} {directory} -n -o home=$WARP_HOME,{option}");
        let script = script.replace("home=$WARP_HOME,home=", "home=");
        let output = apart(&device, &script).exits(code);
        assert!(output.stderr.contains(says), "{option}: {}", output.stderr);
        assert!(output.stderr.starts_with("error: "), "{option}: {}", output.stderr);
    }
    apart(&device, "sbin/mount.warp p m -s -o bogus,ro -v && umount m").exits(0);
}

#[test]
fn root_serves_a_users_portal_mount_as_that_user() {
    let device = Device::with_portal();
    let script = "chown -R 65534:65534 h m
        env -u WARP_HOME mount -t warp p $PWD/m -o home=$WARP_HOME
        nobody bash -c 'echo x > m/f; stat -c %u:%g m/f'
        find h ! -uid 65534
        env -u WARP_HOME umount m";
    assert_eq!(apart(&device, script).exits(0).text(), "65534:65534\n");
    device.until_gone();
    let log = fs::metadata(device.home().join("log/edge.log")).expect("a log");
    assert_eq!(log.uid(), 65_534);
}

#[test]
fn an_archive_mount_by_mount_8() {
    let device = Device::without_key();
    write(&mkdir(&device.path("t")).join("f"), b"kept\n");
    mkdir(&device.m());
    device.types("archive create t.warp t").exits(0);
    let script = "mount -t warp $PWD/t.warp $PWD/m; cat m/t/f; umount m";
    assert_eq!(apart(&device, script).exits(0).text(), "kept\n");
    assert!(!device.home().exists(), "an archive needs no home");
}

/// Kill the daemon a while after a write to a file that nobody has synced or
/// closed: what the kernel had gathered is lost, what it had handed over is not.
#[test]
fn a_mounted_portal_gathers_writes_unless_it_is_to_write_through() {
    let device = Device::with_portal();
    let content = noise(500_000, 7);
    for (options, lives) in
        [("rw", false), ("cache=writeback", false), ("cache=writethrough", true)]
    {
        device.types(&format!("mount -o {options} p m")).exits(0);
        let mut file = File::create(device.at(options)).expect("created");
        file.write_all(&content).expect("written");
        // What the daemon was told is durable about a second after.
        std::thread::sleep(Duration::from_secs(2));
        device.crash();
        drop(file);
        device.mount();
        let left = fs::read(device.at(options)).expect("a file");
        assert!(left == if lives { &content[..] } else { b"" }, "-o {options}: {}", left.len());
        device.umount();
    }
}

#[test]
fn mount_options_do_what_they_say_or_are_refused() {
    let device = Device::with_portal();
    device
        .types("mount -o noexec,nosuid,nodev,noatime,default_permissions,x-y,nofail p m")
        .exits(0);
    let line = device.table_line("m").expect("mounted");
    assert!(line.contains("nosuid,nodev,noexec"), "{line}");
    device.umount();
    device.types("mount -o ro -o noexec p m").exits(0);
    assert!(device.table_line("m").expect("mounted").contains(" ro,"));
    device.umount();
    for (line, cause, hint) in [
        ("mount -o allow_othr p m", "unknown mount option", "is it `allow_other`"),
        ("mount -o read-only p m", "unknown mount option", "is it `read_only`"),
        ("mount -o suid p m", "always nosuid", "leave out"),
        ("mount -o home=/x p m", "for mount.warp", "WARP_HOME"),
        ("mount -o uidmap=1 p m", "FROM:TO", "uidmap=1000:1001"),
        ("mount -o cache=none p m", "neither of the two", "cache=writethrough"),
        ("mount -o ro,cache=writeback p m", "nothing is written", "leave out"),
        ("mount -o ro,rw p m", "either read-only or not", "leave out"),
    ] {
        fails(device.types(line), 2, cause, hint);
    }
    assert!(!device.is_mounted("m"));
}

#[test]
fn a_hint_about_a_mounted_directory_can_be_typed() {
    let device = Device::with_portal();
    device.create("q");
    let (a, b) = (mkdir(&device.path("it's a b")), mkdir(&device.m()));
    device.warp(["mount", "p"]).word(&a).ok();
    let path = device.path("").join("it").display().to_string();
    let typed = format!("warp umount '{path}'\\''s a b'");
    fails(device.warp(["mount", "q"]).word(&a).run(), 11, "mounted there already", &typed);
    fails(device.warp(["portal", "leave", "p"]).run(), 11, "is mounted on", &typed);
    fails(device.warp(["mount", "p"]).word(&b).run(), 11, "already", "mount --bind '/");
    device.warp(["umount"]).word(&a).ok();
}

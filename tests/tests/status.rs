//! What `warp status` and the commands beside it say of things that this
//! home's daemon does not serve: archives, dead mounts, another home's mounts,
//! portals without their keyring.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use warp_tests::device::{Device, Words, fails};
use warp_tests::nasty::{mkdir, mode, write};
use warp_tests::{Warp, must, run};

#[test]
fn status_lists_a_mounted_archive_and_a_dead_portal_mount() {
    let device = Device::with_portal();
    write(&mkdir(&device.path("tree")).join("f"), b"x");
    mkdir(&device.path("on"));
    device.warp(["archive", "create", "a.warp", "tree"]).ok();
    device.warp(["mount", "a.warp", "on"]).ok();
    let shown = device.warp(["status"]).ok().text();
    must("umount", [device.path("on")]);
    let on = device.path("on");
    assert!(shown.contains(&format!("on {}, an archive", on.display())), "{shown}");

    device.mount();
    device.crash();
    let shown = device.warp(["status"]).ok().text();
    let at = device.m();
    assert!(shown.contains(&format!("on {}: no process serves it", at.display())), "{shown}");
    device.warp(["umount", "m"]).ok();
    let shown = device.warp(["status"]).ok().text();
    assert!(!shown.contains(&at.display().to_string()), "{shown}");
}

/// One process that does not go on must not stop everybody who looks.
#[test]
fn a_mount_whose_process_is_stopped_holds_nobody_up() {
    let (device, other) = (Device::mounted(), Device::new());
    let daemon = device.daemon().to_string();
    must("kill", ["-STOP", &daemon]);
    let started = Instant::now();
    let shown = other.warp(["status"]).run();
    let doctor = other.warp(["doctor"]).run();
    must("kill", ["-CONT", &daemon]);
    let took = started.elapsed();
    let line = format!("on {}, by the daemon of another WARP_HOME", device.m().display());
    assert!(shown.text().contains(&line), "{}", shown.text());
    let at = device.m().display().to_string();
    assert!(!doctor.text().contains(&at), "it is not dead: {}", doctor.text());
    assert!(took < Duration::from_secs(20), "{took:?}");
    device.umount();
}

#[test]
fn another_homes_mounted_portal_is_durable_when_it_is_unmounted() {
    let (device, other) = (Device::mounted(), Device::new());
    write(&device.at("f"), b"kept");
    let told = other.warp(["umount"]).word(device.m()).run();
    fails(told, 5, "another WARP_HOME", "warp status");
    device.until_gone();
    device.mount();
    assert_eq!(fs::read(device.at("f")).expect("it is there"), b"kept");
    device.umount();
}

#[test]
fn portals_whose_keyring_is_missing_are_not_said_to_be_none() {
    let device = Device::with_portal();
    let (keyring, aside) = (device.home().join("keyring"), device.path("aside"));
    fs::rename(&keyring, &aside).expect("moved");
    for line in ["mount p m", "portal ls", "portal status p", "portal create q"] {
        fails(device.types(line), 4, "the keyring is missing", "warp key recover");
    }
    assert!(!keyring.exists(), "a new key was made");
    fs::rename(&aside, &keyring).expect("moved back");
    device.warp(["portal", "ls"]).ok();
}

#[test]
fn a_portal_is_not_mounted_over_warps_own_files() {
    let device = Device::with_portal();
    for directory in ["h", "h/portals", "."] {
        let line = format!("mount -o nonempty p {directory}");
        fails(device.types(&line), 2, "warp's own files", "another directory");
    }
    device.mount();
    device.umount();
}

#[test]
fn what_is_asked_of_a_dead_mount_or_twice_says_what_is_there() {
    let device = Device::mounted();
    write(&device.at("file"), b"x");
    device.sync();
    fails(device.types("mount p m"), 11, "is mounted on", "use it; `warp umount ");
    mkdir(&device.path("n"));
    fails(device.types("mount p n"), 11, "is mounted on", "mount --bind");
    device.crash();
    for line in ["sync m", "sync m/file"] {
        fails(device.types(line), 1, "no process serves it", "`warp mount p:/ ");
    }
    device.mount();
    device.types("sync m").exits(0);
    device.umount();
}

/// A daemon listens to its own user and to root; whoever else gets as far as
/// its socket is told at once whose it is.
#[test]
fn a_client_of_another_users_daemon_that_mounts_is_told_so_at_once() {
    let device = Device::mounted();
    let warp = device.path("warp");
    fs::copy(Warp::binary(), &warp).expect("copied");
    mode(&warp, 0o755);
    for (name, bits) in [("", 0o755), ("h", 0o755), ("h/run", 0o755), ("h/run/edge.sock", 0o666)] {
        mode(&device.path(name), bits);
    }
    for line in ["status", "up", "down"] {
        let script = format!("setpriv --reuid 65534 --regid 65534 --clear-groups ./warp {line}");
        let started = Instant::now();
        let mut command = Command::new("bash");
        command.args(["-c", &script]).current_dir(device.path(""));
        command.env("WARP_HOME", device.home());
        let told = run::run(command, Duration::from_secs(30));
        assert!(started.elapsed() < Duration::from_secs(5), "{line}: {:?}", started.elapsed());
        fails(told, 1, "the daemon is user 0's", "as that user");
    }
    mode(&device.path("h"), 0o700);
    device.umount();
}

/// The log says what a mount was asked and where chunks came from, if it is
/// told to, and never what anything is called.
#[test]
fn the_log_has_every_request_and_chunk_where_it_is_asked_for_mount() {
    let device = Device::new();
    device.create("secret-portal");
    mkdir(&device.path("m"));
    let said = |level: &str| {
        device.warp(["mount", "secret-portal", "m"]).env("WARP_VERBOSE", level).ok();
        fs::write(device.at("secret-name"), vec![b'x'; 300_000]).expect("written");
        device.types("sync m").exits(0);
        assert_eq!(fs::read(device.at("secret-name")).expect("read").len(), 300_000);
        device.warp(["down"]).ok();
        device.log()
    };
    let usual = said("0");
    assert!(usual.contains("listening") && !usual.contains("request{"), "{usual}");
    let debug = said("2").split_off(usual.len());
    let write = debug.lines().find(|line| line.contains("req=write")).expect(&debug);
    for field in [" DEBUG ", "mount{portal=", "ino=", "offset=", "len=", "pid=", "us="] {
        assert!(write.contains(field), "{field} in {write}");
    }
    assert!(!debug.contains(" TRACE "), "{debug}");
    device.warp(["-vvv", "up"]).ok();
    let trace = said("0");
    let chunk = trace.lines().find(|line| line.contains("source=")).expect("a chunk");
    assert!(chunk.contains(" TRACE ") && chunk.contains("chunk="), "{chunk}");
    for name in ["secret-portal", "secret-name", "xxxxxxxx"] {
        assert!(!trace.contains(name), "{name} is in the log");
    }
}

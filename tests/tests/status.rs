//! What `warp status` and the commands beside it say of things that this
//! home's daemon does not serve: archives, dead mounts, another home's mounts,
//! portals without their keyring.

use std::fs;
use std::time::{Duration, Instant};
use warp_tests::device::{Device, Words, fails};
use warp_tests::must;
use warp_tests::nasty::{mkdir, write};

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
    assert!(!doctor.text().contains("no process serves"), "{}", doctor.text());
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

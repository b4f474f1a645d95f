//! Owners across machines: what a mount shows as somebody's is stored as that
//! one's again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use warp_tests::apart::apart;
use warp_tests::device::{Device, bash, fails};
use warp_tests::nasty::{mkdir, own, write};

/// Owner and group of what is at a path beside the home.
fn owner(device: &Device, name: &str) -> (u32, u32) {
    let meta = fs::symlink_metadata(device.path(name)).expect("it is there");
    (meta.uid(), meta.gid())
}

#[test]
fn a_mount_with_mapped_owners_maps_back_what_is_written() {
    let device = Device::with_portal();
    device.mount();
    write(&device.at("old"), b"x");
    own(&device.at("old"), 1000, 1001);
    write(&device.at("of-nobody-here"), b"x");
    own(&device.at("of-nobody-here"), 2000, 0);
    device.umount();

    let mapped = "mount -o uidmap=1000:2000,uidmap=3000:4000:10,gidmap=1001:2001,allow_other p m";
    device.types(mapped).exits(0);
    assert_eq!(owner(&device, "m/old"), (2000, 2001));
    assert_eq!(owner(&device, "m/of-nobody-here"), (65_534, 0), "2000 is another one here");
    let script = "setpriv --reuid 4005 --regid 2001 --clear-groups bash -c 'cd m/d; \
        mkdir d; echo x > f; ln -s f l; mkfifo q'
        echo x > m/given; chown 2000:2001 m/given; setfacl -m u:4001:r,g:2001:rw m/given
        getfacl -n m/given
        ! chown 1000 m/given 2> refused; cat refused";
    mkdir(&device.at("d"));
    own(&device.at("d"), 4005, 0);
    let said = bash(&device.path(""), script).exits(0).text();
    for line in ["user:4001:r--", "group:2001:rw-", "Value too large"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    for name in ["d", "f", "l", "q"] {
        assert_eq!(owner(&device, &format!("m/d/{name}")), (4005, 2001), "{name}");
    }
    device.umount();

    device.mount();
    assert_eq!(owner(&device, "m/old"), (1000, 1001));
    assert_eq!(owner(&device, "m/of-nobody-here"), (2000, 0));
    assert_eq!(owner(&device, "m/given"), (1000, 1001));
    for name in ["d", "f", "l", "q"] {
        assert_eq!(owner(&device, &format!("m/d/{name}")), (3005, 1001), "{name}");
    }
    let acl = bash(&device.path(""), "getfacl -n m/given").exits(0).text();
    assert!(acl.contains("user:3001:r--") && acl.contains("group:1001:rw-"), "{acl}");
    device.umount();
}

#[test]
fn an_archive_mount_shows_mapped_owners() {
    let device = Device::without_key();
    write(&mkdir(&device.path("t")).join("f"), b"x");
    own(&device.path("t/f"), 1000, 1001);
    mkdir(&device.m());
    device.types("archive create t.warp t").exits(0);
    device.types("mount -o uidmap=1000:7,gidmap=1001:8 t.warp m").exits(0);
    assert_eq!(owner(&device, "m/t/f"), (7, 8));
    device.types("umount m").exits(0);
}

#[test]
fn an_ordinary_users_mount_shows_all_as_theirs_and_stores_the_portals_owner() {
    let device = Device::with_portal();
    device.mount();
    own(&device.m(), 1234, 1235);
    write(&device.at("old"), b"x");
    own(&device.at("old"), 77, 78);
    device.umount();
    let script = "chown -R 65534:65534 h m
        nobody $warp -q mount p m
        nobody bash -euc 'stat -c %u:%g m m/old; echo x > m/new; mkdir m/dir; ln -s x m/link
            stat -c %u:%g m/new; chown 65534:65534 m/old; echo y >> m/old; chmod 600 m/old'
        setpriv --reuid 65534 --regid 65534 --groups 4444 -- bash -euc '
            echo x > m/ours; chgrp 4444 m/ours; stat -c %u:%g m/ours'
        nobody $warp -q umount m; chown -R 0:0 h m";
    let shown = apart(&device, script).exits(0).text();
    assert_eq!(shown, "65534:65534\n".repeat(4));
    device.mount();
    for name in ["m", "m/new", "m/dir", "m/link", "m/old"] {
        assert_eq!(owner(&device, name), (1234, 1235), "{name}");
    }
    assert_eq!(owner(&device, "m/ours"), (1234, 4444), "another group is stored");
    device.umount();
    let script = "chown -R 65534:65534 h m; nobody $warp mount -o uidmap=1:2 p m";
    fails(apart(&device, script), 2, "only root", "as yours");
}

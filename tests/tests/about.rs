//! What a mount says of its files by itself: `user.warp.state`, `replicas`,
//! `chunks` and `hash`.

use rustix::fs::{self as rfs, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use warp_tests::device::{Device, bash};
use warp_tests::must;
use warp_tests::nasty::{all_xattrs, mkdir, noise, same_tree, write, xattr};

#[track_caller]
fn says(path: &Path, name: &str) -> Result<String, Errno> {
    let mut value = [0; 100];
    let len = rfs::getxattr(path, format!("user.warp.{name}"), &mut value)?;
    Ok(String::from_utf8_lossy(&value[..len]).into_owned())
}

#[test]
fn a_mounted_portal_says_of_a_file_where_and_what_it_is() {
    let device = Device::mounted();
    let at = |name: &str| device.at(name);
    let large = noise(3 << 20, 1);
    write(&at("large"), &large);
    write(&at("small"), b"in its inode");
    mkdir(&at("dir"));
    for name in ["", "dir", "large", "small"] {
        assert_eq!(says(&at(name), "state").as_deref(), Ok("local"), "{name}");
        assert_eq!(says(&at(name), "replicas").as_deref(), Ok("1"), "{name}");
    }
    // Written, durable, and in no chunk yet.
    fs::File::open(at("large")).and_then(|file| file.sync_all()).expect("durable");
    device.sync();
    let chunks: u32 = says(&at("large"), "chunks").expect("published").parse().expect("a number");
    assert!((6..=200).contains(&chunks), "3 MiB in {chunks} chunks");
    assert_eq!(says(&at("small"), "chunks").as_deref(), Ok("0"));
    assert_eq!(says(&at("dir"), "chunks"), Err(Errno::NODATA));
    assert_eq!(says(&at("dir"), "hash"), Err(Errno::NODATA));
    let hash = says(&at("large"), "hash").expect("published");
    assert_eq!(hash.len(), 64, "{hash}");
    // As people ask for it.
    let shown = must(
        "getfattr",
        ["--absolute-names", "-n", "user.warp.hash", "--only-values"]
            .map(OsStr::new)
            .into_iter()
            .chain([at("large").as_os_str()]),
    );
    assert_eq!(shown, hash);
    let file = OpenOptions::new().write(true).open(at("large")).expect("opens");
    file.write_all_at(&[!large[5000]], 5000).expect("written");
    file.sync_all().expect("durable");
    assert_eq!(says(&at("large"), "hash"), Err(Errno::NODATA), "in no chunk yet");
    assert_eq!(says(&at("large"), "chunks"), Err(Errno::NODATA));
    assert_eq!(says(&at("large"), "state").as_deref(), Ok("local"));
    device.sync();
    let changed = says(&at("large"), "hash").expect("published");
    assert_ne!(changed, hash);
    file.write_all_at(&large, 0).expect("written");
    drop(file);
    device.remount();
    assert_eq!(says(&at("large"), "hash").as_deref(), Ok(&*hash));
    // A copy has it too: made by naming its chunks, or by its bytes.
    must("cp", [at("large"), at("clone")]);
    bash(&device.m(), "cat large > bytes").exits(0);
    device.sync();
    for copy in ["clone", "bytes"] {
        assert_eq!(says(&at(copy), "hash").as_deref(), Ok(&*hash), "{copy}");
    }
    device.umount();
}

#[test]
fn what_a_mount_says_of_its_files_is_not_listed_copied_or_changed() {
    let device = Device::mounted();
    let (tree, file) = (mkdir(&device.at("tree")), device.at("tree/file"));
    write(&file, &noise(100_000, 1));
    xattr(&file, "user.mine", b"a value");
    device.sync();
    let set = |name: &str| rfs::setxattr(&file, name, b"x", XattrFlags::empty());
    for name in ["user.warp.state", "user.warp.hash", "user.warp.anything"] {
        assert_eq!(set(name), Err(Errno::PERM), "{name}");
        assert_eq!(rfs::removexattr(&file, name), Err(Errno::PERM), "{name}");
    }
    assert_eq!(says(&file, "anything"), Err(Errno::NODATA));
    set("user.warped").expect("another name");
    rfs::removexattr(&file, "user.warped").expect("another name");
    assert!(!all_xattrs(&tree).contains("warp"), "{}", all_xattrs(&tree));
    // Neither within the mount nor out of it does a copy carry them.
    let copies = [device.at("copy"), device.path("out")];
    for copy in &copies {
        must("cp", [OsStr::new("-a"), tree.as_os_str(), copy.as_os_str()]);
        same_tree(&tree, copy);
        let listed = all_xattrs(copy);
        assert!(listed.contains("user.mine") && !listed.contains("warp"), "{listed}");
    }
    bash(&device.path(""), "rsync -aX --modify-window=-1 m/tree/ synced/ && rsync -aX --modify-window=-1 synced/ m/back/").exits(0);
    same_tree(&tree, &device.path("synced"));
    same_tree(&tree, &device.at("back"));
    assert_eq!(
        rfs::getxattr(device.path("out/file"), "user.warp.state", &mut [0; 9]),
        Err(Errno::NODATA)
    );
    bash(&device.m(), "tar --xattrs --xattrs-include='*' -cf ../t.tar tree").exits(0);
    assert!(!bash(&device.path(""), "grep -a -c user.warp t.tar || true").text().starts_with('1'));
    device.umount();
}

#[test]
fn a_mounted_archive_says_in_what_chunks_its_files_lie() {
    let device = Device::without_key();
    let tree = mkdir(&device.path("tree"));
    let content = noise(3 << 20, 1);
    for name in ["one", "two"] {
        write(&tree.join(name), &content);
    }
    write(&tree.join("small"), b"in its inode");
    // Something of that name on the host is not what the mount says.
    xattr(&tree.join("small"), "user.warp.state", b"from elsewhere");
    device.types("archive create t.warp tree").exits(0);
    mkdir(&device.m());
    device.types("mount t.warp m").exits(0);
    let at = |name: &str| device.at("tree").join(name);
    let chunks: u32 = says(&at("one"), "chunks").expect("known").parse().expect("a number");
    assert!((6..=200).contains(&chunks), "3 MiB in {chunks} chunks");
    assert_eq!(says(&at("small"), "chunks").as_deref(), Ok("0"));
    let hash = says(&at("one"), "hash").expect("known");
    assert_eq!(says(&at("two"), "hash").as_deref(), Ok(&*hash));
    assert_ne!(says(&at("small"), "hash").as_deref(), Ok(&*hash));
    for name in ["state", "replicas", "other"] {
        assert_eq!(says(&at("small"), name), Err(Errno::NODATA), "{name}");
    }
    assert!(!all_xattrs(&at("")).contains("warp"));
    let set = rfs::setxattr(at("one"), "user.warp.state", b"x", XattrFlags::empty());
    assert_eq!(set, Err(Errno::ROFS));
    device.types("umount m").exits(0);
}

#[test]
fn a_snapshot_in_a_mount_says_of_a_file_what_it_was_then() {
    let device = Device::mounted();
    write(&device.at("f"), &noise(300_000, 1));
    device.types("snapshot create p s").exits(0);
    let (now, then) = (device.at("f"), device.at(".snapshots/s/f"));
    let hash = says(&now, "hash").expect("published");
    write(&now, &noise(300_000, 2));
    device.sync();
    assert_ne!(says(&now, "hash").as_deref(), Ok(&*hash));
    assert_eq!(says(&then, "hash").as_deref(), Ok(&*hash));
    let chunks: u32 = says(&then, "chunks").expect("known").parse().expect("a number");
    assert!((2..=20).contains(&chunks), "300,000 bytes in {chunks} chunks");
    let set = rfs::setxattr(&then, "user.warp.state", b"x", XattrFlags::empty());
    assert_eq!(set, Err(Errno::ROFS));
    assert!(!all_xattrs(&device.at(".snapshots/s")).contains("warp"));
    device.umount();
}

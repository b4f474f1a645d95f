//! The edges of what a mounted portal takes: counts, lengths and sizes that
//! programs rely on without asking.

use rustix::fs::{self as rfs, CWD, RenameFlags};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use warp_tests::device::Device;
use warp_tests::nasty::{mkdir, write};

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
    fs::File::open(device.m()).and_then(|root| root.sync_all()).expect("durable");
    device.crash();
    device.mount();
    counts(&device, &at_last);
    // One that is removed and open has no name.
    let open = fs::File::open(device.at("c")).expect("opens");
    fs::remove_dir(device.at("c")).expect("removed");
    assert_eq!(open.metadata().expect("there").nlink(), 0);
    assert_eq!(links(&device.m()), 4);
    drop(open);
    device.remount();
    counts(&device, &[("", 4), ("a", 2), ("b", 3)]);
    device.umount();
}

//! Snapshots: what they keep, what they show, and that nothing changes them.

#[path = "common/place.rs"]
mod place;

use place::Place;
use std::path::Path;
use std::time::Duration;
use warp_flow::portal::{Portal, PortalVolume};
use warp_flow::volume::{Allocate, FOREVER, NewInode, RenameMode, SetAttr, Volume, XattrMode};
use warp_flow::{FlowError, Refusal};
use warp_format::record::{Body, NO_DIRECTORIES};

const ROOT: u64 = 1;
const MIB: usize = 1 << 20;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn new(body: Body) -> NewInode {
    NewInode { permissions: 0o644, umask: 0, uid: 1000, gid: 1000, body }
}

fn make(volume: &PortalVolume, parent: u64, name: &str, body: Body) -> u64 {
    volume.make(parent, name.as_bytes(), new(body)).unwrap().ino
}

fn put(volume: &PortalVolume, parent: u64, name: &str, bytes: &[u8]) -> u64 {
    let ino = make(volume, parent, name, Body::Extents(0));
    volume.write(ino, 0, bytes.to_vec(), false).unwrap();
    ino
}

fn find(volume: &PortalVolume, path: &str) -> Option<u64> {
    path.split('/').try_fold(ROOT, |at, name| match volume.lookup(at, name.as_bytes()) {
        Ok(found) => found.map(|attr| attr.ino),
        Err(FlowError::Refused(Refusal::Missing)) => None,
        Err(e) => panic!("{path}: {e}"),
    })
}

fn names(volume: &PortalVolume, ino: u64) -> Vec<String> {
    let entries = volume.entries(ino, None, 1000, true).unwrap();
    let mut names: Vec<String> = entries
        .into_iter()
        .inspect(|entry| assert_eq!(entry.attr.as_ref().map(|a| a.ino), Some(entry.ino)))
        .map(|entry| String::from_utf8(entry.name).unwrap())
        .collect();
    names.sort();
    names
}

fn snapshot(portal: &Portal, name: &str) {
    portal.make_snapshot(name, Vec::new()).unwrap();
}

fn is_refused<T>(result: warp_flow::Result<T>, why: Refusal) -> bool {
    matches!(result, Err(FlowError::Refused(found)) if found == why)
}

/// Of everything there is only what a snapshot has is left; it is shown as it
/// was, also after the next start, and goes with the snapshot.
#[test]
fn a_snapshot_shows_what_was_until_it_is_taken_away() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let dir = make(&volume, ROOT, "d", Body::Directory(NO_DIRECTORIES));
    let old = put(&volume, dir, "f", &noise(MIB, 1));
    volume.set_xattr(old, b"user.x", b"then", XattrMode::Set).unwrap();
    make(&volume, dir, "l", Body::Symlink(b"f".to_vec()));
    snapshot(&portal, "then");
    volume.set_xattr(old, b"user.x", b"now", XattrMode::Set).unwrap();
    volume.write(old, 0, noise(1000, 2), false).unwrap();
    put(&volume, dir, "later", b"x");
    snapshot(&portal, "between");
    for name in ["f", "l", "later"] {
        volume.unlink(dir, name.as_bytes(), false).unwrap();
    }
    volume.unlink(ROOT, b"d", true).unwrap();
    [dir, old].into_iter().for_each(|ino| volume.forget(ino, 9));
    portal.publish().unwrap();
    portal.sweep_thoroughly().unwrap();

    let check = |volume: &PortalVolume| {
        assert_eq!(names(volume, ROOT), [""; 0]);
        let all = find(volume, ".snapshots").unwrap();
        assert_eq!(names(volume, all), ["between", "then"]);
        let then = find(volume, ".snapshots/then/d").unwrap();
        assert_eq!(names(volume, then), ["f", "l"]);
        assert_eq!(
            names(volume, find(volume, ".snapshots/between/d").unwrap()),
            ["f", "l", "later"]
        );
        let file = find(volume, ".snapshots/then/d/f").unwrap();
        let changed = find(volume, ".snapshots/between/d/f").unwrap();
        assert_ne!(file, changed, "two contents share a number");
        assert!(volume.read(file, 0, 2 * MIB).unwrap() == noise(MIB, 1));
        let over = [noise(1000, 2), noise(MIB, 1)[1000..].to_vec()].concat();
        assert!(volume.read(changed, 0, 2 * MIB).unwrap() == over);
        assert_eq!(volume.xattr(file, b"user.x").unwrap().unwrap(), b"then");
        assert_eq!(volume.xattrs(changed).unwrap(), [b"user.x"]);
        let link = find(volume, ".snapshots/then/d/l").unwrap();
        let link = volume.attr(link).unwrap().unwrap();
        assert!(matches!(link.inode.body, Body::Symlink(target) if target == b"f"));
        file
    };
    let number = check(&volume);
    portal.close().unwrap();
    let (portal, volume) = place.open();
    let file = check(&volume);
    assert_eq!(file, number, "another number after the next start");
    let all: Vec<String> = portal.snapshots().into_iter().map(|s| s.name).collect();
    assert_eq!(all, ["then", "between"]);

    // Who has a file of it open reads on; the rest goes at once.
    portal.remove_snapshot("between").unwrap();
    portal.remove_snapshot("then").unwrap();
    assert!(find(&volume, ".snapshots/then").is_none());
    portal.sweep_thoroughly().unwrap();
    assert!(volume.read(file, 0, 2 * MIB).unwrap() == noise(MIB, 1));
    assert!(portal.status().stored_bytes as usize > MIB);
    drop(volume);
    let volume = portal.volume(Path::new("/")).unwrap();
    portal.sweep_thoroughly().unwrap();
    assert!((portal.status().stored_bytes as usize) < MIB / 4);
    assert_eq!(names(&volume, find(&volume, ".snapshots").unwrap()), [""; 0]);
    portal.close().unwrap();
}

/// The last inode of a snapshot that is taken away is forgotten: then nothing
/// keeps its room, and the portal sweeps by itself.
#[test]
fn what_only_the_kernel_knew_goes_when_it_forgets() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let file = put(&volume, ROOT, "f", &noise(4 * MIB, 1)[..MIB]);
    snapshot(&portal, "s");
    let seen = find(&volume, ".snapshots/s/f").unwrap();
    let root = find(&volume, ".snapshots/s").unwrap();
    volume.unlink(ROOT, b"f", false).unwrap();
    volume.forget(file, 1);
    portal.publish().unwrap();
    portal.remove_snapshot("s").unwrap();
    portal.sweep_thoroughly().unwrap();
    volume.forget(root, 2);
    assert!(volume.read(seen, 0, MIB).unwrap() == noise(4 * MIB, 1)[..MIB]);
    volume.forget(seen, 1);
    assert!(is_refused(volume.read(seen, 0, MIB), Refusal::Missing));
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while portal.status().stored_bytes as usize > MIB / 4 {
        assert!(std::time::Instant::now() < until, "nothing was swept");
        std::thread::sleep(Duration::from_millis(50));
    }
    portal.close().unwrap();
}

#[test]
fn nothing_changes_a_snapshot_or_the_list_of_them() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    put(&volume, ROOT, "f", b"content");
    make(&volume, ROOT, "d", Body::Directory(NO_DIRECTORIES));
    snapshot(&portal, "s");
    let live = find(&volume, "f").unwrap();
    let [all, root, file] =
        [".snapshots", ".snapshots/s", ".snapshots/s/f"].map(|path| find(&volume, path).unwrap());
    let before = volume.attr(file).unwrap().unwrap();
    for ino in [all, root, file] {
        assert!(volume.is_read_only(ino));
        let set = SetAttr { permissions: Some(0), ..SetAttr::default() };
        let reserve = Allocate::Reserve { keep_size: false };
        let results = [
            volume.set_attr(ino, &set).map(drop),
            volume.write(ino, 0, b"x".to_vec(), true),
            volume.allocate(ino, 0..9, reserve),
            volume.copy((live, 0), (ino, 0), 3).map(drop),
            volume.set_xattr(ino, b"user.x", b"x", XattrMode::Set),
            volume.remove_xattr(ino, b"user.x"),
            volume.make(ino, b"new", new(Body::Extents(0))).map(drop),
            volume.link(live, ino, b"new").map(drop),
            volume.unlink(ino, b"f", false),
            volume.unlink(ino, b"d", true),
            volume.rename((ino, b"f"), (ROOT, b"g"), RenameMode::Replace),
            volume.rename((ROOT, b"f"), (ino, b"g"), RenameMode::Replace),
        ];
        for (n, result) in results.into_iter().enumerate() {
            assert!(is_refused(result, Refusal::ReadOnly), "{n} of {ino}");
        }
    }
    // The name is taken in the root, and means nothing elsewhere.
    let dir = find(&volume, "d").unwrap();
    let name = b".snapshots".as_slice();
    for result in [
        volume.make(ROOT, name, new(Body::Extents(0))).map(drop),
        volume.link(live, ROOT, name).map(drop),
        volume.unlink(ROOT, name, true),
        volume.rename((ROOT, b"f"), (ROOT, name), RenameMode::Replace),
        volume.rename((ROOT, name), (ROOT, b"g"), RenameMode::Replace),
    ] {
        assert!(is_refused(result, Refusal::ReadOnly));
    }
    put(&volume, dir, ".snapshots", b"x");
    assert!(is_refused(volume.link(file, ROOT, b"g"), Refusal::Elsewhere));
    let after = volume.attr(file).unwrap().unwrap();
    assert_eq!((after.ino, &after.inode), (before.ino, &before.inode));
    assert_eq!(volume.read(file, 0, 99).unwrap(), b"content");
    // What comes and goes by a command the kernel must not keep.
    assert_eq!(volume.lifetime(all), Duration::ZERO);
    assert_eq!((volume.lifetime(root), volume.lifetime(ROOT)), (FOREVER, FOREVER));
    assert!(is_refused(volume.lookup(all, b"none"), Refusal::Missing));
    assert!(is_refused(volume.lookup(all, b"\xff"), Refusal::Missing));
    portal.close().unwrap();
}

/// What a snapshot has comes back as a clone: its bytes are stored once.
#[test]
fn a_file_is_cloned_out_of_a_snapshot() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let bytes = noise(4 * MIB, 3);
    let file = put(&volume, ROOT, "f", &bytes[..MIB]);
    for at in (MIB..4 * MIB).step_by(MIB) {
        volume.write(file, at as u64, bytes[at..at + MIB].to_vec(), false).unwrap();
    }
    put(&volume, ROOT, "small", b"few");
    snapshot(&portal, "s");
    for name in ["f", "small"] {
        volume.unlink(ROOT, name.as_bytes(), false).unwrap();
    }
    portal.publish().unwrap();
    let stored = portal.status().stored_bytes;
    for (name, len) in [("f", 4 * MIB), ("small", 3)] {
        let source = find(&volume, &format!(".snapshots/s/{name}")).unwrap();
        let target = make(&volume, ROOT, name, Body::Extents(0));
        assert_eq!(volume.copy((source, 0), (target, 0), u64::MAX >> 2).unwrap(), len as u64);
    }
    portal.publish().unwrap();
    portal.remove_snapshot("s").unwrap();
    drop(volume);
    portal.sweep_thoroughly().unwrap();
    assert!(portal.status().stored_bytes < stored + MIB as u64 / 8, "stored again");
    portal.close().unwrap();
    let (portal, volume) = place.open();
    assert!(volume.read(find(&volume, "f").unwrap(), 0, 5 * MIB).unwrap() == bytes);
    assert_eq!(volume.read(find(&volume, "small").unwrap(), 0, 9).unwrap(), b"few");
    portal.close().unwrap();
}

/// A mount of a directory shows that directory in each snapshot which has it.
#[test]
fn a_mount_of_a_part_shows_that_part_of_each_snapshot() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    put(&volume, ROOT, "outside", b"x");
    snapshot(&portal, "before");
    let dir = make(&volume, ROOT, "d", Body::Directory(NO_DIRECTORIES));
    put(&volume, dir, "f", b"x");
    snapshot(&portal, "after");
    let part = portal.volume(Path::new("/d")).unwrap();
    let all = find(&part, ".snapshots").unwrap();
    assert_eq!(names(&part, all), ["after"]);
    assert!(find(&part, ".snapshots/before").is_none());
    assert_eq!(names(&part, find(&part, ".snapshots/after").unwrap()), ["f"]);
    assert_eq!(names(&part, ROOT), ["f"]);
    portal.close().unwrap();
}

/// The log of what came and went is begun anew before it grows without end.
#[test]
fn names_are_checked_and_the_list_outlives_many_changes() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    put(&volume, ROOT, "f", b"x");
    let tags = vec!["weekly".to_owned(), "before the upgrade".to_owned()];
    let kept = portal.make_snapshot("kept", tags.clone()).unwrap();
    for name in ["", ".", "..", ".x", "-x", "a/b", "a\nb"] {
        let made = portal.make_snapshot(name, Vec::new());
        assert!(matches!(made, Err(FlowError::BadSnapshot { .. })), "{name:?}");
    }
    let again = portal.make_snapshot("kept", Vec::new());
    assert!(matches!(again, Err(FlowError::BadSnapshot { .. })));
    let nearest = |name: &str| match portal.remove_snapshot(name) {
        Err(FlowError::NoSnapshot { nearest, .. }) => nearest,
        other => panic!("{other:?}"),
    };
    assert_eq!((nearest("kep").as_deref(), nearest("quite another")), (Some("kept"), None));
    for n in 0..120 {
        snapshot(&portal, &format!("s{n}"));
        portal.remove_snapshot(&format!("s{n}")).unwrap();
    }
    drop((portal.close().unwrap(), portal, volume));
    for _ in 0..3 {
        let (portal, _) = place.open();
        assert_eq!(portal.snapshots(), std::slice::from_ref(&kept));
        portal.close().unwrap();
    }
}

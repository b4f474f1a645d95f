//! A portal as a volume, without a kernel: what is hard to bring about through
//! a mount, or slow.

#[path = "common/place.rs"]
mod place;

use place::Place;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use warp_flow::portal::PortalVolume;
use warp_flow::volume::{Attr, NewInode, RenameMode, SetAttr, Volume, XattrMode};
use warp_flow::{FlowError, Refusal};
use warp_format::record::{Body, NO_DIRECTORIES};

const ROOT: u64 = 1;

fn new(body: Body) -> NewInode {
    NewInode { permissions: 0o644, umask: 0, uid: 1000, gid: 1000, body }
}

fn file(volume: &PortalVolume, parent: u64, name: &str) -> Attr {
    volume.make(parent, name.as_bytes(), new(Body::Extents(0))).unwrap()
}

fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// An unlinked file that is far larger than what is kept of it in memory reads
/// as it was written, over what it had before, and is gone when forgotten.
#[test]
fn a_large_file_without_a_name_is_kept_until_it_is_forgotten() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let ino = file(&volume, ROOT, "f").ino;
    let mut want = noise(1 << 20, 1);
    volume.write(ino, 0, want.clone(), false).unwrap();
    portal.publish().unwrap();
    volume.unlink(ROOT, b"f", false).unwrap();
    assert_eq!(volume.attr(ino).unwrap().unwrap().links, 0);
    for i in 0..20u64 {
        let (at, bytes) = (700_000 + i * 900_000, noise(1_000_000, i as u8));
        volume.write(ino, at, bytes.clone(), false).unwrap();
        want.resize(want.len().max(at as usize + bytes.len()), 0);
        want[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
        if i == 18 {
            let cut = SetAttr { size: Some(12 << 20), ..SetAttr::default() };
            volume.set_attr(ino, &cut).unwrap();
            want.truncate(12 << 20);
        }
    }
    assert!(volume.read(ino, 0, want.len() + 10).unwrap() == want);
    assert!(volume.read(ino, 7_000_001, 300_000).unwrap() == want[7_000_001..7_300_001]);
    volume.forget(ino, 1);
    assert!(matches!(volume.attr(ino), Err(FlowError::Refused(Refusal::Missing))));
    portal.close().unwrap();
}

/// Reads, writes and publishes at once: each reader sees a whole write, old or
/// new, and all is there at the end, and after another opening.
#[test]
fn reading_and_writing_go_on_while_it_is_published() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    const LEN: usize = 70_000;
    let files: Vec<u64> = (0..4).map(|n| file(&volume, ROOT, &format!("f{n}")).ino).collect();
    files.iter().for_each(|ino| volume.write(*ino, 0, vec![0; LEN], false).unwrap());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                portal.publish().unwrap();
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for ino in &files {
                    let bytes = volume.read(*ino, 0, LEN).unwrap();
                    assert_eq!(bytes.len(), LEN);
                    assert!(bytes.iter().all(|b| *b == bytes[0]), "a torn write");
                }
            }
        });
        for round in 1..=24u8 {
            for ino in &files {
                volume.write(*ino, 0, vec![round; LEN], false).unwrap();
            }
            let name = format!("n{round}");
            file(&volume, ROOT, &name);
            if round % 2 == 0 {
                let before = format!("n{}", round - 1);
                let (from, to) = ((ROOT, name.as_bytes()), (ROOT, before.as_bytes()));
                volume.rename(from, to, RenameMode::Replace).unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let check = |volume: &PortalVolume| {
        for n in 0..4 {
            let ino = volume.lookup(ROOT, format!("f{n}").as_bytes()).unwrap().unwrap().ino;
            assert!(volume.read(ino, 0, LEN).unwrap() == [24; LEN]);
        }
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut place = None;
        loop {
            let step = volume.entries(ROOT, place, 7, true).unwrap();
            let Some(last) = step.last() else { break };
            place = Some(last.place);
            names.extend(step.into_iter().map(|entry| entry.name));
        }
        names.sort();
        let odd = (1..=24).filter(|n| n % 2 == 1).map(|n| format!("n{n}"));
        let mut want: Vec<Vec<u8>> =
            odd.chain((0..4).map(|n| format!("f{n}"))).map(String::into_bytes).collect();
        want.sort();
        assert_eq!(names, want);
    };
    check(&volume);
    drop(volume);
    portal.close_unpublished().unwrap();
    let (portal, volume) = place.open();
    check(&volume);
    portal.close().unwrap();
    let (portal, volume) = place.open();
    check(&volume);
    portal.close().unwrap();
}

/// Whoever has a file open reads what it held, also at the very moment when
/// its last name goes.
#[test]
fn a_file_reads_the_same_while_its_name_is_taken() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let over = AtomicBool::new(false);
    let open = std::sync::Mutex::new(file(&volume, ROOT, "target").ino);
    volume.write(*open.lock().unwrap(), 0, vec![1; 3000], false).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // Held while it is read: the kernel would forget it later.
                    let ino = open.lock().unwrap();
                    for _ in 0..20 {
                        let bytes = volume.read(*ino, 0, 5000).unwrap();
                        assert!(bytes.len() == 3000 && bytes.iter().all(|b| *b == 1));
                        assert_eq!(volume.attr(*ino).unwrap().unwrap().inode.size, 3000);
                    }
                }
            });
        }
        for round in 0..400 {
            let new = file(&volume, ROOT, "new").ino;
            volume.write(new, 0, vec![1; 3000], false).unwrap();
            if round % 50 == 0 {
                portal.publish().unwrap();
            }
            volume.rename((ROOT, b"new"), (ROOT, b"target"), RenameMode::Replace).unwrap();
            let old = std::mem::replace(&mut *open.lock().unwrap(), new);
            volume.forget(old, 1);
        }
        over.store(true, Ordering::Relaxed);
    });
    portal.close().unwrap();
}

#[test]
fn a_portal_is_opened_by_one_at_a_time_and_a_sync_is_answered() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    assert!(matches!(place.portals().open("p"), Err(FlowError::InUse { .. })));
    file(&volume, ROOT, "f");
    let (done, answers) = mpsc::channel();
    for _ in 0..20 {
        let done = done.clone();
        volume.sync(Box::new(move |result| done.send(result).unwrap()));
    }
    for _ in 0..20 {
        answers.recv_timeout(std::time::Duration::from_secs(5)).unwrap().unwrap();
    }
    portal.close().unwrap();
    // After the end, too: nobody is left waiting.
    volume.sync(Box::new(move |result| done.send(result).unwrap()));
    answers.recv_timeout(std::time::Duration::from_secs(5)).unwrap().unwrap();
    place.open().0.close().unwrap();
}

#[test]
fn what_posix_refuses_is_refused() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let dir = volume.make(ROOT, b"d", new(Body::Directory(NO_DIRECTORIES))).unwrap().ino;
    let inner = file(&volume, dir, "x").ino;
    let plain = file(&volume, ROOT, "f").ino;
    let refused = |result: warp_flow::Result<()>| match result {
        Err(FlowError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let make = |parent, name: &[u8]| volume.make(parent, name, new(Body::Fifo)).map(drop);
    let rename = |from: (u64, &[u8]), to: (u64, &[u8]), mode| volume.rename(from, to, mode);
    let replace = RenameMode::Replace;
    let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    let rows = [
        (refused(make(ROOT, b"f")), Refusal::Exists),
        (refused(make(plain, b"x")), Refusal::NotADirectory),
        (refused(make(ROOT, &[b'x'; 256])), Refusal::NameTooLong),
        (refused(make(ROOT, b"a/b")), Refusal::Invalid),
        (refused(make(77, b"x")), Refusal::Missing),
        (refused(volume.unlink(ROOT, b"d", false)), Refusal::IsADirectory),
        (refused(volume.unlink(ROOT, b"f", true)), Refusal::NotADirectory),
        (refused(volume.unlink(ROOT, b"d", true)), Refusal::NotEmpty),
        (refused(volume.unlink(ROOT, b"none", true)), Refusal::Missing),
        (refused(volume.link(dir, ROOT, b"d2").map(drop)), Refusal::IsADirectory),
        (refused(volume.link(inner, ROOT, b"f").map(drop)), Refusal::Exists),
        (refused(rename((ROOT, b"d"), (ROOT, b"f"), replace)), Refusal::NotADirectory),
        (refused(rename((ROOT, b"f"), (ROOT, b"d"), replace)), Refusal::IsADirectory),
        (refused(rename((ROOT, b"f"), (dir, b"x"), RenameMode::Keep)), Refusal::Exists),
        (refused(rename((ROOT, b"f"), (dir, b"y"), RenameMode::Exchange)), Refusal::Missing),
        (refused(volume.set_attr(dir, &size(1)).map(drop)), Refusal::IsADirectory),
        (refused(volume.set_attr(plain, &size(u64::MAX)).map(drop)), Refusal::TooLarge),
        (refused(volume.write(plain, i64::MAX as u64, b"x".to_vec(), false)), Refusal::TooLarge),
        (refused(volume.write(plain, u64::MAX, b"x".to_vec(), false)), Refusal::TooLarge),
        (refused(volume.remove_xattr(plain, b"user.none")), Refusal::NoAttribute),
        (refused(volume.set_xattr(plain, b"foo.a", b"1", XattrMode::Set)), Refusal::Unsupported),
        (refused(volume.set_xattr(plain, b"user.", b"1", XattrMode::Set)), Refusal::Invalid),
    ];
    for (i, (found, want)) in rows.into_iter().enumerate() {
        assert_eq!(found, want, "row {i}");
    }
    // The largest file there may be, and nothing stored of it.
    volume.set_attr(plain, &size(i64::MAX as u64)).unwrap();
    volume.write(plain, i64::MAX as u64 - 3, b"end".to_vec(), false).unwrap();
    assert_eq!(volume.read(plain, i64::MAX as u64 - 5, 10).unwrap(), b"\0\0end");
    portal.close().unwrap();
    let (portal, volume) = place.open();
    let plain = volume.lookup(ROOT, b"f").unwrap().unwrap().ino;
    assert_eq!(volume.read(plain, i64::MAX as u64 - 5, 10).unwrap(), b"\0\0end");
    portal.close().unwrap();
}

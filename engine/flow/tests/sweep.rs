//! What a sweep takes and what it leaves: trees, open files, changes that wait.

#[path = "common/place.rs"]
mod place;

use place::Place;
use std::time::{Duration, Instant};
use warp_flow::portal::{Portal, PortalVolume};
use warp_flow::volume::{NewInode, Volume};
use warp_flow::{FlowError, Refusal};
use warp_format::record::Body;

const ROOT: u64 = 1;
const MIB: usize = 1 << 20;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn make(volume: &PortalVolume, name: &str) -> u64 {
    let body = Body::Extents(0);
    let new = NewInode { permissions: 0o644, umask: 0, uid: 1000, gid: 1000, body };
    volume.make(ROOT, name.as_bytes(), new).unwrap().ino
}

fn put(volume: &PortalVolume, name: &str, bytes: &[u8]) -> u64 {
    let ino = make(volume, name);
    for (i, part) in bytes.chunks(MIB).enumerate() {
        volume.write(ino, (i * MIB) as u64, part.to_vec(), false).unwrap();
    }
    ino
}

fn unlink(volume: &PortalVolume, name: &str) {
    volume.unlink(ROOT, name.as_bytes(), false).unwrap();
}

fn stored(portal: &Portal) -> usize {
    portal.status().stored_bytes as usize
}

/// Half of what is there goes, and its room with it; the rest reads as before,
/// also after the next start, and what is written again is stored again.
#[test]
fn what_was_deleted_leaves_the_disk_and_nothing_else_does() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let inos: Vec<u64> = (0..40).map(|n| put(&volume, &format!("f{n}"), &noise(MIB, n))).collect();
    portal.publish().unwrap();
    assert!(stored(&portal) > 40 * MIB);
    (0..40).filter(|n| n % 2 == 0).for_each(|n| {
        unlink(&volume, &format!("f{n}"));
        volume.forget(inos[n], 1);
    });
    portal.publish().unwrap();
    portal.sweep_thoroughly().unwrap();
    let left = stored(&portal);
    assert!(left < 22 * MIB, "{left} bytes for 20 MiB");
    for n in (1..40).step_by(2) {
        assert!(volume.read(inos[n], 0, MIB).unwrap() == noise(MIB, n as u64), "f{n}");
    }
    // Known to have been stored, and no more there.
    let again = put(&volume, "again", &noise(MIB, 0));
    portal.close().unwrap();
    drop((portal, volume));
    let (portal, volume) = place.open();
    assert!(volume.lookup(ROOT, b"again").unwrap().unwrap().ino == again);
    assert!(volume.read(again, 0, MIB).unwrap() == noise(MIB, 0));
    for n in (1..40).step_by(2) {
        let found = volume.lookup(ROOT, format!("f{n}").as_bytes()).unwrap().unwrap();
        assert!(volume.read(found.ino, 0, MIB).unwrap() == noise(MIB, n as u64), "f{n}");
    }
    portal.close().unwrap();
}

/// Open files without a name keep their own content, and only that.
#[test]
fn an_open_file_without_a_name_reads_on_and_keeps_nothing_else() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let large = put(&volume, "large", &noise(3 * MIB + 5, 1));
    let small = put(&volume, "small", b"in the inode");
    let others: Vec<u64> =
        (0..20).map(|n| put(&volume, &format!("o{n}"), &noise(MIB, 100 + n))).collect();
    portal.publish().unwrap();
    for (n, ino) in others.iter().enumerate() {
        unlink(&volume, &format!("o{n}"));
        volume.forget(*ino, 1);
    }
    unlink(&volume, "large");
    unlink(&volume, "small");
    // Over what it had, and over what becomes too much for memory.
    let mut want = noise(3 * MIB + 5, 1);
    for i in 0..18usize {
        let (at, bytes) = (MIB * i + 77, noise(MIB, 200 + i as u64));
        want.resize(want.len().max(at + MIB), 0);
        want[at..at + MIB].copy_from_slice(&bytes);
        volume.write(large, at as u64, bytes, false).unwrap();
    }
    portal.publish().unwrap();
    portal.sweep_thoroughly().unwrap();
    assert!(stored(&portal) < 24 * MIB, "{}", stored(&portal));
    assert!(volume.read(large, 0, want.len()).unwrap() == want);
    assert_eq!(volume.read(small, 0, 100).unwrap(), b"in the inode");
    volume.write(small, 3, b"THE".to_vec(), false).unwrap();
    assert_eq!(volume.read(small, 0, 100).unwrap(), b"in THE inode");
    for ino in [large, small] {
        volume.forget(ino, 1);
    }
    portal.sweep_thoroughly().unwrap();
    assert!(stored(&portal) < 2 * MIB, "{}", stored(&portal));
    portal.close().unwrap();
}

/// Readers, writers, publishes and sweeps at once: every read is right.
#[test]
fn sweeps_disturb_neither_readers_nor_writers() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let steady: Vec<u64> =
        (0..8).map(|n| put(&volume, &format!("s{n}"), &noise(MIB / 2, n))).collect();
    portal.publish().unwrap();
    let until = Instant::now() + Duration::from_secs(6);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0u64.. {
                if Instant::now() > until {
                    return;
                }
                let name = format!("w{}", round % 5);
                let bytes = noise(300_000, 1000 + round);
                let ino = put(&volume, &name, &bytes);
                assert!(volume.read(ino, 0, bytes.len()).unwrap() == bytes);
                unlink(&volume, &name);
                assert!(volume.read(ino, 0, bytes.len()).unwrap() == bytes);
                volume.forget(ino, 1);
            }
        });
        scope.spawn(|| {
            while Instant::now() < until {
                portal.publish().unwrap();
                portal.sweep_thoroughly().unwrap();
            }
        });
        for (n, ino) in steady.iter().enumerate() {
            let volume = &volume;
            scope.spawn(move || {
                while Instant::now() < until {
                    let read = volume.read(*ino, 0, MIB).unwrap();
                    assert!(read == noise(MIB / 2, n as u64), "s{n}");
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
    });
    assert!(stored(&portal) < 20 * MIB, "{}", stored(&portal));
    portal.close().unwrap();
}

/// A quota is refused when it is reached, gives room again, and is kept.
#[test]
fn a_quota_refuses_what_is_more_and_takes_what_fits_after_a_deletion() {
    let place = Place::new(Some(24 << 20));
    for round in 0..3u64 {
        let (portal, volume) = place.open();
        let mut files = Vec::new();
        let refused = loop {
            let ino = make(&volume, &format!("f{}", files.len()));
            files.push(ino);
            let bytes = noise(MIB, round * 1000 + files.len() as u64);
            if let Err(e) = volume.write(ino, 0, bytes, false) {
                break e;
            }
            assert!(files.len() < 30, "nothing refused");
        };
        assert!(matches!(refused, FlowError::Refused(Refusal::Quota)), "{refused}");
        assert!(files.len() > 20, "round {round}: only {} MiB", files.len());
        let space = volume.space().unwrap();
        assert!(space.bytes == 24 << 20 && space.available < 3 << 20, "{space:?}");
        let stored = stored(&portal);
        assert!(stored <= 24 * MIB, "{stored}");
        for (n, ino) in files.iter().enumerate() {
            if n < files.len() - 1 {
                let want = noise(MIB, round * 1000 + n as u64 + 1);
                assert!(volume.read(*ino, 0, MIB).unwrap() == want);
            }
            unlink(&volume, &format!("f{n}"));
            volume.forget(*ino, 1);
        }
        portal.close().unwrap();
    }
}

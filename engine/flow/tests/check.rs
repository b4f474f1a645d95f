//! Damage is found wherever it is, named by the files that it hits and no
//! others, and mended as far as bytes are left.

#[path = "common/place.rs"]
mod place;

use place::Place;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warp_cache::disk::HostDisk;
use warp_cache::journal::Journal;
use warp_flow::check::{Checked, Reads};
use warp_flow::portal::{Portal, PortalVolume};
use warp_flow::repair::Repaired;
use warp_flow::volume::{NewInode, Volume, XattrMode};
use warp_flow::{Kind, Progress};
use warp_format::dedup::{Part, decode_parts, encode_parts};
use warp_format::local::LocalKey;
use warp_format::pack::PackIndex;
use warp_format::portal::PortalRecord;
use warp_format::record::{Body, NO_DIRECTORIES};
use warp_format::{ContentHash, Keyring, Secret};

const ROOT: u64 = 1;
const MIB: usize = 1 << 20;
/// Flipped bits, one at a time; `tests/tests/check.rs` has the thousand.
const ROUNDS: usize = 24;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn make(volume: &PortalVolume, parent: u64, name: &str, body: Body) -> u64 {
    let new = NewInode { permissions: 0o755, umask: 0, uid: 1000, gid: 1000, body };
    volume.make(parent, name.as_bytes(), new).unwrap().ino
}

fn put(volume: &PortalVolume, parent: u64, name: &str, bytes: &[u8]) -> u64 {
    let ino = make(volume, parent, name, Body::Extents(0));
    for (i, part) in bytes.chunks(MIB).enumerate() {
        volume.write(ino, (i * MIB) as u64, part.to_vec(), false).unwrap();
    }
    ino
}

type Contents = BTreeMap<String, Vec<u8>>;

/// Files of all kinds in a tree of many nodes; their paths and contents.
fn fill(volume: &PortalVolume) -> Contents {
    let mut all = Contents::new();
    for d in 0..12u64 {
        let dir = make(volume, ROOT, &format!("dir-{d}"), Body::Directory(NO_DIRECTORIES));
        for f in 0..40 {
            let seed = 1000 * d + f;
            let len = [40, 300, 700, 1_500, 3_000][(seed % 5) as usize] + seed as usize;
            let (name, bytes) = (format!("file-{f}"), noise(len, seed));
            let ino = put(volume, dir, &name, &bytes);
            if f % 7 == 0 {
                let value = noise(300, seed);
                volume.set_xattr(ino, b"user.x", &value, XattrMode::Set).unwrap();
            }
            all.insert(format!("/dir-{d}/{name}"), bytes);
        }
    }
    let large = noise(MIB, 7);
    put(volume, ROOT, "large", &large);
    all.insert("/large".into(), large);
    all
}

fn state(place: &Place) -> PathBuf {
    place.portals().find("p").unwrap().directory.join("state")
}

fn files(place: &Place, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(state(place)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// All files of the state, with their bytes.
fn snapshot(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(state(place)).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn bring_back(place: &Place, before: &BTreeMap<PathBuf, Vec<u8>>) {
    for path in snapshot(place).into_keys().filter(|path| !before.contains_key(path)) {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in before {
        fs::write(path, bytes).unwrap();
    }
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

/// A place with files, closed.
fn filled() -> (Place, Contents) {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let all = fill(&volume);
    portal.close().unwrap();
    (place, all)
}

fn check(portal: &Portal, reads: Reads) -> Checked {
    portal.check(reads, &Progress::default()).unwrap()
}

fn paths(checked: &[warp_flow::Problem]) -> BTreeSet<String> {
    checked.iter().map(|problem| String::from_utf8(problem.path.clone()).unwrap()).collect()
}

/// The inode at a path, as a process would come to it.
fn lookup(volume: &PortalVolume, path: &str) -> warp_flow::Result<u64> {
    let mut at = ROOT;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = volume.lookup(at, name.as_bytes())?.expect("it was made").ino;
    }
    Ok(at)
}

fn read(volume: &PortalVolume, path: &str) -> warp_flow::Result<Vec<u8>> {
    let ino = lookup(volume, path)?;
    let size = volume.attr(ino)?.expect("it is there").inode.size;
    for name in volume.xattrs(ino)? {
        volume.xattr(ino, &name)?;
    }
    volume.read(ino, 0, size as usize)
}

fn lists(volume: &PortalVolume, path: &str) -> bool {
    let Ok(ino) = lookup(volume, path) else { return false };
    let mut place = None;
    loop {
        match volume.entries(ino, place, 16, false) {
            Ok(entries) if entries.is_empty() => return true,
            Ok(entries) => place = entries.last().map(|entry| entry.place),
            Err(_) => return false,
        }
    }
}

/// What `problems` names is what cannot be read, and nothing else is.
fn names_what_it_hits(volume: &PortalVolume, all: &Contents, named: &BTreeSet<String>, what: &str) {
    let above = |path: &str, named: &str| {
        named == "/" || path.strip_prefix(named).is_some_and(|rest| rest.starts_with('/'))
    };
    for (path, want) in all {
        match read(volume, path) {
            Ok(found) => {
                assert!(found == *want, "{what}: {path} has other bytes");
                assert!(!named.contains(path), "{what}: {path} is named and can be read");
            }
            Err(e) => assert!(
                named.contains(path) || named.iter().any(|named| above(path, named)),
                "{what}: {path} is not named: {e}; {named:?}"
            ),
        }
    }
    for path in named.iter().filter(|path| !all.contains_key(*path)) {
        assert!(!lists(volume, path), "{what}: {path} is named and can be listed");
    }
}

#[test]
fn a_sound_portal_is_sound_and_what_was_not_read_is_counted() {
    let (place, all) = filled();
    let (portal, _volume) = place.open();
    let stored: u64 = files(&place, "pack").iter().map(|path| path.metadata().unwrap().len()).sum();
    let names = all.len() as u64 + 12;
    let nothing = check(&portal, Reads::Nothing);
    assert!(nothing.is_sound() && nothing.unpublished.is_none(), "{nothing:?}");
    assert_eq!((nothing.names, nothing.chunks_read, nothing.data_bytes_read), (names, 0, 0));
    assert!(nothing.nodes > 5 && nothing.chunks > 20, "{nothing:?}");
    assert!(nothing.stored_bytes_read < stored / 20, "{nothing:?}");
    let seed = 5;
    let some = check(&portal, Reads::Sample { share: 0.3, seed });
    assert!(some.is_sound(), "{some:?}");
    assert!(some.chunks_read > 0 && some.chunks_read < some.chunks, "{some:?}");
    assert!(some.data_bytes_read < some.data_bytes, "{some:?}");
    let same = check(&portal, Reads::Sample { share: 0.3, seed });
    assert_eq!(some.data_bytes_read, same.data_bytes_read);
    let every = check(&portal, Reads::Everything);
    assert!(every.is_sound(), "{every:?}");
    assert_eq!((every.chunks_read, every.data_bytes_read), (every.chunks, every.data_bytes));
    assert_eq!((every.stored_bytes, every.stored_bytes_read), (stored, stored));
    portal.close().unwrap();
}

/// One flipped bit at a time, anywhere in any pack.
#[test]
fn every_flipped_bit_is_found_and_the_files_that_it_hits_are_named() {
    let (place, all) = filled();
    let before = snapshot(&place);
    let packs = files(&place, "pack");
    let mut draw = noise(12 * ROUNDS, 99).into_iter().map(usize::from);
    let mut draw = || draw.by_ref().take(4).fold(0, |n, byte| n << 8 | byte);
    let (mut hits, mut misses) = (0, 0);
    for round in 0..ROUNDS {
        let pack = &packs[draw() % packs.len()];
        let (at, bit) = (draw() % before[pack].len(), (draw() % 8) as u8);
        flip(pack, at, bit);
        let what = format!("round {round}: byte {at} of {}", pack.display());
        let portal = place.portals().open("p").unwrap();
        let found = check(&portal, Reads::Everything);
        let covers =
            |d: &warp_flow::check::Damage| (d.offset..d.offset + d.len).contains(&(at as u64));
        assert!(found.damage.iter().any(covers), "{what}: {found:?}");
        let named = paths(&found.problems);
        match portal.volume(Path::new("/")) {
            Ok(volume) => names_what_it_hits(&volume, &all, &named, &what),
            // The root node: nothing can be shown.
            Err(e) => assert!(e.kind() == Kind::Integrity && !named.is_empty(), "{what}: {e}"),
        }
        if named.is_empty() {
            misses += 1
        } else {
            hits += 1
        }
        assert!(portal.status().damaged_chunks > 0 || found.damage.iter().all(|d| d.readable));
        drop(portal.close_unpublished());
        bring_back(&place, &before);
    }
    assert!(hits > ROUNDS / 2 && misses < ROUNDS / 4, "{hits} hits, {misses} misses");
}

/// Damage of nodes: what lies in them is named, whatever is left around it.
#[test]
fn damaged_nodes_cost_what_is_in_them_and_stop_a_sweep() {
    let (place, all) = filled();
    let before = snapshot(&place);
    // Nodes come behind the data of the same publish, the root last.
    let last = files(&place, "pack").pop().unwrap();
    let mut partly = 0;
    for back in [20, 500, 2_000, 8_000, 16_000, 24_000, 30_000] {
        flip(&last, before[&last].len() - back, 3);
        let what = format!("{back} before the end");
        let portal = place.portals().open("p").unwrap();
        let found = check(&portal, Reads::Nothing);
        let named = paths(&found.problems);
        assert!(!named.is_empty(), "{what}: {found:?}");
        match portal.volume(Path::new("/")) {
            Ok(volume) => names_what_it_hits(&volume, &all, &named, &what),
            Err(e) => assert!(e.is_damage() && named.contains("/"), "{what}: {named:?}"),
        }
        partly += usize::from(!named.contains("/"));
        let stored = portal.status().stored_bytes;
        assert!(portal.sweep_thoroughly().is_err(), "{what}: a sweep went on");
        assert_eq!(portal.status().stored_bytes, stored, "{what}");
        portal.close_unpublished().unwrap();
        bring_back(&place, &before);
    }
    assert!(partly > 2, "only {partly} were leaves");
}

/// A damaged content that is written again is stored again, and with it all
/// files that have it are whole.
#[test]
fn content_that_comes_again_heals_what_was_damaged() {
    let (place, all) = filled();
    let (portal, _) = place.open();
    let len = check(&portal, Reads::Nothing).data_bytes;
    portal.close().unwrap();
    assert!(len > 0);
    let mut hit = None;
    for at in (10_000..).step_by(30_000) {
        let pack = &files(&place, "pack")[0];
        flip(pack, at, 0);
        let (portal, _) = place.open();
        let named = paths(&check(&portal, Reads::Everything).problems);
        portal.close().unwrap();
        if named.contains("/large") {
            hit = Some(named);
            break;
        }
        flip(pack, at, 0);
    }
    assert_eq!(hit.unwrap().len(), 1);
    let (portal, volume) = place.open();
    // Known from before, by what was noted.
    assert_eq!(portal.status().damaged_chunks, 1);
    assert!(read(&volume, "/large").is_err());
    put(&volume, ROOT, "again", &all["/large"]);
    portal.publish().unwrap();
    assert!(read(&volume, "/again").unwrap() == all["/large"]);
    assert!(read(&volume, "/large").unwrap() == all["/large"]);
    assert_eq!(portal.status().damaged_chunks, 0);
    portal.close().unwrap();
    let (portal, volume) = place.open();
    assert!(read(&volume, "/large").unwrap() == all["/large"]);
    assert_eq!(paths(&check(&portal, Reads::Everything).problems).len(), 0);
    portal.close().unwrap();
}

fn repair(place: &Place, dry_run: bool) -> Repaired {
    place.portals().repair("p", dry_run, &Progress::default()).unwrap()
}

fn is_whole(place: &Place, all: &Contents) {
    let (portal, volume) = place.open();
    for (path, want) in all {
        assert!(read(&volume, path).unwrap() == *want, "{path}");
    }
    let found = check(&portal, Reads::Everything);
    assert!(found.is_sound(), "{found:?}");
    portal.close().unwrap();
}

/// An index that is whole in itself, and says of every chunk that it is where
/// another one is.
fn liar(right: &[u8]) -> Vec<u8> {
    let mut index = PackIndex::decode(right).unwrap();
    let ids: Vec<_> = index.entries.iter().map(|(id, _)| *id).collect();
    let others = ids.iter().cycle().skip(1);
    index.entries.iter_mut().zip(others).for_each(|(entry, id)| entry.0 = *id);
    index.encode()
}

/// Indexes that are lost, torn, or lie: everything comes back; what would be
/// done is said first, and nothing is done then.
#[test]
fn the_index_is_made_anew_and_a_dry_run_changes_nothing() {
    let (place, all) = filled();
    assert!(repair(&place, false).was_sound());
    let before = snapshot(&place);
    let indexes = files(&place, "idx");
    for case in 0..4 {
        for index in &indexes {
            match case {
                0 => fs::remove_file(index).unwrap(),
                1 => fs::write(index, &before[index][..before[index].len() - 7]).unwrap(),
                2 => flip(index, before[index].len() / 2, 4),
                _ => fs::write(index, liar(&before[index])).unwrap(),
            }
        }
        let damaged = snapshot(&place);
        let would = repair(&place, true);
        assert_eq!(would.indexes.len(), indexes.len(), "case {case}");
        assert!(would.set_aside.is_empty() && would.problems.is_empty(), "{would:?}");
        assert!(snapshot(&place) == damaged, "case {case}: a dry run changed something");
        let done = repair(&place, false);
        assert_eq!(done.indexes, would.indexes, "case {case}");
        assert!(snapshot(&place) == before, "case {case}");
        assert!(repair(&place, false).was_sound());
    }
    is_whole(&place, &all);
}

/// Damage and the loss of all indexes at once: what is whole is kept, what is
/// not is named, and the bytes of the damaged packs are where it says.
#[test]
fn a_damaged_pack_is_set_aside_and_what_is_whole_in_it_kept() {
    let (place, mut all) = filled();
    let pack = files(&place, "pack").swap_remove(0);
    [100_000, 500_000, 700_000].into_iter().for_each(|at| flip(&pack, at, 6));
    files(&place, "idx").into_iter().for_each(|index| fs::remove_file(index).unwrap());
    let damaged = snapshot(&place);
    let would = repair(&place, true);
    assert!(snapshot(&place) == damaged, "a dry run changed something");
    let done = repair(&place, false);
    assert_eq!(paths(&done.problems), paths(&would.problems));
    assert!(!done.problems.is_empty());
    assert_eq!((done.set_aside.len(), would.set_aside.len()), (1, 1));
    let aside = state(&place).join(done.set_aside[0].aside.as_ref().unwrap());
    assert!(fs::read(aside).unwrap() == damaged[&pack]);
    let (portal, volume) = place.open();
    let found = check(&portal, Reads::Everything);
    assert_eq!(found.damage, []);
    let named = paths(&found.problems);
    assert_eq!(named, paths(&done.problems));
    names_what_it_hits(&volume, &all, &named, "after repair");
    // What is copied back is whole again.
    for path in &named {
        let bytes = all.remove(path).unwrap();
        let (dir, name) = path.rsplit_once('/').unwrap();
        let dir = lookup(&volume, dir).unwrap();
        volume.unlink(dir, name.as_bytes(), false).unwrap();
        put(&volume, dir, name, &bytes);
        all.insert(path.clone(), bytes);
    }
    drop(volume);
    portal.close().unwrap();
    assert!(repair(&place, false).was_sound());
    is_whole(&place, &all);
}

/// What is remembered of stored contents would make other content of what is
/// written, if it were wrong.
#[test]
fn a_dedup_log_that_lies_is_discarded() {
    let (place, all) = filled();
    let entry = place.portals().find("p").unwrap();
    let keyring = Keyring::new(Secret::new([1; 32]), Secret::new([2; 32])).unwrap();
    let (_, key) = keyring.phrase().unwrap().owner_keys();
    let record = PortalRecord::open(&fs::read(entry.directory.join("portal")).unwrap(), &key);
    let local = record.unwrap().local;
    let disk = Arc::new(HostDisk::new(state(&place)).unwrap());
    let mut nonce = 0u8;
    let nonces = Box::new(move || {
        nonce += 1;
        [nonce; 24]
    });
    let log = |local: &Secret| LocalKey::new(local.for_dedup());
    assert!(!repair(&place, true).dedup_discarded);
    let (journal, entries) = Journal::open(disk, "dedup-", log(&local), nonces).unwrap();
    let mut list = decode_parts(&entries[0]).unwrap();
    let lie = Part { hash: ContentHash([7; 32]), ..list[0].parts[0] };
    list[0].parts = vec![lie];
    journal.append(&encode_parts(&list[..1]));
    journal.commit().unwrap();
    drop(journal);
    let before = snapshot(&place);
    assert!(repair(&place, true).dedup_discarded);
    assert!(snapshot(&place) == before, "a dry run changed something");
    assert!(repair(&place, false).dedup_discarded);
    assert!(!repair(&place, false).dedup_discarded);
    is_whole(&place, &all);
}

#[test]
fn a_portal_that_is_open_is_not_repaired() {
    let place = Place::new(None);
    let (portal, volume) = place.open();
    let refused = place.portals().repair("p", true, &Progress::default()).unwrap_err();
    assert!(matches!(refused, warp_flow::FlowError::InUse { .. }), "{refused}");
    drop(volume);
    portal.close().unwrap();
    repair(&place, false);
}

#[test]
fn a_check_that_is_stopped_says_so() {
    let (place, _) = filled();
    let (portal, _volume) = place.open();
    let progress = Progress::default();
    progress.stop();
    let stopped = portal.check(Reads::Everything, &progress).unwrap_err();
    assert!(matches!(stopped, warp_flow::FlowError::Interrupted), "{stopped}");
    portal.close().unwrap();
}

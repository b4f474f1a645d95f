//! Damage of packs is found wherever it is, costs what it touches, and is
//! mended as far as bytes are left.

use std::collections::HashSet;
use std::sync::Arc;
use warp_cache::disk::{Disk, HostDisk};
use warp_cache::store::{Audit, Class, Store};
use warp_format::{ChunkId, SealedChunk};

const CHUNKS: u64 = 60;

fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn chunk(n: u64) -> SealedChunk {
    let mut noise = noise(n + 1);
    let len = 30 + (n as usize * 379) % 900;
    SealedChunk::found((0..len).map(|_| (noise() >> 32) as u8).collect())
}

fn open(dir: &std::path::Path) -> Store {
    let disk: Arc<dyn Disk> = Arc::new(HostDisk::new(dir.into()).unwrap());
    Store::open_with(disk, 6000).unwrap().0
}

fn filled(dir: &std::path::Path) -> Store {
    let store = open(dir);
    (0..CHUNKS).for_each(|n| store.put(&chunk(n), Class::Own).unwrap());
    store.sync().unwrap();
    store
}

fn audit(store: &Store) -> Audit {
    let mut all = Audit::default();
    for name in store.packs() {
        all.add(store.audit(name).unwrap().unwrap());
    }
    all
}

fn packs(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut packs: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "pack")).collect();
    packs.sort();
    packs
}

#[test]
fn an_audit_reads_every_byte_and_finds_nothing_where_nothing_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let found = audit(&store);
    let len: u64 = packs(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!((found.bytes, found.chunks, found.damage.len()), (len, CHUNKS, 0));
}

/// One flipped bit at a time, anywhere: it is found, before and after the
/// store is opened again, with and without its indexes.
#[test]
fn no_flipped_bit_of_a_pack_passes() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let mut draw = noise(7);
    for round in 0..200 {
        let packs = packs(dir.path());
        let path = &packs[draw() as usize % packs.len()];
        let before = std::fs::read(path).unwrap();
        let mut bytes = before.clone();
        let at = draw() as usize % bytes.len();
        bytes[at] ^= 1 << (draw() % 8);
        std::fs::write(path, &bytes).unwrap();
        let found = audit(&store);
        assert_eq!(found.damage.len(), 1, "round {round}: byte {at} of {}", path.display());
        let damage = &found.damage[0];
        assert!((damage.offset..damage.offset + damage.len).contains(&(at as u64)), "{damage:?}");
        if let Some(id) = damage.chunk {
            assert_eq!(store.get(&id).is_ok(), damage.readable);
        }
        // A damaged last record cannot be told from one that was being written.
        if Some(path) != packs.last() {
            assert!(!audit(&open(dir.path())).damage.is_empty(), "round {round}: opened again");
        }
        std::fs::write(path, &before).unwrap();
    }
    assert!(audit(&store).damage.is_empty());
}

/// Whole chunks survive the loss of all indexes and the damage of their
/// neighbours; what is set aside leaves a store without damage.
#[test]
fn what_is_whole_is_kept_when_a_damaged_pack_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let path = packs(dir.path()).swap_remove(1);
    let mut bytes = std::fs::read(&path).unwrap();
    for at in [40, 1500, 3000] {
        bytes[at] ^= 4;
    }
    std::fs::write(&path, &bytes).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "idx") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let store = open(dir.path());
    let whole = |store: &Store| -> HashSet<ChunkId> {
        (0..CHUNKS).map(|n| chunk(n).id()).filter(|id| store.get(id).is_ok()).collect()
    };
    let before = whole(&store);
    assert!((CHUNKS as usize - 3..CHUNKS as usize).contains(&before.len()), "{}", before.len());
    for name in store.packs() {
        if !store.audit(name).unwrap().unwrap().damage.is_empty() {
            let aside = store.set_aside(name).unwrap().unwrap();
            assert!(dir.path().join(aside).exists());
        }
    }
    assert!(audit(&store).damage.is_empty());
    assert_eq!(whole(&store), before);
    assert_eq!(whole(&open(dir.path())), before);
    // What is written again is stored again.
    (0..CHUNKS).for_each(|n| store.put(&chunk(n), Class::Own).unwrap());
    assert_eq!(whole(&store).len(), CHUNKS as usize);
}

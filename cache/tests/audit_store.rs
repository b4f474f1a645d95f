//! Damage of packs is found wherever it is, costs what it touches, and is
//! mended as far as bytes are left.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warp_cache::disk::{Disk, HostDisk};
use warp_cache::store::{Audit, Class, Contents, Examined, Remedy, Store};
use warp_cache::testing::{CrashDisk, Fate, Op};
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

fn disk(dir: &Path) -> Arc<dyn Disk> {
    Arc::new(HostDisk::new(dir.into()).unwrap())
}

fn open(dir: &Path) -> Store {
    Store::open_with(disk(dir), 6000).unwrap().0
}

fn filled(dir: &Path) -> Store {
    let store = open(dir);
    (0..CHUNKS).for_each(|n| store.put(&chunk(n), Class::Own).unwrap());
    store.sync().unwrap();
    store
}

fn audit_some(store: &Store, takes: &dyn Fn(&ChunkId) -> bool) -> Audit {
    let mut all = Audit::default();
    for name in store.packs() {
        all.add(store.audit(name, takes, &mut |_| {}).unwrap().unwrap());
    }
    all
}

fn audit(store: &Store) -> Audit {
    audit_some(store, &|_| true)
}

fn whole(store: &Store) -> HashSet<ChunkId> {
    (0..CHUNKS).map(|n| chunk(n).id()).filter(|id| store.get(id).is_ok()).collect()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn packs(dir: &Path) -> Vec<PathBuf> {
    files(dir, "pack")
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    std::fs::write(path, bytes).unwrap();
}

fn examine(dir: &Path) -> (Contents, Vec<Examined>) {
    let mut contents = Contents::new(disk(dir));
    let packs = contents.packs().unwrap();
    let last = packs.last().map(|(name, _)| *name);
    let examined =
        packs.iter().map(|(name, _)| contents.examine(*name, Some(*name) == last).unwrap());
    let examined = examined.collect();
    (contents, examined)
}

fn mend(dir: &Path) -> Vec<Examined> {
    let (contents, examined) = examine(dir);
    for found in &examined {
        let mended = contents.mend(found).unwrap();
        assert_eq!(mended.aside.is_some(), found.remedy == Remedy::SetAside);
        assert!(mended.aside.is_none_or(|aside| dir.join(aside).exists()));
    }
    examined
}

#[test]
fn an_audit_reads_every_byte_and_finds_nothing_where_nothing_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let len: u64 = packs(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    let found = audit(&store);
    assert_eq!((found.bytes, found.bytes_read, found.chunks_read), (len, len, CHUNKS));
    assert_eq!(found.damage, []);
    let found = audit_some(&store, &|_| false);
    assert_eq!((found.bytes, found.chunks, found.chunks_read), (len, CHUNKS, 0));
    assert!(found.bytes_read < len / 4, "{}", found.bytes_read);
    assert_eq!(found.damage, []);
}

/// One flipped bit at a time, anywhere: it is found, before and after the
/// store is opened again, and by who looks at the packs alone.
#[test]
fn no_flipped_bit_of_a_pack_passes() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    store.settle().unwrap();
    let mut draw = noise(7);
    for round in 0..200 {
        let packs = packs(dir.path());
        let path = &packs[draw() as usize % packs.len()];
        let at = draw() as usize % path.metadata().unwrap().len() as usize;
        let bit = (draw() % 8) as u8;
        flip(path, at, bit);
        let what = format!("round {round}: byte {at} of {}", path.display());
        for (found, how) in [
            (audit(&store).damage, "while open"),
            (audit(&open(dir.path())).damage, "opened again"),
            (examine(dir.path()).1.into_iter().flat_map(|e| e.damage).collect(), "alone"),
        ] {
            assert_eq!(found.len(), 1, "{what}, {how}");
            let range = found[0].offset..found[0].offset + found[0].len;
            assert!(range.contains(&(at as u64)), "{what}, {how}: {:?}", found[0]);
            if let Some(id) = found[0].chunk {
                assert_eq!(store.get(&id).is_ok(), found[0].readable, "{what}, {how}");
            }
        }
        flip(path, at, bit);
    }
    // What is right again is believed again.
    assert_eq!(audit(&store).damage, []);
    assert_eq!(store.damaged(), []);
    assert_eq!(whole(&store).len(), CHUNKS as usize);
}

/// A version that a flipped bit makes newer hides nothing.
#[test]
fn a_flipped_bit_of_the_header_does_not_keep_the_store_from_opening() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    for (at, bit) in [(8, 5), (8, 0), (0, 1), (9, 1), (12, 0), (20, 3)] {
        flip(&packs(dir.path())[1], at, bit);
        let store = open(dir.path());
        assert_eq!(whole(&store).len(), CHUNKS as usize, "byte {at}");
        assert_eq!(audit(&store).damage.len(), 1, "byte {at}");
        flip(&packs(dir.path())[1], at, bit);
    }
}

/// Without its index as with it, whole chunks survive the damage of their
/// neighbours, and what is mended has none.
#[test]
fn what_is_whole_is_kept_when_a_damaged_pack_is_set_aside() {
    for with_index in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()));
        let path = packs(dir.path()).swap_remove(1);
        [40, 1500, 3000].into_iter().for_each(|at| flip(&path, at, 2));
        let damaged = std::fs::read(&path).unwrap();
        if !with_index {
            files(dir.path(), "idx")
                .into_iter()
                .for_each(|file| std::fs::remove_file(file).unwrap());
        }
        let before = whole(&open(dir.path()));
        assert!((CHUNKS as usize - 3..CHUNKS as usize).contains(&before.len()), "{}", before.len());
        let remedies: Vec<Remedy> = mend(dir.path()).iter().map(|found| found.remedy).collect();
        assert_eq!(remedies.iter().filter(|r| **r == Remedy::SetAside).count(), 1);
        let aside = dir.path().join(format!("{}.damaged", path.file_name().unwrap().display()));
        assert!(std::fs::read(aside).unwrap() == damaged, "nothing of it is deleted");
        let store = open(dir.path());
        assert_eq!(audit(&store).damage, []);
        assert_eq!(whole(&store), before);
        assert!(mend(dir.path()).iter().all(|found| found.remedy == Remedy::Nothing));
        // What is written again is stored again.
        (0..CHUNKS).for_each(|n| store.put(&chunk(n), Class::Own).unwrap());
        assert_eq!(whole(&store).len(), CHUNKS as usize);
    }
}

/// Indexes that are lost, torn, flipped, or another pack's.
#[test]
fn indexes_are_made_anew_from_the_packs() {
    for what in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()));
        let indexes = files(dir.path(), "idx");
        let right: Vec<_> = indexes.iter().map(|file| std::fs::read(file).unwrap()).collect();
        for (i, file) in indexes.iter().enumerate() {
            match what {
                0 => std::fs::remove_file(file).unwrap(),
                1 => std::fs::write(file, &right[i][..right[i].len() / 2]).unwrap(),
                2 => flip(file, 100, 3),
                _ => std::fs::write(file, liar(&right[i])).unwrap(),
            }
        }
        let examined = mend(dir.path());
        let made = examined.iter().filter(|found| found.remedy == Remedy::Index).count();
        // The one that was being filled never had one.
        assert_eq!(made, indexes.len() + 1, "case {what}");
        for (file, right) in indexes.iter().zip(&right) {
            assert!(std::fs::read(file).unwrap() == *right, "case {what}: {}", file.display());
        }
        let store = open(dir.path());
        assert_eq!(audit(&store).damage, [], "case {what}");
        assert_eq!(whole(&store).len(), CHUNKS as usize, "case {what}");
    }
}

/// An index that is whole in itself and speaks of chunks that are not there.
fn liar(right: &[u8]) -> Vec<u8> {
    let mut index = warp_format::pack::PackIndex::decode(right).unwrap();
    index.entries.iter_mut().for_each(|(id, _)| id.0[5] ^= 1);
    index.encode()
}

/// A damaged chunk whose content comes again is stored again, and found also
/// after the next start; a copy that is left is used.
#[test]
fn a_damaged_chunk_is_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let path = packs(dir.path()).swap_remove(0);
    flip(&path, 100, 1);
    let found = audit(&store).damage;
    let id = found[0].chunk.unwrap();
    assert!(!store.contains(&id) && store.get(&id).is_err());
    assert_eq!(store.damaged(), [id]);
    let again = (0..CHUNKS).map(chunk).find(|chunk| chunk.id() == id).unwrap();
    store.put(&again, Class::Own).unwrap();
    store.sync().unwrap();
    assert!(store.contains(&id) && store.damaged().is_empty());
    assert_eq!(store.get(&id).unwrap(), again);
    let store = open(dir.path());
    assert_eq!(store.get(&id).unwrap(), again);
    assert!(store.contains(&id) && store.damaged().is_empty());
}

fn mend_all(disk: &Arc<dyn Disk>) {
    let mut contents = Contents::new(Arc::clone(disk));
    let packs = contents.packs().unwrap();
    let examined: Vec<Examined> = packs
        .iter()
        .map(|(name, _)| contents.examine(*name, Some(*name) == packs.last().map(|p| p.0)).unwrap())
        .collect();
    examined.iter().for_each(|found| drop(contents.mend(found).unwrap()));
}

/// Cut off at any point by a power cut, mending is done over, and loses
/// nothing of what was whole.
#[test]
fn mending_may_be_cut_off_anywhere() {
    let crash = CrashDisk::default();
    let disk: Arc<dyn Disk> = Arc::new(crash.clone());
    let store = Store::open_with(Arc::clone(&disk), 6000).unwrap().0;
    (0..CHUNKS).for_each(|n| store.put(&chunk(n), Class::Own).unwrap());
    store.sync().unwrap();
    drop(store);
    for (pack, at) in [("own-00000002.pack", 1000), ("own-00000003.pack", 4000)] {
        let pack = disk.open(pack).unwrap().unwrap();
        let mut byte = [0];
        pack.read_at(&mut byte, at).unwrap();
        pack.write_at(&[byte[0] ^ 1], at).unwrap();
        pack.sync().unwrap();
    }
    disk.sync_names().unwrap();
    let before = crash.log().len();
    let there = whole(&Store::open_with(Arc::clone(&disk), 6000).unwrap().0);
    assert_eq!(there.len(), CHUNKS as usize - 2);
    mend_all(&disk);
    let log = crash.log();
    assert!(log.len() > before + 40, "{}", log.len() - before);
    let mut draw = noise(3);
    for cut in before..=log.len() {
        let log = &log[..cut];
        let loose = log.iter().rev().take_while(|op| **op != Op::SyncNames);
        for names in 0..=loose.filter(|op| op.is_naming()).count() {
            let mut fate = |_: &Op| match draw() % 3 {
                0 => Fate::Lost,
                1 => Fate::Torn((draw() % 700) as usize),
                _ => Fate::Whole,
            };
            let image: Arc<dyn Disk> = Arc::new(CrashDisk::after(log, &mut fate, names));
            mend_all(&image);
            let store = Store::open_with(Arc::clone(&image), 6000).unwrap().0;
            assert_eq!(whole(&store), there, "cut {cut}, {names} names");
            assert_eq!(audit(&store).damage, [], "cut {cut}, {names} names");
        }
    }
}

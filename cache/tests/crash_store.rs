//! A store is cut at every point of its own write log: it always opens, gives
//! no wrong byte, and has every chunk that a sync acknowledged.

use std::collections::HashSet;
use std::sync::Arc;
use warp_cache::store::{Class, Store};
use warp_cache::testing::{Barrier, CrashDisk, Fate, Op};
use warp_format::{ChunkId, SealedChunk};

/// Small packs, so that some are closed within a short run.
const PACK_LEN: u64 = 6000;

/// The `n`-th chunk: suite 0, stored bytes that look like nothing else.
fn chunk(n: u64) -> SealedChunk {
    let mut bytes = vec![0u8; 100 + (n as usize * 379) % 1500];
    let mut noise = blake3_noise(n);
    bytes.iter_mut().for_each(|b| *b = noise());
    SealedChunk::found(bytes)
}

fn blake3_noise(seed: u64) -> impl FnMut() -> u8 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    }
}

fn open(disk: &CrashDisk) -> Result<Store, String> {
    Store::open_with(Arc::new(disk.clone()), PACK_LEN).map(|(s, _)| s).map_err(|e| e.to_string())
}

/// Puts chunks 1, 2, 3, … of two classes, syncs now and then and marks what
/// is acknowledged.
fn run(disk: &CrashDisk) {
    let store = open(disk).unwrap();
    for n in 1..=40 {
        let class = if n % 3 == 0 { Class::Cached } else { Class::Own };
        store.put(&chunk(n), class).unwrap();
        if n % 4 == 0 {
            store.sync().unwrap();
            disk.mark(n);
        }
    }
}

fn acknowledged(log: &[Op]) -> u64 {
    log.iter().rev().find_map(|op| if let Op::Mark(m) = op { Some(*m) } else { None }).unwrap_or(0)
}

fn check(log: &[Op], image: &CrashDisk, ids: &[ChunkId]) -> Result<(), String> {
    let acknowledged = acknowledged(log);
    let store = open(image)?;
    for (id, n) in ids.iter().zip(1..) {
        match store.get(id) {
            Ok(found) if found == chunk(n) => {}
            Ok(_) => return Err(format!("chunk {n} has other bytes")),
            Err(e) if n <= acknowledged => return Err(format!("chunk {n} of {acknowledged}: {e}")),
            Err(_) => {}
        }
    }
    // It goes on: what is put and synced now is there after the next start.
    store.put(&chunk(1000), Class::Own).map_err(|e| e.to_string())?;
    store.sync().map_err(|e| e.to_string())?;
    let again = open(image)?;
    again.get(&chunk(1000).id()).map_err(|e| format!("after the crash: {e}"))?;
    Ok(())
}

fn crashes(disk: &CrashDisk, rounds: u64) -> Result<u64, String> {
    let log = disk.log();
    let ids: Vec<ChunkId> = (1..=40).map(|n| chunk(n).id()).collect();
    let mut images = 0;
    for cut in 0..=log.len() {
        let log = &log[..cut];
        let loose = log.iter().rev().take_while(|op| **op != Op::SyncNames);
        let loose = loose.filter(|op| op.is_naming()).count();
        for names in 0..=loose {
            for fate in [Fate::Whole, Fate::Lost] {
                let image = CrashDisk::after(log, &mut |_| fate, names);
                check(log, &image, &ids).map_err(|e| format!("cut {cut} {fate:?}: {e}"))?;
                images += 1;
            }
            for seed in 0..rounds {
                let mut noise = blake3_noise(seed << 32 | cut as u64);
                let mut fate = |_: &Op| match noise() % 5 {
                    0 => Fate::Lost,
                    1 => Fate::Torn(512 * usize::from(noise() % 4)),
                    2 => Fate::Torn(usize::from(noise()) * 7),
                    _ => Fate::Whole,
                };
                let image = CrashDisk::after(log, &mut fate, names);
                check(log, &image, &ids).map_err(|e| format!("cut {cut} seed {seed}: {e}"))?;
                images += 1;
            }
        }
    }
    Ok(images)
}

#[test]
fn every_synced_chunk_survives_a_power_cut_at_any_point() {
    let disk = CrashDisk::default();
    run(&disk);
    let images = crashes(&disk, 12).unwrap();
    assert!(images > 1000, "{images}");
}

/// What stays in a sweep of the first 40.
fn stays(n: u64) -> bool {
    n.is_multiple_of(5)
}

/// The chunks that a sweep leaves are there whatever the power cut leaves of
/// the sweep, and those it takes cost nothing else.
#[test]
fn a_sweep_that_is_cut_at_any_point_loses_nothing_that_stays() {
    for drops in [None, Some(Barrier::File("own-"))] {
        let disk = CrashDisk::new(drops);
        let store = open(&disk).unwrap();
        (1..=40).for_each(|n| store.put(&chunk(n), Class::Own).unwrap());
        store.sync().unwrap();
        let before = disk.log().len();
        let live: HashSet<ChunkId> =
            (1..=40).filter(|n| stays(*n)).map(|n| chunk(n).id()).collect();
        let swept = store.begin_sweep().finish(&live, 10).unwrap();
        assert!(swept.moved_bytes > 0 && swept.freed_bytes() > 10_000, "{swept:?}");
        let lost = |log: &[Op], image: &CrashDisk| {
            let store = open(image).unwrap();
            assert!(!log.is_empty());
            (1..=40).filter(|n| stays(*n) && store.get(&chunk(*n).id()).is_err()).count()
        };
        let log = disk.log();
        let mut found = 0;
        for cut in before..=log.len() {
            let log = &log[..cut];
            let loose = log.iter().rev().take_while(|op| **op != Op::SyncNames);
            for names in 0..=loose.filter(|op| op.is_naming()).count() {
                for seed in 0..6 {
                    let mut noise = blake3_noise(seed << 32 | cut as u64);
                    let mut fate = |_: &Op| match noise() % 3 {
                        0 => Fate::Lost,
                        1 => Fate::Torn(usize::from(noise()) * 7),
                        _ => Fate::Whole,
                    };
                    found += lost(log, &CrashDisk::after(log, &mut fate, names));
                }
            }
        }
        // A disk that drops the barriers is caught.
        assert_eq!(found > 0, drops.is_some(), "{found} lost with {drops:?}");
    }
}

#[test]
fn a_disk_that_drops_any_kind_of_barrier_is_caught() {
    for barrier in [Barrier::File("own-"), Barrier::File("cached-"), Barrier::Names] {
        let disk = CrashDisk::new(Some(barrier));
        run(&disk);
        assert!(crashes(&disk, 2).is_err(), "{barrier:?} dropped and nothing noticed");
    }
}

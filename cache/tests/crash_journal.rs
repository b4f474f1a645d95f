//! A journal is cut at every point of its own write log, with everything that
//! a power cut may do to what no barrier covered: what was acknowledged comes
//! back, in order, and nothing that was never written.

use std::sync::Arc;
use warp_cache::CacheError;
use warp_cache::journal::{CHANGES, Journal};
use warp_cache::testing::{Barrier, CrashDisk, Fate, Op};
use warp_format::Secret;
use warp_format::local::LocalKey;

fn open(disk: &CrashDisk, salt: u8) -> Result<(Journal, Vec<Vec<u8>>), CacheError> {
    let mut count = 0u64;
    let nonces = Box::new(move || {
        count += 1;
        let mut nonce = [salt; 24];
        nonce[..8].copy_from_slice(&count.to_le_bytes());
        nonce
    });
    Journal::open(Arc::new(disk.clone()), CHANGES, LocalKey::new(Secret::new([7; 32])), nonces)
}

fn entry(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(1 + (n % 7) as usize * 40)
}

/// Appends entries 1, 2, 3, …, commits after each few, rotates and retires
/// now and then; marks in the log the last entry acknowledged, and the last
/// one that is folded away (its journal retired).
fn run(disk: &CrashDisk) {
    let (journal, _) = open(disk, 1).unwrap();
    let mut n = 0;
    for round in 0..12u64 {
        for _ in 0..1 + round % 4 {
            n += 1;
            journal.append(&entry(n));
        }
        journal.commit().unwrap();
        disk.mark(n);
        if round % 5 == 4 {
            let old = journal.rotate().unwrap();
            n += 1;
            journal.append(&entry(n));
            journal.commit().unwrap();
            disk.mark(n);
            // Whatever was before the rotation is held durable elsewhere.
            disk.mark((n - 1) << 32);
            journal.retire(old).unwrap();
        }
    }
}

/// (acknowledged, folded away) at the end of this log.
fn marks(log: &[Op]) -> (u64, u64) {
    log.iter().fold((0, 0), |(acknowledged, folded), op| match op {
        Op::Mark(m) if *m >> 32 > 0 => (acknowledged, *m >> 32),
        Op::Mark(m) => (*m, folded),
        _ => (acknowledged, folded),
    })
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)) % sides
    }

    /// Torn at 512 bytes, at 4 KiB, or anywhere.
    fn fate(&mut self) -> Fate {
        match self.roll(5) {
            0 => Fate::Lost,
            1 => Fate::Torn(512 * self.roll(4) as usize),
            2 => Fate::Torn(4096 * self.roll(2) as usize),
            3 => Fate::Torn(self.roll(700) as usize),
            _ => Fate::Whole,
        }
    }
}

/// What the journal gives after this crash, or why it will not open.
fn check(log: &[Op], image: &CrashDisk) -> Result<(), String> {
    let (acknowledged, folded) = marks(log);
    let (journal, entries) = open(image, 2).map_err(|e| e.to_string())?;
    let numbers: Vec<u64> = entries
        .iter()
        .map(|e| u64::from_le_bytes(e[..8].try_into().expect("eight bytes")))
        .collect();
    let whole = entries.iter().zip(&numbers).all(|(e, n)| *e == entry(*n));
    let first = numbers.first().copied().unwrap_or(folded + 1);
    let ordered = numbers.iter().enumerate().all(|(i, n)| *n == first + i as u64);
    let last = numbers.last().copied().unwrap_or(folded);
    if !whole || !ordered || first > folded + 1 || last < acknowledged {
        return Err(format!("acknowledged {acknowledged}, folded {folded}, got {numbers:?}"));
    }
    // It goes on, and what it then acknowledges survives the next start.
    journal.append(&entry(last + 1));
    journal.commit().map_err(|e| e.to_string())?;
    let (_, again) = open(image, 3).map_err(|e| e.to_string())?;
    if again.len() == entries.len() + 1 {
        Ok(())
    } else {
        Err("an entry written after a crash".into())
    }
}

/// Every prefix of the log, whole and with `rounds` random fates each.
fn crashes(disk: &CrashDisk, rounds: u64) -> Result<u64, String> {
    let log = disk.log();
    let mut images = 0;
    for cut in 0..=log.len() {
        let log = &log[..cut];
        let loose = log.iter().rev().take_while(|op| **op != Op::SyncNames);
        let loose = loose.filter(|op| op.is_naming()).count();
        for names in 0..=loose {
            for fate in [Fate::Whole, Fate::Lost] {
                let image = CrashDisk::after(log, &mut |_| fate, names);
                check(log, &image).map_err(|e| format!("cut {cut} {fate:?}: {e}"))?;
                images += 1;
            }
            for seed in 0..rounds {
                let mut dice = Dice(seed << 32 | cut as u64);
                let image = CrashDisk::after(log, &mut |_| dice.fate(), names);
                check(log, &image).map_err(|e| format!("cut {cut} seed {seed}: {e}"))?;
                images += 1;
            }
        }
    }
    Ok(images)
}

#[test]
fn every_acknowledged_entry_survives_a_power_cut_at_any_point() {
    let disk = CrashDisk::default();
    run(&disk);
    let images = crashes(&disk, 40).unwrap();
    assert!(images > 2000, "{images}");
}

#[test]
fn a_disk_that_drops_any_kind_of_barrier_is_caught() {
    for barrier in [Barrier::File("journal-"), Barrier::Names] {
        let disk = CrashDisk::new(Some(barrier));
        run(&disk);
        assert!(crashes(&disk, 10).is_err(), "{barrier:?} dropped and nothing noticed");
    }
}

/// A disk that lost an early commit and kept a later one: the journal says
/// so instead of taking the hole for the end.
#[test]
fn a_hole_before_an_acknowledged_entry_is_told() {
    let disk = CrashDisk::default();
    let (journal, _) = open(&disk, 1).unwrap();
    for n in 1..=3 {
        journal.append(&entry(n));
        journal.commit().unwrap();
    }
    let mut log = disk.log();
    log.retain(|op| !matches!(op, Op::Sync { .. }));
    let mut write = 0;
    let image = CrashDisk::after(
        &log,
        &mut |_| {
            write += 1;
            // The header is the first write; the second entry the third.
            if write == 3 { Fate::Lost } else { Fate::Whole }
        },
        0,
    );
    assert!(matches!(open(&image, 2), Err(CacheError::Lost { sequence: 2, .. })));
}

#[test]
fn nothing_of_an_entry_stands_in_the_journal() {
    let disk = CrashDisk::default();
    let (journal, _) = open(&disk, 1).unwrap();
    let marker = b"a marker that nobody may read back";
    journal.append(marker);
    journal.commit().unwrap();
    let seen = disk.log().iter().any(|op| match op {
        Op::Write { bytes, .. } => bytes.windows(8).any(|w| w == &marker[..8]),
        _ => false,
    });
    assert!(!seen);
}

//! Step *scrub*: packs are read while nobody asks for anything, one after the
//! other, so that damage is known before what it hits is needed.
//!
//! Neighbours: `portal`, which calls it and says how long it has been quiet;
//! `cache::store` reads a pack and remembers what is damaged. Promises: a pack
//! each [`Pace::every`] at most, and only after [`Pace::idle`] of quiet; it goes
//! on where it was, also after a restart; what was damaged is known again then.
//! Never: changes a pack. Tested below.

use crate::error::Result;
use crate::live::Live;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use warp_cache::CacheError;
use warp_cache::disk::Disk;
use warp_cache::store::{Class, PackName};
use warp_format::ChunkId;

/// Where it was: an aid, which may be lost.
const FILE: &str = "scrub";
const NEW_FILE: &str = "scrub.new";
/// Longest file that is read, in bytes.
const MAX_FILE_LEN: u64 = 1 << 20;
/// Damaged chunks that are written down; the rest is found again.
const MAX_NOTED: usize = 4096;

/// How fast a store is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Quiet that is waited for.
    pub(crate) idle: Duration,
    /// From one pack to the next.
    pub(crate) every: Duration,
}

impl Pace {
    /// 16 MiB a minute at most: nobody notices it, and 20 GiB are read in a day.
    pub(crate) const USUAL: Self =
        Self { idle: Duration::from_secs(60), every: Duration::from_secs(60) };
}

/// Reads a store in turns.
pub(crate) struct Scrub {
    pace: Pace,
    turned: Option<Instant>,
    /// The last pack that was read in this round.
    after: Option<PackName>,
    /// When the last whole round ended, in seconds since 1970.
    ended: Option<u64>,
}

impl Scrub {
    /// Goes on where the last one was.
    pub(crate) fn open(live: &Live, pace: Pace) -> Self {
        let mut scrub = Self { pace, turned: None, after: None, ended: None };
        let mut damaged = Vec::new();
        for line in read(&*live.disk).unwrap_or_default().lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["after", class, number] => {
                    scrub.after = Class::from_word(class).zip(number.parse().ok());
                }
                ["ended", seconds] => scrub.ended = seconds.parse().ok(),
                ["damaged", id] => damaged.extend(parse_id(id)),
                _ => {}
            }
        }
        live.store.note_damaged(damaged);
        scrub
    }

    /// When the last whole round ended, in seconds since 1970.
    pub(crate) fn ended(&self) -> Option<u64> {
        self.ended
    }

    /// Reads the next pack if it is time, after so much quiet; true if it did.
    pub(crate) fn turn(&mut self, live: &Live, quiet: Duration, now: Instant) -> Result<bool> {
        let waits = self.turned.is_some_and(|at| now.duration_since(at) < self.pace.every);
        if quiet < self.pace.idle || waits {
            return Ok(false);
        }
        self.turned = Some(now);
        let packs = live.store.packs();
        let next = packs.iter().find(|pack| self.after.is_none_or(|after| **pack > after));
        let Some(name) = next.or(packs.first()).copied() else { return Ok(false) };
        let found = live.store.audit(name, &|_| true, &mut |_| {})?.unwrap_or_default();
        let portal = live.secrets.portal;
        for damage in &found.damage {
            let (file, at) = (&damage.file, damage.offset);
            let chunk = damage.chunk.map(|id| id.to_string()).unwrap_or_default();
            tracing::error!(%portal, file, at, chunk, readable = damage.readable, "damaged");
        }
        self.after = Some(name);
        if packs.last() == Some(&name) {
            self.after = None;
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            self.ended = Some(now.map_or(0, |now| now.as_secs()));
            let damaged = live.store.damaged().len();
            tracing::info!(%portal, packs = packs.len(), damaged, "every pack was read");
        }
        tracing::debug!(%portal, bytes = found.bytes_read, "scrubbed a pack");
        self.save(live)?;
        Ok(true)
    }

    /// Writes down where it is, and what is known to be damaged by whomever.
    pub(crate) fn save(&self, live: &Live) -> Result<()> {
        let text = self.note(&live.store.damaged());
        // Of a portal that nobody has looked at, nothing is said.
        if text == read(&*live.disk).unwrap_or_default() {
            return Ok(());
        }
        write(&*live.disk, &text)
    }

    fn note(&self, damaged: &[ChunkId]) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        if let Some((class, number)) = self.after {
            let _ = writeln!(text, "after {} {number}", class.word());
        }
        if let Some(seconds) = self.ended {
            let _ = writeln!(text, "ended {seconds}");
        }
        for id in damaged.iter().take(MAX_NOTED) {
            let _ = writeln!(text, "damaged {id:#}");
        }
        text
    }
}

fn parse_id(text: &str) -> Option<ChunkId> {
    let mut id = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (i, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(ChunkId(id))
}

fn failed(source: std::io::Error) -> CacheError {
    CacheError::Io { file: FILE.into(), source }
}

fn read(disk: &dyn Disk) -> Option<String> {
    let file = disk.open(FILE).ok()??;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?.min(MAX_FILE_LEN)).ok()?];
    file.read_at(&mut bytes, 0).ok()?;
    String::from_utf8(bytes).ok()
}

/// Whole or not at all, unless the power goes; then it begins anew.
fn write(disk: &dyn Disk, text: &str) -> Result<()> {
    let write = || {
        if disk.open(NEW_FILE)?.is_some() {
            disk.remove(NEW_FILE)?;
        }
        disk.create(NEW_FILE)?.write_at(text.as_bytes(), 0)?;
        disk.rename(NEW_FILE, FILE)
    };
    Ok(write().map_err(failed)?)
}

/// What it noted is so no more.
pub(crate) fn forget(disk: &dyn Disk) -> Result<()> {
    match disk.remove(FILE) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(e).into()),
        _ => Ok(()),
    }
}

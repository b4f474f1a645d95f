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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{Fresh, PortalSecrets};
    use crate::namespace::Namespace;
    use crate::volume::NewInode;
    use std::path::Path;
    use std::sync::Arc;
    use warp_cache::disk::HostDisk;
    use warp_format::record::Body;
    use warp_format::{FileId, PortalId, Secret};

    const PACK_LEN: u64 = 1 << 20;
    const PACE: Pace = Pace { idle: Duration::from_secs(9), every: Duration::from_secs(30) };

    fn open(dir: &Path) -> Live {
        let disk: Arc<dyn Disk> = Arc::new(HostDisk::new(dir.into()).unwrap());
        let secrets = PortalSecrets {
            portal: PortalId([1; 32]),
            root: Secret::new([2; 32]),
            local: Secret::new([3; 32]),
            device: Secret::new([4; 32]),
        };
        let fresh = Fresh { nonces: [5; 16], incarnation: [6; 8] };
        Live::open_with(disk, secrets, fresh, PACK_LEN).unwrap()
    }

    /// Three packs of what cannot be packed.
    fn fill(dir: &Path) {
        let names = Namespace::new(open(dir));
        names.make_root(0, 0).unwrap();
        let new = NewInode { permissions: 0o644, umask: 0, uid: 0, gid: 0, body: Body::Extents(0) };
        let file = names.make(FileId::ROOT, b"f", &new).unwrap();
        let mut bytes = vec![0; 2 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        for (i, part) in bytes.chunks(1 << 20).enumerate() {
            names.write(file, (i << 20) as u64, part.to_vec(), false).unwrap();
        }
        names.live.publish().unwrap();
    }

    #[test]
    fn a_pack_is_read_in_each_turn_after_quiet_and_damage_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        let live = open(dir.path());
        let packs = live.store.packs();
        assert!(packs.len() > 1, "{packs:?}");
        let mut scrub = Scrub::open(&live, PACE);
        let (start, quiet) = (Instant::now(), PACE.idle);
        assert!(!scrub.turn(&live, quiet - Duration::from_millis(1), start).unwrap(), "too soon");
        assert!(scrub.turn(&live, quiet, start).unwrap());
        assert!(!scrub.turn(&live, quiet, start + PACE.every / 2).unwrap(), "too fast");
        assert_eq!((live.store.damaged().len(), scrub.ended()), (0, None));
        drop((scrub, live));

        // It goes on where it was, and what it finds is known at the next start.
        let live = open(dir.path());
        let damaged = dir.path().join("own-00000002.pack");
        let mut bytes = std::fs::read(&damaged).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&damaged, bytes).unwrap();
        let mut scrub = Scrub::open(&live, PACE);
        for turn in 1..packs.len() as u32 {
            assert_eq!(scrub.ended(), None, "before turn {turn}");
            assert!(scrub.turn(&live, quiet, start + PACE.every * turn).unwrap());
        }
        assert!(scrub.ended().is_some(), "a round has ended");
        assert_eq!(live.store.damaged().len(), 1);
        // As a portal does that is closed: a pack without an index is read at
        // the start, and has no damaged chunks then, but lost ones.
        live.store.sync().and_then(|()| live.store.settle()).unwrap();
        drop((scrub, live));
        let live = open(dir.path());
        let scrub = Scrub::open(&live, PACE);
        assert_eq!((live.store.damaged().len(), scrub.ended().is_some()), (1, true));
        forget(&*live.disk).unwrap();
        drop((scrub, live));
        let live = open(dir.path());
        Scrub::open(&live, PACE);
        assert_eq!(live.store.damaged().len(), 0);
    }

    /// Its file is an aid: whatever is in it, the portal opens.
    #[test]
    fn a_file_of_other_things_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        for text in ["after own x\nended -1\ndamaged 12\n\n", "\0\0", "after own 99999999\n"] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let live = open(dir.path());
            let mut scrub = Scrub::open(&live, PACE);
            assert_eq!((live.store.damaged().len(), scrub.ended()), (0, None), "{text:?}");
            assert!(scrub.turn(&live, PACE.idle, Instant::now()).unwrap(), "{text:?}");
        }
    }
}

//! How much may still be written.
//!
//! Neighbours: `portal`, whose volume asks before it takes what grows. Promises:
//! what is taken can be published, as far as the host's disk is not filled by
//! others meanwhile; a reserve stays for deleting, publishing and sweeping, so
//! that a full portal can be emptied. Never: refuses what only takes away.
//! Tested by the unit tests below and `tests/tests/full.rs`.

use crate::error::{FlowError, Refusal, Result};
use crate::volume::Space;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the host says of its disk counts for so long.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Bytes that are taken before the host is asked again.
const LOOK_BYTES: u64 = 4 << 20;
/// What any change takes beside its bytes: records, and their part of nodes.
pub(crate) const CHANGE_BYTES: u64 = 1 << 10;

/// Bytes that a portal leaves free on a disk of this size: 2 %, at least 16 MiB
/// but no more than an eighth.
pub(crate) fn reserve(size: u64) -> u64 {
    (size / 50).max((16 << 20).min(size / 8))
}

/// Bytes of a pack on a disk of this size: a sweep needs about one pack's room,
/// and has to get it out of the reserve.
pub(crate) fn pack_len(size: u64) -> u64 {
    (size / 64).clamp(1 << 20, warp_cache::store::PACK_LEN)
}

/// The size of the disk that a directory is on.
pub(crate) fn disk_size(directory: &Path) -> Result<u64> {
    let host = rustix::fs::statvfs(directory).map_err(|e| FlowError::io(directory, e))?;
    Ok(host.f_blocks * host.f_frsize)
}

/// What a portal takes already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Taken {
    /// Bytes of packs.
    pub(crate) stored: u64,
    /// Bytes that wait to be published: they lie in the journal, and will lie
    /// in packs before they leave it.
    pub(crate) unpublished: u64,
}

/// The room that a portal has on its disk.
pub(crate) struct Room {
    /// Where its state is.
    directory: PathBuf,
    quota: Option<NonZeroU64>,
    left: Mutex<Left>,
}

#[derive(Default)]
struct Left {
    /// Bytes that may be taken before the host is asked again.
    bytes: u64,
    looked: Option<Instant>,
}

impl Room {
    pub(crate) fn new(directory: PathBuf, quota: Option<NonZeroU64>) -> Self {
        Self { directory, quota, left: Mutex::default() }
    }

    /// Most bytes that it may take on the disk.
    pub(crate) fn quota(&self) -> Option<NonZeroU64> {
        self.quota
    }

    /// Takes room for `bytes` that are to be written: [`Refusal::NoSpace`] or
    /// [`Refusal::Quota`] if there is not enough.
    pub(crate) fn take(&self, bytes: u64, taken: impl FnOnce() -> Taken) -> Result<()> {
        // Once in the journal, and once in a pack.
        let cost = bytes.saturating_add(CHANGE_BYTES).saturating_mul(2);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = left.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY);
        if !is_fresh || left.bytes < cost {
            let (room, refusal) = self.look(taken())?;
            if room < cost {
                *left = Left::default();
                return Err(refusal.into());
            }
            *left = Left { bytes: room.min(LOOK_BYTES.max(cost)), looked: Some(Instant::now()) };
        }
        left.bytes -= cost;
        Ok(())
    }

    /// How much is left, and what says so.
    fn look(&self, taken: Taken) -> Result<(u64, Refusal)> {
        let space = self.space(taken)?;
        let on_disk = self.on_disk(taken)?;
        let refusal = if space.available < on_disk { Refusal::Quota } else { Refusal::NoSpace };
        Ok((space.available, refusal))
    }

    /// Bytes of the host's disk that may be taken.
    fn on_disk(&self, taken: Taken) -> Result<u64> {
        let host = self.host()?;
        let free = host.f_bavail * host.f_frsize;
        Ok(free.saturating_sub(reserve(host.f_blocks * host.f_frsize) + taken.unpublished))
    }

    fn host(&self) -> Result<rustix::fs::StatVfs> {
        rustix::fs::statvfs(&self.directory).map_err(|e| FlowError::io(&self.directory, e))
    }

    /// What `statfs` says: of the disk, or of the quota.
    pub(crate) fn space(&self, taken: Taken) -> Result<Space> {
        let host = self.host()?;
        let available = self.on_disk(taken)?;
        let space = Space {
            bytes: host.f_blocks * host.f_frsize,
            free: host.f_bfree * host.f_frsize,
            available,
            inodes: host.f_files,
            inodes_free: host.f_ffree,
        };
        let Some(quota) = self.quota else { return Ok(space) };
        let free = quota.get().saturating_sub(taken.stored + taken.unpublished);
        Ok(Space {
            bytes: quota.get(),
            free: free.min(space.free),
            available: free.min(available),
            ..space
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_two_percent_and_on_small_disks_no_more_than_an_eighth() {
        for (mib, want) in
            [(8u64, 1u64), (32, 4), (128, 16), (256, 16), (1 << 10, 20), (1 << 20, 20971)]
        {
            assert_eq!(reserve(mib << 20) >> 20, want, "{mib} MiB");
        }
    }

    #[test]
    fn a_quota_is_what_may_be_taken_and_what_is_said() {
        let dir = std::env::temp_dir();
        let room = Room::new(dir, NonZeroU64::new(10 << 20));
        let none = || Taken::default();
        assert_eq!(room.space(none()).unwrap().available, 10 << 20);
        room.take(4 << 20, none).unwrap();
        let taken = || Taken { stored: 8 << 20, unpublished: 1 << 20 };
        assert_eq!(room.space(taken()).unwrap().free, 1 << 20);
        let refused = room.take(1 << 20, taken).unwrap_err();
        assert!(matches!(refused, FlowError::Refused(Refusal::Quota)), "{refused}");
        room.take(1000, taken).unwrap();
    }
}

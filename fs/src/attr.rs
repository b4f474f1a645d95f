//! Attributes as the kernel takes them.

use crate::owners::Owners;
use fuser::{FileAttr, FileType as Kind, INodeNo};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use warp_flow::volume::Attr;
use warp_format::record::{Body, FileType, Time};

pub(crate) fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::Regular => Kind::RegularFile,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::NamedPipe,
        FileType::Socket => Kind::Socket,
        FileType::CharDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
    }
}

pub(crate) fn attr(from: &Attr, owners: Owners) -> FileAttr {
    let inode = &from.inode;
    let mtime = system_time(inode.mtime);
    let stored = match &inode.body {
        Body::Extents(stored) => *stored,
        _ => inode.size,
    };
    let (uid, gid) = owners.shown(inode.uid, inode.gid);
    let nlink = match inode.body {
        // A removed one that is open has none.
        Body::Directory(links) if from.links > 0 => u32::try_from(links).unwrap_or(u32::MAX),
        _ => from.links,
    };
    let rdev = match inode.body {
        // FUSE carries device numbers in 32 bits, in the kernel's packing.
        Body::Device { number, .. } => {
            let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
            (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
        }
        _ => 0,
    };
    FileAttr {
        ino: INodeNo(from.ino),
        size: inode.size,
        blocks: stored.div_ceil(512),
        atime: inode.atime.map_or(mtime, system_time),
        mtime,
        ctime: inode.ctime.map_or(mtime, system_time),
        crtime: UNIX_EPOCH,
        kind: kind(inode.file_type()),
        perm: inode.permissions,
        nlink,
        uid,
        gid,
        rdev,
        blksize: 4096,
        flags: 0,
    }
}

/// Saturates at what `SystemTime` holds, which is what the kernel holds.
fn system_time(time: Time) -> SystemTime {
    let nanos = Duration::from_nanos(time.nanos.into());
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let base =
        if time.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base.and_then(|base| base.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// A time that a request names. fuser 0.18 reads a time before 1970 as if its
/// nanoseconds counted away from 1970 too; this reads it back.
pub(crate) fn time_of_request(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Time { secs: since.as_secs() as i64, nanos: since.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Time { secs: -(before.as_secs() as i64), nanos: before.subsec_nanos() }
        }
    }
}

/// A device number out of the kernel's packing.
pub(crate) fn device_number(rdev: u32) -> u64 {
    let (major, minor) = ((rdev & 0xfff00) >> 8, (rdev & 0xff) | (rdev >> 12 & 0xfff00));
    rustix::fs::makedev(major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_number_comes_back() {
        for (major, minor) in [(0, 0), (1, 3), (259, 7), (4095, 1_048_575)] {
            let packed = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
            assert_eq!(device_number(packed), rustix::fs::makedev(major, minor));
        }
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let t = system_time(Time { secs: -2, nanos: 250_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(t).unwrap(), Duration::from_millis(1750));
        system_time(Time { secs: i64::MIN, nanos: 0 });
        system_time(Time { secs: i64::MAX, nanos: 999_999_999 });
    }
}

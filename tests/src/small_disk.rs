//! Disks of 32 MiB, which are soon full: a filesystem of its own for a
//! `WARP_HOME`, or for a part of one.

use crate::must;
use crate::nasty::mode;
use std::fs::File;
use std::path::Path;

/// Bytes of such a disk; what its filesystem itself takes comes off.
pub const DISK_LEN: u64 = 32 << 20;

/// What kind of filesystem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    /// In memory: it says at once that it is full.
    Tmpfs,
    /// In a file beside: it allocates late, and has a journal of its own.
    Ext4,
}

impl Filesystem {
    /// Mounts a new one on a directory; of ext4, the bytes go into `image`. A
    /// device unmounts what is mounted below its own directory.
    ///
    /// # Panics
    /// If that fails: only root can, and a loop device is needed.
    #[track_caller]
    pub fn mount(self, image: &Path, directory: &Path) {
        let at = directory.as_os_str();
        match self {
            Self::Tmpfs => {
                let size = format!("size={DISK_LEN}");
                must(
                    "mount",
                    ["-t", "tmpfs", "-o", &size, "tmpfs"]
                        .map(AsRef::as_ref)
                        .into_iter()
                        .chain([at]),
                );
            }
            Self::Ext4 => {
                let file = File::create(image).expect("created");
                file.set_len(DISK_LEN).expect("it grows");
                let image = image.as_os_str();
                // Nothing is kept for root, which is who tests.
                must(
                    "mkfs.ext4",
                    ["-q", "-F", "-m", "0"].map(AsRef::as_ref).into_iter().chain([image]),
                );
                must("mount", ["-o", "loop"].map(AsRef::as_ref).into_iter().chain([image, at]));
            }
        }
        mode(directory, 0o700);
    }
}

/// Bytes of a filesystem that are free, and those that it has at all.
///
/// # Panics
/// If there is nothing at that path.
#[track_caller]
pub fn free_of(path: &Path) -> (u64, u64) {
    let found = rustix::fs::statvfs(path).expect("a filesystem");
    (found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
}

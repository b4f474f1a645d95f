//! The FUSE shell: kernel requests in, a [`Volume`](warp_flow::volume::Volume)
//! asked, replies out.
//!
//! [`kernel`] is the only module that mounts and unmounts; `ops` answers.
//!
//! ```no_run
//! use warp_flow::volume::ArchiveVolume;
//! use warp_fs::{Mount, MountError, MountOptions};
//!
//! fn show(volume: ArchiveVolume) -> Result<(), MountError> {
//!     let options = MountOptions::new("/mnt/photos".into(), "photos.warp");
//!     Mount::new(volume, &options)?.run()
//! }
//! ```
#![forbid(unsafe_code)]

mod attr;
mod desk;
mod errno;
pub mod kernel;
mod listing;
mod ops;
mod owners;
mod pool;

pub use kernel::{Caching, Mount, MountError, MountOptions, Mounted, mounts, unmount};
pub use owners::{IdMap, IdMapError, IdRange};

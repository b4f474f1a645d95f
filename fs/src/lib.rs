//! The FUSE shell: kernel requests in, a [`Volume`](warp_flow::volume::Volume)
//! asked, replies out.
//!
//! [`kernel`] is the only module that mounts and unmounts; `ops` answers.
//!
//! ```no_run
//! # fn volume() -> warp_flow::volume::ArchiveVolume { unimplemented!() }
//! use warp_fs::{Mount, MountOptions};
//! let options = MountOptions::new("/mnt/photos".into(), "photos.warp");
//! Mount::new(volume(), &options)?.run()?;
//! # Ok::<(), warp_fs::MountError>(())
//! ```
#![forbid(unsafe_code)]

mod attr;
mod errno;
pub mod kernel;
mod ops;

pub use kernel::{Mount, MountError, MountOptions, Mounted, mounts, unmount};

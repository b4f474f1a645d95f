//! Chunks on this machine: the memory tier, the packs on disk, and the
//! journal that makes an `fsync` durable.
//!
//! ```
//! use warp_cache::tier::Tier;
//! let tier: Tier<u32, String> = Tier::new(1 << 20, |text: &String| text.len());
//! let made = tier.get_or_make(7, || Ok::<_, std::io::Error>("seven".into())).unwrap();
//! assert_eq!(made, "seven");
//! ```
#![forbid(unsafe_code)]

pub mod disk;
mod error;
pub mod journal;
pub mod store;
pub mod testing;
pub mod tier;

pub use error::{CacheError, Result};

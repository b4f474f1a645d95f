//! Chunks on this machine.
//!
//! So far one module: [`tier`], the memory tier of opened chunks and nodes.
//!
//! ```
//! use warp_cache::tier::Tier;
//! let tier: Tier<u32, String> = Tier::new(1 << 20, |text: &String| text.len());
//! let made = tier.get_or_make(7, || Ok::<_, std::io::Error>("seven".into())).unwrap();
//! assert_eq!(made, "seven");
//! ```
#![forbid(unsafe_code)]

pub mod tier;

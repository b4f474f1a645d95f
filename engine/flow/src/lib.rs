//! The one orchestrator: between the host's files, the bytes of `format`, and
//! whatever holds chunks.
//!
//! Walk in (archives): gather ▸ [`create()`] ▸ format ▸ the file.
//! Walk in (portals): [`live::Live`] ▸ overlay and journal ▸ publish ▸ store.
//! Walk out: [`reader::TreeReader`] ▸ a [`source::ChunkSource`] ▸ format.
#![forbid(unsafe_code)]

mod about;
mod acl;
pub mod archive;
pub mod asker;
pub mod check;
mod create;
mod dedup;
mod diff;
mod error;
mod extract;
pub mod follow;
mod gather;
mod heads;
pub mod home;
mod ingest;
pub mod keep;
pub mod limits;
pub mod live;
pub mod members;
mod namespace;
mod numbers;
pub mod opened;
mod overlay;
pub mod peers;
pub mod portal;
pub mod portals;
mod progress;
mod publish;
pub mod reader;
pub mod repair;
mod restore;
mod salvage;
mod scrub;
mod sink;
pub mod snapshots;
pub mod source;
mod space;
mod spans;
pub mod swarm;
mod sweep;
pub mod verify;
pub mod volume;
mod xattr;

pub use create::{CreateOptions, Created, create, survey};
pub use diff::{Change, Difference, diff};
pub use error::{FlowError, Kind, Refusal, Result};
pub use extract::{ExtractOptions, Extracted, extract_archive};
pub use gather::Selection;
pub use namespace::now;
pub use progress::{Problem, Progress};
pub use salvage::salvage;
pub use sink::OutputFile;

//! The bytes of warp: identities, cutting, codec, sealing, keys, records, the
//! tree, heads and the archive container. No I/O, no clock, no randomness.
//!
//! Steps *cut → codec → seal → tree* of the walk in and the same steps back
//! on the walk out. Each format has one validating decoder; docs/format.md is
//! its description byte for byte.
//!
//! ```
//! use warp_format::codec::{Level, Packer, Unpacker};
//! use warp_format::{NamingKeys, PlainChunk, Sealer};
//!
//! let keys = NamingKeys::public();
//! let chunk = PlainChunk::data(&keys, b"some bytes of a file".to_vec());
//! let sealer = Sealer::plain();
//! let sealed = sealer.seal(&Packer::new(Level::DEFAULT).pack(&chunk));
//! let reference = sealer.reference(&sealed, chunk.hash(), chunk.bytes().len());
//! let again = sealer.open(&keys, &mut Unpacker::new(), &reference, &sealed)?;
//! assert_eq!(again, chunk);
//! # Ok::<(), warp_format::FormatError>(())
//! ```
#![forbid(unsafe_code)]

pub mod archive;
mod bytes;
pub mod change;
pub mod chunk;
pub mod codec;
pub mod dedup;
mod error;
mod head;
mod id;
mod keyring;
pub mod keys;
pub mod limits;
pub mod local;
pub mod members;
pub mod pack;
pub mod portal;
pub mod record;
mod seal;
pub mod snapshot;
pub mod ticket;
pub mod tree;
pub mod wire;
pub mod wrap;

pub use chunk::{ChunkKind, PlainChunk};
pub use error::{FormatError, Result};
pub use head::Head;
pub use id::{ChunkId, ContentHash, DeviceId, DeviceTag, FileId, NameHash, PortalId};
pub use keyring::{Keyring, KeyringRandom};
pub use keys::{ContentSecret, NamingKeys, Secret};
pub use seal::{ChunkRef, SEAL_HEADER_LEN, SealHeader, SealedChunk, Sealer, Suite};

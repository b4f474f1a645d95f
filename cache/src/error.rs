//! What can go wrong with chunks on this machine, by what the caller may do.

use std::io;
use warp_format::{ChunkId, FormatError};

/// An error of the store or the journal.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The chunk is not here: another source may have it.
    #[error("chunk {id} is not in the store")]
    Missing {
        /// The chunk.
        id: ChunkId,
    },
    /// Stored bytes are damaged: another source may have them.
    #[error("{file} at {at}: {source}")]
    Corrupt {
        /// The file.
        file: String,
        /// Offset in it.
        at: u64,
        /// What is wrong.
        #[source]
        source: FormatError,
    },
    /// The journal ends before something that was acknowledged: the disk
    /// lost a write that it had said was durable.
    #[error("{file}: record {sequence} is missing although a later one is there: the disk lost it")]
    Lost {
        /// The journal.
        file: String,
        /// The first record that is gone.
        sequence: u64,
    },
    /// An earlier barrier failed: what was written since is in doubt, and
    /// nothing more is acknowledged until the store is opened again.
    #[error("{file}: an earlier sync failed; what was written after it may be gone")]
    Doubtful {
        /// The file.
        file: String,
    },
    /// The disk refused.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl CacheError {
    pub(crate) fn io(file: &str, source: io::Error) -> Self {
        Self::Io { file: file.to_owned(), source }
    }

    pub(crate) fn corrupt(file: &str, at: u64, source: FormatError) -> Self {
        Self::Corrupt { file: file.to_owned(), at, source }
    }
}

/// Result of this crate.
pub type Result<T, E = CacheError> = std::result::Result<T, E>;

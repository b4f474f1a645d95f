//! What can be wrong with bytes.

use crate::ChunkId;

/// Why bytes were refused. `at` names the field or the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end before the field does.
    #[error("{at}: ends early")]
    Truncated {
        /// The field that was being read.
        at: &'static str,
    },
    /// A field has a value that this version of the format does not allow.
    #[error("{at}: not a valid value")]
    Invalid {
        /// The field that was being read.
        at: &'static str,
    },
    /// A length or a count is over its limit (`limits.rs`).
    #[error("{at}: {value} is over the limit of {limit}")]
    Limit {
        /// The field that was being read.
        at: &'static str,
        /// What the bytes say.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Written by a newer warp, or before version 1 was fixed.
    #[error("{at}: format version {version} is {} this warp (which reads version {known})", age(*version, *known))]
    Version {
        /// What carries the version.
        at: &'static str,
        /// The version found.
        version: u8,
        /// The version that this build reads.
        known: u8,
    },
    /// Not the thing at all: the magic bytes are missing.
    #[error("not a {what}")]
    NotA {
        /// What was expected.
        what: &'static str,
    },
    /// A checksum of a fixed structure does not match.
    #[error("{at}: checksum does not match")]
    Checksum {
        /// The structure.
        at: &'static str,
    },
    /// The bytes of a chunk are not the ones that its id names.
    #[error("chunk {id}: its bytes do not match its id")]
    WrongId {
        /// The id asked for.
        id: ChunkId,
    },
    /// The chunk is whole, but does not open under this key.
    #[error("chunk {id}: does not open with this key")]
    Unsealed {
        /// The chunk.
        id: ChunkId,
    },
    /// The chunk is of an epoch whose secret is not here.
    #[error("chunk {id}: sealed in epoch {epoch}, which this device was not handed")]
    NotHanded {
        /// The chunk.
        id: ChunkId,
        /// The epoch that its reference names.
        epoch: u32,
    },
    /// The chunk opened to other content than the tree says.
    #[error("chunk {id}: content does not match the hash in the tree")]
    WrongContent {
        /// The chunk.
        id: ChunkId,
    },
    /// A passphrase, phrase or key is the wrong one.
    #[error("wrong {what}")]
    WrongKey {
        /// What was wrong: "passphrase", "recovery phrase".
        what: &'static str,
    },
    /// A signature does not verify.
    #[error("{what}: the signature does not match")]
    BadSignature {
        /// What was signed.
        what: &'static str,
    },
    /// A record says what its signer may not.
    #[error("{at}: its signer may not do that")]
    NotAllowed {
        /// What holds the record.
        at: &'static str,
    },
    /// Two histories that do not agree.
    #[error("{at}: says something else than what is known already")]
    Forked {
        /// What holds them.
        at: &'static str,
    },
    /// Of a kind that this build does not know.
    #[error("{at}: this warp does not know this {what}; a newer one may")]
    Unknown {
        /// What it is in.
        at: &'static str,
        /// What is not known.
        what: &'static str,
    },
    /// The sealed thing needs a passphrase and none was given.
    #[error("sealed: a passphrase is needed")]
    Locked,
}

/// Result of this crate.
pub type Result<T, E = FormatError> = core::result::Result<T, E>;

fn age(version: u8, known: u8) -> &'static str {
    if version > known { "newer than" } else { "too old for" }
}

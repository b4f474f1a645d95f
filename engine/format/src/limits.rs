//! Every limit of the format in one place. A decoder refuses what exceeds
//! one of these before it reserves anything for it.

use crate::error::{FormatError, Result};

/// Version byte of everything written today. What is of this version stays
/// readable for ever; version 0 was that of builds before it was fixed.
pub const VERSION: u8 = 1;

/// Refuses another version than this build knows. It comes before any
/// checksum, of which another version may have another.
pub(crate) fn check_version(at: &'static str, version: u8) -> Result<()> {
    if version == VERSION {
        Ok(())
    } else {
        Err(FormatError::Version { at, version, known: VERSION })
    }
}

/// Longest plain chunk, in bytes.
pub const MAX_CHUNK_LEN: usize = 4 << 20;
/// Longest sealed chunk, in bytes: the longest plain chunk stored without
/// compression, padded, plus header, synthetic IV and tag.
pub const MAX_SEALED_LEN: usize = MAX_CHUNK_LEN + (MAX_CHUNK_LEN >> 3) + 256;
/// Longest name, in bytes (the kernel's `NAME_MAX`).
pub const MAX_NAME_LEN: usize = 255;
/// Longest symbolic link target, in bytes (`PATH_MAX` less its NUL).
pub const MAX_SYMLINK_LEN: usize = 4095;
/// Longest value of one extended attribute, in bytes (`XATTR_SIZE_MAX`).
pub const MAX_XATTR_LEN: usize = 64 << 10;
/// Largest file, in bytes (`i64::MAX`, as the kernel has it).
pub const MAX_FILE_SIZE: u64 = i64::MAX as u64;
/// Files up to this many bytes live in their inode record.
pub const INLINE_LEN: usize = 512;
/// Longest encoded tree node, in bytes.
pub const MAX_NODE_LEN: usize = 512 << 10;
/// Highest level of a tree node (a leaf is 0).
pub const MAX_LEVEL: u8 = 12;
/// Devices in one version vector.
pub const MAX_VERSIONS: usize = 4096;
/// Heads that one head may say it has seen.
pub const MAX_HEADS_SEEN: usize = 4096;

/// Argon2id memory that a file may ask for, in KiB (1 GiB). Above it, an
/// archive could hang or exhaust the reader before any key is checked.
pub const MAX_ARGON_MEMORY_KIB: u32 = 1 << 20;
/// Argon2id passes that a file may ask for.
pub const MAX_ARGON_PASSES: u32 = 16;
/// Argon2id lanes that a file may ask for.
pub const MAX_ARGON_LANES: u32 = 16;

/// Version byte of every frame between peers.
pub const WIRE_VERSION: u8 = 1;
/// Longest frame between peers, in bytes, of the kinds that are not named below.
pub const MAX_CONTROL_LEN: usize = 64 << 10;
/// Longest frame that carries a head: a head that has seen
/// [`MAX_HEADS_SEEN`] devices fits.
pub const MAX_HEAD_FRAME_LEN: usize = 256 << 10;
/// Longest frame that carries records of the membership chain.
pub const MAX_MEMBERS_FRAME_LEN: usize = 1 << 20;
/// Chunks that one request may ask for.
pub const MAX_REQUEST_IDS: usize = 64;
/// Ids in one *listed* frame.
pub const MAX_LISTED_IDS: usize = 16 << 10;
/// Longest *listed* frame, in bytes.
pub const MAX_LISTED_FRAME_LEN: usize = 32 * MAX_LISTED_IDS + 64;
/// Roots that a peer may say it holds whole.
pub const MAX_WHOLE_ROOTS: usize = 256;
/// Fingerprints in one frame.
pub const MAX_FRAME_PRINTS: usize = 16 << 10;
/// Fingerprints that are remembered of one peer and portal (8 MiB).
pub const MAX_HELD_PRINTS: usize = 1 << 20;
/// Bits of a fingerprint: at most what keeps a difference of two in 6 bytes.
pub const MAX_PRINT_BITS: u8 = 48;

/// Members that a portal ever had.
pub const MAX_MEMBERS: usize = 1024;
/// Records in a membership chain.
pub const MAX_RECORDS: usize = 8192;
/// Longest membership chain, in bytes: it fits a frame with room to spare.
pub const MAX_CHAIN_LEN: usize = (1 << 20) - 1024;
/// Longest membership record of any kind, in bytes, its signature included:
/// a rotation for [`MAX_READERS`]. What the others hold is bounded field by
/// field, far below this.
pub const MAX_RECORD_LEN: usize = 32 << 10;
/// Members to whom one rotation may hand a secret. With more, nobody can be
/// removed until some of them are custodians.
pub const MAX_READERS: usize = 256;
/// Times that a portal's content secret may change. A rotation takes 112 bytes
/// for each who reads and about 150 more, a new member up to
/// [`MAX_HANDED_LEN`]: with eight who read, all rotations together take a
/// quarter of [`MAX_CHAIN_LEN`], and 80 members more fit after the last.
pub const MAX_EPOCHS: usize = 256;
/// Longest name of a device, in bytes.
pub const MAX_DEVICE_NAME_LEN: usize = 255;
/// Longest wrapped secrets of one new member, in bytes: those of
/// [`MAX_EPOCHS`] and room to spare.
pub const MAX_HANDED_LEN: usize = 128 + 36 * MAX_EPOCHS;
/// So many seconds clocks may differ: for so long what has expired is taken.
pub const EXPIRY_TOLERANCE_SECS: u64 = 300;
/// Addresses in a ticket.
pub const MAX_TICKET_ADDRESSES: usize = 8;
/// Longest ticket, in letters.
pub const MAX_TICKET_LEN: usize = 1024;

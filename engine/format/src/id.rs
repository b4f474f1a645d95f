//! Identities. Each is its own type; none is ever shortened as an identity.

use core::fmt;
use serde::{Deserialize, Serialize};

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        /// The first 10 hexadecimal digits, as logs and messages show it;
        /// `{:#}` shows all of them.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let shown = if f.alternate() { $len } else { $len.min(5) };
                self.0.iter().take(shown).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

identity! {
    /// Address of a chunk: BLAKE3 of its sealed bytes. Anyone can check it,
    /// with or without keys.
    ChunkId, 32
}
identity! {
    /// What a chunk or a node holds: BLAKE3 of the plain bytes (of a node:
    /// of the map that it encodes) keyed with the hash key.
    ContentHash, 32
}
identity! {
    /// The tree's identity of a file, a directory or any other inode.
    FileId, 16
}
identity! {
    /// The first 16 bytes of the keyed BLAKE3 of a name.
    NameHash, 16
}
identity! {
    /// A device: its Ed25519 public key.
    DeviceId, 32
}
identity! {
    /// A portal.
    PortalId, 32
}
identity! {
    /// A device as stamps and version vectors write it: the first 8 bytes of
    /// `derive_key("warp v1 device tag")` of its [`DeviceId`].
    DeviceTag, 8
}

impl ChunkId {
    /// The id of these sealed bytes.
    pub fn of(sealed: &[u8]) -> Self {
        Self(*blake3::hash(sealed).as_bytes())
    }
}

impl DeviceId {
    /// The short form that stamps carry.
    pub fn tag(&self) -> DeviceTag {
        let hash = blake3::derive_key("warp v1 device tag", &self.0);
        let mut tag = [0; 8];
        tag.copy_from_slice(&hash[..8]);
        DeviceTag(tag)
    }
}

impl FileId {
    /// The root directory of a tree.
    pub const ROOT: Self = Self([0; 16]);
    /// The reserved id that holds what is said of the tree as a whole. It
    /// sorts last, so that a tree can be written in one pass.
    pub const META: Self = Self([0xff; 16]);

    /// The id of the `n`-th inode of an archive (0 is the root).
    pub fn from_ordinal(n: u64) -> Self {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&n.to_be_bytes());
        Self(id)
    }

    /// The ordinal, if this is an archive's id (its first half is zero).
    pub fn ordinal(&self) -> Option<u64> {
        let value = u128::from_be_bytes(self.0);
        u64::try_from(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_come_back_and_sort_as_numbers() {
        for n in [0, 1, 255, 256, u64::MAX] {
            assert_eq!(FileId::from_ordinal(n).ordinal(), Some(n));
        }
        assert!(FileId::from_ordinal(255) < FileId::from_ordinal(256));
        assert_eq!(FileId::META.ordinal(), None);
        assert_eq!(FileId::from_ordinal(0), FileId::ROOT);
    }

    #[test]
    fn an_id_shows_ten_digits_and_all_of_them_on_request() {
        let id = ChunkId([0xab; 32]);
        assert_eq!(id.to_string(), "ababababab");
        assert_eq!(format!("{id:#}").len(), 64);
    }
}

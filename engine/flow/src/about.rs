//! What a volume says of its files: the attributes `user.warp.*`.
//!
//! Neighbours: `portal` and `volume` answer `getxattr` with it; `namespace` and
//! `reader` give what the records say. Promises: names below `user.warp.` are
//! this module's on every volume, whatever was stored under them; no list
//! shows them, so that no copy carries them; what is said of content follows
//! from records. Never: reads a byte of content. Tested by
//! `engine/flow/tests/about.rs` and `tests/tests/about.rs`.

use crate::error::Result;
use crate::reader::TreeReader;
use crate::source::ChunkSource;
use std::collections::HashSet;
use warp_format::record::{Body, Extent, Inode};
use warp_format::{ChunkId, ContentHash, FileId, NamingKeys};

/// What the names begin with.
const SPACE: &[u8] = b"user.warp.";

/// How far everything has spread: what other devices have, they may drop.
pub(crate) const LOCAL: &[u8] = b"local";
/// On how many devices it is.
pub(crate) const ONE: &[u8] = b"1";

/// True for names that are not there to be set, removed or listed.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(SPACE)
}

/// What one of the attributes says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// How far a portal's file has spread: `local`, on this device only.
    State,
    /// On how many devices it is.
    Replicas,
    /// In how many chunks its content lies.
    Chunks,
    /// A hash of its content.
    Hash,
}

impl About {
    /// The attribute of this name.
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        match name.strip_prefix(SPACE)? {
            b"state" => Some(Self::State),
            b"replicas" => Some(Self::Replicas),
            b"chunks" => Some(Self::Chunks),
            b"hash" => Some(Self::Hash),
            _ => None,
        }
    }
}

/// Where the content of a regular file lies.
#[derive(Debug)]
pub(crate) enum Whole {
    /// In the inode.
    Inline(Vec<u8>),
    /// In chunks, or nowhere: offset and extent, in order.
    Extents(Vec<(u64, Extent)>),
}

impl Whole {
    /// Of a file in a tree.
    pub(crate) fn of<S: ChunkSource>(
        tree: &TreeReader<S>,
        file: FileId,
        inode: &Inode,
    ) -> Result<Self> {
        Ok(match &inode.body {
            Body::Inline(bytes) => Self::Inline(bytes.clone()),
            _ => Self::Extents(tree.whole_extents(file, inode)?),
        })
    }

    /// In how many chunks: each counts once, however often it is named.
    pub(crate) fn chunks(&self) -> usize {
        match self {
            Self::Inline(_) => 0,
            Self::Extents(extents) => {
                let chunks: HashSet<ChunkId> = extents.iter().map(|(_, e)| e.chunk.id).collect();
                chunks.len()
            }
        }
    }

    /// Equal for files of one portal only if they hold the same bytes. The
    /// same bytes in other chunks give another one: what names them is hashed,
    /// not what they are.
    pub(crate) fn hash(&self, naming: &NamingKeys, size: u64) -> ContentHash {
        let mut hasher = blake3::Hasher::new_derive_key("warp attribute user.warp.hash");
        hasher.update(&size.to_le_bytes());
        let mut part = |at: u64, chunk: &ContentHash, start: u64, len: u64| {
            hasher.update(&chunk.0);
            for number in [at, start, len] {
                hasher.update(&number.to_le_bytes());
            }
        };
        match self {
            // As if it were a chunk of its own.
            Self::Inline(bytes) if bytes.is_empty() => {}
            Self::Inline(bytes) => part(0, &naming.content_hash(bytes), 0, bytes.len() as u64),
            Self::Extents(extents) => {
                let mut rest = extents.iter().peekable();
                while let Some((at, first)) = rest.next() {
                    let mut len = u64::from(first.len);
                    // Written in two steps, or in one: the same bytes.
                    while let Some((_, next)) = rest.next_if(|(next_at, next)| {
                        *next_at == at + len
                            && next.chunk.hash == first.chunk.hash
                            && u64::from(next.start) == u64::from(first.start) + len
                    }) {
                        len += u64::from(next.len);
                    }
                    part(*at, &first.chunk.hash, first.start.into(), len);
                }
            }
        }
        ContentHash(*hasher.finalize().as_bytes())
    }

    /// The value of [`About::Chunks`] or [`About::Hash`].
    pub(crate) fn says(&self, what: About, naming: &NamingKeys, size: u64) -> Option<Vec<u8>> {
        match what {
            About::Chunks => Some(self.chunks().to_string().into_bytes()),
            About::Hash => Some(format!("{:#}", self.hash(naming, size)).into_bytes()),
            About::State | About::Replicas => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp_format::ChunkRef;

    fn extent(id: u8, hash: u8, start: u32, len: u32) -> Extent {
        let (id, hash) = (ChunkId([id; 32]), ContentHash([hash; 32]));
        Extent { chunk: ChunkRef { id, hash, len: 100, epoch: 0 }, start, len }
    }

    #[test]
    fn a_hash_tells_of_every_part_and_of_nothing_else() {
        let naming = NamingKeys::public();
        let hash =
            |size, extents: &[(u64, Extent)]| Whole::Extents(extents.to_vec()).hash(&naming, size);
        let one = hash(30, &[(0, extent(1, 1, 5, 30))]);
        // Cut in two, and sealed anew: what it holds is the same.
        assert_eq!(hash(30, &[(0, extent(1, 1, 5, 10)), (10, extent(9, 1, 15, 20))]), one);
        let others = [
            hash(31, &[(0, extent(1, 1, 5, 30))]),
            hash(30, &[(0, extent(1, 2, 5, 30))]),
            hash(30, &[(0, extent(1, 1, 6, 30))]),
            hash(30, &[(0, extent(1, 1, 5, 29))]),
            hash(30, &[(1, extent(1, 1, 5, 29))]),
            hash(30, &[(0, extent(1, 1, 5, 10)), (10, extent(1, 1, 16, 20))]),
            hash(30, &[(0, extent(1, 1, 5, 10)), (11, extent(1, 1, 15, 19))]),
            hash(30, &[]),
        ];
        let distinct: HashSet<ContentHash> = others.into_iter().chain([one]).collect();
        assert_eq!(distinct.len(), others.len() + 1);
        let bytes = vec![7; 30];
        let chunk = ChunkRef { hash: naming.content_hash(&bytes), ..extent(3, 0, 0, 1).chunk };
        let alone = Extent { chunk, start: 0, len: 30 };
        assert_eq!(Whole::Inline(bytes).hash(&naming, 30), hash(30, &[(0, alone)]));
        assert_eq!(Whole::Inline(Vec::new()).hash(&naming, 0), hash(0, &[]));
    }

    #[test]
    fn a_chunk_that_is_named_twice_counts_once() {
        let extents =
            vec![(0, extent(1, 1, 0, 10)), (10, extent(2, 2, 0, 10)), (20, extent(1, 1, 50, 10))];
        assert_eq!(Whole::Extents(extents).chunks(), 2);
        assert_eq!(Whole::Inline(vec![1]).chunks(), 0);
    }

    #[test]
    fn names_below_the_prefix_are_reserved_known_or_not() {
        assert_eq!(About::named(b"user.warp.state"), Some(About::State));
        for name in [b"user.warp.".as_slice(), b"user.warp.other", b"user.warp.state.x"] {
            assert!(is_reserved(name) && About::named(name).is_none());
        }
        for name in [b"user.warp".as_slice(), b"user.warped", b"trusted.warp.state", b"state"] {
            assert!(!is_reserved(name) && About::named(name).is_none());
        }
    }
}

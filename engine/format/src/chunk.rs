//! Step *cut*: plain bytes into plain chunks.
//!
//! Neighbours: `flow` reads files and hands them here; `codec` packs what
//! comes out. Promises: cut points depend on the bytes, the file's length
//! class and the portal's gear table only, never on how the bytes arrive;
//! every chunk is within its class's bounds. Never: reads a file.
//! Tested by `tests/prop_format.rs` (cut → join, any feeding) and
//! `tests/golden.rs` (cut points pinned).

use crate::id::ContentHash;
use crate::keys::NamingKeys;
use crate::limits::MAX_CHUNK_LEN;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkKind {
    /// Bytes of files.
    Data,
    /// A tree node.
    Node,
}

/// Plain bytes with the hash that names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainChunk {
    pub(crate) kind: ChunkKind,
    pub(crate) hash: ContentHash,
    pub(crate) bytes: Vec<u8>,
}

impl PlainChunk {
    /// File bytes, named with the portal's hash key.
    ///
    /// # Panics
    /// If `bytes` is longer than [`MAX_CHUNK_LEN`]: the cutter never makes one.
    pub fn data(keys: &NamingKeys, bytes: Vec<u8>) -> Self {
        let hash = keys.content_hash(&bytes);
        Self::named(hash, bytes)
    }

    /// File bytes whose hash the caller has computed already.
    pub fn named(hash: ContentHash, bytes: Vec<u8>) -> Self {
        assert!(bytes.len() <= MAX_CHUNK_LEN, "a chunk over the format's limit");
        Self { kind: ChunkKind::Data, hash, bytes }
    }

    /// The hash that names the content.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Bounds of the chunks of one class of files, in bytes. A rule of the format
/// version, chosen by docs/performance.md, not a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutRule {
    /// No chunk but the last is shorter.
    pub min: usize,
    /// What the normalised cut aims at.
    pub avg: usize,
    /// No chunk is longer.
    pub max: usize,
}

/// Files up to this many bytes (and over the inline limit) join a group.
pub const SMALL_FILE_LEN: usize = 64 << 10;
/// From this file length on, chunks are larger.
pub const LARGE_FILE_LEN: u64 = 32 << 20;

impl CutRule {
    /// Up to [`LARGE_FILE_LEN`].
    pub const MEDIUM: Self = Self { min: 16 << 10, avg: 64 << 10, max: 256 << 10 };
    /// From [`LARGE_FILE_LEN`] on: read in bulk, so fewer and larger chunks.
    pub const LARGE: Self = Self { min: 128 << 10, avg: 512 << 10, max: 1 << 20 };

    /// The rule for a file of `len` bytes.
    pub fn for_len(len: u64) -> Self {
        if len < LARGE_FILE_LEN { Self::MEDIUM } else { Self::LARGE }
    }

    /// Masks before and after the average: two bits more and two bits less
    /// than log2(avg) (normalised chunking, level 2). High bits, because the
    /// low bits of a gear hash depend on the last few bytes only.
    fn masks(self) -> (u64, u64) {
        let bits = self.avg.ilog2();
        let high = |n: u32| !0u64 << (64 - n);
        (high(bits + 2), high(bits - 2))
    }

    /// Length of the first chunk of `data`. `last` says that nothing follows
    /// `data`; otherwise `data` must hold at least `max` bytes.
    pub fn first_cut(self, keys: &NamingKeys, data: &[u8], last: bool) -> usize {
        assert!(last || data.len() >= self.max, "a cut needs a whole window");
        if data.len() <= self.min {
            return data.len();
        }
        let (strict, loose) = self.masks();
        let end = data.len().min(self.max);
        let avg = self.avg.min(end);
        if let Some(n) = keys.gear().search(&data[..self.min], &data[self.min..avg], strict) {
            return self.min + n;
        }
        match keys.gear().search(&data[..avg], &data[avg..end], loose) {
            Some(n) => avg + n,
            None => end,
        }
    }
}

/// Whether a group of small neighbours ends after the file just added.
///
/// Groups are cut by content as chunks are: a changed file moves no boundary
/// but those beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupRule {
    /// A group shorter than this does not end by content.
    pub min: usize,
    /// A group ends before it would grow over this.
    pub max: usize,
    /// After `min`, one file in this many ends the group.
    pub one_in: u32,
}

impl GroupRule {
    /// The default: a 4 KiB read decodes at most 256 KiB.
    pub const DEFAULT: Self = Self { min: 96 << 10, max: 256 << 10, one_in: 12 };
    /// `--solid`: smallest size, slower random reads.
    pub const SOLID: Self = Self { min: 3 << 20, max: MAX_CHUNK_LEN, one_in: 64 };

    /// True if the group, now `len` bytes long, ends after the file with this
    /// content hash.
    pub fn ends_after(self, len: usize, file: &ContentHash) -> bool {
        let [a, b, c, d, ..] = file.0;
        len >= self.min && u32::from_le_bytes([a, b, c, d]).is_multiple_of(self.one_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_stay_within_the_bounds_of_their_class() {
        let keys = NamingKeys::public();
        let mut data = vec![0u8; 3 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        for rule in [CutRule::MEDIUM, CutRule::LARGE] {
            let mut rest = data.as_slice();
            while !rest.is_empty() {
                let n = rule.first_cut(&keys, rest, true);
                assert!(n <= rule.max && (n >= rule.min || n == rest.len()));
                rest = &rest[n..];
            }
        }
    }

    #[test]
    fn a_run_of_equal_bytes_is_cut_at_the_maximum() {
        let keys = NamingKeys::public();
        let rule = CutRule::MEDIUM;
        // A gear hash of equal bytes is constant once its window is full:
        // either it matches at once or never.
        let n = rule.first_cut(&keys, &vec![0; 1 << 20], true);
        assert!(n == rule.max || n == rule.min + 1);
    }

    #[test]
    fn the_average_is_near_what_the_rule_aims_at() {
        let keys = NamingKeys::public();
        let mut data = vec![0u8; 32 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        let rule = CutRule::MEDIUM;
        let (mut rest, mut count) = (data.as_slice(), 0);
        while !rest.is_empty() {
            rest = &rest[rule.first_cut(&keys, rest, true)..];
            count += 1;
        }
        let mean = data.len() / count;
        assert!((rule.avg / 2..rule.avg * 2).contains(&mean), "mean {mean}");
    }
}

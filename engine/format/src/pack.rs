//! Packs: the files in which a store keeps sealed chunks.
//!
//! A pack is a header and then records as in an archive
//! ([`Frame`](crate::archive::Frame), sealed chunk). Promises: a pack index
//! that decodes is whole. Never: touches a disk. Tested by the unit tests
//! below and `cache/tests`.

use crate::bytes::Reader;
use crate::error::{FormatError, Result};
use crate::id::ChunkId;
use crate::limits::{VERSION, check_version};

const MAGIC: [u8; 8] = *b"\x93WARPpak";
const INDEX_MAGIC: [u8; 8] = *b"\x93WARPidx";
/// Bytes of a pack's header.
pub const PACK_HEADER_LEN: usize = 32;
const ENTRY_LEN: usize = 32 + 8 + 4;
const CHECK_LEN: usize = 32;

/// Why a chunk is kept; the order is from what is kept longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Written here: never evicted.
    Own,
    /// Held for others.
    Replica,
    /// May be fetched again: evicted a pack at a time.
    Cached,
}

impl Class {
    /// As file names have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Replica => "replica",
            Self::Cached => "cached",
        }
    }

    /// The class that a file name says.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Own, Self::Replica, Self::Cached].into_iter().find(|class| class.word() == word)
    }
}

/// What stands at the start of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackHeader {
    /// Why its chunks are kept.
    pub class: Class,
    /// Its number among the packs of its class.
    pub number: u32,
}

impl PackHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; PACK_HEADER_LEN] {
        let mut out = [0; PACK_HEADER_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8] = VERSION;
        out[9] = self.class as u8;
        out[12..16].copy_from_slice(&self.number.to_le_bytes());
        let check = blake3::hash(&out[..16]);
        out[16..].copy_from_slice(&check.as_bytes()[..16]);
        out
    }

    /// The header in these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let at = "pack header";
        let mut r = Reader::new(bytes);
        if r.array::<8>(at)? != MAGIC {
            return Err(FormatError::NotA { what: "warp pack" });
        }
        let version = r.u8(at)?;
        check_version("pack", version)?;
        let class = match r.u8(at)? {
            0 => Class::Own,
            1 => Class::Replica,
            2 => Class::Cached,
            _ => return Err(FormatError::Invalid { at }),
        };
        r.take(2, at)?;
        let header = Self { class, number: r.u32(at)? };
        if bytes.starts_with(&header.encode()) {
            Ok(header)
        } else {
            Err(FormatError::Checksum { at })
        }
    }
}

/// Where a chunk is in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Offset of the sealed chunk, behind its frame.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// What is in a full pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackIndex {
    /// Length of the pack.
    pub pack_len: u64,
    /// Its chunks, in the order of their places.
    pub entries: Vec<(ChunkId, Place)>,
}

impl PackIndex {
    /// The index's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + self.entries.len() * ENTRY_LEN + CHECK_LEN);
        out.extend_from_slice(&INDEX_MAGIC);
        out.extend_from_slice(&[VERSION, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&self.pack_len.to_le_bytes());
        for (id, place) in &self.entries {
            out.extend_from_slice(&id.0);
            out.extend_from_slice(&place.offset.to_le_bytes());
            out.extend_from_slice(&place.len.to_le_bytes());
        }
        let check = blake3::hash(&out);
        out.extend_from_slice(check.as_bytes());
        out
    }

    /// The index in these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let at = "pack index";
        let (body, check) =
            bytes.split_last_chunk::<CHECK_LEN>().ok_or(FormatError::Truncated { at })?;
        if blake3::hash(body).as_bytes() != check {
            return Err(FormatError::Checksum { at });
        }
        let mut r = Reader::new(body);
        if r.array::<8>(at)? != INDEX_MAGIC {
            return Err(FormatError::NotA { what: "warp pack index" });
        }
        let version = r.u8(at)?;
        check_version(at, version)?;
        if r.array::<7>(at)? != [0; 7] {
            return Err(FormatError::Invalid { at });
        }
        let pack_len = r.u64(at)?;
        let mut entries = Vec::with_capacity(r.remaining() / ENTRY_LEN);
        let mut end = PACK_HEADER_LEN as u64;
        while r.remaining() > 0 {
            let id = ChunkId(r.array(at)?);
            let place = Place { offset: r.u64(at)?, len: r.u32(at)? };
            if place.offset < end {
                return Err(FormatError::Invalid { at });
            }
            end = place
                .offset
                .checked_add(place.len.into())
                .filter(|end| *end <= pack_len)
                .ok_or(FormatError::Invalid { at })?;
            entries.push((id, place));
        }
        Ok(Self { pack_len, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_changed_byte_of_a_pack_header_or_index_passes() {
        let header = PackHeader { class: Class::Replica, number: 77 };
        let bytes = header.encode();
        assert_eq!(PackHeader::decode(&bytes), Ok(header));
        for i in 0..bytes.len() {
            let mut bad = bytes;
            bad[i] ^= 1;
            assert!(PackHeader::decode(&bad).is_err(), "header byte {i}");
        }
        let place = |offset| Place { offset, len: 10 };
        let entries = vec![(ChunkId([1; 32]), place(48)), (ChunkId([2; 32]), place(90))];
        let index = PackIndex { pack_len: 100, entries };
        let bytes = index.encode();
        assert_eq!(PackIndex::decode(&bytes), Ok(index));
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            assert!(PackIndex::decode(&bad).is_err(), "index byte {i}");
            assert!(PackIndex::decode(&bytes[..i]).is_err(), "cut at {i}");
        }
    }
}

//! What a device remembers of the contents that it has stored: keyed hash →
//! where in which chunk.
//!
//! It is an aid of one device and travels nowhere: without it equal content is
//! stored again, and nothing is lost. Promises: one encoding for one list; a
//! part that decodes lies within its chunk. Never: touches a disk.
//! Tested by the unit tests below and fuzz target `dedup`.

use crate::bytes::{Put, Reader};
use crate::error::{FormatError, Result};
use crate::id::ContentHash;
use crate::seal::ChunkRef;

/// Content that lies in a chunk: all of it, or a file among its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Names the content.
    pub hash: ContentHash,
    /// First byte within the chunk.
    pub start: u32,
    /// Count of bytes.
    pub len: u32,
}

/// A chunk and what lies in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The chunk.
    pub chunk: ChunkRef,
    /// What lies in it.
    pub parts: Vec<Part>,
}

/// Bytes of an encoded part, at least.
const MIN_PART_LEN: usize = 32 + 2;

/// The bytes of a list.
pub fn encode_parts(list: &[Parts]) -> Vec<u8> {
    let mut out = Vec::new();
    for Parts { chunk, parts } in list {
        chunk.encode(&mut out);
        out.put_varint(parts.len() as u64);
        for part in parts {
            let end = u64::from(part.start) + u64::from(part.len);
            assert!(end <= u64::from(chunk.len), "a part lies within its chunk");
            out.extend_from_slice(&part.hash.0);
            out.put_varint(part.start.into());
            out.put_varint(part.len.into());
        }
    }
    out
}

/// The list in these bytes, all of them.
pub fn decode_parts(bytes: &[u8]) -> Result<Vec<Parts>> {
    let at = "dedup entry";
    let mut r = Reader::new(bytes);
    let mut list = Vec::new();
    while r.remaining() > 0 {
        let chunk = ChunkRef::decode(&mut r)?;
        let count = r.varint(at)?;
        if count > (r.remaining() / MIN_PART_LEN) as u64 {
            return Err(FormatError::Truncated { at });
        }
        let mut parts = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let hash = ContentHash(r.array(at)?);
            let part = Part { hash, start: r.varint_u32(at)?, len: r.varint_u32(at)? };
            if u64::from(part.start) + u64::from(part.len) > u64::from(chunk.len) {
                return Err(FormatError::Invalid { at });
            }
            parts.push(part);
        }
        list.push(Parts { chunk, parts });
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;

    #[test]
    fn a_list_comes_back_and_a_cut_or_stretched_one_is_refused() {
        let part = |n: u8, start, len| Part { hash: ContentHash([n; 32]), start, len };
        let chunk = |n: u8| ChunkRef {
            id: ChunkId([n; 32]),
            hash: ContentHash([n; 32]),
            len: 900,
            epoch: 0,
        };
        let list = vec![
            Parts { chunk: chunk(1), parts: vec![part(1, 0, 900)] },
            Parts { chunk: chunk(2), parts: vec![part(3, 0, 300), part(4, 300, 600)] },
        ];
        let bytes = encode_parts(&list);
        assert_eq!(decode_parts(&bytes), Ok(list.clone()));
        let first = encode_parts(&list[..1]).len();
        for cut in (1..bytes.len()).filter(|cut| *cut != first) {
            assert!(decode_parts(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut bad = bytes;
        let last = bad.len() - 1;
        bad[last] += 1;
        assert_eq!(decode_parts(&bad), Err(FormatError::Invalid { at: "dedup entry" }));
    }
}

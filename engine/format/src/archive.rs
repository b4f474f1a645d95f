//! The archive container: header, records, index, footer.
//!
//! Neighbours: `flow::archive` writes and reads the file. Promises: every
//! byte of an archive is covered by a checksum or a chunk id; each record can
//! be found by a forward scan without the index. Never: reads a file.
//! Tested by the unit tests below, fuzz targets `archive_header` and
//! `archive_footer`, and the damage test in `tests/`.
//! docs/format.md has the byte tables.

use crate::bytes::Reader;
use crate::error::{FormatError, Result};
use crate::id::{ChunkId, ContentHash, DeviceId};
use crate::keys::{PassphraseSlot, SigningKey, verify_signature};
use crate::limits::{MAX_NODE_LEN, MAX_SEALED_LEN, VERSION, check_version};
use crate::seal::{ChunkRef, SEAL_HEADER_LEN, SealedChunk, Suite};

/// First bytes of an archive. The non-ASCII byte, the line ends and ^Z show
/// what a transfer in text mode has done to it, as PNG's do.
pub const MAGIC: [u8; 8] = *b"\x93WARP\r\n\x1a";
/// First bytes of the footer.
pub const FOOTER_MAGIC: [u8; 8] = *b"\x93WARPend";
/// First bytes of each record, before its length and the first 8 bytes of
/// its chunk id, by which a scan knows a whole record from a damaged one.
pub const RECORD_MAGIC: [u8; 4] = [0xe5, b'w', b'R', 0xc7];
/// Bytes of the header.
pub const HEADER_LEN: usize = 256;
/// Bytes of a record before its sealed chunk.
pub const FRAME_LEN: usize = 16;
/// Bytes of an index entry.
pub const INDEX_ENTRY_LEN: usize = 28;
/// Bytes of the footer.
pub const FOOTER_LEN: usize = 576;

const CHECK_LEN: usize = 32;
const SIGN_CONTEXT: &str = "warp v1 archive signature";

/// What stands at the start of an archive and again in its footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The wrapped root secret of a sealed archive; `None` = suite 0.
    pub slot: Option<PassphraseSlot>,
}

impl Header {
    /// How the chunks are sealed.
    pub fn suite(&self) -> Suite {
        if self.slot.is_some() { Suite::ChaCha20Poly1305 } else { Suite::Plain }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, self.suite().byte(), 0, 0]);
        if let Some(slot) = &self.slot {
            slot.encode(&mut bytes);
        }
        bytes.resize(HEADER_LEN - CHECK_LEN, 0);
        seal_check(&mut bytes);
        bytes.try_into().expect("a header has its fixed length")
    }

    /// The header in these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let at = "archive header";
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::NotA { what: "warp archive" });
        }
        let mut r = Reader::new(bytes);
        r.take(MAGIC.len(), at)?;
        let version = r.u8(at)?;
        check_version("archive", version)?;
        let body = checked(bytes, HEADER_LEN, at)?;
        let suite = Suite::from_byte(r.u8(at)?)?;
        if r.array::<2>(at)? != [0, 0] {
            return Err(FormatError::Invalid { at });
        }
        let (slot, used) = match suite {
            Suite::Plain => (None, MAGIC.len() + 4),
            Suite::ChaCha20Poly1305 => {
                (Some(PassphraseSlot::decode(&mut r)?), MAGIC.len() + 4 + PassphraseSlot::LEN)
            }
        };
        if body.iter().skip(used).any(|byte| *byte != 0) {
            return Err(FormatError::Invalid { at });
        }
        Ok(Self { slot })
    }
}

/// What stands before a sealed chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Bytes of the sealed chunk.
    pub len: usize,
    check: [u8; 8],
}

impl Frame {
    /// The frame of this chunk.
    pub fn of(sealed: &SealedChunk) -> Self {
        Self { len: sealed.bytes().len(), check: head(&sealed.id().0) }
    }

    /// The frame's bytes.
    pub fn encode(&self) -> [u8; FRAME_LEN] {
        let len = u32::try_from(self.len).expect("a sealed chunk is within its limit");
        let mut out = [0; FRAME_LEN];
        out[..4].copy_from_slice(&RECORD_MAGIC);
        out[4..8].copy_from_slice(&len.to_le_bytes());
        out[8..].copy_from_slice(&self.check);
        out
    }

    /// The frame in these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let at = "record";
        let mut r = Reader::new(bytes);
        if r.array::<4>(at)? != RECORD_MAGIC {
            return Err(FormatError::NotA { what: "record" });
        }
        let len = r.u32(at)? as usize;
        if !(SEAL_HEADER_LEN..=MAX_SEALED_LEN).contains(&len) {
            return Err(FormatError::Invalid { at });
        }
        Ok(Self { len, check: r.array(at)? })
    }

    /// True if this may be the frame of the chunk with this id.
    pub fn is_for(&self, id: &ChunkId) -> bool {
        id.0.starts_with(&self.check)
    }

    /// True if frame and index speak of the same chunk.
    pub fn agrees_with(&self, entry: &IndexEntry) -> bool {
        self.len == entry.len as usize && entry.prefix.starts_with(&self.check)
    }
}

fn head<const N: usize>(id: &[u8; 32]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&id[..N]);
    out
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexEntry {
    /// First 16 bytes of the id; what is read there is checked against all 32.
    pub prefix: [u8; 16],
    /// Offset of the sealed chunk in the file (behind its frame).
    pub offset: u64,
    /// Bytes of the sealed chunk.
    pub len: u32,
}

impl IndexEntry {
    /// The entry of a chunk.
    pub fn new(id: &ChunkId, offset: u64, len: u32) -> Self {
        Self { prefix: head(&id.0), offset, len }
    }

    /// True if the entry may be this chunk's.
    pub fn is_for(&self, id: &ChunkId) -> bool {
        id.0.starts_with(&self.prefix)
    }

    /// The entry's bytes.
    pub fn encode(&self) -> [u8; INDEX_ENTRY_LEN] {
        let mut out = [0; INDEX_ENTRY_LEN];
        out[..16].copy_from_slice(&self.prefix);
        out[16..24].copy_from_slice(&self.offset.to_le_bytes());
        out[24..].copy_from_slice(&self.len.to_le_bytes());
        out
    }

    /// The entry in these bytes.
    pub fn decode(bytes: &[u8; INDEX_ENTRY_LEN]) -> Result<Self> {
        let at = "index entry";
        let mut r = Reader::new(bytes);
        let entry = Self { prefix: r.array(at)?, offset: r.u64(at)?, len: r.u32(at)? };
        if (SEAL_HEADER_LEN..=MAX_SEALED_LEN).contains(&(entry.len as usize)) {
            Ok(entry)
        } else {
            Err(FormatError::Invalid { at })
        }
    }
}

/// Who signed an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// The signer's key.
    pub signer: DeviceId,
    signature: [u8; 64],
}

/// What stands at the end of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// Copy of the header.
    pub header: Header,
    /// Root of the tree.
    pub root: ChunkRef,
    /// Offset of the index, where the records end.
    pub index_at: u64,
    /// Entries of the index.
    pub index_count: u64,
    /// BLAKE3 of the index.
    pub index_hash: [u8; 32],
    /// Signature over everything above.
    pub signature: Option<Signature>,
}

impl Footer {
    /// Length of the whole file, as this footer tells it.
    pub fn file_len(&self) -> Option<u64> {
        self.index_count
            .checked_mul(INDEX_ENTRY_LEN as u64)?
            .checked_add(self.index_at)?
            .checked_add(FOOTER_LEN as u64)
    }

    fn signed_part(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_LEN);
        bytes.extend_from_slice(&FOOTER_MAGIC);
        bytes.extend_from_slice(&[VERSION, u8::from(self.signature.is_some()), 0, 0]);
        bytes.extend_from_slice(&self.header.encode());
        bytes.extend_from_slice(&self.root.id.0);
        bytes.extend_from_slice(&self.root.hash.0);
        bytes.extend_from_slice(&self.root.len.to_le_bytes());
        bytes.extend_from_slice(&self.root.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.index_at.to_le_bytes());
        bytes.extend_from_slice(&self.index_count.to_le_bytes());
        bytes.extend_from_slice(&self.index_hash);
        bytes
    }

    /// Signs the footer, and through root and index everything else.
    pub fn sign(&mut self, key: &SigningKey) {
        self.signature = Some(Signature { signer: key.device_id(), signature: [0; 64] });
        let signature = key.sign(SIGN_CONTEXT, &self.signed_part());
        self.signature = Some(Signature { signer: key.device_id(), signature });
    }

    /// The footer's bytes.
    pub fn encode(&self) -> [u8; FOOTER_LEN] {
        let mut bytes = self.signed_part();
        if let Some(signature) = &self.signature {
            bytes.extend_from_slice(&signature.signer.0);
            bytes.extend_from_slice(&signature.signature);
        }
        bytes.resize(FOOTER_LEN - CHECK_LEN, 0);
        seal_check(&mut bytes);
        bytes.try_into().expect("a footer has its fixed length")
    }

    /// The footer in these bytes, the last of a file of `file_len` bytes; its
    /// signature, if it has one, checked.
    pub fn decode(bytes: &[u8], file_len: u64) -> Result<Self> {
        let at = "archive footer";
        if !bytes.starts_with(&FOOTER_MAGIC) {
            return Err(FormatError::Truncated { at });
        }
        // The version before the checksum: a newer one may have another.
        let mut r = Reader::new(bytes);
        r.take(FOOTER_MAGIC.len(), at)?;
        let version = r.u8(at)?;
        check_version("archive", version)?;
        let mut r = Reader::new(checked(bytes, FOOTER_LEN, at)?);
        r.take(FOOTER_MAGIC.len() + 1, at)?;
        let signed = match r.array::<3>(at)? {
            [0, 0, 0] => false,
            [1, 0, 0] => true,
            _ => return Err(FormatError::Invalid { at }),
        };
        let header = Header::decode(r.take(HEADER_LEN, at)?)?;
        let root = ChunkRef {
            id: ChunkId(r.array(at)?),
            hash: ContentHash(r.array(at)?),
            len: r.u32(at)?,
            epoch: r.u32(at)?,
        };
        let (index_at, index_count) = (r.u64(at)?, r.u64(at)?);
        let index_hash = r.array(at)?;
        let signature = if signed {
            Some(Signature { signer: DeviceId(r.array(at)?), signature: r.array(at)? })
        } else {
            None
        };
        let rest = r.take(r.remaining(), at)?;
        let footer = Self { header, root, index_at, index_count, index_hash, signature };
        let fits = footer.file_len() == Some(file_len) && index_at >= HEADER_LEN as u64;
        if rest.iter().any(|byte| *byte != 0) || !fits || root.len as usize > MAX_NODE_LEN {
            return Err(FormatError::Invalid { at });
        }
        if let Some(s) = &footer.signature {
            let message = footer.signed_part();
            verify_signature(&s.signer, SIGN_CONTEXT, &message, &s.signature, "archive")?;
        }
        Ok(footer)
    }
}

fn seal_check(bytes: &mut Vec<u8>) {
    let check = blake3::hash(bytes);
    bytes.extend_from_slice(check.as_bytes());
}

/// The bytes of a fixed structure without its checksum, which must match.
fn checked<'a>(bytes: &'a [u8], len: usize, at: &'static str) -> Result<&'a [u8]> {
    let whole = bytes.get(..len).ok_or(FormatError::Truncated { at })?;
    let (body, check) =
        whole.split_last_chunk::<CHECK_LEN>().ok_or(FormatError::Truncated { at })?;
    if blake3::hash(body).as_bytes() == check {
        Ok(body)
    } else {
        Err(FormatError::Checksum { at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{ArgonCost, Secret};

    fn footer(slot: bool) -> Footer {
        let cost = ArgonCost { memory_kib: 64, passes: 1, lanes: 1 };
        let slot =
            slot.then(|| PassphraseSlot::wrap(&Secret::new([1; 32]), b"p", cost, [2; 16]).unwrap());
        Footer {
            header: Header { slot },
            root: ChunkRef { id: ChunkId([3; 32]), hash: ContentHash([4; 32]), len: 9, epoch: 0 },
            index_at: 1000,
            index_count: 3,
            index_hash: [5; 32],
            signature: None,
        }
    }

    #[test]
    fn no_changed_byte_of_header_or_footer_passes() {
        for slot in [false, true] {
            let mut f = footer(slot);
            f.sign(&SigningKey::from_seed(&Secret::new([6; 32])));
            let len = f.file_len().unwrap();
            let bytes = f.encode();
            assert_eq!(Footer::decode(&bytes, len), Ok(f.clone()));
            assert!(Footer::decode(&bytes, len + 1).is_err());
            let header = f.header.encode();
            assert_eq!(Header::decode(&header), Ok(f.header));
            for i in 0..FOOTER_LEN {
                let mut bad = bytes;
                bad[i] ^= 0x10;
                assert!(Footer::decode(&bad, len).is_err(), "footer byte {i}");
                assert!(Footer::decode(&bytes[..i], len).is_err());
            }
            for i in 0..HEADER_LEN {
                let mut bad = header;
                bad[i] ^= 0x10;
                assert!(Header::decode(&bad).is_err(), "header byte {i}");
            }
        }
    }

    #[test]
    fn a_newer_version_is_named_as_such() {
        let mut bytes = Header { slot: None }.encode();
        bytes[8] = 9;
        assert!(matches!(Header::decode(&bytes), Err(FormatError::Version { version: 9, .. })));
        assert!(matches!(Header::decode(b"hello"), Err(FormatError::NotA { .. })));
    }

    #[test]
    fn a_footer_signed_by_another_key_is_refused() {
        let mut f = footer(false);
        f.sign(&SigningKey::from_seed(&Secret::new([6; 32])));
        let other = SigningKey::from_seed(&Secret::new([7; 32])).device_id();
        f.signature = f.signature.map(|s| Signature { signer: other, ..s });
        let len = f.file_len().unwrap();
        assert_eq!(
            Footer::decode(&f.encode(), len),
            Err(FormatError::BadSignature { what: "archive" })
        );
    }
}

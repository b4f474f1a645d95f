//! Bytes of the journal, which never leaves the device that wrote it.
//!
//! Promises: a record shows nothing of its entry but its length; it opens only
//! in its place (journal and sequence are authenticated). Never: draws its own
//! nonce. Tested by the unit tests below and `cache/tests/crash_journal.rs`.

use crate::bytes::Reader;
use crate::error::{FormatError, Result};
use crate::keys::Secret;
use crate::limits::{VERSION, check_version};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};

const MAGIC: [u8; 8] = *b"\x93WARPjnl";
/// First bytes of a record.
pub const ENTRY_MAGIC: [u8; 4] = [0xe5, b'w', b'J', 0xc7];
/// Bytes of a journal's header.
pub const JOURNAL_HEADER_LEN: usize = 64;
const CHECK_LEN: usize = 32;
const TAG_LEN: usize = 16;
const NONCE_LEN: usize = 24;
/// Longest entry, in bytes.
pub const MAX_ENTRY_LEN: usize = 16 << 20;

/// What stands at the start of a journal file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalHeader {
    /// Number of the file.
    pub number: u64,
    /// Sequence number of its first record.
    pub first: u64,
}

impl JournalHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; JOURNAL_HEADER_LEN] {
        let mut out = [0; JOURNAL_HEADER_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8] = VERSION;
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..32].copy_from_slice(&self.first.to_le_bytes());
        let check = blake3::hash(&out[..JOURNAL_HEADER_LEN - CHECK_LEN]);
        out[JOURNAL_HEADER_LEN - CHECK_LEN..].copy_from_slice(check.as_bytes());
        out
    }

    /// The header in these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let at = "journal header";
        let mut r =
            Reader::new(bytes.get(..JOURNAL_HEADER_LEN).ok_or(FormatError::Truncated { at })?);
        if r.array::<8>(at)? != MAGIC {
            return Err(FormatError::NotA { what: "warp journal" });
        }
        let version = r.u8(at)?;
        check_version("journal", version)?;
        r.take(7, at)?;
        let header = Self { number: r.u64(at)?, first: r.u64(at)? };
        if bytes.starts_with(&header.encode()) {
            Ok(header)
        } else {
            Err(FormatError::Checksum { at })
        }
    }
}

/// What a record says in the clear, and authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHead {
    /// Bytes of the entry.
    pub len: u32,
    /// Its place in the order of all entries.
    pub sequence: u64,
    /// The last entry that was durable when this one was written: if this one
    /// is there and that one is not, the disk has lost it.
    pub durable: u64,
}

impl EntryHead {
    /// Bytes of a record's head.
    pub const LEN: usize = 4 + 4 + 8 + 8 + NONCE_LEN;

    fn encode(self, nonce: &[u8; NONCE_LEN]) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&ENTRY_MAGIC);
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..24].copy_from_slice(&self.durable.to_le_bytes());
        out[24..].copy_from_slice(nonce);
        out
    }

    /// Bytes of the whole record.
    pub fn record_len(self) -> usize {
        Self::LEN + self.len as usize + TAG_LEN
    }
}

/// A record that opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it said in the clear.
    pub head: EntryHead,
    /// The entry.
    pub bytes: Vec<u8>,
}

/// Seals what stays on this device.
pub struct LocalKey(Secret);

impl LocalKey {
    /// Under this secret, which must seal nothing else.
    pub fn new(secret: Secret) -> Self {
        Self(secret)
    }

    fn aead(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&chacha20poly1305::Key::from(*self.0.expose()))
    }

    /// Appends the record of an entry. `nonce` must be fresh random bytes.
    ///
    /// # Panics
    /// If the entry is longer than [`MAX_ENTRY_LEN`].
    pub fn seal(
        &self,
        journal: u64,
        sequence: u64,
        durable: u64,
        nonce: [u8; NONCE_LEN],
        entry: &[u8],
        out: &mut Vec<u8>,
    ) {
        assert!(entry.len() <= MAX_ENTRY_LEN, "an entry is within its limit");
        let head = EntryHead { len: entry.len() as u32, sequence, durable };
        let encoded = head.encode(&nonce);
        out.extend_from_slice(&encoded);
        let start = out.len();
        out.extend_from_slice(entry);
        let tag = self
            .aead()
            .encrypt_inout_detached(
                &XNonce::from(nonce),
                &associated(journal, &encoded),
                (&mut out[start..]).into(),
            )
            .expect("an entry is far below the cipher's limit");
        out.extend_from_slice(&tag);
    }

    /// The record at the start of `bytes`, if a whole one is there.
    pub fn open(&self, journal: u64, bytes: &[u8]) -> Option<Entry> {
        let mut r = Reader::new(bytes);
        let encoded = r.array::<{ EntryHead::LEN }>("record").ok()?;
        let mut fields = Reader::new(&encoded);
        if fields.array::<4>("record").ok()? != ENTRY_MAGIC {
            return None;
        }
        let head = EntryHead {
            len: fields.u32("record").ok()?,
            sequence: fields.u64("record").ok()?,
            durable: fields.u64("record").ok()?,
        };
        let nonce = fields.array::<NONCE_LEN>("record").ok()?;
        if head.len as usize > MAX_ENTRY_LEN {
            return None;
        }
        let mut entry = r.take(head.len as usize, "record").ok()?.to_vec();
        let tag = Tag::from(r.array::<TAG_LEN>("record").ok()?);
        self.aead()
            .decrypt_inout_detached(
                &XNonce::from(nonce),
                &associated(journal, &encoded),
                entry.as_mut_slice().into(),
                &tag,
            )
            .ok()?;
        Some(Entry { head, bytes: entry })
    }
}

fn associated(journal: u64, head: &[u8; EntryHead::LEN]) -> [u8; 8 + EntryHead::LEN] {
    let mut out = [0; 8 + EntryHead::LEN];
    out[..8].copy_from_slice(&journal.to_le_bytes());
    out[8..].copy_from_slice(head);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_in_its_place_only_and_with_every_byte() {
        let key = LocalKey::new(Secret::new([1; 32]));
        let mut bytes = Vec::new();
        key.seal(3, 7, 5, [9; 24], b"a change", &mut bytes);
        let head = EntryHead { len: 8, sequence: 7, durable: 5 };
        assert_eq!(key.open(3, &bytes), Some(Entry { head, bytes: b"a change".to_vec() }));
        assert_eq!(head.record_len(), bytes.len());
        assert_eq!(key.open(4, &bytes), None);
        assert_eq!(LocalKey::new(Secret::new([2; 32])).open(3, &bytes), None);
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            assert_eq!(key.open(3, &bad), None, "byte {i}");
            assert_eq!(key.open(3, &bytes[..i]), None, "cut at {i}");
        }
        assert!(!bytes.windows(8).any(|w| w == b"a change"));
    }

    #[test]
    fn no_changed_byte_of_a_journal_header_passes() {
        let header = JournalHeader { number: 3, first: 9 };
        let bytes = header.encode();
        assert_eq!(JournalHeader::decode(&bytes), Ok(header));
        for i in 0..bytes.len() {
            let mut bad = bytes;
            bad[i] ^= 1;
            assert!(JournalHeader::decode(&bad).is_err(), "byte {i}");
        }
    }
}

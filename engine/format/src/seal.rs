//! Step *seal*: packed chunks into sealed chunks, and the way back.
//!
//! Neighbours: `codec` before; the archive writer, the store and the server
//! after, which take a [`SealedChunk`] and nothing else. Promises: a sealed
//! chunk's id is the hash of its bytes; what opens has the content hash that
//! the tree gives. Never: holds unverified bytes in a `SealedChunk`.
//! Tested by `tests/prop_format.rs`, `tests/golden.rs`, fuzz target `open`.
//!
//! Bytes: version, suite, kind, codec, body length (u32); for suite 1 the
//! synthetic IV (32); the body; for suite 1 the tag (16). Body: plain length
//! (u32), packed length (u32), packed bytes, and for suite 1 zeros up to the
//! size class. docs/format.md has the table.

use crate::bytes::Reader;
use crate::chunk::{ChunkKind, PlainChunk};
use crate::codec::{Codec, PackedChunk, Unpacker};
use crate::error::{FormatError, Result};
use crate::id::{ChunkId, ContentHash};
use crate::keys::{ContentSecret, NamingKeys};
use crate::limits::{MAX_CHUNK_LEN, MAX_SEALED_LEN, VERSION, check_version};
use crate::tree::Node;
use std::collections::BTreeMap;

/// Bytes of a sealed chunk's header.
pub const SEAL_HEADER_LEN: usize = 8;
const SIV_LEN: usize = 32;
const TAG_LEN: usize = 16;
const BODY_PREFIX_LEN: usize = 8;

/// How chunks are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Not at all: archives made without `--encrypt`.
    Plain,
    /// ChaCha20-Poly1305 under a key of its own for each chunk.
    ChaCha20Poly1305,
}

impl Suite {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::ChaCha20Poly1305 => 1,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            0 => Ok(Self::Plain),
            1 => Ok(Self::ChaCha20Poly1305),
            _ => Err(FormatError::Invalid { at: "suite" }),
        }
    }
}

impl ChunkKind {
    fn byte(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Node => 2,
        }
    }

    fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            1 => Ok(Self::Data),
            2 => Ok(Self::Node),
            _ => Err(FormatError::Invalid { at: "chunk kind" }),
        }
    }
}

/// What the tree holds of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// Address: hash of the sealed bytes.
    pub id: ChunkId,
    /// Keyed hash of the content.
    pub hash: ContentHash,
    /// Plain length in bytes.
    pub len: u32,
    /// Epoch whose secret seals it.
    pub epoch: u32,
}

/// Sealed bytes whose id is known to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedChunk {
    id: ChunkId,
    bytes: Vec<u8>,
}

/// The public part of a sealed chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealHeader {
    /// How it is sealed.
    pub suite: Suite,
    /// What it holds.
    pub kind: ChunkKind,
    codec: Codec,
    body_len: u32,
}

impl SealHeader {
    /// Reads the first [`SEAL_HEADER_LEN`] bytes of a sealed chunk.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let version = r.u8("chunk version")?;
        check_version("chunk", version)?;
        let suite = Suite::from_byte(r.u8("suite")?)?;
        let kind = ChunkKind::from_byte(r.u8("chunk kind")?)?;
        let codec = Codec::from_byte(r.u8("codec")?)?;
        let body_len = r.u32("body length")?;
        let header = Self { suite, kind, codec, body_len };
        if header.sealed_len() > MAX_SEALED_LEN {
            return Err(FormatError::Limit {
                at: "sealed chunk",
                value: header.sealed_len() as u64,
                limit: MAX_SEALED_LEN as u64,
            });
        }
        Ok(header)
    }

    fn encode(self) -> [u8; SEAL_HEADER_LEN] {
        let [a, b, c, d] = self.body_len.to_le_bytes();
        [VERSION, self.suite.byte(), self.kind.byte(), self.codec.byte(), a, b, c, d]
    }

    /// Bytes of the whole sealed chunk.
    pub fn sealed_len(self) -> usize {
        let extra = match self.suite {
            Suite::Plain => 0,
            Suite::ChaCha20Poly1305 => SIV_LEN + TAG_LEN,
        };
        SEAL_HEADER_LEN + extra + self.body_len as usize
    }
}

/// The size class of a body: Padmé, at most 12 % longer, so that a length
/// shows about log2(log2(length)) bits and no more.
fn padded(len: usize) -> usize {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1usize << exponent.saturating_sub(kept)) - 1;
    (len + mask) & !mask
}

/// Seals chunks of one portal or archive in its newest epoch, and opens those
/// of each whose secret it holds.
#[derive(Clone)]
pub struct Sealer {
    /// By epoch; none: suite 0.
    secrets: BTreeMap<u32, ContentSecret>,
}

impl Sealer {
    /// Suite 0: chunks are hashed, not encrypted.
    pub fn plain() -> Self {
        Self { secrets: BTreeMap::new() }
    }

    /// Suite 1 under this epoch's secret.
    pub fn new(secret: ContentSecret, epoch: u32) -> Self {
        Self { secrets: BTreeMap::from([(epoch, secret)]) }
    }

    /// The same, with the secret of one more epoch.
    #[must_use]
    pub fn with(mut self, secret: ContentSecret, epoch: u32) -> Self {
        self.secrets.insert(epoch, secret);
        self
    }

    fn newest(&self) -> Option<(u32, &ContentSecret)> {
        self.secrets.last_key_value().map(|(epoch, secret)| (*epoch, secret))
    }

    /// The epoch in which chunks are sealed.
    pub fn epoch(&self) -> u32 {
        self.newest().map_or(0, |(epoch, _)| epoch)
    }

    /// The suite in use.
    pub fn suite(&self) -> Suite {
        if self.secrets.is_empty() { Suite::Plain } else { Suite::ChaCha20Poly1305 }
    }

    /// Seals a packed chunk.
    pub fn seal(&self, packed: &PackedChunk) -> SealedChunk {
        let secret = self.newest().map(|(_, secret)| secret);
        let used = BODY_PREFIX_LEN + packed.bytes.len();
        let body_len = if secret.is_some() { padded(used) } else { used };
        let header = SealHeader {
            suite: self.suite(),
            kind: packed.kind,
            codec: packed.codec,
            body_len: u32::try_from(body_len).expect("a packed chunk is within its limit"),
        };
        let mut bytes = Vec::with_capacity(header.sealed_len());
        bytes.extend_from_slice(&header.encode());
        if secret.is_some() {
            bytes.extend_from_slice(&[0; SIV_LEN]);
        }
        let body_at = bytes.len();
        bytes.extend_from_slice(&packed.plain_len.to_le_bytes());
        bytes.extend_from_slice(&(packed.bytes.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&packed.bytes);
        if let Some(secret) = secret {
            let siv = secret.siv(&header.encode(), &bytes[body_at..]);
            bytes[SEAL_HEADER_LEN..body_at].copy_from_slice(&siv);
            bytes.resize(body_at + body_len, 0);
            let tag = secret.aead(&siv).seal(&header.encode(), &mut bytes[body_at..]);
            bytes.extend_from_slice(&tag);
        }
        assert_eq!(bytes.len(), header.sealed_len(), "the header tells the sealed length");
        SealedChunk { id: ChunkId::of(&bytes), bytes }
    }

    /// The reference that the tree keeps of a chunk that was sealed here.
    pub fn reference(&self, sealed: &SealedChunk, hash: ContentHash, len: usize) -> ChunkRef {
        let len = u32::try_from(len).expect("a plain chunk is within its limit");
        ChunkRef { id: sealed.id, hash, len, epoch: self.epoch() }
    }

    /// Opens a data chunk and checks that it holds what `want` names.
    pub fn open(
        &self,
        keys: &NamingKeys,
        unpacker: &mut Unpacker,
        want: &ChunkRef,
        sealed: &SealedChunk,
    ) -> Result<PlainChunk> {
        let bytes = self.open_kind(ChunkKind::Data, unpacker, want, sealed)?;
        if keys.content_hash(&bytes) != want.hash {
            return Err(FormatError::WrongContent { id: sealed.id });
        }
        Ok(PlainChunk { kind: ChunkKind::Data, hash: want.hash, bytes })
    }

    /// Opens a tree node and checks that it is the map that `want` names.
    pub fn open_node(
        &self,
        keys: &NamingKeys,
        unpacker: &mut Unpacker,
        want: &ChunkRef,
        sealed: &SealedChunk,
    ) -> Result<Node> {
        let node = Node::decode(self.open_kind(ChunkKind::Node, unpacker, want, sealed)?)?;
        if node.content_hash(keys) != want.hash {
            return Err(FormatError::WrongContent { id: sealed.id });
        }
        Ok(node)
    }

    fn open_kind(
        &self,
        kind: ChunkKind,
        unpacker: &mut Unpacker,
        want: &ChunkRef,
        sealed: &SealedChunk,
    ) -> Result<Vec<u8>> {
        assert_eq!(want.id, sealed.id, "the chunk that was asked for");
        let (found, bytes) = match self.secrets.get(&want.epoch) {
            None if self.suite() == Suite::Plain => self.open_with(None, unpacker, sealed)?,
            None => return Err(FormatError::NotHanded { id: want.id, epoch: want.epoch }),
            secret => self.open_with(secret, unpacker, sealed)?,
        };
        if found == kind && bytes.len() == want.len as usize {
            Ok(bytes)
        } else {
            Err(FormatError::WrongContent { id: sealed.id })
        }
    }

    /// Opens a chunk of which nothing but its bytes is known: for salvage.
    pub fn open_any(
        &self,
        unpacker: &mut Unpacker,
        sealed: &SealedChunk,
    ) -> Result<(ChunkKind, Vec<u8>)> {
        let mut opened = Err(FormatError::Unsealed { id: sealed.id });
        for secret in self.secrets.values().rev() {
            opened = self.open_with(Some(secret), unpacker, sealed);
            if opened.is_ok() {
                return opened;
            }
        }
        if self.secrets.is_empty() { self.open_with(None, unpacker, sealed) } else { opened }
    }

    fn open_with(
        &self,
        secret: Option<&ContentSecret>,
        unpacker: &mut Unpacker,
        sealed: &SealedChunk,
    ) -> Result<(ChunkKind, Vec<u8>)> {
        let header = SealHeader::decode(&sealed.bytes)?;
        let id = sealed.id;
        if header.sealed_len() != sealed.bytes.len() || header.suite != self.suite() {
            return Err(FormatError::Unsealed { id });
        }
        let body = match secret {
            None => unpack_body(unpacker, header, &sealed.bytes[SEAL_HEADER_LEN..])?,
            Some(secret) => {
                let mut r = Reader::new(&sealed.bytes);
                let associated = r.take(SEAL_HEADER_LEN, "chunk header")?;
                let siv = r.array::<SIV_LEN>("synthetic iv")?;
                let mut body = r.take(header.body_len as usize, "body")?.to_vec();
                let tag = r.array::<TAG_LEN>("tag")?;
                let opened = secret.aead(&siv).open(associated, &mut body, tag);
                opened.ok_or(FormatError::Unsealed { id })?;
                unpack_body(unpacker, header, &body)?
            }
        };
        Ok((header.kind, body))
    }
}

fn unpack_body(unpacker: &mut Unpacker, header: SealHeader, body: &[u8]) -> Result<Vec<u8>> {
    let mut r = Reader::new(body);
    let plain_len = r.u32("plain length")?;
    if plain_len as usize > MAX_CHUNK_LEN {
        let limit = MAX_CHUNK_LEN as u64;
        return Err(FormatError::Limit { at: "plain length", value: plain_len.into(), limit });
    }
    let packed_len = r.u32("packed length")? as usize;
    let packed = r.take(packed_len, "packed bytes")?;
    let padding = r.take(r.remaining(), "padding")?;
    if padding.iter().any(|byte| *byte != 0)
        || (header.suite == Suite::Plain && !padding.is_empty())
    {
        return Err(FormatError::Invalid { at: "padding" });
    }
    unpacker.unpack(header.codec, plain_len, packed)
}

impl SealedChunk {
    /// The only way from foreign bytes to a sealed chunk: they must hash to
    /// the id that was asked for.
    pub fn verify(want: ChunkId, bytes: Vec<u8>) -> Result<Self> {
        if ChunkId::of(&bytes) == want {
            Ok(Self { id: want, bytes })
        } else {
            Err(FormatError::WrongId { id: want })
        }
    }

    /// Bytes found by a scan, whatever they are: the id is computed.
    pub fn found(bytes: Vec<u8>) -> Self {
        Self { id: ChunkId::of(&bytes), bytes }
    }

    /// The address.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// The sealed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Level, Packer};
    use crate::keys::Secret;

    #[test]
    fn padding_adds_at_most_an_eighth_and_keeps_order() {
        let mut last = 0;
        for len in 0..200_000 {
            let p = padded(len);
            assert!(p >= len && p <= len + len / 8 + 1 && p >= last);
            last = p;
        }
    }

    #[test]
    fn the_same_plain_bytes_packed_differently_meet_different_keys() {
        let keys = NamingKeys::public();
        let sealer = Sealer::new(ContentSecret::derive(&Secret::new([1; 32]), 0), 0);
        let chunk = PlainChunk::data(&keys, b"abcabcabc".repeat(5000));
        let a = sealer.seal(&Packer::new(Level::new(1).unwrap()).pack(&chunk));
        let b = sealer.seal(&Packer::new(Level::new(9).unwrap()).pack(&chunk));
        let c = sealer.seal(&Packer::new(Level::new(0).unwrap()).pack(&chunk));
        let siv = |s: &SealedChunk| s.bytes[SEAL_HEADER_LEN..SEAL_HEADER_LEN + SIV_LEN].to_vec();
        assert_ne!(siv(&a), siv(&c));
        // Two levels may by chance pack alike; then the whole chunk is equal.
        assert_eq!(siv(&a) == siv(&b), a == b);
    }

    #[test]
    fn a_chunk_of_another_epoch_or_portal_does_not_open() {
        let keys = NamingKeys::public();
        let root = Secret::new([1; 32]);
        let sealer = Sealer::new(ContentSecret::derive(&root, 0), 0);
        let chunk = PlainChunk::data(&keys, vec![5; 1000]);
        let sealed = sealer.seal(&Packer::new(Level::DEFAULT).pack(&chunk));
        for other in [
            Sealer::new(ContentSecret::derive(&root, 1), 1),
            Sealer::new(ContentSecret::derive(&Secret::new([2; 32]), 0), 0),
            Sealer::plain(),
        ] {
            assert!(other.open_any(&mut Unpacker::new(), &sealed).is_err());
        }
    }

    #[test]
    fn the_newest_epoch_seals_and_each_that_is_held_opens() {
        let keys = NamingKeys::public();
        let (root, later) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let old = Sealer::new(ContentSecret::derive(&root, 0), 0);
        let both = old.clone().with(ContentSecret::derive(&later, 1), 1);
        let chunk = PlainChunk::data(&keys, vec![5; 1000]);
        let seal = |sealer: &Sealer| {
            let sealed = sealer.seal(&Packer::new(Level::DEFAULT).pack(&chunk));
            (sealer.reference(&sealed, chunk.hash(), 1000), sealed)
        };
        let mut unpacker = Unpacker::new();
        for (sealer, epoch) in [(&old, 0), (&both, 1)] {
            let (reference, sealed) = seal(sealer);
            assert_eq!(reference.epoch, epoch);
            assert_eq!(both.open(&keys, &mut unpacker, &reference, &sealed), Ok(chunk.clone()));
            assert!(both.open_any(&mut unpacker, &sealed).is_ok());
            // Under another epoch's number it is not what it says.
            let wrong = ChunkRef { epoch: 1 - epoch, ..reference };
            let refused = Err(FormatError::Unsealed { id: sealed.id });
            assert_eq!(both.open(&keys, &mut unpacker, &wrong, &sealed), refused);
        }
        let (reference, sealed) = seal(&both);
        let refused = Err(FormatError::NotHanded { id: sealed.id, epoch: 1 });
        assert_eq!(old.open(&keys, &mut unpacker, &reference, &sealed), refused);
    }
}

//! Step *codec*: plain chunks into packed chunks and back.
//!
//! Neighbours: `chunk` before, `seal` after. Promises: unpacking never makes
//! more bytes than the chunk's declared plain length, and that is capped
//! before anything is reserved. Never: compresses what a probe shows to be
//! incompressible. Tested by `tests/prop_format.rs` and fuzz target `unpack`.

use crate::chunk::{ChunkKind, PlainChunk};
use crate::error::{FormatError, Result};
use crate::limits::MAX_CHUNK_LEN;

/// How a chunk's bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As they are.
    Store,
    /// One raw LZ4 block.
    Lz4,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Store => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            0 => Ok(Self::Store),
            1 => Ok(Self::Lz4),
            2 => Ok(Self::Zstd),
            _ => Err(FormatError::Invalid { at: "codec" }),
        }
    }
}

/// What `seal` takes: packed bytes and what is needed to unpack them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedChunk {
    pub(crate) kind: ChunkKind,
    pub(crate) codec: Codec,
    pub(crate) plain_len: u32,
    pub(crate) bytes: Vec<u8>,
}

/// A compression level: 0 is LZ4, 1 to 19 are zstd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(u8);

impl Level {
    /// zstd 3.
    pub const DEFAULT: Self = Self(3);
    /// LZ4.
    pub const FASTEST: Self = Self(0);

    /// `None` above 19.
    pub fn new(level: u8) -> Option<Self> {
        (level <= 19).then_some(Self(level))
    }
}

/// Bytes of a chunk that the compressibility probe looks at.
const PROBE_LEN: usize = 16 << 10;
/// Sampled entropy, in bits per byte, above which a probe is worth its time.
const PROBE_ABOVE_BITS: f32 = 7.8;

/// Packs chunks; holds the compressor's state, so keep one for each thread.
pub struct Packer {
    level: Level,
    zstd: zstd::bulk::Compressor<'static>,
    probe: zstd::bulk::Compressor<'static>,
}

impl Packer {
    /// A packer at this level.
    ///
    /// # Panics
    /// If zstd cannot allocate its context.
    pub fn new(level: Level) -> Self {
        let context = |n: i32| zstd::bulk::Compressor::new(n).expect("zstd allocates its context");
        Self { level, zstd: context(i32::from(level.0.max(1))), probe: context(-1) }
    }

    /// Packs a chunk, or stores it if packing would gain less than 1/32.
    pub fn pack(&mut self, chunk: &PlainChunk) -> PackedChunk {
        let plain = chunk.bytes();
        let (codec, bytes) = self.choose(chunk.kind, plain);
        let plain_len = u32::try_from(plain.len()).expect("a plain chunk is within its limit");
        PackedChunk { kind: chunk.kind, codec, plain_len, bytes }
    }

    fn choose(&mut self, kind: ChunkKind, plain: &[u8]) -> (Codec, Vec<u8>) {
        let store = || (Codec::Store, plain.to_vec());
        if kind == ChunkKind::Data && self.looks_incompressible(plain) {
            return store();
        }
        // Nodes are never LZ4: they are read on every walk and hold many
        // repeated fields.
        let (codec, packed) = if kind == ChunkKind::Data && self.level.0 == 0 {
            (Codec::Lz4, lz4_flex::block::compress(plain))
        } else {
            match self.zstd.compress(plain) {
                Ok(packed) => (Codec::Zstd, packed),
                Err(_) => return store(),
            }
        };
        if packed.len() + plain.len() / 32 >= plain.len() { store() } else { (codec, packed) }
    }

    /// Sampled order-0 entropy first (nearly free); where that is high, what
    /// zstd's fastest level gains on the first 16 KiB decides, because flat
    /// byte statistics can still hide repeats.
    fn looks_incompressible(&mut self, plain: &[u8]) -> bool {
        if plain.len() < 4096 || sampled_entropy(plain) < PROBE_ABOVE_BITS {
            return false;
        }
        let probe = &plain[..plain.len().min(PROBE_LEN)];
        match self.probe.compress(probe) {
            Ok(packed) => packed.len() * 100 > probe.len() * 97,
            Err(_) => false,
        }
    }
}

/// Order-0 entropy of sixteen evenly spaced samples of 256 bytes, in bits per
/// byte. 4,096 samples of random bytes measure about 7.95.
fn sampled_entropy(plain: &[u8]) -> f32 {
    let mut counts = [0u16; 256];
    let stride = plain.len() / 16;
    for i in 0..16 {
        for byte in plain.iter().skip(i * stride).take(256) {
            counts[usize::from(*byte)] += 1;
        }
    }
    let total: f32 = counts.iter().map(|c| f32::from(*c)).sum();
    let bits = |c: &u16| {
        let p = f32::from(*c) / total;
        if *c == 0 { 0.0 } else { -p * p.log2() }
    };
    counts.iter().map(bits).sum()
}

/// Unpacks chunks; keep one for each thread.
pub struct Unpacker {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Default for Unpacker {
    fn default() -> Self {
        Self::new()
    }
}

impl Unpacker {
    /// A fresh unpacker.
    ///
    /// # Panics
    /// If zstd cannot allocate its context.
    pub fn new() -> Self {
        Self { zstd: zstd::bulk::Decompressor::new().expect("zstd allocates its context") }
    }

    /// The plain bytes: exactly `plain_len` of them or an error.
    pub fn unpack(&mut self, codec: Codec, plain_len: u32, packed: &[u8]) -> Result<Vec<u8>> {
        let at = "packed chunk";
        let len = plain_len as usize;
        if len > MAX_CHUNK_LEN {
            return Err(FormatError::Limit { at, value: len as u64, limit: MAX_CHUNK_LEN as u64 });
        }
        let plain = match codec {
            Codec::Store => packed.to_vec(),
            Codec::Lz4 => {
                lz4_flex::block::decompress(packed, len).map_err(|_| FormatError::Invalid { at })?
            }
            Codec::Zstd => {
                let mut plain = Vec::with_capacity(len);
                self.zstd
                    .decompress_to_buffer(packed, &mut plain)
                    .map_err(|_| FormatError::Invalid { at })?;
                plain
            }
        };
        if plain.len() == len { Ok(plain) } else { Err(FormatError::Invalid { at }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::NamingKeys;

    fn pack(level: u8, plain: Vec<u8>) -> PackedChunk {
        Packer::new(Level::new(level).unwrap())
            .pack(&PlainChunk::data(&NamingKeys::public(), plain))
    }

    #[test]
    fn random_bytes_are_stored_and_text_is_packed() {
        let mut random = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        assert_eq!(pack(3, random).codec, Codec::Store);
        let text = b"the quick brown fox ".repeat(1000);
        assert_eq!(pack(3, text.clone()).codec, Codec::Zstd);
        assert_eq!(pack(0, text).codec, Codec::Lz4);
    }

    #[test]
    fn a_frame_that_unpacks_to_more_than_declared_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0u8; 1 << 20], 3).unwrap();
        let mut unpacker = Unpacker::new();
        assert!(unpacker.unpack(Codec::Zstd, 1 << 10, &bomb).is_err());
        assert!(unpacker.unpack(Codec::Zstd, u32::MAX, &bomb).is_err());
        assert!(unpacker.unpack(Codec::Zstd, 1 << 20, &bomb).is_ok());
    }
}

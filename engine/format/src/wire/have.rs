//! What a peer says it holds: roots held whole, and a compact filter of the
//! chunks held besides, with what was added and removed since.
//!
//! Each chunk counts by a fingerprint: some bits of its id's hash under a salt
//! of the connection, so that two who compare notes cannot tell from filters
//! whether they read the same. Fingerprints are sent sorted, as Golomb-Rice
//! coded differences: about 1.5 bits more than the bits of certainty. A wrong
//! "have" costs a `NotFound`; nothing depends on a filter being right.

use super::ids;
use crate::error::{FormatError, Result};
use crate::id::ChunkId;
use crate::limits::{MAX_FRAME_PRINTS, MAX_HELD_PRINTS, MAX_PRINT_BITS, MAX_WHOLE_ROOTS};
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

/// Bits of certainty beyond the logarithm of the count: one id in 16,384 that
/// is not held looks as if it were, or fewer.
const MARGIN_BITS: u8 = 14;
const MIN_PRINT_BITS: u8 = 24;

/// What a peer holds of a portal, or how that has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Have {
    /// All chunks below these roots; replaces what was said of roots before.
    Whole {
        /// The ids of the root nodes' chunks.
        #[serde(deserialize_with = "some_ids")]
        roots: Vec<ChunkId>,
    },
    /// Single chunks: forget what was said before.
    Forget,
    /// Single chunks that are held, too.
    Added(Prints),
    /// Single chunks that are no longer held.
    Removed(Prints),
}

fn some_ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ChunkId>, D::Error> {
    ids::<D, MAX_WHOLE_ROOTS>(from)
}

/// Fingerprints: sorted, without repetition, each of `bits` bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Coded", into = "Coded")]
pub struct Prints {
    bits: u8,
    prints: Vec<u64>,
}

/// The bytes of [`Prints`].
#[derive(Serialize, Deserialize)]
struct Coded {
    bits: u8,
    count: u32,
    first: u64,
    rice: u8,
    #[serde(with = "super::raw")]
    code: Vec<u8>,
}

impl Prints {
    /// Bits that a fingerprint needs if about `count` chunks are held.
    pub fn bits_for(count: usize) -> u8 {
        let log = (usize::BITS - count.leading_zeros()) as u8;
        (log + MARGIN_BITS).clamp(MIN_PRINT_BITS, MAX_PRINT_BITS)
    }

    /// The fingerprint of a chunk.
    pub fn print(salt: &[u8; 32], bits: u8, id: &ChunkId) -> u64 {
        debug_assert!((MIN_PRINT_BITS..=MAX_PRINT_BITS).contains(&bits));
        let hash = blake3::keyed_hash(salt, &id.0);
        let mut head = [0; 8];
        head.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_be_bytes(head) >> (64 - u32::from(bits))
    }

    /// The fingerprints of these chunks, in as many parts as frames need. At
    /// most [`MAX_HELD_PRINTS`] are taken: the other side keeps no more.
    pub fn of(salt: &[u8; 32], bits: u8, ids: impl IntoIterator<Item = ChunkId>) -> Vec<Self> {
        let mut prints: Vec<u64> =
            ids.into_iter().take(MAX_HELD_PRINTS).map(|id| Self::print(salt, bits, &id)).collect();
        prints.sort_unstable();
        prints.dedup();
        // Longer fingerprints lie farther apart; half as many fit a frame.
        let part = if bits > 36 { MAX_FRAME_PRINTS / 2 } else { MAX_FRAME_PRINTS };
        prints.chunks(part).map(|part| Self { bits, prints: part.to_vec() }).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.prints.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.prints.is_empty()
    }
}

/// The Rice parameter that suits `count` values spread over `span`.
fn rice_for(span: u64, count: usize) -> u8 {
    let mean = span / (count.max(1) as u64);
    mean.checked_ilog2().unwrap_or(0) as u8
}

impl From<Prints> for Coded {
    fn from(from: Prints) -> Self {
        let first = from.prints.first().copied().unwrap_or(0);
        let last = from.prints.last().copied().unwrap_or(0);
        let rice = rice_for(last - first, from.prints.len());
        let mut bits = Bits::default();
        for (before, after) in from.prints.iter().zip(from.prints.iter().skip(1)) {
            let gap = after - before - 1;
            bits.put_unary(gap >> rice);
            bits.put(gap, rice);
        }
        Self { bits: from.bits, count: from.prints.len() as u32, first, rice, code: bits.bytes }
    }
}

impl TryFrom<Coded> for Prints {
    type Error = FormatError;

    fn try_from(coded: Coded) -> Result<Self> {
        let at = "fingerprints";
        let invalid = FormatError::Invalid { at };
        let Coded { bits, count, first, rice, code } = coded;
        let count = count as usize;
        if count > MAX_FRAME_PRINTS {
            let limit = MAX_FRAME_PRINTS as u64;
            return Err(FormatError::Limit { at, value: count as u64, limit });
        }
        if !(MIN_PRINT_BITS..=MAX_PRINT_BITS).contains(&bits) || rice >= bits || first >> bits != 0
        {
            return Err(invalid);
        }
        if count == 0 {
            let prints = Vec::new();
            return if code.is_empty() { Ok(Self { bits, prints }) } else { Err(invalid) };
        }
        // Each difference takes at least its low bits and the end of its high part.
        if (count - 1) * (usize::from(rice) + 1) > code.len() * 8 {
            return Err(FormatError::Truncated { at });
        }
        let mut prints = Vec::with_capacity(count);
        prints.push(first);
        let (mut last, mut from) = (first, Reading { bytes: &code, at: 0 });
        for _ in 1..count {
            let high = from.unary().ok_or(FormatError::Truncated { at })?;
            let low = from.take(rice).ok_or(FormatError::Truncated { at })?;
            last = high
                .checked_shl(rice.into())
                .filter(|shifted| shifted >> rice == high)
                .and_then(|shifted| last.checked_add(1)?.checked_add(shifted | low))
                .filter(|value| value >> bits == 0)
                .ok_or(FormatError::Invalid { at })?;
            prints.push(last);
        }
        if from.ends() { Ok(Self { bits, prints }) } else { Err(invalid) }
    }
}

/// Bits written, the first in the lowest place of the first byte.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.used.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if bit && let Some(last) = self.bytes.last_mut() {
            *last |= 1 << (self.used % 8);
        }
        self.used += 1;
    }

    /// So many ones, then a zero.
    fn put_unary(&mut self, value: u64) {
        (0..value).for_each(|_| self.push(true));
        self.push(false);
    }

    fn put(&mut self, value: u64, count: u8) {
        (0..count).for_each(|at| self.push(value >> at & 1 == 1));
    }
}

struct Reading<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reading<'_> {
    fn bit(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (self.at % 8) & 1 == 1;
        self.at += 1;
        Some(bit)
    }

    fn unary(&mut self) -> Option<u64> {
        let mut value = 0;
        while self.bit()? {
            value += 1;
        }
        Some(value)
    }

    fn take(&mut self, count: u8) -> Option<u64> {
        (0..count).try_fold(0, |value, at| Some(value | u64::from(self.bit()?) << at))
    }

    /// Whether all that is left is the rest of the last byte, and zero.
    fn ends(mut self) -> bool {
        let left = self.bytes.len() * 8 - self.at;
        left < 8 && (0..left).all(|_| self.bit() == Some(false))
    }
}

/// What is remembered of what a peer has said it holds, within bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    roots: Vec<ChunkId>,
    bits: Option<u8>,
    prints: Vec<u64>,
}

impl Held {
    /// Takes note. Fingerprints over the limit are passed over; those of
    /// another length than before are refused.
    pub fn hear(&mut self, have: Have) -> Result<()> {
        match have {
            Have::Whole { roots } => self.roots = roots,
            Have::Forget => (self.bits, self.prints) = (None, Vec::new()),
            Have::Added(added) => {
                self.agree(added.bits)?;
                let room = MAX_HELD_PRINTS.saturating_sub(self.prints.len());
                self.prints.extend(added.prints.into_iter().take(room));
                // Two sorted runs: the sort merges them in one pass.
                self.prints.sort();
                self.prints.dedup();
            }
            Have::Removed(removed) => {
                self.agree(removed.bits)?;
                self.prints.retain(|print| removed.prints.binary_search(print).is_err());
            }
        }
        Ok(())
    }

    fn agree(&mut self, bits: u8) -> Result<()> {
        if *self.bits.get_or_insert(bits) == bits {
            Ok(())
        } else {
            Err(FormatError::Invalid { at: "fingerprint bits" })
        }
    }

    /// Roots held whole.
    pub fn roots(&self) -> &[ChunkId] {
        &self.roots
    }

    /// Fingerprints remembered.
    pub fn len(&self) -> usize {
        self.prints.len()
    }

    /// Whether nothing is known to be held.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.prints.is_empty()
    }

    /// Whether this chunk seems to be held by itself; `salt` is the peer's.
    pub fn has(&self, salt: &[u8; 32], id: &ChunkId) -> bool {
        let found = |bits| self.prints.binary_search(&Prints::print(salt, bits, id)).is_ok();
        self.bits.is_some_and(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_CONTROL_LEN;

    const SALT: [u8; 32] = [7; 32];

    fn ids(range: core::ops::Range<u32>) -> impl Iterator<Item = ChunkId> {
        range.map(|n| ChunkId::of(&n.to_le_bytes()))
    }

    fn wire(prints: &Prints) -> Vec<u8> {
        postcard::to_allocvec(prints).unwrap()
    }

    #[test]
    fn what_was_said_is_held_and_hardly_anything_else() {
        let bits = Prints::bits_for(40_000);
        let mut held = Held::default();
        let mut bytes = 0;
        for part in Prints::of(&SALT, bits, ids(0..40_000)) {
            let coded = wire(&part);
            bytes += coded.len();
            held.hear(Have::Added(postcard::from_bytes(&coded).unwrap())).unwrap();
        }
        assert!(ids(0..40_000).all(|id| held.has(&SALT, &id)));
        let wrong = ids(100_000..200_000).filter(|id| held.has(&SALT, id)).count();
        assert!(wrong <= 20, "{wrong} of 100,000 others seem to be held");
        assert!(bytes * 8 < 40_000 * 18, "{} bits for each", bytes * 8 / 40_000);
    }

    #[test]
    fn every_part_fits_a_frame_whatever_the_bits() {
        for bits in [24, 30, 36, 37, 48] {
            for part in Prints::of(&SALT, bits, ids(0..40_000)) {
                assert!(wire(&part).len() < MAX_CONTROL_LEN - 64, "{bits} bits");
            }
        }
    }

    #[test]
    fn additions_and_removals_are_followed() {
        let bits = Prints::bits_for(100);
        let one = |range| Prints::of(&SALT, bits, ids(range)).remove(0);
        let mut held = Held::default();
        held.hear(Have::Added(one(0..50))).unwrap();
        held.hear(Have::Added(one(40..60))).unwrap();
        held.hear(Have::Removed(one(10..20))).unwrap();
        let expected = |n: &u32| !(10..20).contains(n);
        let found: Vec<u32> =
            (0..100u32).filter(|n| held.has(&SALT, &ChunkId::of(&n.to_le_bytes()))).collect();
        assert_eq!(found, (0..60).filter(expected).collect::<Vec<_>>());
        held.hear(Have::Forget).unwrap();
        assert!(held.is_empty());
    }

    #[test]
    fn another_salt_shows_nothing() {
        let mut held = Held::default();
        let bits = Prints::bits_for(1000);
        held.hear(Have::Added(Prints::of(&SALT, bits, ids(0..1000)).remove(0))).unwrap();
        assert!(!ids(0..1000).any(|id| held.has(&[8; 32], &id)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_of_one_length() {
        let mut held = Held::default();
        for start in 0..80u64 {
            let from = start * 100_000;
            let prints = (from..from + MAX_FRAME_PRINTS as u64).collect();
            held.hear(Have::Added(Prints { bits: 40, prints })).unwrap();
        }
        assert_eq!(held.len(), MAX_HELD_PRINTS);
        let other = Prints { bits: 41, prints: vec![1] };
        assert!(held.hear(Have::Added(other)).is_err());
    }

    #[test]
    fn a_count_that_the_code_cannot_hold_is_refused_before_it_is_reserved() {
        let coded = |count, rice, code: Vec<u8>| Coded { bits: 40, count, first: 0, rice, code };
        let read = |coded| Prints::try_from(coded);
        assert!(matches!(
            read(coded(u32::MAX, 1, vec![])),
            Err(FormatError::Limit { value: 0xffff_ffff, .. })
        ));
        assert!(matches!(read(coded(3, 20, vec![0; 5])), Err(FormatError::Truncated { .. })));
        assert!(matches!(read(coded(3, 3, vec![0; 1])), Ok(Prints { .. })));
        assert!(matches!(read(coded(2, 3, vec![0xff; 4])), Err(FormatError::Truncated { .. })));
        assert!(matches!(read(coded(3, 3, vec![0; 2])), Err(FormatError::Invalid { .. })));
        assert!(matches!(read(coded(0, 3, vec![0; 1])), Err(FormatError::Invalid { .. })));
        assert!(matches!(read(coded(1, 40, vec![])), Err(FormatError::Invalid { .. })));
    }
}

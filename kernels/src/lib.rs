//! Data-parallel numbers: slices and integers only, no crate of warp below it.
//!
//! Step *cut* of the walk in (`format::chunk` asks, this answers), and the
//! large plans of step *planner* of the walk out ([`CostKernel`], for `plan`).
//! Promises: the same answer on every CPU (the SIMD paths of `gearhash` are
//! tested against the plain loop here), golden cut points in `format`.
//! Never: reads a clock, keeps state between calls.
//! Tested by the unit tests below, by `tests/prop_cost.rs`, and by
//! `engine/format/tests/golden.rs`.
//!
//! ```
//! use warp_kernels::GearTable;
//! let table = GearTable::new([1; 256]);
//! // Every position matches an empty mask, so the first byte is a match.
//! assert_eq!(table.search(&[], b"abc", 0), Some(1));
//! ```
#![forbid(unsafe_code)]

mod cost;
mod cost_cpu;

pub use cost::{BEST, Classes, CostKernel, EDGES_MAX, Edges, NOBODY, Placement, pace, took_us};
pub use cost_cpu::Cpu;

/// Bytes of history that a gear hash depends on: each byte shifts the 64-bit
/// state by one, so byte 65 back has left it.
pub const GEAR_WINDOW_BYTES: usize = 64;

/// One 64-bit number for each byte value.
pub struct GearTable([u64; 256]);

impl GearTable {
    /// A table from 256 numbers, normally drawn from a keyed hash.
    pub fn new(numbers: [u64; 256]) -> Self {
        Self(numbers)
    }

    /// The first place in `data` where `gear & mask == 0`, as the count of
    /// bytes up to and including the matching one; `None` if there is none.
    ///
    /// `history` is what stands before `data`; only its last
    /// [`GEAR_WINDOW_BYTES`] matter.
    pub fn search(&self, history: &[u8], data: &[u8], mask: u64) -> Option<usize> {
        let mut hasher = gearhash::Hasher::new(&self.0);
        let tail = history.len().saturating_sub(GEAR_WINDOW_BYTES);
        hasher.update(&history[tail..]);
        hasher.next_match(data, mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one byte at a time.
    fn plain(table: &[u64; 256], history: &[u8], data: &[u8], mask: u64) -> Option<usize> {
        let step = |h: u64, b: &u8| (h << 1).wrapping_add(table[usize::from(*b)]);
        let mut hash = history.iter().fold(0, step);
        data.iter()
            .position(|b| {
                hash = step(hash, b);
                hash & mask == 0
            })
            .map(|at| at + 1)
    }

    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        (0..len)
            .map(|_| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (seed >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn search_equals_the_byte_by_byte_definition_on_every_length_and_mask() {
        let mut numbers = [0u64; 256];
        for (i, n) in numbers.iter_mut().enumerate() {
            *n = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let table = GearTable::new(numbers);
        let data = noise(20_000, 7);
        for bits in [4, 9, 13] {
            let mask = !0u64 << (64 - bits);
            for history in [0, 1, 63, 64, 65, 500] {
                for len in [0, 1, 15, 16, 17, 63, 64, 65, 1000, 19_000] {
                    let (before, rest) = data.split_at(history);
                    let rest = &rest[..len];
                    let window = &before[history.saturating_sub(GEAR_WINDOW_BYTES)..];
                    assert_eq!(
                        table.search(before, rest, mask),
                        plain(&numbers, window, rest, mask),
                        "bits {bits} history {history} len {len}"
                    );
                }
            }
        }
    }

    #[test]
    fn bytes_older_than_the_window_change_nothing() {
        let table = GearTable::new(core::array::from_fn(|i| {
            (i as u64).wrapping_mul(0x1234_5678_9abc_def1)
        }));
        let data = noise(5000, 3);
        let mask = !0u64 << 56;
        let mut other = data[..1000].to_vec();
        other[..900].fill(0xff);
        assert_eq!(
            table.search(&data[..1000], &data[1000..], mask),
            table.search(&other, &data[1000..], mask)
        );
    }
}

//! Which edge should bring which chunks, if there are millions of them.
//!
//! Step *planner* of the walk out: `plan` asks, this answers with numbers.
//! Promises: whole microseconds and bytes, so that every kernel gives the same
//! answer bit for bit; no chunk goes to an edge that does not hold it; a round
//! never makes the last finish later by more than one block's worth. Never:
//! stores a matrix of chunks times edges, reads a clock, keeps state between
//! calls. Tested by `tests/prop_cost.rs`, against another implementation bit
//! for bit and against an exact maximal flow.
//!
//! Chunks that the same edges hold, of about one size, are one *class*, and a
//! class is given as a whole: who has few large classes cuts them into parts
//! before. The price of an edge is the time at which it would be done with
//! what it was given. In a round, each class moves to the holder that would be
//! done with it first, if that is earlier than its edge is done now. When
//! nothing moves any more, loads are balanced as far as holders allow: an edge
//! is done later than another only if all it has is not to be had there.

/// Best holders that are compared for a class, and kept as backups.
pub const BEST: usize = 3;

/// No edge.
pub const NOBODY: u16 = u16::MAX;

/// Most edges of one plan.
pub const EDGES_MAX: usize = 256;

/// Fraction bits of a pace.
const PACE_BITS: u32 = 32;

/// Microseconds for a byte at a rate in bytes a second, with 32 fraction bits.
pub fn pace(rate: u64) -> u64 {
    const MICROS: u128 = 1_000_000 << PACE_BITS;
    u64::try_from(MICROS / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

/// What so many bytes take at a pace, in microseconds.
pub fn took_us(bytes: u64, pace: u64) -> u64 {
    let us = (u128::from(bytes) * u128::from(pace)) >> PACE_BITS;
    u64::try_from(us).unwrap_or(u64::MAX)
}

/// The edges of a plan; both slices have one number for each.
#[derive(Clone, Copy, Debug)]
pub struct Edges<'a> {
    /// When it could begin with the first chunk, µs.
    pub start_us: &'a [u64],
    /// How long a byte takes, see [`pace`].
    pub pace: &'a [u64],
}

/// The classes of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Classes<'a> {
    /// `words` numbers for each class, edge 0 in the lowest bit of the first.
    pub holders: &'a [u64],
    /// Words of one bitmap: enough for all edges.
    pub words: usize,
    /// Bytes of each class.
    pub bytes: &'a [u64],
}

/// What is given to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The edge of each class, or [`NOBODY`].
    pub edge: Vec<u16>,
    /// Bytes given to each edge.
    pub load: Vec<u64>,
}

impl Placement {
    /// Nothing is given to anybody.
    pub fn new(classes: usize, edges: usize) -> Self {
        Self { edge: vec![NOBODY; classes], load: vec![0; edges] }
    }

    /// When each edge is done, µs.
    pub fn finish_us(&self, edges: &Edges<'_>) -> Vec<u64> {
        (0..self.load.len()).map(|edge| finish(edges, &self.load, edge)).collect()
    }

    /// When the last edge that has anything is done, µs.
    pub fn last_us(&self, edges: &Edges<'_>) -> u64 {
        let busy = (0..self.load.len()).filter(|edge| self.load[*edge] > 0);
        busy.map(|edge| finish(edges, &self.load, edge)).max().unwrap_or(0)
    }
}

pub(crate) fn finish(edges: &Edges<'_>, load: &[u64], edge: usize) -> u64 {
    edges.start_us[edge].saturating_add(took_us(load[edge], edges.pace[edge]))
}

/// The numbers behind large plans. Implementations differ in speed only.
pub trait CostKernel {
    /// The least time at which `count` chunks of `len` bytes can be here, µs,
    /// if every edge holds all: the slots that edges have until then are just
    /// enough. `None` if no edge ever delivers.
    fn water_fill(&self, edges: &Edges<'_>, len: u64, count: u64) -> Option<u64>;

    /// One round over all classes, in blocks of so many: which holders are
    /// compared for a class goes by the prices at the start of its block, and
    /// the comparison by those of the moment. Returns how many classes moved.
    fn round(
        &self,
        edges: &Edges<'_>,
        classes: &Classes<'_>,
        block: usize,
        placement: &mut Placement,
    ) -> usize;

    /// The holders of each class that are done first, best first, as they
    /// stand after `placement`.
    fn best(
        &self,
        edges: &Edges<'_>,
        classes: &Classes<'_>,
        placement: &Placement,
    ) -> Vec<[u16; BEST]>;

    /// Rounds until nothing moves, `rounds` at most. Returns how many it took.
    fn settle(
        &self,
        edges: &Edges<'_>,
        classes: &Classes<'_>,
        block: usize,
        rounds: usize,
        placement: &mut Placement,
    ) -> usize {
        let moves = |_: &usize| self.round(edges, classes, block, placement) > 0;
        (0..rounds).take_while(moves).count()
    }
}

/// Checks once what all kernels rely on.
///
/// # Panics
/// If slices do not fit together: that is the caller's mistake, and every
/// number that came of it would be wrong.
pub(crate) fn assert_fits(edges: &Edges<'_>, classes: &Classes<'_>, placement: &Placement) {
    let (edge_count, class_count) = (edges.start_us.len(), classes.bytes.len());
    assert!(edge_count <= EDGES_MAX, "more edges than a bitmap has room for");
    assert_eq!(edges.pace.len(), edge_count, "a pace for each edge");
    assert_eq!(classes.holders.len(), class_count * classes.words, "a bitmap for each class");
    assert!(classes.words * 64 >= edge_count, "bitmaps have a bit for each edge");
    assert_eq!(placement.edge.len(), class_count, "a place for each class");
    assert_eq!(placement.load.len(), edge_count, "a load for each edge");
}

//! The cost kernel on the CPU, one core.
//!
//! Neighbours: `cost` has the contract. Promises: what it says there. Small
//! blocks look through the holders of a class; large ones first turn its
//! bitmap into the order of prices, by a table of bytes, and take the lowest
//! bits: both find the same. Never: branches on a bit of a bitmap that is as
//! good as random. Tested by `tests/prop_cost.rs`.

use crate::cost::{
    BEST, Classes, CostKernel, EDGES_MAX, Edges, NOBODY, Placement, assert_fits, finish, took_us,
};

/// Classes from which on a table pays off: it costs as much as about 300.
const TABLE_FROM: usize = 256;

/// Words of a bitmap in order of prices.
const WORDS: usize = EDGES_MAX / 64;

/// The kernel of the machine's own processor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

/// When each edge is done, and the edges in that order.
struct Prices {
    finish: Vec<u64>,
    order: Vec<u16>,
}

impl Prices {
    fn new(edges: &Edges<'_>, load: &[u64]) -> Self {
        let finish: Vec<u64> = (0..load.len()).map(|edge| finish(edges, load, edge)).collect();
        let mut order: Vec<u16> = (0..load.len() as u16).collect();
        order.sort_unstable_by_key(|edge| (finish[usize::from(*edge)], *edge));
        Self { finish, order }
    }
}

/// For each byte of a bitmap and each of its values, the same bits in the
/// order of prices.
struct Ranks<const N: usize> {
    table: Vec<[u64; N]>,
}

impl<const N: usize> Ranks<N> {
    fn new(order: &[u16]) -> Self {
        let mut rank = [0usize; EDGES_MAX];
        for (at, edge) in order.iter().enumerate() {
            rank[usize::from(*edge)] = at;
        }
        let bytes = order.len().div_ceil(8);
        let mut table = vec![[0; N]; bytes * 256];
        for byte in 0..bytes {
            let rows = &mut table[byte * 256..][..256];
            for bit in (0..8).filter(|bit| byte * 8 + bit < order.len()) {
                let at = rank[byte * 8 + bit];
                // Each row with this as its highest bit is an earlier row
                // and this bit.
                for low in 0..1 << bit {
                    let mut row = rows[low];
                    row[at / 64] |= 1 << (at % 64);
                    rows[low | 1 << bit] = row;
                }
            }
        }
        Self { table }
    }

    /// A bitmap in the order of prices.
    fn of(&self, bitmap: &[u64]) -> [u64; N] {
        let mut found = [0; N];
        for (at, rows) in self.table.chunks_exact(256).enumerate() {
            let byte = bitmap[at / 8] >> (at % 8 * 8) & 0xff;
            let row = &rows[byte as usize];
            for word in 0..N {
                found[word] |= row[word];
            }
        }
        found
    }
}

/// The first few holders in the order of prices.
fn lowest<const N: usize>(ranks: [u64; N], order: &[u16]) -> [u16; BEST] {
    let mut found = [NOBODY; BEST];
    let mut count = 0;
    for (at, word) in ranks.into_iter().enumerate() {
        let mut word = word;
        while word != 0 && count < BEST {
            found[count] = order[at * 64 + word.trailing_zeros() as usize];
            word &= word - 1;
            count += 1;
        }
    }
    found
}

/// The same by looking at every holder.
fn look(bitmap: &[u64], finish: &[u64]) -> [u16; BEST] {
    let none = (u64::MAX, NOBODY);
    let (mut first, mut second, mut third) = (none, none, none);
    for (at, word) in bitmap.iter().enumerate() {
        let mut word = *word;
        while word != 0 {
            let edge = at * 64 + word.trailing_zeros() as usize;
            word &= word - 1;
            let Some(time) = finish.get(edge) else { break };
            let this = (*time, edge as u16);
            if this >= third {
                continue;
            }
            if this >= second {
                third = this;
            } else if this >= first {
                (second, third) = (this, second);
            } else {
                (first, second, third) = (this, first, second);
            }
        }
    }
    [first.1, second.1, third.1]
}

/// Where a class should go: to the edge that would be done with it first, if
/// that is before its own is done.
fn target(edges: &Edges<'_>, finish: &[u64], best: &[u16; BEST], own: u16, bytes: u64) -> u16 {
    let (mut to, mut time) = match own {
        NOBODY => (NOBODY, u64::MAX),
        own => (own, finish[usize::from(own)]),
    };
    for edge in best.iter().copied().filter(|edge| *edge != NOBODY && *edge != own) {
        let index = usize::from(edge);
        let with = finish[index].saturating_add(took_us(bytes, edges.pace[index]));
        if with < time || to == NOBODY {
            (to, time) = (edge, with);
        }
    }
    to
}

impl Cpu {
    fn table_round<const N: usize>(
        edges: &Edges<'_>,
        classes: &Classes<'_>,
        block: usize,
        placement: &mut Placement,
    ) -> usize {
        let mut moved = 0;
        let count = classes.bytes.len();
        for first in (0..count).step_by(block) {
            let mut prices = Prices::new(edges, &placement.load);
            let ranks = Ranks::<N>::new(&prices.order);
            for class in first..count.min(first + block) {
                let bitmap = &classes.holders[class * classes.words..][..classes.words];
                let best = lowest(ranks.of(bitmap), &prices.order);
                moved += step(edges, &mut prices.finish, &best, class, classes, placement);
            }
        }
        moved
    }

    fn look_round(
        edges: &Edges<'_>,
        classes: &Classes<'_>,
        block: usize,
        placement: &mut Placement,
    ) -> usize {
        let mut moved = 0;
        let mut now = placement.finish_us(edges);
        let mut before = now.clone();
        for class in 0..classes.bytes.len() {
            if block > 1 && class % block == 0 {
                before.copy_from_slice(&now);
            }
            let bitmap = &classes.holders[class * classes.words..][..classes.words];
            let best = look(bitmap, if block > 1 { &before } else { &now });
            moved += step(edges, &mut now, &best, class, classes, placement);
        }
        moved
    }
}

/// Moves a class if another edge is better; says whether.
fn step(
    edges: &Edges<'_>,
    times: &mut [u64],
    best: &[u16; BEST],
    class: usize,
    classes: &Classes<'_>,
    placement: &mut Placement,
) -> usize {
    let (own, bytes) = (placement.edge[class], classes.bytes[class]);
    let to = target(edges, times, best, own, bytes);
    if to == own {
        return 0;
    }
    if own != NOBODY {
        let own = usize::from(own);
        placement.load[own] -= bytes;
        times[own] = finish(edges, &placement.load, own);
    }
    placement.edge[class] = to;
    let to = usize::from(to);
    placement.load[to] += bytes;
    times[to] = finish(edges, &placement.load, to);
    1
}

impl CostKernel for Cpu {
    fn water_fill(&self, edges: &Edges<'_>, len: u64, count: u64) -> Option<u64> {
        let slots = |until: u64| -> u64 {
            let one = |(start, pace): (&u64, &u64)| {
                let time = until.saturating_sub(*start);
                let each = u128::from(len.max(1)) * u128::from(*pace);
                // How often `each` fits, in fractions of a microsecond.
                let fits = (u128::from(time) << 32) / each.max(1);
                u64::try_from(fits).unwrap_or(u64::MAX)
            };
            edges.start_us.iter().zip(edges.pace).map(one).fold(0, u64::saturating_add)
        };
        let mut high = 1u64;
        while slots(high) < count {
            high = high.checked_mul(2)?;
        }
        let mut low = high / 2;
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if slots(middle) >= count { high = middle } else { low = middle }
        }
        Some(high)
    }

    fn round(
        &self,
        edges: &Edges<'_>,
        classes: &Classes<'_>,
        block: usize,
        placement: &mut Placement,
    ) -> usize {
        assert_fits(edges, classes, placement);
        let block = block.max(1);
        match edges.start_us.len() {
            _ if block < TABLE_FROM => Self::look_round(edges, classes, block, placement),
            0..=64 => Self::table_round::<1>(edges, classes, block, placement),
            65..=128 => Self::table_round::<2>(edges, classes, block, placement),
            _ => Self::table_round::<WORDS>(edges, classes, block, placement),
        }
    }

    fn best(
        &self,
        edges: &Edges<'_>,
        classes: &Classes<'_>,
        placement: &Placement,
    ) -> Vec<[u16; BEST]> {
        assert_fits(edges, classes, placement);
        let prices = Prices::new(edges, &placement.load);
        let ranks = Ranks::<WORDS>::new(&prices.order);
        let bitmaps = classes.holders.chunks_exact(classes.words.max(1));
        bitmaps.map(|bitmap| lowest(ranks.of(bitmap), &prices.order)).collect()
    }
}

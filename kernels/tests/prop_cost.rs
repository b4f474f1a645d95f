//! The cost kernel against another implementation, bit for bit, and its plan
//! against an exact maximal flow.

use proptest::prelude::*;
use warp_kernels::{BEST, Classes, CostKernel, Cpu, Edges, NOBODY, Placement, pace, took_us};

/// The definition, without bitmaps in any order.
struct Plain;

impl Plain {
    fn sorted(classes: &Classes<'_>, class: usize, finish: &[u64]) -> Vec<u16> {
        let row = &classes.holders[class * classes.words..][..classes.words];
        let holds = |edge: &u16| row[usize::from(*edge) / 64] >> (edge % 64) & 1 == 1;
        let mut holders: Vec<u16> = (0..finish.len() as u16).filter(holds).collect();
        holders.sort_by_key(|edge| (finish[usize::from(*edge)], *edge));
        holders.truncate(BEST);
        holders
    }
}

impl CostKernel for Plain {
    fn water_fill(&self, edges: &Edges<'_>, len: u64, count: u64) -> Option<u64> {
        // Slot by slot: the earliest of the next ones.
        let mut given = vec![0u64; edges.start_us.len()];
        let mut last = 0;
        for _ in 0..count {
            let at = |edge: &usize| {
                let all = u128::from(len) * u128::from(edges.pace[*edge]);
                let took = (all * u128::from(given[*edge] + 1)).div_ceil(1 << 32);
                edges.start_us[*edge] + u64::try_from(took).unwrap()
            };
            let edge = (0..given.len()).min_by_key(at)?;
            last = at(&edge);
            given[edge] += 1;
        }
        Some(last)
    }

    fn round(
        &self,
        edges: &Edges<'_>,
        classes: &Classes<'_>,
        block: usize,
        placement: &mut Placement,
    ) -> usize {
        let mut before = Vec::new();
        let mut moved = 0;
        for class in 0..classes.bytes.len() {
            if class % block == 0 {
                before = placement.finish_us(edges);
            }
            let finish = placement.finish_us(edges);
            let (own, bytes) = (placement.edge[class], classes.bytes[class]);
            let with = |edge: u16| {
                let index = usize::from(edge);
                let more = if edge == own { 0 } else { took_us(bytes, edges.pace[index]) };
                finish[index].saturating_add(more)
            };
            let best = Self::sorted(classes, class, &before);
            let first = best.iter().copied().filter(|edge| *edge != own).min_by_key(|e| with(*e));
            let Some(to) = first else { continue };
            if own != NOBODY && with(to) >= with(own) {
                continue;
            }
            if own != NOBODY {
                placement.load[usize::from(own)] -= bytes;
            }
            placement.load[usize::from(to)] += bytes;
            placement.edge[class] = to;
            moved += 1;
        }
        moved
    }

    fn best(
        &self,
        edges: &Edges<'_>,
        classes: &Classes<'_>,
        placement: &Placement,
    ) -> Vec<[u16; BEST]> {
        let finish = placement.finish_us(edges);
        let row = |class| {
            let mut found = [NOBODY; BEST];
            let sorted = Self::sorted(classes, class, &finish);
            found[..sorted.len()].copy_from_slice(&sorted);
            found
        };
        (0..classes.bytes.len()).map(row).collect()
    }
}

#[derive(Clone, Debug)]
struct Case {
    start_us: Vec<u64>,
    rates: Vec<u64>,
    pace: Vec<u64>,
    words: usize,
    holders: Vec<u64>,
    bytes: Vec<u64>,
}

impl Case {
    fn edges(&self) -> Edges<'_> {
        Edges { start_us: &self.start_us, pace: &self.pace }
    }

    fn classes(&self) -> Classes<'_> {
        Classes { holders: &self.holders, words: self.words, bytes: &self.bytes }
    }

    fn nothing(&self) -> Placement {
        Placement::new(self.bytes.len(), self.pace.len())
    }
}

/// Edges, and classes that each have a holder.
fn case(
    edges: std::ops::Range<usize>,
    classes: std::ops::Range<usize>,
) -> impl Strategy<Value = Case> {
    (edges, classes).prop_flat_map(|(edges, classes)| {
        let words = edges.div_ceil(64);
        let row = (prop::collection::vec(any::<u64>(), words), 0..edges);
        let row = row.prop_map(move |(mut row, one)| {
            row[one / 64] |= 1 << (one % 64);
            if edges % 64 != 0 {
                row[words - 1] &= (1 << (edges % 64)) - 1;
            }
            row
        });
        (
            prop::collection::vec(0u64..200_000, edges),
            prop::collection::vec(500_000u64..200_000_000, edges),
            prop::collection::vec(row, classes),
            prop::collection::vec(60_000u64..70_000, classes),
        )
            .prop_map(move |(start_us, rates, rows, bytes)| {
                let pace = rates.iter().map(|rate| pace(*rate)).collect();
                Case { start_us, rates, pace, words, holders: rows.concat(), bytes }
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn all_ways_of_the_kernel_give_the_same(
        case in prop_oneof![case(1..20, 1..700), case(60..135, 1..700), case(250..257, 1..400)],
        block in prop_oneof![Just(1usize), 2usize..100, 256usize..400],
    ) {
        let (edges, classes) = (case.edges(), case.classes());
        let (mut ours, mut plain) = (case.nothing(), case.nothing());
        for _ in 0..3 {
            let moved = Cpu.round(&edges, &classes, block, &mut ours);
            prop_assert_eq!(moved, Plain.round(&edges, &classes, block, &mut plain));
            prop_assert_eq!(&ours, &plain);
        }
        let best = Cpu.best(&edges, &classes, &ours);
        prop_assert_eq!(best, Plain.best(&edges, &classes, &plain));
    }

    #[test]
    fn the_water_line_is_the_last_of_the_earliest_slots(
        case in case(1..12, 1..2), len in 1u64..2_000_000, count in 1u64..300,
    ) {
        let line = Cpu.water_fill(&case.edges(), len, count);
        prop_assert_eq!(line, Plain.water_fill(&case.edges(), len, count));
    }

    /// A chunk is whole and a flow is not: the last may be later than the flow
    /// by two of the slowest chunks, and by a fiftieth.
    #[test]
    fn a_settled_plan_is_close_to_the_maximal_flow(case in case(2..9, 100..400)) {
        let (edges, classes) = (case.edges(), case.classes());
        let mut placement = case.nothing();
        Cpu.settle(&edges, &classes, 1, 30, &mut placement);
        let given = placement.edge.iter().zip(&case.holders);
        prop_assert!(given.clone().all(|(edge, row)| row >> edge & 1 == 1), "only to holders");
        let exact = flow_us(&case);
        let chunk = case.rates.iter().map(|rate| 70_000 * 1_000_000 / rate).max().unwrap_or(0);
        let last = placement.last_us(&edges);
        let most = exact + exact / 50 + 2 * chunk;
        prop_assert!(last <= most, "{} µs, by flow {} µs, a chunk {} µs", last, exact, chunk);
        prop_assert!(last + 1_000 >= exact, "{} µs beats the flow, {} µs", last, exact);
    }
}

/// The least time at which all bytes can flow, by the smallest cut: for each
/// set of edges, what only these hold has to fit into them.
fn flow_us(case: &Case) -> u64 {
    let count = case.rates.len();
    let mut only = vec![0u64; 1 << count];
    for (row, bytes) in case.holders.iter().zip(&case.bytes) {
        only[*row as usize] += bytes;
    }
    for edge in 0..count {
        for set in 0..only.len() {
            if set >> edge & 1 == 1 {
                only[set] += only[set ^ (1 << edge)];
            }
        }
    }
    let can = |set: usize, until: u64| -> u128 {
        let inside = (0..count).filter(|edge| set >> edge & 1 == 1);
        let volume = |edge: usize| {
            let time = until.saturating_sub(case.start_us[edge]);
            u128::from(time) * u128::from(case.rates[edge])
        };
        inside.map(volume).sum()
    };
    let fits = |until| (1..only.len()).all(|s| u128::from(only[s]) * 1_000_000 <= can(s, until));
    let (mut low, mut high) = (0u64, 1u64 << 40);
    while low + 1 < high {
        let middle = (low + high) / 2;
        if fits(middle) { high = middle } else { low = middle }
    }
    high
}

//! Damage in archives: a map of where everything lies, ways to break it, and
//! the judgement of what `warp` makes of it.
//!
//! Two kinds of damage. *Raw*: bytes changed or cut off, as a disk or a
//! transfer does it. *Edits*: a field of the tree or the container changed and
//! every hash around it made again, as somebody does it who wants a reader to
//! stumble. Each case follows from a seed and its number.

mod check;
mod edit;
mod fields;
mod hit;
mod judge;
mod map;
mod model;
mod mounted;
mod rewrite;
mod source;

pub use check::{Lab, Slot};
pub use edit::{Edited, edit};
pub use hit::{Hit, cut, raw};
pub use judge::{judge_edit, judge_hit};
pub use map::Archive;
pub use model::Model;
pub use mounted::{judge_mounted_edit, judge_mounted_hit};

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// SplitMix64: the same numbers from the same seed, everywhere.
pub struct Rng(u64);

impl Rng {
    /// The numbers of one case.
    pub fn new(seed: u64, case: usize) -> Self {
        let mut rng = Self(seed ^ (case as u64).wrapping_mul(0xd134_2543_de82_ef95));
        rng.draw();
        rng
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.draw() % n as u64) as usize
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.draw().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// Most failures that are told; the rest is counted.
const TOLD: usize = 12;

/// Runs cases on two threads. `case` gets a thread's own slot and the number
/// of the case, and tells what is wrong with what came of it.
///
/// # Panics
/// If a case has failed.
pub fn run_cases(
    lab: &Lab,
    cases: &[usize],
    case: impl Fn(&Slot<'_>, usize) -> Result<(), String> + Sync,
) {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Vec<String>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (next, failed, case) = (&next, &failed, &case);
            scope.spawn(move || {
                let slot = lab.slot(number);
                while let Some(case_number) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = case(&slot, *case_number) {
                        slot.keep(&why);
                        failed.lock().unwrap().push(why);
                    }
                    slot.clear();
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let told = failed.iter().take(TOLD).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(failed.is_empty(), "{} of {} cases failed:\n\n{told}", failed.len(), cases.len());
}

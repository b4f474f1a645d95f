//! Disks for tests: one whose power fails, and one that fails itself.

mod crash;
mod faulty;

pub use crash::{Barrier, CrashDisk, Fate, Op};
pub use faulty::{Fault, FaultyDisk};

//! Disks for tests: one whose power fails, one that fails itself, and one that
//! answers nothing.

mod crash;
mod faulty;
mod stalling;

pub use crash::{Barrier, CrashDisk, Fate, Op};
pub use faulty::{Fault, FaultyDisk};
pub use stalling::{Call, StallingDisk};

//! What the whole-program tests share: the real binary, run with a time
//! limit, and trees to run it on.
#![forbid(unsafe_code)]

pub mod apart;
pub mod damage;
pub mod device;
pub mod failpoint;
pub mod lan;
pub mod nasty;
pub mod run;
pub mod small_disk;
pub mod suite;

pub use run::{Output, Warp, must};

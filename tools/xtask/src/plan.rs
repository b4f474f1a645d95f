//! `cargo xtask bench plan`: what the planner's decisions cost and how near
//! its plans come to the bounds, each figure beside its goal.
//!
//! Neighbours: the bench `figures` and the simulations of `warp-plan` do the
//! work; this runs them as releases and shows what they print. Promises: fails
//! if a simulation misses its goal. Never: judges times, which are this
//! machine's. Tested by its use.

use crate::workspace::cargo;
use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// Runs both.
pub(crate) fn run() -> Result<()> {
    step(&["bench", "--quiet", "--package", "warp-plan", "--bench", "figures"])?;
    println!("\nSimulated, in virtual time:");
    let simulate = ["test", "--quiet", "--release", "--package", "warp-plan", "--test", "sim"];
    step(&[&simulate[..], &["--", "--nocapture"]].concat())
}

fn step(args: &[&str]) -> Result<()> {
    let status = Command::new(cargo())
        .args(args)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start cargo {}", args.join(" ")))?;
    if !status.success() {
        bail!("cargo {}: {status}", args.join(" "));
    }
    Ok(())
}

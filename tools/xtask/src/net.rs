//! `cargo xtask bench net`: how fast verified chunks travel between two devices
//! in one process, beside raw QUIC measured in the same run.
//!
//! The measuring is done by the example `throughput` of warp-net: this crate
//! knows no other of the workspace.

use crate::workspace::{Workspace, cargo};
use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};

/// Builds and runs it; the figures go to stdout.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let status = Command::new(cargo())
        .args(["run", "--quiet", "--release", "-p", "warp-net", "--example", "throughput"])
        .current_dir(&workspace.root)
        .stdin(Stdio::null())
        .status()
        .context("cannot start cargo run")?;
    ensure!(status.success(), "the measurement failed: {status}");
    Ok(())
}

//! `warp completions`: what a shell needs to complete the command line.

use crate::args::Completions;
use crate::parse;
use crate::report::{Exit, Result};
use std::io::Write;

pub(super) fn run(args: &Completions) -> Result<Exit> {
    let mut command = parse::visible();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "warp", &mut script);
    match std::io::stdout().write_all(&script) {
        // The reader has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
        written => {
            written.map_err(|e| warp_flow::FlowError::io("standard output", e))?;
            Ok(Exit::Ok)
        }
    }
}

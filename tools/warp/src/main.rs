//! The `warp` command: what was typed (`args`), what it means (`cmd`), and
//! how it went (`report`).
#![forbid(unsafe_code)]

mod args;
mod bar;
mod client;
mod cmd;
mod daemon;
mod passphrase;
mod places;
mod report;
mod show;
mod signals;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let ui = report::Ui::new(&args.global);
    match cmd::run(args.command, &ui) {
        Ok(exit) => exit.code(),
        Err(failure) => ui.fail(&failure).code(),
    }
}

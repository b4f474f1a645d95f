//! The `warp` command: what was typed (`args`), what it means (`cmd`), and
//! how it went (`report`).
#![forbid(unsafe_code)]

mod args;
mod bar;
mod client;
mod cmd;
mod config;
mod daemon;
mod help;
mod mount_helper;
mod mount_options;
mod parse;
mod passphrase;
mod places;
mod report;
mod show;
mod signals;
mod units;

use report::{Exit, Result, Ui};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if mount_helper::is_called(&words) {
        return mount_helper::run(&words);
    }
    // Not a verb: nobody types it, so nothing lists or suggests it.
    if words.len() == 2 && words[1] == daemon::WORD {
        return end(daemon::run_detached(), &Ui::plain());
    }
    let mut config = config::Config::load();
    let args = match parse::parse(&words, &mut config) {
        Ok(args) => args,
        Err(exit) => return exit.code(),
    };
    let ui = Ui::new(&args.global);
    end(cmd::run(args.command, &config, &ui), &ui)
}

fn end(result: Result<Exit>, ui: &Ui) -> ExitCode {
    match result {
        Ok(exit) => exit.code(),
        Err(failure) => ui.fail(&failure).code(),
    }
}

//! `cargo xtask <verb>`: the checks of the house, run the same way by hand
//! and by CI.
//!
//! `check` is everything a change has to pass; `tidy` is the part of it that
//! reads the tree instead of compiling it.
#![forbid(unsafe_code)]

mod check;
mod demo;
mod million;
mod net;
mod plan;
mod swarm;
mod tidy;
mod workspace;

use anyhow::{Context, Result, bail};
use std::process::ExitCode;
use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <verb>

  check [--fast]   fmt, clippy, tidy, deny (if installed), doc, release build,
                   tests, doc tests; stops at the first failure.
                   --fast leaves out the release build and the whole-program
                   tests (crate warp-tests)
  bench million [FILES]
                   what a portal with that many files (default: 1000000) takes:
                   time to make, list, mount and recover them, and memory
  bench swarm      what a mount reads from several peers, on network namespaces
                   with bounded links (root), beside what the links could give
  bench net        how fast verified chunks travel on the loopback interface,
                   beside raw QUIC in the same process
  bench plan       what the planner's decisions cost, and how near its plans
                   come to the bounds
  demo [DIR]       install what a mount needs, build, pack a real tree, and
                   leave it mounted below DIR (default: /tmp/warp-demo)
  tidy             the style of the tree as a test, one finding a line";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["check"] => check::run(&Workspace::load()?, false),
        ["check", "--fast"] => check::run(&Workspace::load()?, true),
        ["bench", "million"] => million::run(&Workspace::load()?, million::FILES),
        ["bench", "million", files] => {
            let files = files.parse().with_context(|| format!("{files}: not a number of files"))?;
            million::run(&Workspace::load()?, files)
        }
        ["bench", "swarm"] => swarm::run(&Workspace::load()?),
        ["bench", "net"] => net::run(&Workspace::load()?),
        ["bench", "plan"] => plan::run(),
        ["demo"] => demo::run(&Workspace::load()?, None),
        ["demo", dir] => demo::run(&Workspace::load()?, Some(dir)),
        ["tidy"] => tidy::run(&Workspace::load()?),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        [] => bail!("no verb given\n{USAGE}"),
        other => bail!("not understood: {}\n{USAGE}", other.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_verb_is_refused_with_the_usage() {
        for words in
            [&[] as &[&str], &["chekc"], &["tidy", "--fast"], &["check", "now"], &["bench"]]
        {
            let message = run(words).unwrap_err().to_string();
            assert!(message.contains("usage: cargo xtask"), "{message}");
        }
    }
}

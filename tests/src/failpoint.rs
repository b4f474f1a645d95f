//! Ends a process at a chosen one of the calls by which it changes its disk:
//! in the order of all its threads, which no tracer from outside knows.

use crate::must;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a process is made to load: `tests/data/failpoint.c`.
pub struct Failpoint {
    library: PathBuf,
    log: PathBuf,
}

/// Where a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Nowhere: its calls are told only.
    Never,
    /// Before the call of this number, from 1 on.
    Before(usize),
    /// In the middle of it, if it writes.
    Within(usize),
}

impl Failpoint {
    /// Compiles it into a directory.
    ///
    /// # Panics
    /// If `cc` does not: cargo would not link either.
    #[track_caller]
    pub fn new(dir: &Path) -> Self {
        let library = dir.join("failpoint.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/data/failpoint.c");
        must(
            "cc",
            ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", source, "-o"]
                .map(AsRef::as_ref)
                .into_iter()
                .chain([library.as_os_str()]),
        );
        Self { library, log: dir.join("failpoint.log") }
    }

    /// Arranges that a command ends there; what it does below a directory
    /// counts.
    pub fn set(&self, command: &mut Command, below: &Path, at: At) {
        command.env("LD_PRELOAD", &self.library);
        command.env("FAILPOINT_BELOW", below).env("FAILPOINT_LOG", &self.log);
        match at {
            At::Never => {}
            At::Before(number) => drop(command.env("FAILPOINT_AT", number.to_string())),
            At::Within(number) => {
                command.env("FAILPOINT_AT", number.to_string()).env("FAILPOINT_TORN", "");
            }
        }
    }

    /// The calls since this was last asked, each with the name of the file it
    /// was about, without number and directory: `pwrite journal-`.
    ///
    /// # Panics
    /// If they were not told.
    #[track_caller]
    pub fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let _ = fs::remove_file(&self.log);
        log.lines().map(site).collect()
    }
}

/// A line of the log without what differs from one run to the next.
fn site(line: &str) -> String {
    let (call, path) = line.split_once(' ').expect("a call and a path");
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_number = |part: &str| part.len() >= 8 && part.chars().all(|c| c.is_ascii_hexdigit());
    let mut parts: Vec<&str> = name.split(['-', '.']).filter(|part| !is_number(part)).collect();
    parts.retain(|part| !part.is_empty());
    let name = if parts.is_empty() { "directory".to_owned() } else { parts.join(".") };
    format!("{call} {name}")
}

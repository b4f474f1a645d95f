//! `cargo xtask tidy`: the style of the house as a test.
//!
//! Promises: every finding is one line `path:line: rule: what`, in the order
//! of the paths; each rule is a pure function over a [`Tree`] in memory and is
//! tested on a tree that breaks it, because a rule that cannot fail is none.
//! Never: changes a file, or reads anything that git would not keep.
//!
//! The scanners work on tokens, not on a syntax tree: enough for these
//! questions, and it builds in seconds.

mod arrows;
mod dependencies;
mod docs;
mod modules;
mod ratchet;
mod source;
mod text;
mod token;
mod traits;
mod tree;
mod words;

use crate::workspace::Workspace;
use anyhow::{Result, bail};
use std::fmt;
use tree::Tree;

/// One thing that is not as the house wants it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.what)
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: [Rule; 10] = [
    arrows::check,
    dependencies::check,
    docs::links,
    docs::top_level,
    modules::dead_files,
    ratchet::check,
    traits::check,
    words::awaits_and_io,
    words::stubs,
    words::unsafe_code,
];

/// Prints every finding and fails if there is one.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let tree = Tree::load(workspace)?;
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("tidy: 1 finding"),
        count => bail!("tidy: {count} findings"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_its_place_first() {
        let finding = Finding::new("a/b.rs", 7, "rule", "what is wrong");
        assert_eq!(finding.to_string(), "a/b.rs:7: rule: what is wrong");
    }

    #[test]
    fn a_small_tree_as_the_house_wants_it_has_no_findings() {
        let tree = Tree::sample(&[
            ("README.md", "see [the house](docs/ARCHITECTURE.md)\n"),
            ("docs/ARCHITECTURE.md", "# The house\n"),
            ("kernels/src/lib.rs", "#![forbid(unsafe_code)]\nmod cut;\n"),
            ("kernels/src/cut.rs", "fn cut() -> usize { 1 }\n"),
        ]);
        let findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
        assert_eq!(findings, []);
    }
}

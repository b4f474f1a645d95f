//! Rule *dead-file*: every Rust file of a crate is reached by `mod`
//! declarations from something that cargo compiles.
//!
//! The same walk, over the product view, tells product files from test files.

use super::Finding;
use super::source::{Source, quoted};
use super::token::{starts, text_at, tokens};
use super::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};

/// Folders of a crate in which every Rust file has to be compiled.
const COMPILED: [&str; 4] = ["src", "tests", "benches", "examples"];

pub(super) fn dead_files(tree: &Tree) -> Vec<Finding> {
    let alive = reached(&tree.sources, &tree.roots(|_| true), |source| &source.code);
    let dead = |path: &&String| {
        let in_crate = |member: &super::tree::Member| {
            COMPILED.iter().any(|dir| path.starts_with(&format!("{}/{dir}/", member.dir)))
        };
        tree.members.iter().any(in_crate) && !alive.contains(*path)
    };
    let what = "no `mod` declaration leads here: declare it or delete it";
    let finding = |path: &String| Finding::new(path, 1, "dead-file", what);
    tree.sources.keys().filter(dead).map(finding).collect()
}

/// All files that the roots reach, going by what `view` shows of each file.
pub(super) fn reached(
    sources: &BTreeMap<String, Source>,
    roots: &[String],
    view: fn(&Source) -> &str,
) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<(String, bool)> = roots.iter().map(|r| (r.clone(), true)).collect();
    while let Some((path, is_root)) = waiting.pop() {
        let Some(source) = sources.get(&path) else { continue };
        if reached.insert(path.clone()) {
            let declared = declared_files(&path, is_root, source, view(source));
            waiting.extend(declared.into_iter().map(|path| (path, false)));
        }
    }
    reached
}

/// The places where files that this one declares may lie: `mod x;` in both
/// layouts, `#[path]`, and `include!`.
fn declared_files(path: &str, is_root: bool, source: &Source, view: &str) -> Vec<String> {
    let (dir, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.trim_end_matches(".rs");
    let base = if is_root || stem == "mod" { dir.to_owned() } else { format!("{dir}/{stem}") };
    let tokens = tokens(view);
    let mut inline: Vec<Option<&str>> = Vec::new();
    let mut found = Vec::new();
    // Where the attributes of an item that starts here begin.
    let mut item_start = 0;
    for (index, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => {
                let is_module = index >= 2 && tokens[index - 2].text == "mod";
                inline.push(is_module.then(|| tokens[index - 1].text));
            }
            "}" => {
                inline.pop();
            }
            "mod" if text_at(&tokens, index + 2) == ";" => {
                let attributes = item_start..token.at;
                let written = Source::find_word(&view[attributes.clone()], "path")
                    .and_then(|_| quoted(&source.text[attributes]));
                if let Some(written) = written {
                    found.push(join(dir, written));
                } else {
                    let folders: String =
                        inline.iter().flatten().map(|name| format!("{name}/")).collect();
                    let name = tokens[index + 1].text;
                    found.push(format!("{base}/{folders}{name}.rs"));
                    found.push(format!("{base}/{folders}{name}/mod.rs"));
                }
            }
            "include" if starts(&tokens, index + 1, &["!", "("]) => {
                let rest = &source.text[tokens[index + 2].at..];
                found.extend(quoted(rest).map(|written| join(dir, written)));
            }
            _ => {}
        }
        if [";", "{", "}"].contains(&token.text) {
            item_start = token.at + 1;
        }
    }
    found
}

/// A path written relative to a folder, without `.` and `..`.
pub(super) fn join(dir: &str, written: &str) -> String {
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in written.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(files: &[(&str, &str)]) -> Vec<String> {
        dead_files(&Tree::sample(files)).into_iter().map(|finding| finding.path).collect()
    }

    #[test]
    fn a_file_that_nothing_declares_is_dead_wherever_it_lies() {
        let dead = dead(&[
            ("kernels/src/lib.rs", "// mod a;\nconst X: &str = \"mod a;\";\n"),
            ("kernels/src/a.rs", "mod b;"),
            ("kernels/src/a/b.rs", ""),
            ("kernels/tests/story.rs", ""),
            ("kernels/tests/common/mod.rs", ""),
            ("kernels/tests/data/v1/x.txt", ""),
        ]);
        assert_eq!(dead, ["kernels/src/a.rs", "kernels/src/a/b.rs", "kernels/tests/common/mod.rs"]);
    }

    #[test]
    fn each_way_to_declare_a_file_keeps_it_alive() {
        let dead = dead(&[
            ("kernels/src/lib.rs", "pub mod a;\nmod i { mod j; }\n#[cfg(test)]\nmod t;\n"),
            ("kernels/src/a/mod.rs", "mod b;\n#[path = \"../odd.rs\"]\nmod c;"),
            ("kernels/src/a/b.rs", "mod deep; include!(\"made.rs\");"),
            ("kernels/src/a/b/deep.rs", ""),
            ("kernels/src/a/made.rs", ""),
            ("kernels/src/i/j.rs", ""),
            ("kernels/src/odd.rs", ""),
            ("kernels/src/t.rs", ""),
            ("kernels/tests/story.rs", "mod common;"),
            ("kernels/tests/common/mod.rs", ""),
        ]);
        assert_eq!(dead, [""; 0]);
    }

    #[test]
    fn paths_are_joined_without_dots() {
        assert_eq!(join("a/b", "../c/./d.rs"), "a/c/d.rs");
        assert_eq!(join("", "docs/x.md"), "docs/x.md");
    }
}

//! Rules *top-level* and *docs*: what lies in the root, how long the README
//! is, and that every document can be found by following links.

use super::Finding;
use super::modules::join;
use super::tree::Tree;
use std::collections::BTreeSet;

/// What may lie in the root beside dotfiles.
const TOP: [&str; 14] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "cache",
    "docs",
    "engine",
    "fs",
    "kernels",
    "rust-toolchain.toml",
    "tests",
    "tools",
];

const README: &str = "README.md";
const README_LINES_MAX: usize = 150;

/// The documents from which all others are linked.
const HUBS: [&str; 2] = [README, "docs/ARCHITECTURE.md"];

pub(super) fn top_level(tree: &Tree) -> Vec<Finding> {
    let allowed = |name: &str| name.starts_with('.') || name == "target" || TOP.contains(&name);
    let what = "not one of the things that lie in the root";
    let stray = tree.top.iter().filter(|name| !allowed(name));
    stray.map(|name| Finding::new(name, 1, "top-level", what)).collect()
}

pub(super) fn links(tree: &Tree) -> Vec<Finding> {
    let Some(readme) = tree.texts.get(README) else {
        return vec![Finding::new(README, 1, "docs", "there is no README")];
    };
    let mut findings = Vec::new();
    let lines = readme.lines().count();
    if lines > README_LINES_MAX {
        let what = format!("{lines} lines, more than {README_LINES_MAX}");
        findings.push(Finding::new(README, lines, "docs", what));
    }
    let mut linked = BTreeSet::new();
    for (path, text) in tree.texts.iter().filter(|(path, _)| path.ends_with(".md")) {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        for (line, target) in local_links(text) {
            let target = join(dir, target);
            // Links to code are not followed: only these are in memory.
            let is_document = target.starts_with("docs/") || !target.contains('/');
            let is_folder = tree.texts.keys().any(|p| p.starts_with(&format!("{target}/")));
            let is_there =
                tree.texts.contains_key(&target) || tree.top.contains(&target) || is_folder;
            if is_document && !is_there {
                let what = format!("links to {target}, which is not there");
                findings.push(Finding::new(path, line, "docs", what));
            }
            if HUBS.contains(&path.as_str()) {
                linked.insert(target);
            }
        }
    }
    for path in tree.texts.keys().filter(|path| path.starts_with("docs/")) {
        if !linked.contains(path) {
            let what = format!("not linked from {}", HUBS.join(" or "));
            findings.push(Finding::new(path, 1, "docs", what));
        }
    }
    findings
}

/// The relative targets of `[text](target)` and `[name]: target`, without
/// their fragments, each with its line.
fn local_links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        let named = line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "))
            .map(|(_, target)| target.trim());
        for target in inline.chain(named) {
            let path = target.split('#').next().unwrap_or_default();
            if !path.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push((index + 1, path));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_thing_in_the_root_is_found() {
        let files = ["notes.md", "src/x.txt", "docs/a.md", ".config/x", "target/x"];
        let tree = Tree::sample(&files.map(|path| (path, "")));
        let names: Vec<String> = top_level(&tree).into_iter().map(|f| f.path).collect();
        assert_eq!(names, ["notes.md", "src"]);
    }

    #[test]
    fn a_missing_or_too_long_readme_is_found() {
        assert_eq!(links(&Tree::sample(&[]))[0].what, "there is no README");
        let fits = "x\n".repeat(150);
        assert_eq!(links(&Tree::sample(&[(README, &fits)])), []);
        let long = "x\n".repeat(151);
        assert!(links(&Tree::sample(&[(README, &long)]))[0].what.contains("151 lines"));
    }

    #[test]
    fn a_document_that_no_hub_links_is_found() {
        let tree = Tree::sample(&[
            (README, "[a](docs/ARCHITECTURE.md#walk), [web](https://x.org/docs/c.md)\n"),
            ("docs/ARCHITECTURE.md", "[b](format.md) and\n[s]: ./adr/1.md\n"),
            ("docs/format.md", "[c](lost.md)"),
            ("docs/adr/1.md", ""),
            ("docs/lost.md", ""),
        ]);
        let paths: Vec<String> = links(&tree).into_iter().map(|f| f.path).collect();
        assert_eq!(paths, ["docs/lost.md"]);
    }

    #[test]
    fn a_link_to_nowhere_is_found_at_its_line() {
        let tree = Tree::sample(&[(README, "x\nsee [a](docs/gone.md \"title\")\n")]);
        let what = "links to docs/gone.md, which is not there";
        assert_eq!(links(&tree), [Finding::new(README, 2, "docs", what)]);
    }
}

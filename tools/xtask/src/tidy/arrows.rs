//! Rule *arrow*: which crate of the workspace may depend on which.
//!
//! Promises: what is not drawn here is an error, dev-dependencies included;
//! a crate that is not named here is one too. A crate drawn before it exists
//! costs nothing.

use super::Finding;
use super::tree::Tree;

/// The drawing: a crate and the crates it may depend on.
const ARROWS: [(&str, &[&str]); 11] = [
    ("warp-kernels", &[]),
    ("warp-format", &["warp-kernels"]),
    ("warp-plan", &["warp-format", "warp-kernels"]),
    ("warp-net", &["warp-format"]),
    ("warp-cache", &["warp-format"]),
    ("warp-flow", &["warp-cache", "warp-format", "warp-kernels", "warp-net", "warp-plan"]),
    ("warp-fs", &["warp-flow", "warp-format"]),
    ("warp", &["warp-flow", "warp-format", "warp-fs"]),
    ("warp-hub", &["warp-cache", "warp-format", "warp-net"]),
    ("warp-tests", &["warp-format"]),
    ("xtask", &["warp-tests"]),
];

/// What only the tests of a crate may depend on besides.
const TEST_ARROWS: [(&str, &str); 1] = [
    // Disks that stall or stop, below a real mount.
    ("warp-fs", "warp-cache"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in &tree.members {
        let manifest = member.manifest();
        let drawn = ARROWS.iter().find(|(name, _)| *name == member.name);
        let Some((_, allowed)) = drawn else {
            let what = format!("crate {} is not in the drawing of arrows.rs", member.name);
            findings.push(Finding::new(&manifest, 1, "arrow", what));
            continue;
        };
        for edge in member.edges.iter().filter(|edge| edge.in_workspace) {
            let for_tests =
                edge.is_dev && TEST_ARROWS.contains(&(member.name.as_str(), edge.name.as_str()));
            if !allowed.contains(&edge.name.as_str()) && !for_tests {
                let line = line_naming(tree, &manifest, &edge.alias);
                let what = format!("no arrow leads from {} to {}", member.name, edge.name);
                findings.push(Finding::new(&manifest, line, "arrow", what));
            }
        }
    }
    findings
}

/// The line of a manifest that starts with this key; 1 if none does.
pub(super) fn line_naming(tree: &Tree, manifest: &str, key: &str) -> usize {
    let starts =
        |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '.', '=']));
    let text = tree.texts.get(manifest).map_or("", String::as_str);
    text.lines().position(starts).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::super::tree::Edge;
    use super::*;

    fn tree(from: &str, to: &str, is_dev: bool) -> Tree {
        let lib = format!("{from}/src/lib.rs");
        let manifest = format!("[dependencies]\nserde = \"1\"\n{to}.workspace = true\n");
        let mut tree =
            Tree::sample(&[(&lib, ""), (&format!("{from}/Cargo.toml"), manifest.as_str())]);
        let edge = |name: &str, in_workspace| Edge {
            name: name.to_owned(),
            alias: name.to_owned(),
            is_dev,
            in_workspace,
        };
        tree.members[0].edges = vec![edge("serde", false), edge(to, true)];
        tree
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_found_at_its_line() {
        for is_dev in [false, true] {
            let findings = check(&tree("engine/format", "warp-cache", is_dev));
            assert_eq!(
                findings,
                [Finding::new(
                    "engine/format/Cargo.toml",
                    3,
                    "arrow",
                    "no arrow leads from warp-format to warp-cache"
                )]
            );
        }
    }

    #[test]
    fn a_drawn_arrow_and_foreign_crates_are_fine() {
        assert_eq!(check(&tree("engine/format", "warp-kernels", false)), []);
    }

    #[test]
    fn an_arrow_for_tests_is_not_one_for_the_product() {
        assert_eq!(check(&tree("fs", "warp-cache", true)), []);
        assert_eq!(check(&tree("fs", "warp-cache", false)).len(), 1);
    }

    #[test]
    fn a_crate_outside_the_drawing_is_found() {
        let findings = check(&tree("engine/utils", "warp-format", false));
        assert!(findings[0].what.contains("warp-utils is not in the drawing"));
    }

    #[test]
    fn the_drawing_has_no_circle_and_no_arrow_to_nowhere() {
        // Each round takes away the crates whose arrows lead to taken ones.
        let mut taken: Vec<&str> = Vec::new();
        for _ in ARROWS {
            let free = |(name, to): &&(&'static str, &[&'static str])| {
                !taken.contains(name) && to.iter().all(|name| taken.contains(name))
            };
            let names: Vec<&str> = ARROWS.iter().filter(free).map(|(name, _)| *name).collect();
            taken.extend(names);
        }
        assert_eq!(taken.len(), ARROWS.len());
    }
}

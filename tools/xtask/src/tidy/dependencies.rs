//! Rule *dependency*: what a manifest names, the sources use.

use super::Finding;
use super::arrows::line_naming;
use super::source::Source;
use super::text::{Kind, blank};
use super::tree::{Edge, Member, Tree};

/// A crate that consists of tests: its normal dependencies serve them.
const ALL_TESTS: &str = "warp-tests";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = unused_in_workspace(tree);
    for member in &tree.members {
        for edge in &member.edges {
            if let Some(what) = fault(tree, member, edge) {
                let manifest = member.manifest();
                let line = line_naming(tree, &manifest, &edge.alias);
                findings.push(Finding::new(&manifest, line, "dependency", what));
            }
        }
    }
    findings
}

/// What is wrong with this dependency, if anything.
fn fault(tree: &Tree, member: &Member, edge: &Edge) -> Option<String> {
    let name = edge.alias.replace('-', "_");
    let mut sources =
        tree.sources.iter().filter(|(path, _)| member.holds(path)).map(|(_, source)| source);
    let in_product = |s: &Source| s.is_product && Source::find_word(&s.product, &name).is_some();
    // Doc tests live in comments, and may use what tests use.
    let anywhere = |s: &Source| {
        let view = blank(&s.text, |at| s.kind(at) != Kind::Literal);
        Source::find_word(&view, &name).is_some()
    };
    if edge.is_dev || member.name == ALL_TESTS {
        let used = sources.any(anywhere);
        return (!used).then(|| format!("{} is not used by {}", edge.alias, member.name));
    }
    let sources: Vec<&Source> = sources.collect();
    if sources.iter().any(|s| in_product(s)) {
        None
    } else if sources.iter().any(|s| anywhere(s)) {
        Some(format!("only tests use {}: make it a dev-dependency", edge.alias))
    } else {
        Some(format!("{} is not used by {}", edge.alias, member.name))
    }
}

/// Lines of `[workspace.dependencies]` that no member takes up.
fn unused_in_workspace(tree: &Tree) -> Vec<Finding> {
    let text = tree.texts.get("Cargo.toml").map_or("", String::as_str);
    let mut findings = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.trim() == "[workspace.dependencies]";
        } else if inside && let Some((key, _)) = line.split_once('=') {
            let key = key.trim();
            let used = tree.members.iter().flat_map(|m| &m.edges).any(|e| e.alias == key);
            if !used && !key.starts_with('#') {
                let what = format!("no crate of the workspace uses {key}");
                findings.push(Finding::new("Cargo.toml", index + 1, "dependency", what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(lib: &str, test: &str, is_dev: bool) -> Vec<String> {
        let mut tree = Tree::sample(&[
            ("kernels/src/lib.rs", lib),
            ("kernels/tests/story.rs", test),
            ("kernels/Cargo.toml", "[dependencies]\nsome-crate = \"1\"\n"),
        ]);
        let name = "some-crate".to_owned();
        tree.members[0].edges =
            vec![Edge { name: name.clone(), alias: name, is_dev, in_workspace: false }];
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_dependency_that_no_source_names_is_found_at_its_line() {
        let found = "kernels/Cargo.toml:2: dependency: some-crate is not used by warp-kernels";
        for is_dev in [false, true] {
            for lib in ["", "// some_crate", "const X: &str = \"some_crate\";", "some_crates"] {
                if is_dev && lib.starts_with("//") {
                    continue;
                }
                let faults = faults(lib, "", is_dev);
                if lib.starts_with("//") {
                    assert!(faults[0].contains("only tests use"), "{faults:?}");
                } else {
                    assert_eq!(faults, [found], "{lib}");
                }
            }
        }
    }

    #[test]
    fn a_normal_dependency_of_tests_alone_belongs_to_the_dev_dependencies() {
        let unit = "#[cfg(test)] mod tests { use some_crate::x; }";
        for (lib, test) in [(unit, ""), ("", "use some_crate::x;")] {
            assert!(faults(lib, test, false)[0].contains("make it a dev-dependency"));
            assert_eq!(faults(lib, test, true), [""; 0]);
        }
    }

    #[test]
    fn a_used_dependency_is_fine() {
        assert_eq!(faults("use some_crate::x;", "", false), [""; 0]);
        assert_eq!(faults("/// some_crate::x();\nfn f() {}", "", true), [""; 0]);
    }

    #[test]
    fn a_workspace_dependency_that_nobody_takes_is_found() {
        let manifest = "[workspace.dependencies]\n# a = b\nserde = \"1\"\n[profile.dev]\nx = 1\n";
        let findings = check(&Tree::sample(&[("Cargo.toml", manifest)]));
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].line, findings[0].rule), (3, "dependency"));
    }
}

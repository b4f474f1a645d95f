//! Rule *ratchet*: functions stay within 70 lines and files within 800.
//!
//! What is longer is listed with its size in `ratchet.txt` (`path::fn lines`
//! or `path lines`); it may not grow, and when it shrinks the list follows.
//! Only product code counts: tests may be as long as their story.

use super::Finding;
use super::source::functions;
use super::tree::{RATCHET, Tree};
use std::collections::BTreeMap;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;

/// Something with a size: its name in the list, and where it stands.
struct Measured {
    name: String,
    path: String,
    line: usize,
    size: usize,
    max: usize,
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let text = tree.texts.get(RATCHET).map_or("", String::as_str);
    let (mut listed, mut findings) = parse(text);
    for thing in measure(tree) {
        let Measured { name, path, line, size, max } = thing;
        let what = match listed.remove(&name) {
            None if size <= max => continue,
            None => format!("{name} has {size} lines, more than {max}"),
            Some((_, limit)) if size > limit => {
                format!("{name} grew from {limit} to {size} lines")
            }
            Some((_, limit)) if size == limit && size > max => continue,
            Some(_) if size > max => {
                format!("{name} shrank to {size} lines: lower it in {RATCHET}")
            }
            Some(_) => format!("{name} fits with {size} lines: take it off {RATCHET}"),
        };
        findings.push(Finding::new(&path, line, "ratchet", what));
    }
    findings.extend(listed.into_iter().map(|(name, (line, _))| {
        Finding::new(RATCHET, line, "ratchet", format!("{name} is not there: take it off"))
    }));
    findings
}

/// The list, each name with its line and size, and what is wrong in it.
fn parse(text: &str) -> (BTreeMap<String, (usize, usize)>, Vec<Finding>) {
    let mut listed = BTreeMap::new();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = line.rsplit_once(' ').and_then(|(name, size)| Some((name, size.parse().ok()?)));
        let fresh = entry.is_some_and(|(name, size)| {
            listed.insert(name.trim().to_owned(), (index + 1, size)).is_none()
        });
        if !fresh {
            let what = "neither `path::fn lines` nor `path lines`, or said twice";
            findings.push(Finding::new(RATCHET, index + 1, "ratchet", what));
        }
    }
    (listed, findings)
}

/// All files and functions of the product. A name that a file uses twice is
/// numbered from its second use on.
fn measure(tree: &Tree) -> Vec<Measured> {
    let mut all = Vec::new();
    for (path, source) in tree.sources.iter().filter(|(_, source)| source.is_product) {
        let mut put = |name: String, line, size, max| {
            all.push(Measured { name, path: path.clone(), line, size, max });
        };
        put(path.clone(), 1, source.product_lines(), FILE_LINES_MAX);
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (name, span) in functions(&source.product) {
            let uses = seen.entry(name.clone()).or_default();
            *uses += 1;
            let number = if *uses == 1 { String::new() } else { format!("#{uses}") };
            let line = source.line(span.start);
            let size = source.line(span.end - 1) - line + 1;
            put(format!("{path}::{name}{number}"), line, size, FUNCTION_LINES_MAX);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a function of so many lines from its second line on, and
    /// a longer one in its tests.
    fn file(lines: usize) -> String {
        let test = format!("#[cfg(test)]\nmod tests {{\nfn t() {{\n{}}}\n}}\n", "x;\n".repeat(900));
        format!("\nfn f() {{\n{}}}\n{test}", "x;\n".repeat(lines - 2))
    }

    fn whats(lines: usize, ratchet: &str) -> Vec<String> {
        let text = file(lines);
        let tree = Tree::sample(&[("fs/src/lib.rs", &text), (RATCHET, ratchet)]);
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_function_may_have_seventy_lines_and_not_one_more() {
        assert_eq!(whats(70, ""), [""; 0]);
        let long = "fs/src/lib.rs:2: ratchet: fs/src/lib.rs::f has 71 lines, more than 70";
        assert_eq!(whats(71, ""), [long]);
    }

    #[test]
    fn a_file_may_have_eight_hundred_lines_and_not_one_more() {
        let listed = |size| format!("fs/src/lib.rs::f {size}\n");
        assert_eq!(whats(799, &listed(799)), [""; 0]);
        let long = "fs/src/lib.rs:1: ratchet: fs/src/lib.rs has 801 lines, more than 800";
        assert_eq!(whats(800, &listed(800)), [long]);
        assert_eq!(whats(800, "fs/src/lib.rs::f 800\nfs/src/lib.rs 801"), [""; 0]);
    }

    #[test]
    fn what_is_listed_may_not_grow_and_the_list_follows_when_it_shrinks() {
        let list = "# why\n\nfs/src/lib.rs::f 80\n";
        assert_eq!(whats(80, list), [""; 0]);
        assert!(whats(81, list)[0].ends_with("fs/src/lib.rs::f grew from 80 to 81 lines"));
        assert!(whats(79, list)[0].contains("shrank to 79 lines: lower it"));
        assert!(whats(70, list)[0].contains("fits with 70 lines: take it off"));
    }

    #[test]
    fn a_line_of_the_list_without_its_thing_or_form_is_found() {
        let found = whats(3, "fs/src/lib.rs::gone 80\nnonsense\nx 9\nx 9\n");
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.iter().any(|f| f.starts_with(&format!("{RATCHET}:1:"))));
        assert!(found.iter().any(|f| f.starts_with(&format!("{RATCHET}:2:"))));
        assert!(found.iter().any(|f| f.starts_with(&format!("{RATCHET}:4:"))));
    }

    #[test]
    fn a_second_function_of_one_name_has_a_line_of_its_own() {
        let text = format!("fn f() {{}}\nmod b {{\nfn f() {{\n{}}}\n}}\n", "x;\n".repeat(70));
        let tree = Tree::sample(&[("fs/src/lib.rs", &text), (RATCHET, "fs/src/lib.rs::f#2 72")]);
        assert_eq!(check(&tree), []);
    }
}

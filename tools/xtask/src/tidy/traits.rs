//! Rule *trait*: a trait of the workspace has two implementations, tests
//! included, or a reason here why it has not.

use super::Finding;
use super::token::{Token, is_word, starts, text_at, tokens};
use super::tree::Tree;
use std::collections::BTreeMap;

/// Traits with fewer implementations: file, name, reason.
const EXEMPT: [(&str, &str, &str); 2] = [
    (
        "engine/format/src/bytes.rs",
        "Put",
        "adds the writing side of Reader to Vec<u8>: a foreign type takes methods only by a trait",
    ),
    ("fs/src/desk.rs", "Answer", "each kind of reply that fuser has implements it, by a macro"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    check_except(tree, &EXEMPT)
}

fn check_except(tree: &Tree, exempt: &[(&str, &str, &str)]) -> Vec<Finding> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut declared = Vec::new();
    for (path, source) in &tree.sources {
        for name in implemented(&tokens(&source.code)) {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
        if source.is_product {
            let traits = visible_traits(&tokens(&source.product));
            declared.extend(traits.into_iter().map(|t| (path, source.line(t.at), t.text)));
        }
    }
    let mut findings = Vec::new();
    for (path, line, name) in &declared {
        let count = counts.get(*name).copied().unwrap_or_default();
        let is_exempt = exempt.iter().any(|(at, exempt, _)| at == path && exempt == name);
        if count < 2 && !is_exempt {
            let what = format!("{name} has {count} implementers: a trait needs two, or a reason");
            findings.push(Finding::new(path, *line, "trait", what));
        }
        if count >= 2 && is_exempt {
            let what = format!("{name} has {count} implementers: take it off the exempt list");
            findings.push(Finding::new(path, *line, "trait", what));
        }
    }
    for (path, name, _) in exempt {
        let in_tree = tree.members.iter().any(|member| member.holds(path));
        if in_tree && !declared.iter().any(|(at, _, found)| at == path && found == name) {
            let what = format!("exempt trait {name} is not there: take it off the list");
            findings.push(Finding::new(path, 1, "trait", what));
        }
    }
    findings
}

/// The names of traits that more than their own module can see.
fn visible_traits<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let is_visible = |index: usize| {
        let before = (1..=2).filter_map(|back| index.checked_sub(back)).map(|i| tokens[i].text);
        // `pub trait`, `pub(..) trait`, and the same with `unsafe` between.
        before.take_while(|text| ["pub", ")", "unsafe"].contains(text)).any(|t| t != "unsafe")
    };
    let names = tokens.iter().enumerate().filter(|(index, token)| {
        token.text == "trait" && is_visible(*index) && is_word(text_at(tokens, index + 1))
    });
    names.map(|(index, _)| tokens[index + 1]).collect()
}

/// The trait names of all `impl Trait for Type`. Passing calls on through a
/// pointer (`&T`, `Box<T>`, ...) implements nothing and is left out.
fn implemented<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let is_item = |index: usize| {
        // In the place of a type, `impl` follows other marks than an item does.
        let before = index.checked_sub(1).map_or("", |i| tokens[i].text);
        ["", "}", "{", ";", "]", "unsafe", "default"].contains(&before)
    };
    let items = (0..tokens.len()).filter(|i| tokens[*i].text == "impl" && is_item(*i));
    items.filter_map(|index| trait_of_impl(tokens, index)).collect()
}

fn trait_of_impl<'a>(tokens: &[Token<'a>], index: usize) -> Option<&'a str> {
    let mut name = None;
    let mut depth = 0usize;
    let mut at = index + 1;
    loop {
        match text_at(tokens, at) {
            "" | "{" | ";" | "where" => return None,
            // The arrow of a function type closes no angle.
            "-" if starts(tokens, at + 1, &[">"]) => at += 1,
            "<" | "(" | "[" => depth += 1,
            ">" | ")" | "]" => depth = depth.checked_sub(1)?,
            "for" if depth == 0 && is_pointer(tokens, at + 1) => return None,
            "for" if depth == 0 => return name,
            word if depth == 0 && is_word(word) => name = Some(word),
            _ => {}
        }
        at += 1;
    }
}

fn is_pointer(tokens: &[Token<'_>], at: usize) -> bool {
    text_at(tokens, at) == "&"
        || ["Box", "Rc", "Arc"].iter().any(|name| starts(tokens, at, &[name, "<"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(files: &[(&str, &str)], exempt: &[(&str, &str, &str)]) -> Vec<String> {
        let findings = check_except(&Tree::sample(files), exempt);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_trait_with_one_implementer_is_found_at_its_line() {
        for declared in ["pub trait T {}", "pub(crate) trait T {}", "pub(super) unsafe trait T {}"]
        {
            let lib = format!("\n{declared}\nimpl T for A {{}}\nimpl Other for T {{}}\n");
            let what =
                "fs/src/lib.rs:2: trait: T has 1 implementers: a trait needs two, or a reason";
            assert_eq!(whats(&[("fs/src/lib.rs", &lib)], &[]), [what]);
        }
    }

    #[test]
    fn two_implementers_anywhere_are_enough() {
        let found = whats(
            &[
                ("fs/src/lib.rs", "pub trait T {}\nimpl<F: Fn(u8) -> u8> crate::T<F> for A<F> {}"),
                ("fs/tests/story.rs", "fn f() {\n    #[x]\n    impl warp_fs::T for B {}\n}"),
            ],
            &[],
        );
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn an_impl_in_the_place_of_a_type_is_no_implementer() {
        let lib = "pub trait T {}\nfn f(x: impl T) -> impl T { for y in z {} }\nimpl T { }";
        assert!(whats(&[("fs/src/lib.rs", lib)], &[])[0].contains("T has 0"));
    }

    #[test]
    fn passing_calls_on_through_a_pointer_is_no_implementation() {
        for pointer in ["&X", "&mut X", "Box<X>", "Arc<X>"] {
            let lib =
                format!("pub trait T {{}}\nimpl T for A {{}}\nimpl<X: T> T for {pointer} {{}}");
            assert!(whats(&[("fs/src/lib.rs", &lib)], &[])[0].contains("T has 1"), "{pointer}");
        }
    }

    #[test]
    fn an_exempt_trait_is_fine_until_the_exemption_is_stale() {
        let exempt = [("fs/src/lib.rs", "T", "a reason")];
        let one = "pub trait T {}\nimpl T for A {}\n";
        assert_eq!(whats(&[("fs/src/lib.rs", one)], &exempt), [""; 0]);
        let two = format!("{one}impl T for B {{}}");
        assert!(whats(&[("fs/src/lib.rs", &two)], &exempt)[0].contains("take it off"));
        assert!(whats(&[("fs/src/lib.rs", "")], &exempt)[0].contains("is not there"));
    }
}

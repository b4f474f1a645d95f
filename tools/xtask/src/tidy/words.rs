//! Rules *await*, *io*, *unsafe* and *stub*: words that may not stand in some
//! places, or anywhere.

use super::Finding;
use super::source::Source;
use super::text::{Kind, is_identifier};
use super::token::{Token, closing, starts, text_at, tokens};
use super::tree::Tree;

/// Crates in which nothing waits.
const AWAIT_FREE: [&str; 4] = ["warp-format", "warp-plan", "warp-kernels", "warp-cache"];

/// Crates that see bytes and numbers only: no runtime, disk or network.
const IO_FREE: [&str; 3] = ["warp-format", "warp-plan", "warp-kernels"];

/// The files that may hold `unsafe`, each for a call that has no safe form.
const UNSAFE_FILES: [&str; 6] = [
    "kernels/src/simd.rs",
    "kernels/src/cuda.rs",
    "kernels/src/nvcomp.rs",
    "cache/src/mmap.rs",
    "engine/net/src/mesh/tun.rs",
    "tools/warp/src/sys.rs",
];

/// What marks unfinished work in code.
const STUB_CODE: [&str; 4] = ["todo!", "unimplemented!", "#[ignore", "#![allow"];

/// What marks unfinished work in comments and texts. Cut in two, so that this
/// list is not found itself.
const STUB_TEXT: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("not yet ", "implemented"),
];

pub(super) fn awaits_and_io(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in &tree.members {
        let src = format!("{}/src/", member.dir);
        for (path, source) in tree.sources.iter().filter(|(path, _)| path.starts_with(&src)) {
            let tokens = tokens(&source.code);
            if AWAIT_FREE.contains(&member.name.as_str()) {
                let awaits = (0..tokens.len()).filter(|i| starts(&tokens, *i, &[".", "await"]));
                findings.extend(awaits.map(|index| {
                    let what = format!("{} never waits", member.name);
                    Finding::new(path, source.line(tokens[index].at), "await", what)
                }));
            }
            if IO_FREE.contains(&member.name.as_str()) {
                findings.extend(io_words(&tokens).into_iter().map(|(at, word)| {
                    let what = format!("{} knows nothing of {word}", member.name);
                    Finding::new(path, source.line(at), "io", what)
                }));
            }
        }
    }
    findings
}

/// Mentions of tokio, `std::fs` and `std::net`, also as part of a group.
fn io_words(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.text == "tokio" {
            found.push((token.at, "tokio".to_owned()));
        }
        if !starts(tokens, index, &["std", ":", ":"]) {
            continue;
        }
        let first = index + 3;
        let end = if text_at(tokens, first) == "{" { closing(tokens, first) } else { None };
        // In a group, a name that follows `{` or `,` is a module of std or of
        // one of its modules; the latter are told by the depth.
        let mut depth = 0usize;
        for at in first..=end.unwrap_or(first) {
            match text_at(tokens, at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                word @ ("fs" | "net")
                    if depth <= 1 && (at == first || text_at(tokens, at - 1) != ":") =>
                {
                    found.push((tokens[at].at, format!("std::{word}")));
                }
                _ => {}
            }
        }
    }
    found
}

pub(super) fn unsafe_code(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in &tree.sources {
        let allowed = UNSAFE_FILES.contains(&path.as_str());
        let found: Vec<usize> =
            tokens(&source.code).iter().filter(|t| t.text == "unsafe").map(|t| t.at).collect();
        if allowed && found.is_empty() {
            let what = "may hold `unsafe` and does not: take it off the list in words.rs";
            findings.push(Finding::new(path, 1, "unsafe", what));
        } else if !allowed {
            let what = "`unsafe` outside the files that may hold it";
            findings.extend(
                found.iter().map(|at| Finding::new(path, source.line(*at), "unsafe", what)),
            );
        }
    }
    for member in &tree.members {
        let excepted =
            UNSAFE_FILES.iter().any(|path| member.holds(path) && tree.sources.contains_key(*path));
        for root in member.roots.iter().filter(|root| root.is_product && !excepted) {
            let forbids = tree.sources.get(&root.path).is_some_and(forbids_unsafe);
            if !forbids {
                let what = "`#![forbid(unsafe_code)]` is missing";
                findings.push(Finding::new(&root.path, 1, "unsafe", what));
            }
        }
    }
    findings
}

fn forbids_unsafe(source: &Source) -> bool {
    let tokens = tokens(&source.code);
    let forbid = ["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"];
    (0..tokens.len()).any(|index| starts(&tokens, index, &forbid))
}

pub(super) fn stubs(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in &tree.sources {
        let code = STUB_CODE.iter().flat_map(|word| {
            whole_words(&source.text, word).filter(|at| source.kind(*at) == Kind::Code)
        });
        // A test may quote such a word; a comment or the product may not.
        let text = STUB_TEXT.iter().flat_map(|word| {
            whole_words(&source.text, word)
                .filter(|at| source.kind(*at) != Kind::Literal || source.in_product(*at))
        });
        findings.extend(code.chain(text).map(|at| {
            let word = source.text[at..].split(['(', ']', ':', '\n', '"']).next();
            let what = format!("`{}` marks unfinished work", word.unwrap_or_default().trim());
            Finding::new(path, source.line(at), "stub", what)
        }));
    }
    findings
}

/// Where a word stands that is not part of a longer one.
fn whole_words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    // A mark at the end of the word, as in a macro's name, ends it anyway.
    let free = |own: u8, other: Option<&u8>| {
        !is_identifier(own) || !other.is_some_and(|other| is_identifier(*other))
    };
    let (bytes, first, last) =
        (text.as_bytes(), word.as_bytes()[0], word.as_bytes()[word.len() - 1]);
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        free(first, before) && free(last, bytes.get(at + word.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        let dir = path.split_once("/src/").unwrap().0;
        let lib = format!("{dir}/src/lib.rs");
        let mut files = vec![(path, text)];
        if path != lib {
            files.push((&lib, "#![forbid(unsafe_code)]"));
        }
        let found = rule(&Tree::sample(&files)).into_iter().filter(|f| f.path == path);
        found.map(|finding| finding.line).collect()
    }

    #[test]
    fn await_is_found_in_the_crates_that_never_wait_and_nowhere_else() {
        let text = "// x.await\nasync fn f() { \".await\"; x\n.await; 'await: loop {} }";
        for dir in ["engine/format", "engine/plan", "kernels", "cache"] {
            assert_eq!(lines(awaits_and_io, &format!("{dir}/src/a.rs"), text), [3], "{dir}");
        }
        assert_eq!(lines(awaits_and_io, "engine/flow/src/a.rs", text), [0; 0]);
    }

    #[test]
    fn io_is_found_however_it_is_imported() {
        for text in [
            "use std::fs;",
            "use std::net::IpAddr;",
            "fn f() { ::std::fs::read(); }",
            "use std::{collections::BTreeMap, fs::File};",
            "use std::{fmt::{self, Display}, net};",
            "use tokio::fs;",
        ] {
            for dir in ["engine/format", "engine/plan", "kernels"] {
                assert_eq!(lines(awaits_and_io, &format!("{dir}/src/a.rs"), text), [1], "{text}");
            }
            assert_eq!(lines(awaits_and_io, "cache/src/a.rs", text), [0; 0], "{text}");
        }
        for text in ["// std::fs", "use crate::fs;", "use std::{os::fs, a::{fs, net}, io};"] {
            assert_eq!(lines(awaits_and_io, "kernels/src/a.rs", text), [0; 0], "{text}");
        }
    }

    #[test]
    fn unsafe_is_found_outside_its_files_tests_included() {
        let text = "// unsafe\n#[cfg(test)]\nmod tests { fn f() { unsafe { g() } } }\n";
        assert_eq!(lines(unsafe_code, "kernels/src/a.rs", text), [3]);
        assert_eq!(lines(unsafe_code, "kernels/src/simd.rs", text), [0; 0]);
        assert_eq!(lines(unsafe_code, "kernels/src/a.rs", "#[expect(unsafe_code)] x"), [0; 0]);
    }

    #[test]
    fn a_file_that_may_hold_unsafe_and_does_not_is_found() {
        assert_eq!(lines(unsafe_code, "cache/src/mmap.rs", "fn f() {}"), [1]);
    }

    #[test]
    fn a_crate_without_such_a_file_has_to_forbid_unsafe() {
        let missing = Tree::sample(&[("fs/src/lib.rs", "// #![forbid(unsafe_code)]\n")]);
        assert!(unsafe_code(&missing)[0].what.contains("missing"));
        let excepted =
            Tree::sample(&[("cache/src/lib.rs", ""), ("cache/src/mmap.rs", "unsafe fn f() {}")]);
        assert_eq!(unsafe_code(&excepted), []);
    }

    #[test]
    fn stub_words_are_found_in_code_comments_and_texts() {
        for stub in [
            "fn f() { todo!() }",
            "fn f() { unimplemented!(\"x\") }",
            "// TODO: later",
            "/* FIXME */",
            "/// XXX",
            "fn f() { panic!(\"not yet implemented\") }",
            "#![allow(dead_code)]",
            "#[cfg(test)] mod t { #[test] #[ignore = \"slow\"] fn f() {} }",
            "#[cfg(test)] mod t { // TODO\n}",
        ] {
            assert_eq!(lines(stubs, "kernels/src/lib.rs", stub), [1], "{stub}");
        }
    }

    #[test]
    fn words_that_only_look_like_stubs_are_fine() {
        for fine in [
            "const TEMPLATE: &str = \"XXXXXX\";",
            "/// nothing like todo! in here",
            "fn mastodon() { my_todo!(); }",
            "#[cfg(test)] mod t { const X: &str = \"TODO\"; }",
            "#[expect(dead_code, reason = \"x\")] fn f() {}",
        ] {
            assert_eq!(lines(stubs, "kernels/src/lib.rs", fine), [0; 0], "{fine}");
        }
    }
}

//! One Rust file and the views of it that the rules read.
//!
//! All views have the length of the text, so an offset means the same place in
//! each of them.

use super::text::{Kind, blank, kinds};
use super::token::{Token, closing, is_word, starts, text_at, tokens};
use std::collections::BTreeSet;
use std::ops::Range;

/// A Rust file.
pub(super) struct Source {
    pub(super) text: String,
    /// Without comments and literals.
    pub(super) code: String,
    /// Without the items under `#[cfg(test)]` and `#[test]` as well.
    pub(super) product: String,
    /// Whether a library or program reaches this file outside of its tests.
    pub(super) is_product: bool,
    kinds: Vec<Kind>,
    tests: Vec<Range<usize>>,
    line_starts: Vec<usize>,
}

impl Source {
    /// Reads the text; `is_product` is for the tree to find out.
    pub(super) fn new(text: String) -> Self {
        let kinds = kinds(&text);
        let code = blank(&text, |at| kinds[at] == Kind::Code);
        let tests = test_items(&code);
        let product = blank(&code, |at| !tests.iter().any(|test| test.contains(&at)));
        assert_eq!(product.len(), text.len(), "offsets are shared between the views");
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .filter(|start| *start < text.len())
            .collect();
        Self { text, code, product, is_product: false, kinds, tests, line_starts }
    }

    /// The line of an offset, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at).max(1)
    }

    pub(super) fn kind(&self, at: usize) -> Kind {
        self.kinds[at]
    }

    /// Whether this place is compiled into the product.
    pub(super) fn in_product(&self, at: usize) -> bool {
        self.is_product && !self.tests.iter().any(|test| test.contains(&at))
    }

    /// Lines of the file that are not tests.
    pub(super) fn product_lines(&self) -> usize {
        let lines = |test: &Range<usize>| self.line(test.start)..=self.line(test.end - 1);
        let tests: BTreeSet<usize> = self.tests.iter().flat_map(lines).collect();
        self.line_starts.len() - tests.len()
    }

    /// Where an identifier stands first in one of the views.
    pub(super) fn find_word(view: &str, word: &str) -> Option<usize> {
        tokens(view).iter().find(|token| token.text == word).map(|token| token.at)
    }
}

/// The items that only tests compile, attribute included, in order and apart.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let tokens = tokens(code);
    let mut items = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        if let Some(item) = test_attribute(&tokens, index) {
            let end = item_end(&tokens, item);
            items.push(tokens[index].at..tokens[end].at + tokens[end].text.len());
            index = end + 1;
        } else {
            index += 1;
        }
    }
    items
}

/// If an attribute at `index` keeps its item out of the product: the index of
/// what follows it.
fn test_attribute(tokens: &[Token<'_>], index: usize) -> Option<usize> {
    if !starts(tokens, index, &["#", "["]) {
        return None;
    }
    let close = closing(tokens, index + 1)?;
    let inner: Vec<&str> = tokens[index + 2..close].iter().map(|t| t.text).collect();
    let only_tests = match inner.as_slice() {
        ["test"] | ["cfg", "(", "test", ")"] => true,
        ["cfg", "(", "all", "(", rest @ ..] => rest.contains(&"test") && !rest.contains(&"not"),
        _ => false,
    };
    only_tests.then_some(close + 1)
}

/// The last token of the item that starts at `index`: its `;`, the brace that
/// closes it, or what stands before the end of the block around it.
fn item_end(tokens: &[Token<'_>], mut index: usize) -> usize {
    while index < tokens.len() {
        match tokens[index].text {
            ";" => return index,
            ")" | "]" | "}" => return index.saturating_sub(1),
            "(" | "[" => index = closing(tokens, index).unwrap_or(tokens.len()),
            "{" => return closing(tokens, index).unwrap_or(tokens.len() - 1),
            _ => {}
        }
        index += 1;
    }
    tokens.len() - 1
}

/// The literal between the quotes in a piece of text, if there is one.
pub(super) fn quoted(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('"')?;
    rest.split_once('"').map(|(inner, _)| inner)
}

/// Every `fn` with a body: its name and its text's place.
pub(super) fn functions(code: &str) -> Vec<(String, Range<usize>)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let name = text_at(&tokens, index + 1);
        if token.text != "fn" || !is_word(name) {
            continue;
        }
        if let Some(close) = body_end(&tokens, index) {
            found.push((name.to_owned(), token.at..tokens[close].at + 1));
        }
    }
    found
}

/// The brace that ends the body of the function at `index`; a declaration in
/// a trait has none.
fn body_end(tokens: &[Token<'_>], mut index: usize) -> Option<usize> {
    loop {
        match text_at(tokens, index) {
            "" | ";" => return None,
            "{" => return closing(tokens, index),
            "(" | "[" => index = closing(tokens, index)?,
            _ => {}
        }
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_items_leave_the_product_and_what_follows_them_stays() {
        let text =
            "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        let source = Source::new(text.to_owned());
        assert!(Source::find_word(&source.code, "b").is_some());
        assert_eq!(Source::find_word(&source.product, "b"), None);
        assert!(Source::find_word(&source.product, "c").is_some());
        assert_eq!(source.product_lines(), 2);
    }

    #[test]
    fn test_items_end_where_the_item_ends() {
        for (item, rest) in [
            ("#[cfg(test)] mod tests;", "fn z() {}"),
            ("#[cfg(all(test, unix))] const X: [u8; 2] = [1, 2];", "fn z() {}"),
            ("#[test] fn f(a: [u8; 2]) { b(); }", "fn z() {}"),
        ] {
            let source = Source::new(format!("{item}{rest}"));
            assert_eq!(source.product.trim(), rest, "{item}");
        }
        for kept in ["#[cfg(not(test))] fn z() {}", "#[cfg(all(unix, not(test)))] fn z() {}"] {
            assert_eq!(Source::new(kept.to_owned()).product, kept);
        }
    }

    #[test]
    fn lines_are_counted_from_one() {
        let source = Source::new("a\nb\n\nc".to_owned());
        assert_eq!([0, 1, 2, 5].map(|at| source.line(at)), [1, 1, 2, 4]);
        assert_eq!(source.product_lines(), 4);
    }

    #[test]
    fn functions_with_a_body_are_found_and_declarations_are_not() {
        let code = "trait T { fn a(x: [u8; 3]); }\nfn b<F: Fn(fn(u8))>() -> [u8; 2]\n{\n c\n}\n";
        let found = functions(code);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "b");
        assert_eq!(code[found[0].1.clone()].lines().count(), 4);
    }

    #[test]
    fn the_quoted_part_is_what_stands_between_the_first_quotes() {
        assert_eq!(quoted("[path = \"a/b.rs\"] \"x\""), Some("a/b.rs"));
        assert_eq!(quoted("[path]"), None);
    }
}

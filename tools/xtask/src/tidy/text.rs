//! Tells code from comments and from literals in Rust text, byte by byte.
//!
//! Promises: every byte of the text gets one kind; nested block comments, raw
//! strings and lifetimes are told apart as the language does. Never: fails;
//! text that does not compile gets some answer and the compiler complains.

/// What a byte of a source file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Code,
    Comment,
    /// A string or character, with its quotes.
    Literal,
}

/// The kind of every byte.
pub(super) fn kinds(text: &str) -> Vec<Kind> {
    let bytes = text.as_bytes();
    let mut kinds = vec![Kind::Code; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let (kind, len) = span(&bytes[at..]);
        let end = (at + len).min(bytes.len());
        kinds[at..end].fill(kind);
        at = end;
    }
    kinds
}

/// The text with everything that `keep` refuses turned into spaces: offsets
/// and lines stay what they were.
pub(super) fn blank(text: &str, keep: impl Fn(usize) -> bool) -> String {
    let kept = |(at, c): (usize, char)| {
        let blank = if keep(at) || c == '\n' { c } else { ' ' };
        std::iter::repeat_n(blank, if blank == c { 1 } else { c.len_utf8() })
    };
    text.char_indices().flat_map(kept).collect()
}

pub(super) fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The kind and length of what starts here. An identifier is taken whole, so
/// a raw string's prefix is only met where it really starts one.
fn span(rest: &[u8]) -> (Kind, usize) {
    if rest.starts_with(b"//") {
        let len = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        (Kind::Comment, len)
    } else if rest.starts_with(b"/*") {
        (Kind::Comment, block_comment(rest))
    } else if rest[0] == b'"' {
        (Kind::Literal, string(rest))
    } else if let Some(len) = raw_string(rest) {
        (Kind::Literal, len)
    } else if let Some(len) = character(rest) {
        (Kind::Literal, len)
    } else {
        let word = rest.iter().take_while(|b| is_identifier(**b)).count();
        (Kind::Code, word.max(1))
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = [b"br".as_slice(), b"cr", b"r"].into_iter().find(|p| rest.starts_with(p))?;
    let hashes = rest[prefix.len()..].iter().take_while(|b| **b == b'#').count();
    let body = prefix.len() + hashes + 1;
    if rest.get(body - 1) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let len = rest[body..].windows(end.len()).position(|w| w == end);
    Some(len.map_or(rest.len(), |len| body + len + end.len()))
}

/// `'x'` or `'\n'`, but not the lifetime `'x`.
fn character(rest: &[u8]) -> Option<usize> {
    if rest[0] != b'\'' {
        return None;
    }
    if rest.get(1) == Some(&b'\\') {
        let close = rest.get(3..)?.iter().position(|b| *b == b'\'')?;
        return Some(3 + close + 1);
    }
    let len = match *rest.get(1)? {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    (rest.get(1 + len) == Some(&b'\'')).then_some(len + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        let kinds = kinds(text);
        let code = blank(text, |at| kinds[at] == Kind::Code);
        assert_eq!(code.len(), text.len(), "{text}");
        code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_go_with_what_is_nested_in_them() {
        assert_eq!(code("a // b \" c\nd"), "a d");
        assert_eq!(code("a /* b /* c */ d */ e"), "a e");
        assert_eq!(code("/// é unsafe\nfn"), "fn");
    }

    #[test]
    fn strings_go_and_what_follows_them_stays() {
        assert_eq!(code(r#"a "b \" // c" d"#), "a d");
        assert_eq!(code(r###"a r#"b " c"# d br"e" f"###), "a d f");
        assert_eq!(code("a \"é\\\\\" b"), "a b");
        assert_eq!(code("number\"x\" r#fn"), "number r#fn");
    }

    #[test]
    fn characters_go_and_lifetimes_stay() {
        assert_eq!(code(r"a '{' b '\'' c '\u{7d}' d 'é' e"), "a b c d e");
        assert_eq!(code("fn f<'a, 'b>(x: &'a u8)"), "fn f<'a, 'b>(x: &'a u8)");
        assert_eq!(code("b'\"' x"), "b x");
    }

    #[test]
    fn text_cut_off_in_the_middle_is_still_answered() {
        for text in ["\"abc", "r#\"abc", "/* abc", "'\\", "'", "\"\\"] {
            assert_eq!(kinds(text).len(), text.len());
        }
    }
}

//! Tokens of blanked Rust code: words, lifetimes, and single marks.

use super::text::is_identifier;

/// A word, a lifetime or one mark, and where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) at: usize,
    pub(super) text: &'a str,
}

/// The tokens of code whose comments and literals are blanked.
pub(super) fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at].is_ascii_whitespace() {
            at += 1;
            continue;
        }
        // The quote of a lifetime belongs to it, so `'await` is no `await`.
        let quote = usize::from(bytes[at] == b'\'');
        let word = bytes[at + quote..].iter().take_while(|b| is_identifier(**b)).count();
        let end = at + (quote + word).max(1);
        found.push(Token { at, text: &code[at..end] });
        at = end;
    }
    found
}

/// The text of the token at `index`, empty beyond the ends.
pub(super) fn text_at<'a>(tokens: &[Token<'a>], index: usize) -> &'a str {
    tokens.get(index).map_or("", |token| token.text)
}

/// Whether these texts stand at `index`.
pub(super) fn starts(tokens: &[Token<'_>], index: usize, texts: &[&str]) -> bool {
    texts.iter().enumerate().all(|(i, text)| text_at(tokens, index + i) == *text)
}

/// The index of the bracket that closes the one at `open`.
pub(super) fn closing(tokens: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether a word is an identifier rather than a number or a mark.
pub(super) fn is_word(text: &str) -> bool {
    text.bytes().next().is_some_and(|b| is_identifier(b) && !b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lifetimes_and_marks_come_apart() {
        let texts: Vec<&str> = tokens("f_1(&'a x)->é").iter().map(|t| t.text).collect();
        assert_eq!(texts, ["f_1", "(", "&", "'a", "x", ")", "-", ">", "é"]);
    }

    #[test]
    fn the_closing_bracket_is_the_matching_one() {
        let tokens = tokens("{ a ( b ) [ c ] } d");
        assert_eq!(closing(&tokens, 0), Some(8));
        assert_eq!(closing(&tokens, 2), Some(4));
        assert_eq!(closing(&tokens[..5], 0), None);
    }
}

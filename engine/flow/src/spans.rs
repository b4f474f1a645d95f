//! Where the bytes of a file are: in memory, in the store, or nowhere.
//!
//! Neighbours: `live`, whose [`Content`] it looks through; `namespace`, which
//! clones and measures by it. Promises: spans are in order, none overlaps
//! another, and what lies between them is a hole. Never: reads a byte of
//! content. Tested by `engine/flow/tests/ranges.rs` and
//! `tests/tests/ranges.rs`.

use crate::about::Whole;
use crate::error::Result;
use crate::live::{Below, Content, Stored};
use crate::overlay::Piece;
use std::collections::BTreeMap;
use warp_format::record::Extent;

/// Bytes that follow one another in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Where they begin in the file.
    pub(crate) at: u64,
    /// How many there are.
    pub(crate) len: u64,
    /// Where they lie in the store; `None`: they are in memory, or nothing
    /// says yet that they survive a crash.
    pub(crate) extent: Option<Extent>,
}

impl Span {
    fn end(&self) -> u64 {
        self.at + self.len
    }

    /// The part that lies in `from..to`, which must touch it.
    fn part(&self, from: u64, to: u64) -> Self {
        let (at, end) = (self.at.max(from), self.end().min(to));
        let extent = self.extent.map(|extent| {
            let start = extent.start + (at - self.at) as u32;
            Extent { start, len: (end - at) as u32, ..extent }
        });
        Self { at, len: end - at, extent }
    }
}

#[derive(Default)]
struct Spans(BTreeMap<u64, Span>);

impl Spans {
    /// Makes a hole of `from..to`.
    fn clear(&mut self, from: u64, to: u64) {
        let before = self.0.range(..from).next_back().map(|(at, _)| *at);
        let inside: Vec<u64> = self.0.range(from..to.max(from)).map(|(at, _)| *at).collect();
        for at in before.into_iter().chain(inside) {
            let Some(span) = self.0.get(&at).copied().filter(|span| span.end() > from) else {
                continue;
            };
            self.0.remove(&at);
            if span.at < from {
                self.0.insert(span.at, span.part(span.at, from));
            }
            if span.end() > to {
                self.0.insert(to, span.part(to, span.end()));
            }
        }
    }

    fn put(&mut self, span: Span) {
        self.clear(span.at, span.end());
        if span.len > 0 {
            self.0.insert(span.at, span);
        }
    }
}

impl Content {
    /// What there is between two offsets.
    pub(crate) fn spans(&self, from: u64, to: u64) -> Result<Vec<Span>> {
        let mut spans = Spans::default();
        let below = Below { file: self.file, base: self.base.as_deref() };
        match below.content(from, to)? {
            Stored::Inline(bytes) => {
                spans.put(Span { at: 0, len: bytes.len() as u64, extent: None });
            }
            Stored::Extents(extents) => {
                for (at, extent) in extents {
                    spans.put(Span { at, len: extent.len.into(), extent: Some(extent) });
                }
            }
        }
        for (at, extent) in &self.stashed {
            // In the store, but not for good.
            spans.put(Span { at: *at, len: extent.len.into(), extent: None });
        }
        for (at, piece) in self.pieces.iter() {
            let len = piece.len();
            match piece {
                Piece::Bytes(_) => spans.put(Span { at, len, extent: None }),
                Piece::Stored(extent) => spans.put(Span { at, len, extent: Some(*extent) }),
                Piece::Hole(_) => spans.clear(at, at.saturating_add(len)),
            }
        }
        let inside = spans.0.into_values().filter(|span| span.at < to && span.end() > from);
        Ok(inside.map(|span| span.part(from, to)).collect())
    }

    /// Where all of a file of this length lies; `None`: some of it is in
    /// memory, or nothing says yet that it survives a crash.
    pub(crate) fn whole(&self, size: u64) -> Result<Option<Whole>> {
        if self.pieces.iter().next().is_none() && self.stashed.is_empty() {
            let below = Below { file: self.file, base: self.base.as_deref() };
            return Ok(Some(match below.content(0, size)? {
                Stored::Inline(bytes) => Whole::Inline(bytes),
                Stored::Extents(extents) => Whole::Extents(extents),
            }));
        }
        let spans = self.spans(0, size)?;
        let extents = spans.into_iter().map(|span| Some((span.at, span.extent?)));
        Ok(extents.collect::<Option<_>>().map(Whole::Extents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_laid_over_others_leaves_what_it_does_not_cover() {
        let mut spans = Spans::default();
        let span = |at, len| Span { at, len, extent: None };
        spans.put(span(0, 10));
        spans.put(span(20, 10));
        spans.put(span(5, 20));
        spans.clear(7, 9);
        spans.clear(28, 40);
        spans.put(span(50, 0));
        let found: Vec<(u64, u64)> = spans.0.values().map(|span| (span.at, span.len)).collect();
        assert_eq!(found, [(0, 5), (5, 2), (9, 16), (25, 3)]);
    }
}

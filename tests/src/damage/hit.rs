//! Raw damage: flips, zeroed and overwritten ranges, cuts.

use super::Rng;
use super::map::{Archive, Holds};
use std::ops::Range;
use warp_format::archive::{FOOTER_LEN, FRAME_LEN, HEADER_LEN};

/// A damaged copy of an archive.
pub struct Hit {
    pub(super) bytes: Vec<u8>,
    /// What was done, for messages.
    pub what: String,
    /// Bytes that differ now, and from a cut on all.
    pub(super) ranges: Vec<Range<usize>>,
}

impl Hit {
    fn new(archive: &Archive, bytes: Vec<u8>, what: String) -> Self {
        let old = &archive.bytes;
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for at in (0..bytes.len()).filter(|at| bytes[*at] != old[*at]) {
            match ranges.last_mut() {
                Some(last) if last.end == at => last.end += 1,
                _ => ranges.push(at..at + 1),
            }
        }
        if bytes.len() < old.len() {
            ranges.push(bytes.len()..old.len());
        }
        Self { bytes, what, ranges }
    }
}

/// The n-th case of changed bytes.
pub fn raw(archive: &Archive, seed: u64, case: usize) -> Hit {
    let mut rng = Rng::new(seed, case);
    let mut bytes = archive.bytes.clone();
    let what = match case % 5 {
        0 => flip(&mut bytes, &mut rng, 0..archive.bytes.len()),
        1 | 2 => {
            let (name, range) = part(archive, &mut rng);
            format!("{name}: {}", flip(&mut bytes, &mut rng, range))
        }
        3 => {
            let range = span(&mut rng, bytes.len());
            bytes[range.clone()].fill(0);
            format!("zeroed {range:?}")
        }
        _ => {
            let range = span(&mut rng, bytes.len());
            // Noise, or a piece of the archive itself in the wrong place.
            if rng.below(2) == 0 {
                let noise = rng.bytes(range.len());
                bytes[range.clone()].copy_from_slice(&noise);
                format!("noise over {range:?}")
            } else {
                let from = rng.below(bytes.len() - range.len() + 1);
                bytes.copy_within(from..from + range.len(), range.start);
                format!("bytes from {from} over {range:?}")
            }
        }
    };
    Hit::new(archive, bytes, what)
}

fn flip(bytes: &mut [u8], rng: &mut Rng, range: Range<usize>) -> String {
    let places: Vec<(usize, u32)> = (0..1 + rng.below(8))
        .map(|_| (range.start + rng.below(range.len()), rng.below(8) as u32))
        .collect();
    for (at, bit) in &places {
        bytes[*at] ^= 1 << bit;
    }
    format!("flipped {places:?}")
}

/// 1 byte to 64 KiB, short ones as often as long ones.
fn span(rng: &mut Rng, len: usize) -> Range<usize> {
    let longest = 1 << rng.below(17);
    let count = 1 + rng.below(longest);
    let start = rng.below(len - count + 1);
    start..start + count
}

/// One part of the archive, so that the small ones are hit as often as data.
fn part(archive: &Archive, rng: &mut Rng) -> (&'static str, Range<usize>) {
    let len = archive.bytes.len();
    let piece = |rng: &mut Rng, want: fn(Holds) -> bool| {
        let all: Vec<_> = archive.pieces.iter().filter(|piece| want(piece.holds)).collect();
        all[rng.below(all.len())]
    };
    match rng.below(9) {
        0 => ("header", 0..HEADER_LEN),
        1 => ("version or suite", 8..10),
        2 => {
            let frame = piece(rng, |_| true).frame;
            ("frame", frame..frame + FRAME_LEN)
        }
        3 => ("leaf", piece(rng, |holds| matches!(holds, Holds::Leaf(_))).sealed()),
        4 => ("inner node", piece(rng, |holds| holds == Holds::Inner).sealed()),
        5 => ("data", piece(rng, |holds| holds == Holds::Data).sealed()),
        6 => {
            let sealed = piece(rng, |_| true).sealed();
            ("chunk header", sealed.start..sealed.start + 16)
        }
        7 => ("index", archive.index_at..len - FOOTER_LEN),
        _ => ("footer", len - FOOTER_LEN..len),
    }
}

/// The n-th case of a file that ends early.
pub fn cut(archive: &Archive, seed: u64, case: usize) -> Hit {
    let mut rng = Rng::new(seed, case);
    let len = archive.bytes.len();
    let piece = &archive.pieces[rng.below(archive.pieces.len())];
    let footer = len - FOOTER_LEN;
    let (why, at) = match case % 6 {
        0 | 1 => ("anywhere", rng.below(len)),
        2 => ("between records", piece.frame),
        3 => ("in a frame", piece.frame + rng.below(FRAME_LEN + 1)),
        4 => ("in a chunk", piece.frame + FRAME_LEN + rng.below(piece.sealed().len())),
        _ => {
            let marks = [0, 1, 8, 255, 256, 257, 272, archive.index_at, footer, len - 1];
            ("near a mark", (rng.pick(&marks) + rng.below(3)).min(len - 1))
        }
    };
    Hit::new(archive, archive.bytes[..at].to_vec(), format!("cut {why} to {at} bytes"))
}

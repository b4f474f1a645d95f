//! Edits of sealed chunks, frames, index, header and footer.

use super::Edit;
use crate::damage::fields::Job;
use crate::damage::map::Holds;
use warp_format::archive::IndexEntry;

pub(super) const EDITS: [Edit; 27] = [
    ("version of a chunk", |job| sealed_byte(job, 0, &[0, 2, 255])),
    ("suite of a chunk", |job| sealed_byte(job, 1, &[1, 2, 255])),
    ("kind of a chunk", |job| sealed_byte(job, 2, &[0, 1, 2, 3])),
    ("codec of a chunk", |job| sealed_byte(job, 3, &[0, 1, 2, 3])),
    ("length of a body", |job| sealed_number(job, 4)),
    ("plain length", |job| sealed_number(job, 8)),
    ("packed length", |job| sealed_number(job, 12)),
    ("flips in packed bytes", packed_flips),
    ("sealed chunk cut short", sealed_short),
    ("magic of a frame", |job| frame(job, 0)),
    ("length in a frame", |job| frame(job, 4)),
    ("check in a frame", |job| frame(job, 8)),
    ("offset in the index", |job| index(job, |entry, n| entry.offset = n)),
    ("length in the index", |job| index(job, |entry, n| entry.len = n as u32)),
    ("id in the index", |job| index(job, |entry, n| entry.prefix[15] ^= n as u8 | 1)),
    ("entry removed", |job| entries(job, remove)),
    ("entry doubled", |job| entries(job, |all, n| all.insert(n, all[n]))),
    ("entries change places", |job| entries(job, |all, n| all.swap(0, n))),
    ("root's id", |job| footer(job, 268, 1, false)),
    ("root's hash", |job| footer(job, 300, 1, false)),
    ("root's length", |job| footer(job, 332, 4, true)),
    ("root's epoch", |job| footer(job, 336, 4, true)),
    ("offset of the index", |job| footer(job, 340, 8, true)),
    ("count of the index", |job| footer(job, 348, 8, true)),
    ("hash of the index", |job| footer(job, 356, 1, false)),
    ("signature or padding of the footer", signature),
    ("header", header),
];

/// Numbers at which lengths break.
const LENGTHS: [u64; 12] = [
    0,
    1,
    7,
    8,
    600,
    4 << 20,
    (4 << 20) + 1,
    4_718_848,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 62,
    u64::MAX,
];

fn sealed(job: &mut Job<'_>, change: impl Fn(&mut Vec<u8>) + 'static) {
    job.container = true;
    // As often a leaf as data.
    let leaf = job.rng.below(2) == 0;
    let want = |holds: Holds| if leaf { holds != Holds::Data } else { holds == Holds::Data };
    let pieces = job.archive.pieces.iter().enumerate();
    let all: Vec<usize> = pieces.filter(|(_, p)| want(p.holds)).map(|(n, _)| n).collect();
    let number = job.rng.pick(&all);
    job.note = format!("{} (record {number}, {:?})", job.note, job.archive.pieces[number].holds);
    job.layout.sealed = Some((number, Box::new(change)));
}

fn sealed_byte(job: &mut Job<'_>, at: usize, of: &[u64]) {
    let to = job.number(of) as u8;
    sealed(job, move |bytes| bytes[at] = to);
}

fn sealed_number(job: &mut Job<'_>, at: usize) {
    let to = job.number(&LENGTHS) as u32;
    sealed(job, move |bytes| bytes[at..at + 4].copy_from_slice(&to.to_le_bytes()));
}

fn packed_flips(job: &mut Job<'_>) {
    let places: Vec<u64> = (0..1 + job.rng.below(4)).map(|_| job.rng.draw()).collect();
    // The flips may have made anything of it.
    job.host_may_refuse = true;
    sealed(job, move |bytes| {
        for place in &places {
            let at = 16 + *place as usize % (bytes.len() - 16);
            bytes[at] ^= 1 << (place >> 61);
        }
    });
}

fn sealed_short(job: &mut Job<'_>) {
    let to = job.number(&[0, 1, 7, 8, 15, 16, 17, 40]) as usize;
    sealed(job, move |bytes| bytes.truncate(to));
}

fn frame(job: &mut Job<'_>, at: usize) {
    job.container = true;
    let number = job.rng.below(job.archive.pieces.len());
    let to = job.number(&LENGTHS) as u32 ^ 0x5a;
    let change = move |bytes: &mut Vec<u8>| bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
    job.layout.frame = Some((number, Box::new(change)));
}

fn index(job: &mut Job<'_>, set: fn(&mut IndexEntry, u64)) {
    let old = job.archive.pieces[job.rng.below(job.archive.pieces.len())].sealed().start as u64;
    let to = job.number(&[&LENGTHS[..], &[old, old - 16, old + 1]].concat());
    entries(job, move |all, n| set(&mut all[n], to));
}

fn entries(job: &mut Job<'_>, change: impl Fn(&mut Vec<IndexEntry>, usize) + 'static) {
    job.container = true;
    job.tree_is_whole = true;
    let number = job.rng.below(job.archive.pieces.len());
    job.layout.index = Some(Box::new(move |all| change(all, number % all.len())));
}

/// Bytes of the footer: flipped, or a number.
fn footer(job: &mut Job<'_>, at: usize, len: usize, number: bool) {
    job.container = true;
    job.tree_is_whole = true;
    let to = if number { job.number(&LENGTHS) } else { 0 };
    job.layout.footer = Some(Box::new(move |bytes| {
        if number {
            bytes[at..at + len].copy_from_slice(&to.to_le_bytes()[..len]);
        } else {
            bytes[at + 5] ^= 0x40;
        }
    }));
}

fn signature(job: &mut Job<'_>) {
    job.container = true;
    job.tree_is_whole = true;
    let (at, to) = job.rng.pick(&[(8, 1), (8, 200), (9, 1), (9, 2), (10, 1), (390, 1), (500, 1)]);
    job.note = format!("{}: byte {at} to {to}", job.note);
    job.layout.footer = Some(Box::new(move |bytes| bytes[at] = to));
}

/// Version, suite, and a slot that asks for more than anybody has.
fn header(job: &mut Job<'_>) {
    job.container = true;
    let cost = job.rng.pick(&[0u32, 64, 65_536, (1 << 20) + 1, u32::MAX]);
    let (at, to) =
        job.rng.pick(&[(8, 1), (8, 255), (9, 1), (9, 1), (9, 1), (9, 2), (10, 1), (60, 1)]);
    job.note = format!("{}: byte {at} to {to}, cost {cost} KiB", job.note);
    job.layout.header = Some(Box::new(move |bytes| {
        bytes[at] = to;
        if at == 9 {
            bytes[12..16].copy_from_slice(&cost.to_le_bytes());
            bytes[16..20].copy_from_slice(&3u32.to_le_bytes());
            bytes[20..24].copy_from_slice(&4u32.to_le_bytes());
        }
    }));
}

fn remove(all: &mut Vec<IndexEntry>, n: usize) {
    all.remove(n);
}

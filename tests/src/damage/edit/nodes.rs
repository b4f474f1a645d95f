//! Edits of tree nodes: plain bytes of any, children of inner ones.

use super::Edit;
use crate::damage::fields::Job;
use crate::damage::map::Holds;
use crate::damage::rewrite::{Change, Inner, put_varint};

pub(super) const EDITS: [Edit; 22] = [
    ("level byte", level),
    ("count of entries", count),
    ("flips in a node", flips),
    ("node cut short", short),
    ("bytes after a node", |job| node(job, Box::new(|bytes| bytes.extend_from_slice(&[0; 3])))),
    ("noise for a node", noise),
    ("empty node", |job| node(job, Box::new(|bytes| *bytes = vec![0, 0]))),
    ("empty inner node", |job| node(job, Box::new(|bytes| *bytes = vec![1, 0]))),
    ("node of 600 KiB", |job| node(job, Box::new(|bytes| bytes.resize(600 << 10, 0)))),
    ("records below a child", records),
    ("hash of a child", |job| inner(job, |node, n| node.children[n].hash[7] ^= 1)),
    ("id of a child", |job| inner(job, |node, n| node.children[n].id[7] ^= 1)),
    ("child is another", other_child),
    ("first key of a child", |job| inner(job, |node, n| node.children[n].key[14] ^= 1)),
    ("children change places", |job| inner(job, |node, n| node.children.swap(0, n))),
    ("child doubled", child_doubled),
    ("child removed", child_removed),
    ("length of a child", child_length),
    ("level of an inner node", inner_level),
    ("child is data", child_is_data),
    ("levels over the root", levels),
    ("narrow nodes", narrow),
];

fn node(job: &mut Job<'_>, change: Change<Vec<u8>>) {
    let number = job.rng.below(job.archive.leaves.len() + 1);
    job.note = format!("{} (node {number})", job.note);
    job.layout.node = Some((number, change));
}

fn level(job: &mut Job<'_>) {
    let level = job.number(&[0, 1, 2, 12, 13, 255]) as u8;
    node(job, Box::new(move |bytes| bytes[0] = level));
}

fn count(job: &mut Job<'_>) {
    let to = job.number(&[0, 1, 100, 1 << 20, 1 << 40, 1 << 63, u64::MAX]);
    let change = move |bytes: &mut Vec<u8>| {
        let end = 1 + bytes[1..].iter().position(|b| b & 0x80 == 0).unwrap_or(0);
        let mut new = vec![bytes[0]];
        put_varint(&mut new, to);
        new.extend_from_slice(&bytes[end + 1..]);
        *bytes = new;
    };
    node(job, Box::new(change));
}

fn flips(job: &mut Job<'_>) {
    let places: Vec<u64> = (0..1 + job.rng.below(5)).map(|_| job.rng.draw()).collect();
    let change = move |bytes: &mut Vec<u8>| {
        for place in &places {
            let at = *place as usize % bytes.len();
            bytes[at] ^= 1 << (place >> 61);
        }
    };
    // The flips may have made anything of it.
    job.host_may_refuse = true;
    node(job, Box::new(change));
}

fn short(job: &mut Job<'_>) {
    let by = job.number(&[1, 2, 30, 1000]) as usize;
    node(job, Box::new(move |bytes| bytes.truncate(bytes.len().saturating_sub(by))));
}

fn noise(job: &mut Job<'_>) {
    let len = job.number(&[0, 1, 2, 100, 60_000]) as usize;
    let noise = job.rng.bytes(len);
    node(job, Box::new(move |bytes| bytes.clone_from(&noise)));
}

/// Changes a child of an inner node, in a tree of two levels or of several.
fn inner(job: &mut Job<'_>, change: impl Fn(&mut Inner, usize) + 'static) {
    job.tree_is_whole = true;
    job.layout.fanout = job.rng.pick(&[2, 3, usize::MAX, usize::MAX]);
    let leaves = job.archive.leaves.len();
    let nodes = if job.layout.fanout > leaves { 1 } else { leaves.div_ceil(job.layout.fanout) };
    let (number, child) = (job.rng.below(nodes), job.rng.below(64));
    job.note = format!("{} (inner node {number}, fanout {})", job.note, job.layout.fanout);
    let change = move |node: &mut Inner| {
        let child = child % node.children.len();
        change(node, child);
    };
    job.layout.inner = Some((number, Box::new(change)));
}

fn records(job: &mut Job<'_>) {
    let to = job.number(&[0, 1, 1 << 40, u64::MAX]);
    inner(job, move |node, n| node.children[n].records = to);
}

fn other_child(job: &mut Job<'_>) {
    inner(job, |node, n| {
        let other = node.children[(n + 1) % node.children.len()].clone();
        let key = std::mem::replace(&mut node.children[n], other).key;
        node.children[n].key = key;
    });
}

fn child_doubled(job: &mut Job<'_>) {
    inner(job, |node, n| node.children.insert(n, node.children[n].clone()));
}

fn child_removed(job: &mut Job<'_>) {
    inner(job, |node, n| {
        node.children.remove(n);
    });
}

fn child_length(job: &mut Job<'_>) {
    let to = job.number(&[0, 1, 512 << 10, 4 << 20, (4 << 20) + 1, 1 << 40, u64::MAX]);
    let epoch = job.rng.pick(&[0, 0, 1, 1 << 32]);
    inner(job, move |node, n| {
        node.children[n].len = to;
        node.children[n].epoch = epoch;
    });
}

fn inner_level(job: &mut Job<'_>) {
    let level = job.number(&[0, 2, 3, 12, 13]) as u8;
    inner(job, move |node, _| node.level = level);
}

fn child_is_data(job: &mut Job<'_>) {
    let data: Vec<_> = job.archive.pieces.iter().filter(|p| p.holds == Holds::Data).collect();
    let id = data[job.rng.below(data.len())].id;
    let (hash, plain) = &job.archive.chunks[&id];
    let (hash, len) = (hash.0, plain.len() as u64);
    inner(job, move |node, n| {
        let child = &mut node.children[n];
        (child.id, child.hash, child.len) = (id.0, hash, len);
    });
}

/// More levels than there may be, and some that there may.
fn levels(job: &mut Job<'_>) {
    job.layout.extra_levels = job.number(&[1, 2, 11, 12, 20, 100]) as usize;
    job.tree_is_whole = true;
}

/// A tree cut otherwise is sound.
fn narrow(job: &mut Job<'_>) {
    job.layout.fanout = job.number(&[2, 3, 4]) as usize;
    job.tree_is_whole = true;
}

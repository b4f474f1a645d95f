//! Edits of names, links and whole records.

use super::Edit;
use crate::damage::fields::{At, Job, raw_dentry};
use crate::damage::rewrite::put_varint;
use warp_format::record::{FileType, Key, KeyKind, Record};
use warp_format::{FileId, NameHash};

pub(super) const EDITS: [Edit; 26] = [
    ("name under the old hash", |job| name(job, false)),
    ("name under its own hash", |job| name(job, true)),
    ("name of a neighbour", neighbour),
    ("file that a name leads to", leads_to),
    ("own directory as a file", cycle),
    ("type in a name", type_in_name),
    ("name in another directory", moved),
    ("second name of a directory", second_name),
    ("two names for each other's files", swapped),
    ("name below a file", below_a_file),
    ("flags of a name", |job| first_byte(job, |key| matches!(key.kind, KeyKind::Dentry(_)))),
    ("flags of an extent", |job| first_byte(job, |key| matches!(key.kind, KeyKind::Extent(_)))),
    ("directory of a link record", link_parent),
    ("hash in a link record", link_hash),
    ("one link record more", link_more),
    ("no link record", link_gone),
    ("summary", summary),
    ("no summary", summary_gone),
    ("record removed", removed),
    ("record doubled", doubled),
    ("neighbours change places", unordered),
    ("kind in a key", key_kind),
    ("file in a key", key_file),
    ("length of a key", key_length),
    ("noise in a value", value_noise),
    ("length of a value", value_length),
];

fn set_name(job: &mut Job<'_>, at: At, name: &[u8], rehash: bool) {
    let Record::Dentry(dentry) = job.record(at) else { return };
    let key = job.key(at);
    *job.value(at) = raw_dentry(&dentry.file.0, dentry.file_type.to_bits(), name);
    if rehash {
        let hash = job.archive.naming.name_hash(name);
        job.rekey(at, Key::new(key.file, KeyKind::Dentry(hash)).to_bytes());
    }
}

fn name(job: &mut Job<'_>, rehash: bool) {
    let (at, _) = job.dentry();
    let name = job.name();
    job.host_may_refuse = name.len() > 250;
    set_name(job, at, &name, rehash);
}

fn neighbour(job: &mut Job<'_>) {
    let (at, _) = job.dentry();
    let (_, other) = job.dentry();
    let rehash = job.rng.below(2) == 0;
    set_name(job, at, other.name.as_bytes(), rehash);
}

/// Lets a name lead elsewhere.
fn lead(job: &mut Job<'_>, at: At, file: FileId, file_type: u8) {
    let Record::Dentry(dentry) = job.record(at) else { return };
    job.note = format!("{} leads to {file}", job.note);
    *job.value(at) = raw_dentry(&file.0, file_type, dentry.name.as_bytes());
}

fn leads_to(job: &mut Job<'_>) {
    let (at, dentry) = job.dentry();
    let (_, other) = job.dentry();
    let (file, file_type) = match job.rng.below(5) {
        0 => (FileId::ROOT, FileType::Directory),
        1 => (FileId::META, dentry.file_type),
        2 => (FileId::from_ordinal(1 << 40), dentry.file_type),
        3 => (FileId([0xee; 16]), dentry.file_type),
        _ => (other.file, other.file_type),
    };
    lead(job, at, file, file_type.to_bits());
}

fn cycle(job: &mut Job<'_>) {
    let (at, _) = job.dentry();
    let dir = job.key(at).file;
    lead(job, at, dir, FileType::Directory.to_bits());
}

fn type_in_name(job: &mut Job<'_>) {
    let (at, dentry) = job.dentry();
    let bits = job.number(&[0, 1, 2, 4, 6, 8, 10, 12, 255]) as u8;
    lead(job, at, dentry.file, bits);
}

fn directory(job: &mut Job<'_>) -> FileId {
    let (at, _) = job.inode(|inode| inode.file_type() == FileType::Directory);
    job.key(at).file
}

fn moved(job: &mut Job<'_>) {
    let (at, dentry) = job.dentry();
    let to = directory(job);
    let hash = job.archive.naming.name_hash(dentry.name.as_bytes());
    job.rekey(at, Key::new(to, KeyKind::Dentry(hash)).to_bytes());
}

fn second_name(job: &mut Job<'_>) {
    let (dir, to) = (directory(job), directory(job));
    let hash = job.archive.naming.name_hash(b"second");
    let value = raw_dentry(&dir.0, FileType::Directory.to_bits(), b"second");
    job.insert(Key::new(to, KeyKind::Dentry(hash)).to_bytes(), value);
}

fn swapped(job: &mut Job<'_>) {
    let ((a, one), (b, two)) = (job.dentry(), job.dentry());
    lead(job, a, two.file, two.file_type.to_bits());
    lead(job, b, one.file, one.file_type.to_bits());
}

fn below_a_file(job: &mut Job<'_>) {
    let (at, _) = job.inode(|inode| inode.file_type() != FileType::Directory);
    let to = job.key(at).file;
    let (at, dentry) = job.dentry();
    let hash = job.archive.naming.name_hash(dentry.name.as_bytes());
    job.rekey(at, Key::new(to, KeyKind::Dentry(hash)).to_bytes());
}

fn first_byte(job: &mut Job<'_>, want: fn(&Key) -> bool) {
    let at = job.one(|key, _| want(key));
    job.value(at)[0] = job.number(&[1, 2, 3, 4, 0x80]) as u8;
}

fn link(job: &mut Job<'_>) -> (At, FileId, FileId, NameHash) {
    let at = job.one(|key, _| matches!(key.kind, KeyKind::Link(..)));
    let key = job.key(at);
    match key.kind {
        KeyKind::Link(parent, hash) => (at, key.file, parent, hash),
        _ => unreachable!("a link was asked for"),
    }
}

fn link_parent(job: &mut Job<'_>) {
    let (at, file, _, hash) = link(job);
    let parent = directory(job);
    job.rekey(at, Key::new(file, KeyKind::Link(parent, hash)).to_bytes());
}

fn link_hash(job: &mut Job<'_>) {
    let (at, file, parent, _) = link(job);
    let hash = NameHash(job.rng.bytes(16).try_into().expect("16 bytes"));
    job.rekey(at, Key::new(file, KeyKind::Link(parent, hash)).to_bytes());
}

fn link_more(job: &mut Job<'_>) {
    let (_, file, parent, _) = link(job);
    for _ in 0..1 + job.rng.below(300) {
        let hash = NameHash(job.rng.bytes(16).try_into().expect("16 bytes"));
        job.insert(Key::new(file, KeyKind::Link(parent, hash)).to_bytes(), vec![0]);
    }
}

fn link_gone(job: &mut Job<'_>) {
    let (_, file, ..) = link(job);
    let is_link = |key: &[u8]| key.starts_with(&file.0) && key[16] == 3;
    job.layout.leaves.iter_mut().for_each(|leaf| leaf.retain(|(key, _)| !is_link(key)));
}

fn summary(job: &mut Job<'_>) {
    let at = job.one(|key, _| key.kind == KeyKind::Meta);
    let mut value = vec![0];
    for _ in 0..4 {
        put_varint(&mut value, job.number(&[0, 1, 100, 1 << 40, u64::MAX]));
    }
    *job.value(at) = value;
}

fn summary_gone(job: &mut Job<'_>) {
    let (leaf, i) = job.one(|key, _| key.kind == KeyKind::Meta);
    job.layout.leaves[leaf].remove(i);
}

fn removed(job: &mut Job<'_>) {
    let (leaf, i) = job.one(|_, _| true);
    job.layout.leaves[leaf].remove(i);
}

fn doubled(job: &mut Job<'_>) {
    let (leaf, i) = job.one(|_, _| true);
    let entry = job.layout.leaves[leaf][i].clone();
    job.layout.leaves[leaf].insert(i, entry);
}

fn unordered(job: &mut Job<'_>) {
    let (leaf, i) = job.one(|_, _| true);
    let other = (i + 1) % job.layout.leaves[leaf].len();
    job.layout.leaves[leaf].swap(i, other);
}

/// Changes a key where it stands, in order or not.
fn key(job: &mut Job<'_>, change: impl Fn(&mut Vec<u8>)) {
    let (leaf, i) = job.one(|_, _| true);
    change(&mut job.layout.leaves[leaf][i].0);
}

fn key_kind(job: &mut Job<'_>) {
    let kind = job.number(&[0, 1, 2, 3, 4, 5, 6, 255]) as u8;
    key(job, |key| key[16] = kind);
}

fn key_file(job: &mut Job<'_>) {
    let byte = job.rng.below(16);
    key(job, |key| key[byte] = key[byte].wrapping_add(1));
}

fn key_length(job: &mut Job<'_>) {
    let len = job.number(&[0, 1, 16, 17, 25, 33, 49, 64, 65, 5000]) as usize;
    key(job, |key| key.resize(len, 0xff));
}

fn value_noise(job: &mut Job<'_>) {
    let at = job.one(|_, _| true);
    for _ in 0..1 + job.rng.below(4) {
        let noise = job.rng.draw();
        let value = job.value(at);
        let place = noise as usize % value.len();
        value[place] ^= 1 << (noise >> 61);
    }
    // The noise may have made anything of it.
    job.host_may_refuse = true;
}

fn value_length(job: &mut Job<'_>) {
    let at = job.one(|_, _| true);
    let old = job.value(at).len() as u64;
    let len = job.number(&[0, 1, old - 1, old + 1, 70_000]) as usize;
    job.value(at).resize(len, 0);
}

//! Edits of inodes, extents and attributes.

use super::Edit;
use crate::damage::fields::{Job, RawExtent, RawInode, extents, put_time, raw_xattr};
use crate::damage::rewrite::{put_bytes, put_varint};
use warp_format::FileId;
use warp_format::record::{Body, FileType, Inode, Key, KeyKind, Record};

pub(super) const EDITS: [Edit; 26] = [
    ("size", size),
    ("holes", holes),
    ("inline length", inline_length),
    ("inline or not", inline_or_not),
    ("permissions", |job| change(job, |raw, n| raw.permissions = n, &PERMISSIONS)),
    ("owner", |job| change(job, |raw, n| raw.uid = n, &OWNERS)),
    ("group", |job| change(job, |raw, n| raw.gid = n, &OWNERS)),
    ("seconds", seconds),
    ("nanoseconds", |job| change(job, |raw, n| raw.nanos = n, &NANOS)),
    ("times", times),
    ("version vector", versions),
    ("type of the inode", |job| change(job, |raw, n| raw.file_type = n as u8, &TYPES)),
    ("type of inode and name", retype),
    ("link target", target),
    ("flags of an inode", flags),
    ("deleted inode", deleted),
    ("start of an extent", |job| extent(job, |raw, n| raw.start = n)),
    ("length of an extent", |job| extent(job, |raw, n| raw.len = n)),
    ("length of a chunk", |job| extent(job, |raw, n| raw.chunk_len = n)),
    ("epoch of a chunk", |job| extent(job, |raw, n| raw.epoch = n)),
    ("chunk id", chunk_id),
    ("chunk hash", chunk_hash),
    ("chunk of another file", other_chunk),
    ("offset of an extent", offset),
    ("value of an attribute", xattr_value),
    ("name of an attribute", xattr_name),
];

const PERMISSIONS: [u64; 6] = [0, 0o4777, 0o7777, 0o2711, 0o10000, u64::MAX];
const OWNERS: [u64; 5] = [0, 99, u32::MAX as u64, 1 << 32, u64::MAX];
const NANOS: [u64; 5] = [0, 999_999_999, 1_000_000_000, u32::MAX as u64, u64::MAX];
const TYPES: [u64; 10] = [0, 1, 2, 4, 6, 8, 10, 12, 15, 255];

/// Another number in any inode.
fn change(job: &mut Job<'_>, set: fn(&mut RawInode, u64), of: &[u64]) {
    let (at, inode) = job.inode(|_| true);
    let mut raw = RawInode::of(&inode);
    set(&mut raw, job.number(of));
    *job.value(at) = raw.encode();
}

fn in_extents(inode: &Inode) -> bool {
    matches!(inode.body, Body::Extents(_))
}

fn is_inline(inode: &Inode) -> bool {
    matches!(inode.body, Body::Inline(_))
}

fn size(job: &mut Job<'_>) {
    let (at, inode) = job.inode(in_extents);
    let Body::Extents(stored) = inode.body else { return };
    let old = inode.size;
    let huge = [1 << 45, 1 << 62, i64::MAX as u64];
    let size = job.number(&[0, 1, old - 1, old + 1, huge[0], huge[1], huge[2], 1 << 63, u64::MAX]);
    let honest = size.saturating_sub(stored);
    let holes = job.number(&[honest, honest, 0, old - stored]);
    job.host_may_refuse = size >= 1 << 40;
    let mut raw = RawInode::of(&inode);
    raw.body = extents(size, holes);
    *job.value(at) = raw.encode();
}

fn holes(job: &mut Job<'_>) {
    let (at, inode) = job.inode(in_extents);
    let holes = job.number(&[1, inode.size, inode.size + 1, 1 << 62, u64::MAX]);
    let mut raw = RawInode::of(&inode);
    raw.body = extents(inode.size, holes);
    *job.value(at) = raw.encode();
}

fn inline_length(job: &mut Job<'_>) {
    let (at, inode) = job.inode(is_inline);
    let Body::Inline(bytes) = &inode.body else { return };
    let size = job.number(&[inode.size + 1, inode.size / 2, 512, 513, 1 << 40, 1 << 62, u64::MAX]);
    let mut raw = RawInode::of(&inode);
    raw.body.clear();
    put_varint(&mut raw.body, size);
    raw.body.push(1);
    raw.body.extend_from_slice(bytes);
    *job.value(at) = raw.encode();
}

fn inline_or_not(job: &mut Job<'_>) {
    let (at, inode) = job.inode(|inode| in_extents(inode) || is_inline(inode));
    let mut raw = RawInode::of(&inode);
    let mut len = Vec::new();
    put_varint(&mut len, inode.size);
    raw.body[len.len()] = job.number(&[0, 1, 2, 255]) as u8;
    *job.value(at) = raw.encode();
}

fn seconds(job: &mut Job<'_>) {
    job.host_may_refuse = true;
    let of = [i64::MIN as u64, i64::MAX as u64, 0, 1 << 40, -1i64 as u64];
    change(job, |raw, n| raw.secs = n as i64, &of);
}

fn times(job: &mut Job<'_>) {
    let (at, inode) = job.inode(|_| true);
    let mut raw = RawInode::of(&inode);
    raw.present = job.number(&[1, 2, 4, 7, 8, 255]) as u8;
    for _ in 0..job.number(&[0, 1, 2, 3]) {
        put_time(&mut raw.times, -5, 7);
    }
    *job.value(at) = raw.encode();
}

fn versions(job: &mut Job<'_>) {
    let (at, inode) = job.inode(|_| true);
    let mut raw = RawInode::of(&inode);
    raw.versions.clear();
    let count = job.number(&[1, 1, 2, 4096, 4097, 1 << 40, u64::MAX]);
    put_varint(&mut raw.versions, count);
    for _ in 0..count.min(3) {
        raw.versions.extend_from_slice(b"a device");
        put_varint(&mut raw.versions, job.rng.pick(&[0, 1, u64::MAX]));
    }
    *job.value(at) = raw.encode();
}

/// An inode of another type, and all its names with it.
fn retype(job: &mut Job<'_>) {
    let (at, inode) = job.inode(|inode| inode.file_type() != FileType::Directory);
    let file = job.key(at).file;
    let mut raw = RawInode::of(&inode);
    raw.file_type = job.number(&[1, 2, 4, 6, 10, 12]) as u8;
    raw.body.clear();
    match raw.file_type {
        2 | 6 => {
            let number = job.number(&[0, 0x0107, 0xfff_ffff, 1 << 40, u64::MAX]);
            put_varint(&mut raw.body, number);
            job.host_may_refuse = true;
        }
        // Without a link count it is none.
        4 if job.rng.below(4) > 0 => put_varint(&mut raw.body, job.number(&[1, 2, 77])),
        10 => put_bytes(&mut raw.body, job.outside.as_os_str().as_encoded_bytes()),
        _ => {}
    }
    // Attributes stay, and not every type may have them.
    let has = |key: &Key, _: &Record| key.file == file && matches!(key.kind, KeyKind::Xattr(_));
    job.host_may_refuse |= !job.all(has).is_empty();
    let names = job.all(|_, record| matches!(record, Record::Dentry(d) if d.file == file));
    *job.value(at) = raw.encode();
    for at in names {
        job.value(at)[17] = raw.file_type;
    }
}

fn target(job: &mut Job<'_>) {
    let (at, inode) = job.inode(|inode| matches!(inode.body, Body::Symlink(_)));
    let outside = job.outside.clone().into_os_string().into_encoded_bytes();
    let target = match job.rng.below(7) {
        0 => outside,
        1 => b"../../../../../../../etc/passwd".to_vec(),
        2 => Vec::new(),
        3 => b"a\0b".to_vec(),
        4 => vec![b'/'; 4095],
        5 => vec![b't'; 4096],
        _ => vec![b't'; 100_000],
    };
    job.host_may_refuse = target.len() > 4000;
    job.note = format!("{} to {} bytes", job.note, target.len());
    let mut raw = RawInode::of(&inode);
    raw.body.clear();
    put_bytes(&mut raw.body, &target);
    *job.value(at) = raw.encode();
}

fn flags(job: &mut Job<'_>) {
    let (at, inode) = job.inode(|_| true);
    let mut raw = RawInode::of(&inode);
    let flags = job.number(&[1, 2, 3, 4, 0x80, 0xff]) as u8;
    raw.flags = vec![flags];
    if job.rng.below(2) == 0 {
        put_varint(&mut raw.flags, job.rng.pick(&[0, 1 << 60]));
        raw.flags.extend_from_slice(b"a device");
    }
    *job.value(at) = raw.encode();
}

fn deleted(job: &mut Job<'_>) {
    let (at, _) = job.inode(|_| true);
    *job.value(at) = vec![2];
}

fn extent(job: &mut Job<'_>, set: fn(&mut RawExtent, u64)) {
    let (at, extent) = job.extent();
    let len = u64::from(extent.len);
    let of = [0, 1, len - 1, len + 1, 4 << 20, (4 << 20) + 1, u32::MAX.into(), 1 << 32, u64::MAX];
    let mut raw = RawExtent::of(&extent);
    set(&mut raw, job.number(&of));
    *job.value(at) = raw.encode();
}

fn chunk_id(job: &mut Job<'_>) {
    let (at, extent) = job.extent();
    let mut raw = RawExtent::of(&extent);
    raw.id = match job.rng.below(3) {
        0 => job.archive.pieces[job.rng.below(job.archive.pieces.len())].id.0,
        1 => [0xff; 32],
        _ => job.rng.bytes(32).try_into().expect("32 bytes"),
    };
    *job.value(at) = raw.encode();
}

fn chunk_hash(job: &mut Job<'_>) {
    let (at, extent) = job.extent();
    let mut raw = RawExtent::of(&extent);
    raw.hash[job.rng.below(32)] ^= 1 << job.rng.below(8);
    *job.value(at) = raw.encode();
}

/// A whole reference to what another file has: sound, if it is long enough.
fn other_chunk(job: &mut Job<'_>) {
    let (at, extent) = job.extent();
    let (_, other) = job.extent();
    let mut raw = RawExtent::of(&other);
    (raw.start, raw.len) = (extent.start.into(), extent.len.into());
    *job.value(at) = raw.encode();
}

fn offset(job: &mut Job<'_>) {
    let (at, extent) = job.extent();
    let key = job.key(at);
    let KeyKind::Extent(old) = key.kind else { return };
    let to =
        job.number(&[0, old + 1, old.wrapping_sub(1), u64::from(extent.len), 1 << 62, u64::MAX]);
    job.rekey(at, Key::new(key.file, KeyKind::Extent(to)).to_bytes());
}

fn xattr_value(job: &mut Job<'_>) {
    let (at, xattr) = job.xattr();
    let len = job.number(&[0, 1, 60_000, 65_536, 65_537, 200_000]) as usize;
    job.host_may_refuse = len > 1000;
    *job.value(at) = raw_xattr(&xattr.name, &vec![b'v'; len]);
}

fn xattr_name(job: &mut Job<'_>) {
    let (at, xattr) = job.xattr();
    job.host_may_refuse = true;
    let long = [b"user.".as_slice(), &[b'n'; 251]].concat();
    let names: [&[u8]; 10] = [
        b"user.ok",
        b"security.capability",
        b"security.evil",
        b"trusted.evil",
        b"system.posix_acl_access",
        b"no prefix",
        b"",
        b"user.\0",
        &long[..255],
        &long,
    ];
    let name = names[job.rng.below(names.len())];
    job.note = format!("{} to {:?}", job.note, String::from_utf8_lossy(name));
    *job.value(at) = raw_xattr(name, &xattr.value);
    let file = match job.rng.below(4) {
        // On whatever else there is: links and directories too.
        0 => FileId::from_ordinal(job.rng.below(120) as u64),
        _ => job.key(at).file,
    };
    if job.rng.below(4) > 0 {
        let hash = job.archive.naming.name_hash(name);
        job.rekey(at, Key::new(file, KeyKind::Xattr(hash)).to_bytes());
    }
}

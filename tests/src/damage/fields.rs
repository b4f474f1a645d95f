//! Records that can be written with any value in any field.

use super::Rng;
use super::map::Archive;
use super::rewrite::{Layout, put_bytes, put_varint};
use std::path::PathBuf;
use warp_format::record::{Body, Dentry, Extent, Inode, Key, Record, Xattr};

/// Place of a record: leaf and entry.
pub(super) type At = (usize, usize);

/// One edit in the making.
pub(super) struct Job<'a> {
    pub(super) archive: &'a Archive,
    pub(super) rng: Rng,
    pub(super) layout: Layout,
    /// What was changed, for messages.
    pub(super) note: String,
    /// What is written may be more than the host's filesystem takes.
    pub(super) host_may_refuse: bool,
    /// Other parts than the tree were changed.
    pub(super) container: bool,
    /// All leaves and chunks are as they were.
    pub(super) tree_is_whole: bool,
    /// A directory outside the target.
    pub(super) outside: PathBuf,
}

impl Job<'_> {
    /// All records that are wanted.
    pub(super) fn all(&self, want: impl Fn(&Key, &Record) -> bool) -> Vec<At> {
        let leaves = self.layout.leaves.iter().enumerate();
        let places = leaves.flat_map(|(leaf, entries)| (0..entries.len()).map(move |i| (leaf, i)));
        places.filter(|at| want(&self.key(*at), &self.record(*at))).collect()
    }

    /// One of them.
    pub(super) fn one(&mut self, want: impl Fn(&Key, &Record) -> bool) -> At {
        let all = self.all(want);
        // The first of all is the root's, where there is one.
        let at = if self.rng.below(6) == 0 { all[0] } else { self.rng.pick(&all) };
        let Key { file, kind } = self.key(at);
        let file = file.ordinal().map_or("META".into(), |n| n.to_string());
        self.note = format!("{} of {file} {kind:?}", self.note);
        at
    }

    pub(super) fn inode(&mut self, want: fn(&Inode) -> bool) -> (At, Inode) {
        let at = self.one(|_, record| matches!(record, Record::Inode(inode) if want(inode)));
        match self.record(at) {
            Record::Inode(inode) => (at, inode),
            _ => unreachable!("an inode was asked for"),
        }
    }

    pub(super) fn extent(&mut self) -> (At, Extent) {
        let at = self.one(|_, record| matches!(record, Record::Extent(_)));
        match self.record(at) {
            Record::Extent(extent) => (at, extent),
            _ => unreachable!("an extent was asked for"),
        }
    }

    pub(super) fn dentry(&mut self) -> (At, Dentry) {
        let at = self.one(|_, record| matches!(record, Record::Dentry(_)));
        match self.record(at) {
            Record::Dentry(dentry) => (at, dentry),
            _ => unreachable!("a name was asked for"),
        }
    }

    pub(super) fn xattr(&mut self) -> (At, Xattr) {
        let at = self.one(|_, record| matches!(record, Record::Xattr(_)));
        match self.record(at) {
            Record::Xattr(xattr) => (at, xattr),
            _ => unreachable!("an attribute was asked for"),
        }
    }

    pub(super) fn key(&self, (leaf, i): At) -> Key {
        Key::decode(&self.layout.leaves[leaf][i].0).expect("not changed yet")
    }

    pub(super) fn record(&self, (leaf, i): At) -> Record {
        let (key, value) = &self.layout.leaves[leaf][i];
        let kind = Key::decode(key).expect("not changed yet").kind;
        Record::decode(kind, value).expect("not changed yet")
    }

    pub(super) fn value(&mut self, (leaf, i): At) -> &mut Vec<u8> {
        &mut self.layout.leaves[leaf][i].1
    }

    /// Files a record under another key, where that belongs.
    pub(super) fn rekey(&mut self, (leaf, i): At, key: Vec<u8>) {
        self.layout.leaves[leaf][i].0 = key;
        self.sort();
    }

    /// Adds a record where its key belongs.
    pub(super) fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.layout.leaves[0].push((key, value));
        self.sort();
    }

    /// Puts all records in order; the leaves keep their lengths.
    fn sort(&mut self) {
        let lens: Vec<usize> = self.layout.leaves.iter().map(Vec::len).collect();
        let mut all: Vec<_> = self.layout.leaves.drain(..).flatten().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut rest = all.into_iter();
        self.layout.leaves = lens.iter().map(|n| rest.by_ref().take(*n).collect()).collect();
    }

    /// One of these numbers, noted.
    pub(super) fn number(&mut self, of: &[u64]) -> u64 {
        let number = self.rng.pick(of);
        self.note = format!("{} to {number}", self.note);
        number
    }

    /// A name that no reader may take, or a rare one that it may.
    pub(super) fn name(&mut self) -> Vec<u8> {
        let long = |n| vec![b'n'; n];
        let outside = self.outside.join("evil").into_os_string().into_encoded_bytes();
        let name = match self.rng.below(14) {
            0 => b"..".to_vec(),
            1 => b".".to_vec(),
            2 => b"a/b".to_vec(),
            3 => b"../sentinel/evil".to_vec(),
            4 => outside,
            5 => Vec::new(),
            6 => b"x\0y".to_vec(),
            7 => long(256),
            8 => long(70_000),
            9 => long(255),
            10 => b"\x1b[31m\nerror: evil".to_vec(),
            11 => b"\xff\xfe not utf-8".to_vec(),
            12 => b"../..".to_vec(),
            _ => b"new name".to_vec(),
        };
        let shown = String::from_utf8_lossy(&name[..name.len().min(40)]);
        self.note = format!("{} to {shown:?} ({} bytes)", self.note, name.len());
        name
    }
}

/// An inode record, field by field.
pub(super) struct RawInode {
    pub(super) flags: Vec<u8>,
    pub(super) file_type: u8,
    pub(super) permissions: u64,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) secs: i64,
    pub(super) nanos: u64,
    pub(super) present: u8,
    pub(super) times: Vec<u8>,
    /// With their count.
    pub(super) versions: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl RawInode {
    pub(super) fn of(inode: &Inode) -> Self {
        let mut body = Vec::new();
        match &inode.body {
            Body::Extents(stored) => body = extents(inode.size, inode.size - stored),
            Body::Inline(bytes) => {
                put_varint(&mut body, inode.size);
                body.push(1);
                body.extend_from_slice(bytes);
            }
            Body::Symlink(target) => put_bytes(&mut body, target),
            Body::Device { number, .. } => put_varint(&mut body, *number),
            Body::Directory(links) => put_varint(&mut body, *links),
            Body::Fifo | Body::Socket => {}
        }
        Self {
            flags: vec![0],
            file_type: inode.file_type().to_bits(),
            permissions: inode.permissions.into(),
            uid: inode.uid.into(),
            gid: inode.gid.into(),
            secs: inode.mtime.secs,
            nanos: inode.mtime.nanos.into(),
            present: 0,
            times: Vec::new(),
            versions: vec![0],
            body,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.flags.clone();
        out.push(self.file_type);
        for number in [self.permissions, self.uid, self.gid] {
            put_varint(&mut out, number);
        }
        put_time(&mut out, self.secs, self.nanos);
        out.push(self.present);
        for part in [&self.times, &self.versions, &self.body] {
            out.extend_from_slice(part);
        }
        out
    }
}

/// The body of a regular file in extents.
pub(super) fn extents(size: u64, holes: u64) -> Vec<u8> {
    let mut body = Vec::new();
    put_varint(&mut body, size);
    body.push(0);
    put_varint(&mut body, holes);
    body
}

pub(super) fn put_time(out: &mut Vec<u8>, secs: i64, nanos: u64) {
    put_varint(out, ((secs << 1) ^ (secs >> 63)) as u64);
    put_varint(out, nanos);
}

/// An extent record, field by field.
pub(super) struct RawExtent {
    pub(super) id: [u8; 32],
    pub(super) hash: [u8; 32],
    pub(super) chunk_len: u64,
    pub(super) epoch: u64,
    pub(super) start: u64,
    pub(super) len: u64,
}

impl RawExtent {
    pub(super) fn of(extent: &Extent) -> Self {
        let Extent { chunk, start, len } = extent;
        Self {
            id: chunk.id.0,
            hash: chunk.hash.0,
            chunk_len: chunk.len.into(),
            epoch: chunk.epoch.into(),
            start: (*start).into(),
            len: (*len).into(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0];
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.hash);
        for number in [self.chunk_len, self.epoch, self.start, self.len] {
            put_varint(&mut out, number);
        }
        out
    }
}

/// A dentry record with any name.
pub(super) fn raw_dentry(file: &[u8; 16], file_type: u8, name: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(file);
    out.push(file_type);
    put_bytes(&mut out, name);
    out
}

/// An attribute record with any name and value.
pub(super) fn raw_xattr(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    put_bytes(&mut out, name);
    put_bytes(&mut out, value);
    out
}

//! Trees to test with: a store of sealed nodes, a directory of many files,
//! and the node table of docs/format.md written a second time.

use super::{packer, private_keys, sealers};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use warp_format::codec::{Packer, Unpacker};
use warp_format::record::{
    Body, Dentry, Extent, FileType, Inode, Key, KeyKind, Name, Record, Stamp, Time,
};
use warp_format::tree::{Builder, Child, Node, Walk};
use warp_format::{
    ChunkId, ChunkRef, ContentHash, FileId, FormatError, NamingKeys, PlainChunk, SealedChunk,
    Sealer,
};

/// Sealed nodes by id, and how to open them: what an archive or a store is.
pub(crate) struct Nodes {
    keys: NamingKeys,
    sealer: Sealer,
    packer: Packer,
    pub(crate) sealed: HashMap<ChunkId, SealedChunk>,
}

impl Nodes {
    pub(crate) fn new(level: u8) -> Self {
        let [_, sealer] = sealers();
        Self { keys: private_keys(), sealer, packer: packer(level), sealed: HashMap::new() }
    }

    pub(crate) fn build(&mut self, map: &BTreeMap<Key, Record>) -> ChunkRef {
        let Self { keys, sealer, packer, sealed } = self;
        let mut builder = Builder::new(keys, |chunk: PlainChunk| {
            let node = sealer.seal(&packer.pack(&chunk));
            let reference = sealer.reference(&node, chunk.hash(), chunk.bytes().len());
            sealed.insert(node.id(), node);
            Ok::<_, FormatError>(reference)
        });
        for (key, record) in map {
            builder.push(key, record).unwrap();
        }
        builder.finish().unwrap()
    }

    pub(crate) fn ids(&self) -> HashSet<ChunkId> {
        self.sealed.keys().copied().collect()
    }

    pub(crate) fn fetch(&self, want: &ChunkRef) -> Result<Arc<Node>, FormatError> {
        let sealed = &self.sealed[&want.id];
        Ok(Arc::new(self.sealer.open_node(&self.keys, &mut Unpacker::new(), want, sealed)?))
    }

    pub(crate) fn read_from(&self, root: &ChunkRef, from: &[u8]) -> Vec<(Key, Record)> {
        let mut walk = Walk::seek(root, from, |want| self.fetch(want)).unwrap();
        std::iter::from_fn(|| walk.next_record().unwrap()).collect()
    }
}

pub(crate) fn owned(map: &BTreeMap<Key, Record>) -> Vec<(Key, Record)> {
    map.iter().map(|(key, record)| (*key, record.clone())).collect()
}

pub(crate) fn plain_inode(n: u64, body: Body, size: u64) -> Inode {
    Inode {
        stamp: Stamp::NONE,
        permissions: 0o644,
        uid: 1000,
        gid: 1000,
        size,
        mtime: Time { secs: 1_700_000_000 + n as i64, nanos: 0 },
        ctime: None,
        atime: None,
        btime: None,
        versions: Vec::new(),
        body,
    }
}

/// A directory of `files` files of one extent each: four records a file.
pub(crate) fn directory(files: u64) -> BTreeMap<Key, Record> {
    let keys = private_keys();
    let mut map = BTreeMap::new();
    for n in 1..=files {
        let file = FileId::from_ordinal(n);
        let name = format!("file number {n}");
        let hash = keys.name_hash(name.as_bytes());
        let [id, content] =
            ["id", "content"].map(|what| *blake3::hash(format!("{what}{n}").as_bytes()).as_bytes());
        let len = 70_000 + n as u32 % 1000;
        let chunk = ChunkRef { id: ChunkId(id), hash: ContentHash(content), len, epoch: 0 };
        let inode = plain_inode(n, Body::Extents(len.into()), len.into());
        let dentry = Dentry {
            stamp: Stamp::NONE,
            name: Name::new(name.as_bytes()).unwrap(),
            file,
            file_type: FileType::Regular,
        };
        map.extend([
            (Key::new(file, KeyKind::Inode), Record::Inode(inode)),
            (Key::new(file, KeyKind::Link(FileId::ROOT, hash)), Record::Link(Stamp::NONE)),
            (Key::new(file, KeyKind::Extent(0)), Record::Extent(Extent { chunk, start: 0, len })),
            (Key::new(FileId::ROOT, KeyKind::Dentry(hash)), Record::Dentry(dentry)),
        ]);
    }
    map
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// One entry of a node: how much of the key is shared, the key, what follows.
pub(crate) struct Entry {
    pub(crate) shared: usize,
    pub(crate) key: Vec<u8>,
    pub(crate) rest: Vec<u8>,
}

impl Entry {
    pub(crate) fn leaf(last: &[u8], key: &[u8], value: &[u8]) -> Self {
        let mut rest = Vec::new();
        put_varint(&mut rest, value.len() as u64);
        rest.extend_from_slice(value);
        Self { shared: shared(last, key), key: key.to_vec(), rest }
    }

    pub(crate) fn inner(last: &[u8], key: &[u8], child: &Child) -> Self {
        let mut rest = [child.node.id.0, child.node.hash.0].concat();
        for number in [child.node.len.into(), child.node.epoch.into(), child.records] {
            put_varint(&mut rest, number);
        }
        Self { shared: shared(last, key), key: key.to_vec(), rest }
    }
}

pub(crate) fn shared(last: &[u8], key: &[u8]) -> usize {
    last.iter().zip(key).take_while(|(a, b)| a == b).count()
}

/// docs/format.md's node table, written a second time.
pub(crate) fn encode_entries(level: u8, entries: &[Entry]) -> Vec<u8> {
    let mut out = vec![level];
    put_varint(&mut out, entries.len() as u64);
    for Entry { shared, key, rest } in entries {
        put_varint(&mut out, *shared as u64);
        put_varint(&mut out, (key.len() - shared) as u64);
        out.extend_from_slice(&key[*shared..]);
        out.extend_from_slice(rest);
    }
    out
}

pub(crate) fn encode_node(node: &Node) -> Vec<u8> {
    let mut entries: Vec<Entry> = Vec::new();
    for i in 0..node.len() {
        let key = node.key_bytes(i).unwrap();
        let last = entries.last().map_or(&[][..], |entry| &entry.key);
        entries.push(match (node.value(i), node.child(i)) {
            (Some(value), _) => Entry::leaf(last, key, value),
            (None, child) => Entry::inner(last, key, child.unwrap()),
        });
    }
    encode_entries(node.level(), &entries)
}

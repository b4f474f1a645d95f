//! Writes an archive anew from parts that may have been changed, with every
//! hash around them made again.
//!
//! It knows no more of the format than docs/format.md tells, and takes bytes
//! where the product's own writer would refuse them.

use super::map::{Archive, Entries, Holds};
use warp_format::archive::{
    FOOTER_LEN, FOOTER_MAGIC, Frame, HEADER_LEN, INDEX_ENTRY_LEN, IndexEntry,
};
use warp_format::tree::Node;
use warp_format::{ChunkId, SealedChunk};

/// Changes something in place.
pub(super) type Change<T> = Box<dyn Fn(&mut T)>;

/// A child as an inner node names it.
#[derive(Debug, Clone)]
pub(super) struct Child {
    pub(super) key: Vec<u8>,
    pub(super) id: [u8; 32],
    pub(super) hash: [u8; 32],
    pub(super) len: u64,
    pub(super) epoch: u64,
    pub(super) records: u64,
}

/// An inner node on its way to bytes.
pub(super) struct Inner {
    pub(super) level: u8,
    pub(super) children: Vec<Child>,
}

/// What to write, and what to change on the way.
pub(super) struct Layout {
    /// Leaves in the order of the tree.
    pub(super) leaves: Vec<Entries>,
    /// Children of an inner node, at most.
    pub(super) fanout: usize,
    /// Inner nodes over a root that would do, each with one child.
    pub(super) extra_levels: usize,
    /// Plain bytes of the n-th node written.
    pub(super) node: Option<(usize, Change<Vec<u8>>)>,
    /// The n-th inner node.
    pub(super) inner: Option<(usize, Change<Inner>)>,
    /// Sealed bytes of the n-th record of the file.
    pub(super) sealed: Option<(usize, Change<Vec<u8>>)>,
    /// The frame of the n-th record of the file.
    pub(super) frame: Option<(usize, Change<Vec<u8>>)>,
    pub(super) index: Option<Change<Vec<IndexEntry>>>,
    /// Body and checksum of the header.
    pub(super) header: Option<Change<Vec<u8>>>,
    /// The footer without its checksum.
    pub(super) footer: Option<Change<Vec<u8>>>,
}

impl Layout {
    /// The archive as it is.
    pub(super) fn of(archive: &Archive) -> Self {
        Self {
            leaves: archive.leaves.clone(),
            fanout: usize::MAX,
            extra_levels: 0,
            node: None,
            inner: None,
            sealed: None,
            frame: None,
            index: None,
            header: None,
            footer: None,
        }
    }

    /// The file, and what it says.
    pub(super) fn write(&self, archive: &Archive) -> Written {
        let mut writer = Writer {
            layout: self,
            archive,
            out: Vec::new(),
            index: Vec::new(),
            nodes: Vec::new(),
            moved: Vec::new(),
        };
        let mut header = archive.bytes[..HEADER_LEN].to_vec();
        if let Some(change) = &self.header {
            header.truncate(HEADER_LEN - 32);
            change(&mut header);
            append_check(&mut header);
        }
        writer.out.extend_from_slice(&header);
        let mut children = Vec::new();
        for piece in &archive.pieces {
            match piece.holds {
                Holds::Data => {
                    let id = writer.put(archive.bytes[piece.sealed()].to_vec());
                    if id != piece.id {
                        writer.moved.push((piece.id, id));
                    }
                }
                Holds::Leaf(leaf) => children.extend(writer.leaf(&self.leaves[leaf])),
                Holds::Inner => {}
            }
        }
        let root = writer.grow(children);
        let mut tree = Vec::new();
        let tree = writer.gather(&root, None, &mut tree).map(|()| tree);
        let leaves = writer.leaves();
        Written { bytes: writer.finish(&header, &root), tree, leaves }
    }
}

/// A file that was written.
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    /// The records that the root leads to, or why it does not.
    pub(super) tree: Result<Entries, String>,
    /// The records of every leaf that decodes.
    pub(super) leaves: Entries,
}

struct Writer<'a> {
    layout: &'a Layout,
    archive: &'a Archive,
    out: Vec<u8>,
    index: Vec<IndexEntry>,
    /// Ids and plain bytes of the nodes.
    nodes: Vec<([u8; 32], Vec<u8>)>,
    /// Data chunks that have other ids now.
    moved: Vec<(ChunkId, ChunkId)>,
}

impl Writer<'_> {
    /// Appends a record; gives its chunk's id.
    fn put(&mut self, mut bytes: Vec<u8>) -> ChunkId {
        let number = self.index.len();
        if let Some((at, change)) = &self.layout.sealed
            && *at == number
        {
            change(&mut bytes);
        }
        let sealed = SealedChunk::found(bytes);
        let mut frame = Frame::of(&sealed).encode().to_vec();
        if let Some((at, change)) = &self.layout.frame
            && *at == number
        {
            change(&mut frame);
        }
        self.out.extend_from_slice(&frame);
        let len = sealed.bytes().len() as u32;
        self.index.push(IndexEntry::new(&sealed.id(), self.out.len() as u64, len));
        self.out.extend_from_slice(sealed.bytes());
        sealed.id()
    }

    /// A leaf whose extents point to where the chunks are now; `None` for one
    /// without records.
    fn leaf(&mut self, entries: &Entries) -> Option<Child> {
        let mut body = Vec::new();
        let mut last: &[u8] = &[];
        for (key, value) in entries {
            put_key(&mut body, last, key);
            last = key;
            let mut value = value.clone();
            // An extent: flags, then the id.
            if let (Some(4), Some(id)) = (key.get(16), value.get_mut(1..33))
                && let Some((_, new)) = self.moved.iter().find(|(old, _)| old.0 == *id)
            {
                id.copy_from_slice(&new.0);
            }
            put_varint(&mut body, value.len() as u64);
            body.extend_from_slice(&value);
        }
        let (first, _) = entries.first()?;
        Some(self.node(0, entries.len(), &body, first.clone(), entries.len() as u64))
    }

    fn node(&mut self, level: u8, count: usize, body: &[u8], key: Vec<u8>, records: u64) -> Child {
        let mut plain = vec![level];
        put_varint(&mut plain, count as u64);
        plain.extend_from_slice(body);
        if let Some((at, change)) = &self.layout.node
            && *at == self.nodes.len()
        {
            change(&mut plain);
        }
        // What does not decode is refused before its hash is looked at.
        let hash = Node::decode(plain.clone())
            .map_or([0; 32], |node| node.content_hash(&self.archive.naming).0);
        let id = self.put(stored(2, &plain)).0;
        let len = plain.len() as u64;
        self.nodes.push((id, plain));
        Child { key, id, hash, len, epoch: 0, records }
    }

    /// What lies below a node, if each node is what its parent says.
    fn gather(&self, child: &Child, above: Option<u8>, out: &mut Entries) -> Result<(), String> {
        let plain = self.nodes.iter().find(|(id, _)| *id == child.id);
        let (_, plain) = plain.ok_or("a node that is not there")?;
        let node = Node::decode(plain.clone()).map_err(|e| e.to_string())?;
        let right = plain.len() as u64 == child.len
            && node.content_hash(&self.archive.naming).0 == child.hash
            && above.is_none_or(|above| node.level() + 1 == above)
            && (above.is_none() || node.key_bytes(0) == Some(&child.key));
        if !right || u32::try_from(child.epoch).is_err() {
            return Err("a node that is not what its parent says".into());
        }
        let before = out.len();
        if node.level() == 0 {
            out.extend(entries(&node));
        }
        for n in 0..node.len() {
            let Some(below) = node.child(n) else { break };
            let below = Child {
                key: node.key_bytes(n).unwrap_or_default().to_vec(),
                id: below.node.id.0,
                hash: below.node.hash.0,
                len: below.node.len.into(),
                epoch: below.node.epoch.into(),
                records: below.records,
            };
            self.gather(&below, Some(node.level()), out)?;
        }
        let records = (out.len() - before) as u64;
        if above.is_none() || records == child.records {
            Ok(())
        } else {
            Err("another count of records".into())
        }
    }

    fn leaves(&self) -> Entries {
        let decoded = self.nodes.iter().filter_map(|(_, plain)| Node::decode(plain.clone()).ok());
        decoded.filter(|node| node.level() == 0).flat_map(|node| entries(&node)).collect()
    }

    /// Inner nodes up to the root.
    fn grow(&mut self, mut children: Vec<Child>) -> Child {
        let (mut level, mut inner) = (0, 0);
        let mut extra = self.layout.extra_levels;
        while children.len() > 1 || extra > 0 {
            if children.len() <= 1 {
                extra -= 1;
            }
            level += 1;
            let mut above = Vec::new();
            for group in children.chunks(self.layout.fanout.min(children.len())) {
                let mut node = Inner { level, children: group.to_vec() };
                if let Some((at, change)) = &self.layout.inner
                    && *at == inner
                {
                    change(&mut node);
                }
                inner += 1;
                above.push(self.inner(&node, &group[0].key));
            }
            children = above;
        }
        children.pop().unwrap_or_else(|| self.node(0, 0, &[], Vec::new(), 0))
    }

    fn inner(&mut self, node: &Inner, key: &[u8]) -> Child {
        let mut body = Vec::new();
        let mut last: &[u8] = &[];
        for child in &node.children {
            put_key(&mut body, last, &child.key);
            last = &child.key;
            body.extend_from_slice(&child.id);
            body.extend_from_slice(&child.hash);
            put_varint(&mut body, child.len);
            put_varint(&mut body, child.epoch);
            put_varint(&mut body, child.records);
        }
        let records = node.children.iter().fold(0u64, |sum, c| sum.wrapping_add(c.records));
        self.node(node.level, node.children.len(), &body, key.to_vec(), records)
    }

    fn finish(mut self, header: &[u8], root: &Child) -> Vec<u8> {
        let index_at = self.out.len() as u64;
        self.index.sort();
        if let Some(change) = &self.layout.index {
            change(&mut self.index);
        }
        let index: Vec<u8> = self.index.iter().flat_map(IndexEntry::encode).collect();
        let mut footer = FOOTER_MAGIC.to_vec();
        footer.extend_from_slice(&[1, 0, 0, 0]);
        footer.extend_from_slice(header);
        footer.extend_from_slice(&root.id);
        footer.extend_from_slice(&root.hash);
        footer.extend_from_slice(&(root.len as u32).to_le_bytes());
        footer.extend_from_slice(&0u32.to_le_bytes());
        footer.extend_from_slice(&index_at.to_le_bytes());
        footer.extend_from_slice(&((index.len() / INDEX_ENTRY_LEN) as u64).to_le_bytes());
        footer.extend_from_slice(&ChunkId::of(&index).0);
        footer.resize(FOOTER_LEN - 32, 0);
        if let Some(change) = &self.layout.footer {
            change(&mut footer);
        }
        append_check(&mut footer);
        self.out.extend_from_slice(&index);
        self.out.extend_from_slice(&footer);
        self.out
    }
}

fn entries(leaf: &Node) -> Entries {
    let bytes = |part: Option<&[u8]>| part.unwrap_or_default().to_vec();
    (0..leaf.len()).map(|i| (bytes(leaf.key_bytes(i)), bytes(leaf.value(i)))).collect()
}

/// Plain BLAKE3, which is what an id is too.
fn append_check(bytes: &mut Vec<u8>) {
    let check = ChunkId::of(bytes);
    bytes.extend_from_slice(&check.0);
}

/// A chunk of suite 0 that is not packed; kind 1 is data, 2 a node.
pub(super) fn stored(kind: u8, plain: &[u8]) -> Vec<u8> {
    let len = plain.len() as u32;
    let mut out = vec![1, 0, kind, 0];
    out.extend_from_slice(&(len + 8).to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(plain);
    out
}

fn put_key(out: &mut Vec<u8>, last: &[u8], key: &[u8]) {
    let shared = last.iter().zip(key).take_while(|(a, b)| a == b).count();
    put_varint(out, shared as u64);
    put_bytes(out, &key[shared..]);
}

/// LEB128.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A length and the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

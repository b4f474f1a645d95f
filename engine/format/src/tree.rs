//! Step *tree*: the ordered map as content-defined nodes.
//!
//! Neighbours: `record` gives keys and values; nodes are sealed as chunks of
//! their own kind. Promises: the same map has the same nodes (and the same
//! root hash) whoever built it and in whatever order; a node read has the map
//! that its parent names. Never: fetches (the caller's `fetch` does).
//! Tested by `tests/prop_tree.rs` and fuzz target `node`.
//!
//! A node ends after a key whose keyed hash falls below a threshold, once the
//! node is [`NODE_MIN_LEN`] long, and at the latest at [`NODE_MAX_LEN`]. The
//! hash that names a node covers its keys and values and, for inner nodes,
//! the hashes of its children but not their [`ChunkId`](crate::ChunkId)s: so equality of maps
//! does not depend on which compressor, level or epoch sealed them.

use crate::bytes::{Put, Reader};
use crate::chunk::{ChunkKind, PlainChunk};
use crate::error::{FormatError, Result};
use crate::id::{ContentHash, FileId};
use crate::keys::NamingKeys;
use crate::limits::{MAX_LEVEL, MAX_NODE_LEN};
use crate::record::{Key, Record};
use crate::seal::ChunkRef;
use std::ops::Range;
use std::sync::Arc;

/// Plain bytes below which no node ends by content.
pub const NODE_MIN_LEN: usize = 8 << 10;
/// Plain bytes (keys and values as they are, without prefix sharing) at which
/// a node ends whatever its keys.
pub const NODE_MAX_LEN: usize = 64 << 10;
/// After the minimum, one key in this many ends a leaf.
const LEAF_ONE_IN: u32 = 128;
/// After the minimum, one key in this many ends an inner node.
const INNER_ONE_IN: u32 = 64;

/// A child as its parent names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// The node's chunk.
    pub node: ChunkRef,
    /// Records in the leaves below it.
    pub records: u64,
}

enum Entries {
    /// Ranges of the values in `bytes`.
    Leaf(Vec<(u32, u32)>),
    Inner(Vec<Child>),
}

/// A decoded node.
pub struct Node {
    level: u8,
    bytes: Vec<u8>,
    keys: Vec<u8>,
    key_ends: Vec<u32>,
    entries: Entries,
}

impl Node {
    /// Decodes a node; whether it is the one that was asked for is
    /// [`Sealer::open_node`](crate::Sealer::open_node)'s to say.
    pub fn decode(bytes: Vec<u8>) -> Result<Self> {
        let at = "tree node";
        if bytes.len() > MAX_NODE_LEN {
            let (value, limit) = (bytes.len() as u64, MAX_NODE_LEN as u64);
            return Err(FormatError::Limit { at, value, limit });
        }
        let mut r = Reader::new(&bytes);
        let level = r.u8(at)?;
        let count = r.varint(at)?;
        // Each entry takes at least three bytes, so the bytes bound the count.
        if level > MAX_LEVEL || count > (r.remaining() / 3) as u64 || (count == 0 && level > 0) {
            return Err(FormatError::Invalid { at });
        }
        let count = count as usize;
        let mut keys = Vec::new();
        let mut key_ends: Vec<u32> = Vec::with_capacity(count);
        let mut values = Vec::new();
        let mut children = Vec::new();
        let mut last = 0..0;
        for _ in 0..count {
            let start = keys.len();
            read_key(&mut r, &mut keys, last)?;
            last = start..keys.len();
            key_ends.push(u32::try_from(keys.len()).map_err(|_| FormatError::Invalid { at })?);
            if level == 0 {
                let len = r.varint(at)?;
                if len > r.remaining() as u64 {
                    return Err(FormatError::Truncated { at });
                }
                let start = bytes.len() - r.remaining();
                r.take(len as usize, at)?;
                values.push((start as u32, (start + len as usize) as u32));
            } else {
                let child = Child { node: ChunkRef::decode(&mut r)?, records: r.varint(at)? };
                children.push(child);
            }
        }
        r.end(at)?;
        let entries = if level == 0 { Entries::Leaf(values) } else { Entries::Inner(children) };
        Ok(Self { level, bytes, keys, key_ends, entries })
    }

    /// 0 for a leaf.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Count of entries.
    pub fn len(&self) -> usize {
        self.key_ends.len()
    }

    /// True for the one node of an empty tree.
    pub fn is_empty(&self) -> bool {
        self.key_ends.is_empty()
    }

    /// Bytes that the node takes in memory.
    pub fn memory_len(&self) -> usize {
        let entries = match &self.entries {
            Entries::Leaf(values) => size_of_val(values.as_slice()),
            Entries::Inner(children) => size_of_val(children.as_slice()),
        };
        size_of::<Self>() + self.bytes.len() + self.keys.len() + 4 * self.key_ends.len() + entries
    }

    /// The `i`-th key.
    pub fn key_bytes(&self, i: usize) -> Option<&[u8]> {
        let end = *self.key_ends.get(i)? as usize;
        let start = match i.checked_sub(1) {
            Some(before) => *self.key_ends.get(before)? as usize,
            None => 0,
        };
        self.keys.get(start..end)
    }

    /// The `i`-th value of a leaf.
    pub fn value(&self, i: usize) -> Option<&[u8]> {
        match &self.entries {
            Entries::Leaf(values) => {
                let (start, end) = *values.get(i)?;
                self.bytes.get(start as usize..end as usize)
            }
            Entries::Inner(_) => None,
        }
    }

    /// The `i`-th child of an inner node.
    pub fn child(&self, i: usize) -> Option<&Child> {
        match &self.entries {
            Entries::Leaf(_) => None,
            Entries::Inner(children) => children.get(i),
        }
    }

    /// The child that can hold `key`; `None` in a leaf.
    pub fn child_for(&self, key: &[u8]) -> Option<&Child> {
        self.child(self.index_for(key))
    }

    /// Index of the last child whose first key is not above `key`.
    fn index_for(&self, key: &[u8]) -> usize {
        let index = self.lower_bound(key);
        let exact = self.key_bytes(index).is_some_and(|found| found == key);
        if exact { index } else { index.saturating_sub(1) }
    }

    /// The `i`-th record of a leaf.
    pub fn record(&self, i: usize) -> Option<Result<(Key, Record)>> {
        let (key, value) = (self.key_bytes(i)?, self.value(i)?);
        Some(Key::decode(key).and_then(|key| Ok((key, Record::decode(key.kind, value)?))))
    }

    /// Records in and below this node.
    fn records(&self) -> Option<u64> {
        match &self.entries {
            Entries::Leaf(values) => Some(values.len() as u64),
            Entries::Inner(children) => {
                children.iter().try_fold(0u64, |sum, child| sum.checked_add(child.records))
            }
        }
    }

    /// Index of the first key that is not below `key`.
    fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key_bytes(middle).is_some_and(|k| k < key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The hash that names the map in this node.
    pub fn content_hash(&self, keys: &NamingKeys) -> ContentHash {
        let mut hasher = NodeHasher::new(keys, self.level);
        for i in 0..self.len() {
            let key = self.key_bytes(i).unwrap_or_default();
            match (self.value(i), self.child(i)) {
                (Some(value), _) => hasher.leaf(key, value),
                (None, Some(child)) => hasher.inner(key, child),
                (None, None) => unreachable!("an entry is a value or a child"),
            }
        }
        hasher.finish()
    }
}

/// Appends the next key to `keys`, where the one before it is at `last`.
fn read_key(r: &mut Reader<'_>, keys: &mut Vec<u8>, last: Range<usize>) -> Result<()> {
    let at = "tree node key";
    let wrong = FormatError::Invalid { at };
    let shared = r.varint(at)?;
    if shared > last.len() as u64 {
        return Err(wrong);
    }
    let prefix = last.start..last.start + shared as usize;
    let suffix = r.bytes(64, at)?;
    let start = keys.len();
    // Shortest form and ascending order in one: where the keys part, the
    // byte of this one is the greater.
    let parts = keys.get(prefix.end..last.end).unwrap_or_default();
    let above = match (parts.first(), suffix.first()) {
        (Some(before), Some(now)) => now > before,
        (None, Some(_)) => true,
        (_, None) => false,
    };
    if !above {
        return Err(wrong);
    }
    keys.extend_from_within(prefix);
    keys.extend_from_slice(suffix);
    Key::decode(keys.get(start..).unwrap_or_default())?;
    Ok(())
}

/// Collects what a node's hash covers and hashes it in one go: BLAKE3 is
/// several times faster over one long input than over many short ones.
struct NodeHasher {
    hasher: blake3::Hasher,
    input: Vec<u8>,
}

impl NodeHasher {
    fn new(keys: &NamingKeys, level: u8) -> Self {
        Self { hasher: keys.node_hasher(), input: vec![level] }
    }

    fn long(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.input.extend_from_slice(bytes);
    }

    fn leaf(&mut self, key: &[u8], value: &[u8]) {
        self.long(key);
        self.long(value);
    }

    fn inner(&mut self, key: &[u8], child: &Child) {
        self.long(key);
        self.input.extend_from_slice(&child.node.hash.0);
        self.input.extend_from_slice(&child.records.to_le_bytes());
    }

    fn finish(mut self) -> ContentHash {
        ContentHash(*self.hasher.update(&self.input).finalize().as_bytes())
    }
}

/// A node that is being filled.
struct Open {
    level: u8,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
    body: Vec<u8>,
    /// Keys and values as they are: what the cut rule measures.
    raw_len: usize,
    count: u64,
    records: u64,
    hasher: NodeHasher,
}

impl Open {
    fn new(keys: &NamingKeys, level: u8) -> Self {
        Self {
            level,
            first_key: Vec::new(),
            last_key: Vec::new(),
            body: Vec::new(),
            raw_len: 0,
            count: 0,
            records: 0,
            hasher: NodeHasher::new(keys, level),
        }
    }

    fn put_key(&mut self, key: &[u8]) {
        let shared = self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count();
        self.body.put_varint(shared as u64);
        self.body.put_bytes(&key[shared..]);
        if self.count == 0 {
            self.first_key = key.to_vec();
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.count += 1;
        self.raw_len += key.len();
    }

    /// True if the node ends after the key just put.
    fn ends(&self, keys: &NamingKeys) -> bool {
        let one_in = if self.level == 0 { LEAF_ONE_IN } else { INNER_ONE_IN };
        self.raw_len >= NODE_MAX_LEN
            || (self.raw_len >= NODE_MIN_LEN
                && keys.node_cut(self.level, &self.last_key).is_multiple_of(one_in))
    }

    fn close(self) -> (Vec<u8>, u64, PlainChunk) {
        let mut bytes = Vec::with_capacity(self.body.len() + 11);
        bytes.push(self.level);
        bytes.put_varint(self.count);
        bytes.extend_from_slice(&self.body);
        assert!(bytes.len() <= MAX_NODE_LEN, "a node is within its limit");
        let chunk = PlainChunk { kind: ChunkKind::Node, hash: self.hasher.finish(), bytes };
        (self.first_key, self.records, chunk)
    }
}

/// Writes a tree from its records in order, a node at a time.
pub struct Builder<'a, F> {
    keys: &'a NamingKeys,
    /// Packs, seals and keeps a node; gives back its reference.
    emit: F,
    open: Vec<Open>,
    /// The last key put in, to check order across nodes.
    last_key: Vec<u8>,
    /// Nodes emitted on each level, and the last of them.
    emitted: Vec<(u64, Option<ChunkRef>)>,
}

impl<'a, E, F: FnMut(PlainChunk) -> Result<ChunkRef, E>> Builder<'a, F> {
    /// A builder that hands each finished node to `emit`.
    pub fn new(keys: &'a NamingKeys, emit: F) -> Self {
        Self { keys, emit, open: Vec::new(), last_key: Vec::new(), emitted: Vec::new() }
    }

    /// Adds a record.
    ///
    /// # Panics
    /// If the key is not above the one before it.
    pub fn push(&mut self, key: &Key, record: &Record) -> Result<(), E> {
        let mut bytes = Vec::with_capacity(64);
        key.encode(&mut bytes);
        self.level(0);
        assert!(bytes > self.last_key, "records come in key order");
        self.last_key.clone_from(&bytes);
        let node = &mut self.open[0];
        node.put_key(&bytes);
        let mut value = Vec::with_capacity(96);
        record.encode(&mut value);
        node.body.put_bytes(&value);
        node.raw_len += value.len();
        node.records += 1;
        node.hasher.leaf(&bytes, &value);
        if node.ends(self.keys) { self.close(0) } else { Ok(()) }
    }

    fn level(&mut self, level: usize) {
        while self.open.len() <= level {
            self.open.push(Open::new(self.keys, self.open.len() as u8));
            self.emitted.push((0, None));
        }
    }

    fn close(&mut self, level: usize) -> Result<(), E> {
        let fresh = Open::new(self.keys, level as u8);
        let (first_key, records, chunk) = std::mem::replace(&mut self.open[level], fresh).close();
        let node = (self.emit)(chunk)?;
        self.add_child(level, &first_key, Child { node, records })
    }

    /// Names a finished node of `level` in the level above.
    fn add_child(&mut self, level: usize, first_key: &[u8], child: Child) -> Result<(), E> {
        self.emitted[level].0 += 1;
        self.emitted[level].1 = Some(child.node);
        self.level(level + 1);
        let parent = &mut self.open[level + 1];
        parent.put_key(first_key);
        child.node.encode(&mut parent.body);
        parent.body.put_varint(child.records);
        // What a child adds to the measure does not depend on how long its
        // variable-length numbers are.
        parent.raw_len += 72;
        parent.records += child.records;
        parent.hasher.inner(first_key, &child);
        if parent.ends(self.keys) { self.close(level + 1) } else { Ok(()) }
    }

    /// True if the next record starts a leaf. A leaf of another tree that
    /// starts with that record is then the leaf that would be made here:
    /// where a leaf ends depends on what is in it only.
    pub fn at_boundary(&self) -> bool {
        self.open.first().is_none_or(|leaf| leaf.count == 0)
    }

    /// Adds a leaf of another tree as it is, by what its parent says of it.
    ///
    /// # Panics
    /// If it is not [at a boundary](Self::at_boundary) or out of order.
    pub fn reuse_leaf(&mut self, first_key: &[u8], child: &Child) -> Result<(), E> {
        self.level(0);
        assert!(self.at_boundary() && first_key > self.last_key.as_slice(), "whole, in order");
        self.last_key = first_key.to_vec();
        self.add_child(0, first_key, *child)
    }

    /// Adds a leaf that exists already: for putting inner nodes over the
    /// leaves that a damaged archive still has.
    ///
    /// # Panics
    /// If `leaf` is no leaf, is empty, or does not come after what was added.
    pub fn push_leaf(&mut self, node: ChunkRef, leaf: &Node) -> Result<(), E> {
        self.level(0);
        let first_key = leaf.key_bytes(0).expect("a leaf with records");
        assert!(leaf.level() == 0 && self.open[0].count == 0, "whole leaves only");
        assert!(first_key > self.last_key.as_slice(), "leaves come in key order");
        self.last_key = leaf.key_bytes(leaf.len() - 1).unwrap_or_default().to_vec();
        self.add_child(0, first_key, Child { node, records: leaf.len() as u64 })
    }

    /// Ends the tree and gives the reference of its root: the only node of
    /// the lowest level that has only one.
    pub fn finish(mut self) -> Result<ChunkRef, E> {
        self.level(0);
        let mut level = 0;
        loop {
            let (count, last) = self.emitted[level];
            match (count, last, self.open[level].count) {
                (1, Some(root), 0) => return Ok(root),
                (0, _, 0) | (_, _, 1..) => self.close(level)?,
                (_, _, 0) => {}
            }
            if let (1, Some(root)) = self.emitted[level] {
                return Ok(root);
            }
            level += 1;
        }
    }
}

/// Walks the records of a tree in key order.
pub struct Walk<F> {
    fetch: F,
    /// The way down.
    stack: Vec<Step>,
    /// The last key given, to check order across nodes.
    last_key: Vec<u8>,
}

/// A node on the way down.
struct Step {
    node: Arc<Node>,
    /// The next entry in it.
    index: usize,
    /// All its keys are below this one: the next key of a node above it.
    below: Option<Box<[u8]>>,
}

impl Step {
    /// Fetches the child at `index` and checks that it is what its parent
    /// says. `index` moves on only if that succeeds, so a caller may try
    /// again.
    fn descend<E: From<FormatError>>(
        &mut self,
        fetch: &mut impl FnMut(&ChunkRef) -> Result<Arc<Node>, E>,
    ) -> Result<Self, E> {
        let at = "tree node";
        let child = self.node.child(self.index).ok_or(FormatError::Invalid { at })?;
        let node = fetch(&child.node)?;
        let below = match self.node.key_bytes(self.index + 1) {
            Some(key) => Some(key.into()),
            None => self.below.clone(),
        };
        let last = node.key_bytes(node.len().wrapping_sub(1));
        let right = node.level() + 1 == self.node.level()
            && node.key_bytes(0) == self.node.key_bytes(self.index)
            && node.records() == Some(child.records)
            && below.as_deref().is_none_or(|below| last.is_some_and(|last| last < below));
        if !right {
            return Err(FormatError::Invalid { at }.into());
        }
        self.index += 1;
        Ok(Self { node, index: 0, below })
    }
}

impl<E: From<FormatError>, F: FnMut(&ChunkRef) -> Result<Arc<Node>, E>> Walk<F> {
    /// Starts at the first key that is not below `from`.
    pub fn seek(root: &ChunkRef, from: &[u8], mut fetch: F) -> Result<Self, E> {
        let mut step = Step { node: fetch(root)?, index: 0, below: None };
        let mut stack = Vec::with_capacity(4);
        while step.node.level() > 0 {
            step.index = step.node.index_for(from);
            let next = step.descend(&mut fetch)?;
            stack.push(step);
            step = next;
        }
        step.index = step.node.lower_bound(from);
        stack.push(step);
        Ok(Self { fetch, stack, last_key: Vec::new() })
    }

    /// Goes on to the first key that is not below `key`; never back. Within a
    /// leaf this costs a binary search and fetches nothing.
    pub fn seek_forward(&mut self, key: &[u8]) -> Result<(), E> {
        while let Some(step) = self.stack.last_mut() {
            if step.below.as_deref().is_some_and(|below| below <= key) {
                self.stack.pop();
            } else if step.node.level() == 0 {
                step.index = step.index.max(step.node.lower_bound(key));
                break;
            } else {
                step.index = step.index.max(step.node.index_for(key));
                if step.index >= step.node.len() {
                    self.stack.pop();
                    continue;
                }
                let next = step.descend(&mut self.fetch)?;
                self.stack.push(next);
            }
        }
        Ok(())
    }

    /// Comes to the next record's leaf; false at the end.
    fn settle(&mut self) -> Result<bool, E> {
        while let Some(step) = self.stack.last_mut() {
            if step.index >= step.node.len() {
                self.stack.pop();
            } else if step.node.level() > 0 {
                let next = step.descend(&mut self.fetch)?;
                self.stack.push(next);
            } else {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The key of the next record, without taking it.
    pub fn peek_key(&mut self) -> Result<Option<Key>, E> {
        if !self.settle()? {
            return Ok(None);
        }
        let key = self.stack.last().and_then(|step| step.node.key_bytes(step.index));
        Ok(key.map(Key::decode).transpose()?)
    }

    /// Steps over what could not be read or decoded.
    pub fn skip(&mut self) {
        if let Some(step) = self.stack.last_mut() {
            step.index += 1;
        }
    }

    /// The next record, `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<(Key, Record)>, E> {
        if !self.settle()? {
            return Ok(None);
        }
        let Some(step) = self.stack.last_mut() else { return Ok(None) };
        let key = step.node.key_bytes(step.index).unwrap_or_default();
        if key <= self.last_key.as_slice() {
            return Err(FormatError::Invalid { at: "tree order" }.into());
        }
        let record = step.node.record(step.index).transpose()?;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        step.index += 1;
        Ok(record)
    }
}

/// The key from which everything of an inode follows.
pub fn first_key_of(file: FileId) -> Vec<u8> {
    let mut key = file.0.to_vec();
    key.push(0);
    key
}

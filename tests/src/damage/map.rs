//! Where everything of an archive lies, and what each file needs of it.

use super::model::{Chunks, Model};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use warp_format::archive::{
    FOOTER_LEN, FRAME_LEN, Footer, HEADER_LEN, Header, INDEX_ENTRY_LEN, IndexEntry,
};
use warp_format::codec::Unpacker;
use warp_format::record::{Body, FileType, Key, KeyKind, Record};
use warp_format::tree::Node;
use warp_format::{
    ChunkId, ChunkKind, ContentSecret, FileId, NameHash, NamingKeys, SealedChunk, Sealer,
};

/// The passphrase of the sealed archive.
pub(super) const PASSPHRASE: &str = "correct horse battery staple";

/// What a sealed chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Data,
    /// The n-th leaf.
    Leaf(usize),
    Inner,
}

/// A record of the file: frame and sealed chunk.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) frame: usize,
    pub(super) end: usize,
    pub(super) id: ChunkId,
    pub(super) holds: Holds,
}

impl Piece {
    /// The sealed chunk without its frame.
    pub(super) fn sealed(&self) -> Range<usize> {
        self.frame + FRAME_LEN..self.end
    }
}

/// Keys and values as bytes.
pub(super) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Pieces that a path depends on, by number.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Its records and content.
    pub(super) own: BTreeSet<usize>,
    /// Its name, and names and records of the directories above it.
    pub(super) way: BTreeSet<usize>,
}

/// An archive and its map.
pub struct Archive {
    pub(super) bytes: Vec<u8>,
    pub(super) is_sealed: bool,
    pub(super) naming: NamingKeys,
    pub(super) index_at: usize,
    pub(super) pieces: Vec<Piece>,
    pub(super) leaves: Vec<Entries>,
    pub(super) chunks: Chunks,
    /// What its tree means.
    pub model: Model,
    pub(super) needs: BTreeMap<Vec<u8>, Needs>,
}

impl Archive {
    /// Reads an archive that is whole.
    ///
    /// # Panics
    /// If it is not.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("the archive");
        let footer_at = bytes.len() - FOOTER_LEN;
        let footer = Footer::decode(&bytes[footer_at..], bytes.len() as u64).expect("a footer");
        let (naming, sealer) = keys(&footer.header);
        let index_at = footer.index_at as usize;
        let mut archive = Self {
            is_sealed: footer.header.slot.is_some(),
            naming,
            index_at,
            pieces: Vec::new(),
            leaves: Vec::new(),
            chunks: HashMap::new(),
            model: Model::default(),
            needs: BTreeMap::new(),
            bytes,
        };
        archive.open_pieces(&sealer);
        let records = archive.leaves.iter().flatten().map(|(k, v)| (k.as_slice(), v.as_slice()));
        archive.model =
            Model::of(records, &archive.chunks, &archive.naming).expect("a tree that is whole");
        archive.find_needs();
        archive
    }

    fn open_pieces(&mut self, sealer: &Sealer) {
        let entries = self.bytes[self.index_at..self.bytes.len() - FOOTER_LEN]
            .as_chunks::<INDEX_ENTRY_LEN>()
            .0;
        let mut entries: Vec<IndexEntry> =
            entries.iter().map(|entry| IndexEntry::decode(entry).expect("an entry")).collect();
        entries.sort_by_key(|entry| entry.offset);
        let mut unpacker = Unpacker::new();
        let mut at = HEADER_LEN;
        for entry in entries {
            let start = entry.offset as usize;
            assert_eq!(start, at + FRAME_LEN, "no gaps");
            let end = start + entry.len as usize;
            let sealed = SealedChunk::found(self.bytes[start..end].to_vec());
            let (kind, plain) = sealer.open_any(&mut unpacker, &sealed).expect("a whole chunk");
            let holds = match kind {
                ChunkKind::Data => {
                    let hash = self.naming.content_hash(&plain);
                    self.chunks.insert(sealed.id(), (hash, Arc::new(plain)));
                    Holds::Data
                }
                ChunkKind::Node => self.node(&Node::decode(plain).expect("a whole node")),
            };
            self.pieces.push(Piece { frame: at, end, id: sealed.id(), holds });
            at = end;
        }
        assert_eq!(at, self.index_at, "the index comes after the last record");
    }

    fn node(&mut self, node: &Node) -> Holds {
        if node.level() > 0 {
            return Holds::Inner;
        }
        let entry = |i| {
            let key = node.key_bytes(i).expect("a key").to_vec();
            (key, node.value(i).expect("a value").to_vec())
        };
        self.leaves.push((0..node.len()).map(entry).collect());
        Holds::Leaf(self.leaves.len() - 1)
    }

    fn find_needs(&mut self) {
        let mut own: HashMap<FileId, BTreeSet<usize>> = HashMap::new();
        let mut names: HashMap<(FileId, NameHash), usize> = HashMap::new();
        let data: HashMap<ChunkId, usize> =
            self.pieces.iter().enumerate().map(|(n, piece)| (piece.id, n)).collect();
        for (number, piece) in self.pieces.iter().enumerate() {
            let Holds::Leaf(leaf) = piece.holds else { continue };
            for (key, value) in &self.leaves[leaf] {
                let key = Key::decode(key).expect("a key");
                if let KeyKind::Dentry(hash) = key.kind {
                    names.insert((key.file, hash), number);
                    continue;
                }
                let own = own.entry(key.file).or_default();
                own.insert(number);
                if let Ok(Record::Extent(extent)) = Record::decode(key.kind, value) {
                    own.insert(data[&extent.chunk.id]);
                }
            }
        }
        for (path, item) in &self.model.items {
            let mut needs = Needs { own: own[&item.file].clone(), way: BTreeSet::new() };
            let mut at = path.as_slice();
            while !at.is_empty() {
                let cut = at.iter().rposition(|b| *b == b'/');
                let (dir, name) = cut.map_or((&b""[..], at), |c| (&at[..c], &at[c + 1..]));
                let parent = self.model.items[dir].file;
                needs.way.insert(names[&(parent, self.naming.name_hash(name))]);
                needs.way.extend(&own[&parent]);
                at = dir;
            }
            self.needs.insert(path.clone(), needs);
        }
    }

    /// True if none of these pieces is touched by the damage.
    pub(super) fn whole(&self, pieces: &BTreeSet<usize>, damage: &[Range<usize>]) -> bool {
        pieces.iter().all(|number| {
            let piece = &self.pieces[*number];
            damage.iter().all(|hit| hit.end <= piece.frame || hit.start >= piece.end)
        })
    }

    /// True if both copies of the header are damaged.
    pub(super) fn headless(&self, damage: &[Range<usize>]) -> bool {
        let copy = self.bytes.len() - FOOTER_LEN;
        let touched = |from: usize, to: usize| damage.iter().any(|h| h.start < to && h.end > from);
        touched(0, HEADER_LEN) && touched(copy, self.bytes.len())
    }

    /// How the archive is made up, for the first line of a test's output.
    pub fn describe(&self) -> String {
        let inner = self.pieces.iter().filter(|p| p.holds == Holds::Inner).count();
        let regular = |b: &Body| matches!(b, Body::Inline(_) | Body::Extents(_));
        let files = self.model.items.values().filter(|item| regular(&item.inode.body)).count();
        let dirs = self.model.items.values();
        let dirs = dirs.filter(|item| item.inode.file_type() == FileType::Directory).count();
        format!(
            "{} bytes, {} leaves, {inner} inner nodes, {} data chunks, {files} names of files, {dirs} directories",
            self.bytes.len(),
            self.leaves.len(),
            self.chunks.len(),
        )
    }
}

fn keys(header: &Header) -> (NamingKeys, Sealer) {
    let Some(slot) = &header.slot else { return (NamingKeys::public(), Sealer::plain()) };
    let root = slot.unwrap(PASSPHRASE.as_bytes()).expect("the passphrase");
    (NamingKeys::derive(&root), Sealer::new(ContentSecret::derive(&root, 0), 0))
}

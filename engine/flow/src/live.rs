//! A portal's local state: a published tree, what has changed since, and the
//! journal that makes changes durable.
//!
//! Neighbours: `portal` above, which gives changes their meaning; `overlay`
//! for what has changed, `publish` for folding it into a new tree, `cache` for
//! store and journal. Promises: after `commit` returns, every change applied
//! before survives a power cut, whatever `publish` is doing; what was never
//! applied never appears; nobody waits for a publish. Never: writes a name, an
//! attribute or a byte of content to the disk unsealed.
//! Tested by `engine/flow/tests/model_live.rs` and `crash_live.rs`.

use crate::archive::{ReadKeys, TreeKeys};
use crate::asker;
use crate::error::{FlowError, Result};
use crate::ingest;
use crate::members::Membership;
use crate::overlay::{Layer, Layers, Piece, Pieces};
use crate::publish::{self, Publisher};
use crate::reader::{Attributes, Opened, TreeReader};
use crate::snapshots::Snapshots;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use warp_cache::disk::Disk;
use warp_cache::journal::{self, Journal, Nonces};
use warp_cache::store::{Class, PACK_LEN, Store};
use warp_format::change::{Change, decode_changes, encode_changes};
use warp_format::codec::{Level, Packer};
use warp_format::keys::SigningKey;
use warp_format::limits::{MAX_CHUNK_LEN, MAX_FILE_SIZE};
use warp_format::local::{LocalKey, MAX_ENTRY_LEN};
use warp_format::record::{Body, Dentry, Extent, Inode, Key, KeyKind, Record};
use warp_format::{
    ChunkId, ChunkRef, ContentSecret, FileId, FormatError, Head, NameHash, NamingKeys, PlainChunk,
    PortalId, Sealer, Secret,
};

/// Sealed changes that wait in memory before they are handed to the disk.
const QUEUE_LEN: usize = 4 << 20;
/// Bytes in one chunk of what is stashed.
const STASH_CHUNK_LEN: usize = 256 << 10;

/// What a portal's state on this device is sealed and signed with.
#[derive(Clone)]
pub struct PortalSecrets {
    /// The portal.
    pub portal: PortalId,
    /// Names, cuts and content derive from it.
    pub root: Secret,
    /// Seals the journal; the keys of dedup log and inode numbers derive from
    /// it.
    pub local: Secret,
    /// This device's signing key.
    pub device: Secret,
}

impl PortalSecrets {
    pub(crate) fn read_keys(&self) -> ReadKeys {
        let sealer = Sealer::new(ContentSecret::derive(&self.root, 0), 0);
        ReadKeys { naming: NamingKeys::derive(&self.root), sealer }
    }

    pub(crate) fn signing_key(&self) -> SigningKey {
        SigningKey::from_seed(&self.device)
    }
}

/// Fresh random bytes, drawn for each opening.
pub struct Fresh {
    /// No two openings seal with the same nonces.
    pub nonces: [u8; 16],
    /// First half of the ids of inodes made from now on: after a recovery, a
    /// clone or a rollback of this state, none is given twice.
    pub incarnation: [u8; 8],
}

impl Fresh {
    /// Nonces for one key.
    pub(crate) fn nonces(&self) -> Nonces {
        let mut nonce = [0; 24];
        nonce[..16].copy_from_slice(&self.nonces);
        let mut count = 0u64;
        Box::new(move || {
            count += 1;
            nonce[16..].copy_from_slice(&count.to_le_bytes());
            nonce
        })
    }
}

/// A published tree.
pub(crate) type Tree = TreeReader<Arc<Store>>;
/// The last one; `None` before the first.
pub(crate) type Base = Option<Arc<Tree>>;

/// What is shown: a tree, the layer that is being folded into the next, and
/// the layer that takes changes.
pub(crate) struct State {
    pub(crate) active: Layer,
    pub(crate) frozen: Option<Frozen>,
    pub(crate) base: Base,
    /// Inodes of this incarnation from this number on are not in `base`.
    pub(crate) base_ends: u64,
    /// The last head; `None` before the first.
    pub(crate) head: Option<Head>,
}

/// A layer that is being published.
#[derive(Clone)]
pub(crate) struct Frozen {
    pub(crate) layer: Arc<Layer>,
    /// Number of the journal file that holds its last change.
    pub(crate) journal: u64,
    /// Inodes of this incarnation from this number on are not in it.
    pub(crate) ends: u64,
}

impl State {
    fn layers(&self) -> Layers<'_> {
        Layers { active: &self.active, frozen: self.frozen.as_ref().map(|f| &*f.layer) }
    }
}

/// A portal's state, open for change; threads may share it. Who reads in
/// order to change must keep others from changing meanwhile.
pub struct Live {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) store: Arc<Store>,
    pub(crate) secrets: PortalSecrets,
    pub(crate) naming: NamingKeys,
    /// Of all its trees.
    pub(crate) keys: Arc<TreeKeys>,
    /// Records in the membership chain.
    membership: AtomicU64,
    pub(crate) journal: Journal,
    pub(crate) fresh: Fresh,
    /// Held while a change goes into the journal and into the active layer:
    /// both have the same order. Locked before `state`.
    pub(crate) order: Mutex<()>,
    state: RwLock<State>,
    publisher: Mutex<Publisher>,
    pub(crate) snapshots: Mutex<Snapshots>,
    /// All trees that somebody may still read: a sweep keeps what they name.
    trees: Mutex<Vec<Weak<Tree>>>,
    /// About how many bytes of the store nothing refers to any more.
    pub(crate) garbage: AtomicU64,
    next: AtomicU64,
    closed: AtomicBool,
}

impl Live {
    /// Opens the state on this disk, or starts one: the newest head, and on
    /// top of it whatever the journal holds.
    pub fn open(disk: Arc<dyn Disk>, secrets: PortalSecrets, fresh: Fresh) -> Result<Self> {
        Self::open_with(disk, secrets, fresh, PACK_LEN)
    }

    /// The same with packs of another length.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        secrets: PortalSecrets,
        fresh: Fresh,
        pack_len: u64,
    ) -> Result<Self> {
        let (store, _) = Store::open_with(Arc::clone(&disk), pack_len)?;
        let store = Arc::new(store);
        let head = publish::newest_head(&*disk, &secrets)?;
        let local = LocalKey::new(secrets.local.clone());
        let (journal, entries) =
            Journal::open(Arc::clone(&disk), journal::CHANGES, local, fresh.nonces())?;
        // Changes that a publish had folded already may come again (the power
        // went before their journal was removed): applied in order to what
        // they led to, they lead there again.
        let mut active = Layer::default();
        for entry in entries {
            for change in decode_changes(&entry)? {
                check_published(&change, head.as_ref())?;
                active.apply(change);
            }
        }
        let keys: Arc<TreeKeys> = secrets.read_keys().into();
        let base = head.as_ref().map(|head| {
            Arc::new(TreeReader::new(Arc::clone(&store), Arc::clone(&keys), head.root))
        });
        let trees = base.iter().map(Arc::downgrade).collect();
        let snapshots = Snapshots::open(&disk, &secrets.local, &fresh)?;
        let state = State { active, frozen: None, base, base_ends: 0, head };
        Ok(Self {
            naming: NamingKeys::derive(&secrets.root),
            keys,
            membership: AtomicU64::new(0),
            disk,
            store,
            secrets,
            journal,
            fresh,
            order: Mutex::default(),
            state: RwLock::new(state),
            publisher: Mutex::default(),
            snapshots: Mutex::new(snapshots),
            trees: Mutex::new(trees),
            garbage: AtomicU64::new(0),
            next: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    pub(crate) fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sequence number of the last head; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.read_state().head.as_ref().map_or(0, |head| head.sequence)
    }

    /// Bytes and changes that are in no published tree yet.
    pub fn unpublished(&self) -> (u64, u64) {
        let state = self.read_state();
        let frozen = state.frozen.as_ref().map_or((0, 0), |f| (f.layer.bytes, f.layer.changes));
        (state.active.bytes + frozen.0, state.active.changes + frozen.1)
    }

    /// The same of the layer that takes changes alone: what grows while
    /// another is being published.
    pub(crate) fn unfrozen(&self) -> (u64, u64) {
        let state = self.read_state();
        (state.active.bytes, state.active.changes)
    }

    /// How much is stored: chunks, and bytes of packs.
    pub fn stored(&self) -> (u64, u64) {
        let usage = self.store.usage(Class::Own);
        (usage.chunks as u64, usage.bytes)
    }

    /// An id that no inode had before.
    pub fn new_file(&self) -> FileId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.fresh.incarnation);
        id[8..].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        FileId(id)
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Makes changes, all of them or none: they are seen at once, and durable
    /// after the next [`Self::commit`]. Fails, with nothing changed, if the
    /// disk does not take what was changed before.
    pub fn apply(&self, changes: Vec<Change>) -> Result<()> {
        changes.iter().try_for_each(check)?;
        let entry = encode_changes(&changes);
        if entry.len() > MAX_ENTRY_LEN {
            let (value, limit) = (entry.len() as u64, MAX_ENTRY_LEN as u64);
            return Err(FormatError::Limit { at: "changes", value, limit }.into());
        }
        if self.journal.queued() > QUEUE_LEN || self.journal.is_stuck() {
            self.journal.flush()?;
        }
        let _order = self.in_order();
        if self.closed.load(Ordering::Acquire) {
            return Err(FlowError::Lost { what: "portal, which is closed," });
        }
        // Not before: this may have waited long for what holds the order, and
        // whoever was told so may have tried again behind it.
        asker::still_waits()?;
        self.journal.append(&entry);
        let mut state = self.write_state();
        changes.into_iter().for_each(|change| state.active.apply(change));
        Ok(())
    }

    pub(crate) fn in_order(&self) -> MutexGuard<'_, ()> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more changes: what is in the journal then is all there is.
    pub(crate) fn close(&self) {
        let _order = self.in_order();
        self.closed.store(true, Ordering::Release);
    }

    /// Makes every change so far durable.
    pub fn commit(&self) -> Result<()> {
        Ok(self.journal.commit()?)
    }

    /// True if something was applied and is not durable yet.
    pub fn is_dirty(&self) -> bool {
        self.journal.is_dirty()
    }

    /// Where the tree may know something of this inode.
    fn base_of(&self, state: &State, file: FileId) -> Base {
        let made_since = file.0[..8] == self.fresh.incarnation
            && file.0[8..] >= state.base_ends.to_be_bytes()[..];
        if made_since || state.layers().hide(file) { None } else { state.base.clone() }
    }

    /// The record under a key. Of a regular file's inode, the body does not
    /// say where its content lies.
    pub fn get(&self, key: &Key) -> Result<Option<Record>> {
        let base = {
            let state = self.read_state();
            if let Some(changed) = state.layers().get(key) {
                return Ok(changed.clone());
            }
            self.base_of(&state, key.file)
        };
        base.map_or(Ok(None), |base| base.exact(key))
    }

    /// All records of an inode between two keys, in order. Extents are not
    /// among them as they were changed.
    pub fn records_between(&self, from: Key, to: Key) -> Result<Vec<(Key, Record)>> {
        let (changed, base) = {
            let state = self.read_state();
            let changed: Vec<_> =
                state.layers().range(from, to).map(|(k, r)| (*k, r.clone())).collect();
            (changed, self.base_of(&state, from.file))
        };
        let mut merged: BTreeMap<Key, Record> = BTreeMap::new();
        if let Some(base) = base {
            base.each_record(from.file, &from, |key, record| {
                let inside = key <= to;
                if inside {
                    merged.insert(key, record);
                }
                Ok(inside)
            })?;
        }
        for (key, change) in changed {
            match change {
                Some(record) => merged.insert(key, record),
                None => merged.remove(&key),
            };
        }
        Ok(merged.into_iter().collect())
    }

    /// An inode and the count of its names; `None` if there is none.
    pub fn attributes(&self, file: FileId) -> Result<Option<Attributes>> {
        let last = KeyKind::Link(FileId::META, NameHash([0xff; 16]));
        let (from, to) = (Key::new(file, KeyKind::Inode), Key::new(file, last));
        let mut inode = None;
        let mut links = 0;
        for (key, record) in self.records_between(from, to)? {
            match record {
                Record::Inode(found) if key.kind == KeyKind::Inode => inode = Some(found),
                Record::Link(_) => links += 1,
                _ => {}
            }
        }
        Ok(inode.map(|inode| Attributes { inode, links }))
    }

    /// Up to `limit` (or a few more) entries of a directory whose name hash is
    /// above `after`, in order of those hashes.
    pub fn entries(
        &self,
        dir: FileId,
        after: Option<NameHash>,
        limit: usize,
    ) -> Result<Vec<(NameHash, Dentry)>> {
        let end = Key::new(dir, KeyKind::Dentry(NameHash([0xff; 16])));
        let mut after = after;
        loop {
            let from = Key::new(dir, KeyKind::Dentry(after.unwrap_or(NameHash([0; 16]))));
            let mut found: BTreeMap<NameHash, Option<Dentry>> = BTreeMap::new();
            let mut take = |key: &Key, record: Option<Record>| {
                if let KeyKind::Dentry(hash) = key.kind
                    && Some(hash) != after
                {
                    let dentry = record.and_then(|record| match record {
                        Record::Dentry(dentry) => Some(dentry),
                        _ => None,
                    });
                    found.insert(hash, dentry);
                }
                found.len()
            };
            let mut bound = end;
            // The tree first in time would need it to be the older one: both
            // are taken under one guard, and only then is the tree read.
            let (changed, base) = {
                let state = self.read_state();
                let mut changed = Vec::new();
                let mut present = 0;
                for (key, change) in state.layers().range(from, end) {
                    changed.push((*key, change.clone()));
                    present += usize::from(change.is_some());
                    if present > limit {
                        bound = *key;
                        break;
                    }
                }
                (changed, self.base_of(&state, dir))
            };
            if let Some(base) = base {
                base.each_record(dir, &from, |key, record| {
                    if key > bound {
                        return Ok(false);
                    }
                    if take(&key, Some(record)) > limit {
                        bound = key;
                        return Ok(false);
                    }
                    Ok(true)
                })?;
            }
            for (key, change) in changed {
                if key <= bound {
                    take(&key, change);
                }
            }
            let entries: Vec<_> =
                found.into_iter().filter_map(|(hash, dentry)| Some((hash, dentry?))).collect();
            // A step in which all was removed is not the end.
            if !entries.is_empty() || bound == end {
                return Ok(entries);
            }
            after = match bound.kind {
                KeyKind::Dentry(hash) => Some(hash),
                _ => return Ok(entries),
            };
        }
    }

    /// Where the content of a file is, as it stands now.
    pub(crate) fn content(&self, file: FileId) -> Content {
        self.content_between(file, 0, u64::MAX)
    }

    /// The same, of a range.
    fn content_between(&self, file: FileId, from: u64, to: u64) -> Content {
        self.content_in(&self.read_state(), file, from, to)
    }

    fn content_in(&self, state: &State, file: FileId, from: u64, to: u64) -> Content {
        let mut pieces = Pieces::default();
        for layer in state.layers().content(file) {
            pieces.lay_over(&layer.within(from, to));
        }
        Content { file, pieces, stashed: BTreeMap::new(), base: self.base_of(state, file) }
    }

    /// An inode and its content between two offsets, both as they are at one
    /// moment; `None` if there is none.
    pub(crate) fn file(
        &self,
        file: FileId,
        from: u64,
        to: u64,
    ) -> Result<Option<(Inode, Content)>> {
        let (changed, content) = {
            let state = self.read_state();
            let changed = state.layers().get(&Key::new(file, KeyKind::Inode)).cloned();
            (changed, self.content_in(&state, file, from, to))
        };
        let inode = match changed {
            Some(Some(Record::Inode(inode))) => Some(inode),
            Some(_) => None,
            None => Below { file, base: content.base.as_deref() }.inode()?,
        };
        Ok(inode.map(|inode| (inode, content)))
    }

    /// True if some of what was written of a file is in no tree yet.
    pub(crate) fn holds_bytes(&self, file: FileId) -> bool {
        self.read_state().layers().content(file).any(|pieces| pieces.bytes() > 0)
    }

    /// Bytes of a file: `len` of them from `offset`, zeros where nothing was
    /// written. Its length is for the caller to know.
    pub fn read(&self, file: FileId, offset: u64, len: usize) -> Result<Vec<u8>> {
        let end = offset.saturating_add(len as u64);
        self.content_between(file, offset, end).read(self, offset, len)
    }

    /// The chunks that changes name which are in no tree yet.
    pub(crate) fn referenced_chunks(&self) -> Vec<ChunkId> {
        let state = self.read_state();
        let frozen = state.frozen.iter().flat_map(|frozen| frozen.layer.chunks());
        state.active.chunks().chain(frozen).collect()
    }

    /// Opens a chunk that no tree names.
    fn open_chunk(&self, chunk: &ChunkRef) -> Result<Opened> {
        let base = self.read_state().base.clone();
        match base {
            Some(base) => base.chunk(chunk),
            None => {
                let keys = Arc::clone(&self.keys);
                TreeReader::new(Arc::clone(&self.store), keys, *chunk).chunk(chunk)
            }
        }
    }

    /// Folds every change into a new tree and a signed head, and lets go of
    /// the journal that held them. Changes may go on meanwhile; those made
    /// before the call are in the head.
    pub fn publish(&self) -> Result<Head> {
        publish::publish(self, &mut self.publisher())
    }

    /// The membership chain is so long now, and handed this device these
    /// secrets. When it returns, nothing that a head will name is sealed in an
    /// older epoch.
    pub fn take_membership(&self, now: &Membership) {
        // A publish seals all of its tree in one epoch, and one that is under
        // way took the old one before this was known. Its head comes before
        // this returns, so it is of before the removal; after it, none seals
        // in the old epoch.
        let _publisher = (now.epoch() > self.keys.sealer().epoch()).then(|| self.publisher());
        self.keys.take(&now.epochs);
        self.membership.fetch_max(now.position, Ordering::Relaxed);
    }

    /// The position in the membership chain that a head names.
    pub(crate) fn position(&self) -> u64 {
        self.membership.load(Ordering::Relaxed)
    }

    /// Whoever has it publishes, or keeps others from it.
    pub(crate) fn publisher(&self) -> MutexGuard<'_, Publisher> {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader of the tree with this root.
    pub(crate) fn tree_at(&self, root: ChunkRef) -> Tree {
        let base = self.read_state().base.clone();
        match base {
            Some(base) => base.at_root(root),
            None => TreeReader::new(Arc::clone(&self.store), Arc::clone(&self.keys), root),
        }
    }

    fn trees(&self) -> MutexGuard<'_, Vec<Weak<Tree>>> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a tree names for as long as somebody has it.
    pub(crate) fn register(&self, tree: Tree) -> Arc<Tree> {
        let tree = Arc::new(tree);
        let mut trees = self.trees();
        trees.retain(|tree| tree.strong_count() > 0);
        trees.push(Arc::downgrade(&tree));
        tree
    }

    /// All trees that somebody has.
    pub(crate) fn read_trees(&self) -> Vec<Arc<Tree>> {
        self.trees().iter().filter_map(Weak::upgrade).collect()
    }
}

/// A head that the journal says was durable must be there: what it holds is
/// in no journal any more.
fn check_published(change: &Change, head: Option<&Head>) -> Result<()> {
    match change {
        Change::Published(sequence) if head.is_none_or(|head| head.sequence < *sequence) => {
            Err(FlowError::Lost { what: "last head" })
        }
        _ => Ok(()),
    }
}

/// What the journal would not give back must not go in.
fn check(change: &Change) -> Result<()> {
    match change {
        Change::Put(key, record) => {
            Record::decode(key.kind, &record.to_bytes())?;
        }
        Change::Write { offset, bytes, .. }
            if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > MAX_FILE_SIZE) =>
        {
            return Err(FormatError::Invalid { at: "write" }.into());
        }
        Change::Clear { from, to, .. } if from > to => {
            return Err(FormatError::Invalid { at: "clear" }.into());
        }
        _ => {}
    }
    Ok(())
}

/// The content of one file at one moment: what was written, over what a tree
/// has. It stays readable when the file is gone.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) file: FileId,
    pub(crate) pieces: Pieces,
    /// Below `pieces`: what became too much for memory.
    pub(crate) stashed: BTreeMap<u64, Extent>,
    pub(crate) base: Base,
}

/// Content as a tree has it.
pub(crate) enum Stored {
    /// In the inode.
    Inline(Vec<u8>),
    /// In chunks: offset → extent, sorted.
    Extents(Vec<(u64, Extent)>),
}

/// One file in a tree.
#[derive(Clone, Copy)]
pub(crate) struct Below<'a> {
    pub(crate) file: FileId,
    pub(crate) base: Option<&'a TreeReader<Arc<Store>>>,
}

impl Below<'_> {
    /// The inode.
    pub(crate) fn inode(&self) -> Result<Option<Inode>> {
        let Some(base) = self.base else { return Ok(None) };
        Ok(match base.exact(&Key::new(self.file, KeyKind::Inode))? {
            Some(Record::Inode(inode)) => Some(inode),
            _ => None,
        })
    }

    /// Its content: all of it if it is in the inode, else the extents that
    /// touch `from..to`.
    pub(crate) fn content(&self, from: u64, to: u64) -> Result<Stored> {
        if let Some(inode) = self.inode()?
            && let Body::Inline(bytes) = inode.body
        {
            return Ok(Stored::Inline(bytes));
        }
        let Some(base) = self.base else { return Ok(Stored::Extents(Vec::new())) };
        // An extent is at most a chunk long.
        let first = KeyKind::Extent(from.saturating_sub(MAX_CHUNK_LEN as u64));
        let mut found = Vec::new();
        base.each_record(self.file, &Key::new(self.file, first), |at, record| {
            let (KeyKind::Extent(offset), Record::Extent(extent)) = (at.kind, record) else {
                return Ok(false);
            };
            if offset < to && offset + u64::from(extent.len) > from {
                found.push((offset, extent));
            }
            Ok(offset < to)
        })?;
        Ok(Stored::Extents(found))
    }

    pub(crate) fn chunk(&self, chunk: &ChunkRef) -> Result<Opened> {
        match self.base {
            Some(base) => base.chunk(chunk),
            None => Err(FormatError::Invalid { at: "extent" }.into()),
        }
    }

    /// Its bytes from `offset` on, with what was written since laid over;
    /// `open` gives what that names in the store.
    pub(crate) fn read(
        &self,
        pieces: &Pieces,
        (offset, len): (u64, usize),
        open: &dyn Fn(&ChunkRef) -> Result<Opened>,
    ) -> Result<Vec<u8>> {
        let mut out = vec![0; len];
        let end = offset.saturating_add(len as u64);
        if !pieces.covers(offset, end) {
            let mut copy = |at: u64, bytes: &[u8]| {
                let (from, to) = (at.max(offset), (at + bytes.len() as u64).min(end));
                if from < to {
                    let source = &bytes[(from - at) as usize..(to - at) as usize];
                    out[(from - offset) as usize..][..source.len()].copy_from_slice(source);
                }
            };
            match self.content(offset, end)? {
                Stored::Inline(bytes) => copy(0, &bytes),
                Stored::Extents(extents) => {
                    for (at, extent) in extents {
                        let chunk = self.chunk(&extent.chunk)?;
                        copy(at, &chunk[extent.start as usize..][..extent.len as usize]);
                    }
                }
            }
        }
        pieces.copy_to(offset, &mut out, open)?;
        Ok(out)
    }
}

impl Content {
    /// The part of it that a read of `from..to` needs.
    pub(crate) fn between(&self, from: u64, to: u64) -> Self {
        let first = from.saturating_sub(MAX_CHUNK_LEN as u64);
        let stashed = self.stashed.range(first..to).map(|(at, extent)| (*at, *extent)).collect();
        let (pieces, base) = (self.pieces.within(from, to), self.base.clone());
        Self { file: self.file, pieces, stashed, base }
    }

    /// Moves what was written from memory into the store. It lies there
    /// without a name: nothing but this finds it.
    pub(crate) fn stash(&mut self, live: &Live) -> Result<()> {
        let (sealer, mut packer) = (live.keys.sealer(), Packer::new(Level::FASTEST));
        let mut left = Pieces::default();
        for (at, piece) in self.pieces.iter() {
            let end = at + piece.len();
            let bytes = match piece {
                Piece::Hole(_) => {
                    left.clear(at, end);
                    continue;
                }
                Piece::Stored(extent) => {
                    ingest::cut(&mut self.stashed, at, end);
                    self.stashed.insert(at, *extent);
                    continue;
                }
                Piece::Bytes(bytes) => bytes,
            };
            ingest::cut(&mut self.stashed, at, end);
            for (i, part) in bytes.chunks(STASH_CHUNK_LEN).enumerate() {
                let plain = PlainChunk::data(&live.naming, part.to_vec());
                let sealed = sealer.seal(&packer.pack(&plain));
                live.store.put(&sealed, Class::Own)?;
                let chunk = sealer.reference(&sealed, plain.hash(), part.len());
                let extent = Extent { chunk, start: 0, len: part.len() as u32 };
                self.stashed.insert(at + (i * STASH_CHUNK_LEN) as u64, extent);
            }
        }
        // What was cleared hides what was stashed before.
        for (at, piece) in left.iter() {
            ingest::cut(&mut self.stashed, at, at + piece.len());
        }
        self.pieces = left;
        Ok(())
    }

    /// Needs no tree any more: where its content lies, it knows itself.
    pub(crate) fn detach(&mut self) -> Result<()> {
        let below = Below { file: self.file, base: self.base.as_deref() };
        match below.content(0, u64::MAX)? {
            Stored::Inline(bytes) => {
                let mut pieces = Pieces::default();
                pieces.write(0, bytes);
                for (at, extent) in &self.stashed {
                    pieces.take_out(*at, at + u64::from(extent.len));
                }
                pieces.lay_over(&self.pieces);
                self.pieces = pieces;
            }
            Stored::Extents(extents) => {
                let mut all: BTreeMap<u64, Extent> = extents.into_iter().collect();
                for (at, extent) in &self.stashed {
                    ingest::cut(&mut all, *at, at + u64::from(extent.len));
                    all.insert(*at, *extent);
                }
                self.stashed = all;
            }
        }
        self.base = None;
        Ok(())
    }

    /// The chunks that it needs, beside those of its tree.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.stashed.values().map(|extent| extent.chunk.id).chain(self.pieces.chunks())
    }

    pub(crate) fn read(&self, live: &Live, offset: u64, len: usize) -> Result<Vec<u8>> {
        let below = Below { file: self.file, base: self.base.as_deref() };
        let open = |chunk: &ChunkRef| live.open_chunk(chunk);
        if self.stashed.is_empty() {
            return below.read(&self.pieces, (offset, len), &open);
        }
        let mut out = below.read(&Pieces::default(), (offset, len), &open)?;
        let end = offset + len as u64;
        for (at, extent) in &self.stashed {
            let (from, to) = ((*at).max(offset), (at + u64::from(extent.len)).min(end));
            if from < to {
                let chunk = live.open_chunk(&extent.chunk)?;
                let start = extent.start as usize + (from - at) as usize;
                let source = &chunk[start..start + (to - from) as usize];
                out[(from - offset) as usize..][..source.len()].copy_from_slice(source);
            }
        }
        self.pieces.copy_to(offset, &mut out, &open)?;
        Ok(out)
    }
}

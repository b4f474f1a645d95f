//! Step *publish*: the overlay into chunks, a new tree and a signed head.
//!
//! Neighbours: `live` above; `ingest` for file content, `dedup` for what is
//! stored already, `format::codec`, `seal` and `tree` for the bytes,
//! `cache::store` for keeping them. Promises: everything that a
//! head names is durable before the head is; a journal is let go only when a
//! durable head holds what it held; leaves that nothing changed are taken
//! over as they are, and the tree is the one that anyone would build from the
//! same records. Never: replaces a head. Tested by
//! `engine/flow/tests/model_live.rs` and `crash_live.rs`.

use crate::dedup::Dedup;
use crate::error::Result;
use crate::ingest::Edits;
use crate::live::{Frozen, Live, PortalSecrets};
use crate::overlay::Layer;
use crate::reader::TreeReader;
use crate::source::ChunkSource;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use warp_cache::CacheError;
use warp_cache::disk::Disk;
use warp_cache::store::{Class, Store};
use warp_format::change::{Change, encode_changes};
use warp_format::codec::{Level, Packer};
use warp_format::dedup::Part;
use warp_format::record::{Extent, Key, Record};
use warp_format::tree::{Builder, Child};
use warp_format::{
    ChunkRef, ContentHash, DeviceTag, FileId, FormatError, Head, NamingKeys, PlainChunk, Sealer,
};

const HEAD_PREFIX: &str = "head-";
/// Heads kept on this device: the last, and the one before it, which stands
/// while the next is being written.
const HEADS_KEPT: u64 = 2;

fn head_name(sequence: u64) -> String {
    format!("{HEAD_PREFIX}{sequence:016x}")
}

fn head_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(HEAD_PREFIX)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

fn head_error(e: std::io::Error) -> CacheError {
    CacheError::Io { file: "head".into(), source: e }
}

fn head_numbers(disk: &dyn Disk) -> Result<Vec<u64>> {
    let names = disk.names().map_err(head_error)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| head_number(name)).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

/// The newest head on this disk that is whole. A newer one that is torn was
/// never acknowledged: the journal still holds what it held. It may be signed
/// by another device: the one that this was before its key was recovered.
pub(crate) fn newest_head(disk: &dyn Disk, secrets: &PortalSecrets) -> Result<Option<Head>> {
    for number in head_numbers(disk)? {
        let Some(file) = disk.open(&head_name(number)).map_err(head_error)? else { continue };
        let len = file.len().map_err(head_error)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, 0).map_err(head_error)?;
        match Head::open(&bytes) {
            // Going on here would overwrite what is another portal's.
            Ok(head) if head.portal != secrets.portal => {
                return Err(FormatError::Invalid { at: "portal of a head" }.into());
            }
            Ok(head) if head.sequence == number => {
                // It may have been read from memory only, after a kill: what
                // is built on it must not outlast it.
                file.sync().map_err(head_error)?;
                return Ok(Some(head));
            }
            Err(e @ FormatError::Version { .. }) => return Err(e.into()),
            _ => {}
        }
    }
    Ok(None)
}

/// True if a state in this directory has published anything.
pub(crate) fn has_heads(state: &Path) -> bool {
    let names = std::fs::read_dir(state).into_iter().flatten().flatten();
    names
        .into_iter()
        .any(|entry| entry.file_name().to_str().is_some_and(|n| head_number(n).is_some()))
}

/// A head on this disk as it was signed; `None` if it is not there any more.
pub(crate) fn head_bytes(disk: &dyn Disk, sequence: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = disk.open(&head_name(sequence)).map_err(head_error)? else { return Ok(None) };
    let len = file.len().map_err(head_error)?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_at(&mut bytes, 0).map_err(head_error)?;
    Ok(Some(bytes))
}

/// What publishes share: one at a time.
#[derive(Default)]
pub(crate) struct Publisher {
    /// Read when it is first needed.
    dedup: Option<Dedup>,
}

/// Folds all changes into a new tree and makes the head that names it.
pub(crate) fn publish(live: &Live, publisher: &mut Publisher) -> Result<Head> {
    // A layer that an earlier attempt could not fold goes first.
    let left = live.read_state().frozen.clone();
    if let Some(frozen) = left {
        fold_in(live, publisher, &frozen)?;
    }
    match freeze(live)? {
        Ok(head) => Ok(head),
        Err(frozen) => fold_in(live, publisher, &frozen),
    }
}

/// Sets the changes so far aside, to be folded while others go on; gives the
/// head if there are none.
fn freeze(live: &Live) -> Result<std::result::Result<Head, Frozen>> {
    // So that little is left to do while all wait.
    live.journal.commit()?;
    // Changes wait here; readers do not.
    let _order = live.in_order();
    {
        let state = live.read_state();
        assert!(state.frozen.is_none(), "one layer is folded at a time");
        if let (true, Some(head)) = (state.active.is_empty(), &state.head) {
            return Ok(Ok(head.clone()));
        }
    }
    let journal = live.journal.rotate()?;
    let mut state = live.write_state();
    let layer = Arc::new(std::mem::take(&mut state.active));
    let frozen = Frozen { layer, journal, ends: live.next_number() };
    state.frozen = Some(frozen.clone());
    Ok(Err(frozen))
}

fn fold_in(live: &Live, publisher: &mut Publisher, frozen: &Frozen) -> Result<Head> {
    let (base, sequence) = {
        let state = live.read_state();
        (state.base.clone(), state.head.as_ref().map_or(0, |head| head.sequence))
    };
    let dedup = match &mut publisher.dedup {
        Some(dedup) => dedup,
        empty => empty.insert(Dedup::open(live)?),
    };
    dedup.forget_unpublished();
    let mut writer = Writer::new(live, dedup);
    let edits = crate::ingest::ingest(&frozen.layer, base.as_deref(), &mut writer)?;
    let root = fold(live, &frozen.layer, base.as_deref(), edits, &mut writer)?;
    live.store.sync()?;
    let head = Head {
        portal: live.secrets.portal,
        device: live.secrets.signing_key().device_id(),
        sequence: sequence + 1,
        root,
        seen: Vec::new(),
        membership: live.position(),
    };
    write_head(&*live.disk, &head, &live.secrets)?;
    if let Err(e) = dedup.published() {
        tracing::warn!(portal = %live.secrets.portal, "dedup log: {e}");
    }
    let reader = match &base {
        Some(base) => base.at_root(root),
        None => TreeReader::new(Arc::clone(&live.store), Arc::clone(&live.keys), root),
    };
    let reader = live.register(reader);
    let folded = {
        let mut state = live.write_state();
        state.base = Some(reader);
        state.base_ends = frozen.ends;
        state.head = Some(head.clone());
        state.frozen.take()
    };
    // Freed without anybody waiting for it.
    drop(folded);
    live.journal.append(&encode_changes(&[Change::Published(head.sequence)]));
    live.journal.commit()?;
    live.journal.retire(frozen.journal)?;
    drop_old_heads(&*live.disk, head.sequence)?;
    Ok(head)
}

/// A head is durable, and its name too, before anything relies on it.
fn write_head(disk: &dyn Disk, head: &Head, secrets: &PortalSecrets) -> Result<()> {
    let name = head_name(head.sequence);
    let write = || {
        // A torn one that an interrupted publish left.
        if disk.open(&name)?.is_some() {
            disk.remove(&name)?;
        }
        let file = disk.create(&name)?;
        file.write_at(&head.sign(&secrets.signing_key()), 0)?;
        file.sync()?;
        disk.sync_names()
    };
    Ok(write().map_err(head_error)?)
}

fn drop_old_heads(disk: &dyn Disk, newest: u64) -> Result<()> {
    for number in head_numbers(disk)? {
        if number + HEADS_KEPT <= newest {
            disk.remove(&head_name(number)).map_err(head_error)?;
        }
    }
    Ok(())
}

/// Drops all heads but the newest, for good: what they name may go then.
pub(crate) fn drop_heads_before(disk: &dyn Disk, newest: u64) -> Result<()> {
    for number in head_numbers(disk)? {
        if number < newest {
            disk.remove(&head_name(number)).map_err(head_error)?;
        }
    }
    Ok(disk.sync_names().map_err(head_error)?)
}

/// Packs, seals and stores chunks that the store does not have.
pub(crate) struct Writer<'a> {
    live: &'a Live,
    dedup: &'a mut Dedup,
    sealer: Arc<Sealer>,
    device: DeviceTag,
    packers: Vec<Packer>,
}

impl<'a> Writer<'a> {
    fn new(live: &'a Live, dedup: &'a mut Dedup) -> Self {
        let packers = (0..crate::limits::workers()).map(|_| Packer::new(Level::DEFAULT)).collect();
        let device = live.secrets.signing_key().device_id().tag();
        Self { live, dedup, sealer: live.keys.sealer(), device, packers }
    }

    pub(crate) fn naming(&self) -> &NamingKeys {
        &self.live.naming
    }

    pub(crate) fn device(&self) -> DeviceTag {
        self.device
    }

    /// Where content that is stored already lies.
    pub(crate) fn find(&self, hash: &ContentHash, len: usize) -> Option<Extent> {
        self.dedup.find(hash, len)
    }

    fn put(&mut self, chunk: &PlainChunk) -> Result<ChunkRef> {
        store_chunk(&self.live.store, &self.sealer, &mut self.packers[0], chunk)
    }

    /// Stores chunks of file content, all cores at work; gives where each
    /// lies. Each comes with what else is to be found in it.
    pub(crate) fn put_all(&mut self, chunks: Vec<(Vec<u8>, Vec<Part>)>) -> Result<Vec<Extent>> {
        let (store, sealer, naming) = (&*self.live.store, &*self.sealer, &self.live.naming);
        let share = chunks.len().div_ceil(self.packers.len()).max(1);
        let dedup = &*self.dedup;
        let mut chunks = chunks;
        let put = |packer: &mut Packer, bytes: Vec<u8>| -> Result<(Extent, bool)> {
            let plain = PlainChunk::data(naming, bytes);
            let (hash, len) = (plain.hash(), plain.bytes().len());
            if let Some(extent) = dedup.find(&hash, len) {
                return Ok((extent, false));
            }
            let chunk = store_chunk(store, sealer, packer, &plain)?;
            Ok((Extent { chunk, start: 0, len: len as u32 }, true))
        };
        let done: Vec<Result<Vec<_>>> = std::thread::scope(|scope| {
            let shares = chunks.chunks_mut(share).zip(&mut self.packers);
            let threads: Vec<_> = shares
                .map(|(share, packer)| {
                    let each = move || {
                        let bytes = share.iter_mut().map(|(bytes, _)| std::mem::take(bytes));
                        bytes.map(|bytes| put(packer, bytes)).collect()
                    };
                    scope.spawn(each)
                })
                .collect();
            threads.into_iter().map(|t| t.join().expect("a worker does not panic")).collect()
        });
        let mut extents = Vec::with_capacity(chunks.len());
        for share in done {
            extents.extend(share?);
        }
        let parts = chunks.into_iter().map(|(_, parts)| parts);
        let each = extents.into_iter().zip(parts).map(|((extent, new), parts)| {
            if new {
                let whole = Part { hash: extent.chunk.hash, start: 0, len: extent.len };
                let parts = if parts.is_empty() { vec![whole] } else { parts };
                self.dedup.add(extent.chunk, parts);
            }
            extent
        });
        Ok(each.collect())
    }
}

fn store_chunk(
    store: &Store,
    sealer: &Sealer,
    packer: &mut Packer,
    chunk: &PlainChunk,
) -> Result<ChunkRef> {
    let sealed = sealer.seal(&packer.pack(chunk));
    store.put(&sealed, Class::Own)?;
    Ok(sealer.reference(&sealed, chunk.hash(), chunk.bytes().len()))
}

/// The new tree: the old one's leaves with the changes merged in.
fn fold(
    live: &Live,
    layer: &Layer,
    base: Option<&TreeReader<Arc<Store>>>,
    edits: Edits,
    writer: &mut Writer<'_>,
) -> Result<ChunkRef> {
    let edits = edits.into_iter().map(|(key, change)| (key.to_bytes(), change));
    let mut edits = edits.peekable();
    let mut replaced = 0;
    let mut tree = Builder::new(&live.naming, |node: PlainChunk| writer.put(&node));
    let mut leaves = Vec::new();
    if let Some(base) = base {
        list_leaves(base, base.root(), &mut leaves)?;
    }
    for (i, (first_key, child)) in leaves.iter().enumerate() {
        let next = leaves.get(i + 1).map(|(key, _)| key.as_slice());
        let changed =
            edits.peek().is_some_and(|(key, _)| next.is_none_or(|next| key.as_slice() < next));
        let touched = changed || loses_some(layer, first_key, next);
        // The one leaf of an empty tree has no first key, and is made anew.
        if !touched && tree.at_boundary() && !first_key.is_empty() {
            tree.reuse_leaf(first_key, child)?;
            continue;
        }
        let Some(base) = base else { break };
        let node = base.node(&child.node)?;
        replaced += u64::from(child.node.len);
        for at in 0..node.len() {
            let key = node.key_bytes(at).unwrap_or_default();
            while let Some((edit, change)) = edits.next_if(|(edit, _)| edit.as_slice() < key) {
                push(&mut tree, &edit, &change)?;
            }
            let edit = edits.next_if(|(edit, _)| edit.as_slice() == key);
            if edit.is_some() || layer.deleted.contains(&file_of(key)) {
                replaced += node.record(at).map_or(0, |record| bytes_of(record.ok()));
            }
            if let Some((edit, change)) = edit {
                push(&mut tree, &edit, &change)?;
            } else if !layer.deleted.contains(&file_of(key))
                && let Some(record) = node.record(at)
            {
                let (key, record) = record?;
                tree.push(&key, &record)?;
            }
        }
        while let Some((edit, change)) =
            edits.next_if(|(edit, _)| next.is_none_or(|next| edit.as_slice() < next))
        {
            push(&mut tree, &edit, &change)?;
        }
    }
    for (edit, change) in edits {
        push(&mut tree, &edit, &change)?;
    }
    let root = tree.finish()?;
    live.garbage.fetch_add(replaced, Ordering::Relaxed);
    Ok(root)
}

/// Bytes of content that a record stands for.
fn bytes_of(record: Option<(Key, Record)>) -> u64 {
    match record {
        Some((_, Record::Extent(extent))) => extent.len.into(),
        _ => 0,
    }
}

/// The inode that a key is about.
fn file_of(key: &[u8]) -> FileId {
    let mut id = [0; 16];
    let len = key.len().min(16);
    id[..len].copy_from_slice(&key[..len]);
    FileId(id)
}

/// True if an inode that was deleted may have records in the leaf between
/// these keys.
fn loses_some(layer: &Layer, first: &[u8], next: Option<&[u8]>) -> bool {
    let last = next.map_or(FileId::META, file_of);
    layer.deleted.range(file_of(first)..=last).next().is_some()
}

fn push<F: FnMut(PlainChunk) -> Result<ChunkRef>>(
    tree: &mut Builder<'_, F>,
    key: &[u8],
    change: &Option<Record>,
) -> Result<()> {
    match change {
        Some(record) => tree.push(&Key::decode(key)?, record),
        None => Ok(()),
    }
}

/// All leaves with their first keys, in order; reads inner nodes only.
fn list_leaves<S: ChunkSource>(
    base: &TreeReader<S>,
    at: &ChunkRef,
    leaves: &mut Vec<(Vec<u8>, Child)>,
) -> Result<()> {
    let node = base.node(at)?;
    if node.level() == 0 {
        // The root itself is a leaf.
        let child = Child { node: *at, records: node.len() as u64 };
        leaves.push((node.key_bytes(0).unwrap_or_default().to_vec(), child));
        return Ok(());
    }
    for i in 0..node.len() {
        let (Some(key), Some(child)) = (node.key_bytes(i), node.child(i)) else { continue };
        if node.level() == 1 {
            leaves.push((key.to_vec(), *child));
        } else {
            list_leaves(base, &child.node, leaves)?;
        }
    }
    Ok(())
}

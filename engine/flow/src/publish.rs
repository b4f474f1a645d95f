//! Step *publish*: the overlay into chunks, a new tree and a signed head.
//!
//! Neighbours: `live` above; `format::chunk`, `codec`, `seal` and `tree` for
//! the bytes, `cache::store` for keeping them. Promises: everything that a
//! head names is durable before the head is; a journal is let go only when a
//! durable head holds what it held; leaves that nothing changed are taken
//! over as they are, and the tree is the one that anyone would build from the
//! same records. Never: replaces a head. Tested by
//! `engine/flow/tests/model_live.rs` and `crash_live.rs`.

use crate::error::Result;
use crate::live::{Live, PortalSecrets};
use crate::overlay::{Overlay, Pieces};
use crate::reader::TreeReader;
use crate::source::ChunkSource;
use std::collections::BTreeMap;
use std::sync::Arc;
use warp_cache::CacheError;
use warp_cache::disk::Disk;
use warp_cache::store::{Class, Store};
use warp_format::change::{Change, encode_changes};
use warp_format::chunk::CutRule;
use warp_format::codec::{Level, Packer};
use warp_format::record::{Body, Extent, Key, KeyKind, Record};
use warp_format::tree::{Builder, Child};
use warp_format::{ChunkRef, FileId, FormatError, Head, NamingKeys, PlainChunk, Sealer};

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

/// The newest head on this disk that is whole and ours. A newer one that is
/// torn was never acknowledged: the journal still holds what it held.
pub(crate) fn newest_head(disk: &dyn Disk, secrets: &PortalSecrets) -> Result<Option<Head>> {
    let device = secrets.signing_key().device_id();
    let ours = |number| (secrets.portal, device, number);
    for number in head_numbers(disk)? {
        let Some(file) = disk.open(&head_name(number)).map_err(head_error)? else { continue };
        let len = file.len().map_err(head_error)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, 0).map_err(head_error)?;
        match Head::open(&bytes) {
            Ok(head) if (head.portal, head.device, head.sequence) == ours(number) => {
                // It may have been read from memory only, after a kill: what
                // is built on it must not outlast it.
                file.sync().map_err(head_error)?;
                return Ok(Some(head));
            }
            Err(e @ FormatError::Newer { .. }) => return Err(e.into()),
            _ => {}
        }
    }
    Ok(None)
}

/// Folds the overlay into a new tree and makes the head that names it.
pub(crate) fn publish(live: &mut Live) -> Result<Head> {
    if let (true, Some(head)) = (live.overlay.is_empty(), &live.head) {
        return Ok(head.clone());
    }
    let retired = live.journal.rotate()?;
    let mut writer = Writer {
        store: Arc::clone(&live.store),
        naming: NamingKeys::derive(&live.secrets.root),
        sealer: live.secrets.sealer(),
        packer: Packer::new(Level::DEFAULT),
    };
    ingest(live, &mut writer)?;
    let root = fold(live, &mut writer)?;
    live.store.sync()?;
    let head = Head {
        portal: live.secrets.portal,
        device: live.secrets.signing_key().device_id(),
        sequence: live.sequence() + 1,
        root,
        seen: Vec::new(),
        membership: 0,
    };
    write_head(&*live.disk, &head, &live.secrets)?;
    live.set_base(head.clone());
    live.overlay = Overlay::default();
    live.journal.append(&encode_changes(&[Change::Published(head.sequence)]));
    live.journal.commit()?;
    live.journal.retire(retired)?;
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

/// Packs, seals and stores chunks.
struct Writer {
    store: Arc<Store>,
    naming: NamingKeys,
    sealer: Sealer,
    packer: Packer,
}

impl Writer {
    fn put(&mut self, chunk: &PlainChunk) -> Result<ChunkRef> {
        let sealed = self.sealer.seal(&self.packer.pack(chunk));
        self.store.put(&sealed, Class::Own)?;
        Ok(self.sealer.reference(&sealed, chunk.hash(), chunk.bytes().len()))
    }
}

/// Written bytes into chunks and extents, a file at a time. A file that fails
/// (the disk is full) keeps its written bytes, which stand before its extents.
fn ingest(live: &mut Live, writer: &mut Writer) -> Result<()> {
    while let Some((file, pieces)) = live.overlay.written.pop_first() {
        if let Err(e) = ingest_file(live, writer, file, &pieces) {
            live.overlay.written.insert(file, pieces);
            return Err(e);
        }
    }
    Ok(())
}

fn ingest_file(live: &mut Live, writer: &mut Writer, file: FileId, pieces: &Pieces) -> Result<()> {
    let key = Key::new(file, KeyKind::Inode);
    let Some(Record::Inode(mut inode)) = live.overlay.get(&live.base, &key)? else {
        // Without an inode nothing leads here: unlinked while open.
        return live.overlay.cut_extents(&live.base, file, 0, u64::MAX);
    };
    let rule = CutRule::for_len(inode.size);
    for (offset, bytes) in pieces {
        let end = offset + bytes.len() as u64;
        live.overlay.cut_extents(&live.base, file, *offset, end)?;
        let mut at = 0;
        while at < bytes.len() {
            let len = rule.first_cut(&writer.naming, &bytes[at..], true);
            let plain = PlainChunk::data(&writer.naming, bytes[at..at + len].to_vec());
            let extent = Extent { chunk: writer.put(&plain)?, start: 0, len: len as u32 };
            live.overlay.put_extent(file, offset + at as u64, extent);
            at += len;
        }
    }
    if let Body::Extents(_) = inode.body {
        let extents = live.overlay.extents(&live.base, file, 0, u64::MAX)?;
        let stored = extents.iter().map(|(_, extent)| u64::from(extent.len)).sum();
        inode.body = Body::Extents(stored);
        live.overlay.records.insert(key, Some(Record::Inode(inode)));
    }
    Ok(())
}

/// The new tree: the old one's leaves with the changes merged in.
fn fold(live: &Live, writer: &mut Writer) -> Result<ChunkRef> {
    let edits: BTreeMap<Vec<u8>, &Option<Record>> =
        live.overlay.records.iter().map(|(key, change)| (key.to_bytes(), change)).collect();
    let mut edits = edits.into_iter().peekable();
    let naming = NamingKeys::derive(&live.secrets.root);
    let mut tree = Builder::new(&naming, |node: PlainChunk| writer.put(&node));
    let mut leaves = Vec::new();
    if let Some(base) = &live.base {
        list_leaves(base, base.root(), &mut leaves)?;
    }
    for (i, (first_key, child)) in leaves.iter().enumerate() {
        let next = leaves.get(i + 1).map(|(key, _)| key.as_slice());
        let touched =
            edits.peek().is_some_and(|(key, _)| next.is_none_or(|next| key.as_slice() < next));
        // The one leaf of an empty tree has no first key, and is made anew.
        if !touched && tree.at_boundary() && !first_key.is_empty() {
            tree.reuse_leaf(first_key, child)?;
            continue;
        }
        let Some(base) = &live.base else { break };
        let node = base.node(&child.node)?;
        for at in 0..node.len() {
            let key = node.key_bytes(at).unwrap_or_default();
            while let Some((edit, change)) = edits.next_if(|(edit, _)| edit.as_slice() < key) {
                push(&mut tree, &edit, change)?;
            }
            match edits.next_if(|(edit, _)| edit.as_slice() == key) {
                Some((edit, change)) => push(&mut tree, &edit, change)?,
                None => {
                    if let Some(record) = node.record(at) {
                        let (key, record) = record?;
                        tree.push(&key, &record)?;
                    }
                }
            }
        }
        while let Some((edit, change)) =
            edits.next_if(|(edit, _)| next.is_none_or(|next| edit.as_slice() < next))
        {
            push(&mut tree, &edit, change)?;
        }
    }
    for (edit, change) in edits {
        push(&mut tree, &edit, change)?;
    }
    tree.finish()
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

//! Which contents the store has already.
//!
//! Neighbours: `publish` asks before it packs and seals, and tells what it has
//! stored. Promises: a content that is found is in the store, and a published
//! tree names it, or the one that is being made: what was sealed before a member
//! was removed and never published is sealed anew. Never: is needed: what it
//! forgets is stored again. Its log is sealed, as lengths of contents
//! tell what they are. Tested by `engine/flow/tests/model_live.rs` and `check.rs`.

use crate::error::{FlowError, Result};
use crate::live::{Live, PortalSecrets};
use crate::reader::TreeReader;
use crate::source::ChunkSource;
use std::collections::HashMap;
use std::sync::Arc;
use warp_cache::disk::Disk;
use warp_cache::journal::Journal;
use warp_cache::store::Store;
use warp_format::dedup::{Part, Parts, decode_parts, encode_parts};
use warp_format::local::LocalKey;
use warp_format::record::Extent;
use warp_format::{ChunkRef, ContentHash};

const PREFIX: &str = "dedup-";
/// Chunks whose parts go into one entry of the log.
const ENTRY_CHUNKS: usize = 1024;

/// Contents by their keyed hash.
pub(crate) struct Dedup {
    store: Arc<Store>,
    places: HashMap<ContentHash, Place>,
    chunks: Vec<ChunkRef>,
    /// So many of them, the first, are in a published tree.
    published: usize,
    log: Journal,
    /// Not in the log yet.
    fresh: Vec<Parts>,
}

#[derive(Clone, Copy)]
struct Place {
    /// Index of the chunk.
    chunk: u32,
    start: u32,
    len: u32,
}

/// False if the log cannot be read, or says of a chunk that is in `source` what
/// is not so. Nobody may have it open.
pub(crate) fn is_true<S: ChunkSource>(
    disk: &dyn Disk,
    secrets: &PortalSecrets,
    source: &TreeReader<S>,
) -> bool {
    let key = LocalKey::new(secrets.local.for_dedup());
    let Ok(entries) = Journal::read(disk, PREFIX, &key) else { return false };
    entries.iter().all(|entry| {
        let parts = decode_parts(entry);
        parts.is_ok_and(|list| list.iter().all(|parts| speaks_true(parts, source)))
    })
}

fn speaks_true<S: ChunkSource>(said: &Parts, source: &TreeReader<S>) -> bool {
    let plain = match source.open_chunk(&said.chunk) {
        Ok(plain) => plain.into_bytes(),
        // It is passed over when the log is opened.
        Err(FlowError::Missing { .. }) => return true,
        Err(_) => return false,
    };
    said.parts.iter().all(|part| {
        let (start, end) = (part.start as usize, part.start as usize + part.len as usize);
        let bytes = plain.get(start..end);
        bytes.is_some_and(|bytes| source.keys().naming.content_hash(bytes) == part.hash)
    })
}

/// Forgets everything.
pub(crate) fn discard(disk: &dyn Disk) -> Result<()> {
    Ok(Journal::discard(disk, PREFIX)?)
}

impl Dedup {
    /// Reads the log. One that is damaged starts anew.
    pub(crate) fn open(live: &Live) -> Result<Self> {
        let open = || {
            let key = LocalKey::new(live.secrets.local.for_dedup());
            Journal::open(Arc::clone(&live.disk), PREFIX, key, live.fresh.nonces())
        };
        let (log, entries) = open().or_else(|_| {
            Journal::discard(&*live.disk, PREFIX)?;
            open()
        })?;
        let (places, chunks, fresh) = Default::default();
        let mut dedup =
            Self { store: Arc::clone(&live.store), places, chunks, published: 0, log, fresh };
        let mut gone = 0;
        let mut known = Vec::new();
        for entry in entries {
            for found in decode_parts(&entry).unwrap_or_default() {
                // A sweep took it, or the power went between log and chunk.
                if dedup.store.contains(&found.chunk.id) {
                    dedup.remember(found.chunk, &found.parts);
                    known.push(found);
                } else {
                    gone += 1;
                }
            }
        }
        // The log has no others.
        dedup.published = dedup.chunks.len();
        if gone > known.len() {
            // Mostly of what is no more: what is left goes into a new one.
            let old = dedup.log.rotate()?;
            dedup.fresh = known;
            dedup.write_down()?;
            dedup.log.commit()?;
            dedup.log.retire(old)?;
        }
        Ok(dedup)
    }

    fn remember(&mut self, chunk: ChunkRef, parts: &[Part]) {
        let Ok(index) = u32::try_from(self.chunks.len()) else { return };
        self.chunks.push(chunk);
        for part in parts {
            let place = Place { chunk: index, start: part.start, len: part.len };
            self.places.insert(part.hash, place);
        }
    }

    /// Where content with this hash and length lies.
    pub(crate) fn find(&self, hash: &ContentHash, len: usize) -> Option<Extent> {
        let place = self.places.get(hash).filter(|place| place.len as usize == len && len > 0)?;
        let chunk = *self.chunks.get(place.chunk as usize)?;
        if !self.store.contains(&chunk.id) {
            // A sweep took it.
            return None;
        }
        Some(Extent { chunk, start: place.start, len: place.len })
    }

    /// The store has this chunk now.
    pub(crate) fn add(&mut self, chunk: ChunkRef, parts: Vec<Part>) {
        self.remember(chunk, &parts);
        self.fresh.push(Parts { chunk, parts });
    }

    /// Forgets what a publish that failed has added.
    pub(crate) fn forget_unpublished(&mut self) {
        if self.published < self.chunks.len() {
            let published = self.published;
            self.chunks.truncate(published);
            self.places.retain(|_, place| (place.chunk as usize) < published);
            self.fresh.clear();
        }
    }

    /// Writes down what was added: a durable head names it now.
    pub(crate) fn published(&mut self) -> Result<()> {
        self.published = self.chunks.len();
        self.write_down()
    }

    fn write_down(&mut self) -> Result<()> {
        for parts in self.fresh.chunks(ENTRY_CHUNKS) {
            self.log.append(&encode_parts(parts));
        }
        self.fresh.clear();
        Ok(self.log.flush()?)
    }
}

//! Where sealed chunks come from.

use crate::error::Result;
use std::sync::Arc;
use std::time::Instant;
use warp_cache::store::Store;
use warp_format::{ChunkId, ChunkRef, SealedChunk};

/// Gives sealed chunks by id. What it gives is verified: a [`SealedChunk`]
/// exists only for bytes that match their id.
pub trait ChunkSource: Send + Sync {
    /// The chunk, `FlowError::Missing` if it is not there, or what was wrong
    /// with it.
    fn fetch(&self, id: &ChunkId) -> Result<SealedChunk>;

    /// True if a fetch may take a way through a network.
    fn is_far(&self) -> bool {
        false
    }

    /// These will be fetched soon, in this order, one after another: what has
    /// to come from far away may be asked for together.
    fn expect(&self, _soon: &[ChunkRef]) {}
}

impl ChunkSource for Arc<Store> {
    fn fetch(&self, id: &ChunkId) -> Result<SealedChunk> {
        let began = Instant::now();
        let chunk = self.get(id)?;
        note(id, "disk", began);
        Ok(chunk)
    }
}

/// Says where a chunk came from, and how long that took, to who follows the
/// log chunk by chunk.
pub(crate) fn note(chunk: &ChunkId, source: &str, began: Instant) {
    tracing::trace!(%chunk, %source, us = began.elapsed().as_micros() as u64, "has");
}

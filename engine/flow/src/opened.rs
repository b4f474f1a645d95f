//! A portal that is open on this device: its own, one that it has joined, or
//! one that it keeps.
//!
//! Neighbours: the daemon above, which mounts and shares them; `portal`,
//! `follow` and `keep` below. Promises: what only the writer can do is refused of a joined
//! one, and said so. Never: opens anything. Tested by `tests/tests/peers.rs`.

use crate::error::{FlowError, Result};
use crate::follow::Follower;
use crate::keep::Keeper;
use crate::portal::{Portal, PortalStatus};
use std::sync::Arc;
use warp_cache::store::{Store, Usage};

/// An open portal.
#[derive(Clone)]
pub enum Opened {
    /// This device writes it.
    Own(Arc<Portal>),
    /// This device reads it.
    Joined(Arc<Follower>),
    /// This device is a custodian of it.
    Kept(Arc<Keeper>),
}

impl Opened {
    /// The portal, if this device writes it; `FlowError::NotWriter` if not.
    pub fn own(&self) -> Result<&Arc<Portal>> {
        match self {
            Self::Own(portal) => Ok(portal),
            Self::Joined(_) | Self::Kept(_) => Err(FlowError::NotWriter),
        }
    }

    /// True if another device writes it.
    pub fn is_joined(&self) -> bool {
        !matches!(self, Self::Own(_))
    }

    /// Everything done so far is durable and published when it returns. Gives
    /// the number of the head that is shown.
    pub fn publish(&self) -> Result<u64> {
        match self {
            Self::Own(portal) => portal.publish(),
            Self::Joined(follower) => Ok(follower.status().sequence),
            Self::Kept(keeper) => Ok(keeper.sequence()),
        }
    }

    /// Everything done so far is durable when it returns.
    pub fn commit(&self) -> Result<()> {
        match self {
            Self::Own(portal) => portal.commit(),
            Self::Joined(_) | Self::Kept(_) => Ok(()),
        }
    }

    /// Publishes, and ends its threads; nothing may use it after.
    pub fn close(&self) -> Result<()> {
        match self {
            Self::Own(portal) => portal.close(),
            Self::Joined(follower) => follower.close(),
            Self::Kept(keeper) => keeper.close(),
        }
    }

    /// The same without publishing: all is durable.
    pub fn close_unpublished(&self) -> Result<()> {
        match self {
            Self::Own(portal) => portal.close_unpublished(),
            Self::Joined(follower) => follower.close(),
            Self::Kept(keeper) => keeper.close(),
        }
    }

    /// How it stands.
    pub fn status(&self) -> PortalStatus {
        match self {
            Self::Own(portal) => portal.status(),
            Self::Joined(follower) => {
                let status = follower.status();
                let usage = Usage { chunks: status.chunks as usize, bytes: status.stored_bytes };
                elsewhere(status.sequence, usage, follower.store())
            }
            Self::Kept(keeper) => elsewhere(keeper.sequence(), keeper.usage(), keeper.store()),
        }
    }
}

/// How a portal stands that another device writes.
fn elsewhere(sequence: u64, usage: Usage, store: &Store) -> PortalStatus {
    PortalStatus {
        sequence,
        unpublished_bytes: 0,
        unpublished_changes: 0,
        chunks: usage.chunks as u64,
        stored_bytes: usage.bytes,
        quota: None,
        snapshots: 0,
        trouble: None,
        damaged_chunks: store.damaged().len() as u64,
        scrubbed: None,
    }
}

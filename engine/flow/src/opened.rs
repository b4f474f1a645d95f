//! A portal that is open on this device: its own, or one that it has joined.
//!
//! Neighbours: the daemon above, which mounts and shares either; `portal` and
//! `follow` below. Promises: what only the writer can do is refused of a joined
//! one, and said so. Never: opens anything. Tested by `tests/tests/peers.rs`.

use crate::error::{FlowError, Result};
use crate::follow::Follower;
use crate::portal::{Portal, PortalStatus};
use std::sync::Arc;

/// An open portal.
#[derive(Clone)]
pub enum Opened {
    /// This device writes it.
    Own(Arc<Portal>),
    /// This device reads it.
    Joined(Arc<Follower>),
}

impl Opened {
    /// The portal, if this device writes it; `FlowError::NotWriter` if not.
    pub fn own(&self) -> Result<&Arc<Portal>> {
        match self {
            Self::Own(portal) => Ok(portal),
            Self::Joined(_) => Err(FlowError::NotWriter),
        }
    }

    /// True if this device only reads it.
    pub fn is_joined(&self) -> bool {
        matches!(self, Self::Joined(_))
    }

    /// Everything done so far is durable and published when it returns. Gives
    /// the number of the head that is shown.
    pub fn publish(&self) -> Result<u64> {
        match self {
            Self::Own(portal) => portal.publish(),
            Self::Joined(follower) => Ok(follower.status().sequence),
        }
    }

    /// Everything done so far is durable when it returns.
    pub fn commit(&self) -> Result<()> {
        match self {
            Self::Own(portal) => portal.commit(),
            Self::Joined(_) => Ok(()),
        }
    }

    /// Publishes, and ends its threads; nothing may use it after.
    pub fn close(&self) -> Result<()> {
        match self {
            Self::Own(portal) => portal.close(),
            Self::Joined(follower) => follower.close(),
        }
    }

    /// The same without publishing: all is durable.
    pub fn close_unpublished(&self) -> Result<()> {
        match self {
            Self::Own(portal) => portal.close_unpublished(),
            Self::Joined(follower) => follower.close(),
        }
    }

    /// How it stands.
    pub fn status(&self) -> PortalStatus {
        match self {
            Self::Own(portal) => portal.status(),
            Self::Joined(follower) => {
                let status = follower.status();
                PortalStatus {
                    sequence: status.sequence,
                    unpublished_bytes: 0,
                    unpublished_changes: 0,
                    chunks: status.chunks,
                    stored_bytes: status.stored_bytes,
                    quota: None,
                    snapshots: 0,
                    trouble: None,
                    damaged_chunks: follower.store().damaged().len() as u64,
                    scrubbed: None,
                }
            }
        }
    }
}

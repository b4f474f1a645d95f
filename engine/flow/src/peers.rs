//! The other devices of this device's portals: who is connected, what they
//! are told, and what they are given.
//!
//! Neighbours: the daemon above, which adds and removes open portals; `net`,
//! which asks as its [`Service`]; `portals` keeps who is a member; `portal`,
//! `follow` and `swarm` below. Promises: nobody is told or given anything of a
//! portal who is not a member of it now; a head is believed only from who may
//! publish; the network is used only while a portal is shared. Never: says a
//! name or a key to the log. Tested by `tests/tests/peers.rs`.

mod book;
mod dial;
mod link;

use crate::error::{FlowError, Result};
use crate::home::Home;
use crate::opened::Opened;
use crate::portals::Portals;
use crate::swarm::Swarm;
use book::Book;
use link::Link;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use warp_format::members::Chain;
use warp_format::{ChunkId, DeviceId, Head, PortalId, SealedChunk, Secret};
use warp_net::{Endpoint, News, Service, Session};

/// How the network may be used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Network {
    /// Where peers reach this device; `None`: on every address, at the port
    /// of last time.
    pub listen: Option<SocketAddr>,
    /// Members' devices on the local network are looked for.
    pub multicast: bool,
}

/// A portal that is shared.
pub(crate) struct Shared {
    pub(crate) id: PortalId,
    access: Secret,
    opened: Opened,
    chain: RwLock<Arc<Chain>>,
    swarm: Option<Arc<Swarm>>,
    links: Mutex<HashMap<DeviceId, Arc<Link>>>,
    book: Book,
}

impl Shared {
    fn chain(&self) -> Arc<Chain> {
        Arc::clone(&self.chain.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn links(&self) -> MutexGuard<'_, HashMap<DeviceId, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chunk(&self, id: &ChunkId) -> Option<SealedChunk> {
        match &self.opened {
            Opened::Own(portal) => portal.chunk(id),
            Opened::Joined(follower) => follower.store().get(id).ok(),
        }
    }

    fn heads(&self) -> Vec<Vec<u8>> {
        match &self.opened {
            Opened::Own(portal) => match portal.head() {
                Ok(head) => head.into_iter().collect(),
                Err(e) => {
                    tracing::error!(portal = %self.id, "head: {e}");
                    Vec::new()
                }
            },
            Opened::Joined(follower) => follower.heads(),
        }
    }

    /// A head came from a peer; true if it was new.
    fn take_head(&self, bytes: &[u8]) -> Result<bool> {
        let Opened::Joined(follower) = &self.opened else { return Ok(false) };
        let head = Head::open(bytes)?;
        if !self.chain().may_publish(&head.device, head.sequence) {
            return Err(FlowError::NotAllowed { device: head.device });
        }
        follower.take_head(bytes)
    }
}

/// A device of a portal.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// The portal.
    pub portal: PortalId,
    /// The device.
    pub device: DeviceId,
    /// What it is called in the portal.
    pub name: String,
    /// What it may do.
    pub capability: &'static str,
    /// Where it is, if it is connected, or was last.
    pub address: Option<SocketAddr>,
    /// How long the way there and back takes, if it is connected.
    pub rtt: Option<Duration>,
    /// Bytes of chunks that it gave.
    pub received_bytes: u64,
    /// Bytes of chunks that it was given.
    pub sent_bytes: u64,
}

/// All peers of this device.
pub struct Peers {
    runtime: Mutex<Option<Runtime>>,
    core: Arc<Core>,
}

/// What the network's threads need.
pub(crate) struct Core {
    me: DeviceId,
    portals: Arc<Portals>,
    shared: RwLock<HashMap<PortalId, Arc<Shared>>>,
    endpoint: std::sync::OnceLock<Endpoint>,
    network: Network,
}

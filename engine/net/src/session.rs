//! One portal on one connection, and requests for its chunks.

use crate::error::{NetError, Result};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use warp_format::{ChunkId, DeviceId, PortalId, SealedChunk};

/// One portal on one connection. Clones are the same session.
#[derive(Clone)]
pub struct Session {
    peer: DeviceId,
    portal: PortalId,
}

impl Session {
    /// The device at the other end.
    pub fn peer(&self) -> DeviceId {
        self.peer
    }
    /// The portal.
    pub fn portal(&self) -> PortalId {
        self.portal
    }
    /// The measured round-trip time.
    pub fn rtt(&self) -> Duration {
        Duration::ZERO
    }
    /// Whether nothing will come of it any more.
    pub fn is_closed(&self) -> bool {
        true
    }
    /// The salt of the fingerprints ([`crate::Prints`]) that this side sends.
    pub fn salt_here(&self) -> [u8; 32] {
        [0; 32]
    }
    /// The salt of the fingerprints that the peer sends.
    pub fn salt_there(&self) -> [u8; 32] {
        [0; 32]
    }
    /// Asks for the membership chain from this record on; what comes is heard
    /// as [`crate::News::Members`].
    pub fn ask_members(&self, from: u64) {
        let _ = from;
    }
    /// Tells this peer alone.
    pub fn tell(&self, news: crate::News) {
        let _ = news;
    }
    /// Asks for chunks (1 to 64); what comes of it arrives on `events` in the
    /// order it happens, the last being `Done` or `Failed`. Dropping the
    /// [`Request`] stops it; events that were under way may still arrive.
    /// Must be called within a tokio runtime.
    pub fn request(
        &self,
        number: u64,
        ids: Vec<ChunkId>,
        events: UnboundedSender<Event>,
    ) -> Request {
        let _ = (ids, number, events);
        Request {}
    }
}

/// A request that is under way; dropping it stops it.
#[must_use = "dropping a request stops it"]
pub struct Request {}

impl Request {
    /// Stops it: the peer is told to send no more.
    pub fn stop(self) {}
}

/// What happens to a request.
#[derive(Debug)]
pub enum Event {
    /// So many bytes have come.
    Progress {
        /// The request.
        number: u64,
        /// Bytes since the last such event.
        bytes: usize,
    },
    /// A chunk is there, not verified.
    Chunk {
        /// The request.
        number: u64,
        /// The chunk that was asked for.
        id: ChunkId,
        /// What the peer sent for it.
        bytes: Received,
    },
    /// The peer does not have it.
    NotFound {
        /// The request.
        number: u64,
        /// The chunk.
        id: ChunkId,
    },
    /// The peer has been asked for too much at once.
    Busy {
        /// The request.
        number: u64,
        /// The chunk.
        id: ChunkId,
    },
    /// Every chunk has been answered.
    Done {
        /// The request.
        number: u64,
    },
    /// Nothing more will come; chunks that were not answered are not coming.
    Failed {
        /// The request.
        number: u64,
        /// Why.
        error: NetError,
    },
}

/// Bytes that a peer sent for a chunk.
#[derive(Debug)]
pub struct Received {
    bytes: Vec<u8>,
}

impl Received {
    /// Whatever came, from whatever kind of peer.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// The chunk, if these are its bytes. If not, the one peer that sent them
    /// is to blame. Hashes all of them: call it where CPU work belongs.
    pub fn verify(self, id: ChunkId) -> Result<SealedChunk, warp_format::FormatError> {
        SealedChunk::verify(id, self.bytes)
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    /// Never: a peer cannot send an empty chunk.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

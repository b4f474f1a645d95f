//! One portal on one connection, and requests for its chunks.

use crate::ask;
use crate::error::{NetError, Result};
use crate::fetch;
use crate::link::Link;
use crate::roll::Call;
use crate::service::News;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;
use warp_format::wire::{self, Change, Changed, Frame, Listed};
use warp_format::{ChunkId, DeviceId, FormatError, PortalId, SealedChunk};

/// One portal on one connection. Clones are the same session.
#[derive(Clone)]
pub struct Session {
    pub(crate) link: Arc<Link>,
    pub(crate) number: u32,
    pub(crate) portal: PortalId,
    closed: Arc<AtomicBool>,
}

impl Session {
    pub(crate) fn new(link: Arc<Link>, number: u32, portal: PortalId) -> Self {
        Self { link, number, portal, closed: Arc::default() }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.closed, &other.closed)
    }

    pub(crate) fn mark_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// The frame that tells this.
    pub(crate) fn frame(&self, news: News) -> Frame {
        let session = self.number;
        match news {
            News::Head(head) => Frame::Head { session, head },
            News::Members(records) => Frame::Members { session, records },
            News::Have(have) => Frame::Have { session, have },
        }
    }

    /// The device at the other end.
    pub fn peer(&self) -> DeviceId {
        self.link.peer
    }

    /// The portal.
    pub fn portal(&self) -> PortalId {
        self.portal
    }

    /// Where it is now.
    pub fn address(&self) -> SocketAddr {
        self.link.connection.remote_address()
    }

    /// The measured round-trip time.
    pub fn rtt(&self) -> Duration {
        self.link.connection.rtt()
    }

    /// Bytes that came on its connection. They grow also while a lost packet
    /// keeps what came after it from being read.
    pub fn received(&self) -> u64 {
        self.link.connection.stats().udp_rx.bytes
    }

    /// Whether nothing will come of it any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.link.is_closed()
    }

    /// The salt of the fingerprints ([`crate::Prints`]) that this side sends.
    pub fn salt_here(&self) -> [u8; 32] {
        wire::print_salt(&self.link.exporter, &self.link.shared.identity.device())
    }

    /// The salt of the fingerprints that the peer sends.
    pub fn salt_there(&self) -> [u8; 32] {
        wire::print_salt(&self.link.exporter, &self.link.peer)
    }

    /// Asks for the membership chain from this record on; what comes is heard
    /// as [`News::Members`].
    pub fn ask_members(&self, from: u64) {
        self.link.put_small(&Frame::AskMembers { session: self.number, from });
    }

    /// Tells this peer alone, after all that was announced before.
    pub fn tell(&self, news: News) {
        self.link.shared.call(Call::Tell(self.clone(), news));
    }

    /// What the peer holds that came after these: [`Listed::next`] of the last
    /// answer in this session, or 0.
    pub async fn list(&self, after: u64) -> Result<Listed> {
        let question = Frame::List { session: self.number, after };
        match ask::run(self, &question).await? {
            Frame::Listed(listed) => Ok(listed),
            _ => Err(ask::unexpected(self)),
        }
    }

    /// Asks the peer to change the membership chain.
    pub async fn change(&self, change: Change) -> Result<Changed> {
        let question = Frame::Change { session: self.number, change };
        match ask::run(self, &question).await? {
            Frame::Changed(changed) => Ok(changed),
            _ => Err(ask::unexpected(self)),
        }
    }

    /// Ends the session; the daemon hears [`crate::Service::left`].
    pub fn leave(&self) {
        self.link.end(self, Some(Frame::Left { session: self.number }));
    }

    /// Asks for chunks (1 to 64); what comes of it arrives on `events` in the
    /// order it happens, the last being `Done` or `Failed`. Dropping the
    /// [`Request`] stops it; events that were under way may still arrive.
    /// Must be called within a tokio runtime.
    pub fn request(
        &self,
        number: u64,
        wish: impl Into<Wish>,
        events: UnboundedSender<Event>,
    ) -> Request {
        let (session, wish) = (self.clone(), wish.into());
        let task = tokio::spawn(async move {
            let last = match fetch::run(&session, number, wish, &events).await {
                Ok(()) => Event::Done { number },
                Err(error) => Event::Failed { number, error },
            };
            // Nobody listens any more: the request was dropped with its events.
            let _ = events.send(last);
        });
        Request { task: task.abort_handle() }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} with {})", self.portal, self.link.peer)
    }
}

/// Chunks to ask a peer for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// In the order in which they are to come.
    pub ids: Vec<ChunkId>,
    /// Somebody waits for them: the peer answers this before what is asked
    /// ahead.
    pub urgent: bool,
}

impl From<Vec<ChunkId>> for Wish {
    /// Nobody waits.
    fn from(ids: Vec<ChunkId>) -> Self {
        Self { ids, urgent: false }
    }
}

/// A request that is under way; dropping it stops it.
#[must_use = "dropping a request stops it"]
#[derive(Debug)]
pub struct Request {
    task: AbortHandle,
}

impl Request {
    /// Stops it: the peer is told to send no more.
    pub fn stop(self) {}
}

impl Drop for Request {
    fn drop(&mut self) {
        self.task.abort();
    }
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
    pub fn verify(self, id: ChunkId) -> Result<SealedChunk, FormatError> {
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

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} bytes)", self.bytes.len())
    }
}

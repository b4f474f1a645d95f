//! One connection to one peer, and the tasks that live on it.
//!
//! Between `endpoint`, which makes and finds links, and `talk` (the control
//! stream), `serve` and `fetch` (the others). Promises: when the connection is
//! over, every session on it has ended and everyone who waits for an answer
//! has one; the reason is logged once. Never: outlives its connection.
//! Tested by `tests/sessions.rs`, `tests/refusals.rs`, `tests/bounds.rs`.

use crate::close::Close;
use crate::error::{NetError, Result};
use crate::frames::{self, NoFrame};
use crate::limits::{BATCHES_PER_PEER_MAX, LOBBY, URGENT_BATCHES_PER_PEER_MAX};
use crate::outbox::Outbox;
use crate::roll::Shared;
use crate::serve;
use crate::session::Session;
use crate::talk::Talk;
use crate::transport;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use warp_format::wire::{EXPORTER_LABEL, Frame};
use warp_format::{DeviceId, FormatError};

/// What a peer did that ends its connection.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Bytes that are no frame.
    Malformed(FormatError),
    /// A frame that has no place there.
    Unexpected(&'static str),
    /// More of something than there may be.
    Full(&'static str),
    /// It does not read what is sent.
    Slow,
}

/// A connection whose handshake is over.
pub(crate) struct Link {
    pub(crate) peer: DeviceId,
    pub(crate) connection: quinn::Connection,
    /// Whether this side dialled.
    pub(crate) dialled: bool,
    pub(crate) since: Instant,
    /// What proofs on this connection are bound to.
    pub(crate) exporter: [u8; 32],
    pub(crate) shared: Arc<Shared>,
    /// Chunks that the peer waits for.
    pub(crate) waiting: AtomicUsize,
    /// Batches of chunks that are held for it.
    pub(crate) batches: Semaphore,
    /// The same of what somebody waits for.
    pub(crate) urgent_batches: Semaphore,
    pub(crate) outbox: Outbox,
    talk: Mutex<Talk>,
    ended: OnceLock<NetError>,
}

impl Link {
    /// Takes over a connection; `None` if it shows no key (it always does: the
    /// handshake demands it).
    pub(crate) fn new(
        connection: quinn::Connection,
        dialled: bool,
        shared: Arc<Shared>,
    ) -> Option<Arc<Self>> {
        let peer = crate::tls::peer_of(&connection)?;
        let mut exporter = [0; 32];
        connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").ok()?;
        Some(Arc::new(Self {
            peer,
            connection,
            dialled,
            since: Instant::now(),
            exporter,
            shared,
            waiting: AtomicUsize::new(0),
            batches: Semaphore::new(BATCHES_PER_PEER_MAX),
            urgent_batches: Semaphore::new(URGENT_BATCHES_PER_PEER_MAX),
            outbox: Outbox::default(),
            talk: Mutex::new(Talk::new(dialled)),
            ended: OnceLock::new(),
        }))
    }

    pub(crate) fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device that dialled.
    pub(crate) fn dialler(&self) -> DeviceId {
        if self.dialled { self.shared.identity.device() } else { self.peer }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Ends the connection.
    pub(crate) fn close(&self, why: Close) {
        let code = why.code();
        let text = why.to_string();
        let _ = self.ended.set(NetError::Closed { peer: self.peer, why });
        self.connection.close(code, text.as_bytes());
    }

    /// Ends the connection for what the peer did.
    pub(crate) fn blame(&self, fault: Fault) {
        let peer = self.peer;
        let (why, error) = match fault {
            Fault::Malformed(source) => (Close::Protocol, NetError::Malformed { peer, source }),
            Fault::Unexpected(what) => (Close::Protocol, NetError::Unexpected { peer, what }),
            Fault::Full(what) => {
                tracing::warn!(%peer, what, "over a limit");
                (Close::Full, NetError::Closed { peer, why: Close::Full })
            }
            Fault::Slow => (Close::Slow, NetError::Closed { peer, why: Close::Slow }),
        };
        let text = match &error {
            NetError::Malformed { source, .. } => source.to_string(),
            NetError::Unexpected { what, .. } => (*what).to_owned(),
            _ => why.to_string(),
        };
        tracing::warn!(%peer, addr = %self.connection.remote_address(), reason = %text, "connection closed");
        let _ = self.ended.set(error);
        self.connection.close(why.code(), text.as_bytes());
    }

    /// Why nothing works on it any more.
    pub(crate) fn error(&self) -> NetError {
        let why = self.connection.close_reason().map_or(Close::Done, Close::from);
        self.ended.get_or_init(|| NetError::Closed { peer: self.peer, why }).clone()
    }

    /// Puts a frame on its way. What is too long for a frame is an error of
    /// the caller and concerns no one else.
    pub(crate) fn put(&self, frame: &Frame) -> Result<()> {
        let bytes =
            frame.encode().map_err(|source| NetError::TooMuch { what: frame.name(), source })?;
        if !self.outbox.put(bytes) {
            self.blame(Fault::Slow);
        }
        Ok(())
    }

    /// Puts a frame whose parts are of known size.
    pub(crate) fn put_small(&self, frame: &Frame) {
        if let Err(error) = self.put(frame) {
            tracing::error!(peer = %self.peer, %error, "a frame was not sent");
        }
    }

    /// The peer has proved that it is a member of something.
    pub(crate) fn open_wide(&self) {
        let control = u32::from(!self.dialled);
        transport::open_wide(&self.connection, crate::limits::REQUESTS_MAX + control);
    }

    /// Lives as long as the connection.
    pub(crate) async fn run(self: Arc<Self>) {
        tracing::debug!(peer = %self.peer, dialled = self.dialled, "connected");
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().converse());
        tasks.spawn(self.clone().watch_lobby());
        let why = Close::from(self.connection.closed().await);
        tasks.shutdown().await;
        self.finish(&why);
    }

    async fn converse(self: Arc<Self>) {
        let control = if self.dialled {
            self.connection.open_bi().await
        } else {
            self.connection.accept_bi().await
        };
        let Ok((mut send, mut receive)) = control else { return };
        // Heads must not wait behind chunks.
        let _ = send.set_priority(1);
        let mut tasks = JoinSet::new();
        let link = self.clone();
        tasks.spawn(async move {
            loop {
                let frame = link.outbox.next().await;
                if send.write_all(&frame).await.is_err() {
                    break link.close(Close::Done);
                }
                link.outbox.sent(frame.len());
            }
        });
        tasks.spawn(serve::accept(self.clone()));
        loop {
            self.outbox.room().await;
            let fault = match frames::read(&mut receive).await {
                Ok(frame) => match self.take(frame).await {
                    Ok(()) => continue,
                    Err(fault) => fault,
                },
                Err(NoFrame::Malformed(error)) => Fault::Malformed(error),
                Err(NoFrame::End) => return self.close(Close::Done),
                Err(NoFrame::Gone) => return,
            };
            return self.blame(fault);
        }
    }

    /// A connection that nobody uses for a portal is closed.
    async fn watch_lobby(self: Arc<Self>) {
        let mut since = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if self.talk().is_in_use() {
                since = Instant::now();
            } else if since.elapsed() > LOBBY {
                tracing::debug!(peer = %self.peer, "no portal was opened");
                return self.close(Close::Idle);
            }
        }
    }

    fn finish(&self, why: &Close) {
        let error = self.error();
        self.shared.roll.remove(self);
        let ended = self.talk().end(&error);
        ended.iter().for_each(|session| self.shared.end(session));
        self.shared.send.forget(&self.peer);
        self.shared.receive.forget(&self.peer);
        tracing::info!(peer = %self.peer, reason = %why, "connection over");
    }

    /// Ends a session: numbers that stand for it mean nothing any more.
    pub(crate) fn end(&self, session: &Session, last: Option<Frame>) {
        self.talk().forget(session);
        self.shared.end(session);
        if let Some(frame) = last {
            self.put_small(&frame);
        }
    }
}

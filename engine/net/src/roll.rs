//! Who is connected, and which portals are open with whom.
//!
//! Promises: one link for each peer and one session for each peer and portal;
//! `joined` and `left` reach the daemon in the order in which they happened,
//! and `left` never ends a session that has been replaced. Never: calls the
//! daemon while a lock is held. Tested by `tests/sessions.rs`.

use crate::close::Close;
use crate::limits::{AT_ONCE, LINKS_MAX, LOBBY_MAX};
use crate::link::Link;
use crate::pace::Pacer;
use crate::service::{News, Service};
use crate::session::Session;
use crate::tls::Identity;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::{Semaphore, mpsc, oneshot};
use warp_format::wire::Frame;
use warp_format::{DeviceId, PortalId};

/// What the links of an endpoint have in common.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) roll: Roll,
    pub(crate) send: Pacer,
    pub(crate) receive: Pacer,
    /// Batches of chunks that are held for all peers.
    pub(crate) batches: Semaphore,
    pub(crate) calls: mpsc::UnboundedSender<Call>,
}

/// What is to be done on a thread that may block, one after the other.
pub(crate) enum Call {
    Joined(Session, oneshot::Sender<()>),
    Left(PortalId, DeviceId),
    Announce(PortalId, News),
    Tell(Session, News),
    Recheck(PortalId),
    Flush(oneshot::Sender<()>),
}

/// Does the calls; ends with the endpoint.
pub(crate) async fn make_calls(shared: Weak<Shared>, mut calls: mpsc::UnboundedReceiver<Call>) {
    while let Some(call) = calls.recv().await {
        let Some(shared) = shared.upgrade() else { return };
        let done = tokio::task::spawn_blocking(move || shared.make(call)).await;
        if let Err(error) = done {
            tracing::error!(%error, "a call of the service failed");
        }
    }
}

impl Shared {
    fn make(&self, call: Call) {
        match call {
            Call::Joined(session, done) => {
                self.service.joined(session);
                let _ = done.send(());
            }
            Call::Left(portal, peer) => self.service.left(&portal, &peer),
            Call::Announce(portal, news) => {
                for session in self.roll.sessions(&portal) {
                    self.tell(&session, &news);
                }
            }
            Call::Tell(session, news) => self.tell(&session, &news),
            Call::Recheck(portal) => {
                for session in self.roll.sessions(&portal) {
                    self.is_admitted(&session);
                }
            }
            Call::Flush(done) => {
                let _ = done.send(());
            }
        }
    }

    fn tell(&self, session: &Session, news: &News) {
        if session.is_closed() || !self.is_admitted(session) {
            return;
        }
        if let Err(error) = session.link.put(&session.frame(news.clone())) {
            tracing::error!(portal = %session.portal, %error, "news cannot be told");
        }
    }

    /// Whether the peer may still be told of this portal; if not, the session
    /// ends. May block.
    pub(crate) fn is_admitted(&self, session: &Session) -> bool {
        let admitted = self.service.admits(&session.portal, &session.link.peer);
        if !admitted {
            tracing::info!(peer = %session.link.peer, portal = %session.portal, "no longer a member");
            session.link.end(session, Some(Frame::Refused { session: session.number }));
        }
        admitted
    }

    /// A session begins; the receiver hears when the daemon knows.
    pub(crate) fn begin(&self, session: &Session) -> oneshot::Receiver<()> {
        let (done, told) = oneshot::channel();
        let key = (session.portal, session.link.peer);
        let mut roll = self.roll.inner();
        if let Some(old) = roll.sessions.insert(key, session.clone()) {
            old.mark_closed();
            self.call(Call::Left(key.0, key.1));
        }
        self.call(Call::Joined(session.clone(), done));
        told
    }

    /// A session is over, if it was the one there is.
    pub(crate) fn end(&self, session: &Session) {
        session.mark_closed();
        let key = (session.portal, session.link.peer);
        let mut roll = self.roll.inner();
        if roll.sessions.get(&key).is_some_and(|now| now.is_same(session)) {
            roll.sessions.remove(&key);
            self.call(Call::Left(key.0, key.1));
        }
    }

    pub(crate) fn call(&self, call: Call) {
        // Nobody takes calls any more when the endpoint is gone.
        let _ = self.calls.send(call);
    }
}

#[derive(Default)]
struct Inner {
    links: HashMap<DeviceId, Arc<Link>>,
    sessions: HashMap<(PortalId, DeviceId), Session>,
    is_closed: bool,
}

/// The links and sessions that there are.
#[derive(Default)]
pub(crate) struct Roll {
    inner: Mutex<Inner>,
}

impl Roll {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a link; false if it is closed instead, because the peer has a
    /// better one or because there are too many.
    pub(crate) fn enter(&self, link: &Arc<Link>) -> bool {
        let mut inner = self.inner();
        let lobby = inner.links.values().filter(|l| !l.dialled && !l.talk().is_in_use()).count();
        if inner.is_closed {
            link.close(Close::Done);
            return false;
        }
        if let Some(old) = inner.links.get(&link.peer).filter(|old| !old.is_closed()) {
            // Dialled by both at once: the one that the lesser device dialled
            // stays, and both sides know which that is. Otherwise a peer that
            // dials has lost the old one.
            let at_once = old.since.elapsed() < AT_ONCE && old.dialled != link.dialled;
            if at_once && old.dialler() < link.dialler() {
                link.close(Close::Replaced);
                return false;
            }
            old.close(Close::Replaced);
        } else if inner.links.len() >= LINKS_MAX || (!link.dialled && lobby >= LOBBY_MAX) {
            tracing::warn!(peer = %link.peer, links = inner.links.len(), lobby, "too many connections");
            link.close(Close::Full);
            return false;
        }
        inner.links.insert(link.peer, link.clone());
        true
    }

    /// The link to a peer, if there is one that works.
    pub(crate) fn link(&self, peer: &DeviceId) -> Option<Arc<Link>> {
        self.inner().links.get(peer).filter(|link| !link.is_closed()).cloned()
    }

    pub(crate) fn remove(&self, link: &Link) {
        let mut inner = self.inner();
        if inner.links.get(&link.peer).is_some_and(|now| std::ptr::eq(&**now, link)) {
            inner.links.remove(&link.peer);
        }
    }

    /// The session with a peer, if it is on this link.
    pub(crate) fn session_on(&self, link: &Link, portal: &PortalId) -> Option<Session> {
        let inner = self.inner();
        let session = inner.sessions.get(&(*portal, link.peer))?;
        (std::ptr::eq(&*session.link, link) && !session.is_closed()).then(|| session.clone())
    }

    /// All sessions of a portal.
    pub(crate) fn sessions(&self, portal: &PortalId) -> Vec<Session> {
        let inner = self.inner();
        inner.sessions.values().filter(|session| session.portal == *portal).cloned().collect()
    }

    pub(crate) fn has_links(&self) -> bool {
        !self.inner().links.is_empty()
    }

    /// Closes every link and takes no more.
    pub(crate) fn close(&self) {
        let links: Vec<_> = {
            let mut inner = self.inner();
            inner.is_closed = true;
            inner.links.values().cloned().collect()
        };
        links.iter().for_each(|link| link.close(Close::Done));
    }
}

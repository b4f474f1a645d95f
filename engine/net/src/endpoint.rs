//! The one endpoint of a device: it listens, dials, and finds the session.
//!
//! First of this crate's steps, before `tls`, `link` and `talk`. Promises: a
//! session is with the very device that was asked for, or there is none;
//! addresses are tried side by side; two devices that dial each other at once
//! end with one connection; handshakes under way are bounded, and an address
//! that does not receive cannot use them up. Never: remembers addresses.
//! Tested by `tests/identity.rs`, `tests/sessions.rs`.

use crate::close::Close;
use crate::error::{NetError, Reach, Result};
use crate::limits::{ADDRS_MAX, ANSWER, BATCHES_MAX, HANDSHAKES_MAX, HANDSHAKES_UNCHECKED_MAX};
use crate::link::Link;
use crate::pace::Pacer;
use crate::roll::{Call, Roll, Shared, make_calls};
use crate::service::{News, Service, Welcome};
use crate::session::Session;
use crate::tls::Identity;
use crate::transport;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use warp_format::keys::SigningKey;
use warp_format::wire::Redeem;
use warp_format::{DeviceId, PortalId, Secret};

/// How fast chunks may travel, in bytes per second; `None` is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Sent to all peers together.
    pub send: Option<NonZeroU64>,
    /// Sent to each peer.
    pub send_per_peer: Option<NonZeroU64>,
    /// Received from all peers together.
    pub receive: Option<NonZeroU64>,
    /// Received from each peer.
    pub receive_per_peer: Option<NonZeroU64>,
}

/// The endpoint of this device: there is one, for all its portals. It closes
/// when it is dropped.
pub struct Endpoint {
    quinn: quinn::Endpoint,
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
    /// One dial to a peer at a time.
    dials: Mutex<HashMap<DeviceId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Endpoint {
    /// Listens. `seed` is the device's signing seed. Must be called within a
    /// tokio runtime that has I/O and time.
    pub async fn bind(
        seed: &Secret,
        listen: SocketAddr,
        rates: Rates,
        service: Arc<dyn Service>,
    ) -> Result<Self> {
        let invalid = |_| NetError::Listen { addr: listen, kind: io::ErrorKind::InvalidInput };
        let identity = Identity::new(seed).map_err(invalid)?;
        let quinn = transport::listen(&identity, listen)?;
        let (calls, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            identity,
            service,
            roll: Roll::default(),
            send: Pacer::new(rates.send, rates.send_per_peer),
            receive: Pacer::new(rates.receive, rates.receive_per_peer),
            batches: Semaphore::new(BATCHES_MAX),
            calls,
        });
        tokio::spawn(make_calls(Arc::downgrade(&shared), queue));
        let (sending, receiving) = (shared.clone(), shared.clone());
        let tasks = vec![
            tokio::spawn(accept(quinn.clone(), shared.clone())).abort_handle(),
            tokio::spawn(async move { sending.send.run().await }).abort_handle(),
            tokio::spawn(async move { receiving.receive.run().await }).abort_handle(),
        ];
        Ok(Self { quinn, shared, tasks, dials: Mutex::default() })
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        self.shared.identity.device()
    }

    /// Where peers can dial it: for a wildcard address, those of the
    /// interfaces that are not loopback, if there are any.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let Ok(bound) = self.quinn.local_addr() else { return Vec::new() };
        if !bound.ip().is_unspecified() {
            return vec![bound];
        }
        let usable = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_loopback(),
            // A link-local address means nothing without its interface.
            IpAddr::V6(ip) => bound.is_ipv6() && !ip.is_loopback() && !ip.is_unicast_link_local(),
        };
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let addrs = interfaces.iter().map(if_addrs::Interface::ip).filter(usable);
        let mut addrs: Vec<_> = addrs.map(|ip| SocketAddr::new(ip, bound.port())).collect();
        if addrs.is_empty() {
            addrs.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), bound.port()));
        }
        addrs
    }

    /// Changes the rates of what travels from now on.
    pub fn set_rates(&self, rates: Rates) {
        self.shared.send.set(rates.send, rates.send_per_peer);
        self.shared.receive.set(rates.receive, rates.receive_per_peer);
    }

    /// A session for the portal with this very device: on the connection that
    /// there is, or on one to any of these addresses, tried side by side.
    pub async fn open(
        &self,
        peer: DeviceId,
        addrs: &[SocketAddr],
        portal: PortalId,
    ) -> Result<Session> {
        let service = self.shared.service.clone();
        let access = tokio::task::spawn_blocking(move || {
            service.portals().into_iter().find(|(id, _)| *id == portal).map(|(_, access)| access)
        });
        let access = access.await.ok().flatten().ok_or(NetError::NoSuchPortal(portal))?;
        self.on_link(peer, addrs, |link| {
            let access = access.clone();
            async move {
                if let Some(session) = link.shared.roll.session_on(&link, &portal) {
                    return Ok(session);
                }
                answer(&link, link.hello(portal, access)?).await
            }
        })
        .await
    }

    /// Redeems an invite at this very device. `invite` is the seed of the
    /// invite's key, `wrap` the X25519 key to which secrets shall be wrapped.
    pub async fn redeem(
        &self,
        peer: DeviceId,
        addrs: &[SocketAddr],
        invite: &Secret,
        wrap: [u8; 32],
        name: &str,
    ) -> Result<Welcome> {
        let key = SigningKey::from_seed(invite);
        self.on_link(peer, addrs, |link| {
            let redeem = Redeem::sign(&key, &link.exporter, &self.device(), wrap, name);
            async move { answer(&link, link.redeem(redeem)?).await }
        })
        .await
    }

    /// Does something on the link to a peer; once more on another link if that
    /// one was closed for a reason that does not concern the other.
    async fn on_link<T, F>(
        &self,
        peer: DeviceId,
        addrs: &[SocketAddr],
        act: impl Fn(Arc<Link>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut tries = 0;
        loop {
            let link = self.link(peer, addrs).await?;
            let done = act(link.clone()).await;
            tries += 1;
            match &done {
                Err(NetError::Closed { why: Close::Replaced, .. }) if tries < 4 => {
                    self.await_link(peer).await;
                }
                Err(NetError::Closed { why, .. }) if why.is_retryable() && tries < 2 => {}
                _ => return done,
            }
        }
    }

    /// Gives the connection that has replaced another the time to be entered.
    async fn await_link(&self, peer: DeviceId) {
        let since = Instant::now();
        while self.shared.roll.link(&peer).is_none() && since.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn link(&self, peer: DeviceId, addrs: &[SocketAddr]) -> Result<Arc<Link>> {
        if let Some(link) = self.shared.roll.link(&peer) {
            return Ok(link);
        }
        let turn = {
            let mut dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody dials any more are held by the map alone.
            dials.retain(|_, turn| Arc::strong_count(turn) > 1);
            dials.entry(peer).or_default().clone()
        };
        let _turn = turn.lock().await;
        if let Some(link) = self.shared.roll.link(&peer) {
            return Ok(link);
        }
        let connection = self.dial(peer, addrs).await?;
        let Some(link) = Link::new(connection, true, self.shared.clone()) else {
            return Err(NetError::Unexpected { peer, what: "a handshake without a key" });
        };
        if self.shared.roll.enter(&link) {
            tokio::spawn(link.clone().run());
            return Ok(link);
        }
        self.shared.roll.link(&peer).ok_or_else(|| link.error())
    }

    /// The first connection to this device that any of the addresses gives.
    async fn dial(&self, peer: DeviceId, addrs: &[SocketAddr]) -> Result<quinn::Connection> {
        let config = transport::dial(&self.shared.identity, peer);
        let mut last = Reach::NoAddress;
        let mut dials = JoinSet::new();
        let mut tried: Vec<SocketAddr> = Vec::new();
        for addr in addrs {
            if tried.len() == ADDRS_MAX || tried.contains(addr) || peer == self.device() {
                continue;
            }
            tried.push(*addr);
            let addr = *addr;
            let config = config.clone().map_err(|why| Reach::Failed { addr, why });
            let connecting = config.and_then(|config| {
                let started = self.quinn.connect_with(config, addr, "warp");
                started.map_err(|error| Reach::Failed { addr, why: error.to_string() })
            });
            match connecting {
                Ok(connecting) => {
                    dials.spawn(async move { connected(addr, connecting).await });
                }
                Err(reach) => last = reach,
            }
        }
        while let Some(done) = dials.join_next().await {
            match done {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(reach)) => {
                    tracing::debug!(%peer, error = %reach, "an address did not do");
                    last = reach;
                }
                Err(_) => {}
            }
        }
        Err(NetError::Unreachable { peer, tried: tried.len(), last })
    }

    /// Tells all sessions of this portal, in the order of the calls.
    pub fn announce(&self, portal: &PortalId, news: News) {
        self.shared.call(Call::Announce(*portal, news));
    }

    /// All sessions of this portal.
    pub fn sessions(&self, portal: &PortalId) -> Vec<Session> {
        self.shared.roll.sessions(portal)
    }

    /// Ends the sessions of those whom [`Service::admits`] admits no longer.
    /// Without it, that happens when something is next told or asked.
    pub fn recheck(&self, portal: &PortalId) {
        self.shared.call(Call::Recheck(*portal));
    }

    /// Closes every connection and the socket; when it returns, the service
    /// has heard of the end of every session.
    pub async fn close(&self) {
        self.shared.roll.close();
        self.quinn.close(Close::Done.code(), b"closed");
        // Each link ends its sessions when it sees that it is closed.
        let since = Instant::now();
        while self.shared.roll.has_links() && since.elapsed() < ANSWER {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (done, told) = oneshot::channel();
        self.shared.call(Call::Flush(done));
        let _ = told.await;
        let _ = tokio::time::timeout(Duration::from_secs(1), self.quinn.wait_idle()).await;
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.roll.close();
        self.quinn.close(Close::Done.code(), b"closed");
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What a peer answers, if it does so in time.
async fn answer<T>(link: &Link, told: oneshot::Receiver<Result<T>>) -> Result<T> {
    match tokio::time::timeout(ANSWER, told).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(link.error()),
        Err(_) => Err(NetError::Late { peer: link.peer, after_ms: ANSWER.as_millis() as u64 }),
    }
}

async fn connected(
    addr: SocketAddr,
    connecting: quinn::Connecting,
) -> Result<quinn::Connection, Reach> {
    match tokio::time::timeout(ANSWER, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(Reach::Silent { addr }),
        Ok(Err(quinn::ConnectionError::TransportError(error)))
            if error.reason.contains("NotValidForName") =>
        {
            Err(Reach::OtherDevice { addr })
        }
        Ok(Err(error)) => Err(Reach::Failed { addr, why: error.to_string() }),
    }
}

/// Takes connections that others dial.
async fn accept(quinn: quinn::Endpoint, shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = quinn.accept().await {
        let under_way = HANDSHAKES_MAX - handshakes.available_permits();
        if under_way >= HANDSHAKES_UNCHECKED_MAX && incoming.may_retry() {
            // Fails only for one that has been checked already.
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let addr = incoming.remote_address();
            let connection = match incoming.accept() {
                Ok(connecting) => tokio::time::timeout(ANSWER, connecting).await,
                Err(error) => return tracing::debug!(%addr, %error, "no handshake"),
            };
            drop(permit);
            match connection {
                Ok(Ok(connection)) => {
                    if let Some(link) = Link::new(connection, false, shared.clone())
                        && shared.roll.enter(&link)
                    {
                        link.run().await;
                    }
                }
                Ok(Err(error)) => tracing::warn!(%addr, %error, "handshake refused"),
                Err(_) => tracing::warn!(%addr, "handshake not finished in time"),
            }
        });
    }
}

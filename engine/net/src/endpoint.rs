//! The one endpoint of a device.

use crate::error::{NetError, Result};
use crate::service::{News, Service, Welcome};
use crate::session::Session;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
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

/// The endpoint of this device: there is one, for all its portals.
pub struct Endpoint {}

impl Endpoint {
    /// Listens. `seed` is the device's signing seed. Must be called within a
    /// tokio runtime that has I/O and time.
    pub async fn bind(
        seed: &Secret,
        listen: SocketAddr,
        rates: Rates,
        service: Arc<dyn Service>,
    ) -> Result<Self> {
        let _ = (seed, rates, service);
        Err(NetError::Listen { addr: listen, kind: std::io::ErrorKind::Unsupported })
    }
    /// This device.
    pub fn device(&self) -> DeviceId {
        DeviceId([0; 32])
    }
    /// Where peers can dial it: for a wildcard address, those of the interfaces.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
    /// Changes the rates of what travels from now on.
    pub fn set_rates(&self, rates: Rates) {
        let _ = rates;
    }
    /// A session for the portal with this very device: on the connection that
    /// there is, or on one to any of these addresses, tried side by side.
    pub async fn open(
        &self,
        peer: DeviceId,
        addrs: &[SocketAddr],
        portal: PortalId,
    ) -> Result<Session> {
        let _ = portal;
        Err(NetError::Unreachable { peer, tried: addrs.len(), last: crate::Reach::NoAddress })
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
        let _ = (invite, wrap, name);
        Err(NetError::Unreachable { peer, tried: addrs.len(), last: crate::Reach::NoAddress })
    }
    /// Tells all sessions of this portal.
    pub fn announce(&self, portal: &PortalId, news: News) {
        let _ = (portal, news);
    }
    /// All sessions of this portal.
    pub fn sessions(&self, portal: &PortalId) -> Vec<Session> {
        let _ = portal;
        Vec::new()
    }
    /// Ends the sessions of a portal that is served no longer, or of members
    /// that are admitted no longer.
    pub fn recheck(&self, portal: &PortalId) {
        let _ = portal;
    }
    /// Closes every connection and the socket.
    pub async fn close(&self) {}
}

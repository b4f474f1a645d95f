//! What can go wrong between peers, and what the caller may do about it.

use crate::close::Close;
use std::io;
use std::net::SocketAddr;
use warp_format::wire::Denied;
use warp_format::{DeviceId, FormatError};

/// Why something with a peer did not work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetError {
    /// No address of the device led to it.
    #[error("peer {peer}: none of {tried} addresses answered as this device: {last}")]
    Unreachable {
        /// The device.
        peer: DeviceId,
        /// How many addresses were tried.
        tried: usize,
        /// The last of them, and what came of it.
        last: Reach,
    },
    /// The peer does not know the portal, or does not hold this device for a
    /// member (any more): it does not say which.
    #[error("peer {peer}: refused; it lacks the portal, or this device is not a member there")]
    Refused {
        /// The peer.
        peer: DeviceId,
    },
    /// The invite was not honoured.
    #[error("peer {peer}: the invite is refused: {why}")]
    Denied {
        /// The peer that was asked.
        peer: DeviceId,
        /// Its reason.
        why: Denied,
    },
    /// The peer sent what the protocol does not allow.
    #[error("peer {peer}: broke the protocol: {source}")]
    Malformed {
        /// The peer.
        peer: DeviceId,
        /// What is wrong with its bytes.
        source: FormatError,
    },
    /// The peer sent something well-formed that has no place there.
    #[error("peer {peer}: broke the protocol: {what}")]
    Unexpected {
        /// The peer.
        peer: DeviceId,
        /// What it did.
        what: &'static str,
    },
    /// The connection is over.
    #[error("peer {peer}: the connection is over: {why}")]
    Closed {
        /// The peer.
        peer: DeviceId,
        /// Why.
        why: Close,
    },
    /// The peer gave up on one request; the connection goes on.
    #[error("peer {peer}: it stopped answering this request")]
    Stopped {
        /// The peer.
        peer: DeviceId,
    },
    /// The peer did not answer in time.
    #[error("peer {peer}: no answer within {after_ms} ms")]
    Late {
        /// The peer.
        peer: DeviceId,
        /// How long it was waited for.
        after_ms: u64,
    },
    /// The caller asked for more than fits a frame, or for nothing.
    #[error("{what}: {source}")]
    TooMuch {
        /// What does not fit.
        what: &'static str,
        /// The limit.
        source: FormatError,
    },
    /// The portal is not one that this device serves.
    #[error("portal {0}: not one of this device's")]
    NoSuchPortal(warp_format::PortalId),
    /// The endpoint is closed.
    #[error("the endpoint is closed")]
    EndpointClosed,
    /// A socket cannot be had.
    #[error("cannot listen on {addr}: {kind}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        kind: io::ErrorKind,
    },
    /// Announcing on the local network does not work.
    #[error("mDNS: {what}")]
    Discovery {
        /// What the library says.
        what: String,
    },
}

/// What came of trying one address.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Reach {
    /// There was no address to try.
    #[error("no usable address is known")]
    NoAddress,
    /// Nothing answered in time.
    #[error("{addr} does not answer")]
    Silent {
        /// The address.
        addr: SocketAddr,
    },
    /// Something answered that is not this device.
    #[error("{addr} is another device")]
    OtherDevice {
        /// The address.
        addr: SocketAddr,
    },
    /// The address cannot be used from here, or the handshake failed.
    #[error("{addr}: {why}")]
    Failed {
        /// The address.
        addr: SocketAddr,
        /// What failed.
        why: String,
    },
}

impl NetError {
    /// Whether the same may work later or elsewhere.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Stopped { .. } | Self::Late { .. } => true,
            Self::Closed { why, .. } => why.is_retryable(),
            _ => false,
        }
    }

    /// Whether the peer did what no honest peer does.
    pub fn blames_peer(&self) -> bool {
        matches!(self, Self::Malformed { .. } | Self::Unexpected { .. })
    }
}

/// Result of this crate.
pub type Result<T, E = NetError> = core::result::Result<T, E>;

//! What this device offers to its peers: the side of the daemon.

use crate::session::Session;
use warp_format::wire::{Change, Changed, Denied, Have, Listed};
use warp_format::{ChunkId, DeviceId, PortalId, SealedChunk, Secret};

/// What this device offers; implemented by the daemon.
///
/// Every method may block: it is called on a thread for blocking work. None
/// may wait for the network: `heard` of a peer holds up what else that peer
/// says, which is how a flood is slowed down.
pub trait Service: Send + Sync + 'static {
    /// Portals served here, with their access keys.
    fn portals(&self) -> Vec<(PortalId, Secret)>;

    /// Whether this device may be told of this portal now. It is asked at
    /// every `Hello`, every request and every announcement, so that a member
    /// who is removed gets nothing more on a connection that is open.
    fn admits(&self, portal: &PortalId, device: &DeviceId) -> bool;

    /// Whether the membership chain, as far as it is known here, has never
    /// named this device: it may have been added where this device has not
    /// heard of it. It is then asked for the chain and proves itself again.
    /// Must be false for a device that was removed or has expired.
    fn is_stranger(&self, portal: &PortalId, device: &DeviceId) -> bool {
        let _ = (portal, device);
        false
    }

    /// The sealed chunk, if it is here.
    fn chunk(&self, portal: &PortalId, id: &ChunkId) -> Option<SealedChunk>;

    /// Chunks that are here and came after these: at most
    /// [`MAX_LISTED_IDS`](warp_format::limits::MAX_LISTED_IDS).
    fn list(&self, portal: &PortalId, after: u64) -> Listed;

    /// A member wants the membership chain changed. Whether it may is asked
    /// here; what this returns as done must be durable.
    fn change(&self, portal: &PortalId, member: &DeviceId, change: Change) -> Changed;

    /// Signed heads to tell a peer at first: the newest of each device known.
    fn heads(&self, portal: &PortalId) -> Vec<Vec<u8>>;

    /// The membership chain from the record at this position on; at most what
    /// fits a frame ([`MAX_MEMBERS_FRAME_LEN`] less 64 bytes), the earliest first.
    ///
    /// [`MAX_MEMBERS_FRAME_LEN`]: warp_format::limits::MAX_MEMBERS_FRAME_LEN
    fn members(&self, portal: &PortalId, from: u64) -> Vec<u8>;

    /// A peer told something. It has proved the access key and is a member,
    /// except that [`News::Members`] may come from a stranger, too.
    fn heard(&self, portal: &PortalId, peer: &DeviceId, news: News);

    /// Someone redeems an invite, whose secret half they have been shown to
    /// hold. What this returns as done must be durable.
    fn redeem(&self, ask: Joiner) -> Result<Welcome, Denied>;

    /// A session of a portal with a peer begins, whoever dialled.
    fn joined(&self, session: Session);

    /// It is over.
    fn left(&self, portal: &PortalId, peer: &DeviceId);
}

/// What peers push to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A signed head.
    Head(Vec<u8>),
    /// Records of the membership chain.
    Members(Vec<u8>),
    /// What the peer holds.
    Have(Have),
}

/// A device that redeems an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joiner {
    /// The device: it has shown to be this one.
    pub device: DeviceId,
    /// Public half of the invite's key: it has shown to hold the other half.
    pub invite: DeviceId,
    /// The X25519 key to which the portal's secrets shall be wrapped.
    pub wrap: [u8; 32],
    /// What it wants to be called.
    pub name: String,
}

/// What a new member is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The whole membership chain, the record that adds it included.
    pub members: Vec<u8>,
}

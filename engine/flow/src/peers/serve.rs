//! What peers are told and given.
//!
//! Neighbours: `net`, which asks once it has seen who asks. Promises: every
//! answer is about a portal that is shared now, to one who is a member now.
//! Never: waits for the network. Tested by `tests/tests/peers.rs`.

use super::{Core, Link, tell};
use crate::error::FlowError;
use crate::members::{NotJoined, now_secs};
use crate::swarm::Peer as _;
use std::sync::Arc;
use warp_format::limits::MAX_LISTED_IDS;
use warp_format::members::NotGood;
use warp_format::{ChunkId, DeviceId, FormatError, PortalId, SealedChunk, Secret};
use warp_net::{
    Change, Changed, Denied, Joiner, Listed, News, Service, Session, Unchanged, Welcome,
};

impl Service for Core {
    fn portals(&self) -> Vec<(PortalId, Secret)> {
        self.all().iter().map(|shared| (shared.id, shared.access.clone())).collect()
    }

    fn admits(&self, portal: &PortalId, device: &DeviceId) -> bool {
        self.shared(portal).is_some_and(|shared| shared.chain().admits(device, now_secs()))
    }

    fn is_stranger(&self, portal: &PortalId, device: &DeviceId) -> bool {
        self.shared(portal).is_some_and(|shared| shared.chain().member(device).is_none())
    }

    fn chunk(&self, portal: &PortalId, id: &ChunkId) -> Option<SealedChunk> {
        self.shared(portal)?.chunk(id)
    }

    fn list(&self, portal: &PortalId, after: u64) -> Listed {
        let listed = self.shared(portal).map(|shared| shared.store().list(after, MAX_LISTED_IDS));
        listed.map_or(Listed { next: after, ids: Vec::new() }, |page| Listed {
            next: page.next,
            ids: page.ids,
        })
    }

    fn change(&self, portal: &PortalId, member: &DeviceId, change: Change) -> Changed {
        let Some(shared) = self.shared(portal) else {
            return Changed::Unchanged { why: Unchanged::NotFounder };
        };
        let done = self.portals.alter(&shared.name, member, change).and_then(|invites| {
            self.members_changed(&shared)?;
            Ok(invites)
        });
        match done {
            Ok(invites) => {
                tracing::info!(%portal, peer = %member, "changed who is a member, as it asked");
                Changed::Done { invites }
            }
            Err(e) => {
                tracing::warn!(%portal, peer = %member, "a change of the members is refused: {e}");
                let why = match e {
                    FlowError::NotAllowed { .. }
                    | FlowError::Corrupt(FormatError::NotAllowed { .. }) => Unchanged::NotAllowed,
                    FlowError::NotFounder { .. } | FlowError::NotShared => Unchanged::NotFounder,
                    FlowError::Corrupt(FormatError::Invalid { .. }) => Unchanged::Invalid,
                    _ => Unchanged::Failed,
                };
                Changed::Unchanged { why }
            }
        }
    }

    fn heads(&self, portal: &PortalId) -> Vec<Vec<u8>> {
        self.shared(portal).map(|shared| shared.heads()).unwrap_or_default()
    }

    fn members(&self, portal: &PortalId, from: u64) -> Vec<u8> {
        self.shared(portal)
            .map(|shared| shared.chain().bytes_from(from).to_vec())
            .unwrap_or_default()
    }

    fn heard(&self, portal: &PortalId, peer: &DeviceId, news: News) {
        let Some(shared) = self.shared(portal) else { return };
        match news {
            News::Head(bytes) => match shared.take_head(&bytes, *peer) {
                Ok(true) => self.announce(portal, News::Head(bytes)),
                Ok(false) => {}
                Err(e) => tracing::warn!(%portal, %peer, "a head is refused: {e}"),
            },
            News::Members(bytes) => match self.portals.update_members(&shared.name, &bytes) {
                Ok(Some(chain)) => {
                    self.take_chain(&shared, Arc::new(chain));
                    self.announce(portal, News::Members(bytes));
                }
                Ok(None) => {}
                Err(e) => tracing::warn!(%portal, %peer, "members are refused: {e}"),
            },
            News::Have(have) => {
                let link = shared.links().get(peer).map(Arc::clone);
                let Some(link) = link else { return };
                match link.hear(have) {
                    Ok(()) => {
                        if let Some(swarm) = &shared.swarm {
                            swarm.told(*peer);
                        }
                        shared.heard.notify_one();
                    }
                    Err(e) => tracing::warn!(%portal, %peer, "what it has is passed over: {e}"),
                }
            }
        }
    }

    fn redeem(&self, ask: Joiner) -> Result<Welcome, Denied> {
        for shared in self.all() {
            let device = (ask.device, ask.wrap);
            match self.portals.redeem(&shared.name, &ask.invite, device, &ask.name) {
                Ok(chain) => {
                    let members = chain.bytes_from(0).to_vec();
                    tracing::info!(portal = %shared.id, peer = %ask.device, "a device has joined");
                    let known = shared.chain().len();
                    self.announce(&shared.id, News::Members(chain.bytes_from(known).to_vec()));
                    self.take_chain(&shared, Arc::new(chain));
                    return Ok(Welcome { members });
                }
                // Another portal may know it.
                Err(
                    NotJoined::NotGood(NotGood::Unknown)
                    | NotJoined::Failed(FlowError::NotFounder { .. }),
                ) => {}
                Err(why) => {
                    tracing::warn!(portal = %shared.id, peer = %ask.device, "a ticket is refused: {why}");
                    return Err((&why).into());
                }
            }
        }
        tracing::warn!(peer = %ask.device, "a ticket is refused: it is none of ours");
        Err(Denied::Unknown)
    }

    fn joined(&self, session: Session) {
        let (portal, peer) = (session.portal(), session.peer());
        let Some(shared) = self.shared(&portal) else { return };
        shared.note_address(peer, session.address());
        session.ask_members(shared.chain().len());
        let link = Arc::new(Link::new(session));
        tracing::info!(%portal, %peer, rtt_us = link.rtt().as_micros() as u64, "connected");
        shared.links().insert(peer, Arc::clone(&link));
        tell::introduce(&shared, &link);
        if let Some(swarm) = &shared.swarm {
            swarm.joined(link);
        }
        shared.heard.notify_one();
    }

    fn left(&self, portal: &PortalId, peer: &DeviceId) {
        let Some(shared) = self.shared(portal) else { return };
        {
            let mut links = shared.links();
            // It may be that of an earlier session, whose place another took.
            if links.get(peer).is_some_and(|link| !link.session.is_closed()) {
                return;
            }
            links.remove(peer);
        }
        tracing::info!(%portal, %peer, "disconnected");
        if let Some(swarm) = &shared.swarm {
            swarm.left(*peer);
        }
        shared.dial.notify_one();
    }
}

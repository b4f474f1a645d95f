//! Who is removed from a portal, and what is sealed from then on.
//!
//! Neighbours: `members` keeps the chain; `live` and `follow` take its secrets.
//! Promises: a member is removed and the next epoch begins, both or neither,
//! whatever comes between; when that returns, nothing that is published on this
//! device is sealed with a secret that the removed one has; what is open hears
//! of every longer chain. Never: hands a secret to one whose time is over.
//! Tested by `engine/flow/tests/epochs.rs`.

use super::{Portals, STATE};
use crate::error::Result;
use crate::follow::Follower;
use crate::home::random_secret;
use crate::members::{self, Membership, now_secs};
use crate::portal::Portal;
use crate::publish;
use std::path::Path;
use std::sync::{PoisonError, Weak};
use warp_format::members::{Act, Chain};
use warp_format::{DeviceId, PortalId};

/// A portal that was opened, for as long as it is.
pub(super) enum Open {
    /// This device writes it.
    Own(Weak<Portal>),
    /// Another does.
    Joined(Weak<Follower>),
}

impl Open {
    fn is_gone(&self) -> bool {
        match self {
            Self::Own(portal) => portal.strong_count() == 0,
            Self::Joined(follower) => follower.strong_count() == 0,
        }
    }
}

impl Portals {
    /// What the chain in a portal's directory says to this device.
    pub(super) fn membership(&self, directory: &Path) -> Result<Membership> {
        let Some(chain) = members::read(directory)? else { return Ok(Membership::default()) };
        let mut membership = Membership::of(&chain, &self.device)?;
        // A device whose key was recovered was handed nothing; its owner made
        // the secrets of what was written here.
        if membership.epoch() < chain.epoch() && publish::has_heads(&directory.join(STATE)) {
            membership.epochs = chain.secrets_made_by(&self.key);
        }
        Ok(membership)
    }

    /// From now on it is told of its chain.
    pub(super) fn note_opened(&self, portal: PortalId, open: Open) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|(_, open)| !open.is_gone());
        opened.push((portal, open));
    }

    /// Tells what is open of a chain that is on the disk. One that comes too
    /// late, behind a longer one, changes nothing.
    pub(super) fn tell_opened(&self, chain: &Chain) -> Result<()> {
        let membership = Membership::of(chain, &self.device)?;
        let mut own = Vec::new();
        let mut joined = Vec::new();
        {
            let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            for (_, open) in opened.iter().filter(|(id, _)| *id == chain.portal()) {
                match open {
                    Open::Own(portal) => own.extend(portal.upgrade()),
                    Open::Joined(follower) => joined.extend(follower.upgrade()),
                }
            }
        }
        own.iter().for_each(|portal| portal.take_membership(&membership));
        joined.iter().for_each(|follower| follower.take_membership(&membership));
        Ok(())
    }

    /// A device is a member no more, and what is written from now on is sealed
    /// with a secret that it is not handed.
    pub(super) fn remove(&self, chain: &mut Chain, device: &DeviceId, now: u64) -> Result<()> {
        let reads = chain.member(device).is_some_and(|member| member.reads());
        chain.append(&self.key(), now, Act::Remove { device: *device, last: 0 })?;
        // A custodian never had a secret that opens anything.
        if reads { self.rotate(chain, now) } else { Ok(()) }
    }

    /// If the time of a member who reads is over, it is removed, and what is
    /// written from now on is sealed with a secret that it is not handed. True
    /// if there was one. Of a portal that another device made, nothing is done.
    pub fn end_expired(&self, name: &str) -> Result<bool> {
        let now = now_secs();
        let is_due = |chain: &Chain| {
            chain.founder() == self.key().device_id() && !expired(chain, now).is_empty()
        };
        let (_, directory) = self.record(name)?;
        if !members::read(&directory)?.is_some_and(|chain| is_due(&chain)) {
            return Ok(false);
        }
        self.change(name, |chain| {
            let due = is_due(chain);
            if due {
                self.rotate(chain, now)?;
            }
            Ok(due)
        })
    }

    /// The next epoch begins, without those whose time is over.
    fn rotate(&self, chain: &mut Chain, now: u64) -> Result<()> {
        let key = self.key();
        for device in expired(chain, now) {
            chain.append(&key, now, Act::Remove { device, last: 0 })?;
        }
        let rotation = chain.rotation(&chain.next_secret(&self.key), random_secret)?;
        Ok(chain.append(&key, now, rotation)?)
    }
}

/// Who would be handed the next secret although their time is over.
pub(crate) fn expired(chain: &Chain, now: u64) -> Vec<DeviceId> {
    let readers = chain.readers().map(|member| member.device);
    readers.filter(|device| !chain.admits(device, now)).collect()
}

//! The membership chain: who belongs to a portal, and what they may do.
//!
//! Records in one order, each signed by a member who may, and holding the hash
//! of the one before it. Neighbours: `wrap` for the secrets that a record hands
//! to a new member; `flow::members` keeps the chain on the disk, peers tell it
//! to each other. Promises: a chain that opens was made step by step by those
//! who could make each step; nobody gives a right that they lack; the founder
//! stays; a longer chain replaces a shorter one only if it begins with it.
//! Never: reads a clock (times are the caller's, in seconds since 1970), holds
//! a secret in the clear. Tested by `tests/prop_members.rs`, the unit tests
//! below and fuzz target `members`.

mod record;

pub use record::{Act, Capability};

use crate::error::{FormatError, Result};
use crate::id::{DeviceId, PortalId};
use crate::keys::{Secret, SigningKey};
use crate::limits::{EXPIRY_TOLERANCE_SECS, MAX_CHAIN_LEN, MAX_EPOCHS, MAX_MEMBERS, MAX_RECORDS};
use crate::wrap::{Handed, WrapKey, WrappedEpoch, unwrap_epoch, wrap_epoch};
use record::Record;
use std::collections::BTreeMap;

const AT: &str = "membership chain";

/// A device that is, or was, a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub capability: Capability,
    /// It may invite others to what it may do itself.
    pub may_invite: bool,
    /// When it was added, as who added it says.
    pub since: u64,
    /// Its X25519 key, to which secrets are wrapped.
    pub wrap_key: [u8; 32],
    /// It is a member until then.
    pub expires: Option<u64>,
    /// It was removed; its heads count up to this number.
    pub removed: Option<u64>,
    /// What was handed to it when it was added, wrapped.
    pub handed: Vec<u8>,
    /// Secrets of the epochs that began since, wrapped.
    pub epochs: Vec<(u32, WrappedEpoch)>,
}

impl Member {
    /// True if secrets of contents are handed to it.
    pub fn reads(&self) -> bool {
        self.capability > Capability::Custodian
    }

    /// True if it may invite others to that: nobody gives what they lack, and
    /// only an admin gives the right to invite.
    fn may_give(&self, capability: Capability, may_invite: bool) -> bool {
        self.capability == Capability::Admin
            || (self.may_invite && capability <= self.capability && !may_invite)
    }
}

/// An invite that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invite {
    /// What who redeems it may do.
    pub capability: Capability,
    /// And whether they may invite others to that.
    pub may_invite: bool,
    /// It is good until then.
    pub expires: u64,
    /// So many may still redeem it.
    pub uses_left: u32,
    /// It was taken back.
    pub closed: bool,
}

/// Why an invite is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotGood {
    /// There is none of this key.
    #[error("it is none of this portal's")]
    Unknown,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// As many as may have redeemed it.
    #[error("it has been used")]
    Used,
    /// It was taken back.
    #[error("it was taken back")]
    Closed,
}

/// A chain that has been checked from its first record on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    portal: PortalId,
    name: String,
    founder: DeviceId,
    members: BTreeMap<DeviceId, Member>,
    invites: BTreeMap<DeviceId, Invite>,
    epoch: u32,
    /// Hash of the record before each rotation.
    rotations: Vec<[u8; 32]>,
    bytes: Vec<u8>,
    /// Where each record ends in `bytes`.
    ends: Vec<usize>,
    last: [u8; 32],
}

impl Chain {
    /// A new chain: its founder is its first member, and may do everything.
    pub fn found(
        key: &SigningKey,
        portal: PortalId,
        name: &str,
        device_name: &str,
        wrap_key: [u8; 32],
        time: u64,
    ) -> Result<Self> {
        let founder = key.device_id();
        let act =
            Act::Found { portal, name: name.into(), device_name: device_name.into(), wrap_key };
        let record = Record { position: 0, before: [0; 32], signer: founder, time, act };
        Self::open(&record.sign(key)?)
    }

    /// The chain in these bytes, every record of it checked.
    pub fn open(bytes: &[u8]) -> Result<Self> {
        let (first, len) = Record::open_first(bytes)?;
        let Act::Found { portal, name, device_name, wrap_key } = first.act else {
            return Err(FormatError::Invalid { at: AT });
        };
        if first.position != 0 || first.before != [0; 32] {
            return Err(FormatError::Invalid { at: AT });
        }
        let founder = Member {
            device: first.signer,
            name: device_name,
            capability: Capability::Admin,
            may_invite: true,
            since: first.time,
            wrap_key,
            expires: None,
            removed: None,
            handed: Vec::new(),
            epochs: Vec::new(),
        };
        let mut chain = Self {
            portal,
            name,
            founder: first.signer,
            members: BTreeMap::from([(first.signer, founder)]),
            invites: BTreeMap::new(),
            epoch: 0,
            rotations: Vec::new(),
            bytes: Vec::new(),
            ends: Vec::new(),
            last: [0; 32],
        };
        chain.note(&bytes[..len]);
        chain.take_all(&bytes[len..])?;
        Ok(chain)
    }

    fn note(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
        self.last = *blake3::hash(record).as_bytes();
    }

    fn take_all(&mut self, mut rest: &[u8]) -> Result<()> {
        while !rest.is_empty() {
            let (record, len) = Record::open_first(rest)?;
            let limits = [
                (self.ends.len() as u64 + 1, MAX_RECORDS as u64),
                ((self.bytes.len() + len) as u64, MAX_CHAIN_LEN as u64),
            ];
            if let Some((value, limit)) = limits.into_iter().find(|(value, limit)| value > limit) {
                return Err(FormatError::Limit { at: AT, value, limit });
            }
            if record.position != self.len() || record.before != self.last {
                return Err(FormatError::Invalid { at: AT });
            }
            self.apply(&record)?;
            self.note(&rest[..len]);
            rest = &rest[len..];
        }
        Ok(())
    }

    /// Checks that the signer may do what the record says, and does it.
    fn apply(&mut self, record: &Record) -> Result<()> {
        let refused = FormatError::NotAllowed { at: AT };
        let signer = self.members.get(&record.signer).filter(|member| member.removed.is_none());
        let Some(signer) = signer else { return Err(refused) };
        let is_admin = signer.capability == Capability::Admin;
        match &record.act {
            Act::Found { .. } => Err(FormatError::Invalid { at: AT }),
            Act::Invite { key, capability, may_invite, expires, uses } => {
                if !signer.may_give(*capability, *may_invite) {
                    return Err(refused);
                }
                if self.invites.contains_key(key) || *uses == 0 {
                    return Err(FormatError::Invalid { at: AT });
                }
                let invite = Invite {
                    capability: *capability,
                    may_invite: *may_invite,
                    expires: *expires,
                    uses_left: *uses,
                    closed: false,
                };
                self.invites.insert(*key, invite);
                Ok(())
            }
            Act::Add { invite, .. } => {
                let found = *self.good_invite(invite, record.time).map_err(|_| refused.clone())?;
                if !signer.may_give(found.capability, found.may_invite) {
                    return Err(refused);
                }
                self.add(&record.act, found, record.time)
            }
            Act::Remove { device, last } => {
                let member = self.changed(device, is_admin)?;
                member.removed = Some(*last);
                Ok(())
            }
            Act::Expire { device, at } => {
                let member = self.changed(device, is_admin)?;
                member.expires = *at;
                Ok(())
            }
            Act::CloseInvites => {
                if !is_admin {
                    return Err(refused);
                }
                self.invites.values_mut().for_each(|invite| invite.closed = true);
                Ok(())
            }
            Act::Rotate { epoch, wraps } => {
                if !is_admin {
                    return Err(refused);
                }
                self.rotated(*epoch, wraps, &record.before)
            }
        }
    }

    /// True if a member may have a portal's founder do this in its place: what
    /// it could do itself, were it the one who changes the chain.
    pub fn allows(&self, device: &DeviceId, act: &Act, now: u64) -> bool {
        let member = self.members.get(device).filter(|_| self.admits(device, now));
        let Some(member) = member else { return false };
        match act {
            Act::Invite { capability, may_invite, .. } => member.may_give(*capability, *may_invite),
            Act::Remove { .. } | Act::Expire { .. } | Act::CloseInvites => {
                member.capability == Capability::Admin
            }
            Act::Found { .. } | Act::Add { .. } | Act::Rotate { .. } => false,
        }
    }

    /// A device becomes a member by an invite that is good.
    fn add(&mut self, act: &Act, found: Invite, since: u64) -> Result<()> {
        let Act::Add { device, wrap_key, name, invite, handed } = act else {
            return Err(FormatError::Invalid { at: AT });
        };
        if self.members.get(device).is_some_and(|member| member.removed.is_none()) {
            return Err(FormatError::Invalid { at: AT });
        }
        if self.members.len() >= MAX_MEMBERS && !self.members.contains_key(device) {
            let (value, limit) = (self.members.len() as u64 + 1, MAX_MEMBERS as u64);
            return Err(FormatError::Limit { at: AT, value, limit });
        }
        let member = Member {
            device: *device,
            name: name.clone(),
            capability: found.capability,
            may_invite: found.may_invite,
            since,
            wrap_key: *wrap_key,
            expires: None,
            removed: None,
            handed: handed.clone(),
            epochs: Vec::new(),
        };
        self.members.insert(*device, member);
        if let Some(invite) = self.invites.get_mut(invite) {
            invite.uses_left -= 1;
        }
        Ok(())
    }

    /// The next epoch begins; everybody who reads is handed its secret, and
    /// nobody else.
    fn rotated(
        &mut self,
        epoch: u32,
        wraps: &[(DeviceId, WrappedEpoch)],
        before: &[u8; 32],
    ) -> Result<()> {
        let limit = MAX_EPOCHS as u64;
        if u64::from(epoch) > limit {
            return Err(FormatError::Limit {
                at: "removals of members",
                value: epoch.into(),
                limit,
            });
        }
        let handed = wraps.iter().map(|(device, _)| device);
        if epoch != self.epoch + 1 || !handed.eq(self.readers().map(|member| &member.device)) {
            return Err(FormatError::Invalid { at: AT });
        }
        self.epoch = epoch;
        self.rotations.push(*before);
        for (device, wrap) in wraps {
            if let Some(member) = self.members.get_mut(device) {
                member.epochs.push((epoch, *wrap));
            }
        }
        Ok(())
    }

    /// The record that begins the next epoch with this secret, which must be
    /// random; so must each that `fresh` gives.
    pub fn rotation<E: From<FormatError>>(
        &self,
        secret: &Secret,
        mut fresh: impl FnMut() -> Result<Secret, E>,
    ) -> Result<Act, E> {
        let epoch = self.epoch + 1;
        let mut wraps = Vec::new();
        for member in self.readers() {
            let wrap = wrap_epoch(secret, epoch, &self.portal, &member.wrap_key, &fresh()?)?;
            wraps.push((member.device, wrap));
        }
        Ok(Act::Rotate { epoch, wraps })
    }

    /// Secrets of the epochs after 0 that a member was handed, in order.
    pub fn secrets_of(&self, device: &DeviceId, key: &WrapKey) -> Result<Vec<(u32, Secret)>> {
        let Some(member) = self.members.get(device) else { return Ok(Vec::new()) };
        let mut secrets = Vec::new();
        // Nothing was handed to the founder, who was there first.
        if *device != self.founder {
            secrets = Handed::unwrap(&member.handed, &self.portal, key)?.epochs;
        }
        for (epoch, wrap) in &member.epochs {
            secrets.push((*epoch, unwrap_epoch(wrap, *epoch, &self.portal, key)?));
        }
        Ok(secrets)
    }

    /// The secret of the next epoch, as this owner makes it: from their own
    /// secret and from all that the chain says so far, so that it comes back
    /// with the recovery phrase, and is never handed to two sets of members.
    pub fn next_secret(&self, owner: &Secret) -> Secret {
        owner.for_epoch(&self.portal, self.epoch + 1, &self.last)
    }

    /// The secrets of all epochs after 0, if this owner made them.
    pub fn secrets_made_by(&self, owner: &Secret) -> Vec<(u32, Secret)> {
        let made = |(epoch, before)| (epoch, owner.for_epoch(&self.portal, epoch, before));
        (1..).zip(&self.rotations).map(made).collect()
    }

    /// Number of the newest epoch; 0 before the first rotation.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The members to whom secrets of contents are handed, by id.
    pub fn readers(&self) -> impl Iterator<Item = &Member> {
        self.members().filter(|member| member.reads())
    }

    /// A member that an admin ends: anyone but the founder.
    fn changed(&mut self, device: &DeviceId, by_admin: bool) -> Result<&mut Member> {
        if !by_admin || *device == self.founder {
            return Err(FormatError::NotAllowed { at: AT });
        }
        let member = self.members.get_mut(device).filter(|member| member.removed.is_none());
        member.ok_or(FormatError::Invalid { at: AT })
    }

    /// Adds a record. Fails, with nothing changed, if this device may not.
    pub fn append(&mut self, key: &SigningKey, time: u64, act: Act) -> Result<()> {
        let signer = key.device_id();
        let record = Record { position: self.len(), before: self.last, signer, time, act };
        let bytes = record.sign(key)?;
        let mut next = self.clone();
        next.take_all(&bytes)?;
        *self = next;
        Ok(())
    }

    /// This chain and what these records add to it; `None` if they add nothing.
    /// They may begin anywhere up to its end; where they say something else
    /// than this chain, it is `FormatError::Forked`.
    pub fn extended(&self, records: &[u8]) -> Result<Option<Self>> {
        if records.is_empty() {
            return Ok(None);
        }
        let (first, _) = Record::open_first(records)?;
        let position = usize::try_from(first.position).unwrap_or(usize::MAX);
        let start = match position {
            0 => 0,
            n => *self.ends.get(n - 1).ok_or(FormatError::Truncated { at: AT })?,
        };
        let known = &self.bytes[start..];
        let common = known.len().min(records.len());
        if known[..common] != records[..common] {
            return Err(FormatError::Forked { at: AT });
        }
        if records.len() <= known.len() {
            return Ok(None);
        }
        let mut longer = self.clone();
        longer.take_all(&records[common..])?;
        Ok(Some(longer))
    }

    /// The portal.
    pub fn portal(&self) -> PortalId {
        self.portal
    }

    /// What the portal is called where it was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who made it.
    pub fn founder(&self) -> DeviceId {
        self.founder
    }

    /// Count of records: the position of the next.
    pub fn len(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Never: the founder's record is always there.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The records from this position on, whole, as they were signed.
    pub fn bytes_from(&self, position: u64) -> &[u8] {
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        let start = match position {
            0 => 0,
            n => self.ends.get(n - 1).copied().unwrap_or(self.bytes.len()),
        };
        &self.bytes[start..]
    }

    /// All who are members and were not removed, by id; some may have expired.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.removed.is_none())
    }

    /// A device that is, or was, a member.
    pub fn member(&self, device: &DeviceId) -> Option<&Member> {
        self.members.get(device)
    }

    /// True if a device is a member now.
    pub fn admits(&self, device: &DeviceId, now: u64) -> bool {
        let is_open = |member: &Member| {
            let until = member.expires.map(|at| at.saturating_add(EXPIRY_TOLERANCE_SECS));
            member.removed.is_none() && until.is_none_or(|until| now < until)
        };
        self.members.get(device).is_some_and(is_open)
    }

    /// True if a head of this number counts that the device has signed.
    pub fn may_publish(&self, device: &DeviceId, sequence: u64) -> bool {
        self.members.get(device).is_some_and(|member| {
            member.capability >= Capability::Writer
                && member.removed.is_none_or(|last| sequence <= last)
        })
    }

    /// An invite that can be redeemed now, or why not.
    pub fn good_invite(&self, key: &DeviceId, now: u64) -> Result<&Invite, NotGood> {
        let invite = self.invites.get(key).ok_or(NotGood::Unknown)?;
        if invite.closed {
            return Err(NotGood::Closed);
        }
        if invite.uses_left == 0 {
            return Err(NotGood::Used);
        }
        if now >= invite.expires.saturating_add(EXPIRY_TOLERANCE_SECS) {
            return Err(NotGood::Expired);
        }
        Ok(invite)
    }

    /// How many invites can be redeemed now.
    pub fn open_invites(&self, now: u64) -> usize {
        self.invites.keys().filter(|key| self.good_invite(key, now).is_ok()).count()
    }
}

#[cfg(test)]
mod tests;

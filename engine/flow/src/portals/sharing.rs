//! What of a device's portals concerns other devices.
//!
//! Neighbours: `peers` and the daemon, which ask; `members` keeps the chains.
//! Promises: what is told to a new member was durable before; an invite is
//! redeemed as often as it says, also across restarts; a portal that is joined
//! is here whole or not at all. Never: lets anyone but a portal's founder
//! change its chain: two who do at once could not both be right.
//! Tested by `engine/flow/tests/members.rs`.

use super::epochs::Open;
use super::{Portals, RECORD, STATE, check_name, lock, nearest};
use crate::archive::TreeKeys;
use crate::error::{FlowError, Result};
use crate::follow::Follower;
use crate::home::{make_private_dir, random_array, random_secret, sync_dir, write_private};
use crate::keep::Keeper;
use crate::members::{self, Membership, NotJoined, now_secs};
use crate::portals::PortalEntry;
use crate::publish;
use crate::space;
use crate::swarm::Swarm;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use warp_cache::disk::{Disk, HostDisk};
use warp_cache::store::Store;
use warp_format::keys::SigningKey;
use warp_format::members::{Act, Capability, Chain, NotGood};
use warp_format::portal::{MAX_PORTAL_NAME_LEN, PortalKey, PortalRecord};
use warp_format::wire::Change;
use warp_format::wrap::{Handed, WrapKey};
use warp_format::{DeviceId, Secret};

impl Portals {
    pub(super) fn key(&self) -> SigningKey {
        SigningKey::from_seed(&self.device)
    }

    /// This device.
    pub fn me(&self) -> DeviceId {
        self.key().device_id()
    }

    /// Held while a chain is changed.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The X25519 key to which this device is handed secrets.
    pub fn wrap_key(&self) -> [u8; 32] {
        WrapKey::of_device(&self.device).public()
    }

    /// Who is a member of a portal; `FlowError::NotShared` if nobody else ever
    /// was invited.
    pub fn chain(&self, name: &str) -> Result<Chain> {
        let (_, directory) = self.record(name)?;
        members::read(&directory)?.ok_or(FlowError::NotShared)
    }

    /// True if others were invited to it, or this device was.
    pub fn is_shared(&self, name: &str) -> Result<bool> {
        let (_, directory) = self.record(name)?;
        Ok(members::read(&directory)?.is_some())
    }

    /// True if another device writes it.
    pub fn is_joined(&self, name: &str) -> Result<bool> {
        let (_, directory) = self.record(name)?;
        self.is_anothers(&directory)
    }

    /// True if this device is a custodian of it, and can read nothing.
    pub fn is_kept(&self, name: &str) -> Result<bool> {
        Ok(self.record(name)?.0.key.root().is_none())
    }

    pub(super) fn is_anothers(&self, directory: &Path) -> Result<bool> {
        let Some(chain) = members::read(directory)? else { return Ok(false) };
        // Where heads were written it was this device, or what it was before
        // its key was recovered.
        Ok(chain.founder() != self.key().device_id() && !publish::has_heads(&directory.join(STATE)))
    }

    /// What every member of a portal can show to have.
    pub fn access_key(&self, name: &str) -> Result<Secret> {
        Ok(self.record(name)?.0.key.access())
    }

    /// Changes the chain of a portal of this device, and makes that durable.
    pub(super) fn change<T>(
        &self,
        name: &str,
        how: impl FnOnce(&mut Chain) -> Result<T>,
    ) -> Result<T> {
        let one = self.changing();
        let (_, directory) = self.record(name)?;
        let mut chain = members::read(&directory)?.ok_or(FlowError::NotShared)?;
        if chain.founder() != self.key().device_id() {
            return Err(FlowError::NotFounder { founder: chain.founder() });
        }
        let before = chain.len();
        let done = how(&mut chain)?;
        if chain.len() > before {
            members::write(&directory, &chain)?;
            drop(one);
            self.tell_opened(&chain)?;
        }
        Ok(done)
    }

    /// Begins a portal's chain if nobody was ever invited to it; `device` is
    /// what this device is called.
    pub fn found(&self, name: &str, device: &str) -> Result<()> {
        let _one = self.changing();
        let (record, directory) = self.record(name)?;
        if members::read(&directory)?.is_none() {
            let (key, wrap) = (self.key(), self.wrap_key());
            let chain = Chain::found(&key, record.id, &record.name, device, wrap, now_secs())?;
            members::write(&directory, &chain)?;
        }
        Ok(())
    }

    /// Changes who is a member of a portal of this device, as a member wants
    /// it, this device or another. Gives how many invites that closed.
    /// `FlowError::NotAllowed` if the one who wants it lacks the right.
    pub fn alter(&self, name: &str, by: &DeviceId, change: Change) -> Result<u64> {
        self.change(name, |chain| {
            let now = now_secs();
            if !chain.allows(by, &change.act(), now) {
                return Err(FlowError::NotAllowed { device: *by });
            }
            match change {
                Change::Remove { device } => self.remove(chain, &device, now).map(|()| 0),
                Change::CloseInvites => {
                    let open = chain.open_invites(now);
                    if open > 0 {
                        chain.append(&self.key(), now, Act::CloseInvites)?;
                    }
                    Ok(open as u64)
                }
                Change::Invite { .. } | Change::Expire { .. } => {
                    chain.append(&self.key(), now, change.act())?;
                    Ok(0)
                }
            }
        })
    }

    /// Makes a device a member that has shown to hold an invite's key; gives
    /// the chain with it. One that is a member already is told so again: it
    /// may not have heard the first time.
    pub fn redeem(
        &self,
        name: &str,
        invite: &DeviceId,
        (device, wrap): (DeviceId, [u8; 32]),
        device_name: &str,
    ) -> Result<Chain, NotJoined> {
        let (record, now) = (self.record(name)?.0, now_secs());
        let mut not_good = None;
        let done = self.change(name, |chain| {
            let capability = match chain.good_invite(invite, now) {
                Err(why @ NotGood::Unknown) => {
                    not_good = Some(why);
                    return Ok(None);
                }
                _ if is_here(chain, &device, &wrap, now) => return Ok(Some(chain.clone())),
                Ok(invite) => invite.capability,
                Err(why) => {
                    not_good = Some(why);
                    return Ok(None);
                }
            };
            if let Some(old) = chain.member(&device).filter(|member| member.removed.is_none()) {
                // It has expired: it comes anew.
                let act = Act::Remove { device: old.device, last: 0 };
                chain.append(&self.key(), now, act)?;
            }
            let root = record.key.root().ok_or(FlowError::KeepsOnly)?;
            let root = (capability > Capability::Custodian).then(|| root.clone());
            let epochs = match root {
                Some(_) => Membership::of(chain, &self.device)?.epochs,
                None => Vec::new(),
            };
            let handed = Handed { access: record.key.access(), root, epochs };
            let handed = handed.wrap(&record.id, &wrap, &random_secret()?)?;
            let (name, invite) = (free_name(chain, device_name), *invite);
            let act = Act::Add { device, wrap_key: wrap, name, invite, handed };
            chain.append(&self.key(), now, act)?;
            Ok(Some(chain.clone()))
        })?;
        match (done, not_good) {
            (Some(chain), _) => Ok(chain),
            (None, Some(why)) => Err(why.into()),
            (None, None) => Err(NotGood::Unknown.into()),
        }
    }

    /// Takes this device's part in a portal of which it was made a member;
    /// `name` is what it is called here. Where that, or what it is called
    /// elsewhere, is taken, a number is added.
    pub fn join(&self, chain: &[u8], name: Option<&str>) -> Result<PortalEntry> {
        let chain = Chain::open(chain)?;
        let me = self.key().device_id();
        let own = chain.member(&me).filter(|_| chain.admits(&me, now_secs()));
        let own = own.ok_or(FlowError::NotMember)?;
        let own_key = WrapKey::of_device(&self.device);
        let handed = Handed::unwrap(&own.handed, &chain.portal(), &own_key)?;
        let key = handed.root.map_or(PortalKey::Access(handed.access), PortalKey::Root);
        let all = self.directory();
        make_private_dir(&all).map_err(|e| FlowError::io(&all, e))?;
        let _lock = self.lock_all()?;
        self.clear_remains();
        let taken = self.list()?;
        if let Some(entry) = taken.iter().find(|entry| entry.id == chain.portal()) {
            return Err(FlowError::JoinedAlready { name: entry.name.clone() });
        }
        let wanted = name.unwrap_or(chain.name());
        let name = free(wanted, |name| taken.iter().all(|entry| entry.name != name));
        check_name(&name)?;
        let local = random_secret()?;
        let record = PortalRecord { id: chain.portal(), name, key, local, quota: None };
        let short = record.id.to_string();
        let (making, directory) = (all.join(format!(".{short}")), all.join(short));
        let made = self.make_joined(&record, &chain, &making).and_then(|()| {
            fs::rename(&making, &directory)
                .and_then(|()| sync_dir(&all))
                .map_err(|e| FlowError::io(&directory, e))
        });
        if let Err(e) = made {
            let _ = fs::remove_dir_all(&making);
            return Err(e);
        }
        Ok(PortalEntry { name: record.name, id: record.id, directory })
    }

    fn make_joined(&self, record: &PortalRecord, chain: &Chain, directory: &Path) -> Result<()> {
        let state = directory.join(STATE);
        make_private_dir(&state).map_err(|e| FlowError::io(&state, e))?;
        members::write(directory, chain)?;
        let path = directory.join(RECORD);
        let bytes = record.seal(&self.key, random_array()?)?;
        write_private(&path, &bytes).map_err(|e| FlowError::io(&path, e))
    }

    /// Takes a longer chain that a peer told; `None` if it was not longer.
    pub fn update_members(&self, name: &str, records: &[u8]) -> Result<Option<Chain>> {
        let one = self.changing();
        let (_, directory) = self.record(name)?;
        let known = members::read(&directory)?.ok_or(FlowError::NotShared)?;
        let longer = known.extended(records)?;
        if let Some(longer) = &longer {
            members::write(&directory, longer)?;
            drop(one);
            self.tell_opened(longer)?;
        }
        Ok(longer)
    }

    /// A member by its name, or by the start of its id; and its name.
    pub fn find_member(&self, name: &str, typed: &str) -> Result<(DeviceId, String)> {
        let chain = self.chain(name)?;
        let is_meant = |device: &DeviceId, name: &str| {
            name == typed || (typed.len() >= 6 && format!("{device:#}").starts_with(typed))
        };
        let mut found = chain.members().filter(|member| is_meant(&member.device, &member.name));
        match (found.next(), found.next()) {
            (Some(member), None) => Ok((member.device, member.name.clone())),
            _ => {
                let names = chain.members().map(|member| member.name.clone());
                Err(FlowError::NoMember { name: typed.to_owned(), nearest: nearest(typed, names) })
            }
        }
    }

    /// Opens a portal that this device has joined; `swarm` gives the way to
    /// its peers.
    pub fn open_joined(
        &self,
        name: &str,
        swarm: impl FnOnce(&Arc<Store>) -> Arc<Swarm>,
    ) -> Result<Arc<Follower>> {
        let OnDisk { record, directory, lock, disk, store } = self.open_on_disk(name)?;
        let keys: Arc<TreeKeys> = self.secrets(&record)?.read_keys().into();
        let swarm = swarm(&store);
        let _one = self.changing();
        keys.take(&self.membership(&directory)?.epochs);
        let source = (store, swarm);
        let follower = Follower::start(disk, record.id, &record.local, keys, source, Some(lock))?;
        self.note_opened(record.id, Open::Joined(Arc::downgrade(&follower)));
        Ok(follower)
    }

    /// Opens a portal of which this device is a custodian.
    pub fn open_kept(
        &self,
        name: &str,
        swarm: impl FnOnce(&Arc<Store>) -> Arc<Swarm>,
    ) -> Result<Arc<Keeper>> {
        let OnDisk { record, lock, disk, store, .. } = self.open_on_disk(name)?;
        let swarm = swarm(&store);
        Keeper::start(disk, record.id, (store, swarm), lock)
    }

    /// Opens what a portal that another device writes has on this disk.
    fn open_on_disk(&self, name: &str) -> Result<OnDisk> {
        let (record, directory) = self.record(name)?;
        let lock = lock(&directory.join(super::LOCK), name, false)?;
        let state = directory.join(STATE);
        let disk = HostDisk::new(state.clone()).map_err(|e| FlowError::io(&state, e))?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let pack_len = space::pack_len(space::disk_size(&state)?);
        let (store, _) = Store::open_with(Arc::clone(&disk), pack_len)?;
        Ok(OnDisk { record, directory, lock, disk, store: Arc::new(store) })
    }
}

/// A portal's state on this disk, locked.
struct OnDisk {
    record: PortalRecord,
    directory: PathBuf,
    lock: File,
    disk: Arc<dyn Disk>,
    store: Arc<Store>,
}

/// True if a device is a member already, and has what it was handed.
fn is_here(chain: &Chain, device: &DeviceId, wrap: &[u8; 32], now: u64) -> bool {
    chain.admits(device, now) && chain.member(device).is_some_and(|own| own.wrap_key == *wrap)
}

/// The name, or with a number behind it if it is taken.
fn free(name: &str, is_free: impl Fn(&str) -> bool) -> String {
    if is_free(name) {
        return name.to_owned();
    }
    let short: String = name.chars().take(MAX_PORTAL_NAME_LEN / 4 - 2).collect();
    let numbered = (2..).map(|n: u32| format!("{short}-{n}"));
    numbered.into_iter().find(|name| is_free(name)).unwrap_or(short)
}

/// What a new member is called: no two have one name, and it is one line.
fn free_name(chain: &Chain, name: &str) -> String {
    let clean: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
    let clean = if clean.is_empty() { "device".to_owned() } else { clean };
    free(&clean, |name| chain.members().all(|member| member.name != name))
}

//! The portals of this device that are in use, and their mounts.
//!
//! Neighbours: `api` above, which speaks HTTP; `flow::portals` and
//! `fs::kernel` below. Promises: a portal is opened by one user at a time; a
//! mount that ends, by whomever it was ended, is published and closed. Never:
//! runs on the async threads; says a portal's name to the log.
//! Tested by `tests/tests/portal.rs`.

pub(crate) mod sharing;
mod upkeep;

use super::mounted::{Mounted, WAIT_FOR_LAZY, standing};
use super::wire::{
    CreatePortal, GoUp, Identity, IsUp, LeavePortal, Left, MountPortal, MountRow, NamePortal,
    OfMount, PortalRow, PortalStanding, Status, Synced, Unmount, Unmounted,
};
use crate::args::Network;
use crate::cmd::named;
use crate::places::unmount_failure;
use crate::report::{Exit, Failure};
use crate::show;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use warp_flow::home::Home;
use warp_flow::opened::Opened;
use warp_flow::peers::Peers;
use warp_flow::portals::{PortalEntry, Portals};
use warp_flow::{FlowError, Kind};
use warp_format::{DeviceId, Keyring, Secret};
use warp_fs::{Caching, IdMap, Mount, MountError, MountOptions};

/// How long one that wants a portal waits for one that is done with it: the
/// time that a large publish may take.
const WAIT_FOR_PORTAL: Duration = Duration::from_secs(60);
/// How long it is waited for a peer that tells what a portal is that has just
/// been joined.
const WAIT_FOR_HEAD: Duration = Duration::from_secs(10);
/// How often it is looked whether a portal is free, beside being told.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why a request is not fulfilled.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The keyring is sealed, and nobody has unlocked it.
    Locked,
    Failed(Failure),
}

impl Refusal {
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Locked => Failure::new(Exit::Refused, "the keyring is sealed")
                .hint("give `--passphrase-file FILE` or set WARP_PASSPHRASE"),
            Self::Failed(failure) => failure,
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<FlowError> for Refusal {
    fn from(error: FlowError) -> Self {
        Self::Failed(of_portal(error))
    }
}

impl From<MountError> for Refusal {
    fn from(error: MountError) -> Self {
        Self::Failed(error.into())
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// All that this daemon does.
pub(crate) struct Edge {
    home: Home,
    network: Option<Network>,
    state: Mutex<State>,
    /// A portal is free again.
    freed: Condvar,
    /// Something happened after which the daemon may have to end.
    pub(crate) activity: Notify,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<Keys>>,
    uses: Vec<Use>,
    stays: bool,
    ends: bool,
    connections: usize,
}

/// What an opened keyring gives.
struct Keys {
    portals: Arc<Portals>,
    identity: Identity,
    /// This device, and the seed of its key.
    id: DeviceId,
    device: Secret,
    /// Once a portal is shared.
    peers: Mutex<Option<Arc<Peers>>>,
}

/// A portal that is in use.
struct Use {
    id: String,
    what: What,
}

#[derive(Clone)]
enum What {
    /// For one request, or until it is mounted.
    Short,
    Mounted(Arc<Mounted>),
    /// Open for peers.
    Shared(Opened),
}

/// Frees a portal at the end of a request, or leaves it to the peers again.
struct Reserved<'a> {
    edge: &'a Edge,
    id: String,
    shared: Option<Opened>,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut state = self.edge.state();
        match self.shared.take() {
            Some(opened) => {
                let own = |u: &&mut Use| u.id == self.id && matches!(u.what, What::Short);
                if let Some(own) = state.uses.iter_mut().find(own) {
                    own.what = What::Shared(opened);
                }
            }
            None => state.uses.retain(|u| u.id != self.id || !matches!(u.what, What::Short)),
        }
        drop(state);
        self.edge.freed.notify_all();
        self.edge.activity.notify_one();
    }
}

impl Edge {
    /// It stays when there is nothing to do if it was told how to use the
    /// network; else it uses it as the settings say.
    pub(crate) fn new(home: Home, network: Option<Network>) -> Arc<Self> {
        let state = State { stays: network.is_some(), ..State::default() };
        Arc::new(Self {
            home,
            network,
            state: Mutex::new(state),
            freed: Condvar::new(),
            activity: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is made in one step, so a panic left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a client in; `None` once the daemon takes on nothing new.
    pub(crate) fn arrive(self: &Arc<Self>) -> Option<Present> {
        let mut state = self.state();
        if state.ends {
            return None;
        }
        state.connections += 1;
        Some(Present { edge: Arc::clone(self) })
    }

    /// True while a client is connected.
    pub(crate) fn has_clients(&self) -> bool {
        self.state().connections > 0
    }

    /// True if nobody would miss this daemon.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        !state.stays && state.uses.is_empty() && state.connections == 0
    }

    /// True once it takes on nothing new.
    pub(crate) fn ends(&self) -> bool {
        self.state().ends
    }

    /// Takes on nothing new.
    pub(crate) fn stop(&self) {
        self.state().ends = true;
        self.activity.notify_one();
    }

    fn keys(&self) -> Result<Arc<Keys>> {
        if let Some(keys) = &self.state().keys {
            return Ok(Arc::clone(keys));
        }
        self.open_keyring(None)
    }

    /// Fails with [`Refusal::Locked`] while the keyring is sealed.
    pub(super) fn check_unlocked(self: &Arc<Self>, (): ()) -> Result<()> {
        self.keys().map(drop)
    }

    fn open_keyring(&self, passphrase: Option<&[u8]>) -> Result<Arc<Keys>> {
        let path = self.home.keyring_path();
        let Some(bytes) = self.home.read_keyring()? else {
            return Err(no_key(&path).into());
        };
        let bad = |source| corrupt_keyring(FlowError::File { path: path.clone(), source });
        if Keyring::is_sealed(&bytes).map_err(bad)? && passphrase.is_none() {
            return Err(Refusal::Locked);
        }
        let keyring = Keyring::open(&bytes, passphrase).map_err(bad)?;
        let keys = Arc::new(Keys {
            portals: Arc::new(Portals::new(&self.home, &keyring)?),
            identity: identity(&keyring)?,
            id: keyring.device_key().device_id(),
            device: keyring.device_secret(),
            peers: Mutex::default(),
        });
        {
            let mut state = self.state();
            if let Some(keys) = &state.keys {
                // Another request was faster.
                return Ok(Arc::clone(keys));
            }
            state.keys = Some(Arc::clone(&keys));
        }
        tracing::info!(device = %keys.id, "keyring opened");
        self.share_all(&keys);
        Ok(keys)
    }

    /// Opens a sealed keyring.
    pub(crate) fn unlock(&self, passphrase: &[u8]) -> Result<()> {
        if self.state().keys.is_none() {
            self.open_keyring(Some(passphrase))?;
        }
        Ok(())
    }

    /// Takes a portal for one user; waits while another is about to be done
    /// with it. Fails with `Busy` where it is mounted.
    fn reserve(&self, entry: &PortalEntry) -> Result<Reserved<'_>> {
        let id = format!("{:#}", entry.id);
        let started = Instant::now();
        let mut state = self.state();
        loop {
            if state.ends {
                return Err(Failure::new(Exit::Temporary, "the daemon is about to end")
                    .hint("try again")
                    .into());
            }
            let found = state.uses.iter().find(|u| u.id == id).map(|u| u.what.clone());
            match found {
                None => {
                    state.uses.push(Use { id: id.clone(), what: What::Short });
                    return Ok(Reserved { edge: self, id, shared: None });
                }
                Some(What::Shared(opened)) => {
                    for one in state.uses.iter_mut().filter(|u| u.id == id) {
                        one.what = What::Short;
                    }
                    return Ok(Reserved { edge: self, id, shared: Some(opened) });
                }
                Some(What::Mounted(mounted)) if !mounted.is_over() => {
                    // Somebody else's unmount is seen in the mount table
                    // before the thread that serves it hears of it.
                    let detached = mounted.is_detached();
                    if !detached || started.elapsed() > WAIT_FOR_LAZY {
                        return Err(mounted_already(&entry.name, &mounted, detached).into());
                    }
                }
                Some(_) if started.elapsed() > WAIT_FOR_PORTAL => {
                    let cause = format!("portal {}: is in use", entry.name);
                    return Err(Failure::new(Exit::Busy, cause).hint("try again later").into());
                }
                Some(_) => {}
            }
            let waited = self.freed.wait_timeout(state, LOOK_AGAIN);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn mounts(&self) -> Vec<Arc<Mounted>> {
        let of = |u: &Use| match &u.what {
            What::Mounted(mounted) => Some(Arc::clone(mounted)),
            What::Short | What::Shared(_) => None,
        };
        self.state().uses.iter().filter_map(of).collect()
    }

    fn mount_at(&self, directory: &Path) -> Option<Arc<Mounted>> {
        self.mounts().into_iter().find(|m| m.directory == directory && !m.is_over())
    }

    fn row(&self, entry: &PortalEntry) -> PortalRow {
        let keys = self.state().keys.clone();
        let (joined, kept) = keys.map_or((false, false), |keys| whose(&keys.portals, &entry.name));
        let id = format!("{:#}", entry.id);
        let is_seen = |m: &Mounted| m.id == id && !m.is_over() && !m.is_detached();
        let mounted = self.mounts().into_iter().find(|m| is_seen(m));
        PortalRow {
            name: entry.name.clone(),
            id,
            joined,
            kept,
            mounted_on: mounted.map(|m| m.directory.as_path().into()),
        }
    }

    /// All portals by name; none where there is no key.
    pub(crate) fn list(self: &Arc<Self>, (): ()) -> Result<Vec<PortalRow>> {
        if self.home.read_keyring()?.is_none() {
            return Ok(Vec::new());
        }
        Ok(self.keys()?.portals.list()?.iter().map(|entry| self.row(entry)).collect())
    }

    pub(crate) fn create(self: &Arc<Self>, ask: CreatePortal) -> Result<PortalRow> {
        let entry = self.keys()?.portals.create(&ask.name, (ask.uid, ask.gid), ask.quota)?;
        tracing::info!(portal = %entry.id, "portal made");
        Ok(self.row(&entry))
    }

    /// How a portal stands: one that is not mounted is opened for the answer.
    pub(crate) fn portal(self: &Arc<Self>, ask: NamePortal) -> Result<PortalStanding> {
        let standing = self.with_portal(&ask.name, |portal, _| Ok(standing(&portal.status())))?;
        let entry = self.keys()?.portals.find(&ask.name)?;
        Ok(PortalStanding { portal: self.row(&entry), standing })
    }

    /// Has something done with a portal: with the mounted one, or it is opened
    /// for that alone.
    pub(super) fn with_portal<T>(
        &self,
        name: &str,
        act: impl FnOnce(&Opened, Option<&Mounted>) -> Result<T>,
    ) -> Result<T> {
        let keys = self.keys()?;
        let entry = keys.portals.find(name)?;
        let id = format!("{:#}", entry.id);
        if let Some(mounted) = self.mounts().into_iter().find(|m| m.id == id && !m.is_over()) {
            return act(mounted.portal(), Some(&mounted));
        }
        let reserved = self.reserve(&entry)?;
        if let Some(opened) = &reserved.shared {
            return act(opened, None);
        }
        let portal = self.open(&keys, &entry)?;
        let done = act(&portal, None);
        let closed = portal.close_unpublished();
        let done = done?;
        closed?;
        Ok(done)
    }

    pub(crate) fn leave(self: &Arc<Self>, ask: LeavePortal) -> Result<Left> {
        let keys = self.keys()?;
        let entry = keys.portals.find(&ask.name)?;
        let mut reserved = self.reserve(&entry)?;
        self.unshare(&keys, &entry, &mut reserved);
        let kept = keys.portals.leave(&entry.name, ask.keep_data)?;
        tracing::info!(portal = %entry.id, kept = ask.keep_data, "portal left");
        Ok(Left {
            id: format!("{:#}", entry.id),
            was: entry.directory.as_path().into(),
            kept: kept.as_deref().map(Into::into),
        })
    }

    pub(crate) fn mount(self: &Arc<Self>, ask: MountPortal) -> Result<MountRow> {
        let keys = self.keys()?;
        let entry = keys.portals.find(&ask.portal)?;
        self.keep_free(&PathBuf::from(ask.directory.clone()))?;
        let reserved = self.reserve(&entry).map_err(|refusal| {
            let there = self.mount_at(&PathBuf::from(ask.directory.clone()));
            let same = there.filter(|mounted| mounted.id == format!("{:#}", entry.id));
            same.map_or(refusal, |mounted| mounted_there(&entry.name, &mounted).into())
        })?;
        let (portal, shared) = match &reserved.shared {
            Some(opened) => (opened.clone(), true),
            None => (self.open(&keys, &entry)?, false),
        };
        let path = PathBuf::from(ask.path.clone());
        let mount = match attach(&ask, &entry, &portal, &path) {
            Ok(mount) => mount,
            Err(refusal) => {
                if !shared {
                    // The reason that is told is why it was not mounted.
                    let _ = portal.close_unpublished();
                }
                return Err(refusal);
            }
        };
        let read_only = ask.read_only || portal.is_joined();
        let opened = (portal, shared);
        let mounted = Arc::new(Mounted::new(&entry, path, &mount, read_only, opened));
        let row = mounted.row();
        for one in &mut self.state().uses {
            if one.id == reserved.id {
                one.what = What::Mounted(Arc::clone(&mounted));
            }
        }
        drop(reserved);
        tracing::info!(portal = %entry.id, read_only, "mounted");
        let edge = Arc::clone(self);
        std::thread::spawn(move || {
            // Who waits for the end must not wait for ever; the panic itself
            // is in the log.
            let served = AssertUnwindSafe(|| mounted.serve(mount));
            if std::panic::catch_unwind(served).is_err() {
                mounted.fail();
            }
            edge.forget(&mounted);
        });
        Ok(row)
    }

    /// What hides this home's own files would hide them from this daemon too.
    fn keep_free(&self, directory: &Path) -> Result<()> {
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let target = real(directory);
        let own = [self.home.data(), self.home.run(), &self.home.data().join("portals")];
        if own.into_iter().any(|path| real(path).starts_with(&target)) {
            let cause = format!("{}: warp's own files lie there", directory.display());
            return Err(Failure::new(Exit::Usage, cause).hint("name another directory").into());
        }
        Ok(())
    }

    fn forget(&self, mounted: &Arc<Mounted>) {
        let mut state = self.state();
        let own = |u: &Use| matches!(&u.what, What::Mounted(other) if Arc::ptr_eq(other, mounted));
        if let Opened::Joined(follower) = mounted.portal() {
            follower.set_offline(false);
        }
        if mounted.is_shared() {
            for one in state.uses.iter_mut().filter(|u| own(u)) {
                one.what = What::Shared(mounted.portal().clone());
            }
        } else {
            state.uses.retain(|u| !own(u));
        }
        drop(state);
        self.freed.notify_all();
        mounted.tell_the_end();
        self.activity.notify_one();
    }

    pub(crate) fn unmount(self: &Arc<Self>, ask: Unmount) -> Result<Unmounted> {
        let directory = PathBuf::from(ask.directory);
        let Some(mounted) = self.mount_at(&directory) else {
            return Ok(Unmounted { served: false, ends: false });
        };
        if !ask.lazy {
            mounted.settle(ask.flush)?;
        }
        mounted.unmount(ask.lazy, ask.flush).map_err(|e| unmount_failure(&directory, &e))?;
        mounted.wait_for_the_end()?;
        let mut state = self.state();
        let ends = state.uses.is_empty() && !state.stays;
        // With nobody else there, nothing can be asked of it any more.
        if ends && state.connections == 1 {
            state.ends = true;
            self.activity.notify_one();
        }
        Ok(Unmounted { served: true, ends })
    }

    /// Returns when a mount has ended, and its portal is closed.
    pub(crate) fn wait(self: &Arc<Self>, ask: OfMount) -> Result<()> {
        // One that is unmounted and not closed yet is waited for, too.
        let directory = PathBuf::from(ask.directory);
        match self.mounts().into_iter().rev().find(|m| m.directory == directory) {
            Some(mounted) => Ok(mounted.wait_for_the_end()?),
            None => Ok(()),
        }
    }

    pub(crate) fn sync(self: &Arc<Self>, ask: OfMount) -> Result<Synced> {
        let directory = PathBuf::from(ask.directory);
        let Some(mounted) = self.mount_at(&directory) else {
            let cause = format!("{}: no portal is mounted there", directory.display());
            return Err(Failure::new(Exit::NotFound, cause)
                .hint("`warp status` lists what is mounted")
                .into());
        };
        Ok(Synced { sequence: mounted.sync()? })
    }

    pub(crate) fn status(self: &Arc<Self>, (): ()) -> Result<Status> {
        let (keys, locked) = match self.keys() {
            Ok(keys) => (Some(keys), false),
            Err(Refusal::Locked) => (None, true),
            Err(Refusal::Failed(failure)) if failure.exit == Exit::NotFound => (None, false),
            Err(other) => return Err(other),
        };
        let portals = match &keys {
            Some(keys) => keys.portals.list()?,
            None => Vec::new(),
        };
        let peers = keys.as_ref().map(|keys| Self::peer_rows(keys)).unwrap_or_default();
        // A guard in the expression below would still be there in `row`.
        let stays = self.state().stays;
        Ok(Status {
            stays,
            locked,
            identity: keys.map(|keys| keys.identity.clone()),
            portals: portals.iter().map(|entry| self.row(entry)).collect(),
            mounts: self.mounts().iter().map(|mounted| mounted.row()).collect(),
            peers,
        })
    }

    /// Stays even when there is nothing to do.
    pub(crate) fn up(self: &Arc<Self>, ask: GoUp) -> Result<IsUp> {
        self.state().stays = true;
        Ok(IsUp { differs: ask.network != named(&self.network()?) })
    }

    /// Unmounts everything and ends. A mount that is in use stays, and with
    /// it the daemon.
    pub(crate) fn down(self: &Arc<Self>, (): ()) -> Result<()> {
        let mut in_use = None;
        // The newest first: it may be mounted inside an older one.
        for mounted in self.mounts().into_iter().rev() {
            mounted.settle(true)?;
            match mounted.unmount(false, true) {
                Ok(()) => mounted.wait_for_the_end()?,
                Err(e) => in_use = in_use.or(Some(unmount_failure(&mounted.directory, &e))),
            }
        }
        if let Some(failure) = in_use {
            return Err(failure.into());
        }
        self.close_shared();
        let mut state = self.state();
        state.stays = false;
        state.ends = true;
        self.activity.notify_one();
        Ok(())
    }

    /// The daemon ends: everything is unmounted, published and closed, what
    /// is in use too.
    pub(crate) fn close_all(&self) {
        for mounted in self.mounts().into_iter().rev() {
            if mounted.unmount(false, true).is_err() {
                let _ = mounted.unmount(true, true);
            }
            // Its thread has said in the log what failed.
            if mounted.wait_until_over(WAIT_FOR_LAZY).is_none() {
                mounted.close();
            }
        }
        self.close_shared();
    }
}

/// A map as it was typed; the client has checked it.
fn id_map(ranges: &[(u32, u32, u32)]) -> Result<IdMap> {
    let mut map = IdMap::default();
    for (from, to, count) in ranges {
        map.add(*from, *to, *count)
            .map_err(|e| Failure::new(Exit::Usage, format!("{from}:{to}:{count}: {e}")))?;
    }
    Ok(map)
}

/// A client that is connected.
pub(crate) struct Present {
    edge: Arc<Edge>,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.edge.state().connections -= 1;
        self.edge.activity.notify_one();
    }
}

/// The public keys in a keyring.
pub(crate) fn identity(keyring: &Keyring) -> warp_flow::Result<Identity> {
    Ok(Identity {
        owner: format!("{:#}", keyring.owner_id()?),
        device: format!("{:#}", keyring.device_key().device_id()),
    })
}

/// There is no keyring.
pub(crate) fn no_key(path: &Path) -> Failure {
    Failure::new(Exit::NotFound, format!("{}: no key yet", path.display()))
        .hint("`warp key init` makes one")
}

/// What to do about a keyring that cannot be opened.
pub(crate) fn corrupt_keyring(error: FlowError) -> Failure {
    let damaged = error.kind() == Kind::Integrity;
    let failure = Failure::from(error);
    if damaged {
        failure.hint("move the file away and bring it back with `warp key recover`")
    } else {
        failure
    }
}

/// A failure about a portal: what helps an archive does not help it.
pub(super) fn of_portal(error: FlowError) -> Failure {
    let damaged = error.is_damage();
    let of_record = matches!(&error, FlowError::File { path, .. } if path.ends_with("portal"));
    let mut failure = Failure::from(error);
    if of_record {
        let hint = "it is damaged, or another owner's: `warp key show` says whose keyring this is";
        failure.hint = Some(hint.into());
    } else if damaged {
        failure.hint = Some("what is whole can still be read; copy it elsewhere".into());
    }
    failure
}

/// Why a directory of a portal cannot be mounted.
fn no_such_path(error: FlowError, name: &str, path: &Path) -> Failure {
    let what = match error.kind() {
        Kind::NotFound => "no such directory in the portal",
        Kind::Usage => "is not a directory",
        _ => return of_portal(error),
    };
    Failure::new(error.kind().into(), format!("{name}:{}: {what}", path.display()))
        .hint(format!("`warp mount {} DIR` shows all of it", show::word(Path::new(name))))
}

/// Mounts an open portal.
fn attach(ask: &MountPortal, entry: &PortalEntry, portal: &Opened, path: &Path) -> Result<Mount> {
    let source = format!("{}:{}", entry.name, path.display());
    let mut options = MountOptions::new(ask.directory.clone().into(), &source);
    options.portal = entry.id.to_string();
    options.allow_other = ask.allow_other;
    options.nonempty = ask.nonempty;
    options.read_only = ask.read_only;
    options.no_exec = ask.no_exec;
    if ask.write_through {
        options.caching = Caching::WriteThrough;
    }
    options.users = id_map(&ask.users)?;
    options.groups = id_map(&ask.groups)?;
    let wrong = |e| no_such_path(e, &entry.name, path);
    Ok(match portal {
        Opened::Own(portal) => Mount::new(portal.volume(path).map_err(wrong)?, &options)?,
        Opened::Joined(follower) => {
            options.read_only = true;
            follower.set_offline(ask.offline);
            follower.set_cache_limit(ask.cache_bytes);
            let patience = if ask.offline { Duration::ZERO } else { WAIT_FOR_HEAD };
            if !follower.wait_for_head(patience) {
                return Err(nobody_there(&entry.name).into());
            }
            Mount::new(follower.volume(path).map_err(wrong)?, &options)?
        }
        Opened::Kept(_) => {
            let failure = Failure::from(FlowError::KeepsOnly);
            let cause = format!("portal {}: {}", entry.name, failure.cause);
            return Err(Failure::new(failure.exit, cause)
                .hint("a ticket of `warp portal invite --read-only` lets another device mount it")
                .into());
        }
    })
}

/// A portal that was joined, and of which nothing is known yet.
fn nobody_there(name: &str) -> Failure {
    let cause = format!(
        "portal {name}: no device that has it can be reached, and nothing of it is here yet"
    );
    Failure::new(Exit::Temporary, cause)
        .hint("start warp where the portal is written (`warp up`), and try again")
}

/// Whether another device writes a portal, and whether this one only keeps it.
pub(crate) fn whose(portals: &Portals, name: &str) -> (bool, bool) {
    // One that cannot be told is shown as any other.
    (portals.is_joined(name).unwrap_or(false), portals.is_kept(name).unwrap_or(false))
}

fn mounted_already(name: &str, mounted: &Mounted, detached: bool) -> Failure {
    let (at, typed) = (mounted.directory.display(), show::word(&mounted.directory));
    if detached {
        let cause = format!("portal {name}: files in it are still in use, since it was on {at}");
        return Failure::new(Exit::Busy, cause).hint("close them, or `warp down` cuts them off");
    }
    Failure::new(Exit::Busy, format!("portal {name}: is mounted on {at} already"))
        .hint(format!("`mount --bind {typed} DIR` shows it in another place too"))
}

/// The same command a second time.
fn mounted_there(name: &str, mounted: &Mounted) -> Failure {
    let typed = show::word(&mounted.directory);
    let cause = format!("portal {name}: is mounted on {} already", mounted.directory.display());
    Failure::new(Exit::Busy, cause).hint(format!("use it; `warp umount {typed}` ends it"))
}

//! Portals and other devices: inviting, joining, and who is there.
//!
//! Neighbours: `api` above; `flow::peers`, which speaks to them. Promises: the
//! network is used from the moment a portal is shared, and not before; a
//! portal that is shared stays open, and with it the daemon. Never: says a
//! ticket to the log. Tested by `tests/tests/peers.rs`.

use super::{Edge, Keys, Refusal, Reserved, Result, Use, What};
use crate::args;
use crate::config::Config;
use crate::daemon::metrics::Sample;
use crate::daemon::wire::{
    ExpireIn, Expired, InviteTo, Invited, JoinPortal, Joined, MemberRow, NamePortal, PeerRow,
    WarmUp, Warmed, When, WireAsked, WireCandidate, WireExplained, WireProblem,
};
use crate::parse;
use crate::report::{Exit, Failure, level};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use warp_flow::follow::WarmHow;
use warp_flow::members::now_secs;
use warp_flow::opened::Opened;
use warp_flow::peers::{Invitation, Network, Peers};
use warp_flow::portals::PortalEntry;
use warp_flow::swarm::{AskedOf, Explained};
use warp_flow::{FlowError, Progress};
use warp_format::DeviceId;
use warp_format::members::Capability;
use warp_format::ticket::Ticket;
use warp_format::wire::Change;

/// Letters of a machine's name that others are told.
const MAX_DEVICE_NAME: usize = 40;

impl Edge {
    /// How the network is to be used: as was typed, or as the settings say.
    pub(super) fn network(&self) -> Result<args::Network> {
        self.network.clone().map_or_else(settings, Ok)
    }

    /// Where what is counted is to be told.
    pub(crate) fn metrics(&self) -> std::result::Result<Option<SocketAddr>, Failure> {
        self.network().map(|network| network.metrics).map_err(Refusal::failure)
    }

    /// What is counted.
    pub(in crate::daemon) fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mounts = self.mounts().len() as f64;
        samples.push(Sample { name: "warp_mounts", labels: Vec::new(), value: mounts });
        let keys = self.state().keys.clone();
        for (id, opened) in self.open_portals() {
            let status = opened.status();
            let mut add = |name, value| samples.push(Sample::new(name, &id, value));
            add("warp_head", status.sequence as f64);
            add("warp_stored_bytes", status.stored_bytes as f64);
            add("warp_unpublished_bytes", status.unpublished_bytes as f64);
            let Opened::Joined(follower) = &opened else { continue };
            let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
            let counters = follower.counters();
            add("warp_chunks_received_total", counted(&counters.chunks));
            add("warp_received_bytes_total", counted(&counters.bytes));
            add("warp_wasted_bytes_total", counted(&counters.wasted_bytes));
            add("warp_hedged_total", counted(&counters.hedges));
            add("warp_bad_chunks_total", counted(&counters.bad_chunks));
            add("warp_failed_reads_total", counted(&counters.failures));
        }
        let peers =
            keys.and_then(|keys| keys.peers.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let mut connected: BTreeMap<String, f64> = BTreeMap::new();
        for peer in peers.map(|peers| peers.status()).unwrap_or_default() {
            let portal = peer.id.to_string();
            *connected.entry(portal.clone()).or_default() +=
                f64::from(u8::from(peer.rtt.is_some()));
            if let Some(rtt) = peer.rtt {
                let labels = vec![("portal", portal), ("peer", peer.device.to_string())];
                let (name, value) = ("warp_peer_rtt_seconds", rtt.as_secs_f64());
                samples.push(Sample { name, labels, value });
            }
        }
        let each = connected.iter();
        samples.extend(each.map(|(id, n)| Sample::new("warp_peers_connected", id, *n)));
        samples
    }

    /// All portals that are open and stay so, by the start of their ids.
    fn open_portals(&self) -> Vec<(String, Opened)> {
        let of = |u: &Use| match &u.what {
            What::Mounted(mounted) => Some((u.id.clone(), mounted.portal().clone())),
            What::Shared(opened) => Some((u.id.clone(), opened.clone())),
            What::Short => None,
        };
        let open: Vec<_> = self.state().uses.iter().filter_map(of).collect();
        open.into_iter().map(|(id, opened)| (id.chars().take(10).collect(), opened)).collect()
    }

    /// The network, used from now on.
    pub(super) fn peers(&self, keys: &Keys) -> Result<Arc<Peers>> {
        let mut peers = keys.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peers) = &*peers {
            return Ok(Arc::clone(peers));
        }
        let network = of(&self.network()?);
        let portals = Arc::clone(&keys.portals);
        let started = Peers::start(&self.home, &keys.device, keys.id, portals, network)?;
        *peers = Some(Arc::clone(&started));
        Ok(started)
    }

    /// Opens a portal that nobody has open.
    pub(super) fn open(&self, keys: &Keys, entry: &PortalEntry) -> Result<Opened> {
        if keys.portals.is_joined(&entry.name)? {
            return Ok(self.peers(keys)?.open(entry)?);
        }
        Ok(Opened::Own(keys.portals.open(&entry.name)?))
    }

    /// Opens every portal that other devices have a part in, for them.
    pub(super) fn share_all(&self, keys: &Keys) {
        let entries = match keys.portals.list() {
            Ok(entries) => entries,
            Err(e) => return tracing::error!("portals are not shared: {e}"),
        };
        entries.iter().for_each(|entry| self.share_again(keys, entry));
    }

    /// Opens a portal for other devices, if they have a part in it.
    pub(super) fn share_again(&self, keys: &Keys, entry: &PortalEntry) {
        let shared = keys.portals.is_shared(&entry.name).map_err(Refusal::from);
        let done = shared.and_then(|shared| if shared { self.share(keys, entry) } else { Ok(()) });
        if let Err(refusal) = done {
            // Without the portal's name, which is not for the log.
            let exit = refusal.failure().exit;
            tracing::error!(portal = %entry.id, exit = exit as u8, "is not shared");
        }
    }

    /// Opens a portal for other devices, and leaves it open.
    fn share(&self, keys: &Keys, entry: &PortalEntry) -> Result<()> {
        let id = format!("{:#}", entry.id);
        if let Some(mounted) = self.mounts().into_iter().find(|m| m.id == id && !m.is_over()) {
            if !mounted.is_shared() {
                self.peers(keys)?.share(entry, mounted.portal())?;
                mounted.set_shared(true);
            }
            return Ok(());
        }
        let mut reserved = self.reserve(entry)?;
        if reserved.shared.is_none() {
            let opened = self.open(keys, entry)?;
            self.peers(keys)?.share(entry, &opened)?;
            reserved.shared = Some(opened);
        }
        Ok(())
    }

    /// Takes a portal from the other devices, so that it is open nowhere.
    pub(super) fn unshare(&self, keys: &Keys, entry: &PortalEntry, reserved: &mut Reserved<'_>) {
        let Some(opened) = reserved.shared.take() else { return };
        if let Ok(peers) = self.peers(keys) {
            peers.unshare(&entry.id);
        }
        if let Err(e) = opened.close_unpublished() {
            tracing::error!(portal = %entry.id, "close: {e}");
        }
    }

    pub(crate) fn invite(self: &Arc<Self>, ask: InviteTo) -> Result<Invited> {
        let keys = self.keys()?;
        let entry = keys.portals.find(&ask.portal)?;
        let expires_at = now_secs().saturating_add(ask.expires_s);
        if !keys.portals.is_shared(&entry.name)? {
            keys.portals.found(&entry.name, &device_name())?;
        }
        self.share(&keys, &entry)?;
        let peers = self.peers(&keys)?;
        if peers.addresses().is_empty() {
            return Err(Failure::new(Exit::Temporary, "this device has no address that another could reach")
                .hint("connect it to a network, or name an address: `warp down`, then `warp up --listen ADDR:PORT`")
                .into());
        }
        let wish = Invitation {
            capability: ask.capability,
            may_invite: ask.may_invite,
            expires: expires_at,
            uses: ask.uses,
        };
        let ticket = peers.invite(&entry, wish)?;
        tracing::info!(portal = %entry.id, uses = ask.uses, role = ask.capability.word(), "invited");
        let here = ticket.issuer == keys.id;
        Ok(Invited { ticket: ticket.encode().to_string(), expires_at, here })
    }

    pub(crate) fn join(self: &Arc<Self>, ask: JoinPortal) -> Result<Joined> {
        let keys = self.keys()?;
        let ticket = Ticket::parse(ask.ticket.trim()).map_err(|e| {
            Failure::new(Exit::Usage, format!("the ticket cannot be read: {e}"))
                .hint("copy all of it, from `warp1` to the end")
        })?;
        if ticket.issuer == keys.id {
            return Err(Failure::new(Exit::Usage, "the ticket is this device's own")
                .hint("type it on the other device")
                .into());
        }
        let peers = self.peers(&keys)?;
        let name = ask.name.as_deref();
        let entry = peers.join(&ticket, name, &device_name())?;
        tracing::info!(portal = %entry.id, "joined a portal");
        self.share(&keys, &entry)?;
        let members = keys.portals.chain(&entry.name)?;
        let own = members.member(&keys.id).ok_or(FlowError::NotMember)?;
        Ok(Joined {
            portal: self.row(&entry),
            devices: members.members().count() as u64,
            capability: own.capability,
            may_invite: own.may_invite || own.capability == Capability::Admin,
        })
    }

    pub(crate) fn expire(self: &Arc<Self>, ask: ExpireIn) -> Result<Expired> {
        let keys = self.keys()?;
        let entry = keys.portals.find(&ask.portal)?;
        let now = now_secs();
        let at = match ask.when {
            When::Now => Some(now),
            When::After(secs) => Some(now.saturating_add(secs)),
            When::At(at) => Some(at),
            When::Never => None,
        };
        if !keys.portals.is_shared(&entry.name)? {
            return Err(FlowError::NotShared.into());
        }
        self.share(&keys, &entry)?;
        let peers = self.peers(&keys)?;
        let Some(typed) = &ask.member else {
            let invites = peers.change(&entry, Change::CloseInvites)?;
            return Ok(Expired { member: None, invites, at });
        };
        let (device, name) = keys.portals.find_member(&entry.name, typed)?;
        let change = match ask.when {
            When::Now => Change::Remove { device },
            _ => Change::Expire { device, at },
        };
        peers.change(&entry, change)?;
        Ok(Expired { member: Some((name, format!("{device:#}"))), invites: 0, at })
    }

    /// Who is a member of a portal; nobody where nobody was ever invited.
    pub(crate) fn members(self: &Arc<Self>, ask: NamePortal) -> Result<Vec<MemberRow>> {
        let keys = self.keys()?;
        let entry = keys.portals.find(&ask.name)?;
        if !keys.portals.is_shared(&entry.name)? {
            return Ok(Vec::new());
        }
        let (chain, now) = (keys.portals.chain(&entry.name)?, now_secs());
        let rows = chain.members().map(|member| MemberRow {
            name: member.name.clone(),
            id: format!("{:#}", member.device),
            here: member.device == keys.id,
            founder: member.device == chain.founder(),
            capability: member.capability.word().into(),
            may_invite: member.may_invite || member.capability == Capability::Admin,
            since: member.since,
            expires: member.expires,
            expired: !chain.admits(&member.device, now),
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
        Ok(rows)
    }

    pub(crate) fn list_peers(self: &Arc<Self>, (): ()) -> Result<Vec<PeerRow>> {
        Ok(Self::peer_rows(&*self.keys()?))
    }

    /// The other devices of all portals that are shared.
    pub(super) fn peer_rows(keys: &Keys) -> Vec<PeerRow> {
        let peers = keys.peers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rows = peers.map(|peers| peers.status()).unwrap_or_default();
        let rows = rows.into_iter().map(|row| PeerRow {
            name: row.name,
            id: format!("{:#}", row.device),
            portal: row.portal,
            capability: row.capability.into(),
            connected: row.rtt.is_some(),
            address: row.address.map(|address| address.to_string()),
            rtt_us: row.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            received_bytes: row.received_bytes,
        });
        rows.collect()
    }

    /// Fetches content of a mount before it is read.
    pub(crate) fn warm_up(self: &Arc<Self>, ask: WarmUp, progress: &Progress) -> Result<Warmed> {
        let directory = PathBuf::from(ask.directory);
        let Some(mounted) = self.mount_at(&directory) else {
            let cause = format!("{}: no portal of this home is mounted there", directory.display());
            let hint = "`warp status` lists what is mounted";
            return Err(Failure::new(Exit::NotFound, cause).hint(hint).into());
        };
        let path = mounted.path().join(PathBuf::from(ask.path));
        let Opened::Joined(follower) = mounted.portal() else {
            let cause =
                format!("{}: all of it is here: this device writes it", directory.display());
            return Err(Failure::new(Exit::Usage, cause).into());
        };
        let how = WarmHow { check: ask.check, explain: ask.explain };
        let done = follower.warm(&path, how, progress)?;
        let peers = self.keys()?.peers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rows = peers.map(|peers| peers.status()).unwrap_or_default();
        let names: HashMap<_, _> = rows.into_iter().map(|row| (row.device, row.name)).collect();
        let explained = done.explained.iter().map(|one| explained(one, &names)).collect();
        Ok(Warmed {
            files: done.files,
            chunks: done.chunks,
            bytes: done.bytes,
            bytes_here: done.bytes_here,
            problems: done.problems.into_iter().map(WireProblem::from).collect(),
            explained,
        })
    }

    /// Everything that is open for other devices is closed.
    pub(super) fn close_shared(&self) {
        let Some(keys) = self.state().keys.clone() else { return };
        let peers = keys.peers.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(peers) = peers {
            peers.close();
        }
        let mut open = Vec::new();
        self.state().uses.retain(|u: &Use| match &u.what {
            What::Shared(opened) => {
                open.push(opened.clone());
                false
            }
            _ => true,
        });
        for opened in open {
            if let Err(e) = opened.close() {
                tracing::error!("close: {e}");
            }
        }
    }
}

/// How a chunk came, with what peers are called.
fn explained(one: &Explained, names: &HashMap<DeviceId, String>) -> WireExplained {
    let name = |peer: &DeviceId| names.get(peer).cloned().unwrap_or_else(|| peer.to_string());
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let asked = |asked: &AskedOf| WireAsked {
        peer: name(&asked.peer),
        why: asked.why.word().to_owned(),
        after_us: micros(asked.after),
        expected_us: micros(asked.expected),
        candidates: asked
            .candidates
            .iter()
            .map(|(peer, expected)| WireCandidate {
                peer: name(peer),
                expected_us: micros(*expected),
            })
            .collect(),
    };
    WireExplained {
        chunk: format!("{:#}", one.chunk),
        bytes: one.bytes,
        from: one.from.as_ref().map(name),
        took_us: micros(one.took),
        asked: one.asked.iter().map(asked).collect(),
    }
}

/// What was typed, for those who use it.
fn of(typed: &args::Network) -> Network {
    Network {
        listen: typed.listen,
        multicast: typed.mdns == args::Switch::On,
        limit: typed.limit,
        limit_per_peer: typed.limit_per_peer,
    }
}

/// How `warp up` would be understood here.
fn parsed() -> std::result::Result<args::Args, Exit> {
    parse::parse(&["warp".into(), "up".into()], &mut Config::load())
}

/// How much the log is to have, as the settings and WARP_VERBOSE say.
pub(crate) fn log_level() -> tracing::Level {
    level(parsed().map_or(0, |args| args.global.verbose))
}

/// What the settings say of the network.
fn settings() -> Result<args::Network> {
    match parsed().map(|args| args.command) {
        Ok(args::Command::Up(up)) => Ok(up.network),
        _ => Err(Failure::new(Exit::Usage, "the settings of the network cannot be read")
            .hint("`warp config ls --origin` shows them, WARP_LISTEN and WARP_MDNS too")
            .into()),
    }
}

/// What this device calls itself: the machine's name.
fn device_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().into_owned();
    if name.is_empty() { "device".into() } else { name.chars().take(MAX_DEVICE_NAME).collect() }
}

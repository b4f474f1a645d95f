//! The other devices of this device's portals: who is connected, what they
//! are told, and what they are given.
//!
//! Neighbours: the daemon above, which adds and removes open portals; `net`,
//! which asks as its [`Service`](warp_net::Service); `portals` keeps who is a member; `portal`,
//! `follow` and `swarm` below. Promises: nobody is told or given anything of a
//! portal who is not a member of it now; a head is believed only from who may
//! publish; the network is used only while a portal is shared. Never: says a
//! name or a key to the log. Tested by `tests/tests/peers.rs`.

mod book;
mod dial;
mod keep;
mod link;
mod serve;
mod tell;

use crate::error::{FlowError, Result};
use crate::home::{Home, random_secret, write_private};
use crate::members::now_secs;
use crate::opened::Opened;
use crate::portals::epochs::expired;
use crate::portals::{PortalEntry, Portals};
use crate::swarm::{Peer as _, Swarm};
use book::Book;
use link::Link;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use warp_cache::store::{Class, Store};
use warp_format::keys::SigningKey;
use warp_format::limits::{MAX_HELD_PRINTS, MAX_WHOLE_ROOTS};
use warp_format::members::{Capability, Chain};
use warp_format::ticket::Ticket;
use warp_format::{ChunkId, DeviceId, Head, PortalId, SealedChunk, Secret};
use warp_net::{Change, Changed, Discovery, Endpoint, Found, Have, News, Rates, Scope};

/// How long the end of all connections is waited for.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// How often peers are told what else is here.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked whose time is over, and how long after that failed.
const LOOK_FOR_EXPIRED_EVERY: Duration = Duration::from_secs(1);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(60);
/// How long it is waited for the device that made a portal, and how often it is
/// looked whether it is there.
const WAIT_FOR_FOUNDER: Duration = Duration::from_secs(5);
const LOOK_FOR_FOUNDER_EVERY: Duration = Duration::from_millis(20);
/// Addresses in a ticket.
const TICKET_ADDRESSES: usize = 8;

/// How the network may be used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Network {
    /// Where peers reach this device; `None`: on every address, at the port
    /// of last time.
    pub listen: Option<SocketAddr>,
    /// Members' devices on the local network are looked for.
    pub multicast: bool,
    /// Most bytes of chunks a second that are sent to all peers together, and
    /// that are received.
    pub limit: Option<NonZeroU64>,
    /// The same of each peer.
    pub limit_per_peer: Option<NonZeroU64>,
}

impl Network {
    fn rates(&self) -> Rates {
        Rates {
            send: self.limit,
            send_per_peer: self.limit_per_peer,
            receive: self.limit,
            receive_per_peer: self.limit_per_peer,
        }
    }
}

/// A portal that is shared.
pub(crate) struct Shared {
    id: PortalId,
    name: String,
    access: Secret,
    opened: Opened,
    chain: RwLock<Arc<Chain>>,
    swarm: Option<Arc<Swarm>>,
    links: Mutex<HashMap<DeviceId, Arc<Link>>>,
    book: Book,
    /// Devices of which a new address is known.
    news: Mutex<Vec<DeviceId>>,
    /// There is a new address, or a new member.
    dial: Notify,
    /// A head has come, or a peer that may have one: for a custodian.
    heard: Notify,
    over: Notify,
    is_over: AtomicBool,
}

impl Shared {
    fn chain(&self) -> Arc<Chain> {
        Arc::clone(&self.chain.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn links(&self) -> MutexGuard<'_, HashMap<DeviceId, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_linked(&self, device: &DeviceId) -> bool {
        self.links().get(device).is_some_and(|link| !link.session.is_closed())
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The way to a device that this one is connected to in a while, or never.
    fn wait_for(&self, device: &DeviceId) -> Result<Arc<Link>> {
        let until = Instant::now() + WAIT_FOR_FOUNDER;
        loop {
            let link = self.links().get(device).map(Arc::clone);
            if let Some(link) = link.filter(|link| !link.session.is_closed()) {
                return Ok(link);
            }
            if Instant::now() >= until {
                return Err(FlowError::FounderAway);
            }
            std::thread::sleep(LOOK_FOR_FOUNDER_EVERY);
        }
    }

    /// Where a device is, as far as it is known; where it is connected first.
    fn addresses(&self, device: &DeviceId) -> Vec<SocketAddr> {
        let linked = self.links().get(device).map(|link| link.session.address());
        let known = self.book.addresses(device);
        let mut all: Vec<_> = linked.into_iter().collect();
        all.extend(known.into_iter().filter(|address| Some(*address) != linked));
        all.truncate(TICKET_ADDRESSES);
        all
    }

    /// True if something new is known of where a device is.
    fn take_news(&self, device: &DeviceId) -> bool {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let count = news.len();
        news.retain(|other| other != device);
        news.len() < count
    }

    /// A device is, or may be, here.
    fn note_address(&self, device: DeviceId, address: SocketAddr) {
        if self.book.note(device, address) {
            self.news.lock().unwrap_or_else(PoisonError::into_inner).push(device);
            self.dial.notify_one();
        }
    }

    fn chunk(&self, id: &ChunkId) -> Option<SealedChunk> {
        self.store().get(id).ok()
    }

    fn store(&self) -> &Arc<Store> {
        match &self.opened {
            Opened::Own(portal) => portal.store(),
            Opened::Joined(follower) => follower.store(),
            Opened::Kept(keeper) => keeper.store(),
        }
    }

    fn heads(&self) -> Vec<Vec<u8>> {
        match &self.opened {
            Opened::Own(portal) => match portal.head() {
                Ok(head) => head.into_iter().collect(),
                Err(e) => {
                    tracing::error!(portal = %self.id, "head: {e}");
                    Vec::new()
                }
            },
            Opened::Joined(follower) => follower.heads(),
            Opened::Kept(keeper) => keeper.heads(),
        }
    }

    /// A head came from a peer; true if it was new, and others are to be told.
    fn take_head(&self, bytes: &[u8], from: DeviceId) -> Result<bool> {
        let check = || {
            let head = Head::open(bytes)?;
            let may = self.chain().may_publish(&head.device, head.sequence);
            if may { Ok(()) } else { Err(FlowError::NotAllowed { device: head.device }) }
        };
        match &self.opened {
            Opened::Own(_) => Ok(false),
            Opened::Joined(follower) => {
                check()?;
                follower.take_head(bytes)
            }
            Opened::Kept(keeper) => {
                check()?;
                keeper.take_head(bytes, from)?;
                self.heard.notify_one();
                Ok(false)
            }
        }
    }

    /// Says that all below some heads is here, where that is shorter than to
    /// say of each chunk that it is: of an own portal, so that its writer is
    /// asked for anything, and of one that is kept and too large for that.
    fn whole(&self) -> Option<Have> {
        let is_short = match &self.opened {
            Opened::Own(_) => true,
            Opened::Joined(_) => false,
            Opened::Kept(keeper) => keeper.store().len() > MAX_HELD_PRINTS,
        };
        if !is_short {
            return None;
        }
        let heads = self.heads();
        let heads = heads.iter().filter_map(|bytes| Head::open(bytes).ok());
        let roots: Vec<_> = heads.map(|head| head.root.id).take(MAX_WHOLE_ROOTS).collect();
        (!roots.is_empty()).then_some(Have::Whole { roots })
    }
}

/// What who redeems an invite may do, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Invitation {
    /// What they may do.
    pub capability: Capability,
    /// And whether they may invite others to that.
    pub may_invite: bool,
    /// Until when, in seconds since 1970.
    pub expires: u64,
    /// How many may redeem it.
    pub uses: u32,
}

/// A device of a portal.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// What the portal is called on this device.
    pub portal: String,
    /// The portal.
    pub id: PortalId,
    /// The device.
    pub device: DeviceId,
    /// What it is called in the portal.
    pub name: String,
    /// What it may do.
    pub capability: &'static str,
    /// Where it is, if it is connected, or was last.
    pub address: Option<SocketAddr>,
    /// How long the way there and back takes, if it is connected.
    pub rtt: Option<Duration>,
    /// Bytes of chunks that it gave.
    pub received_bytes: u64,
}

/// All peers of this device.
pub struct Peers {
    /// Taken at the end.
    runtime: Mutex<Option<Runtime>>,
    core: Arc<Core>,
    /// What multicast is told to look for.
    discovery: Mutex<Option<Discovery>>,
}

/// What the network's threads need.
pub(crate) struct Core {
    me: DeviceId,
    portals: Arc<Portals>,
    shared: RwLock<HashMap<PortalId, Arc<Shared>>>,
    endpoint: RwLock<Option<Arc<Endpoint>>>,
    /// In the order in which multicast knows them.
    announced: Mutex<Vec<PortalId>>,
}

impl Core {
    fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.endpoint.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shared(&self, portal: &PortalId) -> Option<Arc<Shared>> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).get(portal).map(Arc::clone)
    }

    fn all(&self) -> Vec<Arc<Shared>> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The members of a portal now, without this device.
    fn others(&self, shared: &Shared) -> Vec<DeviceId> {
        let (chain, now) = (shared.chain(), now_secs());
        let members = chain.members().filter(|member| chain.admits(&member.device, now));
        members.map(|member| member.device).filter(|device| *device != self.me).collect()
    }

    /// Says something to all peers of a portal.
    fn announce(&self, portal: &PortalId, news: News) {
        if let Some(endpoint) = self.endpoint() {
            endpoint.announce(portal, news);
        }
    }

    /// There may be a new head of an own portal, or of one that is kept.
    fn tell_heads(&self, shared: &Shared) {
        if let Some(whole) = shared.whole() {
            self.announce(&shared.id, News::Have(whole));
        }
        for head in shared.heads() {
            self.announce(&shared.id, News::Head(head));
        }
    }

    /// The chain on the disk is longer by now: peers are told.
    fn members_changed(&self, shared: &Shared) -> Result<()> {
        let chain = Arc::new(self.portals.chain(&shared.name)?);
        let known = shared.chain().len();
        // Before those who are removed are cut off: they may know why.
        self.announce(&shared.id, News::Members(chain.bytes_from(known).to_vec()));
        self.take_chain(shared, chain);
        Ok(())
    }

    /// Takes a longer chain; those who are no members any more hear no more.
    fn take_chain(&self, shared: &Shared, chain: Arc<Chain>) {
        *shared.chain.write().unwrap_or_else(PoisonError::into_inner) = chain;
        if let Some(endpoint) = self.endpoint() {
            endpoint.recheck(&shared.id);
        }
        shared.dial.notify_one();
    }

    /// Somebody on the local network says that it is a member.
    fn found(&self, found: Found) {
        let portal = {
            let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
            announced.get(found.portal).copied()
        };
        let Some(shared) = portal.and_then(|portal| self.shared(&portal)) else { return };
        if !self.others(&shared).contains(&found.device) {
            tracing::debug!(portal = %shared.id, peer = %found.device, "found one that is no member");
            return;
        }
        for address in found.addrs {
            shared.note_address(found.device, address);
        }
    }
}

impl Peers {
    /// Listens. The portals are those of this device, whose seed this is.
    pub fn start(
        home: &Home,
        seed: &Secret,
        me: DeviceId,
        portals: Arc<Portals>,
        network: Network,
    ) -> Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(crate::limits::workers().min(2))
            .thread_name("net")
            .enable_all()
            .build()
            .map_err(|e| FlowError::io("thread", e))?;
        let core = Arc::new(Core {
            me,
            portals,
            shared: RwLock::default(),
            endpoint: RwLock::default(),
            announced: Mutex::default(),
        });
        let ports = PortFile(home.data().join("port"));
        let endpoint = runtime.block_on(async {
            let mut last = None;
            for listen in ports.candidates(network.listen) {
                let service: Arc<dyn warp_net::Service> = Arc::clone(&core) as _;
                match Endpoint::bind(seed, listen, network.rates(), service).await {
                    Ok(endpoint) => return Ok(endpoint),
                    Err(e) => last = Some(e),
                }
            }
            Err(last.map_or(FlowError::Lost { what: "address to listen on" }, FlowError::from))
        })?;
        let addresses = endpoint.local_addrs();
        let port = addresses.first().map_or(0, SocketAddr::port);
        if network.listen.is_none() {
            ports.remember(port);
        }
        tracing::info!(port, multicast = network.multicast, "listening to peers");
        *core.endpoint.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(endpoint));
        let discovery =
            if network.multicast { Self::discover(&runtime, &core, port, network) } else { None };
        runtime.spawn(tell_what_is_new(Arc::downgrade(&core)));
        runtime.spawn(end_expired(Arc::downgrade(&core)));
        let (runtime, discovery) = (Mutex::new(Some(runtime)), Mutex::new(discovery));
        Ok(Arc::new(Self { runtime, core, discovery }))
    }

    /// Looks for members on the local network; without it, addresses are found
    /// in other ways.
    fn discover(
        runtime: &Runtime,
        core: &Arc<Core>,
        port: u16,
        network: Network,
    ) -> Option<Discovery> {
        let is_local = network.listen.is_some_and(|listen| listen.ip().is_loopback());
        let scope = if is_local { Scope::Loopback } else { Scope::Lan };
        match Discovery::start(core.me, port, scope) {
            Ok((discovery, mut found)) => {
                let core = Arc::downgrade(core);
                runtime.spawn(async move {
                    while let (Some(found), Some(core)) = (found.recv().await, core.upgrade()) {
                        core.found(found);
                    }
                });
                Some(discovery)
            }
            Err(e) => {
                tracing::warn!("members on the local network are not looked for: {e}");
                None
            }
        }
    }

    fn handle(&self) -> Result<tokio::runtime::Handle> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let running = runtime.as_ref().map(|runtime| runtime.handle().clone());
        running.ok_or(FlowError::Lost { what: "network, which is closed," })
    }

    /// Opens a portal that this device has joined.
    pub fn open(&self, entry: &PortalEntry) -> Result<Opened> {
        let (handle, portals) = (self.handle()?, &self.core.portals);
        let swarm =
            |class| move |store: &Arc<Store>| Swarm::start(Arc::clone(store), class, &handle);
        Ok(if portals.is_kept(&entry.name)? {
            Opened::Kept(portals.open_kept(&entry.name, swarm(Class::Replica))?)
        } else {
            Opened::Joined(portals.open_joined(&entry.name, swarm(Class::Cached))?)
        })
    }

    /// Tells and gives the members of a portal what is theirs, and keeps this
    /// device connected to them.
    pub fn share(&self, entry: &PortalEntry, opened: &Opened) -> Result<()> {
        let chain = Arc::new(self.core.portals.chain(&entry.name)?);
        let swarm = match opened {
            Opened::Own(_) => None,
            Opened::Joined(follower) => Some(Arc::clone(follower.swarm())),
            Opened::Kept(keeper) => Some(Arc::clone(keeper.swarm())),
        };
        let shared = Arc::new(Shared {
            id: entry.id,
            name: entry.name.clone(),
            access: self.core.portals.access_key(&entry.name)?,
            opened: opened.clone(),
            chain: RwLock::new(chain),
            swarm,
            links: Mutex::default(),
            book: Book::open(&entry.directory),
            news: Mutex::default(),
            dial: Notify::new(),
            heard: Notify::new(),
            over: Notify::new(),
            is_over: AtomicBool::new(false),
        });
        if let Opened::Own(portal) = opened {
            let (core, of) = (Arc::downgrade(&self.core), Arc::downgrade(&shared));
            portal.watch(Box::new(move || {
                if let (Some(core), Some(shared)) = (core.upgrade(), of.upgrade()) {
                    core.tell_heads(&shared);
                }
            }));
        }
        self.core
            .shared
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(entry.id, Arc::clone(&shared));
        self.look_for_all();
        let handle = self.handle()?;
        if let Opened::Kept(keeper) = opened {
            let (core, shared) = (Arc::clone(&self.core), Arc::clone(&shared));
            handle.spawn(keep::keep_all(core, shared, Arc::clone(keeper)));
        }
        handle.spawn(dial::keep_connected(Arc::clone(&self.core), shared));
        Ok(())
    }

    /// Has multicast look for the portals that are shared now.
    fn look_for_all(&self) {
        let discovery = self.discovery.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(discovery) = &*discovery else { return };
        let all = self.core.all();
        *self.core.announced.lock().unwrap_or_else(PoisonError::into_inner) =
            all.iter().map(|shared| shared.id).collect();
        discovery.announce(all.iter().map(|shared| shared.access.clone()).collect());
    }

    /// The portal is this device's alone again, or about to be closed.
    pub fn unshare(&self, portal: &PortalId) {
        let gone = self.core.shared.write().unwrap_or_else(PoisonError::into_inner).remove(portal);
        let Some(shared) = gone else { return };
        shared.is_over.store(true, Ordering::Relaxed);
        shared.over.notify_one();
        shared.heard.notify_one();
        if let Some(endpoint) = self.core.endpoint() {
            endpoint.recheck(portal);
        }
        self.look_for_all();
    }

    /// Changes who is a member of a portal that is shared: here, if this device
    /// made it, else through the device that did. Gives how many invites that
    /// closed. Waits.
    pub fn change(&self, entry: &PortalEntry, change: Change) -> Result<u64> {
        let lost = FlowError::Lost { what: "portal, which is closed," };
        let shared = self.core.shared(&entry.id).ok_or(lost)?;
        let founder = shared.chain().founder();
        if founder == self.core.me {
            let invites = self.core.portals.alter(&entry.name, &founder, change)?;
            self.core.members_changed(&shared)?;
            return Ok(invites);
        }
        let chain = shared.chain();
        if !chain.allows(&self.core.me, &change.act(), now_secs()) {
            let own = chain.member(&self.core.me).map_or("stranger", |own| own.capability.word());
            return Err(FlowError::NoRight { capability: own });
        }
        let link = shared.wait_for(&founder)?;
        match self.handle()?.block_on(link.session.change(change))? {
            Changed::Done { invites } => Ok(invites),
            Changed::Unchanged { why } => Err(FlowError::Unchanged { why }),
        }
    }

    /// Makes an invite to a portal that is shared; who redeems it asks the
    /// device that made the portal. Waits.
    pub fn invite(&self, entry: &PortalEntry, wish: Invitation) -> Result<Ticket> {
        let lost = FlowError::Lost { what: "portal, which is closed," };
        let shared = self.core.shared(&entry.id).ok_or(lost)?;
        let issuer = shared.chain().founder();
        let seed = random_secret()?;
        let key = SigningKey::from_seed(&seed).device_id();
        let Invitation { capability, may_invite, expires, uses } = wish;
        self.change(entry, Change::Invite { key, capability, may_invite, expires, uses })?;
        let addresses =
            if issuer == self.core.me { self.addresses() } else { shared.addresses(&issuer) };
        Ok(Ticket { issuer, addresses, seed })
    }

    /// Where this device can be reached.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut all = self.core.endpoint().map(|e| e.local_addrs()).unwrap_or_default();
        all.truncate(TICKET_ADDRESSES);
        all
    }

    /// Joins a portal with a ticket. It is this device's, and not open yet, when
    /// this returns.
    pub fn join(&self, ticket: &Ticket, name: Option<&str>, device: &str) -> Result<PortalEntry> {
        let endpoint = self.core.endpoint().ok_or(FlowError::Lost { what: "network" })?;
        let wrap = self.core.portals.wrap_key();
        let (issuer, addresses) = (ticket.issuer, &ticket.addresses);
        let asked = endpoint.redeem(issuer, addresses, &ticket.seed, wrap, device);
        let welcome = self.handle()?.block_on(asked)?;
        let entry = self.core.portals.join(&welcome.members, name)?;
        let book = Book::open(&entry.directory);
        for address in addresses.iter().rev() {
            book.note(issuer, *address);
        }
        Ok(entry)
    }

    /// The other devices of all portals that are shared.
    pub fn status(&self) -> Vec<PeerStatus> {
        let mut rows = Vec::new();
        for shared in self.core.all() {
            let chain = shared.chain();
            for device in self.core.others(&shared) {
                let Some(member) = chain.member(&device) else { continue };
                let link = shared.links().get(&device).map(Arc::clone);
                let link = link.filter(|link| !link.session.is_closed());
                let address = link.as_ref().map(|link| link.session.address());
                rows.push(PeerStatus {
                    portal: shared.name.clone(),
                    id: shared.id,
                    device,
                    name: member.name.clone(),
                    capability: member.capability.word(),
                    address: address.or_else(|| shared.book.addresses(&device).first().copied()),
                    rtt: link.as_ref().map(|link| link.rtt()),
                    received_bytes: link.map_or(0, |link| link.received_bytes()),
                });
            }
        }
        rows.sort_by(|a, b| (&a.portal, &a.name).cmp(&(&b.portal, &b.name)));
        rows
    }

    /// Says good-bye to all.
    pub fn close(&self) {
        drop(self.discovery.lock().unwrap_or_else(PoisonError::into_inner).take());
        for shared in self.core.all() {
            self.unshare(&shared.id);
        }
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        let endpoint = self.core.endpoint.write().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(runtime), Some(endpoint)) = (runtime, endpoint) {
            runtime.block_on(async {
                let _ = tokio::time::timeout(CLOSE_WITHIN, endpoint.close()).await;
            });
            runtime.shutdown_background();
        }
    }
}

/// Tells peers what else is here by now, and what no more.
async fn tell_what_is_new(core: std::sync::Weak<Core>) {
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        let Some(core) = core.upgrade() else { return };
        core.all().iter().for_each(|shared| tell::changes(shared));
    }
}

/// Removes members of own portals when their time is over.
async fn end_expired(core: std::sync::Weak<Core>) {
    let mut pause = LOOK_FOR_EXPIRED_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = LOOK_FOR_EXPIRED_EVERY;
        let Some(core) = core.upgrade() else { return };
        let is_due = |shared: &Arc<Shared>| {
            let chain = shared.chain();
            chain.founder() == core.me && !expired(&chain, now_secs()).is_empty()
        };
        for shared in core.all().into_iter().filter(is_due) {
            let core = Arc::clone(&core);
            let ended = move || {
                core.portals.end_expired(&shared.name)?;
                core.members_changed(&shared)
            };
            // It waits for the disk, and for a publish that is under way.
            match tokio::task::spawn_blocking(ended).await {
                Ok(Ok(())) => tracing::info!("the time of a member was over: it is removed"),
                Ok(Err(e)) => {
                    tracing::error!("a member whose time is over is not removed: {e}");
                    pause = PAUSE_AFTER_FAILURE;
                }
                Err(e) => tracing::error!("a member whose time is over is not removed: {e}"),
            }
        }
    }
}

/// Where the port is remembered, so that the address in a ticket stays right.
struct PortFile(PathBuf);

impl PortFile {
    /// Where to listen, the best first.
    fn candidates(&self, wanted: Option<SocketAddr>) -> Vec<SocketAddr> {
        if let Some(wanted) = wanted {
            return vec![wanted];
        }
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let last = text.trim().parse::<u16>().ok();
        let on = |port| {
            // Where there is no IPv6, the other.
            [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
        };
        last.into_iter().chain([0]).flat_map(on).collect()
    }

    fn remember(&self, port: u16) {
        let making = self.0.with_extension("new");
        let _ = std::fs::remove_file(&making);
        let written = write_private(&making, format!("{port}\n").as_bytes())
            .and_then(|()| std::fs::rename(&making, &self.0));
        if let Err(e) = written {
            tracing::warn!("the port is not remembered: {e}");
        }
    }
}

//! Who is removed reads nothing that is written afterwards; everybody else
//! reads all there is.

mod alter;

use alter::Alter as _;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use warp_cache::disk::{Disk, DiskFile, HostDisk};
use warp_cache::store::{Class, Contents};
use warp_flow::Progress;
use warp_flow::archive::ReadKeys;
use warp_flow::check::Reads;
use warp_flow::follow::Follower;
use warp_flow::home::Home;
use warp_flow::members::now_secs;
use warp_flow::opened::Opened;
use warp_flow::peers::{Network, Peers};
use warp_flow::portal::{Portal, PortalVolume};
use warp_flow::portals::Portals;
use warp_flow::reader::TreeReader;
use warp_flow::swarm::Swarm;
use warp_flow::volume::{NewInode, Volume};
use warp_format::codec::Unpacker;
use warp_format::keys::SigningKey;
use warp_format::members::{Capability, Chain};
use warp_format::portal::PortalRecord;
use warp_format::record::Body;
use warp_format::wire::Change;
use warp_format::wrap::{WrapKey, unwrap_epoch};
use warp_format::{
    ContentSecret, DeviceId, FormatError, Head, Keyring, NamingKeys, Sealer, Secret,
};

const ROOT: u64 = 1;
const LEN: usize = 300_000;

/// A device with a home of its own.
struct Device {
    dir: TempDir,
    seed: u8,
    portals: Portals,
}

impl Device {
    fn new(seed: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let portals = Portals::new(&Home::at(dir.path().into()), &keyring(seed)).unwrap();
        Self { dir, seed, portals }
    }

    fn id(&self) -> DeviceId {
        SigningKey::from_seed(&Secret::new([self.seed; 32])).device_id()
    }

    fn wrap(&self) -> WrapKey {
        WrapKey::of_device(&Secret::new([self.seed; 32]))
    }

    fn chain(&self) -> Chain {
        self.portals.chain("p").unwrap()
    }

    fn record(&self) -> PortalRecord {
        let at = self.portals.find("p").unwrap().directory.join("portal");
        let (_, key) = keyring(self.seed).phrase().unwrap().owner_keys();
        PortalRecord::open(&std::fs::read(at).unwrap(), &key).unwrap()
    }

    /// Everything with which it can open something, made by the book.
    fn keys(&self) -> ReadKeys {
        let root = self.record().key.root().unwrap().clone();
        let mut sealer = Sealer::new(ContentSecret::derive(&root, 0), 0);
        for (epoch, secret) in self.chain().secrets_of(&self.id(), &self.wrap()).unwrap() {
            sealer = sealer.with(ContentSecret::derive(&secret, epoch), epoch);
        }
        ReadKeys { naming: NamingKeys::derive(&root), sealer }
    }

    /// The chunks in its packs.
    fn contents(&self) -> Arc<Contents> {
        let mut contents = Contents::new(self.disk());
        for (name, _) in contents.packs().unwrap() {
            contents.examine(name, true).unwrap();
        }
        Arc::new(contents)
    }

    fn reader(&self, head: &Head) -> TreeReader<Arc<Contents>> {
        TreeReader::new(self.contents(), self.keys(), head.root)
    }

    /// Becomes a member, as `daemon` and `net` have it.
    fn join(&self, founder: &Self, capability: Capability) {
        let (chain, _) = founder.invited(self, capability);
        self.portals.join(chain.bytes_from(0), None).unwrap();
    }

    fn invited(&self, who: &Self, capability: Capability) -> (Chain, Secret) {
        let expires = now_secs() + 1000;
        let seed = self.portals.invite("p", "desk", capability, expires, 1).unwrap();
        let invite = SigningKey::from_seed(&seed).device_id();
        let device = (who.id(), who.wrap().public());
        (self.portals.redeem("p", &invite, device, "other").unwrap(), seed)
    }

    fn follow(&self, runtime: &Runtime) -> Arc<Follower> {
        let swarm =
            |store: &Arc<_>| Swarm::start(Arc::clone(store), Class::Cached, runtime.handle());
        self.portals.open_joined("p", swarm).unwrap()
    }

    /// All that a peer would tell and give, but for the records.
    fn hear(&self, follower: &Follower, founder: &Self, head: &[u8]) {
        let mut contents = Contents::new(founder.disk());
        for (name, _) in contents.packs().unwrap() {
            for (id, _) in contents.examine(name, true).unwrap().entries {
                follower.store().put(&contents.get(&id).unwrap(), Class::Cached).unwrap();
            }
        }
        follower.take_head(head).unwrap();
    }

    fn disk(&self) -> Arc<dyn Disk> {
        let state = self.portals.find("p").unwrap().directory.join("state");
        Arc::new(HostDisk::new(state).unwrap())
    }

    /// Hears of the whole chain.
    fn learn(&self, founder: &Self) {
        self.portals.update_members("p", founder.chain().bytes_from(0)).unwrap();
    }
}

fn keyring(seed: u8) -> Keyring {
    Keyring::new(Secret::new([seed + 100; 32]), Secret::new([seed; 32])).unwrap()
}

fn noise(seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn put(volume: &PortalVolume, name: &str, seed: u8) {
    let body = Body::Extents(0);
    let new = NewInode { permissions: 0o644, umask: 0, uid: 1000, gid: 1000, body };
    let ino = volume.make(ROOT, name.as_bytes(), new).unwrap().ino;
    volume.write(ino, 0, noise(seed), false).unwrap();
}

fn reads(volume: &impl Volume, name: &str, seed: u8) -> bool {
    let Some(attr) = volume.lookup(ROOT, name.as_bytes()).unwrap() else { return false };
    volume.read(attr.ino, 0, LEN + 1).unwrap() == noise(seed)
}

fn publish(portal: &Portal) -> (Head, Vec<u8>) {
    portal.publish().unwrap();
    let bytes = portal.head().unwrap().unwrap();
    (Head::open(&bytes).unwrap(), bytes)
}

/// The epochs of a file's chunks.
fn epochs(reader: &TreeReader<Arc<Contents>>, name: &str) -> BTreeSet<u32> {
    let file = reader.resolve(Path::new(name)).unwrap();
    let inode = reader.attributes(file).unwrap().unwrap().inode;
    let extents = reader.whole_extents(file, &inode).unwrap();
    extents.iter().map(|(_, extent)| extent.chunk.epoch).collect()
}

fn only(epoch: u32) -> BTreeSet<u32> {
    BTreeSet::from([epoch])
}

fn shows(follower: &Follower, sequence: u64) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while follower.status().sequence < sequence && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    follower.status().sequence == sequence
}

/// A founder (1) whose portal has `old`, and members who have it: 2 and 3.
fn three() -> (Device, Device, Device, Arc<Portal>) {
    let (founder, stays, goes) = (Device::new(1), Device::new(2), Device::new(3));
    founder.portals.create("p", (1000, 1000), None).unwrap();
    stays.join(&founder, Capability::Reader);
    goes.join(&founder, Capability::Writer);
    let portal = founder.portals.open("p").unwrap();
    put(&portal.volume(Path::new("/")).unwrap(), "old", 1);
    (founder, stays, goes, portal)
}

#[test]
fn who_is_removed_reads_what_was_and_nothing_that_comes() {
    let runtime = Runtime::new().unwrap();
    let (founder, stays, goes, portal) = three();
    let volume = portal.volume(Path::new("/")).unwrap();
    let (old, bytes) = publish(&portal);
    assert_eq!((old.root.epoch, old.membership), (0, founder.chain().len()));
    let followers = [stays.follow(&runtime), goes.follow(&runtime)];
    for (device, follower) in [&stays, &goes].into_iter().zip(&followers) {
        device.hear(follower, &founder, &bytes);
        assert!(shows(follower, old.sequence));
        assert!(reads(&follower.volume(Path::new("/")).unwrap(), "old", 1));
    }
    let before = founder.chain().len();
    founder.portals.remove_member("p", &goes.id()).unwrap();
    assert_eq!((founder.chain().len(), founder.chain().epoch()), (before + 2, 1));
    put(&volume, "new", 2);
    put(&volume, "again", 1);
    let (new, bytes) = publish(&portal);
    assert_eq!((new.root.epoch, new.membership), (1, before + 2));
    let reader = founder.reader(&new);
    assert_eq!(epochs(&reader, "old"), only(0));
    assert_eq!(epochs(&reader, "new"), only(1));
    assert_eq!(epochs(&reader, "again"), only(0), "it is published: who had it has it");

    // The one that was offline: first it hears the head, then the records.
    stays.hear(&followers[0], &founder, &bytes);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(followers[0].status().sequence, old.sequence);
    assert!(reads(&followers[0].volume(Path::new("/")).unwrap(), "old", 1));
    stays.learn(&founder);
    assert!(shows(&followers[0], new.sequence));
    for (name, seed) in [("old", 1), ("new", 2), ("again", 1)] {
        assert!(reads(&followers[0].volume(Path::new("/")).unwrap(), name, seed), "{name}");
    }
    // A restart.
    followers[0].close().unwrap();
    let again = stays.follow(&runtime);
    assert!(reads(&again.volume(Path::new("/")).unwrap(), "new", 2));

    // The one that was removed has all chunks, the head and the records.
    goes.hear(&followers[1], &founder, &bytes);
    goes.learn(&founder);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(followers[1].status().sequence, old.sequence);
    let refused = FormatError::NotHanded { id: new.root.id, epoch: 1 }.to_string();
    let keys = goes.keys();
    let with_its_keys = TreeReader::new(founder.contents(), keys, new.root);
    assert_eq!(with_its_keys.open_node(&new.root).map(drop).unwrap_err().to_string(), refused);
    let root = goes.record().key.root().unwrap().clone();
    let sealed = founder.contents().get(&new.root.id).unwrap();
    for epoch in 0..4 {
        let guessed = Sealer::new(ContentSecret::derive(&root, epoch), epoch);
        assert!(guessed.open_any(&mut Unpacker::new(), &sealed).is_err());
    }
    for wrap in founder.chain().readers().flat_map(|member| &member.epochs) {
        let opened = unwrap_epoch(&wrap.1, 1, &founder.chain().portal(), &goes.wrap());
        assert!(opened.is_err());
    }
    let all = TreeReader::new(founder.contents(), goes.keys(), old.root);
    assert_eq!(epochs(&all, "old"), only(0), "what it had stays");

    // One that comes afterwards reads all.
    let late = Device::new(4);
    late.join(&founder, Capability::Reader);
    let follower = late.follow(&runtime);
    late.hear(&follower, &founder, &bytes);
    assert!(shows(&follower, new.sequence));
    let shown = follower.volume(Path::new("/")).unwrap();
    assert!(reads(&shown, "old", 1) && reads(&shown, "new", 2));
}

#[test]
fn two_epochs_are_checked_repaired_swept_and_opened_again() {
    let (founder, stays, goes, portal) = three();
    let volume = portal.volume(Path::new("/")).unwrap();
    portal.make_snapshot("before", Vec::new()).unwrap();
    founder.portals.remove_member("p", &goes.id()).unwrap();
    put(&volume, "new", 2);
    portal.make_snapshot("after", Vec::new()).unwrap();
    volume.unlink(ROOT, b"old", false).unwrap();
    let sound = |portal: &Portal| {
        let checked = portal.check(Reads::Everything, &Progress::default()).unwrap();
        assert!(checked.problems.is_empty() && checked.damage.is_empty(), "{checked:?}");
    };
    publish(&portal);
    portal.sweep_thoroughly().unwrap();
    sound(&portal);
    portal.close().unwrap();
    let repaired = founder.portals.repair("p", false, &Progress::default()).unwrap();
    assert!(repaired.was_sound() && repaired.problems.is_empty(), "{repaired:?}");

    // A process of its own.
    let portals = Portals::new(&Home::at(founder.dir.path().into()), &keyring(1)).unwrap();
    let portal = portals.open("p").unwrap();
    let volume = portal.volume(Path::new("/")).unwrap();
    assert!(reads(&volume, "new", 2) && !reads(&volume, "old", 1));
    for (snapshot, name, seed) in [("before", "old", 1), ("after", "old", 1), ("after", "new", 2)] {
        let at = format!("/.snapshots/{snapshot}");
        let root = volume.lookup(ROOT, b".snapshots").unwrap();
        let dir = root.and_then(|dir| volume.lookup(dir.ino, snapshot.as_bytes()).unwrap());
        let file = dir.and_then(|dir| volume.lookup(dir.ino, name.as_bytes()).unwrap());
        let file = file.unwrap_or_else(|| panic!("{at}/{name}"));
        assert!(volume.read(file.ino, 0, LEN).unwrap() == noise(seed), "{at}/{name}");
    }
    put(&volume, "newer", 3);
    let (head, _) = publish(&portal);
    assert_eq!(epochs(&founder.reader(&head), "newer"), only(1));
    sound(&portal);
    // The next removal is the next epoch.
    portals.remove_member("p", &stays.id()).unwrap();
    put(&volume, "newest", 4);
    let (head, _) = publish(&portal);
    assert_eq!((head.root.epoch, portals.chain("p").unwrap().epoch()), (2, 2));
    sound(&portal);
}

#[test]
fn nobody_is_handed_a_secret_whose_time_is_over_or_who_reads_nothing() {
    let (founder, stays, goes, _portal) = three();
    let custodian = Device::new(5);
    founder.invited(&custodian, Capability::Custodian);
    founder.portals.expire_member("p", &stays.id(), Some(now_secs() - 1000)).unwrap();
    founder.portals.remove_member("p", &goes.id()).unwrap();
    let chain = founder.chain();
    let readers: Vec<_> = chain.readers().map(|member| member.device).collect();
    assert_eq!(readers, [founder.id()]);
    assert!(chain.member(&stays.id()).unwrap().removed.is_some());
    assert!(chain.secrets_of(&custodian.id(), &custodian.wrap()).unwrap().is_empty());
    // It had nothing that opens anything.
    founder.portals.remove_member("p", &custodian.id()).unwrap();
    assert_eq!(founder.chain().epoch(), 1);
    // Refused: nothing of it is on the disk.
    let before = founder.chain();
    assert!(founder.portals.remove_member("p", &founder.id()).is_err());
    assert!(founder.portals.remove_member("p", &goes.id()).is_err());
    assert_eq!(founder.chain(), before);
}

/// What becomes of the next head.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// It waits; true once it does.
    Shut(bool),
    Fails,
}

/// A disk on which heads can be held up.
#[derive(Clone)]
struct Gated {
    disk: Arc<dyn Disk>,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

impl Gated {
    fn set(gate: &(Mutex<Gate>, Condvar), to: Gate) {
        *gate.0.lock().unwrap() = to;
        gate.1.notify_all();
    }
}

impl Disk for Gated {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn DiskFile>>> {
        self.disk.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if name.starts_with("head-") {
            let mut gate = self.gate.0.lock().unwrap();
            while let Gate::Shut(waits) = &mut *gate {
                *waits = true;
                self.gate.1.notify_all();
                gate = self.gate.1.wait(gate).unwrap();
            }
            if *gate == Gate::Fails {
                return Err(io::ErrorKind::Other.into());
            }
        }
        self.disk.create(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }
}

/// The founder's portal on a gated disk.
fn gated(founder: &Device) -> (Arc<Portal>, Arc<(Mutex<Gate>, Condvar)>) {
    let gate = Arc::new((Mutex::new(Gate::Open), Condvar::new()));
    let over = |disk| -> Arc<dyn Disk> { Arc::new(Gated { disk, gate: Arc::clone(&gate) }) };
    (founder.portals.open_over("p", over).unwrap(), gate)
}

#[test]
fn a_removal_waits_for_the_publish_that_is_under_way() {
    let (founder, _, goes, portal) = three();
    portal.close().unwrap();
    let (portal, gate) = gated(&founder);
    let volume = portal.volume(Path::new("/")).unwrap();
    put(&volume, "during", 2);
    Gated::set(&gate, Gate::Shut(false));
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publish(&portal).0);
        let mut state = gate.0.lock().unwrap();
        while *state != Gate::Shut(true) {
            state = gate.1.wait(state).unwrap();
        }
        drop(state);
        let removing = scope.spawn(|| founder.portals.remove_member("p", &goes.id()));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!removing.is_finished() && !publishing.is_finished());
        assert_eq!(founder.chain().epoch(), 1, "it is on the disk by then");
        Gated::set(&gate, Gate::Open);
        removing.join().unwrap().unwrap();
        let head = publishing.join().unwrap();
        assert_eq!((head.root.epoch, epochs(&founder.reader(&head), "during")), (0, only(0)));
    });
    put(&volume, "after", 3);
    let (head, _) = publish(&portal);
    assert_eq!((head.root.epoch, epochs(&founder.reader(&head), "after")), (1, only(1)));
}

#[test]
fn what_was_sealed_before_and_never_published_is_sealed_anew() {
    let (founder, _, goes, portal) = three();
    portal.close().unwrap();
    let (portal, gate) = gated(&founder);
    let volume = portal.volume(Path::new("/")).unwrap();
    Gated::set(&gate, Gate::Fails);
    put(&volume, "tried", 2);
    let stored = portal.status().chunks;
    assert!(portal.publish().is_err());
    assert!(portal.status().chunks > stored, "its chunks are there");
    founder.portals.remove_member("p", &goes.id()).unwrap();
    Gated::set(&gate, Gate::Open);
    let (head, _) = publish(&portal);
    assert_eq!((head.root.epoch, epochs(&founder.reader(&head), "tried")), (1, only(1)));
    assert!(reads(&volume, "tried", 2));
}

/// What is written behind it is sealed in the next epoch.
fn goes_on_in_the_next_epoch(founder: &Device, portal: &Arc<Portal>, gone: &Device) {
    put(&portal.volume(Path::new("/")).unwrap(), "new", 2);
    let (head, _) = publish(portal);
    assert_eq!(head.root.epoch, 1);
    let chain = founder.chain();
    assert!(chain.member(&gone.id()).unwrap().removed.is_some());
    assert!(chain.secrets_of(&gone.id(), &gone.wrap()).unwrap().is_empty());
}

#[test]
fn when_a_time_is_over_the_next_start_begins_an_epoch() {
    let (founder, stays, goes, portal) = three();
    publish(&portal);
    let before = founder.chain().len();
    founder.portals.expire_member("p", &goes.id(), Some(now_secs() + 1000)).unwrap();
    assert!(!founder.portals.end_expired("p").unwrap(), "it has time left");
    assert!(!stays.portals.end_expired("p").unwrap(), "the portal is another's");
    founder.portals.expire_member("p", &goes.id(), Some(now_secs() - 1000)).unwrap();
    assert_eq!((founder.chain().len(), founder.chain().epoch()), (before + 2, 0));
    portal.close().unwrap();
    drop(portal);
    let portal = founder.portals.open("p").unwrap();
    assert_eq!((founder.chain().len(), founder.chain().epoch()), (before + 4, 1));
    goes_on_in_the_next_epoch(&founder, &portal, &goes);
    assert!(!founder.portals.end_expired("p").unwrap(), "once");
    stays.learn(&founder);
    assert_eq!(stays.chain().secrets_of(&stays.id(), &stays.wrap()).unwrap().len(), 1);
}

#[test]
fn when_a_time_is_over_a_device_that_is_up_begins_an_epoch() {
    let (founder, _stays, goes, portal) = three();
    publish(&portal);
    let network = Network {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        multicast: false,
        limit: None,
        limit_per_peer: None,
    };
    let portals = Portals::new(&Home::at(founder.dir.path().into()), &keyring(1)).unwrap();
    let portals = Arc::new(portals);
    let home = Home::at(founder.dir.path().into());
    portal.close().unwrap();
    drop(portal);
    let portal = portals.open("p").unwrap();
    let seed = Secret::new([founder.seed; 32]);
    let peers = Peers::start(&home, &seed, founder.id(), Arc::clone(&portals), network).unwrap();
    let entry = portals.find("p").unwrap();
    peers.share(&entry, &Opened::Own(Arc::clone(&portal))).unwrap();
    let over = Change::Expire { device: goes.id(), at: Some(now_secs() - 1000) };
    peers.change(&entry, over).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let volume = portal.volume(Path::new("/")).unwrap();
    for n in 0.. {
        put(&volume, &format!("before-{n}"), 3);
        if publish(&portal).0.root.epoch == 1 {
            break;
        }
        assert!(Instant::now() < until, "its time is over, and nothing happened");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(founder.chain().epoch(), 1);
    goes_on_in_the_next_epoch(&founder, &portal, &goes);
    peers.close();
}

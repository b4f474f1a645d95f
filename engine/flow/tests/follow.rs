//! A joined portal: what it shows when heads come, and when no peer is there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedSender;
use warp_cache::store::Class;
use warp_flow::follow::{FollowVolume, Follower};
use warp_flow::home::{Home, random_secret};
use warp_flow::members::now_secs;
use warp_flow::opened::Opened;
use warp_flow::portal::{Portal, PortalVolume};
use warp_flow::portals::Portals;
use warp_flow::swarm::{Asked, Peer, Swarm};
use warp_flow::volume::{NewInode, SetAttr, Volume, XattrMode};
use warp_flow::{FlowError, Refusal};
use warp_format::keys::SigningKey;
use warp_format::members::Capability;
use warp_format::record::{Body, NO_DIRECTORIES};
use warp_format::wire::Change;
use warp_format::{ChunkId, DeviceId, Keyring};
use warp_net::{Event, Received, Wish};

const ROOT: u64 = 1;

/// The writer as a peer in this process; it can be gone.
struct Direct {
    device: DeviceId,
    portal: Arc<Portal>,
    /// An answer takes this long.
    rtt: Duration,
}

impl Peer for Direct {
    fn device(&self) -> DeviceId {
        self.device
    }

    fn rtt(&self) -> Duration {
        self.rtt
    }

    fn received(&self) -> u64 {
        0
    }

    fn may_have(&self, _: &ChunkId) -> bool {
        true
    }

    fn request(&self, number: u64, wish: Wish, events: UnboundedSender<Event>) -> Asked {
        let answer = |id| match self.portal.chunk(&id) {
            Some(chunk) => {
                let bytes = Received::new(chunk.bytes().to_vec());
                Event::Chunk { number, id, bytes }
            }
            None => Event::NotFound { number, id },
        };
        let answers: Vec<_> = wish.ids.into_iter().map(answer).collect();
        let rtt = self.rtt;
        tokio::spawn(async move {
            tokio::time::sleep(rtt).await;
            for event in answers.into_iter().chain([Event::Done { number }]) {
                let _ = events.send(event);
            }
        });
        Box::new(())
    }
}

/// A device that writes a portal, and one that has joined it.
struct Scene {
    _dirs: [TempDir; 2],
    runtime: Runtime,
    writer: Arc<Portal>,
    device: DeviceId,
    volume: PortalVolume,
    reader: Portals,
    swarm: Arc<Mutex<Option<Arc<Swarm>>>>,
}

fn keyring() -> Keyring {
    Keyring::new(random_secret().unwrap(), random_secret().unwrap()).unwrap()
}

impl Scene {
    fn new() -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (ours, theirs) = (keyring(), keyring());
        let writes = Portals::new(&Home::at(dirs[0].path().into()), &ours).unwrap();
        let reader = Portals::new(&Home::at(dirs[1].path().into()), &theirs).unwrap();
        writes.create("p", (0, 0), None).unwrap();
        let key = SigningKey::from_seed(&random_secret().unwrap()).device_id();
        let (capability, expires) = (Capability::Reader, now_secs() + 60);
        writes.found("p", "a").unwrap();
        let change = Change::Invite { key, capability, may_invite: false, expires, uses: 1 };
        writes.alter("p", &writes.me(), change).unwrap();
        let who = (theirs.device_key().device_id(), reader.wrap_key());
        let chain = writes.redeem("p", &key, who, "b").unwrap();
        reader.join(chain.bytes_from(0), None).unwrap();
        let writer = writes.open("p").unwrap();
        let volume = writer.volume(Path::new("/")).unwrap();
        let device = ours.device_key().device_id();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let swarm = Arc::default();
        Self { _dirs: dirs, runtime, writer, device, volume, reader, swarm }
    }

    /// Opens the joined portal.
    fn follow(&self) -> Arc<Follower> {
        let opened = self.reader.open_joined("p", |store| {
            let swarm = Swarm::start(Arc::clone(store), Class::Cached, self.runtime.handle());
            *self.swarm.lock().unwrap() = Some(Arc::clone(&swarm));
            swarm
        });
        opened.unwrap()
    }

    fn swarm(&self) -> Arc<Swarm> {
        Arc::clone(self.swarm.lock().unwrap().as_ref().unwrap())
    }

    /// The writer is there for the reader, or is not.
    fn connect(&self) {
        self.connect_at(Duration::from_millis(1));
    }

    fn connect_at(&self, rtt: Duration) {
        let portal = Arc::clone(&self.writer);
        self.swarm().joined(Arc::new(Direct { device: self.device, portal, rtt }));
    }

    fn part(&self) {
        self.swarm().left(self.device);
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let found = self.volume.lookup(ROOT, name.as_bytes()).unwrap();
        let ino = found.map_or_else(
            || {
                let body = Body::Extents(0);
                let new = NewInode { permissions: 0o644, umask: 0, uid: 0, gid: 0, body };
                self.volume.make(ROOT, name.as_bytes(), new).unwrap().ino
            },
            |found| found.ino,
        );
        let size = SetAttr { size: Some(0), ..SetAttr::default() };
        self.volume.set_attr(ino, &size).unwrap();
        self.volume.write(ino, 0, bytes.to_vec(), false).unwrap();
    }

    /// Publishes; gives the head.
    fn publish(&self) -> Vec<u8> {
        self.writer.publish().unwrap();
        self.writer.head().unwrap().unwrap()
    }
}

#[track_caller]
fn soon(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn read(volume: &FollowVolume, name: &str) -> Result<Vec<u8>, FlowError> {
    let found = volume.lookup(ROOT, name.as_bytes())?.ok_or(Refusal::Missing)?;
    volume.read(found.ino, 0, usize::try_from(found.inode.size).unwrap())
}

#[test]
fn what_is_published_is_shown_and_an_older_head_never_again() {
    let scene = Scene::new();
    scene.write("f", &[1; 100_000]);
    let first = scene.publish();
    let follower = scene.follow();
    assert!(!follower.wait_for_head(Duration::ZERO), "it has heard of none");
    scene.connect();
    assert!(follower.take_head(&first).unwrap());
    assert!(follower.wait_for_head(Duration::from_secs(5)));
    let volume = follower.volume(Path::new("/")).unwrap();
    assert_eq!(read(&volume, "f").unwrap(), [1; 100_000]);
    scene.write("f", &[2; 150_000]);
    scene.write("g", b"new");
    let second = scene.publish();
    assert!(follower.take_head(&second).unwrap());
    soon("the second head", || follower.status().sequence == 3);
    assert_eq!(read(&volume, "f").unwrap(), [2; 150_000]);
    assert_eq!(read(&volume, "g").unwrap(), b"new");
    assert!(!follower.take_head(&first).unwrap(), "it is older");
    assert!(!follower.take_head(&second).unwrap(), "it is known");
    assert_eq!(follower.heads(), [second]);
    // Another portal's head, and a damaged one.
    let other = Scene::new();
    other.write("f", b"x");
    assert!(follower.take_head(&other.publish()).is_err());
    let mut bad = first;
    bad[40] ^= 1;
    assert!(follower.take_head(&bad).is_err());
    assert!(volume.lookup(ROOT, b"h").unwrap().is_none());
    follower.close().unwrap();
}

#[test]
fn a_head_is_shown_when_what_it_changes_can_be_had() {
    let scene = Scene::new();
    scene.write("f", b"one");
    let first = scene.publish();
    let follower = scene.follow();
    scene.connect();
    follower.take_head(&first).unwrap();
    assert!(follower.wait_for_head(Duration::from_secs(5)));
    let volume = follower.volume(Path::new("/")).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&told);
    volume.watch(Box::new(move |ino| noted.lock().unwrap().push(ino)));
    let (f, same) = (volume.lookup(ROOT, b"f").unwrap().unwrap().ino, ROOT);
    assert_eq!(read(&volume, "f").unwrap(), b"one");
    scene.swarm().set_offline(true);
    scene.part();
    scene.write("f", b"two");
    let second = scene.publish();
    assert!(follower.take_head(&second).unwrap());
    std::thread::sleep(Duration::from_millis(300));
    // The old one goes on being shown, whole.
    assert_eq!((follower.status().sequence, follower.status().newest), (2, 3));
    assert_eq!(read(&volume, "f").unwrap(), b"one");
    assert!(told.lock().unwrap().is_empty());
    scene.swarm().set_offline(false);
    scene.connect();
    soon("the second head", || follower.status().sequence == 3);
    assert_eq!(read(&volume, "f").unwrap(), b"two");
    soon("the kernel is told", || !told.lock().unwrap().is_empty());
    assert_eq!(*told.lock().unwrap(), [f], "the root ({same}) has not changed");
    follower.close().unwrap();
}

#[test]
fn after_a_restart_what_was_known_is_there_without_any_peer() {
    let scene = Scene::new();
    scene.write("f", &[7; 70_000]);
    scene.write("g", &[8; 70_000]);
    let head = scene.publish();
    let follower = scene.follow();
    scene.connect();
    follower.take_head(&head).unwrap();
    assert!(follower.wait_for_head(Duration::from_secs(5)));
    let volume = follower.volume(Path::new("/")).unwrap();
    assert_eq!(read(&volume, "f").unwrap(), [7; 70_000]);
    drop(volume);
    follower.close().unwrap();
    drop(follower);
    let follower = scene.follow();
    assert!(follower.wait_for_head(Duration::ZERO));
    scene.swarm().set_offline(true);
    let volume = follower.volume(Path::new("/")).unwrap();
    assert_eq!(read(&volume, "f").unwrap(), [7; 70_000]);
    let failed = read(&volume, "g").err().unwrap();
    assert!(matches!(failed, FlowError::Unreachable { .. }), "{failed}");
    follower.close().unwrap();
}

#[test]
fn it_answers_what_a_volume_is_asked_and_changes_nothing() {
    let scene = Scene::new();
    scene.write("f", &[1; 5000]);
    let link = NewInode {
        permissions: 0o777,
        umask: 0,
        uid: 0,
        gid: 0,
        body: Body::Symlink(b"f".to_vec()),
    };
    scene.volume.make(ROOT, b"l", link).unwrap();
    let head = scene.publish();
    let follower = scene.follow();
    scene.connect();
    follower.take_head(&head).unwrap();
    assert!(follower.wait_for_head(Duration::from_secs(5)));
    assert!(Opened::Joined(Arc::clone(&follower)).own().is_err());
    let volume = follower.volume(Path::new("/")).unwrap();
    let mut names: Vec<_> =
        volume.entries(ROOT, None, 10, true).unwrap().into_iter().map(|e| e.name).collect();
    names.sort_unstable();
    assert_eq!(names, [b"f", b"l"]);
    let f = volume.lookup(ROOT, b"f").unwrap().unwrap();
    assert_eq!(volume.attr(f.ino).unwrap().unwrap().inode, f.inode);
    assert_eq!(volume.seek(f.ino, 0, true).unwrap(), Some(5000));
    assert_eq!(volume.xattr(f.ino, b"user.warp.chunks").unwrap(), Some(b"1".to_vec()));
    assert!(volume.xattrs(f.ino).unwrap().is_empty());
    let l = volume.lookup(ROOT, b"l").unwrap().unwrap();
    assert!(matches!(&l.inode.body, Body::Symlink(target) if target == b"f"));
    assert!(volume.read(ROOT, 0, 1).is_err() && volume.attr(12345).is_err());
    let refused = |result: Result<(), FlowError>| {
        assert!(matches!(result, Err(FlowError::Refused(Refusal::ReadOnly))));
    };
    refused(volume.write(f.ino, 0, vec![1], false));
    refused(volume.unlink(ROOT, b"f", false));
    refused(volume.set_attr(f.ino, &SetAttr::default()).map(drop));
    refused(volume.set_xattr(f.ino, b"user.a", b"b", XattrMode::Set));
    follower.close().unwrap();
}

#[test]
fn a_walk_over_many_nodes_asks_for_several_at_a_time() {
    let scene = Scene::new();
    for n in 0..6000 {
        scene.write(&format!("a-file-with-some-name-{n:05}"), b"x");
    }
    let head = scene.publish();
    let follower = scene.follow();
    let rtt = Duration::from_millis(25);
    scene.connect_at(rtt);
    follower.take_head(&head).unwrap();
    assert!(follower.wait_for_head(Duration::from_secs(5)));
    let volume = follower.volume(Path::new("/")).unwrap();
    let (mut place, mut names, began) = (None, 0, Instant::now());
    loop {
        let entries = volume.entries(ROOT, place, 500, true).unwrap();
        let Some(last) = entries.last() else { break };
        (place, names) = (Some(last.place), names + entries.len());
    }
    assert_eq!(names, 6000);
    let (took, nodes) = (began.elapsed(), follower.status().chunks as u32);
    assert!(nodes > 30, "{nodes} nodes");
    // One after another, each would take the way there and back.
    assert!(took < nodes * rtt * 2 / 3, "{nodes} nodes at {rtt:?} took {took:?}");
    follower.close().unwrap();
}

#[test]
fn files_of_a_directory_come_when_it_is_read_file_by_file_and_not_before() {
    let scene = Scene::new();
    // Too long for a group with its neighbours, and nothing that compresses.
    let content = |n: u8| {
        let mut bytes = vec![0; 90_000];
        blake3::Hasher::new_keyed(&[n; 32]).finalize_xof().fill(&mut bytes);
        bytes
    };
    for n in 0..60 {
        scene.write(&format!("{n}"), &content(n));
    }
    let head = scene.publish();
    let follower = scene.follow();
    scene.connect_at(Duration::from_millis(10));
    follower.take_head(&head).unwrap();
    assert!(follower.wait_for_head(Duration::from_secs(5)));
    let volume = follower.volume(Path::new("/")).unwrap();
    assert_eq!(read(&volume, "7").unwrap(), content(7));
    assert_eq!(read(&volume, "7").unwrap(), content(7));
    std::thread::sleep(Duration::from_millis(300));
    let one = follower.status().stored_bytes;
    assert!(one < 200_000, "{one} bytes for one file");
    assert_eq!(read(&volume, "33").unwrap(), content(33));
    soon("the next", || follower.status().stored_bytes > 10 * 90_000);
    for n in 0..60 {
        assert_eq!(read(&volume, &format!("{n}")).unwrap(), content(n));
        soon("what was half read", || n < 30 || follower.status().stored_bytes > 58 * 90_000);
    }
    assert_eq!(follower.counters().wasted_bytes.load(Ordering::Relaxed), 0);
    follower.close().unwrap();
}

#[test]
fn directories_beside_two_that_were_listed_are_known_without_any_peer() {
    let scene = Scene::new();
    let dir = |parent, name: &str| {
        let body = Body::Directory(NO_DIRECTORIES);
        let new = NewInode { permissions: 0o755, umask: 0, uid: 0, gid: 0, body };
        scene.volume.make(parent, name.as_bytes(), new).unwrap().ino
    };
    // What they list lies elsewhere in the tree.
    let dirs: Vec<_> = (0..40).map(|n| dir(ROOT, &format!("d{n}"))).collect();
    for made in dirs {
        for m in 0..150 {
            let name = format!("a-name-that-takes-some-room-in-a-node-{m}");
            let body = Body::Symlink(name.clone().into_bytes());
            let new = NewInode { permissions: 0o777, umask: 0, uid: 0, gid: 0, body };
            scene.volume.make(made, name.as_bytes(), new).unwrap();
        }
    }
    let head = scene.publish();
    let follower = scene.follow();
    scene.connect_at(Duration::from_millis(10));
    follower.take_head(&head).unwrap();
    assert!(follower.wait_for_head(Duration::from_secs(5)));
    let volume = follower.volume(Path::new("/")).unwrap();
    assert_eq!(volume.entries(ROOT, None, 100, true).unwrap().len(), 40);
    let list = |n: usize| {
        let found = volume.lookup(ROOT, format!("d{n}").as_bytes())?.unwrap();
        Ok::<_, FlowError>(volume.entries(found.ino, None, 1000, true)?.len())
    };
    let settled = || {
        let mut last = 0;
        while follower.status().chunks != last {
            last = follower.status().chunks;
            std::thread::sleep(Duration::from_millis(200));
        }
        last
    };
    assert_eq!(list(11).unwrap(), 150);
    let one = settled();
    assert_eq!(list(29).unwrap(), 150);
    let all = settled();
    assert!(all > one + 8, "{one} nodes, then {all}");
    scene.swarm().set_offline(true);
    for n in 0..40 {
        assert_eq!(list(n).unwrap(), 150, "d{n}");
    }
    follower.close().unwrap();
}

#[test]
fn who_asks_how_it_stands_holds_up_no_head() {
    let scene = Scene::new();
    scene.write("f", b"0");
    let mut head = scene.publish();
    let follower = scene.follow();
    scene.connect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    follower.status();
                    follower.wait_for_head(Duration::ZERO);
                }
            });
        }
        for n in 1..60u8 {
            follower.take_head(&head).unwrap();
            scene.write("f", &[n]);
            head = scene.publish();
        }
        over.store(true, Ordering::Relaxed);
    });
    follower.take_head(&head).unwrap();
    let newest = follower.status().newest;
    soon("the last head", || follower.status().sequence == newest);
    follower.close().unwrap();
}

//! The swarm with peers in this process: some give, some lie, some are silent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedSender;
use warp_cache::disk::{Disk, HostDisk};
use warp_cache::store::{Class, Store};
use warp_flow::FlowError;
use warp_flow::source::ChunkSource;
use warp_flow::swarm::{Asked, Peer, Swarm};
use warp_format::codec::{Level, Packer};
use warp_format::{ChunkId, ChunkRef, DeviceId, NamingKeys, PlainChunk, SealedChunk, Sealer};
use warp_net::{Event, Received, Wish};

/// What a peer does with what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Gives,
    /// So many of its chunks, the first among them, have one bit flipped.
    Lies {
        one_in: usize,
    },
    /// Cuts each chunk short.
    Truncates,
    /// Says nothing at all.
    Silent,
    /// Sends half of the first chunk, and then nothing.
    Stalls,
    HasNot,
}

struct Fake {
    device: DeviceId,
    manner: Manner,
    chunks: Arc<HashMap<ChunkId, SealedChunk>>,
    /// A chunk takes this long.
    each: Duration,
    given: Arc<AtomicUsize>,
}

impl Peer for Fake {
    fn device(&self) -> DeviceId {
        self.device
    }

    fn rtt(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn received(&self) -> u64 {
        0
    }

    fn may_have(&self, _: &ChunkId) -> bool {
        true
    }

    fn request(&self, number: u64, wish: Wish, events: UnboundedSender<Event>) -> Asked {
        let (manner, chunks, each) = (self.manner, Arc::clone(&self.chunks), self.each);
        let given = Arc::clone(&self.given);
        let task = tokio::spawn(async move {
            for id in wish.ids {
                tokio::time::sleep(each).await;
                let n = given.fetch_add(1, Ordering::SeqCst);
                let mut bytes = chunks[&id].bytes().to_vec();
                match manner {
                    Manner::Silent => return std::future::pending().await,
                    Manner::Stalls => {
                        let _ = events.send(Event::Progress { number, bytes: bytes.len() / 2 });
                        return std::future::pending().await;
                    }
                    Manner::HasNot => {
                        let _ = events.send(Event::NotFound { number, id });
                        continue;
                    }
                    Manner::Lies { one_in } if n.is_multiple_of(one_in) => bytes[40] ^= 1,
                    Manner::Truncates => bytes.truncate(bytes.len() / 2),
                    Manner::Gives | Manner::Lies { .. } => {}
                }
                let _ = events.send(Event::Progress { number, bytes: bytes.len() });
                let _ = events.send(Event::Chunk { number, id, bytes: Received::new(bytes) });
            }
            let _ = events.send(Event::Done { number });
        });
        Box::new(Abort(task.abort_handle()))
    }
}

struct Abort(tokio::task::AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A portal's chunks, and a device that has none of them.
struct Scene {
    runtime: Runtime,
    swarm: Arc<Swarm>,
    store: Arc<Store>,
    references: Vec<ChunkRef>,
    chunks: Arc<HashMap<ChunkId, SealedChunk>>,
    _dir: tempfile::TempDir,
    peers: Mutex<u8>,
}

impl Scene {
    fn new(count: usize) -> Self {
        let keys = NamingKeys::public();
        let (sealer, mut packer) = (Sealer::plain(), Packer::new(Level::DEFAULT));
        let mut references = Vec::new();
        let mut chunks = HashMap::new();
        for n in 0..count {
            let mut bytes = vec![0; 20_000];
            blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
            let plain = PlainChunk::data(&keys, bytes);
            let sealed = sealer.seal(&packer.pack(&plain));
            references.push(sealer.reference(&sealed, plain.hash(), plain.bytes().len()));
            chunks.insert(sealed.id(), sealed);
        }
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(HostDisk::new(dir.path().into()).unwrap());
        let store = Arc::new(Store::open(disk).unwrap().0);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
        let runtime = runtime.unwrap();
        let swarm = Swarm::start(Arc::clone(&store), Class::Cached, runtime.handle());
        let (chunks, peers) = (Arc::new(chunks), Mutex::new(0));
        Self { runtime, swarm, store, references, chunks, _dir: dir, peers }
    }

    /// Adds a peer; gives its number of chunks sent.
    fn add(&self, manner: Manner, each_us: u64) -> (DeviceId, Arc<AtomicUsize>) {
        let mut peers = self.peers.lock().unwrap();
        *peers += 1;
        let (device, given) = (DeviceId([*peers; 32]), Arc::new(AtomicUsize::new(0)));
        let chunks = Arc::clone(&self.chunks);
        let each = Duration::from_micros(each_us);
        let fake = Fake { device, manner, chunks, each, given: Arc::clone(&given) };
        self.swarm.joined(Arc::new(fake));
        (device, given)
    }

    /// Reads everything in order, asked for ahead; gives how long it took.
    fn read_all(&self) -> Duration {
        let began = Instant::now();
        let source =
            warp_flow::follow::Source::new(Arc::clone(&self.store), Arc::clone(&self.swarm));
        for (n, reference) in self.references.iter().enumerate() {
            if n % 64 == 0 {
                source.expect(&self.references[n..(n + 128).min(self.references.len())]);
            }
            let chunk = source.fetch(&reference.id).unwrap();
            assert_eq!(chunk.bytes(), self.chunks[&reference.id].bytes());
        }
        began.elapsed()
    }
}

#[test]
fn everything_comes_from_several_peers_and_is_stored() {
    let scene = Scene::new(300);
    let given: Vec<_> = (0..3).map(|_| scene.add(Manner::Gives, 500).1).collect();
    scene.read_all();
    assert!(given.iter().all(|given| given.load(Ordering::SeqCst) > 10), "{given:?}");
    assert_eq!(scene.store.usage(Class::Cached).chunks, 300);
    // A second time nobody is asked.
    let before: usize = given.iter().map(|given| given.load(Ordering::SeqCst)).sum();
    scene.read_all();
    assert_eq!(before, given.iter().map(|given| given.load(Ordering::SeqCst)).sum::<usize>());
}

#[test]
fn a_peer_that_lies_is_found_out_at_once_and_asked_nothing_more() {
    for manner in [Manner::Lies { one_in: 10 }, Manner::Truncates] {
        let scene = Scene::new(300);
        let (_, lies) = scene.add(manner, 200);
        let (_, gives) = scene.add(Manner::Gives, 500);
        scene.read_all();
        let counters = scene.swarm.counters();
        // What was under way when the first one was seen may come, too.
        assert!(counters.bad_chunks.load(Ordering::Relaxed) >= 1);
        assert!(lies.load(Ordering::SeqCst) <= 64, "{manner:?}: {lies:?}");
        assert!(gives.load(Ordering::SeqCst) >= 236, "{manner:?}: {gives:?}");
    }
}

#[test]
fn a_peer_that_is_silent_or_stalls_holds_nobody_up() {
    for manner in [Manner::Silent, Manner::Stalls] {
        let scene = Scene::new(200);
        scene.add(manner, 100);
        scene.add(Manner::Gives, 300);
        let took = scene.read_all();
        assert!(took < Duration::from_secs(3), "{manner:?}: {took:?}");
    }
}

#[test]
fn what_a_peer_does_not_have_comes_from_another() {
    let scene = Scene::new(100);
    scene.add(Manner::HasNot, 100);
    scene.add(Manner::Gives, 300);
    scene.read_all();
    assert_eq!(scene.swarm.counters().bad_chunks.load(Ordering::Relaxed), 0);
}

#[test]
fn of_all_who_want_a_chunk_one_asks_for_it() {
    let scene = Scene::new(1);
    let (_, given) = scene.add(Manner::Gives, 50_000);
    let id = scene.references[0].id;
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let source = warp_flow::follow::Source::new(
                    Arc::clone(&scene.store),
                    Arc::clone(&scene.swarm),
                );
                assert_eq!(source.fetch(&id).unwrap().id(), id);
            });
        }
    });
    assert_eq!(given.load(Ordering::SeqCst), 1);
}

#[test]
fn a_peer_that_comes_back_is_asked_for_what_is_still_waited_for() {
    let scene = Scene::new(50);
    let (device, _) = scene.add(Manner::Silent, 100);
    std::thread::scope(|scope| {
        scope.spawn(|| scene.read_all());
        std::thread::sleep(Duration::from_millis(200));
        scene.swarm.left(device);
        std::thread::sleep(Duration::from_millis(200));
        scene.add(Manner::Gives, 100);
    });
}

#[test]
fn offline_nobody_is_asked_and_the_reason_is_told() {
    let scene = Scene::new(1);
    let (_, given) = scene.add(Manner::Gives, 100);
    scene.swarm.set_offline(true);
    let source = warp_flow::follow::Source::new(Arc::clone(&scene.store), Arc::clone(&scene.swarm));
    let failed = source.fetch(&scene.references[0].id).err().unwrap();
    assert!(matches!(failed, FlowError::Unreachable { .. }), "{failed}");
    assert!(failed.to_string().contains("offline"), "{failed}");
    assert_eq!(given.load(Ordering::SeqCst), 0);
    let _ = &scene.runtime;
}

#[test]
fn one_chunk_after_another_takes_no_longer_than_the_way() {
    let scene = Scene::new(30);
    scene.add(Manner::Gives, 100);
    let source = warp_flow::follow::Source::new(Arc::clone(&scene.store), Arc::clone(&scene.swarm));
    let times: Vec<Duration> = scene
        .references
        .iter()
        .map(|reference| {
            let began = Instant::now();
            source.fetch(&reference.id).unwrap();
            began.elapsed()
        })
        .collect();
    let slow = times.iter().filter(|took| **took > Duration::from_millis(15)).count();
    assert!(slow <= 3, "{times:?}");
}

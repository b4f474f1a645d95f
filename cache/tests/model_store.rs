//! The store against a map: random puts, gets, syncs, evictions and restarts,
//! on the recording disk and on the host's.

use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use warp_cache::disk::{Disk, HostDisk};
use warp_cache::store::{Class, Store};
use warp_cache::testing::CrashDisk;
use warp_format::{ChunkId, SealedChunk};

#[derive(Debug, Clone)]
enum Act {
    Put(u8, Class),
    Get(u8),
    Sync,
    Evict(u64),
    /// What stays: the chunks whose number has this bit.
    Sweep(u8, u64),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let class = prop_oneof![Just(Class::Own), Just(Class::Replica), Just(Class::Cached)];
    prop_oneof![
        6 => (any::<u8>(), class).prop_map(|(n, class)| Act::Put(n % 40, class)),
        4 => any::<u8>().prop_map(|n| Act::Get(n % 40)),
        2 => Just(Act::Sync),
        1 => (0u64..9000).prop_map(Act::Evict),
        1 => (0u8..8, 0u64..100).prop_map(|(bit, percent)| Act::Sweep(bit, percent)),
        1 => Just(Act::Restart),
    ]
}

fn chunk(n: u8) -> SealedChunk {
    let len = 50 + usize::from(n) * 37;
    SealedChunk::found((0..len).map(|i| (i as u8).wrapping_mul(n | 1) ^ n).collect())
}

/// What one was told that asks for all that came since it asked last.
#[derive(Default)]
struct Told {
    ids: HashSet<ChunkId>,
    next: u64,
}

impl Told {
    /// Asks for a page now and then, and must then know all that is there.
    fn catch_up(&mut self, store: &Store, count: usize) {
        if count % 3 == 1 {
            return;
        }
        loop {
            let page = store.list(self.next, 4);
            assert!(page.ids.len() <= 4);
            let is_all = page.next == self.next;
            assert!(!is_all || page.ids.is_empty());
            self.next = page.next;
            self.ids.extend(page.ids);
            if is_all {
                break;
            }
        }
        let missing: Vec<_> = store.ids().into_iter().filter(|id| !self.ids.contains(id)).collect();
        assert!(missing.is_empty(), "never told of {missing:?}");
    }
}

/// Runs the acts on a store and on a map from id to the best class that the
/// chunk was put with; compares after each.
fn run(disk: Arc<dyn Disk>, acts: &[Act]) {
    let open = || Store::open_with(Arc::clone(&disk), 2000).unwrap().0;
    let mut store = open();
    let mut told = Told::default();
    let mut model: HashMap<ChunkId, Class> = HashMap::new();
    // Chunks that were *own* at some time: a sweep may take them.
    let mut own = HashSet::new();
    for act in acts {
        match act {
            Act::Put(n, class) => {
                let chunk = chunk(*n);
                store.put(&chunk, *class).unwrap();
                if *class == Class::Own {
                    own.insert(chunk.id());
                }
                let best = model.entry(chunk.id()).or_insert(*class);
                *best = (*best).min(*class);
            }
            Act::Get(n) => {
                let chunk = chunk(*n);
                assert_eq!(store.contains(&chunk.id()), model.contains_key(&chunk.id()));
                assert_eq!(store.get(&chunk.id()).is_ok(), model.contains_key(&chunk.id()));
            }
            Act::Sync => store.sync().unwrap(),
            Act::Evict(bytes) => {
                let before = store.usage(Class::Cached).bytes;
                let evicted = store.evict(*bytes).unwrap();
                assert!(evicted.bytes >= (*bytes).min(before));
                // Only what is cached and nothing else may be gone, and that
                // is told.
                let mut gone: HashSet<_> = evicted.chunks.into_iter().collect();
                model.retain(|id, class| {
                    let is_gone = *class == Class::Cached && !store.contains(id);
                    assert_eq!(gone.remove(id), is_gone);
                    !is_gone
                });
                assert!(gone.is_empty(), "{gone:?} were not here");
            }
            Act::Sweep(bit, percent) => sweep(&store, *bit, *percent, &mut model, &mut own),
            // No power cut: everything written is there.
            Act::Restart => {
                store = open();
                told = Told::default();
            }
        }
        told.catch_up(&store, model.len());
        for (id, class) in &model {
            let found = store.get(id);
            assert!(found.is_ok(), "{class:?} chunk {id}: {found:?} after {act:?}");
            assert_eq!(found.unwrap().id(), *id);
        }
    }
}

/// Sweeps with something put meanwhile, which stays.
fn sweep(
    store: &Store,
    bit: u8,
    percent: u64,
    model: &mut HashMap<ChunkId, Class>,
    own: &mut HashSet<ChunkId>,
) {
    let stays = |n: u8| n >> bit & 1 == 1;
    let live: HashSet<ChunkId> = (0..40).filter(|n| stays(*n)).map(|n| chunk(n).id()).collect();
    let before = store.usage(Class::Own).bytes;
    let sweep = store.begin_sweep();
    let late = chunk(bit * 5);
    store.put(&late, Class::Own).unwrap();
    model.insert(late.id(), Class::Own);
    own.insert(late.id());
    let swept = sweep.finish(&live, percent).unwrap();
    let after = store.usage(Class::Own).bytes;
    assert!(after <= before + 4000, "{before} {after} {swept:?}");
    // What is not referred to may be gone, or be merely cached from here on.
    model.retain(|id, class| {
        if live.contains(id) || *id == late.id() || !own.contains(id) {
            return true;
        }
        *class = Class::Cached;
        store.contains(id)
    });
    if percent == 0 {
        assert_eq!(swept.left_bytes, 0, "{swept:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_store_is_a_map_from_id_to_chunk(acts in prop::collection::vec(act(), 1..60)) {
        run(Arc::new(CrashDisk::default()), &acts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_store_on_the_host_is_a_map_too(acts in prop::collection::vec(act(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        run(Arc::new(HostDisk::new(dir.path().into()).unwrap()), &acts);
    }
}

#[test]
fn a_flipped_bit_in_a_pack_is_an_error_and_not_other_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(Arc::new(HostDisk::new(dir.path().into()).unwrap())).unwrap();
    let (store, _) = open();
    store.put(&chunk(9), Class::Own).unwrap();
    store.sync().unwrap();
    let path = dir.path().join("own-00000001.pack");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(store.get(&chunk(9).id()).is_err());
}

/// Damage in the middle of a pack that is read at start costs the chunks it
/// touches and no other.
#[test]
fn damage_in_the_middle_of_a_pack_costs_what_it_touches() {
    for (from, len) in [(0, 40), (300, 1), (330, 200)] {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(Arc::new(HostDisk::new(dir.path().into()).unwrap())).unwrap();
        let (store, _) = open();
        (0..8).for_each(|n| store.put(&chunk(n), Class::Own).unwrap());
        store.sync().unwrap();
        drop(store);
        let path = dir.path().join("own-00000001.pack");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[from..from + len].fill(0xaa);
        std::fs::write(&path, bytes).unwrap();
        let (store, recovery) = open();
        let lost = (0..8).filter(|n| store.get(&chunk(*n).id()).is_err()).count();
        assert!(lost <= 3, "{lost} lost by {len} bytes at {from}: {recovery:?}");
        assert!(recovery.damaged_bytes > 0 || lost == 0, "{recovery:?}");
    }
}

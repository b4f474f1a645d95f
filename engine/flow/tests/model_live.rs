//! `Live` against an in-memory reference, compared after each act, across
//! publishing and restarts; and the published tree against one built anew.

mod common;

use common::{Act, Model, open, secrets};
use proptest::prelude::*;
use std::sync::Arc;
use warp_cache::disk::HostDisk;
use warp_cache::store::Store;
use warp_cache::testing::CrashDisk;
use warp_flow::reader::TreeReader;
use warp_format::codec::{Level, Packer};
use warp_format::tree::Builder;
use warp_format::{ChunkRef, ContentSecret, FormatError, Head, NamingKeys, PlainChunk, Sealer};

fn act() -> impl Strategy<Value = Act> {
    let at = 0u8..12;
    prop_oneof![
        4 => at.clone().prop_map(Act::Create),
        4 => (at.clone(), 0u32..200_000, any::<u16>()).prop_map(|(a, o, l)| Act::Write(a, o, l)),
        4 => (at.clone(), 0u32..200_000, 0u16..9000).prop_map(|(a, o, l)| Act::Flip(a, o, l)),
        4 => (at.clone(), any::<u16>()).prop_map(|(a, l)| Act::Append(a, l)),
        2 => (at.clone(), 0u32..200_000).prop_map(|(a, l)| Act::Truncate(a, l)),
        1 => at.clone().prop_map(Act::Remove),
        1 => (at.clone(), at).prop_map(|(a, b)| Act::Rename(a, b)),
        1 => Just(Act::Commit),
        2 => Just(Act::Publish),
    ]
}

/// The root hash of a tree built from scratch over the same records.
fn built_anew(disk: Arc<CrashDisk>, head: &Head) -> warp_format::ContentHash {
    let (store, _) = Store::open(disk).unwrap();
    let secrets = secrets();
    let sealer = Sealer::new(ContentSecret::derive(&secrets.root, 0), 0);
    let naming = || NamingKeys::derive(&secrets.root);
    let keys = warp_flow::archive::ReadKeys { naming: naming(), sealer: sealer.clone() };
    let reader = TreeReader::new(Arc::new(store), keys, head.root);
    let naming = naming();
    let mut packer = Packer::new(Level::DEFAULT);
    let mut tree = Builder::new(&naming, |node: PlainChunk| {
        let sealed = sealer.seal(&packer.pack(&node));
        Ok::<ChunkRef, FormatError>(sealer.reference(&sealed, node.hash(), node.bytes().len()))
    });
    let mut walk = reader.all_records().unwrap();
    while let Some((key, record)) = walk.next_record().unwrap() {
        tree.push(&key, &record).unwrap();
    }
    tree.finish().unwrap().hash
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn live_is_what_was_done_to_it(acts in prop::collection::vec(act(), 1..40)) {
        let disk = CrashDisk::default();
        let live = open(Arc::new(disk.clone()), 1).unwrap();
        let mut model = Model::default();
        for act in &acts {
            let changes = model.act(act);
            if !changes.is_empty() {
                live.apply(changes).unwrap();
            }
            match act {
                Act::Commit => live.commit().unwrap(),
                Act::Publish => {
                    let head = live.publish().unwrap();
                    let anew = built_anew(Arc::new(disk.clone()), &head);
                    prop_assert_eq!(head.root.hash, anew, "the tree depends on its history");
                }
                _ => {}
            }
            model.compare(&live).map_err(|e| TestCaseError::fail(format!("{e} after {act:?}")))?;
        }
        live.commit().unwrap();
        drop(live);
        let live = open(Arc::new(disk), 2).unwrap();
        model.compare(&live).map_err(|e| TestCaseError::fail(format!("{e} after a restart")))?;
    }
}

/// An append is cut together with the chunk before it: as that chunk is by
/// then, not as it was.
#[test]
fn a_write_into_the_last_chunk_survives_an_append_behind_it() {
    let live = open(Arc::new(CrashDisk::default()), 1).unwrap();
    let mut model = Model::default();
    let rounds = [
        vec![Act::Create(1), Act::Write(1, 0, 60_000), Act::Append(1, 40_000)],
        vec![Act::Flip(1, 99_000, 100), Act::Append(1, 1000)],
        vec![Act::Flip(1, 100_900, 50), Act::Append(1, 10)],
        vec![Act::Truncate(1, 100_950), Act::Append(1, 7)],
    ];
    for acts in rounds {
        for act in acts {
            let changes = model.act(&act);
            live.apply(changes).unwrap();
        }
        model.compare(&live).unwrap();
        live.publish().unwrap();
        model.compare(&live).unwrap();
    }
}

/// Many files: the tree has several leaves and levels, and one change takes
/// most of them over.
#[test]
fn a_small_change_to_a_large_tree_writes_little() {
    let dir = tempfile::tempdir().unwrap();
    let disk = || Arc::new(HostDisk::new(dir.path().into()).unwrap());
    let live = open(disk(), 1).unwrap();
    let mut model = Model::default();
    for n in 0..240 {
        let changes = [Act::Create(n), Act::Write(n, 0, 3000 + u16::from(n))];
        changes.iter().for_each(|act| live.apply(model.act(act)).unwrap());
    }
    let first = live.publish().unwrap();
    let size = |class| {
        let (store, _) = Store::open(disk()).unwrap();
        store.usage(class).bytes
    };
    let before = size(warp_cache::store::Class::Own);
    live.apply(model.act(&Act::Write(7, 3000, 50))).unwrap();
    let second = live.publish().unwrap();
    assert_ne!(first.root.hash, second.root.hash);
    assert_eq!(second.sequence, 2);
    let written = size(warp_cache::store::Class::Own) - before;
    assert!(written < before / 4, "{written} of {before} bytes");
    assert_eq!(live.publish().unwrap(), second, "nothing changed, so no new head");
    drop(live);
    model.compare(&open(disk(), 2).unwrap()).unwrap();
}

/// Names, contents and attributes are sealed wherever they are.
#[test]
fn nothing_readable_is_written() {
    let disk = CrashDisk::default();
    let live = open(Arc::new(disk.clone()), 1).unwrap();
    let mut model = Model::default();
    for act in [Act::Create(3), Act::Write(3, 0, 5000), Act::Commit] {
        live.apply(model.act(&act)).unwrap();
    }
    live.commit().unwrap();
    live.publish().unwrap();
    let marker: Vec<u8> = (0..32u8).map(|i| i.wrapping_mul(31)).collect();
    for op in disk.log() {
        if let warp_cache::testing::Op::Write { bytes, .. } = op {
            let seen = |what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
            assert!(!seen(b"name-3") && !seen(&marker));
        }
    }
}

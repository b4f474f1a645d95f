//! Properties of the tree: equal maps are equal trees, a walk gives what a map
//! holds, and foreign nodes are refused.

#[expect(dead_code, reason = "shared with prop_format.rs and prop_local.rs")]
mod arb;

use arb::tree::*;
use arb::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use warp_format::codec::Unpacker;
use warp_format::limits::MAX_NODE_LEN;
use warp_format::record::{Body, Key, KeyKind, Record, Stamp};
use warp_format::tree::{Builder, Child, Node, Walk, first_key_of};
use warp_format::{
    ChunkId, ChunkRef, ContentHash, DeviceTag, FileId, FormatError, NameHash, PlainChunk,
};

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn a_map_has_one_tree_whatever_the_order_it_was_made_in(
        entries in vec(arb_entry(), 0..250),
        passing in vec(arb_entry(), 0..50),
        order in any::<u64>(),
    ) {
        let first: BTreeMap<Key, Record> = entries.into_iter().collect();
        // The same map by another way: shuffled, with records that come and go.
        let mut shuffled = owned(&first);
        shuffled.sort_by_key(|(key, _)| {
            *blake3::hash(&[&order.to_le_bytes()[..], &key.to_bytes()].concat()).as_bytes()
        });
        let mut second: BTreeMap<Key, Record> = passing.iter().cloned().collect();
        second.extend(shuffled);
        second.retain(|key, _| first.contains_key(key));

        let (mut a, mut b) = (Nodes::new(3), Nodes::new(3));
        let (root_a, root_b) = (a.build(&first), b.build(&second));
        prop_assert_eq!(root_a, root_b);
        prop_assert_eq!(a.ids(), b.ids());
        prop_assert_eq!(a.read_from(&root_a, &[]), owned(&first));
    }

    #[test]
    fn another_record_anywhere_is_another_root(
        entries in vec(arb_entry(), 1..40),
        at: Index,
        clock in 1u64..,
    ) {
        let mut map: BTreeMap<Key, Record> = entries.into_iter().collect();
        let mut nodes = Nodes::new(1);
        let before = nodes.build(&map);
        let key = *map.keys().nth(at.index(map.len())).unwrap();
        let other = Record::Tombstone(Stamp { clock, device: DeviceTag([0xee; 8]) });
        prop_assume!(map[&key] != other);
        map.insert(key, other);
        prop_assert_ne!(nodes.build(&map).hash, before.hash);
    }

    #[test]
    fn a_node_that_decodes_tells_its_bytes_and_never_panics(
        entries in vec(arb_entry(), 0..12),
        changes in arb_damage(),
        foreign in vec(any::<u8>(), 0..200),
    ) {
        let keys = private_keys();
        let mut plain = Vec::new();
        let mut builder = Builder::new(&keys, |chunk: PlainChunk| {
            let (hash, bytes) = (chunk.hash(), chunk.into_bytes());
            plain.push(bytes.clone());
            let len = bytes.len() as u32;
            Ok::<_, FormatError>(ChunkRef { id: ChunkId::of(&bytes), hash, len, epoch: 0 })
        });
        for (key, record) in entries.into_iter().collect::<BTreeMap<_, _>>() {
            builder.push(&key, &record).unwrap();
        }
        builder.finish().unwrap();
        for bytes in &plain {
            prop_assert_eq!(&encode_node(&Node::decode(bytes.clone()).unwrap()), bytes);
        }
        let mut damaged = plain.remove(0);
        damage(&mut damaged, &changes);
        for bytes in [damaged, foreign] {
            if let Ok(node) = Node::decode(bytes.clone()) {
                prop_assert_eq!(encode_node(&node), bytes);
                (0..node.len()).for_each(|i| drop(node.record(i)));
            }
        }
    }
}

#[test]
fn a_node_with_a_key_out_of_order_or_shared_too_short_is_refused() {
    let key = |n| Key::new(FileId::from_ordinal(n), KeyKind::Inode).to_bytes();
    let decode = |shared: usize, second: &[u8]| {
        let mut entries = [Entry::leaf(&[], &key(5), &[2]), Entry::leaf(&key(5), second, &[2])];
        entries[1].shared = shared;
        Node::decode(encode_entries(0, &entries)).map(|node| node.len())
    };
    assert_eq!(decode(15, &key(6)), Ok(2));
    assert_eq!(decode(14, &key(6)), Err(FormatError::Invalid { at: "tree node key" }));
    assert_eq!(decode(17, &key(5)), Err(FormatError::Invalid { at: "tree node key" }));
    assert_eq!(decode(15, &key(4)), Err(FormatError::Invalid { at: "tree node key" }));
}

#[test]
fn a_node_that_says_more_than_it_has_is_refused_before_anything_is_reserved() {
    let at = "tree node";
    let refused = |bytes: &[u8]| Node::decode(bytes.to_vec()).err();
    let key = Key::new(FileId::ROOT, KeyKind::Inode).to_bytes();
    let entry = [&[0, 1, 0, 17][..], &key].concat();
    assert_eq!(refused(&[&entry[..], &[1, 2]].concat()), None);
    assert_eq!(refused(&[&entry[..], &[2, 2]].concat()), Some(FormatError::Truncated { at }));
    assert_eq!(refused(&[&entry[..], &[1, 2, 0]].concat()), Some(FormatError::Invalid { at }));
    // A count of 2^62, an inner node of nothing, a level over the highest.
    let count = [&[0][..], &[0x80; 8], &[0x40, 0, 0, 0]].concat();
    for bytes in [&count[..], &[1, 0], &[13, 0]] {
        assert_eq!(refused(bytes), Some(FormatError::Invalid { at }));
    }
    let (value, limit) = (MAX_NODE_LEN as u64 + 1, MAX_NODE_LEN as u64);
    assert_eq!(refused(&vec![0; MAX_NODE_LEN + 1]), Some(FormatError::Limit { at, value, limit }));
}

/// A key and record for crafted trees; they sort as their numbers do.
fn link(n: u64) -> (Key, Record) {
    let kind = KeyKind::Link(FileId::ROOT, NameHash([0; 16]));
    (Key::new(FileId::from_ordinal(n), kind), Record::Link(Stamp::NONE))
}

fn crafted_leaf(numbers: &[u64]) -> Vec<u8> {
    let keys: Vec<_> = numbers.iter().map(|n| link(*n).0.to_bytes()).collect();
    let last = |i: usize| i.checked_sub(1).map_or(&[][..], |i| &keys[i]);
    let entry = |(i, key): (usize, &Vec<u8>)| Entry::leaf(last(i), key, &[0]);
    encode_entries(0, &keys.iter().enumerate().map(entry).collect::<Vec<_>>())
}

/// An inner node of these first keys, places and counts of records.
fn crafted_inner(level: u8, children: &[(u64, u8, u64)]) -> Vec<u8> {
    let keys: Vec<_> = children.iter().map(|child| link(child.0).0.to_bytes()).collect();
    let last = |i: usize| i.checked_sub(1).map_or(&[][..], |i| &keys[i]);
    let entry = |(i, (_, place, records)): (usize, &(u64, u8, u64))| {
        Entry::inner(last(i), &keys[i], &Child { node: crafted_ref(*place), records: *records })
    };
    encode_entries(level, &children.iter().enumerate().map(entry).collect::<Vec<_>>())
}

fn crafted_ref(place: u8) -> ChunkRef {
    ChunkRef { id: ChunkId([place; 32]), hash: ContentHash([0; 32]), len: 0, epoch: 0 }
}

/// Nodes by their place; the root is at 0. Errors of the search and of the
/// walk after it are told apart.
fn walk_crafted(
    nodes: &[Vec<u8>],
    from: u64,
) -> Result<Result<Vec<(Key, Record)>, FormatError>, FormatError> {
    let fetch =
        |want: &ChunkRef| Node::decode(nodes[usize::from(want.id.0[0])].clone()).map(Arc::new);
    let mut walk = Walk::seek(&crafted_ref(0), &link(from).0.to_bytes(), fetch)?;
    Ok(std::iter::from_fn(|| walk.next_record().transpose()).collect())
}

#[test]
fn a_walk_refuses_a_child_with_another_first_key_count_or_level() {
    let walk = |level, first, records| {
        walk_crafted(&[crafted_inner(level, &[(first, 1, records)]), crafted_leaf(&[5])], 0)
    };
    assert_eq!(walk(1, 5, 1), Ok(Ok(vec![link(5)])));
    let refused = Err(FormatError::Invalid { at: "tree node" });
    assert_eq!(walk(1, 4, 1), refused);
    assert_eq!(walk(1, 5, 2), refused);
    assert_eq!(walk(2, 5, 1), refused);
}

#[test]
fn a_child_whose_keys_reach_its_parents_next_key_is_refused() {
    let refused = FormatError::Invalid { at: "tree node" };
    // Two leaves; the first ends at `last`, the second begins at 7.
    let two = |last| {
        [crafted_inner(1, &[(5, 1, 2), (7, 2, 1)]), crafted_leaf(&[5, last]), crafted_leaf(&[7])]
    };
    assert_eq!(walk_crafted(&two(6), 0), Ok(Ok(vec![link(5), link(6), link(7)])));
    for last in [7, 9] {
        assert_eq!(walk_crafted(&two(last), 5), Err(refused.clone()));
        assert_eq!(walk_crafted(&two(last), 6), Err(refused.clone()));
        // What is not on the way is not looked at.
        assert_eq!(walk_crafted(&two(last), 7), Ok(Ok(vec![link(7)])));
    }
    // The bound comes down from above: the leaf is the last child of its
    // parent, but that parent is not.
    let deep = |last| {
        [
            crafted_inner(2, &[(3, 1, 3), (7, 2, 1)]),
            crafted_inner(1, &[(3, 3, 1), (5, 4, 2)]),
            crafted_inner(1, &[(7, 5, 1)]),
            crafted_leaf(&[3]),
            crafted_leaf(&[5, last]),
            crafted_leaf(&[7]),
        ]
    };
    let all = [3, 5, 6, 7].map(link).to_vec();
    assert_eq!(walk_crafted(&deep(6), 0), Ok(Ok(all)));
    for last in [7, 9] {
        assert_eq!(walk_crafted(&deep(last), 5), Err(refused.clone()));
        // The search ends in the first leaf, the walk comes to the second.
        assert_eq!(walk_crafted(&deep(last), 3), Ok(Err(refused.clone())));
    }
}

#[test]
fn what_a_failed_fetch_held_up_a_second_try_gives() {
    let map = directory(1000);
    let mut nodes = Nodes::new(1);
    let root = nodes.build(&map);
    let levels = usize::from(nodes.fetch(&root).unwrap().level()) + 1;
    // Every node fails to come the first time that it is asked for.
    let asked = RefCell::new(HashSet::new());
    let fetch = |want: &ChunkRef| match asked.borrow_mut().insert(want.id) {
        true => Err(FormatError::WrongId { id: want.id }),
        false => nodes.fetch(want),
    };
    let mut searches = 1;
    let mut walk = loop {
        match Walk::seek(&root, &[], fetch) {
            Ok(walk) => break walk,
            Err(_) => searches += 1,
        }
    };
    let (mut records, mut failures) = (Vec::new(), 0);
    loop {
        match walk.next_record() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => break,
            Err(_) => failures += 1,
        }
    }
    assert_eq!(records, owned(&map));
    assert_eq!((searches, failures), (levels + 1, nodes.sealed.len() - levels));
}

#[test]
#[should_panic(expected = "records come in key order")]
fn a_key_below_the_last_of_the_node_before_is_not_taken() {
    let keys = private_keys();
    let closed = Cell::new(0);
    let mut builder = Builder::new(&keys, |_: PlainChunk| {
        closed.set(closed.get() + 1);
        Ok::<_, FormatError>(crafted_ref(1))
    });
    let mut n = 0;
    while closed.get() == 0 {
        n += 2;
        let (key, record) = link(n);
        builder.push(&key, &record).unwrap();
    }
    // The node that is now open is empty and would take any key.
    let (key, record) = link(n - 1);
    drop(builder.push(&key, &record));
}

#[test]
fn a_node_does_not_open_as_data_nor_data_as_a_node() {
    let keys = private_keys();
    let mut nodes: Vec<PlainChunk> = Vec::new();
    let mut builder = Builder::new(&keys, |chunk: PlainChunk| {
        nodes.push(chunk);
        Ok::<_, FormatError>(crafted_ref(0))
    });
    let (key, record) = link(1);
    builder.push(&key, &record).unwrap();
    builder.finish().unwrap();
    let node = nodes.remove(0);
    // The same bytes as a file has them: another kind and another hash.
    let data = PlainChunk::data(&keys, node.bytes().to_vec());
    assert_ne!(data.hash(), node.hash());
    let mut unpacker = Unpacker::new();
    for sealer in sealers() {
        let [node_sealed, data_sealed] =
            [&node, &data].map(|chunk| sealer.seal(&packer(1).pack(chunk)));
        assert_ne!(node_sealed.id(), data_sealed.id());
        for hash in [node.hash(), data.hash()] {
            let want = sealer.reference(&node_sealed, hash, node.bytes().len());
            let wrong = FormatError::WrongContent { id: want.id };
            let opened = sealer.open_node(&keys, &mut unpacker, &want, &node_sealed);
            assert_eq!(opened.is_ok(), hash == node.hash());
            let opened = sealer.open(&keys, &mut unpacker, &want, &node_sealed);
            assert_eq!(opened, Err(wrong));

            let want = sealer.reference(&data_sealed, hash, node.bytes().len());
            let wrong = FormatError::WrongContent { id: want.id };
            let opened = sealer.open(&keys, &mut unpacker, &want, &data_sealed);
            assert_eq!(opened.is_ok(), hash == data.hash());
            let opened = sealer.open_node(&keys, &mut unpacker, &want, &data_sealed);
            assert_eq!(opened.err(), Some(wrong));
        }
    }
}

#[test]
fn seek_gives_exactly_the_records_from_a_key_on() {
    let map = directory(1000);
    let mut nodes = Nodes::new(1);
    let root = nodes.build(&map);
    assert!(nodes.sealed.len() > 10, "a tree of several leaves");
    let all: Vec<(Vec<u8>, Key)> = map.keys().map(|key| (key.to_bytes(), *key)).collect();
    let mut places: Vec<Vec<u8>> = vec![vec![], vec![0xff; 50], first_key_of(FileId::META)];
    for (bytes, key) in all.iter().step_by(67) {
        let longer = [bytes.as_slice(), &[0]].concat();
        places.extend([bytes.clone(), longer, bytes[..9].to_vec(), first_key_of(key.file)]);
    }
    // The first keys of nodes are where a search can go one child wrong.
    let top = nodes.fetch(&root).unwrap();
    assert!(top.level() > 0);
    for i in 0..top.len() {
        let first = top.key_bytes(i).unwrap();
        let mut below = first.to_vec();
        *below.last_mut().unwrap() = below.last().unwrap().wrapping_sub(1);
        places.extend([first.to_vec(), below]);
    }
    let fetched = Cell::new(0);
    let fetch = |want: &ChunkRef| {
        fetched.set(fetched.get() + 1);
        nodes.fetch(want)
    };
    for from in places {
        let at = all.partition_point(|(bytes, _)| *bytes < from);
        fetched.set(0);
        let mut walk = Walk::seek(&root, &from, fetch).unwrap();
        assert_eq!(fetched.get(), usize::from(top.level()) + 1, "one node on each level");
        let shown = 200.min(all.len() - at);
        for (_, key) in &all[at..at + shown] {
            assert_eq!(walk.next_record(), Ok(Some((*key, map[key].clone()))));
            let exact = fetched.get() == usize::from(top.level()) + 1;
            assert!(exact || key.to_bytes() != from, "a key that is there costs one way down");
        }
        if at + shown == all.len() {
            assert_eq!(walk.next_record(), Ok(None));
        }
    }
}

#[test]
fn walking_a_tree_gives_back_every_record_in_order() {
    let map = directory(1000);
    let mut nodes = Nodes::new(3);
    let root = nodes.build(&map);
    assert_eq!(nodes.read_from(&root, &[]), owned(&map));
}

#[test]
fn changing_one_record_of_twenty_thousand_rewrites_one_path() {
    let mut map = directory(5000);
    assert_eq!(map.len(), 20_000);
    let build = |map: &BTreeMap<Key, Record>| {
        let mut nodes = Nodes::new(1);
        let root = nodes.build(map);
        let depth = usize::from(nodes.fetch(&root).unwrap().level()) + 1;
        (nodes.ids(), depth)
    };
    let (before, depth) = build(&map);
    assert!(before.len() > 60 && depth <= 3, "{} nodes, {depth} levels", before.len());

    // The same length: the cuts stay and one node on each level is new.
    let key = Key::new(FileId::from_ordinal(2500), KeyKind::Inode);
    let Some(Record::Inode(inode)) = map.get_mut(&key) else { panic!("the file has an inode") };
    inode.mtime.secs += 1;
    let (changed, _) = build(&map);
    assert_eq!(changed.difference(&before).count(), depth);
    assert_eq!(before.difference(&changed).count(), depth);

    // Another length, and a record less: a cut or two may move as well.
    let Some(Record::Inode(inode)) = map.get_mut(&key) else { panic!("the file has an inode") };
    inode.body = Body::Inline(vec![1; 300]);
    inode.size = 300;
    map.remove(&Key::new(FileId::from_ordinal(2500), KeyKind::Extent(0)));
    let (changed, _) = build(&map);
    let rewritten = changed.difference(&before).count();
    assert!(rewritten <= 4 * depth, "{rewritten} of {} nodes", before.len());
}

#[test]
fn the_root_hash_does_not_depend_on_how_nodes_are_packed() {
    let map = directory(300);
    let [fast, small] = [1, 19].map(|level| {
        let mut nodes = Nodes::new(level);
        (nodes.build(&map), nodes)
    });
    assert_eq!(fast.0.hash, small.0.hash);
    assert_ne!(fast.0.id, small.0.id);
    // A node that neither makes smaller is the same.
    assert_ne!(fast.1.ids(), small.1.ids());
    assert_eq!(fast.1.read_from(&fast.0, &[]), small.1.read_from(&small.0, &[]));
}

#[test]
fn inner_nodes_put_over_the_leaves_are_those_of_the_tree() {
    let mut nodes = Nodes::new(3);
    let root = nodes.build(&directory(1000));
    let top = nodes.fetch(&root).unwrap();
    assert_eq!(top.level(), 1);
    let keys = private_keys();
    let mut inner: Vec<PlainChunk> = Vec::new();
    let mut builder = Builder::new(&keys, |chunk: PlainChunk| {
        inner.push(chunk);
        Ok::<_, FormatError>(root)
    });
    for i in 0..top.len() {
        let child = top.child(i).unwrap().node;
        builder.push_leaf(child, &nodes.fetch(&child).unwrap()).unwrap();
    }
    builder.finish().unwrap();
    assert_eq!(inner.len(), 1);
    assert_eq!(inner[0].hash(), root.hash);
    assert_eq!(encode_node(&top), inner[0].bytes());
}

#[test]
fn an_empty_map_is_one_empty_leaf() {
    let mut nodes = Nodes::new(3);
    let root = nodes.build(&BTreeMap::new());
    assert_eq!(nodes.sealed.len(), 1);
    assert!(nodes.fetch(&root).unwrap().is_empty());
    assert_eq!(nodes.read_from(&root, &[]), []);
}

#[test]
fn a_walk_refuses_a_child_that_is_not_what_its_parent_says() {
    let mut nodes = Nodes::new(1);
    let root = nodes.build(&directory(300));
    let top = nodes.fetch(&root).unwrap();
    let child = |i| top.child(i).unwrap().node;
    // Whole nodes of the right tree, in the wrong place.
    for lie in [root, child(0), child(2)] {
        let fetch = |want: &ChunkRef| nodes.fetch(if *want == child(1) { &lie } else { want });
        let mut walk = Walk::seek(&root, &[], fetch).unwrap();
        let refused = std::iter::from_fn(|| walk.next_record().transpose()).find(Result::is_err);
        assert_eq!(refused, Some(Err(FormatError::Invalid { at: "tree node" })));
    }
}

#[test]
fn a_node_under_another_hash_is_refused() {
    let mut nodes = Nodes::new(3);
    let root = nodes.build(&directory(10));
    let lie = ChunkRef { hash: ContentHash([1; 32]), ..root };
    assert_eq!(nodes.fetch(&lie).err(), Some(FormatError::WrongContent { id: root.id }));
}

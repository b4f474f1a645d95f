//! Properties of the format: what goes in comes out, one value has one
//! encoding, equal maps are equal trees, and foreign bytes never panic.
//!
//! Case counts are small because our own crates are not optimised in the dev
//! profile; the fuzz targets in `fuzz/` run the same claims for longer.

mod arb;

use arb::tree::*;
use arb::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};
use warp_format::archive::{FOOTER_LEN, FRAME_LEN, Footer, Frame, HEADER_LEN, Header, IndexEntry};
use warp_format::chunk::{CutRule, GroupRule};
use warp_format::codec::{Codec, Unpacker};
use warp_format::keys::{ArgonCost, PassphraseSlot, SigningKey};
use warp_format::limits::{MAX_CHUNK_LEN, MAX_NODE_LEN, MAX_SEALED_LEN};
use warp_format::record::{Body, Key, KeyKind, Record, Stamp};
use warp_format::tree::{Builder, Child, Node, Walk, first_key_of};
use warp_format::{
    ChunkId, ChunkRef, ContentHash, DeviceId, DeviceTag, FileId, FormatError, Head, NameHash,
    NamingKeys, PlainChunk, PortalId, SEAL_HEADER_LEN, SealHeader, SealedChunk, Secret, Suite,
};

// ---- cut ------------------------------------------------------------------

fn cut(rule: CutRule, keys: &NamingKeys, data: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = data;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rule.first_cut(keys, rest, true));
        chunks.push(chunk.to_vec());
        rest = after;
    }
    chunks
}

/// Cuts as a reader with a window does: never shows more than `window` bytes.
fn cut_through_window(
    rule: CutRule,
    keys: &NamingKeys,
    data: &[u8],
    window: usize,
) -> Vec<Vec<u8>> {
    let mut at = 0;
    let mut chunks = Vec::new();
    while at < data.len() {
        let end = data.len().min(at + window);
        let n = rule.first_cut(keys, &data[at..end], end == data.len());
        chunks.push(data[at..at + n].to_vec());
        at += n;
    }
    chunks
}

/// docs/format.md's cut rule, one byte at a time.
fn cut_by_the_book(rule: CutRule, root: &[u8; 32], data: &[u8]) -> usize {
    let mut gear = [0; 256 * 8];
    let seed = blake3::derive_key("warp v0 gear table", root);
    blake3::Hasher::new_keyed(&seed).finalize_xof().fill(&mut gear);
    let bits = rule.avg.ilog2();
    let mut hash = 0u64;
    for (i, byte) in data.iter().enumerate().take(rule.max) {
        let number = gear.as_chunks::<8>().0[usize::from(*byte)];
        hash = (hash << 1).wrapping_add(u64::from_le_bytes(number));
        let zeros = if i < rule.avg { bits + 2 } else { bits - 2 };
        if i >= rule.min && hash.leading_zeros() >= zeros {
            return i + 1;
        }
    }
    data.len().min(rule.max)
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn a_cut_is_where_the_documented_rule_has_it(
        seed: u64,
        root: [u8; 32],
        min in 1usize..300,
        more in (1usize..300, 1usize..2000),
    ) {
        // Small bounds, so that thousands of cuts are compared.
        let avg = (min + more.0).max(16);
        let rule = CutRule { min, avg, max: avg + more.1 };
        let keys = NamingKeys::derive(&Secret::new(root));
        let data = mixed(seed, 100_000);
        let mut rest = &data[..];
        while !rest.is_empty() {
            let n = rule.first_cut(&keys, rest, true);
            prop_assert_eq!(n, cut_by_the_book(rule, &root, rest));
            rest = &rest[n..];
        }
    }

    #[test]
    fn cut_then_join_is_the_identity_however_the_window_is_fed(
        seed: u64,
        len in 0usize..3 << 20,
        extra in select(vec![0usize, 1, 4096, 1 << 20]),
        large: bool,
    ) {
        let rule = if large { CutRule::LARGE } else { CutRule::MEDIUM };
        let data = mixed(seed, len);
        for keys in [NamingKeys::public(), private_keys()] {
            let chunks = cut(rule, &keys, &data);
            prop_assert!(chunks.concat() == data, "cut and join");
            for (i, chunk) in chunks.iter().enumerate() {
                prop_assert!(!chunk.is_empty() && chunk.len() <= rule.max);
                prop_assert!(chunk.len() >= rule.min || i + 1 == chunks.len());
            }
            let fed = cut_through_window(rule, &keys, &data, rule.max + extra);
            prop_assert!(fed == chunks, "other cuts through a window");
        }
    }

    #[test]
    fn an_insertion_near_the_start_changes_only_a_few_chunks(
        seed: u64,
        at in 0usize..20_000,
        inserted in 1usize..2000,
        large: bool,
    ) {
        // About 60 chunks of either rule.
        let (rule, len) =
            if large { (CutRule::LARGE, 32 << 20) } else { (CutRule::MEDIUM, 4 << 20) };
        let keys = NamingKeys::public();
        let before = noise(seed, len);
        let mut after = before.clone();
        after.splice(at..at, noise(!seed, inserted));
        let old: HashSet<Vec<u8>> = cut(rule, &keys, &before).into_iter().collect();
        let new = cut(rule, &keys, &after);
        let changed = new.iter().filter(|chunk| !old.contains(*chunk)).count();
        prop_assert!(new.len() > 30 && changed >= 1);
        // Two cuts in a row meet again with a chance of about a half.
        prop_assert!(changed <= 16, "{changed} of {} chunks changed", new.len());
    }

    #[test]
    fn a_group_ends_by_content_only_from_its_minimum_on(hash: [u8; 32], len in 0usize..5 << 20) {
        for rule in [GroupRule::DEFAULT, GroupRule::SOLID] {
            let hash = ContentHash(hash);
            let by_hash = rule.ends_after(rule.min, &hash);
            prop_assert_eq!(rule.ends_after(len, &hash), by_hash && len >= rule.min);
        }
    }
}

// ---- pack, seal -----------------------------------------------------------

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn pack_seal_verify_open_is_the_identity(
        seed: u64,
        len in prop_oneof![0usize..64, 0usize..5000, 0usize..200_000],
        level in select(vec![0u8, 1, 3, 19]),
        random: bool,
    ) {
        let keys = private_keys();
        let plain = if random { noise(seed, len) } else { mixed(seed, len) };
        let chunk = PlainChunk::data(&keys, plain);
        let packed = packer(level).pack(&chunk);
        for sealer in sealers() {
            let sealed = sealer.seal(&packed);
            let reference = sealer.reference(&sealed, chunk.hash(), len);
            let received = SealedChunk::verify(sealed.id(), sealed.bytes().to_vec());
            prop_assert!(received.as_ref() == Ok(&sealed));
            let opened = sealer.open(&keys, &mut Unpacker::new(), &reference, &sealed);
            prop_assert!(opened.as_ref() == Ok(&chunk), "opened to {:?}", opened.map(|_| ()));
            let header = SealHeader::decode(sealed.bytes()).unwrap();
            prop_assert_eq!(header.sealed_len(), sealed.bytes().len());
            prop_assert_eq!(header.suite, sealer.suite());
        }
    }

    #[test]
    fn what_each_codec_packs_unpacks_to_exactly_its_length(seed: u64, len in 0usize..100_000) {
        let plain = mixed(seed, len);
        let mut unpacker = Unpacker::new();
        let packed = [
            (Codec::Store, plain.clone()),
            (Codec::Lz4, lz4_flex::block::compress(&plain)),
            (Codec::Zstd, zstd::bulk::compress(&plain, 1).unwrap()),
        ];
        for (codec, packed) in packed {
            let len = len as u32;
            let unpacked = unpacker.unpack(codec, len, &packed);
            prop_assert!(unpacked.as_ref() == Ok(&plain), "{codec:?}");
            prop_assert!(unpacker.unpack(codec, len + 1, &packed).is_err());
            if let Some(less) = len.checked_sub(1) {
                prop_assert!(unpacker.unpack(codec, less, &packed).is_err());
            }
        }
    }

    #[test]
    fn unpacking_foreign_bytes_gives_the_declared_length_or_an_error(
        bytes in vec(any::<u8>(), 0..300),
        len in prop_oneof![0u32..600, any::<u32>()],
    ) {
        let mut unpacker = Unpacker::new();
        for codec in [Codec::Store, Codec::Lz4, Codec::Zstd] {
            if let Ok(plain) = unpacker.unpack(codec, len, &bytes) {
                prop_assert!(plain.len() == len as usize && plain.len() <= MAX_CHUNK_LEN);
            }
        }
    }

    #[test]
    fn a_changed_byte_is_never_read_as_other_content(
        seed: u64,
        len in 1usize..3000,
        at: Index,
        flip in 1u8..,
    ) {
        let keys = private_keys();
        let chunk = PlainChunk::data(&keys, mixed(seed, len));
        let mut unpacker = Unpacker::new();
        for sealer in sealers() {
            let sealed = sealer.seal(&packer(3).pack(&chunk));
            let mut bytes = sealed.bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            // Off the net: the id catches it, with or without keys.
            prop_assert_eq!(
                SealedChunk::verify(sealed.id(), bytes.clone()),
                Err(FormatError::WrongId { id: sealed.id() })
            );
            // Found by a scan, where no id was asked for.
            let found = SealedChunk::found(bytes);
            let reference = sealer.reference(&found, chunk.hash(), len);
            match sealer.open(&keys, &mut unpacker, &reference, &found) {
                Err(_) => {}
                Ok(opened) => {
                    prop_assert_eq!(sealer.suite(), Suite::Plain);
                    prop_assert_eq!(opened.bytes(), chunk.bytes());
                }
            }
        }
    }

    #[test]
    fn a_sealed_length_shows_its_padme_class_only(len in 0usize..100_000) {
        // The definition: round up so that the mantissa has no more bits
        // than the exponent has digits.
        let used = len + 8;
        let exponent = usize::BITS - 1 - used.leading_zeros();
        let digits = u32::BITS - exponent.leading_zeros();
        let class = used.next_multiple_of(1 << exponent.saturating_sub(digits));
        let chunk = PlainChunk::data(&NamingKeys::public(), noise(1, len));
        let packed = packer(1).pack(&chunk);
        let [plain, sealed] = sealers().map(|sealer| sealer.seal(&packed).bytes().len());
        prop_assert_eq!(plain, SEAL_HEADER_LEN + used);
        prop_assert_eq!(sealed, SEAL_HEADER_LEN + 32 + class + 16);
        prop_assert!(class - used <= used * 12 / 100, "{class} for {used} bytes");
    }

    #[test]
    fn foreign_bytes_never_open_and_never_panic(
        head in prop_oneof![
            vec(any::<u8>(), 0..12),
            // A valid header, so that what follows it is read.
            (0u8..2, 1u8..3, 0u8..3, 0u32..400).prop_map(|(suite, kind, codec, len)| {
                let mut out = vec![0, suite, kind, codec];
                out.extend_from_slice(&len.to_le_bytes());
                out
            }),
        ],
        tail in vec(any::<u8>(), 0..400),
    ) {
        let bytes = [head, tail].concat();
        if let Ok(header) = SealHeader::decode(&bytes) {
            prop_assert!(header.sealed_len() >= SEAL_HEADER_LEN);
        }
        let found = SealedChunk::found(bytes);
        let [plain, sealed] = sealers();
        prop_assert!(sealed.open_any(&mut Unpacker::new(), &found).is_err());
        if let Ok((_, bytes)) = plain.open_any(&mut Unpacker::new(), &found) {
            prop_assert!(bytes.len() <= MAX_CHUNK_LEN);
        }
    }
}

// ---- records --------------------------------------------------------------

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn a_record_and_its_key_come_back((key, record) in arb_entry()) {
        prop_assert_eq!(Key::decode(&key.to_bytes()), Ok(key));
        prop_assert_eq!(Record::decode(key.kind, &record.to_bytes()), Ok(record));
    }

    #[test]
    fn keys_sort_as_their_bytes_do(a in arb_key(), b in arb_key()) {
        prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
        prop_assert!(first_key_of(a.file) <= a.to_bytes());
        prop_assert_eq!(first_key_of(a.file) <= b.to_bytes(), a.file <= b.file);
    }

    #[test]
    fn what_decodes_as_a_record_encodes_to_the_same_bytes(
        (key, record) in arb_entry(),
        kind in arb_key_kind(),
        changes in arb_damage(),
        foreign in vec(any::<u8>(), 0..120),
    ) {
        let mut damaged = record.to_bytes();
        damage(&mut damaged, &changes);
        for (kind, bytes) in [(key.kind, &damaged), (kind, &damaged), (kind, &foreign)] {
            if let Ok(record) = Record::decode(kind, bytes) {
                prop_assert_eq!(&record.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn what_decodes_as_a_key_encodes_to_the_same_bytes(
        key in arb_key(),
        changes in arb_damage(),
        foreign in vec(any::<u8>(), 0..60),
    ) {
        let mut damaged = key.to_bytes();
        damage(&mut damaged, &changes);
        for bytes in [damaged, foreign] {
            if let Ok(key) = Key::decode(&bytes) {
                prop_assert_eq!(key.to_bytes(), bytes);
            }
        }
    }
}

// ---- archive and heads ----------------------------------------------------

/// One slot for all cases: even a cheap Argon2id costs more than a case may.
fn slot() -> PassphraseSlot {
    static SLOT: OnceLock<PassphraseSlot> = OnceLock::new();
    let cost = ArgonCost { memory_kib: 64, passes: 1, lanes: 1 };
    let wrap = || PassphraseSlot::wrap(&Secret::new([1; 32]), b"pass", cost, [2; 16]).unwrap();
    SLOT.get_or_init(wrap).clone()
}

fn arb_footer() -> impl Strategy<Value = Footer> {
    let numbers = (HEADER_LEN as u64..1 << 50, 0u64..1 << 40, any::<[u8; 32]>());
    (any::<(bool, bool)>(), arb_chunk_ref(), numbers).prop_map(
        |((locked, signed), mut root, (index_at, index_count, index_hash))| {
            root.len %= 512 << 10;
            let header = Header { slot: locked.then(slot) };
            let signature = None;
            let mut footer = Footer { header, root, index_at, index_count, index_hash, signature };
            if signed {
                footer.sign(&SigningKey::from_seed(&Secret::new([9; 32])));
            }
            footer
        },
    )
}

/// Makes the checksum right again, so that the decoder reads what it covers.
fn recheck(bytes: &mut [u8]) {
    if let Some((body, check)) = bytes.split_last_chunk_mut::<32>() {
        *check = *blake3::hash(body).as_bytes();
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn header_and_footer_come_back(footer in arb_footer()) {
        prop_assert_eq!(Header::decode(&footer.header.encode()), Ok(footer.header.clone()));
        let len = footer.file_len().unwrap();
        prop_assert_eq!(Footer::decode(&footer.encode(), len), Ok(footer.clone()));
        prop_assert!(Footer::decode(&footer.encode(), len + 1).is_err());
    }

    #[test]
    fn a_header_or_footer_that_decodes_encodes_to_the_same_bytes(
        footer in arb_footer(),
        at: Index,
        byte: u8,
        foreign in vec(any::<u8>(), 0..700),
    ) {
        let mut bytes = footer.header.encode();
        bytes[at.index(HEADER_LEN)] = byte;
        recheck(&mut bytes);
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
        let mut bytes = footer.encode();
        bytes[at.index(FOOTER_LEN)] = byte;
        recheck(&mut bytes);
        if let Ok(read) = Footer::decode(&bytes, footer.file_len().unwrap()) {
            prop_assert_eq!(read.encode(), bytes);
        }
        prop_assert!(Header::decode(&foreign).is_err());
        prop_assert!(Footer::decode(&foreign, foreign.len() as u64).is_err());
    }

    #[test]
    fn frames_and_index_entries_come_back_and_agree(
        bytes in vec(any::<u8>(), SEAL_HEADER_LEN..300),
        offset: u64,
        at in 0..FRAME_LEN,
        flip in 1u8..,
    ) {
        let sealed = SealedChunk::found(bytes);
        let frame = Frame::of(&sealed);
        let entry = IndexEntry::new(&sealed.id(), offset, frame.len as u32);
        prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        prop_assert_eq!(IndexEntry::decode(&entry.encode()), Ok(entry));
        prop_assert!(frame.is_for(&sealed.id()) && entry.is_for(&sealed.id()));
        prop_assert!(frame.agrees_with(&entry));
        // A changed byte shows, whichever it is: magic, length or check.
        let mut changed = frame.encode();
        changed[at] ^= flip;
        if let Ok(other) = Frame::decode(&changed) {
            prop_assert!(at >= 4 && !other.agrees_with(&entry));
            prop_assert_eq!(other.encode(), changed);
            prop_assert_eq!(other.len == frame.len, at >= 8);
            prop_assert_eq!(other.is_for(&sealed.id()), at < 8);
        }
    }

    #[test]
    fn a_head_comes_back_and_damage_is_refused(
        root in arb_chunk_ref(),
        numbers in (1u64.., any::<u64>(), any::<[u8; 32]>()),
        seen in proptest::collection::btree_map(any::<[u8; 32]>(), any::<u64>(), 0..5),
        changes in arb_damage(),
        foreign in vec(any::<u8>(), 0..300),
    ) {
        let key = SigningKey::from_seed(&Secret::new([8; 32]));
        let (sequence, membership, portal) = numbers;
        let seen = seen.into_iter().map(|(device, n)| (DeviceId(device), n)).collect();
        let (portal, device) = (PortalId(portal), key.device_id());
        let head = Head { portal, device, sequence, root, seen, membership };
        let bytes = head.sign(&key);
        prop_assert_eq!(Head::open(&bytes), Ok(head));
        let mut damaged = bytes.clone();
        damage(&mut damaged, &changes);
        prop_assert_eq!(Head::open(&damaged).is_ok(), damaged == bytes);
        prop_assert!(Head::open(&foreign).is_err());
    }
}

#[test]
fn a_frame_whose_check_bytes_do_not_match_is_of_no_chunk() {
    let sealed = SealedChunk::found(noise(6, 1000));
    let entry = IndexEntry::new(&sealed.id(), 272, 1000);
    for at in 8..FRAME_LEN {
        let mut bytes = Frame::of(&sealed).encode();
        bytes[at] ^= 1;
        let frame = Frame::decode(&bytes).unwrap();
        assert_eq!(frame.len, 1000);
        assert!(!frame.is_for(&sealed.id()) && !frame.agrees_with(&entry), "byte {at}");
    }
    let other = IndexEntry::new(&ChunkId([0; 32]), 272, 1000);
    assert!(!Frame::of(&sealed).agrees_with(&other));
    assert!(!Frame::of(&sealed).agrees_with(&IndexEntry { len: 999, ..entry }));
}

#[test]
fn a_frame_or_index_entry_of_an_impossible_length_is_refused() {
    let sealed = SealedChunk::found(vec![0; 8]);
    let lengths = [(7, false), (8, true), (MAX_SEALED_LEN, true), (MAX_SEALED_LEN + 1, false)];
    for (len, possible) in lengths {
        let mut frame = Frame::of(&sealed).encode();
        frame[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        let entry = IndexEntry::new(&sealed.id(), 272, len as u32).encode();
        assert_eq!(Frame::decode(&frame).is_ok(), possible, "{len}");
        assert_eq!(IndexEntry::decode(&entry).is_ok(), possible, "{len}");
    }
    let frame = Frame::of(&sealed).encode();
    let short = Err(FormatError::Truncated { at: "record" });
    assert_eq!(Frame::decode(&frame[..FRAME_LEN - 1]), short);
}

#[test]
fn a_newer_footer_is_named_as_such_whatever_its_checksum_is() {
    let reference = ChunkRef { id: ChunkId([3; 32]), hash: ContentHash([4; 32]), len: 2, epoch: 0 };
    let footer = Footer {
        header: Header { slot: None },
        root: reference,
        index_at: 1000,
        index_count: 0,
        index_hash: [5; 32],
        signature: None,
    };
    let mut bytes = footer.encode();
    bytes[8] = 9;
    let newer = Err(FormatError::Newer { at: "archive", version: 9, known: 0 });
    assert_eq!(Footer::decode(&bytes, footer.file_len().unwrap()), newer);
}

// ---- the tree -------------------------------------------------------------

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
    assert!(fast.1.ids().is_disjoint(&small.1.ids()));
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

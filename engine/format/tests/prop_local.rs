//! Properties of what a device keeps for itself: keyring, portal records,
//! packs, the journal and the changes in it, the dedup log. What goes in comes
//! out, one value has one encoding, and foreign bytes never panic.

#[expect(dead_code, reason = "shared with prop_format.rs and prop_tree.rs")]
mod arb;

use arb::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::num::NonZeroU64;
use warp_format::change::{Change, decode_changes, encode_changes};
use warp_format::dedup::{Part, Parts, decode_parts, encode_parts};
use warp_format::keys::ArgonCost;
use warp_format::local::{
    Entry, EntryHead, JOURNAL_HEADER_LEN, JournalHeader, LocalKey, MAX_ENTRY_LEN,
};
use warp_format::pack::{Class, PACK_HEADER_LEN, PackHeader, PackIndex, Place};
use warp_format::portal::{MAX_PORTAL_NAME_LEN, PortalKey, PortalRecord};
use warp_format::{
    ChunkId, ChunkRef, ContentHash, FormatError, Keyring, KeyringRandom, PortalId, Secret,
};

/// Bytes with the checksum that the end of an index and a keyring carries.
fn checked(body: &[u8]) -> Vec<u8> {
    [body, blake3::hash(body).as_bytes().as_slice()].concat()
}

// ---- changes --------------------------------------------------------------

fn arb_change() -> impl Strategy<Value = Change> {
    let offset = || prop_oneof![0u64..1000, any::<u64>()];
    prop_oneof![
        3 => arb_entry().prop_map(|(key, record)| Change::Put(key, record)),
        1 => arb_key().prop_map(Change::Remove),
        2 => (arb_file_id(), offset().prop_map(|n| n % (1 << 62)), vec(any::<u8>(), 0..300))
            .prop_map(|(file, offset, bytes)| Change::Write { file, offset, bytes }),
        1 => (arb_file_id(), offset(), offset()).prop_map(|(file, a, b)| {
            Change::Clear { file, from: a.min(b), to: a.max(b) }
        }),
        1 => arb_file_id().prop_map(Change::Delete),
        1 => offset().prop_map(Change::Published),
    ]
}

/// What decodes encodes to the same bytes.
fn check_changes(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(changes) = decode_changes(bytes) {
        prop_assert_eq!(encode_changes(&changes), bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn changes_come_back_whole_or_not_at_all(
        changes in vec(arb_change(), 0..8),
        cut: Index,
        extra in vec(any::<u8>(), 1..4),
    ) {
        let bytes = encode_changes(&changes);
        prop_assert!(decode_changes(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(decode_changes(&[&bytes[..], &extra].concat()).is_err());
        prop_assert_eq!(decode_changes(&bytes), Ok(changes));
    }

    #[test]
    fn changes_that_decode_have_one_encoding(
        changes in vec(arb_change(), 0..5),
        acts in arb_damage(),
        foreign in vec(any::<u8>(), 0..200),
        kind in 0u8..6,
    ) {
        let mut damaged = encode_changes(&changes);
        damage(&mut damaged, &acts);
        check_changes(&damaged)?;
        check_changes(&foreign)?;
        // One change of each kind, so that what follows its kind is read.
        check_changes(&[&[1, kind], &foreign[..]].concat())?;
    }
}

#[test]
fn a_count_of_changes_over_the_bytes_that_follow_is_refused() {
    let at = "changes";
    let truncated = Err(FormatError::Truncated { at });
    assert_eq!(decode_changes(&[]), truncated);
    assert_eq!(decode_changes(&[2, 4, 1, 4]), truncated);
    let huge = [&[0xff; 9][..], &[1, 4, 1]].concat();
    assert_eq!(decode_changes(&huge), truncated);
    assert_eq!(decode_changes(&[1, 6, 0]), Err(FormatError::Invalid { at }));
    assert_eq!(decode_changes(&[0]), Ok(Vec::new()));
    assert_eq!(decode_changes(&[0, 0]), Err(FormatError::Invalid { at }));
}

// ---- journal --------------------------------------------------------------

fn local_key() -> LocalKey {
    LocalKey::new(Secret::new([0x77; 32]))
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_record_opens_in_its_place_and_no_damaged_one_does(
        numbers in any::<(u64, u64, u64)>(),
        nonce in any::<[u8; 24]>(),
        entry in vec(any::<u8>(), 0..300),
        acts in arb_damage(),
        other: u64,
        behind in vec(any::<u8>(), 0..20),
    ) {
        let (journal, sequence, durable) = numbers;
        let mut record = Vec::new();
        local_key().seal(journal, sequence, durable, nonce, &entry, &mut record);
        let head = EntryHead { len: entry.len() as u32, sequence, durable };
        prop_assert_eq!(head.record_len(), record.len());
        let whole = Some(Entry { head, bytes: entry });
        prop_assert_eq!(&local_key().open(journal, &record), &whole);
        prop_assert_eq!(&local_key().open(journal, &[&record[..], &behind].concat()), &whole);
        prop_assert_eq!(local_key().open(other, &record).is_some(), other == journal);
        let mut damaged = record.clone();
        damage(&mut damaged, &acts);
        prop_assert_eq!(
            local_key().open(journal, &damaged).is_some(),
            damaged.starts_with(&record)
        );
    }

    #[test]
    fn foreign_bytes_are_no_record_and_no_journal_header(
        foreign in vec(any::<u8>(), 0..200),
        len in prop_oneof![0u32..200, (MAX_ENTRY_LEN as u32 - 1)..=u32::MAX],
        number: u64,
        first: u64,
        at: Index,
        flip in 1u8..,
    ) {
        prop_assert_eq!(local_key().open(number, &foreign), None);
        let framed = [&[0xe5, b'w', b'J', 0xc7], &len.to_le_bytes(), &foreign[..]].concat();
        prop_assert_eq!(local_key().open(number, &framed), None);
        prop_assert!(JournalHeader::decode(&foreign).is_err());

        let header = JournalHeader { number, first };
        let mut bytes = header.encode();
        prop_assert_eq!(JournalHeader::decode(&[&bytes[..], &foreign].concat()), Ok(header));
        bytes[at.index(JOURNAL_HEADER_LEN)] ^= flip;
        prop_assert!(JournalHeader::decode(&bytes).is_err());
    }
}

// ---- dedup log ------------------------------------------------------------

/// A part within a chunk of this length.
fn arb_part(chunk: u32) -> impl Strategy<Value = Part> {
    (any::<[u8; 32]>(), 0..=chunk, 0..=chunk).prop_map(|(hash, a, b)| Part {
        hash: ContentHash(hash),
        start: a.min(b),
        len: a.abs_diff(b),
    })
}

fn arb_parts() -> impl Strategy<Value = Parts> {
    arb_chunk_ref().prop_flat_map(|chunk| {
        vec(arb_part(chunk.len), 0..5).prop_map(move |parts| Parts { chunk, parts })
    })
}

/// What decodes encodes to the same bytes.
fn check_parts(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(list) = decode_parts(bytes) {
        prop_assert_eq!(encode_parts(&list), bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn parts_come_back_and_a_cut_falls_between_two_chunks_or_is_noticed(
        list in vec(arb_parts(), 0..6),
        cut: Index,
        extra in vec(any::<u8>(), 1..66),
    ) {
        let bytes = encode_parts(&list);
        prop_assert_eq!(decode_parts(&bytes), Ok(list.clone()));
        // Nothing is as short as a chunk's reference.
        prop_assert!(decode_parts(&[&bytes[..], &extra].concat()).is_err());
        let cut = cut.index(bytes.len() + 1);
        let whole = (0..=list.len()).find(|n| encode_parts(&list[..*n]).len() == cut);
        let want = whole.map(|n| list[..n].to_vec());
        prop_assert_eq!(decode_parts(&bytes[..cut]).ok(), want);
    }

    #[test]
    fn parts_that_decode_have_one_encoding(
        list in vec(arb_parts(), 0..4),
        acts in arb_damage(),
        chunk in arb_chunk_ref(),
        foreign in vec(any::<u8>(), 0..200),
    ) {
        let mut damaged = encode_parts(&list);
        damage(&mut damaged, &acts);
        check_parts(&damaged)?;
        check_parts(&foreign)?;
        // Once more behind a chunk, so that its parts are read.
        let empty = encode_parts(&[Parts { chunk, parts: Vec::new() }]);
        check_parts(&[&empty[..empty.len() - 1], &foreign].concat())?;
    }
}

#[test]
fn a_part_that_leaves_its_chunk_and_a_count_over_what_follows_are_refused() {
    let at = "dedup entry";
    let (id, hash) = (ChunkId([1; 32]), ContentHash([2; 32]));
    let chunk = ChunkRef { id, hash, len: 100, epoch: 0 };
    let empty = encode_parts(&[Parts { chunk, parts: Vec::new() }]);
    let head = &empty[..empty.len() - 1];
    let part = |start: &[u8], len: &[u8]| [head, &[1], &[3; 32], start, len].concat();
    assert!(decode_parts(&part(&[60], &[40])).is_ok());
    assert_eq!(decode_parts(&part(&[60], &[41])), Err(FormatError::Invalid { at }));
    assert_eq!(decode_parts(&part(&[101], &[0])), Err(FormatError::Invalid { at }));
    // Their sum is more than 32 bits hold.
    let most = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(decode_parts(&part(&most, &most)), Err(FormatError::Invalid { at }));
    let two = [head, &[2], &[3; 32], &[0, 1]].concat();
    assert_eq!(decode_parts(&two), Err(FormatError::Truncated { at }));
    let huge = [head, &[0xff; 9], &[1]].concat();
    assert_eq!(decode_parts(&huge), Err(FormatError::Truncated { at }));
}

// ---- portal record --------------------------------------------------------

/// A name within the limit, whatever its letters.
fn arb_portal_name() -> impl Strategy<Value = String> {
    vec(any::<char>(), 1..MAX_PORTAL_NAME_LEN).prop_map(|letters| {
        let mut name: String = letters.into_iter().collect();
        while name.len() > MAX_PORTAL_NAME_LEN {
            name.pop();
        }
        name
    })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_portal_record_comes_back_and_no_damaged_one_opens(
        secrets in any::<([u8; 32], [u8; 32], [u8; 32])>(),
        name in arb_portal_name(),
        keys in any::<([u8; 32], [u8; 32])>(),
        nonce in any::<[u8; 24]>(),
        keeps: bool,
        acts in arb_damage(),
        cut: Index,
        behind in vec(any::<u8>(), 1..20),
    ) {
        let (id, root, local) = secrets;
        let (key, other) = (Secret::new(keys.0), Secret::new(keys.1));
        let (id, root, local) = (PortalId(id), Secret::new(root), Secret::new(local));
        let quota = NonZeroU64::new(u64::from(nonce[0]) << 40);
        let secret = root.clone();
        let handed = if keeps { PortalKey::Access(root) } else { PortalKey::Root(root) };
        let record = PortalRecord { id, name, key: handed, local, quota };
        let bytes = record.seal(&key, nonce).unwrap();
        let again = PortalRecord::open(&bytes, &key).unwrap();
        prop_assert_eq!((again.id, &again.name), (record.id, &record.name));
        prop_assert_eq!(again.quota, quota);
        prop_assert_eq!(again.key.root().is_some(), !keeps);
        let [back, access] = [&again, &record].map(|record| record.key.access());
        prop_assert_eq!(back.expose(), access.expose());
        prop_assert!(again.key.root().is_none_or(|root| root.expose() == secret.expose()));
        prop_assert_eq!(again.local.expose(), record.local.expose());
        prop_assert_eq!(again.seal(&key, nonce).unwrap(), bytes.clone());
        prop_assert_eq!(PortalRecord::open(&bytes, &other).is_ok(), keys.0 == keys.1);
        prop_assert!(PortalRecord::open(&bytes[..cut.index(bytes.len())], &key).is_err());
        prop_assert!(PortalRecord::open(&[&bytes[..], &behind].concat(), &key).is_err());
        let mut damaged = bytes.clone();
        damage(&mut damaged, &acts);
        prop_assert_eq!(PortalRecord::open(&damaged, &key).is_ok(), damaged == bytes);
    }

    #[test]
    fn foreign_bytes_are_no_portal_record(
        foreign in vec(any::<u8>(), 0..300),
        key in any::<[u8; 32]>(),
    ) {
        let key = Secret::new(key);
        prop_assert!(PortalRecord::open(&foreign, &key).is_err());
        let framed = [b"\x93WARPptl\x01\0\0\0", &foreign[..]].concat();
        let at = "portal record";
        // A nonce and a tag have forty bytes.
        let want = if foreign.len() < 40 {
            FormatError::Truncated { at }
        } else {
            FormatError::Checksum { at }
        };
        prop_assert_eq!(PortalRecord::open(&framed, &key).err(), Some(want));
    }
}

#[test]
fn a_newer_portal_record_and_a_longer_name_are_told_apart_from_damage() {
    let (key, nonce) = (Secret::new([9; 32]), [4; 24]);
    let record = |len| PortalRecord {
        id: PortalId([1; 32]),
        name: "x".repeat(len),
        key: PortalKey::Root(Secret::new([2; 32])),
        local: Secret::new([3; 32]),
        quota: None,
    };
    let at = "portal record";
    let mut bytes = record(MAX_PORTAL_NAME_LEN).seal(&key, nonce).unwrap();
    assert!(PortalRecord::open(&bytes, &key).is_ok());
    bytes[8] = 2;
    let newer = FormatError::Version { at, version: 2, known: 1 };
    assert_eq!(PortalRecord::open(&bytes, &key).err(), Some(newer));
    let (value, limit) = (MAX_PORTAL_NAME_LEN as u64 + 1, MAX_PORTAL_NAME_LEN as u64);
    let refused = FormatError::Limit { at: "portal name", value, limit };
    assert_eq!(record(MAX_PORTAL_NAME_LEN + 1).seal(&key, nonce).err(), Some(refused));
    assert!(record(0).seal(&key, nonce).is_err());
    // The length tells nothing of the name.
    let len = |n| record(n).seal(&key, nonce).unwrap().len();
    assert_eq!(len(1), len(MAX_PORTAL_NAME_LEN));
}

// ---- packs ----------------------------------------------------------------

fn arb_index() -> impl Strategy<Value = PackIndex> {
    let entry = (any::<[u8; 32]>(), 0u64..1000, 0u32..1000);
    (vec(entry, 0..6), 0u64..1000).prop_map(|(entries, behind)| {
        let mut end = PACK_HEADER_LEN as u64;
        let mut place = |(id, gap, len): ([u8; 32], u64, u32)| {
            let offset = end + gap;
            end = offset + u64::from(len);
            (ChunkId(id), Place { offset, len })
        };
        let entries = entries.into_iter().map(&mut place).collect();
        PackIndex { pack_len: end + behind, entries }
    })
}

/// What decodes encodes to the same bytes.
fn check_index(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(index) = PackIndex::decode(bytes) {
        prop_assert_eq!(index.encode(), bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_pack_header_comes_back_and_no_changed_byte_passes(
        class in select(vec![Class::Own, Class::Replica, Class::Cached]),
        number: u32,
        at: Index,
        flip in 1u8..,
        foreign in vec(any::<u8>(), 0..80),
    ) {
        let header = PackHeader { class, number };
        let mut bytes = header.encode();
        prop_assert_eq!(PackHeader::decode(&[&bytes[..], &foreign].concat()), Ok(header));
        prop_assert_eq!(Class::from_word(class.word()), Some(class));
        prop_assert!(PackHeader::decode(&bytes[..at.index(PACK_HEADER_LEN)]).is_err());
        prop_assert!(PackHeader::decode(&foreign).is_err());
        bytes[at.index(PACK_HEADER_LEN)] ^= flip;
        prop_assert!(PackHeader::decode(&bytes).is_err());
    }

    #[test]
    fn a_pack_index_comes_back_and_what_decodes_has_one_encoding(
        index in arb_index(),
        acts in arb_damage(),
        foreign in vec(any::<u8>(), 0..200),
    ) {
        let bytes = index.encode();
        prop_assert_eq!(PackIndex::decode(&bytes), Ok(index));
        prop_assert!(PackIndex::decode(&foreign).is_err());
        let mut damaged = bytes.clone();
        damage(&mut damaged, &acts);
        prop_assert_eq!(PackIndex::decode(&damaged).is_ok(), damaged == bytes);
        // Once more with a right checksum, so that what it covers is read.
        let mut body = bytes[..bytes.len() - 32].to_vec();
        damage(&mut body, &acts);
        check_index(&checked(&body))?;
        check_index(&checked(&[&bytes[..16], &foreign[..]].concat()))?;
    }
}

#[test]
fn a_pack_index_has_no_byte_that_nobody_reads() {
    let body = PackIndex { pack_len: 32, entries: Vec::new() }.encode()[..24].to_vec();
    assert!(PackIndex::decode(&checked(&body)).is_ok());
    // The seven bytes behind the version.
    for at in 9..16 {
        let mut changed = body.clone();
        changed[at] = 1;
        let refused = FormatError::Invalid { at: "pack index" };
        assert_eq!(PackIndex::decode(&checked(&changed)), Err(refused), "byte {at}");
    }
}

// ---- keyring --------------------------------------------------------------

const CHEAP: ArgonCost = ArgonCost { memory_kib: 8, passes: 1, lanes: 1 };

proptest! {
    // Each case stretches the owner's seed (PBKDF2) several times.
    #![proptest_config(cases(24))]

    #[test]
    fn a_keyring_comes_back_and_no_damaged_one_opens(
        secrets in any::<([u8; 32], [u8; 32], [u8; 32])>(),
        random in any::<([u8; 16], [u8; 24])>(),
        passphrase in vec(any::<u8>(), 0..20),
        acts in arb_damage(),
    ) {
        let (entropy, device, file_key) = secrets;
        let keyring = Keyring::new(Secret::new(entropy), Secret::new(device)).unwrap();
        let random =
            KeyringRandom { file_key: Secret::new(file_key), salt: random.0, nonce: random.1 };
        let open = keyring.encode();
        let sealed = keyring.seal(&passphrase, CHEAP, &random).unwrap();
        prop_assert_eq!((open.len(), sealed.len()), (172, 320));
        for (bytes, is_sealed) in [(open.as_slice(), false), (sealed.as_slice(), true)] {
            prop_assert_eq!(Keyring::is_sealed(bytes), Ok(is_sealed));
            let again = Keyring::open(bytes, Some(&passphrase)).unwrap();
            prop_assert_eq!(&again.encode()[..], &open[..]);
            let without = Keyring::open(bytes, None).err();
            prop_assert_eq!(without, is_sealed.then_some(FormatError::Locked));
            let mut damaged = bytes.to_vec();
            damage(&mut damaged, &acts);
            let opened = Keyring::open(&damaged, Some(&passphrase)).is_ok();
            prop_assert_eq!(opened, damaged == bytes);
            // Once more with a right checksum: what it covers is signed or
            // under a tag. The cost is left as it is, which keeps this cheap.
            let mut body = bytes[..bytes.len() - 32].to_vec();
            let behind_cost = body.split_off(24);
            let mut changed = behind_cost.clone();
            damage(&mut changed, &acts);
            body.extend_from_slice(&changed);
            let opened = Keyring::open(&checked(&body), Some(&passphrase)).is_ok();
            prop_assert_eq!(opened, changed == behind_cost);
        }
    }

    #[test]
    fn foreign_bytes_are_no_keyring(
        foreign in vec(any::<u8>(), 0..200),
        flags in any::<[u8; 3]>(),
        tail in prop_oneof![vec(any::<u8>(), 128), vec(any::<u8>(), 0..300)],
    ) {
        prop_assert!(Keyring::open(&foreign, Some(b"p")).is_err());
        for flags in [flags, [0, 0, 0]] {
            let body = [b"\x93WARPkey\0", &flags[..], &tail].concat();
            prop_assert!(Keyring::open(&checked(&body), None).is_err());
        }
    }
}

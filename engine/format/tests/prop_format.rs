//! Properties of the format: what goes in comes out, one value has one
//! encoding, and foreign bytes never panic. The tree has prop_tree.rs.
//!
//! Case counts are small because our own crates are not optimised in the dev
//! profile; the fuzz targets in `tests/fuzz` run the same claims for longer.

#[expect(dead_code, reason = "shared with prop_tree.rs and prop_local.rs")]
mod arb;

use arb::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::HashSet;
use std::sync::OnceLock;
use warp_format::archive::{FOOTER_LEN, FRAME_LEN, Footer, Frame, HEADER_LEN, Header, IndexEntry};
use warp_format::chunk::{CutRule, GroupRule};
use warp_format::codec::{Codec, Unpacker};
use warp_format::keys::{ArgonCost, PassphraseSlot, SigningKey};
use warp_format::limits::{MAX_CHUNK_LEN, MAX_SEALED_LEN};
use warp_format::record::{Key, Record};
use warp_format::tree::first_key_of;
use warp_format::{
    ChunkId, ChunkRef, ContentHash, DeviceId, FormatError, Head, NamingKeys, PlainChunk, PortalId,
    SEAL_HEADER_LEN, SealHeader, SealedChunk, Secret, Suite,
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
    let seed = blake3::derive_key("warp v1 gear table", root);
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
    let newer = Err(FormatError::Version { at: "archive", version: 9, known: 1 });
    assert_eq!(Footer::decode(&bytes, footer.file_len().unwrap()), newer);
}

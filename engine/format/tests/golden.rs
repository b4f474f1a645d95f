//! Golden vectors: the constants below pin version 1 of the format, for ever.
//! Whoever moves one of them has made another format, which needs another
//! version byte. Whole files of version 1 are in `tests/data/v1`.
//!
//! No vector goes through zstd or LZ4, whose output may change with their
//! version: short random bytes are stored as they are.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use ed25519_dalek::Signer;
use warp_format::archive::{Footer, Frame, Header, IndexEntry};
use warp_format::chunk::CutRule;
use warp_format::codec::{Level, Packer, Unpacker};
use warp_format::keys::{ArgonCost, PassphraseSlot, RecoveryPhrase, SigningKey};
use warp_format::record::{
    Body, Dentry, Extent, FileType, Inode, Key, KeyKind, Name, Record, Stamp, Summary, Time, Xattr,
};
use warp_format::tree::{Builder, Node};
use warp_format::{
    ChunkId, ChunkRef, ContentHash, ContentSecret, DeviceId, DeviceTag, FileId, FormatError, Head,
    NameHash, NamingKeys, PlainChunk, PortalId, SealedChunk, Sealer, Secret,
};

/// Root secret of every vector that is not public.
const ROOT: [u8; 32] = [0x42; 32];

fn private_keys() -> NamingKeys {
    NamingKeys::derive(&Secret::new(ROOT))
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Knuth's 64-bit generator; the top byte of each step.
fn lcg(mut state: u64) -> impl FnMut() -> u8 {
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    std::iter::repeat_with(lcg(seed)).take(len).collect()
}

/// Lines of words, as source text has them.
fn text(seed: u64, len: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "let", "the", "node", "return", "self", "chunk", "if", "and", "key", "(", ")", "=>",
        "bytes", "of", "0x5a", "\n    ",
    ];
    let mut next = lcg(seed);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(WORDS[usize::from(next() % 16)].as_bytes());
        out.push(b' ');
    }
    out.truncate(len);
    out
}

fn cuts(rule: CutRule, keys: &NamingKeys, data: &[u8]) -> Vec<usize> {
    let mut at = 0;
    std::iter::from_fn(|| {
        at += rule.first_cut(keys, data.get(at..).filter(|rest| !rest.is_empty())?, true);
        Some(at)
    })
    .collect()
}

#[test]
fn cut_points() {
    let data = [noise(1, 700_000), text(2, 700_000), vec![0; 300_000], noise(3, 700_000)].concat();
    let public = NamingKeys::public();
    let private = private_keys();
    assert_eq!(
        cuts(CutRule::MEDIUM, &public, &data),
        [
            76507, 96793, 121673, 188356, 286304, 383909, 457337, 528745, 595171, 679902, 761734,
            800505, 871325, 958493, 1027679, 1092407, 1186242, 1265249, 1347450, 1609594, 1711793,
            1784559, 1859754, 1901752, 1986476, 2022022, 2109497, 2145930, 2240706, 2358390,
            2400000
        ]
    );
    assert_eq!(cuts(CutRule::LARGE, &public, &data), [595171, 1643747, 2400000]);
    assert_eq!(
        cuts(CutRule::MEDIUM, &private, &data),
        [
            39625, 106846, 172836, 287872, 350150, 429960, 514771, 582045, 599207, 698810, 783667,
            919029, 956053, 1053727, 1158559, 1230622, 1298762, 1367650, 1629794, 1700098, 1773379,
            1855438, 1937588, 2004897, 2089026, 2195725, 2230284, 2305494, 2371091, 2400000
        ]
    );
    assert_eq!(cuts(CutRule::LARGE, &private, &data), [582045, 1630621, 2211784, 2400000]);
}

#[test]
fn names_and_hashes() {
    let public = NamingKeys::public();
    let private = private_keys();
    assert_eq!(
        hex(public.content_hash(b"abc").0),
        "8684128f763a2ea6ea95ab4e9829c8cb143d8aa1b5a0008d20c9a06d7ee0b73c"
    );
    assert_eq!(
        hex(private.content_hash(b"abc").0),
        "10535c9e570349e61629fa4912c0885852294121a75e0e702941a55a83ba1cde"
    );
    assert_eq!(hex(public.name_hash(b"README.md").0), "2f7e82c4efc033cab9b2cdda8d6ce389");
    assert_eq!(hex(private.name_hash(b"README.md").0), "fc0f5f4f535374d088ce3c512c499e3a");
    assert_eq!(hex(DeviceId([7; 32]).tag().0), "91f56f466aa2ffa9");
    let phrase = RecoveryPhrase::from_entropy(&Secret::new([3; 32])).unwrap();
    let (owner, keyring) = phrase.owner_keys();
    assert_eq!(
        hex(owner.device_id().0),
        "4e9c5bec769b10a8756da80c517273793218a877ef10ff5d2cb7c0b1430c765f"
    );
    assert_eq!(
        hex(keyring.expose()),
        "6810e3c8853fc835f01762942d5c3ae180fc5b4be4e9126cbef924a09271adff"
    );
}

fn seal(sealer: &Sealer, plain: Vec<u8>) -> SealedChunk {
    let chunk = PlainChunk::data(&private_keys(), plain);
    sealer.seal(&Packer::new(Level::DEFAULT).pack(&chunk))
}

#[test]
fn chunk_ids() {
    let epoch = |n| Sealer::new(ContentSecret::derive(&Secret::new(ROOT), n), n);
    let ids = |sealer: &Sealer| {
        [0, 1, 100, 3000].map(|len| format!("{:#}", seal(sealer, noise(4, len)).id()))
    };
    assert_eq!(
        ids(&Sealer::plain()),
        [
            "d6b45654040c42af0c175e9aa6c66b4d24c8a10e57113d09cad3bc36bbd89b0e",
            "182e93c4b8204e260ac291f7356235de281094c23798080656b10331d8fd5ae7",
            "8dc62a835621784fd9c771caee22bb10435327fa36fe39a0c4396b13509ec786",
            "4ade04b97d3dc2ffb7ba43cd3bca5299c3e538ed07f73002fa8f989bbe010eed"
        ]
    );
    assert_eq!(
        ids(&epoch(0)),
        [
            "29a45eec3bab7dca0ad8258fca41752e977c72790a3b5d65b37c1ed7e31d95b7",
            "44520414e677530295ff527bf0f1baa0b9b54e865e78a48771a7f532098c08f2",
            "cc6ee1b97213be86c7b7ec6ab36f05da7a8a2ff87db2b0218771c0dfa7de6148",
            "e5996f0147cc5c406412a82177c5ee7cdfadf015b3e71ebd67ca9ecbd474c8d9"
        ]
    );
    assert_eq!(
        ids(&epoch(1)),
        [
            "f2ef2f0f7b28e87627668ed905a2785f0ef0d41a6e4f1269c019f9910dd6eb77",
            "a8b2dc02ce7c3ce19b3a0c0c95aae158b69d18cbcdb4907e783427dbb3ef79f5",
            "88db82366346e4be3f81f93f410373f02103ffb1091e01f790bf1505304625b0",
            "635b02b51482688095360d2b301d54596fd40e9c78943c24cafe17f8244ea5c9"
        ]
    );
    assert_eq!(
        hex(seal(&Sealer::plain(), b"abc".to_vec()).bytes()),
        "010001000b0000000300000003000000616263"
    );
    assert_eq!(
        hex(seal(&epoch(0), b"abc".to_vec()).bytes()),
        "010101000c0000006fd8092f69791dba0aaf95a83a26b481a061eba87bc02ae1cb1c5b9975238bb70df65188\
         7683331b7f03b78388d12af3ee212bbd2bf8b11d27e5cc36"
    );
}

/// Seals stored bytes as docs/format.md says, with nothing of this crate.
fn seal_by_the_book(epoch: u32, plain: &[u8], padding: &[u8]) -> Vec<u8> {
    let material = [&ROOT[..], &epoch.to_le_bytes()].concat();
    let siv_key = blake3::derive_key("warp v1 chunk siv", &material);
    let secret = blake3::derive_key("warp v1 chunk secret", &material);
    let len = (plain.len() as u32).to_le_bytes();
    let used = [&len, &len, plain].concat();
    let body_len = (used.len() + padding.len()) as u32;
    let header = [&[1, 1, 1, 0][..], &body_len.to_le_bytes()].concat();
    let siv = *blake3::keyed_hash(&siv_key, &[&header[..], &used].concat()).as_bytes();
    let key = blake3::derive_key("warp v1 chunk key", &[secret, siv].concat());
    let cipher = chacha20poly1305::ChaCha20Poly1305::new(&key.into());
    let mut body = [&used, padding].concat();
    let tag = cipher
        .encrypt_inout_detached(&[0; 12].into(), &header, body.as_mut_slice().into())
        .unwrap();
    [&header[..], &siv, &body, &tag].concat()
}

#[test]
fn sealing_is_what_the_document_says() {
    let sealer = Sealer::new(ContentSecret::derive(&Secret::new(ROOT), 5), 5);
    // 8 + 1000 bytes have the size class 1024.
    let plain = noise(5, 1000);
    let book = seal_by_the_book(5, &plain, &[0; 16]);
    assert_eq!(hex(seal(&sealer, plain.clone()).bytes()), hex(book));
    // Padding that is not zero could carry what no reader sees.
    let odd = SealedChunk::found(seal_by_the_book(5, &plain, &[&[0; 15][..], &[1]].concat()));
    let padding = Err(FormatError::Invalid { at: "padding" });
    assert_eq!(sealer.open_any(&mut Unpacker::new(), &odd), padding);
    let mut longer = seal(&Sealer::plain(), plain).bytes().to_vec();
    longer.push(0);
    let body_len = (longer.len() - 8) as u32;
    longer[4..8].copy_from_slice(&body_len.to_le_bytes());
    let longer = SealedChunk::found(longer);
    assert_eq!(Sealer::plain().open_any(&mut Unpacker::new(), &longer), padding);
}

const STAMP: Stamp = Stamp { clock: 0x0123_4567_89ab, device: DeviceTag([9; 8]) };
const TIME: Time = Time { secs: -2, nanos: 500_000_000 };

fn inode(body: Body, size: u64) -> Record {
    Record::Inode(Inode {
        stamp: Stamp::NONE,
        permissions: 0o644,
        uid: 1000,
        gid: 100,
        size,
        mtime: TIME,
        ctime: None,
        atime: None,
        btime: None,
        versions: Vec::new(),
        body,
    })
}

fn reference(len: u32) -> ChunkRef {
    ChunkRef { id: ChunkId([0xc1; 32]), hash: ContentHash([0xc2; 32]), len, epoch: 1 }
}

/// One key and record of each kind, with their bytes.
fn records() -> Vec<(Key, Record, &'static str)> {
    let hash = NameHash([0xaa; 16]);
    let file = FileId::from_ordinal(7);
    let key = |kind| Key::new(file, kind);
    let Record::Inode(mut full) = inode(Body::Extents(300), 1000) else { unreachable!() };
    full.stamp = STAMP;
    full.ctime = Some(Time { secs: 1, nanos: 0 });
    full.btime = Some(Time { secs: 2, nanos: 3 });
    full.versions = vec![(DeviceTag([1; 8]), 1), (DeviceTag([2; 8]), 200)];
    let dentry = Dentry {
        stamp: Stamp::NONE,
        name: Name::new(b"README.md").unwrap(),
        file,
        file_type: FileType::Regular,
    };
    let xattr = Xattr { stamp: STAMP, name: b"user.a".to_vec(), value: vec![1, 2] };
    let extent = Extent { chunk: reference(5000), start: 16, len: 300 };
    vec![
        (
            Key::new(FileId::ROOT, KeyKind::Inode),
            inode(Body::Directory(2), 0),
            "0004a403e807640380cab5ee01000002",
        ),
        (
            Key::new(FileId::ROOT, KeyKind::Dentry(hash)),
            Record::Dentry(dentry),
            "00000000000000000000000000000000070809524541444d452e6d64",
        ),
        (
            key(KeyKind::Inode),
            Record::Inode(full),
            "01ab939eabb424090909090909090908a403e807640380cab5ee0105020004030201010101010101\
             01010202020202020202c801e80700bc05",
        ),
        (
            key(KeyKind::Xattr(hash)),
            Record::Xattr(xattr),
            "01ab939eabb424090909090909090906757365722e61020102",
        ),
        (key(KeyKind::Link(FileId::ROOT, hash)), Record::Link(Stamp::NONE), "00"),
        (
            key(KeyKind::Extent(0)),
            Record::Extent(extent),
            "00c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c2c2c2c2c2c2c2\
             c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c288270110ac02",
        ),
        (key(KeyKind::Extent(300)), Record::Tombstone(STAMP), "03ab939eabb4240909090909090909"),
        (
            Key::new(FileId([8; 16]), KeyKind::Inode),
            inode(Body::Inline(b"hello".to_vec()), 5),
            "0008a403e807640380cab5ee010000050168656c6c6f",
        ),
        (
            Key::new(FileId([9; 16]), KeyKind::Inode),
            inode(Body::Symlink(b"../a".to_vec()), 4),
            "000aa403e807640380cab5ee010000042e2e2f61",
        ),
        (
            Key::new(FileId([10; 16]), KeyKind::Inode),
            inode(Body::Device { block: true, number: 0x801 }, 0),
            "0006a403e807640380cab5ee0100008110",
        ),
        (
            Key::new(FileId([11; 16]), KeyKind::Inode),
            inode(Body::Fifo, 0),
            "0001a403e807640380cab5ee010000",
        ),
        (
            Key::new(FileId::META, KeyKind::Meta),
            Record::Summary(Summary { inodes: 5, names: 300, bytes: 70_000, unread: 2 }),
            "0005ac02f0a20402",
        ),
    ]
}

#[test]
fn record_bytes() {
    for (key, record, bytes) in records() {
        assert_eq!(hex(record.to_bytes()), bytes, "{key:?}");
    }
    let key = Key::new(FileId::from_ordinal(7), KeyKind::Extent(0x0102));
    assert_eq!(hex(key.to_bytes()), "00000000000000000000000000000007040000000000000102");
}

#[test]
fn records_that_break_a_rule_are_refused() {
    let inode = |rest: &[u8]| [&[0u8, 8, 0, 0, 0, 0, 0], rest].concat();
    let extent =
        |len: &[u8], start: u8, count: u8| [&[0; 65][..], len, &[0, start, count]].concat();
    let tag = [7u8; 8];
    let at = KeyKind::Inode;
    let versions = |first: u8, second: u8, counter: u8| {
        inode(&[&[0, 2][..], &[first; 8], &[1], &[second; 8], &[counter, 0, 0, 0]].concat())
    };
    let big = [0xff; 8];
    // Each beside its lawful neighbour.
    let lawful = [
        (at, inode(&[0, 0, 0, 0, 0])),
        (at, inode(&[0, 0, 5, 0, 5])),
        (at, versions(1, 2, 1)),
        (at, [&[0u8, 10, 0, 0, 0, 0, 0, 0, 0][..], &[1, b'a']].concat()),
        (KeyKind::Extent(0), extent(&[9], 4, 5)),
        (KeyKind::Xattr(NameHash([0; 16])), vec![0, 1, b'a', 0]),
        (KeyKind::Link(FileId::ROOT, NameHash([0; 16])), [&[1, 0][..], &tag].concat()),
    ];
    for (kind, bytes) in lawful {
        assert!(Record::decode(kind, &bytes).is_ok(), "{kind:?} {}", hex(bytes));
    }
    let unlawful = [
        ("holes longer than the file", at, inode(&[0, 0, 5, 0, 6])),
        ("a body of no kind", at, inode(&[0, 0, 5, 2, 0])),
        ("a file over 2^63 - 1 bytes", at, inode(&[&[0, 0][..], &big, &[0xff, 1, 0, 0]].concat())),
        ("an inline file of 513 bytes", at, inode(&[&[0, 0, 0x81, 4, 1][..], &[0; 513]].concat())),
        ("a counter of zero", at, versions(1, 2, 0)),
        ("devices out of order", at, versions(2, 1, 1)),
        ("a device twice", at, versions(2, 2, 1)),
        ("an unknown time", at, inode(&[8, 0, 0, 0, 0])),
        ("permissions over 12 bits", at, vec![0, 8, 0x80, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("10^9 nanoseconds", at, { vec![0, 4, 0, 0, 0, 0, 0x80, 0x94, 0xeb, 0xdc, 3, 0, 0] }),
        ("a file type of no kind", at, vec![0, 3, 0, 0, 0, 0, 0, 0, 0]),
        ("a link to nothing", at, vec![0, 10, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a link with a NUL", at, vec![0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
        ("an extent of no bytes", KeyKind::Extent(0), extent(&[9], 4, 0)),
        ("an extent past its chunk", KeyKind::Extent(0), extent(&[9], 4, 6)),
        ("an extent past the largest file", KeyKind::Extent(i64::MAX as u64), extent(&[9], 4, 5)),
        ("an attribute without a name", KeyKind::Xattr(NameHash([0; 16])), vec![0, 0, 0]),
        ("a zero stamp written out", at, [&[3, 0][..], &[0; 8]].concat()),
        ("an unknown flag", at, vec![4]),
        ("a stamp on a summary", KeyKind::Meta, [&[1, 0][..], &tag, &[0, 0, 0]].concat()),
        ("a name of two dots", KeyKind::Dentry(NameHash([0; 16])), {
            [&[0; 17][..], &[8, 2], b".."].concat()
        }),
        ("a name with a slash", KeyKind::Dentry(NameHash([0; 16])), {
            [&[0; 17][..], &[8, 3], b"a/b"].concat()
        }),
    ];
    for (what, kind, bytes) in unlawful {
        let refused = Record::decode(kind, &bytes).is_err();
        assert!(refused, "{what} is read");
    }
}

#[test]
fn more_versions_than_there_are_bytes_or_than_may_be_are_refused() {
    let at = "version vector";
    let inode = |count: &[u8]| {
        let bytes = [&[0, 4, 0, 0, 0, 0, 0, 0][..], count, &[7; 17]].concat();
        Record::decode(KeyKind::Inode, &bytes)
    };
    assert_eq!(inode(&[2]), Err(FormatError::Truncated { at }));
    assert_eq!(inode(&[0x80, 0x20]), Err(FormatError::Truncated { at }));
    assert_eq!(inode(&[0x81, 0x20]), Err(FormatError::Limit { at, value: 4097, limit: 4096 }));
}

#[test]
fn what_no_decoder_takes_no_encoder_makes() {
    let fifo = |change: fn(&mut Inode)| {
        let Record::Inode(mut changed) = inode(Body::Fifo, 0) else { unreachable!() };
        change(&mut changed);
        Record::Inode(changed)
    };
    let extent = |start, len| Record::Extent(Extent { chunk: reference(10), start, len });
    let xattr = |name: usize, value: usize| {
        let (name, value) = (vec![b'a'; name], vec![0; value]);
        Record::Xattr(Xattr { stamp: Stamp::NONE, name, value })
    };
    let link = |target: &[u8], size| inode(Body::Symlink(target.to_vec()), size);
    let device = |size| inode(Body::Device { block: false, number: 1 }, size);
    // Each unlawful record behind its lawful neighbour.
    let pairs = [
        (fifo(|i| i.permissions = 0o7777), fifo(|i| i.permissions = 0o10000)),
        (fifo(|i| i.mtime.nanos = 999_999_999), fifo(|i| i.mtime.nanos = 1_000_000_000)),
        (fifo(|i| i.versions = versions(1, 2, 1)), fifo(|i| i.versions = versions(2, 1, 1))),
        (fifo(|i| i.versions = versions(1, 2, 9)), fifo(|i| i.versions = versions(1, 1, 9))),
        (fifo(|i| i.versions = versions(1, 3, 9)), fifo(|i| i.versions = versions(1, 3, 0))),
        (fifo(|i| i.size = 0), fifo(|i| i.size = 1)),
        (inode(Body::Extents(9), 9), inode(Body::Extents(10), 9)),
        (inode(Body::Inline(vec![0; 512]), 512), inode(Body::Inline(vec![0; 513]), 513)),
        (inode(Body::Inline(vec![0; 5]), 5), inode(Body::Inline(vec![0; 5]), 6)),
        (link(b"a", 1), link(b"", 0)),
        (link(b"ab", 2), link(b"a\0", 2)),
        (link(&[b'a'; 4095], 4095), link(&[b'a'; 4096], 4096)),
        (link(b"a", 1), link(b"a", 2)),
        (device(0), device(1)),
        (extent(4, 6), extent(4, 7)),
        (extent(10 - 1, 1), extent(10, 0)),
        (xattr(1, 0), xattr(0, 0)),
        (xattr(255, 65_536), xattr(256, 65_536)),
        (xattr(255, 65_536), xattr(255, 65_537)),
    ];
    let made = |record: &Record| std::panic::catch_unwind(|| record.to_bytes()).is_ok();
    for (lawful, unlawful) in pairs {
        assert!(made(&lawful) && !made(&unlawful), "{unlawful:?}");
    }
}

fn versions(first: u8, second: u8, counter: u64) -> Vec<(DeviceTag, u64)> {
    vec![(DeviceTag([first; 8]), 1), (DeviceTag([second; 8]), counter)]
}

/// Plain nodes of a tree in the order in which they are written.
fn nodes(keys: &NamingKeys, records: &[(Key, Record)]) -> Vec<PlainChunk> {
    let mut nodes: Vec<PlainChunk> = Vec::new();
    let mut builder = Builder::new(keys, |chunk: PlainChunk| {
        let (hash, len) = (chunk.hash(), chunk.bytes().len() as u32);
        let id = ChunkId::of(chunk.bytes());
        nodes.push(chunk);
        Ok::<_, FormatError>(ChunkRef { id, hash, len, epoch: 0 })
    });
    records.iter().for_each(|(key, record)| builder.push(key, record).unwrap());
    builder.finish().unwrap();
    nodes
}

/// The content hash of a node, as docs/format.md has it.
fn node_hash_by_the_book(root: [u8; 32], node: &PlainChunk) -> String {
    let node = Node::decode(node.bytes().to_vec()).unwrap();
    let mut over = vec![node.level()];
    let long = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
    for i in 0..node.len() {
        let key = node.key_bytes(i).unwrap();
        over.extend([&long(key), key].concat());
        over.extend(match (node.value(i), node.child(i)) {
            (Some(record), _) => [&long(record), record].concat(),
            (None, child) => {
                let child = child.unwrap();
                [&child.node.hash.0[..], &child.records.to_le_bytes()].concat()
            }
        });
    }
    let key = blake3::derive_key("warp v1 node hash", &root);
    hex(blake3::keyed_hash(&key, &over).as_bytes())
}

#[test]
fn node_hashes() {
    let small: Vec<_> = records().into_iter().map(|(key, record, _)| (key, record)).collect();
    let public = nodes(&NamingKeys::public(), &small);
    let private = nodes(&private_keys(), &small);
    assert_eq!(public.len(), 1);
    assert_eq!(public[0].bytes(), private[0].bytes());
    assert_eq!(
        hex(blake3::hash(public[0].bytes()).as_bytes()),
        "cc9d1efba7be9916ded7e5fed08b816d06e13a606456bbfe31b31cef0587079e"
    );
    assert_eq!(
        hex(public[0].hash().0),
        "9b0962cba4e7ee75599aa07cd1b465b285e80d278d1fb47de948fc2db2861cf0"
    );
    assert_eq!(
        hex(private[0].hash().0),
        "4bdbddbce84b036fd80386e2d9a8aaf07922bef95f651369179978cca0dc2baf"
    );
    let empty = nodes(&NamingKeys::public(), &[]);
    assert_eq!(hex(empty[0].bytes()), "0000");
    assert_eq!(
        hex(empty[0].hash().0),
        "80dd621f79de8bc1be6a6cc6373bdac32b9aa7be10a62ab353795fc90841d6f6"
    );

    // Two levels: where nodes end is a part of the format.
    let large: Vec<_> = (0..4000)
        .map(|n| (Key::new(FileId::from_ordinal(n), KeyKind::Inode), inode(Body::Fifo, 0)))
        .collect();
    let tree = nodes(&private_keys(), &large);
    let counts: Vec<usize> =
        tree.iter().map(|node| Node::decode(node.bytes().to_vec()).unwrap().len()).collect();
    assert_eq!(counts, [619, 355, 323, 286, 679, 375, 425, 368, 287, 257, 26, 11]);
    assert_eq!(
        hex(tree.last().unwrap().hash().0),
        "f3580bbef9d014e80651aa107ba2f744c57f0d2ee966237f1611cc07b1a48109"
    );
    for node in &private {
        assert_eq!(hex(node.hash().0), node_hash_by_the_book(ROOT, node));
    }
    for node in public.iter().chain(&empty) {
        assert_eq!(hex(node.hash().0), node_hash_by_the_book([0; 32], node));
    }
    for node in &tree {
        assert_eq!(hex(node.hash().0), node_hash_by_the_book(ROOT, node));
    }
}

fn slot() -> PassphraseSlot {
    let cost = ArgonCost { memory_kib: 64, passes: 1, lanes: 1 };
    PassphraseSlot::wrap(&Secret::new(ROOT), b"correct horse", cost, [6; 16]).unwrap()
}

#[test]
fn header_bytes() {
    let parts = |slot| {
        let header = Header { slot }.encode();
        assert!(header[120..224].iter().all(|byte| *byte == 0));
        [&header[..12], &header[12..120], &header[224..]].map(hex)
    };
    let [start, slot_bytes, check] = parts(None);
    assert_eq!(start, "93574152500d0a1a01000000");
    assert_eq!(slot_bytes, "00".repeat(108));
    assert_eq!(check, "5bd5f8564e9d1acb7f61b335998be7dfa51a9c8350f8a8f1dacb2c4d87f7a78d");
    let [start, slot_bytes, check] = parts(Some(slot()));
    assert_eq!(start, "93574152500d0a1a01010000");
    assert_eq!(
        slot_bytes,
        "40000000010000000100000006060606060606060606060606060606f67146bde811216cb9377e72ca8f1f30\
         a36d5a47b3dd13def06cf9d72b7b5b82365e2ad927fbeead5568a1ea7b1dcd6972a81f2109a76c27b18e8a88\
         941a1026e4c2d953f2854651df6ea85bccfa4e4c"
    );
    assert_eq!(check, "2fc9e22c3523ec6a6799902c1600c2cdd9bd02e80deb323fb4a5d1c9a5a79310");
    // The first 8 bytes of the id are those that `chunk_ids` has.
    let chunk = seal(&Sealer::plain(), noise(4, 100));
    assert_eq!(hex(Frame::of(&chunk).encode()), "e57752c7740000008dc62a835621784f");
    assert_eq!(
        hex(IndexEntry::new(&ChunkId([0xc1; 32]), 0x0102, 0x1234).encode()),
        "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1020100000000000034120000"
    );
}

#[test]
fn footer_bytes() {
    let mut footer = Footer {
        header: Header { slot: None },
        root: reference(77),
        index_at: 0x1000,
        index_count: 3,
        index_hash: [0xc3; 32],
        signature: None,
    };
    // Behind the header's copy: root, index, signature, zeros.
    let parts = |footer: &Footer| {
        let bytes = footer.encode();
        assert_eq!(bytes[12..268], footer.header.encode());
        [&bytes[..12], &bytes[268..388], &bytes[388..544], &bytes[544..]].map(hex)
    };
    let [start, fields, signature, check] = parts(&footer);
    assert_eq!(start, "9357415250656e6401000000");
    assert_eq!(
        fields,
        "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c2c2c2c2c2c2c2c2c2c2c2c2\
         c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c24d0000000100000000100000000000000300000000000000\
         c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3"
    );
    assert_eq!(signature, "00".repeat(156));
    assert_eq!(check, "cc8f2d8fab9606ca9e1dcb7a4a4741aa8f3f1d83cc29521383c32d51026eadd5");
    footer.sign(&SigningKey::from_seed(&Secret::new([6; 32])));
    let [start, same, signature, check] = parts(&footer);
    assert_eq!(start, "9357415250656e6401010000");
    assert_eq!(same, fields);
    assert_eq!(
        signature,
        "8a875fff1eb38451577acd5afee405456568dd7c89e090863a0557bc7af49f1703ee9c849474d35171938154\
         9157a5239c211c3273492207dfca86d04cef9c9c44133118f4f74f05223ebcdf140b4f67e8a871c3be0cd673\
         7e7fd15e9126640f000000000000000000000000000000000000000000000000000000000000000000000000\
         000000000000000000000000000000000000000000000000"
    );
    assert_eq!(check, "098458cb291e36c0b5f0da292976b3e817f69a799e42af57ab29940c17213b78");
}

#[test]
fn head_bytes() {
    let key = SigningKey::from_seed(&Secret::new([8; 32]));
    let head = Head {
        portal: PortalId([1; 32]),
        device: key.device_id(),
        sequence: 9,
        root: reference(77),
        seen: vec![(DeviceId([4; 32]), 5), (DeviceId([6; 32]), 700)],
        membership: 12,
    };
    assert_eq!(
        hex(head.sign(&key)),
        "0101010101010101010101010101010101010101010101010101010101010101011398f62c6d1a457c51ba6a\
         4b5f3dbd2f69fca93216218dc8997e416bd17d93ca09c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1\
         c1c1c1c1c1c1c1c1c1c1c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c24d01\
         0204040404040404040404040404040404040404040404040404040404040404040506060606060606060606\
         06060606060606060606060606060606060606060606bc050c7bf87a18d6ef4e2efce9d501f6d82a6b310c26\
         f918523e1bd700b7c6bbdd155db9b5bb286d75b62af4f406370e848536063de33a36a37e5794a9eaa1554dcf\
         04"
    );
}

#[test]
fn a_head_that_is_signed_but_breaks_a_rule_is_refused() {
    let key = ed25519_dalek::SigningKey::from_bytes(&[8; 32]);
    let signed = |sequence: u8, seen: [u8; 2]| {
        let device = key.verifying_key().to_bytes();
        let [a, b] = seen.map(|device| [&[device; 32][..], &[1]].concat());
        let start = [&[1][..], &[1; 32], &device, &[sequence], &[2; 64], &[77, 0, 2]].concat();
        let body = [start, a, b, vec![12]].concat();
        let digest = blake3::derive_key("warp v1 head signature", &body);
        [&body[..], &key.sign(&digest).to_bytes()].concat()
    };
    let invalid = Err(FormatError::Invalid { at: "head" });
    assert!(Head::open(&signed(9, [4, 6])).is_ok());
    assert_eq!(Head::open(&signed(9, [6, 4])), invalid);
    assert_eq!(Head::open(&signed(9, [4, 4])), invalid);
    assert_eq!(Head::open(&signed(0, [4, 6])), invalid);
}

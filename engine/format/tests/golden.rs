//! Golden vectors: the constants below pin version 0 of the format. A change
//! that moves one of them changes the format, and needs a new version byte
//! once version 0 is frozen; until then it changes the constant and says so.
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
            74757, 141566, 216540, 294117, 389054, 470722, 527489, 594958, 711543, 800790, 872350,
            955056, 1028643, 1101793, 1202988, 1238056, 1303720, 1377270, 1639414, 1717799,
            1797781, 1866621, 1934424, 2025146, 2095179, 2176452, 2221391, 2299717, 2372389,
            2400000
        ]
    );
    assert_eq!(cuts(CutRule::LARGE, &public, &data), [527489, 1202988, 1719943, 2221391, 2400000]);
    assert_eq!(
        cuts(CutRule::MEDIUM, &private, &data),
        [
            66003, 138037, 213144, 283200, 357944, 477784, 550773, 628058, 702815, 822664, 901438,
            989840, 1014357, 1071758, 1144258, 1223012, 1315233, 1381984, 1644128, 1724128,
            1802807, 1868923, 1962713, 2032476, 2084063, 2128867, 2200002, 2287058, 2380310,
            2400000
        ]
    );
    assert_eq!(cuts(CutRule::LARGE, &private, &data), [553376, 1014357, 2062933, 2400000]);
}

#[test]
fn names_and_hashes() {
    let public = NamingKeys::public();
    let private = private_keys();
    assert_eq!(
        hex(public.content_hash(b"abc").0),
        "6e7a98170a42250a300b546e2811000131cedf63ba47ef6fa2c8dbd9c339e006"
    );
    assert_eq!(
        hex(private.content_hash(b"abc").0),
        "e2cc0ab22d7fa2cf53c0d55650bb8f70fd2d3d45a910a89684614597d232f28d"
    );
    assert_eq!(hex(public.name_hash(b"README.md").0), "01de13bfc4be9a64c9b37500bc4fb57a");
    assert_eq!(hex(private.name_hash(b"README.md").0), "de3ba18a7a4efbd56272adacaaf7a09c");
    assert_eq!(hex(DeviceId([7; 32]).tag().0), "536e668fa18ff8db");
    let phrase = RecoveryPhrase::from_entropy(&Secret::new([3; 32])).unwrap();
    let (owner, keyring) = phrase.owner_keys();
    assert_eq!(
        hex(owner.device_id().0),
        "635122907fa5d369bf3b9c3600b6bb0e169b25febef6aeb76439ec19119d1ac9"
    );
    assert_eq!(
        hex(keyring.expose()),
        "a03cd4481d88195dbf43d30ea0ce8cff6e7674dd28166778e2f8d5a20c65cf2b"
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
            "44bdfb5634de603b5550c4817e0fdd936d0baba3a02baf9828b4461b89aec693",
            "c0b6d2784c1f6e394a5e93677f053674fbc98115090b4171862fd8f7272f48bc",
            "4c5cbed06f4547f66208c26fe32f79f955cacedfe204edc12fc47ce0146035fd",
            "ba18923072ffcc4ee3de7e0d88f6d4366212461a3e4f68db96c83171073b8ade"
        ]
    );
    assert_eq!(
        ids(&epoch(0)),
        [
            "a7dddeb1fd9e97b7116fd3236e80e17aa60ee1b2a566c6c25f45a744d8ddb7f5",
            "dfcb4ea48251adb06f119d67e4343827154d3c34afbba745ff4700cf3931e02f",
            "0cb236ea551e9192305931582466867730d175f30ba9414d5f81acd2bcd3831b",
            "18fae7c2f6f6d01b782251f0148c3d7bab8d5029486b4f27567a1141041eee2d"
        ]
    );
    assert_eq!(
        ids(&epoch(1)),
        [
            "1818796b97728db9519a8c5f5638cb073eb6a4f0e33c342087eac3aa3eac45db",
            "808c58869aee129af5ff016ccd44219652020d5701e0965378148512bd2e7166",
            "bd1d4d3d9efc3f0f2c8c64442d2e5b5c4ec1723e07c117c01a705e794bc0c50c",
            "9eab4d4ffe1b09ea23620292815f553a15f468adcb7dd58abc34a2cf97dd53bf"
        ]
    );
    assert_eq!(
        hex(seal(&Sealer::plain(), b"abc".to_vec()).bytes()),
        "000001000b0000000300000003000000616263"
    );
    assert_eq!(
        hex(seal(&epoch(0), b"abc".to_vec()).bytes()),
        "000101000c0000004c0e15b6f958a6fdf88a32ddeaa6339baa218c9fb801c8acac2cb9fb5d5faeb60ff9eba9\
         a470965dfd965c98ce6f156c8cce6e6a1c2110dc2f423c4b"
    );
}

/// Seals stored bytes as docs/format.md says, with nothing of this crate.
fn seal_by_the_book(epoch: u32, plain: &[u8], padding: &[u8]) -> Vec<u8> {
    let material = [&ROOT[..], &epoch.to_le_bytes()].concat();
    let siv_key = blake3::derive_key("warp v0 chunk siv", &material);
    let secret = blake3::derive_key("warp v0 chunk secret", &material);
    let len = (plain.len() as u32).to_le_bytes();
    let used = [&len, &len, plain].concat();
    let body_len = (used.len() + padding.len()) as u32;
    let header = [&[0, 1, 1, 0][..], &body_len.to_le_bytes()].concat();
    let siv = *blake3::keyed_hash(&siv_key, &[&header[..], &used].concat()).as_bytes();
    let key = blake3::derive_key("warp v0 chunk key", &[secret, siv].concat());
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
    let key = blake3::derive_key("warp v0 node hash", &root);
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
        "d86829c69c7ad182aa6ca2eda0465ebf8f9aace5f4219f5ff00f1c797852cef4"
    );
    assert_eq!(
        hex(private[0].hash().0),
        "7d1f7d0582f82818c62038f4b3f47522ad4ecf49625b98a8eb09b400f19818bd"
    );
    let empty = nodes(&NamingKeys::public(), &[]);
    assert_eq!(hex(empty[0].bytes()), "0000");
    assert_eq!(
        hex(empty[0].hash().0),
        "0e328d5a792ad374d3e5c9a5a129652f24cb39456ecc91f69a122b2d89586281"
    );

    // Two levels: where nodes end is a part of the format.
    let large: Vec<_> = (0..4000)
        .map(|n| (Key::new(FileId::from_ordinal(n), KeyKind::Inode), inode(Body::Fifo, 0)))
        .collect();
    let tree = nodes(&private_keys(), &large);
    let counts: Vec<usize> =
        tree.iter().map(|node| Node::decode(node.bytes().to_vec()).unwrap().len()).collect();
    assert_eq!(counts, [346, 509, 329, 395, 572, 334, 452, 283, 387, 273, 120, 11]);
    assert_eq!(
        hex(tree.last().unwrap().hash().0),
        "da1e4434784ddaa86c35c3bee156f2310519501e277d03fce534b541b57b1c5f"
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
    assert_eq!(start, "93574152500d0a1a00000000");
    assert_eq!(slot_bytes, "00".repeat(108));
    assert_eq!(check, "be0d8b620ca0efb2c98d56d2ed1b7644bcd7a0edb39779ee065afab81368791f");
    let [start, slot_bytes, check] = parts(Some(slot()));
    assert_eq!(start, "93574152500d0a1a00010000");
    assert_eq!(
        slot_bytes,
        "400000000100000001000000060606060606060606060606060606061b2b34f75129199a2b695e74539470a5\
         bd7dc45670f63e5fb6bd0e3694270aa9ab3d95cf017cb34235d08ce4fa5106bee46c483f26bfc401965b9149\
         7ddb035f9e8afe9aee41973e131e139ecbae8989"
    );
    assert_eq!(check, "433f8d2bda8c465d02f060e0d0794c60ffb45500c57396a8f7d83be1286ee919");
    // The first 8 bytes of the id are those that `chunk_ids` has.
    let chunk = seal(&Sealer::plain(), noise(4, 100));
    assert_eq!(hex(Frame::of(&chunk).encode()), "e57752c7740000004c5cbed06f4547f6");
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
    assert_eq!(start, "9357415250656e6400000000");
    assert_eq!(
        fields,
        "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c2c2c2c2c2c2c2c2c2c2c2c2\
         c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c24d0000000100000000100000000000000300000000000000\
         c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3"
    );
    assert_eq!(signature, "00".repeat(156));
    assert_eq!(check, "4e7f6e029121534631828f325e14bc8451ac9debe6f0613df434615f0e41cc29");
    footer.sign(&SigningKey::from_seed(&Secret::new([6; 32])));
    let [start, same, signature, check] = parts(&footer);
    assert_eq!(start, "9357415250656e6400010000");
    assert_eq!(same, fields);
    assert_eq!(
        signature,
        "8a875fff1eb38451577acd5afee405456568dd7c89e090863a0557bc7af49f171b6dc9685591bca77038e3bd\
         b0bf1ca9d151fd2b966f16e1878295bb21901281c53729bcdd8570eccaec962cab00610ae995de64cab2d1cd\
         68c1acafeaff930e000000000000000000000000000000000000000000000000000000000000000000000000\
         000000000000000000000000000000000000000000000000"
    );
    assert_eq!(check, "2b3545b9993f5410f79904840b254952bc975405c2c6cb7b68d2bfe4d6cd2011");
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
        "0001010101010101010101010101010101010101010101010101010101010101011398f62c6d1a457c51ba6a\
         4b5f3dbd2f69fca93216218dc8997e416bd17d93ca09c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1\
         c1c1c1c1c1c1c1c1c1c1c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c24d01\
         0204040404040404040404040404040404040404040404040404040404040404040506060606060606060606\
         06060606060606060606060606060606060606060606bc050cc4d6a5f863fd0f9578fedb565501852b51b56a\
         7701505bf953a8a9b5918346ae384a588ac32f41a692bfa48a80f96a8e571c733da3d353100d835d7acc3bf9\
         0b"
    );
}

#[test]
fn a_head_that_is_signed_but_breaks_a_rule_is_refused() {
    let key = ed25519_dalek::SigningKey::from_bytes(&[8; 32]);
    let signed = |sequence: u8, seen: [u8; 2]| {
        let device = key.verifying_key().to_bytes();
        let [a, b] = seen.map(|device| [&[device; 32][..], &[1]].concat());
        let start = [&[0][..], &[1; 32], &device, &[sequence], &[2; 64], &[77, 0, 2]].concat();
        let body = [start, a, b, vec![12]].concat();
        let digest = blake3::derive_key("warp v0 head signature", &body);
        [&body[..], &key.sign(&digest).to_bytes()].concat()
    };
    let invalid = Err(FormatError::Invalid { at: "head" });
    assert!(Head::open(&signed(9, [4, 6])).is_ok());
    assert_eq!(Head::open(&signed(9, [6, 4])), invalid);
    assert_eq!(Head::open(&signed(9, [4, 4])), invalid);
    assert_eq!(Head::open(&signed(0, [4, 6])), invalid);
}

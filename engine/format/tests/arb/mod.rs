//! What the property tests draw: bytes as files have them, valid records of
//! every kind, and damage.

pub(crate) mod tree;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use warp_format::codec::{Level, Packer};
use warp_format::limits::{
    INLINE_LEN, MAX_CHUNK_LEN, MAX_FILE_SIZE, MAX_NAME_LEN, MAX_SYMLINK_LEN, MAX_XATTR_LEN,
};
use warp_format::record::{
    Body, Dentry, Extent, FileType, Inode, Key, KeyKind, Name, Record, Stamp, Summary, Time, Xattr,
};
use warp_format::{
    ChunkId, ChunkRef, ContentHash, ContentSecret, DeviceTag, FileId, NameHash, NamingKeys, Sealer,
    Secret,
};

pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Pseudo-random bytes: never repeat, do not compress.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Bytes as files have them: stretches of noise, of one repeated word and of
/// zeros, each up to 200 KB long.
pub(crate) fn mixed(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len);
    let plan = noise(seed, 4096);
    for (i, step) in plan.as_chunks::<4>().0.iter().cycle().enumerate() {
        let [kind, word, a, b] = *step;
        let n = (usize::from(u16::from_le_bytes([a, b])) * 3 + 1).min(len - out.len());
        match kind % 3 {
            0 => out.extend(noise(seed ^ i as u64, n)),
            1 => out.extend([word, word / 2, 10, word / 3, 32].iter().cycle().take(n)),
            _ => out.resize(out.len() + n, 0),
        }
        if out.len() == len {
            break;
        }
    }
    out
}

pub(crate) fn private_keys() -> NamingKeys {
    NamingKeys::derive(&Secret::new([0x5a; 32]))
}

pub(crate) fn sealers() -> [Sealer; 2] {
    [Sealer::plain(), Sealer::new(ContentSecret::derive(&Secret::new([0x5a; 32]), 3), 3)]
}

pub(crate) fn packer(level: u8) -> Packer {
    Packer::new(Level::new(level).expect("a level of the format"))
}

pub(crate) fn arb_stamp() -> impl Strategy<Value = Stamp> {
    let stamp = |(clock, device)| Stamp { clock, device: DeviceTag(device) };
    prop_oneof![Just(Stamp::NONE), any::<(u64, [u8; 8])>().prop_map(stamp)]
}

pub(crate) fn arb_time() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Time { secs, nanos })
}

pub(crate) fn arb_file_id() -> impl Strategy<Value = FileId> {
    prop_oneof![
        Just(FileId::ROOT),
        Just(FileId::META),
        (0u64..50).prop_map(FileId::from_ordinal),
        any::<[u8; 16]>().prop_map(FileId),
    ]
}

pub(crate) fn arb_file_type() -> impl Strategy<Value = FileType> {
    use FileType::*;
    select(vec![Regular, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice])
}

pub(crate) fn arb_key_kind() -> impl Strategy<Value = KeyKind> {
    let hash = || any::<[u8; 16]>().prop_map(NameHash);
    prop_oneof![
        Just(KeyKind::Meta),
        Just(KeyKind::Inode),
        hash().prop_map(KeyKind::Xattr),
        (arb_file_id(), hash()).prop_map(|(parent, name)| KeyKind::Link(parent, name)),
        prop_oneof![0u64..1000, any::<u64>()].prop_map(KeyKind::Extent),
        hash().prop_map(KeyKind::Dentry),
    ]
}

pub(crate) fn arb_key() -> impl Strategy<Value = Key> {
    (arb_file_id(), arb_key_kind()).prop_map(|(file, kind)| Key::new(file, kind))
}

pub(crate) fn arb_chunk_ref() -> impl Strategy<Value = ChunkRef> {
    (any::<[u8; 32]>(), any::<[u8; 32]>(), 0..=MAX_CHUNK_LEN as u32, any::<u32>()).prop_map(
        |(id, hash, len, epoch)| ChunkRef { id: ChunkId(id), hash: ContentHash(hash), len, epoch },
    )
}

/// A body and the size that goes with it.
pub(crate) fn arb_body() -> impl Strategy<Value = (u64, Body)> {
    prop_oneof![
        (0..=MAX_FILE_SIZE, 0..=MAX_FILE_SIZE)
            .prop_map(|(a, b)| (a.max(b), Body::Extents(a.min(b)))),
        vec(any::<u8>(), 0..=INLINE_LEN).prop_map(|b| (b.len() as u64, Body::Inline(b))),
        (1u64..).prop_map(|links| (0, Body::Directory(links))),
        vec(1u8.., 1..=MAX_SYMLINK_LEN).prop_map(|b| (b.len() as u64, Body::Symlink(b))),
        any::<(bool, u64)>().prop_map(|(block, number)| (0, Body::Device { block, number })),
        Just((0, Body::Fifo)),
        Just((0, Body::Socket)),
    ]
}

pub(crate) fn arb_inode() -> impl Strategy<Value = Inode> {
    let times = (arb_time(), [arb_time(), arb_time(), arb_time()], any::<[bool; 3]>());
    let versions = proptest::collection::btree_map(any::<[u8; 8]>(), 1u64.., 0..6);
    let owner = (0u16..=0o7777, any::<u32>(), any::<u32>());
    (arb_stamp(), owner, times, versions, arb_body()).prop_map(
        |(stamp, (permissions, uid, gid), (mtime, times, present), versions, (size, body))| {
            let [ctime, atime, btime] = core::array::from_fn(|i| present[i].then_some(times[i]));
            let versions = versions.into_iter().map(|(tag, n)| (DeviceTag(tag), n)).collect();
            Inode { stamp, permissions, uid, gid, size, mtime, ctime, atime, btime, versions, body }
        },
    )
}

pub(crate) fn arb_extent(offset: u64) -> impl Strategy<Value = Extent> {
    let room = (MAX_FILE_SIZE - offset).min(MAX_CHUNK_LEN as u64) as u32;
    (arb_chunk_ref(), any::<(Index, Index)>()).prop_map(move |(mut chunk, (start, len))| {
        chunk.len = chunk.len.max(1);
        let start = start.index(chunk.len as usize) as u32;
        let len = 1 + len.index((chunk.len - start).min(room) as usize) as u32;
        Extent { chunk, start, len }
    })
}

pub(crate) fn arb_name() -> impl Strategy<Value = Name> {
    vec(select((1..=255).filter(|b| *b != b'/').collect::<Vec<u8>>()), 1..=MAX_NAME_LEN)
        .prop_filter_map("a name is neither . nor ..", |bytes| Name::new(&bytes).ok())
}

/// A record that may stand under a key of this kind.
pub(crate) fn arb_record(kind: KeyKind) -> BoxedStrategy<Record> {
    let live = match kind {
        KeyKind::Meta => any::<(u64, u64, u64, u64)>()
            .prop_map(|(inodes, names, bytes, unread)| {
                Record::Summary(Summary { inodes, names, bytes, unread })
            })
            .boxed(),
        KeyKind::Inode => arb_inode().prop_map(Record::Inode).boxed(),
        KeyKind::Xattr(_) => (
            arb_stamp(),
            vec(1u8.., 1..=MAX_NAME_LEN),
            prop_oneof![8 => vec(any::<u8>(), 0..100), 1 => Just(vec![7; MAX_XATTR_LEN])],
        )
            .prop_map(|(stamp, name, value)| Record::Xattr(Xattr { stamp, name, value }))
            .boxed(),
        KeyKind::Link(..) => arb_stamp().prop_map(Record::Link).boxed(),
        KeyKind::Extent(offset) if offset < MAX_FILE_SIZE => {
            arb_extent(offset).prop_map(Record::Extent).boxed()
        }
        // Past the largest file there can be no bytes.
        KeyKind::Extent(_) => arb_stamp().prop_map(Record::Tombstone).boxed(),
        KeyKind::Dentry(_) => (arb_stamp(), arb_name(), arb_file_id(), arb_file_type())
            .prop_map(|(stamp, name, file, file_type)| {
                Record::Dentry(Dentry { stamp, name, file, file_type })
            })
            .boxed(),
    };
    prop_oneof![9 => live, 1 => arb_stamp().prop_map(Record::Tombstone)].boxed()
}

pub(crate) fn arb_entry() -> impl Strategy<Value = (Key, Record)> {
    arb_key().prop_flat_map(|key| (Just(key), arb_record(key.kind)))
}

/// Changes as an attacker makes them, for [`damage`].
pub(crate) fn arb_damage() -> impl Strategy<Value = Vec<(Index, u8, u8)>> {
    let byte = prop_oneof![select(vec![0, 1, 2, 3, 0x7f, 0x80, 0xff]), any::<u8>()];
    vec((any::<Index>(), any::<u8>(), byte), 0..4)
}

pub(crate) fn damage(bytes: &mut Vec<u8>, damage: &[(Index, u8, u8)]) {
    for (at, act, byte) in damage {
        match (act % 5, bytes.len()) {
            (_, 0) => bytes.push(*byte),
            (0, len) => bytes.truncate(at.index(len)),
            (1, len) => bytes.insert(at.index(len + 1), *byte),
            // A variable-length number in a form longer than it needs.
            (2, len) => {
                let at = at.index(len);
                bytes[at] |= 0x80;
                bytes.insert(at + 1, 0);
            }
            (_, len) => bytes[at.index(len)] = *byte,
        }
    }
}

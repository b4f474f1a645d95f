//! Plain bytes come back through both suites; a changed byte never opens under
//! suite 1; foreign bytes open under suite 0 only as what they say they are,
//! data or node.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::sync::LazyLock;
use warp_format::codec::{Level, Packer, Unpacker};
use warp_format::limits::MAX_CHUNK_LEN;
use warp_format::tree::Node;
use warp_format::{
    ChunkKind, ContentSecret, NamingKeys, PlainChunk, SEAL_HEADER_LEN, SealHeader, SealedChunk,
    Sealer, Secret, Suite,
};

thread_local! {
    static PACKERS: RefCell<[Packer; 2]> =
        RefCell::new([0, 1].map(|level| Packer::new(Level::new(level).unwrap())));
    static UNPACKER: RefCell<Unpacker> = RefCell::new(Unpacker::new());
}

static KEYS: LazyLock<NamingKeys> = LazyLock::new(NamingKeys::public);
static SEALER: LazyLock<Sealer> =
    LazyLock::new(|| Sealer::new(ContentSecret::derive(&Secret::new([1; 32]), 7), 7));

fn round_trip(sealer: &Sealer, level: usize, plain: &[u8], unpacker: &mut Unpacker) -> SealedChunk {
    let chunk = PlainChunk::data(&KEYS, plain.to_vec());
    let packed = PACKERS.with_borrow_mut(|packers| packers[level].pack(&chunk));
    let sealed = sealer.seal(&packed);
    let reference = sealer.reference(&sealed, chunk.hash(), plain.len());
    assert_eq!(sealer.open(&KEYS, unpacker, &reference, &sealed), Ok(chunk));
    sealed
}

fn foreign(bytes: &[u8], unpacker: &mut Unpacker) {
    let found = SealedChunk::found(bytes.to_vec());
    let header = SealHeader::decode(bytes);
    assert!(SEALER.open_any(unpacker, &found).is_err(), "a tag was guessed");
    let plain_sealer = Sealer::plain();
    if let Ok((kind, plain)) = plain_sealer.open_any(unpacker, &found) {
        let header = header.expect("what opens has a header");
        assert_eq!(header.suite, Suite::Plain);
        assert_eq!(header.sealed_len(), bytes.len());
        assert!(plain.len() <= MAX_CHUNK_LEN);
        // Codec 0: stored.
        assert!(bytes[3] != 0 || plain == bytes[SEAL_HEADER_LEN + 8..]);
        let want = plain_sealer.reference(&found, KEYS.content_hash(&plain), plain.len());
        let opens = plain_sealer.open(&KEYS, unpacker, &want, &found).is_ok();
        assert_eq!(opens, kind == ChunkKind::Data);
        assert!(plain_sealer.open_node(&KEYS, unpacker, &want, &found).is_err());
        let len = plain.len();
        if let Ok(node) = Node::decode(plain) {
            let want = plain_sealer.reference(&found, node.content_hash(&KEYS), len);
            let opens = plain_sealer.open_node(&KEYS, unpacker, &want, &found).is_ok();
            assert_eq!(opens, kind == ChunkKind::Node);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    UNPACKER.with_borrow_mut(|unpacker| {
        foreign(input, unpacker);
        let Some(([level, at, flip, _], plain)) = input.split_first_chunk::<4>() else { return };
        let level = usize::from(level % 2);
        round_trip(&Sealer::plain(), level, plain, unpacker);
        let sealed = round_trip(&SEALER, level, plain, unpacker);
        let mut bytes = sealed.bytes().to_vec();
        let at = usize::from(*at) % bytes.len();
        bytes[at] ^= *flip;
        let opens = SEALER.open_any(unpacker, &SealedChunk::found(bytes)).is_ok();
        assert_eq!(opens, *flip == 0);
    });
});

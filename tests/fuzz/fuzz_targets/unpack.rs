//! Unpacking gives exactly the declared length or an error, whatever the
//! bytes; stored bytes come back as they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use warp_format::codec::{Codec, Unpacker};
use warp_format::limits::MAX_CHUNK_LEN;

thread_local! {
    static UNPACKER: RefCell<Unpacker> = RefCell::new(Unpacker::new());
}

fuzz_target!(|input: &[u8]| {
    let Some(([codec, a, b, c], packed)) = input.split_first_chunk::<4>() else { return };
    let codec = [Codec::Store, Codec::Lz4, Codec::Zstd][usize::from(*codec) % 3];
    let len = u32::from_le_bytes([*a, *b, *c, 0]);
    UNPACKER.with_borrow_mut(|unpacker| {
        if let Ok(plain) = unpacker.unpack(codec, len, packed) {
            assert!(plain.len() == len as usize && plain.len() <= MAX_CHUNK_LEN);
            assert!(codec != Codec::Store || plain == packed);
        }
        // What was refused leaves the context fit for the next chunk.
        assert_eq!(unpacker.unpack(Codec::Zstd, 5, FRAME).as_deref(), Ok(&b"hello"[..]));
    });
});

/// A zstd frame of `hello` with one raw block: magic, descriptor (single
/// segment), content size, block header (last, raw, 5 bytes), block.
const FRAME: &[u8] = b"\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello";

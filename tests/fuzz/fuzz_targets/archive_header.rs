//! What decodes as a header, a frame or an index entry encodes to the same
//! bytes; any bytes of a lawful length are framed so that the frame is theirs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::archive::{FRAME_LEN, Frame, HEADER_LEN, Header, INDEX_ENTRY_LEN, IndexEntry};
use warp_format::{SEAL_HEADER_LEN, SealedChunk};

fn check(bytes: &[u8]) {
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(header.encode(), bytes[..HEADER_LEN]);
    }
}

fuzz_target!(|input: &[u8]| {
    check(input);
    // Once more with a right checksum, so that what it covers is read.
    if let Some(bytes) = input.first_chunk::<HEADER_LEN>() {
        let mut bytes = *bytes;
        let sum = blake3::hash(&bytes[..HEADER_LEN - 32]);
        bytes[HEADER_LEN - 32..].copy_from_slice(sum.as_bytes());
        check(&bytes);
    }
    if let Ok(frame) = Frame::decode(input) {
        assert_eq!(frame.encode(), input[..FRAME_LEN]);
    }
    if input.len() >= SEAL_HEADER_LEN {
        let sealed = SealedChunk::found(input.to_vec());
        let frame = Frame::of(&sealed);
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        let entry = IndexEntry::new(&sealed.id(), 272, input.len() as u32);
        assert!(frame.is_for(&sealed.id()) && frame.agrees_with(&entry));
    }
    if let Some(bytes) = input.first_chunk::<INDEX_ENTRY_LEN>()
        && let Ok(entry) = IndexEntry::decode(bytes)
    {
        assert_eq!(entry.encode(), *bytes);
    }
});

//! What decodes as a header encodes to the same 256 bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::archive::{FRAME_LEN, HEADER_LEN, Header, INDEX_ENTRY_LEN, IndexEntry};
use warp_format::archive::{frame, read_frame};

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
    if let Ok(len) = read_frame(input) {
        assert_eq!(frame(len), input[..FRAME_LEN]);
    }
    if let Some(bytes) = input.first_chunk::<INDEX_ENTRY_LEN>()
        && let Ok(entry) = IndexEntry::decode(bytes)
    {
        assert_eq!(entry.encode(), *bytes);
    }
});

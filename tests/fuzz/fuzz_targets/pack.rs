//! What decodes as a pack header or a pack index encodes to the same bytes;
//! the places in an index are in order and within the pack.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::pack::{Class, PACK_HEADER_LEN, PackHeader, PackIndex};

fn check_header(bytes: &[u8]) {
    if let Ok(header) = PackHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..PACK_HEADER_LEN]);
        assert_eq!(Class::from_word(header.class.word()), Some(header.class));
    }
}

fn check_index(bytes: &[u8]) {
    if let Ok(index) = PackIndex::decode(bytes) {
        assert_eq!(index.encode(), bytes);
        let mut end = PACK_HEADER_LEN as u64;
        for (_, place) in &index.entries {
            assert!(place.offset >= end);
            end = place.offset + u64::from(place.len);
        }
        assert!(index.entries.is_empty() || end <= index.pack_len);
    }
}

fuzz_target!(|input: &[u8]| {
    check_header(input);
    check_index(input);
    // Once more with right checksums, so that what they cover is read.
    if let Some(bytes) = input.first_chunk::<PACK_HEADER_LEN>() {
        let mut bytes = *bytes;
        let check = blake3::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&check.as_bytes()[..16]);
        check_header(&bytes);
    }
    check_index(&[input, blake3::hash(input).as_bytes()].concat());
});

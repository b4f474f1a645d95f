//! What decodes as an entry of the dedup log encodes to the same bytes, each
//! part lies within its chunk, and entries joined are a list joined.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::dedup::{decode_parts, encode_parts};

fuzz_target!(|input: &[u8]| {
    if let Ok(list) = decode_parts(input) {
        assert_eq!(encode_parts(&list), input);
        for parts in &list {
            let end = |start: u32, len: u32| u64::from(start) + u64::from(len);
            let inside = |start, len| end(start, len) <= u64::from(parts.chunk.len);
            assert!(parts.parts.iter().all(|part| inside(part.start, part.len)));
        }
        let twice = decode_parts(&[input, input].concat()).expect("each half decodes");
        assert_eq!(twice, [list.clone(), list.clone()].concat());
        // A cut falls between two chunks, or is noticed.
        let cut = input.len() / 2;
        if let Ok(first) = decode_parts(&input[..cut]) {
            assert_eq!(first, list[..first.len()]);
        }
    }
});

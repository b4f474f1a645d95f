//! What decodes as changes encodes to the same bytes, and nothing may follow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::change::{decode_changes, encode_changes};

fuzz_target!(|input: &[u8]| {
    if let Ok(changes) = decode_changes(input) {
        assert_eq!(encode_changes(&changes), input);
        assert!(decode_changes(&[input, &[0]].concat()).is_err());
        assert!(decode_changes(&input[..input.len() - 1]).is_err());
    }
});

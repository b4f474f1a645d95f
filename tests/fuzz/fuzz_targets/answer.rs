//! What decodes as an answer has one encoding and a length within its limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::limits::MAX_SEALED_LEN;
use warp_format::wire::Answer;

fuzz_target!(|bytes: [u8; Answer::LEN]| {
    if let Ok(answer) = Answer::decode(&bytes) {
        assert_eq!(answer.encode(), bytes);
        if let Answer::Found { len } = answer {
            assert!((1..=MAX_SEALED_LEN).contains(&(len as usize)));
        }
    }
});

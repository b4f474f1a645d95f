//! What decodes as a frame is within its limits and encodes to what decodes
//! the same; what a peer says it holds is remembered within bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::limits::{MAX_HELD_PRINTS, MAX_LISTED_IDS, MAX_NAME_LEN, MAX_REQUEST_IDS, MAX_WHOLE_ROOTS};
use warp_format::wire::{Frame, Have, Header, Held};

fn decode(bytes: &[u8]) -> Option<Frame> {
    let (header, rest) = bytes.split_first_chunk::<{ Header::LEN }>()?;
    let header = Header::decode(header).ok()?;
    Frame::decode(header, rest.get(..header.rest())?).ok()
}

fuzz_target!(|input: &[u8]| {
    let _ = decode(input);
    // Once more with the length, version and kind that let the body be read.
    let Some((kind, body)) = input.split_first() else { return };
    let mut bytes = (body.len() as u32 + 2).to_le_bytes().to_vec();
    bytes.extend_from_slice(&[1, kind % 17]);
    bytes.extend_from_slice(body);
    let Some(frame) = decode(&bytes) else { return };
    match &frame {
        Frame::Request(request) => {
            assert!((1..=MAX_REQUEST_IDS).contains(&request.ids.len()));
        }
        Frame::Listed(listed) => assert!(listed.ids.len() <= MAX_LISTED_IDS),
        Frame::Redeem(redeem) => {
            assert!(redeem.name.len() <= MAX_NAME_LEN);
            assert!(redeem.verify(&[0; 32], &redeem.invite).is_err(), "a signature was guessed");
        }
        Frame::Have { have: Have::Whole { roots }, .. } => assert!(roots.len() <= MAX_WHOLE_ROOTS),
        Frame::Have { have, .. } => {
            let mut held = Held::default();
            let _ = held.hear(have.clone());
            let _ = held.hear(have.clone());
            assert!(held.len() <= MAX_HELD_PRINTS);
        }
        _ => {}
    }
    let again = frame.encode().expect("what was read can be written");
    assert_eq!(decode(&again), Some(frame));
});

//! What opens as a head is signed by the device it names and signs to the
//! same bytes.
#![no_main]

use ed25519_dalek::Signer;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use warp_format::keys::SigningKey;
use warp_format::{Head, Secret};

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_seed(&Secret::new([8; 32])));
static RAW: LazyLock<ed25519_dalek::SigningKey> =
    LazyLock::new(|| ed25519_dalek::SigningKey::from_bytes(&[8; 32]));

fuzz_target!(|input: &[u8]| {
    if let Ok(head) = Head::open(input) {
        assert_eq!(head.device, KEY.device_id(), "a signature was guessed");
    }
    // Once more signed, as a lying member can: version, portal, device, rest.
    let Some((start, rest)) = input.split_first_chunk::<33>() else { return };
    let body = [start, KEY.device_id().as_bytes().as_slice(), rest].concat();
    let digest = blake3::derive_key("warp v1 head signature", &body);
    let signed = [body.as_slice(), &RAW.sign(&digest).to_bytes()].concat();
    if let Ok(head) = Head::open(&signed) {
        assert!(head.sequence > 0 && head.seen.is_sorted());
        assert_eq!(head.sign(&KEY), signed);
    }
});

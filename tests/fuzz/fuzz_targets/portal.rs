//! Foreign bytes never open as a portal record, a sealed record comes back
//! under its key only, and what opens seals to the same bytes.
#![no_main]

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use libfuzzer_sys::fuzz_target;
use warp_format::portal::{MAX_PORTAL_NAME_LEN, PortalKey, PortalRecord};
use warp_format::{PortalId, Secret};

const KEY: [u8; 32] = [9; 32];
const NONCE: [u8; 24] = [4; 24];
const HEAD: &[u8] = b"\x93WARPptl\x01\0\0\0";

/// A record with this body, as only one who has the key can make it.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let tag = XChaCha20Poly1305::new(&Key::from(KEY))
        .encrypt_inout_detached(&XNonce::from(NONCE), HEAD, body.as_mut_slice().into())
        .expect("far below the cipher's limit");
    [HEAD, &NONCE, &body, &tag].concat()
}

fuzz_target!(|input: &[u8]| {
    let key = Secret::new(KEY);
    assert!(PortalRecord::open(input, &key).is_err(), "a tag was guessed");
    assert!(PortalRecord::open(&[HEAD, input].concat(), &key).is_err(), "a tag was guessed");

    // Once more under a right tag, so that what it covers is read.
    let bytes = sealed(input);
    if let Ok(record) = PortalRecord::open(&bytes, &key) {
        assert!(record.name.len() <= MAX_PORTAL_NAME_LEN);
        assert_eq!(record.seal(&key, NONCE).expect("it was sealed before"), bytes);
    }

    let Some(([at, flip], rest)) = input.split_first_chunk::<2>() else { return };
    let Some((secrets, name)) = rest.split_first_chunk::<96>() else { return };
    let Ok(name) = std::str::from_utf8(&name[..name.len().min(MAX_PORTAL_NAME_LEN)]) else {
        return;
    };
    if name.is_empty() {
        return;
    }
    let part = |at: usize| secrets[at..at + 32].try_into().expect("32 bytes");
    let record = PortalRecord {
        id: PortalId(part(0)),
        name: name.to_owned(),
        key: if at % 2 == 0 {
            PortalKey::Root(Secret::new(part(32)))
        } else {
            PortalKey::Access(Secret::new(part(32)))
        },
        local: Secret::new(part(64)),
        quota: std::num::NonZeroU64::new(u64::from(*at) << 32),
    };
    let mut bytes = record.seal(&key, NONCE).expect("a name within its limit");
    let again = PortalRecord::open(&bytes, &key).expect("sealed under this key");
    assert_eq!((again.id, &again.name), (record.id, &record.name));
    assert_eq!(again.quota, record.quota);
    assert_eq!(again.key.root().is_some(), at % 2 == 0);
    assert_eq!(again.key.access().expose(), record.key.access().expose());
    assert_eq!(again.local.expose(), record.local.expose());
    assert!(PortalRecord::open(&bytes, &Secret::new([8; 32])).is_err());
    assert!(PortalRecord::open(&bytes[..bytes.len() - 1], &key).is_err());
    let place = usize::from(*at) * bytes.len() / 256;
    bytes[place] ^= flip;
    assert_eq!(PortalRecord::open(&bytes, &key).is_ok(), *flip == 0);
});

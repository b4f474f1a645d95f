//! What opens as a keyring encodes to the same bytes; a keyring comes back
//! open and sealed; foreign bytes never open under a passphrase.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::keys::ArgonCost;
use warp_format::limits::{MAX_ARGON_LANES, MAX_ARGON_MEMORY_KIB, MAX_ARGON_PASSES};
use warp_format::{FormatError, Keyring, KeyringRandom, Secret};

const CHEAP: ArgonCost = ArgonCost { memory_kib: 8, passes: 1, lanes: 1 };

fn check(bytes: &[u8]) {
    let sealed = Keyring::is_sealed(bytes);
    match Keyring::open(bytes, None) {
        Ok(keyring) => {
            assert_eq!(sealed, Ok(false));
            assert_eq!(keyring.encode()[..], *bytes);
        }
        Err(FormatError::Locked) => assert_eq!(sealed, Ok(true)),
        Err(e) => assert!(sealed.is_ok() || sealed == Err(e)),
    }
    if sealed == Ok(true) && no_hard_work(bytes) {
        assert!(Keyring::open(bytes, Some(b"p")).is_err(), "a passphrase was guessed");
    }
}

/// Opening stretches the passphrase little, or refuses the cost.
fn no_hard_work(bytes: &[u8]) -> bool {
    let Some(cost) = bytes.get(12..24) else { return true };
    let number = |at: usize| u32::from_le_bytes(cost[at..at + 4].try_into().expect("four bytes"));
    let (memory, passes, lanes) = (number(0), number(4), number(8));
    let refused =
        memory > MAX_ARGON_MEMORY_KIB || passes > MAX_ARGON_PASSES || lanes > MAX_ARGON_LANES;
    refused || (memory <= 256 && passes <= 2)
}

fuzz_target!(|input: &[u8]| {
    check(input);
    // Once more with a right checksum, so that what it covers is read.
    check(&[input, blake3::hash(input).as_bytes()].concat());

    let Some(([entropy, device, file_key], rest)) = split(input) else { return };
    let keyring = Keyring::new(entropy, device).expect("any 32 bytes are a phrase");
    let open = keyring.encode();
    check(&open);
    let random = KeyringRandom { file_key, salt: [4; 16], nonce: [5; 24] };
    let sealed = keyring.seal(rest, CHEAP, &random).expect("the cost is lawful");
    assert_eq!(Keyring::is_sealed(&sealed), Ok(true));
    let again = Keyring::open(&sealed, Some(rest)).expect("sealed under this passphrase");
    assert_eq!(again.encode(), open);
});

fn split(input: &[u8]) -> Option<([Secret; 3], &[u8])> {
    let (secrets, rest) = input.split_first_chunk::<96>()?;
    let secret = |at: usize| Secret::new(secrets[at..at + 32].try_into().expect("32 bytes"));
    Some(([secret(0), secret(32), secret(64)], rest))
}

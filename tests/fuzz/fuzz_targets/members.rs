//! Foreign bytes open as a membership chain only if each step was signed by
//! who could make it; what opens comes back from its own bytes, record by
//! record; and nothing that is told later makes a chain shorter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_format::keys::SigningKey;
use warp_format::members::{Act, Capability, Chain};
use warp_format::wrap::{Handed, WrapKey};
use warp_format::{PortalId, Secret};

const PORTAL: PortalId = PortalId([9; 32]);

fn key() -> SigningKey {
    SigningKey::from_seed(&Secret::new([1; 32]))
}

fn known() -> Chain {
    let mut chain = Chain::found(&key(), PORTAL, "photos", "desk", [7; 32], 1000).expect("a chain");
    let invite = SigningKey::from_seed(&Secret::new([2; 32])).device_id();
    let act = Act::Invite {
        key: invite,
        capability: Capability::Reader,
        may_invite: false,
        expires: 5000,
        uses: 1,
    };
    chain.append(&key(), 1001, act).expect("an invite");
    chain
}

fuzz_target!(|input: &[u8]| {
    if let Ok(chain) = Chain::open(input) {
        assert_eq!(chain.bytes_from(0), input);
        for position in 0..=chain.len() {
            assert_eq!(chain.extended(chain.bytes_from(position)), Ok(None));
        }
    }
    let known = known();
    let whole = known.bytes_from(0);
    for position in 0..=known.len() {
        // What somebody tells after what is known, and in place of it.
        let from = known.bytes_from(position);
        let told = [from, input].concat();
        if let Ok(Some(longer)) = known.extended(&told) {
            assert!(longer.len() > known.len() && longer.bytes_from(0).starts_with(whole));
        }
    }
    let device = WrapKey::of_device(&Secret::new([3; 32]));
    assert!(Handed::unwrap(input, &PORTAL, &device).is_err(), "a tag was guessed");
});

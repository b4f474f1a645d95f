use super::*;
use crate::keys::Secret;

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::new([n; 32]))
}

fn founded() -> Chain {
    Chain::found(&key(1), PortalId([9; 32]), "photos", "desk", [7; 32], 1000).unwrap()
}

fn invite(n: u8, capability: Capability, may_invite: bool, uses: u32) -> Act {
    let key = key(n).device_id();
    Act::Invite { key, capability, may_invite, expires: 5000, uses }
}

fn add(device: u8, invite: u8) -> Act {
    let (device, invite) = (key(device).device_id(), key(invite).device_id());
    Act::Add { device, wrap_key: [3; 32], name: "phone".into(), invite, handed: vec![1, 2, 3] }
}

/// A founder (1), and a member (2) who came by an invite (100).
fn with_member(capability: Capability, may_invite: bool) -> Chain {
    let mut chain = founded();
    chain.append(&key(1), 1000, invite(100, capability, may_invite, 1)).unwrap();
    chain.append(&key(1), 1001, add(2, 100)).unwrap();
    chain
}

#[test]
fn a_chain_comes_back_and_no_changed_byte_passes() {
    let mut chain = with_member(Capability::Reader, false);
    let device = key(2).device_id();
    chain.append(&key(1), 1002, Act::Expire { device, at: Some(9000) }).unwrap();
    chain.append(&key(1), 1003, Act::Remove { device, last: 4 }).unwrap();
    chain.append(&key(1), 1004, Act::CloseInvites).unwrap();
    let bytes = chain.bytes_from(0).to_vec();
    assert_eq!(Chain::open(&bytes), Ok(chain.clone()));
    for i in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[i] ^= 1;
        assert!(Chain::open(&bad).is_err(), "byte {i}");
        // Cut between two records it is a shorter chain.
        let cut = Chain::open(&bytes[..i]);
        assert_eq!(cut.is_ok(), chain.ends.contains(&i), "cut at {i}");
    }
}

#[test]
fn an_invite_is_redeemed_as_often_as_it_says_and_not_after_its_time() {
    let mut chain = founded();
    chain.append(&key(1), 1000, invite(100, Capability::Reader, false, 2)).unwrap();
    let by = key(100).device_id();
    assert_eq!(chain.good_invite(&key(50).device_id(), 0).err(), Some(NotGood::Unknown));
    let over = 5000 + EXPIRY_TOLERANCE_SECS;
    assert_eq!(chain.good_invite(&by, over).err(), Some(NotGood::Expired));
    assert!(chain.append(&key(1), over, add(2, 100)).is_err());
    chain.append(&key(1), over - 1, add(2, 100)).unwrap();
    chain.append(&key(1), 4000, add(3, 100)).unwrap();
    assert_eq!(chain.good_invite(&by, 1000).err(), Some(NotGood::Used));
    assert!(chain.append(&key(1), 4000, add(4, 100)).is_err());
    chain.append(&key(1), 1000, invite(101, Capability::Reader, false, 1)).unwrap();
    assert_eq!(chain.open_invites(1000), 1);
    chain.append(&key(1), 1000, Act::CloseInvites).unwrap();
    assert_eq!(chain.good_invite(&key(101).device_id(), 1000).err(), Some(NotGood::Closed));
}

#[test]
fn who_is_removed_or_expired_is_not_admitted_and_old_heads_count() {
    let mut chain = with_member(Capability::Writer, false);
    let device = key(2).device_id();
    assert!(chain.admits(&device, u64::MAX) && chain.may_publish(&device, u64::MAX));
    chain.append(&key(1), 1002, Act::Expire { device, at: Some(9000) }).unwrap();
    assert!(chain.admits(&device, 9000) && !chain.admits(&device, 9000 + EXPIRY_TOLERANCE_SECS));
    chain.append(&key(1), 1003, Act::Remove { device, last: 4 }).unwrap();
    assert!(!chain.admits(&device, 0));
    assert!(chain.may_publish(&device, 4) && !chain.may_publish(&device, 5));
    assert!(!chain.may_publish(&key(3).device_id(), 1));
    // Removed once more, or expired: it is no member.
    assert!(chain.append(&key(1), 1004, Act::Remove { device, last: 9 }).is_err());
    // It may be invited again.
    chain.append(&key(1), 1004, invite(101, Capability::Reader, false, 1)).unwrap();
    chain.append(&key(1), 1005, add(2, 101)).unwrap();
    assert!(chain.admits(&device, 1005) && !chain.may_publish(&device, 1));
}

#[test]
fn nobody_gives_what_they_lack_and_the_founder_stays() {
    let admin_acts = |device| {
        [Act::Remove { device, last: 0 }, Act::Expire { device, at: Some(1) }, Act::CloseInvites]
    };
    for capability in Capability::ALL_FOR_TESTS {
        for may_invite in [false, true] {
            let chain = with_member(capability, may_invite);
            let is_admin = capability == Capability::Admin;
            for given in Capability::ALL_FOR_TESTS {
                for further in [false, true] {
                    let mut next = chain.clone();
                    let done = next.append(&key(2), 1100, invite(200, given, further, 1));
                    let may = is_admin || (may_invite && given <= capability && !further);
                    assert_eq!(
                        done.is_ok(),
                        may,
                        "{capability:?} {may_invite} {given:?} {further}"
                    );
                }
            }
            for act in admin_acts(key(1).device_id()) {
                let ends_all = act == Act::CloseInvites;
                let done = chain.clone().append(&key(2), 1100, act);
                assert_eq!(done.is_ok(), is_admin && ends_all, "the founder stays");
            }
        }
    }
    // A stranger, and one who was a member.
    let mut chain = with_member(Capability::Admin, true);
    assert!(chain.append(&key(5), 1100, Act::CloseInvites).is_err());
    chain.append(&key(1), 1100, Act::Remove { device: key(2).device_id(), last: 0 }).unwrap();
    assert!(chain.append(&key(2), 1100, Act::CloseInvites).is_err());
}

#[test]
fn a_chain_grows_by_what_follows_it_and_by_nothing_else() {
    let short = founded();
    let long = with_member(Capability::Reader, false);
    for from in 0..=short.len() {
        assert_eq!(short.extended(long.bytes_from(from)), Ok(Some(long.clone())), "{from}");
    }
    assert_eq!(long.extended(short.bytes_from(0)), Ok(None));
    assert_eq!(long.extended(long.bytes_from(1)), Ok(None));
    assert_eq!(long.extended(&[]), Ok(None));
    // A gap.
    assert!(short.extended(long.bytes_from(2)).is_err());
    // Another one at the same place.
    let mut other = founded();
    other.append(&key(1), 1000, invite(150, Capability::Reader, false, 1)).unwrap();
    let forked = Err(FormatError::Forked { at: AT });
    assert_eq!(long.extended(other.bytes_from(0)), forked);
    assert_eq!(long.extended(other.bytes_from(1)), forked);
    // A record in the wrong place.
    let mut wrong = short.bytes_from(0).to_vec();
    wrong.extend_from_slice(long.bytes_from(2));
    assert!(Chain::open(&wrong).is_err());
}

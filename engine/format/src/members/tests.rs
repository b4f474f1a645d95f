use super::*;
use crate::keys::Secret;
use crate::limits::{MAX_READERS, MAX_RECORD_LEN};
use crate::wrap::{Handed, WrapKey};

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

/// A rotation, its secret of the byte `n`.
fn rotation(chain: &Chain, n: u8) -> Act {
    let mut count = 0;
    let fresh = || -> Result<Secret> {
        count += 1;
        Ok(Secret::new([100 + count; 32]))
    };
    chain.rotation(&Secret::new([n; 32]), fresh).unwrap()
}

fn wrap_key(n: u8) -> WrapKey {
    WrapKey::of_device(&Secret::new([n; 32]))
}

/// A founder (1), a reader (2) and a custodian (3), with wrap keys of theirs.
fn with_wrap_keys() -> Chain {
    let wrap = wrap_key(1).public();
    let mut chain = Chain::found(&key(1), PortalId([9; 32]), "photos", "desk", wrap, 1000).unwrap();
    for (n, capability) in [(2, Capability::Reader), (3, Capability::Custodian)] {
        chain.append(&key(1), 1000, invite(100 + n, capability, false, 9)).unwrap();
        join(&mut chain, n, vec![]);
    }
    chain
}

fn join(chain: &mut Chain, n: u8, epochs: Vec<(u32, Secret)>) {
    let root = (n != 3).then(|| Secret::new([6; 32]));
    let handed = Handed { access: Secret::new([5; 32]), root, epochs };
    let wrap = wrap_key(n).public();
    let fresh = Secret::new([200 + n; 32]);
    let handed = handed.wrap(&chain.portal(), &wrap, &fresh).unwrap();
    let (device, invite) = (key(n).device_id(), key(100 + n).device_id());
    let act = Act::Add { device, wrap_key: wrap, name: format!("n{n}"), invite, handed };
    chain.append(&key(1), 1000, act).unwrap();
}

fn secrets(chain: &Chain, n: u8) -> Vec<(u32, u8)> {
    let secrets = chain.secrets_of(&key(n).device_id(), &wrap_key(n)).unwrap();
    secrets.iter().map(|(epoch, secret)| (*epoch, secret.expose()[0])).collect()
}

#[test]
fn a_rotation_hands_its_secret_to_who_reads_and_to_nobody_else() {
    let mut chain = with_wrap_keys();
    assert_eq!(chain.epoch(), 0);
    let (reader, act) = (key(2).device_id(), rotation(&chain, 11));
    chain.append(&key(1), 1001, act).unwrap();
    assert_eq!(chain.epoch(), 1);
    assert_eq!((secrets(&chain, 1), secrets(&chain, 2)), (vec![(1, 11)], vec![(1, 11)]));
    assert_eq!(secrets(&chain, 3), vec![]);
    chain.append(&key(1), 1002, Act::Remove { device: reader, last: 0 }).unwrap();
    let act = rotation(&chain, 12);
    chain.append(&key(1), 1003, act).unwrap();
    assert_eq!(secrets(&chain, 1), vec![(1, 11), (2, 12)]);
    assert_eq!(secrets(&chain, 2), vec![(1, 11)], "what it had stays");
    // It comes again, and is handed all there is.
    join(&mut chain, 2, vec![(1, Secret::new([11; 32])), (2, Secret::new([12; 32]))]);
    let act = rotation(&chain, 13);
    chain.append(&key(1), 1004, act).unwrap();
    assert_eq!(secrets(&chain, 2), vec![(1, 11), (2, 12), (3, 13)]);
    assert_eq!(secrets(&chain, 1), secrets(&chain, 2));
    // Another's key opens none.
    assert!(chain.secrets_of(&reader, &wrap_key(1)).is_err());
    let bytes = chain.bytes_from(0).to_vec();
    assert_eq!(Chain::open(&bytes), Ok(chain));
    assert!(!bytes.windows(8).any(|w| [[11; 8], [12; 8], [13; 8]].iter().any(|s| w == s)));
}

#[test]
fn a_rotation_is_an_admins_and_for_all_who_read_and_the_next() {
    let chain = with_wrap_keys();
    let act = rotation(&chain, 11);
    let not_allowed = Err(FormatError::NotAllowed { at: AT });
    for who in [2, 3, 7] {
        assert_eq!(chain.clone().append(&key(who), 1001, act.clone()), not_allowed, "{who}");
    }
    let Act::Rotate { wraps, .. } = act.clone() else { panic!("a rotation") };
    let invalid = Err(FormatError::Invalid { at: AT });
    let refuse = |epoch, wraps: Vec<_>| {
        let done = chain.clone().append(&key(1), 1001, Act::Rotate { epoch, wraps });
        assert_eq!(done, invalid);
    };
    for epoch in [0, 2, 3] {
        refuse(epoch, wraps.clone());
    }
    refuse(1, vec![]);
    refuse(1, wraps[..1].to_vec());
    refuse(1, wraps.iter().rev().copied().collect());
    refuse(1, [wraps[0], wraps[0]].to_vec());
    let custodian = (key(3).device_id(), wraps[0].1);
    let mut more = [wraps.as_slice(), &[custodian]].concat();
    more.sort_unstable();
    refuse(1, more);
    let mut next = chain.clone();
    next.append(&key(1), 1001, act.clone()).unwrap();
    assert_eq!(next.append(&key(1), 1002, act), invalid, "twice the same");
}

#[test]
fn a_rotation_has_its_bounds_and_the_longest_fits() {
    let wraps = |count: usize| {
        let device = |n: usize| DeviceId(*blake3::hash(&n.to_le_bytes()).as_bytes());
        (0..count).map(|n| (device(n), [1; 80])).collect::<Vec<_>>()
    };
    let record = |epoch, count| {
        let act = Act::Rotate { epoch, wraps: wraps(count) };
        let (signer, position, time) = (key(1).device_id(), MAX_RECORDS as u64, u64::MAX);
        Record { position, before: [7; 32], signer, time, act }
    };
    let longest = record(u32::MAX, MAX_READERS).sign(&key(1)).unwrap();
    assert!(longest.len() <= MAX_RECORD_LEN);
    assert_eq!(Record::open_first(&longest).unwrap().0, record(u32::MAX, MAX_READERS));
    let limit = MAX_READERS as u64;
    let refused = FormatError::Limit { at: "members who read", value: limit + 1, limit };
    assert_eq!(record(1, MAX_READERS + 1).sign(&key(1)), Err(refused));
    // A usual portal can rotate as often as may be.
    let mut chain = with_wrap_keys();
    for n in 1..=MAX_EPOCHS {
        let act = rotation(&chain, n as u8);
        chain.append(&key(1), 1001, act).unwrap();
    }
    let limit = MAX_EPOCHS as u64;
    let refused = Err(FormatError::Limit { at: "removals of members", value: limit + 1, limit });
    let act = rotation(&chain, 1);
    assert_eq!(chain.append(&key(1), 1001, act), refused);
}

#[test]
fn the_bytes_of_a_chain_are_pinned() {
    let mut chain = with_member(Capability::Reader, false);
    chain.append(&key(1), 1002, Act::CloseInvites).unwrap();
    let hash = blake3::hash(chain.bytes_from(0)).to_hex();
    assert_eq!(hash.as_str(), "7f657ce702d1abb26cb5091703d8515b8fa6a10689453d76da44f705913511fc");
}

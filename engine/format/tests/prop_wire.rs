//! Frames come back as they were sent, and no bytes make a decoder panic,
//! reserve what is not there, or take more than a limit.

use proptest::collection::vec;
use proptest::prelude::*;
use warp_format::keys::SigningKey;
use warp_format::members::Capability;
use warp_format::wire::{
    Answer, Change, Changed, Denied, Frame, Have, Header, Held, Listed, Prints, Redeem, Request,
    Unchanged,
};
use warp_format::{ChunkId, DeviceId, Secret};

fn id() -> impl Strategy<Value = ChunkId> {
    any::<[u8; 32]>().prop_map(ChunkId)
}

fn prints() -> impl Strategy<Value = Prints> {
    (24..=48u8, any::<[u8; 32]>(), vec(any::<u32>(), 1..500)).prop_map(|(bits, salt, numbers)| {
        let ids = numbers.into_iter().map(|n| ChunkId::of(&n.to_le_bytes()));
        Prints::of(&salt, bits, ids).remove(0)
    })
}

fn have() -> impl Strategy<Value = Have> {
    prop_oneof![
        vec(id(), 0..256).prop_map(|roots| Have::Whole { roots }),
        Just(Have::Forget),
        prints().prop_map(Have::Added),
        prints().prop_map(Have::Removed),
    ]
}

fn redeem() -> impl Strategy<Value = Frame> {
    (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 32]>(), "\\PC{0,60}").prop_map(
        |(exporter, device, wrap, name)| {
            let invite = SigningKey::from_seed(&Secret::new([5; 32]));
            Frame::Redeem(Redeem::sign(&invite, &exporter, &DeviceId(device), wrap, &name))
        },
    )
}

fn frame() -> impl Strategy<Value = Frame> {
    let bytes = || vec(any::<u8>(), 0..2000);
    let why = prop_oneof![
        Just(Denied::Expired),
        Just(Denied::Used),
        Just(Denied::Revoked),
        Just(Denied::Unknown)
    ];
    let opening =
        (any::<u32>(), any::<[u8; 32]>(), 0..3u8).prop_map(|(session, proof, kind)| match kind {
            0 => Frame::Hello { session, proof },
            1 => Frame::Accepted { session, proof },
            _ => Frame::Unknown { session, proof },
        });
    prop_oneof![
        opening,
        any::<u32>().prop_map(|session| Frame::Refused { session }),
        any::<u32>().prop_map(|session| Frame::Left { session }),
        (any::<u32>(), bytes()).prop_map(|(session, head)| Frame::Head { session, head }),
        (any::<u32>(), any::<u64>())
            .prop_map(|(session, from)| Frame::AskMembers { session, from }),
        (any::<u32>(), bytes()).prop_map(|(session, records)| Frame::Members { session, records }),
        (any::<u32>(), have()).prop_map(|(session, have)| Frame::Have { session, have }),
        redeem(),
        bytes().prop_map(|members| Frame::Welcome { members }),
        why.prop_map(|why| Frame::Denied { why }),
        (any::<u32>(), any::<bool>(), vec(id(), 1..=64)).prop_map(|(session, urgent, ids)| {
            Frame::Request(Request { session, urgent, ids })
        }),
        (any::<u32>(), any::<u64>()).prop_map(|(session, after)| Frame::List { session, after }),
        (any::<u64>(), vec(id(), 0..100))
            .prop_map(|(next, ids)| Frame::Listed(Listed { next, ids })),
        (any::<u32>(), change()).prop_map(|(session, change)| Frame::Change { session, change }),
        any::<u64>().prop_map(|invites| Frame::Changed(Changed::Done { invites })),
        Just(Frame::Changed(Changed::Unchanged { why: Unchanged::NotAllowed })),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let device = || any::<[u8; 32]>().prop_map(DeviceId);
    let capability = prop_oneof![
        Just(Capability::Custodian),
        Just(Capability::Reader),
        Just(Capability::Writer),
        Just(Capability::Admin)
    ];
    let numbers = (any::<u64>(), any::<u32>(), any::<bool>());
    prop_oneof![
        (device(), capability, numbers).prop_map(
            |(key, capability, (expires, uses, may_invite))| {
                Change::Invite { key, capability, may_invite, expires, uses }
            }
        ),
        device().prop_map(|device| Change::Remove { device }),
        (device(), any::<Option<u64>>()).prop_map(|(device, at)| Change::Expire { device, at }),
        Just(Change::CloseInvites),
    ]
}

fn decode(bytes: &[u8]) -> Option<Frame> {
    let (header, rest) = bytes.split_first_chunk::<{ Header::LEN }>()?;
    let header = Header::decode(header).ok()?;
    Frame::decode(header, rest.get(..header.rest())?).ok()
}

proptest! {
    #[test]
    fn frames_come_back(frame in frame()) {
        let bytes = frame.encode().unwrap();
        prop_assert_eq!(decode(&bytes), Some(frame));
    }

    #[test]
    fn what_decodes_of_any_bytes_encodes_to_what_decodes_the_same(
        kind in 0..14u8, body in vec(any::<u8>(), 0..400),
    ) {
        let mut bytes = (body.len() as u32 + 2).to_le_bytes().to_vec();
        bytes.extend_from_slice(&[1, kind]);
        bytes.extend_from_slice(&body);
        if let Some(frame) = decode(&bytes) {
            prop_assert_eq!(decode(&frame.encode().unwrap()), Some(frame));
        }
    }

    #[test]
    fn one_changed_byte_never_panics(frame in frame(), at in any::<prop::sample::Index>(), to: u8) {
        let mut bytes = frame.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Some(Frame::Have { have, .. }) = decode(&bytes) {
            let _ = Held::default().hear(have);
        }
    }

    #[test]
    fn answers_come_back_or_are_refused(bytes in any::<[u8; Answer::LEN]>()) {
        if let Ok(answer) = Answer::decode(&bytes) {
            prop_assert_eq!(answer.encode(), bytes);
        }
    }

    #[test]
    fn what_is_said_to_be_held_is_found(
        numbers in vec(any::<u32>(), 1..300), salt in any::<[u8; 32]>(),
    ) {
        let ids: Vec<_> = numbers.iter().map(|n| ChunkId::of(&n.to_le_bytes())).collect();
        let bits = Prints::bits_for(ids.len());
        let mut held = Held::default();
        for part in Prints::of(&salt, bits, ids.iter().copied()) {
            let frame = Frame::Have { session: 1, have: Have::Added(part) };
            let Some(Frame::Have { have, .. }) = decode(&frame.encode().unwrap()) else {
                panic!("a have frame")
            };
            held.hear(have).unwrap();
        }
        prop_assert!(ids.iter().all(|id| held.has(&salt, id)));
    }
}

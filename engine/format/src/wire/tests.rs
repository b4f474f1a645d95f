use super::*;
use crate::limits::MAX_LISTED_IDS;
use crate::members::Capability;

fn decode(bytes: &[u8]) -> Result<Frame> {
    let at = "frame";
    let (header, rest) =
        bytes.split_first_chunk::<{ Header::LEN }>().ok_or(FormatError::Truncated { at })?;
    let header = Header::decode(header)?;
    let rest = rest.get(..header.rest()).ok_or(FormatError::Truncated { at })?;
    Frame::decode(header, rest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn redeem() -> Redeem {
    let invite = SigningKey::from_seed(&Secret::new([5; 32]));
    Redeem::sign(&invite, &[6; 32], &DeviceId([7; 32]), [8; 32], "laptop")
}

fn invite() -> Change {
    let (key, capability) = (DeviceId([7; 32]), Capability::Writer);
    Change::Invite { key, capability, may_invite: true, expires: 300, uses: 3 }
}

/// The bytes of every frame. They may not change within version 1.
#[test]
fn the_bytes_of_every_frame() {
    let b32 = |byte: &str| byte.repeat(32);
    let ids = [1u8, 2].map(|byte| ChunkId([byte; 32])).to_vec();
    let salt = [3; 32];
    let chunks = (0..3u8).map(|byte| ChunkId([byte; 32]));
    let prints = Prints::of(&salt, 24, chunks).remove(0);
    let cases = [
        (Frame::Hello { session: 300, proof: [9; 32] }, format!("240000000100ac02{}", b32("09"))),
        (Frame::Accepted { session: 1, proof: [9; 32] }, format!("23000000010101{}", b32("09"))),
        (Frame::Unknown { session: 1, proof: [9; 32] }, format!("23000000010201{}", b32("09"))),
        (Frame::Refused { session: 127 }, "0300000001037f".to_owned()),
        (Frame::Left { session: u32::MAX }, "070000000104ffffffff0f".to_owned()),
        (Frame::Head { session: 2, head: vec![0xaa, 0xbb] }, "0600000001050202aabb".to_owned()),
        (Frame::AskMembers { session: 2, from: 1000 }, "05000000010602e807".to_owned()),
        (Frame::Members { session: 2, records: vec![0xcc] }, "0500000001070201cc".to_owned()),
        (
            Frame::Have { session: 2, have: Have::Whole { roots: ids.clone() } },
            format!("450000000108020002{}{}", b32("01"), b32("02")),
        ),
        (Frame::Have { session: 2, have: Have::Forget }, "04000000010802 01".replace(' ', "")),
        (Frame::Have { session: 2, have: Have::Added(prints.clone()) }, HAVE_ADDED.to_owned()),
        (
            Frame::Have { session: 2, have: Have::Removed(prints) },
            HAVE_ADDED.replacen("080202", "080203", 1),
        ),
        (Frame::Redeem(redeem()), REDEEM.replace(' ', "")),
        (Frame::Welcome { members: vec![1, 2, 3] }, "06000000010a03010203".to_owned()),
        (Frame::Denied { why: Denied::Expired }, "03000000010b00".to_owned()),
        (Frame::Denied { why: Denied::Used }, "03000000010b01".to_owned()),
        (Frame::Denied { why: Denied::Revoked }, "03000000010b02".to_owned()),
        (Frame::Denied { why: Denied::Unknown }, "03000000010b03".to_owned()),
        (
            Frame::Request(Request { session: 5, urgent: true, ids }),
            format!("45000000010c050102{}{}", b32("01"), b32("02")),
        ),
        (Frame::List { session: 5, after: 300 }, "05000000010d05ac02".to_owned()),
        (
            Frame::Listed(Listed { next: 300, ids: vec![ChunkId([1; 32])] }),
            format!("25000000010eac0201{}", b32("01")),
        ),
        (
            Frame::Change { session: 5, change: invite() },
            format!("29000000010f0500{}0201ac0203", b32("07")),
        ),
        (
            Frame::Change { session: 5, change: Change::Remove { device: DeviceId([7; 32]) } },
            format!("24000000010f0501{}", b32("07")),
        ),
        (
            Frame::Change {
                session: 5,
                change: Change::Expire { device: DeviceId([7; 32]), at: Some(300) },
            },
            format!("27000000010f0502{}01ac02", b32("07")),
        ),
        (Frame::Change { session: 5, change: Change::CloseInvites }, "04000000010f0503".to_owned()),
        (Frame::Changed(Changed::Done { invites: 300 }), "05000000011000ac02".to_owned()),
        (
            Frame::Changed(Changed::Unchanged { why: Unchanged::Failed }),
            "0400000001100103".to_owned(),
        ),
    ];
    for (frame, expected) in cases {
        let bytes = frame.encode().unwrap();
        assert_eq!(hex(&bytes), expected, "{frame:?}");
        assert_eq!(decode(&bytes), Ok(frame));
    }
}

const HAVE_ADDED: &str = "12000000010802021803bc99641607d3448d92316500";
const REDEEM: &str = "8900000001096e7a1cdd29b0b78fd13af4c5598feff4ef2a97166e3ca6f2e4fbfccd80505bf193b98a2cfa9d113d397014dbe46268d7d295b55bf1c541c07372f3e2a0e82ef9dcda52583bb820041b5632053e67a2af698c39652df320f13ba45580ded4ec000808080808080808080808080808080808080808080808080808080808080808066c6170746f70";

#[test]
fn the_bytes_of_answers() {
    let found = Answer::Found { len: 0x0102 };
    let cases = [
        (found, [0, 2, 1, 0, 0]),
        (Answer::NotFound, [1, 0, 0, 0, 0]),
        (Answer::Busy, [2, 0, 0, 0, 0]),
    ];
    for (answer, bytes) in cases {
        assert_eq!(answer.encode(), bytes);
        assert_eq!(Answer::decode(&bytes), Ok(answer));
    }
    let most = Answer::Found { len: MAX_SEALED_LEN as u32 };
    assert_eq!(Answer::decode(&most.encode()), Ok(most));
    let more = Answer::Found { len: MAX_SEALED_LEN as u32 + 1 };
    assert!(matches!(Answer::decode(&more.encode()), Err(FormatError::Limit { .. })));
    for bad in [[0; 5], [1, 0, 0, 0, 1], [2, 1, 0, 0, 0], [3, 0, 0, 0, 0]] {
        assert_eq!(Answer::decode(&bad), Err(FormatError::Invalid { at: "answer" }));
    }
}

/// What peers derive from the exporter and the access key.
#[test]
fn proofs_salts_and_hints_are_what_they_were() {
    let (access, exporter, device) = (Secret::new([1; 32]), [2; 32], DeviceId([3; 32]));
    let opener = proof(&access, Role::Opener, &exporter, &device);
    assert_eq!(hex(&opener), PROOF);
    assert_eq!(hex(&print_salt(&exporter, &device)), SALT);
    assert_eq!(hex(&lan_hint(&access, 490_000)), HINT);
}

const PROOF: &str = "64e55c546168cb80a34e97e54265206b0d63ce9adde6befad6af67a66b7b53c2";
const SALT: &str = "29e8b711a6275ad25eee249387da1bc77b17bc9159cdfe91d4323cdf72a79d4c";
const HINT: &str = "5ab58ff59ba7bbff";

#[test]
fn a_proof_holds_for_its_key_role_connection_and_device_only() {
    let (access, exporter, device) = (Secret::new([1; 32]), [2; 32], DeviceId([3; 32]));
    let made = proof(&access, Role::Opener, &exporter, &device);
    let holds = |access: &Secret, role, exporter: &[u8; 32], device: &DeviceId| {
        is_proof(&made, access, role, exporter, device)
    };
    assert!(holds(&access, Role::Opener, &exporter, &device));
    assert!(!holds(&Secret::new([9; 32]), Role::Opener, &exporter, &device));
    assert!(!holds(&access, Role::Acceptor, &exporter, &device));
    assert!(!holds(&access, Role::Opener, &[9; 32], &device));
    assert!(!holds(&access, Role::Opener, &exporter, &DeviceId([9; 32])));
}

#[test]
fn a_redeem_holds_for_its_connection_device_and_wrap_key_only() {
    let good = redeem();
    let (exporter, device) = ([6; 32], DeviceId([7; 32]));
    assert_eq!(good.verify(&exporter, &device), Ok(()));
    assert!(good.verify(&[0; 32], &device).is_err());
    assert!(good.verify(&exporter, &DeviceId([0; 32])).is_err());
    assert!(Redeem { wrap: [0; 32], ..good.clone() }.verify(&exporter, &device).is_err());
    let other = SigningKey::from_seed(&Secret::new([4; 32])).device_id();
    assert!(Redeem { invite: other, ..good }.verify(&exporter, &device).is_err());
}

#[test]
fn what_is_too_long_is_not_even_encoded() {
    let long = Frame::Members { session: 0, records: vec![0; MAX_MEMBERS_FRAME_LEN] };
    assert!(matches!(long.encode(), Err(FormatError::Limit { at: "members frame", .. })));
    let fits = Frame::Members { session: 0, records: vec![0; MAX_MEMBERS_FRAME_LEN - 64] };
    assert_eq!(decode(&fits.encode().unwrap()), Ok(fits));
}

#[test]
fn counts_and_names_over_their_limits_are_refused() {
    let request = |count| {
        Frame::Request(Request { session: 0, urgent: false, ids: vec![ChunkId([1; 32]); count] })
    };
    let read = |frame: Frame| decode(&frame.encode().unwrap());
    assert!(read(request(MAX_REQUEST_IDS)).is_ok());
    let invalid = |at| Err(FormatError::Invalid { at });
    assert_eq!(read(request(MAX_REQUEST_IDS + 1)), invalid("request frame"));
    assert_eq!(read(request(0)), invalid("request frame"));
    let listed =
        |count| Frame::Listed(Listed { next: u64::MAX, ids: vec![ChunkId([1; 32]); count] });
    assert!(read(listed(MAX_LISTED_IDS)).is_ok());
    assert_eq!(read(listed(MAX_LISTED_IDS + 1)), invalid("listed frame"));
    let roots = |count| {
        let roots = vec![ChunkId([1; 32]); count];
        Frame::Have { session: 0, have: Have::Whole { roots } }
    };
    assert!(read(roots(256)).is_ok());
    assert_eq!(read(roots(257)), invalid("have frame"));
    let named = |len| Frame::Redeem(Redeem { name: "x".repeat(len), ..redeem() });
    assert!(read(named(MAX_NAME_LEN)).is_ok());
    assert_eq!(read(named(MAX_NAME_LEN + 1)), invalid("redeem frame"));
}

#[test]
fn every_frame_cut_anywhere_or_followed_by_anything_is_refused() {
    let frames = [
        Frame::Redeem(redeem()),
        Frame::Head { session: 70_000, head: vec![1; 300] },
        Frame::Request(Request { session: 5, urgent: true, ids: vec![ChunkId([1; 32]); 3] }),
        Frame::Listed(Listed { next: 9, ids: vec![ChunkId([1; 32]); 3] }),
        Frame::Change { session: 5, change: invite() },
    ];
    for frame in frames {
        let bytes = frame.encode().unwrap();
        for cut in 6..bytes.len() {
            let mut short = bytes[..cut].to_vec();
            short[..4].copy_from_slice(&(cut as u32 - 4).to_le_bytes());
            assert!(decode(&short).is_err(), "cut at {cut}");
        }
        let mut long = bytes.clone();
        long.push(0);
        long[..4].copy_from_slice(&(bytes.len() as u32 - 3).to_le_bytes());
        assert!(matches!(decode(&long), Err(FormatError::Invalid { .. })));
    }
}

//! What the protocol does not allow ends the connection, with a reason that
//! names it, and leaves nothing behind.

mod common;

use common::raw::Raw;
use common::{PORTAL, Seen, Shelf, access, bind, device, until};
use warp_format::limits::{MAX_CONTROL_LEN, MAX_MEMBERS_FRAME_LEN};
use warp_format::wire::{Frame, Header, Request};
use warp_format::{ChunkId, FormatError};

/// The bytes of a frame: length, version, kind, body.
fn frame(len: u32, version: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    [&len.to_le_bytes()[..], &[version, kind], body].concat()
}

/// How the connection ends for a member who says these bytes.
async fn ends(bytes: &[u8]) -> String {
    let shelf = Shelf::with(&[1]);
    let b = bind(2, shelf.clone()).await;
    let mut raw = Raw::dial(1, b.local_addrs()[0]).await;
    assert!(matches!(raw.hello(&access()).await, Ok(Frame::Accepted { .. })));
    raw.say_bytes(bytes).await;
    let _ = raw.send.finish();
    let reason = raw.reason().await;
    until("left", || shelf.seen().last() == Some(&Seen::Left(PORTAL, device(1)))).await;
    let heard = |seen: &Seen| matches!(seen, Seen::Heard(..));
    assert!(!shelf.seen().iter().any(heard), "nothing of it is heard");
    reason
}

#[tokio::test]
async fn frames_over_their_limits_are_refused_by_their_first_six_bytes() {
    let over = |kind, limit: usize| frame(limit as u32 + 1, 1, kind, b"");
    assert_eq!(
        ends(&over(0, MAX_CONTROL_LEN)).await,
        "2: hello frame: 65537 is over the limit of 65536"
    );
    assert_eq!(
        ends(&over(5, 256 << 10)).await,
        "2: head frame: 262145 is over the limit of 262144"
    );
    let members = ends(&over(7, MAX_MEMBERS_FRAME_LEN)).await;
    assert_eq!(members, "2: members frame: 1048577 is over the limit of 1048576");
    let most = ends(&frame(u32::MAX, 1, 8, b"")).await;
    assert_eq!(most, "2: have frame: 4294967295 is over the limit of 65536");
}

#[tokio::test]
async fn unknown_and_malformed_frames_are_refused() {
    for (bytes, reason) in [
        (frame(2, 1, 17, b""), "2: frame kind: not a valid value"),
        (frame(2, 1, 255, b""), "2: frame kind: not a valid value"),
        (frame(1, 1, 3, b""), "2: refused frame: ends early"),
        (frame(2, 1, 3, b""), "2: refused frame: ends early"),
        (frame(5, 1, 3, b"\x00\x00\x00"), "2: refused frame: not a valid value"),
        (frame(9, 1, 5, b"\x00\x7fabcde"), "2: head frame: ends early"),
        (frame(40, 1, 0, b"cut"), "2: frame: ends early"),
        (vec![2, 0, 0], "2: frame: ends early"),
    ] {
        assert_eq!(ends(&bytes).await, reason, "{bytes:?}");
    }
    let newer = ends(&frame(2, 2, 3, b"")).await;
    assert!(newer.contains("version 2 is newer than this warp"), "{newer}");
}

#[tokio::test]
async fn frames_out_of_place_are_refused() {
    let request =
        Frame::Request(Request { session: 0, urgent: false, ids: vec![ChunkId([1; 32])] });
    let hello = |session| Frame::Hello { session, proof: [0; 32] };
    for (frame, reason) in [
        (request, "2: a request on the control stream"),
        (Frame::List { session: 0, after: 0 }, "2: a request on the control stream"),
        (hello(1), "2: a session number out of turn"),
        (hello(0), "2: a session number out of turn"),
        (Frame::Left { session: 8 }, "2: a session that never was"),
        (Frame::Accepted { session: 1, proof: [0; 32] }, "2: a session that never was"),
        (Frame::Welcome { members: vec![] }, "2: an answer to no redeem"),
        (Frame::Head { session: 3, head: vec![1] }, "2: a session that never was"),
    ] {
        assert_eq!(ends(&frame.encode().unwrap()).await, reason);
    }
}

#[tokio::test]
async fn what_belongs_to_a_session_that_is_over_is_passed_over() {
    let shelf = Shelf::with(&[1]);
    let b = bind(2, shelf.clone()).await;
    let mut raw = Raw::dial(1, b.local_addrs()[0]).await;
    raw.hello(&access()).await.unwrap();
    raw.say(&Frame::Left { session: 0 }).await;
    raw.say(&Frame::Head { session: 0, head: vec![1] }).await;
    raw.say(&Frame::Left { session: 0 }).await;
    let proof = raw.proof(&access());
    raw.say(&Frame::Hello { session: 2, proof }).await;
    assert!(matches!(raw.hear().await, Ok(Frame::Accepted { session: 2, .. })));
    let (joined, left) = (Seen::Joined(PORTAL, device(1)), Seen::Left(PORTAL, device(1)));
    // The service may be told a moment after the peer.
    until("both sessions are seen", || shelf.seen().len() >= 3).await;
    assert_eq!(shelf.seen(), [joined.clone(), left, joined]);
}

#[tokio::test]
async fn requests_that_break_the_protocol_end_the_connection() {
    let shelf = Shelf::with(&[1]);
    let b = bind(2, shelf.clone()).await;
    let right = Frame::Request(Request { session: 0, urgent: false, ids: vec![ChunkId([1; 32])] });
    let right = right.encode().unwrap();
    let mut many = Request { session: 0, urgent: false, ids: vec![ChunkId([1; 32]); 65] };
    let too_many = Frame::Request(many.clone()).encode().unwrap();
    many.ids.clear();
    let none = Frame::Request(many).encode().unwrap();
    let control = Frame::Left { session: 0 }.encode().unwrap();
    for (bytes, reason) in [
        (too_many, "2: request frame: not a valid value"),
        (none, "2: request frame: not a valid value"),
        ([right.clone(), vec![0]].concat(), "2: after the request: not a valid value"),
        (right[..20].to_vec(), "2: frame: ends early"),
        (vec![], "2: request frame: ends early"),
        (control, "2: a control frame instead of a request"),
        (frame(65_537, 1, 12, b""), "2: request frame: 65537 is over the limit of 65536"),
    ] {
        let mut raw = Raw::dial(1, b.local_addrs()[0]).await;
        raw.hello(&access()).await.unwrap();
        let (mut send, _receive) = raw.connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        assert_eq!(raw.reason().await, reason);
    }
    assert_eq!(*shelf.served.lock().unwrap(), 0);
}

#[tokio::test]
async fn who_guesses_too_often_is_disconnected() {
    let b = bind(2, Shelf::with(&[1])).await;
    let mut raw = Raw::dial(1, b.local_addrs()[0]).await;
    for session in 0..16 {
        raw.say(&Frame::Hello { session: session * 2, proof: [session as u8; 32] }).await;
    }
    let mut refused = 0;
    let reason = loop {
        match raw.hear().await {
            Ok(Frame::Refused { .. }) => refused += 1,
            Ok(other) => panic!("{other:?}"),
            Err(reason) => break reason,
        }
    };
    assert!(refused >= 15 && reason.starts_with("4: "), "{refused} {reason}");
}

#[test]
fn a_header_is_all_that_is_read_of_a_frame_that_is_too_long() {
    let bytes: [u8; Header::LEN] = frame(u32::MAX, 1, 7, b"").try_into().unwrap();
    assert!(matches!(Header::decode(&bytes), Err(FormatError::Limit { at: "members frame", .. })));
}

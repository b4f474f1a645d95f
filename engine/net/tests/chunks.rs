//! Requests for chunks: what is answered, in which order, and what is not.

mod common;

use common::raw::{self, Raw};
use common::{PORTAL, Pair, Seen, Shelf, access, all, bind, device, events, pair, until};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::unbounded_channel;
use warp_format::limits::MAX_SEALED_LEN;
use warp_format::wire::{Answer, Frame, Header, Request};
use warp_format::{ChunkId, FormatError};
use warp_net::{Change, Changed, Event, Listed, NetError, Session, Wish};

#[tokio::test]
async fn sixty_four_ids_are_answered_in_their_order_and_verify() {
    let Pair { a: _a, b: _b, bt, session, .. } = pair().await;
    let mut ids = bt.fill(60, 70_000);
    ids.insert(5, ChunkId([1; 32]));
    ids.insert(30, bt.put(vec![9]));
    ids.push(ids[0]);
    ids.push(bt.put(vec![3; MAX_SEALED_LEN]));
    assert_eq!(ids.len(), 64);
    let (tell, mut told) = unbounded_channel();
    let _request = session.request(77, ids.clone(), tell);
    let (mut progress, mut sum, mut left) = (0, 0, ids.iter());
    loop {
        match told.recv().await.unwrap() {
            Event::Progress { number: 77, bytes } => progress += bytes,
            Event::Chunk { number: 77, id, bytes } => {
                assert_eq!(Some(&id), left.next());
                sum += bytes.len();
                assert_eq!(bytes.verify(id).unwrap().id(), id);
            }
            Event::NotFound { number: 77, id } => {
                assert_eq!(Some(&id), left.next());
                assert_eq!(id, ChunkId([1; 32]));
            }
            Event::Done { number: 77 } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(left.next(), None);
    assert_eq!((progress, sum), (sum, 61 * 70_000 + 1 + MAX_SEALED_LEN));
}

#[tokio::test]
async fn no_ids_and_sixty_five_are_the_callers_mistake() {
    let Pair { a: _a, b: _b, session, .. } = pair().await;
    for ids in [vec![], vec![ChunkId([1; 32]); 65]] {
        let told = events(&session, &ids).await;
        let [Event::Failed { number: 9, error }] = &told[..] else { panic!("{told:?}") };
        assert!(matches!(error, NetError::TooMuch { .. }), "{error}");
        assert!(!error.blames_peer() && !error.is_retryable());
    }
    assert!(!session.is_closed());
}

#[tokio::test]
async fn who_waits_for_more_than_a_share_is_told_that_the_peer_is_busy() {
    let Pair { a: _a, b: _b, bt, session, .. } = pair().await;
    let ids = bt.fill(64, 100);
    *bt.delay.lock().unwrap() = Duration::from_millis(10);
    let (tell, mut told) = unbounded_channel();
    let requests: Vec<_> = (0..20).map(|n| session.request(n, ids.clone(), tell.clone())).collect();
    let (mut busy, mut found, mut done) = (0, 0, 0);
    while done < requests.len() {
        match told.recv().await.unwrap() {
            Event::Busy { id, .. } => {
                assert!(ids.contains(&id));
                busy += 1;
            }
            Event::Chunk { .. } => found += 1,
            Event::Done { .. } => done += 1,
            Event::Progress { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    // 16 requests of 64 chunks are a share of 1,024.
    assert_eq!((busy, found), (4 * 64, 16 * 64));
    // Later there is room again.
    *bt.delay.lock().unwrap() = Duration::ZERO;
    assert!(matches!(events(&session, &ids[..1]).await[0], Event::Chunk { .. }));
}

#[tokio::test]
async fn a_request_that_is_dropped_stops_the_other_side_and_costs_no_one_else() {
    let Pair { a: _a, b: _b, bt, session, .. } = pair().await;
    let ids = bt.fill(64, 300_000);
    *bt.delay.lock().unwrap() = Duration::from_millis(20);
    let (tell, mut told) = unbounded_channel();
    let request = session.request(1, ids.clone(), tell);
    while !matches!(told.recv().await.unwrap(), Event::Chunk { .. }) {}
    request.stop();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let served = *bt.served.lock().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(*bt.served.lock().unwrap(), served, "nothing is read for it any more");
    assert!(served < 40, "{served} of 64 were read");
    while let Ok(event) = told.try_recv() {
        let is_end = matches!(event, Event::Done { .. } | Event::Failed { .. });
        assert!(!is_end, "it neither fails nor is done: {event:?}");
    }
    assert!(matches!(events(&session, &ids[..1]).await[0], Event::Chunk { .. }));
}

/// A session of device 1 with a peer (device 2) that answers one request with
/// these bytes; how the request and the connection end.
async fn answered(ids: Vec<ChunkId>, bytes: Vec<u8>) -> (Vec<Event>, Session, String) {
    let server = raw::listen(raw::key(2, 2));
    let addr = server.local_addr().unwrap();
    let a = bind(1, Shelf::with(&[2])).await;
    let peer = tokio::spawn(async move {
        let peer = raw::accept(&server, 2, &access()).await;
        let (mut send, mut receive) = peer.connection.accept_bi().await.unwrap();
        let asked = receive.read_to_end(10_000).await.unwrap();
        let (header, rest) = asked.split_first_chunk::<{ Header::LEN }>().unwrap();
        let frame = Frame::decode(Header::decode(header).unwrap(), rest).unwrap();
        assert!(matches!(frame, Frame::Request(Request { session: 0, .. })));
        send.write_all(&bytes).await.unwrap();
        let _ = send.finish();
        peer
    });
    let session = a.open(device(2), &[addr], PORTAL).await.unwrap();
    let told = events(&session, &ids).await;
    let peer = peer.await.unwrap();
    let reason = match tokio::time::timeout(Duration::from_millis(500), peer.reason()).await {
        Ok(reason) => reason,
        Err(_) => "none".to_owned(),
    };
    a.close().await;
    (told, session, reason)
}

#[tokio::test]
async fn garbage_for_a_chunk_arrives_and_does_not_verify() {
    let id = ChunkId::of(b"right");
    let bytes = [&Answer::Found { len: 5 }.encode()[..], b"wrong"].concat();
    let (mut told, _, reason) = answered(vec![id], bytes).await;
    assert_eq!(told.len(), 2);
    let Event::Chunk { bytes, .. } = told.remove(0) else { panic!("no chunk") };
    assert_eq!(bytes.verify(id).unwrap_err(), FormatError::WrongId { id });
    assert_eq!(reason, "none", "whom to blame is the caller's to say");
}

#[tokio::test]
async fn answers_that_break_the_protocol_end_the_connection_with_the_reason() {
    let found = |len: u32, bytes: &[u8]| [&Answer::Found { len }.encode()[..], bytes].concat();
    let not_found = Answer::NotFound.encode().to_vec();
    let long = MAX_SEALED_LEN as u32 + 1;
    let cases = [
        (vec![9, 0, 0, 0, 0], "answer: not a valid value"),
        (vec![1, 1, 0, 0, 0], "answer: not a valid value"),
        (vec![0, 0, 0, 0, 0], "answer: not a valid value"),
        (vec![0, 1], "answer: ends early"),
        (vec![], "answer: ends early"),
        (found(long, b""), "sealed chunk: 4718849 is over the limit of 4718848"),
        (found(10, b"short"), "chunk: ends early"),
        ([not_found.clone(), vec![1]].concat(), "after the answers: not a valid value"),
    ];
    for (bytes, expected) in cases {
        let (told, session, reason) = answered(vec![ChunkId([1; 32])], bytes).await;
        let Some(Event::Failed { error, .. }) = told.last() else { panic!("{told:?}") };
        assert!(matches!(error, NetError::Malformed { .. }), "{error}");
        assert!(error.blames_peer() && error.to_string().contains(expected), "{error}");
        assert_eq!(reason, format!("2: {expected}"));
        assert!(session.is_closed());
    }
}

#[tokio::test]
async fn a_stranger_cannot_ask_for_a_chunk_whose_id_it_knows() {
    let shelf = Shelf::with(&[1]);
    let id = shelf.put(vec![1; 100]);
    let b = bind(2, shelf.clone()).await;
    // No session: not even a stream may be opened beside the control stream.
    let mut outsider = Raw::dial(3, b.local_addrs()[0]).await;
    assert_eq!(outsider.hello(&access()).await, Ok(Frame::Refused { session: 0 }));
    let opened = tokio::time::timeout(Duration::from_millis(300), outsider.connection.open_bi());
    assert!(opened.await.is_err());
    // A session, and a request for another.
    let mut member = Raw::dial(1, b.local_addrs()[0]).await;
    assert!(matches!(member.hello(&access()).await, Ok(Frame::Accepted { .. })));
    let (mut send, mut receive) = member.connection.open_bi().await.unwrap();
    let request = Frame::Request(Request { session: 44, urgent: false, ids: vec![id] });
    send.write_all(&request.encode().unwrap()).await.unwrap();
    send.finish().unwrap();
    assert!(receive.read_to_end(1000).await.is_err(), "reset");
    assert_eq!(*shelf.served.lock().unwrap(), 0);
}

#[tokio::test]
async fn requests_side_by_side_do_not_wait_for_each_other() {
    let Pair { a: _a, b: _b, bt, session, .. } = pair().await;
    let big = bt.fill(8, 4 << 20);
    let small = bt.put(vec![7; 1000]);
    let (tell, mut told) = unbounded_channel();
    let _slow = session.request(1, big, tell);
    while !matches!(told.recv().await.unwrap(), Event::Chunk { .. }) {}
    let since = Instant::now();
    assert_eq!(events(&session, &[small]).await.len(), 2);
    let took = since.elapsed();
    let rest = all(&mut told).await;
    assert!(matches!(rest.last(), Some(Event::Done { .. })));
    assert!(took < since.elapsed(), "{took:?}");
}

#[tokio::test]
async fn what_somebody_waits_for_is_answered_before_what_is_asked_ahead() {
    let Pair { a: _a, b: _b, bt, session, .. } = pair().await;
    let ahead = bt.fill(64, 100_000);
    let one = bt.put(vec![7; 200_000]);
    // Four at a time are looked for: the last waits for a second.
    *bt.delay.lock().unwrap() = Duration::from_millis(50);
    let (tell, _told) = unbounded_channel();
    let _ahead: Vec<_> =
        (0..).zip(ahead).map(|(n, id)| session.request(n, vec![id], tell.clone())).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let took = |urgent| {
        let (session, since) = (session.clone(), Instant::now());
        async move {
            let (tell, mut told) = unbounded_channel();
            let _request = session.request(99, Wish { ids: vec![one], urgent }, tell);
            assert!(matches!(all(&mut told).await[0], Event::Chunk { .. }));
            since.elapsed()
        }
    };
    let (urgent, other) = tokio::join!(took(true), took(false));
    assert!(urgent * 3 < other, "{urgent:?} {other:?}");
}

#[tokio::test]
async fn when_the_peer_dies_what_was_asked_fails_with_the_connection() {
    let Pair { a: _a, b, bt, session, .. } = pair().await;
    *bt.delay.lock().unwrap() = Duration::from_millis(50);
    let ids = bt.fill(64, 1000);
    let (tell, mut told) = unbounded_channel();
    let _request = session.request(1, ids, tell);
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(b);
    let last = all(&mut told).await.pop();
    let Some(Event::Failed { error, .. }) = last else { panic!("{last:?}") };
    assert!(matches!(error, NetError::Closed { .. }) && error.is_retryable(), "{error}");
    until("closed", || session.is_closed()).await;
    let shelf: Arc<Shelf> = Shelf::with(&[]);
    assert_eq!(shelf.seen(), []);
}

#[tokio::test]
async fn a_peer_lists_what_it_holds_page_by_page() {
    let Pair { a: _a, b: _b, bt, session, .. } = pair().await;
    let mut ids = bt.fill(8, 100);
    ids.sort_unstable_by_key(|id| id.0);
    let (mut told, mut after) = (Vec::new(), 0);
    loop {
        let page = session.list(after).await.unwrap();
        if page.next == after {
            break;
        }
        after = page.next;
        told.extend(page.ids);
    }
    assert_eq!(told, ids);
    // Who is a member no more is told nothing.
    bt.remove(1);
    let error = session.list(0).await.unwrap_err();
    assert!(matches!(error, NetError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_change_of_the_members_is_asked_for_and_answered() {
    let Pair { a, b: _b, bt, session, .. } = pair().await;
    let change = Change::Expire { device: device(9), at: Some(77) };
    assert_eq!(session.change(change).await.unwrap(), Changed::Done { invites: 7 });
    assert!(bt.seen().contains(&Seen::Asked(a.device(), change)));
    bt.remove(1);
    let error = session.change(Change::CloseInvites).await.unwrap_err();
    assert!(matches!(error, NetError::Refused { .. }), "{error}");
    assert!(!bt.seen().contains(&Seen::Asked(a.device(), Change::CloseInvites)));
}

#[tokio::test]
async fn an_answer_that_is_none_ends_the_connection() {
    let answers = [
        Frame::Changed(Changed::Done { invites: 0 }).encode().unwrap(),
        vec![1, 2, 3],
        Vec::new(),
        [Frame::Listed(Listed::default()).encode().unwrap(), vec![0]].concat(),
    ];
    for bytes in answers {
        let server = raw::listen(raw::key(2, 2));
        let addr = server.local_addr().unwrap();
        let a = bind(1, Shelf::with(&[2])).await;
        let peer = tokio::spawn(async move {
            let peer = raw::accept(&server, 2, &access()).await;
            let (mut send, _receive) = peer.connection.accept_bi().await.unwrap();
            send.write_all(&bytes).await.unwrap();
            let _ = send.finish();
            peer.reason().await
        });
        let session = a.open(device(2), &[addr], PORTAL).await.unwrap();
        let error = session.list(0).await.unwrap_err();
        assert!(error.blames_peer(), "{error}");
        let reason = peer.await.unwrap();
        assert!(reason.starts_with("2: "), "{reason}");
        a.close().await;
    }
}

//! What a peer can make this device hold or do is bounded.

mod common;

use common::raw::Raw;
use common::{PORTAL, Pair, Seen, Shelf, access, bind, device, pair, resident_bytes, until};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::unbounded_channel;
use warp_format::ChunkId;
use warp_format::wire::{Frame, Request};
use warp_net::{Event, News};

const MIB: usize = 1 << 20;

/// Ten thousand control frames a second for three seconds, and streams beside
/// them: memory stays, and another peer is served meanwhile.
#[tokio::test]
async fn a_flood_of_frames_grows_memory_by_less_than_64_mib() {
    let shelf = Shelf::with(&[1, 3]);
    let b = bind(2, shelf.clone()).await;
    let addr = b.local_addrs()[0];
    let honest = bind(3, Shelf::with(&[2])).await;
    let session = honest.open(device(2), &[addr], PORTAL).await.unwrap();
    let id = shelf.put(vec![1; 50_000]);
    let mut raw = Raw::dial(1, addr).await;
    assert!(matches!(raw.hello(&access()).await, Ok(Frame::Accepted { .. })));
    shelf.seen.lock().unwrap().reserve(100_000);
    let before = resident_bytes();
    let frames: Vec<u8> = (0..100)
        .flat_map(|n| {
            let frame = match n % 3 {
                0 => Frame::Head { session: 0, head: vec![0; 200] },
                1 => Frame::AskMembers { session: 0, from: 0 },
                _ => Frame::Left { session: 0 },
            };
            // A session that is left is over: the rest is about nothing.
            if n % 3 == 2 { Frame::AskMembers { session: 0, from: 9 } } else { frame }
                .encode()
                .unwrap()
        })
        .collect();
    let connection = raw.connection.clone();
    let streams = tokio::spawn(async move {
        let request =
            Frame::Request(Request { session: 0, urgent: false, ids: vec![ChunkId([9; 32]); 64] });
        let request = request.encode().unwrap();
        let mut open = Vec::new();
        while let Ok((mut send, receive)) = connection.open_bi().await {
            let _ = send.write_all(&request).await;
            let _ = send.finish();
            open.push(receive);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let (since, mut sent, mut most, mut served) = (Instant::now(), 0, 0, 0);
    while since.elapsed() < Duration::from_secs(3) {
        let wait = Duration::from_millis(10);
        if tokio::time::timeout(wait, raw.say_bytes(&frames)).await.is_ok() {
            sent += 100;
        }
        let due = Duration::from_micros(sent as u64 * 100);
        tokio::time::sleep(due.saturating_sub(since.elapsed())).await;
        most = most.max(resident_bytes().saturating_sub(before));
        if sent / 5000 > served {
            served += 1;
            let wanted = [id];
            let told = common::events(&session, &wanted);
            let told = tokio::time::timeout(Duration::from_secs(5), told);
            assert!(matches!(told.await.unwrap()[0], Event::Chunk { .. }));
        }
    }
    streams.abort();
    let heard = shelf.seen().len();
    println!("{sent} frames sent, {heard} heard, {} KiB more", most >> 10);
    assert!(sent > 3000 && heard > 1000, "{sent} sent, {heard} heard");
    assert!(most < 64 * MIB, "{most} bytes more");
}

#[tokio::test]
async fn a_peer_that_does_not_read_what_is_announced_is_let_go() {
    let shelf = Shelf::with(&[1]);
    let b = bind(2, shelf.clone()).await;
    let mut raw = Raw::dial(1, b.local_addrs()[0]).await;
    assert!(matches!(raw.hello(&access()).await, Ok(Frame::Accepted { .. })));
    let before = resident_bytes();
    for n in 0..400u16 {
        b.announce(&PORTAL, News::Members(vec![n as u8; 100_000]));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(raw.reason().await.starts_with("3: what was sent was not read"));
    until("left", || shelf.seen().last() == Some(&Seen::Left(PORTAL, device(1)))).await;
    let more = resident_bytes().saturating_sub(before);
    assert!(more < 64 * MIB, "{more} bytes more");
}

#[tokio::test]
async fn a_peer_that_asks_and_does_not_read_holds_a_few_batches_and_no_more() {
    let shelf = Shelf::with(&[1, 3]);
    let b = bind(2, shelf.clone()).await;
    let addr = b.local_addrs()[0];
    let ids = shelf.fill(64, 1 << 20);
    let mut raw = Raw::dial(1, addr).await;
    assert!(matches!(raw.hello(&access()).await, Ok(Frame::Accepted { .. })));
    let before = resident_bytes();
    let mut unread = Vec::new();
    for _ in 0..16 {
        let (mut send, receive) = raw.connection.open_bi().await.unwrap();
        let request = Frame::Request(Request { session: 0, urgent: false, ids: ids.clone() });
        send.write_all(&request.encode().unwrap()).await.unwrap();
        send.finish().unwrap();
        unread.push(receive);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let served = *shelf.served.lock().unwrap();
    assert!(served < 64, "{served} of 1,024 chunks of 1 MiB were read");
    let more = resident_bytes().saturating_sub(before);
    assert!(more < 96 * MIB, "{more} bytes more, what the reader itself has buffered included");
    // Others are served, and what is not read for ten seconds is given up.
    let honest = bind(3, Shelf::with(&[2])).await;
    let session = honest.open(device(2), &[addr], PORTAL).await.unwrap();
    assert_eq!(common::events(&session, &ids[..3]).await.len(), 4);
    let mut first = unread.swap_remove(0);
    let end = tokio::time::timeout(Duration::from_secs(15), first.received_reset());
    assert_eq!(end.await.unwrap().unwrap(), Some(quinn::VarInt::from_u32(2)));
}

#[tokio::test]
async fn a_connection_on_which_no_portal_is_opened_is_closed() {
    let b = bind(2, Shelf::with(&[1])).await;
    let raw = Raw::dial(1, b.local_addrs()[0]).await;
    let since = Instant::now();
    let mut silent = Raw::dial(3, b.local_addrs()[0]).await;
    silent.say_bytes(&[9]).await;
    let late = tokio::time::timeout(Duration::from_secs(15), raw.connection.closed());
    assert!(late.await.unwrap().to_string().contains("no portal was opened"));
    assert!(silent.reason().await.starts_with("5: "));
    assert!(since.elapsed() > Duration::from_secs(9));
}

#[tokio::test]
async fn only_so_many_connections_wait_for_a_portal() {
    let b = bind(2, Shelf::with(&[1])).await;
    let addr = b.local_addrs()[0];
    let mut waiting = Vec::new();
    for seed in 10..74 {
        waiting.push(Raw::dial(seed, addr).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(waiting.iter().all(|raw| raw.connection.close_reason().is_none()));
    let one_more = Raw::dial(100, addr).await;
    assert!(one_more.reason().await.starts_with("4: "));
}

#[tokio::test]
async fn many_handshakes_at_once_all_come_to_their_end() {
    let shelf = Shelf::with(&(10..70).collect::<Vec<u8>>());
    let b = bind(2, shelf.clone()).await;
    let addr = b.local_addrs()[0];
    let mut dials = tokio::task::JoinSet::new();
    for seed in 10..70 {
        dials.spawn(async move {
            let mut raw = Raw::dial(seed, addr).await;
            assert!(matches!(raw.hello(&access()).await, Ok(Frame::Accepted { .. })));
            raw
        });
    }
    let raws = dials.join_all().await;
    assert_eq!(b.sessions(&PORTAL).len(), raws.len());
}

#[tokio::test]
async fn a_listener_that_goes_away_ends_its_request() {
    let Pair { a: _a, b: _b, bt, session, .. } = pair().await;
    *bt.delay.lock().unwrap() = Duration::from_millis(10);
    let ids = bt.fill(64, 1000);
    let (tell, told) = unbounded_channel();
    let _request = session.request(1, ids, tell);
    drop(told);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let served = *bt.served.lock().unwrap();
    assert!(served <= 64);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(*bt.served.lock().unwrap(), served);
}

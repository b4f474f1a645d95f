//! Portals on connections: who gets a session, what they are told, how it ends.

mod common;

use common::raw::Raw;
use common::{
    LOOPBACK, Nothing, PORTAL, Pair, Seen, Shelf, access, bind, device, events, pair, until,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use warp_format::wire::{Frame, Role, proof};
use warp_format::{PortalId, Secret};
use warp_net::{Denied, Event, Have, Joiner, NetError, News, Welcome};

#[tokio::test]
async fn a_session_begins_for_both_tells_the_heads_and_ends_for_both() {
    let (at, bt) = (Shelf::with(&[2]), Shelf::with(&[1]));
    bt.heads.lock().unwrap().extend([b"head 1".to_vec(), b"head 2".to_vec()]);
    at.heads.lock().unwrap().push(b"head 3".to_vec());
    let a = bind(1, at.clone()).await;
    let b = bind(2, bt.clone()).await;
    let session = a.open(b.device(), &b.local_addrs(), PORTAL).await.unwrap();
    assert_eq!((session.peer(), session.portal()), (device(2), PORTAL));
    assert!(!session.is_closed() && session.rtt() > Duration::ZERO);
    until("heads heard", || at.seen().len() == 3 && bt.seen().len() == 2).await;
    let head = |from, text: &str| Seen::Heard(device(from), News::Head(text.into()));
    assert_eq!(at.seen(), [Seen::Joined(PORTAL, device(2)), head(2, "head 1"), head(2, "head 2")]);
    assert_eq!(bt.seen(), [Seen::Joined(PORTAL, device(1)), head(1, "head 3")]);
    let there = bt.sessions.lock().unwrap()[0].clone();
    assert_eq!(session.salt_here(), there.salt_there());
    assert_eq!(session.salt_there(), there.salt_here());
    assert_ne!(session.salt_here(), session.salt_there());
    a.close().await;
    assert_eq!(at.seen().last(), Some(&Seen::Left(PORTAL, device(2))));
    until("left", || bt.seen().last() == Some(&Seen::Left(PORTAL, device(1)))).await;
    assert!(session.is_closed() && there.is_closed());
    let events = events(&session, &[warp_format::ChunkId([1; 32])]).await;
    assert!(matches!(events[..], [Event::Failed { error: NetError::Closed { .. }, .. }]));
}

#[tokio::test]
async fn what_is_announced_is_heard_by_the_other_side_in_order() {
    let Pair { a, b, at, bt, session } = pair().await;
    for n in 0..50u8 {
        a.announce(&PORTAL, News::Head(vec![n]));
    }
    session.tell(News::Have(Have::Forget));
    b.announce(&PORTAL, News::Members(vec![9; 100_000]));
    until("heard", || bt.seen().len() == 52 && at.seen().len() == 2).await;
    let heads: Vec<_> = (0..50u8).map(|n| Seen::Heard(device(1), News::Head(vec![n]))).collect();
    assert_eq!(bt.seen()[1..51], heads);
    assert_eq!(bt.seen()[51], Seen::Heard(device(1), News::Have(Have::Forget)));
    assert_eq!(at.seen()[1], Seen::Heard(device(2), News::Members(vec![9; 100_000])));
    bt.records.lock().unwrap().extend_from_slice(b"0123456789");
    session.ask_members(4);
    let answer = Seen::Heard(device(2), News::Members(b"456789".to_vec()));
    until("answered", || at.seen().last() == Some(&answer)).await;
}

#[tokio::test]
async fn a_wrong_key_an_unknown_portal_and_a_non_member_get_one_answer_at_one_time() {
    let bt = Shelf::with(&[1]);
    let b = bind(2, bt.clone()).await;
    let addr = b.local_addrs()[0];
    let mut answers = Vec::new();
    // 1 is a member with another key; 3 is none, with the right key.
    for (seed, key) in [(1, Secret::new([71; 32])), (3, access()), (3, Secret::new([71; 32]))] {
        let mut raw = Raw::dial(seed, addr).await;
        let since = Instant::now();
        answers.push(raw.hello(&key).await);
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(50) && took < Duration::from_secs(1), "{took:?}");
        assert_eq!(raw.connection.close_reason(), None);
    }
    assert_eq!(answers, vec![Ok(Frame::Refused { session: 0 }); 3]);
    assert_eq!(bt.seen(), []);

    let a = bind(3, Shelf::with(&[2])).await;
    let refused = a.open(b.device(), &[addr], PORTAL).await.unwrap_err();
    assert!(matches!(refused, NetError::Refused { peer } if peer == device(2)), "{refused}");
    assert!(!refused.is_retryable() && !refused.blames_peer());
    let none = a.open(b.device(), &[addr], PortalId([8; 32])).await.unwrap_err();
    assert!(matches!(none, NetError::NoSuchPortal(_)));
}

#[tokio::test]
async fn an_acceptor_that_is_no_member_gets_no_session() {
    let at = Shelf::with(&[]);
    let bt = Shelf::with(&[1]);
    let a = bind(1, at.clone()).await;
    let b = bind(2, bt.clone()).await;
    let refused = a.open(b.device(), &b.local_addrs(), PORTAL).await.unwrap_err();
    assert!(matches!(refused, NetError::Refused { .. }), "{refused}");
    assert_eq!(at.seen(), []);
    until("left", || bt.seen().last() == Some(&Seen::Left(PORTAL, device(1)))).await;
}

#[tokio::test]
async fn a_hello_of_another_connection_or_of_the_other_role_is_refused() {
    let bt = Shelf::with(&[1]);
    let b = bind(2, bt.clone()).await;
    let addr = b.local_addrs()[0];
    let first = Raw::dial(1, addr).await;
    let replayed = first.proof(&access());
    first.connection.close(common::raw::NO_CODE, b"");
    let mut second = Raw::dial(1, addr).await;
    second.say(&Frame::Hello { session: 0, proof: replayed }).await;
    assert_eq!(second.hear().await, Ok(Frame::Refused { session: 0 }));
    let reflected = proof(&access(), Role::Acceptor, &second.exporter, &device(1));
    second.say(&Frame::Hello { session: 2, proof: reflected }).await;
    assert_eq!(second.hear().await, Ok(Frame::Refused { session: 2 }));
    let of_other = proof(&access(), Role::Opener, &second.exporter, &device(2));
    second.say(&Frame::Hello { session: 4, proof: of_other }).await;
    assert_eq!(second.hear().await, Ok(Frame::Refused { session: 4 }));
    assert_eq!(bt.seen(), []);
    let right = second.proof(&access());
    second.say(&Frame::Hello { session: 6, proof: right }).await;
    let answer = second.hear().await;
    let proof = proof(&access(), Role::Acceptor, &second.exporter, &device(2));
    assert_eq!(answer, Ok(Frame::Accepted { session: 6, proof }));
}

#[tokio::test]
async fn an_acceptor_without_the_access_key_is_found_out() {
    let server = common::raw::listen(common::raw::key(2, 2));
    let addr = server.local_addr().unwrap();
    let at = Shelf::with(&[2]);
    let a = bind(1, at.clone()).await;
    let accepting = tokio::spawn(async move {
        let raw = common::raw::accept(&server, 2, &Secret::new([71; 32])).await;
        raw.reason().await
    });
    let error = a.open(device(2), &[addr], PORTAL).await.unwrap_err();
    assert!(error.blames_peer(), "{error}");
    assert!(accepting.await.unwrap().contains("without the proof"), "the peer is told");
    assert_eq!(at.seen(), []);
}

#[tokio::test]
async fn a_member_who_is_removed_gets_nothing_more_on_an_open_connection() {
    let Pair { a: _a, b, at, bt, session } = pair().await;
    let id = bt.put(vec![1; 1000]);
    assert_eq!(events(&session, &[id]).await.len(), 2);
    bt.remove(1);
    b.announce(&PORTAL, News::Head(b"secret".to_vec()));
    until("over", || session.is_closed()).await;
    assert_eq!(at.seen().last(), Some(&Seen::Left(PORTAL, device(2))));
    assert_eq!(bt.seen().last(), Some(&Seen::Left(PORTAL, device(1))));
    assert!(!at.seen().iter().any(|seen| matches!(seen, Seen::Heard(..))));
    let last = events(&session, &[id]).await;
    assert!(
        matches!(last[..], [Event::Failed { error: NetError::Refused { .. }, .. }]),
        "{last:?}"
    );
}

#[tokio::test]
async fn a_member_who_is_removed_is_refused_at_the_next_request_and_heard_no_more() {
    let Pair { a, b: _b, at: _at, bt, session } = pair().await;
    let id = bt.put(vec![1; 1000]);
    bt.remove(1);
    let last = events(&session, &[id]).await;
    assert!(
        matches!(last[..], [Event::Failed { error: NetError::Refused { .. }, .. }]),
        "{last:?}"
    );
    until("over", || session.is_closed()).await;
    a.announce(&PORTAL, News::Head(b"from a former member".to_vec()));
    let again = a.open(device(2), &[], PORTAL).await.unwrap_err();
    assert!(matches!(again, NetError::Refused { .. }), "on the connection there is: {again}");
    assert!(!bt.seen().iter().any(|seen| matches!(seen, Seen::Heard(..))));
}

#[tokio::test]
async fn recheck_ends_the_sessions_of_those_who_are_no_longer_members() {
    let Pair { a: _a, b, at: _at, bt, session } = pair().await;
    b.recheck(&PORTAL);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!session.is_closed());
    bt.remove(1);
    b.recheck(&PORTAL);
    until("over", || session.is_closed()).await;
}

#[tokio::test]
async fn two_portals_share_one_connection_and_end_apart() {
    let Pair { a, b, at, bt, session } = pair().await;
    let second = (PortalId([8; 32]), Secret::new([80; 32]));
    at.portals.lock().unwrap().push(second.clone());
    bt.portals.lock().unwrap().push(second.clone());
    // Dialled by nobody: there is a connection. This time the other side opens.
    let other = b.open(device(1), &[], second.0).await.unwrap();
    until("joined", || at.sessions.lock().unwrap().len() == 2).await;
    let id = at.put(vec![5; 5000]);
    assert_eq!(events(&other, &[id]).await.len(), 2);
    other.leave();
    until("left", || at.seen().contains(&Seen::Left(second.0, device(2)))).await;
    assert!(!session.is_closed() && other.is_closed());
    let id = bt.put(vec![6; 5000]);
    assert_eq!(events(&session, &[id]).await.len(), 2);
    let same = a.open(device(2), &[], PORTAL).await.unwrap();
    assert!(!same.is_closed());
    assert_eq!(a.sessions(&PORTAL).len(), 1);
}

#[tokio::test]
async fn two_who_dial_each_other_at_once_end_with_one_connection_and_one_session() {
    for _ in 0..20 {
        let (at, bt) = (Shelf::with(&[2]), Shelf::with(&[1]));
        let a = bind(1, at.clone()).await;
        let b = bind(2, bt.clone()).await;
        let (a_addrs, b_addrs) = (a.local_addrs(), b.local_addrs());
        let (one, two) =
            tokio::join!(a.open(device(2), &b_addrs, PORTAL), b.open(device(1), &a_addrs, PORTAL));
        let (one, two) = (one.unwrap(), two.unwrap());
        let balance = |shelf: &Shelf| {
            let joined = |seen: &&Seen| matches!(seen, Seen::Joined(..));
            let all = shelf.seen();
            let joins = all.iter().filter(joined).count() as i32;
            joins * 2 - all.len() as i32
        };
        until("settled", || balance(&at) == 1 && balance(&bt) == 1).await;
        let id = at.put(vec![1; 2000]);
        let now = b.open(device(1), &[], PORTAL).await.unwrap();
        assert_eq!(events(&now, &[id]).await.len(), 2);
        assert_eq!((a.sessions(&PORTAL).len(), b.sessions(&PORTAL).len()), (1, 1));
        let salts = (a.sessions(&PORTAL)[0].salt_here(), b.sessions(&PORTAL)[0].salt_there());
        assert_eq!(salts.0, salts.1, "both mean the same connection");
        drop((one, two));
    }
}

#[tokio::test]
async fn a_member_that_the_acceptor_has_not_heard_of_shows_the_chain_and_is_let_in() {
    let (at, bt) = (Shelf::with(&[2]), Shelf::with(&[]));
    at.records.lock().unwrap().extend_from_slice(b"the chain");
    bt.strangers.lock().unwrap().insert(device(1));
    *bt.learns.lock().unwrap() = Some((b"the chain".to_vec(), device(1)));
    let a = bind(1, at.clone()).await;
    let b = bind(2, bt.clone()).await;
    let session = a.open(b.device(), &b.local_addrs(), PORTAL).await.unwrap();
    let id = bt.put(vec![1; 1000]);
    assert_eq!(events(&session, &[id]).await.len(), 2);
    let chain = Seen::Heard(device(1), News::Members(b"the chain".to_vec()));
    assert_eq!(bt.seen(), [chain, Seen::Joined(PORTAL, device(1))]);

    // One whom the chain does not name stays outside.
    let ct = Shelf::with(&[2]);
    ct.records.lock().unwrap().extend_from_slice(b"another");
    bt.strangers.lock().unwrap().insert(device(3));
    let c = bind(3, ct).await;
    let refused = c.open(b.device(), &b.local_addrs(), PORTAL).await.unwrap_err();
    assert!(matches!(refused, NetError::Refused { .. }), "{refused}");
}

#[tokio::test]
async fn an_opener_learns_of_an_acceptor_that_it_has_not_heard_of() {
    let (at, bt) = (Shelf::with(&[]), Shelf::with(&[1]));
    bt.records.lock().unwrap().extend_from_slice(b"the chain");
    bt.heads.lock().unwrap().push(b"head".to_vec());
    at.strangers.lock().unwrap().insert(device(2));
    *at.learns.lock().unwrap() = Some((b"the chain".to_vec(), device(2)));
    let a = bind(1, at.clone()).await;
    let b = bind(2, bt.clone()).await;
    let session = a.open(b.device(), &b.local_addrs(), PORTAL).await.unwrap();
    until("the head", || at.seen().len() == 3).await;
    assert_eq!(at.seen()[2], Seen::Heard(device(2), News::Head(b"head".to_vec())));
    let id = bt.put(vec![1; 1000]);
    assert_eq!(events(&session, &[id]).await.len(), 2);
}

#[tokio::test]
async fn an_invite_is_redeemed_by_who_holds_it_and_the_reason_is_told_if_not() {
    let bt = Shelf::with(&[]);
    let b = bind(2, bt.clone()).await;
    let a = bind(1, Arc::new(Nothing)).await;
    let invite = Secret::new([50; 32]);
    let ask = || a.redeem(device(2), &[], &invite, [9; 32], "laptop");
    let addrs = b.local_addrs();
    let welcome = Welcome { members: vec![3; 300_000] };
    *bt.answer.lock().unwrap() = Some(Ok(welcome.clone()));
    let first = a.redeem(device(2), &addrs, &invite, [9; 32], "laptop").await;
    assert_eq!(first.unwrap(), welcome);
    let joiner =
        Joiner { device: device(1), invite: device(50), wrap: [9; 32], name: "laptop".to_owned() };
    assert_eq!(bt.seen(), [Seen::Redeemed(joiner)]);
    for why in [Denied::Expired, Denied::Used, Denied::Revoked, Denied::Unknown] {
        *bt.answer.lock().unwrap() = Some(Err(why));
        let denied = ask().await.unwrap_err();
        assert!(matches!(denied, NetError::Denied { why: told, .. } if told == why), "{denied}");
    }
}

#[tokio::test]
async fn an_invite_signed_for_another_connection_or_device_is_not_even_looked_at() {
    let bt = Shelf::with(&[]);
    *bt.answer.lock().unwrap() = Some(Ok(Welcome { members: vec![] }));
    let b = bind(2, bt.clone()).await;
    let invite = warp_format::keys::SigningKey::from_seed(&Secret::new([50; 32]));
    let mut raw = Raw::dial(1, b.local_addrs()[0]).await;
    let sign = |exporter: &[u8; 32], seed| {
        let redeem =
            warp_format::wire::Redeem::sign(&invite, exporter, &device(seed), [9; 32], "x");
        Frame::Redeem(redeem)
    };
    for frame in [sign(&[0; 32], 1), sign(&raw.exporter, 3)] {
        raw.say(&frame).await;
        assert_eq!(raw.hear().await, Ok(Frame::Denied { why: Denied::Unknown }));
    }
    assert_eq!(bt.seen(), []);
    let right = sign(&raw.exporter, 1);
    raw.say(&right).await;
    assert_eq!(raw.hear().await, Ok(Frame::Welcome { members: vec![] }));
}

#[tokio::test]
async fn a_peer_that_restarts_is_connected_again_and_its_old_session_ends() {
    let Pair { a, b, at: _at, bt, session } = pair().await;
    let addrs = b.local_addrs();
    drop(a);
    until("left", || bt.seen().last() == Some(&Seen::Left(PORTAL, device(1)))).await;
    let a = bind(1, Shelf::with(&[2])).await;
    let again = a.open(device(2), &addrs, PORTAL).await.unwrap();
    assert!(session.is_closed() && !again.is_closed());
    // A second endpoint of the same device takes the place of the first.
    let twin = bind(1, Shelf::with(&[2])).await;
    let newest = twin.open(device(2), &addrs, PORTAL).await.unwrap();
    until("replaced", || again.is_closed()).await;
    assert!(!newest.is_closed());
    assert_eq!(b.sessions(&PORTAL).len(), 1);
}

#[tokio::test]
async fn nobody_there_is_an_error_within_seconds() {
    let a = bind(1, Shelf::with(&[2])).await;
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let addrs = [silent.local_addr().unwrap(), a.local_addrs()[0]];
    let since = Instant::now();
    let error = a.open(device(2), &addrs, PORTAL).await.unwrap_err();
    assert!(matches!(error, NetError::Unreachable { tried: 2, .. }), "{error}");
    assert!(error.is_retryable() && since.elapsed() < Duration::from_secs(7));
    let none = a.open(device(2), &[], PORTAL).await.unwrap_err();
    assert!(none.to_string().contains("no usable address"), "{none}");
}

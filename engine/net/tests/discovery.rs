//! Two devices find each other on the loopback interface, by real mDNS
//! packets that go nowhere else.

mod common;

use common::device;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use warp_format::Secret;
use warp_net::{Discovery, Found, Scope};

fn key(byte: u8) -> Secret {
    Secret::new([byte; 32])
}

#[tokio::test]
async fn members_of_one_portal_find_each_other_and_strangers_do_not() {
    let start = |seed, port| Discovery::start(device(seed), port, Scope::Loopback).unwrap();
    let (one, mut one_finds) = start(1, 4001);
    let (two, mut two_finds) = start(2, 4002);
    let (three, mut three_finds) = start(3, 4003);
    let since = Instant::now();
    one.announce(vec![key(10), key(11)]);
    two.announce(vec![key(12), key(11)]);
    three.announce(vec![key(13)]);
    let first = |finds: Option<Found>| finds.expect("discovery goes on");
    let wait = Duration::from_secs(10);
    let found = tokio::time::timeout(wait, one_finds.recv()).await.expect("found in time");
    let at = |port| vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)];
    let expected = Found { portal: 1, device: device(2), addrs: at(4002) };
    assert_eq!(first(found), expected);
    let found = tokio::time::timeout(wait, two_finds.recv()).await.expect("found in time");
    assert_eq!(first(found), Found { portal: 1, device: device(1), addrs: at(4001) });
    println!("found each other after {:?}", since.elapsed());
    // The third heard them too, and cannot tell that it is a portal of its own.
    let none = tokio::time::timeout(Duration::from_millis(500), three_finds.recv()).await;
    assert!(none.is_err(), "{none:?}");
    // With the key, what was heard before means something at once.
    three.announce(vec![key(13), key(10)]);
    let found = tokio::time::timeout(wait, three_finds.recv()).await.expect("found in time");
    assert_eq!(first(found), Found { portal: 1, device: device(1), addrs: at(4001) });
}

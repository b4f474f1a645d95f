//! A member that lies, in this process, between an honest writer and a device
//! whose mount is read: it passes on what it is asked for, some of it spoilt.

use quinn::{RecvStream, SendStream};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use warp_format::keys::SigningKey;
use warp_format::portal::PortalRecord;
use warp_format::wire::{Answer, Frame, Have, Header, Request};
use warp_format::{ChunkId, DeviceId, Head, Keyring, Secret};
use warp_tests::device::Device;
use warp_tests::nasty::{mkdir, noise, write};

#[expect(dead_code, unreachable_pub, reason = "shared with the tests of warp-net")]
mod raw;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Every byte of the liar's seed: its key is known to the tests.
const LIAR: u8 = 66;

fn device(seed: u8) -> DeviceId {
    SigningKey::from_seed(&Secret::new([seed; 32])).device_id()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// Spoils each tenth chunk, the first one not.
    Corrupts,
    /// Ends each chunk early, and says that it is that long.
    Truncates,
    /// Says how long the chunk is, and no more.
    StallsAfterTheHeader,
    /// A hundred bytes a second.
    Slowloris,
    /// Has nothing of what it said that it has.
    HasNothing,
}

/// The member that lies, and what is known to it.
struct Liar {
    home: Device,
    access: Secret,
    writer: SocketAddr,
    victim: SocketAddr,
}

/// Where a device is, as another one that is connected to it says.
fn address(of: &Device, seen_by: &Device) -> SocketAddr {
    let members = of.warp(["portal", "status", "p", "--members", "--json"]).ok();
    let id = of.json(&members, "next(m['id'] for m in d['members'] if m['here'])");
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let peers = seen_by.warp(["peers", "--json"]).ok();
        let found = format!("next((p['address'] for p in d['peers'] if p['id'] == '{id}'), None)");
        if let Ok(address) = seen_by.json(&peers, &found).parse() {
            return address;
        }
        assert!(Instant::now() < until, "{id} is not connected");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A member joins with the real program, and what it is handed is read.
fn liar(writer: &Device, victim: &Device) -> Liar {
    let home = Device::without_key();
    let keyring = Keyring::new(Secret::new([9; 32]), Secret::new([LIAR; 32])).unwrap();
    mkdir(home.home());
    fs::write(home.home().join("keyring"), &*keyring.encode()).unwrap();
    join(writer, &home);
    let portals = fs::read_dir(home.home().join("portals")).unwrap();
    let mut records = portals.map(|entry| entry.unwrap().path().join("portal"));
    let record = records.find(|path| path.exists()).expect("the portal's record");
    let under = keyring.phrase().unwrap().owner_keys().1;
    let record = PortalRecord::open(&fs::read(record).unwrap(), &under).unwrap();
    let writer_at = address(writer, &home);
    home.warp(["down"]).ok();
    Liar { home, access: record.key.access(), writer: writer_at, victim: address(victim, writer) }
}

fn join(writer: &Device, other: &Device) {
    let invited = writer.warp(["portal", "invite", "p", "--json"]).ok();
    let ticket = writer.json(&invited, "d['ticket']");
    other.warp(["portal", "join", &ticket]).ok();
}

/// Opens the portal with a peer, and gives the head that it tells.
async fn opened(at: SocketAddr, access: &Secret) -> (raw::Raw, Head) {
    let mut peer = raw::Raw::dial(LIAR, at).await;
    assert!(matches!(peer.hello(access).await, Ok(Frame::Accepted { .. })));
    loop {
        if let Frame::Head { head, .. } = peer.hear().await.expect("the head is told") {
            let head = Head::open(&head).unwrap();
            return (peer, head);
        }
    }
}

/// One chunk, from the writer.
async fn fetched(writer: &quinn::Connection, id: ChunkId) -> Option<Vec<u8>> {
    let (mut send, mut receive) = writer.open_bi().await.ok()?;
    let request = Frame::Request(Request { session: 0, urgent: false, ids: vec![id] });
    send.write_all(&request.encode().unwrap()).await.ok()?;
    send.finish().ok()?;
    let answer = receive.read_to_end(8 << 20).await.ok()?;
    let (head, bytes) = answer.split_first_chunk::<{ Answer::LEN }>()?;
    matches!(Answer::decode(head), Ok(Answer::Found { .. })).then(|| bytes.to_vec())
}

/// Answers one request of the victim.
async fn answer(
    writer: quinn::Connection,
    (mut send, mut receive): (SendStream, RecvStream),
    manner: Manner,
    given: Arc<AtomicUsize>,
) -> Option<()> {
    let asked = receive.read_to_end(70_000).await.ok()?;
    let (header, rest) = asked.split_first_chunk::<{ Header::LEN }>()?;
    let Ok(Frame::Request(request)) = Frame::decode(Header::decode(header).ok()?, rest) else {
        return None;
    };
    for id in request.ids {
        let n = given.fetch_add(1, Ordering::SeqCst);
        if manner == Manner::HasNothing {
            send.write_all(&Answer::NotFound.encode()).await.ok()?;
            continue;
        }
        let mut bytes = fetched(&writer, id).await?;
        match manner {
            Manner::Corrupts if n % 10 == 1 => bytes[40] ^= 1,
            Manner::Truncates => bytes.truncate(bytes.len() / 2),
            _ => {}
        }
        let len = bytes.len() as u32;
        send.write_all(&Answer::Found { len }.encode()).await.ok()?;
        match manner {
            Manner::StallsAfterTheHeader => std::future::pending().await,
            Manner::Slowloris => {
                for some in bytes.chunks(10) {
                    send.write_all(some).await.ok()?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            _ => send.write_all(&bytes).await.ok()?,
        }
    }
    send.finish().ok()
}

/// Serves the victim in this manner for as long as it is not dropped.
async fn serve(liar: &Liar, manner: Manner, given: Arc<AtomicUsize>) {
    let (writer, head) = opened(liar.writer, &liar.access).await;
    let (mut victim, _) = opened(liar.victim, &liar.access).await;
    let whole = Have::Whole { roots: vec![head.root.id] };
    victim.say(&Frame::Have { session: 0, have: whole }).await;
    while let Ok(stream) = victim.connection.accept_bi().await {
        tokio::spawn(answer(writer.connection.clone(), stream, manner, Arc::clone(&given)));
    }
}

/// A writer, one who reads two files, and a liar; gives how many chunks the liar
/// was asked for with each file, and what the reader's log says of it.
fn read_beside(manner: Manner) -> ([usize; 2], String) {
    let [writer, victim] = [(); 2].map(|()| Device::new());
    writer.create("p");
    mkdir(&writer.m());
    // Slow enough that others are asked, too.
    writer.warp(["mount", "p", "m"]).env("WARP_LIMIT_PER_PEER", "6M").ok();
    let [bytes, later] = [77, 78].map(|seed| noise(8_000_000, seed));
    write(&writer.at("f"), &bytes);
    write(&writer.at("later"), &later);
    writer.sync();
    join(&writer, &victim);
    mkdir(&victim.m());
    victim.mount();
    let liar = liar(&writer, &victim);
    let (given, before) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut log = String::new();
    let counted = Arc::clone(&given);
    let peer = device(LIAR);
    std::thread::scope(|scope| {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (liar, runtime) = (&liar, &runtime);
        scope.spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(liar, manner, counted) => {}
                    _ = stopped => {}
                }
            });
        });
        std::thread::sleep(Duration::from_secs(1));
        let began = Instant::now();
        assert!(fs::read(victim.at("f")).unwrap() == bytes, "{manner:?}: other bytes");
        assert!(began.elapsed() < Duration::from_secs(20), "{manner:?}: {:?}", began.elapsed());
        // What it is in the middle of comes to its end.
        std::thread::sleep(Duration::from_millis(500));
        before.store(given.load(Ordering::SeqCst), Ordering::SeqCst);
        assert!(fs::read(victim.at("later")).unwrap() == later, "{manner:?}: other bytes");
        // Before it goes, which is logged, too.
        log = victim.log();
        drop(stop);
    });
    drop(liar.home);
    let (given, before) = (given.load(Ordering::SeqCst), before.into_inner());
    let of_it = |line: &&str| line.contains(&peer.to_string());
    ([before, given - before], log.lines().filter(of_it).collect())
}

/// What the log says once of a peer that is asked nothing more.
const FOUND_OUT: &str = "sent bytes that are not the chunk asked for";

#[test]
fn a_member_that_corrupts_a_chunk_in_ten_is_found_out_by_the_first_mount() {
    let (given, log) = read_beside(Manner::Corrupts);
    assert_eq!(log.matches(FOUND_OUT).count(), 1, "{log}");
    assert!(given[0] >= 2 && given[1] == 0, "{given:?} chunks were asked of it");
}

#[test]
fn a_member_that_cuts_chunks_short_is_found_out_by_the_first_mount() {
    let (given, log) = read_beside(Manner::Truncates);
    assert_eq!(log.matches(FOUND_OUT).count(), 1, "{log}");
    assert!(given[0] >= 1 && given[1] == 0, "{given:?} chunks were asked of it");
}

#[test]
fn a_member_that_stalls_after_the_header_or_drips_holds_nobody_up_mount() {
    for manner in [Manner::StallsAfterTheHeader, Manner::Slowloris] {
        let (given, log) = read_beside(manner);
        assert!(given[0] > 0, "{manner:?}: it was not asked");
        assert!(!log.contains(FOUND_OUT), "{log}");
    }
}

#[test]
fn a_member_that_has_not_what_it_said_is_no_liar_mount() {
    let (given, log) = read_beside(Manner::HasNothing);
    assert!(given[0] > 0, "it was not asked");
    assert!(!log.contains(FOUND_OUT) && !log.contains("disconnected"), "{log}");
}

//! How fast verified chunks travel over one session on the loopback interface,
//! beside raw QUIC with the same transport settings in the same process.
//! `cargo xtask bench net` runs it; figures go into docs/performance.md.

use quinn::congestion::BbrConfig;
use quinn::{EndpointConfig, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig};
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::unbounded_channel;
use warp_format::keys::SigningKey;
use warp_format::{ChunkId, DeviceId, PortalId, SealedChunk, Secret};
use warp_net::{
    Change, Changed, Denied, Endpoint, Event, Joiner, Listed, News, Rates, Request, Service,
    Session, Unchanged, Welcome,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PORTAL: PortalId = PortalId([7; 32]);
/// Bytes of one measurement.
const TOTAL: usize = 512 << 20;
/// Bytes asked for and not received.
const AHEAD: usize = 8 << 20;
const MTU: u16 = 6500;

/// A few chunks in memory.
struct Shelf(HashMap<ChunkId, SealedChunk>);

impl Service for Shelf {
    fn portals(&self) -> Vec<(PortalId, Secret)> {
        vec![(PORTAL, Secret::new([1; 32]))]
    }
    fn admits(&self, _: &PortalId, _: &DeviceId) -> bool {
        true
    }
    fn chunk(&self, _: &PortalId, id: &ChunkId) -> Option<SealedChunk> {
        self.0.get(id).cloned()
    }
    fn list(&self, _: &PortalId, _: u64) -> Listed {
        Listed::default()
    }
    fn change(&self, _: &PortalId, _: &DeviceId, _: Change) -> Changed {
        Changed::Unchanged { why: Unchanged::NotFounder }
    }
    fn heads(&self, _: &PortalId) -> Vec<Vec<u8>> {
        Vec::new()
    }
    fn members(&self, _: &PortalId, _: u64) -> Vec<u8> {
        Vec::new()
    }
    fn heard(&self, _: &PortalId, _: &DeviceId, _: News) {}
    fn redeem(&self, _: Joiner) -> Result<Welcome, Denied> {
        Err(Denied::Unknown)
    }
    fn joined(&self, _: Session) {}
    fn left(&self, _: &PortalId, _: &DeviceId) {}
}

fn main() -> Result<(), Failure> {
    // Two runtimes, as two devices have.
    let server = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for len in [64 << 10, 1 << 20] {
        let chunks: Vec<_> = (0..64u8).map(|n| SealedChunk::found(filled(n, len))).collect();
        let ids: Vec<_> = chunks.iter().map(SealedChunk::id).collect();
        let shelf = Arc::new(Shelf(chunks.into_iter().map(|chunk| (chunk.id(), chunk)).collect()));
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (warp, raw) = std::thread::scope(|scope| -> Result<_, Failure> {
            let server = &server;
            let served = shelf.clone();
            scope.spawn(move || {
                server.block_on(async move {
                    let warp = bind(2, served).await?;
                    let raw = raw_server(len)?;
                    let _ = tell.send((warp.local_addrs(), raw));
                    let _ = stopped.await;
                    warp.close().await;
                    Ok::<(), Failure>(())
                })
            });
            let (warp_addrs, raw_addr) = told.recv()?;
            let measured = client.block_on(async {
                let raw = raw_fetch(raw_addr, len).await?;
                let warp = warp_fetch(shelf.clone(), &warp_addrs, &ids, len).await?;
                let again = raw_fetch(raw_addr, len).await?;
                Ok::<_, Failure>((warp, f64::midpoint(raw, again)))
            });
            drop(stop);
            measured
        })?;
        println!(
            "{:>5} KiB chunks: warp (verified) {warp:.0} MiB/s, raw QUIC {raw:.0} MiB/s, ratio {:.2}",
            len >> 10,
            warp / raw
        );
    }
    Ok(())
}

fn filled(n: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(n)).collect()
}

async fn bind(seed: u8, shelf: Arc<Shelf>) -> Result<Endpoint, Failure> {
    Ok(Endpoint::bind(&Secret::new([seed; 32]), LOOPBACK, Rates::default(), shelf).await?)
}

fn mib_per_s(since: Instant) -> f64 {
    (TOTAL >> 20) as f64 / since.elapsed().as_secs_f64()
}

async fn warp_fetch(
    shelf: Arc<Shelf>,
    addrs: &[SocketAddr],
    ids: &[ChunkId],
    len: usize,
) -> Result<f64, Failure> {
    let client = bind(1, shelf).await?;
    let peer = SigningKey::from_seed(&Secret::new([2; 32])).device_id();
    let session = client.open(peer, addrs, PORTAL).await?;
    // Requests of 1 MiB, as many as are ahead.
    let in_one = ((1 << 20) / len).max(1);
    let (tell, mut told) = unbounded_channel();
    let mut requests: VecDeque<Request> = VecDeque::new();
    let mut ask = |number: usize| {
        let start = number * in_one;
        let some = (start..start + in_one).filter_map(|i| ids.get(i % ids.len()).copied());
        requests.push_back(session.request(number as u64, some.collect::<Vec<_>>(), tell.clone()));
    };
    let since = Instant::now();
    let mut asked = AHEAD >> 20;
    (0..asked).for_each(&mut ask);
    let mut got = 0;
    while got < TOTAL {
        match told.recv().await.ok_or("no more events")? {
            Event::Chunk { id, bytes, .. } => got += bytes.verify(id)?.bytes().len(),
            Event::Done { .. } if asked < TOTAL >> 20 => {
                ask(asked);
                asked += 1;
            }
            Event::Failed { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
    let rate = mib_per_s(since);
    client.close().await;
    Ok(rate)
}

fn transport() -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU);
    let mut config = TransportConfig::default();
    config
        .stream_receive_window((16u32 << 20).into())
        .receive_window((16u32 << 20).into())
        .send_window(16 << 20)
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(BbrConfig::default()));
    Arc::new(config)
}

fn endpoint(server: Option<ServerConfig>) -> Result<quinn::Endpoint, Failure> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(MTU)?;
    let socket = std::net::UdpSocket::bind(LOOPBACK)?;
    // As warp's own socket, or the kernel drops what comes in bursts.
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
    socket2::SockRef::from(&socket).set_send_buffer_size(4 << 20)?;
    Ok(quinn::Endpoint::new(config, server, socket, Arc::new(TokioRuntime))?)
}

/// Answers each stream with 1 MiB.
fn raw_server(len: usize) -> Result<SocketAddr, Failure> {
    let mut config = ServerConfig::with_crypto(Arc::new(raw::server()?));
    config.transport_config(transport());
    let endpoint = endpoint(Some(config))?;
    let addr = endpoint.local_addr()?;
    let bytes = filled(1, len);
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let connection = incoming.await?;
                while let Ok((mut send, _)) = connection.accept_bi().await {
                    let bytes = bytes.clone();
                    tokio::spawn(async move {
                        for _ in 0..((1 << 20) / bytes.len()).max(1) {
                            send.write_all(&bytes).await?;
                        }
                        Ok::<(), Failure>(())
                    });
                }
                Ok::<(), Failure>(())
            });
        }
    });
    Ok(addr)
}

async fn raw_fetch(addr: SocketAddr, len: usize) -> Result<f64, Failure> {
    let endpoint = endpoint(None)?;
    let mut config = quinn::ClientConfig::new(Arc::new(raw::client()?));
    config.transport_config(transport());
    let connection = endpoint.connect_with(config, addr, "raw")?.await?;
    let since = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..AHEAD >> 20 {
        let connection = connection.clone();
        tasks.spawn(async move {
            let mut buffer = vec![0; len];
            for _ in 0..TOTAL / AHEAD {
                let (mut send, mut receive) = connection.open_bi().await?;
                send.write_all(&[1]).await?;
                send.finish()?;
                while receive.read(&mut buffer).await?.is_some() {}
            }
            Ok::<(), Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let rate = mib_per_s(since);
    connection.close(0u32.into(), b"");
    Ok(rate)
}

/// QUIC without anything of warp's: no verification of the other side.
mod raw;

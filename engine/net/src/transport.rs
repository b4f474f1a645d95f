//! The QUIC transport: sockets, windows, packet sizes, congestion control.
//!
//! Step *transport*, between `tls` and `endpoint`. Promises: what a connection
//! may make this device hold is bounded before its peer has proved anything;
//! packets grow to what the path carries, and no further than what one system
//! call of ten segments can. Never: takes the default of a library where
//! a measurement speaks against it (CUBIC: 8 % of a link at 1 % loss).
//! Tested by `tests/identity.rs`, `tests/bounds.rs`.

use crate::error::{NetError, Result};
use crate::limits::{
    FIRST_WINDOW_BYTES, IDLE, INCOMING_BYTES, INCOMING_MAX, KEEP_ALIVE, LOBBY_WINDOW_BYTES,
    MTU_MAX_BYTES, SOCKET_BUFFER_BYTES, WINDOW_BYTES,
};
use crate::tls::Identity;
use quinn::congestion::BbrConfig;
use quinn::{
    EndpointConfig, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use warp_format::DeviceId;

/// `streams`: what the other side may open before the first session.
fn transport(streams: u32) -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX_BYTES);
    let mut bbr = BbrConfig::default();
    bbr.initial_window(FIRST_WINDOW_BYTES);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(WINDOW_BYTES.into())
        .receive_window(LOBBY_WINDOW_BYTES.into())
        .send_window(WINDOW_BYTES.into())
        .max_idle_timeout(Some(VarInt::from_u32(IDLE.as_millis() as u32).into()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(bbr));
    Arc::new(config)
}

/// What a connection may carry once its peer has proved that it is a member.
pub(crate) fn open_wide(connection: &quinn::Connection, streams: u32) {
    connection.set_receive_window(WINDOW_BYTES.into());
    connection.set_max_concurrent_bi_streams(streams.into());
}

/// A socket with both roles.
pub(crate) fn listen(identity: &Identity, addr: SocketAddr) -> Result<quinn::Endpoint> {
    let failed = |error: io::Error| NetError::Listen { addr, kind: error.kind() };
    let socket = std::net::UdpSocket::bind(addr).map_err(failed)?;
    // The kernel gives what it may; less is slower, and no reason to stop.
    let buffers = socket2::SockRef::from(&socket);
    let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = buffers.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    let crypto = identity.server().map_err(|error| failed(io::Error::other(error)))?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(transport(1))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES * INCOMING_MAX as u64);
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(MTU_MAX_BYTES).map_err(|error| failed(io::Error::other(error)))?;
    quinn::Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime)).map_err(failed)
}

/// How to dial this very device.
pub(crate) fn dial(identity: &Identity, peer: DeviceId) -> Result<quinn::ClientConfig, String> {
    let crypto = identity.client(peer).map_err(|error| error.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(0));
    Ok(config)
}

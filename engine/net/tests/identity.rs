//! Who may connect at all: a device that shows its key, as the device that was
//! dialled, by TLS 1.3 and `warp/1`.

mod common;

use common::raw::{Raw, attempt, honest, key, listen, tls};
use common::{LOOPBACK, PORTAL, Shelf, access, bind, device};
use quinn::Side;
use quinn::crypto::{ClientConfig, ExportKeyingMaterialError, KeyPair, Keys, PacketKey, Session};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use std::any::Any;
use std::sync::Arc;
use warp_format::wire::{ALPN, Frame};
use warp_net::{NetError, Reach};

/// A member's endpoint, and what is said of attempts to connect to it.
async fn refused(config: quinn::ClientConfig) -> String {
    let shelf = Shelf::with(&[1]);
    let b = bind(2, shelf.clone()).await;
    let said = attempt(b.local_addrs()[0], config).await.expect_err("a connection");
    assert_eq!(shelf.seen(), []);
    said
}

#[tokio::test]
async fn the_device_that_is_dialled_or_none() {
    let b = bind(2, Shelf::with(&[1])).await;
    let a = bind(1, Shelf::with(&[2, 3])).await;
    let addr = b.local_addrs()[0];
    let error = a.open(device(3), &[addr], PORTAL).await.unwrap_err();
    let NetError::Unreachable { last: Reach::OtherDevice { addr: at }, tried: 1, .. } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(*at, addr);
    assert!(error.to_string().contains("is another device"), "{error}");
    // Among several addresses the right one is found.
    let decoys = [bind(4, Shelf::with(&[])).await, bind(5, Shelf::with(&[])).await];
    let mut addrs: Vec<_> = decoys.iter().flat_map(|decoy| decoy.local_addrs()).collect();
    addrs.push(addr);
    assert_eq!(a.open(device(2), &addrs, PORTAL).await.unwrap().peer(), device(2));
    let own = a.open(device(1), &a.local_addrs(), PORTAL).await.unwrap_err();
    assert!(matches!(own, NetError::Unreachable { tried: 0, .. }), "{own}");
}

#[tokio::test]
async fn without_a_client_key_there_is_no_connection() {
    let said = refused(quinn::ClientConfig::new(Arc::new(tls(None, ALPN)))).await;
    assert!(said.ends_with("error 116: peer sent no certificates"), "{said}");
}

#[tokio::test]
async fn another_protocol_is_refused() {
    for alpn in [b"warp/2".as_slice(), b"h3"] {
        let config = quinn::ClientConfig::new(Arc::new(tls(Some(key(1, 1)), alpn)));
        let said = refused(config).await;
        assert!(said.ends_with("error 120: peer doesn't support any known protocol"), "{said}");
    }
}

#[tokio::test]
async fn a_key_that_did_not_sign_the_handshake_is_refused_on_both_sides() {
    let swapped = quinn::ClientConfig::new(Arc::new(tls(Some(key(1, 9)), ALPN)));
    let said = refused(swapped).await;
    assert!(said.ends_with("error 51: invalid peer certificate: BadSignature"), "{said}");

    let server = listen(key(2, 9));
    let addr = server.local_addr().unwrap();
    let accepting = tokio::spawn(async move { server.accept().await.unwrap().await.err() });
    let a = bind(1, Shelf::with(&[2])).await;
    let error = a.open(device(2), &[addr], PORTAL).await.unwrap_err();
    assert!(matches!(error, NetError::Unreachable { last: Reach::Failed { .. }, .. }), "{error}");
    assert!(accepting.await.unwrap().is_some());
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let inner: Arc<dyn ClientConfig> = Arc::new(tls(Some(key(1, 1)), ALPN));
    let said = refused(quinn::ClientConfig::new(Arc::new(OnlyTls12(inner.clone())))).await;
    assert!(said.ends_with("error 70: peer is incompatible: Tls12NotOfferedOrEnabled"), "{said}");
    // The same client with nothing changed is let in.
    let b = bind(2, Shelf::with(&[1])).await;
    assert_eq!(attempt(b.local_addrs()[0], quinn::ClientConfig::new(inner)).await, Ok(()));
}

#[tokio::test]
async fn nothing_is_resumed_and_nothing_sent_early() {
    let b = bind(2, Shelf::with(&[1])).await;
    let addr = b.local_addrs()[0];
    let endpoint = quinn::Endpoint::client(LOOPBACK).unwrap();
    let config = honest(1);
    for _ in 0..3 {
        let connecting = endpoint.connect_with(config.clone(), addr, "warp").unwrap();
        let Err(connecting) = connecting.into_0rtt() else { panic!("early data was possible") };
        let connection = connecting.await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        connection.close(common::raw::NO_CODE, b"");
    }
    // And the client of the product takes no ticket, whatever is offered.
    let mut raw = Raw::dial(1, addr).await;
    assert!(matches!(raw.hello(&access()).await, Ok(Frame::Accepted { .. })));
}

/// A client whose first message offers TLS 1.2 and nothing newer.
struct OnlyTls12(Arc<dyn ClientConfig>);

impl ClientConfig for OnlyTls12 {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, quinn::ConnectError> {
        Ok(Box::new(Older(self.0.clone().start_session(version, name, params)?)))
    }
}

struct Older(Box<dyn Session>);

impl Session for Older {
    fn initial_keys(&self, id: &quinn::ConnectionId, side: Side) -> Keys {
        self.0.initial_keys(id, side)
    }
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let start = buf.len();
        let keys = self.0.write_handshake(buf);
        // The extension supported_versions, with TLS 1.3 as its one entry.
        let offer = [0, 0x2b, 0, 3, 2, 3, 4];
        if let Some(at) = buf[start..].windows(offer.len()).position(|bytes| bytes == offer) {
            buf[start + at + 6] = 3;
        }
        keys
    }
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()
    }
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }
    fn early_crypto(&self) -> Option<(Box<dyn quinn::crypto::HeaderKey>, Box<dyn PacketKey>)> {
        self.0.early_crypto()
    }
    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }
    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.0.read_handshake(buf)
    }
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.0.transport_parameters()
    }
    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.0.next_1rtt_keys()
    }
    fn is_valid_retry(&self, id: &quinn::ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(id, header, payload)
    }
    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}

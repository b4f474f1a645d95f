//! A peer whose handshake and frames are the test's: for the tests of warp-net, too.

use super::{LOOPBACK, device};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use std::net::SocketAddr;
use std::sync::Arc;
use warp_format::wire::{ALPN, EXPORTER_LABEL, Frame, Header, Role, proof};
use warp_format::{DeviceId, Secret};

/// Shows the key of one seed and signs with that of another.
pub fn key(shown: u8, signing: u8) -> Arc<CertifiedKey> {
    let mut pkcs8 = vec![
        0x30, 0x2e, 0x02, 0x01, 0, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ];
    pkcs8.extend_from_slice(&[signing; 32]);
    let signer = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).unwrap();
    let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];
    spki.extend_from_slice(&device(shown).0);
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer))
}

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// No key at all.
#[derive(Debug)]
struct NoKey;

impl ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }
    fn only_raw_public_keys(&self) -> bool {
        true
    }
    fn has_certs(&self) -> bool {
        true
    }
}

pub fn tls(key: Option<Arc<CertifiedKey>>, alpn: &[u8]) -> QuicClientConfig {
    let resolver: Arc<dyn ResolvesClientCert> = match key {
        Some(key) => Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)),
        None => Arc::new(NoKey),
    };
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_client_cert_resolver(resolver);
    config.alpn_protocols = vec![alpn.to_vec()];
    QuicClientConfig::try_from(config).unwrap()
}

pub fn honest(seed: u8) -> quinn::ClientConfig {
    quinn::ClientConfig::new(Arc::new(tls(Some(key(seed, seed)), ALPN)))
}

/// Dials, and waits for the other side's last word if there is one soon: who
/// dials is done with the handshake before who is dialled.
pub async fn attempt(addr: SocketAddr, config: quinn::ClientConfig) -> Result<(), String> {
    let endpoint = quinn::Endpoint::client(LOOPBACK).unwrap();
    let connection =
        endpoint.connect_with(config, addr, "warp").unwrap().await.map_err(|e| e.to_string())?;
    match tokio::time::timeout(std::time::Duration::from_millis(500), connection.closed()).await {
        Ok(error) => Err(error.to_string()),
        Err(_) => Ok(()),
    }
}

/// A peer at the level of frames.
pub struct Raw {
    pub endpoint: quinn::Endpoint,
    pub connection: Connection,
    pub send: SendStream,
    pub receive: RecvStream,
    pub exporter: [u8; 32],
    pub device: DeviceId,
}

impl Raw {
    pub async fn dial(seed: u8, addr: SocketAddr) -> Self {
        Self::dial_with(seed, addr, honest(seed)).await
    }

    pub async fn dial_with(seed: u8, addr: SocketAddr, config: quinn::ClientConfig) -> Self {
        let endpoint = quinn::Endpoint::client(LOOPBACK).unwrap();
        let connection = endpoint.connect_with(config, addr, "warp").unwrap().await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        let exporter = exporter(&connection);
        Self { endpoint, connection, send, receive, exporter, device: device(seed) }
    }

    pub async fn say(&mut self, frame: &Frame) {
        // A peer that has been cut off learns so from what it hears.
        let _ = self.send.write_all(&frame.encode().unwrap()).await;
    }

    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = self.send.write_all(bytes).await;
    }

    /// The next frame, or why there is none.
    pub async fn hear(&mut self) -> Result<Frame, String> {
        hear(&self.connection, &mut self.receive).await
    }

    pub fn proof(&self, access: &Secret) -> [u8; 32] {
        proof(access, Role::Opener, &self.exporter, &self.device)
    }

    /// Opens the portal as session 0.
    pub async fn hello(&mut self, access: &Secret) -> Result<Frame, String> {
        let proof = self.proof(access);
        self.say(&Frame::Hello { session: 0, proof }).await;
        self.hear().await
    }

    /// The reason with which the other side ends the connection.
    pub async fn reason(&self) -> String {
        let closed = self.connection.closed();
        match tokio::time::timeout(std::time::Duration::from_secs(10), closed).await {
            Ok(error) => reason(&error),
            Err(_) => "none: the connection goes on".to_owned(),
        }
    }
}

pub fn exporter(connection: &Connection) -> [u8; 32] {
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").unwrap();
    exporter
}

pub async fn hear(connection: &Connection, receive: &mut RecvStream) -> Result<Frame, String> {
    let mut header = [0; Header::LEN];
    if receive.read_exact(&mut header).await.is_err() {
        let error = tokio::time::timeout(std::time::Duration::from_secs(10), connection.closed());
        return Err(error.await.map_or("the stream ended".to_owned(), |error| reason(&error)));
    }
    let header = Header::decode(&header).unwrap();
    let mut rest = vec![0; header.rest()];
    receive.read_exact(&mut rest).await.map_err(|e| e.to_string())?;
    Ok(Frame::decode(header, &rest).unwrap())
}

fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            format!("{}: {}", close.error_code, String::from_utf8_lossy(&close.reason))
        }
        other => other.to_string(),
    }
}

/// A peer that is dialled.
pub fn listen(key: Arc<CertifiedKey>) -> quinn::Endpoint {
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(AnyClient))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(config).unwrap();
    let server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    quinn::Endpoint::server(server, LOOPBACK).unwrap()
}

/// Accepts one connection of `dialler`, and its `Hello`.
pub async fn accept(endpoint: &quinn::Endpoint, seed: u8, access: &Secret) -> Raw {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (send, receive) = connection.accept_bi().await.unwrap();
    let exporter = exporter(&connection);
    let endpoint = endpoint.clone();
    let mut raw = Raw { endpoint, connection, send, receive, exporter, device: device(seed) };
    let Ok(Frame::Hello { session, .. }) = raw.hear().await else { panic!("no hello") };
    let proof = proof(access, Role::Acceptor, &raw.exporter, &raw.device);
    raw.say(&Frame::Accepted { session, proof }).await;
    raw
}

#[derive(Debug)]
struct AnyClient;

impl rustls::server::danger::ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<rustls::server::danger::ClientCertVerified, Error> {
        Ok(rustls::server::danger::ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

pub const NO_CODE: VarInt = VarInt::from_u32(0);

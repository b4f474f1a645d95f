//! Who is at the other end: TLS 1.3 between raw Ed25519 keys.
//!
//! Step *identity* of every connection, before any frame. Promises: both
//! sides show an Ed25519 key as RFC 7250 has it and sign the handshake with
//! it; a dialled connection exists only if that key is the device dialled;
//! ALPN is `warp/1` or there is no connection; no session is resumed and
//! nothing is sent before the handshake is over. Never: offers a way around
//! any of this. This is the one module that calls `dangerous()`, which is
//! rustls' word for bringing a verifier of one's own.
//! Tested by `tests/identity.rs`.

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};
use std::sync::Arc;
use warp_format::keys::SigningKey;
use warp_format::wire::ALPN;
use warp_format::{DeviceId, Secret};
use zeroize::Zeroizing;

/// What stands before the 32 bytes of an Ed25519 key in its DER form
/// (SubjectPublicKeyInfo, RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];
/// The same of a seed in PKCS #8.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// This device in handshakes.
pub(crate) struct Identity {
    device: DeviceId,
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

impl Identity {
    /// From the seed of the device's signing key.
    pub(crate) fn new(seed: &Secret) -> Result<Self, Error> {
        let device = SigningKey::from_seed(seed).device_id();
        let mut pkcs8 = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + 32));
        pkcs8.extend_from_slice(&PKCS8_PREFIX);
        pkcs8.extend_from_slice(seed.expose());
        let signer = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()));
        let spki = [SPKI_PREFIX.as_slice(), &device.0].concat();
        let key = CertifiedKey::new(vec![CertificateDer::from(spki)], signer?);
        Ok(Self { device, key: Arc::new(key), provider: Arc::new(provider()) })
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.device
    }

    /// For connections that others dial.
    pub(crate) fn server(&self) -> Result<QuicServerConfig, Error> {
        let verifier = AnyDevice { provider: self.provider.clone() };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.key.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        QuicServerConfig::try_from(config)
            .map_err(|_| Error::General("no initial cipher suite".to_owned()))
    }

    /// For dialling this very device.
    pub(crate) fn client(&self, peer: DeviceId) -> Result<QuicClientConfig, Error> {
        let verifier = ThisDevice { peer, provider: self.provider.clone() };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                self.key.clone(),
            )));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        QuicClientConfig::try_from(config)
            .map_err(|_| Error::General("no initial cipher suite".to_owned()))
    }
}

/// One signature scheme and one key exchange; AES-128 first, the fastest of
/// those that *ring* has (ten per cent of the whole transfer before AES-256).
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    }
}

/// The device whose key this is, if it is an Ed25519 key in its one DER form.
fn device_of(key: &CertificateDer<'_>) -> Result<DeviceId, Error> {
    let bytes = key.strip_prefix(SPKI_PREFIX.as_slice());
    let device = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    device.map(DeviceId).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// The device at the other end of a connection whose handshake is over.
pub(crate) fn peer_of(connection: &quinn::Connection) -> Option<DeviceId> {
    let identity = connection.peer_identity()?;
    let keys = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    device_of(keys.first()?).ok()
}

fn verify_signature(
    provider: &CryptoProvider,
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(Error::InvalidCertificate(CertificateError::BadSignature));
    }
    let key = SubjectPublicKeyInfoDer::from(key.as_ref());
    let known = &provider.signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(message, &key, signature, known)
}

/// Takes one device and no other.
#[derive(Debug)]
struct ThisDevice {
    peer: DeviceId,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ThisDevice {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if device_of(key)? == self.peer && others.is_empty() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.provider, message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Takes any device that shows its key: what it may learn is decided by what
/// it proves afterwards.
#[derive(Debug)]
struct AnyDevice {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyDevice {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        device_of(key)?;
        if others.is_empty() {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::BadEncoding))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.provider, message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

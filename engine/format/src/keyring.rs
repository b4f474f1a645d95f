//! The keyring: what a device must keep to be itself.
//!
//! Promises: sealed, it shows nothing without the passphrase; a changed byte
//! is noticed. Never: touches a disk. Tested by the unit tests below and fuzz
//! target `keyring`.

use crate::bytes::Reader;
use crate::error::{FormatError, Result};
use crate::id::DeviceId;
use crate::keys::{
    ArgonCost, PassphraseSlot, RecoveryPhrase, Secret, SigningKey, verify_signature,
};
use crate::limits::{VERSION, check_version};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

const MAGIC: [u8; 8] = *b"\x93WARPkey";
const CERTIFICATE: &str = "warp v1 device certificate";
const HEAD_LEN: usize = 12;
const BODY_LEN: usize = 32 + 32 + 64;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
const CHECK_LEN: usize = 32;

/// Fresh random bytes for sealing a keyring: file key, salt and nonce.
pub struct KeyringRandom {
    /// Key of the file.
    pub file_key: Secret,
    /// Salt of the passphrase.
    pub salt: [u8; 16],
    /// Nonce of the file.
    pub nonce: [u8; NONCE_LEN],
}

/// The owner's phrase and this device's key, which the owner certifies.
pub struct Keyring {
    entropy: Secret,
    device: Secret,
    certificate: [u8; 64],
}

impl Keyring {
    /// A keyring for this owner and a new device key (32 fresh random bytes).
    pub fn new(entropy: Secret, device: Secret) -> Result<Self> {
        let (owner, _) = RecoveryPhrase::from_entropy(&entropy)?.owner_keys();
        let id = SigningKey::from_seed(&device).device_id();
        let certificate = owner.sign(CERTIFICATE, &id.0);
        Ok(Self { entropy, device, certificate })
    }

    /// The owner's recovery phrase.
    pub fn phrase(&self) -> Result<RecoveryPhrase> {
        RecoveryPhrase::from_entropy(&self.entropy)
    }

    /// The owner's public key.
    pub fn owner_id(&self) -> Result<DeviceId> {
        Ok(self.phrase()?.owner_keys().0.device_id())
    }

    /// This device's signing key.
    pub fn device_key(&self) -> SigningKey {
        SigningKey::from_seed(&self.device)
    }

    /// The seed of that key, for those who sign in its name.
    pub fn device_secret(&self) -> Secret {
        self.device.clone()
    }

    /// The keyring's bytes, readable by whoever has the file.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(self.head(false));
        self.put_body(&mut out);
        finish(&mut out);
        out
    }

    /// The keyring's bytes, sealed under a passphrase.
    pub fn seal(
        &self,
        passphrase: &[u8],
        cost: ArgonCost,
        random: &KeyringRandom,
    ) -> Result<Vec<u8>> {
        let mut out = self.head(true);
        PassphraseSlot::wrap(&random.file_key, passphrase, cost, random.salt)?.encode(&mut out);
        out.extend_from_slice(&random.nonce);
        let associated = out.clone();
        let mut body = Zeroizing::new(Vec::with_capacity(BODY_LEN));
        self.put_body(&mut body);
        let tag = aead(&random.file_key)
            .encrypt_inout_detached(
                &XNonce::from(random.nonce),
                &associated,
                body.as_mut_slice().into(),
            )
            .map_err(|_| FormatError::Invalid { at: "keyring" })?;
        out.extend_from_slice(&body);
        out.extend_from_slice(&tag);
        finish(&mut out);
        Ok(out)
    }

    fn head(&self, sealed: bool) -> Vec<u8> {
        [MAGIC.as_slice(), &[VERSION, u8::from(sealed), 0, 0]].concat()
    }

    fn put_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.entropy.expose());
        out.extend_from_slice(self.device.expose());
        out.extend_from_slice(&self.certificate);
    }

    /// Whether these bytes are a keyring, and whether it is sealed.
    pub fn is_sealed(bytes: &[u8]) -> Result<bool> {
        let at = "keyring";
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::NotA { what: "warp keyring" });
        }
        let mut r = Reader::new(bytes);
        r.take(MAGIC.len(), at)?;
        let version = r.u8(at)?;
        check_version(at, version)?;
        let (body, check) =
            bytes.split_last_chunk::<CHECK_LEN>().ok_or(FormatError::Truncated { at })?;
        if blake3::hash(body).as_bytes() != check {
            return Err(FormatError::Checksum { at });
        }
        match r.array::<3>(at)? {
            [0, 0, 0] => Ok(false),
            [1, 0, 0] => Ok(true),
            _ => Err(FormatError::Invalid { at }),
        }
    }

    /// The keyring in these bytes; a sealed one needs its passphrase.
    pub fn open(bytes: &[u8], passphrase: Option<&[u8]>) -> Result<Self> {
        let at = "keyring";
        let sealed = Self::is_sealed(bytes)?;
        let mut r = Reader::new(bytes);
        r.take(HEAD_LEN, at)?;
        if !sealed {
            return Self::decode_body(&mut r);
        }
        let passphrase = passphrase.ok_or(FormatError::Locked)?;
        let file_key = PassphraseSlot::decode(&mut r)?.unwrap(passphrase)?;
        let nonce = r.array::<NONCE_LEN>(at)?;
        let associated = &bytes[..HEAD_LEN + PassphraseSlot::LEN + NONCE_LEN];
        let mut body = Zeroizing::new(r.take(BODY_LEN, at)?.to_vec());
        let tag = Tag::from(r.array::<TAG_LEN>(at)?);
        aead(&file_key)
            .decrypt_inout_detached(
                &XNonce::from(nonce),
                associated,
                body.as_mut_slice().into(),
                &tag,
            )
            .map_err(|_| FormatError::Checksum { at })?;
        r.take(CHECK_LEN, at)?;
        r.end(at)?;
        let mut body = [body.as_slice(), &[0; CHECK_LEN]].concat();
        let opened = Self::decode_body(&mut Reader::new(&body));
        zeroize::Zeroize::zeroize(&mut body);
        opened
    }

    fn decode_body(r: &mut Reader<'_>) -> Result<Self> {
        let at = "keyring";
        let (entropy, device) = (Secret::new(r.array(at)?), Secret::new(r.array(at)?));
        let keyring = Self { entropy, device, certificate: r.array(at)? };
        if r.remaining() != CHECK_LEN {
            return Err(FormatError::Invalid { at });
        }
        let owner = keyring.owner_id()?;
        let device = keyring.device_key().device_id();
        verify_signature(&owner, CERTIFICATE, &device.0, &keyring.certificate, "keyring")?;
        Ok(keyring)
    }
}

fn aead(key: &Secret) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&chacha20poly1305::Key::from(*key.expose()))
}

fn finish(out: &mut Vec<u8>) {
    let check = blake3::hash(out);
    out.extend_from_slice(check.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: ArgonCost = ArgonCost { memory_kib: 64, passes: 1, lanes: 1 };

    fn keyring() -> Keyring {
        Keyring::new(Secret::new([1; 32]), Secret::new([2; 32])).unwrap()
    }

    fn random() -> KeyringRandom {
        KeyringRandom { file_key: Secret::new([3; 32]), salt: [4; 16], nonce: [5; 24] }
    }

    #[test]
    fn a_keyring_comes_back_open_and_sealed() {
        let id = keyring().device_key().device_id();
        let open = keyring().encode();
        assert_eq!(Keyring::open(&open, None).unwrap().device_key().device_id(), id);
        let sealed = keyring().seal(b"pass", CHEAP, &random()).unwrap();
        assert_eq!(Keyring::open(&sealed, Some(b"pass")).unwrap().device_key().device_id(), id);
        assert_eq!(Keyring::open(&sealed, None).err(), Some(FormatError::Locked));
        let wrong = FormatError::WrongKey { what: "passphrase" };
        assert_eq!(Keyring::open(&sealed, Some(b"pasS")).err(), Some(wrong));
    }

    #[test]
    fn a_sealed_keyring_holds_no_secret_in_the_clear() {
        let sealed = keyring().seal(b"pass", CHEAP, &random()).unwrap();
        for secret in [[1u8; 32], [2; 32], [3; 32]] {
            assert!(!sealed.windows(32).any(|w| w == secret));
        }
    }

    #[test]
    fn no_changed_byte_of_a_keyring_passes() {
        for bytes in [keyring().encode().to_vec(), keyring().seal(b"p", CHEAP, &random()).unwrap()]
        {
            for i in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[i] ^= 4;
                assert!(Keyring::open(&bad, Some(b"p")).is_err(), "byte {i}");
                assert!(Keyring::open(&bytes[..i], Some(b"p")).is_err(), "cut at {i}");
            }
        }
    }
}

//! Secrets, wrapped to one device's key.
//!
//! Neighbours: a membership record carries them. Promises: only the device
//! whose key it is opens them, and only for the portal that they are of; a
//! changed byte is noticed. Never: uses a key twice (each is made with a fresh
//! one of the sender's). Tested by the unit tests below and fuzz target
//! `members`.

use crate::bytes::Reader;
use crate::error::{FormatError, Result};
use crate::id::PortalId;
use crate::keys::{SINGLE_USE_NONCE, Secret};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const AT: &str = "wrapped secrets";
const CONTEXT: &str = "warp v1 wrapped secrets";
const TAG_LEN: usize = 16;
const BODY_LEN: usize = 1 + 32 + 32;

/// A device's key to which secrets are wrapped.
pub struct WrapKey(StaticSecret);

impl WrapKey {
    /// Of the device with this signing seed.
    pub fn of_device(seed: &Secret) -> Self {
        Self(StaticSecret::from(*seed.for_wraps().expose()))
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }
}

/// What a new member is handed.
pub struct Handed {
    /// Shows to other members that one is a member: everybody has it.
    pub access: Secret,
    /// Everything derives from it; who may read nothing has none.
    pub root: Option<Secret>,
}

impl Handed {
    /// Wraps them to a device's public key. `fresh` must be random, and used
    /// for nothing else.
    pub fn wrap(&self, portal: &PortalId, to: &[u8; 32], fresh: &Secret) -> Result<Vec<u8>> {
        let ours = StaticSecret::from(*fresh.expose());
        let sender = PublicKey::from(&ours).to_bytes();
        let cipher = cipher(&ours, portal, to, &sender, to)?;
        let mut body = Zeroizing::new(Vec::with_capacity(BODY_LEN));
        body.push(u8::from(self.root.is_some()));
        body.extend_from_slice(self.access.expose());
        match &self.root {
            Some(root) => body.extend_from_slice(root.expose()),
            None => body.extend_from_slice(&[0; 32]),
        }
        let tag = cipher
            .encrypt_inout_detached(&Nonce::from(SINGLE_USE_NONCE), &[], body.as_mut_slice().into())
            .map_err(|_| FormatError::Invalid { at: AT })?;
        Ok([sender.as_slice(), &body, &tag].concat())
    }

    /// What was wrapped to this device.
    pub fn unwrap(bytes: &[u8], portal: &PortalId, key: &WrapKey) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let sender = r.array::<32>(AT)?;
        let mut body = Zeroizing::new(r.take(BODY_LEN, AT)?.to_vec());
        let tag = Tag::from(r.array::<TAG_LEN>(AT)?);
        r.end(AT)?;
        cipher(&key.0, portal, &sender, &sender, &key.public())?
            .decrypt_inout_detached(
                &Nonce::from(SINGLE_USE_NONCE),
                &[],
                body.as_mut_slice().into(),
                &tag,
            )
            .map_err(|_| FormatError::WrongKey { what: "key for wrapped secrets" })?;
        let mut r = Reader::new(&body);
        let has_root = match r.u8(AT)? {
            0 => false,
            1 => true,
            _ => return Err(FormatError::Invalid { at: AT }),
        };
        let (access, root) = (Secret::new(r.array(AT)?), Secret::new(r.array(AT)?));
        Ok(Self { access, root: has_root.then_some(root) })
    }
}

fn cipher(
    ours: &StaticSecret,
    portal: &PortalId,
    theirs: &[u8; 32],
    sender: &[u8; 32],
    receiver: &[u8; 32],
) -> Result<ChaCha20Poly1305> {
    let shared = ours.diffie_hellman(&PublicKey::from(*theirs));
    // A key of low order would give the same to everybody.
    if !shared.was_contributory() {
        return Err(FormatError::Invalid { at: AT });
    }
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(shared.as_bytes()).update(&portal.0).update(sender).update(receiver);
    let key = Zeroizing::new(*hasher.finalize().as_bytes());
    Ok(ChaCha20Poly1305::new(&chacha20poly1305::Key::from(*key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(root: bool) -> Handed {
        Handed { access: Secret::new([5; 32]), root: root.then(|| Secret::new([6; 32])) }
    }

    #[test]
    fn what_is_wrapped_opens_for_its_device_and_portal_alone() {
        let (portal, key) = (PortalId([1; 32]), WrapKey::of_device(&Secret::new([2; 32])));
        for root in [false, true] {
            let bytes = handed(root).wrap(&portal, &key.public(), &Secret::new([3; 32])).unwrap();
            assert!(!bytes.windows(8).any(|w| w == [5; 8] || w == [6; 8]));
            let back = Handed::unwrap(&bytes, &portal, &key).unwrap();
            assert_eq!(back.access.expose(), &[5; 32]);
            assert_eq!(back.root.is_some(), root);
            let other = WrapKey::of_device(&Secret::new([9; 32]));
            assert!(Handed::unwrap(&bytes, &portal, &other).is_err());
            assert!(Handed::unwrap(&bytes, &PortalId([8; 32]), &key).is_err());
            for i in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[i] ^= 1;
                assert!(Handed::unwrap(&bad, &portal, &key).is_err(), "byte {i}");
                assert!(Handed::unwrap(&bytes[..i], &portal, &key).is_err(), "cut at {i}");
            }
        }
    }

    #[test]
    fn a_key_of_low_order_is_refused() {
        let portal = PortalId([1; 32]);
        for low in [[0; 32], {
            let mut one = [0; 32];
            one[0] = 1;
            one
        }] {
            assert!(handed(true).wrap(&portal, &low, &Secret::new([3; 32])).is_err());
        }
    }
}

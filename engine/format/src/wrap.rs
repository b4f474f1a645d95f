//! Secrets, wrapped to one device's key.
//!
//! Neighbours: a membership record carries them. Promises: only the device
//! whose key it is opens them, and only for the portal that they are of; a
//! changed byte is noticed; nothing wrapped can be taken for something else. Never: uses a key twice (each is made with a fresh
//! one of the sender's). Tested by the unit tests below and fuzz target
//! `members`.

use crate::bytes::Reader;
use crate::error::{FormatError, Result};
use crate::id::PortalId;
use crate::keys::{SINGLE_USE_NONCE, Secret};
use crate::limits::MAX_HANDED_LEN;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const AT: &str = "wrapped secrets";
const CONTEXT: &str = "warp v1 wrapped secrets";
const EPOCH_CONTEXT: &str = "warp v1 wrapped epoch";
const TAG_LEN: usize = 16;

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
    /// Names, cuts and the contents of epoch 0 derive from it; who may read
    /// nothing has none.
    pub root: Option<Secret>,
    /// Secrets of the epochs that began since, in order.
    pub epochs: Vec<(u32, Secret)>,
}

/// Bytes around what is wrapped: the sender's key of one use, and a tag.
const AROUND_LEN: usize = 32 + TAG_LEN;

/// The secret of an epoch, wrapped to one member.
pub type WrappedEpoch = [u8; AROUND_LEN + 32];

impl Handed {
    /// Wraps them to a device's public key. `fresh` must be random, and used
    /// for nothing else.
    pub fn wrap(&self, portal: &PortalId, to: &[u8; 32], fresh: &Secret) -> Result<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(MAX_HANDED_LEN));
        body.push(u8::from(self.root.is_some()));
        body.extend_from_slice(self.access.expose());
        if let Some(root) = &self.root {
            body.extend_from_slice(root.expose());
        }
        for (epoch, secret) in &self.epochs {
            body.extend_from_slice(&epoch.to_le_bytes());
            body.extend_from_slice(secret.expose());
        }
        let (value, limit) = ((body.len() + AROUND_LEN) as u64, MAX_HANDED_LEN as u64);
        if value > limit {
            return Err(FormatError::Limit { at: AT, value, limit });
        }
        seal(&Purpose { context: CONTEXT, portal, epoch: None }, &body, to, fresh)
    }

    /// What was wrapped to this device.
    pub fn unwrap(bytes: &[u8], portal: &PortalId, key: &WrapKey) -> Result<Self> {
        let body = open(&Purpose { context: CONTEXT, portal, epoch: None }, bytes, key)?;
        let mut r = Reader::new(&body);
        let has_root = match r.u8(AT)? {
            0 => false,
            1 => true,
            _ => return Err(FormatError::Invalid { at: AT }),
        };
        let access = Secret::new(r.array(AT)?);
        let root = if has_root { Some(Secret::new(r.array(AT)?)) } else { None };
        let mut epochs: Vec<(u32, Secret)> = Vec::new();
        while r.remaining() > 0 {
            let (epoch, secret) = (r.u32(AT)?, Secret::new(r.array(AT)?));
            if epoch <= epochs.last().map_or(0, |(last, _)| *last) {
                return Err(FormatError::Invalid { at: AT });
            }
            epochs.push((epoch, secret));
        }
        Ok(Self { access, root, epochs })
    }
}

/// Wraps the secret of an epoch to a member's public key. `fresh` must be
/// random, and used for nothing else.
pub fn wrap_epoch(
    secret: &Secret,
    epoch: u32,
    portal: &PortalId,
    to: &[u8; 32],
    fresh: &Secret,
) -> Result<WrappedEpoch> {
    let purpose = Purpose { context: EPOCH_CONTEXT, portal, epoch: Some(epoch) };
    let wrapped = seal(&purpose, secret.expose(), to, fresh)?;
    wrapped.try_into().map_err(|_| FormatError::Invalid { at: AT })
}

/// The secret of this epoch, wrapped to this device.
pub fn unwrap_epoch(
    wrapped: &WrappedEpoch,
    epoch: u32,
    portal: &PortalId,
    key: &WrapKey,
) -> Result<Secret> {
    let purpose = Purpose { context: EPOCH_CONTEXT, portal, epoch: Some(epoch) };
    let body = open(&purpose, wrapped, key)?;
    Ok(Secret::new(Reader::new(&body).array(AT)?))
}

/// What is wrapped: its key derives from that, so that nothing wrapped can be
/// taken for something else.
struct Purpose<'a> {
    context: &'static str,
    portal: &'a PortalId,
    epoch: Option<u32>,
}

fn seal(what: &Purpose<'_>, body: &[u8], to: &[u8; 32], fresh: &Secret) -> Result<Vec<u8>> {
    let ours = StaticSecret::from(*fresh.expose());
    let sender = PublicKey::from(&ours).to_bytes();
    let mut body = Zeroizing::new(body.to_vec());
    let tag = what
        .cipher(&ours, to, &sender, to)?
        .encrypt_inout_detached(&Nonce::from(SINGLE_USE_NONCE), &[], body.as_mut_slice().into())
        .map_err(|_| FormatError::Invalid { at: AT })?;
    Ok([sender.as_slice(), &body, &tag].concat())
}

fn open(what: &Purpose<'_>, bytes: &[u8], key: &WrapKey) -> Result<Zeroizing<Vec<u8>>> {
    let body_len = bytes.len().checked_sub(AROUND_LEN).ok_or(FormatError::Truncated { at: AT })?;
    let mut r = Reader::new(bytes);
    let sender = r.array::<32>(AT)?;
    let mut body = Zeroizing::new(r.take(body_len, AT)?.to_vec());
    let tag = Tag::from(r.array::<TAG_LEN>(AT)?);
    what.cipher(&key.0, &sender, &sender, &key.public())?
        .decrypt_inout_detached(
            &Nonce::from(SINGLE_USE_NONCE),
            &[],
            body.as_mut_slice().into(),
            &tag,
        )
        .map_err(|_| FormatError::WrongKey { what: "key for wrapped secrets" })?;
    Ok(body)
}

impl Purpose<'_> {
    fn cipher(
        &self,
        ours: &StaticSecret,
        theirs: &[u8; 32],
        sender: &[u8; 32],
        receiver: &[u8; 32],
    ) -> Result<ChaCha20Poly1305> {
        let shared = ours.diffie_hellman(&PublicKey::from(*theirs));
        // A key of low order would give the same to everybody.
        if !shared.was_contributory() {
            return Err(FormatError::Invalid { at: AT });
        }
        let mut hasher = blake3::Hasher::new_derive_key(self.context);
        hasher.update(shared.as_bytes()).update(&self.portal.0).update(sender).update(receiver);
        if let Some(epoch) = self.epoch {
            hasher.update(&epoch.to_le_bytes());
        }
        let key = Zeroizing::new(*hasher.finalize().as_bytes());
        Ok(ChaCha20Poly1305::new(&chacha20poly1305::Key::from(*key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_EPOCHS;

    fn handed(root: bool) -> Handed {
        let epochs =
            if root { vec![(1, Secret::new([7; 32])), (2, Secret::new([8; 32]))] } else { vec![] };
        Handed { access: Secret::new([5; 32]), root: root.then(|| Secret::new([6; 32])), epochs }
    }

    #[test]
    fn an_epochs_secret_opens_for_its_device_portal_and_epoch_alone() {
        let (portal, key) = (PortalId([1; 32]), WrapKey::of_device(&Secret::new([2; 32])));
        let (secret, fresh) = (Secret::new([5; 32]), Secret::new([3; 32]));
        let wrapped = wrap_epoch(&secret, 3, &portal, &key.public(), &fresh).unwrap();
        assert_eq!(unwrap_epoch(&wrapped, 3, &portal, &key).unwrap().expose(), secret.expose());
        assert!(unwrap_epoch(&wrapped, 4, &portal, &key).is_err());
        assert!(unwrap_epoch(&wrapped, 3, &PortalId([8; 32]), &key).is_err());
        let other = WrapKey::of_device(&Secret::new([9; 32]));
        assert!(unwrap_epoch(&wrapped, 3, &portal, &other).is_err());
        assert!(Handed::unwrap(&wrapped, &portal, &key).is_err());
        for i in 0..wrapped.len() {
            let mut bad = wrapped;
            bad[i] ^= 1;
            assert!(unwrap_epoch(&bad, 3, &portal, &key).is_err(), "byte {i}");
        }
    }

    #[test]
    fn no_more_epochs_are_handed_over_than_a_portal_can_have() {
        let (portal, key) = (PortalId([1; 32]), WrapKey::of_device(&Secret::new([2; 32])));
        let of = |count: usize| {
            let epochs = (1..=count as u32).map(|n| (n, Secret::new([n as u8; 32]))).collect();
            Handed { epochs, ..handed(true) }
        };
        let wrapped = of(MAX_EPOCHS).wrap(&portal, &key.public(), &Secret::new([3; 32])).unwrap();
        assert!(wrapped.len() <= MAX_HANDED_LEN);
        let back = Handed::unwrap(&wrapped, &portal, &key).unwrap().epochs;
        assert_eq!(back.len(), MAX_EPOCHS);
        assert!(back.iter().all(|(n, secret)| *secret.expose() == [*n as u8; 32]));
        assert!(of(MAX_EPOCHS + 9).wrap(&portal, &key.public(), &Secret::new([3; 32])).is_err());
        // Not in order: they would not be found.
        let twice = Handed {
            epochs: vec![(2, Secret::new([1; 32])), (2, Secret::new([2; 32]))],
            ..handed(true)
        };
        let twice = twice.wrap(&portal, &key.public(), &Secret::new([3; 32])).unwrap();
        assert!(Handed::unwrap(&twice, &portal, &key).is_err());
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
            assert_eq!(back.epochs.len(), if root { 2 } else { 0 });
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

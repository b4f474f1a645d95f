//! A portal's record: what a device must know to open a portal.
//!
//! Sealed under the owner's keyring key, so that the recovery phrase alone
//! brings it back. A custodian's record holds the access key where a reader's
//! holds the root secret. Promises: it shows nothing without that key, not even the
//! portal's name; a changed byte is noticed. Never: touches a disk. Tested by
//! the unit tests below and fuzz target `portal`.

use crate::bytes::Reader;
use crate::error::{FormatError, Result};
use crate::id::PortalId;
use crate::keys::Secret;
use crate::limits::{VERSION, check_version};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use std::num::NonZeroU64;
use zeroize::Zeroizing;

const MAGIC: [u8; 8] = *b"\x93WARPptl";
const HEAD_LEN: usize = 12;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
const BODY_LEN: usize = 3 * 32 + 8 + 1 + MAX_PORTAL_NAME_LEN;
/// Longest name of a portal, in bytes.
pub const MAX_PORTAL_NAME_LEN: usize = 64;

/// What a device was handed of a portal.
#[derive(Clone)]
pub enum PortalKey {
    /// Names, cuts and content derive from it.
    Root(Secret),
    /// It shows that one is a member, and opens nothing.
    Access(Secret),
}

impl PortalKey {
    /// What every member can show to have.
    pub fn access(&self) -> Secret {
        match self {
            Self::Root(root) => root.for_access(),
            Self::Access(access) => access.clone(),
        }
    }

    /// The root secret, if it is that.
    pub fn root(&self) -> Option<&Secret> {
        match self {
            Self::Root(root) => Some(root),
            Self::Access(_) => None,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Root(_) => 0,
            Self::Access(_) => 1,
        }
    }

    fn secret(&self) -> &Secret {
        match self {
            Self::Root(secret) | Self::Access(secret) => secret,
        }
    }
}

/// What opens a portal on this device.
pub struct PortalRecord {
    /// The portal.
    pub id: PortalId,
    /// Its name on this device.
    pub name: String,
    /// What it was handed.
    pub key: PortalKey,
    /// Seals what stays on this device.
    pub local: Secret,
    /// Most bytes that it may take on this device's disk; `None`: all.
    pub quota: Option<NonZeroU64>,
}

impl PortalRecord {
    /// The record's bytes, sealed under the owner's keyring key. `nonce` must
    /// be fresh random bytes.
    pub fn seal(&self, key: &Secret, nonce: [u8; NONCE_LEN]) -> Result<Vec<u8>> {
        let mut out = [MAGIC.as_slice(), &[VERSION, self.key.kind(), 0, 0]].concat();
        let mut body = Zeroizing::new(Vec::with_capacity(BODY_LEN));
        body.extend_from_slice(&self.id.0);
        body.extend_from_slice(self.key.secret().expose());
        body.extend_from_slice(self.local.expose());
        body.extend_from_slice(&self.quota.map_or(0, NonZeroU64::get).to_le_bytes());
        // Padded: the record's length tells nothing of the name.
        let name = self.name.as_bytes();
        let (len, room) = (name.len(), MAX_PORTAL_NAME_LEN);
        if len == 0 || len > room {
            let (value, limit) = (len as u64, room as u64);
            return Err(FormatError::Limit { at: "portal name", value, limit });
        }
        body.push(len as u8);
        body.extend_from_slice(name);
        body.resize(BODY_LEN, 0);
        let tag = aead(key)
            .encrypt_inout_detached(&XNonce::from(nonce), &out, body.as_mut_slice().into())
            .map_err(|_| FormatError::Invalid { at: "portal record" })?;
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&body);
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// The record in these bytes.
    pub fn open(bytes: &[u8], under: &Secret) -> Result<Self> {
        let at = "portal record";
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::NotA { what: "warp portal record" });
        }
        let mut r = Reader::new(bytes);
        let head = r.take(HEAD_LEN, at)?;
        let version = head.get(MAGIC.len()).copied().unwrap_or(u8::MAX);
        check_version(at, version)?;
        let key: fn(Secret) -> PortalKey = match head.get(MAGIC.len() + 1..) {
            Some([0, 0, 0]) => PortalKey::Root,
            Some([1, 0, 0]) => PortalKey::Access,
            _ => return Err(FormatError::Invalid { at }),
        };
        let nonce = XNonce::from(r.array::<NONCE_LEN>(at)?);
        let len = r.remaining().checked_sub(TAG_LEN).ok_or(FormatError::Truncated { at })?;
        let mut body = Zeroizing::new(r.take(len, at)?.to_vec());
        let tag = Tag::from(r.array::<TAG_LEN>(at)?);
        aead(under)
            .decrypt_inout_detached(&nonce, head, body.as_mut_slice().into(), &tag)
            .map_err(|_| FormatError::Checksum { at })?;
        let mut r = Reader::new(&body);
        let id = PortalId(r.array(at)?);
        let (secret, local) = (Secret::new(r.array(at)?), Secret::new(r.array(at)?));
        let quota = NonZeroU64::new(r.u64(at)?);
        let len = usize::from(r.u8(at)?);
        let padded = r.take(MAX_PORTAL_NAME_LEN, at)?;
        r.end(at)?;
        let bad = FormatError::Invalid { at };
        let (name, rest) = padded.split_at_checked(len).ok_or(bad.clone())?;
        if name.is_empty() || rest.iter().any(|byte| *byte != 0) {
            return Err(bad);
        }
        let name = std::str::from_utf8(name).map_err(|_| bad)?.to_owned();
        Ok(Self { id, name, key: key(secret), local, quota })
    }
}

fn aead(key: &Secret) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&chacha20poly1305::Key::from(*key.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> PortalRecord {
        record_with(PortalKey::Root(Secret::new([2; 32])))
    }

    fn record_with(key: PortalKey) -> PortalRecord {
        PortalRecord {
            id: PortalId([1; 32]),
            name: "photos".into(),
            key,
            local: Secret::new([3; 32]),
            quota: NonZeroU64::new(5 << 30),
        }
    }

    #[test]
    fn a_record_comes_back_and_shows_nothing_on_the_way() {
        let key = Secret::new([9; 32]);
        let bytes = record().seal(&key, [4; 24]).unwrap();
        let back = PortalRecord::open(&bytes, &key).unwrap();
        assert_eq!((back.id, back.name.as_str()), (PortalId([1; 32]), "photos"));
        assert_eq!(back.quota, NonZeroU64::new(5 << 30));
        assert!(matches!(&back.key, PortalKey::Root(root) if root.expose() == &[2; 32]));
        assert_eq!(back.local.expose(), &[3; 32]);
        for hidden in [&b"photos"[..], &[1; 32], &[2; 32], &[3; 32]] {
            assert!(!bytes.windows(hidden.len()).any(|window| window == hidden));
        }
    }

    #[test]
    fn a_custodians_record_is_not_taken_for_a_readers() {
        let key = Secret::new([9; 32]);
        let kept = record_with(PortalKey::Access(Secret::new([2; 32])));
        let bytes = kept.seal(&key, [4; 24]).unwrap();
        let back = PortalRecord::open(&bytes, &key).unwrap();
        assert!(matches!(&back.key, PortalKey::Access(access) if access.expose() == &[2; 32]));
        let mut turned = bytes;
        turned[9] = 0;
        assert!(PortalRecord::open(&turned, &key).is_err());
    }

    #[test]
    fn no_changed_byte_and_no_other_key_passes() {
        let key = Secret::new([9; 32]);
        let bytes = record().seal(&key, [4; 24]).unwrap();
        assert!(PortalRecord::open(&bytes, &Secret::new([8; 32])).is_err());
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            assert!(PortalRecord::open(&bad, &key).is_err(), "byte {i}");
            assert!(PortalRecord::open(&bytes[..i], &key).is_err(), "cut at {i}");
        }
    }
}

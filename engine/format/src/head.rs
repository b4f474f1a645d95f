//! Heads: signed pointers to a root.
//!
//! Promises: a head that verifies was signed by the device that it names, for
//! the portal that it names. Never: reads a clock. Tested by the unit tests
//! below and `tests/prop_format.rs`.

use crate::bytes::{Put, Reader};
use crate::error::{FormatError, Result};
use crate::id::{DeviceId, PortalId};
use crate::keys::{SigningKey, verify_signature};
use crate::limits::{MAX_HEADS_SEEN, VERSION, check_version};
use crate::seal::ChunkRef;

const CONTEXT: &str = "warp v1 head signature";

/// What a device says of a portal: numbered, immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The portal.
    pub portal: PortalId,
    /// The device that signs.
    pub device: DeviceId,
    /// 1 for the device's first head, then one more each.
    pub sequence: u64,
    /// Root of the tree.
    pub root: ChunkRef,
    /// Heads of other devices that went into this tree, sorted by device.
    pub seen: Vec<(DeviceId, u64)>,
    /// Position in the membership chain under which the head was made.
    pub membership: u64,
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.portal.0);
        out.extend_from_slice(&self.device.0);
        out.put_varint(self.sequence);
        self.root.encode(&mut out);
        out.put_varint(self.seen.len() as u64);
        for (device, sequence) in &self.seen {
            out.extend_from_slice(&device.0);
            out.put_varint(*sequence);
        }
        out.put_varint(self.membership);
        out
    }

    /// The head's bytes with its signature behind them.
    ///
    /// # Panics
    /// If `key` is not the key of the head's device, or the head is not one
    /// that [`Self::open`] would take.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        assert_eq!(key.device_id(), self.device, "a device signs its own heads");
        assert!(self.sequence > 0, "heads are numbered from 1");
        assert!(self.seen.is_sorted_by(|a, b| a.0 < b.0), "heads seen are sorted by device");
        assert!(self.seen.len() <= MAX_HEADS_SEEN, "heads seen are within their limit");
        let mut out = self.encode();
        let signature = key.sign(CONTEXT, &out);
        out.extend_from_slice(&signature);
        out
    }

    /// The head in these bytes, its signature checked.
    pub fn open(bytes: &[u8]) -> Result<Self> {
        let at = "head";
        let (body, signature) =
            bytes.split_last_chunk::<64>().ok_or(FormatError::Truncated { at })?;
        let mut r = Reader::new(body);
        let version = r.u8(at)?;
        check_version(at, version)?;
        let (portal, device) = (PortalId(r.array(at)?), DeviceId(r.array(at)?));
        let (sequence, root) = (r.varint(at)?, ChunkRef::decode(&mut r)?);
        let count = r.varint(at)?;
        if count > MAX_HEADS_SEEN as u64 {
            return Err(FormatError::Limit { at, value: count, limit: MAX_HEADS_SEEN as u64 });
        }
        if count > (r.remaining() / 33) as u64 {
            return Err(FormatError::Truncated { at });
        }
        let mut seen: Vec<(DeviceId, u64)> = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let entry = (DeviceId(r.array(at)?), r.varint(at)?);
            if seen.last().is_some_and(|last| last.0 >= entry.0) {
                return Err(FormatError::Invalid { at });
            }
            seen.push(entry);
        }
        let membership = r.varint(at)?;
        r.end(at)?;
        if sequence == 0 {
            return Err(FormatError::Invalid { at });
        }
        verify_signature(&device, CONTEXT, body, signature, "head")?;
        Ok(Self { portal, device, sequence, root, seen, membership })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ChunkId, ContentHash};
    use crate::keys::Secret;

    fn head(key: &SigningKey) -> Head {
        Head {
            portal: PortalId([1; 32]),
            device: key.device_id(),
            sequence: 9,
            root: ChunkRef { id: ChunkId([2; 32]), hash: ContentHash([3; 32]), len: 77, epoch: 1 },
            seen: vec![(DeviceId([4; 32]), 5), (DeviceId([6; 32]), 7)],
            membership: 12,
        }
    }

    #[test]
    fn a_head_comes_back_and_no_changed_byte_passes() {
        let key = SigningKey::from_seed(&Secret::new([8; 32]));
        let bytes = head(&key).sign(&key);
        assert_eq!(Head::open(&bytes), Ok(head(&key)));
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            assert!(Head::open(&bad).is_err(), "byte {i}");
            assert!(Head::open(&bytes[..i]).is_err(), "cut at {i}");
        }
    }
}

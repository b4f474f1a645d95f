//! One record of the chain, as bytes.

use crate::bytes::{Put, Reader};
use crate::error::{FormatError, Result};
use crate::id::{DeviceId, PortalId};
use crate::keys::{SigningKey, verify_signature};
use crate::limits::{
    MAX_DEVICE_NAME_LEN, MAX_HANDED_LEN, MAX_READERS, MAX_RECORD_LEN, VERSION, check_version,
};
use crate::portal::MAX_PORTAL_NAME_LEN;
use crate::wrap::WrappedEpoch;
use serde::{Deserialize, Serialize};

const AT: &str = "membership record";
const CONTEXT: &str = "warp v1 membership record";
const SIGNATURE_LEN: usize = 64;

/// What a member may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Capability {
    /// Hold and serve sealed chunks, and read nothing.
    Custodian,
    /// Read.
    Reader,
    /// Publish.
    Writer,
    /// Say who is a member.
    Admin,
}

impl Capability {
    const ALL: [Self; 4] = [Self::Custodian, Self::Reader, Self::Writer, Self::Admin];

    #[cfg(test)]
    pub(super) const ALL_FOR_TESTS: [Self; 4] = Self::ALL;

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Custodian => "custodian",
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let value = usize::from(r.u8(AT)?);
        Self::ALL.get(value).copied().ok_or(FormatError::Invalid { at: AT })
    }
}

/// What a record does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The portal is made: always the first record, and no other.
    Found {
        /// The portal.
        portal: PortalId,
        /// What it is called.
        name: String,
        /// What its founder's device is called.
        device_name: String,
        /// The X25519 key of that device.
        wrap_key: [u8; 32],
    },
    /// Whoever holds the other half of this key may become a member.
    Invite {
        /// The public half.
        key: DeviceId,
        /// What they may do then.
        capability: Capability,
        /// And whether they may invite others to that.
        may_invite: bool,
        /// Until when, in seconds since 1970.
        expires: u64,
        /// How many.
        uses: u32,
    },
    /// A device becomes a member.
    Add {
        /// The device.
        device: DeviceId,
        /// Its X25519 key.
        wrap_key: [u8; 32],
        /// What it is called.
        name: String,
        /// The invite that it has redeemed.
        invite: DeviceId,
        /// The portal's secrets, wrapped to its key.
        handed: Vec<u8>,
    },
    /// A device is a member no more.
    Remove {
        /// The device.
        device: DeviceId,
        /// The number of its last head that counts.
        last: u64,
    },
    /// A device is a member until then, or again for good.
    Expire {
        /// The device.
        device: DeviceId,
        /// In seconds since 1970.
        at: Option<u64>,
    },
    /// No invite so far can be redeemed any more.
    CloseInvites,
    /// From here on chunks are sealed with another secret.
    Rotate {
        /// One more than that of the last rotation; 1 for the first.
        epoch: u32,
        /// That secret, wrapped to each member who reads, sorted by device.
        wraps: Vec<(DeviceId, WrappedEpoch)>,
    },
}

/// A record and what it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) position: u64,
    /// Hash of the record before it, with its length and signature.
    pub(super) before: [u8; 32],
    pub(super) signer: DeviceId,
    /// When it was made, as its signer says.
    pub(super) time: u64,
    pub(super) act: Act,
}

impl Record {
    /// The record's bytes: length, body, signature.
    pub(super) fn sign(&self, key: &SigningKey) -> Result<Vec<u8>> {
        assert_eq!(key.device_id(), self.signer, "a device signs its own records");
        let mut body = vec![VERSION];
        body.put_varint(self.position);
        body.extend_from_slice(&self.before);
        body.extend_from_slice(&self.signer.0);
        body.put_varint(self.time);
        self.act.encode(&mut body)?;
        let signature = key.sign(CONTEXT, &body);
        body.extend_from_slice(&signature);
        let mut out = Vec::with_capacity(body.len() + 4);
        out.put_bytes(&body);
        Ok(out)
    }

    /// The first record in these bytes, its signature checked, and its length.
    pub(super) fn open_first(bytes: &[u8]) -> Result<(Self, usize)> {
        let mut r = Reader::new(bytes);
        let whole = r.bytes(MAX_RECORD_LEN, AT)?;
        let len = bytes.len() - r.remaining();
        let (body, signature) =
            whole.split_last_chunk::<SIGNATURE_LEN>().ok_or(FormatError::Truncated { at: AT })?;
        let mut r = Reader::new(body);
        let version = r.u8(AT)?;
        check_version(AT, version)?;
        let (position, before) = (r.varint(AT)?, r.array(AT)?);
        let (signer, time) = (DeviceId(r.array(AT)?), r.varint(AT)?);
        let act = Act::decode(&mut r)?;
        r.end(AT)?;
        verify_signature(&signer, CONTEXT, body, signature, AT)?;
        Ok((Self { position, before, signer, time, act }, len))
    }
}

fn put_name(out: &mut Vec<u8>, name: &str, limit: usize) -> Result<()> {
    if name.is_empty() || name.len() > limit {
        let (value, limit) = (name.len() as u64, limit as u64);
        return Err(FormatError::Limit { at: AT, value, limit });
    }
    out.put_bytes(name.as_bytes());
    Ok(())
}

fn name(r: &mut Reader<'_>, limit: usize) -> Result<String> {
    let bytes = r.bytes(limit, AT)?;
    let text = std::str::from_utf8(bytes).map_err(|_| FormatError::Invalid { at: AT })?;
    // It is shown on terminals.
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(FormatError::Invalid { at: AT });
    }
    Ok(text.to_owned())
}

fn flag(r: &mut Reader<'_>) -> Result<bool> {
    match r.u8(AT)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(FormatError::Invalid { at: AT }),
    }
}

/// Refuses a rotation for too many.
fn check_readers(count: u64) -> Result<()> {
    let limit = MAX_READERS as u64;
    if count > limit {
        return Err(FormatError::Limit { at: "members who read", value: count, limit });
    }
    Ok(())
}

impl Act {
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Found { portal, name, device_name, wrap_key } => {
                out.push(0);
                out.extend_from_slice(&portal.0);
                put_name(out, name, MAX_PORTAL_NAME_LEN)?;
                put_name(out, device_name, MAX_DEVICE_NAME_LEN)?;
                out.extend_from_slice(wrap_key);
            }
            Self::Invite { key, capability, may_invite, expires, uses } => {
                out.push(1);
                out.extend_from_slice(&key.0);
                out.extend_from_slice(&[*capability as u8, u8::from(*may_invite)]);
                out.put_varint(*expires);
                out.put_varint(u64::from(*uses));
            }
            Self::Add { device, wrap_key, name, invite, handed } => {
                out.push(2);
                out.extend_from_slice(&device.0);
                out.extend_from_slice(wrap_key);
                put_name(out, name, MAX_DEVICE_NAME_LEN)?;
                out.extend_from_slice(&invite.0);
                if handed.len() > MAX_HANDED_LEN {
                    let (value, limit) = (handed.len() as u64, MAX_HANDED_LEN as u64);
                    return Err(FormatError::Limit { at: AT, value, limit });
                }
                out.put_bytes(handed);
            }
            Self::Remove { device, last } => {
                out.push(3);
                out.extend_from_slice(&device.0);
                out.put_varint(*last);
            }
            Self::Expire { device, at } => {
                out.push(4);
                out.extend_from_slice(&device.0);
                out.push(u8::from(at.is_some()));
                if let Some(at) = at {
                    out.put_varint(*at);
                }
            }
            Self::CloseInvites => out.push(5),
            Self::Rotate { epoch, wraps } => {
                check_readers(wraps.len() as u64)?;
                out.push(6);
                out.put_varint(u64::from(*epoch));
                out.put_varint(wraps.len() as u64);
                for (device, wrap) in wraps {
                    out.extend_from_slice(&device.0);
                    out.extend_from_slice(wrap);
                }
            }
        }
        Ok(())
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(match r.u8(AT)? {
            0 => Self::Found {
                portal: PortalId(r.array(AT)?),
                name: name(r, MAX_PORTAL_NAME_LEN)?,
                device_name: name(r, MAX_DEVICE_NAME_LEN)?,
                wrap_key: r.array(AT)?,
            },
            1 => Self::Invite {
                key: DeviceId(r.array(AT)?),
                capability: Capability::decode(r)?,
                may_invite: flag(r)?,
                expires: r.varint(AT)?,
                uses: r.varint_u32(AT)?,
            },
            2 => Self::Add {
                device: DeviceId(r.array(AT)?),
                wrap_key: r.array(AT)?,
                name: name(r, MAX_DEVICE_NAME_LEN)?,
                invite: DeviceId(r.array(AT)?),
                handed: r.bytes(MAX_HANDED_LEN, AT)?.to_vec(),
            },
            3 => Self::Remove { device: DeviceId(r.array(AT)?), last: r.varint(AT)? },
            4 => {
                let device = DeviceId(r.array(AT)?);
                let at = if flag(r)? { Some(r.varint(AT)?) } else { None };
                Self::Expire { device, at }
            }
            5 => Self::CloseInvites,
            6 => {
                let (epoch, count) = (r.varint_u32(AT)?, r.varint(AT)?);
                check_readers(count)?;
                let one = |_| Ok((DeviceId(r.array(AT)?), r.array(AT)?));
                Self::Rotate { epoch, wraps: (0..count).map(one).collect::<Result<_>>()? }
            }
            _ => return Err(FormatError::Invalid { at: AT }),
        })
    }
}

//! Frames between peers, and what a peer proves before it is told anything.
//!
//! Step *wire*: `net` sends and receives these and knows what they lead to.
//! Promises: a length is checked against the limit of its kind before a byte
//! is reserved for it; what decodes has every count within `limits.rs`; a
//! frame of another version is refused by its version byte. Never: reads a
//! socket, looks into heads or membership records (they are bytes here).
//! Tested by the unit tests below (golden bytes), `tests/prop_wire.rs`, fuzz
//! targets `frame` and `answer`. docs/protocol.md says who sends what when.
//!
//! Bytes of a frame: length of what follows (u32, little-endian), version,
//! kind, body. Kind and body together are the postcard encoding of [`Frame`],
//! so the kind is the number of the variant: variants are never reordered.

mod ask;
mod have;

pub use ask::{Change, Changed, Listed, Unchanged};
pub use have::{Have, Held, Prints};

use crate::error::{FormatError, Result};
use crate::id::{ChunkId, DeviceId};
use crate::keys::{Secret, SigningKey, verify_signature};
use crate::limits::{
    MAX_CONTROL_LEN, MAX_HEAD_FRAME_LEN, MAX_LISTED_FRAME_LEN, MAX_MEMBERS_FRAME_LEN, MAX_NAME_LEN,
    MAX_REQUEST_IDS, MAX_SEALED_LEN, WIRE_VERSION,
};
use core::fmt;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The protocol's name in the TLS handshake.
pub const ALPN: &[u8] = b"warp/1";
/// The label under which both ends export what their proofs are bound to.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-warp-v1";

const REDEEM_CONTEXT: &str = "warp v1 redeem";

/// What two peers say to each other. `session` is a number that the side
/// which said `Hello` has chosen: it stands for a portal on this connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// "I know this portal": the first thing said of it.
    Hello {
        /// Chosen by the sender: even by the side that dialled, odd by the other.
        session: u32,
        /// See [`proof`].
        proof: [u8; 32],
    },
    /// "So do I, and you are a member": the session begins.
    Accepted {
        /// The number of the `Hello`.
        session: u32,
        /// The answering side's own proof.
        proof: [u8; 32],
    },
    /// "So do I, but have not heard of you: show me the members."
    Unknown {
        /// The number of the `Hello`.
        session: u32,
        /// The answering side's own proof.
        proof: [u8; 32],
    },
    /// No such portal, not a member, no longer a member: the answer is one.
    Refused {
        /// The number of the `Hello`, or of a session that ends by this.
        session: u32,
    },
    /// The session is over, the connection may go on.
    Left {
        /// The session.
        session: u32,
    },
    /// A signed head.
    Head {
        /// The session.
        session: u32,
        /// The head as it was signed.
        #[serde(with = "raw")]
        head: Vec<u8>,
    },
    /// "Tell me the membership chain from this record on."
    AskMembers {
        /// The session.
        session: u32,
        /// Position of the first record wanted.
        from: u64,
    },
    /// Records of the membership chain, in order.
    Members {
        /// The session.
        session: u32,
        /// The records as they were signed.
        #[serde(with = "raw")]
        records: Vec<u8>,
    },
    /// What the sender holds.
    Have {
        /// The session.
        session: u32,
        /// What it is.
        have: Have,
    },
    /// An invite is redeemed.
    Redeem(Redeem),
    /// It worked: the membership chain, with the new member's record.
    Welcome {
        /// The records as they were signed.
        #[serde(with = "raw")]
        members: Vec<u8>,
    },
    /// It did not.
    Denied {
        /// Why.
        why: Denied,
    },
    /// Chunks are asked for: the first and only frame of a stream of its own.
    Request(Request),
    /// "What do you hold that came after these?": on a stream of its own.
    List {
        /// The session.
        session: u32,
        /// What [`Listed::next`] said last, or 0.
        after: u64,
    },
    /// The answer, on that stream.
    Listed(Listed),
    /// A change of the members is asked for: on a stream of its own.
    Change {
        /// The session.
        session: u32,
        /// What is to be changed.
        change: Change,
    },
    /// The answer, on that stream.
    Changed(Changed),
}

/// Why an invite was not honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denied {
    /// It has passed its time.
    Expired,
    /// It has been used as often as it may be.
    Used,
    /// It, or the right of the one who made it, was taken back.
    Revoked,
    /// Not one that this device can redeem.
    Unknown,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "it has expired",
            Self::Used => "it has been used up",
            Self::Revoked => "it was revoked",
            Self::Unknown => "this device does not know it",
        })
    }
}

/// Someone who holds the secret half of an invite wants to become a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeem {
    /// Public half of the invite's key.
    pub invite: DeviceId,
    signature: ([u8; 32], [u8; 32]),
    /// The X25519 key to which the portal's secrets shall be wrapped.
    pub wrap: [u8; 32],
    /// What the device is to be called.
    pub name: String,
}

impl Redeem {
    /// Signs with the invite's key, bound to this connection and this device.
    pub fn sign(
        invite: &SigningKey,
        exporter: &[u8; 32],
        joiner: &DeviceId,
        wrap: [u8; 32],
        name: &str,
    ) -> Self {
        let signature = invite.sign(REDEEM_CONTEXT, &redeem_message(exporter, joiner, &wrap));
        let (a, b) = signature.split_at(32);
        let half = |half: &[u8]| half.try_into().expect("64 bytes are twice 32");
        Self {
            invite: invite.device_id(),
            signature: (half(a), half(b)),
            wrap,
            name: name.to_owned(),
        }
    }

    /// Whether it was signed by the invite's key, on this connection, for the
    /// device at its other end.
    pub fn verify(&self, exporter: &[u8; 32], joiner: &DeviceId) -> Result<()> {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&self.signature.0);
        signature[32..].copy_from_slice(&self.signature.1);
        let message = redeem_message(exporter, joiner, &self.wrap);
        verify_signature(&self.invite, REDEEM_CONTEXT, &message, &signature, "redeemed invite")
    }
}

fn redeem_message(exporter: &[u8; 32], joiner: &DeviceId, wrap: &[u8; 32]) -> [u8; 96] {
    let mut message = [0; 96];
    message[..32].copy_from_slice(exporter);
    message[32..64].copy_from_slice(&joiner.0);
    message[64..].copy_from_slice(wrap);
    message
}

/// Chunks asked for. They are answered one after the other in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The session, by the number that this side gave or was given.
    pub session: u32,
    /// Somebody waits for these: they go before what is asked ahead.
    pub urgent: bool,
    /// 1 to [`MAX_REQUEST_IDS`] ids.
    #[serde(deserialize_with = "few_ids")]
    pub ids: Vec<ChunkId>,
}

/// The side that makes a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It said `Hello`.
    Opener,
    /// It answers one.
    Acceptor,
}

/// What shows that `sender` knows a portal's access key, on the connection
/// with this exporter and nowhere else.
pub fn proof(access: &Secret, role: Role, exporter: &[u8; 32], sender: &DeviceId) -> [u8; 32] {
    *keyed_proof(access, role, exporter, sender).as_bytes()
}

/// Whether `claimed` is that proof; takes the same time if it is and if not.
pub fn is_proof(
    claimed: &[u8; 32],
    access: &Secret,
    role: Role,
    exporter: &[u8; 32],
    sender: &DeviceId,
) -> bool {
    keyed_proof(access, role, exporter, sender) == blake3::Hash::from_bytes(*claimed)
}

fn keyed_proof(
    access: &Secret,
    role: Role,
    exporter: &[u8; 32],
    sender: &DeviceId,
) -> blake3::Hash {
    let role = match role {
        Role::Opener => 1,
        Role::Acceptor => 2,
    };
    let mut hasher = blake3::Hasher::new_keyed(access.expose());
    hasher.update(b"warp v1 hello").update(&[role]).update(exporter).update(&sender.0);
    hasher.finalize()
}

/// The salt of the fingerprints that `sender` sends on the connection with
/// this exporter ([`Prints::print`]).
pub fn print_salt(exporter: &[u8; 32], sender: &DeviceId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("warp v1 fingerprint salt");
    hasher.update(exporter).update(&sender.0);
    *hasher.finalize().as_bytes()
}

/// What stands for a portal on a local network in the hour `hour` (since
/// 1970): members recognise it, others cannot tie it to the next hour's.
pub fn lan_hint(access: &Secret, hour: u64) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_keyed(access.expose());
    hasher.update(b"warp v1 mdns").update(&hour.to_le_bytes());
    let mut hint = [0; 8];
    hint.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    hint
}

/// The first [`Header::LEN`] bytes of a frame, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    kind: u8,
    rest: usize,
}

impl Header {
    /// Bytes of a header: length, version, kind.
    pub const LEN: usize = 6;

    /// Reads a header. What it says of the length is within the limit of the
    /// kind that it names.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self> {
        let [a, b, c, d, version, kind] = *bytes;
        if version != WIRE_VERSION {
            return Err(FormatError::Version { at: "frame", version, known: WIRE_VERSION });
        }
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        let (at, limit) = limit(kind)?;
        if len > limit {
            return Err(FormatError::Limit { at, value: len as u64, limit: limit as u64 });
        }
        let rest = len.checked_sub(2).ok_or(FormatError::Truncated { at })?;
        Ok(Self { kind, rest })
    }

    /// Bytes of the frame that follow the header.
    pub fn rest(&self) -> usize {
        self.rest
    }
}

/// What a kind is called in messages, and how long a frame of it may be.
fn limit(kind: u8) -> Result<(&'static str, usize)> {
    Ok(match kind {
        0 => ("hello frame", MAX_CONTROL_LEN),
        1 => ("accepted frame", MAX_CONTROL_LEN),
        2 => ("unknown-member frame", MAX_CONTROL_LEN),
        3 => ("refused frame", MAX_CONTROL_LEN),
        4 => ("left frame", MAX_CONTROL_LEN),
        5 => ("head frame", MAX_HEAD_FRAME_LEN),
        6 => ("ask-members frame", MAX_CONTROL_LEN),
        7 => ("members frame", MAX_MEMBERS_FRAME_LEN),
        8 => ("have frame", MAX_CONTROL_LEN),
        9 => ("redeem frame", MAX_CONTROL_LEN),
        10 => ("welcome frame", MAX_MEMBERS_FRAME_LEN),
        11 => ("denied frame", MAX_CONTROL_LEN),
        12 => ("request frame", MAX_CONTROL_LEN),
        13 => ("list frame", MAX_CONTROL_LEN),
        14 => ("listed frame", MAX_LISTED_FRAME_LEN),
        15 => ("change frame", MAX_CONTROL_LEN),
        16 => ("changed frame", MAX_CONTROL_LEN),
        _ => return Err(FormatError::Invalid { at: "frame kind" }),
    })
}

impl Frame {
    /// The whole frame.
    ///
    /// # Errors
    /// If it would be over the limit of its kind, as what the caller put into
    /// it is too long.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let head = vec![0, 0, 0, 0, WIRE_VERSION];
        let mut out = postcard::to_extend(self, head)
            .map_err(|_| FormatError::Invalid { at: "frame to send" })?;
        let len = out.len() - 4;
        let kind = out.get(5).copied().unwrap_or_default();
        let (at, limit) = limit(kind)?;
        if len > limit {
            return Err(FormatError::Limit { at, value: len as u64, limit: limit as u64 });
        }
        for (to, from) in out.iter_mut().zip((len as u32).to_le_bytes()) {
            *to = from;
        }
        Ok(out)
    }

    /// The frame with this header, from the bytes behind it.
    pub fn decode(header: Header, rest: &[u8]) -> Result<Self> {
        let (at, _) = limit(header.kind)?;
        assert_eq!(rest.len(), header.rest, "the caller has read what the header says");
        let mut body = Vec::with_capacity(1 + rest.len());
        body.push(header.kind);
        body.extend_from_slice(rest);
        let (frame, left) =
            postcard::take_from_bytes::<Self>(&body).map_err(|error| match error {
                postcard::Error::DeserializeUnexpectedEnd => FormatError::Truncated { at },
                _ => FormatError::Invalid { at },
            })?;
        let whole = match &frame {
            Self::Redeem(redeem) => redeem.name.len() <= MAX_NAME_LEN,
            Self::Request(request) => !request.ids.is_empty(),
            _ => true,
        };
        if left.is_empty() && whole { Ok(frame) } else { Err(FormatError::Invalid { at }) }
    }

    /// What it is called in logs.
    pub fn name(&self) -> &'static str {
        let kind = match self {
            Self::Hello { .. } => 0,
            Self::Accepted { .. } => 1,
            Self::Unknown { .. } => 2,
            Self::Refused { .. } => 3,
            Self::Left { .. } => 4,
            Self::Head { .. } => 5,
            Self::AskMembers { .. } => 6,
            Self::Members { .. } => 7,
            Self::Have { .. } => 8,
            Self::Redeem(_) => 9,
            Self::Welcome { .. } => 10,
            Self::Denied { .. } => 11,
            Self::Request(_) => 12,
            Self::List { .. } => 13,
            Self::Listed(_) => 14,
            Self::Change { .. } => 15,
            Self::Changed(_) => 16,
        };
        limit(kind).map_or("frame", |(name, _)| name)
    }
}

/// What stands before each chunk that is sent, or instead of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The sealed chunk follows.
    Found {
        /// Its length in bytes: 1 to [`MAX_SEALED_LEN`].
        len: u32,
    },
    /// It is not here, or not for the one who asks.
    NotFound,
    /// Too much has been asked for at once: try later, or another peer.
    Busy,
}

impl Answer {
    /// Bytes of an answer.
    pub const LEN: usize = 5;

    /// Its bytes: 0 and the length, or 1 or 2 and four zeros.
    pub fn encode(self) -> [u8; Self::LEN] {
        let (kind, len) = match self {
            Self::Found { len } => (0, len),
            Self::NotFound => (1, 0),
            Self::Busy => (2, 0),
        };
        let [a, b, c, d] = len.to_le_bytes();
        [kind, a, b, c, d]
    }

    /// Reads one.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self> {
        let at = "answer";
        let [kind, a, b, c, d] = *bytes;
        let len = u32::from_le_bytes([a, b, c, d]);
        match (kind, len) {
            (0, 0) => Err(FormatError::Invalid { at }),
            (0, len) if len as usize > MAX_SEALED_LEN => Err(FormatError::Limit {
                at: "sealed chunk",
                value: len.into(),
                limit: MAX_SEALED_LEN as u64,
            }),
            (0, len) => Ok(Self::Found { len }),
            (1, 0) => Ok(Self::NotFound),
            (2, 0) => Ok(Self::Busy),
            _ => Err(FormatError::Invalid { at }),
        }
    }
}

/// Bytes as one run and not as a list of numbers. The frame that they lie in
/// bounds them.
mod raw {
    use core::fmt;
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

fn few_ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ChunkId>, D::Error> {
    ids::<D, MAX_REQUEST_IDS>(from)
}

/// A list of ids: its length is checked before anything is reserved.
fn ids<'de, D: Deserializer<'de>, const MAX: usize>(from: D) -> Result<Vec<ChunkId>, D::Error> {
    struct Ids<const MAX: usize>;
    impl<'de, const MAX: usize> Visitor<'de> for Ids<MAX> {
        type Value = Vec<ChunkId>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} ids")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<ChunkId>, A::Error> {
            let mut ids = Vec::new();
            while let Some(id) = from.next_element()? {
                if ids.len() == MAX {
                    return Err(A::Error::custom("too many ids"));
                }
                ids.push(id);
            }
            Ok(ids)
        }
    }
    from.deserialize_seq(Ids::<MAX>)
}

#[cfg(test)]
mod tests;

//! Questions that have a stream of their own and one frame for an answer.

use crate::id::{ChunkId, DeviceId};
use crate::limits::MAX_LISTED_IDS;
use crate::members::{Act, Capability};
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize};

/// Chunks that the answering side holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Where what comes after these begins; what was asked for if there is
    /// nothing more. Means something within one session only.
    pub next: u64,
    /// At most [`MAX_LISTED_IDS`]; one may be named twice.
    #[serde(deserialize_with = "listed_ids")]
    pub ids: Vec<ChunkId>,
}

fn listed_ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ChunkId>, D::Error> {
    super::ids::<D, MAX_LISTED_IDS>(from)
}

/// What a member wants the founder's device to add to the membership chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// An invite is made.
    Invite {
        /// Public half of its key.
        key: DeviceId,
        /// What who redeems it may do.
        capability: Capability,
        /// And whether they may invite others to that.
        may_invite: bool,
        /// Until when, in seconds since 1970.
        expires: u64,
        /// How many may redeem it.
        uses: u32,
    },
    /// A member is one no more.
    Remove {
        /// The member.
        device: DeviceId,
    },
    /// A member is one until then (seconds since 1970), or for good.
    Expire {
        /// The member.
        device: DeviceId,
        /// When.
        at: Option<u64>,
    },
    /// No invite so far is good any more.
    CloseInvites,
}

impl Change {
    /// The record that does it, the removal of a member as of now.
    pub fn act(self) -> Act {
        match self {
            Self::Invite { key, capability, may_invite, expires, uses } => {
                Act::Invite { key, capability, may_invite, expires, uses }
            }
            Self::Remove { device } => Act::Remove { device, last: 0 },
            Self::Expire { device, at } => Act::Expire { device, at },
            Self::CloseInvites => Act::CloseInvites,
        }
    }
}

/// What came of a wanted [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// It is durable; so many invites it closed.
    Done {
        /// How many.
        invites: u64,
    },
    /// Nothing was changed.
    Unchanged {
        /// Why.
        why: Unchanged,
    },
}

/// Why the membership chain was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unchanged {
    /// The one who asked lacks the right.
    NotAllowed,
    /// The one who was asked is not the portal's founder.
    NotFounder,
    /// The change makes no sense: a device that is no member, an invite
    /// without uses.
    Invalid,
    /// The founder's device could not write it down, or the chain is full.
    Failed,
}

impl fmt::Display for Unchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllowed => "this device has no right to that",
            Self::NotFounder => "it is not the device that made the portal",
            Self::Invalid => "it makes no sense to it",
            Self::Failed => "it could not write it down: its log says why",
        })
    }
}

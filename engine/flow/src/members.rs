//! A portal's membership chain on this device.
//!
//! Neighbours: `portals`, which changes it; `format::members` says what a chain
//! may say. Promises: a chain that was written is there after a power cut,
//! whole, the old one or the new; it never gets shorter. Never: holds a secret
//! in the clear. Tested by `engine/flow/tests/members.rs`.

use crate::error::{FlowError, Result};
use crate::home::{sync_dir, write_private};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use warp_format::Secret;
use warp_format::keys::SigningKey;
use warp_format::members::{Chain, NotGood};
use warp_format::wire::Denied;
use warp_format::wrap::WrapKey;

const FILE: &str = "members";

/// The time now, in seconds since 1970.
pub fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Why a device does not become a member.
#[derive(Debug, thiserror::Error)]
pub enum NotJoined {
    /// Its ticket is not good.
    #[error("{0}")]
    NotGood(#[from] NotGood),
    /// This device may not take it in, or cannot write that down.
    #[error(transparent)]
    Failed(#[from] FlowError),
}

impl From<&NotJoined> for Denied {
    fn from(why: &NotJoined) -> Self {
        match why {
            NotJoined::NotGood(NotGood::Expired) => Self::Expired,
            NotJoined::NotGood(NotGood::Used) => Self::Used,
            NotJoined::NotGood(NotGood::Closed) => Self::Revoked,
            NotJoined::NotGood(NotGood::Unknown) | NotJoined::Failed(_) => Self::Unknown,
        }
    }
}

/// What the membership chain says to this device.
#[derive(Clone, Default)]
pub struct Membership {
    /// Count of its records.
    pub position: u64,
    /// Secrets of the epochs after 0 that this device was handed, in order.
    pub epochs: Vec<(u32, Secret)>,
}

impl Membership {
    /// Of the device with this seed.
    pub fn of(chain: &Chain, device: &Secret) -> Result<Self> {
        let me = SigningKey::from_seed(device).device_id();
        let epochs = chain.secrets_of(&me, &WrapKey::of_device(device))?;
        Ok(Self { position: chain.len(), epochs })
    }

    /// The newest epoch.
    pub fn epoch(&self) -> u32 {
        self.epochs.last().map_or(0, |(epoch, _)| *epoch)
    }
}

/// The chain in a portal's directory; `None` if nobody was ever invited.
pub(crate) fn read(directory: &Path) -> Result<Option<Chain>> {
    let path = directory.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            Chain::open(&bytes).map(Some).map_err(|source| FlowError::File { path, source })
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FlowError::io(path, e)),
    }
}

/// Writes a chain in the place of the one before it.
pub(crate) fn write(directory: &Path, chain: &Chain) -> Result<()> {
    let (path, making) = (directory.join(FILE), directory.join(".members.new"));
    let written = || {
        match fs::remove_file(&making) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        write_private(&making, chain.bytes_from(0))?;
        fs::rename(&making, &path)?;
        sync_dir(directory)
    };
    written().map_err(|e| FlowError::io(&path, e))
}

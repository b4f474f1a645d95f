//! Heads of other devices, on this disk.
//!
//! Neighbours: `follow` shows them, `keep` keeps what they name. Promises: a
//! head that was kept is there after a power cut, it or a newer one. Never:
//! judges who may publish. Tested by `engine/flow/tests/follow.rs`.

use crate::error::{FlowError, Result};
use std::collections::HashMap;
use std::sync::Arc;
use warp_cache::CacheError;
use warp_cache::disk::Disk;
use warp_format::{DeviceId, FormatError, Head, PortalId};

const PREFIX: &str = "seen-";

/// The newest head of each device, and its bytes as they were signed.
pub(crate) type Heads = HashMap<DeviceId, (Head, Vec<u8>)>;

/// The heads of one portal on a disk.
pub(crate) struct HeadFiles {
    disk: Arc<dyn Disk>,
    portal: PortalId,
}

impl HeadFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, portal: PortalId) -> Self {
        Self { disk, portal }
    }

    /// The newest of each device.
    pub(crate) fn newest(&self) -> Result<Heads> {
        let mut heads = Heads::new();
        for name in self.disk.names().map_err(io)? {
            if !name.starts_with(PREFIX) {
                continue;
            }
            let Some(file) = self.disk.open(&name).map_err(io)? else { continue };
            let len = file.len().map_err(io)?;
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            file.read_at(&mut bytes, 0).map_err(io)?;
            match Head::open(&bytes) {
                Ok(head) if head.portal == self.portal && file_name(&head) == name => {
                    let known = heads.get(&head.device).map_or(0, |(known, _)| known.sequence);
                    if head.sequence > known {
                        heads.insert(head.device, (head, bytes));
                    }
                }
                Err(e @ FormatError::Version { .. }) => return Err(e.into()),
                // Torn, or not ours: the peers tell it again.
                _ => {}
            }
        }
        Ok(heads)
    }

    /// Makes a head durable, and lets go of the one before it.
    pub(crate) fn keep(&self, head: &Head, bytes: &[u8]) -> Result<()> {
        let name = file_name(head);
        // A torn one of an earlier attempt.
        let (making, prefix) = (format!("{name}.new"), prefix(&head.device));
        let _ = self.disk.remove(&making);
        let file = self.disk.create(&making).map_err(io)?;
        file.write_at(bytes, 0).and_then(|()| file.sync()).map_err(io)?;
        self.disk.rename(&making, &name).map_err(io)?;
        self.disk.sync_names().map_err(io)?;
        for other in self.disk.names().map_err(io)? {
            if other.starts_with(&prefix) && other != name {
                self.disk.remove(&other).map_err(io)?;
            }
        }
        Ok(())
    }
}

/// True if a head takes the place of one that is known of the same device; two
/// different ones of one number are an error.
pub(crate) fn is_newer(head: &Head, known: &Head) -> Result<bool> {
    if known.sequence == head.sequence && known != head {
        return Err(FlowError::Forked { device: head.device, sequence: head.sequence });
    }
    Ok(head.sequence > known.sequence)
}

fn io(source: std::io::Error) -> FlowError {
    CacheError::Io { file: "head".into(), source }.into()
}

fn prefix(device: &DeviceId) -> String {
    format!("{PREFIX}{device:#}-")
}

fn file_name(head: &Head) -> String {
    format!("{}{:016x}", prefix(&head.device), head.sequence)
}

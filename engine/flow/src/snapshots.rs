//! The snapshots of a portal on this device: names for trees that stay.
//!
//! Neighbours: `live` makes one of the tree that it has just published;
//! `sweep` keeps what they name; a mount shows them. Promises: one that was
//! made is there after a power cut; the list shows nothing on the disk. Never:
//! holds a copy of anything. Tested by `engine/flow/tests/snapshots.rs`.

use crate::error::{FlowError, Result};
use crate::live::{Fresh, Live, Tree};
use crate::publish;
use std::sync::{Arc, MutexGuard, PoisonError};
use warp_cache::disk::Disk;
use warp_cache::journal::Journal;
use warp_format::Secret;
use warp_format::local::LocalKey;
use warp_format::record::Time;
use warp_format::snapshot::SnapshotEntry;

pub use warp_format::snapshot::{Snapshot, is_snapshot_name};

const PREFIX: &str = "snapshots-";
/// Entries of what is no more that are not worth a new log.
const STALE: usize = 100;

/// All snapshots, and the log that keeps them.
pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    key: Secret,
    /// By time; those of one time by name.
    list: Vec<Snapshot>,
    /// Begun with the first snapshot.
    log: Option<Journal>,
}

/// The snapshots of a state that nobody has open; nothing is changed.
pub(crate) fn read(disk: &dyn Disk, local: &Secret) -> Result<Vec<Snapshot>> {
    let mut list = Vec::new();
    for entry in Journal::read(disk, PREFIX, &LocalKey::new(local.for_snapshots()))? {
        take(&mut list, SnapshotEntry::decode(&entry)?);
    }
    Ok(list)
}

/// Does what an entry says.
fn take(list: &mut Vec<Snapshot>, entry: SnapshotEntry) {
    let (SnapshotEntry::Add(Snapshot { name, .. }) | SnapshotEntry::Remove(name)) = &entry;
    list.retain(|other| other.name != *name);
    if let SnapshotEntry::Add(snapshot) = entry {
        list.push(snapshot);
        list.sort_by(|a, b| (a.time, &a.name).cmp(&(b.time, &b.name)));
    }
}

impl Snapshots {
    /// Reads the log, if there is one.
    pub(crate) fn open(disk: &Arc<dyn Disk>, local: &Secret, fresh: &Fresh) -> Result<Self> {
        let disk = Arc::clone(disk);
        let mut snapshots = Self { disk, key: local.for_snapshots(), list: Vec::new(), log: None };
        let names = snapshots.disk.names().map_err(|e| FlowError::io("snapshots", e))?;
        if names.iter().any(|name| name.starts_with(PREFIX)) {
            snapshots.open_log(fresh)?;
        }
        Ok(snapshots)
    }

    fn open_log(&mut self, fresh: &Fresh) -> Result<()> {
        let key = LocalKey::new(self.key.clone());
        let (log, entries) = Journal::open(Arc::clone(&self.disk), PREFIX, key, fresh.nonces())?;
        let count = entries.len();
        for entry in entries {
            take(&mut self.list, SnapshotEntry::decode(&entry)?);
        }
        if count > 2 * self.list.len() + STALE {
            let old = log.rotate()?;
            for snapshot in &self.list {
                log.append(&SnapshotEntry::Add(snapshot.clone()).encode());
            }
            log.commit()?;
            log.retire(old)?;
        }
        self.log = Some(log);
        Ok(())
    }

    /// Makes an entry durable, and then does what it says.
    fn write(&mut self, entry: SnapshotEntry, fresh: &Fresh) -> Result<()> {
        if self.log.is_none() {
            self.open_log(fresh)?;
        }
        if let Some(log) = &self.log {
            log.append(&entry.encode());
            log.commit()?;
        }
        take(&mut self.list, entry);
        Ok(())
    }

    /// `FlowError::BadSnapshot` if there is one of this name.
    pub(crate) fn add(&mut self, snapshot: Snapshot, fresh: &Fresh) -> Result<()> {
        self.check_name(&snapshot.name)?;
        self.write(SnapshotEntry::Add(snapshot), fresh)
    }

    /// Fails if a new one cannot have this name.
    pub(crate) fn check_name(&self, name: &str) -> Result<()> {
        let bad = |why| Err(FlowError::BadSnapshot { name: name.to_owned(), why });
        if !is_snapshot_name(name) {
            return bad(
                "a snapshot's name has 1 to 255 bytes, no `/`, and starts with neither `.` nor `-`",
            );
        }
        if self.find(name).is_some() {
            return bad("there is a snapshot of that name already");
        }
        Ok(())
    }

    /// `FlowError::NoSnapshot` if there is none of this name.
    pub(crate) fn remove(&mut self, name: &str, fresh: &Fresh) -> Result<()> {
        self.existing(name)?;
        self.write(SnapshotEntry::Remove(name.to_owned()), fresh)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Snapshot> {
        self.list.iter().find(|snapshot| snapshot.name == name)
    }

    pub(crate) fn existing(&self, name: &str) -> Result<&Snapshot> {
        self.find(name).ok_or_else(|| {
            let names = self.list.iter().map(|snapshot| snapshot.name.clone());
            let nearest = crate::portals::nearest(name, names);
            FlowError::NoSnapshot { name: name.to_owned(), nearest }
        })
    }

    pub(crate) fn list(&self) -> &[Snapshot] {
        &self.list
    }
}

impl Live {
    fn locked_snapshots(&self) -> MutexGuard<'_, Snapshots> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All snapshots, by time.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.locked_snapshots().list().to_vec()
    }

    /// Publishes, and gives the tree a name under which it stays.
    /// `FlowError::BadSnapshot` if it cannot have that name.
    pub fn make_snapshot(&self, name: &str, time: Time, tags: Vec<String>) -> Result<Snapshot> {
        self.locked_snapshots().check_name(name)?;
        // Until it is named, no sweep must take it.
        let mut publisher = self.publisher();
        let head = publish::publish(self, &mut publisher)?;
        let (name, sequence, root) = (name.to_owned(), head.sequence, head.root);
        let snapshot = Snapshot { name, time, sequence, root, tags };
        self.locked_snapshots().add(snapshot.clone(), &self.fresh)?;
        Ok(snapshot)
    }

    /// Takes a snapshot away; what only it named goes with the next sweep.
    pub fn remove_snapshot(&self, name: &str) -> Result<()> {
        self.locked_snapshots().remove(name, &self.fresh)
    }

    /// The snapshot of this name with a reader of its tree, which stays while
    /// somebody has it. `FlowError::NoSnapshot` if there is none.
    pub(crate) fn open_snapshot(&self, name: &str) -> Result<(Snapshot, Arc<Tree>)> {
        // Held until a sweep knows of the tree.
        let snapshots = self.locked_snapshots();
        let snapshot = snapshots.existing(name)?.clone();
        let tree = self.register(self.tree_at(snapshot.root));
        Ok((snapshot, tree))
    }
}

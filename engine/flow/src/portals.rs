//! The portals that this device has.
//!
//! Each is a directory `portals/ID` with its sealed record `portal`, a `lock`
//! and its `state`. Promises: no two portals have one name; a portal is there
//! whole or not at all; a record that is damaged hides no other portal. Never:
//! shows a portal's name on the disk. Tested by `tests/tests/portal.rs` and
//! `bad_portal.rs`.

pub(crate) mod epochs;
mod sharing;

use crate::error::{FlowError, Result};
use crate::home::{Home, make_private_dir, random_array, random_secret, sync_dir, write_private};
use crate::live::{Fresh, Live, PortalSecrets};
use crate::namespace::Namespace;
use crate::portal::Portal;
use crate::progress::Progress;
use crate::repair::{self, Repaired};
use crate::space;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use warp_cache::disk::{Disk, HostDisk};
use warp_format::portal::{MAX_PORTAL_NAME_LEN, PortalKey, PortalRecord};
use warp_format::{Keyring, PortalId, Secret};

const RECORD: &str = "portal";
const LOCK: &str = "lock";
/// Of all portals together.
const LOCK_ALL: &str = ".lock";
const STATE: &str = "state";

/// A portal of this device.
#[derive(Debug, Clone)]
pub struct PortalEntry {
    /// Its name on this device.
    pub name: String,
    /// The portal.
    pub id: PortalId,
    /// Where its state is.
    pub directory: PathBuf,
}

/// All portals of a device.
pub struct Portals {
    data: PathBuf,
    /// Seals the records.
    key: Secret,
    device: Secret,
    /// Held while a membership chain is changed, and while a portal is opened
    /// as its chain says.
    chains: Mutex<()>,
    /// What is told of its chain.
    opened: Mutex<Vec<(PortalId, epochs::Open)>>,
}

impl Portals {
    /// With an opened keyring.
    pub fn new(home: &Home, keyring: &Keyring) -> Result<Self> {
        let (_, key) = keyring.phrase()?.owner_keys();
        Ok(Self {
            data: home.data().into(),
            key,
            device: keyring.device_secret(),
            chains: Mutex::default(),
            opened: Mutex::default(),
        })
    }

    fn directory(&self) -> PathBuf {
        self.data.join("portals")
    }

    /// All records, or what is wrong with them.
    fn records(&self) -> Result<Vec<(PathBuf, Result<PortalRecord>)>> {
        let directory = self.directory();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(FlowError::io(directory, e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| FlowError::io(&directory, e))?.path();
            // A hidden one is being made, or was when the power went.
            if !is_hidden(&path) && path.is_dir() {
                let record = self.read(&path.join(RECORD));
                found.push((path, record));
            }
        }
        Ok(found)
    }

    fn read(&self, path: &Path) -> Result<PortalRecord> {
        let bytes = fs::read(path).map_err(|e| FlowError::io(path, e))?;
        PortalRecord::open(&bytes, &self.key)
            .map_err(|source| FlowError::File { path: path.into(), source })
    }

    /// All portals, by name. One whose record is damaged is passed over, and
    /// the log says so.
    pub fn list(&self) -> Result<Vec<PortalEntry>> {
        let mut entries = Vec::new();
        for (directory, record) in self.records()? {
            match record {
                Ok(record) => {
                    entries.push(PortalEntry { name: record.name, id: record.id, directory });
                }
                Err(e) => tracing::error!("{e}"),
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The portal of this name; `FlowError::NoPortal` names the nearest.
    pub fn find(&self, name: &str) -> Result<PortalEntry> {
        let (record, directory) = self.record(name)?;
        Ok(PortalEntry { name: record.name, id: record.id, directory })
    }

    fn record(&self, name: &str) -> Result<(PortalRecord, PathBuf)> {
        let mut damaged = None;
        let mut names = Vec::new();
        for (directory, record) in self.records()? {
            match record {
                Ok(record) if record.name == name => return Ok((record, directory)),
                Ok(record) => names.push(record.name),
                Err(e) => damaged = Some(e),
            }
        }
        // It may be the one that was asked for.
        if let Some(e) = damaged {
            return Err(e);
        }
        let nearest = nearest(name, names);
        Err(FlowError::NoPortal { name: name.to_owned(), nearest })
    }

    /// Makes a portal, empty and published; its root belongs to this owner.
    /// `quota` is the most bytes that it may take on this disk.
    /// `FlowError::BadName` if it cannot have the name.
    pub fn create(
        &self,
        name: &str,
        (uid, gid): (u32, u32),
        quota: Option<NonZeroU64>,
    ) -> Result<PortalEntry> {
        check_name(name)?;
        let all = self.directory();
        make_private_dir(&all).map_err(|e| FlowError::io(&all, e))?;
        // Two at once must not both find the name free.
        let _lock = self.lock_all()?;
        self.clear_remains();
        match self.find(name) {
            Ok(_) => {
                return Err(FlowError::BadName {
                    name: name.to_owned(),
                    why: "this device has a portal of that name already",
                });
            }
            Err(FlowError::NoPortal { .. }) => {}
            Err(e) => return Err(e),
        }
        let id = PortalId(random_array()?);
        let (root, local) = (random_secret()?, random_secret()?);
        let key = PortalKey::Root(root);
        let record = PortalRecord { id, name: name.to_owned(), key, local, quota };
        let short = id.to_string();
        let (making, directory) = (all.join(format!(".{short}")), all.join(short));
        let made = self.make(&record, &making, uid, gid).and_then(|()| {
            fs::rename(&making, &directory)
                .and_then(|()| sync_dir(&all))
                .map_err(|e| FlowError::io(&directory, e))
        });
        if let Err(e) = made {
            let _ = fs::remove_dir_all(&making);
            return Err(e);
        }
        Ok(PortalEntry { name: record.name, id, directory })
    }

    /// Keeps others from making and leaving portals.
    fn lock_all(&self) -> Result<File> {
        lock(&self.directory().join(LOCK_ALL), "portals", true)
    }

    /// Removes what a kill left of portals that were being made or left: no
    /// name leads there. It can be done later, too.
    fn clear_remains(&self) {
        for entry in fs::read_dir(self.directory()).into_iter().flatten().flatten() {
            if is_hidden(&entry.path()) && entry.file_name() != LOCK_ALL {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn make(&self, record: &PortalRecord, directory: &Path, uid: u32, gid: u32) -> Result<()> {
        let state = directory.join(STATE);
        make_private_dir(&state).map_err(|e| FlowError::io(&state, e))?;
        let names = Namespace::new(self.open_state(record, &state, |disk| disk)?);
        names.make_root(uid, gid)?;
        names.live.publish()?;
        let path = directory.join(RECORD);
        let bytes = record.seal(&self.key, random_array()?)?;
        write_private(&path, &bytes).map_err(|e| FlowError::io(&path, e))
    }

    fn secrets(&self, record: &PortalRecord) -> Result<PortalSecrets> {
        Ok(PortalSecrets {
            portal: record.id,
            root: record.key.root().ok_or(FlowError::KeepsOnly)?.clone(),
            local: record.local.clone(),
            device: self.device.clone(),
        })
    }

    fn open_state(
        &self,
        record: &PortalRecord,
        state: &Path,
        over: impl FnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>,
    ) -> Result<Live> {
        let disk = HostDisk::new(state.into()).map_err(|e| FlowError::io(state, e))?;
        let secrets = self.secrets(record)?;
        let fresh = Fresh { nonces: random_array()?, incarnation: random_array()? };
        let pack_len = space::pack_len(space::disk_size(state)?);
        Live::open_with(over(Arc::new(disk)), secrets, fresh, pack_len)
    }

    /// Opens a portal's state: `FlowError::InUse` if another process has it.
    pub fn open(&self, name: &str) -> Result<Arc<Portal>> {
        self.open_over(name, |disk| disk)
    }

    /// The same on what `over` makes of the host's disk: one that stalls, or
    /// fails.
    pub fn open_over(
        &self,
        name: &str,
        over: impl FnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>,
    ) -> Result<Arc<Portal>> {
        let (record, directory) = self.record(name)?;
        if self.is_anothers(&directory)? {
            return Err(FlowError::NotWriter);
        }
        let lock = lock(&directory.join(LOCK), name, false)?;
        let state = directory.join(STATE);
        let live = self.open_state(&record, &state, over)?;
        // Before anything is sealed. A disk that takes no record of it must not
        // keep the owner from what they have.
        if let Err(e) = self.end_expired(name) {
            tracing::error!(portal = %record.id, "members whose time is over are not removed: {e}");
        }
        let _one = self.changing();
        live.take_membership(&self.membership(&directory)?);
        let portal = Portal::start(live, state, record.quota, lock)?;
        self.note_opened(record.id, epochs::Open::Own(Arc::downgrade(&portal)));
        Ok(portal)
    }

    /// Makes a portal's store sound again from its packs alone; with `dry_run`,
    /// only says what it would do. It must not be open.
    pub fn repair(&self, name: &str, dry_run: bool, progress: &Progress) -> Result<Repaired> {
        let (record, directory) = self.record(name)?;
        if self.is_anothers(&directory)? {
            return Err(FlowError::NotWriter);
        }
        let _lock = lock(&directory.join(LOCK), name, false)?;
        let state = directory.join(STATE);
        let disk = HostDisk::new(state.clone()).map_err(|e| FlowError::io(&state, e))?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let membership = self.membership(&directory)?;
        repair::repair(&disk, &self.secrets(&record)?, &membership, dry_run, progress)
    }

    /// Takes a portal off this device. `keep_data` moves its state (still
    /// sealed) to `left/ID` beside `portals/` and gives that path. It must not
    /// be open.
    pub fn leave(&self, name: &str, keep_data: bool) -> Result<Option<PathBuf>> {
        let (_, directory) = self.record(name)?;
        let _all = self.lock_all()?;
        let _lock = lock(&directory.join(LOCK), name, false)?;
        let parent = if keep_data { self.data.join("left") } else { self.directory() };
        make_private_dir(&parent).map_err(|e| FlowError::io(&parent, e))?;
        let id = directory.file_name().unwrap_or_default();
        // Hidden first: a portal that is half removed is no portal.
        let mut hidden = std::ffi::OsString::from(".left-");
        hidden.push(id);
        let target = parent.join(if keep_data { id } else { &hidden });
        fs::rename(&directory, &target)
            .and_then(|()| sync_dir(&parent))
            .and_then(|()| sync_dir(&self.directory()))
            .map_err(|e| FlowError::io(&directory, e))?;
        if keep_data {
            return Ok(Some(target));
        }
        fs::remove_dir_all(&target).map_err(|e| FlowError::io(&target, e))?;
        Ok(None)
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Takes a lock that ends with the file.
fn lock(path: &Path, what: &str, wait: bool) -> Result<File> {
    let io = |e: io::Error| FlowError::io(path, e);
    let mut options = OpenOptions::new();
    let file =
        options.write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
    let how =
        if wait { FlockOperation::LockExclusive } else { FlockOperation::NonBlockingLockExclusive };
    match flock(&file, how) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(FlowError::InUse { what: what.to_owned() }),
        Err(e) => Err(io(e.into())),
    }
}

/// A name must be told from a path, an option and an archive.
fn check_name(name: &str) -> Result<()> {
    let bad = |why| Err(FlowError::BadName { name: name.to_owned(), why });
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > MAX_PORTAL_NAME_LEN {
        return bad("a name has 1 to 64 bytes");
    }
    if !name.chars().all(allowed) || name.starts_with(['.', '-']) {
        return bad(
            "a name has letters, digits, `.`, `_` and `-`, and starts with neither `.` nor `-`",
        );
    }
    if name.ends_with(".warp") {
        return bad("a name that ends in `.warp` would be taken for an archive");
    }
    Ok(())
}

/// Of these names the one that was probably meant: at most two letters away.
pub fn nearest(name: &str, among: impl IntoIterator<Item = String>) -> Option<String> {
    let near = among.into_iter().map(|other| (distance(name, &other), other)).min();
    near.filter(|(far, _)| *far <= 2).map(|(_, name)| name)
}

/// Letters to add, drop or change to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(before + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_neither_path_nor_option_nor_archive() {
        for good in ["photos", "a", "Familie-Müller_2.0", "x.y"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", "a/b", "a:b", "-v", ".x", "x.warp", "a b", "a\n", &long] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_distance_of_words_is_what_it_takes_to_type_one_for_the_other() {
        let rows = [("photos", "photos", 0), ("photo", "photos", 1), ("phtoos", "photos", 2)];
        for (a, b, far) in rows {
            assert_eq!(distance(a, b), far, "{a} {b}");
        }
        assert_eq!(distance("", "abc"), 3);
    }
}

//! A disk that remembers everything that was written to it, in order, and
//! gives back what a power cut at any point could have left.
//!
//! The rules are POSIX's: what a barrier covers is there; of the rest, each
//! write is there, not there, or torn at a sector, independent of the others;
//! of names, a prefix of the changes is there.

use crate::disk::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One thing done to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A file was made.
    Create {
        /// Its name.
        name: String,
        /// Its number, for ever.
        file: usize,
    },
    /// A name was changed.
    Rename {
        /// From.
        from: String,
        /// To.
        to: String,
    },
    /// A name was taken away.
    Remove {
        /// Which.
        name: String,
    },
    /// Bytes were written.
    Write {
        /// Where.
        file: usize,
        /// From this offset on.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file was cut.
    Truncate {
        /// Which.
        file: usize,
        /// To this length.
        len: u64,
    },
    /// A file was synced.
    Sync {
        /// Which.
        file: usize,
    },
    /// The directory was synced.
    SyncNames,
    /// A mark of the test's own: what was acknowledged here.
    Mark(u64),
}

impl Op {
    /// True for a change of names.
    pub fn is_naming(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Rename { .. } | Self::Remove { .. })
    }
}

/// What becomes of a write that no barrier covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    Whole,
    /// It is not.
    Lost,
    /// Its first bytes are there.
    Torn(usize),
}

/// A barrier that a faulty disk may drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// The sync of files whose name starts so.
    File(&'static str),
    /// The sync of names.
    Names,
}

#[derive(Default, Clone)]
struct Contents {
    files: Vec<Vec<u8>>,
    names: BTreeMap<String, usize>,
}

impl Contents {
    fn apply(&mut self, op: &Op, fate: Fate) {
        match op {
            Op::Create { name, file } => {
                if self.files.len() <= *file {
                    self.files.resize(*file + 1, Vec::new());
                }
                self.names.insert(name.clone(), *file);
            }
            Op::Rename { from, to } => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Op::Remove { name } => {
                self.names.remove(name);
            }
            Op::Write { file, offset, bytes } => {
                let len = match fate {
                    Fate::Whole => bytes.len(),
                    Fate::Lost => return,
                    Fate::Torn(n) => n.min(bytes.len()),
                };
                if self.files.len() <= *file {
                    self.files.resize(*file + 1, Vec::new());
                }
                let contents = &mut self.files[*file];
                let start = *offset as usize;
                // A lost write before this one leaves zeros behind.
                if contents.len() < start + len {
                    contents.resize(start + len, 0);
                }
                contents[start..start + len].copy_from_slice(&bytes[..len]);
            }
            Op::Truncate { file, len } => {
                if fate == Fate::Whole
                    && let Some(contents) = self.files.get_mut(*file)
                {
                    contents.truncate(*len as usize);
                }
            }
            Op::Sync { .. } | Op::SyncNames | Op::Mark(_) => {}
        }
    }
}

struct Inner {
    contents: Contents,
    log: Vec<Op>,
    drops: Option<Barrier>,
}

/// The recording disk.
#[derive(Clone)]
pub struct CrashDisk {
    inner: Arc<Mutex<Inner>>,
}

impl Default for CrashDisk {
    fn default() -> Self {
        Self::new(None)
    }
}

impl CrashDisk {
    /// An empty disk; `drops` makes it a faulty one, which says that it has
    /// synced and has not.
    pub fn new(drops: Option<Barrier>) -> Self {
        let inner = Inner { contents: Contents::default(), log: Vec::new(), drops };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything done so far.
    pub fn log(&self) -> Vec<Op> {
        self.inner().log.clone()
    }

    /// Notes in the log that the test holds something for acknowledged.
    pub fn mark(&self, what: u64) {
        self.inner().log.push(Op::Mark(what));
    }

    /// The disk as a power cut after `log` leaves it. `fate` decides of each
    /// write that no barrier covers, `names` how many of the changes of names
    /// that no barrier covers are there.
    pub fn after(log: &[Op], fate: &mut dyn FnMut(&Op) -> Fate, names: usize) -> Self {
        let mut contents = Contents::default();
        let names_synced = log.iter().rposition(|op| *op == Op::SyncNames).unwrap_or(0);
        let mut loose = names;
        for (i, op) in log.iter().enumerate() {
            let covered = match op {
                Op::Write { file, .. } | Op::Truncate { file, .. } => {
                    log[i..].contains(&Op::Sync { file: *file })
                }
                naming if naming.is_naming() => {
                    if i < names_synced {
                        true
                    } else if loose > 0 {
                        loose -= 1;
                        true
                    } else {
                        continue;
                    }
                }
                _ => true,
            };
            contents.apply(op, if covered { Fate::Whole } else { fate(op) });
        }
        let inner = Inner { contents, log: Vec::new(), drops: None };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }
}

struct CrashFile {
    disk: CrashDisk,
    file: usize,
    name: String,
}

impl CrashDisk {
    fn handle(&self, file: usize, name: &str) -> Arc<dyn DiskFile> {
        Arc::new(CrashFile { disk: self.clone(), file, name: name.to_owned() })
    }

    fn record(&self, op: Op) {
        let mut inner = self.inner();
        inner.contents.apply(&op, Fate::Whole);
        inner.log.push(op);
    }
}

impl Disk for CrashDisk {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let file = self.inner().contents.names.get(name).copied();
        Ok(file.map(|file| self.handle(file, name)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = {
            let inner = self.inner();
            if inner.contents.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            inner.contents.files.len()
        };
        self.record(Op::Create { name: name.to_owned(), file });
        Ok(self.handle(file, name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().contents.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if !self.inner().contents.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.record(Op::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.inner().contents.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.record(Op::Remove { name: name.to_owned() });
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        if self.inner().drops != Some(Barrier::Names) {
            self.record(Op::SyncNames);
        }
        Ok(())
    }
}

impl DiskFile for CrashFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.disk.inner();
        let contents = &inner.contents.files[self.file];
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = start.checked_add(bytes.len()).and_then(|end| contents.get(start..end));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.record(Op::Write { file: self.file, offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.inner().contents.files[self.file].len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.record(Op::Truncate { file: self.file, len });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let drops = self.disk.inner().drops;
        if !matches!(drops, Some(Barrier::File(start)) if self.name.starts_with(start)) {
            self.disk.record(Op::Sync { file: self.file });
        }
        Ok(())
    }
}

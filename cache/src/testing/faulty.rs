//! A disk whose calls fail for a while: full, or broken.

use crate::disk::{Disk, DiskFile};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing can be made or written; a write gets half way.
    Full,
    /// No change of any kind works, barriers included.
    Broken,
}

/// A disk over another one, with faults at chosen calls.
#[derive(Clone)]
pub struct FaultyDisk {
    under: Arc<dyn Disk>,
    plan: Arc<Mutex<Plan>>,
}

struct Plan {
    fault: Fault,
    /// Calls that may fail and have been made.
    made: u64,
    /// Which of them fail: from the first number up to the second.
    from: u64,
    to: u64,
}

impl FaultyDisk {
    /// Over this disk: calls number `from` to `to` (without the last) that
    /// change something fail.
    pub fn new(under: Arc<dyn Disk>, fault: Fault, from: u64, to: u64) -> Self {
        Self { under, plan: Arc::new(Mutex::new(Plan { fault, made: 0, from, to })) }
    }

    /// Calls so far that changed something, or would have.
    pub fn calls(&self) -> u64 {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).made
    }

    fn change(&self, takes_room: bool) -> io::Result<()> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if plan.fault == Fault::Full && !takes_room {
            return Ok(());
        }
        plan.made += 1;
        if (plan.from..plan.to).contains(&(plan.made - 1)) {
            return Err(match plan.fault {
                Fault::Full => io::ErrorKind::StorageFull.into(),
                Fault::Broken => io::Error::other("the disk is broken"),
            });
        }
        Ok(())
    }

    fn file(&self, under: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { under, disk: self.clone() })
    }
}

impl Disk for FaultyDisk {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn DiskFile>>> {
        Ok(self.under.open(name)?.map(|file| self.file(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.change(true)?;
        Ok(self.file(self.under.create(name)?))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.under.names()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(false)?;
        self.under.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(false)?;
        self.under.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.change(false)?;
        self.under.sync_names()
    }
}

struct FaultyFile {
    under: Arc<dyn DiskFile>,
    disk: FaultyDisk,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.under.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(e) = self.disk.change(true) {
            self.under.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(e);
        }
        self.under.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.under.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.change(false)?;
        self.under.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change(false)?;
        self.under.sync()
    }
}

//! A disk that answers nothing for a while, or for good.

use crate::disk::{Disk, DiskFile};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Opens, reads, lists.
    Read,
    /// Makes, writes, renames, removes, cuts.
    Write,
    /// Waits for what was written to be durable.
    Sync,
}

/// A disk over another one, whose calls wait while it is told to stall.
#[derive(Clone)]
pub struct StallingDisk {
    under: Arc<dyn Disk>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    how: Mutex<How>,
    changed: Condvar,
}

#[derive(Default)]
struct How {
    stalled: Vec<Call>,
    waiting: usize,
    dead: bool,
}

impl Shared {
    fn how(&self) -> MutexGuard<'_, How> {
        self.how.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, call: Call) -> io::Result<()> {
        let mut how = self.how();
        how.waiting += 1;
        while how.stalled.contains(&call) {
            how = self.changed.wait(how).unwrap_or_else(PoisonError::into_inner);
        }
        how.waiting -= 1;
        if how.dead && call != Call::Read {
            return Err(io::Error::other("this process is over, as far as its disk goes"));
        }
        Ok(())
    }
}

impl StallingDisk {
    /// Over this disk, which answers at first.
    pub fn new(under: Arc<dyn Disk>) -> Self {
        Self { under, shared: Arc::default() }
    }

    /// Calls of these kinds wait from now on, and no others.
    pub fn stall(&self, calls: &[Call]) {
        self.shared.how().stalled = calls.to_vec();
        self.shared.changed.notify_all();
    }

    /// All calls are answered again.
    pub fn resume(&self) {
        self.stall(&[]);
    }

    /// Nothing more reaches the disk below: what is there is what a kill of
    /// this process leaves.
    pub fn kill(&self) {
        self.shared.how().dead = true;
    }

    /// Calls that wait now.
    pub fn waiting(&self) -> usize {
        self.shared.how().waiting
    }

    fn file(&self, under: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(StallingFile { under, shared: Arc::clone(&self.shared) })
    }
}

impl Disk for StallingDisk {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn DiskFile>>> {
        self.shared.enter(Call::Read)?;
        Ok(self.under.open(name)?.map(|file| self.file(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.shared.enter(Call::Write)?;
        Ok(self.file(self.under.create(name)?))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.shared.enter(Call::Read)?;
        self.under.names()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.shared.enter(Call::Write)?;
        self.under.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.shared.enter(Call::Write)?;
        self.under.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.shared.enter(Call::Sync)?;
        self.under.sync_names()
    }
}

struct StallingFile {
    under: Arc<dyn DiskFile>,
    shared: Arc<Shared>,
}

impl DiskFile for StallingFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.shared.enter(Call::Read)?;
        self.under.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.shared.enter(Call::Write)?;
        self.under.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.shared.enter(Call::Read)?;
        self.under.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.shared.enter(Call::Write)?;
        self.under.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.enter(Call::Sync)?;
        self.under.sync()
    }
}

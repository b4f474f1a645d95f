//! Step *journal*: what makes an acknowledged `fsync` durable.
//!
//! Neighbours: the overlay in `flow` hands over what it changes, and gets it
//! back at start. Promises: after `commit` returns, every entry appended
//! before survives a power cut; entries come back in order, none twice; a
//! torn tail is cut, a hole before a later record is reported, not skipped.
//! Never: shows an entry's bytes on the disk (each record is sealed).
//! Tested by `tests/crash_journal.rs`.
//!
//! Files `PREFIXNUMBER`, ascending; docs/format.md has the bytes.

use crate::disk::{Disk, DiskFile};
use crate::error::{CacheError, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warp_format::FormatError;
use warp_format::local::{ENTRY_MAGIC, Entry, JOURNAL_HEADER_LEN, JournalHeader, LocalKey};

/// The journal of a portal's changes.
pub const CHANGES: &str = "journal-";

/// Draws the nonce of a record.
pub type Nonces = Box<dyn FnMut() -> [u8; 24] + Send>;

/// A journal, open for appending; threads may share it.
pub struct Journal {
    disk: Arc<dyn Disk>,
    prefix: &'static str,
    key: LocalKey,
    queue: Mutex<Queue>,
    current: Mutex<Current>,
    /// The last sequence number that is durable.
    durable: AtomicU64,
    /// A barrier failed: nothing may be acknowledged any more.
    doubtful: AtomicBool,
    /// The last write failed, and what it was to write still waits.
    unwritten: AtomicBool,
}

/// What is appended and not yet written. Locked after `Current`, and never
/// while the disk is waited for.
struct Queue {
    nonces: Nonces,
    number: u64,
    /// Sequence number of the next record.
    sequence: u64,
    sealed: Vec<u8>,
}

/// The file that is written.
struct Current {
    file: Arc<dyn DiskFile>,
    /// Where the next record goes.
    end: u64,
    /// Taken from the queue, and not in the file yet: the disk was full.
    unwritten: Vec<u8>,
    /// The last sequence number that is in the file or in `unwritten`.
    taken: u64,
}

/// What [`Journal::open`] gives: the journal, and its entries in order.
pub type Replayed = (Journal, Vec<Vec<u8>>);

fn name(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:016x}")
}

fn number_of(prefix: &str, name: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

fn numbers(disk: &dyn Disk, prefix: &str) -> Result<Vec<u64>> {
    let names = disk.names().map_err(|e| CacheError::io(prefix, e))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(prefix, name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Opens the journal of this prefix on this disk, or starts one.
    pub fn open(
        disk: Arc<dyn Disk>,
        prefix: &'static str,
        key: LocalKey,
        nonces: Nonces,
    ) -> Result<Replayed> {
        let numbers = numbers(&*disk, prefix)?;
        let mut entries = Vec::new();
        let mut sequence = 1;
        let mut last = None;
        for (i, number) in numbers.iter().enumerate() {
            let name = name(prefix, *number);
            let io = |e| CacheError::io(&name, e);
            let Some(file) = disk.open(&name).map_err(io)? else { continue };
            let newest = i + 1 == numbers.len();
            let mut replay = Replay { file: &*file, name: &name, key: &key, number: *number };
            match replay.run(&mut sequence, i == 0, newest, &mut entries)? {
                Some(end) => last = Some((*number, file, end)),
                // A journal whose header never became durable holds nothing.
                None => disk.remove(&name).map_err(io)?,
            }
        }
        let (number, file, end) = match last {
            Some(last) => last,
            None => {
                let number = numbers.last().map_or(1, |n| n + 1);
                let file = start(&*disk, prefix, number, sequence)?;
                (number, file, JOURNAL_HEADER_LEN as u64)
            }
        };
        // What is behind the last whole record must not be taken for one of
        // the records that will be written over it.
        let settle = || {
            if file.len()? > end {
                file.truncate(end)?;
            }
            // After a kill the entries just read may be in memory only, and
            // they are about to be called durable.
            file.sync()?;
            disk.sync_names()
        };
        settle().map_err(|e| CacheError::io(&name(prefix, number), e))?;
        let taken = sequence - 1;
        let journal = Self {
            disk,
            prefix,
            key,
            queue: Mutex::new(Queue { nonces, number, sequence, sealed: Vec::new() }),
            current: Mutex::new(Current { file, end, unwritten: Vec::new(), taken }),
            durable: AtomicU64::new(taken),
            doubtful: AtomicBool::new(false),
            unwritten: AtomicBool::new(false),
        };
        Ok((journal, entries))
    }

    /// The entries of a journal that nobody has open; nothing is changed.
    pub fn read(disk: &dyn Disk, prefix: &str, key: &LocalKey) -> Result<Vec<Vec<u8>>> {
        let numbers = numbers(disk, prefix)?;
        let mut entries = Vec::new();
        let mut sequence = 1;
        for (i, number) in numbers.iter().enumerate() {
            let name = name(prefix, *number);
            let found = disk.open(&name).map_err(|e| CacheError::io(&name, e))?;
            let Some(file) = found else { continue };
            let newest = i + 1 == numbers.len();
            let mut replay = Replay { file: &*file, name: &name, key, number: *number };
            replay.run(&mut sequence, i == 0, newest, &mut entries)?;
        }
        Ok(entries)
    }

    /// Removes all files of this prefix: for a journal of what can be made
    /// again.
    pub fn discard(disk: &dyn Disk, prefix: &str) -> Result<()> {
        for number in numbers(disk, prefix)? {
            disk.remove(&name(prefix, number)).map_err(|e| CacheError::io(prefix, e))?;
        }
        Ok(())
    }

    /// Adds an entry; it is durable once [`Self::commit`] has returned.
    pub fn append(&self, entry: &[u8]) {
        let mut queue = locked(&self.queue);
        let queue = &mut *queue;
        let nonce = (queue.nonces)();
        let durable = self.durable.load(Ordering::Acquire);
        self.key.seal(queue.number, queue.sequence, durable, nonce, entry, &mut queue.sealed);
        queue.sequence += 1;
    }

    /// Bytes appended and not yet handed to the disk.
    pub fn queued(&self) -> usize {
        locked(&self.queue).sealed.len()
    }

    /// True if the disk did not take what was appended before: more should
    /// not be until [`Self::flush`] succeeds.
    pub fn is_stuck(&self) -> bool {
        self.unwritten.load(Ordering::Acquire) || self.doubtful.load(Ordering::Acquire)
    }

    /// True if something was appended and is not durable yet.
    pub fn is_dirty(&self) -> bool {
        let last = locked(&self.queue).sequence - 1;
        last > self.durable.load(Ordering::Acquire)
    }

    /// Hands what was appended to the disk without waiting for it to be
    /// durable: a kill no longer takes it, a power cut may.
    pub fn flush(&self) -> Result<()> {
        self.write(&mut locked(&self.current))
    }

    /// Makes every entry appended so far durable. After a failed sync no later
    /// one is believed: the kernel may have dropped the pages, and would
    /// report success for what is gone. Of callers that wait for one another,
    /// most find that the one before has done their work.
    pub fn commit(&self) -> Result<()> {
        let wanted = locked(&self.queue).sequence - 1;
        let mut current = locked(&self.current);
        if self.durable.load(Ordering::Acquire) >= wanted {
            return self.check();
        }
        self.write_and_sync(&mut current)
    }

    fn check(&self) -> Result<()> {
        if self.doubtful.load(Ordering::Acquire) {
            let file = name(self.prefix, locked(&self.queue).number);
            return Err(CacheError::Doubtful { file });
        }
        Ok(())
    }

    fn write(&self, current: &mut Current) -> Result<()> {
        self.check()?;
        let number = {
            let mut queue = locked(&self.queue);
            let sealed = std::mem::take(&mut queue.sealed);
            current.taken = queue.sequence - 1;
            if current.unwritten.is_empty() {
                current.unwritten = sealed;
            } else {
                current.unwritten.extend_from_slice(&sealed);
            }
            queue.number
        };
        // A write that failed (the disk is full) may be tried again: it goes
        // to the same place. A sync that failed may not.
        let written = current.file.write_at(&current.unwritten, current.end);
        self.unwritten.store(written.is_err(), Ordering::Release);
        written.map_err(|e| CacheError::io(&name(self.prefix, number), e))?;
        current.end += current.unwritten.len() as u64;
        current.unwritten.clear();
        Ok(())
    }

    fn write_and_sync(&self, current: &mut Current) -> Result<()> {
        self.write(current)?;
        if let Err(e) = current.file.sync() {
            self.doubtful.store(true, Ordering::Release);
            return Err(CacheError::io(&name(self.prefix, locked(&self.queue).number), e));
        }
        self.durable.store(current.taken, Ordering::Release);
        Ok(())
    }

    /// Commits and goes on in a new file; gives the number of the old one,
    /// to [`Self::retire`] once what it holds is durable elsewhere. Nothing
    /// may be appended meanwhile.
    pub fn rotate(&self) -> Result<u64> {
        let mut current = locked(&self.current);
        self.write_and_sync(&mut current)?;
        let (old, sequence) = {
            let queue = locked(&self.queue);
            assert!(queue.sealed.is_empty(), "nothing is appended while a journal rotates");
            (queue.number, queue.sequence)
        };
        current.file = match start(&*self.disk, self.prefix, old + 1, sequence) {
            Ok(file) => file,
            Err(e) => {
                // Left there, it would be taken for a journal whose entries
                // are gone once this one has gone on.
                let gone = self
                    .disk
                    .remove(&name(self.prefix, old + 1))
                    .and_then(|()| self.disk.sync_names());
                let never = matches!(&gone, Err(e) if e.kind() == std::io::ErrorKind::NotFound);
                self.doubtful.store(gone.is_err() && !never, Ordering::Release);
                return Err(e);
            }
        };
        locked(&self.queue).number = old + 1;
        current.end = JOURNAL_HEADER_LEN as u64;
        Ok(old)
    }

    /// Removes every file up to and including number `upto`.
    pub fn retire(&self, upto: u64) -> Result<()> {
        assert!(upto < locked(&self.queue).number, "the current file is in use");
        let io = |e| CacheError::io(self.prefix, e);
        // Oldest first, and each for good before the next: what is left after
        // a power cut has no hole.
        for number in numbers(&*self.disk, self.prefix)? {
            if number <= upto {
                self.disk.remove(&name(self.prefix, number)).map_err(io)?;
                self.disk.sync_names().map_err(io)?;
            }
        }
        Ok(())
    }
}

/// Makes a journal file whose header and name are durable.
fn start(disk: &dyn Disk, prefix: &str, number: u64, first: u64) -> Result<Arc<dyn DiskFile>> {
    let name = name(prefix, number);
    let make = || {
        let file = disk.create(&name)?;
        file.write_at(&JournalHeader { number, first }.encode(), 0)?;
        file.sync()?;
        disk.sync_names()?;
        Ok(file)
    };
    make().map_err(|e| CacheError::io(&name, e))
}

/// Reads one file back.
struct Replay<'a> {
    file: &'a dyn DiskFile,
    name: &'a str,
    key: &'a LocalKey,
    number: u64,
}

impl Replay<'_> {
    /// Appends the file's entries; gives where they end, or `None` if the
    /// file has no header (it was being made when the power went).
    fn run(
        &mut self,
        sequence: &mut u64,
        oldest: bool,
        newest: bool,
        entries: &mut Vec<Vec<u8>>,
    ) -> Result<Option<u64>> {
        let io = |e| CacheError::io(self.name, e);
        let len = self.file.len().map_err(io)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.file.read_at(&mut bytes, 0).map_err(io)?;
        let header = match JournalHeader::decode(&bytes) {
            Ok(header) if header.number == self.number => header,
            Err(source @ FormatError::Version { .. }) => {
                return Err(CacheError::corrupt(self.name, 0, source));
            }
            _ if newest && !self.holds_entry(&bytes) => return Ok(None),
            _ => {
                let source = FormatError::Checksum { at: "journal header" };
                return Err(CacheError::corrupt(self.name, 0, source));
            }
        };
        if oldest {
            *sequence = header.first;
        } else if header.first != *sequence {
            return Err(CacheError::Lost { file: self.name.to_owned(), sequence: *sequence });
        }
        let mut at = JOURNAL_HEADER_LEN;
        while let Some(Entry { head, bytes: entry }) = self.key.open(self.number, &bytes[at..]) {
            if head.sequence != *sequence {
                break;
            }
            entries.push(entry);
            *sequence += 1;
            at += head.record_len();
        }
        if self.lost(&bytes[at..], *sequence) {
            return Err(CacheError::Lost { file: self.name.to_owned(), sequence: *sequence });
        }
        Ok(Some(at as u64))
    }

    /// True if a whole entry is anywhere in the file.
    fn holds_entry(&self, bytes: &[u8]) -> bool {
        let places = bytes.windows(ENTRY_MAGIC.len()).enumerate();
        places
            .filter(|(_, found)| *found == ENTRY_MAGIC)
            .any(|(at, _)| self.key.open(self.number, &bytes[at..]).is_some())
    }

    /// True if something behind the end proves that entry `sequence` had been
    /// acknowledged. Records of one commit may reach the disk in any order,
    /// so a whole record behind a torn one proves nothing by itself; one that
    /// was written when `sequence` was durable does.
    fn lost(&self, rest: &[u8], sequence: u64) -> bool {
        let places = rest.windows(ENTRY_MAGIC.len()).enumerate();
        places.filter(|(_, bytes)| *bytes == ENTRY_MAGIC).any(|(at, _)| {
            let entry = self.key.open(self.number, &rest[at..]);
            entry.is_some_and(|entry| entry.head.durable >= sequence)
        })
    }
}

//! Step *journal*: what makes an acknowledged `fsync` durable.
//!
//! Neighbours: the overlay in `flow` hands over what it changes, and gets it
//! back at start. Promises: after `commit` returns, every entry appended
//! before survives a power cut; entries come back in order, none twice; a
//! torn tail is cut, a hole before a later record is reported, not skipped.
//! Never: shows an entry's bytes on the disk (each record is sealed).
//! Tested by `tests/crash_journal.rs`.
//!
//! Files `journal-NUMBER`, ascending; docs/format.md has the bytes.

use crate::disk::{Disk, DiskFile};
use crate::error::{CacheError, Result};
use std::sync::Arc;
use warp_format::FormatError;
use warp_format::local::{ENTRY_MAGIC, Entry, JOURNAL_HEADER_LEN, JournalHeader, LocalKey};

const PREFIX: &str = "journal-";

/// Draws the nonce of a record.
pub type Nonces = Box<dyn FnMut() -> [u8; 24] + Send>;

/// The journal, open for appending.
pub struct Journal {
    disk: Arc<dyn Disk>,
    key: LocalKey,
    nonces: Nonces,
    number: u64,
    file: Arc<dyn DiskFile>,
    /// Where the next record goes, and its sequence number.
    end: u64,
    sequence: u64,
    /// The last sequence number that is durable.
    durable: u64,
    /// Sealed and not yet written.
    pending: Vec<u8>,
    /// A barrier failed: nothing may be acknowledged any more.
    doubtful: bool,
}

/// What [`Journal::open`] gives: the journal, and its entries in order.
pub type Replayed = (Journal, Vec<Vec<u8>>);

fn name(number: u64) -> String {
    format!("{PREFIX}{number:016x}")
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

impl Journal {
    /// Opens the journal on this disk, or starts one.
    pub fn open(disk: Arc<dyn Disk>, key: LocalKey, nonces: Nonces) -> Result<Replayed> {
        let names = disk.names().map_err(|e| CacheError::io("journal", e))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        let mut entries = Vec::new();
        let mut sequence = 1;
        let mut last = None;
        for (i, number) in numbers.iter().enumerate() {
            let name = name(*number);
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
                let file = start(&*disk, number, sequence)?;
                (number, file, JOURNAL_HEADER_LEN as u64)
            }
        };
        // What is behind the last whole record must not be taken for one of
        // the records that will be written over it.
        let name = name(number);
        let settle = || {
            if file.len()? > end {
                file.truncate(end)?;
            }
            // After a kill the entries just read may be in memory only, and
            // they are about to be called durable.
            file.sync()?;
            disk.sync_names()
        };
        settle().map_err(|e| CacheError::io(&name, e))?;
        let pending = Vec::new();
        let (durable, doubtful) = (sequence - 1, false);
        let journal =
            Self { disk, key, nonces, number, file, end, sequence, durable, pending, doubtful };
        Ok((journal, entries))
    }

    /// Adds an entry; it is durable once [`Self::commit`] has returned.
    pub fn append(&mut self, entry: &[u8]) {
        let nonce = (self.nonces)();
        self.key.seal(self.number, self.sequence, self.durable, nonce, entry, &mut self.pending);
        self.sequence += 1;
    }

    /// Bytes of the current file.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// True if the current file holds no record.
    pub fn is_empty(&self) -> bool {
        self.end == JOURNAL_HEADER_LEN as u64
    }

    /// Makes every entry appended so far durable. After a failed sync no later
    /// one is believed: the kernel may have dropped the pages, and would
    /// report success for what is gone.
    pub fn commit(&mut self) -> Result<()> {
        let name = name(self.number);
        if self.doubtful {
            return Err(CacheError::Doubtful { file: name });
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        // A write that failed (the disk is full) may be tried again: it goes
        // to the same place. A sync that failed may not.
        self.file.write_at(&self.pending, self.end).map_err(|e| CacheError::io(&name, e))?;
        if let Err(e) = self.file.sync() {
            self.doubtful = true;
            return Err(CacheError::io(&name, e));
        }
        self.end += self.pending.len() as u64;
        self.durable = self.sequence - 1;
        self.pending.clear();
        Ok(())
    }

    /// Commits and goes on in a new file; gives the number of the old one,
    /// to [`Self::retire`] once what it holds is durable elsewhere.
    pub fn rotate(&mut self) -> Result<u64> {
        self.commit()?;
        let old = self.number;
        self.file = match start(&*self.disk, old + 1, self.sequence) {
            Ok(file) => file,
            Err(e) => {
                // Left there, it would be taken for a journal whose entries
                // are gone once this one has gone on.
                let gone = self.disk.remove(&name(old + 1)).and_then(|()| self.disk.sync_names());
                let never = matches!(&gone, Err(e) if e.kind() == std::io::ErrorKind::NotFound);
                self.doubtful = gone.is_err() && !never;
                return Err(e);
            }
        };
        self.number = old + 1;
        self.end = JOURNAL_HEADER_LEN as u64;
        Ok(old)
    }

    /// Removes every file up to and including number `upto`.
    pub fn retire(&mut self, upto: u64) -> Result<()> {
        assert!(upto < self.number, "the current file is in use");
        let io = |e| CacheError::io("journal", e);
        let mut old: Vec<u64> =
            self.disk.names().map_err(io)?.iter().filter_map(|name| number_of(name)).collect();
        old.retain(|number| *number <= upto);
        // Oldest first: what is left after a power cut has no hole.
        old.sort_unstable();
        for number in old {
            self.disk.remove(&name(number)).map_err(io)?;
        }
        self.disk.sync_names().map_err(io)
    }
}

/// Makes a journal file whose header and name are durable.
fn start(disk: &dyn Disk, number: u64, first: u64) -> Result<Arc<dyn DiskFile>> {
    let name = name(number);
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
            Err(source @ FormatError::Newer { .. }) => {
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

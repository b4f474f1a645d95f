//! Directories, listed in pieces.
//!
//! An entry's offset is made of the hash of its name, and the order is that of
//! the hashes: an offset stays good while others come and go. Promises: an
//! entry that is there all the time is given once. Never: holds on to
//! attributes that may change. Tested by the unit tests below.

use fuser::FileHandle;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use warp_flow::volume::{DirEntry, Volume};
use warp_flow::{FlowError, Result};
use warp_format::record::FileType;
use warp_format::{FileId, NameHash};

/// Entries fetched at once where they cannot change until they are given.
const LISTING_STEP: usize = 1024;
/// The same where they can: about what fits into a reply.
const CHANGING_STEP: usize = 32;
/// Offsets below are those of `.` and `..`.
const FIRST: u64 = 3;

/// Takes an entry and the offset behind it; true when there is no room for it.
type Add<'a> = dyn FnMut(u64, &DirEntry) -> bool + 'a;

/// The open directories.
#[derive(Default)]
pub(crate) struct Listings {
    open: Mutex<HashMap<u64, Listing>>,
}

/// Where the listing of an open directory is.
#[derive(Default)]
struct Listing {
    /// The last offset given out, and the place that it stands for.
    last: Option<(u64, NameHash)>,
    /// Fetched and not yet given out: a reply holds fewer than a fetch.
    pending: VecDeque<DirEntry>,
}

/// The offset behind an entry.
fn offset_of(place: &NameHash) -> u64 {
    let mut high = [0; 8];
    high.copy_from_slice(&place.0[..8]);
    // The kernel takes 63 bits.
    (u64::from_be_bytes(high) >> 2) + FIRST
}

/// Where a listing goes on that nothing else is known of: behind all entries
/// that have this offset.
fn place_of(offset: u64) -> NameHash {
    let mut place = [0xff; 16];
    place[..8].copy_from_slice(&((offset - FIRST) << 2 | 3).to_be_bytes());
    NameHash(place)
}

impl Listings {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Listing>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory was closed.
    pub(crate) fn close(&self, handle: FileHandle) {
        self.open().remove(&handle.0);
    }

    /// Gives entries from `offset` on to `add` until it is full. With `plus`,
    /// each entry has its attributes.
    pub(crate) fn list(
        &self,
        volume: &impl Volume,
        ino: u64,
        handle: FileHandle,
        offset: u64,
        plus: bool,
        add: &mut Add<'_>,
    ) -> Result<()> {
        if offset < FIRST - 1 && dots(volume, ino, offset, add)? {
            return Ok(());
        }
        let mut listing = self.open().remove(&handle.0).unwrap_or_default();
        let result = list_from(volume, ino, offset, &mut listing, plus, add);
        self.open().insert(handle.0, listing);
        result
    }
}

/// Gives `.` and `..`; true when there was no room.
fn dots(volume: &impl Volume, ino: u64, offset: u64, add: &mut Add<'_>) -> Result<bool> {
    let Some(this) = volume.attr(ino)? else {
        return Err(FlowError::NotFound { path: ".".into() });
    };
    // The kernel replaces what `..` leads to by what it knows.
    for (at, name) in [(0, b".".as_slice()), (1, b"..")] {
        let entry = DirEntry {
            place: NameHash([0; 16]),
            name: name.to_vec(),
            file: FileId::ROOT,
            ino: this.ino,
            file_type: FileType::Directory,
            attr: Some(this.clone()),
        };
        if offset <= at && add(at + 1, &entry) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn list_from(
    volume: &impl Volume,
    ino: u64,
    offset: u64,
    listing: &mut Listing,
    plus: bool,
    add: &mut Add<'_>,
) -> Result<()> {
    let goes_on = listing.last.is_some_and(|(at, _)| at == offset);
    let mut place = match listing.last {
        Some((_, place)) if goes_on => Some(place),
        _ if offset < FIRST => None,
        _ => Some(place_of(offset)),
    };
    // Entries fetched for a plain listing lack what this one needs.
    let lacks = plus && listing.pending.iter().any(|entry| entry.attr.is_none());
    if !goes_on || lacks || volume.changes() {
        listing.pending.clear();
    }
    let step = if volume.changes() { CHANGING_STEP } else { LISTING_STEP };
    loop {
        if listing.pending.is_empty() {
            listing.pending.extend(volume.entries(ino, place, step, plus)?);
        }
        // The offset of an entry is where the listing goes on behind it.
        let Some(entry) = listing.pending.front() else { return Ok(()) };
        let next = offset_of(&entry.place);
        if add(next, entry) {
            return Ok(());
        }
        (place, listing.last) = (Some(entry.place), Some((next, entry.place)));
        listing.pending.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use warp_flow::volume::{Attr, Space};
    use warp_format::record::{Body, Inode, Stamp, Time};

    /// One directory of `count` names, of which some share an offset.
    struct Flat {
        count: u8,
        changes: bool,
    }

    fn entry(n: u8) -> DirEntry {
        let time = Time { secs: 0, nanos: 0 };
        let (ctime, atime, btime, versions) = (None, None, None, Vec::new());
        let (stamp, permissions, body) = (Stamp::NONE, 0o644, Body::Fifo);
        let inode = Inode {
            stamp,
            permissions,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: time,
            ctime,
            atime,
            btime,
            versions,
            body,
        };
        let ino = u64::from(n) + 2;
        let attr = Some(Attr { ino, inode, links: 1 });
        let mut place = [0; 16];
        (place[0], place[15]) = (n / 3, n);
        let (name, file_type) = (vec![b'n', n], FileType::Fifo);
        DirEntry { place: NameHash(place), name, file: FileId::ROOT, ino, file_type, attr }
    }

    impl Volume for Flat {
        fn changes(&self) -> bool {
            self.changes
        }

        fn lookup(&self, _: u64, name: &[u8]) -> Result<Option<Attr>> {
            Ok((1..=self.count).map(entry).find(|e| e.name == name).and_then(|e| e.attr))
        }

        fn attr(&self, _: u64) -> Result<Option<Attr>> {
            Ok(entry(0).attr)
        }

        fn read(&self, _: u64, _: u64, _: usize) -> Result<Vec<u8>> {
            Ok(Vec::new())
        }

        fn entries(
            &self,
            _: u64,
            place: Option<NameHash>,
            limit: usize,
            plus: bool,
        ) -> Result<Vec<DirEntry>> {
            let after = |e: &DirEntry| place.is_none_or(|place| e.place > place);
            let entries = (1..=self.count).map(entry).filter(after).take(limit);
            Ok(entries.map(|e| DirEntry { attr: e.attr.filter(|_| plus), ..e }).collect())
        }

        fn xattr(&self, _: u64, _: &[u8]) -> Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn xattrs(&self, _: u64) -> Result<Vec<Vec<u8>>> {
            Ok(Vec::new())
        }

        fn seek(&self, _: u64, _: u64, _: bool) -> Result<Option<u64>> {
            Ok(None)
        }

        fn space(&self) -> Result<Space> {
            Ok(Space::default())
        }
    }

    /// Lists with a buffer of `room` entries, going on where the last reply
    /// said; the kernel does the same.
    fn list_all(volume: &Flat, room: usize) -> Vec<Vec<u8>> {
        let (mut names, mut offset) = (Vec::new(), 0);
        let listings = Listings::default();
        let plus = Cell::new(false);
        loop {
            plus.set(!plus.get());
            let mut added = Vec::new();
            let add = &mut |next, entry: &DirEntry| {
                if added.len() == room {
                    return true;
                }
                assert!(entry.attr.is_some() || !plus.get());
                added.push((next, entry.name.clone()));
                false
            };
            listings.list(volume, 1, FileHandle(7), offset, plus.get(), add).unwrap();
            let Some((next, _)) = added.last() else { return names };
            offset = *next;
            names.extend(added.into_iter().map(|(_, name)| name));
        }
    }

    #[test]
    fn a_listing_in_pieces_gives_each_name_once() {
        for (count, changes) in [(0, false), (1, true), (5, false), (200, false), (200, true)] {
            let want: Vec<Vec<u8>> = [b".".to_vec(), b"..".to_vec()]
                .into_iter()
                .chain((1..=count).map(|n| entry(n).name))
                .collect();
            for room in [1, 2, 3, 1000] {
                let listed = list_all(&Flat { count, changes }, room);
                assert_eq!(listed, want, "{count} names, room for {room}");
            }
        }
    }

    #[test]
    fn a_listing_goes_on_anywhere_after_a_seek() {
        let volume = Flat { count: 50, changes: false };
        let listings = Listings::default();
        for (offset, want) in [
            (2, Some(1)),
            (offset_of(&entry(20).place), Some(21)),
            (offset_of(&entry(7).place), Some(9)),
            (offset_of(&entry(50).place), None),
            (offset_of(&entry(2).place), Some(3)),
        ] {
            let mut first = None;
            listings
                .list(&volume, 1, FileHandle(1), offset, true, &mut |_, entry| {
                    first.get_or_insert(entry.name.clone());
                    true
                })
                .unwrap();
            assert_eq!(first, want.map(|n| entry(n).name), "offset {offset}");
        }
    }
}

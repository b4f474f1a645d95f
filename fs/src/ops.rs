//! Step *ops* of the walk: one method for each request of the kernel.
//!
//! Neighbours: the kernel above, a [`Volume`] below. Promises: every request
//! is answered once; what is immutable is cached by the kernel without limit.
//! Never: decides anything about content. Tested by `tests/tests/mount.rs`.

use crate::attr::{Owners, attr, kind};
use crate::errno::errno;
use fuser::{
    Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use warp_flow::volume::{Attr, DirEntry, Volume};
use warp_flow::{FlowError, Result};
use warp_format::NameHash;
use warp_format::limits::MAX_NAME_LEN;
use warp_format::record::{Body, FileType};

/// How long the kernel may keep what cannot change.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Requests that the kernel may have under way in the background: read-ahead
/// and asynchronous reads. Its default of 12 starves four parallel readers.
const MAX_BACKGROUND: u16 = 64;
/// Entries fetched from the volume at once while a directory is listed.
const LISTING_STEP: usize = 1024;

/// Takes an entry and the offset behind it; true when there is no room for it.
type Add<'a> = dyn FnMut(u64, &DirEntry) -> bool + 'a;

/// A read-only filesystem over a volume.
pub(crate) struct ReadOnly<V> {
    volume: V,
    owners: Owners,
    listings: Mutex<HashMap<u64, Listing>>,
    next_handle: AtomicU64,
}

/// An open directory: where its listing is.
#[derive(Default)]
struct Listing {
    /// Entries given out.
    given: u64,
    /// Where the volume goes on.
    place: Option<NameHash>,
    /// Fetched and not yet given out: a reply holds fewer than a fetch.
    pending: VecDeque<DirEntry>,
}

impl<V: Volume> ReadOnly<V> {
    pub(crate) fn new(volume: V, owners: Owners) -> Self {
        Self { volume, owners, listings: Mutex::default(), next_handle: AtomicU64::new(1) }
    }

    fn listings(&self) -> MutexGuard<'_, HashMap<u64, Listing>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives entries from `offset` on to `add` until it is full. Offset 0 is
    /// `.`, 1 is `..`, and so on in the order of the tree. With `plus`, each
    /// entry has its attributes.
    fn list(
        &self,
        ino: u64,
        handle: FileHandle,
        offset: u64,
        plus: bool,
        add: &mut Add<'_>,
    ) -> Result<()> {
        if offset < 2 {
            let Some(this) = self.volume.attr(ino)? else {
                return Err(FlowError::NotFound { path: ".".into() });
            };
            // The kernel replaces what `..` leads to by what it knows.
            for (at, name) in [(0, b".".as_slice()), (1, b"..")] {
                let entry = DirEntry {
                    place: NameHash([0; 16]),
                    name: name.to_vec(),
                    ino: this.ino,
                    file_type: FileType::Directory,
                    attr: Some(this.clone()),
                };
                if offset <= at && add(at + 1, &entry) {
                    return Ok(());
                }
            }
        }
        let want = offset.saturating_sub(2);
        let mut listing = self.listings().remove(&handle.0).unwrap_or_default();
        if listing.given != want {
            // A seek: count from the start.
            listing = Listing::default();
        }
        let result = self.list_from(ino, want, &mut listing, plus, add);
        self.listings().insert(handle.0, listing);
        result
    }

    fn list_from(
        &self,
        ino: u64,
        want: u64,
        listing: &mut Listing,
        plus: bool,
        add: &mut Add<'_>,
    ) -> Result<()> {
        // Entries fetched for a plain listing lack what this one needs.
        if plus && listing.pending.iter().any(|entry| entry.attr.is_none()) {
            listing.pending.clear();
        }
        loop {
            if listing.pending.is_empty() {
                let entries = self.volume.entries(ino, listing.place, LISTING_STEP, plus)?;
                listing.pending.extend(entries);
            }
            // The offset of an entry is where the listing goes on behind it.
            let Some(entry) = listing.pending.front() else { return Ok(()) };
            if listing.given >= want && add(listing.given + 3, entry) {
                return Ok(());
            }
            listing.given += 1;
            listing.place = Some(entry.place);
            listing.pending.pop_front();
        }
    }
}

impl<V: Volume> Filesystem for ReadOnly<V> {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each is asked for by itself: an older kernel lacks some, and works.
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_POSIX_ACL,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_max_readahead(1 << 20).or_else(|most| config.set_max_readahead(most));
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name.len() > MAX_NAME_LEN {
            return reply.error(Errno::ENAMETOOLONG);
        }
        match self.volume.lookup(parent.0, name.as_bytes()) {
            Ok(Some(found)) => reply.entry(&FOREVER, &attr(&found, self.owners), Generation(0)),
            // Number 0 with a lifetime: the kernel keeps that there is none.
            Ok(None) => match self.volume.attr(parent.0) {
                Ok(Some(like)) => {
                    let none = Attr { ino: 0, ..like };
                    reply.entry(&FOREVER, &attr(&none, self.owners), Generation(0));
                }
                _ => reply.error(Errno::ENOENT),
            },
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.volume.attr(ino.0) {
            Ok(Some(found)) => reply.attr(&FOREVER, &attr(&found, self.owners)),
            Ok(None) => reply.error(Errno::ENOENT),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.volume.attr(ino.0) {
            Ok(Some(Attr { inode, .. })) => match inode.body {
                Body::Symlink(target) => reply.data(&target),
                _ => reply.error(Errno::EINVAL),
            },
            Ok(None) => reply.error(Errno::ENOENT),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // No open and no release from here on; the kernel keeps the pages.
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.volume.read(ino.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        reply.opened(FileHandle(handle), flags);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let result = self.list(ino.0, fh, offset, false, &mut |next, entry| {
            let name = OsStr::from_bytes(&entry.name);
            reply.add(INodeNo(entry.ino), next, kind(entry.file_type), name)
        });
        match result {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let result = self.list(ino.0, fh, offset, true, &mut |next, entry| {
            let Some(found) = &entry.attr else { return false };
            let attr = attr(found, self.owners);
            let name = OsStr::from_bytes(&entry.name);
            reply.add(INodeNo(found.ino), next, name, &FOREVER, &attr, Generation(0))
        });
        match result {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings().remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.volume.space() {
            Ok(space) => {
                let blocks = space.bytes.div_ceil(4096);
                reply.statfs(blocks, 0, 0, space.inodes, 0, 4096, 255, 4096);
            }
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.volume.xattr(ino.0, name.as_bytes()) {
            Ok(Some(value)) => sized(&value, size, reply),
            Ok(None) => reply.error(Errno::NO_XATTR),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.volume.xattrs(ino.0) {
            Ok(names) => {
                let list: Vec<u8> = names.into_iter().flat_map(|n| [n, vec![0]].concat()).collect();
                sized(&list, size, reply);
            }
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        // The kernel sends these two only, and keeps the others to itself.
        const SEEK_DATA: i32 = 3;
        const SEEK_HOLE: i32 = 4;
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        if whence != SEEK_DATA && whence != SEEK_HOLE {
            return reply.error(Errno::EINVAL);
        }
        match self.volume.seek(ino.0, offset, whence == SEEK_HOLE) {
            Ok(Some(at)) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(e) => reply.error(errno(&e)),
        }
    }
}

/// A value, or its length if that is what was asked for.
fn sized(value: &[u8], size: u32, reply: ReplyXattr) {
    match size as usize {
        0 => reply.size(value.len() as u32),
        room if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp_flow::volume::Space;
    use warp_format::record::{Inode, Stamp, Time};

    /// One directory of `count` names.
    struct Flat {
        count: u8,
    }

    fn entry(n: u8) -> DirEntry {
        let inode = Inode {
            stamp: Stamp::NONE,
            permissions: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time { secs: 0, nanos: 0 },
            ctime: None,
            atime: None,
            btime: None,
            versions: Vec::new(),
            body: Body::Fifo,
        };
        let ino = u64::from(n) + 2;
        let attr = Some(Attr { ino, inode, links: 1 });
        let (place, name, file_type) = (NameHash([n; 16]), vec![b'n', n], FileType::Fifo);
        DirEntry { place, name, ino, file_type, attr }
    }

    impl Volume for Flat {
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
            let after = place.map_or(0, |place| place.0[0]);
            let entries = (after + 1..=self.count).map(entry).take(limit);
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
            Ok(Space { bytes: 0, inodes: 0 })
        }
    }

    /// Lists with a buffer of `room` entries, going on where the last reply
    /// said; the kernel does the same.
    fn list_all(fs: &ReadOnly<Flat>, room: usize) -> Vec<Vec<u8>> {
        let (mut names, mut offset) = (Vec::new(), 0);
        let mut plus = false;
        loop {
            plus = !plus;
            let mut added = Vec::new();
            let result = fs.list(1, FileHandle(7), offset, plus, &mut |next, entry| {
                if added.len() == room {
                    return true;
                }
                assert!(entry.attr.is_some() || !plus);
                added.push((next, entry.name.clone()));
                false
            });
            result.unwrap();
            let Some((next, _)) = added.last() else { return names };
            offset = *next;
            names.extend(added.into_iter().map(|(_, name)| name));
        }
    }

    #[test]
    fn a_listing_in_pieces_gives_each_name_once() {
        for count in [0, 1, 5, 200] {
            let fs = ReadOnly::new(Flat { count }, Owners::Stored);
            let want: Vec<Vec<u8>> = [b".".to_vec(), b"..".to_vec()]
                .into_iter()
                .chain((1..=count).map(|n| entry(n).name))
                .collect();
            for room in [1, 2, 3, 1000] {
                assert_eq!(list_all(&fs, room), want, "{count} names, room for {room}");
            }
        }
    }

    #[test]
    fn a_listing_goes_on_anywhere_after_a_seek() {
        let fs = ReadOnly::new(Flat { count: 50 }, Owners::Stored);
        for offset in [40, 3, 20, 2, 52] {
            let mut first = None;
            fs.list(1, FileHandle(1), offset, true, &mut |_, entry| {
                first.get_or_insert(entry.name.clone());
                true
            })
            .unwrap();
            let want = (offset < 52).then(|| entry(offset as u8 - 1).name);
            assert_eq!(first, want, "offset {offset}");
        }
    }
}

//! Step *ops* of the walk: one method for each request of the kernel.
//!
//! Neighbours: the kernel above, a [`Volume`] below; `desk`, which has the
//! work done and sees to it that every request is answered once, and in time.
//! What is shown changes through this mount only, or the volume says for how
//! long it is true and what has changed: so long the kernel keeps what it is
//! told; what it changes itself it knows. Promises: what the kernel was
//! not told in the end, it is not taken to know. Never: decides anything about
//! content, or asks the volume for more than a moment outside of the desk.
//! Tested by `tests/tests/mount.rs`, `portal.rs` and `fs/tests`.

use crate::attr::{attr, device_number, kind, time_of_request};
use crate::desk::{Answer, Asks, Desk, Once};
use crate::kernel::{Caching, MountOptions};
use crate::listing::Listings;
use crate::owners::Owners;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use warp_flow::volume::{
    Allocate, Attr, DirEntry, FOREVER, NewInode, RenameMode, SetAttr, Volume, When, XattrMode,
};
use warp_flow::{Refusal, Result};
use warp_format::limits::MAX_NAME_LEN;
use warp_format::record::{Body, FileType, NO_DIRECTORIES};

/// Requests that the kernel may have under way in the background: read-ahead
/// and asynchronous reads. Its default of 12 starves four parallel readers.
const MAX_BACKGROUND: u16 = 64;
/// Longest write, in bytes.
const MAX_WRITE: u32 = 1 << 20;
/// Unit of `statfs`, in bytes.
const BLOCK_LEN: u32 = 4096;
/// The kernel asks before each `write` how long this attribute is, and if it
/// is there it has it taken away first. Of a file that is read-only it is told
/// so: that it cannot be taken away fails the write with `EROFS`, where the
/// kernel's cache would else take the bytes. What the attribute says, nobody
/// is told: there is none.
const CAPABILITY: &str = "security.capability";
/// Flags of `setxattr`.
const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;

/// A filesystem over a volume.
pub(crate) struct Shell<V> {
    inner: Arc<Inner<V>>,
    desk: Desk,
    caching: Caching,
    next_handle: AtomicU64,
}

/// What the work on a request needs.
struct Inner<V> {
    volume: V,
    owners: Owners,
    listings: Listings,
    /// Set when the mount is there, before the first request.
    kernel: Arc<OnceLock<Notifier>>,
    /// Counts what the kernel handed over and was refused.
    refused: Arc<AtomicU64>,
}

impl<V: Volume> Shell<V> {
    pub(crate) fn new(
        volume: V,
        owners: Owners,
        readers: usize,
        options: &MountOptions,
    ) -> io::Result<Self> {
        let listings = Listings::default();
        let kernel: Arc<OnceLock<Notifier>> = Arc::default();
        let told = Arc::clone(&kernel);
        volume.watch(Box::new(move |ino| {
            if let Some(kernel) = told.get() {
                // An error says that the kernel does not know the file.
                let _ = kernel.inval_inode(INodeNo(ino), 0, 0);
            }
        }));
        let desk = Desk::new(readers, options.deadline, &options.portal)?;
        let refused = desk.refused();
        let inner = Arc::new(Inner { volume, owners, listings, kernel, refused });
        let (caching, next_handle) = (options.caching, AtomicU64::new(1));
        Ok(Self { inner, desk, caching, next_handle })
    }

    /// How many writes, and changes of attributes, were answered with an
    /// error.
    pub(crate) fn refused(&self) -> Arc<AtomicU64> {
        self.desk.refused()
    }

    /// Where the way to tell the kernel something goes once there is one.
    pub(crate) fn kernel(&self) -> Arc<OnceLock<Notifier>> {
        Arc::clone(&self.inner.kernel)
    }

    fn volume(&self) -> &V {
        &self.inner.volume
    }

    /// Has a request answered that asks something. Every one that may touch
    /// the disk goes through here or [`Self::change`]; `how` gives the reply.
    fn ask<R: Answer>(
        &self,
        asks: Asks,
        reply: R,
        how: impl FnOnce(&Inner<V>, &Once<R>) + Send + 'static,
    ) {
        let inner = Arc::clone(&self.inner);
        self.desk.take(asks, reply, false, move |once| how(&inner, &once));
    }

    /// The same for one that changes something: while writers are slowed down,
    /// others are answered.
    fn change<R: Answer>(
        &self,
        asks: Asks,
        reply: R,
        how: impl FnOnce(&Inner<V>, &Once<R>) + Send + 'static,
    ) {
        let inner = Arc::clone(&self.inner);
        let wait = self.volume().is_behind();
        self.desk.take(asks, reply, wait, move |once| how(&inner, &once));
    }

    fn make(&self, asks: Asks, name: &OsStr, new: NewInode, reply: ReplyEntry) {
        let name = name.to_owned();
        let parent = INodeNo(asks.ino);
        self.change(asks, reply, move |inner, reply| {
            let Some(new) = inner.owned(new) else { return overflow(reply) };
            let made = inner.volume.make(parent.0, name.as_bytes(), new);
            inner.tell_entry(parent, made, reply);
        });
    }

    /// Answers when all is durable, however long it takes, and keeps no
    /// thread waiting until then.
    fn sync(&self, asks: Asks, reply: ReplyEmpty) {
        let reply = self.desk.wait(asks, reply);
        self.volume().sync(Box::new(move |result| done(result, &reply)));
    }
}

impl<V: Volume> Inner<V> {
    /// What came of something that the kernel handed over.
    fn counted<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        result
    }

    /// The kernel's cache has bytes that nobody could write: through a shared
    /// map, of which it asks nobody. It drops them, once their write has been
    /// answered: until then it would wait for that.
    fn unwrite(&self, ino: INodeNo, offset: u64, len: u32) {
        if let Some(kernel) = self.kernel.get() {
            let offset = i64::try_from(offset).unwrap_or(i64::MAX);
            // An error says that the kernel does not know the file.
            let _ = kernel.inval_inode(ino, offset, len.into());
        }
    }

    /// Has the kernel hand over what it holds of a file and was not written
    /// yet: it does before it drops its pages.
    fn take_over(&self, ino: INodeNo) {
        if let Some(kernel) = self.kernel.get() {
            // An error says that the kernel does not know the file.
            let _ = kernel.inval_inode(ino, 0, 0);
        }
    }

    /// A new inode with the owner that it is stored with.
    fn owned(&self, new: NewInode) -> Option<NewInode> {
        let (uid, gid) = self.owners.of_new(new.uid, new.gid)?;
        Some(NewInode { uid, gid, ..new })
    }

    /// Tells of an inode that a name in this directory leads to.
    fn tell_entry(&self, parent: INodeNo, found: Result<Attr>, reply: &Once<ReplyEntry>) {
        self.tell(found, reply, |reply, found| {
            let lifetime = self.lifetime(&[parent.0, found.ino]);
            reply.entry(&lifetime, &attr(found, self.owners), Generation(0));
        });
    }

    /// How long the kernel may keep what it is told of all these.
    fn lifetime(&self, inos: &[u64]) -> Duration {
        inos.iter().map(|ino| self.volume.lifetime(*ino)).min().unwrap_or_default()
    }

    /// The volume counts an inode as told with what it gives out; if the
    /// kernel was not told, it will not forget it either.
    fn tell<R: Answer>(&self, found: Result<Attr>, reply: &Once<R>, how: impl FnOnce(R, &Attr)) {
        let ino = found.as_ref().ok().map(|found| found.ino);
        let told = reply.settle(found, |reply, found| how(reply, &found));
        if let (false, Some(ino)) = (told, ino) {
            self.volume.forget(ino, 1);
        }
    }
}

fn asks(req: &Request, what: &'static str, ino: INodeNo) -> Asks {
    Asks { what, ino: ino.0, fh: 0, offset: 0, len: 0, pid: req.pid() }
}

/// An owner of this mount has no place among those that are stored.
fn overflow<R: Answer>(reply: &Once<R>) {
    reply.give(|reply| reply.fail(Errno::EOVERFLOW));
}

fn done(result: Result<()>, reply: &Once<ReplyEmpty>) {
    reply.settle(result, |reply, ()| reply.ok());
}

/// What is not there is an error.
fn there<T>(found: Result<Option<T>>) -> Result<T> {
    found?.ok_or_else(|| Refusal::Missing.into())
}

/// What a caller asks a new inode to be.
fn new_inode(req: &Request, mode: u32, umask: u32, body: Body) -> NewInode {
    let bits = |mode: u32| (mode & 0o7777) as u16;
    NewInode { permissions: bits(mode), umask: bits(umask), uid: req.uid(), gid: req.gid(), body }
}

fn when(time: TimeOrNow) -> When {
    match time {
        TimeOrNow::SpecificTime(time) => When::At(time_of_request(time)),
        TimeOrNow::Now => When::Now,
    }
}

impl<V: Volume> Filesystem for Shell<V> {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each is asked for by itself: an older kernel lacks some, and works.
        // On a volume that changes, the kernel gathers writes, and this side
        // applies the umask: a directory's default ACL comes before it.
        if self.volume().changes() {
            let _ = config.add_capabilities(InitFlags::FUSE_DONT_MASK);
            if self.caching == Caching::WriteBack {
                let _ = config.add_capabilities(InitFlags::FUSE_WRITEBACK_CACHE);
            }
        }
        if self.volume().lifetime(INodeNo::ROOT.0) < FOREVER {
            // It looks by itself, too, whether what it kept is still true.
            let _ = config.add_capabilities(InitFlags::FUSE_AUTO_INVAL_DATA);
        }
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
        // What the kernel takes today; a larger one would not fit into a
        // journal entry.
        let _ = config.set_max_write(MAX_WRITE).or_else(|most| config.set_max_write(most));
        let _ = config.set_max_readahead(1 << 20).or_else(|most| config.set_max_readahead(most));
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name.len() > MAX_NAME_LEN {
            return reply.error(Errno::ENAMETOOLONG);
        }
        let name = name.to_owned();
        self.ask(asks(req, "lookup", parent), reply, move |inner, reply| {
            let found = match inner.volume.lookup(parent.0, name.as_bytes()) {
                Ok(Some(found)) => return inner.tell_entry(parent, Ok(found), reply),
                // Number 0 with a lifetime: the kernel keeps that there is none.
                Ok(None) => there(inner.volume.attr(parent.0)),
                Err(e) => Err(e),
            };
            reply.settle(found, |reply, like| {
                let none = attr(&Attr { ino: 0, ..like }, inner.owners);
                reply.entry(&inner.lifetime(&[parent.0]), &none, Generation(0));
            });
        });
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.ask(asks(req, "getattr", ino), reply, move |inner, reply| {
            reply.settle(there(inner.volume.attr(ino.0)), |reply, found| {
                reply.attr(&inner.lifetime(&[ino.0]), &attr(&found, inner.owners));
            });
        });
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.ask(asks(req, "readlink", ino), reply, move |inner, reply| {
            reply.settle(there(inner.volume.attr(ino.0)), |reply, found| match found.inode.body {
                Body::Symlink(target) => reply.data(&target),
                _ => reply.error(Errno::EINVAL),
            });
        });
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // No open and no release from here on; the kernel keeps the pages.
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let asks = asks(req, "read", ino).of(fh.0, offset, size.into());
        self.ask(asks, reply, move |inner, reply| {
            let bytes = inner.volume.read(ino.0, offset, size as usize);
            reply.settle(bytes, |reply, bytes| reply.data(&bytes));
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let flags = if !self.volume().lifetime(ino.0).is_zero() {
            FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR
        } else {
            FopenFlags::empty()
        };
        reply.opened(FileHandle(handle), flags);
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.ask(asks(req, "readdir", ino), reply, move |inner, reply| {
            let add = &mut |next, entry: &DirEntry| {
                let name = OsStr::from_bytes(&entry.name);
                let add = |reply: &mut ReplyDirectory| {
                    reply.add(INodeNo(entry.ino), next, kind(entry.file_type), name)
                };
                // One that was answered has no room any more.
                reply.add(add).unwrap_or(true)
            };
            let listed = inner.listings.list(&inner.volume, ino.0, fh, offset, false, add);
            reply.settle(listed, |reply, ()| reply.ok());
        });
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.ask(asks(req, "readdirplus", ino), reply, move |inner, reply| {
            let mut told = Vec::new();
            let lifetime = inner.lifetime(&[ino.0]);
            let add = &mut |next, entry: &DirEntry| {
                let Some(found) = &entry.attr else { return false };
                let attr = attr(found, inner.owners);
                let (number, name) = (INodeNo(found.ino), OsStr::from_bytes(&entry.name));
                let add = |reply: &mut ReplyDirectoryPlus| {
                    reply.add(number, next, name, &lifetime, &attr, Generation(0))
                };
                let full = reply.add(add).unwrap_or(true);
                if !full && !matches!(entry.name.as_slice(), b"." | b"..") {
                    inner.volume.retain(ino.0, entry);
                    told.push(found.ino);
                }
                full
            };
            let listed = inner.listings.list(&inner.volume, ino.0, fh, offset, true, add);
            let good = listed.is_ok();
            if !(reply.settle(listed, |reply, ()| reply.ok()) && good) {
                told.into_iter().for_each(|ino| inner.volume.forget(ino, 1));
            }
        });
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.inner.listings.close(fh);
        reply.ok();
    }

    fn fsyncdir(&self, req: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(asks(req, "fsyncdir", ino), reply);
    }

    fn fsync(&self, req: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(asks(req, "fsync", ino), reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing makes nothing durable, here as on other filesystems; the
        // kernel need not tell of it.
        reply.error(Errno::ENOSYS);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, count: u64) {
        self.volume().forget(ino.0, count);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let owners = &self.inner.owners;
        let stored_uid = uid.map(|uid| owners.stored_uid(uid));
        let stored_gid = gid.map(|gid| owners.stored_gid(gid));
        if stored_uid == Some(None) || stored_gid == Some(None) {
            return reply.error(Errno::EOVERFLOW);
        }
        let change = SetAttr {
            permissions: mode.map(|mode| (mode & 0o7777) as u16),
            uid: stored_uid.flatten(),
            gid: stored_gid.flatten(),
            size,
            atime: atime.map(when),
            mtime: mtime.map(when),
            ctime: ctime.map(time_of_request),
        };
        self.change(asks(req, "setattr", ino), reply, move |inner, reply| {
            let set = inner.counted(inner.volume.set_attr(ino.0, &change));
            reply.settle(set, |reply, now| {
                reply.attr(&FOREVER, &attr(&now, inner.owners));
            });
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let body = match FileType::from_bits((mode >> 12 & 0xf) as u8) {
            Ok(FileType::Regular) => Body::Extents(0),
            Ok(FileType::Fifo) => Body::Fifo,
            Ok(FileType::Socket) => Body::Socket,
            Ok(FileType::CharDevice) => Body::Device { block: false, number: device_number(rdev) },
            Ok(FileType::BlockDevice) => Body::Device { block: true, number: device_number(rdev) },
            _ => return reply.error(Errno::EINVAL),
        };
        self.make(asks(req, "mknod", parent), name, new_inode(req, mode, umask, body), reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let new = new_inode(req, mode, umask, Body::Directory(NO_DIRECTORIES));
        self.make(asks(req, "mkdir", parent), name, new, reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let body = Body::Symlink(target.as_os_str().as_bytes().to_vec());
        self.make(asks(req, "symlink", parent), name, new_inode(req, 0o777, 0, body), reply);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let (name, new) = (name.to_owned(), new_inode(req, mode, umask, Body::Extents(0)));
        self.change(asks(req, "create", parent), reply, move |inner, reply| {
            let Some(new) = inner.owned(new) else { return overflow(reply) };
            let made = inner.volume.make(parent.0, name.as_bytes(), new);
            inner.tell(made, reply, |reply, made| {
                let made = attr(made, inner.owners);
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&FOREVER, &made, Generation(0), FileHandle(0), flags);
            });
        });
    }

    fn link(&self, req: &Request, ino: INodeNo, to: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.change(asks(req, "link", ino), reply, move |inner, reply| {
            let linked = inner.volume.link(ino.0, to.0, name.as_bytes());
            inner.tell_entry(to, linked, reply);
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(asks(req, "unlink", parent), reply, move |inner, reply| {
            let gone = inner.volume.unlink(parent.0, name.as_bytes(), false);
            done(gone, reply);
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(asks(req, "rmdir", parent), reply, move |inner, reply| {
            let gone = inner.volume.unlink(parent.0, name.as_bytes(), true);
            done(gone, reply);
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = if flags.is_empty() {
            RenameMode::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameMode::Keep
        } else if flags == RenameFlags::RENAME_EXCHANGE {
            RenameMode::Exchange
        } else {
            return reply.error(Errno::EINVAL);
        };
        let (name, newname) = (name.to_owned(), newname.to_owned());
        self.change(asks(req, "rename", parent), reply, move |inner, reply| {
            let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
            let renamed = inner.volume.rename(from, to, mode);
            done(renamed, reply);
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let data = data.to_vec();
        // What the kernel gathered is not only of whom it asks for.
        let pid = if cached { 0 } else { req.pid() };
        let asks = asks(req, "write", ino).of(fh.0, offset, data.len() as u64);
        let asks = Asks { pid, ..asks };
        self.change(asks, reply, move |inner, reply| {
            let len = data.len() as u32;
            let written = inner.counted(inner.volume.write(ino.0, offset, data, cached));
            reply.settle(written, |reply, ()| reply.written(len));
            if cached && inner.volume.is_read_only(ino.0) {
                inner.unwrite(ino, offset, len);
            }
        });
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(how) = allocate(mode) else { return reply.error(Errno::EOPNOTSUPP) };
        let Some(end) = offset.checked_add(length) else { return reply.error(Errno::EFBIG) };
        let asks = asks(req, "fallocate", ino).of(fh.0, offset, length);
        self.change(asks, reply, move |inner, reply| {
            done(inner.volume.allocate(ino.0, offset..end, how), reply);
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The answer has 32 bits.
        let len = len.min(u64::from(u32::MAX));
        let asks = asks(req, "copy_file_range", ino_out).of(fh_out.0, offset_out, len);
        self.change(asks, reply, move |inner, reply| {
            let copied = inner.volume.copy((ino_in.0, offset_in), (ino_out.0, offset_out), len);
            reply.settle(copied, |reply, len| {
                reply.written(u32::try_from(len).unwrap_or(u32::MAX));
            });
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            0 => XattrMode::Set,
            XATTR_CREATE => XattrMode::Create,
            XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let Some(value) = self.inner.owners.xattr_stored(name.as_bytes(), value) else {
            return reply.error(Errno::EOVERFLOW);
        };
        let name = name.to_owned();
        self.change(asks(req, "setxattr", ino), reply, move |inner, reply| {
            done(inner.volume.set_xattr(ino.0, name.as_bytes(), &value, mode), reply);
        });
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(asks(req, "removexattr", ino), reply, move |inner, reply| {
            done(inner.volume.remove_xattr(ino.0, name.as_bytes()), reply);
        });
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.ask(asks(req, "statfs", ino), reply, |inner, reply| {
            reply.settle(inner.volume.space(), |reply, space| {
                let blocks = |bytes: u64| bytes.div_ceil(u64::from(BLOCK_LEN));
                reply.statfs(
                    blocks(space.bytes),
                    blocks(space.free),
                    blocks(space.available),
                    space.inodes,
                    space.inodes_free,
                    BLOCK_LEN,
                    MAX_NAME_LEN as u32,
                    BLOCK_LEN,
                );
            });
        });
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let unwritable = size == 0 && name == CAPABILITY && self.volume().is_read_only(ino.0);
        let name = name.to_owned();
        self.ask(asks(req, "getxattr", ino), reply, move |inner, reply| {
            let value = inner.volume.xattr(ino.0, name.as_bytes());
            if unwritable && matches!(value, Ok(None)) {
                reply.give(|reply| reply.size(1));
                return;
            }
            let value = value.and_then(|value| Ok(value.ok_or(Refusal::NoAttribute)?));
            reply.settle(value, |reply, value| {
                sized(&inner.owners.xattr_shown(name.as_bytes(), value), size, reply);
            });
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.ask(asks(req, "listxattr", ino), reply, move |inner, reply| {
            reply.settle(inner.volume.xattrs(ino.0), |reply, names| {
                let list: Vec<u8> = names.into_iter().flat_map(|n| [n, vec![0]].concat()).collect();
                sized(&list, size, reply);
            });
        });
    }

    fn lseek(
        &self,
        req: &Request,
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
        let changes = self.volume().changes() && !self.volume().is_read_only(ino.0);
        let inner = Arc::clone(&self.inner);
        // In the pool: what the kernel hands over first is for others to take.
        self.desk.take(asks(req, "lseek", ino), reply, changes, move |reply| {
            let seek = || inner.volume.seek(ino.0, offset, whence == SEEK_HOLE);
            let mut found = seek();
            // What the kernel holds can only make data of a hole, and a file
            // longer: that there is data needs no second look.
            let is_certain = matches!(found, Ok(Some(at)) if whence == SEEK_DATA && at == offset);
            if changes && found.is_ok() && !is_certain {
                inner.take_over(ino);
                found = seek();
            }
            reply.settle(found, |reply, at| match at {
                Some(at) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
                None => reply.error(Errno::ENXIO),
            });
        });
    }
}

/// What a request to allocate asks for; `None`: nothing that there is.
fn allocate(mode: i32) -> Option<Allocate> {
    const KEEP_SIZE: i32 = 1;
    const PUNCH_HOLE: i32 = 2;
    const ZERO_RANGE: i32 = 16;
    let keep_size = mode & KEEP_SIZE != 0;
    match mode & !KEEP_SIZE {
        0 => Some(Allocate::Reserve { keep_size }),
        PUNCH_HOLE if keep_size => Some(Allocate::Punch),
        ZERO_RANGE => Some(Allocate::Zero { keep_size }),
        _ => None,
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

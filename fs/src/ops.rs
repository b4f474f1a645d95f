//! Step *ops* of the walk: one method for each request of the kernel.
//!
//! Neighbours: the kernel above, a [`Volume`] below. Promises: every request
//! is answered once. What is shown changes through this mount only, so the
//! kernel may keep all it is told; what it changes itself it knows. Never:
//! decides anything about content. Tested by `tests/tests/mount.rs` and
//! `portal.rs`.

use crate::attr::{attr, device_number, kind, time_of_request};
use crate::errno::errno;
use crate::listing::Listings;
use crate::owners::Owners;
use crate::pool::Pool;
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use warp_flow::Result;
use warp_flow::volume::{Attr, NewInode, RenameMode, SetAttr, Volume, When, XattrMode};
use warp_format::limits::MAX_NAME_LEN;
use warp_format::record::{Body, FileType};

/// How long the kernel may keep what nobody else changes.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// As the offset of an invalidation: no pages.
const ATTRIBUTES_ONLY: i64 = -1;
/// Requests that the kernel may have under way in the background: read-ahead
/// and asynchronous reads. Its default of 12 starves four parallel readers.
const MAX_BACKGROUND: u16 = 64;
/// Longest write, in bytes.
const MAX_WRITE: u32 = 1 << 20;
/// Unit of `statfs`, in bytes.
const BLOCK_LEN: u32 = 4096;
/// Flags of `setxattr`.
const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;

/// Threads for what may have to wait.
const POOL_THREADS: usize = 4;

/// A filesystem over a volume.
pub(crate) struct Shell<V> {
    inner: Arc<Inner<V>>,
    pool: Pool,
    listings: Listings,
    next_handle: AtomicU64,
}

/// What an answer needs, on whichever thread.
struct Inner<V> {
    volume: V,
    owners: Owners,
    /// Set when the mount is there, before the first request.
    kernel: Arc<OnceLock<Notifier>>,
}

impl<V: Volume> Shell<V> {
    pub(crate) fn new(volume: V, owners: Owners) -> io::Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner { volume, owners, kernel: Arc::default() }),
            pool: Pool::new(POOL_THREADS)?,
            listings: Listings::default(),
            next_handle: AtomicU64::new(1),
        })
    }

    /// Where the way to tell the kernel something goes once there is one.
    pub(crate) fn kernel(&self) -> Arc<OnceLock<Notifier>> {
        Arc::clone(&self.inner.kernel)
    }

    fn volume(&self) -> &V {
        &self.inner.volume
    }

    /// Answers a request that changes something: here, or, if it may have to
    /// wait, on another thread, so that others are answered meanwhile.
    fn change(&self, how: impl FnOnce(&Inner<V>) + Send + 'static) {
        if self.volume().is_behind() {
            let inner = Arc::clone(&self.inner);
            self.pool.run(Box::new(move || how(&inner)));
        } else {
            how(&self.inner);
        }
    }

    fn make(&self, parent: INodeNo, name: &OsStr, new: NewInode, reply: ReplyEntry) {
        let name = name.to_owned();
        self.change(move |inner| match inner.owned(new) {
            Some(new) => {
                let made = inner.volume.make(parent.0, name.as_bytes(), new);
                inner.changed(parent);
                inner.reply_entry(made, reply);
            }
            None => reply.error(Errno::EOVERFLOW),
        });
    }

    /// Answers when all is durable, and keeps no thread waiting until then.
    fn sync(&self, reply: ReplyEmpty) {
        self.volume().sync(Box::new(move |result| done(result, reply)));
    }
}

impl<V: Volume> Inner<V> {
    /// A directory's names were changed; said before that change is answered.
    /// The kernel drops the attributes it has by itself, but without this it
    /// would still take those from an answer to a question that was asked
    /// earlier and is under way, and keep them: rsync then believes a time
    /// that is not there.
    fn changed(&self, directory: INodeNo) {
        if let Some(kernel) = self.kernel.get() {
            // An error says that the kernel does not know the directory.
            let _ = kernel.inval_inode(directory, ATTRIBUTES_ONLY, 0);
        }
    }

    /// A new inode with the owner that it is stored with.
    fn owned(&self, new: NewInode) -> Option<NewInode> {
        let (uid, gid) = self.owners.of_new(new.uid, new.gid)?;
        Some(NewInode { uid, gid, ..new })
    }

    fn reply_entry(&self, made: Result<Attr>, reply: ReplyEntry) {
        match made {
            Ok(made) => reply.entry(&FOREVER, &attr(&made, self.owners), Generation(0)),
            Err(e) => reply.error(errno(&e)),
        }
    }
}

fn done(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(&e)),
    }
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
        let changes = InitFlags::FUSE_WRITEBACK_CACHE | InitFlags::FUSE_DONT_MASK;
        if self.volume().changes() {
            for wanted in changes.iter() {
                let _ = config.add_capabilities(wanted);
            }
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

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name.len() > MAX_NAME_LEN {
            return reply.error(Errno::ENAMETOOLONG);
        }
        match self.volume().lookup(parent.0, name.as_bytes()) {
            Ok(Some(found)) => {
                reply.entry(&FOREVER, &attr(&found, self.inner.owners), Generation(0));
            }
            // Number 0 with a lifetime: the kernel keeps that there is none.
            Ok(None) => match self.volume().attr(parent.0) {
                Ok(Some(like)) => {
                    let none = Attr { ino: 0, ..like };
                    reply.entry(&FOREVER, &attr(&none, self.inner.owners), Generation(0));
                }
                _ => reply.error(Errno::ENOENT),
            },
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.volume().attr(ino.0) {
            Ok(Some(found)) => reply.attr(&FOREVER, &attr(&found, self.inner.owners)),
            Ok(None) => reply.error(Errno::ENOENT),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.volume().attr(ino.0) {
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
        match self.volume().read(ino.0, offset, size as usize) {
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
        let result =
            self.listings.list(self.volume(), ino.0, fh, offset, false, &mut |next, entry| {
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
        let result =
            self.listings.list(self.volume(), ino.0, fh, offset, true, &mut |next, entry| {
                let Some(found) = &entry.attr else { return false };
                let (attr, name) = (attr(found, self.inner.owners), OsStr::from_bytes(&entry.name));
                let full =
                    reply.add(INodeNo(found.ino), next, name, &FOREVER, &attr, Generation(0));
                if !full && !matches!(entry.name.as_slice(), b"." | b"..") {
                    self.volume().retain(entry);
                }
                full
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
        self.listings.close(fh);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(reply);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(reply);
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
        _req: &Request,
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
        self.change(move |inner| match inner.volume.set_attr(ino.0, &change) {
            Ok(now) => reply.attr(&FOREVER, &attr(&now, inner.owners)),
            Err(e) => reply.error(errno(&e)),
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
        self.make(parent, name, new_inode(req, mode, umask, body), reply);
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
        let new = new_inode(req, mode, umask, Body::Directory);
        self.make(parent, name, new, reply);
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
        self.make(parent, name, new_inode(req, 0o777, 0, body), reply);
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
        self.change(move |inner| {
            let Some(new) = inner.owned(new) else { return reply.error(Errno::EOVERFLOW) };
            match inner.volume.make(parent.0, name.as_bytes(), new) {
                Ok(made) => {
                    inner.changed(parent);
                    let made = attr(&made, inner.owners);
                    let flags = FopenFlags::FOPEN_KEEP_CACHE;
                    reply.created(&FOREVER, &made, Generation(0), FileHandle(0), flags);
                }
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn link(&self, _: &Request, ino: INodeNo, to: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.change(move |inner| {
            let linked = inner.volume.link(ino.0, to.0, name.as_bytes());
            inner.changed(to);
            inner.reply_entry(linked, reply);
        });
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(move |inner| {
            let gone = inner.volume.unlink(parent.0, name.as_bytes(), false);
            inner.changed(parent);
            done(gone, reply);
        });
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(move |inner| {
            let gone = inner.volume.unlink(parent.0, name.as_bytes(), true);
            inner.changed(parent);
            done(gone, reply);
        });
    }

    fn rename(
        &self,
        _req: &Request,
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
        self.change(move |inner| {
            let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
            let renamed = inner.volume.rename(from, to, mode);
            inner.changed(parent);
            if newparent != parent {
                inner.changed(newparent);
            }
            done(renamed, reply);
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let data = data.to_vec();
        self.change(move |inner| {
            let len = data.len() as u32;
            match inner.volume.write(ino.0, offset, data, cached) {
                Ok(()) => reply.written(len),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn setxattr(
        &self,
        _req: &Request,
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
        self.change(move |inner| {
            done(inner.volume.set_xattr(ino.0, name.as_bytes(), &value, mode), reply);
        });
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(move |inner| {
            done(inner.volume.remove_xattr(ino.0, name.as_bytes()), reply);
        });
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.volume().space() {
            Ok(space) => {
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
            }
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.volume().xattr(ino.0, name.as_bytes()) {
            Ok(Some(value)) => {
                sized(&self.inner.owners.xattr_shown(name.as_bytes(), value), size, reply);
            }
            Ok(None) => reply.error(Errno::NO_XATTR),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.volume().xattrs(ino.0) {
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
        if self.volume().changes() {
            // The kernel may hold writes that only it knows of; it then takes
            // a file to be data throughout.
            return reply.error(Errno::ENOSYS);
        }
        if whence != SEEK_DATA && whence != SEEK_HOLE {
            return reply.error(Errno::EINVAL);
        }
        match self.volume().seek(ino.0, offset, whence == SEEK_HOLE) {
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

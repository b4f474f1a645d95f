//! File operations on a portal: what each request means as changes of records.
//!
//! Neighbours: `portal` above, which numbers inodes and keeps time; `live`
//! below, which makes each operation's changes together or not at all.
//! Promises: an operation that fails changed nothing; a name always leads to
//! an inode, and each inode knows its names. Never: publishes an inode that
//! has no name. Tested by `tests/tests/portal.rs`.

mod ranges;

pub(crate) use ranges::{COPY_BYTES, Source};

use crate::acl::{self, Acl};
use crate::asker;
use crate::error::{Refusal, Result};
use crate::limits::ORPHAN_BYTES;
use crate::live::{Content, Live};
use crate::reader::Attributes;
use crate::sweep::{self, Thoroughness};
use crate::volume::{NewInode, RenameMode, SetAttr, When, XattrMode};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use warp_cache::store::Swept;
use warp_format::change::Change;
use warp_format::limits::{MAX_FILE_SIZE, MAX_NAME_LEN, MAX_SYMLINK_LEN, MAX_XATTR_LEN};
use warp_format::record::{
    Body, Dentry, FileType, Inode, Key, KeyKind, NO_DIRECTORIES, Name, Record, Stamp, Time, Xattr,
};
use warp_format::{ChunkId, DeviceTag, FileId, NameHash};

const SET_GID: u16 = 0o2000;

/// The names and files of a portal.
pub(crate) struct Namespace {
    pub(crate) live: Live,
    /// Held by whoever reads in order to change.
    changing: Mutex<()>,
    /// Inodes without a name that the kernel still has open. They are in no
    /// layer and no journal: a crash forgets them, and nothing publishes them.
    orphans: Mutex<HashMap<FileId, Arc<Mutex<Orphan>>>>,
    device: DeviceTag,
    clock: AtomicU64,
}

#[derive(Clone)]
struct Orphan {
    inode: Inode,
    content: Content,
    xattrs: Vec<Xattr>,
}

/// What taking a name away changes, and the inode that is left without one.
type Released = (Vec<Change>, Option<(FileId, Orphan)>);

/// Now, as the host has it.
pub fn now() -> Time {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Time { secs: since.as_secs() as i64, nanos: since.subsec_nanos() },
        Err(_) => Time { secs: 0, nanos: 0 },
    }
}

fn inode_key(file: FileId) -> Key {
    Key::new(file, KeyKind::Inode)
}

fn put_inode(file: FileId, inode: Inode) -> Change {
    Change::Put(inode_key(file), Record::Inode(inode))
}

/// The body of a regular file's inode that was changed: about how much is
/// stored. Where, only a published tree says.
fn stored(inode: &Inode, more: u64, size: u64) -> Body {
    let before = match &inode.body {
        Body::Extents(stored) => *stored,
        Body::Inline(bytes) => bytes.len() as u64,
        other => return other.clone(),
    };
    Body::Extents(before.saturating_add(more).min(size))
}

fn new_name(name: &[u8]) -> Result<Name> {
    if name.len() > MAX_NAME_LEN {
        return Err(Refusal::NameTooLong.into());
    }
    Name::new(name).map_err(|_| Refusal::Invalid.into())
}

/// How many more directories a rename leaves where it takes the name from,
/// and where it puts it.
fn directories_moved(moved: &Dentry, there: Option<&Dentry>, mode: RenameMode) -> (i64, i64) {
    let count = |dentry: &Dentry| i64::from(dentry.file_type == FileType::Directory);
    let (moved, there) = (count(moved), there.map_or(0, count));
    let back = if mode == RenameMode::Exchange { there } else { 0 };
    (back - moved, moved - there)
}

impl Namespace {
    pub(crate) fn new(live: Live) -> Self {
        let device = live.secrets.signing_key().device_id().tag();
        let (changing, orphans, clock) = Default::default();
        Self { live, changing, orphans, device, clock }
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orphans(&self) -> MutexGuard<'_, HashMap<FileId, Arc<Mutex<Orphan>>>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, or changes, an inode without a name. Others wait for what it does
    /// only if they want the same inode.
    fn of_orphan<T>(&self, file: FileId, act: impl FnOnce(&mut Orphan) -> T) -> Option<T> {
        let orphan = self.orphans().get(&file).map(Arc::clone)?;
        let mut orphan = orphan.lock().unwrap_or_else(PoisonError::into_inner);
        Some(act(&mut orphan))
    }

    /// The stamp of a change made now: later than all before it.
    fn stamp(&self) -> Stamp {
        let now = now();
        let millis =
            now.secs.unsigned_abs().saturating_mul(1000) + u64::from(now.nanos / 1_000_000);
        let wall = millis << 16;
        let next = |last: u64| Some(wall.max(last + 1));
        let last = self.clock.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let clock = wall.max(last.unwrap_or(0) + 1);
        Stamp { clock, device: self.device }
    }

    /// Makes the root of a new portal.
    pub(crate) fn make_root(&self, uid: u32, gid: u32) -> Result<()> {
        let new = NewInode {
            permissions: 0o755,
            umask: 0,
            uid,
            gid,
            body: Body::Directory(NO_DIRECTORIES),
        };
        let inode = self.new_inode(&new, new.permissions, gid);
        self.live.apply(vec![put_inode(FileId::ROOT, inode)])
    }

    fn new_inode(&self, new: &NewInode, permissions: u16, gid: u32) -> Inode {
        let time = now();
        let body = new.body.clone();
        let size = match &body {
            Body::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let (stamp, uid) = (self.stamp(), new.uid);
        let (mtime, ctime) = (time, Some(time));
        let (atime, btime, versions) = (None, None, Vec::new());
        Inode { stamp, permissions, uid, gid, size, mtime, ctime, atime, btime, versions, body }
    }

    /// An inode and the count of its names, which is 0 for one that is only
    /// open any more.
    pub(crate) fn attributes(&self, file: FileId) -> Result<Option<Attributes>> {
        // An orphan is one before it is taken from here: who does not find it
        // here finds it there.
        let found = self.live.attributes(file)?;
        // The root has no name.
        let found =
            found.map(|a| if file == FileId::ROOT { Attributes { links: 1, ..a } } else { a });
        let orphan = || self.of_orphan(file, |o| Attributes { inode: o.inode.clone(), links: 0 });
        Ok(found.or_else(orphan))
    }

    fn existing(&self, file: FileId) -> Result<Attributes> {
        self.attributes(file)?.ok_or_else(|| Refusal::Missing.into())
    }

    /// A directory that can take names.
    fn directory(&self, file: FileId) -> Result<Inode> {
        let Attributes { inode, links } = self.existing(file)?;
        if inode.file_type() != FileType::Directory {
            return Err(Refusal::NotADirectory.into());
        }
        if links == 0 {
            return Err(Refusal::Missing.into());
        }
        Ok(inode)
    }

    pub(crate) fn lookup(&self, parent: FileId, name: &[u8]) -> Result<Option<Dentry>> {
        let hash = self.live.naming.name_hash(name);
        match self.live.get(&Key::new(parent, KeyKind::Dentry(hash)))? {
            Some(Record::Dentry(dentry)) if dentry.name.as_bytes() == name => Ok(Some(dentry)),
            _ => Ok(None),
        }
    }

    /// The changes that put a name into a directory.
    fn name(&self, parent: FileId, name: Name, file: FileId, file_type: FileType) -> [Change; 2] {
        let hash = self.live.naming.name_hash(name.as_bytes());
        let stamp = self.stamp();
        let dentry = Dentry { stamp, name, file, file_type };
        [
            Change::Put(Key::new(parent, KeyKind::Dentry(hash)), Record::Dentry(dentry)),
            Change::Put(Key::new(file, KeyKind::Link(parent, hash)), Record::Link(stamp)),
        ]
    }

    /// The changes that take one out.
    fn unname(&self, parent: FileId, dentry: &Dentry) -> [Change; 2] {
        let hash = self.live.naming.name_hash(dentry.name.as_bytes());
        [
            Change::Remove(Key::new(parent, KeyKind::Dentry(hash))),
            Change::Remove(Key::new(dentry.file, KeyKind::Link(parent, hash))),
        ]
    }

    /// The inode with its time of change set.
    fn touched(&self, inode: Inode, content: bool) -> Inode {
        let time = now();
        let body = stored(&inode, 0, inode.size);
        let mtime = if content { time } else { inode.mtime };
        Inode { stamp: self.stamp(), mtime, ctime: Some(time), body, ..inode }
    }

    /// A directory in which names were changed, and so many more directories
    /// are now.
    fn renamed_in(&self, directory: Inode, more: i64) -> Inode {
        let mut inode = self.touched(directory, true);
        if let Body::Directory(links) = &mut inode.body {
            *links = links.saturating_add_signed(more).max(NO_DIRECTORIES);
        }
        inode
    }

    pub(crate) fn make(&self, parent: FileId, name: &[u8], new: &NewInode) -> Result<FileId> {
        let name = new_name(name)?;
        if let Body::Symlink(target) = &new.body
            && (target.is_empty() || target.len() > MAX_SYMLINK_LEN || target.contains(&0))
        {
            return Err(Refusal::NameTooLong.into());
        }
        let _changing = self.changing();
        let directory = self.directory(parent)?;
        if self.lookup(parent, name.as_bytes())?.is_some() {
            return Err(Refusal::Exists.into());
        }
        let is_directory = matches!(new.body, Body::Directory(_));
        let passes_group = directory.permissions & SET_GID != 0;
        let gid = if passes_group { directory.gid } else { new.gid };
        let file = self.live.new_file();
        let mut changes = Vec::with_capacity(6);
        let mut permissions = new.permissions & !new.umask;
        let is_link = matches!(new.body, Body::Symlink(_));
        if let (false, Some(default)) = (is_link, self.acl(parent, acl::DEFAULT)?) {
            permissions = new.permissions;
            let access = default.clone().inherited(permissions & 0o777);
            permissions = permissions & !0o777 | access.mode();
            if !access.is_minimal() {
                changes.push(self.put_xattr(file, acl::ACCESS, access.encode()));
            }
            if is_directory {
                changes.push(self.put_xattr(file, acl::DEFAULT, default.encode()));
            }
        }
        if is_directory && passes_group {
            permissions |= SET_GID;
        }
        let inode = self.new_inode(new, permissions, gid);
        let file_type = inode.file_type();
        changes.push(put_inode(file, inode));
        changes.extend(self.name(parent, name, file, file_type));
        let above = self.renamed_in(directory, i64::from(is_directory));
        changes.push(put_inode(parent, above));
        self.live.apply(changes)?;
        Ok(file)
    }

    pub(crate) fn link(&self, file: FileId, parent: FileId, name: &[u8]) -> Result<()> {
        let name = new_name(name)?;
        let _changing = self.changing();
        let Attributes { inode, links } = self.existing(file)?;
        let directory = self.directory(parent)?;
        if links == 0 {
            return Err(Refusal::Missing.into());
        }
        if inode.file_type() == FileType::Directory {
            return Err(Refusal::IsADirectory.into());
        }
        if self.lookup(parent, name.as_bytes())?.is_some() {
            return Err(Refusal::Exists.into());
        }
        let mut changes = Vec::from(self.name(parent, name, file, inode.file_type()));
        changes.push(put_inode(file, self.touched(inode, false)));
        changes.push(put_inode(parent, self.touched(directory, true)));
        self.live.apply(changes)
    }

    pub(crate) fn unlink(&self, parent: FileId, name: &[u8], directory: bool) -> Result<()> {
        let _changing = self.changing();
        let above = self.directory(parent)?;
        let dentry = self.lookup(parent, name)?.ok_or(Refusal::Missing)?;
        match (directory, dentry.file_type == FileType::Directory) {
            (true, false) => return Err(Refusal::NotADirectory.into()),
            (false, true) => return Err(Refusal::IsADirectory.into()),
            _ => {}
        }
        let (mut changes, orphan) = self.release(parent, &dentry)?;
        let above = self.renamed_in(above, -i64::from(directory));
        changes.push(put_inode(parent, above));
        self.apply_and_leave(changes, orphan)
    }

    /// Applies changes that leave an inode without a name.
    fn apply_and_leave(
        &self,
        changes: Vec<Change>,
        orphan: Option<(FileId, Orphan)>,
    ) -> Result<()> {
        let Some((file, orphan)) = orphan else { return self.live.apply(changes) };
        self.orphans().insert(file, Arc::new(Mutex::new(orphan)));
        let applied = self.live.apply(changes);
        if applied.is_err() {
            self.orphans().remove(&file);
        }
        applied
    }

    /// The changes that take a name from what it leads to; with the last one,
    /// the inode goes, and lives on for who has it open.
    fn release(&self, parent: FileId, dentry: &Dentry) -> Result<Released> {
        let file = dentry.file;
        if dentry.file_type == FileType::Directory && !self.live.entries(file, None, 1)?.is_empty()
        {
            return Err(Refusal::NotEmpty.into());
        }
        let Attributes { inode, links } = self.existing(file)?;
        let mut changes = Vec::from(self.unname(parent, dentry));
        let inode = self.touched(inode, false);
        if links > 1 {
            changes.push(put_inode(file, inode));
            return Ok((changes, None));
        }
        changes.push(Change::Delete(file));
        let mut content = self.live.content(file);
        if content.pieces.bytes() > ORPHAN_BYTES {
            content.stash(&self.live)?;
        }
        let orphan = Orphan { inode, content, xattrs: self.xattrs(file)? };
        Ok((changes, Some((file, orphan))))
    }

    pub(crate) fn rename(
        &self,
        from: (FileId, &[u8]),
        to: (FileId, &[u8]),
        mode: RenameMode,
    ) -> Result<()> {
        let new = new_name(to.1)?;
        let _changing = self.changing();
        let (source, target) = (self.directory(from.0)?, self.directory(to.0)?);
        let moved = self.lookup(from.0, from.1)?.ok_or(Refusal::Missing)?;
        let there = self.lookup(to.0, to.1)?;
        let more = directories_moved(&moved, there.as_ref(), mode);
        let mut changes = Vec::from(self.unname(from.0, &moved));
        let mut orphan = None;
        match (mode, there) {
            (RenameMode::Exchange, None) => return Err(Refusal::Missing.into()),
            (RenameMode::Keep, Some(_)) => return Err(Refusal::Exists.into()),
            // Two names of one file: POSIX has nothing happen.
            (_, Some(there)) if there.file == moved.file => return Ok(()),
            (RenameMode::Exchange, Some(there)) => {
                changes.extend(self.unname(to.0, &there));
                let inode = self.existing(there.file)?.inode;
                let old = new_name(from.1)?;
                changes.extend(self.name(from.0, old, there.file, there.file_type));
                changes.push(put_inode(there.file, self.touched(inode, false)));
            }
            (_, Some(there)) => {
                let is_directory = |d: &Dentry| d.file_type == FileType::Directory;
                match (is_directory(&moved), is_directory(&there)) {
                    (true, false) => return Err(Refusal::NotADirectory.into()),
                    (false, true) => return Err(Refusal::IsADirectory.into()),
                    _ => {}
                }
                let (released, left) = self.release(to.0, &there)?;
                changes.extend(released);
                orphan = left;
            }
            (_, None) => {}
        }
        let inode = self.existing(moved.file)?.inode;
        changes.extend(self.name(to.0, new, moved.file, moved.file_type));
        changes.push(put_inode(moved.file, self.touched(inode, false)));
        if from.0 == to.0 {
            changes.push(put_inode(to.0, self.renamed_in(target, more.0 + more.1)));
        } else {
            changes.push(put_inode(from.0, self.renamed_in(source, more.0)));
            changes.push(put_inode(to.0, self.renamed_in(target, more.1)));
        }
        self.apply_and_leave(changes, orphan)
    }

    pub(crate) fn set_attr(&self, file: FileId, change: &SetAttr) -> Result<Attributes> {
        let _changing = self.changing();
        let Attributes { mut inode, links } = self.existing(file)?;
        let time = now();
        let mut changes = Vec::new();
        if let Some(size) = change.size {
            match inode.file_type() {
                FileType::Regular if size <= MAX_FILE_SIZE => {}
                FileType::Regular => return Err(Refusal::TooLarge.into()),
                FileType::Directory => return Err(Refusal::IsADirectory.into()),
                _ => return Err(Refusal::Invalid.into()),
            }
            changes.push(Change::Clear { file, from: inode.size.min(size), to: u64::MAX });
            inode.body = stored(&inode, 0, size);
            inode.size = size;
            inode.mtime = time;
        }
        let at = |when: When| match when {
            When::Now => time,
            When::At(time) => time,
        };
        if let Some(permissions) = change.permissions {
            inode.permissions = permissions;
            if let Some(acl) = self.acl(file, acl::ACCESS)? {
                let acl = acl.with_mode(permissions & 0o777);
                changes.push(self.put_xattr(file, acl::ACCESS, acl.encode()));
            }
        }
        inode.uid = change.uid.unwrap_or(inode.uid);
        inode.gid = change.gid.unwrap_or(inode.gid);
        inode.atime = change.atime.map(at).or(inode.atime);
        inode.mtime = change.mtime.map_or(inode.mtime, at);
        inode.ctime = Some(change.ctime.unwrap_or(time));
        inode.stamp = self.stamp();
        inode.body = stored(&inode, 0, inode.size);
        changes.push(put_inode(file, inode.clone()));
        self.change(file, changes)?;
        Ok(Attributes { inode, links })
    }

    /// Applies changes of one inode, wherever it lives.
    fn change(&self, file: FileId, changes: Vec<Change>) -> Result<()> {
        let mut changes = Some(changes);
        let done = self.of_orphan(file, |orphan| {
            asker::still_waits()?;
            changes.take().into_iter().flatten().for_each(|change| orphan.apply(change));
            if orphan.content.pieces.bytes() > ORPHAN_BYTES {
                orphan.content.stash(&self.live)?;
            }
            Ok(())
        });
        match (done, changes) {
            (None, Some(changes)) => self.live.apply(changes),
            (done, _) => done.unwrap_or(Ok(())),
        }
    }

    /// Writes bytes. With `cached`, they come out of the kernel's cache, which
    /// tells of the file's times by itself.
    pub(crate) fn write(
        &self,
        file: FileId,
        offset: u64,
        bytes: Vec<u8>,
        cached: bool,
    ) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= MAX_FILE_SIZE);
        let end = end.ok_or(Refusal::TooLarge)?;
        let _changing = self.changing();
        let inode = self.existing(file)?.inode;
        if inode.file_type() != FileType::Regular {
            return Err(Refusal::Invalid.into());
        }
        let size = inode.size.max(end);
        let body = stored(&inode, bytes.len() as u64, size);
        let inode = if cached {
            Inode { size, stamp: self.stamp(), ..inode }
        } else {
            Inode { size, ..self.touched(inode, true) }
        };
        let write = Change::Write { file, offset, bytes };
        self.change(file, vec![write, put_inode(file, Inode { body, ..inode })])
    }

    pub(crate) fn read(&self, file: FileId, offset: u64, len: usize) -> Result<Vec<u8>> {
        let end = offset.saturating_add(len as u64);
        let (inode, content) = self.regular(file, offset, end)?;
        let len = inode.size.min(end).saturating_sub(offset) as usize;
        content.read(&self.live, offset, len)
    }

    /// Takes from the disk what nothing refers to any more.
    pub(crate) fn sweep(&self, thoroughness: Thoroughness) -> Result<Swept> {
        sweep::sweep(&self.live, thoroughness, || self.detach_orphans())
    }

    /// Lets go of the trees that open files without a name were in: one such
    /// file would keep all that was there when it was deleted. Gives the
    /// chunks that those files need, and what was cloned and is in no tree.
    fn detach_orphans(&self) -> Result<Vec<ChunkId>> {
        // Who is about to leave one has done so, or has not begun.
        let changing = self.changing();
        let orphans: Vec<_> = self.orphans().values().map(Arc::clone).collect();
        // At the same moment: a clone moves from one to the other.
        let mut chunks = self.live.referenced_chunks();
        drop(changing);
        for orphan in orphans {
            let mut orphan = orphan.lock().unwrap_or_else(PoisonError::into_inner);
            orphan.content.detach()?;
            chunks.extend(orphan.content.chunks());
        }
        Ok(chunks)
    }

    /// The kernel knows an inode no more, unless `is_known` says otherwise: it
    /// may have been told of it again meanwhile.
    pub(crate) fn forget(&self, file: FileId, is_known: impl FnOnce() -> bool) {
        let mut orphans = self.orphans();
        if orphans.contains_key(&file) && !is_known() {
            let gone = orphans.remove(&file);
            drop(orphans);
            drop(gone);
        }
    }

    pub(crate) fn xattrs(&self, file: FileId) -> Result<Vec<Xattr>> {
        let key = |byte| Key::new(file, KeyKind::Xattr(NameHash([byte; 16])));
        let records = self.live.records_between(key(0), key(0xff))?;
        let xattrs = records.into_iter().filter_map(|(_, record)| match record {
            Record::Xattr(xattr) => Some(xattr),
            _ => None,
        });
        let found: Vec<Xattr> = xattrs.collect();
        if !found.is_empty() {
            return Ok(found);
        }
        Ok(self.of_orphan(file, |orphan| orphan.xattrs.clone()).unwrap_or_default())
    }

    pub(crate) fn xattr(&self, file: FileId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(Record::Xattr(xattr)) = self.live.get(&self.xattr_key(file, name))?
            && xattr.name == name
        {
            return Ok(Some(xattr.value));
        }
        let of = |orphan: &mut Orphan| {
            let found = orphan.xattrs.iter().find(|xattr| xattr.name == name);
            found.map(|xattr| xattr.value.clone())
        };
        Ok(self.of_orphan(file, of).flatten())
    }

    fn xattr_key(&self, file: FileId, name: &[u8]) -> Key {
        Key::new(file, KeyKind::Xattr(self.live.naming.name_hash(name)))
    }

    fn put_xattr(&self, file: FileId, name: &[u8], value: Vec<u8>) -> Change {
        let xattr = Xattr { stamp: self.stamp(), name: name.to_vec(), value };
        Change::Put(self.xattr_key(file, name), Record::Xattr(xattr))
    }

    fn acl(&self, file: FileId, name: &[u8]) -> Result<Option<Acl>> {
        Ok(self.xattr(file, name)?.and_then(|value| Acl::decode(&value)))
    }

    pub(crate) fn set_xattr(
        &self,
        file: FileId,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<()> {
        if name.len() > MAX_NAME_LEN || name.contains(&0) {
            return Err(Refusal::Invalid.into());
        }
        // What no other filesystem takes could not be copied out again.
        let spaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
        match spaces.iter().find_map(|space| name.strip_prefix(*space)) {
            Some(b"") => return Err(Refusal::Invalid.into()),
            None if name != acl::ACCESS && name != acl::DEFAULT => {
                return Err(Refusal::Unsupported.into());
            }
            _ => {}
        }
        if value.len() > MAX_XATTR_LEN {
            return Err(Refusal::AttributeTooLarge.into());
        }
        let _changing = self.changing();
        let mut inode = self.existing(file)?.inode;
        match (mode, self.xattr(file, name)?) {
            (XattrMode::Create, Some(_)) => return Err(Refusal::Exists.into()),
            (XattrMode::Replace, None) => return Err(Refusal::NoAttribute.into()),
            _ => {}
        }
        let put = self.put_xattr(file, name, value.to_vec());
        let remove = Change::Remove(self.xattr_key(file, name));
        let change = if name == acl::ACCESS || name == acl::DEFAULT {
            let acl = Acl::decode(value).ok_or(Refusal::Invalid)?;
            if name == acl::DEFAULT && inode.file_type() != FileType::Directory {
                return Err(Refusal::Invalid.into());
            }
            let says_no_more = acl.is_empty() || (name == acl::ACCESS && acl.is_minimal());
            if name == acl::ACCESS && !acl.is_empty() {
                inode.permissions = inode.permissions & !0o777 | acl.mode();
            }
            if says_no_more { remove } else { put }
        } else {
            put
        };
        self.change_xattr(file, name, change, inode)
    }

    fn change_xattr(&self, file: FileId, name: &[u8], change: Change, inode: Inode) -> Result<()> {
        let removed = matches!(change, Change::Remove(_));
        self.change(file, vec![change, put_inode(file, self.touched(inode, false))])?;
        if removed {
            self.of_orphan(file, |orphan| orphan.xattrs.retain(|xattr| xattr.name != name));
        }
        Ok(())
    }

    pub(crate) fn remove_xattr(&self, file: FileId, name: &[u8]) -> Result<()> {
        let _changing = self.changing();
        let inode = self.existing(file)?.inode;
        if self.xattr(file, name)?.is_none() {
            // A list that says no more than the mode is not kept, and may be
            // taken away all the same.
            let is_acl = name == acl::ACCESS || name == acl::DEFAULT;
            return if is_acl { Ok(()) } else { Err(Refusal::NoAttribute.into()) };
        }
        let remove = Change::Remove(self.xattr_key(file, name));
        self.change_xattr(file, name, remove, inode)
    }
}

impl Orphan {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Put(_, Record::Inode(inode)) => self.inode = inode,
            Change::Put(_, Record::Xattr(xattr)) => {
                self.xattrs.retain(|other| other.name != xattr.name);
                self.xattrs.push(xattr);
            }
            Change::Put(Key { kind: KeyKind::Extent(at), .. }, Record::Extent(extent)) => {
                self.content.pieces.place(at, extent);
            }
            Change::Write { offset, bytes, .. } => self.content.pieces.write(offset, bytes),
            Change::Clear { from, to, .. } => self.content.pieces.clear(from, to),
            // An attribute is removed by name, which a key does not tell.
            _ => {}
        }
    }
}

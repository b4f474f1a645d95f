//! The seam between the kernel's requests and whatever answers them.
//!
//! Neighbours: `fs` above, which knows FUSE and errno; an archive (here) or a
//! portal below. Promises: what an archive shows stays the same while it is
//! mounted. Never: speaks FUSE. Tested by `tests/tests/mount.rs`.

use crate::about::{self, About, Whole};
use crate::archive::ArchiveFile;
use crate::error::{FlowError, Refusal, Result};
use crate::reader::{Attributes, TreeReader, check_type};
use crate::source::ChunkSource;
use std::ops::Range;
use std::time::Duration;
use warp_format::record::{Body, Dentry, FileType, Inode, Stamp, Time, UNCOUNTED};
use warp_format::{FileId, FormatError, NameHash};

/// The longest lifetime.
pub const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Called with the number of an inode.
pub type Changed = Box<dyn Fn(u64) + Send + Sync>;

/// Attributes as `stat` shows them.
#[derive(Debug, Clone)]
pub struct Attr {
    /// Inode number; the root is 1.
    pub ino: u64,
    /// The record.
    pub inode: Inode,
    /// Count of names.
    pub links: u32,
}

/// An entry of a directory.
#[derive(Debug, Clone)]
pub struct DirEntry {
    /// Where a listing goes on after this entry.
    pub place: NameHash,
    /// The name.
    pub name: Vec<u8>,
    /// The inode that it leads to.
    pub file: FileId,
    /// Its number.
    pub ino: u64,
    /// Type of that inode.
    pub file_type: FileType,
    /// Its attributes, if they were asked for.
    pub attr: Option<Attr>,
}

/// Size of a volume for `statfs`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Space {
    /// Bytes, free or not.
    pub bytes: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Bytes that ordinary users may still fill.
    pub available: u64,
    /// Inodes, free or not.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
}

/// A point in time that a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// As it is answered.
    Now,
    /// This one.
    At(Time),
}

/// Attributes to change; `None` stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// The twelve permission bits.
    pub permissions: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length of a regular file, in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<When>,
    /// Last change of content.
    pub mtime: Option<When>,
    /// Last change at all.
    pub ctime: Option<Time>,
}

/// An inode to be made.
#[derive(Debug, Clone)]
pub struct NewInode {
    /// The twelve permission bits asked for.
    pub permissions: u16,
    /// Bits to leave out, unless the directory has a default ACL.
    pub umask: u16,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory passes on its own.
    pub gid: u32,
    /// What it is; a regular file starts empty.
    pub body: Body,
}

/// What a rename does with a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces what has it.
    Replace,
    /// Fails.
    Keep,
    /// Gives it the other name.
    Exchange,
}

/// What is done with a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    /// There is room for it.
    Reserve {
        /// The file does not grow.
        keep_size: bool,
    },
    /// It is a hole, and the file does not grow.
    Punch,
    /// It reads as zeros.
    Zero {
        /// The file does not grow.
        keep_size: bool,
    },
}

impl Allocate {
    pub(crate) fn keeps_size(self) -> bool {
        match self {
            Self::Reserve { keep_size } | Self::Zero { keep_size } => keep_size,
            Self::Punch => true,
        }
    }

    pub(crate) fn clears(self) -> bool {
        !matches!(self, Self::Reserve { .. })
    }
}

/// What setting an attribute does with one that is there, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrMode {
    /// Sets it in any case.
    Set,
    /// Fails if it is there.
    Create,
    /// Fails if it is not.
    Replace,
}

/// Told once all is durable, or why it is not.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// What a mount shows. Numbers are inode numbers; `None` = no such thing.
/// What changes something fails with [`Refusal::ReadOnly`] unless a volume has
/// it. Whatever gives out an [`Attr`] for a name (`lookup`, `make`, `link`)
/// tells the kernel of an inode, and counts that until it is forgotten.
pub trait Volume: Send + Sync + 'static {
    /// True if anything here can change.
    fn changes(&self) -> bool {
        false
    }
    /// True for an inode of a volume that changes which cannot be changed.
    fn is_read_only(&self, _ino: u64) -> bool {
        false
    }
    /// How long the kernel may keep what it is told of an inode and of the
    /// names in it: [`FOREVER`] if that stays true until it is changed through
    /// the mount.
    fn lifetime(&self, _ino: u64) -> Duration {
        FOREVER
    }
    /// Takes what is to be called with the number of an inode whose content or
    /// attributes were not changed through the mount, after they were.
    fn watch(&self, _changed: Changed) {}
    /// True if who changes something now may have to wait.
    fn is_behind(&self) -> bool {
        false
    }
    /// What a name in a directory leads to.
    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>>;
    /// The kernel was told of this inode by a listing of this directory.
    fn retain(&self, _parent: u64, _entry: &DirEntry) {}
    /// The kernel has forgotten this inode as often as this.
    fn forget(&self, _ino: u64, _count: u64) {}
    /// Attributes of an inode.
    fn attr(&self, ino: u64) -> Result<Option<Attr>>;
    /// Bytes of a regular file; fewer than `len` only at its end.
    fn read(&self, ino: u64, offset: u64, len: usize) -> Result<Vec<u8>>;
    /// About `limit` entries of a directory that come after `place`; with
    /// `plus`, their attributes too. None: there are no more.
    fn entries(
        &self,
        ino: u64,
        place: Option<NameHash>,
        limit: usize,
        plus: bool,
    ) -> Result<Vec<DirEntry>>;
    /// Value of an extended attribute; below `user.warp.`, what the volume says
    /// of the file by itself.
    fn xattr(&self, ino: u64, name: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Names of the extended attributes.
    fn xattrs(&self, ino: u64) -> Result<Vec<Vec<u8>>>;
    /// First offset from `offset` on that holds data (or, with `hole`, that
    /// holds none; the end of the file is a hole). `None` = past the last.
    fn seek(&self, ino: u64, offset: u64, hole: bool) -> Result<Option<u64>>;
    /// How large it all is.
    fn space(&self) -> Result<Space>;

    /// Changes attributes; gives what they are now.
    fn set_attr(&self, _ino: u64, _change: &SetAttr) -> Result<Attr> {
        Err(Refusal::ReadOnly.into())
    }
    /// Makes an inode under a new name.
    fn make(&self, _parent: u64, _name: &[u8], _new: NewInode) -> Result<Attr> {
        Err(Refusal::ReadOnly.into())
    }
    /// Gives an inode another name.
    fn link(&self, _ino: u64, _parent: u64, _name: &[u8]) -> Result<Attr> {
        Err(Refusal::ReadOnly.into())
    }
    /// Takes a name away: of a directory, or of anything else.
    fn unlink(&self, _parent: u64, _name: &[u8], _directory: bool) -> Result<()> {
        Err(Refusal::ReadOnly.into())
    }
    /// Moves a name.
    fn rename(&self, _from: (u64, &[u8]), _to: (u64, &[u8]), _mode: RenameMode) -> Result<()> {
        Err(Refusal::ReadOnly.into())
    }
    /// Writes bytes of a regular file. With `cached`, they come out of the
    /// kernel's cache, which sets the file's times by itself.
    fn write(&self, _ino: u64, _offset: u64, _bytes: Vec<u8>, _cached: bool) -> Result<()> {
        Err(Refusal::ReadOnly.into())
    }
    /// Allocates or clears a range of a regular file.
    fn allocate(&self, _ino: u64, _range: Range<u64>, _how: Allocate) -> Result<()> {
        Err(Refusal::ReadOnly.into())
    }
    /// Copies bytes from an offset of one regular file to an offset of
    /// another, at most so many; gives how many.
    fn copy(&self, _from: (u64, u64), _to: (u64, u64), _len: u64) -> Result<u64> {
        Err(Refusal::ReadOnly.into())
    }
    /// Sets an extended attribute.
    fn set_xattr(&self, _ino: u64, _name: &[u8], _value: &[u8], _mode: XattrMode) -> Result<()> {
        Err(Refusal::ReadOnly.into())
    }
    /// Takes an extended attribute away.
    fn remove_xattr(&self, _ino: u64, _name: &[u8]) -> Result<()> {
        Err(Refusal::ReadOnly.into())
    }
    /// Everything done so far is durable when `done` is called.
    fn sync(&self, done: Done) {
        done(Ok(()));
    }
}

/// An archive as a volume.
pub struct ArchiveVolume {
    reader: TreeReader<ArchiveFile>,
    /// No name leads to a file that was never read.
    complete: bool,
}

impl ArchiveVolume {
    /// Shows this archive.
    pub fn new(reader: TreeReader<ArchiveFile>) -> Self {
        let complete = reader.summary().is_ok_and(|summary| summary.unread == 0);
        Self { reader, complete }
    }

    fn get(&self, file: FileId) -> Result<Option<Attr>> {
        let found = match self.reader.attributes(file) {
            // An archive of loose files has no directory that its root
            // could be like.
            Err(FlowError::Lost { .. }) if file == FileId::ROOT => Some(plain_root()),
            other => other?,
        };
        found
            .map(|Attributes { inode, links }| Ok(Attr { ino: number(file)?, inode, links }))
            .transpose()
    }

    fn file(&self, ino: u64) -> Result<Option<(FileId, Inode)>> {
        let id = file_id(ino);
        let attr = self.get(id)?;
        Ok(attr.filter(|a| a.inode.file_type() == FileType::Regular).map(|a| (id, a.inode)))
    }

    /// Entries with their attributes, where wanted. A name whose file could
    /// not be read when the archive was made is left out.
    fn described(&self, entries: Vec<(NameHash, Dentry)>, plus: bool) -> Result<Vec<DirEntry>> {
        let mut attributes: Vec<Option<Attr>> = vec![None; entries.len()];
        if plus || !self.complete {
            let described = self.reader.described(&entries)?.into_iter().zip(&entries);
            for (attr, (found, (_, dentry))) in attributes.iter_mut().zip(described) {
                if let Some(Attributes { inode, links }) = found {
                    *attr = Some(Attr { ino: number(dentry.file)?, inode, links });
                }
            }
        }
        let mut found = Vec::with_capacity(entries.len());
        for ((place, dentry), attr) in entries.into_iter().zip(attributes) {
            if attr.is_some() || (!plus && self.complete) {
                let (ino, file_type) = (number(dentry.file)?, dentry.file_type);
                let name = dentry.name.as_bytes().to_vec();
                let file = dentry.file;
                found.push(DirEntry { place, name, file, ino, file_type, attr });
            }
        }
        Ok(found)
    }

    fn checked(&self, dentry: &Dentry) -> Result<Option<Attr>> {
        let Some(attr) = self.get(dentry.file)? else { return Ok(None) };
        let attributes = Attributes { inode: attr.inode, links: attr.links };
        check_type(dentry, &attributes)?;
        Ok(Some(Attr { ino: attr.ino, inode: attributes.inode, links: attributes.links }))
    }
}

fn plain_root() -> Attributes {
    let inode = Inode {
        stamp: Stamp::NONE,
        permissions: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Time { secs: 0, nanos: 0 },
        ctime: None,
        atime: None,
        btime: None,
        versions: Vec::new(),
        body: Body::Directory(UNCOUNTED),
    };
    Attributes { inode, links: 1 }
}

/// An archive's ids are ordinals, and its root is 0: one more is a number
/// that the kernel takes, with the root at 1.
fn number(file: FileId) -> Result<u64> {
    file.ordinal()
        .and_then(|n| n.checked_add(1))
        .ok_or_else(|| FormatError::Invalid { at: "file id" }.into())
}

fn file_id(ino: u64) -> FileId {
    FileId::from_ordinal(ino.saturating_sub(1))
}

impl Volume for ArchiveVolume {
    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>> {
        match self.reader.lookup(file_id(parent), name)? {
            Some(dentry) => self.checked(&dentry),
            None => Ok(None),
        }
    }

    fn attr(&self, ino: u64) -> Result<Option<Attr>> {
        self.get(file_id(ino))
    }

    fn read(&self, ino: u64, offset: u64, len: usize) -> Result<Vec<u8>> {
        let Some((id, inode)) = self.file(ino)? else {
            return Err(FormatError::Invalid { at: "inode" }.into());
        };
        let bytes = self.reader.read(id, &inode, offset, len)?;
        if offset + bytes.len() as u64 >= inode.size && offset < inode.size {
            // The last part is given out only if no part of the file is gone
            // without a trace, which would read as a hole.
            self.reader.whole_extents(id, &inode)?;
        }
        Ok(bytes)
    }

    fn entries(
        &self,
        ino: u64,
        place: Option<NameHash>,
        limit: usize,
        plus: bool,
    ) -> Result<Vec<DirEntry>> {
        let mut place = place;
        loop {
            let entries = self.reader.entries_after(file_id(ino), place, limit)?;
            let Some((last, _)) = entries.last() else { return Ok(Vec::new()) };
            place = Some(*last);
            let found = self.described(entries, plus)?;
            // A step of names that all lead to nothing is not the end.
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    fn xattr(&self, ino: u64, name: &[u8]) -> Result<Option<Vec<u8>>> {
        if about::is_reserved(name) {
            // Nothing of an archive spreads: it says nothing of how far.
            let Some(what) = About::named(name) else { return Ok(None) };
            let Some((id, inode)) = self.file(ino)? else { return Ok(None) };
            let whole = Whole::of(&self.reader, id, &inode)?;
            return Ok(whole.says(what, &self.reader.keys().naming, inode.size));
        }
        Ok(self.reader.xattr(file_id(ino), name)?.map(|xattr| xattr.value))
    }

    fn xattrs(&self, ino: u64) -> Result<Vec<Vec<u8>>> {
        let all = self.reader.xattrs(file_id(ino))?.into_iter().map(|xattr| xattr.name);
        Ok(all.filter(|name| !about::is_reserved(name)).collect())
    }

    fn seek(&self, ino: u64, offset: u64, hole: bool) -> Result<Option<u64>> {
        let Some((id, inode)) = self.file(ino)? else { return Ok(None) };
        self.reader.seek(id, &inode, offset, hole)
    }

    fn space(&self) -> Result<Space> {
        let summary = self.reader.summary()?;
        Ok(Space { bytes: summary.bytes, inodes: summary.inodes, ..Space::default() })
    }
}

impl<S: ChunkSource> TreeReader<S> {
    /// The first data (or hole) at or after `offset`, as `lseek` has it.
    pub(crate) fn seek(
        &self,
        file: FileId,
        inode: &Inode,
        offset: u64,
        hole: bool,
    ) -> Result<Option<u64>> {
        if offset >= inode.size {
            return Ok(None);
        }
        if let Body::Inline(_) = inode.body {
            return Ok(Some(if hole { inode.size } else { offset }));
        }
        let mut at = offset;
        for (start, extent) in self.extents(file, offset, u64::MAX, inode.size)? {
            let end = start + u64::from(extent.len);
            if !hole {
                return Ok(Some(start.max(offset)));
            }
            if start > at {
                break;
            }
            at = end;
        }
        Ok(hole.then_some(at))
    }
}

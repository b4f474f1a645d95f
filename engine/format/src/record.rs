//! Step *tree*: what the ordered map holds.
//!
//! Keys are `FileId ‖ kind ‖ suffix`, so everything of one inode lies side by
//! side; values are records with the stamp of their last change. Promises:
//! one encoding for one record; names are single path components, checked
//! here and nowhere else. Never: shows a name in a key.
//! Tested by `tests/prop_format.rs` and fuzz target `record`.

use crate::bytes::{Put, Reader};
use crate::error::{FormatError, Result};
use crate::id::{ChunkId, ContentHash, DeviceTag, FileId, NameHash};
use crate::limits::{
    INLINE_LEN, MAX_CHUNK_LEN, MAX_FILE_SIZE, MAX_NAME_LEN, MAX_SYMLINK_LEN, MAX_VERSIONS,
    MAX_XATTR_LEN,
};
use crate::seal::ChunkRef;

/// One component of a path: 1 to 255 bytes, any but `/` and NUL, and neither
/// `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The name, if the bytes are one.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_NAME_LEN {
            let (value, limit) = (bytes.len() as u64, MAX_NAME_LEN as u64);
            return Err(FormatError::Limit { at: "name", value, limit });
        }
        let bad = bytes.is_empty()
            || bytes == b"."
            || bytes == b".."
            || bytes.iter().any(|b| matches!(b, 0 | b'/'));
        if bad { Err(FormatError::Invalid { at: "name" }) } else { Ok(Self(bytes.into())) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Kind of a key; the order is the order in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    Meta = 0,
    Inode = 1,
    Xattr = 2,
    Link = 3,
    Extent = 4,
    Dentry = 5,
}

/// What a key is about, next to its [`FileId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// Said of the tree as a whole.
    Meta,
    /// The inode itself.
    Inode,
    /// One extended attribute.
    Xattr(NameHash),
    /// One name that leads here: directory and hash of the name.
    Link(FileId, NameHash),
    /// File bytes from this offset on.
    Extent(u64),
    /// One name in this directory.
    Dentry(NameHash),
}

/// A key of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The inode that it belongs to.
    pub file: FileId,
    /// What it says of it.
    pub kind: KeyKind,
}

impl Key {
    /// A key.
    pub fn new(file: FileId, kind: KeyKind) -> Self {
        Self { file, kind }
    }

    /// Appends the key's bytes, which sort as the key does.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.file.0);
        match &self.kind {
            KeyKind::Meta => out.push(Tag::Meta as u8),
            KeyKind::Inode => out.push(Tag::Inode as u8),
            KeyKind::Xattr(hash) => {
                out.push(Tag::Xattr as u8);
                out.extend_from_slice(&hash.0);
            }
            KeyKind::Link(parent, hash) => {
                out.push(Tag::Link as u8);
                out.extend_from_slice(&parent.0);
                out.extend_from_slice(&hash.0);
            }
            KeyKind::Extent(offset) => {
                out.push(Tag::Extent as u8);
                out.extend_from_slice(&offset.to_be_bytes());
            }
            KeyKind::Dentry(hash) => {
                out.push(Tag::Dentry as u8);
                out.extend_from_slice(&hash.0);
            }
        }
    }

    /// The key's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(49);
        self.encode(&mut out);
        out
    }

    /// The key in these bytes, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let at = "key";
        let mut r = Reader::new(bytes);
        let file = FileId(r.array(at)?);
        let kind = match r.u8(at)? {
            0 => KeyKind::Meta,
            1 => KeyKind::Inode,
            2 => KeyKind::Xattr(NameHash(r.array(at)?)),
            3 => KeyKind::Link(FileId(r.array(at)?), NameHash(r.array(at)?)),
            4 => KeyKind::Extent(u64::from_be_bytes(r.array(at)?)),
            5 => KeyKind::Dentry(NameHash(r.array(at)?)),
            _ => return Err(FormatError::Invalid { at }),
        };
        r.end(at)?;
        Ok(Self { file, kind })
    }
}

/// When and by whom a record was last changed: a hybrid logical clock and a
/// device. Archives leave it zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Milliseconds since 1970 in the upper 48 bits, a counter below.
    pub clock: u64,
    /// The device.
    pub device: DeviceTag,
}

impl Stamp {
    /// The stamp of records that no device ever changed: an archive's.
    pub const NONE: Self = Self { clock: 0, device: DeviceTag([0; 8]) };
}

/// A point in time, to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 10^9.
    pub nanos: u32,
}

/// Kind of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl FileType {
    /// The `S_IFMT` bits of `st_mode`, shifted down by 12.
    pub fn to_bits(self) -> u8 {
        match self {
            Self::Fifo => 1,
            Self::CharDevice => 2,
            Self::Directory => 4,
            Self::BlockDevice => 6,
            Self::Regular => 8,
            Self::Symlink => 10,
            Self::Socket => 12,
        }
    }

    /// The type of these bits.
    pub fn from_bits(bits: u8) -> Result<Self> {
        Ok(match bits {
            1 => Self::Fifo,
            2 => Self::CharDevice,
            4 => Self::Directory,
            6 => Self::BlockDevice,
            8 => Self::Regular,
            10 => Self::Symlink,
            12 => Self::Socket,
            _ => return Err(FormatError::Invalid { at: "file type" }),
        })
    }
}

/// What an inode holds, by its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A regular file whose bytes are in extents, and the sum of their
    /// lengths: what is stored of it, holes left out. A reader that finds
    /// less knows that a part of the tree is gone.
    Extents(u64),
    /// A regular file of at most [`INLINE_LEN`] bytes, here.
    Inline(Vec<u8>),
    /// A directory: its entries are dentry records. The number is its link
    /// count as `stat` shows it: 2 and one for each directory in it, or
    /// [`UNCOUNTED`].
    Directory(u64),
    /// The target of a symbolic link.
    Symlink(Vec<u8>),
    /// A device number as `st_rdev` has it; block if true.
    Device {
        /// Block device, else character device.
        block: bool,
        /// `st_rdev`.
        number: u64,
    },
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

/// Link count of a directory in which nobody counted: programs take it to say
/// nothing of directories in it.
pub const UNCOUNTED: u64 = 1;
/// Link count of a directory without directories in it.
pub const NO_DIRECTORIES: u64 = 2;

/// An inode record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Stamp of the last change of any attribute.
    pub stamp: Stamp,
    /// The lower 12 bits of `st_mode`.
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes; zero for what has none.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode; `None` in archives, which cannot restore it.
    pub ctime: Option<Time>,
    /// Last access, where kept.
    pub atime: Option<Time>,
    /// Birth, where kept.
    pub btime: Option<Time>,
    /// Version vector of the content: sorted by device, no zero counters.
    pub versions: Vec<(DeviceTag, u64)>,
    /// Type and content.
    pub body: Body,
}

impl Inode {
    /// Type of the inode.
    pub fn file_type(&self) -> FileType {
        match &self.body {
            Body::Extents(_) | Body::Inline(_) => FileType::Regular,
            Body::Directory(_) => FileType::Directory,
            Body::Symlink(_) => FileType::Symlink,
            Body::Device { block: true, .. } => FileType::BlockDevice,
            Body::Device { block: false, .. } => FileType::CharDevice,
            Body::Fifo => FileType::Fifo,
            Body::Socket => FileType::Socket,
        }
    }
}

/// What a name in a directory leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dentry {
    /// Stamp of the name.
    pub stamp: Stamp,
    /// The name.
    pub name: Name,
    /// The inode.
    pub file: FileId,
    /// The inode's type, so that a listing need not open it.
    pub file_type: FileType,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Stamp of the attribute.
    pub stamp: Stamp,
    /// Its name with its namespace, 1 to 255 bytes without NUL.
    pub name: Vec<u8>,
    /// Its value, at most 64 KiB.
    pub value: Vec<u8>,
}

/// Bytes of a file that lie in one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The chunk.
    pub chunk: ChunkRef,
    /// First byte within the chunk.
    pub start: u32,
    /// Count of bytes, at least one.
    pub len: u32,
}

/// What an archive says of itself as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Inodes, the root included.
    pub inodes: u64,
    /// Names, the root excluded.
    pub names: u64,
    /// Sum of the sizes of all regular files, each inode once, in bytes.
    pub bytes: u64,
    /// Inodes that could not be read; a tombstone stands in their place.
    pub unread: u64,
}

/// A value of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Of the whole tree.
    Summary(Summary),
    /// Of a [`KeyKind::Inode`] key.
    Inode(Inode),
    /// Of a [`KeyKind::Xattr`] key.
    Xattr(Xattr),
    /// Of a [`KeyKind::Link`] key.
    Link(Stamp),
    /// Of a [`KeyKind::Extent`] key.
    Extent(Extent),
    /// Of a [`KeyKind::Dentry`] key.
    Dentry(Dentry),
    /// Something that was deleted; kept until every member has seen it.
    Tombstone(Stamp),
}

const HAS_STAMP: u8 = 1;
const IS_TOMBSTONE: u8 = 2;

fn put_stamp(out: &mut Vec<u8>, stamp: Stamp, flags: u8) {
    if stamp == Stamp::NONE {
        out.push(flags);
    } else {
        out.push(flags | HAS_STAMP);
        out.put_varint(stamp.clock);
        out.extend_from_slice(&stamp.device.0);
    }
}

fn read_stamp(r: &mut Reader<'_>) -> Result<(Stamp, bool)> {
    let at = "stamp";
    let flags = r.u8(at)?;
    if flags & !(HAS_STAMP | IS_TOMBSTONE) != 0 {
        return Err(FormatError::Invalid { at });
    }
    let stamp = if flags & HAS_STAMP == 0 {
        Stamp::NONE
    } else {
        let stamp = Stamp { clock: r.varint(at)?, device: DeviceTag(r.array(at)?) };
        if stamp == Stamp::NONE {
            return Err(FormatError::Invalid { at });
        }
        stamp
    };
    Ok((stamp, flags & IS_TOMBSTONE != 0))
}

fn put_time(out: &mut Vec<u8>, time: Time) {
    assert!(time.nanos < 1_000_000_000, "nanoseconds are below a second");
    out.put_signed(time.secs);
    out.put_varint(u64::from(time.nanos));
}

fn read_time(r: &mut Reader<'_>) -> Result<Time> {
    let at = "time";
    let time = Time { secs: r.signed(at)?, nanos: r.varint_u32(at)? };
    if time.nanos >= 1_000_000_000 {
        return Err(FormatError::Invalid { at });
    }
    Ok(time)
}

impl ChunkRef {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.hash.0);
        out.put_varint(u64::from(self.len));
        out.put_varint(u64::from(self.epoch));
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let at = "chunk reference";
        let id = ChunkId(r.array(at)?);
        let hash = ContentHash(r.array(at)?);
        let len = r.varint(at)?;
        if len > MAX_CHUNK_LEN as u64 {
            return Err(FormatError::Limit { at, value: len, limit: MAX_CHUNK_LEN as u64 });
        }
        Ok(Self { id, hash, len: len as u32, epoch: r.varint_u32(at)? })
    }
}

impl Inode {
    fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.permissions <= 0o7777, "permissions are 12 bits");
        let ordered = self.versions.is_sorted_by(|a, b| a.0 < b.0);
        let counted = self.versions.iter().all(|version| version.1 > 0);
        assert!(ordered && counted, "a version vector is sorted and counts from 1");
        assert!(self.versions.len() <= MAX_VERSIONS, "a version vector is within its limit");
        put_stamp(out, self.stamp, 0);
        out.push(self.file_type().to_bits());
        out.put_varint(u64::from(self.permissions));
        out.put_varint(u64::from(self.uid));
        out.put_varint(u64::from(self.gid));
        put_time(out, self.mtime);
        let extra = [self.ctime, self.atime, self.btime];
        let present =
            extra.iter().enumerate().fold(0u8, |bits, (i, t)| bits | u8::from(t.is_some()) << i);
        out.push(present);
        extra.into_iter().flatten().for_each(|time| put_time(out, time));
        out.put_varint(self.versions.len() as u64);
        for (device, counter) in &self.versions {
            out.extend_from_slice(&device.0);
            out.put_varint(*counter);
        }
        match &self.body {
            Body::Extents(stored) => {
                out.put_varint(self.size);
                out.push(0);
                // Mostly zero: only a sparse file stores less than its size.
                out.put_varint(self.size.checked_sub(*stored).expect("stored is within size"));
            }
            Body::Inline(bytes) => {
                assert_eq!(self.size, bytes.len() as u64, "an inline file's size is its length");
                assert!(bytes.len() <= INLINE_LEN, "an inline file is short");
                out.put_varint(self.size);
                out.push(1);
                out.extend_from_slice(bytes);
            }
            Body::Symlink(target) => {
                let whole = (1..=MAX_SYMLINK_LEN).contains(&target.len()) && !target.contains(&0);
                assert!(whole, "a symlink has a target that the kernel would take");
                assert_eq!(self.size, target.len() as u64, "a symlink's size is its length");
                out.put_bytes(target);
            }
            Body::Device { number, .. } => {
                assert_eq!(self.size, 0, "a device has no size");
                out.put_varint(*number);
            }
            Body::Directory(links) => {
                assert_eq!(self.size, 0, "a directory has no size");
                assert_ne!(*links, 0, "what has no name has no record");
                out.put_varint(*links);
            }
            Body::Fifo | Body::Socket => {
                assert_eq!(self.size, 0, "only files and links have a size");
            }
        }
    }

    fn decode(stamp: Stamp, r: &mut Reader<'_>) -> Result<Self> {
        let at = "inode";
        let file_type = FileType::from_bits(r.u8(at)?)?;
        let permissions = r.varint(at)?;
        if permissions > 0o7777 {
            return Err(FormatError::Limit {
                at: "permissions",
                value: permissions,
                limit: 0o7777,
            });
        }
        let (uid, gid) = (r.varint_u32("uid")?, r.varint_u32("gid")?);
        let mtime = read_time(r)?;
        let present = r.u8(at)?;
        if present > 7 {
            return Err(FormatError::Invalid { at });
        }
        let mut extra = [None; 3];
        for (i, slot) in extra.iter_mut().enumerate() {
            if present & 1 << i != 0 {
                *slot = Some(read_time(r)?);
            }
        }
        let [ctime, atime, btime] = extra;
        let versions = Self::decode_versions(r)?;
        let (size, body) = Self::decode_body(file_type, r)?;
        let permissions = permissions as u16;
        Ok(Self { stamp, permissions, uid, gid, size, mtime, ctime, atime, btime, versions, body })
    }

    fn decode_versions(r: &mut Reader<'_>) -> Result<Vec<(DeviceTag, u64)>> {
        let at = "version vector";
        let count = r.varint(at)?;
        if count > MAX_VERSIONS as u64 {
            return Err(FormatError::Limit { at, value: count, limit: MAX_VERSIONS as u64 });
        }
        if count > (r.remaining() / 9) as u64 {
            return Err(FormatError::Truncated { at });
        }
        let mut versions: Vec<(DeviceTag, u64)> = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let entry = (DeviceTag(r.array(at)?), r.varint(at)?);
            if entry.1 == 0 || versions.last().is_some_and(|last| last.0 >= entry.0) {
                return Err(FormatError::Invalid { at });
            }
            versions.push(entry);
        }
        Ok(versions)
    }

    fn decode_body(file_type: FileType, r: &mut Reader<'_>) -> Result<(u64, Body)> {
        let at = "inode";
        Ok(match file_type {
            FileType::Regular => {
                let size = r.varint("file size")?;
                if size > MAX_FILE_SIZE {
                    return Err(FormatError::Limit {
                        at: "file size",
                        value: size,
                        limit: MAX_FILE_SIZE,
                    });
                }
                match r.u8(at)? {
                    0 => {
                        let at = "stored length";
                        let holes = r.varint(at)?;
                        let stored = size.checked_sub(holes).ok_or(FormatError::Invalid { at })?;
                        (size, Body::Extents(stored))
                    }
                    1 if size <= INLINE_LEN as u64 => {
                        (size, Body::Inline(r.take(size as usize, "inline bytes")?.to_vec()))
                    }
                    _ => return Err(FormatError::Invalid { at: "inline bytes" }),
                }
            }
            FileType::Symlink => {
                let target = r.bytes(MAX_SYMLINK_LEN, "symlink target")?.to_vec();
                if target.is_empty() || target.contains(&0) {
                    return Err(FormatError::Invalid { at: "symlink target" });
                }
                (target.len() as u64, Body::Symlink(target))
            }
            FileType::CharDevice => (0, Body::Device { block: false, number: r.varint(at)? }),
            FileType::BlockDevice => (0, Body::Device { block: true, number: r.varint(at)? }),
            FileType::Directory => match r.varint(at)? {
                0 => return Err(FormatError::Invalid { at }),
                links => (0, Body::Directory(links)),
            },
            FileType::Fifo => (0, Body::Fifo),
            FileType::Socket => (0, Body::Socket),
        })
    }
}

impl Extent {
    fn encode(&self, out: &mut Vec<u8>) {
        let end = u64::from(self.start) + u64::from(self.len);
        assert!(self.len > 0 && end <= u64::from(self.chunk.len), "an extent is within its chunk");
        put_stamp(out, Stamp::NONE, 0);
        self.chunk.encode(out);
        out.put_varint(u64::from(self.start));
        out.put_varint(u64::from(self.len));
    }

    fn decode(offset: u64, r: &mut Reader<'_>) -> Result<Self> {
        let at = "extent";
        let extent =
            Self { chunk: ChunkRef::decode(r)?, start: r.varint_u32(at)?, len: r.varint_u32(at)? };
        let end = u64::from(extent.start) + u64::from(extent.len);
        let inside = extent.len > 0 && end <= u64::from(extent.chunk.len);
        let file_end = offset.checked_add(u64::from(extent.len));
        if inside && file_end.is_some_and(|end| end <= MAX_FILE_SIZE) {
            Ok(extent)
        } else {
            Err(FormatError::Invalid { at })
        }
    }
}

impl Record {
    /// Appends the record's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Summary(s) => {
                put_stamp(out, Stamp::NONE, 0);
                [s.inodes, s.names, s.bytes, s.unread].into_iter().for_each(|n| out.put_varint(n));
            }
            Self::Inode(inode) => inode.encode(out),
            Self::Xattr(xattr) => {
                let named = (1..=MAX_NAME_LEN).contains(&xattr.name.len());
                assert!(named && xattr.value.len() <= MAX_XATTR_LEN, "as the kernel limits them");
                put_stamp(out, xattr.stamp, 0);
                out.put_bytes(&xattr.name);
                out.put_bytes(&xattr.value);
            }
            Self::Link(stamp) => put_stamp(out, *stamp, 0),
            Self::Extent(extent) => extent.encode(out),
            Self::Dentry(dentry) => {
                put_stamp(out, dentry.stamp, 0);
                out.extend_from_slice(&dentry.file.0);
                out.push(dentry.file_type.to_bits());
                out.put_bytes(dentry.name.as_bytes());
            }
            Self::Tombstone(stamp) => put_stamp(out, *stamp, IS_TOMBSTONE),
        }
    }

    /// The record in these bytes, all of them, as the kind of its key says.
    pub fn decode(kind: KeyKind, bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let (stamp, deleted) = read_stamp(&mut r)?;
        let record = if deleted {
            Self::Tombstone(stamp)
        } else {
            match kind {
                KeyKind::Meta => {
                    let at = "summary";
                    let (inodes, names, bytes) = (r.varint(at)?, r.varint(at)?, r.varint(at)?);
                    Self::Summary(Summary { inodes, names, bytes, unread: r.varint(at)? })
                }
                KeyKind::Inode => Self::Inode(Inode::decode(stamp, &mut r)?),
                KeyKind::Xattr(_) => Self::Xattr(Xattr::decode(stamp, &mut r)?),
                KeyKind::Link(..) => Self::Link(stamp),
                KeyKind::Extent(offset) => Self::Extent(Extent::decode(offset, &mut r)?),
                KeyKind::Dentry(_) => {
                    let at = "dentry";
                    let file = FileId(r.array(at)?);
                    let file_type = FileType::from_bits(r.u8(at)?)?;
                    let name = Name::new(r.bytes(MAX_NAME_LEN, "name")?)?;
                    Self::Dentry(Dentry { stamp, name, file, file_type })
                }
            }
        };
        r.end("record")?;
        let unstamped = matches!(record, Self::Extent(_) | Self::Summary(_));
        if unstamped && stamp != Stamp::NONE {
            return Err(FormatError::Invalid { at: "stamp" });
        }
        Ok(record)
    }

    /// The record's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

impl Xattr {
    fn decode(stamp: Stamp, r: &mut Reader<'_>) -> Result<Self> {
        let name = r.bytes(MAX_NAME_LEN, "attribute name")?.to_vec();
        if name.is_empty() || name.contains(&0) {
            return Err(FormatError::Invalid { at: "attribute name" });
        }
        let value = r.bytes(MAX_XATTR_LEN, "attribute value")?.to_vec();
        Ok(Self { stamp, name, value })
    }
}

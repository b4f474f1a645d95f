//! What is done, one act at a time, and how it is done to a real directory.

use super::tree::{Body, Handle, How, Out, SLOTS, Tree};
use proptest::prelude::*;
use proptest::sample::Index;
use rustix::fs::{
    Advice, AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec,
    Timestamps, Uid, XattrFlags, chmod, chownat, copy_file_range, fadvise, fallocate, ftruncate,
    linkat, lremovexattr, lsetxattr, mkdir, mknodat, open, renameat_with, rmdir, symlink, unlink,
    utimensat,
};
use rustix::io::{Errno, pread, pwrite};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

/// A path below the root.
#[derive(Clone)]
pub(crate) enum At {
    /// As numbers of names.
    Path(Vec<u8>),
    /// One of those that there are.
    There(Index),
    /// One of those that lead to files.
    File(Index),
    /// A name in one of the directories.
    In(Index, u8),
}

/// The name of a number: some short ones, the longest, and one too long.
pub(crate) fn name(number: u8) -> String {
    match number {
        0..=3 => char::from(b'a' + number).into(),
        4 => "l".repeat(255),
        _ => "t".repeat(256),
    }
}

/// The number of a name.
fn number(name: &str) -> u8 {
    (0..5).find(|n| self::name(*n) == name).expect("a name that an act gave")
}

impl At {
    /// The same as a path of this tree.
    fn within(&self, tree: &Tree) -> Self {
        let path = |names: &[String]| names.iter().map(|name| number(name)).collect::<Vec<u8>>();
        let pick = |index: &Index, paths: Vec<Vec<String>>| {
            if paths.is_empty() { vec![0] } else { path(&paths[index.index(paths.len())]) }
        };
        Self::Path(match self {
            Self::Path(path) => path.clone(),
            Self::There(index) => pick(index, tree.paths(|_| true)),
            Self::File(index) => pick(index, tree.paths(|body| matches!(body, Body::File(_)))),
            Self::In(index, name) => {
                let directories = tree.paths(|body| matches!(body, Body::Directory(_)));
                // The root is one too.
                let root = index.index(directories.len() + 1) == directories.len();
                let mut path = if root { Vec::new() } else { pick(index, directories) };
                path.push(*name);
                path
            }
        })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Path(path) => path.iter().map(|number| name(*number)).collect(),
            _ => unreachable!("it was made a path of the tree"),
        }
    }

    /// As the target of a link beside which it begins.
    pub(crate) fn target(&self) -> String {
        self.names().join("/")
    }

    fn below(&self, root: &Path) -> PathBuf {
        root.join(self.target())
    }
}

impl std::fmt::Debug for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => {
                let short: Vec<_> = path.iter().map(|number| name(*number).remove(0)).collect();
                f.write_str(&short.into_iter().flat_map(|c| ['/', c]).collect::<String>())
            }
            Self::There(index) => write!(f, "there {index:?}"),
            Self::File(index) => write!(f, "file {index:?}"),
            Self::In(index, name) => write!(f, "in {index:?} {name}"),
        }
    }
}

/// Bytes that tell which act wrote them, and where they belong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes {
    pub(crate) seed: u8,
    pub(crate) len: u32,
}

impl Bytes {
    pub(crate) fn at(self, offset: u32) -> Vec<u8> {
        let byte = |at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ self.seed;
        (offset..offset + self.len).map(byte).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Replace,
    Keep,
    Exchange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    Reserve,
    ReserveKeep,
    Punch,
    Zero,
    ZeroKeep,
    /// Nothing that there is.
    Collapse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Xattr {
    Set,
    Create,
    Replace,
}

#[derive(Debug, Clone)]
pub(crate) enum Act {
    Create(At, u32),
    Mkdir(At),
    Socket(At),
    Symlink(At, At),
    Link(At, At),
    Unlink(At),
    Rmdir(At),
    Rename(At, At, Over),
    Chmod(At, u32),
    Chown(At, u32, u32),
    /// Sets both times.
    Times(At, i64, u32),
    SetXattr(At, &'static str, Bytes, Xattr),
    RemoveXattr(At, &'static str),
    TruncateAt(At, u32),
    Open(usize, At, How),
    Close(usize),
    Write(usize, u32, Bytes),
    Read(usize, u32, u32),
    Truncate(usize, u32),
    Allocate(usize, Range, u32, u32),
    Copy(usize, u32, usize, u32, u32),
    Sync(usize),
    /// Makes the kernel let go of the content, to have it read anew.
    Drop(usize),
    SyncDir(At),
    Publish,
    Remount,
    Kill,
}

impl Act {
    fn places(&mut self) -> Vec<&mut At> {
        match self {
            Self::Create(at, _) | Self::Mkdir(at) | Self::Socket(at) | Self::Unlink(at) => vec![at],
            Self::Rmdir(at) | Self::Chmod(at, _) | Self::Chown(at, ..) => vec![at],
            Self::Times(at, ..) | Self::SetXattr(at, ..) | Self::RemoveXattr(at, _) => vec![at],
            Self::TruncateAt(at, _) | Self::Open(_, at, _) | Self::SyncDir(at) => vec![at],
            Self::Link(from, to) | Self::Rename(from, to, _) => vec![from, to],
            // What a link leads to is a path beside it.
            Self::Symlink(at, _) => vec![at],
            _ => Vec::new(),
        }
    }

    fn slots(&mut self) -> Vec<&mut usize> {
        match self {
            Self::Write(slot, ..) | Self::Read(slot, ..) | Self::Truncate(slot, _) => vec![slot],
            Self::Allocate(slot, ..) | Self::Sync(slot) | Self::Drop(slot) => vec![slot],
            Self::Copy(from, _, to, ..) => vec![from, to],
            _ => Vec::new(),
        }
    }

    /// The same, said with what there is now: most acts shall find something.
    pub(crate) fn within(mut self, tree: &Tree) -> Self {
        for at in self.places() {
            *at = at.within(tree);
        }
        let is_open = |slot: &usize| tree.handles[*slot].is_some();
        for slot in self.slots() {
            *slot = (0..SLOTS).map(|n| (*slot + n) % SLOTS).find(is_open).unwrap_or(*slot);
        }
        self
    }
}

pub(crate) fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 50..150)
}

fn any_name() -> impl Strategy<Value = u8> + Clone {
    prop_oneof![40 => 0u8..4, 4 => Just(4u8), 1 => Just(5u8)]
}

fn path() -> impl Strategy<Value = At> + Clone {
    prop::collection::vec(any_name(), 1..=3).prop_map(At::Path)
}

fn new() -> impl Strategy<Value = At> + Clone {
    prop_oneof![
        6 => (any::<Index>(), any_name()).prop_map(|(index, name)| At::In(index, name)),
        1 => path(),
    ]
}

fn at() -> impl Strategy<Value = At> + Clone {
    prop_oneof![
        6 => any::<Index>().prop_map(At::There),
        1 => (any::<Index>(), any_name()).prop_map(|(index, name)| At::In(index, name)),
        1 => path(),
    ]
}

fn file() -> impl Strategy<Value = At> + Clone {
    prop_oneof![8 => any::<Index>().prop_map(At::File), 1 => at()]
}

fn offset() -> impl Strategy<Value = u32> + Clone {
    prop_oneof![2 => 0u32..2000, 2 => 0u32..200_000, 1 => (0u32..40).prop_map(|page| page * 4096)]
}

fn len() -> impl Strategy<Value = u32> + Clone {
    prop_oneof![3 => 0u32..200, 3 => 0u32..9000, 1 => 0u32..150_000, 1 => (1u32..9).prop_map(|p| p * 4096)]
}

fn bytes() -> impl Strategy<Value = Bytes> + Clone {
    (any::<u8>(), len()).prop_map(|(seed, len)| Bytes { seed, len })
}

fn on_names() -> impl Strategy<Value = Act> {
    let mode = prop::sample::select(vec![0o600, 0o644, 0o755]);
    let any_mode = prop::sample::select(vec![0o600, 0o644, 0o755, 0o1777, 0o2775, 0o4711, 0]);
    let over = prop::sample::select(vec![Over::Replace, Over::Replace, Over::Keep, Over::Exchange]);
    let xattr = prop::sample::select(vec!["user.a", "user.b", "trusted.c"]);
    let how = prop::sample::select(vec![Xattr::Set, Xattr::Set, Xattr::Create, Xattr::Replace]);
    let small = (any::<u8>(), 0u32..3000).prop_map(|(seed, len)| Bytes { seed, len });
    let secs = prop::sample::select(vec![-1_000_000_007, 0, 1_000_000_000, 5_000_000_000]);
    prop_oneof![
        6 => (new(), mode).prop_map(|(at, mode)| Act::Create(at, mode)),
        5 => new().prop_map(Act::Mkdir),
        1 => new().prop_map(Act::Socket),
        2 => (new(), path()).prop_map(|(at, to)| Act::Symlink(at, to)),
        3 => (at(), new()).prop_map(|(from, to)| Act::Link(from, to)),
        3 => at().prop_map(Act::Unlink),
        2 => at().prop_map(Act::Rmdir),
        8 => (at(), prop_oneof![at(), new()], over).prop_map(|(from, to, over)| Act::Rename(from, to, over)),
        2 => (at(), any_mode).prop_map(|(at, mode)| Act::Chmod(at, mode)),
        2 => (at(), 0u32..3, 0u32..3).prop_map(|(at, uid, gid)| Act::Chown(at, uid, gid)),
        2 => (at(), secs, 0u32..1_000_000_000).prop_map(|(at, s, n)| Act::Times(at, s, n)),
        3 => (at(), xattr.clone(), small, how).prop_map(|(at, x, b, h)| Act::SetXattr(at, x, b, h)),
        1 => (at(), xattr).prop_map(|(at, xattr)| Act::RemoveXattr(at, xattr)),
        2 => (file(), offset()).prop_map(|(at, len)| Act::TruncateAt(at, len)),
    ]
}

fn on_content() -> impl Strategy<Value = Act> {
    let slot = || 0..SLOTS;
    let how = prop::sample::select(vec![How::Read, How::Write, How::Write, How::Cut, How::Append]);
    let range = prop::sample::select(vec![
        Range::Reserve,
        Range::ReserveKeep,
        Range::Punch,
        Range::Punch,
        Range::Zero,
        Range::ZeroKeep,
        Range::Collapse,
    ]);
    let copy = (slot(), offset(), slot(), offset(), len());
    prop_oneof![
        8 => (slot(), file(), how).prop_map(|(slot, at, how)| Act::Open(slot, at, how)),
        2 => slot().prop_map(Act::Close),
        10 => (slot(), offset(), bytes()).prop_map(|(slot, at, bytes)| Act::Write(slot, at, bytes)),
        2 => (slot(), offset(), len()).prop_map(|(slot, at, len)| Act::Read(slot, at, len)),
        3 => (slot(), offset()).prop_map(|(slot, len)| Act::Truncate(slot, len)),
        5 => (slot(), range, offset(), len()).prop_map(|(s, r, at, l)| Act::Allocate(s, r, at, l)),
        5 => copy.prop_map(|(s, from, t, to, len)| Act::Copy(s, from, t, to, len)),
        2 => slot().prop_map(Act::Sync),
        1 => slot().prop_map(Act::Drop),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        40 => on_names(),
        40 => on_content(),
        1 => at().prop_map(Act::SyncDir),
        2 => Just(Act::Publish),
        1 => Just(Act::Remount),
        2 => Just(Act::Kill),
    ]
}

/// The files that are open.
pub(crate) type Files = [Option<File>; SLOTS];

/// Does to a directory what concerns it; what concerns the mount is left to
/// whoever calls.
pub(crate) fn perform(act: &Act, root: &Path, files: &mut Files) -> Result<Out, Errno> {
    let made = |mode: u32| Mode::from_raw_mode(mode);
    match act {
        Act::Create(at, mode) => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            open(at.below(root), flags, made(*mode)).map(drop)?;
        }
        Act::Mkdir(at) => mkdir(at.below(root), made(0o755))?,
        Act::Socket(at) => mknodat(CWD, at.below(root), FileType::Socket, made(0o644), 0)?,
        Act::Symlink(at, to) => symlink(to.target(), at.below(root))?,
        Act::Link(from, to) => {
            linkat(CWD, from.below(root), CWD, to.below(root), AtFlags::empty())?;
        }
        Act::Unlink(at) => unlink(at.below(root))?,
        Act::Rmdir(at) => rmdir(at.below(root))?,
        Act::Rename(from, to, over) => {
            let flags = match over {
                Over::Replace => RenameFlags::empty(),
                Over::Keep => RenameFlags::NOREPLACE,
                Over::Exchange => RenameFlags::EXCHANGE,
            };
            renameat_with(CWD, from.below(root), CWD, to.below(root), flags)?;
        }
        Act::Chmod(at, mode) => chmod(at.below(root), made(*mode))?,
        Act::Chown(at, uid, gid) => {
            let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
            chownat(CWD, at.below(root), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Act::Times(at, secs, nanos) => {
            let time = Timespec { tv_sec: *secs, tv_nsec: i64::from(*nanos) };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, at.below(root), &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Act::SetXattr(at, name, bytes, how) => {
            let flags = match how {
                Xattr::Set => XattrFlags::empty(),
                Xattr::Create => XattrFlags::CREATE,
                Xattr::Replace => XattrFlags::REPLACE,
            };
            lsetxattr(at.below(root), *name, &bytes.at(0), flags)?;
        }
        Act::RemoveXattr(at, name) => lremovexattr(at.below(root), *name)?,
        Act::TruncateAt(at, len) => truncate(&at.below(root), *len)?,
        Act::Open(slot, at, how) => files[*slot] = Some(open_as(&at.below(root), *how)?),
        Act::SyncDir(at) => {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::fsync(open(at.below(root), flags, Mode::empty())?)?;
        }
        Act::Copy(from, start, to, end, len) => {
            if let (Some(from), Some(to)) = (&files[*from], &files[*to]) {
                return copy(from, *start, to, *end, *len);
            }
        }
        Act::Close(slot) => files[*slot] = None,
        _ => return through(act, files),
    }
    Ok(Out::Done)
}

/// What is done through one open file.
fn through(act: &Act, files: &Files) -> Result<Out, Errno> {
    let slot = match act {
        Act::Write(slot, ..) | Act::Read(slot, ..) | Act::Truncate(slot, ..) => slot,
        Act::Allocate(slot, ..) | Act::Sync(slot) | Act::Drop(slot) => slot,
        _ => return Ok(Out::Done),
    };
    let Some(file) = &files[*slot] else { return Ok(Out::Done) };
    match act {
        Act::Write(_, offset, bytes) => {
            return Ok(Out::Count(pwrite(file, &bytes.at(*offset), (*offset).into())?));
        }
        Act::Read(_, offset, len) => {
            let mut bytes = vec![0; *len as usize];
            let count = pread(file, &mut bytes, (*offset).into())?;
            bytes.truncate(count);
            return Ok(Out::Bytes(bytes));
        }
        Act::Truncate(_, len) => ftruncate(file, (*len).into())?,
        Act::Allocate(_, range, offset, len) => {
            let keep = FallocateFlags::KEEP_SIZE;
            let flags = match range {
                Range::Reserve => FallocateFlags::empty(),
                Range::ReserveKeep => keep,
                Range::Punch => FallocateFlags::PUNCH_HOLE | keep,
                Range::Zero => FallocateFlags::ZERO_RANGE,
                Range::ZeroKeep => FallocateFlags::ZERO_RANGE | keep,
                Range::Collapse => FallocateFlags::COLLAPSE_RANGE,
            };
            fallocate(file, flags, (*offset).into(), (*len).into())?;
        }
        Act::Drop(_) => {
            rustix::fs::fsync(file)?;
            fadvise(file, 0, None, Advice::DontNeed)?;
        }
        _ => rustix::fs::fsync(file)?,
    }
    Ok(Out::Done)
}

/// truncate(2): an open without O_TRUNC and ftruncate are the same to FUSE.
fn truncate(path: &Path, len: u32) -> Result<(), Errno> {
    ftruncate(open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?, len.into())
}

fn open_as(path: &Path, how: How) -> Result<File, Errno> {
    let mut options = OpenOptions::new();
    options.read(true).write(how != How::Read).append(how == How::Append);
    options.truncate(how == How::Cut);
    let opened = options.open(path);
    let file = opened.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    // One that is open to be read is nothing to the other acts.
    match file.metadata() {
        Ok(meta) if meta.is_dir() => Err(Errno::ISDIR),
        Ok(_) => Ok(file),
        Err(_) => Err(Errno::IO),
    }
}

/// Copies until there is no more, as every program does.
fn copy(from: &File, start: u32, to: &File, end: u32, len: u32) -> Result<Out, Errno> {
    let (mut start, mut end) = (u64::from(start), u64::from(end));
    let (mut left, mut copied) = (len as usize, 0);
    while left > 0 {
        let count = copy_file_range(from, Some(&mut start), to, Some(&mut end), left)?;
        if count == 0 {
            break;
        }
        (left, copied) = (left - count, copied + count);
    }
    Ok(Out::Count(copied))
}

/// A look at an open file, by another way than its name.
pub(crate) fn content(file: &File) -> Result<(fs::Metadata, Vec<u8>), std::io::Error> {
    let meta = file.metadata()?;
    let mut bytes = vec![0; meta.len() as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0)?;
    Ok((meta, bytes))
}

/// Whether a handle may do it.
pub(crate) fn writes(handle: &Handle) -> bool {
    handle.how != How::Read
}

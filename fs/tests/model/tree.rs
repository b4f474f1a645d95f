//! The reference: what POSIX says of a tree of files, and of the files that
//! are open, without a disk and without a kernel.

use super::act::{Act, At, Bytes, Over, Range, Xattr, writes};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Files that may be open at a time.
pub(crate) const SLOTS: usize = 3;
const ROOT: Ino = 0;
const MAX_NAME: usize = 255;
/// Links that the kernel follows in one path.
const MAX_JUMPS: u32 = 40;
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const GROUP_RUNS: u32 = 0o010;

pub(crate) type Ino = u32;
pub(crate) type Content = Rc<Vec<u8>>;

#[derive(Debug, Clone)]
pub(crate) enum Body {
    File(Content),
    Directory(BTreeMap<String, Ino>),
    Symlink(String),
    Socket,
}

/// A time as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// A program set it.
    Set(i64, u32),
    /// Of a change; by then it was so late already (since 1970).
    Since(Duration),
    Unknown,
}

#[derive(Debug, Clone)]
pub(crate) struct Inode {
    pub(crate) body: Body,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: Clock,
    /// If a program set it: nothing else does.
    pub(crate) atime: Option<(i64, u32)>,
    /// Not before.
    pub(crate) ctime: Duration,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    pub(crate) links: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Read,
    Write,
    /// O_TRUNC.
    Cut,
    /// O_APPEND.
    Append,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Handle {
    pub(crate) ino: Ino,
    pub(crate) how: How,
}

/// What an act gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Out {
    Done,
    Count(usize),
    Bytes(Vec<u8>),
}

type Result<T> = std::result::Result<T, Errno>;

/// All that there is, at one time.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) inodes: BTreeMap<Ino, Inode>,
    pub(crate) handles: [Option<Handle>; SLOTS],
    next: Ino,
    /// What the clock says.
    pub(crate) now: Duration,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Inode {
            body: Body::Directory(BTreeMap::new()),
            mode: 0o755,
            owner: (0, 0),
            mtime: Clock::Unknown,
            atime: None,
            ctime: Duration::ZERO,
            xattrs: BTreeMap::new(),
            links: 1,
        };
        let inodes = BTreeMap::from([(ROOT, root)]);
        Self { inodes, handles: [None; SLOTS], next: ROOT + 1, now: Duration::ZERO }
    }

    pub(crate) fn get(&self, ino: Ino) -> &Inode {
        &self.inodes[&ino]
    }

    fn get_mut(&mut self, ino: Ino) -> &mut Inode {
        self.inodes.get_mut(&ino).expect("an inode that a name or a handle leads to")
    }

    fn names(&self, directory: Ino) -> Result<&BTreeMap<String, Ino>> {
        match &self.get(directory).body {
            Body::Directory(names) => Ok(names),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// The paths to all that is `wanted`, without the root.
    pub(crate) fn paths(&self, wanted: impl Fn(&Body) -> bool) -> Vec<Vec<String>> {
        let (mut found, mut left) = (Vec::new(), vec![(ROOT, Vec::new())]);
        while let Some((ino, path)) = left.pop() {
            for (name, ino) in self.names(ino).into_iter().flatten() {
                let path = [path.as_slice(), std::slice::from_ref(name)].concat();
                found.extend(wanted(&self.get(*ino).body).then(|| path.clone()));
                left.push((*ino, path));
            }
        }
        found
    }

    fn is_directory(&self, ino: Ino) -> bool {
        self.names(ino).is_ok()
    }

    fn names_mut(&mut self, directory: Ino) -> &mut BTreeMap<String, Ino> {
        match &mut self.get_mut(directory).body {
            Body::Directory(names) => names,
            _ => unreachable!("it was resolved as a directory"),
        }
    }

    /// A name of a directory; `None` if it is free.
    fn look(&self, directory: Ino, name: &str) -> Result<Option<Ino>> {
        let names = self.names(directory)?;
        if name.len() > MAX_NAME {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(names.get(name).copied())
    }

    fn find(&self, directory: Ino, name: &str) -> Result<Ino> {
        self.look(directory, name)?.ok_or(Errno::NOENT)
    }

    fn walk(&self, from: Ino, names: &[String], follow: bool, jumps: &mut u32) -> Result<Ino> {
        let mut at = from;
        for (n, name) in names.iter().enumerate() {
            let found = self.find(at, name)?;
            at = match &self.get(found).body {
                Body::Symlink(target) if follow || n + 1 < names.len() => {
                    if *jumps == MAX_JUMPS {
                        return Err(Errno::LOOP);
                    }
                    *jumps += 1;
                    let target: Vec<String> = target.split('/').map(str::to_owned).collect();
                    self.walk(at, &target, true, jumps)?
                }
                _ => found,
            };
        }
        Ok(at)
    }

    fn resolve(&self, at: &At, follow: bool) -> Result<Ino> {
        self.walk(ROOT, &at.names(), follow, &mut 0)
    }

    /// The directory of a path, and the name in it.
    fn parent(&self, at: &At) -> Result<(Ino, String)> {
        let mut names = at.names();
        let last = names.pop().expect("a path has a name");
        let parent = self.walk(ROOT, &names, true, &mut 0)?;
        self.names(parent)?;
        Ok((parent, last))
    }

    /// A path that is free.
    fn place(&self, at: &At) -> Result<(Ino, String)> {
        let (parent, name) = self.parent(at)?;
        match self.look(parent, &name)? {
            Some(_) => Err(Errno::EXIST),
            None => Ok((parent, name)),
        }
    }

    fn touch(&mut self, ino: Ino) {
        let now = self.now;
        self.get_mut(ino).ctime = now;
    }

    /// Its content was changed.
    fn stamp(&mut self, ino: Ino) {
        self.get_mut(ino).mtime = Clock::Since(self.now);
        self.touch(ino);
    }

    fn make(&mut self, at: &At, body: Body, mode: u32) -> Result<Out> {
        let (parent, name) = self.place(at)?;
        let (is_directory, over) = (matches!(body, Body::Directory(_)), self.get(parent));
        let inherits = over.mode & SETGID != 0;
        let gid = if inherits { over.owner.1 } else { 0 };
        let mode = if inherits && is_directory { mode | SETGID } else { mode };
        let (mtime, ctime) = (Clock::Since(self.now), self.now);
        let (owner, xattrs) = ((0, gid), BTreeMap::new());
        let new = Inode { body, mode, owner, mtime, atime: None, ctime, xattrs, links: 1 };
        self.inodes.insert(self.next, new);
        let ino = self.next;
        self.names_mut(parent).insert(name, ino);
        self.next += 1;
        self.stamp(parent);
        Ok(Out::Done)
    }

    /// A name less.
    fn unlink(&mut self, ino: Ino) {
        self.get_mut(ino).links -= 1;
        self.touch(ino);
        self.drop_unused(ino);
    }

    fn drop_unused(&mut self, ino: Ino) {
        let is_open = self.handles.iter().flatten().any(|handle| handle.ino == ino);
        if self.get(ino).links == 0 && !is_open {
            self.inodes.remove(&ino);
        }
    }

    fn remove(&mut self, at: &At, directory: bool) -> Result<Out> {
        let (parent, name) = self.parent(at)?;
        let ino = self.find(parent, &name)?;
        match (&self.get(ino).body, directory) {
            (Body::Directory(names), true) if !names.is_empty() => return Err(Errno::NOTEMPTY),
            (Body::Directory(_), false) => return Err(Errno::ISDIR),
            (Body::Directory(_), true) | (_, false) => {}
            (_, true) => return Err(Errno::NOTDIR),
        }
        self.names_mut(parent).remove(&name);
        self.stamp(parent);
        self.unlink(ino);
        Ok(Out::Done)
    }

    fn link(&mut self, from: &At, to: &At) -> Result<Out> {
        let ino = self.resolve(from, false)?;
        let (parent, name) = self.place(to)?;
        if self.is_directory(ino) {
            return Err(Errno::PERM);
        }
        self.names_mut(parent).insert(name, ino);
        self.get_mut(ino).links += 1;
        self.touch(ino);
        self.stamp(parent);
        Ok(Out::Done)
    }

    /// Whether one is in the other, however deep, or is it.
    fn is_below(&self, ino: Ino, top: Ino) -> bool {
        let below = |names: &BTreeMap<String, Ino>| names.values().any(|n| self.is_below(ino, *n));
        ino == top || self.names(top).is_ok_and(below)
    }

    fn rename(&mut self, from: &At, to: &At, over: Over) -> Result<Out> {
        let (old_parent, old_name) = self.parent(from)?;
        let (new_parent, new_name) = self.parent(to)?;
        let moved = self.find(old_parent, &old_name)?;
        let there = self.look(new_parent, &new_name)?;
        match (over, there) {
            (Over::Keep, Some(_)) => return Err(Errno::EXIST),
            (Over::Exchange, None) => return Err(Errno::NOENT),
            _ => {}
        }
        if self.is_below(new_parent, moved) {
            return Err(Errno::INVAL);
        }
        if let Some(there) = there {
            if self.is_below(old_parent, there) {
                let swaps = over == Over::Exchange;
                return Err(if swaps { Errno::INVAL } else { Errno::NOTEMPTY });
            }
            if moved == there {
                return Ok(Out::Done);
            }
            if over != Over::Exchange {
                match (self.is_directory(moved), self.names(there)) {
                    (true, Err(_)) => return Err(Errno::NOTDIR),
                    (false, Ok(_)) => return Err(Errno::ISDIR),
                    (true, Ok(names)) if !names.is_empty() => return Err(Errno::NOTEMPTY),
                    _ => {}
                }
            }
        }
        self.names_mut(old_parent).remove(&old_name);
        self.names_mut(new_parent).insert(new_name, moved);
        self.stamp(old_parent);
        self.stamp(new_parent);
        self.touch(moved);
        match there {
            Some(there) if over == Over::Exchange => {
                self.names_mut(old_parent).insert(old_name, there);
                self.touch(there);
            }
            Some(there) => self.unlink(there),
            None => {}
        }
        Ok(Out::Done)
    }

    fn chown(&mut self, at: &At, uid: u32, gid: u32) -> Result<Out> {
        let ino = self.resolve(at, false)?;
        let is_directory = self.is_directory(ino);
        let inode = self.get_mut(ino);
        inode.owner = (uid, gid);
        if !is_directory {
            inode.mode &= !SETUID;
            if inode.mode & GROUP_RUNS != 0 {
                inode.mode &= !SETGID;
            }
        }
        self.touch(ino);
        Ok(Out::Done)
    }

    /// Attributes of users are for files and directories.
    fn xattrs(&mut self, at: &At, name: &str) -> Result<&mut Inode> {
        let ino = self.resolve(at, false)?;
        let users = matches!(self.get(ino).body, Body::File(_) | Body::Directory(_));
        if name.starts_with("user.") && !users {
            return Err(Errno::PERM);
        }
        Ok(self.get_mut(ino))
    }

    fn set_xattr(&mut self, at: &At, name: &str, bytes: Bytes, how: Xattr) -> Result<Out> {
        let now = self.now;
        let inode = self.xattrs(at, name)?;
        match (how, inode.xattrs.contains_key(name)) {
            (Xattr::Create, true) => return Err(Errno::EXIST),
            (Xattr::Replace, false) => return Err(Errno::NODATA),
            _ => {}
        }
        inode.xattrs.insert(name.into(), bytes.at(0));
        inode.ctime = now;
        Ok(Out::Done)
    }

    fn remove_xattr(&mut self, at: &At, name: &str) -> Result<Out> {
        let now = self.now;
        let inode = self.xattrs(at, name)?;
        inode.xattrs.remove(name).ok_or(Errno::NODATA)?;
        inode.ctime = now;
        Ok(Out::Done)
    }

    pub(crate) fn content(&self, ino: Ino) -> &Content {
        match &self.get(ino).body {
            Body::File(content) => content,
            _ => unreachable!("only files are open"),
        }
    }

    /// The content of a file, if it is there at all.
    pub(crate) fn had(&self, ino: Ino) -> Option<Content> {
        self.inodes.contains_key(&ino).then(|| Rc::clone(self.content(ino)))
    }

    fn content_mut(&mut self, ino: Ino) -> &mut Vec<u8> {
        match &mut self.get_mut(ino).body {
            Body::File(content) => Rc::make_mut(content),
            _ => unreachable!("only files are open"),
        }
    }

    /// A file by its name, to be opened.
    fn file(&self, at: &At) -> Result<Ino> {
        let ino = self.resolve(at, true)?;
        match self.get(ino).body {
            Body::File(_) => Ok(ino),
            Body::Directory(_) => Err(Errno::ISDIR),
            _ => Err(Errno::NXIO),
        }
    }

    fn truncate(&mut self, ino: Ino, len: u32) {
        let len = len as usize;
        let same = self.content(ino).len() == len;
        self.content_mut(ino).resize(len, 0);
        self.stamp(ino);
        if same {
            // Some say that this is a change, and some that it is none.
            self.get_mut(ino).mtime = Clock::Unknown;
        }
    }

    fn write(&mut self, handle: Handle, offset: u32, bytes: Bytes) -> Result<Out> {
        if !writes(&handle) {
            return Err(Errno::BADF);
        }
        let (bytes, content) = (bytes.at(offset), self.content_mut(handle.ino));
        if !bytes.is_empty() {
            let at = if handle.how == How::Append { content.len() } else { offset as usize };
            put(content, at, &bytes);
            self.stamp(handle.ino);
        }
        Ok(Out::Count(bytes.len()))
    }

    fn allocate(&mut self, handle: Handle, range: Range, offset: u32, len: u32) -> Result<Out> {
        if len == 0 {
            return Err(Errno::INVAL);
        }
        if !writes(&handle) {
            return Err(Errno::BADF);
        }
        let (start, end) = (offset as usize, (offset + len) as usize);
        if range == Range::Collapse {
            return Err(Errno::OPNOTSUPP);
        }
        let content = self.content_mut(handle.ino);
        if matches!(range, Range::Reserve | Range::Zero) && content.len() < end {
            content.resize(end, 0);
        }
        if matches!(range, Range::Punch | Range::Zero | Range::ZeroKeep) {
            let len = content.len();
            content[start.min(len)..end.min(len)].fill(0);
        }
        self.stamp(handle.ino);
        self.get_mut(handle.ino).mtime = Clock::Unknown;
        Ok(Out::Done)
    }

    /// Copies until there is no more: within a file, that may grow meanwhile.
    fn copy(&mut self, from: Handle, start: u32, to: Handle, end: u32, len: u32) -> Result<Out> {
        let (mut start, mut end) = (start as usize, end as usize);
        let (mut left, mut copied) = (len as usize, 0);
        while left > 0 {
            if to.how == How::Append || !writes(&to) {
                return Err(Errno::BADF);
            }
            let source = Rc::clone(self.content(from.ino));
            let len = left.min(source.len().saturating_sub(start));
            if from.ino == to.ino && end + len > start && end < start + len {
                return Err(Errno::INVAL);
            }
            if len == 0 {
                break;
            }
            put(self.content_mut(to.ino), end, &source[start..start + len]);
            self.stamp(to.ino);
            (start, end) = (start + len, end + len);
            (left, copied) = (left - len, copied + len);
        }
        Ok(Out::Count(copied))
    }

    fn open(&mut self, slot: usize, at: &At, how: How) -> Result<Out> {
        let ino = self.file(at)?;
        if how == How::Cut {
            self.truncate(ino, 0);
        }
        self.close(slot);
        self.handles[slot] = Some(Handle { ino, how });
        Ok(Out::Done)
    }

    fn close(&mut self, slot: usize) {
        if let Some(handle) = self.handles[slot].take() {
            self.drop_unused(handle.ino);
        }
    }

    /// This is what it is after a crash, whatever was done to it.
    pub(crate) fn settle(&mut self, ino: Ino, content: Vec<u8>) {
        *self.content_mut(ino) = content;
        self.get_mut(ino).mtime = Clock::Unknown;
    }

    /// All open files are closed.
    pub(crate) fn close_all(&mut self) {
        (0..SLOTS).for_each(|slot| self.close(slot));
    }

    /// Does it; what is refused has changed nothing.
    pub(crate) fn act(&mut self, act: &Act) -> Result<Out> {
        match act {
            Act::Create(at, mode) => self.make(at, Body::File(Rc::default()), *mode),
            Act::Mkdir(at) => self.make(at, Body::Directory(BTreeMap::new()), 0o755),
            Act::Socket(at) => self.make(at, Body::Socket, 0o644),
            Act::Symlink(at, to) => self.make(at, Body::Symlink(to.target()), 0o777),
            Act::Link(from, to) => self.link(from, to),
            Act::Unlink(at) => self.remove(at, false),
            Act::Rmdir(at) => self.remove(at, true),
            Act::Rename(from, to, over) => self.rename(from, to, *over),
            Act::Chmod(at, mode) => {
                let ino = self.resolve(at, true)?;
                self.get_mut(ino).mode = *mode;
                self.touch(ino);
                Ok(Out::Done)
            }
            Act::Chown(at, uid, gid) => self.chown(at, *uid, *gid),
            Act::Times(at, secs, nanos) => {
                let ino = self.resolve(at, false)?;
                let inode = self.get_mut(ino);
                (inode.mtime, inode.atime) = (Clock::Set(*secs, *nanos), Some((*secs, *nanos)));
                self.touch(ino);
                Ok(Out::Done)
            }
            Act::SetXattr(at, name, bytes, how) => self.set_xattr(at, name, *bytes, *how),
            Act::RemoveXattr(at, name) => self.remove_xattr(at, name),
            Act::TruncateAt(at, len) => {
                let ino = self.file(at)?;
                self.truncate(ino, *len);
                Ok(Out::Done)
            }
            Act::Open(slot, at, how) => self.open(*slot, at, *how),
            Act::SyncDir(at) => {
                let ino = self.resolve(at, true)?;
                self.names(ino).map(|_| Out::Done)
            }
            Act::Close(slot) => {
                self.close(*slot);
                Ok(Out::Done)
            }
            _ => self.act_on_content(act),
        }
    }

    /// What is done through open files; nothing, where none is.
    fn act_on_content(&mut self, act: &Act) -> Result<Out> {
        let handle = |slot: &usize| self.handles[*slot];
        match act {
            Act::Write(slot, offset, bytes) => {
                let Some(handle) = handle(slot) else { return Ok(Out::Done) };
                self.write(handle, *offset, *bytes)
            }
            Act::Read(slot, offset, len) => {
                let Some(handle) = handle(slot) else { return Ok(Out::Done) };
                let content = self.content(handle.ino);
                let part = |at: u32| (at as usize).min(content.len());
                Ok(Out::Bytes(content[part(*offset)..part(offset + len)].to_vec()))
            }
            Act::Truncate(slot, len) => {
                let Some(handle) = handle(slot) else { return Ok(Out::Done) };
                if !writes(&handle) {
                    return Err(Errno::INVAL);
                }
                self.truncate(handle.ino, *len);
                Ok(Out::Done)
            }
            Act::Allocate(slot, range, offset, len) => {
                let Some(handle) = handle(slot) else { return Ok(Out::Done) };
                self.allocate(handle, *range, *offset, *len)
            }
            Act::Copy(from, start, to, end, len) => match (handle(from), handle(to)) {
                (Some(from), Some(to)) => self.copy(from, *start, to, *end, *len),
                _ => Ok(Out::Done),
            },
            _ => Ok(Out::Done),
        }
    }
}

/// Writes bytes, behind a hole if they are far away.
fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    content.resize(content.len().max(at + bytes.len()), 0);
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

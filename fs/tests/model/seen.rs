//! What a mount shows, and whether that is what the reference has.

use super::act::content;
use super::tree::{Body, Clock, Content, Ino, Inode, Tree};
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// The kernel's clock for times is that much behind, and more.
const COARSE: Duration = Duration::from_millis(50);

/// Files whose content need not be the one that they have in the end, because
/// the kernel may hold some of it: every content that they had.
pub(crate) type Loose = BTreeMap<Ino, Vec<Content>>;

/// One thing that a mount shows, with all that is below.
pub(crate) struct Seen {
    meta: Metadata,
    xattrs: BTreeMap<String, Vec<u8>>,
    body: SeenBody,
}

enum SeenBody {
    File(Vec<u8>),
    Directory(BTreeMap<String, Seen>),
    Symlink(String),
    Socket,
    Other,
}

impl Seen {
    /// Looks at everything.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        let kind = meta.file_type();
        let body = if kind.is_dir() {
            let mut names = BTreeMap::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if names.insert(name.clone(), Self::at(&entry.path())?).is_some() {
                    return Err(io::Error::other(format!("{name:?} is listed twice")));
                }
            }
            SeenBody::Directory(names)
        } else if kind.is_file() {
            SeenBody::File(content(&File::open(path)?)?.1)
        } else if kind.is_symlink() {
            let target = fs::read_link(path)?;
            SeenBody::Symlink(String::from_utf8_lossy(target.as_os_str().as_bytes()).into())
        } else if kind.is_socket() {
            SeenBody::Socket
        } else {
            SeenBody::Other
        };
        Ok(Self { meta, xattrs: xattrs(path)?, body })
    }
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut list = vec![0; 1000];
    let len = rustix::fs::llistxattr(path, &mut list)?;
    let mut found = BTreeMap::new();
    for name in list[..len].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 10_000];
        let len = rustix::fs::lgetxattr(path, name, &mut value)?;
        value.truncate(len);
        found.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    Ok(found)
}

/// A comparison under way: which number stands for which inode.
struct Comparing<'a> {
    tree: &'a Tree,
    loose: &'a Loose,
    numbers: BTreeMap<u64, Ino>,
    inodes: BTreeMap<Ino, u64>,
}

type Same = Result<(), String>;

fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, want: T) -> Same {
    if seen == want { Ok(()) } else { Err(format!(": {what} {seen:?} instead of {want:?}")) }
}

/// Whether a mount shows what the reference has.
pub(crate) fn compare(tree: &Tree, seen: &Seen, loose: &Loose) -> Same {
    let (numbers, inodes) = Default::default();
    let mut comparing = Comparing { tree, loose, numbers, inodes };
    let root = tree.inodes.keys().next().expect("the root");
    comparing.one(*root, seen).map_err(|e| format!("/{e}"))
}

impl Comparing<'_> {
    fn one(&mut self, ino: Ino, seen: &Seen) -> Same {
        let inode = self.tree.get(ino);
        // All names of an inode have its number, and no other has it.
        let number = seen.meta.ino();
        same("the inode of its number is", *self.numbers.entry(number).or_insert(ino), ino)?;
        same("its number is", *self.inodes.entry(ino).or_insert(number), number)?;
        let loose = self.loose.get(&ino);
        attributes(inode, self.links(inode), &seen.meta, loose.is_some())?;
        let lens = |of: &BTreeMap<String, Vec<u8>>| -> Vec<(String, usize)> {
            of.iter().map(|(name, value)| (name.clone(), value.len())).collect()
        };
        same("lengths of xattrs are", lens(&seen.xattrs), lens(&inode.xattrs))?;
        if seen.xattrs != inode.xattrs {
            return Err(": values of xattrs are others".into());
        }
        match (&inode.body, &seen.body) {
            (Body::File(_), SeenBody::File(seen)) if loose.is_some() => {
                had_once(seen, loose.map_or(&[], Vec::as_slice))
            }
            (Body::File(want), SeenBody::File(seen)) => same_content(seen, want),
            (Body::Directory(want), SeenBody::Directory(seen)) => {
                let names: Vec<_> = want.keys().collect();
                same("names are", seen.keys().collect(), names)?;
                let mut pairs = want.iter().zip(seen.values());
                pairs.try_for_each(|((name, ino), seen)| {
                    self.one(*ino, seen).map_err(|e| format!("{name:.9}/{e}"))
                })
            }
            (Body::Symlink(want), SeenBody::Symlink(seen)) => same("target is", seen, want),
            (Body::Socket, SeenBody::Socket) => Ok(()),
            _ => Err(": it is of another kind".into()),
        }
    }

    fn links(&self, inode: &Inode) -> u32 {
        match &inode.body {
            Body::Directory(names) => {
                let is_directory =
                    |ino: &&Ino| matches!(self.tree.get(**ino).body, Body::Directory(_));
                2 + names.values().filter(is_directory).count() as u32
            }
            _ => inode.links,
        }
    }
}

/// Sizes and times of what the kernel writes to are its own.
fn attributes(inode: &Inode, links: u32, seen: &Metadata, loose: bool) -> Same {
    same("permissions are", Octal(seen.mode() & 0o7777), Octal(inode.mode))?;
    same("owners are", (seen.uid(), seen.gid()), inode.owner)?;
    same("links are", seen.nlink(), u64::from(links))?;
    if let Some(atime) = inode.atime {
        same("atime is", (seen.atime(), seen.atime_nsec() as u32), atime)?;
    }
    let ctime = Duration::new(seen.ctime().unsigned_abs(), seen.ctime_nsec() as u32);
    if ctime + COARSE < inode.ctime {
        return Err(format!(": ctime {ctime:?} is of before {:?}", inode.ctime));
    }
    match inode.mtime {
        _ if loose => Ok(()),
        Clock::Set(secs, nanos) => {
            same("mtime is", (seen.mtime(), seen.mtime_nsec() as u32), (secs, nanos))
        }
        Clock::Since(since) => {
            let mtime = Duration::new(seen.mtime().max(0).unsigned_abs(), seen.mtime_nsec() as u32);
            // One that a program set is years away.
            let near = mtime + COARSE >= since && mtime < since + Duration::from_secs(3600);
            if near { Ok(()) } else { Err(format!(": mtime {mtime:?} is not of {since:?}")) }
        }
        Clock::Unknown => Ok(()),
    }
}

#[derive(PartialEq, Eq)]
struct Octal(u32);

impl std::fmt::Debug for Octal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:o}", self.0)
    }
}

fn same_content(seen: &[u8], want: &[u8]) -> Same {
    same("size is", seen.len(), want.len())?;
    match seen.iter().zip(want).position(|(seen, want)| seen != want) {
        Some(at) => Err(format!(": byte {at} is {} instead of {}", seen[at], want[at])),
        None => Ok(()),
    }
}

/// Whether each byte is one that was there at some time; what was behind the
/// end reads as zero once the end is further.
fn had_once(seen: &[u8], had: &[Content]) -> Same {
    let longest = had.iter().map(|content| content.len()).max().unwrap_or(0);
    if seen.len() > longest {
        return Err(format!(": size is {}, and never was over {longest}", seen.len()));
    }
    let was =
        |at: usize, byte: u8| byte == 0 || had.iter().any(|content| content.get(at) == Some(&byte));
    match seen.iter().enumerate().find(|(at, byte)| !was(*at, **byte)) {
        Some((at, byte)) => Err(format!(": byte {at} is {byte}, and never was")),
        None => Ok(()),
    }
}

/// The same for what an open file shows, whether it has a name or not.
pub(crate) fn compare_open(tree: &Tree, ino: Ino, file: &File) -> Same {
    let (meta, bytes) = content(file).map_err(|e| e.to_string())?;
    let inode = tree.get(ino);
    attributes(inode, inode.links, &meta, false)?;
    same_content(&bytes, tree.content(ino))
}

/// Takes over the content that a mount shows for what need not have another.
pub(crate) fn adopt(tree: &mut Tree, seen: &Seen, loose: &Loose) {
    let root = *tree.inodes.keys().next().expect("the root");
    adopt_below(tree, root, seen, loose);
}

fn adopt_below(tree: &mut Tree, ino: Ino, seen: &Seen, loose: &Loose) {
    match (tree.get(ino).body.clone(), &seen.body) {
        (Body::Directory(names), SeenBody::Directory(seen)) => {
            for (name, ino) in names {
                adopt_below(tree, ino, &seen[&name], loose);
            }
        }
        (Body::File(_), SeenBody::File(seen)) if loose.contains_key(&ino) => {
            tree.settle(ino, seen.clone());
        }
        _ => {}
    }
}

//! The first pass over a tree on the host: what there is, in which order.
//!
//! Neighbours: `create` reads the files in the order found here. Promises:
//! the order depends on names only (breadth first, names bytewise), so equal
//! trees give equal archives; the list stays small (names are kept packed),
//! whatever the count of files. Never: follows a symbolic link below the
//! paths that the user named. Tested by the unit tests below and by
//! `tests/tests/archive.rs`.
//!
//! Breadth first, because a directory's records name its children's ids and
//! come before the children's own records: numbered this way, the tree can be
//! written front to back in one pass.

use crate::error::{FlowError, Result};
use crate::progress::{Problem, Progress};
use rustix::fs::{self, AtFlags, Mode, OFlags, Stat};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use warp_format::limits::MAX_NAME_LEN;
use warp_format::record::FileType;

/// What to gather.
#[derive(Debug, Default)]
pub struct Selection {
    /// Directory that relative paths start from (`-C`); empty = the current one.
    pub base: PathBuf,
    /// Files and directories.
    pub paths: Vec<PathBuf>,
    /// What to leave out: matched against the name, or against the whole
    /// stored path if the pattern holds a `/`.
    pub excludes: Vec<glob::Pattern>,
    /// Device and inode numbers to leave out: the archive itself.
    pub skip: HashSet<(u64, u64)>,
}

/// One name in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Index of the directory that it is in.
    pub(crate) parent: u32,
    /// Ordinal of its inode: its own, or an earlier one's for a further name
    /// of the same inode.
    pub(crate) ordinal: u64,
    /// True for a further name of an inode that was listed before.
    pub(crate) repeated: bool,
    pub(crate) file_type: FileType,
    pub(crate) name: Vec<u8>,
}

/// A directory: where it hangs and which inode it is.
#[derive(Debug)]
pub(crate) struct Dir {
    parent: u32,
    name: Box<[u8]>,
    pub(crate) ordinal: u64,
    /// Where it is on the host, if not under its parent.
    path: Option<PathBuf>,
}

/// An inode with several names.
#[derive(Debug)]
pub(crate) struct Links {
    /// Device and number: what is opened later must still be this one.
    pub(crate) identity: (u64, u64),
    /// Directory and name of each.
    pub(crate) names: Vec<(u32, Vec<u8>)>,
}

/// The result of the first pass.
pub(crate) struct Gathered {
    blocks: Vec<(Vec<u8>, usize)>,
    tail: Vec<u8>,
    pub(crate) dirs: Vec<Dir>,
    /// Inodes that have several names here.
    pub(crate) links: HashMap<u64, Links>,
    /// Host paths of entries that do not lie under their parent's.
    overrides: HashMap<(u32, Vec<u8>), PathBuf>,
    /// True if the root stands for no directory on the host.
    pub(crate) virtual_root: bool,
    pub(crate) inodes: u64,
    pub(crate) names: u64,
    pub(crate) bytes: u64,
    pub(crate) problems: Vec<Problem>,
}

/// Bytes of the entry list after which a block is packed away.
const BLOCK_LEN: usize = 64 << 10;

/// What the user's paths make of the top of the tree.
#[derive(Debug, Default)]
struct Plan {
    children: BTreeMap<Vec<u8>, Self>,
    path: Option<PathBuf>,
    /// Take everything below, not only `children`.
    whole: bool,
}

impl Plan {
    fn of(selection: &Selection) -> Result<Self> {
        let base = if selection.base.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            selection.base.clone()
        };
        let mut root = Self::default();
        for path in &selection.paths {
            let bad = |why| FlowError::BadPath { path: path.clone(), why };
            let mut host = if path.is_absolute() { PathBuf::from("/") } else { base.clone() };
            let mut parts: Vec<(Vec<u8>, PathBuf)> = Vec::new();
            for component in path.components() {
                match component {
                    Component::Normal(name) => {
                        host.push(name);
                        parts.push((name.as_bytes().to_vec(), host.clone()));
                    }
                    Component::ParentDir => {
                        return Err(bad("a path with `..` has no name in the archive; use -C DIR"));
                    }
                    Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                }
            }
            if path.is_absolute() {
                let last = parts.pop().ok_or_else(|| bad("the root directory needs `-C / .`"))?;
                parts = vec![last];
            }
            let mut node = &mut root;
            if parts.is_empty() {
                node.path = Some(base.clone());
            }
            for (name, host) in parts {
                node = node.children.entry(name).or_default();
                if node.path.as_ref().is_some_and(|known| *known != host) {
                    return Err(bad("another path would have the same name in the archive"));
                }
                node.path = Some(host);
            }
            node.whole = true;
        }
        Ok(root)
    }
}

/// Lists everything that `selection` names.
pub(crate) fn gather(selection: &Selection, progress: &Progress) -> Result<Gathered> {
    let plan = Plan::of(selection)?;
    check_sources(&plan)?;
    let root = Dir { parent: 0, name: Box::default(), ordinal: 0, path: plan.path.clone() };
    let mut all = Gathered {
        blocks: Vec::new(),
        tail: Vec::new(),
        dirs: vec![root],
        links: HashMap::new(),
        overrides: HashMap::new(),
        virtual_root: plan.path.is_none(),
        inodes: 1,
        names: 0,
        bytes: 0,
        problems: Vec::new(),
    };
    let mut plans: HashMap<u32, Plan> = HashMap::from([(0, plan)]);
    let mut seen: HashMap<(u64, u64), u64> = HashMap::new();
    let mut at = 0;
    while at < all.dirs.len() {
        progress.check()?;
        let index = u32::try_from(at).expect("fewer than 2^32 directories fit in memory");
        match plans.remove(&index) {
            Some(plan) if !plan.whole => {
                list_planned(&mut all, index, plan, selection, &mut plans, &mut seen)
            }
            _ => list_whole(&mut all, index, selection, &mut seen),
        }
        at += 1;
    }
    // What has one name only (its other names are outside) needs no list.
    all.links.retain(|_, links| links.names.len() > 1);
    progress.set_total(all.bytes);
    Ok(all)
}

/// A path that the user typed and that is not there is an error of its own,
/// before any work.
fn check_sources(plan: &Plan) -> Result<()> {
    if plan.whole
        && let Some(path) = &plan.path
    {
        fs::lstat(path).map_err(|e| FlowError::io(path, e))?;
    }
    plan.children.values().try_for_each(check_sources)
}

type Seen = HashMap<(u64, u64), u64>;

fn list_planned(
    all: &mut Gathered,
    index: u32,
    plan: Plan,
    selection: &Selection,
    plans: &mut HashMap<u32, Plan>,
    seen: &mut Seen,
) {
    for (name, child) in plan.children {
        let Some(path) = child.path.clone() else { continue };
        // A directory on the way to what was named may be a link, and is
        // followed, as `tar` follows it; what was named itself is not.
        let stat = if child.whole { fs::lstat(&path) } else { fs::stat(&path) };
        match stat {
            Ok(stat) => {
                all.overrides.insert((index, name.clone()), path.clone());
                if let Some(dir) = all.add(index, &name, &stat, Some(path), selection, seen) {
                    plans.insert(dir, child);
                }
            }
            Err(e) => {
                let below = all.tree_path(index, &name);
                all.problem_at(below, &path, e);
            }
        }
    }
}

fn list_whole(all: &mut Gathered, index: u32, selection: &Selection, seen: &mut Seen) {
    let path = all.host_path(index);
    let Dir { parent, name, .. } = &all.dirs[index as usize];
    let here = all.tree_path(*parent, name);
    let fd = match open_dir(&path) {
        Ok(fd) => fd,
        Err(e) => return all.problem_at(here, &path, e),
    };
    let names = match read_names(&fd) {
        Ok(names) => names,
        Err(e) => return all.problem_at(here, &path, e),
    };
    for name in names {
        match fs::statat(&fd, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                all.add(index, &name, &stat, None, selection, seen);
            }
            // It was there a moment ago: a file that comes and goes.
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => {
                let below = all.tree_path(index, &name);
                all.problem_at(below, &path.join(OsStr::from_bytes(&name)), e);
            }
        }
    }
}

fn read_names(fd: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a directory by a path of any length (the kernel takes 4,095 bytes at
/// once).
pub(crate) fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if path.as_os_str().len() < 4000 {
        return fs::open(path, flags, Mode::empty());
    }
    let mut components = path.components();
    let first = components.next().map_or(OsStr::new("."), Component::as_os_str);
    let mut fd = fs::open(first, flags, Mode::empty())?;
    for component in components {
        fd = fs::openat(&fd, component.as_os_str(), flags, Mode::empty())?;
    }
    Ok(fd)
}

impl Gathered {
    /// Adds a name; gives the index of the directory if it is one.
    fn add(
        &mut self,
        parent: u32,
        name: &[u8],
        stat: &Stat,
        path: Option<PathBuf>,
        selection: &Selection,
        seen: &mut Seen,
    ) -> Option<u32> {
        let identity = (stat.st_dev, stat.st_ino);
        if selection.skip.contains(&identity) || self.is_excluded(parent, name, selection) {
            return None;
        }
        if name.len() > MAX_NAME_LEN {
            let host = path.unwrap_or_else(|| self.host_path(parent).join(OsStr::from_bytes(name)));
            let below = self.tree_path(parent, name);
            self.problem_at(below, &host, rustix::io::Errno::NAMETOOLONG);
            return None;
        }
        let Ok(file_type) = FileType::from_bits(((stat.st_mode >> 12) & 15) as u8) else {
            return None;
        };
        let is_dir = file_type == FileType::Directory;
        let known = if is_dir || stat.st_nlink < 2 { None } else { seen.get(&identity).copied() };
        let ordinal = known.unwrap_or(self.inodes);
        if known.is_none() {
            self.inodes += 1;
            if file_type == FileType::Regular {
                self.bytes += stat.st_size as u64;
            }
        }
        if !is_dir && stat.st_nlink > 1 {
            seen.insert(identity, ordinal);
            let links =
                self.links.entry(ordinal).or_insert_with(|| Links { identity, names: Vec::new() });
            links.names.push((parent, name.to_vec()));
        }
        self.names += 1;
        self.put(parent, file_type, known, name);
        if !is_dir {
            return None;
        }
        let index = self.dirs.len() as u32;
        self.dirs.push(Dir { parent, name: name.into(), ordinal, path });
        Some(index)
    }

    fn is_excluded(&self, parent: u32, name: &[u8], selection: &Selection) -> bool {
        if selection.excludes.is_empty() {
            return false;
        }
        let name_text = String::from_utf8_lossy(name);
        let path = self.tree_path(parent, name);
        let path_text = String::from_utf8_lossy(&path);
        selection.excludes.iter().any(|pattern| {
            let whole = pattern.as_str().contains('/');
            pattern.matches(if whole { &path_text } else { &name_text })
        })
    }

    fn put(&mut self, parent: u32, file_type: FileType, known: Option<u64>, name: &[u8]) {
        self.tail.extend_from_slice(&parent.to_le_bytes());
        self.tail.push(file_type.to_bits() | if known.is_some() { 0x80 } else { 0 });
        if let Some(ordinal) = known {
            self.tail.extend_from_slice(&ordinal.to_le_bytes());
        }
        self.tail.push(name.len() as u8);
        self.tail.extend_from_slice(name);
        if self.tail.len() >= BLOCK_LEN {
            let packed = lz4_flex::block::compress(&self.tail);
            self.blocks.push((packed, self.tail.len()));
            self.tail.clear();
        }
    }

    /// Walks the entries in order.
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor { all: self, block: 0, buffer: Vec::new(), at: 0, next_ordinal: 1 }
    }

    /// Path in the tree, for messages and excludes.
    pub(crate) fn tree_path(&self, parent: u32, name: &[u8]) -> Vec<u8> {
        let mut parts = vec![name];
        let mut at = parent;
        while at != 0 {
            let dir = &self.dirs[at as usize];
            parts.push(&dir.name);
            at = dir.parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// Path of a directory on the host.
    pub(crate) fn host_path(&self, index: u32) -> PathBuf {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = index;
        let mut path = loop {
            let dir = &self.dirs[at as usize];
            match &dir.path {
                Some(path) => break path.clone(),
                None if at == 0 => break PathBuf::from("."),
                None => {
                    names.push(&dir.name);
                    at = dir.parent;
                }
            }
        };
        names.iter().rev().for_each(|name| path.push(OsStr::from_bytes(name)));
        path
    }

    /// Where an entry is on the host, if not simply under its parent.
    pub(crate) fn override_of(&self, entry: &Entry) -> Option<&Path> {
        if self.overrides.is_empty() {
            return None;
        }
        self.overrides.get(&(entry.parent, entry.name.clone())).map(PathBuf::as_path)
    }

    fn problem_at(&mut self, tree_path: Vec<u8>, host_path: &Path, error: rustix::io::Errno) {
        let error = FlowError::io(host_path, error);
        self.problems.push(Problem { path: tree_path, error });
    }
}

/// A place in the list of entries.
pub(crate) struct Cursor<'a> {
    all: &'a Gathered,
    block: usize,
    buffer: Vec<u8>,
    at: usize,
    next_ordinal: u64,
}

impl Cursor<'_> {
    /// The next entry, if it is in this directory.
    pub(crate) fn next_in(&mut self, parent: u32) -> Option<Entry> {
        self.fill();
        let field = self.buffer.get(self.at..self.at + 4)?;
        (field == parent.to_le_bytes()).then(|| self.next()).flatten()
    }

    fn fill(&mut self) {
        while self.at >= self.buffer.len() && self.block <= self.all.blocks.len() {
            self.buffer = match self.all.blocks.get(self.block) {
                Some((packed, len)) => lz4_flex::block::decompress(packed, *len)
                    .expect("the list was packed by this process"),
                None => self.all.tail.clone(),
            };
            self.block += 1;
            self.at = 0;
        }
    }
}

impl Iterator for Cursor<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.fill();
        let mut rest = self.buffer.get(self.at..).filter(|rest| !rest.is_empty())?;
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at(n);
            rest = tail;
            head
        };
        let parent = u32::from_le_bytes(take(4).try_into().expect("four bytes"));
        let kind = take(1)[0];
        let repeated = kind & 0x80 != 0;
        let ordinal = if repeated {
            u64::from_le_bytes(take(8).try_into().expect("eight bytes"))
        } else {
            self.next_ordinal += 1;
            self.next_ordinal - 1
        };
        let len = usize::from(take(1)[0]);
        let name = take(len).to_vec();
        self.at = self.buffer.len() - rest.len();
        let file_type = FileType::from_bits(kind & 0x7f).expect("the list was made here");
        Some(Entry { parent, ordinal, repeated, file_type, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs as stdfs;

    fn list(selection: &Selection) -> Vec<(String, u64)> {
        let all = gather(selection, &Progress::default()).unwrap();
        assert!(all.problems.is_empty(), "{:?}", all.problems);
        let path = |e: &Entry| String::from_utf8(all.tree_path(e.parent, &e.name)).unwrap();
        all.cursor().map(|e| (path(&e), e.ordinal)).collect()
    }

    #[test]
    fn entries_come_breadth_first_and_hard_links_share_an_ordinal() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        stdfs::create_dir_all(at("b/d")).unwrap();
        stdfs::write(at("a"), "1").unwrap();
        stdfs::write(at("b/x"), "2").unwrap();
        stdfs::hard_link(at("a"), at("b/d/y")).unwrap();
        stdfs::write(at("c"), "3").unwrap();
        let selection =
            Selection { base: dir.path().into(), paths: vec![".".into()], ..Default::default() };
        let want = [("a", 1), ("b", 2), ("c", 3), ("b/d", 4), ("b/x", 5), ("b/d/y", 1)];
        let want: Vec<_> = want.iter().map(|(p, n)| ((*p).to_owned(), *n)).collect();
        assert_eq!(list(&selection), want);
        let all = gather(&selection, &Progress::default()).unwrap();
        assert_eq!(all.links[&1].names.len(), 2);
        assert_eq!((all.inodes, all.names, all.bytes), (6, 6, 3));
    }

    #[test]
    fn paths_are_stored_as_tar_stores_them() {
        let dir = tempfile::tempdir().unwrap();
        stdfs::create_dir_all(dir.path().join("p/q")).unwrap();
        stdfs::write(dir.path().join("p/q/f"), "1").unwrap();
        stdfs::write(dir.path().join("p/g"), "1").unwrap();
        let names = |paths: &[&Path]| {
            let paths = paths.iter().map(|p| p.to_path_buf()).collect();
            list(&Selection { base: dir.path().into(), paths, ..Default::default() })
                .into_iter()
                .map(|(path, _)| path)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&[Path::new("p/q")]), ["p", "p/q", "p/q/f"]);
        assert_eq!(names(&[&dir.path().join("p/q")]), ["q", "q/f"]);
        assert_eq!(names(&[Path::new("p/q"), Path::new("p/g")]), ["p", "p/g", "p/q", "p/q/f"]);
    }

    #[test]
    fn a_list_longer_than_its_blocks_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let name = |i: usize| format!("{i:05}-{}", "n".repeat(100));
        for i in 0..2000 {
            stdfs::write(dir.path().join(name(i)), "").unwrap();
        }
        let paths = vec![".".into()];
        let found = list(&Selection { base: dir.path().into(), paths, ..Default::default() });
        assert_eq!(found.len(), 2000);
        assert!(found.iter().enumerate().all(|(i, (n, o))| *n == name(i) && *o == i as u64 + 1));
    }

    #[test]
    fn dotdot_and_two_sources_of_one_name_are_refused() {
        let of = |paths: &[&str]| {
            let paths = paths.iter().map(PathBuf::from).collect();
            gather(&Selection { paths, ..Default::default() }, &Progress::default())
        };
        assert!(matches!(of(&["../x"]), Err(FlowError::BadPath { .. })));
        assert!(matches!(of(&["/usr/bin", "/bin"]), Err(FlowError::BadPath { .. })));
        assert!(matches!(of(&["/nonexistent-9"]), Err(FlowError::Io { .. })));
    }
}

//! Walk out, onto the host: tree → files beneath a target directory.
//!
//! Neighbours: `reader` gives names, attributes and bytes. Promises: nothing
//! is written outside the target, whatever the archive says (each name is
//! resolved beneath it by the kernel, links are never followed); a file is
//! whole or absent; what could not be restored is named and the rest goes on.
//! Never: overwrites, unless told to. Tested by `tests/tests/archive.rs` and
//! `tests/tests/damage.rs`.

use crate::archive::ArchiveFile;
use crate::error::{FlowError, Kind, Result};
use crate::limits::{EXTRACT_QUEUE, MAX_DEPTH, workers};
use crate::progress::{Problem, Progress};
use crate::reader::{Attributes, TreeReader, check_type, components, join};
use crate::source::ChunkSource;
use crate::xattr::path_at;
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use warp_format::FileId;
use warp_format::record::{Body, Dentry, FileType, Inode, Name, Stamp, Xattr};

/// Where and what to extract.
#[derive(Debug, Default)]
pub struct ExtractOptions {
    /// Directory to extract into; made if it is not there.
    pub target: PathBuf,
    /// The directory of the tree that is extracted; empty = its root.
    pub top: PathBuf,
    /// Paths in that directory; none = everything.
    pub paths: Vec<PathBuf>,
    /// Replace files that exist.
    pub force: bool,
}

/// What was extracted.
#[derive(Debug)]
pub struct Extracted {
    /// Names made, directories included.
    pub names: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// What could not be restored.
    pub problems: Vec<Problem>,
}

/// Extracts from an archive. Of a whole extraction, the container's layout is
/// checked too, so that it finds whatever a verification finds.
pub fn extract_archive(
    reader: &TreeReader<ArchiveFile>,
    options: &ExtractOptions,
    progress: &Progress,
) -> Result<Extracted> {
    let mut layout = None;
    if options.paths.is_empty() {
        if let Ok(summary) = reader.summary() {
            progress.set_total(summary.bytes);
        }
        layout = reader.source().check_layout().err();
    }
    let mut done = extract(reader, options, progress)?;
    if let Some(error) = layout {
        let path = reader.source().path().as_os_str().as_bytes().to_vec();
        done.problems.push(Problem { path, error });
    }
    Ok(done)
}

/// Extracts what `options` names.
pub(crate) fn extract<S: ChunkSource>(
    reader: &TreeReader<S>,
    options: &ExtractOptions,
    progress: &Progress,
) -> Result<Extracted> {
    let top = reader.resolve(&options.top)?;
    let target = Target::open(options)?;
    let mut job = Extraction::new(reader, &target, options.force, progress);
    job.top = top;
    let (tx, rx) = sync_channel(EXTRACT_QUEUE);
    let rx = Mutex::new(rx);
    let shared = Arc::clone(&job.shared);
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..workers() {
            scope.spawn(|| make_files(reader, &rx, options.force, &shared, progress));
        }
        job.run(&options.paths, tx)
    })?;
    job.finish()
}

/// What [`extract_salvaged`] gives.
pub(crate) struct Salvaged {
    pub(crate) extracted: Extracted,
    /// Inodes that a name led to, restored or not.
    pub(crate) reached: HashSet<FileId>,
}

/// Gives the tops of what no name in `reached` leads to.
pub(crate) type Orphans<'a> = &'a dyn Fn(&HashSet<FileId>) -> Result<Vec<FileId>>;

/// Extracts a tree with holes: files in `torn` are named, not restored, and
/// what no name leads to goes below `lost+found`.
pub(crate) fn extract_salvaged<S: ChunkSource>(
    reader: &TreeReader<S>,
    options: &ExtractOptions,
    torn: &HashSet<FileId>,
    orphans: Orphans<'_>,
    progress: &Progress,
) -> Result<Salvaged> {
    let target = Target::open(options)?;
    let mut job = Extraction::new(reader, &target, options.force, progress);
    job.torn = torn.clone();
    let (tx, rx) = sync_channel(EXTRACT_QUEUE);
    let rx = Mutex::new(rx);
    let shared = Arc::clone(&job.shared);
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..workers() {
            scope.spawn(|| make_files(reader, &rx, options.force, &shared, progress));
        }
        if !options.paths.is_empty() {
            return job.run(&options.paths, tx);
        }
        job.run(&[], tx.clone())?;
        let tops = orphans(&job.reached)?;
        job.lost_and_found(&tops, &tx)
    })?;
    let reached = std::mem::take(&mut job.reached);
    Ok(Salvaged { extracted: job.finish()?, reached })
}

/// The target directory; every path is resolved beneath it.
pub(crate) struct Target {
    root: OwnedFd,
    path: PathBuf,
    /// Restoring owners takes privilege.
    privileged: bool,
}

impl Target {
    fn open(options: &ExtractOptions) -> Result<Self> {
        let path =
            if options.target.as_os_str().is_empty() { ".".into() } else { options.target.clone() };
        std::fs::create_dir_all(&path).map_err(|e| FlowError::io(&path, e))?;
        let root = crate::gather::open_dir(&path).map_err(|e| FlowError::io(&path, e))?;
        Ok(Self { root, path, privileged: rustix::process::geteuid().is_root() })
    }

    /// Opens a directory beneath the target, following no link.
    fn open_dir(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut fd: Option<OwnedFd> = None;
        let mut rest = if path.is_empty() { b".".as_slice() } else { path };
        // The kernel takes paths of up to 4,095 bytes; a deeper one is opened
        // piece by piece, each beneath the last.
        while !rest.is_empty() {
            let cut = if rest.len() < 4000 {
                rest.len()
            } else {
                rest[..4000].iter().rposition(|b| *b == b'/').unwrap_or(rest.len())
            };
            let (now, later) = rest.split_at(cut);
            let from = fd.as_ref().unwrap_or(&self.root).as_fd();
            let next = fs::openat2(from, OsStr::from_bytes(now), flags, Mode::empty(), resolve)?;
            fd = Some(next);
            rest = later.strip_prefix(b"/").unwrap_or(later);
        }
        fd.ok_or(Errno::NOENT)
    }

    fn error(&self, path: &[u8], source: Errno) -> FlowError {
        let path = self.path.join(OsStr::from_bytes(path));
        match source {
            Errno::EXIST => FlowError::Exists { path },
            source => FlowError::io(path, source),
        }
    }
}

/// What workers and the walk share.
#[derive(Default)]
struct Shared {
    problems: Mutex<Vec<Problem>>,
    /// An error that ends the whole job: the disk is full.
    fatal: Mutex<Option<FlowError>>,
    counts: Mutex<(u64, u64)>,
    /// Inodes with several names of which one has been made here.
    linkable: Mutex<HashSet<FileId>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn problem(&self, path: &[u8], error: FlowError) {
        if error.kind() == Kind::Full {
            lock(&self.fatal).get_or_insert(error);
        } else {
            lock(&self.problems).push(Problem { path: path.to_vec(), error });
        }
    }

    fn check(&self) -> Result<()> {
        lock(&self.fatal).clone().map_or(Ok(()), Err)
    }

    fn made(&self, bytes: u64) {
        let mut counts = lock(&self.counts);
        counts.0 += 1;
        counts.1 += bytes;
    }
}

/// A file to make.
struct Job {
    dir: Arc<OwnedFd>,
    path: Vec<u8>,
    name: Name,
    file: FileId,
    inode: Inode,
    /// It has other names.
    several: bool,
    privileged: bool,
}

/// A further name of an inode whose first was handed to a worker.
struct Further {
    path: Vec<u8>,
    name: Name,
    file: FileId,
    inode: Inode,
}

/// One extraction: the walk, what it hands to workers, and what comes last.
pub(crate) struct Extraction<'a, S> {
    reader: &'a TreeReader<S>,
    target: &'a Target,
    /// The directory that the target stands for.
    top: FileId,
    force: bool,
    progress: &'a Progress,
    shared: Arc<Shared>,
    /// Directories made, with their ids; their times are set last.
    dirs: Vec<(Vec<u8>, FileId)>,
    /// First path of inodes with several names.
    first: HashMap<FileId, Vec<u8>>,
    /// Further names of these.
    further: Vec<Further>,
    seen_dirs: HashSet<FileId>,
    /// Inodes that a name led to.
    reached: HashSet<FileId>,
    /// Files that must not be restored: part of their records is gone.
    torn: HashSet<FileId>,
}

impl<'a, S: ChunkSource> Extraction<'a, S> {
    fn new(
        reader: &'a TreeReader<S>,
        target: &'a Target,
        force: bool,
        progress: &'a Progress,
    ) -> Self {
        Self {
            reader,
            target,
            top: FileId::ROOT,
            force,
            progress,
            shared: Arc::default(),
            dirs: Vec::new(),
            first: HashMap::new(),
            further: Vec::new(),
            seen_dirs: HashSet::new(),
            reached: HashSet::new(),
            torn: HashSet::new(),
        }
    }

    fn run(&mut self, paths: &[PathBuf], jobs: SyncSender<Job>) -> Result<()> {
        if paths.is_empty() {
            // The target takes its own attributes, if it has any.
            self.reached.insert(self.top);
            match self.reader.attributes(self.top) {
                Ok(_) => self.dirs.push((Vec::new(), self.top)),
                Err(FlowError::Lost { .. }) => {}
                Err(e) => self.shared.problem(b".", e),
            }
            return self.tree(self.top, Vec::new(), &jobs);
        }
        // All paths are looked up before anything is written.
        let mut found = Vec::new();
        for path in paths {
            self.reader.resolve_from(self.top, path)?;
            found.push(components(path)?);
        }
        // Sorted, a path comes right before what lies below it.
        found.sort();
        let mut done: Option<Vec<Name>> = None;
        for names in found {
            if done.as_ref().is_none_or(|above| !names.starts_with(above)) {
                self.one_path(&names, &jobs)?;
                done = Some(names);
            }
        }
        Ok(())
    }

    /// Makes the directories on the way, then what the path names.
    fn one_path(&mut self, names: &[Name], jobs: &SyncSender<Job>) -> Result<()> {
        let (mut at, mut path) = (self.top, Vec::new());
        for name in names {
            let found = self.reader.lookup(at, name.as_bytes())?;
            let Some(dentry) = found else { return Err(FlowError::Lost { what: "name" }) };
            let dir =
                Arc::new(self.target.open_dir(&path).map_err(|e| self.target.error(&path, e))?);
            at = dentry.file;
            let attributes = self.reader.attributes(at);
            let is_dir = self.entry(&dir, &path, dentry, attributes, jobs)?;
            path = join(&path, name.as_bytes());
            if !is_dir {
                return Ok(());
            }
        }
        self.tree(at, path, jobs)
    }

    /// Everything below a directory that exists in the target already.
    fn tree(&mut self, top: FileId, path: Vec<u8>, jobs: &SyncSender<Job>) -> Result<()> {
        let mut queue = VecDeque::from([(top, path)]);
        while let Some((id, path)) = queue.pop_front() {
            self.progress.check()?;
            self.shared.check()?;
            let depth = path.iter().filter(|b| **b == b'/').count();
            if !self.seen_dirs.insert(id) || depth > MAX_DEPTH {
                let error = warp_format::FormatError::Invalid { at: "directory" }.into();
                self.shared.problem(&path, error);
                continue;
            }
            let dir = match self.target.open_dir(&path) {
                Ok(dir) => Arc::new(dir),
                Err(e) => {
                    self.shared.problem(&path, self.target.error(&path, e));
                    continue;
                }
            };
            let mut entries = match self.reader.read_dir(id) {
                Ok(entries) => entries,
                Err(e) => {
                    self.shared.problem(&path, e);
                    continue;
                }
            };
            // In the order of the archive: its chunks come front to back.
            entries.sort_by_key(|dentry| dentry.file);
            let mut inodes = self.reader.inodes();
            for dentry in entries {
                let below = (dentry.file, join(&path, dentry.name.as_bytes()));
                let found = inodes.attributes(dentry.file);
                if self.entry(&dir, &path, dentry, found, jobs)? {
                    queue.push_back(below);
                }
            }
        }
        Ok(())
    }

    /// Restores inodes that no name leads to under names made of their ids.
    fn lost_and_found(&mut self, tops: &[FileId], jobs: &SyncSender<Job>) -> Result<()> {
        if tops.is_empty() {
            return Ok(());
        }
        let top = b"lost+found";
        match fs::mkdirat(&self.target.root, OsStr::from_bytes(top), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(self.target.error(top, e)),
        }
        let dir = Arc::new(self.target.open_dir(top).map_err(|e| self.target.error(top, e))?);
        for file in tops {
            // A directory may be known by its entries alone.
            let file_type = match self.reader.attributes(*file) {
                Ok(Some(attributes)) => attributes.inode.file_type(),
                Ok(None) => continue,
                Err(_) => FileType::Directory,
            };
            let is_dir = file_type == FileType::Directory;
            let kind = if is_dir { "dir" } else { "file" };
            let number = file.ordinal().map_or_else(|| format!("{file:#}"), |n| n.to_string());
            let name = Name::new(format!("{kind}-{number}").as_bytes())?;
            let path = join(top, name.as_bytes());
            let found = Problem { path: path.clone(), error: FlowError::Lost { what: "name" } };
            lock(&self.shared.problems).push(found);
            let dentry = Dentry { stamp: Stamp::NONE, name, file: *file, file_type };
            let made = match self.reader.attributes(*file) {
                Ok(found) => self.entry(&dir, top, dentry, Ok(found), jobs)?,
                Err(_) => self.directory(&dir, path.clone(), &dentry),
            };
            if made {
                self.tree(*file, path, jobs)?;
            }
        }
        Ok(())
    }

    /// Makes one name; true if it is a directory that was made or is there.
    fn entry(
        &mut self,
        dir: &Arc<OwnedFd>,
        parent: &[u8],
        dentry: Dentry,
        found: Result<Option<Attributes>>,
        jobs: &SyncSender<Job>,
    ) -> Result<bool> {
        let path = join(parent, dentry.name.as_bytes());
        let found = match found {
            Ok(_) if self.torn.contains(&dentry.file) => {
                self.reached.insert(dentry.file);
                Err(FlowError::Lost { what: "list of attributes" })
            }
            Ok(found) => {
                self.reached.insert(dentry.file);
                Ok(found)
            }
            Err(e) => Err(e),
        };
        let attributes = match found {
            Ok(Some(attributes)) => attributes,
            Ok(None) => return Ok(false),
            Err(e) => {
                self.shared.problem(&path, e);
                return Ok(false);
            }
        };
        if let Err(e) = check_type(&dentry, &attributes) {
            self.shared.problem(&path, e);
            return Ok(false);
        }
        let Attributes { inode, links } = attributes;
        if inode.file_type() == FileType::Directory {
            return Ok(self.directory(dir, path, &dentry));
        }
        if links > 1 {
            if self.first.contains_key(&dentry.file) {
                self.further.push(Further { path, name: dentry.name, file: dentry.file, inode });
                return Ok(false);
            }
            self.first.insert(dentry.file, path.clone());
        }
        let (dir, privileged) = (Arc::clone(dir), self.target.privileged);
        let (name, file, several) = (dentry.name, dentry.file, links > 1);
        let job = Job { dir, path, name, file, inode, several, privileged };
        // The workers end only when this sender is gone.
        jobs.send(job).map_err(|_| FlowError::Interrupted)?;
        Ok(false)
    }

    fn directory(&mut self, dir: &OwnedFd, path: Vec<u8>, dentry: &Dentry) -> bool {
        let name = OsStr::from_bytes(dentry.name.as_bytes());
        // Open to the owner only while it is filled.
        match fs::mkdirat(dir, name, Mode::RWXU) {
            Ok(()) => self.shared.made(0),
            Err(Errno::EXIST) => {
                let is_dir = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| stat.st_mode & 0o170_000 == 0o040_000);
                if !is_dir {
                    self.shared.problem(&path, self.target.error(&path, Errno::EXIST));
                    return false;
                }
            }
            Err(e) => {
                self.shared.problem(&path, self.target.error(&path, e));
                return false;
            }
        }
        self.dirs.push((path, dentry.file));
        true
    }

    /// Hard links, then the directories' attributes, deepest first.
    fn finish(mut self) -> Result<Extracted> {
        self.shared.check()?;
        for further in std::mem::take(&mut self.further) {
            let path = further.path.clone();
            if let Err(e) = self.further_name(further) {
                self.shared.problem(&path, e);
            }
        }
        for (path, file) in std::mem::take(&mut self.dirs).into_iter().rev() {
            if let Err(e) = self.directory_attributes(&path, file) {
                self.shared.problem(&path, e);
            }
        }
        self.shared.check()?;
        let (names, bytes) = *lock(&self.shared.counts);
        let mut problems = std::mem::take(&mut *lock(&self.shared.problems));
        problems.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Extracted { names, bytes, problems })
    }

    /// Links a further name to one that was made here; if none was (something
    /// stood in its way, say), this name gets the content itself.
    fn further_name(&mut self, further: Further) -> Result<()> {
        let Further { path, name, file, inode } = further;
        let made = lock(&self.shared.linkable).contains(&file);
        if let (true, Some(first)) = (made, self.first.get(&file)) {
            return self.link(first, &path);
        }
        let (dir, _) = split(&path);
        let dir = Arc::new(self.target.open_dir(dir).map_err(|e| self.target.error(dir, e))?);
        let privileged = self.target.privileged;
        let job = Job { dir, path, name, file, inode, several: true, privileged };
        let bytes = make(self.reader, &job, self.force)?;
        self.shared.made(bytes);
        lock(&self.shared.linkable).insert(file);
        self.first.insert(file, job.path);
        Ok(())
    }

    fn link(&self, first: &[u8], further: &[u8]) -> Result<()> {
        let place = |path: &[u8]| -> Result<(OwnedFd, Vec<u8>)> {
            let (dir, name) = split(path);
            let fd = self.target.open_dir(dir).map_err(|e| self.target.error(dir, e))?;
            Ok((fd, name.to_vec()))
        };
        let ((from, old), (to, new)) = (place(first)?, place(further)?);
        let (old, new) = (OsStr::from_bytes(&old), OsStr::from_bytes(&new));
        let link = || fs::linkat(&from, old, &to, new, AtFlags::empty());
        let linked = match link() {
            Err(Errno::EXIST) if self.force => {
                fs::unlinkat(&to, new, AtFlags::empty()).and_then(|()| link())
            }
            other => other,
        };
        linked.map_err(|e| self.target.error(further, e))?;
        self.shared.made(0);
        Ok(())
    }

    fn directory_attributes(&self, path: &[u8], file: FileId) -> Result<()> {
        let Some(attributes) = self.reader.attributes(file)? else { return Ok(()) };
        if attributes.inode.file_type() != FileType::Directory {
            return Err(warp_format::FormatError::Invalid { at: "file type" }.into());
        }
        let xattrs = self.reader.xattrs(file)?;
        let fd = self.target.open_dir(path).map_err(|e| self.target.error(path, e))?;
        set_attributes(&fd, &attributes.inode, &xattrs, self.target.privileged)
            .map_err(|e| self.target.error(path, e))
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn make_files<S: ChunkSource>(
    reader: &TreeReader<S>,
    jobs: &Mutex<Receiver<Job>>,
    force: bool,
    shared: &Shared,
    progress: &Progress,
) {
    loop {
        let Ok(job) = lock(jobs).recv() else { return };
        // After a stop the queue is emptied, so that the walk does not block.
        if progress.check().is_err() || shared.check().is_err() {
            continue;
        }
        match make(reader, &job, force) {
            Ok(bytes) => {
                shared.made(bytes);
                if job.several {
                    lock(&shared.linkable).insert(job.file);
                }
                progress.add_bytes(bytes);
                progress.add_file();
            }
            Err(e) => shared.problem(&job.path, e),
        }
    }
}

/// Makes one file that is no directory; gives its bytes.
fn make<S: ChunkSource>(reader: &TreeReader<S>, job: &Job, force: bool) -> Result<u64> {
    let at = |e: Errno| match e {
        Errno::EXIST => FlowError::Exists { path: OsStr::from_bytes(&job.path).into() },
        e => FlowError::io(OsStr::from_bytes(&job.path), e),
    };
    // Everything that can be damaged is read before the name exists, as far
    // as it is not the content itself.
    let xattrs = reader.xattrs(job.file)?;
    let name = OsStr::from_bytes(job.name.as_bytes());
    match &job.inode.body {
        Body::Extents(_) | Body::Inline(_) => regular(reader, job, force, &xattrs),
        Body::Directory(_) => unreachable!("directories are made by the walk"),
        body => {
            replace(job, force, || match body {
                Body::Symlink(target) => fs::symlinkat(OsStr::from_bytes(target), &*job.dir, name),
                Body::Device { block, number } => {
                    let kind = if *block {
                        fs::FileType::BlockDevice
                    } else {
                        fs::FileType::CharacterDevice
                    };
                    fs::mknodat(&*job.dir, name, kind, Mode::from_raw_mode(0o600), *number)
                }
                Body::Socket => fs::mknodat(
                    &*job.dir,
                    name,
                    fs::FileType::Socket,
                    Mode::from_raw_mode(0o600),
                    0,
                ),
                _ => {
                    fs::mknodat(&*job.dir, name, fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                }
            })
            .map_err(at)?;
            set_attributes_at(job, &xattrs).map_err(at)?;
            Ok(0)
        }
    }
}

/// Calls `make`; with `force` once more after removing what is in the way.
fn replace<T>(
    job: &Job,
    force: bool,
    make: impl Fn() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match make() {
        Err(Errno::EXIST) if force => {
            fs::unlinkat(&*job.dir, OsStr::from_bytes(job.name.as_bytes()), AtFlags::empty())?;
            make()
        }
        other => other,
    }
}

fn regular<S: ChunkSource>(
    reader: &TreeReader<S>,
    job: &Job,
    force: bool,
    xattrs: &[Xattr],
) -> Result<u64> {
    let name = OsStr::from_bytes(job.name.as_bytes());
    let at = |e: Errno| match e {
        Errno::EXIST => FlowError::Exists { path: OsStr::from_bytes(&job.path).into() },
        e => FlowError::io(OsStr::from_bytes(&job.path), e),
    };
    let extents = reader.whole_extents(job.file, &job.inode)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let create = |name: &OsStr| fs::openat(&*job.dir, name, flags, Mode::from_raw_mode(0o600));
    let temporary;
    let (fd, made_as) = match create(name) {
        // What is there is replaced once the new file is whole, and not before.
        Err(Errno::EXIST) if force => {
            let random = u64::from_le_bytes(crate::home::random_array()?);
            temporary = format!(".warp-{random:016x}.tmp");
            let temporary = OsStr::new(&temporary);
            (create(temporary).map_err(at)?, temporary)
        }
        other => (other.map_err(at)?, name),
    };
    let file = std::fs::File::from(fd);
    let io = |e: std::io::Error| FlowError::io(OsStr::from_bytes(&job.path), e);
    let write = || -> Result<()> {
        if let Body::Inline(bytes) = &job.inode.body {
            file.write_all_at(bytes, 0).map_err(io)?;
        }
        let mut end = 0;
        for (offset, extent) in &extents {
            let chunk = reader.chunk(&extent.chunk)?;
            let start = extent.start as usize;
            let bytes = &chunk[start..start + extent.len as usize];
            file.write_all_at(bytes, *offset).map_err(io)?;
            end = offset + bytes.len() as u64;
        }
        if end < job.inode.size && !matches!(job.inode.body, Body::Inline(_)) {
            file.set_len(job.inode.size).map_err(io)?;
        }
        Ok(())
    };
    let placed = write().and_then(|()| {
        if made_as == name {
            return Ok(());
        }
        fs::renameat(&*job.dir, made_as, &*job.dir, name).map_err(at)
    });
    placed.inspect_err(|_| {
        // A file is whole or absent.
        let _ = fs::unlinkat(&*job.dir, made_as, AtFlags::empty());
    })?;
    // An attribute that the target's filesystem cannot hold is told, and the
    // content kept.
    set_attributes(&file, &job.inode, xattrs, job.privileged).map_err(at)?;
    Ok(job.inode.size)
}

/// Owner, mode, attributes and times of an open file, in the order in which
/// none undoes another (a change of owner clears set-id bits and capabilities).
fn set_attributes(
    fd: impl AsFd,
    inode: &Inode,
    xattrs: &[Xattr],
    privileged: bool,
) -> rustix::io::Result<()> {
    let fd = fd.as_fd();
    let mut permissions = inode.permissions;
    if privileged {
        let (uid, gid) = owner(inode);
        fs::fchown(fd, uid, gid)?;
    } else {
        // Set-id bits stand for the owner that they were set with.
        permissions &= 0o1777;
    }
    // One attribute that is refused does not cost the others, nor mode and time.
    let mut refused = Ok(());
    for xattr in xattrs {
        let name = OsStr::from_bytes(&xattr.name);
        let set = fs::fsetxattr(fd, name, &xattr.value, fs::XattrFlags::empty());
        refused = refused.and(tolerate(&xattr.name, set, privileged));
    }
    fs::fchmod(fd, Mode::from_raw_mode(permissions.into()))?;
    fs::futimens(fd, &times(inode))?;
    refused
}

/// The same for what cannot be opened.
fn set_attributes_at(job: &Job, xattrs: &[Xattr]) -> rustix::io::Result<()> {
    let name = OsStr::from_bytes(job.name.as_bytes());
    let dir = job.dir.as_fd();
    let is_link = matches!(job.inode.body, Body::Symlink(_));
    if job.privileged {
        let (uid, gid) = owner(&job.inode);
        fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    let path = path_at(dir, name);
    let mut refused = Ok(());
    for xattr in xattrs {
        let attribute = OsStr::from_bytes(&xattr.name);
        let set = fs::lsetxattr(&path, attribute, &xattr.value, fs::XattrFlags::empty());
        refused = refused.and(tolerate(&xattr.name, set, job.privileged));
    }
    if !is_link {
        // In a directory that others may write to, the name may be another
        // file by now: the one that was opened must be of the type made here.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = fs::openat(dir, name, flags, Mode::empty())?;
        let found = (fs::fstat(&opened)?.st_mode >> 12) & 15;
        if found != u32::from(job.inode.file_type().to_bits()) {
            return Err(Errno::STALE);
        }
        let mode = Mode::from_raw_mode(job.inode.permissions.into());
        fs::chmod(format!("/proc/self/fd/{}", opened.as_raw_fd()), mode)?;
    }
    fs::utimensat(dir, name, &times(&job.inode), AtFlags::SYMLINK_NOFOLLOW)?;
    refused
}

/// An ordinary user cannot set attributes outside `user.` and ACLs.
fn tolerate(name: &[u8], set: rustix::io::Result<()>, privileged: bool) -> rustix::io::Result<()> {
    let own = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
    match set {
        Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) if !privileged && !own => Ok(()),
        other => other,
    }
}

/// The owner to set; the highest number means "no change" to the kernel.
fn owner(inode: &Inode) -> (Option<fs::Uid>, Option<fs::Gid>) {
    let some = |id: u32| (id != u32::MAX).then_some(id);
    (some(inode.uid).map(fs::Uid::from_raw), some(inode.gid).map(fs::Gid::from_raw))
}

fn times(inode: &Inode) -> fs::Timestamps {
    let mtime = fs::Timespec { tv_sec: inode.mtime.secs, tv_nsec: inode.mtime.nanos.into() };
    let now = fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW };
    fs::Timestamps { last_access: now, last_modification: mtime }
}

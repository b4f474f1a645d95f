//! Walk in, for archives: host tree → chunks → codec → seal → archive file.
//!
//! Neighbours: `gather` gives the order, `format` the bytes, [`Sink`] the
//! file. Three stages run side by side: this thread reads, cuts, hashes and
//! looks up; workers pack and seal; one writer keeps the order. Promises: the
//! same tree and options give the same bytes (unsealed, unsigned), whatever
//! the count of workers; memory grows with the count of different chunks and
//! small files, by about 200 bytes each, and with nothing else.
//! Never: leaves half an archive under the final name.
//! Tested by `tests/tests/archive.rs` and the unit tests below.

use crate::error::{FlowError, Result};
use crate::gather::{Cursor, Entry, Gathered, Selection, gather, open_dir};
use crate::limits::{HELD_RECORDS, RECORD_QUEUE, SEAL_QUEUE, workers};
use crate::progress::{Problem, Progress};
use crate::sink::Sink;
use crate::xattr;
use rustix::fs::{self, AtFlags, Mode, OFlags, Stat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use warp_format::archive::Header;
use warp_format::chunk::{CutRule, GroupRule, PlainChunk, SMALL_FILE_LEN};
use warp_format::codec::{Level, Packer};
use warp_format::keys::{ArgonCost, PassphraseSlot, SigningKey};
use warp_format::limits::{INLINE_LEN, MAX_SYMLINK_LEN};
use warp_format::record::{
    Body, Dentry, Extent, FileType, Inode, Key, KeyKind, Name, Record, Stamp, Summary, Time,
    UNCOUNTED, Xattr,
};
use warp_format::tree::Builder;
use warp_format::{
    ChunkRef, ContentHash, ContentSecret, FileId, NameHash, NamingKeys, SealedChunk, Sealer, Secret,
};

/// How to make an archive.
pub struct CreateOptions {
    /// Compression level.
    pub level: Level,
    /// Smallest size, slower random reads.
    pub solid: bool,
    /// Seal under this passphrase.
    pub passphrase: Option<zeroize::Zeroizing<Vec<u8>>>,
    /// Sign with this key.
    pub signer: Option<SigningKey>,
}

/// What was made.
#[derive(Debug)]
pub struct Created {
    /// Names in the archive, the root excluded.
    pub names: u64,
    /// Inodes, the root included.
    pub inodes: u64,
    /// Bytes of all regular files, each inode once.
    pub bytes: u64,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// Unique data chunks.
    pub chunks: u64,
    /// What could not be read; everything else is in the archive.
    pub problems: Vec<Problem>,
}

/// Counts what [`create`] would archive, reading no file.
pub fn survey(selection: &Selection, progress: &Progress) -> Result<Created> {
    let all = gather(selection, progress)?;
    let (names, inodes, bytes, problems) = (all.names, all.inodes, all.bytes, all.problems);
    Ok(Created { names, inodes, bytes, archive_bytes: 0, chunks: 0, problems })
}

/// The keys of an archive that is being made.
struct Keys {
    naming: NamingKeys,
    sealer: Sealer,
    header: Header,
}

impl Keys {
    fn new(passphrase: Option<&[u8]>) -> Result<Self> {
        let Some(passphrase) = passphrase else {
            let (naming, sealer) = (NamingKeys::public(), Sealer::plain());
            return Ok(Self { naming, sealer, header: Header { slot: None } });
        };
        let mut random = zeroize::Zeroizing::new([0u8; 48]);
        getrandom::fill(random.as_mut_slice())
            .map_err(|e| FlowError::io("/dev/urandom", io::Error::other(e)))?;
        let (root, salt) = random.split_at(32);
        let root = Secret::new(root.try_into().expect("32 bytes"));
        let salt = salt.try_into().expect("16 bytes");
        let slot = PassphraseSlot::wrap(&root, passphrase, ArgonCost::RECOMMENDED, salt)?;
        Ok(Self {
            naming: NamingKeys::derive(&root),
            sealer: Sealer::new(ContentSecret::derive(&root, 0), 0),
            header: Header { slot: Some(slot) },
        })
    }
}

/// Longest chunks that the read window holds: enough that moving what is left
/// of it to the front costs little.
const WINDOW_CHUNKS: u64 = 4;

/// Number of a chunk in order of first use; the writer turns it into a
/// reference once the chunk is sealed.
type ChunkNo = u32;

enum Pending {
    Ready(Record),
    Extent { chunk: ChunkNo, start: u32, len: u32 },
}

enum Event {
    Records(Vec<(Key, Pending)>),
    Chunk { number: ChunkNo, sealed: Receiver<(SealedChunk, ChunkRef)> },
}

struct Job {
    chunk: PlainChunk,
    reply: Sender<(SealedChunk, ChunkRef)>,
}

/// Makes an archive of `selection` and writes it to `output`.
pub fn create(
    selection: &Selection,
    options: &CreateOptions,
    output: &mut (dyn Write + Send),
    progress: &Progress,
) -> Result<Created> {
    let keys = Keys::new(options.passphrase.as_ref().map(|p| p.as_slice()))?;
    let all = gather(selection, progress)?;
    let (job_tx, job_rx) = sync_channel::<Job>(SEAL_QUEUE);
    let (event_tx, event_rx) = sync_channel::<Event>(RECORD_QUEUE);
    let job_rx = Mutex::new(job_rx);
    let (keys, job_rx) = (&keys, &job_rx);
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(move || seal_jobs(job_rx, keys, options.level));
        }
        let writer = scope.spawn(move || write_events(event_rx, keys, options, output));
        let mut reader = Reader::new(&all, keys, options, job_tx, event_tx, progress);
        let read = reader.run();
        let (summary, problems) = reader.finish();
        let written = writer.join().expect("the writer does not panic");
        // A writer that failed hangs up, which the reader sees as a closed
        // channel: the writer's error is the cause.
        let (archive_bytes, chunks) = written?;
        read?;
        let Summary { inodes, names, bytes, .. } = summary;
        Ok(Created { names, inodes, bytes, archive_bytes, chunks, problems })
    })
}

fn seal_jobs(jobs: &Mutex<Receiver<Job>>, keys: &Keys, level: Level) {
    let mut packer = Packer::new(level);
    loop {
        let job = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        let Ok(Job { chunk, reply }) = job else { return };
        let sealed = keys.sealer.seal(&packer.pack(&chunk));
        let reference = keys.sealer.reference(&sealed, chunk.hash(), chunk.bytes().len());
        // A writer that failed no longer wants it.
        let _ = reply.send((sealed, reference));
    }
}

fn write_events(
    events: Receiver<Event>,
    keys: &Keys,
    options: &CreateOptions,
    output: &mut (dyn Write + Send),
) -> Result<(u64, u64)> {
    let sink = std::cell::RefCell::new(Sink::new(output, &keys.header)?);
    let mut packer = Packer::new(Level::DEFAULT);
    let mut tree = Builder::new(&keys.naming, |node: PlainChunk| -> Result<ChunkRef> {
        let sealed = keys.sealer.seal(&packer.pack(&node));
        let reference = keys.sealer.reference(&sealed, node.hash(), node.bytes().len());
        sink.borrow_mut().put(&sealed)?;
        Ok(reference)
    });
    let mut refs: Vec<Option<ChunkRef>> = Vec::new();
    let mut chunks = 0;
    for event in events {
        match event {
            Event::Chunk { number, sealed } => {
                // The workers end before their queue does only by a panic.
                let (sealed, reference) = sealed.recv().expect("a worker answers each job");
                sink.borrow_mut().put(&sealed)?;
                let at = number as usize;
                if refs.len() <= at {
                    refs.resize(at + 1, None);
                }
                refs[at] = Some(reference);
                chunks += 1;
            }
            Event::Records(records) => {
                for (key, pending) in records {
                    let record = match pending {
                        Pending::Ready(record) => record,
                        Pending::Extent { chunk, start, len } => {
                            let chunk = refs[chunk as usize].expect("a chunk precedes its records");
                            Record::Extent(Extent { chunk, start, len })
                        }
                    };
                    tree.push(&key, &record)?;
                }
            }
        }
    }
    let root = tree.finish()?;
    let length = sink.into_inner().finish(root, keys.header.clone(), options.signer.as_ref())?;
    Ok((length, chunks))
}

/// Small neighbours that will share a chunk.
struct Group {
    number: ChunkNo,
    bytes: Vec<u8>,
}

/// The first stage.
struct Reader<'a> {
    all: &'a Gathered,
    keys: &'a Keys,
    rule: GroupRule,
    jobs: SyncSender<Job>,
    events: SyncSender<Event>,
    progress: &'a Progress,
    /// Content → where it is: chunk and start in it.
    known: HashMap<ContentHash, (ChunkNo, u32)>,
    next_chunk: ChunkNo,
    group: Option<Group>,
    /// Records that may speak of the open group.
    held: Vec<(Key, Pending)>,
    window: Vec<u8>,
    parent: Option<(u32, Rc<OwnedFd>)>,
    summary: Summary,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(
        all: &'a Gathered,
        keys: &'a Keys,
        options: &CreateOptions,
        jobs: SyncSender<Job>,
        events: SyncSender<Event>,
        progress: &'a Progress,
    ) -> Self {
        Self {
            all,
            keys,
            rule: if options.solid { GroupRule::SOLID } else { GroupRule::DEFAULT },
            jobs,
            events,
            progress,
            known: HashMap::new(),
            next_chunk: 0,
            group: None,
            held: Vec::new(),
            window: Vec::new(),
            parent: None,
            summary: Summary { inodes: 0, names: 0, bytes: 0, unread: 0 },
            problems: all.problems.clone(),
        }
    }

    /// Ends the queues, so that workers and writer end.
    fn finish(self) -> (Summary, Vec<Problem>) {
        (self.summary, self.problems)
    }

    fn run(&mut self) -> Result<()> {
        // One cursor gives the entries, the other runs ahead and gives each
        // directory's children while the directory itself is written.
        let mut ahead = self.all.cursor();
        self.root(&mut ahead)?;
        let mut next_dir = 1;
        for entry in self.all.cursor() {
            self.progress.check()?;
            let dir = (entry.file_type == FileType::Directory).then(|| {
                next_dir += 1;
                next_dir - 1
            });
            if !entry.repeated {
                self.entry(&entry, dir, &mut ahead)?;
            }
        }
        self.close_group()?;
        let summary = Record::Summary(self.summary);
        self.put(Key::new(FileId::META, KeyKind::Meta), summary);
        self.flush()
    }

    fn root(&mut self, ahead: &mut Cursor<'_>) -> Result<()> {
        self.summary.inodes = 1;
        if self.all.virtual_root {
            // No inode record: there is no directory on the host that it
            // could describe, and an extraction changes nothing of its target.
        } else {
            let path = self.all.host_path(0);
            let fd = open_dir(&path).map_err(|e| FlowError::io(&path, e))?;
            let stat = fs::fstat(&fd).map_err(|e| FlowError::io(&path, e))?;
            let xattrs = xattr::read_all(&fd).map_err(|e| FlowError::io(&path, e))?;
            self.put_inode(FileId::ROOT, &stat, Body::Directory(UNCOUNTED));
            self.put_xattrs(FileId::ROOT, xattrs);
        }
        self.put_dentries(FileId::ROOT, 0, ahead);
        Ok(())
    }

    /// One inode: its record, attributes, names, content, children.
    fn entry(&mut self, entry: &Entry, dir: Option<u32>, ahead: &mut Cursor<'_>) -> Result<()> {
        let file = FileId::from_ordinal(entry.ordinal);
        if let Err(problem) = self.by_any_name(file, entry) {
            match problem {
                FlowError::Io { .. } => {}
                fatal => return Err(fatal),
            }
            let own = [(entry.parent, entry.name.clone())];
            let links = self.all.links.get(&entry.ordinal);
            for (parent, name) in links.map_or(own.as_slice(), |links| &links.names) {
                let path = self.all.tree_path(*parent, name);
                // A directory that could not be listed was told by the first pass.
                if dir.is_none() || self.problems.iter().all(|known| known.path != path) {
                    self.problems.push(Problem { path, error: problem.clone() });
                }
            }
            // The directory's record names it already; a tombstone in the
            // inode's place makes every reader pass over the name.
            self.put(Key::new(file, KeyKind::Inode), Record::Tombstone(Stamp::NONE));
            self.summary.unread += 1;
        }
        if let Some(dir) = dir {
            self.put_dentries(file, dir, ahead);
        }
        if self.held.len() >= HELD_RECORDS {
            self.close_group()?;
        } else if self.group.is_none() && self.held.len() >= 512 {
            self.flush()?;
        }
        Ok(())
    }

    /// Reads an inode by its first name, or by another if that one is gone or
    /// leads elsewhere by now.
    fn by_any_name(&mut self, file: FileId, entry: &Entry) -> Result<()> {
        let first = self.try_entry(file, entry);
        let all = self.all;
        match (&first, all.links.get(&entry.ordinal)) {
            (Err(FlowError::Io { .. }), Some(links)) => {
                for (parent, name) in &links.names {
                    let other = Entry { parent: *parent, name: name.clone(), ..entry.clone() };
                    if self.try_entry(file, &other).is_ok() {
                        return Ok(());
                    }
                }
                first
            }
            _ => first,
        }
    }

    /// Reads one inode. Fails with `Io` before anything of it is recorded.
    fn try_entry(&mut self, file: FileId, entry: &Entry) -> Result<()> {
        let (parent, name) = self.place(entry)?;
        let at = |e: rustix::io::Errno| FlowError::io(host_path_of(self.all, entry), e);
        let name = OsStr::from_bytes(&name);
        let parent = parent.as_fd();
        let opened = match entry.file_type {
            FileType::Regular | FileType::Directory => {
                let mut flags =
                    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                if entry.file_type == FileType::Directory {
                    flags |= OFlags::DIRECTORY;
                    // A directory named on the way to a source may be a link.
                    if self.all.override_of(entry).is_some() {
                        flags -= OFlags::NOFOLLOW;
                    }
                }
                Some(fs::openat(parent, name, flags, Mode::empty()).map_err(at)?)
            }
            _ => None,
        };
        let stat = match &opened {
            Some(fd) => fs::fstat(fd).map_err(at)?,
            None => fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at)?,
        };
        if (stat.st_mode >> 12) & 15 != u32::from(entry.file_type.to_bits()) {
            return Err(at(rustix::io::Errno::STALE));
        }
        // Its other names say that it is that inode and no other.
        let links = self.all.links.get(&entry.ordinal);
        if links.is_some_and(|links| links.identity != (stat.st_dev, stat.st_ino)) {
            return Err(at(rustix::io::Errno::STALE));
        }
        let xattrs = match &opened {
            Some(fd) => xattr::read_all(fd),
            None => xattr::read_all_at(parent, name),
        }
        .map_err(at)?;
        let body = match entry.file_type {
            // Replaced in `regular`, which looks for holes first.
            FileType::Regular => Body::Extents(0),
            FileType::Directory => Body::Directory(UNCOUNTED),
            FileType::Symlink => Body::Symlink(read_link(parent, name).map_err(at)?),
            FileType::Fifo => Body::Fifo,
            FileType::Socket => Body::Socket,
            FileType::CharDevice => Body::Device { block: false, number: stat.st_rdev },
            FileType::BlockDevice => Body::Device { block: true, number: stat.st_rdev },
        };
        match (opened, entry.file_type) {
            (Some(fd), FileType::Regular) => self.regular(file, entry, &stat, fd, xattrs)?,
            _ => {
                self.put_inode(file, &stat, body);
                self.put_xattrs(file, xattrs);
                self.put_links(file, entry);
            }
        }
        self.summary.inodes += 1;
        self.summary.names +=
            self.all.links.get(&entry.ordinal).map_or(1, |links| links.names.len() as u64);
        self.progress.add_file();
        Ok(())
    }

    /// The directory to open `entry` from, and its name there.
    fn place(&mut self, entry: &Entry) -> Result<(Rc<OwnedFd>, Vec<u8>)> {
        if let Some(path) = self.all.override_of(entry) {
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => std::path::Path::new("."),
            };
            let name = path.file_name().unwrap_or(path.as_os_str());
            let fd = open_dir(parent).map_err(|e| FlowError::io(parent, e))?;
            return Ok((Rc::new(fd), name.as_bytes().to_vec()));
        }
        let known = matches!(&self.parent, Some((index, _)) if *index == entry.parent);
        if !known {
            let path = self.all.host_path(entry.parent);
            let fd = open_dir(&path).map_err(|e| FlowError::io(&path, e))?;
            self.parent = Some((entry.parent, Rc::new(fd)));
        }
        let (_, fd) = self.parent.as_ref().expect("opened above");
        Ok((Rc::clone(fd), entry.name.clone()))
    }

    fn regular(
        &mut self,
        file: FileId,
        entry: &Entry,
        stat: &Stat,
        fd: OwnedFd,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<()> {
        let all = self.all;
        let at = |e: io::Error| FlowError::io(host_path_of(all, entry), e);
        let size = stat.st_size as u64;
        let segments = segments(&fd, stat).map_err(|e| at(e.into()))?;
        let mut source = std::fs::File::from(fd);
        // The first read happens before anything is recorded, so that a file
        // that cannot be read at all leaves no trace but its tombstone.
        let first = segments.first().copied();
        let mut window = std::mem::take(&mut self.window);
        window.clear();
        if let Some((start, end)) = first {
            let want = (end - start).min(WINDOW_CHUNKS * CutRule::for_len(size).max as u64);
            read_at_most(&mut source, start, want, &mut window).map_err(at)?;
        }
        let whole = first == Some((0, size)) || size == 0;
        if whole && size <= INLINE_LEN as u64 && window.len() as u64 == size {
            self.put_inode(file, stat, Body::Inline(window.clone()));
            self.put_xattrs(file, xattrs);
            self.put_links(file, entry);
            self.window = window;
            self.progress.add_bytes(size);
            self.summary.bytes += size;
            return Ok(());
        }
        let stored = segments.iter().map(|(start, end)| end - start).sum();
        self.put_inode(file, stat, Body::Extents(stored));
        self.put_xattrs(file, xattrs);
        self.put_links(file, entry);
        self.summary.bytes += size;
        let mut source = Source { file: source, failed: None };
        for (i, (start, end)) in segments.into_iter().enumerate() {
            if i > 0 {
                window.clear();
            }
            self.segment(file, &mut source, start, end, size, &mut window)?;
        }
        self.window = window;
        if let Some(e) = source.failed {
            let error = FlowError::io(host_path_of(self.all, entry), e);
            let path = self.all.tree_path(entry.parent, &entry.name);
            self.problems.push(Problem { path, error });
        }
        Ok(())
    }

    /// Cuts and records the bytes from `start` to `end`; `window` holds the
    /// first of them already, or nothing.
    fn segment(
        &mut self,
        file: FileId,
        source: &mut Source,
        start: u64,
        end: u64,
        size: u64,
        window: &mut Vec<u8>,
    ) -> Result<()> {
        let rule = CutRule::for_len(size);
        let small = size <= SMALL_FILE_LEN as u64;
        let (mut offset, mut used) = (start, 0);
        while offset < end {
            let left = end - offset;
            if ((window.len() - used) as u64) < left.min(rule.max as u64) {
                window.drain(..used);
                used = 0;
                let from = offset + window.len() as u64;
                let more = left.min(WINDOW_CHUNKS * rule.max as u64) - window.len() as u64;
                source.read(from, more, window);
            }
            let ahead = &window[used..];
            let last = ahead.len() as u64 == left;
            let len =
                if small { ahead.len() } else { rule.first_cut(&self.keys.naming, ahead, last) };
            self.piece(file, offset, &window[used..used + len], small)?;
            used += len;
            offset += len as u64;
            self.progress.add_bytes(len as u64);
            self.progress.check()?;
        }
        Ok(())
    }

    /// Records one extent; stores its bytes unless they are known.
    fn piece(&mut self, file: FileId, offset: u64, bytes: &[u8], small: bool) -> Result<()> {
        let len = bytes.len() as u32;
        let hash = self.keys.naming.content_hash(bytes);
        let (chunk, start) = match self.known.get(&hash) {
            Some(place) => *place,
            None if small => self.add_to_group(hash, bytes)?,
            None => {
                let number = self.number();
                self.known.insert(hash, (number, 0));
                self.send_chunk(number, PlainChunk::named(hash, bytes.to_vec()))?;
                (number, 0)
            }
        };
        let key = Key::new(file, KeyKind::Extent(offset));
        self.held.push((key, Pending::Extent { chunk, start, len }));
        if self.group.as_ref().is_some_and(|g| self.rule.ends_after(g.bytes.len(), &hash)) {
            self.close_group()?;
        } else if self.group.is_none() && self.held.len() >= 512 {
            self.flush()?;
        }
        Ok(())
    }

    fn add_to_group(&mut self, hash: ContentHash, bytes: &[u8]) -> Result<(ChunkNo, u32)> {
        if self.group.as_ref().is_some_and(|g| g.bytes.len() + bytes.len() > self.rule.max) {
            self.close_group()?;
        }
        let number = match &self.group {
            Some(group) => group.number,
            None => self.number(),
        };
        let group = self.group.get_or_insert_with(|| Group { number, bytes: Vec::new() });
        let start = group.bytes.len() as u32;
        group.bytes.extend_from_slice(bytes);
        self.known.insert(hash, (number, start));
        Ok((number, start))
    }

    fn number(&mut self) -> ChunkNo {
        self.next_chunk += 1;
        self.next_chunk - 1
    }

    /// Sends the open group, and then the records that waited for it.
    fn close_group(&mut self) -> Result<()> {
        if let Some(Group { number, bytes }) = self.group.take() {
            let chunk = PlainChunk::data(&self.keys.naming, bytes);
            self.send_chunk(number, chunk)?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut self.held);
        self.send(Event::Records(records))
    }

    fn send_chunk(&mut self, number: ChunkNo, chunk: PlainChunk) -> Result<()> {
        let (reply, sealed) = channel();
        self.jobs.send(Job { chunk, reply }).map_err(|_| FlowError::Interrupted)?;
        self.send(Event::Chunk { number, sealed })
    }

    fn send(&self, event: Event) -> Result<()> {
        self.events.send(event).map_err(|_| FlowError::Interrupted)
    }

    fn put(&mut self, key: Key, record: Record) {
        self.held.push((key, Pending::Ready(record)));
    }

    fn put_inode(&mut self, file: FileId, stat: &Stat, body: Body) {
        let size = match &body {
            Body::Extents(_) | Body::Inline(_) => stat.st_size as u64,
            Body::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let inode = Inode {
            stamp: Stamp::NONE,
            permissions: (stat.st_mode & 0o7777) as u16,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size,
            mtime: Time { secs: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
            ctime: None,
            atime: None,
            btime: None,
            versions: Vec::new(),
            body,
        };
        self.put(Key::new(file, KeyKind::Inode), Record::Inode(inode));
    }

    fn put_xattrs(&mut self, file: FileId, xattrs: Vec<(Vec<u8>, Vec<u8>)>) {
        let mut keyed: Vec<(NameHash, Xattr)> = xattrs
            .into_iter()
            .map(|(name, value)| Xattr { stamp: Stamp::NONE, name, value })
            .map(|xattr| (self.keys.naming.name_hash(&xattr.name), xattr))
            .collect();
        keyed.sort_unstable_by_key(|(hash, _)| *hash);
        for (hash, xattr) in keyed {
            self.put(Key::new(file, KeyKind::Xattr(hash)), Record::Xattr(xattr));
        }
    }

    fn put_links(&mut self, file: FileId, entry: &Entry) {
        let place = |parent: u32, name: &[u8]| {
            let parent = FileId::from_ordinal(self.all.dirs[parent as usize].ordinal);
            (parent, self.keys.naming.name_hash(name))
        };
        let mut links = match self.all.links.get(&entry.ordinal) {
            Some(links) => links.names.iter().map(|(parent, name)| place(*parent, name)).collect(),
            None => vec![place(entry.parent, &entry.name)],
        };
        links.sort_unstable();
        for (parent, hash) in links {
            self.put(Key::new(file, KeyKind::Link(parent, hash)), Record::Link(Stamp::NONE));
        }
    }

    fn put_dentries(&mut self, dir: FileId, index: u32, ahead: &mut Cursor<'_>) {
        let mut dentries: Vec<(NameHash, Dentry)> = Vec::new();
        while let Some(child) = ahead.next_in(index) {
            let name = Name::new(&child.name).expect("the kernel gives names");
            let file = FileId::from_ordinal(child.ordinal);
            let hash = self.keys.naming.name_hash(&child.name);
            let file_type = child.file_type;
            dentries.push((hash, Dentry { stamp: Stamp::NONE, name, file, file_type }));
        }
        dentries.sort_unstable_by_key(|(hash, _)| *hash);
        for (hash, dentry) in dentries {
            self.put(Key::new(dir, KeyKind::Dentry(hash)), Record::Dentry(dentry));
        }
    }
}

fn host_path_of(all: &Gathered, entry: &Entry) -> PathBuf {
    match all.override_of(entry) {
        Some(path) => path.to_path_buf(),
        None => all.host_path(entry.parent).join(OsStr::from_bytes(&entry.name)),
    }
}

fn read_link(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<Vec<u8>> {
    let target = fs::readlinkat(parent, name, Vec::with_capacity(MAX_SYMLINK_LEN + 1))?;
    Ok(target.into_bytes())
}

/// A file that is read to the length it had when it was opened, whatever
/// becomes of it meanwhile.
struct Source {
    file: std::fs::File,
    failed: Option<io::Error>,
}

impl Source {
    /// Appends `want` bytes from `offset` on. What cannot be read is zeros,
    /// and the reason is kept.
    fn read(&mut self, offset: u64, want: u64, into: &mut Vec<u8>) {
        let whole = into.len() + want as usize;
        if self.failed.is_none() {
            match read_at_most(&mut self.file, offset, want, into) {
                Err(e) => self.failed = Some(e),
                Ok(()) if into.len() < whole => {
                    let why = "the file shrank while it was read; what is missing is zeros";
                    self.failed = Some(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
                Ok(()) => {}
            }
        }
        into.resize(whole, 0);
    }
}

/// Appends up to `want` bytes from `offset` on; fewer only at the end.
fn read_at_most(
    source: &mut std::fs::File,
    offset: u64,
    want: u64,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    source.seek(SeekFrom::Start(offset))?;
    source.take(want).read_to_end(into)?;
    Ok(())
}

/// The ranges of a file that hold data, sorted.
fn segments(fd: &OwnedFd, stat: &Stat) -> rustix::io::Result<Vec<(u64, u64)>> {
    let size = stat.st_size as u64;
    if size == 0 {
        return Ok(Vec::new());
    }
    // Asking costs two system calls a file; a file with as many blocks as
    // bytes has no hole.
    if stat.st_blocks as u64 * 512 >= size {
        return Ok(vec![(0, size)]);
    }
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match fs::seek(fd, fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            // A filesystem that knows no holes.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => {
                return Ok(vec![(0, size)]);
            }
            Err(e) => return Err(e),
        };
        let end = fs::seek(fd, fs::SeekFrom::Hole(start))?.min(size);
        if start >= end {
            break;
        }
        found.push((start, end));
        at = end;
    }
    Ok(found)
}

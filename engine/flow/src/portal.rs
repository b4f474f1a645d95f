//! An open portal: its state, and the threads that make it durable and publish
//! it.
//!
//! Neighbours: `portals` opens it, a mount shows its [`PortalVolume`];
//! `namespace` and `live` below. Promises: what was done is durable within
//! about a second, and at once when somebody waits for it; it is published a
//! few seconds after writing goes quiet, and while it does not, often enough
//! to bound memory and the next start. Never: lets two processes open one
//! state. Tested by `tests/tests/portal.rs` and `kill.rs`.

use crate::asker;
use crate::error::{FlowError, Refusal, Result};
use crate::limits::{
    PUBLISH_AFTER, PUBLISH_BYTES, PUBLISH_CHANGES, PUBLISH_QUIET, SWEEP_AFTER_OPEN, SWEEP_BYTES,
    SWEEP_PERCENT,
};
use crate::live::Live;
use crate::namespace::{COPY_BYTES, Namespace};
use crate::numbers::Numbers;
use crate::reader::Attributes;
use crate::scrub::{Pace, Scrub};
use crate::space::{Room, Taken};
use crate::sweep::Thoroughness;
use crate::volume::{
    Allocate, Attr, DirEntry, Done, NewInode, RenameMode, SetAttr, Space, Volume, XattrMode,
};
use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::panic::AssertUnwindSafe;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use warp_format::record::Body;
use warp_format::{FileId, NameHash};

/// What nobody waits for is durable after this.
const COMMIT_EVERY: Duration = Duration::from_millis(800);
/// How often the publisher looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How many publishes' worth of changes make a writer slow down, and wait.
const SOFT_LIMIT: u64 = 2;
const HARD_LIMIT: u64 = 4;
/// How long a writer is slowed down: short, because it holds a thread that
/// others could be answered by.
const SLOWED_DOWN: Duration = Duration::from_millis(100);
/// How long the publisher waits after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// An open portal.
pub struct Portal {
    names: Namespace,
    /// Where the state is.
    directory: PathBuf,
    room: Room,
    /// Held by the one that makes room.
    making_room: Mutex<()>,
    work: Mutex<Work>,
    /// Somebody waits for a commit, or it is over.
    wake: Condvar,
    /// A publish ended.
    published: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held while a pack is read.
    scrub: Mutex<Scrub>,
    /// When its last round ended, in seconds since 1970; 0: none has.
    scrubbed: AtomicU64,
    started: Instant,
    /// When the kernel last asked for something, in milliseconds since it was
    /// opened.
    asked: AtomicU64,
    /// Held for life: one process at a time. Let go when it is closed.
    lock: Mutex<Option<File>>,
}

#[derive(Default)]
struct Work {
    waiting: Vec<Done>,
    /// When the oldest and the newest unpublished change were made.
    first: Option<Instant>,
    last: Option<Instant>,
    over: bool,
    /// Why the last attempt to publish failed, and when.
    trouble: Option<(Arc<FlowError>, Instant)>,
    /// It was swept since it was opened: before that, nobody knows how much
    /// garbage there is.
    was_swept: bool,
}

/// How a portal stands.
#[derive(Debug, Clone)]
pub struct PortalStatus {
    /// Number of the last head; 1 is the empty portal.
    pub sequence: u64,
    /// Bytes written and not yet in a published tree.
    pub unpublished_bytes: u64,
    /// Changes not yet in a published tree.
    pub unpublished_changes: u64,
    /// Chunks stored.
    pub chunks: u64,
    /// Bytes of packs on this disk.
    pub stored_bytes: u64,
    /// Most bytes that it may take on this disk.
    pub quota: Option<u64>,
    /// Why the last attempt to publish failed, if it did.
    pub trouble: Option<String>,
    /// Chunks that are known to be damaged.
    pub damaged_chunks: u64,
    /// When every pack had been read in the background for the last time, in
    /// seconds since 1970.
    pub scrubbed: Option<u64>,
}

impl Portal {
    /// Takes over an open state and its lock.
    pub(crate) fn start(
        live: Live,
        directory: PathBuf,
        quota: Option<NonZeroU64>,
        lock: File,
    ) -> Result<Arc<Self>> {
        let scrub = Scrub::open(&live, Pace::USUAL);
        let portal = Arc::new(Self {
            names: Namespace::new(live),
            scrubbed: AtomicU64::new(scrub.ended().unwrap_or_default()),
            scrub: Mutex::new(scrub),
            started: Instant::now(),
            asked: AtomicU64::new(0),
            room: Room::new(directory.clone(), quota),
            making_room: Mutex::default(),
            directory,
            work: Mutex::default(),
            wake: Condvar::new(),
            published: Condvar::new(),
            threads: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        });
        if portal.names.live.unpublished().1 > 0 {
            // From before this start.
            portal.note_change();
        }
        let commit = Arc::clone(&portal);
        let publish = Arc::clone(&portal);
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let threads = [
            named("commit").spawn(move || commit.keep_committing()),
            named("publish").spawn(move || publish.keep_publishing()),
        ];
        let mut failed = None;
        for thread in threads {
            match thread {
                Ok(thread) => portal.threads().push(thread),
                Err(e) => failed = Some(FlowError::io("thread", e)),
            }
        }
        let Some(failed) = failed else { return Ok(portal) };
        // It would hold the portal's lock for ever.
        portal.close_unpublished()?;
        Err(failed)
    }

    /// Its state.
    pub(crate) fn live(&self) -> &Live {
        &self.names.live
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_change(&self) {
        let mut work = self.work();
        let now = Instant::now();
        work.first.get_or_insert(now);
        work.last = Some(now);
    }

    /// Answers all who wait for a commit with one, and commits what nobody
    /// waits for.
    fn keep_committing(&self) {
        let mut failing = false;
        loop {
            let (waiting, over) = {
                let mut work = self.work();
                if work.waiting.is_empty() && !work.over {
                    let woken = self.wake.wait_timeout(work, COMMIT_EVERY);
                    work = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                (std::mem::take(&mut work.waiting), work.over)
            };
            let live = &self.names.live;
            if !waiting.is_empty() || live.is_dirty() {
                let result = self.survive(|| live.commit());
                // Said once, not every second.
                if let (Err(e), false) = (&result, failing) {
                    tracing::error!(portal = %live.secrets.portal, "commit: {e}");
                }
                failing = result.is_err();
                waiting.into_iter().for_each(|done| done(result.clone()));
            }
            if over && self.work().waiting.is_empty() {
                return;
            }
        }
    }

    /// Makes a failure of a panic: somebody waits for an answer, and the
    /// threads have to go on.
    fn survive<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        std::panic::catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
            let why = std::io::Error::other("a thread panicked; the log says where");
            Err(FlowError::io(&self.directory, why))
        })
    }

    fn keep_publishing(&self) {
        let opened = Instant::now();
        loop {
            {
                let work = self.work();
                if work.over {
                    return;
                }
                let woken = self.wake.wait_timeout(work, LOOK_EVERY);
                if woken.unwrap_or_else(PoisonError::into_inner).0.over {
                    return;
                }
            }
            if self.is_due() {
                // Told by `status`, and tried again.
                let _ = self.publish();
            } else if self.is_sweep_due(opened) {
                self.sweep(Thoroughness::Usual);
            } else {
                self.scrub();
            }
        }
    }

    /// Reads a pack, if nobody has asked for anything for a while.
    fn scrub(&self) {
        let asked = self.asked.load(Ordering::Relaxed);
        let quiet = (self.started.elapsed().as_millis() as u64).saturating_sub(asked);
        let (live, quiet) = (&self.names.live, Duration::from_millis(quiet));
        let mut scrub = self.scrub.lock().unwrap_or_else(PoisonError::into_inner);
        let turned = self.survive(|| scrub.turn(live, quiet, Instant::now()).map(drop));
        self.scrubbed.store(scrub.ended().unwrap_or_default(), Ordering::Relaxed);
        if let Err(e) = turned {
            tracing::warn!(portal = %live.secrets.portal, "scrub: {e}");
        }
    }

    fn note_request(&self) {
        self.asked.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn is_sweep_due(&self, opened: Instant) -> bool {
        let live = &self.names.live;
        let garbage = live.garbage.load(Ordering::Relaxed);
        let work = self.work();
        let since = work.last.unwrap_or(opened).max(opened).elapsed();
        let (_, stored) = live.stored();
        !work.was_swept && since >= SWEEP_AFTER_OPEN
            || since >= PUBLISH_QUIET && garbage > SWEEP_BYTES.max(stored / 100 * SWEEP_PERCENT)
    }

    /// Takes from the disk what nothing refers to any more. What it could not
    /// read, `check` names; nothing was taken then.
    fn sweep(&self, thoroughness: Thoroughness) {
        let portal = self.names.live.secrets.portal;
        let started = Instant::now();
        self.work().was_swept = true;
        match self.survive(|| self.names.sweep(thoroughness)) {
            Ok(swept) => {
                let (freed, took) = (swept.freed_bytes(), started.elapsed());
                tracing::debug!(%portal, freed, moved = swept.moved_bytes, ?took, "swept");
            }
            Err(e) => tracing::error!(%portal, "sweep: {e}"),
        }
    }

    /// Takes from the disk whatever nothing refers to any more, at once.
    pub fn sweep_thoroughly(&self) -> Result<()> {
        self.survive(|| self.names.sweep(Thoroughness::Thorough)).map(drop)
    }

    /// Takes room for what is to be written; first makes some, where there is
    /// none.
    fn take_room(&self, bytes: u64) -> Result<()> {
        let refused = match self.room.take(bytes, || self.taken()) {
            Err(e @ FlowError::Refused(_)) => e,
            other => return other,
        };
        let live = &self.names.live;
        let one = self.making_room.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have made some meanwhile.
        if self.room.take(bytes, || self.taken()).is_ok() {
            return Ok(());
        }
        if live.unpublished().1 == 0 && live.garbage.load(Ordering::Relaxed) == 0 {
            return Err(refused);
        }
        let published = self.publish();
        self.sweep(Thoroughness::Thorough);
        if published.is_err() {
            let _ = self.publish();
        }
        drop(one);
        self.room.take(bytes, || self.taken())
    }

    fn taken(&self) -> Taken {
        let live = &self.names.live;
        Taken { stored: live.stored().1, unpublished: live.unpublished().0 }
    }

    fn is_due(&self) -> bool {
        let (bytes, changes) = self.names.live.unpublished();
        if changes == 0 {
            return false;
        }
        let work = self.work();
        if let Some((_, at)) = &work.trouble
            && at.elapsed() < RETRY_AFTER
        {
            return false;
        }
        let past = |at: Option<Instant>, limit| at.is_none_or(|at| at.elapsed() >= limit);
        bytes >= PUBLISH_BYTES
            || changes >= PUBLISH_CHANGES
            || past(work.last, PUBLISH_QUIET)
            || past(work.first, PUBLISH_AFTER)
    }

    /// Everything done so far is durable and published when it returns.
    /// Gives the head's number.
    pub fn publish(&self) -> Result<u64> {
        let live = &self.names.live;
        // Changes made from here on count from here on.
        let first = self.work().first.take();
        let started = Instant::now();
        let result = self.survive(|| live.publish());
        let mut work = self.work();
        match &result {
            Ok(head) => {
                work.trouble = None;
                let took = started.elapsed();
                tracing::debug!(portal = %live.secrets.portal, sequence = head.sequence, ?took, "published");
            }
            Err(e) => {
                tracing::error!(portal = %live.secrets.portal, "publish: {e}");
                work.trouble = Some((Arc::new(e.clone()), Instant::now()));
                work.first = first.or(work.first);
            }
        }
        drop(work);
        self.published.notify_all();
        result.map(|head| head.sequence)
    }

    /// Everything done so far is durable when it returns.
    pub fn commit(&self) -> Result<()> {
        self.names.live.commit()
    }

    /// Publishes, and ends the portal's threads; nothing may use it after.
    pub fn close(&self) -> Result<()> {
        let published = self.publish();
        self.close_unpublished()?;
        published.map(drop)
    }

    /// The same without publishing: all is durable in the journal.
    pub fn close_unpublished(&self) -> Result<()> {
        self.work().over = true;
        self.wake.notify_all();
        // Requests that come later find nobody who would make them durable.
        self.names.live.close();
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            // One that panicked has said so; what it left undone is done here.
            let _ = thread.join();
        }
        let committed = self.names.live.commit();
        // Aids: without them the next start reads a pack, and scrub begins anew.
        let _ = self.names.live.store.settle();
        let _ = self.scrub.lock().unwrap_or_else(PoisonError::into_inner).save(&self.names.live);
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        committed
    }

    /// How it stands.
    pub fn status(&self) -> PortalStatus {
        let live = &self.names.live;
        let (unpublished_bytes, unpublished_changes) = live.unpublished();
        let (chunks, stored_bytes) = live.stored();
        let trouble = self.work().trouble.as_ref().map(|(e, _)| e.to_string());
        let sequence = live.sequence();
        PortalStatus {
            sequence,
            unpublished_bytes,
            unpublished_changes,
            chunks,
            stored_bytes,
            quota: self.room.quota().map(NonZeroU64::get),
            trouble,
            damaged_chunks: live.store.damaged().len() as u64,
            scrubbed: Some(self.scrubbed.load(Ordering::Relaxed)).filter(|at| *at > 0),
        }
    }

    /// True if so many publishes' worth of changes wait for the next one.
    fn is_over(&self, times: u64) -> bool {
        let (bytes, changes) = self.names.live.unfrozen();
        bytes >= times * PUBLISH_BYTES || changes >= times * PUBLISH_CHANGES
    }

    /// Slows writers down while another layer is being published, and holds
    /// them when as much as may be is in memory. It fails only where waiting
    /// would not help.
    fn wait_for_publish(&self) -> Result<()> {
        if !self.is_over(SOFT_LIMIT) {
            return Ok(());
        }
        let until = Instant::now() + SLOWED_DOWN;
        while self.is_over(SOFT_LIMIT) {
            let work = self.work();
            if let Some((why, _)) = &work.trouble {
                return Err(FlowError::Stalled { why: Arc::clone(why) });
            }
            if !self.is_over(HARD_LIMIT) && Instant::now() >= until {
                return Ok(());
            }
            asker::still_waits()?;
            drop(self.published.wait_timeout(work, SLOWED_DOWN / 4));
        }
        Ok(())
    }

    /// The directory at a path of the portal.
    fn resolve(&self, path: &Path) -> Result<FileId> {
        let missing = || FlowError::NotFound { path: path.into() };
        let mut at = FileId::ROOT;
        for part in path.components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    let found = self.names.lookup(at, name.as_bytes())?;
                    at = found.ok_or_else(missing)?.file;
                }
                Component::ParentDir | Component::Prefix(_) => return Err(missing()),
            }
        }
        match self.names.attributes(at)? {
            Some(found) if found.inode.file_type() == warp_format::record::FileType::Directory => {
                Ok(at)
            }
            Some(_) => Err(Refusal::NotADirectory.into()),
            None => Err(missing()),
        }
    }

    /// A volume that shows the directory at `path` (`/`: all of it) as its
    /// root. `FlowError::NotFound` if it is not there.
    pub fn volume(self: &Arc<Self>, path: &Path) -> Result<PortalVolume> {
        let root = self.resolve(path)?;
        let key = self.names.live.secrets.local.for_numbers();
        Ok(PortalVolume { portal: Arc::clone(self), numbers: Numbers::new(key, root) })
    }
}

/// A portal as a volume.
pub struct PortalVolume {
    portal: Arc<Portal>,
    numbers: Numbers,
}

impl PortalVolume {
    fn names(&self) -> &Namespace {
        &self.portal.names
    }

    fn file(&self, ino: u64) -> Result<FileId> {
        self.portal.note_request();
        self.numbers.file(ino).ok_or_else(|| Refusal::Missing.into())
    }

    /// The attributes of an inode that the kernel is told of.
    fn told(&self, file: FileId) -> Result<Option<Attr>> {
        let found = self.names().attributes(file)?;
        Ok(found.map(|Attributes { inode, links }| {
            let ino = self.numbers.retain(file);
            Attr { ino, inode, links }
        }))
    }

    /// Says first that something changes: it counts as recent while it is
    /// being done.
    fn change<T>(&self, act: impl FnOnce(&Namespace) -> Result<T>) -> Result<T> {
        self.portal.wait_for_publish()?;
        self.portal.note_change();
        act(self.names())
    }

    /// The same, of what takes so many bytes more than it did.
    fn grow<T>(&self, bytes: u64, act: impl FnOnce(&Namespace) -> Result<T>) -> Result<T> {
        self.portal.take_room(bytes)?;
        self.change(act)
    }
}

impl Volume for PortalVolume {
    fn changes(&self) -> bool {
        true
    }

    fn is_behind(&self) -> bool {
        self.portal.is_over(SOFT_LIMIT)
    }

    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>> {
        match self.names().lookup(self.file(parent)?, name)? {
            Some(dentry) => self.told(dentry.file),
            None => Ok(None),
        }
    }

    fn retain(&self, entry: &DirEntry) {
        self.numbers.retain(entry.file);
    }

    fn forget(&self, ino: u64, count: u64) {
        if let Some(file) = self.numbers.forget(ino, count) {
            self.names().forget(file, || self.numbers.knows(file));
        }
    }

    fn attr(&self, ino: u64) -> Result<Option<Attr>> {
        let found = self.names().attributes(self.file(ino)?)?;
        Ok(found.map(|Attributes { inode, links }| Attr { ino, inode, links }))
    }

    fn read(&self, ino: u64, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.names().read(self.file(ino)?, offset, len)
    }

    fn entries(
        &self,
        ino: u64,
        place: Option<NameHash>,
        limit: usize,
        plus: bool,
    ) -> Result<Vec<DirEntry>> {
        let entries = self.names().live.entries(self.file(ino)?, place, limit)?;
        let mut found = Vec::with_capacity(entries.len());
        for (place, dentry) in entries {
            let ino = self.numbers.number(dentry.file);
            // One that has gone meanwhile is listed as it was.
            let attr = if plus { self.names().attributes(dentry.file)? } else { None };
            let attr = attr.map(|Attributes { inode, links }| Attr { ino, inode, links });
            let name = dentry.name.as_bytes().to_vec();
            let (file, file_type) = (dentry.file, dentry.file_type);
            found.push(DirEntry { place, name, file, ino, file_type, attr });
        }
        Ok(found)
    }

    fn xattr(&self, ino: u64, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.names().xattr(self.file(ino)?, name)
    }

    fn xattrs(&self, ino: u64) -> Result<Vec<Vec<u8>>> {
        let all = self.names().xattrs(self.file(ino)?)?;
        Ok(all.into_iter().map(|xattr| xattr.name).collect())
    }

    fn seek(&self, _ino: u64, _offset: u64, _hole: bool) -> Result<Option<u64>> {
        // The kernel holds writes that this knows nothing of yet; it is asked
        // by nobody, because `changes` says so.
        Err(Refusal::Invalid.into())
    }

    fn space(&self) -> Result<Space> {
        self.portal.room.space(self.portal.taken())
    }

    fn set_attr(&self, ino: u64, change: &SetAttr) -> Result<Attr> {
        let file = self.file(ino)?;
        let found = self.change(|names| names.set_attr(file, change))?;
        Ok(Attr { ino, inode: found.inode, links: found.links })
    }

    fn make(&self, parent: u64, name: &[u8], new: NewInode) -> Result<Attr> {
        let parent = self.file(parent)?;
        let bytes = match &new.body {
            Body::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let file = self.grow(bytes, |names| names.make(parent, name, &new))?;
        self.told(file)?.ok_or_else(|| Refusal::Missing.into())
    }

    fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attr> {
        let (file, parent) = (self.file(ino)?, self.file(parent)?);
        self.grow(0, |names| names.link(file, parent, name))?;
        self.told(file)?.ok_or_else(|| Refusal::Missing.into())
    }

    fn unlink(&self, parent: u64, name: &[u8], directory: bool) -> Result<()> {
        let parent = self.file(parent)?;
        self.change(|names| names.unlink(parent, name, directory))
    }

    fn rename(&self, from: (u64, &[u8]), to: (u64, &[u8]), mode: RenameMode) -> Result<()> {
        let (source, target) = (self.file(from.0)?, self.file(to.0)?);
        self.change(|names| names.rename((source, from.1), (target, to.1), mode))
    }

    fn write(&self, ino: u64, offset: u64, bytes: Vec<u8>, cached: bool) -> Result<()> {
        let file = self.file(ino)?;
        self.grow(bytes.len() as u64, |names| names.write(file, offset, bytes, cached))
    }

    fn allocate(&self, ino: u64, range: Range<u64>, how: Allocate) -> Result<()> {
        let file = self.file(ino)?;
        if let Allocate::Reserve { .. } = how {
            let bytes = self.names().holes(file, &range)?;
            return self.grow(bytes, |names| names.allocate(file, range, how));
        }
        // What only takes away is never refused.
        self.change(|names| names.allocate(file, range, how))
    }

    fn copy(&self, from: (u64, u64), to: (u64, u64), len: u64) -> Result<u64> {
        let (source, target) = (self.file(from.0)?, self.file(to.0)?);
        let bytes = len.min(COPY_BYTES);
        self.grow(bytes, |names| names.copy((source, from.1), (target, to.1), len))
    }

    fn set_xattr(&self, ino: u64, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let file = self.file(ino)?;
        self.grow(value.len() as u64, |names| names.set_xattr(file, name, value, mode))
    }

    fn remove_xattr(&self, ino: u64, name: &[u8]) -> Result<()> {
        let file = self.file(ino)?;
        self.change(|names| names.remove_xattr(file, name))
    }

    fn sync(&self, done: Done) {
        let mut work = self.portal.work();
        if work.over {
            drop(work);
            return done(self.names().live.commit());
        }
        work.waiting.push(done);
        drop(work);
        self.portal.wake.notify_all();
    }
}

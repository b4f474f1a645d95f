//! An open portal: its state, and the threads that make it durable and publish
//! it.
//!
//! Neighbours: `portals` opens it, a mount shows its [`PortalVolume`];
//! `namespace` and `live` below. Promises: what was done is durable within
//! about a second, and at once when somebody waits for it; it is published a
//! few seconds after writing goes quiet, and while it does not, often enough
//! to bound memory and the next start. Never: lets two processes open one
//! state. Tested by `tests/tests/portal.rs` and `kill.rs`.

mod volume;

pub use volume::PortalVolume;

use crate::asker;
use crate::error::{FlowError, Refusal, Result};
use crate::limits::{
    PUBLISH_AFTER, PUBLISH_BYTES, PUBLISH_CHANGES, PUBLISH_QUIET, SWEEP_AFTER_OPEN, SWEEP_BYTES,
    SWEEP_PERCENT,
};
use crate::live::{Live, Tree};
use crate::members::Membership;
use crate::namespace::Namespace;
use crate::publish;
use crate::scrub::{Pace, Scrub};
use crate::snapshots::Snapshot;
use crate::space::{Room, Taken};
use crate::sweep::Thoroughness;
use crate::volume::Done;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;
use std::panic::AssertUnwindSafe;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use warp_cache::store::Store;
use warp_format::{ChunkId, FileId, SealedChunk};

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
    /// Told of each new head.
    watch: OnceLock<Watch>,
    /// Held for life: one process at a time. Let go when it is closed.
    lock: Mutex<Option<File>>,
}

/// Called when a portal has a new head.
pub type Watch = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Work {
    waiting: Vec<Done>,
    /// When the oldest and the newest unpublished change were made.
    first: Option<Instant>,
    last: Option<Instant>,
    over: bool,
    /// Why the last attempt to publish failed, and when.
    trouble: Option<(Arc<FlowError>, Instant)>,
    /// It was swept since it was opened, or somebody asks for it.
    sweep: SweepWish,
}

/// Whether a sweep is wanted whatever is known of garbage.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum SweepWish {
    /// Once it is quiet: since it was opened, there was none.
    #[default]
    First,
    /// As soon as may be.
    Soon,
    /// No.
    None,
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
    /// Snapshots.
    pub snapshots: u64,
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
            watch: OnceLock::new(),
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
        match work.sweep {
            SweepWish::Soon => true,
            SweepWish::First if since >= SWEEP_AFTER_OPEN => true,
            _ => {
                let (_, stored) = live.stored();
                since >= PUBLISH_QUIET && garbage > SWEEP_BYTES.max(stored / 100 * SWEEP_PERCENT)
            }
        }
    }

    /// Takes from the disk what nothing refers to any more. What it could not
    /// read, `check` names; nothing was taken then.
    fn sweep(&self, thoroughness: Thoroughness) {
        let portal = self.names.live.secrets.portal;
        let started = Instant::now();
        self.work().sweep = SweepWish::None;
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

    /// Publishes, and gives the tree a name under which it stays.
    pub fn make_snapshot(&self, name: &str, tags: Vec<String>) -> Result<Snapshot> {
        let time = crate::namespace::now();
        self.survive(|| self.names.live.make_snapshot(name, time, tags))
    }

    /// Takes a snapshot away; what only it named leaves the disk soon.
    pub fn remove_snapshot(&self, name: &str) -> Result<()> {
        self.names.live.remove_snapshot(name)?;
        self.work().sweep = SweepWish::Soon;
        Ok(())
    }

    /// The snapshot of this name; `FlowError::NoSnapshot` if there is none.
    pub fn snapshot(&self, name: &str) -> Result<Snapshot> {
        self.open_snapshot(name).map(|(snapshot, _)| snapshot)
    }

    /// The same, with its tree.
    pub(crate) fn open_snapshot(&self, name: &str) -> Result<(Snapshot, Arc<Tree>)> {
        self.names.live.open_snapshot(name)
    }

    /// Nobody looks at a snapshot's tree any more: if the snapshot was taken
    /// away meanwhile, what only it named leaves the disk soon.
    fn let_go(&self, tree: Arc<Tree>) {
        if !self.snapshots().iter().any(|snapshot| snapshot.root == *tree.root()) {
            drop(tree);
            self.work().sweep = SweepWish::Soon;
        }
    }

    /// All snapshots, by time.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.names.live.snapshots()
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
        if let (Ok(_), Some(watch)) = (&result, self.watch.get()) {
            watch();
        }
        result.map(|head| head.sequence)
    }

    /// Has `watch` called whenever there may be a new head; once for each
    /// portal that is open.
    pub fn watch(&self, watch: Watch) {
        let _ = self.watch.set(watch);
    }

    /// The last head, as it was signed.
    pub fn head(&self) -> Result<Option<Vec<u8>>> {
        loop {
            let sequence = self.names.live.sequence();
            let head = publish::head_bytes(&*self.names.live.disk, sequence)?;
            // Another one may have taken its place meanwhile.
            if head.is_some() || self.names.live.sequence() == sequence {
                return Ok(head);
            }
        }
    }

    /// The membership chain is so long now, and handed these secrets.
    pub(crate) fn take_membership(&self, now: &Membership) {
        self.names.live.take_membership(now);
    }

    /// A chunk, if it is here.
    pub fn chunk(&self, id: &ChunkId) -> Option<SealedChunk> {
        self.names.live.store.get(id).ok()
    }

    /// The chunks on this disk.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.names.live.store
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
        let store = &self.names.live.store;
        let _ = store.sync().and_then(|()| store.settle());
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
            snapshots: live.snapshots().len() as u64,
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
        Ok(PortalVolume::new(Arc::clone(self), root))
    }
}

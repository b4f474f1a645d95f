//! A portal that this device has joined: it shows what the portal's writer
//! has published, and changes nothing.
//!
//! Neighbours: `peers` hands over heads, a mount shows its [`FollowVolume`];
//! `swarm` and `cache::store` below. Promises: what is shown is one published
//! tree, whole, and the next one after it, never an older; a head is durable
//! before anything of it is shown; nodes that the kernel has seen parts of are
//! here before a tree that changes them is shown, so that a peer that goes
//! away takes nothing along that was known. Never: writes anything but heads
//! and cached chunks. Tested by `engine/flow/tests/follow.rs`.

mod volume;
mod walk;
mod warm;

pub use volume::FollowVolume;
pub use warm::{WarmHow, Warmed};

use crate::archive::TreeKeys;
use crate::error::{FlowError, Refusal, Result};
use crate::heads::{HeadFiles, Heads, is_newer};
use crate::limits::CACHE_BYTES;
use crate::members::Membership;
use crate::reader::TreeReader;
use crate::source::{ChunkSource, note};
use crate::swarm::{Counters, Swarm};
use std::fs::File;
use std::path::Path;
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use volume::Shown;
use warp_cache::disk::Disk;
use warp_cache::store::{Class, Store};
use warp_format::record::{FileType, Inode};
use warp_format::{ChunkId, ChunkRef, FileId, FormatError, Head, PortalId, SealedChunk, Secret};

/// How soon a head that could not be shown is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is here, else what a peer has.
#[derive(Clone)]
pub struct Source {
    pub(crate) store: Arc<Store>,
    pub(crate) swarm: Arc<Swarm>,
}

impl Source {
    /// Of this store and this swarm.
    pub fn new(store: Arc<Store>, swarm: Arc<Swarm>) -> Self {
        Self { store, swarm }
    }
}

impl ChunkSource for Source {
    fn fetch(&self, id: &ChunkId) -> Result<SealedChunk> {
        let began = Instant::now();
        if self.store.contains(id) {
            match self.store.get(id) {
                Ok(chunk) => {
                    note(id, "disk", began);
                    return Ok(chunk);
                }
                // A peer has a whole one.
                Err(e) => tracing::warn!(chunk = %id, "{e}"),
            }
        }
        let chunk = self.swarm.fetch(id)?;
        note(id, "peer", began);
        Ok(chunk)
    }

    fn is_far(&self) -> bool {
        true
    }

    fn expect(&self, soon: &[ChunkRef]) {
        self.swarm.expect(soon);
    }
}

pub(crate) type Tree = TreeReader<Source>;

/// A joined portal that is open.
pub struct Follower {
    portal: PortalId,
    numbers_key: [u8; 32],
    files: HeadFiles,
    source: Source,
    keys: Arc<TreeKeys>,
    state: RwLock<State>,
    news: Mutex<News>,
    /// A head has come, one is shown, or it is over.
    woken: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
    volumes: Mutex<Vec<Weak<Shown>>>,
    /// Held for life: one process at a time.
    lock: Mutex<Option<File>>,
}

#[derive(Default)]
struct State {
    /// The newest head of each device, and its bytes.
    heads: Heads,
    /// What is shown, and of which head.
    shown: Option<(Arc<Tree>, Head)>,
}

#[derive(Default)]
struct News {
    /// To be shown next.
    next: Option<(Head, Vec<u8>)>,
    over: bool,
}

/// How a joined portal stands.
#[derive(Debug, Clone)]
pub struct FollowStatus {
    /// Number of the head that is shown; 0: none yet.
    pub sequence: u64,
    /// Number of the newest head that is known.
    pub newest: u64,
    /// Chunks on this disk.
    pub chunks: u64,
    /// Bytes of packs on this disk.
    pub stored_bytes: u64,
}

impl Follower {
    /// Opens the state on this disk: it shows the last head that was known.
    pub fn start(
        disk: Arc<dyn Disk>,
        portal: PortalId,
        local: &Secret,
        keys: impl Into<Arc<TreeKeys>>,
        (store, swarm): (Arc<Store>, Arc<Swarm>),
        lock: Option<File>,
    ) -> Result<Arc<Self>> {
        let mut state = State::default();
        let files = HeadFiles::new(disk, portal);
        state.heads = files.newest()?;
        let newest = state.heads.values().map(|(head, _)| head).max_by_key(|head| head.sequence);
        let newest = newest.cloned();
        let source = Source { store, swarm };
        let keys = keys.into();
        if let Some(head) = newest {
            let tree = TreeReader::new(source.clone(), Arc::clone(&keys), head.root);
            state.shown = Some((Arc::new(tree), head));
        }
        let follower = Arc::new(Self {
            portal,
            numbers_key: local.for_numbers(),
            files,
            source,
            keys,
            state: RwLock::new(state),
            news: Mutex::default(),
            woken: Condvar::new(),
            thread: Mutex::default(),
            volumes: Mutex::default(),
            lock: Mutex::new(lock),
        });
        let follow = Arc::clone(&follower);
        let thread = std::thread::Builder::new().name("follow".into());
        let thread = thread.spawn(move || follow.keep_following());
        *follower.thread.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(thread.map_err(|e| FlowError::io("thread", e))?);
        Ok(follower)
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn volumes(&self) -> MutexGuard<'_, Vec<Weak<Shown>>> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chunks on this disk.
    pub fn store(&self) -> &Arc<Store> {
        &self.source.store
    }

    /// From now on no peer is asked for chunks, or peers are again.
    pub fn set_offline(&self, offline: bool) {
        self.source.swarm.set_offline(offline);
    }

    /// Most bytes of chunks that are kept because they came once; `None`: the
    /// default.
    pub fn set_cache_limit(&self, bytes: Option<u64>) {
        self.source.swarm.set_cache_limit(bytes.unwrap_or(CACHE_BYTES));
    }

    /// What has come from peers since it was opened.
    pub fn counters(&self) -> &Counters {
        self.source.swarm.counters()
    }

    /// The way to its peers.
    pub(crate) fn swarm(&self) -> &Arc<Swarm> {
        &self.source.swarm
    }

    /// What is shown; `FlowError::Unreachable` before the first head.
    pub(crate) fn tree(&self) -> Result<Arc<Tree>> {
        let state = self.read_state();
        let shown = state.shown.as_ref().map(|(tree, _)| Arc::clone(tree));
        shown.ok_or(FlowError::Unreachable { what: "the portal's first head", id: None, why: None })
    }

    /// The newest heads that are known, as they were signed.
    pub fn heads(&self) -> Vec<Vec<u8>> {
        self.read_state().heads.values().map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Takes a head that a peer told, signed by a device that may publish; it
    /// is shown soon. True if it was new. One that is older than what is known
    /// is passed over; two different ones of one number are an error.
    pub fn take_head(&self, bytes: &[u8]) -> Result<bool> {
        let head = Head::open(bytes)?;
        if head.portal != self.portal {
            return Err(FormatError::Invalid { at: "portal of a head" }.into());
        }
        let mut news = self.news();
        let state = self.read_state();
        let known = state.heads.get(&head.device).map(|(known, _)| known);
        let pending = news.next.as_ref().map(|(next, _)| next);
        for known in known.into_iter().chain(pending).filter(|known| known.device == head.device) {
            if !is_newer(&head, known)? {
                return Ok(false);
            }
        }
        news.next = Some((head, bytes.to_vec()));
        self.woken.notify_all();
        Ok(true)
    }

    /// The membership chain handed this device these secrets.
    pub fn take_membership(&self, now: &Membership) {
        self.keys.take(&now.epochs);
        // A head may wait for them.
        drop(self.news());
        self.woken.notify_all();
    }

    /// Shows what comes, the newest first.
    fn keep_following(&self) {
        let mut failing = false;
        loop {
            let (head, bytes) = {
                let mut news = self.news();
                loop {
                    if news.over {
                        return;
                    }
                    if let Some(next) = news.next.clone() {
                        break next;
                    }
                    news = self.woken.wait(news).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let sequence = head.sequence;
            match self.show(&head, &bytes) {
                Ok(()) => {
                    tracing::info!(portal = %self.portal, sequence, "shows a new head");
                    failing = false;
                    let mut news = self.news();
                    news.next.take_if(|(next, _)| *next == head);
                    drop(news);
                    self.woken.notify_all();
                }
                Err(e) => {
                    if !failing {
                        tracing::warn!(portal = %self.portal, sequence, "cannot show a head yet: {e}");
                    }
                    failing = true;
                    let news = self.news();
                    if !news.over {
                        drop(self.woken.wait_timeout(news, RETRY_AFTER));
                    }
                }
            }
        }
    }

    /// Shows a head, once everything of it is here that takes the place of
    /// what was seen.
    fn show(&self, head: &Head, bytes: &[u8]) -> Result<()> {
        let old = self.read_state().shown.as_ref().map(|(tree, _)| Arc::clone(tree));
        let new = match &old {
            Some(old) => Arc::new(old.at_root(head.root)),
            None => {
                let keys = Arc::clone(&self.keys);
                Arc::new(TreeReader::new(self.source.clone(), keys, head.root))
            }
        };
        // Until the records come that hand it over, the tree before is shown.
        let ChunkRef { id, epoch, .. } = head.root;
        if epoch > self.keys.sealer().epoch() {
            return Err(FormatError::NotHanded { id, epoch }.into());
        }
        let volumes: Vec<_> = self.volumes().iter().filter_map(Weak::upgrade).collect();
        let mut stale = Vec::new();
        if let Some(old) = &old {
            for volume in &volumes {
                stale.push(volume.changed_between(old, &new)?);
            }
        }
        self.files.keep(head, bytes)?;
        {
            let mut state = self.write_state();
            state.heads.insert(head.device, (head.clone(), bytes.to_vec()));
            state.shown = Some((new, head.clone()));
        }
        for (volume, stale) in volumes.iter().zip(stale) {
            volume.tell(&stale);
        }
        Ok(())
    }

    /// Waits until there is something to show; false if there is nothing yet.
    pub fn wait_for_head(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut news = self.news();
        loop {
            if self.read_state().shown.is_some() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || news.over {
                return false;
            }
            let woken = self.woken.wait_timeout(news, left);
            news = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How it stands.
    pub fn status(&self) -> FollowStatus {
        // `news` before `state`, as everywhere: the other way round, a writer
        // that waits for `state` would hold both for ever.
        let next = self.news().next.as_ref().map_or(0, |(head, _)| head.sequence);
        let usage = self.source.store.usage(Class::Cached);
        let state = self.read_state();
        let sequence = state.shown.as_ref().map_or(0, |(_, head)| head.sequence);
        let newest = state.heads.values().map(|(head, _)| head.sequence).max().unwrap_or(0);
        FollowStatus {
            sequence,
            newest: newest.max(next),
            chunks: usage.chunks as u64,
            stored_bytes: usage.bytes,
        }
    }

    /// Ends what works on it; what the kernel still asks is answered from what
    /// is here.
    pub fn close(&self) -> Result<()> {
        self.news().over = true;
        self.woken.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // One that panicked has said so.
            let _ = thread.join();
        }
        let store = &self.source.store;
        let settled = store.sync().and_then(|()| store.settle());
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(settled?)
    }

    /// A volume that shows the directory at `path` (`/`: all of it) as its
    /// root. `FlowError::NotFound` if it is not there.
    pub fn volume(self: &Arc<Self>, path: &Path) -> Result<FollowVolume> {
        let root = self.resolve(path)?;
        let volume = FollowVolume::new(Arc::clone(self), self.numbers_key, root);
        let mut volumes = self.volumes();
        volumes.retain(|volume| volume.strong_count() > 0);
        volumes.push(volume.shown());
        drop(volumes);
        Ok(volume)
    }

    fn resolve(&self, path: &Path) -> Result<FileId> {
        let (at, inode) = Self::find(&*self.tree()?, path)?;
        match inode.file_type() {
            FileType::Directory => Ok(at),
            _ => Err(Refusal::NotADirectory.into()),
        }
    }

    /// What is at a path of the portal.
    fn find(tree: &Tree, path: &Path) -> Result<(FileId, Inode)> {
        let missing = || FlowError::NotFound { path: path.into() };
        let at = tree.resolve(path)?;
        Ok((at, tree.attributes(at)?.ok_or_else(missing)?.inode))
    }
}

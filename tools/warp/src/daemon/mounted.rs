//! One mount of a portal, from the first request to the last published byte.

use super::edge::of_portal;
use super::wire::{MountRow, Standing};
use crate::places::is_archive_mount;
use crate::report::{Exit, Failure};
use crate::show;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use warp_flow::FlowError;
use warp_flow::opened::Opened;
use warp_flow::portal::PortalStatus;
use warp_flow::portals::PortalEntry;
use warp_format::PortalId;
use warp_fs::{Mount, mounts, unmount};

/// How long files may stay open after a lazy unmount before it is said.
pub(super) const WAIT_FOR_LAZY: Duration = Duration::from_secs(2);

/// A portal that is mounted.
pub(crate) struct Mounted {
    pub(crate) directory: PathBuf,
    pub(crate) id: String,
    short_id: PortalId,
    name: String,
    path: PathBuf,
    read_only: bool,
    portal: Opened,
    /// It stays open when the mount ends: peers read it.
    shared: AtomicBool,
    /// Counts what the kernel handed over and was refused.
    refused: Arc<AtomicU64>,
    /// As many as there were when the kernel last had to tell of failures.
    told: AtomicU64,
    /// Publish when it ends.
    flush: AtomicBool,
    /// It was unmounted lazily.
    detached: AtomicBool,
    closed: AtomicBool,
    end: Mutex<End>,
    ended: Condvar,
}

#[derive(Default)]
struct End {
    /// The kernel asks nothing any more.
    unmounted: bool,
    failure: Option<Failure>,
    /// The portal is closed and free.
    over: bool,
}

impl Mounted {
    pub(crate) fn new(
        entry: &PortalEntry,
        path: PathBuf,
        mount: &Mount,
        read_only: bool,
        (portal, shared): (Opened, bool),
    ) -> Self {
        Self {
            directory: mount.directory().into(),
            refused: mount.refused(),
            told: AtomicU64::new(0),
            id: format!("{:#}", entry.id),
            short_id: entry.id,
            name: entry.name.clone(),
            path,
            read_only,
            portal,
            shared: AtomicBool::new(shared),
            flush: AtomicBool::new(true),
            detached: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            end: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the kernel until it is unmounted, by whomever; then publishes
    /// and closes the portal.
    pub(crate) fn serve(&self, mount: Mount) {
        if let Err(e) = mount.run() {
            tracing::warn!(portal = %self.short_id, error = %e, "the mount ended by itself");
        }
        tracing::info!(portal = %self.short_id, "unmounted");
        self.end().unmounted = true;
        self.close();
    }

    /// Publishes, unless told not to, and closes the portal; once.
    pub(crate) fn close(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        let flush = self.flush.load(Ordering::SeqCst);
        let closed = match (self.is_shared(), flush) {
            (true, true) => self.portal.publish().map(drop),
            (true, false) => self.portal.commit(),
            (false, true) => self.portal.close(),
            (false, false) => self.portal.close_unpublished(),
        };
        match closed {
            Ok(()) => tracing::info!(portal = %self.short_id, published = flush, "closed"),
            Err(e) => {
                tracing::error!(portal = %self.short_id, error = %e, "not published");
                // It ends the portal's threads and frees its lock, at least;
                // or else it stays open, and tries again by itself.
                let kept = self.is_shared() || self.portal.close_unpublished().is_ok();
                self.end().failure = Some(self.not_published(e, kept));
            }
        }
    }

    fn not_published(&self, error: FlowError, kept: bool) -> Failure {
        let failure = of_portal(error);
        let at = self.directory.display();
        let cause = format!("{at}: is unmounted, but not published: {}", failure.cause);
        let hint = if kept {
            format!(
                "it is kept in the journal; mount {} again, then `warp sync`",
                show::word(Path::new(&self.name))
            )
        } else {
            "what was not synced before is lost; the log says more".into()
        };
        Failure { cause, hint: Some(hint), exit: failure.exit }
    }

    /// Has the kernel write what it still keeps to itself. Who asks that is
    /// also told, once, of failures long past and known to whom they concerned,
    /// and of what was none: of a process that was killed in the middle of a
    /// change, or wrote into a snapshot through a shared map. So an error counts
    /// only if something has been refused since this was asked the last time.
    pub(super) fn write_back(&self) -> Result<(), FlowError> {
        if self.is_detached() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let before = self.refused.load(Ordering::SeqCst);
        let done = rustix::fs::open(&self.directory, flags, Mode::empty()).and_then(|directory| {
            let first = rustix::fs::syncfs(&directory);
            let refused = self.refused.load(Ordering::SeqCst);
            // What is refused from now on, nobody has been told.
            let is_new = self.told.swap(before, Ordering::SeqCst) != refused;
            match first {
                Err(e) if !is_new || e == Errno::ROFS => rustix::fs::syncfs(&directory),
                first => first,
            }
        });
        done.map_err(|e| FlowError::io(&self.directory, e))
    }

    /// Makes what was written safe before the mount goes: where that fails, it
    /// had better stay.
    pub(crate) fn settle(&self, flush: bool) -> Result<(), Failure> {
        if self.is_detached() {
            return Ok(());
        }
        let publish = || if flush { self.portal.publish().map(drop) } else { self.portal.commit() };
        self.write_back().and_then(|()| publish()).map_err(|e| {
            let failure = of_portal(e);
            let at = self.directory.display();
            let cause = format!("{at}: stays mounted, as it cannot be saved: {}", failure.cause);
            let typed = show::word(&self.directory);
            let hint = format!(
                "make room and try again; `warp umount --lazy {typed}` gives up what was not synced"
            );
            Failure { cause, hint: Some(hint), exit: failure.exit }
        })
    }

    /// Its thread came to grief; what was durable is in the journal.
    pub(crate) fn fail(&self) {
        let mut end = self.end();
        end.unmounted = true;
        let cause =
            format!("{}: the daemon failed in the middle of this", self.directory.display());
        end.failure = Some(
            Failure::new(Exit::Failed, cause)
                .hint("its log says more: `warp info` shows where it is"),
        );
    }

    /// Tells all who wait for it.
    pub(crate) fn tell_the_end(&self) {
        self.end().over = true;
        self.ended.notify_all();
    }

    /// True once the kernel asks nothing any more.
    pub(crate) fn is_over(&self) -> bool {
        self.end().unmounted
    }

    /// True if it is gone from its directory: files in it are still open, or
    /// it was unmounted by somebody else a moment ago.
    pub(crate) fn is_detached(&self) -> bool {
        let here = |mount: &warp_fs::Mounted| {
            mount.directory == self.directory && mount.is_ours() && !is_archive_mount(mount)
        };
        self.detached.load(Ordering::SeqCst) || !mounts().iter().any(here)
    }

    /// Takes it from its directory.
    pub(crate) fn unmount(&self, lazy: bool, flush: bool) -> io::Result<()> {
        self.flush.store(flush, Ordering::SeqCst);
        let done = if self.is_detached() { Ok(()) } else { unmount(&self.directory, lazy) };
        match &done {
            Ok(()) => {
                self.detached.fetch_or(lazy, Ordering::SeqCst);
            }
            // It goes on as before.
            Err(_) => self.flush.store(true, Ordering::SeqCst),
        }
        done
    }

    /// Waits until it is over: the portal published, closed and free.
    /// `None` if it is not within this time.
    pub(crate) fn wait_until_over(&self, limit: Duration) -> Option<Result<(), Failure>> {
        let until = Instant::now() + limit;
        let mut end = self.end();
        while !end.over {
            let left = until.checked_duration_since(Instant::now())?;
            let waited = self.ended.wait_timeout(end, left);
            end = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(match &end.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        })
    }

    /// The same without a limit, unless files are still open after a lazy
    /// unmount: then what was written so far is published instead.
    pub(crate) fn wait_for_the_end(&self) -> Result<(), Failure> {
        loop {
            if let Some(done) = self.wait_until_over(WAIT_FOR_LAZY) {
                return done;
            }
            if self.is_detached() && !self.is_over() {
                break;
            }
        }
        if self.flush.load(Ordering::SeqCst) { self.publish().map(|_| ()) } else { Ok(()) }
    }

    /// The directory of the portal that is shown.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn portal(&self) -> &Opened {
        &self.portal
    }

    /// True if it stays open when the mount ends.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::SeqCst)
    }

    /// From now on it stays open when the mount ends, or not.
    pub(super) fn set_shared(&self, shared: bool) {
        self.shared.store(shared, Ordering::SeqCst);
    }

    /// Everything written so far is durable and published.
    pub(crate) fn sync(&self) -> Result<u64, Failure> {
        self.write_back().map_err(of_portal)?;
        self.publish()
    }

    fn publish(&self) -> Result<u64, Failure> {
        let sequence = self.portal.publish().map_err(of_portal)?;
        tracing::info!(portal = %self.short_id, sequence, "published");
        Ok(sequence)
    }

    pub(crate) fn standing(&self) -> Standing {
        standing(&self.portal.status())
    }

    pub(crate) fn row(&self) -> MountRow {
        MountRow {
            portal: self.name.clone(),
            id: self.id.clone(),
            path: self.path.as_path().into(),
            directory: self.directory.as_path().into(),
            read_only: self.read_only,
            detached: self.is_detached(),
            standing: self.standing(),
        }
    }
}

/// How far a portal is, for the wire.
pub(crate) fn standing(status: &PortalStatus) -> Standing {
    Standing {
        sequence: status.sequence,
        chunks: status.chunks,
        stored_bytes: status.stored_bytes,
        unpublished_bytes: status.unpublished_bytes,
        unpublished_changes: status.unpublished_changes,
        quota_bytes: status.quota,
        snapshots: status.snapshots,
        trouble: status.trouble.clone(),
        damaged_chunks: status.damaged_chunks,
        scrubbed: status.scrubbed,
    }
}

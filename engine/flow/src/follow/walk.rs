//! What a walk through a joined portal will come to, before it does.
//!
//! Neighbours: `volume` says what is listed and read; `reader` and `swarm`
//! fetch. Promises: nobody waits for it; it asks for no more than so many bytes
//! beyond what was read of a directory, and for nothing where only one file is
//! looked at. Never: opens what it asks for, or keeps the last use of a portal.
//! Tested by `engine/flow/tests/follow.rs`.

use super::{Follower, Tree};
use crate::error::Result;
use crate::limits::{AHEAD_BYTES, AHEAD_FIRST_BYTES, WALK_DIRS, WALK_PAGE, WALK_QUEUE, WALKS};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use warp_format::record::{Body, FileType, Key, KeyKind};
use warp_format::{FileId, NameHash};

/// Files up to this long are asked for with their neighbours; longer ones have
/// a read-ahead of their own.
const SMALL: u64 = AHEAD_FIRST_BYTES;

/// Watches who walks, and runs ahead.
pub(super) struct Walks {
    seen: Mutex<Seen>,
    steps: SyncSender<Step>,
}

#[derive(Default)]
struct Seen {
    /// In which directory the kernel came upon an inode the last time.
    parents: HashMap<FileId, FileId>,
    dirs: HashMap<FileId, Dir>,
}

/// What was done in a directory.
#[derive(Default)]
struct Dir {
    /// Its files that were read, and how many were asked for ahead.
    read: Children,
    asked: u64,
    /// How many bytes of them the next step asks for; up to where they were.
    budget: u64,
    place: Option<NameHash>,
    all: bool,
    /// A step is under way.
    busy: bool,
    /// Its directories that were listed.
    listed: Children,
    gathered: bool,
}

/// Counts children, each once if they come one after the other.
#[derive(Default)]
struct Children {
    last: Option<FileId>,
    count: u64,
}

impl Children {
    fn note(&mut self, child: FileId) {
        if self.last != Some(child) {
            (self.last, self.count) = (Some(child), self.count + 1);
        }
    }
}

enum Step {
    /// The content of the next small files in a directory.
    Content { dir: FileId, place: Option<NameHash>, budget: u64 },
    /// What the directories in a directory list.
    Listings { dir: FileId },
}

impl Walks {
    /// For as long as the follower is there.
    pub(super) fn start(follower: &Arc<Follower>) -> Arc<Self> {
        let (steps, next) = sync_channel(WALK_QUEUE);
        let walks = Arc::new(Self { seen: Mutex::default(), steps });
        let (follower, mine) = (Arc::downgrade(follower), Arc::downgrade(&walks));
        let thread = std::thread::Builder::new().name("walk".into());
        if let Err(e) = thread.spawn(move || run(&next, &follower, &mine)) {
            // Without it every file is fetched when it is read.
            tracing::warn!("a thread cannot be started: {e}");
        }
        walks
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel was shown an inode in this directory.
    pub(super) fn found(&self, parent: FileId, child: FileId) {
        let mut seen = self.seen();
        if seen.parents.len() >= WALKS {
            seen.parents.clear();
        }
        seen.parents.insert(child, parent);
    }

    /// The kernel has forgotten it.
    pub(super) fn forgotten(&self, file: FileId) {
        let mut seen = self.seen();
        seen.parents.remove(&file);
        seen.dirs.remove(&file);
    }

    /// Another tree is shown: what it has was not asked for.
    pub(super) fn restart(&self) {
        self.seen().dirs.clear();
    }

    /// A small file is read from its start.
    pub(super) fn reads(&self, file: FileId) {
        let mut seen = self.seen();
        let Some((parent, dir)) = seen.dir_of(file) else { return };
        dir.read.note(file);
        // The second says that it may be all of them; from then on it is asked
        // for more when half of what was asked for was read.
        let is_due = dir.read.count >= 2 && 2 * dir.read.count >= dir.asked;
        if !is_due || dir.all || dir.busy {
            return;
        }
        dir.budget = (2 * dir.budget).clamp(AHEAD_FIRST_BYTES, AHEAD_BYTES);
        let step = Step::Content { dir: parent, place: dir.place, budget: dir.budget };
        dir.busy = self.steps.try_send(step).is_ok();
    }

    /// A directory is listed from its start.
    pub(super) fn lists(&self, file: FileId) {
        let mut seen = self.seen();
        let Some((parent, dir)) = seen.dir_of(file) else { return };
        dir.listed.note(file);
        if dir.listed.count >= 2 && !dir.gathered {
            dir.gathered = self.steps.try_send(Step::Listings { dir: parent }).is_ok();
        }
    }

    fn asked(&self, dir: FileId, files: u64, place: Option<NameHash>) {
        if let Some(dir) = self.seen().dirs.get_mut(&dir) {
            (dir.asked, dir.busy) = (dir.asked + files, false);
            (dir.all, dir.place) = (place.is_none(), place);
        }
    }
}

impl Seen {
    fn dir_of(&mut self, file: FileId) -> Option<(FileId, &mut Dir)> {
        let parent = *self.parents.get(&file)?;
        if self.dirs.len() >= WALKS && !self.dirs.contains_key(&parent) {
            self.dirs.clear();
        }
        Some((parent, self.dirs.entry(parent).or_default()))
    }
}

fn run(steps: &Receiver<Step>, follower: &Weak<Follower>, walks: &Weak<Walks>) {
    while let Ok(step) = steps.recv() {
        let (Some(follower), Some(walks)) = (follower.upgrade(), walks.upgrade()) else { return };
        let Ok(tree) = follower.tree() else { continue };
        let done = match step {
            Step::Content { dir, place, budget } => content(&tree, dir, place, budget)
                .map(|(files, place)| walks.asked(dir, files, place)),
            Step::Listings { dir } => listings(&tree, dir),
        };
        if let Err(e) = done {
            // Whoever comes there is told; until then this directory is left.
            tracing::debug!("nothing is fetched ahead of a walk: {e}");
        }
    }
}

/// Asks for small files behind `place`, in the order in which a directory is
/// listed. Gives how many, and where to go on if there may be more.
fn content(
    tree: &Tree,
    dir: FileId,
    mut place: Option<NameHash>,
    budget: u64,
) -> Result<(u64, Option<NameHash>)> {
    let (mut files, mut bytes) = (0, 0);
    loop {
        let entries = tree.entries_after(dir, place, WALK_PAGE)?;
        let attributes = tree.described(&entries)?;
        let is_last = entries.len() < WALK_PAGE;
        for ((at, dentry), found) in entries.iter().zip(attributes) {
            place = Some(*at);
            let Some(inode) = found.map(|found| found.inode) else { continue };
            if inode.size > SMALL || !matches!(inode.body, Body::Extents(_)) {
                continue;
            }
            tree.expect(&tree.extents(dentry.file, 0, inode.size, inode.size)?);
            (files, bytes) = (files + 1, bytes + inode.size);
            if bytes >= budget {
                return Ok((files, place));
            }
        }
        if is_last {
            return Ok((files, None));
        }
    }
}

/// Fetches what the directories in a directory list, and what that leads to.
fn listings(tree: &Tree, dir: FileId) -> Result<()> {
    let entries = tree.entries_after(dir, None, WALK_DIRS)?;
    let dirs = entries.iter().filter(|(_, dentry)| dentry.file_type == FileType::Directory);
    let mut dirs: Vec<FileId> = dirs.map(|(_, dentry)| dentry.file).collect();
    dirs.sort_unstable();
    let first = |dir: &FileId| Key::new(*dir, KeyKind::Dentry(NameHash([0; 16]))).to_bytes();
    let keys: Vec<_> = dirs.iter().map(first).collect();
    tree.gather(&keys)?;
    for dir in dirs {
        let entries = tree.entries_after(dir, None, WALK_PAGE)?;
        tree.described(&entries)?;
    }
    Ok(())
}

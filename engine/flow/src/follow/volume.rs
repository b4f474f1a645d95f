//! A joined portal as a volume: read-only, and it changes as its writer
//! publishes.
//!
//! Neighbours: `fs`, which asks; `follow` says which tree is shown. Promises:
//! each request is answered from one tree; of what the kernel knows, it is
//! told what another tree has otherwise. Never: changes anything; lets the
//! kernel keep a name for longer than a moment without asking.
//! Tested by `engine/flow/tests/follow.rs` and `tests/tests/peers.rs`.

use super::walk::Walks;
use super::{Follower, Tree};
use crate::about::{self, About, Whole};
use crate::error::{FlowError, Refusal, Result};
use crate::limits::{AHEAD_FILES, AHEAD_FIRST_BYTES};
use crate::numbers::{Node, Numbers};
use crate::reader::{Attributes, check_type};
use crate::volume::{Attr, Changed, DirEntry, Space, Volume};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use warp_format::record::{Body, Dentry, FileType, Inode};
use warp_format::{FileId, NameHash};

/// How long the kernel keeps names and attributes without asking.
const LIFETIME: Duration = Duration::from_secs(1);

/// A joined portal as a volume.
pub struct FollowVolume {
    follower: Arc<Follower>,
    shown: Arc<Shown>,
    ahead: Mutex<HashMap<FileId, Ahead>>,
}

/// What the kernel has been shown.
pub(crate) struct Shown {
    numbers: Numbers,
    walks: Arc<Walks>,
    changed: OnceLock<Changed>,
}

/// How far a file that is read from its start on has been asked for.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    /// Where the next read begins if it goes on.
    next: u64,
    /// Asked for up to here.
    asked: u64,
    /// How far ahead of a read.
    window: u64,
}

impl Shown {
    /// Of the inodes that the kernel knows those that differ, by number. It
    /// has looked at all of them in the new tree then.
    pub(super) fn changed_between(&self, old: &Tree, new: &Tree) -> Result<Vec<u64>> {
        let mut stale = Vec::new();
        let (mut before, mut after) = (old.inodes(), new.inodes());
        for (file, number) in self.numbers.live() {
            let was = there(before.attributes(file))?.map(|found| (found.inode, found.links));
            let is = there(after.attributes(file))?.map(|found| (found.inode, found.links));
            if was != is {
                stale.push(number);
            }
        }
        Ok(stale)
    }

    /// Tells the kernel.
    pub(super) fn tell(&self, stale: &[u64]) {
        self.walks.restart();
        if let Some(changed) = self.changed.get() {
            stale.iter().for_each(|number| changed(*number));
        }
    }
}

/// An inode that this tree does not have is no damage: another has it.
fn there(found: Result<Option<Attributes>>) -> Result<Option<Attributes>> {
    match found {
        Err(FlowError::Lost { .. }) => Ok(None),
        other => other,
    }
}

fn shown(ino: u64, Attributes { inode, links }: Attributes) -> Attr {
    Attr { ino, inode, links }
}

impl FollowVolume {
    pub(super) fn new(follower: Arc<Follower>, key: [u8; 32], root: FileId) -> Self {
        let numbers = Numbers::new(key, root);
        let walks = Walks::start(&follower);
        let shown = Arc::new(Shown { numbers, walks, changed: OnceLock::new() });
        Self { follower, shown, ahead: Mutex::default() }
    }

    pub(super) fn shown(&self) -> Weak<Shown> {
        Arc::downgrade(&self.shown)
    }

    fn numbers(&self) -> &Numbers {
        &self.shown.numbers
    }

    fn file(&self, ino: u64) -> Result<FileId> {
        self.numbers().node(ino).map(|node| node.file).ok_or_else(|| Refusal::Missing.into())
    }

    /// Answers from the tree that is shown; once more if another one is shown
    /// by then: what only the old one named may be gone from everywhere.
    fn ask<T>(&self, act: impl Fn(&Tree) -> Result<T>) -> Result<T> {
        let tree = self.follower.tree()?;
        match act(&tree) {
            Err(e) if e.kind() == crate::Kind::Integrity || e.is_unreachable() => {
                let now = self.follower.tree()?;
                if now.root() == tree.root() { Err(e) } else { act(&now) }
            }
            other => other,
        }
    }

    fn regular(tree: &Tree, file: FileId) -> Result<Inode> {
        let inode = there(tree.attributes(file))?.ok_or(Refusal::Missing)?.inode;
        match inode.file_type() {
            FileType::Regular => Ok(inode),
            FileType::Directory => Err(Refusal::IsADirectory.into()),
            _ => Err(Refusal::Invalid.into()),
        }
    }

    /// Asks for what will be read next, if a file is read from one end to the
    /// other.
    fn read_ahead(&self, tree: &Tree, file: FileId, inode: &Inode, read: (u64, u64)) -> Result<()> {
        let (offset, end) = read;
        let Body::Extents(_) = inode.body else { return Ok(()) };
        let most = self.follower.swarm().ahead();
        let (from, to) = {
            let mut files = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            if files.len() > AHEAD_FILES {
                files.clear();
            }
            let fresh = Ahead { next: offset, asked: offset, window: AHEAD_FIRST_BYTES };
            let ahead = files.entry(file).or_insert(fresh);
            // The kernel's own read-ahead may be a little out of order.
            let goes_on =
                offset <= ahead.next + AHEAD_FIRST_BYTES && end + AHEAD_FIRST_BYTES >= ahead.next;
            if !goes_on {
                *ahead = Ahead { window: 0, ..fresh };
            } else if end > ahead.next {
                ahead.window = (2 * ahead.window.max(AHEAD_FIRST_BYTES / 2)).min(most);
            }
            ahead.next = ahead.next.max(end);
            let to = inode.size.min(end.saturating_add(ahead.window));
            let from = ahead.asked.max(offset);
            // In steps: each looks up extents.
            if from >= to || (to < inode.size && to - from < ahead.window / 4 && from >= end) {
                return Ok(());
            }
            ahead.asked = to;
            (from, to)
        };
        tree.expect(&tree.extents(file, from, to, inode.size)?);
        Ok(())
    }

    /// Attributes of what a name leads to.
    fn described(tree: &Tree, dentry: &Dentry) -> Result<Option<Attributes>> {
        let found = tree.attributes(dentry.file)?;
        found.as_ref().map_or(Ok(()), |found| check_type(dentry, found))?;
        Ok(found)
    }
}

impl Volume for FollowVolume {
    fn lifetime(&self, _ino: u64) -> Duration {
        LIFETIME
    }

    fn watch(&self, changed: Changed) {
        // A volume is mounted once.
        let _ = self.shown.changed.set(changed);
    }

    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>> {
        let parent = self.file(parent)?;
        let found = self.ask(|tree| match tree.lookup(parent, name)? {
            Some(dentry) => Ok(Self::described(tree, &dentry)?.map(|found| (dentry.file, found))),
            None => Ok(None),
        })?;
        Ok(found.map(|(file, found)| {
            self.shown.walks.found(parent, file);
            shown(self.numbers().retain(Node::live(file)), found)
        }))
    }

    fn retain(&self, parent: u64, entry: &DirEntry) {
        if let Ok(parent) = self.file(parent) {
            self.shown.walks.found(parent, entry.file);
        }
        self.numbers().retain(Node::live(entry.file));
    }

    fn forget(&self, ino: u64, count: u64) {
        if let Some(node) = self.numbers().forget(ino, count) {
            self.ahead.lock().unwrap_or_else(PoisonError::into_inner).remove(&node.file);
            self.shown.walks.forgotten(node.file);
        }
    }

    fn attr(&self, ino: u64) -> Result<Option<Attr>> {
        let file = self.file(ino)?;
        let found = self.ask(|tree| there(tree.attributes(file)))?;
        Ok(found.map(|found| shown(ino, found)))
    }

    fn read(&self, ino: u64, offset: u64, len: usize) -> Result<Vec<u8>> {
        let file = self.file(ino)?;
        self.ask(|tree| {
            let inode = Self::regular(tree, file)?;
            let end = inode.size.min(offset.saturating_add(len as u64));
            if offset == 0 {
                self.shown.walks.reads(file);
            }
            if offset < end {
                self.read_ahead(tree, file, &inode, (offset, end))?;
            }
            tree.read(file, &inode, offset, len)
        })
    }

    fn entries(
        &self,
        ino: u64,
        place: Option<NameHash>,
        limit: usize,
        plus: bool,
    ) -> Result<Vec<DirEntry>> {
        let dir = self.file(ino)?;
        if place.is_none() {
            self.shown.walks.lists(dir);
        }
        self.ask(|tree| {
            let entries = tree.entries_after(dir, place, limit)?;
            let attributes = match plus {
                true => tree.described(&entries)?,
                false => vec![None; entries.len()],
            };
            let each = entries.into_iter().zip(attributes).map(|((place, dentry), attributes)| {
                let ino = self.numbers().number(Node::live(dentry.file));
                let attr = attributes.map(|found| shown(ino, found));
                let (file, file_type) = (dentry.file, dentry.file_type);
                DirEntry {
                    place,
                    name: dentry.name.as_bytes().to_vec(),
                    file,
                    ino,
                    file_type,
                    attr,
                }
            });
            Ok(each.collect())
        })
    }

    fn xattr(&self, ino: u64, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let file = self.file(ino)?;
        if !about::is_reserved(name) {
            return self.ask(|tree| Ok(tree.xattr(file, name)?.map(|xattr| xattr.value)));
        }
        let Some(what @ (About::Chunks | About::Hash)) = About::named(name) else {
            return Ok(None);
        };
        self.ask(|tree| {
            let inode = there(tree.attributes(file))?.ok_or(Refusal::Missing)?.inode;
            if inode.file_type() != FileType::Regular {
                return Ok(None);
            }
            Ok(Whole::of(tree, file, &inode)?.says(what, &tree.keys().naming, inode.size))
        })
    }

    fn xattrs(&self, ino: u64) -> Result<Vec<Vec<u8>>> {
        let file = self.file(ino)?;
        let all = self.ask(|tree| tree.xattrs(file))?.into_iter().map(|xattr| xattr.name);
        Ok(all.filter(|name| !about::is_reserved(name)).collect())
    }

    fn seek(&self, ino: u64, offset: u64, hole: bool) -> Result<Option<u64>> {
        let file = self.file(ino)?;
        self.ask(|tree| {
            let inode = Self::regular(tree, file)?;
            tree.seek(file, &inode, offset, hole)
        })
    }

    fn space(&self) -> Result<Space> {
        // All of it that is here; there is no room for more.
        let stored = self.follower.status().stored_bytes;
        Ok(Space { bytes: stored, ..Space::default() })
    }
}

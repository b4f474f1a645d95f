//! A portal as a volume: its inodes under numbers, and its snapshots beside
//! them.
//!
//! Neighbours: `fs`, which asks; `namespace` does what changes something,
//! `snapshots` says what else there is to see. Promises: `.snapshots` in the
//! root leads to every snapshot, and no listing shows it; what is in there
//! never changes, has numbers of its own, and stays while the kernel knows any
//! of it. Never: takes a change of anything but what is live.
//! Tested by `engine/flow/tests/snapshots.rs` and `portal_volume.rs`.

use super::{Portal, SOFT_LIMIT};
use crate::about::{self, About, Whole};
use crate::error::{FlowError, Refusal, Result};
use crate::live::{Below, Tree};
use crate::namespace::{COPY_BYTES, Namespace, Source};
use crate::numbers::{Node, Numbers};
use crate::reader::{Attributes, check_type};
use crate::snapshots::Snapshot;
use crate::volume::{
    Allocate, Attr, DirEntry, Done, FOREVER, NewInode, RenameMode, SetAttr, Space, Volume,
    XattrMode,
};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use warp_format::record::{Body, Dentry, FileType, Inode, Stamp, UNCOUNTED};
use warp_format::{FileId, NameHash};

/// The name of the directory of all snapshots, in the root of a mount.
const SNAPSHOTS: &[u8] = b".snapshots";

/// A portal as a volume.
pub struct PortalVolume {
    portal: Arc<Portal>,
    numbers: Numbers,
    /// Trees of the snapshots of which the kernel knows an inode, by view.
    views: Mutex<HashMap<u32, Arc<Tree>>>,
}

/// What is behind a number.
enum Place {
    Live(FileId),
    /// The directory of all snapshots.
    Snapshots,
    /// In a snapshot.
    View(View),
}

/// One inode of a snapshot, and the tree that has it.
struct View {
    number: u32,
    tree: Arc<Tree>,
    file: FileId,
}

impl View {
    fn node(&self, file: FileId) -> Node {
        Node { file, view: self.number }
    }

    /// Attributes of this inode.
    fn attributes(&self) -> Result<Attributes> {
        self.tree.attributes(self.file)?.ok_or_else(|| Refusal::Missing.into())
    }

    /// What is to be said of this inode.
    fn about(&self, what: About) -> Result<Option<Vec<u8>>> {
        let inode = self.attributes()?.inode;
        match what {
            About::State => Ok(Some(about::LOCAL.to_vec())),
            About::Replicas => Ok(Some(about::ONE.to_vec())),
            _ if inode.file_type() != FileType::Regular => Ok(None),
            _ => {
                let whole = Whole::of(&*self.tree, self.file, &inode)?;
                Ok(whole.says(what, &self.tree.keys().naming, inode.size))
            }
        }
    }

    /// Attributes of what a name in it leads to.
    fn attributes_of(&self, dentry: &Dentry) -> Result<Option<Attributes>> {
        let found = self.tree.attributes(dentry.file)?;
        found.as_ref().map_or(Ok(()), |found| check_type(dentry, found))?;
        Ok(found)
    }
}

impl PortalVolume {
    pub(super) fn new(portal: Arc<Portal>, root: FileId) -> Self {
        let key = portal.names.live.secrets.local.for_numbers();
        Self { portal, numbers: Numbers::new(key, root), views: Mutex::default() }
    }

    fn names(&self) -> &Namespace {
        &self.portal.names
    }

    fn views(&self) -> MutexGuard<'_, HashMap<u32, Arc<Tree>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, ino: u64) -> Result<Place> {
        self.portal.note_request();
        match self.numbers.node(ino) {
            Some(Node::SNAPSHOTS) => Ok(Place::Snapshots),
            Some(Node { file, view: 0 }) => Ok(Place::Live(file)),
            Some(Node { file, view }) => {
                let tree = self.views().get(&view).map(Arc::clone).ok_or(Refusal::Missing)?;
                Ok(Place::View(View { number: view, tree, file }))
            }
            None => Err(Refusal::Missing.into()),
        }
    }

    /// An inode that is to be changed.
    fn live(&self, ino: u64) -> Result<FileId> {
        self.portal.note_request();
        match self.numbers.node(ino) {
            Some(node) if node.is_live() => Ok(node.file),
            Some(_) => Err(Refusal::ReadOnly.into()),
            None => Err(Refusal::Missing.into()),
        }
    }

    /// A directory in which this name is to be made, moved or taken away.
    fn changing(&self, parent: u64, name: &[u8]) -> Result<FileId> {
        let file = self.live(parent)?;
        if self.is_snapshots(file, name) { Err(Refusal::ReadOnly.into()) } else { Ok(file) }
    }

    fn is_snapshots(&self, parent: FileId, name: &[u8]) -> bool {
        name == SNAPSHOTS && Node::live(parent) == self.numbers.root()
    }

    /// The attributes of an inode that the kernel is told of.
    fn told(&self, file: FileId) -> Result<Option<Attr>> {
        let found = self.names().attributes(file)?;
        Ok(found.map(|found| shown(self.numbers.retain(Node::live(file)), found)))
    }

    /// Those of the directory of all snapshots.
    fn snapshots(&self, ino: u64) -> Result<Attr> {
        let root = self.names().attributes(self.numbers.root().file)?.ok_or(Refusal::Missing)?;
        let last = self.portal.snapshots().last().map(|snapshot| snapshot.time);
        let mtime = last.unwrap_or(root.inode.mtime);
        let inode = Inode {
            stamp: Stamp::NONE,
            permissions: 0o555,
            size: 0,
            mtime,
            ctime: Some(mtime),
            body: Body::Directory(UNCOUNTED),
            ..root.inode
        };
        Ok(Attr { ino, inode, links: 1 })
    }

    /// The root of this mount as a snapshot has it, if it has.
    fn in_snapshot(&self, tree: &Tree) -> Result<Option<Attributes>> {
        let file = self.numbers.root().file;
        // It could have been made later.
        match (Below { file, base: Some(tree) }).inode()? {
            Some(inode) if inode.file_type() == FileType::Directory => tree.attributes(file),
            _ => Ok(None),
        }
    }

    /// The root of a snapshot, of which the kernel is told.
    fn open_snapshot(&self, name: &[u8]) -> Result<Attr> {
        let name = std::str::from_utf8(name).map_err(|_| Refusal::Missing)?;
        let (snapshot, tree) = match self.names().live.open_snapshot(name) {
            Err(FlowError::NoSnapshot { .. }) => return Err(Refusal::Missing.into()),
            other => other?,
        };
        let found = self.in_snapshot(&tree)?.ok_or(Refusal::Missing)?;
        let node = self.snapshot_root(&snapshot);
        // Held until it is known: the kernel may forget the last of it now.
        let mut views = self.views();
        views.entry(node.view).or_insert(tree);
        Ok(shown(self.numbers.retain(node), found))
    }

    fn snapshot_root(&self, snapshot: &Snapshot) -> Node {
        let named = [snapshot.root.id.0.as_slice(), snapshot.name.as_bytes()].concat();
        let view = self.numbers.view(*blake3::hash(&named).as_bytes());
        Node { file: self.numbers.root().file, view }
    }

    /// Entries of the directory of all snapshots.
    fn snapshot_entries(
        &self,
        place: Option<NameHash>,
        limit: usize,
        plus: bool,
    ) -> Result<Vec<DirEntry>> {
        let naming = &self.names().live.naming;
        let mut all = self.portal.snapshots();
        all.sort_by_cached_key(|snapshot| naming.name_hash(snapshot.name.as_bytes()));
        let mut found = Vec::new();
        for snapshot in all {
            let place_of = naming.name_hash(snapshot.name.as_bytes());
            if place.is_some_and(|place| place_of <= place) {
                continue;
            }
            let (snapshot, tree) = match self.names().live.open_snapshot(&snapshot.name) {
                Err(FlowError::NoSnapshot { .. }) => continue,
                other => other?,
            };
            let Some(attributes) = self.in_snapshot(&tree)? else { continue };
            let node = self.snapshot_root(&snapshot);
            let (file, ino) = (node.file, self.numbers.number(node));
            let attr = plus.then(|| shown(ino, attributes));
            let (name, file_type) = (snapshot.name.into_bytes(), FileType::Directory);
            found.push(DirEntry { place: place_of, name, file, ino, file_type, attr });
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
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

fn shown(ino: u64, Attributes { inode, links }: Attributes) -> Attr {
    Attr { ino, inode, links }
}

impl Volume for PortalVolume {
    fn changes(&self) -> bool {
        true
    }

    fn is_read_only(&self, ino: u64) -> bool {
        self.numbers.node(ino).is_some_and(|node| !node.is_live())
    }

    fn lifetime(&self, ino: u64) -> Duration {
        if self.numbers.node(ino) == Some(Node::SNAPSHOTS) { Duration::ZERO } else { FOREVER }
    }

    fn is_behind(&self) -> bool {
        self.portal.is_over(SOFT_LIMIT)
    }

    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>> {
        match self.place(parent)? {
            Place::Live(parent) if self.is_snapshots(parent, name) => {
                let attr = self.snapshots(0)?;
                Ok(Some(Attr { ino: self.numbers.retain(Node::SNAPSHOTS), ..attr }))
            }
            Place::Live(parent) => match self.names().lookup(parent, name)? {
                Some(dentry) => self.told(dentry.file),
                None => Ok(None),
            },
            Place::Snapshots => self.open_snapshot(name).map(Some),
            Place::View(dir) => {
                let Some(dentry) = dir.tree.lookup(dir.file, name)? else { return Ok(None) };
                let found = dir.attributes_of(&dentry)?;
                Ok(found.map(|found| shown(self.numbers.retain(dir.node(dentry.file)), found)))
            }
        }
    }

    fn retain(&self, parent: u64, entry: &DirEntry) {
        match self.numbers.node(parent) {
            // One that has gone meanwhile the kernel is told of in vain: it
            // asks again before it shows anything of it.
            Some(Node::SNAPSHOTS) => drop(self.open_snapshot(&entry.name)),
            Some(Node { view, .. }) => drop(self.numbers.retain(Node { file: entry.file, view })),
            None => {}
        }
    }

    fn forget(&self, ino: u64, count: u64) {
        let Some(node) = self.numbers.forget(ino, count) else { return };
        if node.is_live() {
            self.names().forget(node.file, || self.numbers.knows(node));
        } else if node.view > 0 {
            let mut views = self.views();
            if !self.numbers.sees(node.view)
                && let Some(tree) = views.remove(&node.view)
            {
                drop(views);
                self.portal.let_go(tree);
            }
        }
    }

    fn attr(&self, ino: u64) -> Result<Option<Attr>> {
        Ok(match self.place(ino)? {
            Place::Live(file) => self.names().attributes(file)?.map(|found| shown(ino, found)),
            Place::Snapshots => Some(self.snapshots(ino)?),
            Place::View(view) => Some(shown(ino, view.attributes()?)),
        })
    }

    fn read(&self, ino: u64, offset: u64, len: usize) -> Result<Vec<u8>> {
        match self.place(ino)? {
            Place::Live(file) => self.names().read(file, offset, len),
            Place::Snapshots => Err(Refusal::IsADirectory.into()),
            Place::View(view) => {
                let inode = view.attributes()?.inode;
                view.tree.read(view.file, &inode, offset, len)
            }
        }
    }

    fn entries(
        &self,
        ino: u64,
        place: Option<NameHash>,
        limit: usize,
        plus: bool,
    ) -> Result<Vec<DirEntry>> {
        let at = self.place(ino)?;
        let entries = match &at {
            Place::Live(dir) => {
                let mut entries = self.names().live.entries(*dir, place, limit)?;
                // It could have been made before it had a meaning.
                entries.retain(|(_, dentry)| !self.is_snapshots(*dir, dentry.name.as_bytes()));
                entries
            }
            Place::Snapshots => return self.snapshot_entries(place, limit, plus),
            Place::View(dir) => dir.tree.entries_after(dir.file, place, limit)?,
        };
        let mut found = Vec::with_capacity(entries.len());
        for (place, dentry) in entries {
            let (node, attributes) = match &at {
                Place::View(dir) if plus => (dir.node(dentry.file), dir.attributes_of(&dentry)?),
                Place::View(dir) => (dir.node(dentry.file), None),
                // One that has gone meanwhile is listed as it was.
                _ if plus => (Node::live(dentry.file), self.names().attributes(dentry.file)?),
                _ => (Node::live(dentry.file), None),
            };
            let ino = self.numbers.number(node);
            let attr = attributes.map(|attributes| shown(ino, attributes));
            let name = dentry.name.as_bytes().to_vec();
            let (file, file_type) = (dentry.file, dentry.file_type);
            found.push(DirEntry { place, name, file, ino, file_type, attr });
        }
        Ok(found)
    }

    fn xattr(&self, ino: u64, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let place = self.place(ino)?;
        if about::is_reserved(name) {
            return match (About::named(name), place) {
                (Some(what), Place::Live(file)) => self.names().about(file, what),
                (Some(what), Place::View(view)) => view.about(what),
                _ => Ok(None),
            };
        }
        match place {
            Place::Live(file) => self.names().xattr(file, name),
            Place::Snapshots => Ok(None),
            Place::View(view) => Ok(view.tree.xattr(view.file, name)?.map(|xattr| xattr.value)),
        }
    }

    fn xattrs(&self, ino: u64) -> Result<Vec<Vec<u8>>> {
        let all = match self.place(ino)? {
            Place::Live(file) => self.names().xattrs(file)?,
            Place::Snapshots => Vec::new(),
            Place::View(view) => view.tree.xattrs(view.file)?,
        };
        let names = all.into_iter().map(|xattr| xattr.name);
        Ok(names.filter(|name| !about::is_reserved(name)).collect())
    }

    fn seek(&self, ino: u64, offset: u64, hole: bool) -> Result<Option<u64>> {
        match self.place(ino)? {
            Place::Live(file) => self.names().seek(file, offset, hole),
            Place::Snapshots => Err(Refusal::IsADirectory.into()),
            Place::View(view) => {
                let inode = view.attributes()?.inode;
                view.tree.seek(view.file, &inode, offset, hole)
            }
        }
    }

    fn space(&self) -> Result<Space> {
        self.portal.room.space(self.portal.taken())
    }

    fn set_attr(&self, ino: u64, change: &SetAttr) -> Result<Attr> {
        let file = self.live(ino)?;
        let found = self.change(|names| names.set_attr(file, change))?;
        Ok(shown(ino, found))
    }

    fn make(&self, parent: u64, name: &[u8], new: NewInode) -> Result<Attr> {
        let parent = self.changing(parent, name)?;
        let bytes = match &new.body {
            Body::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let file = self.grow(bytes, |names| names.make(parent, name, &new))?;
        self.told(file)?.ok_or_else(|| Refusal::Missing.into())
    }

    fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attr> {
        let parent = self.changing(parent, name)?;
        // A snapshot is another filesystem in all but name.
        let file = match self.live(ino) {
            Err(FlowError::Refused(Refusal::ReadOnly)) => return Err(Refusal::Elsewhere.into()),
            other => other?,
        };
        self.grow(0, |names| names.link(file, parent, name))?;
        self.told(file)?.ok_or_else(|| Refusal::Missing.into())
    }

    fn unlink(&self, parent: u64, name: &[u8], directory: bool) -> Result<()> {
        let parent = self.changing(parent, name)?;
        self.change(|names| names.unlink(parent, name, directory))
    }

    fn rename(&self, from: (u64, &[u8]), to: (u64, &[u8]), mode: RenameMode) -> Result<()> {
        let source = self.changing(from.0, from.1)?;
        let target = self.changing(to.0, to.1)?;
        self.change(|names| names.rename((source, from.1), (target, to.1), mode))
    }

    fn write(&self, ino: u64, offset: u64, bytes: Vec<u8>, cached: bool) -> Result<()> {
        let file = self.live(ino)?;
        self.grow(bytes.len() as u64, |names| names.write(file, offset, bytes, cached))
    }

    fn allocate(&self, ino: u64, range: Range<u64>, how: Allocate) -> Result<()> {
        let file = self.live(ino)?;
        if let Allocate::Reserve { .. } = how {
            let bytes = self.names().holes(file, &range)?;
            return self.grow(bytes, |names| names.allocate(file, range, how));
        }
        // What only takes away is never refused.
        self.change(|names| names.allocate(file, range, how))
    }

    fn copy(&self, from: (u64, u64), to: (u64, u64), len: u64) -> Result<u64> {
        let target = self.live(to.0)?;
        let source = match self.place(from.0)? {
            Place::Live(file) => Source::Live(file),
            Place::Snapshots => return Err(Refusal::IsADirectory.into()),
            Place::View(View { tree, file, .. }) => Source::Tree(tree, file),
        };
        let bytes = len.min(COPY_BYTES);
        self.grow(bytes, |names| names.copy((&source, from.1), (target, to.1), len))
    }

    fn set_xattr(&self, ino: u64, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let file = self.live(ino)?;
        if about::is_reserved(name) {
            return Err(Refusal::NotPermitted.into());
        }
        self.grow(value.len() as u64, |names| names.set_xattr(file, name, value, mode))
    }

    fn remove_xattr(&self, ino: u64, name: &[u8]) -> Result<()> {
        let file = self.live(ino)?;
        if about::is_reserved(name) {
            return Err(Refusal::NotPermitted.into());
        }
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

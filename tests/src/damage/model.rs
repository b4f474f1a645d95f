//! What a tree means, read from its records by other code than the product's,
//! and whether files on the host are that.

use rustix::fs::{lgetxattr, llistxattr};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warp_format::record::{Body, Extent, FileType, Inode, Key, KeyKind, Record};
use warp_format::{ChunkId, ContentHash, FileId, NamingKeys};

/// Files up to this many bytes are compared whole.
const COMPARED: u64 = 16 << 20;

/// Plain bytes of data chunks and their content hashes.
pub(super) type Chunks = HashMap<ChunkId, (ContentHash, Arc<Vec<u8>>)>;

/// An inode as a path shows it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) file: FileId,
    pub(super) inode: Inode,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a regular file that is not too long for it.
    content: Option<Arc<Vec<u8>>>,
}

/// What every path leads to; the root is the empty path.
#[derive(Debug, Default, Clone)]
pub struct Model {
    pub(super) items: BTreeMap<Vec<u8>, Item>,
}

#[derive(Default)]
struct Gathered {
    inode: Option<Inode>,
    deleted: bool,
    links: usize,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    extents: Vec<(u64, Extent)>,
    names: Vec<(Vec<u8>, FileId, FileType)>,
}

impl Model {
    /// The meaning of these records, or what is wrong with them.
    pub(super) fn of<'a>(
        records: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        chunks: &Chunks,
        naming: &NamingKeys,
    ) -> Result<Self, String> {
        let mut files: BTreeMap<FileId, Gathered> = BTreeMap::new();
        let mut last: Vec<u8> = Vec::new();
        for (key, value) in records {
            if key <= last.as_slice() {
                return Err("keys out of order".into());
            }
            last = key.to_vec();
            let key = Key::decode(key).map_err(|e| e.to_string())?;
            let record = Record::decode(key.kind, value).map_err(|e| e.to_string())?;
            gather(files.entry(key.file).or_default(), &key, record, naming)?;
        }
        let mut model = Self::default();
        let mut seen = HashSet::new();
        let mut waiting = vec![(FileId::ROOT, Vec::new())];
        while let Some((dir, path)) = waiting.pop() {
            if !seen.insert(dir) {
                return Err("a directory has two names".into());
            }
            // An archive of loose files has no inode for its root.
            if dir == FileId::ROOT
                && let Some(root) = files.get(&dir)
                && let Some(inode) = root.inode.clone()
            {
                if inode.file_type() != FileType::Directory {
                    return Err("the root is no directory".into());
                }
                model.items.insert(Vec::new(), item(dir, inode, root, chunks)?);
            }
            let Some(entries) = files.get(&dir) else { continue };
            for (name, file, file_type) in &entries.names {
                let found = files.get(file).ok_or("a name without an inode")?;
                if found.deleted {
                    continue;
                }
                let inode = found.inode.clone().ok_or("a name without an inode")?;
                if (found.links == 0 && *file != FileId::ROOT) || inode.file_type() != *file_type {
                    return Err("a name and its inode do not agree".into());
                }
                let below = if path.is_empty() {
                    name.clone()
                } else {
                    [&path, b"/".as_slice(), name].concat()
                };
                if *file_type == FileType::Directory {
                    waiting.push((*file, below.clone()));
                }
                model.items.insert(below, item(*file, inode, found, chunks)?);
            }
        }
        Ok(model)
    }

    /// Paths of all items.
    pub(super) fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.items.keys().map(Vec::as_slice)
    }
}

fn gather(
    file: &mut Gathered,
    key: &Key,
    record: Record,
    naming: &NamingKeys,
) -> Result<(), String> {
    match (key.kind, record) {
        (KeyKind::Inode, Record::Inode(inode)) => file.inode = Some(inode),
        (KeyKind::Inode, _) => file.deleted = true,
        (KeyKind::Link(..), Record::Link(_)) => file.links += 1,
        (KeyKind::Extent(offset), Record::Extent(extent)) => file.extents.push((offset, extent)),
        (KeyKind::Xattr(hash), Record::Xattr(xattr)) => {
            if naming.name_hash(&xattr.name) != hash {
                return Err("an attribute under another's hash".into());
            }
            file.xattrs.insert(xattr.name, xattr.value);
        }
        (KeyKind::Dentry(hash), Record::Dentry(dentry)) => {
            if naming.name_hash(dentry.name.as_bytes()) != hash {
                return Err("a name under another's hash".into());
            }
            let name = dentry.name.as_bytes().to_vec();
            file.names.push((name, dentry.file, dentry.file_type));
        }
        _ => {}
    }
    Ok(())
}

fn item(file: FileId, inode: Inode, found: &Gathered, chunks: &Chunks) -> Result<Item, String> {
    let content = match &inode.body {
        Body::Inline(bytes) => Some(Arc::new(bytes.clone())),
        Body::Extents(stored) => content(inode.size, *stored, &found.extents, chunks)?,
        _ => None,
    };
    Ok(Item { file, inode, xattrs: found.xattrs.clone(), content })
}

fn content(
    size: u64,
    stored: u64,
    extents: &[(u64, Extent)],
    chunks: &Chunks,
) -> Result<Option<Arc<Vec<u8>>>, String> {
    let mut bytes = (size <= COMPARED).then(|| vec![0; size as usize]);
    let (mut end, mut sum) = (0, 0);
    for (offset, extent) in extents {
        let (hash, plain) = chunks.get(&extent.chunk.id).ok_or("a chunk that is not there")?;
        if *hash != extent.chunk.hash || plain.len() != extent.chunk.len as usize {
            return Err("a chunk with other content".into());
        }
        let len = u64::from(extent.len);
        if *offset < end || offset + len > size {
            return Err("extents overlap or reach beyond the end".into());
        }
        (end, sum) = (offset + len, sum + len);
        if let Some(bytes) = &mut bytes {
            let from = &plain[extent.start as usize..][..extent.len as usize];
            bytes[*offset as usize..end as usize].copy_from_slice(from);
        }
    }
    if sum == stored { Ok(bytes.map(Arc::new)) } else { Err("extents do not add up".into()) }
}

/// How exactly things must agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Exactness {
    /// In everything.
    All,
    /// In all that every filesystem can keep: the case may have a time or an
    /// attribute that this one cannot.
    HostMayRefuse,
    /// As a mount shows it.
    Mounted,
}

impl Item {
    /// What differs between this and what is at `path` on the host.
    pub(super) fn differs(&self, path: &Path, how: Exactness) -> Result<(), String> {
        self.content_differs(path)?;
        self.attributes_differ(path, how)
    }

    /// The same for type and content.
    pub(super) fn content_differs(&self, path: &Path) -> Result<(), String> {
        let shown = |what: &str| Err(format!("{}: {what}", path.display()));
        let meta = path.symlink_metadata().map_err(|e| format!("{}: {e}", path.display()))?;
        if meta.mode() >> 12 != u32::from(self.inode.file_type().to_bits()) {
            return shown("another file type");
        }
        match &self.inode.body {
            Body::Extents(_) | Body::Inline(_) => {
                if meta.len() != self.inode.size {
                    return shown(&format!("{} bytes, not {}", meta.len(), self.inode.size));
                }
                if let Some(content) = &self.content {
                    let found =
                        std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
                    if found != **content {
                        let at = found.iter().zip(content.iter()).position(|(a, b)| a != b);
                        return shown(&format!("other content at {at:?}"));
                    }
                }
            }
            Body::Symlink(target) => {
                let found = std::fs::read_link(path).map_err(|e| format!("{path:?}: {e}"))?;
                if found.as_os_str().as_bytes() != target {
                    return shown("another link target");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The same for mode, owner, time and attributes.
    fn attributes_differ(&self, path: &Path, how: Exactness) -> Result<(), String> {
        let shown = |what: String| Err(format!("{}: {what}", path.display()));
        let meta = path.symlink_metadata().map_err(|e| format!("{}: {e}", path.display()))?;
        let is_link = self.inode.file_type() == FileType::Symlink;
        if !is_link && meta.mode() & 0o7777 != u32::from(self.inode.permissions) {
            let (found, want) = (meta.mode() & 0o7777, self.inode.permissions);
            return shown(format!("mode {found:o}, not {want:o}"));
        }
        let time = self.inode.mtime;
        if how != Exactness::HostMayRefuse
            && (meta.mtime(), meta.mtime_nsec()) != (time.secs, time.nanos.into())
        {
            return shown(format!("time {}.{}, not {time:?}", meta.mtime(), meta.mtime_nsec()));
        }
        let owned = how == Exactness::Mounted || rustix::process::geteuid().is_root();
        let same = |found: u32, want: u32| found == want || want == u32::MAX;
        if owned && !(same(meta.uid(), self.inode.uid) && same(meta.gid(), self.inode.gid)) {
            return shown(format!("owner {}:{}", meta.uid(), meta.gid()));
        }
        // The kernel gives the attributes of files and directories only.
        let kept = matches!(self.inode.file_type(), FileType::Regular | FileType::Directory);
        if how != Exactness::All && !kept {
            return Ok(());
        }
        let found = xattrs(path).map_err(|e| format!("{}: {e}", path.display()))?;
        if how != Exactness::HostMayRefuse && found != self.xattrs {
            return shown("other attributes".into());
        }
        Ok(())
    }

    /// A file's own time, by which it is found again.
    pub(super) fn time(&self) -> (i64, i64) {
        (self.inode.mtime.secs, self.inode.mtime.nanos.into())
    }
}

/// The `user.` attributes of a path.
fn xattrs(path: &Path) -> rustix::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 64 << 10];
    let len = match llistxattr(path, names.as_mut_slice()) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut found = BTreeMap::new();
    for name in names[..len].split(|b| *b == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0; 64 << 10];
        let len = lgetxattr(path, OsStr::from_bytes(name), value.as_mut_slice())?;
        found.insert(name.to_vec(), value[..len].to_vec());
    }
    Ok(found)
}

/// Every path below `top`, links not followed, and what could not be listed.
pub(super) fn walk(top: &Path) -> (Vec<PathBuf>, Vec<(PathBuf, std::io::Error)>) {
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    let mut waiting = vec![(top.to_path_buf(), 0)];
    while let Some((dir, depth)) = waiting.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) => {
                failed.push((dir, e));
                continue;
            }
        };
        for entry in entries {
            match entry {
                Ok(entry) => {
                    // A hostile mount may go on without end.
                    let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
                    if is_dir && depth < 60 && found.len() < 20_000 {
                        waiting.push((entry.path(), depth + 1));
                    }
                    found.push(entry.path());
                }
                Err(e) => {
                    failed.push((dir, e));
                    break;
                }
            }
        }
    }
    (found, failed)
}

/// A path below `top` as the tree names it.
pub(super) fn relative(top: &Path, path: &Path) -> Vec<u8> {
    path.strip_prefix(top).expect("below the top").as_os_str().as_bytes().to_vec()
}

/// The path of a name of the tree below `top`.
pub(super) fn below(top: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() { top.into() } else { top.join(OsStr::from_bytes(path)) }
}

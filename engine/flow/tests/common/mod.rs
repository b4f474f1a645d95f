//! What the tests of `Live` share: a small world of files, and a model of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use warp_cache::disk::Disk;
use warp_flow::Result;
use warp_flow::live::{Fresh, Live, PortalSecrets};
use warp_format::change::Change;
use warp_format::record::{Body, Dentry, FileType, Inode, Key, KeyKind, Name, Record, Stamp, Time};
use warp_format::{FileId, NamingKeys, PortalId, Secret};

pub(crate) fn secrets() -> PortalSecrets {
    PortalSecrets {
        portal: PortalId([1; 32]),
        root: Secret::new([2; 32]),
        local: Secret::new([3; 32]),
        device: Secret::new([4; 32]),
    }
}

pub(crate) fn open(disk: Arc<dyn Disk>, salt: u8) -> Result<Live> {
    Live::open(disk, secrets(), Fresh { nonces: [salt; 16], incarnation: [salt; 8] })
}

/// What a person does to one of a few files.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Create(u8),
    Write(u8, u32, u16),
    /// Writes other bytes than there were, as far as the file reaches.
    Flip(u8, u32, u16),
    /// A write exactly behind the end.
    Append(u8, u16),
    Truncate(u8, u32),
    Remove(u8),
    Rename(u8, u8),
    Commit,
    Publish,
}

/// The reference: names and contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    files: BTreeMap<u8, (u8, Vec<u8>)>,
    next: u8,
}

fn file_id(n: u8) -> FileId {
    FileId::from_ordinal(100 + u64::from(n))
}

fn name(n: u8) -> Name {
    Name::new(format!("name-{n}").as_bytes()).unwrap()
}

fn dentry_key(n: u8) -> Key {
    let keys = NamingKeys::derive(&secrets().root);
    Key::new(FileId::ROOT, KeyKind::Dentry(keys.name_hash(name(n).as_bytes())))
}

fn inode_key(n: u8) -> Key {
    Key::new(file_id(n), KeyKind::Inode)
}

fn inode(size: u64) -> Record {
    let time = Time { secs: size as i64, nanos: 1 };
    Record::Inode(Inode {
        stamp: Stamp::NONE,
        permissions: 0o644,
        uid: 0,
        gid: 0,
        size,
        mtime: time,
        ctime: Some(time),
        atime: None,
        btime: None,
        versions: Vec::new(),
        // Publishing sets what is really stored.
        body: Body::Extents(0),
    })
}

fn dentry(at: u8, file: u8) -> Change {
    let (name, file) = (name(at), file_id(file));
    let dentry = Dentry { stamp: Stamp::NONE, name, file, file_type: FileType::Regular };
    Change::Put(dentry_key(at), Record::Dentry(dentry))
}

/// Bytes that tell where they belong.
fn bytes(file: u8, offset: u32, len: u16) -> Vec<u8> {
    (0..u32::from(len)).map(|i| ((offset + i) as u8).wrapping_mul(31) ^ file).collect()
}

impl Model {
    /// Does an act to the model; gives the changes that do it to a `Live`.
    pub(crate) fn act(&mut self, act: &Act) -> Vec<Change> {
        match act {
            Act::Create(at) => {
                if self.files.contains_key(at) || self.next == 250 {
                    return Vec::new();
                }
                let file = self.next;
                self.next += 1;
                self.files.insert(*at, (file, Vec::new()));
                vec![Change::Put(inode_key(file), inode(0)), dentry(*at, file)]
            }
            Act::Write(at, offset, len) => {
                let Some((file, content)) = self.files.get_mut(at) else { return Vec::new() };
                let new = bytes(*file, *offset, *len);
                let end = *offset as usize + new.len();
                if !new.is_empty() && content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset as usize..][..new.len()].copy_from_slice(&new);
                let (file, size) = (*file, content.len() as u64);
                let write =
                    Change::Write { file: file_id(file), offset: (*offset).into(), bytes: new };
                vec![write, Change::Put(inode_key(file), inode(size))]
            }
            Act::Flip(at, offset, len) => {
                let Some((file, content)) = self.files.get_mut(at) else { return Vec::new() };
                let start = (*offset as usize).min(content.len());
                let end = (start + usize::from(*len)).min(content.len());
                content[start..end].iter_mut().for_each(|byte| *byte = !*byte);
                let (file, offset, size) = (*file, start as u64, content.len() as u64);
                let bytes = content[start..end].to_vec();
                let write = Change::Write { file: file_id(file), offset, bytes };
                vec![write, Change::Put(inode_key(file), inode(size))]
            }
            Act::Append(at, len) => {
                let end = self.files.get(at).map_or(0, |(_, content)| content.len() as u32);
                self.act(&Act::Write(*at, end, *len))
            }
            Act::Truncate(at, len) => {
                let Some((file, content)) = self.files.get_mut(at) else { return Vec::new() };
                content.resize(*len as usize, 0);
                let from = (*len).into();
                let cut = Change::Clear { file: file_id(*file), from, to: u64::MAX };
                vec![cut, Change::Put(inode_key(*file), inode((*len).into()))]
            }
            Act::Remove(at) => {
                let Some((file, _)) = self.files.remove(at) else { return Vec::new() };
                vec![Change::Remove(dentry_key(*at)), Change::Delete(file_id(file))]
            }
            Act::Rename(from, to) => {
                let (true, false) = (self.files.contains_key(from), self.files.contains_key(to))
                else {
                    return Vec::new();
                };
                let entry = self.files.remove(from).unwrap();
                let file = entry.0;
                self.files.insert(*to, entry);
                vec![Change::Remove(dentry_key(*from)), dentry(*to, file)]
            }
            Act::Commit | Act::Publish => Vec::new(),
        }
    }

    /// Fails with what differs.
    pub(crate) fn compare(&self, live: &Live) -> std::result::Result<(), String> {
        let say = |e: warp_flow::FlowError| e.to_string();
        let mut names = Vec::new();
        let mut place = None;
        loop {
            let step = live.entries(FileId::ROOT, place, 3).map_err(say)?;
            let Some((last, _)) = step.last() else { break };
            place = Some(*last);
            names.extend(step.iter().map(|(_, dentry)| dentry.name.as_bytes().to_vec()));
        }
        names.sort();
        let mut want: Vec<Vec<u8>> =
            self.files.keys().map(|at| name(*at).as_bytes().to_vec()).collect();
        want.sort();
        if names != want {
            return Err(format!("names {} and {}", names.len(), want.len()));
        }
        for (at, (file, content)) in &self.files {
            match live.get(&dentry_key(*at)).map_err(say)? {
                Some(Record::Dentry(d)) if d.file == file_id(*file) => {}
                other => return Err(format!("name {at}: {other:?}")),
            }
            match live.get(&inode_key(*file)).map_err(say)? {
                Some(Record::Inode(found)) if found.size == content.len() as u64 => {}
                other => return Err(format!("inode of {at}: {other:?}")),
            }
            // Beyond the end too: what was cut must not come back.
            let found = live.read(file_id(*file), 0, content.len() + 5000).map_err(say)?;
            if found[..content.len()] != content[..]
                || found[content.len()..].iter().any(|b| *b != 0)
            {
                return Err(format!("content of {at}"));
            }
        }
        Ok(())
    }
}

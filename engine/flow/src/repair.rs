//! Step *repair*: a store is made sound again from its packs alone.
//!
//! Neighbours: `cache::store` reads and mends packs, `check` names what is lost,
//! `portals` keeps others out. Promises: every chunk that is whole in a pack is
//! found afterwards, whatever was said of it elsewhere; nothing is deleted but
//! indexes and logs that are made anew; whoever is cut off may start over.
//! Never: opens the store to look at it, since that cuts what seems torn.
//! Tested by `engine/flow/tests/check.rs` and `tests/tests/check.rs`.

use crate::archive::TreeKeys;
use crate::check::{Bad, Root, Survey, name};
use crate::dedup;
use crate::error::Result;
use crate::live::PortalSecrets;
use crate::members::Membership;
use crate::progress::{Problem, Progress};
use crate::publish;
use crate::reader::TreeReader;
use crate::scrub;
use crate::snapshots;
use crate::source::ChunkSource;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use warp_cache::disk::Disk;
use warp_cache::store::{Class, Contents, Damage, Examined, Remedy};
use warp_format::{ChunkId, SealedChunk};

/// What was wrong, and what was done about it, or would be.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Packs, and their bytes; all were read.
    pub packs: u64,
    /// See [`Self::packs`].
    pub stored_bytes: u64,
    /// Chunks that are whole.
    pub chunks: u64,
    /// Packs whose index was lost or wrong, and is made anew.
    pub indexes: Vec<String>,
    /// Packs that are damaged, and what becomes of each.
    pub set_aside: Vec<SetAside>,
    /// Places in packs that are not as they were written.
    pub damage: Vec<Damage>,
    /// What was remembered of stored contents is not so, and is forgotten.
    pub dedup_discarded: bool,
    /// Files that the last published tree names and that cannot be read whole:
    /// what they need is in no pack.
    pub problems: Vec<Problem>,
}

/// A damaged pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its file.
    pub file: String,
    /// Chunks in it that are whole.
    pub whole: u64,
    /// What it is called now; `None`: nothing was done.
    pub aside: Option<String>,
    /// The pack that holds what is whole.
    pub moved_to: Option<String>,
}

impl Repaired {
    /// True if nothing had to be done.
    pub fn was_sound(&self) -> bool {
        self.indexes.is_empty() && self.set_aside.is_empty() && !self.dedup_discarded
    }
}

impl ChunkSource for Arc<Contents> {
    fn fetch(&self, id: &ChunkId) -> Result<SealedChunk> {
        Ok(self.get(id)?)
    }
}

/// Repairs a store that nobody has open. With `dry_run`, says what it would do
/// and changes nothing.
pub(crate) fn repair(
    disk: &Arc<dyn Disk>,
    secrets: &PortalSecrets,
    membership: &Membership,
    dry_run: bool,
    progress: &Progress,
) -> Result<Repaired> {
    let (contents, examined) = examine(disk, progress)?;
    let contents = Arc::new(contents);
    let mut done = Repaired { packs: examined.len() as u64, ..Repaired::default() };
    for found in &examined {
        done.stored_bytes += found.bytes;
        done.chunks += found.entries.len() as u64;
        done.damage.extend(found.damage.iter().cloned());
    }
    if let Some(head) = publish::newest_head(&**disk, secrets)? {
        let keys: Arc<TreeKeys> = secrets.read_keys().into();
        keys.take(&membership.epochs);
        let reader = TreeReader::new(contents.clone(), keys, head.root);
        // A list of snapshots that cannot be read keeps the portal shut.
        let snapshots = snapshots::read(&**disk, &secrets.local)?;
        let head = Root { path: Vec::new(), root: head.root };
        let roots: Vec<Root> = [head].into_iter().chain(snapshots.iter().map(Root::of)).collect();
        done.problems = lost(&reader, &roots, progress)?;
        done.dedup_discarded = !dedup::is_true(&**disk, secrets, &reader);
    }
    for found in &examined {
        progress.check()?;
        let mended = if dry_run { Default::default() } else { contents.mend(found)? };
        match found.remedy {
            Remedy::Nothing => {}
            Remedy::Index => done.indexes.push(found.file.clone()),
            Remedy::SetAside => done.set_aside.push(SetAside {
                file: found.file.clone(),
                whole: found.entries.len() as u64,
                aside: mended.aside,
                moved_to: mended.moved_to,
            }),
        }
    }
    if !dry_run && done.dedup_discarded {
        dedup::discard(&**disk)?;
    }
    if !dry_run && !done.was_sound() {
        // What it knows of damage is of before.
        scrub::forget(&**disk)?;
    }
    Ok(done)
}

fn examine(disk: &Arc<dyn Disk>, progress: &Progress) -> Result<(Contents, Vec<Examined>)> {
    let mut contents = Contents::new(Arc::clone(disk));
    let packs = contents.packs()?;
    progress.set_total(packs.iter().map(|(_, len)| len).sum());
    let mut last: HashMap<Class, u32> = HashMap::new();
    for ((class, number), _) in &packs {
        last.insert(*class, *number);
    }
    let mut examined = Vec::with_capacity(packs.len());
    for (name, len) in packs {
        progress.check()?;
        examined.push(contents.examine(name, last.get(&name.0) == Some(&name.1))?);
        progress.add_bytes(len);
    }
    Ok((contents, examined))
}

/// The files of these trees that need what no pack has.
fn lost(
    reader: &TreeReader<Arc<Contents>>,
    roots: &[Root],
    progress: &Progress,
) -> Result<Vec<Problem>> {
    let readers: Vec<_> = roots.iter().map(|root| reader.at_root(root.root)).collect();
    let mut survey = Survey::default();
    for reader in &readers {
        survey.add(reader, progress)?;
    }
    let mut bad = Bad::new();
    survey.confirm(reader, &HashSet::new(), |id| reader.source().contains(id), &mut bad);
    let mut problems = Vec::new();
    if survey.broken || !bad.is_empty() {
        for (root, reader) in roots.iter().zip(&readers) {
            name(&root.path, reader, &bad, progress, &mut problems)?;
        }
    }
    Ok(problems)
}

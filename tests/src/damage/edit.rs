//! Edits of one field each, with every hash around it made again.

mod container;
mod inode;
mod names;
mod nodes;

use super::Rng;
use super::check::Slot;
use super::fields::Job;
use super::map::{Archive, Entries};
use super::model::{Exactness, Model};
use super::rewrite::Layout;

/// Changes one thing.
type Edit = (&'static str, fn(&mut Job<'_>));

/// An archive with an edited field.
pub struct Edited {
    pub(super) bytes: Vec<u8>,
    /// What was done, for messages.
    pub what: String,
    /// What the tree means now, or why it means nothing.
    pub(super) model: Result<Model, String>,
    /// What all its leaves mean together.
    pub(super) leaves: Option<Model>,
    /// Only the tree was changed: the model decides whether it is sound.
    pub(super) tree_only: bool,
    /// Every leaf and chunk is as it was.
    pub(super) tree_is_whole: bool,
    pub(super) host_may_refuse: bool,
}

impl Edited {
    pub(super) fn exactness(&self) -> Exactness {
        if self.host_may_refuse { Exactness::HostMayRefuse } else { Exactness::All }
    }
}

/// The n-th case of an edited field.
pub fn edit(archive: &Archive, slot: &Slot<'_>, seed: u64, case: usize) -> Edited {
    let tables: [&[Edit]; 4] = [&inode::EDITS, &names::EDITS, &nodes::EDITS, &container::EDITS];
    let edits: Vec<&Edit> = tables.into_iter().flatten().collect();
    let (name, change) = edits[case % edits.len()];
    let mut job = Job {
        archive,
        rng: Rng::new(seed, case),
        layout: Layout::of(archive),
        note: (*name).into(),
        host_may_refuse: false,
        container: false,
        tree_is_whole: false,
        outside: slot.outside(),
    };
    change(&mut job);
    let written = job.layout.write(archive);
    let model = |records: &Entries| {
        let records = records.iter().map(|(k, v)| (k.as_slice(), v.as_slice()));
        Model::of(records, &archive.chunks, &archive.naming)
    };
    Edited {
        bytes: written.bytes,
        model: written.tree.and_then(|records| model(&records)),
        leaves: model(&written.leaves).ok().filter(|_| !job.container),
        what: job.note,
        tree_only: !job.container,
        tree_is_whole: job.tree_is_whole,
        host_may_refuse: job.host_may_refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::damage::Lab;

    #[test]
    fn an_archive_written_anew_means_what_it_meant() {
        if std::env::var_os("WARP_BIN").is_none() {
            return;
        }
        let lab = Lab::new();
        let written = Layout::of(&lab.plain).write(&lab.plain);
        let tree = written.tree.expect("a sound tree");
        let leaves = lab.plain.leaves.iter().flatten();
        assert!(tree.iter().eq(leaves));
    }
}

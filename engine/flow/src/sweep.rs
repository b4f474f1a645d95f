//! Step *sweep*: what nothing names any more leaves the disk.
//!
//! Neighbours: `portal`, which says when; `live` for the trees that somebody
//! has, `snapshots` for those that have a name; `cache::store` for the packs.
//! Promises: what the last head, a snapshot, an open file, a reader or a change
//! that is not published yet refers to stays; if any of it cannot be read,
//! nothing is taken. Never: runs beside a publish.
//! Tested by `engine/flow/tests/sweep.rs`.

use crate::error::Result;
use crate::live::{Live, Tree};
use crate::publish;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use warp_cache::store::Swept;
use warp_format::ChunkId;
use warp_format::record::Record;

/// How hard a sweep tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thoroughness {
    /// Packs of which a quarter is garbage are worth moving the rest.
    Usual,
    /// Room is needed: any garbage worth telling is.
    Thorough,
}

impl Thoroughness {
    fn percent(self) -> u64 {
        match self {
            Self::Usual => 25,
            Self::Thorough => 3,
        }
    }
}

/// Adds all chunks that a tree names, its nodes included.
fn mark(tree: &Tree, live: &mut HashSet<ChunkId>) -> Result<()> {
    let mut stack = vec![*tree.root()];
    while let Some(at) = stack.pop() {
        // Trees share most of their nodes.
        if !live.insert(at.id) {
            continue;
        }
        // Past the memory tier, which is for who reads files.
        let node = tree.open_node(&at)?;
        for i in 0..node.len() {
            if let Some(child) = node.child(i) {
                stack.push(child.node);
            } else if let Some(record) = node.record(i)
                && let (_, Record::Extent(extent)) = record?
            {
                live.insert(extent.chunk.id);
            }
        }
    }
    Ok(())
}

/// Sweeps a portal's store. `open` gives the chunks that only open files
/// refer to: whatever is put before it is called must be found by it.
pub(crate) fn sweep(
    live: &Live,
    thoroughness: Thoroughness,
    open: impl FnOnce() -> Result<Vec<ChunkId>>,
) -> Result<Swept> {
    let _publisher = live.publisher();
    let garbage = live.garbage.load(Ordering::Relaxed);
    publish::drop_heads_before(&*live.disk, live.sequence())?;
    let sweep = live.store.begin_sweep();
    let mut marked: HashSet<ChunkId> = open()?.into_iter().collect();
    for snapshot in live.snapshots() {
        mark(&live.tree_at(snapshot.root), &mut marked)?;
    }
    for tree in live.read_trees() {
        mark(&tree, &mut marked)?;
    }
    let swept = sweep.finish(&marked, thoroughness.percent())?;
    live.garbage.fetch_sub(garbage, Ordering::Relaxed);
    Ok(swept)
}

//! What is here, in the order in which it came.
//!
//! Neighbours: peers that keep everything ask for it a page at a time.
//! Promises: who asks from where the last page ended is told every chunk that
//! came since and is still here; a page costs what is in it, however much is
//! stored. Never: remembers the order over a restart. Tested by
//! `tests/model_store.rs`.

use super::{PackName, State, Store};
use warp_format::ChunkId;

/// Chunks that came one after the other into one pack.
pub(super) struct Run {
    /// How many had come before.
    first: u64,
    pack: PackName,
    /// Of the pack's entries, the one that was the first of these.
    entry: usize,
}

/// A page of what is here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Chunks; one that was stored twice may be named twice.
    pub ids: Vec<ChunkId>,
    /// Where the next page begins; the same as asked for if that is all.
    pub next: u64,
}

impl State {
    /// The pack has one more entry, or so many when it is opened.
    pub(super) fn note_arrived(&mut self, pack: PackName, entry: usize, count: usize) {
        if count > 0 && self.runs.last().is_none_or(|run| run.pack != pack) {
            self.runs.push(Run { first: self.arrived, pack, entry });
        }
        self.arrived += count as u64;
    }
}

impl Store {
    /// Up to `max` chunks that came after the first `after` since this store
    /// was opened; what was there then counts as having come at once.
    pub fn list(&self, after: u64, max: usize) -> Listed {
        let state = self.state();
        let mut listed = Listed { ids: Vec::new(), next: after.min(state.arrived) };
        let mut run = state.runs.partition_point(|run| run.first <= after).saturating_sub(1);
        while listed.ids.len() < max && listed.next < state.arrived {
            let Some(Run { first, pack, entry }) = state.runs.get(run) else { break };
            run += 1;
            let end = state.runs.get(run).map_or(state.arrived, |next| next.first);
            // A pack that is gone has nothing to tell.
            let entries = state.packs.get(pack).map(|pack| pack.entries.as_slice());
            let skipped = entry + (listed.next - first) as usize;
            let entries = entries.and_then(|entries| entries.get(skipped..)).unwrap_or_default();
            let mut room = max - listed.ids.len();
            for (id, _) in entries.iter().take((end - listed.next) as usize) {
                if room == 0 {
                    break;
                }
                listed.next += 1;
                if state.index.contains_key(id) && !state.damaged.contains(id) {
                    listed.ids.push(*id);
                    room -= 1;
                }
            }
            if room > 0 {
                listed.next = end;
            }
        }
        listed
    }
}

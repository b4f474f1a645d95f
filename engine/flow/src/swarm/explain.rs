//! Why a chunk came from where it came.
//!
//! Neighbours: `task`, which notes what the planner decided; `follow::warm`,
//! which asks for it. Promises: what is told was done, and when. Never: notes
//! anything while nobody asks, or more than so many chunks.
//! Tested by `engine/flow/tests/swarm.rs`.

use crate::limits::EXPLAINED_CHUNKS;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use warp_format::{ChunkId, DeviceId};
use warp_plan::Why;

/// How one chunk came here.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The chunk.
    pub chunk: ChunkId,
    /// Bytes that came.
    pub bytes: u64,
    /// Who gave it; `None` if that peer is gone.
    pub from: Option<DeviceId>,
    /// From when it was wanted to when it was verified.
    pub took: Duration,
    /// Who was asked, in order.
    pub asked: Vec<AskedOf>,
}

/// A peer was asked for a chunk.
#[derive(Debug, Clone)]
pub struct AskedOf {
    /// Whom.
    pub peer: DeviceId,
    /// Why.
    pub why: Why,
    /// How long after the chunk was wanted.
    pub after: Duration,
    /// How long it was expected to take from then on.
    pub expected: Duration,
    /// The holders that were compared, the best first, and how long each was
    /// expected to take.
    pub candidates: Vec<(DeviceId, Duration)>,
}

/// What is noted for one who asks.
type Notes = Mutex<Vec<Explained>>;

/// Notes what comes for as long as it is there.
pub struct Listener(Arc<Notes>);

impl Listener {
    /// What came since the last call.
    pub(crate) fn take(&self) -> Vec<Explained> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Those who ask.
#[derive(Default, Clone)]
pub(super) struct Listeners(Arc<Mutex<Vec<Weak<Notes>>>>);

impl Listeners {
    pub(super) fn add(&self) -> Listener {
        let notes = Arc::<Notes>::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&notes));
        Listener(notes)
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|notes| notes.strong_count() > 0);
        !all.is_empty()
    }

    pub(super) fn tell(&self, explained: &Explained) {
        for notes in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let Some(notes) = notes.upgrade() else { continue };
            let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
            if notes.len() < EXPLAINED_CHUNKS {
                notes.push(explained.clone());
            }
        }
    }
}

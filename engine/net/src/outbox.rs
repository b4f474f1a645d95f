//! Frames on their way to one peer's control stream.
//!
//! Promises: frames leave in the order in which they were put; what waits is
//! bounded, and a peer that lets it fill up is told from one that is away.
//! Never: waits when a frame is put, so anything may announce.
//! Tested by `tests/bounds.rs` (a peer that does not read).

use crate::limits::{OUTBOX_BYTES, OUTBOX_PAUSE_BYTES};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    drained: Notify,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame; false if there is no room.
    pub(crate) fn put(&self, frame: Vec<u8>) -> bool {
        let mut waiting = self.waiting();
        if waiting.bytes + frame.len() > OUTBOX_BYTES {
            return false;
        }
        waiting.bytes += frame.len();
        waiting.frames.push_back(frame);
        drop(waiting);
        self.filled.notify_one();
        true
    }

    /// The next frame. What it held of the room is given back by [`Self::sent`].
    pub(crate) async fn next(&self) -> Vec<u8> {
        loop {
            if let Some(frame) = self.waiting().frames.pop_front() {
                return frame;
            }
            self.filled.notified().await;
        }
    }

    /// A frame of so many bytes is on its way.
    pub(crate) fn sent(&self, bytes: usize) {
        self.waiting().bytes -= bytes;
        self.drained.notify_one();
    }

    /// Returns when little enough waits that the peer may ask for more.
    pub(crate) async fn room(&self) {
        while self.waiting().bytes > OUTBOX_PAUSE_BYTES {
            self.drained.notified().await;
        }
    }
}

//! What a long job has done so far, for a bar, and the way to stop it.

use crate::error::{FlowError, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters that a job updates and anyone may read.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
    files: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Bytes (or chunks, for `verify`) that the job will go through; 0 while
    /// it is not known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Of those, how many are done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Files that are done.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Shows how far a job of another process is.
    pub fn mirror(&self, total: u64, done: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
    }

    /// Asks the job to stop; it ends with [`FlowError::Interrupted`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(FlowError::Interrupted) } else { Ok(()) }
    }
}

/// Something that could not be done while the rest went on.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The path in the tree or on the disk.
    pub path: Vec<u8>,
    /// Why.
    pub error: FlowError,
}

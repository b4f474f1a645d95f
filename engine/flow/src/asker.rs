//! Whoever asked for something, and may stop waiting for it.
//!
//! Neighbours: `fs` answers a request for good when its time is up, and says
//! so here; `live` and `namespace` look before they change something.
//! Promises: a change whose asker was told that it failed is not made later,
//! on top of what was done since. Never: waits. Tested by the unit tests
//! below and `fs/tests/mount_stalled.rs`.

use crate::error::{FlowError, Result};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    /// On whose behalf this thread works; `None`: nobody who could leave.
    static CURRENT: RefCell<Option<Asker>> = const { RefCell::new(None) };
}

/// One who waits for an answer.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    left: Arc<AtomicBool>,
}

impl Asker {
    /// It no longer waits: what has not been changed for it must not be.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// True if it no longer waits.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Works on its behalf.
    pub fn serve<T>(&self, act: impl FnOnce() -> T) -> T {
        /// Gives the thread back, also when `act` panics.
        struct Restore(Option<Asker>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(self.clone())));
        act()
    }
}

/// Fails if the one on whose behalf this thread works has left.
pub(crate) fn still_waits() -> Result<()> {
    let left = CURRENT.with_borrow(|asker| asker.as_ref().is_some_and(Asker::has_left));
    if left { Err(FlowError::GivenUp) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_for_whom_it_works_and_whether_they_wait() {
        let asker = Asker::default();
        asker.serve(|| {
            still_waits().unwrap();
            asker.leave();
            assert!(matches!(still_waits(), Err(FlowError::GivenUp)));
            // Another's work in between, even one that panics.
            let other = std::panic::catch_unwind(|| {
                Asker::default().serve(|| {
                    still_waits().unwrap();
                    panic!("on purpose");
                });
            });
            assert!(other.is_err() && still_waits().is_err());
        });
        still_waits().unwrap();
    }
}

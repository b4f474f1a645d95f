//! SIGINT, SIGTERM and SIGHUP: the job is asked to stop and cleans up; a second
//! signal ends the process at once.

use crate::report::{Exit, Failure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use warp_flow::Progress;

static LAST: AtomicI32 = AtomicI32::new(0);

/// Stops `progress` at the first signal.
pub(crate) fn stop_on_signal(progress: &Arc<Progress>) -> Result<(), Failure> {
    let progress = Arc::clone(progress);
    on_signal(move || progress.stop())
}

/// Calls `first` at the first signal.
pub(crate) fn on_signal(first: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])
        .map_err(|e| Failure::new(Exit::Failed, format!("signal handler: {e}")))?;
    std::thread::spawn(move || {
        let mut first = Some(first);
        for signal in signals.forever() {
            LAST.store(signal, Ordering::SeqCst);
            match first.take() {
                Some(first) => first(),
                None => std::process::exit(128 + signal),
            }
        }
    });
    Ok(())
}

/// The exit code of the signal that came, if one did.
pub(crate) fn received() -> Option<Exit> {
    match LAST.load(Ordering::SeqCst) {
        SIGINT => Some(Exit::Interrupted),
        SIGTERM | SIGHUP => Some(Exit::Terminated),
        _ => None,
    }
}

//! Keeps this device connected to the other devices of a portal.
//!
//! Neighbours: `book` knows where they were, multicast says where they are;
//! `net` dials. Promises: each is tried again after a pause that grows, and at
//! once when something new is known of where it is. Never: dials whom the
//! chain does not name. Tested by `tests/tests/peers.rs`.

use super::{Core, Shared};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use warp_format::DeviceId;

/// Pause after the first failure; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// How often it is looked who is not connected.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// When a device is to be tried again.
struct Next {
    at: Instant,
    pause: Duration,
}

/// Dials until the portal is shared no more.
pub(super) async fn keep_connected(core: Arc<Core>, shared: Arc<Shared>) {
    let mut next: HashMap<DeviceId, Next> = HashMap::new();
    let mut trying = tokio::task::JoinSet::new();
    let mut busy: HashMap<DeviceId, AbortHandle> = HashMap::new();
    loop {
        while let Some(done) = trying.try_join_next() {
            let Ok((device, reached)) = done else { continue };
            busy.remove(&device);
            if reached {
                next.remove(&device);
            } else {
                let pause = next.get(&device).map_or(FIRST_PAUSE, |next| next.pause * 2);
                let pause = pause.min(LAST_PAUSE);
                next.insert(device, Next { at: Instant::now() + pause, pause });
            }
        }
        for device in core.others(&shared) {
            if shared.is_linked(&device) {
                continue;
            }
            if shared.take_news(&device) {
                next.remove(&device);
                // It is being tried where it was: the silence there must not
                // keep it from being found where it is.
                busy.remove(&device).inspect(AbortHandle::abort);
            } else if busy.contains_key(&device) {
                continue;
            }
            let addresses = shared.book.addresses(&device);
            let is_due = next.get(&device).is_none_or(|next| next.at <= Instant::now());
            let Some(endpoint) = core.endpoint().filter(|_| is_due && !addresses.is_empty()) else {
                continue;
            };
            let portal = shared.id;
            let attempt = trying.spawn(async move {
                let reached = endpoint.open(device, &addresses, portal).await;
                if let Err(e) = &reached {
                    tracing::debug!(%portal, peer = %device, "not reached: {e}");
                }
                (device, reached.is_ok())
            });
            busy.insert(device, attempt);
        }
        tokio::select! {
            () = shared.over.notified() => return,
            () = shared.dial.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if shared.is_over() {
            return;
        }
    }
}

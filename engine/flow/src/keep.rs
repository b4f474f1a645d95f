//! A portal of which this device is a custodian: it keeps sealed chunks and
//! heads for the members, and can open none.
//!
//! Neighbours: `peers` hands over heads, lists what peers hold, and serves what
//! is here; `swarm` and `cache::store` below. Promises: a head is kept and told
//! only when all that it names is here and durable; what is kept is never
//! dropped. Never: holds a secret that opens anything. Tested by
//! `tests/tests/members.rs`.

use crate::error::{FlowError, Result};
use crate::heads::{HeadFiles, Heads, is_newer};
use crate::limits::WARM_AHEAD;
use crate::swarm::Swarm;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warp_cache::disk::Disk;
use warp_cache::store::{Class, Store};
use warp_format::{ChunkId, DeviceId, FormatError, Head, PortalId};

/// A portal that is kept here, open.
pub struct Keeper {
    portal: PortalId,
    files: HeadFiles,
    store: Arc<Store>,
    swarm: Arc<Swarm>,
    state: Mutex<State>,
    over: AtomicBool,
    /// Held for life: one process at a time.
    lock: Mutex<Option<File>>,
}

#[derive(Default)]
struct State {
    kept: Heads,
    coming: HashMap<DeviceId, Coming>,
}

/// A head of which not all may be here.
#[derive(Clone)]
pub(crate) struct Coming {
    pub(crate) head: Head,
    bytes: Vec<u8>,
    /// Who told it.
    pub(crate) from: HashSet<DeviceId>,
}

/// What became of chunks that were to be fetched.
#[derive(Default)]
pub(crate) struct Fetched {
    /// Those that nobody gave.
    pub(crate) missing: Vec<ChunkId>,
    /// Why.
    pub(crate) why: Option<FlowError>,
}

impl Keeper {
    /// Opens what is on this disk.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        portal: PortalId,
        (store, swarm): (Arc<Store>, Arc<Swarm>),
        lock: File,
    ) -> Result<Arc<Self>> {
        let files = HeadFiles::new(disk, portal);
        let state = State { kept: files.newest()?, coming: HashMap::new() };
        Ok(Arc::new(Self {
            portal,
            files,
            store,
            swarm,
            state: Mutex::new(state),
            over: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chunks that are kept.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The way to peers.
    pub(crate) fn swarm(&self) -> &Arc<Swarm> {
        &self.swarm
    }

    /// The newest heads whose chunks are all here, as they were signed.
    pub fn heads(&self) -> Vec<Vec<u8>> {
        self.state().kept.values().map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Number of the newest of these; 0: none yet.
    pub fn sequence(&self) -> u64 {
        self.state().kept.values().map(|(head, _)| head.sequence).max().unwrap_or(0)
    }

    /// A peer told a head of a device that may publish.
    pub(crate) fn take_head(&self, bytes: &[u8], from: DeviceId) -> Result<()> {
        let head = Head::open(bytes)?;
        if head.portal != self.portal {
            return Err(FormatError::Invalid { at: "portal of a head" }.into());
        }
        let mut state = self.state();
        if let Some((kept, _)) = state.kept.get(&head.device)
            && !is_newer(&head, kept)?
        {
            return Ok(());
        }
        match state.coming.get_mut(&head.device) {
            Some(coming) if coming.head == head => {
                coming.from.insert(from);
            }
            Some(coming) if !is_newer(&head, &coming.head)? => {}
            _ => {
                let (device, from) = (head.device, HashSet::from([from]));
                state.coming.insert(device, Coming { head, bytes: bytes.to_vec(), from });
            }
        }
        Ok(())
    }

    /// Heads that are to be kept once what they name is here.
    pub(crate) fn coming(&self) -> Vec<Coming> {
        self.state().coming.values().cloned().collect()
    }

    /// Fetches these from whoever has them. Waits.
    pub(crate) fn fetch(&self, ids: &[ChunkId]) -> Fetched {
        let mut fetched = Fetched::default();
        for (n, id) in ids.iter().enumerate() {
            if self.over.load(Ordering::Relaxed) {
                fetched.missing.extend(&ids[n..]);
                break;
            }
            if n % (WARM_AHEAD / 2) == 0 {
                self.swarm.expect_ids(&ids[n..ids.len().min(n + WARM_AHEAD)]);
            }
            let here = || self.store.contains(id);
            if here() {
                continue;
            }
            match self.swarm.fetch(id) {
                Ok(_) if here() => {}
                // The disk takes no more, as the log says.
                Ok(_) => fetched.missing.push(*id),
                Err(e) => {
                    fetched.missing.push(*id);
                    fetched.why = Some(e);
                }
            }
        }
        fetched
    }

    /// Everything that these heads name has come: makes that durable, and then
    /// them.
    pub(crate) fn keep(&self, whole: Vec<Coming>) -> Result<()> {
        self.store.sync()?;
        for Coming { head, bytes, .. } in whole {
            let known = self.state().kept.get(&head.device).map(|(known, _)| known.clone());
            if let Some(known) = known
                && !is_newer(&head, &known)?
            {
                continue;
            }
            self.files.keep(&head, &bytes)?;
            let mut state = self.state();
            if state.coming.get(&head.device).is_some_and(|coming| coming.head == head) {
                state.coming.remove(&head.device);
            }
            state.kept.insert(head.device, (head, bytes));
        }
        Ok(())
    }

    /// Chunks that are kept, and the bytes of their packs.
    pub(crate) fn usage(&self) -> warp_cache::store::Usage {
        self.store.usage(Class::Replica)
    }

    /// Ends what works on it.
    pub fn close(&self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        self.swarm.set_offline(true);
        let settled = self.store.sync().and_then(|()| self.store.settle());
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(settled?)
    }
}

//! Has a custodian come by everything that its peers hold.
//!
//! Neighbours: `keep` holds it; `net` lists, `swarm` fetches. Promises: what a
//! peer is asked to list is what came since it was asked last; a head counts
//! once everything was fetched that a peer holds who has all of it. Never:
//! drops a chunk. Tested by `tests/tests/members.rs`.

use super::{Core, Link, Shared, tell};
use crate::error::{FlowError, Result};
use crate::keep::{Coming, Keeper};
use crate::swarm::Peer as _;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use warp_format::members::Capability;
use warp_format::{ChunkId, DeviceId};
use warp_net::Event;

/// How often peers are asked what else they hold, beside when they tell a head.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long it is waited after something failed: a full disk, say.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Keeps everything until the portal is shared no more.
pub(super) async fn keep_all(core: Arc<Core>, shared: Arc<Shared>, keeper: Arc<Keeper>) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = shared.heard.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if shared.is_over() {
            return;
        }
        match round(&core, &shared, &keeper).await {
            Ok(()) => failing = false,
            Err(e) => {
                if !failing {
                    tracing::warn!(portal = %shared.id, "not all is kept yet: {e}");
                }
                failing = true;
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

/// A head that is to be kept, and the peers who have all that it names.
struct Wanted {
    coming: Coming,
    holders: HashSet<DeviceId>,
}

/// Fetches what peers hold by now, and keeps the heads that are whole then.
async fn round(core: &Core, shared: &Shared, keeper: &Arc<Keeper>) -> Result<()> {
    let links: Vec<_> = shared.links().values().cloned().collect();
    // What they have is asked before what they hold is listed: it is there.
    let wanted: Vec<Wanted> = keeper
        .coming()
        .into_iter()
        .map(|coming| {
            let has = |link: &&Arc<Link>| holds_all(shared, link, &coming);
            let holders = links.iter().filter(has).map(|link| link.device()).collect();
            Wanted { coming, holders }
        })
        .collect();
    let mut listed = HashSet::new();
    let mut failed = None;
    for link in &links {
        match take_over(keeper, link).await {
            Ok(()) => drop(listed.insert(link.device())),
            Err(e) => failed = Some(e),
        }
    }
    let is_whole = |wanted: &Wanted| wanted.holders.iter().any(|holder| listed.contains(holder));
    let whole: Vec<_> = wanted.into_iter().filter(is_whole).map(|one| one.coming).collect();
    if !whole.is_empty() {
        let keeper = Arc::clone(keeper);
        blocking(move || keeper.keep(whole)).await??;
        // Who is told of a head asks for what it names.
        tell::changes(shared);
        core.tell_heads(shared);
    }
    failed.map_or(Ok(()), Err)
}

/// True if a peer has all that a head names: its writer, or a custodian, who
/// tells of no other.
fn holds_all(shared: &Shared, link: &Link, coming: &Coming) -> bool {
    let chain = shared.chain();
    let capability = chain.member(&link.device()).map(|member| member.capability);
    link.has_root(&coming.head.root.id)
        || (capability == Some(Capability::Custodian) && coming.from.contains(&link.device()))
}

/// Fetches everything that a peer holds and that was not asked for before in
/// this session.
async fn take_over(keeper: &Arc<Keeper>, link: &Arc<Link>) -> Result<()> {
    loop {
        let after = link.listed();
        let page = link.session.list(after).await?;
        if page.next == after {
            return Ok(());
        }
        let fetched = {
            let keeper = Arc::clone(keeper);
            blocking(move || keeper.fetch(&page.ids)).await?
        };
        for id in fetched.missing {
            // It may have been dropped there since: then no head names it.
            if !is_gone(link, id).await {
                let lost = FlowError::Lost { what: "chunk, or the room for it," };
                return Err(fetched.why.unwrap_or(lost));
            }
        }
        link.set_listed(page.next);
    }
}

/// True if a peer says that it does not have a chunk.
async fn is_gone(link: &Link, id: ChunkId) -> bool {
    let (tell, mut told) = unbounded_channel();
    let _asked = link.session.request(0, vec![id], tell);
    while let Some(event) = told.recv().await {
        match event {
            Event::NotFound { .. } => return true,
            Event::Progress { .. } => {}
            _ => return false,
        }
    }
    false
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| FlowError::Lost { what: "thread" })
}

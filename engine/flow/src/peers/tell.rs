//! What the peers of a portal are told of what is here.
//!
//! Neighbours: `peers` says when; `swarm` notes what comes and goes; `link`
//! knows how long a peer's fingerprints are. Promises: a peer is told each
//! chunk that is here, however many become more; fingerprints of one length
//! never follow those of another. Never: says what its writer has chunk by
//! chunk: that is whatever its head names. Tested by `tests/tests/peers.rs`.

use super::{Link, Shared};
use warp_format::wire::{Have, Prints};
use warp_net::News;

/// Says all that is here to a peer that has just come.
pub(super) fn introduce(shared: &Shared, link: &Link) {
    if let Some(whole) = shared.whole() {
        link.session.tell(News::Have(whole));
        return;
    }
    let mut bits = link.bits();
    let ids = shared.store().ids();
    *bits = Prints::bits_for(ids.len());
    link.session.tell(News::Have(Have::Forget));
    for prints in Prints::of(&link.session.salt_here(), *bits, ids) {
        link.session.tell(News::Have(Have::Added(prints)));
    }
}

/// Tells the peers of a portal what else is here by now, and what no more.
pub(super) fn changes(shared: &Shared) {
    let Some(swarm) = &shared.swarm else { return };
    let (mut came, mut went) = swarm.take_changes();
    if came.is_empty() && went.is_empty() {
        return;
    }
    // What came and went, or went and came, is told as it is now.
    let store = shared.store();
    came.retain(|id| store.contains(id));
    went.retain(|id| !store.contains(id));
    let needed = Prints::bits_for(store.len());
    let links: Vec<_> = shared.links().values().cloned().collect();
    for link in links {
        let bits = link.bits();
        if *bits < needed {
            // Too short to tell so many apart: each doubling says all anew.
            drop(bits);
            introduce(shared, &link);
            continue;
        }
        let salt = link.session.salt_here();
        for prints in Prints::of(&salt, *bits, went.iter().copied()) {
            link.session.tell(News::Have(Have::Removed(prints)));
        }
        for prints in Prints::of(&salt, *bits, came.iter().copied()) {
            link.session.tell(News::Have(Have::Added(prints)));
        }
    }
}

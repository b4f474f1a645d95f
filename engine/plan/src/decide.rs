//! What is to be done now: timers first, then requests for peers with room,
//! then second copies.
//!
//! Neighbours: `planner` for the state, `list` for the plan; `flow::swarm`
//! carries it out. Promises: what is decided counts as done at once; a chunk
//! is asked of two peers at most, and of one peer once; a quarantined peer is
//! never asked. Never: decides the same thing twice. Tested by
//! `tests/prop_events.rs` and `tests/sim_*`.

use crate::Micros;
use crate::holders::{ChunkNo, Holders, PeerNo};
use crate::limits::{
    BACKOFF_SUSPECT, COMMIT_SLACK, HEDGE_ENDGAME, HEDGE_EVERY, HEDGE_GAIN, HEDGE_GAIN_LATE,
    HEDGE_HEADS, HEDGE_LATE,
};
use crate::list::{Candidate, Step};
use crate::peer::{Peer, Trust, span, volume};
use crate::planner::Planner;
use crate::wants::Due;

/// Why a peer is asked for a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It will have it here first.
    Planned,
    /// The peer that was asked before fell silent.
    Rescue,
    /// The peer that was asked before will be late; whoever is first wins.
    Hedge,
}

impl Why {
    /// One word for it, which stays.
    pub fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Rescue => "rescue",
            Self::Hedge => "hedge",
        }
    }
}

/// Ask this peer for this chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Whom.
    pub peer: PeerNo,
    /// What.
    pub chunk: ChunkNo,
    /// The reason.
    pub why: Why,
    /// When it is expected to be here (the planner's clock, microseconds).
    pub finish: Micros,
    /// The holders that were compared, best first.
    pub candidates: [Option<Candidate>; 3],
}

/// Stop this request: the chunk came from another peer, or is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Who was asked.
    pub peer: PeerNo,
    /// For what.
    pub chunk: ChunkNo,
}

/// What is to be done, in any order; it counts as done for the planner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Requests to make.
    pub assignments: Vec<Assignment>,
    /// Requests to end. No event is expected of them any more.
    pub stops: Vec<Stop>,
    /// When to ask again even if nothing happens; `None` if only an event
    /// can change anything.
    pub wake_at: Option<Micros>,
}

impl Planner {
    /// Decides. To be called after events, once for all that happened at a
    /// time, and at `wake_at`.
    pub fn decide(&mut self, now: Micros) -> Decision {
        let mut decision = Decision::default();
        if now >= self.timer {
            self.suspect(now);
        }
        for peer in self.touched.iter() {
            self.recall(now, peer);
        }
        self.fill(now, &mut decision.assignments);
        if now >= self.hedge_at && !self.wants.asked.is_empty() {
            self.hedge_at = now + HEDGE_EVERY;
            self.hedge(now, &mut decision.assignments);
        }
        decision.stops = std::mem::take(&mut self.stops);
        self.touched = Holders::NONE;
        decision.wake_at = self.wake_at(now);
        decision
    }

    /// Looks for peers that fell silent, and for those silent for so long that
    /// they are tried again.
    fn suspect(&mut self, now: Micros) {
        for peer in self.here.iter() {
            let Some(known) = &mut self.peers[peer.index()] else { continue };
            let chunks: Vec<ChunkNo> = known.queue.iter().map(|sent| sent.chunk).collect();
            if known.suspect_at().is_some_and(|at| at <= now) {
                known.trust = Trust::Suspect;
                known.strike(now, BACKOFF_SUSPECT);
                self.counts.suspected += 1;
                for chunk in chunks {
                    self.wants.set_live(chunk, peer, false);
                }
            } else if known.trust == Trust::Suspect && known.rest_until <= now {
                known.try_again();
                for chunk in chunks {
                    self.stop(peer, chunk);
                    self.wants.unask(chunk, peer);
                }
            }
            self.touched.insert(peer);
        }
        self.plan.levels.disturb();
        self.plan.is_stale = true;
        self.timer = self.next_timer(now);
    }

    /// Takes back what a peer will not begin with soon, since it turned out to
    /// be slower than when it was asked, if others hold it.
    fn recall(&mut self, now: Micros, peer: PeerNo) {
        let open = self.open(now);
        while let Some(known) = &self.peers[peer.index()]
            && let Some(last) = known.unbegun()
            && let Some(chunk) = self.wants.get(last)
            && chunk.holders.and(&open).iter().any(|other| other != peer)
        {
            self.stop(peer, last);
            self.wants.unask(last, peer);
            self.disturbed(peer);
        }
    }

    /// The next time at which a peer becomes suspect, or may be asked again.
    fn next_timer(&self, now: Micros) -> Micros {
        let times = self.here.iter().filter_map(|peer| self.peers[peer.index()].as_ref()).flat_map(
            |known| {
                let pauses = [known.rest_until, known.traits.open_from, known.traits.open_until];
                let later = pauses.into_iter().filter(|at| *at > now && *at < Micros::MAX);
                later.chain(known.suspect_at())
            },
        );
        times.min().unwrap_or(Micros::MAX)
    }

    /// Gives peers with room what the plan has for them.
    fn fill(&mut self, now: Micros, out: &mut Vec<Assignment>) {
        if self.wants.pending.is_empty() {
            return;
        }
        let mut peers = self.touched;
        let mut is_fresh = false;
        if self.plan.is_old(now) {
            self.make_plan(now);
            (peers, is_fresh) = (self.here, true);
        }
        loop {
            let mut wants_more = false;
            for peer in peers.iter() {
                wants_more |= self.fill_peer(now, peer, out);
            }
            if !wants_more || is_fresh || self.plan.made_at() == now {
                return;
            }
            self.make_plan(now);
            (peers, is_fresh) = (self.here, true);
        }
    }

    /// Gives one peer what it has room for; says whether the plan had less.
    fn fill_peer(&mut self, now: Micros, peer: PeerNo, out: &mut Vec<Assignment>) -> bool {
        loop {
            let nearest = self.plan.nearest == Some(peer);
            let has_room = |known: &Peer| known.is_open(now) && known.has_room(nearest);
            let is_ready = self.peers[peer.index()].as_ref().is_some_and(has_room);
            if !is_ready || !self.downlink_has_room(peer) {
                return false;
            }
            let Some(step) = self.plan.steps[peer.index()].pop_front() else {
                return !self.wants.pending.is_empty();
            };
            // It may have been cancelled, or asked of another meanwhile.
            let Some(ready) = self.wants.pending.get(&step.key) else { continue };
            if ready.free.contains(peer) {
                let (len, share_of) = (u64::from(ready.len), ready.share_of);
                self.pass_share(peer, len, share_of);
                self.assign(now, peer, step, None, out);
            }
        }
    }

    /// Whether more may be under way to this device: what all peers owe keeps
    /// its own link busy for a round trip as well, or that is not the
    /// bottleneck. A peer that owes nothing may always be asked.
    fn downlink_has_room(&self, peer: PeerNo) -> bool {
        let Some(downlink) = self.downlink else { return true };
        let known = |peer: PeerNo| self.peers[peer.index()].as_ref();
        let owed: u64 = self.here.iter().filter_map(known).map(Peer::backlog).sum();
        let rtt = known(peer).map_or(0, |peer| peer.rtt.smooth());
        owed <= volume(downlink, rtt + COMMIT_SLACK) || self.backlog(peer) == 0
    }

    /// Whether this device receives as fast as it can: a second copy would
    /// only take from the first.
    fn downlink_is_full(&self) -> bool {
        let Some(downlink) = self.downlink else { return false };
        let known = self.here.iter().filter_map(|peer| self.peers[peer.index()].as_ref());
        let busy = known.filter(|peer| peer.backlog() > 0 && peer.trust == Trust::Live);
        busy.map(Peer::rate).sum::<u64>() >= downlink / 10 * 9
    }

    /// Levels follow when a chunk goes to another than it was planned for.
    fn pass_share(&mut self, peer: PeerNo, len: u64, share_of: Option<PeerNo>) {
        if share_of == Some(peer) {
            return;
        }
        let took = |peer: PeerNo| Some(span(len, self.peers[peer.index()].as_ref()?.rate()));
        let before = share_of.and_then(|peer| Some((peer, took(peer)?)));
        if let Some(took) = took(peer) {
            self.plan.levels.taken(peer, took);
        }
        if let Some((peer, took)) = before {
            self.plan.levels.spared(peer, took);
        }
    }

    /// Asks a peer for a chunk.
    fn assign(
        &mut self,
        now: Micros,
        peer: PeerNo,
        step: Step,
        why: Option<Why>,
        out: &mut Vec<Assignment>,
    ) {
        let number = step.key.1;
        let Some(chunk) = self.wants.get(number).copied() else { return };
        // Two open requests at most: of two silent peers the first is let go.
        if let [Some(first), Some(_)] = chunk.asks {
            self.stop(first.peer, number);
            self.wants.unask(number, first.peer);
        }
        let is_rescue = chunk.asks.iter().flatten().next().is_some();
        let why = why.unwrap_or(if is_rescue { Why::Rescue } else { Why::Planned });
        let Some(known) = &mut self.peers[peer.index()] else { return };
        known.sent(now, number, u64::from(chunk.len));
        let finish = known.answer_at(now, known.queue.len() - 1);
        self.wants.ask(number, peer, finish);
        self.timer = self.timer.min(known.suspect_at().unwrap_or(Micros::MAX));
        self.counts.asked += 1;
        self.counts.rescued += u64::from(why == Why::Rescue);
        self.counts.hedged += u64::from(why == Why::Hedge);
        let candidates = step.candidates;
        out.push(Assignment { peer, chunk: number, why, finish, candidates });
    }

    /// Asks a second peer for chunks that will be late: the first in line,
    /// and in the endgame all.
    fn hedge(&mut self, now: Micros, out: &mut Vec<Assignment>) {
        if self.downlink_is_full() {
            return;
        }
        let endgame = self.wants.pending.is_empty();
        let count = if endgame { HEDGE_ENDGAME } else { HEDGE_HEADS };
        let heads: Vec<_> = self.wants.asked.iter().take(count).copied().collect();
        for key in heads {
            let Some(chunk) = self.wants.get(key.1).copied() else { continue };
            let [Some(first), None] = chunk.asks else { continue };
            let Some(known) = &self.peers[first.peer.index()] else { continue };
            let Some(place) = known.queue.iter().position(|sent| sent.chunk == key.1) else {
                continue;
            };
            // What is long overdue is taken to need as long again: estimates of
            // a rate that has just collapsed are still too good.
            let overdue = now.saturating_sub(first.promised);
            let again = if overdue > HEDGE_LATE { overdue } else { 0 };
            let is_awaited = matches!(chunk.due, Due::By(due) if due <= now);
            let expected = if is_awaited && known.is_hushed(now) {
                now + BACKOFF_SUSPECT
            } else {
                known.answer_at(now, place).max(now + again)
            };
            let is_late = expected > first.promised + HEDGE_LATE;
            let second = self.best_second(now, &chunk.holders, first.peer, chunk.len, is_late);
            let Some(second) = second else { continue };
            let (wait, quicker) = (expected - now, second.finish.saturating_sub(now));
            let gain = if is_late { HEDGE_GAIN_LATE } else { HEDGE_GAIN };
            let is_worth_it = wait > quicker + quicker / 4 + gain;
            if is_worth_it && self.budget.draw(u64::from(chunk.len), endgame) {
                let before = Candidate { peer: first.peer, finish: expected };
                let candidates = [Some(second), Some(before), None];
                let step = Step { key, candidates };
                self.assign(now, second.peer, step, Some(Why::Hedge), out);
            }
        }
    }

    /// The proven holder that would have a chunk here first. It has to have
    /// room, unless the chunk is late against its promise: then the time that
    /// it waits there is worth it.
    fn best_second(
        &self,
        now: Micros,
        holders: &Holders,
        first: PeerNo,
        len: u32,
        is_late: bool,
    ) -> Option<Candidate> {
        let others = holders.iter().filter(|peer| *peer != first);
        let offers = others.filter_map(|peer| {
            let known = self.peers[peer.index()].as_ref()?;
            let over = if is_late { 2 * u64::from(len) } else { 0 };
            let most = known.commit_bytes() + over;
            let useful = known.is_open(now) && known.is_proven() && known.backlog() <= most;
            let is_free = useful && !known.traits.is_spared();
            let finish = known.free_at(now) + span(u64::from(len), known.rate());
            is_free.then_some(Candidate { peer, finish })
        });
        offers.min_by_key(|offer| (offer.finish, offer.peer))
    }

    fn wake_at(&self, now: Micros) -> Option<Micros> {
        let hedge = if self.wants.asked.is_empty() { Micros::MAX } else { now + 5 * HEDGE_EVERY };
        let next = self.timer.min(hedge);
        (next < Micros::MAX).then_some(next.max(now + 1))
    }
}

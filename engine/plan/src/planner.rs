//! The planner's state and the events that change it.
//!
//! Neighbours: `flow::swarm` tells it what happens and acts on what `decide`
//! (in `decide`) answers; the simulator of `tests/` does the same. Promises:
//! an event that comes late (for a peer that left, a chunk that is here) is
//! taken calmly; after every event each wanted chunk is asked of a live peer,
//! or pending. Never: reads a clock, waits, or draws random numbers: the same
//! events give the same decisions. Tested by `tests/prop_events.rs` and
//! `tests/sim_*`.

use crate::Micros;
use crate::budget::Budget;
use crate::decide::Stop;
use crate::holders::{ChunkNo, Holders, PEERS_MAX, PeerNo};
use crate::limits::{BACKOFF_MIN, RATE_MIN};
use crate::list::Plan;
use crate::peer::{Peer, Trust};
use crate::wants::{Due, Wants};

/// What is known of a peer beside what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// A first round trip, microseconds, if one was measured.
    pub rtt: Option<Micros>,
    /// Its bytes cost money: asked only if the goal is missed without it.
    pub metered: bool,
    /// It runs on battery: the same.
    pub battery: bool,
    /// It may be asked from this time on (the planner's clock) ...
    pub open_from: Micros,
    /// ... and before this one.
    pub open_until: Micros,
}

impl Default for Traits {
    fn default() -> Self {
        let open_until = Micros::MAX;
        Self { rtt: None, metered: false, battery: false, open_from: 0, open_until }
    }
}

impl Traits {
    /// Whether it is spared while others suffice.
    pub(crate) fn is_spared(&self) -> bool {
        self.metered || self.battery
    }
}

/// What a received chunk turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its bytes are those of its id.
    Good,
    /// They are not: wrong, too few, or too many.
    Bad,
}

/// What was done so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests decided on, second copies included.
    pub asked: u64,
    /// Second copies asked for to save time.
    pub hedged: u64,
    /// Chunks asked elsewhere because their peer fell silent.
    pub rescued: u64,
    /// Chunks that arrived, good, and were wanted.
    pub received: u64,
    /// Bytes of chunks that came in full and were no longer wanted, or bad.
    pub wasted_bytes: u64,
    /// Times a peer fell silent.
    pub suspected: u64,
    /// Peers that sent bad bytes.
    pub quarantined: u64,
    /// Plans made.
    pub plans: u64,
}

/// Decides which peer is asked for which chunk, and when.
///
/// The caller tells it every event with the time of its own clock (any
/// origin; it must not run backwards) and then asks [`Planner::decide`].
pub struct Planner {
    pub(crate) peers: Vec<Option<Peer>>,
    /// The peers that are there.
    pub(crate) here: Holders,
    pub(crate) quarantined: Holders,
    pub(crate) wants: Wants,
    pub(crate) plan: Plan,
    pub(crate) budget: Budget,
    pub(crate) stops: Vec<Stop>,
    /// Peers to which something happened since the last decision.
    pub(crate) touched: Holders,
    /// No timer ends before this.
    pub(crate) timer: Micros,
    pub(crate) hedge_at: Micros,
    pub(crate) downlink: Option<u64>,
    pub(crate) bulk_goal: Option<Micros>,
    pub(crate) counts: Counts,
}

impl Default for Planner {
    fn default() -> Self {
        Self::new()
    }
}

impl Planner {
    /// A planner that knows no peer and wants nothing.
    pub fn new() -> Self {
        Self {
            peers: vec![None; PEERS_MAX],
            here: Holders::NONE,
            quarantined: Holders::NONE,
            wants: Wants::default(),
            plan: Plan::new(),
            budget: Budget::new(),
            stops: Vec::new(),
            touched: Holders::NONE,
            timer: Micros::MAX,
            hedge_at: 0,
            downlink: None,
            bulk_goal: None,
            counts: Counts::default(),
        }
    }

    /// A peer can be asked from now on. If the number was in use, the former
    /// peer has left. It holds nothing until `want` or `holds` says so. A
    /// quarantined number stays quarantined until [`Planner::forget`].
    pub fn joined(&mut self, now: Micros, peer: PeerNo, traits: Traits) {
        self.left(now, peer);
        let mut new = Peer::new(traits);
        if self.quarantined.contains(peer) {
            new.trust = Trust::Quarantined;
        }
        self.peers[peer.index()] = Some(new);
        self.here.insert(peer);
        self.disturbed(peer);
    }

    /// The connection is closed. What the peer was asked for goes back at
    /// once, and it counts as a holder of nothing.
    pub fn left(&mut self, _now: Micros, peer: PeerNo) {
        let Some(gone) = self.peers[peer.index()].take() else { return };
        for sent in &gone.queue {
            self.wants.unask(sent.chunk, peer);
        }
        self.here.remove(peer);
        for chunk in self.wants.numbers() {
            if self.wants.get(chunk).is_some_and(|chunk| chunk.holders.contains(peer)) {
                self.wants.change(chunk, |chunk| chunk.holders.remove(peer));
            }
        }
        self.disturbed(peer);
    }

    /// The number now stands for another device, or a person trusts this one
    /// again: quarantine ends.
    pub fn forget(&mut self, peer: PeerNo) {
        self.quarantined.remove(peer);
        if let Some(known) = &mut self.peers[peer.index()] {
            if known.trust == Trust::Quarantined {
                known.trust = Trust::Live;
            }
            self.disturbed(peer);
        }
    }

    /// Traits changed: it went on battery, a window moved. `rtt` is ignored.
    pub fn traits(&mut self, peer: PeerNo, traits: Traits) {
        if let Some(known) = &mut self.peers[peer.index()] {
            known.traits = traits;
            self.disturbed(peer);
        }
    }

    /// A round trip was measured, microseconds.
    pub fn rtt(&mut self, peer: PeerNo, rtt: Micros) {
        if let Some(known) = &mut self.peers[peer.index()] {
            known.rtt.sample(rtt);
            self.touched.insert(peer);
        }
    }

    /// What this device can receive, bytes a second, all peers together;
    /// `None` if it is not the bottleneck or not known.
    pub fn downlink(&mut self, rate: Option<u64>) {
        self.downlink = rate.map(|rate| rate.max(RATE_MIN));
    }

    /// When all bulk chunks should be here. With it, metered peers and those
    /// on battery help if it is missed otherwise; without it, they are asked
    /// only for bulk chunks that nobody else holds.
    pub fn bulk_goal(&mut self, goal: Option<Micros>) {
        self.bulk_goal = goal;
        self.plan.is_stale = true;
    }

    /// A chunk is wanted: `len` its bytes as they travel (an estimate will
    /// do), `holders` who is believed to have it; peers that have not joined
    /// are left out. Wanting it again changes its due time and holders.
    pub fn want(&mut self, chunk: ChunkNo, len: u32, due: Due, holders: Holders) {
        let holders = holders.and(&self.here);
        if !self.wants.add(chunk, len.max(1), due, holders) {
            self.wants.change(chunk, |known| (known.due, known.holders) = (due, holders));
        }
        self.plan.wanted((due, chunk));
        // One of them may have nothing to do.
        holders.iter().for_each(|holder| self.touched.insert(holder));
    }

    /// Raises or lowers the urgency of a wanted chunk.
    pub fn due(&mut self, chunk: ChunkNo, due: Due) {
        if self.wants.get(chunk).is_some() {
            self.wants.change(chunk, |known| known.due = due);
            self.plan.is_stale = true;
        }
    }

    /// A peer has a wanted chunk, or has it no longer.
    pub fn holds(&mut self, peer: PeerNo, chunk: ChunkNo, holds: bool) {
        if !self.here.contains(peer) {
            return;
        }
        self.wants.change(chunk, |known| {
            if holds { known.holders.insert(peer) } else { known.holders.remove(peer) }
        });
        self.disturbed(peer);
    }

    /// A chunk is no longer wanted. Requests for it are stopped with the next
    /// decision.
    pub fn cancel(&mut self, chunk: ChunkNo) {
        self.drop_chunk(chunk, None);
    }

    /// Bytes of chunks came from a peer, of whichever of its open requests.
    /// To be told often: at least every 10 ms while bytes come.
    pub fn progress(&mut self, now: Micros, peer: PeerNo, bytes: u64) {
        let Some(known) = &mut self.peers[peer.index()] else { return };
        known.arrived(now, bytes);
        self.touched.insert(peer);
        self.believe(peer);
    }

    /// Packets came from a peer, if nothing of a chunk that could be read: a
    /// lost packet holds up those behind it. It is there, and no faster for it.
    pub fn heard(&mut self, now: Micros, peer: PeerNo) {
        let Some(known) = &mut self.peers[peer.index()] else { return };
        if known.is_held_up(now) {
            known.spoke(now);
            self.believe(peer);
        }
    }

    /// A chunk came in full and was verified. Bytes already told as progress
    /// are not counted twice. With `Outcome::Bad` the peer is quarantined:
    /// all that it was asked for is stopped and asked of others.
    pub fn received(&mut self, now: Micros, peer: PeerNo, chunk: ChunkNo, outcome: Outcome) {
        let Some(known) = &mut self.peers[peer.index()] else { return };
        let len = known.queue.iter().find(|sent| sent.chunk == chunk).map_or(0, |sent| sent.len);
        known.completed(now, chunk);
        self.touched.insert(peer);
        if outcome == Outcome::Bad {
            self.counts.wasted_bytes += len;
            self.wants.unask(chunk, peer);
            self.quarantine(peer);
            return;
        }
        self.believe(peer);
        if self.wants.get(chunk).is_some() {
            self.counts.received += 1;
            self.budget.received(len);
            self.drop_chunk(chunk, Some(peer));
        } else {
            self.counts.wasted_bytes += len;
        }
    }

    /// A peer does not have a chunk that it was believed to have. That is no
    /// lie: the map was wrong, and is corrected.
    pub fn not_found(&mut self, now: Micros, peer: PeerNo, chunk: ChunkNo) {
        self.answered(now, peer, chunk);
        self.wants.change(chunk, |known| known.holders.remove(peer));
    }

    /// A peer has more to do than it will do. It is left alone for a while.
    pub fn busy(&mut self, now: Micros, peer: PeerNo, chunk: ChunkNo) {
        self.answered(now, peer, chunk);
        self.rest(now, peer);
    }

    /// The stream of one request was reset, or could not be opened. For a
    /// closed connection, tell [`Planner::left`].
    pub fn failed(&mut self, now: Micros, peer: PeerNo, chunk: ChunkNo) {
        self.answered(now, peer, chunk);
        self.rest(now, peer);
    }

    /// Whether a peer sent bad bytes.
    pub fn is_quarantined(&self, peer: PeerNo) -> bool {
        self.quarantined.contains(peer)
    }

    /// Whether a peer owes something and is silent.
    pub fn is_suspect(&self, peer: PeerNo) -> bool {
        self.peers[peer.index()].as_ref().is_some_and(|peer| peer.trust == Trust::Suspect)
    }

    /// Delivery rate of a peer, bytes a second, once one was measured.
    pub fn rate(&self, peer: PeerNo) -> Option<u64> {
        let known = self.peers[peer.index()].as_ref()?;
        known.is_proven().then(|| known.rate())
    }

    /// Bytes that open requests of a peer will still bring.
    pub fn backlog(&self, peer: PeerNo) -> u64 {
        self.peers[peer.index()].as_ref().map_or(0, Peer::backlog)
    }

    /// How many chunks are wanted, and for how many of them no live peer is
    /// being asked.
    pub fn wanted(&self) -> (usize, usize) {
        (self.wants.len(), self.wants.pending.len())
    }

    /// The peers that are being asked for a chunk; `None` if it is not wanted.
    pub fn asked_of(&self, chunk: ChunkNo) -> Option<Holders> {
        let known = self.wants.get(chunk)?;
        Some(known.asks.iter().flatten().map(|ask| ask.peer).collect())
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A request ended without its chunk, and the peer spoke.
    fn answered(&mut self, now: Micros, peer: PeerNo, chunk: ChunkNo) {
        let Some(known) = &mut self.peers[peer.index()] else { return };
        known.spoke(now);
        if known.withdrawn(chunk) {
            self.wants.unask(chunk, peer);
        }
        self.believe(peer);
        self.disturbed(peer);
    }

    fn rest(&mut self, now: Micros, peer: PeerNo) {
        if let Some(known) = &mut self.peers[peer.index()] {
            known.strike(now, BACKOFF_MIN);
            self.timer = self.timer.min(known.rest_until);
        }
    }

    /// A suspect gave a sign of life: what it was asked for counts again.
    fn believe(&mut self, peer: PeerNo) {
        let Some(known) = &mut self.peers[peer.index()] else { return };
        if known.trust != Trust::Suspect {
            return;
        }
        known.trust = Trust::Live;
        known.rest_until = 0;
        for sent in &known.queue {
            self.wants.set_live(sent.chunk, peer, true);
        }
        self.disturbed(peer);
    }

    fn quarantine(&mut self, peer: PeerNo) {
        self.quarantined.insert(peer);
        self.counts.quarantined += 1;
        let Some(known) = &mut self.peers[peer.index()] else { return };
        for sent in std::mem::take(&mut known.queue) {
            self.wants.unask(sent.chunk, peer);
            self.stops.push(Stop { peer, chunk: sent.chunk });
        }
        let traits = known.traits;
        // What it owes is void.
        *known = Peer::new(traits);
        known.trust = Trust::Quarantined;
        self.disturbed(peer);
    }

    /// Ends the want of a chunk; whoever else was asked is stopped.
    fn drop_chunk(&mut self, chunk: ChunkNo, giver: Option<PeerNo>) {
        let Some(known) = self.wants.remove(chunk) else { return };
        for ask in known.asks.iter().flatten().filter(|ask| Some(ask.peer) != giver) {
            self.stop(ask.peer, chunk);
        }
    }

    /// Ends a request.
    pub(crate) fn stop(&mut self, peer: PeerNo, chunk: ChunkNo) {
        if let Some(known) = &mut self.peers[peer.index()]
            && known.withdrawn(chunk)
        {
            self.stops.push(Stop { peer, chunk });
            self.touched.insert(peer);
        }
    }

    /// Something happened that makes the plan void.
    pub(crate) fn disturbed(&mut self, peer: PeerNo) {
        self.plan.levels.disturb();
        self.touched.insert(peer);
        self.plan.is_stale = true;
    }
}

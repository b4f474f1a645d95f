//! The peers while a plan is made, in the order in which they would have a
//! further chunk here.
//!
//! Neighbours: `list` makes them for each plan and gives chunks to them.
//! Promises: a chunk given costs a search and a move of small numbers, however
//! far back its peer falls. Never: outlives the plan. Tested by `tests/sim_*`,
//! and its cost by `cargo xtask bench plan`.

use crate::Micros;
use crate::holders::{Holders, PEERS_MAX, PeerNo};
use crate::levels::Runner;
use crate::list::{CANDIDATES, Candidate, Candidates};
use crate::wants::Ready;
use warp_kernels::took_us;

/// A peer while a plan is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    /// When the next chunk would begin to come.
    pub(crate) start: Micros,
    pub(crate) rate: u64,
    /// What a byte takes at that rate.
    pub(crate) pace: u64,
    /// When it is done with its share of all that is pending.
    pub(crate) level: Micros,
    /// Bytes it has room for until the next plan, less those planned.
    pub(crate) need: i64,
    pub(crate) peer: PeerNo,
}

/// Lanes and who is in which class.
pub(crate) struct Lanes {
    pub(crate) lanes: Vec<Lane>,
    /// When a chunk of the usual length would be here, and whose lane it is.
    order: Vec<(Micros, u8)>,
    /// The lane of each peer.
    place: [u8; PEERS_MAX],
    /// Proven peers, and the nearest of the others.
    pub(crate) first: Holders,
    /// Unproven peers that may be tried with a chunk nobody waits for.
    pub(crate) untried: Holders,
    /// Metered or on battery.
    pub(crate) spared: Holders,
    pub(crate) usual_len: u64,
    /// So much later than whose share it is may a taker of a chunk be done.
    pub(crate) slack: Micros,
}

impl Lanes {
    pub(crate) fn new(usual_len: u64) -> Self {
        Self {
            lanes: Vec::new(),
            order: Vec::new(),
            place: [0; PEERS_MAX],
            first: Holders::NONE,
            untried: Holders::NONE,
            spared: Holders::NONE,
            usual_len,
            slack: Micros::MAX,
        }
    }

    /// Takes lanes in, each with the time at which it would be done first.
    pub(crate) fn set(&mut self, lanes: Vec<(Micros, Lane)>) {
        for (index, (finish, lane)) in lanes.into_iter().enumerate() {
            // One lane a peer, so there are as many places as numbers.
            let index = index as u8;
            self.place[lane.peer.index()] = index;
            self.order.push((finish, index));
            self.lanes.push(lane);
        }
        self.order.sort_unstable();
    }

    /// The lanes, whoever has a chunk here first before others.
    pub(crate) fn by_finish(&self) -> impl Iterator<Item = &Lane> {
        self.order.iter().map(|(_, index)| &self.lanes[usize::from(*index)])
    }

    fn of(&self, peer: PeerNo) -> Option<&Lane> {
        let lane = self.lanes.get(usize::from(self.place[peer.index()]))?;
        (lane.peer == peer).then_some(lane)
    }

    fn of_mut(&mut self, peer: PeerNo) -> Option<&mut Lane> {
        let lane = self.lanes.get_mut(usize::from(self.place[peer.index()]))?;
        (lane.peer == peer).then_some(lane)
    }

    /// How many of the peers that are asked first have room and nothing
    /// planned; of all peers, if there are no such.
    pub(crate) fn needy(&self) -> usize {
        self.lanes.iter().filter(|lane| self.counts(lane.peer) && lane.need > 0).count()
    }

    fn counts(&self, peer: PeerNo) -> bool {
        let first = self.first.without(&self.spared);
        first.is_empty() || first.contains(peer)
    }

    /// Who takes part in the large plan.
    pub(crate) fn runners(&self) -> Vec<Runner> {
        let taking_part = self.lanes.iter().filter(|lane| !self.spared.contains(lane.peer));
        taking_part
            .map(|lane| Runner { peer: lane.peer, start: lane.start, rate: lane.rate })
            .collect()
    }

    /// The first few holders by finish, exact for this chunk. With `fair`, only
    /// those that have time for it beside their share.
    pub(crate) fn best(&self, holders: &Holders, ready: &Ready, fair: bool) -> Candidates {
        let giver = ready.share_of.filter(|_| fair && self.slack < Micros::MAX);
        let giver = giver.and_then(|peer| self.of(peer));
        let limit = giver.map_or(Micros::MAX, |giver| giver.level + self.slack);
        let mut found = [None; CANDIDATES];
        let mut count = 0;
        for lane in self.by_finish().filter(|lane| holders.contains(lane.peer)) {
            let took = took_us(u64::from(ready.len), lane.pace);
            let is_over = limit < Micros::MAX && lane.level + took > limit;
            if is_over && ready.share_of != Some(lane.peer) {
                continue;
            }
            let this = Candidate { peer: lane.peer, finish: lane.start + took };
            // Lengths differ from the usual, so the order is not quite right.
            let is_before =
                |other: &Option<Candidate>| other.is_some_and(|other| other.finish <= this.finish);
            let at = found[..count].iter().take_while(|other| is_before(other)).count();
            found.copy_within(at..count, at + 1);
            found[at] = Some(this);
            count += 1;
            if count == CANDIDATES {
                break;
            }
        }
        found
    }

    /// Levels follow when a chunk goes to another than it was planned for.
    fn pass_share(&mut self, peer: PeerNo, ready: &Ready) {
        if self.slack == Micros::MAX || ready.share_of == Some(peer) {
            return;
        }
        let len = u64::from(ready.len);
        if let Some(lane) = self.of_mut(peer) {
            lane.level += took_us(len, lane.pace);
        }
        if let Some(lane) = ready.share_of.and_then(|peer| self.of_mut(peer)) {
            lane.level = lane.level.saturating_sub(took_us(len, lane.pace));
        }
    }

    /// Gives a lane a chunk and moves it to where it then belongs. Returns
    /// whether its need is met by that.
    pub(crate) fn give(&mut self, peer: PeerNo, ready: &Ready) -> bool {
        self.pass_share(peer, ready);
        let counts = self.counts(peer);
        let (len, usual_len, place) =
            (u64::from(ready.len), self.usual_len, self.place[peer.index()]);
        let Some(lane) = self.of_mut(peer) else { return false };
        let had_need = lane.need > 0;
        lane.start += took_us(len, lane.pace);
        lane.need = lane.need.saturating_sub_unsigned(len);
        let is_met = had_need && lane.need <= 0 && counts;
        let finish = lane.start + took_us(usual_len, lane.pace);
        if let Some(from) = self.order.iter().position(|(_, index)| *index == place) {
            let behind = &mut self.order[from..];
            let to = behind.partition_point(|(other, index)| {
                *index == place || (*other, *index) < (finish, place)
            });
            behind[0].0 = finish;
            behind[..to].rotate_left(1);
        }
        is_met
    }
}

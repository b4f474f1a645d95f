//! One peer as the planner sees it: what it may be asked, what it owes, how
//! fast it delivers, and whether it is believed to be there.
//!
//! Neighbours: `planner` feeds it events, `list` and `decide` ask it when a
//! chunk would be there. Promises: the bytes owed are never below what the
//! open requests can still bring, nor above their sum. Never: decides anything.
//! Tested by the unit tests below and by all simulations.

use crate::holders::ChunkNo;
use crate::limits::{
    ANSWER_MIN, BACKOFF_MAX, COLD_COMMIT_BYTES, COMMIT_SLACK, HELD_UP_MAX, HUSH_MIN, PACKET_BYTES,
    RECALL_EXCESS, SECOND, SILENCE_MIN,
};
use crate::rate::{Delivery, RoundTrip};
use crate::{Micros, Traits};
use std::collections::VecDeque;

/// A request that is open at a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) chunk: ChunkNo,
    pub(crate) len: u64,
    at: Micros,
}

/// Whether a peer is believed to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It answers, or was not asked yet.
    Live,
    /// It owes something and is silent. What it owes may be asked elsewhere.
    Suspect,
    /// It sent bytes that are not the chunk. It is never asked again.
    Quarantined,
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) traits: Traits,
    pub(crate) delivery: Delivery,
    pub(crate) rtt: RoundTrip,
    pub(crate) trust: Trust,
    /// Open requests, oldest first.
    pub(crate) queue: VecDeque<Sent>,
    /// Sum of their lengths.
    asked_bytes: u64,
    /// Bytes of them that are here.
    here_bytes: u64,
    /// The last byte, or the request that ended a pause.
    heard: Micros,
    /// The last byte of a chunk, or the request that ended a pause in which
    /// nothing was owed.
    brought: Micros,
    /// Whether a request was taken back since.
    is_behind: bool,
    /// Whether no byte has come since that request.
    first_due: bool,
    /// Nothing is asked before this.
    pub(crate) rest_until: Micros,
    /// How often in a row it refused, failed, or fell silent.
    strikes: u32,
}

/// `bytes` at `rate`, in microseconds.
pub(crate) fn span(bytes: u64, rate: u64) -> Micros {
    match bytes.checked_mul(SECOND) {
        Some(scaled) => scaled / rate,
        None => (u128::from(bytes) * u128::from(SECOND) / u128::from(rate)) as u64,
    }
}

/// What `rate` brings in a time.
pub(crate) fn volume(rate: u64, time: Micros) -> u64 {
    rate.saturating_mul(time) / SECOND
}

impl Peer {
    pub(crate) fn new(traits: Traits) -> Self {
        let mut rtt = RoundTrip::new();
        if let Some(first) = traits.rtt {
            rtt.sample(first);
        }
        Self {
            traits,
            delivery: Delivery::new(),
            rtt,
            trust: Trust::Live,
            queue: VecDeque::new(),
            asked_bytes: 0,
            here_bytes: 0,
            heard: 0,
            brought: 0,
            is_behind: false,
            first_due: false,
            rest_until: 0,
            strikes: 0,
        }
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.delivery.is_proven()
    }

    /// Whether it may be asked anything now.
    pub(crate) fn is_open(&self, now: Micros) -> bool {
        self.trust == Trust::Live
            && self.rest_until <= now
            && self.traits.open_from <= now
            && now < self.traits.open_until
    }

    pub(crate) fn rate(&self) -> u64 {
        self.delivery.rate()
    }

    /// Bytes that open requests will still bring.
    pub(crate) fn backlog(&self) -> u64 {
        self.asked_bytes - self.here_bytes
    }

    /// When the next request would begin to bring bytes: what is owed comes
    /// first, and no answer is quicker than a round trip.
    pub(crate) fn free_at(&self, now: Micros) -> Micros {
        now + self.rtt.smooth().max(span(self.backlog(), self.rate()))
    }

    /// What it may owe before a further chunk is asked of it.
    pub(crate) fn commit_bytes(&self) -> u64 {
        volume(self.rate(), self.rtt.smooth() + COMMIT_SLACK)
    }

    /// Whether it may be asked for a further chunk. `nearest` says that an
    /// unproven peer is the one to begin with.
    pub(crate) fn has_room(&self, nearest: bool) -> bool {
        match (self.is_proven(), nearest) {
            (true, _) => self.backlog() <= self.commit_bytes(),
            (false, true) => self.backlog() < COLD_COMMIT_BYTES,
            (false, false) => self.queue.is_empty(),
        }
    }

    /// When the request at this place of the queue will be answered in full.
    pub(crate) fn answer_at(&self, now: Micros, place: usize) -> Micros {
        let ahead: u64 = self.queue.iter().take(place + 1).map(|sent| sent.len).sum();
        let bytes = ahead.saturating_sub(self.here_bytes);
        let from = if self.first_due { now.max(self.heard + self.rtt.smooth()) } else { now };
        let in_turn = from + span(bytes, self.rate());
        // However little is ahead, it takes a round trip from its request on.
        let soonest = |sent: &Sent| sent.at + self.rtt.smooth() + span(sent.len, self.rate());
        in_turn.max(self.queue.get(place).map_or(now, soonest))
    }

    /// The last request, if it is one too many by far: nothing of it has come,
    /// and what is before it keeps the peer busy for long.
    pub(crate) fn unbegun(&self) -> Option<ChunkNo> {
        let last = self.queue.back()?;
        let ahead = self.asked_bytes - last.len;
        let enough = self.commit_bytes() + volume(self.rate(), RECALL_EXCESS);
        let owed = ahead.saturating_sub(self.here_bytes);
        (self.is_proven() && owed > enough).then_some(last.chunk)
    }

    /// When silence becomes suspicious; `None` if it owes nothing.
    pub(crate) fn suspect_at(&self) -> Option<Micros> {
        let swing = 2 * self.rtt.smooth() + 4 * self.rtt.variation();
        let packets = 3 * span(PACKET_BYTES, self.rate());
        let owes = self.trust == Trust::Live && !self.queue.is_empty();
        owes.then(|| self.heard + SILENCE_MIN.max(swing).max(packets))
    }

    /// Whether it owes bytes and has been silent for longer than it uses to
    /// be. Not enough to give up on it, but a reader should not wait for that.
    pub(crate) fn is_hushed(&self, now: Micros) -> bool {
        let swing = 2 * self.rtt.smooth() + 4 * self.rtt.variation();
        let packets = 3 * span(PACKET_BYTES, self.rate());
        let owes = self.trust == Trust::Live && !self.queue.is_empty();
        owes && now >= self.heard + HUSH_MIN.max(swing).max(packets)
    }

    pub(crate) fn sent(&mut self, now: Micros, chunk: ChunkNo, len: u64) {
        if self.queue.is_empty() {
            self.heard = now;
            if !self.is_behind {
                self.brought = now;
            }
            self.first_due = true;
            self.delivery.paused();
        }
        self.queue.push_back(Sent { chunk, len, at: now });
        self.asked_bytes += len;
    }

    /// Takes out of the measured time what the peer could not use: before a
    /// round trip is over, the oldest request brings nothing.
    /// A stall is no rate either: it was dealt with when it was suspected.
    fn skip_pause(&mut self, now: Micros) {
        if self.trust == Trust::Suspect {
            self.delivery.paused();
        }
        let Some(oldest) = self.queue.front() else { return };
        let answered = now.saturating_sub(oldest.at);
        if self.first_due && answered >= ANSWER_MIN {
            self.rtt.at_most(answered);
        }
        let ready = (oldest.at + self.rtt.smooth()).min(now);
        self.delivery.skip(ready.saturating_sub(self.heard));
    }

    /// Bytes of open requests arrived.
    pub(crate) fn arrived(&mut self, now: Micros, bytes: u64) {
        let bytes = bytes.min(self.backlog());
        self.skip_pause(now);
        self.here_bytes += bytes;
        (self.heard, self.brought, self.is_behind) = (now, now, false);
        self.first_due = false;
        self.delivery.arrived(now, bytes, self.backlog() > 0);
    }

    /// It answered something that is no bytes of a chunk.
    pub(crate) fn spoke(&mut self, now: Micros) {
        self.heard = now;
    }

    /// Packets came of which nothing can be read yet. That is believed for as
    /// long as a lost packet may take to come again.
    pub(crate) fn is_held_up(&self, now: Micros) -> bool {
        now < self.brought + HELD_UP_MAX.max(4 * self.rtt.smooth())
    }

    /// A request was answered in full: what was not told as progress is here
    /// as well. Returns whether it was open.
    pub(crate) fn completed(&mut self, now: Micros, chunk: ChunkNo) -> bool {
        self.skip_pause(now);
        (self.heard, self.brought, self.is_behind) = (now, now, false);
        self.first_due = false;
        let Some(place) = self.queue.iter().position(|sent| sent.chunk == chunk) else {
            return false;
        };
        let len = self.queue[place].len;
        let told = self.here_bytes.min(len);
        self.queue.remove(place);
        self.asked_bytes -= len;
        self.here_bytes -= told;
        self.delivery.arrived(now, len - told, self.backlog() > 0);
        self.strikes = 0;
        true
    }

    /// A request is no longer open: stopped, refused or failed.
    pub(crate) fn withdrawn(&mut self, chunk: ChunkNo) -> bool {
        let Some(place) = self.queue.iter().position(|sent| sent.chunk == chunk) else {
            return false;
        };
        let len = self.queue[place].len;
        // What had come of it cannot be told from what came of others; it is
        // taken to be of the oldest.
        let ahead: u64 = self.queue.iter().take(place).map(|sent| sent.len).sum();
        let own = self.here_bytes.saturating_sub(ahead).min(len);
        self.queue.remove(place);
        self.asked_bytes -= len;
        self.here_bytes = (self.here_bytes - own).min(self.asked_bytes);
        self.is_behind = true;
        if self.queue.is_empty() {
            self.delivery.paused();
        }
        true
    }

    /// It refused, failed or fell silent: a pause, longer each time.
    pub(crate) fn strike(&mut self, now: Micros, least: Micros) {
        let pause = least.max(self.rtt.smooth()) << self.strikes.min(10);
        self.strikes = self.strikes.saturating_add(1);
        self.rest_until = now + pause.min(BACKOFF_MAX);
    }

    /// It is to be tried anew, as if nothing were known of its rate.
    pub(crate) fn try_again(&mut self) {
        self.trust = Trust::Live;
        self.delivery = Delivery::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{BACKOFF_MIN, MS};

    fn peer(rtt: Micros) -> Peer {
        Peer::new(Traits { rtt: Some(rtt), ..Traits::default() })
    }

    #[test]
    fn what_is_owed_is_what_was_asked_less_what_came() {
        let mut peer = peer(5 * MS);
        peer.sent(0, ChunkNo(1), 1_000);
        peer.sent(0, ChunkNo(2), 2_000);
        peer.arrived(5 * MS, 700);
        assert_eq!(peer.backlog(), 2_300);
        assert!(peer.completed(6 * MS, ChunkNo(1)));
        assert_eq!(peer.backlog(), 2_000);
        assert!(!peer.completed(6 * MS, ChunkNo(1)));
        peer.arrived(7 * MS, 9_999);
        assert_eq!(peer.backlog(), 0);
        assert!(peer.withdrawn(ChunkNo(2)));
        assert_eq!((peer.backlog(), peer.queue.len()), (0, 0));
    }

    #[test]
    fn silence_counts_from_the_request_that_ended_a_pause() {
        let mut peer = peer(5 * MS);
        assert_eq!(peer.suspect_at(), None);
        peer.sent(SECOND, ChunkNo(1), 1_000);
        assert_eq!(peer.suspect_at(), Some(SECOND + SILENCE_MIN));
        peer.arrived(SECOND + 10 * MS, 1);
        assert_eq!(peer.suspect_at(), Some(SECOND + 10 * MS + SILENCE_MIN));
    }

    /// A round trip that was measured while the peer slept is far too long:
    /// what comes within it was no pause.
    #[test]
    fn an_answer_within_a_round_trip_corrects_the_round_trip() {
        let mut peer = peer(200 * MS);
        peer.sent(0, ChunkNo(1), 500_000);
        peer.arrived(5 * MS, 1_000);
        assert_eq!(peer.rtt.smooth(), 5 * MS);
        peer.arrived(15 * MS, 249_000);
        peer.completed(25 * MS, ChunkNo(1));
        assert!(peer.rate().abs_diff(25_000_000) < 1_000_000, "{}", peer.rate());
        assert!(peer.commit_bytes() < 1_000_000, "{}", peer.commit_bytes());
    }

    #[test]
    fn packets_of_which_nothing_can_be_read_are_believed_for_a_while() {
        let mut peer = peer(5 * MS);
        peer.sent(SECOND, ChunkNo(1), 1_000);
        assert!(peer.is_held_up(SECOND + HELD_UP_MAX - 1));
        assert!(!peer.is_held_up(SECOND + HELD_UP_MAX));
        // Asked for another chunk instead, it has not brought anything either.
        peer.withdrawn(ChunkNo(1));
        peer.sent(SECOND + HELD_UP_MAX, ChunkNo(2), 1_000);
        assert!(!peer.is_held_up(SECOND + HELD_UP_MAX));
        peer.arrived(2 * SECOND, 10);
        assert!(peer.is_held_up(2 * SECOND));
    }

    #[test]
    fn pauses_double_until_a_chunk_comes() {
        let mut peer = peer(5 * MS);
        peer.strike(0, BACKOFF_MIN);
        assert_eq!(peer.rest_until, BACKOFF_MIN);
        peer.strike(0, BACKOFF_MIN);
        assert_eq!(peer.rest_until, 2 * BACKOFF_MIN);
        peer.sent(SECOND, ChunkNo(1), 10);
        peer.completed(SECOND, ChunkNo(1));
        peer.strike(SECOND, BACKOFF_MIN);
        assert_eq!(peer.rest_until, SECOND + BACKOFF_MIN);
    }
}

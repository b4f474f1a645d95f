//! A world in virtual time for the planner to act in.
//!
//! Neighbours: the stories beside this describe peers and chunks; `bound` says
//! what no planner could beat. Each peer answers its requests one after the
//! other; the first byte of an answer comes a round trip after its request and
//! the rest at the peer's rate of the moment, told as progress every 10 ms as
//! the network would. A stopped request keeps its peer busy until the stop has
//! travelled. Promises: the same story gives the same run. Never: tells the
//! planner anything that the network could not.

use crate::noise::Noise;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use warp_plan::{
    Assignment, ChunkNo, Counts, Due, Holders, Micros, Outcome, PeerNo, Planner, Traits,
};

pub(crate) const MS: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;
pub(crate) const MB: u64 = 1_000_000;
pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

const PROGRESS_EVERY: Micros = 10 * MS;
/// A run that has not ended by then hangs.
const END_OF_TIME: Micros = 600 * SECOND;

/// What a peer does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// It is gone without a word: its rate is zero from here on.
    pub(crate) dies: Option<Micros>,
    /// The connection is closed.
    pub(crate) leaves: Option<Micros>,
    /// Every so many chunks, one is wrong.
    pub(crate) lies_every: Option<u64>,
    /// Every so many chunks, half of one is sent as if it were all.
    pub(crate) truncates_every: Option<u64>,
    /// Every so many chunks, it says it has not got one.
    pub(crate) lacks_every: Option<u64>,
    /// It refuses when it owes so many.
    pub(crate) busy_above: Option<usize>,
    /// Every so many chunks, the stream of one is reset.
    pub(crate) resets_every: Option<u64>,
}

/// A peer of a story.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) rtt: Micros,
    /// From when on it delivers how fast; ordered, the first from 0.
    pub(crate) rates: Vec<(Micros, u64)>,
    pub(crate) joins: Micros,
    pub(crate) traits: Traits,
    pub(crate) faults: Faults,
}

impl Actor {
    pub(crate) fn new(rate: u64, rtt: Micros) -> Self {
        let traits = Traits { rtt: Some(rtt), ..Traits::default() };
        Self { rtt, rates: vec![(0, rate)], joins: 0, traits, faults: Faults::default() }
    }

    pub(crate) fn rate_at(&self, now: Micros) -> u64 {
        let after = self.rates.partition_point(|(from, _)| *from <= now);
        self.rates[after.saturating_sub(1)].1
    }

    /// From `at` on, another rate.
    pub(crate) fn then(mut self, at: Micros, rate: u64) -> Self {
        self.rates.retain(|(from, _)| *from < at);
        self.rates.push((at, rate));
        self
    }

    /// What it can deliver between two times.
    pub(crate) fn volume(&self, from: Micros, until: Micros) -> f64 {
        let ends = self.rates.iter().skip(1).map(|(at, _)| *at).chain([Micros::MAX]);
        let pieces = self.rates.iter().zip(ends);
        pieces
            .map(|((start, rate), end)| {
                let span = until.min(end).saturating_sub(from.max(*start));
                span as f64 * *rate as f64 / SECOND as f64
            })
            .sum()
    }
}

/// A request that a peer is answering or will.
#[derive(Clone, Copy, Debug)]
struct Request {
    chunk: usize,
    /// Bytes still to come.
    left: f64,
    len: f64,
    /// When its first byte is here at the earliest.
    ready: Micros,
    /// Since when the peer knows that nobody wants it.
    dead_from: Micros,
    is_stopped: bool,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Whole,
    Wrong,
    NotFound,
    Busy,
    Reset,
}

struct Server {
    actor: Actor,
    queue: VecDeque<Request>,
    /// Up to when its deliveries are accounted for.
    at: Micros,
    served: u64,
    stamp: u64,
    is_here: bool,
    /// Fraction of its rate that the reader's downlink leaves it.
    share: f64,
}

/// A chunk of a story.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) len: u64,
    pub(crate) holders: Holders,
    pub(crate) due: Due,
    /// When it is asked for.
    pub(crate) from: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Join(usize),
    Leave(usize),
    Want(usize),
    Serve(usize, u64),
    Wake,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// When each chunk was here.
    pub(crate) done: Vec<Micros>,
    /// Bytes that came for nothing.
    pub(crate) waste: f64,
    pub(crate) bytes: u64,
    pub(crate) counts: Counts,
    /// What was decided, for those who look closer.
    pub(crate) log: Vec<(Micros, Assignment)>,
    /// Bad bytes that each peer sent.
    pub(crate) bad: Vec<u64>,
}

pub(crate) struct World {
    planner: Planner,
    servers: Vec<Server>,
    pieces: Vec<Piece>,
    done: Vec<Option<Micros>>,
    open: usize,
    events: BinaryHeap<Reverse<(Micros, Event)>>,
    waste: f64,
    downlink: Option<u64>,
    log: Vec<(Micros, Assignment)>,
    bad: Vec<u64>,
}

/// Runs a story to its end.
pub(crate) fn run(actors: &[Actor], pieces: &[Piece]) -> Run {
    World::new(actors, pieces).run()
}

impl World {
    pub(crate) fn new(actors: &[Actor], pieces: &[Piece]) -> Self {
        let servers = actors.iter().map(|actor| {
            let mut actor = actor.clone();
            if let Some(at) = actor.faults.dies {
                actor = actor.then(at, 0);
            }
            let queue = VecDeque::new();
            Server { actor, queue, at: 0, served: 0, stamp: 0, is_here: false, share: 1.0 }
        });
        let servers: Vec<Server> = servers.collect();
        let mut events = BinaryHeap::new();
        for (index, server) in servers.iter().enumerate() {
            events.push(Reverse((server.actor.joins, Event::Join(index))));
            if let Some(at) = server.actor.faults.leaves {
                events.push(Reverse((at, Event::Leave(index))));
            }
        }
        let planner = Planner::new();
        for (index, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.from > 0) {
            events.push(Reverse((piece.from, Event::Want(index))));
        }
        // Peers that are there from the beginning are known before the first
        // chunk is wanted.
        let bad = vec![0; servers.len()];
        Self {
            planner,
            servers,
            pieces: pieces.to_vec(),
            done: vec![None; pieces.len()],
            open: pieces.len(),
            events,
            waste: 0.0,
            downlink: None,
            log: Vec::new(),
            bad,
        }
    }

    /// The reader's own link, told to the planner as well.
    pub(crate) fn with_downlink(mut self, rate: u64) -> Self {
        self.downlink = Some(rate);
        self.planner.downlink(Some(rate));
        self
    }

    pub(crate) fn planner(&mut self) -> &mut Planner {
        &mut self.planner
    }

    pub(crate) fn run(mut self) -> Run {
        let mut wake = Micros::MAX;
        self.start();
        let mut now = 0;
        loop {
            let decision = self.planner.decide(now);
            for stop in decision.stops {
                self.stop(now, usize::from(stop.peer.0), stop.chunk.0 as usize);
            }
            for assignment in decision.assignments {
                self.send(now, &assignment);
                self.log.push((now, assignment));
            }
            if self.open == 0 {
                break;
            }
            if let Some(at) = decision.wake_at.filter(|at| *at < wake || wake <= now) {
                wake = at;
                self.events.push(Reverse((at, Event::Wake)));
            }
            let Some(Reverse((at, event))) = self.events.pop() else {
                panic!("nothing happens any more, and {} chunks are missing", self.open)
            };
            assert!(at < END_OF_TIME, "{} chunks are still missing", self.open);
            now = at.max(now);
            self.happen(now, event);
            while let Some(Reverse((at, _))) = self.events.peek()
                && *at <= now
                && let Some(Reverse((_, event))) = self.events.pop()
            {
                self.happen(now, event);
            }
        }
        let done: Vec<Micros> = self.done.into_iter().flatten().collect();
        assert_eq!(done.len(), self.pieces.len(), "each chunk came once");
        let bytes = self.pieces.iter().map(|piece| piece.len).sum();
        let counts = self.planner.counts();
        Run { done, waste: self.waste, bytes, counts, log: self.log, bad: self.bad }
    }

    fn start(&mut self) {
        while let Some(Reverse((0, event))) = self.events.peek().copied() {
            self.events.pop();
            self.happen(0, event);
        }
        for index in 0..self.pieces.len() {
            if self.pieces[index].from == 0 {
                self.want(index);
            }
        }
    }

    fn want(&mut self, index: usize) {
        let Piece { len, holders, due, .. } = self.pieces[index];
        self.planner.want(ChunkNo(index as u64), len as u32, due, holders);
    }

    fn happen(&mut self, now: Micros, event: Event) {
        match event {
            Event::Join(index) => self.join(now, index),
            Event::Leave(index) => {
                self.servers[index].is_here = false;
                self.servers[index].queue.clear();
                self.planner.left(now, PeerNo(index as u8));
            }
            Event::Want(index) => self.want(index),
            Event::Serve(index, stamp) if self.servers[index].stamp == stamp => {
                self.serve(now, index);
            }
            Event::Serve(..) | Event::Wake => {}
        }
    }

    fn join(&mut self, now: Micros, index: usize) {
        let peer = PeerNo(index as u8);
        self.servers[index].is_here = true;
        self.planner.joined(now, peer, self.servers[index].actor.traits);
        for (number, piece) in self.pieces.iter().enumerate() {
            if now > 0 && self.done[number].is_none() && piece.holders.contains(peer) {
                self.planner.holds(peer, ChunkNo(number as u64), true);
            }
        }
    }

    fn send(&mut self, now: Micros, assignment: &Assignment) {
        let index = usize::from(assignment.peer.0);
        let chunk = assignment.chunk.0 as usize;
        let server = &mut self.servers[index];
        assert!(server.is_here, "a peer that is gone was asked");
        server.served += 1;
        let is_nth = |every: Option<u64>| every.is_some_and(|n| server.served.is_multiple_of(n));
        let faults = &server.actor.faults;
        let len = self.pieces[chunk].len as f64;
        let (len, answer) = if faults.busy_above.is_some_and(|most| server.queue.len() >= most) {
            (0.0, Answer::Busy)
        } else if is_nth(faults.lacks_every) {
            (0.0, Answer::NotFound)
        } else if is_nth(faults.resets_every) {
            (len / 2.0, Answer::Reset)
        } else if is_nth(faults.lies_every) {
            (len, Answer::Wrong)
        } else if is_nth(faults.truncates_every) {
            (len / 2.0, Answer::Wrong)
        } else {
            (len, Answer::Whole)
        };
        let ready = now + server.actor.rtt;
        let dead_from = Micros::MAX;
        server.queue.push_back(Request {
            chunk,
            left: len,
            len,
            ready,
            dead_from,
            is_stopped: false,
            answer,
        });
        self.schedule(now, index);
    }

    fn stop(&mut self, now: Micros, index: usize, chunk: usize) {
        self.serve(now, index);
        let server = &mut self.servers[index];
        let dead_from = now + server.actor.rtt;
        for request in server.queue.iter_mut().filter(|r| r.chunk == chunk && !r.is_stopped) {
            request.is_stopped = true;
            request.dead_from = dead_from;
            self.waste += request.len - request.left;
        }
        self.schedule(now, index);
    }

    /// Brings a peer's deliveries up to now, and tells of them.
    fn serve(&mut self, now: Micros, index: usize) {
        let peer = PeerNo(index as u8);
        let mut told = 0.0;
        loop {
            let server = &mut self.servers[index];
            let from = server.at;
            let Some(request) = server.queue.front_mut() else { break };
            let begin = from.max(request.ready);
            let end = now.min(request.dead_from.max(begin));
            if begin > now {
                break;
            }
            let can = server.actor.volume(begin, end) * server.share;
            let chunk = request.chunk;
            if can + 0.5 < request.left {
                request.left -= can;
                server.at = end;
                if request.is_stopped {
                    self.waste += can;
                } else {
                    told += can;
                }
                if request.is_stopped && end >= request.dead_from {
                    server.queue.pop_front();
                    continue;
                }
                break;
            }
            // It ends before now: when exactly matters for the next.
            let took = request.left / (server.actor.rate_at(begin) as f64 * server.share).max(1.0);
            server.at = (begin + (took * SECOND as f64) as Micros).clamp(begin, now);
            let done = *request;
            server.queue.pop_front();
            if done.is_stopped {
                self.waste += done.left;
                continue;
            }
            told += done.left;
            self.planner.progress(now, peer, told as u64);
            told = 0.0;
            self.answer(now, index, chunk, &done);
        }
        if told >= 1.0 {
            self.planner.progress(now, peer, told as u64);
        }
        self.schedule(now, index);
    }

    fn answer(&mut self, now: Micros, index: usize, chunk: usize, request: &Request) {
        let (peer, number) = (PeerNo(index as u8), ChunkNo(chunk as u64));
        match request.answer {
            Answer::Whole => {
                self.planner.received(now, peer, number, Outcome::Good);
                if self.done[chunk].is_none() {
                    self.done[chunk] = Some(now);
                    self.open -= 1;
                } else {
                    self.waste += request.len;
                }
            }
            Answer::Wrong => {
                self.bad[index] += 1;
                self.waste += request.len;
                self.planner.received(now, peer, number, Outcome::Bad);
            }
            Answer::NotFound => self.planner.not_found(now, peer, number),
            Answer::Busy => self.planner.busy(now, peer, number),
            Answer::Reset => {
                self.waste += request.len;
                self.planner.failed(now, peer, number);
            }
        }
    }

    /// Says when next to look at a peer.
    fn schedule(&mut self, now: Micros, index: usize) {
        self.share(now, index);
        let server = &mut self.servers[index];
        server.stamp += 1;
        if server.queue.is_empty() {
            server.at = now;
            return;
        }
        let Some(request) = server.queue.front() else { return };
        let begin = server.at.max(request.ready);
        let rate = server.actor.rate_at(begin.max(now)) as f64 * server.share;
        let next_rate = server.actor.rates.iter().map(|(at, _)| *at).find(|at| *at > begin);
        let mut at = if request.ready > now {
            // The first packet.
            request.ready + (1_500.0 / rate.max(1.0) * SECOND as f64) as Micros + 1
        } else {
            now + PROGRESS_EVERY
        };
        if rate > 0.0 {
            let end = begin + (request.left / rate * SECOND as f64).ceil() as Micros;
            at = at.min(end.max(now));
        } else {
            at = match next_rate {
                Some(next) => next,
                None => return,
            };
        }
        if let Some(next) = next_rate.filter(|next| *next > now) {
            at = at.min(next);
        }
        if request.is_stopped {
            at = at.min(request.dead_from.max(now + 1));
        }
        self.events.push(Reverse((at.max(now), Event::Serve(index, server.stamp))));
    }

    /// Divides the downlink among those who are sending.
    fn share(&mut self, now: Micros, index: usize) {
        let Some(downlink) = self.downlink else { return };
        let sends = |server: &Server| server.queue.front().is_some_and(|r| r.ready <= now);
        let sum: u64 = self.servers.iter().filter(|s| sends(s)).map(|s| s.actor.rate_at(now)).sum();
        self.servers[index].share = (downlink as f64 / sum.max(1) as f64).min(1.0);
    }
}

impl Run {
    pub(crate) fn makespan(&self) -> Micros {
        self.done.iter().copied().max().unwrap_or(0)
    }

    pub(crate) fn waste_share(&self) -> f64 {
        self.waste / self.bytes as f64
    }

    /// How long a reader in order waits in all, if it consumes nine tenths of
    /// what all peers together deliver.
    pub(crate) fn stall(&self, actors: &[Actor], pieces: &[Piece]) -> Micros {
        let sum = |at: Micros| -> u64 {
            let alive = |a: &&Actor| {
                a.faults.dies.is_none_or(|t| at < t) && a.faults.leaves.is_none_or(|t| at < t)
            };
            actors.iter().filter(alive).map(|actor| actor.rate_at(at)).sum()
        };
        let (mut at, mut stalled) = (0u64, 0u64);
        for (piece, done) in pieces.iter().zip(&self.done) {
            stalled += done.saturating_sub(at);
            at = at.max(*done);
            // Rates change seldom, so that of the moment will do for a chunk.
            at += (piece.len as f64 / (0.9 * sum(at).max(1) as f64) * SECOND as f64) as Micros;
        }
        stalled
    }

    /// The longest time after `from` in which a reader in order got nothing.
    pub(crate) fn gap(&self, from: Micros) -> Micros {
        let (mut last, mut gap) = (from, 0);
        for done in &self.done {
            if *done > last {
                gap = gap.max(*done - last);
                last = *done;
            }
        }
        gap
    }
}

/// So many chunks in order, all peers having all.
pub(crate) fn whole(actors: &[Actor], total: u64, len: u64) -> Vec<Piece> {
    let holders = (0..actors.len()).map(|index| PeerNo(index as u8)).collect();
    let piece = |index| Piece { len, holders, due: Due::Bulk(index), from: 0 };
    (0..total / len).map(piece).collect()
}

/// The same, each chunk with each peer by chance, and with one at least.
pub(crate) fn scattered(
    actors: &[Actor],
    total: u64,
    len: u64,
    share: f64,
    noise: &mut Noise,
) -> Vec<Piece> {
    let mut pieces = whole(actors, total, len);
    for piece in &mut pieces {
        piece.holders = (0..actors.len())
            .filter(|_| noise.unit() < share)
            .map(|index| PeerNo(index as u8))
            .collect();
        if piece.holders.is_empty() {
            piece.holders.insert(PeerNo(noise.below(actors.len() as u64) as u8));
        }
    }
    pieces
}

//! Any events in any order: the planner never panics, never asks more than
//! two peers for a chunk or one peer twice, and never loses a wanted chunk.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use warp_plan::{ChunkNo, Due, Holders, Micros, Outcome, PeerNo, Planner, Traits};

#[derive(Clone, Debug)]
enum Act {
    Join {
        peer: u8,
        rtt: Micros,
        spared: bool,
    },
    Leave(u8),
    Forget(u8),
    Want {
        chunk: u64,
        len: u32,
        due: Due,
        holders: u8,
    },
    Due(u64, Due),
    Holds(u8, u64, bool),
    Cancel(u64),
    Progress(u8, u64),
    /// What becomes of the n-th open request.
    Answer(usize, Answer),
    /// The same for a request that may not be open at all.
    Stray(u8, u64, Answer),
    Rtt(u8, Micros),
    Downlink(Option<u64>),
    Goal(Option<Micros>),
    Pass(Micros),
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Good,
    Bad,
    NotFound,
    Busy,
    Failed,
}

fn due() -> impl Strategy<Value = Due> {
    prop_oneof![(0u64..5_000_000).prop_map(Due::By), (0u64..100).prop_map(Due::Bulk)]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        8 => Just(Answer::Good),
        1 => Just(Answer::Bad),
        2 => Just(Answer::NotFound),
        2 => Just(Answer::Busy),
        2 => Just(Answer::Failed),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let (peer, chunk) = (0u8..6, 0u64..30);
    prop_oneof![
        3 => (peer.clone(), 0u64..200_000, any::<bool>())
            .prop_map(|(peer, rtt, spared)| Act::Join { peer, rtt, spared }),
        1 => peer.clone().prop_map(Act::Leave),
        1 => peer.clone().prop_map(Act::Forget),
        8 => (chunk.clone(), 0u32..300_000, due(), 0u8..64)
            .prop_map(|(chunk, len, due, holders)| Act::Want { chunk, len, due, holders }),
        1 => (chunk.clone(), due()).prop_map(|(chunk, due)| Act::Due(chunk, due)),
        2 => (peer.clone(), chunk.clone(), any::<bool>()).prop_map(|(p, c, b)| Act::Holds(p, c, b)),
        1 => chunk.clone().prop_map(Act::Cancel),
        3 => (peer.clone(), 0u64..400_000).prop_map(|(peer, bytes)| Act::Progress(peer, bytes)),
        8 => (any::<usize>(), answer()).prop_map(|(nth, answer)| Act::Answer(nth, answer)),
        1 => (peer.clone(), chunk, answer()).prop_map(|(p, c, a)| Act::Stray(p, c, a)),
        1 => (peer, 0u64..500_000).prop_map(|(peer, rtt)| Act::Rtt(peer, rtt)),
        1 => prop::option::of(0u64..50_000_000).prop_map(Act::Downlink),
        1 => prop::option::of(0u64..9_000_000).prop_map(Act::Goal),
        8 => (0u64..300_000).prop_map(Act::Pass),
    ]
}

/// What an observer knows.
#[derive(Default)]
struct Observer {
    now: Micros,
    here: BTreeSet<u8>,
    /// Wanted chunks and who holds them.
    wanted: BTreeMap<u64, BTreeSet<u8>>,
    /// Open requests.
    open: BTreeSet<(u8, u64)>,
}

impl Observer {
    fn apply(&mut self, planner: &mut Planner, act: Act) {
        let now = self.now;
        match act {
            Act::Join { peer, rtt, spared } => {
                self.gone(peer);
                self.here.insert(peer);
                let traits = Traits { rtt: Some(rtt), metered: spared, ..Traits::default() };
                planner.joined(now, PeerNo(peer), traits);
            }
            Act::Leave(peer) => {
                self.gone(peer);
                planner.left(now, PeerNo(peer));
            }
            Act::Forget(peer) => planner.forget(PeerNo(peer)),
            Act::Want { chunk, len, due, holders } => {
                let holders: BTreeSet<u8> =
                    (0..6).filter(|p| holders >> p & 1 == 1 && self.here.contains(p)).collect();
                planner.want(
                    ChunkNo(chunk),
                    len,
                    due,
                    holders.iter().map(|p| PeerNo(*p)).collect(),
                );
                self.wanted.insert(chunk, holders);
            }
            Act::Due(chunk, due) => planner.due(ChunkNo(chunk), due),
            Act::Holds(peer, chunk, holds) => {
                planner.holds(PeerNo(peer), ChunkNo(chunk), holds);
                let known = self.wanted.get_mut(&chunk).filter(|_| self.here.contains(&peer));
                known.map(|set| if holds { set.insert(peer) } else { set.remove(&peer) });
            }
            Act::Cancel(chunk) => {
                planner.cancel(ChunkNo(chunk));
                self.wanted.remove(&chunk);
            }
            Act::Progress(peer, bytes) => planner.progress(now, PeerNo(peer), bytes),
            Act::Answer(nth, answer) => {
                let open = self.open.len().max(1);
                if let Some((peer, chunk)) = self.open.iter().nth(nth % open).copied() {
                    self.answer(planner, peer, chunk, answer);
                }
            }
            Act::Stray(peer, chunk, answer) => self.answer(planner, peer, chunk, answer),
            Act::Rtt(peer, rtt) => planner.rtt(PeerNo(peer), rtt),
            Act::Downlink(rate) => planner.downlink(rate),
            Act::Goal(goal) => planner.bulk_goal(goal),
            Act::Pass(time) => self.now += time,
        }
    }

    fn answer(&mut self, planner: &mut Planner, peer: u8, chunk: u64, answer: Answer) {
        let (now, peer_no, number) = (self.now, PeerNo(peer), ChunkNo(chunk));
        let is_here = self.here.contains(&peer);
        self.open.remove(&(peer, chunk));
        match answer {
            Answer::Good => {
                planner.received(now, peer_no, number, Outcome::Good);
                if is_here {
                    self.wanted.remove(&chunk);
                }
            }
            Answer::Bad => planner.received(now, peer_no, number, Outcome::Bad),
            Answer::NotFound => {
                planner.not_found(now, peer_no, number);
                self.wanted.get_mut(&chunk).map(|set| set.remove(&peer));
            }
            Answer::Busy => planner.busy(now, peer_no, number),
            Answer::Failed => planner.failed(now, peer_no, number),
        }
    }

    fn gone(&mut self, peer: u8) {
        self.here.remove(&peer);
        self.open.retain(|(of, _)| *of != peer);
        self.wanted.values_mut().for_each(|set| {
            set.remove(&peer);
        });
    }

    fn decide(&mut self, planner: &mut Planner) -> Result<(), TestCaseError> {
        let decision = planner.decide(self.now);
        for stop in decision.stops {
            self.open.remove(&(stop.peer.0, stop.chunk.0));
        }
        for assignment in decision.assignments {
            let (peer, chunk) = (assignment.peer.0, assignment.chunk.0);
            prop_assert!(self.here.contains(&peer), "a peer that is gone was asked");
            prop_assert!(!planner.is_quarantined(PeerNo(peer)), "a liar was asked");
            let holders = self.wanted.get(&chunk);
            prop_assert!(holders.is_some_and(|set| set.contains(&peer)), "no holder was asked");
            prop_assert!(self.open.insert((peer, chunk)), "a peer was asked twice");
        }
        prop_assert!(decision.wake_at.is_none_or(|at| at > self.now));
        prop_assert_eq!(planner.wanted().0, self.wanted.len());
        for chunk in self.wanted.keys() {
            let asked: Holders =
                self.open.iter().filter(|(_, c)| c == chunk).map(|(p, _)| PeerNo(*p)).collect();
            prop_assert!(asked.len() <= 2, "more than two copies");
            prop_assert_eq!(planner.asked_of(ChunkNo(*chunk)), Some(asked));
        }
        let stray = self.open.iter().find(|(_, chunk)| !self.wanted.contains_key(chunk));
        prop_assert_eq!(stray, None, "a request for what nobody wants stays open");
        Ok(())
    }

    /// From here on everybody answers well: all that somebody holds has to
    /// come.
    fn drain(&mut self, planner: &mut Planner) -> Result<(), TestCaseError> {
        planner.downlink(None);
        planner.bulk_goal(None);
        for _ in 0..400 {
            self.now += 50_000;
            self.decide(planner)?;
            for (peer, chunk) in self.open.clone() {
                if self.open.contains(&(peer, chunk)) && self.wanted.contains_key(&chunk) {
                    self.answer(planner, peer, chunk, Answer::Good);
                }
            }
        }
        self.decide(planner)?;
        for (chunk, holders) in &self.wanted {
            let able = holders.iter().find(|peer| !planner.is_quarantined(PeerNo(**peer)));
            prop_assert_eq!(able, None, "chunk {} has a holder and does not come", chunk);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn no_order_of_events_loses_a_chunk(
        acts in prop::collection::vec((act(), any::<bool>()), 1..250),
    ) {
        let (mut planner, mut observer) = (Planner::new(), Observer::default());
        for (act, decides) in acts {
            observer.apply(&mut planner, act);
            if decides {
                observer.decide(&mut planner)?;
            }
        }
        observer.drain(&mut planner)?;
    }
}

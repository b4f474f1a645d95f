//! Pure decisions: which peer is asked for which chunk, and when.
//!
//! Step *planner* of the walk out: `flow::resolve` wants chunks, this chooses
//! their peers, `flow::swarm` asks them over `net` and tells what came of it.
//! Promises: the same events at the same times give the same decisions; each
//! wanted chunk is being asked of a live peer, or will be as soon as a holder
//! has room; no chunk is asked of more than two peers. Never: reads a clock,
//! opens a socket, waits, or keeps a thread: time is an argument. Tested by
//! the stories of `tests/sim_*` in virtual time, and by `tests/prop_events.rs`.
//!
//! # How it is used
//! Peers and chunks are numbers of the caller. Times are microseconds of one
//! clock that does not run backwards. The caller tells each event as it
//! happens and then calls [`Planner::decide`], which says what to request,
//! what to stop, and when to ask again at the latest.
//!
//! | event | call |
//! |---|---|
//! | a session begins / is over | [`Planner::joined`] / [`Planner::left`] |
//! | a round trip was measured; traits or downlink changed | [`Planner::rtt`], [`Planner::traits`], [`Planner::downlink`] |
//! | a chunk is needed; its urgency changes; not needed | [`Planner::want`], [`Planner::due`], [`Planner::cancel`] |
//! | a peer announces or drops a wanted chunk | [`Planner::holds`] |
//! | bytes came | [`Planner::progress`] |
//! | a chunk is whole and verified, or is not what it should be | [`Planner::received`] |
//! | it was answered NOT_FOUND / BUSY; its stream failed | [`Planner::not_found`] / [`Planner::busy`]; [`Planner::failed`] |
//!
//! ```
//! use warp_plan::{ChunkNo, Due, Holders, Outcome, PeerNo, Planner, Traits};
//! let mut planner = Planner::new();
//! let (near, far) = (PeerNo(0), PeerNo(1));
//! planner.joined(0, near, Traits { rtt: Some(1_000), ..Traits::default() });
//! planner.joined(0, far, Traits { rtt: Some(80_000), ..Traits::default() });
//! let both: Holders = [near, far].into_iter().collect();
//! planner.want(ChunkNo(7), 65_536, Due::By(50_000), both);
//! let decision = planner.decide(0);
//! assert_eq!(decision.assignments[0].peer, near);
//! planner.progress(1_200, near, 65_536);
//! planner.received(1_200, near, ChunkNo(7), Outcome::Good);
//! assert_eq!(planner.wanted(), (0, 0));
//! ```
//!
//! # The rule
//! A peer with delivery rate `r`, round trip `rtt` and `b` bytes owed has its
//! k-th further chunk of `s` bytes here at `now + max(rtt, b/r) + k·s/r`. The
//! most urgent chunk takes the earliest of these slots among its holders, the
//! next the earliest that is left, and so on. Only what a peer needs to stay
//! busy is sent; the rest is planned anew a few milliseconds later. Where
//! holders differ, a large plan over all that is pending (`levels`) keeps peers
//! free for what only they have.
//!
//! # What the caller has to know
//! - A peer is taken to answer its requests one after the other, the oldest
//!   first. A serving side that divides its link among them is planned worse.
//! - Bytes are told with [`Planner::progress`] as they come, at least every
//!   10 ms, or a live peer looks silent after 50 ms.
//! - What a reader will want next is best wanted with [`Due::By`] as well, at
//!   the time when the reader will be there: then nobody is spared for later
//!   at its cost. [`Due::Bulk`] is for what should be here early as a whole.
//! - A chunk whose holders are all gone stays wanted, and nothing is decided
//!   for it: how long to wait is the caller's to say, with
//!   [`Planner::cancel`].
#![forbid(unsafe_code)]

mod budget;
mod decide;
mod holders;
mod lanes;
mod levels;
mod limits;
mod list;
mod peer;
mod planner;
mod rate;
mod wants;

pub use decide::{Assignment, Decision, Stop, Why};
pub use holders::{ChunkNo, Holders, PEERS_MAX, PeerNo};
pub use list::Candidate;
pub use planner::{Counts, Outcome, Planner, Traits};
pub use wants::Due;

/// A time on the caller's clock, or a span, in microseconds.
pub type Micros = u64;

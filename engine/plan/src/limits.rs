//! Every number the planner is tuned by, each with its reason.
//!
//! Neighbours: read by all modules of this crate. Promises: a time is in
//! microseconds, a rate in bytes a second. Never: read from settings, so that
//! a simulated run and a real one decide the same. Tested by the stories in
//! `tests/sim_*`, which assert what these numbers bring about.

use crate::Micros;

pub(crate) const MS: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// The rate of a peer that has delivered nothing yet.
pub(crate) const PRIOR_RATE: u64 = 10_000_000;
/// What is feared of such a peer when it is given a chunk that others wait for.
pub(crate) const FEARED_RATE: u64 = 1_000_000;
/// The round trip of a peer of which none was measured.
pub(crate) const PRIOR_RTT: Micros = 50 * MS;
/// No estimate falls lower, so that no time becomes infinite.
pub(crate) const RATE_MIN: u64 = 1_000;

/// An edge is kept busy this much longer than its round trip: the time in
/// which an event reaches the planner and a request leaves.
pub(crate) const COMMIT_SLACK: Micros = 20 * MS;
/// What the nearest of unproven peers may owe at first: a whole small read,
/// which would otherwise take a round trip a chunk.
pub(crate) const COLD_COMMIT_BYTES: u64 = 1 << 20;

/// A request is taken back if it would begin that much later than it has to.
pub(crate) const RECALL_EXCESS: Micros = 100 * MS;

/// Silence that is never suspicious: schedulers and disks pause that long.
pub(crate) const SILENCE_MIN: Micros = 50 * MS;
/// What comes sooner than this after a question was under way before it.
pub(crate) const ANSWER_MIN: Micros = MS / 10;
/// So long, packets of which nothing can be read are a sign of life.
pub(crate) const HELD_UP_MAX: Micros = 200 * MS;
/// Silence after which a second peer is asked for what a reader waits for.
/// Where bytes come, they come every few milliseconds.
pub(crate) const HUSH_MIN: Micros = 20 * MS;
/// A packet's worth: at low rates, packets are further apart than that.
pub(crate) const PACKET_BYTES: u64 = 1_500;
/// First pause after BUSY or a failed stream; doubled each time.
pub(crate) const BACKOFF_MIN: Micros = 20 * MS;
/// The same before a suspect is tried again. What it was asked for is given up
/// by that, so it has time for late bytes.
pub(crate) const BACKOFF_SUSPECT: Micros = 200 * MS;
pub(crate) const BACKOFF_MAX: Micros = 5 * SECOND;

/// Delivery is measured over this long.
pub(crate) const SAMPLE: Micros = 50 * MS;
/// The first time over this long: early knowledge is worth more than exact.
pub(crate) const SAMPLE_FIRST: Micros = 10 * MS;
/// A new sample has a weight of its span in this.
pub(crate) const SAMPLE_MEMORY: Micros = 100 * MS;

/// A plan is used this long at most; rates drift meanwhile.
pub(crate) const PLAN_AGE_MAX: Micros = 5 * MS;
/// Chunks that one plan looks at.
pub(crate) const PLAN_CHUNKS_MAX: usize = 2_048;
/// Chunks beyond it among which an idle slow peer finds one.
pub(crate) const FAR_CHUNKS_MAX: usize = 64;

/// Pending chunks that a large plan looks at; of more, every n-th.
pub(crate) const LEVELS_CHUNKS_MAX: usize = 2_048;
/// Rounds of the kernel: most that move do so in the first two.
pub(crate) const LEVELS_ROUNDS: usize = 3;
/// How long a large plan is used: a sixteenth of what is left, within these.
pub(crate) const LEVELS_AGE_MIN: Micros = 20 * MS;
pub(crate) const LEVELS_AGE_MAX: Micros = 500 * MS;
/// This part of the time that is left, a peer may be later than the last: far
/// from the end, order matters more than balance.
pub(crate) const LEVELS_SLACK: Micros = 64;

/// A second copy has to save a quarter of the time and this.
pub(crate) const HEDGE_GAIN: Micros = 5 * MS;
/// A chunk is late that comes so much after what was expected when it was
/// asked for: as long as a silence is borne.
pub(crate) const HEDGE_LATE: Micros = SILENCE_MIN;
/// What its second copy has to save: more, since it delays others.
pub(crate) const HEDGE_GAIN_LATE: Micros = 15 * MS;
/// Chunks from the head of the line on that may be asked for twice.
pub(crate) const HEDGE_HEADS: usize = 4;
/// Outstanding chunks looked at in the endgame.
pub(crate) const HEDGE_ENDGAME: usize = 64;
/// How often that is looked at.
pub(crate) const HEDGE_EVERY: Micros = 2 * MS;
/// Parts in a thousand of the received bytes that may be asked for twice.
pub(crate) const HEDGE_SHARE: u64 = 20;
pub(crate) const HEDGE_SHARE_ENDGAME: u64 = 50;
/// What may be asked for twice before anything was received, and the most
/// that is saved up.
pub(crate) const HEDGE_START_BYTES: u64 = 1 << 20;
pub(crate) const HEDGE_SAVED_BYTES: u64 = 8 << 20;

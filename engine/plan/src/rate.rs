//! Estimators: how fast a peer delivers, and how long a round trip takes.
//!
//! Neighbours: fed by `peer` with arrivals, read by `list` and `decide`.
//! Promises: a step of the true rate is followed to nine tenths within five
//! samples; a pause for want of requests lowers nothing. Never: a rate of
//! zero. Tested by the unit tests below and by all simulations.

use crate::Micros;
use crate::limits::{
    MS, PRIOR_RATE, PRIOR_RTT, RATE_MIN, SAMPLE, SAMPLE_FIRST, SAMPLE_MEMORY, SECOND,
};

/// How fast bytes come while there are some to come.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    rate: u64,
    is_proven: bool,
    /// How much measured time is behind the rate, up to what is remembered.
    /// After a first burst the next sample nearly replaces it: bytes behind a
    /// lost packet arrive all at once.
    known: Micros,
    /// When the sample that is being taken began, and its bytes.
    since: Option<Micros>,
    bytes: u64,
}

impl Delivery {
    pub(crate) fn new() -> Self {
        Self { rate: PRIOR_RATE, is_proven: false, known: 0, since: None, bytes: 0 }
    }

    /// Bytes a second.
    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    /// Whether the rate was measured at all.
    pub(crate) fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Bytes arrived. `owes` says whether more are to come: if not, the pause
    /// that follows belongs to no sample.
    pub(crate) fn arrived(&mut self, now: Micros, bytes: u64, owes: bool) {
        let Some(since) = self.since else {
            // The first bytes after a pause only start the watch: how long
            // they were under way is the round trip, not the rate.
            self.since = owes.then_some(now);
            self.bytes = 0;
            if !owes && !self.is_proven {
                // A single burst tells little, but it tells that bytes come.
                self.bytes = bytes;
                self.sample(2 * MS);
            }
            return;
        };
        self.bytes += bytes;
        let span = now.saturating_sub(since);
        let enough = if self.is_proven { SAMPLE } else { SAMPLE_FIRST };
        if span >= enough || (!owes && (span >= 2 * MS || !self.is_proven)) {
            self.sample(span.max(2 * MS));
            self.since = owes.then_some(now);
            self.bytes = 0;
        } else if !owes {
            self.since = None;
        }
    }

    /// So much of the time since the last arrival does not count.
    pub(crate) fn skip(&mut self, pause: Micros) {
        if let Some(since) = &mut self.since {
            *since += pause;
        }
    }

    /// Nothing is under way any more.
    pub(crate) fn paused(&mut self) {
        self.since = None;
    }

    fn sample(&mut self, span: Micros) {
        let sample = (self.bytes.saturating_mul(SECOND) / span.max(1)).max(RATE_MIN);
        if self.is_proven {
            let weight = span.min(SAMPLE_MEMORY);
            let kept = self.known.min(SAMPLE_MEMORY - weight);
            let mixed =
                u128::from(self.rate) * u128::from(kept) + u128::from(sample) * u128::from(weight);
            self.rate = (mixed / u128::from((kept + weight).max(1))) as u64;
        } else {
            self.rate = sample;
            self.is_proven = true;
        }
        self.known = (self.known + span).min(SAMPLE_MEMORY);
        self.rate = self.rate.max(RATE_MIN);
    }
}

/// Smoothed round trip and its variation, as RFC 6298 has them.
#[derive(Clone, Debug)]
pub(crate) struct RoundTrip {
    smooth: Micros,
    variation: Micros,
    is_measured: bool,
}

impl RoundTrip {
    pub(crate) fn new() -> Self {
        Self { smooth: PRIOR_RTT, variation: PRIOR_RTT / 2, is_measured: false }
    }

    pub(crate) fn sample(&mut self, rtt: Micros) {
        if self.is_measured {
            let off = self.smooth.abs_diff(rtt);
            self.variation = (3 * self.variation + off) / 4;
            self.smooth = (7 * self.smooth + rtt) / 8;
        } else {
            (self.smooth, self.variation, self.is_measured) = (rtt, rtt / 2, true);
        }
    }

    /// An answer began to come so soon: a round trip takes no longer. One
    /// measured while the other side slept would pass for a pause all that
    /// came meanwhile.
    pub(crate) fn at_most(&mut self, bound: Micros) {
        self.smooth = self.smooth.min(bound);
        self.variation = self.variation.min(bound);
    }

    pub(crate) fn smooth(&self) -> Micros {
        self.smooth
    }

    pub(crate) fn variation(&self) -> Micros {
        self.variation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `rate` in steps of a millisecond.
    fn feed(delivery: &mut Delivery, from: Micros, until: Micros, rate: u64) {
        for now in (from..until).step_by(1_000) {
            delivery.arrived(now, rate / 1_000, true);
        }
    }

    #[test]
    fn the_first_sample_replaces_the_guess() {
        let mut delivery = Delivery::new();
        feed(&mut delivery, 0, 11 * MS, 80_000_000);
        assert!(delivery.is_proven());
        assert!(delivery.rate().abs_diff(80_000_000) < 1_000_000, "{}", delivery.rate());
    }

    #[test]
    fn a_step_is_followed_within_five_samples() {
        let mut delivery = Delivery::new();
        feed(&mut delivery, 0, SECOND, 100_000_000);
        feed(&mut delivery, SECOND, SECOND + 5 * SAMPLE, 5_000_000);
        assert!(delivery.rate() < 15_000_000, "{}", delivery.rate());
    }

    /// What waited for a lost packet arrives at once and says little.
    #[test]
    fn a_first_burst_is_forgotten_within_two_samples() {
        let mut delivery = Delivery::new();
        delivery.arrived(0, 500_000, false);
        assert_eq!(delivery.rate(), 250_000_000);
        feed(&mut delivery, SECOND, SECOND + 2 * SAMPLE + MS, 25_000_000);
        assert!(delivery.rate() < 30_000_000, "{}", delivery.rate());
    }

    #[test]
    fn a_pause_lowers_nothing() {
        let mut delivery = Delivery::new();
        feed(&mut delivery, 0, SECOND, 100_000_000);
        let before = delivery.rate();
        delivery.arrived(SECOND, 100_000, false);
        feed(&mut delivery, 9 * SECOND, 10 * SECOND, 100_000_000);
        assert!(delivery.rate().abs_diff(before) < before / 50);
    }
}

//! How many bytes may be asked for twice: a token bucket, filled by what is
//! received.
//!
//! Neighbours: `planner` fills it, `decide` draws from it. Promises: what is
//! drawn never exceeds the start and the share of what was received. Never:
//! counts rescues, for their first copy may never come. Tested by the unit
//! test below, and by the waste that `tests/sim_*` assert.

use crate::limits::{HEDGE_SAVED_BYTES, HEDGE_SHARE, HEDGE_SHARE_ENDGAME, HEDGE_START_BYTES};

#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes that may be asked for twice.
    saved: u64,
    /// The further share of the endgame.
    saved_endgame: u64,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { saved: HEDGE_START_BYTES, saved_endgame: 0 }
    }

    pub(crate) fn received(&mut self, bytes: u64) {
        let share = |per_mille: u64| bytes * per_mille / 1_000;
        self.saved = (self.saved + share(HEDGE_SHARE)).min(HEDGE_SAVED_BYTES);
        let further = share(HEDGE_SHARE_ENDGAME - HEDGE_SHARE);
        self.saved_endgame = (self.saved_endgame + further).min(HEDGE_SAVED_BYTES);
    }

    /// Takes so many bytes out, if they are there.
    pub(crate) fn draw(&mut self, bytes: u64, endgame: bool) -> bool {
        let further = if endgame { self.saved_endgame } else { 0 };
        if bytes > self.saved + further {
            return false;
        }
        let first = bytes.min(self.saved);
        self.saved -= first;
        self.saved_endgame -= bytes - first;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_stays_within_the_share() {
        let mut budget = Budget::new();
        assert!(budget.draw(HEDGE_START_BYTES, false));
        assert!(!budget.draw(1, true));
        budget.received(1_000_000);
        assert!(!budget.draw(20_001, false));
        assert!(budget.draw(50_000, true));
        assert!(!budget.draw(1, true));
    }
}

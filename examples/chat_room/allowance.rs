//! How many lines somebody may send.

use std::time::{Duration, Instant};

/// So many a second in the long run, and ten seconds' worth of them at once.
#[derive(Clone)]
pub(crate) struct Allowance {
    each: Duration,
    /// By when all that was sent would have been due at an even pace. That may be as far ahead as
    /// the burst is long.
    due: Option<Instant>,
}

const BURST: u32 = 10;

impl Allowance {
    /// 0 a second is any number.
    pub(crate) fn new(lines_a_second: u32) -> Allowance {
        Allowance {
            each: Duration::from_secs(1)
                .checked_div(lines_a_second)
                .unwrap_or_default(),
            due: None,
        }
    }

    /// Whether one more is allowed now.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let due = self.due.map_or(now, |due| due.max(now)) + self.each;
        let is_allowed = due.duration_since(now) <= Duration::from_secs(BURST.into());
        if is_allowed {
            self.due = Some(due);
        }
        is_allowed
    }
}

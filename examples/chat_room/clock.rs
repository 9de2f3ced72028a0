//! What time it is, as people read it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Some moment by the wall clock and by that of the pollers, which goes on evenly from there, and is
/// simulated in a simulation.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    since_1970: Duration,
    at: Instant,
}

impl Clock {
    pub(crate) fn new(since_1970: Duration, at: Instant) -> Clock {
        Clock { since_1970, at }
    }

    pub(crate) fn now() -> Clock {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Clock::new(since_1970.unwrap_or_default(), Instant::now())
    }

    /// A number that no moment but this one has.
    pub(crate) fn number(self) -> u64 {
        self.since_1970.as_nanos() as u64
    }

    /// Milliseconds since 1970.
    pub(crate) fn ms(self, now: Instant) -> u64 {
        let time = self.since_1970 + now.saturating_duration_since(self.at);
        time.as_millis() as u64
    }
}

//! The clock.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static SIMULATED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The monotonic time.
///
/// Time enters the crate here and nowhere else, and the poller asks once a turn and hands the
/// answer on. So the simulated clock of a thread has one place to stand in, all timers of a turn
/// agree on what time it is, and a step of the wall clock moves no deadline.
pub(crate) fn now() -> Instant {
    SIMULATED.get().unwrap_or_else(Instant::now)
}

/// Whether it is a test that says what time it is on this thread.
#[inline]
pub(crate) fn is_simulated() -> bool {
    SIMULATED.get().is_some()
}

/// From here on it is `time` on this thread, until the next call; with `None` time is real again.
/// Returns what it was before.
pub(crate) fn set(time: Option<Instant>) -> Option<Instant> {
    SIMULATED.replace(time)
}

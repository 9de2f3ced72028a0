//! The clock.

use std::time::Instant;

/// The monotonic time.
///
/// Time enters the crate here and nowhere else, and the poller asks once a turn and hands the
/// answer on. So a simulated clock has one place to stand in, all timers of a turn agree on what
/// time it is, and a step of the wall clock moves no deadline.
pub(crate) fn now() -> Instant {
    Instant::now()
}

//! What time it is, as HTTP writes it: once a second for each poller.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::actor::Actor;
use crate::context::Context;
use crate::local::Local;
use crate::sys::clock;

/// When the time begins for a test that says itself what time it is.
const SIMULATED_EPOCH: Duration = Duration::from_secs(784_111_777);

/// The date of a poller.
pub(super) struct Date {
    text: String,
    /// It is to be written anew from then on.
    until: Instant,
    /// When the first was written.
    first: Instant,
}

impl Date {
    /// As it is in this turn of the poller.
    pub(super) fn now<A: Actor>(ctx: &mut Context<'_, A>) -> Local<Date> {
        let now = ctx.now();
        let date = ctx.local_or(|| Date {
            text: String::new(),
            until: now,
            first: now,
        });
        date.borrow_mut().renew(now);
        date
    }

    fn renew(&mut self, now: Instant) {
        if now < self.until {
            return;
        }
        let time = if clock::is_simulated() {
            UNIX_EPOCH + SIMULATED_EPOCH + now.saturating_duration_since(self.first)
        } else {
            SystemTime::now()
        };
        // A clock before 1970 is taken for that.
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let into_second = Duration::from_nanos(since.subsec_nanos().into());
        self.text = httpdate::fmt_http_date(UNIX_EPOCH + since);
        self.until = now + Duration::from_secs(1) - into_second;
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

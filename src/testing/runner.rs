//! A poller and what a test has planned, in their places in simulated time.

use std::cmp::Ordering;
use std::time::Duration;

use crate::handle::Handle;
use crate::poller::Poller;
use crate::sys::Network;

use super::simulation::Simulation;

/// A poller and its place in time.
pub(super) struct Runner {
    pub(super) program: usize,
    pub(super) number: u16,
    /// Not here while it is in a turn, nor when it has stopped.
    pub(super) poller: Option<Box<Poller>>,
    /// When its wait is over, if no event ends it before.
    pub(super) until: Option<Duration>,
    /// It gets no processor before that.
    pub(super) stalled: Duration,
    pub(super) has_stopped: bool,
}

impl Runner {
    /// Whether its wait is over, or there is something to end it.
    pub(super) fn is_able(&self, now: Duration) -> bool {
        let Some(poller) = &self.poller else {
            return false;
        };
        self.stalled <= now && (self.until.is_some_and(|until| until <= now) || poller.is_ready())
    }

    /// When it will be able to, as far as it depends on the time.
    pub(super) fn next_at(&self, now: Duration) -> Option<Duration> {
        let poller = self.poller.as_ref()?;
        let ready = poller.is_ready().then_some(now);
        let until = self.until.into_iter().chain(ready).min()?;
        Some(until.max(self.stalled))
    }

    /// How many of its connections own a buffer in which nothing is.
    pub(super) fn idle_buffers(&self) -> usize {
        let poller = self.poller.as_ref();
        poller.map_or(0, |poller| poller.hosts.idle_extras())
    }
}

/// What holds of a system that has come to its end.
#[track_caller]
pub(super) fn assert_nothing_is_left(of: &Handle) {
    let stats = of.stats();
    assert_eq!(stats.opened, stats.closed, "actors opened and closed");
    assert_eq!(stats.connections, 0, "sockets that are left");
    let files = Network::with(|network| network.files());
    assert!(
        files.is_empty(),
        "files of Unix sockets that are left: {files:?}"
    );
}

pub(super) fn whole_ms(time: Duration) -> Duration {
    let ms = time.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// What a test wants to be done at a time.
pub(super) struct Script {
    pub(super) at: Duration,
    pub(super) number: u64,
    pub(super) what: Box<dyn FnOnce(&mut Simulation)>,
}

impl PartialEq for Script {
    fn eq(&self, other: &Script) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Script {}

impl PartialOrd for Script {
    fn partial_cmp(&self, other: &Script) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Script {
    fn cmp(&self, other: &Script) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

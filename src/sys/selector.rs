//! The selector: which descriptors are ready.
//!
//! One small interface over a private enum of back ends. An enum rather than a trait, so that no
//! public type becomes generic over it, and a match on one variant costs nothing.

use std::fmt;
use std::io;
use std::ops::BitOr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

#[cfg(target_os = "linux")]
use super::epoll::Epoll;
use super::poll::Poll;
use super::simulated::{Number, SimulatedSelector};
use super::wake_fd::WakeFd;

mod kind;

pub use kind::SelectorKind;

/// A set of the directions in which a descriptor is asked for, or is ready: to be joined by `|`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interest(u8);

impl Interest {
    /// Neither direction.
    pub const NONE: Interest = Interest(0);
    /// Bytes, connections or the end of the stream to read.
    pub const READ: Interest = Interest(1);
    /// Room to write.
    pub const WRITE: Interest = Interest(2);

    /// Whether every direction of `other` is in the set.
    pub fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    /// The directions that are in both sets.
    pub(super) fn and(self, other: Interest) -> Interest {
        Interest(self.0 & other.0)
    }

    /// Whether the set has no direction.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            match (
                self.contains(Interest::READ),
                self.contains(Interest::WRITE),
            ) {
                (false, false) => "NONE",
                (true, false) => "READ",
                (false, true) => "WRITE",
                (true, true) => "READ | WRITE",
            },
        )
    }
}

/// One descriptor's readiness.
///
/// An error or a hang-up counts as both directions, asked for or not: the next read or write says
/// what it was, with its error. (kqueue looks at the directions that it was asked for. So where
/// reading alone is asked for, a hang-up without an error is the end of the stream to it.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    token: u64,
    pub(super) ready: Interest,
}

impl Event {
    /// What a back end has found out.
    pub(super) fn new(token: u64, ready: Interest) -> Event {
        Event { token, ready }
    }

    /// The token that the descriptor was registered with.
    pub(crate) fn token(self) -> u64 {
        self.token
    }

    /// Whether a read gets further: to bytes, to the end or to an error.
    pub(crate) fn is_readable(self) -> bool {
        self.ready.contains(Interest::READ)
    }

    /// Whether a write gets further: to room or to an error.
    pub(crate) fn is_writable(self) -> bool {
        self.ready.contains(Interest::WRITE)
    }
}

/// The events of one wait, in a buffer that is used again for the next.
///
/// Events are in the form common to all back ends. Translating them takes a nanosecond each, and
/// lets a poller hold its events without knowing where they come from.
#[derive(Debug)]
pub(crate) struct Events {
    /// Invariant: never grows past the capacity that it was made with.
    pub(super) list: Vec<Event>,
}

impl Events {
    /// Room for `capacity` events a wait; what is ready beyond that is reported by the next one. A
    /// capacity of 0 counts as 1, since a wait that can report nothing would never end.
    pub(crate) fn with_capacity(capacity: usize) -> Events {
        Events {
            list: Vec::with_capacity(capacity.max(1)),
        }
    }

    /// How many events the last wait found.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Forgets them.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// The event at `index`, by value: the poller goes by index because it changes itself
    /// meanwhile.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Events::len).
    pub(crate) fn get(&self, index: usize) -> Event {
        self.list[index]
    }

    /// The events, by value.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.list.iter().copied()
    }

    /// How many events a wait may report.
    pub(super) fn capacity(&self) -> usize {
        self.list.capacity()
    }

    /// Adds one; there must be room.
    pub(super) fn push(&mut self, event: Event) {
        debug_assert!(self.list.len() < self.list.capacity());
        self.list.push(event);
    }

    /// Replaces the events; `events` holds [`capacity`](Events::capacity) at most.
    pub(super) fn refill(&mut self, events: impl Iterator<Item = Event>) {
        self.list.clear();
        self.list.extend(events);
    }
}

/// What a selector watches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// A descriptor of the process.
    Fd(BorrowedFd<'a>),
    /// A socket of this thread's simulated network.
    Simulated(Number),
}

impl<'a> From<BorrowedFd<'a>> for Source<'a> {
    fn from(fd: BorrowedFd<'a>) -> Source<'a> {
        Source::Fd(fd)
    }
}

/// Tells which of the registered descriptors are ready.
///
/// Level-triggered: a descriptor is reported again by every wait until its cause is dealt with. So
/// a poller may stop in the middle of a stream when its budget is spent, and nothing is lost.
///
/// Order of calls: `register`, any number of `reregister`, `deregister`, and only then close. A
/// closed descriptor that has a duplicate somewhere, in a child process for instance, is reported
/// for ever and can no longer be deregistered.
#[derive(Debug)]
pub(crate) struct Selector {
    backend: Backend,
}

/// The ways to wait; io_uring is a variant to come.
#[derive(Debug)]
enum Backend {
    #[cfg(target_os = "linux")]
    Epoll(Epoll),
    #[cfg(any(
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "dragonfly",
        target_os = "netbsd",
        target_os = "openbsd",
        all(target_os = "linux", any(test, greenroom_kqueue_double))
    ))]
    Kqueue(super::kqueue::Kqueue),
    Poll(Poll),
    Simulated(SimulatedSelector),
}

/// Calls the back end, if it is one that waits in the kernel.
macro_rules! kernel {
    ($selector:expr, $backend:ident => $call:expr, $simulated:pat => $otherwise:expr $(,)?) => {
        match &mut $selector.backend {
            #[cfg(target_os = "linux")]
            Backend::Epoll($backend) => $call,
            #[cfg(any(
                target_vendor = "apple",
                target_os = "freebsd",
                target_os = "dragonfly",
                target_os = "netbsd",
                target_os = "openbsd",
                all(target_os = "linux", any(test, greenroom_kqueue_double))
            ))]
            Backend::Kqueue($backend) => $call,
            Backend::Poll($backend) => $call,
            Backend::Simulated($simulated) => $otherwise,
        }
    };
}

impl Selector {
    /// Opens a selector.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a kind that this platform lacks.
    pub(crate) fn new(kind: SelectorKind) -> io::Result<Selector> {
        let backend = match kind {
            #[cfg(target_os = "linux")]
            SelectorKind::Epoll => Backend::Epoll(Epoll::new()?),
            #[cfg(any(
                target_vendor = "apple",
                target_os = "freebsd",
                target_os = "dragonfly",
                target_os = "netbsd",
                target_os = "openbsd",
                all(target_os = "linux", any(test, greenroom_kqueue_double))
            ))]
            SelectorKind::Kqueue => Backend::Kqueue(super::kqueue::Kqueue::new()?),
            SelectorKind::Poll => Backend::Poll(Poll::new()),
            #[allow(unreachable_patterns, reason = "tests of Linux have all of them")]
            lacking => return Err(lacking.unsupported()),
        };
        Ok(Selector { backend })
    }

    /// A selector on the simulated network of this thread.
    pub(crate) fn simulated() -> Selector {
        Selector {
            backend: Backend::Simulated(SimulatedSelector::new()),
        }
    }

    /// Whether it is one on a simulated network.
    pub(crate) fn is_simulated(&self) -> bool {
        matches!(self.backend, Backend::Simulated(_))
    }

    /// Whether a wait would end at once, for whoever runs a simulated poller: it must not wait.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.backend {
            Backend::Simulated(simulated) => simulated.is_ready(),
            _ => false,
        }
    }

    /// Whether `source` is of the world that this selector watches.
    pub(crate) fn takes(&self, source: Source<'_>) -> bool {
        let is_simulated = matches!(self.backend, Backend::Simulated(_));
        is_simulated == matches!(source, Source::Simulated(_))
    }

    /// Starts to report on `source` under `token`.
    ///
    /// `interest` must not be empty, here and in [`reregister`](Selector::reregister): a descriptor
    /// with no direction asked for still reports a hang-up, again and again. To pause it,
    /// deregister it.
    pub(crate) fn register(
        &mut self,
        source: Source<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        debug_assert!(!interest.is_empty(), "register without interest");
        match source {
            Source::Fd(fd) => {
                kernel!(self, kernel => kernel.register(fd, token, interest), _ => Err(another_world()))
            }
            Source::Simulated(number) => match &mut self.backend {
                Backend::Simulated(simulated) => simulated.register(number, token, interest),
                _ => Err(another_world()),
            },
        }
    }

    /// Replaces the token and the interest of a registered `source`.
    pub(crate) fn reregister(
        &mut self,
        source: Source<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        debug_assert!(!interest.is_empty(), "reregister without interest");
        match source {
            Source::Fd(fd) => {
                kernel!(self, kernel => kernel.reregister(fd, token, interest), _ => Err(another_world()))
            }
            Source::Simulated(number) => match &mut self.backend {
                Backend::Simulated(simulated) => simulated.reregister(number, token, interest),
                _ => Err(another_world()),
            },
        }
    }

    /// Stops reporting on `source`. Events of the last wait that were not looked at yet are still
    /// there.
    pub(crate) fn deregister(&mut self, source: Source<'_>) -> io::Result<()> {
        match source {
            Source::Fd(fd) => {
                kernel!(self, kernel => kernel.deregister(fd), _ => Err(another_world()))
            }
            Source::Simulated(number) => match &mut self.backend {
                Backend::Simulated(simulated) => simulated.deregister(number),
                _ => Err(another_world()),
            },
        }
    }

    /// What wakes this selector: every wake is reported under `token`, to the wait of this moment
    /// or else to the next. One for each selector.
    pub(crate) fn waker(&mut self, token: u64) -> io::Result<WakeFd> {
        kernel!(self, kernel => kernel.waker(token), simulated => {
            let flag = Arc::default();
            simulated.register_waker(Arc::clone(&flag), token);
            Ok(WakeFd::raising(flag))
        })
    }

    /// Blocks until a descriptor is ready or `timeout` is over; `None` waits for ever.
    ///
    /// Never returns early from a timeout of up to 24 days, except that a signal ends the wait,
    /// with no events: the caller's turn, which looks at its deadlines anyhow, is the right place
    /// to go on.
    pub(crate) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        kernel!(self, kernel => kernel.wait(events, timeout), simulated => {
            simulated.wait(events);
            Ok(())
        })
    }
}

/// The timeout as epoll_wait(2) and poll(2) take it.
///
/// Rounded up: rounded down, a deadline 0.4 ms ahead would be waited for with a timeout of 0, over
/// and over. Clamped to 24 days, after which the poller finds nothing due and waits again.
pub(super) fn timeout_ms(timeout: Option<Duration>) -> libc::c_int {
    match timeout {
        None => -1,
        Some(timeout) => libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000))
            .unwrap_or(libc::c_int::MAX),
    }
}

/// A simulated socket in a real selector, or the other way round.
fn another_world() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "a simulated socket and a real selector know nothing of one another",
    )
}

#[cfg(test)]
mod tests;

//! The selector: which descriptors are ready.
//!
//! One small interface over a private enum of back ends. An enum rather than a trait, so that no
//! public type becomes generic over it, and a match on one variant costs nothing.

use std::fmt;
use std::io;
use std::ops::BitOr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::epoll::Epoll;
use super::simulated::{Number, SimulatedSelector};
use super::wake_fd::{WakeFd, WakeSource};

/// A set of the directions in which a descriptor is asked for, or is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interest(u8);

impl Interest {
    /// Neither direction.
    pub(crate) const NONE: Interest = Interest(0);
    /// Bytes, connections or the end of the stream to read.
    pub(crate) const READ: Interest = Interest(1);
    /// Room to write.
    pub(crate) const WRITE: Interest = Interest(2);

    /// Whether every direction of `other` is in the set.
    pub(crate) fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    /// The directions that are in both sets.
    pub(super) fn and(self, other: Interest) -> Interest {
        Interest(self.0 & other.0)
    }

    /// Whether the set has no direction.
    pub(crate) fn is_empty(self) -> bool {
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
/// what it was, with its error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    token: u64,
    ready: Interest,
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
    list: Vec<Event>,
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

/// The ways to wait; kqueue, poll(2) and io_uring are variants to come.
#[derive(Debug)]
enum Backend {
    Epoll(Epoll),
    Simulated(SimulatedSelector),
}

impl Selector {
    /// A selector on the simulated network of this thread.
    pub(crate) fn simulated() -> Selector {
        Selector {
            backend: Backend::Simulated(SimulatedSelector::new()),
        }
    }

    /// Whether a wait would end at once, for whoever runs a simulated poller: it must not wait.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.backend {
            Backend::Epoll(_) => false,
            Backend::Simulated(simulated) => simulated.is_ready(),
        }
    }

    /// Opens a selector.
    pub(crate) fn new() -> io::Result<Selector> {
        Ok(Selector {
            backend: Backend::Epoll(Epoll::new()?),
        })
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
        match (&mut self.backend, source) {
            (Backend::Epoll(epoll), Source::Fd(fd)) => epoll.register(fd, token, interest),
            (Backend::Simulated(simulated), Source::Simulated(number)) => {
                simulated.register(number, token, interest)
            }
            _ => Err(another_world()),
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
        match (&mut self.backend, source) {
            (Backend::Epoll(epoll), Source::Fd(fd)) => epoll.reregister(fd, token, interest),
            (Backend::Simulated(simulated), Source::Simulated(number)) => {
                simulated.reregister(number, token, interest)
            }
            _ => Err(another_world()),
        }
    }

    /// Stops reporting on `source`. Events of the last wait that were not looked at yet are still
    /// there.
    pub(crate) fn deregister(&mut self, source: Source<'_>) -> io::Result<()> {
        match (&mut self.backend, source) {
            (Backend::Epoll(epoll), Source::Fd(fd)) => epoll.deregister(fd),
            (Backend::Simulated(simulated), Source::Simulated(number)) => {
                simulated.deregister(number)
            }
            _ => Err(another_world()),
        }
    }

    /// Reports every wake of `wake_fd`, under `token`, to the wait of this moment or else to the
    /// next.
    pub(crate) fn register_waker(&mut self, wake_fd: &WakeFd, token: u64) -> io::Result<()> {
        match (&mut self.backend, wake_fd.source()) {
            (Backend::Epoll(epoll), WakeSource::Fd(fd)) => epoll.register_waker(fd, token),
            (Backend::Simulated(simulated), WakeSource::Flag(flag)) => {
                simulated.register_waker(flag.clone(), token);
                Ok(())
            }
            _ => Err(another_world()),
        }
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
        match &mut self.backend {
            Backend::Epoll(epoll) => epoll.wait(events, timeout),
            Backend::Simulated(simulated) => {
                simulated.wait(events);
                Ok(())
            }
        }
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
mod tests {
    use std::io::Write;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Instant;

    use super::*;
    use crate::sys::test_util::TIMEOUT;

    /// What is ready right now, as (token, readable, writable).
    fn ready(selector: &mut Selector, timeout: Duration) -> Vec<(u64, bool, bool)> {
        let mut events = Events::with_capacity(8);
        selector.wait(&mut events, Some(timeout)).unwrap();
        events
            .iter()
            .map(|event| (event.token(), event.is_readable(), event.is_writable()))
            .collect()
    }

    #[test]
    fn interest_is_a_set() {
        let both = Interest::READ | Interest::WRITE;
        assert!(both.contains(Interest::READ) && both.contains(Interest::WRITE));
        assert!(both.contains(both) && both.contains(Interest::NONE));
        assert!(!Interest::READ.contains(both));
        assert!(Interest::NONE.is_empty() && !both.is_empty());
        assert_eq!(
            format!("{both:?} {:?}", Interest::NONE),
            "READ | WRITE NONE"
        );
    }

    #[test]
    fn readiness_is_reported_until_it_is_dealt_with() {
        let mut selector = Selector::new().unwrap();
        let (socket, mut peer) = UnixStream::pair().unwrap();
        selector
            .register(socket.as_fd().into(), 7, Interest::READ)
            .unwrap();
        assert_eq!(ready(&mut selector, Duration::ZERO), []);

        peer.write_all(b"x").unwrap();
        assert_eq!(ready(&mut selector, TIMEOUT), [(7, true, false)]);
        assert_eq!(ready(&mut selector, Duration::ZERO), [(7, true, false)]);
    }

    #[test]
    fn reregister_changes_token_and_interest() {
        let mut selector = Selector::new().unwrap();
        let (socket, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"x").unwrap();
        let both = Interest::READ | Interest::WRITE;
        selector.register(socket.as_fd().into(), 1, both).unwrap();
        assert_eq!(ready(&mut selector, TIMEOUT), [(1, true, true)]);
        selector
            .reregister(socket.as_fd().into(), u64::MAX, Interest::WRITE)
            .unwrap();
        assert_eq!(ready(&mut selector, TIMEOUT), [(u64::MAX, false, true)]);
    }

    #[test]
    fn a_hang_up_is_both_readable_and_writable() {
        let mut selector = Selector::new().unwrap();
        let (socket, peer) = UnixStream::pair().unwrap();
        drop(peer);
        selector
            .register(socket.as_fd().into(), 1, Interest::READ)
            .unwrap();
        assert_eq!(ready(&mut selector, TIMEOUT), [(1, true, true)]);
    }

    #[test]
    fn deregister_before_close_silences_a_duplicate() {
        let mut selector = Selector::new().unwrap();
        let (socket, mut peer) = UnixStream::pair().unwrap();
        let _duplicate = socket.try_clone().unwrap();
        peer.write_all(b"x").unwrap();
        selector
            .register(socket.as_fd().into(), 1, Interest::READ)
            .unwrap();
        assert_eq!(ready(&mut selector, TIMEOUT), [(1, true, false)]);
        selector.deregister(socket.as_fd().into()).unwrap();
        drop(socket);
        assert_eq!(ready(&mut selector, Duration::ZERO), []);
    }

    #[test]
    fn without_deregister_a_duplicate_is_reported_after_close() {
        // The reason for the order of calls. Should this ever fail, the kernel has become kinder.
        let mut selector = Selector::new().unwrap();
        let (socket, mut peer) = UnixStream::pair().unwrap();
        let _duplicate = socket.try_clone().unwrap();
        peer.write_all(b"x").unwrap();
        selector
            .register(socket.as_fd().into(), 1, Interest::READ)
            .unwrap();
        drop(socket);
        assert_eq!(ready(&mut selector, TIMEOUT), [(1, true, false)]);
    }

    #[test]
    fn misuse_of_a_descriptor_is_an_error() {
        let mut selector = Selector::new().unwrap();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let error = selector.deregister(socket.as_fd().into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        selector
            .register(socket.as_fd().into(), 1, Interest::READ)
            .unwrap();
        let error = selector
            .register(socket.as_fd().into(), 2, Interest::READ)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn what_does_not_fit_is_reported_by_the_next_wait() {
        let mut selector = Selector::new().unwrap();
        let sockets: Vec<(UnixStream, UnixStream)> =
            (0..3).map(|_| UnixStream::pair().unwrap()).collect();
        for (token, (socket, _)) in (0..).zip(&sockets) {
            selector
                .register(socket.as_fd().into(), token, Interest::WRITE)
                .unwrap();
        }
        let mut events = Events::with_capacity(0);
        let mut seen = Vec::new();
        for _ in 0..3 {
            selector.wait(&mut events, Some(TIMEOUT)).unwrap();
            assert_eq!(events.len(), 1);
            seen.push(events.get(0).token());
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
    }

    #[test]
    fn a_timeout_is_never_cut_short() {
        let mut selector = Selector::new().unwrap();
        let timeout = Duration::from_micros(1_500);
        let start = Instant::now();
        assert_eq!(ready(&mut selector, timeout), []);
        assert!(start.elapsed() >= timeout);
    }

    #[test]
    fn every_wake_is_reported_and_none_has_to_be_read() {
        let mut selector = Selector::new().unwrap();
        let wake_fd = WakeFd::new().unwrap();
        selector.register_waker(&wake_fd, 9).unwrap();
        assert_eq!(ready(&mut selector, Duration::ZERO), []);
        for _ in 0..5 {
            wake_fd.wake();
            assert_eq!(ready(&mut selector, TIMEOUT), [(9, true, false)]);
            assert_eq!(ready(&mut selector, Duration::ZERO), []);
        }
        // Several before one wait are one event.
        wake_fd.wake();
        wake_fd.wake();
        assert_eq!(ready(&mut selector, TIMEOUT), [(9, true, false)]);
        assert_eq!(ready(&mut selector, Duration::ZERO), []);
    }

    #[test]
    fn a_wake_from_another_thread_ends_a_wait_for_ever() {
        let mut selector = Selector::new().unwrap();
        let wake_fd = WakeFd::new().unwrap();
        selector.register_waker(&wake_fd, 9).unwrap();
        let mut events = Events::with_capacity(1);
        thread::scope(|scope| {
            scope.spawn(|| wake_fd.wake());
            selector.wait(&mut events, None).unwrap();
        });
        assert_eq!(events.len(), 1);
    }

    #[test]
    fn a_wake_at_the_maximum_of_the_counter_is_reported() {
        let mut selector = Selector::new().unwrap();
        let wake_fd = WakeFd::new().unwrap();
        selector.register_waker(&wake_fd, 9).unwrap();
        let counter: OwnedFd = wake_fd.as_fd().try_clone_to_owned().unwrap();
        std::fs::File::from(counter)
            .write_all(&(u64::MAX - 1).to_ne_bytes())
            .unwrap();
        for _ in 0..3 {
            assert_eq!(ready(&mut selector, TIMEOUT).len(), 1);
            wake_fd.wake();
        }
    }

    #[test]
    fn a_simulated_wake_is_reported_once() {
        let mut selector = Selector::simulated();
        let wake_fd = WakeFd::simulated();
        selector.register_waker(&wake_fd, 9).unwrap();
        assert!(!selector.is_ready());
        wake_fd.wake();
        wake_fd.wake();
        assert!(selector.is_ready());
        assert_eq!(ready(&mut selector, Duration::ZERO), [(9, true, false)]);
        assert_eq!(ready(&mut selector, Duration::ZERO), []);
    }

    #[test]
    fn what_is_simulated_is_not_for_a_real_selector() {
        let error = Selector::new()
            .unwrap()
            .register_waker(&WakeFd::simulated(), 9);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let error = Selector::simulated().register_waker(&WakeFd::new().unwrap(), 9);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

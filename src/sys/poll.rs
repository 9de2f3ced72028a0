//! The poll(2) back end of the selector: every Unix has it.
//!
//! The kernel is shown all that is watched on every wait, and remembers nothing in between. So what
//! is watched stands in an array in the form that the call takes; to register, reregister and
//! deregister are steps of constant time on it, without a system call.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, c_short, nfds_t, pollfd};

use super::selector::{Event, Events, Interest, timeout_ms};
use super::wake_fd::{Bell, WakeFd};

/// What is reported as readable, and as writable; see the epoll back end.
const READABLE: c_short = POLLIN | POLLHUP | POLLERR;
const WRITABLE: c_short = POLLOUT | POLLHUP | POLLERR;

/// In `places`, for a descriptor that is not watched.
const NOWHERE: u32 = u32::MAX;

/// What is watched.
#[derive(Debug, Default)]
pub(super) struct Poll {
    /// In no order: the last one takes the place of one that leaves.
    watched: Vec<pollfd>,
    /// The token of each, at the same place.
    tokens: Vec<u64>,
    /// Where each descriptor stands in the two lists, by its number, or `NOWHERE`. 4 bytes for each
    /// number up to the largest that was watched: the kernel gives the lowest free ones.
    places: Vec<u32>,
    /// Where the next wait begins to look for what the kernel has marked.
    next: usize,
    /// What wakes the poller. Shared, so that its descriptor stays open for as long as it is
    /// watched.
    bell: Option<Arc<Bell>>,
}

impl Poll {
    /// Watches nothing yet.
    pub(super) fn new() -> Poll {
        Poll::default()
    }

    /// See [`Selector::register`](super::Selector::register).
    pub(super) fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let number = fd.as_raw_fd() as usize;
        if self.place(number).is_some() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        if self.places.len() <= number {
            self.places.resize(number + 1, NOWHERE);
        }
        // Fewer than there are descriptors, which are counted in an `int`.
        self.places[number] = self.watched.len() as u32;
        self.watched.push(pollfd {
            fd: fd.as_raw_fd(),
            events: flags(interest),
            revents: 0,
        });
        self.tokens.push(token);
        Ok(())
    }

    /// See [`Selector::reregister`](super::Selector::reregister).
    pub(super) fn reregister(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let place = self.place(fd.as_raw_fd() as usize).ok_or_else(not_there)?;
        self.watched[place].events = flags(interest);
        self.tokens[place] = token;
        Ok(())
    }

    /// See [`Selector::deregister`](super::Selector::deregister).
    pub(super) fn deregister(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let place = self.place(fd.as_raw_fd() as usize).ok_or_else(not_there)?;
        self.remove(place);
        Ok(())
    }

    /// See [`Selector::waker`](super::Selector::waker).
    pub(super) fn waker(&mut self, token: u64) -> io::Result<WakeFd> {
        let bell = Arc::new(Bell::new()?);
        self.register(bell.as_fd(), token, Interest::READ)?;
        self.bell = Some(bell.clone());
        Ok(WakeFd::ringing(bell))
    }

    /// Where a descriptor stands.
    fn place(&self, number: usize) -> Option<usize> {
        let place = *self.places.get(number)?;
        (place != NOWHERE).then_some(place as usize)
    }

    /// Takes one out; the last one takes its place.
    fn remove(&mut self, place: usize) {
        let left = self.watched.swap_remove(place);
        self.tokens.swap_remove(place);
        self.places[left.fd as usize] = NOWHERE;
        if let Some(moved) = self.watched.get(place) {
            self.places[moved.fd as usize] = place as u32;
        }
    }

    /// See [`Selector::wait`](super::Selector::wait).
    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        // SAFETY: `watched` is writable for its length, and borrowed for the whole call.
        let waited = unsafe {
            syscall!(poll(
                self.watched.as_mut_ptr(),
                self.watched.len() as nfds_t,
                timeout_ms(timeout),
            ))
        };
        let marked = match waited {
            Ok(marked) => marked as usize,
            // Not repeated: the timeout would start again from its beginning.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        self.collect(events, marked);
        Ok(())
    }

    /// Reports what the kernel has marked, which is in `marked` places.
    ///
    /// It begins where the last wait ended. What there was no room for is marked by the next wait
    /// again, and comes first then: no descriptor is left out for ever by those before it.
    fn collect(&mut self, events: &mut Events, mut marked: usize) {
        events.clear();
        let mut steps = self.watched.len();
        while marked > 0 && steps > 0 && events.len() < events.capacity() {
            steps -= 1;
            if self.next >= self.watched.len() {
                self.next = 0;
            }
            let pollfd { fd, revents, .. } = self.watched[self.next];
            if revents == 0 {
                self.next += 1;
                continue;
            }
            marked -= 1;
            if revents & POLLNVAL != 0 {
                // Closed without a deregister. The other back ends lose it at the close; here it
                // would be reported for ever.
                self.remove(self.next);
                continue;
            }
            self.silence(fd);
            let mut ready = Interest::NONE;
            if revents & READABLE != 0 {
                ready = ready | Interest::READ;
            }
            if revents & WRITABLE != 0 {
                ready = ready | Interest::WRITE;
            }
            events.push(Event::new(self.tokens[self.next], ready));
            self.next += 1;
        }
    }

    /// Takes back the wakes that are about to be reported, if it is the waker's descriptor.
    ///
    /// No wake is lost: whoever is woken looks for work after this. A wake that comes in between
    /// marks the descriptor again.
    fn silence(&self, fd: RawFd) {
        if let Some(bell) = &self.bell
            && bell.as_fd().as_raw_fd() == fd
        {
            bell.silence();
        }
    }
}

/// What epoll and kqueue say of a descriptor that they do not know.
fn not_there() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

/// The flags that ask for `interest`.
fn flags(interest: Interest) -> c_short {
    let mut flags = 0;
    if interest.contains(Interest::READ) {
        flags |= POLLIN;
    }
    if interest.contains(Interest::WRITE) {
        flags |= POLLOUT;
    }
    flags
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    use libc::c_int;

    use super::*;
    use crate::sys::test_util::TIMEOUT;

    /// Beyond what the tests of this process have open at a time.
    const HIGH_NUMBER: c_int = 700;

    /// The tokens that a wait with room for `room` reports.
    fn ready(poll: &mut Poll, room: usize) -> Vec<u64> {
        let mut events = Events::with_capacity(room);
        poll.wait(&mut events, Some(TIMEOUT)).unwrap();
        events.iter().map(Event::token).collect()
    }

    fn writable(poll: &mut Poll, tokens: std::ops::Range<u64>) -> Vec<(UnixStream, UnixStream)> {
        let pair = |token| {
            let pair = UnixStream::pair().unwrap();
            poll.register(pair.0.as_fd(), token, Interest::WRITE)
                .unwrap();
            pair
        };
        tokens.map(pair).collect()
    }

    #[test]
    fn a_place_that_is_given_up_is_taken_by_the_last() {
        let mut poll = Poll::new();
        let pairs = writable(&mut poll, 0..4);
        for (at, left) in [(1, vec![0, 2, 3]), (3, vec![0, 2]), (0, vec![2])] {
            poll.deregister(pairs[at].0.as_fd()).unwrap();
            let mut seen = ready(&mut poll, 8);
            seen.sort_unstable();
            assert_eq!(seen, left);
        }
        // Found where it stands now.
        poll.reregister(pairs[2].0.as_fd(), 7, Interest::WRITE)
            .unwrap();
        assert_eq!(ready(&mut poll, 8), [7]);
        poll.deregister(pairs[2].0.as_fd()).unwrap();
        assert!(poll.watched.is_empty() && poll.tokens.is_empty());
        assert!(poll.places.iter().all(|place| *place == NOWHERE));
    }

    #[test]
    fn who_found_no_room_comes_first_next_time() {
        let mut poll = Poll::new();
        let _pairs = writable(&mut poll, 0..5);
        assert_eq!(ready(&mut poll, 2), [0, 1]);
        assert_eq!(ready(&mut poll, 2), [2, 3]);
        assert_eq!(ready(&mut poll, 2), [4, 0]);
        assert_eq!(ready(&mut poll, 2), [1, 2]);
    }

    #[test]
    fn what_was_closed_without_a_deregister_is_forgotten() {
        let mut poll = Poll::new();
        let pairs = writable(&mut poll, 0..2);
        // A number that nothing else of this process is given meanwhile: those are the lowest.
        // SAFETY: takes no pointer.
        let high = unsafe {
            syscall!(fcntl(
                pairs[0].0.as_raw_fd(),
                libc::F_DUPFD_CLOEXEC,
                HIGH_NUMBER
            ))
        };
        // SAFETY: the call has just made the descriptor, and nothing else owns it.
        let high = unsafe { OwnedFd::from_raw_fd(high.unwrap()) };
        poll.register(high.as_fd(), 9, Interest::WRITE).unwrap();
        assert_eq!(ready(&mut poll, 8), [0, 1, 9]);
        drop(high);
        assert_eq!(ready(&mut poll, 8), [0, 1]);
        assert_eq!(poll.watched.len(), 2);
    }
}

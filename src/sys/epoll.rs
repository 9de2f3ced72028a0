//! The epoll(7) back end of the selector.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, c_int, epoll_event};
use libc::{EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT};

use super::selector::{Event, Events, Interest, timeout_ms};
use super::wake_fd::{Bell, WakeFd};

/// What is reported as readable. A hang-up or an error is explained by the read that follows.
///
/// `EPOLLRDHUP` is neither asked for nor looked at: a read says that the stream has ended, and says
/// it after the last byte, where it belongs. The flag comes as soon as the peer's FIN does, with
/// bytes still to read, and stays up for as long as our half of the connection is open.
const READABLE: c_int = EPOLLIN | EPOLLHUP | EPOLLERR;

/// What is reported as writable.
const WRITABLE: c_int = EPOLLOUT | EPOLLHUP | EPOLLERR;

/// An epoll instance and the buffer that the kernel fills.
#[derive(Debug)]
pub(super) struct Epoll {
    fd: OwnedFd,
    /// As long as the capacity of the `Events` of the last wait; what the kernel left of earlier
    /// waits behind the current events is never read.
    buffer: Vec<epoll_event>,
}

impl Epoll {
    /// Opens an epoll instance.
    pub(super) fn new() -> io::Result<Epoll> {
        // SAFETY: takes no pointer.
        let fd = unsafe { syscall!(epoll_create1(libc::EPOLL_CLOEXEC)) }?;
        // SAFETY: the call has just made the descriptor, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Epoll {
            fd,
            buffer: Vec::new(),
        })
    }

    /// See [`Selector::register`](super::Selector::register).
    pub(super) fn register(
        &self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        self.control(EPOLL_CTL_ADD, fd, token, flags(interest))
    }

    /// See [`Selector::reregister`](super::Selector::reregister).
    pub(super) fn reregister(
        &self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        self.control(EPOLL_CTL_MOD, fd, token, flags(interest))
    }

    /// See [`Selector::deregister`](super::Selector::deregister).
    pub(super) fn deregister(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// See [`Selector::waker`](super::Selector::waker): an eventfd that nobody will read, as mio has
    /// it.
    ///
    /// Edge-triggered, every write to it is an event of its own, whatever the counter holds, and is
    /// taken back by the wait that reports it. Level-triggered, the poller would have to read it:
    /// one system call more for each wake.
    pub(super) fn waker(&self, token: u64) -> io::Result<WakeFd> {
        let bell = Arc::new(Bell::new()?);
        self.control(EPOLL_CTL_ADD, bell.as_fd(), token, EPOLLIN | EPOLLET)?;
        Ok(WakeFd::ringing(bell))
    }

    /// One epoll_ctl(2).
    fn control(
        &self,
        operation: c_int,
        fd: BorrowedFd<'_>,
        token: u64,
        flags: c_int,
    ) -> io::Result<()> {
        let mut event = epoll_event {
            events: flags as u32,
            u64: token,
        };
        // SAFETY: `event` is valid for the call, which copies it; both descriptors are open.
        unsafe {
            syscall!(epoll_ctl(
                self.fd.as_raw_fd(),
                operation,
                fd.as_raw_fd(),
                ptr::from_mut(&mut event),
            ))
        }?;
        Ok(())
    }

    /// See [`Selector::wait`](super::Selector::wait).
    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.buffer
            .resize(events.capacity(), epoll_event { events: 0, u64: 0 });
        let room = c_int::try_from(self.buffer.len()).unwrap_or(c_int::MAX);
        // SAFETY: `buffer` is writable for `room` events, and borrowed for the whole call.
        let waited = unsafe {
            syscall!(epoll_wait(
                self.fd.as_raw_fd(),
                self.buffer.as_mut_ptr(),
                room,
                timeout_ms(timeout),
            ))
        };
        let count = match waited {
            Ok(count) => count as usize,
            // Not repeated: the timeout would start again from its beginning.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        events.refill(self.buffer[..count].iter().map(|event| {
            let mut ready = Interest::NONE;
            if event.events as c_int & READABLE != 0 {
                ready = ready | Interest::READ;
            }
            if event.events as c_int & WRITABLE != 0 {
                ready = ready | Interest::WRITE;
            }
            Event::new(event.u64, ready)
        }));
        Ok(())
    }
}

/// The flags that ask for `interest`, level-triggered.
fn flags(interest: Interest) -> c_int {
    let mut flags = 0;
    if interest.contains(Interest::READ) {
        flags |= EPOLLIN;
    }
    if interest.contains(Interest::WRITE) {
        flags |= EPOLLOUT;
    }
    flags
}

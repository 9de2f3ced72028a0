//! What ends the wait of a sleeping poller: an eventfd(2).

use std::fs::File;
use std::io::{self, Read, Write};
#[cfg(test)]
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Wakes the poller in whose selector it is registered.
///
/// Callable from any thread, also from several at once.
#[derive(Debug)]
pub(crate) struct WakeFd {
    kind: Kind,
    wakes: AtomicU64,
}

/// What a wake does.
#[derive(Debug)]
enum Kind {
    /// A `File` for its safe read and write; it owns the descriptor.
    Eventfd(File),
    /// Nothing.
    Absent,
}

impl WakeFd {
    /// Opens an eventfd.
    pub(crate) fn new() -> io::Result<WakeFd> {
        // SAFETY: takes no pointer.
        let fd = unsafe { syscall!(eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }?;
        // SAFETY: the call has just made the descriptor, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(WakeFd {
            kind: Kind::Eventfd(File::from(fd)),
            wakes: AtomicU64::new(0),
        })
    }

    /// A waker for actors that are driven by hand, with no poller that could be asleep.
    pub(crate) fn absent() -> WakeFd {
        WakeFd {
            kind: Kind::Absent,
            wakes: AtomicU64::new(0),
        }
    }

    /// How often it was woken, for whoever wants to see that it is seldom.
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    /// Ends the wait of the poller, or its next one if it is awake. One system call, never blocks.
    pub(crate) fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        let Kind::Eventfd(counter) = &self.kind else {
            return;
        };
        if add_one(counter).is_err() {
            // The counter, which nobody reads, has come to its maximum. That wakes were reported
            // before does not make this one be: it takes a write that succeeds, hence a counter
            // that has room. Two threads that do this at once just write twice. There is no other
            // error that a write of 8 bytes to an eventfd of our own can have.
            let _ = (&*counter).read(&mut [0; 8]);
            let _ = add_one(counter);
        }
    }

    /// Blocks until somebody wakes, for tests that have no selector.
    #[cfg(test)]
    pub(crate) fn wait(&self) {
        let Kind::Eventfd(counter) = &self.kind else {
            return;
        };
        let mut poll = libc::pollfd {
            fd: counter.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `poll` is one valid pollfd for the length of the call.
        while let Err(error) = unsafe { syscall!(poll(&mut poll, 1, -1)) } {
            assert_eq!(
                error.kind(),
                io::ErrorKind::Interrupted,
                "poll of an eventfd"
            );
        }
        let _ = (&*counter).read(&mut [0; 8]);
    }

    /// The descriptor to register, if there is one.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            Kind::Eventfd(counter) => Some(counter.as_fd()),
            Kind::Absent => None,
        }
    }
}

/// Adds one to the counter. An eventfd takes 8 bytes whole or not at all; `write_all` repeats the
/// write after a signal.
fn add_one(mut counter: &File) -> io::Result<()> {
    counter.write_all(&1_u64.to_ne_bytes())
}

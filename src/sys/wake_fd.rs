//! What ends the wait of a sleeping poller: an eventfd(2).

use std::fs::File;
use std::io::{self, Read, Write};
#[cfg(test)]
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    /// Set, and cleared by the simulated selector that reports it.
    Flag(Arc<AtomicBool>),
}

/// What a selector registers of it.
pub(super) enum WakeSource<'a> {
    Fd(BorrowedFd<'a>),
    Flag(&'a Arc<AtomicBool>),
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

    /// The waker of a simulated poller.
    pub(crate) fn simulated() -> WakeFd {
        WakeFd {
            kind: Kind::Flag(Arc::default()),
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
        let counter = match &self.kind {
            Kind::Eventfd(counter) => counter,
            Kind::Flag(flag) => return flag.store(true, Ordering::Release),
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

    pub(super) fn source(&self) -> WakeSource<'_> {
        match &self.kind {
            Kind::Eventfd(counter) => WakeSource::Fd(counter.as_fd()),
            Kind::Flag(flag) => WakeSource::Flag(flag),
        }
    }

    #[cfg(test)]
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match self.source() {
            WakeSource::Fd(fd) => fd,
            WakeSource::Flag(_) => panic!("a simulated waker has no descriptor"),
        }
    }
}

/// Adds one to the counter. An eventfd takes 8 bytes whole or not at all; `write_all` repeats the
/// write after a signal.
fn add_one(mut counter: &File) -> io::Result<()> {
    counter.write_all(&1_u64.to_ne_bytes())
}

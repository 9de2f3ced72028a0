//! What ends the wait of a sleeping poller.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
#[cfg(test)]
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::platform;

/// Wakes the poller whose selector it comes from ([`Selector::waker`](super::Selector::waker)).
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
    /// Whatever the kernel has for it.
    Kernel(Arc<dyn Ring>),
    /// Set, and cleared by the simulated selector that reports it.
    Flag(Arc<AtomicBool>),
}

/// Lets the kernel end the wait of a selector, or its next one.
pub(super) trait Ring: fmt::Debug + Send + Sync + UnwindSafe + RefUnwindSafe {
    /// One system call as a rule, from any thread. Never blocks, never fails.
    fn ring(&self);

    /// The descriptor, if that is what it is.
    #[cfg(test)]
    fn bell(&self) -> Option<&Bell> {
        None
    }
}

impl WakeFd {
    /// One that no selector knows.
    #[cfg(test)]
    pub(crate) fn new() -> io::Result<WakeFd> {
        Ok(WakeFd::ringing(Arc::new(Bell::new()?)))
    }

    /// One that rings `ring`.
    pub(super) fn ringing(ring: Arc<dyn Ring>) -> WakeFd {
        WakeFd::of(Kind::Kernel(ring))
    }

    /// One that no simulated selector knows.
    pub(crate) fn simulated() -> WakeFd {
        WakeFd::raising(Arc::default())
    }

    /// One that sets `flag`.
    pub(super) fn raising(flag: Arc<AtomicBool>) -> WakeFd {
        WakeFd::of(Kind::Flag(flag))
    }

    fn of(kind: Kind) -> WakeFd {
        WakeFd {
            kind,
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
        match &self.kind {
            Kind::Kernel(ring) => ring.ring(),
            Kind::Flag(flag) => flag.store(true, Ordering::Release),
        }
    }

    /// Blocks until somebody wakes, for tests that have no selector.
    #[cfg(test)]
    pub(crate) fn wait(&self) {
        let bell = self.bell();
        let mut poll = libc::pollfd {
            fd: bell.as_fd().as_raw_fd(),
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
        bell.silence();
    }

    /// The descriptor that it writes to.
    #[cfg(test)]
    pub(super) fn bell(&self) -> &Bell {
        let bell = match &self.kind {
            Kind::Kernel(ring) => ring.bell(),
            Kind::Flag(_) => None,
        };
        bell.expect("a wake by a descriptor")
    }
}

/// A descriptor that a ring makes readable: an eventfd(2), or a pipe where there is none.
#[derive(Debug)]
pub(super) struct Bell {
    /// A `File` for its safe read and write; it owns the descriptor.
    reader: File,
    /// The other end, where it is one.
    writer: Option<File>,
}

impl Bell {
    /// Opens one.
    pub(super) fn new() -> io::Result<Bell> {
        let (reader, writer) = platform::bell()?;
        Ok(Bell { reader, writer })
    }

    /// Takes all rings back, for a selector that would report them again.
    pub(super) fn silence(&self) {
        // The one error there is says that it does not ring. An eventfd gives 8 bytes and is
        // cleared; a pipe may hold more.
        let mut bytes = [0; 512];
        while matches!((&self.reader).read(&mut bytes), Ok(512)) {}
    }
}

impl Ring for Bell {
    fn ring(&self) {
        let to = self.writer.as_ref().unwrap_or(&self.reader);
        if add_one(to).is_err() {
            // Full: under epoll nobody reads it. That rings were reported before does not make this
            // one be: it takes a write that succeeds, hence room. Two threads that do this at once
            // just write twice. There is no other error that a write of 8 bytes to an eventfd, or
            // to a pipe, of our own can have.
            self.silence();
            let _ = add_one(to);
        }
    }

    #[cfg(test)]
    fn bell(&self) -> Option<&Bell> {
        Some(self)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// Adds one to the counter of an eventfd. Eight bytes are taken whole or not at all, also by a pipe;
/// `write_all` repeats the write after a signal.
fn add_one(mut counter: &File) -> io::Result<()> {
    counter.write_all(&1_u64.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Events, Interest, Selector, SelectorKind};

    fn bells() -> [Bell; 2] {
        let (reader, writer) = platform::pipe().unwrap();
        [Bell::new().unwrap(), Bell { reader, writer }]
    }

    /// Whether it rings at this moment.
    fn rings(bell: &Bell) -> bool {
        let mut selector = Selector::new(SelectorKind::Poll).unwrap();
        let mut events = Events::with_capacity(1);
        selector
            .register(bell.as_fd().into(), 0, Interest::READ)
            .unwrap();
        let now = std::time::Duration::ZERO;
        selector.wait(&mut events, Some(now)).unwrap();
        events.len() == 1
    }

    #[test]
    fn a_bell_rings_until_it_is_silenced() {
        for bell in bells() {
            assert!(!rings(&bell));
            for _ in 0..2 {
                bell.ring();
                bell.ring();
                assert!(rings(&bell) && rings(&bell));
                bell.silence();
                assert!(!rings(&bell));
                // Nothing to take back: it does not wait.
                bell.silence();
            }
        }
    }

    #[test]
    fn a_bell_that_is_full_still_rings_and_is_silenced_whole() {
        for bell in bells() {
            // More than a pipe holds.
            for _ in 0..100_000 {
                bell.ring();
            }
            assert!(rings(&bell));
            bell.silence();
            assert!(!rings(&bell), "{bell:?}");
        }
    }
}

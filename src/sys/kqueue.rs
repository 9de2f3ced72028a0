//! The kqueue(2) back end of the selector, of the BSDs and macOS.
//!
//! All that is asked of the kernel goes through one function, [`Kernel::kevent`], and all that goes
//! in and out of it through [`KEvent`]. There are two of these pairs: that of the systems which
//! have the call, and a double on poll(2), by which this file is tested elsewhere.
//!
//! A queue has a filter for each direction of a descriptor, and reports each by itself. So what is
//! watched is remembered here: which filters stand, in order to change no more than has to be; the
//! token, as the 64 bits of one do not fit into `udata` where pointers have 32; and where in the
//! batch the other direction stands, so that a descriptor has one event.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::retry_interrupted;
use super::selector::{Event, Events, Interest};
use super::wake_fd::{Bell, Ring, WakeFd};

#[cfg(not(target_os = "linux"))]
mod kernel;
#[cfg(target_os = "linux")]
#[path = "kqueue/double.rs"]
mod kernel;

use kernel::{KEvent, Kernel};

/// What a [`KEvent`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// `EVFILT_READ`: bytes, connections or the end of the stream to read.
    Read,
    /// `EVFILT_WRITE`: room to write.
    Write,
    /// `EVFILT_USER`: triggered by the process itself.
    User,
    /// None of ours.
    Other,
}

/// What to do with a filter, and what it has come to: the same bits on every system, which
/// `kernel.rs` compares.
mod flag {
    /// Adds a filter, or changes what stands.
    pub(super) const ADD: u32 = 0x1;
    /// Takes it out.
    pub(super) const DELETE: u32 = 0x2;
    /// Reported once for each time that it happens, not for as long as it lasts.
    pub(super) const CLEAR: u32 = 0x20;
    /// Answers the change with an `ERROR` event, also if there was none, and with nothing else.
    pub(super) const RECEIPT: u32 = 0x40;
    /// `data` is the errno of the change, or 0.
    pub(super) const ERROR: u32 = 0x4000;
    /// The direction has ended; `fflags` is the error of the socket, or 0.
    pub(super) const EOF: u32 = 0x8000;
    /// In the `fflags` of a change: lets a `User` filter happen.
    pub(super) const TRIGGER: u32 = 0x0100_0000;
}

/// The filter of each direction.
const DIRECTIONS: [(Interest, Filter); 2] = [
    (Interest::READ, Filter::Read),
    (Interest::WRITE, Filter::Write),
];

/// The one `User` filter of a queue.
const WAKE: usize = 0;

/// The longest wait. Systems refuse timeouts far beyond that; the poller just waits again.
const TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// A queue, and what is watched by it.
#[derive(Debug)]
pub(super) struct Kqueue {
    kernel: Arc<Kernel>,
    /// By the number of the descriptor, up to the largest that was watched: the kernel gives the
    /// lowest free ones. 16 bytes each.
    watched: Vec<Watched>,
    /// As long as the capacity of the `Events` of the last wait.
    buffer: Vec<KEvent>,
    waker: Option<Waker>,
}

/// What is watched of one descriptor.
#[derive(Clone, Copy, Debug)]
struct Watched {
    token: u64,
    /// The place of its event in the last batch that had one; to be checked by the token.
    event: u32,
    /// The filters that stand: none for a descriptor that is not watched.
    interest: Interest,
}

const NOTHING: Watched = Watched {
    token: 0,
    event: 0,
    interest: Interest::NONE,
};

/// By what the queue is woken.
#[derive(Debug)]
enum Waker {
    /// Its `User` filter, reported under this token.
    Trigger(u64),
    /// A descriptor that it watches. Shared, so that it stays open for as long.
    Bell(Arc<Bell>),
}

/// Lets the `User` filter of a queue happen, from any thread.
#[derive(Debug)]
struct Trigger {
    kernel: Arc<Kernel>,
}

impl Ring for Trigger {
    fn ring(&self) {
        let trigger = KEvent::change(WAKE, Filter::User, 0, flag::TRIGGER);
        // The queue is ours and open, the filter stands, and no memory is asked for: a signal is
        // the only thing that can come in between, and to trigger twice is one event.
        let rung = retry_interrupted(|| self.kernel.kevent(&[trigger], &mut [], None));
        debug_assert!(rung.is_ok(), "{rung:?}");
    }
}

impl Kqueue {
    /// Opens a queue.
    pub(super) fn new() -> io::Result<Kqueue> {
        Ok(Kqueue::on(Kernel::new()?))
    }

    fn on(kernel: Kernel) -> Kqueue {
        Kqueue {
            kernel: Arc::new(kernel),
            watched: Vec::new(),
            buffer: Vec::new(),
            waker: None,
        }
    }

    /// See [`Selector::register`](super::Selector::register).
    pub(super) fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let number = fd.as_raw_fd() as usize;
        if self.watched.len() <= number {
            self.watched.resize(number + 1, NOTHING);
        }
        // To add what stands changes it, and is no error. Elsewhere it is one.
        if !self.watched[number].interest.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        self.watched[number].token = token;
        self.set(number, interest).inspect_err(|_| {
            // The first filter stands, the second was refused: nothing is to stand. If that fails
            // as well there is nothing to be taken out.
            let _ = self.set(number, Interest::NONE);
        })
    }

    /// See [`Selector::reregister`](super::Selector::reregister).
    pub(super) fn reregister(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let number = self.known(fd)?;
        self.set(number, interest)?;
        self.watched[number].token = token;
        Ok(())
    }

    /// See [`Selector::deregister`](super::Selector::deregister).
    pub(super) fn deregister(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let number = self.known(fd)?;
        let result = self.set(number, Interest::NONE);
        // It is about to be closed, which takes out what could not be taken out here; the next
        // descriptor of this number is another.
        self.watched[number].interest = Interest::NONE;
        result
    }

    /// The number of a descriptor that is watched.
    fn known(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let number = fd.as_raw_fd() as usize;
        match self.watched.get(number) {
            Some(watched) if !watched.interest.is_empty() => Ok(number),
            _ => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// Lets the filters of `wanted` stand, and no others. Each is added or taken out by itself, and
    /// what is remembered is what the kernel has answered.
    fn set(&mut self, number: usize, wanted: Interest) -> io::Result<()> {
        let standing = self.watched[number].interest;
        let mut changes = [KEvent::nothing(); 2];
        let mut len = 0;
        for (direction, filter) in DIRECTIONS {
            let action = match (standing.contains(direction), wanted.contains(direction)) {
                (false, true) => flag::ADD,
                (true, false) => flag::DELETE,
                _ => continue,
            };
            changes[len] = KEvent::change(number, filter, action | flag::RECEIPT, 0);
            len += 1;
        }
        if len == 0 {
            return Ok(());
        }
        let mut receipts = [KEvent::nothing(); 2];
        // With receipts to give the call does not wait, whatever the timeout.
        let given = self
            .kernel
            .kevent(&changes[..len], &mut receipts[..len], Some(Duration::ZERO));
        let given = match given {
            Ok(given) => &receipts[..given],
            // All changes have been made before a signal can cut the call short.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => &[],
            Err(error) => return Err(error),
        };
        let mut result = Ok(());
        let mut failed = Interest::NONE;
        for receipt in given {
            let errno = receipt.data();
            if receipt.flags() & flag::ERROR == 0 || errno == 0 {
                continue;
            }
            let direction = match receipt.filter() {
                Filter::Write => Interest::WRITE,
                _ => Interest::READ,
            };
            // An addition was refused. Or a filter could not be taken out: then it is not there,
            // for the descriptor was closed in between, which takes its filters out.
            failed = failed | direction;
            if wanted.contains(direction) || errno != i64::from(libc::ENOENT) {
                result = Err(io::Error::from_raw_os_error(errno as i32));
            }
        }
        self.watched[number].interest = DIRECTIONS
            .into_iter()
            .filter(|(direction, _)| wanted.contains(*direction) && !failed.contains(*direction))
            .fold(Interest::NONE, |set, (direction, _)| set | direction);
        result
    }

    /// See [`Selector::waker`](super::Selector::waker).
    ///
    /// A `User` filter where there is one. OpenBSD has them since 7.8 and NetBSD since 10; older
    /// ones refuse to add it, and there it is a pipe.
    pub(super) fn waker(&mut self, token: u64) -> io::Result<WakeFd> {
        let action = flag::ADD | flag::CLEAR | flag::RECEIPT;
        let add = KEvent::change(WAKE, Filter::User, action, 0);
        let mut receipt = [KEvent::nothing()];
        let given = self
            .kernel
            .kevent(&[add], &mut receipt, Some(Duration::ZERO))?;
        if given == 0 || receipt[0].data() == 0 {
            self.waker = Some(Waker::Trigger(token));
            let kernel = self.kernel.clone();
            return Ok(WakeFd::ringing(Arc::new(Trigger { kernel })));
        }
        let bell = Arc::new(Bell::new()?);
        self.register(bell.as_fd(), token, Interest::READ)?;
        self.waker = Some(Waker::Bell(bell.clone()));
        Ok(WakeFd::ringing(bell))
    }

    /// See [`Selector::wait`](super::Selector::wait).
    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.buffer.resize(events.capacity(), KEvent::nothing());
        // Not rounded: it is told in nanoseconds, and what a system rounds, it rounds up.
        let timeout = timeout.map(|timeout| timeout.min(TIMEOUT_MAX));
        let count = match self.kernel.kevent(&[], &mut self.buffer, timeout) {
            Ok(count) => count,
            // Not repeated: the timeout would start again from its beginning.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        events.clear();
        for at in 0..count {
            let event = self.buffer[at];
            self.collect(event, events);
        }
        Ok(())
    }

    /// Adds an event to the batch, or its direction to that of the same descriptor.
    fn collect(&mut self, event: KEvent, events: &mut Events) {
        let ready = match event.filter() {
            Filter::Read => read_ready(event),
            Filter::Write => write_ready(event),
            Filter::User => {
                if let Some(Waker::Trigger(token)) = self.waker {
                    events.push(Event::new(token, Interest::READ));
                }
                return;
            }
            Filter::Other => return,
        };
        if let Some(Waker::Bell(bell)) = &self.waker
            && bell.as_fd().as_raw_fd() as usize == event.ident()
        {
            // Before it is reported: no wake is lost, since who is woken looks for work after this.
            bell.silence();
        }
        let Some(watched) = self.watched.get_mut(event.ident()) else {
            return;
        };
        if watched.interest.is_empty() {
            return;
        }
        match events.list.get_mut(watched.event as usize) {
            Some(event) if event.token() == watched.token => event.ready = event.ready | ready,
            _ => {
                watched.event = events.len() as u32;
                events.push(Event::new(watched.token, ready));
            }
        }
    }
}

/// What is ready when the reading side says so.
///
/// The end of the stream is told as soon as the peer's FIN is here, with bytes still to read, and
/// for as long as our own half is open: that alone is no hang-up, and a read says it where it
/// belongs. With an error beside it, or where the kernel could not go on, nothing is left of the
/// other direction either.
fn read_ready(event: KEvent) -> Interest {
    let failed = event.flags() & flag::EOF != 0 && event.fflags() != 0;
    if failed || event.flags() & flag::ERROR != 0 {
        return Interest::READ | Interest::WRITE;
    }
    Interest::READ
}

/// What is ready when the writing side says so. Its end is a hang-up: whoever would read what we
/// write has gone.
fn write_ready(event: KEvent) -> Interest {
    if event.flags() & (flag::EOF | flag::ERROR) != 0 {
        return Interest::READ | Interest::WRITE;
    }
    Interest::WRITE
}

#[cfg(test)]
mod tests;

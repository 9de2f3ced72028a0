//! A double of kevent(2), on poll(2): it does what the manual pages of FreeBSD and macOS say, as far
//! as the selector makes use of it, and panics beyond that.
//!
//! - A change is made or answered with its error: into the list of events where there is room, else
//!   as the error of the call. With `RECEIPT` it is answered in any case. A call that has given
//!   such answers gives nothing else, and does not wait.
//! - `ADD` of what is there changes it. `DELETE` of what is not there is `ENOENT`.
//! - Closing a descriptor takes its filters out.
//! - Each filter is an event of its own. What was reported goes to the end of the queue. In which
//!   order a batch comes is not said; so every other one comes the other way round.
//! - `EOF` is told with bytes still to read, and with the error of the socket in `fflags`.
//! - A `User` filter with `CLEAR` is reported once for any number of triggers before.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, c_int, pollfd};

use super::super::selector::timeout_ms;
use super::super::wake_fd::{Bell, Ring};
use super::{Filter, flag};

/// A change to a queue, or what a queue reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct KEvent {
    ident: usize,
    filter: Filter,
    flags: u32,
    fflags: u32,
    data: i64,
}

impl KEvent {
    /// For a place that is not filled yet.
    pub(super) fn nothing() -> KEvent {
        KEvent::change(0, Filter::Other, 0, 0)
    }

    /// A change.
    pub(super) fn change(ident: usize, filter: Filter, flags: u32, fflags: u32) -> KEvent {
        KEvent {
            ident,
            filter,
            flags,
            fflags,
            data: 0,
        }
    }

    pub(super) fn ident(self) -> usize {
        self.ident
    }

    pub(super) fn filter(self) -> Filter {
        self.filter
    }

    pub(super) fn flags(self) -> u32 {
        self.flags
    }

    pub(super) fn fflags(self) -> u32 {
        self.fflags
    }

    pub(super) fn data(self) -> i64 {
        self.data
    }
}

/// A queue.
#[derive(Debug)]
pub(super) struct Kernel {
    state: Mutex<State>,
    /// Ends the poll(2) of a wait when another thread has changed something.
    changed: Bell,
}

#[derive(Debug)]
struct State {
    /// What was reported last is at the end.
    notes: VecDeque<Note>,
    /// Whether the next batch comes in the order of the queue.
    forwards: bool,
    /// Whether `User` filters can be added.
    user: bool,
    /// Empty: what a wait polls, kept for its room.
    polled: Vec<pollfd>,
    #[cfg(test)]
    seen: Seen,
}

/// For tests: what came in, and what is to go wrong.
#[cfg(test)]
#[derive(Debug, Default)]
struct Seen {
    changes: usize,
    longest: Duration,
    refused: Option<(Filter, c_int)>,
}

/// One filter.
#[derive(Debug)]
struct Note {
    ident: usize,
    filter: Filter,
    /// The file that the descriptor stood for.
    file: Option<File>,
    triggered: bool,
}

/// Which file a descriptor stands for: its device and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct File(u64, u64);

impl Kernel {
    pub(super) fn new() -> io::Result<Kernel> {
        Ok(Kernel {
            state: Mutex::new(State {
                notes: VecDeque::new(),
                forwards: true,
                user: true,
                polled: Vec::new(),
                #[cfg(test)]
                seen: Seen::default(),
            }),
            changed: Bell::new()?,
        })
    }

    /// That of a system without `User` filters.
    #[cfg(test)]
    pub(super) fn without_user() -> Kernel {
        let kernel = Kernel::new().unwrap();
        kernel.state().user = false;
        kernel
    }

    /// How many changes it was asked for.
    #[cfg(test)]
    pub(super) fn changes(&self) -> usize {
        self.state().seen.changes
    }

    /// The longest timeout of a wait.
    #[cfg(test)]
    pub(super) fn longest(&self) -> Duration {
        self.state().seen.longest
    }

    /// From here on a filter like this cannot be added.
    #[cfg(test)]
    pub(super) fn refuse(&self, filter: Filter, errno: c_int) {
        self.state().seen.refused = Some((filter, errno));
    }

    /// How many filters stand.
    #[cfg(test)]
    pub(super) fn filters(&self) -> usize {
        let mut state = self.state();
        state.forget_closed();
        state.notes.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One kevent(2).
    pub(super) fn kevent(
        &self,
        changes: &[KEvent],
        events: &mut [KEvent],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let answers = self.state().change(changes, events);
        if !changes.is_empty() {
            self.changed.ring();
        }
        let answers = answers?;
        if answers > 0 || events.is_empty() {
            return Ok(answers);
        }
        #[cfg(test)]
        if let Some(timeout) = timeout {
            let longest = &mut self.state().seen.longest;
            *longest = timeout.max(*longest);
        }
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let mut state = self.state();
            state.forget_closed();
            let count = state.report(events);
            if count > 0 {
                return Ok(count);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(0);
            }
            let mut polled = mem::take(&mut state.polled);
            polled.extend(state.notes.iter().filter_map(Note::polled));
            drop(state);
            polled.push(pollfd {
                fd: self.changed.as_fd().as_raw_fd(),
                events: POLLIN,
                revents: 0,
            });
            let waited = poll(&mut polled, left);
            polled.clear();
            self.state().polled = polled;
            waited?;
            self.changed.silence();
        }
    }
}

impl State {
    /// Makes the changes; how many answers it gave.
    fn change(&mut self, changes: &[KEvent], events: &mut [KEvent]) -> io::Result<usize> {
        self.forget_closed();
        let mut answers = 0;
        for change in changes {
            let errno = self.make(*change).err().unwrap_or(0);
            if errno == 0 && change.flags & flag::RECEIPT == 0 {
                continue;
            }
            let Some(place) = events.get_mut(answers) else {
                if errno == 0 {
                    // No room for the receipt: what follows is not looked at.
                    break;
                }
                return Err(io::Error::from_raw_os_error(errno));
            };
            *place = KEvent {
                flags: flag::ERROR,
                data: i64::from(errno),
                ..*change
            };
            answers += 1;
        }
        Ok(answers)
    }

    /// Makes one change, or says its errno.
    fn make(&mut self, change: KEvent) -> Result<(), c_int> {
        let KEvent { ident, filter, .. } = change;
        #[cfg(test)]
        {
            self.seen.changes += 1;
            if change.flags & flag::ADD != 0
                && let Some((refused, errno)) = self.seen.refused
                && refused == filter
            {
                return Err(errno);
            }
        }
        let place = |note: &Note| note.ident == ident && note.filter == filter;
        let found = self.notes.iter().position(place);
        let file = match filter {
            Filter::User if !self.user => return Err(libc::EINVAL),
            Filter::User => None,
            Filter::Read | Filter::Write => Some(file_of(ident as c_int).ok_or(libc::EBADF)?),
            Filter::Other => return Err(libc::EINVAL),
        };
        let clears = change.flags & flag::CLEAR != 0;
        match (change.flags & flag::ADD != 0, found) {
            (true, None) => {
                assert_eq!(clears, filter == Filter::User, "the double cannot do that");
                self.notes.push_back(Note {
                    ident,
                    filter,
                    file,
                    triggered: change.fflags & flag::TRIGGER != 0,
                });
            }
            (_, None) => return Err(libc::ENOENT),
            (_, Some(at)) if change.flags & flag::DELETE != 0 => drop(self.notes.remove(at)),
            (_, Some(at)) => self.notes[at].triggered |= change.fflags & flag::TRIGGER != 0,
        }
        Ok(())
    }

    /// Takes out the filters of descriptors that were closed.
    fn forget_closed(&mut self) {
        self.notes
            .retain(|note| note.file.is_none() || note.file == file_of(note.ident as c_int));
    }

    /// Reports what is ready, as far as there is room.
    fn report(&mut self, events: &mut [KEvent]) -> usize {
        let mut count = 0;
        for _ in 0..self.notes.len() {
            if count == events.len() {
                break;
            }
            let mut note = self.notes.pop_front().expect("as many as there are");
            if let Some(event) = note.event() {
                note.triggered = false;
                events[count] = event;
                count += 1;
            }
            self.notes.push_back(note);
        }
        if !self.forwards {
            events[..count].reverse();
        }
        self.forwards ^= count > 0;
        count
    }
}

impl Note {
    fn polled(&self) -> Option<pollfd> {
        let events = match self.filter {
            Filter::Read => POLLIN | POLLRDHUP,
            Filter::Write => POLLOUT,
            Filter::User | Filter::Other => return None,
        };
        Some(pollfd {
            fd: self.ident as c_int,
            events,
            revents: 0,
        })
    }

    /// What there is to report of it.
    fn event(&self) -> Option<KEvent> {
        let mut event = KEvent::change(self.ident, self.filter, 0, 0);
        let Some(polled) = self.polled() else {
            return self.triggered.then_some(event);
        };
        let mut polled = [polled];
        poll(&mut polled, Some(Duration::ZERO)).expect("a poll of one descriptor");
        let found = polled[0].revents;
        if found == 0 {
            return None;
        }
        let ended = match self.filter {
            Filter::Read => POLLRDHUP | POLLHUP | POLLERR,
            _ => POLLHUP | POLLERR,
        };
        if found & ended != 0 {
            event.flags |= flag::EOF;
        }
        if found & POLLERR != 0 {
            // Some error: to ask the socket for its own would take it away from the next read.
            event.fflags = libc::ECONNRESET as u32;
        }
        event.data = bytes_waiting(self.ident as c_int);
        Some(event)
    }
}

/// Which file a descriptor stands for, if it is open.
fn file_of(fd: c_int) -> Option<File> {
    // SAFETY: made of integers alone, for which zero is a valid value.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: `stat` is writable for the length of the call.
    unsafe { syscall!(fstat(fd, &raw mut stat)) }.ok()?;
    Some(File(stat.st_dev, stat.st_ino))
}

/// How many bytes can be read; 1 for a listener, which has none.
fn bytes_waiting(fd: c_int) -> i64 {
    let mut bytes: c_int = 0;
    // SAFETY: `bytes` is writable for the length of the call.
    match unsafe { syscall!(ioctl(fd, libc::FIONREAD, &raw mut bytes)) } {
        Ok(_) => i64::from(bytes),
        Err(_) => 1,
    }
}

fn poll(polled: &mut [pollfd], timeout: Option<Duration>) -> io::Result<()> {
    // SAFETY: `polled` is writable for its length, and borrowed for the whole call.
    unsafe {
        syscall!(poll(
            polled.as_mut_ptr(),
            polled.len() as libc::nfds_t,
            timeout_ms(timeout)
        ))
    }?;
    Ok(())
}

//! kevent(2) of the systems that have it.
//!
//! They differ in the types of the fields (NetBSD) and in what else the structure holds (FreeBSD);
//! names and bits are the same.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use super::{Filter, flag};

const _: () = {
    assert!(flag::ADD == libc::EV_ADD as u32);
    assert!(flag::DELETE == libc::EV_DELETE as u32);
    assert!(flag::CLEAR == libc::EV_CLEAR as u32);
    assert!(flag::RECEIPT == libc::EV_RECEIPT as u32);
    assert!(flag::ERROR == libc::EV_ERROR as u32);
    assert!(flag::EOF == libc::EV_EOF as u32);
    assert!(flag::TRIGGER == libc::NOTE_TRIGGER);
};

/// A change to a queue, or what a queue reports.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct KEvent(libc::kevent);

// SAFETY: the pointer in it, `udata`, is null and never looked at.
unsafe impl Send for KEvent {}

impl KEvent {
    /// For a place that is not filled yet.
    pub(super) fn nothing() -> KEvent {
        // SAFETY: made of integers and pointers alone, for which zero is a valid value.
        KEvent(unsafe { mem::zeroed() })
    }

    /// A change.
    pub(super) fn change(ident: usize, filter: Filter, flags: u32, fflags: u32) -> KEvent {
        let mut change = KEvent::nothing();
        change.0.ident = ident as _;
        change.0.filter = match filter {
            Filter::Read => libc::EVFILT_READ,
            Filter::Write => libc::EVFILT_WRITE,
            Filter::User => libc::EVFILT_USER,
            Filter::Other => unreachable!("nobody asks for it"),
        };
        change.0.flags = flags as _;
        change.0.fflags = fflags as _;
        change
    }

    /// Whose it is: the number of a descriptor, or that of a `User` filter.
    pub(super) fn ident(self) -> usize {
        self.0.ident as usize
    }

    pub(super) fn filter(self) -> Filter {
        match self.0.filter {
            libc::EVFILT_READ => Filter::Read,
            libc::EVFILT_WRITE => Filter::Write,
            libc::EVFILT_USER => Filter::User,
            _ => Filter::Other,
        }
    }

    pub(super) fn flags(self) -> u32 {
        u32::from(self.0.flags)
    }

    pub(super) fn fflags(self) -> u32 {
        self.0.fflags
    }

    pub(super) fn data(self) -> i64 {
        self.0.data as i64
    }
}

impl std::fmt::Debug for KEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KEvent")
            .field("ident", &self.ident())
            .field("filter", &self.filter())
            .field("flags", &self.flags())
            .field("fflags", &self.fflags())
            .field("data", &self.data())
            .finish()
    }
}

/// A queue of the kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    fd: OwnedFd,
}

impl Kernel {
    /// Opens one.
    pub(super) fn new() -> io::Result<Kernel> {
        // SAFETY: takes no pointer.
        let fd = unsafe { syscall!(kqueue()) }?;
        // SAFETY: the call has just made the descriptor, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // No child has it by fork; an exec without one would.
        // SAFETY: takes no pointer.
        unsafe { syscall!(fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC)) }?;
        Ok(Kernel { fd })
    }

    /// One kevent(2): makes the changes, then waits for events and says how many there are. `None`
    /// waits for ever; with no room for events it does not wait.
    pub(super) fn kevent(
        &self,
        changes: &[KEvent],
        events: &mut [KEvent],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let timeout = timeout.map(|timeout| {
            // SAFETY: made of integers alone, for which zero is a valid value.
            let mut spec: libc::timespec = unsafe { mem::zeroed() };
            spec.tv_sec = timeout.as_secs() as _;
            spec.tv_nsec = timeout.subsec_nanos() as _;
            spec
        });
        // SAFETY: both lists are valid for the lengths that are told, of the type that the kernel
        // has for them, and borrowed for the whole call, as is the timeout.
        let count = unsafe {
            syscall!(kevent(
                self.fd.as_raw_fd(),
                changes.as_ptr().cast(),
                changes.len() as _,
                events.as_mut_ptr().cast(),
                events.len() as _,
                timeout.as_ref().map_or(ptr::null(), ptr::from_ref),
            ))
        }?;
        Ok(count as usize)
    }
}

//! A socket that has left its actor.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use bytes::Bytes;

use crate::adopt::{Adoptable, Carried, Moving};
use crate::sys::descriptor;
use crate::sys::{Endpoint, Peer, Socket, Source};

/// A socket that was taken out of its actor by [`Context::detach`](crate::Context::detach), with
/// what was under way on it. Dropping it closes the connection: by a reset where it came with bytes
/// that are not written, or the peer would take those before them for all there are.
///
/// To go on with it in this or another system, [`Handle::adopt`](crate::Handle::adopt) it: nothing
/// is lost. To send it to another process, send the descriptor and both pieces of bytes: taken out by
/// [`into_fd`](Detached::into_fd), since the reset would be that of its duplicates, too.
#[derive(Debug)]
#[non_exhaustive]
pub struct Detached {
    socket: Moving,
    write_shut: bool,
    /// Bytes that were read from the socket and not consumed by the actor. What the kernel still
    /// holds comes behind them.
    pub unread: Bytes,
    /// Bytes that the actor wrote and the kernel has not taken: to be sent before anything else.
    pub unwritten: Bytes,
    /// Who is at the other end, as the actor saw it: the client of a
    /// [proxy](crate::ListenOptions::proxy_protocol).
    pub peer: Peer,
    /// Our side's address; `None` where the kernel would not say.
    pub local: Option<Endpoint>,
}

impl Detached {
    pub(crate) fn new(
        socket: Socket,
        carried: Carried,
        peer: Peer,
        local: Option<Endpoint>,
    ) -> Detached {
        Detached {
            socket: Moving::new(socket, &carried.unwritten),
            write_shut: carried.write_shut,
            unread: carried.unread,
            unwritten: carried.unwritten,
            peer,
            local,
        }
    }

    /// Whether the actor had asked for a [half-close](crate::Context::shutdown_write): behind
    /// `unwritten` the writing side is to be shut down (again, if it was: that is harmless).
    pub fn is_write_shut(&self) -> bool {
        self.write_shut
    }

    /// The descriptor; `None` for a socket of a [simulation](crate::testing::Simulation) or a
    /// [stage](crate::testing::Stage), which has none.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self.socket.source() {
            Source::Fd(fd) => Some(fd),
            Source::Simulated(_) => None,
        }
    }

    /// Sets whether reads and writes wait (`false`), as std's types expect, or fail with
    /// `WouldBlock` (`true`), which is how a poller leaves it.
    ///
    /// # Errors
    ///
    /// Those of fcntl(2); and for a simulated socket, which cannot wait.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self.as_fd() {
            Some(fd) => descriptor::set_nonblocking(fd, nonblocking),
            None => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "set_nonblocking: a simulated socket has no descriptor",
            )),
        }
    }

    /// The descriptor, non-blocking, without the bytes: take those out before.
    ///
    /// # Errors
    ///
    /// For a simulated socket, which has no descriptor. It comes back in the error.
    pub fn into_fd(self) -> Result<OwnedFd, DetachedError> {
        let Detached {
            socket,
            write_shut,
            unread,
            unwritten,
            peer,
            local,
        } = self;
        socket.into_fd().map_err(|socket| DetachedError {
            kind: DetachedErrorKind::Simulated,
            detached: Box::new(Detached {
                socket,
                write_shut,
                unread,
                unwritten,
                peer,
                local,
            }),
        })
    }

    /// As std's type, non-blocking (see [`set_nonblocking`](Detached::set_nonblocking)), without
    /// the bytes: take those out before.
    ///
    /// # Errors
    ///
    /// For a Unix socket, and as [`into_fd`](Detached::into_fd). It comes back in the error.
    pub fn into_tcp_stream(self) -> Result<TcpStream, DetachedError> {
        match self.is_unix() {
            Some(true) => Err(self.wrong_kind(DetachedErrorKind::NotTcp)),
            _ => self.into_fd().map(TcpStream::from),
        }
    }

    /// As std's type, non-blocking (see [`set_nonblocking`](Detached::set_nonblocking)), without
    /// the bytes: take those out before.
    ///
    /// # Errors
    ///
    /// For a TCP socket, and as [`into_fd`](Detached::into_fd). It comes back in the error.
    pub fn into_unix_stream(self) -> Result<UnixStream, DetachedError> {
        match self.is_unix() {
            Some(false) => Err(self.wrong_kind(DetachedErrorKind::NotUnix)),
            _ => self.into_fd().map(UnixStream::from),
        }
    }

    /// Not by the peer, which a proxy may have named.
    fn is_unix(&self) -> Option<bool> {
        self.as_fd().map(descriptor::is_unix)
    }

    fn wrong_kind(self, kind: DetachedErrorKind) -> DetachedError {
        DetachedError {
            kind,
            detached: Box::new(self),
        }
    }
}

impl From<Detached> for Adoptable {
    fn from(detached: Detached) -> Adoptable {
        Adoptable {
            socket: detached.socket,
            peer: Some(detached.peer),
            carried: Carried {
                unread: detached.unread,
                unwritten: detached.unwritten,
                write_shut: detached.write_shut,
            },
        }
    }
}

/// A [`Detached`] is of another kind than was asked for; it is given back.
#[derive(Debug)]
pub struct DetachedError {
    kind: DetachedErrorKind,
    detached: Box<Detached>,
}

#[derive(Debug, Clone, Copy)]
enum DetachedErrorKind {
    Simulated,
    NotTcp,
    NotUnix,
}

impl DetachedError {
    /// What was not turned into something else.
    pub fn into_detached(self) -> Detached {
        *self.detached
    }
}

impl fmt::Display for DetachedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            DetachedErrorKind::Simulated => {
                "into_fd: a simulated socket has no descriptor; adopt it in the same simulation"
            }
            DetachedErrorKind::NotTcp => {
                "into_tcp_stream: it is a unix socket; use into_unix_stream"
            }
            DetachedErrorKind::NotUnix => {
                "into_unix_stream: it is a TCP socket; use into_tcp_stream"
            }
        })
    }
}

impl Error for DetachedError {}

//! What may be wrong with a socket that is to come or to leave.

use std::error::Error;
use std::fmt;
use std::io;

use crate::adopt::Adoptable;

/// Why [`Context::detach`](crate::Context::detach) was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DetachError {
    /// The actor has no socket: it was spawned, or this is [`closed`](crate::Actor::closed).
    NoSocket,
    /// This callback has asked for the end of the connection before.
    Closing,
    /// This callback has asked for it before.
    Twice,
    /// The socket is not a stream.
    NotAStream,
    /// The connection is under TLS: whoever got the socket could make nothing of what is on it.
    Secured,
}

impl fmt::Display for DetachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DetachError::NoSocket => "detach: this actor has no socket",
            DetachError::Closing => "detach: this callback has closed the connection before",
            DetachError::Twice => "detach: this callback has detached the socket before",
            DetachError::NotAStream => "detach: only a stream can be detached",
            DetachError::Secured => "detach: a connection under TLS cannot be detached",
        })
    }
}

impl Error for DetachError {}

/// A socket was not adopted, or a descriptor not watched. It is given back.
#[derive(Debug)]
pub struct AdoptError {
    operation: &'static str,
    kind: AdoptErrorKind,
    socket: Option<Box<Adoptable>>,
}

/// What is wrong with a socket that was to be adopted, or a descriptor that was to be watched.
#[derive(Debug)]
#[non_exhaustive]
pub enum AdoptErrorKind {
    /// The descriptor is no socket, but this: "a pipe", "a regular file".
    NoSocket(&'static str),
    /// It listens: `System::listen_from` takes it.
    Listening,
    /// It is not connected: not yet, or not any more.
    NotConnected,
    /// It is a datagram socket, which has no stream that bytes could be put in front of.
    Datagram,
    /// It is a socket of a family or type that has no peers as this crate knows them (neither TCP
    /// nor a Unix stream).
    OtherSocket,
    /// It can be adopted neither nor watched, as it is always ready: "a regular file".
    NotPollable(&'static str),
    /// It is a real socket in a [simulated](crate::testing::Simulation) system, or a simulated one
    /// in a real system.
    OtherWorld,
    /// The system stops.
    Stopped,
    /// The kernel refused a look at it, or to make it non-blocking.
    Io(io::Error),
}

impl AdoptError {
    /// `operation` is `adopt` or `watch`.
    pub(crate) fn new(
        operation: &'static str,
        kind: AdoptErrorKind,
        socket: Option<Adoptable>,
    ) -> AdoptError {
        let socket = socket.map(Box::new);
        AdoptError {
            operation,
            kind,
            socket,
        }
    }

    /// The socket goes, with what came with it.
    pub(crate) fn without_socket(mut self) -> AdoptError {
        self.socket = None;
        self
    }

    /// The same without the socket.
    pub(crate) fn copy(&self) -> AdoptError {
        let kind = match &self.kind {
            AdoptErrorKind::NoSocket(what) => AdoptErrorKind::NoSocket(what),
            AdoptErrorKind::Listening => AdoptErrorKind::Listening,
            AdoptErrorKind::NotConnected => AdoptErrorKind::NotConnected,
            AdoptErrorKind::Datagram => AdoptErrorKind::Datagram,
            AdoptErrorKind::OtherSocket => AdoptErrorKind::OtherSocket,
            AdoptErrorKind::NotPollable(what) => AdoptErrorKind::NotPollable(what),
            AdoptErrorKind::OtherWorld => AdoptErrorKind::OtherWorld,
            AdoptErrorKind::Stopped => AdoptErrorKind::Stopped,
            AdoptErrorKind::Io(error) => AdoptErrorKind::Io(match error.raw_os_error() {
                Some(errno) => io::Error::from_raw_os_error(errno),
                None => io::Error::new(error.kind(), error.to_string()),
            }),
        };
        AdoptError::new(self.operation, kind, None)
    }

    /// What is wrong.
    pub fn kind(&self) -> &AdoptErrorKind {
        &self.kind
    }

    /// The socket, with all that came with it, or the descriptor. `None` only where the actor was
    /// given with it ([`Context::adopt`](crate::Context::adopt)): both have gone.
    pub fn into_socket(self) -> Option<Adoptable> {
        self.socket.map(|socket| *socket)
    }
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        match &self.kind {
            AdoptErrorKind::NoSocket(what) => write!(
                f,
                "the descriptor is {what}, not a socket; to be told when it is ready, watch it"
            ),
            AdoptErrorKind::Listening => f.write_str("the socket listens; use listen_from"),
            AdoptErrorKind::NotConnected => f.write_str("the socket is not connected"),
            AdoptErrorKind::Datagram => f.write_str(
                "it is a datagram socket, which has no stream to put bytes in front of",
            ),
            AdoptErrorKind::OtherSocket => {
                f.write_str("the socket is neither TCP nor a unix stream")
            }
            AdoptErrorKind::NotPollable(what) => write!(
                f,
                "the descriptor is {what}, which is always ready and cannot be watched; read it on a thread of its own"
            ),
            AdoptErrorKind::OtherWorld => f.write_str(
                "a real socket does not fit into a simulated system, nor a simulated one into a real system",
            ),
            AdoptErrorKind::Stopped => f.write_str("the system has stopped"),
            AdoptErrorKind::Io(error) => error.fmt(f),
        }
    }
}

impl Error for AdoptError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            AdoptErrorKind::Io(error) => Some(error),
            _ => None,
        }
    }
}

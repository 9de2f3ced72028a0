//! Sockets that come from elsewhere, and those that leave: what is handed over with them, and what
//! may be wrong with them.

mod detached;
mod error;
mod handle;

use std::fmt;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::call::Hosted;
use crate::datagram::DatagramOptions;
use crate::origin::{ConnectionOptions, Origin};
use crate::sys::descriptor::{self, Found, Ready};
use crate::sys::{DatagramSocket, Interest, Peer, Socket, Source};

pub use detached::{Detached, DetachedError};
pub use error::{AdoptError, AdoptErrorKind, DetachError};

/// A socket that can be given to an actor: made from an [`OwnedFd`], from what std has (`TcpStream`,
/// `UnixStream`, `UdpSocket`, `UnixDatagram`), or from a [`Detached`], with all that was under way on
/// it.
#[derive(Debug)]
pub struct Adoptable {
    socket: Moving,
    /// Who is at the other end, where that is known already.
    peer: Option<Peer>,
    carried: Carried,
}

/// What comes with a socket besides itself.
#[derive(Debug, Default, Clone)]
pub(crate) struct Carried {
    /// Shown to the actor in front of what the socket yields.
    pub(crate) unread: Bytes,
    /// Sent in front of what the actor writes.
    pub(crate) unwritten: Bytes,
    /// The writing side is shut down behind it.
    pub(crate) write_shut: bool,
}

/// A socket that is nobody's at the moment. Dropped while something is unwritten it is reset: after an
/// orderly end its peer would take what it has for all there is.
#[derive(Debug)]
pub(crate) struct Moving {
    /// `None` once somebody has it.
    socket: Option<Socket>,
    is_cut: bool,
}

impl Moving {
    fn new(socket: Socket, unwritten: &Bytes) -> Moving {
        Moving {
            socket: Some(socket),
            is_cut: !unwritten.is_empty(),
        }
    }

    pub(crate) fn source(&self) -> Source<'_> {
        let socket = self.socket.as_ref();
        socket.expect("it is there until it is taken").source()
    }

    /// Somebody has it, and what is unwritten.
    pub(crate) fn into_socket(mut self) -> Socket {
        self.socket.take().expect("it is taken once")
    }

    fn into_fd(self) -> Result<OwnedFd, Moving> {
        let is_cut = self.is_cut;
        self.into_socket().into_fd().map_err(|socket| Moving {
            socket: Some(socket),
            is_cut,
        })
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take()
            && self.is_cut
        {
            socket.abort();
        }
    }
}

impl Adoptable {
    /// The descriptor, without what came with it. A socket of a
    /// [simulation](crate::testing::Simulation) has none, and comes back.
    pub fn into_fd(self) -> Result<OwnedFd, Adoptable> {
        let Adoptable {
            socket,
            peer,
            carried,
        } = self;
        socket.into_fd().map_err(|socket| Adoptable {
            socket,
            peer,
            carried,
        })
    }

    /// Looks at it and prepares it; an error gives it back.
    pub(crate) fn prepare(
        self,
        options: &AdoptOptions,
        is_simulated: bool,
    ) -> Result<Given, AdoptError> {
        let peer = match self.look(options, is_simulated) {
            Ok(Looked::Stream(peer)) => peer,
            Ok(Looked::Datagrams(socket, options)) => return Ok(Given::Datagrams(socket, options)),
            Err(kind) => return Err(AdoptError::new("adopt", kind, Some(self))),
        };
        let Adoptable {
            socket, carried, ..
        } = self;
        let carried = Carried {
            unread: joined(carried.unread, &options.unread),
            unwritten: joined(carried.unwritten, &options.unwritten),
            write_shut: carried.write_shut,
        };
        Ok(Given::Stream(Prepared {
            socket: Moving::new(socket.into_socket(), &carried.unwritten),
            peer,
            carried,
        }))
    }

    /// Looks whether it can be watched; an error gives it back.
    pub(crate) fn prepare_to_watch(self, is_simulated: bool) -> Result<Socket, AdoptError> {
        let look = || {
            let fd = match self.socket.source() {
                Source::Fd(fd) if !is_simulated => fd,
                _ => return Err(AdoptErrorKind::OtherWorld),
            };
            descriptor::set_cloexec(fd).map_err(AdoptErrorKind::Io)?;
            match descriptor::unpollable(fd).map_err(AdoptErrorKind::Io)? {
                Some(what) => Err(AdoptErrorKind::NotPollable(what)),
                None => Ok(()),
            }
        };
        match look() {
            Ok(()) => Ok(self.socket.into_socket()),
            Err(kind) => Err(AdoptError::new("watch", kind, Some(self))),
        }
    }

    fn look(&self, options: &AdoptOptions, is_simulated: bool) -> Result<Looked, AdoptErrorKind> {
        let fd = match (self.socket.source(), self.peer) {
            (Source::Simulated(_), Some(peer)) => return Ok(Looked::Stream(peer)),
            (Source::Simulated(_), None) => return Err(AdoptErrorKind::NotConnected),
            (Source::Fd(_), _) if is_simulated => return Err(AdoptErrorKind::OtherWorld),
            (Source::Fd(fd), _) => fd,
        };
        let look = || {
            let found = descriptor::find(fd)?;
            // What is refused stays as it is: others may share it.
            if matches!(found, Found::Stream(_) | Found::Datagram) || self.peer.is_some() {
                descriptor::set_cloexec(fd)?;
                descriptor::set_nonblocking(fd, true)?;
                descriptor::clear_linger(fd);
            }
            Ok(found)
        };
        match (look().map_err(AdoptErrorKind::Io)?, self.peer) {
            // Behind a proxy its actor had it under the client's address, which the kernel never knew.
            (Found::Stream(peer), known) => Ok(Looked::Stream(known.unwrap_or(peer))),
            // It was connected when its actor had it: whatever has happened since, the next one is
            // told when it reads.
            (Found::NotConnected, Some(peer)) => Ok(Looked::Stream(peer)),
            (Found::NotConnected, None) => Err(AdoptErrorKind::NotConnected),
            (Found::Listening, _) => Err(AdoptErrorKind::Listening),
            (Found::Datagram, _) if !options.unread.is_empty() || !options.unwritten.is_empty() => {
                Err(AdoptErrorKind::Datagram)
            }
            (Found::Datagram, _) => {
                let options = options.datagrams.clone();
                let taken = DatagramSocket::take_over(fd, &options.how(1));
                Ok(Looked::Datagrams(
                    taken.map_err(AdoptErrorKind::Io)?,
                    options,
                ))
            }
            (Found::OtherSocket, _) => Err(AdoptErrorKind::OtherSocket),
            (Found::NoSocket(what), _) => Err(AdoptErrorKind::NoSocket(what)),
        }
    }
}

impl From<OwnedFd> for Adoptable {
    fn from(fd: OwnedFd) -> Adoptable {
        Adoptable {
            socket: Moving::new(fd.into(), &Bytes::new()),
            peer: None,
            carried: Carried::default(),
        }
    }
}

impl From<TcpStream> for Adoptable {
    fn from(stream: TcpStream) -> Adoptable {
        OwnedFd::from(stream).into()
    }
}

impl From<UdpSocket> for Adoptable {
    fn from(socket: UdpSocket) -> Adoptable {
        OwnedFd::from(socket).into()
    }
}

impl From<UnixDatagram> for Adoptable {
    fn from(socket: UnixDatagram) -> Adoptable {
        OwnedFd::from(socket).into()
    }
}

impl From<UnixStream> for Adoptable {
    fn from(stream: UnixStream) -> Adoptable {
        OwnedFd::from(stream).into()
    }
}

/// One behind the other; copied only where both are there.
fn joined(first: Bytes, second: &Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        (_, true) => first,
        (true, _) => second.clone(),
        _ => {
            let mut both = BytesMut::with_capacity(first.len() + second.len());
            both.extend_from_slice(&first);
            both.extend_from_slice(second);
            both.freeze()
        }
    }
}

/// What a socket turned out to be.
enum Looked {
    Stream(Peer),
    /// A duplicate, that is all that is needed.
    Datagrams(DatagramSocket, DatagramOptions),
}

/// A socket that was looked at.
pub(crate) enum Given {
    Stream(Prepared),
    Datagrams(DatagramSocket, DatagramOptions),
}

/// A stream that was looked at.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) socket: Moving,
    pub(crate) peer: Peer,
    pub(crate) carried: Carried,
}

/// A socket on its way to a poller, and what makes its actor there. It is counted in the poller's
/// door and in its origin.
pub(crate) struct Adoption {
    pub(crate) make: Box<dyn FnOnce() -> Box<dyn Hosted> + Send>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) socket: Prepared,
}

/// A descriptor on its way to a poller, and what makes its actor there.
pub(crate) struct Watching {
    pub(crate) make: Box<dyn FnOnce() -> Box<dyn Hosted> + Send>,
    pub(crate) descriptor: Socket,
    pub(crate) interest: Interest,
}

/// What a watched descriptor is ready for: told by [`Actor::ready`](crate::Actor::ready).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Readiness(pub(crate) Ready);

impl Readiness {
    /// There is something to read, or the end. Only where [`Interest::READ`] was asked for.
    pub fn is_readable(&self) -> bool {
        self.0.readable
    }

    /// There is room to write. Only where [`Interest::WRITE`] was asked for.
    pub fn is_writable(&self) -> bool {
        self.0.writable
    }

    /// The other side has gone, or there is an error, which a read or write tells. Told also where
    /// it was not asked for. There may be something left to read.
    pub fn is_hung_up(&self) -> bool {
        self.0.hung_up
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("readable", &self.0.readable)
            .field("writable", &self.0.writable)
            .field("hung_up", &self.0.hung_up)
            .finish()
    }
}

/// How a socket is adopted: [all defaults and their reasons](crate#defaults).
#[derive(Debug, Clone, Default)]
pub struct AdoptOptions {
    pub(crate) connection: ConnectionOptions,
    unread: Bytes,
    unwritten: Bytes,
    datagrams: DatagramOptions,
}

impl AdoptOptions {
    /// The defaults.
    pub fn new() -> AdoptOptions {
        AdoptOptions::default()
    }

    /// The limits that the connection lives under, but for
    /// [`first_bytes_timeout`](ConnectionOptions::first_bytes_timeout): it is not a new one.
    pub fn connection(mut self, options: ConnectionOptions) -> Self {
        self.connection = options;
        self
    }

    /// How a datagram socket is treated, its options at run time included. It is one socket, bound
    /// and connected as it is: what [`DatagramOptions`] say of that does not count.
    pub fn datagrams(mut self, options: DatagramOptions) -> Self {
        self.datagrams = options;
        self
    }

    /// Bytes that were read from the socket before: the actor is shown them in front of what the
    /// socket yields. By default none. (A [`Detached`] brings its own; these come behind them.)
    pub fn unread(mut self, bytes: impl Into<Bytes>) -> Self {
        self.unread = bytes.into();
        self
    }

    /// Bytes that were written before and not taken by the kernel: they leave in front of what the
    /// actor writes. By default none. (A [`Detached`] brings its own; these come behind them.)
    pub fn unwritten(mut self, bytes: impl Into<Bytes>) -> Self {
        self.unwritten = bytes.into();
        self
    }
}

//! Sockets that come from elsewhere, and those that leave: what is handed over with them, and what
//! may be wrong with them.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};

use crate::actor::Actor;
use crate::addr::{Addr, Control};
use crate::call::Hosted;
use crate::handle::Handle;
use crate::origin::{ConnectionOptions, Origin};
use crate::sys::descriptor::{self, Found, Ready};
use crate::sys::{Endpoint, Interest, Peer, Socket, Source};

/// A socket that can be given to an actor: made from an [`OwnedFd`], from what std has (`TcpStream`,
/// `UnixStream`), or from a [`Detached`], with all that was under way on it.
#[derive(Debug)]
pub struct Adoptable {
    socket: Socket,
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
    ) -> Result<Prepared, AdoptError> {
        let peer = match self.look(is_simulated) {
            Ok(peer) => peer,
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
        Ok(Prepared {
            socket,
            peer,
            carried,
        })
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
            Ok(()) => Ok(self.socket),
            Err(kind) => Err(AdoptError::new("watch", kind, Some(self))),
        }
    }

    fn look(&self, is_simulated: bool) -> Result<Peer, AdoptErrorKind> {
        let fd = match (self.socket.source(), self.peer) {
            (Source::Simulated(_), Some(peer)) => return Ok(peer),
            (Source::Simulated(_), None) => return Err(AdoptErrorKind::NotConnected),
            (Source::Fd(_), _) if is_simulated => return Err(AdoptErrorKind::OtherWorld),
            (Source::Fd(fd), _) => fd,
        };
        let look = || {
            let found = descriptor::find(fd)?;
            descriptor::set_cloexec(fd)?;
            descriptor::set_nonblocking(fd, true)?;
            Ok(found)
        };
        match (look().map_err(AdoptErrorKind::Io)?, self.peer) {
            (Found::Stream(peer), _) => Ok(peer),
            // It was connected when its actor had it: whatever has happened since, the next one is
            // told when it reads.
            (Found::NotConnected, Some(peer)) => Ok(peer),
            (Found::NotConnected, None) => Err(AdoptErrorKind::NotConnected),
            (Found::Listening, _) => Err(AdoptErrorKind::Listening),
            (Found::Datagram, _) => Err(AdoptErrorKind::Datagram),
            (Found::OtherSocket, _) => Err(AdoptErrorKind::OtherSocket),
            (Found::NoSocket(what), _) => Err(AdoptErrorKind::NoSocket(what)),
        }
    }
}

impl From<OwnedFd> for Adoptable {
    fn from(fd: OwnedFd) -> Adoptable {
        Adoptable {
            socket: fd.into(),
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

impl From<UnixStream> for Adoptable {
    fn from(stream: UnixStream) -> Adoptable {
        OwnedFd::from(stream).into()
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

/// A socket that was looked at.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) socket: Socket,
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
}

impl AdoptOptions {
    /// The defaults.
    pub fn new() -> AdoptOptions {
        AdoptOptions::default()
    }

    /// The limits that the connection lives under.
    pub fn connection(mut self, options: ConnectionOptions) -> Self {
        self.connection = options;
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

/// A socket that was taken out of its actor by [`Context::detach`](crate::Context::detach), with
/// what was under way on it. Dropping it closes the connection.
///
/// To go on with it in this or another system, [`Handle::adopt`](crate::Handle::adopt) it: nothing
/// is lost. To send it to another process, send the descriptor and both pieces of bytes.
#[derive(Debug)]
#[non_exhaustive]
pub struct Detached {
    socket: Socket,
    write_shut: bool,
    /// Bytes that were read from the socket and not consumed by the actor. What the kernel still
    /// holds comes behind them.
    pub unread: Bytes,
    /// Bytes that the actor wrote and the kernel has not taken: to be sent before anything else.
    pub unwritten: Bytes,
    /// Who is at the other end.
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
            socket,
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
        match self.peer {
            Peer::Tcp(_) => self.into_fd().map(TcpStream::from),
            _ => Err(self.wrong_kind(DetachedErrorKind::NotTcp)),
        }
    }

    /// As std's type, non-blocking (see [`set_nonblocking`](Detached::set_nonblocking)), without
    /// the bytes: take those out before.
    ///
    /// # Errors
    ///
    /// For a TCP socket, and as [`into_fd`](Detached::into_fd). It comes back in the error.
    pub fn into_unix_stream(self) -> Result<UnixStream, DetachedError> {
        match self.peer {
            Peer::Unix => self.into_fd().map(UnixStream::from),
            _ => Err(self.wrong_kind(DetachedErrorKind::NotUnix)),
        }
    }

    fn wrong_kind(self, kind: DetachedErrorKind) -> DetachedError {
        DetachedError {
            kind,
            detached: Box::new(self),
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

impl Handle {
    /// Gives a socket that exists to an actor, as if a listener had accepted it: on the poller that
    /// has the fewest, where `make` runs. The address works at once: what is sent to it waits until
    /// the actor is opened. A panic in `make` is counted, closes the socket, and the address then has
    /// gone.
    ///
    /// `socket` is an [`OwnedFd`], a `TcpStream` or `UnixStream`, or a [`Detached`] with the bytes
    /// that were under way. It is made non-blocking, for all who share it, and close-on-exec; its
    /// other options stay as they are.
    ///
    /// May be called inside a callback: the few system calls that it makes do not wait.
    ///
    /// # Errors
    ///
    /// When it is no connected stream (see [`AdoptErrorKind`]), or the system has stopped. The
    /// socket comes back in the error.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    /// use greenroom::*;
    ///
    /// struct Echo;
    ///
    /// impl Actor for Echo {
    ///     type Message = ();
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.write(input.take_all());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let system = System::builder().pollers(1).build()?;
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// system.adopt(ours, || Echo)?;
    /// theirs.write_all(b"hello")?;
    /// let mut answer = [0; 5];
    /// theirs.read_exact(&mut answer)?;
    /// assert_eq!(&answer, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt<A: Actor>(
        &self,
        socket: impl Into<Adoptable>,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        self.adopt_with(socket, AdoptOptions::default(), make)
    }

    /// The same with options.
    ///
    /// # Errors
    ///
    /// As [`adopt`](Handle::adopt).
    pub fn adopt_with<A: Actor>(
        &self,
        socket: impl Into<Adoptable>,
        options: AdoptOptions,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        self.adopt_on(self.shared.least_loaded(), socket, options, make)
    }

    /// The same on the poller of this number.
    ///
    /// # Errors
    ///
    /// As [`adopt`](Handle::adopt).
    ///
    /// # Panics
    ///
    /// When there is no such poller, see [`Handle::pollers`].
    pub fn adopt_on<A: Actor>(
        &self,
        poller: usize,
        socket: impl Into<Adoptable>,
        options: AdoptOptions,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        let pollers = &self.shared.pollers;
        assert!(
            poller < pollers.len(),
            "adopt: there is no poller {poller}, the system has {}",
            pollers.len()
        );
        let socket = socket.into();
        if self.shared.is_stopping() {
            return Err(AdoptError::new(
                "adopt",
                AdoptErrorKind::Stopped,
                Some(socket),
            ));
        }
        let socket = socket.prepare(&options, self.shared.simulated.is_some())?;
        let origin = self.shared.origin_of(&options.connection);
        origin.live.fetch_add(1, Ordering::AcqRel);
        let door = &pollers[poller].door;
        door.sockets.fetch_add(1, Ordering::AcqRel);
        let make = Box::new(move || Box::new(make()) as Box<dyn Hosted>);
        let adoption = Adoption {
            make,
            origin,
            socket,
        };
        let (post, key) = pollers[poller].place::<A>(Control::Adopt(Box::new(adoption)));
        if self.shared.is_stopping() {
            // Its poller may have ended meanwhile, and nobody else says that the last socket has
            // gone.
            self.shared.tell_if_empty();
        }
        Ok(Addr::new(post, key))
    }

    /// Has any other descriptor watched for an actor: a pipe, an inotify, a signalfd, a timerfd, a
    /// socket that the actor reads by itself. [`Actor::ready`] is called for as long as it is ready
    /// in a direction that is asked for; [`Context::descriptor`](crate::Context::descriptor) lends
    /// it. It is deregistered and closed when the actor ends, and not before `closed` is told.
    ///
    /// The actor is one without a socket: `write` panics, a stop does not wait for it, and it counts
    /// in no limit. It lives on a poller chosen as by [`adopt`](Handle::adopt); its address works at
    /// once.
    ///
    /// The descriptor is made close-on-exec; that it blocks or not stays as it is, since others may
    /// share it. One read of what is ready does not wait, nor does one write of up to PIPE_BUF bytes
    /// to a pipe; for more, make it non-blocking.
    ///
    /// # Errors
    ///
    /// When it is always ready, as a regular file is, or the system has stopped. The descriptor comes
    /// back in the error.
    ///
    /// ```
    /// use std::io::{PipeReader, Read, Write};
    /// use greenroom::*;
    ///
    /// struct Lines {
    ///     pipe: PipeReader,
    ///     to: std::sync::mpsc::Sender<String>,
    /// }
    ///
    /// impl Actor for Lines {
    ///     type Message = ();
    ///
    ///     fn ready(&mut self, _ready: Readiness, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         let mut bytes = [0; 4096];
    ///         let read = self.pipe.read(&mut bytes)?;
    ///         if read == 0 {
    ///             ctx.close();
    ///         }
    ///         self.to.send(String::from_utf8_lossy(&bytes[..read]).into_owned())?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let system = System::builder().pollers(1).build()?;
    /// let (pipe, mut writer) = std::io::pipe()?;
    /// let (to, heard) = std::sync::mpsc::channel();
    /// // A duplicate for std's `Read`, which takes no borrowed descriptor.
    /// let watched = pipe.try_clone()?;
    /// system.watch(watched, Interest::READ, move || Lines { pipe, to })?;
    /// writer.write_all(b"hello")?;
    /// assert_eq!(heard.recv()?, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch<A: Actor>(
        &self,
        descriptor: impl Into<OwnedFd>,
        interest: Interest,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        self.watch_on(self.shared.least_loaded(), descriptor, interest, make)
    }

    /// The same on the poller of this number.
    ///
    /// # Errors
    ///
    /// As [`watch`](Handle::watch).
    ///
    /// # Panics
    ///
    /// When there is no such poller, see [`Handle::pollers`].
    pub fn watch_on<A: Actor>(
        &self,
        poller: usize,
        descriptor: impl Into<OwnedFd>,
        interest: Interest,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        let pollers = &self.shared.pollers;
        assert!(
            poller < pollers.len(),
            "watch: there is no poller {poller}, the system has {}",
            pollers.len()
        );
        let descriptor = Adoptable::from(descriptor.into());
        if self.shared.is_stopping() {
            let kind = AdoptErrorKind::Stopped;
            return Err(AdoptError::new("watch", kind, Some(descriptor)));
        }
        let watching = Watching {
            make: Box::new(move || Box::new(make()) as Box<dyn Hosted>),
            descriptor: descriptor.prepare_to_watch(self.shared.simulated.is_some())?,
            interest,
        };
        let (post, key) = pollers[poller].place::<A>(Control::Watch(Box::new(watching)));
        Ok(Addr::new(post, key))
    }
}

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
}

impl fmt::Display for DetachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DetachError::NoSocket => "detach: this actor has no socket",
            DetachError::Closing => "detach: this callback has closed the connection before",
            DetachError::Twice => "detach: this callback has detached the socket before",
            DetachError::NotAStream => "detach: only a stream can be detached",
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
    /// It is a datagram socket.
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
            AdoptErrorKind::Datagram => f.write_str("a datagram socket is not a connection"),
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

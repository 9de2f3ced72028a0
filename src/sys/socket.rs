//! Stream sockets, TCP and Unix alike.

use std::io::{self, IoSlice};
use std::mem;
use std::net::SocketAddr;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{MSG_DONTWAIT, c_int, socklen_t};

#[cfg(test)]
use super::addr::Peer;
use super::addr::{Endpoint, SockAddr};
use super::options::SocketOption;
use super::platform::{self, SEND_FLAGS, SLICES_MAX};
use super::retry_interrupted;
use super::selector::Source;
use super::simulated::{Network, Number, Process};

/// One end of a stream, non-blocking and close-on-exec.
///
/// A call that would have to wait fails with `WouldBlock`. Receiving and sending never block even
/// on an adopted descriptor, and whatever another process does to the flags of one that it shares
/// with us: each call says `MSG_DONTWAIT` for itself.
///
/// Dropping it closes it: the output that the kernel has accepted still goes out, unless there is
/// input that was not received. Then the connection is reset, and that output may be lost.
#[derive(Debug)]
pub(crate) struct Socket {
    end: End,
}

impl Socket {
    /// Starts a connection to `endpoint`.
    ///
    /// It is complete, or has failed, once the socket is writable: then ask
    /// [`take_error`](Socket::take_error). A Unix socket is connected on return; `WouldBlock` there
    /// says that the backlog of the listener is full.
    pub(crate) fn connect(endpoint: &Endpoint) -> io::Result<Socket> {
        let addr = SockAddr::of(endpoint)?;
        let fd = open(addr.family())?;
        // SAFETY: the address is valid for its length and outlives the call.
        let connected = unsafe { syscall!(connect(fd.as_raw_fd(), addr.as_ptr(), addr.len())) };
        match connected {
            Ok(_) => {}
            // Interrupted, it goes on in the background like one in progress; a second connect
            // would only be told so.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
            }
            Err(error) => return Err(error),
        }
        Ok(Socket { end: End::of(fd) })
    }

    /// Starts a connection on this thread's simulated network.
    pub(super) fn connect_simulated(
        to: &Endpoint,
        local: Option<SocketAddr>,
        process: Process,
    ) -> io::Result<Socket> {
        let number = Network::with(|network| network.begin_connect(to, local, process))?;
        Ok(Socket::simulated(number))
    }

    /// Our end of a simulated connection.
    pub(super) fn simulated(number: Number) -> Socket {
        Socket {
            end: End::simulated(number),
        }
    }

    /// What a selector watches.
    pub(crate) fn source(&self) -> Source<'_> {
        self.end.source()
    }

    /// Receives into `buffer`, which must not be empty. 0 is the end of the stream.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        debug_assert!(!buffer.is_empty(), "an empty receive looks like the end");
        let fd = match self.end.source() {
            Source::Fd(fd) => fd.as_raw_fd(),
            Source::Simulated(end) => return end.recv(buffer),
        };
        retry_interrupted(|| platform::recv(fd, buffer))
    }

    /// Looks at what would be received into `buffer`, and leaves it where it is.
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        debug_assert!(!buffer.is_empty(), "an empty look is like the end");
        let fd = match self.end.source() {
            Source::Fd(fd) => fd.as_raw_fd(),
            Source::Simulated(end) => return end.peek(buffer),
        };
        let flags = libc::MSG_PEEK | MSG_DONTWAIT;
        retry_interrupted(|| {
            // SAFETY: `buffer` is writable for its length and borrowed for the whole call.
            let seen =
                unsafe { syscall!(recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags)) }?;
            Ok(seen as usize)
        })
    }

    /// Whether bytes have arrived that were not received.
    pub(crate) fn has_unread(&self) -> bool {
        matches!(self.peek(&mut [0; 1]), Ok(1))
    }

    /// Sends the beginning of `bytes`; says how much of it.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let fd = match self.end.source() {
            Source::Fd(fd) => fd.as_raw_fd(),
            Source::Simulated(end) => return end.send(bytes),
        };
        retry_interrupted(|| platform::send(fd, bytes))
    }

    /// Sends the beginning of `slices`, one after the other; says how many bytes of them.
    ///
    /// By sendmsg, since writev takes no flags and a peer that has gone would raise `SIGPIPE`.
    pub(crate) fn send_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let fd = match self.end.source() {
            Source::Fd(fd) => fd.as_raw_fd(),
            Source::Simulated(end) => return end.send_vectored(slices),
        };
        // SAFETY: made of integers and pointers alone, for which zero is a valid value.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        // `IoSlice` is guaranteed to be laid out as an iovec. sendmsg does not write to it; the
        // structure is not const because recvmsg shares it.
        message.msg_iov = slices.as_ptr().cast_mut().cast();
        message.msg_iovlen = slices.len().min(SLICES_MAX) as _;
        retry_interrupted(|| {
            // SAFETY: `message` has its count of valid slices, borrowed for the whole call, or fewer,
            // and is zero otherwise.
            let sent = unsafe { syscall!(sendmsg(fd, ptr::from_ref(&message), SEND_FLAGS,)) }?;
            Ok(sent as usize)
        })
    }

    /// Ends the outgoing half of the stream, behind what was sent; the incoming one stays open.
    ///
    /// Nothing is left to be ended on a connection that the peer has reset, and that is no error
    /// here: the next receive tells the reset.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        let fd = match self.end.source() {
            Source::Fd(fd) => fd.as_raw_fd(),
            Source::Simulated(end) => return end.shutdown_write(),
        };
        // SAFETY: takes no pointer.
        match unsafe { syscall!(shutdown(fd, libc::SHUT_WR)) } {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(()),
        }
    }

    /// Closes at once and drops what was not sent: a TCP peer gets a reset.
    ///
    /// This is the only linger that the kernel is ever told. With a time above zero, close blocks
    /// the thread for so long, even on a non-blocking socket; the poller lingers by itself instead.
    pub(crate) fn abort(self) {
        self.reset_on_close();
    }

    /// Makes the close, which is to follow at once, one that [aborts](Socket::abort).
    pub(super) fn reset_on_close(&self) {
        let now = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        match self.end.source() {
            // The descriptor is closed in any case, and an ordinary close is the next best thing.
            Source::Fd(fd) => drop(set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, now)),
            Source::Simulated(end) => end.abort(),
        }
    }

    #[cfg(test)]
    fn kernel(&self) -> BorrowedFd<'_> {
        match self.source() {
            Source::Fd(fd) => fd,
            Source::Simulated(_) => panic!("a simulated socket has no descriptor"),
        }
    }

    /// Sets an option of a connection that is there.
    pub(crate) fn set_option(&self, option: &SocketOption) -> io::Result<()> {
        match self.end.source() {
            Source::Fd(fd) => option.apply(fd),
            Source::Simulated(end) => end.set_option(option),
        }
    }

    /// The address of this end. On the connecting side of a Unix socket the path is empty.
    pub(crate) fn local_addr(&self) -> io::Result<Endpoint> {
        self.end.local_addr()
    }

    /// Who is at the other end; an error once it has gone.
    #[cfg(test)]
    pub(crate) fn peer(&self) -> io::Result<Peer> {
        super::descriptor::peer(self.kernel())
    }

    /// Whether small segments leave at once (TCP only; a Unix socket has no delay to switch off).
    #[cfg(test)]
    pub(crate) fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        set_option(
            self.kernel(),
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            c_int::from(nodelay),
        )
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Socket {
        platform::silence_pipe(fd.as_fd());
        Socket { end: End::of(fd) }
    }
}

impl Socket {
    /// The descriptor; a simulated socket has none and comes back.
    pub(crate) fn into_fd(self) -> Result<OwnedFd, Socket> {
        match self.end.source() {
            Source::Simulated(_) => Err(self),
            Source::Fd(_) => Ok(self.end.into_fd()),
        }
    }
}

/// What a socket owns: a descriptor, or the number of an end on the simulated network.
///
/// In the four bytes of an `OwnedFd`, niche included, because there is one for each connection.
/// Invariant: negative for a descriptor, whose complement it is, and above 0 for such a number.
#[derive(Debug)]
pub(super) struct End(NonZeroI32);

impl End {
    pub(super) fn of(fd: OwnedFd) -> End {
        End(NonZeroI32::new(!fd.into_raw_fd()).expect("-1 is no descriptor"))
    }

    /// The descriptor of an end that has one.
    fn into_fd(self) -> OwnedFd {
        let fd: RawFd = !self.0.get();
        debug_assert!(fd >= 0, "a simulated end has no descriptor");
        mem::forget(self);
        // SAFETY: ours since `of` took it over; our own drop, which would close it, never runs.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    pub(super) fn simulated(number: Number) -> End {
        debug_assert!(number.0 > 0);
        End(NonZeroI32::new(number.0).expect("ends are numbered from 1"))
    }

    pub(super) fn source(&self) -> Source<'_> {
        let fd: RawFd = !self.0.get();
        if fd < 0 {
            return Source::Simulated(Number(self.0.get()));
        }
        // SAFETY: the descriptor is open: `of` has taken it over, and only our drop closes it.
        Source::Fd(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// The address that it is bound to.
    pub(super) fn local_addr(&self) -> io::Result<Endpoint> {
        match self.source() {
            Source::Fd(fd) => local_addr(fd),
            Source::Simulated(end) => end.local_addr(),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let fd: RawFd = match self.source() {
            Source::Fd(fd) => fd.as_raw_fd(),
            Source::Simulated(end) => return end.close(),
        };
        // SAFETY: ours since `of` took it over, and nobody uses it after this drop.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

/// Opens a stream socket, non-blocking and close-on-exec.
pub(super) fn open(family: c_int) -> io::Result<OwnedFd> {
    platform::socket(family, libc::SOCK_STREAM)
}

/// The address that a socket is bound to.
pub(crate) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<Endpoint> {
    let ((), addr) = SockAddr::filled_by(|addr, len| {
        // SAFETY: `addr` is writable for `len` bytes, and both outlive the call.
        unsafe { syscall!(getsockname(fd.as_raw_fd(), addr, len)) }.map(drop)
    })?;
    addr.to_endpoint()
}

/// Sets an option, whose value is an integer or a structure of integers.
pub(super) fn set_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: T,
) -> io::Result<()> {
    platform::there_is(name)?;
    // SAFETY: `value` is readable for its size and outlives the call, which copies it.
    unsafe {
        syscall!(setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            mem::size_of::<T>() as socklen_t,
        ))
    }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;
    use crate::sys::test_util::{TIMEOUT, wait_for};
    use crate::sys::{Events, Interest, Selector, SelectorKind};

    impl AsFd for Socket {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.kernel()
        }
    }

    /// A duplicate; the socket itself is closed.
    impl From<Socket> for OwnedFd {
        fn from(socket: Socket) -> OwnedFd {
            socket.as_fd().try_clone_to_owned().unwrap()
        }
    }

    /// A connection over loopback: our end, and the other as std has it.
    fn tcp_pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(TIMEOUT)).unwrap();
        let (socket, _) = listener.accept().unwrap();
        (OwnedFd::from(socket).into(), peer)
    }

    fn recv(socket: &Socket) -> io::Result<Vec<u8>> {
        wait_for(socket, Interest::READ);
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer)?;
        Ok(buffer[..len].to_vec())
    }

    #[test]
    fn a_place_for_a_socket_takes_four_bytes() {
        assert_eq!(mem::size_of::<Option<Socket>>(), 4);
    }

    #[test]
    fn an_adopted_socket_does_not_block() {
        let (socket, mut peer) = tcp_pair();
        let error = socket.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        peer.write_all(b"ping").unwrap();
        assert_eq!(recv(&socket).unwrap(), b"ping");
        assert_eq!(socket.send(b"pong").unwrap(), 4);
        let mut answer = [0; 4];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"pong");
    }

    #[test]
    fn partial_sends_lose_and_double_nothing() {
        let (socket, mut peer) = tcp_pair();
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, 4096_i32).unwrap();
        let bytes: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 251) as u8).collect();

        // Nobody reads yet, so that the kernel has to refuse.
        let mut sent = 0;
        let refused = loop {
            match socket.send(&bytes[sent..]) {
                Ok(len) => sent += len,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(0 < sent && sent < bytes.len());

        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            peer.read_to_end(&mut received).map(|_| received)
        });
        let mut selector = Selector::new(SelectorKind::Poll).unwrap();
        let mut events = Events::with_capacity(1);
        selector
            .register(socket.source(), 0, Interest::WRITE)
            .unwrap();
        while sent < bytes.len() {
            selector.wait(&mut events, Some(TIMEOUT)).unwrap();
            assert_eq!(events.len(), 1, "never writable again");
            let (first, second) = bytes[sent..].split_at((bytes.len() - sent) / 2);
            match socket.send_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(len) => sent += len,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        socket.shutdown_write().unwrap();
        assert!(reader.join().unwrap().unwrap() == bytes);
    }

    #[test]
    fn more_slices_than_the_kernel_takes_are_a_partial_send() {
        let (socket, mut peer) = tcp_pair();
        let slices = vec![IoSlice::new(b"x"); SLICES_MAX + 1];
        assert_eq!(socket.send_vectored(&slices).unwrap(), SLICES_MAX);
        socket.shutdown_write().unwrap();
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert_eq!(received, [b'x'; SLICES_MAX]);
    }

    #[test]
    fn after_a_half_close_the_other_half_goes_on() {
        let (socket, mut peer) = tcp_pair();
        peer.write_all(b"last words").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(recv(&socket).unwrap(), b"last words");
        assert_eq!(recv(&socket).unwrap(), b"");
        assert_eq!(socket.send(b"reply").unwrap(), 5);
        socket.shutdown_write().unwrap();
        let mut reply = String::new();
        peer.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "reply");
    }

    #[test]
    fn abort_resets_the_peer() {
        let (socket, mut peer) = tcp_pair();
        socket.abort();
        let error = peer.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    /// Holds `SIGPIPE` back from this thread, so that one shows as pending. A Rust program ignores
    /// it from the start and would not notice; one that is not started by Rust may die of it.
    fn block_sigpipe() {
        // SAFETY: the set is valid for each call; zero is a valid value of it.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGPIPE);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        }
    }

    fn sigpipe_is_pending() -> bool {
        // SAFETY: the set is valid for each call; zero is a valid value of it.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigpending(&raw mut set);
            libc::sigismember(&raw const set, libc::SIGPIPE) == 1
        }
    }

    #[test]
    fn a_reset_is_an_error_and_not_a_signal() {
        block_sigpipe();
        let (socket, peer) = tcp_pair();
        Socket::from(OwnedFd::from(peer)).abort();
        let error = recv(&socket).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let error = socket.send(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let error = socket.send_vectored(&[IoSlice::new(b"x")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(!sigpipe_is_pending());
        socket.shutdown_write().unwrap();
        assert_eq!(
            socket.peer().unwrap_err().kind(),
            io::ErrorKind::NotConnected
        );
    }

    #[test]
    fn connect_completes_or_leaves_its_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::from(listener.local_addr().unwrap());
        let socket = Socket::connect(&endpoint).unwrap();
        wait_for(&socket, Interest::WRITE);
        assert!(socket.take_error().unwrap().is_none());
        assert_eq!(socket.peer().unwrap().to_string(), endpoint.to_string());

        // A port that is taken, so that nobody else can come to listen on it, and not listened on.
        let addr = SockAddr::of(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let bound = open(addr.family()).unwrap();
        // SAFETY: the address is valid for its length and outlives the call.
        unsafe { syscall!(bind(bound.as_raw_fd(), addr.as_ptr(), addr.len())) }.unwrap();
        let endpoint = local_addr(bound.as_fd()).unwrap();
        let refused = Socket::connect(&endpoint).and_then(|socket| {
            wait_for(&socket, Interest::WRITE);
            socket.take_error()?.map_or(Ok(()), Err)
        });
        assert_eq!(
            refused.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[test]
    fn nodelay_is_switched_and_the_socket_given_back() {
        let (socket, peer) = tcp_pair();
        socket.set_nodelay(true).unwrap();
        assert_eq!(
            socket.local_addr().unwrap(),
            Endpoint::Tcp(peer.peer_addr().unwrap())
        );
        let socket = TcpStream::from(OwnedFd::from(socket));
        assert!(socket.nodelay().unwrap());
    }

    #[test]
    fn an_unnamed_unix_socket_has_an_empty_path() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        let socket = Socket::from(OwnedFd::from(socket));
        assert_eq!(socket.local_addr().unwrap(), Endpoint::Unix("".into()));
        assert_eq!(socket.peer().unwrap(), Peer::Unix);
    }
}

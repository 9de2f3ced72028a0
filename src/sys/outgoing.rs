//! Sockets that connect.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use libc::{SOL_SOCKET, c_int, socklen_t};

use super::addr::{Endpoint, Peer, SockAddr};
use super::options::{Role, SocketOptions};
use super::selector::Source;
use super::simulated::Process;
use super::socket::{self, Socket};

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HowToConnect<'a> {
    /// The address on our side; port 0 lets the system choose one. TCP only.
    pub(crate) local: Option<SocketAddr>,
    /// What the kernel is told of the socket.
    pub(crate) socket: &'a SocketOptions,
    /// The program on this thread's simulated network that connects; `None` for the real one.
    pub(crate) simulated: Option<Process>,
}

/// What a call of connect came to.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is connected; or, where the first bytes are to travel with the connect (TCP_FASTOPEN), as
    /// good as.
    Done(Socket, Peer),
    /// It is under way: [`Socket::connected`] says what has come of it, once it is writable.
    UnderWay(Socket),
    /// A Unix socket whose backlog is full. There is no readiness that would tell when it is not.
    Full,
}

/// The step at which a connect has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Opening the socket.
    Open,
    /// Setting its options.
    Options,
    /// Binding it to an address on our side.
    Bind,
    Connect,
}

/// A connect that could not even begin.
#[derive(Debug)]
pub(crate) struct CannotConnect {
    pub(crate) step: Step,
    pub(crate) error: io::Error,
}

/// Names the step of an error.
fn at<T>(step: Step, result: io::Result<T>) -> Result<T, CannotConnect> {
    result.map_err(|error| CannotConnect { step, error })
}

impl Socket {
    /// Begins to connect to `endpoint`.
    pub(crate) fn begin_connect(
        endpoint: &Endpoint,
        how: &HowToConnect<'_>,
    ) -> Result<Begun, CannotConnect> {
        if let Some(process) = how.simulated {
            at(Step::Options, how.socket.check(endpoint, Role::Connect))?;
            let begun = Socket::connect_simulated(endpoint, how.local, process);
            return at(Step::Open, begun).map(Begun::UnderWay);
        }
        let addr = at(Step::Connect, SockAddr::of(endpoint))?;
        let fd = at(Step::Open, socket::open(addr.family()))?;
        let is_tcp = matches!(endpoint, Endpoint::Tcp(_));
        let options = how.socket.clone().or_default(endpoint);
        at(Step::Options, options.apply(fd.as_fd(), Role::Connect))?;
        if is_tcp && let Some(local) = how.local {
            at(Step::Bind, bind_local(&fd, local))?;
        }
        // SAFETY: the address is valid for its length and outlives the call.
        let connected = unsafe { syscall!(connect(fd.as_raw_fd(), addr.as_ptr(), addr.len())) };
        let is_under_way = match connected {
            Ok(_) => false,
            // Interrupted, it goes on in the background like one in progress; a second connect
            // would only be told so.
            Err(error) => match error.raw_os_error() {
                Some(libc::EINPROGRESS | libc::EINTR) => true,
                // That of TCP says that no port is left on our side.
                Some(libc::EAGAIN) if !is_tcp => return Ok(Begun::Full),
                _ => return at(Step::Connect, Err(error)),
            },
        };
        let socket = Socket::from(fd);
        if is_under_way {
            return Ok(Begun::UnderWay(socket));
        }
        let peer = at(Step::Connect, addr.to_peer())?;
        at(Step::Connect, socket.is_not_itself(peer))?;
        Ok(Begun::Done(socket, peer))
    }

    /// Whether the connect is done, and to whom; `None` while it is under way.
    ///
    /// # Errors
    ///
    /// Why it has failed.
    pub(crate) fn connected(&self) -> io::Result<Option<Peer>> {
        let fd = match self.source() {
            Source::Fd(fd) => fd,
            Source::Simulated(end) => return end.connected(),
        };
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        let peer = SockAddr::filled_by(|addr, len| {
            // SAFETY: `addr` is writable for `len` bytes, and both outlive the call.
            unsafe { syscall!(getpeername(fd.as_raw_fd(), addr, len)) }.map(drop)
        });
        let peer = match peer {
            Ok(((), addr)) => addr.to_peer()?,
            // The selector reported what was registered under this token before.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(None),
            Err(error) => return Err(error),
        };
        self.is_not_itself(peer)?;
        Ok(Some(peer))
    }

    /// An error if it is connected with itself: where nobody listens on a port of our own machine
    /// from which connects come, too, the kernel may give a connect that very port on our side.
    fn is_not_itself(&self, peer: Peer) -> io::Result<()> {
        if let Peer::Tcp(peer) = peer
            && self.local_addr()? == Endpoint::Tcp(peer)
        {
            // An ordinary close would keep the port for a minute from whoever is to listen on it.
            self.reset_on_close();
            let text = "nobody listens there: it was connected with itself";
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, text));
        }
        Ok(())
    }

    /// The error that was left on the socket, if any, and clears it.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        let fd = match self.source() {
            Source::Fd(fd) => fd.as_raw_fd(),
            Source::Simulated(_) => return Ok(None),
        };
        let mut errno: c_int = 0;
        let mut len = mem::size_of_val(&errno) as socklen_t;
        // SAFETY: `errno` is writable for the `len` bytes that it has, and both outlive the call.
        unsafe {
            syscall!(getsockopt(
                fd,
                SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut errno).cast(),
                &raw mut len,
            ))
        }?;
        Ok((errno != 0).then(|| io::Error::from_raw_os_error(errno)))
    }
}

/// Binds a socket to an address on our side, ahead of its connect.
fn bind_local(fd: &OwnedFd, local: SocketAddr) -> io::Result<()> {
    if local.port() != 0 {
        // Else a connection of this port that is there, or has just ended, would keep it from those
        // to anywhere.
        socket::set_option(fd.as_fd(), SOL_SOCKET, libc::SO_REUSEADDR, 1 as c_int)?;
    }
    #[cfg(target_os = "linux")]
    if local.port() == 0 {
        // The port is chosen by the connect, which knows the other side: else each would need one
        // of its own, of which an address has less than 65,536. Where it is not known, so be it.
        let name = libc::IP_BIND_ADDRESS_NO_PORT;
        let _ = socket::set_option(fd.as_fd(), libc::IPPROTO_IP, name, 1 as c_int);
    }
    let addr = SockAddr::of(&Endpoint::Tcp(local))?;
    // SAFETY: the address is valid for its length and outlives the call.
    unsafe { syscall!(bind(fd.as_raw_fd(), addr.as_ptr(), addr.len())) }.map(drop)
}

/// Whether the process or the system has no descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Whether the kernel has no memory left for it.
pub(crate) fn is_out_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// Whether no port is left on our side.
pub(crate) fn is_out_of_ports(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN))
}

/// Whether a path is one that a Unix socket can have.
pub(crate) fn check_path(path: &Path) -> io::Result<()> {
    SockAddr::of(&Endpoint::Unix(path.to_owned())).map(drop)
}

//! Sockets that connect.

#[cfg(target_os = "linux")]
use std::ffi::CString;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use libc::{SOL_SOCKET, c_int, socklen_t};

use super::addr::{Endpoint, Peer, SockAddr};
use super::selector::Source;
use super::simulated::Process;
use super::socket::{self, Socket, set_option};

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HowToConnect<'a> {
    /// The address on our side; port 0 lets the system choose one. TCP only.
    pub(crate) local: Option<SocketAddr>,
    /// The network device that it goes by. TCP only.
    pub(crate) device: Option<&'a str>,
    /// Whether small segments leave at once. TCP only.
    pub(crate) nodelay: bool,
    /// The program on this thread's simulated network that connects; `None` for the real one.
    pub(crate) simulated: Option<Process>,
}

/// What a call of connect came to.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is connected.
    Done(Socket),
    /// It is under way: [`Socket::connected`] says what has come of it, once it is writable.
    UnderWay(Socket),
    /// A Unix socket whose backlog is full. There is no readiness that would tell when it is not.
    Full,
}

/// The step at which a connect has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Opening the socket, and setting its options.
    Open,
    /// Binding it to a network device.
    Device,
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
            let begun = Socket::connect_simulated(endpoint, how.local, process);
            return at(Step::Open, begun).map(Begun::UnderWay);
        }
        let addr = at(Step::Connect, SockAddr::of(endpoint))?;
        let fd = at(Step::Open, socket::open(addr.family()))?;
        let is_tcp = matches!(endpoint, Endpoint::Tcp(_));
        if is_tcp && how.nodelay {
            let set = set_option(fd.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1 as c_int);
            at(Step::Open, set)?;
        }
        if is_tcp && let Some(device) = how.device {
            at(Step::Device, bind_to_device(&fd, device))?;
        }
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
        Ok(if is_under_way {
            Begun::UnderWay(socket)
        } else {
            Begun::Done(socket)
        })
    }

    /// Whether the connect is done, and to whom; `None` while it is under way.
    ///
    /// # Errors
    ///
    /// Why it has failed. That it met itself is one: where nobody listens on a port of our own
    /// machine from which connects come, too, the kernel may give a connect that very port on our
    /// side, and connect it with itself.
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
        if let Peer::Tcp(peer) = peer
            && self.local_addr()? == Endpoint::Tcp(peer)
        {
            // An ordinary close would keep the port for a minute from whoever is to listen on it.
            self.reset_on_close();
            let text = "nobody listens there: it was connected with itself";
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, text));
        }
        Ok(Some(peer))
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
    #[cfg(target_os = "linux")]
    if local.port() == 0 {
        // The port is chosen by the connect, which knows the other side: else each would need one
        // of its own, of which an address has less than 65,536. Where it is not known, so be it.
        let name = libc::IP_BIND_ADDRESS_NO_PORT;
        let _ = set_option(fd.as_fd(), libc::IPPROTO_IP, name, 1 as c_int);
    }
    let addr = SockAddr::of(&Endpoint::Tcp(local))?;
    // SAFETY: the address is valid for its length and outlives the call.
    unsafe { syscall!(bind(fd.as_raw_fd(), addr.as_ptr(), addr.len())) }.map(drop)
}

/// Has a socket go by one network device only.
#[cfg(target_os = "linux")]
fn bind_to_device(fd: &OwnedFd, device: &str) -> io::Result<()> {
    let invalid = |_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "a device has no NUL in its name",
        )
    };
    let name = CString::new(device).map_err(invalid)?;
    let bytes = name.as_bytes_with_nul();
    if bytes.len() > libc::IFNAMSIZ {
        let text = format!("a device's name has at most {} bytes", libc::IFNAMSIZ - 1);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    // SAFETY: the name is readable for its length and outlives the call, which copies it.
    unsafe {
        syscall!(setsockopt(
            fd.as_raw_fd(),
            SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            bytes.as_ptr().cast(),
            bytes.len() as socklen_t,
        ))
    }
    .map(drop)
}

#[cfg(not(target_os = "linux"))]
fn bind_to_device(_fd: &OwnedFd, _device: &str) -> io::Result<()> {
    let text = "a socket cannot be bound to a network device on this system";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
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

/// Whether there is no such network device.
pub(crate) fn is_no_device(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV))
}

/// Whether a path is one that a Unix socket can have.
pub(crate) fn check_path(path: &Path) -> io::Result<()> {
    SockAddr::of(&Endpoint::Unix(path.to_owned())).map(drop)
}

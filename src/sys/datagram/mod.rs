//! Datagram sockets, UDP and Unix.

mod addr;
mod options;
mod receive;
mod send;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{SO_REUSEADDR, SOL_SOCKET, c_int};

pub use addr::DatagramAddr;
pub(crate) use addr::Family;
pub use options::{DatagramOption, Interface};
pub(crate) use options::{Destination, SourceAddr};
pub(crate) use receive::{Arrived, ReceiveBatch};
pub(crate) use send::{Outgoing, SendBatch};

use crate::sys::addr::{Endpoint, SockAddr};
use crate::sys::options::{Role, SocketOptions};
use crate::sys::platform::{self, SO_REUSEPORT};
use crate::sys::selector::Source;
use crate::sys::simulated::{self, Number, Process};
use crate::sys::socket::{Socket, set_option};
use crate::sys::unix_path::{UnixPath, remove_dead_socket};

/// A header with the length that came of it, as the calls for several take it.
#[cfg(any(target_os = "linux", target_os = "android"))]
use libc::mmsghdr;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[repr(C)]
#[allow(non_camel_case_types)]
struct mmsghdr {
    msg_hdr: libc::msghdr,
    msg_len: libc::c_uint,
}

/// Whether the kernel has calls for several datagrams at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    allow(dead_code, reason = "one by one is the only way")
)]
pub(crate) enum Batched {
    /// To be found out by calling one.
    Perhaps,
    No,
}

/// Whether the kernel spreads what comes to an address over several sockets that are bound to it,
/// the same sender always to the same.
pub(crate) const SPREADS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Whether an error of a socket passes: it tells what became of a datagram, or of the network, and
/// the socket goes on.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EMSGSIZE
                | libc::ETIMEDOUT
                | libc::ECONNRESET
                | libc::EACCES
                | libc::EPERM
                | libc::ENOBUFS
                | libc::ENOMEM
        )
    )
}

/// Whether a send has failed for what became of an earlier one: the kernel tells that once, by the
/// next call, which then has not been carried out. Only a connected UDP socket is told.
pub(crate) fn is_of_the_past(error: &io::Error, is_connected: bool, family: Family) -> bool {
    is_connected
        && family != Family::Unix
        && matches!(
            error.raw_os_error(),
            Some(
                libc::ECONNREFUSED
                    | libc::EHOSTUNREACH
                    | libc::EHOSTDOWN
                    | libc::EPROTO
                    | libc::ENOPROTOOPT
            )
        )
}

/// How to bind.
#[derive(Clone, Debug, Default)]
pub(crate) struct DatagramBind {
    /// How many sockets, for as many pollers.
    pub(crate) sockets: usize,
    /// Whether those of other programs may be bound there, too.
    pub(crate) shared: bool,
    /// The only one to be talked to.
    pub(crate) connect: Option<DatagramAddr>,
    pub(crate) options: Vec<DatagramOption>,
    pub(crate) socket: SocketOptions,
    /// The program on this thread's simulated network; `None` for the real one.
    pub(crate) simulated: Option<Process>,
}

/// A socket that is bound, non-blocking and close-on-exec.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    /// The file of a Unix socket. Declared first, because it has to be removed while the socket is
    /// open: see `UnixPath`.
    pub(crate) path: Option<UnixPath>,
    pub(crate) socket: Socket,
    pub(crate) local: DatagramAddr,
    pub(crate) family: Family,
    /// Whom it hears alone, as the kernel tells it: it takes other forms of an address, too.
    pub(crate) connected: Option<DatagramAddr>,
}

impl DatagramSocket {
    /// Binds as many sockets to `addr` as asked for, of which the kernel gives each its part of the
    /// senders.
    ///
    /// # Errors
    ///
    /// They name the address. As those of [`ListenSocket::bind`](crate::sys::ListenSocket::bind),
    /// and those of the options.
    pub(crate) fn bind(addr: &DatagramAddr, how: &DatagramBind) -> io::Result<Vec<DatagramSocket>> {
        bind_all(addr, how).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot bind {addr} for datagrams: {error}"),
            )
        })
    }

    /// Takes over a datagram socket that is there, bound or not, connected or not, with the options
    /// that `how` says of it. The file of a Unix socket is left to whoever bound it.
    pub(crate) fn take_over(fd: BorrowedFd<'_>, how: &DatagramBind) -> io::Result<DatagramSocket> {
        let fd = fd.try_clone_to_owned()?;
        let family = match platform::family(fd.as_fd())? {
            libc::AF_INET => Family::V4,
            libc::AF_INET6 => Family::V6,
            _ => Family::Unix,
        };
        how.socket.apply(fd.as_fd(), Role::Datagrams)?;
        options::queue_no_errors(fd.as_fd(), family)?;
        let local = local_addr(fd.as_fd())?;
        if matches!(&local, DatagramAddr::Udp(ip) if ip.ip().is_unspecified()) {
            options::report_destination(fd.as_fd(), family)?;
        }
        for option in &how.options {
            options::apply(fd.as_fd(), family, option)?;
        }
        let connected = match peer_addr(fd.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            connected => Some(connected?),
        };
        Ok(DatagramSocket {
            path: None,
            socket: Socket::from(fd),
            local,
            family,
            connected,
        })
    }

    /// Sets an option of a UDP socket.
    pub(crate) fn set(socket: &Socket, family: Family, option: &DatagramOption) -> io::Result<()> {
        match socket.source() {
            Source::Fd(fd) => options::apply(fd, family, option),
            Source::Simulated(number) => number.set_datagram_option(option),
        }
    }
}

fn bind_all(addr: &DatagramAddr, how: &DatagramBind) -> io::Result<Vec<DatagramSocket>> {
    let first = bind_one(addr, how, Turn::First)?;
    let local = first.local.clone();
    let mut sockets = vec![first];
    for _ in 1..how.sockets {
        sockets.push(bind_one(&local, how, Turn::Further)?);
    }
    Ok(sockets)
}

/// Which of the sockets of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    First,
    Further,
}

fn bind_one(addr: &DatagramAddr, how: &DatagramBind, turn: Turn) -> io::Result<DatagramSocket> {
    let family = addr.family();
    if let Some(process) = how.simulated {
        let connect = how.connect.as_ref().map(simulated::as_kernels_tell);
        let how = &DatagramBind {
            connect,
            ..how.clone()
        };
        let (number, local) = Number::bind_datagram(addr, how, turn == Turn::Further, process)?;
        let path = matches!(local, DatagramAddr::Unix(_)).then_some(UnixPath::Simulated(number));
        let socket = Socket::simulated(number);
        for option in &how.options {
            DatagramSocket::set(&socket, family, option)?;
        }
        return Ok(DatagramSocket {
            path,
            socket,
            local,
            family,
            connected: how.connect.clone(),
        });
    }
    let fd = open(family)?;
    how.socket.apply(fd.as_fd(), Role::Datagrams)?;
    let path = match addr {
        DatagramAddr::Udp(ip) => {
            if how.shared {
                set_option(fd.as_fd(), SOL_SOCKET, SO_REUSEADDR, 1 as c_int)?;
            }
            // The first is bound without it: else a program of the same user that has the port for
            // itself, spread over sockets of its own, would have to share it, and nobody were told.
            if how.shared || turn == Turn::Further || how.sockets > 1 && !SPREADS {
                set_option(fd.as_fd(), SOL_SOCKET, SO_REUSEPORT, 1 as c_int)?;
            }
            bind(&fd, &addr.sock_addr(family)?)?;
            if how.sockets > 1 {
                set_option(fd.as_fd(), SOL_SOCKET, SO_REUSEPORT, 1 as c_int)?;
            }
            if ip.ip().is_unspecified() {
                options::report_destination(fd.as_fd(), family)?;
            }
            None
        }
        DatagramAddr::Unix(path) => {
            let sock_addr = addr.sock_addr(family)?;
            match bind(&fd, &sock_addr) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    remove_dead_socket(&Endpoint::Unix(path.clone()), path)?;
                    bind(&fd, &sock_addr)?;
                }
                result => result?,
            }
            Some(UnixPath::of(path)?)
        }
        DatagramAddr::Abstract(_) => {
            bind(&fd, &addr.sock_addr(family)?)?;
            None
        }
        DatagramAddr::Unnamed => None,
    };
    for option in &how.options {
        options::apply(fd.as_fd(), family, option)?;
    }
    let connected = how.connect.as_ref().map(|to| {
        connect(&fd, &to.sock_addr(family)?)
            .and_then(|()| peer_addr(fd.as_fd()))
            .map_err(|error| io::Error::new(error.kind(), format!("connect to {to}: {error}")))
    });
    let connected = connected.transpose()?;
    let local = local_addr(fd.as_fd())?;
    let socket = Socket::from(fd);
    Ok(DatagramSocket {
        path,
        socket,
        local,
        family,
        connected,
    })
}

/// Opens a socket, non-blocking and close-on-exec.
fn open(family: Family) -> io::Result<OwnedFd> {
    platform::socket(family.domain(), libc::SOCK_DGRAM)
}

fn bind(fd: &OwnedFd, addr: &SockAddr) -> io::Result<()> {
    // SAFETY: the address is valid for its length and outlives the call.
    unsafe { syscall!(bind(fd.as_raw_fd(), addr.as_ptr(), addr.len())) }.map(drop)
}

/// Has the socket send to one address and receive from it alone. Nothing is sent over this, and
/// nothing waited for.
fn connect(fd: &OwnedFd, addr: &SockAddr) -> io::Result<()> {
    // SAFETY: the address is valid for its length and outlives the call.
    unsafe { syscall!(connect(fd.as_raw_fd(), addr.as_ptr(), addr.len())) }.map(drop)
}

fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<DatagramAddr> {
    let ((), addr) = SockAddr::filled_by(|addr, len| {
        // SAFETY: `addr` is writable for `len` bytes, and both outlive the call.
        unsafe { syscall!(getpeername(fd.as_raw_fd(), addr, len)) }.map(drop)
    })?;
    DatagramAddr::of(&addr)
}

fn local_addr(fd: BorrowedFd<'_>) -> io::Result<DatagramAddr> {
    let ((), addr) = SockAddr::filled_by(|addr, len| {
        // SAFETY: `addr` is writable for `len` bytes, and both outlive the call.
        unsafe { syscall!(getsockname(fd.as_raw_fd(), addr, len)) }.map(drop)
    })?;
    DatagramAddr::of(&addr)
}

//! What a descriptor that came from elsewhere is, and its flags.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{SOL_SOCKET, c_int, socklen_t};

use super::addr::{Peer, SockAddr};
use super::platform;
use super::selector::Interest;
use super::socket::set_option;

/// What a descriptor is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// One end of a stream, and who is at the other.
    Stream(Peer),
    /// A stream socket that is not connected: not yet, or not any more.
    NotConnected,
    /// A stream socket that listens.
    Listening,
    /// A datagram socket, of the Internet or Unix.
    Datagram,
    /// A socket of another kind.
    OtherSocket,
    /// No socket, but one of these.
    NoSocket(&'static str),
}

/// Looks what `fd` is.
pub(crate) fn find(fd: BorrowedFd<'_>) -> io::Result<Found> {
    let kind = match option(fd, libc::SO_TYPE) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {
            return file_type(fd).map(Found::NoSocket);
        }
        kind => kind?,
    };
    let is_known = matches!(
        platform::family(fd)?,
        libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX
    );
    match kind {
        libc::SOCK_STREAM if is_known => {}
        libc::SOCK_DGRAM if is_known => return Ok(Found::Datagram),
        _ => return Ok(Found::OtherSocket),
    }
    if option(fd, libc::SO_ACCEPTCONN)? != 0 {
        return Ok(Found::Listening);
    }
    match peer(fd) {
        Ok(peer) => Ok(Found::Stream(peer)),
        // A connection that the peer has reset says so, too; `EINVAL` is what some kernels make of
        // one that was shut down.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::EINVAL)) => {
            Ok(Found::NotConnected)
        }
        Err(error) => Err(error),
    }
}

/// Whether `fd` is a Unix socket.
pub(crate) fn is_unix(fd: BorrowedFd<'_>) -> bool {
    matches!(platform::family(fd), Ok(libc::AF_UNIX))
}

pub(crate) use super::socket::local_addr;

/// Who is at the other end of a connected socket.
pub(super) fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let ((), addr) = SockAddr::filled_by(|addr, len| {
        // SAFETY: `addr` is writable for `len` bytes, and both outlive the call.
        unsafe { syscall!(getpeername(fd.as_raw_fd(), addr, len)) }.map(drop)
    })?;
    addr.to_peer()
}

/// What a descriptor is ready for at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The other side has gone, or there is an error.
    pub(crate) hung_up: bool,
}

/// Looks what `fd` is ready for, in the directions of `interest`; does not wait.
pub(crate) fn ready(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Ready> {
    let mut events = 0;
    if interest.contains(Interest::READ) {
        events |= libc::POLLIN;
    }
    if interest.contains(Interest::WRITE) {
        events |= libc::POLLOUT;
    }
    let mut polled = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    super::retry_interrupted(|| {
        // SAFETY: one structure, writable and borrowed for the whole call.
        unsafe { syscall!(poll(&raw mut polled, 1, 0)) }
    })?;
    Ok(Ready {
        readable: polled.revents & libc::POLLIN != 0,
        writable: polled.revents & libc::POLLOUT != 0,
        hung_up: polled.revents & (libc::POLLHUP | libc::POLLERR) != 0,
    })
}

/// What `fd` is, if no selector can watch it: a regular file, or a device like it, is always ready,
/// which epoll does not take and others would say for ever.
pub(crate) fn unpollable(fd: BorrowedFd<'_>) -> io::Result<Option<&'static str>> {
    let kind = file_type(fd)?;
    if matches!(kind, "a regular file" | "a directory") {
        return Ok(Some(kind));
    }
    #[cfg(target_os = "linux")]
    match super::epoll::Epoll::new()?.register(fd, 0, Interest::READ) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(Some(kind)),
        registered => registered?,
    }
    Ok(None)
}

/// Sets whether calls on the open file wait, for all who share it.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: takes no pointer.
    let flags = unsafe { syscall!(fcntl(fd.as_raw_fd(), libc::F_GETFL)) }?;
    let wanted = if on {
        flags | libc::O_NONBLOCK
    } else {
        flags & !libc::O_NONBLOCK
    };
    if wanted != flags {
        // SAFETY: takes no pointer.
        unsafe { syscall!(fcntl(fd.as_raw_fd(), libc::F_SETFL, wanted)) }?;
    }
    Ok(())
}

/// Keeps `fd` from being handed down to the programs that this one starts.
pub(crate) fn set_cloexec(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointer.
    let flags = unsafe { syscall!(fcntl(fd.as_raw_fd(), libc::F_GETFD)) }?;
    if flags & libc::FD_CLOEXEC == 0 {
        let flags = flags | libc::FD_CLOEXEC;
        // SAFETY: takes no pointer.
        unsafe { syscall!(fcntl(fd.as_raw_fd(), libc::F_SETFD, flags)) }?;
    }
    Ok(())
}

/// Lets no close of this socket wait in the kernel, nor of what it accepts: whoever had it before may
/// have given it a linger time.
pub(crate) fn clear_linger(fd: BorrowedFd<'_>) {
    let off = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    // Refused by some systems where the connection has ended: then there is nothing to wait for.
    let _ = set_option(fd, SOL_SOCKET, libc::SO_LINGER, off);
}

/// An option of a socket whose value is an integer.
pub(super) fn option(fd: BorrowedFd<'_>, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = mem::size_of_val(&value) as socklen_t;
    // SAFETY: `value` is writable for the `len` bytes that it has, and both outlive the call.
    unsafe {
        syscall!(getsockopt(
            fd.as_raw_fd(),
            SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        ))
    }?;
    Ok(value)
}

/// What is behind `fd`, in words.
fn file_type(fd: BorrowedFd<'_>) -> io::Result<&'static str> {
    // SAFETY: made of integers alone, for which zero is a valid value.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: `stat` is writable and outlives the call.
    unsafe { syscall!(fstat(fd.as_raw_fd(), &raw mut stat)) }?;
    Ok(match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => "a regular file",
        libc::S_IFDIR => "a directory",
        libc::S_IFIFO => "a pipe",
        libc::S_IFCHR => "a character device",
        libc::S_IFBLK => "a block device",
        libc::S_IFSOCK => "a socket",
        // An eventfd, a timerfd, an inotify and their like have no type.
        _ => "an event source of the kernel",
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;
    use crate::sys::test_util::TempDir;

    fn found(fd: &impl AsFd) -> Found {
        find(fd.as_fd()).unwrap()
    }

    #[test]
    fn a_stream_is_found_with_its_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = Peer::Tcp(listener.local_addr().unwrap());
        assert_eq!(found(&client), Found::Stream(peer));
        let (one, other) = UnixStream::pair().unwrap();
        assert_eq!(found(&one), Found::Stream(Peer::Unix));
        drop(other);
        assert_eq!(found(&one), Found::Stream(Peer::Unix), "its end is to read");
    }

    #[test]
    fn what_is_no_connected_stream_is_told_apart() {
        let dir = TempDir::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(found(&listener), Found::Listening);
        let listener = UnixListener::bind(dir.path("listener")).unwrap();
        assert_eq!(found(&listener), Found::Listening);
        assert_eq!(
            found(&UdpSocket::bind("127.0.0.1:0").unwrap()),
            Found::Datagram
        );
        assert_eq!(found(&UnixDatagram::unbound().unwrap()), Found::Datagram);
        let unconnected = crate::sys::socket::open(libc::AF_INET).unwrap();
        assert_eq!(found(&unconnected), Found::NotConnected);
        // SAFETY: takes no pointer; what it returns is owned by nobody else.
        let packets = unsafe {
            let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
            OwnedFd::from_raw_fd(libc::socket(libc::AF_UNIX, kind, 0))
        };
        assert_eq!(found(&packets), Found::OtherSocket);
    }

    #[test]
    fn what_is_no_socket_is_named() {
        let (pipe, _) = std::io::pipe().unwrap();
        assert_eq!(found(&pipe), Found::NoSocket("a pipe"));
        let dir = File::open("/").unwrap();
        assert_eq!(found(&dir), Found::NoSocket("a directory"));
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(found(&file), Found::NoSocket("a regular file"));
        let null = File::open("/dev/null").unwrap();
        assert_eq!(found(&null), Found::NoSocket("a character device"));
    }

    #[test]
    fn a_closed_connection_is_not_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        crate::sys::Socket::from(OwnedFd::from(accepted)).abort();
        crate::sys::test_util::wait_for(&client, crate::sys::Interest::READ);
        assert_eq!(found(&client), Found::NotConnected);
    }

    #[test]
    fn what_a_selector_cannot_watch_is_named() {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let dir = File::open("/").unwrap();
        let null = File::open("/dev/null").unwrap();
        let (pipe, _writer) = std::io::pipe().unwrap();
        let unpollable = |fd: &dyn AsFd| unpollable(fd.as_fd()).unwrap();
        assert_eq!(unpollable(&file), Some("a regular file"));
        assert_eq!(unpollable(&dir), Some("a directory"));
        assert_eq!(unpollable(&null), Some("a character device"));
        assert_eq!(unpollable(&pipe), None);
    }

    #[test]
    fn readiness_tells_a_hang_up_from_what_there_is_to_read() {
        let ready_of = |fd: &dyn AsFd, interest| {
            let Ready {
                readable,
                writable,
                hung_up,
            } = ready(fd.as_fd(), interest).unwrap();
            (readable, writable, hung_up)
        };
        let (mut pipe, mut writer) = std::io::pipe().unwrap();
        let both = Interest::READ | Interest::WRITE;
        assert_eq!(ready_of(&pipe, both), (false, false, false));
        assert_eq!(ready_of(&writer, both), (false, true, false));
        assert_eq!(ready_of(&writer, Interest::READ), (false, false, false));
        writer.write_all(b"x").unwrap();
        assert_eq!(ready_of(&pipe, Interest::READ), (true, false, false));
        drop(writer);
        assert_eq!(ready_of(&pipe, Interest::READ), (true, false, true));
        pipe.read_exact(&mut [0]).unwrap();
        assert_eq!(ready_of(&pipe, Interest::NONE), (false, false, true));
        let (pipe, writer) = std::io::pipe().unwrap();
        drop(pipe);
        assert_eq!(ready_of(&writer, Interest::WRITE), (false, true, true));
    }

    #[test]
    fn flags_are_set_and_cleared() {
        let (one, _other) = UnixStream::pair().unwrap();
        let nonblocking = || {
            // SAFETY: takes no pointer.
            unsafe { libc::fcntl(one.as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK != 0 }
        };
        assert!(!nonblocking());
        set_nonblocking(one.as_fd(), true).unwrap();
        assert!(nonblocking());
        set_nonblocking(one.as_fd(), false).unwrap();
        assert!(!nonblocking());
        // SAFETY: takes no pointer; what it returns is owned by nobody else.
        let inherited = unsafe { OwnedFd::from_raw_fd(libc::dup(one.as_raw_fd())) };
        // SAFETY: takes no pointer.
        let cloexec = || unsafe { libc::fcntl(inherited.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(cloexec(), 0);
        set_cloexec(inherited.as_fd()).unwrap();
        assert_eq!(cloexec(), libc::FD_CLOEXEC);
    }
}

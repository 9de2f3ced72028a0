//! Where the systems differ under one name: calls that one has and another has not, flags, limits,
//! the names of options.
//!
//! The rest of this folder is written for Linux and for what all have in common, and takes from
//! here what differs. Linux stands first in each place; what holds `elsewhere` has been compiled for
//! FreeBSD, NetBSD, macOS and illumos, and has run on none of them.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
#[cfg(target_os = "linux")]
use std::ptr;

use libc::{MSG_DONTWAIT, c_int};

use super::addr::SockAddr;
use super::socket::set_option;

/// In place of the number of an option that a system lacks: no option has it. To set or to ask it
/// is an error of kind `Unsupported`.
pub(super) const ABSENT: c_int = -1;

/// Refuses an option that this system lacks.
pub(super) fn there_is(option: c_int) -> io::Result<()> {
    if option == ABSENT {
        let text = "this system has no such option";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(())
}

/// Takes ownership of what a call has made.
///
/// # Safety
///
/// The descriptor is open, and nothing else owns it.
unsafe fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

// ---- flags and limits ---------------------------------------------------------------------------

/// With which a send neither blocks nor raises `SIGPIPE`.
#[cfg(not(target_vendor = "apple"))]
pub(super) const SEND_FLAGS: c_int = libc::MSG_NOSIGNAL | MSG_DONTWAIT;

/// With which a send does not block. That it raises no `SIGPIPE` is an option of each socket here.
#[cfg(target_vendor = "apple")]
pub(super) const SEND_FLAGS: c_int = MSG_DONTWAIT;

/// The most slices that the kernel takes in one call; more is an error there.
#[cfg(target_os = "linux")]
pub(super) const SLICES_MAX: usize = libc::UIO_MAXIOV as usize;

/// ... as POSIX promises it.
#[cfg(not(target_os = "linux"))]
pub(super) const SLICES_MAX: usize = 16;

/// An error that Linux passes on from a connection that was lost before it was accepted.
#[cfg(target_os = "linux")]
pub(super) const ENONET: c_int = libc::ENONET;

/// No errno: what only Linux has.
#[cfg(not(target_os = "linux"))]
pub(super) const ENONET: c_int = -1;

// ---- options ------------------------------------------------------------------------------------

/// What spreads the connects of one address over several listeners.
#[cfg(target_os = "linux")]
pub(super) use libc::SO_REUSEPORT as SO_REUSEPORT_SPREAD;
#[cfg(target_os = "linux")]
pub(super) use libc::{
    IP_TRANSPARENT, IPV6_ADD_MEMBERSHIP, IPV6_DROP_MEMBERSHIP, IPV6_TRANSPARENT, SO_BINDTODEVICE,
    SO_INCOMING_CPU, SO_MARK, SO_REUSEPORT, TCP_DEFER_ACCEPT, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT,
    TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_QUICKACK, TCP_USER_TIMEOUT,
};

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::*;

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::{ABSENT, c_int};

    pub(in crate::sys) const IP_TRANSPARENT: c_int = ABSENT;
    pub(in crate::sys) const IPV6_TRANSPARENT: c_int = ABSENT;
    pub(in crate::sys) const SO_BINDTODEVICE: c_int = ABSENT;
    pub(in crate::sys) const SO_INCOMING_CPU: c_int = ABSENT;
    pub(in crate::sys) const SO_MARK: c_int = ABSENT;
    pub(in crate::sys) const TCP_DEFER_ACCEPT: c_int = ABSENT;
    pub(in crate::sys) const TCP_FASTOPEN_CONNECT: c_int = ABSENT;
    pub(in crate::sys) const TCP_QUICKACK: c_int = ABSENT;
    pub(in crate::sys) const TCP_USER_TIMEOUT: c_int = ABSENT;

    pub(in crate::sys) use libc::IPV6_JOIN_GROUP as IPV6_ADD_MEMBERSHIP;
    pub(in crate::sys) use libc::IPV6_LEAVE_GROUP as IPV6_DROP_MEMBERSHIP;

    #[cfg(not(any(target_os = "illumos", target_os = "solaris")))]
    pub(in crate::sys) use libc::SO_REUSEPORT;
    #[cfg(any(target_os = "illumos", target_os = "solaris"))]
    pub(in crate::sys) const SO_REUSEPORT: c_int = ABSENT;
    #[cfg(not(target_os = "freebsd"))]
    pub(in crate::sys) use self::SO_REUSEPORT as SO_REUSEPORT_SPREAD;
    #[cfg(target_os = "freebsd")]
    pub(in crate::sys) use libc::SO_REUSEPORT_LB as SO_REUSEPORT_SPREAD;

    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    pub(in crate::sys) use libc::TCP_FASTOPEN;
    #[cfg(not(any(target_vendor = "apple", target_os = "freebsd")))]
    pub(in crate::sys) const TCP_FASTOPEN: c_int = ABSENT;

    #[cfg(target_vendor = "apple")]
    pub(in crate::sys) use libc::TCP_KEEPALIVE as TCP_KEEPIDLE;
    #[cfg(not(any(target_vendor = "apple", target_os = "openbsd")))]
    pub(in crate::sys) use libc::TCP_KEEPIDLE;
    #[cfg(not(target_os = "openbsd"))]
    pub(in crate::sys) use libc::{TCP_KEEPCNT, TCP_KEEPINTVL};

    // For the whole system alone.
    #[cfg(target_os = "openbsd")]
    pub(in crate::sys) const TCP_KEEPIDLE: c_int = ABSENT;
    #[cfg(target_os = "openbsd")]
    pub(in crate::sys) const TCP_KEEPINTVL: c_int = ABSENT;
    #[cfg(target_os = "openbsd")]
    pub(in crate::sys) const TCP_KEEPCNT: c_int = ABSENT;
}

// ---- calls --------------------------------------------------------------------------------------

/// Opens a socket that is non-blocking and close-on-exec from its first moment: set by a second
/// call, a fork in between would hand it down.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn socket(family: c_int, kind: c_int) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointer.
    let fd = unsafe { syscall!(socket(family, kind, 0)) }?;
    // SAFETY: the call has just made it.
    Ok(unsafe { own(fd) })
}

/// Opens a socket that is non-blocking and close-on-exec. The system has no call for all at once,
/// so that a fork at this moment hands it down.
#[cfg(target_vendor = "apple")]
pub(super) fn socket(family: c_int, kind: c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = unsafe { syscall!(socket(family, kind, 0)) }?;
    // SAFETY: the call has just made it.
    let fd = unsafe { own(fd) };
    prepare(&fd)?;
    Ok(fd)
}

/// Takes a connection from the backlog, non-blocking and close-on-exec, with the peer's address.
pub(super) fn accept(listener: RawFd) -> io::Result<(OwnedFd, SockAddr)> {
    let (fd, addr) = SockAddr::filled_by(|addr, len| {
        // SAFETY: `addr` is writable for `len` bytes, and both outlive the call.
        #[cfg(not(target_vendor = "apple"))]
        let fd = unsafe {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            syscall!(accept4(listener, addr, len, flags))
        }?;
        // SAFETY: as above.
        #[cfg(target_vendor = "apple")]
        let fd = unsafe { syscall!(accept(listener, addr, len)) }?;
        // SAFETY: the call has just made it.
        Ok(unsafe { own(fd) })
    })?;
    #[cfg(target_vendor = "apple")]
    {
        // So it tells that the connection was lost before it was accepted.
        if addr.family() == libc::AF_UNSPEC {
            return Err(io::Error::from_raw_os_error(libc::ECONNABORTED));
        }
        prepare(&fd)?;
    }
    Ok((fd, addr))
}

/// What the flags of the calls do elsewhere.
#[cfg(target_vendor = "apple")]
fn prepare(fd: &OwnedFd) -> io::Result<()> {
    use std::os::fd::AsFd;

    use super::descriptor::{set_cloexec, set_nonblocking};

    set_cloexec(fd.as_fd())?;
    set_nonblocking(fd.as_fd(), true)?;
    silence_pipe(fd.as_fd());
    Ok(())
}

/// Lets a send to a peer that has gone raise no `SIGPIPE`.
///
/// An error says that the connection has ended already; and a Rust program ignores the signal from
/// its start.
#[cfg(target_vendor = "apple")]
pub(super) fn silence_pipe(fd: BorrowedFd<'_>) {
    let on: c_int = 1;
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_NOSIGPIPE, on);
}

/// A flag of each send does that.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn silence_pipe(_: BorrowedFd<'_>) {}

/// One receive that does not block.
///
/// The system call itself: recv(3) is a place where a thread may be cancelled, and what glibc does
/// for that, here and in [`send`], is an eighth of all instructions of an echo.
#[cfg(target_os = "linux")]
#[inline]
pub(super) fn recv(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is writable for its length and borrowed for the whole call.
    let received = unsafe {
        syscall!(syscall(
            libc::SYS_recvfrom,
            fd,
            buffer.as_mut_ptr(),
            buffer.len(),
            MSG_DONTWAIT,
            ptr::null_mut::<libc::sockaddr>(),
            ptr::null_mut::<libc::socklen_t>(),
        ))
    }?;
    Ok(received as usize)
}

/// One receive that does not block.
#[cfg(not(target_os = "linux"))]
pub(super) fn recv(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is writable for its length and borrowed for the whole call.
    let received = unsafe {
        syscall!(recv(
            fd,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            MSG_DONTWAIT
        ))
    }?;
    Ok(received as usize)
}

/// One send that does not block, of the beginning of `bytes`.
#[cfg(target_os = "linux")]
#[inline]
pub(super) fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: `bytes` is readable for its length and borrowed for the whole call.
    let sent = unsafe {
        syscall!(syscall(
            libc::SYS_sendto,
            fd,
            bytes.as_ptr(),
            bytes.len(),
            SEND_FLAGS,
            ptr::null::<libc::sockaddr>(),
            0 as libc::socklen_t,
        ))
    }?;
    Ok(sent as usize)
}

/// One send that does not block, of the beginning of `bytes`.
#[cfg(not(target_os = "linux"))]
pub(super) fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: `bytes` is readable for its length and borrowed for the whole call.
    let sent = unsafe { syscall!(send(fd, bytes.as_ptr().cast(), bytes.len(), SEND_FLAGS)) }?;
    Ok(sent as usize)
}

/// Of which family a socket is: `AF_INET` and so on.
#[cfg(target_os = "linux")]
pub(super) fn family(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    super::descriptor::option(fd, libc::SO_DOMAIN)
}

/// Of which family a socket is, by its address, which a socket that is not bound has as well.
#[cfg(not(target_os = "linux"))]
pub(super) fn family(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    use std::os::fd::AsRawFd;

    let ((), addr) = SockAddr::filled_by(|addr, len| {
        // SAFETY: `addr` is writable for `len` bytes, and both outlive the call.
        unsafe { syscall!(getsockname(fd.as_raw_fd(), addr, len)) }.map(drop)
    })?;
    Ok(addr.family())
}

/// Descriptors that are received close on exec from their first moment.
#[cfg(not(any(target_vendor = "apple", target_os = "illumos", target_os = "solaris")))]
pub(super) const RECV_FDS_FLAGS: c_int = libc::MSG_CMSG_CLOEXEC;

/// There is no flag for it: it takes a second call for each.
#[cfg(any(target_vendor = "apple", target_os = "illumos", target_os = "solaris"))]
pub(super) const RECV_FDS_FLAGS: c_int = 0;

/// The user of the process that was at the other end of a Unix socket when it was connected.
#[cfg(target_os = "linux")]
pub(crate) fn peer_uid(fd: BorrowedFd<'_>) -> io::Result<u32> {
    use std::os::fd::AsRawFd;

    let mut found = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = size_of_val(&found) as libc::socklen_t;
    // SAFETY: `found` is writable for its length, and both outlive the call.
    unsafe {
        syscall!(getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut len,
        ))
    }?;
    Ok(found.uid)
}

/// The user of the process that was at the other end of a Unix socket when it was connected.
#[cfg(not(any(target_os = "linux", target_os = "illumos", target_os = "solaris")))]
pub(crate) fn peer_uid(fd: BorrowedFd<'_>) -> io::Result<u32> {
    use std::os::fd::AsRawFd;

    let (mut user, mut group) = (0, 0);
    // SAFETY: both are writable and outlive the call.
    unsafe { syscall!(getpeereid(fd.as_raw_fd(), &raw mut user, &raw mut group)) }?;
    Ok(user)
}

/// It can be asked there, but by calls that are nowhere else.
#[cfg(any(target_os = "illumos", target_os = "solaris"))]
pub(crate) fn peer_uid(_: BorrowedFd<'_>) -> io::Result<u32> {
    let text = "who is at the other end of a unix socket is not asked on this system";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

// ---- multicast ----------------------------------------------------------------------------------

/// Joins or leaves an IPv4 group, on the interface of this number, or else of this address.
#[cfg(not(any(target_os = "netbsd", target_os = "illumos", target_os = "solaris")))]
pub(super) fn membership_v4(
    fd: BorrowedFd<'_>,
    name: c_int,
    [group, address]: [libc::in_addr; 2],
    index: c_int,
) -> io::Result<()> {
    let request = libc::ip_mreqn {
        imr_multiaddr: group,
        imr_address: address,
        imr_ifindex: index,
    };
    set_option(fd, libc::IPPROTO_IP, name, request)
}

/// Joins or leaves an IPv4 group, on the interface of this address.
#[cfg(any(target_os = "netbsd", target_os = "illumos", target_os = "solaris"))]
pub(super) fn membership_v4(
    fd: BorrowedFd<'_>,
    name: c_int,
    [group, address]: [libc::in_addr; 2],
    index: c_int,
) -> io::Result<()> {
    by_address(index)?;
    let request = libc::ip_mreq {
        imr_multiaddr: group,
        imr_interface: address,
    };
    set_option(fd, libc::IPPROTO_IP, name, request)
}

/// Sends IPv4 multicast by the interface of this number, or else of this address.
#[cfg(not(any(target_os = "netbsd", target_os = "illumos", target_os = "solaris")))]
pub(super) fn send_multicast_v4_by(
    fd: BorrowedFd<'_>,
    address: libc::in_addr,
    index: c_int,
) -> io::Result<()> {
    let none = libc::in_addr { s_addr: 0 };
    membership_v4(fd, libc::IP_MULTICAST_IF, [none, address], index)
}

/// Sends IPv4 multicast by the interface of this address.
#[cfg(any(target_os = "netbsd", target_os = "illumos", target_os = "solaris"))]
pub(super) fn send_multicast_v4_by(
    fd: BorrowedFd<'_>,
    address: libc::in_addr,
    index: c_int,
) -> io::Result<()> {
    by_address(index)?;
    set_option(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, address)
}

/// Refuses an interface that is named by its number.
#[cfg(any(target_os = "netbsd", target_os = "illumos", target_os = "solaris"))]
fn by_address(index: c_int) -> io::Result<()> {
    if index != 0 {
        let text = "for IPv4 this system is told an interface by one of its addresses";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(())
}

/// Sets how far IPv4 multicast goes, or whether it comes back. Not every system takes an `int`.
pub(super) fn set_multicast_v4(fd: BorrowedFd<'_>, name: c_int, value: u8) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_IP, name, value)
}

// ---- a bell -------------------------------------------------------------------------------------

/// What is readable once something was written to it, and what to write to, if that is another: an
/// eventfd(2).
#[cfg(target_os = "linux")]
pub(super) fn bell() -> io::Result<(File, Option<File>)> {
    // SAFETY: takes no pointer.
    let fd = unsafe { syscall!(eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }?;
    // SAFETY: the call has just made it.
    Ok((File::from(unsafe { own(fd) }), None))
}

#[cfg(not(target_os = "linux"))]
pub(super) use pipe as bell;

/// What is readable once something was written to it, and what to write to: a pipe.
#[cfg(any(not(target_os = "linux"), test))]
pub(super) fn pipe() -> io::Result<(File, Option<File>)> {
    use std::os::fd::AsFd;

    let (reader, writer) = io::pipe()?;
    let [reader, writer] = [OwnedFd::from(reader), OwnedFd::from(writer)];
    for end in [&reader, &writer] {
        super::descriptor::set_nonblocking(end.as_fd(), true)?;
    }
    Ok((File::from(reader), Some(File::from(writer))))
}

//! What a datagram socket can be told besides where it is bound: multicast, broadcast, hops.

use std::ffi::CString;
use std::fmt;
use std::io;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::mem;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::net::Ipv6Addr;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use libc::{IPPROTO_IP, IPPROTO_IPV6, SOL_SOCKET, c_int, c_uint};

use crate::sys::datagram::Family;
use crate::sys::platform;
use crate::sys::socket::set_option;

/// Which network interface a multicast group is joined on, or multicast is sent by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Interface {
    /// The one that the system's routes choose.
    Any,
    /// By its name: `eth0`.
    Name(String),
    /// By its number, as `ip link` shows it.
    Index(u32),
    /// By one of its IPv4 addresses. For IPv4 groups only.
    Address(Ipv4Addr),
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interface::Any => f.write_str("any interface"),
            Interface::Name(name) => write!(f, "interface {name}"),
            Interface::Index(index) => write!(f, "interface {index}"),
            Interface::Address(addr) => write!(f, "interface {addr}"),
        }
    }
}

/// One thing that a UDP socket can be told, as it is bound
/// ([`DatagramOptions::option`](crate::DatagramOptions::option)) and later
/// ([`Context::set_datagram_option`](crate::Context::set_datagram_option)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DatagramOption {
    /// Receive what is sent to this multicast group and arrives by this interface.
    Join(IpAddr, Interface),
    /// ... no more.
    Leave(IpAddr, Interface),
    /// By which interface multicast is sent (IP_MULTICAST_IF, IPV6_MULTICAST_IF).
    MulticastInterface(Interface),
    /// Whether multicast that is sent is received by the members on this machine, too (the
    /// system's default: yes).
    MulticastLoop(bool),
    /// How many routers multicast may pass: 0 stays on this machine, 1 (the system's default) on
    /// this network.
    MulticastHops(u8),
    /// How many routers other datagrams may pass (IP_TTL, IPV6_UNICAST_HOPS; the system's default:
    /// 64). At least 1.
    Hops(u8),
    /// Whether it may send to broadcast addresses (SO_BROADCAST; the default: no, such a send fails
    /// with `PermissionDenied`). IPv4 only.
    Broadcast(bool),
}

impl fmt::Display for DatagramOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatagramOption::Join(group, on) => write!(f, "join {group} on {on}"),
            DatagramOption::Leave(group, on) => write!(f, "leave {group} on {on}"),
            DatagramOption::MulticastInterface(by) => write!(f, "send multicast by {by}"),
            DatagramOption::MulticastLoop(on) => write!(f, "multicast loop {on}"),
            DatagramOption::MulticastHops(hops) => write!(f, "multicast hops {hops}"),
            DatagramOption::Hops(hops) => write!(f, "hops {hops}"),
            DatagramOption::Broadcast(on) => write!(f, "broadcast {on}"),
        }
    }
}

/// Sets an option; the error says which one, and what is wrong with it.
pub(super) fn apply(fd: BorrowedFd<'_>, family: Family, option: &DatagramOption) -> io::Result<()> {
    let done = match (family, option) {
        (Family::Unix, _) => Err(unfit(
            io::ErrorKind::Unsupported,
            "a Unix socket has none of these options",
        )),
        (_, DatagramOption::Join(group, on)) => membership(fd, family, *group, on, true),
        (_, DatagramOption::Leave(group, on)) => membership(fd, family, *group, on, false),
        (_, DatagramOption::Broadcast(on)) => {
            set_option(fd, SOL_SOCKET, libc::SO_BROADCAST, c_int::from(*on))
        }
        (Family::V4, option) => apply_v4(fd, option),
        (Family::V6, option) => {
            // An IPv6 socket that takes IPv4, too, has both sets of options; one that does not, or
            // an interface without IPv4, has no use for the second.
            let _ = apply_v4(fd, option);
            apply_v6(fd, option)
        }
    };
    done.map_err(|error| io::Error::new(error.kind(), format!("{option}: {error}")))
}

fn apply_v4(fd: BorrowedFd<'_>, option: &DatagramOption) -> io::Result<()> {
    let (name, value) = match option {
        DatagramOption::MulticastInterface(by) => {
            let (address, index) = interface_v4(by)?;
            return platform::send_multicast_v4_by(fd, address, index);
        }
        DatagramOption::MulticastLoop(on) => (libc::IP_MULTICAST_LOOP, u8::from(*on)),
        DatagramOption::MulticastHops(hops) => (libc::IP_MULTICAST_TTL, *hops),
        DatagramOption::Hops(hops) => {
            return set_option(fd, IPPROTO_IP, libc::IP_TTL, hops_of(*hops)?);
        }
        _ => return Ok(()),
    };
    platform::set_multicast_v4(fd, name, value)
}

fn apply_v6(fd: BorrowedFd<'_>, option: &DatagramOption) -> io::Result<()> {
    let (name, value) = match option {
        DatagramOption::MulticastInterface(by) => {
            let by = index_v6(by)?;
            return set_option(fd, IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, by);
        }
        DatagramOption::MulticastLoop(on) => (libc::IPV6_MULTICAST_LOOP, c_int::from(*on)),
        DatagramOption::MulticastHops(hops) => (libc::IPV6_MULTICAST_HOPS, c_int::from(*hops)),
        DatagramOption::Hops(hops) => (libc::IPV6_UNICAST_HOPS, hops_of(*hops)?),
        _ => return Ok(()),
    };
    set_option(fd, IPPROTO_IPV6, name, value)
}

fn hops_of(hops: u8) -> io::Result<c_int> {
    match hops {
        0 => Err(unfit(
            io::ErrorKind::InvalidInput,
            "at least 1 is needed to reach anybody",
        )),
        hops => Ok(c_int::from(hops)),
    }
}

fn membership(
    fd: BorrowedFd<'_>,
    family: Family,
    group: IpAddr,
    on: &Interface,
    joins: bool,
) -> io::Result<()> {
    if !group.is_multicast() {
        let text = "not a multicast address; those are 224.0.0.0/4 and ff00::/8";
        return Err(unfit(io::ErrorKind::InvalidInput, text));
    }
    match group {
        IpAddr::V4(group) => {
            let name = if joins {
                libc::IP_ADD_MEMBERSHIP
            } else {
                libc::IP_DROP_MEMBERSHIP
            };
            let (address, index) = interface_v4(on)?;
            platform::membership_v4(fd, name, [in_addr(group), address], index)
        }
        IpAddr::V6(_) if family == Family::V4 => Err(unfit(
            io::ErrorKind::InvalidInput,
            "a socket bound to an IPv4 address joins IPv4 groups only; bind to [::]",
        )),
        IpAddr::V6(group) => {
            let request = libc::ipv6_mreq {
                ipv6mr_multiaddr: libc::in6_addr {
                    s6_addr: group.octets(),
                },
                ipv6mr_interface: index_v6(on)?,
            };
            let name = if joins {
                platform::IPV6_ADD_MEMBERSHIP
            } else {
                platform::IPV6_DROP_MEMBERSHIP
            };
            set_option(fd, IPPROTO_IPV6, name, request)
        }
    }
    .map_err(|error| match error.raw_os_error() {
        Some(libc::EADDRINUSE) => unfit(io::ErrorKind::AddrInUse, "joined already"),
        Some(libc::EADDRNOTAVAIL) if !joins => {
            unfit(io::ErrorKind::AddrNotAvailable, "not joined there")
        }
        Some(libc::ENODEV) => unfit(
            io::ErrorKind::NotFound,
            "no such interface, or no route to the group; name an interface that is up",
        ),
        _ => error,
    })
}

fn in_addr(addr: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from_ne_bytes(addr.octets()),
    }
}

/// The interface that is meant, by its address or its number.
fn interface_v4(on: &Interface) -> io::Result<(libc::in_addr, c_int)> {
    let any = in_addr(Ipv4Addr::UNSPECIFIED);
    Ok(match on {
        Interface::Any => (any, 0),
        Interface::Address(own) => (in_addr(*own), 0),
        Interface::Name(name) => (any, index_of(name)? as c_int),
        Interface::Index(index) => (any, *index as c_int),
    })
}

fn index_v6(on: &Interface) -> io::Result<c_uint> {
    match on {
        Interface::Any => Ok(0),
        Interface::Name(name) => index_of(name),
        Interface::Index(index) => Ok(*index),
        Interface::Address(_) => Err(unfit(
            io::ErrorKind::InvalidInput,
            "for IPv6 an interface is told by its name or index",
        )),
    }
}

/// The number of an interface.
fn index_of(name: &str) -> io::Result<c_uint> {
    let no_such = || unfit(io::ErrorKind::NotFound, "no such interface");
    let text = CString::new(name).map_err(|_| no_such())?;
    // SAFETY: the name is a C string that outlives the call.
    match unsafe { libc::if_nametoindex(text.as_ptr()) } {
        0 => Err(no_such()),
        index => Ok(index),
    }
}

/// Has the kernel say with each datagram to which of our addresses it came, as far as it can.
pub(super) fn report_destination(fd: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    match family {
        Family::V4 => set_option(fd, IPPROTO_IP, libc::IP_PKTINFO, 1 as c_int)?,
        Family::V6 => {
            set_option(fd, IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1 as c_int)?;
            // For the IPv4 that comes over it: the address of ours that an answer to a broadcast or
            // a multicast has to leave from. A socket that takes IPv6 alone may refuse.
            let _ = set_option(fd, IPPROTO_IP, libc::IP_PKTINFO, 1 as c_int);
        }
        Family::Unix => {}
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (fd, family);
    Ok(())
}

/// Has the kernel keep no queue of errors beside the socket's one: nobody here reads it, and what
/// waits in it is reported for ever.
pub(super) fn queue_no_errors(fd: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    match family {
        Family::V4 => set_option(fd, IPPROTO_IP, libc::IP_RECVERR, 0 as c_int)?,
        Family::V6 => {
            set_option(fd, IPPROTO_IPV6, libc::IPV6_RECVERR, 0 as c_int)?;
            // That of the IPv4 which comes over it. A socket that takes IPv6 alone may refuse.
            let _ = set_option(fd, IPPROTO_IP, libc::IP_RECVERR, 0 as c_int);
        }
        Family::Unix => {}
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (fd, family);
    Ok(())
}

/// To which of our addresses a datagram came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Destination {
    /// As its header says: also that of a multicast group or a broadcast.
    pub(crate) to: Option<IpAddr>,
    /// From which an answer leaves.
    pub(crate) answers_from: Option<SourceAddr>,
    /// By which interface.
    pub(crate) interface: Option<u32>,
}

/// An address of ours that a datagram is to leave from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceAddr {
    pub(crate) ip: IpAddr,
    /// By which interface: of a link-local address, which each may have. 0 is any.
    interface: u32,
}

impl From<IpAddr> for SourceAddr {
    fn from(ip: IpAddr) -> SourceAddr {
        SourceAddr { ip, interface: 0 }
    }
}

/// What the kernel says beside a datagram, or is told beside one. Aligned as its headers ask for.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control(pub(super) [u8; Control::ROOM]);

impl Control {
    /// For what is asked for: an `in_pktinfo` and an `in6_pktinfo`, each behind a header of 16
    /// bytes.
    pub(super) const ROOM: usize = 96;

    pub(super) const EMPTY: Control = Control([0; Control::ROOM]);

    /// How much of it the kernel may fill in. Nothing of a Unix socket: what its peers send beside a
    /// datagram are descriptors, which without room the kernel closes; else they would be this
    /// process's, for ever.
    pub(super) fn room(family: Family) -> usize {
        match family {
            Family::V4 | Family::V6 => Control::ROOM,
            Family::Unix => 0,
        }
    }

    /// Where a datagram came to, out of the control data of its header.
    ///
    /// # Safety
    ///
    /// `header` is one that recvmsg(2) has filled in, and its control data is still there.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) unsafe fn read(header: &libc::msghdr) -> Destination {
        let mut found = Destination::default();
        // SAFETY: as promised by the caller.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
        while !next.is_null() {
            // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a whole header.
            let (level, kind) = unsafe { ((*next).cmsg_level, (*next).cmsg_type) };
            // SAFETY: as above.
            let (data, len) = unsafe { (libc::CMSG_DATA(next), (*next).cmsg_len as usize) };
            let is_whole = |size: usize| {
                // SAFETY: computes a length, and takes no pointer.
                len >= unsafe { libc::CMSG_LEN(size as c_uint) } as usize
            };
            match (level, kind) {
                // Cut off where a socket from elsewhere has more said than there is room for.
                (IPPROTO_IP, libc::IP_PKTINFO) if is_whole(size_of::<libc::in_pktinfo>()) => {
                    // SAFETY: the kernel puts this struct behind such a header, all of it.
                    let info: libc::in_pktinfo =
                        unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                    let ip = |addr: libc::in_addr| IpAddr::V4(addr.s_addr.to_ne_bytes().into());
                    found = Destination {
                        to: Some(ip(info.ipi_addr)),
                        answers_from: Some(ip(info.ipi_spec_dst).into()),
                        interface: Some(info.ipi_ifindex as u32),
                    };
                }
                (IPPROTO_IPV6, libc::IPV6_PKTINFO)
                    if found.to.is_none() && is_whole(size_of::<libc::in6_pktinfo>()) =>
                {
                    // SAFETY: the kernel puts this struct behind such a header, all of it.
                    let info: libc::in6_pktinfo =
                        unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                    #[allow(clippy::unnecessary_cast, reason = "Android has it with a sign")]
                    let interface = info.ipi6_ifindex as u32;
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    let by = if ip.is_unicast_link_local() {
                        interface
                    } else {
                        0
                    };
                    let ip = ip.to_canonical();
                    let own = SourceAddr { ip, interface: by };
                    found = Destination {
                        to: Some(ip),
                        answers_from: (!ip.is_multicast()).then_some(own),
                        interface: Some(interface),
                    };
                }
                _ => {}
            }
            // SAFETY: `next` is a whole header of this control data.
            next = unsafe { libc::CMSG_NXTHDR(header, next) };
        }
        found
    }

    /// Where a datagram came to: this system is not asked.
    ///
    /// # Safety
    ///
    /// None is needed.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) unsafe fn read(_header: &libc::msghdr) -> Destination {
        Destination::default()
    }

    /// Says which address of ours a datagram is to leave from; how many bytes that takes.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn write_source(&mut self, family: Family, from: SourceAddr) -> usize {
        match (family, from.ip) {
            (Family::V4, IpAddr::V4(from)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(from.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.write(IPPROTO_IP, libc::IP_PKTINFO, info)
            }
            (Family::V6, ip) => {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: ip.octets(),
                    },
                    ipi6_ifindex: from.interface as _,
                };
                self.write(IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
            }
            _ => 0,
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn write_source(&mut self, _family: Family, _from: SourceAddr) -> usize {
        0
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn write<T: Copy>(&mut self, level: c_int, kind: c_int, value: T) -> usize {
        let size = mem::size_of::<T>() as c_uint;
        // SAFETY: these compute lengths, and take no pointer.
        let (space, len) = unsafe { (libc::CMSG_SPACE(size), libc::CMSG_LEN(size)) };
        let space = space as usize;
        assert!(space <= Control::ROOM, "one of the two fits");
        // SAFETY: made of integers alone, for which zero is a valid value.
        let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
        header.cmsg_len = len as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        let at = self.0.as_mut_ptr();
        // SAFETY: `at` is aligned as a header asks for, and there is room for it and, behind it,
        // for the value, as has just been looked at.
        unsafe {
            at.cast::<libc::cmsghdr>().write(header);
            libc::CMSG_DATA(at.cast())
                .cast::<T>()
                .write_unaligned(value);
        }
        space
    }
}

fn unfit(kind: io::ErrorKind, text: &str) -> io::Error {
    io::Error::new(kind, text)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// What the kernel leaves of a piece of control data for which there is not enough room.
    #[test]
    fn a_destination_that_was_cut_off_is_not_read() {
        let mut control = Control::EMPTY;
        for (family, from) in [
            (Family::V4, IpAddr::from(Ipv4Addr::LOCALHOST)),
            (Family::V6, Ipv6Addr::LOCALHOST.into()),
        ] {
            let whole = control.write_source(family, from.into());
            // SAFETY: made of integers and pointers alone, for which zero is a valid value.
            let mut header: libc::msghdr = unsafe { mem::zeroed() };
            header.msg_control = (&raw mut control).cast();
            header.msg_controllen = whole;
            // SAFETY: as long as it says, and begun by a header.
            let read = |header: &libc::msghdr| unsafe { Control::read(header) };
            assert!(read(&header).to.is_some());
            let cut = mem::size_of::<libc::cmsghdr>();
            header.msg_controllen = cut;
            // SAFETY: `control` begins with a header, and is aligned for it.
            unsafe { (*(&raw mut control).cast::<libc::cmsghdr>()).cmsg_len = cut };
            assert_eq!(read(&header), Destination::default());
        }
    }
}

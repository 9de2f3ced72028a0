//! Where datagrams come from and go to.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use libc::{AF_INET6, AF_UNIX, c_int, sa_family_t, socklen_t};

use crate::sys::addr::{Endpoint, SockAddr, UNIX_PATH_ROOM, UNIX_PATH_START};

/// Where a datagram comes from or goes to, and where a socket for datagrams is bound.
///
/// Made from text in one of the forms `127.0.0.1:9000`, `[::1]:9000`, `localhost:9000` and
/// `unix:/run/x.sock`, or from a [`SocketAddr`], an IP address with a port, or a path. A host name
/// is looked up when the text is converted, which may block: give a callback's
/// [`send_to`](crate::Context::send_to) an address, not a name.
///
/// IPv4 is shown as IPv4, also where it came over an IPv6 socket: `127.0.0.1:5000`, not
/// `[::ffff:127.0.0.1]:5000`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DatagramAddr {
    /// An address and port of UDP.
    Udp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The name of a Unix socket that has no file (Linux), without the leading NUL. Bound to an
    /// empty one, the kernel makes one up.
    Abstract(Vec<u8>),
    /// A Unix socket that is not bound: nobody can send to it.
    Unnamed,
}

impl DatagramAddr {
    /// The address and port; `None` for a Unix socket.
    #[must_use]
    pub fn udp(&self) -> Option<SocketAddr> {
        match self {
            DatagramAddr::Udp(addr) => Some(*addr),
            _ => None,
        }
    }

    /// The IP address; `None` for a Unix socket.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.udp().map(|addr| addr.ip())
    }

    /// The path; `None` where there is none.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            DatagramAddr::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// Of which kind its sockets are.
    pub(crate) fn family(&self) -> Family {
        match self {
            DatagramAddr::Udp(SocketAddr::V4(_)) => Family::V4,
            DatagramAddr::Udp(SocketAddr::V6(_)) => Family::V6,
            _ => Family::Unix,
        }
    }

    /// The same for a system call on a socket of `family`.
    pub(in crate::sys) fn sock_addr(&self, family: Family) -> io::Result<SockAddr> {
        match (self, family) {
            (DatagramAddr::Udp(addr @ SocketAddr::V4(_)), Family::V4)
            | (DatagramAddr::Udp(addr @ SocketAddr::V6(_)), Family::V6) => Ok(SockAddr::ip(*addr)),
            (DatagramAddr::Udp(SocketAddr::V4(addr)), Family::V6) => {
                let mapped = addr.ip().to_ipv6_mapped();
                Ok(SockAddr::ip((mapped, addr.port()).into()))
            }
            (DatagramAddr::Unix(path), Family::Unix) => SockAddr::unix(path),
            (DatagramAddr::Abstract(name), Family::Unix) => abstract_addr(name),
            (DatagramAddr::Unnamed, _) => Err(invalid(
                "a Unix socket without a name cannot be sent to; have its owner bind it",
            )),
            (_, Family::V4) => Err(invalid(
                "a socket bound to an IPv4 address reaches IPv4 addresses only; bind to [::] to reach both",
            )),
            (_, Family::V6) => Err(invalid("a UDP socket cannot send to a Unix socket")),
            (_, Family::Unix) => Err(invalid("a Unix socket cannot send to a UDP address")),
        }
    }

    /// What a system call gave.
    pub(in crate::sys) fn of(addr: &SockAddr) -> io::Result<DatagramAddr> {
        if addr.len() as usize <= mem::size_of::<sa_family_t>() {
            return Ok(DatagramAddr::Unnamed);
        }
        if addr.family() != AF_UNIX {
            return addr.to_ip().map(DatagramAddr::Udp);
        }
        let name = addr.unix_name();
        Ok(match name.split_first() {
            None => DatagramAddr::Unnamed,
            Some((0, name)) => DatagramAddr::Abstract(name.to_vec()),
            Some(_) => {
                // Whether the NUL behind a path is counted in the length differs.
                let path = name.iter().copied().take_while(|byte| *byte != 0);
                DatagramAddr::Unix(OsString::from_vec(path.collect()).into())
            }
        })
    }
}

/// The kinds of sockets for datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    Unix,
}

impl Family {
    pub(super) fn domain(self) -> c_int {
        match self {
            Family::V4 => libc::AF_INET,
            Family::V6 => AF_INET6,
            Family::Unix => AF_UNIX,
        }
    }
}

/// An abstract name; with an empty one the kernel makes one up.
fn abstract_addr(name: &[u8]) -> io::Result<SockAddr> {
    if !cfg!(target_os = "linux") {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "abstract names of Unix sockets are known to Linux only; use a path",
        ));
    }
    if name.len() >= UNIX_PATH_ROOM {
        return Err(invalid(&format!(
            "abstract name of a Unix socket has {} bytes, the limit is {}",
            name.len(),
            UNIX_PATH_ROOM - 1
        )));
    }
    let mut path = [0_u8; UNIX_PATH_ROOM];
    path[1..=name.len()].copy_from_slice(name);
    let len = if name.is_empty() { 0 } else { 1 + name.len() };
    Ok(SockAddr::unix_raw(
        &path,
        (UNIX_PATH_START + len) as socklen_t,
    ))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

impl fmt::Display for DatagramAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatagramAddr::Udp(addr) => addr.fmt(f),
            DatagramAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            DatagramAddr::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
            DatagramAddr::Unnamed => f.pad("unix"),
        }
    }
}

impl FromStr for DatagramAddr {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<DatagramAddr> {
        Ok(match text.parse()? {
            Endpoint::Tcp(addr) => DatagramAddr::Udp(addr),
            Endpoint::Unix(path) => DatagramAddr::Unix(path),
        })
    }
}

impl TryFrom<&str> for DatagramAddr {
    type Error = io::Error;

    fn try_from(text: &str) -> io::Result<DatagramAddr> {
        text.parse()
    }
}

impl TryFrom<String> for DatagramAddr {
    type Error = io::Error;

    fn try_from(text: String) -> io::Result<DatagramAddr> {
        text.parse()
    }
}

impl TryFrom<&String> for DatagramAddr {
    type Error = io::Error;

    fn try_from(text: &String) -> io::Result<DatagramAddr> {
        text.parse()
    }
}

impl From<SocketAddr> for DatagramAddr {
    fn from(addr: SocketAddr) -> DatagramAddr {
        DatagramAddr::Udp(addr)
    }
}

impl From<(IpAddr, u16)> for DatagramAddr {
    fn from(addr: (IpAddr, u16)) -> DatagramAddr {
        DatagramAddr::Udp(addr.into())
    }
}

impl From<PathBuf> for DatagramAddr {
    fn from(path: PathBuf) -> DatagramAddr {
        DatagramAddr::Unix(path)
    }
}

impl From<&Path> for DatagramAddr {
    fn from(path: &Path) -> DatagramAddr {
        DatagramAddr::Unix(path.to_owned())
    }
}

impl From<&DatagramAddr> for DatagramAddr {
    fn from(addr: &DatagramAddr) -> DatagramAddr {
        addr.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(addr: &DatagramAddr, family: Family) -> DatagramAddr {
        DatagramAddr::of(&addr.sock_addr(family).unwrap()).unwrap()
    }

    #[test]
    fn addresses_round_trip_through_the_kernel_form() {
        let text = |text: &str| -> DatagramAddr { text.parse().unwrap() };
        for (addr, family) in [
            (text("1.2.3.4:5678"), Family::V4),
            (text("[fe80::1]:80"), Family::V6),
            (text("unix:/run/x.sock"), Family::Unix),
            (DatagramAddr::Abstract(b"a\0b".to_vec()), Family::Unix),
            // IPv4 on a socket that takes both is IPv4 again.
            (text("1.2.3.4:5678"), Family::V6),
        ] {
            assert_eq!(round(&addr, family), addr);
        }
    }

    #[test]
    fn what_a_socket_cannot_reach_is_said_in_words() {
        let to = |text: &str, family| {
            let addr: DatagramAddr = text.parse().unwrap();
            let error = addr.sock_addr(family).err().expect("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            error.to_string()
        };
        assert!(to("[::1]:1", Family::V4).contains("bind to [::]"));
        assert!(to("unix:/x", Family::V4).contains("IPv4 addresses only"));
        assert!(to("unix:/x", Family::V6).contains("Unix socket"));
        assert!(to("1.2.3.4:5", Family::Unix).contains("UDP address"));
        assert!(DatagramAddr::Unnamed.sock_addr(Family::Unix).is_err());
        let long = DatagramAddr::Abstract(vec![b'x'; UNIX_PATH_ROOM]);
        assert!(long.sock_addr(Family::Unix).is_err());
        let long = DatagramAddr::Unix("x".repeat(UNIX_PATH_ROOM).into());
        assert!(long.sock_addr(Family::Unix).is_err());
    }

    #[test]
    fn addresses_are_displayed_as_they_are_parsed() {
        for text in ["127.0.0.1:9000", "[::1]:9000", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<DatagramAddr>().unwrap().to_string(), text);
        }
        let name = DatagramAddr::Abstract(b"a\0b".to_vec());
        assert_eq!(name.to_string(), "unix:@a\\x00b");
        assert_eq!(DatagramAddr::Unnamed.to_string(), "unix");
        assert!("9000".parse::<DatagramAddr>().is_err());
    }
}

//! Addresses: the public types, and their form in system calls.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use libc::{AF_INET, AF_INET6, AF_UNIX, c_char, c_int, sa_family_t, socklen_t};

/// Who is at the other end of a connection.
///
/// An IPv4 peer of an IPv6 listener is shown as IPv4: `127.0.0.1:5000`, not
/// `[::ffff:127.0.0.1]:5000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP peer, by its address and port.
    Tcp(SocketAddr),
    /// A peer on a Unix socket. The connecting side has no name as a rule, hence none is kept.
    Unix,
}

impl Peer {
    /// The peer's IP address; `None` on a Unix socket.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(addr) => Some(addr.ip()),
            Peer::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(addr) => addr.fmt(f),
            Peer::Unix => f.pad("unix"),
        }
    }
}

/// Where a listener listens.
///
/// Made from text in one of the forms `127.0.0.1:9000`, `[::1]:9000`, `localhost:9000` and
/// `unix:/run/x.sock`, or from a [`SocketAddr`], an IP address with a port, or a path. Displayed in
/// the form that it is parsed from (a path that is not UTF-8 is displayed approximately).
///
/// A host name is looked up when the text is converted, which may block; the first address of the
/// answer is taken. Port 0 lets the system choose one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(addr) => addr.fmt(f),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Endpoint> {
        let invalid = |reason: &dyn fmt::Display| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "invalid endpoint {text:?}: {reason}; expected a form like \"127.0.0.1:9000\", \
                     \"[::1]:9000\", \"localhost:9000\" or \"unix:/run/x.sock\""
                ),
            )
        };
        if let Some(path) = text.strip_prefix("unix:") {
            // Found out here rather than at bind, where the configuration is already taken for
            // good.
            SockAddr::unix(Path::new(path)).map_err(|error| invalid(&error))?;
            return Ok(Endpoint::Unix(PathBuf::from(path)));
        }
        let mut addrs = text.to_socket_addrs().map_err(|error| invalid(&error))?;
        let addr = addrs.next().ok_or_else(|| invalid(&"no address found"))?;
        Ok(Endpoint::Tcp(addr))
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = io::Error;

    fn try_from(text: &str) -> io::Result<Endpoint> {
        text.parse()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = io::Error;

    fn try_from(text: String) -> io::Result<Endpoint> {
        text.parse()
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = io::Error;

    fn try_from(text: &String) -> io::Result<Endpoint> {
        text.parse()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Endpoint {
        Endpoint::Tcp(addr)
    }
}

impl From<(IpAddr, u16)> for Endpoint {
    fn from(addr: (IpAddr, u16)) -> Endpoint {
        Endpoint::Tcp(addr.into())
    }
}

impl From<PathBuf> for Endpoint {
    fn from(path: PathBuf) -> Endpoint {
        Endpoint::Unix(path)
    }
}

impl From<&Path> for Endpoint {
    fn from(path: &Path) -> Endpoint {
        Endpoint::Unix(path.to_owned())
    }
}

/// An address as system calls take it and give it.
pub(super) struct SockAddr {
    /// Invariant: every byte is initialised, from the zeroes that it starts as.
    repr: Repr,
    /// How many of the bytes count.
    len: socklen_t,
}

/// The shapes that an address has. Every field is made of integers alone, so that any initialised
/// bytes are a valid value of each; `storage` makes room for all of them.
#[repr(C)]
union Repr {
    storage: libc::sockaddr_storage,
    any: libc::sockaddr,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
    unix: libc::sockaddr_un,
}

/// Where the path begins in a Unix address.
pub(super) const UNIX_PATH_START: usize = mem::offset_of!(libc::sockaddr_un, sun_path);

/// The room for a path and the NUL behind it.
pub(super) const UNIX_PATH_ROOM: usize = mem::size_of::<libc::sockaddr_un>() - UNIX_PATH_START;

impl SockAddr {
    /// No address yet.
    pub(super) fn zeroed() -> SockAddr {
        SockAddr {
            repr: Repr {
                // SAFETY: made of integers alone, for which zero is a valid value.
                storage: unsafe { mem::zeroed() },
            },
            len: 0,
        }
    }

    /// The address of `endpoint`; an error for a path that no Unix socket can have.
    pub(super) fn of(endpoint: &Endpoint) -> io::Result<SockAddr> {
        match endpoint {
            Endpoint::Tcp(addr) => Ok(SockAddr::ip(*addr)),
            Endpoint::Unix(path) => SockAddr::unix(path),
        }
    }

    /// An IP address and port.
    pub(super) fn ip(addr: SocketAddr) -> SockAddr {
        let mut sock_addr = SockAddr::zeroed();
        let len = match addr {
            SocketAddr::V4(addr) => {
                sock_addr.repr.v4.sin_family = AF_INET as sa_family_t;
                sock_addr.repr.v4.sin_port = addr.port().to_be();
                sock_addr.repr.v4.sin_addr.s_addr = u32::from_ne_bytes(addr.ip().octets());
                mem::size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(addr) => {
                sock_addr.repr.v6.sin6_family = AF_INET6 as sa_family_t;
                sock_addr.repr.v6.sin6_port = addr.port().to_be();
                sock_addr.repr.v6.sin6_addr.s6_addr = addr.ip().octets();
                sock_addr.repr.v6.sin6_flowinfo = addr.flowinfo();
                sock_addr.repr.v6.sin6_scope_id = addr.scope_id();
                mem::size_of::<libc::sockaddr_in6>()
            }
        };
        sock_addr.len = len as socklen_t;
        sock_addr
    }

    /// The address of a Unix socket, unless no Unix socket can have this path.
    pub(super) fn unix(path: &Path) -> io::Result<SockAddr> {
        let bytes = path.as_os_str().as_bytes();
        let invalid = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        // An empty path would be bound to a name that the kernel makes up.
        if bytes.is_empty() {
            return invalid("unix socket path is empty".to_owned());
        }
        if bytes.contains(&0) {
            return invalid("unix socket path contains a NUL byte".to_owned());
        }
        if bytes.len() >= UNIX_PATH_ROOM {
            return invalid(format!(
                "unix socket path has {} bytes, the limit is {}",
                bytes.len(),
                UNIX_PATH_ROOM - 1
            ));
        }
        let mut sun_path = [0; UNIX_PATH_ROOM];
        sun_path[..bytes.len()].copy_from_slice(bytes);
        let len = (UNIX_PATH_START + bytes.len() + 1) as socklen_t;
        Ok(SockAddr::unix_raw(&sun_path, len))
    }

    /// The address of a Unix socket by the bytes of its name.
    pub(super) fn unix_raw(name: &[u8; UNIX_PATH_ROOM], len: socklen_t) -> SockAddr {
        let mut sock_addr = SockAddr::zeroed();
        sock_addr.repr.unix.sun_family = AF_UNIX as sa_family_t;
        sock_addr.repr.unix.sun_path = name.map(|byte| byte as c_char);
        sock_addr.len = len;
        sock_addr
    }

    /// Makes a system call that writes an address to a pointer and its length to another.
    ///
    /// The pointers are valid until `call` returns, and the length says how many bytes there are.
    pub(super) fn filled_by<T>(
        call: impl FnOnce(*mut libc::sockaddr, *mut socklen_t) -> io::Result<T>,
    ) -> io::Result<(T, SockAddr)> {
        let mut addr = SockAddr::zeroed();
        addr.len = mem::size_of::<Repr>() as socklen_t;
        let result = call((&raw mut addr.repr).cast(), &raw mut addr.len)?;
        Ok((result, addr))
    }

    /// The address for a system call, valid for [`len`](SockAddr::len) bytes.
    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.repr).cast()
    }

    /// The length for a system call.
    pub(super) fn len(&self) -> socklen_t {
        self.len
    }

    /// Room for whatever address a system call gives, and how much of it there is.
    pub(super) const ROOM: socklen_t = mem::size_of::<Repr>() as socklen_t;

    /// For a system call that writes an address of up to [`ROOM`](SockAddr::ROOM) bytes.
    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.repr).cast()
    }

    /// How many bytes such a call has written.
    pub(super) fn set_len(&mut self, len: socklen_t) {
        self.len = len.min(SockAddr::ROOM);
    }

    /// The bytes of a Unix socket's name: those of a path, or a NUL and an abstract name.
    pub(super) fn unix_name(&self) -> Vec<u8> {
        // SAFETY: see `Repr`.
        let unix = unsafe { self.repr.unix };
        let len = (self.len as usize).saturating_sub(UNIX_PATH_START);
        let name = unix.sun_path.iter().take(len);
        name.map(|byte| *byte as u8).collect()
    }

    /// `AF_INET`, `AF_INET6` or `AF_UNIX`.
    pub(super) fn family(&self) -> c_int {
        // SAFETY: see `Repr`; the family is at the same place in every shape.
        c_int::from(unsafe { self.repr.any.sa_family })
    }

    /// The address as that of a peer.
    pub(super) fn to_peer(&self) -> io::Result<Peer> {
        match self.family() {
            AF_UNIX => Ok(Peer::Unix),
            _ => self.to_ip().map(Peer::Tcp),
        }
    }

    /// The address as the local one. That of the connecting side of a Unix socket has an empty
    /// path.
    pub(super) fn to_endpoint(&self) -> io::Result<Endpoint> {
        match self.family() {
            AF_UNIX => Ok(Endpoint::Unix(self.to_path())),
            _ => self.to_ip().map(Endpoint::Tcp),
        }
    }

    /// The IP address and port, an IPv4 address in its own form.
    pub(super) fn to_ip(&self) -> io::Result<SocketAddr> {
        match self.family() {
            AF_INET => {
                // SAFETY: see `Repr`.
                let v4 = unsafe { self.repr.v4 };
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Ok(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
            }
            AF_INET6 => {
                // SAFETY: see `Repr`.
                let v6 = unsafe { self.repr.v6 };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Ok(match ip.to_ipv4_mapped() {
                    Some(ip) => SocketAddr::new(ip.into(), port),
                    None => SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into(),
                })
            }
            family => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("socket address of unknown family {family}"),
            )),
        }
    }

    /// The path of a Unix address.
    fn to_path(&self) -> PathBuf {
        // SAFETY: see `Repr`.
        let unix = unsafe { self.repr.unix };
        // Whether the NUL is counted in the length differs between kernels and callers.
        let bytes = unix.sun_path.iter().map(|byte| *byte as u8);
        let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
        PathBuf::from(OsString::from_vec(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;

    fn error(text: &str) -> String {
        let error = text.parse::<Endpoint>().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        error.to_string()
    }

    #[test]
    fn endpoints_round_trip_through_text() {
        for text in [
            "127.0.0.1:9000",
            "[::1]:9000",
            "0.0.0.0:0",
            "unix:/run/x.sock",
            "unix:a b",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(Endpoint::try_from(text).unwrap(), endpoint);
            assert_eq!(Endpoint::try_from(text.to_owned()).unwrap(), endpoint);
            assert_eq!(Endpoint::try_from(&text.to_owned()).unwrap(), endpoint);
        }
        let Endpoint::Tcp(addr) = "localhost:9000".parse().unwrap() else {
            panic!("localhost is a TCP endpoint");
        };
        assert!(addr.ip().is_loopback());
    }

    #[test]
    fn endpoints_come_from_addresses_and_paths() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(Endpoint::from(addr), Endpoint::Tcp(addr));
        assert_eq!(Endpoint::from((addr.ip(), 9)), Endpoint::Tcp(addr));
        let path = Path::new("/run/x.sock");
        assert_eq!(Endpoint::from(path), Endpoint::from(path.to_owned()));
    }

    #[test]
    fn a_refused_endpoint_names_the_text_and_the_forms() {
        for text in [
            "",
            "9000",
            "127.0.0.1",
            "127.0.0.1:x",
            "127.0.0.1:70000",
            "[::1]",
            "/run/x",
        ] {
            let message = error(text);
            assert!(message.contains(&format!("{text:?}")), "{message}");
            assert!(message.contains("unix:/run/x.sock"), "{message}");
        }
        assert!(error("unix:").contains("empty"));
        assert!(error("unix:/a\0b").contains("NUL"));
    }

    #[test]
    fn the_limit_of_a_unix_path_is_exact() {
        let longest = format!("unix:/{}", "x".repeat(UNIX_PATH_ROOM - 2));
        longest.parse::<Endpoint>().unwrap();
        let message = error(&(longest + "x"));
        assert!(message.contains("108 bytes, the limit is 107"), "{message}");
    }

    #[test]
    fn addresses_round_trip_through_the_kernel_form() {
        let v6: SocketAddr = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 5, 7).into();
        for endpoint in [
            Endpoint::Tcp("1.2.3.4:5678".parse().unwrap()),
            Endpoint::Tcp(v6),
            Endpoint::Unix("/run/x.sock".into()),
        ] {
            let addr = SockAddr::of(&endpoint).unwrap();
            assert_eq!(addr.to_endpoint().unwrap(), endpoint);
        }
        assert!(SockAddr::zeroed().to_peer().is_err());
    }

    #[test]
    fn a_mapped_peer_is_shown_as_ipv4() {
        let peer = SockAddr::ip("[::ffff:127.0.0.1]:5000".parse().unwrap())
            .to_peer()
            .unwrap();
        let v4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000);
        assert_eq!(peer, Peer::Tcp(v4.into()));
        assert_eq!(peer.to_string(), "127.0.0.1:5000");
        assert_eq!(peer.ip(), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }

    #[test]
    fn peers_are_displayed_briefly() {
        assert_eq!(
            Peer::Tcp("[::1]:5000".parse().unwrap()).to_string(),
            "[::1]:5000"
        );
        assert_eq!(Peer::Unix.to_string(), "unix");
        assert_eq!(Peer::Unix.ip(), None);
    }
}

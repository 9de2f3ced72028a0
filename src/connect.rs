//! Connecting out: where to, how, and why it came to nothing. What a poller does about it is in
//! [`hosts::connecting`](crate::hosts).

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::origin::ConnectionOptions;
use crate::sys::{
    CannotConnect, Endpoint, LookupError, SocketOptions, Step, check_path, is_out_of_descriptors,
    is_out_of_memory, is_out_of_ports,
};
use crate::tls::{Client, TlsError};

/// The longest name of a host that the domain name system has room for.
const HOST_MAX: usize = 253;

/// Where to connect to.
///
/// Made from text in one of the forms `db.example:5432`, `127.0.0.1:9000`, `[::1]:9000` and
/// `unix:/run/x.sock`, or from a [`SocketAddr`], an IP address with a port, a path, or an
/// [`Endpoint`]. Displayed in the form that it is parsed from.
///
/// A name is kept as it is. It is looked up when the connect is made, each time anew, on a thread
/// of its own: to make one of these never blocks.
///
/// ```
/// use greenroom::Remote;
///
/// let remote: Remote = "db.example:5432".parse()?;
/// assert_eq!(remote.to_string(), "db.example:5432");
/// let error = "db.example".parse::<Remote>().unwrap_err();
/// assert_eq!(error.kind(), greenroom::RemoteErrorKind::Port);
/// # Ok::<(), greenroom::RemoteError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Remote {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A host by its name, which is still to be looked up, and a TCP port.
    Name {
        /// As it is given to the system's resolver.
        host: String,
        /// Never 0.
        port: u16,
    },
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remote::Tcp(addr) => addr.fmt(f),
            Remote::Unix(path) => write!(f, "unix:{}", path.display()),
            Remote::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Remote {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Remote, RemoteError> {
        let invalid = |kind| RemoteError {
            text: text.to_owned(),
            kind,
        };
        if let Some(path) = text.strip_prefix("unix:") {
            // Found out here rather than when the connect is made.
            check_path(Path::new(path)).map_err(|_| invalid(RemoteErrorKind::Path))?;
            return Ok(Remote::Unix(path.into()));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(invalid(RemoteErrorKind::Port));
        };
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port.parse() {
            Ok(port) if is_number && port > 0 => port,
            _ => return Err(invalid(RemoteErrorKind::Port)),
        };
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Remote::Tcp(addr));
        }
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if host.is_empty() || host.len() > HOST_MAX || !host.chars().all(fits) {
            return Err(invalid(RemoteErrorKind::Host));
        }
        let host = host.to_owned();
        Ok(Remote::Name { host, port })
    }
}

impl TryFrom<&str> for Remote {
    type Error = RemoteError;

    fn try_from(text: &str) -> Result<Remote, RemoteError> {
        text.parse()
    }
}

impl TryFrom<String> for Remote {
    type Error = RemoteError;

    fn try_from(text: String) -> Result<Remote, RemoteError> {
        text.parse()
    }
}

impl TryFrom<&String> for Remote {
    type Error = RemoteError;

    fn try_from(text: &String) -> Result<Remote, RemoteError> {
        text.parse()
    }
}

impl From<SocketAddr> for Remote {
    fn from(addr: SocketAddr) -> Remote {
        Remote::Tcp(addr)
    }
}

impl From<(IpAddr, u16)> for Remote {
    fn from(addr: (IpAddr, u16)) -> Remote {
        Remote::Tcp(addr.into())
    }
}

impl From<PathBuf> for Remote {
    fn from(path: PathBuf) -> Remote {
        Remote::Unix(path)
    }
}

impl From<&Path> for Remote {
    fn from(path: &Path) -> Remote {
        Remote::Unix(path.to_owned())
    }
}

impl From<Endpoint> for Remote {
    fn from(endpoint: Endpoint) -> Remote {
        match endpoint {
            Endpoint::Tcp(addr) => Remote::Tcp(addr),
            Endpoint::Unix(path) => Remote::Unix(path),
        }
    }
}

impl From<&Endpoint> for Remote {
    fn from(endpoint: &Endpoint) -> Remote {
        endpoint.clone().into()
    }
}

impl From<&Remote> for Remote {
    fn from(remote: &Remote) -> Remote {
        remote.clone()
    }
}

/// A text that is no [`Remote`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteError {
    text: String,
    kind: RemoteErrorKind,
}

/// What is wrong with a text that is no [`Remote`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemoteErrorKind {
    /// There is no port, or it is not a number from 1 to 65,535.
    Port,
    /// The host is missing, longer than 253 bytes, or has a character that no name has.
    Host,
    /// The path behind `unix:` is one that no Unix socket can have: empty, longer than the system
    /// allows (107 bytes on Linux), or with a NUL byte.
    Path,
}

impl RemoteError {
    /// What is wrong.
    pub fn kind(&self) -> RemoteErrorKind {
        self.kind
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            RemoteErrorKind::Port => "it has no port from 1 to 65535",
            RemoteErrorKind::Host => "its host is no name or address",
            RemoteErrorKind::Path => "no Unix socket can have this path: it is empty or too long",
        };
        let text = &self.text;
        write!(
            f,
            "invalid remote {text:?}: {what}; expected a form like \"db.example:5432\", \
             \"127.0.0.1:9000\", \"[::1]:9000\" or \"unix:/run/x.sock\""
        )
    }
}

impl Error for RemoteError {}

impl From<RemoteError> for io::Error {
    fn from(error: RemoteError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

/// How to connect: [all defaults and their reasons](crate#defaults).
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    pub(crate) connection: ConnectionOptions,
    pub(crate) timeout: Duration,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) socket: SocketOptions,
    pub(crate) tls: Option<Client>,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            connection: ConnectionOptions::default(),
            timeout: Duration::from_secs(10),
            local: None,
            socket: SocketOptions::new(),
            tls: None,
        }
    }
}

impl ConnectOptions {
    /// The defaults.
    pub fn new() -> ConnectOptions {
        ConnectOptions::default()
    }

    /// The limits that the connection lives under. Connections with equal ones share them, however
    /// often they were written down.
    ///
    /// [`first_bytes_timeout`](ConnectionOptions::first_bytes_timeout) is for connections that are
    /// accepted, and does nothing here.
    pub fn connection(mut self, options: ConnectionOptions) -> Self {
        self.connection = options;
        self
    }

    /// How long it all may take, from the call to [`opened`](crate::Actor::opened): the lookup of
    /// the name, and the attempts at all of its addresses. Past it the connect ends with
    /// [`ConnectErrorKind::TimedOut`]. By default 10 s.
    ///
    /// Of several addresses each is given an equal share of the time that is left when its turn
    /// comes.
    pub fn timeout(mut self, after: Duration) -> Self {
        self.timeout = after;
        self
    }

    /// The address on our side; with port 0 the system chooses one that is free towards the remote
    /// one, any other port serves one connection to each remote address (SO_REUSEADDR is on). By
    /// default the system chooses the address, too. Remote addresses of the other family are left
    /// out. TCP only.
    pub fn local_addr(mut self, addr: SocketAddr) -> Self {
        self.local = Some(addr);
        self
    }

    /// What the kernel is told of the socket before it connects, the network device among it. Called
    /// again, what is set anew wins. By default small writes leave at once (TCP_NODELAY), since a
    /// turn's writes are joined already.
    ///
    /// With [`SocketOptions::fast_open`] the connect leaves with the first bytes that are written, if
    /// the peer is known for taking them: `opened` then comes before anybody has answered, and that
    /// nobody does is told as for a connection that is lost.
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.socket.extend(options);
        self
    }

    /// Secures the connection by TLS. [`opened`](crate::Actor::opened) comes when the handshake is done,
    /// which is to be within the [timeout](ConnectOptions::timeout) of the whole; from then on the actor
    /// is one like on a plain connection, and [`Context::tls`](crate::Context::tls) tells what was agreed
    /// on. By default no connection is secured.
    ///
    /// Where it comes to nothing, because the server's certificate is not accepted or for another
    /// reason, no other address of the name is tried; the reason is [`ConnectErrorKind::Tls`], and its
    /// source a [`TlsError`].
    #[cfg(feature = "tls")]
    pub fn tls(mut self, client: Client) -> Self {
        self.tls = Some(client);
        self
    }
}

/// Why a connect came to nothing: what [`CloseReason::NotConnected`](crate::CloseReason) holds.
#[derive(Debug)]
pub struct ConnectError {
    /// Boxed: it is one of many reasons, and the seldom one.
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: ConnectErrorKind,
    to: Remote,
    last: Option<Endpoint>,
    tried: usize,
    source: Option<io::Error>,
}

/// Why a connect came to nothing. Where several addresses were tried it is what the last of them
/// failed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// Nobody listens there.
    Refused,
    /// Nobody answered, or the name was not looked up, or the backlog of a Unix socket was full,
    /// until the [deadline](ConnectOptions::timeout).
    TimedOut,
    /// There is no way to that network.
    NetworkUnreachable,
    /// There is no way to that host; or none from the [local address](ConnectOptions::local_addr), or
    /// to an IPv6 address of a link without its scope (`[fe80::1%2]:80`).
    HostUnreachable,
    /// The peer reset the connection while it was being made.
    Reset,
    /// There is no host of that name, or it has no address.
    NoSuchName,
    /// The name could not be looked up now: no name server answered, or the lookup failed. Later it
    /// may go.
    LookupFailed,
    /// More lookups wait already than may: 1,024 for each system.
    TooManyLookups,
    /// The process or the system has no descriptor left (`EMFILE`, `ENFILE`).
    NoDescriptors,
    /// The kernel has no memory left for it (`ENOBUFS`, `ENOMEM`).
    NoMemory,
    /// The [local address](ConnectOptions::local_addr) is none of this machine, is taken, or is of
    /// another family than all of the remote ones; or no port is left on our side.
    LocalAddress,
    /// One of the [options](ConnectOptions::socket) cannot be set: there is no such network device,
    /// it is for another kind of socket, or it takes a capability. [`source`](Error::source) names
    /// it.
    SocketOption,
    /// There is nothing at the path of the Unix socket.
    NoSuchPath,
    /// No Unix socket can have this path: it is empty, too long, or has a NUL byte.
    InvalidPath,
    /// The process may not connect there, or not in this way.
    PermissionDenied,
    /// The actor was closed by its address ([`Addr::close`](crate::Addr::close)) meanwhile.
    Closed,
    /// The system stops. To connect again is in vain.
    Stopped,
    /// The connection was made, and [TLS](crate::TlsError) was not agreed on. [`source`](Error::source)
    /// tells why.
    Tls,
    /// Something else: [`source`](Error::source) tells.
    Other,
}

impl ConnectErrorKind {
    /// Whether another address may do better.
    pub(crate) fn is_of_one_address(self) -> bool {
        use ConnectErrorKind::*;
        !matches!(self, NoDescriptors | NoMemory | Tls)
    }

    fn of_error(error: &io::Error) -> ConnectErrorKind {
        use ConnectErrorKind::*;
        if is_out_of_descriptors(error) {
            return NoDescriptors;
        } else if is_out_of_memory(error) {
            return NoMemory;
        } else if is_out_of_ports(error) {
            return LocalAddress;
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Refused,
            io::ErrorKind::TimedOut => TimedOut,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => NetworkUnreachable,
            io::ErrorKind::HostUnreachable => HostUnreachable,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Reset,
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => LocalAddress,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NoSuchPath,
            io::ErrorKind::InvalidInput => InvalidPath,
            io::ErrorKind::PermissionDenied => PermissionDenied,
            _ => Other,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ConnectErrorKind::Refused => "nobody listens there",
            ConnectErrorKind::TimedOut => "no answer in time",
            ConnectErrorKind::NetworkUnreachable => "no way to that network",
            ConnectErrorKind::HostUnreachable => "no way to that host",
            ConnectErrorKind::Reset => "reset while it was being made",
            ConnectErrorKind::NoSuchName => "no host of that name",
            ConnectErrorKind::LookupFailed => "the name could not be looked up",
            ConnectErrorKind::TooManyLookups => "too many lookups wait already",
            ConnectErrorKind::NoDescriptors => "no descriptor left",
            ConnectErrorKind::NoMemory => "no kernel memory left",
            ConnectErrorKind::LocalAddress => "the address on our side cannot be had",
            ConnectErrorKind::SocketOption => "an option cannot be set",
            ConnectErrorKind::NoSuchPath => "no such path",
            ConnectErrorKind::InvalidPath => "no Unix socket can have this path",
            ConnectErrorKind::PermissionDenied => "not permitted",
            ConnectErrorKind::Closed => "closed meanwhile",
            ConnectErrorKind::Stopped => "the system stops",
            ConnectErrorKind::Tls => "not secured",
            ConnectErrorKind::Other => "failed",
        }
    }
}

impl fmt::Display for ConnectErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ConnectError {
    pub(crate) fn new(
        kind: ConnectErrorKind,
        to: Remote,
        last: Option<Endpoint>,
        tried: usize,
        source: Option<io::Error>,
    ) -> ConnectError {
        let inner = Inner {
            kind,
            to,
            last,
            tried,
            source,
        };
        ConnectError {
            inner: Box::new(inner),
        }
    }

    /// As much of it again as can be had.
    pub(crate) fn to_owned(&self) -> ConnectError {
        let Inner {
            kind,
            ref to,
            ref last,
            tried,
            ref source,
        } = *self.inner;
        let source = source.as_ref().map(copy_of);
        ConnectError::new(kind, to.clone(), last.clone(), tried, source)
    }

    /// Why.
    pub fn kind(&self) -> ConnectErrorKind {
        self.inner.kind
    }

    /// Where it was to go.
    pub fn to(&self) -> &Remote {
        &self.inner.to
    }

    /// The address that was tried last; `None` where it did not come to that.
    pub fn last_addr(&self) -> Option<&Endpoint> {
        self.inner.last.as_ref()
    }

    /// How many addresses were tried.
    pub fn addrs_tried(&self) -> usize {
        self.inner.tried
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            to,
            last,
            tried,
            source,
        } = &*self.inner;
        write!(f, "connect to {to}: {kind}")?;
        match last {
            Some(last) if *tried > 1 => write!(f, " ({tried} addresses tried, last {last})")?,
            Some(last) if Remote::from(last) != *to => write!(f, " ({last} tried)")?,
            _ => {}
        }
        match source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.inner.source.as_ref()?;
        Some(source)
    }
}

/// As much of an error again as can be had.
pub(crate) fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Why an attempt at one address failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ConnectErrorKind,
    pub(crate) source: Option<io::Error>,
}

impl Failure {
    pub(crate) fn of(kind: ConnectErrorKind) -> Failure {
        Failure { kind, source: None }
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Failure {
        Failure {
            kind: ConnectErrorKind::Tls,
            source: Some(io::Error::other(error)),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure {
            kind: ConnectErrorKind::of_error(&error),
            source: Some(error),
        }
    }
}

impl From<LookupError> for Failure {
    fn from(failed: LookupError) -> Failure {
        let kind = if failed.is_unknown {
            ConnectErrorKind::NoSuchName
        } else {
            ConnectErrorKind::LookupFailed
        };
        let source = Some(failed.error);
        Failure { kind, source }
    }
}

impl From<CannotConnect> for Failure {
    fn from(failed: CannotConnect) -> Failure {
        let CannotConnect { step, error } = failed;
        let of_error = ConnectErrorKind::of_error(&error);
        let kind = match (step, of_error) {
            (_, ConnectErrorKind::NoDescriptors | ConnectErrorKind::NoMemory) => of_error,
            (Step::Options, _) => ConnectErrorKind::SocketOption,
            // A port below 1024.
            (Step::Bind, ConnectErrorKind::PermissionDenied) => of_error,
            (Step::Bind, _) => ConnectErrorKind::LocalAddress,
            (Step::Open, ConnectErrorKind::InvalidPath) => ConnectErrorKind::Other,
            // The system's word for an address, where a path is refused before it is asked.
            (Step::Connect, ConnectErrorKind::InvalidPath) if error.raw_os_error().is_some() => {
                ConnectErrorKind::HostUnreachable
            }
            (Step::Open | Step::Connect, _) => of_error,
        };
        let source = Some(error);
        Failure { kind, source }
    }
}

/// What is to be connected to, and how: what a new actor waits for.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) to: Remote,
    pub(crate) options: ConnectOptions,
}

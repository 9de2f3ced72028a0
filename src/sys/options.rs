//! What a socket can be told: one list of options, for listeners, connects, datagrams, and sockets
//! that are in use.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET, c_int, socklen_t};

use super::addr::Endpoint;
use super::platform;
use super::socket::set_option;

/// Probes that the kernel sends on a connection that is silent, to find out whether the peer is
/// still there. One that answers none of them ends with
/// [`CloseReason::Io`](crate::CloseReason::Io), the error being `TimedOut`.
///
/// They are the kernel's: neither actor sees them. What is not set stays as the system has it
/// (Linux: 2 hours, 75 seconds, 9 times).
///
/// ```
/// use std::time::Duration;
/// use greenroom::{Keepalive, SocketOptions};
///
/// let keepalive = Keepalive::after(Duration::from_secs(60)).every(Duration::from_secs(10)).times(3);
/// let options = SocketOptions::new().keepalive(keepalive);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    idle: Duration,
    interval: Option<Duration>,
    count: Option<u32>,
}

impl Keepalive {
    /// The first probe when nothing has come for this long (TCP_KEEPIDLE). Whole seconds, rounded
    /// up; from 1 to 32,767.
    #[must_use]
    pub fn after(idle: Duration) -> Keepalive {
        Keepalive {
            idle,
            interval: None,
            count: None,
        }
    }

    /// From one probe to the next (TCP_KEEPINTVL). Whole seconds, rounded up; from 1 to 32,767.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Keepalive {
        self.interval = Some(interval);
        self
    }

    /// How many probes without an answer end the connection (TCP_KEEPCNT); from 1 to 127.
    #[must_use]
    pub fn times(mut self, count: u32) -> Keepalive {
        self.count = Some(count);
        self
    }
}

/// One option of a socket.
///
/// Each says in brackets what the system calls it, and which sockets have it. On another kind of
/// socket it is an error of kind [`Unsupported`](io::ErrorKind::Unsupported) that names both, never
/// silence. The methods of [`SocketOptions`] say more of each.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketOption {
    /// [`SocketOptions::nodelay`]
    NoDelay(bool),
    /// [`SocketOptions::keepalive`]; `None` is off.
    Keepalive(Option<Keepalive>),
    /// [`SocketOptions::user_timeout`]; zero is the system's own.
    UserTimeout(Duration),
    /// [`SocketOptions::quickack`]
    QuickAck(bool),
    /// [`SocketOptions::defer_accept`]
    DeferAccept(Duration),
    /// [`SocketOptions::fast_open`]
    FastOpen(u32),
    /// [`SocketOptions::send_buffer`]
    SendBuffer(u32),
    /// [`SocketOptions::receive_buffer`]
    ReceiveBuffer(u32),
    /// [`SocketOptions::tos`]
    Tos(u8),
    /// [`SocketOptions::mark`]
    Mark(u32),
    /// [`SocketOptions::device`]; the empty name is any device.
    Device(String),
    /// [`SocketOptions::only_v6`]
    OnlyV6(bool),
    /// [`SocketOptions::transparent`]
    Transparent(bool),
    /// The processor whose connects a listener of a SO_REUSEPORT group prefers
    /// (SO_INCOMING_CPU); see [`ListenOptions::by_processor`](crate::ListenOptions::by_processor).
    IncomingCpu(u32),
}

impl SocketOption {
    /// What the system calls it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            SocketOption::NoDelay(_) => "TCP_NODELAY",
            SocketOption::Keepalive(_) => "SO_KEEPALIVE",
            SocketOption::UserTimeout(_) => "TCP_USER_TIMEOUT",
            SocketOption::QuickAck(_) => "TCP_QUICKACK",
            SocketOption::DeferAccept(_) => "TCP_DEFER_ACCEPT",
            SocketOption::FastOpen(_) => "TCP_FASTOPEN",
            SocketOption::SendBuffer(_) => "SO_SNDBUF",
            SocketOption::ReceiveBuffer(_) => "SO_RCVBUF",
            SocketOption::Tos(_) => "IP_TOS",
            SocketOption::Mark(_) => "SO_MARK",
            SocketOption::Device(_) => "SO_BINDTODEVICE",
            SocketOption::OnlyV6(_) => "IPV6_V6ONLY",
            SocketOption::Transparent(_) => "IP_TRANSPARENT",
            SocketOption::IncomingCpu(_) => "SO_INCOMING_CPU",
        }
    }

    /// Whether the system has it for such sockets, for this use of them; else why not.
    fn check(&self, kind: Kind, role: Role) -> io::Result<()> {
        use SocketOption::*;
        let is_ip = matches!(kind.family, Family::V4 | Family::V6);
        let is_tcp = is_ip && kind.is_stream;
        let (fits, what) = match self {
            NoDelay(_) | Keepalive(_) | UserTimeout(_) | QuickAck(_) => (is_tcp, "TCP"),
            DeferAccept(_) => (is_tcp && role == Role::Listener, "a TCP listener"),
            FastOpen(_) => (
                is_tcp && role != Role::Open,
                "a TCP listener or a connect that is to be made",
            ),
            Tos(_) | Mark(_) | Device(_) | Transparent(_) => (is_ip, "TCP and UDP"),
            IncomingCpu(_) => (
                is_ip && role != Role::Connect,
                "TCP and UDP sockets that share a port",
            ),
            OnlyV6(_) => (
                kind.family == Family::V6 && role != Role::Open,
                "IPv6 sockets that are not bound yet",
            ),
            SendBuffer(_) | ReceiveBuffer(_) => (true, ""),
        };
        if fits {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("set {self}: this is {kind}{role}; the option is for {what}"),
        ))
    }

    /// Tells the kernel. The kind of socket has been checked.
    fn set(&self, fd: BorrowedFd<'_>, kind: Kind, role: Role) -> io::Result<()> {
        self.tell(fd, kind, role)
            .map_err(|error| self.explain(kind, error))
    }

    fn tell(&self, fd: BorrowedFd<'_>, kind: Kind, role: Role) -> io::Result<()> {
        use SocketOption::*;
        let tcp = |name, value: c_int| set_option(fd, IPPROTO_TCP, name, value);
        let socket = |name, value: c_int| set_option(fd, SOL_SOCKET, name, value);
        match self {
            NoDelay(on) => tcp(libc::TCP_NODELAY, (*on).into()),
            Keepalive(None) => socket(libc::SO_KEEPALIVE, 0),
            Keepalive(Some(keepalive)) => {
                tcp(platform::TCP_KEEPIDLE, seconds(keepalive.idle))?;
                if let Some(interval) = keepalive.interval {
                    tcp(platform::TCP_KEEPINTVL, seconds(interval))?;
                }
                if let Some(count) = keepalive.count {
                    tcp(platform::TCP_KEEPCNT, int(count))?;
                }
                // Last: a probe's time is reckoned by what is set when it is switched on.
                socket(libc::SO_KEEPALIVE, 1)
            }
            UserTimeout(after) => {
                let millis = after.as_nanos().div_ceil(1_000_000);
                tcp(
                    platform::TCP_USER_TIMEOUT,
                    c_int::try_from(millis).unwrap_or(c_int::MAX),
                )
            }
            QuickAck(on) => tcp(platform::TCP_QUICKACK, (*on).into()),
            DeferAccept(after) => tcp(platform::TCP_DEFER_ACCEPT, seconds(*after)),
            FastOpen(queue) if role == Role::Listener => tcp(platform::TCP_FASTOPEN, int(*queue)),
            FastOpen(queue) => tcp(platform::TCP_FASTOPEN_CONNECT, (*queue > 0).into()),
            SendBuffer(bytes) => socket(libc::SO_SNDBUF, int(*bytes)),
            ReceiveBuffer(bytes) => socket(libc::SO_RCVBUF, int(*bytes)),
            Tos(tos) => {
                // An IPv6 socket may carry IPv4, which has a value of its own.
                set_option(fd, IPPROTO_IP, libc::IP_TOS, c_int::from(*tos))?;
                match kind.family {
                    Family::V6 => {
                        set_option(fd, IPPROTO_IPV6, libc::IPV6_TCLASS, c_int::from(*tos))
                    }
                    _ => Ok(()),
                }
            }
            // The bits, whatever they would be as a number with a sign.
            Mark(mark) => socket(platform::SO_MARK, mark.cast_signed()),
            Device(name) => bind_to_device(fd, name),
            OnlyV6(on) => set_option(fd, IPPROTO_IPV6, libc::IPV6_V6ONLY, c_int::from(*on)),
            Transparent(on) if kind.family == Family::V6 => set_option(
                fd,
                IPPROTO_IPV6,
                platform::IPV6_TRANSPARENT,
                c_int::from(*on),
            ),
            Transparent(on) => {
                set_option(fd, IPPROTO_IP, platform::IP_TRANSPARENT, c_int::from(*on))
            }
            IncomingCpu(cpu) => socket(platform::SO_INCOMING_CPU, int(*cpu)),
        }
    }

    fn explain(&self, kind: Kind, error: io::Error) -> io::Error {
        let needs = match (self, error.kind()) {
            (_, io::ErrorKind::InvalidInput) => "; the system takes no such value",
            (SocketOption::Device(_), io::ErrorKind::PermissionDenied) => {
                "; it needs the capability CAP_NET_RAW"
            }
            (_, io::ErrorKind::PermissionDenied) => "; it needs the capability CAP_NET_ADMIN",
            (SocketOption::Device(_), _) if error.raw_os_error() == Some(libc::ENODEV) => {
                "; see `ip link` for those that there are"
            }
            _ => "",
        };
        io::Error::new(
            error.kind(),
            format!("set {self} on {kind}: {error}{needs}"),
        )
    }
}

/// What the system calls it, and the value.
impl fmt::Display for SocketOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use SocketOption::*;
        let name = self.name();
        match self {
            NoDelay(on) | QuickAck(on) | OnlyV6(on) | Transparent(on) => write!(f, "{name}={on}"),
            Keepalive(None) => write!(f, "{name}=false"),
            Keepalive(Some(keepalive)) => write!(f, "{name}={keepalive:?}"),
            UserTimeout(after) | DeferAccept(after) => write!(f, "{name}={after:?}"),
            FastOpen(n) | SendBuffer(n) | ReceiveBuffer(n) | IncomingCpu(n) => {
                write!(f, "{name}={n}")
            }
            Tos(tos) => write!(f, "{name}={tos:#04x}"),
            Mark(mark) => write!(f, "{name}={mark:#x}"),
            Device(device) => write!(f, "{name}={device:?}"),
        }
    }
}

/// Options of a socket. What is not set stays as the system has it, but for TCP_NODELAY, which
/// greenroom switches on for every TCP connection.
///
/// For [`ListenOptions::socket`](crate::ListenOptions::socket), where they hold for all that the
/// listener accepts: Linux hands them down from the listener, without a system call for each
/// connection, but for [`quickack`](SocketOptions::quickack), and the buffers of a Unix socket. For
/// a connection that is there: [`Context::set_option`](crate::Context::set_option).
///
/// An option that the kind of socket does not have (TCP_NODELAY on a Unix socket, IPV6_V6ONLY on
/// IPv4) is an error of kind [`Unsupported`](io::ErrorKind::Unsupported) which names the option and
/// the socket, where the options are used. So is whatever the system refuses: a device that is not
/// there, a right that the process does not have. Set twice, the last one counts.
///
/// ```
/// use std::time::Duration;
/// use greenroom::{Keepalive, SocketOptions};
///
/// let options = SocketOptions::new()
///     .keepalive(Keepalive::after(Duration::from_secs(60)))
///     .user_timeout(Duration::from_secs(90))
///     .tos(0x10);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// No two of the same name; in the order in which they are carried out.
    options: Vec<SocketOption>,
}

impl SocketOptions {
    /// None set.
    #[must_use]
    pub const fn new() -> SocketOptions {
        SocketOptions {
            options: Vec::new(),
        }
    }

    /// Sets this one, in place of what was set under its name.
    #[must_use]
    pub fn with(mut self, option: SocketOption) -> SocketOptions {
        self.set(option);
        self
    }

    /// Whether small writes leave at once (TCP_NODELAY). TCP. On unless this says otherwise.
    #[must_use]
    pub fn nodelay(self, on: bool) -> SocketOptions {
        self.with(SocketOption::NoDelay(on))
    }

    /// Probes a silent connection (SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT); `None`
    /// switches that off. TCP. Off in Linux.
    #[must_use]
    pub fn keepalive(self, keepalive: impl Into<Option<Keepalive>>) -> SocketOptions {
        self.with(SocketOption::Keepalive(keepalive.into()))
    }

    /// How long bytes that have been sent may wait to be acknowledged before the kernel ends the
    /// connection (TCP_USER_TIMEOUT), which the actor learns as
    /// [`CloseReason::Io`](crate::CloseReason::Io) with `TimedOut`. Milliseconds, rounded up; zero
    /// is the system's own, about a quarter of an hour. With keepalive it takes the place of
    /// [`Keepalive::times`]. TCP.
    ///
    /// It sees a peer that has gone; [`ConnectionOptions::stuck_timeout`](crate::ConnectionOptions::stuck_timeout)
    /// also sees one that is there and does not read.
    #[must_use]
    pub fn user_timeout(self, after: Duration) -> SocketOptions {
        self.with(SocketOption::UserTimeout(after))
    }

    /// Acknowledges what arrives at once, without waiting for an answer to carry it (TCP_QUICKACK).
    /// TCP.
    ///
    /// The kernel goes back to waiting by itself when a connection looks like an exchange of
    /// question and answer; an actor that wants it for good sets it again. Linux does not hand it
    /// down from a listener: on one it costs each connection a system call.
    #[must_use]
    pub fn quickack(self, on: bool) -> SocketOptions {
        self.with(SocketOption::QuickAck(on))
    }

    /// A listener is told of a connect when its first bytes have come, or after about this long
    /// (TCP_DEFER_ACCEPT): for protocols in which the client speaks first. Whole seconds, rounded
    /// up, and then to the kernel's next retransmission. TCP listeners.
    #[must_use]
    pub fn defer_accept(self, after: Duration) -> SocketOptions {
        self.with(SocketOption::DeferAccept(after))
    }

    /// Bytes travel with the connect, for peers that have met before (TCP Fast Open). On a TCP
    /// listener the number of such connects whose handshake may be unfinished at a time
    /// (TCP_FASTOPEN); on a connection that is to be made anything above 0
    /// (TCP_FASTOPEN_CONNECT). The system has to allow it, too (`net.ipv4.tcp_fastopen`: 1 for
    /// clients, 2 for listeners).
    ///
    /// A first packet may arrive twice: only for protocols in which a first request may be carried
    /// out twice. A connect counts as made before the peer has answered; that nobody is there is
    /// told after the first write.
    #[must_use]
    pub fn fast_open(self, queue: u32) -> SocketOptions {
        self.with(SocketOption::FastOpen(queue))
    }

    /// Bytes that the kernel may hold of what is written (SO_SNDBUF; Linux doubles the number for
    /// its own book-keeping, and has a limit, `net.core.wmem_max`, to which it cuts it). By default
    /// it sizes the buffer itself, up to some MiB for a connection at full speed. Any socket.
    ///
    /// Those bytes come before the ones that count against
    /// [`output_max`](crate::ConnectionOptions::output_max): where a reader that does not read is to be
    /// noticed early, or kernel memory is short, limit both.
    #[must_use]
    pub fn send_buffer(self, bytes: u32) -> SocketOptions {
        self.with(SocketOption::SendBuffer(bytes))
    }

    /// Bytes that the kernel may hold of what has arrived and is not read yet (SO_RCVBUF), as
    /// [`send_buffer`](SocketOptions::send_buffer) (`net.core.rmem_max`).
    #[must_use]
    pub fn receive_buffer(self, bytes: u32) -> SocketOptions {
        self.with(SocketOption::ReceiveBuffer(bytes))
    }

    /// The type of service of each packet (IP_TOS), and for IPv6 its traffic class (IPV6_TCLASS):
    /// `0x10` for low delay, `0xb8` for expedited forwarding. The lowest two bits are the
    /// kernel's on TCP. TCP and UDP.
    #[must_use]
    pub fn tos(self, tos: u8) -> SocketOptions {
        self.with(SocketOption::Tos(tos))
    }

    /// A mark on each packet, for the routing and filters of the system (SO_MARK). TCP and UDP.
    /// Needs the capability CAP_NET_ADMIN.
    #[must_use]
    pub fn mark(self, mark: u32) -> SocketOptions {
        self.with(SocketOption::Mark(mark))
    }

    /// Only what comes and goes by this network device: `"eth1"` (SO_BINDTODEVICE). TCP and UDP.
    /// To change it on a socket that has one needs the capability CAP_NET_RAW.
    #[must_use]
    pub fn device(self, name: impl Into<String>) -> SocketOptions {
        self.with(SocketOption::Device(name.into()))
    }

    /// Whether an IPv6 socket takes IPv6 alone and leaves IPv4 to another (IPV6_V6ONLY). IPv6, and
    /// before it is bound: not at run time. By default as the system has it
    /// (`net.ipv6.bindv6only`).
    #[must_use]
    pub fn only_v6(self, on: bool) -> SocketOptions {
        self.with(SocketOption::OnlyV6(on))
    }

    /// May be bound to, and take connections for, addresses that are not this machine's, as
    /// transparent proxies do (IP_TRANSPARENT, IPV6_TRANSPARENT). TCP and UDP. Needs the capability
    /// CAP_NET_ADMIN.
    #[must_use]
    pub fn transparent(self, on: bool) -> SocketOptions {
        self.with(SocketOption::Transparent(on))
    }

    /// Those that are set.
    pub fn iter(&self) -> impl Iterator<Item = &SocketOption> {
        self.options.iter()
    }

    /// As [`with`](SocketOptions::with).
    pub(crate) fn set(&mut self, option: SocketOption) {
        self.options.retain(|set| set.name() != option.name());
        self.options.push(option);
    }

    /// Also those of `others`, which win.
    pub(crate) fn extend(&mut self, others: SocketOptions) {
        for option in others.options {
            self.set(option);
        }
    }

    /// Whether this one is set, to whatever value.
    fn has(&self, name: &str) -> bool {
        self.options.iter().any(|set| set.name() == name)
    }

    /// Also greenroom's own default for a stream to or from `endpoint`: no delay on TCP.
    pub(crate) fn or_default(mut self, endpoint: &Endpoint) -> SocketOptions {
        let nodelay = SocketOption::NoDelay(true);
        if matches!(endpoint, Endpoint::Tcp(_)) && !self.has(nodelay.name()) {
            self.set(nodelay);
        }
        self
    }

    /// Tells the kernel all of them, before the socket is bound or connected.
    pub(crate) fn apply(&self, fd: BorrowedFd<'_>, role: Role) -> io::Result<()> {
        if self.options.is_empty() {
            return Ok(());
        }
        let kind = Kind::of(fd)?;
        for option in &self.options {
            option.check(kind, role)?;
            if !(role == Role::Listener && option.is_per_connection(kind)) {
                option.set(fd, kind, role)?;
            }
        }
        Ok(())
    }

    /// Checks all of them as [`apply`](SocketOptions::apply) does, where there is no kernel.
    pub(crate) fn check(&self, endpoint: &Endpoint, role: Role) -> io::Result<()> {
        let kind = Kind::of_stream(endpoint);
        self.options
            .iter()
            .try_for_each(|option| option.check(kind, role))
    }

    /// The same for a datagram socket.
    pub(crate) fn check_datagrams(&self, endpoint: &Endpoint) -> io::Result<()> {
        let kind = Kind::of_stream(endpoint).with_datagrams();
        let mut options = self.options.iter();
        options.try_for_each(|option| option.check(kind, Role::Datagrams))
    }

    /// Those that a listener at `endpoint` does not hand down to what it accepts.
    pub(crate) fn per_connection(&self, endpoint: &Endpoint) -> Vec<SocketOption> {
        let kind = Kind::of_stream(endpoint);
        let options = self.options.iter();
        options
            .filter(|option| option.is_per_connection(kind))
            .cloned()
            .collect()
    }
}

impl SocketOption {
    /// Whether a listener of this kind does not hand it down to what it accepts.
    fn is_per_connection(&self, kind: Kind) -> bool {
        match self {
            SocketOption::QuickAck(_) => true,
            SocketOption::SendBuffer(_) | SocketOption::ReceiveBuffer(_) => {
                kind.family == Family::Unix
            }
            _ => false,
        }
    }

    /// Tells the kernel, for a connection that is there.
    pub(crate) fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let kind = Kind::of(fd)?;
        self.check(kind, Role::Open)?;
        self.set(fd, kind, Role::Open)
    }

    /// Checks it as [`apply`](SocketOption::apply) does, where there is no kernel; `endpoint` is
    /// that of either side.
    pub(super) fn check_open(&self, endpoint: &Endpoint) -> io::Result<()> {
        self.check(Kind::of_stream(endpoint), Role::Open)
    }

    /// The same for a datagram socket.
    pub(super) fn check_datagrams(&self, endpoint: &Endpoint) -> io::Result<()> {
        self.check(Kind::of_stream(endpoint).with_datagrams(), Role::Open)
    }
}

/// What a socket is about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// To listen.
    Listener,
    /// To connect.
    #[allow(dead_code, reason = "for connections that are made from here")]
    Connect,
    /// To receive and send datagrams.
    Datagrams,
    /// Whatever it does already.
    Open,
}

/// Behind the kind of socket.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Listener => " that is to listen",
            Role::Connect => " that is to connect",
            Role::Datagrams => "",
            Role::Open => " in use",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    V4,
    V6,
    Unix,
    Other,
}

/// Of which sockets an option is to be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kind {
    family: Family,
    is_stream: bool,
}

impl Kind {
    fn of(fd: BorrowedFd<'_>) -> io::Result<Kind> {
        let family = match platform::family(fd)? {
            libc::AF_INET => Family::V4,
            libc::AF_INET6 => Family::V6,
            libc::AF_UNIX => Family::Unix,
            _ => Family::Other,
        };
        let is_stream = get_option(fd, SOL_SOCKET, libc::SO_TYPE)? == libc::SOCK_STREAM;
        Ok(Kind { family, is_stream })
    }

    fn with_datagrams(self) -> Kind {
        Kind {
            is_stream: false,
            ..self
        }
    }

    fn of_stream(endpoint: &Endpoint) -> Kind {
        let family = match endpoint {
            Endpoint::Tcp(addr) if addr.is_ipv4() => Family::V4,
            Endpoint::Tcp(_) => Family::V6,
            Endpoint::Unix(_) => Family::Unix,
        };
        Kind {
            family,
            is_stream: true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.family, self.is_stream) {
            (Family::V4, true) => "an IPv4 TCP socket",
            (Family::V4, false) => "an IPv4 UDP socket",
            (Family::V6, true) => "an IPv6 TCP socket",
            (Family::V6, false) => "an IPv6 UDP socket",
            (Family::Unix, true) => "a Unix socket",
            (Family::Unix, false) => "a Unix datagram socket",
            (Family::Other, _) => "a socket of another family",
        })
    }
}

fn int(n: u32) -> c_int {
    c_int::try_from(n).unwrap_or(c_int::MAX)
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> c_int {
    let up = u64::from(time.subsec_nanos() > 0);
    c_int::try_from(time.as_secs().saturating_add(up)).unwrap_or(c_int::MAX)
}

/// An option whose value is an integer.
fn get_option(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = mem::size_of_val(&value) as socklen_t;
    // SAFETY: `value` is writable for the `len` bytes that it has, and both outlive the call.
    unsafe {
        syscall!(getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        ))
    }?;
    Ok(value)
}

fn bind_to_device(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // The kernel cuts such a name, and would take another device for it.
    if name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    platform::there_is(platform::SO_BINDTODEVICE)?;
    // SAFETY: `name` is readable for its length and outlives the call, which copies it.
    unsafe {
        syscall!(setsockopt(
            fd.as_raw_fd(),
            SOL_SOCKET,
            platform::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            name.len() as socklen_t,
        ))
    }?;
    Ok(())
}

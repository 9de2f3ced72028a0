//! Datagrams as an actor meets them: what it is shown, what it may send, and what can fail.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::actor::Actor;
use crate::addr::Addr;
use crate::call::{Call, Hosted, Wants};
use crate::context::Context;
use crate::flags::Flags;
use crate::outbox::{ENTRY, Outbox, Refusing};
use crate::registry::{ActorKey, Counters};
use crate::sys::{
    Arrived, DatagramAddr, DatagramBind, DatagramOption, DatagramSocket, Destination, Family,
    Interface, SocketOptions, SourceAddr,
};

/// One datagram that has come, as [`Actor::datagram`] is shown it.
///
/// It lies in the poller's buffer and is gone when the callback returns: keep a copy of what is to
/// stay. Nothing of it is kept by the framework.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    arrived: Arrived<'a>,
    local: &'a DatagramAddr,
}

impl<'a> Datagram<'a> {
    pub(crate) fn new(arrived: Arrived<'a>, local: &'a DatagramAddr) -> Datagram<'a> {
        Datagram { arrived, local }
    }

    /// Its bytes: all of them, or as many as there was room for ([`is_truncated`](Datagram::is_truncated)).
    /// A datagram may well have none.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.arrived.bytes
    }

    /// Who sent it. A Unix socket that is not bound has no name to answer to:
    /// [`DatagramAddr::Unnamed`].
    #[must_use]
    pub fn from(&self) -> &'a DatagramAddr {
        self.arrived.from
    }

    /// To which address it was sent: that of this socket, or, where it is bound to all addresses of
    /// the machine, the one of them; or the multicast group or broadcast address. (Beside Linux:
    /// that which the socket is bound to.)
    #[must_use]
    pub fn local(&self) -> DatagramAddr {
        let destination = self.arrived.destination;
        let (Some(ip), DatagramAddr::Udp(local)) = (destination.to, self.local) else {
            return self.local.clone();
        };
        let mut addr = SocketAddr::new(ip, local.port());
        if let SocketAddr::V6(addr) = &mut addr
            && addr.ip().is_unicast_link_local()
        {
            // Each interface may have it.
            addr.set_scope_id(destination.interface.unwrap_or(0));
        }
        DatagramAddr::Udp(addr)
    }

    /// By which interface it came, as `ip link` numbers them: where the socket is bound to all
    /// addresses of the machine, on Linux.
    #[must_use]
    pub fn interface(&self) -> Option<u32> {
        self.arrived.destination.interface
    }

    /// Whether it was longer than [`DatagramOptions::datagram_max`]: the rest is lost.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.arrived.is_cut
    }

    /// How many bytes it had when it was sent; of one that is truncated, as far as the system tells
    /// (Linux does; elsewhere it is the length of what is left).
    #[must_use]
    pub fn sent_len(&self) -> usize {
        self.arrived.whole
    }

    pub(crate) fn answers_from(&self) -> Option<SourceAddr> {
        self.arrived.destination.answers_from
    }
}

/// What went wrong with a datagram socket that goes on all the same, as
/// [`Actor::datagram_failed`] is told it.
#[derive(Debug)]
#[non_exhaustive]
pub enum DatagramFailure {
    /// A datagram was not sent, and will not be: it is longer than the path or the socket allows,
    /// the address cannot be reached from here, or may not be (a broadcast without
    /// [`DatagramOption::Broadcast`]), or, for a Unix socket, nobody is bound there, or who is does
    /// not read ([`DatagramOptions::queue_max`]).
    NotSent {
        /// Where it was to go; `None` for where the socket is connected to.
        to: Option<DatagramAddr>,
        /// How many bytes it had.
        len: usize,
        /// Why not.
        error: io::Error,
    },
    /// What became of something that was sent before, on a socket that is
    /// [connected](DatagramOptions::connect): nobody listens there (`ConnectionRefused`), or the
    /// network cannot reach it. Or, on any socket, what befell the network: the interface is down.
    Socket(io::Error),
    /// An option was not set, see [`Context::set_datagram_option`].
    Option(DatagramOption, io::Error),
    /// So many further ones of the kinds above that came too fast to be told one by one: they are
    /// counted in [`Stats`](crate::Stats) alone.
    More(u64),
}

impl fmt::Display for DatagramFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatagramFailure::NotSent {
                to: Some(to),
                len,
                error,
            } => {
                write!(f, "datagram of {len} bytes to {to} was not sent: {error}")
            }
            DatagramFailure::NotSent {
                to: None,
                len,
                error,
            } => {
                write!(f, "datagram of {len} bytes was not sent: {error}")
            }
            DatagramFailure::Socket(error) => write!(f, "datagram socket: {error}"),
            DatagramFailure::Option(option, error) => {
                write!(f, "datagram socket: option not set: {option}: {error}")
            }
            DatagramFailure::More(n) => write!(f, "{n} further failures"),
        }
    }
}

/// What a socket for datagrams can be told: [all defaults and their reasons](crate#defaults).
#[derive(Debug, Clone)]
pub struct DatagramOptions {
    pub(crate) per_poller: bool,
    pub(crate) shared: bool,
    pub(crate) connect: Option<DatagramAddr>,
    pub(crate) datagram_max: usize,
    pub(crate) queue_max: usize,
    pub(crate) options: Vec<DatagramOption>,
    pub(crate) socket: SocketOptions,
}

impl Default for DatagramOptions {
    fn default() -> DatagramOptions {
        DatagramOptions {
            per_poller: true,
            shared: false,
            connect: None,
            datagram_max: 64 << 10,
            queue_max: 1 << 20,
            options: Vec::new(),
            socket: SocketOptions::new(),
        }
    }
}

impl DatagramOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> DatagramOptions {
        DatagramOptions::default()
    }

    /// Whether each poller has a socket and an actor of its own (SO_REUSEPORT), so that all
    /// processors take part; on by default. The kernel gives what comes from one address and port
    /// always to the same of them, for as long as all of them are there: what an actor has to know
    /// of its peer it may keep to itself.
    ///
    /// Off: one socket and one actor, that sees all. So it is in any case for Unix sockets, for
    /// those that are [connected](DatagramOptions::connect), those bound by an actor, and on
    /// systems other than Linux. For multicast it should be off, as each socket that has joined a
    /// group gets a copy of what is sent to it.
    #[must_use]
    pub fn per_poller(mut self, on: bool) -> Self {
        self.per_poller = on;
        self
    }

    /// Whether other programs may bind sockets to the same address (SO_REUSEADDR and
    /// SO_REUSEPORT): those that all want the same multicast, or a new version of this one. Off by
    /// default: a port in use is an error. UDP only.
    #[must_use]
    pub fn shared(mut self, on: bool) -> Self {
        self.shared = on;
        self
    }

    /// Connects the socket: it receives from this address alone, [`Context::send`] sends to it, and
    /// when nobody is there that is told ([`DatagramFailure::Socket`]), which it is on no other UDP
    /// socket.
    #[must_use]
    pub fn connect(mut self, to: impl Into<DatagramAddr>) -> Self {
        self.connect = Some(to.into());
        self
    }

    /// Bytes of the longest datagram that is received whole; what is longer is
    /// [truncated](Datagram::is_truncated). 64 KiB by default, which no UDP datagram exceeds (65,507
    /// bytes over IPv4); a Unix one can. Each poller has 32 such places for all its sockets (fewer
    /// where they would exceed 4 MiB), whose memory is there only as far as datagrams have reached
    /// into them.
    ///
    /// # Panics
    ///
    /// When it is 0 or above 16 MiB.
    #[must_use]
    pub fn datagram_max(mut self, bytes: usize) -> Self {
        assert!(
            (1..=16 << 20).contains(&bytes),
            "datagram_max: from 1 byte to 16 MiB, not {bytes}"
        );
        self.datagram_max = bytes;
        self
    }

    /// Bytes of datagrams, each counted with 64 more, that may wait for the socket to take them. A
    /// datagram past that is dropped, [counted](crate::Stats::datagrams_dropped), and told by the
    /// `false` that [`Context::send_to`] returns; when a quarter of it is left,
    /// [`drained`](Actor::drained) is called.
    ///
    /// Over a Unix socket that is not connected, what waits for receivers that do not read has half of
    /// it, and each of those no more than is left to the others: a datagram past that is
    /// [not sent](DatagramFailure::NotSent), of kind `WouldBlock`. The others are served meanwhile, as
    /// long as the kernel has room: it counts what receivers have not read against the sender's
    /// [`send_buffer`](SocketOptions::send_buffer), some 280 small datagrams by default, and one of
    /// them may hold 10, under systemd 512 (`net.unix.max_dgram_qlen`). A server that answers whoever
    /// asks makes that buffer large.
    #[must_use]
    pub fn queue_max(mut self, bytes: usize) -> Self {
        self.queue_max = bytes;
        self
    }

    /// Sets a multicast, broadcast or hops option as the socket is bound; where it cannot be set,
    /// the bind fails. Several may be given.
    #[must_use]
    pub fn option(mut self, option: DatagramOption) -> Self {
        self.options.push(option);
        self
    }

    /// Joins a multicast group as the socket is bound: a short form of
    /// [`option`](DatagramOptions::option). To receive what is sent to the group, bind to its port,
    /// and to the unspecified address or the group's own. Turns
    /// [`per_poller`](DatagramOptions::per_poller) off.
    ///
    /// ```
    /// use greenroom::{DatagramOptions, Interface};
    ///
    /// let group = "239.1.2.3".parse().unwrap();
    /// let options = DatagramOptions::new().join(group, Interface::Name("eth0".to_owned()));
    /// # let _ = options;
    /// ```
    #[must_use]
    pub fn join(mut self, group: IpAddr, on: Interface) -> Self {
        self.per_poller = false;
        self.option(DatagramOption::Join(group, on))
    }

    /// Options of the socket, set before it is bound: the sizes of the kernel's buffers, type of
    /// service, device and so on. What comes while the receive buffer is full (some 200 KiB by
    /// default) is lost, and nobody told: for bursts make it large with
    /// [`SocketOptions::receive_buffer`].
    #[must_use]
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.socket = options;
        self
    }

    /// For a system call.
    pub(crate) fn how(&self, sockets: usize) -> DatagramBind {
        DatagramBind {
            sockets,
            shared: self.shared,
            connect: self.connect.clone(),
            options: self.options.clone(),
            socket: self.socket.clone(),
            simulated: None,
        }
    }
}

/// A socket on its way to the poller that is to host it, with what makes its actor.
pub(crate) struct Bound {
    pub(crate) socket: DatagramSocket,
    pub(crate) options: DatagramOptions,
    pub(crate) make: Box<dyn FnOnce() -> Box<dyn Hosted> + Send>,
}

/// A socket that an actor wants to be bound.
pub(crate) struct Binding {
    pub(crate) key: ActorKey,
    pub(crate) addr: DatagramAddr,
    pub(crate) options: DatagramOptions,
    pub(crate) actor: Box<dyn Hosted>,
}

/// A datagram that had been received when its actor paused: it waits for the actor to read again.
/// There are never more of them than one call receives.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: Box<[u8]>,
    whole: usize,
    is_cut: bool,
    from: DatagramAddr,
    destination: Destination,
}

impl Held {
    pub(crate) fn of(arrived: &Arrived<'_>) -> Held {
        Held {
            bytes: arrived.bytes.into(),
            whole: arrived.whole,
            is_cut: arrived.is_cut,
            from: arrived.from.clone(),
            destination: arrived.destination,
        }
    }

    pub(crate) fn arrived(&self) -> Arrived<'_> {
        Arrived {
            bytes: &self.bytes,
            whole: self.whole,
            is_cut: self.is_cut,
            from: &self.from,
            destination: self.destination,
        }
    }
}

/// What is kept of a datagram socket on its poller.
#[derive(Debug)]
pub(crate) struct Datagrams {
    pub(crate) local: DatagramAddr,
    pub(crate) family: Family,
    pub(crate) connected: Option<DatagramAddr>,
    pub(crate) datagram_max: usize,
    pub(crate) queue_max: usize,
    pub(crate) outbox: Outbox,
    /// What waits for receivers that took nothing more: of an unconnected Unix socket.
    pub(crate) refusing: Refusing,
    /// How much was in the outbox when the callback at work first sent something.
    pub(crate) mark: usize,
    /// What the actor wants to be set, each behind so many of the datagrams that wait.
    pub(crate) wanted: Vec<(usize, DatagramOption)>,
    /// What had been received when the actor paused.
    pub(crate) held: VecDeque<Held>,
    /// Whether a timer will send what one turn has left.
    pub(crate) rests: bool,
    /// Whether one will try receivers again that took nothing more, and after how long.
    pub(crate) retries: bool,
    pub(crate) retry_after: Duration,
    /// What it is to be told.
    pub(crate) failures: Vec<DatagramFailure>,
    pub(crate) failures_more: u64,
}

/// Failures that are kept to be told; what is beyond is counted.
const FAILURES_MAX: usize = 64;

impl Datagrams {
    /// How much waits, as [`DatagramOptions::queue_max`] counts it.
    pub(crate) fn queued(&self) -> usize {
        self.outbox.size() + self.refusing.size()
    }

    pub(crate) fn fail(&mut self, failure: DatagramFailure) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(failure);
        } else {
            self.failures_more += 1;
        }
    }

    pub(crate) fn take_failures(&mut self) -> Vec<DatagramFailure> {
        let mut failures = std::mem::take(&mut self.failures);
        let more = std::mem::take(&mut self.failures_more);
        if more > 0 {
            failures.push(DatagramFailure::More(more));
        }
        failures
    }
}

/// The counters of datagrams, see [`Stats`](crate::Stats).
#[derive(Debug, Default)]
pub(crate) struct DatagramCounters {
    pub(crate) received: AtomicU64,
    pub(crate) truncated: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl Call {
    /// The datagram socket of the actor at work.
    #[track_caller]
    fn datagrams(&mut self, operation: &str) -> &mut Datagrams {
        let is_there = self.flags.has(Flags::SOCKET);
        let datagrams = self.datagrams.get_mut(&self.key.index());
        match datagrams.filter(|_| is_there) {
            Some(datagrams) => datagrams,
            None => panic!("{operation}: this actor has no datagram socket"),
        }
    }

    fn send_datagram(
        &mut self,
        to: Option<DatagramAddr>,
        from: Option<SourceAddr>,
        bytes: &[u8],
        operation: &str,
    ) -> bool {
        let begins = !self.wants.has(Wants::DATAGRAMS);
        self.wants.set(Wants::DATAGRAMS);
        let datagrams = self.datagrams(operation);
        if begins {
            datagrams.mark = datagrams.outbox.len();
        }
        assert!(
            to.is_some() || datagrams.connected.is_some(),
            "{operation}: this datagram socket is not connected; use send_to"
        );
        let size = datagrams.queued() + bytes.len() + ENTRY;
        if size <= datagrams.queue_max {
            datagrams.outbox.push(to, from, bytes);
            return true;
        }
        self.wants.set(Wants::DROPPED);
        Counters::add(&self.registry.door.counters.datagrams.dropped, 1);
        false
    }

    /// A `write` of an actor whose socket is no stream.
    pub(crate) fn write_datagram(&mut self, bytes: &[u8]) -> bool {
        let index = self.key.index();
        let connected = self
            .datagrams
            .get(&index)
            .map(|known| known.connected.is_some());
        match connected {
            Some(true) => self.send_datagram(None, None, bytes, "write"),
            Some(false) => panic!(
                "write: this actor has a datagram socket, which is not connected; use send_to or reply"
            ),
            None => panic!("write: this actor has no stream to write to"),
        }
    }
}

/// Datagrams: for an actor whose socket was bound by
/// [`System::bind_datagram`](crate::System::bind_datagram) or [`Context::bind_datagram`].
impl<A: Actor> Context<'_, A> {
    /// Sends a copy of `bytes` as one datagram to any address.
    ///
    /// What a turn sends leaves in few system calls: after the datagrams that were received
    /// together, or at the end of the turn. `true` says that it will be tried; a datagram may be
    /// lost all the same. What the system refuses is told by
    /// [`datagram_failed`](Actor::datagram_failed): `to` cannot be reached, or may not; there are
    /// too many bytes (65,507 for UDP over IPv4).
    ///
    /// To send from another thread, send the actor a message, and call this in
    /// [`message`](Actor::message):
    ///
    /// ```
    /// use std::net::{SocketAddr, UdpSocket};
    /// use greenroom::*;
    ///
    /// struct Announcer;
    ///
    /// impl Actor for Announcer {
    ///     type Message = (SocketAddr, String);
    ///
    ///     fn message(&mut self, (to, text): Self::Message, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.send_to(to, text);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let system = System::builder().build()?;
    /// let sockets = system.bind_datagram("127.0.0.1:0", || Announcer)?;
    /// let listener = UdpSocket::bind("127.0.0.1:0")?;
    ///
    /// let (announcer, to) = (sockets.addrs()[0].clone(), listener.local_addr()?);
    /// std::thread::spawn(move || announcer.send((to, "hello".to_owned())));
    ///
    /// let mut buffer = [0; 100];
    /// let (len, from) = listener.recv_from(&mut buffer)?;
    /// assert_eq!(&buffer[..len], b"hello");
    /// assert_eq!(sockets.local_addr().udp(), Some(from));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// Returns `false` when the queue of what the socket does not take is full
    /// ([`DatagramOptions::queue_max`]): the datagram is dropped and
    /// [counted](crate::Stats::datagrams_dropped), and [`drained`](Actor::drained) will say when to
    /// go on.
    ///
    /// # Panics
    ///
    /// Where there is no datagram socket, which is so also in [`closed`](Actor::closed).
    #[track_caller]
    pub fn send_to(&mut self, to: impl Into<DatagramAddr>, bytes: impl AsRef<[u8]>) -> bool {
        let to = Some(to.into());
        self.call.send_datagram(to, None, bytes.as_ref(), "send_to")
    }

    /// Sends a copy of `bytes` to where the socket is [connected](DatagramOptions::connect); else
    /// as [`send_to`](Context::send_to). Each [`write`](Context::write) of such a socket does the
    /// same.
    ///
    /// # Panics
    ///
    /// As `send_to`, and where the socket is not connected.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.call.send_datagram(None, None, bytes.as_ref(), "send")
    }

    /// Answers a datagram: sends to where it came from, from the address that it was sent to (Linux:
    /// also where the socket is bound to all addresses of the machine and the system would choose
    /// another). Else as [`send_to`](Context::send_to). A datagram of a Unix socket without a name
    /// cannot be answered: that is told by [`datagram_failed`](Actor::datagram_failed).
    ///
    /// # Panics
    ///
    /// As `send_to`.
    #[track_caller]
    pub fn reply(&mut self, datagram: &Datagram<'_>, bytes: impl AsRef<[u8]>) -> bool {
        let to = Some(datagram.from().clone());
        let from = datagram.answers_from();
        self.call.send_datagram(to, from, bytes.as_ref(), "reply")
    }

    /// Binds a socket for datagrams to `addr` on this poller, for `actor`. The address of that works
    /// at once: messages wait until it is opened, which is when the socket is bound, after this
    /// callback. Where that fails, [`closed`](Actor::closed) is all that it is told, with
    /// [`CloseReason::Io`](crate::CloseReason::Io).
    ///
    /// `DatagramOptions::new()` will do; for a client [`connect`](DatagramOptions::connect) it. The
    /// address is one, not a name: to look one up may block.
    ///
    /// ```
    /// use std::net::{Ipv4Addr, SocketAddr};
    /// use greenroom::*;
    ///
    /// /// Tells a collector how often it was sent a message; whether that is there, it is told.
    /// struct Reporter;
    ///
    /// impl Actor for Reporter {
    ///     type Message = u64;
    ///
    ///     fn message(&mut self, count: u64, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.send(format!("requests:{count}|c"));
    ///         Ok(())
    ///     }
    ///
    ///     fn datagram_failed(&mut self, failure: DatagramFailure, _: &mut Context<'_, Self>) -> Outcome {
    ///         eprintln!("{failure}");
    ///         Ok(())
    ///     }
    /// }
    ///
    /// struct Hub {
    ///     reporter: Option<Addr<Reporter>>,
    /// }
    ///
    /// impl Actor for Hub {
    ///     type Message = ();
    ///
    ///     fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         let collector = SocketAddr::from((Ipv4Addr::LOCALHOST, 8125));
    ///         let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    ///         let options = DatagramOptions::new().connect(collector);
    ///         self.reporter = Some(ctx.bind_datagram(any, options, Reporter));
    ///         Ok(())
    ///     }
    /// }
    /// # let _ = Hub { reporter: None };
    /// ```
    pub fn bind_datagram<B: Actor>(
        &mut self,
        addr: impl Into<DatagramAddr>,
        options: DatagramOptions,
        actor: B,
    ) -> Addr<B> {
        let post = self.call.registry.post::<B>();
        let key = self.call.registry.door.reserve();
        self.call.bindings.push_back(Binding {
            key,
            addr: addr.into(),
            options,
            actor: Box::new(actor),
        });
        Addr::new(post, key)
    }

    /// Where this actor's datagram socket is bound, the port being the real one; `None` for an
    /// actor without one.
    #[must_use]
    pub fn datagram_addr(&self) -> Option<&DatagramAddr> {
        let known = self.call.datagrams.get(&self.call.key.index());
        known.map(|known| &known.local)
    }

    /// Bytes of datagrams that wait for the socket to take them, each counted with 64 more; 0 for an
    /// actor without a datagram socket.
    #[must_use]
    pub fn datagrams_queued(&self) -> usize {
        let known = self.call.datagrams.get(&self.call.key.index());
        known.map_or(0, Datagrams::queued)
    }

    /// Joins a multicast group: a short form of [`set_datagram_option`](Context::set_datagram_option).
    ///
    /// # Panics
    ///
    /// As `send_to`.
    #[track_caller]
    pub fn join_multicast(&mut self, group: IpAddr, on: Interface) {
        self.set_datagram_option(DatagramOption::Join(group, on));
    }

    /// Leaves a multicast group that was joined on that very interface: a short form of
    /// [`set_datagram_option`](Context::set_datagram_option).
    ///
    /// # Panics
    ///
    /// As `send_to`.
    #[track_caller]
    pub fn leave_multicast(&mut self, group: IpAddr, on: Interface) {
        self.set_datagram_option(DatagramOption::Leave(group, on));
    }

    /// Sets an option of the socket when this callback has returned: behind what was sent before
    /// this call, as far as the socket takes that, and before what is sent after it. Where it
    /// fails, [`datagram_failed`](Actor::datagram_failed) says so, and nothing else changes.
    ///
    /// # Panics
    ///
    /// As `send_to`.
    #[track_caller]
    pub fn set_datagram_option(&mut self, option: DatagramOption) {
        let begins = !self.call.wants.has(Wants::DATAGRAMS);
        let wants = Wants::DATAGRAMS | Wants::DATAGRAM_OPTIONS;
        self.call.wants.set(wants);
        let datagrams = self.call.datagrams("set_datagram_option");
        let behind = datagrams.outbox.len();
        if begins {
            datagrams.mark = behind;
        }
        datagrams.wanted.push((behind, option));
    }
}

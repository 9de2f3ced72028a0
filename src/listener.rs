//! Listening: what a listener can be told, and the handle to one that runs.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::ask::on_poller_thread;
use crate::command::Command;
use crate::entrance::{Choose, Loads, Spread};
use crate::handle::Shared;
use crate::origin::{AtLimit, ConnectionOptions, Origin};
use crate::proxy_protocol::ProxyProtocol;
use crate::sys::{Endpoint, Peer, SocketOption, SocketOptions, clock};
use crate::timers::deadline_after;
use crate::tls::Server;

/// How a listener spreads its connections over the [pollers that it serves](ListenOptions::pollers).
///
/// # Choosing one
///
/// The default is right where all connections are alike. `RoundRobin` costs the same and is
/// predictable. `SourceHash` brings the connections of one client together, as sessions that share
/// something without locks want it. `PerPoller` is for connects so many that one poller cannot accept
/// them all. What else there may be is said by a closure: [`ListenOptions::balance_by`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Balance {
    /// One poller accepts and gives each connection to the poller that has the fewest. The default:
    /// connections stay where they are for long, and an uneven start would never even out.
    #[default]
    LeastConnections,
    /// One poller accepts and gives connections to the pollers in turn.
    RoundRobin,
    /// One poller accepts, and a hash of the peer's address says which one it goes to: the same for
    /// all connections of an address, an IPv4 address mapped to IPv6 included, in every run and on
    /// every machine, as long as the listener serves the same pollers. For what a client's next
    /// connection finds in what its poller keeps; as even as addresses are
    /// many, and no defence: who may choose an address chooses a poller. Peers of a Unix socket have
    /// none, and go to the poller that has the fewest. Behind a
    /// [proxy](ListenOptions::proxy_protocol) the address is the proxy's: a poller is chosen before the
    /// header has come.
    SourceHash,
    /// Every poller accepts for itself; the kernel spreads the connects by a hash of their
    /// addresses (SO_REUSEPORT), less evenly. Accepting does not hang on one poller; on two pollers
    /// it brought no more connects a second than the other two. TCP only. That somebody listens there
    /// already is an error, on Linux, as it is for all others; sockets that are to share their port with
    /// another process are bound so, and handed to [`listen_from`](crate::System::listen_from).
    PerPoller,
}

/// What a listener can be told: [all defaults and their reasons](crate#defaults).
///
/// ```
/// use greenroom::{AtLimit, Balance, ListenOptions};
///
/// let options = ListenOptions::new()
///     .balance(Balance::RoundRobin)
///     .max_connections(50_000)
///     .at_limit(AtLimit::Refuse("full, come again\n".into()))
///     .max_per_source(100)
///     .accept_rate(2_000, 500);
/// ```
#[derive(Debug, Clone)]
pub struct ListenOptions {
    pub(crate) connection: ConnectionOptions,
    pub(crate) backlog: i32,
    pub(crate) max_connections: usize,
    pub(crate) at_limit: AtLimit,
    pub(crate) max_per_source: Option<usize>,
    /// Bits of an IPv4 and of an IPv6 address.
    pub(crate) source_prefixes: (u8, u8),
    pub(crate) source_farewell: Bytes,
    /// In a second, and at once.
    pub(crate) accept_rate: Option<(u32, u32)>,
    pub(crate) accepts_per_turn: usize,
    pub(crate) spread: Spread,
    /// Ascending, each once; `None` for all.
    pub(crate) pollers: Option<Vec<usize>>,
    pub(crate) socket: SocketOptions,
    pub(crate) proxies: Option<ProxyProtocol>,
    pub(crate) by_processor: bool,
    pub(crate) tls: Option<Server>,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            connection: ConnectionOptions::default(),
            backlog: 4096,
            max_connections: usize::MAX,
            at_limit: AtLimit::Wait,
            max_per_source: None,
            source_prefixes: (32, 64),
            source_farewell: Bytes::new(),
            accept_rate: None,
            accepts_per_turn: 64,
            spread: Spread::LeastConnections,
            pollers: None,
            socket: SocketOptions::new(),
            proxies: None,
            by_processor: false,
            tls: None,
        }
    }
}

impl ListenOptions {
    /// The defaults.
    pub fn new() -> ListenOptions {
        ListenOptions::default()
    }

    /// The limits that each connection lives under.
    pub fn connection(mut self, options: ConnectionOptions) -> Self {
        self.connection = options;
        self
    }

    /// How many connects the kernel lets wait to be accepted. It has a limit of its own, and takes the
    /// smaller: on Linux `net.core.somaxconn`, which is 4,096 unless its owner has raised it.
    pub fn backlog(mut self, connects: u16) -> Self {
        self.backlog = i32::from(connects);
        self
    }

    /// How many connections of this listener there may be at a time, those of a close under way
    /// included; what happens to further ones is [`at_limit`](ListenOptions::at_limit)'s to say.
    /// Exact, however many pollers accept. For all listeners together there is
    /// [`Builder::max_connections`](crate::Builder::max_connections).
    ///
    /// # Panics
    ///
    /// When it is 0: such a listener would serve nobody.
    pub fn max_connections(mut self, connections: usize) -> Self {
        assert!(
            connections > 0,
            "max_connections: at least one connection must be allowed"
        );
        self.max_connections = connections;
        self
    }

    /// What happens to clients past `max_connections`, of the listener or of the system, and when no
    /// descriptor is left.
    pub fn at_limit(mut self, policy: AtLimit) -> Self {
        self.at_limit = policy;
        self
    }

    /// How many connections of one source address there may be at a time.
    ///
    /// Further ones are accepted, sent the [farewell](ListenOptions::source_farewell) if there is one,
    /// and closed. They cannot be left in the backlog: who waits there is known by an accept alone,
    /// and everybody else waits behind them. Exact, however many pollers accept; what is counted is
    /// kept in a table of the sources that have connections, some 100 bytes for each connection of a
    /// listener that has this limit.
    ///
    /// A source is what [`source_prefixes`](ListenOptions::source_prefixes) says; peers of a Unix
    /// socket have no address and are not limited. Behind a [proxy](ListenOptions::proxy_protocol) it
    /// is that of the client whom the proxy names, not the proxy's.
    ///
    /// ```
    /// # use greenroom::ListenOptions;
    /// let options = ListenOptions::new()
    ///     .max_per_source(20)
    ///     .source_farewell("too many connections from your address\n");
    /// ```
    ///
    /// # Panics
    ///
    /// When it is 0.
    pub fn max_per_source(mut self, connections: usize) -> Self {
        assert!(
            connections > 0,
            "max_per_source: at least one connection must be allowed"
        );
        self.max_per_source = Some(connections);
        self
    }

    /// How many bits of an address tell one source from another: by default all 32 of IPv4, and 64 of
    /// the 128 of IPv6, since a single host there has 2^64 addresses to choose from. An IPv4 address
    /// that is mapped to IPv6 is an IPv4 address.
    ///
    /// # Panics
    ///
    /// When one is 0, or more than an address has.
    pub fn source_prefixes(mut self, v4_bits: u8, v6_bits: u8) -> Self {
        assert!(
            (1..=32).contains(&v4_bits),
            "source_prefixes: an IPv4 address has 1 to 32 bits, not {v4_bits}"
        );
        assert!(
            (1..=128).contains(&v6_bits),
            "source_prefixes: an IPv6 address has 1 to 128 bits, not {v6_bits}"
        );
        self.source_prefixes = (v4_bits, v6_bits);
        self
    }

    /// What a client past `max_per_source` is sent before it is closed. By default nothing.
    pub fn source_farewell(mut self, farewell: impl Into<Bytes>) -> Self {
        self.source_farewell = farewell.into();
        self
    }

    /// How many connects are accepted in a second, on average, and how many at once after a rest: in
    /// any time of `t` seconds at most `burst + per_second * t`. Further ones wait in the backlog for
    /// their turn, and cost nothing there. Those that are refused count as well; what waits when the
    /// listener closes is accepted without regard to it.
    ///
    /// One rate for the listener, also with [`Balance::PerPoller`]. A poller looks at the clock once
    /// in a millisecond: where more than 1,000 a second are to be reached, `burst` is to be at least
    /// what comes in a millisecond or two.
    ///
    /// # Panics
    ///
    /// When one is 0.
    pub fn accept_rate(mut self, per_second: u32, burst: u32) -> Self {
        assert!(
            per_second > 0,
            "accept_rate: at least one connect a second must be allowed"
        );
        assert!(burst > 0, "accept_rate: a burst is at least one connect");
        self.accept_rate = Some((per_second, burst));
        self
    }

    /// How many connects a poller accepts from this listener before it turns to its connections
    /// again. By default 64: each costs some 20 microseconds, so that the others wait for little more
    /// than a millisecond, and a flood is still accepted in few turns.
    ///
    /// # Panics
    ///
    /// When it is 0.
    pub fn accepts_per_turn(mut self, connects: usize) -> Self {
        assert!(
            connects > 0,
            "accepts_per_turn: at least one connect must be accepted"
        );
        self.accepts_per_turn = connects;
        self
    }

    /// How connections are spread over the pollers; in place of what was said before, also by
    /// `balance_by`.
    pub fn balance(mut self, balance: Balance) -> Self {
        self.spread = match balance {
            Balance::LeastConnections => Spread::LeastConnections,
            Balance::RoundRobin => Spread::RoundRobin,
            Balance::SourceHash => Spread::SourceHash,
            Balance::PerPoller => Spread::Here,
        };
        self
    }

    /// One poller accepts, and `choose` says which one each connection goes to: the number of one of
    /// [the listener's pollers](Loads::pollers). Called on the thread of that poller for each
    /// connection, so it is to be quick; what it remembers is its own.
    ///
    /// When it panics, or names no poller of the listener's, the connection goes to the one that has
    /// the fewest; that is [counted](crate::Stats::misdirected), and the log says so once.
    ///
    /// ```
    /// # use greenroom::*;
    /// // Those on this machine to poller 0, all others by load.
    /// let options = ListenOptions::new().balance_by(|peer, loads| match peer.ip() {
    ///     Some(ip) if ip.is_loopback() => 0,
    ///     _ => loads.least(),
    /// });
    /// ```
    pub fn balance_by(
        mut self,
        choose: impl Fn(Peer, &Loads<'_>) -> usize + Send + Sync + 'static,
    ) -> Self {
        self.spread = Spread::Custom(Choose(Arc::new(choose)));
        self
    }

    /// The pollers that serve this listener, by their numbers from 0 on; by default all. Others
    /// neither accept for it nor host its connections: for a listener whose work is not to delay
    /// others, or is to be near to what one poller keeps.
    ///
    /// One that the system does not have is an error of [`System::listen_with`](crate::System::listen_with).
    ///
    /// ```
    /// # use greenroom::ListenOptions;
    /// let options = ListenOptions::new().pollers([0, 2]);
    /// ```
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn pollers(mut self, pollers: impl IntoIterator<Item = usize>) -> Self {
        let mut pollers: Vec<usize> = pollers.into_iter().collect();
        pollers.sort_unstable();
        pollers.dedup();
        assert!(!pollers.is_empty(), "pollers: there must be at least one");
        self.pollers = Some(pollers);
        self
    }

    /// Each connection begins with a header that says who the client is: the listener is behind
    /// proxies. By default none does.
    pub fn proxy_protocol(mut self, proxies: ProxyProtocol) -> Self {
        self.proxies = Some(proxies);
        self
    }

    /// Each connection is secured by TLS before its actor is made: `server` says how, in what time, and
    /// how many handshakes a turn of a poller has time for. By default none is.
    ///
    /// From [`opened`](crate::Actor::opened) on the actor is one like on a plain connection: what it
    /// writes is encrypted on the way to the socket, limits and watermarks are of what it reads and
    /// writes, and [`Context::tls`](crate::Context::tls) tells what was agreed on. A connection whose
    /// handshake fails never has an actor; it is told to the log, at the level of debugging, and
    /// [counted](crate::Stats::handshakes_failed). Meanwhile it counts for all limits. Behind a
    /// [proxy](ListenOptions::proxy_protocol) the header comes first, in the clear. Who is turned away
    /// at a limit is sent nothing, as nobody could read it.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, server: Server) -> Self {
        self.tls = Some(server);
        self
    }

    /// With [`Balance::PerPoller`] and pollers that are [pinned](crate::Builder::pin): a connect goes
    /// to the poller on whose processor it came in (SO_INCOMING_CPU), so that its packets are looked
    /// at where they arrive. By default the kernel goes by a hash. As even as the network card deals
    /// packets out to processors; connects that come in on a processor without a poller go by the
    /// hash. Linux from 6.2 on; before, it is taken and does nothing.
    ///
    /// To listen is an error of kind `InvalidInput` where one of the two is not so.
    pub fn by_processor(mut self) -> Self {
        self.by_processor = true;
        self
    }

    /// Options of the listening socket and of all that it accepts. Called again, what is set anew
    /// counts and the rest stays. The next three are the usual ones of them.
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.socket.extend(options);
        self
    }

    /// As [`SocketOptions::send_buffer`].
    pub fn send_buffer(mut self, bytes: u32) -> Self {
        self.socket.set(SocketOption::SendBuffer(bytes));
        self
    }

    /// As [`SocketOptions::receive_buffer`].
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.socket.set(SocketOption::ReceiveBuffer(bytes));
        self
    }

    /// As [`SocketOptions::nodelay`]; on by default for TCP, since a turn's writes are joined
    /// already.
    pub fn nodelay(mut self, on: bool) -> Self {
        self.socket.set(SocketOption::NoDelay(on));
        self
    }
}

/// A running listener. Cheap to clone, usable from every thread and inside callbacks. Dropping it
/// does not close it.
///
/// Where several sockets share its address ([`Balance::PerPoller`]), each call is for all of them.
///
/// ```
/// # use greenroom::*;
/// # use std::time::Duration;
/// # struct Echo; impl Actor for Echo { type Message = (); }
/// # fn main() -> std::io::Result<()> {
/// # let system = System::builder().pollers(1).build()?;
/// let listener = system.listen("127.0.0.1:0", |_peer| Echo)?;
/// listener.pause(); // clients wait in the backlog
/// listener.resume();
/// listener.close();
/// listener.wait_closed(Duration::from_secs(5))?; // the address is free
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Listener {
    pub(crate) origin: Arc<Origin>,
    pub(crate) shared: Arc<Shared>,
}

impl Listener {
    /// Where it listens; the port is the real one where 0 was asked for.
    pub fn local_addr(&self) -> &Endpoint {
        &self.origin.local
    }

    /// How many connections came from it and are still there, those of a close under way included.
    pub fn connections(&self) -> usize {
        self.origin.live.load(Ordering::Acquire)
    }

    /// Accepts nobody from here on until it is [resumed](Listener::resume): connects wait in the
    /// backlog (of each socket where there are several), whose length is the limit
    /// ([`ListenOptions::backlog`]). Connections go on. Returns at once: a poller that is just
    /// accepting may take one more. Pausing again is harmless.
    ///
    /// A listener that closes, also because the system stops, accepts those who wait even so: they
    /// would be reset.
    pub fn pause(&self) {
        self.set_paused(true);
    }

    /// Accepts again, those who have waited first. Harmless where it is not paused; what held it
    /// beside the pause (a limit, a rate, no descriptors) holds it still.
    pub fn resume(&self) {
        self.set_paused(false);
    }

    fn set_paused(&self, paused: bool) {
        if let Some(entrance) = &self.origin.entrance {
            // The last word stands before the last command: whatever order calls come in, that one
            // finds it.
            entrance.status.set_paused(paused);
            for home in &entrance.homes {
                self.shared.pollers[*home].command(Command::Look(self.origin.clone()));
            }
        }
    }

    /// Whether it is paused: the last that was asked of it.
    pub fn is_paused(&self) -> bool {
        let entrance = self.origin.entrance.as_ref();
        entrance.is_some_and(|entrance| entrance.status.is_paused())
    }

    /// Accepts what waits in the backlog, as far as the limits of connections let it, and stops
    /// listening. (At most twice [`backlog`](ListenOptions::backlog) connects, or 8,192 where that is
    /// more: others may go on connecting meanwhile. Out of descriptors nobody can be accepted: the
    /// kernel resets who waits, and the log says so.) Connections go on. Returns at once, a moment before the address is free:
    /// [`wait_closed`](Listener::wait_closed) waits for that. Closing again is harmless.
    pub fn close(&self) {
        if let Some(entrance) = &self.origin.entrance {
            entrance.status.set_to_close();
        }
        for home in self.homes() {
            self.shared.pollers[*home].command(Command::Unlisten(self.origin.clone()));
        }
    }

    /// Whether all its sockets are closed: it was [closed](Listener::close), or the system has
    /// stopped. Its connections may go on.
    pub fn is_closed(&self) -> bool {
        let entrance = self.origin.entrance.as_ref();
        entrance.is_none_or(|entrance| entrance.status.is_closed())
    }

    /// Blocks the calling thread until it [is closed](Listener::is_closed), which it is not asked to
    /// be by this. Then the address is free, and the file of a Unix socket is gone.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) when it is not within that time.
    ///
    /// # Panics
    ///
    /// On a poller's thread, which must not block, and on the thread of a
    /// [simulation](crate::testing::Simulation), where nothing happens meanwhile: run it until
    /// [`is_closed`](Listener::is_closed).
    pub fn wait_closed(&self, within: Duration) -> io::Result<()> {
        assert!(
            !on_poller_thread(),
            "wait_closed: this would block a poller"
        );
        assert!(
            self.shared.simulated.is_none(),
            "wait_closed: nothing happens while this waits; run the simulation until is_closed"
        );
        let Some(entrance) = &self.origin.entrance else {
            return Ok(());
        };
        let deadline = deadline_after(clock::now(), within);
        if entrance.status.wait_closed(deadline) {
            return Ok(());
        }
        let local = &self.origin.local;
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("wait_closed: {local} is not closed after {within:?}; close it first"),
        ))
    }

    /// The poller of each socket.
    pub(crate) fn homes(&self) -> &[usize] {
        let entrance = self.origin.entrance.as_ref();
        entrance.map_or(&[], |entrance| &entrance.homes)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("local_addr", self.local_addr())
            .field("connections", &self.connections())
            .field("is_paused", &self.is_paused())
            .field("is_closed", &self.is_closed())
            .finish()
    }
}

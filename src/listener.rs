//! Listening: what a listener can be told, and the handle to one that runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command::Command;
use crate::handle::Shared;
use crate::origin::{AtLimit, ConnectionOptions, Origin};
use crate::sys::{Endpoint, SocketOption, SocketOptions};

/// How a listener spreads its connections over the pollers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Balance {
    /// One poller accepts and gives each connection to the poller that has the fewest. The default:
    /// connections stay where they are for long, and an uneven start would never even out.
    #[default]
    LeastConnections,
    /// One poller accepts and gives connections to the pollers in turn.
    RoundRobin,
    /// Every poller accepts for itself; the kernel spreads the connects by a hash of their
    /// addresses (SO_REUSEPORT), less evenly. Accepting does not hang on one poller; on two pollers
    /// it brought no more connects a second than the other two. TCP only.
    PerPoller,
}

/// What a listener can be told: [all defaults and their reasons](crate#defaults).
#[derive(Debug, Clone)]
pub struct ListenOptions {
    pub(crate) connection: ConnectionOptions,
    pub(crate) backlog: i32,
    pub(crate) max_connections: usize,
    pub(crate) at_limit: AtLimit,
    pub(crate) balance: Balance,
    pub(crate) socket: SocketOptions,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            connection: ConnectionOptions::default(),
            backlog: 4096,
            max_connections: usize::MAX,
            at_limit: AtLimit::Wait,
            balance: Balance::default(),
            socket: SocketOptions::new(),
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

    /// How many connects the kernel lets wait to be accepted.
    pub fn backlog(mut self, connects: u16) -> Self {
        self.backlog = i32::from(connects);
        self
    }

    /// How many connections of this listener there may be at a time; what happens to further ones
    /// is [`at_limit`](ListenOptions::at_limit)'s to say. With [`Balance::PerPoller`] it may be
    /// passed by one per further poller for a moment.
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

    /// What happens to clients past `max_connections`.
    pub fn at_limit(mut self, policy: AtLimit) -> Self {
        self.at_limit = policy;
        self
    }

    /// How connections are spread over the pollers.
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
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

/// A running listener. Dropping this does not close it.
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

    /// Accepts what waits in the backlog, 8,192 connects and `max_connections` at most, and stops
    /// listening. Connections go on. Returns at once, a moment before the address is free; closing
    /// again is harmless.
    pub fn close(&self) {
        for home in &self.origin.homes {
            self.shared.pollers[*home].command(Command::Unlisten(self.origin.clone()));
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("local_addr", self.local_addr())
            .field("connections", &self.connections())
            .finish()
    }
}

//! A listener as all pollers see it: whom it lets in, to which of them, and whether it is paused or
//! closed.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::command::Command;
use crate::handle::Shared;
use crate::limits::{Limit, Rate, Sources};
use crate::origin::{AtLimit, Origin};
use crate::proxy_protocol::ProxyProtocol;
use crate::registry::Registry;
use crate::sync::lock;
use crate::sys::Peer;
use crate::tls::Server;

/// A user's own choice of a poller.
#[derive(Clone)]
pub(crate) struct Choose(pub(crate) Arc<Choice>);

type Choice = dyn Fn(Peer, &Loads<'_>) -> usize + Send + Sync;

impl fmt::Debug for Choose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Choose(..)")
    }
}

/// Which poller a new connection goes to.
#[derive(Clone, Debug)]
pub(crate) enum Spread {
    /// It stays where it was accepted.
    Here,
    RoundRobin,
    LeastConnections,
    SourceHash,
    Custom(Choose),
}

/// The pollers that a listener serves, and how many connections each has: what a choice by
/// [`ListenOptions::balance_by`](crate::ListenOptions::balance_by) is made from.
///
/// The figures are written by the pollers while they are read here, in no order: each was true a
/// moment ago. A connection counts from the moment it is handed to its poller until the end of the
/// turn that closed it. Two listeners that choose at one moment may both find the same poller the
/// emptiest.
pub struct Loads<'a> {
    listener: &'a [usize],
    all: &'a [Arc<Registry>],
}

impl<'a> Loads<'a> {
    pub(crate) fn new(listener: &'a [usize], all: &'a [Arc<Registry>]) -> Loads<'a> {
        Loads { listener, all }
    }

    /// The numbers of the pollers that the listener serves, ascending.
    pub fn pollers(&self) -> &[usize] {
        self.listener
    }

    /// How many sockets a poller has, or is about to get: of all listeners, and those that were
    /// connected, adopted or bound there.
    ///
    /// # Panics
    ///
    /// When the system has no poller of this number.
    pub fn connections(&self, poller: usize) -> usize {
        let door = &self.all[poller].door;
        // Relaxed: nothing is concluded from it but where it is emptier.
        door.sockets.load(Ordering::Relaxed)
    }

    /// The poller that has the fewest; of several the first.
    pub fn least(&self) -> usize {
        self.least_from(0)
    }

    /// The same; of several the first one from that place of the list on, and round.
    pub(crate) fn least_from(&self, first: usize) -> usize {
        let (before, from) = self.listener.split_at(first % self.listener.len().max(1));
        let in_turn = from.iter().chain(before).copied();
        in_turn
            .min_by_key(|poller| self.connections(*poller))
            .unwrap_or(0)
    }
}

impl fmt::Debug for Loads<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loads = self.listener.iter();
        f.debug_map()
            .entries(loads.map(|poller| (poller, self.connections(*poller))))
            .finish()
    }
}

/// Why a connection was turned away: an index into [`Cause::NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Listener,
    System,
    Source,
    Descriptors,
}

impl Cause {
    pub(crate) const NAMES: [&'static str; 4] = [
        "listener limit",
        "system limit",
        "source limit",
        "descriptors",
    ];
}

/// What a listener lets in, and whereto. Shared by all pollers.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// Of this listener's connections, and of those of all listeners of the system.
    pub(crate) own: Option<Limit>,
    pub(crate) system: Option<Arc<Limit>>,
    pub(crate) at_limit: AtLimit,
    pub(crate) sources: Option<Arc<Sources>>,
    pub(crate) source_farewell: Bytes,
    pub(crate) rate: Option<Rate>,
    pub(crate) accepts_per_turn: usize,
    /// How many connects were to wait at each of its sockets; of one from elsewhere it is not known.
    pub(crate) backlog: usize,
    /// Who says whose its connections are.
    pub(crate) proxies: Option<ProxyProtocol>,
    /// How its connections are secured, if they are.
    pub(crate) tls: Option<Server>,
    /// Pollers that accept, to be told when there is room again. The same one twice where it has
    /// several sockets.
    pub(crate) homes: Vec<usize>,
    /// Pollers that its connections go to, ascending.
    pub(crate) pollers: Vec<usize>,
    pub(crate) spread: Spread,
    pub(crate) status: Status,
}

impl Entrance {
    /// Takes a place for one more connection.
    ///
    /// # Errors
    ///
    /// Which limit has none.
    #[inline]
    pub(crate) fn take(&self, shared: &Shared) -> Result<(), Cause> {
        if let Some(own) = &self.own
            && !own.take()
        {
            return Err(Cause::Listener);
        }
        if let Some(system) = &self.system
            && !system.take()
        {
            self.give_own(shared);
            return Err(Cause::System);
        }
        Ok(())
    }

    /// Gives such a place back, and has those look again who may have found none.
    ///
    /// Nobody waits in vain: whoever finds a limit reached is behind a later end of one of its
    /// connections, and that sends the command, which is carried out after the listener was taken
    /// out of the selector.
    #[inline]
    pub(crate) fn give(&self, shared: &Shared) {
        self.give_own(shared);
        if let Some(system) = &self.system
            && system.give()
        {
            for poller in &shared.pollers {
                poller.command(Command::Rearm);
            }
        }
    }

    fn give_own(&self, shared: &Shared) {
        if let Some(own) = &self.own
            && own.give()
        {
            for home in &self.homes {
                shared.pollers[*home].command(Command::Rearm);
            }
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.own.as_ref().is_none_or(Limit::has_room)
            && self.system.as_ref().is_none_or(|system| system.has_room())
    }

    /// The bytes for those who are turned away at a limit; `None` if they wait in the backlog.
    pub(crate) fn farewell(&self) -> Option<&Bytes> {
        match &self.at_limit {
            AtLimit::Refuse(farewell) => Some(self.readable(farewell)),
            AtLimit::Wait => None,
        }
    }

    /// The bytes for those whose source has no place left.
    pub(crate) fn source_farewell(&self) -> &Bytes {
        self.readable(&self.source_farewell)
    }

    /// Who speaks TLS can read nothing that comes before it.
    fn readable<'a>(&self, farewell: &'a Bytes) -> &'a Bytes {
        static NOTHING: Bytes = Bytes::new();
        match self.tls {
            Some(_) => &NOTHING,
            None => farewell,
        }
    }
}

/// How often the log is told at most that nobody can be accepted: a server that lives at its limit of
/// descriptors is in and out of it.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// What the log knows of a listener that cannot accept.
#[derive(Debug, Default)]
struct Told {
    said: Option<Instant>,
    /// ... and not yet that it is over.
    is_on: bool,
}

/// What is asked of a running listener, and how far that has come.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// Asked for. Pollers look at it when they are told to, and before each accept.
    is_paused: AtomicBool,
    /// Asked for. A poller that is given a socket looks at it: the command may have come while
    /// nobody here had that.
    is_to_close: AtomicBool,
    /// Sockets that are open.
    open: Mutex<usize>,
    closed: Condvar,
    told: Mutex<Told>,
    /// The log has been told of a choice that was none.
    pub(crate) said_misdirected: AtomicBool,
}

impl Status {
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.is_paused.store(paused, Ordering::Release);
    }

    pub(crate) fn is_to_close(&self) -> bool {
        self.is_to_close.load(Ordering::Acquire)
    }

    pub(crate) fn set_to_close(&self) {
        self.is_to_close.store(true, Ordering::Release);
    }

    /// Whether the log is to be told that nobody can be accepted: once, however often that is found,
    /// and on however many pollers.
    pub(crate) fn is_trouble_to_be_told(&self, now: Instant) -> bool {
        let mut told = lock(&self.told);
        let recently = |said| now.saturating_duration_since(said) < SAID_AGAIN;
        if told.is_on || told.said.is_some_and(recently) {
            return false;
        }
        let said = Some(now);
        *told = Told { said, is_on: true };
        true
    }

    /// Whether it is to be told that it is over: if it was told that it began.
    pub(crate) fn is_end_to_be_told(&self) -> bool {
        std::mem::take(&mut lock(&self.told).is_on)
    }

    pub(crate) fn is_closed(&self) -> bool {
        *lock(&self.open) == 0
    }

    /// Waits until it is closed; `false` if it is not by then. Never on a poller.
    pub(crate) fn wait_closed(&self, deadline: Instant) -> bool {
        let mut open = lock(&self.open);
        while *open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (open, _) = self
                .closed
                .wait_timeout(open, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        true
    }
}

/// The origin of a listening socket, and that this is open: until it is dropped, which is to be
/// after the socket.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) origin: Arc<Origin>,
}

impl Opened {
    pub(crate) fn new(origin: Arc<Origin>) -> Opened {
        if let Some(entrance) = &origin.entrance {
            *lock(&entrance.status.open) += 1;
        }
        Opened { origin }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(entrance) = &self.origin.entrance {
            let mut open = lock(&entrance.status.open);
            *open -= 1;
            if *open == 0 {
                entrance.status.closed.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_once_of_a_trouble_and_of_its_end_if_it_knows_the_beginning() {
        let status = Status::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(status.is_trouble_to_be_told(start));
        assert!(!status.is_trouble_to_be_told(at(3600)), "it goes on");
        assert!(status.is_end_to_be_told());
        let status = Status::default();
        assert!(status.is_trouble_to_be_told(start) && status.is_end_to_be_told());
        // In and out of it: not a word of either.
        for second in 1..60 {
            assert!(!status.is_trouble_to_be_told(at(second)));
            assert!(!status.is_end_to_be_told());
        }
        assert!(status.is_trouble_to_be_told(at(60)), "it is said again");
        assert!(status.is_end_to_be_told() && !status.is_end_to_be_told());
    }
}

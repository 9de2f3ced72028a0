//! Actors that wait for their connection.
//!
//! A slot whose connect is under way is a special one: [`Connecting`] is what is kept for it. Its
//! socket, if an attempt is under way, is registered for writing, and asked for its error when it
//! is writable. One timer stands for whatever is waited for. Until the actor is opened its messages
//! are set aside, as if it waited for room.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::actor::CloseReason;
use crate::call::{Hosted, TimerFor};
use crate::command::Command;
use crate::connect::{ConnectError, ConnectErrorKind, ConnectOptions, Failure, Remote, Target};
use crate::flags::Flags;
use crate::hosts::Hosts;
use crate::hosts::special::Special;
use crate::registry::{ActorKey, Counters, Registry};
use crate::sys::{
    Begun, Endpoint, HowToConnect, LookupError, Peer, Process, Socket, clock, look_up,
};
use crate::timers::deadline_after;
use crate::tls::{Session, TlsError, TlsErrorKind};
use crate::watch::Watch;
use crate::workers::{Refusal, Work};

/// How long after a Unix socket's backlog was found full it is looked at again, at first and at
/// most: nobody tells when it is not.
const FULL_FIRST: Duration = Duration::from_millis(1);
const FULL_LAST: Duration = Duration::from_millis(100);

/// A name that a thread is to look up for an actor.
struct Lookup {
    host: String,
    port: u16,
    simulated: Option<Process>,
    found: Option<Found>,
    key: ActorKey,
    registry: Arc<Registry>,
}

type Found = Result<Vec<SocketAddr>, LookupError>;

impl Work for Lookup {
    /// Not for who has gone meanwhile: a name whose server does not answer would keep all threads for
    /// nobody, and whoever wants another name behind it.
    fn run(&mut self) {
        if !self.registry.door.is_here(self.key) {
            return;
        }
        self.found = Some(look_up(&self.host, self.port, self.simulated));
    }

    /// To a poller that has ended it is said in vain.
    fn deliver(self: Box<Self>) {
        if let Some(found) = self.found {
            let key = self.key;
            self.registry.command(Command::Found { key, found });
        }
    }
}

/// Addresses of one name that are tried: more than a name has whose host is served well, and few
/// enough that each has its share of the time.
const ADDRS_MAX: usize = 16;

/// What is kept of an actor that is to be connected.
pub(super) struct Connecting {
    to: Remote,
    options: ConnectOptions,
    deadline: Instant,
    /// The name is being looked up.
    is_looked_up: bool,
    /// Addresses that are still to be tried.
    addrs: VecDeque<Endpoint>,
    /// The address that was tried last, and how many were.
    last: Option<Endpoint>,
    tried: usize,
    /// Why the last attempt failed.
    failure: Option<Failure>,
    /// For how long the next wait for a Unix socket's backlog is.
    pause: Duration,
}

impl Connecting {
    /// The beginning of TLS with whom it has been connected to.
    pub(super) fn new_session(&self) -> Result<Session, TlsError> {
        let Some(client) = &self.options.tls else {
            return Err(TlsError::new(TlsErrorKind::Local));
        };
        match &self.to {
            Remote::Tcp(addr) => Session::of_client(client, Some(&addr.ip().to_string())),
            Remote::Name { host, .. } => Session::of_client(client, Some(host)),
            Remote::Unix(_) => Session::of_client(client, None),
        }
    }

    /// How long it may take in all.
    pub(super) fn timeout(&self) -> Duration {
        self.options.timeout
    }
}

impl Hosts {
    /// An actor that is to be connected, made by another thread's closure.
    pub(crate) fn connect(
        &mut self,
        key: ActorKey,
        target: Target,
        make: Box<dyn FnOnce() -> Box<dyn Hosted> + Send>,
    ) {
        if let Some(actor) = self.make_spawned(key, make) {
            self.connect_actor(key, target, actor);
        }
    }

    /// The same with one that is there.
    pub(crate) fn connect_actor(&mut self, key: ActorKey, target: Target, actor: Box<dyn Hosted>) {
        let index = self.place_connecting(key, target, actor);
        self.slots[index].flags.set(Flags::OPENING);
        self.open(index);
    }

    /// Gives an actor its place; the connect begins when it would be opened.
    pub(super) fn place_connecting(
        &mut self,
        key: ActorKey,
        target: Target,
        actor: Box<dyn Hosted>,
    ) -> usize {
        let index = self.place(key, Some(actor));
        let Target { to, options } = target;
        let connecting = Connecting {
            to,
            deadline: deadline_after(clock::now(), options.timeout),
            options,
            is_looked_up: false,
            addrs: VecDeque::new(),
            last: None,
            tried: 0,
            failure: None,
            pause: FULL_FIRST,
        };
        self.make_special(index, Special::Connecting(Box::new(connecting)));
        // Its messages are set aside.
        self.slots[index].flags.set(Flags::WAITING);
        index
    }

    /// Whether this actor waits for its connection.
    pub(crate) fn is_connecting(&self, key: ActorKey) -> bool {
        let index = self.find(key);
        index.is_some_and(|index| self.connecting(index).is_some())
    }

    pub(super) fn connecting(&self, index: usize) -> Option<&Connecting> {
        match self.special.get(&(index as u32))? {
            Special::Connecting(connecting) => Some(connecting),
            _ => None,
        }
    }

    fn connecting_mut(&mut self, index: usize) -> Option<&mut Connecting> {
        match self.special.get_mut(&(index as u32))? {
            Special::Connecting(connecting) => Some(connecting),
            _ => None,
        }
    }

    /// Begins the connect of the actor at `index`.
    pub(super) fn begin_connecting(&mut self, index: usize) {
        if self.stop.is_some() {
            return self.not_connected(index, Failure::of(ConnectErrorKind::Stopped));
        }
        let Some(connecting) = self.connecting_mut(index) else {
            return;
        };
        match &connecting.to {
            Remote::Tcp(addr) => {
                let addr = *addr;
                self.try_all(index, vec![addr]);
            }
            Remote::Unix(path) => {
                connecting.addrs.push_back(Endpoint::Unix(path.clone()));
                self.try_next(index);
            }
            Remote::Name { host, port } => {
                let (host, port) = (host.clone(), *port);
                self.look_up(index, host, port);
            }
        }
    }

    /// Has a thread look a name up, which tells this poller.
    fn look_up(&mut self, index: usize, host: String, port: u16) {
        let key = self.key(index);
        let Some(connecting) = self.connecting_mut(index) else {
            return;
        };
        connecting.is_looked_up = true;
        let deadline = connecting.deadline;
        let registry = self.call.registry.clone();
        let simulated = self.call.shared.simulated;
        if let Err(failure) = self.has_network() {
            return self.not_connected(index, failure);
        }
        let lookup = Lookup {
            host,
            port,
            simulated,
            found: None,
            key,
            registry,
        };
        let resolvers = &self.call.shared.resolvers;
        let submitted = resolvers.submit(lookup, |lookup| Box::new(lookup));
        match submitted {
            Ok(()) => self.wake_at(index, deadline),
            Err((refusal, _)) => {
                let kind = match refusal {
                    Refusal::Full => ConnectErrorKind::TooManyLookups,
                    Refusal::Closed => ConnectErrorKind::Stopped,
                    Refusal::NoThread => ConnectErrorKind::LookupFailed,
                };
                self.not_connected(index, Failure::of(kind));
            }
        }
    }

    /// A name has been looked up, for somebody who may have gone, or been told that it took too
    /// long.
    pub(crate) fn found(&mut self, key: ActorKey, found: Found) {
        let Some(index) = self.find(key) else { return };
        let Some(connecting) = self.connecting_mut(index) else {
            return;
        };
        if !std::mem::take(&mut connecting.is_looked_up) {
            return;
        }
        match found {
            Ok(found) => self.try_all(index, found),
            Err(error) => self.not_connected(index, error.into()),
        }
    }

    /// Whether there is one to connect over: else why not.
    fn has_network(&self) -> Result<(), Failure> {
        if self.call.shared.simulated.is_some() || !self.selector.is_simulated() {
            return Ok(());
        }
        let text = "a Stage has no network; a Simulation has";
        Err(io::Error::new(io::ErrorKind::Unsupported, text).into())
    }

    /// Tries these, but for those of another family than the address on our side.
    fn try_all(&mut self, index: usize, mut addrs: Vec<SocketAddr>) {
        let Some(connecting) = self.connecting_mut(index) else {
            return;
        };
        if let Some(local) = connecting.options.local {
            let count = addrs.len();
            addrs.retain(|addr| addr.is_ipv4() == local.is_ipv4());
            if addrs.len() < count {
                // Told where none is left to be tried.
                connecting.failure = Some(Failure::of(ConnectErrorKind::LocalAddress));
            }
        }
        let addrs = addrs.into_iter().take(ADDRS_MAX).map(Endpoint::Tcp);
        connecting.addrs = addrs.collect();
        self.try_next(index);
    }

    /// Tries the addresses that are left until one lets itself be waited for.
    fn try_next(&mut self, index: usize) {
        loop {
            let Some(connecting) = self.connecting_mut(index) else {
                return;
            };
            let Some(addr) = connecting.addrs.pop_front() else {
                let failure = connecting.failure.take();
                let failure = failure.unwrap_or(Failure::of(ConnectErrorKind::NoSuchName));
                return self.not_connected(index, failure);
            };
            match self.attempt(index, &addr) {
                Ok(Begun::Done(socket, peer)) => {
                    self.hold(index, socket);
                    return self.connected(index, peer);
                }
                Ok(Begun::UnderWay(socket)) => {
                    self.hold(index, socket);
                    return self.wait_for_answer(index);
                }
                Ok(Begun::Full) => return self.wait_for_backlog(index, addr),
                Err(failure) if failure.kind.is_of_one_address() => {
                    if let Some(connecting) = self.connecting_mut(index) {
                        connecting.failure = Some(failure);
                    }
                }
                Err(failure) => return self.not_connected(index, failure),
            }
        }
    }

    /// Makes a socket, and begins to connect it.
    fn attempt(&mut self, index: usize, addr: &Endpoint) -> Result<Begun, Failure> {
        let simulated = self.call.shared.simulated;
        self.has_network()?;
        let Some(connecting) = self.connecting_mut(index) else {
            return Err(Failure::of(ConnectErrorKind::Closed));
        };
        if connecting.last.as_ref() != Some(addr) {
            connecting.tried += 1;
            connecting.last = Some(addr.clone());
        }
        let how = HowToConnect {
            local: connecting.options.local,
            socket: &connecting.options.socket,
            simulated,
        };
        Ok(Socket::begin_connect(addr, &how)?)
    }

    /// The slot has a socket.
    fn hold(&mut self, index: usize, socket: Socket) {
        let door = &self.call.registry.door;
        door.sockets.fetch_add(1, Ordering::AcqRel);
        self.slots[index].socket = Some(socket);
    }

    /// Closes the socket of an attempt.
    fn let_go(&mut self, index: usize) {
        self.forget_secured(index);
        let slot = &mut self.slots[index];
        let Some(socket) = slot.socket.take() else {
            return;
        };
        if slot.flags.take(Flags::REGISTERED)
            && let Err(error) = self.selector.deregister(socket.source())
        {
            log::warn!("deregister: {error}");
        }
        drop(socket);
        self.freed += 1;
    }

    fn wait_for_answer(&mut self, index: usize) {
        let now = clock::now();
        if let Some(connecting) = self.connecting(index) {
            let left = connecting.deadline.saturating_duration_since(now);
            let share = left / (connecting.addrs.len() as u32 + 1);
            self.wake_at(index, now + share);
            self.sync_interest(index);
        }
    }

    fn wait_for_backlog(&mut self, index: usize, addr: Endpoint) {
        let now = clock::now();
        if let Some(connecting) = self.connecting_mut(index) {
            connecting.addrs.push_front(addr);
            let until = deadline_after(now, connecting.pause).min(connecting.deadline);
            connecting.pause = (2 * connecting.pause).min(FULL_LAST);
            self.wake_at(index, until);
        }
    }

    /// Sets the one timer that a connect has.
    fn wake_at(&mut self, index: usize, at: Instant) {
        let owner = index as u32;
        self.call.timers.cancel_all(owner);
        let what = TimerFor::Watch(Watch::Connect);
        self.call.timers.set(owner, at, None, what);
    }

    /// The timer of a connect has fired.
    pub(super) fn connect_is_due(&mut self, index: usize) {
        let now = self.call.now();
        let Some(connecting) = self.connecting_mut(index) else {
            return;
        };
        let is_over = connecting.deadline <= now;
        if is_over && self.is_securing(index) {
            return self.handshake_is_late(index);
        }
        // Else it waited for a backlog.
        if self.slots[index].socket.is_some() || is_over {
            let timed_out = Failure::of(ConnectErrorKind::TimedOut);
            if is_over {
                return self.not_connected(index, timed_out);
            }
            return self.attempt_failed(index, timed_out);
        }
        self.try_next(index);
    }

    /// The socket of a connect is writable, or was taken to be.
    pub(super) fn look_whether_connected(&mut self, index: usize) {
        let Some(socket) = &self.slots[index].socket else {
            return;
        };
        match socket.connected() {
            Ok(Some(peer)) => self.connected(index, peer),
            Ok(None) => {}
            Err(error) => self.attempt_failed(index, error.into()),
        }
    }

    /// This attempt has come to nothing; the next one may do better.
    pub(super) fn attempt_failed(&mut self, index: usize, failure: Failure) {
        if !failure.kind.is_of_one_address() {
            return self.not_connected(index, failure);
        }
        self.let_go(index);
        if let Some(connecting) = self.connecting_mut(index) {
            connecting.failure = Some(failure);
            self.try_next(index);
        }
    }

    fn connected(&mut self, index: usize, peer: Peer) {
        let Some(connecting) = self.connecting(index) else {
            return;
        };
        if connecting.options.tls.is_none() {
            return self.settle(index, peer, None);
        }
        let deadline = connecting.deadline;
        self.wake_at(index, deadline);
        self.connect_securely(index, peer);
    }

    /// From here on the actor is a connection like any other; one that TLS secures may have been sent
    /// something already.
    pub(super) fn settle(&mut self, index: usize, peer: Peer, secured: Option<BytesMut>) {
        let Some(Special::Connecting(connecting)) = self.take_special(index) else {
            return;
        };
        self.call.timers.cancel_all(index as u32);
        let origin = self.call.shared.origin_of(&connecting.options.connection);
        origin.live.fetch_add(1, Ordering::AcqRel);
        let origin = self.origin(&origin);
        Counters::add(&self.call.registry.door.counters.connected, 1);
        let key = self.key(index);
        let slot = &mut self.slots[index];
        slot.origin = origin;
        slot.flags.clear(Flags::WAITING);
        slot.flags
            .set(Flags::SOCKET | Flags::CONNECTION | Flags::OPENING);
        if slot.flags.has(Flags::ASIDE) {
            self.let_in.push(key);
        }
        self.set_peer(index, peer);
        self.watch_idle(index);
        if let Some(early) = secured {
            self.make_secured(index, early);
        }
        self.open(index);
    }

    /// A connect has come to nothing: the actor is told why by `closed` alone. It counts as one that
    /// was opened and closed.
    pub(super) fn not_connected(&mut self, index: usize, failure: Failure) {
        let Some(Special::Connecting(connecting)) = self.take_special(index) else {
            return;
        };
        self.let_go(index);
        let counters = &self.call.registry.door.counters;
        Counters::add(&counters.connect_failed, 1);
        Counters::add(&counters.opened, 1);
        let flags = &mut self.slots[index].flags;
        flags.clear(Flags::OPENING | Flags::WAITING);
        flags.set(Flags::OPENED);
        let Connecting {
            to, last, tried, ..
        } = *connecting;
        let error = ConnectError::new(failure.kind, to, last, tried, failure.source);
        self.end(index, CloseReason::NotConnected(error));
    }
}

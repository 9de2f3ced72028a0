//! The listeners of one poller.
//!
//! A listener that cannot accept, because descriptors or memory ran out or its limit of connections
//! is reached, is taken out of the selector: a level-triggered listener that nobody accepts from
//! would be reported for ever. It comes back after [`REST`], or when a connection of its own has
//! ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::command::Command;
use crate::hosts::Hosts;
use crate::origin::{AtLimit, Origin, Spread};
use crate::registry::Counters;
use crate::sys::{Accepted, Interest, ListenSocket, Peer, Socket};

/// Connections accepted from one listener in one turn. A flood of connects costs some 20
/// microseconds each, so the others wait for little more than a millisecond.
const ACCEPTS_PER_TURN: usize = 64;

/// How long a listener rests when descriptors or memory ran out. Short for a client that waits in
/// the backlog, long for a processor that would try in vain.
const REST: Duration = Duration::from_millis(100);

struct Listener {
    socket: ListenSocket,
    origin: Arc<Origin>,
    state: State,
    /// Where round-robin goes next.
    next: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The selector reports connects.
    Armed,
    /// At its limit: until one of its connections has ended.
    AtLimit,
    /// Nothing to accept with: until this time.
    Resting(Instant),
}

/// All listeners of one poller. Their tokens are their places here, which no actor's token is: an
/// actor's high half is never 0.
#[derive(Default)]
pub(crate) struct Acceptor {
    listeners: Vec<Option<Listener>>,
}

impl Acceptor {
    /// Which listener a token stands for, if for any.
    pub(crate) fn listener_of(token: u64) -> Option<usize> {
        (token >> 32 == 0).then_some(token as usize)
    }

    /// Begins to accept.
    pub(crate) fn listen(&mut self, socket: ListenSocket, origin: Arc<Origin>, hosts: &mut Hosts) {
        let place = self
            .listeners
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.listeners.len());
        if place == self.listeners.len() {
            self.listeners.push(None);
        }
        self.listeners[place] = Some(Listener {
            socket,
            origin,
            state: State::AtLimit,
            next: 0,
        });
        self.arm(place, hosts);
    }

    /// Accepts a bounded number of the connects that wait.
    pub(crate) fn accept(&mut self, place: usize, hosts: &mut Hosts) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(Some(listener)) = self.listeners.get_mut(place) else {
                return;
            };
            if listener.is_full() && matches!(listener.origin.at_limit, AtLimit::Wait) {
                return self.disarm(place, State::AtLimit, hosts);
            }
            match listener.socket.accept() {
                Accepted::Connection(socket, peer) => listener.hand_out(socket, peer, hosts),
                Accepted::Nothing => return,
                Accepted::Again => {}
                Accepted::Exhausted(error) | Accepted::Failed(error) => {
                    Counters::add(&hosts.call.registry.door.counters.accept_pauses, 1);
                    let until = hosts.call.deadline(REST);
                    return self.disarm_logged(place, until, &error, hosts);
                }
            }
        }
    }

    /// Says so once, not every time that it tries in vain.
    fn disarm_logged(
        &mut self,
        place: usize,
        until: Instant,
        error: &std::io::Error,
        hosts: &mut Hosts,
    ) {
        if let Some(Some(listener)) = self.listeners.get(place)
            && listener.state == State::Armed
        {
            let local = &listener.origin.local;
            log::warn!(
                "listener {local}: accept: {error}; connects wait in the backlog and it tries again every {REST:?}"
            );
        }
        self.disarm(place, State::Resting(until), hosts);
    }

    fn disarm(&mut self, place: usize, state: State, hosts: &mut Hosts) {
        let Some(Some(listener)) = self.listeners.get_mut(place) else {
            return;
        };
        if listener.state == State::Armed
            && let Err(error) = hosts.selector.deregister(listener.socket.source())
        {
            log::warn!("deregister listener {}: {error}", listener.origin.local);
        }
        listener.state = state;
        // One of its connections on another poller may have ended since the limit was looked at,
        // too early to be told.
        if state == State::AtLimit && !listener.is_full() {
            self.arm(place, hosts);
        }
    }

    fn arm(&mut self, place: usize, hosts: &mut Hosts) {
        let Some(Some(listener)) = self.listeners.get_mut(place) else {
            return;
        };
        if listener.state == State::Armed {
            return;
        }
        match hosts
            .selector
            .register(listener.socket.source(), place as u64, Interest::READ)
        {
            Ok(()) => listener.state = State::Armed,
            Err(error) => {
                log::warn!("register listener {}: {error}", listener.origin.local);
                listener.state = State::Resting(hosts.call.deadline(REST));
            }
        }
    }

    /// When the first resting listener is to try again.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let resting = self
            .listeners
            .iter()
            .flatten()
            .filter_map(|listener| match listener.state {
                State::Resting(until) => Some(until),
                _ => None,
            });
        resting.min()
    }

    /// Lets those that have rested try again: by an accept, and only if that goes well back into
    /// the selector.
    pub(crate) fn rearm_due(&mut self, now: Instant, hosts: &mut Hosts) {
        for place in 0..self.listeners.len() {
            if let Some(listener) = &self.listeners[place]
                && matches!(listener.state, State::Resting(until) if until <= now)
            {
                self.accept(place, hosts);
                if let Some(listener) = &self.listeners[place]
                    && matches!(listener.state, State::Resting(until) if until <= now)
                {
                    log::info!("listener {}: accepts again", listener.origin.local);
                    self.arm(place, hosts);
                }
            }
        }
    }

    /// A connection of this origin has ended.
    pub(crate) fn rearm(&mut self, origin: &Arc<Origin>, hosts: &mut Hosts) {
        for place in 0..self.listeners.len() {
            if let Some(listener) = &self.listeners[place]
                && listener.state == State::AtLimit
                && Arc::ptr_eq(&listener.origin, origin)
            {
                self.arm(place, hosts);
            }
        }
    }

    pub(crate) fn close(&mut self, origin: &Arc<Origin>, hosts: &mut Hosts) {
        for place in 0..self.listeners.len() {
            if self.listeners[place]
                .as_ref()
                .is_some_and(|listener| Arc::ptr_eq(&listener.origin, origin))
            {
                self.close_at(place, hosts);
            }
        }
    }

    pub(crate) fn close_all(&mut self, hosts: &mut Hosts) {
        for place in 0..self.listeners.len() {
            self.close_at(place, hosts);
        }
    }

    /// Accepts what waits in the backlog, then closes: the kernel would reset those connects, which
    /// their clients believe made.
    fn close_at(&mut self, place: usize, hosts: &mut Hosts) {
        let Some(mut listener) = self.listeners[place].take() else {
            return;
        };
        // No new client finds a Unix socket from here on; those of TCP still do, so the loop is
        // bounded.
        listener.socket.remove_path();
        for _ in 0..BACKLOG_MAX {
            if listener.is_full() && matches!(listener.origin.at_limit, AtLimit::Wait) {
                break;
            }
            match listener.socket.accept() {
                Accepted::Connection(socket, peer) => listener.hand_out(socket, peer, hosts),
                Accepted::Again => {}
                Accepted::Nothing | Accepted::Exhausted(_) | Accepted::Failed(_) => break,
            }
        }
        if listener.state == State::Armed
            && let Err(error) = hosts.selector.deregister(listener.socket.source())
        {
            log::warn!("deregister listener {}: {error}", listener.origin.local);
        }
        // With it may go the factory, and what that captured.
        hosts.drop_guarded(listener);
    }
}

/// As many connects as a backlog may hold on a usual system, and some.
const BACKLOG_MAX: usize = 8192;

impl Listener {
    fn is_full(&self) -> bool {
        self.origin.live.load(Ordering::Acquire) >= self.origin.max
    }

    /// Counts a connection and gives it to the poller that is to host it.
    fn hand_out(&mut self, socket: Socket, peer: Peer, hosts: &mut Hosts) {
        let full = self.is_full();
        let here = &hosts.call.registry;
        if full && let AtLimit::Refuse(farewell) = &self.origin.at_limit {
            Counters::add(&here.door.counters.refused, 1);
            here.door.sockets.fetch_add(1, Ordering::AcqRel);
            return hosts.refuse(&self.origin, socket, peer, farewell.clone());
        }
        Counters::add(&here.door.counters.accepted, 1);
        self.origin.live.fetch_add(1, Ordering::AcqRel);
        let pollers = &hosts.call.shared.pollers;
        let load = |poller: usize| pollers[poller].door.sockets.load(Ordering::Relaxed);
        let target = match self.origin.spread {
            Spread::Here => here.door.poller as usize,
            Spread::RoundRobin => self.next % pollers.len(),
            // From `next` on, so that pollers with the same load take turns.
            Spread::LeastConnections => {
                let in_turn = (0..pollers.len()).map(|step| (self.next + step) % pollers.len());
                in_turn.min_by_key(|poller| load(*poller)).unwrap_or(0)
            }
        };
        self.next = (target + 1) % pollers.len();
        pollers[target].door.sockets.fetch_add(1, Ordering::AcqRel);
        if target == here.door.poller as usize {
            hosts.adopt(&self.origin, socket, peer);
        } else {
            pollers[target].command(Command::Adopt {
                origin: self.origin.clone(),
                socket,
                peer,
            });
        }
    }
}

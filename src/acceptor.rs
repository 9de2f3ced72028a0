//! The listeners of one poller.
//!
//! A listener that must not or cannot accept (it is paused, its limit of connections is reached, its
//! rate has no token, descriptors or memory ran out) is taken out of the selector: a level-triggered
//! listener that nobody accepts from would be reported for ever. What brings it back is kept in its
//! [`State`], and is a command or a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::command::{Command, Lent, Released};
use crate::entrance::{Cause, Entrance, Loads, Opened, Spread};
use crate::hosts::Hosts;
use crate::limits::{Token, by_hash};
use crate::origin::Origin;
use crate::proxy_protocol::ProxyProtocol;
use crate::registry::Counters;
use crate::sys::{Accepted, Interest, ListenSocket, Peer, Socket, Spare, clock};

/// How long a listener rests when descriptors or memory ran out; each time in vain twice as long, up
/// to the longest. Short for a client that waits in the backlog, long for a processor that would try
/// in vain.
const REST_MIN: Duration = Duration::from_millis(10);
const REST_MAX: Duration = Duration::from_millis(500);

/// Connects that a listener accepts at most when it closes, or twice its backlog, if that is more:
/// others may come meanwhile.
const LAST_ACCEPTS: usize = 8192;

struct Listener {
    socket: ListenSocket,
    /// Behind the socket, which is dropped first.
    opened: Opened,
    state: State,
    trouble: Trouble,
    /// Where the next turn around its pollers begins.
    next: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The selector reports connects.
    Armed,
    /// Until it is resumed.
    Paused,
    /// At a limit of connections: until one of them has ended.
    AtLimit,
    /// Its rate has no token: until this time.
    Throttled(Instant),
    /// Nothing to accept with: until this time.
    Resting(Instant),
}

impl State {
    fn until(self) -> Option<Instant> {
        match self {
            State::Throttled(until) | State::Resting(until) => Some(until),
            State::Armed | State::Paused | State::AtLimit => None,
        }
    }
}

/// What is known of an accept that fails.
#[derive(Default)]
struct Trouble {
    /// Descriptors or memory have run out, and no turn has gone well since.
    is_on: bool,
    /// In this turn it failed; and it went well.
    failed: bool,
    went_well: bool,
    /// How long it rested last, in vain.
    rested: Duration,
}

impl Trouble {
    fn begin_turn(&mut self) {
        self.failed = false;
        self.went_well = false;
    }

    fn note(&mut self) {
        self.failed = true;
        self.is_on = true;
    }

    /// How long to rest.
    fn rest(&mut self) -> Duration {
        self.rested = (2 * self.rested).clamp(REST_MIN, REST_MAX);
        self.rested
    }

    /// Whether it is over with a turn that ends here.
    fn ends(&mut self) -> bool {
        self.is_on && self.went_well && !self.failed && std::mem::take(&mut self.is_on)
    }
}

/// What an accept came to.
enum Step {
    /// There may be more.
    Next,
    /// Nobody waits.
    Done,
    /// Nobody is accepted for now.
    Stop(State),
}

/// All listeners of one poller. Their tokens are their places here, which no actor's token is: an
/// actor's high half is never 0.
#[derive(Default)]
pub(crate) struct Acceptor {
    listeners: Vec<Option<Listener>>,
    /// When one of them may be due to try again: no later than the first that waits for a time.
    next: Option<Instant>,
    /// What a client is turned away with when descriptors have run out.
    spare: Option<Spare>,
}

impl Acceptor {
    /// Which listener a token stands for, if for any.
    pub(crate) fn listener_of(token: u64) -> Option<usize> {
        (token >> 32 == 0).then_some(token as usize)
    }

    /// Begins to accept.
    pub(crate) fn listen(&mut self, socket: ListenSocket, opened: Opened, hosts: &mut Hosts) {
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
            opened,
            state: State::Paused,
            trouble: Trouble::default(),
            next: 0,
        });
        let listener = self.listeners[place].as_ref();
        let entrance = listener.and_then(Listener::entrance);
        let is_to_close = entrance.is_some_and(|entrance| entrance.status.is_to_close());
        // What was asked for, or a stop, while nobody here had the socket.
        if is_to_close || hosts.stop.is_some() {
            return self.close_at(place, hosts);
        }
        self.restock(place, hosts);
        self.arm(place, hosts);
    }

    /// Accepts a bounded number of the connects that wait.
    pub(crate) fn accept(&mut self, place: usize, hosts: &mut Hosts) {
        self.restock(place, hosts);
        let Some(Some(listener)) = self.listeners.get_mut(place) else {
            return;
        };
        let origin = listener.opened.origin.clone();
        let Some(entrance) = &origin.entrance else {
            return;
        };
        listener.trouble.begin_turn();
        for _ in 0..entrance.accepts_per_turn {
            let step = if entrance.status.is_paused() {
                Step::Stop(State::Paused)
            } else {
                listener.accept(entrance, true, &mut self.spare, hosts)
            };
            match step {
                Step::Next => {}
                Step::Done => break,
                Step::Stop(state) => {
                    listener.deregister(hosts);
                    listener.state = state;
                    return self.wait_until(state.until());
                }
            }
        }
        if listener.trouble.ends() && entrance.status.is_end_to_be_told() {
            log::info!("listener {}: accepts again", origin.local);
        }
    }

    /// A spare descriptor again, if this listener has a use for it and another thread had it.
    fn restock(&mut self, place: usize, hosts: &Hosts) {
        if self.spare.is_none()
            && let Some(Some(listener)) = self.listeners.get(place)
            && listener
                .entrance()
                .is_some_and(|entrance| entrance.farewell().is_some())
        {
            self.spare = Spare::open(hosts.call.shared.simulated).ok();
        }
    }

    fn disarm(&mut self, place: usize, state: State, hosts: &mut Hosts) {
        let Some(Some(listener)) = self.listeners.get_mut(place) else {
            return;
        };
        listener.deregister(hosts);
        listener.state = state;
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
                listener.state = listener.rest("register", &error, hosts);
                let until = listener.state.until();
                self.wait_until(until);
            }
        }
    }

    fn wait_until(&mut self, until: Option<Instant>) {
        self.next = self.next.into_iter().chain(until).min();
    }

    /// When there may be something to do for [`rearm_due`](Acceptor::rearm_due).
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Lets those whose time has come try again: by an accept, and only if that goes well back into
    /// the selector. So a rate costs a wake for a token and nothing else.
    pub(crate) fn rearm_due(&mut self, now: Instant, hosts: &mut Hosts) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        let is_due = |listener: &Option<Listener>| {
            let state = listener.as_ref().map(|listener| listener.state);
            state
                .and_then(State::until)
                .is_some_and(|until| until <= now)
        };
        for place in 0..self.listeners.len() {
            if is_due(&self.listeners[place]) {
                self.accept(place, hosts);
                if is_due(&self.listeners[place]) {
                    self.arm(place, hosts);
                }
            }
        }
        let waiting = self.listeners.iter().flatten();
        self.next = waiting.filter_map(|listener| listener.state.until()).min();
    }

    /// There is room below some limit.
    pub(crate) fn rearm(&mut self, hosts: &mut Hosts) {
        for place in 0..self.listeners.len() {
            if let Some(listener) = &self.listeners[place]
                && listener.state == State::AtLimit
                && listener.entrance().is_some_and(Entrance::has_room)
            {
                self.arm(place, hosts);
            }
        }
    }

    /// A listener has been paused or resumed.
    pub(crate) fn look(&mut self, origin: &Arc<Origin>, hosts: &mut Hosts) {
        for place in 0..self.listeners.len() {
            if let Some(listener) = &self.listeners[place]
                && listener.is_of(origin)
                && let Some(entrance) = listener.entrance()
            {
                match (entrance.status.is_paused(), listener.state) {
                    (true, _) => self.disarm(place, State::Paused, hosts),
                    (false, State::Paused) => self.arm(place, hosts),
                    (false, _) => {}
                }
            }
        }
    }

    /// Duplicates of this listener's sockets.
    pub(crate) fn lend(&self, origin: &Arc<Origin>, to: &Sender<io::Result<Lent>>) {
        for listener in self.listeners.iter().flatten() {
            if listener.is_of(origin) {
                let lent = listener.socket.lend();
                let lent = lent.map(|lent| lent.map(|(fd, file)| Lent { fd, file }));
                if let Some(lent) = lent.transpose() {
                    // Whoever asked may have given up.
                    let _ = to.send(lent);
                }
            }
        }
    }

    /// Gives this listener's sockets out of hand, open and with whoever waits on them. They come back
    /// as new ones do.
    pub(crate) fn release(
        &mut self,
        origin: &Arc<Origin>,
        to: &Sender<Released>,
        hosts: &mut Hosts,
    ) {
        for place in 0..self.listeners.len() {
            let is_of = |listener: &Listener| listener.is_of(origin);
            if !self.listeners[place].as_ref().is_some_and(is_of) {
                continue;
            }
            let Some(listener) = self.listeners[place].take() else {
                continue;
            };
            listener.deregister(hosts);
            let home = hosts.call.registry.clone();
            let released = Released::new(listener.socket, listener.opened, home);
            if let Err(unwanted) = to.send(released)
                && let Some((socket, opened)) = unwanted.0.into_parts()
            {
                // Whoever asked has given up meanwhile.
                self.listen(socket, opened, hosts);
            }
        }
    }

    pub(crate) fn close(&mut self, origin: &Arc<Origin>, hosts: &mut Hosts) {
        for place in 0..self.listeners.len() {
            if self.listeners[place]
                .as_ref()
                .is_some_and(|listener| listener.is_of(origin))
            {
                self.close_at(place, hosts);
            }
        }
    }

    pub(crate) fn close_all(&mut self, hosts: &mut Hosts) {
        for place in 0..self.listeners.len() {
            self.close_at(place, hosts);
        }
        self.spare = None;
    }

    /// Accepts what waits in the backlog, then closes: the kernel would reset those connects, which
    /// their clients believe made. So whoever waits for a rate or the end of a pause is accepted,
    /// too; limits of connections hold.
    fn close_at(&mut self, place: usize, hosts: &mut Hosts) {
        self.restock(place, hosts);
        let Some(mut listener) = self.listeners[place].take() else {
            return;
        };
        // No new client finds a Unix socket from here on; those of TCP still do, so the loop is
        // bounded.
        listener.socket.remove_path();
        let origin = listener.opened.origin.clone();
        if let Some(entrance) = &origin.entrance {
            for _ in 0..LAST_ACCEPTS.max(2 * entrance.backlog) {
                match listener.accept(entrance, false, &mut self.spare, hosts) {
                    Step::Next => {}
                    Step::Stop(State::Resting(_)) => {
                        let local = &origin.local;
                        log::warn!(
                            "listener {local}: closes and can accept nobody; who waited is reset"
                        );
                        break;
                    }
                    Step::Done | Step::Stop(_) => break,
                }
            }
        }
        listener.deregister(hosts);
        // With them may go the factory, and what that captured.
        hosts.drop_guarded((listener, origin));
    }
}

impl Listener {
    /// There whatever listens.
    fn entrance(&self) -> Option<&Entrance> {
        self.opened.origin.entrance.as_deref()
    }

    fn is_of(&self, origin: &Arc<Origin>) -> bool {
        Arc::ptr_eq(&self.opened.origin, origin)
    }

    /// Out of the selector, if it is in.
    fn deregister(&self, hosts: &mut Hosts) {
        if self.state == State::Armed
            && let Err(error) = hosts.selector.deregister(self.socket.source())
        {
            log::warn!("deregister listener {}: {error}", self.opened.origin.local);
        }
    }

    /// Accepts one connect, if its limits and, where `in_time`, its rate allow it.
    fn accept(
        &mut self,
        entrance: &Entrance,
        in_time: bool,
        spare: &mut Option<Spare>,
        hosts: &mut Hosts,
    ) -> Step {
        // Where clients wait at a limit their place is taken before the accept and given back if that
        // comes to nothing: looked at only, two pollers would take the same. Where they are refused it
        // is taken after it: one that is held over an accept that finds nobody would have another
        // poller refuse a client though there is room.
        let holds = entrance.farewell().is_none();
        if holds && entrance.take(&hosts.call.shared).is_err() {
            return Step::Stop(State::AtLimit);
        }
        let mut token = None;
        if let (Some(rate), true) = (&entrance.rate, in_time) {
            match rate.take(clock::now()) {
                Ok(taken) => token = Some(taken),
                Err(until) => {
                    give_back(entrance, holds, None, hosts);
                    Counters::add(&hosts.call.registry.door.counters.rate_waits, 1);
                    return Step::Stop(State::Throttled(until));
                }
            }
        }
        let step = match self.socket.accept() {
            Accepted::Connection(socket, peer) => {
                self.trouble.went_well = true;
                self.trouble.rested = Duration::ZERO;
                let place = match holds {
                    true => Ok(()),
                    false => entrance.take(&hosts.call.shared),
                };
                match place {
                    Ok(()) => self.let_in(entrance, socket, peer, hosts),
                    Err(cause) => {
                        count_refused(cause, hosts);
                        let farewell = entrance.farewell().cloned().unwrap_or_default();
                        hosts.refuse(&self.opened.origin, socket, peer, farewell);
                    }
                }
                return Step::Next;
            }
            Accepted::Nothing => Step::Done,
            Accepted::Again => Step::Next,
            Accepted::Exhausted(error) => {
                match self.turn_away(entrance, &error, spare, hosts) {
                    Some(Step::Next) => {
                        // It had no place, but a token's worth of the server's time.
                        give_back(entrance, holds, None, hosts);
                        return Step::Next;
                    }
                    Some(step) => step,
                    None => Step::Stop(self.rest("accept", &error, hosts)),
                }
            }
            Accepted::Failed(error) => Step::Stop(self.rest("accept", &error, hosts)),
        };
        give_back(entrance, holds, token, hosts);
        step
    }

    /// Says once that nothing can be accepted, not every time that it tries in vain.
    #[cold]
    fn rest(&mut self, what: &str, error: &io::Error, hosts: &mut Hosts) -> State {
        Counters::add(&hosts.call.registry.door.counters.accept_pauses, 1);
        self.trouble.note();
        let status = self.entrance().map(|entrance| &entrance.status);
        if status.is_some_and(|status| status.is_trouble_to_be_told(clock::now())) {
            let local = &self.opened.origin.local;
            log::warn!(
                "listener {local}: {what}: {error}; connects wait in the backlog, and it tries again by itself"
            );
        }
        State::Resting(hosts.call.deadline(self.trouble.rest()))
    }

    /// No descriptor is left. Where clients are refused rather than left to wait, one is, with the
    /// spare: given up for the accept, and taken again behind it. `None` if there is no spare to do so
    /// with: another thread of the process has taken it in between, now or before, and the listener
    /// rests until somebody closes something.
    ///
    /// Linux looks for a descriptor before it looks whether anybody waits, so that nobody may.
    #[cold]
    fn turn_away(
        &mut self,
        entrance: &Entrance,
        error: &io::Error,
        spare: &mut Option<Spare>,
        hosts: &mut Hosts,
    ) -> Option<Step> {
        let farewell = entrance.farewell()?;
        drop(spare.take()?);
        let accepted = self.socket.accept();
        let step = match &accepted {
            Accepted::Connection(..) => Some(Step::Next),
            // A wait for readiness, or for a connect that is not lost.
            Accepted::Nothing | Accepted::Again => Some(Step::Done),
            Accepted::Exhausted(_) | Accepted::Failed(_) => None,
        };
        if let Accepted::Connection(socket, _) = accepted {
            self.trouble.note();
            if entrance.status.is_trouble_to_be_told(clock::now()) {
                let local = &self.opened.origin.local;
                log::warn!("listener {local}: accept: {error}; clients are turned away for now");
            }
            count_refused(Cause::Descriptors, hosts);
            hosts.turn_away(socket, farewell);
        }
        *spare = Spare::open(hosts.call.shared.simulated).ok();
        step
    }

    /// Hands a connection to the poller that is to host it. Its place has been taken.
    fn let_in(&mut self, entrance: &Entrance, socket: Socket, peer: Peer, hosts: &mut Hosts) {
        let mut ticket = None;
        let is_proxy = |proxies: &ProxyProtocol| proxies.trusts(&peer);
        // Of what comes from a proxy it is the header that tells the source.
        if let (Some(sources), Some(ip)) = (&entrance.sources, peer.ip())
            && !entrance.proxies.as_ref().is_some_and(is_proxy)
        {
            ticket = sources.take(ip);
            if ticket.is_none() {
                entrance.give(&hosts.call.shared);
                count_refused(Cause::Source, hosts);
                let farewell = entrance.source_farewell().clone();
                return hosts.refuse(&self.opened.origin, socket, peer, farewell);
            }
        }
        let target = self.choose(entrance, peer, hosts);
        let origin = &self.opened.origin;
        let here = &hosts.call.registry.door;
        origin.live.fetch_add(1, Ordering::AcqRel);
        let pollers = &hosts.call.shared.pollers;
        pollers[target].door.sockets.fetch_add(1, Ordering::AcqRel);
        Counters::add(&here.counters.accepted, 1);
        if target == here.poller as usize {
            if ticket.is_some() {
                hosts.arriving = ticket;
            }
            hosts.adopt(origin, socket, peer);
        } else {
            pollers[target].command(Command::Adopt {
                origin: origin.clone(),
                socket,
                peer,
                ticket,
            });
        }
    }

    /// The poller that is to host a connection.
    #[inline]
    fn choose(&mut self, entrance: &Entrance, peer: Peer, hosts: &mut Hosts) -> usize {
        let pollers = &entrance.pollers;
        if let ([only], false) = (&pollers[..], matches!(entrance.spread, Spread::Custom(_))) {
            return *only;
        }
        let all = &hosts.call.shared.pollers;
        let target = match (&entrance.spread, peer.ip()) {
            (Spread::Here, _) => return hosts.call.registry.door.poller as usize,
            (Spread::RoundRobin, _) => pollers[self.next % pollers.len()],
            (Spread::SourceHash, Some(ip)) => return pollers[by_hash(ip, pollers.len())],
            // Peers without an address are of no source.
            (Spread::LeastConnections, _) | (Spread::SourceHash, None) => {
                Loads::new(pollers, all).least_from(self.next)
            }
            (Spread::Custom(choose), _) => {
                let shared = hosts.call.shared.clone();
                let loads = Loads::new(pollers, &shared.pollers);
                let chosen = hosts.guarded_as("a choice of a poller", || choose.0(peer, &loads));
                match chosen.filter(|chosen| pollers.binary_search(chosen).is_ok()) {
                    Some(chosen) => chosen,
                    None => {
                        self.misdirected(entrance, chosen, hosts);
                        loads.least_from(self.next)
                    }
                }
            }
        };
        // From the next one on, so that pollers with the same load take turns.
        self.next = match pollers.binary_search(&target) {
            Ok(at) => (at + 1) % pollers.len(),
            Err(_) => 0,
        };
        target
    }

    #[cold]
    fn misdirected(&self, entrance: &Entrance, chosen: Option<usize>, hosts: &Hosts) {
        Counters::add(&hosts.call.registry.door.counters.misdirected, 1);
        if !entrance
            .status
            .said_misdirected
            .swap(true, Ordering::Relaxed)
        {
            let local = &self.opened.origin.local;
            let what = match chosen {
                Some(poller) => format!("has chosen poller {poller}, which is none of it"),
                None => "has panicked".to_owned(),
            };
            log::warn!(
                "listener {local}: its choice of a poller {what}; such connections go to that with the fewest"
            );
        }
    }
}

/// What was taken for an accept that came to nothing.
#[inline]
fn give_back(entrance: &Entrance, holds: bool, token: Option<Token>, hosts: &Hosts) {
    if holds {
        entrance.give(&hosts.call.shared);
    }
    if let (Some(rate), Some(token)) = (&entrance.rate, token) {
        rate.give(token);
    }
}

fn count_refused(cause: Cause, hosts: &Hosts) {
    let counters = &hosts.call.registry.door.counters;
    Counters::add(&counters.refused[cause as usize], 1);
}

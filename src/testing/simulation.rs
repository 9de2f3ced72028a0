//! A whole system on the thread of a test.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::actor::Actor;
use crate::addr::Addr;
use crate::ask::{self, AskError, Asked, Reply};
use crate::connect::{ConnectOptions, Remote, Target};
use crate::handle::Handle;
use crate::registry::Stats;
use crate::sync::lock;
use crate::sys::{Endpoint, Faults, Network, Process, Random, Trace, clock};
use crate::system::{Builder, System};
use crate::workers::{Job, Workers};

use super::client::{Client, parsed};
use super::runner::{Runner, Script, assert_nothing_is_left};

mod schedule;

/// Events that a trace keeps unless it is told otherwise: the last second or so of a busy run.
const TRACE_KEPT: usize = 10_000;

/// Simulated time after which a run that has been [finished](Simulation::finish), and does not
/// come to an end, is said never to.
const REST: Duration = Duration::from_secs(600);

/// Turns without the clock moving by more than their own time, after which it is said that nothing
/// else will ever come: actors that keep sending one another messages.
const TURNS_MAX: u64 = 10_000_000;

/// What a turn takes: the processor is not infinitely fast, and who turns for ever gets older.
const TURN_NS: u64 = 1000;

/// Pollers, listeners, actors, mailboxes and timers as they are shipped, on a simulated selector,
/// network and clock, on the thread of a test. See the [module](super#a-whole-system).
///
/// It begins with a seed, which decides all that is left to chance: in which order pollers and
/// their events come, where another poller comes in between, and what goes wrong
/// ([`faults`](Simulation::faults)). The same seed is the same run, to the byte, on every machine.
///
/// Nothing happens but in [`step`](Simulation::step) and what calls it; time passes there and
/// nowhere else.
///
/// # Panics
///
/// A second one on a thread that has one panics. While there is one, the time of the thread is its
/// own, and [`Stage`](super::Stage)s and real systems on this thread are not to be mixed with it.
///
/// Actors' panics are contained as in a server; then the method that brought one about panics,
/// unless they are [allowed](Simulation::allow_panics).
pub struct Simulation {
    seed: u64,
    start: Instant,
    /// Decides for the pollers.
    order: Random,
    /// Decides for the test.
    random: Random,
    programs: Vec<Program>,
    pollers: Vec<Runner>,
    /// Which program the clients are, once there is one.
    clients: Option<(usize, System)>,
    scripts: BinaryHeap<Reverse<Script>>,
    scripted: u64,
    /// Offloaded work that has begun, by when it is done and in which order it began.
    working: BTreeMap<(Duration, u64), (Workers, Job)>,
    begun: u64,
    /// Turns since the clock moved by itself.
    turns: u64,
    panics: u64,
    panics_allowed: bool,
    is_finished: bool,
    keeps_all: bool,
    /// The network is that of the thread.
    _not_send: PhantomData<*const ()>,
}

/// A system, as the simulation sees it.
struct Program {
    process: Process,
    handle: Handle,
}

/// Adds a line to the [trace](Simulation::trace) of this thread's simulation: for actors and tests
/// that have something to say. Where there is none, as in a server, it does nothing: the text is not
/// even made, so that it may stay in the code of an actor.
pub fn note(text: impl fmt::Display) {
    Network::note(text);
}

impl Simulation {
    /// Begins one in which nothing goes wrong until [`faults`](Simulation::faults) says so.
    ///
    /// # Panics
    ///
    /// When this thread has one already.
    #[must_use]
    pub fn new(seed: u64) -> Simulation {
        assert!(
            !Network::with(|network| network.is_simulated()),
            "simulation: this thread has one already"
        );
        assert!(
            !Network::with(|network| network.is_in_use()),
            "simulation: this thread has a Stage, whose time and network are not those of one"
        );
        let mut random = Random::new(seed);
        let (order, network) = (random.split(), random.split());
        let start = Network::begin(network);
        Network::with(|network| network.keep_trace(TRACE_KEPT));
        Simulation {
            seed,
            start,
            order,
            random,
            programs: Vec::new(),
            pollers: Vec::new(),
            clients: None,
            scripts: BinaryHeap::new(),
            scripted: 0,
            working: BTreeMap::new(),
            begun: 0,
            turns: 0,
            panics: 0,
            panics_allowed: false,
            is_finished: false,
            keeps_all: false,
            _not_send: PhantomData,
        }
    }

    /// What it was begun with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// For the choices of the test itself; the simulation does not draw from it.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    // ---- what goes wrong ------------------------------------------------------------------------

    /// From here on these things may go wrong; which of them do, and how often, is drawn from the
    /// seed. Called again, all is drawn anew; connections that are there keep their delay, and the
    /// end that awaits them.
    pub fn faults(&mut self, faults: Faults) {
        Network::with(|network| network.set_faults(faults));
    }

    /// Nothing goes wrong any more: the quiet phase, in which everything has to come to its end.
    /// What was frozen, stalled or late goes on, within a second; what is lost stays lost.
    /// Connections that were to be reset live.
    pub fn heal(&mut self) {
        Network::with(Network::heal);
        for runner in &mut self.pollers {
            runner.stalled = Duration::ZERO;
        }
    }

    /// What goes wrong how often in this run, or did before it was [healed](Simulation::heal), for a
    /// person to read: `Delay 1/2, Reset 1/10`.
    #[must_use]
    pub fn rates(&self) -> String {
        Network::with(|network| network.drawn().to_string())
    }

    /// From here on an accept or a connect of this system fails (`EMFILE`) while it has so many
    /// sockets.
    ///
    /// # Panics
    ///
    /// When the system is not of a simulation.
    pub fn limit_descriptors(&mut self, system: &System, max: usize) {
        let process = system.handle().shared.simulated;
        let process = process.expect("limit_descriptors: this system is not simulated");
        Network::with(|network| network.limit_descriptors(process, max));
    }

    /// Panics of actors are no failure of the run from here on.
    pub fn allow_panics(&mut self) {
        self.panics_allowed = true;
    }

    // ---- who takes part -------------------------------------------------------------------------

    /// Builds a system here, instead of by [`Builder::build`]: its pollers run when the simulation
    /// does. [`Builder::busy_poll`] has no effect.
    ///
    /// There may be several, which meet on the network.
    pub fn system(&mut self, builder: Builder) -> System {
        let name = builder.given_name();
        let process = Network::with(|network| network.process(name));
        let (system, pollers) = builder
            .simulated(process)
            .expect("what is simulated takes no descriptor");
        let handle = system.handle();
        for (number, poller) in (0..).zip(pollers) {
            self.pollers.push(Runner {
                program: self.programs.len(),
                number,
                poller: Some(Box::new(poller)),
                until: Some(Duration::ZERO),
                stalled: Duration::ZERO,
                has_stopped: false,
            });
        }
        self.programs.push(Program { process, handle });
        system
    }

    /// Has `client`, an actor like those of the server, connect to a listener, as
    /// [`Context::connect`](crate::Context::connect) does. All clients live on a poller of their own,
    /// whose system is called `clients`. It need not be `Send`: what it finds out it may tell the
    /// test by an `Rc`.
    ///
    /// # Panics
    ///
    /// When `to` is no [`Remote`].
    #[track_caller]
    pub fn connect<R, A: Actor>(&mut self, to: R, client: A) -> Addr<A>
    where
        R: TryInto<Remote>,
        R::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.connect_with(to, ConnectOptions::default(), client)
    }

    /// The same with these options.
    ///
    /// # Panics
    ///
    /// When `to` is no [`Remote`].
    #[track_caller]
    pub fn connect_with<R, A: Actor>(
        &mut self,
        to: R,
        options: ConnectOptions,
        client: A,
    ) -> Addr<A>
    where
        R: TryInto<Remote>,
        R::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let to = parsed(to);
        let clients = self.clients();
        let registry = self.programs[clients].handle.shared.pollers[0].clone();
        let (post, key) = (registry.post::<A>(), registry.door.reserve());
        self.connect_client(key, Target { to, options }, Box::new(client));
        Addr::new(post, key)
    }

    /// From here on the name `host` leads to these addresses, in this order, for all that connect
    /// out. Other names are unknown ([`ConnectErrorKind::NoSuchName`]); to look one up takes some
    /// milliseconds, now and then up to a second.
    ///
    /// [`ConnectErrorKind::NoSuchName`]: crate::ConnectErrorKind::NoSuchName
    pub fn name<I>(&mut self, host: &str, addrs: I)
    where
        I: IntoIterator,
        I::Item: Into<IpAddr>,
    {
        let addrs = addrs.into_iter().map(Into::into).collect();
        Network::with(|network| network.set_name(host, addrs));
    }

    /// A client that the test plays itself.
    ///
    /// # Panics
    ///
    /// When `to` is not an address.
    #[track_caller]
    pub fn client<E>(&mut self, to: E) -> Client
    where
        E: TryInto<Endpoint>,
        E::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        Client::connect(&parsed::<Endpoint, _>(to))
    }

    /// The same, and it comes from this address: for what a listener does by
    /// [source](crate::ListenOptions::max_per_source). Other clients come from 10.0.0.1 or fd00::1,
    /// and from the next address when 28,000 have.
    ///
    /// # Panics
    ///
    /// When `to` is not an address.
    #[track_caller]
    pub fn client_from<E>(&mut self, from: IpAddr, to: E) -> Client
    where
        E: TryInto<Endpoint>,
        E::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let client = self.client(to);
        client.come_from(from);
        client
    }

    /// The program of the client actors.
    fn clients(&mut self) -> usize {
        if let Some((clients, _)) = self.clients {
            return clients;
        }
        let system = self.system(System::builder().pollers(1).name("clients"));
        let clients = self.programs.len() - 1;
        self.clients = Some((clients, system));
        clients
    }

    /// Calls `what` when so much time has passed, from within [`step`](Simulation::step): what a
    /// scenario is written down with. Of two for the same time the one that was given first is
    /// called first. What it returns is dropped.
    pub fn after<R>(&mut self, delay: Duration, what: impl FnOnce(&mut Simulation) -> R + 'static) {
        self.scripted += 1;
        self.scripts.push(Reverse(Script {
            at: self.elapsed() + delay,
            number: self.scripted,
            what: Box::new(|simulation| drop(what(simulation))),
        }));
    }

    // ---- time -----------------------------------------------------------------------------------

    /// The simulated time, as [`Context::now`](crate::Context::now) tells it.
    #[must_use]
    pub fn now(&self) -> Instant {
        clock::now()
    }

    /// How much time has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        clock::now().saturating_duration_since(self.start)
    }

    /// Lets one poller have a turn, which takes a microsecond, or, when none has anything to do,
    /// moves the clock to where something is. `false` when nothing will ever happen any more by
    /// itself.
    ///
    /// # Panics
    ///
    /// When an actor panicked, and when the framework breaks a promise: a poller that sleeps while
    /// there is a message for it.
    #[track_caller]
    pub fn step(&mut self) -> bool {
        let happened = self.happen();
        let moved = match self.choose() {
            Some(at) => {
                self.run_turn(at);
                self.pass(Duration::from_nanos(TURN_NS));
                self.turns += 1;
                assert!(
                    self.turns < TURNS_MAX,
                    "{TURNS_MAX} turns without rest: some actors keep one another busy for ever"
                );
                true
            }
            None => {
                self.check_sleepers();
                self.turns = 0;
                match self.next_at() {
                    Some(next) => {
                        self.pass(next.saturating_sub(self.elapsed()));
                        true
                    }
                    None => happened,
                }
            }
        };
        self.show_panics();
        moved
    }

    /// Runs until so much time has passed.
    #[track_caller]
    pub fn run_for(&mut self, time: Duration) {
        let until = self.elapsed() + time;
        // In its place among all else that happens.
        self.after(time, |_| ());
        while self.elapsed() < until && self.step() {}
    }

    /// Runs until `done` says so; it is asked after each step.
    ///
    /// # Panics
    ///
    /// When it has not after so much simulated time, or when nothing will happen any more.
    #[track_caller]
    pub fn run_until(&mut self, within: Duration, mut done: impl FnMut(&mut Simulation) -> bool) {
        let until = self.elapsed() + within;
        while !done(self) {
            let moves = self.step();
            let elapsed = self.elapsed();
            assert!(
                moves,
                "run_until: nothing will happen any more, at {elapsed:?}"
            );
            // Looked at before `done` is: what happens later does not count.
            assert!(
                elapsed <= until,
                "run_until: not after {within:?}, at {elapsed:?}"
            );
        }
    }

    /// Asks an actor, and runs until it has answered.
    ///
    /// # Errors
    ///
    /// As [`Addr::ask`].
    #[track_caller]
    pub fn ask<A: Actor, R: Send + 'static>(
        &mut self,
        addr: &Addr<A>,
        timeout: Duration,
        question: impl FnOnce(Reply<R>) -> A::Message,
    ) -> Result<R, AskError> {
        let answer = Arc::new(Mutex::new(None));
        let put = answer.clone();
        let (reply, asked) = Asked::new(move |result| *lock(&put) = Some(result));
        match addr.send(question(reply)) {
            Ok(()) => {}
            Err(error) if error.is_full() => asked.fail(AskError::Full),
            Err(_) => asked.fail(AskError::Gone),
        }
        let until = self.elapsed() + timeout;
        self.after(timeout, |_| ());
        while lock(&answer).is_none() && self.elapsed() < until && self.step() {}
        asked.fail(AskError::TimedOut);
        let answer = lock(&answer).take();
        answer.unwrap_or(Err(AskError::Unanswered))
    }

    /// Ends the run as a server ends: [heals](Simulation::heal), stops all systems within that time
    /// ([`Handle::stop`]), the client actors after them, and runs until all pollers have ended. What
    /// is still to be done by a script is not done.
    ///
    /// # Panics
    ///
    /// When they do not end, when an actor was opened and not closed, or when a socket is left, or the
    /// file of one. A healed run that does not come to its end has a livelock in it, or somebody waits for what
    /// will never come.
    #[track_caller]
    pub fn finish(&mut self, within: Duration) {
        self.heal();
        self.scripts.clear();
        self.is_finished = true;
        let clients = self.clients.as_ref().map(|(clients, _)| *clients);
        let is_server = |program: usize| Some(program) != clients;
        for (at, program) in self.programs.iter().enumerate() {
            if is_server(at) {
                program.handle.stop(within);
            }
        }
        self.run_to_end(within, is_server);
        if let Some(clients) = clients {
            self.programs[clients].handle.stop(Duration::ZERO);
            self.run_to_end(Duration::ZERO, |_| true);
        }
        for program in &self.programs {
            assert_nothing_is_left(&program.handle);
        }
    }

    #[track_caller]
    fn run_to_end(&mut self, within: Duration, of: impl Fn(usize) -> bool) {
        let until = self.elapsed() + within + REST;
        loop {
            let left: Vec<String> = self
                .pollers
                .iter()
                .filter(|runner| of(runner.program) && !runner.has_stopped)
                .map(|runner| format!("{}.{}", runner.program, runner.number))
                .collect();
            if left.is_empty() {
                return;
            }
            let moves = self.step();
            assert!(
                moves && self.elapsed() < until,
                "finish: pollers {} have not ended at {:?}",
                left.join(", "),
                self.elapsed()
            );
        }
    }

    // ---- what there is to see -------------------------------------------------------------------

    /// What has happened so far. The same seed gives the same text.
    #[must_use]
    pub fn trace(&self) -> Trace {
        Network::with(|network| network.trace())
    }

    /// How many of the last events the trace keeps, from here on: 10,000 by default, 0 for none at
    /// all, which makes a long run faster.
    pub fn keep_trace(&mut self, events: usize) {
        if !self.keeps_all {
            Network::with(|network| network.keep_trace(events));
        }
    }

    /// All of it, whatever the scenario says.
    pub(super) fn keep_whole_trace(&mut self) {
        self.keep_trace(usize::MAX);
        self.keeps_all = true;
    }

    /// The counters of the client actors' system.
    #[must_use]
    pub fn client_stats(&self) -> Stats {
        let clients = self.clients.as_ref();
        clients.map_or_else(Stats::default, |(_, system)| system.stats())
    }

    /// How many connections own a buffer in which nothing is: none, as a server promises.
    #[must_use]
    pub fn idle_buffers(&self) -> usize {
        self.pollers.iter().map(Runner::idle_buffers).sum()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.is_finished
    }
}

/// Ends all that is left, and gives the thread its own time back.
impl Drop for Simulation {
    fn drop(&mut self) {
        self.scripts.clear();
        ask::mark_poller_thread(true);
        self.pollers.clear();
        self.working.clear();
        // Also where a turn was left by a panic.
        ask::mark_poller_thread(false);
        Network::end();
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("seed", &self.seed)
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}

//! Builds, starts, stops and joins.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::actor::Actor;
use crate::addr::Addr;
use crate::adopt::{AdoptError, AdoptOptions, Adoptable};
use crate::ask;
use crate::call::Hosted;
use crate::command::Command;
use crate::connect::{ConnectOptions, Remote};
use crate::entrance::{Entrance, Opened, Spread, Status};
use crate::handle::{Handle, Shared};
use crate::hosts::{OUTPUT_BUDGET, READ_MAX};
use crate::limits::{Limit, Rate, Sources};
use crate::listener::{ListenOptions, Listener};
use crate::local::Makers;
use crate::origin::{ConnectionOptions, Origin};
use crate::poller::Poller;
use crate::registry::{Registry, Stats};
use crate::sys::{
    BindOptions, Endpoint, Interest, ListenSocket, Network, Peer, Process, Selector, SelectorKind,
    SocketOption, Turn, affinity, clock,
};
use crate::tick::Ticks;
use crate::workers::{Limits, Workers};

mod options;
mod pin;

use pin::{Pin, pin_error};

/// Pollers of a simulated system that says nothing of it.
const SIMULATED_POLLERS: usize = 2;

/// How a [`System`] is to be built.
#[derive(Debug, Clone)]
pub struct Builder {
    /// `None` for as many as there are processors.
    pollers: Option<usize>,
    mailbox_bound: usize,
    max_connections: usize,
    busy_poll: Duration,
    output_budget: usize,
    read_max: usize,
    pin: Pin,
    /// `None` for what the environment or the platform says.
    selector: Option<SelectorKind>,
    name: String,
    workers: Limits,
    makers: Makers,
    ticks: Ticks,
}

impl Builder {
    /// How many poller threads. By default as many as the process may use processors; in a
    /// [simulation](crate::testing::Simulation), which is the same on every machine, 2.
    ///
    /// # Panics
    ///
    /// When it is 0.
    pub fn pollers(mut self, pollers: usize) -> Self {
        assert!(pollers > 0, "pollers: there must be at least one");
        self.pollers = Some(pollers);
        self
    }

    /// How many messages may wait for the actors of one type on one poller, before senders get them
    /// back. By default 16,384: about one MiB of messages of 64 bytes, some milliseconds of work.
    ///
    /// As many threads as send at one moment can pass it by one message each, and an actor that
    /// waits for its own type's mailbox up to twice the bound. Spawn, join, leave, close, answers,
    /// and notices of an end or of room are never refused and take no place: of those there are as
    /// many as somebody asked for.
    ///
    /// # Panics
    ///
    /// When it is less than 2.
    pub fn mailbox_bound(mut self, messages: usize) -> Self {
        assert!(
            messages >= 2,
            "mailbox_bound: at least two messages must have room"
        );
        self.mailbox_bound = messages;
        self
    }

    /// How many connections all listeners together may have at a time, those of a close under way
    /// included; by default as many as the process has descriptors for. What happens to further ones
    /// is for each listener to say: [`ListenOptions::at_limit`]. Exact, however many pollers accept.
    ///
    /// Connections that were made from here, adopted sockets and datagram sockets do not count.
    ///
    /// ```
    /// # use greenroom::*;
    /// # fn main() -> std::io::Result<()> {
    /// let system = System::builder().max_connections(50_000).build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// When it is 0.
    pub fn max_connections(mut self, connections: usize) -> Self {
        assert!(
            connections > 0,
            "max_connections: at least one connection must be allowed"
        );
        self.max_connections = connections;
        self
    }

    /// How pollers wait for readiness. By default by what `GREENROOM_SELECTOR` in the environment
    /// names, `epoll`, `kqueue` or `poll`; without that by epoll on Linux, by kqueue on the BSDs
    /// and macOS, and by poll(2) elsewhere.
    ///
    /// A [simulation](crate::testing::Simulation) answers for the kernel itself, and this says
    /// nothing to it.
    ///
    /// ```
    /// use greenroom::*;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let system = System::builder().selector(SelectorKind::Poll).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn selector(mut self, kind: SelectorKind) -> Self {
        self.selector = Some(kind);
        self
    }

    /// How many bytes of output may wait on one poller for peers that do not take them, all its
    /// connections together; each alone has its
    /// [`output_max`](crate::ConnectionOptions::output_max). By default 1 GiB: of 256 connections
    /// that have used up the default of that.
    ///
    /// Past it those for which the most waits pay, until an eighth of it is free again: with all
    /// writes but the newest under [`DropOldest`](crate::SlowReader::DropOldest), else, or where
    /// those are little, with their [end](crate::CloseReason::OutputBudget). A reader that keeps up
    /// never pays for those that do not. A payload that several share counts for each. What waits
    /// now is [`Stats::output_waiting`](crate::Stats::output_waiting).
    pub fn output_budget(mut self, bytes: usize) -> Self {
        self.output_budget = bytes;
        self
    }

    /// What the poller threads are called: `name-0` and so on; those for offloaded work are called
    /// `name-work-0` and so on. By default `poller`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Starts the poller threads.
    ///
    /// # Errors
    ///
    /// When the system has no descriptor, memory or thread left for them; when one cannot be
    /// [pinned](Builder::pin); `Unsupported` for a
    /// [selector](Builder::selector) that this platform lacks, `InvalidInput` for one named in the
    /// environment that there is not; and on the thread of a
    /// [`Simulation`](crate::testing::Simulation), which builds systems itself.
    pub fn build(self) -> io::Result<System> {
        if Network::with(|network| network.is_simulated()) {
            let text = "build: this thread has a simulation; use Simulation::system";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        // From here on whatever fails stops the threads that run already: by the drop of the
        // system.
        let processors = || thread::available_parallelism().map_or(1, |n| n.get());
        let pollers = self.pollers.unwrap_or_else(processors);
        let kind = match self.selector {
            Some(kind) => kind,
            None => SelectorKind::of_environment()?,
        };
        let (mut system, selectors) = self.system(pollers, || Selector::new(kind), None)?;
        system.processors = self.pin.processors(pollers)?;
        let (pinned, are_pinned) = channel();
        let spawned = Arc::new(Origin::of_nobody(ConnectionOptions::default()));
        for (registry, selector) in system.handle.shared.pollers.iter().zip(selectors) {
            let (registry, shared, spawned) = (
                registry.clone(),
                system.handle.shared.clone(),
                spawned.clone(),
            );
            let name = format!("{}-{}", self.name, registry.door.poller);
            let (busy_poll, output_budget) = (self.busy_poll, self.output_budget);
            let (read_max, processor) = (
                self.read_max,
                system
                    .processors
                    .get(registry.door.poller as usize)
                    .copied(),
            );
            let pinned = pinned.clone();
            let thread = thread::Builder::new().name(name).spawn(move || {
                ask::mark_poller_thread(true);
                let mut others = StopOthers {
                    shared: shared.clone(),
                    failed: true,
                };
                let mut poller = Poller::new(selector, registry, shared, spawned, busy_poll);
                poller.hosts.output_budget = output_budget;
                poller.hosts.set_read_max(read_max);
                let is_pinned = processor.map_or(Ok(()), affinity::pin);
                let failed = is_pinned.is_err();
                let _ = pinned.send((processor, is_pinned));
                // So that whoever builds does not wait for another.
                drop(pinned);
                // Whoever builds the system stops it, and tells.
                let result = if failed { Ok(()) } else { poller.run() };
                others.failed = result.is_err();
                result
            })?;
            system.threads.push(thread);
        }
        drop(pinned);
        let of_all = are_pinned.into_iter().take(system.processors.len());
        for (processor, is_pinned) in of_all {
            is_pinned.map_err(|error| pin_error(processor, error))?;
        }
        Ok(system)
    }

    /// The system without threads: whoever has the pollers runs them, on this thread.
    pub(crate) fn simulated(&self, process: Process) -> io::Result<(System, Vec<Poller>)> {
        let pollers = self.pollers.unwrap_or(SIMULATED_POLLERS);
        let selector = || Ok(Selector::simulated());
        let (mut system, selectors) = self.system(pollers, selector, Some(process))?;
        system.processors = self.pin.processors(pollers)?;
        let shared = &system.handle.shared;
        let spawned = Arc::new(Origin::of_nobody(ConnectionOptions::default()));
        let poller = |(registry, selector): (&Arc<Registry>, Selector)| {
            let (registry, shared, spawned) = (registry.clone(), shared.clone(), spawned.clone());
            // A simulated clock stands still while a poller spins.
            let busy_poll = Duration::ZERO;
            let mut poller = Poller::new(selector, registry, shared, spawned, busy_poll);
            poller.hosts.output_budget = self.output_budget;
            poller.hosts.set_read_max(self.read_max);
            poller
        };
        let pollers = shared.pollers.iter().zip(selectors).map(poller);
        let pollers = pollers.collect();
        Ok((system, pollers))
    }

    /// The system without its pollers, and what each of them is to wait in.
    fn system(
        &self,
        pollers: usize,
        selector: impl Fn() -> io::Result<Selector>,
        simulated: Option<Process>,
    ) -> io::Result<(System, Vec<Selector>)> {
        let (mut registries, mut selectors) = (Vec::new(), Vec::new());
        for poller in 0..pollers as u32 {
            let mut selector = selector()?;
            let waker = Poller::waker(&mut selector)?;
            registries.push(Arc::new(Registry::new(poller, waker, self.mailbox_bound)));
            selectors.push(selector);
        }
        let workers = match simulated {
            None => Workers::new(&self.name, self.workers),
            Some(_) => Workers::by_hand(self.workers),
        };
        let system = System {
            handle: Handle {
                shared: Shared::new(registries, simulated, workers, self.makers.clone()),
            },
            threads: Vec::new(),
            listeners: AtomicUsize::new(0),
            limit: limit(self.max_connections).map(Arc::new),
            processors: Vec::new(),
        };
        self.ticks.start(&system.handle);
        Ok((system, selectors))
    }

    /// What the pollers are called.
    pub(crate) fn given_name(&self) -> &str {
        &self.name
    }
}

/// A limit of so many, if that is one.
fn limit(max: usize) -> Option<Limit> {
    (max < usize::MAX).then(|| Limit::new(max))
}

/// When one poller fails, the others must not go on without it.
struct StopOthers {
    shared: Arc<Shared>,
    /// Still so when it is dropped: the poller has failed, or panicked.
    failed: bool,
}

impl Drop for StopOthers {
    fn drop(&mut self) {
        if self.failed {
            log::error!("a poller has failed; the system stops");
            Handle {
                shared: self.shared.clone(),
            }
            .stop(Duration::ZERO);
        }
    }
}

/// Pollers, listeners and actors that belong together.
///
/// ```no_run
/// use greenroom::*;
///
/// struct Echo;
///
/// impl Actor for Echo {
///     type Message = ();
///
///     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
///         ctx.write(input.take_all());
///         Ok(())
///     }
/// }
///
/// fn main() -> std::io::Result<()> {
///     let system = System::builder().build()?;
///     system.listen("127.0.0.1:9000", |_peer| Echo)?;
///     system.run()
/// }
/// ```
///
/// The pollers run from [`Builder::build`] on. Dropping a system stops it at once and joins its
/// threads (but for its own, when it is dropped inside a callback).
pub struct System {
    handle: Handle,
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// Where the next listener with one acceptor goes.
    listeners: AtomicUsize,
    /// Of the connections of all listeners together.
    limit: Option<Arc<Limit>>,
    /// That of each poller, if they are pinned.
    processors: Vec<usize>,
}

impl System {
    /// A builder with the defaults.
    pub fn builder() -> Builder {
        Builder {
            pollers: None,
            mailbox_bound: 16_384,
            max_connections: usize::MAX,
            busy_poll: Duration::ZERO,
            output_budget: OUTPUT_BUDGET,
            read_max: READ_MAX,
            pin: Pin::Nowhere,
            selector: None,
            name: "poller".to_owned(),
            workers: Limits::default(),
            makers: Makers::default(),
            ticks: Ticks::default(),
        }
    }

    /// Listens at an address: `"127.0.0.1:9000"`, `"[::]:9000"`, `"localhost:9000"`,
    /// `"unix:/run/chat.sock"`, or a `SocketAddr` or path. `make` is called for each connection,
    /// with the peer's address, on the poller that will host the actor; so the actor need not be
    /// `Send`. A panic in `make` closes that connection alone.
    ///
    /// A name is resolved on the calling thread.
    ///
    /// # Errors
    ///
    /// When the address cannot be parsed, resolved or bound; a Unix path where a server answers is
    /// refused, a dead one's leftover is replaced.
    pub fn listen<E, A>(
        &self,
        endpoint: E,
        make: impl Fn(Peer) -> A + Send + Sync + 'static,
    ) -> io::Result<Listener>
    where
        E: TryInto<Endpoint>,
        E::Error: Into<Box<dyn Error + Send + Sync>>,
        A: Actor,
    {
        self.listen_with(endpoint, ListenOptions::default(), make)
    }

    /// Listens with options.
    ///
    /// # Errors
    ///
    /// As [`System::listen`]; [`Balance::PerPoller`](crate::Balance::PerPoller) for a Unix socket,
    /// which the kernel cannot do; a [poller](ListenOptions::pollers) that the system does not have;
    /// and after [`Handle::stop`].
    pub fn listen_with<E, A>(
        &self,
        endpoint: E,
        options: ListenOptions,
        make: impl Fn(Peer) -> A + Send + Sync + 'static,
    ) -> io::Result<Listener>
    where
        E: TryInto<Endpoint>,
        E::Error: Into<Box<dyn Error + Send + Sync>>,
        A: Actor,
    {
        let mut endpoint = endpoint
            .try_into()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let pollers = self.pollers_for(&endpoint, &options)?;
        let per_poller = matches!(options.spread, Spread::Here);
        if per_poller && !matches!(endpoint, Endpoint::Tcp(_)) {
            let text = format!(
                "listen on {endpoint}: a unix socket cannot be accepted from per poller, use another balance"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let options = ListenOptions {
            socket: options.socket.or_default(&endpoint),
            ..options
        };
        let processors = self.processors_for(&endpoint, &options)?;
        let mut bind = BindOptions {
            backlog: options.backlog,
            group: per_poller.then_some(Turn::First),
            socket: options.socket.clone(),
            simulated: self.handle.shared.simulated,
        };
        let mut sockets: Vec<ListenSocket> = Vec::new();
        for poller in &pollers[..if per_poller { pollers.len() } else { 1 }] {
            if let Some(processors) = processors {
                let processor = SocketOption::IncomingCpu(processors[*poller] as u32);
                bind.socket.set(processor);
            }
            let socket = ListenSocket::bind(&endpoint, &bind)?;
            endpoint = socket.local_addr()?;
            bind.group = Some(Turn::Further);
            sockets.push(socket);
        }
        Ok(self.accept_from(sockets, endpoint, pollers, options, make))
    }

    /// The pollers that a listener is to serve, which it is looked at for before it is bound.
    pub(crate) fn pollers_for(
        &self,
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<Vec<usize>> {
        if self.handle.shared.is_stopping() {
            return Err(io::Error::other(format!(
                "listen on {endpoint}: the system has stopped"
            )));
        }
        let count = self.handle.pollers();
        let Some(chosen) = &options.pollers else {
            return Ok((0..count).collect());
        };
        match chosen.iter().find(|poller| **poller >= count) {
            Some(unknown) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "listen on {endpoint}: there is no poller {unknown}, the system has {count}"
                ),
            )),
            None => Ok(chosen.clone()),
        }
    }

    /// Whether it has no threads, and the network of a simulation.
    pub(crate) fn is_simulated(&self) -> bool {
        self.handle.shared.simulated.is_some()
    }

    /// Accepts from sockets that listen, one of them or a group that shares `local`.
    pub(crate) fn accept_from<A: Actor>(
        &self,
        sockets: Vec<ListenSocket>,
        local: Endpoint,
        pollers: Vec<usize>,
        options: ListenOptions,
        make: impl Fn(Peer) -> A + Send + Sync + 'static,
    ) -> Listener {
        // Several go to the pollers in order, so that each that serves has one; one goes to them in
        // turn with those of other listeners.
        let first = match sockets.len() {
            1 => self.listeners.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        let home = |socket| pollers[(first + socket) % pollers.len()];
        let homes = (0..sockets.len()).map(home).collect();
        let origin = Arc::new(Origin {
            make: Box::new(move |peer| Box::new(make(peer)) as Box<dyn Hosted>),
            live: AtomicUsize::new(0),
            per_connection: options.socket.per_connection(&local),
            local,
            entrance: Some(Box::new(Entrance {
                own: limit(options.max_connections),
                system: self.limit.clone(),
                at_limit: options.at_limit,
                sources: options
                    .max_per_source
                    .map(|max| Arc::new(Sources::new(max, options.source_prefixes))),
                source_farewell: options.source_farewell,
                rate: options
                    .accept_rate
                    .map(|(per_second, burst)| Rate::new(per_second, burst, clock::now())),
                accepts_per_turn: options.accepts_per_turn,
                backlog: options.backlog as usize,
                proxies: options.proxies,
                tls: options.tls,
                homes,
                pollers,
                spread: options.spread,
                status: Status::default(),
            })),
            options: options.connection,
        });
        let opened: Vec<_> = sockets
            .into_iter()
            .map(|socket| (socket, Opened::new(origin.clone())))
            .collect();
        let listener = Listener {
            origin,
            shared: self.handle.shared.clone(),
        };
        for (home, (socket, opened)) in listener.homes().iter().zip(opened) {
            listener.shared.pollers[*home].command(Command::Listen { socket, opened });
        }
        listener
    }

    /// As [`Handle::spawn`].
    pub fn spawn<A: Actor>(&self, make: impl FnOnce() -> A + Send + 'static) -> Addr<A> {
        self.handle.spawn(make)
    }

    /// As [`Handle::spawn_on`].
    ///
    /// # Panics
    ///
    /// When there is no such poller.
    pub fn spawn_on<A: Actor>(
        &self,
        poller: usize,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Addr<A> {
        self.handle.spawn_on(poller, make)
    }

    /// As [`Handle::adopt`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn adopt<A: Actor>(
        &self,
        socket: impl Into<Adoptable>,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        self.handle.adopt(socket, make)
    }

    /// As [`Handle::adopt_with`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn adopt_with<A: Actor>(
        &self,
        socket: impl Into<Adoptable>,
        options: AdoptOptions,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        self.handle.adopt_with(socket, options, make)
    }

    /// As [`Handle::watch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn watch<A: Actor>(
        &self,
        descriptor: impl Into<OwnedFd>,
        interest: Interest,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        self.handle.watch(descriptor, interest, make)
    }

    /// As [`Handle::connect`].
    pub fn connect<A: Actor>(
        &self,
        to: impl Into<Remote>,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Addr<A> {
        self.handle.connect(to, make)
    }

    /// As [`Handle::connect_with`].
    pub fn connect_with<A: Actor>(
        &self,
        to: impl Into<Remote>,
        options: ConnectOptions,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Addr<A> {
        self.handle.connect_with(to, options, make)
    }

    /// As [`Handle::connect_on`].
    ///
    /// # Panics
    ///
    /// When there is no such poller.
    pub fn connect_on<A: Actor>(
        &self,
        poller: usize,
        to: impl Into<Remote>,
        options: ConnectOptions,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Addr<A> {
        self.handle.connect_on(poller, to, options, make)
    }

    /// A handle for other threads and for actors: to stop the system, to spawn into it, to read its
    /// counters.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// As [`Handle::stats`].
    pub fn stats(&self) -> Stats {
        self.handle.stats()
    }

    /// Waits until the system has stopped: somebody calls [`Handle::stop`]. All its threads have
    /// ended then, but for those whose offloaded work was still under way at the deadline.
    ///
    /// # Errors
    ///
    /// When a poller failed. The others are stopped then. And for a
    /// [simulated](crate::testing::Simulation) system, which its simulation runs.
    pub fn run(mut self) -> io::Result<()> {
        if self.handle.shared.simulated.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "run: this system is simulated, and has no threads; its simulation runs it",
            ));
        }
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            let ended = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a poller has panicked")));
            result = result.and(ended);
        }
        // Where all pollers have ended it is closed already. Work under way is left to itself.
        self.handle.shared.close_workers();
        self.handle.shared.workers.join();
        drop(self.handle.shared.resolvers.close());
        self.handle.shared.resolvers.join();
        result
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if self.threads.is_empty() && self.handle.shared.simulated.is_none() {
            return;
        }
        self.handle.stop(Duration::ZERO);
        // A poller cannot wait for itself, nor for another one: that may be waiting in the same
        // way.
        if !ask::on_poller_thread()
            && let Err(error) = self.join()
        {
            log::error!("the system ended with an error: {error}");
        }
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System")
            .field("pollers", &self.handle.pollers())
            .finish_non_exhaustive()
    }
}

//! The whole system as seen from anywhere: stop it, spawn into it, read its counters.

use std::fmt;
use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::actor::Actor;
use crate::addr::Addr;
use crate::command::Command;
use crate::connect::{ConnectOptions, Remote, Target};
use crate::directory::Directory;
use crate::hosts::contain;
use crate::local::Makers;
use crate::origin::{ConnectionOptions, Origin};
use crate::registry::{Registry, Stats};
use crate::sync::lock;
use crate::sys::{Process, clock};
use crate::workers::{Limits, Workers};

/// How many names are looked up at a time, and how many may wait for it. A lookup that finds nobody
/// who answers hangs for some seconds, and does nothing.
const LOOKUPS: Limits = Limits {
    threads: 8,
    queue: 1024,
    idle: Duration::from_secs(10),
};

/// What all threads of a system share.
pub(crate) struct Shared {
    pub(crate) pollers: Vec<Arc<Registry>>,
    /// Which program on the simulated network of a thread it is; `None` for a real one.
    pub(crate) simulated: Option<Process>,
    /// The threads for what blocks.
    pub(crate) workers: Workers,
    /// Those that look names up: apart, as one that hangs is to hold up no other work.
    pub(crate) resolvers: Workers,
    /// How the values are made that the actors of a poller share.
    pub(crate) makers: Makers,
    pub(crate) directory: Arc<Directory>,
    /// Where the next `spawn` goes.
    next: AtomicUsize,
    /// Where sockets that come from elsewhere are said to come from, one for all of the same limits.
    /// Those that serve nobody go when the next is made.
    origins: Mutex<Vec<Arc<Origin>>>,
    /// How many pollers have closed their listeners because the system stops.
    stopping: AtomicUsize,
    /// How many pollers have not ended.
    running: AtomicUsize,
}

// It changes by atomics and under locks alone, and no panic of a user's code comes in between.
impl RefUnwindSafe for Shared {}

impl Shared {
    pub(crate) fn new(
        pollers: Vec<Arc<Registry>>,
        simulated: Option<Process>,
        workers: Workers,
        makers: Makers,
    ) -> Arc<Shared> {
        let running = AtomicUsize::new(pollers.len());
        let shared = Arc::new(Shared {
            pollers,
            simulated,
            resolvers: workers.beside("lookup", LOOKUPS),
            workers,
            makers,
            directory: Arc::default(),
            next: AtomicUsize::new(0),
            origins: Mutex::default(),
            stopping: AtomicUsize::new(0),
            running,
        });
        let of = Arc::downgrade(&shared);
        shared.workers.when_idle(move || {
            if let Some(shared) = of.upgrade() {
                shared.tell_if_empty();
            }
        });
        shared
    }

    /// One poller takes nothing in any more. With the last one, nobody is there for whom to work.
    pub(crate) fn poller_has_ended(&self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close_workers();
        }
    }

    /// Work that has not begun is dropped, which counts it.
    pub(crate) fn close_workers(&self) {
        for job in self.workers.close() {
            // One by one: of two panics in one drop the second would be the end of the process.
            contain(&self.pollers[0].door, "a destructor", || drop(job));
        }
    }

    /// One more poller has closed its listeners.
    pub(crate) fn has_closed_listeners(&self) {
        self.stopping.fetch_add(1, Ordering::AcqRel);
        self.tell_if_empty();
    }

    /// Whether the stop has reached a poller.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire) > 0
    }

    /// The origin of connections that came from no listener and live under these limits.
    pub(crate) fn origin_of(&self, options: &ConnectionOptions) -> Arc<Origin> {
        let mut origins = lock(&self.origins);
        if let Some(known) = origins.iter().find(|known| known.options == *options) {
            return known.clone();
        }
        origins.retain(|known| Arc::strong_count(known) > 1);
        let origin = Arc::new(Origin::of_nobody(options.clone()));
        origins.push(origin.clone());
        origin
    }

    /// The poller with the fewest sockets; those with the same number take turns.
    pub(crate) fn least_loaded(&self) -> usize {
        let len = self.pollers.len();
        let next = self.next.fetch_add(1, Ordering::Relaxed) % len;
        let in_turn = (0..len).map(|step| (next + step) % len);
        let load = |poller: &usize| self.pollers[*poller].door.sockets.load(Ordering::Relaxed);
        in_turn.min_by_key(load).unwrap_or(0)
    }

    /// How many panics were contained so far.
    pub(crate) fn panics(&self) -> u64 {
        let of = |poller: &Arc<Registry>| poller.door.counters.panics.load(Ordering::Relaxed);
        self.pollers.iter().map(of).sum()
    }

    /// The system stops, no socket is or will be there, and no offloaded work is to be waited for.
    pub(crate) fn is_empty(&self) -> bool {
        let sockets = |poller: &Arc<Registry>| poller.door.sockets.load(Ordering::Acquire);
        // In this order: where all listeners are closed, the number of sockets only falls.
        self.stopping.load(Ordering::Acquire) == self.pollers.len()
            && self.pollers.iter().map(sockets).sum::<usize>() == 0
            && self.workers.is_idle()
    }

    /// Has every poller look whether it may end.
    pub(crate) fn tell_if_empty(&self) {
        if self.is_empty() {
            for poller in &self.pollers {
                poller.command(Command::LastSocket);
            }
        }
    }
}

/// A handle to a running [`System`](crate::System): cheap to clone, usable from every thread and
/// inside callbacks.
///
/// It keeps nothing alive. After the system has ended its calls do nothing.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    /// Stops the system and returns at once.
    ///
    /// Every listener accepts what waits in its backlog (8,192 connects and its limit of
    /// connections at most) and closes; every actor is told by [`stopping`](Actor::stopping), which
    /// by default closes a connection after flushing; when the last connection has ended, or
    /// `within` from now, everything left is closed with
    /// [`CloseReason::Stopped`](crate::CloseReason::Stopped) and the poller threads end. A connection
    /// whose output has not left by then is reset. [Offloaded](crate::Context::offload) work is waited
    /// for in the same way as connections, and its answers are delivered; what has not begun at the
    /// deadline is dropped, and what has ends by itself, after the system. Stopping
    /// again is harmless; the earliest deadline counts.
    pub fn stop(&self, within: Duration) {
        let now = clock::now();
        // A deadline beyond what the clock can tell is no deadline: a day is as good as for ever
        // here.
        let deadline = now
            .checked_add(within)
            .unwrap_or(now + Duration::from_secs(86_400));
        for poller in &self.shared.pollers {
            poller.command(Command::Stop(deadline));
        }
    }

    /// Starts an actor without a socket on one of the pollers, in turn.
    ///
    /// `make` runs there, so the actor itself need not be `Send`. The address works at once: what
    /// is sent to it waits until the actor is opened. A panic in `make` is counted, and the address
    /// then has gone.
    pub fn spawn<A: Actor>(&self, make: impl FnOnce() -> A + Send + 'static) -> Addr<A> {
        let next = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.spawn_on(next % self.shared.pollers.len(), make)
    }

    /// Starts an actor without a socket on the poller of this number.
    ///
    /// # Panics
    ///
    /// When there is no such poller, see [`Handle::pollers`].
    pub fn spawn_on<A: Actor>(
        &self,
        poller: usize,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Addr<A> {
        let pollers = &self.shared.pollers;
        assert!(
            poller < pollers.len(),
            "spawn: there is no poller {poller}, the system has {}",
            pollers.len()
        );
        let (post, key) = pollers[poller].spawn(make);
        Addr::new(post, key)
    }

    /// Connects to `to` from one of the pollers, in turn, and has the actor that `make` makes be the
    /// connection. As [`connect_with`](Handle::connect_with) with the default options.
    ///
    /// ```no_run
    /// use greenroom::*;
    ///
    /// struct Print;
    ///
    /// impl Actor for Print {
    ///     type Message = ();
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
    ///         print!("{}", String::from_utf8_lossy(input.take_all()));
    ///         Ok(())
    ///     }
    ///
    ///     fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
    ///         println!("{reason}");
    ///         ctx.system().stop(std::time::Duration::from_secs(1));
    ///     }
    /// }
    ///
    /// let system = System::builder().build()?;
    /// let remote: Remote = "time.example:13".parse()?;
    /// system.connect(remote, || Print);
    /// system.run()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connect<A: Actor>(
        &self,
        to: impl Into<Remote>,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Addr<A> {
        self.connect_with(to, ConnectOptions::default(), make)
    }

    /// Connects from one of the pollers, in turn, as
    /// [`Context::connect_with`](crate::Context::connect_with) does from that of the actor.
    ///
    /// `make` runs there, before the connect begins, so the actor itself need not be `Send`. A
    /// panic in `make` is counted, and the address then has gone.
    pub fn connect_with<A: Actor>(
        &self,
        to: impl Into<Remote>,
        options: ConnectOptions,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Addr<A> {
        let next = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.connect_on(next % self.shared.pollers.len(), to, options, make)
    }

    /// Connects from the poller of this number, otherwise as
    /// [`connect_with`](Handle::connect_with).
    ///
    /// # Panics
    ///
    /// When there is no such poller, see [`Handle::pollers`].
    pub fn connect_on<A: Actor>(
        &self,
        poller: usize,
        to: impl Into<Remote>,
        options: ConnectOptions,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Addr<A> {
        let pollers = &self.shared.pollers;
        assert!(
            poller < pollers.len(),
            "connect: there is no poller {poller}, the system has {}",
            pollers.len()
        );
        let to = to.into();
        let (post, key) = pollers[poller].connect(Target { to, options }, make);
        Addr::new(post, key)
    }

    /// How many pollers the system has.
    pub fn pollers(&self) -> usize {
        self.shared.pollers.len()
    }

    /// What has happened so far.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for poller in &self.shared.pollers {
            poller.add_to(&mut stats);
        }
        stats
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("pollers", &self.pollers())
            .finish_non_exhaustive()
    }
}

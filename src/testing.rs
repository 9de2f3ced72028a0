//! Tests without sockets, threads or sleeps: of one actor, and of a whole system.
//!
//! # One actor
//!
//! A [`Stage`] hosts one actor as a poller would, with the poller's own code, on the thread of the
//! test. The test is the peer, the senders and the clock: it hands in bytes, messages and time, and
//! looks at what the actor wrote, asked for, and how it ended. A [`Probe`] stands in for an actor
//! that is sent to.
//!
//! ```
//! use greenroom::testing::Stage;
//! use greenroom::*;
//!
//! struct Shout;
//!
//! impl Actor for Shout {
//!     type Message = ();
//!
//!     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
//!         while let Some(line) = input.line(80)? {
//!             ctx.write_parts(&[&line.to_ascii_uppercase(), b"\n"]);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mut stage = Stage::new(Shout);
//! stage.receive(b"hello\nwor");
//! assert_eq!(stage.output(), "HELLO\n");
//! stage.receive(b"ld\n");
//! assert_eq!(stage.output(), "WORLD\n");
//!
//! stage.receive([b'x'; 81]);
//! assert_eq!(stage.reason().unwrap().to_string(), "line or frame longer than its limit of 80 bytes");
//! ```
//!
//! What is the same as in a server: all that stands in the documentation of [`Actor`] and [`Context`](crate::Context): kept input
//! and [`Input::need`](crate::Input::need), the order of the calls, pausing, watermarks, budgets
//! and timeouts, waiting for room, half-close, lingering close, errors, panics, actors that are
//! spawned, and mailboxes with their bounds. Nothing of it is a second implementation.
//!
//! What is not:
//!
//! - There is no kernel: what the actor writes is taken at once, or, after [`Stage::stall`], not at
//!   all; bytes that are handed in together are received together, up to 64 KiB.
//! - Time stands still but for [`Stage::advance`], and a timer fires at its deadline to the
//!   nanosecond; a poller may be late by a millisecond or more. Outside a callback
//!   [`Handle::stop`] and [`Addr::ask`] read the real clock.
//! - [Offloaded](crate::Context::offload) work waits until [`Stage::run_offloaded`].
//! - There is one poller, number 0, no listener, and no other thread unless the test makes one.
//! - The actor is dropped with the stage and not at its end, so that a test can look at it.
//!
//! # A whole system
//!
//! A [`Simulation`] runs a server as it is, its [`System`] with listeners, pollers,
//! actors, mailboxes and timers, on a simulated network and clock, on the thread of the test. A seed
//! decides in which order pollers and messages come, how bytes are cut into pieces and how long they
//! take, and what goes wrong ([`Faults`]). Hours pass in seconds, and a run that fails is the same
//! run again under the same seed.
//!
//! ```
//! use greenroom::testing::{Faults, for_each_seed};
//! use greenroom::*;
//! # struct Shout;
//! # impl Actor for Shout {
//! #     type Message = ();
//! #     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
//! #         while let Some(line) = input.line(80)? {
//! #             ctx.write_parts(&[&line.to_ascii_uppercase(), b"\n"]);
//! #         }
//! #         Ok(())
//! #     }
//! # }
//!
//! for_each_seed(20, |simulation| {
//!     simulation.faults(Faults::harmless());
//!     let system = simulation.system(System::builder().pollers(2));
//!     system.listen("127.0.0.1:9000", |_peer| Shout).unwrap();
//!
//!     let client = simulation.client("127.0.0.1:9000");
//!     client.send("hello\nworld\n");
//!     assert_eq!(client.line(simulation), "HELLO");
//!     assert_eq!(client.line(simulation), "WORLD");
//! });
//! ```
//!
//! Clients are played by the test ([`Simulation::client`], [`Simulation::datagram_client`]) or are
//! actors ([`Simulation::connect`]); [`note`] and the [`Trace`] show what happened. The [`guide`] begins
//! with one actor and ends with a bug that only some seeds show.
//!
//! What is the same as in a server: everything above the system calls. What is not:
//!
//! - All pollers share one thread: a turn of one is interrupted by turns of others only between its
//!   steps. What two threads may do to one another within a step, loom checks for the framework.
//! - [Offloaded](crate::Context::offload) work runs on the test's thread, in one moment of simulated
//!   time: when the seed says that its thread has done it, mostly within ten milliseconds and now and
//!   then within a second. No more of it is under way at a time than there are threads.
//! - Code that asks somebody else than the simulation is no part of it: threads of one's own,
//!   [`Instant::now`] ([`Context::now`](crate::Context::now) is simulated), files. Nor is what an
//!   iteration over a std `HashMap` gives, whose order is another in each process: where the order
//!   can be seen, a `BTreeMap` keeps the run the same under its seed.
//! - [`Builder::busy_poll`](crate::Builder::busy_poll) and the sizes of kernel buffers are not
//!   looked at; a kernel holds 64 KiB for each direction, or less.

#[doc = include_str!("../docs/testing.md")]
// The tests that it shows are for the reader's own crate; a hidden `main` calls what they call.
#[allow(clippy::test_attr_in_doctest)]
pub mod guide {}

mod client;
mod datagrams;
mod observed;
mod offloaded;
mod probe;
mod runner;
mod seeds;
mod simulation;

use std::any::Any;
use std::cell::{Ref, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::actor::{Actor, CloseReason};
use crate::addr::Addr;
use crate::ask::{self, AskError, Asked, Reply};
use crate::call::{Hosted, Spawned};
use crate::flags::Flags;
use crate::handle::Handle;
use crate::local::Local;
use crate::origin::{ConnectionOptions, Origin};
use crate::poller::Poller;
use crate::registry::{ActorKey, Stats};
use crate::sync::lock;
use crate::sys::{Endpoint, Hand, Network, Peer, Selector, Wire, clock};
use crate::system::{Builder, System};

pub use client::Client;
pub use datagrams::DatagramClient;
use observed::{Observed, Seen};
pub use probe::Probe;
pub use seeds::for_each_seed;
pub use simulation::{Simulation, note};

pub use crate::sys::{Fault, Faults, Random, Trace};

/// As of a system whose builder was told nothing.
const MAILBOX_BOUND: usize = 16_384;

/// Turns without rest after which a test is told that it would never end: two million messages, or
/// 128 MiB of input.
const TURNS_MAX: usize = 2000;

/// Likewise in one `advance`: instants at which timers fire.
const INSTANTS_MAX: usize = 1_000_000;

/// Where a connection on a stage comes from and goes to.
const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 50_000);
const LOCAL: ([u8; 4], u16) = ([127, 0, 0, 1], 9000);

/// One actor and all that it meets, on the thread of a test. See the [module](self).
///
/// Every method that hands something in lets the actor run until it has nothing left to do.
///
/// # Panics
///
/// A panic in the actor, or in one that it spawned, is contained as in a server ([`Actor::closed`]
/// is called); then the method that brought it about panics, with the actor's name and the panic's
/// text. To look at what follows a panic, catch that with
/// [`catch_unwind`](std::panic::catch_unwind); the stage stays usable.
pub struct Stage<A: Actor> {
    poller: Poller,
    key: ActorKey,
    now: Instant,
    /// The peer's end; `None` for an actor without a socket.
    wire: Option<Wire>,
    /// What its datagram socket sends goes here.
    hand: Option<Hand>,
    seen: Rc<RefCell<Seen<A>>>,
    /// Why the actor ended, moved out of `seen` so that it can be lent out.
    reason: Option<CloseReason>,
    /// How many panics have been shown.
    panics: u64,
}

impl<A: Actor> Stage<A> {
    /// Opens `actor` as a connection with the default limits, from `127.0.0.1:50000` to
    /// `127.0.0.1:9000`.
    pub fn new(actor: A) -> Stage<A> {
        Stage::with_options(actor, ConnectionOptions::default())
    }

    /// Opens `actor` as a connection that lives under these limits.
    pub fn with_options(actor: A, options: ConnectionOptions) -> Stage<A> {
        Stage::with_builder(&System::builder(), options, actor)
    }

    /// Opens `actor` as a connection on a poller of a system that would be built like this, as far
    /// as its [mailboxes](Builder::mailbox_bound), [local values](Builder::local) and
    /// [workers](Builder::workers) go.
    pub fn with_builder(builder: &Builder, options: ConnectionOptions, actor: A) -> Stage<A> {
        let (mut stage, observed) = Stage::empty(builder, actor);
        let origin = Arc::new(origin(options));
        let (wire, socket) = Wire::pair();
        stage.wire = Some(wire);
        origin.live.fetch_add(1, Ordering::AcqRel);
        let door = &stage.poller.registry.door;
        door.sockets.fetch_add(1, Ordering::AcqRel);
        let peer = Peer::Tcp(SocketAddr::from(PEER));
        let _time = Time::set(stage.now);
        stage.key = stage.poller.hosts.host(&origin, socket, peer, observed);
        stage.run();
        stage
    }

    /// Opens `actor` as one without a socket, as [`System::spawn`](crate::System::spawn) does.
    pub fn without_socket(actor: A) -> Stage<A> {
        Stage::without_socket_with_builder(&System::builder(), actor)
    }

    /// The same on a poller of a system that would be [built like this](Stage::with_builder).
    pub fn without_socket_with_builder(builder: &Builder, actor: A) -> Stage<A> {
        let (mut stage, observed) = Stage::empty(builder, actor);
        stage.key = stage.poller.registry.door.reserve();
        let hosts = &mut stage.poller.hosts;
        hosts.call.spawned.push(Spawned::here(stage.key, observed));
        hosts.place_spawned();
        stage.run();
        stage
    }

    fn empty(builder: &Builder, actor: A) -> (Stage<A>, Box<dyn Hosted>) {
        assert!(
            !Network::with(|network| network.is_simulated()),
            "stage: this thread has a Simulation, whose time and network are not those of one"
        );
        let (observed, seen) = Observed::new(actor);
        let now = clock::now();
        let _time = Time::set(now);
        let mut selector = Selector::simulated();
        let waker = Poller::waker(&mut selector).expect("a simulated waker");
        let (registry, shared) = builder.staged(waker);
        let spawned = Arc::new(origin(ConnectionOptions::default()));
        let stage = Stage {
            poller: Poller::new(selector, registry, shared, spawned, Duration::ZERO),
            key: ActorKey::default(),
            now,
            wire: None,
            hand: None,
            seen,
            reason: None,
            panics: 0,
        };
        (stage, Box::new(observed))
    }

    // ---- the peer -------------------------------------------------------------------------------

    /// The peer sends `bytes`. They wait while the actor does not read ([`unread`](Stage::unread)),
    /// and are lost when it has closed.
    ///
    /// # Panics
    ///
    /// When the actor has no socket, or the peer has half-closed.
    #[track_caller]
    pub fn receive(&mut self, bytes: impl AsRef<[u8]>) {
        let wire = self.wire();
        assert!(!wire.is_shut(), "receive: the peer has half-closed");
        // An error says that the actor has closed.
        let _ = wire.send(bytes.as_ref());
        self.run();
    }

    /// The peer half-closes, behind what it has sent.
    ///
    /// # Panics
    ///
    /// When the actor has no socket.
    #[track_caller]
    pub fn half_close(&mut self) {
        self.wire().half_close();
        self.run();
    }

    /// The peer resets the connection. A paused actor notices when it reads or writes again.
    ///
    /// # Panics
    ///
    /// When the actor has no socket.
    #[track_caller]
    pub fn reset(&mut self) {
        self.wire().reset();
        self.run();
    }

    /// Takes what the peer has got since the last look.
    ///
    /// # Panics
    ///
    /// When the actor has no socket.
    #[track_caller]
    pub fn output(&mut self) -> Bytes {
        self.wire().take().into()
    }

    /// The peer takes nothing more: from here on what the actor writes waits, see
    /// [`queued`](Stage::queued).
    ///
    /// # Panics
    ///
    /// When the actor has no socket.
    #[track_caller]
    pub fn stall(&mut self) {
        self.wire().set_room(0);
    }

    /// A peer that has [stalled](Stage::stall) takes up to `n` bytes of what waits; they are
    /// returned, behind those that [`output`](Stage::output) would have.
    ///
    /// # Panics
    ///
    /// When the actor has no socket.
    #[track_caller]
    pub fn take_output(&mut self, n: usize) -> Bytes {
        self.wire().set_room(n);
        self.run();
        self.stall();
        self.output()
    }

    /// A peer that has [stalled](Stage::stall) takes again whatever comes.
    ///
    /// # Panics
    ///
    /// When the actor has no socket.
    #[track_caller]
    pub fn unstall(&mut self) {
        self.wire().set_room(usize::MAX);
        self.run();
    }

    /// How many bytes the peer has sent that were not received, because the actor does not read.
    ///
    /// # Panics
    ///
    /// When the actor has no socket.
    #[track_caller]
    pub fn unread(&self) -> usize {
        self.wire().unread()
    }

    /// Whether the peer has seen the end of the stream: the writing side was shut down, or the
    /// connection closed.
    ///
    /// # Panics
    ///
    /// When the actor has no socket.
    #[track_caller]
    pub fn is_write_shut(&self) -> bool {
        self.wire().has_ended() || self.is_reset()
    }

    /// Whether the peer has seen a reset: an abort, or a close while it had bytes under way.
    ///
    /// # Panics
    ///
    /// When the actor has no socket.
    #[track_caller]
    pub fn is_reset(&self) -> bool {
        self.wire().is_reset()
    }

    /// Whether the socket is still open, which it is for a while after the actor's end when the
    /// close lingers. `false` for an actor without a socket.
    pub fn is_connected(&self) -> bool {
        self.wire.as_ref().is_some_and(Wire::is_hosted)
    }

    #[track_caller]
    fn wire(&self) -> &Wire {
        self.wire.as_ref().expect("this actor has no socket")
    }

    // ---- messages and time ----------------------------------------------------------------------

    /// Sends a message to the actor.
    ///
    /// # Panics
    ///
    /// When it is refused, because the actor has gone or waits for room with a full mailbox. Send
    /// through [`addr`](Stage::addr) where that is to be seen.
    #[track_caller]
    pub fn send(&mut self, message: A::Message) {
        if let Err(error) = self.addr().send(message) {
            panic!("{error}");
        }
        self.run();
    }

    /// Asks the actor, and returns what it has answered by the time it has nothing left to do.
    ///
    /// # Errors
    ///
    /// As [`Addr::ask`]; [`AskError::TimedOut`] when it has not answered yet.
    pub fn ask<R: Send + 'static>(
        &mut self,
        question: impl FnOnce(Reply<R>) -> A::Message,
    ) -> Result<R, AskError> {
        let answer = Arc::new(Mutex::new(None));
        let put = answer.clone();
        let (reply, asked) = Asked::new(move |result| *lock(&put) = Some(result));
        let sent = self.addr().send(question(reply));
        self.run();
        asked.fail(match sent {
            Ok(()) => AskError::TimedOut,
            Err(error) if error.is_full() => AskError::Full,
            Err(_) => AskError::Gone,
        });
        let answer = lock(&answer).take();
        answer.unwrap_or(Err(AskError::Unanswered))
    }

    /// Moves the clock by `time`, and fires the timers and timeouts that are due on the way, each
    /// at its deadline.
    pub fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..INSTANTS_MAX {
            let next = self.poller.next_deadline();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return self.run();
            };
            self.now = next.max(self.now);
            self.run();
        }
        panic!("advance: timers have fired at {INSTANTS_MAX} instants, and the time is not over");
    }

    /// The time of the stage: that of the test's start and what it was advanced by.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The system stops: the actor is told, and at the deadline, `within` from now, it is closed.
    /// Unlike in a server an actor without a socket is served until then.
    pub fn stop(&mut self, within: Duration) {
        self.poller.hosts.begin_stop(self.now + within);
        self.run();
    }

    /// Runs until nothing is left to do at this time. Only needed after something was done past the
    /// stage, with an [`Addr`] or a [`Probe`].
    ///
    /// # Panics
    ///
    /// When a callback panicked, see [`Stage`]; when it never ends because actors keep sending each
    /// other messages, or set a timer for this very moment again and again.
    pub fn run(&mut self) {
        let _time = Time::set(self.now);
        let before = ask::mark_poller_thread(true);
        let is_at_rest = (0..TURNS_MAX).any(|_| self.turn());
        ask::mark_poller_thread(before);
        assert!(
            is_at_rest,
            "the actors have not come to rest after {TURNS_MAX} turns"
        );
        self.reason = self.reason.take().or(self.seen.borrow_mut().reason.take());
        self.show_panics();
    }

    /// One turn of the poller; whether it would sleep then.
    fn turn(&mut self) -> bool {
        let up = self.poller.get_up(Some(Duration::ZERO));
        up.expect("a simulated selector does not fail");
        self.poller.turn(|| ());
        let hosts = &mut self.poller.hosts;
        if hosts.stop.is_some_and(|deadline| deadline <= self.now) {
            hosts.end_all();
            hosts.stop = None;
        }
        let timeout = self.poller.fall_asleep();
        timeout != Some(Duration::ZERO) && !self.poller.is_ready()
    }

    fn show_panics(&mut self) {
        let panics = self.stats().panics;
        if std::mem::replace(&mut self.panics, panics) == panics {
            return;
        }
        let actor = std::any::type_name::<A>();
        match &self.reason {
            Some(CloseReason::Panicked(what)) => panic!("{actor} panicked: {what}"),
            _ => panic!(
                "`closed` of {actor}, a destructor or an actor that it spawned panicked, see above"
            ),
        }
    }

    // ---- what there is to see -------------------------------------------------------------------

    /// The actor, also after its end.
    pub fn actor(&self) -> Ref<'_, A> {
        Ref::map(self.seen.borrow(), |seen| &seen.actor)
    }

    /// Why the actor ended; `None` while it is there. What it was told by
    /// [`closed`](Actor::closed).
    pub fn reason(&self) -> Option<&CloseReason> {
        self.reason.as_ref()
    }

    /// The address of the actor. After a send through it, call [`run`](Stage::run).
    pub fn addr(&self) -> Addr<A> {
        Addr::new(self.poller.registry.post::<Observed<A>>(), self.key)
    }

    /// Bytes that the actor wrote and the peer has not taken.
    pub fn queued(&self) -> usize {
        self.poller.hosts.queued(self.key)
    }

    /// Whether the actor has [paused](crate::Context::pause) its reading.
    pub fn is_paused(&self) -> bool {
        self.poller.hosts.has(self.key, Flags::PAUSED)
    }

    /// Whether the actor [waits for room](crate::Context::wait_for_room).
    pub fn is_waiting(&self) -> bool {
        self.poller.hosts.is_waiting(self.key)
    }

    /// Whether bytes of the peer are received: the actor neither paused nor waits, no policy holds
    /// it back, and the peer has not half-closed.
    pub fn is_reading(&self) -> bool {
        self.poller.hosts.has(self.key, Flags::REG_READ)
    }

    /// Whether the system has been stopped, by [`stop`](Stage::stop) or by an actor.
    pub fn is_stopping(&self) -> bool {
        self.poller.hosts.stop.is_some()
    }

    /// The actors of type `B` that are on the stage because the actor spawned them.
    pub fn spawned<B: Actor>(&self) -> Vec<&B> {
        let actors = self.poller.hosts.actors();
        actors
            .filter_map(|actor| (actor as &dyn Any).downcast_ref())
            .collect()
    }

    /// What has happened so far: actors opened and closed, dead letters, dropped writes.
    pub fn stats(&self) -> Stats {
        self.handle().stats()
    }

    /// The value of this type that the actors of the stage [share](crate::Context::local), once it
    /// is made.
    pub fn local<T: 'static>(&self) -> Option<Local<T>> {
        self.poller.hosts.call.values.get()
    }

    /// The system that the actor lives in.
    pub fn handle(&self) -> Handle {
        Handle {
            shared: self.poller.hosts.call.shared.clone(),
        }
    }
}

fn origin(options: ConnectionOptions) -> Origin {
    Origin {
        local: Endpoint::Tcp(SocketAddr::from(LOCAL)),
        ..Origin::of_nobody(options)
    }
}

/// The end of a poller, at the time of the stage.
impl<A: Actor> Drop for Stage<A> {
    fn drop(&mut self) {
        let _time = Time::set(self.now);
        self.poller.end();
    }
}

/// The time of this thread, until it is dropped.
struct Time {
    before: Option<Instant>,
}

impl Time {
    fn set(now: Instant) -> Time {
        Time {
            before: clock::set(Some(now)),
        }
    }
}

impl Drop for Time {
    fn drop(&mut self) {
        clock::set(self.before);
    }
}

impl<A: Actor> fmt::Debug for Stage<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("actor", &std::any::type_name::<A>())
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Promises about what a connection costs, which only the inside can show.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::Outcome;
    use crate::context::Context;
    use crate::input::Input;

    /// Echoes whole lines.
    struct Lines;

    impl Actor for Lines {
        type Message = ();

        fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
            while let Some(line) = input.line(1000)? {
                ctx.write_parts(&[line, b"\n"]);
            }
            Ok(())
        }
    }

    #[test]
    fn an_idle_connection_owns_no_buffers() {
        let mut stage = Stage::new(Lines);
        assert!(!stage.poller.hosts.keeps(stage.key), "opened");
        stage.receive("one\n");
        assert!(!stage.poller.hosts.keeps(stage.key), "after an echo");
        stage.receive("tw");
        assert!(stage.poller.hosts.keeps(stage.key), "half a line is kept");
        stage.receive("o\n");
        assert!(!stage.poller.hosts.keeps(stage.key), "after the other half");
        stage.stall();
        stage.receive("three\n");
        assert!(stage.poller.hosts.keeps(stage.key), "output waits");
        stage.unstall();
        assert!(!stage.poller.hosts.keeps(stage.key), "after it has left");
    }

    #[test]
    fn an_idle_timeout_costs_no_timer_operation_per_message() {
        let options = ConnectionOptions::new().idle_timeout(Duration::from_secs(10));
        let mut stage = Stage::with_options(Lines, options);
        let armed = stage.poller.hosts.call.timers.next_deadline();
        for _ in 0..1000 {
            stage.now += Duration::from_millis(5);
            stage.receive("line\n");
            assert_eq!(stage.poller.hosts.call.timers.next_deadline(), armed);
            assert_eq!(stage.poller.hosts.call.timers.len(), 1);
        }
        // 5 s have passed with messages: it is not idle at the first deadline, but 10 s after the
        // last.
        stage.advance(Duration::from_millis(9_900));
        assert!(stage.reason().is_none());
        stage.advance(Duration::from_millis(200));
        assert!(matches!(stage.reason(), Some(CloseReason::Idle(_))));
    }
}

//! What other threads know of one poller: how to wake it, which of its actors are there, and where
//! its mailboxes are.

use std::any::{Any, TypeId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use slotmap::{Key, KeyData};

use crate::actor::{Actor, CloseReason};
use crate::addr::{Control, Entry, Post, What};
use crate::call::Hosted;
use crate::command::Command;
use crate::connect::Target;
use crate::datagram::DatagramCounters;
use crate::entrance::Cause;
use crate::inbox::Inbox;
use crate::mailbox::Mailbox;
use crate::presence::Presence;
use crate::sync::lock;
use crate::sys::WakeFd;
use crate::tls::TlsErrorKind;
use crate::waker::Waker;

slotmap::new_key_type! {
    /// One actor of one poller: index and generation of its slot, and the token of its socket in
    /// the selector.
    pub(crate) struct ActorKey;
}

impl ActorKey {
    /// The place of the actor's slot.
    pub(crate) fn index(self) -> u32 {
        self.data().as_ffi() as u32
    }

    /// The generation of the slot: odd, as slotmap's keys ask for, so never 0.
    pub(crate) fn generation(self) -> u32 {
        (self.data().as_ffi() >> 32) as u32
    }

    pub(crate) fn new(index: u32, generation: u32) -> ActorKey {
        ActorKey::from_token(u64::from(generation) << 32 | u64::from(index))
    }

    pub(crate) fn from_token(token: u64) -> ActorKey {
        ActorKey::from(KeyData::from_ffi(token))
    }

    pub(crate) fn token(self) -> u64 {
        self.data().as_ffi()
    }
}

/// The identity of an actor within its system, for maps and logs. Never used again for another
/// actor (before a slot has been reused 2^31 times).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActorId {
    poller: u32,
    key: u64,
}

impl ActorId {
    pub(crate) fn new(poller: u32, key: ActorKey) -> ActorId {
        ActorId {
            poller,
            key: key.token(),
        }
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}v{}", self.poller, self.key as u32, self.key >> 32)
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What happened in a system so far, summed over its pollers.
///
/// The figures are read one after another while the pollers go on: each is exact, together they are
/// a moment's picture.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections accepted and closed again because there was no room for them.
    pub refused: u64,
    /// The same by what there was too much of, all causes, also those of which there was none:
    /// `listener limit` ([`max_connections`](crate::ListenOptions::max_connections)), `system limit`
    /// ([`Builder::max_connections`](crate::Builder::max_connections)), `source limit`
    /// ([`max_per_source`](crate::ListenOptions::max_per_source)), `descriptors`.
    pub refused_by: BTreeMap<&'static str, u64>,
    /// Connections made from here ([`Context::connect`](crate::Context::connect)).
    pub connected: u64,
    /// Connects that came to nothing. Each is an actor that counts as opened and closed.
    pub connect_failed: u64,
    /// Sockets open now, those of a close or a connect under way included.
    pub connections: u64,
    /// Actors opened, with and without a socket.
    pub opened: u64,
    /// Actors closed.
    pub closed: u64,
    /// The same by [name of the reason](crate::CloseReason::name), all of them, also those of which
    /// there was none.
    pub closed_by: BTreeMap<&'static str, u64>,
    /// Messages that were accepted by `send` and whose actor had gone when their turn came.
    pub dead_letters: u64,
    /// Results of [offloaded](crate::Context::offload) work whose actor had gone, and work that was
    /// dropped unbegun when the system stopped and whose actor had.
    pub unclaimed_work: u64,
    /// How often a [supervised](crate::Supervised) actor failed that is then made anew: counted at the
    /// failure.
    pub restarts: u64,
    /// Panics contained in callbacks, factories, destructors and offloaded work.
    pub panics: u64,
    /// Whole writes dropped under [`SlowReader::DropNewest`](crate::SlowReader::DropNewest) and
    /// [`SlowReader::DropOldest`](crate::SlowReader::DropOldest), and
    /// [farewells](crate::Actor::closing) for which there was no room.
    pub dropped_writes: u64,
    /// Writes whose place was taken by a newer one before they began to leave
    /// ([`Context::write_latest`](crate::Context::write_latest)).
    pub replaced_writes: u64,
    /// Bytes of output that wait now because sockets have refused them, as they count against
    /// [`Builder::output_budget`](crate::Builder::output_budget): what is shared counts for each
    /// connection that it waits for, a part of a file for 64 bytes.
    pub output_waiting: u64,
    /// Writes to the descriptors that wake sleeping pollers.
    pub wakes: u64,
    /// Entries put into mailboxes by a [`Members::push`](crate::Members::push).
    pub pushes: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// ... of which so many were [truncated](crate::Datagram::is_truncated).
    pub datagrams_truncated: u64,
    /// Datagrams that the system has taken to be sent.
    pub datagrams_sent: u64,
    /// Datagrams dropped because too much waited for their socket
    /// ([`DatagramOptions::queue_max`](crate::DatagramOptions::queue_max)), or because it was
    /// closed before they could leave.
    pub datagrams_dropped: u64,
    /// Datagrams that the system refused to send, see
    /// [`DatagramFailure::NotSent`](crate::DatagramFailure::NotSent).
    pub datagrams_failed: u64,
    /// Errors that datagram sockets told, see
    /// [`DatagramFailure::Socket`](crate::DatagramFailure::Socket).
    pub datagram_errors: u64,
    /// Times that a listener had to rest because descriptors or memory ran out.
    pub accept_pauses: u64,
    /// Options that a connection's socket did not take: see
    /// [`Actor::option_failed`](crate::Actor::option_failed).
    pub options_failed: u64,
    /// Connections closed because they did not begin with a header of the
    /// [PROXY protocol](crate::ProxyProtocol) as their listener asks for.
    pub headers_refused: u64,
    /// Handshakes of TLS that were done, of connections accepted and made.
    pub handshakes: u64,
    /// Handshakes of TLS that came to nothing. No actor was made for those of connections that were
    /// accepted; those of connects count as [failed](Stats::connect_failed), too.
    pub handshakes_failed: u64,
    /// The same by [name of what was wrong](crate::TlsErrorKind::name), all of them, also those of which
    /// there was none.
    pub handshakes_failed_by: BTreeMap<&'static str, u64>,
    /// Connections that were to become WebSockets and did not: whose handshake was refused, malformed,
    /// cut short or late, as a server and as a client.
    pub upgrades_refused: u64,
    /// Times that a listener had to wait for the next token of its
    /// [rate](crate::ListenOptions::accept_rate).
    pub rate_waits: u64,
    /// Connections whose poller was to be chosen by a
    /// [closure](crate::ListenOptions::balance_by) that panicked, or named none of the listener's.
    pub misdirected: u64,
    /// HTTP requests that were malformed, too long or too slow, and answered with 4xx or 5xx before
    /// or instead of their service (feature `http`).
    pub requests_refused: u64,
}

/// The counters behind [`Stats`], one set for a poller so that pollers do not write to one cache
/// line.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    /// By [`Cause`].
    pub(crate) refused: [AtomicU64; Cause::NAMES.len()],
    pub(crate) connected: AtomicU64,
    pub(crate) connect_failed: AtomicU64,
    pub(crate) opened: AtomicU64,
    /// By [`CloseReason::place`].
    pub(crate) closed: [AtomicU64; CloseReason::NAMES.len()],
    pub(crate) dead_letters: AtomicU64,
    pub(crate) unclaimed_work: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) dropped_writes: AtomicU64,
    pub(crate) replaced_writes: AtomicU64,
    pub(crate) pushes: AtomicU64,
    pub(crate) accept_pauses: AtomicU64,
    pub(crate) datagrams: DatagramCounters,
    pub(crate) options_failed: AtomicU64,
    pub(crate) headers_refused: AtomicU64,
    pub(crate) handshakes: AtomicU64,
    /// By [`TlsErrorKind::place`].
    pub(crate) handshakes_failed: [AtomicU64; TlsErrorKind::NAMES.len()],
    pub(crate) upgrades_refused: AtomicU64,
    pub(crate) rate_waits: AtomicU64,
    pub(crate) misdirected: AtomicU64,
    #[cfg_attr(not(feature = "http"), allow(dead_code))]
    pub(crate) requests_refused: AtomicU64,
}

impl Counters {
    /// Relaxed: counters order nothing.
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    fn add_to(&self, stats: &mut Stats) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.accepted += get(&self.accepted);
        for (name, counter) in Cause::NAMES.iter().zip(&self.refused) {
            let count = get(counter);
            stats.refused += count;
            *stats.refused_by.entry(name).or_default() += count;
        }
        stats.connected += get(&self.connected);
        stats.connect_failed += get(&self.connect_failed);
        stats.opened += get(&self.opened);
        for (name, counter) in CloseReason::NAMES.iter().zip(&self.closed) {
            let count = get(counter);
            stats.closed += count;
            *stats.closed_by.entry(name).or_default() += count;
        }
        stats.dead_letters += get(&self.dead_letters);
        stats.unclaimed_work += get(&self.unclaimed_work);
        stats.restarts += get(&self.restarts);
        stats.panics += get(&self.panics);
        stats.dropped_writes += get(&self.dropped_writes);
        stats.replaced_writes += get(&self.replaced_writes);
        stats.pushes += get(&self.pushes);
        stats.accept_pauses += get(&self.accept_pauses);
        stats.datagrams_received += get(&self.datagrams.received);
        stats.datagrams_truncated += get(&self.datagrams.truncated);
        stats.datagrams_sent += get(&self.datagrams.sent);
        stats.datagrams_dropped += get(&self.datagrams.dropped);
        stats.datagrams_failed += get(&self.datagrams.failed);
        stats.datagram_errors += get(&self.datagrams.errors);
        stats.options_failed += get(&self.options_failed);
        stats.headers_refused += get(&self.headers_refused);
        stats.handshakes += get(&self.handshakes);
        for (name, counter) in TlsErrorKind::NAMES.iter().zip(&self.handshakes_failed) {
            let count = get(counter);
            stats.handshakes_failed += count;
            *stats.handshakes_failed_by.entry(name).or_default() += count;
        }
        stats.upgrades_refused += get(&self.upgrades_refused);
        stats.rate_waits += get(&self.rate_waits);
        stats.misdirected += get(&self.misdirected);
        stats.requests_refused += get(&self.requests_refused);
    }
}

/// What a sender touches of a poller besides the mailbox itself.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) poller: u32,
    pub(crate) waker: Arc<Waker>,
    pub(crate) presence: Presence,
    pub(crate) counters: Counters,
    /// Sockets hosted by or on their way to this poller: the load that `LeastConnections` compares.
    pub(crate) sockets: AtomicUsize,
    /// Bytes of output that sockets have refused and that wait: written by the poller alone.
    pub(crate) waiting: AtomicUsize,
    places: Mutex<Places>,
}

/// The slots of a poller that nobody owns.
#[derive(Debug, Default)]
struct Places {
    /// Those that somebody owned before; the lowest is the first to be used again, so that a burst
    /// leaves its slots vacant from the end on, where pollers give them back.
    free: BinaryHeap<Reverse<u32>>,
    /// No slot from this one on was ever owned.
    unused: u32,
}

impl Door {
    /// Takes a place for an actor that is still to come; any thread may, so that its address can be
    /// had at once.
    pub(crate) fn reserve(&self) -> ActorKey {
        let mut places = lock(&self.places);
        let index = match places.free.pop() {
            Some(Reverse(lowest)) => lowest,
            None => {
                places.unused += 1;
                places.unused - 1
            }
        };
        drop(places);
        ActorKey::new(index, self.presence.enter(index))
    }

    /// Messages are refused from here on; the key's place is not given out before [`Door::free`].
    pub(crate) fn leave(&self, key: ActorKey) {
        self.presence.leave(key.index(), key.generation());
    }

    /// The place may be given out again.
    pub(crate) fn free(&self, key: ActorKey) {
        debug_assert!(!self.is_here(key), "a place is left before it is freed");
        lock(&self.places).free.push(Reverse(key.index()));
    }

    /// See [`Addr::queued`](crate::Addr::queued).
    pub(crate) fn queued(&self, key: ActorKey) -> Option<usize> {
        self.presence.queued(key.index(), key.generation())
    }

    #[inline]
    pub(crate) fn is_here(&self, key: ActorKey) -> bool {
        self.presence.is_here(key.index(), key.generation())
    }
}

type Posts = std::collections::HashMap<TypeId, Arc<dyn Any + Send + Sync>, ahash::RandomState>;

/// One poller as the rest of its system sees it.
pub(crate) struct Registry {
    pub(crate) door: Arc<Door>,
    pub(crate) commands: Mailbox<Command, Infallible>,
    posts: Mutex<Posts>,
    mailbox_bound: usize,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("poller", &self.door.poller)
            .finish_non_exhaustive()
    }
}

impl Registry {
    pub(crate) fn new(poller: u32, fd: WakeFd, mailbox_bound: usize) -> Registry {
        let waker = Arc::new(Waker::new(fd));
        Registry {
            commands: Mailbox::new(mailbox_bound, waker.clone()),
            door: Arc::new(Door {
                poller,
                waker,
                presence: Presence::new(),
                counters: Counters::default(),
                sockets: AtomicUsize::new(0),
                waiting: AtomicUsize::new(0),
                places: Mutex::default(),
            }),
            posts: Mutex::default(),
            mailbox_bound,
        }
    }

    /// Sends a command; after the poller's end it is dropped, as nobody would carry it out.
    pub(crate) fn command(&self, command: Command) {
        drop(self.offer(command));
    }

    /// Sends a command; one comes back, not always the same, when the poller has ended.
    fn offer(&self, command: Command) -> Option<Command> {
        // Nobody asks whether there is room for a command, but for those that come from users.
        let places = usize::from(matches!(command, Command::Run(_)));
        let stranded = self.commands.push(command, places);
        if let Some(Command::Run(_)) = &stranded {
            Counters::add(&self.door.counters.dead_letters, 1);
        }
        if let Some(Command::Adopt { origin, .. }) = &stranded {
            // The system stops, so nobody is to be told that there is room.
            origin.live.fetch_sub(1, Ordering::AcqRel);
            self.door.sockets.fetch_sub(1, Ordering::AcqRel);
        }
        stranded
    }

    /// The mailbox of the actors of type `A` on this poller; made when first asked for.
    pub(crate) fn post<A: Actor>(&self) -> Arc<Post<A::Message>> {
        // Dropped after the lock: it may hold messages of the user's.
        let mut stranded = None;
        let mut posts = lock(&self.posts);
        let post = posts.entry(TypeId::of::<A>()).or_insert_with(|| {
            let post = Arc::new(Post::<A::Message>::new(
                self.mailbox_bound,
                self.door.clone(),
            ));
            // The command is in its mailbox before anybody has the address, so the poller learns of
            // this mailbox before it sleeps on a message that is in it.
            stranded = self.offer(Command::Inbox(Box::new(Inbox::new::<A>(post.clone()))));
            // A poller that has ended takes nothing out any more, so nothing must come in.
            if self.commands.is_closed() {
                post.mailbox.close(&mut Vec::new());
            }
            post
        });
        let post = Arc::clone(post);
        drop(posts);
        drop(stranded);
        post.downcast()
            .expect("the mailbox of an actor type holds that type's messages")
    }

    /// Reserves a place for an actor of type `A` and sends what makes it. In one queue with the
    /// messages that its address will carry, and in front of them: so they find it there.
    pub(crate) fn spawn<A: Actor>(
        &self,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> (Arc<Post<A::Message>>, ActorKey) {
        self.place::<A>(Control::Spawn(Box::new(move || Box::new(make()) as _)))
    }

    /// The same with what becomes of the place in `control`.
    pub(crate) fn place<A: Actor>(&self, control: Control) -> (Arc<Post<A::Message>>, ActorKey) {
        let post = self.post::<A>();
        let key = self.door.reserve();
        post.put(Entry::new(key, What::Control(Box::new(control))));
        (post, key)
    }

    /// The same with an actor that is to be connected.
    pub(crate) fn connect<A: Actor>(
        &self,
        target: Target,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> (Arc<Post<A::Message>>, ActorKey) {
        let post = self.post::<A>();
        let key = self.door.reserve();
        let make = Box::new(move || Box::new(make()) as Box<dyn Hosted>);
        let connect = Control::Connect(Box::new(target), make);
        post.put(Entry::new(key, What::Control(Box::new(connect))));
        (post, key)
    }

    /// Lets go of the mailboxes: they may hold messages that hold addresses that hold them.
    pub(crate) fn forget_posts(&self) {
        let posts = std::mem::take(&mut *lock(&self.posts));
        drop(posts);
    }

    pub(crate) fn add_to(&self, stats: &mut Stats) {
        self.door.counters.add_to(stats);
        stats.connections += self.door.sockets.load(Ordering::Relaxed) as u64;
        stats.output_waiting += self.door.waiting.load(Ordering::Relaxed) as u64;
        stats.wakes += self.door.waker.fd().wakes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::tests::Idle;

    fn registry(poller: u32) -> Registry {
        Registry::new(poller, WakeFd::simulated(), 16)
    }

    #[test]
    fn the_figures_of_a_system_are_the_sums_of_its_pollers() {
        let mut stats = Stats::default();
        for n in [1, 1000] {
            let registry = registry(0);
            let counters = &registry.door.counters;
            for (counter, times) in [
                (&counters.accepted, 1),
                (&counters.refused[0], 2),
                (&counters.refused[3], 13),
                (&counters.opened, 3),
                (&counters.closed[0], 4),
                (&counters.closed[12], 5),
                (&counters.dead_letters, 6),
                (&counters.panics, 7),
                (&counters.dropped_writes, 8),
                (&counters.replaced_writes, 18),
                (&counters.pushes, 9),
                (&counters.accept_pauses, 10),
                (&counters.unclaimed_work, 17),
                (&counters.restarts, 31),
                (&counters.options_failed, 16),
                (&counters.headers_refused, 40),
                (&counters.upgrades_refused, 44),
                (&counters.rate_waits, 14),
                (&counters.handshakes, 41),
                (
                    &counters.handshakes_failed[TlsErrorKind::Deadline.place()],
                    42,
                ),
                (&counters.handshakes_failed[TlsErrorKind::Local.place()], 43),
                (&counters.misdirected, 15),
                (&counters.requests_refused, 44),
                (&counters.datagrams.received, 21),
                (&counters.datagrams.truncated, 22),
                (&counters.datagrams.sent, 23),
                (&counters.datagrams.dropped, 24),
                (&counters.datagrams.failed, 25),
                (&counters.datagrams.errors, 26),
                (&counters.connected, 18),
                (&counters.connect_failed, 19),
            ] {
                Counters::add(counter, n);
                Counters::add(counter, n * (times - 1));
            }
            registry
                .door
                .sockets
                .store(11 * n as usize, Ordering::Relaxed);
            let waiting = &registry.door.waiting;
            waiting.store(13 * n as usize, Ordering::Relaxed);
            for _ in 0..12 * n {
                registry.door.waker.fd().wake();
            }
            registry.add_to(&mut stats);
        }
        let mut closed_by: BTreeMap<_, _> = CloseReason::NAMES.map(|name| (name, 0)).into();
        closed_by.insert("peer closed", 4 * 1001);
        closed_by.insert("stopped", 5 * 1001);
        let mut refused_by: BTreeMap<_, _> = Cause::NAMES.map(|name| (name, 0)).into();
        refused_by.insert("listener limit", 2 * 1001);
        refused_by.insert("descriptors", 13 * 1001);
        let mut handshakes_failed_by: BTreeMap<_, _> =
            TlsErrorKind::NAMES.map(|name| (name, 0)).into();
        handshakes_failed_by.insert("deadline", 42 * 1001);
        handshakes_failed_by.insert("local", 43 * 1001);
        let expected = Stats {
            accepted: 1001,
            refused: 15 * 1001,
            refused_by,
            opened: 3 * 1001,
            closed: 9 * 1001,
            closed_by,
            dead_letters: 6 * 1001,
            panics: 7 * 1001,
            dropped_writes: 8 * 1001,
            replaced_writes: 18 * 1001,
            pushes: 9 * 1001,
            accept_pauses: 10 * 1001,
            unclaimed_work: 17 * 1001,
            restarts: 31 * 1001,
            rate_waits: 14 * 1001,
            handshakes: 41 * 1001,
            handshakes_failed: 85 * 1001,
            handshakes_failed_by,
            misdirected: 15 * 1001,
            requests_refused: 44 * 1001,
            datagrams_received: 21 * 1001,
            datagrams_truncated: 22 * 1001,
            datagrams_sent: 23 * 1001,
            datagrams_dropped: 24 * 1001,
            datagrams_failed: 25 * 1001,
            datagram_errors: 26 * 1001,
            connections: 11 * 1001,
            wakes: 12 * 1001,
            options_failed: 16 * 1001,
            headers_refused: 40 * 1001,
            upgrades_refused: 44 * 1001,
            output_waiting: 13 * 1001,
            connected: 18 * 1001,
            connect_failed: 19 * 1001,
        };
        assert_eq!(stats, expected);
    }

    #[test]
    fn the_lowest_free_place_is_the_next_to_be_given_out() {
        let door = registry(0).door;
        let keys = [0, 1, 2].map(|_| door.reserve());
        assert_eq!(keys.map(ActorKey::index), [0, 1, 2]);
        for gone in [keys[2], keys[0]] {
            door.leave(gone);
            assert!(!door.is_here(gone));
            door.free(gone);
        }
        let next = [0, 1, 2].map(|_| door.reserve());
        assert_eq!(next.map(ActorKey::index), [0, 2, 3]);
        assert!(door.is_here(next[0]) && door.is_here(keys[1]));
        assert!(!door.is_here(keys[0]), "its place is another's");
    }

    #[test]
    fn an_id_names_the_poller_the_place_and_its_generation() {
        let id = ActorId::new(3, ActorKey::new(7, 5));
        assert_eq!(format!("{id} {id:?}"), "3.7v5 3.7v5");
        assert_eq!(format!("{:?}", registry(3)), "Registry { poller: 3, .. }");
    }

    #[test]
    fn a_mailbox_is_made_once_and_let_go_of_in_the_end() {
        let registry = registry(0);
        let post = registry.post::<Idle>();
        assert!(Arc::ptr_eq(&post, &registry.post::<Idle>()));
        assert!(matches!(registry.commands.pop(), Some(Command::Inbox(_))));
        assert!(registry.commands.pop().is_none(), "told of once");
        let kept = Arc::downgrade(&post);
        drop(post);
        assert!(kept.upgrade().is_some());
        registry.forget_posts();
        assert!(kept.upgrade().is_none());
    }
}

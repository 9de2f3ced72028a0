//! The actors of one poller: their slots, how a callback is entered, and how what it asked for is
//! carried out.
//!
//! The way of a byte: [`readiness`] says that it is there, [`input`] reads it into the poller's one
//! buffer and shows it to the actor; what the actor writes is staged in the [`Call`] and goes from
//! there straight to the socket ([`output`]). Only what the actor did not consume, or the socket
//! refused, is kept in the connection's [`Extra`]. [`place`] is where actors come from, [`connecting`]
//! where those come from that connect out, [`close`] how they end, [`timeouts`] watches them, [`guard`] contains their panics.

mod close;
mod connecting;
mod datagrams;
mod detach;
mod extras;
mod guard;
mod header;
mod input;
mod marked;
mod options;
mod output;
mod place;
mod readiness;
mod secured;
mod silent;
mod special;
mod timeouts;
mod waiting;
mod watched;
mod written;

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::actor::{CloseReason, Outcome};
use crate::call::{Call, Hosted, Noted, Wants};
use crate::flags::Flags;
use crate::handle::Shared;
use crate::hosts::datagrams::DatagramRoom;
use crate::hosts::extras::{Extra, ExtraId, Extras};
use crate::hosts::secured::Securing;
use crate::hosts::silent::Silent;
use crate::hosts::special::Special;
use crate::limits::Ticket;
use crate::local::{OnPoller, PollerContext};
use crate::origin::{Origin, SlowReader};
use crate::registry::{ActorKey, Registry};
use crate::sys::{Selector, Socket, SocketOption, clock};

pub(crate) use crate::hosts::guard::{contain, count_panic, guard, panic_text};
pub(crate) use crate::hosts::waiting::OUTPUT_BUDGET;

type HashMap<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;
type HashSet<K> = std::collections::HashSet<K, ahash::RandomState>;

/// How many bytes one read takes at most unless the builder says otherwise, which is also what one
/// connection gets in one turn. A stream at full speed comes in few calls, and 64 KiB are through an
/// actor in some ten microseconds, so its neighbours do not notice.
pub(crate) const READ_MAX: usize = 64 << 10;

/// Kept input up to this many bytes is put in front of what is read next, so that the two are in
/// one piece and only what was kept is copied. Beyond it what is read is appended to what is kept:
/// a large frame is not copied again with each read.
const FRONT_MAX: usize = 16 << 10;

/// One actor and, if it is a connection, its socket.
struct Slot {
    /// `None` in a vacant slot, in one that lingers, and in one that refuses a connection.
    actor: Option<Box<dyn Hosted>>,
    /// There only while something is kept for the connection.
    extra: Option<ExtraId>,
    socket: Option<Socket>,
    /// That of the key; 0 in a vacant slot, which no key has.
    generation: u32,
    flags: Flags,
    origin: u16,
    peer: [u8; 6],
}

impl Slot {
    const VACANT: Slot = Slot {
        actor: None,
        extra: None,
        socket: None,
        generation: 0,
        flags: Flags::NONE,
        origin: 0,
        peer: [0; 6],
    };
}

/// Where an actor is found by its key.
pub(crate) enum Present {
    At(usize),
    /// It takes no messages now: they are to be set aside.
    Aside,
    No,
}

/// When what a callback wrote goes to the socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    /// At once: the answer to a request.
    Now,
    /// With all else that this turn makes the connection write, in one system call.
    EndOfTurn,
}

/// What came of a callback: its outcome, or the payload of its panic.
type Called = Result<Outcome, Box<dyn Any + Send>>;

/// The actors of one poller.
pub(crate) struct Hosts {
    slots: Vec<Slot>,
    pub(crate) call: Call,
    pub(crate) selector: Selector,
    /// `FRONT_MAX` bytes and as many as one read takes.
    read_buf: Box<[u8]>,
    /// Actors to be called without being told by the selector: see [`Flags::READY`].
    ready: VecDeque<ActorKey>,
    /// Connections to be flushed at the end of the turn.
    dirty: Vec<ActorKey>,
    extras: Extras,
    /// Bytes of output that sockets have refused, and how many may be: see [`waiting`].
    waiting: usize,
    pub(crate) output_budget: usize,
    /// When each connection that has an idle timeout was last active, by slot: milliseconds since
    /// the poller's start, wrapping. No longer than the last such slot.
    active_ms: Vec<u32>,
    /// Those of which nothing has come yet.
    silent: Silent,
    /// What the special slots are, by slot.
    special: HashMap<u32, Special>,
    secured: Securing,
    /// Actors that were opened with messages set aside: their inboxes are to be told.
    pub(crate) let_in: Vec<ActorKey>,
    /// Actors that wait for the mailbox of their own type on this poller.
    waits_here: HashSet<ActorKey>,
    /// Options that could not be set, for their actors to be told.
    failed_options: VecDeque<(ActorKey, SocketOption, io::Error)>,
    datagrams: DatagramRoom,
    /// Actors that have ended and of which an inbox may keep something.
    pub(crate) ended: Vec<(ActorKey, &'static str)>,
    /// What the connection that is being placed counts as by its source, and what those that are
    /// there do, by slot: nobody, unless a listener limits them.
    pub(crate) arriving: Option<Ticket>,
    tickets: HashMap<u32, Ticket>,
    /// Connections that were refused and have not gone.
    refused: usize,
    /// Sockets freed in this turn and still counted in the door: see `count_freed`.
    freed: usize,
    /// Whether slots have become vacant in this turn, those of actors without a socket included.
    vacated: bool,
    /// The deadline, once the system stops.
    pub(crate) stop: Option<Instant>,
    started: Instant,
}

impl Hosts {
    pub(crate) fn new(
        selector: Selector,
        registry: Arc<Registry>,
        shared: Arc<Shared>,
        spawned: Arc<Origin>,
    ) -> Hosts {
        Hosts {
            slots: Vec::new(),
            call: Call::new(registry, shared, spawned),
            selector,
            read_buf: vec![0; FRONT_MAX + READ_MAX].into_boxed_slice(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            extras: Extras::default(),
            waiting: 0,
            output_budget: OUTPUT_BUDGET,
            active_ms: Vec::new(),
            silent: Silent::default(),
            special: HashMap::default(),
            secured: Securing::default(),
            let_in: Vec::new(),
            waits_here: HashSet::default(),
            failed_options: VecDeque::new(),
            datagrams: DatagramRoom::default(),
            ended: Vec::new(),
            arriving: None,
            tickets: HashMap::default(),
            refused: 0,
            freed: 0,
            vacated: false,
            stop: None,
            started: clock::now(),
        }
    }

    /// How many bytes one read takes at most.
    #[inline]
    fn read_max(&self) -> usize {
        self.read_buf.len() - FRONT_MAX
    }

    /// Has one read take so many bytes at most. Nothing is being read.
    pub(crate) fn set_read_max(&mut self, bytes: usize) {
        if bytes != self.read_max() {
            self.read_buf = vec![0; FRONT_MAX + bytes].into_boxed_slice();
        }
    }

    // ---- finding an actor -----------------------------------------------------------------------

    fn key(&self, index: usize) -> ActorKey {
        ActorKey::new(index as u32, self.slots[index].generation)
    }

    /// The place of the slot, if it still is this key's.
    fn find(&self, key: ActorKey) -> Option<usize> {
        let index = key.index() as usize;
        let slot = self.slots.get(index)?;
        (slot.generation == key.generation()).then_some(index)
    }

    /// Where messages for this key go now. An actor that is still to be opened is opened first.
    pub(crate) fn present(&mut self, key: ActorKey) -> Present {
        let Some(mut index) = self.find(key) else {
            return Present::No;
        };
        if self.slots[index].flags.has(Flags::OPENING) {
            self.open(index);
            let Some(again) = self.find(key) else {
                return Present::No;
            };
            index = again;
        }
        let flags = self.slots[index].flags;
        if flags.has(Flags::CLOSING) {
            Present::No
        } else if flags.has(Flags::ASIDE) || flags.has(Flags::WAITING) && !flags.has(Flags::SOCKET)
        {
            Present::Aside
        } else {
            Present::At(index)
        }
    }

    pub(crate) fn is_waiting(&self, key: ActorKey) -> bool {
        self.has(key, Flags::WAITING)
    }

    /// Whether the mailbox that it waits for is that of its own type on this poller.
    pub(crate) fn waits_here(&self, key: ActorKey) -> bool {
        self.waits_here.contains(&key)
    }

    /// Whether the actor has not ended yet.
    pub(crate) fn is_there(&self, key: ActorKey) -> bool {
        self.find(key)
            .is_some_and(|index| self.slots[index].actor.is_some())
    }

    /// Whether any of `flags` holds for an actor that is there.
    pub(crate) fn has(&self, key: ActorKey, flags: u32) -> bool {
        self.find(key)
            .is_some_and(|index| self.slots[index].flags.has(flags))
    }

    /// Bytes of output that wait for the socket of this actor.
    pub(crate) fn queued(&self, key: ActorKey) -> usize {
        self.find(key).map_or(0, |index| self.queued_at(index))
    }

    fn queued_at(&self, index: usize) -> usize {
        let extra = self.extras.get(self.slots[index].extra);
        extra.map_or(0, Extra::queued)
    }

    /// All actors that are there.
    pub(crate) fn actors(&self) -> impl Iterator<Item = &dyn Hosted> {
        self.slots.iter().filter_map(|slot| slot.actor.as_deref())
    }

    pub(crate) fn mark(&mut self, key: ActorKey, flags: u32) {
        if let Some(index) = self.find(key) {
            self.slots[index].flags.set(flags);
        }
    }

    pub(crate) fn unmark(&mut self, key: ActorKey, flags: u32) {
        if let Some(index) = self.find(key) {
            self.slots[index].flags.clear(flags);
        }
    }

    // ---- calling it -----------------------------------------------------------------------------

    /// Enters a callback of the actor at `index` and carries out what it asked for; output leaves
    /// at the end of the turn.
    pub(crate) fn call(
        &mut self,
        index: usize,
        callback: impl FnOnce(&mut dyn Hosted, &mut Call) -> Outcome,
    ) {
        let called = self.enter(index, callback);
        self.after(index, called, Flush::EndOfTurn);
    }

    fn enter(
        &mut self,
        index: usize,
        callback: impl FnOnce(&mut dyn Hosted, &mut Call) -> Outcome,
    ) -> Called {
        begin(&mut self.call, &self.slots[index], index, &self.extras);
        match self.slots[index].actor.as_deref_mut() {
            Some(actor) => guard(|| callback(actor, &mut self.call)),
            None => Ok(Ok(())),
        }
    }

    /// Carries out what the callback of the actor at `index` asked for.
    fn after(&mut self, index: usize, called: Called, flush: Flush) {
        // What most callbacks do: nothing, or nothing but write.
        if self.call.wants.is_empty()
            && self.call.spawned.is_empty()
            && matches!(called, Ok(Ok(())))
        {
            if !self.call.staged.is_empty() {
                self.send_staged(index, flush);
            }
            return;
        }
        let wants = self.call.wants;
        match called {
            Err(panic) => {
                if wants.has(Wants::DATAGRAMS) {
                    self.forget_datagrams(index);
                }
                // What it wrote goes with it, also what an adapter wrote before it called the actor
                // inside.
                if self.call.queued + self.call.staged.len() + self.call.over + self.call.pieces > 0
                {
                    self.slots[index].flags.set(Flags::ABORT);
                }
                self.call.drop_requests();
                self.call.staged.clear();
                let what = self.note_panic(index, &*panic);
                // The payload is the user's value: its own drop may panic, too.
                self.drop_guarded(panic);
                self.end(index, CloseReason::Panicked(what));
            }
            Ok(outcome) if wants.has(Wants::ABORT) => {
                self.call.drop_requests();
                self.call.staged.clear();
                self.drop_guarded(outcome);
                self.end(index, CloseReason::Aborted);
            }
            Ok(outcome) if wants.has(Wants::OVERFLOW) => {
                self.drop_guarded(outcome);
                let queued = self.call.queued + self.call.staged.len() + self.call.over;
                let limit = self.call.options().output_max;
                self.call.drop_requests();
                self.call.staged.clear();
                self.end(index, CloseReason::SlowReader { queued, limit });
            }
            Ok(outcome) => self.carry_out(index, outcome, wants, flush),
        }
        self.call.marks.clear();
        self.call.pieces = 0;
        if wants.has(Wants::DETACH) {
            // Still there where something else has ended it.
            let unused = self.call.detach.take();
            self.drop_guarded(unused);
        }
        self.place_spawned();
    }

    fn carry_out(&mut self, index: usize, outcome: Outcome, wants: Wants, flush: Flush) {
        if !wants.is_empty() {
            if wants.has(Wants::INTEREST | Wants::RESUME) && self.call.flags.has(Flags::SPECIAL) {
                self.go_on_watching(index, wants);
            }
            if wants.has(Wants::OPTIONS) {
                self.set_options(index);
            }
            if wants.has(Wants::DATAGRAMS) {
                self.datagrams_wanted(index, wants);
            }
            let slot = &mut self.slots[index];
            if wants.has(Wants::WAIT) {
                slot.flags.set(Flags::WAITING);
            }
            if wants.has(Wants::GO_ON) && !wants.has(Wants::WAIT) {
                slot.flags.clear(Flags::WAITING);
                self.let_in.push(self.call.key);
            }
            if wants.has(Wants::WAIT_HERE) {
                self.waits_here.insert(self.call.key);
            }
            if wants.has(Wants::PAUSE) {
                slot.flags.set(Flags::PAUSED);
            }
            if wants.has(Wants::WAIT | Wants::PAUSE) {
                self.pause_frame(index);
            }
            if wants.has(Wants::RESUME) && self.slots[index].flags.take(Flags::PAUSED) {
                self.owe(index, Flags::SHOW_INPUT);
            }
            // Whoever was told `false` is told when to write again, if there is anything to wait
            // for.
            let waits = self.queued_at(index) + self.call.staged.len() > 0;
            if wants.has(Wants::DROPPED) && waits {
                self.slots[index].flags.set(Flags::ABOVE_HIGH);
            }
            if wants.has(Wants::LOCAL_ADDR) {
                self.ask_local_addr(index);
            }
            if wants.has(Wants::SHUTDOWN_WRITE) && !self.slots[index].flags.has(Flags::WRITE_SHUT) {
                self.slots[index]
                    .flags
                    .set(Flags::WRITE_SHUT | Flags::SHUT_PENDING);
            }
        }
        let reason = match outcome {
            Err(error) => CloseReason::Error(error),
            Ok(()) if wants.has(Wants::CLOSE) => {
                let flags = self.slots[index].flags;
                if flags.has(Flags::EOF) || wants.has(Wants::PEER_CLOSED) {
                    CloseReason::PeerClosed
                } else {
                    CloseReason::Finished
                }
            }
            Ok(()) if wants.has(Wants::DETACH) => return self.detach(index),
            Ok(()) => {
                let goes_on = if wants.has(Wants::MARKS) {
                    self.send_marked(index, flush)
                } else {
                    self.send_staged(index, flush)
                };
                if goes_on && !wants.is_empty() {
                    self.owe_notices(index);
                    self.sync_interest(index);
                }
                return;
            }
        };
        // Kept first and sent by the close, which knows the reason if sending fails.
        let within = self.call.close_within.take();
        if self.keep_all(index) {
            self.close_within(index, reason, within);
        } else {
            self.drop_guarded(reason);
        }
    }

    /// The poller has to call this actor for the reasons in `flags`, though the selector will not
    /// say so.
    fn owe(&mut self, index: usize, flags: u32) {
        let key = self.key(index);
        let slot = &mut self.slots[index];
        slot.flags.set(flags);
        if !slot.flags.has(Flags::READY) {
            slot.flags.set(Flags::READY);
            self.ready.push_back(key);
        }
    }

    pub(crate) fn owes(&self) -> bool {
        !self.ready.is_empty()
            || !self.failed_options.is_empty()
            || !self.call.bindings.is_empty()
            || self.secured.owes()
            || self.owes_failures()
    }

    /// Calls up to `most` of the actors that are owed a call.
    #[inline]
    pub(crate) fn pay(&mut self, most: usize) {
        if self.owes() {
            self.pay_all(most);
        }
    }

    fn pay_all(&mut self, most: usize) {
        self.go_on_with_handshakes();
        self.tell_failed_options(most);
        self.tell_failures();
        self.bind_wanted(most);
        for _ in 0..most.min(self.ready.len()) {
            let Some(key) = self.ready.pop_front() else {
                return;
            };
            let Some(index) = self.find(key) else {
                continue;
            };
            self.slots[index].flags.clear(Flags::READY);
            self.open(index);
            self.pay_one(key, Flags::STOPPING, |hosts, index| {
                if let Some(deadline) = hosts.stop {
                    hosts.call(index, |actor, call| actor.stopping(deadline, call));
                }
            });
            self.pay_one(key, Flags::DRAINED, |hosts, index| {
                hosts.call(index, |actor, call| actor.drained(call))
            });
            self.pay_one(key, Flags::SHOW_INPUT, Hosts::show_kept);
            self.tell_notices(key);
        }
    }

    fn pay_one(&mut self, key: ActorKey, flag: u32, pay: impl FnOnce(&mut Hosts, usize)) {
        // Looked up again each time: the call before may have ended it.
        let Some(index) = self.find(key) else { return };
        if self.slots[index].flags.take(flag) && !self.slots[index].flags.has(Flags::CLOSING) {
            pay(self, index);
        }
    }

    /// The mailbox that this actor waited for has room.
    pub(crate) fn room(&mut self, key: ActorKey) {
        let Some(index) = self.find(key) else { return };
        self.waits_here.remove(&key);
        if !self.slots[index].flags.take(Flags::WAITING)
            || self.slots[index].flags.has(Flags::CLOSING)
        {
            return;
        }
        self.call(index, |actor, call| actor.room(call));
        if self.find(key).is_some() {
            if self.slots[index].flags.has(Flags::SOCKET) {
                self.owe(index, Flags::SHOW_INPUT);
            }
            self.sync_interest(index);
        }
    }

    /// Another thread asked for a close.
    pub(crate) fn close_by_address(&mut self, key: ActorKey) {
        if let Some(index) = self.find(key) {
            self.close(index, CloseReason::Finished);
        }
    }

    pub(crate) fn timer(&mut self, due: crate::timers::Due<crate::call::TimerFor>) {
        use crate::call::TimerFor;
        let index = due.owner as usize;
        match due.what {
            TimerFor::Ask(asked) => asked.fail(crate::ask::AskError::TimedOut),
            TimerFor::Watch(watch) => self.look_at(index, watch),
            TimerFor::Actor => {
                if !self.slots[index].flags.has(Flags::CLOSING) {
                    self.call(index, |actor, call| actor.timer(due.key, call));
                }
            }
        }
    }

    /// Runs a closure that another thread has sent.
    pub(crate) fn run(&mut self, run: OnPoller) {
        if let Err(panic) = guard(|| run(&mut PollerContext::new(&mut self.call))) {
            self.count_panic("a closure run on a poller", &*panic);
            self.drop_guarded(panic);
        }
        self.place_spawned();
    }
}

/// Lays out the desk for a callback of the actor in `slot`.
#[inline(always)]
fn begin(call: &mut Call, slot: &Slot, index: usize, extras: &Extras) {
    debug_assert!(call.staged.is_empty());
    call.key = ActorKey::new(index as u32, slot.generation);
    call.flags = slot.flags.seen();
    call.origin = slot.origin;
    call.peer = slot.peer;
    call.queued = match extras.get(slot.extra) {
        Some(extra) => {
            if let Some(apart) = &extra.apart {
                call.noted = Noted {
                    key: call.key,
                    notices: apart.notices.len(),
                    free: extra.queued().wrapping_sub(extra.cost()),
                };
            }
            extra.cost()
        }
        None => 0,
    };
    call.over = 0;
    call.shown = 0..0;
    call.wants = Wants::default();
}

/// Whether an error of a socket says that the peer is no longer there.
fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
    )
}

/// Whether the policy holds reading back while output waits above its high watermark.
fn holds_source(call: &Call, origin: u16) -> bool {
    call.origins[usize::from(origin)].options.slow_reader == SlowReader::PauseSource
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::actor::Actor;
    use crate::origin::ConnectionOptions;
    use crate::sys::{Endpoint, Peer, WakeFd, Wire};
    use crate::workers::{Limits, Workers};

    pub(crate) struct Idle;

    impl Actor for Idle {
        type Message = ();
    }

    pub(super) fn origin() -> Origin {
        Origin {
            make: Box::new(|_| Box::new(Idle)),
            local: Endpoint::Unix("".into()),
            ..Origin::of_nobody(ConnectionOptions::default())
        }
    }

    /// Hosts with so many connections, in slots from 0 on, whose peers have gone.
    pub(crate) fn hosts(connections: usize) -> Hosts {
        let registry = Arc::new(Registry::new(0, WakeFd::simulated(), 16));
        let workers = Workers::by_hand(Limits::default());
        let shared = Shared::new(vec![registry.clone()], None, workers, Default::default());
        let spawned = Arc::new(origin());
        let mut hosts = Hosts::new(Selector::simulated(), registry.clone(), shared, spawned);
        let origin = Arc::new(origin());
        for _ in 0..connections {
            adopt(&mut hosts, &origin);
        }
        hosts
    }

    /// One more connection; the peer's end of it.
    pub(super) fn adopt(hosts: &mut Hosts, origin: &Arc<Origin>) -> Wire {
        origin.live.fetch_add(1, Ordering::AcqRel);
        let sockets = &hosts.call.registry.door.sockets;
        sockets.fetch_add(1, Ordering::AcqRel);
        let (wire, socket) = Wire::pair();
        hosts.adopt(origin, socket, Peer::Unix);
        wire
    }

    /// ARCHITECTURE.md and README.md count on it.
    #[test]
    fn a_slot_is_40_bytes() {
        assert_eq!(size_of::<Slot>(), 40);
    }
}

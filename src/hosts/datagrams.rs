//! Datagram sockets: from the socket to the actor, and from what it sends to the socket.
//!
//! Datagrams are received up to 32 at a time into the poller's batch, which there is once a
//! socket has had something to receive. What the actor sends meanwhile goes to the socket's
//! [`Outbox`](crate::outbox::Outbox) and leaves behind the last of them, in as few calls; what it
//! sends in other callbacks, at the end of the turn.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::actor::CloseReason;
use crate::call::{Hosted, Wants};
use crate::datagram::{
    Binding, Bound, Datagram, DatagramCounters, DatagramFailure, DatagramOptions, Datagrams, Held,
};
use crate::flags::Flags;
use crate::hosts::guard::guard;
use crate::hosts::special::Special;
use crate::hosts::{Flush, Hosts};
use crate::outbox::{Outbox, Refusing};
use crate::registry::{ActorKey, Counters};
use crate::sys::{
    Batched, DatagramAddr, DatagramBind, DatagramSocket, Family, ReceiveBatch, SendBatch, Socket,
    is_of_the_past, is_passing,
};
use crate::watch::Watch;

/// How many datagrams one flush sends, or sets aside, or gives up. A system call sends 64 in some 50
/// microseconds, and fails in one: after about a millisecond the neighbours have their turn.
const STEPS_PER_TURN: usize = 1024;

/// How often a datagram is tried again that a socket answers with what became of another. The kernel
/// tells that once: what fails again at once has failed itself.
const AGAIN_MAX: u32 = 2;

/// How many receivers that took nothing more an unconnected Unix socket tries again at a time: each
/// takes a system call.
const TRIES_PER_TURN: usize = 64;

/// How long it waits before it tries them again: nothing tells when such a receiver has room. At
/// first, and at most.
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(64);

/// What a poller has for its datagram sockets.
#[derive(Default)]
pub(super) struct DatagramRoom {
    receive: Option<Box<ReceiveBatch>>,
    send: Option<Box<SendBatch>>,
    /// Actors that are to be told of failures.
    failed: Vec<ActorKey>,
}

/// What one flush of a socket does.
struct Sending<'a> {
    batch: Box<SendBatch>,
    socket: &'a Socket,
    family: Family,
    is_connected: bool,
    counters: &'a DatagramCounters,
    has_sent: bool,
    /// How much it has done of what a turn may.
    steps: usize,
    /// How often the same has been tried.
    again: u32,
    failures: Vec<DatagramFailure>,
}

impl<'a> Sending<'a> {
    fn new(
        batch: Option<Box<SendBatch>>,
        socket: &'a Socket,
        known: &Datagrams,
        counters: &'a DatagramCounters,
    ) -> Sending<'a> {
        Sending {
            batch: batch.unwrap_or_else(|| Box::new(SendBatch::new(Batched::Perhaps))),
            socket,
            family: known.family,
            is_connected: known.connected.is_some(),
            counters,
            has_sent: false,
            steps: 0,
            again: 0,
            failures: Vec::new(),
        }
    }

    /// Sends some of the first `most` of `outbox`, up to the first one that may not be sent to its
    /// receiver; `false` when the socket refuses.
    fn send(
        &mut self,
        outbox: &mut Outbox,
        most: usize,
        may: impl Fn(Option<&DatagramAddr>) -> bool,
    ) -> bool {
        let next = outbox.iter().take(most).take_while(|next| may(next.to));
        match self.batch.send(self.socket, self.family, next) {
            Ok(count) => {
                (self.steps, self.again) = (self.steps + count, 0);
                self.has_sent |= count > 0;
                outbox.remove(count);
                Counters::add(&self.counters.sent, count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error)
                if is_of_the_past(&error, self.is_connected, self.family)
                    && self.again < AGAIN_MAX =>
            {
                self.again += 1;
                Counters::add(&self.counters.errors, 1);
                self.failures.push(DatagramFailure::Socket(error));
            }
            Err(error) => self.fail(outbox, error),
        }
        true
    }

    /// Gives the first one up.
    fn fail(&mut self, outbox: &mut Outbox, error: io::Error) {
        (self.steps, self.again) = (self.steps + 1, 0);
        Counters::add(&self.counters.failed, 1);
        if let Some((to, len)) = outbox.pop() {
            self.failures
                .push(DatagramFailure::NotSent { to, len, error });
        }
    }

    fn end(self) -> (Box<SendBatch>, Vec<DatagramFailure>) {
        (self.batch, self.failures)
    }
}

impl Hosts {
    // ---- binding --------------------------------------------------------------------------------

    /// Hosts a socket that another thread has bound and counted.
    pub(crate) fn bind(&mut self, key: ActorKey, bound: Bound) {
        let Bound {
            socket,
            options,
            make,
        } = bound;
        match guard(make) {
            Ok(actor) => self.host_datagrams(key, socket, options, actor),
            Err(panic) => {
                self.count_panic("a factory", &*panic);
                self.drop_guarded(panic);
                drop(socket);
                self.freed += 1;
                self.call.registry.door.leave(key);
                self.call.registry.door.free(key);
            }
        }
    }

    /// Binds up to `most` of the sockets that callbacks asked for. Failure is told by `closed`
    /// alone.
    pub(super) fn bind_wanted(&mut self, most: usize) {
        for _ in 0..most.min(self.call.bindings.len()) {
            let Some(binding) = self.call.bindings.pop_front() else {
                return;
            };
            let Binding {
                key,
                addr,
                options,
                actor,
            } = binding;
            let how = DatagramBind {
                simulated: self.call.shared.simulated,
                ..options.how(1)
            };
            let bound = DatagramSocket::bind(&addr, &how).map(|mut sockets| sockets.remove(0));
            match bound {
                Ok(socket) => {
                    let door = &self.call.registry.door;
                    door.sockets.fetch_add(1, Ordering::AcqRel);
                    self.host_datagrams(key, socket, options, actor);
                }
                Err(error) => {
                    log::debug!("{error}");
                    let index = self.place(key, Some(actor));
                    Counters::add(&self.call.registry.door.counters.opened, 1);
                    self.slots[index].flags.set(Flags::OPENED);
                    self.end(index, CloseReason::Io(error));
                }
            }
        }
    }

    /// The same for all of them.
    #[inline]
    pub(crate) fn bind_all(&mut self) {
        if !self.call.bindings.is_empty() {
            self.bind_wanted(usize::MAX);
        }
    }

    /// The poller ends, and those that are to be bound with it.
    pub(super) fn forget_bindings(&mut self) {
        while let Some(binding) = self.call.bindings.pop_front() {
            self.call.registry.door.leave(binding.key);
            self.call.registry.door.free(binding.key);
            self.drop_guarded(binding.actor);
        }
    }

    /// Opens an actor with a socket that has been counted.
    pub(crate) fn host_datagrams(
        &mut self,
        key: ActorKey,
        socket: DatagramSocket,
        options: DatagramOptions,
        actor: Box<dyn Hosted>,
    ) {
        let index = self.place_datagrams(key, socket, options, actor);
        self.open(index);
        if self.find(key).is_some() {
            self.sync_interest(index);
        }
    }

    /// The same but for the opening, which is owed.
    pub(super) fn place_datagrams(
        &mut self,
        key: ActorKey,
        socket: DatagramSocket,
        options: DatagramOptions,
        actor: Box<dyn Hosted>,
    ) -> usize {
        let index = self.place(key, Some(actor));
        self.call.origins[0].live.fetch_add(1, Ordering::AcqRel);
        let slot = &mut self.slots[index];
        slot.socket = Some(socket.socket);
        slot.flags.set(Flags::SOCKET | Flags::OPENING);
        self.make_special(index, Special::Datagrams(socket.path));
        let datagrams = Datagrams {
            local: socket.local,
            family: socket.family,
            connected: socket.connected,
            datagram_max: options.datagram_max,
            queue_max: options.queue_max,
            outbox: Outbox::default(),
            refusing: Refusing::default(),
            mark: 0,
            wanted: Vec::new(),
            held: Default::default(),
            failures: Vec::new(),
            failures_more: 0,
            rests: false,
            retries: false,
            retry_after: RETRY_MIN,
        };
        self.call.datagrams.insert(index as u32, datagrams);
        index
    }

    // ---- to the actor ---------------------------------------------------------------------------

    pub(super) fn handle_datagrams(&mut self, index: usize, readable: bool, writable: bool) {
        let key = self.key(index);
        if writable && self.slots[index].flags.take(Flags::BLOCKED) {
            self.flush_datagrams(index);
        }
        if readable && self.find(key).is_some() && self.slots[index].flags.has(Flags::REG_READ) {
            self.receive_datagrams(index);
        }
    }

    /// Receives once, and shows what has come. If there is more, the selector reports it in the
    /// next turn, after everybody else's.
    fn receive_datagrams(&mut self, index: usize) {
        let slot = &self.slots[index];
        let known = self.call.datagrams.get(&(index as u32));
        let (Some(socket), Some(known)) = (&slot.socket, known) else {
            return;
        };
        let (max, family) = (known.datagram_max, known.family);
        let mut batch = match self.datagrams.receive.take() {
            Some(batch) if batch.place() >= max => batch,
            // For the longest that any socket of this poller takes.
            _ => Box::new(ReceiveBatch::new(max, Batched::Perhaps)),
        };
        match batch.receive(socket, family, max) {
            Ok(count) => {
                let counters = &self.call.registry.door.counters.datagrams;
                Counters::add(&counters.received, count as u64);
                let key = self.key(index);
                self.show_datagrams(index, &batch, count);
                let error = batch.take_error().filter(|_| self.has(key, Flags::SOCKET));
                if let Some(error) = error {
                    self.datagram_error(index, error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.datagram_error(index, error),
        }
        self.datagrams.receive = Some(batch);
    }

    fn show_datagrams(&mut self, index: usize, batch: &ReceiveBatch, count: usize) {
        let key = self.key(index);
        let Some(known) = self.call.datagrams.get(&key.index()) else {
            return;
        };
        let (local, connected) = (known.local.clone(), known.connected.clone());
        for at in 0..count {
            let arrived = batch.get(at);
            // What came before the socket was connected, while it still took it from anybody.
            if let (Some(DatagramAddr::Udp(to)), DatagramAddr::Udp(from)) =
                (&connected, arrived.from)
                && (to.ip(), to.port()) != (from.ip(), from.port())
            {
                continue;
            }
            if arrived.is_cut {
                let counters = &self.call.registry.door.counters.datagrams;
                Counters::add(&counters.truncated, 1);
            }
            if self.slots[index].flags.has(Flags::NO_RECEIVE) {
                // Paused by what came before it in the batch: kept until it reads again.
                if let Some(known) = self.call.datagrams.get_mut(&key.index()) {
                    known.held.push_back(Held::of(&arrived));
                }
                continue;
            }
            self.show_datagram(index, Datagram::new(arrived, &local));
            if !self.has(key, Flags::SOCKET) || self.has(key, Flags::CLOSING) {
                return;
            }
        }
        self.flush_datagrams(index);
    }

    /// Enters `datagram`. What it sends is not flushed yet.
    fn show_datagram(&mut self, index: usize, datagram: Datagram<'_>) {
        let called = self.enter(index, |actor, call| actor.datagram(datagram, call));
        let sends = self.call.wants.is_only(Wants::DATAGRAMS);
        if !(sends && self.call.has_gone_well(&called)) {
            self.after(index, called, Flush::EndOfTurn);
        }
    }

    /// Shows what was kept while the actor paused.
    pub(super) fn show_held(&mut self, index: usize) {
        let key = self.key(index);
        let known = self.call.datagrams.get(&key.index());
        let Some(local) = known.map(|known| known.local.clone()) else {
            return;
        };
        while self.has(key, Flags::SOCKET)
            && !self.has(key, Flags::CLOSING | Flags::NO_RECEIVE)
            && let Some(known) = self.call.datagrams.get_mut(&key.index())
            && let Some(held) = known.held.pop_front()
        {
            self.show_datagram(index, Datagram::new(held.arrived(), &local));
        }
        if self.has(key, Flags::SOCKET) && !self.has(key, Flags::CLOSING) {
            self.flush_datagrams(index);
        }
        if self.find(key).is_some() {
            self.sync_interest(index);
        }
    }

    /// The socket has an error to tell, which is that of something sent before, or its own.
    fn datagram_error(&mut self, index: usize, error: io::Error) {
        let counters = &self.call.registry.door.counters.datagrams;
        Counters::add(&counters.errors, 1);
        if is_passing(&error) {
            self.note_failure(index, DatagramFailure::Socket(error));
        } else {
            self.fail(index, error);
        }
    }

    fn note_failure(&mut self, index: usize, failure: DatagramFailure) {
        let key = self.key(index);
        log::debug!("{failure}");
        if let Some(known) = self.call.datagrams.get_mut(&key.index()) {
            if known.failures.is_empty() {
                self.datagrams.failed.push(key);
            }
            known.fail(failure);
        }
    }

    pub(super) fn owes_failures(&self) -> bool {
        !self.datagrams.failed.is_empty()
    }

    /// Tells actors what has failed.
    pub(super) fn tell_failures(&mut self) {
        for key in std::mem::take(&mut self.datagrams.failed) {
            let known = self.call.datagrams.get_mut(&key.index());
            let Some(known) =
                known.filter(|_| self.slots[key.index() as usize].generation == key.generation())
            else {
                continue;
            };
            for failure in known.take_failures() {
                if let Some(index) = self.find(key)
                    && !self.slots[index].flags.has(Flags::CLOSING)
                {
                    self.call(index, |actor, call| actor.datagram_failed(failure, call));
                }
            }
        }
    }

    // ---- from the actor -------------------------------------------------------------------------

    /// Carries out what a callback asked of its datagram socket, but for what the end of the turn
    /// does.
    pub(super) fn datagrams_wanted(&mut self, index: usize, wants: Wants) {
        let key = self.key(index);
        let Some(known) = self.call.datagrams.get_mut(&key.index()) else {
            return;
        };
        let waits = !known.outbox.is_empty();
        if wants.has(Wants::DROPPED) && known.queued() > 0 {
            self.slots[index].flags.set(Flags::ABOVE_HIGH);
        }
        if !known.wanted.is_empty() {
            self.set_datagram_options(index);
        }
        if waits {
            self.flush_later(index);
        }
    }

    /// Sets what the callback asked for, each behind what was sent before it, as far as the socket
    /// takes that.
    fn set_datagram_options(&mut self, index: usize) {
        let at = index as u32;
        let Some(known) = self.call.datagrams.get_mut(&at) else {
            return;
        };
        let (family, wanted) = (known.family, std::mem::take(&mut known.wanted));
        let waiting = |hosts: &Hosts| {
            let known = hosts.call.datagrams.get(&at);
            known.map_or(0, |known| known.outbox.len())
        };
        let before = waiting(self);
        for (behind, option) in wanted {
            let sent = before - waiting(self);
            if behind > sent && !self.slots[index].flags.has(Flags::BLOCKED) {
                self.send_out(index, behind - sent);
            }
            let Some(socket) = &self.slots[index].socket else {
                return;
            };
            if let Err(error) = DatagramSocket::set(socket, family, &option) {
                let counters = &self.call.registry.door.counters;
                Counters::add(&counters.options_failed, 1);
                self.note_failure(index, DatagramFailure::Option(option, error));
            }
        }
    }

    /// The callback at work has panicked: what it sent is thrown away.
    pub(super) fn forget_datagrams(&mut self, index: usize) {
        if let Some(known) = self.call.datagrams.get_mut(&(index as u32)) {
            known.outbox.truncate(known.mark);
            known.wanted.clear();
        }
    }

    /// Sends what waits, until it is gone or the socket refuses.
    pub(super) fn flush_datagrams(&mut self, index: usize) {
        let key = self.key(index);
        self.slots[index].flags.clear(Flags::DIRTY);
        let has_sent =
            !self.slots[index].flags.has(Flags::BLOCKED) && self.send_out(index, usize::MAX);
        let Some(known) = self.call.datagrams.get(&key.index()) else {
            return;
        };
        // Where all are for receivers that take nothing, not before those are tried again: else an
        // actor that insists would make its poller spin.
        let is_moving = has_sent || !known.retries;
        let is_low = is_moving && known.outbox.size() <= known.queue_max / 4;
        let flags = &mut self.slots[index].flags;
        if flags.has(Flags::CLOSING) {
            if known.queued() == 0 {
                let reason = self.take_reason(index).unwrap_or(CloseReason::Finished);
                return self.end(index, reason);
            }
        } else if is_low && flags.take(Flags::ABOVE_HIGH) {
            self.owe(index, Flags::DRAINED);
        }
        self.sync_interest(index);
    }

    /// Sends the first `most` of what waits, as far as the socket takes it; whether that is anything.
    fn send_out(&mut self, index: usize, most: usize) -> bool {
        let slot = &mut self.slots[index];
        let known = self.call.datagrams.get_mut(&(index as u32));
        let (Some(socket), Some(known)) = (&slot.socket, known) else {
            return false;
        };
        if known.outbox.is_empty() {
            return false;
        }
        let counters = &self.call.registry.door.counters.datagrams;
        let mut sending = Sending::new(self.datagrams.send.take(), socket, known, counters);
        // An unconnected Unix socket is refused by one receiver and not by the next.
        let each_by_itself = known.family == Family::Unix && known.connected.is_none();
        let stays = known.outbox.len().saturating_sub(most);
        let mut rests = false;
        while known.outbox.len() > stays {
            if sending.steps >= STEPS_PER_TURN {
                rests = !std::mem::replace(&mut known.rests, true);
                break;
            }
            let (outbox, refusing) = (&mut known.outbox, &mut known.refusing);
            let first = outbox.iter().next();
            let is_behind = first.is_some_and(|first| refusing.has(first.to));
            let most = outbox.len() - stays;
            if !is_behind && sending.send(outbox, most, |to| !refusing.has(to)) {
                continue;
            }
            if !each_by_itself {
                slot.flags.set(Flags::BLOCKED);
                break;
            }
            let room = known.queue_max / 2;
            let first = outbox.iter().next();
            if first.is_some_and(|first| refusing.push(&first, room)) {
                sending.steps += 1;
                outbox.pop();
            } else {
                let text = "the receiver takes nothing, and enough waits for it";
                sending.fail(outbox, io::Error::new(io::ErrorKind::WouldBlock, text));
            }
        }
        let has_sent = sending.has_sent;
        let done = sending.end();
        self.end_sending(index, done);
        if rests {
            self.watch_after(index, Watch::DatagramRest, Duration::ZERO);
        }
        self.retry_later(index);
        has_sent
    }

    fn end_sending(&mut self, index: usize, done: (Box<SendBatch>, Vec<DatagramFailure>)) {
        let (batch, failures) = done;
        self.datagrams.send = Some(batch);
        for failure in failures {
            self.note_failure(index, failure);
        }
    }

    /// The next turn has come, for what the last one has left.
    pub(super) fn send_rest(&mut self, index: usize) {
        if let Some(known) = self.call.datagrams.get_mut(&(index as u32)) {
            known.rests = false;
            self.flush_datagrams(index);
        }
    }

    /// Tries some of the receivers again that took nothing more; the others the next time.
    fn send_to_refusing(&mut self, index: usize) {
        let known = self.call.datagrams.get_mut(&(index as u32));
        let (Some(socket), Some(known)) = (&self.slots[index].socket, known) else {
            return;
        };
        let counters = &self.call.registry.door.counters.datagrams;
        let mut sending = Sending::new(self.datagrams.send.take(), socket, known, counters);
        // Never all of them, so that each is the first in its turn: the socket may have room for one.
        let tries = known.refusing.receivers().saturating_sub(1);
        for _ in 0..tries.clamp(1, TRIES_PER_TURN) {
            let Some((to, mut outbox)) = known.refusing.take() else {
                break;
            };
            while !outbox.is_empty()
                && sending.steps < STEPS_PER_TURN
                && sending.send(&mut outbox, usize::MAX, |_| true)
            {}
            known.refusing.put_back(to, outbox);
        }
        known.retry_after = match sending.steps {
            0 => (2 * known.retry_after).min(RETRY_MAX),
            _ => RETRY_MIN,
        };
        let done = sending.end();
        self.end_sending(index, done);
    }

    fn retry_later(&mut self, index: usize) {
        if let Some(known) = self.call.datagrams.get_mut(&(index as u32))
            && known.refusing.receivers() > 0
            && !std::mem::replace(&mut known.retries, true)
        {
            let after = known.retry_after;
            self.watch_after(index, Watch::DatagramRetry, after);
        }
    }

    /// Time to try receivers again that took nothing more.
    pub(super) fn retry_datagrams(&mut self, index: usize) {
        if let Some(known) = self.call.datagrams.get_mut(&(index as u32)) {
            known.retries = false;
            self.send_to_refusing(index);
            self.flush_datagrams(index);
            self.retry_later(index);
        }
    }

    // ---- the end --------------------------------------------------------------------------------

    /// Closes when all that was sent has left, or its time is over.
    pub(super) fn close_datagrams(
        &mut self,
        index: usize,
        reason: CloseReason,
        within: Option<Duration>,
    ) {
        self.slots[index].flags.set(Flags::CLOSING);
        let now = self.call.now();
        self.extra(index, now).reason = Some(reason);
        let key = self.key(index);
        self.flush_datagrams(index);
        if self.find(key).is_some() {
            let after = within.unwrap_or(self.call.origins[0].options.linger_timeout);
            self.watch_after(index, Watch::DatagramClose, after);
        }
    }

    /// The time of a close is over: what has not left is lost.
    pub(super) fn end_datagrams(&mut self, index: usize) {
        let reason = self.take_reason(index).unwrap_or(CloseReason::Finished);
        self.end(index, reason);
    }

    /// The socket goes.
    pub(super) fn forget_socket(&mut self, index: usize) {
        self.call.datagrams.remove(&(index as u32));
    }

    /// What others are sent by an actor that ends at once leaves as far as the socket takes it now.
    pub(super) fn flush_last(&mut self, index: usize, reason: &CloseReason) {
        if !matches!(reason, CloseReason::Aborted) && !self.slots[index].flags.has(Flags::BLOCKED) {
            self.send_out(index, usize::MAX);
            self.send_to_refusing(index);
        }
        let known = self.call.datagrams.get_mut(&(index as u32));
        let lost = known.map_or(0, |known| {
            let refused = std::mem::take(&mut known.refusing).len();
            std::mem::take(&mut known.outbox).len() + refused
        });
        let counters = &self.call.registry.door.counters.datagrams;
        Counters::add(&counters.dropped, lost as u64);
    }
}

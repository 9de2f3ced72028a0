//! One thread's loop.
//!
//! A turn: wait for readiness -> readable and writable connections -> accepts -> due timers ->
//! calls that are owed -> a bounded batch of messages -> write out what all that produced -> tell
//! the inboxes who has ended -> sleep, or go on at once if anything is left. Every step is bounded,
//! so that nobody starves anybody.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::acceptor::Acceptor;
use crate::command::Command;
use crate::handle::Shared;
use crate::hosts::Hosts;
use crate::inbox::AnyInbox;
use crate::origin::Origin;
use crate::registry::{Counters, Registry};
use crate::sys::{Events, Selector, WakeFd, clock};

/// Readiness reports taken in one turn. Enough that a busy poller pays one wait for many
/// connections; more come in the next turn.
const EVENTS_PER_TURN: usize = 1024;

/// Messages delivered in one turn for one actor type. Some ten microseconds of cheap messages:
/// enough to make the turn's other costs small, short enough for the connections that wait.
const MESSAGES_PER_TURN: usize = 1024;

/// Timers fired in one turn, for the same reason: 100,000 timers that are due together must not
/// stop the poller.
const TIMERS_PER_TURN: usize = 1024;

/// Calls owed without an event (resumed reading, `drained`, `stopping`) that are made in one turn.
const OWED_PER_TURN: usize = 1024;

/// Commands carried out in one turn: mostly connections handed over by an acceptor, so as many as
/// that accepts.
const COMMANDS_PER_TURN: usize = 256;

/// Looks at the mailboxes between two at the selector and the clock, while a poller spins: about a
/// microsecond. A look at a mailbox is a load, one at the selector a system call.
const LOOKS_PER_SPIN: usize = 64;

/// The token of the waker. No actor's: `Presence` has no place for index `u32::MAX`.
const WAKER: u64 = u64::MAX;

pub(crate) struct Poller {
    pub(crate) hosts: Hosts,
    inboxes: Vec<Box<dyn AnyInbox>>,
    acceptor: Acceptor,
    events: Events,
    pub(crate) registry: Arc<Registry>,
    shared: Arc<Shared>,
    /// How long it spins before it sleeps, see [`Builder::busy_poll`](crate::Builder::busy_poll).
    busy_poll: Duration,
    /// There may be work left that nobody will tell of.
    more: bool,
    /// Its mailboxes wake it.
    is_armed: bool,
    has_ended: bool,
}

/// Closes a poller's mailboxes however its thread ends, so that nobody waits for it in vain.
impl Drop for Poller {
    fn drop(&mut self) {
        self.end();
    }
}

impl Poller {
    /// Ends all that is on it, and takes nothing in any more.
    pub(crate) fn end(&mut self) {
        let mut nobody = Vec::new();
        self.registry.commands.close(&mut nobody);
        while let Some(command) = self.registry.commands.pop() {
            match command {
                Command::Run(run) => {
                    Counters::add(&self.registry.door.counters.dead_letters, 1);
                    self.hosts.drop_guarded(run);
                }
                command => self.carry_out(command),
            }
        }
        self.acceptor.close_all(&mut self.hosts);
        self.hosts.end_all();
        self.forget_ended();
        for inbox in &mut self.inboxes {
            inbox.close(&mut self.hosts);
        }
        self.registry.forget_posts();
        let origins = std::mem::take(&mut self.hosts.call.origins);
        self.hosts.drop_guarded(origins);
        while let Some(value) = self.hosts.call.values.pop() {
            self.hosts.drop_guarded(value);
        }
        if !std::mem::replace(&mut self.has_ended, true) {
            self.shared.poller_has_ended();
        }
    }
}

impl Poller {
    /// What wakes the poller that waits in `selector`.
    pub(crate) fn waker(selector: &mut Selector) -> io::Result<WakeFd> {
        selector.waker(WAKER)
    }

    pub(crate) fn new(
        selector: Selector,
        registry: Arc<Registry>,
        shared: Arc<Shared>,
        spawned: Arc<Origin>,
        busy_poll: Duration,
    ) -> Poller {
        Poller {
            hosts: Hosts::new(selector, registry.clone(), shared.clone(), spawned),
            inboxes: Vec::new(),
            acceptor: Acceptor::default(),
            events: Events::with_capacity(EVENTS_PER_TURN),
            registry,
            shared,
            busy_poll,
            more: false,
            is_armed: false,
            has_ended: false,
        }
    }

    /// Runs until the system has stopped.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        loop {
            if !self.spin()? {
                let timeout = self.fall_asleep();
                self.get_up(timeout)?;
            }
            if self.turn(|| ()) {
                return Ok(());
            }
        }
    }

    /// All that there is to do between two waits; whether the system has stopped. `between` is
    /// called where another thread may come in between: at any time, but here a simulation does.
    pub(crate) fn turn(&mut self, mut between: impl FnMut()) -> bool {
        self.handle_events();
        between();
        self.fire_timers();
        self.hosts.pay(OWED_PER_TURN);
        between();
        self.more = self.take_commands();
        between();
        // Looked at before the messages: what the last connections sent in `closed` is among them,
        // and so are the answers of the last work. A turn that delivers some is followed by another,
        // which sees what they offloaded.
        let alone = self.shared.is_empty();
        between();
        self.more |= self.deliver_messages();
        self.hosts.flush_dirty();
        between();
        self.forget_ended();
        self.has_stopped(alone && !self.more)
    }

    /// Prepares to wait; for how long at most: until the next deadline, or not at all while there
    /// is work left.
    ///
    /// A poller that is about to sleep arms its mailboxes and looks into each once more: a message
    /// that was sent before is seen here, one that is sent later wakes. See
    /// [`mailbox`](crate::mailbox).
    #[inline]
    pub(crate) fn fall_asleep(&mut self) -> Option<Duration> {
        // The time of the last turn is over; whoever wants to know reads it anew.
        self.hosts.call.now = None;
        let timeout = self.until_work();
        if timeout != Some(Duration::ZERO) {
            self.is_armed = true;
            if !self.arm() {
                return Some(Duration::ZERO);
            }
        }
        timeout
    }

    /// Waits for readiness, for `timeout` at most.
    #[inline]
    pub(crate) fn get_up(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let waited = self.hosts.selector.wait(&mut self.events, timeout);
        if std::mem::take(&mut self.is_armed) {
            self.disarm();
        }
        waited
    }

    /// How long nothing will be to do unless somebody tells.
    #[inline]
    fn until_work(&mut self) -> Option<Duration> {
        if self.more || self.hosts.owes() {
            return Some(Duration::ZERO);
        }
        self.until_deadline()
    }

    /// Looks for work again and again, if it is to do so before it sleeps, no longer than until the
    /// next deadline; whether there is some. The events are then those of the last look at the
    /// selector.
    ///
    /// No part of the sleep: nothing is armed, so senders wake nobody, and what is missed here is
    /// seen by the look before the sleep.
    fn spin(&mut self) -> io::Result<bool> {
        if self.busy_poll.is_zero() {
            return Ok(false);
        }
        self.hosts.call.now = None;
        let limit = match self.until_work() {
            Some(Duration::ZERO) => return Ok(false),
            Some(timeout) => timeout.min(self.busy_poll),
            None => self.busy_poll,
        };
        let start = clock::now();
        loop {
            for _ in 0..LOOKS_PER_SPIN {
                if self.has_mail() {
                    self.events.clear();
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            let at_once = Some(Duration::ZERO);
            self.hosts.selector.wait(&mut self.events, at_once)?;
            if self.events.len() > 0 {
                return Ok(true);
            }
            if clock::now().saturating_duration_since(start) >= limit {
                return Ok(false);
            }
        }
    }

    /// Whether a mailbox has something in it.
    pub(crate) fn has_mail(&self) -> bool {
        self.registry.commands.has_work() || self.inboxes.iter().any(|inbox| inbox.has_work())
    }

    /// Zero only if a deadline has come; it is the wait's business to round up to what the selector
    /// can express.
    fn until_deadline(&mut self) -> Option<Duration> {
        let deadline = self.next_deadline()?;
        Some(deadline.saturating_duration_since(clock::now()))
    }

    /// When there is something to do though nobody tells.
    #[inline]
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        let deadlines = [
            self.hosts.call.timers.next_deadline(),
            self.acceptor.next_deadline(),
            self.hosts.next_silence(),
            self.hosts.stop,
        ];
        deadlines.into_iter().flatten().min()
    }

    fn arm(&self) -> bool {
        self.registry.door.waker.fall_asleep();
        self.registry.commands.arm() && self.inboxes.iter().all(|inbox| inbox.arm())
    }

    fn disarm(&self) {
        self.registry.door.waker.get_up();
        self.registry.commands.disarm();
        for inbox in &self.inboxes {
            inbox.disarm();
        }
    }

    /// Whether a wait would end at once; `false` where nobody may ask, see
    /// [`Selector::is_ready`].
    pub(crate) fn is_ready(&self) -> bool {
        self.hosts.selector.is_ready()
    }

    fn handle_events(&mut self) {
        for at in 0..self.events.len() {
            let event = self.events.get(at);
            if event.token() == WAKER {
                continue;
            }
            match Acceptor::listener_of(event.token()) {
                Some(listener) => self.acceptor.accept(listener, &mut self.hosts),
                None => {
                    self.hosts
                        .handle_ready(event.token(), event.is_readable(), event.is_writable())
                }
            }
        }
    }

    fn fire_timers(&mut self) {
        self.hosts.forget_spoken();
        let timers = &mut self.hosts.call.timers;
        if timers.next_deadline().is_none()
            && self.hosts.next_silence().is_none()
            && self.acceptor.next_deadline().is_none()
        {
            return;
        }
        let now = self.hosts.call.now();
        self.hosts.call.timers.begin_turn(now);
        for _ in 0..TIMERS_PER_TURN {
            let Some(due) = self.hosts.call.timers.pop_due() else {
                break;
            };
            self.hosts.timer(due);
        }
        self.hosts.end_silent(now, TIMERS_PER_TURN);
        self.acceptor.rearm_due(now, &mut self.hosts);
    }

    /// Whether there may be more.
    #[inline(always)]
    fn take_commands(&mut self) -> bool {
        let (mut taken, mut places) = (0, 0);
        while taken < COMMANDS_PER_TURN {
            let Some(command) = self.registry.commands.pop() else {
                break;
            };
            taken += 1;
            places += usize::from(matches!(command, Command::Run(_)));
            self.carry_out(command);
        }
        if places > 0 {
            self.registry.commands.release(places, &mut Vec::new());
        }
        taken == COMMANDS_PER_TURN
    }

    /// Not a part of each turn's code, in which there is seldom one.
    #[inline(never)]
    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Inbox(inbox) => self.inboxes.push(inbox),
            Command::Adopt {
                origin,
                socket,
                peer,
                ticket,
            } => {
                self.hosts.arriving = ticket;
                self.hosts.adopt(&origin, socket, peer);
            }
            Command::Listen { socket, opened } => {
                self.acceptor.listen(socket, opened, &mut self.hosts)
            }
            Command::Rearm => self.acceptor.rearm(&mut self.hosts),
            Command::Look(origin) => self.acceptor.look(&origin, &mut self.hosts),
            Command::Found { key, found } => self.hosts.found(key, found),
            Command::Unlisten(origin) => self.acceptor.close(&origin, &mut self.hosts),
            Command::Lend { origin, to } => self.acceptor.lend(&origin, &to),
            Command::Release { origin, to } => self.acceptor.release(&origin, &to, &mut self.hosts),
            Command::Stop(deadline) => {
                if self.hosts.stop.is_none() {
                    self.acceptor.close_all(&mut self.hosts);
                    self.shared.has_closed_listeners();
                    // Nobody connects any more. A lookup that hangs is left to itself.
                    drop(self.shared.resolvers.close());
                }
                self.hosts.begin_stop(deadline);
            }
            Command::Run(run) => self.hosts.run(run),
            Command::LastSocket => {}
        }
    }

    /// Whether there may be more.
    fn deliver_messages(&mut self) -> bool {
        while let Some(key) = self.hosts.let_in.pop() {
            for inbox in &mut self.inboxes {
                inbox.let_in(key);
            }
        }
        let mut more = false;
        for inbox in &mut self.inboxes {
            more |= inbox.drain(&mut self.hosts, MESSAGES_PER_TURN);
        }
        more
    }

    fn forget_ended(&mut self) {
        while let Some((key, reason)) = self.hosts.ended.pop() {
            for inbox in &mut self.inboxes {
                inbox.forget(key, reason, &mut self.hosts);
            }
        }
        self.hosts.count_freed();
    }

    /// While the system stops: whether everybody has had the time they were given, or needs none.
    fn has_stopped(&self, done: bool) -> bool {
        let Some(deadline) = self.hosts.stop else {
            return false;
        };
        done && !self.hosts.owes() || past(deadline)
    }
}

fn past(deadline: Instant) -> bool {
    clock::now() >= deadline
}

//! The desk that a poller's callbacks are handed: what the actor at work may see, and what it asked
//! for, before the poller carries it out. [`Context`] is its public face.

mod marks;

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slotmap::SlotMap;

use crate::actor::{Actor, CloseReason, Outcome};
use crate::adopt::{AdoptOptions, Adoptable, Detached, Readiness};
use crate::ask::{AskKey, Asked};
use crate::connect::Target;
use crate::context::Context;
use crate::datagram::{Binding, Datagram, DatagramFailure, Datagrams};
use crate::flags::Flags;
use crate::gone::Monitors;
use crate::handle::Shared;
use crate::input::Input;
use crate::local::Locals;
use crate::origin::{ConnectionOptions, Origin, SlowReader};
use crate::output::{Mark, Staged};
use crate::registry::{ActorKey, Counters, Registry};
use crate::sys::{Endpoint, Interest, Peer, Socket, SocketOption, clock};
use crate::timers::{TimerKey, Timers, deadline_after};
use crate::tls::Session;
use crate::watch::Watch;

pub(crate) use marks::Noted;

type HashMap<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

/// What an actor asked for in one callback. Each bit one request, listed in the order of the bits: two
/// that shared one would be taken for each other.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wants(u32);

impl Wants {
    pub(crate) const CLOSE: u32 = 1;
    pub(crate) const ABORT: u32 = 1 << 1;
    pub(crate) const SHUTDOWN_WRITE: u32 = 1 << 2;
    pub(crate) const PAUSE: u32 = 1 << 3;
    pub(crate) const RESUME: u32 = 1 << 4;
    pub(crate) const WAIT: u32 = 1 << 5;
    pub(crate) const LOCAL_ADDR: u32 = 1 << 6;
    /// More was written than the byte budget allows.
    pub(crate) const OVERFLOW: u32 = 1 << 7;
    /// A write was dropped whole.
    pub(crate) const DROPPED: u32 = 1 << 8;
    /// The mailbox that it waits for is its own.
    pub(crate) const WAIT_HERE: u32 = 1 << 9;
    /// Options of the socket are to be set.
    pub(crate) const OPTIONS: u32 = 1 << 10;
    /// It said more of its output than bytes.
    pub(crate) const MARKS: u32 = 1 << 11;
    /// Its socket is to be taken out.
    pub(crate) const DETACH: u32 = 1 << 12;
    /// It has given a descriptor to a new actor.
    pub(crate) const ADOPT: u32 = 1 << 13;
    /// Its watched descriptor is to be asked for other directions.
    pub(crate) const INTEREST: u32 = 1 << 14;
    /// An actor that was made anew takes the messages that were set aside meanwhile, unless it asks
    /// to [wait](Wants::WAIT) itself.
    pub(crate) const GO_ON: u32 = 1 << 15;
    /// With [`Wants::CLOSE`]: it is the peer that closes, in the way of a protocol.
    pub(crate) const PEER_CLOSED: u32 = 1 << 16;
    /// In a farewell: the peer is to shut down its writing side first.
    pub(crate) const PATIENT: u32 = 1 << 17;

    /// Datagrams are to be sent, or options of their socket to be set.
    pub(crate) const DATAGRAMS: u32 = 1 << 20;
    /// ... the latter.
    pub(crate) const DATAGRAM_OPTIONS: u32 = 1 << 21;

    /// After one of these an actor is shown no more input.
    pub(crate) const STOPS_INPUT: u32 = Wants::ENDS | Wants::PAUSE | Wants::WAIT;
    /// These bring the actor's end.
    pub(crate) const ENDS: u32 = Wants::CLOSE | Wants::ABORT | Wants::OVERFLOW | Wants::DETACH;

    pub(crate) fn set(&mut self, bit: u32) {
        self.0 |= bit;
    }

    pub(crate) fn clear(&mut self, bit: u32) {
        self.0 &= !bit;
    }

    #[inline]
    pub(crate) fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether there is nothing but `bits`, or nothing.
    pub(crate) fn is_only(self, bits: u32) -> bool {
        self.0 & !bits == 0
    }
}

/// What a timer is for.
#[derive(Clone)]
pub(crate) enum TimerFor {
    /// The actor set it.
    Actor,
    /// The connection is to be looked at: see [`Watch`].
    Watch(Watch),
    /// A question of the actor has not been answered.
    Ask(Asked),
}

/// A descriptor that an actor gave to a new one.
pub(crate) struct Adopting {
    pub(crate) key: ActorKey,
    pub(crate) actor: Box<dyn Hosted>,
    pub(crate) socket: Adoptable,
    pub(crate) for_what: AdoptFor,
}

/// What a descriptor is given to a new actor for.
pub(crate) enum AdoptFor {
    Stream(Box<AdoptOptions>),
    Watching(Interest),
}

/// An actor that a callback has started, and what it is to be connected to, if to anything.
pub(crate) struct Spawned {
    pub(crate) key: ActorKey,
    pub(crate) actor: Box<dyn Hosted>,
    pub(crate) target: Option<Box<Target>>,
}

impl Spawned {
    /// One that has no socket.
    pub(crate) fn here(key: ActorKey, actor: Box<dyn Hosted>) -> Spawned {
        let target = None;
        Spawned { key, actor, target }
    }
}

/// The desk that all callbacks of one poller are handed in turn: what the actor at work may see,
/// and what it asked for.
pub(crate) struct Call {
    pub(crate) key: ActorKey,
    /// A copy of what is known of the actor at work; see [`Flags`].
    pub(crate) flags: Flags,
    /// Which of `origins` the actor came from.
    pub(crate) origin: u16,
    /// IPv4 address and port of the peer; all zero, which no peer has, where it is another.
    pub(crate) peer: [u8; 6],
    /// What earlier callbacks wrote and still waits, as it counts against the budget.
    pub(crate) queued: usize,
    /// Bytes of this callback that were not stored because they passed the budget.
    pub(crate) over: usize,
    pub(crate) wants: Wants,
    pub(crate) staged: Staged,
    /// What stands around a frame that is being written: see `context/framing.rs`.
    pub(crate) around: Vec<u8>,
    /// Where a codec puts what it decodes, see [`Codec`](crate::protocol::Codec).
    pub(crate) decoded: Vec<u8>,
    /// How long its close may take to flush.
    pub(crate) close_within: Option<Duration>,
    /// Options of its socket to be set.
    pub(crate) socket_options: Vec<SocketOption>,
    /// What was said of it beside, in order.
    pub(crate) marks: Vec<Mark>,
    pub(crate) noted: Noted,
    /// How many of them are pieces that are told apart.
    pub(crate) pieces: usize,
    /// How many adapters stand around the actor at work.
    pub(crate) nested: u32,
    /// Where the bytes lie that are being shown, as addresses: compared with and never followed.
    /// Empty where they are not in the poller's read buffer.
    pub(crate) shown: Range<usize>,
    /// The time of this turn, once somebody has asked for it.
    pub(crate) now: Option<Instant>,
    pub(crate) timers: Timers<TimerFor>,
    /// Questions without an answer, and the timers of their timeouts.
    pub(crate) asking: SlotMap<AskKey, Option<TimerKey>>,
    /// With [`Wants::ADOPT`], or in `closed`.
    pub(crate) adopting: Vec<Adopting>,
    /// Those that are watched, by slot.
    pub(crate) descriptors: HashMap<u32, Socket>,
    /// With [`Wants::INTEREST`]: the directions.
    pub(crate) interest: Interest,
    /// With [`Wants::DETACH`]: what the socket goes to.
    pub(crate) detach: Option<Box<dyn FnOnce(Detached)>>,
    pub(crate) spawned: Vec<Spawned>,
    pub(crate) origins: Vec<Arc<Origin>>,
    /// Peers whose address does not fit into six bytes (IPv6), by slot.
    pub(crate) peers: HashMap<u32, Peer>,
    /// Our side's addresses that had to be asked for, by slot.
    pub(crate) locals: HashMap<u32, Endpoint>,
    /// What is kept of datagram sockets, by slot.
    pub(crate) datagrams: HashMap<u32, Datagrams>,
    /// TLS of the connections that have it, by slot.
    pub(crate) sessions: HashMap<u32, Box<Session>>,
    /// Datagram sockets to be bound.
    pub(crate) bindings: VecDeque<Binding>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) shared: Arc<Shared>,
    /// What the actors of this poller share.
    pub(crate) values: Locals,
    /// Whose end the actors of this poller want to be told of.
    pub(crate) monitors: Monitors,
}

impl Call {
    /// Whether the callback, if it returned `Ok`, left nothing to be carried out.
    pub(crate) fn is_quiet(&self) -> bool {
        self.wants.is_empty() && self.staged.is_empty() && self.spawned.is_empty()
    }

    /// What nobody will carry out, because the actor ends at once.
    pub(crate) fn drop_requests(&mut self) {
        self.close_within = None;
        self.socket_options.clear();
    }

    /// `spawned` is where actors without a socket are said to come from.
    pub(crate) fn new(registry: Arc<Registry>, shared: Arc<Shared>, spawned: Arc<Origin>) -> Call {
        Call {
            key: ActorKey::default(),
            flags: Flags::default(),
            origin: 0,
            peer: [0; 6],
            queued: 0,
            over: 0,
            wants: Wants::default(),
            staged: Staged::default(),
            around: Vec::new(),
            decoded: Vec::new(),
            close_within: None,
            socket_options: Vec::new(),
            marks: Vec::new(),
            pieces: 0,
            noted: Noted::default(),
            nested: 0,
            shown: 0..0,
            now: None,
            timers: Timers::new(clock::now()),
            asking: SlotMap::with_key(),
            spawned: Vec::new(),
            adopting: Vec::new(),
            descriptors: HashMap::default(),
            interest: Interest::NONE,
            detach: None,
            origins: vec![spawned],
            peers: HashMap::default(),
            locals: HashMap::default(),
            datagrams: HashMap::default(),
            sessions: HashMap::default(),
            bindings: VecDeque::new(),
            registry,
            shared,
            values: Locals::default(),
            monitors: Monitors::default(),
        }
    }

    /// The descriptor that is watched for the actor in this slot.
    pub(crate) fn descriptor(&self, index: usize) -> Option<&Socket> {
        self.descriptors.get(&(index as u32))
    }

    /// Whether a callback has returned well and started nobody.
    pub(crate) fn has_gone_well<E>(&self, called: &Result<Outcome, E>) -> bool {
        self.spawned.is_empty() && matches!(called, Ok(Ok(())))
    }

    #[inline]
    pub(crate) fn options(&self) -> &ConnectionOptions {
        &self.origins[usize::from(self.origin)].options
    }

    pub(crate) fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(clock::now)
    }

    /// `after` from this very moment: the turn may have begun long ago. Or so far ahead that it
    /// never comes where the clock cannot tell it.
    pub(crate) fn deadline(&mut self, after: Duration) -> Instant {
        deadline_after(clock::now(), after)
    }

    /// An answer has come: its timeout is not needed any more.
    pub(crate) fn answered(&mut self, owner: ActorKey, ask: AskKey) {
        if let Some(Some(timer)) = self.asking.remove(ask) {
            self.timers.cancel(timer, owner.index());
        }
    }

    pub(crate) fn set_timer(&mut self, deadline: Instant, period: Option<Duration>) -> TimerKey {
        self.timers
            .set(self.key.index(), deadline, period, TimerFor::Actor)
    }

    pub(crate) fn peer(&self) -> Option<Peer> {
        if !self.flags.has(Flags::CONNECTION) {
            return None;
        }
        if self.peer != [0; 6] {
            let [a, b, c, d, high, low] = self.peer;
            return Some(Peer::Tcp(
                (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into(),
            ));
        }
        Some(
            self.peers
                .get(&self.key.index())
                .copied()
                .unwrap_or(Peer::Unix),
        )
    }

    pub(crate) fn local(&self) -> Option<Endpoint> {
        if !self.flags.has(Flags::CONNECTION) {
            return None;
        }
        match &self.origins[usize::from(self.origin)].local {
            Endpoint::Tcp(addr) if addr.ip().is_unspecified() => {
                self.locals.get(&self.key.index()).cloned()
            }
            local => Some(local.clone()),
        }
    }

    /// Which part of the read buffer these bytes are, if they are one that need not be copied.
    #[inline]
    pub(crate) fn place_in_input(&self, bytes: &[u8]) -> Option<Range<usize>> {
        if !self.staged.takes_shown(bytes.len()) {
            return None;
        }
        let start = bytes.as_ptr().addr().checked_sub(self.shown.start)?;
        let end = start + bytes.len();
        (end <= self.shown.len()).then_some(start..end)
    }

    /// Stages `len` bytes if the connection's budget allows; `false` when they were dropped.
    #[inline]
    pub(crate) fn stage(&mut self, len: usize, push: impl FnOnce(&mut Staged)) -> bool {
        if !self.flags.has(Flags::SOCKET) || self.flags.has(Flags::WRITE_SHUT | Flags::SPECIAL) {
            return self.stage_elsewhere(push);
        }
        if self.queued + self.staged.len() + self.over + len <= self.options().free_max {
            push(&mut self.staged);
            return true;
        }
        self.stage_apart(len, push)
    }

    /// There is no stream that could be written to.
    #[cold]
    fn stage_elsewhere(&mut self, push: impl FnOnce(&mut Staged)) -> bool {
        assert!(
            self.flags.has(Flags::SOCKET),
            "write: this actor has no socket"
        );
        assert!(
            !self.flags.has(Flags::WRITE_SHUT),
            "write: this connection's writing side was shut down"
        );
        let mut staged = Staged::default();
        push(&mut staged);
        let parts: Vec<&[u8]> = staged.parts(&[]).collect();
        self.write_datagram(&parts.concat())
    }

    #[cold]
    fn over_budget(&mut self, len: usize) -> bool {
        let policy = self.options().slow_reader;
        if matches!(policy, SlowReader::DropNewest | SlowReader::DropOldest) {
            Counters::add(&self.registry.door.counters.dropped_writes, 1);
            self.wants.set(Wants::DROPPED);
            return false;
        }
        // The connection ends after this callback: nothing more is stored for it.
        self.wants.set(Wants::OVERFLOW);
        self.over += len;
        true
    }
}

/// An actor as its poller sees it: without its type.
pub(crate) trait Hosted: Any {
    fn opened(&mut self, call: &mut Call) -> Outcome;
    fn readable(&mut self, input: &mut Input<'_>, call: &mut Call) -> Outcome;
    fn read_closed(&mut self, call: &mut Call) -> Outcome;
    fn timer(&mut self, key: TimerKey, call: &mut Call) -> Outcome;
    fn drained(&mut self, call: &mut Call) -> Outcome;
    fn written(&mut self, token: u64, call: &mut Call) -> Outcome;
    fn ready(&mut self, ready: Readiness, call: &mut Call) -> Outcome;
    fn room(&mut self, call: &mut Call) -> Outcome;
    fn option_failed(&mut self, option: SocketOption, error: io::Error, call: &mut Call)
    -> Outcome;
    fn datagram(&mut self, datagram: Datagram<'_>, call: &mut Call) -> Outcome;
    fn datagram_failed(&mut self, failure: DatagramFailure, call: &mut Call) -> Outcome;
    fn stopping(&mut self, deadline: Instant, call: &mut Call) -> Outcome;
    fn closing(&mut self, reason: &CloseReason, call: &mut Call);
    fn closed(&mut self, reason: &CloseReason, call: &mut Call);
    fn revive(&mut self, reason: &CloseReason, call: &mut Call) -> bool;
    fn type_name(&self) -> &'static str;
}

impl<A: Actor> Hosted for A {
    fn opened(&mut self, call: &mut Call) -> Outcome {
        Actor::opened(self, &mut Context::new(call))
    }

    fn readable(&mut self, input: &mut Input<'_>, call: &mut Call) -> Outcome {
        Actor::readable(self, input, &mut Context::new(call))
    }

    fn read_closed(&mut self, call: &mut Call) -> Outcome {
        Actor::read_closed(self, &mut Context::new(call))
    }

    fn timer(&mut self, key: TimerKey, call: &mut Call) -> Outcome {
        Actor::timer(self, key, &mut Context::new(call))
    }

    fn drained(&mut self, call: &mut Call) -> Outcome {
        Actor::drained(self, &mut Context::new(call))
    }

    fn written(&mut self, token: u64, call: &mut Call) -> Outcome {
        Actor::written(self, token, &mut Context::new(call))
    }

    fn ready(&mut self, ready: Readiness, call: &mut Call) -> Outcome {
        Actor::ready(self, ready, &mut Context::new(call))
    }

    fn room(&mut self, call: &mut Call) -> Outcome {
        Actor::room(self, &mut Context::new(call))
    }

    fn option_failed(
        &mut self,
        option: SocketOption,
        error: io::Error,
        call: &mut Call,
    ) -> Outcome {
        Actor::option_failed(self, option, error, &mut Context::new(call))
    }

    fn datagram(&mut self, datagram: Datagram<'_>, call: &mut Call) -> Outcome {
        Actor::datagram(self, datagram, &mut Context::new(call))
    }

    fn datagram_failed(&mut self, failure: DatagramFailure, call: &mut Call) -> Outcome {
        Actor::datagram_failed(self, failure, &mut Context::new(call))
    }

    fn stopping(&mut self, deadline: Instant, call: &mut Call) -> Outcome {
        Actor::stopping(self, deadline, &mut Context::new(call))
    }

    fn closing(&mut self, reason: &CloseReason, call: &mut Call) {
        Actor::closing(self, reason, &mut Context::new(call));
    }

    fn closed(&mut self, reason: &CloseReason, call: &mut Call) {
        Actor::closed(self, reason, &mut Context::new(call));
    }

    fn revive(&mut self, reason: &CloseReason, call: &mut Call) -> bool {
        Actor::revive(self, reason, &mut Context::new(call))
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<A>()
    }
}

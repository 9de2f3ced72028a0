//! What happens in a run, as its actors and clients see it: what the checkers look at.
//!
//! Of the thread, as the simulation is: factories and messages have to be `Send`, so nothing can be
//! handed to them that all share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use greenroom::testing::Random;
use greenroom::{CloseReason, Recipient, Stats, TimerKey};

use crate::people::{Hub, Mail};

/// An actor, by the number that it gets when it is made. 0 is the test itself.
pub type Id = usize;

/// The test, as a sender.
pub const TEST: Id = 0;

/// The types of actors, of which each has a mailbox on each poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Connection,
    Kid,
    Hub,
    /// A client that is an actor.
    Visitor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    Opened,
    Readable,
    ReadClosed,
    Message,
    Timer,
    Drained,
    Room,
    Stopping,
    Closed,
}

/// What a send was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    Full,
    Gone,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A factory makes an actor; `listener` says which, if it was a listener's. `poller` is where
    /// it was asked for.
    Made {
        id: Id,
        kind: Kind,
        listener: Option<usize>,
        poller: Option<usize>,
    },
    Enters {
        id: Id,
        callback: Callback,
        poller: usize,
    },
    /// ... also by a panic.
    Leaves {
        id: Id,
    },
    /// A panic, in a callback of this actor or in nobody's: a factory, a destructor.
    Panics {
        id: Option<Id>,
    },
    Closed {
        id: Id,
        reason: &'static str,
        text: String,
    },
    /// The actor is dropped.
    Dropped {
        id: Id,
    },
    /// A letter is sent, to an actor of this kind on this poller.
    Sent {
        letter: u64,
        from: Id,
        to: Id,
        place: (Kind, usize),
        answer: Answer,
    },
    /// ... is in the hands of `at`.
    Delivered {
        letter: u64,
        from: Id,
        to: Id,
        at: Id,
    },
    /// ... is dropped, by whoever had it.
    LetterDropped {
        letter: u64,
    },
    /// The right to answer a question was used.
    Asked {
        question: u64,
        by: Id,
    },
    Answered {
        question: u64,
        at: Id,
    },
    /// A hub pushes a line to these.
    Pushed {
        hub: Id,
        line: u64,
        refused: bool,
        members: Vec<Id>,
    },
    /// ... and what had been refused has gone through.
    PushedAgain {
        hub: Id,
        line: u64,
    },
    Line {
        hub: Id,
        line: u64,
        at: Id,
    },
    /// Somebody is in the hub's room from here on.
    Joined {
        hub: Id,
        member: Id,
    },
    /// A notice that a member has ended.
    Left {
        hub: Id,
        known: bool,
    },
    Waits {
        id: Id,
        place: (Kind, usize),
    },
    TimerSet {
        id: Id,
        key: TimerKey,
        due: Duration,
        repeats: bool,
    },
    TimerCancelled {
        id: Id,
        key: TimerKey,
    },
    TimerFired {
        id: Id,
        key: TimerKey,
    },
    /// The actor asked for its end.
    Wants {
        id: Id,
        end: End,
    },
    /// A blocking ask inside a callback came back instead of panicking.
    BlockedInCallback {
        id: Id,
    },
    /// A write in `closed` was taken.
    WroteInClosed {
        id: Id,
    },
    /// At rest these letters went to one poller, to several types of actors, and this many writes
    /// woke it.
    Woken {
        poller: usize,
        letters: Vec<u64>,
        wakes: u64,
    },
    /// ... and it has had the time to take them.
    WokenBefore,
    /// A letter went to the sender's own poller, and so many writes woke that.
    SentHere {
        poller: usize,
        wakes: u64,
    },
    /// At rest, of a connection that is still there and whose client reads.
    StreamAtRest {
        id: Id,
        written: usize,
        received: usize,
    },
    /// The listener is closed, or all are because the system stops.
    ListenerCloses {
        listener: usize,
    },
    /// From here on nothing goes wrong and nobody does anything of his own accord.
    Quiet,
    /// All have had the time to come to rest.
    AtRest,
    /// A look at what is kept for connections: so many buffers have nothing in them.
    Kept {
        buffers: usize,
    },
    Stop {
        deadline: Duration,
    },
    /// All pollers have ended.
    Ended,
    /// A client that came later was not turned away.
    ServedAfterStop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Close,
    Abort,
    Error,
}

/// The bytes of one connection as its actor sees them.
#[derive(Default)]
pub struct Stream {
    pub listener: usize,
    /// The client's number, which are the first bytes that it sends.
    pub client: Option<usize>,
    pub written: Vec<u8>,
    /// What was consumed.
    pub input: Vec<u8>,
    /// What was shown at last and not consumed.
    pub kept: usize,
    pub shown_max: usize,
    pub queued_max: usize,
    /// What may be kept of its input.
    pub input_max: usize,
    /// More was left than that, and it neither pauses nor waits: no callback but the last follows.
    pub is_over: bool,
    /// ... but another did.
    pub went_on: bool,
    /// What was kept was shown for the last time.
    pub has_seen_end: bool,
    /// The peer's half-close was told.
    pub is_ended: bool,
    /// A write was dropped whole, or not stored because the budget was passed.
    pub is_cut: bool,
}

impl Stream {
    pub fn is_over(&self) -> bool {
        self.kept > self.input_max
    }
}

/// What a checker needs to know of a client.
#[derive(Clone, Debug, Default)]
pub struct ClientReport {
    pub number: usize,
    pub listener: usize,
    pub sent: Vec<u8>,
    pub received: Vec<u8>,
    pub is_connected: bool,
    pub is_closed: bool,
    pub was_reset: bool,
    /// It reset the connection itself, or is one that something may befall.
    pub is_unlucky: bool,
    /// All it had to send has been sent, and then the end.
    pub half_closed: bool,
    /// It reads whatever comes.
    pub reads: bool,
    /// It had a connection when all had come to rest.
    pub was_open_at_rest: bool,
}

/// Where an actor is to be reached.
#[derive(Clone)]
pub struct Contact {
    pub id: Id,
    pub kind: Kind,
    pub to: Recipient<Mail>,
}

thread_local! {
    static EVENTS: RefCell<Vec<(Duration, Event)>> = const { RefCell::new(Vec::new()) };
    static STREAMS: RefCell<HashMap<Id, Stream>> = RefCell::default();
    static VISITS: RefCell<BTreeMap<usize, ClientReport>> = const { RefCell::new(BTreeMap::new()) };
    static CONTACTS: RefCell<Vec<Contact>> = const { RefCell::new(Vec::new()) };
    static HUBS: RefCell<Vec<(Id, greenroom::Addr<Hub>)>> = const { RefCell::new(Vec::new()) };
    static RANDOM: RefCell<Random> = RefCell::new(Random::new(0));
    static BYTES: Vec<u8> = {
        let mut random = Random::new(7);
        (0..40_000).flat_map(|_| random.next().to_le_bytes()).collect()
    };
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
    static AT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static LAST: Cell<(Id, u64)> = const { Cell::new((0, 0)) };
    static DEEDS: Cell<u32> = const { Cell::new(0) };
    static IS_CALM: Cell<bool> = const { Cell::new(true) };
    static INPUT_MAX: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static HABITS: Cell<Habits> = const { Cell::new(Habits::NONE) };
}

/// What the actors of a run do, and how often: once in so many occasions, 0 for never.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    pub panic: u64,
    pub close: u64,
    pub abort: u64,
    pub fail: u64,
    pub shut: u64,
    pub spawn: u64,
    pub pause: u64,
    pub ask: u64,
    pub push: u64,
    pub letters: u64,
    pub timers: u64,
    pub writes: u64,
    /// A large write is so large.
    pub large: u64,
    /// Kids wait for the mailbox that is their own.
    pub couriers: bool,
}

impl Habits {
    pub const NONE: Habits = Habits {
        panic: 0,
        close: 0,
        abort: 0,
        fail: 0,
        shut: 0,
        spawn: 0,
        pause: 0,
        ask: 0,
        push: 0,
        letters: 0,
        timers: 0,
        writes: 0,
        large: 0,
        couriers: false,
    };
}

/// Begins a run with nothing known of the last one.
pub fn begin(seed: u64, start: Instant, habits: Habits, deeds: u32) {
    HABITS.set(Habits::NONE);
    // What is dropped here may write into the record: that of the run before.
    drop(CONTACTS.take());
    drop(HUBS.take());
    EVENTS.take();
    STREAMS.take();
    VISITS.take();
    RANDOM.set(Random::new(seed ^ 0x5EED));
    START.set(Some(start));
    AT.set(Duration::ZERO);
    LAST.set((0, 0));
    DEEDS.set(deeds);
    IS_CALM.set(false);
    HABITS.set(habits);
}

/// Lets go of the addresses: whoever wants to see that nothing is left over calls it first.
pub fn forget_contacts() {
    drop(CONTACTS.take());
    drop(HUBS.take());
}

pub fn log(event: Event) {
    // After the thread's end there is nobody to tell.
    let _ = EVENTS.try_with(|events| events.borrow_mut().push((AT.get(), event)));
}

/// What follows happens at this time.
pub fn at(now: Instant) {
    if let Some(start) = START.get() {
        AT.set(now.saturating_duration_since(start));
    }
}

pub fn elapsed() -> Duration {
    AT.get()
}

pub fn next_id() -> Id {
    let (id, letter) = LAST.get();
    LAST.set((id + 1, letter));
    id + 1
}

pub fn next_letter() -> u64 {
    let (id, letter) = LAST.get();
    LAST.set((id, letter + 1));
    letter + 1
}

pub fn habits() -> Habits {
    HABITS.get()
}

/// Whether somebody may still do something of his own accord; takes it off what is left.
pub fn may_act() -> bool {
    let left = DEEDS.get();
    DEEDS.set(left.saturating_sub(1));
    left > 0 && !is_calm()
}

/// From here on they have these habits, and the connections of each listener these limits.
pub fn adopt(habits: Habits, input_max: Vec<usize>) {
    HABITS.set(habits);
    INPUT_MAX.set(input_max);
}

pub fn input_max(listener: usize) -> usize {
    INPUT_MAX.with_borrow(|all| all.get(listener).copied().unwrap_or(usize::MAX))
}

/// Whether nobody does anything of his own accord any more.
pub fn is_calm() -> bool {
    IS_CALM.get()
}

/// So much more may be done: what keeps a run going, and bounds it.
pub fn allow(deeds: u32) {
    DEEDS.set(DEEDS.get() + deeds);
}

/// Nobody does anything of his own accord any more.
pub fn calm_down() {
    IS_CALM.set(true);
    HABITS.set(Habits::NONE);
}

pub fn below(n: u64) -> u64 {
    RANDOM.with_borrow_mut(|random| random.below(n))
}

/// `true` once in `n` times; never when it is 0.
pub fn one_in(n: u64) -> bool {
    n > 0 && below(n) == 0
}

/// A length: mostly short, now and then as long as can be.
pub fn length(max: u64) -> usize {
    let max = max.max(1);
    let bits = below(u64::from(64 - max.leading_zeros()) + 1);
    below((1 << bits).min(max) + 1) as usize
}

/// Some bytes that no other place has.
pub fn bytes(len: usize) -> Vec<u8> {
    BYTES.with(|all| {
        let from = below((all.len() - len.min(all.len() / 2)) as u64) as usize;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let rest = len - bytes.len();
            bytes.extend_from_slice(&all[from..][..rest.min(all.len() - from)]);
        }
        bytes
    })
}

pub fn stream<R>(id: Id, look: impl FnOnce(&mut Stream) -> R) -> R {
    STREAMS.with_borrow_mut(|streams| look(streams.entry(id).or_default()))
}

/// What is known of a client that is an actor.
pub fn visit<R>(number: usize, look: impl FnOnce(&mut ClientReport) -> R) -> R {
    VISITS.with_borrow_mut(|visits| {
        look(visits.entry(number).or_insert_with(|| ClientReport {
            number,
            reads: true,
            ..ClientReport::default()
        }))
    })
}

pub fn take_visits(foul: bool) -> Vec<ClientReport> {
    let mut visits: Vec<_> = VISITS.take().into_values().collect();
    for visit in &mut visits {
        visit.is_unlucky |= foul || !visit.is_closed;
    }
    visits
}

/// Of each connection what was written, and which client's it is.
pub fn streams() -> Vec<(Id, usize, Option<usize>)> {
    STREAMS.with_borrow(|streams| {
        let each = streams.iter();
        let mut all: Vec<_> = each
            .map(|(id, stream)| (*id, stream.written.len(), stream.client))
            .collect();
        all.sort_unstable();
        all
    })
}

pub fn meet(contact: Contact) {
    CONTACTS.with_borrow_mut(|contacts| contacts.push(contact));
}

pub fn meet_hub(id: Id, hub: greenroom::Addr<Hub>) {
    HUBS.with_borrow_mut(|hubs| hubs.push((id, hub)));
}

/// Somebody, there or gone, one of the last to come more often than not.
pub fn anybody() -> Option<Contact> {
    CONTACTS.with_borrow(|contacts| {
        let len = contacts.len() as u64;
        let back = below(if one_in(3) { len } else { len.min(8) });
        let place = len.checked_sub(back + 1)?;
        contacts.get(place as usize).cloned()
    })
}

pub fn contacts() -> Vec<Contact> {
    CONTACTS.with_borrow(Vec::clone)
}

pub fn any_hub() -> Option<(Id, greenroom::Addr<Hub>)> {
    HUBS.with_borrow(|hubs| hubs.get(below(hubs.len() as u64) as usize).cloned())
}

/// All that is known of a run when it is over.
pub struct Record {
    pub events: Vec<(Duration, Event)>,
    pub streams: HashMap<Id, Stream>,
    pub clients: Vec<ClientReport>,
    pub stats: Stats,
    /// The same of the visitors' system.
    #[allow(dead_code, reason = "the test of the mutants does not look at it")]
    pub client_stats: Stats,
    /// How it came to an end before its time.
    pub crash: Option<String>,
    /// What happened on the network, for some runs.
    pub trace: Option<String>,
}

/// All that was written down.
pub fn take() -> (Vec<(Duration, Event)>, HashMap<Id, Stream>) {
    (EVENTS.take(), STREAMS.take())
}

/// The name of a reason, and its text.
pub fn reason_of(reason: &CloseReason) -> (&'static str, String) {
    (reason.name(), reason.to_string())
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Callback::Opened => "opened",
            Callback::Readable => "readable",
            Callback::ReadClosed => "read_closed",
            Callback::Message => "message",
            Callback::Timer => "timer",
            Callback::Drained => "drained",
            Callback::Room => "room",
            Callback::Stopping => "stopping",
            Callback::Closed => "closed",
        })
    }
}

//! The network of a thread: its connections, what is under way on them, and the time in which that
//! happens.

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::connect::Listener;
use super::datagram::{Bound, Parcel};
use super::faults::{Fault, Faults, Rates};
use super::random::Random;
use super::selector::{Listed, Watched};
use super::trace::{OfConnection, Recorder, Trace, What};
use crate::sys::{Endpoint, clock};

/// The end that connects, and the one that is accepted.
pub(super) const CLIENT: usize = 0;
pub(super) const SERVER: usize = 1;

/// What a kernel usually holds for a direction of a connection.
pub(super) const ROOM: usize = 64 << 10;

/// Numbers from here on are those of listeners.
const LISTENERS: i32 = 1 << 30;

/// ... and of sockets for datagrams.
const DATAGRAMS: i32 = 3 << 29;

/// One end of a connection, or a listener, of this thread; above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number(pub(in crate::sys) i32);

pub(super) enum Place {
    End { connection: usize, side: usize },
    Listener(usize),
    Datagram(usize),
}

impl Number {
    pub(super) fn end(connection: usize, side: usize) -> Number {
        let number = i32::try_from(1 + 2 * connection + side).unwrap_or(LISTENERS);
        assert!(number < LISTENERS, "less than 2^29 connections at a time");
        Number(number)
    }

    pub(super) fn listener(place: usize) -> Number {
        let number = i32::try_from(place).ok();
        let number = number.and_then(|place| LISTENERS.checked_add(place));
        Number(
            number
                .filter(|number| *number < DATAGRAMS)
                .expect("less than 2^29 listeners"),
        )
    }

    pub(super) fn datagram(place: usize) -> Number {
        let number = i32::try_from(place).ok();
        let number = number.and_then(|place| DATAGRAMS.checked_add(place));
        Number(number.expect("less than 2^29 sockets for datagrams"))
    }

    /// The connection and the side of an end.
    pub(super) fn as_end(self) -> (usize, usize) {
        match self.place() {
            Place::End { connection, side } => (connection, side),
            _ => unreachable!("a listener, or a socket for datagrams, is no end of a connection"),
        }
    }

    pub(super) fn place(self) -> Place {
        match self.0 {
            number if number >= DATAGRAMS => Place::Datagram((number - DATAGRAMS) as usize),
            number if number >= LISTENERS => Place::Listener((number - LISTENERS) as usize),
            number => Place::End {
                connection: (number - 1) as usize / 2,
                side: (number - 1) as usize % 2,
            },
        }
    }
}

/// One of the programs that meet on the network. It has descriptors of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(pub(crate) u16);

impl Process {
    /// Whose descriptors those of a backlog, or of somebody's hands, are.
    pub(super) const NONE: Process = Process(u16::MAX);
}

impl Default for Process {
    fn default() -> Process {
        Process::NONE
    }
}

pub(super) struct Program {
    name: String,
    pub(super) open: usize,
    pub(super) descriptors_max: usize,
}

/// Who does something: a poller, or else the network or the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) process: Process,
    pub(crate) poller: u16,
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Pipe {
    /// At the receiver, and not received yet.
    pub(super) arrived: VecDeque<u8>,
    /// How many bytes may still be sent before a send would block.
    pub(super) room: usize,
    /// When the last of what is under way arrives.
    pub(super) last_at: u64,
    /// How much is under way, in pieces; the end of the stream is one.
    pub(super) pieces: u32,
    /// What was sent in an earlier epoch does not arrive.
    pub(super) epoch: u32,
    /// It began with room for a few bytes.
    pub(super) is_small: bool,
    /// The sender has ended the stream.
    pub(super) is_shut: bool,
    /// ... and the receiver may know.
    pub(super) has_ended: bool,
}

#[derive(Default)]
pub(super) struct End {
    pub(super) watched: Watched,
    pub(super) process: Process,
    /// Somebody has this end, or it waits in a backlog.
    pub(super) is_held: bool,
    /// From here on whatever this end does fails, but for receiving what has arrived.
    pub(super) is_reset: bool,
    /// What arrives is taken at once into the memory of whoever has this end by hand.
    pub(super) takes: bool,
}

/// What befalls a connection in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Reset,
    Dies,
}

/// A fate that comes when `side` has sent so many more bytes.
pub(super) struct Doom {
    pub(super) fate: Fate,
    pub(super) side: usize,
    pub(super) bytes: usize,
}

#[derive(Default)]
pub(super) struct Connection {
    /// Of its place, which is used again.
    pub(super) generation: u32,
    /// Its own, by which a trace names it.
    pub(super) serial: u32,
    /// That which it came in by.
    pub(super) listener: u32,
    /// Where it was made to, if that is not just where this one listens.
    pub(super) to: Option<Box<Endpoint>>,
    /// How long a piece takes.
    pub(super) delay_us: u32,
    /// What it was answered, once it was: why it came to nothing if it did.
    pub(super) answered: Option<Result<(), io::ErrorKind>>,
    /// The address on the client's side, where that was chosen; its port may not be.
    pub(super) from: Option<Box<SocketAddr>>,
    /// What its client has sent before it was.
    pub(super) early: Vec<Happening>,
    /// Nothing goes wrong here: somebody's hands are the peer.
    pub(super) is_calm: bool,
    pub(super) doom: Option<Box<Doom>>,
    pub(super) ends: [End; 2],
    /// By who sends.
    pub(super) pipes: [Pipe; 2],
}

/// Something that is to happen.
struct Pending {
    at: u64,
    /// Of two at one time the one that was made first comes first.
    sequence: u64,
    connection: u32,
    generation: u32,
    what: Happening,
}

pub(super) enum Happening {
    /// Bytes of `side` arrive.
    Bytes {
        side: usize,
        epoch: u32,
        bytes: Vec<u8>,
    },
    /// The end of what `side` sends arrives.
    End {
        side: usize,
        epoch: u32,
    },
    /// A reset arrives at `side`.
    Reset {
        side: usize,
    },
    /// A connect arrives.
    Connect {
        tries: u32,
        to: Box<Endpoint>,
    },
    /// Its answer arrives.
    Answer {
        refused: Option<io::ErrorKind>,
    },
    Befalls(Fate),
    /// A datagram arrives.
    Datagram {
        from: Number,
        parcel: Box<Parcel>,
    },
    /// The socket for datagrams in this place takes more.
    Room(usize),
}

impl PartialEq for Pending {
    fn eq(&self, other: &Pending) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pending {}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Pending) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pending {
    fn cmp(&self, other: &Pending) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// The connections, listeners and selectors of this thread.
#[derive(Default)]
pub(crate) struct Network {
    /// Which of the networks that this thread had.
    id: u64,
    /// Nanoseconds since the network was made, and when that was; `None` where time is real.
    now: u64,
    start: Option<Instant>,
    sequence: u64,
    pub(super) serial: u32,
    pub(super) connections: Vec<Connection>,
    pub(super) free: Vec<u32>,
    pub(super) listeners: Vec<Listener>,
    pub(super) bound: Vec<Bound>,
    pub(super) programs: Vec<Program>,
    /// The hosts that have a name.
    pub(super) names: BTreeMap<String, Vec<IpAddr>>,
    pending: BinaryHeap<Reverse<Pending>>,
    /// For each selector what may be ready.
    pub(super) ready: Vec<Vec<Listed>>,
    /// Selectors that have gone.
    pub(super) gone: Vec<u32>,
    /// How often something was put into a list.
    pub(super) listings: u64,
    pub(super) random: Random,
    rates: Rates,
    /// As drawn, which [`heal`](Network::heal) changes nothing about.
    drawn: Rates,
    recorder: Recorder,
    /// The first panic of an actor since the last look.
    panic: Option<String>,
    who: Option<Who>,
}

thread_local! {
    static NETWORK: RefCell<Network> = RefCell::default();
}

/// Calls `f` with the network of this thread; an error where the thread is about to end.
pub(in crate::sys) fn simulate<R>(f: impl FnOnce(&mut Network) -> R) -> io::Result<R> {
    NETWORK
        .try_with(|network| f(&mut network.borrow_mut()))
        .map_err(|_| io::ErrorKind::NotConnected.into())
}

impl Network {
    /// Looks at the network of this thread or changes it. `f` must not come back here.
    pub(crate) fn with<R>(f: impl FnOnce(&mut Network) -> R) -> R {
        NETWORK.with_borrow_mut(f)
    }

    /// From here on the time of this thread is that of its network, on which there is nobody yet.
    /// Returns that time.
    pub(crate) fn begin(random: Random) -> Instant {
        let start = Instant::now();
        clock::set(Some(start));
        Network::replace(Network {
            random,
            start: Some(start),
            ..Network::default()
        });
        start
    }

    fn replace(mut fresh: Network) {
        let before = Network::with(|network| {
            fresh.id = network.id + 1;
            std::mem::replace(network, fresh)
        });
        drop(before);
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whether somebody has a selector on it: a poller, also that of a stage.
    pub(crate) fn is_in_use(&self) -> bool {
        self.gone.len() < self.ready.len()
    }

    /// Whether the time of this thread is that of its network.
    pub(crate) fn is_simulated(&self) -> bool {
        self.start.is_some()
    }

    /// Numbers of its own for something that leaves its choices to chance.
    pub(crate) fn split_random(&mut self) -> Random {
        self.random.split()
    }

    /// The real time again, and nobody on the network.
    pub(crate) fn end() {
        clock::set(None);
        Network::replace(Network::default());
    }

    // ---- time -----------------------------------------------------------------------------------

    pub(super) fn nanos(&self) -> u64 {
        self.now
    }

    /// Since the beginning.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    /// When something happens next.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        let Reverse(first) = self.pending.peek()?;
        Some(Duration::from_nanos(first.at))
    }

    /// Moves the clock, and lets happen what is due by then.
    pub(crate) fn advance(&mut self, to: Duration) {
        let to = nanos(to).max(self.now);
        while let Some(Reverse(first)) = self.pending.peek()
            && first.at <= to
            && let Some(Reverse(due)) = self.pending.pop()
        {
            self.now = self.now.max(due.at);
            self.happen(due);
        }
        self.now = to;
        if let Some(start) = self.start {
            clock::set(Some(start + Duration::from_nanos(to)));
        }
    }

    fn happen(&mut self, due: Pending) {
        if matches!(due.what, Happening::Datagram { .. } | Happening::Room(_)) {
            return self.happen_datagram(due.what);
        }
        let at = due.connection as usize;
        if self.connections[at].generation != due.generation {
            return;
        }
        match due.what {
            Happening::Bytes { side, epoch, bytes } => self.arrive(at, side, epoch, &bytes),
            Happening::End { side, epoch } => self.arrive_end(at, side, epoch),
            Happening::Reset { side } => self.reset(at, side, "by the other"),
            Happening::Connect { tries, to } => self.arrive_connect(at, tries, to),
            Happening::Answer { refused } => self.arrive_answer(at, refused),
            Happening::Befalls(fate) => self.befall(at, fate),
            Happening::Datagram { .. } | Happening::Room(_) => {}
        }
    }

    /// Has something happen to datagrams at a time.
    pub(super) fn put_datagram(&mut self, at: u64, what: Happening) {
        self.sequence += 1;
        self.pending.push(Reverse(Pending {
            at,
            sequence: self.sequence,
            connection: 0,
            generation: 0,
            what,
        }));
    }

    /// Has something happen to a connection at a time.
    pub(super) fn put(&mut self, connection: usize, at: u64, what: Happening) {
        self.sequence += 1;
        self.pending.push(Reverse(Pending {
            at,
            sequence: self.sequence,
            connection: connection as u32,
            generation: self.connections[connection].generation,
            what,
        }));
    }

    // ---- what goes wrong ------------------------------------------------------------------------

    /// From here on these things may go wrong; how often is drawn from the seed.
    pub(crate) fn set_faults(&mut self, faults: Faults) {
        let mut draw = self.random.split();
        self.rates = Rates::draw(faults, &mut draw);
        self.drawn = self.rates.clone();
    }

    /// How often things go wrong, or went until it was healed.
    pub(crate) fn drawn(&self) -> &Rates {
        &self.drawn
    }

    /// Whether this goes wrong now.
    pub(crate) fn happens(&mut self, fault: Fault) -> bool {
        let rate = self.rates.of(fault);
        rate > 0 && self.random.one_in(rate)
    }

    /// Nothing goes wrong any more, also not what was still to befall the connections that there
    /// are; what is late arrives within a second.
    pub(crate) fn heal(&mut self) {
        self.rates = Rates::default();
        let soon = self.now + nanos(Duration::from_secs(1));
        // In their order, which a common new time must not change.
        let pending = std::mem::take(&mut self.pending).into_sorted_vec();
        for Reverse(mut late) in pending.into_iter().rev() {
            if !matches!(late.what, Happening::Befalls(_)) {
                late.at = late.at.min(soon);
                self.sequence += 1;
                late.sequence = self.sequence;
                self.pending.push(Reverse(late));
            }
        }
        for place in 0..self.connections.len() {
            let connection = &mut self.connections[place];
            connection.doom = None;
            connection.delay_us = 0;
            for pipe in &mut connection.pipes {
                pipe.last_at = pipe.last_at.min(soon);
            }
            for side in [CLIENT, SERVER] {
                if std::mem::take(&mut self.connections[place].pipes[side].is_small) {
                    self.give_room(place, side, ROOM);
                }
            }
        }
    }

    // ---- who is there ---------------------------------------------------------------------------

    /// One more program, which a trace calls by this name.
    pub(crate) fn process(&mut self, name: &str) -> Process {
        self.programs.push(Program {
            name: name.to_owned(),
            open: 0,
            descriptors_max: usize::MAX,
        });
        Process((self.programs.len() - 1) as u16)
    }

    pub(super) fn program(&mut self, process: Process) -> Option<&mut Program> {
        self.programs.get_mut(usize::from(process.0))
    }

    /// From here on an accept or a connect of this program fails while it has so many sockets.
    pub(crate) fn limit_descriptors(&mut self, process: Process, max: usize) {
        if let Some(program) = self.program(process) {
            program.descriptors_max = max;
        }
    }

    /// From here on what is done is done by `who`; returns who it was before.
    pub(crate) fn acts(&mut self, who: Option<Who>) -> Option<Who> {
        std::mem::replace(&mut self.who, who)
    }

    // ---- what is remembered ---------------------------------------------------------------------

    pub(crate) fn keep_trace(&mut self, events: usize) {
        self.recorder.keep(events);
    }

    pub(crate) fn trace(&self) -> Trace {
        let names = self.programs.iter().map(|program| program.name.clone());
        self.recorder.snapshot(names.collect())
    }

    pub(super) fn record(&mut self, what: impl FnOnce() -> What) {
        // What a failed test drops on its way out is not what it failed of.
        if self.recorder.is_on() && !thread::panicking() {
            self.recorder.push(self.now(), self.who, what());
        }
    }

    /// The same of a connection.
    pub(super) fn record_of(&mut self, connection: usize, what: impl FnOnce() -> OfConnection) {
        let serial = self.connections[connection].serial;
        self.record(|| What::Of(serial, what()));
    }

    /// A line of somebody's own, whose text may look at the network itself.
    pub(crate) fn note(text: impl fmt::Display) {
        if Network::with(|network| network.recorder.is_on()) {
            let text = text.to_string();
            Network::with(|network| network.record(|| What::Note(text)));
        }
    }

    /// The same of a panic, which the test is to be told, too.
    pub(crate) fn note_panic(&mut self, text: String) {
        self.record(|| What::Note(text.clone()));
        self.panic.get_or_insert(text);
    }

    pub(crate) fn take_panic(&mut self) -> Option<String> {
        self.panic.take()
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// An error as a kernel gives it: by its number, which is what callers tell them apart by.
pub(super) fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

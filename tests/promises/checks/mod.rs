//! One checker for each promise in README.md: looks at the record of a run and says in a sentence
//! what is broken.

mod bounds;
mod bytes;
mod messages;
mod stop;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use crate::record::{Callback, ClientReport, Event, Id, Kind, Record, Stream};
use crate::scenario::Plan;

/// What an actor says when it panics.
const PLANNED: &str = "as planned";

/// What the simulation itself says: of a poller that sleeps on mail,
const SLEEPER: &str = "sleeps while a mailbox";
/// ... of actors that were not closed, when all is over,
const UNEQUAL: &str = "actors opened and closed";
/// ... of a stop that never ends,
const NEVER_ENDS: &str = "have not ended";
/// ... and of what is left behind.
const FILES: &str = "files of Unix sockets";
/// What a run says that comes to no end.
pub const ENDLESS: &str = "too many steps";

/// What is broken; 0 where the run came to an end by itself, and none of the promises says so.
#[derive(Debug)]
pub struct Broken {
    pub promise: u8,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promise {} is broken: {}", self.promise, self.what)
    }
}

/// What the checkers look things up in.
struct Run<'a> {
    plan: &'a Plan,
    record: &'a Record,
    /// The life of each actor.
    lives: BTreeMap<Id, Life>,
    /// Where in the record the rest begins and ends, and the stop.
    rest: usize,
    stop: usize,
    deadline: Duration,
}

struct Life {
    kind: Kind,
    listener: Option<usize>,
    poller: Option<usize>,
    /// When each callback was entered: the place in the record.
    calls: Vec<(usize, Callback, usize)>,
    closed: Option<(usize, Duration, &'static str)>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, record: &'a Record) -> Run<'a> {
        let mut run = Run {
            plan,
            record,
            lives: BTreeMap::new(),
            rest: usize::MAX,
            stop: usize::MAX,
            deadline: Duration::MAX,
        };
        for (place, (at, event)) in record.events.iter().enumerate() {
            match *event {
                Event::Made {
                    id,
                    kind,
                    listener,
                    poller,
                } => {
                    run.lives.insert(
                        id,
                        Life {
                            kind,
                            listener,
                            poller,
                            calls: Vec::new(),
                            closed: None,
                        },
                    );
                }
                Event::Enters {
                    id,
                    callback,
                    poller,
                } => {
                    if let Some(life) = run.lives.get_mut(&id) {
                        life.calls.push((place, callback, poller));
                    }
                }
                Event::Closed { id, reason, .. } => {
                    if let Some(life) = run.lives.get_mut(&id) {
                        life.closed = Some((place, *at, reason));
                    }
                }
                Event::AtRest => run.rest = place,
                Event::Stop { deadline } => {
                    run.stop = place;
                    run.deadline = deadline;
                }
                _ => {}
            }
        }
        run
    }

    fn events(&self) -> impl Iterator<Item = (usize, &'a Event)> {
        let events = self.record.events.iter().enumerate();
        events.map(|(place, (_, event))| (place, event))
    }

    /// Whether all that was to be closed had the time to be.
    fn is_over(&self) -> bool {
        let crash = self.record.crash.as_ref();
        crash.is_none_or(|text| text.contains(UNEQUAL) || text.contains(FILES))
    }

    /// Whether this actor has ended, or never came to be, before this place in the record.
    fn is_gone(&self, id: Id, before: usize) -> bool {
        match self.lives.get(&id) {
            Some(life) => life.closed.is_some_and(|(place, ..)| place < before),
            None => true,
        }
    }

    /// Each connection whose client is known.
    fn pairs(&self) -> impl Iterator<Item = (Id, &'a Stream, &'a ClientReport)> {
        let mut streams: Vec<_> = self.record.streams.iter().collect();
        streams.sort_unstable_by_key(|(id, _)| **id);
        let clients = &self.record.clients;
        streams.into_iter().filter_map(move |(id, stream)| {
            let client = clients
                .iter()
                .find(|client| Some(client.number) == stream.client)?;
            Some((*id, stream, client))
        })
    }

    /// Whether nothing but their own end can have cut this connection's stream.
    fn ends_in_peace(&self, id: Id, client: &ClientReport) -> bool {
        let Some((_, at, reason)) = self.lives.get(&id).and_then(|life| life.closed) else {
            return false;
        };
        // Past the deadline of a stop there is no time for what is on its way.
        let in_time = at + Duration::from_secs(10) < self.deadline;
        ["finished", "peer closed", "error"].contains(&reason)
            && !client.is_unlucky
            && client.reads
            && in_time
    }
}

type Checker = fn(&Run<'_>) -> Vec<String>;

/// All that is broken in a run.
pub fn all(plan: &Plan, record: &Record) -> Vec<Broken> {
    let run = Run::new(plan, record);
    let mut broken = Vec::new();
    let checkers: [(u8, Checker); 12] = [
        (0, ended_by_itself),
        (1, callbacks_run_alone),
        (2, an_address_reaches_its_actor),
        (3, messages::accepted_is_delivered_once),
        (4, messages::no_wake_is_lost),
        (5, bytes::bytes_leave_whole),
        (6, opened_is_followed_by_closed),
        (7, a_panic_ends_its_actor_alone),
        (8, bounds::memory_is_bounded),
        (9, nothing_blocks),
        (10, the_idle_own_nothing),
        (11, stop::stopping_is_graceful),
    ];
    for (promise, check) in checkers {
        let found = check(&run);
        broken.extend(found.into_iter().map(|what| Broken { promise, what }));
    }
    broken
}

/// No promise: the simulation itself found something, and panicked.
fn ended_by_itself(run: &Run<'_>) -> Vec<String> {
    let crash = run.record.crash.iter();
    crash
        .filter(|text| {
            ![PLANNED, SLEEPER, UNEQUAL, NEVER_ENDS, FILES]
                .iter()
                .any(|known| text.contains(known))
        })
        .map(|text| format!("the run has ended in a panic: {text}"))
        .collect()
}

/// Promise 1: An actor's callbacks never run concurrently and never re-enter. It stays on its poller.
fn callbacks_run_alone(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut inside: Option<(Id, Callback)> = None;
    for (_, event) in run.events() {
        match *event {
            Event::Enters { id, callback, .. } => {
                if let Some((other, running)) = inside {
                    wrong.push(format!(
                        "`{callback}` of actor {id} is entered while `{running}` of actor {other} runs"
                    ));
                }
                inside = Some((id, callback));
            }
            Event::Leaves { .. } => inside = None,
            _ => {}
        }
    }
    for (id, life) in &run.lives {
        let first = life.calls.first().map(|(.., poller)| *poller);
        let home = life.poller.or(first);
        for (_, callback, poller) in &life.calls {
            if Some(*poller) != home {
                wrong.push(format!(
                    "actor {id} belongs to poller {home:?}, and its `{callback}` runs on {poller}"
                ));
            }
        }
    }
    wrong
}

/// Promise 2: An address reaches the actor that it was made for, or nobody.
fn an_address_reaches_its_actor(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut asked = HashMap::new();
    let mut timers = HashMap::new();
    for (place, event) in run.events() {
        match *event {
            Event::Delivered { letter, to, at, .. } if to != at => {
                wrong.push(format!(
                    "letter {letter} to actor {to} is delivered to {at}"
                ));
            }
            Event::Asked { question, by } => {
                asked.insert(question, by);
            }
            Event::Answered { question, at } if asked.get(&question) != Some(&at) => {
                wrong.push(format!(
                    "the answer to {question} of actor {:?} is delivered to {at}",
                    asked.get(&question)
                ));
            }
            Event::TimerSet {
                id,
                key,
                due,
                repeats,
            } => {
                timers.insert((id, key), (due, repeats));
            }
            Event::TimerCancelled { id, key } => {
                timers.remove(&(id, key));
            }
            Event::TimerFired { id, key } => match timers.get(&(id, key)) {
                Some((due, _)) if *due > run.record.events[place].0 => {
                    wrong.push(format!("a timer of actor {id} fires before {due:?}"));
                }
                Some((_, true)) => {}
                Some((_, false)) => {
                    timers.remove(&(id, key));
                }
                None => wrong.push(format!(
                    "a timer fires for actor {id} that it has not set, or that is over: {key:?}"
                )),
            },
            _ => {}
        }
    }
    wrong
}

/// Promise 6: Every `opened` is followed by exactly one `closed`, which is the last.
fn opened_is_followed_by_closed(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut opened, mut closed) = (0, 0);
    for (id, life) in &run.lives {
        let is_ours = life.kind != Kind::Visitor;
        let was_opened = life
            .calls
            .iter()
            .any(|(_, call, _)| *call == Callback::Opened);
        if !is_ours && !was_opened && life.calls.len() == 1 {
            // A connect that failed is told by `closed` alone.
            continue;
        }
        let count = |wanted| {
            life.calls
                .iter()
                .filter(|(_, call, _)| *call == wanted)
                .count()
        };
        let (opens, closes) = (count(Callback::Opened), count(Callback::Closed));
        if is_ours {
            opened += opens as u64;
            closed += closes as u64;
        }
        let over = run.is_over();
        if opens > 1 || closes > 1 || closes > opens || over && closes < opens {
            wrong.push(format!(
                "actor {id} was opened {opens} times and closed {closes} times"
            ));
        }
        if let Some((_, first, _)) = life.calls.first()
            && *first != Callback::Opened
        {
            wrong.push(format!("the first call of actor {id} is `{first}`"));
        }
        if let Some(last) = life
            .calls
            .iter()
            .position(|(_, call, _)| *call == Callback::Closed)
            && let Some((_, next, _)) = life.calls.get(last + 1)
        {
            wrong.push(format!(
                "actor {id} is called by `{next}` after it was closed"
            ));
        }
    }
    let stats = &run.record.stats;
    if run.record.crash.is_none() && (stats.opened, stats.closed) != (opened, closed) {
        wrong.push(format!(
            "{opened} actors were opened and {closed} closed; the counters say {} and {}",
            stats.opened, stats.closed
        ));
    }
    wrong
}

/// Promise 7: A panic in a callback closes that actor alone; its poller and its neighbours go on.
fn a_panic_ends_its_actor_alone(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(text) = run
        .record
        .crash
        .as_ref()
        .filter(|text| text.contains(PLANNED))
    {
        wrong.push(format!("a panic of an actor took its poller along: {text}"));
    }
    let mut panicked: BTreeMap<Id, usize> = BTreeMap::new();
    let mut count = 0;
    for (place, event) in run.events() {
        match *event {
            Event::Panics { id } => {
                count += 1;
                if let Some(id) = id {
                    panicked.entry(id).or_insert(place);
                }
            }
            Event::Closed {
                id,
                reason: "panicked",
                ..
            } if !panicked.contains_key(&id) => wrong.push(format!(
                "actor {id} is closed for a panic that was somebody else's"
            )),
            _ => {}
        }
    }
    for (id, place) in panicked {
        let Some(life) = run.lives.get(&id) else {
            continue;
        };
        let next = life.calls.iter().find(|(call, ..)| *call > place);
        let in_closed = life.closed.is_some_and(|(closed, ..)| closed < place);
        let next = next.map(|(_, call, _)| *call);
        if !in_closed && next != Some(Callback::Closed) && run.record.crash.is_none() {
            wrong.push(format!(
                "actor {id} has panicked, and what comes next is {next:?}"
            ));
        }
        if let Some((closed, _, reason)) = life.closed
            && closed > place
            && reason != "panicked"
        {
            wrong.push(format!(
                "actor {id} has panicked, and is told that it is {reason}"
            ));
        }
    }
    let counted = run.record.stats.panics;
    if counted != count && run.record.crash.is_none() {
        wrong.push(format!("there were {count} panics, {counted} are counted"));
    }
    wrong
}

/// Promise 9: Nothing of the framework blocks a poller thread but its own wait: between two waits no time
/// passes.
fn nothing_blocks(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (_, event) in run.events() {
        if let Event::BlockedInCallback { id } = event {
            wrong.push(format!(
                "an ask that blocks its poller was let through to actor {id}"
            ));
        }
    }
    // An actor is told the time at which its poller's turn began, a line of the trace has that of the
    // clock.
    for line in run.record.trace.iter().flat_map(|trace| trace.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [clock, _poller, "#", ">", _id, _callback, turn] = words[..]
            && clock.replace('.', "").parse::<u64>() != turn.trim_start_matches('@').parse()
        {
            wrong.push(format!("time has passed in a turn: {}", line.trim()));
        }
    }
    wrong.truncate(3);
    wrong
}

/// Promise 10: An idle connection owns no buffers.
fn the_idle_own_nothing(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (_, event) in run.events() {
        if let Event::Kept { buffers } = event
            && *buffers > 0
        {
            wrong.push(format!(
                "{buffers} connections for which nothing waits own buffers"
            ));
        }
    }
    wrong
}

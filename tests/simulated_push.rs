//! The example `push` simulated: everybody who is there gets every line, those with a number and
//! those that somebody sent, in one order and without a gap, whatever becomes of the others.
//!
//!     GREENROOM_SEEDS=10000 cargo test --release --test simulated_push

#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/push.rs"]
mod push;
#[path = "util/weather.rs"]
mod weather;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenroom::testing::{Random, Simulation, for_each_seed};
use greenroom::{
    Actor, Addr, CloseReason, ConnectionOptions, Context, Input, ListenOptions, Outcome, System,
    TimerKey,
};

use weather::{ADDR, LIMIT, Weather, fill, millis, secs};

/// Of a line that clients send, as in the example.
const LINE_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Line {
    Numbered(u64),
    Said { by: usize, number: usize },
}

#[derive(Debug)]
enum Deed {
    Say {
        lines: usize,
        len: usize,
    },
    /// Does not read for so long.
    Rest(Duration),
    /// Does not read any more.
    Stall,
    /// A line that is too long: the server ends the connection.
    Overrun,
    HalfClose,
    Close,
    Abort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Here,
    Ended,
}

/// What one client said and heard.
struct Book {
    addr: Option<Addr<Client>>,
    phase: Phase,
    is_busy: bool,
    is_deaf: bool,
    /// It does not read for so long that the server may end it.
    is_stalled: bool,
    /// It has done what ends it.
    is_over: bool,
    /// It has half-closed, and is to see an orderly end.
    has_half_closed: bool,
    said: Vec<(String, Instant)>,
    heard: Vec<Line>,
}

#[derive(Default)]
struct Books {
    clients: Vec<Book>,
    is_rough: bool,
    is_stopping: bool,
    /// The longest that a line took to somebody who reads.
    slowest: Duration,
}

type Shared = Rc<RefCell<Books>>;

impl Books {
    /// A line has come; panics if it must not have.
    fn hear(&mut self, id: usize, line: &str, now: Instant) {
        let parsed = match line.strip_prefix('#') {
            Some(number) => number.parse().ok().map(Line::Numbered),
            None => line.split_once(' ').and_then(|(tag, _)| {
                let (by, number) = tag.strip_prefix('c')?.split_once('.')?;
                let (by, number) = (by.parse().ok()?, number.parse().ok()?);
                Some(Line::Said { by, number })
            }),
        };
        let Some(event) = parsed else {
            panic!("client {id} hears what nobody said: {line:.120}");
        };
        if let Line::Said { by, number } = event {
            let said = self.clients.get(by).and_then(|book| book.said.get(number));
            match said {
                Some((text, at)) if text == line => {
                    let took = now.duration_since(*at);
                    if !self.clients[id].is_deaf {
                        self.slowest = self.slowest.max(took);
                    }
                }
                _ => panic!("client {id} hears what was not said so: {line:.120}"),
            }
        }
        self.clients[id].heard.push(event);
    }

    fn survivors(&self) -> Vec<usize> {
        (0..self.clients.len())
            .filter(|id| self.clients[*id].phase == Phase::Here)
            .collect()
    }

    /// What each one heard is an unbroken piece of one sequence.
    fn check(&self) {
        let places: Vec<HashMap<Line, usize>> = self
            .clients
            .iter()
            .map(|book| book.heard.iter().copied().zip(0..).collect())
            .collect();
        for (id, book) in self.clients.iter().enumerate() {
            assert_eq!(
                places[id].len(),
                book.heard.len(),
                "client {id} heard a line twice"
            );
            let numbers = book.heard.iter().filter_map(|line| match line {
                Line::Numbered(number) => Some(*number),
                Line::Said { .. } => None,
            });
            check_run(id, "the numbers", numbers);
            for by in 0..self.clients.len() {
                let numbers = book.heard.iter().filter_map(|line| match line {
                    Line::Said {
                        by: speaker,
                        number,
                    } if *speaker == by => Some(*number as u64),
                    _ => None,
                });
                let first = check_run(id, &format!("what {by} said"), numbers);
                assert!(
                    by != id || first.is_none_or(|first| first == 0),
                    "client {id} did not hear its own first line"
                );
            }
        }
        for (id, book) in self.clients.iter().enumerate() {
            for (other, his) in self.clients.iter().enumerate().skip(id + 1) {
                let common = book.heard.iter().enumerate().find_map(|(at, line)| {
                    let there = places[other].get(line)?;
                    Some((at, *there))
                });
                let Some((at, there)) = common else {
                    continue;
                };
                let back = at.min(there);
                let (mine, his) = (&book.heard[at - back..], &his.heard[there - back..]);
                let len = mine.len().min(his.len());
                let differ = (0..len).find(|place| mine[*place] != his[*place]);
                if let Some(place) = differ {
                    panic!(
                        "where client {id} heard {:?}, client {other} heard {:?}",
                        mine[place], his[place]
                    );
                }
            }
        }
    }

    /// At rest: whoever is there has heard all that he said himself, and the same last line as the
    /// others.
    fn everything_is_heard(&self) -> bool {
        let survivors = self.survivors();
        let last_said = |heard: &[Line]| {
            let is_said = |line: &&Line| matches!(line, Line::Said { .. });
            heard.iter().rev().find(is_said).copied()
        };
        let first = survivors
            .first()
            .map(|id| last_said(&self.clients[*id].heard));
        survivors.iter().all(|id| {
            let book = &self.clients[*id];
            let own = |line: &&Line| matches!(line, Line::Said { by, .. } if by == id);
            Some(last_said(&book.heard)) == first
                && book.heard.iter().filter(own).count() == book.said.len()
        })
    }
}

/// Each one more than the one before; returns the first.
fn check_run(id: usize, what: &str, mut numbers: impl Iterator<Item = u64>) -> Option<u64> {
    let first = numbers.next()?;
    let mut last = first;
    for number in numbers {
        assert_eq!(number, last + 1, "client {id} has a gap in {what}");
        last = number;
    }
    Some(first)
}

struct Client {
    id: usize,
    books: Shared,
    deeds: VecDeque<(Duration, Deed)>,
    next: Option<TimerKey>,
    wake: Option<TimerKey>,
}

impl Client {
    fn new(books: &Shared, deeds: VecDeque<(Duration, Deed)>) -> Client {
        let clients = &mut books.borrow_mut().clients;
        clients.push(Book {
            addr: None,
            phase: Phase::Connecting,
            is_busy: true,
            is_deaf: false,
            is_stalled: false,
            is_over: false,
            has_half_closed: false,
            said: Vec::new(),
            heard: Vec::new(),
        });
        Client {
            id: clients.len() - 1,
            books: books.clone(),
            deeds,
            next: None,
            wake: None,
        }
    }

    fn set_next(&mut self, ctx: &mut Context<'_, Self>) {
        match self.deeds.front() {
            Some((wait, _)) => self.next = Some(ctx.set_timer(*wait)),
            None => self.books.borrow_mut().clients[self.id].is_busy = false,
        }
    }

    fn perform(&mut self, deed: Deed, ctx: &mut Context<'_, Self>) {
        let id = self.id;
        let now = ctx.now();
        let is_last = matches!(
            deed,
            Deed::HalfClose | Deed::Close | Deed::Abort | Deed::Overrun
        );
        let mut books = self.books.borrow_mut();
        let book = &mut books.clients[id];
        match deed {
            Deed::Say { lines, len } => {
                for _ in 0..lines {
                    let mut line = format!("c{id}.{} ", book.said.len());
                    fill(&mut line, len);
                    ctx.write_parts(&[line.as_bytes(), b"\n"]);
                    book.said.push((line, now));
                }
            }
            Deed::Rest(time) => {
                ctx.pause();
                book.is_deaf = true;
                self.wake = Some(ctx.set_timer(time));
            }
            Deed::Stall => {
                ctx.pause();
                (book.is_deaf, book.is_stalled) = (true, true);
            }
            Deed::Overrun => {
                ctx.write([b'x'; LINE_MAX + 2]);
            }
            Deed::HalfClose => {
                ctx.shutdown_write();
                book.has_half_closed = true;
            }
            Deed::Close => ctx.close(),
            Deed::Abort => ctx.abort(),
        }
        if is_last {
            book.is_over = true;
            book.is_busy = false;
            self.deeds.clear();
        }
    }
}

impl Actor for Client {
    /// Read again, and do this.
    type Message = Deed;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let book = &mut self.books.borrow_mut().clients[self.id];
        book.phase = Phase::Here;
        book.addr = Some(ctx.addr());
        match self.deeds.front() {
            Some((wait, _)) => self.next = Some(ctx.set_timer(*wait)),
            None => book.is_busy = false,
        }
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(2 * LINE_MAX)? {
            let line = String::from_utf8_lossy(line);
            self.books.borrow_mut().hear(self.id, &line, ctx.now());
        }
        assert!(
            !input.at_end() || input.is_empty(),
            "client {} has a line cut by an orderly end",
            self.id
        );
        Ok(())
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.wake.take_if(|wake| *wake == key).is_some() {
            self.books.borrow_mut().clients[self.id].is_deaf = false;
            ctx.resume();
        } else if self.next.take_if(|next| *next == key).is_some()
            && let Some((_, deed)) = self.deeds.pop_front()
        {
            self.perform(deed, ctx);
            self.set_next(ctx);
        }
        Ok(())
    }

    fn message(&mut self, deed: Deed, ctx: &mut Context<'_, Self>) -> Outcome {
        self.books.borrow_mut().clients[self.id].is_deaf = false;
        ctx.resume();
        if !self.books.borrow().clients[self.id].is_over {
            self.perform(deed, ctx);
        }
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        let mut books = self.books.borrow_mut();
        let may_end = books.is_rough || books.is_stopping;
        let book = &mut books.clients[self.id];
        book.phase = Phase::Ended;
        assert!(
            may_end || !book.has_half_closed || reason.name() != "reset",
            "client {} had half-closed and was reset",
            self.id
        );
        assert!(
            may_end || book.is_over || book.is_stalled || matches!(reason, CloseReason::Stopped),
            "client {} was ended: {reason}",
            self.id
        );
    }
}

fn deeds(random: &mut Random) -> VecDeque<(Duration, Deed)> {
    let pace = millis(*random.pick(&[1, 50, 500, 5_000]));
    let len = *random.pick(&[0, 0, 100, LINE_MAX]);
    let count = random.below(12);
    let mut deeds: VecDeque<_> = (0..count)
        .map(|_| {
            let deed = match random.below(8) {
                0 => Deed::Rest(random.duration(secs(10))),
                1 => {
                    let lines = random.range(2..20) as usize;
                    Deed::Say { lines, len }
                }
                _ => Deed::Say { lines: 1, len },
            };
            (random.duration(pace), deed)
        })
        .collect();
    let last = match random.below(12) {
        0 => Deed::HalfClose,
        1 => Deed::Close,
        2 => Deed::Abort,
        3 => Deed::Overrun,
        4 => Deed::Stall,
        _ => return deeds,
    };
    deeds.push_back((random.duration(secs(5)), last));
    deeds
}

/// Lines with a number, the same in each run.
fn numbers() -> impl FnMut(usize) -> Bytes + Send + 'static {
    let mut number = 0_u64;
    move |_members| {
        number += 1;
        format!("#{number}\n").into()
    }
}

fn begin(sim: &mut Simulation, weather: Weather, limits: ListenOptions) -> (System, Shared) {
    let system = weather::system(sim, weather);
    let every = millis(*sim.random().pick(&[0, 50, 1000]));
    push::serve(&system, ADDR, limits, every, numbers()).expect("the address is free");
    let books = Books {
        is_rough: weather.is_rough(),
        ..Books::default()
    };
    (system, Rc::new(RefCell::new(books)))
}

fn tell(books: &Shared, deed: impl Fn() -> Deed) {
    let survivors = books.borrow().survivors();
    for id in survivors {
        let addr = books.borrow().clients[id].addr.clone();
        let _ = addr.expect("it has been opened").send(deed());
    }
}

fn scenario(sim: &mut Simulation, weather: Weather, clients: u64) {
    let (system, books) = begin(sim, weather, ListenOptions::new());
    let period = *sim.random().pick(&[10, 1_000, 10_000]);
    for _ in 0..clients {
        let client = Client::new(&books, deeds(sim.random()));
        let at = millis(sim.random().below(period));
        sim.after(at, move |sim| sim.connect(ADDR, client));
    }
    if sim.random().one_in(4) {
        let time = sim.random().duration(secs(15));
        sim.run_for(time);
        books.borrow_mut().is_stopping = true;
        system.handle().stop(secs(5));
        let time = sim.random().duration(secs(10));
        sim.run_for(time);
    } else {
        sim.heal();
        let has_come_to_rest = |book: &Book| match book.phase {
            Phase::Connecting => false,
            Phase::Here => !book.is_busy && !book.is_over && (!book.is_deaf || book.is_stalled),
            Phase::Ended => true,
        };
        sim.run_until(LIMIT, |_| {
            books.borrow().clients.iter().all(has_come_to_rest)
        });
        // Who is left says something, and all who are left hear it.
        tell(&books, || Deed::Say { lines: 1, len: 0 });
        sim.run_until(LIMIT, |_| {
            let books = books.borrow();
            let mut clients = books.clients.iter();
            clients.all(|book| !book.is_deaf || book.phase == Phase::Ended)
                && books.everything_is_heard()
        });
        books.borrow_mut().is_stopping = true;
    }
    sim.finish(secs(60));
    books.borrow().check();
}

#[test]
fn no_seed_breaks_a_promise() {
    for_each_seed(120, |sim| {
        let weather = Weather::draw(sim.random());
        let clients = sim.random().range(1..30);
        scenario(sim, weather, clients);
    });
}

#[test]
fn hundreds_of_clients_hear_one_sequence() {
    for_each_seed(1, |sim| {
        let weather = Weather::draw(sim.random());
        scenario(sim, weather, 150);
    });
}

#[test]
fn a_slow_reader_harms_nobody() {
    for_each_seed(15, |sim| {
        let limits = ListenOptions::new()
            .connection(ConnectionOptions::new().output_max(64 << 10))
            .send_buffer(4 << 10);
        let (system, books) = begin(sim, Weather::Calm, limits);
        let talk = |count: usize| {
            let say = |_| (millis(5), Deed::Say { lines: 4, len: 500 });
            (0..count).map(say).collect::<VecDeque<_>>()
        };
        for _ in 0..sim.random().range(2..10) {
            sim.connect(ADDR, Client::new(&books, talk(100)));
        }
        let stuck = VecDeque::from([(millis(50), Deed::Stall)]);
        sim.connect(ADDR, Client::new(&books, stuck));
        sim.run_until(secs(60), |_| {
            system.stats().closed_by["slow reader"] + system.stats().closed_by["stuck reader"] == 1
        });
        sim.run_until(secs(60), |_| {
            let books = books.borrow();
            let mut clients = books.clients.iter();
            clients.all(|book| book.is_deaf || !book.is_busy) && {
                let talkers = books.clients.split_last().expect("there are some").1;
                talkers
                    .iter()
                    .all(|book| book.heard.len() >= talkers.len() * 400)
            }
        });
        assert!(
            books.borrow().slowest < millis(100),
            "a line took {:?}",
            books.borrow().slowest
        );
        books.borrow_mut().is_stopping = true;
        sim.finish(secs(60));
        books.borrow().check();
    });
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    let run = |seed| {
        let mut sim = Simulation::new(seed);
        sim.keep_trace(1_000_000);
        scenario(&mut sim, Weather::Deadly, 10);
        sim.trace().to_string()
    };
    for seed in 0..5 {
        let trace = run(seed);
        assert!(trace == run(seed), "seed {seed} had two runs");
        assert!(trace != run(seed + 1), "the seed decides nothing");
    }
}

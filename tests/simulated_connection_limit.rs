//! The example `connection_limit` simulated, kept by a broadcaster and kept by the listener: never
//! are more let in than may be, whoever is not let in is told so, and every place is free again.
//!
//!     GREENROOM_SEEDS=10000 cargo test --release --test simulated_connection_limit

#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/connection_limit.rs"]
mod connection_limit;
#[path = "util/weather.rs"]
mod weather;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenroom::testing::{Random, Simulation, for_each_seed};
use greenroom::{Actor, CloseReason, Context, Input, Outcome, TimerKey};

use weather::{ADDR, LIMIT, Weather, millis, secs};

/// Longer than any patience of the server: who has been lost without a word is gone.
const QUIET: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
enum Farewell {
    HalfClose,
    Close,
    Abort,
}

/// How long a listener gives one that it refuses.
const REFUSED_LINGER: Duration = Duration::from_secs(1);

/// How many that it refuses it waits for at a time.
const REFUSED_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    LetIn,
    Refused,
    Ended,
}

#[derive(Default)]
struct Book {
    phases: Vec<Phase>,
    max: usize,
    /// It is the listener that refuses.
    is_refusing: bool,
    is_rough: bool,
    is_stopping: bool,
    let_in: usize,
    refused: usize,
    given_up: usize,
}

type Shared = Rc<RefCell<Book>>;

impl Book {
    /// How many have been let in and have not left yet, as they know it themselves: whose
    /// connection was lost may not know it yet.
    fn inside(&self) -> usize {
        let inside = self.phases.iter().filter(|phase| **phase == Phase::LetIn);
        inside.count()
    }
}

/// Waits to be let in, has a few words echoed, and leaves.
struct Guest {
    id: usize,
    book: Shared,
    /// Says it without waiting to be let in.
    is_eager: bool,
    words: Vec<u8>,
    echoed: usize,
    /// How long it is there, and what it does then.
    stay: Duration,
    farewell: Farewell,
    leaves: Option<TimerKey>,
    since: Option<Instant>,
}

impl Guest {
    fn new(book: &Shared, random: &mut Random) -> Guest {
        let phases = &mut book.borrow_mut().phases;
        phases.push(Phase::Waiting);
        let len = *random.pick(&[1, 10, 1_000, 50_000]);
        Guest {
            id: phases.len() - 1,
            book: book.clone(),
            is_eager: random.one_in(2),
            words: (0..len).map(|_| random.below(256) as u8).collect(),
            echoed: 0,
            stay: random.duration(secs(3)),
            farewell: *random.pick(&[Farewell::HalfClose, Farewell::Close, Farewell::Abort]),
            leaves: None,
            since: None,
        }
    }

    fn set(&self, phase: Phase) {
        self.book.borrow_mut().phases[self.id] = phase;
    }

    fn phase(&self) -> Phase {
        self.book.borrow().phases[self.id]
    }

    /// The first line says whether it is let in.
    fn hear(&mut self, line: &str, ctx: &mut Context<'_, Self>) {
        let mut book = self.book.borrow_mut();
        let max = book.max;
        let full = format!("full: there is room for {max} at a time, come back later");
        let count = line
            .strip_prefix("welcome, you are ")
            .and_then(|line| line.strip_suffix(" here")?.parse().ok());
        if line == full {
            book.refused += 1;
            book.phases[self.id] = Phase::Refused;
        } else if line == "welcome" || count.is_some() {
            assert!(
                count.is_none_or(|count: usize| (1..=max).contains(&count)),
                "{line:?} where {max} may be"
            );
            book.let_in += 1;
            book.phases[self.id] = Phase::LetIn;
            self.leaves = Some(ctx.set_timer(self.stay));
            if !self.is_eager {
                ctx.write(&self.words);
            }
        } else {
            panic!("guest {} is told {line:?}", self.id);
        }
    }
}

impl Actor for Guest {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.is_eager {
            ctx.write(&self.words);
        }
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.phase() == Phase::Waiting {
            match input.line(100)? {
                Some(line) => self.hear(&String::from_utf8_lossy(line), ctx),
                None => assert!(
                    !input.at_end() || input.is_empty(),
                    "guest {} is told half a line",
                    self.id
                ),
            }
            return Ok(());
        }
        let echo = input.take_all();
        assert!(
            self.words[self.echoed..].starts_with(echo) && self.phase() != Phase::Refused,
            "guest {} is echoed what it did not say",
            self.id
        );
        self.echoed += echo.len();
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        match self.farewell {
            Farewell::HalfClose => ctx.shutdown_write(),
            Farewell::Close => ctx.close(),
            Farewell::Abort => ctx.abort(),
        }
        self.set(Phase::Ended);
        Ok(())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let book = self.book.borrow();
        let is_calm = !book.is_rough && !book.is_stopping;
        // Who half-closed has been echoed to the last byte.
        assert!(
            !is_calm || self.phase() == Phase::Refused || self.echoed == self.words.len(),
            "guest {} has been echoed {} of {} bytes",
            self.id,
            self.echoed,
            self.words.len()
        );
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        let book = self.book.borrow();
        let phase = book.phases[self.id];
        let waited = self.since.map(|since| ctx.now() - since);
        // ... nor until it has taken what it is told; and of very many that it refuses at once it
        // waits for some only.
        let is_given_up = phase == Phase::Waiting
            && book.is_refusing
            && matches!(reason.name(), "reset" | "not connected")
            && (waited >= Some(REFUSED_LINGER) || book.phases.len() > REFUSED_MAX);
        assert!(
            book.is_rough
                || book.is_stopping
                || matches!(reason, CloseReason::Stopped)
                // A listener does not wait for long until one that it has refused has gone.
                || phase == Phase::Refused
                || is_given_up
                || phase == Phase::Ended && reason.name() != "reset",
            "guest {} was {phase:?}, and then: {reason}",
            self.id
        );
        drop(book);
        self.book.borrow_mut().given_up += usize::from(is_given_up);
        self.set(Phase::Ended);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Broadcaster,
    Listener,
}

fn scenario(sim: &mut Simulation, weather: Weather, door: Door, guests: u64) {
    let max = sim.random().range(1..1 + guests.min(10)) as usize;
    let system = weather::system(sim, weather);
    let serve = match door {
        Door::Broadcaster => connection_limit::serve,
        Door::Listener => connection_limit::serve_by_listener,
    };
    let listener = serve(&system, ADDR, max).expect("the address is free");
    let book = Rc::new(RefCell::new(Book {
        max,
        is_refusing: door == Door::Listener,
        is_rough: weather.is_rough(),
        ..Book::default()
    }));
    let period = *sim.random().pick(&[10, 1_000, 10_000]);
    for _ in 0..guests {
        let mut guest = Guest::new(&book, sim.random());
        let at = millis(sim.random().below(period));
        sim.after(at, move |sim| {
            guest.since = Some(sim.now());
            sim.connect(ADDR, guest);
        });
    }
    // Holds at each step.
    let limit_holds = || {
        let book = book.borrow();
        let inside = book.inside();
        assert!(
            book.is_rough || book.is_stopping || inside <= max,
            "{inside} are inside where {max} may be"
        );
        let connections = listener.connections();
        assert!(
            door == Door::Broadcaster || connections <= max,
            "{connections} connections where {max} may be"
        );
    };
    let run_for = |sim: &mut Simulation, time: Duration| {
        let until = sim.now() + time;
        sim.after(time, |_| ());
        sim.run_until(LIMIT, |sim| {
            limit_holds();
            sim.now() >= until
        });
    };
    if sim.random().one_in(4) {
        let time = sim.random().duration(secs(10));
        run_for(sim, time);
        book.borrow_mut().is_stopping = true;
        system.handle().stop(secs(5));
        let time = sim.random().duration(secs(10));
        run_for(sim, time);
        sim.finish(secs(60));
        return;
    }
    run_for(sim, millis(period));
    sim.heal();
    sim.run_until(LIMIT, |_| {
        limit_holds();
        book.borrow()
            .phases
            .iter()
            .all(|phase| *phase == Phase::Ended)
    });
    sim.run_for(QUIET);
    assert_eq!(listener.connections(), 0);
    let seen = book.borrow().let_in + book.borrow().refused + book.borrow().given_up;
    assert!(weather.is_rough() || seen == guests as usize);

    // Every place is there, and no more than that.
    let mut inside = Vec::new();
    for count in 1..=max {
        let guest = sim.client(ADDR);
        let expected = match door {
            Door::Broadcaster => format!("welcome, you are {count} here"),
            Door::Listener => "welcome".to_owned(),
        };
        assert_eq!(guest.line(sim), expected);
        inside.push(guest);
    }
    let guest = sim.client(ADDR);
    let refused = guest.line(sim);
    assert!(refused.starts_with("full: "), "{refused:?}");
    sim.finish(secs(60));
}

fn draw_and_run(sim: &mut Simulation, guests: u64) {
    let weather = Weather::draw(sim.random());
    let door = *sim.random().pick(&[Door::Broadcaster, Door::Listener]);
    scenario(sim, weather, door, guests);
}

#[test]
fn no_seed_breaks_a_promise() {
    for_each_seed(300, |sim| {
        let guests = sim.random().range(1..40);
        draw_and_run(sim, guests);
    });
}

#[test]
fn hundreds_of_guests_come_and_go() {
    for_each_seed(3, |sim| draw_and_run(sim, 400));
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    let run = |seed| {
        let mut sim = Simulation::new(seed);
        sim.keep_trace(1_000_000);
        scenario(&mut sim, Weather::Deadly, Door::Broadcaster, 20);
        sim.trace().to_string()
    };
    for seed in 0..5 {
        let trace = run(seed);
        assert!(trace == run(seed), "seed {seed} had two runs");
        assert!(trace != run(seed + 1), "the seed decides nothing");
    }
}

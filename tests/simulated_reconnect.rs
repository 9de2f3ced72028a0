//! Connections that are made again, by seed, to a server that goes and comes while all goes wrong:
//! never two at a time, each pause within its bounds, no two in step, every message delivered once
//! or counted; and when all is well again, each is up.
//!
//!     GREENROOM_SEEDS=10000 cargo test --release --test simulated_reconnect

#[path = "util/weather.rs"]
mod weather;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::testing::{Random, Simulation, for_each_seed};
use greenroom::*;

use weather::{LIMIT, Weather, millis, secs};

const ADDR: &str = "10.0.0.9:7000";

// ---- the server ---------------------------------------------------------------------------------

/// Sends all back, and hangs up now and then.
struct Backend {
    random: Random,
    rude: u64,
}

impl Actor for Backend {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.random.one_in(self.rude) {
            ctx.close();
        }
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        match self.random.below(10 * self.rude) {
            1 => ctx.close(),
            2 => ctx.abort(),
            _ => {}
        }
        Ok(())
    }
}

fn backend(sim: &mut Simulation, rude: u64) -> (System, Listener) {
    let system = sim.system(System::builder().pollers(1).name("backend"));
    let (count, seed) = (AtomicU64::new(0), sim.random().below(u64::MAX));
    let listened = system.listen(ADDR, move |_peer| Backend {
        random: Random::new(seed.wrapping_add(count.fetch_add(1, Ordering::Relaxed))),
        rude,
    });
    let listener = listened.expect("the last one has gone");
    (system, listener)
}

// ---- the connection -----------------------------------------------------------------------------

/// What the test knows of one that is kept up.
#[derive(Default)]
struct Book {
    /// Connections that are there or being made.
    live: AtomicUsize,
    delivered: AtomicUsize,
    said: Mutex<Vec<Said>>,
}

/// A [`Link`] as it was told.
struct Said {
    at: Instant,
    /// `None` for up.
    down: Option<Down>,
}

struct Feed {
    book: Arc<Book>,
    last: u64,
    /// Ticks since something came.
    silence: u32,
}

impl Feed {
    fn new(book: &Arc<Book>) -> Feed {
        let before = book.live.fetch_add(1, Ordering::Relaxed);
        assert_eq!(before, 0, "two at a time");
        Feed {
            book: book.clone(),
            last: 0,
            silence: 0,
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.book.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Actor for Feed {
    type Message = u64;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.set_interval(secs(1));
        Ok(())
    }

    fn message(&mut self, number: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(number > self.last, "{number} behind {}", self.last);
        self.last = number;
        self.book.delivered.fetch_add(1, Ordering::Relaxed);
        ctx.write("x");
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        self.silence = 0;
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.silence += 1;
        if self.silence > 5 {
            return Err("nobody answers".into());
        }
        ctx.write(".");
        Ok(())
    }
}

/// Writes down what it is told.
struct Watcher {
    book: Arc<Book>,
}

impl Actor for Watcher {
    type Message = Link<Feed>;

    fn message(&mut self, link: Link<Feed>, ctx: &mut Context<'_, Self>) -> Outcome {
        let down = match link {
            Link::Up(_) => None,
            Link::Down(down) => Some(down),
        };
        let said = Said {
            at: ctx.now(),
            down,
        };
        self.book.said.lock().unwrap().push(said);
        Ok(())
    }
}

struct Plan {
    first: Duration,
    longest: Duration,
    settled_after: Duration,
}

impl Plan {
    fn draw(random: &mut Random) -> Plan {
        let first = *random.pick(&[millis(1), millis(100), secs(1)]);
        Plan {
            first,
            longest: first * *random.pick(&[1, 8, 10]),
            settled_after: *random.pick(&[Duration::ZERO, secs(1), secs(10)]),
        }
    }
}

/// What holds of all that was said; returns the pauses.
fn check(book: &Book, plan: &Plan, weather: Weather) -> Vec<Duration> {
    let (mut pauses, mut failures) = (Vec::new(), 0);
    let mut up_at: Option<Instant> = None;
    let mut not_before: Option<Instant> = None;
    for Said { at, down } in &*book.said.lock().unwrap() {
        // In bad weather a poller may stand still between what happens and what is told of it.
        let is_exact = weather == Weather::Calm;
        if let Some(not_before) = not_before.filter(|_| is_exact && up_at.is_none()) {
            // It is told of some turns after it has happened.
            assert!(*at + millis(1) >= not_before, "tried too early");
            assert!(*at <= not_before + secs(1), "tried too late");
        }
        let Some(down) = down else {
            assert!(up_at.is_none(), "up twice");
            up_at = Some(*at);
            continue;
        };
        let held = up_at.take().map(|since| *at - since);
        let settled = held.is_some_and(|held| held >= plan.settled_after);
        let near = held.is_some_and(|held| held.abs_diff(plan.settled_after) < millis(2));
        if !near && (is_exact || held.is_none()) {
            let wanted = if settled { 0 } else { failures + 1 };
            assert_eq!(down.failures, wanted, "{held:?}");
        }
        failures = down.failures;
        // The system stops, at the end.
        let Some(pause) = down.next_in else { continue };
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let most = plan.first.saturating_mul(doubled).min(plan.longest);
        assert!(pause <= most, "{pause:?} after {failures} failures");
        not_before = Some(*at + pause);
        pauses.push(pause);
    }
    pauses
}

// ---- the run ------------------------------------------------------------------------------------

#[derive(Default)]
struct Sum {
    pauses: usize,
    delivered: usize,
    dead: u64,
    long: usize,
}

fn scenario(sim: &mut Simulation) -> Sum {
    let weather = Weather::draw(sim.random());
    let plan = Plan::draw(sim.random());
    let rude = *sim.random().pick(&[0, 2, 10]);
    let pollers = sim.random().range(1..4) as usize;
    let bound = *sim.random().pick(&[2, 8, 1024]);
    let front = sim.system(System::builder().pollers(pollers).mailbox_bound(bound));
    let mut backends = vec![backend(sim, rude)];
    weather::set_faults(sim, weather);
    let count = sim.random().range(2..6) as usize;
    let mut feeds = Vec::new();
    for number in 0..count {
        let book = Arc::new(Book::default());
        let poller = number % pollers;
        let of = book.clone();
        let watcher = front
            .handle()
            .spawn_on(poller, move || Watcher { book: of });
        let of = book.clone();
        let Plan {
            first,
            longest,
            settled_after,
        } = plan;
        let feed = front.handle().spawn_on(poller, move || {
            let to: Remote = ADDR.parse().expect("an address");
            Reconnect::new(to, move || Feed::new(&of))
                .connect_options(ConnectOptions::new().timeout(secs(5)))
                .backoff(first, longest)
                .settled_after(settled_after)
                .tell(watcher)
        });
        feeds.push((feed, book));
    }
    let mut sent = 0;
    let mut next = 0;
    let mut send = |sim: &mut Simulation| {
        for _ in 0..sim.random().below(6) {
            let (feed, _) = &feeds[sim.random().below(count as u64) as usize];
            next += 1;
            // What is refused has come back.
            sent += usize::from(feed.send(next.into()).is_ok());
        }
    };
    for _ in 0..sim.random().below(4) {
        for _ in 0..10 {
            send(sim);
            let time = sim.random().duration(secs(3));
            sim.run_for(time);
        }
        let (old, listener) = backends.pop().expect("there is one");
        let within = *sim.random().pick(&[Duration::ZERO, secs(1)]);
        old.handle().stop(within);
        drop(old);
        send(sim);
        let time = within + sim.random().duration(secs(30));
        sim.run_for(time);
        sim.run_until(LIMIT, |_| listener.is_closed());
        send(sim);
        backends.push(backend(sim, rude));
    }
    let time = sim.random().duration(secs(10));
    sim.run_for(time);
    sim.heal();
    // A server that hangs up would go on with it.
    let (old, listener) = backends.pop().expect("there is one");
    old.handle().stop(Duration::ZERO);
    drop(old);
    sim.run_until(LIMIT, |_| listener.is_closed());
    let _backend = backend(sim, 0);
    // The quiet phase: what is lost is noticed, a connect comes to its end, and the longest pause.
    sim.run_for(secs(10) + secs(5) + plan.longest + secs(10));
    for (feed, book) in &feeds {
        assert_eq!(book.live.load(Ordering::Relaxed), 1);
        let is_up = book
            .said
            .lock()
            .unwrap()
            .last()
            .is_some_and(|said| said.down.is_none());
        assert!(is_up, "not up");
        next += 1;
        let message = next;
        let told = sim.ask(feed, secs(1), |reply| {
            ReconnectMessage::or_back(message, reply)
        });
        assert_eq!(told, Ok(Ok(())));
        sent += 1;
    }
    sim.finish(secs(60));
    let mut sum = Sum::default();
    let mut all = Vec::new();
    for (_, book) in &feeds {
        assert_eq!(book.live.load(Ordering::Relaxed), 0, "actors are dropped");
        let pauses = check(book, &plan, weather);
        sum.delivered += book.delivered.load(Ordering::Relaxed);
        sum.pauses += pauses.len();
        sum.long += pauses.iter().filter(|pause| **pause > plan.first).count();
        all.push(pauses);
    }
    let dead = front.stats().dead_letters;
    assert_eq!(
        sent as u64,
        sum.delivered as u64 + dead,
        "each once, or counted"
    );
    sum.dead = dead;
    // The same server goes for all; they come back each in its own time.
    for (at, pauses) in all.iter().enumerate() {
        for others in &all[..at] {
            let first: Vec<_> = pauses.iter().zip(others).take(3).collect();
            let in_step = first.len() == 3 && first.iter().all(|(one, other)| one == other);
            assert!(!in_step, "in step: {first:?}");
        }
    }
    sum
}

#[test]
fn no_seed_has_two_at_a_time_or_leaves_one_down() {
    let sum = RefCell::new(Sum::default());
    for_each_seed(200, |sim| {
        let one = scenario(sim);
        let mut sum = sum.borrow_mut();
        sum.pauses += one.pauses;
        sum.delivered += one.delivered;
        sum.dead += one.dead;
        sum.long += one.long;
    });
    let sum = sum.into_inner();
    if std::env::var_os("GREENROOM_SEED").is_none() {
        assert!(
            sum.pauses > 1_000 && sum.long > 100,
            "{} {}",
            sum.pauses,
            sum.long
        );
        assert!(
            sum.delivered > 1_000 && sum.dead > 100,
            "{} {}",
            sum.delivered,
            sum.dead
        );
    }
}

/// Evenly from nothing to the bound: a quarter of them in each quarter.
#[test]
fn pauses_are_spread_over_all_that_they_may_be() {
    let quarters = RefCell::new([0_usize; 4]);
    for_each_seed(40, |sim| {
        let system = sim.system(System::builder().pollers(1));
        let book = Arc::new(Book::default());
        let (of, watched) = (book.clone(), book.clone());
        let watcher = system.spawn(move || Watcher { book: watched });
        system.spawn(move || {
            let to: Remote = ADDR.parse().expect("an address");
            Reconnect::new(to, move || Feed::new(&of))
                .backoff(secs(1), secs(1))
                .tell(watcher)
        });
        sim.run_for(secs(60));
        for said in &*book.said.lock().unwrap() {
            let pause = said.down.as_ref().and_then(|down| down.next_in);
            let pause = pause.expect("nobody is there, and it goes on");
            let quarter = (pause.as_millis() / 250).min(3) as usize;
            quarters.borrow_mut()[quarter] += 1;
        }
    });
    let quarters = quarters.into_inner();
    let all: usize = quarters.iter().sum();
    if std::env::var_os("GREENROOM_SEED").is_none() {
        assert!(all > 2_000, "{quarters:?}");
        let share = all / 4;
        assert!(
            quarters
                .iter()
                .all(|count| count.abs_diff(share) < share / 5),
            "{quarters:?}"
        );
    }
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    let run = |seed| {
        let mut sim = Simulation::new(seed);
        sim.keep_trace(1_000_000);
        scenario(&mut sim);
        sim.trace().to_string()
    };
    for seed in 0..5 {
        assert!(run(seed) == run(seed), "seed {seed} had two runs");
    }
}

//! A pool of connections, by seed, to a backend that dawdles, talks out of turn, hangs up, dies and
//! comes back: no answer is another question's, no more connections are made than may be, everybody
//! is told in time, and in the end the smallest number is there again.
//!
//!     GREENROOM_SEEDS=10000 cargo test --release --test simulated_pool

#[path = "util/weather.rs"]
mod weather;

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::testing::{Random, Simulation, for_each_seed};
use greenroom::{
    Actor, Addr, CallError, Context, Exchange, Input, Listener, Outcome, Pool, PoolMessage, System,
    TimerKey,
};

use weather::{LIMIT, Weather, millis, secs};

const ADDR: &str = "10.0.0.9:7000";

/// What a question is to be answered with.
fn answer_to(question: u64) -> u64 {
    question * 7 + 3
}

// ---- the pool's side ----------------------------------------------------------------------------

struct Numbers {
    live: Arc<AtomicUsize>,
}

impl Numbers {
    fn new(live: &Arc<AtomicUsize>, max: usize) -> Numbers {
        let now = 1 + live.fetch_add(1, Ordering::Relaxed);
        assert!(now <= max, "{now} connections where {max} may be");
        Numbers { live: live.clone() }
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Exchange for Numbers {
    type Request = u64;
    type Answer = u64;

    fn request(&mut self, request: u64, output: &mut Vec<u8>) {
        output.extend_from_slice(format!("{request}\n").as_bytes());
    }

    fn answer(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Option<u64>, Box<dyn Error + Send + Sync>> {
        let Some(line) = input.line(40)? else {
            return Ok(None);
        };
        Ok(Some(std::str::from_utf8(line)?.parse()?))
    }
}

// ---- the backend --------------------------------------------------------------------------------

#[derive(Clone, Copy)]
struct Manners {
    /// One in so many answers is late, cut, doubled, or the end; 0 for none.
    rude: u64,
    /// What is written together arrives together. Where it does not, a second answer that nobody has
    /// asked for cannot be told from that to the next question.
    is_whole: bool,
    seed: u64,
}

struct Backend {
    manners: Manners,
    random: Random,
    late: Option<u64>,
}

impl Backend {
    fn new(manners: Manners, number: u64) -> Backend {
        Backend {
            manners,
            random: Random::new(manners.seed.wrapping_add(number)),
            late: None,
        }
    }
}

impl Actor for Backend {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let Some(line) = input.line(40)? else {
            return Ok(());
        };
        assert!(self.late.is_none(), "asked before the last was answered");
        let answer = answer_to(std::str::from_utf8(line)?.parse()?);
        let is_rude = self.manners.rude > 0 && self.random.one_in(self.manners.rude);
        match self.random.below(5) {
            0 if is_rude => ctx.close(),
            1 if is_rude => ctx.abort(),
            2 if is_rude => {
                // Half of it, and the end.
                let text = answer.to_string();
                ctx.write(&text[..text.len() / 2]);
                ctx.close();
            }
            3 if is_rude && self.manners.is_whole => {
                // One more than was asked for.
                ctx.write(format!("{answer}\n{}\n", answer + 7));
            }
            _ => {
                self.late = Some(answer);
                let most = if is_rude { secs(4) } else { millis(20) };
                ctx.set_timer(self.random.duration(most));
            }
        }
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(answer) = self.late.take() {
            ctx.write(format!("{answer}\n"));
        }
        Ok(())
    }
}

fn backend(sim: &mut Simulation, manners: Manners) -> (System, Listener) {
    let system = sim.system(System::builder().pollers(1).name("backend"));
    let count = AtomicUsize::new(0);
    let listened = system.listen(ADDR, move |_peer| {
        let number = count.fetch_add(1, Ordering::Relaxed) as u64;
        Backend::new(manners, number)
    });
    let listener = listened.expect("the last one has gone");
    (system, listener)
}

// ---- who asks -----------------------------------------------------------------------------------

#[derive(Default)]
struct Book {
    asked: usize,
    answered: usize,
    lost: usize,
    timed_out: usize,
    refused: usize,
    /// How much later than at the deadline somebody was told.
    latest: Duration,
}

struct Caller {
    pool: Addr<Pool<Numbers>>,
    book: Arc<Mutex<Book>>,
    random: Random,
    next: u64,
    left: u64,
}

struct Told {
    question: u64,
    deadline: Instant,
    told: Result<u64, CallError>,
}

impl Caller {
    fn ask(&mut self, ctx: &mut Context<'_, Self>) {
        if self.left == 0 {
            return ctx.close();
        }
        self.left -= 1;
        self.next += 1;
        let question = self.next;
        let timeout = millis(*self.random.pick(&[10, 200, 3_000]));
        let deadline = ctx.now() + timeout;
        self.book.lock().unwrap().asked += 1;
        self.pool.call(question, timeout, ctx, move |told| Told {
            question,
            deadline,
            told,
        });
    }
}

impl Actor for Caller {
    type Message = Told;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.ask(ctx);
        Ok(())
    }

    fn message(&mut self, told: Told, ctx: &mut Context<'_, Self>) -> Outcome {
        assert_eq!(
            told.question, self.next,
            "each question is told once, in turn"
        );
        let mut book = self.book.lock().unwrap();
        book.latest = book
            .latest
            .max(ctx.now().saturating_duration_since(told.deadline));
        match told.told {
            Ok(answer) => {
                assert_eq!(answer, answer_to(told.question), "another question's");
                book.answered += 1;
            }
            Err(CallError::Lost(_)) => book.lost += 1,
            Err(CallError::TimedOut) => book.timed_out += 1,
            Err(CallError::Full) => book.refused += 1,
            Err(other) => panic!("the pool is there: {other}"),
        }
        drop(book);
        let pause = self.random.duration(millis(300));
        ctx.set_timer(pause);
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.ask(ctx);
        Ok(())
    }
}

// ---- the run ------------------------------------------------------------------------------------

fn scenario(sim: &mut Simulation, callers: u64) -> Book {
    let weather = Weather::draw(sim.random());
    let max = 1 + sim.random().below(5) as usize;
    let min = sim.random().below(max as u64 + 1) as usize;
    let max_waiting = *sim.random().pick(&[0, 2, 1000]);
    let idle_limit = *sim
        .random()
        .pick(&[Some(millis(100)), Some(secs(60)), None]);
    let manners = Manners {
        rude: *sim.random().pick(&[0, 0, 10, 3]),
        is_whole: weather == Weather::Calm,
        seed: sim.random().below(u64::MAX),
    };
    let pollers = sim.random().range(1..4) as usize;
    let front = sim.system(System::builder().pollers(pollers).name("front"));
    let mut backends = vec![backend(sim, manners)];
    weather::set_faults(sim, weather);

    let live = Arc::new(AtomicUsize::new(0));
    let book = Arc::new(Mutex::new(Book::default()));
    let instances = live.clone();
    let pool = front.spawn(move || {
        let to = ADDR.parse::<greenroom::Remote>().expect("an address");
        Pool::new(to, move || Numbers::new(&instances, max))
            .size(min, max)
            .idle_limit(idle_limit)
            .max_waiting(max_waiting)
    });
    for caller in 0..callers {
        let (pool, book) = (pool.clone(), book.clone());
        let mut random = Random::new(sim.random().below(u64::MAX));
        front.spawn(move || Caller {
            pool,
            book,
            left: 1 + random.below(30),
            next: caller << 32,
            random,
        });
    }
    // The backend goes, and comes again.
    for _ in 0..sim.random().below(4) {
        let time = sim.random().duration(secs(3));
        sim.run_for(time);
        let (old, listener) = backends.pop().expect("there is one");
        let within = *sim.random().pick(&[Duration::ZERO, secs(1)]);
        old.handle().stop(within);
        drop(old);
        let time = within + sim.random().duration(secs(2));
        sim.run_for(time);
        sim.run_until(LIMIT, |_| listener.is_closed());
        backends.push(backend(sim, manners));
    }
    let time = sim.random().duration(secs(10));
    sim.run_for(time);
    sim.heal();
    sim.run_until(LIMIT, |_| {
        let stats = front.stats();
        // All callers have come to their end: what is left is the pool, and what it has.
        stats.opened - stats.closed <= 1 + max as u64 && is_told(&book)
    });
    // The quiet phase, which is longer than the longest pause between connects.
    sim.run_for(secs(30));
    let counts = sim
        .ask(&pool, secs(1), PoolMessage::counts)
        .expect("it is there");
    assert_eq!((counts.lent, counts.waiting), (0, 0), "{counts:?}");
    assert!((min..=max).contains(&counts.idle), "{min}: {counts:?}");
    assert_eq!(counts.connecting, 0, "{counts:?}");
    if idle_limit.is_some_and(|limit| limit < secs(30)) {
        assert_eq!(counts.idle, min, "{counts:?}");
    }
    assert_eq!(live.load(Ordering::Relaxed), counts.idle);
    if manners.rude == 0 && (max_waiting > 0 || counts.idle > 0) {
        let question = 5;
        let asked = |reply| PoolMessage::call(question, secs(5), reply);
        let told = sim.ask(&pool, secs(5), asked);
        assert_eq!(told, Ok(Ok(answer_to(question))));
    }
    sim.finish(secs(60));
    assert_eq!(live.load(Ordering::Relaxed), 0, "protocols are dropped");
    let book = std::mem::take(&mut *book.lock().unwrap());
    assert!(
        weather != Weather::Calm || book.latest <= millis(1),
        "told {:?} behind the deadline",
        book.latest
    );
    assert!(max_waiting == 1000 || book.refused > 0 || callers < 100);
    book
}

fn is_told(book: &Mutex<Book>) -> bool {
    let book = book.lock().unwrap();
    book.asked == book.answered + book.lost + book.timed_out + book.refused
}

#[test]
fn no_seed_gives_a_wrong_answer_or_none() {
    let sum = Mutex::new(Book::default());
    for_each_seed(150, |sim| {
        let callers = sim.random().range(1..12);
        let book = scenario(sim, callers);
        let mut sum = sum.lock().unwrap();
        sum.answered += book.answered;
        sum.lost += book.lost;
        sum.timed_out += book.timed_out;
        sum.refused += book.refused;
    });
    let sum = sum.into_inner().unwrap();
    let all = [sum.answered, sum.lost, sum.timed_out, sum.refused];
    if std::env::var_os("GREENROOM_SEED").is_none() {
        assert!(
            all.iter().all(|count| *count > 0),
            "not all came about: {all:?}"
        );
    }
}

#[test]
fn many_call_at_once() {
    for_each_seed(3, |sim| {
        scenario(sim, 200);
    });
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    let run = |seed| {
        let mut sim = Simulation::new(seed);
        sim.keep_trace(1_000_000);
        scenario(&mut sim, 5);
        sim.trace().to_string()
    };
    for seed in 0..5 {
        assert!(run(seed) == run(seed), "seed {seed} had two runs");
    }
}

// ---- a backend that cannot be had ---------------------------------------------------------------

/// Asks one question, and keeps what it was told.
struct Once {
    pool: Addr<Pool<Numbers>>,
    question: u64,
    told: Arc<Mutex<Vec<Result<u64, CallError>>>>,
}

impl Actor for Once {
    type Message = Result<u64, CallError>;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pool.call(self.question, secs(2), ctx, |told| told);
        Ok(())
    }

    fn message(&mut self, told: Self::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        self.told.lock().unwrap().push(told);
        ctx.close();
        Ok(())
    }
}

fn pool_of(front: &System, min: usize, max: usize) -> Addr<Pool<Numbers>> {
    let live = Arc::default();
    front.spawn(move || {
        let to = ADDR.parse::<greenroom::Remote>().expect("an address");
        Pool::new(to, move || Numbers::new(&live, max)).size(min, max)
    })
}

const POLITE: Manners = Manners {
    rude: 0,
    is_whole: true,
    seed: 0,
};

#[test]
fn connects_that_fail_together_are_one_failure() {
    for_each_seed(20, |sim| {
        let front = sim.system(System::builder().pollers(1).name("front"));
        let pool = pool_of(&front, 0, 8);
        let told = Arc::new(Mutex::new(Vec::new()));
        for question in 0..8 {
            let (pool, told) = (pool.clone(), told.clone());
            front.spawn(move || Once {
                pool,
                question,
                told,
            });
        }
        sim.run_for(millis(100));
        let (_backend, _listener) = backend(sim, POLITE);
        sim.run_until(LIMIT, |_| told.lock().unwrap().len() == 8);
        let told = std::mem::take(&mut *told.lock().unwrap());
        assert!(told.iter().all(Result::is_ok), "{told:?}");
    });
}

/// Hangs up on everybody at once, as a balancer does that has nobody to pass a client on to.
struct HangsUp(Arc<AtomicUsize>);

impl Actor for HangsUp {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.0.fetch_add(1, Ordering::Relaxed);
        ctx.close();
        Ok(())
    }
}

#[test]
fn a_backend_that_hangs_up_at_once_is_not_connected_to_without_a_pause() {
    for_each_seed(5, |sim| {
        let (min, max) = (sim.random().below(3) as usize, 4);
        let front = sim.system(System::builder().pollers(1).name("front"));
        let rude = sim.system(System::builder().pollers(1).name("rude"));
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let listener = rude
            .listen(ADDR, move |_peer| HangsUp(counted.clone()))
            .expect("it is free");
        let pool = pool_of(&front, min, max);
        // Nothing that is written is answered: so of each call comes one connection at most.
        let told = Arc::new(Mutex::new(Vec::new()));
        for question in 0..3 {
            let (pool, told) = (pool.clone(), told.clone());
            front.spawn(move || Once {
                pool,
                question,
                told,
            });
        }
        sim.run_for(secs(20));
        let connects = count.load(Ordering::Relaxed);
        assert!(connects < 40, "{connects} connects in 20 s");
        assert!(min == 0 || connects > 2, "{connects}: it is tried again");
        assert_eq!(told.lock().unwrap().len(), 3);

        // It is in order again, and so is the pool, at the latest after the longest pause.
        listener.close();
        drop(rude);
        sim.run_until(LIMIT, |_| listener.is_closed());
        let (_backend, _listener) = backend(sim, POLITE);
        sim.run_for(secs(6));
        let asked = |reply| PoolMessage::call(5, secs(1), reply);
        assert_eq!(sim.ask(&pool, secs(1), asked), Ok(Ok(answer_to(5))));
        let counts = sim.ask(&pool, secs(1), PoolMessage::counts);
        assert!(counts.expect("it is there").idle >= min.max(1));
    });
}

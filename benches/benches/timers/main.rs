//! Question: which structure keeps the timers of a poller best, at 1, 1,000 and 1,000,000 pending
//! ones?
//!
//! One iteration is a turn: 16 operations, then the next deadline. Time is virtual. Run with
//! `cargo bench --bench timers`; a figure divided by 16 is the cost of one operation.
//! - `cancel`: a timer is set and cancelled at once, as for a request that was answered in time;
//! - `rearm`: a random pending timer is cancelled and set anew to 30 s from now, as for an idle
//!   timeout;
//! - `expire`: time goes on to the next deadline, what is due fires and is set anew.

// criterion_group! makes a public function without documentation.
#![allow(missing_docs)]

mod rivals;
// A benchmark is built with cfg(test) but without the tests: they are there, and nothing runs them.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/timers.rs"]
mod timers;

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use rivals::{LazyHeap, Rival, Tree, Wheel};
use timers::{TimerKey, Timers};

const OPERATIONS: usize = 16;

/// The start of virtual time.
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

/// What was built: `src/timers.rs` whole, with owners, turns and periods.
///
/// Each timer has an owner of its own out of 2^20, as the timeouts of as many connections would.
struct Greenroom {
    timers: Timers<[u64; 2]>,
    owner: u32,
}

impl Rival for Greenroom {
    type Key = (TimerKey, u32);

    fn new() -> Self {
        Self {
            timers: Timers::new(base()),
            owner: 0,
        }
    }

    fn set(&mut self, deadline: Instant) -> Self::Key {
        self.owner = (self.owner + 1) % (1 << 20);
        (
            self.timers.set(self.owner, deadline, None, [0; 2]),
            self.owner,
        )
    }

    fn cancel(&mut self, (key, owner): Self::Key) -> bool {
        self.timers.cancel(key, owner).is_some()
    }

    fn pop_due(&mut self, now: Instant) -> Option<Self::Key> {
        self.timers.begin_turn(now);
        self.timers.pop_due().map(|due| (due.key, due.owner))
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        self.timers.next_deadline()
    }
}

/// xorshift64: the same numbers for each rival.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Between 1 ms and 60 s.
    fn delay(&mut self) -> Duration {
        Duration::from_micros(1_000 + self.next() % 59_999_000)
    }
}

/// A rival with `pending` timers, their keys, and the clock.
struct Bench<R: Rival> {
    rival: R,
    keys: Vec<R::Key>,
    random: Random,
    now: Instant,
}

impl<R: Rival> Bench<R> {
    fn new(pending: usize) -> Self {
        let mut rival = R::new();
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let keys = (0..pending)
            .map(|_| rival.set(base() + random.delay()))
            .collect();
        Self {
            rival,
            keys,
            random,
            now: base(),
        }
    }

    fn cancel(&mut self) {
        for _ in 0..OPERATIONS {
            let key = self.rival.set(self.now + self.random.delay());
            assert!(self.rival.cancel(black_box(key)));
        }
        black_box(self.rival.next_deadline());
    }

    fn rearm(&mut self) {
        for _ in 0..OPERATIONS {
            let index = self.random.next() as usize % self.keys.len();
            assert!(self.rival.cancel(self.keys[index]));
            // Slow enough that nothing comes due within the run.
            self.now += Duration::from_nanos(1);
            self.keys[index] = self.rival.set(self.now + Duration::from_secs(30));
        }
        black_box(self.rival.next_deadline());
    }

    fn expire(&mut self) {
        let mut fired = 0;
        while fired < OPERATIONS {
            self.now = self
                .now
                .max(self.rival.next_deadline().expect("one timer is pending"));
            while let Some(key) = self.rival.pop_due(self.now) {
                black_box(key);
                self.rival.set(self.now + self.random.delay());
                fired += 1;
            }
        }
        black_box(self.rival.next_deadline());
    }
}

fn measure<R: Rival>(c: &mut Criterion, name: &str) {
    for pending in [1, 1_000, 1_000_000] {
        let mut group = c.benchmark_group(format!("timers/{pending}"));
        group.throughput(Throughput::Elements(OPERATIONS as u64));
        let mut run = |operation: &str, turn: fn(&mut Bench<R>)| {
            let mut bench = Bench::<R>::new(pending);
            group.bench_function(format!("{operation}/{name}"), |b| {
                b.iter(|| turn(&mut bench))
            });
        };
        run("cancel", Bench::cancel);
        run("rearm", Bench::rearm);
        run("expire", Bench::expire);
    }
}

fn timers(c: &mut Criterion) {
    measure::<Greenroom>(c, "greenroom");
    measure::<LazyHeap>(c, "lazy-heap");
    measure::<Tree>(c, "btree");
    measure::<Wheel>(c, "wheel");
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .without_plots();
    targets = timers
}
criterion_main!(benches);

//! Timers, among 1,000,000 others that do not come due: one is set and cancelled; 100,000 come due
//! at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{self, Poll};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use greenroom::{Context, Outcome, System, TimerKey};
use greenroom_benches::samples::Samples;
use slotmap::{DefaultKey, SlotMap};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::race::{Case, Plan, Rival, race};

// The shipped file, whole.
#[allow(dead_code)]
#[path = "../../../../src/timers.rs"]
mod greenroom_timers;

const PENDING: usize = 1_000_000;
const DUE: u64 = 100_000;
/// What comes due at once is set so long before, and all of it has to be set by then.
const LEAD: Duration = Duration::from_millis(100);

pub fn measure(plan: Plan, samples: &mut Samples) -> io::Result<()> {
    let system = System::builder().pollers(1).build()?;
    let actor = spawn_actor(&system);
    let mut direct = Direct::new();
    let mut tokio = Tokio::new()?;
    let mut heap = Heap::new();

    let set_and_cancel = Case {
        part: "timers",
        name: &format!("set and cancel; {PENDING} pending"),
        operations: None,
    };
    let rivals = vec![
        Rival::new("tokio", |count| tokio.set_and_cancel(count)),
        Rival::new("greenroom", |count| actor(Work::SetAndCancel(count))),
        Rival::new("greenroom direct", |count| direct.set_and_cancel(count)),
        Rival::new("binary heap", |count| heap.set_and_cancel(count)),
    ];
    race(plan, &set_and_cancel, rivals, samples);

    let fire = Case {
        part: "timers",
        name: &format!("fire; {DUE} due at once; {PENDING} pending"),
        operations: Some(DUE),
    };
    let rivals = vec![
        Rival::new("tokio", |count| tokio.fire(count)),
        Rival::new("greenroom", |count| actor(Work::Fire(count))),
        Rival::new("greenroom direct", |count| direct.fire(count)),
        Rival::new("binary heap", |count| heap.fire(count)),
    ];
    race(plan, &fire, rivals, samples);
    Ok(())
}

/// xorshift64: the same numbers for each rival.
struct Random(u64);

impl Random {
    const NEW: Random = Random(0x9E37_79B9_7F4A_7C15);

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Spread over an hour, and longer than the race lasts.
    fn delay(&mut self) -> Duration {
        Duration::from_secs(1800) + Duration::from_micros(self.next() % 3_600_000_000)
    }
}

/// What the actor is to do.
enum Work {
    SetAndCancel(u64),
    Fire(u64),
}

/// An actor that measures its own timers.
struct Timed {
    random: Random,
    done: Sender<Duration>,
    /// How many have still to fire, and since when they are due.
    left: u64,
    due: Instant,
}

impl greenroom::Actor for Timed {
    type Message = Work;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        for _ in 0..PENDING {
            ctx.set_timer(self.random.delay());
        }
        Ok(())
    }

    fn message(&mut self, work: Work, ctx: &mut Context<'_, Self>) -> Outcome {
        match work {
            Work::SetAndCancel(count) => {
                let start = Instant::now();
                for _ in 0..count {
                    let timer = ctx.set_timer(self.random.delay());
                    assert!(ctx.cancel_timer(black_box(timer)));
                }
                self.done.send(start.elapsed())?;
            }
            Work::Fire(count) => {
                for _ in 0..count {
                    ctx.set_timer(LEAD);
                }
                // Blocks the poller, so that all are due when it goes on.
                thread::sleep(LEAD);
                self.left = count;
                self.due = Instant::now();
            }
        }
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.left -= 1;
        if self.left == 0 {
            self.done.send(self.due.elapsed())?;
        }
        Ok(())
    }
}

fn spawn_actor(system: &System) -> impl Fn(Work) -> Duration + use<> {
    let (done, elapsed) = crossbeam_channel::bounded(1);
    let actor = system.spawn(move || Timed {
        random: Random::NEW,
        done,
        left: 0,
        due: Instant::now(),
    });
    move |work| {
        actor.send(work).expect("the actor lives");
        elapsed.recv().expect("the actor lives")
    }
}

/// The file that keeps them, without poller and actor; time is virtual.
struct Direct {
    timers: greenroom_timers::Timers<[u64; 2]>,
    random: Random,
    now: Instant,
}

impl Direct {
    fn new() -> Direct {
        let now = Instant::now();
        let mut direct = Direct {
            timers: greenroom_timers::Timers::new(now),
            random: Random::NEW,
            now,
        };
        for _ in 0..PENDING {
            direct.set();
        }
        direct
    }

    fn set(&mut self) -> greenroom_timers::TimerKey {
        let deadline = self.now + self.random.delay();
        self.timers.set(0, deadline, None, [0; 2])
    }

    fn set_and_cancel(&mut self, count: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            let timer = self.set();
            assert!(self.timers.cancel(black_box(timer), 0).is_some());
        }
        start.elapsed()
    }

    fn fire(&mut self, count: u64) -> Duration {
        self.now += Duration::from_millis(1);
        for _ in 0..count {
            self.timers.set(0, self.now, None, [0; 2]);
        }
        let start = Instant::now();
        self.timers.begin_turn(self.now);
        let mut fired = 0;
        while let Some(due) = self.timers.pop_due() {
            black_box(due);
            fired += 1;
        }
        assert_eq!(fired, count);
        start.elapsed()
    }
}

/// Sleeps in a runtime of the calling thread.
struct Tokio {
    runtime: Runtime,
    /// Each was polled once, which is what puts it into the wheel.
    _pending: Vec<Pin<Box<Sleep>>>,
    random: Random,
}

/// Polls once, without anybody to be woken.
fn register(sleep: Pin<&mut Sleep>) {
    let mut ctx = task::Context::from_waker(task::Waker::noop());
    assert!(sleep.poll(&mut ctx) == Poll::Pending);
}

impl Tokio {
    fn new() -> io::Result<Tokio> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let mut random = Random::NEW;
        let pending = runtime.block_on(async {
            let sleeps = (0..PENDING).map(|_| {
                let mut sleep = Box::pin(tokio::time::sleep(random.delay()));
                register(sleep.as_mut());
                sleep
            });
            sleeps.collect()
        });
        Ok(Tokio {
            runtime,
            _pending: pending,
            random,
        })
    }

    fn set_and_cancel(&mut self, count: u64) -> Duration {
        let random = &mut self.random;
        self.runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..count {
                let sleep = pin!(tokio::time::sleep(random.delay()));
                register(sleep);
            }
            start.elapsed()
        })
    }

    /// A task for each timer, as an actor's callback is more than a flag, too.
    fn fire(&mut self, count: u64) -> Duration {
        self.runtime.block_on(async {
            let deadline = Instant::now() + LEAD;
            let asleep = Arc::new(AtomicU64::new(0));
            let left = Arc::new(AtomicU64::new(count));
            let done = Arc::new(Notify::new());
            for _ in 0..count {
                let (asleep, left, done) = (asleep.clone(), left.clone(), done.clone());
                tokio::spawn(async move {
                    asleep.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep_until(deadline.into()).await;
                    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        done.notify_one();
                    }
                });
            }
            while asleep.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
            // Blocks the runtime, so that all are due when it goes on: it rounds up to the next
            // millisecond.
            let due = deadline + Duration::from_millis(2);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let start = Instant::now();
            done.notified().await;
            start.elapsed()
        })
    }
}

/// std's heap; a cancelled timer stays in it until it surfaces or until half of it is stale. What
/// is known of a timer is as large as in greenroom.
struct Heap {
    heap: BinaryHeap<Reverse<(Instant, u64, DefaultKey)>>,
    timers: SlotMap<DefaultKey, [u64; 6]>,
    order: u64,
    random: Random,
    now: Instant,
}

impl Heap {
    fn new() -> Heap {
        let mut heap = Heap {
            heap: BinaryHeap::new(),
            timers: SlotMap::new(),
            order: 0,
            random: Random::NEW,
            now: Instant::now(),
        };
        for _ in 0..PENDING {
            let delay = heap.random.delay();
            heap.set(delay);
        }
        heap
    }

    fn set(&mut self, delay: Duration) -> DefaultKey {
        let key = self.timers.insert([0; 6]);
        self.order += 1;
        self.heap.push(Reverse((self.now + delay, self.order, key)));
        key
    }

    fn cancel(&mut self, key: DefaultKey) -> bool {
        let found = self.timers.remove(key).is_some();
        if self.heap.len() > 2 * self.timers.len() + 64 {
            self.heap
                .retain(|Reverse((_, _, key))| self.timers.contains_key(*key));
        }
        found
    }

    fn pop_due(&mut self) -> Option<DefaultKey> {
        loop {
            let Reverse((deadline, _, _)) = self.heap.peek()?;
            if *deadline > self.now {
                return None;
            }
            let Reverse((_, _, key)) = self.heap.pop()?;
            if self.timers.remove(key).is_some() {
                return Some(key);
            }
        }
    }

    fn set_and_cancel(&mut self, count: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            let delay = self.random.delay();
            let key = self.set(delay);
            assert!(self.cancel(black_box(key)));
        }
        start.elapsed()
    }

    fn fire(&mut self, count: u64) -> Duration {
        for _ in 0..count {
            self.set(Duration::ZERO);
        }
        let start = Instant::now();
        let mut fired = 0;
        while let Some(key) = self.pop_due() {
            black_box(key);
            fired += 1;
        }
        assert_eq!(fired, count);
        start.elapsed()
    }
}

//! Work that blocks: it runs off the pollers, and its result comes back exactly once, or is counted.

mod util;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use greenroom::testing::{Fault, Faults, Simulation, Stage as TestStage, for_each_seed};
use greenroom::*;
use util::*;

fn one(threads: usize, queue: usize) -> (System, Seen) {
    let system = builder(1).workers(threads, queue).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    (system, probe)
}

/// What an answer does that hands its result to the test.
fn tell<R: Send + 'static>(to: &Sender<R>) -> impl FnOnce(R) -> Job + Send + 'static {
    let to = to.clone();
    |result| Box::new(move |_| Ok(to.send(result).map_err(|_| "the test has ended")?))
}

/// Work that says that it has begun, and waits for a word: `None` if there comes none.
fn held() -> (
    impl FnOnce() -> Option<u32> + Send,
    Receiver<()>,
    Sender<u32>,
) {
    let (begin, begun) = channel();
    let (release, released) = channel();
    let work = move || {
        let _ = begin.send(());
        released.recv_timeout(TIMEOUT).ok()
    };
    (work, begun, release)
}

// ---- on threads ---------------------------------------------------------------------------------

#[test]
fn the_result_comes_back_as_a_message_and_the_poller_goes_on_meanwhile() {
    let (_system, probe) = one(2, 2);
    let (results, seen) = channel();
    let (work, begun, release) = held();
    let answer = tell(&results);
    let poller = probe.run(move |ctx| {
        ctx.offload(work, answer).unwrap();
        thread::current().id()
    });
    next(&begun);
    // It is under way, and the actor takes messages.
    assert_eq!(probe.run(|_| 1), 1);
    assert!(seen.try_recv().is_err());
    release.send(7).unwrap();
    assert_eq!(next(&seen), Ok(Some(7)));

    let (name, of) = channel();
    let answer = tell(&name);
    probe.run(move |ctx| ctx.offload(thread::current, answer).is_ok());
    let worker: Result<thread::Thread, WorkError> = next(&of);
    let worker = worker.unwrap();
    assert_ne!(worker.id(), poller);
    assert!(worker.name().unwrap().contains("-work-"), "{worker:?}");
}

#[test]
fn an_answer_is_made_in_the_actor_that_asked_for_the_work() {
    let (_system, probe) = one(1, 0);
    let (made, seen) = channel();
    let on_poller = probe.run(|ctx| {
        let here = thread::current().id();
        let answer = move |result: Result<(), WorkError>| -> Job {
            let there = thread::current().id();
            Box::new(move |_| Ok(made.send((result, there))?))
        };
        ctx.offload(|| (), answer).unwrap();
        here
    });
    assert_eq!(next(&seen), (Ok(()), on_poller));
}

#[test]
fn a_panic_in_the_work_comes_back_as_such_and_costs_no_thread() {
    let (system, probe) = one(1, 1);
    let (results, seen) = channel();
    for n in 0..3 {
        let answer = tell::<Result<(), WorkError>>(&results);
        probe.run(move |ctx| ctx.offload(move || panic!("no {n}"), answer).is_ok());
        let Err(WorkError::Panicked(what)) = next(&seen) else {
            panic!("it panicked");
        };
        assert_eq!(what, format!("no {n}"));
    }
    assert_eq!(system.stats().panics, 3);
    let answer = tell(&results);
    probe.run(move |ctx| ctx.offload(|| (), answer).is_ok());
    assert_eq!(next(&seen), Ok(()));
}

#[test]
fn a_panic_in_the_answer_is_one_of_its_actor() {
    let (system, probe) = one(1, 0);
    probe.tell(|ctx| {
        ctx.offload(|| 1, |_| -> Job { panic!("of the answer") })?;
        Ok(())
    });
    let CloseReason::Panicked(what) = probe.closed() else {
        panic!("it panicked");
    };
    assert_eq!(what, "of the answer");
    assert_eq!(spawn(&system, 0, |probe| probe).run(|_| 2), 2);
}

#[test]
fn a_full_pool_gives_both_closures_back() {
    let (_system, probe) = one(1, 1);
    let (results, seen) = channel();
    let (first, begun, release) = held();
    let (second, _, release_second) = held();
    let (answers, answer) = ([tell(&results), tell(&results)], tell(&results));
    let refused = probe.run(move |ctx| {
        let [to_first, to_second] = answers;
        ctx.offload(first, to_first).unwrap();
        ctx.offload(second, to_second).unwrap();
        ctx.offload(|| Some(3), answer).unwrap_err()
    });
    assert!(refused.is_full());
    assert_eq!(refused.kind(), NotTakenKind::Full);
    let text = refused.to_string();
    assert!(text.starts_with("offload: as much waits as may"), "{text}");
    let as_error: Box<dyn std::error::Error + Send + Sync> = Box::new(refused);
    drop(as_error);

    next(&begun);
    release.send(1).unwrap();
    release_second.send(2).unwrap();
    assert_eq!([next(&seen), next(&seen)], [Ok(Some(1)), Ok(Some(2))]);

    // What comes back is what was given.
    let (third, _, _release) = held();
    let answers = [tell(&results), tell(&results)];
    let (work, answer) = probe.run(move |ctx| {
        let [to_first, to_second] = answers;
        ctx.offload(third, to_first).unwrap();
        ctx.offload(
            || Some(4),
            |_| -> Job { unreachable!("it is run by the test") },
        )
        .unwrap();
        let refused = ctx.offload(|| Some(5), to_second);
        refused.unwrap_err().into_inner()
    });
    assert_eq!(work(), Some(5));
    drop(answer(Ok(Some(5))));
}

#[test]
fn a_result_whose_actor_has_gone_is_dropped_and_counted() {
    /// Says that it was dropped.
    struct Result_(Sender<()>);
    impl Drop for Result_ {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    let (system, probe) = one(1, 0);
    let (work, begun, release) = held();
    let (dropped, is_dropped) = channel();
    probe.tell(move |ctx| {
        let work = move || (work(), Result_(dropped));
        ctx.offload(work, |_| -> Job { unreachable!("it has gone") })?;
        ctx.close();
        Ok(())
    });
    next(&begun);
    probe.to_the_end();
    assert_eq!(system.stats().unclaimed_work, 0);
    release.send(1).unwrap();
    next(&is_dropped);
    assert_eq!(system.stats().unclaimed_work, 1);
    assert_eq!(system.stats().dead_letters, 0);
}

#[test]
fn work_without_an_answer_is_done_and_its_panic_counted() {
    let (system, probe) = one(1, 8);
    let (done, seen) = channel();
    let to = done.clone();
    probe.run(move |ctx| ctx.system().offload(move || to.send(1).unwrap()).is_ok());
    system
        .handle()
        .offload(|| panic!("nobody is told"))
        .unwrap();
    system
        .handle()
        .offload(move || done.send(2).unwrap())
        .unwrap();
    assert_eq!([next(&seen), next(&seen)], [1, 2]);
    assert_eq!(system.stats().panics, 1);
}

#[test]
fn each_of_many_is_answered_exactly_once() {
    const ACTORS: usize = 8;
    const EACH: usize = 2_000;
    let system = builder(2).workers(4, ACTORS * EACH).build().unwrap();
    let (results, seen) = channel();
    let probes: Vec<_> = (0..ACTORS)
        .map(|n| spawn(&system, n % 2, |probe| probe))
        .collect();
    for (of, probe) in probes.iter().enumerate() {
        let results = results.clone();
        probe.tell(move |ctx| {
            for n in 0..EACH {
                ctx.offload(move || of * EACH + n, tell(&results))?;
            }
            Ok(())
        });
    }
    drop(results);
    let mut all: Vec<usize> = (0..ACTORS * EACH).map(|_| next(&seen).unwrap()).collect();
    all.sort();
    assert!(all.into_iter().eq(0..ACTORS * EACH));
    assert_eq!(system.stats().unclaimed_work, 0);
}

// ---- the end ------------------------------------------------------------------------------------

#[test]
fn a_stop_waits_for_work_and_delivers_its_answer() {
    let (system, probe) = one(1, 1);
    let (results, seen) = channel();
    let (first, begun, release) = held();
    let answer = tell(&results);
    // The answer has more work done, as whoever saves several things does.
    probe.tell(move |ctx| {
        ctx.offload(first, |_| -> Job {
            Box::new(move |ctx| Ok(ctx.offload(|| 2, answer)?))
        })?;
        Ok(())
    });
    next(&begun);
    system.handle().stop(TIMEOUT);
    let running = thread::spawn(move || system.run());
    // The stop has reached the actor, and the work is still waited for.
    probe.until(|event| matches!(event, Event::Stopping).then_some(()));
    release.send(1).unwrap();
    assert_eq!(next(&seen), Ok(2));
    running.join().unwrap().unwrap();
    assert!(matches!(probe.closed(), CloseReason::Stopped));
}

#[test]
fn at_the_deadline_work_that_has_not_begun_is_dropped_and_other_is_left_to_itself() {
    let (system, probe) = one(1, 8);
    let handle = system.handle();
    let (first, begun, release) = held();
    let ran = Arc::new(AtomicUsize::new(0));
    let count = ran.clone();
    probe.tell(move |ctx| {
        ctx.offload(first, |_| -> Job { unreachable!("it has gone") })?;
        for _ in 0..3 {
            let count = count.clone();
            let work = move || count.fetch_add(1, Ordering::Relaxed);
            ctx.offload(work, |_| -> Job { unreachable!("it has gone") })?;
        }
        Ok(())
    });
    next(&begun);
    let count = ran.clone();
    let alone = move || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    handle.offload(alone).unwrap();
    let start = Instant::now();
    handle.stop(Duration::from_millis(20));
    system.run().unwrap();
    assert!(start.elapsed() < TIMEOUT / 2, "the work is not waited for");
    assert_eq!(handle.stats().unclaimed_work, 4);
    let refused = handle.offload(|| ()).unwrap_err();
    assert_eq!(refused.kind(), NotTakenKind::Stopped);
    release.send(1).unwrap();
    wait_until("the work under way has ended", || {
        handle.stats().unclaimed_work == 5
    });
    assert_eq!(ran.load(Ordering::Relaxed), 0);
}

/// Threads of this process by the first part of their name.
fn threads(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    tasks
        .filter_map(|task| name(task.ok()?).ok())
        .filter(|name| name.starts_with(prefix))
        .count()
}

#[test]
fn no_thread_is_there_before_the_first_work_and_none_after_the_end() {
    let system = System::builder().pollers(1).name("lazy").build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    assert_eq!(threads("lazy-work"), 0);
    let (results, seen) = channel();
    let answer = tell(&results);
    probe.run(move |ctx| ctx.offload(|| (), answer).is_ok());
    next(&seen).unwrap();
    assert!((1..=2).contains(&threads("lazy-work")), "one and a spare");
    system.handle().stop(TIMEOUT);
    system.run().unwrap();
    // The kernel tells of a thread that is joined before it takes it from the list.
    wait_until("all have ended", || threads("lazy-work") == 0);
}

#[test]
fn a_system_dropped_inside_a_callback_closes_its_pool() {
    let (inner, inner_probe) = one(1, 0);
    let (results, _seen) = channel();
    let answer = tell(&results);
    inner_probe.run(move |ctx| ctx.offload(|| (), answer).is_ok());
    let handle = inner.handle();
    let (_outer, probe) = one(1, 0);
    probe.run(move |_| drop(inner));
    wait_until("the pool is closed", || {
        let offered = handle.offload(|| ());
        offered.is_err_and(|refused| refused.kind() == NotTakenKind::Stopped)
    });
}

/// How much address space the process may have from here on.
fn limit_memory(bytes: libc::rlim_t) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the structure is whole, and the call keeps nothing of it.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(set, 0);
}

#[test]
fn where_no_thread_can_be_started_the_closures_come_back() {
    in_child(
        "where_no_thread_can_be_started_the_closures_come_back",
        100,
        || {
            let (_system, probe) = one(2, 2);
            let (results, seen) = channel();
            let answer = tell(&results);
            let refused = probe.run(move |ctx| {
                // No room for a stack.
                limit_memory(1 << 16);
                let refused = ctx.offload(|| 1, answer);
                limit_memory(libc::RLIM_INFINITY);
                refused.unwrap_err()
            });
            assert_eq!(refused.kind(), NotTakenKind::NoThread);
            assert!(refused.to_string().contains("no thread"), "{refused}");
            // It is not for ever.
            let (work, answer) = refused.into_inner();
            probe.run(move |ctx| ctx.offload(work, answer).is_ok());
            assert_eq!(next(&seen), Ok(1));
        },
    );
}

// ---- on a stage ---------------------------------------------------------------------------------

/// Adds up what its lines say, by offloaded work.
#[derive(Default)]
struct Adder {
    sum: u64,
    panicked: u64,
}

impl Actor for Adder {
    type Message = Result<u64, WorkError>;

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(20)? {
            let line = String::from_utf8(line.to_vec())?;
            let number = line.clone();
            let work = move || number.parse::<u64>().unwrap();
            if ctx.offload(work, |number| number).is_err() {
                ctx.write(format!("busy {line}\n"));
            }
        }
        Ok(())
    }

    fn message(&mut self, number: Self::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        match number {
            Ok(number) => {
                self.sum += number;
                ctx.write(format!("{number}\n"));
            }
            Err(WorkError::Panicked(_)) => self.panicked += 1,
            Err(_) => unreachable!("there is no other error"),
        }
        Ok(())
    }
}

#[test]
fn on_a_stage_work_waits_until_the_test_runs_it() {
    let mut stage = TestStage::new(Adder::default());
    stage.receive("1\n2\n");
    assert_eq!((stage.offloaded(), stage.actor().sum), (2, 0));
    assert_eq!(stage.run_offloaded(), 2);
    assert_eq!((stage.offloaded(), stage.actor().sum), (0, 3));
    assert_eq!(stage.output(), "1\n2\n");

    let builder = System::builder().workers(1, 0);
    let mut stage = TestStage::with_builder(&builder, ConnectionOptions::new(), Adder::default());
    stage.receive("3\n4\n");
    assert_eq!(stage.output(), "busy 4\n");
    assert_eq!(stage.run_offloaded(), 1);
    assert_eq!(stage.actor().sum, 3);
    assert_eq!(stage.run_offloaded(), 0);
}

#[test]
fn on_a_stage_a_panic_of_the_work_is_shown_when_the_actor_has_been_told() {
    let mut stage = TestStage::new(Adder::default());
    stage.receive("one\n");
    let run = catch_unwind(AssertUnwindSafe(|| stage.run_offloaded()));
    assert!(run.is_err());
    assert_eq!(stage.actor().panicked, 1);
    assert!(stage.reason().is_none(), "the actor lives");
}

#[test]
fn on_a_stage_the_answer_to_an_actor_that_has_gone_is_counted() {
    let mut stage = TestStage::new(Adder::default());
    stage.receive("1\n");
    stage.reset();
    assert!(stage.reason().is_some());
    assert_eq!(stage.run_offloaded(), 1);
    assert_eq!(stage.stats().unclaimed_work, 1);
    let stage = {
        let mut stage = TestStage::new(Adder::default());
        stage.receive("1\n");
        let handle = stage.handle();
        drop(stage);
        handle
    };
    assert_eq!(stage.stats().unclaimed_work, 1, "dropped unbegun");
}

// ---- by seeds -----------------------------------------------------------------------------------

/// Has numbers added up, each until it is not refused, and takes exactly one answer for each.
struct Asker {
    numbers: u64,
    waiting: BTreeSet<u64>,
    finished: Rc<Cell<u64>>,
}

impl Actor for Asker {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        for number in 0..self.numbers {
            self.waiting.insert(number);
            ctx.write(format!("{number}\n"));
        }
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(20)? {
            let line = std::str::from_utf8(line)?;
            if let Some(refused) = line.strip_prefix("busy ") {
                let number = refused.parse()?;
                assert!(self.waiting.contains(&number), "{number} was answered");
                ctx.write(format!("{number}\n"));
                continue;
            }
            let number = line.parse()?;
            assert!(self.waiting.remove(&number), "{number} came twice");
        }
        if self.waiting.is_empty() {
            self.finished.set(self.finished.get() + 1);
            ctx.close();
        }
        Ok(())
    }
}

#[test]
fn by_seeds_each_piece_of_work_is_answered_once_however_busy_the_pool() {
    const CLIENTS: u64 = 5;
    for_each_seed(60, |simulation| {
        simulation.faults(Faults::harmless().with(Fault::Busy));
        let system = simulation.system(System::builder().pollers(2).workers(2, 4));
        system
            .listen("127.0.0.1:9000", |_peer| Adder::default())
            .unwrap();
        let finished = Rc::new(Cell::new(0));
        for _ in 0..CLIENTS {
            let asker = Asker {
                numbers: 1 + simulation.random().below(8),
                waiting: BTreeSet::new(),
                finished: finished.clone(),
            };
            simulation.connect("127.0.0.1:9000", asker);
        }
        let all = |_: &mut Simulation| finished.get() == CLIENTS;
        simulation.run_until(Duration::from_secs(300), all);
        assert_eq!(system.stats().unclaimed_work, 0);
    });
}

/// Has work done and counts what comes of it.
struct Customer {
    pieces: u64,
    taken: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    ran: Arc<AtomicU64>,
}

impl Actor for Customer {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        for _ in 0..self.pieces {
            let ran = self.ran.clone();
            let work = move || ran.fetch_add(1, Ordering::Relaxed);
            let taken = ctx.offload(work, |result| {
                result.unwrap();
            });
            self.taken
                .fetch_add(u64::from(taken.is_ok()), Ordering::Relaxed);
        }
        Ok(())
    }

    fn message(&mut self, _: (), ctx: &mut Context<'_, Self>) -> Outcome {
        self.answered.fetch_add(1, Ordering::Relaxed);
        // Some go before all is answered.
        if self.pieces > 5 {
            ctx.close();
        }
        Ok(())
    }
}

#[test]
fn by_seeds_whatever_is_taken_is_answered_or_counted_whenever_the_end_comes() {
    let mut seen = [false; 3];
    for seed in 0..100 {
        let mut simulation = Simulation::new(seed);
        simulation.faults(Faults::harmless().with(Fault::Busy));
        let system = simulation.system(System::builder().pollers(2).workers(2, 20));
        let counters = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
        for _ in 0..4 {
            let pieces = 1 + simulation.random().below(8);
            let [taken, answered, ran] = counters.clone();
            system.spawn(move || Customer {
                pieces,
                taken,
                answered,
                ran,
            });
        }
        let time = Duration::from_millis(simulation.random().below(100));
        simulation.run_for(time);
        let time = Duration::from_millis(simulation.random().below(2_000));
        simulation.finish(time);
        drop(simulation);
        let [taken, answered, ran] = counters.map(|counter| counter.load(Ordering::Relaxed));
        let unclaimed = system.stats().unclaimed_work;
        assert_eq!(taken, answered + unclaimed, "seed {seed}");
        assert!(answered <= ran && ran <= taken, "seed {seed}");
        seen[0] |= unclaimed > 0;
        seen[1] |= ran < taken;
        seen[2] |= unclaimed == 0;
    }
    assert_eq!(seen, [true; 3], "unclaimed, unbegun and complete runs");
}

/// Has one piece of work done after the other when the system stops, until one is refused.
struct Saver {
    left: u32,
}

impl Saver {
    fn save(&mut self, ctx: &mut Context<'_, Self>) {
        if self.left > 0 {
            self.left -= 1;
            let _ = ctx.offload(|| (), |_| ());
        }
    }
}

impl Actor for Saver {
    type Message = ();

    fn stopping(&mut self, _: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        self.save(ctx);
        Ok(())
    }

    fn message(&mut self, (): (), ctx: &mut Context<'_, Self>) -> Outcome {
        self.save(ctx);
        Ok(())
    }
}

#[test]
fn by_seeds_a_stop_waits_for_work_and_no_longer() {
    const PIECES: u32 = 5;
    for_each_seed(60, |simulation| {
        let system = simulation.system(System::builder().pollers(2).workers(1, 0));
        for _ in 0..3 {
            system.spawn(|| Saver { left: PIECES });
        }
        simulation.run_for(Duration::from_millis(1));
        simulation.faults(Faults::none().with(Fault::Busy));
        let start = simulation.elapsed();
        system.handle().stop(Duration::from_secs(600));
        simulation.run_until(Duration::from_secs(300), |_| {
            let stats = system.stats();
            stats.opened == stats.closed
        });
        // No piece takes more than a second.
        let most = Duration::from_secs(u64::from(3 * PIECES) + 1);
        assert!(simulation.elapsed() - start < most, "it waited for nothing");
        assert_eq!(system.stats().unclaimed_work, 0);
    });
}

#[test]
fn a_seed_is_the_same_run_again() {
    let run = |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.faults(Faults::harmless().with(Fault::Busy));
        let system = simulation.system(System::builder().pollers(2).workers(2, 2));
        system
            .listen("127.0.0.1:9000", |_peer| Adder::default())
            .unwrap();
        let client = simulation.client("127.0.0.1:9000");
        client.send("1\n2\n3\n4\n5\n6\n");
        simulation.run_for(Duration::from_secs(5));
        simulation.finish(Duration::from_secs(60));
        simulation.trace().to_string()
    };
    for seed in 0..10 {
        let trace = run(seed);
        assert_eq!(trace, run(seed));
        assert!(trace.contains("a piece of work"), "{trace}");
    }
}

//! What belongs to one poller: the values that its actors share, closures that are run there from
//! outside, and ticks.

mod util;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use greenroom::testing::{Fault, Faults, Simulation, Stage as TestStage, for_each_seed};
use greenroom::*;
use util::*;

/// Not `Send`: it never leaves its poller.
struct Count {
    poller: usize,
    n: Rc<Cell<u32>>,
}

fn count(poller: usize) -> Count {
    let n = Rc::new(Cell::new(0));
    Count { poller, n }
}

// ---- values -------------------------------------------------------------------------------------

#[test]
fn a_value_is_made_once_for_each_poller_and_shared_by_its_actors() {
    let made = Arc::new(Mutex::new(Vec::new()));
    let making = made.clone();
    let system = builder(2).local(move |poller| {
        making.lock().unwrap().push(poller);
        count(poller)
    });
    let system = system.build().unwrap();
    let on = |poller| spawn(&system, poller, |probe| probe);
    let (one, two, other) = (on(1), on(1), on(0));
    let add = |probe: &Seen| {
        probe.run(|ctx| {
            let count = ctx.local::<Count>();
            let count = count.borrow();
            // The context is free meanwhile.
            assert_eq!(count.poller, ctx.poller());
            ctx.set_timer(TIMEOUT);
            count.n.set(count.n.get() + 1);
            count.n.get()
        })
    };
    assert!(made.lock().unwrap().is_empty(), "nobody has asked");
    assert_eq!([add(&one), add(&two), add(&one)], [1, 2, 3]);
    assert_eq!(*made.lock().unwrap(), [1]);
    assert_eq!(add(&other), 1);
    assert_eq!(*made.lock().unwrap(), [1, 0]);
}

#[test]
fn a_value_of_which_the_builder_knows_nothing_is_made_by_who_asks_first() {
    #[derive(Default)]
    struct Seen_(u32);

    let system = builder(1).local(|_| 7_u8).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    let other = spawn(&system, 0, |probe| probe);
    probe.run(|ctx| ctx.local_or(Seen_::default).borrow_mut().0 += 1);
    let seen = other.run(|ctx| {
        ctx.local_or(|| -> Seen_ { unreachable!("it is there") })
            .borrow()
            .0
    });
    assert_eq!(seen, 1);
    // Now that it is there.
    assert_eq!(other.run(|ctx| ctx.local::<Seen_>().borrow().0), 1);
    // The builder's way comes first.
    assert_eq!(other.run(|ctx| *ctx.local_or(|| 8_u8).borrow()), 7);
}

#[test]
fn a_value_that_nobody_can_make_is_an_error_of_the_caller() {
    let (probe, _system) = {
        let system = builder(1).build().unwrap();
        (spawn(&system, 0, |probe| probe), system)
    };
    probe.tell(|ctx| {
        ctx.local::<Count>();
        Ok(())
    });
    let CloseReason::Panicked(what) = probe.closed() else {
        panic!("it panicked");
    };
    assert!(what.starts_with("local: nothing says how"), "{what}");
    assert!(what.contains("Count"), "{what}");
}

#[test]
fn a_value_is_borrowed_once_at_a_time_and_free_again_after_a_panic() {
    let system = builder(1).local(count).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    probe.tell(|ctx| {
        let count = ctx.local::<Count>();
        let _borrowed = count.borrow_mut();
        let again = ctx.local::<Count>();
        drop(again.borrow());
        Ok(())
    });
    let CloseReason::Panicked(what) = probe.closed() else {
        panic!("it panicked");
    };
    assert!(what.contains("borrowed already"), "{what}");
    let next = spawn(&system, 0, |probe| probe);
    next.run(|ctx| ctx.local::<Count>().borrow_mut().n.set(1));
}

#[test]
fn a_panic_while_a_value_is_made_ends_who_asked_and_the_next_one_tries_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let system = builder(1).local(move |poller| {
        assert!(counted.fetch_add(1, Ordering::Relaxed) > 0, "the first");
        count(poller)
    });
    let system = system.build().unwrap();
    let first = spawn(&system, 0, |probe| probe);
    first.tell(|ctx| {
        ctx.local::<Count>();
        Ok(())
    });
    assert!(matches!(first.closed(), CloseReason::Panicked(_)));
    let second = spawn(&system, 0, |probe| probe);
    assert_eq!(second.run(|ctx| ctx.local::<Count>().borrow().poller), 0);
    assert_eq!(system.stats().panics, 1);
}

/// Says where it was dropped, by name.
struct Drops(&'static str, Sender<(&'static str, thread::ThreadId)>);

impl Drop for Drops {
    fn drop(&mut self) {
        let _ = self.1.send((self.0, thread::current().id()));
        if self.0 == "second" {
            panic!("in a destructor");
        }
    }
}

#[test]
fn values_are_dropped_on_their_poller_after_its_actors_the_last_made_first() {
    struct First(#[allow(dead_code)] Drops);
    struct Second(#[allow(dead_code)] Drops);

    let system = builder(1).build().unwrap();
    let handle = system.handle();
    let (dropped, drops) = channel();
    let of_actor = dropped.clone();
    let probe = spawn(&system, 0, move |probe| {
        let kept = RefCell::new(Some(Drops("actor", of_actor)));
        probe.on_drop(move || drop(kept.take()))
    });
    let poller = probe.run(move |ctx| {
        let (first, second) = (dropped.clone(), dropped);
        ctx.local_or(|| First(Drops("first", first)));
        ctx.local_or(|| Second(Drops("second", second)));
        thread::current().id()
    });
    drop(system);
    let order = ["actor", "second", "first"].map(|name| (name, poller));
    assert_eq!([next(&drops), next(&drops), next(&drops)], order);
    assert_eq!(
        handle.stats().panics,
        1,
        "contained, and the others dropped"
    );
}

#[test]
fn a_stage_shows_values_and_makes_them_as_a_builder_says() {
    let builder = System::builder().local(count);
    let (events, _seen) = channel();
    let mut stage = TestStage::without_socket_with_builder(&builder, Probe::new(events));
    assert!(stage.local::<Count>().is_none());
    stage.send(Box::new(|ctx| {
        ctx.local::<Count>().borrow().n.set(5);
        Ok(())
    }));
    assert_eq!(stage.local::<Count>().unwrap().borrow().n.get(), 5);
}

// ---- closures from outside ----------------------------------------------------------------------

#[test]
fn closures_run_on_the_poller_they_are_for_in_their_order() {
    let system = builder(2).local(count).build().unwrap();
    let handle = system.handle();
    let (ran, seen) = channel();
    let probe = spawn(&system, 1, |probe| probe);
    let poller = probe.run(|_| thread::current().id());
    for n in 0..1_000 {
        let ran = ran.clone();
        let run = move |ctx: &mut PollerContext<'_>| {
            let of = (n, ctx.poller(), thread::current().id());
            ran.send(of).unwrap();
        };
        handle.run_on(1, run).unwrap();
    }
    for n in 0..1_000 {
        assert_eq!(next(&seen), (n, 1, poller));
    }
    let (ran, seen) = channel();
    let refused = handle.run_on_all(move |ctx| {
        let count = ctx.local::<Count>();
        count.borrow().n.set(9);
        ran.send(ctx.poller()).unwrap();
    });
    assert!(refused.is_empty());
    let mut pollers = [next(&seen), next(&seen)];
    pollers.sort();
    assert_eq!(pollers, [0, 1]);
    assert_eq!(probe.run(|ctx| ctx.local::<Count>().borrow().n.get()), 9);
}

/// Not `Send`.
struct Here(Rc<Sender<usize>>);

impl Actor for Here {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(self.0.send(ctx.poller())?)
    }
}

#[test]
fn a_closure_spawns_actors_that_stay_also_when_it_panics_then() {
    let system = builder(2).build().unwrap();
    let (opened, seen) = channel();
    let run = move |ctx: &mut PollerContext<'_>| {
        ctx.spawn(Here(Rc::new(opened)));
        panic!("after the spawn");
    };
    system.handle().run_on(1, run).unwrap();
    assert_eq!(next(&seen), 1);
    assert_eq!(system.stats().panics, 1);
    assert_eq!(system.stats().opened, 1);
}

#[test]
fn a_closure_comes_back_where_as_many_wait_as_messages_may() {
    let system = builder(1).mailbox_bound(2).build().unwrap();
    let handle = system.handle();
    let probe = spawn(&system, 0, |probe| probe);
    let held = hold(&probe);
    let (ran, seen) = channel();
    let run = |n| {
        let ran = ran.clone();
        handle.run_on(0, move |_| ran.send(n).unwrap())
    };
    run(1).unwrap();
    run(2).unwrap();
    let refused = run(3).unwrap_err();
    assert!(refused.is_full());
    assert!(refused.to_string().starts_with("run_on: "), "{refused}");
    // What is not asked for by a user finds room.
    spawn_behind(&system);
    drop(held);
    assert_eq!([next(&seen), next(&seen)], [1, 2]);
    wait_until("there is room again", || run(4).is_ok());
    assert_eq!(next(&seen), 4);
    handle.run_on(0, refused.into_inner()).unwrap();
    assert_eq!(next(&seen), 3);
}

/// An actor type of its own, whose mailbox is made by a command.
fn spawn_behind(system: &System) {
    let (opened, _) = channel();
    system.spawn(move || Here(Rc::new(opened)));
}

#[test]
fn closures_that_the_end_overtakes_are_counted_and_later_ones_come_back() {
    let system = builder(1).build().unwrap();
    let handle = system.handle();
    let probe = spawn(&system, 0, |probe| probe);
    let held = hold(&probe);
    // Further than one turn takes.
    let ran = Arc::new(AtomicUsize::new(0));
    handle.stop(Duration::ZERO);
    for _ in 0..1_000 {
        let ran = ran.clone();
        handle
            .run_on(0, move |_| {
                ran.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
    }
    drop(held);
    system.run().unwrap();
    let ran = ran.load(Ordering::Relaxed) as u64;
    assert_eq!(ran + handle.stats().dead_letters, 1_000);
    assert!(ran < 1_000, "the end comes first");
    let refused = handle.run_on(0, |_| ()).unwrap_err();
    assert_eq!(refused.kind(), NotTakenKind::Stopped);
    assert_eq!(handle.run_on_all(|_| ()), [0]);
}

/// Has closures run on all pollers, its own among them, each time a closure tells it to.
struct Runner {
    left: u32,
    taken: Arc<AtomicUsize>,
    ran: Arc<AtomicUsize>,
}

impl Actor for Runner {
    type Message = ();

    fn message(&mut self, (): (), ctx: &mut Context<'_, Self>) -> Outcome {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let (addr, ran) = (ctx.addr(), self.ran.clone());
        let refused = ctx.system().run_on_all(move |poller| {
            ran.fetch_add(1, Ordering::Relaxed);
            *poller.local_or(|| 0_u64).borrow_mut() += 1;
            let _ = addr.send(());
        });
        let taken = ctx.system().pollers() - refused.len();
        self.taken.fetch_add(taken, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn by_seeds_each_closure_is_run_once_or_counted_whenever_the_end_comes() {
    let mut seen = [false; 2];
    for seed in 0..60 {
        let mut simulation = Simulation::new(seed);
        simulation.faults(Faults::harmless());
        let system = simulation.system(System::builder().pollers(3).mailbox_bound(8));
        let (taken, ran) = (Arc::default(), Arc::default());
        let (takes, runs) = (Arc::clone(&taken), Arc::clone(&ran));
        let runner = system.spawn(move || Runner {
            left: 50,
            taken: takes,
            ran: runs,
        });
        runner.send(()).unwrap();
        // At any of its steps, or when all is done.
        let time = Duration::from_micros(1 << simulation.random().below(20));
        simulation.run_for(time);
        let handle = system.handle();
        let sent = handle.stats().dead_letters;
        assert_eq!(sent, 0, "seed {seed}");
        handle.stop(Duration::ZERO);
        simulation.finish(Duration::from_secs(60));
        let (taken, ran) = (taken.load(Ordering::Relaxed), ran.load(Ordering::Relaxed));
        let dead = handle.stats().dead_letters as usize;
        // Word to the runner may be among the dead letters, too, of each that ran.
        assert!(taken - ran <= dead && dead <= taken, "seed {seed}");
        seen[usize::from(ran < taken)] = true;
    }
    assert_eq!(seen, [true; 2], "all were run, and some were not");
}

#[test]
fn a_poller_that_is_not_there_is_an_error_of_the_caller() {
    let system = builder(1).build().unwrap();
    let handle = system.handle();
    let run = catch_unwind(AssertUnwindSafe(|| handle.run_on(1, |_| ()).is_ok()));
    assert!(run.is_err());
}

// ---- ticks --------------------------------------------------------------------------------------

const PERIOD: Duration = Duration::from_millis(2);

#[test]
fn a_builders_tick_comes_on_every_poller_until_the_end() {
    let (ticked, ticks) = channel();
    let system = builder(3).local(count).tick(PERIOD, move |ctx| {
        let count = ctx.local::<Count>();
        count.borrow().n.set(count.borrow().n.get() + 1);
        let _ = ticked.send((ctx.poller(), count.borrow().n.get()));
    });
    let system = system.build().unwrap();
    let mut seen = [0; 3];
    while seen.iter().any(|seen| *seen < 5) {
        let (poller, n) = next(&ticks);
        seen[poller] += 1;
        assert_eq!(n, seen[poller]);
    }
    let handle = system.handle();
    assert_eq!(handle.stats().opened, 3);
    handle.stop(TIMEOUT);
    system.run().unwrap();
    // The closure has gone with the system.
    while ticks.recv_timeout(TIMEOUT).is_ok() {}
    assert_eq!(handle.stats().closed, 3);
}

#[test]
fn a_tick_goes_on_after_a_panic_and_ends_when_it_is_told_to() {
    let system = builder(2).build().unwrap();
    let (ticked, ticks) = channel();
    let mut n = 0;
    let tick = system.handle().every(PERIOD, move |_| {
        n += 1;
        let _ = ticked.send(n);
        assert!(n % 2 == 0, "every other one");
    });
    for n in 1..=6 {
        assert_eq!(next(&ticks), n);
    }
    assert!(system.stats().panics >= 3);
    tick.close();
    wait_until("the tick has ended", || tick.is_gone());
    while ticks.recv_timeout(TIMEOUT).is_ok() {}
}

#[test]
fn a_period_of_nothing_is_an_error_of_the_caller() {
    let system = builder(1).build().unwrap();
    let handle = system.handle();
    let every = || drop(handle.every(Duration::ZERO, |_| ()));
    assert!(catch_unwind(AssertUnwindSafe(every)).is_err());
    let tick = || drop(System::builder().tick(Duration::ZERO, |_| ()));
    assert!(catch_unwind(AssertUnwindSafe(tick)).is_err());
}

#[test]
fn by_seeds_ticks_do_not_drift_and_those_missed_are_not_made_up_for() {
    const EVERY: Duration = Duration::from_millis(100);
    let missed = Cell::new(0);
    for_each_seed(20, |simulation| {
        simulation.faults(Faults::none().with(Fault::Stall));
        let system = simulation.system(System::builder().pollers(2));
        let start = simulation.now();
        let times = Arc::new(Mutex::new(Vec::new()));
        let seen = times.clone();
        system.handle().every_on(1, EVERY, move |ctx| {
            seen.lock().unwrap().push(ctx.now() - start);
        });
        // Something for the pollers to be stalled at.
        system
            .handle()
            .every_on(1, Duration::from_millis(1), |_| ());
        simulation.run_for(Duration::from_secs(20));
        simulation.heal();
        simulation.run_for(Duration::from_secs(3));
        let healed = times.lock().unwrap().len();
        simulation.run_for(Duration::from_secs(10));
        let times = times.lock().unwrap();
        // The first period begins when the tick is opened, in the first turn.
        let phase = |time: &Duration| time.as_micros() % EVERY.as_micros();
        for time in &times[healed..] {
            assert!(phase(time) < 5_000, "{time:?}");
        }
        assert_eq!(times.len() - healed, 100);
        let whole = times[healed - 1].as_millis() / EVERY.as_millis();
        assert!(healed as u128 <= whole, "{healed} in {whole} periods");
        missed.set(missed.get() + whole - healed as u128);
    });
    assert!(
        missed.get() > 0,
        "none was missed: this test has seen nothing"
    );
}

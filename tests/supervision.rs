//! Actors that are made anew when they panic: under one address, with what waits for them.

mod util;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenroom::testing::{Probe as Other, Stage as TestStage, for_each_seed};
use greenroom::*;
use util::*;

const MS: Duration = Duration::from_millis(1);

/// What has happened since the last look, in short.
fn told(seen: &Receiver<Event>) -> Vec<String> {
    let text = |event| match event {
        Event::Opened(_) => "opened".to_owned(),
        Event::Timer(_) => "timer".to_owned(),
        Event::Closed(reason) => format!("closed: {reason}"),
        other => format!("{other:?}").to_lowercase(),
    };
    seen.try_iter().map(text).collect()
}

type Supervision = TestStage<Supervised<Probe>>;

fn stage(restart: Restart) -> (Supervision, Receiver<Event>) {
    stage_of(restart, |probe| probe)
}

fn stage_of(
    restart: Restart,
    prepare: impl Fn(Probe) -> Probe + 'static,
) -> (Supervision, Receiver<Event>) {
    let (events, seen) = channel();
    let make = move || prepare(Probe::new(events.clone()));
    let stage = TestStage::without_socket(Supervised::new(restart, make));
    assert_eq!(told(&seen), ["opened"]);
    (stage, seen)
}

/// Runs what makes a stage panic to show a panic.
#[track_caller]
fn shown(f: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(f)).is_err(), "no panic");
}

#[track_caller]
fn fail(stage: &mut Supervision) {
    shown(|| stage.send(panics()));
}

fn panics() -> Job {
    Box::new(|_| panic!("told to"))
}

const FAILED: [&str; 2] = ["closed: a callback panicked: told to", "dropped"];

// ---- what stays ---------------------------------------------------------------------------------

#[test]
fn what_waits_stays_in_its_order_and_only_the_message_of_the_panic_is_lost() {
    let system = builder(1).build().unwrap();
    let (events, seen) = channel();
    let restart = Restart::new().backoff(MS, MS);
    let addr = system
        .handle()
        .supervise(restart, move || Probe::new(events.clone()));
    let Event::Opened(first) = next(&seen) else {
        panic!("it is opened");
    };
    assert_eq!(first, addr);
    let (said, heard) = channel();
    let say = |n: u32| -> Job {
        let said = said.clone();
        Box::new(move |_| Ok(said.send(n)?))
    };
    for n in 0..1_000 {
        let job = match n % 300 {
            299 => panics(),
            _ => say(n),
        };
        assert!(send_patiently(&addr, job));
    }
    for n in (0..1_000).filter(|n| n % 300 != 299) {
        assert_eq!(next(&heard), n);
    }
    for _ in 0..3 {
        assert!(matches!(
            next(&seen),
            Event::Closed(CloseReason::Panicked(_))
        ));
        assert!(matches!(next(&seen), Event::Dropped));
        let Event::Opened(again) = next(&seen) else {
            panic!("it is opened again");
        };
        assert_eq!(again, addr, "the address is the same");
    }
    let stats = system.stats();
    assert_eq!((stats.restarts, stats.panics), (3, 3));
    assert_eq!((stats.opened, stats.closed, stats.dead_letters), (1, 0, 0));
}

#[test]
fn messages_take_their_places_while_the_next_one_is_not_there() {
    let builder = System::builder().mailbox_bound(4);
    let (events, seen) = channel();
    let make = move || Probe::new(events.clone());
    let actor = Supervised::new(Restart::new().backoff(10 * MS, 10 * MS), make);
    let mut stage = TestStage::without_socket_with_builder(&builder, actor);
    fail(&mut stage);
    let (said, heard) = channel();
    let mut sent = 0;
    let refused = loop {
        let said = said.clone();
        let sending = stage.addr().send(Box::new(move |_| Ok(said.send(sent)?)));
        stage.run();
        match sending {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(refused.is_full() && (2..=4).contains(&sent), "{sent}");
    assert!(heard.try_recv().is_err());
    stage.advance(10 * MS);
    assert!(heard.try_iter().eq(0..sent));
    assert!(stage.addr().send(refused.into_message()).is_ok());
    drop(seen);
}

#[test]
fn an_answer_to_the_one_that_failed_comes_to_the_next() {
    let (mut stage, seen) = stage(Restart::new());
    let (answered, answer) = channel();
    let mut other = Other::<Reply<u32>>::new();
    let addr = other.addr::<Asked>();
    stage.send(Box::new(move |ctx| {
        let to_offload = answered.clone();
        ctx.ask(
            &addr,
            3 * Duration::from_secs(1),
            |reply| reply,
            move |result| Box::new(move |_| Ok(answered.send(result)?)),
        );
        ctx.offload(
            || 2,
            move |result| Box::new(move |_| Ok(to_offload.send(Ok(result?))?)),
        )?;
        Ok(())
    }));
    fail(&mut stage);
    stage.advance(10 * MS);
    assert_eq!(stage.run_offloaded(), 1);
    assert_eq!(answer.try_recv(), Ok(Ok(2)));
    other.take().unwrap().send(1).unwrap();
    stage.run();
    assert_eq!(answer.try_recv(), Ok(Ok(1)));
    drop(seen);
}

/// Takes questions.
struct Asked;

impl Actor for Asked {
    type Message = Reply<u32>;
}

#[test]
fn the_timeout_of_a_question_outlives_the_one_that_asked() {
    let (mut stage, _seen) = stage(Restart::new());
    let (answered, answer) = channel();
    let other = Other::<Reply<u32>>::new();
    let addr = other.addr::<Asked>();
    stage.send(Box::new(move |ctx| {
        ctx.ask(
            &addr,
            500 * MS,
            |reply| reply,
            move |result| Box::new(move |_| Ok(answered.send(result)?)),
        );
        Ok(())
    }));
    fail(&mut stage);
    stage.advance(499 * MS);
    assert!(answer.try_recv().is_err());
    stage.advance(MS);
    assert_eq!(answer.try_recv(), Ok(Err(AskError::TimedOut)));
}

#[test]
fn timers_and_monitors_of_the_one_that_failed_end_with_it() {
    let (mut stage, seen) = stage_of(Restart::new(), |probe| {
        // What its `closed` asks for, too.
        probe.on_closed(|_, ctx| {
            ctx.set_timer(15 * MS);
        })
    });
    let other = Other::<()>::new();
    let recipient = other.recipient::<()>();
    stage.send(Box::new(move |ctx| {
        ctx.set_timer(20 * MS);
        ctx.set_interval(30 * MS);
        ctx.monitor(&recipient, |_| -> Job { unreachable!("it has gone") });
        Ok(())
    }));
    fail(&mut stage);
    assert_eq!(told(&seen), FAILED);
    stage.advance(10 * MS);
    assert_eq!(told(&seen), ["opened"]);
    stage.send(Box::new(|ctx| {
        ctx.set_timer(100 * MS);
        Ok(())
    }));
    drop(other);
    stage.advance(99 * MS);
    assert!(told(&seen).is_empty());
    stage.advance(MS);
    assert_eq!(told(&seen), ["timer"]);
}

// ---- how often and how soon ---------------------------------------------------------------------

#[test]
fn each_restart_comes_after_twice_the_time_and_past_the_limit_it_has_gone() {
    let restart = Restart::new()
        .at_most(4, Duration::from_secs(10))
        .backoff(10 * MS, 35 * MS);
    let (mut stage, seen) = stage(restart);
    for after in [10, 20, 35, 35] {
        fail(&mut stage);
        assert_eq!(told(&seen), FAILED);
        stage.advance((after - 1) * MS);
        assert!(told(&seen).is_empty(), "before {after} ms");
        stage.advance(MS);
        assert_eq!(told(&seen), ["opened"], "after {after} ms");
    }
    assert!(!stage.addr().is_gone());
    fail(&mut stage);
    let closed = &FAILED[..1];
    assert_eq!(told(&seen), closed, "told once, and nothing after it");
    assert!(stage.addr().is_gone());
    assert!(matches!(stage.reason(), Some(CloseReason::Panicked(_))));
    let stats = stage.stats();
    assert_eq!((stats.restarts, stats.panics, stats.closed), (4, 5, 1));
    stage.advance(Duration::from_secs(60));
    assert!(told(&seen).is_empty());
}

#[test]
fn failures_of_long_ago_do_not_count() {
    let restart = Restart::new().at_most(2, Duration::from_secs(1));
    let (mut stage, seen) = stage(restart.backoff(10 * MS, 80 * MS));
    for _ in 0..10 {
        fail(&mut stage);
        stage.advance(10 * MS);
        assert_eq!(told(&seen)[2..], ["opened"]);
        stage.advance(990 * MS);
    }
    // At 0, at 0.5 s and at 0.999 s: three within the time.
    fail(&mut stage);
    stage.advance(500 * MS);
    fail(&mut stage);
    stage.advance(499 * MS);
    assert!(stage.reason().is_none());
    fail(&mut stage);
    assert!(stage.reason().is_some());
}

#[test]
fn without_any_restart_the_first_failure_is_the_end() {
    let (mut stage, _seen) = stage(Restart::new().at_most(0, Duration::from_secs(1)));
    fail(&mut stage);
    assert!(stage.reason().is_some());
    assert_eq!(stage.stats().restarts, 0);
}

#[test]
fn an_error_is_the_end_unless_it_is_to_be_a_failure() {
    let error = || -> Job { Box::new(|_| Err("an error".into())) };
    let (mut once, _seen) = stage(Restart::new());
    once.send(error());
    assert_eq!(once.reason().unwrap().to_string(), "an error");

    let (mut again, seen) = stage(Restart::new().after_errors().at_most(1, TIMEOUT));
    again.send(error());
    assert_eq!(told(&seen), ["closed: an error", "dropped"]);
    again.advance(10 * MS);
    assert_eq!(told(&seen), ["opened"]);
    again.send(error());
    assert_eq!(again.reason().unwrap().to_string(), "an error");
    assert_eq!(again.stats().panics, 0);
}

#[test]
fn its_own_end_is_no_failure() {
    let (mut stage, seen) = stage(Restart::new().after_errors());
    stage.send(Box::new(|ctx| {
        ctx.close();
        Ok(())
    }));
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    assert_eq!(told(&seen), ["closed: finished"]);
}

// ---- what else may fail -------------------------------------------------------------------------

#[test]
fn a_panic_of_what_makes_it_or_of_opened_is_a_failure_as_any() {
    let (events, seen) = channel();
    let made = Rc::new(Cell::new(0));
    let counted = made.clone();
    let make = move || {
        counted.set(counted.get() + 1);
        assert!(counted.get() != 2, "the second is not made");
        let probe = Probe::new(events.clone());
        match counted.get() {
            3 => probe.on_opened(|_| panic!("the third is not opened")),
            _ => probe,
        }
    };
    let mut stage = TestStage::without_socket(Supervised::new(Restart::new(), make));
    fail(&mut stage);
    stage.addr().send(Box::new(|_| Ok(()))).unwrap();
    shown(|| stage.advance(10 * MS));
    assert_eq!(told(&seen).len(), 3, "opened, closed and dropped");
    shown(|| stage.advance(20 * MS));
    let third = [
        "opened",
        "closed: a callback panicked: the third is not opened",
        "dropped",
    ];
    assert_eq!(told(&seen), third);
    stage.advance(40 * MS);
    assert_eq!(told(&seen), ["opened"]);
    assert_eq!((made.get(), stage.stats().restarts), (4, 3));
}

#[test]
fn a_panic_of_the_very_first_is_a_failure_as_any() {
    let system = builder(1).build().unwrap();
    let (events, seen) = channel();
    let mut made = 0;
    let restart = Restart::new().backoff(MS, MS);
    let addr = system.handle().supervise_on(0, restart, move || {
        made += 1;
        assert!(made > 2, "not the first two");
        Probe::new(events.clone())
    });
    assert!(matches!(next(&seen), Event::Opened(_)));
    assert!(addr.send(Box::new(|_| Ok(()))).is_ok());
    assert_eq!(system.stats().restarts, 2);
}

#[test]
fn a_panic_of_closed_or_of_a_destructor_is_contained_and_the_next_one_comes() {
    let (mut stage, seen) = stage_of(Restart::new(), |probe| {
        probe
            .on_closed(|_, _| panic!("in closed"))
            .on_drop(|| panic!("in drop"))
    });
    fail(&mut stage);
    assert_eq!(stage.stats().panics, 3);
    assert_eq!(told(&seen)[..1], FAILED[..1]);
    stage.advance(10 * MS);
    assert_eq!(told(&seen), ["opened"]);
    // The last one panics where nobody is there to see it.
    fail(&mut stage);
    stage.advance(20 * MS);
    std::mem::forget(stage);
}

#[test]
fn a_panic_of_the_conversion_of_an_answer_is_a_failure_as_any() {
    let (mut stage, seen) = stage(Restart::new());
    stage.send(Box::new(|ctx| {
        ctx.offload(|| (), |_| -> Job { panic!("told to") })?;
        Ok(())
    }));
    shown(|| {
        stage.run_offloaded();
    });
    assert_eq!(told(&seen), FAILED);
    stage.advance(10 * MS);
    assert_eq!(told(&seen), ["opened"]);
}

#[test]
fn a_connection_cannot_be_supervised() {
    let system = builder(1).build().unwrap();
    let (closed, reasons) = channel();
    let listener = system
        .listen("127.0.0.1:0", move |_| {
            let closed = closed.clone();
            Supervised::new(Restart::new().after_errors(), move || {
                let (events, _) = channel();
                let closed = closed.clone();
                Probe::new(events).on_closed(move |_, _| closed.send(()).unwrap())
            })
        })
        .unwrap();
    let client = connect(&listener);
    assert!(read_to_end(client).is_empty());
    wait_until("it is counted", || system.stats().closed_by["error"] == 1);
    assert!(reasons.try_recv().is_err(), "none was made");
    assert_eq!(system.stats().restarts, 0);
}

// ---- waiting for room ---------------------------------------------------------------------------

#[test]
fn the_next_one_waits_for_room_as_its_own() {
    // The first one waits for room, and panics in a timer; so does the second, in `opened`.
    let other = Rc::new(RefCell::new(Other::<u32>::with_bound(2)));
    let recipient = other.borrow().recipient::<u32>();
    while recipient.send(0).is_ok() {}
    let (rooms, seen_rooms) = channel();
    let (events, seen) = channel();
    let made = Cell::new(0);
    let make = move || {
        let n = made.replace(made.get() + 1);
        let (recipient, rooms) = (recipient.clone(), rooms.clone());
        let probe = Probe::new(events.clone());
        probe
            .on_opened(move |ctx| {
                ctx.wait_for_room(&recipient);
                if n == 0 {
                    ctx.set_timer(MS);
                }
                Ok(())
            })
            .on_timer(|_, _| panic!("told to"))
            .on_room(move |_| Ok(rooms.send(n)?))
    };
    let mut stage = TestStage::without_socket(Supervised::new(Restart::new(), make));
    let (said, heard) = channel();
    stage.send(Box::new(move |_| Ok(said.send(())?)));
    shown(|| stage.advance(MS));
    // While there is none it takes no word of room for its own.
    other.borrow_mut().take_all();
    stage.run();
    while other.borrow().recipient::<u32>().send(0).is_ok() {}
    stage.advance(10 * MS);
    assert!(seen_rooms.try_recv().is_err());
    assert!(heard.try_recv().is_err(), "it waits");
    other.borrow_mut().take_all();
    stage.run();
    assert_eq!(seen_rooms.try_recv(), Ok(1));
    assert_eq!(heard.try_recv(), Ok(()), "and takes messages again");
    drop(seen);
}

#[test]
fn the_next_one_waits_for_room_right_after_it_was_made() {
    let other = Rc::new(RefCell::new(Other::<u32>::with_bound(2)));
    let recipient = other.borrow().recipient::<u32>();
    while recipient.send(0).is_ok() {}
    let (rooms, seen_rooms) = channel();
    let (mut stage, seen) = stage_of(Restart::new(), move |probe| {
        let (recipient, rooms) = (recipient.clone(), rooms.clone());
        probe
            .on_timer(move |_, ctx| {
                ctx.wait_for_room(&recipient);
                Ok(())
            })
            .on_room(move |_| Ok(rooms.send(())?))
    });
    fail(&mut stage);
    let (said, heard) = channel();
    stage.send(Box::new(|ctx| {
        ctx.set_timer(Duration::ZERO);
        Ok(())
    }));
    stage.send(Box::new(move |_| Ok(said.send(())?)));
    stage.advance(10 * MS);
    assert_eq!(heard.try_recv(), Ok(()));
    stage.advance(MS);
    assert!(stage.is_waiting() && seen_rooms.try_recv().is_err());
    other.borrow_mut().take_all();
    stage.run();
    assert_eq!(seen_rooms.try_recv(), Ok(()));
    assert!(!stage.is_waiting());
    drop(seen);
}

// ---- the end ------------------------------------------------------------------------------------

#[test]
fn one_that_is_made_while_the_system_stops_is_told_so() {
    let (mut stage, seen) = stage(Restart::new());
    fail(&mut stage);
    stage.stop(Duration::from_secs(1));
    assert_eq!(told(&seen), FAILED);
    stage.advance(10 * MS);
    assert_eq!(told(&seen), ["opened", "stopping"]);
    stage.advance(Duration::from_secs(1));
    assert_eq!(told(&seen), ["closed: the system stopped"]);
}

#[test]
fn one_that_is_not_there_when_the_system_ends_is_not_told() {
    let (mut stage, seen) = stage(Restart::new());
    fail(&mut stage);
    assert_eq!(told(&seen), FAILED);
    stage.stop(MS);
    stage.advance(MS);
    assert!(matches!(stage.reason(), Some(CloseReason::Stopped)));
    assert!(told(&seen).is_empty());
}

#[test]
fn a_close_from_outside_waits_its_turn_behind_the_messages() {
    let (mut stage, seen) = stage(Restart::new());
    let (said, heard) = channel();
    fail(&mut stage);
    stage.send(Box::new(move |_| Ok(said.send(())?)));
    stage.addr().close();
    stage.run();
    assert!(stage.reason().is_none());
    stage.advance(10 * MS);
    assert_eq!(heard.try_recv(), Ok(()));
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    drop(seen);
}

#[test]
fn who_monitors_it_is_told_when_it_is_not_made_again() {
    let system = builder(2).build().unwrap();
    let (events, seen) = channel();
    let restart = Restart::new().at_most(1, TIMEOUT).backoff(MS, MS);
    let addr = system
        .handle()
        .supervise_on(1, restart, move || Probe::new(events.clone()));
    let probe = spawn(&system, 0, |probe| probe);
    let (gone, notices) = channel();
    let of = addr.clone();
    probe.run(move |ctx| {
        ctx.monitor(&of, move |notice| Box::new(move |_| Ok(gone.send(notice)?)));
    });
    settle(&system);
    addr.send(panics()).unwrap();
    let mut opened = 0;
    while opened < 2 {
        opened += u32::from(matches!(next(&seen), Event::Opened(_)));
    }
    assert!(notices.try_recv().is_err());
    addr.send(panics()).unwrap();
    let notice = next(&notices);
    assert_eq!((notice.actor, notice.reason), (addr.id(), Some("panicked")));
    settle(&system);
    assert!(notices.try_recv().is_err(), "told once");
}

// ---- by seeds -----------------------------------------------------------------------------------

/// Panics at every so many messages, and hands the others on.
struct Fragile {
    heard: Sender<(usize, u32)>,
    left: u64,
}

impl Actor for Fragile {
    type Message = (usize, u32);

    fn message(&mut self, message: Self::Message, _: &mut Context<'_, Self>) -> Outcome {
        self.left -= 1;
        assert!(self.left > 0, "told to");
        Ok(self.heard.send(message)?)
    }
}

/// Sends numbers, and waits for room where there is none.
struct Source {
    to: Addr<Fragile>,
    number: usize,
    next: u32,
    last: u32,
}

impl Source {
    fn send(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        while self.next < self.last {
            match self.to.send((self.number, self.next)) {
                Ok(()) => self.next += 1,
                Err(error) if error.is_full() => {
                    ctx.wait_for_room(&self.to);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        ctx.close();
        Ok(())
    }
}

impl Actor for Source {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.send(ctx)
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.send(ctx)
    }
}

#[test]
fn by_seeds_the_order_of_each_sender_stays_and_one_message_is_lost_with_each_panic() {
    const SOURCES: usize = 4;
    const EACH: u32 = 60;
    for_each_seed(60, |simulation| {
        simulation.allow_panics();
        let system = simulation.system(System::builder().pollers(2).mailbox_bound(8));
        let handle = system.handle();
        let (said, heard) = channel();
        let live = 3 + simulation.random().below(20);
        let restart = Restart::new()
            .at_most(1_000, Duration::from_secs(1))
            .backoff(MS, 4 * MS);
        let to = handle.supervise(restart, move || Fragile {
            heard: said.clone(),
            left: live,
        });
        for number in 0..SOURCES {
            let to = to.clone();
            system.spawn(move || Source {
                to,
                number,
                next: 0,
                last: EACH,
            });
        }
        simulation.run_for(Duration::from_secs(60));
        let mut last = [None; SOURCES];
        let mut count = 0;
        for (number, n) in heard.try_iter() {
            assert!(last[number] < Some(n), "{n} of {number} after {last:?}");
            last[number] = Some(n);
            count += 1;
        }
        let stats = system.stats();
        assert_eq!(count + stats.restarts, SOURCES as u64 * u64::from(EACH));
        assert_eq!(stats.restarts, stats.panics);
        assert_eq!(stats.restarts, SOURCES as u64 * u64::from(EACH) / live);
        assert_eq!(stats.dead_letters, 0);
    });
}

//! Word of another actor's end: exactly once, whoever goes first.

mod util;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenroom::testing::{Faults, Probe as Other, Stage as TestStage, for_each_seed};
use greenroom::*;
use util::*;

/// Has `probe` tell the test when `of` has gone.
fn monitor<T: HasEnd + Send + 'static>(probe: &Seen, of: T) -> (MonitorKey, Receiver<Gone>) {
    let (told, notices) = channel();
    let monitor = probe.run(move |ctx| ctx.monitor(&of, tell(&told)));
    (monitor, notices)
}

fn tell(to: &Sender<Gone>) -> impl FnOnce(Gone) -> Job + Send + 'static {
    let to = to.clone();
    |gone| Box::new(move |_| Ok(to.send(gone)?))
}

fn two(pollers: usize) -> (System, Seen, Seen) {
    let system = builder(pollers).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    let other = spawn(&system, pollers - 1, |probe| probe);
    (system, probe, other)
}

#[test]
fn an_end_is_told_once_with_the_name_of_its_reason() {
    for pollers in [1, 2] {
        let (system, probe, other) = two(pollers);
        let (_, notices) = monitor(&probe, other.addr.clone());
        settle(&system);
        assert!(notices.try_recv().is_err());
        other.tell(|_| Err("of its own".into()));
        let gone = next(&notices);
        assert_eq!((gone.actor, gone.reason), (other.addr.id(), Some("error")));
        settle(&system);
        assert!(notices.try_recv().is_err());
    }
}

#[test]
fn of_one_that_has_gone_it_is_told_at_once() {
    for pollers in [1, 2] {
        let (_system, probe, other) = two(pollers);
        other.addr.close();
        other.to_the_end();
        let (_, notices) = monitor(&probe, other.addr.clone());
        let gone = next(&notices);
        assert_eq!((gone.actor, gone.reason), (other.addr.id(), None));
    }
}

#[test]
fn of_one_that_never_came_to_be_it_is_told() {
    let (system, probe, _) = two(2);
    let never = system.spawn_on(1, || -> Probe { panic!("it is not made") });
    let (_, notices) = monitor(&probe, never);
    assert_eq!(next(&notices).reason, None);
}

#[test]
fn of_one_in_a_system_that_has_ended_it_is_told() {
    let (_system, probe, _) = two(1);
    let (elsewhere, of, _) = two(1);
    let (_, notices) = monitor(&probe, of.addr.clone());
    settle(&elsewhere);
    drop(elsewhere);
    assert_eq!(next(&notices).reason, Some("stopped"));
    let (_, notices) = monitor(&probe, of.addr.clone());
    assert_eq!(next(&notices).reason, None);
}

#[test]
fn a_connection_is_told_of_and_is_told() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    let probe = spawn(&stage.system, 0, |probe| probe);
    let recipient: Recipient<Job> = seen.addr.recipient();
    let (_, notices) = monitor(&probe, recipient);
    let (_, to_connection) = monitor(&seen, probe.addr.clone());
    settle(&stage.system);
    probe.tell(|_| panic!("told to"));
    assert_eq!(next(&to_connection).reason, Some("panicked"));
    let probe = spawn(&stage.system, 0, |probe| probe);
    let (_, again) = monitor(&probe, seen.addr.clone());
    settle(&stage.system);
    drop(client);
    assert_eq!(next(&again).reason, Some("peer closed"));
    assert!(notices.try_recv().is_err(), "that one has gone first");
}

#[test]
fn a_monitor_that_was_ended_brings_nothing_not_even_what_is_on_its_way() {
    let (system, probe, other) = two(1);
    let (ended, notices) = monitor(&probe, other.addr.clone());
    assert!(probe.run(move |ctx| ctx.demonitor(ended)));
    assert!(!probe.run(move |ctx| ctx.demonitor(ended)), "it is ended");

    // On its way: the notice is in the mailbox behind this very message.
    let (on_its_way, late) = monitor(&probe, other.addr.clone());
    let held = hold(&probe);
    let to_close = other.addr.clone();
    probe.tell(move |_| {
        to_close.close();
        Ok(())
    });
    drop(held);
    other.to_the_end();
    // It may have come by now, or is prevented; never both.
    let prevented = probe.run(move |ctx| ctx.demonitor(on_its_way));
    settle(&system);
    assert_eq!(late.try_recv().is_ok(), !prevented);
    assert!(notices.try_recv().is_err());
    let told = |notices: &Receiver<Gone>| notices.try_iter().count();
    assert_eq!(told(&late), 0);
}

#[test]
fn a_notice_that_was_set_aside_is_prevented_too() {
    let (full, other) = (Other::<u32>::with_bound(2), Other::<()>::new());
    let recipient = full.recipient::<u32>();
    while recipient.send(0).is_ok() {}
    let (told, notices) = channel();
    let key = Rc::new(Cell::new(None));
    let ended = key.clone();
    let (events, _seen) = channel();
    let of = other.recipient::<()>();
    let probe = Probe::new(events)
        .on_opened(move |ctx| {
            key.set(Some(ctx.monitor(&of, tell(&told))));
            ctx.set_timer(Duration::from_secs(1));
            ctx.wait_for_room(&recipient);
            Ok(())
        })
        // A timer comes also to one that waits.
        .on_timer(move |_, ctx| {
            assert!(ctx.demonitor(ended.get().expect("it is set")));
            Ok(())
        });
    let mut stage = TestStage::without_socket(probe);
    drop(other);
    stage.run();
    assert!(stage.is_waiting(), "and the notice waits for it");
    stage.advance(Duration::from_secs(1));
    drop(full);
    stage.run();
    assert!(!stage.is_waiting());
    assert!(notices.try_recv().is_err());
}

#[test]
fn two_monitors_of_one_actor_bring_two_notices() {
    let (_system, probe, other) = two(1);
    let (first, of_first) = monitor(&probe, other.addr.clone());
    let (second, of_second) = monitor(&probe, other.addr.clone());
    assert_ne!(first, second);
    other.addr.close();
    let both = [next(&of_first), next(&of_second)];
    assert_eq!(both[0], both[1]);
}

#[test]
fn an_actor_that_monitors_itself_is_told_nothing() {
    let (system, probe, _) = two(1);
    let (_, notices) = monitor(&probe, probe.addr.clone());
    probe.addr.close();
    probe.to_the_end();
    settle(&system);
    assert!(notices.try_recv().is_err());
    assert_eq!(system.stats().dead_letters, 0);
}

#[test]
fn nothing_is_kept_of_one_that_monitors_and_goes_first() {
    let (system, _, other) = two(2);
    // Held by the closure that makes the notice: as long as anybody keeps it.
    let kept = Arc::new(());
    for _ in 0..1_000 {
        let probe = spawn(&system, 0, |probe| probe);
        let (of, held) = (other.addr.clone(), kept.clone());
        probe.run(move |ctx| {
            ctx.monitor(&of, move |_| -> Job {
                drop(held);
                unreachable!("it has gone")
            });
            ctx.close();
        });
        probe.to_the_end();
    }
    settle(&system);
    wait_until("all is forgotten", || Arc::strong_count(&kept) == 1);
    // And the other way round: what is monitored goes first.
    let probe = spawn(&system, 0, |probe| probe);
    for _ in 0..100 {
        let other = spawn(&system, 1, |probe| probe);
        let held = kept.clone();
        let of = other.addr.clone();
        probe.run(move |ctx| {
            ctx.monitor(&of, move |_| {
                Box::new(move |_| {
                    drop(held);
                    Ok(())
                })
            });
        });
        other.addr.close();
    }
    wait_until("all was told", || Arc::strong_count(&kept) == 1);
}

#[test]
fn who_monitors_in_its_last_callback_leaves_nothing_behind() {
    let (system, _, other) = two(1);
    let kept = Arc::new(());
    let (held, of) = (kept.clone(), other.addr.clone());
    let held = Cell::new(Some(held));
    let probe = spawn(&system, 0, move |probe| {
        let held = held.take();
        probe.on_closed(move |_, ctx| {
            let held = held.clone();
            ctx.monitor(&of, move |_| -> Job {
                drop(held);
                unreachable!("it has gone")
            });
        })
    });
    probe.addr.close();
    probe.to_the_end();
    settle(&system);
    wait_until("it is forgotten", || Arc::strong_count(&kept) == 1);
}

#[test]
fn a_panic_of_what_makes_the_notice_is_one_of_who_wanted_it() {
    let (_system, probe, other) = two(1);
    let of = other.addr.clone();
    probe.run(move |ctx| {
        ctx.monitor(&of, |_| -> Job { panic!("in the notice") });
    });
    other.addr.close();
    assert!(matches!(probe.closed(), CloseReason::Panicked(_)));
}

#[test]
fn a_probe_is_monitored_and_a_stage_told() {
    let (events, _seen) = channel();
    let mut stage = TestStage::without_socket(Probe::new(events));
    let mut other = Other::<()>::new();
    let (told, notices) = channel();
    let recipient = other.recipient::<()>();
    let (ended, kept) = (tell(&told), tell(&told));
    stage.send(Box::new(move |ctx| {
        let ended = ctx.monitor(&recipient, ended);
        ctx.monitor(&recipient, kept);
        assert!(ctx.demonitor(ended));
        Ok(())
    }));
    let id = other.id();
    other.take_all();
    drop(other);
    stage.run();
    let gone = notices.try_recv().unwrap();
    assert_eq!((gone.actor, gone.reason), (id, Some("finished")));
    assert!(notices.try_recv().is_err());
}

// ---- by seeds -----------------------------------------------------------------------------------

/// Lives for so long, by a timer.
struct Mortal(Duration);

impl Actor for Mortal {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.set_timer(self.0);
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.close();
        Ok(())
    }
}

/// Monitors some mortals, each at a time of its own, and lives for so long itself.
struct Mourner {
    mortals: Vec<(Addr<Mortal>, Duration)>,
    timers: Vec<(TimerKey, Addr<Mortal>)>,
    life: Duration,
    awaited: Vec<ActorId>,
    told: Arc<AtomicU64>,
}

impl Actor for Mourner {
    type Message = Gone;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        for (mortal, after) in self.mortals.drain(..) {
            self.timers.push((ctx.set_timer(after), mortal));
        }
        ctx.set_timer(self.life);
        Ok(())
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        match self.timers.iter().find(|(timer, _)| *timer == key) {
            Some((_, mortal)) => {
                self.awaited.push(mortal.id());
                ctx.monitor(mortal, |gone| gone);
            }
            None => ctx.close(),
        }
        Ok(())
    }

    fn message(&mut self, gone: Gone, _: &mut Context<'_, Self>) -> Outcome {
        let place = self.awaited.iter().position(|id| *id == gone.actor);
        self.awaited
            .swap_remove(place.expect("told twice, or of another"));
        self.told.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        // One that outlives all of them has been told of all.
        let outlives = self.life >= Duration::from_secs(10);
        if outlives && matches!(reason, CloseReason::Finished) {
            assert!(self.awaited.is_empty(), "not told of {:?}", self.awaited);
        }
    }
}

#[test]
fn by_seeds_each_end_is_told_exactly_once_whoever_goes_first() {
    let told = Arc::new(AtomicU64::new(0));
    let runs = Rc::new(Cell::new(0));
    for_each_seed(80, |simulation| {
        runs.set(runs.get() + 1);
        simulation.faults(Faults::harmless());
        let system = simulation.system(System::builder().pollers(3));
        for n in 0..6 {
            let mut mortals = Vec::new();
            for _ in 0..8 {
                let life = Duration::from_millis(simulation.random().below(20));
                let after = Duration::from_millis(simulation.random().below(20));
                mortals.push((system.spawn(move || Mortal(life)), after));
            }
            let life = match n {
                0 => Duration::from_secs(20),
                _ => Duration::from_millis(simulation.random().below(30)),
            };
            let told = told.clone();
            system.spawn(move || Mourner {
                mortals,
                timers: Vec::new(),
                life,
                awaited: Vec::new(),
                told,
            });
        }
        simulation.run_for(Duration::from_secs(60));
        let stats = system.stats();
        assert_eq!((stats.opened, stats.closed), (54, 54));
        assert_eq!(stats.dead_letters, 0);
    });
    let told = told.load(Ordering::Relaxed);
    assert!(told > 10 * runs.get(), "{told} in {} runs", runs.get());
}

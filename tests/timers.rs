//! Timers: an actor's own, never early, without drift, and never a burden to others.

mod util;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use greenroom::*;
use util::*;

const MS: Duration = Duration::from_millis(1);

/// Never reached.
const LONG: Duration = Duration::from_secs(3_600);

fn one() -> (System, Seen) {
    let system = builder(1).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    (system, probe)
}

/// The timers that have fired, until (and without) one set now for `after` from now.
#[track_caller]
fn fired_within(probe: &Seen, after: Duration) -> Vec<TimerKey> {
    let last = probe.run(move |ctx| ctx.set_timer(after));
    let mut fired = Vec::new();
    loop {
        match probe.next() {
            Event::Timer(key) if key == last => return fired,
            Event::Timer(key) => fired.push(key),
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn a_timer_fires_once_and_never_early() {
    let system = builder(1).build().unwrap();
    let (log, fired) = channel();
    let probe = spawn(&system, 0, move |probe| {
        probe.on_timer(move |key, ctx| {
            log.send((key, ctx.now(), Instant::now()))?;
            Ok(())
        })
    });
    for after in [Duration::ZERO, MS / 10, MS, 7 * MS, 20 * MS] {
        let (key, set) = probe.run(move |ctx| {
            let set = ctx.now();
            (ctx.set_timer(after), set)
        });
        let (fired_key, turn, now) = next(&fired);
        assert_eq!(fired_key, key);
        assert!(
            turn >= set + after && now >= turn,
            "{after:?}: {:?} after it was set",
            turn - set
        );
        assert!(turn > set, "it fires in a later turn");
    }
    probe.until(|event| matches!(event, Event::Timer(_)).then_some(()));
    while probe.events.try_recv().is_ok() {}
    assert_eq!(fired_within(&probe, 10 * MS), [], "once is once");
}

#[test]
fn timers_fire_in_the_order_of_their_deadlines() {
    let (_system, probe) = one();
    let keys = probe.run(|ctx| [9, 3, 7, 1, 5, 3].map(|n| ctx.set_timer(n * MS)));
    let fired = fired_within(&probe, 20 * MS);
    assert_eq!(fired, [3, 1, 5, 4, 2, 0].map(|at| keys[at]));
}

#[test]
fn a_deadline_may_be_given_as_an_instant() {
    let (_system, probe) = one();
    let keys = probe.run(|ctx| {
        let now = ctx.now();
        let past = now.checked_sub(MS).unwrap_or(now);
        [now + 9 * MS, past, now + 3 * MS].map(|deadline| ctx.set_timer_at(deadline))
    });
    let never = probe.run(|ctx| ctx.set_timer_at(Instant::now() + LONG));
    let fired = fired_within(&probe, 20 * MS);
    assert_eq!(fired, [keys[1], keys[2], keys[0]]);
    assert!(probe.run(move |ctx| ctx.cancel_timer(never)));
}

#[test]
fn an_actor_may_have_many_timers_and_cancel_any() {
    let (_system, probe) = one();
    let (kept, cancelled) = probe.run(|ctx| {
        let keys: Vec<_> = (0..1_000).map(|n| ctx.set_timer(MS * (n % 7))).collect();
        let (mut kept, mut cancelled) = (Vec::new(), Vec::new());
        for (at, key) in keys.into_iter().enumerate() {
            if at % 3 == 0 {
                assert!(ctx.cancel_timer(key));
                assert!(!ctx.cancel_timer(key), "it was cancelled before");
                cancelled.push(key);
            } else {
                kept.push(key);
            }
        }
        (kept, cancelled)
    });
    let fired = fired_within(&probe, 30 * MS);
    assert_eq!(fired.len(), kept.len());
    assert!(kept.iter().all(|key| fired.contains(key)));
    assert!(!cancelled.iter().any(|key| fired.contains(key)));
    assert!(
        !probe.run(move |ctx| ctx.cancel_timer(kept[0])),
        "it had fired before"
    );
}

#[test]
fn a_timer_cancelled_by_another_that_is_due_in_the_same_turn_does_not_fire() {
    let system = builder(1).build().unwrap();
    let mut pair = VecDeque::new();
    let (keys, of_timer) = channel::<[TimerKey; 2]>();
    let probe = spawn(&system, 0, move |probe| {
        probe.on_timer(move |_, ctx| {
            pair.extend(of_timer.try_iter().flatten());
            if pair.len() == 2 {
                let (own, other) = (pair.pop_front(), pair.pop_front());
                assert!(
                    !ctx.cancel_timer(own.ok_or("a key")?),
                    "one's own has fired"
                );
                assert!(
                    ctx.cancel_timer(other.ok_or("a key")?),
                    "the other is due, and has not fired"
                );
            }
            Ok(())
        })
    });
    let first = probe.run(move |ctx| {
        let both = [ctx.set_timer(MS), ctx.set_timer(MS)];
        keys.send(both).unwrap();
        both[0]
    });
    assert_eq!(fired_within(&probe, 10 * MS), [first]);
}

#[test]
fn a_periodic_timer_cancelled_in_its_own_turn_fires_no_more() {
    let system = builder(1).build().unwrap();
    let mut left = 3;
    let probe = spawn(&system, 0, move |probe| {
        probe.on_timer(move |key, ctx| {
            left -= 1;
            if left == 0 {
                assert!(ctx.cancel_timer(key));
            }
            Ok(())
        })
    });
    probe.run(|ctx| ctx.set_interval(MS));
    assert_eq!(fired_within(&probe, 40 * MS).len(), 3);
}

#[test]
fn a_key_is_of_no_use_to_another_actor() {
    let (system, probe) = one();
    let other = spawn(&system, 0, |probe| probe);
    let key = probe.run(|ctx| ctx.set_timer(10 * MS));
    assert!(!other.run(move |ctx| ctx.cancel_timer(key)));
    assert!(matches!(probe.next(), Event::Timer(fired) if fired == key));
}

#[test]
fn ticks_keep_their_phase_and_missed_ones_are_skipped() {
    const PERIOD: Duration = Duration::from_millis(60);
    let system = builder(1).build().unwrap();
    let (log, ticks) = channel();
    let mut blocked = false;
    let mut begin = None;
    let (begun, start) = channel::<Instant>();
    let probe = spawn(&system, 0, move |probe| {
        probe.on_timer(move |_, ctx| {
            let begin = *begin.get_or_insert_with(|| start.recv().unwrap());
            log.send((ctx.now() - begin).as_secs_f64() / PERIOD.as_secs_f64())?;
            if !std::mem::replace(&mut blocked, true) {
                // A callback that takes too long: until the middle of the fourth period.
                while let Some(left) =
                    (begin + PERIOD * 7 / 2).checked_duration_since(Instant::now())
                {
                    thread::park_timeout(left);
                }
            }
            Ok(())
        })
    });
    probe.run(move |ctx| {
        begun.send(ctx.now()).unwrap();
        ctx.set_interval(PERIOD)
    });
    let ticks: Vec<f64> = (0..9).map(|_| next(&ticks)).collect();
    assert!(ticks[0] >= 1.0 && ticks[1] >= 3.5, "{ticks:?}");
    assert!(
        ticks.windows(2).all(|two| two[0].floor() < two[1].floor()),
        "no two ticks in one period, so none was made up for: {ticks:?}"
    );
    // A machine that is busy may be late with one, and hardly with all; a drift would leave none
    // near its deadline.
    assert!(
        ticks[2..].iter().any(|tick| tick.fract() < 0.3),
        "the phase was shifted by the late tick: {ticks:?}"
    );
}

#[test]
fn an_interval_of_zero_panics() {
    let (_system, probe) = one();
    probe.tell(|ctx| {
        ctx.set_interval(Duration::ZERO);
        Ok(())
    });
    assert!(matches!(probe.closed(), CloseReason::Panicked(_)));
}

#[test]
fn a_timer_too_far_ahead_for_the_clock_is_no_error() {
    let (_system, probe) = one();
    let key = probe.run(|ctx| ctx.set_timer(Duration::MAX));
    assert_eq!(fired_within(&probe, 5 * MS), []);
    assert!(probe.run(move |ctx| ctx.cancel_timer(key)));
}

// ---- ends ---------------------------------------------------------------------------------------

#[test]
fn timers_end_with_their_actor_and_never_reach_the_next_in_its_slot() {
    let (system, keeper) = one();
    for _ in 0..5 {
        // The lowest free slot is used first. That of the one before, which is dropped by now, is
        // free before the poller comes to the next message.
        keeper.run(|_| ());
        let old = spawn(&system, 0, move |probe| {
            // Also those that it sets at the very end.
            probe.on_closed(|_, ctx| {
                ctx.set_timer(Duration::ZERO);
                ctx.set_interval(MS);
            })
        });
        old.run(|ctx| {
            ctx.set_interval(MS);
            for n in 0..20 {
                ctx.set_timer(MS * n);
            }
        });
        let (events, of_new) = channel();
        let held = hold(&keeper);
        // In one turn, so that the timers are still to come.
        old.addr.close();
        keeper.tell(move |ctx| {
            ctx.spawn(Probe::new(events));
            Ok(())
        });
        drop(held);
        let Event::Opened(new) = next(&of_new) else {
            panic!("`opened` comes first")
        };
        let slot = |id: ActorId| id.to_string().split('v').next().map(str::to_owned);
        assert_eq!(
            slot(new.id()),
            slot(old.addr.id()),
            "another slot: this test has seen nothing"
        );
        let new = Seen {
            addr: new,
            events: of_new,
        };
        assert_eq!(fired_within(&new, 25 * MS), []);
        let end = old.to_the_end();
        assert!(
            matches!(end.last(), Some(Event::Closed(_))),
            "`closed` is last: {end:?}"
        );
        new.addr.close();
        new.to_the_end();
        settle(&system);
    }
}

// ---- who else is on the poller ------------------------------------------------------------------

/// A stage whose connections answer each byte with how often `count` was counted up by then.
fn counting_stage(count: &Arc<AtomicUsize>) -> (Stage, std::sync::mpsc::Receiver<usize>) {
    let (log, seen) = channel();
    let count = count.clone();
    let stage = Stage::with(ConnectionOptions::new(), move |probe| {
        let (log, count) = (log.clone(), count.clone());
        probe.on_readable(move |input, ctx| {
            log.send(count.load(SeqCst))?;
            ctx.write(input.take_all());
            Ok(())
        })
    });
    (stage, seen)
}

#[test]
fn timers_due_all_at_once_starve_no_connection() {
    const TIMERS: usize = 100_000;
    let fired = Arc::<AtomicUsize>::default();
    let (stage, seen) = counting_stage(&fired);
    let (mut client, _probe) = stage.pair();
    let (begun, has_begun) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let count = fired.clone();
    let timers = spawn(&stage.system, 0, move |probe| {
        probe.on_timer(move |_, _| {
            if count.fetch_add(1, SeqCst) == 0 {
                begun.send(())?;
                let _ = may_go_on.recv_timeout(TIMEOUT);
            }
            Ok(())
        })
    });
    timers.run(|ctx| {
        for _ in 0..TIMERS {
            ctx.set_timer(Duration::ZERO);
        }
    });
    // The first is in its callback, and all the others are due behind it, when the client writes.
    next(&has_begun);
    client.write_all(b"!").unwrap();
    drop(go_on);
    let before = next(&seen);
    assert!(
        before < TIMERS / 10,
        "{before} timers fired before the connection had its turn"
    );
    assert_eq!(read(&client, 1), b"!");
    wait_until("all have fired", || fired.load(SeqCst) == TIMERS);
}

#[test]
fn a_timer_without_delay_that_sets_itself_again_starves_nobody() {
    let fired = Arc::<AtomicUsize>::default();
    let (stage, _seen) = counting_stage(&fired);
    let (mut client, probe) = stage.pair();
    let (turns, count) = (Arc::<AtomicUsize>::default(), fired.clone());
    let seen_turns = turns.clone();
    let mut last = None;
    let restless = spawn(&stage.system, 0, move |probe| {
        probe.on_timer(move |_, ctx| {
            count.fetch_add(1, SeqCst);
            let now = ctx.now();
            if last.replace(now) != Some(now) {
                seen_turns.fetch_add(1, SeqCst);
            }
            ctx.set_timer(Duration::ZERO);
            Ok(())
        })
    });
    restless.run(|ctx| ctx.set_timer(Duration::ZERO));
    for _ in 0..100 {
        client.write_all(b"!").unwrap();
        assert_eq!(read(&client, 1), b"!");
        assert_eq!(probe.run(|_| 7), 7);
    }
    restless.addr.close();
    restless.closed();
    assert_eq!(
        fired.load(SeqCst),
        turns.load(SeqCst),
        "it fires once a turn"
    );
}

#[test]
fn a_timer_far_ahead_does_not_keep_its_poller_awake() {
    let system = builder(1).name("idler").build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    probe.run(|ctx| {
        for _ in 0..1_000 {
            ctx.set_timer(LONG);
        }
    });
    // A poller that did not sleep would not have to be woken.
    wait_until("the poller sleeps", || {
        let before = system.stats().wakes;
        probe.run(|_| ());
        system.stats().wakes > before
    });
}

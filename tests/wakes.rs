//! A poller that is awake costs its senders no system call, a sleeping one a single write, and no
//! wake is lost.

mod util;

use std::io::Write;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use greenroom::*;
use util::*;

#[test]
fn a_poller_that_is_awake_costs_its_senders_no_wake() {
    let system = builder(1).build().unwrap();
    let (busy, other) = (
        spawn(&system, 0, |probe| probe),
        spawn(&system, 0, |probe| probe),
    );
    let held = hold(&busy);
    let before = system.stats().wakes;
    for _ in 0..1_000 {
        busy.tell(|_| Ok(()));
        other.tell(|_| Ok(()));
    }
    assert_eq!(system.stats().wakes, before);
    drop(held);
    settle(&system);
}

#[test]
fn a_sleeping_poller_costs_one_wake_for_any_number_of_messages() {
    const SENDERS: usize = 4;
    let system = builder(1).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    let mut woken = 0;
    for _ in 0..50 {
        settle(&system);
        let before = system.stats().wakes;
        // Whichever comes first holds the poller, so this is at most one sleep.
        let (release, released) = channel::<()>();
        let start = Barrier::new(SENDERS);
        let (addr, released) = (&probe.addr, &Arc::new(Mutex::new(released)));
        thread::scope(|scope| {
            for _ in 0..SENDERS {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..200 {
                        let released = released.clone();
                        let job: Job = Box::new(move |_| {
                            let _ = released.lock().unwrap().recv_timeout(TIMEOUT);
                            Ok(())
                        });
                        addr.send(job).unwrap();
                    }
                });
            }
        });
        let wakes = system.stats().wakes - before;
        assert!(wakes <= 1, "{wakes} wakes for one sleep");
        woken += wakes;
        drop(release);
    }
    assert!(
        woken > 0,
        "the poller never slept: this test has seen nothing"
    );
}

/// Longer than any test.
const SPIN: Duration = Duration::from_secs(600);

#[test]
fn a_poller_that_spins_costs_its_senders_no_wake() {
    let system = builder(1).busy_poll(SPIN).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    for number in 0..1_000 {
        assert_eq!(probe.run(move |_| number), number);
    }
    settle(&system);
    assert_eq!(system.stats().wakes, 0);
}

#[test]
fn a_poller_that_spins_sees_sockets_timers_and_the_stop() {
    let system = builder(1).busy_poll(SPIN).build().unwrap();
    let (listener, _opened) = listen(&system, "127.0.0.1:0", ListenOptions::default(), |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(input.take_all());
            Ok(())
        })
    });
    let mut client = connect(&listener);
    for _ in 0..100 {
        client.write_all(b"echo").unwrap();
        assert_eq!(read(&client, 4), b"echo");
    }
    let probe = spawn(&system, 0, |probe| probe);
    probe.run(|ctx| ctx.set_timer(Duration::from_millis(5)));
    probe.until(|event| matches!(event, Event::Timer(_)).then_some(()));
    system.handle().stop(Duration::ZERO);
    system.run().unwrap();
}

#[test]
fn a_poller_that_has_spun_in_vain_sleeps_and_is_woken() {
    let spin = Duration::from_micros(1);
    let system = builder(1).busy_poll(spin).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    wait_until("a wake", || {
        assert_eq!(probe.run(|_| 7), 7);
        system.stats().wakes > 0
    });
}

/// Sends what it gets back and forth.
struct Rally {
    partner: Option<Addr<Rally>>,
    done: Sender<()>,
}

enum Ball {
    Meet(Addr<Rally>),
    Hit(u32),
}

impl Actor for Rally {
    type Message = Ball;

    fn message(&mut self, ball: Ball, _: &mut Context<'_, Self>) -> Outcome {
        match (ball, &self.partner) {
            (Ball::Hit(0), _) | (Ball::Hit(_), None) => self.done.send(())?,
            (Ball::Hit(n), Some(partner)) => partner.send(Ball::Hit(n - 1))?,
            (Ball::Meet(partner), _) => self.partner = Some(partner),
        }
        Ok(())
    }
}

#[test]
fn sends_between_actors_of_one_poller_make_no_wake() {
    let system = builder(1).build().unwrap();
    let (done, is_done) = channel();
    let [one, two] = [0, 1].map(|_| {
        let done = done.clone();
        system.spawn(|| Rally {
            partner: None,
            done,
        })
    });
    one.send(Ball::Meet(two.clone())).unwrap();
    two.send(Ball::Meet(one.clone())).unwrap();
    settle(&system);
    let before = system.stats().wakes;
    one.send(Ball::Hit(10_000)).unwrap();
    next(&is_done);
    let wakes = system.stats().wakes - before;
    assert!(
        wakes <= 1,
        "{wakes} wakes: only the first message came from outside"
    );
}

#[test]
fn a_wake_is_never_lost_between_two_pollers_that_sleep_in_turn() {
    let system = builder(2).build().unwrap();
    let (done, is_done) = channel();
    let [one, two] = [0, 1].map(|poller| {
        let done = done.clone();
        system.spawn_on(poller, || Rally {
            partner: None,
            done,
        })
    });
    one.send(Ball::Meet(two.clone())).unwrap();
    two.send(Ball::Meet(one.clone())).unwrap();
    // Each hop finds the other poller asleep, or about to sleep.
    one.send(Ball::Hit(20_000)).unwrap();
    next(&is_done);
}

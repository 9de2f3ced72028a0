//! Signals of the process, each test in a process of its own: real ones, which it sends itself.

mod util;

use std::io::ErrorKind;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use greenroom::signals::{self, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use greenroom::testing::Simulation;
use greenroom::*;
use util::*;

/// Descriptors that are enough.
const DESCRIPTORS: usize = 100;

fn raise(signal: i32) {
    // SAFETY: kill takes two numbers.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

/// A connection that stays when the system stops.
fn staying(probe: Probe) -> Probe {
    probe.on_stopping(|_| Ok(()))
}

#[test]
fn the_first_signal_stops_gracefully_and_the_second_at_once() {
    in_child(
        "the_first_signal_stops_gracefully_and_the_second_at_once",
        DESCRIPTORS,
        || {
            let stage = Stage::with(ConnectionOptions::new(), staying);
            let (client, seen) = stage.pair();
            // Longer than the test may take.
            signals::stop_on(&stage.system.handle(), 100 * TIMEOUT).unwrap();
            raise(SIGINT);
            seen.until(|event| matches!(event, Event::Stopping).then_some(()));
            // It is still served.
            assert_eq!(seen.run(|_| 1), 1);
            raise(SIGTERM);
            stage.system.run().unwrap();
            assert!(matches!(seen.closed(), CloseReason::Stopped));
            drop(client);
        },
    );
}

#[test]
fn a_stop_by_signal_waits_for_those_who_are_about_to_go() {
    in_child(
        "a_stop_by_signal_waits_for_those_who_are_about_to_go",
        DESCRIPTORS,
        || {
            let stage = Stage::with(ConnectionOptions::new(), staying);
            let (client, seen) = stage.pair();
            signals::stop_on(&stage.system.handle(), 100 * TIMEOUT).unwrap();
            raise(SIGTERM);
            seen.until(|event| matches!(event, Event::Stopping).then_some(()));
            drop(client);
            stage.system.run().unwrap();
            assert!(matches!(seen.closed(), CloseReason::PeerClosed));
        },
    );
}

#[test]
fn signals_come_as_messages_also_where_the_mailbox_is_full() {
    in_child(
        "signals_come_as_messages_also_where_the_mailbox_is_full",
        DESCRIPTORS,
        || {
            let system = builder(1).mailbox_bound(2).build().unwrap();
            let probe = spawn(&system, 0, |probe| probe);
            let (told, seen) = channel();
            let listening =
                signals::send_to(&[SIGHUP, SIGUSR1], probe.addr.clone(), move |signal| {
                    let told = told.clone();
                    Box::new(move |_: &mut Context<'_, Probe>| -> Outcome {
                        Ok(told.send(signal)?)
                    }) as Job
                });
            let listening = listening.unwrap();
            let held = hold(&probe);
            while probe.addr.send(Box::new(|_| Ok(()))).is_ok() {}
            raise(SIGHUP);
            // Another one by another way, so that the first has been dealt with.
            let (other, of_other) = channel();
            let witness = spawn(builder_system(), 0, |probe| probe);
            signals::send_to(&[SIGUSR2], witness.addr.clone(), move |signal| {
                let other = other.clone();
                Box::new(move |_: &mut Context<'_, Probe>| -> Outcome { Ok(other.send(signal)?) })
                    as Job
            })
            .unwrap();
            raise(SIGUSR2);
            assert_eq!(next(&of_other), SIGUSR2);
            assert!(seen.try_recv().is_err(), "its poller is held");
            drop(held);
            assert_eq!(next(&seen), SIGHUP);
            for _ in 0..20 {
                raise(SIGUSR1);
                assert_eq!(next(&seen), SIGUSR1);
            }
            listening.end();
            raise(SIGHUP);
            raise(SIGUSR2);
            assert_eq!(next(&of_other), SIGUSR2, "the process lives");
            assert_eq!(probe.run(|_| 1), 1);
            assert!(seen.try_recv().is_err(), "nobody listens any more");
        },
    );
}

/// A system that lives until the process ends.
fn builder_system() -> &'static System {
    Box::leak(Box::new(builder(1).build().unwrap()))
}

#[test]
fn listening_ends_with_the_actor_and_the_signal_does_nothing_then() {
    in_child(
        "listening_ends_with_the_actor_and_the_signal_does_nothing_then",
        DESCRIPTORS,
        || {
            let system = builder(1).build().unwrap();
            let probe = spawn(&system, 0, |probe| probe);
            let panics = signals::send_to(&[SIGUSR2], probe.addr.clone(), |_| -> Job {
                panic!("in what makes it")
            });
            let panics = panics.unwrap();
            raise(SIGUSR2);
            wait_until("the panic is counted", || system.stats().panics == 1);
            assert!(!panics.has_ended());
            probe.addr.close();
            probe.to_the_end();
            wait_until("listening has ended", || {
                raise(SIGUSR2);
                thread::yield_now();
                panics.has_ended()
            });
            raise(SIGUSR2);
            panics.end();
            raise(SIGUSR2);
        },
    );
}

#[test]
fn what_cannot_be_listened_to_is_an_error() {
    let system = builder(1).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    for signal in [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, -1, 0, 1_000] {
        let error = signals::send_to(&[SIGHUP, signal], probe.addr.clone(), |_| -> Job {
            unreachable!("nobody listens")
        })
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let expected = format!("send_to: signal {signal} cannot be listened to");
        assert_eq!(error.to_string(), expected);
    }
    let none = signals::send_to(&[100], probe.addr.clone(), |_| -> Job {
        unreachable!("nobody listens")
    });
    let text = none.unwrap_err().to_string();
    assert!(text.starts_with("send_to: signal 100: "), "{text}");
}

#[test]
fn a_simulation_hears_no_signal() {
    let mut simulation = Simulation::new(1);
    let system = simulation.system(System::builder());
    let error = signals::stop_on(&system.handle(), Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    struct Any;
    impl Actor for Any {
        type Message = i32;
    }
    let any = system.spawn(|| Any);
    let error = signals::send_to(&[SIGHUP], any, |signal| signal).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().starts_with("send_to: "), "{error}");
}

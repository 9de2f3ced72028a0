//! A system stops: nobody new, what was written arrives, everybody is told, threads are joined.

mod util;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use greenroom::*;
use util::*;

const MUCH: usize = 12 << 20;

fn stage(
    name: &str,
    pollers: usize,
    prepare: impl Fn(Probe) -> Probe + Send + Sync + 'static,
) -> Stage {
    let options = ListenOptions::new().connection(ConnectionOptions::new().output_max(2 * MUCH));
    Stage::listen(builder(pollers).name(name), "127.0.0.1:0", options, prepare)
}

/// Runs the system of a stage to its end on a thread of its own, which tells when it has ended, and
/// how.
fn run(stage: Stage) -> std::sync::mpsc::Receiver<std::io::Result<()>> {
    let (ended, end) = channel();
    std::thread::spawn(move || {
        let Stage {
            system, listener, ..
        } = stage;
        let _ = ended.send(system.run());
        drop(listener);
    });
    end
}

#[test]
fn stopping_flushes_what_was_written_and_joins_the_threads() {
    let stage = stage("flushes", 2, |probe| probe);
    let (handle, listener) = (stage.system.handle(), stage.listener.clone());
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let hubs = [0, 1].map(|poller| spawn(&stage.system, poller, |probe| probe));
    seen.run(|ctx| ctx.write(pattern(MUCH)));
    assert_eq!(poller_time("flushes").1, 2);
    let end = run(stage);
    handle.stop(TIMEOUT);
    assert!(matches!(seen.until(Some), Event::Stopping));
    wait_until("nobody new is accepted", || {
        TcpStream::connect(tcp_addr(&listener)).is_err()
    });
    assert!(end.try_recv().is_err(), "it waits for the flush");
    assert_same(&read_to_end(client), &pattern(MUCH));
    assert!(matches!(seen.closed(), CloseReason::Finished));
    next(&end).unwrap();
    // Hubs stay to serve until the last connection has ended.
    for hub in hubs {
        let events = hub.to_the_end();
        assert!(
            matches!(
                events[..],
                [Event::Stopping, Event::Closed(CloseReason::Stopped)]
            ),
            "{events:?}"
        );
    }
    assert_eq!(poller_time("flushes").1, 0, "all threads are joined");
    let stats = handle.stats();
    assert_eq!((stats.opened, stats.closed, stats.connections), (3, 3, 0));
}

#[test]
fn at_the_deadline_whoever_is_left_is_closed_as_stopped() {
    let stage = stage("deadline", 2, |probe| probe.on_stopping(|_| Ok(())));
    let handle = stage.system.handle();
    let pairs: Vec<_> = (0..10).map(|_| stage.pair()).collect();
    let end = run(stage);
    let begun = Instant::now();
    handle.stop(Duration::from_millis(100));
    next(&end).unwrap();
    assert!(
        begun.elapsed() >= Duration::from_millis(100),
        "they hold on, so they have until the deadline"
    );
    for (client, seen) in pairs {
        let events = seen.to_the_end();
        assert!(
            matches!(
                events[..],
                [Event::Stopping, Event::Closed(CloseReason::Stopped)]
            ),
            "{events:?}"
        );
        assert!(read_to_end(client).is_empty());
    }
    assert_eq!(handle.stats().opened, handle.stats().closed);
}

#[test]
fn a_flush_that_the_deadline_cuts_short_is_told_as_stopped() {
    let stage = stage("cut", 1, |probe| probe);
    let handle = stage.system.handle();
    let _client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.run(|ctx| ctx.write(pattern(MUCH)));
    let end = run(stage);
    handle.stop(Duration::from_millis(50));
    next(&end).unwrap();
    let reason = seen.closed();
    assert!(
        matches!(reason, CloseReason::Stopped),
        "`{reason}` would say that all had left"
    );
}

#[test]
fn a_connection_that_closed_before_the_stop_is_flushed_by_it_too() {
    let stage = stage("before", 1, |probe| probe);
    let handle = stage.system.handle();
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.tell(|ctx| {
        ctx.write(pattern(MUCH));
        Err("done with you".into())
    });
    settle(&stage.system);
    let end = run(stage);
    handle.stop(TIMEOUT);
    assert_same(&read_to_end(client), &pattern(MUCH));
    assert!(matches!(seen.closed(), CloseReason::Error(_)));
    next(&end).unwrap();
}

#[test]
fn a_second_stop_is_harmless_and_the_earliest_deadline_counts() {
    let stage = stage("second", 2, |probe| probe.on_stopping(|_| Ok(())));
    let handle = stage.system.handle();
    let (_client, seen) = stage.pair();
    let end = run(stage);
    handle.stop(Duration::from_secs(3600));
    handle.stop(Duration::from_secs(7200));
    assert!(matches!(seen.next(), Event::Stopping));
    handle.stop(Duration::ZERO);
    handle.stop(Duration::from_secs(3600));
    next(&end).unwrap();
    let rest = seen.to_the_end();
    assert!(
        matches!(rest[..], [Event::Closed(CloseReason::Stopped)]),
        "told once: {rest:?}"
    );
    // After the end it is nothing.
    handle.stop(Duration::ZERO);
    assert!(handle.spawn(|| -> Probe { panic!("never made") }).is_gone());
    assert!(seen.addr.send(Box::new(|_| Ok(()))).unwrap_err().is_gone());
    assert_eq!(handle.stats().panics, 0);
}

#[test]
fn stop_inside_a_callback_waits_for_nobody() {
    let stage = stage("inside", 2, |probe| probe);
    let (client, seen) = stage.pair();
    seen.tell(|ctx| {
        ctx.write(b"goodbye");
        ctx.system().stop(TIMEOUT);
        ctx.system().stop(TIMEOUT);
        Ok(())
    });
    let end = run(stage);
    assert_eq!(read_to_end(&client), b"goodbye");
    drop(client);
    next(&end).unwrap();
    assert!(matches!(seen.closed(), CloseReason::Finished));
}

#[test]
fn dropping_a_system_stops_it_and_joins_its_threads() {
    let stage = stage("dropped", 2, |probe| probe);
    let handle = stage.system.handle();
    let pairs: Vec<_> = (0..4).map(|_| stage.pair()).collect();
    let addr = tcp_addr(&stage.listener);
    drop(stage);
    // A thread that is joined may stand in /proc for a moment longer.
    wait_until("its threads are gone", || poller_time("dropped").1 == 0);
    assert!(TcpStream::connect(addr).is_err());
    for (client, seen) in pairs {
        assert_eq!(
            seen.to_the_end()
                .iter()
                .filter(|event| matches!(event, Event::Closed(_)))
                .count(),
            1
        );
        assert!(read_to_end(client).is_empty());
    }
    assert_eq!(handle.stats().opened, handle.stats().closed);
}

#[test]
fn dropping_a_system_inside_one_of_its_callbacks_does_not_deadlock() {
    let Stage {
        system, listener, ..
    } = stage("suicide", 2, |probe| probe);
    let hub = spawn(&system, 0, |probe| probe);
    let client = connect(&listener);
    hub.tell(move |_| {
        drop(system);
        Ok(())
    });
    assert!(matches!(hub.closed(), CloseReason::Stopped));
    let mut rest = Vec::new();
    let _ = (&client).read_to_end(&mut rest);
    wait_until("the threads have ended", || poller_time("suicide").1 == 0);
}

#[test]
fn the_file_of_a_unix_socket_is_removed() {
    for drops in [true, false] {
        let dir = TempDir::new();
        let path = dir.join("socket");
        let system = builder(1).build().unwrap();
        let (_listener, _) = listen(
            &system,
            &format!("unix:{}", path.display()),
            ListenOptions::new(),
            |probe| probe,
        );
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(path.exists());
        if drops {
            drop(system);
        } else {
            system.handle().stop(Duration::ZERO);
            system.run().unwrap();
        }
        assert!(!path.exists());
    }
}

#[test]
fn those_who_wait_in_the_backlog_when_the_system_stops_are_served() {
    let stage = stage("backlog", 1, |probe| {
        probe
            .on_readable(|input, ctx| {
                ctx.write(input.take_all());
                Ok(())
            })
            // Holds on until its client leaves.
            .on_stopping(|_| Ok(()))
    });
    let handle = stage.system.handle();
    let (first, seen) = stage.pair();
    let held = hold(&seen);
    // More than one turn accepts.
    let mut waiting: Vec<_> = (0..150).map(|_| stage.client()).collect();
    handle.stop(TIMEOUT);
    drop(held);
    let end = run(stage);
    for client in &mut waiting {
        client.write_all(b"served?").unwrap();
        assert_eq!(read(client, 7), b"served?");
    }
    drop((first, waiting));
    next(&end).unwrap();
    assert_eq!(handle.stats().opened, 151);
    assert_eq!(handle.stats().closed, 151);
}

#[test]
fn a_stop_while_connects_flood_in_ends_in_order() {
    for round in 0..5 {
        let name = format!("flooded{round}");
        let stage = stage(&name, 2, |probe| {
            probe.on_readable(|input, ctx| {
                ctx.write(input.take_all());
                Ok(())
            })
        });
        let (handle, addr) = (stage.system.handle(), tcp_addr(&stage.listener));
        let flood: Vec<_> = (0..2)
            .map(|_| {
                std::thread::spawn(move || {
                    while let Ok(mut client) = TcpStream::connect(addr) {
                        client.set_read_timeout(Some(TIMEOUT)).unwrap();
                        let _ = client.write_all(b"x");
                        // Served or told the end; in any case not left waiting.
                        if let Err(error) = client.read(&mut [0; 8]) {
                            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock);
                        }
                    }
                })
            })
            .collect();
        wait_until("the flood has begun", || handle.stats().accepted > 50);
        let end = run(stage);
        handle.stop(TIMEOUT);
        next(&end).unwrap();
        for thread in flood {
            thread.join().unwrap();
        }
        let stats = handle.stats();
        assert_eq!(
            (stats.opened, stats.connections),
            (stats.closed, 0),
            "{stats:?}"
        );
        wait_until("its threads are gone", || poller_time(&name).1 == 0);
    }
}

#[test]
fn whoever_is_spawned_while_the_system_stops_is_told_too() {
    let (events, late) = channel();
    let stage = stage("late", 1, move |probe| {
        let events = events.clone();
        probe.on_stopping(move |ctx| {
            ctx.spawn(Probe::new(events.clone()));
            Ok(())
        })
    });
    let handle = stage.system.handle();
    let (client, _seen) = stage.pair();
    let end = run(stage);
    handle.stop(TIMEOUT);
    assert!(matches!(next(&late), Event::Opened(_)));
    assert!(matches!(next(&late), Event::Stopping));
    drop(client);
    next(&end).unwrap();
    assert!(matches!(next(&late), Event::Closed(CloseReason::Stopped)));
    assert_eq!((handle.stats().opened, handle.stats().closed), (2, 2));
}

#[test]
fn messages_still_reach_an_actor_that_the_stop_has_told() {
    let stage = stage("messages", 1, |probe| probe.on_stopping(|_| Ok(())));
    let handle = stage.system.handle();
    let (client, seen) = stage.pair();
    let hub = spawn(&stage.system, 0, |probe| probe);
    let end = run(stage);
    handle.stop(TIMEOUT);
    assert!(matches!(seen.next(), Event::Stopping));
    let to = seen.addr.clone();
    hub.tell(move |_| {
        let farewell = |ctx: &mut Context<'_, Probe>| {
            ctx.write(b"farewell");
            ctx.close();
            Ok(())
        };
        to.send(Box::new(farewell))?;
        Ok(())
    });
    assert_eq!(read_to_end(&client), b"farewell");
    drop(client);
    next(&end).unwrap();
}

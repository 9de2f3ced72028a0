//! A panic ends the actor in which it happens, and nobody else.

mod util;

use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

use greenroom::*;
use util::*;

/// A stage on one poller with a neighbour that has to go on.
struct Neighbours {
    stage: Stage,
    client: std::net::TcpStream,
    neighbour: Seen,
}

impl Neighbours {
    /// The first connection is the neighbour, those after it are prepared by `prepare`.
    fn new(prepare: impl Fn(Probe) -> Probe + Send + Sync + 'static) -> Neighbours {
        Neighbours::with(ConnectionOptions::new(), prepare)
    }

    fn with(
        options: ConnectionOptions,
        prepare: impl Fn(Probe) -> Probe + Send + Sync + 'static,
    ) -> Neighbours {
        let is_first = std::sync::atomic::AtomicBool::new(true);
        let stage = Stage::with(options, move |probe| {
            if is_first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                return probe.on_readable(|input, ctx| {
                    ctx.write(input.take_all());
                    Ok(())
                });
            }
            prepare(probe)
        });
        let (client, neighbour) = stage.pair();
        Neighbours {
            stage,
            client,
            neighbour,
        }
    }

    /// A client that sends a byte is told of no orderly end.
    #[track_caller]
    fn assert_a_byte_ends_in_a_reset(&self) {
        let (mut client, seen) = self.stage.pair();
        client.write_all(b"x").unwrap();
        only_end(&seen);
        let end = std::io::copy(&mut client, &mut std::io::sink());
        let kind = end.expect_err("not an orderly end").kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
    }

    /// Checks that so many panics were counted, that the neighbour still serves, and that new
    /// clients are served.
    #[track_caller]
    fn go_on(mut self, panics: u64) {
        assert_eq!(self.stage.system.stats().panics, panics);
        self.client.write_all(b"still there?").unwrap();
        assert_eq!(read(&self.client, 12), b"still there?");
        self.neighbour.run(|_| ());
        settle(&self.stage.system);
        let handle = self.stage.system.handle();
        self.stage.system.handle().stop(Duration::ZERO);
        self.stage.system.run().expect("no poller has panicked");
        assert_eq!(handle.stats().opened, handle.stats().closed);
        assert_eq!(handle.stats().panics, panics);
    }
}

/// The actor that panicked got `closed` once, last, and with what it said.
#[track_caller]
fn only_end(seen: &Seen) {
    let events = seen.to_the_end();
    let ends = events
        .iter()
        .filter(|event| matches!(event, Event::Closed(_)))
        .count();
    assert_eq!(ends, 1, "{events:?}");
    match events.last() {
        Some(Event::Closed(CloseReason::Panicked(what))) => assert_eq!(what, "a test's panic"),
        other => panic!("{other:?}"),
    }
}

fn bang() -> Outcome {
    panic!("a test's panic")
}

#[test]
fn a_panic_in_opened_closes_that_actor_alone() {
    let neighbours = Neighbours::new(|probe| probe.on_opened(|_| bang()));
    let (client, seen) = neighbours.stage.pair();
    only_end(&seen);
    assert!(read_to_end(client).is_empty());
    neighbours.go_on(1);
}

#[test]
fn a_panic_in_readable_closes_that_actor_alone() {
    let neighbours = Neighbours::new(|probe| probe.on_readable(|_, _| bang()));
    let (mut client, seen) = neighbours.stage.pair();
    client.write_all(b"x").unwrap();
    only_end(&seen);
    neighbours.go_on(1);
}

/// What a callback wrote before it panicked is thrown away, and an orderly end would hide that.
#[test]
fn a_panic_after_a_write_is_a_reset() {
    let little = ConnectionOptions::new().output_max(8).watermarks(0, 8);
    type Callback = fn(&mut Context<'_, Probe>) -> Outcome;
    let written: [Callback; 3] = [
        |ctx| {
            ctx.write(b"lost");
            bang()
        },
        |ctx| {
            ctx.write(b"past the budget");
            bang()
        },
        |ctx| {
            ctx.write(b"around");
            ctx.nested::<Probe, _>(|_| bang()).0
        },
    ];
    for callback in written {
        let neighbours = Neighbours::with(little.clone(), move |probe| {
            probe.on_readable(move |input, ctx| {
                input.take_all();
                callback(ctx)
            })
        });
        neighbours.assert_a_byte_ends_in_a_reset();
    }
}

#[test]
fn a_panic_after_a_file_is_a_reset() {
    let neighbours = Neighbours::new(|probe| {
        probe.on_readable(|input, ctx| {
            input.take_all();
            let file = std::fs::File::open(std::env::current_exe()?)?;
            ctx.write_file(file, 0, 1000)?;
            bang()
        })
    });
    neighbours.assert_a_byte_ends_in_a_reset();
    neighbours.go_on(1);
}

#[test]
fn a_panic_in_read_closed_closes_that_actor_alone() {
    let neighbours = Neighbours::new(|probe| probe.on_read_closed(|_| bang()));
    let (client, seen) = neighbours.stage.pair();
    half_close(&client);
    only_end(&seen);
    neighbours.go_on(1);
}

#[test]
fn a_panic_in_message_closes_that_actor_alone() {
    let neighbours = Neighbours::new(|probe| probe);
    let (_client, seen) = neighbours.stage.pair();
    seen.tell(|_| bang());
    only_end(&seen);
    neighbours.go_on(1);
}

#[test]
fn a_panic_in_timer_closes_that_actor_alone() {
    let neighbours = Neighbours::new(|probe| {
        probe
            .on_opened(|ctx| {
                ctx.set_timer(Duration::ZERO);
                Ok(())
            })
            .on_timer(|_, _| bang())
    });
    let (_client, seen) = neighbours.stage.pair();
    only_end(&seen);
    neighbours.go_on(1);
}

#[test]
fn a_panic_in_drained_closes_that_actor_alone() {
    let neighbours = Neighbours::with(ConnectionOptions::new().watermarks(1, 100), |probe| {
        probe
            .on_opened(|ctx| {
                ctx.write([0; 100]);
                Ok(())
            })
            .on_drained(|_| bang())
    });
    let (_client, seen) = neighbours.stage.pair();
    only_end(&seen);
    neighbours.go_on(1);
}

#[test]
fn a_panic_in_room_closes_that_actor_alone() {
    let neighbours = Neighbours::new(|probe| probe.on_room(|_| bang()));
    let gone = neighbours
        .stage
        .system
        .spawn(|| -> Probe { panic!("a test's panic") });
    let (_client, seen) = neighbours.stage.pair();
    seen.tell(move |ctx| {
        // An actor that has gone counts as room.
        ctx.wait_for_room(&gone);
        Ok(())
    });
    only_end(&seen);
    neighbours.go_on(2);
}

#[test]
fn a_panic_in_stopping_closes_that_actor_alone() {
    let neighbours = Neighbours::new(|probe| probe.on_stopping(|_| bang()));
    let (_client, seen) = neighbours.stage.pair();
    let handle = neighbours.stage.system.handle();
    handle.stop(TIMEOUT);
    only_end(&seen);
    drop((neighbours.client, _client));
    neighbours
        .stage
        .system
        .run()
        .expect("no poller has panicked");
    assert_eq!(handle.stats().panics, 1);
    assert_eq!(handle.stats().opened, handle.stats().closed);
}

#[test]
fn a_panic_in_closed_is_contained_and_closed_is_not_called_again() {
    let neighbours = Neighbours::new(|probe| {
        probe.on_closed(|_, _| {
            let _ = bang();
        })
    });
    let (client, seen) = neighbours.stage.pair();
    drop(client);
    let events = seen.to_the_end();
    assert!(
        matches!(
            events[..],
            [Event::ReadClosed, Event::Closed(CloseReason::PeerClosed)]
        ),
        "{events:?}"
    );
    neighbours.go_on(1);
}

#[test]
fn a_panic_in_the_factory_of_a_listener_closes_that_connection_alone() {
    let neighbours = Neighbours::new(|_| panic!("a test's panic"));
    let client = neighbours.stage.client();
    assert!(read_to_end(client).is_empty());
    wait_until("the connection is gone", || {
        neighbours.stage.listener.connections() == 1
    });
    neighbours.go_on(1);
}

#[test]
fn a_panic_in_the_factory_of_a_spawn_is_contained_and_the_address_has_gone() {
    let neighbours = Neighbours::new(|probe| probe);
    let addr = neighbours
        .stage
        .system
        .spawn(|| -> Probe { panic!("a test's panic") });
    wait_until("the address has gone", || addr.is_gone());
    assert!(addr.send(Box::new(|_| Ok(()))).unwrap_err().is_gone());
    neighbours.go_on(1);
}

#[test]
fn a_panic_in_the_drop_of_an_actor_is_contained() {
    let neighbours = Neighbours::new(|probe| {
        probe.on_drop(|| {
            let _ = bang();
        })
    });
    let (client, seen) = neighbours.stage.pair();
    drop(client);
    assert!(matches!(seen.closed(), CloseReason::PeerClosed));
    wait_until("it is counted", || {
        neighbours.stage.system.stats().panics == 1
    });
    neighbours.go_on(1);
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        // A second panic while one unwinds would be the end of the process by the language's own
        // rule.
        if !std::thread::panicking() {
            panic!("a test's panic in a drop");
        }
    }
}

impl std::fmt::Debug for Bomb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bomb")
    }
}

impl std::fmt::Display for Bomb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bomb")
    }
}

impl std::error::Error for Bomb {}

#[test]
fn a_panic_in_the_drop_of_a_message_nobody_took_is_contained() {
    let neighbours = Neighbours::new(|probe| probe);
    let (_client, seen) = neighbours.stage.pair();
    let other = spawn(&neighbours.stage.system, 0, |probe| probe);
    let to = seen.addr.clone();
    // From a callback of the same poller: the message is on its way when the actor closes.
    other.tell(move |_| {
        to.close();
        let bomb = Bomb;
        let message = move |_: &mut Context<'_, Probe>| {
            let _bomb = &bomb;
            Ok(())
        };
        to.send(Box::new(message)).unwrap();
        Ok(())
    });
    assert!(matches!(seen.closed(), CloseReason::Finished));
    wait_until("the message is dropped", || {
        neighbours.stage.system.stats().dead_letters == 1
    });
    wait_until("it is counted", || {
        neighbours.stage.system.stats().panics == 1
    });
    neighbours.go_on(1);
}

#[test]
fn a_panic_in_the_drop_of_an_error_is_contained() {
    let neighbours = Neighbours::new(|probe| probe);
    let (_client, seen) = neighbours.stage.pair();
    seen.tell(|_| Err(Box::new(Bomb)));
    assert!(matches!(seen.closed(), CloseReason::Error(_)));
    wait_until("it is counted", || {
        neighbours.stage.system.stats().panics == 1
    });
    neighbours.go_on(1);
}

#[test]
fn a_panic_in_the_drop_of_a_panics_payload_is_contained() {
    let neighbours = Neighbours::new(|probe| probe);
    let (_client, seen) = neighbours.stage.pair();
    seen.tell(|_| std::panic::panic_any(Bomb));
    assert!(matches!(seen.closed(), CloseReason::Panicked(_)));
    wait_until("both are counted", || {
        neighbours.stage.system.stats().panics == 2
    });
    neighbours.go_on(2);
}

#[test]
fn a_panic_in_an_actor_without_a_socket_ends_it_alone() {
    let neighbours = Neighbours::new(|probe| probe);
    let hub = spawn(&neighbours.stage.system, 0, |probe| probe);
    hub.tell(|_| bang());
    only_end(&hub);
    neighbours.go_on(1);
}

#[test]
fn writing_without_a_socket_is_a_panic_and_closes_that_actor_alone() {
    let neighbours = Neighbours::new(|probe| probe);
    let (_, is_dropped) = channel::<()>();
    drop(is_dropped);
    type Write = fn(&mut Context<'_, Probe>);
    let writes: [Write; 4] = [
        |ctx| assert!(ctx.write(b"x")),
        |ctx| assert!(ctx.write_bytes(vec![b'x'; 1000].into())),
        |ctx| assert!(ctx.write_parts(&[b"x", b"y"])),
        |ctx| ctx.shutdown_write(),
    ];
    for write in writes {
        let hub = spawn(&neighbours.stage.system, 0, |probe| probe);
        hub.tell(move |ctx| {
            write(ctx);
            Ok(())
        });
        assert!(matches!(hub.closed(), CloseReason::Panicked(what) if what.contains("no socket")));
    }
    neighbours.go_on(4);
}

#[test]
fn writing_in_closed_is_a_panic_and_never_silent() {
    let neighbours = Neighbours::new(|probe| {
        probe.on_closed(|_, ctx| {
            ctx.write(b"too late");
        })
    });
    let (client, seen) = neighbours.stage.pair();
    seen.addr.close();
    assert!(matches!(
        seen.to_the_end()[..],
        [Event::Closed(CloseReason::Finished)]
    ));
    assert!(read_to_end(client).is_empty());
    neighbours.go_on(1);
}

#[test]
fn what_a_callback_wrote_before_its_panic_is_not_sent() {
    let neighbours = Neighbours::new(|probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(input.take_all());
            bang()
        })
    });
    let (mut client, seen) = neighbours.stage.pair();
    client.write_all(b"half an answer").unwrap();
    only_end(&seen);
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client, &mut rest);
    assert!(rest.is_empty(), "{rest:?}");
    neighbours.go_on(1);
}

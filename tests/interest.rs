//! Interest equals what will be acted on: no turn spins on an event that nobody consumes.
//!
//! A poller that spins takes all of a core; one that waits takes nothing. So each test brings a
//! connection into a state where a careless poller spins, and then looks at the processor time that
//! the poller takes while a clock of another system ticks.

mod util;

use std::io::Write;
use std::time::Duration;

use greenroom::*;
use util::*;

/// A stage whose pollers have a name known to the test.
fn stage(
    name: &str,
    options: ListenOptions,
    prepare: impl Fn(Probe) -> Probe + Send + Sync + 'static,
) -> Stage {
    Stage::listen(builder(1).name(name), "127.0.0.1:0", options, prepare)
}

fn connection(options: ConnectionOptions) -> ListenOptions {
    ListenOptions::new().connection(options)
}

#[test]
fn an_idle_server_takes_no_processor_time() {
    let stage = stage("idle", ListenOptions::new(), |probe| probe);
    let _pairs: Vec<_> = (0..10).map(|_| stage.pair()).collect();
    assert_quiet("idle");
}

#[test]
fn a_client_that_sends_but_does_not_read_makes_nobody_spin() {
    let options = ConnectionOptions::new()
        .slow_reader(SlowReader::PauseSource)
        .output_max(32 << 20);
    let stage = stage("noread", connection(options), |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(input.take_all());
            Ok(())
        })
    });
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let mut writing = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || while writing.write_all(&[b'x'; 10_000]).is_ok() {});
    // More than the low watermark: once the high one was reached it may fall again as far as this
    // while the kernel's buffer grows, and the source is still held back.
    wait_until("its source is held back", || {
        seen.run(|ctx| ctx.queued() > 16 << 10)
    });
    assert_quiet("noread");
    reset(client);
    drop(stage);
    writer.join().unwrap();
}

#[test]
fn output_that_waits_for_a_stuck_reader_makes_nobody_spin() {
    let stage = stage(
        "stuck",
        connection(ConnectionOptions::new().output_max(32 << 20)),
        |probe| probe,
    );
    let mut client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.run(|ctx| ctx.write(pattern(12 << 20)));
    // The peer half-closes, too: that is an event as well.
    client.write_all(b"bye").unwrap();
    assert_quiet("stuck");
    half_close(&client);
    seen.until(|event| matches!(event, Event::ReadClosed).then_some(()));
    assert_quiet("stuck");
}

#[test]
fn a_reader_that_has_caught_up_makes_nobody_spin() {
    let options = connection(ConnectionOptions::new().output_max(32 << 20));
    let stage = stage("caughtup", options, |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.run(|ctx| ctx.write(pattern(12 << 20)));
    assert_same(&read(&client, 12 << 20), &pattern(12 << 20));
    assert_eq!(seen.run(|ctx| ctx.queued()), 0);
    // The socket takes bytes from now on, and there are none to give.
    assert_quiet("caughtup");
}

#[test]
fn a_paused_connection_whose_peer_has_hung_up_makes_nobody_spin() {
    let stage = stage("hungup", ListenOptions::new(), |probe| probe);
    let pairs: Vec<_> = (0..2).map(|_| stage.pair()).collect();
    let mut gone = Vec::new();
    for (at, (mut client, seen)) in pairs.into_iter().enumerate() {
        seen.run(|ctx| ctx.pause());
        client.write_all(b"last words").unwrap();
        if at == 0 {
            drop(client)
        } else {
            reset(client)
        }
        gone.push(seen);
    }
    assert_quiet("hungup");
    // And it is noticed once reading goes on.
    for seen in &gone {
        seen.tell(|ctx| {
            ctx.resume();
            Ok(())
        });
    }
    assert!(matches!(gone[0].closed(), CloseReason::PeerClosed));
    assert!(matches!(gone[1].closed(), CloseReason::Reset));
}

#[test]
fn a_half_closed_connection_whose_actor_holds_on_makes_nobody_spin() {
    let stage = stage("halves", ListenOptions::new(), |probe| {
        probe.on_read_closed(|_| Ok(()))
    });
    let (client, seen) = stage.pair();
    half_close(&client);
    assert!(matches!(seen.next(), Event::ReadClosed));
    let (ours, other) = stage.pair();
    other.run(|ctx| ctx.shutdown_write());
    assert!(read_to_end(&ours).is_empty());
    assert_quiet("halves");
    drop(client);
    assert_quiet("halves");
    // What is shut on both sides has nothing to wait for any more.
    seen.run(|ctx| ctx.shutdown_write());
    assert!(matches!(seen.closed(), CloseReason::PeerClosed));
    half_close(&ours);
    assert!(matches!(other.closed(), CloseReason::PeerClosed));
    wait_until("all is over", || stage.is_over());
}

#[test]
fn a_paused_connection_that_is_shut_on_both_sides_makes_nobody_spin() {
    let stage = stage("shut", ListenOptions::new(), |probe| probe);
    let (client, seen) = stage.pair();
    seen.run(|ctx| {
        ctx.pause();
        ctx.shutdown_write();
    });
    assert!(read_to_end(&client).is_empty());
    drop(client);
    // The kernel holds this connection for hung up, and says so whatever it is asked.
    assert_quiet("shut");
    seen.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    assert!(matches!(seen.closed(), CloseReason::PeerClosed));
}

#[test]
fn a_closing_connection_whose_peer_neither_reads_nor_closes_makes_nobody_spin() {
    let stage = stage(
        "closing",
        connection(ConnectionOptions::new().output_max(32 << 20)),
        |probe| probe,
    );
    let mut flushing = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.run(|ctx| ctx.write(pattern(12 << 20)));
    // It is not read any more while it flushes.
    seen.addr.close();
    let (_lingering, other) = stage.pair();
    other.addr.close();
    other.closed();
    flushing.write_all(b"unread").unwrap();
    assert_quiet("closing");
}

#[test]
fn a_listener_at_its_limit_with_clients_waiting_makes_nobody_spin() {
    let stage = stage("limit", ListenOptions::new().max_connections(1), |probe| {
        probe
    });
    let (client, _seen) = stage.pair();
    let waiting: Vec<_> = (0..5).map(|_| stage.client()).collect();
    assert_quiet("limit");
    drop(client);
    let next = stage.accepted();
    drop(waiting);
    next.closed();
}

#[test]
fn an_actor_that_consumes_nothing_makes_nobody_spin() {
    let stage = stage("keeps", ListenOptions::new(), |probe| {
        probe.on_readable(|_, _| Ok(())).on_read_closed(|_| Ok(()))
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"kept").unwrap();
    seen.next();
    assert_quiet("keeps");
    half_close(&client);
    seen.until(|event| matches!(event, Event::ReadClosed).then_some(()));
    assert_quiet("keeps");
}

#[test]
fn timers_and_watches_of_the_far_future_make_nobody_spin() {
    let options = ConnectionOptions::new()
        .idle_timeout(Duration::MAX)
        .incomplete_timeout(Duration::MAX);
    let stage = stage("future", connection(options), |probe| {
        probe
            .on_opened(|ctx| {
                ctx.set_timer(Duration::MAX);
                ctx.set_interval(Duration::from_secs(86_400));
                Ok(())
            })
            .on_readable(|_, _| Ok(()))
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"the beginning of a line").unwrap();
    assert!(matches!(seen.next(), Event::Readable(..)));
    assert_quiet("future");
}

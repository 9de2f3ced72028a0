//! How connections end: once, with the right reason, and with every byte that was written.

mod util;

use std::io::{self, Read, Write};
use std::time::Duration;

use greenroom::*;
use util::*;

/// Checks the frame of an actor's life: `opened` first and once, `closed` last and once. Returns
/// the reason.
#[track_caller]
fn only_end(seen: &Seen) -> CloseReason {
    // `Seen` has taken `opened` already.
    let mut events = seen.to_the_end();
    let last = events.pop();
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Opened(_) | Event::Closed(_))),
        "{events:?}, {last:?}"
    );
    match last {
        Some(Event::Closed(reason)) => reason,
        other => panic!("`closed` is the last call, not {other:?} after {events:?}"),
    }
}

#[test]
fn closed_is_called_once_with_the_peers_close() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    drop(client);
    assert!(matches!(only_end(&seen), CloseReason::PeerClosed));
}

#[test]
fn closed_is_called_once_with_a_reset() {
    let stage = Stage::new();
    let (mut client, seen) = stage.pair();
    client.write_all(b"in the middle of a li").unwrap();
    seen.read(21);
    reset(client);
    assert!(matches!(only_end(&seen), CloseReason::Reset));
}

#[test]
fn closed_is_called_once_with_a_reset_that_a_write_finds() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    // Paused, so that nothing but the write can tell.
    seen.run(|ctx| ctx.pause());
    reset(client);
    wait_until("the write fails", || {
        let write = |ctx: &mut Context<'_, Probe>| {
            ctx.write(b"is anybody there?");
            Ok(())
        };
        seen.addr.send(Box::new(write)).is_err()
    });
    assert!(matches!(only_end(&seen), CloseReason::Reset));
}

#[test]
fn closed_is_called_once_with_an_error() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    seen.tell(|_| Err("no such command".into()));
    assert!(
        matches!(only_end(&seen), CloseReason::Error(error) if error.to_string() == "no such command")
    );
    assert!(read_to_end(client).is_empty());
}

#[test]
fn closed_is_called_once_when_the_actor_has_finished() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    seen.tell(|ctx| {
        ctx.close();
        ctx.close();
        Ok(())
    });
    assert!(matches!(only_end(&seen), CloseReason::Finished));
    assert!(read_to_end(client).is_empty());
}

#[test]
fn closed_is_called_once_when_an_address_asks_for_it() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    for _ in 0..3 {
        seen.addr.close();
    }
    assert!(matches!(only_end(&seen), CloseReason::Finished));
    assert!(read_to_end(client).is_empty());
}

#[test]
fn closed_is_called_once_when_two_ends_meet() {
    // The peer goes, the actor closes, an address closes and the system stops, all at one time.
    for _ in 0..20 {
        let stage = Stage::new();
        let (client, seen) = stage.pair();
        let held = hold(&seen);
        seen.addr.close();
        let close = |ctx: &mut Context<'_, Probe>| {
            ctx.close();
            Ok(())
        };
        let _ = seen.addr.send(Box::new(close));
        drop(client);
        stage.system.handle().stop(Duration::ZERO);
        drop(held);
        only_end(&seen);
        let handle = stage.system.handle();
        drop(stage);
        assert_eq!(handle.stats().opened, handle.stats().closed);
    }
}

#[test]
fn an_abort_resets_the_connection() {
    let stage = Stage::new();
    let (mut client, seen) = stage.pair();
    seen.tell(|ctx| {
        ctx.write(b"never sent");
        ctx.abort();
        Ok(())
    });
    assert!(matches!(only_end(&seen), CloseReason::Aborted));
    let error = client.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    wait_until("all is over", || stage.is_over());
}

#[test]
fn what_was_written_before_an_error_arrives() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, ctx| {
            input.take_all();
            ctx.write(b"error: no such command\n");
            Err("no such command".into())
        })
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"nonsense\n").unwrap();
    assert_eq!(read_to_end(client), b"error: no such command\n");
    assert!(matches!(only_end(&seen), CloseReason::Error(_)));
}

#[test]
fn what_was_written_before_an_error_arrives_at_a_slow_reader_too() {
    let stage = Stage::with(ConnectionOptions::new().output_max(16 << 20), |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.tell(|ctx| {
        ctx.write(pattern(12 << 20));
        Err("that was all".into())
    });
    assert_same(&read_to_end(client), &pattern(12 << 20));
    assert!(matches!(only_end(&seen), CloseReason::Error(_)));
}

#[test]
fn what_is_written_after_close_in_the_same_callback_arrives() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    seen.tell(|ctx| {
        ctx.write(b"first ");
        ctx.close();
        ctx.write(b"second");
        Ok(())
    });
    assert_eq!(read_to_end(client), b"first second");
    assert!(matches!(only_end(&seen), CloseReason::Finished));
}

#[test]
fn a_close_flushes_to_a_slow_reader_and_calls_nothing_but_closed() {
    let stage = Stage::with(ConnectionOptions::new().output_max(16 << 20), |probe| probe);
    let mut client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let bytes = pattern(12 << 20);
    let written = bytes.clone();
    seen.run(move |ctx| {
        ctx.write(written);
        ctx.set_timer(Duration::ZERO);
        ctx.close();
    });
    // All of these come too late.
    client.write_all(b"hello?").unwrap();
    let message =
        |_: &mut Context<'_, Probe>| -> Outcome { panic!("a closing actor takes no message") };
    let _ = seen.addr.send(Box::new(message));
    settle(&stage.system);
    assert_same(&read_to_end(client), &bytes);
    let events = seen.to_the_end();
    assert!(
        matches!(events[..], [Event::Closed(CloseReason::Finished)]),
        "{events:?}"
    );
}

#[test]
fn a_lingering_close_delivers_every_byte_to_a_client_whose_own_nobody_read() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_opened(|ctx| {
            ctx.pause();
            Ok(())
        })
    });
    let client = connect_small(&stage.listener, 8 << 10);
    let seen = stage.accepted();
    let mut writing = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || writing.write_all(&[b'q'; 1 << 20]));
    // Some of it is there when the answer is written.
    settle(&stage.system);
    let answer = pattern(200_000);
    let written = answer.clone();
    seen.tell(move |ctx| {
        ctx.write(written);
        ctx.close();
        Ok(())
    });
    assert_same(&read_to_end(&client), &answer);
    writer
        .join()
        .unwrap()
        .expect("what the client sent is taken, and thrown away");
    assert!(matches!(only_end(&seen), CloseReason::Finished));
    assert_eq!(
        stage.system.stats().connections,
        1,
        "it lingers until the client has closed"
    );
    drop(client);
    wait_until("all is over", || stage.is_over());
}

#[test]
fn a_lingering_close_ends_at_its_deadline() {
    let options = ConnectionOptions::new().linger(Duration::from_millis(50), 1 << 30);
    let stage = Stage::with(options, |probe| probe);
    let (client, seen) = stage.pair();
    seen.addr.close();
    assert!(matches!(only_end(&seen), CloseReason::Finished));
    wait_until("the client that does not close is left alone", || {
        stage.is_over()
    });
    assert!(read_to_end(client).is_empty());
}

#[test]
fn a_lingering_close_ends_at_its_limit_of_bytes() {
    let options = ConnectionOptions::new().linger(Duration::from_secs(3600), 100_000);
    let stage = Stage::with(options, |probe| probe);
    let (mut client, seen) = stage.pair();
    seen.addr.close();
    assert!(matches!(only_end(&seen), CloseReason::Finished));
    let mut sent = 0;
    while client.write_all(&[0; 10_000]).is_ok() {
        sent += 10_000;
        assert!(sent < 1 << 25, "it is to be left alone before this");
    }
    wait_until("all is over", || stage.is_over());
}

#[test]
fn a_lingering_connection_stops_nobody_else_from_stopping() {
    let options = ConnectionOptions::new().linger(Duration::from_millis(100), 1 << 30);
    let stage = Stage::with(options, |probe| probe);
    let (_client, seen) = stage.pair();
    seen.addr.close();
    only_end(&seen);
    stage.system.handle().stop(Duration::from_secs(3600));
    stage.system.run().unwrap();
}

#[test]
fn a_peer_that_goes_away_ends_a_close_that_flushes() {
    let stage = Stage::with(ConnectionOptions::new().output_max(16 << 20), |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.tell(|ctx| {
        ctx.write(pattern(12 << 20));
        ctx.close();
        Ok(())
    });
    settle(&stage.system);
    reset(client);
    assert!(matches!(only_end(&seen), CloseReason::Reset));
    wait_until("all is over", || stage.is_over());
}

#[test]
fn a_client_that_has_gone_kills_nobody_with_a_signal() {
    // Without MSG_NOSIGNAL the second write is the end of the process (Rust's own main ignores
    // SIGPIPE, so it is set to kill here).
    in_child(
        "a_client_that_has_gone_kills_nobody_with_a_signal",
        1024,
        || {
            // SAFETY: a plain call; SIG_DFL is no function of ours.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let stage = Stage::new();
            // In one part and in several: those are two system calls.
            for parts in [1, 2] {
                let (client, seen) = stage.pair();
                seen.run(|ctx| ctx.pause());
                drop(client);
                wait_until("a write fails", || {
                    let write = move |ctx: &mut Context<'_, Probe>| {
                        for _ in 0..parts {
                            ctx.write_bytes(vec![b'x'; 10_000].into());
                        }
                        Ok(())
                    };
                    seen.addr.send(Box::new(write)).is_err()
                });
                assert!(matches!(seen.closed(), CloseReason::Reset));
            }
        },
    );
}

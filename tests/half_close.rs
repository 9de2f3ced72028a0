//! Half-close, in both directions: the end of one is not the end of the other.

mod util;

use std::io::Write;

use greenroom::*;
use util::*;

/// Actors that hold on when their peer has half-closed.
fn holding_on() -> Stage {
    Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|_, _| Ok(())).on_read_closed(|_| Ok(()))
    })
}

#[test]
fn the_peers_half_close_shows_kept_input_and_is_told_once() {
    let stage = holding_on();
    let (mut client, seen) = stage.pair();
    client.write_all(b"kept").unwrap();
    assert!(matches!(seen.next(), Event::Readable(shown, false) if shown == b"kept"));
    half_close(&client);
    assert!(matches!(seen.next(), Event::Readable(shown, true) if shown == b"kept"));
    assert!(matches!(seen.next(), Event::ReadClosed));
    settle(&stage.system);
    seen.tell(|ctx| {
        ctx.pause();
        Ok(())
    });
    seen.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    settle(&stage.system);
    assert!(
        seen.events.try_recv().is_err(),
        "nothing follows the half-close"
    );
}

#[test]
fn after_the_peers_half_close_the_actor_may_go_on_writing() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_read_closed(|ctx| {
            ctx.write(b"one ");
            Ok(())
        })
    });
    let (client, seen) = stage.pair();
    half_close(&client);
    assert_eq!(read(&client, 4), b"one ");
    seen.run(|ctx| ctx.write(b"two"));
    assert_eq!(read(&client, 3), b"two");
    seen.tell(|ctx| {
        ctx.close();
        Ok(())
    });
    assert!(read_to_end(&client).is_empty());
    assert!(matches!(seen.closed(), CloseReason::PeerClosed));
}

#[test]
fn the_default_answer_to_a_half_close_flushes_and_closes() {
    let stage = Stage::with(ConnectionOptions::new().output_max(16 << 20), |probe| {
        probe.on_readable(|input, ctx| {
            let asked = input.take_all().len();
            ctx.write(pattern(asked * 1_000_000));
            Ok(())
        })
    });
    let mut client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    client.write_all(b"6x 1M.").unwrap();
    half_close(&client);
    assert_same(&read_to_end(&client), &pattern(6_000_000));
    assert!(matches!(seen.closed(), CloseReason::PeerClosed));
}

#[test]
fn a_half_close_of_our_own_comes_after_all_that_was_written_and_reading_goes_on() {
    let stage = Stage::with(ConnectionOptions::new().output_max(16 << 20), |probe| {
        probe.on_read_closed(|ctx| {
            ctx.close();
            Ok(())
        })
    });
    let mut client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let bytes = pattern(6_000_000);
    let written = bytes.clone();
    seen.run(move |ctx| {
        // The order of the two does not matter within a callback, as with `close`.
        ctx.shutdown_write();
        ctx.write(written);
    });
    // Asked again while it waits for the flush.
    seen.run(|ctx| ctx.shutdown_write());
    assert_same(&read_to_end(&client), &bytes);
    client.write_all(b"still here").unwrap();
    assert_eq!(seen.read(10), b"still here");
    drop(client);
    assert!(matches!(seen.until(Some), Event::ReadClosed));
    assert!(matches!(seen.closed(), CloseReason::PeerClosed));
}

#[test]
fn writing_after_a_half_close_of_our_own_is_a_panic_of_that_actor() {
    let stage = Stage::new();
    let (_client, seen) = stage.pair();
    seen.run(|ctx| ctx.shutdown_write());
    seen.tell(|ctx| {
        ctx.write(b"too late");
        Ok(())
    });
    assert!(matches!(seen.closed(), CloseReason::Panicked(what) if what.contains("shut down")));
}

#[test]
fn a_paused_actor_is_told_the_half_close_when_it_resumes() {
    let stage = holding_on();
    let (mut client, seen) = stage.pair();
    seen.run(|ctx| ctx.pause());
    client.write_all(b"last words").unwrap();
    half_close(&client);
    settle(&stage.system);
    assert!(
        seen.events.try_recv().is_err(),
        "a paused actor is shown nothing"
    );
    seen.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    let mut shown = Vec::new();
    let mut ends = 0;
    while ends == 0 {
        match seen.next() {
            Event::Readable(bytes, at_end) => shown.push((bytes, at_end)),
            Event::ReadClosed => ends += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shown.last(), Some(&(b"last words".to_vec(), true)));
}

#[test]
fn an_actor_that_pauses_at_the_end_is_told_it_when_it_resumes() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe
            .on_readable(|input, ctx| {
                if input.at_end() && input.len() > 2 {
                    input.consume(1);
                    ctx.pause();
                }
                Ok(())
            })
            .on_read_closed(|_| Ok(()))
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"abcd").unwrap();
    assert!(matches!(seen.next(), Event::Readable(shown, false) if shown == b"abcd"));
    half_close(&client);
    for rest in [&b"abcd"[..], b"bcd", b"cd"] {
        assert!(matches!(seen.next(), Event::Readable(shown, true) if shown == rest));
        settle(&stage.system);
        if rest != b"cd" {
            assert!(seen.events.try_recv().is_err(), "it has paused");
            seen.tell(|ctx| {
                ctx.resume();
                Ok(())
            });
        }
    }
    assert!(matches!(seen.next(), Event::ReadClosed));
}

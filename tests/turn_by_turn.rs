//! What one connection is shown and told, to the turn and to the nanosecond: on a stage of
//! `greenroom::testing`, where no kernel and no clock has a say.

mod util;

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use greenroom::testing::Stage;
use greenroom::{CloseReason, ConnectionOptions, Context, SlowReader};
use util::{Event, Probe};

const SECOND: Duration = Duration::from_secs(1);

/// A connection under these limits, past its `opened`.
fn connection(
    options: ConnectionOptions,
    prepare: impl FnOnce(Probe) -> Probe,
) -> (Stage<Probe>, Receiver<Event>) {
    let (events, seen) = channel();
    let stage = Stage::with_options(prepare(Probe::new(events)), options);
    assert_eq!(told(&seen), ["opened"]);
    (stage, seen)
}

/// One that consumes nothing, and holds on after its peer's half-close.
fn keeping(options: ConnectionOptions) -> (Stage<Probe>, Receiver<Event>) {
    connection(options, |probe| {
        probe.on_readable(|_, _| Ok(())).on_read_closed(|_| Ok(()))
    })
}

/// What has happened since the last look.
fn told(seen: &Receiver<Event>) -> Vec<String> {
    let text = |event| match event {
        Event::Opened(_) => "opened".to_owned(),
        Event::Readable(shown, at_end) => {
            let end = if at_end { " at the end" } else { "" };
            format!("readable {}{end}", String::from_utf8_lossy(&shown))
        }
        Event::Timer(_) => "timer".to_owned(),
        Event::Closed(reason) => format!("closed: {reason}"),
        other => format!("{other:?}").to_lowercase(),
    };
    seen.try_iter().map(text).collect()
}

fn tell(stage: &mut Stage<Probe>, job: impl FnOnce(&mut Context<'_, Probe>) + Send + 'static) {
    put(stage, job);
    stage.run();
}

/// Sends without letting the actor run, so that the next one comes in the same turn.
fn put(stage: &Stage<Probe>, job: impl FnOnce(&mut Context<'_, Probe>) + Send + 'static) {
    let sent = stage.addr().send(Box::new(move |ctx| {
        job(ctx);
        Ok(())
    }));
    assert!(sent.is_ok());
}

// ---- input --------------------------------------------------------------------------------------

#[test]
fn readable_is_called_again_as_long_as_what_it_needs_is_there() {
    let (mut stage, seen) = connection(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, _| {
            input.take(1);
            input.need(3);
            Ok(())
        })
    });
    stage.receive("abcdef");
    let shown = ["abcdef", "bcdef", "cdef", "def"].map(|shown| format!("readable {shown}"));
    assert_eq!(told(&seen), shown);
    stage.receive("g");
    assert_eq!(told(&seen), ["readable efg"]);
}

#[test]
fn a_need_holds_also_where_all_was_consumed() {
    let (mut stage, seen) = connection(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, _| {
            input.take_all();
            input.need(3);
            Ok(())
        })
    });
    for (piece, shown) in [
        ("a", Some("a")),
        ("b", None),
        ("c", None),
        ("de", Some("bcde")),
    ] {
        stage.receive(piece);
        let shown: Vec<_> = shown
            .iter()
            .map(|shown| format!("readable {shown}"))
            .collect();
        assert_eq!(told(&seen), shown, "after {piece}");
    }
}

#[test]
fn a_pause_behind_a_resume_in_one_turn_is_a_pause() {
    let (mut stage, seen) = keeping(ConnectionOptions::new());
    stage.receive("kept");
    tell(&mut stage, |ctx| ctx.pause());
    assert_eq!(told(&seen), ["readable kept"]);
    put(&stage, |ctx| ctx.resume());
    put(&stage, |ctx| ctx.pause());
    stage.run();
    assert_eq!(told(&seen), [""; 0]);
    tell(&mut stage, |ctx| ctx.resume());
    assert_eq!(told(&seen), ["readable kept"]);
}

#[test]
fn an_actor_without_a_socket_is_shown_no_input_though_it_resumes() {
    let (events, seen) = channel();
    let mut stage = Stage::without_socket(Probe::new(events));
    tell(&mut stage, |ctx| ctx.pause());
    tell(&mut stage, |ctx| ctx.resume());
    assert_eq!(told(&seen), ["opened"]);
}

#[test]
fn an_actor_that_closes_on_the_last_of_its_input_is_not_told_the_half_close() {
    let (mut stage, seen) = connection(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, ctx| {
            if input.at_end() {
                ctx.write(b"last words");
                ctx.close();
            }
            Ok(())
        })
    });
    stage.stall();
    stage.receive("kept");
    stage.half_close();
    assert_eq!(told(&seen), ["readable kept", "readable kept at the end"]);
    stage.unstall();
    assert_eq!(told(&seen), ["closed: closed by the peer"]);
}

#[test]
fn who_is_held_back_by_its_own_output_may_have_more_kept_than_its_limit_until_it_reads_again() {
    let options = ConnectionOptions::new()
        .input_max(3)
        .watermarks(1, 10)
        .slow_reader(SlowReader::PauseSource);
    let (mut stage, seen) = connection(options, |probe| {
        probe.on_readable(|input, ctx| {
            if input.take(1) == Some(b"a") {
                ctx.write([b'x'; 10]);
            }
            input.need(5);
            Ok(())
        })
    });
    stage.stall();
    stage.receive("abcde");
    assert!(stage.reason().is_none() && !stage.is_reading());
    stage.unstall();
    let reason = stage.reason();
    assert!(
        matches!(reason, Some(CloseReason::InputTooLong { len: 5, limit: 3 })),
        "{reason:?}"
    );
    drop(seen);
}

// ---- the time of a frame ------------------------------------------------------------------------

fn a_second_for_a_frame() -> ConnectionOptions {
    ConnectionOptions::new().incomplete_timeout(SECOND)
}

#[track_caller]
fn assert_ends_in(stage: &mut Stage<Probe>, time: Duration) {
    stage.advance(time - Duration::from_nanos(1));
    assert!(stage.reason().is_none(), "{:?}", stage.reason());
    stage.advance(Duration::from_nanos(1));
    let reason = stage.reason();
    assert!(
        matches!(reason, Some(CloseReason::SlowSender { after: SECOND, .. })),
        "{reason:?}"
    );
}

/// What is kept in two ways: in front of what is read next, or, being long, with that appended.
const KEPT: [usize; 2] = [2, 100_000];

#[test]
fn a_frame_has_its_time_from_its_first_byte_on_however_it_drips() {
    for kept in KEPT {
        let (mut stage, _seen) = keeping(a_second_for_a_frame());
        stage.receive(vec![b'a'; kept]);
        stage.advance(SECOND / 2);
        stage.receive("b");
        assert_ends_in(&mut stage, SECOND / 2);
    }
}

#[test]
fn a_frame_has_its_time_anew_when_some_of_it_is_consumed() {
    for kept in KEPT {
        let (mut stage, _seen) = connection(a_second_for_a_frame(), |probe| {
            probe.on_readable(|input, _| {
                if input.bytes().starts_with(b"first") && input.bytes().ends_with(b"!") {
                    input.consume(5);
                }
                Ok(())
            })
        });
        stage.receive("first");
        stage.receive(vec![b'a'; kept]);
        stage.advance(SECOND * 3 / 4);
        stage.receive("!");
        assert_ends_in(&mut stage, SECOND);
    }
}

#[test]
fn a_pause_does_not_count_against_a_frame() {
    let (mut stage, _seen) = keeping(a_second_for_a_frame());
    stage.receive("frag");
    tell(&mut stage, |ctx| ctx.pause());
    stage.advance(SECOND * 9 / 10);
    tell(&mut stage, |ctx| ctx.resume());
    assert_ends_in(&mut stage, SECOND);
}

// ---- output -------------------------------------------------------------------------------------

#[test]
fn who_was_told_false_with_nothing_that_waits_is_not_told_drained() {
    let options = ConnectionOptions::new()
        .output_max(100)
        .watermarks(10, 50)
        .slow_reader(SlowReader::DropNewest);
    let (mut stage, seen) = connection(options, |probe| probe);
    tell(&mut stage, |ctx| assert!(!ctx.write([0; 101])));
    tell(&mut stage, |ctx| assert!(!ctx.is_above_high_watermark()));
    tell(&mut stage, |ctx| assert!(ctx.write([0; 1])));
    assert_eq!(told(&seen), [""; 0]);
    assert_eq!(stage.output().len(), 1);
}

// ---- ends ---------------------------------------------------------------------------------------

#[test]
fn a_reset_ends_a_linger() {
    let (mut stage, seen) = connection(ConnectionOptions::new(), |probe| probe);
    tell(&mut stage, |ctx| ctx.close());
    assert_eq!(told(&seen), ["closed: finished"]);
    assert!(stage.is_connected());
    stage.reset();
    assert!(!stage.is_connected());
    assert_eq!(stage.stats().connections, 0);
}

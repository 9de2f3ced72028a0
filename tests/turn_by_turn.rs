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

/// Has the actor do this, whatever comes of it.
fn tell<T>(
    stage: &mut Stage<Probe>,
    job: impl FnOnce(&mut Context<'_, Probe>) -> T + Send + 'static,
) {
    put(stage, job);
    stage.run();
}

/// Sends without letting the actor run, so that the next one comes in the same turn.
fn put<T>(stage: &Stage<Probe>, job: impl FnOnce(&mut Context<'_, Probe>) -> T + Send + 'static) {
    let sent = stage.addr().send(Box::new(move |ctx| {
        job(ctx);
        Ok(())
    }));
    assert!(sent.is_ok());
}

/// Whether it still takes messages: one that closes does not.
fn hears(stage: &mut Stage<Probe>) -> bool {
    let (heard, hears) = channel();
    tell(stage, move |_| heard.send(()).unwrap());
    hears.try_recv().is_ok()
}

// ---- messages -----------------------------------------------------------------------------------

#[test]
fn messages_of_more_than_one_turn_are_all_there_when_the_stage_rests() {
    let (mut stage, _seen) = connection(ConnectionOptions::new(), |probe| probe);
    let (count, counted) = channel();
    for n in 0..5_000 {
        let count = count.clone();
        put(&stage, move |_| count.send(n).unwrap());
    }
    stage.run();
    assert!(counted.try_iter().eq(0..5_000));
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
    assert!(!stage.is_reading());
    assert!(hears(&mut stage), "it is not closing");
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
    for pause in [SECOND * 9 / 10, SECOND * 3] {
        tell(&mut stage, |ctx| ctx.pause());
        stage.advance(pause);
        tell(&mut stage, |ctx| ctx.resume());
    }
    assert_ends_in(&mut stage, SECOND);
}

/// An actor that pauses again and again does not keep a slow sender for ever.
#[test]
fn what_is_left_of_a_frame_s_time_is_left_after_a_pause() {
    let (mut stage, _seen) = keeping(a_second_for_a_frame());
    stage.receive("frag");
    for _ in 0..3 {
        stage.advance(SECOND / 4);
        tell(&mut stage, |ctx| ctx.pause());
        stage.advance(SECOND * 5);
        tell(&mut stage, |ctx| ctx.resume());
    }
    assert_ends_in(&mut stage, SECOND / 4);
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

#[test]
fn what_else_is_asked_for_beside_a_write_is_no_high_watermark() {
    let (mut stage, seen) = connection(ConnectionOptions::new(), |probe| probe);
    stage.stall();
    tell(&mut stage, |ctx| {
        ctx.write(b"little");
        ctx.pause();
    });
    tell(&mut stage, |ctx| assert!(!ctx.is_above_high_watermark()));
    stage.unstall();
    assert_eq!(told(&seen), [""; 0]);
}

#[test]
fn what_one_turn_writes_waits_for_its_end_below_the_high_watermark_and_not_from_there_on() {
    let options = ConnectionOptions::new().watermarks(1, 10);
    let (mut stage, seen) = connection(options, |probe| probe);
    put(&stage, |ctx| ctx.write([b'a'; 1]));
    put(&stage, |ctx| assert_eq!(ctx.queued(), 1));
    put(&stage, |ctx| ctx.write([b'b'; 9]));
    put(&stage, |ctx| assert_eq!(ctx.queued(), 0));
    stage.run();
    assert_eq!(stage.output(), "abbbbbbbbb");
    assert_eq!(told(&seen), ["drained"]);
}

#[test]
fn an_answer_comes_behind_what_the_same_turn_wrote_before() {
    let options = ConnectionOptions::new()
        .watermarks(1, 20)
        .slow_reader(SlowReader::PauseSource);
    let (mut stage, seen) = connection(options, |probe| {
        probe
            .on_drained(|ctx| {
                ctx.write(b" then");
                Ok(())
            })
            .on_readable(|input, ctx| {
                input.take_all();
                ctx.write(b" that");
                Ok(())
            })
    });
    stage.stall();
    tell(&mut stage, |ctx| ctx.write(b"twenty bytes before:"));
    // It is told that its output has left, and shown its input, in one turn.
    stage.unstall();
    assert_eq!(stage.output(), "twenty bytes before: then that");
    assert_eq!(told(&seen), ["drained", "readable "]);
}

#[test]
fn drained_is_told_of_an_answer_that_leaves_at_once() {
    let options = ConnectionOptions::new().watermarks(1, 10);
    let (mut stage, seen) = connection(options, |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write([b'x'; 5].repeat(input.take_all().len()));
            Ok(())
        })
    });
    stage.receive("1");
    assert_eq!(told(&seen), ["readable 1"]);
    stage.receive("22");
    assert_eq!(told(&seen), ["readable 22", "drained"]);
}

#[test]
fn a_reader_is_stuck_from_its_last_byte_on_however_much_more_is_written() {
    let options = ConnectionOptions::new().stuck_timeout(SECOND);
    let (mut stage, _seen) = keeping(options);
    // So that something is kept for it already.
    stage.receive("kept");
    stage.advance(SECOND);
    stage.stall();
    tell(&mut stage, |ctx| ctx.write(b"some"));
    stage.advance(SECOND / 2);
    tell(&mut stage, |ctx| ctx.write(b"more"));
    stage.advance(SECOND / 2 - Duration::from_nanos(1));
    assert!(stage.reason().is_none());
    stage.advance(Duration::from_nanos(1));
    let reason = stage.reason();
    assert!(
        matches!(reason, Some(CloseReason::StuckReader { queued: 8, .. })),
        "{reason:?}"
    );
}

#[test]
fn the_reason_counts_what_waited_what_was_taken_and_what_was_too_much() {
    let (mut stage, _seen) = connection(ConnectionOptions::new().output_max(100), |probe| probe);
    stage.stall();
    tell(&mut stage, |ctx| ctx.write([0; 50]));
    tell(&mut stage, |ctx| {
        ctx.write([0; 30]);
        ctx.write([0; 60]);
    });
    let reason = stage.reason();
    assert!(
        matches!(
            reason,
            Some(CloseReason::SlowReader {
                queued: 140,
                limit: 100
            })
        ),
        "{reason:?}"
    );
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

#[test]
fn a_close_is_done_when_the_last_byte_is_taken_though_there_is_no_room_behind_it() {
    let (mut stage, seen) = connection(ConnectionOptions::new(), |probe| probe);
    stage.stall();
    tell(&mut stage, |ctx| {
        ctx.write(b"last words");
        ctx.close();
    });
    assert_eq!(stage.take_output(9), "last word");
    assert_eq!(told(&seen), [""; 0]);
    assert_eq!(stage.take_output(1), "s");
    assert_eq!(told(&seen), ["closed: finished"]);
}

#[test]
fn a_half_close_waits_for_what_was_written_before() {
    let (mut stage, seen) = keeping(ConnectionOptions::new());
    stage.stall();
    tell(&mut stage, |ctx| ctx.write(b"last words"));
    tell(&mut stage, |ctx| ctx.shutdown_write());
    assert!(!stage.is_write_shut());
    stage.unstall();
    assert!(stage.is_write_shut() && stage.is_reading());
    assert_eq!((stage.output(), told(&seen)), ("last words".into(), vec![]));
}

#[test]
fn a_pause_together_with_a_half_close_is_a_pause() {
    let (mut stage, seen) = connection(ConnectionOptions::new(), |probe| probe);
    tell(&mut stage, |ctx| {
        ctx.shutdown_write();
        ctx.pause();
    });
    assert!(stage.is_write_shut() && !stage.is_reading());
    stage.receive("later");
    assert_eq!((stage.unread(), told(&seen)), (5, vec![]));
}

#[test]
fn an_answer_may_be_the_last_word() {
    let (mut stage, seen) = connection(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(input.take_all());
            ctx.shutdown_write();
            Ok(())
        })
    });
    stage.receive("question");
    assert!(stage.is_write_shut() && stage.is_connected());
    assert_eq!(stage.output(), "question");
    assert_eq!(told(&seen), ["readable question"]);
}

#[test]
fn one_that_is_shut_on_both_sides_ends_when_its_output_has_left() {
    // Whichever side was the first.
    for half_closed in [false, true] {
        let (mut stage, seen) = keeping(ConnectionOptions::new());
        stage.stall();
        if half_closed {
            stage.half_close();
        }
        tell(&mut stage, |ctx| {
            ctx.write(b"last words");
            ctx.shutdown_write();
        });
        if !half_closed {
            stage.half_close();
        }
        assert_eq!(told(&seen), ["readclosed"]);
        assert!(hears(&mut stage), "it is not closing");
        assert_eq!(stage.take_output(10), "last words");
        assert!(stage.is_write_shut());
        assert_eq!(told(&seen), ["closed: closed by the peer"]);
    }

    let (mut stage, seen) = keeping(ConnectionOptions::new());
    tell(&mut stage, |ctx| ctx.shutdown_write());
    assert!(stage.is_write_shut() && stage.reason().is_none());
    stage.half_close();
    assert_eq!(told(&seen), ["readclosed", "closed: closed by the peer"]);
}

#[test]
fn an_error_of_the_actor_is_its_reason_also_where_what_it_wrote_never_leaves() {
    let ends: [fn(&mut Stage<Probe>); 2] = [Stage::reset, |stage| {
        stage.stop(SECOND);
        stage.advance(SECOND);
    }];
    for end in ends {
        let (mut stage, seen) = connection(ConnectionOptions::new(), |probe| probe);
        stage.stall();
        stage.send(Box::new(|ctx| {
            ctx.write(b"last words");
            Err("no such thing".into())
        }));
        assert_eq!(told(&seen), [""; 0]);
        end(&mut stage);
        assert_eq!(told(&seen), ["closed: no such thing"]);
    }
}

#[test]
fn one_that_closes_is_not_told_of_the_room_that_it_waited_for() {
    let mut full = greenroom::testing::Probe::<u32>::with_bound(2);
    while full.recipient::<u32>().send(0).is_ok() {}
    let to = full.recipient::<u32>();
    let (mut stage, seen) = connection(ConnectionOptions::new(), |probe| probe);
    stage.stall();
    tell(&mut stage, move |ctx| {
        ctx.write(b"last words");
        ctx.wait_for_room(&to);
    });
    assert!(stage.is_waiting());
    stage.addr().close();
    full.take_all();
    stage.run();
    assert_eq!(told(&seen), [""; 0]);
    stage.unstall();
    assert_eq!(told(&seen), ["closed: finished"]);
}

//! `notify_written`: an actor is told when the kernel has taken what it wrote. Once for each
//! notice, in order, never early, and not at all where the connection ends first.

mod util;

use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use greenroom::testing::Stage as OneActor;
use greenroom::*;
use util::*;

/// What the kernel takes for a client that does not read, on both sides, stays below this many
/// bytes.
const MORE_THAN_THE_KERNEL_TAKES: usize = 12 << 20;

const PIECE: usize = 100_000;

/// The tokens told so far; everything else is passed over.
fn told(seen: &Seen) -> Vec<u64> {
    let token = |event| match event {
        Event::Written(token) => Some(token),
        _ => None,
    };
    seen.events.try_iter().filter_map(token).collect()
}

fn patient() -> ConnectionOptions {
    ConnectionOptions::new().output_max(2 * MORE_THAN_THE_KERNEL_TAKES)
}

// ---- over sockets -------------------------------------------------------------------------------

#[test]
fn each_notice_is_told_once_and_in_order_whether_or_not_anything_was_written() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    for round in 0..100 {
        seen.run(move |ctx| {
            assert!(ctx.notify_written(4 * round));
            ctx.write("one ");
            assert!(ctx.notify_written(4 * round + 1));
            ctx.write_bytes(Bytes::from(vec![b'.'; 1000]));
            ctx.write_parts(&[b"two ", b"three\n"]);
            assert!(ctx.notify_written(4 * round + 2));
            assert!(ctx.notify_written(4 * round + 3));
        });
        read(&client, 1014);
    }
    let mut tokens = Vec::new();
    wait_until("all are told", || {
        tokens.extend(told(&seen));
        tokens.len() >= 400
    });
    settle(&stage.system);
    tokens.extend(told(&seen));
    assert!(tokens.into_iter().eq(0..400));
}

#[test]
fn an_answer_is_followed_by_its_notice() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        let mut answers = 0;
        probe.on_readable(move |input, ctx| {
            ctx.write(input.take_all());
            answers += 1;
            ctx.notify_written(answers);
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    for answer in 1..=100 {
        client.write_all(&pattern(2000)).unwrap();
        assert_same(&read(&client, 2000), &pattern(2000));
        let token = seen.until(|event| match event {
            Event::Written(token) => Some(token),
            _ => None,
        });
        // Where a request came in two pieces there are two answers.
        assert!(token >= answer);
    }
}

#[test]
fn the_notices_of_a_slow_reader_come_as_it_takes_what_stands_before_them() {
    let pieces = MORE_THAN_THE_KERNEL_TAKES / PIECE;
    let (left, queued) = channel();
    let stage = Stage::with(patient(), move |probe| {
        let left = left.clone();
        probe.on_written(move |token, ctx| {
            left.send((token, ctx.queued())).unwrap();
            Ok(())
        })
    });
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    for piece in 0..pieces as u64 {
        seen.run(move |ctx| {
            ctx.write(pattern(PIECE));
            assert!(ctx.notify_written(piece));
        });
    }
    settle(&stage.system);
    let early = told(&seen);
    assert!(early.len() < pieces, "the kernel does not take so much");
    let all = read(&client, pieces * PIECE);
    assert_same(&all, &pattern(PIECE).repeat(pieces));
    let told: Vec<(u64, usize)> = (0..pieces).map(|_| next(&queued)).collect();
    for (at, (token, queued)) in told.iter().enumerate() {
        assert_eq!(*token, at as u64);
        assert!(
            *queued <= (pieces - 1 - at) * PIECE,
            "notice {token} came with {queued} bytes waiting"
        );
    }
    settle(&stage.system);
    assert!(queued.try_recv().is_err(), "each is told once");
}

#[test]
fn a_close_after_flushing_tells_before_it_ends() {
    let stage = Stage::with(patient(), |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.tell(|ctx| {
        ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES));
        ctx.notify_written(1);
        ctx.close();
        Ok(())
    });
    assert_same(&read_to_end(client), &pattern(MORE_THAN_THE_KERNEL_TAKES));
    let events = seen.to_the_end();
    let [.., Event::Written(1), Event::Closed(CloseReason::Finished)] = &events[..] else {
        panic!("{events:?}")
    };
    wait_until("all is over", || stage.is_over());
}

#[test]
fn a_close_by_address_waits_for_a_chain_of_notices() {
    let pieces = 100;
    let stage = Stage::with(ConnectionOptions::new(), move |probe| {
        probe.on_written(move |piece, ctx| {
            if piece < pieces {
                ctx.write(pattern(PIECE));
                ctx.notify_written(piece + 1);
            }
            Ok(())
        })
    });
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.run(|ctx| ctx.notify_written(0));
    seen.addr.close();
    let all = pattern(PIECE).repeat(pieces as usize);
    assert_same(&read_to_end(client), &all);
    let events = seen.to_the_end();
    let tokens = events.iter().filter_map(|event| match event {
        Event::Written(token) => Some(*token),
        _ => None,
    });
    assert!(tokens.eq(0..=pieces));
    assert!(matches!(
        events.last(),
        Some(Event::Closed(CloseReason::Finished))
    ));
}

#[test]
fn who_ends_first_is_told_closed_alone() {
    type Ending = (&'static str, fn(&mut Context<'_, Probe>) -> Outcome);
    let endings: [Ending; 3] = [
        ("aborted", |ctx| {
            ctx.abort();
            Ok(())
        }),
        ("panicked", |_| panic!("as it is to")),
        ("slow reader", |ctx| {
            ctx.write(vec![0; 3 * MORE_THAN_THE_KERNEL_TAKES]);
            Ok(())
        }),
    ];
    for (name, end) in endings {
        let stage = Stage::with(patient(), |probe| probe);
        let _client = connect_small(&stage.listener, 16 << 10);
        let seen = stage.accepted();
        seen.run(|ctx| {
            ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES));
            ctx.notify_written(1)
        });
        seen.tell(end);
        let events = seen.to_the_end();
        let Some(Event::Closed(reason)) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!(reason.name(), name);
        let is_told = |event: &Event| matches!(event, Event::Written(_));
        assert!(!events.iter().any(is_told), "{name}: {events:?}");
    }
}

#[test]
fn a_peer_that_goes_with_output_waiting_is_told_by_closed_alone() {
    let stage = Stage::with(patient(), |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.run(|ctx| {
        ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES));
        ctx.notify_written(1)
    });
    reset(client);
    let events = seen.to_the_end();
    let [Event::Closed(CloseReason::Reset)] = &events[..] else {
        panic!("{events:?}")
    };
}

#[test]
fn a_stop_tells_what_leaves_by_its_deadline() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    seen.run(|ctx| {
        ctx.write("bye");
        ctx.notify_written(7)
    });
    stage.system.handle().stop(Duration::from_secs(10));
    assert_eq!(read_to_end(client), b"bye");
    let events = seen.to_the_end();
    let written = |event: &Event| matches!(event, Event::Written(7));
    assert_eq!(events.iter().filter(|event| written(event)).count(), 1);
    assert!(matches!(events.last(), Some(Event::Closed(_))));
}

// ---- turn by turn -------------------------------------------------------------------------------

type OnWritten = fn(&mut Writer, u64, &mut Context<'_, Writer>) -> Outcome;

/// Writes and notes what it is told.
#[derive(Default)]
struct Writer {
    told: Vec<(u64, bool)>,
    in_callback: bool,
    on_written: Option<OnWritten>,
}

type Deed = Box<dyn FnOnce(&mut Context<'_, Writer>) + Send>;

impl Actor for Writer {
    type Message = Deed;

    fn message(&mut self, deed: Deed, ctx: &mut Context<'_, Self>) -> Outcome {
        self.in_callback = true;
        deed(ctx);
        self.in_callback = false;
        Ok(())
    }

    fn written(&mut self, token: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(!self.in_callback, "called from within another callback");
        self.told.push((token, ctx.is_closing()));
        match self.on_written {
            Some(f) => f(self, token, ctx),
            None => Ok(()),
        }
    }

    fn closed(&mut self, _: &CloseReason, ctx: &mut Context<'_, Self>) {
        assert!(!ctx.is_closing(), "it has closed");
    }
}

fn tokens(stage: &OneActor<Writer>) -> Vec<u64> {
    let actor = stage.actor();
    actor.told.iter().map(|(token, _)| *token).collect()
}

fn tell(
    stage: &mut OneActor<Writer>,
    deed: impl FnOnce(&mut Context<'_, Writer>) + Send + 'static,
) {
    stage.send(Box::new(deed));
}

#[test]
fn a_notice_is_due_with_the_last_byte_before_it() {
    let mut stage = OneActor::new(Writer::default());
    stage.stall();
    tell(&mut stage, |ctx| {
        ctx.notify_written(0);
        ctx.write("12345");
        ctx.notify_written(1);
        ctx.write("678");
    });
    tell(&mut stage, |ctx| {
        ctx.write("9");
        ctx.notify_written(2);
        ctx.notify_written(3);
        ctx.write("rest");
    });
    for (takes, told) in [(4, 1), (1, 2), (3, 2), (1, 4), (4, 4)] {
        stage.take_output(takes);
        assert_eq!(tokens(&stage), (0..told).collect::<Vec<_>>());
    }
    assert_eq!(stage.queued(), 0);
    tell(&mut stage, |ctx| assert!(ctx.notify_written(4)));
    assert_eq!(tokens(&stage).len(), 5, "nothing waits");
}

#[test]
fn what_is_written_while_it_closes_leaves_in_front_of_the_end() {
    let mut stage = OneActor::new(Writer {
        on_written: Some(|_, token, ctx| {
            ctx.write(format!(" {token}"));
            if token < 3 {
                ctx.notify_written(token + 1);
                // Once more changes nothing.
                ctx.close();
            }
            Ok(())
        }),
        ..Writer::default()
    });
    stage.stall();
    tell(&mut stage, |ctx| {
        ctx.write("0");
        ctx.notify_written(1);
        ctx.close();
    });
    assert!(stage.reason().is_none());
    stage.unstall();
    assert_eq!(stage.output(), "0 1 2 3");
    assert!(stage.is_write_shut() && !stage.is_reset());
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    assert_eq!(stage.actor().told, [(1, true), (2, true), (3, true)]);
}

#[test]
fn what_fails_while_it_closes_is_its_reason() {
    let fails: [(&str, OnWritten); 3] = [
        ("error", |_, _, ctx| {
            ctx.write("last words");
            Err("as it is to".into())
        }),
        ("aborted", |_, _, ctx| {
            ctx.abort();
            Ok(())
        }),
        ("finished", |_, _, ctx| {
            ctx.shutdown_write();
            Ok(())
        }),
    ];
    for (name, fails) in fails {
        let mut stage = OneActor::new(Writer {
            on_written: Some(fails),
            ..Writer::default()
        });
        tell(&mut stage, |ctx| {
            ctx.write("x");
            ctx.notify_written(1);
            ctx.close();
        });
        assert_eq!(stage.reason().map(CloseReason::name), Some(name));
        let output = stage.output();
        assert_eq!(output, if name == "error" { "xlast words" } else { "x" });
        assert_eq!(stage.is_reset(), name == "aborted");
    }
}

#[test]
fn a_half_close_and_its_notice_go_together() {
    let mut stage = OneActor::new(Writer::default());
    stage.stall();
    tell(&mut stage, |ctx| {
        ctx.write("abc");
        ctx.shutdown_write();
        ctx.notify_written(1);
    });
    tell(&mut stage, |ctx| assert!(ctx.notify_written(2)));
    assert_eq!(stage.take_output(2), "ab");
    assert!(tokens(&stage).is_empty() && !stage.is_write_shut());
    assert_eq!(stage.take_output(1), "c");
    assert_eq!(tokens(&stage), [1, 2]);
    assert!(stage.is_write_shut() && stage.reason().is_none());
}

#[test]
fn more_notices_than_one_turn_tells_are_told_over_several() {
    let mut stage = OneActor::new(Writer::default());
    tell(&mut stage, |ctx| {
        (0..10_000).for_each(|token| assert!(ctx.notify_written(token)));
    });
    assert!(tokens(&stage).into_iter().eq(0..10_000));
}

#[test]
fn the_budget_bounds_how_many_notices_wait() {
    let options = ConnectionOptions::new().output_max(1600);
    for policy in [SlowReader::Close, SlowReader::DropNewest] {
        let options = options.clone().slow_reader(policy);
        let mut stage = OneActor::with_options(Writer::default(), options);
        stage.stall();
        tell(&mut stage, |ctx| {
            ctx.write("x");
            (0..60).for_each(|token| assert!(ctx.notify_written(token)));
        });
        tell(&mut stage, |ctx| {
            (60..100).for_each(|token| assert!(ctx.notify_written(token)));
        });
        assert!(stage.reason().is_none());
        let drops = policy == SlowReader::DropNewest;
        tell(&mut stage, move |ctx| {
            assert_eq!(ctx.notify_written(100), !drops)
        });
        if drops {
            assert!(stage.reason().is_none());
            assert_eq!(stage.stats().dropped_writes, 1);
            stage.unstall();
            assert!(tokens(&stage).into_iter().eq(0..100));
            tell(&mut stage, |ctx| assert!(ctx.notify_written(100)));
            assert_eq!(tokens(&stage).len(), 101, "there is room again");
        } else {
            let reason = stage.reason();
            assert!(matches!(reason, Some(CloseReason::SlowReader { .. })));
            assert!(tokens(&stage).is_empty());
        }
    }
}

#[test]
fn a_notice_behind_a_write_that_was_dropped_is_told_for_what_was_not() {
    let options = ConnectionOptions::new()
        .output_max(1000)
        .slow_reader(SlowReader::DropNewest);
    let mut stage = OneActor::with_options(Writer::default(), options);
    stage.stall();
    tell(&mut stage, |ctx| {
        assert!(ctx.write([b'a'; 900]));
        assert!(!ctx.write([b'b'; 200]));
        assert!(ctx.notify_written(1));
    });
    assert!(stage.take_output(899).len() == 899 && tokens(&stage).is_empty());
    assert_eq!(stage.take_output(1), "a");
    assert_eq!(tokens(&stage), [1]);
}

#[test]
fn where_there_is_no_socket_there_is_nothing_to_be_told() {
    struct Nobody(bool);
    impl Actor for Nobody {
        type Message = ();
        fn message(&mut self, (): (), ctx: &mut Context<'_, Self>) -> Outcome {
            ctx.notify_written(1);
            Ok(())
        }
        fn closed(&mut self, _: &CloseReason, ctx: &mut Context<'_, Self>) {
            if self.0 {
                ctx.notify_written(1);
            }
        }
    }
    let panic = |run: fn()| {
        let caught = std::panic::catch_unwind(run).expect_err("a panic");
        caught.downcast_ref::<String>().cloned().unwrap_or_default()
    };
    let text = panic(|| OneActor::without_socket(Nobody(false)).send(()));
    assert!(
        text.contains("notify_written: this actor has no socket"),
        "{text}"
    );
    let text = panic(|| OneActor::new(Nobody(true)).reset());
    assert!(text.starts_with("`closed` of"), "{text}");
}

// ---- adapters -----------------------------------------------------------------------------------

/// Doubles each byte of the actor inside, behind a mark; or holds all back until it is told to go.
struct Adapter {
    inner: Writer,
    held: Option<(Vec<u8>, Vec<u64>)>,
}

impl Adapter {
    fn pass(
        &mut self,
        ctx: &mut Context<'_, Self>,
        callback: impl FnOnce(&mut Writer, &mut Context<'_, Writer>) -> Outcome,
    ) -> Outcome {
        let (outcome, written) = ctx.nested(|ctx| callback(&mut self.inner, ctx));
        let bytes: Vec<u8> = written.parts().flatten().copied().collect();
        if let Some((held, notices)) = &mut self.held {
            held.extend(bytes);
            notices.extend(ctx.take_notices());
        } else if !bytes.is_empty() {
            ctx.write("<");
            ctx.write(bytes);
            ctx.write(">");
        }
        outcome
    }
}

impl Actor for Adapter {
    type Message = Deed;

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        if let Some((bytes, notices)) = self.held.take() {
            ctx.write(bytes);
            notices.into_iter().for_each(|token| {
                ctx.notify_written(token);
            });
        }
        Ok(())
    }

    fn message(&mut self, deed: Deed, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(ctx, |actor, ctx| actor.message(deed, ctx))
    }

    fn written(&mut self, token: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(ctx, |actor, ctx| actor.written(token, ctx))
    }
}

#[test]
fn an_actor_inside_an_adapter_is_told_when_all_of_it_has_left() {
    let inner = Writer::default();
    let mut stage = OneActor::new(Adapter { inner, held: None });
    stage.stall();
    stage.send(Box::new(|ctx| {
        ctx.write("abc");
        ctx.notify_written(1);
    }));
    assert_eq!(stage.take_output(4), "<abc");
    assert!(stage.actor().inner.told.is_empty());
    assert_eq!(stage.take_output(1), ">");
    assert_eq!(stage.actor().inner.told, [(1, false)]);
}

#[test]
fn an_adapter_that_holds_output_back_takes_the_notices_along() {
    let inner = Writer::default();
    let held = Some(Default::default());
    let mut stage = OneActor::new(Adapter { inner, held });
    stage.send(Box::new(|ctx| {
        ctx.write("abc");
        ctx.notify_written(1);
    }));
    assert!(stage.output().is_empty() && stage.actor().inner.told.is_empty());
    stage.receive("go");
    assert_eq!(stage.output(), "abc");
    assert_eq!(stage.actor().inner.told, [(1, false)]);
}

//! Timeouts, to the moment: where time is simulated, each ends a connection when it says, and not
//! before, with its own reason.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenroom::testing::{Client, Faults, Random, Simulation, Stage, for_each_seed};
use greenroom::*;

const SECOND: Duration = Duration::from_secs(1);

/// What it is told to do in a message.
enum Tell {
    Write(usize),
    Pause,
    Resume,
    Close,
    CloseWithin(Duration),
    Fail,
}

/// Takes whole lines, and tells its end.
struct Lines {
    ended: Sender<CloseReason>,
    greets: bool,
}

impl Lines {
    fn new() -> (Lines, Receiver<CloseReason>) {
        let (ended, ends) = channel();
        let greets = false;
        (Lines { ended, greets }, ends)
    }
}

impl Actor for Lines {
    type Message = Tell;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.greets {
            ctx.write(b"hello\n");
        }
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(1 << 20)? {
            let _ = line;
            ctx.write(b"ok\n");
        }
        Ok(())
    }

    fn message(&mut self, tell: Tell, ctx: &mut Context<'_, Self>) -> Outcome {
        match tell {
            Tell::Write(n) => drop(ctx.write(vec![b'x'; n])),
            Tell::Pause => ctx.pause(),
            Tell::Resume => ctx.resume(),
            Tell::Close => ctx.close(),
            Tell::CloseWithin(time) => ctx.close_within(time),
            Tell::Fail => return Err("its own error".into()),
        }
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        let _ = self.ended.send(match reason {
            CloseReason::Error(error) => CloseReason::Error(error.to_string().into()),
            CloseReason::Silent(after) => CloseReason::Silent(*after),
            reason => CloseReason::Panicked(reason.to_string()),
        });
    }
}

fn stage(options: ConnectionOptions) -> Stage<Lines> {
    Stage::with_options(Lines::new().0, options)
}

// ---- first bytes --------------------------------------------------------------------------------

#[test]
fn who_says_nothing_ends_after_a_minute_or_a_second_more() {
    let mut stage = stage(ConnectionOptions::new());
    stage.advance(60 * SECOND);
    assert!(stage.reason().is_none());
    stage.advance(SECOND);
    let reason = stage.reason();
    assert!(
        matches!(reason, Some(CloseReason::Silent(after)) if *after == 60 * SECOND),
        "{reason:?}"
    );
    assert_eq!(stage.stats().closed_by["silent"], 1);
    assert!(!stage.is_reset(), "nothing was lost");
}

#[test]
fn a_byte_either_way_is_enough_and_only_at_first() {
    let mut heard = stage(ConnectionOptions::new());
    heard.advance(59 * SECOND);
    heard.receive("\n");
    let greeting = Lines {
        greets: true,
        ..Lines::new().0
    };
    let mut greeted = Stage::new(greeting);
    let mut told = stage(ConnectionOptions::new());
    told.advance(59 * SECOND);
    told.send(Tell::Write(1));
    for stage in [&mut heard, &mut greeted, &mut told] {
        stage.advance(3600 * SECOND);
        assert!(stage.reason().is_none());
    }
}

#[test]
fn who_is_not_read_from_is_not_called_silent() {
    let mut stage = stage(ConnectionOptions::new());
    stage.send(Tell::Pause);
    // It has said a lot, and nobody listened.
    stage.receive("a line\n");
    stage.advance(3600 * SECOND);
    assert!(stage.reason().is_none());
    stage.send(Tell::Resume);
    assert_eq!(stage.output(), "ok\n");

    let mut silent = self::stage(ConnectionOptions::new());
    silent.send(Tell::Pause);
    silent.advance(3600 * SECOND);
    silent.send(Tell::Resume);
    silent.advance(62 * SECOND);
    assert!(matches!(silent.reason(), Some(CloseReason::Silent(_))));
}

#[test]
fn a_close_that_lingers_is_not_cut_short_for_silence() {
    let options = ConnectionOptions::new()
        .first_bytes_timeout(10 * SECOND)
        .linger(100 * SECOND, 1 << 20);
    let mut stage = stage(options);
    stage.send(Tell::Close);
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    stage.advance(99 * SECOND);
    assert!(stage.is_connected());
    stage.advance(2 * SECOND);
    assert!(!stage.is_connected());
}

#[test]
fn without_a_time_for_first_bytes_a_client_waits_for_ever() {
    let options = || ConnectionOptions::new().first_bytes_timeout(None);
    let longer_than_it_counts = Duration::from_secs(30 * 24 * 3600);
    for options in [
        options(),
        options().first_bytes_timeout(longer_than_it_counts),
    ] {
        let mut stage = stage(options);
        stage.advance(100 * 24 * 3600 * SECOND);
        assert!(stage.reason().is_none());
    }
}

#[test]
fn each_of_many_has_its_own_time_and_only_the_silent_ones_end() {
    for_each_seed(50, |simulation| {
        simulation.faults(Faults::none());
        let system = simulation.system(System::builder().pollers(2));
        let (ended, ends) = channel();
        let listen = |at: &str, after: Duration| {
            let ended = ended.clone();
            let options = ConnectionOptions::new().first_bytes_timeout(after);
            let options = ListenOptions::new().connection(options);
            let make = move |_| Lines {
                ended: ended.clone(),
                greets: false,
            };
            system.listen_with(at, options, make).unwrap();
        };
        listen("127.0.0.1:1", 10 * SECOND);
        listen("127.0.0.1:2", 64 * SECOND);
        let clients = Rc::new(RefCell::new(Vec::<(Client, Duration, bool)>::new()));
        for _ in 0..30 {
            let at = simulation.random().duration(100 * SECOND);
            let is_long = simulation.random().one_in(2);
            let speaks = simulation.random().one_in(2);
            let clients = clients.clone();
            simulation.after(at, move |simulation| {
                let (to, after) = match is_long {
                    true => ("127.0.0.1:2", 64 * SECOND),
                    false => ("127.0.0.1:1", 10 * SECOND),
                };
                let client = simulation.client(to);
                if speaks {
                    client.send("\n");
                }
                let until = simulation.elapsed() + after;
                clients.borrow_mut().push((client, until, speaks));
            });
        }
        let mut silent = 0;
        for second in 1..=200 {
            let now = second * SECOND;
            simulation.run_for(now - simulation.elapsed());
            for (client, until, speaks) in clients.borrow().iter() {
                let late = SECOND + Duration::from_millis(10);
                if *speaks || *until > now {
                    assert!(!client.is_closed(), "{until:?} at {now:?}");
                } else if *until + late < now {
                    assert!(client.is_closed(), "{until:?} at {now:?}");
                }
            }
        }
        for (client, _, speaks) in clients.borrow().iter() {
            silent += u64::from(!speaks);
            assert_eq!(client.is_closed(), !speaks);
        }
        assert_eq!(system.stats().closed_by["silent"], silent);
        assert!(
            ends.try_iter()
                .all(|why| matches!(why, CloseReason::Silent(_)))
        );
    });
}

// ---- idle ---------------------------------------------------------------------------------------

#[test]
fn who_is_not_read_from_is_not_idle() {
    let options = ConnectionOptions::new().idle_timeout(10 * SECOND);
    let mut paused = stage(options.clone());
    paused.send(Tell::Pause);
    paused.receive("a line\n");
    paused.advance(3600 * SECOND);
    assert!(paused.reason().is_none());
    paused.send(Tell::Resume);
    assert_eq!(paused.output(), "ok\n");
    paused.advance(10 * SECOND - Duration::from_millis(2));
    assert!(paused.reason().is_none());
    paused.advance(Duration::from_millis(2));
    assert!(matches!(paused.reason(), Some(CloseReason::Idle(_))));

    // Nor is who has sent what was shown and left.
    let mut half = stage(options.clone());
    half.receive("half a li");
    half.send(Tell::Pause);
    half.advance(3600 * SECOND);
    assert!(half.reason().is_none());
    half.send(Tell::Resume);
    half.receive("ne\n");
    assert_eq!(half.output(), "ok\n");
    half.advance(10 * SECOND);
    assert!(matches!(half.reason(), Some(CloseReason::Idle(_))));

    let mut silent = stage(options);
    silent.send(Tell::Pause);
    silent.advance(10 * SECOND);
    assert!(matches!(silent.reason(), Some(CloseReason::Idle(_))));
}

// ---- input --------------------------------------------------------------------------------------

fn text(stage: &Stage<Lines>) -> String {
    stage.reason().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn a_frame_that_keeps_to_its_rate_may_take_its_time_and_a_slower_one_ends() {
    let options = ConnectionOptions::new().incomplete_timeout(None);
    let options = options.least_input_rate(100, 10 * SECOND);
    let mut fast = stage(options.clone());
    fast.receive([b'x'; 1]);
    for _ in 0..100 {
        fast.advance(9 * SECOND);
        fast.receive([b'x'; 100]);
        fast.advance(SECOND);
    }
    assert!(fast.reason().is_none());
    fast.receive("\n");
    assert_eq!(fast.output(), "ok\n");

    let mut slow = stage(options);
    slow.receive([b'x'; 1]);
    slow.advance(9 * SECOND);
    slow.receive([b'x'; 198]);
    slow.advance(SECOND);
    assert!(slow.reason().is_none(), "enough for the first ten seconds");
    slow.advance(10 * SECOND - Duration::from_nanos(1));
    assert!(slow.reason().is_none());
    slow.advance(Duration::from_nanos(1));
    assert_eq!(
        text(&slow),
        "input rate: 199 bytes of a frame had come where 100 must in each 10s"
    );
}

#[test]
fn between_frames_and_in_pauses_no_rate_is_asked_for() {
    let options = ConnectionOptions::new().incomplete_timeout(None);
    let mut stage = stage(options.least_input_rate(100, 10 * SECOND));
    // A line a day.
    for _ in 0..3 {
        stage.receive("line\n");
        stage.advance(24 * 3600 * SECOND);
    }
    // One that is begun, and then not read on with.
    stage.receive("beg");
    stage.advance(9 * SECOND);
    stage.send(Tell::Pause);
    stage.advance(3600 * SECOND);
    stage.send(Tell::Resume);
    stage.advance(SECOND - Duration::from_millis(1));
    assert_eq!(text(&stage), "");
    stage.advance(Duration::from_millis(1));
    assert_eq!(
        text(&stage),
        "input rate: 3 bytes of a frame had come where 100 must in each 10s"
    );
}

/// When a frame that comes in these pieces ends its connection, and how.
fn oracle(
    pieces: &[(Duration, usize)],
    whole_by: Option<Duration>,
    rate: Option<(usize, Duration)>,
) -> Option<(Duration, &'static str)> {
    let begun = pieces[0].0;
    let whole = whole_by.map(|after| (begun + after, "slow sender"));
    let slow = rate.and_then(|(bytes, over)| {
        (1..1000).find_map(|n: u32| {
            let at = begun + over * n;
            let come = pieces.iter().filter(|(when, _)| *when <= at);
            let come: usize = come.map(|(_, len)| len).sum();
            (come < bytes * n as usize).then_some((at, "input rate"))
        })
    });
    whole.into_iter().chain(slow).min_by_key(|(at, _)| *at)
}

#[test]
fn whatever_the_pieces_a_frame_ends_when_it_should() {
    let mut reasons = std::collections::BTreeMap::new();
    let seen = RefCell::new(&mut reasons);
    for_each_seed(200, |simulation| {
        simulation.faults(Faults::none());
        let random = simulation.random();
        let ms = |random: &mut Random, most: u64| Duration::from_millis(1 + random.below(most));
        let whole_by = random.one_in(2).then(|| ms(random, 60_000));
        let rate = random
            .one_in(2)
            .then(|| (1 + random.below(50) as usize, ms(random, 10_000)));
        let mut at = SECOND;
        let mut pieces = Vec::new();
        for _ in 0..1 + random.below(30) {
            pieces.push((at, 1 + random.below(60) as usize));
            // Never at the moment at which somebody looks.
            at += ms(random, 5000) + Duration::from_micros(500);
        }
        let system = simulation.system(System::builder().pollers(1));
        let mut options = ConnectionOptions::new().incomplete_timeout(whole_by);
        if let Some((bytes, over)) = rate {
            options = options.least_input_rate(bytes, over);
        }
        let make = |_| Lines::new().0;
        let options = ListenOptions::new().connection(options);
        system.listen_with("127.0.0.1:1", options, make).unwrap();
        let client = Rc::new(simulation.client("127.0.0.1:1"));
        for &(at, len) in &pieces {
            let client = client.clone();
            simulation.after(at, move |_| client.send(vec![b'x'; len]));
        }
        let end = at + 200 * SECOND;
        while !client.is_closed() && simulation.elapsed() < end && simulation.step() {}
        let closed = client.is_closed();
        let took = simulation.elapsed();
        match oracle(&pieces, whole_by, rate) {
            Some((at, why)) if at < end => {
                assert!(closed, "{why} at {at:?}");
                // In steps of a millisecond, after turns of a microsecond.
                let late = Duration::from_millis(2);
                assert!(
                    took >= at && took < at + late,
                    "{why} at {at:?}, not {took:?}"
                );
                assert_eq!(system.stats().closed_by[why], 1, "{:?}", system.stats());
                *seen.borrow_mut().entry(why).or_insert(0) += 1;
            }
            _ => assert!(!closed, "nobody was slow"),
        }
    });
    assert!(
        reasons.len() == 2 || std::env::var("GREENROOM_SEED").is_ok(),
        "{reasons:?}"
    );
}

// ---- output -------------------------------------------------------------------------------------

#[test]
fn a_reader_that_takes_too_little_ends_and_one_that_takes_enough_does_not() {
    for (takes, ends) in [(250, false), (249, true)] {
        let options = ConnectionOptions::new().least_output_rate(1000, 4 * SECOND);
        let mut stage = stage(options);
        stage.stall();
        stage.send(Tell::Write(100_000));
        for _ in 0..3 {
            stage.advance(SECOND - Duration::from_millis(1));
            assert_eq!(stage.take_output(takes).len(), takes);
            stage.advance(Duration::from_millis(1));
        }
        stage.advance(SECOND - Duration::from_millis(1));
        stage.take_output(takes);
        assert!(stage.reason().is_none());
        stage.advance(Duration::from_millis(1));
        let told = "output rate: 996 bytes were taken in 4s where 1000 must be";
        assert_eq!(text(&stage), if ends { told } else { "" });
        assert_eq!(stage.is_reset(), ends);
        if !ends {
            // The next four seconds are counted anew.
            stage.take_output(900);
            stage.advance(4 * SECOND);
            assert!(
                text(&stage).starts_with("output rate: 900 "),
                "{}",
                text(&stage)
            );
        }
    }
}

#[test]
fn while_nothing_waits_no_rate_is_asked_for() {
    let options = ConnectionOptions::new().least_output_rate(1000, 4 * SECOND);
    let mut stage = stage(options);
    for _ in 0..10 {
        stage.stall();
        stage.send(Tell::Write(10));
        stage.advance(3 * SECOND);
        stage.unstall();
        stage.advance(3 * SECOND);
    }
    assert!(stage.reason().is_none());
    assert_eq!(stage.output().len(), 100);
}

// ---- the flush of a close -----------------------------------------------------------------------

/// Closes with output waiting for a reader that takes a byte a second: after how many seconds it
/// ended.
fn drip(stage: &mut Stage<Lines>, close: Tell) -> u64 {
    stage.stall();
    stage.send(Tell::Write(10_000));
    stage.send(close);
    for second in 0..1000 {
        if stage.reason().is_some() {
            return second;
        }
        stage.take_output(1);
        stage.advance(SECOND);
    }
    panic!("a byte now and then holds it for ever");
}

#[test]
fn a_byte_now_and_then_does_not_hold_a_close() {
    let mut by_default = stage(ConnectionOptions::new());
    assert_eq!(drip(&mut by_default, Tell::Close), 120);
    assert_eq!(
        text(&by_default),
        "not flushed: 9880 bytes still waited 120s after the close"
    );
    assert!(by_default.is_reset(), "it would take what it has for all");
    assert_eq!(by_default.stats().closed_by["not flushed"], 1);

    let mut by_option = stage(ConnectionOptions::new().flush_timeout(7 * SECOND));
    assert_eq!(drip(&mut by_option, Tell::Close), 7);
    let mut by_call = stage(ConnectionOptions::new().flush_timeout(7 * SECOND));
    assert_eq!(drip(&mut by_call, Tell::CloseWithin(9 * SECOND)), 9);
    let mut at_once = stage(ConnectionOptions::new());
    assert_eq!(drip(&mut at_once, Tell::CloseWithin(Duration::ZERO)), 1);
}

#[test]
fn an_error_of_its_own_stays_the_reason_of_a_close_that_is_not_flushed() {
    let mut stage = stage(ConnectionOptions::new().flush_timeout(7 * SECOND));
    assert_eq!(drip(&mut stage, Tell::Fail), 7);
    assert_eq!(text(&stage), "its own error");
    assert!(stage.is_reset());
}

#[test]
fn a_close_that_is_flushed_in_time_is_as_any() {
    let mut stage = stage(ConnectionOptions::new());
    stage.stall();
    stage.send(Tell::Write(10_000));
    stage.send(Tell::CloseWithin(5 * SECOND));
    stage.advance(4 * SECOND);
    stage.unstall();
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    stage.advance(SECOND);
    assert_eq!(stage.output().len(), 10_000);
    assert!(!stage.is_reset());
}

#[test]
fn the_time_of_one_close_is_not_the_next_ones() {
    let (lines, ends) = Lines::new();
    let ended = lines.ended.clone();
    let mut simulation = Simulation::new(7);
    let system = simulation.system(System::builder().pollers(1));
    let make = move |_| Lines {
        ended: ended.clone(),
        greets: true,
    };
    system.listen("127.0.0.1:1", make).unwrap();
    // The first asks for a time, and aborts by an error in the same callback: nobody uses it up.
    struct Both;
    impl Actor for Both {
        type Message = ();
        fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
            input.take_all();
            ctx.close_within(Duration::ZERO);
            ctx.abort();
            Ok(())
        }
    }
    system.listen("127.0.0.1:2", |_| Both).unwrap();
    let other = simulation.client("127.0.0.1:2");
    other.send("x");
    simulation.run_for(SECOND);
    assert!(other.is_reset());
    let client = simulation.client("127.0.0.1:1");
    simulation.run_for(SECOND);
    assert_eq!(client.received(), "hello\n");
    client.send("\n");
    client.half_close();
    assert_eq!(client.rest(&mut simulation), "ok\n");
    let reason = ends.try_recv().unwrap();
    assert!(matches!(reason, CloseReason::Panicked(text) if text == "closed by the peer"));
}

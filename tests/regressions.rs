//! What a review by fresh eyes found, one test for each, named after what a user would see.

mod util;

use std::io::Read;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use greenroom::testing::Stage as OneActor;
use greenroom::*;
use util::*;

/// A deadline that no test waits for: whoever does has failed.
const NEVER: Duration = Duration::from_secs(600);

// ---- asks ---------------------------------------------------------------------------------------

/// What a [`Clerk`] is asked.
enum Question {
    /// Answered at once.
    Plain(Reply<u32>),
    /// Kept and never answered.
    Kept(Reply<u32>),
    /// The clerk panics with the question in its hands.
    Fatal(Reply<u32>),
}

/// Answers questions, in the ways that these say.
#[derive(Default)]
struct Clerk {
    kept: Vec<Reply<u32>>,
}

impl Actor for Clerk {
    type Message = Question;

    fn message(&mut self, question: Question, _ctx: &mut Context<'_, Self>) -> Outcome {
        match question {
            Question::Plain(reply) => {
                let _ = reply.send(7);
            }
            Question::Kept(reply) => self.kept.push(reply),
            Question::Fatal(_reply) => panic!("the clerk panics, as it is to"),
        }
        Ok(())
    }
}

/// Makes `asker` ask, with an `answer` that panics whatever comes.
fn ask_and_panic(
    asker: &Seen,
    clerk: &Addr<Clerk>,
    timeout: Duration,
    question: fn(Reply<u32>) -> Question,
) {
    let clerk = clerk.clone();
    asker.tell(move |ctx| {
        ctx.ask(&clerk, timeout, question, |_| panic!("the answer panics"));
        Ok(())
    });
}

#[test]
fn a_panic_in_an_answer_at_its_timeout_harms_nobody_else() {
    let system = builder(1).build().expect("the system starts");
    let (asker, neighbour) = (spawn(&system, 0, |p| p), spawn(&system, 0, |p| p));
    let clerk = system.spawn_on(0, Clerk::default);
    ask_and_panic(&asker, &clerk, Duration::from_millis(1), Question::Kept);
    wait_until("the panic is counted", || system.stats().panics == 1);
    neighbour.run(|_| ());
    assert_eq!(clerk.ask(TIMEOUT, Question::Plain), Ok(7));
}

#[test]
fn a_panic_in_an_answer_does_not_close_the_asked() {
    let system = builder(2).build().expect("the system starts");
    let asker = spawn(&system, 0, |p| p);
    let clerk = system.spawn_on(1, Clerk::default);
    ask_and_panic(&asker, &clerk, NEVER, Question::Plain);
    wait_until("the panic is counted", || system.stats().panics == 1);
    assert_eq!(clerk.ask(TIMEOUT, Question::Plain), Ok(7));
}

#[test]
fn a_panic_of_the_asked_and_then_in_the_answer_does_not_abort() {
    in_child(
        "a_panic_of_the_asked_and_then_in_the_answer_does_not_abort",
        64,
        || {
            let system = builder(1).build().expect("the system starts");
            let (asker, neighbour) = (spawn(&system, 0, |p| p), spawn(&system, 0, |p| p));
            let clerk = system.spawn_on(0, Clerk::default);
            ask_and_panic(&asker, &clerk, NEVER, Question::Fatal);
            wait_until("both panics are counted", || system.stats().panics == 2);
            neighbour.run(|_| ());
        },
    );
}

// ---- output -------------------------------------------------------------------------------------

#[test]
fn a_burst_of_messages_in_one_turn_does_not_close_a_reader_that_reads() {
    const LINE: usize = 1200;
    const LINES: usize = 1000;
    let options = ConnectionOptions::new().output_max(1 << 20);
    let stage = Stage::with(options, |probe| probe);
    let (client, seen) = stage.pair();
    let held = hold(&seen);
    for _ in 0..LINES {
        seen.tell(|ctx| {
            ctx.write([b'x'; LINE]);
            Ok(())
        });
    }
    drop(held);
    assert_eq!(read(&client, LINE * LINES).len(), LINE * LINES);
}

#[test]
fn a_close_behind_a_large_write_in_a_turn_that_wrote_before_is_one_close() {
    const LARGE: usize = 100 << 10;
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    let neighbour = spawn(&stage.system, 0, |p| p);
    let held = hold(&seen);
    seen.tell(|ctx| {
        ctx.write("a");
        Ok(())
    });
    seen.tell(|ctx| {
        ctx.write([b'b'; LARGE]);
        ctx.close();
        Ok(())
    });
    drop(held);
    assert_eq!(read_to_end(&client).len(), 1 + LARGE);
    assert!(matches!(seen.closed(), CloseReason::Finished));
    neighbour.run(|_| ());
    drop(client);
    wait_until("the socket has gone", || {
        stage.system.stats().connections == 0
    });
    assert_eq!(stage.system.stats().closed, 1);
}

#[test]
fn a_source_is_held_back_also_when_small_writes_reach_the_high_watermark() {
    use std::io::Write;
    const PIECE: usize = 1 << 10;
    let options = ConnectionOptions::new()
        .slow_reader(SlowReader::PauseSource)
        .watermarks(8 << 10, 32 << 10);
    let stage = Stage::with(options, |probe| probe);
    let mut client = connect_small(&stage.listener, 4 << 10);
    let seen = stage.accepted();
    let mut written = 0;
    let is_stuck = || seen.run(|ctx| ctx.is_above_high_watermark());
    loop {
        let is_high = seen.run(|ctx| {
            ctx.write([b'x'; PIECE]);
            ctx.is_above_high_watermark()
        });
        written += PIECE;
        // The kernel may make its buffer larger yet.
        if is_high && (0..3).all(|_| is_stuck()) {
            break;
        }
    }
    client.write_all(b"more").expect("the client writes");
    for _ in 0..3 {
        settle(&stage.system);
    }
    if is_stuck() {
        let mut events = seen.events.try_iter();
        let early =
            events.find(|event| matches!(event, Event::Readable(bytes, _) if !bytes.is_empty()));
        assert!(early.is_none(), "{early:?} although it is held back");
    }
    assert_eq!(read(&client, written).len(), written);
    assert_eq!(seen.read(4), b"more");
}

#[test]
fn the_reason_tells_how_much_was_written_also_by_an_actor_inside_another() {
    let options = ConnectionOptions::new().output_max(1 << 10);
    let stage = Stage::with(options, |probe| probe);
    let (_client, seen) = stage.pair();
    seen.tell(|ctx| {
        ctx.nested(|inner: &mut Context<'_, Probe>| inner.write([0; 2 << 10]));
        Ok(())
    });
    match seen.closed() {
        CloseReason::SlowReader { queued, limit } => {
            assert_eq!((queued, limit), (2 << 10, 1 << 10))
        }
        other => panic!("{other}"),
    }
}

#[test]
fn room_is_not_told_again_for_a_wait_that_is_over() {
    let system = builder(2)
        .mailbox_bound(8)
        .build()
        .expect("the system starts");
    let slow = spawn(&system, 1, |p| p);
    let to = slow.addr.clone();
    let (full, fulls) = channel();
    let waiter = spawn(&system, 0, move |probe| {
        let mut first = true;
        probe.on_room(move |ctx| {
            if std::mem::take(&mut first) {
                // The slow one stands still again, and its mailbox is filled again: this wait is a
                // new one.
                let (entered, is_held) = channel();
                let (release, released) = channel::<()>();
                let _ = to.send(Box::new(move |_| {
                    let _ = entered.send(());
                    let _ = released.recv_timeout(TIMEOUT);
                    Ok(())
                }));
                next(&is_held);
                while to.send(Box::new(|_| Ok(()))).is_ok() {}
                ctx.wait_for_room(&to);
                let _ = full.send(release);
            }
            Ok(())
        })
    });
    let held = hold(&slow);
    while slow.addr.send(Box::new(|_| Ok(()))).is_ok() {}
    let to = slow.addr.clone();
    waiter.run(move |ctx| {
        ctx.wait_for_room(&to);
        ctx.wait_for_room(&to);
    });
    drop(held);
    let release = next(&fulls);
    settle_beside(&system);
    let rooms = |seen: &Seen| {
        let events = seen.events.try_iter();
        events.filter(|event| matches!(event, Event::Room)).count()
    };
    assert_eq!(rooms(&waiter), 1, "the mailbox is full");
    drop(release);
    waiter.until(|event| matches!(event, Event::Room).then_some(()));
}

// ---- panics outside of callbacks ----------------------------------------------------------------

/// A message of which the copy that a push keeps to make the others from panics when it is dropped.
struct Bomb {
    /// How many clones away from the one that the user made.
    copy: u32,
}

impl Clone for Bomb {
    fn clone(&self) -> Bomb {
        Bomb {
            copy: self.copy + 1,
        }
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(
            self.copy != 1 || thread::panicking(),
            "the message panics when dropped"
        );
    }
}

/// Says that it got one.
struct BombMember(Sender<()>);

impl Actor for BombMember {
    type Message = Bomb;

    fn message(&mut self, _bomb: Bomb, _ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = self.0.send(());
        Ok(())
    }
}

#[test]
fn a_panic_in_the_drop_of_a_pushed_message_harms_nobody() {
    let system = builder(1).build().expect("the system starts");
    let (got, gets) = channel();
    let member = system.spawn_on(0, move || BombMember(got));
    let hub = system.spawn_on(0, Broadcaster::new);
    for _ in 0..2 {
        hub.send(Broadcast::Join(member.recipient()))
            .expect("it takes a message");
        hub.send(Broadcast::Push(Bomb { copy: 0 }))
            .expect("it takes a message");
        next(&gets);
    }
    assert_eq!(hub.ask(TIMEOUT, Broadcast::Count), Ok(1));
}

/// A room whose message cannot be made from the notice that it asked for.
struct Clumsy {
    members: Members<u8>,
}

enum ToClumsy {
    Join(Recipient<u8>, Sender<()>),
}

impl From<Left> for ToClumsy {
    fn from(_left: Left) -> ToClumsy {
        panic!("the conversion panics")
    }
}

impl Actor for Clumsy {
    type Message = ToClumsy;

    fn message(&mut self, message: ToClumsy, ctx: &mut Context<'_, Self>) -> Outcome {
        let ToClumsy::Join(member, done) = message;
        self.members.join(&member, ctx);
        let _ = done.send(());
        Ok(())
    }
}

/// Takes what it is sent.
struct Sink;

impl Actor for Sink {
    type Message = u8;

    fn message(&mut self, _message: u8, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}

#[test]
fn a_panic_in_the_conversion_of_left_harms_nobody() {
    let system = builder(1).build().expect("the system starts");
    let neighbour = spawn(&system, 0, |p| p);
    let member = system.spawn_on(0, || Sink);
    let hub = system.spawn_on(0, || Clumsy {
        members: Members::new(),
    });
    let (done, is_done) = channel();
    hub.send(ToClumsy::Join(member.recipient(), done))
        .expect("it takes a message");
    next(&is_done);
    member.close();
    wait_until("the panic is counted", || system.stats().panics == 1);
    neighbour.run(|_| ());
}

#[test]
fn a_panic_in_the_drop_of_an_error_harms_nobody() {
    let stage = Stage::new();
    let neighbour = spawn(&stage.system, 0, |p| p);
    let hub = spawn(&stage.system, 0, |p| p);
    let (_client, seen) = stage.pair();
    hub.tell(|_| Err(Grudge.into()));
    seen.tell(|_| Err(Grudge.into()));
    wait_until("both panics are counted", || {
        stage.system.stats().panics == 2
    });
    neighbour.run(|_| ());
}

#[test]
fn a_panic_in_the_drop_of_an_error_that_an_abort_hides_harms_nobody() {
    let stage = Stage::new();
    let neighbour = spawn(&stage.system, 0, |p| p);
    let (_client, seen) = stage.pair();
    seen.tell(|ctx| {
        ctx.abort();
        Err(Grudge.into())
    });
    assert!(matches!(seen.closed(), CloseReason::Aborted));
    wait_until("the panic is counted", || stage.system.stats().panics == 1);
    neighbour.run(|_| ());
}

// ---- stop ---------------------------------------------------------------------------------------

/// Waits for a system's end in a thread of its own.
fn end_of(system: System) -> Receiver<()> {
    let (ended, end) = channel();
    thread::spawn(move || {
        system.run().expect("the system ends well");
        let _ = ended.send(());
    });
    end
}

fn round_robin(pollers: usize) -> Stage {
    let options = ListenOptions::new().balance(Balance::RoundRobin);
    Stage::listen(builder(pollers), "127.0.0.1:0", options, |probe| probe)
}

#[test]
fn stop_ends_early_though_the_last_connection_ends_before_its_poller_hears_of_it() {
    let stage = round_robin(2);
    let (client, seen) = stage.pair();
    assert_eq!(seen.addr.poller(), 0);
    let busy = spawn(&stage.system, 0, |p| p);
    let idle = spawn(&stage.system, 1, |p| p);
    let held = hold(&busy);
    drop(client);
    stage.system.handle().stop(NEVER);
    idle.until(|event| matches!(event, Event::Stopping).then_some(()));
    // By now it has seen that there is a socket left, and waits for that one's end.
    idle.run(|_| ());
    idle.run(|_| ());
    drop(held);
    next(&end_of(stage.system));
}

#[test]
fn who_waits_in_the_backlog_at_stop_is_served_though_a_poller_has_ended() {
    let options = ListenOptions::new().balance(Balance::RoundRobin);
    let stage = Stage::listen(builder(2), "127.0.0.1:0", options, |probe| {
        probe.on_opened(|ctx| {
            ctx.write("welcome");
            Ok(())
        })
    });
    let busy = spawn(&stage.system, 0, |p| p);
    let idle = spawn(&stage.system, 1, |p| p);
    let held = hold(&busy);
    let clients = [stage.client(), stage.client()];
    stage.system.handle().stop(NEVER);
    // By now it has seen that it hosts no socket. Whether it goes on is the question, so neither
    // answer is waited for alone.
    for _ in 0..3 {
        let (done, is_done) = channel::<()>();
        let _ = idle.addr.send(Box::new(move |_| {
            drop(done);
            Ok(())
        }));
        let _ = is_done.recv_timeout(TIMEOUT);
    }
    drop(held);
    for mut client in clients {
        let mut text = String::new();
        let read = client.read_to_string(&mut text);
        assert_eq!((text.as_str(), read.is_ok()), ("welcome", true));
    }
}

/// Counts what it is sent and tells when it is closed.
struct Counter {
    count: usize,
    total: Sender<usize>,
}

impl Actor for Counter {
    type Message = Option<Receiver<()>>;

    fn message(&mut self, wait: Self::Message, _ctx: &mut Context<'_, Self>) -> Outcome {
        match wait {
            Some(released) => {
                let _ = released.recv_timeout(TIMEOUT);
            }
            None => self.count += 1,
        }
        Ok(())
    }

    fn closed(&mut self, _reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        let _ = self.total.send(self.count);
    }
}

#[test]
fn what_connections_send_in_closed_is_delivered_at_stop() {
    const LAST_WORDS: usize = 6_000;
    let system = builder(2).build().expect("the system starts");
    let (total, totals) = channel();
    let hub = system.spawn_on(0, move || Counter { count: 0, total });
    let to = hub.clone();
    let (listener, _opened) = listen(
        &system,
        "127.0.0.1:0",
        ListenOptions::new().balance(Balance::RoundRobin),
        move |probe| {
            let to = to.clone();
            probe.on_closed(move |_, _| {
                for _ in 0..LAST_WORDS {
                    to.send(None).expect("there is room");
                }
            })
        },
    );
    let (near, far) = (connect(&listener), connect(&listener));
    wait_until("both are opened", || system.stats().opened == 3);
    // The one on the hub's own poller ends before, so that it is the other one that speaks at stop.
    drop(near);
    wait_until("one has ended", || system.stats().connections == 1);
    let (release, released) = channel();
    hub.send(Some(released)).expect("it takes a message");
    system.handle().stop(NEVER);
    drop(far);
    wait_until("the other has ended", || system.stats().connections == 0);
    drop(release);
    next(&end_of(system));
    assert_eq!(next(&totals), 2 * LAST_WORDS);
}

#[test]
fn nobody_is_served_by_a_listener_that_comes_after_stop() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_stopping(|_| Ok(()))
    });
    let (_client, seen) = stage.pair();
    stage.system.handle().stop(NEVER);
    seen.until(|event| matches!(event, Event::Stopping).then_some(()));
    let late = stage.system.listen("127.0.0.1:0", |_| {
        Probe::new(channel().0).on_opened(|ctx| {
            ctx.write("served");
            Ok(())
        })
    });
    let mut text = Vec::new();
    if let Ok(listener) = late
        && let Ok(mut client) = TcpStream::connect(tcp_addr(&listener))
    {
        client
            .set_read_timeout(Some(TIMEOUT))
            .expect("a timeout can be set");
        let _ = client.read_to_end(&mut text);
    }
    assert_eq!(text, b"");
    stage.system.handle().stop(Duration::ZERO);
}

#[test]
fn after_the_end_nothing_can_be_sent() {
    let system = builder(1).build().expect("the system starts");
    let handle = system.handle();
    handle.stop(Duration::ZERO);
    system.run().expect("the system ends well");
    let addr = handle.spawn(Clerk::default);
    assert_eq!(
        addr.ask(Duration::from_secs(1), Question::Plain),
        Err(AskError::Gone)
    );
    assert!(addr.is_gone());
}

// ---- limits and order ---------------------------------------------------------------------------

#[test]
fn a_need_beyond_the_limit_does_not_slip_through_a_pause() {
    use std::io::Write;
    let options = ConnectionOptions::new().input_max(1024);
    let stage = Stage::with(options, |probe| {
        probe.on_readable(|input, ctx| {
            input.need(1 << 20);
            ctx.pause();
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"head").expect("the client writes");
    seen.until(|event| matches!(event, Event::Readable(..)).then_some(()));
    seen.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    // It may be closed over this already.
    let _ = client.write_all(&[0; 100_000]);
    assert!(matches!(seen.closed(), CloseReason::InputTooLong { .. }));
}

#[test]
fn a_close_by_address_comes_after_the_messages_sent_before_it() {
    let system = builder(2)
        .mailbox_bound(8)
        .build()
        .expect("the system starts");
    let hub = spawn(&system, 0, |p| p);
    let slow = spawn(&system, 1, |p| p);
    let held = hold(&slow);
    while slow.addr.send(Box::new(|_| Ok(()))).is_ok() {}
    let to = slow.addr.clone();
    hub.run(move |ctx| ctx.wait_for_room(&to));
    let (done, is_done) = channel();
    hub.tell(move |_| {
        let _ = done.send(());
        Ok(())
    });
    hub.addr.close();
    settle_beside(&system);
    drop(held);
    assert!(matches!(hub.closed(), CloseReason::Finished));
    assert!(is_done.try_recv().is_ok(), "the message was overtaken");
}

/// Returns when poller 0 has gone through what was sent to it before, without a probe: their
/// mailbox may be full.
fn settle_beside(system: &System) {
    for _ in 0..2 {
        let clerk = system.spawn_on(0, Clerk::default);
        assert_eq!(clerk.ask(TIMEOUT, Question::Plain), Ok(7));
        clerk.close();
    }
}

#[test]
fn a_timer_is_not_early_however_long_the_turn_was() {
    const AFTER: Duration = Duration::from_millis(50);
    let system = builder(1).build().expect("the system starts");
    let (fired, fires) = channel();
    let timed = spawn(&system, 0, move |probe| {
        probe.on_timer(move |_, _| {
            let _ = fired.send(Instant::now());
            Ok(())
        })
    });
    let held = hold(&timed);
    // All in one turn: its time is read, time goes by, and then the timer is set.
    timed.tell(|ctx| {
        let begin = ctx.now();
        while begin.elapsed() < 2 * AFTER {
            std::hint::spin_loop();
        }
        Ok(())
    });
    let (set, was_set) = channel();
    timed.tell(move |ctx| {
        let _ = set.send(Instant::now());
        ctx.set_timer(AFTER);
        Ok(())
    });
    drop(held);
    let waited = next(&fires).duration_since(next(&was_set));
    assert!(waited >= AFTER, "it fired after {waited:?}");
}

// ---- between one actor and the next -------------------------------------------------------------

#[test]
fn a_panic_inside_an_adapter_is_no_matter_of_other_connections() {
    let stage = Stage::new();
    let (_one, first) = stage.pair();
    let (other, second) = stage.pair();
    first.tell(|ctx| {
        ctx.nested(|_: &mut Context<'_, Probe>| panic!("as it is to"))
            .0
    });
    assert!(matches!(first.closed(), CloseReason::Panicked(_)));
    let sent = second.run(|ctx| {
        let file = std::fs::File::open("Cargo.toml").expect("a file");
        ctx.write_file(file, 0, 9)
            .map_err(|error| error.to_string())
    });
    assert_eq!(sent, Ok(()), "it is inside no adapter");
    assert_eq!(read(&other, 9), b"[package]");
}

#[test]
fn who_contains_a_panic_of_the_actor_inside_goes_on_with_what_is_its_own() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    seen.tell(|ctx| {
        ctx.write("before ");
        let inside = std::panic::AssertUnwindSafe(|| {
            ctx.nested(|inner: &mut Context<'_, Probe>| {
                inner.write("never sent");
                inner.notify_written(1);
                panic!("as it is to");
            })
        });
        assert!(std::panic::catch_unwind(inside).is_err());
        ctx.write("after");
        ctx.notify_written(2);
        ctx.close();
        Ok(())
    });
    assert_eq!(read_to_end(client), b"before after");
    let told = |event: &Event| match event {
        Event::Written(token) => Some(*token),
        _ => None,
    };
    let told: Vec<u64> = seen.to_the_end().iter().filter_map(told).collect();
    assert_eq!(told, [2]);
}

/// Writes what it is told.
struct Writes(fn(u64, &mut Context<'_, Writes>));

type Deed = Box<dyn FnOnce(&mut Context<'_, Writes>) + Send>;

impl Actor for Writes {
    type Message = Deed;

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        // A line and what it lacks stay.
        while input.line(80)?.is_some() {}
        Ok(())
    }

    fn message(&mut self, deed: Deed, ctx: &mut Context<'_, Self>) -> Outcome {
        deed(ctx);
        Ok(())
    }

    fn written(&mut self, token: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        (self.0)(token, ctx);
        Ok(())
    }
}

/// Ends at once, and asks for a close again when it is told so.
struct ClosesTwice;

impl Actor for ClosesTwice {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, _reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        ctx.close_within(Duration::ZERO);
    }
}

#[test]
fn the_time_of_a_close_that_is_asked_for_too_late_is_nobody_elses() {
    let mut stage = OneActor::new(Writes(|_, _| ()));
    stage.stall();
    stage.send(Box::new(|ctx| {
        ctx.spawn(ClosesTwice);
    }));
    stage.send(Box::new(|ctx| {
        ctx.write("some");
        ctx.close();
    }));
    stage.advance(Duration::from_secs(1));
    assert!(stage.reason().is_none(), "{:?}", stage.reason());
    stage.unstall();
    assert_eq!(stage.output(), "some");
}

// ---- the end of a connection --------------------------------------------------------------------

#[test]
fn what_comes_after_a_close_by_who_was_told_that_all_is_written_resets_nothing() {
    let mut stage = OneActor::new(Writes(|_, ctx| ctx.close()));
    stage.send(Box::new(|ctx| {
        ctx.write("all");
        ctx.notify_written(0);
    }));
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    stage.receive("late");
    assert!(stage.is_connected(), "it lingers");
    stage.half_close();
    assert!(!stage.is_connected() && !stage.is_reset());
}

#[test]
fn what_comes_after_a_file_resets_nothing() {
    let options = ConnectionOptions::new().watermarks(10, 100);
    let mut stage = OneActor::with_options(Writes(|_, _| ()), options);
    stage.stall();
    stage.send(Box::new(|ctx| {
        let file = std::fs::File::open("Cargo.toml").expect("a file");
        ctx.write_file(file, 0, 1000).expect("there is room");
    }));
    stage.send(Box::new(|ctx| ctx.close()));
    stage.unstall();
    assert_eq!(stage.output().len(), 1000);
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    stage.receive("late");
    assert!(stage.is_connected(), "it lingers");
    stage.half_close();
    assert!(!stage.is_connected() && !stage.is_reset());
}

#[test]
fn who_asks_for_notices_again_and_again_does_not_put_off_its_close_for_ever() {
    let options = ConnectionOptions::new().flush_timeout(Duration::from_millis(100));
    let stage = Stage::with(options, |probe| {
        probe.on_written(|token, ctx| {
            ctx.notify_written(token + 1);
            Ok(())
        })
    });
    let (client, seen) = stage.pair();
    seen.tell(|ctx| {
        ctx.write("all");
        ctx.notify_written(0);
        ctx.close();
        Ok(())
    });
    assert_eq!(read_to_end(client), b"all");
    assert!(matches!(seen.closed(), CloseReason::Finished));
}

#[test]
fn a_rate_of_output_is_not_counted_from_before_a_marked_write_began_to_wait() {
    const OVER: Duration = Duration::from_secs(10);
    let options = ConnectionOptions::new()
        .incomplete_timeout(None)
        .least_output_rate(1000, OVER);
    let mut stage = OneActor::with_options(Writes(|_, _| ()), options);
    // Half a line: something is kept all the time.
    stage.receive("half");
    stage.stall();
    stage.send(Box::new(|ctx| {
        ctx.write("some");
    }));
    stage.advance(Duration::from_secs(1));
    stage.unstall();
    stage.advance(OVER - Duration::from_secs(2));
    stage.stall();
    stage.send(Box::new(|ctx| {
        ctx.write([0; 5000]);
        ctx.notify_written(0);
    }));
    stage.advance(Duration::from_secs(2));
    assert!(stage.reason().is_none(), "{:?}", stage.reason());
    stage.advance(OVER);
    assert!(matches!(
        stage.reason(),
        Some(CloseReason::OutputRate { .. })
    ));
}

#[test]
fn who_is_to_be_made_anew_has_no_descriptor() {
    let system = builder(1).build().expect("the system starts");
    let (read_end, _write_end) = std::io::pipe().expect("a pipe");
    let (told, tells) = channel();
    struct Told(Sender<()>);
    impl Actor for Told {
        type Message = ();

        fn opened(&mut self, _ctx: &mut Context<'_, Self>) -> Outcome {
            let _ = self.0.send(());
            Ok(())
        }
    }
    let fd = std::os::fd::OwnedFd::from(read_end);
    let make = move || {
        let told = told.clone();
        Supervised::new(Restart::new(), move || Told(told.clone()))
    };
    let watched = system.handle().watch(fd, Interest::READ, make);
    let _watched = watched.expect("it can be watched");
    wait_until("it has ended", || system.stats().closed == 1);
    assert!(tells.try_recv().is_err(), "none was made");
}

/// Closes at its first message, and is to be shown nothing afterwards.
#[derive(Default)]
struct ShownNothing {
    shown: usize,
    closes: bool,
}

impl Actor for ShownNothing {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(!self.closes, "shown {} bytes while it closes", input.len());
        self.shown += input.len();
        input.take_all();
        Ok(())
    }

    fn message(&mut self, (): (), ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("all");
        ctx.notify_written(0);
        ctx.close();
        self.closes = true;
        Ok(())
    }
}

#[test]
fn who_closes_and_is_still_to_be_told_that_all_is_written_is_shown_no_more_input() {
    let mut stage = OneActor::new(ShownNothing::default());
    // Delivered behind the first 64 KiB.
    stage.addr().send(()).expect("there is room");
    stage.receive(vec![0; 200_000]);
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    assert!(stage.actor().shown < 200_000);
    assert_eq!(stage.output(), "all");
}

//! Adapters compose: an actor around any unchanged actor, on the public API alone.
//!
//! [`Xor`] lets its actor in after one handshake line and hides its bytes both ways. Nothing in the
//! inner actors knows of it. The same tests run over real sockets and on a stage.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenroom::testing::{Probe, Stage};
use greenroom::*;

mod util;
use util::{TIMEOUT, wait_until};

// ---- the adapter --------------------------------------------------------------------------------

/// The handshake: this line, whose last byte is the key; answered by [`WELCOME`], as it is.
const HELLO: &[u8] = b"xor ";
const WELCOME: &[u8] = b"welcome\n";

/// A peer that has not said hello by then is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages held for an actor that is not opened yet. Who floods a connection that has not come in
/// costs it its place, not us memory.
const HELD_MAX: usize = 16;

struct Xor<A: Actor> {
    inner: A,
    state: State<A::Message>,
}

enum State<M> {
    Handshake {
        timeout: Option<TimerKey>,
        held: VecDeque<M>,
    },
    Open {
        key: u8,
    },
}

impl<A: Actor> Xor<A> {
    fn new(inner: A) -> Xor<A> {
        let held = VecDeque::new();
        Xor {
            inner,
            state: State::Handshake {
                timeout: None,
                held,
            },
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Calls the inner actor, if it is opened, and sends what it wrote.
    fn inner(
        &mut self,
        ctx: &mut Context<'_, Self>,
        callback: impl FnOnce(&mut A, &mut Context<'_, A>) -> Outcome,
    ) -> Outcome {
        let State::Open { key } = self.state else {
            return Ok(());
        };
        let (outcome, written) = ctx.nested(|ctx| callback(&mut self.inner, ctx));
        for part in written.parts() {
            ctx.write(xor(part, key));
        }
        outcome
    }
}

fn xor(bytes: &[u8], key: u8) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ key).collect()
}

impl<A: Actor> Actor for Xor<A> {
    type Message = A::Message;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if let State::Handshake { timeout, .. } = &mut self.state {
            *timeout = Some(ctx.set_timer(HANDSHAKE_TIMEOUT));
        }
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if let State::Handshake { timeout, held } = &mut self.state {
            let Some(line) = input.line(80)? else {
                return Ok(());
            };
            let key = line
                .strip_prefix(HELLO)
                .filter(|key| key.len() == 1)
                .ok_or("no hello")?[0];
            if let Some(timeout) = timeout.take() {
                ctx.cancel_timer(timeout);
            }
            let held = std::mem::take(held);
            self.state = State::Open { key };
            ctx.write(WELCOME);
            self.inner(ctx, |actor, ctx| actor.opened(ctx))?;
            for message in held {
                if ctx.is_closing() {
                    break;
                }
                self.inner(ctx, |actor, ctx| actor.message(message, ctx))?;
            }
            // What follows the line is shown at once, unless the inner actor pauses, waits or ends.
            return Ok(());
        }
        let State::Open { key } = self.state else {
            return Ok(());
        };
        // What the inner actor leaves is kept by the framework, undecoded: so its limits and
        // timeouts are those of the inner actor.
        let plain = xor(input.bytes(), key);
        let mut decoded = Input::new(&plain, input.at_end());
        let outcome = self.inner(ctx, |actor, ctx| actor.readable(&mut decoded, ctx));
        input.consume(decoded.consumed());
        input.need(decoded.needed());
        outcome
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if !self.is_open() {
            ctx.close();
        }
        self.inner(ctx, |actor, ctx| actor.read_closed(ctx))
    }

    fn message(&mut self, message: A::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        if let State::Handshake { held, .. } = &mut self.state {
            if held.len() == HELD_MAX {
                return Err("too many messages before the handshake".into());
            }
            held.push_back(message);
            return Ok(());
        }
        self.inner(ctx, |actor, ctx| actor.message(message, ctx))
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        if !self.is_open() {
            return Err("no handshake in time".into());
        }
        self.inner(ctx, |actor, ctx| actor.timer(key, ctx))
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.inner(ctx, |actor, ctx| actor.drained(ctx))
    }

    fn written(&mut self, token: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        self.inner(ctx, |actor, ctx| actor.written(token, ctx))
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.inner(ctx, |actor, ctx| actor.room(ctx))
    }

    fn stopping(&mut self, deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        if !self.is_open() {
            ctx.close();
        }
        self.inner(ctx, |actor, ctx| actor.stopping(deadline, ctx))
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        if self.is_open() {
            ctx.nested(|ctx| self.inner.closed(reason, ctx));
        }
    }
}

// ---- two actors that know nothing of it ---------------------------------------------------------

struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

/// Does all that an actor may; a line is a command, and each call writes a line about itself.
#[derive(Default)]
struct Chatty {
    hub: Option<Recipient<Vec<u8>>>,
    refused: Option<Vec<u8>>,
    ends: Arc<AtomicUsize>,
    /// How often input was shown.
    shown: usize,
    closed: Option<String>,
}

enum Chat {
    Say(&'static str),
    Resume,
}

impl Actor for Chatty {
    type Message = Chat;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("opened\n");
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.shown += 1;
        // A frame begins with its length, which no line begins with.
        if input
            .bytes()
            .first()
            .is_some_and(|first| *first < b' ' && *first != b'\n')
        {
            if let Some(frame) = input.length_prefixed(Prefix::U8, 64)? {
                ctx.write_parts(&[b"frame ", frame, b"\n"]);
            }
            return Ok(());
        }
        // One a call, so that a pause is in force for the next line.
        let Some(line) = input.line(64)? else {
            if input.at_end() {
                ctx.write_parts(&[b"rest ", input.take_all(), b"\n"]);
            }
            return Ok(());
        };
        match line {
            b"timer" => drop(ctx.set_timer(Duration::from_millis(10))),
            b"pause" => ctx.pause(),
            b"shut" => ctx.shutdown_write(),
            b"close" => ctx.close(),
            b"abort" => ctx.abort(),
            b"panic" => panic!("told to"),
            b"fail" => {
                ctx.write("failing\n");
                return Err("told to".into());
            }
            b"flood" => {
                ctx.write(vec![b'.'; 100_000]);
                let high = ctx.is_above_high_watermark();
                ctx.write(if high { "\nhigh\n" } else { "\nlow\n" });
            }
            line => match line.strip_prefix(b"hub ") {
                Some(said) => self.tell(said.to_vec(), ctx)?,
                None => drop(ctx.write_parts(&[b"heard ", line, b"\n"])),
            },
        }
        Ok(())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("end\n");
        ctx.close();
        Ok(())
    }

    fn message(&mut self, message: Chat, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            Chat::Say(text) => drop(ctx.write_parts(&[b"said ", text.as_bytes(), b"\n"])),
            Chat::Resume => ctx.resume(),
        }
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("timer\n");
        Ok(())
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("drained\n");
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("room\n");
        self.refused
            .take()
            .map_or(Ok(()), |line| self.tell(line, ctx))
    }

    fn stopping(&mut self, _: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("stopping\n");
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        self.closed = Some(reason.to_string());
        self.ends.fetch_add(1, Ordering::SeqCst);
    }
}

impl Chatty {
    fn tell(&mut self, line: Vec<u8>, ctx: &mut Context<'_, Self>) -> Outcome {
        let hub = self.hub.as_ref().ok_or("no hub")?;
        match hub.send(line) {
            Err(error) if error.is_full() => {
                self.refused = Some(error.into_message());
                ctx.wait_for_room(hub);
                Ok(())
            }
            sent => Ok(sent?),
        }
    }
}

// ---- on a stage ---------------------------------------------------------------------------------

const KEY: u8 = b'K';

fn chatty() -> Stage<Xor<Chatty>> {
    Stage::new(Xor::new(Chatty::default()))
}

/// Past the handshake.
fn open(mut stage: Stage<Xor<Chatty>>) -> Stage<Xor<Chatty>> {
    stage.receive("xor K\n");
    let output = stage.output();
    assert_eq!(said(output.strip_prefix(WELCOME).unwrap()), "opened\n");
    stage
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(xor(bytes, KEY)).unwrap()
}

/// Lets the peer say something in code; what it is answered.
fn say(stage: &mut Stage<Xor<Chatty>>, text: &str) -> String {
    stage.receive(xor(text.as_bytes(), KEY));
    said(&stage.output())
}

fn closed(stage: &Stage<Xor<Chatty>>) -> Option<String> {
    stage.actor().inner.closed.clone()
}

#[test]
fn opened_is_held_back_until_the_handshake_and_messages_with_it() {
    let mut stage = chatty();
    stage.send(Chat::Say("early"));
    stage.receive("xor ");
    assert_eq!(stage.output(), "");
    let mut rest = b"K\n".to_vec();
    rest.extend(xor(b"one\ntwo\n", KEY));
    stage.receive(rest);
    let output = stage.output();
    let answer = said(output.strip_prefix(WELCOME).unwrap());
    assert_eq!(answer, "opened\nsaid early\nheard one\nheard two\n");
    // Its deadline is no more.
    stage.advance(2 * HANDSHAKE_TIMEOUT);
    assert!(stage.reason().is_none());
}

#[test]
fn whoever_does_not_come_in_never_reaches_the_inner_actor() {
    let mut late = chatty();
    late.advance(HANDSHAKE_TIMEOUT);
    assert_eq!(late.reason().unwrap().to_string(), "no handshake in time");
    let mut wrong = chatty();
    wrong.receive("hello\n");
    assert_eq!(wrong.reason().unwrap().to_string(), "no hello");
    let mut short = chatty();
    short.receive("xor");
    short.half_close();
    assert!(matches!(short.reason(), Some(CloseReason::PeerClosed)));
    let mut flooded = chatty();
    for _ in 0..HELD_MAX {
        flooded.send(Chat::Say("x"));
    }
    assert!(flooded.reason().is_none());
    flooded.send(Chat::Say("x"));
    assert_eq!(
        flooded.reason().unwrap().to_string(),
        "too many messages before the handshake"
    );
    let mut stopped = chatty();
    stopped.stop(Duration::from_secs(1));
    assert!(matches!(stopped.reason(), Some(CloseReason::Finished)));
    for mut stage in [late, wrong, short, flooded, stopped] {
        assert_eq!((&stage.output()[..], closed(&stage)), (&b""[..], None));
    }
}

#[test]
fn messages_timers_and_addresses_pass_through() {
    let mut stage = open(chatty());
    stage.send(Chat::Say("hello"));
    assert_eq!(said(&stage.output()), "said hello\n");
    assert_eq!(say(&mut stage, "timer\n"), "");
    stage.advance(Duration::from_millis(10));
    assert_eq!(said(&stage.output()), "timer\n");
}

#[test]
fn kept_input_and_need_pass_through() {
    let mut stage = open(chatty());
    assert_eq!(say(&mut stage, "spl"), "");
    assert_eq!(say(&mut stage, "it\n\u{5}he"), "heard split\n");
    let shown = stage.actor().inner.shown;
    assert_eq!(say(&mut stage, "ll"), "");
    assert_eq!(stage.actor().inner.shown, shown);
    assert_eq!(say(&mut stage, "o"), "frame hello\n");
    stage.receive(xor(b"no end", KEY));
    stage.half_close();
    assert_eq!(said(&stage.output()), "rest no end\nend\n");
    assert!(matches!(stage.reason(), Some(CloseReason::PeerClosed)));

    let mut stage = open(chatty());
    stage.receive(xor(&[b'x'; 65], KEY));
    assert_eq!(
        closed(&stage).unwrap(),
        "line or frame longer than its limit of 64 bytes"
    );
    let options = ConnectionOptions::new().incomplete_timeout(Duration::from_secs(1));
    let mut stage = open(Stage::with_options(Xor::new(Chatty::default()), options));
    say(&mut stage, "slow");
    stage.advance(Duration::from_secs(1));
    assert!(matches!(
        stage.reason(),
        Some(CloseReason::SlowSender { kept: 4, .. })
    ));
}

#[test]
fn pause_and_resume_pass_through() {
    let mut stage = open(chatty());
    assert_eq!(say(&mut stage, "pause\none\n"), "");
    assert!(stage.is_paused());
    assert_eq!(say(&mut stage, "two\n"), "");
    stage.send(Chat::Resume);
    assert_eq!(said(&stage.output()), "heard one\nheard two\n");
}

#[test]
fn backpressure_passes_through() {
    let mut stage = open(chatty());
    stage.stall();
    assert_eq!(say(&mut stage, "flood\n"), "");
    let flood = said(&stage.take_output(90_000));
    assert!(flood.bytes().all(|byte| byte == b'.'));
    stage.unstall();
    assert_eq!(
        said(&stage.output()),
        format!("{}\nhigh\ndrained\n", ".".repeat(10_000))
    );

    let options = ConnectionOptions::new().output_max(150_000);
    let mut stage = open(Stage::with_options(Xor::new(Chatty::default()), options));
    stage.stall();
    say(&mut stage, "flood\n");
    say(&mut stage, "flood\n");
    let reason = stage.reason();
    let told = matches!(
        reason,
        Some(CloseReason::SlowReader {
            queued: 200_006..,
            limit: 150_000
        })
    );
    assert!(told, "{reason:?}");
}

#[test]
fn room_passes_through() {
    let mut hub = Probe::<Vec<u8>>::with_bound(2);
    let inner = Chatty {
        hub: Some(hub.recipient()),
        ..Chatty::default()
    };
    let mut stage = open(Stage::new(Xor::new(inner)));
    say(&mut stage, "hub 1\nhub 2\nhub 3\nhub 4\n");
    assert!(stage.is_waiting());
    assert_eq!(hub.take_all(), [b"1", b"2"]);
    stage.run();
    assert_eq!(said(&stage.output()), "room\n");
    assert!(!stage.is_waiting());
    assert_eq!(hub.take_all(), [b"3", b"4"]);
}

#[test]
fn a_half_close_passes_through() {
    let mut stage = open(chatty());
    assert_eq!(say(&mut stage, "shut\n"), "");
    assert!(stage.is_write_shut() && stage.is_reading() && stage.reason().is_none());
}

#[test]
fn close_abort_errors_and_stopping_pass_through() {
    for (command, answer, end) in [
        ("close\nlost\n", "", "finished"),
        ("abort\nlost\n", "", "aborted"),
        ("fail\nlost\n", "failing\n", "told to"),
    ] {
        let mut stage = open(chatty());
        assert_eq!(say(&mut stage, command), answer);
        assert_eq!(closed(&stage).as_deref(), Some(end));
        assert_eq!(stage.is_reset(), end == "aborted");
    }
    let mut stage = open(chatty());
    stage.stop(Duration::from_secs(1));
    assert_eq!(said(&stage.output()), "stopping\n");
    assert_eq!(closed(&stage).unwrap(), "finished");
}

#[test]
fn a_panic_passes_through() {
    let mut stage = open(chatty());
    catch_unwind(AssertUnwindSafe(|| say(&mut stage, "panic\n"))).unwrap_err();
    assert!(matches!(stage.reason(), Some(CloseReason::Panicked(what)) if what == "told to"));
    assert_eq!(closed(&stage).unwrap(), "a callback panicked: told to");
}

#[test]
fn adapters_nest() {
    let mut stage = Stage::new(Xor::new(Xor::new(Echo)));
    stage.receive("xor A\n");
    assert_eq!(stage.output(), "welcome\n");
    stage.receive(xor(b"xor B\n", b'A'));
    assert_eq!(xor(&stage.output(), b'A'), WELCOME);
    stage.receive(xor(b"hello", b'A' ^ b'B'));
    assert_eq!(xor(&stage.output(), b'A' ^ b'B'), b"hello");
}

// ---- over real sockets --------------------------------------------------------------------------

fn connect(listener: &Listener) -> TcpStream {
    let Endpoint::Tcp(addr) = listener.local_addr() else {
        panic!("not tcp")
    };
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    client.write_all(b"xor K\n").unwrap();
    let mut welcome = [0; WELCOME.len()];
    client.read_exact(&mut welcome).unwrap();
    assert_eq!(welcome, WELCOME);
    client
}

fn send(client: &mut TcpStream, text: &str) {
    client.write_all(&xor(text.as_bytes(), KEY)).unwrap();
}

#[track_caller]
fn expect(client: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(said(&bytes), text);
}

#[test]
fn an_echo_over_sockets() {
    let system = System::builder().pollers(1).build().unwrap();
    let listener = system.listen("127.0.0.1:0", |_| Xor::new(Echo)).unwrap();
    let mut client = connect(&listener);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut writer = client.try_clone().unwrap();
    let code = xor(&sent, KEY);
    let writing = std::thread::spawn(move || {
        writer.write_all(&code).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(
        xor(&got, KEY) == sent,
        "{} of {} bytes",
        got.len(),
        sent.len()
    );
}

#[test]
fn a_chatty_one_over_sockets() {
    let system = System::builder().pollers(1).build().unwrap();
    let (made, addrs) = std::sync::mpsc::channel();
    let ends = Arc::new(AtomicUsize::new(0));
    let seen = ends.clone();
    /// Tells the test its address; itself an adapter.
    struct Known<A: Actor>(A, std::sync::mpsc::Sender<Addr<Known<A>>>);
    impl<A: Actor> Actor for Known<A> {
        type Message = A::Message;
        fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
            let _ = self.1.send(ctx.addr());
            self.pass(ctx, |actor, ctx| actor.opened(ctx))
        }
        fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
            self.pass(ctx, |actor, ctx| actor.readable(input, ctx))
        }
        fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
            self.pass(ctx, |actor, ctx| actor.read_closed(ctx))
        }
        fn message(&mut self, message: A::Message, ctx: &mut Context<'_, Self>) -> Outcome {
            self.pass(ctx, |actor, ctx| actor.message(message, ctx))
        }
        fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
            self.pass(ctx, |actor, ctx| actor.timer(key, ctx))
        }
        fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
            self.pass(ctx, |actor, ctx| actor.drained(ctx))
        }
        fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
            ctx.nested(|ctx| self.0.closed(reason, ctx));
        }
    }
    impl<A: Actor> Known<A> {
        fn pass(
            &mut self,
            ctx: &mut Context<'_, Self>,
            callback: impl FnOnce(&mut A, &mut Context<'_, A>) -> Outcome,
        ) -> Outcome {
            let (outcome, written) = ctx.nested(|ctx| callback(&mut self.0, ctx));
            for part in written.parts() {
                ctx.write(part);
            }
            outcome
        }
    }
    let listener = system
        .listen("127.0.0.1:0", move |_| {
            let chatty = Chatty {
                ends: seen.clone(),
                ..Chatty::default()
            };
            Known(Xor::new(chatty), made.clone())
        })
        .unwrap();

    let mut client = connect(&listener);
    let addr = util::next(&addrs);
    expect(&mut client, "opened\n");
    addr.send(Chat::Say("from outside"))
        .map_err(|_| "refused")
        .unwrap();
    expect(&mut client, "said from outside\n");
    send(&mut client, "timer\n");
    expect(&mut client, "timer\n");
    send(&mut client, "pause\nheld\n");
    addr.send(Chat::Say("paused"))
        .map_err(|_| "refused")
        .unwrap();
    expect(&mut client, "said paused\n");
    addr.send(Chat::Resume).map_err(|_| "refused").unwrap();
    expect(&mut client, "heard held\n");
    send(&mut client, "flood\n");
    expect(
        &mut client,
        &format!("{}\nhigh\ndrained\n", ".".repeat(100_000)),
    );
    send(&mut client, "last");
    client.shutdown(Shutdown::Write).unwrap();
    expect(&mut client, "rest last\nend\n");
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    wait_until("the actor has ended", || ends.load(Ordering::SeqCst) == 1);

    // A panic ends one, and the others go on.
    let mut other = connect(&listener);
    let mut client = connect(&listener);
    send(&mut client, "panic\n");
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    send(&mut other, "still here\n");
    expect(&mut other, "opened\nheard still here\n");
    wait_until("the actor has ended", || ends.load(Ordering::SeqCst) == 2);
    assert_eq!(system.stats().panics, 1);
}

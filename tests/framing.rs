//! `protocol`: actors for frames behind codecs, on a stage, over sockets and under seeds.

mod util;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use greenroom::protocol::*;
use greenroom::testing::{Faults, Stage, for_each_seed};
use greenroom::*;

/// Echoes frames; some are commands.
#[derive(Default)]
struct Echo {
    calls: Vec<String>,
    refused: Option<String>,
    /// Where the payloads of the frames lay.
    places: Vec<(usize, usize)>,
}

enum Say {
    Text(&'static str),
    Bytes(bytes::Bytes),
    Shared(SharedFrame),
    Resume,
}

impl Actor for Echo {
    type Message = Say;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let is_wanted = ctx.peer().is_none();
        if is_wanted {
            ctx.write_frame("hello")?;
        }
        Ok(())
    }

    fn message(&mut self, message: Say, ctx: &mut Context<'_, Self>) -> Outcome {
        let written = match message {
            Say::Text(text) => ctx.write_frame(text),
            Say::Bytes(bytes) => ctx.write_frame(bytes),
            Say::Shared(frame) => ctx.write_frame(&frame),
            Say::Resume => {
                ctx.resume();
                Ok(true)
            }
        };
        match written {
            Ok(true) => {}
            Ok(false) => self.calls.push("dropped".into()),
            Err(error) => self.refused = Some(error.to_string()),
        }
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame("timer")?;
        Ok(())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame("end")?;
        ctx.close();
        Ok(())
    }

    fn stopping(&mut self, _: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame("stopping")?;
        ctx.close();
        Ok(())
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if !self.calls.is_empty() {
            ctx.write_frame("drained")?;
        }
        Ok(())
    }

    fn written(&mut self, token: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame(format!("written {token}"))?;
        Ok(())
    }

    fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        let _ = ctx.write_frame(format!("bye: {reason}"));
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        self.calls.push(reason.to_string());
    }
}

impl FrameActor for Echo {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.places.push((frame.as_ptr().addr(), frame.len()));
        match frame.bytes() {
            b"pause" => ctx.pause(),
            b"close" => ctx.close(),
            b"timer" => {
                ctx.set_timer(Duration::from_secs(1));
            }
            b"notify" => {
                ctx.notify_written(7);
            }
            b"fail" => return Err("told to".into()),
            b"panic" => panic!("told to"),
            _ => {
                ctx.write_frame(frame)?;
            }
        }
        Ok(())
    }
}

fn lines() -> Stage<Framed<Lines, Echo>> {
    Stage::new(Framed::new(Lines::new(64), Echo::default()))
}

fn say<C: Codec>(stage: &mut Stage<Framed<C, Echo>>, bytes: impl AsRef<[u8]>) -> String {
    stage.receive(bytes);
    String::from_utf8(stage.output().to_vec()).unwrap()
}

// ---- the adapter --------------------------------------------------------------------------------

#[test]
fn every_callback_writes_frames() {
    let mut stage = lines();
    assert_eq!(say(&mut stage, "one\r\ntwo\nthr"), "one\ntwo\n");
    assert_eq!(say(&mut stage, "ee\n"), "three\n");
    stage.send(Say::Text("said"));
    assert_eq!(stage.output(), "said\n");
    assert_eq!(say(&mut stage, "timer\n"), "");
    stage.advance(Duration::from_secs(1));
    assert_eq!(stage.output(), "timer\n");
    assert_eq!(say(&mut stage, "notify\n"), "written 7\n");
    stage.half_close();
    assert_eq!(stage.output(), "end\nbye: closed by the peer\n");
    assert_eq!(stage.actor().actor().calls, ["closed by the peer"]);

    let mut stage = lines();
    stage.stop(Duration::from_secs(1));
    assert_eq!(stage.output(), "stopping\nbye: finished\n");
    let mut stage = lines();
    assert_eq!(say(&mut stage, "fail\nlost\n"), "bye: told to\n");
    let mut stage = lines();
    catch_unwind(AssertUnwindSafe(|| say(&mut stage, "panic\n"))).unwrap_err();
    assert_eq!(
        stage.actor().actor().calls,
        ["a callback panicked: told to"]
    );
}

#[test]
fn frames_behind_a_pause_are_shown_when_it_is_over() {
    let mut stage = lines();
    assert_eq!(say(&mut stage, "one\npause\ntwo\nthree\nfo"), "one\n");
    assert!(stage.is_paused());
    assert_eq!(say(&mut stage, "ur\n"), "");
    stage.send(Say::Resume);
    assert_eq!(stage.output(), "two\nthree\nfour\n");
    assert_eq!(say(&mut stage, "close\nlost\n"), "bye: finished\n");
}

#[test]
fn a_half_close_within_a_frame_is_an_error() {
    let mut stage = lines();
    assert_eq!(say(&mut stage, "one\nhalf"), "one\n");
    stage.half_close();
    let reason = "the input ended within a frame of which 4 bytes had come";
    assert_eq!(stage.output(), format!("bye: {reason}\n"));
    assert_eq!(stage.reason().unwrap().to_string(), reason);

    // Not where frames in front of it are still to be shown.
    let mut stage = lines();
    say(&mut stage, "pause\none\nhalf");
    stage.half_close();
    assert!(stage.reason().is_none());
    stage.send(Say::Resume);
    assert_eq!(stage.output(), format!("one\nbye: {reason}\n"));
}

#[test]
fn where_there_is_no_framing_a_frame_cannot_be_written() {
    let mut stage = Stage::new(Echo::default());
    let panic = catch_unwind(AssertUnwindSafe(|| stage.send(Say::Text("x")))).unwrap_err();
    let text = panic.downcast::<String>().unwrap();
    assert!(text.contains("this connection has no framing"), "{text}");
    assert!(text.contains("protocol::Framed"), "{text}");
}

#[test]
fn a_frame_that_cannot_be_written_is_an_error_and_nothing_is_written() {
    let mut stage = lines();
    for text in ["two\nlines", "\n", "return\r"] {
        stage.send(Say::Text(text));
        let refused = stage.actor().actor().refused.clone().unwrap();
        assert_eq!(
            refused,
            "a frame to be written holds the delimiter that would end it"
        );
        assert_eq!(stage.output(), "");
    }
    let crlf = Framed::new(Lines::new(64).crlf(), Echo::default());
    let mut stage = Stage::new(crlf);
    stage.send(Say::Text("return\r"));
    assert_eq!(stage.output(), "return\r\r\n");

    let prefix = LengthPrefixed::new(Prefix::U8, 64);
    let mut stage = Stage::new(Framed::new(prefix, Echo::default()));
    stage.send(Say::Bytes(vec![1; 256].into()));
    let refused = stage.actor().actor().refused.clone().unwrap();
    assert_eq!(refused, "line or frame longer than its limit of 255 bytes");
    stage.send(Say::Bytes(vec![1; 255].into()));
    assert_eq!(stage.output().len(), 256);

    let mut stage = Stage::new(Framed::new(Fixed::new(4), Echo::default()));
    stage.send(Say::Text("three"));
    let refused = stage.actor().actor().refused.clone().unwrap();
    assert_eq!(
        refused,
        "a frame to be written has 5 bytes where all have 4"
    );
    stage.send(Say::Text("four"));
    assert_eq!(stage.output(), "four");
}

#[test]
fn a_frame_is_kept_or_dropped_whole() {
    let big: &'static str = "x".repeat(60).leak();
    for policy in [SlowReader::DropNewest, SlowReader::DropOldest] {
        let options = ConnectionOptions::new()
            .output_max(1000)
            .slow_reader(policy);
        let prefix = LengthPrefixed::new(Prefix::U64Be, 100);
        let mut stage = Stage::with_options(Framed::new(prefix, Echo::default()), options);
        stage.stall();
        for _ in 0..100 {
            stage.send(Say::Text(big));
        }
        assert!(stage.actor().actor().calls.contains(&"dropped".into()));
        stage.unstall();
        let output = stage.output();
        let output = output.strip_suffix(b"\0\0\0\0\0\0\0\x07drained").unwrap();
        assert!(!output.is_empty());
        for frame in output.chunks(68) {
            assert_eq!(
                (&frame[..8], &frame[8..]),
                (&60_u64.to_be_bytes()[..], big.as_bytes())
            );
        }
    }
}

#[test]
fn a_shared_frame_is_made_once_for_each_framing_and_its_payload_is_not_copied() {
    thread_local!(static MADE: Cell<usize> = const { Cell::new(0) });
    struct Counted(u8);
    impl Codec for Counted {
        fn decode<'f, 'buf: 'f>(
            &mut self,
            _: &mut Input<'buf>,
            _: &'f mut Vec<u8>,
        ) -> Result<Option<Frame<'f>>, FramingError> {
            Ok(None)
        }
    }
    impl Framer for Counted {
        fn encode(
            &self,
            kind: FrameKind,
            payload: &[u8],
            out: &mut Encoder<'_>,
        ) -> Result<(), FramingError> {
            MADE.set(MADE.get() + usize::from(!payload.starts_with(b"bye")));
            if payload == b"none" {
                return Err("none".into());
            }
            out.put(&[self.0, kind as u8]);
            out.put_payload();
            out.put(b"!");
            Ok(())
        }
        fn shared_as(&self) -> Option<Framing> {
            (self.0 > 0).then(|| Framing::of::<Counted>(self.0.into()))
        }
    }
    for len in [0, 3, 511, 512, 100_000] {
        let payload = vec![b'x'; len];
        let shared = SharedFrame::binary(payload.clone());
        let wire = |number: u8| [&[number, FrameKind::Binary as u8], &payload[..], b"!"].concat();
        MADE.set(0);
        for number in [1, 1, 2, 1, 2, 2] {
            let mut stage = Stage::new(Framed::new(Counted(number), Echo::default()));
            stage.send(Say::Shared(shared.clone()));
            stage.send(Say::Shared(shared.clone()));
            assert_eq!(stage.output(), wire(number).repeat(2));
        }
        assert_eq!(MADE.get(), 2);
        // Where each connection makes its own.
        let mut stage = Stage::new(Framed::new(Counted(0), Echo::default()));
        stage.send(Say::Shared(shared.clone()));
        stage.send(Say::Shared(shared.clone()));
        assert_eq!((stage.output(), MADE.get()), (wire(0).repeat(2).into(), 4));
    }
    let shared = SharedFrame::text("none");
    let mut stage = Stage::new(Framed::new(Counted(1), Echo::default()));
    stage.send(Say::Shared(shared.clone()));
    assert_eq!(stage.actor().actor().refused.as_deref(), Some("none"));
    assert_eq!(stage.output(), "");
}

#[test]
fn a_codec_that_makes_frames_of_nothing_is_stopped() {
    struct Nothing;
    impl Codec for Nothing {
        fn decode<'f, 'buf: 'f>(
            &mut self,
            _: &mut Input<'buf>,
            decoded: &'f mut Vec<u8>,
        ) -> Result<Option<Frame<'f>>, FramingError> {
            assert!(decoded.is_empty());
            decoded.extend(b"made up");
            Ok(Some(Frame::new(FrameKind::Text, decoded)))
        }
    }
    impl Framer for Nothing {
        fn encode(
            &self,
            _: FrameKind,
            _: &[u8],
            out: &mut Encoder<'_>,
        ) -> Result<(), FramingError> {
            out.put_payload();
            Ok(())
        }
    }
    let mut stage = Stage::new(Framed::new(Nothing, Echo::default()));
    stage.receive("x");
    let reason = stage.reason().unwrap().to_string();
    assert_eq!(
        reason,
        "the codec has made a frame of no bytes, and would for ever"
    );
}

#[test]
fn frames_of_one_read_are_shown_where_they_lie() {
    let mut stage = lines();
    say(&mut stage, "one\r\nthree\n\nfour\n");
    let places = stage.actor().actor().places.clone();
    let start = places[0].0;
    let within: Vec<_> = places.iter().map(|(at, len)| (at - start, *len)).collect();
    assert_eq!(within, [(0, 3), (5, 5), (11, 0), (12, 4)]);
}

// ---- input that an adapter keeps ----------------------------------------------------------------

/// Takes all out at once, and keeps what is not a whole frame of eight bytes.
#[derive(Default)]
struct Eights {
    kept: VecDeque<u8>,
    ends: usize,
}

impl Actor for Eights {
    type Message = bool;

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.ends += usize::from(input.at_end());
        self.kept.extend(input.take_all());
        while self.kept.len() >= 8 {
            let frame: Vec<u8> = self.kept.drain(..8).collect();
            ctx.write(frame);
        }
        input.hold(self.kept.len());
        Ok(())
    }

    fn message(&mut self, pauses: bool, ctx: &mut Context<'_, Self>) -> Outcome {
        if pauses {
            ctx.pause();
        } else {
            ctx.resume();
        }
        Ok(())
    }
}

#[test]
fn what_an_adapter_holds_counts_as_kept_input() {
    let second = Duration::from_secs(1);
    let stage = |options| Stage::with_options(Eights::default(), options);

    let mut long = stage(ConnectionOptions::new().input_max(6));
    long.receive("123456");
    assert!(long.reason().is_none());
    long.receive("7");
    let told = matches!(
        long.reason(),
        Some(CloseReason::InputTooLong { len: 7, limit: 6 })
    );
    assert!(told);

    // Its time runs from the frame's first byte on, however many come behind.
    let mut slow = stage(ConnectionOptions::new().incomplete_timeout(second));
    for byte in ["1", "2", "3", "4"] {
        slow.receive(byte);
        slow.advance(second / 4);
    }
    let told = matches!(slow.reason(), Some(CloseReason::SlowSender { kept: 4, .. }));
    assert!(told, "{:?}", slow.reason());

    // ... and anew with the next frame.
    let mut good = stage(ConnectionOptions::new().incomplete_timeout(second));
    for _ in 0..4 {
        good.receive("12345");
        good.advance(second * 3 / 4);
        good.receive("678");
    }
    good.advance(2 * second);
    assert!(good.reason().is_none());
    assert_eq!(good.output(), "12345678".repeat(4));
    for _ in 0..4 {
        good.receive("12345678");
        good.receive("1");
        good.advance(second * 3 / 4);
        good.receive("2345678");
    }
    assert!(good.reason().is_none());

    let mut rate = stage(ConnectionOptions::new().least_input_rate(4, second));
    rate.receive("123");
    rate.advance(second);
    let told = matches!(rate.reason(), Some(CloseReason::InputRate { kept: 3, .. }));
    assert!(told, "{:?}", rate.reason());

    // While it pauses its peer is not to blame.
    let mut paused = stage(ConnectionOptions::new().incomplete_timeout(second));
    paused.receive("123");
    paused.send(true);
    paused.advance(10 * second);
    assert!(paused.reason().is_none());
    paused.send(false);
    assert!(paused.reason().is_none());
    paused.advance(second);
    assert!(paused.reason().is_some());
}

#[test]
fn at_the_end_who_holds_input_is_called_once_more() {
    let mut stage = Stage::new(Eights::default());
    stage.receive("123");
    stage.half_close();
    assert_eq!(stage.actor().ends, 1);
    assert!(matches!(stage.reason(), Some(CloseReason::PeerClosed)));
    let mut stage = Stage::new(Eights::default());
    stage.receive("12345678");
    stage.half_close();
    assert_eq!(stage.actor().ends, 0);
}

// ---- over sockets, and under seeds --------------------------------------------------------------

#[test]
fn large_frames_over_sockets() {
    let system = System::builder().pollers(1).build().unwrap();
    let make = |_| Framed::new(LengthPrefixed::new(Prefix::U32Be, 900_000), Echo::default());
    let listener = system.listen("127.0.0.1:0", make).unwrap();
    let Endpoint::Tcp(addr) = listener.local_addr() else {
        panic!("not tcp")
    };
    let mut sent = Vec::new();
    for (number, len) in [0_usize, 1, 70_000, 900_000, 511, 900_000]
        .into_iter()
        .enumerate()
    {
        sent.extend((len as u32).to_be_bytes());
        sent.extend((0..len).map(|at| (at % 251) as u8 ^ number as u8));
    }
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(util::TIMEOUT)).unwrap();
    let mut writer = client.try_clone().unwrap();
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        client.read_to_end(&mut got).unwrap();
    });
    let ends = b"\0\0\0\x03end\0\0\0\x17bye: closed by the peer".map(|byte| byte);
    let rest = got.strip_prefix(&sent[..]).expect("all came back");
    assert_eq!(
        rest.escape_ascii().to_string(),
        ends.escape_ascii().to_string()
    );

    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(util::TIMEOUT)).unwrap();
    client.write_all(&900_001_u32.to_be_bytes()).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(b"longer than its limit of 900000 bytes"));
}

/// The other end: an actor for frames as well, that connects.
struct Client(std::sync::mpsc::Sender<String>);

impl Actor for Client {
    type Message = &'static str;

    fn message(&mut self, text: &'static str, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame(text)?;
        Ok(())
    }

    fn closing(&mut self, _: &CloseReason, ctx: &mut Context<'_, Self>) {
        let _ = ctx.write_frame("last words");
    }
}

impl FrameActor for Client {
    fn frame(&mut self, frame: Frame<'_>, _: &mut Context<'_, Self>) -> Outcome {
        self.0.send(frame.text()?.to_owned())?;
        Ok(())
    }
}

#[test]
fn a_client_writes_frames_whoever_keeps_its_connection() {
    let system = System::builder().pollers(2).build().unwrap();
    let (heard, at_the_server) = std::sync::mpsc::channel();
    let server = move |_| Framed::new(Delimited::new("--", 80), Client(heard.clone()));
    let listener = system.listen("127.0.0.1:0", server).unwrap();
    let Endpoint::Tcp(addr) = *listener.local_addr() else {
        panic!("not tcp")
    };
    let (heard, _) = std::sync::mpsc::channel();
    let client = move || Framed::new(Delimited::new("--", 80), Client(heard.clone()));

    let address = system.connect(addr, client.clone()).inside();
    address.send("by its own address").unwrap();
    assert_eq!(util::next(&at_the_server), "by its own address");
    address.close();
    assert_eq!(util::next(&at_the_server), "last words");

    let keeper = system.spawn(move || Reconnect::new(addr, client.clone()));
    let mut is_up = false;
    while !is_up {
        // What comes before there is a connection is a dead letter.
        keeper.send("kept up".into()).unwrap();
        is_up = at_the_server
            .recv_timeout(Duration::from_millis(10))
            .is_ok();
    }
    keeper.close();
    let last = std::iter::from_fn(|| Some(util::next(&at_the_server)));
    assert!(last.take(10_000).any(|said| said == "last words"));
}

#[test]
fn frames_under_every_seed() {
    for_each_seed(100, |simulation| {
        simulation.faults(Faults::harmless());
        let system = simulation.system(System::builder().pollers(2));
        let make = |_| Framed::new(Delimited::new("\r\n.", 300), Echo::default());
        system.listen("127.0.0.1:9000", make).unwrap();
        let client = simulation.client("127.0.0.1:9000");
        let mut sent = Vec::new();
        for _ in 0..50 {
            let len = simulation.random().below(300);
            sent.extend((0..len).map(|at| b"\r\n\r"[at as usize % 3]));
            sent.extend(b"x\r\n.");
        }
        client.send(&sent);
        client.half_close();
        let rest = client.rest(simulation);
        sent.extend(b"end\r\n.bye: closed by the peer\r\n.");
        assert_eq!(rest, sent);
    });
}

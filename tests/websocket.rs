//! WebSockets on a stage: the handshake, messages, limits, pings, and every way to the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use greenroom::http::{self, Http, Responder, Service};
use greenroom::protocol::{Control, Frame, FrameActor, FrameKind, Framed, Lines, SharedFrame};
use greenroom::testing::{Probe, Stage};
use greenroom::websocket::{
    ClientError, CloseCode, Options, Refusal, Request, Server, Upgrade, WebSocket,
};
use greenroom::*;

#[path = "util/websocket.rs"]
mod wire;
use wire::*;

// ---- an actor that knows nothing of WebSockets but where it is told to --------------------------

/// Sends back what it gets, but for texts that are commands.
#[derive(Default)]
struct Talk {
    /// All that happened, a line each.
    log: Vec<String>,
    is_polite: bool,
    hub: Option<Recipient<Vec<u8>>>,
}

enum Say {
    Text(&'static str),
    Shared(SharedFrame),
    Resume,
}

impl Actor for Talk {
    type Message = Say;

    fn opened(&mut self, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.log.push("opened".into());
        Ok(())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.log.push("read closed".into());
        ctx.close();
        Ok(())
    }

    fn message(&mut self, message: Say, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            Say::Text(text) => drop(ctx.write_frame(text)?),
            Say::Shared(frame) => drop(ctx.write_frame(&frame)?),
            Say::Resume => ctx.resume(),
        }
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame("timer")?;
        Ok(())
    }

    fn drained(&mut self, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.log.push("drained".into());
        Ok(())
    }

    fn written(&mut self, token: u64, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.log.push(format!("written {token}"));
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame("room")?;
        Ok(())
    }

    fn stopping(&mut self, _: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame("stopping")?;
        ctx.close();
        Ok(())
    }

    fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        self.log.push(format!("closing: {reason}"));
        if self.is_polite {
            ctx.write_frame("goodbye").unwrap();
            ctx.close_with(CloseCode::new(4001).unwrap(), "polite");
        }
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        self.log.push(format!("closed: {reason}"));
    }
}

impl FrameActor for Talk {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let text = match frame.kind() {
            FrameKind::Text => frame.text()?,
            FrameKind::Binary => "",
        };
        match text {
            "timer" => drop(ctx.set_timer(Duration::from_millis(10))),
            "pause" => ctx.pause(),
            "shut" => ctx.shutdown_write(),
            "close" => ctx.close(),
            "close 4000" => ctx.close_with(CloseCode::new(4000).unwrap(), "enough"),
            "abort" => ctx.abort(),
            "panic" => panic!("told to"),
            "fail" => return Err("told to".into()),
            "polite" => self.is_polite = true,
            "notify" => {
                ctx.write_frame("notified")?;
                ctx.notify_written(7);
            }
            "ping" => drop(ctx.ping(b"are you there?")),
            "shut and ping" => {
                ctx.shutdown_write();
                assert!(!ctx.ping(b"too late"));
            }
            "close twice" => {
                ctx.close_with(CloseCode::new(4000).unwrap(), "first");
                ctx.close_with(CloseCode::new(4001).unwrap(), "second");
            }
            "long" => ctx.close_with(CloseCode::POLICY, &"\u{20ac}".repeat(100)),
            "hub" => {
                let hub = self.hub.as_ref().ok_or("no hub")?;
                if hub.send(vec![1]).is_err() {
                    ctx.wait_for_room(hub);
                }
            }
            "flood" => drop(ctx.write_frame(vec![b'.'; 100_000])?),
            _ => {
                ctx.write_frame(frame)?;
            }
        }
        Ok(())
    }

    fn control(&mut self, control: Control<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.log.push(match control {
            Control::Pong(payload) => format!("pong {}", String::from_utf8_lossy(payload)),
            Control::Close { code, reason, .. } => format!("peer closes: {code:?} {reason}"),
            other => format!("{other:?}"),
        });
        Ok(())
    }
}

fn server() -> Server<Talk> {
    Server::new(|_| Ok(Talk::default()))
}

/// A stage behind the handshake.
fn open_with(options: Options, connection: ConnectionOptions) -> Stage<WebSocket<Talk>> {
    let server = server().options(options);
    let mut stage = Stage::with_options(server.accept(), connection);
    stage.receive(request("/", ""));
    assert_eq!(stage.output(), response());
    stage
}

fn open() -> Stage<WebSocket<Talk>> {
    open_with(Options::new(), ConnectionOptions::new())
}

/// What a server says to these bytes.
fn say(stage: &mut Stage<WebSocket<Talk>>, bytes: impl AsRef<[u8]>) -> Vec<(u8, Vec<u8>)> {
    stage.receive(bytes);
    served_frames(stage.output())
}

fn text(stage: &mut Stage<WebSocket<Talk>>, text: &str) -> Vec<(u8, Vec<u8>)> {
    say(stage, sent(TEXT, text))
}

fn a_text(text: &str) -> (u8, Vec<u8>) {
    (FIN | TEXT, text.into())
}

fn a_close(number: u16, reason: &str) -> (u8, Vec<u8>) {
    (FIN | CLOSE, code(number, reason))
}

fn log(stage: &Stage<WebSocket<Talk>>) -> Vec<String> {
    let actor = stage.actor();
    actor.actor().map_or(Vec::new(), |talk| talk.log.clone())
}

fn last(stage: &Stage<WebSocket<Talk>>) -> String {
    log(stage).last().cloned().unwrap_or_default()
}

// ---- the handshake of a server ------------------------------------------------------------------

#[test]
fn a_handshake_that_comes_byte_by_byte() {
    let mut stage = Stage::new(server().accept());
    for byte in request("/chat?room=1", "").bytes() {
        assert_eq!(stage.output(), "");
        stage.receive([byte]);
    }
    assert_eq!(stage.output(), response());
    assert_eq!(log(&stage), ["opened"]);
}

#[test]
fn frames_right_behind_the_handshake_are_taken() {
    let mut stage = Stage::new(server().accept());
    let mut bytes = request("/", "").into_bytes();
    bytes.extend(sent(TEXT, "early"));
    bytes.extend(&sent(TEXT, "cut")[..4]);
    stage.receive(bytes);
    let output = stage.output();
    let answer = output.strip_prefix(response().as_bytes()).unwrap();
    assert_eq!(served_frames(answer), [a_text("early")]);
    assert_eq!(say(&mut stage, &sent(TEXT, "cut")[4..]), [a_text("cut")]);
}

#[test]
fn bad_requests_are_answered_and_closed() {
    let good = request("/", "");
    let long = format!("X-Long: {}\r\n", "x".repeat(9000));
    let many = "X: y\r\n".repeat(70);
    for (bytes, status, header) in [
        ("hello\r\n\r\n".to_owned(), 400, ""),
        ("\u{16}\u{3}\u{1}\u{2}\0".to_owned(), 400, ""),
        (good.replace("GET", "POST"), 405, "\r\nAllow: GET\r\n"),
        (good.replace("GET", "PRI").replace("1.1", "2.0"), 400, ""),
        (good.replace("1.1", "1.0"), 505, ""),
        (good.replace("GET /", "GET http://test/"), 400, ""),
        (
            good.replace("Upgrade: websocket\r\n", ""),
            426,
            "\r\nUpgrade: websocket\r\n",
        ),
        (
            good.replace("Upgrade: websocket", "Upgrade: h2c"),
            426,
            "\r\nUpgrade: websocket\r\n",
        ),
        (
            good.replace("Connection: Upgrade", "Connection: close"),
            426,
            "\r\nUpgrade: websocket\r\n",
        ),
        (
            good.replace("Version: 13", "Version: 8"),
            426,
            "\r\nSec-WebSocket-Version: 13\r\n",
        ),
        (
            good.replace("Version: 13", "Version: 13, 8"),
            426,
            "\r\nSec-WebSocket-Version: 13\r\n",
        ),
        (good.replace("Sec-WebSocket-Version: 13\r\n", ""), 400, ""),
        (good.replace("Host: test\r\n", ""), 400, ""),
        (request("/", "Host: other\r\n"), 400, ""),
        (request("/", "Content-Length: 3\r\n"), 400, ""),
        (request("/", "Transfer-Encoding: chunked\r\n"), 400, ""),
        (good.replace(KEY, "short"), 400, ""),
        (good.replace(KEY, "dGhlIHNhbXBsZSBub25jZQ"), 400, ""),
        (good.replace(KEY, "!GhlIHNhbXBsZSBub25jZQ=="), 400, ""),
        (
            request("/", &format!("Sec-WebSocket-Key: {KEY}\r\n")),
            400,
            "",
        ),
        (request("/", "Sec-WebSocket-Protocol: a b\r\n"), 400, ""),
        (request("/", "Sec-WebSocket-Protocol: a,,b\r\n"), 400, ""),
        (request("/", &long), 431, ""),
        (request("/", &many), 431, ""),
        (good.replace("Host: test", "Host : test"), 400, ""),
        (good.replace("Host: test", "Host: te\0st"), 400, ""),
    ] {
        let mut stage = Stage::new(server().accept());
        stage.receive(&bytes);
        let answer = String::from_utf8(stage.output().to_vec()).unwrap();
        let line = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&line), "{bytes:?}: {answer}");
        assert!(
            answer.contains(header) && answer.contains("\r\nConnection: close"),
            "{answer}"
        );
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("\r\nContent-Length: {}", body.len())),
            "{answer}"
        );
        let Some(CloseReason::Error(error)) = stage.reason() else {
            panic!("{:?}", stage.reason());
        };
        assert_eq!(error.downcast_ref::<Refusal>().unwrap().status(), status);
        assert_eq!(stage.stats().upgrades_refused, 1);
        assert!(stage.actor().actor().is_none());
    }
}

#[test]
fn variants_of_the_handshake_that_are_right() {
    for bytes in [
        request(
            "/",
            "Origin: http://elsewhere\r\nCookie: a=b\r\nContent-Length: 0\r\n",
        ),
        request("/", "").replace("Upgrade: websocket", "upgrade: h2c, WebSocket"),
        request("/", "").replace("Connection: Upgrade", "CONNECTION: keep-alive,\tuPGRADE"),
        request("/", "").replace(
            "Connection: Upgrade",
            "Connection: keep-alive\r\nConnection: Upgrade",
        ),
        request(
            "/",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        ),
        request("/", "Sec-WebSocket-Protocol: chat\r\n"),
    ] {
        let mut stage = Stage::new(server().accept());
        stage.receive(bytes);
        assert_eq!(stage.output(), response());
    }
}

#[test]
fn who_comes_in_is_the_users_to_say() {
    let server = Server::new(|upgrade: &mut Upgrade<'_>| {
        assert!(matches!(upgrade.peer(), Some(Peer::Tcp(_))));
        assert_eq!(
            (upgrade.host(), upgrade.query()),
            (Some("test"), Some("a=b?c"))
        );
        match (upgrade.path(), upgrade.origin()) {
            ("/in", Some("https://here")) => {}
            ("/in", _) => return Err(Refusal::new(403).body("not from there")),
            ("/login", _) => return Err(Refusal::new(401).header("WWW-Authenticate", "Basic")?),
            ("/broken", _) => upgrade.add_header("X-Name", "a\r\nSet-Cookie: b=c")?,
            _ => return Err(Refusal::new(404)),
        }
        let names: Vec<&str> = upgrade.protocols().collect();
        assert_eq!(names, ["v1", "v3", "v2"]);
        assert_eq!(upgrade.choose_protocol(&["v4", "v2", "v1"]), Some("v2"));
        upgrade.add_header("X-Name", "value")?;
        Ok(Talk::default())
    });
    let more = "Sec-WebSocket-Protocol: v1, v3\r\nSec-WebSocket-Protocol:v2\r\n";
    let ask = |path: &str, more: String| {
        let mut stage = Stage::new(server.accept());
        stage.receive(request(&format!("{path}?a=b?c"), &more));
        String::from_utf8(stage.output().to_vec()).unwrap()
    };
    let answer = ask("/in", format!("{more}Origin: https://here\r\n"));
    let head = response().trim_end().to_owned();
    assert_eq!(
        answer,
        format!("{head}\r\nSec-WebSocket-Protocol: v2\r\nX-Name: value\r\n\r\n")
    );
    for (path, status) in [
        ("/in", "403 Forbidden\r\n"),
        ("/login", "401 Unauthorized\r\n"),
        ("/broken", "500 Internal Server Error\r\n"),
        ("/else", "404 Not Found\r\n"),
    ] {
        let answer = ask(path, more.to_owned());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(!answer.contains("Set-Cookie"));
        assert_eq!(
            answer.contains("WWW-Authenticate: Basic\r\n"),
            path == "/login"
        );
    }
}

#[test]
fn headers_with_line_breaks_are_refused() {
    use websocket::InvalidHeader;
    let refusal = || Refusal::new(401);
    for (name, value, error) in [
        ("X", "a\r\nb", InvalidHeader::Value),
        ("X", "a\nb", InvalidHeader::Value),
        ("X", "a\0", InvalidHeader::Value),
        ("X:", "a", InvalidHeader::Name),
        ("", "a", InvalidHeader::Name),
        ("X\r\nY", "a", InvalidHeader::Name),
        ("content-length", "5", InvalidHeader::Reserved),
        ("Sec-WebSocket-Accept", "x", InvalidHeader::Reserved),
    ] {
        assert_eq!(refusal().header(name, value).unwrap_err(), error);
        let request = Request::new("a", "/").unwrap();
        let refused = request.header(name, value).unwrap_err();
        assert_eq!(refused, websocket::InvalidRequest::Header(error));
    }
}

#[test]
fn a_handshake_has_a_deadline_and_messages_wait_for_it() {
    let mut late = Stage::new(server().accept());
    late.receive("GET / HTTP/1.1\r\n");
    late.advance(Duration::from_secs(10));
    assert!(late.output().starts_with(b"HTTP/1.1 408 "));
    assert!(matches!(late.reason(), Some(CloseReason::Error(_))));

    let mut waited = Stage::new(server().accept());
    waited.send(Say::Text("one"));
    waited.send(Say::Text("two"));
    waited.receive(request("/", ""));
    let output = waited.output();
    let answer = output.strip_prefix(response().as_bytes()).unwrap();
    assert_eq!(served_frames(answer), [a_text("one"), a_text("two")]);
    waited.advance(Duration::from_secs(11));
    assert!(waited.reason().is_none());

    let mut flooded = Stage::new(server().options(Options::new().held_max(3)).accept());
    for _ in 0..3 {
        flooded.send(Say::Text("x"));
    }
    assert!(flooded.reason().is_none());
    flooded.send(Say::Text("x"));
    let reason = flooded.reason().unwrap().to_string();
    assert_eq!(reason, "more than 3 messages before the handshake was over");

    let mut half = Stage::new(server().accept());
    half.receive("GET / HTTP");
    half.half_close();
    assert!(matches!(half.reason(), Some(CloseReason::PeerClosed)));
    assert_eq!(
        (half.output(), half.stats().upgrades_refused),
        ("".into(), 1)
    );

    let mut stopped = Stage::new(server().accept());
    stopped.stop(Duration::from_secs(1));
    assert!(matches!(stopped.reason(), Some(CloseReason::Finished)));
    assert_eq!(stopped.output(), "");
}

#[test]
fn a_panic_of_who_says_who_comes_in_ends_that_connection() {
    let server: Server<Talk> = Server::new(|_| panic!("out"));
    let mut stage = Stage::new(server.accept());
    catch_unwind(AssertUnwindSafe(|| stage.receive(request("/", "")))).unwrap_err();
    assert!(matches!(stage.reason(), Some(CloseReason::Panicked(_))));
    assert_eq!(stage.output(), "");
}

// ---- messages -----------------------------------------------------------------------------------

#[test]
fn messages_of_every_size_come_back_whole() {
    for len in [0, 1, 124, 125, 126, 127, 65_535, 65_536, 300_000] {
        let mut stage = open();
        let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        assert_eq!(
            say(&mut stage, sent(BINARY, &payload)),
            [(FIN | BINARY, payload)]
        );
        let payload = "\u{e4}\u{20ac}x".repeat(len / 6 + 1);
        assert_eq!(text(&mut stage, &payload), [a_text(&payload)]);
    }
}

#[test]
fn fragments_with_pings_between_them() {
    let mut stage = open();
    assert_eq!(say(&mut stage, sent_as(TEXT, "on")), []);
    assert_eq!(
        say(&mut stage, sent(PING, "1")),
        [(FIN | PONG, b"1".to_vec())]
    );
    assert_eq!(say(&mut stage, sent_as(CONTINUATION, "")), []);
    assert_eq!(say(&mut stage, sent_as(CONTINUATION, "e\u{20ac}")), []);
    assert_eq!(
        say(&mut stage, sent(PING, "")),
        [(FIN | PONG, b"".to_vec())]
    );
    assert_eq!(
        say(&mut stage, sent(CONTINUATION, "")),
        [a_text("one\u{20ac}")]
    );
    assert_eq!(text(&mut stage, "two"), [a_text("two")]);
}

#[test]
fn long_messages_leave_in_fragments_where_that_is_asked_for() {
    let mut stage = open_with(Options::new().fragment(4), ConnectionOptions::new());
    assert_eq!(text(&mut stage, "four"), [a_text("four")]);
    let parts = [
        (TEXT, b"nine".to_vec()),
        (CONTINUATION, b" byt".to_vec()),
        (FIN | CONTINUATION, b"e".to_vec()),
    ];
    assert_eq!(text(&mut stage, "nine byte"), parts);
    // A ping of the peer's is answered between messages, never within one.
    let both = [sent(TEXT, "12345678"), sent(PING, "?")].concat();
    assert_eq!(
        say(&mut stage, both),
        [
            (TEXT, b"1234".to_vec()),
            (FIN | CONTINUATION, b"5678".to_vec()),
            (FIN | PONG, b"?".to_vec())
        ]
    );
}

#[test]
fn the_rest_of_an_actors_life_is_as_anywhere() {
    let mut stage = open();
    assert_eq!(text(&mut stage, "timer"), []);
    stage.advance(Duration::from_millis(10));
    assert_eq!(served_frames(stage.output()), [a_text("timer")]);
    assert_eq!(text(&mut stage, "notify"), [a_text("notified")]);
    assert_eq!(last(&stage), "written 7");
    stage.send(Say::Text("from elsewhere"));
    assert_eq!(served_frames(stage.output()), [a_text("from elsewhere")]);
}

#[test]
fn who_pauses_is_shown_nothing_until_it_goes_on() {
    let mut stage = open();
    let bytes = [
        sent(TEXT, "pause"),
        sent(TEXT, "one"),
        sent(PING, "x"),
        sent(TEXT, "two"),
    ];
    assert_eq!(say(&mut stage, bytes.concat()), []);
    assert!(stage.is_paused());
    stage.send(Say::Resume);
    let answers = [a_text("one"), (FIN | PONG, b"x".to_vec()), a_text("two")];
    assert_eq!(served_frames(stage.output()), answers);
}

#[test]
fn who_waits_for_room_is_shown_nothing_meanwhile() {
    let mut hub = Probe::<Vec<u8>>::with_bound(2);
    let recipient = hub.recipient();
    let talk = Talk {
        hub: Some(recipient),
        ..Talk::default()
    };
    let mut stage = Stage::new(WebSocket::upgraded(Options::new(), talk));
    let bytes = [sent(TEXT, "hub").repeat(3), sent(TEXT, "after")].concat();
    assert_eq!(say(&mut stage, bytes), []);
    assert!(stage.is_waiting());
    assert_eq!(hub.take_all().len(), 2);
    stage.run();
    assert_eq!(
        served_frames(stage.output()),
        [a_text("room"), a_text("after")]
    );
}

#[test]
fn one_unchanged_actor_behind_lines_and_behind_a_websocket() {
    let mut lines = Stage::new(Framed::new(Lines::new(80), Talk::default()));
    lines.receive("hello\ntimer\n");
    lines.advance(Duration::from_millis(10));
    assert_eq!(lines.output(), "hello\ntimer\n");
    let mut stage = open();
    assert_eq!(text(&mut stage, "hello"), [a_text("hello")]);
    // But for what only a WebSocket has.
    let told = catch_unwind(AssertUnwindSafe(|| lines.receive("ping\n")));
    let told = told.unwrap_err();
    let told = told.downcast_ref::<String>().unwrap();
    assert!(
        told.ends_with("ping: this actor is not inside of a WebSocket"),
        "{told}"
    );
}

// ---- what Autobahn looks at ---------------------------------------------------------------------

/// What the peer sends, and all that it is answered; `None` for a code of which the text does not
/// matter.
fn check(name: &str, sent: &[Vec<u8>], answers: &[(u8, Vec<u8>)], end: Option<u16>) {
    // Whole, frame by frame, and byte by byte.
    let whole = sent.concat();
    let step = if whole.len() < 2000 { 1 } else { 997 };
    let bytes: Vec<Vec<u8>> = whole.chunks(step).map(<[u8]>::to_vec).collect();
    for pieces in [&[whole.clone()][..], sent, &bytes] {
        let mut stage = open();
        let mut came = Vec::new();
        for piece in pieces {
            stage.receive(piece);
            came.extend(stage.output());
        }
        let mut came = served_frames(came);
        if let Some(end) = end {
            let (first, payload) = came.pop().unwrap_or_default();
            assert_eq!(first, FIN | CLOSE, "{name}");
            assert_eq!(payload[..2], end.to_be_bytes(), "{name}");
            assert!(stage.reason().is_some() && stage.is_write_shut(), "{name}");
        } else {
            assert!(stage.reason().is_none(), "{name}");
        }
        assert_eq!(came, answers, "{name}");
    }
}

fn long_ping(len: usize) -> Vec<u8> {
    sent(PING, vec![0xfe; len])
}

#[test]
fn autobahn_2_pings_and_pongs() {
    let pong = |payload: &[u8]| (FIN | PONG, payload.to_vec());
    check("2.1", &[sent(PING, "")], &[pong(b"")], None);
    check(
        "2.3",
        &[sent(PING, b"\0\xff\xfe\xfd")],
        &[pong(b"\0\xff\xfe\xfd")],
        None,
    );
    check("2.4", &[long_ping(125)], &[pong(&[0xfe; 125])], None);
    let mut too_long = vec![FIN | PING, 0x80 | 126, 0, 126, 1, 2, 3, 4];
    too_long.extend([0; 126]);
    check("2.5", &[too_long], &[], Some(1002));
    check("2.7", &[sent(PONG, "")], &[], None);
    check("2.8", &[sent(PONG, "unsolicited")], &[], None);
    let many: Vec<Vec<u8>> = (0..10_u8).map(|n| sent(PING, [n])).collect();
    let answers: Vec<_> = (0..10_u8).map(|n| pong(&[n])).collect();
    check("2.10", &many, &answers, None);
}

#[test]
fn autobahn_3_and_4_reserved_bits_and_opcodes() {
    let hello = [sent(TEXT, "hello"), sent(PING, "")];
    let answers = [a_text("hello"), (FIN | PONG, b"".to_vec())];
    for bits in 1..8_u8 {
        for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
            let bad = sent_as(FIN | bits << 4 | opcode, "x");
            let all = [&hello[..], &[bad, sent(TEXT, "after")]].concat();
            check("3", &all, &answers, Some(1002));
        }
    }
    for opcode in (3..8).chain(11..16) {
        for payload in ["", "x"] {
            let bad = sent(opcode, payload);
            let all = [&hello[..], &[bad, sent(TEXT, "after")]].concat();
            check("4", &all, &answers, Some(1002));
        }
    }
}

#[test]
fn autobahn_5_fragments() {
    let part = |first: u8, payload: &str| sent_as(first, payload);
    check("5.1", &[part(PING, "a"), part(FIN, "b")], &[], Some(1002));
    check("5.2", &[part(PONG, "a"), part(FIN, "b")], &[], Some(1002));
    check(
        "5.3",
        &[part(TEXT, "a"), part(FIN, "b")],
        &[a_text("ab")],
        None,
    );
    let pong = (FIN | PONG, b"p".to_vec());
    let ping = sent(PING, "p");
    let all = [part(TEXT, "a"), ping.clone(), part(FIN, "b")];
    check("5.6", &all, &[pong.clone(), a_text("ab")], None);
    check("5.9", &[part(FIN, "x"), sent(TEXT, "y")], &[], Some(1002));
    check(
        "5.12",
        &[part(CONTINUATION, "x"), sent(TEXT, "y")],
        &[],
        Some(1002),
    );
    let again = [
        part(TEXT, "a"),
        part(FIN, "b"),
        part(FIN, "c"),
        sent(TEXT, "d"),
    ];
    check("5.15", &again, &[a_text("ab")], Some(1002));
    check("5.18", &[part(TEXT, "a"), part(TEXT, "b")], &[], Some(1002));
    let many = [
        part(TEXT, "1"),
        part(CONTINUATION, "2"),
        ping.clone(),
        part(CONTINUATION, "3"),
        part(CONTINUATION, "4"),
        ping,
        part(FIN, "5"),
    ];
    check("5.19", &many, &[pong.clone(), pong, a_text("12345")], None);
}

#[test]
fn autobahn_6_utf8_is_looked_at_while_it_comes() {
    let good =
        "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!\u{d7ff}\u{e000}\u{10ffff}";
    check("6.2", &[sent(TEXT, good)], &[a_text(good)], None);
    let bytes = good.as_bytes();
    let single: Vec<Vec<u8>> = (0..bytes.len())
        .map(|at| {
            let first = if at == 0 { TEXT } else { CONTINUATION };
            let fin = if at + 1 == bytes.len() { FIN } else { 0 };
            sent_as(fin | first, &bytes[at..=at])
        })
        .collect();
    check("6.2.4", &single, &[a_text(good)], None);
    for bad in [
        &b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited"[..],
        b"\xf4\x90\x80\x80",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\x80",
        b"\xff",
        b"\xed\xbf\xbf",
        b"\xe2\x82",
    ] {
        check("6.3", &[sent(TEXT, bad)], &[], Some(1007));
        let (start, end) = bad.split_at(bad.len() / 2);
        check(
            "6.3 in parts",
            &[sent_as(TEXT, start), sent(CONTINUATION, end)],
            &[],
            Some(1007),
        );
        // Any bytes go as binary.
        check(
            "binary",
            &[sent(BINARY, bad)],
            &[(FIN | BINARY, bad.to_vec())],
            None,
        );
    }
}

#[test]
fn autobahn_6_4_bad_utf8_ends_at_its_first_byte_that_none_can_mend() {
    let good = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";
    for (bad, at) in [
        (&b"\xf4\x90\x80\x80"[..], 1),
        (b"\xed\xa0\x80", 1),
        (b"\xff", 0),
    ] {
        // In fragments (6.4.1, 6.4.2), and within one frame (6.4.3, 6.4.4).
        for in_one in [false, true] {
            let mut stage = open();
            let payload = [&good[..], bad, b"rest"].concat();
            let framed = match in_one {
                true => sent(TEXT, &payload),
                false => [
                    sent_as(TEXT, good),
                    sent(CONTINUATION, &payload[good.len()..]),
                ]
                .concat(),
            };
            let end = framed.len() - (bad.len() - at - 1) - 4;
            stage.receive(&framed[..end - 1]);
            assert!(stage.reason().is_none(), "{bad:x?} {in_one}");
            stage.receive(&framed[end - 1..end]);
            let came = served_frames(stage.output());
            assert_eq!(
                came,
                [a_close(1007, "text that is not UTF-8")],
                "{bad:x?} {in_one}"
            );
        }
    }
}

#[test]
fn autobahn_7_closing() {
    let close = |payload: &[u8]| sent(CLOSE, payload);
    // 7.1.1: the peer's code comes back, and what follows is not looked at.
    for after in [
        vec![],
        sent(TEXT, "after"),
        sent(PING, ""),
        close(&code(1000, "")),
    ] {
        let all = [sent(TEXT, "hello"), close(&code(1000, "bye")), after];
        check("7.1", &all, &[a_text("hello")], Some(1000));
    }
    // 7.1.6: however much was under way.
    let large = "x".repeat(200_000);
    let all = [sent(TEXT, &large), close(&code(1000, ""))];
    check("7.1.6", &all, &[a_text(&large)], Some(1000));
    // 7.3.1: no code is answered with none.
    let mut stage = open();
    assert_eq!(say(&mut stage, close(b"")), [(FIN | CLOSE, vec![])]);
    assert!(log(&stage).contains(&"peer closes: None ".to_owned()));
    check("7.3.2", &[close(b"x")], &[], Some(1002));
    check(
        "7.3.5",
        &[close(&code(1000, &"x".repeat(123)))],
        &[],
        Some(1000),
    );
    let mut long = vec![FIN | CLOSE, 0x80 | 126, 0, 126, 0, 0, 0, 0];
    long.extend(code(1000, &"x".repeat(124)));
    check("7.3.6", &[long], &[], Some(1002));
    check(
        "7.5.1",
        &[close(b"\x03\xe8\xce\xba\xed\xa0\x80")],
        &[],
        Some(1007),
    );
    for number in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        check("7.7", &[close(&code(number, ""))], &[], Some(number));
    }
    for number in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        check("7.9", &[close(&code(number, ""))], &[], Some(1002));
    }
}

#[test]
fn frames_that_are_not_as_they_have_to_be() {
    check("unmasked", &[served(TEXT, "hello")], &[], Some(1002));
    let mut not_minimal = vec![FIN | TEXT, 0x80 | 126, 0, 5, 0, 0, 0, 0];
    not_minimal.extend(b"hello");
    check("16 bits for 5", &[not_minimal], &[], Some(1002));
    let mut not_minimal = vec![FIN | TEXT, 0x80 | 127, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    not_minimal.extend([b'x'; 256]);
    check("64 bits for 256", &[not_minimal], &[], Some(1002));
    let negative = vec![
        FIN | TEXT,
        0x80 | 127,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    check("64th bit", &[negative], &[], Some(1002));
}

// ---- limits -------------------------------------------------------------------------------------

/// The last that the peer is told.
#[track_caller]
fn assert_closed(stage: &mut Stage<WebSocket<Talk>>, number: u16, reason: &str) {
    let came = served_frames(stage.output());
    assert_eq!(came.last(), Some(&a_close(number, reason)), "{came:?}");
    assert!(stage.reason().is_some());
}

#[test]
fn messages_and_frames_past_their_limits() {
    let options = || Options::new().message_max(100).frame_max(60);
    let open = || open_with(options(), ConnectionOptions::new());
    let exactly = "x".repeat(60);
    assert_eq!(text(&mut open(), &exactly), [a_text(&exactly)]);
    let parts = [sent_as(TEXT, &exactly), sent(CONTINUATION, &exactly[..40])].concat();
    assert_eq!(say(&mut open(), parts), [a_text(&"x".repeat(100))]);

    // As soon as the header is there.
    let mut stage = open();
    stage.receive(&sent(BINARY, [0; 61])[..6]);
    assert_closed(&mut stage, 1009, "frame of 61 bytes where 60 may be");
    let mut stage = open();
    stage.receive(
        [
            sent_as(TEXT, &exactly),
            sent(CONTINUATION, &exactly)[..6].to_vec(),
        ]
        .concat(),
    );
    assert_closed(
        &mut stage,
        1009,
        "message of 120 bytes or more where 100 may be",
    );
    // No memory is taken for what is only announced.
    let mut stage = open_with(
        Options::new().message_max(usize::MAX).frame_max(usize::MAX),
        ConnectionOptions::new(),
    );
    stage.receive([
        FIN | BINARY,
        0xff,
        0x7f,
        0xff,
        0xff,
        0xff,
        0xff,
        0xff,
        0xff,
        0xff,
        1,
        2,
        3,
        4,
    ]);
    assert!(stage.reason().is_none());
    // Fragments of a message may have so many bytes together, not one each.
    let mut stage = open();
    stage.receive(sent_as(TEXT, ""));
    for _ in 0..100 {
        stage.receive(sent_as(CONTINUATION, "x"));
    }
    assert!(stage.reason().is_none());
    stage.receive(sent_as(CONTINUATION, "x"));
    assert_closed(
        &mut stage,
        1009,
        "message of 101 bytes or more where 100 may be",
    );
}

#[test]
fn what_has_come_of_a_message_counts_as_kept_input() {
    let options = ConnectionOptions::new().input_max(1000);
    let mut stage = open_with(Options::new(), options);
    let framed = sent(TEXT, "x".repeat(2000));
    stage.receive(&framed[..900]);
    assert!(stage.reason().is_none());
    stage.receive(&framed[900..1200]);
    assert!(matches!(
        stage.reason(),
        Some(CloseReason::InputTooLong { limit: 1000, .. })
    ));
    assert_closed(&mut stage, 1009, "");

    let options = ConnectionOptions::new().incomplete_timeout(Duration::from_secs(1));
    for began in [
        sent_as(TEXT, ""),
        sent_as(TEXT, "half"),
        sent(TEXT, "half")[..8].to_vec(),
        sent(TEXT, "x")[..3].to_vec(),
    ] {
        let mut stage = open_with(Options::new(), options.clone());
        stage.receive(&began);
        stage.advance(Duration::from_millis(999));
        assert!(stage.reason().is_none(), "{began:x?}");
        stage.advance(Duration::from_millis(1));
        assert!(
            matches!(stage.reason(), Some(CloseReason::SlowSender { .. })),
            "{began:x?}"
        );
        assert_closed(&mut stage, 1008, "");
    }
    // Between messages there is nothing to be waited for.
    let mut stage = open_with(Options::new(), options);
    text(&mut stage, "whole");
    stage.advance(Duration::from_secs(100));
    assert!(stage.reason().is_none());
}

// ---- pings --------------------------------------------------------------------------------------

#[test]
fn pings_of_ones_own_are_told_when_they_are_answered() {
    let mut stage = open();
    let ping = (FIN | PING, b"are you there?".to_vec());
    assert_eq!(text(&mut stage, "ping"), [ping]);
    assert_eq!(say(&mut stage, sent(PONG, "are you there?")), []);
    assert_eq!(last(&stage), "pong are you there?");
}

#[test]
fn of_a_flood_of_pings_the_latest_alone_waits_for_a_peer_that_does_not_read() {
    let mut stage = open();
    stage.stall();
    for n in 0..3000_u32 {
        stage.receive(sent(PING, [&[b'.'; 100][..], &n.to_be_bytes()].concat()));
        // The high watermark is 64 KiB, and one read at most as much.
        assert!(stage.queued() < 130 << 10, "{} bytes wait", stage.queued());
    }
    let queued = stage.queued();
    assert!(queued >= 64 << 10, "it has to come to that: {queued}");
    stage.receive(sent(PING, "the last"));
    assert_eq!(stage.queued(), queued);
    stage.unstall();
    let came = served_frames(stage.output());
    assert!(came.iter().all(|(first, _)| *first == FIN | PONG));
    assert_eq!(came.last().unwrap().1, b"the last");
    // From there on as before.
    assert_eq!(
        say(&mut stage, sent(PING, "1")),
        [(FIN | PONG, b"1".to_vec())]
    );
}

#[test]
fn who_has_nothing_to_say_is_asked_and_closed_where_nothing_comes() {
    let (every, within) = (Duration::from_secs(30), Duration::from_secs(10));
    let options = || Options::new().ping_every(every, within);
    let ping = || vec![(FIN | PING, vec![])];
    // Whatever comes is an answer, if only a part of a frame.
    for answer in [
        sent(PONG, ""),
        sent(TEXT, "x"),
        sent(PING, "x"),
        sent(TEXT, "x")[..3].to_vec(),
    ] {
        let mut stage = open_with(options(), ConnectionOptions::new());
        stage.advance(every - Duration::from_millis(1));
        assert_eq!(served_frames(stage.output()), []);
        stage.advance(Duration::from_millis(1));
        assert_eq!(served_frames(stage.output()), ping());
        stage.advance(within - Duration::from_millis(1));
        stage.receive(&answer);
        stage.output();
        stage.advance(Duration::from_millis(1));
        assert!(stage.reason().is_none());
        // The next comes `every` after the one before.
        stage.advance(every - within);
        assert_eq!(served_frames(stage.output()), ping());
    }

    let mut stage = open_with(options(), ConnectionOptions::new());
    stage.advance(every);
    stage.receive(sent(PONG, ""));
    stage.advance(every);
    assert_eq!(served_frames(stage.output()), [ping(), ping()].concat());
    stage.advance(within);
    assert!(matches!(stage.reason(), Some(CloseReason::Error(_))));
    assert_closed(&mut stage, 1011, "no answer to a ping for 10s");

    // Not one of whom nothing is read.
    let mut stage = open_with(options(), ConnectionOptions::new());
    text(&mut stage, "pause");
    stage.advance(10 * every);
    assert!(stage.reason().is_none());
    assert_eq!(served_frames(stage.output()), []);
    stage.send(Say::Resume);
    stage.advance(every);
    assert_eq!(served_frames(stage.output()), ping());
    // One that is asked, and then not read.
    text(&mut stage, "pause");
    stage.advance(10 * within);
    assert!(stage.reason().is_none());
    stage.send(Say::Resume);
    stage.advance(2 * every);
    assert!(stage.reason().is_some());

    // Nor one for whom output waits, which has its own time.
    let connection = ConnectionOptions::new().stuck_timeout(every + within + within);
    let mut stage = open_with(options(), connection);
    stage.stall();
    text(&mut stage, "waits");
    stage.advance(every + within);
    assert!(stage.reason().is_none());
    stage.advance(within);
    assert!(matches!(
        stage.reason(),
        Some(CloseReason::StuckReader { .. })
    ));
}

// ---- backpressure -------------------------------------------------------------------------------

#[test]
fn slow_readers_are_held_by_the_rules_of_their_connection() {
    let mut stage = open();
    stage.stall();
    stage.receive(sent(TEXT, "flood"));
    assert_eq!(stage.queued(), 100_010);
    stage.unstall();
    assert_eq!(
        served_frames(stage.output()),
        [(FIN | BINARY, vec![b'.'; 100_000])]
    );
    assert_eq!(last(&stage), "drained");

    let connection = ConnectionOptions::new().output_max(150_000);
    let mut stage = open_with(Options::new(), connection.clone());
    stage.stall();
    stage.receive([sent(TEXT, "flood"), sent(TEXT, "flood")].concat());
    assert!(matches!(
        stage.reason(),
        Some(CloseReason::SlowReader { .. })
    ));

    // What is dropped is a message, never a part of one.
    let connection = connection.slow_reader(SlowReader::DropNewest);
    let mut stage = open_with(Options::new().fragment(30_000), connection);
    stage.stall();
    stage.receive([sent(TEXT, "flood"), sent(TEXT, "flood"), sent(TEXT, "next")].concat());
    stage.unstall();
    let came = served_frames(stage.output());
    let sizes: Vec<_> = came
        .iter()
        .map(|(first, payload)| (*first, payload.len()))
        .collect();
    let flood = [
        (BINARY, 30_000),
        (CONTINUATION, 30_000),
        (CONTINUATION, 30_000),
        (FIN | CONTINUATION, 10_000),
    ];
    assert_eq!(sizes, [&flood[..], &[(FIN | TEXT, 4)]].concat());
    assert_eq!(stage.stats().dropped_writes, 1);
}

/// Has more to say at once than may wait.
struct Eager;

impl Actor for Eager {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        for n in 0..30_u8 {
            ctx.write_frame(&[n; 100])?;
        }
        Ok(())
    }
}

impl FrameActor for Eager {
    fn frame(&mut self, _frame: Frame<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}

/// Lets everybody be eager.
struct Site;

impl Actor for Site {
    type Message = ();
}

impl Service for Site {
    type Upgraded = WebSocket<Eager>;

    fn request(
        &mut self,
        request: http::Request<'_>,
        responder: Responder<Self>,
        _ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        let upgrade = request.websocket()?;
        responder.upgrade(&upgrade, || WebSocket::upgraded(Options::new(), Eager));
        Ok(())
    }
}

#[test]
fn the_answer_to_a_handshake_is_not_dropped_for_what_follows_it() {
    fn check<A: Actor>(actor: A, max: usize) {
        let connection = ConnectionOptions::new()
            .output_max(max)
            .slow_reader(SlowReader::DropOldest);
        let mut stage = Stage::with_options(actor, connection);
        stage.receive(request("/", ""));
        let output = stage.output();
        let frames = output.strip_prefix(response().as_bytes());
        let frames = served_frames(frames.expect("the answer comes first"));
        // The newest of them.
        assert!(!frames.is_empty());
        let dropped = 30 - frames.len();
        for (at, frame) in frames.iter().enumerate() {
            assert_eq!(frame.1, [(dropped + at) as u8; 100]);
        }
        assert_eq!(stage.stats().dropped_writes, dropped as u64);
    }
    for max in [1_000, 2_000, 5_000] {
        check(Server::new(|_| Ok(Eager)).accept(), max);
        check(Http::new(Site), max);
    }
}

#[test]
fn a_frame_for_many_is_built_once() {
    let said = SharedFrame::text("x".repeat(10_000));
    let payload = said.bytes().as_ptr();
    let mut outputs = Vec::new();
    for fragment in [usize::MAX, usize::MAX, 4_000, 4_000] {
        let mut stage = open_with(Options::new().fragment(fragment), ConnectionOptions::new());
        stage.stall();
        stage.send(Say::Shared(said.clone()));
        stage.unstall();
        outputs.push(stage.output());
    }
    assert_eq!(served_frames(&outputs[0]), [a_text(&"x".repeat(10_000))]);
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(frames(&outputs[2]).len(), 3);
    assert_eq!(outputs[2], outputs[3]);
    assert_eq!(said.bytes().as_ptr(), payload);
}

// ---- the end ------------------------------------------------------------------------------------

#[test]
fn each_end_has_its_code() {
    for (command, number, reason, end) in [
        ("close", 1000, "", "finished"),
        ("close 4000", 4000, "enough", "finished"),
        ("close twice", 4000, "first", "finished"),
        ("long", 1008, &"\u{20ac}".repeat(41), "finished"),
        ("fail", 1011, "", "told to"),
    ] {
        let mut stage = open();
        let bytes = [
            sent(TEXT, "first"),
            sent(TEXT, command),
            sent(TEXT, "lost"),
            sent(PING, ""),
        ];
        assert_eq!(
            say(&mut stage, bytes.concat()),
            [a_text("first"), a_close(number, reason)]
        );
        assert!(stage.is_write_shut() && !stage.is_reset(), "{command}");
        assert_eq!(
            log(&stage)[1..],
            [format!("closing: {end}"), format!("closed: {end}")]
        );
    }
    let mut stage = open();
    stage.stop(Duration::from_secs(1));
    assert_eq!(
        served_frames(stage.output()),
        [a_text("stopping"), a_close(1001, "")]
    );

    let mut stage = open_with(
        Options::new(),
        ConnectionOptions::new().idle_timeout(Duration::from_secs(9)),
    );
    stage.advance(Duration::from_secs(9));
    assert_eq!(served_frames(stage.output()), [a_close(1001, "")]);
    assert!(matches!(stage.reason(), Some(CloseReason::Idle(_))));

    let mut stage = open();
    stage.addr().close();
    stage.run();
    assert_eq!(served_frames(stage.output()), [a_close(1000, "")]);
}

#[test]
fn a_close_frame_for_which_there_is_no_room_is_left_out_whole() {
    let connection = ConnectionOptions::new().output_max(100_012);
    let mut stage = open_with(Options::new(), connection);
    stage.stall();
    stage.receive(sent(TEXT, "flood"));
    assert_eq!(stage.queued(), 100_010);
    stage.addr().close();
    stage.run();
    stage.unstall();
    assert_eq!(
        served_frames(stage.output()),
        [(FIN | BINARY, vec![b'.'; 100_000])]
    );
    assert!(stage.is_write_shut() && !stage.is_reset());
}

#[test]
fn an_abort_and_a_panic_leave_without_a_word() {
    let mut stage = open();
    assert_eq!(text(&mut stage, "abort"), []);
    assert!(stage.is_reset());
    assert_eq!(last(&stage), "closed: aborted");
    let mut stage = open();
    catch_unwind(AssertUnwindSafe(|| text(&mut stage, "panic"))).unwrap_err();
    assert_eq!(last(&stage), "closed: a callback panicked: told to");
    assert_eq!(stage.output(), "");
}

#[test]
fn the_peers_close_is_told_and_answered() {
    let mut stage = open();
    assert_eq!(
        say(&mut stage, sent(CLOSE, code(4321, "enough"))),
        [a_close(4321, "")]
    );
    assert!(stage.is_write_shut());
    assert_eq!(
        log(&stage)[1..],
        [
            "peer closes: Some(4321) enough",
            "closing: closed by the peer",
            "closed: closed by the peer"
        ]
    );
    assert!(matches!(stage.reason(), Some(CloseReason::PeerClosed)));
}

#[test]
fn an_actor_may_have_the_last_word() {
    let mut stage = open();
    assert_eq!(text(&mut stage, "polite"), []);
    stage.addr().close();
    stage.run();
    assert_eq!(
        served_frames(stage.output()),
        [a_text("goodbye"), a_close(4001, "polite")]
    );
}

#[test]
fn a_stream_that_ends_without_a_close() {
    let mut stage = open();
    stage.half_close();
    assert_eq!(served_frames(stage.output()), [a_close(1000, "")]);
    assert!(matches!(stage.reason(), Some(CloseReason::PeerClosed)));
    assert_eq!(log(&stage)[1], "read closed");
    for half in [
        sent_as(TEXT, ""),
        sent(TEXT, "half")[..8].to_vec(),
        sent(TEXT, "x")[..1].to_vec(),
        sent(PING, "x")[..6].to_vec(),
    ] {
        let mut stage = open();
        stage.receive(half);
        stage.half_close();
        let reason = "the stream ended within a message";
        assert_closed(&mut stage, 1002, reason);
        assert_eq!(last(&stage), format!("closed: {reason}"));
    }
    let mut stage = open();
    stage.reset();
    assert!(matches!(stage.reason(), Some(CloseReason::Reset)));
}

#[test]
fn to_shut_down_writing_says_close_and_reads_on() {
    let mut stage = open();
    let bytes = [sent(TEXT, "one"), sent(TEXT, "shut")].concat();
    assert_eq!(say(&mut stage, bytes), [a_text("one"), a_close(1000, "")]);
    assert!(stage.is_write_shut() && stage.is_reading() && stage.reason().is_none());
    // Nothing can be answered any more; the peer's close is the end.
    assert_eq!(say(&mut stage, sent(PING, "x")), []);
    assert_eq!(say(&mut stage, sent(CLOSE, code(1000, "me too"))), []);
    assert!(matches!(stage.reason(), Some(CloseReason::PeerClosed)));
    assert!(log(&stage).contains(&"peer closes: Some(1000) me too".to_owned()));

    let mut stage = open();
    assert_eq!(text(&mut stage, "shut and ping"), [a_close(1000, "")]);
}

// ---- a client -----------------------------------------------------------------------------------

/// The key that a client asked with, and all it asked.
fn asked(stage: &mut Stage<WebSocket<Talk>>) -> (String, String) {
    let asked = String::from_utf8(stage.output().to_vec()).unwrap();
    let (_, key) = asked.split_once("\r\nSec-WebSocket-Key: ").unwrap();
    (key.split_once("\r\n").unwrap().0.to_owned(), asked)
}

/// What a server answers to this key: the crate's own, which the tests above have looked at.
fn answer(key: &str) -> String {
    let bytes = request("/", "").replace(KEY, key);
    let mut stage = Stage::new(server().accept());
    stage.receive(bytes);
    String::from_utf8(stage.output().to_vec()).unwrap()
}

fn client() -> WebSocket<Talk> {
    let request = Request::new("test:8080", "/chat?room=1").unwrap();
    let request = request.protocol("v2").unwrap().protocol("v1").unwrap();
    let request = request.header("Authorization", "Bearer 1").unwrap();
    WebSocket::client(request, Talk::default())
}

/// A client behind the handshake.
fn open_client() -> Stage<WebSocket<Talk>> {
    let mut stage = Stage::new(client());
    let (key, _) = asked(&mut stage);
    stage.receive(answer(&key));
    assert_eq!(log(&stage), ["opened"]);
    stage
}

/// What a client says: each frame has a mask.
#[track_caller]
fn client_frames(stage: &mut Stage<WebSocket<Talk>>) -> Vec<(u8, Vec<u8>)> {
    let masked = |came: Came| {
        assert!(came.mask.is_some(), "{came:?}");
        (came.first, came.payload)
    };
    frames(stage.output()).into_iter().map(masked).collect()
}

#[test]
fn a_client_asks_and_is_let_in() {
    let mut stage = Stage::new(client().on_answer(|talk, answer| {
        let protocol = answer.protocol().unwrap_or("none");
        let header = String::from_utf8_lossy(answer.header("x-name").unwrap());
        talk.log.push(format!("{protocol} {header}"));
        Ok(())
    }));
    stage.send(Say::Text("early"));
    let (key, request) = asked(&mut stage);
    assert_eq!(
        request,
        format!(
            "GET /chat?room=1 HTTP/1.1\r\nHost: test:8080\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: v2, v1\r\nAuthorization: Bearer 1\r\n\r\n"
        )
    );
    let added = "Sec-WebSocket-Protocol: v1\r\nX-Name: value\r\n\r\n";
    let answer = answer(&key).replace("\r\n\r\n", &format!("\r\n{added}"));
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    // With a message right behind it, byte by byte.
    let all = [
        interim.as_bytes(),
        answer.as_bytes(),
        &served(TEXT, "hello"),
    ]
    .concat();
    for byte in all {
        stage.receive([byte]);
    }
    assert_eq!(log(&stage), ["v1 value", "opened"]);
    assert_eq!(
        client_frames(&mut stage),
        [a_text("early"), a_text("hello")]
    );
    stage.advance(Duration::from_secs(11));
    assert!(stage.reason().is_none());
}

#[test]
fn a_client_is_told_why_it_is_not_let_in() {
    let refused = |status, reason: &str| ClientError::Refused {
        status,
        reason: reason.into(),
    };
    let replace = |from: &'static str, to: &'static str| move |good: &str| good.replace(from, to);
    let with = |more: &'static str| {
        move |good: &str| good.replace("\r\n\r\n", &format!("\r\n{more}\r\n\r\n"))
    };
    let is = |all: &'static str| move |_: &str| all.to_owned();
    type Made = Box<dyn Fn(&str) -> String>;
    let cases: Vec<(Made, Result<ClientError, &str>)> = vec![
        (
            Box::new(is("HTTP/1.1 401 Log in\r\n\r\n")),
            Ok(refused(401, "Log in")),
        ),
        (
            Box::new(is("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
            Ok(refused(200, "OK")),
        ),
        (
            Box::new(is("HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n")),
            Ok(refused(302, "Found")),
        ),
        (
            Box::new(is("HTTP/1.0 101 Switching\r\n\r\n")),
            Ok(refused(101, "Switching")),
        ),
        (
            Box::new(is("220 mail ESMTP\r\n")),
            Ok(ClientError::Malformed),
        ),
        (
            Box::new(replace("Upgrade: websocket", "Upgrade: h2c")),
            Ok(ClientError::Header("Upgrade")),
        ),
        (
            Box::new(replace("Upgrade: websocket\r\n", "")),
            Ok(ClientError::Header("Upgrade")),
        ),
        (
            Box::new(replace("Connection: Upgrade", "Connection: close")),
            Ok(ClientError::Header("Connection")),
        ),
        (
            Box::new(replace("=\r\n", "A=\r\n")),
            Ok(ClientError::Header("Sec-WebSocket-Accept")),
        ),
        (
            Box::new(with("Sec-WebSocket-Accept: x")),
            Ok(ClientError::Header("Sec-WebSocket-Accept")),
        ),
        (
            Box::new(with("Sec-WebSocket-Protocol: v3")),
            Ok(ClientError::Header("Sec-WebSocket-Protocol")),
        ),
        (
            Box::new(with("Sec-WebSocket-Protocol: v1, v2")),
            Ok(ClientError::Header("Sec-WebSocket-Protocol")),
        ),
        (
            Box::new(with("Sec-WebSocket-Extensions: permessage-deflate")),
            Ok(ClientError::Header("Sec-WebSocket-Extensions")),
        ),
        (
            Box::new(|_| format!("HTTP/1.1 101 x\r\nX: {}", "x".repeat(9000))),
            Err("websocket: an answer of more than 8192 bytes or 64 headers"),
        ),
    ];
    for (made, error) in cases {
        let mut stage = Stage::new(client());
        let (key, _) = asked(&mut stage);
        stage.receive(made(&answer(&key)));
        let Some(CloseReason::Error(told)) = stage.reason() else {
            panic!("{error:?}: {:?}", stage.reason());
        };
        let told: &ClientError = told.downcast_ref().unwrap();
        let error = match error {
            Ok(error) => {
                assert_eq!(*told, error);
                error.to_string()
            }
            Err(text) => text.to_owned(),
        };
        // It was never opened, and no frame is sent to who speaks something else.
        assert_eq!(log(&stage), [format!("closed: {error}")]);
        assert_eq!(
            (stage.output(), stage.stats().upgrades_refused),
            ("".into(), 1)
        );
    }
    let mut late = Stage::new(client());
    late.advance(Duration::from_secs(10));
    assert_eq!(log(&late), ["closed: websocket: no answer in time"]);
    let mut ended = Stage::new(client());
    ended.receive("HTTP/1.1 101");
    ended.half_close();
    assert_eq!(
        log(&ended),
        ["closed: websocket: the connection ended before an answer"]
    );
    let mut picky = Stage::new(client().on_answer(|_, answer| {
        answer.protocol().ok_or("no protocol")?;
        Ok(())
    }));
    let (key, _) = asked(&mut picky);
    picky.receive(answer(&key));
    assert_eq!(log(&picky), ["closed: no protocol"]);
}

#[test]
fn requests_that_cannot_be_sent() {
    use websocket::InvalidRequest;
    for (host, target, error) in [
        ("", "/", InvalidRequest::Host),
        ("a b", "/", InvalidRequest::Host),
        ("a\r\nX: y", "/", InvalidRequest::Host),
        ("a/b", "/", InvalidRequest::Host),
        ("a", "", InvalidRequest::Target),
        ("a", "b", InvalidRequest::Target),
        ("a", "/ HTTP/1.1", InvalidRequest::Target),
        ("a", "/\r\n", InvalidRequest::Target),
        ("a", "/#b", InvalidRequest::Target),
    ] {
        assert_eq!(Request::new(host, target).unwrap_err(), error);
    }
    let request = Request::new("[::1]:80", "/")
        .unwrap()
        .protocol("a")
        .unwrap();
    for name in ["", "a b", "a,b", "a"] {
        assert_eq!(
            request.clone().protocol(name).unwrap_err(),
            InvalidRequest::Protocol
        );
    }
}

#[test]
fn a_clients_masks_are_its_frames_own() {
    let mut stage = open_client();
    let said = SharedFrame::text("said to many");
    for _ in 0..100 {
        stage.send(Say::Shared(said.clone()));
    }
    let came = frames(stage.output());
    assert!(came.iter().all(|came| came.payload == b"said to many"));
    let mut masks: Vec<_> = came.iter().map(|came| came.mask.unwrap()).collect();
    masks.sort_unstable();
    masks.dedup();
    assert_eq!(masks.len(), 100);
}

#[test]
fn a_client_takes_what_a_server_sends_and_nothing_masked() {
    let mut stage = open_client();
    let large = "x".repeat(100_000);
    let framed = served(TEXT, &large);
    stage.receive(&framed[..50_000]);
    stage.receive(&framed[50_000..]);
    stage.receive(
        [
            served(PING, "?"),
            frame(TEXT, None, b"a"),
            served(CONTINUATION, "b"),
        ]
        .concat(),
    );
    let answers = [a_text(&large), (FIN | PONG, b"?".to_vec()), a_text("ab")];
    assert_eq!(client_frames(&mut stage), answers);
    stage.receive(sent(TEXT, "masked"));
    assert_eq!(
        client_frames(&mut stage),
        [a_close(1002, "frame of a server with a mask")]
    );
}

#[test]
fn a_client_leaves_it_to_the_server_to_end_the_stream() {
    // Whoever closes first.
    let mut ours = open_client();
    ours.receive(served(TEXT, "close"));
    let mut theirs = open_client();
    theirs.receive(served(CLOSE, code(1000, "")));
    for (stage, end) in [(&mut ours, "finished"), (&mut theirs, "closed by the peer")] {
        assert_eq!(client_frames(stage), [a_close(1000, "")]);
        assert_eq!(last(stage), format!("closed: {end}"));
        assert!(!stage.is_write_shut() && stage.is_connected(), "{end}");
        stage.receive(served(CLOSE, code(1000, "")));
        stage.half_close();
        assert!(!stage.is_connected() && !stage.is_reset(), "{end}");
    }
    // For so long, and no longer.
    let mut left = open_client();
    left.receive(served(TEXT, "close"));
    left.advance(Duration::from_secs(4));
    assert!(left.is_connected());
    left.advance(Duration::from_secs(1));
    assert!(!left.is_connected());
}

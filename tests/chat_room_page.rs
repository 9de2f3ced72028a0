//! The chat room's page: what its port answers, and browsers' connections beside those of terminals.
//! (What the page makes of it is shown in a browser: `.ci/browser`.)

#[path = "util/process.rs"]
mod process;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use greenroom::protocol::{Control, Frame, FrameActor, Framed, Lines};
use greenroom::websocket::{Request, WebSocket};
use greenroom::{Actor, Addr, CloseReason, ConnectOptions, Context, Outcome, System, tls};
use process::{DEADLINE, Example, Talker};
use serde_json::Value;

/// Lines that the server keeps of a room.
const KEPT: u64 = 200;

fn chat_room() -> Example {
    Example::start(
        "chat_room",
        &["--pollers", "2", "--http", "127.0.0.1:0", "--rate", "0"],
    )
}

/// Where the page is.
fn page(chat: &Example) -> SocketAddr {
    let (_, rest) = chat.start_line.split_once("://").expect("it says where");
    let end = rest.find(' ').unwrap_or(rest.len());
    rest[..end].parse().expect("an address")
}

/// The answer to a request, as text.
fn answer(chat: &Example, request: &str) -> String {
    let mut stream = TcpStream::connect(page(chat)).expect("it accepts");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("it can be set");
    stream.write_all(request.as_bytes()).expect("it takes it");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an orderly end");
    answer
}

fn get(chat: &Example, path: &str) -> String {
    let host = page(chat);
    answer(
        chat,
        &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    )
}

/// A browser's request for a WebSocket, with this further header.
fn asks(chat: &Example, header: &str) -> String {
    let host = page(chat);
    format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n\r\n"
    )
}

// ---- a browser without a page -------------------------------------------------------------------

/// Tells the test what it hears, and says what it is told to.
struct Tap {
    heard: Sender<Heard>,
}

#[derive(Debug, PartialEq)]
enum Heard {
    Event(Value),
    /// The code of the server's Close frame.
    Close(Option<u16>),
    Closed(&'static str),
}

impl Actor for Tap {
    type Message = String;

    fn message(&mut self, line: String, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame(line)?;
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        let _ = self.heard.send(Heard::Closed(reason.name()));
    }
}

impl FrameActor for Tap {
    fn frame(&mut self, frame: Frame<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        let event = serde_json::from_str(frame.text()?)?;
        let _ = self.heard.send(Heard::Event(event));
        Ok(())
    }

    fn control(&mut self, control: Control<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        if let Control::Close { code, .. } = control {
            let _ = self.heard.send(Heard::Close(code));
        }
        Ok(())
    }
}

/// Trusts the certificate that the start line names, if it names one.
fn options(chat: &Example) -> ConnectOptions {
    let Some((_, rest)) = chat.start_line.split_once("-CAfile ") else {
        return ConnectOptions::default();
    };
    let file = rest.split(' ').next().expect("a path");
    let roots = tls::Roots::from_file(file).expect("certificates");
    let client = tls::Client::builder().roots(roots).build();
    ConnectOptions::default().tls(client.expect("all is there"))
}

/// Somebody at a terminal, who tells the test every line.
struct Terminal {
    heard: Sender<String>,
}

impl Actor for Terminal {
    type Message = String;

    fn message(&mut self, line: String, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame(line)?;
        Ok(())
    }
}

impl FrameActor for Terminal {
    fn frame(&mut self, line: Frame<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = self.heard.send(line.text()?.to_owned());
        Ok(())
    }
}

struct Browser {
    addr: Addr<WebSocket<Tap>>,
    heard: Receiver<Heard>,
    _system: System,
}

impl Browser {
    fn connect(chat: &Example) -> Browser {
        let system = System::builder().pollers(1).build().expect("it starts");
        let (sender, heard) = channel();
        let host = page(chat);
        let request = Request::new(&host.to_string(), "/ws").expect("a good one");
        let addr = system.connect_with(host, options(chat), move || {
            WebSocket::client(request, Tap { heard: sender })
        });
        Browser {
            addr,
            heard,
            _system: system,
        }
    }

    /// In a room, told what was said there since, and that it has joined.
    fn enter(chat: &Example, name: &str, room: &str, since: &str) -> (Browser, Value) {
        let browser = Browser::connect(chat);
        browser.say(format!("/join {room} {since}"));
        browser.say(format!("/nick {name}"));
        let entered = browser.until("entered");
        (browser, entered)
    }

    fn say(&self, line: impl Into<String>) {
        self.addr.send(line.into()).expect("it is there");
    }

    #[track_caller]
    fn next(&self) -> Heard {
        let heard = self.heard.recv_timeout(DEADLINE);
        heard.expect("something is heard")
    }

    #[track_caller]
    fn event(&self) -> Value {
        match self.next() {
            Heard::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    /// The next event of this type, past all others.
    #[track_caller]
    fn until(&self, kind: &str) -> Value {
        loop {
            let event = self.event();
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// The next event, without what no test can know.
    #[track_caller]
    fn expect(&self, mut expected: Value) {
        let event = self.event();
        for field in ["at", "epoch"] {
            if let Some(value) = event.get(field) {
                expected[field] = value.clone();
            }
        }
        assert_eq!(event, expected);
    }
}

fn line(id: u64, from: &str, text: &str) -> Value {
    serde_json::json!({ "type": "line", "id": id, "from": from, "text": text })
}

fn joined(name: &str, room: &str) -> Value {
    serde_json::json!({ "type": "joined", "name": name, "room": room })
}

/// A talker by lines, in the lobby.
fn terminal(chat: &Example, name: &str) -> Talker<TcpStream> {
    let mut talker = chat.connect();
    talker.say(name);
    talker.lines_until(&format!("* {name} has joined lobby"));
    talker
}

// ---- the tests ----------------------------------------------------------------------------------

#[test]
fn the_files_of_the_page_come_with_headers_that_shut_all_else_out() {
    let chat = chat_room();
    let files = [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/?from=here", "text/html; charset=utf-8", "<!doctype html>"),
        (
            "/chat.css",
            "text/css; charset=utf-8",
            "prefers-color-scheme",
        ),
        (
            "/chat.js",
            "text/javascript; charset=utf-8",
            "./connection.js",
        ),
        (
            "/connection.js",
            "text/javascript; charset=utf-8",
            "export class",
        ),
        ("/log.js", "text/javascript; charset=utf-8", "export class"),
        ("/icon.svg", "image/svg+xml", "<svg"),
    ];
    let shut = [
        "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
         img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'\r\n",
        "X-Content-Type-Options: nosniff\r\n",
        "Cache-Control: no-store\r\n",
        "Referrer-Policy: no-referrer\r\n",
    ];
    for (path, kind, content) in files {
        let answer = get(&chat, path);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let head = format!("{head}\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
        assert!(
            head.contains(&format!("Content-Type: {kind}\r\n")),
            "{head}"
        );
        assert!(body.contains(content), "{path}");
        for header in shut {
            assert!(head.contains(header), "{path}: {header} is not in {head}");
        }
    }
    let host = page(&chat);
    for (request, status) in [
        ("GET /main.rs", 404),
        ("GET /../main.rs", 404),
        ("GET /page/chat.js", 404),
        ("POST /", 405),
        ("DELETE /chat.js", 405),
        ("GET /ws", 426),
        ("POST /ws", 405),
    ] {
        let request = format!("{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = answer(&chat, &request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
        for header in shut {
            assert!(
                answer.contains(header),
                "{request}: {header} is not in {answer}"
            );
        }
    }
    // Answered at once: nobody waits for a body.
    let post = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n");
    let answered = answer(&chat, &post);
    assert!(answered.starts_with("HTTP/1.1 405 "), "{answered}");
    assert!(
        shut.iter().all(|header| answered.contains(header)),
        "{answered}"
    );
    let head = answer(
        &chat,
        &format!("HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    );
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

/// The page has nothing in it that the policy forbids, or that would need it to be weaker.
#[test]
fn the_page_has_no_script_and_no_style_of_its_own() {
    let chat = chat_room();
    let html = get(&chat, "/");
    for forbidden in [
        "<style",
        "style=",
        "onclick",
        "onload",
        "javascript:",
        "http://",
        "https://",
    ] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert_eq!(html.matches("<script").count(), 1);
    assert!(html.contains("<script src=\"chat.js\" type=\"module\"></script>"));
    for script in ["/chat.js", "/connection.js", "/log.js"] {
        let script = get(&chat, script);
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!script.contains(forbidden), "{forbidden}");
        }
    }
}

#[test]
fn pages_of_others_are_not_let_in() {
    let chat = chat_room();
    let host = page(&chat);
    for origin in [
        "http://evil.example",
        "https://evil.example",
        "null",
        "",
        "http://",
        &format!("http://{host}.evil.example"),
        &format!("http://evil.example/{host}"),
        &format!("http://{host}/"),
        &format!("{host}"),
    ] {
        let mut request = asks(&chat, &format!("Origin: {origin}"));
        // What is refused goes on as HTTP.
        let _ = write!(
            request,
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        );
        let answer = answer(&chat, &request);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{origin:?}: {answer}");
        assert!(answer.contains("HTTP/1.1 200 "), "{origin:?}: {answer}");
    }
    for own in [format!("Origin: http://{host}"), "X-No: origin".into()] {
        let mut stream = Talker::connect(page(&chat));
        stream.say_bytes(asks(&chat, &own).as_bytes());
        stream.expect("HTTP/1.1 101 Switching Protocols\r");
        let headers = stream.lines_until("\r");
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r";
        assert!(headers.iter().any(|header| header == accept), "{headers:?}");
    }
}

#[test]
fn browsers_and_terminals_share_rooms() {
    let chat = chat_room();
    let mut carol = terminal(&chat, "carol");
    let alice = Browser::connect(&chat);
    alice.expect(serde_json::json!({ "type": "welcome" }));
    alice.expect(serde_json::json!({ "type": "name_wanted" }));
    alice.say("Carol");
    alice.expect(serde_json::json!({
        "type": "refused", "what": "name", "why": "Carol is taken", "line": null
    }));
    alice.expect(serde_json::json!({ "type": "name_wanted" }));
    alice.say("alice");
    alice.expect(serde_json::json!({ "type": "named", "name": "alice", "is_first": true }));
    alice.expect(serde_json::json!({
        "type": "entered", "room": "lobby", "last": 0, "lines": 0, "missed": 0, "restarted": false,
        "count": 1, "names": ["carol"]
    }));
    alice.expect(joined("alice", "lobby"));
    carol.expect("* alice has joined lobby");

    // A page is told its own lines, too: so it knows which number they have.
    alice.say("hello <b>\"all\"</b>");
    alice.expect(line(1, "alice", "hello <b>\"all\"</b>"));
    carol.expect("alice: hello <b>\"all\"</b>");
    carol.say("\u{5e9}\u{5dc}\u{5d5}\u{5dd}");
    alice.expect(line(2, "carol", "\u{5e9}\u{5dc}\u{5d5}\u{5dd}"));
    alice.say("/who");
    alice.expect(serde_json::json!({
        "type": "who", "room": "lobby", "count": 2, "names": ["alice", "carol"]
    }));
    alice.say("/rooms");
    alice.expect(serde_json::json!({
        "type": "rooms", "rooms": [{ "name": "lobby", "count": 2 }]
    }));
    alice.say("/nick dora");
    alice.expect(serde_json::json!({ "type": "named", "name": "dora", "is_first": false }));
    alice.expect(serde_json::json!({ "type": "renamed", "from": "alice", "to": "dora" }));
    carol.expect("* alice is now dora");

    // One message is one line, whatever is in it; what is none is refused.
    for bad in ["two\nlines", "carriage\rreturn", "bell\u{7}"] {
        alice.say(bad);
        let refused = alice.event();
        assert_eq!(
            (&refused["type"], &refused["line"]),
            (&"refused".into(), &bad.into())
        );
    }
    alice.say("x".repeat(4097));
    let refused = alice.event();
    let why = "that line is longer than 4096 bytes and was not sent";
    assert_eq!(
        (&refused["type"], &refused["why"]),
        (&"refused".into(), &why.into())
    );
    alice.say("x".repeat(4096));
    alice.expect(line(3, "dora", &"x".repeat(4096)));
    carol.expect(format!("dora: {}", "x".repeat(4096)));

    alice.say("/quit");
    alice.expect(serde_json::json!({ "type": "closing", "reason": "quit", "text": "goodbye" }));
    assert_eq!(alice.next(), Heard::Close(Some(1000)));
    carol.expect("* dora has left lobby");
}

#[test]
fn who_comes_back_is_told_what_was_said_since() {
    let chat = chat_room();
    let mut carol = terminal(&chat, "carol");
    let (alice, entered) = Browser::enter(&chat, "alice", "lobby", "0");
    let epoch = entered["epoch"].as_str().expect("a text").to_owned();
    carol.say("one");
    alice.until("line");
    drop(alice);
    carol.lines_until("* alice has left lobby");
    carol.say("two");
    carol.say("three");
    carol.say("/who");
    carol.expect("* 1 in lobby: carol");

    let since = format!("{epoch}.1");
    let (alice, entered) = Browser::enter(&chat, "alice", "lobby", &since);
    assert_eq!(
        (&entered["lines"], &entered["missed"]),
        (&2.into(), &0.into())
    );
    alice.expect(line(2, "carol", "two"));
    alice.expect(line(3, "carol", "three"));
    alice.expect(joined("alice", "lobby"));
    carol.lines_until("* alice has joined lobby");
    drop(alice);
    carol.lines_until("* alice has left lobby");

    // More than is kept.
    for n in 4..=3 + KEPT + 5 {
        carol.say(format!("line {n}"));
    }
    carol.say("/who");
    carol.expect("* 1 in lobby: carol");
    let (alice, entered) = Browser::enter(&chat, "alice", "lobby", &format!("{epoch}.3"));
    assert_eq!(
        (&entered["lines"], &entered["missed"]),
        (&KEPT.into(), &5.into())
    );
    for n in 9..=3 + KEPT + 5 {
        alice.expect(line(n, "carol", &format!("line {n}")));
    }
    // Of a server that is no more.
    let (bob, entered) = Browser::enter(&chat, "bob", "lobby", "1234.5");
    assert_eq!(
        (&entered["lines"], &entered["restarted"]),
        (&KEPT.into(), &true.into())
    );
    drop(bob);
    // A room of one's own has no past, and none of it is left behind.
    let (first, entered) = Browser::enter(&chat, "erin", "den", "0");
    let den = entered["epoch"].as_str().expect("a text").to_owned();
    assert_ne!(den, epoch);
    first.say("gone with the room");
    first.until("line");
    drop(first);
    loop {
        let (last, entered) = Browser::enter(&chat, "fred", "den", &format!("{den}.1"));
        if entered["restarted"] == true {
            assert_eq!(
                (&entered["lines"], &entered["last"]),
                (&0.into(), &0.into())
            );
            break;
        }
        // The room had not ended yet.
        drop(last);
    }
}

#[test]
fn a_stop_and_a_drop_are_announced() {
    let chat = chat_room();
    let (alice, _) = Browser::enter(&chat, "alice", "lobby", "0");
    let mut carol = terminal(&chat, "carol");
    chat.signal("TERM");
    let closing = alice.until("closing");
    assert_eq!(
        (&closing["reason"], &closing["text"]),
        (&"stopping".into(), &"the server is stopping".into())
    );
    assert_eq!(alice.next(), Heard::Close(Some(1001)));
    carol.lines_until("* the server is stopping");
    carol.expect_end();
    drop((alice, carol));
    assert_eq!(chat.last_line(), "stopped after 2 connections");

    let chat = Example::start(
        "chat_room",
        &["--pollers", "2", "--http", "127.0.0.1:0", "--rate", "1"],
    );
    let (alice, _) = Browser::enter(&chat, "alice", "lobby", "0");
    for n in 0..500 {
        // It may have been dropped by now.
        let _ = alice.addr.send(format!("line {n}"));
    }
    let closing = alice.until("closing");
    assert_eq!(closing["reason"], "flooding");
    assert_eq!(alice.next(), Heard::Close(Some(1008)));
}

/// The same client behind TLS, lines and messages alike; without TLS nobody comes in.
#[test]
fn both_ports_speak_tls_if_asked_to() {
    let args = ["--pollers", "2", "--http", "127.0.0.1:0", "--tls"];
    let chat = Example::start("chat_room", &args);
    assert!(chat.start_line.contains("https://"), "{}", chat.start_line);
    let (alice, _) = Browser::enter(&chat, "alice", "lobby", "0");
    alice.expect(joined("alice", "lobby"));

    let system = System::builder().pollers(1).build().expect("it starts");
    let (sender, heard) = channel();
    let carol = system.connect_with(chat.socket_addr(), options(&chat), move || {
        Framed::new(Lines::new(4096), Terminal { heard: sender })
    });
    let hears = |line: &str| loop {
        let heard = heard.recv_timeout(DEADLINE).expect("a line comes");
        if heard == line {
            break;
        }
    };
    carol.send("carol".into()).expect("it is there");
    hears("* carol has joined lobby");
    alice.expect(joined("carol", "lobby"));
    carol.send("by TLS".into()).expect("it is there");
    alice.expect(line(1, "carol", "by TLS"));
    alice.say("so am I");
    hears("alice: so am I");

    // Who speaks plainly is let in by neither.
    for (addr, plain) in [
        (chat.socket_addr(), "bob\n"),
        (page(&chat), "GET / HTTP/1.1\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(addr).expect("it accepts");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("it can be set");
        stream.write_all(plain.as_bytes()).expect("it takes it");
        let mut answer = Vec::new();
        // The end, or a reset.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            !answer.contains("welcome") && !answer.contains("HTTP"),
            "{answer}"
        );
    }
    chat.signal("TERM");
    hears("* the server is stopping");
    assert_eq!(alice.until("closing")["reason"], "stopping");
    let certificate = chat.start_line.split("-CAfile ").nth(1).expect("a path");
    let certificate = certificate.split(' ').next().expect("a path").to_owned();
    drop((alice, system));
    chat.last_line();
    assert!(
        !std::path::Path::new(&certificate).exists(),
        "{certificate}"
    );
}

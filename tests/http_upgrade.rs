//! A connection that goes on with another protocol, with the same messages and the same address.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::http::{Http, Intake, Request, Responder, Response, Service};
use greenroom::protocol::{Frame, FrameActor};
use greenroom::testing::Stage;
use greenroom::websocket::{self, WebSocket};
use greenroom::*;

type Notes = Arc<Mutex<Vec<String>>>;

fn note(notes: &Notes, text: impl Into<String>) {
    notes.lock().unwrap().push(text.into());
}

/// Upgrades `/echo`, at once or when it is told to.
#[derive(Default)]
struct Site {
    notes: Notes,
    waiting: Vec<Responder<Site>>,
}

/// Echoes, and notes all that is called.
struct Echo(Notes);

impl Actor for Site {
    type Message = &'static str;

    fn message(&mut self, text: &'static str, _: &mut Context<'_, Self>) -> Outcome {
        for responder in self.waiting.drain(..) {
            match text {
                "upgrade" => {
                    let notes = self.notes.clone();
                    responder.upgrade(Response::switching("echo"), move || Echo(notes));
                }
                text => responder.answer(Response::text(text)),
            }
        }
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, _: &mut Context<'_, Self>) -> Outcome {
        panic!("its timers end with it");
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        note(&self.notes, format!("service: {}", reason.name()));
    }
}

impl Service for Site {
    type Upgraded = Echo;

    fn intake(&mut self, _: &Request<'_>, _: &mut Context<'_, Self>) -> Intake {
        Intake::Stream(100)
    }

    fn request(
        &mut self,
        request: Request<'_>,
        responder: Responder<Self>,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        note(&self.notes, request.path());
        let notes = self.notes.clone();
        match request.path() {
            "/echo" => {
                ctx.set_timer(Duration::from_secs(1));
                responder.upgrade(Response::switching("echo"), move || Echo(notes));
            }
            "/raw" => {
                let answer = bytes::Bytes::from("HTTP/1.1 101 Yes\r\nUpgrade: echo\r\n\r\n");
                responder.upgrade(answer, move || Echo(notes));
            }
            "/panic" => responder.upgrade(Response::switching("echo"), || panic!("no actor")),
            "/later" => self.waiting.push(responder),
            _ => responder.answer(Response::text("page")),
        }
        Ok(())
    }
}

impl Actor for Echo {
    type Message = &'static str;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        note(&self.0, "opened");
        ctx.write("[opened]");
        ctx.set_timer(Duration::from_secs(2));
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if input.bytes() == b"pause" {
            input.take_all();
            ctx.pause();
            return Ok(());
        }
        if !input.is_empty() {
            ctx.write_parts(&[b"<", input.take_all(), b">"]);
        }
        Ok(())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("[read closed]");
        ctx.close();
        Ok(())
    }

    fn message(&mut self, text: &'static str, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_parts(&[b"[", text.as_bytes(), b"]"]);
        ctx.resume();
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("[timer]");
        Ok(())
    }

    fn stopping(&mut self, _: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("[stopping]");
        ctx.close();
        Ok(())
    }

    fn closing(&mut self, _: &CloseReason, ctx: &mut Context<'_, Self>) {
        ctx.write("[bye]");
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        note(&self.0, format!("upgraded: {}", reason.name()));
    }
}

fn site() -> (Stage<Http<Site>>, Notes) {
    let site = Site::default();
    let notes = site.notes.clone();
    (Stage::new(Http::new(site)), notes)
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n"
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// What follows the last head that was sent.
#[track_caller]
fn behind_the_head(stage: &mut Stage<Http<Site>>, status: &str) -> String {
    let output = String::from_utf8(stage.output().to_vec()).unwrap();
    let head = output
        .rfind("HTTP/1.1 ")
        .unwrap_or_else(|| panic!("no head: {output:?}"));
    let (head, rest) = output[head..].split_once("\r\n\r\n").unwrap();
    assert!(head[9..].starts_with(status), "{head}");
    rest.to_owned()
}

#[test]
fn all_goes_to_the_one_that_has_taken_over() {
    let (mut stage, notes) = site();
    stage.receive([get("/"), upgrade("/echo"), "first".into()].concat());
    let output = String::from_utf8(stage.output().to_vec()).unwrap();
    let (page, rest) = output.split_once("page").expect("the answer in front");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"));
    let (head, rest) = rest.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    assert!(head.contains("\r\nConnection: Upgrade\r\nUpgrade: echo"));
    assert_eq!(rest, "[opened]<first>");
    stage.receive(get("/no-request"));
    assert_eq!(stage.output(), format!("<{}>", get("/no-request")));
    stage.advance(Duration::from_secs(2));
    assert_eq!(stage.output(), "[timer]");
    stage.send("message");
    assert_eq!(stage.output(), "[message]");
    stage.receive("pause");
    assert!(stage.is_paused());
    stage.receive("more");
    stage.send("go on");
    assert_eq!(stage.output(), "[go on]<more>");
    // No time limit of HTTP's is left.
    stage.advance(Duration::from_secs(1_000));
    assert!(stage.reason().is_none());
    stage.half_close();
    assert_eq!(stage.output(), "[read closed][bye]");
    let expected = [
        "/",
        "/echo",
        "service: detached",
        "opened",
        "upgraded: peer closed",
    ];
    assert_eq!(*notes.lock().unwrap(), expected);
    assert!(stage.actor().service().is_none() && stage.actor().upgraded().is_some());
}

#[test]
fn what_comes_behind_the_request_waits_for_the_answer() {
    let (mut stage, notes) = site();
    stage.receive([upgrade("/later"), get("/")].concat());
    stage.receive("more");
    assert_eq!(stage.output(), "");
    stage.send("upgrade");
    // What came while it was paused comes by itself.
    let rest = behind_the_head(&mut stage, "101");
    assert_eq!(rest, format!("[opened]<{}><more>", get("/")));
    drop(stage);
    // Where it is not upgraded they are requests.
    let (mut stage, _) = site();
    stage.receive([upgrade("/later"), get("/")].concat());
    assert!(stage.is_paused());
    stage.send("stays");
    let output = String::from_utf8(stage.output().to_vec()).unwrap();
    assert!(
        output.contains("stays") && output.ends_with("page"),
        "{output}"
    );
    stage.receive(get("/"));
    assert_eq!(behind_the_head(&mut stage, "200"), "page");
    assert_eq!(notes.lock().unwrap().first().unwrap(), "/later");
}

#[test]
fn every_cut_of_the_bytes_gives_the_same() {
    let all = [get("/"), upgrade("/raw"), "abc".into()].concat();
    for cut in 1..all.len() {
        let (mut stage, _) = site();
        stage.receive(&all[..cut]);
        stage.receive(&all[cut..]);
        let output = String::from_utf8(stage.output().to_vec()).unwrap();
        let (_, rest) = output.split_once("page").unwrap();
        let rest = rest
            .strip_prefix("HTTP/1.1 101 Yes\r\nUpgrade: echo\r\n\r\n[opened]")
            .unwrap();
        assert_eq!(rest.replace("><", ""), "<abc>", "{cut}");
    }
}

#[test]
fn an_upgrade_waits_for_room_and_loses_nothing() {
    let options = ConnectionOptions::new().watermarks(10, 100);
    for path in ["/echo", "/later"] {
        let site = Site::default();
        let mut stage = Stage::with_options(Http::new(site), options.clone());
        stage.stall();
        stage.receive([get("/"), get("/"), upgrade(path), "hi".into()].concat());
        stage.send("upgrade");
        assert!(stage.actor().upgraded().is_none());
        let mut output = Vec::new();
        for _ in 0..1_000 {
            output.extend_from_slice(&stage.take_output(1));
            stage.send("upgrade");
        }
        stage.unstall();
        output.extend_from_slice(&stage.output());
        let output = String::from_utf8(output).unwrap();
        assert_eq!(output.matches("HTTP/1.1 200").count(), 2, "{output}");
        assert_eq!(output.matches("HTTP/1.1 101").count(), 1, "{output}");
        assert_eq!(output.matches("[opened]").count(), 1, "{output}");
        assert_eq!(output.matches("<hi>").count(), 1, "{output}");
    }
}

#[test]
fn who_did_not_ask_is_not_upgraded() {
    let body = upgrade("/echo").replace("Host", "Content-Length: 3\r\nHost");
    let old = upgrade("/echo").replace("HTTP/1.1", "HTTP/1.0");
    for request in [get("/echo"), body, old] {
        let (mut stage, notes) = site();
        stage.receive(request);
        assert_eq!(
            behind_the_head(&mut stage, "500"),
            "500 Internal Server Error\n"
        );
        assert!(stage.reason().is_some());
        assert!(!notes.lock().unwrap().iter().any(|note| note == "opened"));
    }
}

#[test]
fn the_end_is_told_to_the_one_that_is_there() {
    let (mut stage, notes) = site();
    stage.receive(upgrade("/echo"));
    behind_the_head(&mut stage, "101");
    stage.stop(Duration::from_secs(1));
    assert_eq!(stage.output(), "[stopping][bye]");
    assert_eq!(notes.lock().unwrap().last().unwrap(), "upgraded: finished");

    let (mut stage, notes) = site();
    let receive = || stage.receive(upgrade("/panic"));
    catch_unwind(AssertUnwindSafe(receive)).unwrap_err();
    assert_eq!(*notes.lock().unwrap(), ["/panic", "service: panicked"]);
}

#[test]
fn a_late_answer_of_the_service_reaches_nobody() {
    let (mut stage, _) = site();
    // An upgrade is the last request that is read: one that waits in front of it is answered first.
    stage.receive([get("/later"), upgrade("/echo")].concat());
    assert_eq!(stage.output(), "");
    stage.send("first");
    let output = String::from_utf8(stage.output().to_vec()).unwrap();
    assert!(
        output.contains("first") && output.ends_with("[opened]"),
        "{output}"
    );
}

#[test]
fn nothing_begins_behind_a_stop() {
    let (mut stage, notes) = site();
    stage.receive([upgrade("/later"), "hi".into()].concat());
    stage.stop(Duration::from_secs(5));
    assert!(stage.reason().is_none());
    stage.send("upgrade");
    let output = stage.output();
    assert!(output.starts_with(b"HTTP/1.1 503 "), "{output:?}");
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    assert_eq!(*notes.lock().unwrap(), ["/later", "service: finished"]);
}

/// Becomes a WebSocket where that is asked for.
struct Socket;

impl Actor for Socket {
    type Message = ();
}

impl FrameActor for Socket {
    fn frame(&mut self, _: Frame<'_>, _: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}

impl Service for Socket {
    type Upgraded = WebSocket<Socket>;

    fn request(
        &mut self,
        request: Request<'_>,
        responder: Responder<Self>,
        _: &mut Context<'_, Self>,
    ) -> Outcome {
        match request.websocket() {
            Ok(upgrade) => responder.upgrade(&upgrade, || {
                WebSocket::upgraded(websocket::Options::new(), Socket)
            }),
            Err(refusal) => responder.answer(refusal.into()),
        }
        Ok(())
    }
}

#[test]
fn a_websocket_needs_a_connection_that_can_become_one() {
    for (version, connection, status) in [
        ("1.1", "Upgrade", "101"),
        ("1.0", "Upgrade", "400"),
        ("1.1", "close, Upgrade", "400"),
    ] {
        let mut stage = Stage::new(Http::new(Socket));
        stage.receive(format!(
            "GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        let output = stage.output();
        let start = format!("HTTP/1.1 {status} ");
        assert!(output.starts_with(start.as_bytes()), "{output:?}");
    }
}

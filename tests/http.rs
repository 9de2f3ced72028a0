//! HTTP on a stage: what comes in as bytes, what goes out as bytes.

use std::cell::Ref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use greenroom::http::{
    BodyWriter, Http, Intake, Never, Options, Request, Responder, Response, Service,
};
use greenroom::testing::{Probe, Stage};
use greenroom::*;

/// Answers by the path; keeps the responders of `/later`.
#[derive(Default)]
struct Site {
    /// Each request, as it was seen.
    seen: Vec<String>,
    waiting: Vec<Responder<Site>>,
    writers: Vec<BodyWriter<Site>>,
    /// How much of a long body is still to be written.
    left: usize,
    drained: usize,
    uploaded: Vec<u8>,
    uploads: Vec<Responder<Site>>,
    closed: Option<String>,
}

enum Say {
    /// Answers the request of this number, with this text.
    Answer(u64, &'static str),
    /// Drops its responder.
    Drop(u64),
    Resume,
    Close,
    /// Gives all responders away.
    Take(mpsc::Sender<Responder<Site>>),
}

/// What a long body consists of.
const LONG: usize = 1_000_000;

impl Site {
    fn responder(&mut self, id: u64) -> Responder<Site> {
        let place = self.waiting.iter().position(|one| one.id() == id);
        self.waiting.swap_remove(place.expect("it waits"))
    }

    fn write_on(&mut self) -> Outcome {
        let Some(writer) = self.writers.last_mut() else {
            return Ok(());
        };
        while self.left > 0 && writer.has_room() {
            let len = self.left.min(10_000);
            writer.write(vec![b'x'; len])?;
            self.left -= len;
        }
        if self.left == 0
            && let Some(writer) = self.writers.pop()
        {
            writer.finish();
        }
        Ok(())
    }
}

impl Actor for Site {
    type Message = Say;

    fn message(&mut self, say: Say, ctx: &mut Context<'_, Self>) -> Outcome {
        match say {
            Say::Answer(id, text) => self.responder(id).answer(Response::text(text)),
            Say::Drop(id) => drop(self.responder(id)),
            Say::Resume => ctx.resume(),
            Say::Close => ctx.close(),
            Say::Take(to) => self.waiting.drain(..).try_for_each(|one| to.send(one))?,
        }
        Ok(())
    }

    fn drained(&mut self, _: &mut Context<'_, Self>) -> Outcome {
        self.drained += 1;
        self.write_on()
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        self.closed = Some(reason.to_string());
    }
}

impl Service for Site {
    type Upgraded = Never<Say>;

    fn intake(&mut self, request: &Request<'_>, _: &mut Context<'_, Self>) -> Intake {
        match request.path() {
            "/upload" => Intake::Stream(2_000_000),
            "/small" => Intake::Collect(10),
            "/no" => Intake::Refuse(Response::new(403)),
            _ => Intake::Collect(usize::MAX),
        }
    }

    fn request(
        &mut self,
        request: Request<'_>,
        responder: Responder<Self>,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        let body = String::from_utf8_lossy(request.body());
        self.seen
            .push(format!("{} {} {body}", request.method(), request.target()));
        match request.path() {
            "/later" => self.waiting.push(responder),
            "/drop" => drop(responder),
            "/fail" => return Err("told to".into()),
            "/panic" => panic!("told to"),
            "/write" => drop(ctx.write("raw")),
            "/close" => {
                responder.answer(Response::text("closing"));
                ctx.close();
            }
            "/last" => responder.answer(Response::text("last").close()),
            "/empty" => responder.answer(Response::new(204)),
            "/same" => responder.answer(Response::new(304).body("unsent")),
            "/none" => responder.answer(Response::new(404)),
            "/big" => responder.answer(Response::new(200).body(vec![b'b'; 6_000_000])),
            "/stream" => {
                let mut writer = responder.stream(Response::new(200).body("one"));
                writer.write("two")?;
                writer.write("")?;
                writer.finish();
            }
            "/cut" => drop(responder.stream(Response::new(200).body("half"))),
            "/long" => {
                self.left = LONG;
                self.writers.push(responder.stream(Response::new(200)));
                self.write_on()?;
            }
            "/upload" => self.uploads.push(responder),
            "/paused" => {
                ctx.pause();
                responder.answer(Response::text("paused"));
            }
            _ if request.body().is_empty() => responder.answer(Response::text("hello")),
            _ => responder.answer(Response::new(200).body(request.body().to_vec())),
        }
        Ok(())
    }

    fn body(&mut self, _: u64, piece: Option<&[u8]>, _: &mut Context<'_, Self>) -> Outcome {
        match piece {
            Some(piece) => self.uploaded.extend_from_slice(piece),
            None => {
                let text = format!("{} bytes", self.uploaded.len());
                if let Some(responder) = self.uploads.pop() {
                    responder.answer(Response::text(text));
                }
            }
        }
        Ok(())
    }
}

/// The responders of the requests that wait, to be answered from outside.
fn take(stage: &mut Stage<Http<Site>>) -> mpsc::Receiver<Responder<Site>> {
    let (take, taken) = mpsc::channel();
    stage.send(Say::Take(take));
    taken
}

fn site() -> Stage<Http<Site>> {
    Stage::new(Http::new(Site::default()))
}

fn with(options: Options) -> Stage<Http<Site>> {
    Stage::new(Http::with_options(Site::default(), options))
}

fn service(stage: &Stage<Http<Site>>) -> Ref<'_, Site> {
    Ref::map(stage.actor(), |http| http.service().expect("it has it"))
}

/// One answer as it was sent.
#[derive(Debug)]
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    fn has(&self, field: &str) -> bool {
        self.head.lines().any(|line| line == field)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Cuts what was sent into answers, by their lengths or chunks. `heads` are answers to HEAD.
#[track_caller]
fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a whole head")
            + 4;
        let head = std::str::from_utf8(&bytes[..end]).unwrap().to_owned();
        bytes = &bytes[end..];
        assert!(head.starts_with("HTTP/1.1 "), "{head}");
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.strip_prefix(": "))
        };
        let mut body = Vec::new();
        if let Some(len) = field("Content-Length") {
            let (start, rest) = bytes.split_at(len.parse().unwrap());
            body.extend_from_slice(start);
            bytes = rest;
        } else if field("Transfer-Encoding") == Some("chunked") {
            loop {
                let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
                let size = std::str::from_utf8(&bytes[..end - 1]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                bytes = &bytes[end + 1..];
                body.extend_from_slice(&bytes[..size]);
                assert_eq!(&bytes[size..size + 2], b"\r\n");
                bytes = &bytes[size + 2..];
                if size == 0 {
                    break;
                }
            }
        }
        found.push(Answer { head, body });
    }
    found
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// The only answer.
#[track_caller]
fn one(stage: &mut Stage<Http<Site>>) -> Answer {
    let mut found = answers(&stage.output());
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_request_is_answered_and_the_connection_stays() {
    let mut stage = site();
    for _ in 0..3 {
        stage.receive(get("/"));
        let answer = one(&mut stage);
        assert_eq!((answer.status(), answer.text()), (200, "hello"));
        assert!(answer.has("Content-Length: 5"));
        assert!(answer.has("Content-Type: text/plain; charset=utf-8"));
        assert!(
            answer
                .head
                .contains("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n")
        );
        assert!(!answer.head.contains("Connection"));
    }
    assert!(stage.reason().is_none());
    stage.advance(Duration::from_secs(2));
    stage.receive(get("/"));
    assert!(one(&mut stage).head.contains("08:49:39 GMT"));
}

#[test]
fn who_goes_on_is_said_by_version_and_connection() {
    for (version, connection, stays, said) in [
        ("1.1", "", true, ""),
        (
            "1.1",
            "Connection: close\r\n",
            false,
            "Connection: close\r\n",
        ),
        (
            "1.1",
            "Connection: x, Close\r\n",
            false,
            "Connection: close\r\n",
        ),
        ("1.0", "", false, "Connection: close\r\n"),
        (
            "1.0",
            "Connection: keep-alive\r\n",
            true,
            "Connection: keep-alive\r\n",
        ),
        (
            "1.0",
            "Connection: keep-alive, close\r\n",
            false,
            "Connection: close\r\n",
        ),
    ] {
        let mut stage = site();
        let request = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        stage.receive(format!("{request}{}", get("/")));
        let found = answers(&stage.output());
        assert_eq!(
            found.len(),
            1 + usize::from(stays),
            "{version} {connection}"
        );
        assert_eq!(stage.reason().is_none(), stays);
        let line = found[0]
            .head
            .split_inclusive("\r\n")
            .find(|line| line.starts_with("Conn"));
        assert_eq!(line.unwrap_or_default(), said);
    }
}

#[test]
fn answers_that_have_no_body_have_none() {
    let mut stage = site();
    stage.receive("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let output = stage.output();
    let head = std::str::from_utf8(&output).unwrap();
    assert!(
        head.contains("\r\nContent-Length: 5\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    stage.receive("HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    let output = stage.output();
    let head = std::str::from_utf8(&output).unwrap();
    assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n") && head.ends_with("\r\n\r\n"));
    for path in ["/empty", "/same"] {
        stage.receive(get(path));
        let answer = one(&mut stage);
        assert!(!answer.head.contains("Content-Length") && answer.body.is_empty());
    }
    stage.receive(get("/none"));
    let answer = one(&mut stage);
    assert!(answer.has("Content-Length: 0") && answer.status() == 404);
    assert!(stage.reason().is_none());
}

#[test]
fn pipelined_answers_leave_in_order_also_when_given_later() {
    let mut stage = site();
    stage.receive([get("/later"), get("/"), get("/later"), get("/none")].concat());
    assert_eq!(stage.output(), "");
    stage.send(Say::Answer(2, "third"));
    assert_eq!(stage.output(), "");
    stage.send(Say::Answer(0, "first"));
    let found = answers(&stage.output());
    let texts: Vec<_> = found
        .iter()
        .map(|answer| (answer.status(), answer.text()))
        .collect();
    assert_eq!(
        texts,
        [(200, "first"), (200, "hello"), (200, "third"), (404, "")]
    );
    stage.receive(get("/later"));
    stage.receive(get("/"));
    stage.send(Say::Drop(4));
    let found = answers(&stage.output());
    assert_eq!([found[0].status(), found[1].status()], [500, 200]);
    assert!(stage.reason().is_none());
}

#[test]
fn answers_are_given_from_other_threads() {
    let mut stage = site();
    stage.receive([get("/later"), get("/later"), get("/later")].concat());
    let taken = take(&mut stage);
    let mut responders: Vec<_> = taken.iter().collect();
    thread::spawn(move || {
        drop(responders.pop());
        responders.pop().unwrap().answer(Response::text("second"));
        let mut writer = responders.pop().unwrap().stream(Response::new(200));
        writer.write("first").unwrap();
        writer.finish();
    })
    .join()
    .unwrap();
    stage.run();
    let found = answers(&stage.output());
    assert_eq!([found[0].text(), found[1].text()], ["first", "second"]);
    assert_eq!(found[2].status(), 500);
}

#[test]
fn an_answer_to_who_has_gone_goes_nowhere() {
    let mut stage = site();
    stage.receive([get("/later"), get("/long")].concat());
    let taken = take(&mut stage);
    let responder = taken.recv().unwrap();
    assert!(!responder.is_gone());
    stage.reset();
    assert!(responder.is_gone());
    responder.answer(Response::text("late"));
    assert!(matches!(stage.reason(), Some(CloseReason::Reset)));
}

#[test]
fn at_most_so_many_wait_then_reading_pauses_and_resumes_by_itself() {
    let mut stage = with(Options::new().pending_max(3));
    stage.receive(get("/later").repeat(5));
    assert_eq!(service(&stage).seen.len(), 3);
    assert!(stage.is_paused());
    stage.send(Say::Answer(1, "b"));
    assert!(stage.is_paused(), "nothing has left");
    stage.send(Say::Answer(0, "a"));
    assert_eq!(answers(&stage.output()).len(), 2);
    assert_eq!(service(&stage).seen.len(), 5);
    assert!(!stage.is_paused());
    for id in 2..5 {
        stage.send(Say::Answer(id, "c"));
    }
    assert_eq!(answers(&stage.output()).len(), 3);
    stage.receive(get("/"));
    assert_eq!(answers(&stage.output()).len(), 1);
}

#[test]
fn a_flood_of_requests_is_held_back_while_nobody_reads_the_answers() {
    let mut stage = site();
    stage.stall();
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n".to_owned()
        + &"e".repeat(10_000);
    stage.receive(request.repeat(100));
    assert!(stage.is_paused());
    assert!(stage.queued() < 80_000, "{}", stage.queued());
    assert!(service(&stage).seen.len() < 10);
    stage.unstall();
    let found = answers(&stage.output());
    assert_eq!(found.len(), 100);
    assert!(found.iter().all(|answer| answer.body.len() == 10_000));
}

#[test]
fn a_large_body_leaves_as_it_is_taken() {
    let mut stage = site();
    stage.stall();
    stage.receive([get("/big"), get("/")].concat());
    assert!(stage.queued() <= 2 << 20, "{}", stage.queued());
    stage.unstall();
    let found = answers(&stage.output());
    assert_eq!((found[0].body.len(), found[1].text()), (6_000_000, "hello"));
}

#[test]
fn a_body_is_streamed_with_backpressure() {
    let mut stage = site();
    stage.receive(get("/stream"));
    let answer = one(&mut stage);
    assert!(answer.has("Transfer-Encoding: chunked") && !answer.head.contains("Content-Length"));
    assert_eq!(answer.text(), "onetwo");
    stage.stall();
    stage.receive([get("/long"), get("/")].concat());
    assert!(
        service(&stage).left > LONG - 300_000,
        "{}",
        service(&stage).left
    );
    assert!(stage.queued() < 200_000, "{}", stage.queued());
    stage.unstall();
    let found = answers(&stage.output());
    assert_eq!((found[0].body.len(), found[1].text()), (LONG, "hello"));
    assert_eq!(service(&stage).left, 0);
}

#[test]
fn pieces_of_any_size_fit_into_any_budget() {
    let options = ConnectionOptions::new()
        .watermarks(1_000, 4_000)
        .output_max(5_000);
    for (piece, count) in [(1, 3_000), (100_000, 3)] {
        let http = Http::new(Site::default());
        let mut stage = Stage::with_options(http, options.clone());
        stage.stall();
        stage.receive(get("/later"));
        let taken = take(&mut stage);
        let mut writer = taken.recv().unwrap().stream(Response::new(200));
        let (mut written, mut refused, mut held) = (0, 0, 0);
        while written < count {
            match writer.write(vec![b'x'; piece]) {
                Ok(()) => (written, held) = (written + 1, held + piece + 128),
                Err(error) => {
                    assert_eq!(error.into_piece().len(), piece);
                    assert!(held < (64 << 10) + piece + 128, "{held} are held");
                    held = 0;
                    refused += 1;
                    stage.unstall();
                    stage.run();
                }
            }
        }
        assert!(refused > 0);
        writer.finish();
        stage.run();
        assert_eq!(one(&mut stage).body.len(), piece * count);
        assert!(service(&stage).drained > 0);
        stage.receive(post("/", "Content-Length: 50000\r\n", &"e".repeat(50_000)));
        assert_eq!(one(&mut stage).body.len(), 50_000);
    }
}

#[test]
fn answers_that_are_given_together_fit_into_any_budget() {
    let options = ConnectionOptions::new()
        .watermarks(1_000, 4_000)
        .output_max(5_000);
    for (len, stalls) in [0, 900, 3_900, 4_090]
        .into_iter()
        .flat_map(|len| [(len, true), (len, false)])
    {
        let mut stage = Stage::with_options(Http::new(Site::default()), options.clone());
        if stalls {
            stage.stall();
        }
        stage.receive(get("/later").repeat(32));
        let taken = take(&mut stage);
        for responder in taken.try_iter() {
            responder.answer(Response::new(200).body(vec![b'x'; len]));
        }
        stage.run();
        assert!(stage.queued() <= 5_000);
        stage.unstall();
        let found = answers(&stage.output());
        assert_eq!(found.len(), 32, "of {len} bytes: {:?}", stage.reason());
        assert!(found.iter().all(|answer| answer.body.len() == len));
        assert!(stage.reason().is_none());
        // Nor does a close throw away what has room.
        stage.stall();
        stage.receive(get("/later").repeat(32));
        let taken = take(&mut stage);
        for responder in taken.try_iter() {
            responder.answer(Response::new(200).body(vec![b'x'; len]));
        }
        stage.run();
        stage.addr().close();
        stage.run();
        stage.unstall();
        assert!(stage.output().starts_with(b"HTTP/1.1 200 "), "{len}");
        assert!(
            matches!(stage.reason(), Some(CloseReason::Finished)),
            "{len}"
        );
    }
}

#[test]
fn a_stream_that_nobody_wants_takes_all_and_keeps_nothing() {
    let mut stage = site();
    stage.receive("HEAD /later HTTP/1.1\r\nHost: a\r\n\r\n");
    let (take, taken) = mpsc::channel();
    stage.send(Say::Take(take.clone()));
    let mut writer = taken.recv().unwrap().stream(Response::new(200));
    stage.run();
    assert!(!writer.is_wanted());
    for _ in 0..100 {
        writer.write(vec![b'x'; 10_000]).unwrap();
    }
    writer.finish();
    stage.run();
    assert!(stage.output().ends_with(b"\r\n\r\n"));
    // Nor where the connection ends before it has seen the answer.
    stage.receive(get("/later"));
    stage.send(Say::Take(take));
    let mut writer = taken.recv().unwrap().stream(Response::new(200));
    assert!(writer.is_wanted());
    stage.reset();
    assert!(!writer.is_wanted());
    for _ in 0..100 {
        writer.write(vec![b'x'; 10_000]).unwrap();
    }
}

#[test]
fn a_stream_behind_an_answer_that_is_not_given_is_held_back_and_goes_on() {
    let mut stage = site();
    stage.receive([get("/later"), get("/long")].concat());
    assert_eq!(stage.output(), "");
    assert!(service(&stage).left > LONG - 100_000);
    stage.send(Say::Answer(0, "first"));
    let found = answers(&stage.output());
    assert_eq!((found[0].text(), found[1].body.len()), ("first", LONG));
}

#[test]
fn a_client_of_1_0_is_streamed_to_up_to_the_end() {
    let mut stage = site();
    stage.receive("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let output = stage.output();
    let text = std::str::from_utf8(&output).unwrap();
    assert!(text.ends_with("\r\n\r\nonetwo") && text.contains("\r\nConnection: close\r\n"));
    assert!(!text.contains("Transfer-Encoding"));
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
}

#[test]
fn half_a_body_is_not_taken_for_a_whole_one() {
    let mut stage = site();
    stage.receive(get("/cut"));
    assert!(stage.is_reset());
    assert!(!stage.output().ends_with(b"0\r\n\r\n"));
}

#[test]
fn a_file_is_a_body() {
    for wraps in [false, true] {
        let file = Arc::new(std::fs::File::open("Cargo.toml").unwrap());
        let text = std::fs::read("Cargo.toml").unwrap();
        let len = text.len() as u64;
        let serve = move |request: &str, at, len| {
            let files = Files(file.clone(), at, len);
            let http = Http::new(files);
            if wraps {
                let mut stage = Stage::new(Plain(http));
                stage.receive(request);
                (stage.output(), stage.is_reset())
            } else {
                let mut stage = Stage::new(http);
                stage.receive(request);
                (stage.output(), stage.is_reset())
            }
        };
        let (output, _) = serve(&get("/"), 0, len);
        assert_eq!(answers(&output)[0].body, text);
        let (output, _) = serve(&get("/"), 5, 7);
        assert_eq!(answers(&output)[0].body, &text[5..12]);
        let (output, _) = serve("HEAD / HTTP/1.0\r\n\r\n", 0, len);
        let head = std::str::from_utf8(&output).unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {len}\r\n")));
        assert!(head.ends_with("\r\n\r\n"));
        let (_, is_reset) = serve(&get("/"), 0, len + 1);
        assert!(is_reset, "the file is shorter");
    }
}

/// Sends a part of a file.
struct Files(Arc<std::fs::File>, u64, u64);

impl Actor for Files {
    type Message = ();
}

impl Service for Files {
    type Upgraded = Never<()>;

    fn request(
        &mut self,
        _: Request<'_>,
        responder: Responder<Self>,
        _: &mut Context<'_, Self>,
    ) -> Outcome {
        responder.answer(Response::new(200).file(self.0.clone(), self.1, self.2));
        Ok(())
    }
}

/// An adapter that changes nothing, but sees all bytes.
struct Plain<A: Actor>(A);

impl<A: Actor> Plain<A> {
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

impl<A: Actor> Actor for Plain<A> {
    type Message = A::Message;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(ctx, |actor, ctx| actor.opened(ctx))
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(ctx, |actor, ctx| actor.readable(input, ctx))
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(ctx, |actor, ctx| actor.drained(ctx))
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(ctx, |actor, ctx| actor.timer(key, ctx))
    }

    fn message(&mut self, message: A::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(ctx, |actor, ctx| actor.message(message, ctx))
    }
}

// ---- bodies of requests -------------------------------------------------------------------------

fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

#[test]
fn a_body_is_collected_by_its_length_or_by_chunks() {
    let mut stage = site();
    let chunks = "3\r\nabc\r\n0A;a=\"b\";c\r\n0123456789\r\n000\r\nTrailer: t\r\nX:\r\n\r\n";
    let long = "l".repeat(100_000);
    for (fields, body, text) in [
        ("Content-Length: 5\r\n", "abcde", "abcde"),
        ("Content-Length: 005\r\n", "abcde", "abcde"),
        ("Content-Length: 0\r\n", "", "hello"),
        ("Transfer-Encoding: Chunked\r\n", chunks, "abc0123456789"),
        ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n", "hello"),
        ("Content-Length: 100000\r\n", &long, &long),
    ] {
        stage.receive(post("/", fields, body));
        assert_eq!(one(&mut stage).text(), text);
    }
    stage.receive("GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(one(&mut stage).text(), "hello");
    assert!(stage.reason().is_none());
}

#[test]
fn a_body_is_streamed_to_the_service() {
    let mut stage = site();
    stage.receive(post("/upload", "Content-Length: 1000000\r\n", ""));
    for _ in 0..100 {
        stage.receive("u".repeat(10_000));
    }
    assert_eq!(one(&mut stage).text(), "1000000 bytes");
    stage.receive(post(
        "/upload",
        "Transfer-Encoding: chunked\r\n",
        "2\r\nab\r\n0\r\n\r\n",
    ));
    assert_eq!(one(&mut stage).text(), "1000002 bytes");
    assert_eq!(service(&stage).uploaded.len(), 1_000_002);
    assert!(stage.reason().is_none());
}

#[test]
fn a_body_past_its_limit_is_refused() {
    for (path, fields, body, status) in [
        ("/", "Content-Length: 1048577\r\n", "", 413),
        ("/", "Content-Length: 99999999999999999999999\r\n", "", 413),
        ("/", "Transfer-Encoding: chunked\r\n", "100001\r\n", 413),
        ("/small", "Content-Length: 11\r\n", "", 413),
        (
            "/small",
            "Transfer-Encoding: chunked\r\n",
            "6\r\n012345\r\n5\r\n",
            413,
        ),
        ("/upload", "Content-Length: 2000001\r\n", "", 413),
        (
            "/upload",
            "Transfer-Encoding: chunked\r\n",
            "3\r\nabc\r\nffffffffffffffff\r\n",
            413,
        ),
        ("/no", "Content-Length: 3\r\n", "abc", 403),
    ] {
        let mut stage = site();
        stage.receive(post(path, fields, body));
        let answer = one(&mut stage);
        assert_eq!(answer.status(), status, "{path} {fields} {body}");
        assert!(answer.has("Connection: close"));
        assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    }
    let mut stage = with(Options::new().body_max(3));
    stage.receive(post("/", "Content-Length: 3\r\n", "abc"));
    assert!(stage.reason().is_none(), "{:?}", stage.reason());
    assert_eq!(one(&mut stage).text(), "abc");
    stage.receive(post("/", "Content-Length: 4\r\n", ""));
    assert_eq!(one(&mut stage).status(), 413);
}

const GO_ON: &str = "HTTP/1.1 100 Continue\r\n\r\n";

#[test]
fn who_expects_to_be_told_to_go_on_is_told_once_and_in_turn() {
    let expects = "Expect: 100-continue\r\nContent-Length: 6\r\n";
    for path in ["/", "/upload"] {
        let mut stage = site();
        stage.receive(post(path, expects, ""));
        assert_eq!(stage.output(), GO_ON);
        stage.receive("abc");
        assert_eq!(stage.output(), "");
        stage.receive("def");
        assert_eq!(one(&mut stage).status(), 200);
        // With some of it here there is nothing to wait for.
        stage.receive(post(path, expects, "a"));
        assert_eq!(stage.output(), "");
        stage.receive("bcdef");
        assert_eq!(one(&mut stage).status(), 200);
        // Not before the answers in front.
        stage.receive([get("/later"), post(path, expects, "")].concat());
        assert_eq!(stage.output(), "");
        stage.send(Say::Answer(2, "first"));
        let output = stage.output();
        let rest = output.strip_suffix(GO_ON.as_bytes()).expect("behind it");
        assert_eq!(answers(rest)[0].text(), "first");
        stage.receive("abcdef");
        assert_eq!(one(&mut stage).status(), 200);
    }
    for (path, fields, status) in [
        ("/no", expects, 403),
        (
            "/small",
            "Expect: 100-continue\r\nContent-Length: 11\r\n",
            413,
        ),
        ("/", "Expect: the-unexpected\r\nContent-Length: 1\r\n", 417),
    ] {
        let mut stage = site();
        stage.receive(post(path, fields, ""));
        assert_eq!(one(&mut stage).status(), status);
        assert!(stage.reason().is_some());
    }
    // HTTP/1.0 has no such thing.
    let mut stage = site();
    stage.receive("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(stage.output(), "");
    stage.receive("a");
    assert_eq!(one(&mut stage).text(), "a");
}

#[test]
fn who_is_answered_before_its_body_was_asked_for_is_closed() {
    let mut stage = site();
    stage.receive(
        [
            get("/later"),
            post(
                "/later",
                "Expect: 100-continue\r\nContent-Length: 1\r\n",
                "",
            ),
        ]
        .concat(),
    );
    stage.send(Say::Answer(0, "first"));
    let output = stage.output();
    assert!(output.ends_with(GO_ON.as_bytes()));

    let mut stage = Stage::new(Http::new(Early));
    stage.receive(post(
        "/",
        "Expect: 100-continue\r\nContent-Length: 1\r\n",
        "",
    ));
    let found = answers(&stage.output());
    assert_eq!(found[0].status(), 401);
    assert!(found[0].has("Connection: close") && stage.reason().is_some());
    // With the body on its way all goes on.
    let mut stage = Stage::new(Http::new(Early));
    stage.receive(post(
        "/",
        "Expect: 100-continue\r\nContent-Length: 3\r\n",
        "a",
    ));
    assert_eq!(answers(&stage.output())[0].status(), 401);
    stage.receive(["bc", &get("/")].concat());
    assert_eq!(answers(&stage.output())[0].status(), 401);
    assert!(stage.reason().is_none());
}

#[test]
fn a_body_that_goes_wrong_behind_its_answer_ends_the_connection() {
    let head = post("/", "Transfer-Encoding: chunked\r\n", "1\r\na\r\n");
    for (rest, wait) in [("x", 0), ("ff\r\n", 0), ("", 30)] {
        let mut stage = Stage::new(Http::new(Early));
        stage.receive(&head);
        assert_eq!(answers(&stage.output())[0].status(), 401);
        stage.receive(rest);
        stage.advance(Duration::from_secs(wait));
        assert_eq!(stage.output(), "");
        assert!(
            matches!(stage.reason(), Some(CloseReason::Finished)),
            "{rest}"
        );
        assert_eq!(stage.stats().requests_refused, 1);
    }
}

/// Answers without a look at the body.
struct Early;

impl Actor for Early {
    type Message = ();
}

impl Service for Early {
    type Upgraded = Never<()>;

    fn intake(&mut self, _: &Request<'_>, _: &mut Context<'_, Self>) -> Intake {
        Intake::Stream(100)
    }

    fn request(
        &mut self,
        _: Request<'_>,
        responder: Responder<Self>,
        _: &mut Context<'_, Self>,
    ) -> Outcome {
        responder.answer(Response::new(401));
        Ok(())
    }
}

// ---- what is refused ----------------------------------------------------------------------------

/// What is wrong, and what it is told. Each is refused however it is cut, and closes.
const BAD: &[(&str, u16)] = &[
    // Lengths.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1.0\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1;\r\n\r\na",
        400,
    ),
    // Codings.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    // Lines.
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tfolded\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\x7f\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX(: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("GET / HTTP/1.0\n\n", 400),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\r\n\r\n", 400),
    ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.x\r\nHost: a\r\n\r\n", 400),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / ICY/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03", 400),
    ("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Targets and hosts.
    ("GET index.html HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http://u@h/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", 400),
];

/// The same in bodies that come in chunks; all behind the same head.
const BAD_CHUNKS: &[(&str, u16)] = &[
    ("\r\n", 400),
    ("x\r\n", 400),
    ("+1\r\na\r\n0\r\n\r\n", 400),
    ("-1\r\n", 400),
    ("0x1\r\na\r\n0\r\n\r\n", 400),
    (" 1\r\na\r\n0\r\n\r\n", 400),
    ("1 \r\na\r\n0\r\n\r\n", 400),
    ("1\na\r\n0\r\n\r\n", 400),
    ("1\r\na\n0\r\n\r\n", 400),
    ("1\r\na\r0\r\n\r\n", 400),
    ("1\r\nab\r\n0\r\n\r\n", 400),
    ("2\r\na\r\n0\r\n\r\n", 400),
    ("1\r\na0\r\n\r\n", 400),
    ("1\ra\r\n0\r\n\r\n", 400),
    ("1;a\nb\r\na\r\n0\r\n\r\n", 400),
    ("1;a\rb\r\na\r\n0\r\n\r\n", 400),
    ("1;\0\r\na\r\n0\r\n\r\n", 400),
    (";a\r\n", 400),
    ("00000000000000001\r\na\r\n0\r\n\r\n", 400),
    ("10000000000000000\r\n", 400),
    ("ffffffffffffffff1\r\n", 400),
    ("ffffffffffffffff\r\n", 413),
    ("8000000000000000\r\n", 413),
    ("1\r\na\r\nfffffffffffffffe\r\n", 413),
    ("0\r\n\n", 400),
    ("0\r\n\rx", 400),
    ("0\n\n", 400),
    ("0\r\nX : y\r\n\r\n", 400),
    ("0\r\n folded\r\n\r\n", 400),
    ("0\r\nX: y\n\r\n", 400),
    ("0\r\nX: \0\r\n\r\n", 400),
    ("0\r\nX\r\n\r\n", 400),
];

fn bad_chunks() -> impl Iterator<Item = (String, u16)> {
    BAD_CHUNKS
        .iter()
        .map(|(chunks, status)| (post("/", "Transfer-Encoding: chunked\r\n", chunks), *status))
}

fn all_bad() -> Vec<(String, u16)> {
    let bad = BAD
        .iter()
        .map(|(request, status)| ((*request).to_owned(), *status));
    let long = "a".repeat(9_000);
    let longer = "a".repeat(17_000);
    let many = "A: b\r\n".repeat(65);
    let extension = "e".repeat(300);
    let extensions = format!("1;{}\r\na\r\n", "e".repeat(200)).repeat(30);
    let trailers = format!("0\r\n{}", "Trailer: t\r\n".repeat(500));
    let limits = [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET /{}", "a".repeat(8_300)), 414),
        ("G".repeat(8_300), 414),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {longer}\r\n\r\n"),
            431,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "A: b\r\n".repeat(3_000)),
            431,
        ),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (
            post(
                "/",
                "Transfer-Encoding: chunked\r\n",
                &format!("1;{extension}"),
            ),
            400,
        ),
        (
            post("/", "Transfer-Encoding: chunked\r\n", &extensions),
            400,
        ),
        (post("/", "Transfer-Encoding: chunked\r\n", &trailers), 431),
        (post("/", "Expect: x\r\n", ""), 417),
    ];
    bad.chain(bad_chunks()).chain(limits).collect()
}

#[test]
fn what_is_malformed_is_refused_and_what_follows_is_not_answered() {
    for (request, status) in all_bad() {
        let mut stage = site();
        stage.receive(format!("{}{request}{}", get("/"), get("/smuggled")));
        let found = answers(&stage.output());
        assert_eq!(found.len(), 2, "{request:?} {found:?}");
        assert_eq!(found[0].text(), "hello");
        assert_eq!(found[1].status(), status, "{request:?}");
        assert!(found[1].has("Connection: close"));
        assert!(
            matches!(stage.reason(), Some(CloseReason::Finished)),
            "{request:?}"
        );
        let service = service(&stage);
        assert!(
            service.seen.iter().all(|seen| !seen.contains("smuggled")),
            "{request:?}"
        );
        assert_eq!(service.seen.len(), 1, "{request:?}");
        drop(service);
        assert_eq!(stage.stats().requests_refused, 1);
    }
}

#[test]
fn a_refusal_is_the_same_however_the_bytes_are_cut() {
    for (request, status) in all_bad()
        .into_iter()
        .filter(|(request, _)| request.len() < 200)
    {
        for cut in 1..request.len() {
            let mut stage = site();
            let (start, rest) = request.as_bytes().split_at(cut);
            stage.receive(start);
            if stage.reason().is_none() {
                stage.receive(rest);
            }
            assert_eq!(one(&mut stage).status(), status, "{request:?} cut at {cut}");
        }
    }
    for (request, status) in all_bad() {
        let mut stage = site();
        for crumb in request
            .as_bytes()
            .chunks(if request.len() < 200 { 1 } else { 61 })
        {
            if stage.reason().is_none() {
                stage.receive(crumb);
            }
        }
        assert_eq!(one(&mut stage).status(), status, "{request:?} in crumbs");
    }
}

#[test]
fn answers_in_front_leave_before_a_refusal_also_when_given_later() {
    let mut stage = site();
    stage.receive(
        [
            get("/later"),
            get("/"),
            "GET / HTTP/9.9\r\n\r\n".into(),
            get("/"),
        ]
        .concat(),
    );
    assert_eq!(stage.output(), "");
    stage.send(Say::Answer(0, "first"));
    let found = answers(&stage.output());
    let statuses: Vec<_> = found.iter().map(Answer::status).collect();
    assert_eq!(statuses, [200, 200, 505]);
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
}

#[test]
fn one_empty_line_in_front_of_a_request_is_passed_over() {
    let mut stage = site();
    for _ in 0..3 {
        stage.receive("\r\n");
        stage.receive(get("/"));
        assert_eq!(one(&mut stage).status(), 200);
    }
    stage.receive("\r");
    stage.receive("\n\r");
    assert_eq!(one(&mut stage).status(), 400);
}

#[test]
fn targets_are_understood() {
    let mut stage = site();
    for (target, path) in [
        ("http://h.example:80/p?q", "/p?q"),
        ("HTTP://h", "/"),
        ("/a%20b?c?d", "/a%20b?c?d"),
        ("/ümlaut", "/ümlaut"),
    ] {
        stage.receive(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(one(&mut stage).status(), 200, "{path}");
    }
    stage.receive("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n");
    assert_eq!(one(&mut stage).status(), 200);
}

// ---- time ---------------------------------------------------------------------------------------

#[test]
fn a_slow_head_is_told_so() {
    let mut stage = site();
    stage.receive("GET / HT");
    for _ in 0..9 {
        stage.advance(Duration::from_secs(1));
        stage.receive("T");
        assert!(stage.reason().is_none());
    }
    stage.advance(Duration::from_secs(1));
    assert_eq!(one(&mut stage).status(), 408);
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
}

#[test]
fn a_slow_body_is_told_so_and_one_that_gets_on_has_its_time() {
    for path in ["/", "/upload"] {
        let mut stage = site();
        stage.receive(post(path, "Content-Length: 1000000\r\n", ""));
        for _ in 0..10 {
            stage.advance(Duration::from_secs(29));
            stage.receive("u".repeat(64 << 10));
        }
        stage.advance(Duration::from_secs(29));
        assert!(stage.reason().is_none());
        stage.advance(Duration::from_secs(12));
        assert_eq!(one(&mut stage).status(), 408);
        assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    }
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let mut stage = site();
    stage.advance(Duration::from_secs(50));
    stage.receive(get("/"));
    assert_eq!(one(&mut stage).status(), 200);
    stage.advance(Duration::from_secs(74));
    assert!(stage.reason().is_none());
    stage.advance(Duration::from_secs(1));
    assert_eq!(stage.output(), "");
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
}

#[test]
fn a_request_that_waits_for_its_answer_has_all_the_time() {
    let mut stage = site();
    stage.receive(get("/later"));
    stage.advance(Duration::from_secs(3_600));
    stage.send(Say::Answer(0, "at last"));
    assert_eq!(one(&mut stage).text(), "at last");
    stage.advance(Duration::from_secs(75));
    assert!(stage.reason().is_some());
}

#[test]
fn what_the_service_holds_back_is_not_the_clients_delay() {
    let mut stage = site();
    stage.receive([get("/paused"), "GET / HT".into()].concat());
    assert_eq!(one(&mut stage).text(), "paused");
    assert!(stage.is_paused());
    stage.advance(Duration::from_secs(3_000));
    assert!(stage.reason().is_none());
    stage.send(Say::Resume);
    stage.advance(Duration::from_secs(9));
    stage.receive("TP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(one(&mut stage).text(), "hello");
}

#[test]
fn limits_of_time_may_be_endless() {
    let endless = Options::new()
        .keep_alive(Duration::MAX)
        .head_timeout(Duration::MAX)
        .body_timeout(Duration::MAX);
    let mut stage = with(endless);
    let request = post("/", "Content-Length: 3\r\n", "abc");
    stage.advance(Duration::from_secs(50));
    for crumb in request.as_bytes().chunks(5) {
        stage.receive(crumb);
        stage.advance(Duration::from_secs(1));
    }
    assert_eq!(one(&mut stage).text(), "abc");
}

#[test]
fn a_body_that_is_not_asked_for_yet_is_not_slow() {
    let mut stage = site();
    let expects = "Expect: 100-continue\r\nContent-Length: 6\r\n";
    stage.receive([get("/later"), post("/", expects, "")].concat());
    stage.advance(Duration::from_secs(60));
    stage.send(Say::Answer(0, "first"));
    assert!(stage.output().ends_with(GO_ON.as_bytes()));
    stage.advance(Duration::from_secs(29));
    stage.receive("abcdef");
    assert_eq!(one(&mut stage).text(), "abcdef");
    // From then on it is.
    stage.receive(post("/", expects, ""));
    assert_eq!(stage.output(), GO_ON);
    stage.advance(Duration::from_secs(30));
    assert_eq!(one(&mut stage).status(), 408);
}

#[test]
fn who_is_still_taking_its_answer_is_not_idle() {
    let mut stage = site();
    stage.stall();
    stage.receive(post("/", "Content-Length: 50000\r\n", &"e".repeat(50_000)));
    let mut taken = 0;
    for _ in 0..11 {
        stage.advance(Duration::from_secs(20));
        taken += stage.take_output(5_000).len();
    }
    assert!(taken > 50_000, "{taken}");
    stage.unstall();
    stage.output();
    stage.receive(get("/"));
    assert_eq!(one(&mut stage).text(), "hello");
    stage.advance(Duration::from_secs(75));
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
}

/// Hands the pieces of bodies on, and waits where they are not taken.
struct Forward {
    to: Recipient<Vec<u8>>,
    left: Option<Vec<u8>>,
    responder: Option<Responder<Forward>>,
}

impl Forward {
    fn hand_on(&mut self, piece: Vec<u8>, ctx: &mut Context<'_, Self>) {
        if let Err(error) = self.to.send(piece) {
            self.left = Some(error.into_message());
            ctx.wait_for_room(&self.to);
        }
    }
}

impl Actor for Forward {
    type Message = ();

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(piece) = self.left.take() {
            self.hand_on(piece, ctx);
        }
        Ok(())
    }
}

impl Service for Forward {
    type Upgraded = Never<()>;

    fn intake(&mut self, _: &Request<'_>, _: &mut Context<'_, Self>) -> Intake {
        Intake::Stream(u64::MAX)
    }

    fn request(
        &mut self,
        _: Request<'_>,
        responder: Responder<Self>,
        _: &mut Context<'_, Self>,
    ) -> Outcome {
        self.responder = Some(responder);
        Ok(())
    }

    fn body(&mut self, _: u64, piece: Option<&[u8]>, ctx: &mut Context<'_, Self>) -> Outcome {
        match (piece, self.responder.take()) {
            (None, Some(responder)) => responder.answer(Response::text("all")),
            (Some(piece), responder) => {
                self.responder = responder;
                self.hand_on(piece.to_vec(), ctx);
            }
            (None, None) => {}
        }
        Ok(())
    }
}

#[test]
fn what_waits_for_room_elsewhere_is_not_the_clients_delay() {
    let mut probe: Probe<Vec<u8>> = Probe::with_bound(2);
    let mut stage = Stage::new(Http::new(Forward {
        to: probe.recipient(),
        left: None,
        responder: None,
    }));
    stage.receive(post("/", "Content-Length: 12\r\n", "abc"));
    stage.receive("def");
    stage.receive("ghi");
    stage.advance(Duration::from_secs(100));
    assert_eq!(stage.output(), "");
    assert!(stage.reason().is_none());
    assert_eq!(probe.take_all(), [b"abc", b"def"]);
    stage.run();
    stage.advance(Duration::from_secs(29));
    assert!(stage.reason().is_none());
    stage.receive("jkl");
    assert_eq!(answers(&stage.output())[0].text(), "all");
    assert_eq!(probe.take_all(), [b"ghi", b"jkl"]);
}

#[test]
fn the_end_of_a_body_is_told_though_its_last_piece_has_waited() {
    for (fields, body) in [
        ("Content-Length: 3\r\n", "abc"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ] {
        for half_closes in [false, true] {
            let mut probe: Probe<Vec<u8>> = Probe::with_bound(2);
            let mut stage = Stage::new(Http::new(Forward {
                to: probe.recipient(),
                left: None,
                responder: None,
            }));
            for _ in 0..2 {
                stage.receive(post("/", "Content-Length: 1\r\n", "x"));
                assert_eq!(answers(&stage.output())[0].text(), "all");
            }
            stage.receive(post("/", fields, body));
            assert_eq!(stage.output(), "");
            if half_closes {
                stage.half_close();
            }
            probe.take_all();
            stage.run();
            assert_eq!(probe.take_all(), [b"abc"]);
            let found = answers(&stage.output());
            assert_eq!(found.len(), 1, "{fields} {half_closes}");
            assert_eq!(found[0].text(), "all", "{fields} {half_closes}");
        }
    }
}

// ---- ends ---------------------------------------------------------------------------------------

#[test]
fn a_peer_that_half_closes_still_gets_its_answers() {
    let mut stage = site();
    stage.receive([get("/"), get("/later")].concat());
    stage.half_close();
    assert!(stage.reason().is_none());
    stage.send(Say::Answer(1, "late"));
    let found = answers(&stage.output());
    assert_eq!([found[0].text(), found[1].text()], ["hello", "late"]);
    assert!(found[1].has("Connection: close"));
    assert!(matches!(stage.reason(), Some(CloseReason::PeerClosed)));
    // Half a request is none.
    for rest in [
        "GET / H".to_owned(),
        post("/", "Content-Length: 9\r\n", "abc"),
    ] {
        let mut stage = site();
        stage.receive([get("/later"), rest].concat());
        stage.half_close();
        stage.send(Say::Answer(0, "whole"));
        assert_eq!(one(&mut stage).text(), "whole");
        assert!(matches!(stage.reason(), Some(CloseReason::PeerClosed)));
    }
}

#[test]
fn a_stop_waits_for_the_answers_that_are_owed() {
    let mut stage = site();
    stage.receive([get("/later"), get("/later")].concat());
    stage.stop(Duration::from_secs(5));
    assert!(stage.reason().is_none());
    stage.send(Say::Answer(0, "a"));
    assert!(!one(&mut stage).has("Connection: close"));
    stage.send(Say::Answer(1, "b"));
    assert!(one(&mut stage).has("Connection: close"));
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    // And no longer than where nothing is.
    let mut stage = site();
    stage.receive(get("/"));
    stage.stop(Duration::from_secs(5));
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
}

#[test]
fn a_stop_waits_for_the_answers_to_a_peer_that_has_half_closed() {
    let mut stage = site();
    stage.receive([get("/later"), get("/later")].concat());
    stage.half_close();
    stage.stop(Duration::from_secs(5));
    assert!(stage.reason().is_none());
    stage.send(Say::Answer(0, "a"));
    stage.send(Say::Answer(1, "b"));
    let found = answers(&stage.output());
    assert_eq!([found[0].text(), found[1].text()], ["a", "b"]);
    assert!(stage.reason().is_some());
}

#[test]
fn what_a_peer_asked_before_it_half_closed_is_answered_past_any_bound() {
    let mut stage = with(Options::new().pending_max(3));
    stage.receive(get("/later").repeat(5));
    stage.half_close();
    for id in 0..5 {
        stage.send(Say::Answer(id, "c"));
    }
    assert_eq!(answers(&stage.output()).len(), 5);
    assert!(matches!(stage.reason(), Some(CloseReason::PeerClosed)));
    let mut stage = site();
    stage.stall();
    let request = post("/", "Content-Length: 10000\r\n", &"e".repeat(10_000));
    stage.receive(request.repeat(20));
    stage.half_close();
    stage.unstall();
    assert_eq!(answers(&stage.output()).len(), 20);
    assert!(matches!(stage.reason(), Some(CloseReason::PeerClosed)));
}

#[test]
fn a_close_does_not_make_half_a_body_whole() {
    for (version, is_reset) in [("1.0", true), ("1.1", false)] {
        let mut stage = site();
        stage.receive(format!("GET /later HTTP/{version}\r\nHost: a\r\n\r\n"));
        let taken = take(&mut stage);
        let mut writer = taken.recv().unwrap().stream(Response::new(200));
        writer.write("half").unwrap();
        stage.run();
        stage.addr().close();
        stage.run();
        assert_eq!(stage.is_reset(), is_reset, "{version}");
        // A reader of chunks misses the last one.
        assert!(!stage.output().ends_with(b"0\r\n\r\n"));
        assert!(stage.reason().is_some());
    }
}

#[test]
fn another_protocol_does_not_begin_by_an_answer() {
    let mut stage = site();
    stage.receive(get("/later"));
    let taken = take(&mut stage);
    let responder = taken.recv().unwrap();
    responder.answer(Response::switching("echo"));
    stage.run();
    assert_eq!(one(&mut stage).status(), 500);
}

#[test]
fn close_errors_and_panics_end_the_connection() {
    let mut stage = site();
    stage.receive([get("/close"), get("/")].concat());
    assert_eq!(one(&mut stage).text(), "closing");
    assert_eq!(service(&stage).closed.as_deref(), Some("finished"));
    let mut stage = site();
    stage.receive([get("/last"), get("/")].concat());
    let answer = one(&mut stage);
    assert!(answer.text() == "last" && answer.has("Connection: close"));
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    let mut stage = site();
    stage.receive([get("/fail"), get("/")].concat());
    assert_eq!(one(&mut stage).status(), 500);
    assert_eq!(service(&stage).closed.as_deref(), Some("told to"));
    let mut stage = site();
    stage.receive([get("/big"), get("/close")].concat());
    assert_eq!(answers(&stage.output())[0].body.len(), 6_000_000);
    // Whoever asks for the end, what has been answered leaves in front of it.
    let mut stage = site();
    stage.stall();
    stage.receive(post(
        "/",
        "Content-Length: 300000\r\n",
        &"e".repeat(300_000),
    ));
    stage.addr().close();
    stage.run();
    stage.unstall();
    assert_eq!(one(&mut stage).body.len(), 300_000);
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    let mut stage = site();
    stage.receive(get("/later"));
    stage.send(Say::Close);
    assert_eq!(stage.output(), "");
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    for (path, what) in [("/panic", "told to"), ("/write", "through its Responder")] {
        let mut stage = site();
        let receive = || stage.receive([get("/"), get(path)].concat());
        catch_unwind(AssertUnwindSafe(receive)).unwrap_err();
        assert!(stage.is_reset());
        let reason = stage.reason().unwrap().to_string();
        assert!(reason.contains(what), "{reason}");
        assert!(service(&stage).closed.is_some());
    }
}

// ---- what the user sets -------------------------------------------------------------------------

#[test]
fn a_field_that_would_end_a_line_is_an_error_and_never_sent() {
    use greenroom::http::HeaderErrorKind::{Name, Reserved, Value};
    for (name, value, kind) in [
        ("X", "a\r\nSet-Cookie: b", Value),
        ("X", "a\nb", Value),
        ("X", "a\r", Value),
        ("X", "\0", Value),
        ("X", "a\x7f", Value),
        ("X\r\nY", "a", Name),
        ("X: Y", "a", Name),
        ("", "a", Name),
        ("X ", "a", Name),
        ("Content-Length", "1", Reserved),
        ("transfer-encoding", "chunked", Reserved),
        ("Connection", "close", Reserved),
        ("Date", "today", Reserved),
    ] {
        let error = Response::new(200).try_header(name, value).unwrap_err();
        assert_eq!(error.kind(), kind, "{name:?}");
        let panicked = catch_unwind(|| Response::new(200).header(name, value)).unwrap_err();
        let text = panicked.downcast_ref::<String>().unwrap();
        assert_eq!(text, &error.to_string());
        assert!(!text.contains(['\r', '\n']));
    }
    let response = Response::new(200).header("X-Ü".trim_end_matches('Ü'), "t\tä");
    assert_eq!(response.status(), 200);
    for status in [0, 100, 101, 199, 600] {
        catch_unwind(|| Response::new(status)).unwrap_err();
    }
    catch_unwind(|| Response::switching("a\r\nb")).unwrap_err();
}

#[test]
fn what_is_kept_behind_a_request_that_waits_is_not_slow() {
    for rest in [
        get("/later"),
        "GET / HT".to_owned(),
        post("/", "Content-Length: 9\r\n", "abc"),
    ] {
        let mut stage = with(Options::new().pending_max(1));
        stage.receive([get("/later"), rest].concat());
        stage.advance(Duration::from_secs(600));
        assert!(stage.reason().is_none(), "{:?}", stage.reason());
        stage.send(Say::Answer(0, "first"));
        assert_eq!(one(&mut stage).text(), "first");
        stage.advance(Duration::from_secs(9));
        assert!(stage.reason().is_none(), "{:?}", stage.reason());
    }
}

#[test]
fn a_file_is_not_lost_in_a_stream() {
    let mut stage = site();
    stage.receive(get("/later"));
    let taken = take(&mut stage);
    let responder = taken.recv().unwrap();
    let file = std::fs::File::open("Cargo.toml").unwrap();
    let stream = || drop(responder.stream(Response::new(200).file(file, 0, 10)));
    catch_unwind(AssertUnwindSafe(stream)).unwrap_err();
    stage.run();
    assert_eq!(one(&mut stage).status(), 500);
}

#[test]
fn a_file_that_is_still_leaving_is_not_idle() {
    let file = Arc::new(std::fs::File::open("Cargo.lock").unwrap());
    let mut stage = Stage::new(Http::new(Files(file, 0, 50_000)));
    stage.stall();
    stage.receive(get("/file"));
    let mut taken = 0;
    for _ in 0..11 {
        stage.advance(Duration::from_secs(20));
        taken += stage.take_output(5_000).len();
    }
    assert!(taken > 40_000, "{taken}");
    stage.unstall();
    stage.output();
    stage.receive(get("/"));
    assert!(stage.reason().is_none(), "{:?}", stage.reason());
    assert_eq!(answers(&stage.output()).len(), 1);
}

#[test]
fn a_body_behind_an_answer_that_is_being_taken_is_not_slow() {
    for slow in [SlowReader::Close, SlowReader::PauseSource] {
        let options = ConnectionOptions::new().slow_reader(slow);
        let mut stage = Stage::with_options(Http::new(Site::default()), options);
        stage.stall();
        stage.receive([get("/big"), post("/", "Content-Length: 6\r\n", "abc")].concat());
        for _ in 0..10 {
            stage.advance(Duration::from_secs(20));
            let _ = stage.take_output(1_000);
        }
        assert!(stage.reason().is_none(), "{:?}", stage.reason());
        stage.receive("def");
        stage.unstall();
        let output = stage.output();
        assert!(output.ends_with(b"abcdef"), "{slow:?}");
        // Begun before.
        stage.receive(post("/", "Content-Length: 6\r\n", "abc"));
        stage.stall();
        stage.advance(Duration::from_secs(20));
        stage.receive("def");
        stage.unstall();
        assert_eq!(one(&mut stage).text(), "abcdef");
    }
}

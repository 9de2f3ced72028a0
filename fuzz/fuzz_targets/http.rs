//! The server of HTTP: whatever comes, what goes out is answers, each whole, one for each request that was shown and at
//! most one more, which closes; in the order of the requests, the same however the bytes come. At `/socket` it becomes
//! a WebSocket.

#![no_main]

use std::cell::RefCell;
use std::rc::Rc;

use greenroom::http::{Http, Intake, Options, Request, Responder, Response, Service};
use greenroom::protocol::{Frame, FrameActor};
use greenroom::testing::Stage;
use greenroom::websocket::{self, WebSocket};
use greenroom::*;
use libfuzzer_sys::fuzz_target;

const HEAD_MAX: usize = 400;
const BODY_MAX: usize = 300;
const PENDING_MAX: usize = 4;

/// What outlives the service.
#[derive(Default, Clone, Debug, PartialEq)]
struct Notes {
    shown: Vec<String>,
    streamed: usize,
}

struct Page {
    notes: Rc<RefCell<Notes>>,
    /// Answers that are given later, and in the wrong order.
    later: Vec<(Responder<Page>, Response)>,
}

/// What it becomes.
struct Echo;

impl Actor for Echo {
    type Message = ();
}

impl FrameActor for Echo {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame(frame)?;
        Ok(())
    }
}

impl Actor for Page {
    /// Give the answers that wait.
    type Message = ();

    fn message(&mut self, (): (), _ctx: &mut Context<'_, Self>) -> Outcome {
        for (responder, response) in self.later.drain(..).rev() {
            responder.answer(response);
        }
        Ok(())
    }
}

impl Service for Page {
    type Upgraded = WebSocket<Echo>;

    fn intake(&mut self, request: &Request<'_>, _ctx: &mut Context<'_, Self>) -> Intake {
        match request.path() {
            "/stream" => Intake::Stream(BODY_MAX as u64),
            "/refuse" => Intake::Refuse(Response::new(403)),
            _ => Intake::Collect(usize::MAX),
        }
    }

    fn request(
        &mut self,
        request: Request<'_>,
        responder: Responder<Self>,
        _ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        assert!(request.body().len() <= BODY_MAX, "{}", request.body().len());
        assert!(
            self.later.len() < PENDING_MAX,
            "{} pending",
            self.later.len()
        );
        let number = self.notes.borrow().shown.len();
        let line = format!("{} {}", request.method(), request.target());
        self.notes.borrow_mut().shown.push(line);
        let response = Response::text(request.body().to_vec()).header("Number", number.to_string());
        match request.path() {
            "/later" => self.later.push((responder, response)),
            "/drop" => drop(responder),
            "/chunks" => {
                let mut body = responder.stream(response);
                assert!(body.write("more").is_ok());
                body.finish();
            }
            "/socket" => match request.websocket() {
                Ok(upgrade) => {
                    let options = websocket::Options::new().message_max(BODY_MAX);
                    responder.upgrade(&upgrade, || WebSocket::upgraded(options, Echo));
                }
                Err(refusal) => {
                    responder.answer(Response::from(refusal).header("Number", number.to_string()))
                }
            },
            "/error" => return Err("an error of the service".into()),
            _ => responder.answer(response),
        }
        Ok(())
    }

    fn body(&mut self, _id: u64, piece: Option<&[u8]>, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.notes.borrow_mut().streamed += piece.map_or(0, <[u8]>::len);
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
struct Seen {
    notes: Notes,
    /// Without the date.
    answers: Vec<String>,
    reason: String,
}

fn run(pieces: &[&[u8]]) -> Seen {
    let options = Options::new()
        .head_max(HEAD_MAX)
        .headers_max(8)
        .target_max(100)
        .body_max(BODY_MAX)
        .pending_max(PENDING_MAX);
    let notes = Rc::new(RefCell::new(Notes::default()));
    let page = Page {
        notes: notes.clone(),
        later: Vec::new(),
    };
    let mut stage = Stage::new(Http::with_options(page, options));
    let mut output = Vec::new();
    for piece in pieces {
        stage.receive(piece);
        output.extend_from_slice(&stage.output());
    }
    // What waits is answered, and makes room for more.
    while stage.reason().is_none()
        && stage
            .actor()
            .service()
            .is_some_and(|page| !page.later.is_empty())
    {
        stage.send(());
    }
    stage.half_close();
    while stage.reason().is_none()
        && stage
            .actor()
            .service()
            .is_some_and(|page| !page.later.is_empty())
    {
        stage.send(());
    }
    output.extend_from_slice(&stage.output());
    let Some(reason) = stage.reason() else {
        let (is_paused, output) = (stage.is_paused(), output.escape_ascii());
        panic!(
            "it does not end with its input; paused: {is_paused}; {} pieces; {output}",
            pieces.len()
        );
    };
    let reason = reason.to_string();
    drop(stage);
    let notes = notes.take();
    Seen {
        answers: answers(&output, &notes.shown),
        notes,
        reason,
    }
}

/// The answers in what was written: each is whole, but for the body of the last one.
fn answers(mut output: &[u8], shown: &[String]) -> Vec<String> {
    let mut answers = Vec::new();
    while !output.is_empty() {
        let head = output
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a whole head")
            + 4;
        let text = std::str::from_utf8(&output[..head]).expect("a head of text");
        output = &output[head..];
        let mut lines = text.lines();
        let status = lines.next().unwrap();
        let code = status.strip_prefix("HTTP/1.1 ").expect("a status line");
        assert!(
            code.as_bytes()[..3].iter().all(u8::is_ascii_digit),
            "{status}"
        );
        let field = |name: &str| {
            let mut values = text.lines().filter_map(|line| {
                let (found, value) = line.split_once(": ")?;
                found.eq_ignore_ascii_case(name).then_some(value)
            });
            let value = values.next();
            assert_eq!(values.next(), None, "{name} twice in {text}");
            value
        };
        let mut answer: String = text
            .lines()
            .filter(|line| !line.starts_with("Date:"))
            .collect::<Vec<_>>()
            .join("\n");
        // 100 (Continue) is no answer, and is left out when the body is there already.
        if code.starts_with("100") {
            continue;
        }
        // What follows is frames.
        if code.starts_with("101") {
            answers.push(format!("{answer}\n{output:?}"));
            break;
        }
        let number = answers.len();
        if let Some(claimed) = field("Number") {
            assert_eq!(claimed, number.to_string(), "in the order of the requests");
        }
        let is_head = shown
            .get(number)
            .is_some_and(|request| request.starts_with("HEAD "));
        let has_no_body = is_head || code.starts_with("204") || code.starts_with("304");
        let length =
            field("Content-Length").map(|digits| digits.parse::<usize>().expect("a number"));
        if has_no_body {
        } else if field("Transfer-Encoding").is_some() {
            assert_eq!(length, None, "both lengths in {text}");
            loop {
                let line = output
                    .windows(2)
                    .position(|two| two == b"\r\n")
                    .expect("a whole chunk line");
                let size = std::str::from_utf8(&output[..line]).unwrap();
                let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
                answer.push_str(&format!("\n{:?}", &output[line + 2..line + 2 + size]));
                output = output[line + 2 + size..]
                    .strip_prefix(b"\r\n")
                    .expect("the end of a chunk");
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = length {
            let (body, rest) = output.split_at(length);
            answer.push_str(&format!("\n{body:?}"));
            output = rest;
        } else {
            // Up to the end.
            answer.push_str(&format!("\n{output:?}"));
            output = &[];
        }
        answers.push(answer);
    }
    assert!(
        answers.len() <= shown.len() + 1,
        "answers to {shown:?}: {answers:#?}"
    );
    answers
}

fuzz_target!(|bytes: &[u8]| {
    greenroom_fuzz::same_however_cut(bytes, run);
});

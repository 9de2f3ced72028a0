//! Requests of all kinds, whole and damaged, in any pieces: how the bytes were cut makes no
//! difference to what the service sees and to what is answered, and nothing is answered twice.

use greenroom::http::{Http, Intake, Never, Request, Responder, Response, Service};
use greenroom::testing::Stage;
use greenroom::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Notes what it is given, and answers with the number of the request.
#[derive(Default)]
struct Site {
    seen: Vec<String>,
    streamed: Vec<u8>,
    waiting: Vec<Responder<Site>>,
}

impl Actor for Site {
    type Message = ();

    /// Answers the last one that waits.
    fn message(&mut self, (): (), _: &mut Context<'_, Self>) -> Outcome {
        if let Some(responder) = self.waiting.pop() {
            let id = responder.id();
            responder.answer(Response::text(format!("late {id}")));
        }
        Ok(())
    }
}

impl Service for Site {
    type Upgraded = Never<()>;

    fn intake(&mut self, request: &Request<'_>, _: &mut Context<'_, Self>) -> Intake {
        match request.path() {
            "/stream" => Intake::Stream(3_000),
            _ => Intake::Collect(2_000),
        }
    }

    fn request(
        &mut self,
        request: Request<'_>,
        responder: Responder<Self>,
        _: &mut Context<'_, Self>,
    ) -> Outcome {
        let fields: Vec<_> = request
            .headers()
            .map(|(name, value)| format!("{name}={}", value.escape_ascii()))
            .collect();
        self.seen.push(format!(
            "{} {} {} {fields:?} {}",
            request.id(),
            request.method(),
            request.target(),
            request.body().escape_ascii()
        ));
        match request.path() {
            "/later" => self.waiting.push(responder),
            "/drop" => drop(responder),
            _ => {
                let text = format!("answer {}", request.id());
                responder.answer(Response::text(text));
            }
        }
        Ok(())
    }

    fn body(&mut self, id: u64, piece: Option<&[u8]>, _: &mut Context<'_, Self>) -> Outcome {
        match piece {
            Some(piece) => self.streamed.extend_from_slice(piece),
            None => {
                let streamed = std::mem::take(&mut self.streamed);
                self.seen.push(format!("{id} {}", streamed.escape_ascii()));
            }
        }
        Ok(())
    }
}

/// All that can be told from outside.
#[derive(Debug, PartialEq)]
struct Outside {
    seen: Vec<String>,
    output: Vec<u8>,
    reason: Option<String>,
    refused: u64,
}

fn serve<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outside {
    let mut stage = Stage::new(Http::new(Site::default()));
    for piece in pieces {
        if stage.reason().is_none() {
            stage.receive(piece);
        }
    }
    // Those that wait are answered last to first, and those that come in then.
    while stage.reason().is_none() && !service(&stage).waiting.is_empty() {
        stage.send(());
    }
    let output = stage.output().to_vec();
    let seen = service(&stage).seen.clone();
    Outside {
        seen,
        output,
        reason: stage.reason().map(ToString::to_string),
        refused: stage.stats().requests_refused,
    }
}

fn service(stage: &Stage<Http<Site>>) -> std::cell::Ref<'_, Site> {
    std::cell::Ref::map(stage.actor(), |http| http.service().expect("it has it"))
}

/// Cuts `bytes` at these places.
fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .filter(|piece| !piece.is_empty())
        .collect()
}

fn chunked(body: Vec<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, chunk) in body.iter().filter(|chunk| !chunk.is_empty()).enumerate() {
        let extension = if number % 3 == 1 { ";a=b" } else { "" };
        bytes.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    let trailers = if body.len().is_multiple_of(2) {
        ""
    } else {
        "Trailer: t\r\n"
    };
    bytes.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    bytes
}

/// A request, and whether the service is to see it.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let path = select(vec![
        "/",
        "/later",
        "/drop",
        "/stream",
        "/a?b=c",
        "http://h/p",
    ]);
    let version = select(vec![
        "HTTP/1.1",
        "HTTP/1.1",
        "HTTP/1.1",
        "HTTP/1.0\r\nConnection: keep-alive",
    ]);
    let fields = vec("[a-z]{1,8}: ?[ -~]{0,12}", 0..4);
    let body = prop_oneof![
        3 => Just(None),
        2 => vec(any::<u8>(), 0..300).prop_map(|body| Some((body, false))),
        2 => vec(vec(any::<u8>(), 0..80), 0..6).prop_map(|body| Some((chunked(body), true))),
    ];
    (path, version, fields, body, any::<bool>()).prop_map(|(path, version, fields, body, empty)| {
        let line = if empty { "\r\n" } else { "" };
        let is_old = version.starts_with("HTTP/1.0");
        let fields: String = fields
            .iter()
            .filter(|field| {
                !["te", "host", "expect"]
                    .iter()
                    .any(|name| field.starts_with(name))
            })
            .map(|field| format!("X-{field}\r\n"))
            .collect();
        let length = match &body {
            None => String::new(),
            Some((_, true)) if !is_old => "Transfer-Encoding: chunked\r\n".to_owned(),
            Some((body, _)) => format!("Content-Length: {}\r\n", body.len()),
        };
        let method = if body.is_some() { "POST" } else { "GET" };
        let head = format!("{line}{method} {path} {version}\r\nHost: a\r\n{fields}{length}\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(body.map(|(body, _)| body).unwrap_or_default());
        bytes
    })
}

fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes
        .windows(what.len())
        .filter(|window| *window == what)
        .count()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(200)
    })]

    #[test]
    fn any_cut_of_good_requests_gives_the_same(
        requests in vec(request(), 1..12),
        cuts in vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let bytes = requests.concat();
        let whole = serve([&bytes[..]]);
        prop_assert_eq!(&whole.reason, &None);
        prop_assert_eq!(whole.refused, 0);
        // Each is answered, once.
        prop_assert_eq!(count(&whole.output, b"HTTP/1.1 "), requests.len());
        for id in 0..requests.len() {
            let answered = count(&whole.output, format!(" {id}HTTP/1.1 ").as_bytes());
            prop_assert!(answered <= 1);
        }
        prop_assert_eq!(&serve(cut(&bytes, &cuts)), &whole);
    }

    #[test]
    fn any_cut_of_damaged_requests_gives_the_same(
        requests in vec(request(), 1..6),
        damage in vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 1..4),
        cuts in vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut bytes = requests.concat();
        for (place, kind, byte) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\r\n\0: ,;+-0f"[usize::from(byte) % 11]),
                _ => bytes.truncate(at),
            }
        }
        let whole = serve([&bytes[..]]);
        prop_assert!(whole.refused <= 1);
        prop_assert!(count(&whole.output, b"HTTP/1.1 ") <= whole.seen.len() + 1);
        prop_assert_eq!(&serve(cut(&bytes, &cuts)), &whole);
        prop_assert_eq!(&serve(bytes.chunks(1)), &whole);
    }

    #[test]
    fn any_bytes_end_in_an_answer_or_wait(
        bytes in vec(any::<u8>(), 0..500),
        cuts in vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let whole = serve([&bytes[..]]);
        prop_assert_eq!(serve(cut(&bytes, &cuts)), whole);
    }
}

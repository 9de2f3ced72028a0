//! Answers `GET /` with `Hello, World!`, over HTTP/1.1 with keep-alive and pipelining.
//!
//!     cargo run --release --example http_plaintext
//!     curl -i http://127.0.0.1:9000/
//!
//! All requests that one read has brought are answered in one write. A connection keeps nothing of
//! its own: a request that is incomplete, its body included, stays in its input until the rest has
//! come, within limits of bytes and of time.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use greenroom::{
    Actor, ConnectionOptions, Context, Input, ListenOptions, Outcome, SlowReader, TimerKey,
};
use httparse::{Header, Request, Status};

mod support;

/// Bytes of a request line and its header fields, as with most servers. It also bounds what a peer
/// costs that sends them byte by byte: each time they are parsed from the start.
const HEAD_MAX: usize = 8 << 10;

const HEADERS_MAX: usize = 64;

/// Bytes of a request's body. Nobody looks at it; it is kept whole only because that makes the time
/// that it may take a limit of the framework's.
const BODY_MAX: usize = 64 << 10;

/// How long a connection may wait for its next request.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Answers `GET /` with `Hello, World!`.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,
}

const OK: &str = "200 OK";
const BAD_REQUEST: &str = "400 Bad Request";
const NOT_FOUND: &str = "404 Not Found";
const METHOD_NOT_ALLOWED: &str = "405 Method Not Allowed";
const LENGTH_REQUIRED: &str = "411 Length Required";
const CONTENT_TOO_LARGE: &str = "413 Content Too Large";
const EXPECTATION_FAILED: &str = "417 Expectation Failed";
const FIELDS_TOO_LARGE: &str = "431 Request Header Fields Too Large";
const NOT_IMPLEMENTED: &str = "501 Not Implemented";
const VERSION_NOT_SUPPORTED: &str = "505 HTTP Version Not Supported";

thread_local! {
    /// The same for all connections of a poller; kept up to date by its [`Clock`].
    static PREPARED: RefCell<Prepared> = RefCell::new(Prepared::now());
}

struct Prepared {
    date: String,
    /// The whole answer to nearly every request.
    hello: String,
}

impl Prepared {
    fn now() -> Prepared {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let hello = Answer::HELLO.to_http(&date);
        Prepared { date, hello }
    }
}

/// Writes the date anew at each full second. One lives on each poller.
struct Clock;

impl Clock {
    fn tick(ctx: &mut Context<'_, Clock>) -> Outcome {
        PREPARED.set(Prepared::now());
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let into_second = Duration::from_nanos(since_1970.subsec_nanos().into());
        ctx.set_timer(Duration::from_secs(1) - into_second);
        Ok(())
    }
}

impl Actor for Clock {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        Clock::tick(ctx)
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        Clock::tick(ctx)
    }
}

/// One connection.
struct Connection;

impl Actor for Connection {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        PREPARED.with_borrow(|prepared| {
            while !input.is_empty() && !ctx.is_closing() {
                match parse(input.bytes()) {
                    Parsed::Complete { len, answer } => {
                        input.consume(len);
                        answer.write(prepared, ctx);
                    }
                    Parsed::Refused(status) => Answer::refusal(status).write(prepared, ctx),
                    Parsed::HeadIncomplete => break,
                    Parsed::BodyIncomplete { head, len, expects } => {
                        // Once: the next call comes when all is there. And only to who waits for
                        // it, which is who has not begun with the body.
                        if expects && input.len() == head {
                            ctx.write("HTTP/1.1 100 Continue\r\n\r\n");
                        }
                        input.need(len);
                        break;
                    }
                }
            }
        });
        Ok(())
    }
}

/// What the input begins with.
enum Parsed {
    Complete {
        len: usize,
        answer: Answer,
    },
    HeadIncomplete,
    /// A head of `head` bytes, and not all of the `len` bytes that it makes with its body.
    BodyIncomplete {
        head: usize,
        len: usize,
        expects: bool,
    },
    /// Nobody can tell, or wants to know, where the next request begins.
    Refused(&'static str),
}

/// Wherever two readers of the same bytes could disagree on where a request ends (two lengths, a
/// length and a coding, ...), it is refused: what one takes for a body must not be a request to the
/// other.
fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = Request::new(&mut []);
    let searched = &bytes[..bytes.len().min(HEAD_MAX)];
    let head = match request.parse_with_uninit_headers(searched, &mut headers) {
        Ok(Status::Complete(head)) => head,
        Ok(Status::Partial) if bytes.len() < HEAD_MAX => return Parsed::HeadIncomplete,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Refused(FIELDS_TOO_LARGE);
        }
        Err(httparse::Error::Version) => return Parsed::Refused(VERSION_NOT_SUPPORTED),
        Err(_) => return Parsed::Refused(BAD_REQUEST),
    };
    let is_1_0 = request.version == Some(0);
    let fields = match Fields::read(request.headers, is_1_0) {
        Ok(fields) => fields,
        Err(status) => return Parsed::Refused(status),
    };
    let len = head + fields.body;
    if bytes.len() < len {
        let expects = fields.expects_continue && !is_1_0;
        return Parsed::BodyIncomplete { head, len, expects };
    }
    let method = request.method.unwrap_or_default();
    let status = match method {
        _ if !is_here(request.path.unwrap_or_default()) => NOT_FOUND,
        "GET" | "HEAD" => OK,
        _ => METHOD_NOT_ALLOWED,
    };
    let answer = Answer {
        status,
        stays: match (is_1_0, fields.close, fields.keep_alive) {
            (_, true, _) | (true, _, false) => Stays::No,
            (true, false, true) => Stays::Announced,
            (false, false, _) => Stays::Yes,
        },
        head_only: method == "HEAD",
    };
    Parsed::Complete { len, answer }
}

/// Whether there is something under this target: a path, or a whole URL as sent to proxies.
fn is_here(target: &str) -> bool {
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        None => target,
    };
    matches!(path.split('?').next(), Some("/" | "/plaintext"))
}

/// What the header fields say of interest here.
#[derive(Default)]
struct Fields {
    has_host: bool,
    length: Option<usize>,
    body: usize,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Fields {
    fn read(headers: &[Header<'_>], is_1_0: bool) -> Result<Fields, &'static str> {
        let mut fields = Fields::default();
        let mut coding = None;
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            // Most fields are none of these, and by their length.
            match header.name.len() {
                4 if is("host") && fields.has_host => return Err(BAD_REQUEST),
                4 if is("host") => fields.has_host = true,
                6 if is("expect") => {
                    if !header.value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(EXPECTATION_FAILED);
                    }
                    fields.expects_continue = true;
                }
                10 if is("connection") => {
                    for option in header.value.split(|&byte| byte == b',') {
                        let option = option.trim_ascii();
                        fields.close |= option.eq_ignore_ascii_case(b"close");
                        fields.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                14 if is("content-length") => {
                    let digits = std::str::from_utf8(header.value).unwrap_or_default();
                    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
                    if digits.is_empty() || !is_number || fields.length.is_some() {
                        return Err(BAD_REQUEST);
                    }
                    // Digits fail to parse only where there are too many.
                    fields.length = Some(digits.parse().unwrap_or(usize::MAX));
                }
                17 if is("transfer-encoding") => coding = Some(header.value),
                _ => {}
            }
        }
        match (coding, fields.length) {
            (Some(_), Some(_)) => Err(BAD_REQUEST),
            (Some(_), None) if is_1_0 => Err(BAD_REQUEST),
            // A server may insist on a length, and this one has no use for bodies.
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Err(LENGTH_REQUIRED),
            (Some(_), None) => Err(NOT_IMPLEMENTED),
            (None, Some(length)) if length > BODY_MAX => Err(CONTENT_TOO_LARGE),
            (None, _) if !is_1_0 && !fields.has_host => Err(BAD_REQUEST),
            (None, length) => {
                fields.body = length.unwrap_or(0);
                Ok(fields)
            }
        }
    }
}

/// Whether the connection stays open for the next request.
#[derive(Clone, Copy, PartialEq)]
enum Stays {
    Yes,
    /// As in HTTP/1.1, but said: to a client of HTTP/1.0, which does not expect it.
    Announced,
    No,
}

#[derive(PartialEq)]
struct Answer {
    status: &'static str,
    stays: Stays,
    /// With the length of the body, and without the body.
    head_only: bool,
}

impl Answer {
    const HELLO: Answer = Answer {
        status: OK,
        stays: Stays::Yes,
        head_only: false,
    };

    fn refusal(status: &'static str) -> Answer {
        Answer {
            status,
            stays: Stays::No,
            head_only: false,
        }
    }

    fn write(&self, prepared: &Prepared, ctx: &mut Context<'_, Connection>) {
        if *self == Answer::HELLO {
            ctx.write(&prepared.hello);
        } else {
            ctx.write(self.to_http(&prepared.date));
        }
        if self.stays == Stays::No {
            ctx.close();
        }
    }

    fn to_http(&self, date: &str) -> String {
        let status = self.status;
        let connection = match self.stays {
            Stays::Yes => "",
            Stays::Announced => "Connection: keep-alive\r\n",
            Stays::No => "Connection: close\r\n",
        };
        let allow = match status {
            METHOD_NOT_ALLOWED => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        let body = match status {
            OK => "Hello, World!".to_owned(),
            _ => format!("{status}\n"),
        };
        let shown = if self.head_only { "" } else { &body };
        format!(
            "HTTP/1.1 {status}\r\nServer: greenroom\r\nDate: {date}\r\n{connection}{allow}\
             Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{shown}",
            body.len()
        )
    }
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    for poller in 0..system.handle().pollers() {
        system.spawn_on(poller, || Clock);
    }
    // Who asks for more than it reads is made to wait with its next requests.
    let limits = ListenOptions::new().connection(
        ConnectionOptions::new()
            .slow_reader(SlowReader::PauseSource)
            .idle_timeout(KEEP_ALIVE),
    );
    let listener = system.listen_with(options.common.addr.as_str(), limits, |_peer| Connection)?;
    let url = support::for_curl(listener.local_addr());
    let then = format!(", then type GET / HTTP/1.0 and an empty line; or: curl -i {url}");
    support::run_until_signal(system, &listener, &then)
}

//! A page, a health check, metrics, an upload and a WebSocket on one port.
//!
//!     cargo run --release --example http_hello
//!     curl -i http://127.0.0.1:9000/
//!     curl -T Cargo.lock http://127.0.0.1:9000/upload
//!
//! Paths are told apart by a `match`. Whoever needs more than that puts a router of their choice
//! there: it is given a method and a path.

use std::fmt::Write;
use std::time::Instant;

use clap::Parser;
use greenroom::http::{Http, Intake, Request, Responder, Response, Service};
use greenroom::protocol::{Frame, FrameActor};
use greenroom::websocket::{self, WebSocket};
use greenroom::{Actor, Context, Outcome, Stats};

mod support;

/// Bytes of an upload. It is counted as it comes and kept nowhere.
const UPLOAD_MAX: u64 = 1 << 30;

const PAGE: &str = r"<!doctype html>
<html lang=en>
<meta charset=utf-8>
<title>Hello</title>
<h1>Hello</h1>
<p>This is <code>http_hello</code>. There is more at <a href=/health>/health</a> and
<a href=/metrics>/metrics</a>, and a WebSocket at <code>/echo</code>:</p>
<form><input aria-label=Message autofocus> <button>Send</button></form>
<pre aria-live=polite></pre>
<script>
const socket = new WebSocket(location.href.replace(/^http/, 'ws').replace(/\/[^/]*$/, '/echo'));
const [form, input, log] = ['form', 'input', 'pre'].map(name => document.querySelector(name));
const say = text => log.append(text + '\n');
socket.onmessage = message => say(message.data);
socket.onclose = () => say('(closed)');
form.onsubmit = event => { event.preventDefault(); socket.send(input.value); input.value = ''; };
</script>
</html>
";

/// A page, a health check, metrics, an upload and a WebSocket on one port.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,
}

/// One connection.
#[derive(Default)]
struct Site {
    upload: Option<Upload>,
}

/// An upload under way: of one connection there is one at a time.
struct Upload {
    responder: Responder<Site>,
    len: u64,
    since: Instant,
}

impl Actor for Site {
    type Message = ();
}

/// A connection that has become a WebSocket.
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

impl Service for Site {
    type Upgraded = WebSocket<Echo>;

    fn intake(&mut self, request: &Request<'_>, _: &mut Context<'_, Self>) -> Intake {
        match (request.method(), request.path()) {
            ("POST" | "PUT", "/upload") => Intake::Stream(UPLOAD_MAX),
            _ => Intake::Refuse(Response::new(405).header("Allow", "GET, HEAD")),
        }
    }

    fn request(
        &mut self,
        request: Request<'_>,
        responder: Responder<Self>,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        let is_get = matches!(request.method(), "GET" | "HEAD");
        let response = match request.path() {
            "/upload" if !is_get => {
                let upload = Upload {
                    responder,
                    len: 0,
                    since: ctx.now(),
                };
                self.upload = Some(upload);
                // One without a body has no end that would be told.
                if !request.has_body() {
                    self.body(request.id(), None, ctx)?;
                }
                return Ok(());
            }
            "/" | "/health" | "/metrics" | "/upload" if !is_get => {
                Response::new(405).header("Allow", "GET, HEAD")
            }
            "/" => Response::new(200)
                .header("Content-Type", "text/html; charset=utf-8")
                .body(PAGE),
            "/health" => Response::text("ok\n"),
            "/metrics" => Response::new(200)
                .header("Content-Type", "text/plain; version=0.0.4")
                .body(metrics(&ctx.system().stats())),
            "/upload" => Response::new(405).header("Allow", "POST, PUT"),
            "/echo" => match request.websocket() {
                Ok(upgrade) => {
                    let options = websocket::Options::new();
                    responder.upgrade(&upgrade, || WebSocket::upgraded(options, Echo));
                    return Ok(());
                }
                Err(refusal) => refusal.into(),
            },
            _ => Response::new(404),
        };
        responder.answer(response);
        Ok(())
    }

    fn body(&mut self, _: u64, piece: Option<&[u8]>, ctx: &mut Context<'_, Self>) -> Outcome {
        match (piece, &mut self.upload) {
            (Some(piece), Some(upload)) => upload.len += piece.len() as u64,
            (None, _) => {
                if let Some(Upload {
                    responder,
                    len,
                    since,
                }) = self.upload.take()
                {
                    let took = ctx.now() - since;
                    responder.answer(Response::text(format!("{len} bytes in {took:?}\n")));
                }
            }
            (Some(_), None) => {}
        }
        Ok(())
    }
}

/// What Prometheus reads.
fn metrics(stats: &Stats) -> String {
    let mut text = String::new();
    for (name, kind, help, value) in [
        (
            "connections",
            "gauge",
            "Sockets open now.",
            stats.connections,
        ),
        (
            "accepted_total",
            "counter",
            "Connections accepted.",
            stats.accepted,
        ),
        (
            "refused_total",
            "counter",
            "Connections for which there was no room.",
            stats.refused,
        ),
        (
            "requests_refused_total",
            "counter",
            "Malformed or oversized requests.",
            stats.requests_refused,
        ),
        ("panics_total", "counter", "Panics contained.", stats.panics),
        (
            "output_waiting_bytes",
            "gauge",
            "Output that sockets have refused.",
            stats.output_waiting,
        ),
    ] {
        // A String takes all that is written.
        let _ = writeln!(
            text,
            "# HELP greenroom_{name} {help}\n# TYPE greenroom_{name} {kind}\ngreenroom_{name} {value}"
        );
    }
    text
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let site = |_peer| Http::new(Site::default());
    let listener = system.listen(options.common.addr.as_str(), site)?;
    let url = support::for_curl(listener.local_addr());
    support::run_until_signal(system, &listener, &format!("; or: curl -i {url}"))
}

//! A small HTTP/1.1 server (feature `http`): enough for health, metrics, a page, an upload and an
//! upgrade, on any listener. No router, no framework.
//!
//! A connection is an actor here as everywhere. Its logic is a [`Service`]: an [`Actor`](crate::Actor)
//! that is given requests in place of bytes; [`Http`] around it is what a listener takes.
//!
//! ```no_run
//! use greenroom::http::{Http, Never, Request, Responder, Response, Service};
//! use greenroom::{Actor, Context, Outcome, System};
//!
//! struct Site;
//!
//! impl Actor for Site {
//!     type Message = ();
//! }
//!
//! impl Service for Site {
//!     type Upgraded = Never<()>;
//!
//!     fn request(
//!         &mut self,
//!         request: Request<'_>,
//!         responder: Responder<Self>,
//!         _ctx: &mut Context<'_, Self>,
//!     ) -> Outcome {
//!         responder.answer(match (request.method(), request.path()) {
//!             ("GET" | "HEAD", "/") => Response::text("Hello!\n"),
//!             ("POST", "/echo") => Response::new(200).body(request.body().to_vec()),
//!             _ => Response::new(404),
//!         });
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let system = System::builder().build()?;
//!     system.listen("127.0.0.1:9000", |_peer| Http::new(Site))?;
//!     system.run()
//! }
//! ```
//!
//! # Answers
//!
//! Each request comes with a [`Responder`], which is used up by answering: at once, or later from a
//! message, a timer, a thread or another actor. Answers leave in the order of the requests, whenever
//! they are given. Dropped unused it answers 500, so no request stays without an answer. A body is
//! whole ([`Response::body`], of any size), a file ([`Response::file`]), or given piece by piece
//! ([`Responder::stream`]); what the peer does not take yet is held back, and with it what gives it.
//!
//! # Bodies of requests
//!
//! By default a body is collected, up to a limit, and is there when [`Service::request`] is called.
//! [`Service::intake`] may have it come [piece by piece](Intake::Stream) instead, with its own limit,
//! or refuse it. A client that asks first (`Expect: 100-continue`) is told to go on when the body is
//! wanted and it is its turn. Trailers and chunk extensions are checked, counted and passed over.
//!
//! # Another protocol on the same port
//!
//! [`Responder::upgrade`] hands the connection to another actor with the same messages: the address
//! stays, and what came behind the request is its first input. With the feature `websocket` requests
//! have a method `websocket`, whose example shows one.
//!
//! ```
//! use greenroom::http::{Http, Request, Responder, Response, Service};
//! use greenroom::testing::Stage;
//! use greenroom::{Actor, Context, Input, Outcome};
//!
//! struct Echo;
//!
//! impl Actor for Echo {
//!     type Message = ();
//!
//!     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
//!         ctx.write(input.take_all());
//!         Ok(())
//!     }
//! }
//!
//! struct Site;
//!
//! impl Actor for Site {
//!     type Message = ();
//! }
//!
//! impl Service for Site {
//!     type Upgraded = Echo;
//!
//!     fn request(
//!         &mut self,
//!         request: Request<'_>,
//!         responder: Responder<Self>,
//!         _ctx: &mut Context<'_, Self>,
//!     ) -> Outcome {
//!         match request.wants_upgrade() && request.header("Upgrade") == Some(b"echo") {
//!             true => responder.upgrade(Response::switching("echo"), || Echo),
//!             false => responder.answer(Response::new(404)),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mut stage = Stage::new(Http::new(Site));
//! stage.receive("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhi");
//! assert!(stage.output().ends_with(b"\r\n\r\nhi"));
//! ```
//!
//! # Defaults
//!
//! A limit that is passed is told by its status, behind the answers to the requests in front; then
//! the connection closes, and [`Stats::requests_refused`](crate::Stats::requests_refused) counts it.
//!
//! | option | default | why this much | what happens there |
//! |---|---|---|---|
//! | [`Options::head_max`] | 16 KiB | twice what most clients' cookies grow to | 431 |
//! | [`Options::headers_max`] | 64 | browsers and proxies send some 30 | 431 |
//! | [`Options::target_max`] | 8 KiB | the least that servers should take (RFC 9110), all else is a body's | 414 |
//! | [`Options::body_max`], of a body that is collected | 1 MiB | a form or a message many times over; it is in memory | 413 |
//! | [`Intake::Stream`] | what the service says | only it knows | 413 |
//! | [`Options::pending_max`] | 32 requests without an answer, for each connection | as deep as clients pipeline; each may hold an answer that waits for its turn | no further one is read until one is answered |
//! | [`Options::head_timeout`] | 10 s from the first byte of a head to its last | it fits into a packet or two, which may have to be sent again | 408 |
//! | [`Options::body_timeout`] | 30 s, and as long again for each 64 KiB that have come | 2 KiB a second, a poor mobile line | 408 |
//! | [`Options::keep_alive`] | 75 s without a request | longer than most balancers and browsers wait, so that it is they who close | closed without a word |
//! | extensions of a chunk | 256 bytes, 4 KiB for a body | nobody uses them | 400 |
//! | trailers | 4 KiB | the same | 431 |
//! | a streamed body | 64 KiB held back, and the output's [watermarks](crate::ConnectionOptions::watermarks) | as much as the output itself | [`NoRoom`], then [`drained`](crate::Actor::drained) |
//!
//! While the output is above its high watermark no request is read. Beside these all limits of
//! [`ConnectionOptions`](crate::ConnectionOptions) hold. A service has no deadline for its answers
//! but its own.
//!
//! # What is refused
//!
//! Wherever two readers of the same bytes could disagree on where a request ends, it is answered with
//! 400 and the connection closes: more than one `Content-Length`, or one that is not digits alone;
//! `Transfer-Encoding` that does not end in one `chunked`, with HTTP/1.0, or beside a length; a line
//! that does not end in CR LF, in the head and between chunks; white space in front of a colon or a
//! line; control characters; a chunk that is longer or shorter than it says. So are no `Host` or two,
//! targets of no known form, and a second empty line in front of a request. 501 for other transfer
//! codings in front of `chunked` and for CONNECT, 505 for other versions, 417 for other expectations.

mod body;
mod connection;
mod date;
mod exchange;
mod head;
mod options;
mod request;
mod responder;
mod response;
mod service;
mod serving;
#[cfg(feature = "websocket")]
mod websocket;

pub use connection::Http;
pub use options::Options;
pub use request::Request;
pub use responder::{BodyWriter, NoRoom, Responder};
pub use response::{HeaderError, HeaderErrorKind, Response, Switch};
pub use service::{Intake, Never, Service};

//! A chat room, for lines of text and for browsers.
//!
//!     cargo run --release --example chat_room
//!     nc 127.0.0.1 9000        in two terminals, or a browser at http://127.0.0.1:8080
//!
//! Each connection is a [`Client`](client::Client), whether its lines come from a terminal or as the
//! messages of a page's WebSocket: that is the business of what lies around it. It asks the
//! [`Directory`], which knows all names and rooms, for a name and a place; what it says it sends to
//! its [`Room`](room::Room), which pushes it to everybody there.
//!
//! Who waits for whom when a mailbox is full: clients for rooms and the directory (their sockets
//! are paused), rooms for clients. A client goes on taking messages while it waits, so nobody waits
//! in a circle.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use greenroom::http::Http;
use greenroom::protocol::Framed;
use greenroom::websocket::{self, WebSocket};
use greenroom::{Addr, ConnectionOptions, ListenOptions, Listener, System};

mod allowance;
mod client;
pub(crate) mod clock;
mod directory;
mod event;
pub(crate) mod history;
mod lines;
mod page;
mod room;
#[path = "../support/mod.rs"]
mod support;

use allowance::Allowance;
use client::Client;
use clock::Clock;
use directory::Directory;
use event::Voice;
use lines::TypedLines;
use page::Page;
use support::self_signed::CertificateFile;

/// Bytes of a line, without its end.
const LINE_MAX: usize = 4096;

/// Bytes of a browser's message: a line that is too long can still be answered.
const MESSAGE_MAX: usize = 16 << 10;

/// How often a browser that says nothing is asked whether it is there, and how long it has to answer:
/// who has gone without a word is gone for the others within a minute.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Bytes that may wait for a client that does not read: some 10,000 lines of a lively room.
const OUTPUT_MAX: usize = 1 << 20;

/// Bytes that the kernel may hold for a client beside that. Left to itself it takes some MiB, and a
/// client that does not read would be noticed late.
const SEND_BUFFER: u32 = 64 << 10;

/// Messages that may wait for the rooms, or the clients, of one poller: 4 MiB if each is a line of
/// full length.
const MAILBOX_BOUND: usize = 1024;

/// A chat room, for lines of text and for browsers.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Where to serve the page: HOST:PORT, [IPV6]:PORT or unix:PATH. Port 0 takes any free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: String,

    /// TLS on both ports, with a certificate that is made for this run.
    #[arg(long)]
    tls: bool,

    /// Lines a second that a client may send in the long run, and ten times as many at once. As many
    /// beyond that are refused, and whoever sends even more is dropped. 0 is any number.
    #[arg(long, default_value_t = 10)]
    rate: u32,
}

/// Whether a nickname or the name of a room is a good one. Only ASCII, so that no two look the
/// same.
fn is_name(name: &str) -> bool {
    (1..=20).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// What a client may cost.
pub(crate) fn limits() -> ListenOptions {
    ListenOptions::new()
        .connection(ConnectionOptions::new().output_max(OUTPUT_MAX))
        .send_buffer(SEND_BUFFER)
}

/// A chat room, whichever ways lead into it.
#[derive(Clone)]
pub(crate) struct Chat {
    directory: Addr<Directory>,
    /// What each client begins with.
    allowance: Allowance,
    websocket: Arc<websocket::Options>,
}

impl Chat {
    pub(crate) fn new(system: &System, lines_a_second: u32, clock: Clock) -> Chat {
        Chat {
            directory: system.spawn(move || Directory::new(clock)),
            allowance: Allowance::new(lines_a_second),
            websocket: Arc::new(
                websocket::Options::new()
                    .message_max(MESSAGE_MAX)
                    .ping_every(PING_EVERY, PONG_WITHIN),
            ),
        }
    }

    fn client(&self, voice: Voice) -> Client {
        Client::new(self.directory.clone(), voice, self.allowance.clone())
    }

    /// What a page's connection becomes.
    fn browser(&self) -> WebSocket<Client> {
        WebSocket::upgraded(self.websocket.clone(), self.client(Voice::Json))
    }

    /// Serves lines of text.
    pub(crate) fn listen_for_lines(
        &self,
        system: &System,
        addr: &str,
        limits: ListenOptions,
    ) -> io::Result<Listener> {
        let chat = self.clone();
        system.listen_with(addr, limits, move |_peer| {
            Framed::new(TypedLines::new(), chat.client(Voice::Lines))
        })
    }

    /// Serves the page to browsers, and what they say on it.
    pub(crate) fn listen_for_browsers(
        &self,
        system: &System,
        addr: &str,
        limits: ListenOptions,
    ) -> io::Result<Listener> {
        let chat = self.clone();
        system.listen_with(addr, limits, move |_peer| {
            Http::new(Page::new(chat.clone()))
        })
    }
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options
        .common
        .builder()
        .mailbox_bound(MAILBOX_BOUND)
        .build()?;
    let chat = Chat::new(&system, options.rate, Clock::now());
    let mut limits = limits();
    // Whoever is to trust the certificate finds it in this file, which goes with us.
    let mut certificate = None;
    if options.tls {
        let (server, file) = support::self_signed::self_signed(&[])?;
        limits = limits.tls(server);
        certificate = Some(file);
    }
    let lines = chat.listen_for_lines(&system, &options.common.addr, limits.clone())?;
    let pages = chat.listen_for_browsers(&system, &options.http, limits)?;
    let to_try = to_try(&lines, &pages, certificate.as_ref());
    support::run_until_signal_saying(system, &lines, &to_try)
}

/// How to talk to it from a terminal and from a browser.
fn to_try(lines: &Listener, pages: &Listener, certificate: Option<&CertificateFile>) -> String {
    let (lines, pages) = (lines.local_addr(), pages.local_addr());
    let then = "in two terminals, a nickname in each, then talk; or open";
    match certificate {
        None => format!("nc {} {then} http://{pages}", support::for_nc(lines)),
        Some(file) => format!(
            "openssl s_client -quiet -CAfile {} -connect {lines} {then} https://{pages} \
             (the browser will ask whether you trust it)",
            file.path().display(),
        ),
    }
}

//! Sends back each message of a WebSocket, text as text and binary as binary, at any path.
//!
//!     cargo run --release --example websocket_echo
//!     python3 -m websockets ws://127.0.0.1:9000/
//!
//! Without Python, in the console of any browser:
//!
//!     let socket = new WebSocket("ws://127.0.0.1:9000/");
//!     socket.onmessage = message => console.log(message.data);
//!     socket.onopen = () => socket.send("hello");
//!
//! With `--tls` it speaks TLS, with a certificate of its own making. As a client it shows what it gets
//! and sends it back until the server closes:
//!
//!     cargo run --release --example websocket_echo -- --connect ws://127.0.0.1:9000/

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use clap::Parser;
use greenroom::protocol::{Frame, FrameActor, FrameKind};
use greenroom::websocket::{self, Request, Server, WebSocket};
use greenroom::{
    Actor, CloseReason, ConnectOptions, ConnectionOptions, Context, ListenOptions, Outcome, System,
};

mod support;

/// Bytes of a message: as many as the largest in Autobahn's suite.
const MESSAGE_MAX: usize = 16 << 20;

/// How much of a text a client shows.
const SHOWN_MAX: usize = 120;

/// Sends back each message of a WebSocket, text as text and binary as binary, at any path.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Speak TLS, with a certificate that is made at start; the start line says how to trust it.
    #[arg(long, conflicts_with = "connect")]
    tls: bool,

    /// Connect to this server instead, show what it says, send it back, and end with the connection.
    #[arg(long, value_name = "ws://HOST:PORT/PATH")]
    connect: Option<Url>,
}

/// What is known of a server.
#[derive(Clone)]
struct Url {
    /// Where to connect to.
    to: String,
    /// Its name in the request.
    host: String,
    target: String,
}

impl std::str::FromStr for Url {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Url, Self::Err> {
        let rest = url.strip_prefix("ws://").ok_or("it begins with ws://")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, target) = rest.split_at(end);
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']'));
        Ok(Url {
            to: if has_port {
                host.to_owned()
            } else {
                format!("{host}:80")
            },
            host: host.to_owned(),
            target: if target.starts_with('/') {
                target.to_owned()
            } else {
                format!("/{target}")
            },
        })
    }
}

/// Either end.
struct Echo {
    /// Of a client: where its end is told.
    client: Option<SyncSender<Result<(), String>>>,
}

impl Actor for Echo {
    type Message = ();

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        if let Some(client) = self.client.take() {
            let is_good = matches!(reason, CloseReason::PeerClosed | CloseReason::Finished);
            let _ = client.try_send(if is_good {
                Ok(())
            } else {
                Err(reason.to_string())
            });
        }
    }
}

impl FrameActor for Echo {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.client.is_some() && frame.kind() == FrameKind::Text {
            println!(
                "{}",
                frame.text()?.chars().take(SHOWN_MAX).collect::<String>()
            );
        }
        ctx.write_frame(frame)?;
        Ok(())
    }
}

fn websocket_options() -> websocket::Options {
    websocket::Options::new().message_max(MESSAGE_MAX)
}

/// What is kept of a message that is not whole, and of one on its way to a slow reader.
fn connection() -> ConnectionOptions {
    ConnectionOptions::new()
        .input_max(MESSAGE_MAX + 1024)
        .output_max(4 * MESSAGE_MAX)
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    if let Some(url) = options.connect {
        return connect(system, url);
    }
    let server = Server::new(|_upgrade| Ok(Echo { client: None })).options(websocket_options());
    let mut listen = ListenOptions::new().connection(connection());
    // Goes when the server ends.
    let mut certificate = None;
    if options.tls {
        let (tls, file) = support::self_signed::self_signed(&[])?;
        listen = listen.tls(tls);
        certificate = Some(file);
    }
    let addr = options.common.addr.as_str();
    let listener = system.listen_with(addr, listen, move |_peer| server.accept())?;
    let addr = listener.local_addr();
    let command = match &certificate {
        Some(file) => {
            let file = file.path().display();
            format!("SSL_CERT_FILE={file} python3 -m websockets wss://{addr}/")
        }
        None => format!("python3 -m websockets ws://{addr}/"),
    };
    let command = command + ", then type a line";
    support::run_until_signal_saying(system, &listener, &command)
}

fn connect(system: System, url: Url) -> Result<(), support::Error> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let request = Request::new(&url.host, &url.target).map_err(invalid)?;
    let (told, end) = sync_channel(1);
    let options = ConnectOptions::new().connection(connection());
    system.connect_with(
        url.to
            .parse::<greenroom::Remote>()
            .map_err(io::Error::other)?,
        options,
        move || {
            let echo = Echo { client: Some(told) };
            WebSocket::client(request, echo).with_options(websocket_options())
        },
    );
    let ended = end
        .recv()
        .unwrap_or_else(|_| Err("the client has gone".to_owned()));
    // The peer's end of the closing handshake is waited for.
    system.handle().stop(Duration::from_secs(5));
    system.run()?;
    ended.map_err(|error| io::Error::other(error).into())
}

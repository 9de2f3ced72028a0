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
//! Or as a client, which shows what it gets and sends it back until the server closes:
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
    let listener = system.listen_with(
        options.common.addr.as_str(),
        ListenOptions::new().connection(connection()),
        move |_peer| server.accept(),
    )?;
    let url = format!("ws://{}/", listener.local_addr());
    support::run_until_signal_saying(
        system,
        &listener,
        &format!("python3 -m websockets {url}, then type a line"),
    )
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

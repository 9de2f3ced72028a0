//! A server of keys and values in memory that speaks the protocol of Redis, RESP2 and RESP3.
//!
//!     cargo run --release --example redis_server
//!     redis-cli -p 9000 set greeting hello     or: nc 127.0.0.1 9000, then type PING
//!
//! Each connection is a [`Client`]: it parses what has come ([`resp`]), runs one command after
//! another ([`commands`]) on the [`Server`] that all pollers share, and writes the replies
//! ([`reply`]). All replies to what one read has brought leave in one write. Keys are kept in
//! [`store`], which says how pollers share them; what is published goes through [`topics`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use greenroom::{
    ConnectionOptions, Endpoint, Keepalive, ListenOptions, Listener, SocketOptions, System,
};

mod client;
mod commands;
mod glob;
mod reply;
mod resp;
mod server;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod topics;

use client::Client;
use server::Server;

/// Bytes of the longest reply, that of one MGET over many large values. A connection that asks for
/// more is closed; values are shared, so what waits is mostly no memory of its own.
const OUTPUT_MAX: usize = 1 << 30;

/// Bytes of a command that has not come whole, and of what may wait behind it to be parsed.
const INPUT_MAX: usize = resp::COMMAND_MAX + 4 * resp::IN_PLACE_MAX;

/// How long a client may take nothing of what it asked for. Redis waits for ever; so long that
/// nobody is closed who only thinks about what it got.
const STUCK: Duration = Duration::from_secs(600);

/// When the kernel begins to ask whether a silent client is still there, as in Redis.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// A server of keys and values in memory that speaks the protocol of Redis.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,
}

/// What a client may cost. It may be silent for as long as it likes, as pools of connections are.
pub(crate) fn limits() -> ListenOptions {
    ListenOptions::new().connection(
        ConnectionOptions::new()
            .input_max(INPUT_MAX)
            .output_max(OUTPUT_MAX)
            .stuck_timeout(STUCK)
            .first_bytes_timeout(None),
    )
}

/// A server with nothing in it, at an address.
pub(crate) fn serve(system: &System, addr: &str, limits: ListenOptions) -> io::Result<Listener> {
    let server = Arc::new(Server::new(system.handle()));
    server.start();
    let of_client = server.clone();
    let listener = system.listen_with(addr, limits, move |peer| {
        Client::new(of_client.clone(), peer)
    })?;
    // The only one to set it.
    let _ = server.endpoint.set(listener.local_addr().clone());
    Ok(listener)
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let addr = options.common.addr.as_str();
    let mut limits = limits();
    if !addr.starts_with("unix:") {
        limits = limits.socket(SocketOptions::new().keepalive(Keepalive::after(KEEPALIVE)));
    }
    let listener = serve(&system, addr, limits)?;
    let by_cli = match listener.local_addr() {
        Endpoint::Tcp(addr) => format!("-h {} -p {}", addr.ip(), addr.port()),
        other => format!("-s {}", other.to_string().trim_start_matches("unix:")),
    };
    let then = format!(", then type PING; or: redis-cli {by_cli} ping");
    support::run_until_signal(system, &listener, &then)
}

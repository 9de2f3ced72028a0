//! A chat room for lines of text.
//!
//!     cargo run --release --example chat_room
//!     nc 127.0.0.1 9000        in two terminals
//!
//! Each connection is a [`Client`](client::Client). It asks the [`Directory`], which knows all
//! names and rooms, for a name and a place; what it says it sends to its [`Room`](room::Room),
//! which pushes it to everybody there.
//!
//! Who waits for whom when a mailbox is full: clients for rooms and the directory (their sockets
//! are paused), rooms for clients. A client goes on taking messages while it waits, so nobody waits
//! in a circle.

use std::io;

use bytes::Bytes;
use clap::Parser;
use greenroom::{ActorId, ConnectionOptions, ListenOptions, Listener, System};

mod client;
mod directory;
mod room;
#[path = "../support/mod.rs"]
mod support;

use client::Client;
use directory::Directory;

/// Bytes that may wait for a client that does not read: some 10,000 lines of a lively room.
const OUTPUT_MAX: usize = 1 << 20;

/// Bytes that the kernel may hold for a client beside that. Left to itself it takes some MiB, and a
/// client that does not read would be noticed late.
const SEND_BUFFER: u32 = 64 << 10;

/// Messages that may wait for the rooms, or the clients, of one poller: 4 MiB if each is a line of
/// full length.
const MAILBOX_BOUND: usize = 1024;

/// A chat room for lines of text.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,
}

/// A line that a room pushes to its members. It is formatted once; all of them share the bytes.
#[derive(Clone)]
struct Said {
    room: ActorId,
    /// Who said it and does not want to hear it again; `None` for an announcement.
    by: Option<ActorId>,
    line: Bytes,
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

/// A chat room of its own at an address.
pub(crate) fn serve(system: &System, addr: &str, limits: ListenOptions) -> io::Result<Listener> {
    let directory = system.spawn(Directory::default);
    system.listen_with(addr, limits, move |_peer| Client::new(directory.clone()))
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options
        .common
        .builder()
        .mailbox_bound(MAILBOX_BOUND)
        .build()?;
    let listener = serve(&system, &options.common.addr, limits())?;
    support::run_until_signal(
        system,
        &listener,
        " in two terminals, a nickname in each, then talk",
    )
}

//! A server of keys and values in memory that speaks the protocol of Redis.
//!
//!     cargo run --release --example redis_server
//!     redis-cli -p 9000 set greeting hello     or: nc 127.0.0.1 9000, then type PING
//!
//! Each connection is a [`Client`]: it parses what has come ([`resp`]), runs one command after
//! another ([`commands`]) on the [`Store`] that all pollers share, and writes the replies
//! ([`reply`]). All replies to what one read has brought leave in one write.

use std::sync::Arc;

use clap::Parser;
use greenroom::{Actor, ConnectionOptions, Context, Endpoint, Input, ListenOptions, Outcome};

mod commands;
mod reply;
mod resp;
mod store;
#[path = "../support/mod.rs"]
mod support;

use reply::Reply;
use resp::{Args, Request};
use store::Store;

/// Bytes of the longest reply, that of one MGET over many large values. A connection that asks for
/// more is closed; values are shared, so what waits is mostly no memory of its own.
const OUTPUT_MAX: usize = 64 << 20;

/// A server of keys and values in memory that speaks the protocol of Redis.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,
}

/// One connection. It keeps nothing between two calls: what is incomplete stays in its input.
struct Client {
    store: Arc<Store>,
}

impl Actor for Client {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let mut args = Args::new();
        while !input.is_empty() && !ctx.is_closing() {
            // Rather than have replies pile up, go on when the peer has read some.
            if ctx.is_above_high_watermark() {
                ctx.pause();
                break;
            }
            let mut reply = Reply { ctx };
            match resp::parse(input.bytes(), &mut args) {
                Ok(Request::Command { len }) => {
                    input.consume(len);
                    commands::execute(&args, &self.store, &mut reply);
                }
                Ok(Request::Quoted { line, len }) => {
                    input.consume(len);
                    match resp::unquote(line) {
                        Ok(words) => {
                            let args: Args<'_> = words.iter().map(Vec::as_slice).collect();
                            commands::execute(&args, &self.store, &mut reply);
                        }
                        Err(error) => reply.fatal(error),
                    }
                }
                Ok(Request::Incomplete { need }) => {
                    input.need(need);
                    break;
                }
                Err(error) => reply.fatal(error),
            }
        }
        Ok(())
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.resume();
        Ok(())
    }
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let limits = ListenOptions::new().connection(
        ConnectionOptions::new()
            .input_max(resp::COMMAND_MAX)
            .output_max(OUTPUT_MAX),
    );
    let store = Arc::new(Store::new());
    let listener =
        system.listen_with(options.common.addr.as_str(), limits, move |_peer| Client {
            store: store.clone(),
        })?;
    let by_cli = match listener.local_addr() {
        Endpoint::Tcp(addr) => format!("-h {} -p {}", addr.ip(), addr.port()),
        other => format!("-s {}", other.to_string().trim_start_matches("unix:")),
    };
    let then = format!(", then type PING; or: redis-cli {by_cli} ping");
    support::run_until_signal(system, &listener, &then)
}

//! `peers`: the servers and message queues that greenroom is measured against, each written the way
//! its own users would write it.
//!
//! A server prints `listening on ADDR` and serves until it is killed, or until `--seconds` are
//! over, so that a benchmark that dies leaves nothing running for long.

mod echo;
mod fanout;
mod http;
mod listen;
mod messages;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::{self, ExitCode};
use std::thread;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// The servers and message queues that greenroom is measured against.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends back every byte that comes
    Echo {
        /// Who serves
        name: echo::Name,
        #[command(flatten)]
        serve: Serve,
        /// Bytes of the read buffer, which each connection has for itself; mio reads into 64 KiB
        /// for each thread and message-io into 64 KiB on its stack, whatever is given here
        #[arg(long, default_value = "4096")]
        buffer: NonZeroUsize,
    },
    /// Answers `GET /` with `Hello, World!`
    Http {
        /// Who serves
        name: http::Name,
        #[command(flatten)]
        serve: Serve,
    },
    /// Sends every line that a member sends to all members
    Fanout {
        /// Who serves
        name: fanout::Name,
        #[command(flatten)]
        serve: Serve,
    },
    /// Measures messages, wakes and timers of rivals within this process: a table on standard
    /// error, samples as CSV on standard output
    Messages(messages::Options),
}

/// What every server is told.
#[derive(Args)]
struct Serve {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: SocketAddr,
    /// Threads that serve connections
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// Exits after so many seconds
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> io::Result<()> {
    greenroom_benches::raise_descriptor_limit()?;
    match command {
        Command::Echo {
            name,
            serve,
            buffer,
        } => {
            exit_after(serve.seconds);
            name.serve(serve.addr, serve.threads.get(), buffer.get())
        }
        Command::Http { name, serve } => {
            exit_after(serve.seconds);
            name.serve(serve.addr, serve.threads.get())
        }
        Command::Fanout { name, serve } => {
            exit_after(serve.seconds);
            name.serve(serve.addr, serve.threads.get())
        }
        Command::Messages(options) => messages::run(&options),
    }
}

fn exit_after(seconds: u64) {
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(seconds));
        process::exit(0);
    });
}

//! Threads that know nothing of sockets push lines to every connection, by `Addr::send`.
//!
//!     cargo run --release --example send_from_threads
//!     nc 127.0.0.1 9000
//!
//! With a mailbox that is too small for what is sent, sends come back `full`: the thread has the
//! message again and decides. Here it drops it, and the counts are printed once a second:
//!
//!     cargo run --release --example send_from_threads -- --threads 8 --every 0 --bound 64

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use greenroom::{
    Actor, ActorId, Addr, CloseReason, ConnectionOptions, Context, Input, ListenOptions, Listener,
    Outcome, SlowReader, System,
};

mod support;

/// Threads push lines to every connection.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// How many threads send.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,

    /// Microseconds that each thread rests between two lines; 0 for none.
    #[arg(long, value_name = "US", default_value_t = 500_000)]
    every: u64,

    /// How many messages may wait on each poller.
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(2..))]
    bound: u32,
}

/// Who is there, and what became of the sends. Shared by threads and connections.
#[derive(Default)]
struct Board {
    clients: Mutex<HashMap<ActorId, Addr<Client>>>,
    sent: AtomicU64,
    full: AtomicU64,
    gone: AtomicU64,
}

impl Board {
    fn clients(&self) -> Vec<Addr<Client>> {
        let clients = self.clients.lock();
        let clients = clients.unwrap_or_else(PoisonError::into_inner);
        clients.values().cloned().collect()
    }

    fn update(&self, change: impl FnOnce(&mut HashMap<ActorId, Addr<Client>>)) {
        let clients = self.clients.lock();
        change(&mut clients.unwrap_or_else(PoisonError::into_inner));
    }

    /// Sends one line to everybody. Never blocks, whatever the clients do.
    fn push(&self, line: &Bytes) {
        for client in self.clients() {
            let count = match client.send(line.clone()) {
                Ok(()) => &self.sent,
                // The message is in the error. To lose none, keep it and send it again later; to
                // slow down, rest.
                Err(error) if error.is_full() => &self.full,
                // Between the look at the list and the send it has ended.
                Err(_) => &self.gone,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> [u64; 3] {
        [&self.sent, &self.full, &self.gone].map(|count| count.load(Ordering::Relaxed))
    }
}

struct Client {
    board: Arc<Board>,
}

impl Actor for Client {
    type Message = Bytes;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let addr = ctx.addr();
        self.board.update(|clients| {
            clients.insert(addr.id(), addr);
        });
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, _: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        Ok(())
    }

    fn message(&mut self, line: Bytes, ctx: &mut Context<'_, Self>) -> Outcome {
        // Whole lines are dropped for a client that does not keep up.
        ctx.write_bytes(line);
        Ok(())
    }

    fn closed(&mut self, _: &CloseReason, ctx: &mut Context<'_, Self>) {
        let id = ctx.id();
        self.board.update(|clients| {
            clients.remove(&id);
        });
    }
}

/// Serves whoever connects, with so many threads that send.
fn serve(system: &System, options: &Options) -> io::Result<Listener> {
    let board = Arc::new(Board::default());
    let shared = board.clone();
    let connection = ConnectionOptions::new().slow_reader(SlowReader::DropNewest);
    let listen = ListenOptions::new().connection(connection);
    let listener =
        system.listen_with(options.common.addr.as_str(), listen, move |_peer| Client {
            board: shared.clone(),
        })?;
    let every = Duration::from_micros(options.every);
    for thread in 0..options.threads {
        let board = board.clone();
        thread::spawn(move || {
            for number in 1_u64.. {
                board.push(&format!("thread {thread} line {number}\n").into());
                if board.clients().is_empty() {
                    thread::sleep(Duration::from_millis(1));
                }
                if every > Duration::ZERO {
                    thread::sleep(every);
                }
            }
        });
    }
    thread::spawn(move || {
        let mut before = [0; 3];
        loop {
            thread::sleep(Duration::from_secs(1));
            let now = board.counts();
            if now != before {
                let [sent, full, gone] = now;
                println!("{sent} sent, {full} came back full, {gone} to who had gone");
                before = now;
            }
        }
    });
    Ok(listener)
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let builder = options.common.builder();
    let system = builder.mailbox_bound(options.bound as usize).build()?;
    let listener = serve(&system, &options)?;
    support::run_until_signal(system, &listener, " and look at the lines of each thread")
}

//! Pushes lines to every client faster than a slow one reads, and shows from another thread what
//! waits for each, and what the policy makes of it.
//!
//!     cargo run --release --example backpressure -- --policy drop-oldest
//!     nc 127.0.0.1 9000 > /dev/null
//!     nc 127.0.0.1 9000 | (sleep 1000)
//!
//! For the first client nothing ever waits. For the second it does as soon as the buffers of the
//! kernels and of `nc` are full: the server prints how much, up to `--max`, and from there on what is
//! dropped, or replaced by newer values, or that the connection has ended. (What can be dropped or
//! replaced line by line counts against `--max` as 64 bytes more for each.)

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use greenroom::{
    Actor, Addr, ConnectionOptions, Context, Input, ListenOptions, Listener, Outcome, SlowReader,
    System, TimerKey,
};

mod support;

/// How often a connection writes what has come up in the meantime.
const TICK: Duration = Duration::from_millis(10);

/// Pushes lines to every client and shows what waits for the slow ones.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// What becomes of a client that does not keep up.
    #[arg(long, value_enum, default_value = "drop-oldest")]
    policy: Policy,

    /// Lines a second for each client.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    rate: u64,

    /// Bytes that may wait for one client.
    #[arg(long, default_value_t = 256 << 10, value_parser = clap::value_parser!(u64).range(4096..))]
    max: u64,

    /// Milliseconds from one look at what waits to the next.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    look: u64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Policy {
    /// Its connection ends.
    Close,
    /// New lines are dropped.
    DropNewest,
    /// New lines make room by dropping old ones.
    DropOldest,
    /// Each line has one of a hundred keys; a new one takes the place of that of the same key.
    Latest,
}

type Clients = Arc<Mutex<Vec<(String, Addr<Feed>)>>>;

/// Writes its share of lines at every tick.
struct Feed {
    clients: Clients,
    policy: Policy,
    lines_per_tick: u64,
    number: u64,
}

impl Actor for Feed {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let peer = ctx.peer().map_or("?".to_owned(), |peer| peer.to_string());
        let clients = self.clients.lock();
        let mut clients = clients.unwrap_or_else(PoisonError::into_inner);
        clients.push((peer, ctx.addr()));
        ctx.set_interval(TICK);
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, _: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        for _ in 0..self.lines_per_tick {
            self.number += 1;
            let line = format!("{:>12} is the number of this line\n", self.number);
            if self.policy == Policy::Latest {
                ctx.write_latest(self.number % 100, line.into());
            } else {
                ctx.write(line);
            }
        }
        Ok(())
    }
}

/// Prints what waits for whom, as long as anything does, and who has gone.
fn look(clients: &Clients, system: &greenroom::Handle, every: Duration) {
    let mut known = Vec::new();
    loop {
        thread::sleep(every);
        {
            let clients = clients.lock();
            let mut clients = clients.unwrap_or_else(PoisonError::into_inner);
            known.append(&mut clients);
        }
        known.retain(|(peer, addr)| match addr.queued() {
            None => {
                println!("{peer} has gone");
                false
            }
            Some(0) => true,
            Some(queued) => {
                let stats = system.stats();
                println!(
                    "{queued} bytes wait for {peer}; {} writes dropped, {} replaced",
                    stats.dropped_writes, stats.replaced_writes
                );
                true
            }
        });
    }
}

fn serve(system: &System, options: &Options) -> io::Result<Listener> {
    let clients = Clients::default();
    let policy = options.policy;
    let slow_reader = match policy {
        Policy::Close | Policy::Latest => SlowReader::Close,
        Policy::DropNewest => SlowReader::DropNewest,
        Policy::DropOldest => SlowReader::DropOldest,
    };
    let max = usize::try_from(options.max).unwrap_or(usize::MAX);
    let connection = ConnectionOptions::new()
        .slow_reader(slow_reader)
        .output_max(max)
        .stuck_timeout(Duration::from_secs(3600));
    let lines_per_tick = (options.rate * TICK.as_millis() as u64 / 1000).max(1);
    let seen = clients.clone();
    // Not much in the kernel: there nobody sees it, and nothing can be dropped or replaced.
    let listen = ListenOptions::new()
        .connection(connection)
        .send_buffer(32 << 10);
    let listener = system.listen_with(options.common.addr.as_str(), listen, move |_peer| Feed {
        clients: clients.clone(),
        policy,
        lines_per_tick,
        number: 0,
    })?;
    let (handle, every) = (system.handle(), Duration::from_millis(options.look));
    thread::spawn(move || look(&seen, &handle, every));
    Ok(listener)
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let listener = serve(&system, &options)?;
    support::run_until_signal(system, &listener, " | (sleep 1000), which reads nothing")
}

//! Pushes a line with a sequence number and the time to every client, once a second, and each line
//! that a client sends to every client, the sender too.
//!
//!     cargo run --release --example push
//!     nc 127.0.0.1 9000

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Parser;
use greenroom::{
    Actor, Addr, Broadcast, Broadcaster, Context, Input, ListenOptions, Listener, Outcome, System,
};

mod support;

/// Bytes of a line that a client sends, without its end. A longer one ends its connection.
const LINE_MAX: usize = 4096;

/// Pushes a line with a sequence number and the time to every client, and each line that a client
/// sends to every client.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Milliseconds from one line with the time to the next; 0 for none.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    every: u64,
}

/// A connection that joins the broadcaster, writes what that pushes, and has it push what it reads.
struct Subscriber {
    broadcaster: Addr<Broadcaster<Bytes>>,
    /// A line that the broadcaster had no room for. Nothing is read until it has.
    unsent: Option<Broadcast<Bytes>>,
}

impl Subscriber {
    fn send(&mut self, line: Broadcast<Bytes>, ctx: &mut Context<'_, Self>) -> Outcome {
        match self.broadcaster.send(line) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                ctx.wait_for_room(&self.broadcaster);
                self.unsent = Some(error.into_message());
            }
            // The broadcaster has gone, so the server is about to stop.
            Err(_) => ctx.close(),
        }
        Ok(())
    }
}

impl Actor for Subscriber {
    type Message = Bytes;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.broadcaster.join(ctx.addr());
        Ok(())
    }

    /// Takes one line; called again while there are more, unless room is waited for.
    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let Some(line) = input.line(LINE_MAX)? else {
            return Ok(());
        };
        let line = [line, b"\n"].concat();
        self.send(Broadcast::Push(line.into()), ctx)
    }

    fn message(&mut self, line: Bytes, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_bytes(line);
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        match self.unsent.take() {
            Some(line) => self.send(line, ctx),
            None => Ok(()),
        }
    }
}

/// Sequence numbers from 1, and the time in seconds since 1970 (UTC).
fn lines() -> impl FnMut(usize) -> Bytes {
    let mut sequence = 0_u64;
    move |_members| {
        sequence += 1;
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        format!(
            "{sequence} {}.{:03}\n",
            time.as_secs(),
            time.subsec_millis()
        )
        .into()
    }
}

/// Pushes what `lines` makes to everybody who connects to an address.
pub(crate) fn serve(
    system: &System,
    addr: &str,
    limits: ListenOptions,
    every: Duration,
    lines: impl FnMut(usize) -> Bytes + Send + 'static,
) -> io::Result<Listener> {
    let broadcaster = system.spawn(move || match every {
        Duration::ZERO => Broadcaster::new(),
        every => Broadcaster::new().every(every, lines),
    });
    system.listen_with(addr, limits, move |_peer| Subscriber {
        broadcaster: broadcaster.clone(),
        unsent: None,
    })
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let every = Duration::from_millis(options.every);
    let limits = ListenOptions::new();
    let listener = serve(&system, &options.common.addr, limits, every, lines())?;
    support::run_until_signal(system, &listener, ", then type a line")
}

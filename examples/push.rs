//! Pushes a line with a sequence number and the time to every client, once a second.
//!
//!     cargo run --release --example push
//!     nc 127.0.0.1 9000

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Parser;
use greenroom::{Actor, Addr, Broadcaster, Context, Input, Outcome};

mod support;

/// Pushes a line with a sequence number and the time to every client.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Milliseconds from one line to the next.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
}

/// A connection that joins the broadcaster and writes what that pushes.
struct Subscriber {
    broadcaster: Addr<Broadcaster<Bytes>>,
}

impl Actor for Subscriber {
    type Message = Bytes;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.broadcaster.join(ctx.addr());
        Ok(())
    }

    fn message(&mut self, line: Bytes, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_bytes(line);
        Ok(())
    }

    /// What a client says is of no interest, but has to be taken.
    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        Ok(())
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

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let every = Duration::from_millis(options.every);
    let broadcaster = system.spawn(move || Broadcaster::new().every(every, lines()));
    let listener = system.listen(options.common.addr.as_str(), move |_peer| Subscriber {
        broadcaster: broadcaster.clone(),
    })?;
    support::run_until_signal(system, &listener, "")
}

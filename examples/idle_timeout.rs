//! Echoes lines, closes who is too slow with any of them, and says why.
//!
//!     cargo run --release --example idle_timeout
//!     nc 127.0.0.1 9000
//!
//! Say nothing for five seconds: `silent`. Say a line and then nothing for ten: `idle`. Begin a
//! line and do not end it (with `nc`, Ctrl-D in the middle of it): `slow sender`. Say `quit`:
//! `finished`. Say `fill` in a client that does not read (`nc 127.0.0.1 9000 | sleep 60`): `stuck
//! reader`.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Parser;
use greenroom::{
    Actor, CloseReason, ConnectionOptions, Context, Input, ListenOptions, Listener, Outcome, System,
};

mod support;

/// Bytes of a line, without its end. A longer one ends its connection.
const LINE_MAX: usize = 4096;

/// What `fill` writes: more than the kernels in between hold.
const FILL: usize = 16 << 20;

/// Ends that wait to be printed. Beyond them they are not: a terminal is no reason for a poller to
/// wait.
const ENDS_MAX: usize = 1024;

/// Echoes lines, closes who is too slow with any of them, and says why.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// By when the first byte has to come.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    first_bytes: Duration,

    /// How long there may be silence in both directions.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    idle: Duration,

    /// How long a line may take, from its first byte to its end.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    line: Duration,

    /// How many bytes of a line have to come in each second, at least; 0 for any number.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    rate: usize,

    /// How long a client may take nothing of what is written to it.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    stuck: Duration,

    /// How long it may take in all to flush a connection that is to be closed.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    flush: Duration,
}

/// `0.5` for half a second.
fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().map(Duration::try_from_secs_f64);
    match time {
        Some(Ok(time)) if !time.is_zero() => Ok(time),
        _ => Err("a number of seconds above 0 is expected, like 0.5".to_owned()),
    }
}

impl Options {
    fn limits(&self) -> ConnectionOptions {
        let limits = ConnectionOptions::new()
            .output_max(2 * FILL)
            .first_bytes_timeout(self.first_bytes)
            .idle_timeout(self.idle)
            .incomplete_timeout(self.line)
            .stuck_timeout(self.stuck)
            .flush_timeout(self.flush);
        match self.rate {
            0 => limits,
            rate => limits.least_input_rate(rate, Duration::from_secs(1)),
        }
    }
}

struct Lines {
    ends: SyncSender<String>,
}

impl Actor for Lines {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        // What is not a whole line is kept, and its time runs.
        let Some(line) = input.line(LINE_MAX)? else {
            return Ok(());
        };
        match line {
            b"quit" => ctx.close(),
            b"fill" => drop(ctx.write(vec![b'.'; FILL])),
            line => drop(ctx.write_parts(&[line, b"\n"])),
        }
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        if let Some(peer) = ctx.peer() {
            let end = format!("{peer}: {} ({reason})", reason.name());
            let _ = self.ends.try_send(end);
        }
    }
}

/// Serves lines at an address; how each connection ended is sent to `ends`.
fn serve(
    system: &System,
    addr: &str,
    limits: ConnectionOptions,
    ends: SyncSender<String>,
) -> io::Result<Listener> {
    let options = ListenOptions::new().connection(limits);
    system.listen_with(addr, options, move |_peer| Lines { ends: ends.clone() })
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let (ends, to_print) = sync_channel(ENDS_MAX);
    let print = |end| support::say(format_args!("{end}"));
    let printer = thread::spawn(move || to_print.into_iter().for_each(print));
    let listener = serve(&system, &options.common.addr, options.limits(), ends)?;
    let accepted = support::serve_until_signal(system, &listener, ", and say nothing")?;
    // It ends with the last who could send.
    drop(listener);
    drop(printer.join());
    support::say(format_args!("stopped after {accepted} connections"));
    Ok(())
}

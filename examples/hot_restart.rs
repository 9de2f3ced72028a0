//! A server that is replaced by its next start, without refusing one connection.
//!
//!     cargo run --release --example hot_restart
//!     nc 127.0.0.1 9000
//!     cargo run --release --example hot_restart -- --says 2
//!
//! The second start takes the sockets over from the first, with whoever waits on them, and serves all
//! that come from then on; the first goes on with those that it has, and ends when they have left.

use std::io;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use clap::Parser;
use greenroom::handover::{Handover, HandoverError};
use greenroom::{Actor, Balance, Context, Input, ListenOptions, Outcome};

mod support;

/// A server that is replaced by its next start, without refusing one connection.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Where the running server is found by the next one; of this user alone [default: a name made
    /// of --addr, in the folder for temporary files].
    #[arg(long, value_name = "PATH")]
    handover: Option<PathBuf>,

    /// What the greeting says: which release it is.
    #[arg(long, default_value = "1", value_name = "TEXT")]
    says: String,

    /// Every poller accepts for itself (SO_REUSEPORT).
    #[arg(long)]
    per_poller: bool,

    /// How long a server that was replaced waits for its clients to leave, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    drain: u64,
}

/// Greets, and sends back what it gets.
struct Echo {
    greeting: String,
}

impl Actor for Echo {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(&self.greeting);
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }

    /// Whoever is here may have sent something that has not arrived yet: the client says when it has
    /// all its answers, by closing.
    fn stopping(&mut self, _deadline: std::time::Instant, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}

/// How long a start waits for the server that it replaces.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let path = options.handover.unwrap_or_else(|| {
        let name = options.common.addr.replace('/', "-");
        std::env::temp_dir().join(format!("hot_restart-{name}"))
    });
    let greeting = format!("hello from {}, process {}\n", options.says, process::id());
    let make = move |_peer| Echo {
        greeting: greeting.clone(),
    };
    let mut listening = ListenOptions::new();
    if options.per_poller {
        listening = listening.balance(Balance::PerPoller);
    }

    // Whether this is the first, or replaces one that runs.
    let mut inherited = Handover::take(&path, PATIENCE).map_err(io::Error::from)?;
    let sockets = inherited.as_mut().and_then(|old| old.take("echo"));
    let listener = match sockets {
        Some(sockets) => system
            .listen_from(sockets, listening, make)
            .map_err(io::Error::from)?,
        // Nor has one that is about to end, and serves none but those that it has.
        None => system.listen_with(options.common.addr.as_str(), listening, make)?,
    };
    let (mut handover, then) = match inherited {
        Some(inherited) => {
            let then = format!("; it has replaced process {}", inherited.pid());
            (inherited.confirm().map_err(io::Error::from)?, then)
        }
        None => {
            let then = ", then start this again beside it".to_owned();
            (Handover::offer(&path).map_err(io::Error::from)?, then)
        }
    };
    handover.add("echo", &listener);
    let canceller = handover.canceller();
    let handle = system.handle();
    let drain = Duration::from_secs(options.drain);
    std::thread::spawn(move || match handover.wait() {
        Ok(successor) => {
            support::say(format_args!("replaced by process {}", successor.pid));
            handle.stop(drain);
        }
        Err(HandoverError::Cancelled) => {}
        Err(error) => eprintln!("{error}; from now on this server cannot be replaced"),
    });
    let ended = support::run_until_signal(system, &listener, &then);
    // The file at the path goes with the offer. A handover that is under way is not waited for: whoever
    // has the sockets by now serves without this process.
    canceller.cancel();
    ended
}

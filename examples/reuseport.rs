//! A listener for each poller on one address (SO_REUSEPORT): each connection is told which poller
//! serves it, and echoed.
//!
//!     cargo run --release --example reuseport -- --pollers 4
//!     nc 127.0.0.1 9000
//!
//! The kernel spreads the connects. With `--balance` one poller accepts for all and spreads them
//! itself: by turns, by load, by the client's address, or by a choice of our own.

use std::io;

use clap::{Parser, ValueEnum};
use greenroom::{Actor, Balance, Context, Input, ListenOptions, Listener, Outcome, Peer, System};

mod support;

/// A listener for each poller on one address: each connection is told which poller serves it.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Which poller a connection goes to.
    #[arg(long, value_enum, default_value_t = Choice::PerPoller)]
    balance: Choice,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Choice {
    /// The kernel decides, and each poller accepts for itself.
    PerPoller,
    /// One after the other.
    RoundRobin,
    /// The one that has the fewest connections.
    LeastConnections,
    /// Always the same one for an address.
    SourceHash,
    /// By our own rule: ports that four divides to the first, others to where there are fewest.
    OwnRule,
}

impl Choice {
    fn options(self) -> ListenOptions {
        let options = ListenOptions::new();
        match self {
            Choice::PerPoller => options.balance(Balance::PerPoller),
            Choice::RoundRobin => options.balance(Balance::RoundRobin),
            Choice::LeastConnections => options.balance(Balance::LeastConnections),
            Choice::SourceHash => options.balance(Balance::SourceHash),
            Choice::OwnRule => options.balance_by(|peer, loads| match peer {
                Peer::Tcp(addr) if addr.port().is_multiple_of(4) => loads.pollers()[0],
                _ => loads.least(),
            }),
        }
    }
}

struct Told;

impl Actor for Told {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let poller = ctx.addr().poller();
        ctx.write(format!("served by poller {poller}\n"));
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

/// Tells everybody who connects to an address which poller that leads to.
pub(crate) fn serve(system: &System, addr: &str, balance: Choice) -> io::Result<Listener> {
    system.listen_with(addr, balance.options(), |_peer| Told)
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let listener = serve(&system, &options.common.addr, options.balance)?;
    support::run_until_signal(system, &listener, " (more than once)")
}

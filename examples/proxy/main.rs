//! A TCP proxy and balancer: each client gets a connection of its own to one of several upstreams.
//!
//!     cargo run --release --example echo -- --addr 127.0.0.1:9001
//!     cargo run --release --example proxy -- --upstream 127.0.0.1:9001 --upstream 127.0.0.1:9002
//!     nc 127.0.0.1 9000
//!
//! An upstream that cannot be connected to is passed over until a check, which is a connect, finds it
//! up again; a client for whom there is none is reset. Whoever is slow holds the other side back:
//! what the proxy holds for a pair is bounded, however fast one side sends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use greenroom::{Listener, Remote, System};

pub(crate) mod side;
#[path = "../support/mod.rs"]
mod support;
pub(crate) mod upstreams;

use side::Side;
use upstreams::{Balance, Checker, Upstreams};

/// Passes connections on to upstreams.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Where to pass connections on: HOST:PORT, [IPV6]:PORT or unix:PATH. Several times for several.
    #[arg(long, required = true)]
    upstream: Vec<String>,

    /// How clients are spread over the upstreams that are up.
    #[arg(long, value_enum, default_value_t = Balance::RoundRobin)]
    balance: Balance,

    /// Seconds from one check of all upstreams to the next.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    check: f64,
}

/// Passes what connects to `addr` on to `upstreams`, which are checked once in every `check`.
pub(crate) fn serve(
    system: &System,
    addr: &str,
    upstreams: &Arc<Upstreams>,
    check: Duration,
) -> io::Result<Listener> {
    let checked = upstreams.clone();
    system.spawn(move || Checker::new(checked, check));
    let upstreams = upstreams.clone();
    system.listen(addr, move |_peer| Side::client(upstreams.clone()))
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let remote = |text: &String| text.parse::<Remote>().map_err(io::Error::from);
    let remotes: Result<Vec<_>, _> = options.upstream.iter().map(remote).collect();
    let check = Duration::try_from_secs_f64(options.check)
        .ok()
        .filter(|check| !check.is_zero())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "--check: a number of seconds above 0 is expected, like 2",
            )
        })?;
    let system = options.common.builder().build()?;
    let upstreams = Arc::new(Upstreams::new(remotes?, options.balance));
    let listener = serve(&system, &options.common.addr, &upstreams, check)?;
    let then = format!(", which reaches {}", options.upstream.join(" or "));
    support::run_until_signal(system, &listener, &then)
}

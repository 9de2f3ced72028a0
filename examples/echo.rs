//! Sends back what it gets.
//!
//!     cargo run --release --example echo
//!     nc 127.0.0.1 9000

use clap::Parser;
use greenroom::{Actor, Context, Input, Outcome};

mod support;

/// Sends back what it gets.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Listen on this Unix socket instead.
    #[arg(long, value_name = "PATH", conflicts_with = "addr")]
    unix: Option<std::path::PathBuf>,
}

struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let listener = match options.unix {
        Some(path) => system.listen(path, |_peer| Echo)?,
        None => system.listen(options.common.addr.as_str(), |_peer| Echo)?,
    };
    support::run_until_signal(system, &listener, ", then type a line")
}

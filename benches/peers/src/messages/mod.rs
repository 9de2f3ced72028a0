//! Rivals within one process: queues and actors that pass messages, wake each other and keep
//! timers.

mod race;
mod sends;
mod timers;
mod wake;

use std::io;
use std::time::Duration;

use clap::{Args, ValueEnum};
use greenroom_benches::rounds::machine;
use greenroom_benches::samples::Samples;

use self::race::Plan;

/// What is measured, and for how long.
#[derive(Args)]
pub struct Options {
    /// Rounds, in each of which each rival has three slices, by turns
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The length of a slice in milliseconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    millis: u64,
    /// Measures this part alone; may be given again [default: all]
    #[arg(long = "part", value_enum)]
    parts: Vec<Part>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// Messages from 1, 2 and 4 threads
    Messages,
    /// Round trips between two threads that sleep
    Wake,
    /// Timers that are set and cancelled, or fire, among 1,000,000
    Timers,
}

pub fn run(options: &Options) -> io::Result<()> {
    let plan = Plan {
        rounds: options.rounds,
        slice: Duration::from_millis(options.millis),
    };
    let parts = match &options.parts[..] {
        [] => Part::value_variants(),
        parts => parts,
    };
    eprintln!("{}", machine());
    // Arbiters belong to the system of the thread that makes them.
    let _actix = actix_rt::System::new();
    let mut samples = Samples::new();
    for part in parts {
        match part {
            Part::Messages => sends::measure(plan, &mut samples)?,
            Part::Wake => wake::measure(plan, &mut samples)?,
            Part::Timers => timers::measure(plan, &mut samples)?,
        }
    }
    print!("{}", samples.to_csv());
    Ok(())
}

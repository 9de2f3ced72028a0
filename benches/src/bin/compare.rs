//! `compare`: servers beside the hand-written C floor, in alternating slices. Each mode is one
//! measurement of this package's library, printed.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use greenroom_benches::echo::Shape;
use greenroom_benches::fanout::{self, FanoutShape, Pace};
use greenroom_benches::latency::{self, OpenShape};
use greenroom_benches::many::{self, Counts};
use greenroom_benches::plan::Plan;
use greenroom_benches::report::markdown::number;
use greenroom_benches::report::statistics::{cases, metrics, ratio, servers, value};
use greenroom_benches::rounds::machine;
use greenroom_benches::samples::{Samples, Series};
use greenroom_benches::server::{Candidate, shell_quote};
use greenroom_benches::{connects, echo_cost, idle, start, two};

/// Compares servers with the C floor under one load; ratios are of the same round.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// A server to compare, which prints a line with `listening on ADDR`; may be given again
    /// [default: greenroom's example]
    #[arg(long = "server", value_name = "NAME=COMMAND", value_parser = parse_server, global = true)]
    servers: Vec<Candidate>,
    /// Rounds, in each of which each server has its slices, by turns
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000), global = true)]
    rounds: u32,
    /// The length of a slice in milliseconds [default: what suits the mode]
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=60_000), global = true)]
    slice_ms: Option<u64>,
    /// Print the samples as CSV instead
    #[arg(long, global = true)]
    csv: bool,
}

#[derive(Subcommand)]
enum Mode {
    /// Server CPU time for each message, closed loop
    Echo(EchoArgs),
    /// System calls for each message, counted by strace, with 1 connection and with 100
    Syscalls(MessageArgs),
    /// Latency at half of the floor's full load, open loop; fairness at full load
    Latency {
        /// Connections to each server
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        connections: u32,
        /// Bytes of a message
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
        size: u32,
        /// Threads of the load
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
        threads: u32,
    },
    /// Resident memory of an idle connection, before and after a message
    Idle {
        /// Connections to each server
        #[arg(long, default_value_t = 19_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
        connections: u32,
    },
    /// 1,000 of 19,000 connections active; 8 processes of 19,000; 1,000,000 actors without sockets
    Many(ManyArgs),
    /// Lines from one connection to all
    Fanout {
        /// Connections
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        members: u32,
        /// Lines each second [default: the next when all have the last]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rate: Option<u32>,
        /// Threads of the load that receive
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
        readers: u32,
        /// Pollers of greenroom; from 2 on servers and load share all CPUs
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
        threads: u32,
    },
    /// Server CPU time for a connection that is opened and closed
    Accept,
    /// From exec to the first byte served
    Start,
    /// Two pollers on all CPUs, the load beside them, closed loop
    Two(EchoArgs),
}

#[derive(Args)]
struct ManyArgs {
    /// Connections to each server
    #[arg(long, default_value_t = Counts::default().connections)]
    connections: usize,
    /// How many of them are used
    #[arg(long, default_value_t = Counts::default().active)]
    active: usize,
    /// Server processes at a time; 0 leaves them out
    #[arg(long, default_value_t = Counts::default().processes)]
    processes: usize,
    /// Actors without sockets; 0 leaves them out
    #[arg(long, default_value_t = Counts::default().actors)]
    actors: usize,
}

impl ManyArgs {
    fn counts(&self) -> Counts {
        Counts {
            connections: self.connections,
            active: self.active,
            processes: self.processes,
            actors: self.actors,
        }
    }
}

#[derive(Args)]
struct EchoArgs {
    /// Connections to each server
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    #[command(flatten)]
    message: MessageArgs,
}

#[derive(Args)]
struct MessageArgs {
    /// Bytes of a message
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    size: u32,
    /// Messages on their way on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pipeline: u32,
}

impl MessageArgs {
    fn shape(&self, connections: u32) -> Shape {
        Shape {
            connections: connections as usize,
            message_bytes: self.size as usize,
            pipeline: self.pipeline as usize,
        }
    }
}

impl EchoArgs {
    fn shape(&self) -> Shape {
        self.message.shape(self.connections)
    }
}

fn parse_server(argument: &str) -> Result<Candidate, String> {
    let (name, command) = argument.split_once('=').ok_or("expected NAME=COMMAND")?;
    Ok(Candidate::new(name, command))
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(Cli { mode, common }: &Cli) -> io::Result<()> {
    let planned = |mut plan: Plan| {
        plan.slice = common.slice_ms.map_or(plan.slice, Duration::from_millis);
        if !common.csv {
            describe(&plan);
        }
        plan
    };
    let rounds = common.rounds;
    let samples = match mode {
        Mode::Echo(args) => {
            let plan = planned(echo_cost::plan(rounds));
            echo_cost::measure(&common.echo(1)?, args.shape(), &plan)?
        }
        Mode::Syscalls(args) => {
            let plan = planned(echo_cost::plan(1));
            let mut samples = Samples::new();
            for connections in [1, 100] {
                let shape = args.shape(connections);
                samples.extend(echo_cost::syscalls(&common.echo(1)?, shape, &plan)?);
            }
            samples
        }
        Mode::Latency {
            connections,
            size,
            threads,
        } => {
            let shape = OpenShape {
                connections: *connections as usize,
                message_bytes: *size as usize,
                threads: *threads as usize,
            };
            latency::measure(&common.echo(1)?, shape, &planned(latency::plan(rounds)))?
        }
        Mode::Idle { connections } => {
            idle::samples(&common.echo(1)?, *connections as usize, rounds)?
        }
        Mode::Many(args) => {
            let plan = planned(many::plan(rounds));
            let servers = common.echo(1)?;
            many::measure(&servers[0], args.counts(), &plan)?
        }
        Mode::Fanout {
            members,
            rate,
            readers,
            threads,
        } => {
            let shape = FanoutShape {
                members: *members as usize,
                pace: rate.map_or(Pace::OneAtATime, Pace::Rate),
                readers: *readers as usize,
                server_threads: *threads,
            };
            let plan = planned(fanout::plan(rounds, *threads));
            fanout::measure(
                &common.or_example("push --every 0", *threads)?,
                shape,
                &plan,
            )?
        }
        Mode::Accept => connects::measure(&common.echo(1)?, &planned(connects::plan(rounds)))?,
        Mode::Start => start::measure(&common.echo(2)?, &planned(start::plan(rounds)))?,
        Mode::Two(args) => {
            let plan = planned(two::plan(rounds));
            two::measure(&common.echo(2)?, args.shape(), &plan)?
        }
    };
    match common.csv {
        true => print!("{}\n{}", Samples::HEADER, samples.to_csv()),
        false => print_tables(&samples),
    }
    Ok(())
}

impl Common {
    fn echo(&self, pollers: u32) -> io::Result<Vec<Candidate>> {
        self.or_example("echo", pollers)
    }

    /// The servers asked for, or greenroom's example, in the target folder where this program lies.
    fn or_example(&self, example: &str, pollers: u32) -> io::Result<Vec<Candidate>> {
        if !self.servers.is_empty() {
            return Ok(self.servers.clone());
        }
        let (name, options) = example.split_once(' ').unwrap_or((example, ""));
        let program: PathBuf = env::current_exe()?.with_file_name("examples").join(name);
        if !program.exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "no {}: build it with `cargo build --release --example {name}`",
                    program.display()
                ),
            ));
        }
        let program = shell_quote(&program.to_string_lossy());
        let command = format!("{program} {options} --addr 127.0.0.1:0 --pollers {pollers}");
        Ok(vec![Candidate::new("greenroom", command)])
    }
}

fn describe(plan: &Plan) {
    println!("{}", machine());
    match plan {
        Plan {
            server_cpus: Some(server),
            load_cpu: Some(load),
            ..
        } => println!("servers on CPUs {server:?}, load on CPU {load}"),
        _ => println!("not pinned: servers and load share all CPUs"),
    }
    println!(
        "{} rounds; in each, {} slices of {} ms for each server",
        plan.rounds,
        plan.slices,
        plan.slice.as_millis()
    );
}

fn print_tables(samples: &Samples) {
    for part in [
        "echo", "latency", "idle", "many", "fanout", "accept", "start", "two",
    ] {
        for case in cases(samples, part) {
            println!("\n{case}");
            for metric in metrics(samples, part) {
                print_table(samples, part, case, metric);
            }
        }
    }
}

fn print_table(samples: &Samples, part: &str, case: &str, metric: &str) {
    let series = |server| Series {
        part,
        case,
        server,
        metric,
    };
    let names = servers(samples, part, case, metric);
    if names.is_empty() {
        return;
    }
    println!(
        "  {metric:14} {:>14} {:>12} {:>16}",
        "median", "ratio to c", "least to most"
    );
    for server in names {
        let Some(spread) = value(samples, series(server)) else {
            continue;
        };
        print!("  {server:14} {:>14}", number(spread.median));
        match ratio(samples, series(server), series("c")) {
            Some(ratio) => println!(
                " {:>12.3} {:>16}",
                ratio.median,
                format!("{:.3}..{:.3}", ratio.least, ratio.most)
            ),
            None => println!(),
        }
    }
}

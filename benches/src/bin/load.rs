//! `load`: one server, one kind of load. The README of this package says which mode answers which
//! question.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use greenroom_benches::echo::{EchoLoads, Shape};
use greenroom_benches::server::{Candidate, Memory, Server};
use greenroom_benches::{
    idle, latency_histogram, latency_line, many, pingers, raise_descriptor_limit,
};

/// How often the pingers run alone and beside the flood, by turns.
const PINGER_SLICES: u32 = 5;

/// Loads an echo server over real sockets. Exits with 1 if a byte comes back wrong or a message
/// does not come back.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Closed loop: throughput, latency, fairness between the connections
    Echo {
        #[command(flatten)]
        target: Target,
        /// Connections in all
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        connections: u32,
        /// Bytes of a message
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
        size: u32,
        /// Messages on their way on each connection
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        pipeline: u32,
        /// Threads of the load
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
        threads: u32,
        /// How long to send
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
    /// Idle connections: the server's resident memory for each
    Idle {
        #[command(flatten)]
        target: Target,
        /// The server's process id; not needed with --server
        #[arg(long, required_unless_present = "server")]
        pid: Option<u32>,
        /// How many to open
        #[arg(long, default_value_t = 19_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
        connections: u32,
    },
    /// Holds idle connections for another process, which says when to go on
    #[command(hide = true)]
    Hold {
        #[arg(long)]
        addr: SocketAddr,
        #[arg(long)]
        pid: u32,
        #[arg(long)]
        connections: usize,
    },
    /// Pings at a fixed rate, without and with connections at full speed beside them: latency
    Pingers {
        #[command(flatten)]
        target: Target,
        /// Connections that ping, 64 bytes each time
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        pingers: u32,
        /// Connections at full speed
        #[arg(long, default_value_t = 1)]
        flood: u32,
        /// Pings each second on each connection
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rate: u32,
        /// How long to send without the flood, and with it, each in five slices
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// Where a running server listens
    #[arg(long)]
    addr: Option<SocketAddr>,
    /// Start this server, which prints `listening on ADDR`, and end it afterwards; `c` is the C
    /// echo loop
    #[arg(long, value_name = "COMMAND")]
    server: Option<String>,
}

impl Target {
    /// The server's address, and the server itself if it was started here: it lives as long as that
    /// value.
    fn start(&self) -> io::Result<(SocketAddr, Option<Server>)> {
        if let Some(addr) = self.addr {
            return Ok((addr, None));
        }
        let command = match self.server.as_deref() {
            Some("c") | None => Candidate::floor()?.command,
            Some(command) => command.to_string(),
        };
        let server = Server::start(&command)?;
        Ok((server.addr(), Some(server)))
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: Mode) -> io::Result<()> {
    raise_descriptor_limit()?;
    match mode {
        Mode::Echo {
            target,
            connections,
            size,
            pipeline,
            threads,
            seconds,
        } => {
            let (addr, _server) = target.start()?;
            let shape = Shape {
                connections: connections as usize,
                message_bytes: size as usize,
                pipeline: pipeline as usize,
            };
            println!(
                "{connections} connections, {size} bytes, pipeline {pipeline}, {threads} threads, {seconds} s"
            );
            let mut load = EchoLoads::connect(addr, shape, threads as usize)?;
            let report = load.run(Duration::from_secs(seconds))?;
            println!(
                "messages: {} ({:.0} for each second), every byte right",
                report.messages,
                report.rate()
            );
            println!("latency: {}", latency_line(&report.latency));
            println!(
                "fairness: the slowest connection has {:.2} of the mean",
                report.fairness()
            );
        }
        Mode::Idle {
            target,
            pid,
            connections,
        } => {
            let (addr, server) = target.start()?;
            let pid = server
                .as_ref()
                .map(Server::pid)
                .or(pid)
                .expect("clap asks for one of both");
            let report = idle::measure(addr, pid, connections as usize)?;
            println!(
                "{connections} connections; memory of process {pid} from /proc/{pid}/smaps_rollup"
            );
            println!(
                "{:32} {:>10} {:>18} {:>14}",
                "", "RSS", "RSS a connection", "private dirty"
            );
            let stages = [
                ("base, after 100 were closed", report.base),
                ("all open, none used", report.idle),
                ("each has echoed a message", report.used),
                ("all closed", report.closed),
            ];
            for (
                stage,
                Memory {
                    resident,
                    private_dirty,
                },
            ) in stages
            {
                let each = (resident as f64 - report.base.resident as f64) / f64::from(connections);
                println!(
                    "{stage:32} {:>6} KiB {each:>12.1} bytes {:>10} KiB",
                    resident / 1024,
                    private_dirty / 1024
                );
            }
        }
        Mode::Hold {
            addr,
            pid,
            connections,
        } => many::hold(addr, pid, connections)?,
        Mode::Pingers {
            target,
            pingers,
            flood,
            rate,
            seconds,
        } => {
            let (addr, _server) = target.start()?;
            println!("{pingers} pingers, 64 bytes, {rate} pings a second each, {seconds} s");
            let run =
                |flood, time| pingers::run(addr, pingers as usize, f64::from(rate), flood, time);
            // Once for nothing: the first pings meet cold caches, and a server that grows its
            // tables.
            run(0, Duration::from_millis(500))?;
            // By turns, since the machine's own speed changes within seconds.
            let slice = Duration::from_secs(seconds) / PINGER_SLICES;
            let mut alone = Vec::new();
            let mut beside = Vec::new();
            for _ in 0..PINGER_SLICES {
                alone.push(run(0, slice)?);
                if flood > 0 {
                    beside.push(run(flood as usize, slice)?);
                }
            }
            print_pings("alone", &alone);
            if flood > 0 {
                print_pings(&format!("beside {flood} at full speed"), &beside);
                let rate = beside.iter().map(|report| report.flood_rate).sum::<f64>()
                    / f64::from(PINGER_SLICES);
                println!("flood: {:.0} MB/s each way", rate / 1e6);
            }
        }
    }
    Ok(())
}

/// The latency of all slices together, and the p99 of each: their median tells more than one bad
/// slice.
fn print_pings(name: &str, slices: &[pingers::Report]) {
    let mut latency = latency_histogram();
    let mut p99: Vec<u64> = Vec::new();
    for slice in slices {
        latency
            .add(&slice.latency)
            .expect("all histograms have the same bounds");
        p99.push(slice.latency.value_at_quantile(0.99) / 1000);
    }
    p99.sort_unstable();
    println!("{name}: {}", latency_line(&latency));
    println!(
        "  p99 of the slices, us: {p99:?}, median {}",
        p99[p99.len() / 2]
    );
}

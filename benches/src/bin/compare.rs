//! `compare`: the server CPU time for each message, against the hand-written C epoll loop.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use greenroom_benches::echo::{EchoLoad, Limit, Shape};
use greenroom_benches::rounds::{machine, median};
use greenroom_benches::server::{Server, floor_command, shell_quote};
use greenroom_benches::syscalls;
use greenroom_benches::{pin_to_cpu, raise_descriptor_limit};

/// The servers run on this CPU alone, and the load on the other: they never take turns on one.
const SERVER_CPU: usize = 0;
const LOAD_CPU: usize = 1;
/// Before the first round, for each server.
const WARM_UP: Limit = Limit {
    time: Duration::from_millis(500),
    messages: u64::MAX,
};
/// How many slices each server has in a round, by turns. The machine's own speed changes within
/// seconds (a neighbour begins or ends): all servers of a round then see the same share of both
/// speeds.
const SLICES_PER_ROUND: usize = 10;
/// For the count of system calls.
const STRACE_CONNECTIONS: [usize; 2] = [1, 100];
const STRACE_MESSAGES: u64 = 20_000;

/// Compares echo servers with the C epoll loop, in alternating slices under one load: server CPU
/// time for each message.
#[derive(Parser)]
struct Cli {
    /// A server to compare, which prints a line with `listening on ADDR`; may be given again
    /// [default: greenroom=target/release/examples/echo --addr 127.0.0.1:0 --pollers 1]
    #[arg(long = "server", value_name = "NAME=COMMAND", value_parser = parse_server)]
    servers: Vec<(String, String)>,
    /// Connections to each server
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Bytes of a message
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    size: u32,
    /// Messages on their way on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pipeline: u32,
    /// Rounds, in each of which each server has ten slices, by turns
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The length of a slice in milliseconds
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    slice_ms: u64,
    /// Count system calls for each message with strace instead
    #[arg(long, conflicts_with_all = ["connections", "rounds", "slice_ms"])]
    strace: bool,
}

fn parse_server(argument: &str) -> Result<(String, String), String> {
    let (name, command) = argument.split_once('=').ok_or("expected NAME=COMMAND")?;
    Ok((name.to_string(), command.to_string()))
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

fn run(cli: &Cli) -> io::Result<()> {
    raise_descriptor_limit()?;
    let commands = commands(cli)?;
    println!("{}", machine());
    let pinned = thread::available_parallelism()?.get() > LOAD_CPU && pin_to_cpu(LOAD_CPU).is_ok();
    let server_cpu = pinned.then_some(SERVER_CPU);
    match pinned {
        true => println!("servers on CPU {SERVER_CPU}, load on CPU {LOAD_CPU}"),
        false => println!("NOT PINNED, for want of a second CPU: expect noise"),
    }
    if cli.strace {
        count_system_calls(cli, &commands, server_cpu)
    } else {
        compare(cli, &commands, server_cpu)
    }
}

/// The floor, the floor again as control, and the servers asked for.
fn commands(cli: &Cli) -> io::Result<Vec<(String, String)>> {
    let floor = floor_command()?;
    let mut commands = vec![("c".to_string(), floor.clone())];
    // strace counts the same each time: a control would tell nothing.
    if !cli.strace {
        commands.push(("c again".to_string(), floor));
    }
    if !cli.servers.is_empty() {
        commands.extend(cli.servers.iter().cloned());
        return Ok(commands);
    }
    let echo = default_example()?;
    if echo.exists() {
        let command = format!(
            "{} --addr 127.0.0.1:0 --pollers 1",
            shell_quote(&echo.to_string_lossy())
        );
        commands.push(("greenroom".to_string(), command));
    } else {
        println!(
            "no {}: build it with `cargo build --release --example echo`",
            echo.display()
        );
    }
    Ok(commands)
}

/// The echo example, in the target folder where this program lies.
fn default_example() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.with_file_name("examples").join("echo"))
}

/// One server under comparison.
struct Contender {
    name: String,
    /// Dropped first, so the connections close before the server is killed.
    load: EchoLoad,
    server: Server,
    /// Nanoseconds of server CPU time for a message, round by round.
    cpu_ns: Vec<f64>,
    /// Messages for each second, round by round.
    rates: Vec<f64>,
}

/// What a server's slices of one round add up to.
#[derive(Clone, Default)]
struct Total {
    cpu: Duration,
    elapsed: Duration,
    messages: f64,
}

/// Says which server failed.
fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

fn compare(cli: &Cli, commands: &[(String, String)], server_cpu: Option<usize>) -> io::Result<()> {
    let shape = Shape {
        connections: cli.connections as usize,
        message_bytes: cli.size as usize,
        pipeline: cli.pipeline as usize,
    };
    let slice = Limit::time(Duration::from_millis(cli.slice_ms));
    let mut contenders = Vec::new();
    for (name, command) in commands {
        let server = Server::start(command, server_cpu)?;
        let mut load = EchoLoad::connect(server.addr(), shape)?;
        // For the caches, and for tables that grow once.
        load.run(WARM_UP).map_err(|error| named(name, &error))?;
        contenders.push(Contender {
            name: name.clone(),
            load,
            server,
            cpu_ns: Vec::new(),
            rates: Vec::new(),
        });
    }
    println!(
        "{} connections, {} bytes, pipeline {}; {} rounds of {SLICES_PER_ROUND} slices of {} ms for each server",
        cli.connections, cli.size, cli.pipeline, cli.rounds, cli.slice_ms
    );
    println!(
        "server CPU time, user and system of all its threads (clock_getcpuclockid), in ns for each message, and its ratio to c:"
    );
    print!("{:6}", "round");
    contenders
        .iter()
        .for_each(|contender| print!(" {:>18}", contender.name));
    println!();

    for round in 0..cli.rounds as usize {
        let mut totals = vec![Total::default(); contenders.len()];
        for slice_number in 0..SLICES_PER_ROUND {
            // Rotated, so that no server is always the first.
            for i in 0..contenders.len() {
                let turn = (round + slice_number + i) % contenders.len();
                let contender = &mut contenders[turn];
                let before = contender.server.cpu_time()?;
                let report = contender
                    .load
                    .run(slice)
                    .map_err(|error| named(&contender.name, &error))?;
                totals[turn].cpu += contender.server.cpu_time()? - before;
                totals[turn].elapsed += report.elapsed;
                totals[turn].messages += report.messages as f64;
            }
        }
        for (contender, total) in contenders.iter_mut().zip(&totals) {
            contender
                .cpu_ns
                .push(total.cpu.as_nanos() as f64 / total.messages);
            contender
                .rates
                .push(total.messages / total.elapsed.as_secs_f64());
        }
        print!("{:<6}", round + 1);
        for contender in &contenders {
            let cpu_ns = contender.cpu_ns[round];
            print!(
                " {cpu_ns:>10.0} ({:.3})",
                cpu_ns / contenders[0].cpu_ns[round]
            );
        }
        println!();
    }

    println!(
        "\n{:18} {:>10} {:>14} {:>16} {:>12}",
        "", "CPU ns", "ratio to c", "least to most", "messages/s"
    );
    let floor = contenders[0].cpu_ns.clone();
    for contender in &contenders {
        let mut ratios: Vec<f64> = contender
            .cpu_ns
            .iter()
            .zip(&floor)
            .map(|(cpu_ns, floor)| cpu_ns / floor)
            .collect();
        let ratio = median(&mut ratios);
        println!(
            "{:18} {:>10.0} {:>14.3} {:>8.3}..{:.3} {:>12.0}",
            contender.name,
            median(&mut contender.cpu_ns.clone()),
            ratio,
            ratios[0],
            ratios[ratios.len() - 1],
            median(&mut contender.rates.clone()),
        );
    }
    Ok(())
}

fn count_system_calls(
    cli: &Cli,
    commands: &[(String, String)],
    server_cpu: Option<usize>,
) -> io::Result<()> {
    for connections in STRACE_CONNECTIONS {
        let shape = Shape {
            connections,
            message_bytes: cli.size as usize,
            pipeline: cli.pipeline as usize,
        };
        // Each server's calls for a message, by name.
        let mut columns: Vec<BTreeMap<String, f64>> = Vec::new();
        for (name, command) in commands {
            let server = Server::start(command, server_cpu)?;
            let (counts, messages) = syscalls::count(&server, shape, STRACE_MESSAGES)
                .map_err(|error| named(name, &error))?;
            columns.push(
                counts
                    .into_iter()
                    .map(|(call, count)| (call, count as f64 / messages as f64))
                    .collect(),
            );
        }
        println!(
            "\nsystem calls for each message (strace -c -f), {STRACE_MESSAGES} messages: {connections} connections, \
             {} bytes, pipeline {}",
            cli.size, cli.pipeline
        );
        print!("{:16}", "");
        commands.iter().for_each(|(name, _)| print!(" {name:>12}"));
        println!();
        let calls: BTreeSet<&String> = columns.iter().flat_map(|column| column.keys()).collect();
        for call in calls {
            print!("{call:16}");
            columns
                .iter()
                .for_each(|column| print!(" {:>12.4}", column.get(call).copied().unwrap_or(0.0)));
            println!();
        }
        print!("{:16}", "all");
        columns
            .iter()
            .for_each(|column| print!(" {:>12.4}", column.values().sum::<f64>()));
        println!();
    }
    Ok(())
}

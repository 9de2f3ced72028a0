//! `simulated`: very many connections in one process, without descriptors: what an idle one costs
//! in resident memory, and what an echo takes beside them.
//!
//! The network between the two ends is part of the process, too; what it takes is what is not there
//! with actors of no socket (`memory`).

use std::time::{Duration, Instant};

use clap::Parser;
use greenroom::testing::{Client, Simulation};
use greenroom::{Actor, Context, Input, Outcome, System};
use greenroom_benches::rounds::machine;
use greenroom_benches::server::Memory;

/// Connects made before the server has a turn: its backlog is bounded.
const BATCH: usize = 1000;

/// Echoes that a time is the mean of.
const ECHOES: u32 = 20_000;

/// Very many connections without descriptors.
#[derive(Parser)]
struct Cli {
    /// How many connections there are in the end
    #[arg(long, default_value_t = 1_000_000)]
    connections: usize,
    /// Pollers of the server
    #[arg(long, default_value_t = 2)]
    pollers: usize,
}

struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

const ADDR: &str = "127.0.0.1:9000";

fn connect(simulation: &mut Simulation, system: &System, clients: &mut Vec<Client>, many: usize) {
    while clients.len() < many {
        let batch = BATCH.min(many - clients.len());
        clients.extend((0..batch).map(|_| simulation.client(ADDR)));
        let all = clients.len() as u64;
        let done = |_: &mut Simulation| system.stats().connections == all;
        simulation.run_until(Duration::from_secs(60), done);
    }
    simulation.run_for(Duration::from_millis(10));
}

/// Nanoseconds for each echo, by clients spread over all.
fn echo(simulation: &mut Simulation, clients: &[Client]) -> u64 {
    let start = Instant::now();
    for echo in 0..ECHOES as usize {
        let client = &clients[echo * 7919 % clients.len()];
        client.send("ping\n");
        assert_eq!(client.line(simulation), "ping");
    }
    (start.elapsed() / ECHOES).as_nanos() as u64
}

fn main() {
    let cli = Cli::parse();
    println!("{}", machine());
    let mut simulation = Simulation::new(1);
    simulation.keep_trace(0);
    let system = simulation.system(System::builder().pollers(cli.pollers));
    system.listen(ADDR, |_peer| Echo).expect("nobody listens");
    let mut clients = Vec::with_capacity(cli.connections);
    let memory = || Memory::of_process(std::process::id()).expect("/proc is there");
    connect(&mut simulation, &system, &mut clients, 1);
    let before = memory();
    println!(
        "{:>12} {:>16} {:>14}",
        "connections", "resident, each", "an echo takes"
    );
    let mut many = cli.connections.min(1000);
    loop {
        connect(&mut simulation, &system, &mut clients, many);
        let each = memory().each_beyond(&before, many);
        let time = echo(&mut simulation, &clients);
        println!("{many:>12} {each:>10.0} bytes {time:>11} ns");
        if many == cli.connections {
            break;
        }
        many = (many * 10).min(cli.connections);
    }
    drop(clients);
    let start = Instant::now();
    simulation.finish(Duration::from_secs(10));
    println!(
        "all closed and stopped in {:.1} s",
        start.elapsed().as_secs_f64()
    );
}

//! `accept`: what the three ways to spread connections over two pollers cost, and how even they
//! are.

use std::env;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand, ValueEnum};
use greenroom::{Actor, Balance, Context, ListenOptions, Outcome, System};
use greenroom_benches::rounds::{machine, median};
use greenroom_benches::server::{Server, shell_quote};
use greenroom_benches::{raise_descriptor_limit, reset_on_close};

/// Pollers of the server.
const POLLERS: usize = 2;
/// Connections opened and closed in one slice.
const SLICE: usize = 2_000;
/// How many are open at a time in it: enough that the server always has some to accept, below every
/// backlog.
const AT_A_TIME: usize = 50;
/// Connections of which the spread is looked at.
const SPREADS: [usize; 2] = [200, 1_000];

/// Accepting in one poller (for the least loaded, or in turn) against accepting in each
/// (SO_REUSEPORT).
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    serve: Option<Mode>,
    /// Rounds, in each of which every way has a slice, by turns
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

#[derive(Subcommand)]
enum Mode {
    /// Only the server, which tells each connection the number of its poller
    Serve {
        #[arg(value_enum)]
        way: Way,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    LeastConnections,
    RoundRobin,
    PerPoller,
}

impl Way {
    fn balance(self) -> Balance {
        match self {
            Way::LeastConnections => Balance::LeastConnections,
            Way::RoundRobin => Balance::RoundRobin,
            Way::PerPoller => Balance::PerPoller,
        }
    }

    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Says where it lives.
struct Greeter;

impl Actor for Greeter {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write([ctx.poller() as u8]);
        Ok(())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.serve {
        Some(Mode::Serve { way }) => serve(way),
        None => compare(cli.rounds as usize),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("accept: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(way: Way) -> io::Result<()> {
    let system = System::builder().pollers(POLLERS).build()?;
    let options = ListenOptions::new().balance(way.balance());
    let listener = system.listen_with("127.0.0.1:0", options, |_peer| Greeter)?;
    println!("listening on {}", listener.local_addr());
    system.run()
}

/// Opens `count` connections, of which each has been accepted and opened; how many live on each
/// poller.
fn open(addr: SocketAddr, count: usize) -> io::Result<(Vec<TcpStream>, [usize; POLLERS])> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let connection = TcpStream::connect(addr)?;
        reset_on_close(&connection)?;
        connections.push(connection);
    }
    let mut spread = [0; POLLERS];
    for connection in &mut connections {
        let mut poller = [0];
        connection.read_exact(&mut poller)?;
        let count = spread
            .get_mut(usize::from(poller[0]))
            .ok_or_else(|| io::Error::other("the server named a poller that it does not have"))?;
        *count += 1;
    }
    Ok((connections, spread))
}

/// One way, its server, and what was measured of it, round by round.
struct Contender {
    name: String,
    server: Server,
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
    /// For each of `SPREADS`, the share of the poller that has the most.
    most: [Vec<f64>; SPREADS.len()],
}

fn compare(rounds: usize) -> io::Result<()> {
    raise_descriptor_limit()?;
    println!("{}", machine());
    let program = shell_quote(&env::current_exe()?.to_string_lossy());
    let mut contenders = Vec::new();
    for way in Way::value_variants() {
        let name = way.name();
        let server = Server::start(&format!("{program} serve {name}"))?;
        open(server.addr(), AT_A_TIME)?;
        contenders.push(Contender {
            name,
            server,
            rates: Vec::new(),
            cpu_us: Vec::new(),
            most: Default::default(),
        });
    }
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let turn = (round + turn) % contenders.len();
            contenders[turn].measure()?;
        }
    }
    println!(
        "{SLICE} connections a slice, {AT_A_TIME} at a time, {rounds} rounds; server with {POLLERS} pollers; share of the fuller poller: median (worst)\n"
    );
    print!("{:20} {:>14} {:>14}", "", "connections/s", "server CPU us");
    SPREADS
        .iter()
        .for_each(|count| print!(" {:>16}", format!("of {count}")));
    println!();
    for contender in &mut contenders {
        print!(
            "{:20} {:>14.0} {:>14.1}",
            contender.name,
            median(&mut contender.rates),
            median(&mut contender.cpu_us)
        );
        for most in &mut contender.most {
            let middle = median(most);
            let worst = most.last().copied().unwrap_or_default();
            print!(
                " {:>16}",
                format!("{:.1} % ({:.1} %)", middle * 1e2, worst * 1e2)
            );
        }
        println!();
    }
    Ok(())
}

impl Contender {
    fn measure(&mut self) -> io::Result<()> {
        let addr = self.server.addr();
        let (cpu, start) = (self.server.cpu_time()?, Instant::now());
        for _ in 0..SLICE / AT_A_TIME {
            open(addr, AT_A_TIME)?;
        }
        self.rates
            .push(SLICE as f64 / start.elapsed().as_secs_f64());
        let cpu = self.server.cpu_time()? - cpu;
        self.cpu_us.push(cpu.as_nanos() as f64 / 1e3 / SLICE as f64);
        for (count, most) in SPREADS.into_iter().zip(&mut self.most) {
            let (_connections, spread) = open(addr, count)?;
            let fullest = spread.into_iter().max().unwrap_or_default();
            most.push(fullest as f64 / count as f64);
        }
        Ok(())
    }
}

//! Answers `ping` at once and `work MS` after work that blocks for so many milliseconds, which runs on
//! the threads for offloaded work; with `--inline` on the poller instead, where it holds up everybody.
//!
//!     cargo run --release --example blocking_work
//!     nc 127.0.0.1 9000
//!
//! With `--measure SECONDS` it is its own clients: some ask for work, others on the same poller for
//! `pong`, and it prints how long these waited.
//!
//!     cargo run --release --example blocking_work -- --measure 5
//!     cargo run --release --example blocking_work -- --measure 5 --inline

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use greenroom::{Actor, Context, Endpoint, Input, Listener, Outcome, System, WorkError};

mod support;

/// Bytes of a line, without its end. A longer one ends its connection.
const LINE_MAX: usize = 80;

/// Milliseconds that one piece of work may take.
const WORK_MAX: u64 = 10_000;

/// Clients that ask for work, and how long each piece takes, while it measures.
const WORKING: usize = 4;
const WORK: u64 = 10;

/// Clients that want to be answered at once, each a millisecond after its last answer.
const QUICK: usize = 8;
const PAUSE: Duration = Duration::from_millis(1);

/// Answers `ping` at once and `work MS` after work that blocks for so many milliseconds.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Do the work on the poller, where it holds up all other connections.
    #[arg(long)]
    inline: bool,

    /// Threads for offloaded work.
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,

    /// Be the clients, too, on one poller, and print how long they waited.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    measure: Option<u64>,
}

/// A connection. While work is under way for it nothing is read, so answers keep their order.
struct Server {
    is_inline: bool,
    is_working: bool,
    /// The system stops: this ends with the answer.
    is_last: bool,
}

/// What blocks: it stands for a disk, a database's library, a name server.
fn work(ms: u64) -> u64 {
    thread::sleep(Duration::from_millis(ms));
    ms
}

impl Server {
    fn work(&mut self, ms: u64, ctx: &mut Context<'_, Self>) {
        if self.is_inline {
            let done = work(ms);
            ctx.write(format!("done {done}\n"));
            return;
        }
        match ctx.offload(move || work(ms), |done| done) {
            Ok(()) => {
                self.is_working = true;
                ctx.pause();
            }
            // Both closures come back in the error; there is nothing in these to be kept.
            Err(refused) => {
                log::warn!("{refused}");
                ctx.write("busy\n");
            }
        }
    }
}

impl Actor for Server {
    type Message = Result<u64, WorkError>;

    /// Takes one line; called again while there are more, unless work is under way.
    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let Some(line) = input.line(LINE_MAX)? else {
            return Ok(());
        };
        let line = str::from_utf8(line)?;
        let ms = line.strip_prefix("work ").map(str::parse);
        match (line, ms) {
            ("ping", _) => {
                ctx.write("pong\n");
            }
            (_, Some(Ok(ms @ 0..=WORK_MAX))) => self.work(ms, ctx),
            _ => {
                ctx.write(format!("ping, or work with 0 to {WORK_MAX}\n"));
            }
        }
        Ok(())
    }

    fn message(&mut self, done: Self::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        // A panic of the work is this connection's end, with that as its reason.
        ctx.write(format!("done {}\n", done?));
        self.is_working = false;
        if self.is_last {
            ctx.close();
        }
        ctx.resume();
        Ok(())
    }

    fn stopping(&mut self, _deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        self.is_last = self.is_working;
        if !self.is_working {
            ctx.close();
        }
        Ok(())
    }
}

/// Listens at an address.
pub(crate) fn serve(system: &System, addr: &str, is_inline: bool) -> io::Result<Listener> {
    system.listen(addr, move |_peer| Server {
        is_inline,
        is_working: false,
        is_last: false,
    })
}

// ---- the measurement ----------------------------------------------------------------------------

/// Asks again and again until that time; how long each answer took.
fn ask(addr: SocketAddr, line: &str, pause: Duration, until: Instant) -> io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let (mut answer, mut times) = (String::new(), Vec::new());
    while Instant::now() < until {
        let asked = Instant::now();
        stream.write_all(line.as_bytes())?;
        answer.clear();
        answers.read_line(&mut answer)?;
        times.push(asked.elapsed());
        thread::sleep(pause);
    }
    Ok(times)
}

/// All that many clients saw, sorted.
fn ask_at_once(
    clients: usize,
    addr: SocketAddr,
    line: &str,
    pause: Duration,
    until: Instant,
) -> io::Result<Vec<Duration>> {
    let times = thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|_| scope.spawn(move || ask(addr, line, pause, until)))
            .collect();
        let times = clients.into_iter().map(|client| client.join());
        let times = times.map(|times| times.unwrap_or_else(|_| Err(io::Error::other("a client"))));
        times.collect::<io::Result<Vec<_>>>()
    })?;
    let mut times = times.concat();
    times.sort();
    Ok(times)
}

/// So many of a hundred were not longer than this.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let last = times.len().saturating_sub(1);
    times.get(last * percent / 100).copied().unwrap_or_default()
}

fn measure(addr: SocketAddr, time: Duration) -> io::Result<()> {
    let until = Instant::now() + time;
    let line = format!("work {WORK}\n");
    let (work, quick) = thread::scope(|scope| {
        let work = scope.spawn(|| ask_at_once(WORKING, addr, &line, Duration::ZERO, until));
        let quick = ask_at_once(QUICK, addr, "ping\n", PAUSE, until);
        (work.join(), quick)
    });
    let (work, quick) = (work.map_err(|_| io::Error::other("a client"))??, quick?);
    for (name, times) in [("ping", quick), (line.trim_end(), work)] {
        let [p50, p99, p100] = [50, 99, 100].map(|percent| percentile(&times, percent));
        let count = times.len();
        println!("{name}: {count} answers, p50 {p50:.1?}, p99 {p99:.1?}, max {p100:.1?}");
    }
    Ok(())
}

fn main() -> Result<(), support::Error> {
    let mut options = Options::parse();
    if options.measure.is_some() {
        // Those that wait are on the poller of those that make them wait.
        options.common.pollers.get_or_insert(1);
    }
    let builder = options.common.builder();
    let system = builder.workers(options.threads.into(), 1024).build()?;
    let listener = serve(&system, &options.common.addr, options.inline)?;
    let Some(seconds) = options.measure else {
        return support::run_until_signal(system, &listener, ", then type ping, or work 500");
    };
    match listener.local_addr() {
        Endpoint::Tcp(addr) => measure(*addr, Duration::from_secs(seconds))?,
        other => {
            let text = format!("--measure: {other} is no TCP address");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text).into());
        }
    }
    Ok(())
}

//! A front that answers its clients with what a backend answers, over a pool of connections to it: a
//! line each way, many clients, few connections.
//!
//!     cargo run --release --example connection_pool -- --max 2
//!     nc 127.0.0.1 9000
//!
//! Say anything: the backend says it backwards, behind the number of its connection. Say `counts` for
//! what the pool has. Without `--backend` it brings one of its own, which takes its time.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use greenroom::{
    Actor, Addr, CallError, Context, Exchange, Input, Listener, Outcome, Pool, PoolCounts,
    PoolMessage, Remote, System, TimerKey,
};

mod support;

/// Bytes of a line, without its end.
const LINE_MAX: usize = 4096;

/// How long the backend that is brought along takes for an answer.
const THINKS: Duration = Duration::from_millis(20);

/// Answers clients over a pool of connections to a backend.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Where the backend is: HOST:PORT or unix:PATH. It is to answer each line with a line. By
    /// default one in this process.
    #[arg(long)]
    backend: Option<String>,

    /// Connections at least.
    #[arg(long, default_value_t = 1)]
    min: usize,

    /// Connections at most.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    max: u16,

    /// Milliseconds that a client waits for an answer.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    timeout: u64,
}

/// A line each way.
pub(crate) struct Lines;

impl Exchange for Lines {
    type Request = Vec<u8>;
    type Answer = Vec<u8>;

    fn request(&mut self, request: Vec<u8>, output: &mut Vec<u8>) {
        output.extend(request);
        output.push(b'\n');
    }

    fn answer(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
        Ok(input.line(LINE_MAX)?.map(<[u8]>::to_vec))
    }
}

/// A client's connection: one question at a time.
struct Client {
    pool: Addr<Pool<Lines>>,
    timeout: Duration,
}

enum Told {
    Answer(Result<Vec<u8>, CallError>),
    Counts(Option<PoolCounts>),
}

impl Actor for Client {
    type Message = Told;

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let Some(line) = input.line(LINE_MAX)? else {
            return Ok(());
        };
        // What it says next waits until this is answered.
        ctx.pause();
        if line == b"counts" {
            let counts = |counts: Result<_, _>| Told::Counts(counts.ok());
            ctx.ask(&self.pool, self.timeout, PoolMessage::counts, counts);
        } else {
            let request = line.to_vec();
            self.pool.call(request, self.timeout, ctx, Told::Answer);
        }
        Ok(())
    }

    fn message(&mut self, told: Told, ctx: &mut Context<'_, Self>) -> Outcome {
        match told {
            Told::Answer(Ok(answer)) => ctx.write_parts(&[&answer, b"\n"]),
            Told::Answer(Err(error)) => ctx.write(format!("{error}\n")),
            Told::Counts(Some(counts)) => ctx.write(format!(
                "{} connecting, {} idle, {} lent, {} waiting; {} made, {} failed, {} broken\n",
                counts.connecting,
                counts.idle,
                counts.lent,
                counts.waiting,
                counts.made,
                counts.failed,
                counts.broken
            )),
            Told::Counts(None) => ctx.write("the pool does not say\n"),
        };
        ctx.resume();
        Ok(())
    }
}

/// The backend that is brought along: says a line backwards, behind the number of its connection.
struct Backwards {
    number: u64,
    thinks: Duration,
    answer: Vec<u8>,
}

impl Actor for Backwards {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(line) = input.line(LINE_MAX)? {
            self.answer = format!("{}: ", self.number).into_bytes();
            self.answer.extend(line.iter().rev());
            self.answer.push(b'\n');
            ctx.pause();
            ctx.set_timer(self.thinks);
        }
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(&self.answer);
        ctx.resume();
        Ok(())
    }
}

/// A backend whose connections are numbered from 1 on.
pub(crate) fn serve_backwards(
    system: &System,
    addr: &str,
    thinks: Duration,
) -> io::Result<Listener> {
    let count = AtomicU64::new(0);
    system.listen(addr, move |_peer| Backwards {
        number: 1 + count.fetch_add(1, Ordering::Relaxed),
        thinks,
        answer: Vec::new(),
    })
}

/// Serves clients over a pool of so many connections to `backend`.
pub(crate) fn serve(
    system: &System,
    addr: &str,
    backend: Remote,
    (min, max): (usize, usize),
    timeout: Duration,
) -> io::Result<Listener> {
    let pool = system.spawn(move || Pool::new(backend, || Lines).size(min, max));
    system.listen(addr, move |_peer| Client {
        pool: pool.clone(),
        timeout,
    })
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    // A system of its own, which outlives the one that calls it.
    let other = System::builder().pollers(1).name("backend").build()?;
    let backend = match &options.backend {
        Some(backend) => backend.parse().map_err(invalid)?,
        None => {
            let listener = serve_backwards(&other, "127.0.0.1:0", THINKS)?;
            listener.local_addr().clone().into()
        }
    };
    let size = (options.min, usize::from(options.max));
    if size.0 > size.1 {
        let text = "--min: no more than --max";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text).into());
    }
    let timeout = Duration::from_millis(options.timeout);
    let listener = serve(&system, &options.common.addr, backend, size, timeout)?;
    support::run_until_signal(system, &listener, ", then type a line, or: counts")
}

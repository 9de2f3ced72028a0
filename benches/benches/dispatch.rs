//! Question: what does it cost to find an actor and enter its callback, sockets and system calls
//! left out?
//!
//! - `readable`: an actor is shown 64 bytes and consumes them, on the stage of
//!   `greenroom::testing`, which runs the poller's own code from the selector's report on, with a
//!   buffer in memory for a socket; that buffer's cost is in the figure.
//! - `message`: a relay hands 1,000 actors of its own poller a message each, and they answer. Each
//!   is put into the mailbox, taken out in a later turn, its actor found by key and generation, and
//!   called behind `catch_unwind`. A figure divided by 2,000 is one send and one dispatch.
//! - `boxed`: the baseline, 1,000 boxed actors called in a row.
//!
//! Run: `cargo bench -p greenroom-benches --bench dispatch`.

// criterion_group! makes a public function without documentation.
#![allow(missing_docs)]

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::Sender;
use greenroom::testing::Stage;
use greenroom::{Actor, Addr, Context, Input, Outcome, System};

const ACTORS: u64 = 1_000;

/// Answers.
struct Echo;

impl Actor for Echo {
    type Message = Addr<Relay>;

    fn message(&mut self, from: Addr<Relay>, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(from.send(ToRelay::Answer)?)
    }
}

/// Consumes what it is shown.
struct Drain(u64);

impl Actor for Drain {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.0 += input.take_all().len() as u64;
        Ok(())
    }
}

trait Call {
    fn call(&mut self, number: u64);
}

impl Call for Drain {
    fn call(&mut self, number: u64) {
        self.0 += number;
    }
}

struct Relay {
    echoes: Vec<Addr<Echo>>,
    me: Option<Addr<Relay>>,
    answers: u64,
    rounds: u64,
    started: Instant,
    ends: Sender<Duration>,
}

enum ToRelay {
    Rounds(u64),
    Answer,
}

impl Relay {
    fn round(&mut self) -> Outcome {
        if self.rounds == 0 {
            return Ok(self.ends.send(self.started.elapsed())?);
        }
        self.rounds -= 1;
        self.answers = 0;
        if let Some(me) = &self.me {
            for echo in &self.echoes {
                echo.send(me.clone())?;
            }
        }
        Ok(())
    }
}

impl Actor for Relay {
    type Message = ToRelay;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.echoes = (0..ACTORS).map(|_| ctx.spawn(Echo)).collect();
        self.me = Some(ctx.addr());
        Ok(())
    }

    fn message(&mut self, message: ToRelay, _ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToRelay::Rounds(rounds) => {
                (self.rounds, self.started) = (rounds, Instant::now());
                self.round()
            }
            ToRelay::Answer => {
                self.answers += 1;
                if self.answers == ACTORS {
                    self.round()?;
                }
                Ok(())
            }
        }
    }
}

fn dispatch(c: &mut Criterion) {
    let system = System::builder().pollers(1).build().expect("a system");
    let (ends, ended) = crossbeam_channel::unbounded();
    let relay = system.spawn(move || Relay {
        echoes: Vec::new(),
        me: None,
        answers: 0,
        rounds: 0,
        started: Instant::now(),
        ends,
    });
    let mut group = c.benchmark_group("dispatch");
    let mut stage = Stage::new(Drain(0));
    group.throughput(Throughput::Elements(1));
    group.bench_function("readable", |b| b.iter(|| stage.receive([7; 64])));
    let mut boxed: Vec<Box<dyn Call>> = (0..ACTORS)
        .map(|n| Box::new(Drain(n)) as Box<dyn Call>)
        .collect();
    group.throughput(Throughput::Elements(ACTORS));
    group.bench_function("boxed", |b| {
        b.iter(|| {
            let boxed = std::hint::black_box(&mut boxed);
            boxed.iter_mut().for_each(|actor| actor.call(1));
        })
    });
    group.throughput(Throughput::Elements(2 * ACTORS));
    group.bench_function("message", |b| {
        b.iter_custom(|rounds| {
            assert!(relay.send(ToRelay::Rounds(rounds)).is_ok());
            ended.recv().expect("the relay lives")
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    targets = dispatch
}
criterion_main!(benches);

//! The closed loop: each connection always has the same number of messages on their way, and sends
//! the next when one is back.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::connections::Connections;
use crate::latency_histogram;
use crate::open_loop::{self, Flood, Wait};

/// How long the last replies may take once nothing more is sent.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many connections, in all.
    pub connections: usize,
    /// The length of a message in bytes.
    pub message_bytes: usize,
    /// How many messages are on their way on each connection.
    pub pipeline: usize,
}

impl fmt::Display for Shape {
    /// As the name of a case: `64 B; 100 connections; pipeline 32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message_bytes {
            bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => {
                write!(f, "{} KiB", bytes / 1024)?
            }
            bytes => write!(f, "{bytes} B")?,
        }
        write!(f, "; {} connections", self.connections)?;
        match self.pipeline {
            1 => Ok(()),
            pipeline => write!(f, "; pipeline {pipeline}"),
        }
    }
}

/// When to send nothing more: at the first of both.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// After this time.
    pub time: Duration,
    /// After this many messages.
    pub messages: u64,
}

impl Limit {
    /// A limit of time alone.
    pub fn time(time: Duration) -> Limit {
        Limit {
            time,
            messages: u64::MAX,
        }
    }
}

/// What a run of the closed loop saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// Messages that came back, each right in every byte.
    pub messages: u64,
    /// From the first send to the last reply.
    pub elapsed: Duration,
    /// From just before a message is written until it has been read, in nanoseconds.
    pub latency: Histogram<u64>,
    /// The messages of each connection.
    pub messages_by_connection: Vec<u64>,
}

impl Report {
    /// Messages for each second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }

    /// The messages of the slowest connection, by the mean of all: 1 where all are served alike.
    pub fn fairness(&self) -> f64 {
        let slowest = self.messages_by_connection.iter().min().copied();
        let mean = self.messages as f64 / self.messages_by_connection.len() as f64;
        slowest.unwrap_or(0) as f64 / mean
    }
}

/// Open connections that a closed loop can be run on, as often as wanted.
#[derive(Debug)]
pub struct EchoLoad {
    connections: Connections,
    pipeline: usize,
}

impl EchoLoad {
    /// Connects to `addr`.
    pub fn connect(addr: SocketAddr, shape: Shape) -> io::Result<EchoLoad> {
        let mut connections = Connections::new()?;
        for _ in 0..shape.connections {
            connections.open(addr, shape.message_bytes)?;
        }
        Ok(EchoLoad {
            connections,
            pipeline: shape.pipeline,
        })
    }

    /// Runs the loop until `limit`, then waits for the last replies: afterwards the server has
    /// nothing left to do, so its CPU time read before and after belongs to just the messages
    /// reported.
    pub fn run(&mut self, limit: Limit) -> io::Result<Report> {
        let connections = &mut self.connections;
        let messages_before: Vec<u64> = (0..connections.len())
            .map(|index| connections.messages(index))
            .collect();
        let mut latency = latency_histogram();
        let mut unsent = limit.messages;
        let mut messages = 0;
        let began = Instant::now();

        for index in 0..connections.len() {
            let start = connections.now();
            for _ in 0..unsent.min(self.pipeline as u64) {
                connections.push(index, start);
                unsent -= 1;
            }
            connections.flush(index)?;
        }
        let mut sent = limit.messages - unsent;
        loop {
            let elapsed = began.elapsed();
            if elapsed >= limit.time {
                unsent = 0;
            }
            if messages == sent && unsent == 0 {
                break;
            }
            let left = (limit.time + DRAIN_TIMEOUT).saturating_sub(elapsed);
            if left.is_zero() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{} of {sent} messages did not come back", sent - messages),
                ));
            }
            // While it may still send, it wakes at the limit; afterwards only replies matter.
            let timeout = if unsent > 0 {
                limit.time - elapsed
            } else {
                left
            };
            for n in 0..connections.wait(timeout)? {
                let (index, readable) = connections.ready(n);
                if readable {
                    let completed = connections.receive(index, &mut latency)?;
                    messages += completed;
                    let next = unsent.min(completed);
                    if next > 0 {
                        let start = connections.now();
                        (0..next).for_each(|_| connections.push(index, start));
                        unsent -= next;
                        sent += next;
                    }
                }
                connections.flush(index)?;
            }
        }
        let elapsed = began.elapsed();
        let messages_by_connection = messages_before
            .iter()
            .enumerate()
            .map(|(index, before)| connections.messages(index) - before)
            .collect();
        Ok(Report {
            messages,
            elapsed,
            latency,
            messages_by_connection,
        })
    }
}

/// Closed loops on several threads, each with its share of the connections.
#[derive(Debug)]
pub struct EchoLoads {
    loads: Vec<EchoLoad>,
}

impl EchoLoads {
    /// Connects to `addr`, for at least one thread and at most as many as there are connections.
    pub fn connect(addr: SocketAddr, shape: Shape, threads: usize) -> io::Result<EchoLoads> {
        let threads = threads.clamp(1, shape.connections.max(1));
        let loads = (0..threads).map(|i| {
            let share = shape.connections / threads + usize::from(i < shape.connections % threads);
            let shape = Shape {
                connections: share,
                ..shape
            };
            EchoLoad::connect(addr, shape)
        });
        Ok(EchoLoads {
            loads: loads.collect::<io::Result<_>>()?,
        })
    }

    /// Runs the closed loops for `time`; see [`EchoLoad::run`].
    pub fn run(&mut self, time: Duration) -> io::Result<Report> {
        let reports = in_threads(&mut self.loads, |load| load.run(Limit::time(time)))?;
        let mut reports = reports.into_iter();
        let mut total = reports.next().expect("at least one thread");
        for report in reports {
            total.messages += report.messages;
            total.elapsed = total.elapsed.max(report.elapsed);
            add(&mut total.latency, &report.latency);
            total
                .messages_by_connection
                .extend(report.messages_by_connection);
        }
        Ok(total)
    }

    /// Sends messages at fixed times instead, `rate` a second in all; see [`open_loop::run`].
    pub fn run_open(
        &mut self,
        rate: f64,
        time: Duration,
        wait: Wait,
    ) -> io::Result<Histogram<u64>> {
        let rate = rate / self.loads.len() as f64;
        let latencies = in_threads(&mut self.loads, |load| {
            let connections = &mut load.connections;
            let schedule = open_loop::poisson(rate, connections.len(), time);
            let report = open_loop::run(connections, schedule, time, wait, Flood::default())?;
            Ok(report.latency)
        })?;
        let mut total = latency_histogram();
        latencies.iter().for_each(|each| add(&mut total, each));
        Ok(total)
    }
}

/// Runs `run` on each load, in a thread of its own if there are several.
fn in_threads<T: Send>(
    loads: &mut [EchoLoad],
    run: impl Fn(&mut EchoLoad) -> io::Result<T> + Sync,
) -> io::Result<Vec<T>> {
    if let [load] = loads {
        return Ok(vec![run(load)?]);
    }
    let run = &run;
    thread::scope(|scope| {
        let running: Vec<_> = loads
            .iter_mut()
            .map(|load| scope.spawn(move || run(load)))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("a load thread panicked"))
            .collect()
    })
}

fn add(total: &mut Histogram<u64>, latency: &Histogram<u64>) {
    total
        .add(latency)
        .expect("all histograms have the same bounds");
}

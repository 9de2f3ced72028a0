//! The closed loop: each connection always has the same number of messages on their way, and sends
//! the next when one is back.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::connections::Connections;
use crate::latency_histogram;

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

/// Runs the closed loop for `time` with the connections spread over `threads` threads.
pub fn run_threads(
    addr: SocketAddr,
    shape: Shape,
    threads: usize,
    time: Duration,
) -> io::Result<Report> {
    // All connect before any begins, so that no thread measures the connects of another.
    let loads: Vec<EchoLoad> = (0..threads)
        .map(|i| {
            let connections =
                shape.connections / threads + usize::from(i < shape.connections % threads);
            EchoLoad::connect(
                addr,
                Shape {
                    connections,
                    ..shape
                },
            )
        })
        .collect::<io::Result<_>>()?;
    let reports: Vec<io::Result<Report>> = thread::scope(|scope| {
        let running: Vec<_> = loads
            .into_iter()
            .map(|mut load| scope.spawn(move || load.run(Limit::time(time))))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("a load thread panicked"))
            .collect()
    });
    let mut reports = reports.into_iter();
    let mut total = reports.next().expect("at least one thread")?;
    for report in reports {
        let report = report?;
        total.messages += report.messages;
        total.elapsed = total.elapsed.max(report.elapsed);
        total
            .latency
            .add(&report.latency)
            .expect("all histograms have the same bounds");
        total
            .messages_by_connection
            .extend(report.messages_by_connection);
    }
    Ok(total)
}

//! Pingers at a fixed rate, alone and beside connections at full speed: does one busy connection
//! starve the others?

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::connections::Connections;
use crate::{latency_histogram, sys};

/// The length of a ping.
const PING_BYTES: usize = 64;
/// A flooding connection has 1 MiB on its way, in 16 messages: more than socket buffers and any
/// read buffer take at once, so the server always finds more to read; and the pingers' own thread
/// is never busy with it for long.
const FLOOD_MESSAGE_BYTES: usize = 64 * 1024;
const FLOOD_PIPELINE: usize = 16;
/// How long the last replies may take once nothing more is sent.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a run of pingers saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the time a ping was due until its reply has been read, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Bytes that the flooding connections got back for each second.
    pub flood_rate: f64,
}

/// Sends `rate` pings each second on each of `pingers` connections for `time`, beside `flood`
/// connections at full speed.
///
/// The pings are due at fixed times whatever the server does, and latency counts from when a ping
/// was due, so a server that stops for a while is charged for each ping of that while: no
/// coordinated omission (Gil Tene).
///
/// One thread does it all and sends what is due between any two events: a second thread for the
/// flood would compete for the load's CPU, and the scheduler's turns of milliseconds would be taken
/// for the server's latency.
pub fn run(
    addr: SocketAddr,
    pingers: usize,
    rate: f64,
    flood: usize,
    time: Duration,
) -> io::Result<Report> {
    sys::reduce_timer_slack()?;
    let mut connections = Connections::new()?;
    for _ in 0..pingers {
        connections.open(addr, PING_BYTES)?;
    }
    for _ in 0..flood {
        connections.open(addr, FLOOD_MESSAGE_BYTES)?;
    }
    let mut ping_latency = latency_histogram();
    let mut flood_latency = latency_histogram();

    let began = connections.now();
    let end = began + time.as_nanos() as u64;
    // The pings of all are spread evenly: the nth of all is due n intervals after the beginning.
    let interval = 1e9 / (rate * pingers as f64);
    let due = |n: u64| began + (n as f64 * interval) as u64;
    let (mut pings, mut pongs, mut floods, mut flooded) = (0, 0, 0, 0);
    for index in pingers..connections.len() {
        for _ in 0..FLOOD_PIPELINE {
            connections.push(index, began);
            floods += 1;
        }
        connections.flush(index)?;
    }
    // Counted at `end`: what is drained later came back in more than `time`.
    let mut flooded_in_time = 0;
    loop {
        let mut now = connections.now();
        while due(pings) <= now && due(pings) < end {
            let index = (pings % pingers as u64) as usize;
            connections.push(index, due(pings));
            connections.flush(index)?;
            pings += 1;
            now = connections.now();
        }
        let sending = now < end;
        let deadline = if sending {
            due(pings).min(end)
        } else {
            end + DRAIN_TIMEOUT.as_nanos() as u64
        };
        if sending {
            flooded_in_time = flooded;
        } else if pongs == pings && flooded == floods {
            break;
        } else if now >= deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{} of {pings} pings did not come back", pings - pongs),
            ));
        }
        for n in 0..connections.wait(Duration::from_nanos(deadline.saturating_sub(now)))? {
            let (index, readable) = connections.ready(n);
            if readable && index < pingers {
                pongs += connections.receive(index, &mut ping_latency)?;
            } else if readable {
                let completed = connections.receive(index, &mut flood_latency)?;
                flooded += completed;
                if sending {
                    let start = connections.now();
                    (0..completed).for_each(|_| connections.push(index, start));
                    floods += completed;
                }
            }
            connections.flush(index)?;
        }
    }
    let flood_rate = (flooded_in_time * FLOOD_MESSAGE_BYTES as u64) as f64 / time.as_secs_f64();
    Ok(Report {
        latency: ping_latency,
        flood_rate,
    })
}

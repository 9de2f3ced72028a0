//! Pingers at a fixed rate, alone and beside connections at full speed: does one busy connection
//! starve the others?

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::connections::Connections;
use crate::open_loop::{self, Flood, Wait};

/// The length of a ping.
const PING_BYTES: usize = 64;
/// A flooding connection has 1 MiB on its way, in 16 messages: more than socket buffers and any
/// read buffer take at once, so the server always finds more to read; and the pingers' own thread
/// is never busy with it for long.
const FLOOD_MESSAGE_BYTES: usize = 64 * 1024;
const FLOOD_PIPELINE: usize = 16;

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
/// The pings of all are spread evenly over the time, and their latency is that of the open loop.
pub fn run(
    addr: SocketAddr,
    pingers: usize,
    rate: f64,
    flood: usize,
    time: Duration,
) -> io::Result<Report> {
    let mut connections = Connections::new()?;
    for _ in 0..pingers {
        connections.open(addr, PING_BYTES)?;
    }
    for _ in 0..flood {
        connections.open(addr, FLOOD_MESSAGE_BYTES)?;
    }
    let flood = Flood {
        connections: pingers..pingers + flood,
        pipeline: FLOOD_PIPELINE,
    };
    let schedule = open_loop::evenly(rate, pingers, time);
    let report = open_loop::run(&mut connections, schedule, time, Wait::Sleep, flood)?;
    let flood_bytes = report.flooded * FLOOD_MESSAGE_BYTES as u64;
    Ok(Report {
        latency: report.latency,
        flood_rate: flood_bytes as f64 / time.as_secs_f64(),
    })
}

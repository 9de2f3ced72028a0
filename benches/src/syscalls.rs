//! System calls for each message, counted by strace.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::echo::{EchoLoad, Limit, Shape};
use crate::server::{ChildGuard, Server};
use crate::sys;

/// Between the last reply of a burst and the next burst. A traced server is slow: without a pause,
/// the next message is there before it has asked again, and the read that finds nothing, which some
/// servers make each time, does not occur.
const PAUSE: Duration = Duration::from_micros(200);
/// An end to it all, should strace be slower than expected: then fewer messages are sent.
const TIME_MAX: Duration = Duration::from_secs(60);

/// How often a server made each system call.
pub type Counts = BTreeMap<String, u64>;

/// Sends at least `messages` messages of `shape` through `server`, in bursts of a pipeline on each
/// connection, and counts its system calls meanwhile, in all its threads. Returns the number of
/// messages too.
///
/// strace attaches when the connections are open and each has been used, and lets go before they
/// close: nothing but the messages is counted.
pub fn count(server: &Server, shape: Shape, messages: u64) -> io::Result<(Counts, u64)> {
    let mut load = EchoLoad::connect(server.addr(), shape)?;
    let burst = Limit {
        time: TIME_MAX,
        messages: (shape.connections * shape.pipeline) as u64,
    };
    load.run(burst)?;

    let mut strace = Command::new("strace");
    strace.args(["-c", "-f", "-p", &server.pid().to_string()]);
    strace
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    sys::bind_child(&mut strace, None)?;
    let mut strace = ChildGuard(strace.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            error.kind(),
            "strace is not installed (`apt-get install strace`)",
        ),
        _ => error,
    })?);
    let mut stderr = BufReader::new(strace.0.stderr.take().expect("stderr was set to a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line)?;
    if !line.contains("attached") {
        return Err(io::Error::other(format!(
            "strace could not attach: {}",
            line.trim()
        )));
    }
    let began = Instant::now();
    let mut sent = 0;
    while sent < messages && began.elapsed() < TIME_MAX {
        sent += load.run(burst)?.messages;
        thread::sleep(PAUSE);
    }
    // At SIGINT it lets go of the server and prints its table.
    sys::send_signal(strace.0.id(), libc::SIGINT)?;
    let mut table = String::new();
    stderr.read_to_string(&mut table)?;
    strace.0.wait()?;
    Ok((parse(&table), sent))
}

/// The calls in the table of `strace -c`: per cent, seconds, microseconds each, calls, errors if
/// any, name.
fn parse(table: &str) -> Counts {
    table
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [share, _, _, calls, .., name] = words[..] else {
                return None;
            };
            share.parse::<f64>().ok()?;
            let calls: u64 = calls.parse().ok()?;
            (name != "total").then(|| (name.to_string(), calls))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_strace_is_read() {
        let table = "\
strace: Process 17 detached
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.600000           3     20000           read
 40.00    0.400000           2     20001         1 epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    1.000000           2     40001         1 total
";
        let expected = Counts::from([
            ("read".to_string(), 20_000),
            ("epoll_wait".to_string(), 20_001),
        ]);
        assert_eq!(parse(table), expected);
    }
}

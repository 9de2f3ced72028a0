//! Idle connections, and what each costs the server in resident memory.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::samples::Samples;
use crate::server::{Candidate, Memory, Server, descriptor_count};
use crate::sys;

/// Opened, used and closed first, so that what a server allocates once is not counted for each
/// connection.
const WARM_UP_CONNECTIONS: usize = 100;
/// Connects between two looks at how many the server has accepted: well below every common backlog,
/// so that no connect waits for a second because the kernel dropped its SYN.
const BATCH: usize = 100;
/// Connections from one source address: far below the 28,232 ports that one has by default.
const CONNECTIONS_PER_ADDRESS: usize = 1_000;
/// How long the server may take for a batch of connects, and for any reply.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the count of a server's descriptors has to stand still.
const AT_REST: Duration = Duration::from_millis(200);
/// The message of each connection.
const MESSAGE: [u8; 64] = *b"greenroom idle connection benchmark: sixty-four bytes, one echo\n";

/// The server's memory at the stages of `measure`.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// After the warm-up connections were opened, used and closed.
    pub base: Memory,
    /// With all connections open and none used.
    pub idle: Memory,
    /// After each has echoed one message.
    pub used: Memory,
    /// After all are closed: does it give back?
    pub closed: Memory,
}

/// A point of `stages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The warm-up connections were opened, used and closed.
    Base,
    /// All connections are open and none has been used.
    Idle,
    /// Each has echoed one message.
    Used,
    /// All are closed.
    Closed,
}

/// Opens `count` connections to the server `pid` at `addr` (on the loopback, IPv4), uses and closes
/// them, and calls `at` at each stage.
pub fn stages(
    addr: SocketAddr,
    pid: u32,
    count: usize,
    mut at: impl FnMut(Stage) -> io::Result<()>,
) -> io::Result<()> {
    let addr = sys::loopback_v4(addr)?;
    let limit = sys::raise_descriptor_limit()?;
    if count as u64 + 64 > limit {
        return Err(invalid(&format!(
            "{count} connections need more descriptors than this process may have, {limit}"
        )));
    }
    let descriptors = descriptors_at_rest(addr, pid)?;
    let warm_up = open(addr, pid, WARM_UP_CONNECTIONS, descriptors)?;
    echo_on_each(&warm_up)?;
    close(warm_up, pid, descriptors)?;
    at(Stage::Base)?;
    let connections = open(addr, pid, count, descriptors)?;
    at(Stage::Idle)?;
    echo_on_each(&connections)?;
    at(Stage::Used)?;
    close(connections, pid, descriptors)?;
    at(Stage::Closed)
}

/// Reads the memory of the server `pid` at each of the `stages`.
pub fn measure(addr: SocketAddr, pid: u32, count: usize) -> io::Result<Report> {
    let mut memory = Vec::new();
    stages(addr, pid, count, |_stage| {
        memory.push(Memory::of_process(pid)?);
        Ok(())
    })?;
    let [base, idle, used, closed] = memory[..] else {
        unreachable!("each stage was told once");
    };
    Ok(Report {
        base,
        idle,
        used,
        closed,
    })
}

/// Part `idle`: `bytes` and `bytes used`, resident memory for each of `count` connections without
/// and after a message, for `c` and the candidates; a server is started anew in each round.
pub fn samples(candidates: &[Candidate], count: usize, rounds: u32) -> io::Result<Samples> {
    // For the servers as well, which inherit it.
    sys::raise_descriptor_limit()?;
    let case = format!("{count} connections");
    let mut samples = Samples::new();
    for round in 0..rounds {
        for candidate in [Candidate::floor()?].iter().chain(candidates) {
            let report = Server::start(&candidate.command)
                .and_then(|server| measure(server.addr(), server.pid(), count))
                .map_err(|error| candidate.failed(&error))?;
            let name = &candidate.name;
            let idle = report.idle.each_beyond(&report.base, count);
            samples.push("idle", &case, name, round, "bytes", idle);
            let used = report.used.each_beyond(&report.base, count);
            samples.push("idle", &case, name, round, "bytes used", used);
        }
    }
    Ok(samples)
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// How many descriptors the server has open without a connection: counted when it has served one
/// and the count stands still, since some open their own only after they say where they listen.
fn descriptors_at_rest(addr: SocketAddrV4, pid: u32) -> io::Result<usize> {
    let first = sys::connect_from(Ipv4Addr::new(127, 1, 0, 1), addr, TIMEOUT)?;
    echo_on_each(&[first])?;
    let deadline = Instant::now() + TIMEOUT;
    let (mut count, mut since) = (descriptor_count(pid)?, Instant::now());
    while since.elapsed() < AT_REST {
        if Instant::now() >= deadline {
            let error = "the server opens and closes descriptors though nobody is connected";
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        thread::sleep(Duration::from_millis(1));
        let now = descriptor_count(pid)?;
        if now != count {
            (count, since) = (now, Instant::now());
        }
    }
    Ok(count)
}

/// Opens `count` connections, which the server, with `descriptors` open before, has accepted when
/// it returns.
pub(crate) fn open(
    addr: SocketAddrV4,
    pid: u32,
    count: usize,
    descriptors: usize,
) -> io::Result<Vec<TcpStream>> {
    let mut connections = Vec::with_capacity(count);
    for index in 0..count {
        let subnet = u8::try_from(1 + index / CONNECTIONS_PER_ADDRESS)
            .map_err(|_| invalid("too many connections"))?;
        connections.push(sys::connect_from(
            Ipv4Addr::new(127, 1, subnet, 1),
            addr,
            TIMEOUT,
        )?);
        if connections.len() % BATCH == 0 || connections.len() == count {
            let expected = descriptors + connections.len();
            wait_for_descriptors(pid, "accepted too few connections", |open| open >= expected)?;
        }
    }
    Ok(connections)
}

/// Sends a message on all and then reads all the echoes, so that the server is busy with many of
/// them at a time.
fn echo_on_each(connections: &[TcpStream]) -> io::Result<()> {
    for mut connection in connections {
        connection.write_all(&MESSAGE)?;
    }
    for mut connection in connections {
        let mut reply = [0; MESSAGE.len()];
        connection.read_exact(&mut reply)?;
        if reply != MESSAGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "other bytes came back than were sent",
            ));
        }
    }
    Ok(())
}

/// Closes all, and returns when the server has closed its side too.
pub(crate) fn close(connections: Vec<TcpStream>, pid: u32, descriptors: usize) -> io::Result<()> {
    for connection in &connections {
        connection.shutdown(Shutdown::Write)?;
    }
    drop(connections);
    wait_for_descriptors(pid, "kept connections open that were closed", |open| {
        open <= descriptors
    })
}

/// Waits until the server's count of descriptors is as `expected` says. It looks again and again,
/// since no event tells of what another process has accepted or closed.
fn wait_for_descriptors(
    pid: u32,
    failure: &str,
    expected: impl Fn(usize) -> bool,
) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let open = descriptor_count(pid)?;
        if expected(open) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the server {failure}: it has {open} descriptors"),
            ));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

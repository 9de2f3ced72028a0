//! Idle connections, and what each costs the server in resident memory.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::{Memory, descriptor_count};
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

/// Opens `count` connections to the server `pid` at `addr` (on the loopback, IPv4) and reads its
/// memory on the way.
pub fn measure(addr: SocketAddr, pid: u32, count: usize) -> io::Result<Report> {
    let SocketAddr::V4(addr) = addr else {
        return Err(invalid(
            "idle connections need a server on IPv4, for the many loopback addresses",
        ));
    };
    if !addr.ip().is_loopback() {
        return Err(invalid(
            "idle connections need a server on the loopback, for its many source addresses",
        ));
    }
    let limit = sys::raise_descriptor_limit()?;
    if count as u64 + 64 > limit {
        return Err(invalid(&format!(
            "{count} connections need more descriptors than this process may have, {limit}"
        )));
    }
    let descriptors = descriptor_count(pid)?;

    let warm_up = open(addr, pid, WARM_UP_CONNECTIONS, descriptors)?;
    echo_on_each(&warm_up)?;
    close(warm_up, pid, descriptors)?;
    let base = Memory::of_process(pid)?;

    let connections = open(addr, pid, count, descriptors)?;
    let idle = Memory::of_process(pid)?;
    echo_on_each(&connections)?;
    let used = Memory::of_process(pid)?;
    close(connections, pid, descriptors)?;
    let closed = Memory::of_process(pid)?;
    Ok(Report {
        base,
        idle,
        used,
        closed,
    })
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Opens `count` connections, which the server, with `descriptors` open before, has accepted when
/// it returns.
fn open(
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
fn close(connections: Vec<TcpStream>, pid: u32, descriptors: usize) -> io::Result<()> {
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

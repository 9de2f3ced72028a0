//! Client connections to an echo server on one epoll instance, every byte that comes back checked.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::random::Random;
use crate::sys::{self, Epoll};

/// How long a connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that one read takes, as in the C loop.
const READ_BYTES_MAX: usize = 64 * 1024;
/// The most that one write offers: enough to fill the socket in a few calls, and bounds what the
/// pattern repeats.
const WRITE_BYTES_MAX: usize = 256 * 1024;

/// One for all connections: it stays in the cache, however many servers take turns.
static PATTERN: LazyLock<Pattern> = LazyLock::new(Pattern::new);
/// How many connections there have been in this process.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// Connections to one server, and what it takes to drive them from one thread.
#[derive(Debug)]
pub struct Connections {
    /// A connection's token is its index.
    epoll: Epoll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    /// The zero of `now`.
    epoch: Instant,
}

impl Connections {
    /// No connections yet.
    pub fn new() -> io::Result<Connections> {
        Ok(Connections {
            epoll: Epoll::new()?,
            connections: Vec::new(),
            buffer: vec![0; READ_BYTES_MAX],
            epoch: Instant::now(),
        })
    }

    /// Connects to `addr` and returns the connection's index; messages on it are `message_bytes`
    /// long.
    pub fn open(&mut self, addr: SocketAddr, message_bytes: usize) -> io::Result<usize> {
        let index = self.connections.len();
        let stream = TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.epoll.add(&stream, index as u64)?;
        self.connections.push(Connection {
            stream,
            // The streams start at different places, so bytes of another connection are found out.
            origin: OPENED.fetch_add(1, Ordering::Relaxed) * 4_099,
            message_bytes: message_bytes as u64,
            queued: 0,
            written: 0,
            received: 0,
            starts: VecDeque::new(),
            messages: 0,
            writing: false,
        });
        Ok(index)
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Nanoseconds since these connections were made: the time in which latencies are taken.
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Waits for at most `timeout` until something happens, and returns how many connections
    /// `ready` then knows.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        self.epoll.wait(timeout)
    }

    /// The `n`th connection that the last `wait` found ready: its index, and whether there is
    /// something to read.
    pub fn ready(&self, n: usize) -> (usize, bool) {
        let (token, readable) = self.epoll.event(n);
        (token as usize, readable)
    }

    /// Queues one message on the connection `index`; its latency counts from `start` (in the time
    /// of `now`).
    pub fn push(&mut self, index: usize, start: u64) {
        let connection = &mut self.connections[index];
        connection.queued += connection.message_bytes;
        connection.starts.push_back(start);
    }

    /// Writes what is queued on the connection `index` until the socket refuses; the rest waits for
    /// the socket's room.
    pub fn flush(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection
            .write(&PATTERN)
            .map_err(|error| describe(index, &error))?;
        let writing = connection.queued > connection.written;
        if writing != connection.writing {
            connection.writing = writing;
            self.epoll
                .modify(&connection.stream, index as u64, writing)?;
        }
        Ok(())
    }

    /// Reads once from the connection `index`, checks the bytes, adds the latency of each message
    /// that is complete now to `latency`, and returns how many these are.
    pub fn receive(&mut self, index: usize, latency: &mut Histogram<u64>) -> io::Result<u64> {
        let epoch = self.epoch;
        let connection = &mut self.connections[index];
        let completed = connection
            .read(&PATTERN, &mut self.buffer)
            .map_err(|error| describe(index, &error))?;
        if completed > 0 {
            // The clock is read after the bytes are here: the read is a part of the latency.
            let now = epoch.elapsed().as_nanos() as u64;
            for start in connection.starts.drain(..completed) {
                latency.saturating_record(now.saturating_sub(start));
            }
        }
        Ok(completed as u64)
    }

    /// How many messages of the connection `index` have come back, ever.
    pub fn messages(&self, index: usize) -> u64 {
        self.connections[index].messages
    }
}

/// Names the connection that failed.
fn describe(index: usize, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("connection {index}: {error}"))
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// Where in the pattern this connection's stream begins.
    origin: u64,
    message_bytes: u64,
    // Positions in the stream. Invariant: received <= written <= queued.
    queued: u64,
    written: u64,
    received: u64,
    /// When each message that is queued and not back yet began, oldest first.
    starts: VecDeque<u64>,
    messages: u64,
    /// Whether epoll watches for room to write: as long as something is queued that is not written.
    writing: bool,
}

impl Connection {
    fn write(&mut self, pattern: &Pattern) -> io::Result<()> {
        while self.written < self.queued {
            let len = (self.queued - self.written).min(WRITE_BYTES_MAX as u64) as usize;
            match self
                .stream
                .write(pattern.at(self.origin + self.written, len))
            {
                Ok(len) => self.written += len as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How many messages one read completed.
    fn read(&mut self, pattern: &Pattern, buffer: &mut [u8]) -> io::Result<usize> {
        let len = match sys::read_if_ready(&self.stream, buffer)? {
            Some(0) => {
                return Err(io::Error::other(format!(
                    "closed by the server after {} bytes",
                    self.received
                )));
            }
            Some(len) => len,
            None => return Ok(0),
        };
        let expected = pattern.at(self.origin + self.received, len);
        let surplus = self.received + len as u64 > self.written;
        if surplus || buffer[..len] != *expected {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "other bytes came back than were sent, after {} right ones",
                    self.received
                ),
            ));
        }
        self.received += len as u64;
        let messages = self.received / self.message_bytes;
        let completed = messages - self.messages;
        self.messages = messages;
        Ok(completed as usize)
    }
}

/// The endless stream of known bytes that connections send parts of.
#[derive(Debug)]
struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    /// A prime: no block of a usual size is a multiple, so one that is lost or repeated is found
    /// out.
    const PERIOD: usize = 65_521;

    fn new() -> Pattern {
        let mut random = Random::new();
        let mut bytes: Vec<u8> = Vec::with_capacity(Pattern::PERIOD + WRITE_BYTES_MAX);
        bytes.extend((0..Pattern::PERIOD).map(|_| random.bits() as u8));
        // Repeated past its end, so that every part is one slice.
        for i in 0..WRITE_BYTES_MAX {
            bytes.push(bytes[i]);
        }
        Pattern { bytes }
    }

    /// The `len` bytes, at most WRITE_BYTES_MAX, at `position` of the stream.
    fn at(&self, position: u64, len: usize) -> &[u8] {
        let start = (position % Pattern::PERIOD as u64) as usize;
        &self.bytes[start..start + len]
    }
}

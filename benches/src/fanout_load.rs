//! The load of fan-out: a publisher that sends lines, and threads that receive them on all
//! connections and check each byte.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::fanout::Pace;
use crate::latency_histogram;
use crate::sys::{self, Epoll, EventFd};

/// The length of a line, its end included.
const LINE_BYTES: usize = 64;
/// Lines that are due at once and sent with one write.
const LINES_PER_WRITE: usize = 256;
/// The most that one read takes.
const READ_BYTES: usize = 256 * 1024;
/// Lines that a reader knows to be right; a power of two.
const KNOWN_LINES: usize = 1024;
/// How many members' latencies are recorded: a clock that is read for each of 2,000,000 deliveries
/// a second would cost the load more than the deliveries.
const SAMPLED_MEMBERS: usize = 100;
/// How long nothing may come on any connection until what is missing counts as lost, and how long
/// the server may take no line.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a server that is behind may take to deliver the rest. It is slow then, and what is
/// missing counts as lost all the same: a measurement has to end.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// When nothing has come for so long, another line is sent: a member that has lost the last one
/// finds it out by the next.
const NUDGE: Duration = Duration::from_millis(100);
/// The token of a reader's end.
const END: u64 = u64::MAX;

/// What a run saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// Lines sent.
    pub lines: u64,
    /// Lines received, by all members together.
    pub received: u64,
    /// Lines that a member did not receive, by all members together.
    pub lost: u64,
    /// From when the first line was due until the last was received.
    pub elapsed: Duration,
    /// From when a line was due until a member had received it, in nanoseconds, of some members.
    pub latency: Histogram<u64>,
}

/// Connections of which all receive what one sends.
#[derive(Debug)]
pub struct FanoutLoad {
    readers: Vec<Reader>,
    /// The first member's connection.
    publisher: TcpStream,
    shared: Shared,
    members: u64,
    /// Lines sent, ever: the number of the next one.
    lines: u64,
}

/// What publisher and readers share.
#[derive(Debug)]
struct Shared {
    /// The zero of all times of lines.
    epoch: Instant,
    /// The sum over all members of the number of the line that each expects next.
    positions: AtomicU64,
    /// The publisher is woken when `positions` comes to this.
    goal: AtomicU64,
    /// A reader has given up.
    failed: AtomicBool,
}

impl Shared {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }
}

impl FanoutLoad {
    /// Takes connections that block and are all members, spreads them over `readers` threads (at
    /// least one), and waits until each has received a line.
    pub fn new(members: Vec<TcpStream>, readers: usize) -> io::Result<FanoutLoad> {
        let publisher = members
            .first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no members"))?
            .try_clone()?;
        publisher.set_write_timeout(Some(PATIENCE))?;
        let mut load = FanoutLoad {
            readers: (0..readers.max(1))
                .map(|_| Reader::new())
                .collect::<io::Result<_>>()?,
            publisher,
            shared: Shared {
                epoch: Instant::now(),
                positions: AtomicU64::new(0),
                goal: AtomicU64::new(0),
                failed: AtomicBool::new(false),
            },
            members: members.len() as u64,
            lines: 0,
        };
        let stride = members.len().div_ceil(SAMPLED_MEMBERS);
        for (index, stream) in members.into_iter().enumerate() {
            let reader = index % load.readers.len();
            load.readers[reader].add(stream, index % stride == 0)?;
        }
        load.with_readers(|publisher| {
            // A server may tell of a line those only that it has let in by then.
            match publisher.drain()? {
                true => Ok(()),
                false => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "not all members received a line",
                )),
            }
        })?;
        Ok(load)
    }

    /// Sends lines for `time`, and waits until all have received the last.
    pub fn run(&mut self, pace: Pace, time: Duration) -> io::Result<Report> {
        let lines_before = self.lines;
        let began = self.shared.now();
        let (complete, tally) = self.with_readers(|publisher| {
            match pace {
                Pace::OneAtATime => publisher.one_at_a_time(time)?,
                Pace::Rate(rate) => publisher.at_rate(rate, time)?,
            }
            publisher.drain()
        })?;
        let missing = match complete {
            true => 0,
            false => self.members * self.lines - self.shared.positions.load(Ordering::SeqCst),
        };
        Ok(Report {
            lines: self.lines - lines_before,
            received: tally.received,
            lost: tally.lost + missing,
            elapsed: Duration::from_nanos(tally.last.saturating_sub(began)),
            latency: tally.latency,
        })
    }

    /// The connections, to be closed.
    pub fn into_members(self) -> Vec<TcpStream> {
        let readers = self.readers.into_iter();
        readers
            .flat_map(|reader| reader.members.into_iter().map(|member| member.stream))
            .collect()
    }

    /// Runs `publish` while all readers read; also what they saw. What a reader found wrong is the
    /// error, if both have one.
    fn with_readers<T>(
        &mut self,
        publish: impl FnOnce(&mut Publisher<'_>) -> io::Result<T>,
    ) -> io::Result<(T, Tally)> {
        let shared = &self.shared;
        let mut publisher = Publisher {
            stream: &self.publisher,
            shared,
            members: self.members,
            lines: &mut self.lines,
            buffer: Vec::with_capacity(LINES_PER_WRITE * LINE_BYTES),
        };
        let ends: Vec<_> = self
            .readers
            .iter()
            .map(|reader| reader.end.clone())
            .collect();
        thread::scope(|scope| {
            let publishing = thread::current();
            let running: Vec<_> = self
                .readers
                .iter_mut()
                .map(|reader| {
                    let publishing = publishing.clone();
                    scope.spawn(move || {
                        let tally = reader.run(shared, &publishing);
                        if tally.is_err() {
                            shared.failed.store(true, Ordering::SeqCst);
                            publishing.unpark();
                        }
                        tally
                    })
                })
                .collect();
            let published = publish(&mut publisher);
            let signalled: io::Result<Vec<()>> = ends.iter().map(|end| end.signal()).collect();
            let mut total = Tally::new();
            let mut first_error = None;
            for reader in running {
                match reader.join().expect("a reader panicked") {
                    Ok(tally) => total.add(&tally),
                    Err(error) => first_error = first_error.or(Some(error)),
                }
            }
            signalled?;
            match first_error {
                Some(error) => Err(error),
                None => Ok((published?, total)),
            }
        })
    }
}

/// Sends lines on one connection.
struct Publisher<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
    members: u64,
    lines: &'a mut u64,
    buffer: Vec<u8>,
}

impl Publisher<'_> {
    /// Sends one line when all have the last, for `time`. A member that has lost one is not waited
    /// for any longer than `NUDGE`.
    fn one_at_a_time(&mut self, time: Duration) -> io::Result<()> {
        let began = Instant::now();
        while began.elapsed() < time {
            self.line(self.shared.now());
            self.send()?;
            self.wait(NUDGE)?;
        }
        Ok(())
    }

    /// Sends `rate` lines a second for `time`, each when it is due.
    fn at_rate(&mut self, rate: u32, time: Duration) -> io::Result<()> {
        sys::reduce_timer_slack()?;
        let began = self.shared.now();
        let interval = 1e9 / f64::from(rate);
        let end = began + time.as_nanos() as u64;
        let due = |n: u64| began + (n as f64 * interval) as u64;
        let mut sent = 0;
        while due(sent) < end {
            let now = self.shared.now();
            if due(sent) > now {
                self.check_readers()?;
                thread::sleep(Duration::from_nanos(due(sent) - now));
            }
            while due(sent) <= now && due(sent) < end && self.buffer.len() < self.buffer.capacity()
            {
                self.line(due(sent));
                sent += 1;
            }
            self.send()?;
        }
        Ok(())
    }

    /// Waits until all have received the last line, sending another when nothing comes: whether
    /// they have in the end.
    fn drain(&mut self) -> io::Result<bool> {
        let began = Instant::now();
        let mut progress = began;
        let mut positions = 0;
        while progress.elapsed() < PATIENCE && began.elapsed() < DRAIN_MAX {
            let before = positions;
            positions = self.shared.positions.load(Ordering::SeqCst);
            if positions == before {
                self.line(self.shared.now());
                self.send()?;
            } else {
                progress = Instant::now();
            }
            if self.wait(NUDGE)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds a line that is due at `due` to what is sent next.
    fn line(&mut self, due: u64) {
        self.buffer.extend_from_slice(&line(*self.lines, due));
        *self.lines += 1;
    }

    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let goal = self.members * *self.lines;
        // Before the write: a reader can come to it only afterwards, so none misses it.
        self.shared.goal.store(goal, Ordering::SeqCst);
        let sent = self.stream.write_all(&self.buffer);
        self.buffer.clear();
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                "the server has taken no line for five seconds",
            ),
            _ => error,
        })
    }

    /// Waits for at most `timeout` until all have received all lines, and says whether they have.
    fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        let goal = self.members * *self.lines;
        let deadline = Instant::now() + timeout;
        loop {
            self.check_readers()?;
            if self.shared.positions.load(Ordering::SeqCst) == goal {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            thread::park_timeout(left);
        }
    }

    fn check_readers(&self) -> io::Result<()> {
        match self.shared.failed.load(Ordering::SeqCst) {
            // The reader's own error is the one that is told.
            true => Err(io::Error::other("a reader has given up")),
            false => Ok(()),
        }
    }
}

/// What a reader saw.
#[derive(Debug)]
struct Tally {
    received: u64,
    lost: u64,
    /// When the last line came.
    last: u64,
    latency: Histogram<u64>,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            received: 0,
            lost: 0,
            last: 0,
            latency: latency_histogram(),
        }
    }

    fn add(&mut self, other: &Tally) {
        self.received += other.received;
        self.lost += other.lost;
        self.last = self.last.max(other.last);
        self.latency
            .add(&other.latency)
            .expect("all histograms have the same bounds");
    }
}

/// Receives on its share of the members.
#[derive(Debug)]
struct Reader {
    /// A member's token is its index.
    epoll: Epoll,
    members: Vec<Member>,
    buffer: Vec<u8>,
    known: KnownLines,
    end: Arc<EventFd>,
}

impl Reader {
    fn new() -> io::Result<Reader> {
        let (epoll, end) = (Epoll::new()?, Arc::new(EventFd::new()?));
        epoll.add(&*end, END)?;
        Ok(Reader {
            epoll,
            members: Vec::new(),
            buffer: vec![0; READ_BYTES],
            known: KnownLines::new(),
            end,
        })
    }

    fn add(&mut self, stream: TcpStream, is_sampled: bool) -> io::Result<()> {
        self.epoll.add(&stream, self.members.len() as u64)?;
        self.members.push(Member {
            stream,
            next: None,
            partial: [0; LINE_BYTES],
            partial_len: 0,
            is_sampled,
        });
        Ok(())
    }

    /// Receives until the end is signalled.
    fn run(&mut self, shared: &Shared, publishing: &Thread) -> io::Result<Tally> {
        let mut tally = Tally::new();
        loop {
            let mut ended = false;
            for n in 0..self.epoll.wait(PATIENCE)? {
                let (token, _) = self.epoll.event(n);
                if token == END {
                    self.end.wait()?;
                    ended = true;
                    continue;
                }
                let member = &mut self.members[token as usize];
                let moved = member
                    .read(&mut self.buffer, &mut self.known, shared, &mut tally)
                    .map_err(|error| {
                        io::Error::new(error.kind(), format!("a member of {token}: {error}"))
                    })?;
                let positions = shared.positions.fetch_add(moved, Ordering::SeqCst) + moved;
                if positions == shared.goal.load(Ordering::SeqCst) {
                    tally.last = shared.now();
                    publishing.unpark();
                }
            }
            if ended {
                return Ok(tally);
            }
            tally.last = shared.now();
        }
    }
}

#[derive(Debug)]
struct Member {
    stream: TcpStream,
    /// The number of the line expected next; none before the first.
    next: Option<u64>,
    /// The beginning of a line of which the rest has not come yet.
    partial: [u8; LINE_BYTES],
    partial_len: usize,
    is_sampled: bool,
}

impl Member {
    /// Reads once, and returns by how many lines it has moved on. Lost ones count.
    fn read(
        &mut self,
        buffer: &mut [u8],
        known: &mut KnownLines,
        shared: &Shared,
        tally: &mut Tally,
    ) -> io::Result<u64> {
        let len = match sys::read_if_ready(&self.stream, buffer)? {
            Some(0) => return Err(io::Error::other("closed by the server")),
            Some(len) => len,
            None => return Ok(0),
        };
        // Read after the bytes are here: the read is a part of the latency.
        let now = if self.is_sampled { shared.now() } else { 0 };
        let before = self.next.unwrap_or(0);
        let mut bytes = &buffer[..len];
        if self.partial_len > 0 {
            let (head, rest) = bytes.split_at(bytes.len().min(LINE_BYTES - self.partial_len));
            self.partial[self.partial_len..][..head.len()].copy_from_slice(head);
            self.partial_len += head.len();
            bytes = rest;
            if self.partial_len == LINE_BYTES {
                self.partial_len = 0;
                let line = self.partial;
                self.take(&line, now, known, tally)?;
            }
        }
        let (lines, rest) = bytes.as_chunks();
        for line in lines {
            self.take(line, now, known, tally)?;
        }
        if !rest.is_empty() {
            self.partial[..rest.len()].copy_from_slice(rest);
            self.partial_len = rest.len();
        }
        Ok(self.next.unwrap_or(0) - before)
    }

    fn take(
        &mut self,
        line: &[u8; LINE_BYTES],
        now: u64,
        known: &mut KnownLines,
        tally: &mut Tally,
    ) -> io::Result<()> {
        let (number, due) = known.parse(line, self.next.unwrap_or(0)).ok_or_else(|| {
            let text = String::from_utf8_lossy(line);
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("received what is no line of the publisher's: {text:?}"),
            )
        })?;
        // Before its first line it had not joined.
        let expected = self.next.unwrap_or(number);
        if number < expected {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("received line {number} when it expected {expected}: twice, or too late"),
            ));
        }
        self.next = Some(number + 1);
        tally.lost += number - expected;
        tally.received += 1;
        if self.is_sampled {
            tally.latency.saturating_record(now.saturating_sub(due));
        }
        Ok(())
    }
}

/// Lines that were found right in every byte: most lines of most members are compared with one of
/// these, and nothing is parsed.
#[derive(Debug)]
struct KnownLines {
    /// The line `number` stands at `number % KNOWN_LINES`.
    lines: Vec<KnownLine>,
}

#[derive(Clone, Debug)]
struct KnownLine {
    bytes: [u8; LINE_BYTES],
    number: u64,
    due: u64,
}

impl KnownLines {
    fn new() -> KnownLines {
        let none = KnownLine {
            bytes: [0; LINE_BYTES],
            number: 0,
            due: 0,
        };
        KnownLines {
            lines: vec![none; KNOWN_LINES],
        }
    }

    /// The number of a line, and when it was due; `guess` is what its number probably is. None for
    /// bytes that the publisher does not write.
    fn parse(&mut self, bytes: &[u8; LINE_BYTES], guess: u64) -> Option<(u64, u64)> {
        let known = &self.lines[guess as usize % KNOWN_LINES];
        if known.bytes == *bytes {
            return Some((known.number, known.due));
        }
        let (number, due) = parse_line(bytes)?;
        self.lines[number as usize % KNOWN_LINES] = KnownLine {
            bytes: *bytes,
            number,
            due,
        };
        Some((number, due))
    }
}

/// A line: its number, when it is due, and both mixed, so that a wrong byte anywhere is found out.
fn line(number: u64, due: u64) -> [u8; LINE_BYTES] {
    let mut bytes = [0; LINE_BYTES];
    let mut room = &mut bytes[..];
    writeln!(room, "{number:016x} {due:016x} {:029x}", mix(number, due))
        .expect("the line is as long as its bytes");
    bytes
}

fn mix(number: u64, due: u64) -> u64 {
    (number ^ due.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn parse_line(bytes: &[u8; LINE_BYTES]) -> Option<(u64, u64)> {
    let (number, due) = (hexadecimal(&bytes[..16])?, hexadecimal(&bytes[17..33])?);
    (line(number, due) == *bytes).then_some((number, due))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

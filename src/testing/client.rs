//! A client that a test plays itself.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::sys::{Endpoint, Wire};

use super::simulation::Simulation;

/// How long a [`Client`] waits: longer than anything that a healthy server does.
const PATIENCE: Duration = Duration::from_secs(600);

/// The client's end of a connection in a [`Simulation`], in the hands of the test. Dropping it
/// closes it.
///
/// It takes whatever arrives into its memory at once, unless it
/// [stops reading](Client::stop_reading). [`Debug`](fmt::Debug) tells which connection of a
/// [trace](Simulation::trace) it is.
///
/// # Panics
///
/// It may be dropped after its simulation; everything else panics then.
pub struct Client {
    wire: Wire,
    /// Arrived and not looked at.
    got: RefCell<Vec<u8>>,
}

impl Client {
    pub(super) fn connect(to: &Endpoint) -> Client {
        Client {
            wire: Wire::connect(to),
            got: RefCell::default(),
        }
    }

    pub(super) fn come_from(&self, from: IpAddr) {
        self.wire.set_source(from);
    }

    /// Sends, before it is connected, too: it then waits for that. Lost when the connection is.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        // An error says that nobody is there any more, as `is_reset` does.
        let _ = self.wire.send(bytes.as_ref());
    }

    /// Takes what has come since the last look.
    pub fn received(&self) -> Bytes {
        self.fetch();
        self.got.take().into()
    }

    /// Runs the simulation until a whole line has come, takes it, and returns it without its end.
    ///
    /// # Panics
    ///
    /// When the connection ends before, when none comes within ten minutes of simulated time, or
    /// when it is not UTF-8.
    #[track_caller]
    pub fn line(&self, simulation: &mut Simulation) -> String {
        self.wait(simulation, "line", |got| got.contains(&b'\n'));
        let mut got = self.got.borrow_mut();
        let end = got.iter().position(|byte| *byte == b'\n');
        let line = got.drain(..=end.unwrap_or_default()).collect();
        let line = String::from_utf8(line).expect("line: not UTF-8");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// Runs the simulation until `n` bytes have come, and takes them.
    ///
    /// # Panics
    ///
    /// When the connection ends before, or when they do not come within ten minutes of simulated
    /// time.
    #[track_caller]
    pub fn take(&self, simulation: &mut Simulation, n: usize) -> Bytes {
        self.wait(simulation, "take", |got| got.len() >= n);
        self.got.borrow_mut().drain(..n).collect()
    }

    /// Runs the simulation until the connection has [ended](Client::is_closed), and takes all that
    /// has come.
    ///
    /// # Panics
    ///
    /// When it has not ended within ten minutes of simulated time.
    #[track_caller]
    pub fn rest(&self, simulation: &mut Simulation) -> Bytes {
        self.wait(simulation, "rest", |_| self.is_closed());
        self.received()
    }

    /// Runs the simulation until what has come is enough.
    #[track_caller]
    fn wait(&self, simulation: &mut Simulation, who: &str, is_enough: impl Fn(&[u8]) -> bool) {
        let until = simulation.elapsed() + PATIENCE;
        loop {
            self.fetch();
            if is_enough(&self.got.borrow()) {
                return;
            }
            let why = if self.is_refused() {
                "the connect was refused"
            } else if self.is_reset() {
                "the connection was reset"
            } else if self.is_closed() {
                "the server has ended the stream"
            } else if simulation.elapsed() >= until {
                "ten minutes have passed"
            } else if simulation.step() {
                continue;
            } else {
                "nothing will happen any more"
            };
            panic!("{who}: {why}; there is {:?}", Bytes::from(self.got.take()));
        }
    }

    /// Ends what it sends, behind all that it has sent.
    pub fn half_close(&self) {
        self.wire.half_close();
    }

    /// Resets the connection.
    pub fn reset(&self) {
        self.wire.reset();
    }

    /// Reads nothing any more: the server may send what the kernels in between hold, 64 KiB.
    pub fn stop_reading(&self) {
        // What has come has made its room already.
        self.fetch();
        self.wire.set_takes(false);
    }

    /// Reads again, what has waited meanwhile first.
    pub fn read_on(&self) {
        self.wire.set_takes(true);
        self.fetch();
    }

    /// Whether the server's side has taken the connect.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.wire.is_connected()
    }

    /// Whether the connect was refused, or came to nothing.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.wire.is_refused()
    }

    /// Whether no more bytes will come than [`received`](Client::received) has: the server has
    /// ended its stream, or the connection is lost or was never made.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.wire.has_ended() || self.wire.is_reset() || self.wire.is_refused()
    }

    /// Whether the connection was reset, from either side.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.wire.is_reset()
    }

    fn fetch(&self) {
        if self.wire.takes() {
            self.got.borrow_mut().extend(self.wire.take());
        }
    }
}

/// What clients connect to.
#[track_caller]
pub(super) fn parsed<T, E>(to: E) -> T
where
    E: TryInto<T>,
    E::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match to.try_into() {
        Ok(parsed) => parsed,
        Err(error) => {
            let error: Box<dyn Error + Send + Sync> = error.into();
            panic!("connect: {error}")
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut client = f.debug_struct("Client");
        if !self.wire.is_over() {
            client.field("connection", &format_args!("c{}", self.wire.serial()));
            client.field("is_connected", &self.is_connected());
            client.field("is_closed", &self.is_closed());
        }
        client.finish_non_exhaustive()
    }
}

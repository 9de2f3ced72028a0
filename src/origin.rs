//! Where a connection comes from: what makes its actor, and the limits that it lives under.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::actor::Actor;
use crate::call::Hosted;
use crate::entrance::Entrance;
use crate::handle::Shared;
use crate::sys::{Endpoint, Peer, SocketOption};

/// The limits that one connection lives under, each with a safe default:
/// [all defaults and their reasons](crate#defaults). Who passes one ends with its
/// [reason](crate::CloseReason).
///
/// ```
/// use std::time::Duration;
/// use greenroom::{ConnectionOptions, ListenOptions};
///
/// let seconds = Duration::from_secs;
/// let limits = ConnectionOptions::new()
///     .first_bytes_timeout(seconds(10)) // who connects has something to say,
///     .incomplete_timeout(seconds(20)) // ends what is begun,
///     .least_input_rate(1000, seconds(5)) // and not byte by byte;
///     .stuck_timeout(seconds(15)) // takes what it is sent,
///     .least_output_rate(10_000, seconds(10)) // and not byte by byte,
///     .flush_timeout(seconds(30)) // its last words, too;
///     .idle_timeout(seconds(300)); // and is heard of now and then.
/// let options = ListenOptions::new().connection(limits);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionOptions {
    pub(crate) input_max: usize,
    pub(crate) output_max: usize,
    /// Up to which nothing has to be known of a write but its length: 0 where each may be dropped
    /// later, so that those who need no more pay for no more.
    pub(crate) free_max: usize,
    pub(crate) high_watermark: usize,
    pub(crate) low_watermark: usize,
    pub(crate) slow_reader: SlowReader,
    pub(crate) stuck_timeout: Duration,
    pub(crate) incomplete_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) first_bytes_timeout: Option<Duration>,
    pub(crate) least_input: Option<Rate>,
    pub(crate) least_output: Option<Rate>,
    pub(crate) flush_timeout: Duration,
    pub(crate) linger_timeout: Duration,
    pub(crate) linger_bytes: usize,
}

/// So many bytes in each such time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) bytes: usize,
    /// Invariant: not zero.
    pub(crate) over: Duration,
}

impl Rate {
    fn new(what: &str, bytes: usize, over: Duration) -> Rate {
        assert!(!over.is_zero(), "{what}: bytes are counted over some time");
        Rate { bytes, over }
    }
}

impl Default for ConnectionOptions {
    fn default() -> ConnectionOptions {
        ConnectionOptions {
            input_max: 1 << 20,
            output_max: 4 << 20,
            free_max: 4 << 20,
            high_watermark: 64 << 10,
            low_watermark: 16 << 10,
            slow_reader: SlowReader::Close,
            stuck_timeout: Duration::from_secs(30),
            incomplete_timeout: Some(Duration::from_secs(60)),
            idle_timeout: None,
            first_bytes_timeout: Some(Duration::from_secs(60)),
            least_input: None,
            least_output: None,
            flush_timeout: Duration::from_secs(120),
            linger_timeout: Duration::from_secs(5),
            linger_bytes: 64 << 20,
        }
    }
}

impl ConnectionOptions {
    /// The defaults.
    pub fn new() -> ConnectionOptions {
        ConnectionOptions::default()
    }

    /// Bytes of input that may be kept because the actor did not consume them; past it the
    /// connection ends with [`InputTooLong`](crate::CloseReason::InputTooLong).
    pub fn input_max(mut self, bytes: usize) -> Self {
        self.input_max = bytes;
        self
    }

    /// Bytes of output that may wait for the peer; what happens past it is the [`SlowReader`]
    /// policy.
    pub fn output_max(mut self, bytes: usize) -> Self {
        self.output_max = bytes;
        self.with_free_max()
    }

    /// [`drained`](crate::Actor::drained) is called when the waiting output, having been at `high`
    /// bytes or above, has fallen to `low` or below.
    ///
    /// # Panics
    ///
    /// When `low` is not below `high`.
    pub fn watermarks(mut self, low: usize, high: usize) -> Self {
        assert!(
            low < high,
            "watermarks: the low one ({low}) must be below the high one ({high})"
        );
        self.low_watermark = low;
        self.high_watermark = high;
        self
    }

    /// What happens to a reader that takes less than is written for it.
    pub fn slow_reader(mut self, policy: SlowReader) -> Self {
        self.slow_reader = policy;
        self.with_free_max()
    }

    fn with_free_max(mut self) -> Self {
        self.free_max = match self.slow_reader {
            SlowReader::DropOldest => 0,
            _ => self.output_max,
        };
        self
    }

    /// How long output may wait without a byte of it taken before the connection ends with
    /// [`StuckReader`](crate::CloseReason::StuckReader).
    pub fn stuck_timeout(mut self, after: Duration) -> Self {
        self.stuck_timeout = after;
        self
    }

    /// How long a frame may take from its first byte, kept because the actor did not consume it,
    /// until something of the kept input is consumed; then the connection ends with
    /// [`SlowSender`](crate::CloseReason::SlowSender). Not counted while reading is paused.
    pub fn incomplete_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.incomplete_timeout = after.into();
        self
    }

    /// How long nothing may be received and nothing sent before the connection ends with
    /// [`Idle`](crate::CloseReason::Idle). Whose bytes wait to be read, because the actor
    /// [pauses](crate::Context::pause) or waits for room, is not idle. Precise to some milliseconds; of
    /// 49 days or more it is as none. Costs one timer per connection, none per message.
    pub fn idle_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = after.into();
        self
    }

    /// How long a connection that was accepted may stay silent before it ends with
    /// [`Silent`](crate::CloseReason::Silent): neither has a byte come from it nor has one been sent
    /// to it. It may be late by a sixty-fourth of this; while reading is paused nobody is ended, and
    /// the time may begin anew.
    ///
    /// Where the server speaks first, or pushes, a client may be silent for as long as it likes once
    /// it was spoken to; [`idle_timeout`](ConnectionOptions::idle_timeout) is for that. A server
    /// whose clients only wait, and which may have nothing for them for minutes, sets this to
    /// `None`. Costs a connection twelve bytes until that time is over, and no timer.
    pub fn first_bytes_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.first_bytes_timeout = after.into();
        self
    }

    /// How fast a frame has to come that has begun: when it is not whole (something is kept that the
    /// actor did not consume) after `over`, `bytes` of it must have come, after twice `over` twice
    /// as many, and so on, or the connection ends with
    /// [`InputRate`](crate::CloseReason::InputRate). By default none.
    ///
    /// Time in which reading is paused does not count, and between frames a peer may be silent. An
    /// actor that consumes whatever comes has no frame that could be late; it looks at its own
    /// count, by a timer. Costs a timer while a frame is not whole, none per message.
    ///
    /// # Panics
    ///
    /// When `over` is zero.
    pub fn least_input_rate(mut self, bytes: usize, over: Duration) -> Self {
        self.least_input = Some(Rate::new("least_input_rate", bytes, over));
        self
    }

    /// How fast a peer has to take what waits for it: in each `over` from when output began to wait
    /// it must take `bytes`, or the connection ends with
    /// [`OutputRate`](crate::CloseReason::OutputRate). By default none.
    ///
    /// What the kernel has room for counts as taken: it takes in lumps of its buffer, so `over`
    /// should be some seconds. Costs a timer while output waits, none per message.
    ///
    /// # Panics
    ///
    /// When `over` is zero.
    pub fn least_output_rate(mut self, bytes: usize, over: Duration) -> Self {
        self.least_output = Some(Rate::new("least_output_rate", bytes, over));
        self
    }

    /// How long a close may take to flush what was written, in all: a reader that takes a byte now
    /// and then is not stuck, and would hold it for ever. Then the rest is thrown away, the peer
    /// sees a reset, and the reason is [`NotFlushed`](crate::CloseReason::NotFlushed), unless an
    /// error of the actor's own was why it closed. A close at a stop has it, too, beside the stop's
    /// own deadline. [`Context::close_within`](crate::Context::close_within)
    /// sets it for one close.
    ///
    /// A [file](crate::Context::write_file) may be of any size. While one waits, a reader that has
    /// taken 4 MiB (or `output_max`, if that is less) in this time has as much time again: with the
    /// defaults 35 KB a second will do. The time of `close_within` is for all.
    pub fn flush_timeout(mut self, after: Duration) -> Self {
        self.flush_timeout = after;
        self
    }

    /// A close after flushing shuts down the writing side and then discards what still arrives
    /// until the peer's end, for at most this time and this many bytes. Closing earlier would make
    /// the kernel reset the connection and the peer lose bytes that it had not read yet. The actor
    /// is told `closed` when the flush is done, not after this.
    pub fn linger(mut self, timeout: Duration, bytes: usize) -> Self {
        self.linger_timeout = timeout;
        self.linger_bytes = bytes;
        self
    }
}

/// What happens to a reader that takes less than is written for it. Nothing is ever partly dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowReader {
    /// Past `output_max` the connection ends with
    /// [`CloseReason::SlowReader`](crate::CloseReason::SlowReader).
    Close,
    /// From the high watermark down to the low one nothing is read from this connection, so that a
    /// peer that makes the actor write by what it sends is held back by its own slowness. Past
    /// `output_max` (which messages can still reach) it ends as under `Close`.
    PauseSource,
    /// A write that would pass `output_max` is dropped whole,
    /// [counted](crate::Stats::dropped_writes), and told by the `false` that
    /// [`Context::write`](crate::Context::write) returns.
    DropNewest,
    /// For pushes of which the newest are worth the most: a write that would pass `output_max` makes
    /// room for itself, by dropping the oldest writes that wait, each whole and none that has begun
    /// to leave, [counted](crate::Stats::dropped_writes), and told by the `false` that
    /// [`Context::write`](crate::Context::write) returns: the write itself is kept. (But for one that
    /// is larger than `output_max` by itself: that is dropped.) Beside what may wait, the rest of
    /// one write that has begun to leave may.
    ///
    /// Each call of [`write`](crate::Context::write), [`write_bytes`](crate::Context::write_bytes) or
    /// [`write_parts`](crate::Context::write_parts) is a write; a file
    /// ([`write_file`](crate::Context::write_file)) is not dropped. To be told apart costs a write
    /// that waits 64 bytes more of the budget, and one that was copied an allocation. Not for an
    /// adapter whose peer needs every byte, as an encryption's does.
    DropOldest,
}

/// What happens to clients that a listener has no room for: at its limit of connections, at that of
/// the [system](crate::Builder::max_connections), or when no descriptor is left.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AtLimit {
    /// Further clients wait in the kernel's backlog until a connection ends. Out of descriptors, the
    /// listener tries again by itself: after 10 ms, then after twice as long, up to 500 ms.
    Wait,
    /// Further clients are accepted, sent these bytes (which may be none), and closed: after a second
    /// at most for them to read it. Out of descriptors, each poller has one in reserve to do so with,
    /// one client after the other and without that second; should another thread have taken that
    /// one, it is as with `Wait` until there is a descriptor again.
    Refuse(Bytes),
}

/// One listener, or the spawning of actors without a socket, as its connections see it. Shared by
/// all pollers.
pub(crate) struct Origin {
    pub(crate) make: Box<dyn Fn(Peer) -> Box<dyn Hosted> + Send + Sync>,
    pub(crate) options: ConnectionOptions,
    /// Connections that came from here and still hold a descriptor.
    pub(crate) live: AtomicUsize,
    /// Where it listens, the port being the real one.
    pub(crate) local: Endpoint,
    /// Options that each of its sockets has to be told.
    pub(crate) per_connection: Vec<SocketOption>,
    /// What it lets in; `None` where nothing listens.
    pub(crate) entrance: Option<Box<Entrance>>,
}

impl Origin {
    /// One of its connections has gone.
    #[inline]
    pub(crate) fn leave(&self, shared: &Shared) {
        self.live.fetch_sub(1, Ordering::AcqRel);
        if let Some(entrance) = &self.entrance {
            entrance.give(shared);
        }
    }
}

impl Origin {
    /// One that is no listener: that of actors without a socket, and of connections that come from
    /// elsewhere.
    pub(crate) fn of_nobody(options: ConnectionOptions) -> Origin {
        Origin {
            make: Box::new(|_| -> Box<dyn Hosted> { Box::new(Nobody) }),
            options,
            live: AtomicUsize::new(0),
            // Unspecified: whoever wants to know asks the kernel.
            local: Endpoint::Tcp(([0, 0, 0, 0], 0).into()),
            per_connection: Vec::new(),
            entrance: None,
        }
    }
}

/// What an origin without a listener would make. Never made.
struct Nobody;

impl Actor for Nobody {
    type Message = std::convert::Infallible;
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

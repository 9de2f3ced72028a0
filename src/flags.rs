//! What is true of one connection, in one word beside its actor.

/// A set of facts; each constant says when it holds.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u32);

impl Flags {
    /// The slot has a socket, and the actor may write to it.
    pub(crate) const SOCKET: u32 = 1;
    /// The actor is there and `opened` is still to be called.
    pub(crate) const OPENING: u32 = 1 << 1;
    /// The selector reports readiness for reading.
    pub(crate) const REG_READ: u32 = 1 << 2;
    /// The selector reports readiness for writing.
    pub(crate) const REG_WRITE: u32 = 1 << 3;
    /// The actor paused its reading.
    pub(crate) const PAUSED: u32 = 1 << 4;
    /// The actor waits for room in a mailbox.
    pub(crate) const WAITING: u32 = 1 << 5;
    /// Reading is held back by [`SlowReader::PauseSource`](crate::SlowReader::PauseSource).
    pub(crate) const HELD: u32 = 1 << 6;
    /// The peer's end of stream has been read.
    pub(crate) const EOF: u32 = 1 << 7;
    /// ... and `read_closed` has been called.
    pub(crate) const EOF_TOLD: u32 = 1 << 8;
    /// The writing side is or will be shut down.
    pub(crate) const WRITE_SHUT: u32 = 1 << 9;
    /// Closing: output is flushed, no callback but `closed` follows.
    pub(crate) const CLOSING: u32 = 1 << 10;
    /// The actor has gone; what arrives is discarded until the peer's end.
    pub(crate) const LINGERING: u32 = 1 << 11;
    /// The socket refused bytes; output waits for its readiness.
    pub(crate) const BLOCKED: u32 = 1 << 12;
    /// On the list of connections to be flushed at the end of the turn.
    pub(crate) const DIRTY: u32 = 1 << 13;
    /// On the list of what the poller owes without being told by the selector.
    pub(crate) const READY: u32 = 1 << 14;
    /// ... to show the kept input again.
    pub(crate) const SHOW_INPUT: u32 = 1 << 15;
    /// The output has reached the high watermark and not yet fallen to the low one.
    pub(crate) const ABOVE_HIGH: u32 = 1 << 16;
    /// ... it has: `drained` is to be called.
    pub(crate) const DRAINED: u32 = 1 << 17;
    /// An inbox keeps something under this actor's key: a membership, or messages set aside.
    pub(crate) const KNOWN_TO_INBOX: u32 = 1 << 18;
    /// `stopping` is still to be called.
    pub(crate) const STOPPING: u32 = 1 << 19;
    /// The time of the last activity is kept, for an idle timeout.
    pub(crate) const TIMED: u32 = 1 << 20;
    /// A timer watches waiting output, see [`Watch`](crate::watch::Watch).
    pub(crate) const WATCH_OUTPUT: u32 = 1 << 21;
    /// A timer watches kept input.
    pub(crate) const WATCH_INPUT: u32 = 1 << 22;
    /// Nothing has been received and nothing sent since it was accepted, and there is a time for
    /// that.
    pub(crate) const SILENT: u32 = 1 << 23;
    /// The peer's or our own address is in a map beside the slots.
    pub(crate) const ADDR_ELSEWHERE: u32 = 1 << 24;
    /// Messages for this actor are set aside while it waits: it has no socket that could be paused
    /// instead.
    pub(crate) const ASIDE: u32 = 1 << 25;

    /// The writing side is to be shut down once the output is flushed.
    pub(crate) const SHUT_PENDING: u32 = 1 << 26;
    /// `opened` has been called, so `closed` has to be.
    pub(crate) const OPENED: u32 = 1 << 27;
    /// The socket is to be reset, not closed.
    pub(crate) const ABORT: u32 = 1 << 28;
    /// Refused at its listener's limit, and not counted among its connections.
    pub(crate) const REFUSED: u32 = 1 << 29;
    /// There is or was a socket.
    pub(crate) const CONNECTION: u32 = 1 << 30;
    /// Its descriptor is not a stream that the actor reads, or not yet: see `hosts/special.rs`.
    pub(crate) const SPECIAL: u32 = 1 << 31;

    pub(crate) const NONE: Flags = Flags(0);

    /// Reading waits for one of these to end, for what is kept to be shown again first among them.
    pub(crate) const NO_RECEIVE: u32 = Flags::NOT_READING | Flags::SHOW_INPUT;
    /// The actor is to be shown no input.
    pub(crate) const NOT_READING: u32 = Flags::PAUSED | Flags::WAITING | Flags::HELD;
    pub(crate) const REGISTERED: u32 = Flags::REG_READ | Flags::REG_WRITE;

    /// As an actor is to see them: a connection under TLS is a stream. The other special slots that
    /// have an actor are no connections.
    #[inline]
    pub(crate) fn seen(self) -> Flags {
        const BOTH: u32 = Flags::SPECIAL | Flags::CONNECTION;
        if self.0 & BOTH == BOTH {
            return Flags(self.0 & !Flags::SPECIAL);
        }
        self
    }

    /// Whether any of `bits` holds.
    #[inline]
    pub(crate) fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, bits: u32) {
        self.0 |= bits;
    }

    #[inline]
    pub(crate) fn clear(&mut self, bits: u32) {
        self.0 &= !bits;
    }

    /// Clears `bits`; whether any held.
    #[inline]
    pub(crate) fn take(&mut self, bits: u32) -> bool {
        let had = self.has(bits);
        self.clear(bits);
        had
    }
}

//! A stream socket without a kernel, for actors that are driven by hand.
//!
//! The streams of a thread stand in a table of that thread; a [`Socket`](super::Socket) holds the
//! number of one where another holds a descriptor. So the poller's code is the same for both, and a
//! socket takes four bytes as before.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};

use super::socket::Socket;

/// Both directions of a stream, as the peer has them in its hands.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Sent by the peer and not received yet.
    pub(crate) incoming: VecDeque<u8>,
    /// The peer has half-closed, behind `incoming`.
    pub(crate) ended: bool,
    /// The peer has reset the connection.
    pub(crate) reset: bool,
    /// Taken from our side and not yet looked at.
    pub(crate) outgoing: Vec<u8>,
    /// How many bytes may still be sent before a send would block.
    pub(crate) room: usize,
    /// Our side has half-closed, behind `outgoing`.
    pub(crate) write_shut: bool,
    /// Our side has closed its socket.
    pub(crate) closed: bool,
    /// ... by a reset.
    pub(crate) aborted: bool,
}

impl Stream {
    /// Whether a receive gets further: to bytes, to the end or to an error.
    pub(crate) fn is_readable(&self) -> bool {
        self.reset || self.ended || !self.incoming.is_empty()
    }

    /// Whether a send gets further: to room or to an error.
    pub(crate) fn is_writable(&self) -> bool {
        self.reset || self.room > 0
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.incoming.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        io::Read::read(&mut self.incoming, buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.reset || self.write_shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.room == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let sent = bytes.len().min(self.room);
        self.room -= sent;
        self.outgoing.extend_from_slice(&bytes[..sent]);
        Ok(sent)
    }
}

/// The number of a stream of this thread; above 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(pub(super) i32);

impl Number {
    pub(super) fn recv(self, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|stream| stream.recv(buffer))?
    }

    pub(super) fn send(self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|stream| stream.send(bytes))?
    }

    /// As a kernel does: what was taken before a refusal or an error is a partial send.
    pub(super) fn send_vectored(self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut all = 0;
        for slice in slices {
            match self.send(slice) {
                Ok(sent) => all += sent,
                Err(error) if all == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(all)
    }

    pub(super) fn shutdown_write(self) -> io::Result<()> {
        self.with(|stream| stream.write_shut = true)
    }

    pub(super) fn abort(self) {
        let _ = self.with(|stream| stream.aborted = true);
    }

    pub(super) fn close(self) {
        let _ = self.with(|stream| {
            stream.closed = true;
            // As a kernel does: what was not received makes a close a reset.
            stream.aborted |= !stream.incoming.is_empty();
            stream.write_shut = true;
        });
    }

    /// An error where the stream is not there: its peer has been dropped, or this is another
    /// thread.
    fn with<R>(self, f: impl FnOnce(&mut Stream) -> R) -> io::Result<R> {
        STREAMS
            .try_with(|streams| streams.borrow_mut().open.get_mut(&self.0).map(f))
            .ok()
            .flatten()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

#[derive(Default)]
struct Streams {
    /// The number given out last.
    last: i32,
    open: HashMap<i32, Stream>,
}

thread_local! {
    static STREAMS: RefCell<Streams> = RefCell::default();
}

/// The peer's end of a simulated stream.
#[derive(Debug)]
pub(crate) struct Wire {
    number: Number,
}

impl Wire {
    /// A connection whose peer takes whatever it is sent.
    pub(crate) fn new() -> (Wire, Socket) {
        let number = STREAMS.with_borrow_mut(|streams| {
            streams.last = streams
                .last
                .checked_add(1)
                .expect("a thread makes less than 2^31 streams");
            let number = streams.last;
            streams.open.insert(
                number,
                Stream {
                    room: usize::MAX,
                    ..Stream::default()
                },
            );
            Number(number)
        });
        (Wire { number }, Socket::simulated(number))
    }

    /// Looks at the stream or changes it. `f` must not touch another stream.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Stream) -> R) -> R {
        self.number
            .with(f)
            .expect("a stream is there as long as its wire")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = STREAMS.try_with(|streams| streams.borrow_mut().open.remove(&self.number.0));
    }
}

//! What the two ends of a connection do, and what comes of it at the other end.

use std::io::{self, IoSlice, Read};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::faults::Fault;
use super::network::{
    CLIENT, Doom, Fate, Happening, Network, Number, Place, Process, SERVER, errno, nanos, simulate,
};
use super::trace::{OfConnection, excerpt};
use crate::sys::{Endpoint, Interest, SocketOption, retry_interrupted};

/// As a [`Socket`](crate::sys::Socket) uses it. Cold, so that the way of a byte to the kernel stays
/// in one piece.
impl Number {
    #[cold]
    pub(in crate::sys) fn recv(self, buffer: &mut [u8]) -> io::Result<usize> {
        retry_interrupted(|| simulate(|network| network.recv(self, buffer))?)
    }

    #[cold]
    pub(in crate::sys) fn send(self, bytes: &[u8]) -> io::Result<usize> {
        self.send_vectored(&[IoSlice::new(bytes)])
    }

    #[cold]
    pub(in crate::sys) fn send_vectored(self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        retry_interrupted(|| simulate(|network| network.send(self, slices))?)
    }

    pub(in crate::sys) fn shutdown_write(self) -> io::Result<()> {
        simulate(|network| network.shutdown_write(self))
    }

    /// To be followed by [`close`](Number::close).
    pub(in crate::sys) fn abort(self) {
        let _ = simulate(|network| {
            // A Unix socket knows no linger time, nor do datagrams: the close is like any other.
            if matches!(self.place(), Place::End { .. }) && !network.is_unix(self) {
                network.abort(self);
            }
        });
    }

    /// A listener's, too.
    pub(in crate::sys) fn close(self) {
        let _ = simulate(|network| network.close(self));
    }

    #[cold]
    pub(in crate::sys) fn peek(self, buffer: &mut [u8]) -> io::Result<usize> {
        simulate(|network| network.peek(self, buffer))?
    }

    pub(in crate::sys) fn set_option(self, option: &SocketOption) -> io::Result<()> {
        simulate(|network| network.set_option(self, option))?
    }

    pub(in crate::sys) fn local_addr(self) -> io::Result<Endpoint> {
        simulate(|network| network.local_addr(self))
    }
}

fn other(side: usize) -> usize {
    1 - side
}

impl Network {
    /// Whether this goes wrong now on this connection.
    fn happens_to(&mut self, connection: usize, fault: Fault) -> bool {
        !self.connections[connection].is_calm && self.happens(fault)
    }

    /// Some of `n`, at least one.
    fn some_of(&mut self, connection: usize, n: usize) -> usize {
        if n > 1 && self.happens_to(connection, Fault::Split) {
            1 + self.random.below(n as u64) as usize
        } else {
            n
        }
    }

    // ---- what an end does -----------------------------------------------------------------------

    pub(super) fn recv(&mut self, number: Number, buffer: &mut [u8]) -> io::Result<usize> {
        let (at, side) = number.as_end();
        if self.happens_to(at, Fault::Interrupt) {
            return Err(errno(libc::EINTR));
        }
        let available = self.connections[at].pipes[other(side)].arrived.len();
        if available == 0 {
            let connection = &self.connections[at];
            if connection.ends[side].is_reset {
                self.record_of(at, || OfConnection::ReceivesReset);
                return Err(errno(libc::ECONNRESET));
            }
            if !connection.pipes[other(side)].has_ended {
                return Err(errno(libc::EAGAIN));
            }
            self.record_of(at, || OfConnection::ReceivesEnd);
            return Ok(0);
        }
        let len = self.some_of(at, available.min(buffer.len()));
        let arrived = &mut self.connections[at].pipes[other(side)].arrived;
        let len = arrived.read(&mut buffer[..len])?;
        if arrived.is_empty() {
            // An idle connection owns no buffers here, either.
            *arrived = Default::default();
        }
        if !self.connections[at].is_calm {
            self.give_room(at, other(side), len);
        }
        self.record_of(at, || OfConnection::Receives {
            len,
            excerpt: excerpt(&buffer[..len]),
        });
        Ok(len)
    }

    fn peek(&self, number: Number, buffer: &mut [u8]) -> io::Result<usize> {
        let (at, side) = number.as_end();
        let connection = &self.connections[at];
        let pipe = &connection.pipes[other(side)];
        if pipe.arrived.is_empty() {
            return match (connection.ends[side].is_reset, pipe.has_ended) {
                (true, _) => Err(errno(libc::ECONNRESET)),
                (false, true) => Ok(0),
                (false, false) => Err(errno(libc::EAGAIN)),
            };
        }
        let len = buffer.len().min(pipe.arrived.len());
        for (to, from) in buffer.iter_mut().zip(&pipe.arrived) {
            *to = *from;
        }
        Ok(len)
    }

    pub(super) fn send(&mut self, number: Number, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let (at, side) = number.as_end();
        if self.happens_to(at, Fault::Interrupt) {
            return Err(errno(libc::EINTR));
        }
        let connection = &self.connections[at];
        if connection.ends[side].is_reset {
            self.record_of(at, || OfConnection::Fails("a send after the reset"));
            return Err(errno(libc::EPIPE));
        }
        if connection.pipes[side].is_shut {
            return Err(errno(libc::EPIPE));
        }
        let of: usize = slices.iter().map(|slice| slice.len()).sum();
        let room = connection.pipes[side].room;
        if room == 0 && of > 0 {
            return Err(errno(libc::EAGAIN));
        }
        // Who plays a client by hand has no kernel that this could be told by.
        let is_by_hand = connection.ends[side].process == Process::NONE;
        if !is_by_hand && self.happens_to(at, Fault::NoMemory) {
            self.record_of(at, || OfConnection::Fails("no memory for a send"));
            return Err(errno(libc::ENOBUFS));
        }
        let len = self.some_of(at, of.min(room));
        let mut bytes = Vec::with_capacity(len);
        for slice in slices {
            bytes.extend_from_slice(&slice[..slice.len().min(len - bytes.len())]);
        }
        self.record_of(at, || OfConnection::Sends {
            len,
            of,
            excerpt: excerpt(&bytes),
        });
        let pipe = &mut self.connections[at].pipes[side];
        // Not from a room without bounds, that of somebody's hands.
        if pipe.room != usize::MAX {
            pipe.room -= len;
        }
        // That of the whole: its first piece may be what the connection ends at.
        let epoch = pipe.epoch;
        while !bytes.is_empty() {
            let rest = bytes.split_off(self.some_of(at, bytes.len()));
            self.dispatch(at, side, Happening::Bytes { side, epoch, bytes });
            bytes = rest;
        }
        Ok(len)
    }

    /// Puts something that `side` sends under way; where nothing delays it, it arrives at once.
    pub(super) fn dispatch(&mut self, at: usize, side: usize, what: Happening) {
        let connection = &mut self.connections[at];
        if side == CLIENT && connection.answered.is_none() {
            return connection.early.push(what);
        }
        let mut arrives = self.nanos() + self.delay(at);
        if self.happens_to(at, Fault::Freeze) {
            let freeze = self.random.duration(Duration::from_secs(300));
            arrives += nanos(freeze);
        }
        let pipe = &mut self.connections[at].pipes[side];
        arrives = arrives.max(pipe.last_at);
        pipe.last_at = arrives;
        pipe.pieces += 1;
        let here = pipe.pieces == 1 && arrives <= self.nanos();
        match what {
            Happening::Bytes { side, epoch, bytes } if here => {
                self.arrive(at, side, epoch, &bytes);
            }
            Happening::End { side, epoch } if here => self.arrive_end(at, side, epoch),
            what => self.put(at, arrives, what),
        }
    }

    /// How long a piece of this connection takes this time, in nanoseconds.
    pub(super) fn delay(&mut self, at: usize) -> u64 {
        let mut delay = u64::from(self.connections[at].delay_us) * 1000;
        if delay > 0 {
            delay += self.random.below(delay);
            if self.random.one_in(100) {
                delay += nanos(self.random.duration(Duration::from_millis(500)));
            }
        }
        delay
    }

    pub(super) fn shutdown_write(&mut self, number: Number) {
        let (at, side) = number.as_end();
        let connection = &mut self.connections[at];
        if connection.ends[side].is_reset || connection.pipes[side].is_shut {
            return;
        }
        self.record_of(at, || OfConnection::Shuts);
        self.shut(at, side);
    }

    fn shut(&mut self, at: usize, side: usize) {
        let pipe = &mut self.connections[at].pipes[side];
        pipe.is_shut = true;
        let epoch = pipe.epoch;
        self.touch(at, side);
        self.dispatch(at, side, Happening::End { side, epoch });
    }

    pub(super) fn abort(&mut self, number: Number) {
        let (at, side) = number.as_end();
        if !self.connections[at].ends[side].is_reset {
            self.record_of(at, || OfConnection::Resets);
            self.connections[at].ends[side].is_reset = true;
            self.send_reset(at, side);
        }
    }

    /// What `side` has under way is lost, and its peer learns why.
    fn send_reset(&mut self, at: usize, side: usize) {
        self.connections[at].pipes[side].epoch += 1;
        let arrives = self.nanos() + self.delay(at);
        if arrives <= self.nanos() {
            self.reset(at, other(side), "by the other");
        } else {
            let side = other(side);
            self.put(at, arrives, Happening::Reset { side });
        }
    }

    pub(super) fn close(&mut self, number: Number) {
        let (at, side) = match number.place() {
            Place::Listener(place) => return self.close_listener(place),
            Place::Datagram(place) => return self.close_datagram(place),
            Place::End { connection, side } => (connection, side),
        };
        let connection = &mut self.connections[at];
        let end = &mut connection.ends[side];
        end.is_held = false;
        end.watched = Default::default();
        let process = end.process;
        let is_reset = end.is_reset;
        // As a kernel does: what was not received makes a close a reset.
        let unread = !connection.pipes[other(side)].arrived.is_empty();
        connection.pipes[other(side)].arrived = Default::default();
        let is_shut = connection.pipes[side].is_shut;
        if let Some(program) = self.program(process) {
            program.open -= 1;
        }
        if unread && !is_reset {
            self.abort(number);
        } else {
            self.record_of(at, || OfConnection::Closes);
            if !is_shut && !is_reset {
                self.shut(at, side);
            }
        }
        self.release(at);
    }

    /// Gives the place back if nobody has either end any more.
    fn release(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.ends.iter().all(|end| !end.is_held) {
            *connection = super::network::Connection {
                generation: connection.generation.wrapping_add(1),
                ..Default::default()
            };
            self.free.push(at as u32);
        }
    }

    // ---- what comes of it -----------------------------------------------------------------------

    pub(super) fn arrive(&mut self, at: usize, side: usize, epoch: u32, bytes: &[u8]) {
        let connection = &mut self.connections[at];
        let pipe = &mut connection.pipes[side];
        pipe.pieces -= 1;
        if pipe.epoch != epoch {
            return;
        }
        let receiver = &connection.ends[other(side)];
        if !receiver.is_held || receiver.is_reset {
            // Nobody takes it any more: that end's kernel says so.
            if !connection.ends[side].is_reset {
                self.refuse(at, side);
            }
            return;
        }
        let mut bytes = bytes;
        let mut befalls = None;
        if let Some(doom) = &mut connection.doom
            && doom.side == side
        {
            if doom.bytes <= bytes.len() {
                bytes = &bytes[..doom.bytes];
                befalls = Some(doom.fate);
            } else {
                doom.bytes -= bytes.len();
            }
        }
        pipe.arrived.extend(bytes);
        if receiver.takes && pipe.room != usize::MAX {
            pipe.room += bytes.len();
            self.touch(at, side);
        }
        self.touch(at, other(side));
        if let Some(fate) = befalls {
            self.befall(at, fate);
        }
    }

    /// The answer to what `side` has sent to an end that is no more: a reset, behind all that came
    /// from there before.
    fn refuse(&mut self, at: usize, side: usize) {
        let delay = self.delay(at);
        let incoming = &self.connections[at].pipes[other(side)];
        let arrives = (self.nanos() + delay).max(incoming.last_at);
        if arrives <= self.nanos() && incoming.pieces == 0 {
            self.reset(at, side, "as its peer has gone");
        } else {
            self.put(at, arrives, Happening::Reset { side });
        }
    }

    pub(super) fn arrive_end(&mut self, at: usize, side: usize, epoch: u32) {
        let pipe = &mut self.connections[at].pipes[side];
        pipe.pieces -= 1;
        if pipe.epoch == epoch {
            pipe.has_ended = true;
            self.touch(at, other(side));
        }
    }

    /// A reset has come to this end.
    pub(super) fn reset(&mut self, at: usize, side: usize, why: &'static str) {
        let connection = &self.connections[at];
        if connection.ends[side].is_reset || !connection.ends[side].is_held {
            return;
        }
        self.record_of(at, || OfConnection::IsReset { side, why });
        // What has arrived may still be received, or not: that depends on the kernel and on luck.
        let is_lost = !self.connections[at].is_calm && self.random.one_in(2);
        let connection = &mut self.connections[at];
        connection.ends[side].is_reset = true;
        connection.pipes[side].epoch += 1;
        let arrived = &mut connection.pipes[other(side)].arrived;
        if is_lost && !std::mem::take(arrived).is_empty() {
            self.record_of(at, || OfConnection::Fails("what has arrived is lost"));
        }
        self.touch(at, side);
    }

    /// Decides when a connection ends before its time: after some bytes, or after some time.
    pub(super) fn doom(&mut self, at: usize, fate: Fate) {
        if self.random.one_in(2) {
            let side = match fate {
                Fate::Reset => *self.random.pick(&[CLIENT, SERVER]),
                Fate::Dies => CLIENT,
            };
            let bits = self.random.below(14);
            let bytes = self.random.below(1 << bits) as usize;
            self.connections[at].doom = Some(Box::new(Doom { fate, side, bytes }));
        } else {
            let after = self.random.duration(Duration::from_secs(120));
            let at_nanos = self.nanos() + nanos(after);
            self.put(at, at_nanos, Happening::Befalls(fate));
        }
    }

    pub(super) fn befall(&mut self, at: usize, fate: Fate) {
        self.connections[at].doom = None;
        match fate {
            Fate::Reset => {
                self.reset(at, CLIENT, "in the middle");
                self.reset(at, SERVER, "in the middle");
            }
            Fate::Dies => {
                if self.connections[at].ends[CLIENT].is_reset {
                    return;
                }
                // What has not arrived is lost with it, and its kernel ends the stream.
                self.reset(at, CLIENT, "as it dies");
                let pipe = &mut self.connections[at].pipes[CLIENT];
                // Also where it was closed before, and the rest was under way.
                pipe.epoch += 1;
                pipe.is_shut = true;
                pipe.has_ended = true;
                self.touch(at, SERVER);
            }
        }
    }

    // ---- what the ends can see ------------------------------------------------------------------

    /// What `side` may send grows.
    pub(super) fn give_room(&mut self, at: usize, side: usize, len: usize) {
        let room = &mut self.connections[at].pipes[side].room;
        *room = room.saturating_add(len);
        self.touch(at, side);
    }

    /// In which directions a call of this end gets further.
    pub(super) fn readiness(&self, at: usize, side: usize) -> Interest {
        let connection = &self.connections[at];
        let incoming = &connection.pipes[other(side)];
        let outgoing = &connection.pipes[side];
        let mut ready = Interest::NONE;
        if side == CLIENT && connection.answered.is_none() {
            return ready;
        }
        if incoming.has_ended || !incoming.arrived.is_empty() {
            ready = ready | Interest::READ;
        }
        if outgoing.room > 0 {
            ready = ready | Interest::WRITE;
        }
        ready
    }

    /// Whether it has an error or is ended in both directions, which is reported asked for or not.
    pub(super) fn is_down(&self, at: usize, side: usize) -> bool {
        let connection = &self.connections[at];
        let pipes = &connection.pipes;
        connection.ends[side].is_reset
            || pipes[other(side)].has_ended && pipes[side].is_shut
            || side == CLIENT && matches!(connection.answered, Some(Err(_)))
    }

    /// Nothing here has options: it is only looked whether such a socket would.
    fn set_option(&mut self, number: Number, option: &SocketOption) -> io::Result<()> {
        if let Place::Datagram(place) = number.place() {
            return self.check_datagram_option(place, option);
        }
        let (at, side) = number.as_end();
        let endpoint = if self.connections[at].is_calm {
            // That of a stage, which plays a connection over IPv4.
            Endpoint::Tcp((Ipv4Addr::LOCALHOST, 0).into())
        } else {
            self.address_of(at, side)
        };
        option.check_open(&endpoint)?;
        self.record_of(at, || OfConnection::Sets(option.to_string()));
        Ok(())
    }

    fn is_unix(&self, number: Number) -> bool {
        let (at, _) = number.as_end();
        let connection = &self.connections[at];
        let listener = self.listeners.get(connection.listener as usize);
        !connection.is_calm
            && listener.is_some_and(|listener| matches!(listener.endpoint, Endpoint::Unix(_)))
    }

    fn local_addr(&self, number: Number) -> Endpoint {
        match number.place() {
            Place::Listener(place) => self.listeners[place].endpoint.clone(),
            Place::Datagram(place) => self.datagram_endpoint(place),
            Place::End { connection, side } => self.address_of(connection, side),
        }
    }

    pub(super) fn take_descriptor(&mut self, at: usize, side: usize, process: Process) {
        self.connections[at].ends[side].process = process;
        if let Some(program) = self.program(process) {
            program.open += 1;
        }
    }
}

//! The client's end of a connection in somebody's hands: those of a [`Stage`](crate::testing::Stage)
//! or of a [`Client`](crate::testing::Client).

use std::io::{self, IoSlice};
use std::net::IpAddr;

use super::network::{CLIENT, Connection, Network, Number, Process, SERVER, simulate};
use crate::sys::{Endpoint, Socket, retry_interrupted};

/// The client's end of a simulated connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Wire {
    number: Number,
    /// Of which network it is: the thread may have another one by now.
    network: u64,
}

impl Wire {
    /// A connection whose other end is to be hosted, with room for whatever is sent either way.
    pub(crate) fn pair() -> (Wire, Socket) {
        let ([number, server], network) = Network::with(|network| (network.pair(), network.id()));
        (Wire { number, network }, Socket::simulated(server))
    }

    /// Begins to connect.
    pub(crate) fn connect(to: &Endpoint) -> Wire {
        Network::with(|network| {
            let number = network.connect(to, Process::NONE);
            let (connection, _) = number.as_end();
            let connection = &mut network.connections[connection];
            connection.ends[CLIENT].takes = true;
            connection.pipes[CLIENT].room = usize::MAX;
            let network = network.id();
            Wire { number, network }
        })
    }

    /// What is connected comes from this address, instead of one that is nobody else's.
    pub(crate) fn set_source(&self, from: IpAddr) {
        self.on(|network| network.set_source(self.number, from));
    }

    /// By which a trace names it.
    pub(crate) fn serial(&self) -> u32 {
        self.with(|connection| connection.serial)
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let slices = [IoSlice::new(bytes)];
            let send = || self.on(|network| network.send(self.number, &slices));
            bytes = &bytes[retry_interrupted(send)?..];
        }
        Ok(())
    }

    pub(crate) fn half_close(&self) {
        self.on(|network| network.shutdown_write(self.number));
    }

    pub(crate) fn reset(&self) {
        self.on(|network| network.abort(self.number));
    }

    /// Takes what has arrived.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.with(|connection| std::mem::take(&mut connection.pipes[SERVER].arrived).into())
    }

    /// From here on the other end may send so many bytes.
    pub(crate) fn set_room(&self, room: usize) {
        self.with(|connection| connection.pipes[SERVER].room = room);
        self.on(|network| network.touch(self.connection(), SERVER));
    }

    /// Whether what arrives makes room for more at once.
    pub(crate) fn takes(&self) -> bool {
        self.with(|connection| connection.ends[CLIENT].takes)
    }

    /// Says whether it does; what has arrived meanwhile makes room, then, too.
    pub(crate) fn set_takes(&self, takes: bool) {
        let waits = self.with(|connection| {
            let took = std::mem::replace(&mut connection.ends[CLIENT].takes, takes);
            let waits = connection.pipes[SERVER].arrived.len();
            if takes && !took { waits } else { 0 }
        });
        self.on(|network| network.give_room(self.connection(), SERVER, waits));
    }

    /// Whether the connect has been answered, and well.
    pub(crate) fn is_connected(&self) -> bool {
        self.with(|connection| connection.answered == Some(Ok(())))
    }

    /// ... or not well.
    pub(crate) fn is_refused(&self) -> bool {
        self.with(|connection| matches!(connection.answered, Some(Err(_))))
    }

    /// What was sent and is not received.
    pub(crate) fn unread(&self) -> usize {
        self.with(|connection| connection.pipes[CLIENT].arrived.len())
    }

    /// Whether we have ended our stream.
    pub(crate) fn is_shut(&self) -> bool {
        self.with(|connection| connection.pipes[CLIENT].is_shut)
    }

    /// Whether the end of the other's stream has come.
    pub(crate) fn has_ended(&self) -> bool {
        self.with(|connection| connection.pipes[SERVER].has_ended)
    }

    /// Whether a reset has come, or was made.
    pub(crate) fn is_reset(&self) -> bool {
        self.with(|connection| connection.ends[CLIENT].is_reset)
    }

    /// Whether somebody has the other end.
    pub(crate) fn is_hosted(&self) -> bool {
        self.with(|connection| connection.ends[SERVER].is_held)
    }

    fn connection(&self) -> usize {
        self.number.as_end().0
    }

    fn with<R>(&self, f: impl FnOnce(&mut Connection) -> R) -> R {
        self.on(|network| f(&mut network.connections[self.connection()]))
    }

    /// Whether its network is still that of the thread.
    pub(crate) fn is_over(&self) -> bool {
        Network::with(|network| network.id() != self.network)
    }

    fn on<R>(&self, f: impl FnOnce(&mut Network) -> R) -> R {
        assert!(!self.is_over(), "a client: its simulation is over");
        Network::with(f)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = simulate(|network| {
            if network.id() == self.network {
                network.close(self.number);
            }
        });
    }
}

//! The client's end of a connection in somebody's hands: those of a [`Stage`](crate::testing::Stage)
//! or of a [`Client`](crate::testing::Client).

use std::io::{self, IoSlice};

use super::network::{CLIENT, Connection, Network, Number, Pipe, Place, Process, SERVER, simulate};
use crate::sys::{Endpoint, Socket};

/// The client's end of a simulated connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Wire {
    number: Number,
}

impl Wire {
    /// A connection whose other end is to be hosted, with room for whatever is sent either way.
    pub(crate) fn pair() -> (Wire, Socket) {
        let [client, server] = Network::with(Network::pair);
        (Wire { number: client }, Socket::simulated(server))
    }

    /// Begins to connect.
    pub(crate) fn connect(to: &Endpoint) -> Wire {
        Network::with(|network| {
            let number = network.connect(to, Process::NONE);
            let Place::End { connection, .. } = number.place() else {
                unreachable!("a connect is of an end");
            };
            let connection = &mut network.connections[connection];
            connection.ends[CLIENT].takes = true;
            connection.pipes[CLIENT].room = usize::MAX;
            Wire { number }
        })
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            match Network::with(|network| network.send(self.number, &[IoSlice::new(bytes)])) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) fn half_close(&self) {
        Network::with(|network| network.shutdown_write(self.number));
    }

    pub(crate) fn reset(&self) {
        Network::with(|network| network.abort(self.number));
    }

    /// Takes what has arrived.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.with(|connection| std::mem::take(&mut connection.pipes[SERVER].arrived).into())
    }

    /// From here on the other end may send so many bytes.
    pub(crate) fn set_room(&self, room: usize) {
        self.with(|connection| connection.pipes[SERVER].room = room);
        Network::with(|network| network.touch(self.connection(), SERVER));
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
        Network::with(|network| network.give_room(self.connection(), SERVER, waits));
    }

    /// Whether the connect has been answered, and well.
    pub(crate) fn is_connected(&self) -> bool {
        self.with(|connection| connection.answered == Some(true))
    }

    /// ... or not well.
    pub(crate) fn is_refused(&self) -> bool {
        self.with(|connection| connection.answered == Some(false))
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
        self.incoming(|pipe| pipe.has_ended)
    }

    /// Whether a reset has come, or was made.
    pub(crate) fn is_reset(&self) -> bool {
        self.with(|connection| connection.ends[CLIENT].is_reset)
    }

    /// Whether somebody has the other end.
    pub(crate) fn is_hosted(&self) -> bool {
        self.with(|connection| connection.ends[SERVER].is_held)
    }

    fn incoming<R>(&self, f: impl FnOnce(&Pipe) -> R) -> R {
        self.with(|connection| f(&connection.pipes[SERVER]))
    }

    fn connection(&self) -> usize {
        match self.number.place() {
            Place::End { connection, .. } => connection,
            Place::Listener(_) => unreachable!("a wire is no listener"),
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Connection) -> R) -> R {
        Network::with(|network| f(&mut network.connections[self.connection()]))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = simulate(|network| network.close(self.number));
    }
}

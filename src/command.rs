//! What other threads ask of a poller itself, as opposed to its actors.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use crate::entrance::Opened;
use crate::inbox::AnyInbox;
use crate::limits::Ticket;
use crate::local::OnPoller;
use crate::origin::Origin;
use crate::registry::{ActorKey, Registry};
use crate::sys::{ListenSocket, LookupError, Peer, Socket};

pub(crate) enum Command {
    /// A mailbox that has just been made for a new actor type.
    Inbox(Box<dyn AnyInbox + Send>),
    /// A connection that another poller accepted for this one.
    Adopt {
        origin: Arc<Origin>,
        socket: Socket,
        peer: Peer,
        /// What it counts as by its source.
        ticket: Option<Ticket>,
    },
    /// A listener to accept from. In this order: the socket is dropped first.
    Listen {
        socket: ListenSocket,
        opened: Opened,
    },
    /// Some listener has room below its limit again.
    Rearm,
    /// The listener has been paused or resumed: look which it is.
    Look(Arc<Origin>),
    /// The listener is to accept its backlog and close.
    Unlisten(Arc<Origin>),
    /// Duplicates of its sockets are wanted.
    Lend {
        origin: Arc<Origin>,
        to: Sender<io::Result<Lent>>,
    },
    /// Its sockets are to be given out of hand, open as they are.
    Release {
        origin: Arc<Origin>,
        to: Sender<Released>,
    },
    /// The name of what this actor is to be connected to has been looked up.
    Found {
        key: ActorKey,
        found: Result<Vec<SocketAddr>, LookupError>,
    },
    /// Stop by this deadline.
    Stop(Instant),
    /// A closure of the user's is to be run.
    Run(OnPoller),
    /// The last socket of the system has gone while it stops: look again whether to end.
    LastSocket,
}

/// A duplicate of a listening socket, for another process.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) fd: OwnedFd,
    /// The file of a Unix socket, which that process will have to remove.
    pub(crate) file: Option<PathBuf>,
}

/// A listening socket that its poller has given out of hand. Dropped, it goes back there: also where
/// whoever asked for it has given up meanwhile.
pub(crate) struct Released {
    held: Option<(ListenSocket, Opened)>,
    home: Arc<Registry>,
}

impl Released {
    pub(crate) fn new(socket: ListenSocket, opened: Opened, home: Arc<Registry>) -> Released {
        let held = Some((socket, opened));
        Released { held, home }
    }

    /// Another process accepts on it: it is closed here, and its file left to that.
    pub(crate) fn close(mut self) {
        if let Some((mut socket, opened)) = self.held.take() {
            socket.give_up_path();
            drop(socket);
            drop(opened);
        }
    }

    /// For its poller, which has it back at once.
    pub(crate) fn into_parts(mut self) -> Option<(ListenSocket, Opened)> {
        self.held.take()
    }
}

impl Drop for Released {
    fn drop(&mut self) {
        if let Some((socket, opened)) = self.held.take() {
            self.home.command(Command::Listen { socket, opened });
        }
    }
}

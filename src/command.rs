//! What other threads ask of a poller itself, as opposed to its actors.

use std::sync::Arc;
use std::time::Instant;

use crate::entrance::Opened;
use crate::inbox::AnyInbox;
use crate::limits::Ticket;
use crate::local::OnPoller;
use crate::origin::Origin;
use crate::sys::{ListenSocket, Peer, Socket};

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
    /// Stop by this deadline.
    Stop(Instant),
    /// A closure of the user's is to be run.
    Run(OnPoller),
    /// The last socket of the system has gone while it stops: look again whether to end.
    LastSocket,
}

//! Timeouts of a connection that cost no timer operation per message.
//!
//! A timer is set when the thing to watch begins and is left alone from then on. When it fires, the
//! connection is looked at: if there was progress meanwhile the timer is set again for the rest,
//! otherwise the connection ends.

use std::time::Duration;

/// What a timer of a connection watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Nothing received and nothing sent.
    Idle,
    /// Output waits and nothing of it is taken.
    Output,
    /// Input is kept and nothing of it is consumed.
    Input,
    /// A close whose output is not flushed.
    Flush {
        /// The time that it has.
        within: Duration,
    },
    /// A connection whose proxy has not said whose it is.
    Header,
    /// A connection that is not secured.
    Handshake,
    /// A lingering close whose peer does not close.
    Linger,
    /// Datagrams wait for receivers that took nothing more.
    DatagramRetry,
    /// More datagrams wait than one turn sends.
    DatagramRest,
    /// A close waits for datagrams to leave.
    DatagramClose,
    /// A connect under way.
    Connect,
}

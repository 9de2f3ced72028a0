//! Slots whose descriptor is not a stream that its actor reads, or not yet.
//!
//! [`Flags::SPECIAL`] tells them apart, so that a stream pays one bit test for them. What a kind
//! needs besides the slot is kept here, beside the slots; what it does stands in a file of its own.

use std::time::Duration;

use crate::actor::CloseReason;
use crate::connect::{ConnectErrorKind, Failure};
use crate::flags::Flags;
use crate::hosts::Hosts;
use crate::hosts::connecting::Connecting;
use crate::hosts::header::Waiting;
use crate::hosts::watched::Watched;
use crate::sys::UnixPath;

/// What a special slot is, with what is kept for it.
pub(super) enum Special {
    /// A descriptor that its actor reads and writes itself.
    Watched(Watched),
    /// A connection whose proxy is still to say whose it is.
    Header(Waiting),
    /// A socket for datagrams; the file of a Unix one, removed before the socket is closed. See
    /// `hosts/datagrams.rs`, and [`Datagrams`](crate::datagram::Datagrams) for what callbacks see.
    Datagrams(#[allow(dead_code, reason = "it is its drop that counts")] Option<UnixPath>),
    /// It is still to be connected.
    Connecting(Box<Connecting>),
}

impl Hosts {
    /// Makes the slot one of that kind, before its descriptor is registered.
    pub(super) fn make_special(&mut self, index: usize, special: Special) {
        self.slots[index].flags.set(Flags::SPECIAL);
        self.special.insert(index as u32, special);
    }

    /// From here on the slot is an ordinary stream, or it is about to go.
    pub(super) fn take_special(&mut self, index: usize) -> Option<Special> {
        let is_special = self.slots[index].flags.take(Flags::SPECIAL);
        is_special
            .then(|| self.special.remove(&(index as u32)))
            .flatten()
    }

    /// The descriptor of a special slot is ready.
    pub(super) fn handle_special(&mut self, index: usize, readable: bool, writable: bool) {
        match self.special.get(&(index as u32)) {
            Some(Special::Watched(_)) => self.handle_watched(index),
            Some(Special::Header(_)) => self.read_header(index),
            Some(Special::Datagrams(_)) => self.handle_datagrams(index, readable, writable),
            Some(Special::Connecting(_)) if writable => self.look_whether_connected(index),
            Some(Special::Connecting(_)) => {}
            None => debug_assert!(false, "a special slot says what it is"),
        }
    }

    /// Whether the selector is to report readiness for reading, and for writing.
    pub(super) fn special_interest(&self, index: usize) -> (bool, bool) {
        let flags = self.slots[index].flags;
        match self.special.get(&(index as u32)) {
            // Its descriptor is not in the slot: see `sync_watched`.
            Some(Special::Watched(_)) => (false, false),
            Some(Special::Header(_)) => (true, false),
            Some(Special::Datagrams(_)) => {
                let reads = !flags.has(Flags::CLOSING | Flags::NO_RECEIVE);
                (reads, flags.has(Flags::BLOCKED))
            }
            Some(Special::Connecting(_)) => (false, true),
            None => (false, false),
        }
    }

    /// Closes a special slot: nothing is known here of a stream to be flushed.
    pub(super) fn close_special(
        &mut self,
        index: usize,
        reason: CloseReason,
        within: Option<Duration>,
    ) {
        match self.special.get(&(index as u32)) {
            Some(Special::Datagrams(_)) => self.close_datagrams(index, reason, within),
            Some(Special::Connecting(_)) => {
                let kind = match reason {
                    CloseReason::Stopped => ConnectErrorKind::Stopped,
                    _ => ConnectErrorKind::Closed,
                };
                self.not_connected(index, Failure::of(kind));
            }
            _ => self.end(index, reason),
        }
    }

    /// Sends what waits in a special slot.
    pub(super) fn flush_special(&mut self, index: usize) -> bool {
        let key = self.key(index);
        if let Some(Special::Datagrams(_)) = self.special.get(&(index as u32)) {
            self.flush_datagrams(index);
        }
        self.find(key).is_some()
    }
}

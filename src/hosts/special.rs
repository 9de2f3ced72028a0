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
    /// A connection that is still to be secured by TLS.
    Securing,
    /// A stream under TLS, which its actor sees as a plain one: see `hosts/secured.rs`.
    Secured,
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
            Some(Special::Connecting(_)) if self.is_securing(index) => self.handshake_is_due(index),
            Some(Special::Connecting(_)) if writable => self.look_whether_connected(index),
            Some(Special::Connecting(_)) => {}
            Some(Special::Securing) => self.handshake_is_due(index),
            Some(Special::Secured) => {
                let key = self.key(index);
                if writable && self.slots[index].flags.has(Flags::REG_WRITE) {
                    self.flush(index);
                }
                if readable && self.has(key, Flags::REG_READ) {
                    self.receive_secured(index);
                }
            }
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
            Some(Special::Connecting(_)) if !self.is_securing(index) => (false, true),
            Some(Special::Connecting(_) | Special::Securing) => self.handshake_interest(index),
            Some(Special::Secured) => self.stream_interest(index),
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

    /// Sends what waits in a special slot; `false` when it has ended.
    pub(super) fn flush_special(&mut self, index: usize) -> bool {
        let key = self.key(index);
        match self.special.get(&(index as u32)) {
            Some(Special::Datagrams(_)) => self.flush_datagrams(index),
            Some(Special::Secured) => return self.flush_secured(index),
            _ => {}
        }
        self.find(key).is_some()
    }

    /// The same of one that ends at once: what the socket takes now.
    pub(super) fn send_last_of_special(
        &mut self,
        index: usize,
        reason: &CloseReason,
        is_cut: bool,
    ) {
        match self.special.get(&(index as u32)) {
            Some(Special::Datagrams(_)) => self.flush_last(index, reason),
            Some(Special::Secured) if !is_cut => self.say_end(index, reason),
            _ => {}
        }
    }

    /// What was kept for a special slot is not needed any more.
    pub(super) fn forget_special(&mut self, index: usize, special: Special) {
        match &special {
            Special::Watched(watched) => self.forget_watched(index, watched),
            Special::Datagrams(_) => self.forget_socket(index),
            Special::Connecting(_) | Special::Securing | Special::Secured => {
                self.forget_secured(index)
            }
            Special::Header(_) => {}
        }
        self.drop_guarded(special);
    }
}

//! Options of a socket that its actor, or its listener, asked for.

use crate::flags::Flags;
use crate::hosts::Hosts;
use crate::registry::Counters;
use crate::sys::{Socket, SocketOption};

impl Hosts {
    /// Those that a callback asked for.
    #[cold]
    pub(super) fn set_options(&mut self, index: usize) {
        for option in std::mem::take(&mut self.call.socket_options) {
            self.set_option(index, option);
        }
    }

    /// Those that a listener does not hand down to what it accepts.
    pub(super) fn set_accepted_options(&mut self, index: usize) {
        let origin = self.call.origins[usize::from(self.slots[index].origin)].clone();
        for option in &origin.per_connection {
            self.set_option(index, option.clone());
        }
    }

    fn set_option(&mut self, index: usize, option: SocketOption) {
        let set = |socket: &Socket| socket.set_option(&option);
        if let Some(Err(error)) = self.slots[index].socket.as_ref().map(set) {
            Counters::add(&self.call.registry.door.counters.options_failed, 1);
            log::debug!("{error}");
            let key = self.key(index);
            self.failed_options.push_back((key, option, error));
        }
    }

    /// Tells actors, up to `most` of them, which of their options failed.
    pub(super) fn tell_failed_options(&mut self, most: usize) {
        // Those that fail in these very calls are for the next turn.
        for _ in 0..most.min(self.failed_options.len()) {
            let Some((key, option, error)) = self.failed_options.pop_front() else {
                return;
            };
            if let Some(index) = self.find(key)
                && !self.slots[index].flags.has(Flags::CLOSING)
            {
                self.call(index, |actor, call| {
                    actor.option_failed(option, error, call)
                });
            }
        }
    }
}

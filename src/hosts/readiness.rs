//! What the selector is asked for, and what it reports.

use crate::flags::Flags;
use crate::hosts::Hosts;
use crate::registry::ActorKey;
use crate::sys::{Interest, Socket};
use crate::timers::TimerKey;

impl Hosts {
    /// The socket of this token is ready. A token whose connection has ended in this very turn
    /// finds nobody.
    pub(crate) fn handle_ready(&mut self, token: u64, readable: bool, writable: bool) {
        let key = ActorKey::from_token(token);
        let Some(index) = self.find(key) else { return };
        if self.slots[index].flags.has(Flags::SPECIAL) {
            return self.handle_special(index, readable, writable);
        }
        if writable && self.slots[index].flags.has(Flags::REG_WRITE) {
            self.flush(index);
        }
        if readable && self.find(key).is_some() && self.slots[index].flags.has(Flags::REG_READ) {
            self.receive(index);
        }
    }

    /// Something was left for an adapter around this actor.
    pub(crate) fn nudge(&mut self, key: ActorKey) {
        if let Some(index) = self.find(key)
            && !self.slots[index].flags.has(Flags::CLOSING)
        {
            self.call(index, |actor, call| actor.timer(TimerKey::NUDGE, call));
        }
    }

    /// Makes the selector report just what will be acted on.
    ///
    /// A socket of which nothing is wanted is taken out: with no interest epoll still reports a
    /// hang-up, for ever.
    pub(super) fn sync_interest(&mut self, index: usize) {
        let slot = &self.slots[index];
        if slot.socket.is_none() {
            if slot.flags.has(Flags::SPECIAL) {
                self.sync_watched(index);
            }
            return;
        }
        let flags = slot.flags;
        let wanted = if flags.has(Flags::SPECIAL) {
            self.special_interest(index)
        } else {
            self.stream_interest(index)
        };
        let have = (flags.has(Flags::REG_READ), flags.has(Flags::REG_WRITE));
        if have == wanted {
            return;
        }
        let (mut want, mut interest) = (0, Interest::NONE);
        if wanted.0 {
            want |= Flags::REG_READ;
            interest = interest | Interest::READ;
        }
        if wanted.1 {
            want |= Flags::REG_WRITE;
            interest = interest | Interest::WRITE;
        }
        let slot = &mut self.slots[index];
        let Some(socket) = &slot.socket else { return };
        let token = ActorKey::new(index as u32, slot.generation).token();
        let source = socket.source();
        let done = match (have, wanted) {
            ((false, false), _) => self.selector.register(source, token, interest),
            (_, (false, false)) => self.selector.deregister(source),
            _ => self.selector.reregister(source, token, interest),
        };
        slot.flags.clear(Flags::REGISTERED);
        slot.flags.set(want);
        if let Err(error) = done {
            slot.flags.clear(Flags::REGISTERED);
            self.fail(index, error);
        }
    }

    /// Whether readiness for reading is acted on, and for writing.
    #[inline]
    pub(super) fn stream_interest(&self, index: usize) -> (bool, bool) {
        let flags = self.slots[index].flags;
        let reads = !flags.has(Flags::EOF | Flags::CLOSING | Flags::NO_RECEIVE)
            || flags.has(Flags::LINGERING);
        // Where a send has failed the selector reports that for ever; it is acted on while the
        // last bytes are being read.
        let writes = flags.has(Flags::BLOCKED) && (reads || !self.is_broken(index));
        (reads, writes)
    }

    pub(super) fn ask_local_addr(&mut self, index: usize) {
        if let Some(Ok(local)) = self.slots[index].socket.as_ref().map(Socket::local_addr) {
            self.slots[index].flags.set(Flags::ADDR_ELSEWHERE);
            self.call.locals.insert(index as u32, local);
        }
    }
}

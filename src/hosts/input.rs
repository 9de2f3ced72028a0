//! From the socket to an actor.

use std::io;

use bytes::Buf;

use crate::actor::CloseReason;
use crate::call::Wants;
use crate::flags::Flags;
use crate::hosts::guard::guard;
use crate::hosts::{FRONT_MAX, Flush, Hosts, begin};
use crate::input::Input;

/// Where the bytes are that an actor is shown.
#[derive(Clone, Copy)]
pub(super) enum Shown {
    /// In the poller's buffer, this many: what was kept, and behind it what has just been read.
    Buffer(usize),
    /// All in what is kept.
    Kept,
}

/// What an actor said of the frame that it could not take yet.
#[derive(Clone, Copy)]
struct Rest {
    need: usize,
    held: usize,
}

impl Rest {
    fn is_nothing(self) -> bool {
        self.need | self.held == 0
    }
}

impl Hosts {
    /// Reads once, as much as the buffer holds behind what was kept, and shows what has come. If there is more, the
    /// selector reports it in the next turn, after everybody else's.
    pub(super) fn receive(&mut self, index: usize) {
        if self.slots[index].flags.has(Flags::LINGERING) {
            return self.discard(index);
        }
        let slot = &mut self.slots[index];
        let Some(socket) = &slot.socket else { return };
        let mut at = 0;
        if let Some(extra) = self.extras.get(slot.extra)
            && extra.kept.len() <= FRONT_MAX
        {
            at = extra.kept.len();
            self.read_buf[..at].copy_from_slice(&extra.kept);
        }
        let end = at + (self.read_buf.len() - FRONT_MAX);
        let received = match socket.recv(&mut self.read_buf[at..end]) {
            Ok(0) => return self.end_of_input(index),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return self.fail(index, error),
        };
        self.touch(index);
        let shown = match self.extras.get_mut(self.slots[index].extra) {
            Some(extra) if extra.kept.len() > at => {
                extra.kept.extend_from_slice(&self.read_buf[..received]);
                Shown::Kept
            }
            _ => Shown::Buffer(at + received),
        };
        self.show(index, shown, false);
    }

    /// Shows again what was kept, after a pause.
    pub(super) fn show_kept(&mut self, index: usize) {
        let flags = self.slots[index].flags;
        if flags.has(Flags::NOT_READING) || !flags.has(Flags::SOCKET) {
            return;
        }
        if flags.seen().has(Flags::SPECIAL) {
            return self.show_held(index);
        }
        self.go_on_with_frame(index);
        if flags.has(Flags::EOF) {
            return self.show_end(index);
        }
        let key = self.key(index);
        self.show(index, Shown::Kept, false);
        if self.find(key).is_some() {
            self.sync_interest(index);
        }
    }

    pub(super) fn end_of_input(&mut self, index: usize) {
        // A send had failed, and this was the last that the peer sent.
        if let Some(error) = self.take_broken(index) {
            return self.fail(index, error);
        }
        self.slots[index].flags.set(Flags::EOF);
        self.show_end(index);
    }

    /// Shows what is kept for the last time, then tells the half-close, unless the actor pauses.
    fn show_end(&mut self, index: usize) {
        let key = self.key(index);
        let extra = self.extras.get(self.slots[index].extra);
        if extra.is_some_and(|extra| extra.unread() > 0) {
            self.show(index, Shown::Kept, true);
        }
        if self.find(key).is_none() {
            return;
        }
        let flags = &mut self.slots[index].flags;
        if !flags.has(Flags::NOT_READING | Flags::CLOSING | Flags::EOF_TOLD) {
            flags.set(Flags::EOF_TOLD);
            if let Some(extra) = self.extras.get_mut(self.slots[index].extra) {
                extra.kept.clear();
                extra.need = 0;
                extra.held = 0;
            }
            self.tidy(index);
            let called = self.enter(index, |actor, call| actor.read_closed(call));
            self.after(index, called, Flush::Now);
        }
        if self.find(key).is_some() && !self.close_if_shut(index) {
            self.sync_interest(index);
        }
    }

    /// Calls `readable` for as long as it consumes something and something is left, then keeps the
    /// rest.
    pub(super) fn show(&mut self, index: usize, shown: Shown, at_end: bool) {
        let slot = &mut self.slots[index];
        let extra = self.extras.get(slot.extra);
        let (need, kept) = extra.map_or((0, 0), |extra| (extra.need, extra.kept.len()));
        let len = match shown {
            Shown::Buffer(len) => len,
            Shown::Kept => kept,
        };
        if len < need && !at_end {
            let held = extra.map_or(0, |extra| extra.held);
            self.keep(index, shown, 0, Rest { need, held }, true);
            return self.check_kept(index, false);
        }
        begin(&mut self.call, slot, index, &self.extras);
        let bytes = match (shown, extra) {
            (Shown::Buffer(len), _) => &self.read_buf[..len],
            (Shown::Kept, Some(extra)) => &extra.kept[..],
            (Shown::Kept, None) => &[],
        };
        let Some(actor) = slot.actor.as_deref_mut() else {
            return;
        };
        if let Shown::Buffer(_) = shown {
            let addrs = bytes.as_ptr_range();
            self.call.shown = addrs.start.addr()..addrs.end.addr();
        }
        let mut consumed = 0;
        let (called, rest) = loop {
            let mut input = Input::new(&bytes[consumed..], at_end);
            let called = guard(|| actor.readable(&mut input, &mut self.call));
            let (step, needed) = (input.consumed(), input.needed());
            consumed += step;
            let again = step > 0
                && consumed < bytes.len()
                && needed <= bytes.len() - consumed
                && !self.call.wants.has(Wants::STOPS_INPUT)
                && matches!(called, Ok(Ok(())));
            if !again {
                let (need, held) = (needed, input.held());
                break (called, Rest { need, held });
            }
        };
        if extra.is_none() && consumed == bytes.len() && rest.is_nothing() {
            // Nothing was kept, and nothing is.
            return self.after(index, called, Flush::Now);
        }
        let key = self.key(index);
        let paused = self.call.wants.has(Wants::STOPS_INPUT);
        self.keep(index, shown, consumed, rest, false);
        self.after(index, called, Flush::Now);
        if self.find(key).is_some() {
            self.check_kept(index, paused);
        }
    }

    /// Keeps what follows the first `consumed` of the bytes shown.
    fn keep(&mut self, index: usize, shown: Shown, consumed: usize, rest: Rest, unseen: bool) {
        // Held back, that is: what is in the same turn is still read.
        let is_paused = self.slots[index].flags.has(Flags::NOT_READING);
        let extra = self.extras.get_mut(self.slots[index].extra);
        let held = extra.as_ref().map_or(0, |extra| extra.held);
        // Of a frame that the actor keeps part of itself, too, only what it has let go of.
        let consumed_any = consumed + held > rest.held;
        match shown {
            Shown::Buffer(len) if consumed == len && rest.is_nothing() => {
                let Some(extra) = extra else { return };
                extra.kept.clear();
                extra.need = 0;
                extra.held = 0;
                self.tidy(index);
            }
            Shown::Buffer(len) => {
                let now = self.call.now();
                let was = extra.map_or(0, |extra| extra.kept.len());
                let buffer = std::mem::take(&mut self.read_buf);
                let extra = self.extra(index, now);
                if was + held == 0 || consumed_any {
                    extra.input_since = now;
                    extra.paused_since = is_paused.then_some(now);
                }
                if unseen {
                    extra.kept.extend_from_slice(&buffer[was..len]);
                } else {
                    extra.kept.clear();
                    extra.kept.extend_from_slice(&buffer[consumed..len]);
                }
                extra.need = rest.need;
                extra.held = rest.held;
                self.read_buf = buffer;
                self.watch_input(index);
            }
            Shown::Kept => {
                if extra.is_none() && rest.is_nothing() {
                    return;
                }
                let now = self.call.now();
                let extra = self.extra(index, now);
                extra.kept.advance(consumed);
                extra.need = rest.need;
                extra.held = rest.held;
                if extra.kept.is_empty() {
                    // `advance` alone would hold on to the space of what was consumed.
                    extra.kept = bytes::BytesMut::new();
                }
                if extra.unread() == 0 {
                    self.tidy(index);
                } else if consumed_any {
                    extra.input_since = now;
                    extra.paused_since = is_paused.then_some(now);
                }
            }
        }
    }

    /// A connection may not have more kept for it than its budget, unless it is paused: then
    /// nothing is added.
    fn check_kept(&mut self, index: usize, paused: bool) {
        let slot = &self.slots[index];
        let Some(extra) = self.extras.get(slot.extra) else {
            return;
        };
        let limit = self.call.origins[usize::from(slot.origin)]
            .options
            .input_max;
        let len = extra.held + extra.kept.len().max(extra.need);
        if len > limit && !paused && !slot.flags.has(Flags::NOT_READING | Flags::CLOSING) {
            self.close(index, CloseReason::InputTooLong { len, limit });
        }
    }

    /// A lingering close: what still arrives is thrown away, within its limit.
    fn discard(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(socket) = &slot.socket else { return };
        match socket.recv(&mut self.read_buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(received) if received > 0 => {
                let left = self.extras.get_mut(slot.extra).map_or(0, |extra| {
                    extra.linger_left = extra.linger_left.saturating_sub(received);
                    extra.linger_left
                });
                if left == 0 {
                    self.free(index);
                }
            }
            _ => self.free(index),
        }
    }
}

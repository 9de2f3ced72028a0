//! The output that sockets have refused, counted: for each connection, so that other threads may
//! know ([`Addr::queued`](crate::Addr::queued)), and in all, against the poller's budget.
//!
//! Only a socket that refuses bytes comes here. What a turn has written and not yet tried to send
//! is bounded by each connection's high watermark.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use crate::actor::CloseReason;
use crate::flags::Flags;
use crate::hosts::Hosts;
use crate::registry::ActorKey;

/// Bytes that may wait on one poller unless its builder says otherwise: of 256 connections at their
/// own default budget.
pub(crate) const OUTPUT_BUDGET: usize = 1 << 30;

/// Where the budget is passed, room is made for so many parts of it at once: to find those with the
/// most costs a look at each that waits.
const RELIEF: usize = 8;

impl Hosts {
    /// The socket of this connection has refused what waits for it now. Where that passes the
    /// budget, those with the most of it pay: it may be this one.
    #[cold]
    pub(super) fn count_output(&mut self, key: ActorKey) {
        let Some(index) = self.find(key) else { return };
        self.set_counted(index, true);
        if self.waiting > self.output_budget {
            self.relieve();
        }
    }

    /// Nothing waits any more, or nobody for it.
    #[cold]
    pub(super) fn uncount_output(&mut self, index: usize) {
        let extra = self.extras.get(self.slots[index].extra);
        if extra.is_some_and(|extra| extra.counted > 0) {
            self.set_counted(index, false);
        }
    }

    /// Counts what waits for this connection, or nothing. A part of a file is told to others, and
    /// counts for little: it takes no memory.
    #[inline(never)]
    pub(super) fn set_counted(&mut self, index: usize, waits: bool) {
        let key = self.key(index);
        let Some(extra) = self.extras.get_mut(self.slots[index].extra) else {
            return;
        };
        let (queued, cost) = match waits {
            true => (extra.queued(), extra.cost()),
            false => (0, 0),
        };
        extra.owner = index as u32;
        self.waiting = self.waiting - extra.counted + cost;
        extra.counted = cost;
        let door = &self.call.registry.door;
        door.presence
            .set_queued(key.index(), key.generation(), queued);
        door.waiting.store(self.waiting, Ordering::Relaxed);
    }

    /// Ends the connections for which the most waits, or drops their oldest writes where they
    /// may be dropped, until there is room again.
    ///
    /// So a reader that takes what it is sent never pays for one that does not, however many of
    /// these there are.
    #[cold]
    fn relieve(&mut self) {
        let waiting = self.extras.iter().filter(|extra| extra.counted > 0);
        let mut holders: Vec<(usize, u32)> =
            waiting.map(|extra| (extra.counted, extra.owner)).collect();
        holders.sort_unstable_by_key(|(queued, owner)| (Reverse(*queued), *owner));
        for (at, (queued, owner)) in holders.iter().enumerate() {
            if self.is_relieved() {
                return;
            }
            let next = holders
                .get(at + 1)
                .map_or(usize::MAX, |(queued, _)| *queued);
            self.crowd_out(*owner as usize, *queued, next);
        }
    }

    fn is_relieved(&self) -> bool {
        self.waiting <= self.output_budget - self.output_budget / RELIEF
    }

    /// Drops what may be dropped for this connection, or ends it where that makes not enough room and
    /// it then still has more than the `next` has.
    fn crowd_out(&mut self, index: usize, queued: usize, next: usize) {
        // One that was adopted with its output in this very turn is told its end behind `opened`, so
        // later.
        if self.slots[index].flags.has(Flags::OPENING) {
            return;
        }
        if self.drop_old_writes(index) {
            let extra = self.extras.get(self.slots[index].extra);
            if self.is_relieved() || extra.is_none_or(|extra| extra.counted <= next) {
                return;
            }
        }
        let limit = self.output_budget;
        let reason = match self.take_reason(index) {
            Some(reason @ CloseReason::Error(_)) => reason,
            _ => CloseReason::OutputBudget { queued, limit },
        };
        debug_assert!(!self.slots[index].flags.has(Flags::LINGERING));
        self.end(index, reason);
    }
}

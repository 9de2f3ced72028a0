//! Connections that have just been accepted, and to and from which nothing has gone yet.
//!
//! All have the same time for it, so they wait in a queue, twelve bytes each, and not in the heap
//! of timers; nothing has to be done when the first byte comes but to clear a flag.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::actor::CloseReason;
use crate::flags::Flags;
use crate::hosts::Hosts;
use crate::registry::ActorKey;

/// The part of its time by which a connection may be looked at late, so that one look serves many:
/// of a minute, a second.
const LATE_BY: u32 = 64;

/// What is counted.
const SHORTEST: Duration = Duration::from_millis(1);

/// Milliseconds in 31 bits, about.
const LONGEST: Duration = Duration::from_secs(20 * 24 * 3600);

/// Room below which a queue is not made smaller.
const ROOM_KEPT: usize = 1024;

#[derive(Default)]
pub(super) struct Silent {
    /// One for each time that an origin gives: within it the first to come is the first to be due.
    queues: Vec<Queue>,
    /// When there is something to look at.
    next: Option<Instant>,
}

struct Queue {
    after: Duration,
    waiting: VecDeque<Entry>,
    /// With more entries than this those who have spoken, or gone, are taken out of it.
    room: usize,
}

/// Four bytes where a key and an instant would take 24 between them.
#[derive(Clone, Copy)]
struct Entry {
    index: u32,
    generation: u32,
    /// Milliseconds since the poller's start, wrapping as [`Hosts::active_ms`] does.
    since_ms: u32,
}

impl Entry {
    fn key(self) -> ActorKey {
        ActorKey::new(self.index, self.generation)
    }
}

impl Hosts {
    /// Begins the time for the first byte, if the connection has one.
    pub(super) fn watch_silence(&mut self, index: usize) {
        let slot = &self.slots[index];
        let options = &self.call.origins[usize::from(slot.origin)].options;
        // Under TLS the first bytes may have come with the end of the handshake, and wait to be shown.
        let Some(after) = options
            .first_bytes_timeout
            .filter(|_| !slot.flags.has(Flags::SHOW_INPUT))
        else {
            return;
        };
        let after = after.max(SHORTEST);
        // It wraps, as differences do; who gives so long gives for ever.
        if after > LONGEST {
            return;
        }
        // Never too early for what is cut off here.
        let since_ms = self.stamp().wrapping_add(1);
        let now = self.call.now();
        let slot = &mut self.slots[index];
        slot.flags.set(Flags::SILENT);
        let queues = &mut self.silent.queues;
        let place = queues.iter().position(|queue| queue.after == after);
        let place = place.unwrap_or_else(|| {
            queues.push(Queue {
                after,
                waiting: VecDeque::new(),
                room: ROOM_KEPT,
            });
            queues.len() - 1
        });
        let queue = &mut queues[place];
        queue.waiting.push_back(Entry {
            index: index as u32,
            generation: slot.generation,
            since_ms,
        });
        if queue.waiting.len() > queue.room {
            self.thin_out(place);
        }
        let due = crate::timers::deadline_after(now, after.saturating_add(after / LATE_BY));
        if self.silent.next.is_none_or(|next| due < next) {
            self.silent.next = Some(due);
        }
    }

    /// Leaves in a queue who is silent, so that it grows with those and not with all that come and go
    /// behind one of them. As seldom as the queue doubles: a step or two for each that comes.
    #[cold]
    fn thin_out(&mut self, place: usize) {
        let mut waiting = std::mem::take(&mut self.silent.queues[place].waiting);
        waiting.retain(|entry| self.has(entry.key(), Flags::SILENT));
        let queue = &mut self.silent.queues[place];
        queue.room = ROOM_KEPT.max(2 * waiting.len());
        queue.waiting = waiting;
    }

    /// When a connection may have been silent for too long.
    #[inline]
    pub(crate) fn next_silence(&self) -> Option<Instant> {
        self.silent.next
    }

    /// Forgets who has spoken, as far as nobody silent stands in front of them: where clients speak
    /// as soon as they are accepted there is nothing to wait for, and the clock is not read for it.
    #[inline]
    pub(crate) fn forget_spoken(&mut self) {
        if self.silent.next.is_some() {
            self.forget_front();
        }
    }

    fn forget_front(&mut self) {
        let mut is_any = false;
        for at in 0..self.silent.queues.len() {
            while let Some(entry) = self.silent.queues[at].waiting.front() {
                if self.has(entry.key(), Flags::SILENT) {
                    is_any = true;
                    break;
                }
                self.silent.queues[at].waiting.pop_front();
            }
        }
        if !is_any {
            self.silent.next = None;
            self.silent.queues.retain_mut(|queue| {
                if queue.waiting.capacity() > ROOM_KEPT {
                    queue.waiting = VecDeque::new();
                }
                queue.waiting.capacity() > 0
            });
        }
    }

    /// Ends those, up to `most`, that have been silent for too long.
    pub(crate) fn end_silent(&mut self, now: Instant, most: usize) {
        if self.silent.next.is_none_or(|next| now < next) {
            return;
        }
        let now_ms = self.stamp();
        let mut left = most;
        let mut next: Option<Instant> = None;
        let mut queues = std::mem::take(&mut self.silent.queues);
        queues.retain_mut(|queue| {
            while let Some(&entry) = queue.waiting.front() {
                let key = entry.key();
                let since = now_ms.wrapping_sub(entry.since_ms).cast_signed().max(0);
                let waited = Duration::from_millis(u64::from(since.unsigned_abs()));
                if !self.has(key, Flags::SILENT) || self.has(key, Flags::CLOSING) {
                    // It has spoken, or gone, or is about to.
                } else if waited < queue.after {
                    let late = queue.after / LATE_BY;
                    let due = now + (queue.after - waited) + late;
                    next = Some(next.map_or(due, |next| next.min(due)));
                    break;
                } else if self.has(key, Flags::NOT_READING) {
                    // Who knows what it has said. Its time begins anew, behind all the others'.
                    let since_ms = now_ms.wrapping_add(1);
                    queue.waiting.push_back(Entry { since_ms, ..entry });
                } else if left == 0 {
                    next = Some(now);
                    break;
                } else if let Some(index) = self.find(key) {
                    left -= 1;
                    self.end(index, CloseReason::Silent(queue.after));
                }
                queue.waiting.pop_front();
            }
            if queue.waiting.capacity() > ROOM_KEPT.max(4 * queue.waiting.len()) {
                queue.waiting.shrink_to(2 * queue.waiting.len());
            }
            !queue.waiting.is_empty()
        });
        // An end calls actors, and those may bring connections, though none that is accepted.
        queues.append(&mut self.silent.queues);
        self.silent.queues = queues;
        self.silent.next = next;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hosts::tests::{adopt, hosts, origin};

    #[test]
    fn those_who_have_gone_take_no_room_behind_one_who_stays_silent() {
        let mut hosts = hosts(1);
        let origin = Arc::new(origin());
        for _ in 0..10 * ROOM_KEPT {
            let _wire = adopt(&mut hosts, &origin);
            hosts.end(1, CloseReason::Finished);
            hosts.count_freed();
            hosts.forget_spoken();
        }
        let [queue] = &hosts.silent.queues[..] else {
            panic!("one time, one queue");
        };
        assert!(queue.waiting.len() <= ROOM_KEPT + 1);
        assert!(queue.waiting.capacity() <= 2 * ROOM_KEPT);
        assert_eq!(queue.waiting[0].index, 0, "who came first is still there");
    }
}

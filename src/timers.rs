//! The pending timers of one poller.
//!
//! A 4-ary heap by deadline in which every timer knows its place, so that a cancelled timer leaves
//! at once: nothing stale is kept, memory follows the live timers, and the next deadline is exact
//! and lies at the root. Four children rather than two halve the depth, and with it the cache
//! misses that are the cost of a large heap. A heap that leaves cancelled timers in place re-arms
//! faster, but has to clear them out now and then, which stops the poller for 50 ms at a million
//! timers; a wheel rounds deadlines, and wakes the poller for nothing. `benches/timers` has the
//! rivals and their times.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, Instant};

/// Children of a node of the heap.
const ARITY: usize = 4;

/// The end of a list, and the place of what is in none.
const NONE: u32 = u32::MAX;

/// Spare room below which a vector is not shrunk: giving back less is not worth an allocator call.
const SPARE_MIN: usize = 1024;

/// Names one timer of one poller, to cancel it.
///
/// Generational: once the timer has fired for the last time or was cancelled, its key finds
/// nothing, also after its slot is used again: it could name another timer of its actor only if
/// that one was set a multiple of 2^32 - 1 timers later, in the same slot. It is of use to the
/// actor that set the timer alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerKey {
    slot: u32,
    generation: NonZeroU32,
}

impl TimerKey {
    /// Of no timer: with it an adapter is told, by `timer`, that it was given something from outside.
    /// So the word reaches it through whatever stands around it, as all adapters pass on the keys
    /// that are not their own.
    pub(crate) const NUDGE: TimerKey = TimerKey {
        slot: NONE,
        generation: NonZeroU32::MAX,
    };
}

/// A timer that has come due.
#[derive(Debug)]
pub(crate) struct Due<T> {
    /// Its key: still good if it is periodic, dead otherwise.
    pub(crate) key: TimerKey,
    /// Who set it.
    pub(crate) owner: u32,
    /// What it was set with.
    pub(crate) what: T,
}

/// The pending timers of one poller, each with an owner and a `what`.
///
/// In each turn: `begin_turn`, then `pop_due` as long as it gives something or as the budget lasts,
/// and `next_deadline` before sleeping. Setting, cancelling and popping cost O(log n), the next
/// deadline O(1).
#[derive(Debug)]
pub(crate) struct Timers<T> {
    /// Invariant: no node is before its parent; `places[heap[i].slot] == i` for each i.
    heap: Vec<Node>,
    /// By slot: the timer's place in the heap. Apart from the slots, because sifting writes a place
    /// at each level and finds it in the cache more often in 4 bytes than in a whole slot.
    places: Vec<u32>,
    /// What is kept of each timer. The last slot is never free: see `release`.
    slots: Vec<Slot<T>>,
    /// The ends of the list of free slots.
    free_first: u32,
    free_last: u32,
    /// By owner: its timer set last, or NONE. As long as the largest owner that ever set a timer.
    heads: Vec<u32>,
    /// Timers set so far, periodic ones once for each period: breaks ties between equal deadlines.
    order: u64,
    /// The generation given out last.
    generation: NonZeroU32,
    /// Where the clock stood at the start. Deadlines are kept as nanoseconds since then: half the
    /// size of an Instant, compared in one step, and good for 584 years.
    base: Instant,
    /// The instant of this turn, up to which timers are due.
    turn: u64,
}

/// One place in the heap. Holds all that is compared, so that sifting reads nothing else.
#[derive(Clone, Copy, Debug)]
struct Node {
    deadline: u64,
    order: u64,
    slot: u32,
}

impl Node {
    /// One number, so that the comparison has no branch to mispredict.
    fn rank(&self) -> u128 {
        u128::from(self.deadline) << 64 | u128::from(self.order)
    }
}

/// One timer, or a free slot.
#[derive(Debug)]
struct Slot<T> {
    /// That of the timer's key; unused in a free slot.
    generation: NonZeroU32,
    owner: u32,
    /// Neighbours among the owner's timers; in a free slot, among the free ones.
    prev: u32,
    next: u32,
    /// In nanoseconds.
    period: Option<NonZeroU64>,
    /// None: the slot is free.
    what: Option<T>,
}

impl<T: Clone> Timers<T> {
    /// No timers; allocates nothing before the first `set`. `now` is the start of time: a deadline
    /// before it counts as it.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            heap: Vec::new(),
            places: Vec::new(),
            slots: Vec::new(),
            free_first: NONE,
            free_last: NONE,
            heads: Vec::new(),
            order: 0,
            generation: NonZeroU32::MAX,
            base: now,
            turn: 0,
        }
    }

    /// The number of pending timers.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// How many were set so far.
    #[cfg(test)]
    pub(crate) fn set_so_far(&self) -> u64 {
        self.order
    }

    /// Sets a timer that fires at `deadline` and then, with a period, at each
    /// `deadline + k * period`.
    ///
    /// It is driven by its deadlines, so it does not drift; ticks that were missed are skipped, not
    /// made up. A deadline that is not after the current turn's instant counts as the first instant
    /// after it: the timer fires in the next turn at the earliest, and its period counts from
    /// there.
    ///
    /// # Panics
    ///
    /// If the period is zero.
    pub(crate) fn set(
        &mut self,
        owner: u32,
        deadline: Instant,
        period: Option<Duration>,
        what: T,
    ) -> TimerKey {
        let period = period.map(|period| {
            NonZeroU64::new(as_nanos(period)).expect("the period of a timer must not be zero")
        });
        let deadline = self.since_base(deadline).max(self.turn.saturating_add(1));
        self.generation = self.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let slot = self.occupy(Slot {
            generation: self.generation,
            owner,
            prev: NONE,
            next: NONE,
            period,
            what: Some(what),
        });
        self.link(slot, owner);
        let order = self.next_order();
        self.heap.push(Node {
            deadline,
            order,
            slot,
        });
        self.sift_up(self.heap.len() - 1);
        TimerKey {
            slot,
            generation: self.generation,
        }
    }

    /// Cancels a timer: it does not fire again. None if it is no pending timer of this owner.
    pub(crate) fn cancel(&mut self, key: TimerKey, owner: u32) -> Option<T> {
        let slot = self.slots.get(key.slot as usize)?;
        if slot.generation != key.generation || slot.owner != owner || slot.what.is_none() {
            return None;
        }
        self.remove(key.slot)
    }

    /// Cancels all timers of an owner, at a cost in proportion to their number.
    pub(crate) fn cancel_all(&mut self, owner: u32) {
        while let Some(&slot) = self.heads.get(owner as usize)
            && slot != NONE
        {
            self.remove(slot);
        }
    }

    /// Cancels those timers of an owner of which `is` says so.
    pub(crate) fn cancel_where(&mut self, owner: u32, is: impl Fn(&T) -> bool) {
        let mut at = self.heads.get(owner as usize).copied().unwrap_or(NONE);
        while at != NONE {
            let slot = &self.slots[at as usize];
            let next = slot.next;
            if slot.what.as_ref().is_some_and(&is) {
                self.remove(at);
            }
            at = next;
        }
    }

    /// The earliest deadline, for the poller's wait.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let first = self.heap.first()?;
        Some(deadline_after(
            self.base,
            Duration::from_nanos(first.deadline),
        ))
    }

    /// Begins a turn: what is due at `now` can be popped, and what is set from here on is not due
    /// before the next turn, so that a timer that sets itself again at once does not keep the
    /// poller.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.turn = self.since_base(now);
    }

    /// The next timer due in this turn, the earliest deadline first, equal ones in the order of
    /// `set`.
    #[inline(always)]
    pub(crate) fn pop_due(&mut self) -> Option<Due<T>> {
        let node = *self.heap.first()?;
        if node.deadline > self.turn {
            return None;
        }
        let slot = &self.slots[node.slot as usize];
        let (generation, owner) = (slot.generation, slot.owner);
        let what = if let Some(period) = slot.period {
            let what = slot.what.clone()?;
            let missed = (self.turn - node.deadline) / period;
            self.heap[0].deadline = node
                .deadline
                .saturating_add(period.get().saturating_mul(missed + 1));
            self.heap[0].order = self.next_order();
            self.sift_down(0);
            what
        } else {
            self.remove(node.slot)?
        };
        let key = TimerKey {
            slot: node.slot,
            generation,
        };
        Some(Due { key, owner, what })
    }

    fn since_base(&self, instant: Instant) -> u64 {
        as_nanos(instant.saturating_duration_since(self.base))
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Takes a timer out of the heap, its owner's list and its slot.
    fn remove(&mut self, slot: u32) -> Option<T> {
        let place = self.places[slot as usize] as usize;
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            // The node from the end may belong on either side of where it has come to.
            self.sift_up(place);
            self.sift_down(place);
        }
        shrink(&mut self.heap);
        self.unlink(slot);
        self.release(slot)
    }

    /// Moves a node up to where its parent is before it.
    fn sift_up(&mut self, mut place: usize) {
        let node = self.heap[place];
        while place > 0 {
            let parent = self.heap[(place - 1) / ARITY];
            if parent.rank() < node.rank() {
                break;
            }
            self.put(place, parent);
            place = (place - 1) / ARITY;
        }
        self.put(place, node);
    }

    /// Moves a node down to where it is before its children.
    fn sift_down(&mut self, mut place: usize) {
        let node = self.heap[place];
        loop {
            let first = place * ARITY + 1;
            let children = first..self.heap.len().min(first + ARITY);
            let Some(child) = children.min_by_key(|&child| self.heap[child].rank()) else {
                break;
            };
            let least = self.heap[child];
            if node.rank() < least.rank() {
                break;
            }
            self.put(place, least);
            place = child;
        }
        self.put(place, node);
    }

    fn put(&mut self, place: usize, node: Node) {
        self.heap[place] = node;
        self.places[node.slot as usize] = place as u32;
    }

    /// Puts a timer first in its owner's list.
    fn link(&mut self, slot: u32, owner: u32) {
        let owner = owner as usize;
        if self.heads.len() <= owner {
            self.heads.resize(owner + 1, NONE);
        }
        let next = std::mem::replace(&mut self.heads[owner], slot);
        self.slots[slot as usize].next = next;
        if next != NONE {
            self.slots[next as usize].prev = slot;
        }
    }

    /// Takes a timer out of its owner's list.
    fn unlink(&mut self, slot: u32) {
        let Slot {
            owner, prev, next, ..
        } = self.slots[slot as usize];
        match prev {
            NONE => self.heads[owner as usize] = next,
            prev => self.slots[prev as usize].next = next,
        }
        if next != NONE {
            self.slots[next as usize].prev = prev;
        }
    }

    /// Puts a timer in a free slot, or in a new one.
    fn occupy(&mut self, timer: Slot<T>) -> u32 {
        let slot = self.free_first;
        if slot == NONE {
            // NONE itself is not an index.
            assert!(
                self.slots.len() < NONE as usize,
                "a poller has 2^32 - 1 timers at most"
            );
            self.slots.push(timer);
            self.places.push(NONE);
            return (self.slots.len() - 1) as u32;
        }
        self.take_free(slot);
        self.slots[slot as usize] = timer;
        slot
    }

    /// Frees a slot, and gives back those at the end.
    ///
    /// Slots far up are used again last, and after each giving back the lowest first: so the timers
    /// that come and go after a burst move down, and the end becomes free.
    fn release(&mut self, slot: u32) -> Option<T> {
        let what = self.slots[slot as usize].what.take();
        if (slot as usize) < self.slots.len() / 8 {
            self.put_free(NONE, slot, self.free_first);
        } else {
            self.put_free(self.free_last, slot, NONE);
        }
        // Each round is paid for by the push that made the slot.
        while self.slots.last().is_some_and(|slot| slot.what.is_none()) {
            self.take_free((self.slots.len() - 1) as u32);
            self.slots.pop();
            self.places.pop();
        }
        shrink(&mut self.places);
        if shrink(&mut self.slots) {
            (self.free_first, self.free_last) = (NONE, NONE);
            for slot in (0..self.slots.len()).rev() {
                if self.slots[slot].what.is_none() {
                    self.put_free(NONE, slot as u32, self.free_first);
                }
            }
        }
        what
    }

    /// Puts a slot in the list of free ones, at either end of it.
    fn put_free(&mut self, prev: u32, slot: u32, next: u32) {
        let freed = &mut self.slots[slot as usize];
        (freed.prev, freed.next) = (prev, next);
        match prev {
            NONE => self.free_first = slot,
            prev => self.slots[prev as usize].next = slot,
        }
        match next {
            NONE => self.free_last = slot,
            next => self.slots[next as usize].prev = slot,
        }
    }

    /// Takes a slot out of the list of free ones.
    fn take_free(&mut self, slot: u32) {
        let Slot { prev, next, .. } = self.slots[slot as usize];
        match prev {
            NONE => self.free_first = next,
            prev => self.slots[prev as usize].next = next,
        }
        match next {
            NONE => self.free_last = prev,
            next => self.slots[next as usize].prev = prev,
        }
    }
}

/// Gives room back when three quarters are unused, and tells so; keeps as much as is used. So far
/// from the next growth and the next shrinking that the cost is O(1) amortised, a pass over what is
/// left included.
fn shrink<E>(vec: &mut Vec<E>) -> bool {
    let is_large = vec.capacity() > SPARE_MIN && vec.len() < vec.capacity() / 4;
    if is_large {
        vec.shrink_to(SPARE_MIN.max(2 * vec.len()));
    }
    is_large
}

/// `now + delay`; where that is past the range of the platform's clock, 30 years from now, which a
/// delay cannot be told from: no poller waits that long in one piece.
pub(crate) fn deadline_after(now: Instant, delay: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    now.checked_add(delay).unwrap_or_else(|| now + FAR)
}

/// 584 years at most.
fn as_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

// The path holds where the benchmarks include this file, too.
#[cfg(test)]
#[path = "timers/tests.rs"]
mod tests;

//! The structures that were weighed for the timers, each as small as it can be.
//!
//! All keep a timer's data in a slotmap, of the size that the real one has, so that only the order
//! is compared.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use slotmap::{DefaultKey as Key, Key as _, SlotMap};

/// What the poller asks of its timers.
pub trait Rival {
    type Key: Copy;
    fn new() -> Self;
    fn set(&mut self, deadline: Instant) -> Self::Key;
    fn cancel(&mut self, key: Self::Key) -> bool;
    fn pop_due(&mut self, now: Instant) -> Option<Self::Key>;
    fn next_deadline(&mut self) -> Option<Instant>;
}

/// The owner, its list, the period and the payload of a timer.
type Payload = [u64; 6];

/// std's heap; a cancelled timer stays in it until it surfaces or until half of it is stale.
pub struct LazyHeap {
    heap: BinaryHeap<Reverse<(Instant, u64, Key)>>,
    timers: SlotMap<Key, Payload>,
    order: u64,
}

impl Rival for LazyHeap {
    type Key = Key;

    fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            timers: SlotMap::new(),
            order: 0,
        }
    }

    fn set(&mut self, deadline: Instant) -> Key {
        let key = self.timers.insert([0; 6]);
        self.order += 1;
        self.heap.push(Reverse((deadline, self.order, key)));
        key
    }

    fn cancel(&mut self, key: Key) -> bool {
        let found = self.timers.remove(key).is_some();
        if self.heap.len() > 2 * self.timers.len() + 64 {
            self.heap
                .retain(|Reverse((_, _, key))| self.timers.contains_key(*key));
        }
        found
    }

    fn pop_due(&mut self, now: Instant) -> Option<Key> {
        if self.next_deadline()? > now {
            return None;
        }
        let Reverse((_, _, key)) = self.heap.pop()?;
        self.timers.remove(key).map(|_| key)
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        while let Some(Reverse((deadline, _, key))) = self.heap.peek() {
            if self.timers.contains_key(*key) {
                return Some(*deadline);
            }
            self.heap.pop();
        }
        None
    }
}

/// An ordered map.
pub struct Tree {
    tree: BTreeMap<(Instant, u64), Key>,
    timers: SlotMap<Key, (Instant, u64, Payload)>,
    order: u64,
}

impl Rival for Tree {
    type Key = Key;

    fn new() -> Self {
        Self {
            tree: BTreeMap::new(),
            timers: SlotMap::new(),
            order: 0,
        }
    }

    fn set(&mut self, deadline: Instant) -> Key {
        self.order += 1;
        let key = self.timers.insert((deadline, self.order, [0; 6]));
        self.tree.insert((deadline, self.order), key);
        key
    }

    fn cancel(&mut self, key: Key) -> bool {
        let Some((deadline, order, _)) = self.timers.remove(key) else {
            return false;
        };
        self.tree.remove(&(deadline, order)).is_some()
    }

    fn pop_due(&mut self, now: Instant) -> Option<Key> {
        let first = self.tree.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let key = first.remove();
        self.timers.remove(key).map(|_| key)
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        self.tree
            .first_key_value()
            .map(|((deadline, _), _)| *deadline)
    }
}

const LEVELS: usize = 6;
const SLOTS: usize = 64;
/// The list of what has come due, after those of the slots.
const DUE: usize = LEVELS * SLOTS;

/// A hierarchical wheel, 6 levels of 64 slots, the lowest of 1 ms, as in tokio. Its next deadline
/// is the start of a slot, not exact: far timers wake the poller to move them down, at most once
/// per level.
pub struct Wheel {
    base: Instant,
    elapsed: u64,
    occupied: [u64; LEVELS],
    heads: [Key; DUE + 1],
    timers: SlotMap<Key, Spoke>,
}

struct Spoke {
    tick: u64,
    list: usize,
    prev: Key,
    next: Key,
    _payload: Payload,
}

impl Wheel {
    fn link(&mut self, key: Key) {
        let spoke = &mut self.timers[key];
        spoke.list = if spoke.tick <= self.elapsed {
            DUE
        } else {
            let differing = (self.elapsed ^ spoke.tick) | (SLOTS as u64 - 1);
            let level = ((63 - differing.leading_zeros() as usize) / 6).min(LEVELS - 1);
            let slot = (spoke.tick >> (6 * level)) as usize % SLOTS;
            self.occupied[level] |= 1 << slot;
            level * SLOTS + slot
        };
        spoke.prev = Key::null();
        spoke.next = std::mem::replace(&mut self.heads[spoke.list], key);
        let next = spoke.next;
        if let Some(next) = self.timers.get_mut(next) {
            next.prev = key;
        }
    }

    fn unlink(&mut self, key: Key) -> bool {
        let Some(Spoke {
            list, prev, next, ..
        }) = self.timers.remove(key)
        else {
            return false;
        };
        if let Some(prev) = self.timers.get_mut(prev) {
            prev.next = next;
        } else {
            self.heads[list] = next;
            if next.is_null() && list != DUE {
                self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            }
        }
        if let Some(next) = self.timers.get_mut(next) {
            next.prev = prev;
        }
        true
    }

    /// The first occupied slot: its list, and the tick at which it starts.
    fn first_slot(&self) -> Option<(usize, u64)> {
        let level = (0..LEVELS).find(|&level| self.occupied[level] != 0)?;
        let now = (self.elapsed >> (6 * level)) as usize % SLOTS;
        let ahead = self.occupied[level]
            .rotate_right(now as u32)
            .trailing_zeros();
        let slot = (now + ahead as usize) % SLOTS;
        let start = ((self.elapsed >> (6 * level)) + u64::from(ahead)) << (6 * level);
        Some((level * SLOTS + slot, start))
    }
}

impl Rival for Wheel {
    type Key = Key;

    fn new() -> Self {
        let heads = [Key::null(); DUE + 1];
        Self {
            base: crate::base(),
            elapsed: 0,
            occupied: [0; LEVELS],
            heads,
            timers: SlotMap::new(),
        }
    }

    fn set(&mut self, deadline: Instant) -> Key {
        let tick = (deadline - self.base).as_nanos().div_ceil(1_000_000) as u64;
        let null = Key::null();
        let key = self.timers.insert(Spoke {
            tick,
            list: DUE,
            prev: null,
            next: null,
            _payload: [0; 6],
        });
        self.link(key);
        key
    }

    fn cancel(&mut self, key: Key) -> bool {
        self.unlink(key)
    }

    fn pop_due(&mut self, now: Instant) -> Option<Key> {
        let now = (now - self.base).as_millis() as u64;
        loop {
            let key = self.heads[DUE];
            if !key.is_null() {
                self.unlink(key);
                return Some(key);
            }
            let Some((list, start)) = self.first_slot().filter(|(_, start)| *start <= now) else {
                self.elapsed = now;
                return None;
            };
            self.elapsed = start;
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            let mut key = std::mem::replace(&mut self.heads[list], Key::null());
            while let Some(spoke) = self.timers.get(key) {
                let next = spoke.next;
                self.link(key);
                key = next;
            }
        }
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let tick = if self.heads[DUE].is_null() {
            self.first_slot()?.1
        } else {
            self.elapsed
        };
        Some(self.base + Duration::from_millis(tick))
    }
}

//! Which actors are there, and how much of a mailbox each has taken, for any thread to read without
//! a lock.
//!
//! One word for each slot of the poller's slot map: the generation of the actor in it (high 32
//! bits, 0 for none) and how many counted entries are on their way to it (low 32 bits). Written by
//! - `enter` and `leave`, by whoever owns the slot at that moment: a swap, since what others may
//!   have added to a word that ends is not worth keeping;
//! - `hold` and `unhold`, by senders and by the poller: compare-and-swap with the generation in the
//!   compared value. A sender that was preempted while the slot got its next actor finds another
//!   generation and changes nothing. Generations of one slot come back only after 2^31 actors.
//!
//! The share. The entries that one target holds in a congested mailbox are limited to the number of
//! places still free (the dynamic threshold of Choudhury and Hahne, "Dynamic queue length
//! thresholds for shared-memory packet switches", 1998): one flooded actor alone gets half of the
//! mailbox, and the fuller it is, the less anyone may add to what he holds.
//!
//! Ordering: read-modify-write only, so that each word has one order of changes, and Relaxed
//! throughout. The words guard no data: the poller's slot map decides who gets an entry, and an
//! address reaches a thread after its `enter` by whatever brought it there.

use super::sync::{AtomicU64, OnceLock, Ordering};

/// Words in the first chunk; each further one has twice as many as the one before.
const FIRST_CHUNK_LEN: u64 = 32;
/// Enough for 2^32 - 32 slots.
const CHUNK_COUNT: usize = 27;

/// The answer of [`Presence::hold`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// One more entry is counted for this actor.
    Held,
    /// The actor has its share already.
    Full,
    /// The actor is not there any more.
    Gone,
}

/// The actors of one poller. 8 bytes for each slot ever used, at most twice that with the unused
/// end of the last chunk.
#[derive(Debug, Default)]
pub struct Presence {
    /// Chunks are made when first entered and never move, so that readers need no lock.
    chunks: [OnceLock<Box<[AtomicU64]>>; CHUNK_COUNT],
}

impl Presence {
    /// Nobody is there.
    pub fn new() -> Self {
        Self::default()
    }

    /// An actor owns this slot from now on. By the slot's owner alone.
    ///
    /// # Panics
    ///
    /// When the index is one of the last 32 that a `u32` can be.
    pub fn enter(&self, index: u32, generation: u32) {
        debug_assert_ne!(generation, 0, "0 means that nobody is there");
        let (chunk, offset) = locate(index);
        let words = self.chunks[chunk].get_or_init(|| {
            let len = FIRST_CHUNK_LEN << chunk;
            (0..len).map(|_| AtomicU64::new(0)).collect()
        });
        let before = words[offset].swap(pack(generation, 0), Ordering::Relaxed);
        debug_assert_eq!(unpack(before).0, 0, "somebody is there");
    }

    /// The actor is gone, and with it the count of what is still on its way. By the slot's owner
    /// alone.
    pub fn leave(&self, index: u32, generation: u32) {
        if let Some(word) = self.word(index) {
            let before = word.swap(pack(0, 0), Ordering::Relaxed);
            debug_assert_eq!(unpack(before).0, generation, "not the one who is there");
        }
    }

    /// Whether the actor is there. A hint: it may be gone when the answer arrives.
    #[inline]
    pub fn is_here(&self, index: u32, generation: u32) -> bool {
        self.word(index)
            .is_some_and(|word| unpack(word.load(Ordering::Relaxed)).0 == generation)
    }

    /// Counts one entry for this actor, unless `limit` are counted already.
    pub fn hold(&self, index: u32, generation: u32, limit: u32) -> Hold {
        let Some(word) = self.word(index) else {
            return Hold::Gone;
        };
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let (current, held) = unpack(seen);
            if current != generation {
                return Hold::Gone;
            }
            if held >= limit {
                return Hold::Full;
            }
            match compare_exchange(word, seen, pack(generation, held + 1)) {
                Ok(()) => return Hold::Held,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes back `count` times a [`hold`](Presence::hold), if the actor that they were for is
    /// still there.
    pub fn unhold(&self, index: u32, generation: u32, count: u32) {
        let Some(word) = self.word(index) else {
            return;
        };
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let (current, held) = unpack(seen);
            if current != generation {
                return;
            }
            debug_assert!(held >= count, "an entry that was never counted");
            match compare_exchange(word, seen, pack(generation, held.saturating_sub(count))) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// The word of a slot, if any actor ever came near it.
    #[inline]
    fn word(&self, index: u32) -> Option<&AtomicU64> {
        let (chunk, offset) = locate(index);
        self.chunks.get(chunk)?.get()?.get(offset)
    }
}

/// Replaces `seen` by `new`, or says what is there by now.
fn compare_exchange(word: &AtomicU64, seen: u64, new: u64) -> Result<(), u64> {
    word.compare_exchange_weak(seen, new, Ordering::Relaxed, Ordering::Relaxed)
        .map(drop)
}

/// The chunk of an index, and the place in it. With the length of the first chunk added, the chunk
/// follows from the highest bit.
#[inline]
fn locate(index: u32) -> (usize, usize) {
    let place = u64::from(index) + FIRST_CHUNK_LEN;
    let chunk = place.ilog2() - FIRST_CHUNK_LEN.ilog2();
    (
        chunk as usize,
        (place - (FIRST_CHUNK_LEN << chunk)) as usize,
    )
}

fn pack(generation: u32, held: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(held)
}

#[inline]
fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_double_and_meet_without_gaps() {
        assert_eq!(locate(0), (0, 0));
        for chunk in 0..CHUNK_COUNT {
            let first = (FIRST_CHUNK_LEN << chunk) - FIRST_CHUNK_LEN;
            let last = (FIRST_CHUNK_LEN << (chunk + 1)) - FIRST_CHUNK_LEN - 1;
            let len = FIRST_CHUNK_LEN << chunk;
            assert_eq!(locate(first as u32), (chunk, 0));
            assert_eq!(locate(last as u32), (chunk, len as usize - 1));
        }
    }

    #[test]
    fn an_index_that_nobody_entered_is_nobody() {
        let presence = Presence::new();
        for index in [0, 31, 32, 1 << 20, u32::MAX] {
            assert!(!presence.is_here(index, 1));
            assert_eq!(presence.hold(index, 1, 1), Hold::Gone);
            presence.unhold(index, 1, 1);
        }
        presence.leave(7, 1);
    }

    #[test]
    fn the_limit_is_per_actor_and_given_back() {
        let presence = Presence::new();
        presence.enter(40, 1);
        presence.enter(41, 1);
        assert_eq!(presence.hold(40, 1, 1), Hold::Held);
        assert_eq!(presence.hold(40, 1, 1), Hold::Full);
        assert_eq!(presence.hold(41, 1, 1), Hold::Held);
        presence.unhold(40, 1, 1);
        assert_eq!(presence.hold(40, 1, 1), Hold::Held);
        assert_eq!(presence.hold(40, 1, 0), Hold::Full);
    }

    #[test]
    fn a_stale_generation_changes_nothing() {
        let presence = Presence::new();
        presence.enter(0, 1);
        assert_eq!(presence.hold(0, 1, 9), Hold::Held);
        presence.leave(0, 1);
        assert_eq!(presence.hold(0, 1, 9), Hold::Gone);
        presence.enter(0, 3);
        assert_eq!(presence.hold(0, 3, 9), Hold::Held);
        presence.unhold(0, 1, 1);
        assert_eq!(presence.hold(0, 1, 9), Hold::Gone);
        assert!(presence.is_here(0, 3) && !presence.is_here(0, 1));
        assert_eq!(presence.hold(0, 3, 1), Hold::Full);
    }
}

//! Which actors are there, and how much of a crowded mailbox each has taken, for any thread to read
//! without a lock.
//!
//! A generation for each slot of the poller: odd while somebody is there, even while nobody is.
//! Written by `enter` and `leave` alone, by whoever owns the slot at that moment; an address
//! reaches a thread after its `enter` by whatever brought it there, so nobody sees a generation
//! from before his own.
//!
//! The share. The entries that one target holds in a congested mailbox are limited to the number of
//! places still free (the dynamic threshold of Choudhury and Hahne, "Dynamic queue length
//! thresholds for shared-memory packet switches", 1998): one flooded actor alone gets half of the
//! mailbox, and the fuller it is, the less anyone may add to what he holds.
//!
//! The counts stand apart from the generations, in words that are made when a mailbox is crowded
//! for the first time: a server that is never crowded pays four bytes for each slot. Each word
//! names the generation that its count is of. A `hold` that finds another one looks whether its own
//! actor is there:
//! - if so, the count is of one that has gone, however long ago, and this `hold` begins anew;
//! - if not, the sender was preempted while the slot got its next actor, and changes nothing.
//!
//! What waits for the socket of each actor stands in further words, made where a socket has refused
//! bytes for the first time: the generation, and how much, written by the actor's poller alone. A
//! reader takes the figure only under the generation that it asks for, in one load, so it is never
//! another actor's; and it asks for nothing else that would have to be in order with it.
//!
//! Ordering: the counts change by compare-and-swap only, so that each word has one order of
//! changes. These are Release and the looks that lead to them Acquire: who finds the count of the
//! next actor then also finds that his own has left, which came before it. All else is Relaxed, for
//! nothing here guards data: the poller's slots decide who gets an entry.

use super::sync::{AtomicU32, AtomicU64, OnceLock, Ordering};

/// Words in each chunk of the first octave; those of each further octave have twice as many.
const FIRST_CHUNK_LEN: u64 = 8;
/// Chunks in an octave: the unused end of the last chunk is at most a quarter of what is used.
const OCTAVE: u64 = 4;
/// Places of the first octave: indices are counted from here, so that octaves follow from the
/// highest bit.
const FIRST_PLACE: u64 = FIRST_CHUNK_LEN * OCTAVE;
/// Enough for 2^32 - 32 slots.
const CHUNK_COUNT: usize = 27 * OCTAVE as usize;

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

/// The actors of one poller. 4 bytes for each slot ever used, 8 more once a mailbox was crowded,
/// and 8 more once a socket near it refused bytes; at most a quarter more with the unused end of
/// the last chunk.
#[derive(Debug, Default)]
pub struct Presence {
    generations: Chunks<AtomicU32>,
    /// The generation in the high 32 bits, and how many entries are counted for it in the low ones.
    held: Chunks<AtomicU64>,
    /// Likewise, and how many bytes of output wait, or as many as the low bits can say.
    queued: Chunks<AtomicU64>,
}

impl Presence {
    /// Nobody is there.
    pub fn new() -> Self {
        Self::default()
    }

    /// An actor owns this slot from now on; returns its generation. By the slot's owner alone.
    ///
    /// # Panics
    ///
    /// When the index is one of the last 32 that a `u32` can be.
    pub fn enter(&self, index: u32) -> u32 {
        let word = self.generations.get_or_make(index);
        let generation = word.load(Ordering::Relaxed).wrapping_add(1);
        debug_assert_eq!(generation % 2, 1, "somebody is there");
        word.store(generation, Ordering::Relaxed);
        generation
    }

    /// The actor is gone, and with it the count of what is still on its way. By the slot's owner
    /// alone.
    pub fn leave(&self, index: u32, generation: u32) {
        if let Some(word) = self.generations.get(index) {
            debug_assert_eq!(
                word.load(Ordering::Relaxed),
                generation,
                "not the one who is there"
            );
            word.store(generation.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Whether the actor is there. A hint: it may be gone when the answer arrives.
    #[inline]
    pub fn is_here(&self, index: u32, generation: u32) -> bool {
        self.generations
            .get(index)
            .is_some_and(|word| word.load(Ordering::Relaxed) == generation)
    }

    /// So many bytes wait for the socket of this actor now. By its poller alone.
    pub fn set_queued(&self, index: u32, generation: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let word = self.queued.get_or_make(index);
        word.store(pack(generation, bytes), Ordering::Relaxed);
    }

    /// How many bytes its poller has last said to wait for the socket of this actor; `None` where
    /// it has gone.
    pub fn queued(&self, index: u32, generation: u32) -> Option<usize> {
        if !self.is_here(index, generation) {
            return None;
        }
        let word = self
            .queued
            .get(index)
            .map(|word| word.load(Ordering::Relaxed));
        match unpack(word.unwrap_or(0)) {
            (said_for, bytes) if said_for == generation => Some(bytes as usize),
            _ => Some(0),
        }
    }

    /// Counts one entry for this actor, unless `limit` are counted already.
    pub fn hold(&self, index: u32, generation: u32, limit: u32) -> Hold {
        if !self.is_here(index, generation) {
            return Hold::Gone;
        }
        let word = self.held.get_or_make(index);
        let mut seen = word.load(Ordering::Acquire);
        loop {
            let (counted, held) = unpack(seen);
            let held = if counted == generation {
                held
            } else if self.is_here(index, generation) {
                0
            } else {
                return Hold::Gone;
            };
            if held >= limit {
                return Hold::Full;
            }
            match compare_exchange(word, seen, pack(generation, held + 1)) {
                Ok(()) => return Hold::Held,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes back `count` times a [`hold`](Presence::hold), if nobody came to the slot after the
    /// actor that they were for.
    pub fn unhold(&self, index: u32, generation: u32, count: u32) {
        let Some(word) = self.held.get(index) else {
            return;
        };
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let (counted, held) = unpack(seen);
            if counted != generation {
                return;
            }
            debug_assert!(held >= count, "an entry that was never counted");
            match compare_exchange(word, seen, pack(generation, held.saturating_sub(count))) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }
}

/// Words by index. Chunks are made when first asked for and never move, so that readers need no
/// lock.
#[derive(Debug)]
struct Chunks<W>([OnceLock<Box<[W]>>; CHUNK_COUNT]);

impl<W> Default for Chunks<W> {
    fn default() -> Self {
        Chunks(std::array::from_fn(|_| OnceLock::new()))
    }
}

impl<W: Default> Chunks<W> {
    /// The word of an index, if any near it was ever made.
    #[inline]
    fn get(&self, index: u32) -> Option<&W> {
        let (chunk, offset, _) = locate(index);
        self.0.get(chunk)?.get()?.get(offset)
    }

    fn get_or_make(&self, index: u32) -> &W {
        let (chunk, offset, len) = locate(index);
        let words = self.0[chunk].get_or_init(|| (0..len).map(|_| W::default()).collect());
        &words[offset]
    }
}

/// Replaces `seen` by `new`, or says what is there by now.
fn compare_exchange(word: &AtomicU64, seen: u64, new: u64) -> Result<(), u64> {
    word.compare_exchange_weak(seen, new, Ordering::Release, Ordering::Acquire)
        .map(drop)
}

/// The chunk of an index, the place in it, and its length.
#[inline]
fn locate(index: u32) -> (usize, usize, usize) {
    let place = u64::from(index) + FIRST_PLACE;
    let octave = place.ilog2() - FIRST_PLACE.ilog2();
    let len = FIRST_CHUNK_LEN << octave;
    let chunk = u64::from(octave) * OCTAVE + place / len % OCTAVE;
    (chunk as usize, (place % len) as usize, len as usize)
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
    fn chunks_meet_without_gaps_and_waste_at_most_a_quarter() {
        let (mut index, mut chunk) = (0_u64, 0);
        while index < 1 << 22 {
            let (found, offset, len) = locate(index as u32);
            assert_eq!((found, offset), (chunk, 0));
            let last = locate((index + len as u64 - 1) as u32);
            assert_eq!((last.0, last.1), (chunk, len - 1));
            assert!(index == 0 || len as u64 <= 8 + index / 4);
            index += len as u64;
            chunk += 1;
        }
        assert_eq!(locate(u32::MAX - 32).0, CHUNK_COUNT - 1);
        assert!(locate(u32::MAX).0 >= CHUNK_COUNT);
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
        presence.enter(40);
        presence.enter(41);
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
        assert_eq!(presence.enter(0), 1);
        assert_eq!(presence.hold(0, 1, 9), Hold::Held);
        presence.leave(0, 1);
        assert_eq!(presence.hold(0, 1, 9), Hold::Gone);
        assert_eq!(presence.enter(0), 3);
        assert_eq!(presence.hold(0, 3, 9), Hold::Held);
        presence.unhold(0, 1, 1);
        assert_eq!(presence.hold(0, 1, 9), Hold::Gone);
        assert!(presence.is_here(0, 3) && !presence.is_here(0, 1));
        assert_eq!(presence.hold(0, 3, 1), Hold::Full);
    }

    #[test]
    fn what_waits_is_told_of_whoever_is_there_and_of_nobody_before() {
        let presence = Presence::new();
        assert_eq!(presence.queued(5, 1), None);
        let first = presence.enter(5);
        assert_eq!(presence.queued(5, first), Some(0), "nothing was said");
        presence.set_queued(5, first, 700);
        presence.set_queued(6, 1, 1);
        assert_eq!(presence.queued(5, first), Some(700));
        presence.set_queued(5, first, 1 << 40);
        assert_eq!(presence.queued(5, first), Some(u32::MAX as usize));
        presence.leave(5, first);
        assert_eq!(presence.queued(5, first), None);
        let second = presence.enter(5);
        assert_eq!(presence.queued(5, second), Some(0));
        // The poller may say so of one that has gone: whoever is there now is not concerned.
        presence.set_queued(5, first, 9);
        assert_eq!(presence.queued(5, second), Some(0));
    }

    #[test]
    fn a_count_is_nobodys_however_many_actors_ago() {
        // Also one that never was, in a word just made.
        for counted in [false, true] {
            for left in [2, 1 << 30, 1 << 31, 3 << 30, u32::MAX - 1] {
                let presence = Presence::new();
                assert_eq!(presence.enter(0), 1);
                if counted {
                    assert_eq!(presence.hold(0, 1, 9), Hold::Held);
                }
                presence.leave(0, 1);
                // As many actors later.
                let word = presence.generations.get_or_make(0);
                word.store(left, Ordering::Relaxed);
                let generation = presence.enter(0);
                assert_eq!(presence.hold(0, generation, 1), Hold::Held);
                assert_eq!(presence.hold(0, generation, 1), Hold::Full);
            }
        }
    }
}

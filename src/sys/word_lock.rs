//! A lock that is one word, of which 63 bits are its user's.
//!
//! For a few instructions at a time, many million times a second: what it costs is the one
//! read-modify-write of taking it. Letting go is a plain store, which also publishes what the
//! holder made of the word, and anybody may look at the word without the lock.
//!
//! std's mutex takes two such operations, because whoever lets go has to learn whether somebody
//! sleeps in the kernel, and a state word beside it takes a third; they are nine tenths of the cost
//! of a message (ARCHITECTURE.md, "Decisions"). The price is that nobody is woken here: who
//! finds the lock taken spins, then yields the processor, and then sleeps for a fixed time. That
//! pays where it is held for a push or a swap, and nowhere else.
//!
//! Ordering: the compare-and-swap that takes the lock is Acquire and the store that lets go is
//! Release, so each holder sees all that the ones before it did. Between the two nobody else
//! changes the word: each other change is a compare-and-swap that expects LOCKED to be clear.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::primitives::{AtomicU64, Ordering, UnsafeCell, relax};

/// Somebody has the lock.
const LOCKED: u64 = 1;

/// A `T` behind a lock, and 63 bits beside it. Bit 0 of the word is the lock's own.
// In this order, so that the word and the first fields of `T` are on one cache line.
#[repr(C)]
pub(crate) struct WordLock<T> {
    word: AtomicU64,
    data: UnsafeCell<T>,
}

// SAFETY: `data` is reached through `with` alone, by one thread at a time, so to share the lock is
// to send the data to and fro.
unsafe impl<T: Send> Sync for WordLock<T> {}

// As std's mutex: a panic under the lock lets go of it, and the data is as that left it.
impl<T> UnwindSafe for WordLock<T> {}
impl<T> RefUnwindSafe for WordLock<T> {}

/// Lets go of the lock, also if the holder panics.
struct Held<'a> {
    of: &'a AtomicU64,
    word: u64,
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.of.store(self.word & !LOCKED, Ordering::Release);
    }
}

impl<T> WordLock<T> {
    /// A lock that nobody has; all bits are clear.
    pub(crate) fn new(data: T) -> Self {
        WordLock {
            word: AtomicU64::new(0),
            data: UnsafeCell::new(data),
        }
    }

    /// The word as it is at this moment, without the lock. Relaxed: it says nothing about the data.
    pub(crate) fn peek(&self) -> u64 {
        self.word.load(Ordering::Relaxed) & !LOCKED
    }

    /// Calls `f` under the lock, with the word and the data. Waits for whoever has it; never call
    /// it from within itself.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut u64, &mut T) -> R) -> R {
        let mut held = Held {
            word: self.lock(),
            of: &self.word,
        };
        self.data.with_mut(|data| {
            // SAFETY: whoever has the lock is the only one who gets here, and has it until `held`
            // is dropped, which is after the last use of the reference.
            f(&mut held.word, unsafe { &mut *data })
        })
    }

    /// Takes the lock; the word as it was.
    #[inline]
    fn lock(&self) -> u64 {
        let mut seen = self.peek();
        let mut round = 0;
        loop {
            match self.word.compare_exchange(
                seen,
                seen | LOCKED,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return seen,
                Err(now) if now & LOCKED != 0 => {
                    relax(&self.word, round);
                    round += 1;
                    seen = self.peek();
                }
                // Somebody had it in between. At once again, while the cache line is here: else a
                // poller that looks for messages would hardly get it from a sender at full speed.
                Err(now) => seen = now,
            }
        }
    }
}

impl<T> fmt::Debug for WordLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WordLock")
            .field("word", &self.peek())
            .finish_non_exhaustive()
    }
}

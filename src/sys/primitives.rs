//! What [`WordLock`](super::WordLock) is built from: real here, loom's in `loom-tests/`.

use std::thread;
use std::time::Duration;

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

/// std's cell in the shape of loom's.
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Rounds that spin, for twice as long each: together some ten microseconds, a thousand times what
/// the lock is held for by a thread that runs.
const SPINS: u32 = 10;

/// Pauses of the processor (10 to 50 ns each) in the first round. So many because each look takes
/// the cache line away from the holder, with what it works on: to look at once made a message cost
/// a fifth more. Meanwhile a sender at full speed gathers a batch.
const PAUSES_MIN: u32 = 16;

/// ... and in the last ones.
const PAUSES_MAX: u32 = 128;

/// Rounds that let another thread have the processor after that: the holder has lost it, and where
/// it waits for this very one that is enough.
const YIELDS: u32 = 16;

/// A sleep after that. Only here a thread of higher priority lets a holder of lower priority run.
const SLEEP: Duration = Duration::from_micros(50);

/// Waits for a lock that was found taken, longer from `round` to round. Nobody tells when it is
/// free; but loom, which does not follow a loop that spins, has to be told by the word's store.
pub(crate) fn relax(_word: &AtomicU64, round: u32) {
    if round < SPINS {
        for _ in 0..(PAUSES_MIN << round).min(PAUSES_MAX) {
            std::hint::spin_loop();
        }
    } else if round < SPINS + YIELDS {
        thread::yield_now();
    } else {
        thread::sleep(SLEEP);
    }
}

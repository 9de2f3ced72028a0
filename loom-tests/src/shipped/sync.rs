//! `src/sync.rs` made of loom's types.

pub use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub use loom::sync::{Condvar, Mutex, MutexGuard};
// std's, and so one step to loom, and trusted. `OnceLock`: loom has none, and what initialises it
// touches no atomic that another thread knows of. `Arc`: loom's can only find leaks here, and
// aborts when a mutant's failure drops it.
pub use std::sync::{Arc, OnceLock};

use loom::sync::Notify;
use std::sync::PoisonError;
// What only counts or carries, and is no part of the protocol, is std's: loom runs one thread at a
// time.
use std::sync::Mutex as Untracked;

/// As in `src/sync.rs`.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shipped one spins, which loom follows for two threads and no more: it has its own model, and
/// here stands what that one shows it to be, a mutex and a word that only its holder changes.
#[derive(Debug)]
pub struct WordLock<T> {
    data: Mutex<T>,
    word: AtomicU64,
}

impl<T> WordLock<T> {
    pub fn new(data: T) -> Self {
        WordLock {
            data: Mutex::new(data),
            word: AtomicU64::new(0),
        }
    }

    pub fn peek(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }

    pub fn with<R>(&self, f: impl FnOnce(&mut u64, &mut T) -> R) -> R {
        let mut data = lock(&self.data);
        let mut word = self.peek();
        let result = f(&mut word, &mut data);
        self.word.store(word, Ordering::Relaxed);
        result
    }
}

/// An eventfd. Its wait may also end for no reason, once in each run: some other event ended the
/// poller's wait.
#[derive(Debug, Default)]
pub struct WakeFd {
    notify: Notify,
    /// Writes in all, and whether there was one since the last read.
    writes: Untracked<(usize, bool)>,
}

impl WakeFd {
    /// As the shipped one is made, for the unit tests that come with the included files.
    pub fn new() -> std::io::Result<WakeFd> {
        Ok(WakeFd::default())
    }

    pub fn wake(&self) {
        let mut writes = self.writes.lock().unwrap();
        *writes = (writes.0 + 1, true);
        drop(writes);
        self.notify.notify();
    }

    /// The selector's wait, and the read that follows a wake.
    pub fn wait(&self) {
        self.notify.wait();
        self.writes.lock().unwrap().1 = false;
    }

    /// A read without a wait.
    pub fn read(&self) {
        let written = std::mem::take(&mut self.writes.lock().unwrap().1);
        if written {
            self.notify.wait();
        }
    }

    pub fn writes(&self) -> usize {
        self.writes.lock().unwrap().0
    }

    /// The same as the shipped one counts it, for those unit tests.
    pub fn wakes(&self) -> u64 {
        self.writes() as u64
    }
}

//! `src/sys/primitives.rs` made of loom's types.

pub use loom::cell::UnsafeCell;
pub use loom::sync::atomic::Ordering;

use loom::sync::Notify;
use std::ops::Deref;

/// The word of a lock. Whoever finds it taken waits for the next store, since loom does not follow
/// a loop that spins; hence for two threads, of which one waits, and no more.
#[derive(Debug)]
pub struct AtomicU64 {
    word: loom::sync::atomic::AtomicU64,
    stored: Notify,
}

impl AtomicU64 {
    pub fn new(value: u64) -> Self {
        AtomicU64 {
            word: loom::sync::atomic::AtomicU64::new(value),
            stored: Notify::new(),
        }
    }

    pub fn store(&self, value: u64, order: Ordering) {
        self.word.store(value, order);
        self.stored.notify();
    }
}

impl Deref for AtomicU64 {
    type Target = loom::sync::atomic::AtomicU64;

    fn deref(&self) -> &Self::Target {
        &self.word
    }
}

pub fn relax(word: &AtomicU64, _round: u32) {
    word.stored.wait();
}

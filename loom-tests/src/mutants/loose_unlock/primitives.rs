//! Letting go of the lock publishes nothing.

use crate::shipped::primitives::{self as shipped, AtomicU64 as Shipped};
pub use crate::shipped::primitives::{Ordering, UnsafeCell};
use std::ops::Deref;

#[derive(Debug)]
pub struct AtomicU64(Shipped);

impl AtomicU64 {
    pub fn new(value: u64) -> Self {
        AtomicU64(Shipped::new(value))
    }

    pub fn store(&self, value: u64, _: Ordering) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Deref for AtomicU64 {
    type Target = Shipped;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

pub fn relax(word: &AtomicU64, round: u32) {
    shipped::relax(&word.0, round);
}

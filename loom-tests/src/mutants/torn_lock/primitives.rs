//! The lock is taken by a load and a store.

use crate::shipped::primitives::{self as shipped, AtomicU64 as Shipped};
pub use crate::shipped::primitives::{Ordering, UnsafeCell};
use std::ops::Deref;

#[derive(Debug)]
pub struct AtomicU64(Shipped);

impl AtomicU64 {
    pub fn new(value: u64) -> Self {
        AtomicU64(Shipped::new(value))
    }

    pub fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        _: Ordering,
        _: Ordering,
    ) -> Result<u64, u64> {
        let seen = self.0.load(Ordering::Acquire);
        if seen != current {
            return Err(seen);
        }
        self.0.deref().store(new, Ordering::Release);
        Ok(seen)
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

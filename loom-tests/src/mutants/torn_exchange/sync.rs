//! An actor's word is compared by a load and changed by a store.

pub use crate::shipped::sync::*;
use std::ops::Deref;

#[derive(Debug, Default)]
pub struct AtomicU64(loom::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub fn new(value: u64) -> Self {
        AtomicU64(loom::sync::atomic::AtomicU64::new(value))
    }

    pub fn compare_exchange_weak(
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
        self.0.store(new, Ordering::Release);
        Ok(seen)
    }
}

impl Deref for AtomicU64 {
    type Target = loom::sync::atomic::AtomicU64;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

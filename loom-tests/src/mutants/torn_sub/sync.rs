//! The count is taken off by a load and a store.

pub use crate::shipped::sync::*;
use std::ops::Deref;

#[derive(Debug)]
pub struct AtomicI64(loom::sync::atomic::AtomicI64);

impl AtomicI64 {
    pub fn new(value: i64) -> Self {
        AtomicI64(loom::sync::atomic::AtomicI64::new(value))
    }

    pub fn fetch_sub(&self, operand: i64, _: Ordering) -> i64 {
        let before = self.0.load(Ordering::Acquire);
        self.0.store(before - operand, Ordering::Release);
        before
    }
}

impl Deref for AtomicI64 {
    type Target = loom::sync::atomic::AtomicI64;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

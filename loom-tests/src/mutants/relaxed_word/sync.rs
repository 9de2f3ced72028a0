//! The word orders nothing.

pub use crate::shipped::sync::*;
use std::ops::Deref;

#[derive(Debug)]
pub struct AtomicI64(loom::sync::atomic::AtomicI64);

impl AtomicI64 {
    pub fn new(value: i64) -> Self {
        AtomicI64(loom::sync::atomic::AtomicI64::new(value))
    }

    pub fn fetch_add(&self, operand: i64, _: Ordering) -> i64 {
        self.0.fetch_add(operand, Ordering::Relaxed)
    }

    pub fn fetch_or(&self, operand: i64, _: Ordering) -> i64 {
        self.0.fetch_or(operand, Ordering::Relaxed)
    }
}

impl Deref for AtomicI64 {
    type Target = loom::sync::atomic::AtomicI64;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

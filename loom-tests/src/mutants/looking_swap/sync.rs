//! The waker's state is changed only if a load finds that it must be, and the load is the answer.

pub use crate::shipped::sync::*;
use std::ops::Deref;

#[derive(Debug)]
pub struct AtomicU8(loom::sync::atomic::AtomicU8);

impl AtomicU8 {
    pub fn new(value: u8) -> Self {
        AtomicU8(loom::sync::atomic::AtomicU8::new(value))
    }

    pub fn swap(&self, operand: u8, _: Ordering) -> u8 {
        let before = self.0.load(Ordering::Acquire);
        if before != operand {
            self.0.swap(operand, Ordering::AcqRel);
        }
        before
    }
}

impl Deref for AtomicU8 {
    type Target = loom::sync::atomic::AtomicU8;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

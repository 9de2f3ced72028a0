//! A pop gives up on a slot that is claimed and not yet written, as many a queue does.

pub use crate::shipped::sync::*;
use std::ops::Deref;

#[derive(Debug)]
pub struct Queue<T>(crate::shipped::sync::Queue<T>);

impl<T> Queue<T> {
    pub fn new() -> Self {
        Queue(crate::shipped::sync::Queue::new())
    }

    pub fn pop(&self) -> Option<T> {
        let head = self.head.load(Ordering::Relaxed);
        if self.slots.get(head)?.published.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.0.pop()
    }
}

impl<T> Deref for Queue<T> {
    type Target = crate::shipped::sync::Queue<T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

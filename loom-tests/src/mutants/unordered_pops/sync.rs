//! Pops of different threads order nothing between them.

pub use crate::shipped::sync::*;
use std::ops::Deref;

#[derive(Debug)]
pub struct Queue<T>(crate::shipped::sync::Queue<T>);

impl<T> Queue<T> {
    pub fn new() -> Self {
        Queue(crate::shipped::sync::Queue::new())
    }

    pub fn pop(&self) -> Option<T> {
        self.0.pop_with(Ordering::Relaxed, Ordering::Relaxed)
    }
}

impl<T> Deref for Queue<T> {
    type Target = crate::shipped::sync::Queue<T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

//! A reply wakes nobody.

pub use crate::shipped::sync::*;
use std::ops::Deref;

#[derive(Debug)]
pub struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub fn new() -> Self {
        Condvar(loom::sync::Condvar::new())
    }

    pub fn notify_one(&self) {}
}

impl Deref for Condvar {
    type Target = loom::sync::Condvar;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

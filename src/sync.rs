//! The atomics, locks, queue and wake descriptor that the concurrent parts are built from.
//!
//! [`waker`](super::waker), [`mailbox`](super::mailbox), [`presence`](super::presence) and [`oneshot`](super::oneshot) take all of
//! these from `super::sync`. `loom-tests/` includes the same four files beside a `sync` made of loom's types: what is checked is
//! what ships. A thing that synchronises and is not in this list is one that the models do not see.

pub use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

pub(crate) use crate::sys::WakeFd;

use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::PoisonError;

/// Locks. A poisoned lock is taken all the same: no code but ours runs under the locks of these modules, and none of it can leave
/// them half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An unbounded queue that any thread may push to and pop from: both ends of a crossbeam channel.
///
/// What the mailbox leans on, and loom's stand-in models no stronger than this (crossbeam-channel 0.5.17, `flavors/list.rs`):
/// - a push that happened before a `pop` or an `is_empty` is seen by it, because the claim of its slot moves the tail, which both
///   read; of any other push either may see nothing;
/// - a `pop` takes the oldest claimed slot, and if its sender was preempted between claim and write, waits for that sender with
///   spins and yields. So it never passes over an entry;
/// - who pops after another sees the pushes that the other saw, because a pop moves the head by a SeqCst compare-and-swap and reads
///   it with Acquire.
#[derive(Debug)]
pub struct Queue<T> {
    sender: Sender<T>,
    receiver: Receiver<T>,
}

impl<T> Queue<T> {
    /// An empty queue. Makes one heap block, for what the two ends share; the first push makes another, for 31 entries.
    pub fn new() -> Self {
        let (sender, receiver) = unbounded();
        Queue { sender, receiver }
    }

    /// Adds an entry at the end.
    pub fn push(&self, entry: T) {
        self.sender
            .send(entry)
            .expect("a queue holds its own receiving end");
    }

    /// Takes the oldest entry.
    pub fn pop(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Whether no slot is claimed. Two loads; never ask a channel for its length, which loops.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

//! The atomics, locks and wake descriptor that the concurrent parts are built from.
//!
//! [`waker`](super::waker), [`mailbox`](super::mailbox), [`presence`](super::presence) and
//! [`oneshot`](super::oneshot) take all of these from `super::sync`. `loom-tests/` includes the
//! same four files beside a `sync` made of loom's types: what is checked is what ships. A thing
//! that synchronises and is not in this list is one that the models do not see.

pub use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

pub(crate) use crate::sys::{WakeFd, WordLock};

use std::sync::PoisonError;

/// Locks. A poisoned lock is taken all the same: no code but ours runs under the locks of these
/// modules, and none of it can leave them half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! `src/sync.rs` made of loom's types.

pub use loom::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub use loom::sync::{Condvar, Mutex, MutexGuard};
// std's, and so one step to loom, and trusted. `OnceLock`: loom has none, and what initialises it touches no atomic that another
// thread knows of. `Arc`: loom's can only find leaks here, and aborts when a mutant's failure drops it.
pub use std::sync::{Arc, OnceLock};

use loom::sync::Notify;
use loom::thread;
use std::sync::PoisonError;
// What only counts or carries, and is no part of the protocol, is std's: loom runs one thread at a time.
use std::sync::Mutex as Untracked;

/// Slots of a [`Queue`]: no model pushes more.
const SLOTS: usize = 4;

/// As in `src/sync.rs`.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// crossbeam-channel's unbounded flavour (0.5.17, `flavors/list.rs`), no stronger than there in any place:
/// - `push` claims a slot by moving the tail (there a SeqCst compare-and-swap, here Relaxed), then writes it, then publishes it
///   with Release. In between the slot is claimed and not yet published, for as long as loom likes.
/// - `pop` reads the tail with Relaxed (there after a SeqCst fence), so that it may miss what did not happen before. It claims the
///   head with AcqRel (there SeqCst): who pops after another sees what the other saw. Then it waits for the slot if that is not
///   yet published, as `Slot::wait_write` does there.
/// - `is_empty` compares head and tail, which may both be old (there SeqCst loads). A claimed slot counts as an entry.
///
/// Blocks of slots are left out: at the end of a block crossbeam's threads wait for each other as they do for a slot.
#[derive(Debug)]
pub struct Queue<T> {
    pub head: AtomicUsize,
    pub tail: AtomicUsize,
    pub slots: [Slot<T>; SLOTS],
}

#[derive(Debug)]
pub struct Slot<T> {
    pub published: AtomicUsize,
    pub entry: Untracked<Option<T>>,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Queue {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            slots: std::array::from_fn(|_| Slot {
                published: AtomicUsize::new(0),
                entry: Untracked::new(None),
            }),
        }
    }

    pub fn push(&self, entry: T) {
        let slot = &self.slots[self.tail.fetch_add(1, Ordering::Relaxed)];
        *slot.entry.lock().unwrap() = Some(entry);
        slot.published.store(1, Ordering::Release);
    }

    pub fn pop(&self) -> Option<T> {
        self.pop_with(Ordering::AcqRel, Ordering::Acquire)
    }

    /// A pop whose claim of the head is ordered so.
    pub fn pop_with(&self, claim: Ordering, read: Ordering) -> Option<T> {
        let mut head = self.head.load(read);
        loop {
            if head == self.tail.load(Ordering::Relaxed) {
                return None;
            }
            match self.head.compare_exchange(head, head + 1, claim, read) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        while self.slots[head].published.load(Ordering::Acquire) == 0 {
            thread::yield_now();
        }
        let entry = self.slots[head].entry.lock().unwrap().take();
        Some(entry.expect("popped before it was pushed, or twice"))
    }

    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed) == self.tail.load(Ordering::Relaxed)
    }
}

/// An eventfd. Its wait may also end for no reason, once in each run: some other event ended the poller's wait.
#[derive(Debug, Default)]
pub struct WakeFd {
    notify: Notify,
    /// Writes in all, and whether there was one since the last read.
    writes: Untracked<(usize, bool)>,
}

impl WakeFd {
    /// As the shipped one is made, for the unit tests that come with the included files.
    pub fn new() -> std::io::Result<WakeFd> {
        Ok(WakeFd::default())
    }

    pub fn wake(&self) {
        let mut writes = self.writes.lock().unwrap();
        *writes = (writes.0 + 1, true);
        drop(writes);
        self.notify.notify();
    }

    /// The selector's wait, and the read that follows a wake.
    pub fn wait(&self) {
        self.notify.wait();
        self.writes.lock().unwrap().1 = false;
    }

    /// A read without a wait.
    pub fn read(&self) {
        let written = std::mem::take(&mut self.writes.lock().unwrap().1);
        if written {
            self.notify.wait();
        }
    }

    pub fn writes(&self) -> usize {
        self.writes.lock().unwrap().0
    }
}

//! The sleep state of one poller: who writes its eventfd, and when.
//!
//! States, and who leaves them:
//! - AWAKE: the poller is in a turn, or a sender has already seen to it that it will be. A wake
//!   costs its sender one read-modify-write and no system call. The poller alone goes to ASLEEP
//!   ([`Waker::fall_asleep`]).
//! - ASLEEP: the poller blocks in its selector or is about to. Whoever goes to AWAKE finds ASLEEP
//!   in the answer of its swap; there is exactly one such for each `fall_asleep`. If it is a
//!   sender, it owes the eventfd a write; if it is the poller ([`Waker::get_up`]), nobody does.
//!   Hence at most one write for each sleep, for any number of senders.
//!
//! The races:
//! - *A sender swaps, is preempted, and the poller gets up for a socket.* The write comes late and
//!   ends a later sleep for nothing: one turn wasted, no wake lost.
//! - *A sender finds AWAKE because another sender swapped first and has not written yet.* That
//!   write will come and is enough for both: the poller looks at every mailbox after it.
//! - *A sender finds AWAKE because the poller is getting up by itself.* The poller has to look
//!   again before its next sleep, and the mailbox's own word makes sure that it then sees the entry
//!   (see `mailbox.rs`, "arm").
//!
//! The eventfd may be read at any time between getting up and the look before the next sleep, or
//! never if it is registered edge-triggered. To read it after that look would swallow a wake.
//!
//! Ordering: what makes a sleeper's state visible to a sender is the mailbox's word (its Release in
//! `arm` and the Acquire in `push`), so that the sender's swap comes after the one of
//! `fall_asleep`. AcqRel on the swaps is there to let a poller that gets up see in its first turn
//! what its waker pushed. Each change is one read-modify-write: with a load and then a change, two
//! senders may both find ASLEEP and both write, or a late one that had found AWAKE may undo the
//! next sleep unseen, whose sender then finds AWAKE and lets the poller sleep.

use super::sync::{AtomicU8, Ordering, WakeFd};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;

/// Wakes one poller. Shared by all its mailboxes.
#[derive(Debug)]
pub struct Waker {
    /// [`AWAKE`] or [`ASLEEP`].
    state: AtomicU8,
    /// Registered with the poller's selector for as long as the poller lives.
    fd: WakeFd,
}

impl Waker {
    /// The waker of a poller that is awake.
    pub fn new(fd: WakeFd) -> Self {
        Waker {
            state: AtomicU8::new(AWAKE),
            fd,
        }
    }

    /// The descriptor that ends the poller's wait.
    pub fn fd(&self) -> &WakeFd {
        &self.fd
    }

    /// Ends the poller's sleep, or the one it is about to begin. From any thread; one system call
    /// if it slept, none otherwise.
    pub fn wake(&self) {
        if self.state.swap(AWAKE, Ordering::AcqRel) == ASLEEP {
            self.fd.wake();
        }
    }

    /// The poller is about to sleep: from here on a wake writes the eventfd. Comes before the look
    /// at the mailboxes.
    pub fn fall_asleep(&self) {
        self.state.swap(ASLEEP, Ordering::AcqRel);
    }

    /// The poller is in a turn again: from here on a wake costs no system call.
    pub fn get_up(&self) {
        self.state.swap(AWAKE, Ordering::AcqRel);
    }
}

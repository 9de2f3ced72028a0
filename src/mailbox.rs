//! The mailbox: entries of one type from any thread to one poller, with a bound, a sleep state and
//! a line of waiters.
//!
//! # The word
//!
//! Everything is under one lock, [`WordLock`], whose word says all that a push or a look must know.
//! It changes under the lock only; anybody may look at it without:
//!
//! | bits  | name    | set by                      | cleared by                               |
//! |-------|---------|-----------------------------|------------------------------------------|
//! | 0     |         | the lock                    | the lock                                 |
//! | 1     | ASLEEP  | poller, `arm`               | the first `push` that finds it, `disarm` |
//! | 2     | CLOSED  | poller, `close`             | nobody                                   |
//! | 3     | WAITERS | `wait`                      | who empties the line: `release`, `close` |
//! | 4     | FILLED  | `push`                      | who takes the last entry: `take`, `pop`  |
//! | 5..64 | count   | `push`, `occupy` add places | `release` subtracts them                 |
//!
//! The count is of the places pushed and not yet released. `admit` looks at it without the lock and
//! reserves nothing, so that a sender can still give its message back: the bound may be exceeded by
//! at most the number of threads that are sending at that moment.
//!
//! # The sleep
//!
//! The poller goes to sleep in this order, for all its mailboxes together:
//!
//! 1. `waker.fall_asleep()`
//! 2. `arm()` each mailbox; if any says no, do not block
//! 3. block in the selector, until an event or a deadline
//! 4. `waker.get_up()`
//! 5. `disarm()` each mailbox, then drain them.
//!
//! *Push against arm.* One comes before the other, for each has the lock. If the push does, `arm`
//! reads FILLED and the poller does not block. If `arm` does, the push reads ASLEEP and calls the
//! waker; it has the lock after `arm` had it, so its swap of the waker's state comes after
//! `fall_asleep`'s. There is no third case. Were 1 and 2 the other way round, the sender could find
//! the waker AWAKE, and the poller would then block on a full mailbox.
//!
//! *Push against push.* The first to read ASLEEP clears it and owes the wake, those after it owe
//! nothing. Their entries wait for that one wake, as with the waker itself.
//!
//! *Push against disarm.* A sender that comes after `disarm` wakes nobody: the poller arms again
//! before it next blocks.
//!
//! *A poller that spins* ([`Builder::busy_poll`](crate::Builder::busy_poll)) looks at the word
//! without the lock and is not armed: its senders wake nobody. It arms and looks under the lock
//! before it blocks, like any other.
//!
//! *A mailbox that has just been made* is armed only once the poller knows of it. Whoever makes it
//! pushes a command that tells the poller, into a mailbox that the poller does know: that push
//! wakes, and the poller drains what it learns of in the same turn.
//!
//! # The end
//!
//! After `close` a push gives its entry back; what came before is there for the poller to take.
//!
//! # The entries
//!
//! A plain deque, which the poller takes out whole. The lock is held for a push or a swap, some
//! nanoseconds, and costs its taker one read-modify-write, which is most of what a message costs.
//! What else was measured stands in ARCHITECTURE.md, "Decisions and their price".
//!
//! # The waiters
//!
//! Those who found the mailbox full wait in line, oldest first, and are handed out when the count
//! falls below half the bound, as many at a time as there are free places. `wait` gives the waiter
//! back when there is room by then, as nobody else might ever tell it.
//!
//! *More waiters than places.* Those who were told may have nothing to send any more, and then no
//! release would follow for the rest. So while WAITERS is set below half the bound, `arm` says no,
//! and the poller's next `release`, of nothing if need be, hands out the next ones.
//!
//! Looks without the lock are Relaxed: each is a hint, or the poller's own, which reads no older
//! word than the one it last had the lock of.

use super::sync::{Arc, WordLock};
use super::waker::Waker;
use std::collections::VecDeque;
use std::mem;

/// The poller sleeps or is about to: a push must wake it.
const ASLEEP: u64 = 1 << 1;
/// The poller takes no more entries: a push gives its own back.
const CLOSED: u64 = 1 << 2;
/// Somebody waits for room: a release that makes some must look.
const WAITERS: u64 = 1 << 3;
/// There are entries.
const FILLED: u64 = 1 << 4;
/// One place in the count.
const ONE: u64 = 1 << 5;

/// What is under the lock.
// In this order: an entry is pushed with the word and what begins here, on one cache line.
#[derive(Debug)]
#[repr(C)]
struct Inner<T, W> {
    /// In the order of their arrival. Invariant: not empty if and only if FILLED is set.
    entries: VecDeque<T>,
    /// Oldest first. Invariant: not empty if and only if WAITERS is set.
    waiters: VecDeque<W>,
}

/// What a sender writes for each entry: on one cache line, and on no other's (two, because
/// processors fetch them in pairs), so that it travels between sender and poller once for both.
#[derive(Debug)]
#[repr(align(128))]
struct Hot<T, W>(WordLock<Inner<T, W>>);

/// The answer of [`Mailbox::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is room; `count` entries are waiting.
    Room {
        /// Entries waiting, below the bound.
        count: usize,
    },
    /// As many entries wait as the bound allows.
    Full,
    /// The poller has stopped.
    Closed,
}

/// Entries of type `T` on their way to one poller, and those (`W`) who wait for room.
///
/// The poller calls `take`, `pop`, `arm`, `disarm`, `release`, `occupy` and `close`; everything
/// else may be called from any thread. An empty mailbox is 256 bytes, most of it to keep the word
/// alone on its cache lines, and no heap block before the first push, on a 64-bit machine and
/// whatever `T` and `W` are.
#[derive(Debug)]
pub struct Mailbox<T, W> {
    hot: Hot<T, W>,
    /// Entries allowed to wait. Invariant: at least 1.
    bound: usize,
    /// Of the poller that this mailbox belongs to.
    waker: Arc<Waker>,
}

impl<T, W> Mailbox<T, W> {
    /// An empty mailbox with room for `bound` entries.
    ///
    /// # Panics
    ///
    /// When `bound` is 0: nothing could ever be sent.
    pub fn new(bound: usize, waker: Arc<Waker>) -> Self {
        assert!(bound > 0, "a mailbox needs room for one entry");
        Mailbox {
            hot: Hot(WordLock::new(Inner {
                entries: VecDeque::new(),
                waiters: VecDeque::new(),
            })),
            bound,
            waker,
        }
    }

    /// Whether one more entry may be pushed. Reserves nothing: of several senders that are told so
    /// at the same time all may push.
    #[inline]
    pub fn admit(&self) -> Admission {
        let word = self.peek();
        let count = count_of(word);
        if word & CLOSED != 0 {
            Admission::Closed
        } else if count >= self.bound {
            Admission::Full
        } else {
            Admission::Room { count }
        }
    }

    /// Adds an entry that takes so many places in the bound, whatever that is: ask
    /// [`admit`](Mailbox::admit) first, unless it is one that must not be refused and so takes
    /// none.
    ///
    /// Returns the entry when the mailbox was closed: nobody else will take it, and it is the
    /// caller's to count as a dead letter.
    #[must_use = "an entry that comes back was not delivered"]
    #[inline]
    pub fn push(&self, entry: T, places: usize) -> Option<T> {
        let wakes = self.hot.0.with(|word, inner| {
            if *word & CLOSED != 0 {
                return Err(entry);
            }
            inner.entries.push_back(entry);
            let before = *word;
            // One wake is enough for all that comes until the poller arms again.
            *word = (before & !ASLEEP | FILLED) + places as u64 * ONE;
            Ok(before & ASLEEP != 0)
        });
        match wakes {
            Ok(false) => None,
            Ok(true) => {
                self.waker.wake();
                None
            }
            Err(entry) => Some(entry),
        }
    }

    /// Takes all entries, in exchange for the empty `batch`. They are counted until they are
    /// [released](Mailbox::release).
    pub fn take(&self, batch: &mut VecDeque<T>) {
        debug_assert!(batch.is_empty());
        self.hot.0.with(|word, inner| {
            mem::swap(&mut inner.entries, batch);
            *word &= !FILLED;
        });
    }

    /// Takes the oldest entry. It is counted until it is [released](Mailbox::release).
    pub fn pop(&self) -> Option<T> {
        if !self.has_entries() {
            return None;
        }
        self.hot.0.with(|word, inner| {
            let entry = inner.entries.pop_front();
            if inner.entries.is_empty() {
                *word &= !FILLED;
            }
            entry
        })
    }

    /// Asks senders to wake, and looks a last time: `false` when there is something to do and the
    /// poller must not block.
    ///
    /// All that was popped must have been released, or waiters might sleep as well.
    #[must_use = "a poller that blocks all the same may sleep for ever"]
    pub fn arm(&self) -> bool {
        self.hot.0.with(|word, _| {
            *word |= ASLEEP;
            !self.is_work(*word)
        })
    }

    /// Senders need not wake any more.
    pub fn disarm(&self) {
        if self.peek() & ASLEEP != 0 {
            self.hot.0.with(|word, _| *word &= !ASLEEP);
        }
    }

    /// Gives back the room of `n` popped entries, and moves to `out` the waiters who now have some.
    /// Once a turn, not once an entry.
    pub fn release(&self, n: usize, out: &mut Vec<W>) {
        if n == 0 && !self.has_someone_to_tell(self.peek()) {
            return;
        }
        self.hot.0.with(|word, inner| {
            debug_assert!(count_of(*word) >= n, "released more than was counted");
            *word -= n as u64 * ONE;
            if self.has_someone_to_tell(*word) {
                let told = inner.waiters.len().min(self.bound - count_of(*word));
                out.extend(inner.waiters.drain(..told));
                if inner.waiters.is_empty() {
                    *word &= !WAITERS;
                }
            }
        });
    }

    /// Takes the room of `n` entries that were never pushed: the poller keeps them itself, and
    /// releases them later.
    pub fn occupy(&self, n: usize) {
        self.hot.0.with(|word, _| *word += n as u64 * ONE);
    }

    /// Puts a waiter in line for room, or gives it back when there is room already or never will
    /// be.
    #[must_use = "a waiter that comes back is told by nobody else"]
    pub fn wait(&self, waiter: W) -> Option<W> {
        self.hot.0.with(|word, inner| {
            if *word & CLOSED != 0 || self.is_below_half(*word) {
                return Some(waiter);
            }
            inner.waiters.push_back(waiter);
            *word |= WAITERS;
            None
        })
    }

    /// Takes no more entries, and moves all waiters to `out`. The caller then takes what is left.
    pub fn close(&self, out: &mut Vec<W>) {
        self.hot.0.with(|word, inner| {
            *word = *word & !WAITERS | CLOSED;
            out.extend(inner.waiters.drain(..));
        });
    }

    /// Whether the poller has stopped.
    pub fn is_closed(&self) -> bool {
        self.peek() & CLOSED != 0
    }

    /// Places taken by entries that wait.
    pub fn count(&self) -> usize {
        count_of(self.peek())
    }

    /// Entries that may wait.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Whether a `pop` would find something. A hint: only [`arm`](Mailbox::arm) may decide that the
    /// poller sleeps.
    pub fn has_entries(&self) -> bool {
        self.peek() & FILLED != 0
    }

    #[inline]
    fn peek(&self) -> u64 {
        self.hot.0.peek()
    }

    /// Whether a turn would find something to do: an entry, or a waiter to be told. A hint, too.
    pub fn has_work(&self) -> bool {
        self.is_work(self.peek())
    }

    fn is_work(&self, word: u64) -> bool {
        word & FILLED != 0 || self.has_someone_to_tell(word)
    }

    fn has_someone_to_tell(&self, word: u64) -> bool {
        word & WAITERS != 0 && self.is_below_half(word)
    }

    /// Where waiters are told. Well below the bound, so that a told waiter can send several before
    /// it has to wait again.
    fn is_below_half(&self, word: u64) -> bool {
        count_of(word) < self.bound.div_ceil(2)
    }
}

/// The count in a word.
#[inline]
fn count_of(word: u64) -> usize {
    (word >> ONE.trailing_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::super::sync::WakeFd;
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;

    // The three places where these tests know what a `WakeFd` is.
    fn waker() -> Arc<Waker> {
        Arc::new(Waker::new(WakeFd::new().expect("an eventfd")))
    }
    fn block(waker: &Waker) {
        waker.fd().wait();
    }
    fn wakes(waker: &Waker) -> u64 {
        waker.fd().wakes()
    }

    fn mailbox(bound: usize) -> Mailbox<u32, char> {
        Mailbox::new(bound, waker())
    }

    fn fill(mailbox: &Mailbox<u32, char>, n: usize) {
        for _ in 0..n {
            assert_eq!(mailbox.push(0, 1), None);
        }
    }

    /// Pops and releases `n`; returns those who were told.
    fn drain(mailbox: &Mailbox<u32, char>, n: usize) -> Vec<char> {
        let mut told = Vec::new();
        for _ in 0..n {
            mailbox.pop().expect("an entry");
        }
        mailbox.release(n, &mut told);
        told
    }

    #[test]
    fn the_bound_counts_what_is_popped_and_not_released() {
        let mailbox = mailbox(2);
        assert_eq!(mailbox.admit(), Admission::Room { count: 0 });
        fill(&mailbox, 2);
        assert_eq!(mailbox.admit(), Admission::Full);
        mailbox.pop();
        assert_eq!(mailbox.admit(), Admission::Full);
        mailbox.release(1, &mut Vec::new());
        assert_eq!(mailbox.admit(), Admission::Room { count: 1 });
    }

    #[test]
    fn a_push_takes_the_places_that_it_is_given() {
        let mailbox = mailbox(4);
        assert_eq!(mailbox.bound(), 4);
        assert_eq!(mailbox.push(1, 0), None);
        assert_eq!((mailbox.count(), mailbox.has_entries()), (0, true));
        assert_eq!(mailbox.push(2, 3), None);
        assert_eq!(mailbox.admit(), Admission::Room { count: 3 });
        mailbox.occupy(2);
        assert_eq!((mailbox.count(), mailbox.admit()), (5, Admission::Full));
        mailbox.release(5, &mut Vec::new());
        assert_eq!(mailbox.count(), 0);
        assert_eq!((mailbox.pop(), mailbox.pop()), (Some(1), Some(2)));
    }

    #[test]
    fn what_is_taken_all_at_once_is_counted_until_it_is_released() {
        let mailbox = mailbox(4);
        let mut batch = VecDeque::new();
        for round in 1..3 {
            assert_eq!(mailbox.push(round, 1), None);
            assert_eq!(mailbox.push(round + 10, 1), None);
            mailbox.take(&mut batch);
            assert_eq!(batch, [round, round + 10]);
            batch.clear();
            assert!(!mailbox.has_entries() && !mailbox.has_work() && mailbox.arm());
            assert_eq!(mailbox.count(), 2);
            mailbox.release(2, &mut Vec::new());
        }
    }

    #[test]
    fn the_first_push_into_an_armed_mailbox_wakes_and_no_other() {
        let mailbox = mailbox(8);
        let waker = &mailbox.waker;
        // Asleep from here on, so that each call of it would count.
        let push_while_asleep = || {
            waker.fall_asleep();
            assert_eq!(mailbox.push(0, 1), None);
            wakes(waker)
        };
        assert_eq!(push_while_asleep(), 0, "it was never armed");
        for armed in 1..3 {
            drain(&mailbox, mailbox.count());
            assert!(mailbox.arm());
            assert_eq!(push_while_asleep(), armed);
            assert_eq!(push_while_asleep(), armed, "somebody has woken already");
        }
        drain(&mailbox, 2);
        assert!(mailbox.arm());
        mailbox.disarm();
        assert_eq!(push_while_asleep(), 2, "it was disarmed");
    }

    #[test]
    fn a_push_past_the_bound_is_taken_and_counted() {
        let mailbox = mailbox(1);
        fill(&mailbox, 3);
        assert_eq!(mailbox.count(), 3);
        drain(&mailbox, 2);
        assert_eq!(mailbox.admit(), Admission::Full);
        drain(&mailbox, 1);
        assert_eq!(mailbox.admit(), Admission::Room { count: 0 });
    }

    #[test]
    fn waiters_are_told_below_half_in_turn_and_once() {
        let mailbox = mailbox(4);
        fill(&mailbox, 4);
        for waiter in 'a'..='e' {
            assert_eq!(mailbox.wait(waiter), None);
        }
        assert_eq!(drain(&mailbox, 2), [], "half full is not below half");
        assert_eq!(drain(&mailbox, 1), ['a', 'b', 'c']);
        assert_eq!(drain(&mailbox, 1), ['d', 'e']);
        assert_eq!(drain(&mailbox, 0), []);
        assert!(mailbox.arm());
    }

    #[test]
    fn waiters_beyond_the_free_places_are_told_though_nothing_more_is_sent() {
        let mailbox = mailbox(1);
        fill(&mailbox, 1);
        assert_eq!(mailbox.wait('a'), None);
        assert_eq!(mailbox.wait('b'), None);
        assert_eq!(drain(&mailbox, 1), ['a']);
        assert!(mailbox.has_work(), "somebody has to be told yet");
        assert!(!mailbox.arm(), "somebody has to be told yet");
        mailbox.disarm();
        assert_eq!(drain(&mailbox, 0), ['b']);
        assert!(mailbox.arm());
    }

    #[test]
    fn a_waiter_comes_back_when_there_is_room_or_never_will_be() {
        let mailbox = mailbox(1);
        assert_eq!(mailbox.wait('a'), Some('a'));
        fill(&mailbox, 1);
        assert_eq!(mailbox.wait('b'), None);
        let mut told = Vec::new();
        mailbox.close(&mut told);
        assert_eq!(told, ['b']);
        assert_eq!(mailbox.wait('c'), Some('c'));
    }

    #[test]
    fn a_closed_mailbox_gives_back_what_is_pushed() {
        let mailbox = mailbox(4);
        fill(&mailbox, 1);
        assert!(!mailbox.is_closed());
        for _ in 0..2 {
            mailbox.close(&mut Vec::new());
            assert!(mailbox.is_closed(), "for good");
        }
        assert_eq!((mailbox.admit(), mailbox.count()), (Admission::Closed, 1));
        assert_eq!(mailbox.pop(), Some(0));
        assert_eq!(mailbox.push(7, 1), Some(7));
        assert!(!mailbox.has_entries());
    }

    #[test]
    fn an_empty_mailbox_is_as_small_as_the_docs_say() {
        assert_eq!(size_of::<Mailbox<[u8; 400], [u8; 400]>>(), 256);
    }

    /// Four senders against a poller that sleeps whenever it may. A lost wake hangs this test.
    #[test]
    fn all_arrive_in_the_order_of_their_sender() {
        const SENDERS: usize = 4;
        const EACH: usize = 50_000;
        let waker = waker();
        let mailbox = Mailbox::<(usize, usize), ()>::new(usize::MAX, waker.clone());
        thread::scope(|scope| {
            for sender in 0..SENDERS {
                let mailbox = &mailbox;
                scope.spawn(move || {
                    for n in 0..EACH {
                        assert_eq!(mailbox.push((sender, n), 1), None);
                    }
                });
            }
            let mut next = [0; SENDERS];
            while next.iter().sum::<usize>() < SENDERS * EACH {
                let mut popped = 0;
                while let Some((sender, n)) = mailbox.pop() {
                    assert_eq!(n, next[sender]);
                    next[sender] += 1;
                    popped += 1;
                }
                mailbox.release(popped, &mut Vec::new());
                if next.iter().sum::<usize>() == SENDERS * EACH {
                    break;
                }
                waker.fall_asleep();
                if mailbox.arm() {
                    block(&waker);
                }
                waker.get_up();
                mailbox.disarm();
            }
        });
        assert_eq!(mailbox.count(), 0);
    }

    /// A close in the midst of sends: each entry is taken by the poller, comes back, or was
    /// refused.
    #[test]
    fn a_close_among_sends_leaves_nothing_behind() {
        const SENDERS: usize = 4;
        const EACH: usize = 200;
        for round in 0..200 {
            let mailbox = Mailbox::<usize, ()>::new(usize::MAX, waker());
            let (stranded, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let mut delivered = 0;
            thread::scope(|scope| {
                for sender in 0..SENDERS {
                    let (mailbox, stranded, refused) = (&mailbox, &stranded, &refused);
                    scope.spawn(move || {
                        for _ in 0..EACH {
                            if mailbox.admit() == Admission::Closed {
                                refused.fetch_add(1, SeqCst);
                            } else if mailbox.push(sender, 1).is_some() {
                                stranded.fetch_add(1, SeqCst);
                            }
                        }
                    });
                }
                while delivered < round {
                    delivered += usize::from(mailbox.pop().is_some());
                }
                mailbox.close(&mut Vec::new());
                delivered += std::iter::from_fn(|| mailbox.pop()).count();
            });
            assert!(!mailbox.has_entries());
            let sent = delivered + stranded.into_inner() + refused.into_inner();
            assert_eq!(sent, SENDERS * EACH);
        }
    }
}

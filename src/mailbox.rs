//! The mailbox: entries of one type from any thread to one poller, with a bound, a sleep state and
//! a line of waiters.
//!
//! # The word
//!
//! All but the entries and the waiters themselves is one atomic word, so that a push learns all it
//! must know from the operation that counts it:
//!
//! | bits  | name    | set by                              | cleared by                             |
//! |-------|---------|-------------------------------------|----------------------------------------|
//! | 0     | ASLEEP  | poller, `arm`                       | poller, `disarm`                       |
//! | 1     | CLOSED  | poller, `close`                     | nobody                                 |
//! | 2     | WAITERS | anybody, `wait`, under the lock     | who empties the line, under the lock   |
//! | 3..64 | count   | senders add the places of an entry (`push`), the poller subtracts (`release`)                       |
//!
//! The count is of the entries pushed and not yet released, signed. A sender counts *after* it
//! pushed, so one that is preempted in the middle leaves an entry without a count, never a count
//! without an entry: a poller that sees a count above what it released finds that much to pop. The
//! price is a count that may be below zero for a moment (entry popped and released before its
//! sender counted it), and a bound that may be exceeded by at most the number of threads that are
//! sending at that moment.
//!
//! Every write is a read-modify-write. The word therefore has one order of changes, on which each
//! argument below rests, and every Release in it stays readable through whatever others do to the
//! word in between (a release sequence).
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
//! *Push against arm.* If the push's `fetch_add` (Release) comes before the `fetch_or` (Acquire) of
//! `arm`, the poller, which looks under the lock after it, sees the entry and does not block. If it
//! comes after, it reads ASLEEP and calls the waker; its Acquire has read what `arm` released, so
//! its swap of the waker's state comes after `fall_asleep`'s. There is no third case. Were 1 and 2
//! the other way round, the sender could find the waker AWAKE, and the poller would then block on a
//! full mailbox.
//!
//! *Push against disarm.* A sender that comes after `disarm` wakes nobody: the poller arms again
//! before it next blocks.
//!
//! *A mailbox that has just been made* is armed only once the poller knows of it. Whoever makes it
//! pushes a command that tells the poller, into a mailbox that the poller does know: that push
//! wakes, and the poller drains what it learns of in the same turn.
//!
//! # The end
//!
//! `close` sets CLOSED, and the poller takes what is left. A push counted before is seen by it,
//! under the lock. A push counted after reads CLOSED and pops one entry itself, perhaps another
//! late sender's: each takes out as many as it put in, and one that finds nothing was spared the
//! work by another, so when all have returned nothing is left.
//!
//! # The entries
//!
//! A plain locked deque, which the poller takes out whole. The lock is held for a push or a swap,
//! some nanoseconds; where it is contended at that very moment it spins and then sleeps in the
//! kernel. Measured against it (`benches/benches/sends.rs`): crossbeam's channel and its SegQueue,
//! lock-free, cost twice as much, because each message then sends three cache lines from one
//! processor to the other, and here it is one line for a batch. (They, too, make a receiver wait
//! for a sender that was preempted in the middle.) And the models check the whole of it as it
//! ships.
//!
//! # The waiters
//!
//! Those who found the mailbox full wait in line, oldest first, and are handed out when the count
//! falls below half the bound, as many at a time as there are free places.
//!
//! *Wait against release.* `wait` sets WAITERS under the lock. If that comes before the `fetch_sub`
//! of `release`, the poller sees the bit, and finds the waiter under the lock. If it comes after,
//! `wait` reads the lowered count and gives the waiter back at once, as nobody else might ever tell
//! it. The same holds for `close` and CLOSED. The bit is changed under the lock only, so it is
//! never clear while somebody waits.
//!
//! *More waiters than places.* Those who were told may have nothing to send any more, and then no
//! release would follow for the rest. So while WAITERS is set below half the bound, `arm` says no,
//! and the poller's next `release`, of nothing if need be, hands out the next ones.
//!
//! Ordering: the entries are under their lock. The word's AcqRel in `push`, `arm` and `close` is
//! what orders the waker's state with it (a sender that reads ASLEEP comes after `fall_asleep`).
//! All else is Relaxed, because it asks about the word alone or holds the lock.

use super::sync::{Arc, AtomicI64, Mutex, Ordering, lock};
use super::waker::Waker;
use std::collections::VecDeque;
use std::mem;

/// The poller sleeps or is about to: a push must wake it.
const ASLEEP: i64 = 1 << 0;
/// The poller takes no more entries: a push takes one out again.
const CLOSED: i64 = 1 << 1;
/// Somebody waits for room: a release that makes some must look.
const WAITERS: i64 = 1 << 2;
/// One entry in the count.
const ONE: i64 = 1 << 3;

/// What a sender writes for each entry: on one cache line, and on no other's (two, because
/// processors fetch them in pairs), so that it travels between sender and poller once for both.
#[derive(Debug)]
#[repr(align(128))]
struct Hot<T> {
    /// See the table above. Invariant: once all senders have returned, the count is the places of
    /// what `entries` holds and of what was taken and not yet released.
    word: AtomicI64,
    /// In the order of their arrival.
    entries: Mutex<VecDeque<T>>,
}

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
    hot: Hot<T>,
    /// Entries allowed to wait. Invariant: at least 1.
    bound: usize,
    /// Oldest first. Invariant: empty whenever WAITERS is clear and the lock is free.
    waiters: Mutex<VecDeque<W>>,
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
            hot: Hot {
                word: AtomicI64::new(0),
                entries: Mutex::new(VecDeque::new()),
            },
            bound,
            waiters: Mutex::new(VecDeque::new()),
            waker,
        }
    }

    /// Whether one more entry may be pushed. Reserves nothing: of several senders that are told so
    /// at the same time all may push.
    pub fn admit(&self) -> Admission {
        let word = self.hot.word.load(Ordering::Relaxed);
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
    /// Returns an entry, not always the same one, when the mailbox was closed: nobody else will
    /// take it, and it is the caller's to count as a dead letter.
    #[must_use = "an entry that comes back was not delivered"]
    pub fn push(&self, entry: T, places: usize) -> Option<T> {
        lock(&self.hot.entries).push_back(entry);
        let before = self
            .hot
            .word
            .fetch_add(places as i64 * ONE, Ordering::AcqRel);
        if before & ASLEEP != 0 {
            self.waker.wake();
        }
        if before & CLOSED != 0 {
            return self.pop();
        }
        None
    }

    /// Takes all entries, in exchange for the empty `batch`. They are counted until they are
    /// [released](Mailbox::release).
    pub fn take(&self, batch: &mut VecDeque<T>) {
        debug_assert!(batch.is_empty());
        mem::swap(&mut *lock(&self.hot.entries), batch);
    }

    /// Takes the oldest entry. It is counted until it is [released](Mailbox::release).
    pub fn pop(&self) -> Option<T> {
        lock(&self.hot.entries).pop_front()
    }

    /// Asks senders to wake, and looks a last time: `false` when there is something to do and the
    /// poller must not block.
    ///
    /// All that was popped must have been released, or waiters might sleep as well.
    #[must_use = "a poller that blocks all the same may sleep for ever"]
    pub fn arm(&self) -> bool {
        let word = self.hot.word.fetch_or(ASLEEP, Ordering::AcqRel);
        lock(&self.hot.entries).is_empty() && !(word & WAITERS != 0 && self.is_below_half(word))
    }

    /// Senders need not wake any more.
    pub fn disarm(&self) {
        self.hot.word.fetch_and(!ASLEEP, Ordering::Relaxed);
    }

    /// Gives back the room of `n` popped entries, and moves to `out` the waiters who now have some.
    /// Once a turn, not once an entry.
    pub fn release(&self, n: usize, out: &mut Vec<W>) {
        let freed = n as i64 * ONE;
        let word = match freed {
            0 => self.hot.word.load(Ordering::Relaxed),
            _ => self.hot.word.fetch_sub(freed, Ordering::Relaxed) - freed,
        };
        if word & WAITERS != 0 && self.is_below_half(word) {
            let mut waiters = lock(&self.waiters);
            let told = waiters.len().min(self.bound - count_of(word));
            out.extend(waiters.drain(..told));
            if waiters.is_empty() {
                self.hot.word.fetch_and(!WAITERS, Ordering::Relaxed);
            }
        }
    }

    /// Takes the room of `n` entries that were never pushed: the poller keeps them itself, and
    /// releases them later.
    pub fn occupy(&self, n: usize) {
        self.hot.word.fetch_add(n as i64 * ONE, Ordering::Relaxed);
    }

    /// Puts a waiter in line for room, or gives it back when there is room already or never will
    /// be.
    #[must_use = "a waiter that comes back is told by nobody else"]
    pub fn wait(&self, waiter: W) -> Option<W> {
        let mut waiters = lock(&self.waiters);
        let word = self.hot.word.fetch_or(WAITERS, Ordering::Relaxed);
        if word & CLOSED == 0 && !self.is_below_half(word) {
            waiters.push_back(waiter);
            return None;
        }
        if waiters.is_empty() {
            self.hot.word.fetch_and(!WAITERS, Ordering::Relaxed);
        }
        Some(waiter)
    }

    /// Takes no more entries, and moves all waiters to `out`. The caller then pops until nothing is
    /// left.
    pub fn close(&self, out: &mut Vec<W>) {
        self.hot.word.fetch_or(CLOSED, Ordering::AcqRel);
        let mut waiters = lock(&self.waiters);
        out.extend(waiters.drain(..));
        self.hot.word.fetch_and(!WAITERS, Ordering::Relaxed);
    }

    /// Whether the poller has stopped.
    pub fn is_closed(&self) -> bool {
        self.hot.word.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Entries that wait, as far as their senders have counted them. Means nothing once the mailbox
    /// is closed.
    pub fn count(&self) -> usize {
        count_of(self.hot.word.load(Ordering::Relaxed))
    }

    /// Entries that may wait.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Whether a `pop` would find something. A hint: only [`arm`](Mailbox::arm) may decide that the
    /// poller sleeps.
    pub fn has_entries(&self) -> bool {
        !lock(&self.hot.entries).is_empty()
    }

    /// Where waiters are told. Well below the bound, so that a told waiter can send several before
    /// it has to wait again.
    fn is_below_half(&self, word: i64) -> bool {
        count_of(word) < self.bound.div_ceil(2)
    }
}

/// The count in a word, with what is below zero taken as nothing.
fn count_of(word: i64) -> usize {
    // The shift keeps the sign; the flags, the three lowest bits, fall off.
    (word >> ONE.trailing_zeros()).max(0) as usize
}

#[cfg(test)]
mod tests {
    use super::super::sync::WakeFd;
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;

    // The two places where these tests know what a `WakeFd` is.
    fn waker() -> Arc<Waker> {
        Arc::new(Waker::new(WakeFd::new().expect("an eventfd")))
    }
    fn block(waker: &Waker) {
        waker.fd().wait();
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
    fn a_count_below_zero_is_room() {
        let mailbox = mailbox(1);
        mailbox.release(1, &mut Vec::new());
        assert_eq!(mailbox.admit(), Admission::Room { count: 0 });
        assert_eq!(mailbox.wait('a'), Some('a'));
        fill(&mailbox, 1);
        assert_eq!(mailbox.count(), 0);
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
        mailbox.close(&mut Vec::new());
        assert_eq!(mailbox.admit(), Admission::Closed);
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

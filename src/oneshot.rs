//! The answer of an ask: one reply, from wherever the asked actor lives to a thread that waits for
//! it.
//!
//! States, all behind one lock:
//! - Waiting: asked. To Filled by `put`, to Dropped by `close`, to Over by the deadline.
//! - Filled: the reply is there. To Over by whoever takes it, at once or at the deadline.
//! - Dropped: nobody will answer. To Over when the waiter has been told.
//! - Over: the waiter has gone. A `put` gives its reply back.
//!
//! The race of reply and deadline is decided by the lock: if `put` comes first, the waiter gets the
//! reply though its time is up; if the deadline comes first, `put` fails and the replier knows.
//! Never both, never neither. A lock and not atomics, because a thread that blocks pays for a futex
//! anyway; pollers never wait here.

use super::sync::{Condvar, Mutex, lock};
use std::mem;
use std::sync::PoisonError;
use std::time::Instant;

#[derive(Debug)]
enum State<R> {
    Waiting,
    Filled(R),
    Dropped,
    Over,
}

/// Why [`Oneshot::wait_until`] has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// The deadline passed.
    TimedOut,
    /// The one who was asked gave up the right to answer, or has gone.
    Dropped,
}

/// Room for one reply.
#[derive(Debug)]
pub struct Oneshot<R> {
    state: Mutex<State<R>>,
    /// Woken on leaving Waiting. There is one waiter.
    answered: Condvar,
}

impl<R> Oneshot<R> {
    /// A question that waits for its reply.
    pub fn new() -> Self {
        Oneshot {
            state: Mutex::new(State::Waiting),
            answered: Condvar::new(),
        }
    }

    /// Replies.
    ///
    /// # Errors
    ///
    /// Gives the reply back when nobody waits for it any more, or there was one already.
    pub fn put(&self, reply: R) -> Result<(), R> {
        let mut state = lock(&self.state);
        if !matches!(*state, State::Waiting) {
            return Err(reply);
        }
        *state = State::Filled(reply);
        drop(state);
        self.answered.notify_one();
        Ok(())
    }

    /// Nobody will reply. After a `put` it means nothing, so that a reply handle may call it
    /// whenever it is dropped.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        if matches!(*state, State::Waiting) {
            *state = State::Dropped;
            drop(state);
            self.answered.notify_one();
        }
    }

    /// The waiter gives up: gets the reply if it had come before, and from now on every `put`
    /// fails.
    pub fn abandon(&self) -> Option<R> {
        match mem::replace(&mut *lock(&self.state), State::Over) {
            State::Filled(reply) => Some(reply),
            State::Waiting | State::Dropped | State::Over => None,
        }
    }

    /// Blocks until there is a reply, or the deadline, at which it [abandons](Oneshot::abandon).
    /// Not on a poller's thread.
    ///
    /// # Errors
    ///
    /// [`NoReply`] says why there is none; whatever is put later fails.
    pub fn wait_until(&self, deadline: Instant) -> Result<R, NoReply> {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            if matches!(*state, State::Waiting) && now < deadline {
                (state, _) = self
                    .answered
                    .wait_timeout(state, deadline - now)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            return match mem::replace(&mut *state, State::Over) {
                State::Filled(reply) => Ok(reply),
                State::Dropped => Err(NoReply::Dropped),
                State::Waiting | State::Over => Err(NoReply::TimedOut),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn a_reply_is_taken_once_and_put_once() {
        let oneshot = Oneshot::new();
        assert_eq!(oneshot.put(1), Ok(()));
        assert_eq!(oneshot.put(2), Err(2));
        oneshot.close();
        assert_eq!(oneshot.wait_until(far()), Ok(1));
        assert_eq!(oneshot.abandon(), None);
        assert_eq!(oneshot.put(3), Err(3));
    }

    #[test]
    fn a_reply_that_came_before_the_deadline_is_not_lost_to_it() {
        let oneshot = Oneshot::new();
        assert_eq!(oneshot.put(1), Ok(()));
        assert_eq!(oneshot.wait_until(Instant::now()), Ok(1));
    }

    #[test]
    fn after_the_deadline_a_reply_is_given_back() {
        let oneshot = Oneshot::new();
        assert_eq!(oneshot.wait_until(Instant::now()), Err(NoReply::TimedOut));
        assert_eq!(oneshot.put(1), Err(1));
    }

    #[test]
    fn the_waiter_learns_that_nobody_will_reply() {
        let oneshot = Oneshot::<u32>::new();
        thread::scope(|scope| {
            scope.spawn(|| oneshot.close());
            assert_eq!(oneshot.wait_until(far()), Err(NoReply::Dropped));
        });
    }

    #[test]
    fn of_reply_and_deadline_exactly_one_wins() {
        for _ in 0..2_000 {
            let oneshot = Oneshot::new();
            thread::scope(|scope| {
                let put = scope.spawn(|| oneshot.put(1));
                let got = oneshot.wait_until(Instant::now() + Duration::from_micros(20));
                match put.join().expect("put does not panic") {
                    Ok(()) => assert_eq!(got, Ok(1)),
                    Err(_) => assert_eq!(got, Err(NoReply::TimedOut)),
                }
            });
        }
    }
}

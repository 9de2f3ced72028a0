//! Asking an actor and getting an answer: a [`Reply`] travels in the message, and exactly one of
//! answer and timeout wins.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::actor::Actor;
use crate::addr::Addr;
use crate::oneshot::{NoReply, Oneshot};
use crate::sync::lock;
use crate::sys::{Network, clock};
use crate::timers::deadline_after;

/// Why an ask has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AskError {
    /// The mailbox of the asked was full.
    Full,
    /// The asked had gone.
    Gone,
    /// The question was dropped without an answer: the asked ended first, or did not want to say.
    Unanswered,
    /// No answer within the time; one that comes later is refused.
    TimedOut,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AskError::Full => "ask: the mailbox of the asked is full",
            AskError::Gone => "ask: the asked has gone",
            AskError::Unanswered => "ask: the question was dropped unanswered",
            AskError::TimedOut => "ask: no answer in time",
        })
    }
}

impl Error for AskError {}

/// The right to answer one question. Dropped unused, the asker is told [`AskError::Unanswered`].
///
/// Callable from any thread, never blocks.
pub struct Reply<R: Send + 'static> {
    to: Option<ReplyTo<R>>,
}

enum ReplyTo<R> {
    /// A thread outside waits.
    Thread(Arc<Oneshot<R>>),
    /// An actor is sent a message.
    Actor(Arc<Question<R>>),
}

impl<R: Send + 'static> Reply<R> {
    /// Answers.
    ///
    /// # Errors
    ///
    /// The answer comes back when nobody waits for it any more.
    pub fn send(mut self, reply: R) -> Result<(), R> {
        match self.to.take() {
            Some(ReplyTo::Thread(oneshot)) => oneshot.put(reply),
            Some(ReplyTo::Actor(question)) => question.answer(reply),
            None => Err(reply),
        }
    }
}

impl<R: Send + 'static> Drop for Reply<R> {
    fn drop(&mut self) {
        match self.to.take() {
            Some(ReplyTo::Thread(oneshot)) => oneshot.close(),
            Some(ReplyTo::Actor(question)) => question.fail(AskError::Unanswered),
            None => {}
        }
    }
}

impl<R: Send + 'static> fmt::Debug for Reply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply<{}>", std::any::type_name::<R>())
    }
}

type Deliver<R> = Box<dyn FnOnce(Result<R, AskError>) + Send>;

/// A question of an actor. Whoever takes the closure out first, the answer or the timeout, is the
/// one that is heard.
struct Question<R> {
    deliver: Mutex<Option<Deliver<R>>>,
}

impl<R: Send + 'static> Question<R> {
    fn answer(&self, reply: R) -> Result<(), R> {
        let Some(deliver) = lock(&self.deliver).take() else {
            return Err(reply);
        };
        deliver(Ok(reply));
        Ok(())
    }
}

trait Fails: Send + Sync {
    fn fail(&self, error: AskError);
}

impl<R: Send + 'static> Fails for Question<R> {
    fn fail(&self, error: AskError) {
        let deliver = lock(&self.deliver).take();
        if let Some(deliver) = deliver {
            deliver(Err(error));
        }
    }
}

slotmap::new_key_type! {
    /// A question that an actor of this poller asked and that has no answer yet.
    pub(crate) struct AskKey;
}

/// The asker's side of a question, kept by its timeout.
#[derive(Clone)]
pub(crate) struct Asked(Arc<dyn Fails>);

impl Asked {
    pub(crate) fn new<R: Send + 'static>(
        deliver: impl FnOnce(Result<R, AskError>) + Send + 'static,
    ) -> (Reply<R>, Asked) {
        let question = Arc::new(Question {
            deliver: Mutex::new(Some(Box::new(deliver) as Deliver<R>)),
        });
        (
            Reply {
                to: Some(ReplyTo::Actor(question.clone())),
            },
            Asked(question),
        )
    }

    pub(crate) fn fail(&self, error: AskError) {
        self.0.fail(error);
    }
}

thread_local! {
    static ON_POLLER: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Says of the calling thread whether it is a poller, which must never wait; returns what was said
/// before.
pub(crate) fn mark_poller_thread(is_poller: bool) -> bool {
    ON_POLLER.replace(is_poller)
}

pub(crate) fn on_poller_thread() -> bool {
    ON_POLLER.get()
}

impl<A: Actor> Addr<A> {
    /// Asks the actor and blocks the calling thread until it has answered, `timeout` at most.
    ///
    /// Inside an actor use [`Context::ask`](crate::Context::ask), which does not block.
    ///
    /// ```no_run
    /// # use greenroom::*;
    /// # struct Counter; enum Question { HowMany(Reply<usize>) }
    /// # impl Actor for Counter { type Message = Question; }
    /// # fn f(counter: Addr<Counter>) -> Result<(), AskError> {
    /// let count = counter.ask(std::time::Duration::from_secs(1), Question::HowMany)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`AskError`] says why there is no answer.
    ///
    /// # Panics
    ///
    /// On a poller thread, which would stall all its actors, and on one with a
    /// [`Simulation`](crate::testing::Simulation), which has an `ask` of its own.
    #[track_caller]
    pub fn ask<R: Send + 'static>(
        &self,
        timeout: Duration,
        question: impl FnOnce(Reply<R>) -> A::Message,
    ) -> Result<R, AskError> {
        assert!(
            !on_poller_thread(),
            "ask: this would block a poller; inside an actor use Context::ask"
        );
        assert!(
            !Network::with(|network| network.is_simulated()),
            "ask: nothing happens on this thread while it waits; use Simulation::ask"
        );
        let deadline = deadline_after(clock::now(), timeout);
        let oneshot = Arc::new(Oneshot::new());
        let message = question(Reply {
            to: Some(ReplyTo::Thread(oneshot.clone())),
        });
        if let Err(error) = self.send(message) {
            return Err(if error.is_full() {
                AskError::Full
            } else {
                AskError::Gone
            });
        }
        oneshot.wait_until(deadline).map_err(|none| match none {
            NoReply::TimedOut => AskError::TimedOut,
            NoReply::Dropped => AskError::Unanswered,
        })
    }
}

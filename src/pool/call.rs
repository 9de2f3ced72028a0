//! What is asked of a pool, in which protocol, and what comes of it.

use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use crate::actor::Actor;
use crate::addr::Addr;
use crate::ask::{AskError, Reply};
use crate::context::Context;
use crate::input::Input;
use crate::registry::ActorId;
use crate::sys::clock;
use crate::timers::deadline_after;

use super::Pool;

/// A protocol of requests and answers, as one connection of a [`Pool`] speaks it: one request is
/// written, and its answer read to the end, before the next.
///
/// One of them is made for each connection, so it may keep what belongs to one. A panic in it ends
/// that connection alone.
///
/// ```
/// use greenroom::{Exchange, Input};
///
/// /// A line each way.
/// struct Lines;
///
/// impl Exchange for Lines {
///     type Request = String;
///     type Answer = String;
///
///     fn request(&mut self, request: String, output: &mut Vec<u8>) {
///         output.extend_from_slice(request.as_bytes());
///         output.push(b'\n');
///     }
///
///     fn answer(
///         &mut self,
///         input: &mut Input<'_>,
///     ) -> Result<Option<String>, Box<dyn std::error::Error + Send + Sync>> {
///         let line = input.line(4096)?;
///         Ok(line.map(|line| String::from_utf8_lossy(line).into_owned()))
///     }
/// }
/// ```
pub trait Exchange: 'static {
    /// What is asked.
    type Request: Send + 'static;
    /// What comes back.
    type Answer: Send + 'static;

    /// Writes a request behind what is in `output`.
    fn request(&mut self, request: Self::Request, output: &mut Vec<u8>);

    /// Takes an answer, if it is there as a whole; `None` when more has to come, with what came
    /// left in `input` or consumed, as for [`Actor::readable`].
    ///
    /// # Errors
    ///
    /// When what came is no answer: the connection is closed, and the asker is told
    /// [`CallError::Lost`]. Bytes behind an answer are an error as well, which needs nothing here.
    fn answer(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Option<Self::Answer>, Box<dyn Error + Send + Sync>>;

    /// What a new connection is to ask before it is lent: to log in, to choose a database. By
    /// default nothing. Its answer has 10 s to come; then the connection counts as one that could not
    /// be made.
    fn greeting(&mut self) -> Option<Self::Request> {
        None
    }

    /// Looks at the answer to the greeting.
    ///
    /// # Errors
    ///
    /// When the connection is of no use: it is closed, and counts as one that could not be made.
    fn greeted(&mut self, answer: Self::Answer) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _ = answer;
        Ok(())
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// Not within its time: no connection was free, or could be made, or the answer has not come.
    /// The connection that it was asked on, if it was, is closed: what is still to come there would
    /// be taken for the next one's answer.
    TimedOut,
    /// As many calls wait as [may](Pool::max_waiting), or the pool's mailbox is full.
    Full,
    /// The connection was lost when the request had been written and its answer had not come: the
    /// other side may have carried it out, or not. The text says why.
    Lost(String),
    /// The pool has gone, or the system stops and no connection is left.
    Closed,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::TimedOut => f.write_str("call: no answer in time"),
            CallError::Full => f.write_str("call: too many calls wait for a connection"),
            CallError::Lost(why) => write!(f, "call: the connection was lost: {why}"),
            CallError::Closed => f.write_str("call: the pool is closed"),
        }
    }
}

impl Error for CallError {}

impl From<AskError> for CallError {
    fn from(error: AskError) -> CallError {
        match error {
            AskError::Full => CallError::Full,
            AskError::TimedOut => CallError::TimedOut,
            AskError::Gone | AskError::Unanswered => CallError::Closed,
        }
    }
}

/// What a pool has at one moment, and has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolCounts {
    /// Connections being made, or [greeting](Exchange::greeting).
    pub connecting: usize,
    /// Connections that wait for a request.
    pub idle: usize,
    /// Connections that wait for an answer.
    pub lent: usize,
    /// Calls that wait for a connection.
    pub waiting: usize,
    /// Connections that came to be lent, so far.
    pub made: u64,
    /// Connects that came to nothing, so far.
    pub failed: u64,
    /// Connections thrown away, so far: lost, or with bytes that nobody had asked for, or without an
    /// answer in time. Those that were idle for too long are not among them.
    pub broken: u64,
}

/// What a [`Pool`] is sent: made by [`PoolMessage::call`] and [`PoolMessage::counts`].
pub struct PoolMessage<E: Exchange>(pub(super) What<E>);

pub(super) enum What<E: Exchange> {
    Call(Call<E>),
    Counts(Reply<PoolCounts>),
    /// A lane has been connected and greeted.
    Ready(ActorId),
    /// It has had its answer, and nothing else.
    Back(ActorId),
    Gone(ActorId, End),
    /// A lane has gone before it wrote this: nobody has seen it, so another one may.
    Again(Call<E>),
}

/// How a lane has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It could not be made.
    Failed,
    Broken,
    /// The same before anything was asked on it.
    Unused,
    /// As the pool wanted it.
    Closed,
}

pub(super) struct Call<E: Exchange> {
    pub(super) request: E::Request,
    pub(super) reply: Reply<Result<E::Answer, CallError>>,
    pub(super) deadline: Instant,
}

impl<E: Exchange> Call<E> {
    /// Its time is over, and it was sent nowhere.
    pub(super) fn expire(self) {
        // Who asked has a deadline of their own, and may have been told by that.
        let _ = self.reply.send(Err(CallError::TimedOut));
    }
}

impl<E: Exchange> PoolMessage<E> {
    /// A request, and who is told what came of it: for [`Context::ask`] and
    /// [`Addr::ask`](crate::Addr::ask), with the same time there as here. It is answered
    /// exactly once, or told that it is not.
    pub fn call(
        request: E::Request,
        timeout: Duration,
        reply: Reply<Result<E::Answer, CallError>>,
    ) -> PoolMessage<E> {
        PoolMessage(What::Call(Call {
            request,
            reply,
            deadline: deadline_after(clock::now(), timeout),
        }))
    }

    /// The question what there is at this moment.
    pub fn counts(reply: Reply<PoolCounts>) -> PoolMessage<E> {
        PoolMessage(What::Counts(reply))
    }
}

impl<E: Exchange> fmt::Debug for PoolMessage<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            What::Call(_) => "Call",
            What::Counts(_) => "Counts",
            What::Ready(_) => "Ready",
            What::Back(_) => "Back",
            What::Gone(..) => "Gone",
            What::Again(_) => "Again",
        })
    }
}

impl<E: Exchange> Addr<Pool<E>> {
    /// Asks for a connection and on it, from an actor: what came of it comes as a message, which
    /// `answer` makes. Exactly one comes, within `timeout`, in reserved room.
    ///
    /// ```rust,no_run
    /// # use greenroom::*; use std::time::Duration;
    /// # struct Lines; impl Exchange for Lines { type Request = String; type Answer = String;
    /// # fn request(&mut self, _: String, _: &mut Vec<u8>) {}
    /// # fn answer(&mut self, _: &mut Input<'_>) -> Result<Option<String>, Box<dyn std::error::Error + Send + Sync>> { Ok(None) } }
    /// struct Client { pool: Addr<Pool<Lines>> }
    ///
    /// impl Actor for Client {
    ///     type Message = Result<String, CallError>;
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         if let Some(line) = input.line(4096)? {
    ///             let request = String::from_utf8_lossy(line).into_owned();
    ///             self.pool.call(request, Duration::from_secs(2), ctx, |answer| answer);
    ///             ctx.pause();
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn message(&mut self, answer: Self::Message, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.write(answer?);
    ///         ctx.resume();
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn call<A: Actor>(
        &self,
        request: E::Request,
        timeout: Duration,
        ctx: &mut Context<'_, A>,
        answer: impl FnOnce(Result<E::Answer, CallError>) -> A::Message + Send + 'static,
    ) {
        ctx.ask(
            self,
            timeout,
            |reply| PoolMessage::call(request, timeout, reply),
            |told| answer(told.unwrap_or_else(|error| Err(error.into()))),
        );
    }

    /// The same from a thread, which waits.
    ///
    /// # Errors
    ///
    /// [`CallError`] says why there is no answer.
    ///
    /// # Panics
    ///
    /// Where [`Addr::ask`] does: on a poller's thread, and in a simulation.
    pub fn call_and_wait(
        &self,
        request: E::Request,
        timeout: Duration,
    ) -> Result<E::Answer, CallError> {
        let told = self.ask(timeout, |reply| PoolMessage::call(request, timeout, reply));
        told.unwrap_or_else(|error| Err(error.into()))
    }
}

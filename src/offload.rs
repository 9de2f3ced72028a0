//! Work that blocks, off the pollers: a closure runs on a thread of the system's pool, and its
//! result comes back as a message.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::actor::Actor;
use crate::addr::{Answer, Entry, Loss, Post, What};
use crate::ask::AskKey;
use crate::context::Context;
use crate::handle::{Handle, Shared};
use crate::hosts::{contain, count_panic, guard};
use crate::registry::{ActorKey, Counters, Door};
use crate::sys::{Fault, Network};
use crate::workers::{Job, Refusal, Work};

/// Why offloaded work has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkError {
    /// It panicked, with this message.
    Panicked(String),
}

impl fmt::Display for WorkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkError::Panicked(what) => write!(f, "offload: the work panicked: {what}"),
        }
    }
}

impl Error for WorkError {}

/// A closure that was not taken; it is inside.
pub struct NotTaken<F> {
    operation: &'static str,
    kind: NotTakenKind,
    /// As in [`SendError`](crate::SendError): never contended, and makes what is `Send` `Sync`.
    closure: Mutex<F>,
}

/// Why a closure was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotTakenKind {
    /// As many wait as may: later it may go.
    Full,
    /// The system has stopped: it will never go.
    Stopped,
    /// The process can start no thread, and there is none.
    NoThread,
}

impl<F> NotTaken<F> {
    pub(crate) fn new(operation: &'static str, kind: NotTakenKind, closure: F) -> NotTaken<F> {
        NotTaken {
            operation,
            kind,
            closure: Mutex::new(closure),
        }
    }

    /// Why.
    pub fn kind(&self) -> NotTakenKind {
        self.kind
    }

    /// As many wait as may: later it may go.
    pub fn is_full(&self) -> bool {
        self.kind == NotTakenKind::Full
    }

    /// What was not taken: the closure, or, of [`Context::offload`], the work and the closure that
    /// makes the answer.
    pub fn into_inner(self) -> F {
        self.closure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> fmt::Debug for NotTaken<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotTaken")
            .field("operation", &self.operation)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Display for NotTaken<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.kind {
            NotTakenKind::Full => "as much waits as may, try again later or ask for less",
            NotTakenKind::Stopped => "the system has stopped",
            NotTakenKind::NoThread => "the process can start no thread",
        };
        write!(f, "{}: {why}", self.operation)
    }
}

impl<F> Error for NotTaken<F> {}

/// What a panic is said to be of.
const OFFLOADED: &str = "offloaded work";

fn submit<P>(shared: &Shared, parts: P, make: impl FnOnce(P) -> Job) -> Result<(), NotTaken<P>> {
    if shared.simulated.is_some() && Network::with(|network| network.happens(Fault::Busy)) {
        return Err(NotTaken::new("offload", NotTakenKind::Full, parts));
    }
    shared
        .workers
        .submit(parts, make)
        .map_err(|(refusal, parts)| {
            let kind = match refusal {
                Refusal::Full => NotTakenKind::Full,
                Refusal::Closed => NotTakenKind::Stopped,
                Refusal::NoThread => NotTakenKind::NoThread,
            };
            NotTaken::new("offload", kind, parts)
        })
}

impl<A: Actor> Context<'_, A> {
    /// Has a thread of the system's pool run `work`, which may block, and turns what it returns into
    /// a message to this actor.
    ///
    /// Exactly one message comes: `answer` is given the result, or [`WorkError`] where the work
    /// panicked. It runs in this actor, like a callback of its own, and its
    /// message travels in reserved room. When the actor has gone by then, both are dropped and
    /// counted in [`Stats::unclaimed_work`](crate::Stats::unclaimed_work). Pieces of work run side by
    /// side and end in any order.
    ///
    /// How many threads there are and how much may wait for them is said by
    /// [`Builder::workers`](crate::Builder::workers).
    ///
    /// While the system stops, work is taken and done as before, and the pollers wait for it, until
    /// the deadline of [`Handle::stop`]. What has not begun by then is dropped and counted in the same
    /// place; what has is not interrupted, and ends by itself on its thread, which nobody waits for.
    /// Whoever is to be answered has to stay for it: by default a connection closes when it is told
    /// that the system [stops](Actor::stopping).
    ///
    /// ```no_run
    /// # use greenroom::*;
    /// use std::{fs, io};
    ///
    /// struct Server;
    ///
    /// impl Actor for Server {
    ///     type Message = Result<io::Result<Vec<u8>>, WorkError>;
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         while let Some(line) = input.line(200)? {
    ///             let path = String::from_utf8(line.to_vec())?;
    ///             // Refused where too much waits already: `?` would close the connection.
    ///             let read = ctx.offload(move || fs::read(path), |read| read);
    ///             if read.is_err() {
    ///                 ctx.write("busy, try again\n");
    ///             }
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn message(&mut self, read: Self::Message, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         match read? {
    ///             Ok(bytes) => ctx.write(bytes),
    ///             Err(error) => ctx.write(format!("{error}\n")),
    ///         };
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Both closures come back when as much waits as may, when the system has stopped, and when the
    /// process can start no thread and has none for this.
    pub fn offload<R, W, F>(&mut self, work: W, answer: F) -> Result<(), NotTaken<(W, F)>>
    where
        R: Send + 'static,
        W: FnOnce() -> R + Send + 'static,
        F: FnOnce(Result<R, WorkError>) -> A::Message + Send + 'static,
    {
        let (post, key) = self.mailbox();
        submit(&self.call().shared, (work, answer), |(work, answer)| {
            Box::new(Task {
                post,
                key,
                work: Some(work),
                result: None,
                answer: Some(answer),
            })
        })
    }
}

impl Handle {
    /// Has a thread of the system's pool run `work`, which may block, and forgets it: a panic is
    /// contained and counted. Otherwise as [`Context::offload`], which brings the result back.
    ///
    /// # Errors
    ///
    /// The closure comes back, as from [`Context::offload`].
    pub fn offload<W>(&self, work: W) -> Result<(), NotTaken<W>>
    where
        W: FnOnce() + Send + 'static,
    {
        let door = self.shared.pollers[0].door.clone();
        submit(&self.shared, work, |work| {
            let work = Some(work);
            Box::new(Alone { work, door })
        })
    }
}

/// Runs a user's closure; the text of its panic, which is counted.
fn run<R>(work: impl FnOnce() -> R, door: &Door) -> Result<R, WorkError> {
    guard(work).map_err(|panic| {
        let what = count_panic(door, OFFLOADED, &*panic);
        contain(door, "a destructor", || drop(panic));
        WorkError::Panicked(what)
    })
}

/// Work that nobody waits for.
struct Alone<W> {
    work: Option<W>,
    door: Arc<Door>,
}

impl<W: FnOnce() + Send> Work for Alone<W> {
    fn run(&mut self) {
        if let Some(work) = self.work.take() {
            contain(&self.door, OFFLOADED, work);
        }
    }

    fn deliver(self: Box<Self>) {}
}

impl<W> Drop for Alone<W> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            unclaimed(&self.door);
            contain(&self.door, "a destructor", || drop(work));
        }
    }
}

fn unclaimed(door: &Door) {
    Counters::add(&door.counters.unclaimed_work, 1);
}

/// Work that an actor waits for the result of. Dropped before it has run, it is counted: that is
/// done when no poller is left.
struct Task<R, M, W, F>
where
    M: Send + 'static,
{
    post: Arc<Post<M>>,
    key: ActorKey,
    work: Option<W>,
    result: Option<Result<R, WorkError>>,
    answer: Option<F>,
}

impl<R, M, W, F> Work for Task<R, M, W, F>
where
    R: Send + 'static,
    M: Send + 'static,
    W: FnOnce() -> R + Send,
    F: FnOnce(Result<R, WorkError>) -> M + Send + 'static,
{
    fn run(&mut self) {
        let work = self.work.take();
        self.result = work.map(|work| run(work, &self.post.door));
    }

    fn deliver(mut self: Box<Self>) {
        let (Some(result), Some(answer)) = (self.result.take(), self.answer.take()) else {
            return;
        };
        let answer = Answer {
            // The closure is the actor's code: it runs there.
            make: Box::new(move || answer(result)),
            asking: AskKey::default(),
            loss: Loss::Work,
        };
        let answer = Entry::new(self.key, What::Answer(Box::new(answer)));
        let door = &self.post.door;
        // Where the poller has ended, the answer is dropped here, with what the user put into it.
        contain(door, "a destructor", || self.post.put(answer));
    }
}

impl<R, M, W, F> Drop for Task<R, M, W, F>
where
    M: Send + 'static,
{
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            let door = &self.post.door;
            unclaimed(door);
            let answer = self.answer.take();
            contain(door, "a destructor", || drop(work));
            contain(door, "a destructor", || drop(answer));
        }
    }
}

//! An actor without a socket that is made anew, under the same address, when it panics.
//!
//! The one that hosts it stays: [`Supervised`] is the actor that its poller knows, and the one that
//! it was given is inside. Until the next one is made it waits as an actor does that waits for room:
//! what comes for it is set aside, in its order.

use std::any::type_name;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::actor::{Actor, CloseReason, Outcome};
use crate::addr::Addr;
use crate::call::{TimerFor, Wants};
use crate::context::Context;
use crate::flags::Flags;
use crate::handle::Handle;
use crate::hosts::contain;
use crate::registry::Counters;
use crate::timers::TimerKey;

/// After so many failures the time until the next restart grows no more.
const DOUBLINGS: usize = u32::BITS as usize + 1;

/// How often and how soon a [`Supervised`] actor is made anew.
///
/// By default after panics alone, at most five times within a minute, first after 10 ms and then
/// after twice the time before, up to five seconds.
#[derive(Debug, Clone)]
pub struct Restart {
    most: usize,
    within: Duration,
    first: Duration,
    longest: Duration,
    after_errors: bool,
}

impl Default for Restart {
    fn default() -> Restart {
        Restart {
            most: 5,
            within: Duration::from_secs(60),
            first: Duration::from_millis(10),
            longest: Duration::from_secs(5),
            after_errors: false,
        }
    }
}

impl Restart {
    /// The defaults.
    pub fn new() -> Restart {
        Restart::default()
    }

    /// At most so many restarts within so long; then the next failure is the actor's end. With 0 the
    /// first is, with `usize::MAX` none.
    pub fn at_most(mut self, restarts: usize, within: Duration) -> Self {
        self.most = restarts;
        self.within = within;
        self
    }

    /// How long after a failure the actor is made anew: the first time after `first`, and each
    /// further time within [`at_most`](Restart::at_most)'s time after twice as long, but no longer
    /// than `longest`.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first = first;
        self.longest = longest;
        self
    }

    /// Also after a callback has returned an error.
    pub fn after_errors(mut self) -> Self {
        self.after_errors = true;
        self
    }

    fn after(&self, failures: usize) -> Duration {
        let doubled = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let factor = 2_u32.saturating_pow(doubled);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// An actor without a socket that is made anew, under the same address, when it panics: what
/// [`Handle::supervise`] spawns. As a type of its own it can be spawned by an actor, or put on a
/// [`Stage`](crate::testing::Stage).
///
/// - The actor that failed is told by [`closed`](Actor::closed), and dropped. After the
///   [backoff](Restart::backoff) `make` makes the next one, which is [opened](Actor::opened). A panic
///   in either is a failure like any other.
/// - What the failed callback was called with is lost, a message as well as anything else; each
///   such failure is counted in [`Stats::restarts`](crate::Stats::restarts). All other messages stay,
///   and the next one gets them in their order; meanwhile they take their places in the mailbox, so
///   that senders are held back. So do answers to what the failed one had asked or offloaded.
/// - The failed one's timers and [monitors](Context::monitor) end with it. Memberships, names, and
///   who monitors it belong to the address and stay.
/// - Past the limit the actor ends like any other, for the reason of the last failure.
///
/// An adapter around it is not restarted, nor does it learn of restarts: supervise the outermost.
pub struct Supervised<A: Actor> {
    make: Box<dyn FnMut() -> A>,
    restart: Restart,
    /// `None` from a failure to the next start.
    actor: Option<A>,
    /// When it failed, no longer ago than the limit looks. At most as many as the limit, or, without
    /// one, as the backoff tells apart.
    failures: VecDeque<Instant>,
    /// Set from a failure on; when it fires the next one is made.
    backoff: Option<TimerKey>,
    /// The system stops, by this time.
    stopping: Option<Instant>,
}

impl<A: Actor> Supervised<A> {
    /// An actor that `make` makes as often as `restart` allows; the first one when this is opened.
    pub fn new(restart: Restart, make: impl FnMut() -> A + 'static) -> Supervised<A> {
        Supervised {
            make: Box::new(make),
            restart,
            actor: None,
            failures: VecDeque::new(),
            backoff: None,
            stopping: None,
        }
    }

    fn start(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let actor = self.actor.insert((self.make)());
        actor.opened(&mut ctx.of_type())?;
        if let Some(deadline) = self.stopping {
            actor.stopping(deadline, &mut ctx.of_type())?;
        }
        Ok(())
    }

    fn pass(
        &mut self,
        ctx: &mut Context<'_, Self>,
        callback: impl FnOnce(&mut A, &mut Context<'_, A>) -> Outcome,
    ) -> Outcome {
        match &mut self.actor {
            Some(actor) => callback(actor, &mut ctx.of_type()),
            None => Ok(()),
        }
    }
}

impl<A: Actor> Actor for Supervised<A> {
    type Message = A::Message;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if ctx.has_socket() || ctx.descriptor().is_some() {
            return Err("supervise: a connection cannot be made anew, only its peer can".into());
        }
        self.start(ctx)
    }

    fn message(&mut self, message: A::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(ctx, |actor, ctx| actor.message(message, ctx))
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.backoff != Some(key) {
            return self.pass(ctx, |actor, ctx| actor.timer(key, ctx));
        }
        self.backoff = None;
        // So that the new one may wait for room itself: it is the failed one that waits.
        ctx.call().flags.clear(Flags::WAITING);
        self.start(ctx)?;
        ctx.call().wants.set(Wants::GO_ON);
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.backoff.is_some() {
            // The failed one had waited. There is nobody to go on yet.
            ctx.call().wants.set(Wants::WAIT);
            return Ok(());
        }
        self.pass(ctx, |actor, ctx| actor.room(ctx))
    }

    fn stopping(&mut self, deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        self.stopping = Some(deadline);
        self.pass(ctx, |actor, ctx| actor.stopping(deadline, ctx))
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        if let Some(actor) = &mut self.actor {
            actor.closed(reason, &mut ctx.of_type());
        }
    }

    fn revive(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) -> bool {
        match reason {
            CloseReason::Panicked(_) => {}
            CloseReason::Error(_) if self.restart.after_errors => {}
            _ => return false,
        }
        let now = ctx.now();
        let within = self.restart.within;
        let is_over = |failed: &Instant| now.saturating_duration_since(*failed) >= within;
        while self.failures.front().is_some_and(is_over) {
            self.failures.pop_front();
        }
        if self.failures.len() >= self.restart.most {
            return false;
        }
        if self.restart.most == usize::MAX && self.failures.len() == DOUBLINGS {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        let (_, key) = ctx.mailbox();
        let door = ctx.call().registry.door.clone();
        Counters::add(&door.counters.restarts, 1);
        if let Some(mut actor) = self.actor.take() {
            contain(&door, type_name::<A>(), || {
                actor.closed(reason, &mut ctx.of_type())
            });
            contain(&door, "a destructor", || drop(actor));
        }
        // The text of an error is the user's code.
        let wait = self.restart.after(self.failures.len());
        contain(&door, "an error's text", || {
            log::warn!("{} is made anew in {wait:?}: {reason}", type_name::<A>());
        });
        // What its `closed` has asked for, too.
        let call = ctx.call();
        let is_its_own = |what: &TimerFor| matches!(what, TimerFor::Actor);
        call.timers.cancel_where(key.index(), is_its_own);
        call.monitors.end(key);
        self.backoff = Some(ctx.set_timer(wait));
        true
    }
}

impl<A: Actor> fmt::Debug for Supervised<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervised")
            .field("actor", &type_name::<A>())
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// Starts an actor without a socket on one of the pollers, in turn, that is made anew when it
    /// panics: see [`Supervised`] for what is kept and what is lost. The address is that of all that
    /// `make` makes.
    ///
    /// ```no_run
    /// # use greenroom::*;
    /// # use std::time::Duration;
    /// # struct Prices; impl Actor for Prices { type Message = u32; }
    /// # fn f(system: &System) {
    /// let restart = Restart::new().at_most(10, Duration::from_secs(60)).after_errors();
    /// let prices = system.handle().supervise(restart, || Prices);
    /// # }
    /// ```
    pub fn supervise<A: Actor>(
        &self,
        restart: Restart,
        make: impl FnMut() -> A + Send + 'static,
    ) -> Addr<A> {
        self.spawn(move || Supervised::new(restart, make)).inside()
    }

    /// The same on the poller of this number.
    ///
    /// # Panics
    ///
    /// When there is no such poller, see [`Handle::pollers`].
    pub fn supervise_on<A: Actor>(
        &self,
        poller: usize,
        restart: Restart,
        make: impl FnMut() -> A + Send + 'static,
    ) -> Addr<A> {
        self.spawn_on(poller, move || Supervised::new(restart, make))
            .inside()
    }
}

impl<A: Actor> Addr<Supervised<A>> {
    /// The same address, as that of the actor inside.
    pub fn inside(&self) -> Addr<A> {
        self.of_type()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Stage;

    struct Fails;

    impl Actor for Fails {
        type Message = ();

        fn message(&mut self, (): (), _: &mut Context<'_, Self>) -> Outcome {
            Err("told to".into())
        }
    }

    #[test]
    fn without_a_limit_no_more_failures_are_kept_than_the_backoff_tells_apart() {
        let (first, longest) = (Duration::from_nanos(1), Duration::from_secs(10));
        let restart = Restart::new().at_most(usize::MAX, Duration::MAX);
        let restart = restart.backoff(first, longest).after_errors();
        let grown = restart.after(DOUBLINGS);
        assert!(restart.after(DOUBLINGS - 1) < grown && grown == restart.after(usize::MAX));
        let mut stage = Stage::without_socket(Supervised::new(restart, || Fails));
        for _ in 0..10 * DOUBLINGS {
            stage.send(());
            stage.advance(longest);
        }
        assert!(stage.reason().is_none());
        assert_eq!(stage.actor().failures.len(), DOUBLINGS);
    }
}

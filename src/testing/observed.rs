//! The actor under test, in a wrapper that the stage can look into, also after the actor's end.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::rc::Rc;

use crate::actor::{Actor, CloseReason, Outcome, pass_on};
use crate::connect::copy_of;
use crate::context::Context;

/// What the stage and the wrapper share. Borrowed by the wrapper during a callback, by the stage
/// between two.
pub(super) struct Seen<A> {
    pub(super) actor: A,
    /// What a callback returned, until `closed` is told.
    error: Option<Box<dyn Error + Send + Sync>>,
    pub(super) reason: Option<CloseReason>,
}

/// Passes every callback on to the actor.
pub(super) struct Observed<A> {
    seen: Rc<RefCell<Seen<A>>>,
}

impl<A: Actor> Observed<A> {
    pub(super) fn new(actor: A) -> (Observed<A>, Rc<RefCell<Seen<A>>>) {
        let seen = Seen {
            actor,
            error: None,
            reason: None,
        };
        let seen = Rc::new(RefCell::new(seen));
        (Observed { seen: seen.clone() }, seen)
    }

    fn pass(
        &mut self,
        ctx: &mut Context<'_, Self>,
        callback: impl FnOnce(&mut A, &mut Context<'_, A>) -> Outcome,
    ) -> Outcome {
        let seen = &mut *self.seen.borrow_mut();
        callback(&mut seen.actor, &mut ctx.of_type()).map_err(|error| {
            // Kept here, since `closed` is told its reason by reference and the test is to have the
            // very error.
            let text = error.to_string();
            seen.error = Some(error);
            Box::new(Kept(text)) as _
        })
    }
}

impl<A: Actor> Actor for Observed<A> {
    type Message = A::Message;

    pass_on! {
        opened readable read_closed message timer drained written ready room
        datagram datagram_failed option_failed stopping
    }

    fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        let Seen { actor, error, .. } = &mut *self.seen.borrow_mut();
        let reason = to_owned(reason, error.take());
        actor.closing(&reason, &mut ctx.of_type());
        if let CloseReason::Error(kept) = reason {
            *error = Some(kept);
        }
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        let Seen {
            actor,
            error,
            reason: kept,
        } = &mut *self.seen.borrow_mut();
        // In its place before the call, which may panic.
        let reason = kept.insert(to_owned(reason, error.take()));
        actor.closed(reason, &mut ctx.of_type());
    }

    fn revive(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) -> bool {
        let Seen { actor, error, .. } = &mut *self.seen.borrow_mut();
        let revived = actor.revive(reason, &mut ctx.of_type());
        if revived {
            *error = None;
        }
        revived
    }
}

/// Stands for the error that the wrapper keeps.
#[derive(Debug)]
struct Kept(String);

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Kept {}

fn to_owned(reason: &CloseReason, error: Option<Box<dyn Error + Send + Sync>>) -> CloseReason {
    match *reason {
        CloseReason::PeerClosed => CloseReason::PeerClosed,
        CloseReason::Finished => CloseReason::Finished,
        CloseReason::Aborted => CloseReason::Aborted,
        CloseReason::Reset => CloseReason::Reset,
        CloseReason::Io(ref error) => CloseReason::Io(copy_of(error)),
        CloseReason::Error(ref kept) => {
            CloseReason::Error(error.unwrap_or_else(|| kept.to_string().into()))
        }
        CloseReason::Panicked(ref what) => CloseReason::Panicked(what.clone()),
        CloseReason::Idle(after) => CloseReason::Idle(after),
        CloseReason::StuckReader { queued, after } => CloseReason::StuckReader { queued, after },
        CloseReason::SlowReader { queued, limit } => CloseReason::SlowReader { queued, limit },
        CloseReason::OutputBudget { queued, limit } => CloseReason::OutputBudget { queued, limit },
        CloseReason::SlowSender { kept, after } => CloseReason::SlowSender { kept, after },
        CloseReason::InputTooLong { len, limit } => CloseReason::InputTooLong { len, limit },
        CloseReason::Stopped => CloseReason::Stopped,
        CloseReason::Detached => CloseReason::Detached,
        CloseReason::NotAdopted(ref error) => CloseReason::NotAdopted(error.copy()),
        CloseReason::Silent(after) => CloseReason::Silent(after),
        CloseReason::InputRate { kept, least, after } => {
            CloseReason::InputRate { kept, least, after }
        }
        CloseReason::OutputRate {
            taken,
            least,
            after,
        } => CloseReason::OutputRate {
            taken,
            least,
            after,
        },
        CloseReason::NotFlushed { queued, after } => CloseReason::NotFlushed { queued, after },
        CloseReason::NotConnected(ref error) => CloseReason::NotConnected(error.to_owned()),
        CloseReason::Tls(ref error) => CloseReason::Tls(error.clone()),
    }
}

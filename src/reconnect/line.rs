//! One connection of a [`Reconnect`]: the user's actor, and word of how it fares.

use crate::actor::{Actor, CloseReason, Outcome, pass_on};
use crate::addr::Addr;
use crate::connect::ConnectErrorKind;
use crate::context::Context;

use super::{Reconnect, ReconnectMessage, What};

/// The user's actor as a connection that is told of.
pub(super) struct Line<A: Actor> {
    actor: A,
    /// Behind the actor: that has been dropped when this is.
    word: Word<A>,
}

/// Word of a connection's end, given when it is dropped: so once, whatever became of it.
struct Word<A: Actor> {
    to: Addr<Reconnect<A>>,
    reason: &'static str,
    not_connected: Option<ConnectErrorKind>,
}

impl<A: Actor> Drop for Word<A> {
    fn drop(&mut self) {
        let gone = What::Gone(self.reason, self.not_connected);
        self.to.notice(ReconnectMessage(gone));
    }
}

impl<A: Actor> Line<A> {
    pub(super) fn new(actor: A, to: Addr<Reconnect<A>>) -> Line<A> {
        let word = Word {
            to,
            // Of one that is told of nothing, not even its end.
            reason: "stopped",
            not_connected: None,
        };
        Line { actor, word }
    }

    fn pass(
        &mut self,
        ctx: &mut Context<'_, Self>,
        callback: impl FnOnce(&mut A, &mut Context<'_, A>) -> Outcome,
    ) -> Outcome {
        callback(&mut self.actor, &mut ctx.of_type())
    }
}

impl<A: Actor> Actor for Line<A> {
    type Message = A::Message;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.opened(&mut ctx.of_type())?;
        self.word.to.notice(ReconnectMessage(What::Up));
        Ok(())
    }

    pass_on! {
        readable read_closed message timer drained written ready room
        datagram datagram_failed option_failed stopping
    }

    fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        self.actor.closing(reason, &mut ctx.of_type());
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        // First: the actor's may panic.
        self.word.reason = reason.name();
        if let CloseReason::NotConnected(error) = reason {
            self.word.not_connected = Some(error.kind());
        }
        self.actor.closed(reason, &mut ctx.of_type());
    }
}

impl<A: Actor> Addr<Line<A>> {
    /// The same address, as that of the actor inside.
    pub(super) fn inside(&self) -> Addr<A> {
        self.of_type()
    }
}

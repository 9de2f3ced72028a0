//! One connection of a [`Reconnect`]: the user's actor, and word of how it fares.

use std::io;
use std::time::Instant;

use crate::actor::{Actor, CloseReason, Outcome};
use crate::addr::Addr;
use crate::adopt::Readiness;
use crate::connect::ConnectErrorKind;
use crate::context::Context;
use crate::datagram::{Datagram, DatagramFailure};
use crate::input::Input;
use crate::sys::SocketOption;
use crate::timers::TimerKey;

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
}

impl<A: Actor> Actor for Line<A> {
    type Message = A::Message;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.opened(&mut ctx.of_type())?;
        self.word.to.notice(ReconnectMessage(What::Up));
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.readable(input, &mut ctx.of_type())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.read_closed(&mut ctx.of_type())
    }

    fn message(&mut self, message: A::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.message(message, &mut ctx.of_type())
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.timer(key, &mut ctx.of_type())
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.drained(&mut ctx.of_type())
    }

    fn written(&mut self, token: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.written(token, &mut ctx.of_type())
    }

    fn ready(&mut self, ready: Readiness, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.ready(ready, &mut ctx.of_type())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.room(&mut ctx.of_type())
    }

    fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.datagram(datagram, &mut ctx.of_type())
    }

    fn datagram_failed(
        &mut self,
        failure: DatagramFailure,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        self.actor.datagram_failed(failure, &mut ctx.of_type())
    }

    fn option_failed(
        &mut self,
        option: SocketOption,
        error: io::Error,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        self.actor.option_failed(option, error, &mut ctx.of_type())
    }

    fn stopping(&mut self, deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        self.actor.stopping(deadline, &mut ctx.of_type())
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
        let (post, key) = self.parts();
        Addr::new(post.clone(), key)
    }
}

//! A codec around an actor for frames, on a stream of bytes.

use std::fmt;
use std::mem;

use crate::actor::{Actor, CloseReason, Outcome, pass_on};
use crate::addr::Addr;
use crate::context::Context;
use crate::frames::FramingError;
use crate::input::{FrameError, Input};
use crate::protocol::{Codec, FrameActor};

/// What a poller keeps of the buffer for decoded frames.
const DECODED_KEPT: usize = 64 << 10;

/// A [`FrameActor`] on a stream whose frames lie as a [`Codec`] says: an actor to be listened with,
/// connected, or put on a [`Stage`](crate::testing::Stage).
///
/// Its messages are those of the actor inside, and [`Context::addr`] in there is an address of that
/// actor's type. It costs nothing beside the two that it is made of.
pub struct Framed<C, A> {
    codec: C,
    actor: A,
}

impl<C: Codec, A: FrameActor> Framed<C, A> {
    /// Puts `actor` behind `codec`.
    pub fn new(codec: C, actor: A) -> Framed<C, A> {
        Framed { codec, actor }
    }

    /// The actor inside.
    pub fn actor(&self) -> &A {
        &self.actor
    }

    /// The actor inside.
    pub fn actor_mut(&mut self) -> &mut A {
        &mut self.actor
    }

    /// Calls the actor inside with its framing.
    fn pass<R>(
        &mut self,
        ctx: &mut Context<'_, Self>,
        callback: impl FnOnce(&mut A, &mut Context<'_, A>) -> R,
    ) -> R {
        callback(&mut self.actor, &mut ctx.framing(&self.codec))
    }

    /// Shows the frames that are there, up to where the actor has had enough.
    fn show(
        &mut self,
        input: &mut Input<'_>,
        ctx: &mut Context<'_, Self>,
        decoded: &mut Vec<u8>,
    ) -> Outcome {
        while ctx.is_reading() {
            let before = input.consumed();
            decoded.clear();
            let Some(frame) = self.codec.decode(input, decoded)? else {
                let len = input.len() + input.held();
                if input.at_end() && len > 0 {
                    return Err(FrameError::Incomplete { len }.into());
                }
                return Ok(());
            };
            if input.consumed() == before {
                return Err(FramingError::from(
                    "the codec has made a frame of no bytes, and would for ever",
                ));
            }
            let framer = &self.codec;
            self.actor.frame(frame, &mut ctx.framing(framer))?;
        }
        Ok(())
    }
}

impl<C: Codec, A: FrameActor> Actor for Framed<C, A> {
    type Message = A::Message;

    pass_on! {
        opened read_closed message timer drained written room option_failed stopping
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        // The poller's, as one frame is decoded at a time.
        let mut decoded = mem::take(&mut ctx.call().decoded);
        let outcome = self.show(input, ctx, &mut decoded);
        decoded.shrink_to(DECODED_KEPT);
        ctx.call().decoded = decoded;
        outcome
    }

    fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        self.pass(ctx, |actor, ctx| actor.closing(reason, ctx))
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        self.pass(ctx, |actor, ctx| actor.closed(reason, ctx))
    }
}

impl<C: fmt::Debug, A> fmt::Debug for Framed<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framed")
            .field("codec", &self.codec)
            .field("actor", &std::any::type_name::<A>())
            .finish()
    }
}

impl<C: Codec, A: FrameActor> Addr<Framed<C, A>> {
    /// The same address, as that of the actor inside.
    pub fn inside(&self) -> Addr<A> {
        self.of_type()
    }
}

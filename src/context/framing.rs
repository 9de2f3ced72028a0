//! Writing whole frames.

use std::mem;

use bytes::Bytes;

use crate::actor::Actor;
use crate::call::Call;
use crate::context::Context;
use crate::frames::{
    Encoder, FrameKind, Framer, FramingError, OutFrame, Payload, SharedFrame, Wire,
};

/// What stands around frames is put together in a buffer of the poller's, of which so much is kept.
const AROUND_KEPT: usize = 64 << 10;

impl<A: Actor> Context<'_, A> {
    /// Writes one frame, as this connection's framing has it: behind
    /// [`Framed`](crate::protocol::Framed) as its codec says, behind a WebSocket as a message. The
    /// frame is one write, kept or dropped whole; otherwise as [`write`](Context::write), and the
    /// `bool` is what that returns. The payload is not copied where it is a large [`Bytes`] or a
    /// [`SharedFrame`](crate::protocol::SharedFrame).
    ///
    /// ```
    /// use greenroom::protocol::{Frame, FrameActor, Framed, Lines};
    /// use greenroom::testing::Stage;
    /// use greenroom::*;
    ///
    /// struct Echo;
    ///
    /// impl Actor for Echo {
    ///     type Message = ();
    /// }
    ///
    /// impl FrameActor for Echo {
    ///     fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.write_frame(frame)?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut stage = Stage::new(Framed::new(Lines::new(80), Echo));
    /// stage.receive("hello\r\nwor");
    /// assert_eq!(stage.output(), "hello\n");
    /// ```
    ///
    /// # Errors
    ///
    /// Where the framing cannot carry this payload, such as a line break in a line; nothing is
    /// written then. With `?` that closes the connection: who hands on what others said may prefer
    /// to leave such a frame out.
    ///
    /// # Panics
    ///
    /// Where the connection has no framing: the actor is not inside of an adapter for frames. And as
    /// [`write`](Context::write).
    #[inline]
    pub fn write_frame<'f>(
        &mut self,
        frame: impl Into<OutFrame<'f>>,
    ) -> Result<bool, FramingError> {
        self.call.write_frame(self.framer, frame.into())
    }

    /// How frames are written here.
    #[cfg(feature = "websocket")]
    pub(crate) fn framer(&self) -> Option<&dyn Framer> {
        self.framer
    }

    /// The same context for an actor inside this one, which writes its frames through `framer`. For
    /// adapters: unlike with [`nested`](Context::nested), what that writes goes straight out.
    #[inline]
    pub fn framing<'c, B>(&'c mut self, framer: &'c dyn Framer) -> Context<'c, B>
    where
        B: Actor<Message = A::Message>,
    {
        Context {
            framer: Some(framer),
            ..self.of_type()
        }
    }
}

impl Call {
    fn write_frame(
        &mut self,
        framer: Option<&dyn Framer>,
        frame: OutFrame<'_>,
    ) -> Result<bool, FramingError> {
        let framer = framer.expect(
            "write_frame: this connection has no framing; \
             its actor belongs into an adapter for frames, such as protocol::Framed",
        );
        let kind = frame.kind();
        let mut around = mem::take(&mut self.around);
        let written = match frame.payload() {
            Payload::Slice(bytes) => encode(framer, kind, bytes, &mut around)
                .map(|before| self.stage_slice(&around, before, bytes)),
            Payload::Bytes(bytes) => encode(framer, kind, &bytes, &mut around)
                .map(|before| self.stage_bytes(&around, before, &bytes)),
            Payload::Shared(shared) => self.stage_shared(framer, shared, &mut around),
        };
        around.clear();
        around.shrink_to(AROUND_KEPT);
        self.around = around;
        written
    }

    fn stage_shared(
        &mut self,
        framer: &dyn Framer,
        shared: &SharedFrame,
        around: &mut Vec<u8>,
    ) -> Result<bool, FramingError> {
        let payload = shared.bytes();
        let Some(framing) = framer.shared_as() else {
            let before = encode(framer, shared.kind(), payload, around)?;
            return Ok(self.stage_bytes(around, before, payload));
        };
        let wire = shared.encoded(framing, || {
            let before = encode(framer, shared.kind(), payload, around)?;
            Ok(Wire::new(around, before, payload))
        })?;
        if wire.before.is_some() {
            return Ok(self.stage_bytes(&wire.around, wire.before, payload));
        }
        let all = wire.around.clone();
        Ok(self.stage(all.len(), |staged| staged.push_bytes(all)))
    }

    /// Stages a frame whose payload is only lent.
    fn stage_slice(&mut self, around: &[u8], before: Option<usize>, payload: &[u8]) -> bool {
        let Some(before) = before else {
            return self.stage(around.len(), |staged| staged.push_slice(around));
        };
        let (before, behind) = around.split_at(before);
        // As with a plain write: what is sent on as it came is sent from where it lies.
        let shown = self.place_in_input(payload).filter(|_| before.is_empty());
        self.stage(around.len() + payload.len(), |staged| {
            staged.push_slice(before);
            if !shown.is_some_and(|range| staged.push_shown(range)) {
                staged.push_slice(payload);
            }
            staged.push_slice(behind);
        })
    }

    /// Stages a frame whose payload need not be copied.
    fn stage_bytes(&mut self, around: &[u8], before: Option<usize>, payload: &Bytes) -> bool {
        let Some(before) = before else {
            return self.stage(around.len(), |staged| staged.push_slice(around));
        };
        let (before, behind) = around.split_at(before);
        self.stage(around.len() + payload.len(), |staged| {
            staged.push_slice(before);
            staged.push_bytes(payload.clone());
            staged.push_slice(behind);
        })
    }
}

/// Has the framer put what stands around the payload into `around`; how much of it stands before.
fn encode(
    framer: &dyn Framer,
    kind: FrameKind,
    payload: &[u8],
    around: &mut Vec<u8>,
) -> Result<Option<usize>, FramingError> {
    let mut out = Encoder::new(around);
    framer.encode(kind, payload, &mut out)?;
    Ok(out.split())
}

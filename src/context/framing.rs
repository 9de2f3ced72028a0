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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;
    use crate::frames::Framing;
    use crate::hosts::tests::{Idle, hosts};

    /// So much in front and a line break behind.
    struct Around(usize);

    impl Framer for Around {
        fn encode(
            &self,
            _: FrameKind,
            _: &[u8],
            out: &mut Encoder<'_>,
        ) -> Result<(), FramingError> {
            out.put(&vec![b'#'; self.0]);
            out.put_payload();
            out.put(b"\n");
            Ok(())
        }

        fn shared_as(&self) -> Option<Framing> {
            Some(Framing::of::<Around>(self.0 as u64))
        }
    }

    /// Has these frames written on a connection; where the parts lie that would be sent.
    fn parts(
        framer: &dyn Framer,
        write: impl FnOnce(&mut Context<'_, Idle>),
    ) -> Vec<(*const u8, usize)> {
        let mut hosts = hosts(0);
        let call = &mut hosts.call;
        call.flags.set(Flags::SOCKET);
        let mut ctx = Context::<Idle>::new(call);
        write(&mut ctx.framing(framer));
        let parts = hosts.call.staged.parts(&[]);
        let parts = parts.map(|part| (part.as_ptr(), part.len())).collect();
        hosts.call.staged.clear();
        parts
    }

    #[test]
    fn a_large_payload_is_staged_where_it_lies() {
        let large = Bytes::from(vec![b'x'; 100_000]);
        let shared = SharedFrame::binary(large.clone());
        let at = (large.as_ptr(), large.len());
        for _ in 0..2 {
            for framer in [&Around(0), &Around(4)] {
                for frame in [OutFrame::from(large.clone()), OutFrame::from(&shared)] {
                    let parts = parts(framer, |ctx| {
                        assert!(ctx.write_frame(frame.clone()).is_ok_and(|kept| kept));
                        assert!(ctx.write_frame(frame).is_ok_and(|kept| kept));
                    });
                    assert_eq!(parts.iter().filter(|part| **part == at).count(), 2);
                }
            }
        }
    }

    #[test]
    fn frames_of_one_callback_stand_in_one_piece_where_they_are_small() {
        let shared = SharedFrame::text("four");
        let parts = parts(&Around(0), |ctx| {
            for frame in [OutFrame::from("one"), "two".into(), (&shared).into()] {
                assert!(ctx.write_frame(frame).is_ok());
            }
        });
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].1, "one\ntwo\nfour\n".len());
    }

    #[test]
    fn a_large_frame_that_is_sent_on_is_sent_from_where_it_lies() {
        let input = vec![b'x'; 10_000];
        let mut hosts = hosts(0);
        hosts.call.flags.set(Flags::SOCKET);
        let addrs = input.as_ptr_range();
        hosts.call.shown = addrs.start.addr()..addrs.end.addr();
        let mut ctx = Context::<Idle>::new(&mut hosts.call);
        let lines = Around(0);
        assert!(
            ctx.framing::<Idle>(&lines)
                .write_frame(&input[10..9_000])
                .is_ok()
        );
        let parts: Vec<_> = hosts.call.staged.parts(&input).collect();
        assert_eq!(
            (parts[0].as_ptr(), parts[0].len()),
            (input[10..].as_ptr(), 8_990)
        );
        assert_eq!(parts[1], b"\n");
        hosts.call.staged.clear();
    }

    #[test]
    fn the_buffer_for_what_stands_around_frames_is_given_back_when_it_was_large() {
        /// As masks do: the payload is changed.
        struct Changed;
        impl Framer for Changed {
            fn encode(
                &self,
                _: FrameKind,
                payload: &[u8],
                out: &mut Encoder<'_>,
            ) -> Result<(), FramingError> {
                out.put(b"!");
                out.put(payload);
                out.bytes_mut()[1..].make_ascii_uppercase();
                Ok(())
            }
        }
        let mut hosts = hosts(0);
        hosts.call.flags.set(Flags::SOCKET);
        let mut ctx = Context::<Idle>::new(&mut hosts.call);
        let payload = vec![b'x'; 4 * AROUND_KEPT];
        assert!(ctx.framing::<Idle>(&Changed).write_frame(&payload).is_ok());
        assert!(ctx.framing::<Idle>(&Changed).write_frame("abc").is_ok());
        let staged: Vec<u8> = hosts.call.staged.parts(&[]).flatten().copied().collect();
        assert_eq!(staged.len(), 1 + payload.len() + 4);
        assert!(staged.ends_with(b"X!ABC") && staged.starts_with(b"!X"));
        assert!(hosts.call.around.capacity() <= AROUND_KEPT);
        hosts.call.staged.clear();
    }
}

//! How an actor inside a WebSocket writes: its messages, Pings, and the code of its close.

use std::any::Any;
use std::cell::RefCell;

use crate::actor::Actor;
use crate::context::Context;
use crate::frames::{Encoder, FrameKind, Framer, Framing, FramingError};
use crate::sys::random;
use crate::websocket::error::Error;
use crate::websocket::frame::{CONTROL_MAX, CloseCode, Header, Opcode, apply_mask};
use crate::websocket::receiver::Role;

/// The code and the reason of a Close frame; a peer that gave no code is given none.
pub(super) type Farewell = (Option<CloseCode>, String);

/// What an actor has at hand during one callback.
pub(super) struct Session {
    role: Role,
    /// The longest payload of a frame that is sent.
    fragment: usize,
    /// What it wants said when it closes.
    pub(super) farewell: RefCell<Option<Box<Farewell>>>,
}

impl Session {
    pub(super) fn new(role: Role, fragment: usize) -> Session {
        Session {
            role,
            fragment,
            farewell: RefCell::new(None),
        }
    }
}

/// A header for a frame that this end sends, with a mask of its own where this end masks.
fn header(role: Role, fin: bool, opcode: Opcode, len: usize) -> Header {
    let mask = match role {
        Role::Server => None,
        Role::Client => {
            let mut mask = [0; 4];
            random::fill(&mut mask);
            Some(mask)
        }
    };
    Header {
        fin,
        opcode,
        mask,
        len: len as u64,
    }
}

/// Writes a control frame, unless the writing side is shut down. Of the payload goes out what one may
/// have.
pub(super) fn write_control<A: Actor>(
    ctx: &mut Context<'_, A>,
    role: Role,
    opcode: Opcode,
    payload: &[u8],
) -> bool {
    !ctx.is_shutting_down_write() && write(ctx, role, opcode, payload)
}

/// Writes a Close frame where the writing side is to be shut down behind this very callback.
pub(super) fn write_last<A: Actor>(ctx: &mut Context<'_, A>, role: Role, payload: &[u8]) {
    write(ctx, role, Opcode::Close, payload);
}

fn write<A: Actor>(ctx: &mut Context<'_, A>, role: Role, opcode: Opcode, payload: &[u8]) -> bool {
    let mut bytes = [0; CONTROL_MAX];
    let payload = &payload[..payload.len().min(CONTROL_MAX)];
    let masked = &mut bytes[..payload.len()];
    masked.copy_from_slice(payload);
    let header = header(role, true, opcode, payload.len());
    if let Some(mask) = header.mask {
        apply_mask(masked, mask);
    }
    ctx.write_parts(&[&header.encode(), masked])
}

impl Framer for Session {
    fn encode(
        &self,
        kind: FrameKind,
        payload: &[u8],
        out: &mut Encoder<'_>,
    ) -> Result<(), FramingError> {
        let mut opcode = match kind {
            FrameKind::Binary => Opcode::Binary,
            FrameKind::Text if std::str::from_utf8(payload).is_ok() => Opcode::Text,
            FrameKind::Text => return Err(Error::InvalidUtf8.into()),
        };
        if self.role == Role::Server && payload.len() <= self.fragment {
            out.put(&header(self.role, true, opcode, payload.len()).encode());
            out.put_payload();
            return Ok(());
        }
        let mut rest = payload;
        loop {
            let (part, behind) = rest.split_at(rest.len().min(self.fragment));
            rest = behind;
            let header = header(self.role, rest.is_empty(), opcode, part.len());
            out.put(&header.encode());
            let start = out.bytes_mut().len();
            out.put(part);
            if let Some(mask) = header.mask {
                apply_mask(&mut out.bytes_mut()[start..], mask);
            }
            if rest.is_empty() {
                return Ok(());
            }
            opcode = Opcode::Continuation;
        }
    }

    /// A server's frames are the same for all; a client's have masks that nobody else's have.
    fn shared_as(&self) -> Option<Framing> {
        let is_server = self.role == Role::Server;
        is_server.then(|| Framing::of::<Session>(self.fragment as u64))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

/// Only behind a WebSocket.
impl<A: Actor> Context<'_, A> {
    fn session(&self, what: &str) -> &Session {
        let session = self.framer().and_then(Framer::as_any);
        match session.and_then(<dyn Any>::downcast_ref) {
            Some(session) => session,
            None => panic!("{what}: this actor is not inside of a WebSocket"),
        }
    }

    /// Whether this actor is inside of a [`WebSocket`](crate::websocket::WebSocket).
    pub fn is_websocket(&self) -> bool {
        let session = self.framer().and_then(Framer::as_any);
        session.is_some_and(<dyn Any>::is::<Session>)
    }

    /// Sends a Ping with this payload, of which 125 bytes are sent at most. The peer answers with a
    /// Pong of the same payload, which [`FrameActor::control`](crate::protocol::FrameActor::control)
    /// is told; where several are on their way it may answer the last alone.
    ///
    /// Returns what [`write`](Context::write) does; `false` also where the writing side was shut
    /// down.
    ///
    /// # Panics
    ///
    /// Where the actor is not inside of a [`WebSocket`](crate::websocket::WebSocket). And as
    /// [`write`](Context::write).
    pub fn ping(&mut self, payload: &[u8]) -> bool {
        let role = self.session("ping").role;
        write_control(self, role, Opcode::Ping, payload)
    }

    /// Closes as [`close`](Context::close) does, and has the peer told this code and reason, of which
    /// 123 bytes are sent at most. The first that is said counts. In
    /// [`closing`](Actor::closing) this only sets what the peer is told.
    ///
    /// Without this the code is 1000, or what fits the reason of the close: see
    /// [`WebSocket`](crate::websocket::WebSocket).
    ///
    /// # Panics
    ///
    /// Where the actor is not inside of a [`WebSocket`](crate::websocket::WebSocket).
    pub fn close_with(&mut self, code: CloseCode, reason: &str) {
        let mut farewell = self.session("close_with").farewell.borrow_mut();
        farewell.get_or_insert_with(|| Box::new((Some(code), reason.to_owned())));
        drop(farewell);
        self.close();
    }
}

//! WebSockets (RFC 6455): servers and clients.
//!
//! A [`WebSocket`] is an adapter around any [`FrameActor`]: the same actor runs behind lines, behind
//! a length prefix, and here. Its messages come whole, by [`frame`](FrameActor::frame); what it
//! writes by [`write_frame`](Context::write_frame) leaves as text or binary.
//!
//! ```
//! use greenroom::protocol::{Frame, FrameActor};
//! use greenroom::websocket::{Refusal, Server};
//! use greenroom::*;
//!
//! struct Echo;
//!
//! impl Actor for Echo {
//!     type Message = ();
//! }
//!
//! impl FrameActor for Echo {
//!     fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
//!         ctx.write_frame(frame)?;
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let system = System::builder().pollers(1).build()?;
//! let server = Server::new(|upgrade| match upgrade.path() {
//!     "/echo" => Ok(Echo),
//!     _ => Err(Refusal::new(404)),
//! });
//! system.listen("127.0.0.1:0", move |_peer| server.accept())?;
//! # Ok(())
//! # }
//! ```
//!
//! [`WebSocket::client`] is the other end, for [`System::connect`](crate::System::connect) and
//! [`Context::connect`]. Both run over TLS as over TCP. A server of HTTP that serves WebSockets on the
//! same port takes [`Upgrade::parse`] and [`WebSocket::upgraded`].
//!
//! Extensions, compression among them, are never agreed on.

mod error;
mod frame;
mod handshake;
mod options;
mod receiver;
mod request;
mod session;
mod shake;

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use crate::actor::{Actor, CloseReason, Outcome, pass_on};
use crate::addr::Addr;
use crate::call::Wants;
use crate::context::Context;
use crate::flags::Flags;
use crate::frames::{Control, Frame, FrameKind};
use crate::input::Input;
use crate::protocol::FrameActor;
use crate::timers::TimerKey;
use crate::websocket::frame::{Opcode, close_payload};
use crate::websocket::receiver::{Event, Receiver, Role};
use crate::websocket::session::{Farewell, Session, write_control};
use crate::websocket::shake::Shaking;

pub use error::Error;
pub use frame::CloseCode;
pub use handshake::{InvalidHeader, Refusal, Upgrade};
pub use options::Options;
pub use request::{Answer, ClientError, InvalidRequest, Request};
pub use shake::Server;

/// What a poller keeps of the buffer in which messages are unmasked.
const SCRATCH_KEPT: usize = 256 << 10;

/// A [`FrameActor`] behind a WebSocket: an actor to be listened with ([`Server::accept`]), connected
/// ([`WebSocket::client`]), handed a connection of HTTP ([`WebSocket::upgraded`]), or put on a
/// [`Stage`](crate::testing::Stage).
///
/// The actor inside is opened when the handshake is over. Messages sent to it before are kept, as
/// many as [`Options::held_max`] says.
///
/// # Pings
///
/// A Ping is answered by itself; while the output is above its high watermark only the latest is,
/// once that has drained. [`Context::ping`] sends one, [`FrameActor::control`] is told the Pong, and
/// [`Options::ping_every`] asks who has nothing to say whether it is still there.
///
/// # The end
///
/// However a connection closes that is still able to, the peer is sent a Close frame, behind all that
/// was written: of the code that [`Context::close_with`] gave, or else
///
/// | why it closes | code |
/// |---|---|
/// | [`Context::close`], [`Addr::close`] | 1000 |
/// | the peer closes | the peer's own |
/// | the system stops, or the peer was [idle](CloseReason::Idle) | 1001 |
/// | an [`Error`] | [`Error::code`] |
/// | what came was [too long](CloseReason::InputTooLong) | 1009 |
/// | what came was [too slow](CloseReason::SlowSender) | 1008 |
/// | another error that a callback returned | 1011 |
///
/// Then the writing side is shut down, and what still comes is discarded until the peer has closed,
/// too, within the time of [`ConnectionOptions::linger`](crate::ConnectionOptions::linger). So a
/// server closes TCP first; a client leaves that to the server. After a panic, an abort, and where the
/// peer does not take what is written for it, there is no Close frame but a reset.
///
/// The peer's Close frame is told by [`FrameActor::control`], and answered;
/// [`closed`](Actor::closed) is then told [`CloseReason::PeerClosed`]. A stream that ends without one
/// is told by [`read_closed`](Actor::read_closed), as any.
/// [`shutdown_write`](Context::shutdown_write) sends the Close frame at once and goes on reading.
pub struct WebSocket<A: FrameActor> {
    options: Arc<Options>,
    state: State<A>,
}

enum State<A: FrameActor> {
    Shaking(Box<Shaking<A>>),
    Open(Open<A>),
}

struct Open<A> {
    actor: A,
    receiver: Receiver,
    /// What most do not need.
    rare: Option<Box<Rare>>,
    role: Role,
    stopping: bool,
    /// Something has come since the last Ping.
    heard: bool,
    /// A Ping of our own is on its way.
    pinged: bool,
}

#[derive(Default)]
struct Rare {
    /// The payload of the latest Ping that is not answered.
    pong: Option<Vec<u8>>,
    /// What the Close frame is to say.
    farewell: Option<Box<Farewell>>,
    /// When to ask the peer, or when it is to have answered.
    keepalive: Option<TimerKey>,
}

impl<A: FrameActor> WebSocket<A> {
    /// A WebSocket whose handshake somebody else has done, as a server: with the first bytes behind
    /// the request, which was answered by [`Upgrade::response`].
    pub fn upgraded(options: impl Into<Arc<Options>>, actor: A) -> WebSocket<A> {
        WebSocket {
            options: options.into(),
            state: State::Open(Open::new(Role::Server, actor)),
        }
    }

    /// The actor inside, if there is one yet: a server's is made by the handshake.
    pub fn actor(&self) -> Option<&A> {
        match &self.state {
            State::Shaking(shaking) => shaking.actor(),
            State::Open(open) => Some(&open.actor),
        }
    }

    /// Calls the actor inside, if it is opened.
    fn pass(
        &mut self,
        ctx: &mut Context<'_, Self>,
        callback: impl FnOnce(&mut A, &mut Context<'_, A>) -> Outcome,
    ) -> Outcome {
        match &mut self.state {
            State::Open(open) => open.call(&self.options, ctx, callback),
            _ => Ok(()),
        }
    }

    /// The actor is there, and its connection a WebSocket.
    fn start(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let State::Open(open) = &mut self.state else {
            return Ok(());
        };
        if let Some(ping) = self.options.ping {
            open.rare().keepalive = Some(ctx.set_timer(ping.every));
        }
        open.call(&self.options, ctx, |actor, ctx| actor.opened(ctx))
    }

    /// Takes what has come, up to where the actor inside has had enough.
    fn receive(
        &mut self,
        input: &mut Input<'_>,
        ctx: &mut Context<'_, Self>,
        scratch: &mut Vec<u8>,
    ) -> Outcome {
        let WebSocket { options, state } = self;
        let State::Open(open) = state else {
            return Ok(());
        };
        open.heard |= !input.is_empty();
        while ctx.is_reading() {
            let event = open
                .receiver
                .next(input, scratch, open.role, options.limits)?;
            let Some(event) = event else {
                let is_within = input.len() + open.receiver.held() > 0;
                if input.at_end() && is_within {
                    return Err(Error::Incomplete.into());
                }
                return Ok(());
            };
            match event {
                Event::Text(text) => open.frame(options, ctx, Frame::from(text))?,
                Event::Binary(bytes) => {
                    open.frame(options, ctx, Frame::new(FrameKind::Binary, bytes))?
                }
                Event::Ping(payload) => open.answer(ctx, payload),
                Event::Pong(payload) => open.control(options, ctx, Control::Pong(payload))?,
                Event::Close(code, reason) => {
                    // The echo of ours is only that.
                    let is_echo = ctx.is_shutting_down_write();
                    let told = Control::Close {
                        code: code.map(CloseCode::get),
                        reason,
                    };
                    open.control(options, ctx, told)?;
                    if !is_echo {
                        let rare = open.rare();
                        rare.farewell
                            .get_or_insert_with(|| Box::new((code, String::new())));
                    }
                    ctx.call().wants.set(Wants::CLOSE | Wants::PEER_CLOSED);
                }
            }
        }
        Ok(())
    }

    /// The time for the next Ping, or for the answer to the last one, has come.
    fn keep_alive(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let (State::Open(open), Some(ping)) = (&mut self.state, self.options.ping) else {
            return Ok(());
        };
        let is_reading = ctx.is_reading() && !ctx.call().flags.has(Flags::NOT_READING);
        let next = if open.pinged {
            if !open.heard && is_reading {
                return Err(Error::NoPong(ping.within).into());
            }
            open.pinged = !open.heard;
            match open.pinged {
                true => ping.within,
                false => ping.every - ping.within,
            }
        } else if ctx.queued() > 0 || !is_reading {
            ping.every
        } else {
            open.heard = false;
            open.pinged = write_control(ctx, open.role, Opcode::Ping, b"");
            ping.within
        };
        open.rare().keepalive = Some(ctx.set_timer(next));
        Ok(())
    }
}

impl<A: FrameActor> Open<A> {
    fn new(role: Role, actor: A) -> Open<A> {
        Open {
            actor,
            receiver: Receiver::default(),
            rare: None,
            role,
            stopping: false,
            heard: false,
            pinged: false,
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Calls the actor with its framing.
    fn call<R>(
        &mut self,
        options: &Options,
        ctx: &mut Context<'_, WebSocket<A>>,
        callback: impl FnOnce(&mut A, &mut Context<'_, A>) -> R,
    ) -> R {
        let session = Session::new(self.role, options.fragment);
        let was_shut = ctx.is_shutting_down_write();
        let result = callback(&mut self.actor, &mut ctx.framing(&session));
        if let Some(farewell) = session.farewell.into_inner() {
            self.rare().farewell.get_or_insert(farewell);
        }
        if !was_shut && ctx.is_shutting_down_write() {
            // The last that the peer gets.
            let payload = self.close_payload(CloseCode::NORMAL, "");
            session::write_last(ctx, self.role, &payload);
        }
        result
    }

    fn frame(
        &mut self,
        options: &Options,
        ctx: &mut Context<'_, WebSocket<A>>,
        frame: Frame<'_>,
    ) -> Outcome {
        self.call(options, ctx, |actor, ctx| actor.frame(frame, ctx))
    }

    fn control(
        &mut self,
        options: &Options,
        ctx: &mut Context<'_, WebSocket<A>>,
        control: Control<'_>,
    ) -> Outcome {
        self.call(options, ctx, |actor, ctx| actor.control(control, ctx))
    }

    /// Answers a Ping, at once unless too much waits in front of the answer already.
    fn answer(&mut self, ctx: &mut Context<'_, WebSocket<A>>, payload: &[u8]) {
        // `drained` follows.
        if ctx.call().flags.has(Flags::ABOVE_HIGH) {
            self.rare().pong = Some(payload.to_vec());
        } else {
            write_control(ctx, self.role, Opcode::Pong, payload);
        }
    }

    /// What a Close frame says: what was asked for, or else this.
    fn close_payload(&mut self, code: CloseCode, reason: &str) -> Vec<u8> {
        let asked = self.rare.as_mut().and_then(|rare| rare.farewell.take());
        match asked.as_deref() {
            Some((Some(code), reason)) => close_payload(*code, reason),
            Some((None, _)) => Vec::new(),
            None => close_payload(code, reason),
        }
    }
}

/// What the peer is told where nobody has said what.
fn code_of(reason: &CloseReason, stopping: bool) -> (CloseCode, String) {
    let code = match reason {
        CloseReason::Error(error) => match error.downcast_ref::<Error>() {
            Some(error) => return (error.code(), error.to_string()),
            None => CloseCode::ERROR,
        },
        CloseReason::Finished if stopping => CloseCode::AWAY,
        CloseReason::Finished | CloseReason::PeerClosed => CloseCode::NORMAL,
        CloseReason::Stopped | CloseReason::Idle(_) => CloseCode::AWAY,
        CloseReason::InputTooLong { .. } => CloseCode::TOO_LONG,
        CloseReason::SlowSender { .. } | CloseReason::InputRate { .. } => CloseCode::POLICY,
        _ => CloseCode::ERROR,
    };
    (code, String::new())
}

impl<A: FrameActor> Actor for WebSocket<A> {
    type Message = A::Message;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        match &mut self.state {
            State::Shaking(shaking) => {
                shaking.begin(&self.options, ctx);
                Ok(())
            }
            _ => self.start(ctx),
        }
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if let State::Shaking(_) = self.state {
            return self.shake_hands(input, ctx);
        }
        // The poller's, as one message is unmasked at a time.
        let mut scratch = mem::take(&mut ctx.call().decoded);
        let outcome = self.receive(input, ctx, &mut scratch);
        scratch.clear();
        scratch.shrink_to(SCRATCH_KEPT);
        ctx.call().decoded = scratch;
        if let State::Open(open) = &self.state {
            input.hold(open.receiver.held());
        }
        outcome
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        match &self.state {
            State::Shaking(shaking) => shaking.ended(ctx),
            _ => self.pass(ctx, |actor, ctx| actor.read_closed(ctx)),
        }
    }

    fn message(&mut self, message: A::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        match &mut self.state {
            State::Shaking(shaking) => shaking.hold(&self.options, message),
            _ => self.pass(ctx, |actor, ctx| actor.message(message, ctx)),
        }
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        match &mut self.state {
            State::Shaking(shaking) => shaking.timed_out(ctx),
            State::Open(open) => {
                if let Some(rare) = &open.rare
                    && rare.keepalive == Some(key)
                {
                    return self.keep_alive(ctx);
                }
                self.pass(ctx, |actor, ctx| actor.timer(key, ctx))
            }
        }
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if let State::Open(open) = &mut self.state
            && let Some(rare) = &mut open.rare
            && let Some(payload) = rare.pong.take()
        {
            write_control(ctx, open.role, Opcode::Pong, &payload);
        }
        self.pass(ctx, |actor, ctx| actor.drained(ctx))
    }

    pass_on! {
        written room option_failed
    }

    fn stopping(&mut self, deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        match &mut self.state {
            State::Open(open) => open.stopping = true,
            _ => ctx.close(),
        }
        self.pass(ctx, |actor, ctx| actor.stopping(deadline, ctx))
    }

    fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        let State::Open(open) = &mut self.state else {
            return;
        };
        open.call(&self.options, ctx, |actor, ctx| actor.closing(reason, ctx));
        let (code, text) = code_of(reason, open.stopping);
        let payload = open.close_payload(code, &text);
        write_control(ctx, open.role, Opcode::Close, &payload);
        if open.role == Role::Client {
            ctx.call().wants.set(Wants::PATIENT);
        }
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        match &mut self.state {
            State::Open(open) => {
                open.call(&self.options, ctx, |actor, ctx| actor.closed(reason, ctx));
            }
            State::Shaking(shaking) => shaking.closed(reason, ctx),
        }
    }
}

impl<A: FrameActor> fmt::Debug for WebSocket<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("is_open", &matches!(self.state, State::Open(_)))
            .field("actor", &std::any::type_name::<A>())
            .finish_non_exhaustive()
    }
}

impl<A: FrameActor> Addr<WebSocket<A>> {
    /// The same address, as that of the actor inside.
    pub fn inside(&self) -> Addr<A> {
        self.of_type()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Idle;

    impl Actor for Idle {
        type Message = ();
    }

    impl FrameActor for Idle {
        fn frame(&mut self, _frame: Frame<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
            Ok(())
        }
    }

    /// ARCHITECTURE.md counts on it.
    #[test]
    fn a_websocket_is_32_bytes_beside_its_actor() {
        assert_eq!(size_of::<WebSocket<Idle>>(), 32);
    }
}

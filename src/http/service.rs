//! What a user writes: what is done with requests.

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;

use crate::actor::{Actor, Outcome};
use crate::context::Context;
use crate::http::request::Request;
use crate::http::responder::Responder;
use crate::http::response::Response;

/// The logic of one HTTP connection: an [`Actor`] that is given requests in place of bytes.
///
/// All its other callbacks are as ever: messages, timers, `opened`, `closed` and the rest, but for
/// these. `readable` and `read_closed` are not called. [`drained`](Actor::drained) is also called
/// when a [`BodyWriter`](super::BodyWriter) that had no room has some. What it closes in
/// [`stopping`](Actor::stopping), as it does by default, closes when the answers that are owed have
/// been given. It answers through responders: [`Context::write`] panics, as bytes of its own would
/// stand between the answers.
///
/// An error from a callback closes the connection. A request whose responder went with it is answered
/// with 500 before.
pub trait Service: Actor {
    /// What a connection may be handed over to ([`Responder::upgrade`]); [`Never`] for nothing.
    type Upgraded: Actor<Message = Self::Message>;

    /// A request has come, and its body, where that is [collected](Intake::Collect), which is the
    /// default.
    fn request(
        &mut self,
        request: Request<'_>,
        responder: Responder<Self>,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome;

    /// The head of a request has come that has a body: says what is to become of that. The default
    /// collects as much as [`Options::body_max`](super::Options::body_max) allows.
    fn intake(&mut self, request: &Request<'_>, ctx: &mut Context<'_, Self>) -> Intake {
        let _ = (request, ctx);
        Intake::Collect(usize::MAX)
    }

    /// Of a body that comes [piece by piece](Intake::Stream), one more has come, or its end: `None`.
    /// `id` is that of its [request](Request::id).
    ///
    /// Pieces come until the end, also when the request has been answered meanwhile. To slow down a
    /// peer that sends faster than they can be used, [pause](Context::pause). A body that never ends,
    /// because its sender goes or is too slow or what it sends is malformed, ends the connection:
    /// [`closed`](Actor::closed) is told that. The default passes over the pieces.
    fn body(&mut self, id: u64, piece: Option<&[u8]>, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = (id, piece, ctx);
        Ok(())
    }
}

/// What is to become of a request's body.
#[derive(Debug)]
pub enum Intake {
    /// It is kept until all has come, and [`request`](Service::request) is called then. A body of
    /// more bytes than this, or than [`Options::body_max`](super::Options::body_max), is answered
    /// with 413 (Content Too Large).
    Collect(usize),
    /// [`request`](Service::request) is called at once, then [`body`](Service::body) with what comes
    /// of it. One of more bytes than this is answered with 413, unless the service has begun with an
    /// answer: then the connection closes behind that.
    Stream(u64),
    /// It is not wanted: this is the answer, behind which the connection closes.
    /// [`request`](Service::request) is not called.
    Refuse(Response),
}

/// An actor that nobody can make: the [`Upgraded`](Service::Upgraded) of a service that never hands
/// its connection over. `M` is the message of the service.
pub struct Never<M> {
    never: Infallible,
    message: PhantomData<fn(M)>,
}

impl<M: Send + 'static> Actor for Never<M> {
    type Message = M;
}

impl<M> fmt::Debug for Never<M> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = self.message;
        match self.never {}
    }
}

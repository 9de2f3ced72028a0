//! What a WebSocket's handshake needs of a server of HTTP.

use bytes::Bytes;

use crate::http::request::Request;
use crate::http::response::{Begins, Response, Switch};
use crate::websocket::{Refusal, Upgrade};

impl<'a> Request<'a> {
    /// This request as one for a WebSocket (feature `websocket`), to be answered by
    /// [`Responder::upgrade`](super::Responder::upgrade).
    ///
    /// ```
    /// use greenroom::http::{Http, Request, Responder, Response, Service};
    /// use greenroom::protocol::{Frame, FrameActor};
    /// use greenroom::websocket::{Options, WebSocket};
    /// use greenroom::{Actor, Context, Outcome};
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
    /// struct Site;
    ///
    /// impl Actor for Site {
    ///     type Message = ();
    /// }
    ///
    /// impl Service for Site {
    ///     type Upgraded = WebSocket<Echo>;
    ///
    ///     fn request(
    ///         &mut self,
    ///         request: Request<'_>,
    ///         responder: Responder<Self>,
    ///         _ctx: &mut Context<'_, Self>,
    ///     ) -> Outcome {
    ///         match request.path() {
    ///             "/" => responder.answer(Response::text("hello")),
    ///             "/echo" => match request.websocket() {
    ///                 Ok(upgrade) => responder.upgrade(&upgrade, || {
    ///                     WebSocket::upgraded(Options::new(), Echo)
    ///                 }),
    ///                 Err(refusal) => responder.answer(refusal.into()),
    ///             },
    ///             _ => responder.answer(Response::new(404)),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Upgrade::parse`].
    pub fn websocket(&self) -> Result<Upgrade<'a>, Refusal> {
        let upgrade = Upgrade::parse(self.method(), self.target(), self.headers())?;
        if !self.wants_upgrade() {
            let why = "a WebSocket is asked for by HTTP/1.1, on a connection that stays\n";
            return Err(Refusal::new(400).body(why));
        }
        Ok(upgrade)
    }
}

/// The answer with which the WebSocket begins.
impl From<&Upgrade<'_>> for Switch {
    fn from(upgrade: &Upgrade<'_>) -> Switch {
        Switch(Begins::Bytes(Bytes::from(upgrade.response())))
    }
}

/// The answer to a client that is not let in.
impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        let mut response = Response::new(refusal.status()).body(refusal.text().to_owned());
        response.field("Content-Type", b"text/plain; charset=utf-8");
        for (name, value) in refusal.headers() {
            if name.eq_ignore_ascii_case("upgrade") {
                response.field("Connection", b"Upgrade");
            }
            response.field(name, value.as_bytes());
        }
        response
    }
}

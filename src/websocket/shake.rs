//! A WebSocket whose handshake is under way.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::actor::{CloseReason, Outcome};
use crate::context::Context;
use crate::input::Input;
use crate::protocol::FrameActor;
use crate::registry::Counters;
use crate::timers::TimerKey;
use crate::websocket::error::Error as WebSocketError;
use crate::websocket::handshake::{Refusal, Upgrade};
use crate::websocket::options::Options;
use crate::websocket::receiver::Role;
use crate::websocket::request::{Answer, ClientError, Request, read_request};
use crate::websocket::{Open, State, WebSocket};

/// Makes the actor of a client that is let in.
type Make<A> = dyn Fn(&mut Upgrade<'_>) -> Result<A, Refusal> + Send + Sync;

/// Looks at the answer, before the actor is opened.
type Answered<A> = Box<dyn FnOnce(&mut A, &Answer<'_>) -> Outcome>;

/// A server for WebSockets: what a listener makes its connections with. It reads the handshake of
/// each, and asks you who is let in.
///
/// Cheap to clone; what it is made of is shared by all pollers.
///
/// ```
/// use greenroom::testing::Stage;
/// use greenroom::websocket::{Options, Refusal, Server};
/// # use greenroom::protocol::{Frame, FrameActor};
/// # use greenroom::*;
/// # struct Chat(String);
/// # impl Actor for Chat { type Message = (); }
/// # impl FrameActor for Chat {
/// #     fn frame(&mut self, _frame: Frame<'_>, _ctx: &mut Context<'_, Self>) -> Outcome { Ok(()) }
/// # }
/// use std::time::Duration;
///
/// let options = Options::new()
///     .message_max(64 << 10)
///     .ping_every(Duration::from_secs(30), Duration::from_secs(10));
/// let server = Server::new(|upgrade| {
///     let room = upgrade.path().strip_prefix("/rooms/").ok_or(Refusal::new(404))?;
///     Ok(Chat(room.to_owned()))
/// })
/// .options(options);
///
/// let mut stage = Stage::new(server.accept());
/// stage.receive("GET /halls/blue HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
/// stage.receive("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
/// assert!(stage.output().starts_with(b"HTTP/1.1 404 Not Found\r\n"));
/// ```
pub struct Server<A> {
    options: Arc<Options>,
    make: Arc<Make<A>>,
}

impl<A: FrameActor> Server<A> {
    /// A server that lets in whom `make` makes an actor for, with the default [`Options`]. Who is not
    /// let in is sent the refusal and closed, counted in
    /// [`Stats::upgrades_refused`](crate::Stats::upgrades_refused).
    ///
    /// `make` runs on the poller, in the callback of one connection: it must not block. A panic in it
    /// ends that connection.
    pub fn new(
        make: impl Fn(&mut Upgrade<'_>) -> Result<A, Refusal> + Send + Sync + 'static,
    ) -> Server<A> {
        Server {
            options: Arc::default(),
            make: Arc::new(make),
        }
    }

    /// With these options.
    #[must_use]
    pub fn options(mut self, options: impl Into<Arc<Options>>) -> Server<A> {
        self.options = options.into();
        self
    }

    /// The actor for a connection that was accepted.
    pub fn accept(&self) -> WebSocket<A> {
        WebSocket {
            options: self.options.clone(),
            state: State::Shaking(Box::new(Shaking::new(
                Side::Server(self.make.clone()),
                None,
            ))),
        }
    }
}

impl<A> Clone for Server<A> {
    fn clone(&self) -> Server<A> {
        Server {
            options: self.options.clone(),
            make: self.make.clone(),
        }
    }
}

impl<A> fmt::Debug for Server<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<A: FrameActor> WebSocket<A> {
    /// The client's end, to be connected: sends the request, and opens `actor` when the server has
    /// let it in.
    ///
    /// Where that comes to nothing the actor is told by [`closed`](crate::Actor::closed) alone, as by
    /// a connect that fails: with the reason for that, or with
    /// [`CloseReason::Error`] and a [`ClientError`] in it.
    ///
    /// ```
    /// use greenroom::protocol::{Frame, FrameActor};
    /// use greenroom::websocket::{ClientError, Request, WebSocket};
    /// use greenroom::*;
    ///
    /// struct Listen;
    ///
    /// impl Actor for Listen {
    ///     type Message = ();
    ///
    ///     fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
    ///         if let CloseReason::Error(error) = reason
    ///             && let Some(ClientError::Refused { status: 401, .. }) = error.downcast_ref()
    ///         {
    ///             println!("log in first");
    ///         }
    ///     }
    /// }
    ///
    /// impl FrameActor for Listen {
    ///     fn frame(&mut self, frame: Frame<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
    ///         println!("{}", frame.text()?);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let system = System::builder().pollers(1).build()?;
    /// let request = Request::new("feed.example", "/prices")?.protocol("prices.v1")?;
    /// # let local = system.listen("127.0.0.1:0", |_| websocket::Server::new(|_| Ok(Listen)).accept())?;
    /// # let to = Remote::from(local.local_addr());
    /// # /*
    /// let to: Remote = "feed.example:80".parse()?;
    /// # */
    /// system.connect(to, || WebSocket::client(request, Listen));
    /// # Ok(())
    /// # }
    /// ```
    pub fn client(request: Request, actor: A) -> WebSocket<A> {
        let client = Client {
            request,
            key: String::new(),
            answered: None,
        };
        WebSocket {
            options: Arc::default(),
            state: State::Shaking(Box::new(Shaking::new(Side::Client(client), Some(actor)))),
        }
    }

    /// With these options. For a client: of a server they are [`Server::options`].
    #[must_use]
    pub fn with_options(mut self, options: impl Into<Arc<Options>>) -> WebSocket<A> {
        self.options = options.into();
        self
    }

    /// For a client: shows the actor the server's answer, before it is opened: which subprotocol was
    /// chosen, what headers came. An error ends the connection.
    ///
    /// # Panics
    ///
    /// For a server, and after the handshake.
    #[must_use]
    pub fn on_answer(
        mut self,
        answered: impl FnOnce(&mut A, &Answer<'_>) -> Outcome + 'static,
    ) -> WebSocket<A> {
        match &mut self.state {
            State::Shaking(shaking) => match &mut shaking.side {
                Side::Client(client) => client.answered = Some(Box::new(answered)),
                Side::Server(_) => panic!("on_answer: a server gets no answer"),
            },
            _ => panic!("on_answer: the answer is no more to come"),
        }
        self
    }

    /// Takes the peer's part of the handshake, when all of it is there.
    pub(super) fn shake_hands(
        &mut self,
        input: &mut Input<'_>,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        let State::Shaking(shaking) = &mut self.state else {
            return Ok(());
        };
        let Some(len) = shaking.read(&self.options, input.bytes(), ctx)? else {
            return Ok(());
        };
        input.consume(len);
        let Shaking {
            side,
            actor,
            deadline,
            held,
        } = &mut **shaking;
        if let Some(deadline) = deadline.take() {
            ctx.cancel_timer(deadline);
        }
        let role = match side {
            Side::Server(_) => Role::Server,
            Side::Client(_) => Role::Client,
        };
        let (Some(actor), held) = (actor.take(), std::mem::take(held)) else {
            return Ok(());
        };
        self.state = State::Open(Open::new(role, actor));
        self.start(ctx)?;
        for message in held {
            if ctx.is_closing() {
                break;
            }
            self.pass(ctx, |actor, ctx| actor.message(message, ctx))?;
        }
        // What follows the handshake is shown at once, unless the actor inside pauses or closes.
        Ok(())
    }
}

/// What there is until both sides have said who they are.
pub(super) struct Shaking<A: FrameActor> {
    side: Side<A>,
    /// A server's is made by the handshake.
    actor: Option<A>,
    deadline: Option<TimerKey>,
    /// Messages that came too early.
    held: VecDeque<A::Message>,
}

enum Side<A> {
    Server(Arc<Make<A>>),
    Client(Client<A>),
}

struct Client<A> {
    request: Request,
    key: String,
    answered: Option<Answered<A>>,
}

impl<A: FrameActor> Shaking<A> {
    fn new(side: Side<A>, actor: Option<A>) -> Shaking<A> {
        Shaking {
            side,
            actor,
            deadline: None,
            held: VecDeque::new(),
        }
    }

    pub(super) fn actor(&self) -> Option<&A> {
        self.actor.as_ref()
    }

    /// The connection is there.
    pub(super) fn begin(&mut self, options: &Options, ctx: &mut Context<'_, WebSocket<A>>) {
        self.deadline = Some(ctx.set_timer(options.handshake_timeout));
        if let Side::Client(client) = &mut self.side {
            let (key, request) = client.request.begin();
            client.key = key;
            ctx.write(request);
        }
    }

    /// Reads the peer's part and answers it. Returns how long it is, when it is whole and the actor
    /// may be opened.
    fn read(
        &mut self,
        options: &Options,
        bytes: &[u8],
        ctx: &mut Context<'_, WebSocket<A>>,
    ) -> Result<Option<usize>, Box<dyn Error + Send + Sync>> {
        let max = options.handshake_max;
        match &mut self.side {
            Side::Server(make) => {
                let peer = ctx.peer();
                let read = read_request(bytes, max, |mut upgrade, len| {
                    upgrade.set_peer(peer);
                    let actor = make(&mut upgrade)?;
                    Ok((len, actor, upgrade.response()))
                });
                match read {
                    Ok(Some((len, actor, response))) => {
                        self.actor = Some(actor);
                        ctx.write_kept(response.into());
                        Ok(Some(len))
                    }
                    Ok(None) => Ok(None),
                    Err(refusal) => Err(refuse(ctx, refusal)),
                }
            }
            Side::Client(client) => {
                let (answered, actor) = (&mut client.answered, &mut self.actor);
                let then = |answer: Answer<'_>, len| match (answered.take(), actor) {
                    (Some(answered), Some(actor)) => answered(actor, &answer).map(|()| len),
                    _ => Ok(len),
                };
                let read = client.request.read_answer(&client.key, bytes, max, then);
                read.inspect_err(|_| count(ctx))?.transpose()
            }
        }
    }

    /// Keeps a message until the actor is opened.
    pub(super) fn hold(&mut self, options: &Options, message: A::Message) -> Outcome {
        let limit = options.held_max;
        if self.held.len() >= limit {
            return Err(WebSocketError::TooManyHeld { limit }.into());
        }
        self.held.push_back(message);
        Ok(())
    }

    /// The peer has said all that it says.
    pub(super) fn ended(&self, ctx: &mut Context<'_, WebSocket<A>>) -> Outcome {
        count(ctx);
        match self.side {
            Side::Server(_) => {
                ctx.close();
                Ok(())
            }
            Side::Client(_) => Err(ClientError::Ended.into()),
        }
    }

    /// The peer has not said its part in time.
    pub(super) fn timed_out(&self, ctx: &mut Context<'_, WebSocket<A>>) -> Outcome {
        match self.side {
            Side::Server(_) => {
                let refusal = Refusal::new(408).body("the handshake took too long\n");
                Err(refuse(ctx, refusal))
            }
            Side::Client(_) => {
                count(ctx);
                Err(ClientError::TimedOut.into())
            }
        }
    }

    /// A client is told why it does not come in; of a server nobody has come in.
    pub(super) fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, WebSocket<A>>) {
        if let (Side::Client(_), Some(actor)) = (&self.side, &mut self.actor) {
            actor.closed(reason, &mut ctx.of_type());
        }
    }
}

/// Tells the client that it is not let in.
fn refuse<A: FrameActor>(
    ctx: &mut Context<'_, WebSocket<A>>,
    refusal: Refusal,
) -> Box<dyn Error + Send + Sync> {
    count(ctx);
    ctx.write(refusal.response());
    refusal.into()
}

fn count<A: FrameActor>(ctx: &mut Context<'_, WebSocket<A>>) {
    Counters::add(&ctx.call().registry.door.counters.upgrades_refused, 1);
}

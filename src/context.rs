//! What an actor may ask for during a callback. The record of it, which the poller carries out
//! afterwards, is in [`call`](crate::call).
//!
//! A [`Context`] performs no system call: it writes down what the actor wants. That makes
//! re-entrancy impossible, actors testable without sockets, and the poller's back end exchangeable.

mod adopt;
mod framing;
#[cfg(feature = "tls")]
mod tls;
mod writing;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::actor::Actor;
use crate::addr::{Addr, Answer, Controlled, Entry, HasMailbox, Loss, Post, Waiter, What};
use crate::ask::{AskError, Asked, Reply};
use crate::call::{Call, Spawned, TimerFor, Wants};
use crate::connect::{ConnectOptions, Remote, Target};
use crate::flags::Flags;
use crate::frames::Framer;
use crate::handle::Handle;
use crate::output::Staged;
use crate::registry::{ActorId, ActorKey, Registry};
use crate::sys::{Endpoint, Peer, SocketOption};
use crate::timers::TimerKey;

pub use writing::FileRefused;

/// What an actor may ask for during one callback.
///
/// It is a borrow: nothing of it can be kept. Outside a callback an actor is reached through its
/// [`Addr`] alone.
pub struct Context<'a, A: Actor> {
    pub(crate) call: &'a mut Call,
    /// The type that hosts the actor: its own, or that of the outermost adapter around it.
    host: fn(&Registry) -> Arc<Post<A::Message>>,
    /// How frames are written here.
    framer: Option<&'a dyn Framer>,
    actor: PhantomData<fn(&mut A)>,
}

impl<'a, A: Actor> Context<'a, A> {
    pub(crate) fn new(call: &'a mut Call) -> Context<'a, A> {
        Context {
            call,
            host: Registry::post::<A>,
            framer: None,
            actor: PhantomData,
        }
    }

    /// Writes a copy of `bytes` to the peer. (A large piece of the input that is the first thing
    /// written is sent from where it lies.)
    ///
    /// Everything written during a callback leaves in one piece: at once after
    /// [`readable`](Actor::readable), at the end of the poller's turn after any other callback (or
    /// at once where the high watermark is reached). Bytes leave in order and whole, or the
    /// connection closes with a reason and the peer sees a reset, as by [`abort`](Context::abort). A
    /// payload larger than [`output_max`](crate::ConnectionOptions::output_max) is written in parts,
    /// from one [`drained`](Actor::drained) to the next: as a single write it would be past the
    /// budget however fast the peer reads.
    ///
    /// Returns `false` only where the peer is too slow and whole writes are dropped for it: under
    /// [`SlowReader::DropNewest`](crate::SlowReader::DropNewest) when this one was, under
    /// [`SlowReader::DropOldest`](crate::SlowReader::DropOldest) when older ones are for its sake.
    ///
    /// # Panics
    ///
    /// Where there is no socket: in an actor that was spawned, and in [`closed`](Actor::closed).
    /// After [`shutdown_write`](Context::shutdown_write) in an earlier callback.
    #[inline]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        let shown = self.call.place_in_input(bytes);
        self.call.stage(bytes.len(), |staged| {
            if !shown.is_some_and(|range| staged.push_shown(range)) {
                staged.push_slice(bytes);
            }
        })
    }

    /// Writes `bytes` to the peer without copying them (small ones are copied, that is cheaper).
    /// Otherwise as [`write`](Context::write); to be preferred where many connections are sent the
    /// same large payload.
    ///
    /// # Panics
    ///
    /// As [`write`](Context::write).
    #[inline]
    pub fn write_bytes(&mut self, bytes: Bytes) -> bool {
        self.call
            .stage(bytes.len(), |staged| staged.push_bytes(bytes))
    }

    /// Writes what has to leave before all that is written later: also under
    /// [`SlowReader::DropOldest`](crate::SlowReader::DropOldest) it is not dropped for the sake of that.
    #[cfg(any(feature = "websocket", feature = "http"))]
    pub(crate) fn write_kept(&mut self, bytes: Bytes) -> bool {
        self.call.stage_kept(bytes)
    }

    /// Writes several parts as one: they leave together or, under
    /// [`SlowReader::DropNewest`](crate::SlowReader::DropNewest), are dropped together.
    ///
    /// # Panics
    ///
    /// As [`write`](Context::write).
    #[inline]
    pub fn write_parts(&mut self, parts: &[&[u8]]) -> bool {
        self.call
            .stage(parts.iter().map(|part| part.len()).sum(), |staged| {
                for part in parts {
                    staged.push_slice(part);
                }
            })
    }

    /// Bytes written and not yet taken by the kernel.
    #[inline]
    pub fn queued(&self) -> usize {
        self.call.waiting()
    }

    /// Whether the waiting output has reached the high watermark. Whoever stops writing then is
    /// told by [`drained`](Actor::drained) when to go on.
    #[inline]
    pub fn is_above_high_watermark(&self) -> bool {
        self.queued() >= self.call.options().high_watermark
    }

    /// Closes the connection when all that was written has left, in this callback also what is
    /// still to be written.
    ///
    /// No callback follows but [`closing`](Actor::closing), what [`written`](Actor::written) is owed,
    /// and [`closed`](Actor::closed); messages on their way become dead letters. The peer gets every byte: see
    /// [`ConnectionOptions::linger`](crate::ConnectionOptions::linger). An actor without a socket
    /// ends at once.
    pub fn close(&mut self) {
        self.call.wants.set(Wants::CLOSE);
    }

    /// Closes as [`close`](Context::close) does, and gives the peer so long to take what was
    /// written, in place of
    /// [`ConnectionOptions::flush_timeout`](crate::ConnectionOptions::flush_timeout). Then what is
    /// left is thrown away, the peer sees a reset, and [`closed`](Actor::closed) is told
    /// [`NotFlushed`](crate::CloseReason::NotFlushed).
    ///
    /// Of a datagram socket what is left is dropped and counted, and the reason stays.
    ///
    /// ```
    /// use std::time::Duration;
    /// use greenroom::testing::Stage;
    /// use greenroom::*;
    ///
    /// struct Bye;
    ///
    /// impl Actor for Bye {
    ///     type Message = ();
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         input.take_all();
    ///         ctx.write("bye\n");
    ///         ctx.close_within(Duration::from_secs(2));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut stage = Stage::new(Bye);
    /// stage.stall(); // its peer takes nothing
    /// stage.receive("quit\n");
    /// stage.advance(Duration::from_secs(2));
    /// assert!(matches!(stage.reason(), Some(CloseReason::NotFlushed { queued: 4, .. })));
    /// ```
    pub fn close_within(&mut self, flush: Duration) {
        self.call.close_within = Some(flush);
        self.call.wants.set(Wants::CLOSE);
    }

    /// Ends the connection at once: what is queued is thrown away and the peer sees a reset. A Unix
    /// socket knows none: there the peer sees the end of the stream.
    pub fn abort(&mut self) {
        self.call.wants.set(Wants::ABORT);
    }

    /// Half-close: tells the peer, when all that was written has left, that nothing will follow.
    /// Reading goes on.
    ///
    /// # Panics
    ///
    /// Where there is no socket.
    pub fn shutdown_write(&mut self) {
        assert!(
            self.has_socket(),
            "shutdown_write: this actor has no socket"
        );
        assert!(
            self.datagram_addr().is_none(),
            "shutdown_write: a datagram socket has no halves"
        );
        self.call.wants.set(Wants::SHUTDOWN_WRITE);
    }

    /// Stops reading until [`resume`](Context::resume). The kernel's buffers fill, and TCP holds
    /// the peer back.
    ///
    /// A paused connection is not in the selector: that the peer has gone is noticed when it is
    /// resumed or written to.
    pub fn pause(&mut self) {
        self.call.wants.clear(Wants::RESUME);
        self.call.wants.set(Wants::PAUSE);
    }

    /// Reads again after [`pause`](Context::pause). [`readable`](Actor::readable) is called at once
    /// with what was kept, which may be nothing (but not before there is as much as it asked for
    /// with [`Input::need`](crate::Input::need)).
    pub fn resume(&mut self) {
        self.call.wants.clear(Wants::PAUSE);
        self.call.wants.set(Wants::RESUME);
    }

    /// Waits for room in a mailbox that refused a message: what feeds this actor is paused (its
    /// socket, or, where it has none, its messages) until [`room`](Actor::room) is called, once,
    /// when that mailbox is below half its bound or its actor has gone. Waiters are told in turn.
    /// An actor waits for one mailbox at a time: while it does, further calls change nothing.
    ///
    /// Keep the message that came back and send it again in `room`; then nothing is lost, and a
    /// slow receiver slows down the sockets that feed it.
    ///
    /// An actor without a socket that waits for the mailbox of its own type on its own poller is let
    /// past the bound, up to twice of it: it took a message out for each that it hands on. One that
    /// makes more messages for that mailbox than it takes out of it stops there for good.
    ///
    /// Actors without a socket must not wait for each other in a circle over several actor types or
    /// pollers: each would set aside what the other waits to send. A connection may wait for
    /// anybody, as it goes on taking messages.
    pub fn wait_for_room(&mut self, mailbox: &impl HasMailbox) {
        // One place in one line at a time: messages that come during the wait and are refused, too,
        // add none.
        if self.call.flags.has(Flags::WAITING) || self.call.wants.has(Wants::WAIT) {
            return;
        }
        let post = (self.host)(&self.call.registry) as Arc<dyn Controlled>;
        self.call.wants.set(Wants::WAIT);
        if mailbox.mailbox() == Arc::as_ptr(&post).cast() {
            self.call.wants.set(Wants::WAIT_HERE);
        }
        let key = self.call.key;
        if let Some(waiter) = mailbox.wait(Waiter { post, key }) {
            waiter.tell();
        }
    }

    /// Sets an option of this connection's socket, when this callback has returned and before what
    /// it wrote is sent. Costs some two or three system calls.
    ///
    /// What the system does not take, and what such a socket does not have (TCP_NODELAY on a Unix
    /// socket), is told by [`Actor::option_failed`].
    ///
    /// # Panics
    ///
    /// Where there is no socket.
    pub fn set_option(&mut self, option: SocketOption) {
        assert!(self.has_socket(), "set_option: this actor has no socket");
        self.call.socket_options.push(option);
        self.call.wants.set(Wants::OPTIONS);
    }

    /// Calls [`timer`](Actor::timer) once, `after` from now.
    ///
    /// Timers belong to this actor and end with it. They fire when this callback has returned,
    /// never early, in order of their deadlines; resolution one millisecond.
    pub fn set_timer(&mut self, after: Duration) -> TimerKey {
        let deadline = self.call.deadline(after);
        self.call.set_timer(deadline, None)
    }

    /// Calls [`timer`](Actor::timer) once, at `deadline`, or as soon as may be where that has
    /// passed.
    ///
    /// Otherwise as [`set_timer`](Context::set_timer), which reads the clock each time, since a
    /// turn may have begun long ago. Whoever sets several timers in one callback saves that, by
    /// adding to one [`now`](Context::now): most of the cost of setting one where the clock is
    /// slow.
    pub fn set_timer_at(&mut self, deadline: Instant) -> TimerKey {
        self.call.set_timer(deadline, None)
    }

    /// Calls [`timer`](Actor::timer) every `period`, first one period from now.
    ///
    /// Deadlines are multiples of the period: a late call does not shift the following ones. Ticks
    /// that were missed altogether are skipped, not made up for.
    ///
    /// # Panics
    ///
    /// When the period is zero.
    pub fn set_interval(&mut self, period: Duration) -> TimerKey {
        let first = self.call.deadline(period);
        self.call.set_timer(first, Some(period))
    }

    /// Takes a timer back: it will not fire any more. `false` when it had fired or been cancelled
    /// before.
    pub fn cancel_timer(&mut self, key: TimerKey) -> bool {
        self.call
            .timers
            .cancel(key, self.call.key.index())
            .is_some()
    }

    /// The time of this turn: read once per turn, so cheap, and the same for all callbacks of the
    /// turn.
    pub fn now(&mut self) -> Instant {
        self.call.now()
    }

    /// The address of this actor.
    pub fn addr(&self) -> Addr<A> {
        Addr::new((self.host)(&self.call.registry), self.call.key)
    }

    /// The identity of this actor: that of its address.
    pub fn id(&self) -> ActorId {
        ActorId::new(self.call.registry.door.poller, self.call.key)
    }

    /// The poller on which this actor lives, counted from 0.
    pub fn poller(&self) -> usize {
        self.call.registry.door.poller as usize
    }

    /// Whether this actor is a connection, and it still has its socket.
    pub fn has_socket(&self) -> bool {
        self.call.flags.has(Flags::SOCKET)
    }

    /// The peer's address, also in [`closed`](Actor::closed); `None` for an actor that never had a
    /// socket, or one for datagrams.
    pub fn peer(&self) -> Option<Peer> {
        self.call.peer()
    }

    /// The address on our side of the connection.
    ///
    /// Known at once where the listener is bound to one address. Where it listens on all of them,
    /// the poller asks the kernel after the first callback in which this was called: until then it
    /// is `None`. That of a datagram socket is [`datagram_addr`](Context::datagram_addr)'s to tell.
    pub fn local_addr(&mut self) -> Option<Endpoint> {
        let local = self.call.local();
        if local.is_none() && self.has_socket() && self.datagram_addr().is_none() {
            self.call.wants.set(Wants::LOCAL_ADDR);
        }
        local
    }

    /// Starts an actor without a socket on this poller. Its address works at once; it is opened
    /// after this callback.
    pub fn spawn<B: Actor>(&mut self, actor: B) -> Addr<B> {
        let post = self.call.registry.post::<B>();
        let key = self.call.registry.door.reserve();
        self.call.spawned.push(Spawned::here(key, Box::new(actor)));
        Addr::new(post, key)
    }

    /// Connects to `to`, over TCP or a Unix socket, and has `actor` be the connection, on this
    /// poller. As [`connect_with`](Context::connect_with) with the default options.
    ///
    /// ```
    /// use greenroom::*;
    ///
    /// /// Fetches one line for whoever asks.
    /// struct Fetch;
    ///
    /// impl Actor for Fetch {
    ///     type Message = ();
    ///
    ///     fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.write("GET\n");
    ///         Ok(())
    ///     }
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         if let Some(line) = input.line(80)? {
    ///             println!("{}", String::from_utf8_lossy(line));
    ///             ctx.close();
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
    ///         match reason {
    ///             CloseReason::NotConnected(error) if error.kind() == ConnectErrorKind::Refused => {
    ///                 println!("is the server up? {error}");
    ///             }
    ///             reason => println!("{reason}"),
    ///         }
    ///     }
    /// }
    ///
    /// struct Desk;
    ///
    /// impl Actor for Desk {
    ///     type Message = Remote;
    ///
    ///     fn message(&mut self, from: Remote, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.connect(from, Fetch);
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn connect<B: Actor>(&mut self, to: impl Into<Remote>, actor: B) -> Addr<B> {
        self.connect_with(to, ConnectOptions::default(), actor)
    }

    /// Connects to `to` and has `actor` be the connection, on this poller. Nothing of it blocks.
    ///
    /// The address works at once. Messages wait for [`opened`](Actor::opened), in the mailbox's
    /// bound, and then come in their order; from there on the connection is one like those that a
    /// listener accepts. [`Addr::close`] ends the connect at once, and so does the system's stop.
    ///
    /// It begins when this callback has returned. The addresses of a name are tried in turn, in the
    /// order that the system's resolver gives them (16 of them at most); one that fails makes room
    /// for the next at once. `opened` comes when one is connected. When none is, by the
    /// [deadline](ConnectOptions::timeout), or the connect cannot be made at all, the actor is told
    /// by [`closed`](Actor::closed) alone, with
    /// [`CloseReason::NotConnected`](crate::CloseReason::NotConnected).
    ///
    /// The connection counts in [`Stats::connections`](crate::Stats::connections), and in what
    /// [`Balance::LeastConnections`](crate::Balance::LeastConnections) compares, but not in any
    /// listener's limit.
    pub fn connect_with<B: Actor>(
        &mut self,
        to: impl Into<Remote>,
        options: ConnectOptions,
        actor: B,
    ) -> Addr<B> {
        let post = self.call.registry.post::<B>();
        let key = self.call.registry.door.reserve();
        let to = to.into();
        self.call.spawned.push(Spawned {
            key,
            actor: Box::new(actor),
            target: Some(Box::new(Target { to, options })),
        });
        Addr::new(post, key)
    }

    /// Starts an actor without a socket on the poller of this number, where `make` runs.
    ///
    /// # Panics
    ///
    /// When there is no such poller, see [`Handle::pollers`].
    pub fn spawn_on<B: Actor>(
        &mut self,
        poller: usize,
        make: impl FnOnce() -> B + Send + 'static,
    ) -> Addr<B> {
        self.system().spawn_on(poller, make)
    }

    /// The system that this actor lives in, for instance to stop it. Stopping is a request: it does
    /// not wait.
    pub fn system(&self) -> Handle {
        Handle {
            shared: self.call.shared.clone(),
        }
    }

    /// Asks another actor and gets the answer as a message to this one: `ask` makes the question
    /// around the [`Reply`] that the other has to answer with, `answer` turns the reply, or the
    /// reason why there is none, into a message to this actor. Exactly one message comes: the
    /// reply, or [`AskError`] when the question could not be sent, was dropped unanswered, or was
    /// not answered within `timeout`. It travels in reserved room.
    pub fn ask<B: Actor, R: Send + 'static>(
        &mut self,
        to: &Addr<B>,
        timeout: Duration,
        ask: impl FnOnce(Reply<R>) -> B::Message,
        answer: impl FnOnce(Result<R, AskError>) -> A::Message + Send + 'static,
    ) {
        let post = (self.host)(&self.call.registry);
        let key = self.call.key;
        let asking = self.call.asking.insert(None);
        let (reply, asked) = Asked::new(move |result| {
            let loss = if result.is_ok() {
                Loss::Reply
            } else {
                Loss::Nothing
            };
            // `answer` is the asker's code: it runs there, not where the question is answered or
            // dropped.
            let make = Box::new(move || answer(result));
            let answer = Answer { make, asking, loss };
            post.put(Entry::new(key, What::Answer(Box::new(answer))));
        });
        if let Err(error) = to.send(ask(reply)) {
            // The reply inside the message has not been dropped yet, so this is the first to be
            // heard.
            asked.fail(if error.is_full() {
                AskError::Full
            } else {
                AskError::Gone
            });
            return;
        }
        let deadline = self.call.deadline(timeout);
        let timer = TimerFor::Ask(asked);
        let timer = self.call.timers.set(key.index(), deadline, None, timer);
        self.call.asking[asking] = Some(timer);
    }

    /// Where messages for this actor go.
    pub(crate) fn mailbox(&self) -> (Arc<Post<A::Message>>, ActorKey) {
        ((self.host)(&self.call.registry), self.call.key)
    }

    pub(crate) fn call(&mut self) -> &mut Call {
        self.call
    }

    /// Runs `callback` for an actor that this one wraps, and returns what that one wrote instead of
    /// sending it.
    ///
    /// This is what adapters are made of (an encryption, a framing, a handshake in front of any
    /// unchanged actor): the inner actor sees an ordinary context; its timers, messages, `pause`,
    /// `close` and all else are those of the outer actor, except that its output goes through the
    /// outer one's hands. An outer actor that holds output back, so that less than the inner one
    /// wrote reaches the watermark, owes that one the call of [`drained`](Actor::drained).
    ///
    /// A notice that the inner actor asks for ([`notify_written`](Context::notify_written)) is told
    /// to the outer one, which passes `written` on, when all that it writes in this callback has
    /// been taken; where it holds output back, it calls [`take_notices`](Context::take_notices).
    pub fn nested<B, R>(&mut self, callback: impl FnOnce(&mut Context<'_, B>) -> R) -> (R, Written)
    where
        B: Actor<Message = A::Message>,
    {
        let mut inside = Inside::new(self.call);
        let result = callback(&mut Context {
            call: inside.call,
            host: self.host,
            framer: self.framer,
            actor: PhantomData,
        });
        // Behind all that the outer actor makes of it.
        for mark in inside.call.marks.iter_mut().skip(inside.marks) {
            mark.at = usize::MAX;
        }
        inside.marks = inside.call.marks.len();
        let staged = std::mem::take(&mut inside.call.staged);
        (result, Written { staged })
    }

    /// The same for an actor inside this one.
    #[inline]
    pub(crate) fn of_type<B: Actor<Message = A::Message>>(&mut self) -> Context<'_, B> {
        Context {
            call: self.call,
            host: self.host,
            framer: self.framer,
            actor: PhantomData,
        }
    }

    /// Whether this callback has brought the actor's end: [`close`](Context::close),
    /// [`abort`](Context::abort) or [`detach`](Context::detach) was asked for, or its byte budget
    /// passed. An adapter then makes no further call of the actor inside, and may add its own
    /// farewell. Also in [`written`](Actor::written) while the connection closes after flushing.
    #[inline]
    pub fn is_closing(&self) -> bool {
        let flags = self.call.flags;
        self.call.wants.has(Wants::ENDS) || flags.has(Flags::CLOSING) && flags.has(Flags::SOCKET)
    }

    /// Whether the actor goes on being shown input: not where it has [paused](Context::pause),
    /// [waits for room](Context::wait_for_room) or [closes](Context::is_closing).
    ///
    /// An adapter that takes several frames out of one input asks this before each, and leaves the
    /// rest where the actor inside has had enough: it is shown again when that goes on. (The
    /// framework asks the same between two calls of [`readable`](Actor::readable).)
    #[inline]
    pub fn is_reading(&self) -> bool {
        let (flags, wants) = (self.call.flags, self.call.wants);
        let resumes = wants.has(Wants::RESUME);
        !wants.has(Wants::STOPS_INPUT)
            && !flags.has(Flags::WAITING | Flags::CLOSING | Flags::EOF_TOLD)
            && (resumes || !flags.has(Flags::PAUSED))
    }

    /// Whether [`shutdown_write`](Context::shutdown_write) was called, in this callback or before:
    /// in an earlier one, nothing can be written any more.
    #[inline]
    pub fn is_shutting_down_write(&self) -> bool {
        self.call.wants.has(Wants::SHUTDOWN_WRITE) || self.call.flags.has(Flags::WRITE_SHUT)
    }
}

/// The desk as an actor inside another sees it, until this is dropped, by a panic, too: what that
/// had written or asked to be told is then nobody's.
struct Inside<'a> {
    call: &'a mut Call,
    /// What there was before.
    staged: Staged,
    queued: usize,
    shown: Range<usize>,
    /// How many stay.
    marks: usize,
}

impl<'a> Inside<'a> {
    fn new(call: &'a mut Call) -> Inside<'a> {
        let staged = std::mem::take(&mut call.staged);
        let queued = call.queued;
        call.queued += staged.len();
        // What is written now may outlive this callback, and the read buffer does not.
        let shown = std::mem::take(&mut call.shown);
        let marks = call.marks.len();
        call.nested += 1;
        Inside {
            call,
            staged,
            queued,
            shown,
            marks,
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let call = &mut *self.call;
        call.nested -= 1;
        call.marks.truncate(self.marks);
        call.shown = std::mem::take(&mut self.shown);
        call.queued = self.queued;
        let lost = std::mem::replace(&mut call.staged, std::mem::take(&mut self.staged));
        call.over += lost.len();
    }
}

impl<A: Actor> fmt::Debug for Context<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id())
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

/// What a nested actor wrote during a callback, see [`Context::nested`].
pub struct Written {
    staged: Staged,
}

impl Written {
    /// The bytes in order, in one or several parts.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.staged.parts(&[])
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.staged.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.staged.is_empty()
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("len", &self.len()).finish()
    }
}

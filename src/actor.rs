//! What a user writes: the [`Actor`] trait, what its callbacks return, and why a connection ends.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::adopt::{AdoptError, Readiness};
use crate::connect::ConnectError;
use crate::context::Context;
use crate::datagram::{Datagram, DatagramFailure};
use crate::input::Input;
use crate::sys::SocketOption;
use crate::timers::TimerKey;
use crate::tls::TlsError;

/// What a callback returns: `Ok(())` to go on, an error to close this one connection.
///
/// Any error converts with `?`; [`Actor::closed`] is then told [`CloseReason::Error`] with that
/// error inside. What was written before the error still leaves (see [`Context::close`]).
///
/// Beware of `?` on [`Addr::send`](crate::Addr::send): a full mailbox or a receiver that has gone
/// then closes the *sender*.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// The logic of one connection, or of an actor without a socket.
///
/// An actor lives on one poller thread from [`opened`](Actor::opened) to [`closed`](Actor::closed).
/// Its callbacks are called on that thread only, one at a time, and never from within one another:
/// everything that a callback asks of its [`Context`] is carried out after it has returned. It need
/// not be `Send`.
///
/// # Order of the calls
///
/// 1. `opened`, first and once. Messages that were sent earlier wait for it.
/// 2. `readable`, `datagram`, `datagram_failed`, `message`, `timer`, `drained`, `written`, `room`,
///    `option_failed` in any number and order; `read_closed` at most once, after the last byte that
///    the peer sent; `stopping` at most once.
/// 3. `closing` at most once, where a connection closes in an orderly way; behind it `written`
///    alone.
/// 4. `closed`, last and once, for every actor that was opened, whatever ended it. One whose
///    connect comes to nothing ([`Context::connect`]) gets `closed` alone.
///
/// # Panics in a callback
///
/// A panic closes this actor alone, with [`CloseReason::Panicked`]; `closed` is still called, then
/// the actor is dropped. What that callback wrote is thrown away, and the peer sees a reset. That
/// holds only where panics unwind: with `panic = "abort"` the process ends.
///
/// # A callback's time
///
/// While a callback runs, every other actor of its poller waits. Nothing in it should block.
pub trait Actor: Sized + 'static {
    /// What [`Addr::send`](crate::Addr::send) carries to this actor. Use `()` for an actor that
    /// takes none.
    type Message: Send + 'static;

    /// The actor has its place on the poller and, if it is a connection, its socket.
    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = ctx;
        Ok(())
    }

    /// Bytes have arrived. What is not consumed is kept and shown again, in one piece with what
    /// follows.
    ///
    /// Called again for as long as it consumes something and something is left, so it may take one
    /// frame at a time. Also called when reading goes on after [`Context::resume`],
    /// [`room`](Actor::room) or [`SlowReader::PauseSource`](crate::SlowReader::PauseSource), with
    /// what was kept, which may be nothing; and once more at the peer's half-close when input was
    /// kept ([`Input::at_end`] tells). The default is an error: an actor that is given a socket has
    /// to say what it does with bytes.
    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = (input, ctx);
        Err(Unhandled {
            callback: "readable",
            actor: std::any::type_name::<Self>(),
        }
        .into())
    }

    /// The peer has shut down its writing side (half-close), and its last byte has been shown.
    ///
    /// The actor may go on writing. The default closes the connection after flushing
    /// ([`Context::close`]). From here on nothing is read: that the peer has gone altogether is noticed
    /// by a write, or ends with a [time limit](crate::ConnectionOptions::idle_timeout).
    ///
    /// ```
    /// use greenroom::testing::Stage;
    /// use greenroom::*;
    ///
    /// /// Counts what comes, and answers when that has ended.
    /// struct Count(usize);
    ///
    /// impl Actor for Count {
    ///     type Message = ();
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
    ///         self.0 += input.take_all().len();
    ///         Ok(())
    ///     }
    ///
    ///     fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.write(format!("{} bytes\n", self.0));
    ///         ctx.close();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut stage = Stage::new(Count(0));
    /// stage.receive("all that I have");
    /// stage.half_close();
    /// assert_eq!(stage.output(), "15 bytes\n");
    /// ```
    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.close();
        Ok(())
    }

    /// A message sent to this actor's address.
    ///
    /// The default is an error: an actor that is sent messages has to say what it does with them.
    fn message(&mut self, message: Self::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = (message, ctx);
        Err(Unhandled {
            callback: "message",
            actor: std::any::type_name::<Self>(),
        }
        .into())
    }

    /// A timer set by [`Context::set_timer`], [`Context::set_timer_at`] or
    /// [`Context::set_interval`] is due.
    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = (key, ctx);
        Ok(())
    }

    /// The output waiting for the peer had reached the high watermark and has fallen to the low
    /// one. For a datagram socket: a datagram was dropped for want of
    /// [room](crate::DatagramOptions::queue_max), and no more than a quarter of that waits for the
    /// socket.
    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = ctx;
        Ok(())
    }

    /// The kernel has taken all that was written before this notice was asked for with
    /// [`Context::notify_written`].
    ///
    /// Called once for each, in the order in which they were asked for. Where the connection
    /// closes after flushing, also then, before `closed`: what is written here still leaves in
    /// front of the end ([`Context::is_closing`] tells). A connection that ends before its bytes
    /// are taken is told `closed` alone.
    fn written(&mut self, token: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = (token, ctx);
        Ok(())
    }

    /// The descriptor that is [watched](crate::Handle::watch) for this actor is ready.
    ///
    /// Called again, once a turn, for as long as it is: an actor that does not read what is there,
    /// and neither [pauses](Context::pause) nor asks for [other directions](Context::set_interest),
    /// keeps its poller from sleeping, though no other actor from its turn. A hang-up with nothing
    /// left to read is told once; then the descriptor is let be until the actor asks for directions
    /// again or [resumes](Context::resume). The default is an error: an actor that is given a
    /// descriptor has to say what it does with it.
    fn ready(&mut self, ready: Readiness, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = (ready, ctx);
        Err(Unhandled {
            callback: "ready",
            actor: std::any::type_name::<Self>(),
        }
        .into())
    }

    /// The mailbox that this actor waited for ([`Context::wait_for_room`]) has room again, or its
    /// actor has gone.
    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = ctx;
        Ok(())
    }

    /// A datagram has come to this actor's socket ([`System::bind_datagram`](crate::System::bind_datagram)).
    ///
    /// It is shown once, whole ([`Datagram::is_truncated`] tells where not), and gone when this
    /// returns; [`Context::reply`] answers it. While the actor [pauses](Context::pause), datagrams
    /// wait in the kernel, and are lost when its buffer is full. An error ends the actor, and its
    /// socket with it: what a stranger can make a server for datagrams fail by, it should pass over.
    /// The default is an error.
    fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = (datagram, ctx);
        Err(Unhandled {
            callback: "datagram",
            actor: std::any::type_name::<Self>(),
        }
        .into())
    }

    /// Something went wrong with this actor's datagram socket, which goes on all the same: a
    /// datagram was not sent, one sent before was refused, an option could not be set.
    ///
    /// Called promptly: in the same turn of the poller or the next; up to 64 of them one by one, the
    /// rest as a number. The default passes over it; [`Stats`](crate::Stats) counts it in any case.
    fn datagram_failed(
        &mut self,
        failure: DatagramFailure,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        let _ = (failure, ctx);
        Ok(())
    }

    /// An option that was set with [`Context::set_option`], or that the listener asks of every
    /// connection, could not be set: the error names both, and says why.
    ///
    /// Called promptly: in the same turn of the poller or the next. The default goes on without the
    /// option; [`Stats::options_failed`](crate::Stats::options_failed) counts it in any case.
    fn option_failed(
        &mut self,
        option: SocketOption,
        error: io::Error,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        let _ = (option, error, ctx);
        Ok(())
    }

    /// The system stops; at `deadline` whatever is still there is closed.
    ///
    /// The default closes the connection after flushing. An actor without a socket is kept, to
    /// serve those that still have one, until the last connection of the system has ended.
    fn stopping(&mut self, deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = deadline;
        if ctx.has_socket() {
            ctx.close();
        }
        Ok(())
    }

    /// The connection is about to close in an orderly way, for this reason: what is written here
    /// still leaves, in front of the end of the stream and behind all that was written before. For a
    /// farewell that a protocol wants said whatever ends it.
    ///
    /// Called at most once, before [`closed`](Actor::closed): where the actor closes
    /// ([`Context::close`], an error returned), its [`Addr::close`](crate::Addr::close) is called,
    /// the peer has half-closed and that closes it, it was [idle](CloseReason::Idle), its input came
    /// [too slowly](CloseReason::SlowSender) or was [too long](CloseReason::InputTooLong), or the
    /// system's deadline has come and nothing waits in front of the farewell. Not after an abort, a
    /// reset, a panic, a failure of the socket, a reader that is stuck or too slow or a client that was
    /// [silent](CloseReason::Silent) from the start, not where the writing side was shut down, nor for
    /// an actor that is no connection.
    ///
    /// The close goes on whatever is asked for here, within the time that it has: of an actor that
    /// closes, no input, timer or message follows, only what [`written`](Actor::written) is owed. A
    /// farewell for which the [budget](crate::ConnectionOptions::output_max) has no room is dropped
    /// whole, and [counted](crate::Stats::dropped_writes) as one write. After a panic here the peer sees a reset.
    ///
    /// ```
    /// use greenroom::testing::Stage;
    /// use greenroom::*;
    ///
    /// struct Polite;
    ///
    /// impl Actor for Polite {
    ///     type Message = ();
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
    ///         input.line(3)?;
    ///         Ok(())
    ///     }
    ///
    ///     fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
    ///         ctx.write(format!("bye: {reason}"));
    ///     }
    /// }
    ///
    /// let mut stage = Stage::new(Polite);
    /// stage.receive("hello\n");
    /// assert_eq!(stage.output(), "bye: line or frame longer than its limit of 3 bytes");
    /// ```
    fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        let _ = (reason, ctx);
    }

    /// The actor has ended, for this reason. There is no socket any more: writing here panics.
    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        let _ = (reason, ctx);
    }

    /// Whether this actor goes on after a failure: for [`Supervised`](crate::Supervised) alone.
    #[doc(hidden)]
    fn revive(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) -> bool {
        let _ = (reason, ctx);
        false
    }
}

/// The callbacks of these names as an adapter has them that adds nothing to them: each goes to the
/// actor inside by the adapter's own `pass`.
macro_rules! pass_on {
    (@opened) => {
        $crate::actor::pass_on! { @as opened() }
    };
    (@readable) => {
        $crate::actor::pass_on! { @as readable(input: &mut $crate::input::Input<'_>) }
    };
    (@read_closed) => {
        $crate::actor::pass_on! { @as read_closed() }
    };
    (@message) => {
        $crate::actor::pass_on! { @as message(message: Self::Message) }
    };
    (@timer) => {
        $crate::actor::pass_on! { @as timer(key: $crate::timers::TimerKey) }
    };
    (@drained) => {
        $crate::actor::pass_on! { @as drained() }
    };
    (@written) => {
        $crate::actor::pass_on! { @as written(token: u64) }
    };
    (@ready) => {
        $crate::actor::pass_on! { @as ready(ready: $crate::adopt::Readiness) }
    };
    (@room) => {
        $crate::actor::pass_on! { @as room() }
    };
    (@option_failed) => {
        $crate::actor::pass_on! { @as option_failed(option: $crate::sys::SocketOption, error: std::io::Error) }
    };
    (@datagram) => {
        $crate::actor::pass_on! { @as datagram(datagram: $crate::datagram::Datagram<'_>) }
    };
    (@datagram_failed) => {
        $crate::actor::pass_on! { @as datagram_failed(failure: $crate::datagram::DatagramFailure) }
    };
    (@stopping) => {
        $crate::actor::pass_on! { @as stopping(deadline: std::time::Instant) }
    };
    (@as $callback:ident($($argument:ident: $kind:ty),*)) => {
        fn $callback(
            &mut self,
            $($argument: $kind,)*
            ctx: &mut $crate::context::Context<'_, Self>,
        ) -> $crate::actor::Outcome {
            self.pass(ctx, |actor, ctx| actor.$callback($($argument,)* ctx))
        }
    };
    ($($callback:ident)*) => {
        $($crate::actor::pass_on! { @$callback })*
    };
}

pub(crate) use pass_on;

/// Why an actor ended: what [`Actor::closed`] is told, what the log says and what the counters
/// count.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed or half-closed the connection, and the actor had no more to say.
    PeerClosed,
    /// The actor itself asked for it ([`Context::close`], [`Addr::close`](crate::Addr::close)).
    Finished,
    /// The actor asked for an abort ([`Context::abort`]): the peer sees a reset.
    Aborted,
    /// The peer reset the connection, or went away with bytes of ours unread.
    Reset,
    /// The socket failed.
    Io(io::Error),
    /// A callback returned this error.
    Error(Box<dyn Error + Send + Sync>),
    /// A callback panicked, with this message.
    Panicked(String),
    /// Nothing was received and nothing sent for this long
    /// ([`ConnectionOptions::idle_timeout`](crate::ConnectionOptions::idle_timeout)).
    Idle(Duration),
    /// Bytes waited for a peer that took none of them for this long
    /// ([`ConnectionOptions::stuck_timeout`](crate::ConnectionOptions::stuck_timeout)).
    StuckReader {
        /// How many bytes were still waiting.
        queued: usize,
        /// The time without progress.
        after: Duration,
    },
    /// The peer takes less than is written for it: the byte budget of its output was passed
    /// ([`ConnectionOptions::output_max`](crate::ConnectionOptions::output_max)).
    SlowReader {
        /// How many bytes would have been waiting.
        queued: usize,
        /// The budget.
        limit: usize,
    },
    /// More output waited on this connection's poller than may in all
    /// ([`Builder::output_budget`](crate::Builder::output_budget)), and this was among those for
    /// which the most did.
    OutputBudget {
        /// How many bytes waited for this one.
        queued: usize,
        /// The budget of the poller.
        limit: usize,
    },
    /// A frame was begun and not completed in this time
    /// ([`ConnectionOptions::incomplete_timeout`](crate::ConnectionOptions::incomplete_timeout)).
    SlowSender {
        /// How many bytes had arrived of it.
        kept: usize,
        /// The time that it was given.
        after: Duration,
    },
    /// The actor left more input unconsumed than may be kept for it
    /// ([`ConnectionOptions::input_max`](crate::ConnectionOptions::input_max)), or asked for more
    /// than that with [`Input::need`].
    InputTooLong {
        /// How many bytes there were, or were asked for.
        len: usize,
        /// The budget.
        limit: usize,
    },
    /// The system stopped before the actor had ended by itself.
    Stopped,
    /// The actor gave its socket away ([`Context::detach`]): the connection goes on elsewhere.
    Detached,
    /// The actor never had the socket or descriptor that it was to have ([`Context::adopt`],
    /// [`Context::watch`]).
    NotAdopted(AdoptError),
    /// Nothing came from the peer, and nothing was sent to it, for this long after it was accepted
    /// ([`ConnectionOptions::first_bytes_timeout`](crate::ConnectionOptions::first_bytes_timeout)).
    Silent(Duration),
    /// A frame came too slowly
    /// ([`ConnectionOptions::least_input_rate`](crate::ConnectionOptions::least_input_rate)).
    InputRate {
        /// How many bytes had come of it.
        kept: usize,
        /// How many there should be ...
        least: usize,
        /// ... for each such time.
        after: Duration,
    },
    /// The peer took what waited for it too slowly
    /// ([`ConnectionOptions::least_output_rate`](crate::ConnectionOptions::least_output_rate)).
    OutputRate {
        /// How many bytes it took.
        taken: usize,
        /// How many it should have taken ...
        least: usize,
        /// ... in this time.
        after: Duration,
    },
    /// The connection was closed, and the peer did not take what was written in time
    /// ([`ConnectionOptions::flush_timeout`](crate::ConnectionOptions::flush_timeout),
    /// [`Context::close_within`]).
    NotFlushed {
        /// How many bytes were still waiting.
        queued: usize,
        /// The time that it had.
        after: Duration,
    },
    /// The connection that the actor was made for was not made: `closed` is all that it is told.
    NotConnected(ConnectError),
    /// TLS failed on a connection that it had secured: a record was bad, the peer sent an alert, or it
    /// ended without saying so. What had come before in order was shown.
    Tls(TlsError),
}

impl CloseReason {
    /// The names of all reasons, for the counters.
    pub(crate) const NAMES: [&'static str; 22] = [
        "peer closed",
        "finished",
        "aborted",
        "reset",
        "io",
        "error",
        "panicked",
        "idle",
        "stuck reader",
        "slow reader",
        "slow sender",
        "input too long",
        "stopped",
        "detached",
        "not adopted",
        "output budget",
        "silent",
        "input rate",
        "output rate",
        "not flushed",
        "not connected",
        "tls",
    ];

    /// The place of this reason in [`NAMES`](CloseReason::NAMES).
    pub(crate) fn place(&self) -> usize {
        match self {
            CloseReason::PeerClosed => 0,
            CloseReason::Finished => 1,
            CloseReason::Aborted => 2,
            CloseReason::Reset => 3,
            CloseReason::Io(_) => 4,
            CloseReason::Error(_) => 5,
            CloseReason::Panicked(_) => 6,
            CloseReason::Idle(_) => 7,
            CloseReason::StuckReader { .. } => 8,
            CloseReason::SlowReader { .. } => 9,
            CloseReason::SlowSender { .. } => 10,
            CloseReason::InputTooLong { .. } => 11,
            CloseReason::Stopped => 12,
            CloseReason::Detached => 13,
            CloseReason::NotAdopted(_) => 14,
            CloseReason::OutputBudget { .. } => 15,
            CloseReason::Silent(_) => 16,
            CloseReason::InputRate { .. } => 17,
            CloseReason::OutputRate { .. } => 18,
            CloseReason::NotFlushed { .. } => 19,
            CloseReason::NotConnected(_) => 20,
            CloseReason::Tls(_) => 21,
        }
    }

    /// A short name, the same for all reasons of a kind: what
    /// [`Stats::closed_by`](crate::Stats::closed_by) counts under.
    pub fn name(&self) -> &'static str {
        CloseReason::NAMES[self.place()]
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::PeerClosed => f.write_str("closed by the peer"),
            CloseReason::Finished => f.write_str("finished"),
            CloseReason::Aborted => f.write_str("aborted"),
            CloseReason::Reset => f.write_str("reset by the peer"),
            CloseReason::Io(error) => write!(f, "socket failed: {error}"),
            CloseReason::Error(error) => write!(f, "{error}"),
            CloseReason::Panicked(what) => write!(f, "a callback panicked: {what}"),
            CloseReason::Idle(after) => write!(f, "idle for {after:?}"),
            CloseReason::StuckReader { queued, after } => {
                write!(
                    f,
                    "stuck reader: {queued} bytes waited and none was taken for {after:?}"
                )
            }
            CloseReason::SlowReader { queued, limit } => {
                write!(f, "slow reader: {queued} bytes waited where {limit} may")
            }
            CloseReason::OutputBudget { queued, limit } => {
                write!(
                    f,
                    "output budget: {queued} bytes waited here when more did on the poller than the {limit} that may"
                )
            }
            CloseReason::SlowSender { kept, after } => {
                write!(
                    f,
                    "slow sender: a frame of which {kept} bytes had come was not complete after {after:?}"
                )
            }
            CloseReason::InputTooLong { len, limit } => {
                write!(
                    f,
                    "input too long: {len} bytes not consumed where {limit} may be kept"
                )
            }
            CloseReason::Stopped => f.write_str("the system stopped"),
            CloseReason::Detached => f.write_str("detached"),
            CloseReason::NotAdopted(error) => error.fmt(f),
            CloseReason::Silent(after) => write!(f, "silent: no byte either way in {after:?}"),
            CloseReason::InputRate { kept, least, after } => {
                write!(
                    f,
                    "input rate: {kept} bytes of a frame had come where {least} must in each {after:?}"
                )
            }
            CloseReason::OutputRate {
                taken,
                least,
                after,
            } => {
                write!(
                    f,
                    "output rate: {taken} bytes were taken in {after:?} where {least} must be"
                )
            }
            CloseReason::NotFlushed { queued, after } => {
                write!(
                    f,
                    "not flushed: {queued} bytes still waited {after:?} after the close"
                )
            }
            CloseReason::NotConnected(error) => error.fmt(f),
            CloseReason::Tls(error) => error.fmt(f),
        }
    }
}

/// A callback was needed that the actor does not have.
#[derive(Debug)]
struct Unhandled {
    callback: &'static str,
    actor: &'static str,
}

impl fmt::Display for Unhandled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} has no `{}` callback, and it was called for",
            self.actor, self.callback
        )
    }
}

impl Error for Unhandled {}

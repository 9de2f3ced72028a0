//! One connection that is made again, behind one address, for as long as that is wanted.

mod line;

use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use crate::actor::{Actor, CloseReason, Outcome};
use crate::addr::{Addr, Recipient};
use crate::ask::Reply;
use crate::connect::{ConnectErrorKind, ConnectOptions, Remote};
use crate::context::Context;
use crate::hosts::contain;
use crate::registry::Counters;
use crate::sys::{Random, chance};
use crate::timers::TimerKey;

use line::Line;

/// An actor that keeps one connection up: whatever ends it, the next one is made.
///
/// `make` makes an actor for each try; it is a connection as by
/// [`Context::connect_with`], on the poller of this one. There is one at a time: the next is made
/// when the last has been told [`closed`](Actor::closed) and been dropped, and the time to wait is
/// over. A panic in it, or in `make`, is a failure like any other.
///
/// # When it tries again
///
/// After the n-th failure in a row the time until the next try is drawn evenly from 0 to
/// `first * 2^(n - 1)`, and to `longest` at most ([`backoff`](Reconnect::backoff)): "full jitter"
/// (Marc Brooker, Exponential Backoff And Jitter, AWS Architecture Blog 2015), which has the many
/// that lost the same server come back spread out, and finish with the fewest tries. A connection
/// that held for [`settled_after`](Reconnect::settled_after) begins the count anew; one that ended
/// sooner counts as a failure itself.
///
/// # Its messages
///
/// What is sent to this actor goes to the connection that is up, in order. Its
/// [message](ReconnectMessage) is made from the connection's, so [`Addr::recipient`] makes an address
/// of it that takes those. While no connection is up nothing is kept: a message is a
/// [dead letter](crate::Stats::dead_letters), or [comes back](ReconnectMessage::or_back) to who asked
/// for that. One that was passed on when the connection had ended already, and this actor did not
/// know, is a dead letter as well. When the mailbox of the connections is full this one waits, and
/// its own fills.
///
/// # Its end
///
/// [`Addr::close`] closes the connection, after flushing, and ends this actor; so does what it is
/// told by the [limit](Reconnect::attempts), as an error. When the system stops nothing is made any
/// more. Each time whoever [monitors](Context::monitor) it is told.
///
/// ```rust,no_run
/// use std::time::Duration;
/// use greenroom::*;
///
/// /// Says who it is, and sends a line for each message.
/// struct Feed;
///
/// impl Actor for Feed {
///     type Message = String;
///
///     fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
///         ctx.write("I am the sensor on the roof\n");
///         Ok(())
///     }
///
///     fn message(&mut self, line: String, ctx: &mut Context<'_, Self>) -> Outcome {
///         ctx.write_parts(&[line.as_bytes(), b"\n"]);
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let system = System::builder().build()?;
/// let to: Remote = "127.0.0.1:7000".parse()?;
/// let feed = system.spawn(move || {
///     Reconnect::new(to, || Feed).backoff(Duration::from_millis(50), Duration::from_secs(5))
/// });
/// // A stable address: whichever connection is up gets it.
/// let lines: Recipient<String> = feed.recipient();
/// lines.send("it is 21 degrees".to_owned())?;
/// // Told whether it went, and given it back if not.
/// let line = "it rains".to_owned();
/// let told = feed.ask(Duration::from_secs(1), |reply| ReconnectMessage::or_back(line, reply))?;
/// if let Err(line) = told {
///     println!("nobody is there to be told: {line}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct Reconnect<A: Actor> {
    to: Remote,
    make: Box<dyn FnMut() -> A>,
    options: ConnectOptions,
    first: Duration,
    longest: Duration,
    settled_after: Duration,
    attempts: Option<u32>,
    told: Option<Recipient<Link<A>>>,
    random: Random,
    /// The connection, or the one that is being made.
    line: Option<Addr<Line<A>>>,
    /// Since when it is up.
    up_since: Option<Instant>,
    /// How many have failed in a row.
    failures: u32,
    /// A message that waits for room.
    refused: Option<Passing<A::Message>>,
    is_stopping: bool,
}

/// How a [`Reconnect`]'s connection fares: what [`Reconnect::tell`] tells.
pub enum Link<A: Actor> {
    /// A connection is made, and its actor was [opened](Actor::opened): it has this address.
    Up(Addr<A>),
    /// It has ended, or was not made.
    Down(Down),
}

/// Why there is no connection, and what comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Down {
    /// The [name of the reason](CloseReason::name). The actor that was the connection is told all of
    /// it.
    pub reason: &'static str,
    /// Why it was not made, where it was not.
    pub not_connected: Option<ConnectErrorKind>,
    /// How many have failed in a row; 0 when the one that ended had
    /// [settled](Reconnect::settled_after).
    pub failures: u32,
    /// In what time the next try is made; `None` when none is: the [`Reconnect`] ends.
    pub next_in: Option<Duration>,
}

/// What a [`Reconnect`] is sent: a message for its connection. Made [from](From) that.
pub struct ReconnectMessage<M: Send + 'static>(What<M>);

enum What<M: Send + 'static> {
    Pass(Passing<M>),
    /// The connection that was being made is there.
    Up,
    /// The one connection has ended, or was not made, and its actor has been dropped.
    Gone(&'static str, Option<ConnectErrorKind>),
}

struct Passing<M: Send + 'static> {
    message: M,
    reply: Option<Reply<Result<(), M>>>,
}

impl<M: Send + 'static> ReconnectMessage<M> {
    /// A message that comes back when no connection is up: to be [asked](Addr::ask). The answer is
    /// `Ok(())` when the message was passed on to a connection, which may still end before its turn
    /// has come.
    pub fn or_back(message: M, reply: Reply<Result<(), M>>) -> ReconnectMessage<M> {
        let reply = Some(reply);
        ReconnectMessage(What::Pass(Passing { message, reply }))
    }
}

impl<M: Send + 'static> From<M> for ReconnectMessage<M> {
    fn from(message: M) -> ReconnectMessage<M> {
        let reply = None;
        ReconnectMessage(What::Pass(Passing { message, reply }))
    }
}

/// Why a [`Reconnect`] ended by itself.
#[derive(Debug)]
struct GaveUp {
    to: Remote,
    failures: u32,
    last: &'static str,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GaveUp { to, failures, last } = self;
        write!(
            f,
            "reconnect to {to}: gave up after {failures} failures in a row, the last: {last}"
        )
    }
}

impl Error for GaveUp {}

impl<A: Actor> Reconnect<A> {
    /// One connection to `to`, whose actors `make` makes; the first one at once. It is tried for
    /// ever, after up to 100 ms at first and up to 30 s at last, and has settled after 10 s.
    pub fn new(to: impl Into<Remote>, make: impl FnMut() -> A + 'static) -> Reconnect<A> {
        Reconnect {
            to: to.into(),
            make: Box::new(make),
            options: ConnectOptions::new(),
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
            settled_after: Duration::from_secs(10),
            attempts: None,
            told: None,
            random: Random::default(),
            line: None,
            up_since: None,
            failures: 0,
            refused: None,
            is_stopping: false,
        }
    }

    /// How connections are made. One try takes no longer than its
    /// [`timeout`](ConnectOptions::timeout).
    pub fn connect_options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// How long it is until the next try, at most: `first` after one failure, twice as long after
    /// each further one in a row, and never longer than `longest`. How long it is is
    /// [drawn](Reconnect#when-it-tries-again). By default 100 ms and 30 s.
    ///
    /// # Panics
    ///
    /// When `first` is zero, or longer than `longest`.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        assert!(
            !first.is_zero(),
            "backoff: without a pause a server that is away would be tried without rest"
        );
        assert!(
            first <= longest,
            "backoff: the first pause ({first:?}) must not be longer than the longest ({longest:?})"
        );
        (self.first, self.longest) = (first, longest);
        self
    }

    /// For how long a connection has to hold so that the failures before it are forgotten. By
    /// default 10 s.
    pub fn settled_after(mut self, time: Duration) -> Self {
        self.settled_after = time;
        self
    }

    /// How many may fail in a row; then this actor ends, with an error. By default there is no limit
    /// (`None`).
    ///
    /// # Panics
    ///
    /// When it is 0.
    pub fn attempts(mut self, most: impl Into<Option<u32>>) -> Self {
        let most = most.into();
        assert!(most != Some(0), "attempts: the first one must be allowed");
        self.attempts = most;
        self
    }

    /// Who is told when the connection is up and when it is down, in turn, a try that came to
    /// nothing included; in reserved room, which is never refused. Each [`Link::Up`] is followed by
    /// a [`Link::Down`], also when this actor ends. By default nobody is.
    pub fn tell(mut self, whom: impl Into<Recipient<Link<A>>>) -> Self {
        self.told = Some(whom.into());
        self
    }

    /// Runs code of the user's that is not to be the end of this actor.
    fn contained(ctx: &mut Context<'_, Self>, of: &str, f: impl FnOnce()) {
        let door = ctx.call().registry.door.clone();
        contain(&door, of, f);
    }

    fn say(&self, link: Link<A>, ctx: &mut Context<'_, Self>) {
        if let Some(whom) = &self.told {
            Self::contained(ctx, "a conversion of a message", || {
                whom.post.send_reserved(whom.key, link);
            });
        }
    }

    fn connect(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.is_stopping {
            return Ok(());
        }
        let (make, mut made) = (&mut self.make, None);
        Self::contained(ctx, type_name::<A>(), || made = Some(make()));
        let Some(actor) = made else {
            return self.is_down("panicked", None, ctx);
        };
        let line = Line::new(actor, ctx.addr());
        self.line = Some(ctx.connect_with(&self.to, self.options.clone(), line));
        Ok(())
    }

    fn is_up(&mut self, ctx: &mut Context<'_, Self>) {
        if let Some(line) = &self.line {
            self.up_since = Some(ctx.now());
            self.say(Link::Up(line.inside()), ctx);
        }
    }

    fn is_down(
        &mut self,
        reason: &'static str,
        not_connected: Option<ConnectErrorKind>,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        self.line = None;
        let now = ctx.now();
        let held = self.up_since.take();
        let held = held.map(|since| now.saturating_duration_since(since));
        let had_settled = held.is_some_and(|held| held >= self.settled_after);
        self.failures = if had_settled {
            0
        } else {
            self.failures.saturating_add(1)
        };
        if not_connected == Some(ConnectErrorKind::Stopped) {
            self.is_stopping = true;
        }
        let gives_up = self.attempts.is_some_and(|most| self.failures >= most);
        let next_in = (!gives_up && !self.is_stopping).then(|| self.draw());
        let failures = self.failures;
        let down = Down {
            reason,
            not_connected,
            failures,
            next_in,
        };
        self.say(Link::Down(down), ctx);
        if let Some(after) = next_in {
            ctx.set_timer(after);
        } else if !self.is_stopping {
            return Err(Box::new(GaveUp {
                to: self.to.clone(),
                failures,
                last: not_connected.map_or(reason, ConnectErrorKind::as_str),
            }));
        }
        Ok(())
    }

    /// Until the next try.
    fn draw(&mut self) -> Duration {
        let most = ceiling(self.first, self.longest, self.failures);
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.below(nanos.saturating_add(1)))
    }

    fn pass(&mut self, passing: Passing<A::Message>, ctx: &mut Context<'_, Self>) {
        let Some(line) = self.line.as_ref().filter(|_| self.up_since.is_some()) else {
            return give_back(passing, ctx);
        };
        let Passing { message, reply } = passing;
        match line.send(message) {
            Ok(()) => {
                if let Some(reply) = reply {
                    // Whoever asked may have gone.
                    let _ = reply.send(Ok(()));
                }
            }
            Err(error) => {
                let is_full = error.is_full();
                let message = error.into_message();
                let passing = Passing { message, reply };
                if is_full {
                    ctx.wait_for_room(line);
                    self.refused = Some(passing);
                } else {
                    give_back(passing, ctx);
                }
            }
        }
    }
}

/// The longest time until the next try behind so many failures in a row.
fn ceiling(first: Duration, longest: Duration, failures: u32) -> Duration {
    let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
    first.saturating_mul(factor).min(longest)
}

/// There is no connection for it.
fn give_back<A: Actor>(passing: Passing<A::Message>, ctx: &mut Context<'_, Reconnect<A>>) {
    let Passing { message, reply } = passing;
    let counters = &ctx.call().registry.door.counters;
    if reply.is_none() {
        Counters::add(&counters.dead_letters, 1);
    }
    Reconnect::contained(ctx, "a destructor", || match reply {
        Some(reply) => drop(reply.send(Err(message))),
        None => drop(message),
    });
}

impl<A: Actor> Actor for Reconnect<A> {
    type Message = ReconnectMessage<A::Message>;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.random = chance();
        self.connect(ctx)
    }

    fn message(&mut self, message: Self::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        match message.0 {
            What::Pass(passing) => self.pass(passing, ctx),
            What::Up => self.is_up(ctx),
            What::Gone(reason, not_connected) => return self.is_down(reason, not_connected, ctx),
        }
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.connect(ctx)
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(passing) = self.refused.take() {
            self.pass(passing, ctx);
        }
        Ok(())
    }

    /// The connection is told by itself. Until it has ended it gets what is sent.
    fn stopping(&mut self, _deadline: Instant, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.is_stopping = true;
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        if let Some(passing) = self.refused.take() {
            give_back(passing, ctx);
        }
        let Some(line) = self.line.take() else { return };
        line.close();
        if self.up_since.is_some() {
            let down = Down {
                reason: reason.name(),
                not_connected: None,
                failures: self.failures,
                next_in: None,
            };
            self.say(Link::Down(down), ctx);
        }
    }
}

impl<A: Actor> fmt::Debug for Reconnect<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect")
            .field("to", &self.to)
            .field("is_up", &self.up_since.is_some())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

impl<M: Send + 'static> fmt::Debug for ReconnectMessage<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReconnectMessage")
    }
}

impl<A: Actor> Clone for Link<A> {
    fn clone(&self) -> Link<A> {
        match self {
            Link::Up(addr) => Link::Up(addr.clone()),
            Link::Down(down) => Link::Down(down.clone()),
        }
    }
}

impl<A: Actor> fmt::Debug for Link<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Link::Up(addr) => f.debug_tuple("Up").field(addr).finish(),
            Link::Down(down) => f.debug_tuple("Down").field(down).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_doubles_up_to_the_longest_and_stays_there() {
        let of = |failures| {
            let (first, longest) = (Duration::from_millis(100), Duration::from_secs(30));
            ceiling(first, longest, failures).as_millis()
        };
        assert_eq!([0, 1, 2, 3, 4].map(of), [100, 100, 200, 400, 800]);
        assert_eq!(
            [9, 10, 33, 34, u32::MAX].map(of),
            [25_600, 30_000, 30_000, 30_000, 30_000]
        );
    }

    #[test]
    #[should_panic(expected = "without rest")]
    fn no_pause_at_all_is_refused() {
        struct Nobody;
        impl Actor for Nobody {
            type Message = ();
        }
        let to = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let _ = Reconnect::new(to, || Nobody).backoff(Duration::ZERO, Duration::from_secs(1));
    }
}

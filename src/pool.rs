//! Connections to one place, lent to one request after the other.

mod call;
mod lane;

use std::any::type_name;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use crate::actor::{Actor, CloseReason, Outcome};
use crate::addr::Addr;
use crate::connect::{ConnectOptions, Remote};
use crate::context::Context;
use crate::hosts::contain;
use crate::registry::ActorId;
use crate::timers::{TimerKey, deadline_after};

use call::{Call, End, What};
use lane::{Job, Lane};

pub use call::{CallError, Exchange, PoolCounts, PoolMessage};

/// An actor that keeps connections to one place and lends one to each request for as long as its
/// answer takes.
///
/// A connection is lent again only if its answer came whole, in time, when all of the request had been
/// taken, and with nothing behind it, and if nothing has come since: a byte that nobody asked for, or
/// the end of the stream, closes it while it is idle, and its socket is read once more just before a
/// request is written. So an answer is never another one's, unless the other side sends one that
/// nobody asked for when the next request is on its way: that can be told by a protocol alone whose
/// answers say what they answer, in [`Exchange::answer`]. Nor can it be known that a connection is
/// still there when a request arrives: the other side may end it meanwhile, and the call is then
/// [lost](CallError::Lost).
///
/// Calls that find no connection wait in their order, each until its own deadline, and while there
/// are fewer connections than may be, one is made for each. A connect that comes to nothing is made
/// again, after 50 ms, then after twice as long, up to 5 s, until there has been an answer; who waits
/// goes on waiting. So is a connection that the other side ends before anything was asked on it and
/// before it has lasted for 5 s. Those that were made together and fail count once.
///
/// The pool and its connections live on one poller and serve callers on all of them. One for each
/// poller ([`Handle::spawn_on`](crate::Handle::spawn_on)) saves the way between them, and has its own
/// limits. When it is [closed](Addr::close), idle connections close, and so do those that are lent.
/// When the system stops, calls are answered for as long as there are connections.
///
/// ```rust,no_run
/// # use greenroom::*; use std::time::Duration;
/// # struct Lines; impl Exchange for Lines { type Request = String; type Answer = String;
/// # fn request(&mut self, _: String, _: &mut Vec<u8>) {}
/// # fn answer(&mut self, _: &mut Input<'_>) -> Result<Option<String>, Box<dyn std::error::Error + Send + Sync>> { Ok(None) } }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let system = System::builder().build()?;
/// let to: Remote = "db.example:7000".parse()?;
/// let pool = system.spawn(move || Pool::new(to, || Lines).size(2, 16));
/// let answer = pool.call_and_wait("hello".to_owned(), Duration::from_secs(2))?;
/// # Ok(())
/// # }
/// ```
pub struct Pool<E: Exchange> {
    to: Remote,
    make: Box<dyn FnMut() -> E>,
    connect: ConnectOptions,
    min: usize,
    max: usize,
    idle_limit: Option<Duration>,
    max_waiting: usize,
    lanes: BTreeMap<ActorId, Hold<E>>,
    /// How many of them are in each [`State`].
    in_state: [usize; 4],
    /// The one that came back last is the last here, and the first to be lent: so those that are
    /// too many get old.
    idle: VecDeque<(ActorId, Instant)>,
    waiting: VecDeque<Call<E>>,
    made: u64,
    failed: u64,
    broken: u64,
    /// The pause behind the last connect that came to nothing, and until when it is.
    pause: Duration,
    paused_until: Option<Instant>,
    /// The one timer, and when it fires.
    timer: Option<(TimerKey, Instant)>,
    is_stopping: bool,
}

/// What the pool knows of a lane.
struct Hold<E: Exchange> {
    lane: Addr<Lane<E>>,
    state: State,
    /// Since when it may be lent.
    ready: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Idle,
    Lent,
    /// It was told to close.
    Closing,
}

/// How long no connect is made after one that came to nothing. A connection that has lasted for the
/// longest came to something.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl<E: Exchange> Pool<E> {
    /// Connections to `to`, each with a protocol that `protocol` makes: from none to 8 of them, idle
    /// for a minute, and 1,024 calls that wait. A panic in `protocol` is as a connect that comes to
    /// nothing.
    pub fn new(to: impl Into<Remote>, protocol: impl FnMut() -> E + 'static) -> Pool<E> {
        Pool {
            to: to.into(),
            make: Box::new(protocol),
            connect: ConnectOptions::new(),
            min: 0,
            max: 8,
            idle_limit: Some(Duration::from_secs(60)),
            max_waiting: 1024,
            lanes: BTreeMap::new(),
            in_state: [0; 4],
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            made: 0,
            failed: 0,
            broken: 0,
            pause: Duration::ZERO,
            paused_until: None,
            timer: None,
            is_stopping: false,
        }
    }

    /// How many connections there are at least, made at once and again when they are lost, and at
    /// most, those that are being made included. By default 0 and 8.
    ///
    /// # Panics
    ///
    /// When `max` is 0, or less than `min`.
    pub fn size(mut self, min: usize, max: usize) -> Self {
        assert!(max > 0, "size: at least one connection must be allowed");
        assert!(
            min <= max,
            "size: the smallest number ({min}) must not be above the largest ({max})"
        );
        (self.min, self.max) = (min, max);
        self
    }

    /// How long a connection beyond the smallest number may be idle before it is closed; `None` for
    /// ever. By default a minute: shorter than what is in between usually forgets a connection.
    pub fn idle_limit(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.idle_limit = after.into();
        self
    }

    /// How many calls may wait for a connection; further ones are told [`CallError::Full`] at once.
    /// By default 1,024. With 0 a call finds a connection idle, or fails.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.max_waiting = calls;
        self
    }

    /// How connections are made.
    pub fn connect_options(mut self, options: ConnectOptions) -> Self {
        self.connect = options;
        self
    }

    fn count(&self, state: State) -> usize {
        self.in_state[state as usize]
    }

    /// Says how a lane is from here on, and gives it out.
    fn put(&mut self, id: ActorId, state: State) -> Option<&Addr<Lane<E>>> {
        let hold = self.lanes.get_mut(&id)?;
        self.in_state[hold.state as usize] -= 1;
        self.in_state[state as usize] += 1;
        hold.state = state;
        Some(&hold.lane)
    }

    /// Those that were not told to close.
    fn open(&self) -> usize {
        self.lanes.len() - self.count(State::Closing)
    }

    fn counts(&self) -> PoolCounts {
        PoolCounts {
            connecting: self.count(State::Connecting),
            idle: self.idle.len(),
            lent: self.count(State::Lent),
            waiting: self.waiting.len(),
            made: self.made,
            failed: self.failed,
            broken: self.broken,
        }
    }

    /// Nobody waits beyond the deadline: who asked says so, too, or is told here.
    fn forget_late(&mut self, now: Instant) {
        let is_late = |call: &Call<E>| call.deadline <= now;
        if self.waiting.iter().any(is_late) {
            let (late, waiting): (VecDeque<_>, _) = self.waiting.drain(..).partition(is_late);
            self.waiting = waiting;
            late.into_iter().for_each(Call::expire);
        }
    }

    /// One more that wants a connection. Those that wait stay in front.
    fn take(&mut self, call: Call<E>, ctx: &mut Context<'_, Self>) {
        self.waiting.push_back(call);
        self.serve(ctx);
        if self.waiting.len() > self.max_waiting {
            self.forget_late(ctx.now());
        }
        if self.waiting.len() > self.max_waiting
            && let Some(last) = self.waiting.pop_back()
        {
            // It has not been sent anywhere.
            let _ = last.reply.send(Err(CallError::Full));
        }
    }

    /// Lends what is idle to those who wait, has connections made for the others, and closes what is
    /// too much.
    fn serve(&mut self, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        while let Some(call) = self.waiting.pop_front() {
            if call.deadline <= now {
                call.expire();
                continue;
            }
            let Some((id, _)) = self.idle.pop_back() else {
                self.waiting.push_front(call);
                break;
            };
            if let Some(lane) = self.put(id, State::Lent) {
                // What has come meanwhile, bytes or the end, is not to pass for this call's answer.
                lane.look();
                lane.notice(Job::new(call, ctx.addr()));
            }
        }
        if self.is_stopping {
            if self.waiting.is_empty() {
                self.close_idle(0, None);
            }
            // Nothing comes any more: neither is a connection made, nor is one left.
            if self.lanes.is_empty() {
                for call in self.waiting.drain(..) {
                    let _ = call.reply.send(Err(CallError::Closed));
                }
            }
            return;
        }
        if self.paused_until.is_none_or(|until| until <= now) {
            self.paused_until = None;
            self.connect_missing(ctx);
        }
        let old = self.idle_limit.and_then(|limit| now.checked_sub(limit));
        if let Some(old) = old {
            self.close_idle(self.min, Some(old));
        }
        self.set_timer(ctx);
    }

    fn connect_missing(&mut self, ctx: &mut Context<'_, Self>) {
        if self.lanes.len() < self.max {
            // Nothing is made for those who wait no longer.
            self.forget_late(ctx.now());
        }
        // After one that came to nothing a single one finds out how it is now.
        let most = if self.pause.is_zero() { self.max } else { 1 };
        while self.lanes.len() < self.max
            && (self.lanes.len() < self.min || self.count(State::Connecting) < self.waiting.len())
            && self.count(State::Connecting) < most
        {
            let (make, mut made) = (&mut self.make, None);
            let door = ctx.call().registry.door.clone();
            contain(&door, type_name::<E>(), || made = Some(make()));
            let Some(protocol) = made else {
                self.failed += 1;
                return self.pause_connects(ctx.now());
            };
            let lane = Lane::new(ctx.addr(), protocol);
            let lane = ctx.connect_with(self.to.clone(), self.connect.clone(), lane);
            let state = State::Connecting;
            let ready = None;
            self.lanes.insert(lane.id(), Hold { lane, state, ready });
            self.in_state[state as usize] += 1;
        }
    }

    /// Closes those that are idle, the oldest first, down to so many connections: all of them, or
    /// those since that time.
    fn close_idle(&mut self, down_to: usize, since: Option<Instant>) {
        while self.open() > down_to
            && let Some((id, at)) = self.idle.front().copied()
            && since.is_none_or(|since| at <= since)
        {
            self.idle.pop_front();
            if let Some(lane) = self.put(id, State::Closing) {
                lane.close();
            }
        }
    }

    /// The next time at which something is to be done without being told.
    fn set_timer(&mut self, ctx: &mut Context<'_, Self>) {
        let is_too_many = self.open() > self.min;
        let oldest = self.idle.front().filter(|_| is_too_many);
        let old = oldest.zip(self.idle_limit);
        let old = old.map(|((_, at), limit)| deadline_after(*at, limit));
        let Some(at) = old.into_iter().chain(self.paused_until).min() else {
            return;
        };
        // One that fires too early finds nothing to do, and sets the next.
        if self.timer.is_none_or(|(_, set)| at < set) {
            if let Some((key, _)) = self.timer.take() {
                ctx.cancel_timer(key);
            }
            self.timer = Some((ctx.set_timer_at(at), at));
        }
    }

    fn lane_gone(&mut self, id: ActorId, end: End, ctx: &mut Context<'_, Self>) {
        let Some(hold) = self.lanes.remove(&id) else {
            return;
        };
        self.in_state[hold.state as usize] -= 1;
        self.idle.retain(|(idle, _)| *idle != id);
        let now = ctx.now();
        let lasted = |ready| now.saturating_duration_since(ready);
        let has_lasted = hold.ready.is_some_and(|ready| lasted(ready) >= PAUSE_MAX);
        if has_lasted {
            self.pause = Duration::ZERO;
        }
        match end {
            End::Closed => {}
            End::Broken => self.broken += 1,
            End::Unused => {
                self.broken += 1;
                if !has_lasted {
                    self.pause_connects(now);
                }
            }
            End::Failed => {
                self.failed += 1;
                self.pause_connects(now);
            }
        }
    }

    /// A connect came to nothing. Of those that were made together the first one says so for all.
    fn pause_connects(&mut self, now: Instant) {
        if self.paused_until.is_none_or(|until| until <= now) {
            self.pause = (2 * self.pause).clamp(PAUSE_MIN, PAUSE_MAX);
            self.paused_until = Some(deadline_after(now, self.pause));
        }
    }

    fn is_back(&mut self, id: ActorId, ctx: &mut Context<'_, Self>) {
        let hold = self.lanes.get(&id);
        if hold.is_some_and(|hold| hold.state != State::Closing) {
            self.put(id, State::Idle);
            self.idle.push_back((id, ctx.now()));
        }
    }
}

impl<E: Exchange> Actor for Pool<E> {
    type Message = PoolMessage<E>;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.serve(ctx);
        Ok(())
    }

    fn message(&mut self, message: PoolMessage<E>, ctx: &mut Context<'_, Self>) -> Outcome {
        match message.0 {
            What::Call(call) => {
                self.take(call, ctx);
                return Ok(());
            }
            What::Counts(reply) => {
                self.forget_late(ctx.now());
                let _ = reply.send(self.counts());
                return Ok(());
            }
            What::Ready(id) => {
                self.made += 1;
                if let Some(hold) = self.lanes.get_mut(&id) {
                    hold.ready = Some(ctx.now());
                }
                self.is_back(id, ctx);
            }
            What::Back(id) => {
                self.pause = Duration::ZERO;
                self.paused_until = None;
                self.is_back(id, ctx);
            }
            What::Gone(id, end) => self.lane_gone(id, end, ctx),
            // It was in front of those that wait.
            What::Again(call) => self.waiting.push_front(call),
        }
        self.serve(ctx);
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.timer = None;
        self.serve(ctx);
        Ok(())
    }

    fn stopping(&mut self, _deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        self.is_stopping = true;
        self.serve(ctx);
        Ok(())
    }

    fn closed(&mut self, _reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        for hold in self.lanes.values() {
            hold.lane.close();
        }
        for call in self.waiting.drain(..) {
            let _ = call.reply.send(Err(CallError::Closed));
        }
    }
}

impl<E: Exchange> fmt::Debug for Pool<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("to", &self.to)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

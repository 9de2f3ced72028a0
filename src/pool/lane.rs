//! One connection of a pool.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::actor::{Actor, CloseReason, Outcome};
use crate::addr::Addr;
use crate::ask::Reply;
use crate::context::Context;
use crate::input::Input;
use crate::timers::TimerKey;

use super::Pool;
use super::call::{Call, CallError, End, Exchange, PoolMessage, What};

/// How long a greeting may take.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// A call on its way to a lane. Whatever becomes of that, it is written or comes back.
pub(super) struct Job<E: Exchange> {
    call: Option<Call<E>>,
    pool: Addr<Pool<E>>,
}

impl<E: Exchange> Job<E> {
    pub(super) fn new(call: Call<E>, pool: Addr<Pool<E>>) -> Job<E> {
        let call = Some(call);
        Job { call, pool }
    }
}

impl<E: Exchange> Drop for Job<E> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.pool.notice(PoolMessage(What::Again(call)));
        }
    }
}

/// One connection of a pool.
pub(super) struct Lane<E: Exchange> {
    pool: Addr<Pool<E>>,
    protocol: E,
    /// Who is to be told the answer that is waited for; `None` for that of the greeting.
    job: Option<Reply<Result<E::Answer, CallError>>>,
    timer: Option<TimerKey>,
    stage: Stage,
    /// A call has been written.
    has_asked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Greeting,
    Idle,
    Asking,
    /// Its call's time is over.
    Late,
}

impl<E: Exchange> Lane<E> {
    pub(super) fn new(pool: Addr<Pool<E>>, protocol: E) -> Lane<E> {
        Lane {
            pool,
            protocol,
            job: None,
            timer: None,
            stage: Stage::Connecting,
            has_asked: false,
        }
    }

    fn write(&mut self, request: E::Request, ctx: &mut Context<'_, Self>) {
        let mut output = Vec::new();
        self.protocol.request(request, &mut output);
        ctx.write_bytes(Bytes::from(output));
    }

    fn tell(&self, what: What<E>) {
        self.pool.notice(PoolMessage(what));
    }

    /// Ready to be lent.
    fn is_ready(&mut self, ctx: &Context<'_, Self>) {
        self.stage = Stage::Idle;
        self.tell(What::Ready(ctx.id()));
    }
}

impl<E: Exchange> Actor for Lane<E> {
    type Message = Job<E>;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        match self.protocol.greeting() {
            Some(greeting) => {
                self.stage = Stage::Greeting;
                self.timer = Some(ctx.set_timer(GREETING_MAX));
                self.write(greeting, ctx);
            }
            None => self.is_ready(ctx),
        }
        Ok(())
    }

    fn message(&mut self, mut job: Job<E>, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.stage != Stage::Idle {
            // It goes back by its drop.
            return Ok(());
        }
        if let Some(call) = job.call.take() {
            self.stage = Stage::Asking;
            self.has_asked = true;
            self.job = Some(call.reply);
            self.timer = Some(ctx.set_timer_at(call.deadline));
            self.write(call.request, ctx);
        }
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.stage != Stage::Asking && self.stage != Stage::Greeting {
            if input.is_empty() {
                return Ok(());
            }
            return Err("bytes that nobody has asked for".into());
        }
        let Some(answer) = self.protocol.answer(input)? else {
            return Ok(());
        };
        if !input.is_empty() {
            // It may be the answer, or what was left over from another; nobody knows.
            return Err("bytes behind an answer".into());
        }
        if let Some(timer) = self.timer.take() {
            ctx.cancel_timer(timer);
        }
        if ctx.queued() > 0 {
            // The rest of this request would stand in front of the next one.
            if let Some(reply) = self.job.take() {
                let _ = reply.send(Ok(answer));
            }
            ctx.abort();
            return Ok(());
        }
        match self.job.take() {
            Some(reply) => {
                self.stage = Stage::Idle;
                // First: whoever has the answer and asks again finds this one.
                self.tell(What::Back(ctx.id()));
                // Whoever asked may have gone.
                let _ = reply.send(Ok(answer));
            }
            None => {
                self.protocol.greeted(answer)?;
                self.is_ready(ctx);
            }
        }
        Ok(())
    }

    /// An answer that has not come in time: it may still come, and is not to be another's.
    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.timer = None;
        if self.stage == Stage::Asking {
            self.stage = Stage::Late;
        }
        ctx.abort();
        Ok(())
    }

    /// The pool says when.
    fn stopping(&mut self, _deadline: Instant, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        let late = self.stage == Stage::Late;
        if let Some(reply) = self.job.take() {
            let why = if late {
                CallError::TimedOut
            } else {
                CallError::Lost(reason.to_string())
            };
            let _ = reply.send(Err(why));
        }
        let end = match (self.stage, reason) {
            (Stage::Connecting | Stage::Greeting, _) => End::Failed,
            (Stage::Idle, CloseReason::Finished | CloseReason::Stopped) => End::Closed,
            (Stage::Idle, _) if !self.has_asked => End::Unused,
            _ => End::Broken,
        };
        self.tell(What::Gone(ctx.id(), end));
    }
}

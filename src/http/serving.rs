//! A connection that speaks HTTP: from bytes to requests, and from answers to bytes.

mod sending;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::actor::{CloseReason, Outcome};
use crate::call::Wants;
use crate::context::Context;
use crate::flags::Flags;
use crate::http::body::{Decoder, Step};
use crate::http::connection::Http;
use crate::http::exchange::{Answer, Exchange};
use crate::http::head::{Fields, Found, Head, Length, fields, find, is_no_further, room};
use crate::http::options::Options;
use crate::http::request::Request;
use crate::http::responder::{AtWork, Desk, Given, Make, Responder};
use crate::http::response::Response;
use crate::http::service::{Intake, Service};
use crate::input::Input;
use crate::registry::Counters;
use crate::timers::TimerKey;

/// A body may take [`Options::body_timeout`] again when so many bytes of it have come.
const BODY_STEP: u64 = 64 << 10;

/// What the connection reads next.
enum Reading {
    Head,
    Body(Box<Receiving>),
    /// Nothing until the last request is answered, which asked for another protocol: what follows
    /// it may not be HTTP.
    Upgrade,
    /// Nothing any more.
    Nothing,
}

/// A body under way.
struct Receiving {
    id: u64,
    decoder: Decoder,
    into: Into,
    /// When its time began, and how much of it had come then.
    since: Instant,
    before: u64,
}

enum Into {
    /// The whole head, and what has come of the body.
    Memory {
        head: Vec<u8>,
        body: Vec<u8>,
    },
    Service,
}

/// That the connection is to close, and when.
#[derive(Clone, Copy, PartialEq)]
enum Leaving {
    No,
    /// When all that was asked is answered.
    Owed,
    /// When what is answered has left.
    Given,
}

pub(super) struct Serving<S: Service> {
    service: S,
    options: Arc<Options>,
    /// There from the first request on.
    desk: Option<Arc<Desk<S>>>,
    /// Empty, kept for its room.
    given: Vec<(u64, Given<S>)>,
    queue: VecDeque<Exchange<S>>,
    /// The number of the first request in the queue.
    first: u64,
    reading: Reading,
    /// So many bytes of a head were looked at, and it is not complete.
    seen: usize,
    /// An empty line in front of a request was passed over.
    skipped: bool,
    /// Since when the head or, with none begun, nothing has been on its way.
    since: Option<Instant>,
    /// When the time was up the last answer was still leaving.
    is_taking: bool,
    /// The service paused.
    rests: bool,
    /// Reading is paused, by whomever.
    paused: bool,
    leaving: Leaving,
    close_within: Option<Duration>,
    /// Nothing follows what is written now.
    is_closing: bool,
    /// The service was told its end.
    is_told: bool,
    /// Set to the earliest time at which something may be due, or before that.
    timer: Option<(TimerKey, Instant)>,
    /// Whoever is to have the connection now.
    switch: Option<Make<S>>,
}

impl<S: Service> Serving<S> {
    pub(super) fn new(service: S, options: Arc<Options>) -> Serving<S> {
        Serving {
            service,
            options,
            desk: None,
            given: Vec::new(),
            queue: VecDeque::new(),
            first: 0,
            reading: Reading::Head,
            seen: 0,
            skipped: false,
            since: None,
            is_taking: false,
            rests: false,
            paused: false,
            leaving: Leaving::No,
            close_within: None,
            is_closing: false,
            is_told: false,
            timer: None,
            switch: None,
        }
    }

    pub(super) fn service(&self) -> &S {
        &self.service
    }

    /// What makes the actor that has the connection from now on, if there is one.
    pub(super) fn take_switch(&mut self) -> Option<Make<S>> {
        self.switch.take()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Http<S>>) {
        if !mem::replace(&mut self.is_told, true) {
            self.service.closed(reason, &mut ctx.of_type());
        }
    }

    /// No answer counts any more.
    pub(super) fn end(&mut self, ctx: &mut Context<'_, Http<S>>) {
        if let Some(desk) = self.desk.take() {
            desk.close();
        }
        self.queue.clear();
        if let Some((timer, _)) = self.timer.take() {
            ctx.cancel_timer(timer);
        }
    }

    // ---- calling the service --------------------------------------------------------------------

    /// Calls the service; what it asked for that is the connection's to decide is taken out.
    fn enter<R>(
        &mut self,
        ctx: &mut Context<'_, Http<S>>,
        callback: impl FnOnce(&mut S, &mut Context<'_, S>) -> R,
    ) -> R {
        let before = ctx.queued();
        let wanted = ctx.call().wants;
        ctx.call().wants.clear(Wants::PAUSE | Wants::RESUME);
        let at_work = AtWork::at(self.desk.as_ref());
        let result = callback(&mut self.service, &mut ctx.of_type());
        drop(at_work);
        assert!(
            ctx.queued() == before,
            "http: a service answers through its Responder; what it writes itself would stand \
             between the answers"
        );
        let call = ctx.call();
        assert!(
            !call.wants.has(Wants::SHUTDOWN_WRITE),
            "http: a service does not shut down the writing side; Context::close closes behind the \
             answers"
        );
        if call.wants.has(Wants::PAUSE) {
            self.rests = true;
        } else if call.wants.has(Wants::RESUME) {
            self.rests = false;
        }
        call.wants.clear(Wants::PAUSE | Wants::RESUME);
        for own in [Wants::PAUSE, Wants::RESUME] {
            if wanted.has(own) {
                call.wants.set(own);
            }
        }
        if call.wants.has(Wants::CLOSE) && !wanted.has(Wants::CLOSE) {
            call.wants.clear(Wants::CLOSE);
            self.close_within = call.close_within.take();
            self.leaving = Leaving::Given;
        }
        result
    }

    /// A callback in which no bytes come.
    pub(super) fn pass(
        &mut self,
        ctx: &mut Context<'_, Http<S>>,
        callback: impl FnOnce(&mut S, &mut Context<'_, S>) -> Outcome,
    ) -> Outcome {
        let outcome = self.enter(ctx, callback);
        self.settle(outcome, ctx)
    }

    /// The service is told that the system stops. What it is asked until then it answers.
    pub(super) fn stopping(
        &mut self,
        deadline: Instant,
        ctx: &mut Context<'_, Http<S>>,
    ) -> Outcome {
        let before = self.leaving;
        let outcome = self.enter(ctx, |service, ctx| service.stopping(deadline, ctx));
        if before != Leaving::Given && self.leaving == Leaving::Given {
            self.leaving = Leaving::Owed;
        }
        self.settle(outcome, ctx)
    }

    /// The connection closes, whoever has asked for that: what was answered still leaves, as far as
    /// there is room for it.
    pub(super) fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Http<S>>) {
        self.enter(ctx, |service, ctx| service.closing(reason, ctx));
        self.reading = Reading::Nothing;
        self.is_closing = true;
        // There will be no room for more.
        let _ = self.send_given(ctx);
        let first = self.queue.front().and_then(|first| first.answer.as_ref());
        if first.is_some_and(Answer::is_up_to_the_end) {
            // Half of it would pass for all.
            ctx.abort();
        }
    }

    /// The peer sends no more.
    pub(super) fn read_closed(&mut self, ctx: &mut Context<'_, Http<S>>) -> Outcome {
        self.take_given();
        if let Reading::Body(_) = self.reading
            && self.queue.back().is_some_and(|last| last.answer.is_none())
        {
            // Nobody will ever have asked that.
            self.queue.pop_back();
        }
        self.reading = Reading::Nothing;
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Owed;
        }
        self.settle(Ok(()), ctx)
    }

    /// Sends what has been answered, and sees what is to be done about reading and the time.
    fn settle(&mut self, outcome: Outcome, ctx: &mut Context<'_, Http<S>>) -> Outcome {
        self.flush(ctx)?;
        if self.paused && outcome.is_ok() && !self.is_held(ctx) && !ctx.is_closing() {
            self.paused = false;
            self.seen = 0;
            self.start_anew(ctx.now());
            ctx.resume();
        }
        self.rest(outcome, ctx)
    }

    fn rest(&mut self, outcome: Outcome, ctx: &mut Context<'_, Http<S>>) -> Outcome {
        outcome?;
        if self.switch.is_some() || ctx.is_closing() {
            return Ok(());
        }
        if self.rests && !self.paused {
            self.paused = true;
            ctx.pause();
        }
        self.watch(ctx);
        Ok(())
    }

    /// Whether no more is to be read for now.
    fn is_held(&self, ctx: &Context<'_, Http<S>>) -> bool {
        let is_full = match &self.reading {
            Reading::Head => {
                self.leaving != Leaving::No || self.queue.len() >= self.options.pending_max
            }
            Reading::Body(_) => false,
            Reading::Upgrade | Reading::Nothing => true,
        };
        is_full || self.rests || ctx.is_above_high_watermark()
    }

    // ---- requests -------------------------------------------------------------------------------

    pub(super) fn opened(&mut self, ctx: &mut Context<'_, Http<S>>) -> Outcome {
        self.since = Some(ctx.now());
        self.pass(ctx, |service, ctx| service.opened(ctx))
    }

    pub(super) fn readable(
        &mut self,
        input: &mut Input<'_>,
        ctx: &mut Context<'_, Http<S>>,
    ) -> Outcome {
        let mut outcome = Ok(());
        let mut goes_on = true;
        loop {
            // Each request finds the connection as the one before has left it.
            self.flush(ctx)?;
            let is_over = outcome.is_err() || self.switch.is_some();
            if !goes_on || is_over || ctx.call().wants.has(Wants::STOPS_INPUT) {
                break;
            }
            if self.is_held(ctx) {
                // Or nobody would call again for the end of a body that is all here.
                let is_whole = matches!(&self.reading, Reading::Body(it) if it.decoder.is_done());
                if !input.is_empty() || is_whole {
                    self.paused = true;
                    ctx.pause();
                }
                break;
            }
            (goes_on, outcome) = match mem::replace(&mut self.reading, Reading::Nothing) {
                Reading::Body(receiving) => self.receive(receiving, input, ctx),
                reading => {
                    self.reading = reading;
                    self.receive_head(input, ctx)
                }
            };
        }
        // To resume in the callback that pauses would be to have done neither: what is given from
        // here on is looked at when the connection is nudged.
        self.rest(outcome, ctx)
    }

    /// Takes a request's head out of the input. Whether there may be more to do.
    fn receive_head(
        &mut self,
        input: &mut Input<'_>,
        ctx: &mut Context<'_, Http<S>>,
    ) -> (bool, Outcome) {
        if !self.skipped && input.bytes().starts_with(b"\r") {
            match input.bytes() {
                [b'\r'] => {}
                [b'\r', b'\n', ..] => {
                    input.consume(2);
                    self.skipped = true;
                }
                _ => self.refuse_head(400, ctx),
            }
            return (self.skipped && !input.is_empty(), Ok(()));
        }
        let bytes = input.bytes();
        if is_no_further(bytes, self.seen, &self.options) {
            self.seen = bytes.len();
            return (false, Ok(()));
        }
        let mut room = room();
        match find(bytes, &self.options, &mut room) {
            Found::Part => {
                if self.seen == 0 && !bytes.is_empty() {
                    self.since = Some(ctx.now());
                }
                self.seen = bytes.len();
                (false, Ok(()))
            }
            Found::Refused(status) => {
                self.refuse_head(status, ctx);
                (false, Ok(()))
            }
            Found::Head(len, head, fields) => {
                input.consume(len);
                self.seen = 0;
                self.skipped = false;
                self.since = None;
                (true, self.begin(head, fields, &bytes[..len], input, ctx))
            }
        }
    }

    /// A request has begun.
    fn begin(
        &mut self,
        head: Head,
        fields: Fields<'_, '_>,
        bytes: &[u8],
        input: &mut Input<'_>,
        ctx: &mut Context<'_, Http<S>>,
    ) -> Outcome {
        let id = self.first + self.queue.len() as u64;
        self.queue.push_back(Exchange {
            head,
            expects: false,
            closes: false,
            answer: None,
        });
        let mut request = Request {
            fields,
            head,
            body: &[],
            id,
        };
        if !head.stays {
            self.reading = Reading::Nothing;
        } else if head.upgrades {
            self.reading = Reading::Upgrade;
        }
        if head.body.is_zero() {
            return self.request(request, ctx);
        }
        let intake = self.enter(ctx, |service, ctx| service.intake(&request, ctx));
        let max = match &intake {
            Intake::Collect(max) => self.options.body_max.min(*max) as u64,
            Intake::Stream(max) => *max,
            Intake::Refuse(_) => 0,
        };
        if let Intake::Refuse(response) = intake {
            self.reading = Reading::Nothing;
            if let Some(exchange) = self.queue.back_mut() {
                exchange.closes = true;
                exchange.answer = Some(Answer::Given(response, None));
            }
            return Ok(());
        }
        let decoder = match Decoder::new(head.body, max) {
            Ok(decoder) => decoder,
            Err(status) => {
                self.refuse_last(status, ctx);
                return Ok(());
            }
        };
        let collects = matches!(intake, Intake::Collect(_));
        if let (true, Length::Bytes(len)) = (collects, head.body)
            && let Some(body) = usize::try_from(len).ok().and_then(|len| input.take(len))
        {
            // Not copied where it lies in one piece behind its head.
            request.body = body;
            return self.request(request, ctx);
        }
        // With some of it here there is nothing to wait for.
        if let Some(exchange) = self.queue.back_mut() {
            exchange.expects = head.expects && input.is_empty();
        }
        let into = match collects {
            true => Into::Memory {
                head: bytes.to_vec(),
                body: Vec::new(),
            },
            false => Into::Service,
        };
        self.reading = Reading::Body(Box::new(Receiving {
            id,
            decoder,
            into,
            since: ctx.now(),
            before: 0,
        }));
        match collects {
            true => Ok(()),
            false => self.request(request, ctx),
        }
    }

    /// Takes what there is of a body out of the input, up to one piece of it.
    fn receive(
        &mut self,
        mut receiving: Box<Receiving>,
        input: &mut Input<'_>,
        ctx: &mut Context<'_, Http<S>>,
    ) -> (bool, Outcome) {
        let mut rest = input.bytes();
        if !rest.is_empty()
            && let Some(exchange) = self.queue.back_mut()
            && mem::take(&mut exchange.expects)
        {
            receiving.since = ctx.now();
        }
        let step = receiving.decoder.step(&mut rest);
        input.consume(input.len() - rest.len());
        let id = receiving.id;
        match step {
            Err(status) => {
                self.refuse_last(status, ctx);
                (false, Ok(()))
            }
            Ok(Step::More) => {
                self.reading = Reading::Body(receiving);
                (false, Ok(()))
            }
            Ok(Step::Data(data)) => {
                let is_streamed = match &mut receiving.into {
                    Into::Memory { body, .. } => {
                        body.extend_from_slice(data);
                        false
                    }
                    Into::Service => true,
                };
                self.reading = Reading::Body(receiving);
                if !is_streamed {
                    return (true, Ok(()));
                }
                (
                    true,
                    self.enter(ctx, |service, ctx| service.body(id, Some(data), ctx)),
                )
            }
            Ok(Step::Done) => {
                // The exchange is the last, if it is still there: nothing was read behind it.
                let head = self.exchange(id).map(|exchange| exchange.head);
                self.reading = match head {
                    Some(head) if !head.stays => Reading::Nothing,
                    Some(head) if head.upgrades => Reading::Upgrade,
                    _ => Reading::Head,
                };
                if self.queue.is_empty() {
                    self.since = Some(ctx.now());
                }
                let Into::Memory { head: bytes, body } = receiving.into else {
                    return (
                        true,
                        self.enter(ctx, |service, ctx| service.body(id, None, ctx)),
                    );
                };
                let mut room = room();
                let (Some(head), Some(fields)) = (head, fields(&bytes, &mut room)) else {
                    return (true, Ok(()));
                };
                let body = &body[..];
                (
                    true,
                    self.request(
                        Request {
                            fields,
                            head,
                            body,
                            id,
                        },
                        ctx,
                    ),
                )
            }
        }
    }

    fn request(&mut self, request: Request<'_>, ctx: &mut Context<'_, Http<S>>) -> Outcome {
        let desk = self.desk.get_or_insert_with(|| {
            let (post, key) = ctx.mailbox();
            Arc::new(Desk::new(post, key))
        });
        let responder = Responder::new(request.id, desk.clone());
        self.enter(ctx, |service, ctx| service.request(request, responder, ctx))
    }

    /// What has come is no request: says so behind the answers to those in front, and closes.
    fn refuse_head(&mut self, status: u16, ctx: &mut Context<'_, Http<S>>) {
        self.queue.push_back(Exchange {
            head: Head::NONE,
            expects: false,
            closes: false,
            answer: None,
        });
        self.refuse_last(status, ctx);
    }

    /// The last request is not served, unless it has been answered already.
    fn refuse_last(&mut self, status: u16, ctx: &mut Context<'_, Http<S>>) {
        Counters::add(&ctx.call().registry.door.counters.requests_refused, 1);
        self.reading = Reading::Nothing;
        self.take_given();
        let Some(last) = self.queue.back_mut() else {
            // It has been, and its answer has left.
            self.leaving = Leaving::Owed;
            return;
        };
        last.closes = true;
        if last.answer.is_none() {
            last.answer = Some(Answer::Given(Response::refusal(status), None));
        }
    }

    fn exchange(&mut self, id: u64) -> Option<&mut Exchange<S>> {
        let place = id.checked_sub(self.first)?;
        self.queue.get_mut(usize::try_from(place).ok()?)
    }

    // ---- time -----------------------------------------------------------------------------------

    /// What the peer could not send until now is not its delay.
    fn start_anew(&mut self, now: Instant) {
        self.since = Some(now);
        if let Reading::Body(receiving) = &mut self.reading {
            receiving.since = now;
            receiving.before = receiving.decoder.received();
        }
    }

    /// A callback by which what has held back reading ends.
    pub(super) fn goes_on(
        &mut self,
        ctx: &mut Context<'_, Http<S>>,
        callback: impl FnOnce(&mut S, &mut Context<'_, S>) -> Outcome,
    ) -> Outcome {
        self.start_anew(ctx.now());
        self.pass(ctx, callback)
    }

    /// What is due next, and when.
    fn deadline(&self) -> Option<Instant> {
        if self.paused {
            return None;
        }
        let since = |time| self.since?.checked_add(time);
        match &self.reading {
            Reading::Head if self.seen > 0 => since(self.options.head_timeout),
            Reading::Head if self.queue.is_empty() => since(self.options.keep_alive),
            // It waits to be told to send it, and that for its turn.
            Reading::Body(_) if self.queue.back().is_some_and(|last| last.expects) => None,
            Reading::Body(receiving) => {
                let steps = (receiving.decoder.received() - receiving.before) / BODY_STEP;
                let steps = u32::try_from(steps).unwrap_or(u32::MAX).saturating_add(1);
                let time = self.options.body_timeout.saturating_mul(steps);
                receiving.since.checked_add(time)
            }
            _ => None,
        }
    }

    /// Has the timer fire when something is due, or before: then it is set anew.
    fn watch(&mut self, ctx: &mut Context<'_, Http<S>>) {
        let Some(deadline) = self.deadline() else {
            return;
        };
        if let Some((timer, at)) = self.timer {
            if at <= deadline {
                return;
            }
            ctx.cancel_timer(timer);
        }
        self.timer = Some((ctx.set_timer_at(deadline), deadline));
    }

    pub(super) fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Http<S>>) -> Outcome {
        if key == TimerKey::NUDGE {
            return self.settle(Ok(()), ctx);
        }
        if self.timer.is_none_or(|(own, _)| own != key) {
            return self.pass(ctx, |service, ctx| service.timer(key, ctx));
        }
        self.timer = None;
        let now = ctx.now();
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            let is_held = ctx.call().flags.has(Flags::WAITING | Flags::HELD);
            match self.reading {
                _ if is_held => self.start_anew(now),
                Reading::Head if self.seen == 0 && (self.is_taking || ctx.queued() > 0) => {
                    self.is_taking = ctx.queued() > 0;
                    self.since = Some(now);
                }
                Reading::Head if self.seen == 0 => self.close(ctx),
                Reading::Head => self.refuse_head(408, ctx),
                _ => self.refuse_last(408, ctx),
            }
        }
        self.settle(Ok(()), ctx)
    }
}

//! From responders to the connection's output.

use std::mem;

use crate::actor::Outcome;
use crate::call::Wants;
use crate::context::Context;
use crate::http::connection::Http;
use crate::http::exchange::{Answer, End, Pieces, Progress, send_head, send_switch};
use crate::http::responder::Given;
use crate::http::response::Response;
use crate::http::service::Service;
use crate::http::serving::{Leaving, Reading, Serving};

/// A connection keeps room for so many answers on its desk.
const GIVEN_KEPT: usize = 4;

impl<S: Service> Serving<S> {
    /// Puts what responders were given to their requests.
    pub(super) fn take_given(&mut self) {
        let Some(desk) = &self.desk else { return };
        let mut given = mem::take(&mut self.given);
        desk.take(&mut given);
        for (id, given) in given.drain(..) {
            let Some(exchange) = self.exchange(id) else {
                continue;
            };
            let is_answered = exchange.answer.is_some();
            let pieces = exchange.answer.as_mut().and_then(Answer::pieces);
            match (given, pieces) {
                (Given::Piece(piece), Some(pieces)) => pieces.waiting.push_back(piece),
                (Given::End, Some(pieces)) => pieces.end = End::Whole,
                (Given::Cut, Some(pieces)) => pieces.end = End::Cut,
                (Given::Piece(_) | Given::End | Given::Cut, None) => {}
                // Refused meanwhile: the first answer is the one.
                _ if is_answered => {}
                (Given::Answer(response), _) => {
                    exchange.answer = Some(Answer::Given(response, None));
                }
                (Given::Stream(response, reader), _) => {
                    exchange.answer = Some(Answer::Given(response, Some(Pieces::new(reader))));
                }
                (Given::Upgrade(answer, make), _) => {
                    exchange.answer = Some(Answer::Upgrade(answer, make));
                }
                (Given::Nothing, _) => {
                    let mut response = Response::refusal(500);
                    response.closes = false;
                    exchange.answer = Some(Answer::Given(response, None));
                }
            }
        }
        given.shrink_to(GIVEN_KEPT);
        self.given = given;
    }

    /// Sends the answers whose turn it is, as far as there is room for them.
    pub(super) fn flush(&mut self, ctx: &mut Context<'_, Http<S>>) -> Outcome {
        // Room that one service is told of it may fill at once, so that there is more to send.
        while self.send_given(ctx) {
            self.enter(ctx, |service, ctx| service.drained(ctx))?;
        }
        Ok(())
    }

    /// Whether the service is to be told that a body has room again.
    pub(super) fn send_given(&mut self, ctx: &mut Context<'_, Http<S>>) -> bool {
        let mut told = false;
        if !self.queue.is_empty() {
            self.take_given();
            while self.switch.is_none()
                && !ctx.call().wants.has(Wants::ENDS)
                && self.send_first(&mut told, ctx)
            {}
        }
        let is_over = match self.leaving {
            _ if self.switch.is_some() => false,
            Leaving::No => false,
            Leaving::Owed => self.queue.is_empty() && !matches!(self.reading, Reading::Body(_)),
            Leaving::Given => self
                .queue
                .front()
                .is_none_or(|first| first.answer.is_none()),
        };
        if is_over && !ctx.is_closing() {
            self.close(ctx);
        }
        told && !ctx.is_closing()
    }

    pub(super) fn close(&mut self, ctx: &mut Context<'_, Http<S>>) {
        self.reading = Reading::Nothing;
        match self.close_within.take() {
            Some(within) => ctx.close_within(within),
            None => ctx.close(),
        }
    }

    /// Sends what there is of the first answer; whether that was all of it.
    fn send_first(&mut self, told: &mut bool, ctx: &mut Context<'_, Http<S>>) -> bool {
        // However many are given at once, they leave as they are taken. At the end there is no later.
        if ctx.is_above_high_watermark() && !self.is_closing {
            return false;
        }
        let is_last = self.queue.len() == 1 && self.leaving != Leaving::No;
        let begins = self.leaving == Leaving::No && !self.is_closing;
        let Some(first) = self.queue.front_mut() else {
            return false;
        };
        let mut left = match first.answer.take() {
            None => {
                if !self.is_closing && mem::take(&mut first.expects) {
                    ctx.write("HTTP/1.1 100 Continue\r\n\r\n");
                    self.start_anew(ctx.now());
                }
                return false;
            }
            Some(Answer::Upgrade(answer, make)) => {
                let is_asked = matches!(self.reading, Reading::Upgrade) && first.head.upgrades;
                if is_asked && begins {
                    send_switch(answer, ctx);
                    self.switch = Some(make);
                    return false;
                }
                // The end was told to the one that is there: whoever came now would not know.
                let status = if begins { 500 } else { 503 };
                if begins {
                    log::error!(
                        "http: an upgrade that was not asked for, or before its body has come"
                    );
                }
                first.answer = Some(Answer::Given(Response::refusal(status), None));
                return true;
            }
            Some(Answer::Given(response, _)) if response.status == 101 => {
                log::error!(
                    "http: 101 is no answer; another protocol begins by Responder::upgrade"
                );
                first.answer = Some(Answer::Given(Response::refusal(500), None));
                return true;
            }
            Some(Answer::Given(response, pieces)) => {
                // Its client has not begun with the body, and may or may not do so now.
                first.closes |= first.expects || response.closes || !first.head.stays || is_last;
                // A client of old knows no other end.
                first.closes |= first.head.is_old && pieces.is_some();
                let last = self.is_closing;
                let (left, written) =
                    send_head(&first.head, response, pieces, first.closes, last, ctx);
                if !written {
                    // In a farewell without room for it what is there already still leaves.
                    if !last {
                        ctx.abort();
                    }
                    return false;
                }
                left
            }
            Some(Answer::Body(left)) => Some(left),
        };
        let progress = match &mut left {
            Some(source) => source.send(self.is_closing, told, ctx),
            None => Progress::Done,
        };
        match progress {
            Progress::Done => {}
            Progress::Waits => {
                first.answer = left.map(Answer::Body);
                return false;
            }
            Progress::Broken => {
                ctx.abort();
                return false;
            }
        }
        let closes = first.closes;
        self.queue.pop_front();
        self.first += 1;
        if closes {
            self.queue.clear();
            self.close(ctx);
            return false;
        }
        if self.queue.is_empty() {
            if let Reading::Upgrade = self.reading {
                self.reading = Reading::Head;
            }
            if self.seen == 0 {
                self.since = Some(ctx.now());
                self.is_taking = false;
            }
        }
        true
    }
}

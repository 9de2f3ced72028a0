//! The actor around a service.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::actor::{Actor, CloseReason, Outcome};
use crate::addr::Addr;
use crate::call::{TimerFor, Wants};
use crate::context::Context;
use crate::flags::Flags;
use crate::http::options::Options;
use crate::http::service::Service;
use crate::http::serving::Serving;
use crate::input::Input;
use crate::sys::SocketOption;
use crate::timers::TimerKey;

/// The adapter that makes a connection of a [`Service`]: an actor for a listener, a
/// [`Stage`](crate::testing::Stage), or another adapter around it.
pub struct Http<S: Service> {
    state: State<S>,
}

enum State<S: Service> {
    /// In a box, of which one that was upgraded has nothing any more.
    Serving(Box<Serving<S>>),
    Upgraded(S::Upgraded),
}

impl<S: Service> Http<S> {
    /// With the default [`Options`].
    pub fn new(service: S) -> Http<S> {
        Http::with_options(service, Options::shared())
    }

    /// With `options`: an [`Options`], or an `Arc` of it that all connections of a listener share.
    pub fn with_options(service: S, options: impl Into<Arc<Options>>) -> Http<S> {
        let serving = Serving::new(service, options.into());
        Http {
            state: State::Serving(Box::new(serving)),
        }
    }

    /// The service, until it has handed its connection over.
    pub fn service(&self) -> Option<&S> {
        match &self.state {
            State::Serving(serving) => Some(serving.service()),
            State::Upgraded(_) => None,
        }
    }

    /// The actor that has taken the connection over, if one has.
    pub fn upgraded(&self) -> Option<&S::Upgraded> {
        match &self.state {
            State::Serving(_) => None,
            State::Upgraded(actor) => Some(actor),
        }
    }

    /// Calls the one who has the connection.
    fn pass(
        &mut self,
        ctx: &mut Context<'_, Self>,
        serve: impl FnOnce(&mut Serving<S>, &mut Context<'_, Self>) -> Outcome,
        upgraded: impl FnOnce(&mut S::Upgraded, &mut Context<'_, S::Upgraded>) -> Outcome,
    ) -> Outcome {
        match &mut self.state {
            State::Serving(serving) => serve(serving, ctx)?,
            State::Upgraded(actor) => return upgraded(actor, &mut ctx.of_type()),
        }
        self.switch(ctx)
    }

    /// Hands the connection over, where that has been decided.
    fn switch(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let State::Serving(serving) = &mut self.state else {
            return Ok(());
        };
        let Some(make) = serving.take_switch() else {
            return Ok(());
        };
        // While the service is there: should this panic, it is told.
        let actor = make();
        let paused = serving.is_paused();
        serving.end(ctx);
        let wants = ctx.call().wants;
        // There is no socket for it any more, and nobody carries out what it asks for.
        ctx.call().flags.clear(Flags::SOCKET);
        serving.closed(&CloseReason::Detached, ctx);
        let call = ctx.call();
        call.flags.set(Flags::SOCKET);
        call.wants = wants;
        let key = call.key;
        let is_its_own = |what: &TimerFor| matches!(what, TimerFor::Actor);
        call.timers.cancel_where(key.index(), is_its_own);
        call.monitors.end(key);
        if paused {
            ctx.resume();
        }
        self.state = State::Upgraded(actor);
        self.pass(ctx, |_, _| Ok(()), |actor, ctx| actor.opened(ctx))
    }
}

impl<S: Service> Actor for Http<S> {
    type Message = S::Message;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(ctx, Serving::opened, |actor, ctx| actor.opened(ctx))
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if let State::Serving(serving) = &mut self.state {
            serving.readable(input, ctx)?;
            self.switch(ctx)?;
            if input.is_empty() || ctx.call().wants.has(Wants::STOPS_INPUT) {
                return Ok(());
            }
        }
        match &mut self.state {
            State::Upgraded(actor) => actor.readable(input, &mut ctx.of_type()),
            State::Serving(_) => Ok(()),
        }
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(ctx, Serving::read_closed, |actor, ctx| {
            actor.read_closed(ctx)
        })
    }

    fn message(&mut self, message: S::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        match &mut self.state {
            State::Serving(serving) => {
                serving.pass(ctx, |service, ctx| service.message(message, ctx))?;
            }
            State::Upgraded(actor) => return actor.message(message, &mut ctx.of_type()),
        }
        self.switch(ctx)
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(
            ctx,
            |serving, ctx| serving.timer(key, ctx),
            |actor, ctx| match key {
                // For who was there before.
                TimerKey::NUDGE => Ok(()),
                key => actor.timer(key, ctx),
            },
        )
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(
            ctx,
            |serving, ctx| serving.goes_on(ctx, |service, ctx| service.drained(ctx)),
            |actor, ctx| actor.drained(ctx),
        )
    }

    fn written(&mut self, token: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(
            ctx,
            |serving, ctx| serving.pass(ctx, |service, ctx| service.written(token, ctx)),
            |actor, ctx| actor.written(token, ctx),
        )
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(
            ctx,
            |serving, ctx| serving.goes_on(ctx, |service, ctx| service.room(ctx)),
            |actor, ctx| actor.room(ctx),
        )
    }

    fn option_failed(
        &mut self,
        option: SocketOption,
        error: io::Error,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        match &mut self.state {
            State::Serving(serving) => serving.pass(ctx, |service, ctx| {
                service.option_failed(option, error, ctx)
            })?,
            State::Upgraded(actor) => {
                return actor.option_failed(option, error, &mut ctx.of_type());
            }
        }
        self.switch(ctx)
    }

    fn stopping(&mut self, deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        self.pass(
            ctx,
            |serving, ctx| serving.stopping(deadline, ctx),
            |actor, ctx| actor.stopping(deadline, ctx),
        )
    }

    fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        match &mut self.state {
            State::Serving(serving) => serving.closing(reason, ctx),
            State::Upgraded(actor) => actor.closing(reason, &mut ctx.of_type()),
        }
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        match &mut self.state {
            State::Serving(serving) => {
                serving.closed(reason, ctx);
                serving.end(ctx);
            }
            State::Upgraded(actor) => actor.closed(reason, &mut ctx.of_type()),
        }
    }
}

impl<S: Service> Addr<Http<S>> {
    /// The same address, as that of the service inside.
    pub fn inside(&self) -> Addr<S> {
        self.of_type()
    }
}

impl<S: Service> fmt::Debug for Http<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Serving(_) => "serving",
            State::Upgraded(_) => "upgraded",
        };
        f.debug_struct("Http")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

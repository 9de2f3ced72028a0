//! What is done every so often, on one poller or on each.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::{Actor, Outcome};
use crate::addr::Addr;
use crate::context::Context;
use crate::handle::Handle;
use crate::hosts::contain;
use crate::local::PollerContext;
use crate::timers::TimerKey;

/// Does something every so often, see [`Handle::every`]. It is an actor without a socket:
/// [`Addr::close`] ends it.
pub struct Tick {
    period: Duration,
    act: Box<dyn FnMut(&mut PollerContext<'_>)>,
}

impl Actor for Tick {
    type Message = Infallible;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.set_interval(self.period);
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        let call = ctx.call();
        let door = call.registry.door.clone();
        contain(&door, "a tick", || {
            (self.act)(&mut PollerContext::new(call))
        });
        Ok(())
    }
}

impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tick")
            .field("period", &self.period)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// Calls `act` every `period`, first one period from now, on one of the pollers, until the system
    /// ends or the address is told to [close](Addr::close).
    ///
    /// It does not drift: the times are multiples of the period, and a late call does not shift those
    /// that follow. What was missed altogether is skipped and not made up for. A panic is contained
    /// and counted, and the next call comes all the same. In [`Stats`](crate::Stats) a tick counts as
    /// an actor.
    ///
    /// ```no_run
    /// # use greenroom::*;
    /// # use std::time::Duration;
    /// # fn f(system: &System) {
    /// let tick = system.handle().every(Duration::from_secs(10), |poller| {
    ///     let stats = poller.system().stats();
    ///     println!("{} connections, {} panics", stats.connections, stats.panics);
    /// });
    /// // Until the system ends, or:
    /// tick.close();
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// When the period is zero.
    #[track_caller]
    pub fn every(
        &self,
        period: Duration,
        act: impl FnMut(&mut PollerContext<'_>) + Send + 'static,
    ) -> Addr<Tick> {
        assert_period(period);
        let act = Box::new(act);
        self.spawn(move || Tick { period, act })
    }

    /// The same on the poller of this number.
    ///
    /// # Panics
    ///
    /// When the period is zero, and when there is no such poller, see [`Handle::pollers`].
    #[track_caller]
    pub fn every_on(
        &self,
        poller: usize,
        period: Duration,
        act: impl FnMut(&mut PollerContext<'_>) + Send + 'static,
    ) -> Addr<Tick> {
        assert_period(period);
        let act = Box::new(act);
        self.spawn_on(poller, move || Tick { period, act })
    }
}

#[track_caller]
fn assert_period(period: Duration) {
    assert!(
        !period.is_zero(),
        "every: the period of a tick must not be zero"
    );
}

type Act = Arc<dyn Fn(&mut PollerContext<'_>) + Send + Sync>;

/// What a builder was told to have done on each poller.
#[derive(Clone, Default)]
pub(crate) struct Ticks(Vec<(Duration, Act)>);

impl Ticks {
    #[track_caller]
    pub(crate) fn add(
        &mut self,
        period: Duration,
        act: impl Fn(&mut PollerContext<'_>) + Send + Sync + 'static,
    ) {
        assert_period(period);
        self.0.push((period, Arc::new(act)));
    }

    pub(crate) fn start(&self, handle: &Handle) {
        for (period, act) in &self.0 {
            for poller in 0..handle.pollers() {
                let act = act.clone();
                handle.every_on(poller, *period, move |ctx| act(ctx));
            }
        }
    }
}

impl fmt::Debug for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let periods = self.0.iter().map(|(period, _)| period);
        f.debug_list().entries(periods).finish()
    }
}

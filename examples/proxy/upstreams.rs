//! The upstreams: which are up, which is next, and the checks that find out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::{
    Actor, CloseReason, ConnectError, ConnectOptions, Context, Outcome, Remote, TimerKey,
};

/// How long a check may take. A check that is late is a failed one.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// How clients are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Balance {
    /// To each in turn.
    RoundRobin,
    /// To the one with the fewest connections from here.
    LeastConnections,
}

/// One of them.
pub(crate) struct Upstream {
    pub(crate) remote: Remote,
    is_up: AtomicBool,
    /// Clients that it serves, or is about to.
    connections: AtomicUsize,
}

/// All of them, shared by the pollers. Nothing here is in an order with anything else, so Relaxed
/// does.
pub(crate) struct Upstreams {
    all: Vec<Upstream>,
    balance: Balance,
    next: AtomicUsize,
}

impl Upstreams {
    /// They count as up until a connect fails.
    pub(crate) fn new(remotes: Vec<Remote>, balance: Balance) -> Upstreams {
        let upstream = |remote| Upstream {
            remote,
            is_up: AtomicBool::new(true),
            connections: AtomicUsize::new(0),
        };
        Upstreams {
            all: remotes.into_iter().map(upstream).collect(),
            balance,
            next: AtomicUsize::new(0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The one for the next client, but for those that it has tried; counted as one of its
    /// connections until it is [left](Upstreams::leave).
    pub(crate) fn choose(&self, tried: &[usize]) -> Option<usize> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..self.all.len()).map(|step| first.wrapping_add(step) % self.all.len());
        let mut fit = in_turn.filter(|at| self.is_up(*at) && !tried.contains(at));
        let chosen = match self.balance {
            Balance::RoundRobin => fit.next(),
            Balance::LeastConnections => fit.min_by_key(|at| self.connections(*at)),
        }?;
        self.all[chosen].connections.fetch_add(1, Ordering::Relaxed);
        Some(chosen)
    }

    pub(crate) fn leave(&self, at: usize) {
        self.all[at].connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn remote(&self, at: usize) -> &Remote {
        &self.all[at].remote
    }

    pub(crate) fn connections(&self, at: usize) -> usize {
        self.all[at].connections.load(Ordering::Relaxed)
    }

    pub(crate) fn is_up(&self, at: usize) -> bool {
        self.all[at].is_up.load(Ordering::Relaxed)
    }

    /// A connect was made. That it is up again is said once.
    pub(crate) fn connected(&self, at: usize) {
        if !self.all[at].is_up.swap(true, Ordering::Relaxed) {
            log::warn!("upstream {} is up again", self.remote(at));
        }
    }

    /// A connect came to nothing: it is down, unless the reason lies with us. Said once.
    pub(crate) fn failed(&self, at: usize, error: &ConnectError) {
        use greenroom::ConnectErrorKind as Kind;
        let is_ours = matches!(
            error.kind(),
            Kind::Closed
                | Kind::Stopped
                | Kind::NoDescriptors
                | Kind::NoMemory
                | Kind::LocalAddress
                | Kind::LookupFailed
                | Kind::TooManyLookups
        );
        if !is_ours && self.all[at].is_up.swap(false, Ordering::Relaxed) {
            log::warn!("upstream {} is down: {error}", self.remote(at));
        }
    }
}

/// Checks all upstreams, once in every period.
pub(crate) struct Checker {
    upstreams: Arc<Upstreams>,
    period: Duration,
}

impl Checker {
    pub(crate) fn new(upstreams: Arc<Upstreams>, period: Duration) -> Checker {
        Checker { upstreams, period }
    }

    fn check(&self, ctx: &mut Context<'_, Self>) {
        for at in 0..self.upstreams.len() {
            let check = Check {
                upstreams: self.upstreams.clone(),
                at,
            };
            let options = ConnectOptions::new().timeout(CHECK_TIMEOUT.min(self.period));
            ctx.connect_with(self.upstreams.remote(at), options, check);
        }
    }
}

impl Actor for Checker {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.set_interval(self.period);
        self.check(ctx);
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.check(ctx);
        Ok(())
    }
}

/// One check: a connect.
struct Check {
    upstreams: Arc<Upstreams>,
    at: usize,
}

impl Actor for Check {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.upstreams.connected(self.at);
        ctx.abort();
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        if let CloseReason::NotConnected(error) = reason {
            self.upstreams.failed(self.at, error);
        }
    }
}

//! What a builder can be told about the pollers beside how many they are.

use std::sync::Arc;
use std::time::Duration;

use super::Builder;
use crate::handle::Shared;
use crate::local::PollerContext;
use crate::registry::Registry;
use crate::sys::WakeFd;
use crate::workers::{Limits, Workers};

impl Builder {
    /// How many threads run [offloaded](crate::Context::offload) work, and how many further pieces of
    /// it may wait for one before they are refused. By default 16 threads, which is enough to keep a
    /// disk or a resolver busy and costs the pollers little, and 1,024 places.
    ///
    /// Threads come with the work: none is there before the first piece, one more is started
    /// whenever the last idle one takes some, and one that has had none for ten seconds ends. The
    /// very first is started by whoever offloads, in some ten microseconds; all others start one
    /// another. Work that computes rather than waits takes processors from the pollers: give it
    /// fewer threads than there are processors.
    ///
    /// # Panics
    ///
    /// When there is no thread.
    pub fn workers(mut self, threads: usize, queue: usize) -> Self {
        assert!(threads > 0, "workers: there must be at least one thread");
        self.workers = Limits {
            threads,
            queue,
            ..Limits::default()
        };
        self
    }

    /// Says how the value of type `T` is made that the actors of each poller share: a cache, a pool, a
    /// counter. `make` is given the number of the poller, and is called there when
    /// [`Context::local`](crate::Context::local) first asks for the value, which need not be `Send`.
    /// Of two for one type the second counts.
    ///
    /// ```
    /// use greenroom::*;
    ///
    /// /// Answers each line with the number of lines that its poller has seen.
    /// struct Counts;
    ///
    /// struct Lines(u64);
    ///
    /// impl Actor for Counts {
    ///     type Message = ();
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         while let Some(_line) = input.line(80)? {
    ///             let lines = ctx.local::<Lines>();
    ///             lines.borrow_mut().0 += 1;
    ///             ctx.write(format!("{}\n", lines.borrow().0));
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let system = System::builder().local(|_poller| Lines(0)).build()?;
    /// system.listen("127.0.0.1:0", |_peer| Counts)?;
    /// # Ok(()) }
    /// ```
    pub fn local<T: 'static>(mut self, make: impl Fn(usize) -> T + Send + Sync + 'static) -> Self {
        self.makers.add(make);
        self
    }

    /// Calls `act` on each poller every `period`, as [`Handle::every_on`](crate::Handle::every_on)
    /// does, for as long as the system lives. What it keeps from one call to the next is best a
    /// [local](crate::PollerContext::local) value.
    ///
    /// ```
    /// use std::time::Duration;
    /// use greenroom::*;
    ///
    /// /// Connects that an actor of this poller has let in since the last tick.
    /// struct Recent(u32);
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let system = System::builder()
    ///     .local(|_poller| Recent(0))
    ///     .tick(Duration::from_secs(1), |poller| poller.local::<Recent>().borrow_mut().0 = 0)
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// When the period is zero.
    #[track_caller]
    pub fn tick(
        mut self,
        period: Duration,
        act: impl Fn(&mut PollerContext<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.ticks.add(period, act);
        self
    }

    /// One poller of it, as others see it, for a test's own thread.
    pub(crate) fn staged(&self, waker: WakeFd) -> (Arc<Registry>, Arc<Shared>) {
        let registry = Arc::new(Registry::new(0, waker, self.mailbox_bound));
        let workers = Workers::by_hand(self.workers);
        let makers = self.makers.clone();
        let shared = Shared::new(vec![registry.clone()], None, workers, makers);
        (registry, shared)
    }
}

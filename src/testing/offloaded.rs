//! Work that the actor on a stage has offloaded.

use super::{Stage, Time};
use crate::actor::Actor;
use crate::workers::{Limits, Workers};

impl<A: Actor> Stage<A> {
    /// Runs the work that was [offloaded](crate::Context::offload) so far, in its order, on this
    /// thread, each piece with its answer; returns how many there were. What the answers offload waits
    /// for the next call.
    ///
    /// # Panics
    ///
    /// When the actor panics, and when the work does; see [`Stage`].
    #[track_caller]
    pub fn run_offloaded(&mut self) -> usize {
        let workers = self.workers();
        let waiting = workers.waiting();
        for _ in 0..waiting {
            if let Some(job) = workers.take() {
                let time = Time::set(self.now);
                job();
                workers.done();
                drop(time);
                self.run();
            }
        }
        waiting
    }

    /// How much [offloaded](crate::Context::offload) work waits for
    /// [`run_offloaded`](Stage::run_offloaded).
    pub fn offloaded(&self) -> usize {
        self.workers().waiting()
    }

    /// From here on work is refused when so much waits, as by
    /// [`Builder::workers`](crate::Builder::workers) with this sum; by default 1,040.
    ///
    /// # Panics
    ///
    /// When it is 0.
    #[track_caller]
    pub fn limit_offloaded(&mut self, most: usize) {
        assert!(most > 0, "limit_offloaded: there must be at least one");
        self.workers().limit(Limits {
            threads: 1,
            queue: most - 1,
            ..Limits::default()
        });
    }

    fn workers(&self) -> Workers {
        self.poller.hosts.call.shared.workers.clone()
    }
}

//! Work that the actor on a stage has offloaded.

use super::{Stage, Time};
use crate::actor::Actor;
use crate::workers::Workers;

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
                workers.run(job);
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

    fn workers(&self) -> Workers {
        self.poller.hosts.call.shared.workers.clone()
    }
}

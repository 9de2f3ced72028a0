//! What the measurements against other servers have in common: in which turns, and on which
//! processors.

use std::io;
use std::thread;
use std::time::Duration;

use crate::server::{Candidate, Server};
use crate::sys;

/// The servers run on this CPU alone, and the load on the other: they never take turns on one.
const SERVER_CPU: usize = 0;
const LOAD_CPU: usize = 1;

/// How often and for how long each server has its turn, and where servers and load run.
///
/// A round has `slices` slices of each server, in rotated order: the machine's own speed changes
/// within seconds (a neighbour begins or ends), and all servers of a round then see the same share
/// of both speeds. Each round gives one sample of a metric.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds, at least one.
    pub rounds: u32,
    /// Slices of each server in a round, at least one.
    pub slices: u32,
    /// The length of a slice.
    pub slice: Duration,
    /// The only CPUs that a server may run on; none: all.
    pub server_cpus: Option<Vec<usize>>,
    /// The only CPU that the load may run on; none: all.
    pub load_cpu: Option<usize>,
}

impl Plan {
    /// Servers and load on a CPU each, or unpinned if there are no two for them; see `is_pinned`.
    pub fn apart(rounds: u32, slices: u32, slice: Duration) -> Plan {
        let pinned = sys::allows_cpus(&[SERVER_CPU, LOAD_CPU]);
        Plan {
            server_cpus: pinned.then(|| vec![SERVER_CPU]),
            load_cpu: pinned.then_some(LOAD_CPU),
            ..Plan::beside(rounds, slices, slice)
        }
    }

    /// Servers and load share all CPUs.
    pub fn beside(rounds: u32, slices: u32, slice: Duration) -> Plan {
        Plan {
            rounds,
            slices,
            slice,
            server_cpus: None,
            load_cpu: None,
        }
    }

    /// Whether servers and load have CPUs of their own.
    pub fn is_pinned(&self) -> bool {
        self.server_cpus.is_some() && self.load_cpu.is_some()
    }

    /// Starts a server where this plan wants it.
    pub(crate) fn start(&self, candidate: &Candidate) -> io::Result<Server> {
        Server::start_on(&candidate.command, self.server_cpus.as_deref())
            .map_err(|error| candidate.failed(&error))
    }

    /// Runs `load` where this plan wants the load: in a thread of its own, so that the caller's
    /// thread, and what it starts later, are not pinned. The descriptor limit is raised before, for
    /// the servers as well, which inherit it.
    pub(crate) fn run<T: Send>(
        &self,
        load: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        sys::raise_descriptor_limit()?;
        thread::scope(|scope| {
            let load = scope.spawn(|| {
                self.load_cpu.map_or(Ok(()), sys::pin_to_cpu)?;
                load()
            });
            load.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Whose turn it is, one slice after the other, in the round `round` of `servers` servers.
    pub(crate) fn turns(&self, round: u32, servers: usize) -> impl Iterator<Item = usize> {
        let turn = move |slice, i| (round as usize + slice as usize + i) % servers;
        // Rotated, so that no server is always the first.
        (0..self.slices).flat_map(move |slice| (0..servers).map(move |i| turn(slice, i)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_as_many_turns_and_is_first_in_turn() {
        let plan = Plan::beside(1, 2, Duration::ZERO);
        assert_eq!(plan.turns(0, 3).collect::<Vec<_>>(), [0, 1, 2, 1, 2, 0]);
        assert_eq!(plan.turns(1, 3).collect::<Vec<_>>(), [1, 2, 0, 2, 0, 1]);
    }
}

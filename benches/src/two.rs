//! Servers with two threads on both cores, the load beside them.

use std::io;
use std::time::Duration;

use crate::echo::Shape;
use crate::echo_cost;
use crate::plan::Plan;
use crate::samples::Samples;
use crate::server::Candidate;

/// Threads of the load, as many as the servers have: no server is limited by a load that is one
/// thread.
const LOAD_THREADS: usize = 2;

/// Five slices of 100 ms for each server in a round, servers and load share all CPUs.
pub fn plan(rounds: u32) -> Plan {
    Plan::beside(rounds, 5, Duration::from_millis(100))
}

/// Part `two`: `cpu ns` and `per second`, for `c` (which has one thread), `c again` and the
/// candidates.
pub fn measure(candidates: &[Candidate], shape: Shape, plan: &Plan) -> io::Result<Samples> {
    echo_cost::alternate("two", candidates, shape, LOAD_THREADS, plan)
}

//! Server CPU time for each message of a closed loop, in slices that alternate between the servers.

use std::io;
use std::time::Duration;

use crate::echo::{EchoLoads, Shape};
use crate::plan::Plan;
use crate::samples::Samples;
use crate::server::{Candidate, Server, with_floor};
use crate::syscalls;

/// Before the first round, for each server: for the caches, and for tables that grow once.
const WARM_UP: Duration = Duration::from_millis(250);
/// For the count of system calls.
const TRACED_MESSAGES: u64 = 20_000;

/// Ten slices of 50 ms for each server in a round, servers and load on a CPU each.
pub fn plan(rounds: u32) -> Plan {
    Plan::apart(rounds, 10, Duration::from_millis(50))
}

/// Part `echo`: `cpu ns` (for each message) and `per second`, for `c`, `c again` and the
/// candidates.
pub fn measure(candidates: &[Candidate], shape: Shape, plan: &Plan) -> io::Result<Samples> {
    alternate("echo", candidates, shape, 1, plan)
}

/// Part `echo`: `syscalls` for each message, counted by strace, once (round 0), for `c` and the
/// candidates.
pub fn syscalls(candidates: &[Candidate], shape: Shape, plan: &Plan) -> io::Result<Samples> {
    plan.run(|| {
        let mut samples = Samples::new();
        // Without the control: strace counts the same each time.
        for candidate in [Candidate::floor()?].iter().chain(candidates) {
            let server = plan.start(candidate)?;
            let (counts, messages) = syscalls::count(&server, shape, TRACED_MESSAGES)
                .map_err(|error| candidate.failed(&error))?;
            let each = counts.values().sum::<u64>() as f64 / messages as f64;
            let case = shape.to_string();
            samples.push("echo", &case, &candidate.name, 0, "syscalls", each);
        }
        Ok(samples)
    })
}

/// The samples of `part`, with `threads` threads of load for each server.
pub(crate) fn alternate(
    part: &str,
    candidates: &[Candidate],
    shape: Shape,
    threads: usize,
    plan: &Plan,
) -> io::Result<Samples> {
    plan.run(|| {
        let mut contenders = with_floor(Candidate::floor()?, candidates)
            .into_iter()
            .map(|candidate| Contender::start(candidate, &shape.to_string(), shape, threads, plan))
            .collect::<io::Result<Vec<_>>>()?;
        let mut samples = Samples::new();
        for round in 0..plan.rounds {
            closed_round(part, &mut contenders, round, plan, &mut samples)?;
        }
        Ok(samples)
    })
}

/// A server with open connections, in turn with others.
pub(crate) struct Contender {
    pub(crate) candidate: Candidate,
    pub(crate) case: String,
    /// Dropped first, so the connections close before the server is killed.
    pub(crate) load: EchoLoads,
    pub(crate) server: Server,
}

impl Contender {
    pub(crate) fn start(
        candidate: Candidate,
        case: &str,
        shape: Shape,
        threads: usize,
        plan: &Plan,
    ) -> io::Result<Contender> {
        let server = plan.start(&candidate)?;
        Contender::connect(candidate, case, server, shape, threads)
    }

    /// Connects to a server that runs already, and warms it up.
    pub(crate) fn connect(
        candidate: Candidate,
        case: &str,
        server: Server,
        shape: Shape,
        threads: usize,
    ) -> io::Result<Contender> {
        let load = EchoLoads::connect(server.addr(), shape, threads).and_then(|mut load| {
            load.run(WARM_UP)?;
            Ok(load)
        });
        Ok(Contender {
            load: load.map_err(|error| candidate.failed(&error))?,
            case: case.to_string(),
            candidate,
            server,
        })
    }
}

/// What a server's slices of one round add up to.
#[derive(Clone, Default)]
struct Total {
    cpu: Duration,
    elapsed: Duration,
    messages: u64,
}

/// One round of closed loops, by turns.
pub(crate) fn closed_round(
    part: &str,
    contenders: &mut [Contender],
    round: u32,
    plan: &Plan,
    samples: &mut Samples,
) -> io::Result<()> {
    let mut totals = vec![Total::default(); contenders.len()];
    for turn in plan.turns(round, contenders.len()) {
        let Contender {
            candidate,
            load,
            server,
            ..
        } = &mut contenders[turn];
        let before = server.cpu_time()?;
        let report = load
            .run(plan.slice)
            .map_err(|error| candidate.failed(&error))?;
        let total = &mut totals[turn];
        total.cpu += server.cpu_time()? - before;
        total.elapsed += report.elapsed;
        total.messages += report.messages;
    }
    for (contender, total) in contenders.iter().zip(totals) {
        let (case, name) = (&contender.case, &contender.candidate.name);
        let messages = total.messages as f64;
        let cpu_ns = total.cpu.as_nanos() as f64 / messages;
        samples.push(part, case, name, round, "cpu ns", cpu_ns);
        let rate = messages / total.elapsed.as_secs_f64();
        samples.push(part, case, name, round, "per second", rate);
    }
    Ok(())
}

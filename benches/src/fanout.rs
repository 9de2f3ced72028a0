//! Fan-out: one connection sends lines, all receive them.

use std::io;
use std::time::Duration;

use crate::fanout_load::{FanoutLoad, Report};
use crate::idle;
use crate::latency::push_percentiles;
use crate::plan::Plan;
use crate::samples::Samples;
use crate::server::{Candidate, Server, descriptor_count, with_floor};
use crate::sys;

/// When the next line is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// When all members have received the last one.
    OneAtATime,
    /// At fixed times, so many a second, whatever the server does.
    Rate(u32),
}

/// What is sent, and to how many.
#[derive(Clone, Copy, Debug)]
pub struct FanoutShape {
    /// Connections; each receives each line.
    pub members: usize,
    /// When lines are sent.
    pub pace: Pace,
    /// Threads of the load that receive.
    pub readers: usize,
    /// Threads of the servers: names the case, the commands say it.
    pub server_threads: u32,
}

impl FanoutShape {
    fn case(&self) -> String {
        let members = self.members;
        let pace = match self.pace {
            Pace::OneAtATime => "one line at a time".to_string(),
            Pace::Rate(rate) => format!("{rate} lines per second"),
        };
        match self.server_threads {
            1 => format!("{members} members; {pace}"),
            threads => format!("{members} members; {pace}; {threads} threads"),
        }
    }
}

/// For servers with one thread: one slice of half a second for each server in a round, servers and
/// load on a CPU each. With more threads, servers and load share all CPUs.
///
/// A slice lasts until the last line is in: of a server that keeps up with a tenth of the rate, ten
/// times as long.
pub fn plan(rounds: u32, server_threads: u32) -> Plan {
    let slice = Duration::from_millis(500);
    match server_threads {
        1 => Plan::apart(rounds, 1, slice),
        _ => Plan::beside(rounds, 1, slice),
    }
}

/// Part `fanout`, for `c` (which has one thread), `c again` and the candidates: `cpu ns` (for each
/// delivery), `per second` (deliveries), `lost`, `p50 us` to `p99.9 us`.
///
/// A delivery is a line that a member has received, each byte right. Its latency counts from when
/// the line was due. Lost is what a member was not sent, though others came later or nothing came
/// for five seconds.
///
/// At a rate there is no `c again`: what is compared are deliveries and losses, and the floor is
/// far behind the rate, so that its slices take long.
///
/// The members connect anew for each slice, and have all received a line before it begins: with
/// 10,000 of them, no two servers' members fit into this process at a time.
pub fn measure(candidates: &[Candidate], shape: FanoutShape, plan: &Plan) -> io::Result<Samples> {
    plan.run(|| {
        let mut all = with_floor(Candidate::fanout_floor()?, candidates);
        if shape.pace != Pace::OneAtATime {
            all.remove(1);
        }
        let contenders = all
            .into_iter()
            .map(|candidate| Ok((plan.start(&candidate)?, candidate)))
            .collect::<io::Result<Vec<_>>>()?;
        let mut samples = Samples::new();
        for round in 0..plan.rounds {
            let mut slices = vec![Vec::new(); contenders.len()];
            for turn in plan.turns(round, contenders.len()) {
                let (server, candidate) = &contenders[turn];
                let slice =
                    slice(server, shape, plan.slice).map_err(|error| candidate.failed(&error))?;
                slices[turn].push(slice);
            }
            for ((_, candidate), slices) in contenders.iter().zip(slices) {
                push(&shape.case(), &candidate.name, round, slices, &mut samples);
            }
        }
        Ok(samples)
    })
}

/// What the load saw in one slice, and the server's CPU time.
fn slice(server: &Server, shape: FanoutShape, time: Duration) -> io::Result<(Report, Duration)> {
    let addr = sys::loopback_v4(server.addr())?;
    let descriptors = descriptor_count(server.pid())?;
    let members = idle::open(addr, server.pid(), shape.members, descriptors)?;
    let mut load = FanoutLoad::new(members, shape.readers)?;
    let before = server.cpu_time()?;
    let report = load.run(shape.pace, time)?;
    let cpu = server.cpu_time()? - before;
    // So that the next server does not share its CPU with the closes of this one.
    idle::close(load.into_members(), server.pid(), descriptors)?;
    Ok((report, cpu))
}

/// Adds the samples of a server's slices of one round.
fn push(
    case: &str,
    server: &str,
    round: u32,
    slices: Vec<(Report, Duration)>,
    samples: &mut Samples,
) {
    let sum = |of: fn(&(Report, Duration)) -> f64| slices.iter().map(of).sum::<f64>();
    let received = sum(|(report, _)| report.received as f64);
    let metrics = [
        ("cpu ns", sum(|(_, cpu)| cpu.as_nanos() as f64) / received),
        (
            "per second",
            received / sum(|(report, _)| report.elapsed.as_secs_f64()),
        ),
        ("lost", sum(|(report, _)| report.lost as f64)),
    ];
    for (metric, value) in metrics {
        samples.push("fanout", case, server, round, metric, value);
    }
    let latencies: Vec<_> = slices
        .into_iter()
        .map(|(report, _)| report.latency)
        .collect();
    push_percentiles("fanout", case, server, round, &latencies, samples);
}

//! Latency at half of full load, in an open loop.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::echo::Shape;
use crate::echo_cost::Contender;
use crate::open_loop::Wait;
use crate::plan::Plan;
use crate::rounds::median;
use crate::samples::Samples;
use crate::server::{Candidate, with_floor};

/// For how many slices the floor runs at full load at the beginning of a round.
const FULL_LOAD_SLICES: u32 = 3;

/// What is sent in an open loop.
#[derive(Clone, Copy, Debug)]
pub struct OpenShape {
    /// How many connections, in all.
    pub connections: usize,
    /// The length of a message in bytes.
    pub message_bytes: usize,
    /// Threads of the load.
    pub threads: usize,
}

impl Default for OpenShape {
    fn default() -> OpenShape {
        OpenShape {
            connections: 1_000,
            message_bytes: 64,
            threads: 1,
        }
    }
}

/// Ten slices of 100 ms for each server in a round, servers and load on a CPU each.
pub fn plan(rounds: u32) -> Plan {
    Plan::apart(rounds, 10, Duration::from_millis(100))
}

/// Part `latency`: `p50 us`, `p90 us`, `p99 us`, `p99.9 us` at half of the floor's full load, and
/// `fairness` at each server's own full load, for `c`, `c again` and the candidates.
///
/// The floor's full load is that of a closed loop at the beginning of the round; the rate is the
/// same for all. A percentile is taken of each slice, and the sample is the median of the slices: a
/// machine that is shared stops for milliseconds now and then, which is in few slices and would be
/// in the percentiles of all together. A server that stops more rarely than in every other slice is
/// not found out by it.
///
/// Fairness is that of one closed loop as long as all slices of a round: in a short one, whether a
/// connection's turn came just before the end or just after would be taken for unfairness.
pub fn measure(candidates: &[Candidate], shape: OpenShape, plan: &Plan) -> io::Result<Samples> {
    let wait = match plan.load_cpu {
        Some(_) if shape.threads == 1 => Wait::Spin,
        _ => Wait::Sleep,
    };
    let closed = Shape {
        connections: shape.connections,
        message_bytes: shape.message_bytes,
        pipeline: 1,
    };
    plan.run(|| {
        let mut contenders = with_floor(Candidate::floor()?, candidates)
            .into_iter()
            .map(|candidate| {
                Contender::start(candidate, &closed.to_string(), closed, shape.threads, plan)
            })
            .collect::<io::Result<Vec<_>>>()?;
        let whole = plan.slice * plan.slices;
        let mut samples = Samples::new();
        for round in 0..plan.rounds {
            open_round("latency", &mut contenders, wait, round, plan, &mut samples)?;
            for i in 0..contenders.len() {
                let turn = (round as usize + i) % contenders.len();
                let Contender {
                    candidate,
                    case,
                    load,
                    ..
                } = &mut contenders[turn];
                let report = load.run(whole).map_err(|error| candidate.failed(&error))?;
                let fairness = report.fairness();
                samples.push(
                    "latency",
                    case,
                    &candidate.name,
                    round,
                    "fairness",
                    fairness,
                );
            }
        }
        Ok(samples)
    })
}

/// One round of open loops, by turns, at half of the rate that the first contender has in a closed
/// loop just now: the machine's own speed changes from round to round.
pub(crate) fn open_round(
    part: &str,
    contenders: &mut [Contender],
    wait: Wait,
    round: u32,
    plan: &Plan,
    samples: &mut Samples,
) -> io::Result<()> {
    let Contender {
        candidate, load, ..
    } = &mut contenders[0];
    let full = load
        .run(plan.slice * FULL_LOAD_SLICES)
        .map_err(|error| candidate.failed(&error))?;
    let rate = full.rate() / 2.0;
    let mut slices = vec![Vec::new(); contenders.len()];
    for turn in plan.turns(round, contenders.len()) {
        let Contender {
            candidate, load, ..
        } = &mut contenders[turn];
        let latency = load
            .run_open(rate, plan.slice, wait)
            .map_err(|error| candidate.failed(&error))?;
        slices[turn].push(latency);
    }
    for (contender, slices) in contenders.iter().zip(slices) {
        let (case, name) = (&contender.case, &contender.candidate.name);
        push_percentiles(part, case, name, round, &slices, samples);
    }
    Ok(())
}

/// Adds `p50 us` to `p99.9 us`, the medians of what the slices of a round saw.
pub(crate) fn push_percentiles(
    part: &str,
    case: &str,
    server: &str,
    round: u32,
    slices: &[Histogram<u64>],
    samples: &mut Samples,
) {
    let percentiles = [
        ("p50 us", 0.5),
        ("p90 us", 0.9),
        ("p99 us", 0.99),
        ("p99.9 us", 0.999),
    ];
    for (metric, quantile) in percentiles {
        let of_slice = |slice: &Histogram<u64>| slice.value_at_quantile(quantile) as f64 / 1e3;
        let mut us: Vec<f64> = slices.iter().map(of_slice).collect();
        samples.push(part, case, server, round, metric, median(&mut us));
    }
}

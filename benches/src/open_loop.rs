//! The open loop: messages have fixed times whatever the server does, and latency counts from when
//! a message was due, so a server that stops for a while is charged for each message of that while:
//! no coordinated omission (Gil Tene).

use std::io;
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::connections::Connections;
use crate::random::Random;
use crate::{latency_histogram, sys};

/// How long the last replies may take once nothing more is sent.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A spinning load sleeps all the same when nothing is due for so long.
const SPIN_MAX: Duration = Duration::from_micros(500);

/// A message that is due: when, in nanoseconds after the beginning, and on which connection.
pub type Due = (u64, usize);

/// Messages spread evenly: `rate` a second on each of `connections` connections, for `time`.
pub fn evenly(rate: f64, connections: usize, time: Duration) -> impl Iterator<Item = Due> {
    let interval = 1e9 / (rate * connections as f64);
    let due = (0_usize..).map(move |n| ((n as f64 * interval) as u64, n % connections));
    due.take_while(move |&(due, _)| due < time.as_nanos() as u64)
}

/// Messages that come by themselves, `rate` a second in all on connections drawn at random, for
/// `time`: a Poisson process, the same in each run.
pub fn poisson(rate: f64, connections: usize, time: Duration) -> impl Iterator<Item = Due> {
    let mut random = Random::new();
    let mut due = 0.0;
    let dues = std::iter::repeat_with(move || {
        due += -(1.0 - random.unit()).ln() * 1e9 / rate;
        (due as u64, random.below(connections))
    });
    dues.take_while(move |&(due, _)| due < time.as_nanos() as u64)
}

/// What the load does until the next message is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Sleeps, which leaves the CPU to the server.
    Sleep,
    /// Looks for replies all the time: a load with a CPU of its own is not late for having slept.
    Spin,
}

/// Connections at full speed beside those that are due.
#[derive(Clone, Debug, Default)]
pub struct Flood {
    /// Which connections.
    pub connections: Range<usize>,
    /// Messages on their way on each.
    pub pipeline: usize,
}

/// What a run saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the time a message was due until its reply has been read, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Messages that the flooding connections got back in the time.
    pub flooded: u64,
}

/// Sends what `schedule` says on `connections` until it is at its end or `time` is over, beside the
/// `flood`, and waits for the last replies.
///
/// One thread does it all and sends what is due between any two events: a second thread for the
/// flood would compete for the load's CPU, and the scheduler's turns of milliseconds would be taken
/// for the server's latency.
pub fn run(
    connections: &mut Connections,
    schedule: impl Iterator<Item = Due>,
    time: Duration,
    wait: Wait,
    flood: Flood,
) -> io::Result<Report> {
    sys::reduce_timer_slack()?;
    let began = connections.now();
    let end = began + time.as_nanos() as u64;
    let mut schedule = schedule.peekable();
    let mut latency = latency_histogram();
    let mut flood_latency = latency_histogram();
    let (mut sent, mut replies, mut floods, mut flooded) = (0_u64, 0_u64, 0_u64, 0_u64);
    for index in flood.connections.clone() {
        for _ in 0..flood.pipeline {
            connections.push(index, began);
            floods += 1;
        }
        connections.flush(index)?;
    }
    // Counted at `end`: what is drained later came back in more than `time`.
    let mut flooded_in_time = 0;
    // Sends what is due by now, and says when the next message is.
    let mut send_due = |connections: &mut Connections, sent: &mut u64| -> io::Result<Option<u64>> {
        loop {
            match schedule.peek() {
                Some(&(due, index)) if began + due <= connections.now() => {
                    schedule.next();
                    connections.push(index, began + due);
                    connections.flush(index)?;
                    *sent += 1;
                }
                next => return Ok(next.map(|&(due, _)| began + due)),
            }
        }
    };
    loop {
        let next = send_due(connections, &mut sent)?;
        let now = connections.now();
        let sending = now < end;
        if sending {
            flooded_in_time = flooded;
        }
        let drained = next.is_none() && replies == sent && flooded == floods;
        if !sending && drained {
            break;
        }
        let deadline = match next {
            Some(due) => due,
            None if sending => end,
            None => end + DRAIN_TIMEOUT.as_nanos() as u64,
        };
        if !sending && now >= end + DRAIN_TIMEOUT.as_nanos() as u64 {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{} of {sent} messages did not come back", sent - replies),
            ));
        }
        let left = Duration::from_nanos(deadline.saturating_sub(now));
        let timeout = match wait {
            Wait::Spin if left < SPIN_MAX => Duration::ZERO,
            _ => left,
        };
        for n in 0..connections.wait(timeout)? {
            let (index, readable) = connections.ready(n);
            if readable && flood.connections.contains(&index) {
                let completed = connections.receive(index, &mut flood_latency)?;
                flooded += completed;
                if sending {
                    let start = connections.now();
                    (0..completed).for_each(|_| connections.push(index, start));
                    floods += completed;
                }
            } else if readable {
                replies += connections.receive(index, &mut latency)?;
            }
            connections.flush(index)?;
            send_due(connections, &mut sent)?;
        }
    }
    Ok(Report {
        latency,
        flooded: flooded_in_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poisson_schedule_has_the_rate_and_ascends() {
        let dues: Vec<Due> = poisson(10_000.0, 7, Duration::from_secs(1)).collect();
        assert!((9_500..10_500).contains(&dues.len()), "{}", dues.len());
        assert!(dues.is_sorted_by_key(|&(due, _)| due));
        assert!((0..7).all(|index| dues.iter().any(|due| due.1 == index)));
    }

    #[test]
    fn an_even_schedule_has_each_connection_in_turn() {
        let dues: Vec<Due> = evenly(2.0, 2, Duration::from_secs(1)).collect();
        assert_eq!(
            dues,
            [(0, 0), (250_000_000, 1), (500_000_000, 0), (750_000_000, 1)]
        );
    }
}

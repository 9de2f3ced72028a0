//! Rivals by turns, in slices of the same length: `greenroom_benches::rounds` for rivals of which
//! one takes fifty times as long as another, and with samples as the result.

use std::time::Duration;

use greenroom_benches::rounds::median;
use greenroom_benches::samples::Samples;

/// Slices of each rival in a round.
const SLICES_PER_ROUND: usize = 3;
/// What the search for the right number of operations begins with.
const OPERATIONS_MIN: u64 = 256;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Plan {
    pub rounds: u32,
    /// About how long a slice is.
    pub slice: Duration,
}

/// What is measured.
pub struct Case<'a> {
    pub part: &'a str,
    pub name: &'a str,
    /// Operations of a slice; none: as many as fill it, found for each rival.
    pub operations: Option<u64>,
}

/// One way to do it.
pub struct Rival<'a> {
    name: &'static str,
    slice: Box<dyn FnMut(u64) -> Duration + 'a>,
}

impl<'a> Rival<'a> {
    /// `slice` does so many operations and returns how long they took.
    pub fn new(name: &'static str, slice: impl FnMut(u64) -> Duration + 'a) -> Rival<'a> {
        Rival {
            name,
            slice: Box::new(slice),
        }
    }

    /// About how many operations take `length`. Warms up, too.
    fn operations(&mut self, length: Duration) -> u64 {
        let mut operations = OPERATIONS_MIN;
        loop {
            let elapsed = (self.slice)(operations);
            if elapsed >= length / 2 {
                let ratio = length.as_secs_f64() / elapsed.as_secs_f64();
                return (operations as f64 * ratio).max(1.0) as u64;
            }
            operations *= 2;
        }
    }
}

/// Measures the rivals, adds their samples, and prints a table. Its ratios are of times, to the
/// first rival in the same round.
pub fn race(plan: Plan, case: &Case<'_>, mut rivals: Vec<Rival<'_>>, samples: &mut Samples) {
    let operations: Vec<u64> = rivals
        .iter_mut()
        .map(|rival| match case.operations {
            Some(operations) => operations,
            None => rival.operations(plan.slice),
        })
        .collect();
    // Nanoseconds of an operation, by rival and round.
    let mut ns = vec![Vec::new(); rivals.len()];
    // The first round warms up and is not counted.
    for round in 0..=plan.rounds as usize {
        let mut total = vec![Duration::ZERO; rivals.len()];
        for slice in 0..SLICES_PER_ROUND {
            // Rotated, so that no rival is always the first.
            for i in 0..rivals.len() {
                let turn = (round + slice + i) % rivals.len();
                total[turn] += (rivals[turn].slice)(operations[turn]);
            }
        }
        if round > 0 {
            for (turn, total) in total.iter().enumerate() {
                let done = operations[turn] as f64 * SLICES_PER_ROUND as f64;
                ns[turn].push(total.as_nanos() as f64 / done);
            }
        }
    }

    eprintln!(
        "\n{}: {}\n{:24} {:>10} {:>12} {:>10} {:>16}",
        case.part, case.name, "", "ns each", "million/s", "ratio", "least to most"
    );
    for (rival, ns_of_rival) in rivals.iter().zip(&ns) {
        for (round, &ns) in (0..).zip(ns_of_rival) {
            samples.push(case.part, case.name, rival.name, round, "ns", ns);
            if case.part == "messages" {
                let rate = 1e9 / ns;
                samples.push(case.part, case.name, rival.name, round, "per second", rate);
            }
        }
        let pairs = ns_of_rival.iter().zip(&ns[0]);
        let mut ratios: Vec<f64> = pairs.map(|(ns, first)| ns / first).collect();
        let ratio = median(&mut ratios);
        let ns = median(&mut ns_of_rival.clone());
        eprintln!(
            "{:24} {ns:>10.1} {:>12.2} {ratio:>10.2} {:>16}",
            rival.name,
            1e3 / ns,
            format!("{:.2}..{:.2}", ratios[0], ratios[ratios.len() - 1]),
        );
    }
}

//! Rivals measured by turns in one run, for the micro-benchmarks of which the result is a ratio.
//!
//! Not criterion, which measures one rival for seconds and then the next: the speed of a shared
//! machine changes within seconds, so a ratio of two such figures is mostly weather. Here every
//! rival has slices of some ten milliseconds in each round, in rotated order; a ratio is that of
//! one round, and the result is the median of all rounds.

use std::fs;
use std::thread;
use std::time::Duration;

/// How many rounds there are, after one that warms up and is not counted.
const ROUNDS: usize = 9;
/// Slices of each rival in a round.
const SLICES_PER_ROUND: usize = 3;

/// One way to do the thing that is measured.
pub struct Rival<'a> {
    name: String,
    slice: Box<dyn FnMut() -> Duration + 'a>,
    /// Nanoseconds of an operation, round by round.
    ns: Vec<f64>,
    /// ... and in the fastest slice, the one that was disturbed least.
    least_ns: f64,
}

impl<'a> Rival<'a> {
    /// `slice` does the operation as often as `race` is told, and returns how long that took.
    pub fn new(name: impl Into<String>, slice: impl FnMut() -> Duration + 'a) -> Rival<'a> {
        Rival {
            name: name.into(),
            slice: Box::new(slice),
            ns: Vec::new(),
            least_ns: f64::INFINITY,
        }
    }
}

/// Measures the rivals and prints a table. A slice is `operations` of them; ratios are of times, to
/// the first rival.
///
/// # Panics
///
/// Without a rival.
pub fn race(title: &str, operations: u64, mut rivals: Vec<Rival<'_>>) {
    for round in 0..=ROUNDS {
        let mut total = vec![Duration::ZERO; rivals.len()];
        for slice in 0..SLICES_PER_ROUND {
            // Rotated, so that no rival is always the first.
            for i in 0..rivals.len() {
                let turn = (round + slice + i) % rivals.len();
                let rival = &mut rivals[turn];
                let elapsed = (rival.slice)();
                let ns = elapsed.as_nanos() as f64 / operations as f64;
                rival.least_ns = rival.least_ns.min(ns);
                total[turn] += elapsed;
            }
        }
        if round > 0 {
            for (rival, total) in rivals.iter_mut().zip(total) {
                let done = operations as f64 * SLICES_PER_ROUND as f64;
                rival.ns.push(total.as_nanos() as f64 / done);
            }
        }
    }
    println!(
        "\n{title}\n{:44} {:>10} {:>12} {:>10} {:>16} {:>14}",
        "", "ns each", "million/s", "ratio", "least to most", "fastest slice"
    );
    let baseline = rivals[0].ns.clone();
    for rival in &mut rivals {
        let pairs = rival.ns.iter().zip(&baseline);
        let mut ratios: Vec<f64> = pairs.map(|(ns, baseline)| ns / baseline).collect();
        let ratio = median(&mut ratios);
        let ns = median(&mut rival.ns);
        println!(
            "{:44} {ns:>10.1} {:>12.2} {ratio:>10.2} {:>16} {:>14.1}",
            rival.name,
            1e3 / ns,
            format!("{:.2}..{:.2}", ratios[0], ratios[ratios.len() - 1]),
            rival.least_ns,
        );
    }
}

/// The median of at least one value; leaves them sorted.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

/// One line that says what machine this is.
pub fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cpus} CPUs, Linux {}", release.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [9.0, 1.0, 2.0, 4.0]), 3.0);
    }
}

//! The promises of the framework, looked at over the records of some hundred simulated runs: what
//! each of them is stands in README.md, what looks at it in `checks`.
//!
//! `GREENROOM_SEEDS=100000 cargo test --release --test promises` runs more of them. That the
//! checkers find what is broken is shown by `simulation-tests`, which runs them against mutants.

#![allow(
    unreachable_pub,
    reason = "a module says what is for others, as in the crate"
)]

mod checks;
mod people;
mod record;
mod scenario;

use std::collections::BTreeMap;

use greenroom::testing::{Simulation, for_each_seed};

use record::{Answer, Event};

/// As many as a debug build runs in some seconds.
const SEEDS: u64 = 300;

#[test]
fn promises_hold_whatever_happens() {
    for_each_seed(SEEDS, |sim| {
        let (plan, record) = scenario::run(sim);
        let broken = checks::all(&plan, &record);
        let texts: Vec<String> = broken.iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "{}\n{plan:#?}", texts.join("\n"));
    });
}

/// Ends of sockets that come or go by other ways than these runs', or are secured: `detach.rs`,
/// `watch.rs` and `simulated_tls.rs` look at them.
const ELSEWHERE: &[&str] = &["detached", "not adopted", "tls"];

/// The checkers have something to look at. Whatever seeds are asked for, these are the same.
#[test]
fn everything_happens_in_some_run() {
    let mut ends = BTreeMap::new();
    let (mut full, mut gone, mut refused, mut dead, mut dropped) = (0, 0, 0, 0, 0);
    let (mut waits, mut rests, mut wakes) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (_, record) = scenario::run(&mut Simulation::new(seed));
        let stats = [record.stats.closed_by, record.client_stats.closed_by];
        for (reason, count) in stats.into_iter().flatten() {
            *ends.entry(reason).or_insert(0) += count;
        }
        dead += record.stats.dead_letters;
        dropped += record.stats.dropped_writes;
        for (_, event) in &record.events {
            match event {
                Event::Sent { answer, .. } if *answer == Answer::Full => full += 1,
                Event::Sent { answer, .. } if *answer == Answer::Gone => gone += 1,
                Event::Pushed { refused: true, .. } => refused += 1,
                Event::Waits { .. } => waits += 1,
                Event::AtRest => rests += 1,
                Event::Woken { letters, .. } if !letters.is_empty() => wakes += 1,
                _ => {}
            }
        }
    }
    let never = ends
        .iter()
        .find(|(reason, count)| **count == 0 && !ELSEWHERE.contains(reason));
    assert!(never.is_none(), "nobody ended so: {never:?} of {ends:?}");
    let counts = [full, gone, refused, waits, rests, wakes];
    assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
    assert!(dead > 20 && dropped > 20, "{dead} {dropped}");
}

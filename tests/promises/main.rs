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

use greenroom::testing::for_each_seed;

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

//! The checkers of the promises are shown to work: each mutant of `mutants.rs` is caught, by the
//! checker of the promise that it breaks, in the run of some seed.

extern crate greenroom_mutants as greenroom;

#[path = "../../tests/promises/checks/mod.rs"]
mod checks;
#[path = "../../tests/promises/people.rs"]
mod people;
#[path = "../../tests/promises/record.rs"]
mod record;
#[path = "../../tests/promises/scenario.rs"]
mod scenario;

use std::collections::BTreeMap;

use greenroom::mutant;
use greenroom::testing::Simulation;

/// Seeds after which a mutant has survived.
const SEEDS: u64 = 500;

/// Runs each seed with the mutant until the checker of its promise says that something is broken.
#[track_caller]
fn is_caught(mutant: &'static str, promise: u8) {
    let mut reached = 0;
    let mut others = BTreeMap::new();
    for seed in 0..SEEDS {
        let (broken, times) = mutant::with(mutant, || {
            let mut sim = Simulation::new(seed);
            let (plan, record) = people::quietly(|| scenario::run(&mut sim));
            checks::all(&plan, &record)
        });
        reached += times;
        for found in broken {
            if found.promise == promise {
                println!("{mutant}: caught with seed {seed}: {found}");
                return;
            }
            others.entry(found.promise).or_insert((seed, found.what));
        }
    }
    panic!(
        "{mutant} has survived {SEEDS} seeds, in which it was at work {reached} times; beside its promise: {others:#?}"
    );
}

/// The table as this reads it: a test for each, and a list.
macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident breaks $promise:literal {$($patches:tt)*})*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                is_caught(stringify!($name), $promise);
            }
        )*

        #[test]
        fn every_promise_has_a_mutant() {
            for promise in 1..=11 {
                assert!([$($promise),*].contains(&promise), "promise {promise} has none");
            }
        }
    };
}
include!("../mutants.rs");

/// What catches the mutants finds nothing in what ships, in this copy either.
#[test]
fn what_ships_survives() {
    for seed in 0..50 {
        let mut sim = Simulation::new(seed);
        let (plan, record) = scenario::run(&mut sim);
        let broken = checks::all(&plan, &record);
        assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
    }
}

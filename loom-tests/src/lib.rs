//! Loom models of greenroom's concurrent core.
//!
//! [`shipped`] includes the files of `../src` by path, beside a `sync` made of loom's types. Each
//! module of [`mutants`] includes them once more beside a `sync` that is weakened in one thing.
//! `models.rs` is included beside each of them, so that every model can be run against every
//! mutant; `tests/models.rs` and `tests/mutants.rs` say which are.
#![deny(unsafe_code)]
// A mutant is there for one or two of the models.
#![allow(dead_code)]
// The same files beside another `sync` are the point; and nobody asks a stand-in for its default.
#![allow(clippy::duplicate_mod, clippy::new_without_default)]

pub mod mutants;
pub mod shipped;

use std::sync::{Mutex as Untracked, PoisonError};

/// Runs a model through every order with at most three preemptions.
fn check(model: impl Fn() + Send + Sync + 'static) {
    // One at a time: loom maps new stacks for every run, and two models at once wait for each other
    // in the kernel, so that both together take three times as long as one after the other.
    static ONE_AT_A_TIME: Untracked<()> = Untracked::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

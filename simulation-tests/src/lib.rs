//! The shipped source of greenroom with a switch for each mutant of `mutants.rs`.
//!
//! The build script copies `../src` and puts the mutants in; here the copy is compiled, once for
//! all of them. A test switches one on for its own thread: see [`mutant`].

// A copy of what is looked at elsewhere, with changes that nobody is to like.
#![allow(warnings, clippy::all, missing_docs)]

pub mod mutant;

include!(concat!(env!("OUT_DIR"), "/shipped/lib.rs"));

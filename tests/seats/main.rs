//! The example of the guide (docs/testing.md): a server with a bug, what a simulation says about it,
//! and the fix. The guide shows what is here, and this compares the two.
//!
//! A change to the simulation changes its runs, and with them what the guide has to show:
//!
//!     GUIDE=write cargo test --test seats
//!
//! Then read whether the words around it still fit.

// As in a library of its own, where all of it would be used from outside.
#![allow(unreachable_pub)]

use std::env;
use std::fs;
use std::process::Command;

use greenroom::testing::for_each_seed;

#[path = "."]
mod with_bug {
    #[path = "with_bug.rs"]
    pub mod seats;

    include!("visitors.rs");
    include!("quiet_phase.rs");

    pub const HARMLESS: fn(&mut Simulation) = one_visitor_to_a_seat;
    pub const ALL: fn(&mut Simulation) = seats_come_back;
}

#[path = "."]
mod fixed {
    #[path = "fixed.rs"]
    pub mod seats;

    include!("visitors.rs");
    include!("quiet_phase.rs");

    pub const HARMLESS: fn(&mut Simulation) = one_visitor_to_a_seat;
    pub const ALL: fn(&mut Simulation) = seats_come_back;
}

const GUIDE: &str = include_str!("../../docs/testing.md");

/// Set where the server with the bug is to be tested instead of the fixed one.
const WITH_BUG: &str = "SEATS_WITH_BUG";

#[test]
fn nobody_sits_on_anothers_lap() {
    for_each_seed(100, with_bug::HARMLESS);
    for_each_seed(100, fixed::HARMLESS);
}

#[test]
fn every_seat_comes_back() {
    if env::var_os(WITH_BUG).is_some() {
        for_each_seed(1000, with_bug::ALL);
    } else {
        for_each_seed(1000, fixed::ALL);
    }
}

#[test]
fn the_guide_shows_the_code_that_is_here() {
    let with_bug = include_str!("with_bug.rs");
    for file in [
        with_bug,
        include_str!("visitors.rs"),
        include_str!("quiet_phase.rs"),
    ] {
        let first = file.lines().find(|line| line.contains("fn ")).unwrap();
        assert!(GUIDE.contains(file), "the file with `{first}`");
    }

    let mut patched = with_bug.to_owned();
    for hunk in block("diff").split("@@\n").skip(1) {
        let without = |sign| {
            let lines = hunk.lines().filter(|line| !line.starts_with(sign));
            lines.map(|line| format!("{}\n", &line[1..])).collect()
        };
        let (before, after): (String, String) = (without('+'), without('-'));
        assert_eq!(patched.matches(&before).count(), 1, "not once: {before}");
        patched = patched.replace(&before, &after);
    }
    assert_eq!(patched, include_str!("fixed.rs"));
}

#[test]
fn the_guide_shows_what_a_failed_run_prints() {
    let all = told_run();
    let (from, to) = told(&all).unwrap();
    let shown = shorten(&all, from, to);
    if block("text") != shown {
        if env::var("GUIDE").is_ok_and(|what| what == "write") {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/testing.md");
            fs::write(path, GUIDE.replace(block("text"), &shown)).unwrap();
        }
        panic!("the guide showed something else than:\n{shown}\nwhich is this in short:\n{all}");
    }

    // The seed that is shown is enough to see it again.
    let (_, seed) = shown.split_once("GREENROOM_SEED=").unwrap();
    let seed = seed.split(' ').next().unwrap();
    let replayed = failed_run("GREENROOM_SEED", seed);
    let mut shown = shown.lines().filter(|line| line.starts_with("   "));
    assert!(shown.all(|line| replayed.contains(line)), "{replayed}");
}

/// What is in the only block of this kind.
fn block(kind: &str) -> &'static str {
    let (_, from) = GUIDE.split_once(&format!("\n```{kind}\n")).unwrap();
    from.split_once("```\n").unwrap().0
}

/// What the test prints for the first seed whose trace shows, in few lines, how the seat is lost: that
/// of another may begin too late for it, as it has an end only.
fn told_run() -> String {
    let mut from = 0;
    loop {
        let output = failed_run("GREENROOM_SEEDS", &format!("{from}..20000"));
        if told(&output).is_some_and(|(from, to)| to - from < 30) {
            return output;
        }
        let seed = output.lines().find_map(|line| line.strip_prefix("seed "));
        let seed: u32 = seed.unwrap().split(' ').next().unwrap().parse().unwrap();
        from = seed + 1;
    }
}

/// What the test prints for the server with the bug, in a process of its own.
fn failed_run(variable: &str, seeds: &str) -> String {
    let mut test = Command::new(env::current_exe().unwrap());
    test.args(["every_seat_comes_back", "--exact", "--nocapture"])
        .env(WITH_BUG, "1")
        .env("CARGO_PKG_NAME", "seats")
        .env("RUST_BACKTRACE", "0")
        .env_remove("GREENROOM_SEEDS")
        .env_remove("GREENROOM_SEED")
        .env(variable, seeds);
    let output = test.output().unwrap();
    assert!(!output.status.success(), "the bug was not found");
    String::from_utf8(output.stderr).unwrap()
}

/// From where to where the trace tells of the connection whose seat is lost, if it does.
fn told(output: &str) -> Option<(usize, usize)> {
    let lines: Vec<&str> = output.lines().collect();
    let is_given = |line: &&str| line.contains("# Some(");
    let is_lost = |at: &usize| {
        let seat = lines[*at].split(['(', ')']).nth(1).unwrap();
        let back = format!("# {seat} is back");
        !lines[*at..].iter().any(|line| line.ends_with(&back))
    };
    let mut given = (0..lines.len()).filter(|at| is_given(&lines[*at]));
    let given = given.rfind(is_lost)?;
    let asked = |line: &&&str| line.ends_with("receives 5: \"take\\n\"");
    let connection = lines[..given].iter().rfind(asked)?;
    let connection = connection.split_whitespace().nth(2)?;
    let of_it = |line: &&str| line.split_whitespace().nth(2) == Some(connection);
    // The guest that was given the seat is that of this connection.
    let (_, guest) = lines[given].split_once(" for ")?;
    let ended = format!("Guest {guest} has ended");
    let ended = lines.iter().position(|line| line.contains(&ended))?;
    if !lines[..ended].last().is_some_and(of_it) {
        return None;
    }
    Some((
        lines.iter().position(of_it)?,
        lines.iter().rposition(of_it)?,
    ))
}

/// The panic, what happened to the connection whose seat is lost, and what to do.
fn shorten(output: &str, from: usize, to: usize) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let mut shown = String::new();
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with("thread '") {
            // Without the thread's number, which an older compiler does not tell.
            let (thread, rest) = line.split_once(" panicked").unwrap();
            let thread = thread.split(" (").next().unwrap();
            shown += &format!("{thread} panicked{rest}\n");
        } else if line.starts_with("   ") {
            if (from..=to).contains(&at) {
                shown += &format!("{line}\n");
            } else if !shown.ends_with("[...]\n") {
                shown += "[...]\n";
            }
        } else if !line.is_empty() && !line.starts_with("note: ") {
            let usual = line.replace("cargo test --release", "cargo test");
            shown += &format!("{usual}\n");
        }
    }
    shown
}

//! The example that closes who is too slow: each way to be slow, and what it says of it.

#[path = "util/process.rs"]
mod process;

use std::io::Write;

use process::Example;

fn example(args: &[&str]) -> Example {
    Example::start("idle_timeout", &[&["--pollers", "1"], args].concat())
}

/// Waits for what is said of the next end.
#[track_caller]
fn assert_ended(example: &Example, why: &str) {
    let line = example.line();
    assert!(line.starts_with("127.0.0.1:"), "{line:?}");
    assert!(
        line.contains(&format!(": {why} (")),
        "{why} is not in {line:?}"
    );
}

#[test]
fn who_says_nothing_is_told_silent() {
    let example = example(&["--first-bytes", "0.1"]);
    example.connect().expect_end();
    assert_ended(&example, "silent");
}

#[test]
fn who_says_no_more_is_told_idle() {
    let example = example(&["--idle", "0.2"]);
    let mut talker = example.connect();
    talker.say("hello");
    talker.expect("hello");
    talker.expect_end();
    assert_ended(&example, "idle");
}

#[test]
fn who_does_not_end_a_line_is_told_so() {
    let example = example(&["--line", "0.2"]);
    let mut talker = example.connect();
    talker.stream.get_mut().write_all(b"hel").unwrap();
    talker.expect_end();
    assert_ended(&example, "slow sender");
}

#[test]
fn who_is_slower_than_the_rate_is_told_so() {
    let example = example(&["--rate", "1000", "--line", "60"]);
    let mut talker = example.connect();
    talker.stream.get_mut().write_all(b"hel").unwrap();
    talker.expect_end();
    assert_ended(&example, "input rate");
}

#[test]
fn who_does_not_read_is_told_stuck_and_when_it_closes_not_flushed() {
    let stuck = example(&["--stuck", "0.3"]);
    let mut talker = stuck.connect();
    talker.say("fill");
    assert_ended(&stuck, "stuck reader");

    let closing = example(&["--flush", "0.3"]);
    let mut talker = closing.connect();
    talker.say("fill");
    talker.say("quit");
    assert_ended(&closing, "not flushed");
}

#[test]
fn who_quits_has_finished_and_the_server_ends_well() {
    let example = example(&[]);
    let mut talker = example.connect();
    talker.say("hello");
    talker.expect("hello");
    talker.say("quit");
    talker.expect_end();
    assert_ended(&example, "finished");
    example.signal("INT");
    drop(talker);
    assert_eq!(example.last_line(), "stopped after 1 connections");
}

//! The example of blocking work: what it serves, simulated and as a program of its own, and that work
//! of one connection does not hold up the others.

#[path = "util/process.rs"]
mod process;

#[allow(dead_code, reason = "its main and its options are not called")]
#[path = "../examples/blocking_work.rs"]
mod blocking_work;

use std::process::Command;
use std::time::{Duration, Instant};

use greenroom::System;
use greenroom::testing::{Fault, Faults, for_each_seed};
use process::{Example, program};

#[test]
fn a_ping_is_answered_while_work_is_under_way_on_the_same_poller() {
    let example = Example::start("blocking_work", &["--pollers", "1"]);
    let mut working = example.connect();
    let mut quick = example.connect();
    quick.say("ping");
    quick.expect("pong");
    working.say("ping");
    working.expect("pong");
    let asked = Instant::now();
    working.say("work 10000");
    working.say("ping");
    for _ in 0..20 {
        quick.say("ping");
        quick.expect("pong");
    }
    assert!(asked.elapsed() < Duration::from_secs(10), "it waited");
    quick.say("work 1");
    quick.expect("done 1");
}

#[test]
fn what_is_neither_is_told_what_there_is() {
    let example = Example::start("blocking_work", &["--inline"]);
    let mut talker = example.connect();
    for nonsense in ["pong", "work", "work -1", "work 10001", "work 1 2", ""] {
        talker.say(nonsense);
        talker.expect("ping, or work with 0 to 10000");
    }
    talker.say("work 1");
    talker.expect("done 1");
}

#[test]
fn it_measures_how_long_the_others_wait() {
    // Both figures are there, and it ends by itself.
    for args in [&["--inline"][..], &[]] {
        let output = Command::new(program("blocking_work"))
            .args(["--addr", "127.0.0.1:0", "--measure", "1"])
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        let mut lines = text.lines();
        for name in ["ping: ", "work 10: "] {
            let line = lines.next().unwrap_or_default();
            assert!(line.starts_with(name), "{text}");
            assert!(line.contains("p50") && line.contains("p99"), "{text}");
        }
    }
}

#[test]
fn by_seeds_each_line_has_one_answer_in_its_place_however_busy_the_pool() {
    for_each_seed(60, |simulation| {
        simulation.faults(Faults::harmless().with(Fault::Busy));
        let system = simulation.system(System::builder().pollers(1).workers(2, 1));
        blocking_work::serve(&system, "127.0.0.1:9000", false).unwrap();
        let clients: Vec<_> = (0..5)
            .map(|_| simulation.client("127.0.0.1:9000"))
            .collect();
        for client in &clients {
            client.send("ping\nwork 0\nping\nwork 0\nwork 0\nno\n");
        }
        for client in &clients {
            let mut line = || client.line(simulation);
            assert_eq!(line(), "pong");
            assert!(["done 0", "busy"].contains(&&*line()));
            assert_eq!(line(), "pong");
            assert!(["done 0", "busy"].contains(&&*line()));
            assert!(["done 0", "busy"].contains(&&*line()));
            assert_eq!(line(), "ping, or work with 0 to 10000");
        }
        // Who has work under way when the system stops is answered first.
        clients[0].send("work 0\n");
        let time = Duration::from_micros(simulation.random().below(100_000));
        simulation.run_for(time);
        simulation.finish(Duration::from_secs(60));
        let stats = system.stats();
        assert_eq!(stats.unclaimed_work, 0);
        assert_eq!(stats.closed, 5);
    });
}

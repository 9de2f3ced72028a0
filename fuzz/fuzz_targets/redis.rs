//! The redis example, all of it: what it says is whole replies, the same however the commands come.

#![no_main]

use std::time::Duration;

use greenroom::System;
use greenroom::testing::Simulation;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../../examples/redis_server/main.rs"]
mod redis_server;

const ADDR: &str = "127.0.0.1:9000";

/// What answers in another way each time: by the time, by chance, by an order that is nobody's, or when what was
/// published has come around. Of these only the number of replies is looked at.
const OTHERWISE: [&str; 13] = [
    "time", "ttl", "ex", "px", "info", "client", "random", "scan", "keys", "memory", "debug",
    "object", "publish",
];

fn run(pieces: &[&[u8]]) -> Vec<u8> {
    let mut simulation = Simulation::new(1);
    simulation.keep_trace(0);
    let system = simulation.system(System::builder().pollers(1));
    redis_server::serve(&system, ADDR, redis_server::limits()).expect("it listens");
    let client = simulation.client(ADDR);
    for piece in pieces {
        client.send(piece);
        simulation.run_for(Duration::from_micros(20));
    }
    client.half_close();
    let output = client.rest(&mut simulation).to_vec();
    simulation.finish(Duration::from_secs(60));
    output
}

/// The length of the reply at the beginning, of RESP2 or RESP3.
fn reply(bytes: &[u8]) -> usize {
    let line = bytes
        .windows(2)
        .position(|two| two == b"\r\n")
        .expect("a whole line");
    let text = std::str::from_utf8(&bytes[1..line]).unwrap_or("");
    let number = || {
        text.parse::<i64>()
            .unwrap_or_else(|_| panic!("no number: {text}"))
    };
    let mut at = line + 2;
    let parts = match bytes[0] {
        b'+' | b'-' | b'(' | b',' => 0,
        b':' => number() * 0,
        b'_' | b'#' => 0,
        b'$' | b'=' | b'!' => {
            if number() >= 0 {
                at += number() as usize + 2;
                assert_eq!(&bytes[at - 2..at], b"\r\n", "the end of a string");
            }
            0
        }
        b'*' | b'~' | b'>' => number(),
        b'%' | b'|' => number() * 2,
        kind => panic!("{:?} begins no reply", kind as char),
    };
    for _ in 0..parts {
        at += reply(&bytes[at..]);
    }
    at
}

/// How many replies there are. What was published comes when it comes, perhaps behind the end.
fn replies(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while !bytes.is_empty() {
        let published = [
            &b"*3\r\n$7\r\nmessage"[..],
            b"*4\r\n$8\r\npmessage",
            b">3\r\n$7\r\nmessage",
            b">4\r\n$8\r\npmessage",
        ];
        if !published.iter().any(|start| bytes.starts_with(start)) {
            count += 1;
        }
        bytes = &bytes[reply(bytes)..];
    }
    count
}

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let is_the_same = !OTHERWISE.iter().any(|word| text.contains(word));
    let mut runs = greenroom_fuzz::cuts(bytes)
        .into_iter()
        .map(|pieces| run(&pieces));
    let whole = runs.next().unwrap();
    let count = replies(&whole);
    for other in runs {
        if replies(&other) != count || (is_the_same && whole != other) {
            let [whole, other] = [&whole, &other].map(|bytes| bytes.escape_ascii());
            panic!("whole:\n{whole}\nin pieces:\n{other}");
        }
    }
});

//! Every rival hands over messages, wakes and keeps timers, and the samples say so.

use std::collections::BTreeSet;
use std::process::Command;

use greenroom_benches::samples::Samples;

#[test]
fn every_rival_is_measured_in_every_round() {
    let output = Command::new(env!("CARGO_BIN_EXE_peers"))
        .args(["messages", "--rounds", "2", "--millis", "1"])
        .output()
        .unwrap();
    let table = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{table}");
    let samples = Samples::parse_csv(&String::from_utf8(output.stdout).unwrap()).unwrap();
    assert!(samples.iter().all(|sample| sample.value > 0.0));
    let measured = |part: &str, metric: &str| {
        let servers: Vec<&str> = samples
            .iter()
            .filter(|sample| sample.part == part && sample.metric == metric)
            .map(|sample| &*sample.server)
            .collect();
        let distinct: BTreeSet<&str> = servers.iter().copied().collect();
        (servers.len(), distinct.into_iter().collect::<Vec<_>>())
    };

    let senders = [
        "actix",
        "crossbeam",
        "greenroom",
        "ractor",
        "tokio",
        "tokio bounded",
    ];
    // 8 and 32 bytes, 1, 2 and 4 senders, two rounds.
    assert_eq!(measured("messages", "ns"), (12 * 6, senders.to_vec()));
    assert_eq!(
        measured("messages", "per second"),
        (12 * 6, senders.to_vec())
    );
    let pairs = [
        "actix",
        "eventfd",
        "greenroom",
        "greenroom busy-poll",
        "ractor",
        "tokio",
    ];
    assert_eq!(measured("wake", "ns"), (2 * 6, pairs.to_vec()));
    let timers = ["binary heap", "greenroom", "greenroom direct", "tokio"];
    // Set and cancelled, and fired.
    assert_eq!(measured("timers", "ns"), (2 * 2 * 4, timers.to_vec()));
}

//! The Redis example simulated, on several pollers: what is published comes once and in order,
//! transactions are seen whole or not at all, and of those who watch a key one wins.
//!
//!     cargo test --test simulated_redis
//!     GREENROOM_SEEDS=10000 cargo test --release --test simulated_redis

#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/redis_server/main.rs"]
mod redis_server;
#[path = "util/weather.rs"]
mod weather;

use std::collections::BTreeMap;
use std::time::Duration;

use greenroom::testing::{Client, Simulation, for_each_seed};

use weather::{ADDR, Weather, secs};

/// Faults that change nothing but when things come; mailboxes that hold as few as two messages.
fn begin(sim: &mut Simulation) -> greenroom::System {
    let weather = if sim.random().one_in(2) {
        Weather::Calm
    } else {
        Weather::Harmless
    };
    let system = weather::system(sim, weather);
    redis_server::serve(&system, ADDR, redis_server::limits()).expect("it listens");
    system
}

/// Sends all of it, in pieces, with others' work in between.
fn send_in_pieces(sim: &mut Simulation, client: &Client, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = (1 + sim.random().below(200) as usize).min(rest.len());
        client.send(&rest[..len]);
        rest = &rest[len..];
        let others = Duration::from_micros(sim.random().below(300));
        sim.run_for(others);
    }
}

/// The parts of the next array of bulk strings and numbers, which may be a push.
fn array(sim: &mut Simulation, client: &Client) -> Vec<String> {
    let head = client.line(sim);
    let len = head
        .strip_prefix(['*', '>'])
        .and_then(|len| len.parse().ok());
    let len: usize = len.unwrap_or_else(|| panic!("{head:?} begins no array"));
    (0..len)
        .map(|_| {
            let line = client.line(sim);
            match line.strip_prefix('$') {
                Some("-1") => String::new(),
                Some(_) => client.line(sim),
                None => line,
            }
        })
        .collect()
}

#[test]
fn what_is_published_comes_once_and_in_order() {
    for_each_seed(60, |sim| {
        const EACH: usize = 40;
        let _system = begin(sim);
        let topics = [
            "SUBSCRIBE a",
            "SUBSCRIBE b",
            "PSUBSCRIBE *",
            "PSUBSCRIBE a*",
        ];
        let mut subscribers = Vec::new();
        for number in 0..sim.random().range(1..6) {
            let client = sim.client(ADDR);
            if sim.random().one_in(2) {
                client.send("HELLO 3\r\n");
                while client.line(sim) != "*0" {}
            }
            let mut joined = Vec::new();
            for topic in topics {
                if number == 0 || sim.random().one_in(2) {
                    client.send(format!("{topic}\r\n"));
                    let confirmed = array(sim, &client);
                    let (word, topic) = topic.split_once(' ').expect("two words");
                    assert_eq!(confirmed[0], word.to_lowercase());
                    joined.push(topic);
                    assert_eq!(
                        confirmed[1..],
                        [topic.to_owned(), format!(":{}", joined.len())]
                    );
                }
            }
            subscribers.push((client, joined));
        }
        let publishers: Vec<Client> = (0..3).map(|_| sim.client(ADDR)).collect();
        for number in 0..EACH {
            for (publisher, client) in publishers.iter().enumerate() {
                let channel = *sim.random().pick(&["a", "b", "ab"]);
                let is_in_transaction = sim.random().one_in(8);
                let publish = format!("PUBLISH {channel} {publisher}:{number}\r\n");
                let command = if is_in_transaction {
                    format!("MULTI\r\n{publish}EXEC\r\n")
                } else {
                    publish
                };
                send_in_pieces(sim, client, command.as_bytes());
            }
        }
        // How many each of them was told, in all.
        let mut told = 0;
        for client in &publishers {
            let mut answered = 0;
            while answered < EACH {
                let line = client.line(sim);
                if let Some(count) = line.strip_prefix(':') {
                    told += count.parse::<usize>().expect("a number");
                    answered += 1;
                }
            }
        }
        sim.run_for(secs(5));
        let mut came = 0;
        for (client, joined) in &subscribers {
            client.send("RESET\r\n");
            let mut last: BTreeMap<(String, String, String), usize> = BTreeMap::new();
            loop {
                let head = client.line(sim);
                if head == "+RESET" {
                    break;
                }
                let len: usize = head[1..].parse().expect("a push");
                let parts: Vec<String> = (0..len)
                    .map(|_| {
                        client.line(sim);
                        client.line(sim)
                    })
                    .collect();
                came += 1;
                let (topic, text) = (&parts[1], &parts[len - 1]);
                assert!(joined.contains(&topic.as_str()), "{parts:?}");
                let (publisher, number) = text.split_once(':').expect("two parts");
                let number: usize = number.parse().expect("a number");
                // One publisher's messages of one channel or pattern in its order, none twice.
                let of = (parts[0].clone(), topic.clone(), publisher.to_owned());
                let before = last.insert(of, number);
                assert!(before < Some(number), "{parts:?} behind {before:?}");
            }
        }
        assert_eq!(
            came, told,
            "messages that came, and those that PUBLISH counted"
        );
        sim.finish(secs(10));
    });
}

#[test]
fn nothing_is_shown_behind_the_end_of_a_subscription() {
    for_each_seed(60, |sim| {
        let _system = begin(sim);
        let (publisher, subscriber) = (sim.client(ADDR), sim.client(ADDR));
        let mut number = 0;
        for _ in 0..sim.random().range(2..8) {
            subscriber.send("SUBSCRIBE a\r\n");
            assert_eq!(array(sim, &subscriber), ["subscribe", "a", ":1"]);
            let first = number;
            for _ in 0..sim.random().below(20) {
                publisher.send(format!("PUBLISH a {number}\r\n"));
                number += 1;
            }
            let others = Duration::from_micros(sim.random().below(2_000));
            sim.run_for(others);
            subscriber.send("UNSUBSCRIBE a\r\nECHO end\r\n");
            let mut next = first;
            loop {
                let parts = array(sim, &subscriber);
                if parts[0] == "unsubscribe" {
                    break;
                }
                // None of an earlier subscription, and none left out.
                assert_eq!(parts, ["message", "a", &next.to_string()]);
                next += 1;
            }
            assert_eq!(subscriber.line(sim), "$3");
            assert_eq!(subscriber.line(sim), "end");
            // What is still on its way is for nobody, not even who subscribes again: unless the
            // publisher's command itself comes later.
            publisher.send("PING\r\n");
            while publisher.line(sim) != "+PONG" {}
        }
        sim.finish(secs(10));
    });
}

#[test]
fn transactions_are_seen_whole_or_not_at_all() {
    for_each_seed(60, |sim| {
        const ACCOUNTS: u64 = 5;
        let _system = begin(sim);
        let clients: Vec<Client> = (0..4).map(|_| sim.client(ADDR)).collect();
        let reader = sim.client(ADDR);
        let mget = (0..ACCOUNTS)
            .map(|at| format!(" k{at}"))
            .collect::<String>();
        let mget = format!("MGET{mget}\r\n");
        let set = (0..ACCOUNTS)
            .map(|at| format!(" k{at} 100"))
            .collect::<String>();
        reader.send(format!("MSET{set}\r\n"));
        while reader.line(sim) != "+OK" {}
        for _ in 0..30 {
            for client in &clients {
                let (from, to) = (sim.random().below(ACCOUNTS), sim.random().below(ACCOUNTS));
                let by = sim.random().below(50);
                let transfer =
                    format!("MULTI\r\nDECRBY k{from} {by}\r\nINCRBY k{to} {by}\r\nEXEC\r\n");
                send_in_pieces(sim, client, transfer.as_bytes());
            }
            reader.send(&mget);
            let sum: i64 = array(sim, &reader)
                .iter()
                .map(|balance| balance.parse::<i64>().expect("a number"))
                .sum();
            assert_eq!(sum, 100 * ACCOUNTS as i64);
        }
        sim.finish(secs(10));
    });
}

#[test]
fn of_those_who_watch_a_key_and_change_it_one_wins() {
    for_each_seed(60, |sim| {
        let _system = begin(sim);
        let clients: Vec<Client> = (0..4).map(|_| sim.client(ADDR)).collect();
        for round in 0..10 {
            for client in &clients {
                client.send("WATCH counter\r\nGET counter\r\n");
                assert_eq!(client.line(sim), "+OK");
                if round > 0 {
                    assert!(client.line(sim).starts_with('$'));
                    assert_eq!(client.line(sim), round.to_string());
                } else {
                    assert_eq!(client.line(sim), "$-1");
                }
            }
            for client in &clients {
                let set = format!("MULTI\r\nSET counter {}\r\nEXEC\r\n", round + 1);
                send_in_pieces(sim, client, set.as_bytes());
            }
            let mut won = 0;
            for client in &clients {
                assert_eq!(client.line(sim), "+OK");
                assert_eq!(client.line(sim), "+QUEUED");
                match &*client.line(sim) {
                    "*-1" => {}
                    "*1" => {
                        assert_eq!(client.line(sim), "+OK");
                        won += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(won, 1);
        }
        sim.finish(secs(10));
    });
}

//! The examples `reuseport`, `many_listeners` and `connection_pool`, as somebody uses them.

#[path = "util/process.rs"]
mod process;

use std::io::BufReader;
use std::os::unix::net::UnixStream;

use process::{DEADLINE, Example, Talker};

/// On which poller a connection is.
fn told(talker: &mut Talker<std::net::TcpStream>) -> usize {
    let line = talker.line();
    let number = line.strip_prefix("served by poller ");
    number.and_then(|number| number.parse().ok()).expect(&line)
}

#[test]
fn reuseport_tells_which_poller_serves_and_echoes() {
    for balance in [
        "per-poller",
        "round-robin",
        "least-connections",
        "source-hash",
        "own-rule",
    ] {
        let example = Example::start("reuseport", &["--pollers", "2", "--balance", balance]);
        let mut counts = [0; 2];
        let mut talkers: Vec<_> = (0..32).map(|_| example.connect()).collect();
        for talker in &mut talkers {
            counts[told(talker)] += 1;
            talker.say("hello");
            talker.expect("hello");
        }
        match balance {
            "round-robin" | "least-connections" => assert_eq!(counts, [16, 16], "{balance}"),
            "source-hash" => assert!(counts.contains(&32), "one address: {counts:?}"),
            _ => assert!(counts[0] > 0 && counts[1] > 0, "{balance}: {counts:?}"),
        }
        drop(talkers);
        example.signal("TERM");
        assert_eq!(example.last_line(), "stopped after 32 connections");
    }
}

#[test]
fn many_listeners_are_paused_resumed_and_closed_by_command() {
    let path = std::env::temp_dir().join(format!("greenroom-many-{}", std::process::id()));
    let control = format!("unix:{}", path.display());
    let example = Example::start("many_listeners", &["--control", &control]);
    let (_, rest) = example
        .start_line
        .split_once("; nc ")
        .expect("a second address");
    let (shout, _) = rest.split_once(" for capitals").expect("what it is for");
    let shout = shout.replace(' ', ":");
    let mut shout = Talker::connect(shout.parse().expect("an address"));
    shout.say("louder");
    shout.expect("LOUDER");

    let unix = UnixStream::connect(&path).expect("the control socket");
    unix.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut control = Talker {
        stream: BufReader::new(unix),
    };
    let mut echo = example.connect();
    echo.say("before");
    echo.expect("before");
    control.say("pause");
    control.expect("paused, 1 connections");
    let mut waits = example.connect();
    waits.say("after");
    echo.say("still here");
    echo.expect("still here");
    control.say("status");
    control.expect("paused, 1 connections");
    control.say("resume");
    control.expect("open, 1 connections");
    waits.expect("after");
    control.say("what?");
    control.expect("pause, resume, close or status");

    control.say("close");
    control.line();
    loop {
        control.say("status");
        if control.line() == "closed, 2 connections" {
            break;
        }
    }
    assert!(std::net::TcpStream::connect(example.socket_addr()).is_err());
    waits.say("connections go on");
    waits.expect("connections go on");
    example.signal("TERM");
    for mut talker in [shout, echo, waits] {
        talker.expect_end();
    }
    control.expect_end();
    drop(control);
    assert_eq!(example.last_line(), "stopped after 4 connections");
    assert!(!path.exists());
}

#[test]
fn connection_pool_answers_many_clients_over_few_connections() {
    let example = Example::start("connection_pool", &["--max", "2", "--timeout", "30000"]);
    let mut clients: Vec<_> = (0..10).map(|_| example.connect()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.say(format!("{round}{number}abc"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let line = client.line();
            let (connection, answer) = line.split_once(": ").expect(&line);
            assert!(["1", "2"].contains(&connection), "{line}");
            assert_eq!(answer, format!("cba{number}{round}"));
        }
    }
    clients[0].say("counts");
    let line = clients[0].line();
    assert!(
        line.contains(", 0 lent, 0 waiting; 2 made, 0 failed, 0 broken"),
        "{line}"
    );
    drop(clients);
    example.signal("TERM");
    assert_eq!(example.last_line(), "stopped after 10 connections");
}

#[test]
fn connection_pool_says_which_size_is_none() {
    let output = std::process::Command::new(process::program("connection_pool"))
        .args(["--min", "3", "--max", "2"])
        .output()
        .expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("--min"),
        "{error}"
    );
}

#[test]
fn connection_pool_says_when_there_is_no_backend() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = nobody.local_addr().expect("its address").to_string();
    drop(nobody);
    let example = Example::start("connection_pool", &["--backend", &addr, "--timeout", "100"]);
    let mut client = example.connect();
    client.say("hello?");
    client.expect("call: no answer in time");
    client.say("counts");
    let line = client.line();
    // It may be trying again at that moment.
    let (_, counts) = line.split_once(" connecting, ").expect(&line);
    assert!(
        counts.starts_with("0 idle, 0 lent, 0 waiting; 0 made, "),
        "{line}"
    );
}

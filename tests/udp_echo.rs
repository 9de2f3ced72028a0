//! The example `udp_echo` as a user meets it.

#[path = "util/process.rs"]
mod process;

use std::net::UdpSocket;
use std::process::{Command, Output};

use process::{DEADLINE, Example, program};

fn client() -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

#[test]
fn it_sends_back_what_it_gets_and_counts_it() {
    for signal in ["INT", "TERM"] {
        let example = Example::start("udp_echo", &["--pollers", "2"]);
        let addr = example.socket_addr();
        let command = format!("try: nc -u {} {}", addr.ip(), addr.port());
        assert!(
            example.start_line.contains(&command),
            "{:?}",
            example.start_line
        );
        for _ in 0..5 {
            let client = client();
            client.send_to(b"hello", addr).unwrap();
            let mut buffer = [0; 10];
            assert_eq!(client.recv_from(&mut buffer).unwrap(), (5, addr));
            assert_eq!(&buffer[..5], b"hello");
        }
        example.signal(signal);
        assert_eq!(example.last_line(), "stopped after 5 datagrams");
    }
}

fn run(args: &[&str]) -> Output {
    let output = Command::new(program("udp_echo")).args(args).output();
    output.expect("it starts")
}

/// Its error is one line that says all of `needles`.
#[track_caller]
fn assert_fails(args: &[&str], needles: &[&str]) {
    let output = run(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output
            .status
            .code()
            .is_some_and(|code| code != 0 && code != 101),
        "{error}"
    );
    assert!(
        !error.contains("Os {") && !error.contains("Custom {"),
        "{error}"
    );
    for needle in needles {
        assert!(error.contains(needle), "{needle:?} is not in {error:?}");
    }
}

#[test]
fn its_errors_are_sentences() {
    let taken = client();
    let addr = taken.local_addr().unwrap().to_string();
    assert_fails(&["--addr", &addr], &[&addr, "in use"]);
    assert_fails(&["--addr", "nonsense"], &["nonsense"]);
    assert_fails(&["--addr", "192.0.2.1:0"], &["192.0.2.1"]);
    assert_fails(&["--pollers", "0"], &["--pollers"]);
    assert_fails(&["--group", "nonsense"], &["--group"]);
    let unicast = ["--addr", "0.0.0.0:0", "--group", "10.0.0.1"];
    assert_fails(&unicast, &["10.0.0.1", "not a multicast address"]);
    assert_fails(&["--interface", "lo"], &["--group"]);
    let help = run(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for option in ["--addr", "--pollers", "--group", "--interface", "--help"] {
        assert!(help.contains(option), "{option}: {help}");
    }
}

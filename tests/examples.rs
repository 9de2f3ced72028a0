//! Each example as a user meets it: its help, its start line, a few words with it, its end, and its
//! errors.

#[path = "util/process.rs"]
mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};

use process::{DEADLINE, Example, Talker, program};

/// Every example, and its options beside the common ones.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("echo", &["--unix"]),
    ("chat_room", &["--http", "--tls", "--rate"]),
    ("push", &["--every"]),
    ("protobuf", &["--client"]),
    ("connection_limit", &["--max", "--by-listener"]),
    ("http_plaintext", &[]),
    ("http_hello", &[]),
    ("redis_server", &[]),
    ("blocking_work", &["--inline", "--threads", "--measure"]),
    ("reuseport", &["--balance", "own-rule"]),
    ("many_listeners", &["--shout", "--control"]),
    (
        "connection_pool",
        &["--backend", "--min", "--max", "--timeout"],
    ),
    (
        "idle_timeout",
        &[
            "--first-bytes",
            "--idle",
            "--line",
            "--rate",
            "--stuck",
            "--flush",
        ],
    ),
    ("websocket_echo", &["--tls", "--connect"]),
    ("tls_echo", &["--cert", "--key", "--client", "--ca"]),
];

/// What is talked to in another way than by plain lines has tests of its own: tests/tls_echo.rs,
/// tests/protobuf.rs.
const NOT_PLAIN: &[&str] = &["tls_echo", "protobuf"];

/// Runs an example that is expected to end by itself.
fn run(name: &str, args: &[&str]) -> Output {
    Command::new(program(name))
        .args(args)
        .output()
        .expect("it starts")
}

/// Its error is one line that says all of `needles`.
fn assert_fails(output: &Output, needles: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it should have failed");
    assert!(
        output.status.code().is_some_and(|code| code != 101),
        "no panic: {error}"
    );
    assert!(
        !error.contains("Os {") && !error.contains("Custom {"),
        "a sentence, not a structure: {error}"
    );
    for needle in needles {
        assert!(error.contains(needle), "{needle:?} is not in {error:?}");
    }
}

#[test]
fn help_names_the_options() {
    for (name, options) in EXAMPLES.iter().copied() {
        let output = run(name, &["--help"]);
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}");
        for option in ["--help", "--addr", "127.0.0.1:9000", "--pollers"]
            .iter()
            .chain(options)
        {
            assert!(help.contains(option), "{name}: {option} is not in {help}");
        }
    }
}

#[test]
fn a_bad_address_is_a_clear_error() {
    for (name, _) in EXAMPLES.iter().copied() {
        assert_fails(&run(name, &["--addr", "nonsense"]), &["nonsense"]);
        assert_fails(&run(name, &["--addr", "127.0.0.1:99999"]), &["99999"]);
        // 192.0.2.0/24 is for documentation, so nobody's own.
        assert_fails(&run(name, &["--addr", "192.0.2.1:0"]), &["192.0.2.1"]);
        assert_fails(&run(name, &["--pollers", "0"]), &["--pollers"]);
    }
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = holder.local_addr().expect("its address").to_string();
    for (name, _) in EXAMPLES.iter().copied() {
        assert_fails(&run(name, &["--addr", &addr]), &[&addr, "in use"]);
    }
}

#[test]
fn each_ends_at_a_signal_with_the_count_of_connections() {
    let plain = EXAMPLES
        .iter()
        .filter(|(name, _)| !NOT_PLAIN.contains(name));
    for (name, _) in plain.copied() {
        for signal in ["INT", "TERM"] {
            let options: &[&str] = match name {
                "push" => &["--every", "10"],
                "chat_room" => &["--http", "127.0.0.1:0"],
                _ => &[],
            };
            let example = Example::start(name, &[&["--pollers", "2"], options].concat());
            let addr = example.socket_addr();
            let command = match name {
                "websocket_echo" => format!("try: python3 -m websockets ws://{addr}/"),
                _ => format!("try: nc {} {}", addr.ip(), addr.port()),
            };
            assert!(
                example.start_line.contains(&command),
                "{name}: {:?}",
                example.start_line
            );
            for _ in 0..2 {
                speak(name, &mut example.connect());
            }
            let mut there = example.connect();
            speak(name, &mut there);
            example.signal(signal);
            // A farewell need not be text.
            let rest = there.stream.read_to_end(&mut Vec::new());
            rest.expect("an orderly end, not a reset");
            drop(there);
            assert_eq!(example.last_line(), "stopped after 3 connections", "{name}");
        }
    }
}

/// A first exchange with each of them, after which the connection has certainly been accepted.
fn speak(name: &str, talker: &mut Talker<TcpStream>) {
    match name {
        "echo" | "idle_timeout" => {
            talker.say("hello");
            talker.expect("hello");
        }
        "chat_room" => {
            talker.expect("* welcome to the chat room");
        }
        "push" => {
            talker.line();
        }
        "connection_limit" => {
            // Full, if the two before are still counted.
            let line = talker.line();
            assert!(
                line.starts_with("welcome, you are ")
                    || line.starts_with("full: there is room for 2"),
                "{line:?}"
            );
        }
        "http_plaintext" => {
            talker.say("HEAD / HTTP/1.1\nHost: test\n");
            talker.expect("HTTP/1.1 200 OK\r");
            talker.lines_until("\r");
        }
        "http_hello" => {
            talker.say("HEAD / HTTP/1.1\r\nHost: test\r\n\r");
            talker.expect("HTTP/1.1 200 OK\r");
            talker.lines_until("\r");
        }
        "redis_server" => {
            talker.say("PING");
            talker.expect("+PONG\r");
        }
        "blocking_work" => {
            talker.say("ping");
            talker.expect("pong");
        }
        "reuseport" => {
            let line = talker.line();
            assert!(line.starts_with("served by poller "), "{line:?}");
        }
        "many_listeners" => {
            talker.say("hello");
            talker.expect("hello");
        }
        "connection_pool" => {
            talker.say("hello");
            talker.expect("1: olleh");
        }
        "websocket_echo" => {
            talker
                .say("GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r");
            talker.say(
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r",
            );
            talker.expect("HTTP/1.1 101 Switching Protocols\r");
            talker.lines_until("\r");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_second_signal_is_harmless() {
    let example = Example::start("echo", &[]);
    // It does not close, so the server's close lingers until its deadline, or until the second
    // signal.
    let mut there = example.connect();
    there.say("hello");
    there.expect("hello");
    example.signal("INT");
    there.expect_end();
    example.signal("TERM");
    assert_eq!(example.last_line(), "stopped after 1 connections");
}

/// `echo | tee log`, and Ctrl-C: it goes to both.
#[test]
fn one_whose_last_line_nobody_reads_ends_as_well() {
    for name in ["echo", "idle_timeout", "udp_echo"] {
        let mut child = Command::new(program(name))
            .args(["--addr", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut output = BufReader::new(child.stdout.take().expect("its output is piped"));
        output
            .read_line(&mut String::new())
            .expect("its start line");
        drop(output);
        let signal = format!("kill -INT {}", child.id());
        let signal = Command::new("sh").args(["-c", &signal]).status();
        assert!(signal.expect("sh starts").success());
        let status = child.wait().expect("it can be waited for");
        assert_eq!(status.code(), Some(0), "{name}");
    }
}

#[test]
fn echo_listens_on_a_unix_socket_and_removes_it() {
    let path = std::env::temp_dir().join(format!("greenroom-echo-{}.sock", std::process::id()));
    let path_text = path.to_str().expect("a path in UTF-8");
    for args in [
        ["--unix", path_text],
        ["--addr", &format!("unix:{path_text}")],
    ] {
        let example = Example::start_with("echo", &args);
        assert!(
            example
                .start_line
                .contains(&format!("try: nc -U {path_text}")),
            "{:?}",
            example.start_line
        );
        let stream = UnixStream::connect(&path).expect("it accepts");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a timeout can be set");
        let mut talker = Talker {
            stream: BufReader::new(stream),
        };
        talker.say("hello");
        talker.expect("hello");
        assert_fails(&run("echo", &["--unix", path_text]), &[path_text]);
        example.signal("INT");
        talker.expect_end();
        drop(talker);
        // The second is the other one's question whether anybody answers there.
        assert_eq!(example.last_line(), "stopped after 2 connections");
        assert!(!path.exists(), "the socket's file is still there");
    }
    assert_fails(
        &run("echo", &["--unix", "/nowhere/at/all.sock"]),
        &["/nowhere/at/all.sock"],
    );
}

#[test]
fn pushed_sequence_numbers_ascend_by_one_for_all() {
    let push = Example::start("push", &["--every", "5", "--pollers", "2"]);
    let mut clients = [push.connect(), push.connect()];
    for client in &mut clients {
        let first = sequence_number(&client.line());
        for step in 1..=50 {
            assert_eq!(sequence_number(&client.line()), first + step);
        }
    }
    drop(clients);
    push.signal("INT");
    assert_eq!(push.last_line(), "stopped after 2 connections");
}

#[test]
fn the_lines_of_clients_reach_all_in_each_senders_order_and_none_is_lost() {
    // So many at once, and so short, that the broadcaster's mailbox is full again and again.
    const LINES: usize = 20_000;
    let push = Example::start("push", &["--every", "0", "--pollers", "1"]);
    let mut clients: Vec<_> = (0..6).map(|_| push.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        // It is a member by the time that it has its own line.
        client.say(format!("here is {number}"));
        client.lines_until(&format!("here is {number}"));
    }
    for client in &mut clients[..5] {
        client.lines_until("here is 5");
    }
    // Each sends four letters of its own, in turn.
    let letter = |sender: usize, line: usize| b'A' + (4 * sender + line % 4) as u8;
    let senders = clients.len();
    std::thread::scope(|scope| {
        for (sender, client) in clients.iter_mut().enumerate() {
            let mut stream = client
                .stream
                .get_ref()
                .try_clone()
                .expect("a second handle");
            let lines: Vec<u8> = (0..LINES)
                .flat_map(|line| [letter(sender, line), b'\n'])
                .collect();
            // From another thread: what is not read meanwhile would stop the server, and this in
            // turn.
            scope.spawn(move || stream.write_all(&lines).expect("it takes the lines"));
            scope.spawn(move || {
                let mut received = vec![0; senders];
                for _ in 0..LINES * senders {
                    let line = client.line();
                    let sender = usize::from(line.as_bytes()[0] - b'A') / 4;
                    assert_eq!(line.as_bytes(), [letter(sender, received[sender])]);
                    received[sender] += 1;
                }
                assert_eq!(received, vec![LINES; senders]);
            });
        }
    });
    // Without an end, a line is kept up to its bound, and no further.
    clients[1].say_bytes(&[b'x'; 4097]);
    clients[1].expect_end();
    drop(clients);
    push.signal("INT");
    assert_eq!(push.last_line(), "stopped after 6 connections");
}

fn sequence_number(line: &str) -> u64 {
    let (sequence, time) = line.split_once(' ').expect("a number and a time");
    let (seconds, ms) = time.split_once('.').expect("seconds and milliseconds");
    assert!(seconds.len() >= 10 && ms.len() == 3, "{time}");
    sequence.parse().expect("a number")
}

#[test]
fn a_broadcaster_refuses_those_past_the_limit() {
    refuses_those_past_the_limit(&[], |place| format!("welcome, you are {place} here"));
}

#[test]
fn a_listener_refuses_those_past_the_limit() {
    refuses_those_past_the_limit(&["--by-listener"], |_place| "welcome".to_owned());
}

fn refuses_those_past_the_limit(args: &[&str], welcome: fn(usize) -> String) {
    const FULL: &str = "full: there is room for 3 at a time, come back later";
    let example = Example::start(
        "connection_limit",
        &[&["--max", "3", "--pollers", "2"], args].concat(),
    );
    let mut inside = Vec::new();
    for place in 1..=3 {
        let mut talker = example.connect();
        talker.expect(welcome(place));
        inside.push(talker);
    }
    for _ in 0..10 {
        let mut refused = example.connect();
        // May be refused before this arrives; the line arrives all the same.
        let _ = refused.stream.get_mut().write_all(b"let me in\n");
        refused.expect(FULL);
        refused.expect_end();
    }
    for talker in &mut inside {
        talker.say("hello");
        talker.expect("hello");
    }
    drop(inside.pop());
    // The place is free when the server has seen the end: until then it says full.
    loop {
        let mut talker = example.connect();
        match talker.line() {
            line if line == FULL => talker.expect_end(),
            line => {
                assert_eq!(line, welcome(3));
                talker.say("hello");
                talker.expect("hello");
                break;
            }
        }
    }
}

#[test]
fn nothing_waits_for_a_client_that_connects_and_says_nothing() {
    let example = Example::start("echo", &["--pollers", "1"]);
    let silent: Vec<_> = (0..50).map(|_| example.connect()).collect();
    let mut talker = example.connect();
    talker.say("hello");
    talker.expect("hello");
    talker.shutdown_write();
    talker.expect_end();
    drop((silent, talker));
    example.signal("TERM");
    assert_eq!(example.last_line(), "stopped after 51 connections");
}

/// One of them speaks to the other: what the client is told it sends back.
#[test]
fn websocket_echo_is_a_client_too() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = server.local_addr().expect("its address");
    let url = format!("ws://{addr}/chat?room=1");
    let client = Command::new(program("websocket_echo"))
        .args(["--connect", &url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (stream, _) = server.accept().expect("it connects");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time");
    let mut stream = BufReader::new(stream);
    let mut key = String::new();
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).expect("a request");
        if let Some(sent) = line.strip_prefix("Sec-WebSocket-Key: ") {
            key = sent.trim().to_owned();
        }
    }
    // A server of the crate's says what the answer is to be.
    let example = Example::start("websocket_echo", &[]);
    let mut asked = TcpStream::connect(example.socket_addr()).expect("it listens");
    write!(
        asked,
        "GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    .expect("it reads");
    let mut asked = BufReader::new(asked);
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        asked.read_line(&mut answer).expect("an answer");
    }
    let mut bytes = answer.into_bytes();
    bytes.extend(b"\x81\x05hello");
    stream.get_mut().write_all(&bytes).expect("it reads");
    let mut frame = [0; 11];
    stream.read_exact(&mut frame).expect("an echo");
    let [first, second, mask @ .., a, b, c, d, e] = frame;
    let echo: Vec<u8> = [a, b, c, d, e]
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    assert_eq!((first, second, &echo[..]), (0x81, 0x85, &b"hello"[..]));
    stream
        .get_mut()
        .write_all(b"\x88\x02\x03\xe8")
        .expect("it reads");
    let mut frame = [0; 8];
    stream.read_exact(&mut frame).expect("its close");
    assert_eq!(frame[..2], [0x88, 0x82]);
    drop(stream);
    let output = client.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
}

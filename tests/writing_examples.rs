//! The examples about writing, as a user meets them: `send_with_completion`, `send_from_threads`,
//! `backpressure`, `length_prefixed` and `file_server`.

#[path = "util/process.rs"]
mod process;
#[path = "util/temp_dir.rs"]
mod temp_dir;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use process::{DEADLINE, Example, program};
use temp_dir::TempDir;

const EXAMPLES: [(&str, &[&str]); 5] = [
    ("send_with_completion", &[]),
    ("send_from_threads", &["--threads", "--every", "--bound"]),
    ("backpressure", &["--policy", "--rate", "--max", "--look"]),
    ("length_prefixed", &["--client"]),
    ("file_server", &["--dir", "--rate"]),
];

#[test]
fn help_names_the_options_and_errors_are_sentences() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (name, options) in EXAMPLES {
        let run = |args: &[&str]| Command::new(program(name)).args(args).output().unwrap();
        let help = run(&["--help"]);
        let help = String::from_utf8_lossy(&help.stdout);
        for option in ["--addr", "127.0.0.1:9000", "--pollers"]
            .iter()
            .chain(options)
        {
            assert!(help.contains(option), "{name}: {option} is not in {help}");
        }
        for (args, needle) in [
            (["--addr", "nonsense"], "nonsense"),
            (["--addr", &taken], "in use"),
            (["--pollers", "0"], "--pollers"),
        ] {
            let output = run(&args);
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(
                output
                    .status
                    .code()
                    .is_some_and(|code| code != 0 && code != 101)
            );
            assert!(
                error.contains(needle) && !error.contains("Os {"),
                "{name}: {error}"
            );
        }
    }
    for no_directory in ["/nowhere/at/all", "/dev/null"] {
        let output = Command::new(program("file_server"))
            .args(["--dir", no_directory])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        let expected = format!("--dir {no_directory}: ");
        assert!(error.contains(&expected) && !output.status.success());
    }
}

#[test]
fn each_ends_at_a_signal_with_the_count_of_connections() {
    for (name, _) in EXAMPLES {
        let example = Example::start(name, &["--pollers", "1"]);
        let clients = [example.connect(), example.connect()];
        example.signal("INT");
        // Who has all leaves: a close waits for that.
        for mut client in clients {
            io::copy(&mut client.stream, &mut io::sink()).expect("an orderly end");
        }
        assert_eq!(example.last_line(), "stopped after 2 connections", "{name}");
    }
}

// ---- send_with_completion -----------------------------------------------------------------------

#[test]
fn as_many_kib_come_as_were_asked_for_and_then_word_of_it() {
    let example = Example::start("send_with_completion", &["--pollers", "1"]);
    let mut talker = example.connect();
    for kib in [1, 15, 16, 17, 3000] {
        talker.say(kib.to_string());
        let mut left = kib << 10;
        while left > 0 {
            left -= talker.line().len() + 1;
        }
        let word = talker.line();
        assert!(
            word.starts_with(&format!("{} bytes taken in ", kib << 10)),
            "{word}"
        );
    }
    for bad in ["0", "-1", "x", "1048577"] {
        talker.say(bad);
        talker.expect("say how many KiB, from 1 to 1048576");
    }
    // One that asks and half-closes gets all.
    talker.say("100");
    talker.shutdown_write();
    let lines = talker.lines_until_end();
    let bytes: usize = lines[..lines.len() - 1]
        .iter()
        .map(|line| line.len() + 1)
        .sum();
    assert_eq!(bytes, 100 << 10);
}

#[test]
fn however_much_is_asked_for_one_piece_is_held() {
    let example = Example::start("send_with_completion", &["--pollers", "1"]);
    let mut talkers: Vec<_> = (0..20).map(|_| example.connect()).collect();
    for talker in &mut talkers {
        talker.say("1");
        talker.line();
        talker.line();
    }
    let before = example.resident();
    for talker in &mut talkers {
        talker.say("1000000");
        // It has begun; then nobody reads any more.
        talker.line();
    }
    let mut other = example.connect();
    other.say("100");
    other.shutdown_write();
    other.lines_until_end();
    let taken = example.resident().saturating_sub(before);
    assert!(taken < 4 << 20, "{taken} bytes for 20 GB");
}

// ---- send_from_threads --------------------------------------------------------------------------

#[test]
fn the_lines_of_each_thread_arrive_in_order() {
    let args = ["--threads", "3", "--every", "100", "--pollers", "2"];
    let example = Example::start("send_from_threads", &args);
    let mut talkers = [example.connect(), example.connect()];
    for talker in &mut talkers {
        let mut last = [0_u64; 3];
        for _ in 0..300 {
            let line = talker.line();
            let words: Vec<&str> = line.split(' ').collect();
            let ["thread", thread, "line", number] = words[..] else {
                panic!("{line}")
            };
            let (thread, number): (usize, u64) = (thread.parse().unwrap(), number.parse().unwrap());
            assert!(
                last[thread] == 0 || number == last[thread] + 1,
                "{line} after {last:?}"
            );
            last[thread] = number;
        }
    }
}

#[test]
fn what_comes_back_full_is_counted() {
    let args = [
        "--threads",
        "8",
        "--every",
        "0",
        "--bound",
        "2",
        "--pollers",
        "1",
    ];
    let example = Example::start("send_from_threads", &args);
    let mut talker = example.connect();
    talker.line();
    let full = example.until_line(|line| {
        let (sent, rest) = line.split_once(" sent, ")?;
        let (full, _) = rest.split_once(" came back full, ")?;
        let (sent, full): (u64, u64) = (sent.parse().ok()?, full.parse().ok()?);
        (sent > 0 && full > 0).then_some(full)
    });
    assert!(full > 0);
}

// ---- backpressure -------------------------------------------------------------------------------

/// What the server says of a client that reads nothing: bytes that wait, writes dropped, and
/// replaced.
fn watch(policy: &str, enough: impl Fn([u64; 3]) -> bool) -> Example {
    let args = [
        "--policy", policy, "--look", "20", "--max", "65536", "--rate", "2000000",
    ];
    let example = Example::start("backpressure", &args);
    let mut reader = example.connect();
    let silent = example.connect();
    let peer = silent.stream.get_ref().local_addr().unwrap().to_string();
    example.until_line(|line| {
        let (queued, rest) = line.split_once(" bytes wait for ")?;
        let (of, rest) = rest.split_once("; ")?;
        let (dropped, rest) = rest.split_once(" writes dropped, ")?;
        let replaced = rest.strip_suffix(" replaced")?;
        let numbers = [queued, dropped, replaced].map(|number| number.parse().unwrap());
        assert!(numbers[0] <= 2 * 65536, "{line}");
        (of == peer && enough(numbers)).then_some(())
    });
    // A reader that keeps up is none the worse.
    let first: u64 = number_of(&reader.line());
    if policy != "latest" {
        assert_eq!(number_of(&reader.line()), first + 1);
    }
    example
}

fn number_of(line: &str) -> u64 {
    let number = line.trim_start().split(' ').next().unwrap();
    number.parse().unwrap()
}

#[test]
fn what_waits_for_a_slow_client_is_seen_and_what_the_policy_makes_of_it() {
    watch("drop-newest", |[queued, dropped, _]| {
        queued > 50_000 && dropped > 100
    });
    watch("drop-oldest", |[queued, dropped, _]| {
        queued > 10_000 && dropped > 100
    });
    watch("latest", |[queued, dropped, replaced]| {
        queued > 1000 && dropped == 0 && replaced > 100
    });
}

#[test]
fn a_slow_client_is_seen_to_go_where_the_policy_says_so() {
    let args = [
        "--policy", "close", "--look", "20", "--max", "65536", "--rate", "2000000",
    ];
    let example = Example::start("backpressure", &args);
    let silent = example.connect();
    let peer = silent.stream.get_ref().local_addr().unwrap().to_string();
    let gone = format!("{peer} has gone");
    example.until_line(|line| (line == gone).then_some(()));
}

// ---- length_prefixed ----------------------------------------------------------------------------

fn frame(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    [&len.to_be_bytes(), bytes].concat()
}

fn request(verb: &str, argument: &str) -> Vec<u8> {
    frame(&[&[verb.len() as u8], verb.as_bytes(), argument.as_bytes()].concat())
}

fn answer_of(client: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut len = [0; 4];
    client.read_exact(&mut len).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(len) as usize];
    client.read_exact(&mut answer).unwrap();
    (answer[0], answer[1..].to_vec())
}

fn client(example: &Example) -> TcpStream {
    let client = TcpStream::connect(example.socket_addr()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

#[test]
fn frames_are_answered_however_they_are_cut() {
    let example = Example::start("length_prefixed", &["--pollers", "1"]);
    let mut client = client(&example);
    let large = "x".repeat(65_000);
    let requests = [
        (request("upper", "hi"), (0, b"HI".to_vec())),
        (request("echo", ""), (0, Vec::new())),
        (request("reverse", "abc"), (0, b"cba".to_vec())),
        (request("length", &large), (0, b"65000".to_vec())),
        (request("echo", &large), (0, large.clone().into_bytes())),
    ];
    for (request, answer) in &requests {
        client.write_all(request).unwrap();
        assert_eq!(answer_of(&mut client), *answer);
    }
    // All at once, then byte by byte.
    let all: Vec<u8> = requests
        .iter()
        .flat_map(|(request, _)| request.clone())
        .collect();
    client.write_all(&all).unwrap();
    for (_, answer) in &requests {
        assert_eq!(answer_of(&mut client), *answer);
    }
    for byte in &requests[0].0 {
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(answer_of(&mut client), requests[0].1);
    for refused in [frame(b""), frame(b"\x09upper"), request("shout", "hi")] {
        client.write_all(&refused).unwrap();
        assert_eq!(answer_of(&mut client).0, 1);
    }
    // Longer than any may be: it ends before that much has come.
    client.write_all(&(1_u32 << 20).to_be_bytes()).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn its_client_mode_talks_to_it() {
    let example = Example::start("length_prefixed", &["--pollers", "1"]);
    let lines = example.client("upper hello world\nlength\nnonsense\n");
    assert_eq!(lines[..2], ["HELLO WORLD", "0"]);
    assert!(lines[2].starts_with("refused: the verbs are "), "{lines:?}");
}

// ---- file_server --------------------------------------------------------------------------------

/// A directory with files to serve, and one beside it.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        let dir = TempDir::new();
        let served = dir.join("served");
        fs::create_dir_all(served.join("sub")).unwrap();
        fs::write(dir.join("secret"), "not for you").unwrap();
        fs::write(served.join("small.txt"), "0123456789").unwrap();
        fs::write(served.join("a & b <c>.txt"), "odd").unwrap();
        fs::write(served.join("empty"), "").unwrap();
        fs::write(served.join("large"), pattern(20 << 20)).unwrap();
        std::os::unix::fs::symlink("../secret", served.join("way out")).unwrap();
        std::os::unix::fs::symlink("small.txt", served.join("link")).unwrap();
        Files(dir)
    }

    fn served(&self) -> String {
        self.0.join("served").to_str().unwrap().to_owned()
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// The answer to one request: its status line, its head, its body.
fn get(example: &Example, request: &str) -> (String, String, Vec<u8>) {
    let mut client = client(example);
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head
        .lines()
        .next()
        .unwrap()
        .strip_prefix("HTTP/1.1 ")
        .unwrap();
    (status.to_owned(), head.clone(), answer[end + 4..].to_vec())
}

fn body(example: &Example, path: &str, headers: &str) -> (String, Vec<u8>) {
    let (status, head, body) = get(example, &format!("GET {path} HTTP/1.0\r\n{headers}\r\n"));
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    assert_eq!(len.unwrap().parse(), Ok(body.len()));
    (status, body)
}

#[test]
fn files_are_served_whole_or_in_parts_and_nothing_outside_of_the_directory() {
    let dir = Files::new();
    let example = Example::start("file_server", &["--dir", &dir.served(), "--pollers", "2"]);
    let get_body = |path: &str, headers: &str| body(&example, path, headers);
    for (path, headers, status, expected) in [
        ("/small.txt", "", "200 OK", "0123456789"),
        ("/small.txt?x=1", "", "200 OK", "0123456789"),
        ("/link", "", "200 OK", "0123456789"),
        ("/sub/../small.txt", "", "403 Forbidden", "403 Forbidden\n"),
        ("/./small.txt", "", "200 OK", "0123456789"),
        ("/empty", "", "200 OK", ""),
        ("/a%20%26%20b%20%3Cc%3E.txt", "", "200 OK", "odd"),
        (
            "/small.txt",
            "Range: bytes=2-4\r\n",
            "206 Partial Content",
            "234",
        ),
        (
            "/small.txt",
            "range: bytes=7-\r\n",
            "206 Partial Content",
            "789",
        ),
        (
            "/small.txt",
            "RANGE: bytes=-3\r\n",
            "206 Partial Content",
            "789",
        ),
        (
            "/small.txt",
            "Range: bytes=8-99\r\n",
            "206 Partial Content",
            "89",
        ),
        (
            "/small.txt",
            "Range: bytes=-99\r\n",
            "206 Partial Content",
            "0123456789",
        ),
        (
            "/small.txt",
            "Range: bytes=0-0\r\n",
            "206 Partial Content",
            "0",
        ),
        (
            "/small.txt",
            "Range: bytes=10-\r\n",
            "416 Range Not Satisfiable",
            "416 Range Not Satisfiable\n",
        ),
        (
            "/small.txt",
            "Range: bytes=4-2\r\n",
            "416 Range Not Satisfiable",
            "416 Range Not Satisfiable\n",
        ),
        (
            "/small.txt",
            "Range: bytes=1-2,4-5\r\n",
            "200 OK",
            "0123456789",
        ),
        ("/nothing", "", "404 Not Found", "404 Not Found\n"),
        ("/../secret", "", "403 Forbidden", "403 Forbidden\n"),
        ("/%2e%2e/secret", "", "403 Forbidden", "403 Forbidden\n"),
        (
            "/sub/%2e%2e%2f..%2fsecret",
            "",
            "403 Forbidden",
            "403 Forbidden\n",
        ),
        ("//etc/passwd", "", "403 Forbidden", "403 Forbidden\n"),
        ("/way%20out", "", "403 Forbidden", "403 Forbidden\n"),
        ("/a%00b", "", "400 Bad Request", "400 Bad Request\n"),
        ("/a%zz", "", "400 Bad Request", "400 Bad Request\n"),
        ("small.txt", "", "400 Bad Request", "400 Bad Request\n"),
    ] {
        let (told, got) = get_body(path, headers);
        assert_eq!(
            (told.as_str(), got),
            (status, expected.as_bytes().to_vec()),
            "{path} {headers}"
        );
    }
    let (status, got) = get_body("/large", "");
    assert!(status == "200 OK" && got == pattern(20 << 20));
    let (_, got) = get_body("/large", "Range: bytes=1000000-1999999\r\n");
    assert!(got == pattern(20 << 20)[1_000_000..2_000_000]);
    let (status, listing) = get_body("/", "");
    let listing = String::from_utf8(listing).unwrap();
    assert_eq!(status, "200 OK");
    assert!(listing.contains("<a href=\"/a%20%26%20b%20%3Cc%3E.txt\">a &amp; b &lt;c&gt;.txt</a>"));
    assert!(listing.contains("<a href=\"/sub/\">sub/</a>"));

    let (status, head, none) = get(&example, "HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(status == "200 OK" && none.is_empty());
    assert!(head.contains("Content-Length: 20971520"));
    assert_eq!(
        get(&example, "POST /small.txt HTTP/1.1\r\n\r\n").0,
        "405 Method Not Allowed"
    );
    assert_eq!(get(&example, "nonsense\n\n").0, "405 Method Not Allowed");
    assert_eq!(get(&example, "\r\n").0, "400 Bad Request");
    assert_eq!(get(&example, &"x".repeat(9000)).0, "400 Bad Request");
    let long = format!("GET /small.txt HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
    assert_eq!(get(&example, &long).0, "400 Bad Request");
}

#[test]
fn the_highest_rate_is_as_good_as_none() {
    let dir = Files::new();
    let rate = u64::MAX.to_string();
    let args = ["--dir", &dir.served(), "--rate", &rate, "--pollers", "1"];
    let example = Example::start("file_server", &args);
    for path in ["/large", "/empty"] {
        let (status, got) = body(&example, path, "");
        assert_eq!(status, "200 OK");
        assert!(got.is_empty() || got == pattern(20 << 20));
    }
}

#[test]
fn who_half_closes_behind_the_request_gets_all_of_the_file() {
    let dir = Files::new();
    for rate in [&[][..], &["--rate", "100000000"]] {
        let served = dir.served();
        let args = [&["--dir", &served, "--pollers", "1"], rate].concat();
        let example = Example::start("file_server", &args);
        let mut client = client(&example);
        client.write_all(b"GET /large HTTP/1.0\n\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer.ends_with(&pattern(20 << 20)));
    }
}

#[test]
fn who_has_asked_before_a_signal_gets_all_that_there_is_time_for() {
    let dir = Files::new();
    let args = ["--dir", &dir.served(), "--rate", "400000", "--pollers", "1"];
    let example = Example::start("file_server", &args);
    let mut client = client(&example);
    client
        .write_all(b"GET /large HTTP/1.0\r\nRange: bytes=0-79999\r\n\r\n")
        .unwrap();
    client.read_exact(&mut [0]).unwrap();
    example.signal("INT");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&pattern(80_000)));
    drop(client);
    assert_eq!(example.last_line(), "stopped after 1 connections");
}

#[test]
fn curl_takes_files_from_it() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: there is no curl");
        return;
    }
    let dir = Files::new();
    let example = Example::start("file_server", &["--dir", &dir.served()]);
    let url = format!("http://{}/large", example.addr());
    let output = Command::new("curl")
        .args(["-sS", "--fail", &url])
        .output()
        .unwrap();
    assert!(output.status.success() && output.stdout == pattern(20 << 20));
}

#[test]
fn a_rate_is_kept_for_each_connection_and_slow_readers_cost_no_memory() {
    let dir = Files::new();
    let args = ["--dir", &dir.served(), "--rate", "400000", "--pollers", "1"];
    let example = Example::start("file_server", &args);
    body(&example, "/small.txt", "");
    let before = example.resident();
    // They ask and do not read.
    let request = b"GET /large HTTP/1.0\r\n\r\n";
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut slow = client(&example);
            slow.write_all(request).unwrap();
            slow
        })
        .collect();
    let begun = Instant::now();
    let (status, got) = body(&example, "/large", "Range: bytes=0-399999\r\n");
    assert!(status == "206 Partial Content" && got == pattern(400_000));
    // A twentieth at once, and one at each of nineteen ticks.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    let taken = example.resident().saturating_sub(before);
    assert!(taken < 4 << 20, "{taken} bytes for 100 readers of 20 MiB");
    drop(slow);
    example.wait_for_descriptors(40);
}

//! The example `http_hello`: the program in a process of its own, over TCP.

#[path = "util/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use process::Example;

fn server() -> Example {
    Example::start("http_hello", &["--pollers", "2"])
}

/// What one connection is told for all of `requests`, up to its end.
fn ask(server: &Example, requests: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.socket_addr()).expect("it listens");
    stream
        .set_read_timeout(Some(process::DEADLINE))
        .expect("it can be set");
    stream.write_all(requests).expect("it reads");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut told = String::new();
    stream.read_to_string(&mut told).expect("it answers");
    told
}

/// The value of one metric.
fn metric(server: &Example, name: &str) -> u64 {
    let told = ask(server, b"GET /metrics HTTP/1.0\r\n\r\n");
    assert!(
        told.contains("\r\nContent-Type: text/plain; version=0.0.4\r\n"),
        "{told}"
    );
    let line = told.lines().find_map(|line| line.strip_prefix(name));
    line.expect("it is there").trim().parse().expect("a number")
}

#[test]
fn a_page_health_and_metrics() {
    let server = server();
    let told = ask(
        &server,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let (page, health) = told.split_once("</html>\n").expect("a page");
    assert!(
        page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<h1>Hello</h1>"),
        "{page}"
    );
    assert!(
        health.starts_with("HTTP/1.1 200 OK\r\n") && health.ends_with("\r\n\r\nok\n"),
        "{health}"
    );
    assert_eq!(metric(&server, "greenroom_requests_refused_total"), 0);
    let accepted = metric(&server, "greenroom_accepted_total");
    let told = ask(&server, b"GET / HTTP/9.9\r\n\r\n");
    assert!(told.starts_with("HTTP/1.1 505 "), "{told}");
    assert_eq!(metric(&server, "greenroom_requests_refused_total"), 1);
    assert_eq!(metric(&server, "greenroom_accepted_total"), accepted + 3);
    for (request, status) in [
        ("GET /none HTTP/1.0\r\n\r\n", "404"),
        ("DELETE / HTTP/1.0\r\n\r\n", "405"),
        ("GET /upload HTTP/1.0\r\n\r\n", "405"),
        ("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("HEAD / HTTP/1.0\r\n\r\n", "200"),
    ] {
        let told = ask(&server, request.as_bytes());
        assert_eq!(&told[9..12], status, "{told}");
        assert_eq!(told.contains("Allow"), status == "405");
    }
    server.signal("TERM");
    assert!(server.last_line().starts_with("stopped after "));
}

#[test]
fn an_upload_is_counted() {
    let server = server();
    let body = vec![b'u'; 3_000_000];
    let head = format!(
        "PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let chunked = "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let empty = "POST /upload HTTP/1.1\r\nHost: a\r\n\r\n";
    let all = [
        head.as_bytes(),
        &body,
        chunked.as_bytes(),
        b"3\r\nabc\r\n0\r\n\r\n",
        empty.as_bytes(),
    ];
    let told = ask(&server, &all.concat());
    let counts: Vec<_> = told
        .lines()
        .filter_map(|line| line.split_once(" bytes in "))
        .collect();
    let counts: Vec<_> = counts.iter().map(|(count, _)| *count).collect();
    assert_eq!(counts, ["3000000", "3", "0"], "{told}");
    let over = "PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741825\r\n\r\n";
    assert!(ask(&server, over.as_bytes()).starts_with("HTTP/1.1 413 "));
}

#[test]
fn a_websocket_is_echoed_on_the_same_port() {
    let server = server();
    let told = ask(&server, b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        told.starts_with("HTTP/1.1 426 Upgrade Required\r\n"),
        "{told}"
    );
    assert!(told.contains("\r\nUpgrade: websocket\r\n"), "{told}");
    let mut requests = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    requests.extend_from_slice(
        b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    // A text with a mask of zeros, and a Close frame.
    requests.extend_from_slice(b"\x81\x85\0\0\0\0hello\x88\x80\0\0\0\0");
    let mut stream = TcpStream::connect(server.socket_addr()).expect("it listens");
    stream
        .set_read_timeout(Some(process::DEADLINE))
        .expect("it can be set");
    stream.write_all(&requests).expect("it reads");
    let mut told = Vec::new();
    stream.read_to_end(&mut told).expect("it answers");
    let health = told.windows(5).position(|part| part == b"\r\nok\n");
    let rest = &told[health.expect("the answer in front") + 5..];
    assert!(rest.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
    let end = rest
        .windows(4)
        .position(|part| part == b"\r\n\r\n")
        .expect("a head")
        + 4;
    let head = std::str::from_utf8(&rest[..end]).expect("text");
    assert!(
        head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{head}"
    );
    assert!(
        rest[end..].starts_with(b"\x81\x05hello\x88"),
        "{:?}",
        &rest[end..]
    );
}

//! The HTTP server: the program in a process of its own, over TCP.

#[path = "util/process.rs"]
mod process;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use process::{DEADLINE, Example, Talker};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const HELLO: &str = "Hello, World!";

fn server() -> Example {
    Example::start("http_plaintext", &["--pollers", "2"])
}

struct Response {
    status: String,
    fields: Vec<(String, String)>,
    body: String,
}

impl Response {
    fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Talker<TcpStream> {
    fn head(&mut self) -> Response {
        let mut line = || self.line().strip_suffix('\r').expect("CRLF").to_owned();
        let status = line()
            .strip_prefix("HTTP/1.1 ")
            .expect("a status")
            .to_owned();
        let mut fields = Vec::new();
        while let Some((name, value)) = line().split_once(": ") {
            fields.push((name.to_owned(), value.to_owned()));
        }
        let body = String::new();
        Response {
            status,
            fields,
            body,
        }
    }

    fn response(&mut self) -> Response {
        let mut response = self.head();
        let len = response.field("Content-Length").expect("a length");
        let mut body = vec![0; len.parse().expect("a number")];
        self.stream.read_exact(&mut body).expect("a body");
        response.body = String::from_utf8(body).expect("text");
        response
    }

    fn expect_status(&mut self, request: &str, status: &str) -> Response {
        self.say_bytes(request.as_bytes());
        let response = self.response();
        assert_eq!(response.status, status, "{request:?}");
        response
    }
}

#[test]
fn a_request_is_answered_and_the_connection_stays() {
    let server = server();
    let mut client = server.connect();
    for target in ["/", "/plaintext", "/?a=b", "http://test/", "http://test"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = client.expect_status(&request, "200 OK");
        assert_eq!(response.body, HELLO);
        assert_eq!(response.field("Server"), Some("greenroom"));
        assert_eq!(response.field("Content-Type"), Some("text/plain"));
        assert_eq!(response.field("Connection"), None);
        assert!(response.field("Date").is_some());
    }
    client.say_bytes(b"HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    let response = client.head();
    assert_eq!(
        (&*response.status, response.field("Content-Length")),
        ("200 OK", Some("13"))
    );
    let response = client.expect_status("GET /no HTTP/1.1\r\nHost: test\r\n\r\n", "404 Not Found");
    assert!(response.field("Date").is_some());
    let post = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc";
    let response = client.expect_status(post, "405 Method Not Allowed");
    assert_eq!(response.field("Allow"), Some("GET, HEAD"));
    client.expect_status(GET, "200 OK");
}

#[test]
fn requests_of_one_packet_are_answered_in_order() {
    let server = server();
    let mut client = server.connect();
    let mut requests = String::new();
    for number in 0..500 {
        let target = if number % 7 == 0 { "/no" } else { "/" };
        requests += &format!("GET {target} HTTP/1.1\r\nHost: test\r\nX: {number}\r\n\r\n");
    }
    client.say_bytes(requests.as_bytes());
    for number in 0..500 {
        let expected = if number % 7 == 0 {
            "404 Not Found"
        } else {
            "200 OK"
        };
        assert_eq!(client.response().status, expected, "{number}");
    }
}

#[test]
fn a_request_may_come_in_any_pieces() {
    let server = server();
    let post = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
    let both = format!("{post}{GET}");
    for cut in 1..both.len() {
        let mut client = server.connect();
        client.say_bytes(&both.as_bytes()[..cut]);
        client.say_bytes(&both.as_bytes()[cut..]);
        assert_eq!(client.response().status, "405 Method Not Allowed");
        assert_eq!(client.response().status, "200 OK");
    }
}

#[test]
fn the_connection_ends_when_it_is_said_to() {
    let server = server();
    for request in [
        "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\n\n",
    ] {
        let mut client = server.connect();
        // What follows is not answered.
        let response = client.expect_status(&format!("{request}{GET}"), "200 OK");
        assert_eq!(
            (response.field("Connection"), &*response.body),
            (Some("close"), HELLO)
        );
        client.expect_end();
    }
    let mut client = server.connect();
    for _ in 0..2 {
        let request = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
        let response = client.expect_status(request, "200 OK");
        assert_eq!(response.field("Connection"), Some("keep-alive"));
    }
}

#[test]
fn what_two_could_read_differently_is_refused() {
    let server = server();
    let long = "x".repeat(9_000);
    let many = "X: y\r\n".repeat(65);
    for (request, status) in [
        ("nonsense\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "400 Bad Request",
        ),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400 Bad Request"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "400 Bad Request",
        ),
        (
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "505 HTTP Version Not Supported",
        ),
        (
            &format!("GET /{long} HTTP/1.1\r\n"),
            "431 Request Header Fields Too Large",
        ),
        (
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
            "431 Request Header Fields Too Large",
        ),
    ] {
        let mut client = server.connect();
        let response = client.expect_status(request, status);
        assert_eq!(response.field("Connection"), Some("close"));
        client.expect_end();
    }
    for (fields, status) in [
        (
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "400 Bad Request",
        ),
        ("Content-Length: +1\r\n", "400 Bad Request"),
        ("Content-Length: 1, 1\r\n", "400 Bad Request"),
        ("Content-Length: \r\n", "400 Bad Request"),
        (
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "400 Bad Request",
        ),
        ("Transfer-Encoding: chunked\r\n", "411 Length Required"),
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            "501 Not Implemented",
        ),
        ("Content-Length: 65537\r\n", "413 Content Too Large"),
        (
            "Content-Length: 99999999999999999999999\r\n",
            "413 Content Too Large",
        ),
        ("Expect: the-unexpected\r\n", "417 Expectation Failed"),
    ] {
        let mut client = server.connect();
        let request = format!("POST / HTTP/1.1\r\nHost: test\r\n{fields}\r\n0\r\n\r\n{GET}");
        client.expect_status(&request, status);
        client.expect_end();
    }
}

#[test]
fn who_expects_to_be_told_to_go_on_is_told_once() {
    let server = server();
    let mut client = server.connect();
    let head = "POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n";
    for body in [["abc", "def"], ["abcde", "f"]] {
        client.say_bytes(head.as_bytes());
        assert_eq!(client.head().status, "100 Continue");
        for part in body {
            client.say_bytes(part.as_bytes());
        }
        assert_eq!(client.response().status, "405 Method Not Allowed");
    }
    // With the body behind it there is nothing to wait for.
    let response = client.expect_status(&format!("{head}abcdef"), "405 Method Not Allowed");
    assert_eq!(response.field("Allow"), Some("GET, HEAD"));
}

#[test]
fn the_date_goes_on() {
    let server = server();
    let mut client = server.connect();
    let mut date = || {
        let response = client.expect_status(GET, "200 OK");
        let date = response.field("Date").expect("a date");
        httpdate::parse_http_date(date).expect("a date as HTTP writes it")
    };
    let before = SystemTime::now();
    let first = date();
    assert!(first <= SystemTime::now());
    // The machine may be slow, but nobody sets its clock by hours.
    assert!(first + Duration::from_secs(3_600) > before);
    let start = Instant::now();
    while date() == first {
        assert!(start.elapsed() < DEADLINE, "the date stands still");
    }
}

#[test]
fn who_asks_for_more_than_it_reads_is_made_to_wait_and_loses_nothing() {
    let server = server();
    let mut client = server.connect();
    // Some 40 MB of answers, where 4 MiB may wait.
    const REQUESTS: usize = 300_000;
    let requests = GET.repeat(REQUESTS);
    let (mut written, mut answered) = (0, 0);
    while answered < REQUESTS {
        // As much as the server takes; only then some answers are read.
        let stream = client.stream.get_mut();
        stream.set_nonblocking(true).expect("it can be set");
        while written < requests.len() {
            match stream.write(&requests.as_bytes()[written..]) {
                Ok(len) => written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("it has ended: {error}"),
            }
        }
        stream.set_nonblocking(false).expect("it can be set");
        for _ in 0..(written / GET.len() - answered).min(1_000) {
            assert_eq!(client.response().body, HELLO, "{answered}");
            answered += 1;
        }
    }
    let resident = server.resident();
    assert!(resident < 64 << 20, "{resident} bytes");
}

//! HTTP over real sockets: curl, Python's http.client, raw bytes. A client that is not installed is
//! said to be missing, and its test passes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::http::{Http, Intake, Never, Options, Request, Responder, Response, Service};
use greenroom::*;

#[path = "util/tls.rs"]
mod secure;
mod util;
use util::{TIMEOUT, wait_until};

/// Answers with what it was sent, in one way or another.
#[derive(Default)]
struct Site {
    upload: Option<(Responder<Site>, usize)>,
    live: Arc<AtomicUsize>,
}

enum Done {
    Work,
    Tick,
}

impl Actor for Site {
    type Message = Done;

    fn opened(&mut self, _: &mut Context<'_, Self>) -> Outcome {
        self.live.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn message(&mut self, _: Done, _: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, _: &CloseReason, _: &mut Context<'_, Self>) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for Site {
    type Upgraded = Never<Done>;

    fn intake(&mut self, request: &Request<'_>, _: &mut Context<'_, Self>) -> Intake {
        match request.path() {
            "/count" => Intake::Stream(1 << 30),
            _ => Intake::Collect(usize::MAX),
        }
    }

    fn request(
        &mut self,
        request: Request<'_>,
        responder: Responder<Self>,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        match request.path() {
            "/count" => self.upload = Some((responder, 0)),
            "/echo" => responder.answer(Response::new(200).body(request.body().to_vec())),
            "/file" => {
                let file = std::fs::File::open("Cargo.lock")?;
                let len = file.metadata()?.len();
                responder.answer(Response::new(200).file(file, 0, len));
            }
            "/large" => responder.answer(Response::new(200).body(vec![b'l'; 20_000_000])),
            "/chunks" => {
                let mut body = responder.stream(Response::new(200));
                for piece in ["a", "bc", "def"] {
                    body.write(piece)?;
                }
                body.finish();
            }
            // Answered on another thread, out of order with what comes behind it.
            "/work" => {
                let number = request.query().unwrap_or_default().to_owned();
                let work = move || responder.answer(Response::text(number));
                if let Err(refused) = ctx.offload(work, |_| Done::Work) {
                    drop(refused);
                }
            }
            "/ask" => {
                let addr = ctx.addr();
                ctx.system().offload(move || {
                    responder.answer(Response::text("asked"));
                    let _ = addr.send(Done::Tick);
                })?;
            }
            "/" => responder.answer(Response::text("hello")),
            _ => responder.answer(Response::new(404)),
        }
        Ok(())
    }

    fn body(&mut self, _: u64, piece: Option<&[u8]>, _: &mut Context<'_, Self>) -> Outcome {
        match (piece, &mut self.upload) {
            (Some(piece), Some((_, len))) => *len += piece.len(),
            _ => {
                if let Some((responder, len)) = self.upload.take() {
                    responder.answer(Response::text(format!("{len} bytes")));
                }
            }
        }
        Ok(())
    }
}

struct Server {
    system: System,
    listener: Listener,
    live: Arc<AtomicUsize>,
}

impl Server {
    fn new() -> Server {
        Server::with(Options::new())
    }

    fn with(options: Options) -> Server {
        Server::on(options, ListenOptions::new())
    }

    fn on(options: Options, limits: ListenOptions) -> Server {
        let system = System::builder().pollers(2).build().unwrap();
        let live = Arc::new(AtomicUsize::new(0));
        let (count, options) = (live.clone(), Arc::new(options));
        let make = move |_| {
            let site = Site {
                live: count.clone(),
                ..Site::default()
            };
            Http::with_options(site, options.clone())
        };
        let listener = system.listen_with("127.0.0.1:0", limits, make).unwrap();
        Server {
            system,
            listener,
            live,
        }
    }

    fn addr(&self) -> String {
        match self.listener.local_addr() {
            Endpoint::Tcp(addr) => addr.to_string(),
            other => panic!("{other}"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }
}

fn is_installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if found.is_err() {
        println!("skipped: {program} is not installed");
    }
    found.is_ok()
}

/// Runs curl with these arguments, and `input` as its input.
#[track_caller]
fn curl(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "60",
        ])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn curl_is_served() {
    if !is_installed("curl") {
        return;
    }
    let server = Server::new();
    let body = "0123456789".repeat(50_000).into_bytes();
    assert_eq!(text(&curl(&[&server.url("/")], b"")), "hello");
    let head = curl(&["--head", &server.url("/")], b"");
    assert!(text(&head).contains("Content-Length: 5\r\n"));
    let old = curl(&["--http1.0", "--include", &server.url("/chunks")], b"");
    assert!(text(&old).contains("Connection: close\r\n") && text(&old).ends_with("\r\n\r\nabcdef"));
    let chunks = curl(&["--include", "--raw", &server.url("/chunks")], b"");
    assert!(text(&chunks).ends_with("\r\n\r\n1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n"));
    // Chunked, as its length is not known beforehand; curl expects 100 (Continue) by itself.
    for path in ["/echo", "/count"] {
        let sent = curl(&["-T", "-", &server.url(path)], &body);
        match path {
            "/echo" => assert!(sent.stdout == body),
            _ => assert_eq!(text(&sent), "500000 bytes"),
        }
        // With a length; and told to wait until it is told to go on.
        let expects = [
            "-H",
            "Expect: 100-continue",
            "--data-binary",
            "@-",
            "--verbose",
        ];
        let sent = curl(&[&expects[..], &[&server.url(path)]].concat(), &body);
        let told = String::from_utf8_lossy(&sent.stderr).into_owned();
        assert!(told.contains("< HTTP/1.1 100 Continue"), "{told}");
        match path {
            "/echo" => assert!(sent.stdout == body),
            _ => assert_eq!(text(&sent), "500000 bytes"),
        }
    }
    let file = curl(&[&server.url("/file")], b"");
    assert!(file.stdout == std::fs::read("Cargo.lock").unwrap());
    let large = curl(&[&server.url("/large")], b"");
    assert_eq!(large.stdout.len(), 20_000_000);
    // One connection for all.
    let again = curl(
        &[
            "--verbose",
            &server.url("/"),
            &server.url("/ask"),
            &server.url("/"),
        ],
        b"",
    );
    assert_eq!(text(&again), "helloaskedhello");
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(
        told.to_lowercase().matches("using existing").count(),
        2,
        "{told}"
    );
    assert_eq!(server.system.stats().requests_refused, 0);
    wait_until("all have gone", || server.live.load(Ordering::SeqCst) == 0);
}

#[test]
fn the_same_service_runs_behind_tls() {
    if !is_installed("curl") {
        return;
    }
    let tls = ListenOptions::new().tls(secure::server());
    let server = Server::on(Options::new(), tls);
    let url = |path: &str| format!("https://{}{path}", server.addr());
    let body = "0123456789".repeat(50_000).into_bytes();
    let sent = curl(&["--insecure", "-T", "-", &url("/echo")], &body);
    assert!(sent.stdout == body);
    let file = curl(&["--insecure", &url("/file")], b"");
    assert!(file.stdout == std::fs::read("Cargo.lock").unwrap());
    let large = curl(&["--insecure", &url("/large")], b"");
    assert_eq!(large.stdout.len(), 20_000_000);
    let again = curl(&["--insecure", &url("/chunks"), &url("/ask")], b"");
    assert_eq!(text(&again), "abcdefasked");
    wait_until("all have gone", || server.live.load(Ordering::SeqCst) == 0);
}

#[test]
fn curl_is_told_that_its_body_is_too_large() {
    if !is_installed("curl") {
        return;
    }
    let server = Server::with(Options::new().body_max(1_000));
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    let body = vec![b'b'; 2_000_000];
    for sent in [
        &["--data-binary", "@-"][..],
        &["-T", "-"],
        &["-H", "Expect:", "-T", "-"],
    ] {
        let url = server.url("/echo");
        let told = curl(&[&status[..], sent, &[&url]].concat(), &body);
        assert_eq!(text(&told), "413", "{sent:?}");
    }
}

const PYTHON: &str = r#"
import http.client, sys
conn = http.client.HTTPConnection(sys.argv[1], timeout=60)
sock = None
for method, path, body, status, answer in [
    ("GET", "/", None, 200, b"hello"),
    ("HEAD", "/", None, 200, b""),
    ("POST", "/echo", b"a body", 200, b"a body"),
    ("POST", "/echo", b"x" * 300000, 200, b"x" * 300000),
    ("PUT", "/count", iter([b"piece"] * 100), 200, b"500 bytes"),
    ("GET", "/chunks", None, 200, b"abcdef"),
    ("GET", "/none", None, 404, b""),
    ("GET", "/ask", None, 200, b"asked"),
]:
    conn.request(method, path, body=body, encode_chunked=False)
    if sock is None:
        sock = conn.sock
    assert conn.sock is sock, "the connection is kept"
    got = conn.getresponse()
    data = got.read()
    assert (got.status, data) == (status, answer), (method, path, got.status, data[:100])
    assert got.getheader("Date")
conn.request("GET", "/", headers={"Connection": "close"})
got = conn.getresponse()
assert got.getheader("Connection") == "close" and got.read() == b"hello"
print("done")
"#;

#[test]
fn pythons_client_is_served() {
    if !is_installed("python3") {
        return;
    }
    let server = Server::new();
    let output = Command::new("python3")
        .args(["-c", PYTHON, &server.addr()])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text(&output), "done\n", "{error}");
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// The bodies of answers with a length, up to the end.
fn bodies(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head")
            + 4;
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let len = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let len: usize = len.expect("a length").parse().unwrap();
        found.push(String::from_utf8(bytes[end..end + len].to_vec()).unwrap());
        bytes = &bytes[end + len..];
    }
    found
}

#[test]
fn pipelined_answers_from_threads_come_in_order() {
    let server = Server::new();
    let mut client = server.connect();
    let count = 500;
    let requests: String = (0..count)
        .map(|number| match number % 5 {
            0 => get("/"),
            _ => get(&format!("/work?{number}")),
        })
        .collect();
    client.write_all(requests.as_bytes()).unwrap();
    // What it asked is answered all the same.
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    let expected: Vec<_> = (0..count)
        .map(|number| match number % 5 {
            0 => "hello".to_owned(),
            _ => number.to_string(),
        })
        .collect();
    assert_eq!(bodies(&got), expected);
}

#[test]
fn a_flood_of_pipelined_requests_is_held_back_and_loses_nothing() {
    let server = Server::new();
    let mut client = server.connect();
    let body = "e".repeat(10_000);
    let request = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n{body}");
    // As much as the server takes while nobody reads its answers.
    client.set_nonblocking(true).unwrap();
    let all = request.repeat(5_000);
    let mut written = 0;
    let mut idle = 0;
    while written < all.len() && idle < 20 {
        match client.write(&all.as_bytes()[written..]) {
            Ok(n) => (written, idle) = (written + n, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // It is full on both sides, or the server has not come to it: who it waits for is
                // the kernel, and there is no event for "no more".
                idle += 1;
                std::thread::yield_now();
                wait_a_moment(&server);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        written < all.len(),
        "the server takes what it cannot answer"
    );
    assert!(server.system.stats().output_waiting < 1 << 20);
    client.set_nonblocking(false).unwrap();
    let mut reader = client.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got
    });
    client.write_all(&all.as_bytes()[written..]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let got = bodies(&reading.join().unwrap());
    assert_eq!(got.len(), 5_000);
    assert!(got.iter().all(|answer| *answer == body));
}

/// Lets every poller have a turn.
fn wait_a_moment(server: &Server) {
    for poller in 0..server.system.handle().pollers() {
        let (tell, told) = std::sync::mpsc::channel();
        let ran = server.system.handle().run_on(poller, move |_| {
            let _ = tell.send(());
        });
        ran.map_err(|_| "refused").unwrap();
        told.recv_timeout(TIMEOUT).unwrap();
    }
}

#[test]
fn slow_heads_are_ended_and_cost_no_others() {
    let timeout = Duration::from_millis(300);
    let server = Server::with(Options::new().head_timeout(timeout));
    let mut slow: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.write_all(b"GET / HTTP/1.1\r\nX").unwrap();
    }
    let mut other = server.connect();
    other.write_all(get("/").as_bytes()).unwrap();
    let mut byte = [0; 12];
    other.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"HTTP/1.1 200");
    for client in &mut slow {
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert!(got.starts_with("HTTP/1.1 408 "), "{got}");
    }
    assert_eq!(server.system.stats().requests_refused, 200);
}

#[test]
fn a_refusal_arrives_though_the_client_goes_on_sending() {
    let server = Server::new();
    let mut client = server.connect();
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    // More than the kernels hold between them; the end of the connection may stop it.
    let _ = client.write_all(&vec![b'x'; 20_000_000]);
    let mut got = [0; 12];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"HTTP/1.1 413");
}

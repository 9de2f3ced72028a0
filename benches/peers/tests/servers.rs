//! Each peer does what it is measured at, on one thread and on two.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use greenroom_benches::server::{Server, shell_quote};

/// Only a peer that hangs takes as long.
const PATIENCE: Duration = Duration::from_secs(20);
/// A write that waits as long is taken for one that nobody makes room for.
const STALL: Duration = Duration::from_millis(100);

/// A peer; it is killed by its process id when dropped.
fn start(arguments: &str) -> Server {
    let program = shell_quote(env!("CARGO_BIN_EXE_peers"));
    Server::start(&format!("{program} {arguments} --seconds 60")).unwrap()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn echoes(name: &str, threads: usize) {
    let server = start(&format!("echo {name} --threads {threads}"));
    // Several, so that with two threads both get some.
    let mut streams: Vec<TcpStream> = (0..8).map(|_| connect(&server)).collect();
    for round in 0..3_u8 {
        // More than a read buffer of 4 KiB holds.
        let messages: Vec<Vec<u8>> = (0..8).map(|i| vec![10 * round + i; 10_000]).collect();
        for (stream, message) in streams.iter_mut().zip(&messages) {
            stream.write_all(message).unwrap();
        }
        for (stream, message) in streams.iter_mut().zip(&messages) {
            let mut echoed = vec![0; message.len()];
            stream.read_exact(&mut echoed).unwrap();
            assert!(echoed == *message, "{name}: other bytes than were sent");
        }
    }
}

/// Nothing is read before the server takes no more, or has taken all.
fn keeps_what_is_refused(name: &str) {
    const CHUNK: usize = 1 << 20;
    const CHUNKS: usize = 32;
    let server = start(&format!("echo {name}"));
    let mut reader = connect(&server);
    let mut writer = reader.try_clone().unwrap();
    let chunk: Vec<u8> = (0..CHUNK).map(|i| (i % 251) as u8).collect();
    let bytes = chunk.repeat(CHUNKS);
    let (stalled, has_stalled) = mpsc::channel();
    let writing = thread::spawn(move || {
        writer.set_write_timeout(Some(STALL)).unwrap();
        let mut left = &bytes[..];
        while !left.is_empty() {
            match writer.write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => stalled.send(()).unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // Nothing is sent at all if everything was taken.
    let _ = has_stalled.recv();
    let mut echoed = vec![0; CHUNK];
    for _ in 0..CHUNKS {
        reader.read_exact(&mut echoed).unwrap();
        assert!(echoed == chunk, "{name}: other bytes than were sent");
    }
    writing.join().unwrap();
    assert_eq!(reader.read(&mut echoed).unwrap(), 0, "{name}: no end");
}

/// A response without its body, as text, and the body.
fn response(reader: &mut impl BufRead) -> (String, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "closed: {head}");
    }
    let lower = head.to_ascii_lowercase();
    let (_, length) = lower.split_once("content-length:").unwrap();
    let length = length.lines().next().unwrap().trim().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (lower, String::from_utf8(body).unwrap())
}

fn answers_pipelined_requests(name: &str, threads: usize) {
    let server = start(&format!("http {name} --threads {threads}"));
    let mut streams: Vec<TcpStream> = (0..4).map(|_| connect(&server)).collect();
    for stream in &mut streams {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        for _ in 0..2 {
            let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(&request.repeat(2)).unwrap();
            for _ in 0..2 {
                let (head, body) = response(&mut reader);
                assert!(head.starts_with("http/1.1 200 "), "{name}: {head}");
                assert!(
                    head.contains("\r\ncontent-type: text/plain\r\n"),
                    "{name}: {head}"
                );
                assert!(head.contains("\r\ndate: "), "{name}: {head}");
                assert!(head.contains("\r\nserver: "), "{name}: {head}");
                assert_eq!(body, "Hello, World!", "{name}");
            }
        }
        // Any other path.
        let request = b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).unwrap();
        let (head, _) = response(&mut reader);
        assert!(head.starts_with("http/1.1 404 "), "{name}: {head}");
    }
}

#[test]
fn mio_echoes() {
    echoes("mio", 1);
    echoes("mio", 2);
    keeps_what_is_refused("mio");
}

#[test]
fn tokio_echoes() {
    echoes("tokio", 1);
    echoes("tokio", 2);
    keeps_what_is_refused("tokio");
}

#[test]
fn tokio_per_core_echoes() {
    echoes("tokio-per-core", 1);
    echoes("tokio-per-core", 2);
}

#[test]
fn monoio_echoes() {
    echoes("monoio", 1);
    echoes("monoio", 2);
    keeps_what_is_refused("monoio");
}

#[test]
fn may_echoes() {
    echoes("may", 1);
    echoes("may", 2);
    keeps_what_is_refused("may");
}

#[test]
fn actix_echoes() {
    echoes("actix", 1);
    echoes("actix", 2);
    keeps_what_is_refused("actix");
}

#[test]
fn message_io_echoes() {
    echoes("message-io", 1);
    keeps_what_is_refused("message-io");
}

#[test]
fn hyper_answers() {
    answers_pipelined_requests("hyper", 1);
    answers_pipelined_requests("hyper", 2);
}

#[test]
fn may_minihttp_answers() {
    answers_pipelined_requests("may-minihttp", 1);
    answers_pipelined_requests("may-minihttp", 2);
}

#[test]
fn ntex_answers() {
    answers_pipelined_requests("ntex", 1);
    answers_pipelined_requests("ntex", 2);
}

#[test]
fn actix_web_answers() {
    answers_pipelined_requests("actix-web", 1);
    answers_pipelined_requests("actix-web", 2);
}

/// A line that is answered by itself shows that its sender has joined.
#[test]
fn tokio_pushes_a_line_to_all_members() {
    let server = start("fanout tokio --threads 2");
    let mut members: Vec<BufReader<TcpStream>> = Vec::new();
    for joining in 0..5 {
        members.push(BufReader::new(connect(&server)));
        let line = format!("member {joining} joins\n");
        members[joining]
            .get_mut()
            .write_all(line.as_bytes())
            .unwrap();
        for member in &mut members {
            let mut pushed = String::new();
            member.read_line(&mut pushed).unwrap();
            assert_eq!(pushed, line);
        }
    }
}

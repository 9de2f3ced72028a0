//! The instruments themselves: a right server passes, a wrong one is found out, and each run ends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use greenroom_benches::echo::{self, EchoLoad, Limit, Shape};
use greenroom_benches::server::{Server, floor_command};
use greenroom_benches::{idle, pingers};

const SHAPE: Shape = Shape {
    connections: 10,
    message_bytes: 64,
    pipeline: 3,
};
const LIMIT: Limit = Limit {
    time: Duration::from_secs(10),
    messages: 5_000,
};

fn floor() -> Server {
    Server::start(&floor_command().unwrap(), None).unwrap()
}

/// Serves one connection with what `answer` makes of each read; none: closes.
fn serve(answer: impl Fn(&mut [u8]) -> Option<&[u8]> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            match answer(&mut buffer[..len]) {
                Some(bytes) if stream.write_all(bytes).is_ok() => {}
                _ => return,
            }
        }
    });
    addr
}

fn run_one(addr: SocketAddr) -> io::Result<echo::Report> {
    EchoLoad::connect(
        addr,
        Shape {
            connections: 1,
            ..SHAPE
        },
    )?
    .run(LIMIT)
}

#[test]
fn the_floor_echoes_every_message_again_and_again() {
    let server = floor();
    let mut load = EchoLoad::connect(server.addr(), SHAPE).unwrap();
    for _ in 0..3 {
        let report = load.run(LIMIT).unwrap();
        assert_eq!(report.messages, LIMIT.messages);
        assert_eq!(report.latency.len(), LIMIT.messages);
        assert_eq!(
            report.messages_by_connection.iter().sum::<u64>(),
            LIMIT.messages
        );
    }
    assert!(server.cpu_time().unwrap() > Duration::ZERO);
}

#[test]
fn the_floor_keeps_what_the_socket_refuses() {
    let server = floor();
    // 32 MiB on their way: more than the socket buffers of both sides take, so writes are short.
    let shape = Shape {
        connections: 2,
        message_bytes: 1 << 20,
        pipeline: 16,
    };
    let mut load = EchoLoad::connect(server.addr(), shape).unwrap();
    let report = load
        .run(Limit {
            time: Duration::from_secs(10),
            messages: 64,
        })
        .unwrap();
    assert_eq!(report.messages, 64);
}

#[test]
fn threads_share_the_connections() {
    let server = floor();
    let report = echo::run_threads(server.addr(), SHAPE, 3, Duration::from_millis(50)).unwrap();
    assert_eq!(report.messages_by_connection.len(), SHAPE.connections);
    assert_eq!(report.latency.len(), report.messages);
}

#[test]
fn a_wrong_byte_is_found_out() {
    let addr = serve(|bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        Some(bytes)
    });
    assert_eq!(
        run_one(addr).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}

#[test]
fn bytes_that_nobody_sent_are_found_out() {
    // All zero: the stream's next bytes are not, but a right guess would be caught by the count.
    let addr = serve(|_| Some(&[0; 4096]));
    assert_eq!(
        run_one(addr).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}

#[test]
fn a_server_that_closes_is_an_error() {
    let addr = serve(|_| None);
    assert!(run_one(addr).is_err());
}

#[test]
fn pingers_get_every_reply_beside_a_flood() {
    let server = floor();
    let report = pingers::run(server.addr(), 10, 100.0, 1, Duration::from_millis(200)).unwrap();
    assert_eq!(report.latency.len(), 200);
    assert!(report.flood_rate > 0.0);
}

#[test]
fn idle_connections_cost_the_floor_nothing() {
    let server = floor();
    let report = idle::measure(server.addr(), server.pid(), 1_000).unwrap();
    let growth = report.used.resident.saturating_sub(report.base.resident);
    assert!(growth <= 16 * 4096, "{growth} bytes");
}

//! The instruments themselves: a right server passes, a wrong one is found out, and each run ends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use greenroom_benches::echo::{self, EchoLoad, EchoLoads, Limit, Shape};
use greenroom_benches::latency::OpenShape;
use greenroom_benches::many::{self, Counts};
use greenroom_benches::open_loop::Wait;
use greenroom_benches::plan::Plan;
use greenroom_benches::samples::Samples;
use greenroom_benches::server::{Candidate, Server};
use greenroom_benches::{connects, echo_cost, idle, latency, pingers, start, two};

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
    Server::start(&Candidate::floor().unwrap().command).unwrap()
}

/// Serves one connection with what `answer` makes of each read; none: closes.
fn serve(mut answer: impl FnMut(&mut [u8]) -> Option<&[u8]> + Send + 'static) -> SocketAddr {
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
    let mut load = EchoLoads::connect(server.addr(), SHAPE, 3).unwrap();
    let report = load.run(Duration::from_millis(50)).unwrap();
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

#[test]
fn latency_of_the_open_loop_counts_from_when_a_message_was_due() {
    let mut stalled = false;
    let addr = serve(move |bytes| {
        if !std::mem::replace(&mut stalled, true) {
            thread::sleep(Duration::from_millis(50));
        }
        Some(bytes)
    });
    let shape = Shape {
        connections: 1,
        message_bytes: 64,
        pipeline: 1,
    };
    let mut load = EchoLoads::connect(addr, shape, 1).unwrap();
    let latency = load
        .run_open(1_000.0, Duration::from_millis(200), Wait::Sleep)
        .unwrap();
    // A closed loop would have one slow message. Here those that were due within the stall, a
    // quarter of all, are slow.
    assert!((150..250).contains(&latency.len()), "{}", latency.len());
    let at = |quantile| Duration::from_nanos(latency.value_at_quantile(quantile));
    assert!(at(0.99) >= Duration::from_millis(40), "{:?}", at(0.99));
    assert!(at(0.85) >= Duration::from_millis(10), "{:?}", at(0.85));
}

/// The values of a metric, of all servers and rounds.
fn values(samples: &Samples, metric: &str) -> Vec<f64> {
    let all = samples.iter().filter(|sample| sample.metric == metric);
    all.map(|sample| sample.value).collect()
}

/// The measurements are about figures; that each has them all, for the floor, its control and a
/// candidate in each round, is what can be tested.
#[test]
fn each_measurement_has_a_value_for_each_server_and_round() {
    let plan = Plan::beside(2, 2, Duration::from_millis(20));
    let candidates = [Candidate::new("third", Candidate::floor().unwrap().command)];
    let all = 3 * 2;

    let samples = echo_cost::measure(&candidates, SHAPE, &plan).unwrap();
    assert_eq!(values(&samples, "cpu ns").len(), all);
    assert_eq!(values(&samples, "per second").len(), all);
    let samples = two::measure(&candidates, SHAPE, &plan).unwrap();
    assert_eq!(values(&samples, "cpu ns").len(), all);
    let samples = connects::measure(&candidates, &plan).unwrap();
    assert_eq!(values(&samples, "cpu ns").len(), all);
    let samples = start::measure(&candidates, &plan).unwrap();
    // And once a round in this process.
    assert_eq!(values(&samples, "ms").len(), all + 2);
    let shape = OpenShape {
        connections: 10,
        ..OpenShape::default()
    };
    let samples = latency::measure(&candidates, shape, &plan).unwrap();
    assert_eq!(values(&samples, "p99.9 us").len(), all);
    let fairness = values(&samples, "fairness");
    assert_eq!(fairness.len(), all);
    assert!(
        fairness
            .iter()
            .all(|fairness| (0.0..=1.0).contains(fairness))
    );
    let samples = idle::samples(&candidates, 200, 1).unwrap();
    assert_eq!(values(&samples, "bytes used").len(), 2);
}

#[test]
fn many_connections_are_held_by_processes_of_their_own() {
    let counts = Counts {
        connections: 300,
        active: 50,
        processes: 2,
        actors: 10_000,
    };
    let plan = Plan::beside(2, 2, Duration::from_millis(20));
    let server = Candidate::new("server", Candidate::floor().unwrap().command);
    let samples = many::measure(&server, counts, &plan).unwrap();
    for case in ["50 active of 50", "50 active of 300"] {
        let of_case = samples.iter().filter(|sample| sample.case == case);
        let cpu = of_case.filter(|sample| sample.metric == "cpu ns");
        // Two servers, two rounds.
        assert_eq!(cpu.count(), 4, "{case}");
    }
    let bytes = |case: &str| {
        let mut all = samples.iter().filter(|sample| sample.case == case);
        all.find(|sample| sample.metric == "bytes").unwrap().value
    };
    assert!(bytes("2 processes of 300 connections") < 200.0);
    assert!(bytes("10000 actors without sockets") > 0.0);
}

#[test]
fn a_measurement_names_the_server_that_failed() {
    let candidates = [Candidate::new("broken", "true")];
    let plan = Plan::beside(1, 1, Duration::from_millis(10));
    let error = echo_cost::measure(&candidates, SHAPE, &plan).unwrap_err();
    assert!(error.to_string().starts_with("broken: "), "{error}");
}

//! Connects and closes: server CPU time for each connection.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::samples::Samples;
use crate::server::{Candidate, Server, with_floor};
use crate::sys;

/// Connections opened at a time, then closed: enough that the server always has some to accept,
/// below every backlog.
const BURST: usize = 50;
/// How long the server may take to accept and close.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Source addresses, taken in turn: a closed connection keeps its port for a minute (TIME_WAIT),
/// and one address has 28,232 by default.
const SOURCES: u32 = 250;
/// Before the first round, for each server.
const WARM_UP_BURSTS: u32 = 20;
const CASE: &str = "connect and close";

/// Five slices of 100 ms for each server in a round, servers and load on a CPU each.
pub fn plan(rounds: u32) -> Plan {
    Plan::apart(rounds, 5, Duration::from_millis(100))
}

/// Part `accept`: `cpu ns` (for each connection that is opened and closed) and `per second`, for
/// `c`, `c again` and the candidates (echo servers).
///
/// The client sends nothing and closes first; the connection counts when the server has closed as
/// well.
pub fn measure(candidates: &[Candidate], plan: &Plan) -> io::Result<Samples> {
    plan.run(|| {
        let mut contenders = Vec::new();
        for candidate in with_floor(Candidate::floor()?, candidates) {
            let server = plan.start(&candidate)?;
            let mut connector =
                Connector::new(&server).map_err(|error| candidate.failed(&error))?;
            for _ in 0..WARM_UP_BURSTS {
                connector
                    .burst()
                    .map_err(|error| candidate.failed(&error))?;
            }
            contenders.push((candidate, server, connector));
        }
        let mut samples = Samples::new();
        for round in 0..plan.rounds {
            let mut totals = vec![(Duration::ZERO, Duration::ZERO, 0_usize); contenders.len()];
            for turn in plan.turns(round, contenders.len()) {
                let (candidate, server, connector) = &mut contenders[turn];
                let (cpu, elapsed, connections) = &mut totals[turn];
                let (cpu_before, began) = (server.cpu_time()?, Instant::now());
                while began.elapsed() < plan.slice {
                    connector
                        .burst()
                        .map_err(|error| candidate.failed(&error))?;
                    *connections += BURST;
                }
                *elapsed += began.elapsed();
                *cpu += server.cpu_time()? - cpu_before;
            }
            for ((candidate, ..), (cpu, elapsed, connections)) in contenders.iter().zip(totals) {
                let cpu_ns = cpu.as_nanos() as f64 / connections as f64;
                samples.push("accept", CASE, &candidate.name, round, "cpu ns", cpu_ns);
                let rate = connections as f64 / elapsed.as_secs_f64();
                samples.push("accept", CASE, &candidate.name, round, "per second", rate);
            }
        }
        Ok(samples)
    })
}

/// Connects to one server from many source addresses.
struct Connector {
    addr: SocketAddrV4,
    bursts: u32,
}

impl Connector {
    fn new(server: &Server) -> io::Result<Connector> {
        Ok(Connector {
            addr: sys::loopback_v4(server.addr())?,
            bursts: 0,
        })
    }

    /// Opens some connections, closes them, and waits until the server has closed them too.
    fn burst(&mut self) -> io::Result<()> {
        self.bursts += 1;
        let [.., subnet] = (1 + self.bursts % SOURCES).to_be_bytes();
        let source = Ipv4Addr::new(127, 2, subnet, 1);
        let connections: Vec<TcpStream> = (0..BURST)
            .map(|_| sys::connect_from(source, self.addr, TIMEOUT))
            .collect::<io::Result<_>>()?;
        for connection in &connections {
            connection.shutdown(Shutdown::Write)?;
        }
        for mut connection in connections {
            if connection.read(&mut [0])? != 0 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a byte came that nobody had sent",
                ));
            }
        }
        Ok(())
    }
}

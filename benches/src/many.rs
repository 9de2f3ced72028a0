//! Very many connections, and very many actors.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::echo::Shape;
use crate::echo_cost::{Contender, closed_round};
use crate::idle::{self, Stage};
use crate::latency::open_round;
use crate::open_loop::Wait;
use crate::plan::Plan;
use crate::samples::Samples;
use crate::server::{Candidate, ChildGuard, Memory, Server, sibling_program};
use crate::sys;

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Connections to one server; descriptors are limited to 20,000 where a process has no more.
    pub connections: usize,
    /// How many of them are used, at most all.
    pub active: usize,
    /// Server processes held at once, each with `connections`; 0 leaves the case out.
    pub processes: usize,
    /// Actors without sockets; 0 leaves the case out.
    pub actors: usize,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            connections: 19_000,
            active: 1_000,
            processes: 8,
            actors: 1_000_000,
        }
    }
}

/// Ten slices of 50 ms for each server in a round, servers and load on a CPU each.
pub fn plan(rounds: u32) -> Plan {
    Plan::apart(rounds, 10, Duration::from_millis(50))
}

/// Part `many`, for `greenroom` (an echo server) and `c`.
///
/// Cases `1000 active of 1000` and `1000 active of 19000` (the counts as given): `cpu ns`,
/// `per second`, `p50 us` to `p99.9 us`. The ratio of the two, of the same server in one round, is
/// what is asked for.
/// Case `8 processes of 19000 connections`: `bytes`, `bytes used`, greenroom alone, once (round 0).
/// Case `1000000 actors without sockets`: `bytes`, greenroom alone, once (round 0).
pub fn measure(greenroom: &Candidate, counts: Counts, plan: &Plan) -> io::Result<Samples> {
    let mut samples = active_among_idle(greenroom, counts, plan)?;
    if counts.processes > 0 {
        samples.extend(processes(greenroom, counts)?);
    }
    if counts.actors > 0 {
        samples.extend(actors(counts.actors)?);
    }
    Ok(samples)
}

/// The echo of some connections, with and without many idle ones beside them.
fn active_among_idle(greenroom: &Candidate, counts: Counts, plan: &Plan) -> io::Result<Samples> {
    let shape = Shape {
        connections: counts.active,
        message_bytes: 64,
        pipeline: 1,
    };
    let wait = match plan.load_cpu {
        Some(_) => Wait::Spin,
        None => Wait::Sleep,
    };
    plan.run(|| {
        // Ends after the contenders' servers: they are declared later.
        let mut holders = Vec::new();
        let mut contenders = Vec::new();
        for candidate in [Candidate::floor()?, greenroom.clone()] {
            for connections in [counts.active, counts.connections] {
                let server = plan.start(&candidate)?;
                let idle = connections.saturating_sub(counts.active);
                if idle > 0 {
                    let mut holder = Holder::start(&server, idle)?;
                    holder.wait_for(Stage::Base)?;
                    holder.go_on()?;
                    holder.wait_for(Stage::Idle)?;
                    holders.push(holder);
                }
                let case = format!("{} active of {connections}", counts.active);
                contenders.push(Contender::connect(
                    candidate.clone(),
                    &case,
                    server,
                    shape,
                    1,
                )?);
            }
        }
        let mut samples = Samples::new();
        for round in 0..plan.rounds {
            closed_round("many", &mut contenders, round, plan, &mut samples)?;
            open_round("many", &mut contenders, wait, round, plan, &mut samples)?;
        }
        Ok(samples)
    })
}

/// Bytes for each connection where many processes have many at the same time.
fn processes(greenroom: &Candidate, counts: Counts) -> io::Result<Samples> {
    sys::raise_descriptor_limit()?;
    let mut held = Vec::new();
    for _ in 0..counts.processes {
        let server = Server::start(&greenroom.command).map_err(|error| greenroom.failed(&error))?;
        let holder = Holder::start(&server, counts.connections)?;
        held.push((holder, server));
    }
    let mut samples = Samples::new();
    let mut memory_at = |stage| -> io::Result<Vec<Memory>> {
        // First all of them go on, side by side; then the memory is read while all are there.
        if stage != Stage::Base {
            held.iter_mut().try_for_each(|(holder, _)| holder.go_on())?;
        }
        held.iter_mut()
            .try_for_each(|(holder, _)| holder.wait_for(stage))?;
        held.iter()
            .map(|(_, server)| Memory::of_process(server.pid()))
            .collect()
    };
    let base = memory_at(Stage::Base)?;
    let idle = memory_at(Stage::Idle)?;
    let used = memory_at(Stage::Used)?;
    let case = format!(
        "{} processes of {} connections",
        counts.processes, counts.connections
    );
    for (metric, memory) in [("bytes", idle), ("bytes used", used)] {
        let each = memory.iter().zip(&base);
        let sum: f64 = each
            .map(|(memory, base)| memory.each_beyond(base, counts.connections))
            .sum();
        let mean = sum / counts.processes as f64;
        samples.push("many", &case, &greenroom.name, 0, metric, mean);
    }
    Ok(samples)
}

/// What `memory --csv` says, in a process that has done nothing else.
fn actors(count: usize) -> io::Result<Samples> {
    let output = Command::new(sibling_program("memory")?)
        .args(["--actors", &count.to_string(), "--csv"])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "`memory` failed: {}",
            output.status
        )));
    }
    Samples::parse_csv(&String::from_utf8_lossy(&output.stdout))
}

/// A process of its own that has idle connections, for want of descriptors in this one:
/// `load hold`.
struct Holder {
    /// Its end tells it to end; dropped before the process is killed.
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _child: ChildGuard,
}

impl Holder {
    fn start(server: &Server, connections: usize) -> io::Result<Holder> {
        let mut command = Command::new(sibling_program("load")?);
        command
            .arg("hold")
            .args(["--addr", &server.addr().to_string()])
            .args(["--pid", &server.pid().to_string()])
            .args(["--connections", &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        sys::bind_child(&mut command, None)?;
        let mut child = ChildGuard(command.spawn()?);
        Ok(Holder {
            stdin: child.0.stdin.take().expect("stdin was set to a pipe"),
            stdout: BufReader::new(child.0.stdout.take().expect("stdout was set to a pipe")),
            _child: child,
        })
    }

    /// Lets it go on to the next stage.
    fn go_on(&mut self) -> io::Result<()> {
        self.stdin.write_all(b"\n")
    }

    /// Waits until it says that it is at `stage`. It bounds its own time, and says why it ended.
    fn wait_for(&mut self, stage: Stage) -> io::Result<()> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        match line.trim() == format!("{stage:?}") {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "the process that holds idle connections did not come to {stage:?}"
            ))),
        }
    }
}

/// The other side of `Holder`: opens the connections, says at each stage of [`idle::stages`] that
/// it is there, and goes on when it is sent a line. Ends when its standard input does.
pub fn hold(addr: SocketAddr, pid: u32, connections: usize) -> io::Result<()> {
    idle::stages(addr, pid, connections, |stage| {
        println!("{stage:?}");
        let mut line = String::new();
        match io::stdin().read_line(&mut line)? {
            0 => std::process::exit(0),
            _ => Ok(()),
        }
    })
}

//! From nothing to the first byte served.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use greenroom::{Actor, Context, Endpoint, Input, Outcome, System};

use crate::plan::Plan;
use crate::rounds::median;
use crate::samples::Samples;
use crate::server::{Candidate, ChildGuard, wait_for_address, with_floor};
use crate::sys;

/// How long the first echo may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pollers of the system that is started in this process.
const POLLERS: usize = 2;

/// Five starts of each server in a round, servers and load share all CPUs.
pub fn plan(rounds: u32) -> Plan {
    Plan::beside(rounds, 5, Duration::ZERO)
}

/// Part `start`: `ms`, the median of a round's starts.
///
/// Case `process` for `c`, `c again` and the candidates (echo servers): from exec to the first byte
/// echoed. Case `in process; 2 pollers` for `greenroom`: from building the system.
pub fn measure(candidates: &[Candidate], plan: &Plan) -> io::Result<Samples> {
    plan.run(|| {
        let candidates = with_floor(Candidate::floor()?, candidates);
        let mut samples = Samples::new();
        for round in 0..plan.rounds {
            let mut ms = vec![Vec::new(); candidates.len()];
            let mut ms_within = Vec::new();
            for turn in plan.turns(round, candidates.len()) {
                let candidate = &candidates[turn];
                let elapsed = start_process(&candidate.command, plan)
                    .map_err(|error| candidate.failed(&error))?;
                ms[turn].push(elapsed.as_secs_f64() * 1e3);
            }
            for _ in 0..plan.slices {
                ms_within.push(start_within()?.as_secs_f64() * 1e3);
            }
            for (candidate, mut ms) in candidates.iter().zip(ms) {
                let ms = median(&mut ms);
                samples.push("start", "process", &candidate.name, round, "ms", ms);
            }
            let case = format!("in process; {POLLERS} pollers");
            let ms = median(&mut ms_within);
            samples.push("start", &case, "greenroom", round, "ms", ms);
        }
        Ok(samples)
    })
}

/// From exec to the first byte echoed.
fn start_process(command: &str, plan: &Plan) -> io::Result<Duration> {
    // The shell waits for a line before it becomes the server: its own start is not measured.
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("read -r line && exec {command}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    sys::bind_child(&mut shell, plan.server_cpus.as_deref())?;
    let mut child = ChildGuard(shell.spawn()?);
    let mut stdin = child.0.stdin.take().expect("stdin was set to a pipe");
    let began = Instant::now();
    stdin.write_all(b"\n")?;
    let addr = wait_for_address(&mut child, command)?;
    echo_one_byte(addr)?;
    Ok(began.elapsed())
}

/// From building a system of this process to the first byte echoed.
fn start_within() -> io::Result<Duration> {
    let began = Instant::now();
    let system = System::builder().pollers(POLLERS).build()?;
    let listener = system.listen("127.0.0.1:0", |_peer| Echo)?;
    let Endpoint::Tcp(addr) = listener.local_addr() else {
        return Err(io::Error::other("a TCP listener has no TCP address"));
    };
    echo_one_byte(*addr)?;
    Ok(began.elapsed())
}

fn echo_one_byte(addr: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.write_all(b"x")?;
    let mut reply = [0];
    connection.read_exact(&mut reply)?;
    if reply != *b"x" {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "another byte came back than was sent",
        ));
    }
    Ok(())
}

struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

//! Redis servers under redis-benchmark.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::foreign::{Slice, TempDir, announced, connect, find, free_addr, race, run_load, start};
use crate::plan::Plan;
use crate::report::runs::Record;
use crate::server::Candidate;

/// As in [`crate::samples::Sample`].
pub const PART: &str = "redis";
const CONNECTIONS: u32 = 50;
/// Keys are chosen at random among so many.
const KEYS: u32 = 100_000;
/// What is measured, as redis-benchmark's -t calls it.
const COMMANDS: [(&str, &str); 5] = [
    ("PING", "ping_mbulk"),
    ("SET", "set"),
    ("GET", "get"),
    ("INCR", "incr"),
    ("MSET", "mset"),
];
/// Requests on their way on each connection.
const PIPELINES: [u64; 3] = [1, 16, 128];
/// How long a slice takes, about.
const SLICE: Duration = Duration::from_millis(250);
/// Slices of each server in a round. The machine's own speed changes within seconds: the more
/// turns, the more alike is what the servers see of it.
const SLICES_PER_ROUND: u32 = 4;
/// Requests of the run that finds out how many fill a slice; no slice has fewer.
const TRIAL_REQUESTS: u64 = 20_000;
/// SETs before the first slice: nearly all keys then exist, so that GET finds them.
const FILL_REQUESTS: u64 = 10 * KEYS as u64;

/// A second of each server in a round; servers and redis-benchmark on a CPU each.
pub fn plan(rounds: u32) -> Plan {
    Plan::apart(rounds, SLICES_PER_ROUND, SLICE)
}

/// redis-server twice, the second time as the control, if it is installed.
pub fn servers(folder: &TempDir) -> io::Result<Vec<Candidate>> {
    let Some(program) = find("redis-server") else {
        return Ok(Vec::new());
    };
    ["redis", "redis again"]
        .into_iter()
        .map(|name| {
            let addr = free_addr()?;
            let log = folder.path().join(format!("{name}.log"));
            let command = announced(
                &[
                    &program.to_string_lossy(),
                    "--port",
                    &addr.port().to_string(),
                    "--bind",
                    &addr.ip().to_string(),
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--daemonize",
                    "no",
                    "--io-threads",
                    "1",
                    "--dir",
                    &folder.path().to_string_lossy(),
                ],
                addr,
                &log,
            );
            Ok(Candidate::new(name, command))
        })
        .collect()
}

/// Runs redis-benchmark against all candidates, for each case that contains `filter`.
pub fn measure(
    candidates: &[Candidate],
    plan: &Plan,
    filter: &str,
    record: &mut Record,
) -> io::Result<()> {
    let contenders = start(PART, candidates, plan, probe, record)?;
    for contender in &contenders {
        let run = Run {
            addr: contender.server.addr(),
            test: "set",
            pipeline: 128,
            requests: FILL_REQUESTS,
        };
        run.benchmark(plan)?;
    }
    for pipeline in PIPELINES {
        for (command, test) in COMMANDS {
            let case = format!("{command}; pipeline {pipeline}");
            if !case.contains(filter) {
                continue;
            }
            println!("{PART}: {case}");
            let trial = |addr| Run {
                addr,
                test,
                pipeline,
                requests: TRIAL_REQUESTS,
            };
            let requests: Vec<u64> = contenders
                .iter()
                .map(|contender| {
                    let slice = trial(contender.server.addr()).benchmark(plan);
                    slice.map_or(TRIAL_REQUESTS, |slice| slice_requests(&slice, pipeline))
                })
                .collect();
            race(
                (PART, &case),
                &contenders,
                plan,
                |turn, addr| {
                    Run {
                        requests: requests[turn],
                        ..trial(addr)
                    }
                    .benchmark(plan)
                },
                record,
            )?;
        }
    }
    Ok(())
}

/// How many requests take the time of a slice, in whole pipelines.
fn slice_requests(trial: &Slice, pipeline: u64) -> u64 {
    let rate = trial
        .figures
        .iter()
        .find_map(|(metric, value)| (*metric == "per second").then_some(*value))
        .unwrap_or(TRIAL_REQUESTS as f64);
    let requests = rate * SLICE.as_secs_f64();
    (requests as u64)
        .max(TRIAL_REQUESTS)
        .next_multiple_of(pipeline)
}

/// Each command that is measured, and the reply it has to get: redis-benchmark would count errors
/// as answers.
const PROBE: [(&[&str], &str); 5] = [
    (&["PING"], "+PONG\r\n"),
    (&["SET", "report:probe", "xyz"], "+OK\r\n"),
    (&["GET", "report:probe"], "$3\r\nxyz\r\n"),
    (&["INCR", "report:count"], ":1\r\n"),
    (&["MSET", "report:a", "1", "report:b", "2"], "+OK\r\n"),
];

fn probe(addr: SocketAddr) -> io::Result<()> {
    let mut stream = connect(addr)?;
    for (words, expected) in PROBE {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(request.as_bytes())?;
        let mut reply = vec![0; expected.len()];
        stream.read_exact(&mut reply)?;
        if reply != expected.as_bytes() {
            return Err(io::Error::other(format!(
                "{} was answered with {:?}",
                words.join(" "),
                String::from_utf8_lossy(&reply)
            )));
        }
    }
    Ok(())
}

/// One start of redis-benchmark.
struct Run {
    addr: SocketAddr,
    test: &'static str,
    pipeline: u64,
    requests: u64,
}

impl Run {
    fn benchmark(&self, plan: &Plan) -> io::Result<Slice> {
        let mut command = Command::new("redis-benchmark");
        command
            .args(["-h", &self.addr.ip().to_string()])
            .args(["-p", &self.addr.port().to_string()])
            .args(["-t", self.test, "--csv"])
            .args(["-c", &CONNECTIONS.to_string()])
            .args(["-r", &KEYS.to_string()])
            .args(["-P", &self.pipeline.to_string()])
            .args(["-n", &self.requests.to_string()]);
        let text = run_load(&mut command, plan.load_cpu)?;
        Ok(Slice {
            requests: self.requests as f64,
            figures: parse(&text)?,
        })
    }
}

/// Reads the table that redis-benchmark prints with --csv: a header, and one test.
fn parse(text: &str) -> io::Result<Vec<(&'static str, f64)>> {
    let bad = || io::Error::other(format!("redis-benchmark printed no result: {text}"));
    let fields = |line: &str| -> Vec<String> {
        // No name has a comma or a quote in it.
        line.split(',')
            .map(|field| field.trim().trim_matches('"').to_string())
            .collect()
    };
    let mut lines = text.lines().filter(|line| line.starts_with('"'));
    let header = fields(lines.next().ok_or_else(bad)?);
    let row = fields(lines.next().ok_or_else(bad)?);
    let column = |name: &str| -> io::Result<f64> {
        let place = header.iter().position(|field| field == name);
        place
            .and_then(|place| row.get(place)?.parse().ok())
            .ok_or_else(bad)
    };
    Ok(vec![
        ("per second", column("rps")?),
        ("p50 us", column("p50_latency_ms")? * 1e3),
        ("p99 us", column("p99_latency_ms")? * 1e3),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = concat!(
        r#""test","rps","avg_latency_ms","min_latency_ms","#,
        r#""p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms""#,
        "\n",
        r#""MSET (10 keys)","104166.66","0.262","0.088","0.25","0.359","0.5","1.639""#,
        "\n"
    );

    #[test]
    fn what_redis_benchmark_prints_is_understood() {
        let figures = parse(OUTPUT).unwrap();
        assert_eq!(
            figures,
            [
                ("per second", 104_166.66),
                ("p50 us", 250.0),
                ("p99 us", 500.0)
            ]
        );
    }

    #[test]
    fn a_benchmark_without_a_result_is_an_error() {
        assert!(parse("").is_err());
        assert!(parse(OUTPUT.lines().next().unwrap()).is_err());
        assert!(parse("Could not connect to Redis at 127.0.0.1:1: Connection refused").is_err());
    }

    #[test]
    fn a_slice_has_whole_pipelines() {
        let slice = |rate| Slice {
            requests: 1.0,
            figures: vec![("per second", rate)],
        };
        assert_eq!(slice_requests(&slice(4_000_000.0), 128), 1_000_064);
        assert_eq!(slice_requests(&slice(10.0), 1), TRIAL_REQUESTS);
    }
}

//! HTTP servers under wrk.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::foreign::{Slice, TempDir, announced, connect, find, free_addr, race, run_load, start};
use crate::plan::Plan;
use crate::report::runs::Record;
use crate::server::Candidate;

/// As in [`crate::samples::Sample`].
pub const PART: &str = "http";
/// wrk's, in all.
const CONNECTIONS: usize = 64;
/// Requests on their way on each connection.
pub const PIPELINES: [usize; 2] = [1, 16];
/// What every server answers.
const BODY: &str = "Hello, World!";
/// The shortest time that wrk knows.
const SLICE: Duration = Duration::from_secs(1);

/// A second of each server in a round; servers and wrk on a CPU each.
pub fn plan(rounds: u32) -> Plan {
    Plan::apart(rounds, 1, SLICE)
}

/// The case with so many requests on their way.
pub fn case(pipeline: usize) -> String {
    format!("{CONNECTIONS} connections; pipeline {pipeline}")
}

/// nginx and haproxy, those of them that are installed, with configurations in `folder`.
pub fn proxies(folder: &TempDir) -> io::Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    if let Some(nginx) = find("nginx") {
        let addr = free_addr()?;
        let config = folder.write("nginx.conf", &nginx_config(addr))?;
        let log = folder.path().join("nginx.log");
        // -p: what is not given as an absolute path lies in there; -e: before it has read the file.
        let command = announced(
            &[
                &nginx.to_string_lossy(),
                "-p",
                &folder.path().to_string_lossy(),
                "-e",
                "stderr",
                "-c",
                &config.to_string_lossy(),
            ],
            addr,
            &log,
        );
        candidates.push(Candidate::new("nginx", command));
    }
    if let Some(haproxy) = find("haproxy") {
        let addr = free_addr()?;
        let config = folder.write("haproxy.cfg", &haproxy_config(addr))?;
        let log = folder.path().join("haproxy.log");
        let command = announced(
            &[
                &haproxy.to_string_lossy(),
                "-db",
                "-f",
                &config.to_string_lossy(),
            ],
            addr,
            &log,
        );
        candidates.push(Candidate::new("haproxy", command));
    }
    Ok(candidates)
}

/// One process, no logs, and no limit to the requests of a connection.
fn nginx_config(addr: SocketAddr) -> String {
    format!(
        "daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{
    worker_connections 1024;
}}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    server {{
        listen {addr};
        location / {{
            return 200 \"{BODY}\";
        }}
    }}
}}
"
    )
}

fn haproxy_config(addr: SocketAddr) -> String {
    format!(
        "global
    nbthread 1
defaults
    mode http
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
frontend plaintext
    bind {addr}
    http-request return status 200 content-type text/plain string \"{BODY}\"
"
    )
}

/// Runs wrk against all candidates, for each pipeline of which the case contains `filter`.
pub fn measure(
    candidates: &[Candidate],
    plan: &Plan,
    filter: &str,
    folder: &TempDir,
    record: &mut Record,
) -> io::Result<()> {
    let script = folder.write("pipeline.lua", PIPELINE_SCRIPT)?;
    let deepest = PIPELINES.into_iter().max().unwrap_or(1);
    let contenders = start(PART, candidates, plan, |addr| probe(addr, deepest), record)?;
    for pipeline in PIPELINES {
        let case = case(pipeline);
        if !case.contains(filter) {
            continue;
        }
        println!("{PART}: {case}");
        // A slice for nothing: caches, and tables that grow once.
        for contender in &contenders {
            let _ = wrk(contender.server.addr(), pipeline, &script, plan);
        }
        race(
            (PART, &case),
            &contenders,
            plan,
            |_, addr| wrk(addr, pipeline, &script, plan),
            record,
        )?;
    }
    Ok(())
}

/// Sends so many requests in one write and reads as many right responses.
fn probe(addr: SocketAddr, requests: usize) -> io::Result<()> {
    let mut stream = connect(addr)?;
    let request = format!("GET / HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    stream.write_all(request.repeat(requests).as_bytes())?;
    let mut reply = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&reply);
        let right = text.matches("HTTP/1.1 200").count();
        if right == requests && text.matches(BODY).count() == requests {
            return Ok(());
        }
        let wrong = |what: &str| {
            io::Error::other(format!(
                "{right} of {requests} pipelined requests answered with 200 and `{BODY}`, \
                 then {what}"
            ))
        };
        match stream.read(&mut buffer) {
            Ok(0) => return Err(wrong("the connection was closed")),
            Ok(len) => reply.extend_from_slice(&buffer[..len]),
            Err(error) => return Err(wrong(&error.to_string())),
        }
    }
}

/// Sends batches; how many requests each has is the script's argument. wrk counts the responses.
const PIPELINE_SCRIPT: &str = "local batch

init = function(arguments)
    local requests = {}
    for i = 1, tonumber(arguments[1]) do
        requests[i] = wrk.format(nil, '/')
    end
    batch = table.concat(requests)
end

request = function()
    return batch
end
";

fn wrk(addr: SocketAddr, pipeline: usize, script: &Path, plan: &Plan) -> io::Result<Slice> {
    let mut command = Command::new("wrk");
    command
        .args(["-t", "1", "-c", &CONNECTIONS.to_string()])
        .args(["-d", &format!("{}s", SLICE.as_secs()), "--latency"]);
    // Without a script wrk sends one request from a buffer, which is the least that it can do.
    if pipeline > 1 {
        command.arg("-s").arg(script);
    }
    command.arg(format!("http://{addr}/"));
    if pipeline > 1 {
        command.args(["--", &pipeline.to_string()]);
    }
    let mut slice = parse(&run_load(&mut command, plan.load_cpu)?)?;
    if pipeline > 1 {
        // wrk corrects latencies by the mean time between two requests of a connection, which is
        // not that between two batches: its percentiles are then wrong, down to 0.
        slice.figures.retain(|(metric, _)| *metric == "per second");
    }
    Ok(slice)
}

/// Reads what wrk prints with --latency; failed requests are an error that quotes its line.
fn parse(text: &str) -> io::Result<Slice> {
    let lines = || text.lines().map(str::trim);
    if let Some(line) = lines().find(|line| {
        line.starts_with("Socket errors:") || line.starts_with("Non-2xx or 3xx responses:")
    }) {
        return Err(io::Error::other(format!("wrk: {line}")));
    }
    let number = |found: Option<f64>, what: &str| {
        found.ok_or_else(|| io::Error::other(format!("wrk printed no {what}: {text}")))
    };
    let requests = lines().find_map(|line| {
        let (count, rest) = line.split_once(' ')?;
        rest.starts_with("requests in")
            .then(|| count.parse().ok())?
    });
    let rate = lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    let percentile =
        |name: &str| lines().find_map(|line| microseconds(line.strip_prefix(name)?.trim()));
    let requests = number(requests, "count of requests")?;
    if requests == 0.0 {
        return Err(io::Error::other("wrk: no request was answered"));
    }
    Ok(Slice {
        requests,
        figures: vec![
            ("per second", number(rate, "Requests/sec")?),
            ("p50 us", number(percentile("50%"), "50% latency")?),
            ("p99 us", number(percentile("99%"), "99% latency")?),
        ],
    })
}

/// A time as wrk writes it: `812.00us`, `1.25ms`, `1.02s`, `1.5m`.
fn microseconds(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let factor = match &text[unit..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(text[..unit].parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 1s test @ http://127.0.0.1:8080/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   523.14us   61.28us   2.01ms   92.36%
    Req/Sec   122.71k     3.52k  127.03k    81.82%
  Latency Distribution
     50%  512.00us
     75%  541.00us
     90%  577.00us
     99%    1.25ms
  134267 requests in 1.10s, 16.65MB read
Requests/sec: 122069.62
Transfer/sec:     15.13MB
";

    #[test]
    fn what_wrk_prints_is_understood() {
        let slice = parse(OUTPUT).unwrap();
        assert_eq!(slice.requests, 134_267.0);
        assert_eq!(
            slice.figures,
            [
                ("per second", 122_069.62),
                ("p50 us", 512.0),
                ("p99 us", 1250.0)
            ]
        );
    }

    #[test]
    fn failed_requests_reject_the_slice() {
        for line in [
            "  Socket errors: connect 0, read 3, write 0, timeout 0",
            "  Non-2xx or 3xx responses: 12",
        ] {
            let error = parse(&format!("{OUTPUT}{line}\n")).unwrap_err();
            assert!(error.to_string().contains(line.trim()), "{error}");
        }
        assert!(parse(&OUTPUT.replace("134267", "0")).is_err());
        assert!(parse("unable to connect to 127.0.0.1:1").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(microseconds("1.02s"), Some(1_020_000.0));
        assert_eq!(microseconds("0.50m"), Some(30_000_000.0));
        assert_eq!(microseconds("5"), None);
        assert_eq!(microseconds("5 apples"), None);
    }
}

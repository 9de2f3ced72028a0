//! The load of fan-out: right servers pass, and a line that is lost, doubled, late or changed is
//! found out.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use greenroom_benches::fanout::{self, FanoutShape, Pace};
use greenroom_benches::fanout_load::{FanoutLoad, Report};
use greenroom_benches::plan::Plan;

const TIME: Duration = Duration::from_millis(100);

/// Runs a load of two members for `TIME` against a server which sends to them what `answer` makes
/// of each line; it is given the number of the line, counted from 0.
fn run(pace: Pace, answer: impl Fn(u64, &str) -> Vec<u8> + Send + 'static) -> io::Result<Report> {
    run_for(TIME, pace, answer)
}

fn run_for(
    time: Duration,
    pace: Pace,
    answer: impl Fn(u64, &str) -> Vec<u8> + Send + 'static,
) -> io::Result<Report> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let server = thread::spawn(move || {
        let mut members: Vec<TcpStream> = (0..2).map(|_| listener.accept().unwrap().0).collect();
        let publisher = BufReader::new(members[0].try_clone().unwrap());
        for (number, line) in publisher.lines().map_while(Result::ok).enumerate() {
            let bytes = answer(number as u64, &format!("{line}\n"));
            // The load may have given up.
            members
                .iter_mut()
                .for_each(|member| drop(member.write_all(&bytes)));
        }
    });
    let members = (0..2)
        .map(|_| TcpStream::connect(addr))
        .collect::<io::Result<_>>()?;
    let report = FanoutLoad::new(members, 2).and_then(|mut load| load.run(pace, time));
    server.join().unwrap();
    report
}

fn same(_number: u64, line: &str) -> Vec<u8> {
    line.into()
}

#[test]
fn each_line_reaches_each_member() {
    for pace in [Pace::OneAtATime, Pace::Rate(1_000)] {
        let report = run(pace, same).unwrap();
        assert!(report.lines > 10, "{pace:?}: {}", report.lines);
        assert_eq!((report.received, report.lost), (2 * report.lines, 0));
        // Of two members all latencies are recorded.
        assert_eq!(report.latency.len(), report.received);
    }
}

#[test]
fn a_fixed_rate_sends_all_lines_of_its_time() {
    let report = run(Pace::Rate(1_000), same).unwrap();
    // And perhaps some more, by which to find out that nothing is lost.
    assert!((100..150).contains(&report.lines), "{}", report.lines);
}

#[test]
fn lost_lines_are_counted() {
    for pace in [Pace::OneAtATime, Pace::Rate(1_000)] {
        let drops = |number, line: &str| match number {
            5 | 7 | 8 => Vec::new(),
            _ => line.into(),
        };
        // Time enough for one line at a time, which waits for each that does not come.
        let report = run_for(TIME * 10, pace, drops).unwrap();
        assert_eq!(report.lost, 2 * 3, "{pace:?}");
        assert_eq!(report.received, 2 * report.lines - report.lost);
    }
}

#[test]
fn a_line_that_comes_twice_is_found_out() {
    let doubles = |number, line: &str| line.repeat(if number == 9 { 2 } else { 1 }).into();
    let error = run(Pace::Rate(1_000), doubles).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn lines_in_another_order_are_found_out() {
    let kept = std::sync::Mutex::new(String::new());
    let swaps = move |number, line: &str| match number {
        9 => {
            *kept.lock().unwrap() = line.into();
            Vec::new()
        }
        10 => [line, &kept.lock().unwrap()].concat().into(),
        _ => line.into(),
    };
    let error = run(Pace::Rate(1_000), swaps).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_wrong_byte_anywhere_in_a_line_is_found_out() {
    for wrong in [0, 16, 20, 40, 63] {
        let changes = move |number, line: &str| {
            let mut bytes = Vec::from(line);
            if number == 9 {
                bytes[wrong] ^= 1;
            }
            bytes
        };
        let error = run(Pace::Rate(1_000), changes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {wrong}");
    }
}

#[test]
fn latency_counts_from_when_a_line_was_due() {
    let stalls = |number, line: &str| {
        if number == 20 {
            thread::sleep(Duration::from_millis(50));
        }
        line.into()
    };
    let report = run(Pace::Rate(1_000), stalls).unwrap();
    // The lines that were due within the stall are half of all.
    let p90 = Duration::from_nanos(report.latency.value_at_quantile(0.9));
    assert!(p90 >= Duration::from_millis(20), "{p90:?}");
}

#[test]
fn the_floor_loses_nothing() {
    for pace in [Pace::OneAtATime, Pace::Rate(500)] {
        let shape = FanoutShape {
            members: 300,
            pace,
            readers: 2,
            server_threads: 1,
        };
        let samples = fanout::measure(&[], shape, &Plan::beside(1, 2, TIME)).unwrap();
        let of = |metric: &str| -> Vec<f64> {
            let all = samples.iter().filter(|sample| sample.metric == metric);
            all.map(|sample| sample.value).collect()
        };
        let lost = of("lost");
        assert!(
            !lost.is_empty() && lost.iter().all(|&lost| lost == 0.0),
            "{pace:?}: {lost:?}"
        );
        assert!(of("per second").iter().all(|&rate| rate > 0.0), "{pace:?}");
        assert!(of("cpu ns").iter().all(|&ns| ns > 0.0), "{pace:?}");
    }
}

//! What the system benchmarks share: starting a server and reading its costs, and loading it
//! through real sockets.
//!
//! The programs are `load` (one server, one kind of load), `compare` (several servers against the C
//! loop), `accept` and `memory`; [`rounds`] is for the micro-benchmarks. The package's README says
//! which one answers which question.

pub mod catalogue;
pub mod connections;
pub mod connects;
pub mod echo;
pub mod echo_cost;
pub mod fanout;
pub mod fanout_load;
pub mod foreign;
pub mod idle;
pub mod latency;
pub mod many;
pub mod open_loop;
pub mod pingers;
pub mod plan;
pub mod report;
pub mod rounds;
pub mod samples;
pub mod server;
pub mod start;
pub mod syscalls;
pub mod two;

mod random;
mod sys;

pub use sys::{
    Epoll, EventFd, connect_from, pin_if_many, raise_descriptor_limit, reduce_timer_slack,
    reset_on_close, stand_back,
};

use hdrhistogram::Histogram;

/// A histogram of latencies in nanoseconds: from 1 ns to a minute, to three significant digits.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constants in order")
}

/// One line with the percentiles of `latency`, in microseconds.
pub fn latency_line(latency: &Histogram<u64>) -> String {
    let us = |ns: u64| ns as f64 / 1e3;
    format!(
        "p50 {:.1} us, p90 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, max {:.1} us",
        us(latency.value_at_quantile(0.5)),
        us(latency.value_at_quantile(0.9)),
        us(latency.value_at_quantile(0.99)),
        us(latency.value_at_quantile(0.999)),
        us(latency.max()),
    )
}

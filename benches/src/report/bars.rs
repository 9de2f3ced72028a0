//! What greenroom is held to.

/// What a figure is compared with before it meets its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Against {
    /// Nothing: the figure itself counts.
    Itself,
    /// This server's, in the same case and round.
    Server(&'static str),
    /// The best peer's, in the same case and round.
    BestPeer,
    /// greenroom's own in this case, in the same round.
    Case(&'static str),
}

/// A limit, itself within reach.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// At most this much.
    AtMost(f64),
    /// At least this much.
    AtLeast(f64),
}

/// One way to reach a bar.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// With what the figure is compared.
    pub against: Against,
    /// How far the result may go.
    pub limit: Limit,
}

/// One thing that greenroom has to reach.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// The work; bars of the same work stand together.
    pub work: &'static str,
    /// What of it this bar is about.
    pub what: &'static str,
    /// Which of ours is meant; `greenroom`, where it has no settings to choose from.
    pub server: &'static str,
    /// As in [`Series`](crate::samples::Series).
    pub part: &'static str,
    /// As in [`Series`](crate::samples::Series).
    pub case: &'static str,
    /// As in [`Series`](crate::samples::Series).
    pub metric: &'static str,
    /// One of them has to be reached.
    pub goals: &'static [Goal],
}

use Against::{BestPeer, Case, Itself, Server};
use Limit::{AtLeast, AtMost};

const fn goal(against: Against, limit: Limit) -> Goal {
    Goal { against, limit }
}

/// A bar of greenroom in its usual settings.
const fn bar(
    (work, what): (&'static str, &'static str),
    (part, case, metric): (&'static str, &'static str, &'static str),
    goals: &'static [Goal],
) -> Bar {
    Bar {
        work,
        what,
        server: "greenroom",
        part,
        case,
        metric,
        goals,
    }
}

const ECHO: &str = "echo: server CPU for a message, the C loop is 1";
const LATENCY: &str = "echo, open loop at half of full load, 1,000 connections";
const HTTP: &str = "HTTP plaintext, wrk, 64 connections: server CPU for a request";
const REDIS: &str = "redis-benchmark: server CPU for a request, redis-server is 1";
const SENDS: &str = "sends to an actor on another thread";
const WAKE: &str = "wake latency, round trip over two threads";
const IDLE: &str = "resident bytes of a connection";
const MANY: &str = "very many connections and actors";
const FANOUT: &str = "fan-out, all lines to all members";
const TIMERS: &str = "timers, 1,000,000 pending";
const ACCEPT: &str = "accept: server CPU for a connection, the C loop is 1";
const START: &str = "start of a system with 2 pollers";
const TWO: &str = "two pollers, the load beside them: messages a second";

/// All bars, those of one work together.
pub const BARS: [Bar; 44] = [
    bar(
        (ECHO, "100 connections"),
        ("echo", "64 B; 100 connections", "cpu ns"),
        &[goal(Server("c"), AtMost(1.02))],
    ),
    bar(
        (ECHO, "1,000 connections"),
        ("echo", "64 B; 1000 connections", "cpu ns"),
        &[goal(Server("c"), AtMost(1.02))],
    ),
    bar(
        (ECHO, "system calls, 1 connection"),
        ("echo", "64 B; 1 connections", "syscalls"),
        &[goal(Server("c"), AtMost(1.0))],
    ),
    bar(
        (ECHO, "pipeline 32"),
        ("echo", "64 B; 100 connections; pipeline 32", "cpu ns"),
        &[goal(Server("c"), AtMost(1.02))],
    ),
    bar(
        (ECHO, "16 KiB"),
        ("echo", "16 KiB; 100 connections", "cpu ns"),
        &[goal(Server("c"), AtMost(1.02))],
    ),
    bar(
        (LATENCY, "p99"),
        ("latency", "64 B; 1000 connections", "p99 us"),
        &[goal(Server("c"), AtMost(1.1))],
    ),
    bar(
        (LATENCY, "p99.9"),
        ("latency", "64 B; 1000 connections", "p99.9 us"),
        &[goal(Server("c"), AtMost(1.1))],
    ),
    bar(
        (LATENCY, "slowest connection"),
        ("latency", "64 B; 1000 connections", "fairness"),
        &[goal(Itself, AtLeast(0.9))],
    ),
    bar(
        (HTTP, "pipeline 1"),
        ("http", "64 connections; pipeline 1", "cpu ns"),
        &[goal(BestPeer, AtMost(1.0))],
    ),
    bar(
        (HTTP, "pipeline 16"),
        ("http", "64 connections; pipeline 16", "cpu ns"),
        &[goal(BestPeer, AtMost(1.0))],
    ),
    bar(
        (HTTP, "pipeline 16"),
        ("http", "64 connections; pipeline 16", "cpu ns"),
        &[
            goal(Server("may_minihttp"), AtMost(0.7)),
            goal(Itself, AtMost(400.0)),
        ],
    ),
    bar(
        (REDIS, "PING; -P 1"),
        ("redis", "PING; pipeline 1", "cpu ns"),
        &[goal(Server("redis"), AtMost(0.72))],
    ),
    bar(
        (REDIS, "PING; -P 16"),
        ("redis", "PING; pipeline 16", "cpu ns"),
        &[goal(Server("redis"), AtMost(0.58))],
    ),
    bar(
        (REDIS, "PING; -P 128"),
        ("redis", "PING; pipeline 128", "cpu ns"),
        &[goal(Server("redis"), AtMost(0.3))],
    ),
    bar(
        (REDIS, "SET; -P 1"),
        ("redis", "SET; pipeline 1", "cpu ns"),
        &[goal(Server("redis"), AtMost(0.75))],
    ),
    bar(
        (REDIS, "SET; -P 16"),
        ("redis", "SET; pipeline 16", "cpu ns"),
        &[goal(Server("redis"), AtMost(0.65))],
    ),
    bar(
        (REDIS, "SET; -P 128"),
        ("redis", "SET; pipeline 128", "cpu ns"),
        &[goal(Server("redis"), AtMost(0.4))],
    ),
    bar(
        (REDIS, "GET; -P 1"),
        ("redis", "GET; pipeline 1", "cpu ns"),
        &[goal(Server("redis"), AtMost(0.75))],
    ),
    bar(
        (REDIS, "GET; -P 16"),
        ("redis", "GET; pipeline 16", "cpu ns"),
        &[goal(Server("redis"), AtMost(0.62))],
    ),
    bar(
        (REDIS, "GET; -P 128"),
        ("redis", "GET; pipeline 128", "cpu ns"),
        &[goal(Server("redis"), AtMost(0.33))],
    ),
    bar(
        (SENDS, "1 producer"),
        ("messages", "8 bytes; 1 sender", "per second"),
        &[goal(Server("crossbeam"), AtLeast(1.0))],
    ),
    bar(
        (SENDS, "1 producer"),
        ("messages", "8 bytes; 1 sender", "per second"),
        &[goal(Server("tokio"), AtLeast(1.2))],
    ),
    bar(
        (SENDS, "4 producers"),
        ("messages", "8 bytes; 4 senders", "per second"),
        &[goal(Server("crossbeam"), AtLeast(1.0))],
    ),
    bar(
        (SENDS, "4 producers"),
        ("messages", "8 bytes; 4 senders", "per second"),
        &[goal(Server("tokio"), AtLeast(20.0))],
    ),
    bar(
        (WAKE, "round trip"),
        ("wake", "round trip over two threads", "ns"),
        &[goal(Server("eventfd"), AtMost(1.0))],
    ),
    Bar {
        server: "greenroom busy-poll",
        ..bar(
            (WAKE, "with busy-poll"),
            ("wake", "round trip over two threads", "ns"),
            &[goal(Itself, AtMost(3000.0))],
        )
    },
    bar(
        (IDLE, "idle"),
        ("idle", "19000 connections", "bytes"),
        &[goal(Itself, AtMost(48.0))],
    ),
    bar(
        (IDLE, "after a message"),
        ("idle", "19000 connections", "bytes used"),
        &[goal(Itself, AtMost(48.0))],
    ),
    bar(
        (MANY, "8 processes of 19,000"),
        ("many", "8 processes of 19000 connections", "bytes"),
        &[goal(Itself, AtMost(48.0))],
    ),
    bar(
        (MANY, "1,000,000 actors"),
        ("many", "1000000 actors without sockets", "bytes"),
        &[goal(Itself, AtMost(48.0))],
    ),
    bar(
        (MANY, "p99; 1,000 of 19,000 active"),
        ("many", "1000 active of 19000", "p99 us"),
        &[goal(Case("1000 active of 1000"), AtMost(1.1))],
    ),
    bar(
        (FANOUT, "1,000 members"),
        ("fanout", "1000 members; one line at a time", "cpu ns"),
        &[goal(Server("c"), AtMost(1.1))],
    ),
    bar(
        (FANOUT, "10,000 members"),
        ("fanout", "10000 members; one line at a time", "cpu ns"),
        &[goal(Server("c"), AtMost(1.1))],
    ),
    bar(
        (FANOUT, "1,000 members, 2 pollers"),
        (
            "fanout",
            "1000 members; one line at a time; 2 threads",
            "cpu ns",
        ),
        &[goal(Server("c"), AtMost(1.1))],
    ),
    bar(
        (FANOUT, "10,000 members, 2 pollers"),
        (
            "fanout",
            "10000 members; one line at a time; 2 threads",
            "cpu ns",
        ),
        &[goal(Server("c"), AtMost(1.1))],
    ),
    bar(
        (FANOUT, "4,000 lines a second"),
        (
            "fanout",
            "1000 members; 4000 lines per second",
            "per second",
        ),
        &[goal(Server("tokio"), AtLeast(10.0))],
    ),
    bar(
        (FANOUT, "4,000 lines a second, lost"),
        ("fanout", "1000 members; 4000 lines per second", "lost"),
        &[goal(Itself, AtMost(0.0))],
    ),
    // Two pollers deliver all that is offered here, so the ratio cannot be more than 2,000,000 to
    // what tokio delivers.
    bar(
        (FANOUT, "2,000 lines a second, 2 pollers"),
        (
            "fanout",
            "1000 members; 2000 lines per second; 2 threads",
            "per second",
        ),
        &[goal(Server("tokio"), AtLeast(10.0))],
    ),
    bar(
        (FANOUT, "2,000 lines a second, 2 pollers, lost"),
        (
            "fanout",
            "1000 members; 2000 lines per second; 2 threads",
            "lost",
        ),
        &[goal(Itself, AtMost(0.0))],
    ),
    bar(
        (TIMERS, "set and cancel"),
        ("timers", "set and cancel; 1000000 pending", "ns"),
        &[goal(Server("tokio"), AtMost(0.5))],
    ),
    bar(
        (ACCEPT, "connect and close"),
        ("accept", "connect and close", "cpu ns"),
        &[goal(Server("c"), AtMost(1.1))],
    ),
    bar(
        (START, "first byte served"),
        ("start", "in process; 2 pollers", "ms"),
        &[goal(Itself, AtMost(5.0))],
    ),
    bar(
        (TWO, "100 connections"),
        ("two", "64 B; 100 connections", "per second"),
        &[goal(BestPeer, AtLeast(1.0))],
    ),
    bar(
        (TWO, "1,000 connections"),
        ("two", "64 B; 1000 connections", "per second"),
        &[goal(BestPeer, AtLeast(1.0))],
    ),
];

//! The parts of the comparison, and the servers that stand in each.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use crate::server::{Candidate, shell_quote};

/// How a part's figures are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// Bars: the ratio to the reference, with the least and the most of the rounds.
    Ratios,
    /// Bars of the values themselves, on a logarithmic axis.
    Values,
    /// Lines over the percentiles.
    Percentiles,
}

/// One kind of measurement.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// As in [`crate::samples::Sample`].
    pub name: &'static str,
    /// The heading of its section.
    pub title: &'static str,
    /// What is done and what the figures are.
    pub what: &'static str,
    /// The metric that counts, and is drawn.
    pub metric: &'static str,
    /// The server that is 1 in its tables and plots.
    pub reference: &'static str,
    /// How it is drawn.
    pub plot: Plot,
}

/// All parts, in the order in which they run and are reported.
pub const PARTS: [Part; 13] = [
    Part {
        name: "echo",
        title: "Echo",
        what: "A closed loop of our own load generator, which verifies every byte. Servers on one \
               thread and one CPU, the load on another, in slices of milliseconds by turns. `cpu \
               ns` is the server's CPU time, user and system, for each message; `syscalls` are \
               counted by strace.",
        metric: "cpu ns",
        reference: "c",
        plot: Plot::Ratios,
    },
    Part {
        name: "latency",
        title: "Latency",
        what: "An open loop: each message has a fixed time, and its latency counts from then, \
               whether the load or the server was late (no coordinated omission). `fairness` is \
               the slowest connection's messages to the mean.",
        metric: "p99 us",
        reference: "c",
        plot: Plot::Percentiles,
    },
    Part {
        name: "http",
        title: "HTTP",
        what: "wrk, 64 connections, on a CPU of its own; servers with one thread on another. Each \
               answers `Hello, World!` as plain text, checked before the first slice. There is no \
               C loop for this: the reference is may_minihttp, and its second instance the \
               control.",
        metric: "cpu ns",
        reference: "may_minihttp",
        plot: Plot::Ratios,
    },
    Part {
        name: "redis",
        title: "Redis",
        what: "redis-benchmark, 50 connections and 100,000 random keys, on a CPU of its own; \
               redis-server and greenroom's example `redis_server` on another. Each server's \
               replies are checked before the first slice. The reference is redis-server, and its \
               second instance the control.",
        metric: "cpu ns",
        reference: "redis",
        plot: Plot::Ratios,
    },
    Part {
        name: "messages",
        title: "Messages",
        what: "Sends to an actor on another thread, against bare channels and other actor \
               libraries, within one process.",
        metric: "per second",
        reference: "crossbeam",
        plot: Plot::Values,
    },
    Part {
        name: "wake",
        title: "Wake",
        what: "A round trip between two threads, each asleep until the other's message wakes it.",
        metric: "ns",
        reference: "eventfd",
        plot: Plot::Values,
    },
    Part {
        name: "idle",
        title: "Memory of a connection",
        what: "Resident memory of the server (RSS of smaps_rollup) beyond what it had after 100 \
               connections had come and gone, for each of many idle connections, and after each \
               has echoed one message. Socket buffers are the kernel's and in no process's RSS.",
        metric: "bytes",
        reference: "c",
        plot: Plot::Values,
    },
    Part {
        name: "many",
        title: "Many connections",
        what: "As many connections as the descriptor limit allows, and a million actors without \
               sockets.",
        metric: "bytes",
        reference: "c",
        plot: Plot::Values,
    },
    Part {
        name: "fanout",
        title: "Fan-out",
        what: "Every line that a member sends goes to every member; deliveries are counted and \
               stamped by the load.",
        metric: "per second",
        reference: "c",
        plot: Plot::Values,
    },
    Part {
        name: "timers",
        title: "Timers",
        what: "Timers set and cancelled beside many that are pending, within one process.",
        metric: "ns",
        reference: "tokio",
        plot: Plot::Values,
    },
    Part {
        name: "accept",
        title: "Accept",
        what: "Connections opened and closed as fast as the load can. `cpu ns` is the server's \
               CPU time for each.",
        metric: "cpu ns",
        reference: "c",
        plot: Plot::Ratios,
    },
    Part {
        name: "start",
        title: "Start",
        what: "From the start of the process to the first byte served.",
        metric: "ms",
        reference: "c",
        plot: Plot::Values,
    },
    Part {
        name: "two",
        title: "Two threads",
        what: "Servers with two threads on both CPUs, and the load beside them.",
        metric: "cpu ns",
        reference: "c",
        plot: Plot::Ratios,
    },
];

/// The part called `name`.
pub fn part(name: &str) -> Option<&'static Part> {
    PARTS.iter().find(|part| part.name == name)
}

/// The peers that echo: what they are called here, and by the program `peers`.
const ECHO_PEERS: [(&str, &str); 7] = [
    ("mio", "mio"),
    ("tokio", "tokio"),
    ("tokio per core", "tokio-per-core"),
    ("monoio", "monoio"),
    ("may", "may"),
    ("actix", "actix"),
    ("message-io", "message-io"),
];
/// The peers that speak HTTP. The control is a second instance of the reference.
const HTTP_PEERS: [(&str, &str); 5] = [
    ("may_minihttp", "may-minihttp"),
    ("may_minihttp again", "may-minihttp"),
    ("hyper", "hyper"),
    ("ntex", "ntex"),
    ("actix-web", "actix-web"),
];

/// Where the programs that are measured lie.
#[derive(Clone, Debug)]
pub struct Programs {
    /// cargo's folder of the release profile.
    release: PathBuf,
}

impl Programs {
    /// Those built into the same target folder as the running program.
    pub fn beside_this_one() -> io::Result<Programs> {
        let program = env::current_exe()?;
        let release = program.parent().unwrap_or(Path::new("."));
        Ok(Programs {
            release: release.to_path_buf(),
        })
    }

    /// cargo's target folder.
    pub fn target(&self) -> &Path {
        self.release.parent().unwrap_or(&self.release)
    }

    /// The program of the peers.
    pub fn peers(&self) -> PathBuf {
        self.release.join("peers")
    }

    /// Echo servers with so many threads. `buffer` is what each peer reads into, where it can be
    /// chosen.
    pub fn echo(&self, threads: usize, buffer: usize) -> Vec<Candidate> {
        let mut candidates = vec![self.example("echo", threads, "")];
        candidates.extend(ECHO_PEERS.iter().map(|peer| {
            // message-io serves all connections on one thread, whatever is asked for.
            let threads = if peer.0 == "message-io" { 1 } else { threads };
            self.peer("echo", peer, threads, &format!("--buffer {buffer}"))
        }));
        candidates
    }

    /// HTTP servers with one thread.
    pub fn http(&self) -> Vec<Candidate> {
        let mut candidates = vec![self.example("http_plaintext", 1, "")];
        candidates.extend(HTTP_PEERS.iter().map(|peer| self.peer("http", peer, 1, "")));
        candidates
    }

    /// greenroom's Redis server, with one thread.
    pub fn redis(&self) -> Candidate {
        self.example("redis_server", 1, "")
    }

    /// Fan-out servers with so many threads.
    pub fn fanout(&self, threads: usize) -> Vec<Candidate> {
        vec![
            self.example("push", threads, "--every 0"),
            self.peer("fanout", &("tokio", "tokio"), threads, ""),
        ]
    }

    fn example(&self, name: &str, pollers: usize, more: &str) -> Candidate {
        let program = quoted(&self.release.join("examples").join(name));
        let command = format!("{program} --addr 127.0.0.1:0 --pollers {pollers} {more}");
        Candidate::new("greenroom", command.trim_end())
    }

    fn peer(
        &self,
        kind: &str,
        (name, argument): &(&str, &str),
        threads: usize,
        more: &str,
    ) -> Candidate {
        let program = quoted(&self.peers());
        let command =
            format!("{program} {kind} {argument} --addr 127.0.0.1:0 --threads {threads} {more}");
        Candidate::new(*name, command.trim_end())
    }
}

fn quoted(path: &Path) -> String {
    shell_quote(&path.to_string_lossy())
}

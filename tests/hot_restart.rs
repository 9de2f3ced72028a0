//! The example `hot_restart` under load: generation after generation, no connect fails and no answer
//! is lost.

#[path = "util/process.rs"]
mod process;
mod util;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use process::{Example, program};
use util::{reset, wait_until};

/// Threads that connect as fast as they can.
const CLIENTS: usize = 4;

/// Connects that wait while the server that serves them stands still.
const WAITING: usize = 32;

/// Exchanges that are to succeed before the next thing happens.
const EXCHANGES: usize = 100;

/// One client that connects again and again. Whatever goes wrong is a panic of its thread.
struct Load {
    count: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(addr: SocketAddr) -> Load {
        let (count, is_over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let client = |n| {
            let (count, is_over) = (count.clone(), is_over.clone());
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut guest = Guest::connect(addr);
                    guest.exchange(n);
                    // So that no port of the client's is kept for a minute.
                    reset(guest.stream.into_inner());
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..CLIENTS).map(client).collect();
        Load {
            count,
            is_over,
            threads,
        }
    }

    /// Waits until so many more exchanges have succeeded.
    #[track_caller]
    fn go_on(&self) {
        let goal = self.count.load(Ordering::Relaxed) + EXCHANGES;
        wait_until("the clients are served", || {
            let failed = self.threads.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a client has failed");
            self.count.load(Ordering::Relaxed) >= goal
        });
    }

    /// Ends it; how many connects there were.
    fn end(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("every connect and every answer");
        }
        self.count.load(Ordering::Relaxed)
    }
}

/// A client.
struct Guest {
    stream: BufReader<TcpStream>,
    greeting: String,
}

impl Guest {
    /// Connects and reads the greeting.
    fn connect(addr: SocketAddr) -> Guest {
        Guest::greeted(TcpStream::connect(addr).expect("a connect succeeds"))
    }

    fn greeted(stream: TcpStream) -> Guest {
        stream.set_read_timeout(Some(util::TIMEOUT)).unwrap();
        let mut guest = Guest {
            stream: BufReader::new(stream),
            greeting: String::new(),
        };
        guest.greeting = guest.line();
        guest
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        read.expect("no reset before the answer");
        assert!(line.ends_with('\n'), "the end before the answer: {line:?}");
        line
    }

    /// A question and its answer.
    fn exchange(&mut self, n: usize) {
        let question = format!("question {n}\n");
        self.stream
            .get_mut()
            .write_all(question.as_bytes())
            .unwrap();
        assert_eq!(self.line(), question);
    }
}

/// The next generation.
fn generation(says: &str, path: &Path, more: &[&str]) -> Example {
    let mut args = vec!["--says", says, "--handover", path.to_str().unwrap()];
    args.extend(["--pollers", "2"]);
    args.extend(more);
    Example::start("hot_restart", &args)
}

/// How many connections it says it had, at its end.
fn accepted(example: Example) -> usize {
    let last = example.last_line();
    let count = last
        .strip_prefix("stopped after ")
        .and_then(|rest| rest.strip_suffix(" connections"));
    count.unwrap_or_else(|| panic!("{last:?}")).parse().unwrap()
}

fn is_gone(path: &Path) {
    wait_until("its file is gone", || !path.exists());
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("greenroom-{name}-{}", std::process::id()))
}

/// Three generations under load.
fn replaced_under_load(path: &Path, more: &[&str]) {
    let mut serving = generation("1", path, more);
    let addr = serving.socket_addr();
    let load = Load::start(addr);
    let mut others = 0;
    let mut served = 0;
    for says in ["2", "3", "4"] {
        load.go_on();
        // Somebody who stays through the change.
        let mut guest = Guest::connect(addr);
        // The server stands still, and connects wait in the backlog of each of its sockets.
        serving.signal("STOP");
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| TcpStream::connect(addr).expect("the backlog takes it"))
            .collect();
        let next = thread::scope(|scope| {
            let next = scope.spawn(|| generation(says, path, more));
            serving.signal("CONT");
            next.join().expect("it takes over")
        });
        assert!(next.start_line.contains("it has replaced process"));
        assert_eq!(next.socket_addr(), addr);
        // Whoever connects now is served by the next alone, and those who waited by either.
        let expected = format!("hello from {says}, ");
        for n in 0..10 {
            let mut guest = Guest::connect(addr);
            assert!(guest.greeting.starts_with(&expected), "{}", guest.greeting);
            guest.exchange(n);
        }
        others += 10;
        for stream in waiting {
            Guest::greeted(stream).exchange(0);
        }
        // The old one serves whom it has to the end, and only then ends itself.
        guest.exchange(1);
        assert!(!guest.greeting.starts_with(&expected), "{}", guest.greeting);
        drop(guest);
        others += 1 + WAITING;
        served += accepted(std::mem::replace(&mut serving, next));
    }
    load.go_on();
    let connects = load.end();
    serving.signal("TERM");
    served += accepted(serving);
    assert_eq!(served, connects + others, "each connect was accepted once");
    is_gone(path);
}

#[test]
fn one_acceptor_is_replaced_under_load_without_a_failed_connect_or_a_lost_answer() {
    replaced_under_load(&path("one-acceptor"), &[]);
}

#[test]
fn a_group_of_sockets_is_replaced_under_load_without_a_failed_connect_or_a_lost_answer() {
    replaced_under_load(&path("per-poller"), &["--per-poller"]);
}

#[test]
fn a_start_that_is_killed_before_it_serves_changes_nothing() {
    let path = path("killed");
    let serving = generation("1", &path, &[]);
    let addr = serving.socket_addr();
    let load = Load::start(addr);
    load.go_on();
    // It waits for the one that stands still, and never gets an answer.
    serving.signal("STOP");
    let mut next = std::process::Command::new(program("hot_restart"))
        .args(["--says", "2", "--handover", path.to_str().unwrap()])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    next.kill().unwrap();
    next.wait().unwrap();
    serving.signal("CONT");
    load.go_on();
    assert!(Guest::connect(addr).greeting.starts_with("hello from 1, "));
    // The one after it takes over.
    let next = generation("3", &path, &[]);
    load.go_on();
    let connects = load.end();
    let served = accepted(serving);
    next.signal("TERM");
    assert_eq!(served + accepted(next), connects + 1);
    is_gone(&path);
}

#[test]
fn a_server_that_was_replaced_gives_its_clients_the_time_that_it_was_told() {
    let path = path("drained");
    let first = generation("1", &path, &["--drain", "0"]);
    let mut guest = Guest::connect(first.socket_addr());
    let second = generation("2", &path, &[]);
    // Its deadline has come: the guest is sent away.
    assert_eq!(accepted(first), 1);
    let mut line = String::new();
    let read = guest.stream.read_line(&mut line);
    assert!(matches!(read, Ok(0) | Err(_)), "{line:?}");
    assert!(
        Guest::connect(second.socket_addr())
            .greeting
            .contains("from 2")
    );
    second.signal("INT");
    accepted(second);
    is_gone(&path);
}

/// A successor that hangs between its start and its confirmation.
#[test]
fn a_signal_ends_it_while_a_successor_hangs() {
    let path = path("hangs");
    let serving = generation("1", &path, &[]);
    let mut hangs = UnixStream::connect(&path).unwrap();
    let hello = b"\x0f\0\0\0HGRNROOM\0\x01\0\x01\0\0\0";
    hangs.write_all(hello).unwrap();
    // It has the sockets, and is waited for.
    hangs.read_exact(&mut [0; 64]).unwrap();
    serving.signal("TERM");
    // For as long as a test waits at most; it is waited for a minute.
    let (ended, has_ended) = std::sync::mpsc::channel();
    thread::spawn(move || ended.send(serving.last_line()));
    let last = has_ended.recv_timeout(util::TIMEOUT).expect("it ends");
    assert_eq!(last, "stopped after 0 connections");
    let _ = std::fs::remove_file(&path);
}

//! A server under test as a child process: started, its costs read, ended by its process id.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::sys;

/// How long a server may take until it says where it listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that takes part in a comparison.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it is called in samples: `greenroom`, `tokio`.
    pub name: String,
    /// Starts it through the shell; it prints a line `listening on ADDR`, with port 0 as it was
    /// asked for.
    pub command: String,
}

impl Candidate {
    /// A server of this name and command.
    pub fn new(name: impl Into<String>, command: impl Into<String>) -> Candidate {
        Candidate {
            name: name.into(),
            command: command.into(),
        }
    }

    /// The floor of echo servers, the hand-written C epoll loop; an error if the build found no C
    /// compiler.
    pub fn floor() -> io::Result<Candidate> {
        Ok(Candidate::new("c", built_program(env!("ECHO_LOOP"))?))
    }

    /// The floor of fan-out servers: one bare send(2) for each member and line.
    pub fn fanout_floor() -> io::Result<Candidate> {
        Ok(Candidate::new("c", built_program(env!("FANOUT_LOOP"))?))
    }

    /// The error with the server's name before it.
    pub(crate) fn failed(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.name))
    }
}

/// `floor`, the same again, and the candidates: every comparison has the floor and its control.
pub(crate) fn with_floor(floor: Candidate, candidates: &[Candidate]) -> Vec<Candidate> {
    let again = Candidate::new(format!("{} again", floor.name), floor.command.clone());
    let mut all = vec![floor, again];
    all.extend_from_slice(candidates);
    all
}

/// A running server. Dropping it, in a panic too, kills the process.
#[derive(Debug)]
pub struct Server {
    child: ChildGuard,
    addr: SocketAddr,
}

impl Server {
    /// Starts `command` through the shell and waits for its line `listening on ADDR`.
    pub fn start(command: &str) -> io::Result<Server> {
        Server::start_on(command, None)
    }

    /// As `start`, on `cpus` alone if they are given.
    pub fn start_on(command: &str, cpus: Option<&[usize]>) -> io::Result<Server> {
        let mut shell = Command::new("sh");
        // exec: the shell's process becomes the server, so the id known here is the server's.
        shell
            .arg("-c")
            .arg(format!("exec {command}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        sys::bind_child(&mut shell, cpus)?;
        let mut child = ChildGuard(shell.spawn()?);
        let addr = wait_for_address(&mut child, command)?;
        Ok(Server { child, addr })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// The CPU time it has used so far, user and system, all threads.
    ///
    /// Read from its process CPU-time clock (clock_getcpuclockid(3)), which counts nanoseconds and
    /// is up to date when read; /proc/PID/stat counts ticks of 10 ms, and /proc/PID/schedstat the
    /// first thread alone, without its current turn.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        sys::process_cpu_time(self.pid())
    }
}

/// A child process that is killed and waited for when dropped.
#[derive(Debug)]
pub(crate) struct ChildGuard(pub(crate) Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // Both fail only for a child that has ended and was waited for, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `child`, which was started by `command` with its output in a pipe, says where it
/// listens.
pub(crate) fn wait_for_address(child: &mut ChildGuard, command: &str) -> io::Result<SocketAddr> {
    let stdout = child.0.stdout.take().expect("stdout was set to a pipe");
    let (addrs, found) = mpsc::channel();
    // A thread, for the timeout, and because a server that goes on printing must not fill the pipe
    // and block.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(addr) = parse_listening(&line) {
                // Only the first is waited for; a send to nobody is no error.
                let _ = addrs.send(addr);
            }
        }
    });
    found.recv_timeout(START_TIMEOUT).map_err(|_| {
        io::Error::other(format!(
            "the server `{command}` printed no line `listening on ADDR`"
        ))
    })
}

/// The address in a line that contains `listening on ADDR`.
fn parse_listening(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    let word = rest.split_whitespace().next()?;
    word.trim_end_matches([',', ';', '.']).parse().ok()
}

/// The command that starts a program of `c/`.
fn built_program(program: &str) -> io::Result<String> {
    if !Path::new(program).exists() {
        return Err(io::Error::other(
            "the C servers were not built, because there was no C compiler: install one (`apt-get install gcc`) and build again",
        ));
    }
    // Any port; for an hour at most: a long comparison outlasts their default.
    Ok(format!("{} 0 3600", shell_quote(program)))
}

/// The program `name` of this package, which lies beside the running one.
pub(crate) fn sibling_program(name: &str) -> io::Result<PathBuf> {
    let running = env::current_exe()?;
    // Tests and benches lie in a folder of that one, `deps`.
    let found = running
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|program| program.exists());
    found.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "no program `{name}` beside {}: build the package with `cargo build --release -p greenroom-benches`",
                running.display()
            ),
        )
    })
}

/// `word` as one word for the shell.
pub fn shell_quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All pages in memory, those shared with others too. The figure to quote.
    pub resident: u64,
    /// The pages it alone has and has written: heap and stacks, without the program's text.
    pub private_dirty: u64,
}

impl Memory {
    /// Reads it from /proc/PID/smaps_rollup, which counts pages; the counter of /proc/PID/statm is
    /// up to 64 pages per thread behind.
    pub fn of_process(pid: u32) -> io::Result<Memory> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let field = |name: &str| {
            let kib: Option<u64> = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_whitespace().next())
                .and_then(|word| word.parse().ok());
            kib.map(|kib| kib * 1024)
                .ok_or_else(|| io::Error::other(format!("no {name} in /proc/{pid}/smaps_rollup")))
        };
        Ok(Memory {
            resident: field("Rss:")?,
            private_dirty: field("Private_Dirty:")?,
        })
    }

    /// The resident bytes beyond `base` for each of `count`; below zero if memory was given back.
    pub fn each_beyond(&self, base: &Memory, count: usize) -> f64 {
        (self.resident as f64 - base.resident as f64) / count as f64
    }
}

/// How many descriptors the process `pid` has open.
pub fn descriptor_count(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_inside_a_line() {
        let addr: SocketAddr = "127.0.0.1:80".parse().unwrap();
        assert_eq!(parse_listening("listening on 127.0.0.1:80"), Some(addr));
        assert_eq!(
            parse_listening("echo: listening on 127.0.0.1:80, type a line"),
            Some(addr)
        );
        assert_eq!(
            parse_listening("listening on [::1]:80."),
            "[::1]:80".parse().ok()
        );
        assert_eq!(parse_listening("listening on /tmp/socket"), None);
        assert_eq!(parse_listening("hello"), None);
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error() {
        assert!(Server::start("true").is_err());
    }
}

//! A server under test as a child process: started, its costs read, ended by its process id.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::sys;

/// How long a server may take until it says where it listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running server. Dropping it, in a panic too, kills the process.
#[derive(Debug)]
pub struct Server {
    child: ChildGuard,
    addr: SocketAddr,
}

impl Server {
    /// Starts `command` through the shell, on `cpu` alone if there is one, and waits for its line
    /// `listening on ADDR`.
    pub fn start(command: &str, cpu: Option<usize>) -> io::Result<Server> {
        let mut shell = Command::new("sh");
        // exec: the shell's process becomes the server, so the id known here is the server's.
        shell
            .arg("-c")
            .arg(format!("exec {command}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        sys::bind_child(&mut shell, cpu);
        let mut child = ChildGuard(shell.spawn()?);
        let stdout = child.0.stdout.take().expect("stdout was set to a pipe");
        let (addrs, found) = mpsc::channel();
        // A thread, for the timeout, and because a server that goes on printing must not fill the
        // pipe and block.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(addr) = parse_listening(&line) {
                    // Only the first is waited for; a send to nobody is no error.
                    let _ = addrs.send(addr);
                }
            }
        });
        match found.recv_timeout(START_TIMEOUT) {
            Ok(addr) => Ok(Server { child, addr }),
            Err(_) => Err(io::Error::other(format!(
                "the server `{command}` printed no line `listening on ADDR`"
            ))),
        }
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

/// The address in a line that contains `listening on ADDR`.
fn parse_listening(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    let word = rest.split_whitespace().next()?;
    word.trim_end_matches([',', ';', '.']).parse().ok()
}

/// The command that starts the C echo loop on a free port; an error if the build found no C
/// compiler.
pub fn floor_command() -> io::Result<String> {
    let program = env!("ECHO_LOOP");
    if !Path::new(program).exists() {
        return Err(io::Error::other(
            "the C echo loop was not built, because there was no C compiler: install one (`apt-get install gcc`) and build again",
        ));
    }
    Ok(shell_quote(program))
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
        assert!(Server::start("true", None).is_err());
    }
}

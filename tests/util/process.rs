//! An example as a process of its own, and somebody who talks to it by lines.

#![allow(dead_code, reason = "each test program uses its part of it")]

use std::fmt::Debug;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// By when an event must have come. Only a test that fails waits for so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The program of an example. `cargo test` builds it; with `--test NAME` alone, run
/// `cargo build --examples` before.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    // target/debug/deps/TEST and target/debug/examples/NAME.
    let target = test
        .ancestors()
        .nth(2)
        .expect("a test lies in a folder of its target folder");
    let program = target.join("examples").join(name);
    assert!(
        program.exists(),
        "{} is not there: run `cargo build --examples`",
        program.display()
    );
    program
}

/// A running example. Killed when dropped.
pub(crate) struct Example {
    name: String,
    child: Child,
    lines: Receiver<String>,
    /// The line that it printed at start.
    pub(crate) start_line: String,
}

impl Example {
    /// Starts it on a free port of 127.0.0.1 and waits for its start line.
    pub(crate) fn start(name: &str, args: &[&str]) -> Example {
        let mut all = vec!["--addr", "127.0.0.1:0"];
        all.extend(args);
        Example::start_with(name, &all)
    }

    /// Starts it with these arguments and no others.
    pub(crate) fn start_with(name: &str, args: &[&str]) -> Example {
        let mut child = Command::new(program(name))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("its output is piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut example = Example {
            name: name.to_owned(),
            child,
            lines,
            start_line: String::new(),
        };
        example.start_line = example
            .lines
            .recv_timeout(DEADLINE)
            .expect("it says that it listens");
        example
    }

    /// What stands between `listening on ` and the semicolon.
    pub(crate) fn addr(&self) -> &str {
        let rest = self
            .start_line
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("{:?}", self.start_line));
        rest.split(';').next().unwrap_or(rest)
    }

    pub(crate) fn socket_addr(&self) -> SocketAddr {
        self.addr().parse().expect("an address")
    }

    pub(crate) fn connect(&self) -> Talker<TcpStream> {
        Talker::connect(self.socket_addr())
    }

    /// The lines that its client mode prints when this is typed.
    pub(crate) fn client(&self, typed: &str) -> Vec<String> {
        let mut child = Command::new(program(&self.name))
            .args(["--client", "--addr", self.addr()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdin = child.stdin.take().expect("its input is piped");
        stdin.write_all(typed.as_bytes()).expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it can be waited for");
        assert!(output.status.success(), "{:?}", output.status);
        let text = String::from_utf8(output.stdout).expect("it prints text");
        text.lines().map(str::to_owned).collect()
    }

    /// The next line that it prints.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        let line = self.lines.recv_timeout(DEADLINE);
        line.expect("it prints a line")
    }

    /// Waits for its end, which must be a clean one, and returns the last line that it printed.
    pub(crate) fn last_line(mut self) -> String {
        let mut last = String::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => last = line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(timeout) => panic!("it does not end: {timeout}"),
            }
        }
        // Its output has ended, so it is about to.
        let status = self.child.wait().expect("it can be waited for");
        assert_eq!(status.code(), Some(0), "its last line was {last:?}");
        last
    }

    /// Waits for a line of its output that `wanted` takes something out of.
    pub(crate) fn until_line<T>(&self, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(start.elapsed());
            let line = self.lines.recv_timeout(left).expect("the line comes");
            if let Some(found) = wanted(&line) {
                return found;
            }
        }
    }

    /// Sends a signal: `INT` or `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{signal} {}", self.child.id()))
            .status();
        assert!(status.expect("sh starts").success(), "kill");
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .expect("it runs")
            .count()
    }

    /// Waits until it has no more than so many open.
    pub(crate) fn wait_for_descriptors(&self, most: usize) {
        let start = Instant::now();
        while self.descriptors() > most {
            assert!(
                start.elapsed() < DEADLINE,
                "{} descriptors are still open",
                self.descriptors()
            );
            std::thread::yield_now();
        }
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> usize {
        let statm =
            std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("statm");
        statm
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<usize>().ok())
            .expect("pages")
            * 4096
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection that speaks in lines. Each call blocks until what it is about has happened,
/// [`DEADLINE`] at most.
pub(crate) struct Talker<S: Read + Write> {
    pub(crate) stream: BufReader<S>,
}

impl Talker<TcpStream> {
    pub(crate) fn connect(addr: SocketAddr) -> Talker<TcpStream> {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).expect("it accepts");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a timeout can be set");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a timeout can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        Talker {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) fn shutdown_write(&self) {
        self.stream
            .get_ref()
            .shutdown(Shutdown::Write)
            .expect("half-close");
    }

    /// Closes with something unread in the kernel's buffer, which is a reset to the other side.
    pub(crate) fn reset(self) {
        let peeked = self
            .stream
            .get_ref()
            .peek(&mut [0])
            .expect("something arrives");
        assert_eq!(peeked, 1, "nothing is unread, so this would be no reset");
    }
}

impl<S: Read + Write> Talker<S> {
    pub(crate) fn say(&mut self, line: impl AsRef<[u8]>) {
        let mut bytes = line.as_ref().to_vec();
        bytes.push(b'\n');
        self.say_bytes(&bytes);
    }

    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.stream
            .get_mut()
            .write_all(bytes)
            .expect("it takes what is written");
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> String {
        self.try_line()
            .expect("a line comes")
            .expect("a line comes before the end")
    }

    /// The next line; `None` at the end of the stream, where nothing may follow the last line's
    /// end.
    pub(crate) fn try_line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.pop() {
            Some('\n') => Ok(Some(line)),
            _ => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("half a line: {line:?}"),
            )),
        }
    }

    pub(crate) fn expect<L>(&mut self, line: L)
    where
        String: PartialEq<L>,
        L: Debug,
    {
        assert_eq!(self.line(), line);
    }

    /// Reads up to this line and returns those before it.
    pub(crate) fn lines_until(&mut self, last: &str) -> Vec<String> {
        std::iter::repeat_with(|| self.line())
            .take_while(|line| line != last)
            .collect()
    }

    /// Reads up to the end of the stream, which must be no reset, and returns the lines before it.
    pub(crate) fn lines_until_end(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.try_line().expect("an orderly end")).collect()
    }

    /// The end of the stream, not a reset, and nothing before it.
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.try_line().expect("an orderly end"), None);
    }
}

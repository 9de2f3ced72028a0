//! Programs of others: servers that do not say where they listen, and load generators.

pub mod http;
pub mod redis;

use std::env;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::catalogue;
use crate::plan::Plan;
use crate::report::markdown::progress;
use crate::report::runs::Record;
use crate::samples::Samples;
use crate::server::{Candidate, Server, shell_quote};
use crate::sys;

/// How long a server may take until it accepts, and then for the reply to a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A program of Debian's, the package that brings it, and what cannot be measured without it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// As the shell knows it.
    pub program: &'static str,
    /// For `apt-get install`.
    pub package: &'static str,
    /// The part that needs it, and whether it needs it as a whole.
    pub part: &'static str,
    /// What is left out.
    pub leaves_out: &'static str,
}

/// All of them.
pub const TOOLS: [Tool; 6] = [
    Tool {
        program: "wrk",
        package: "wrk",
        part: "http",
        leaves_out: "the part http",
    },
    Tool {
        program: "nginx",
        package: "nginx",
        part: "http",
        leaves_out: "the server nginx",
    },
    Tool {
        program: "haproxy",
        package: "haproxy",
        part: "http",
        leaves_out: "the server haproxy",
    },
    Tool {
        program: "redis-benchmark",
        package: "redis-tools",
        part: "redis",
        leaves_out: "the part redis",
    },
    Tool {
        program: "redis-server",
        package: "redis-server",
        part: "redis",
        leaves_out: "the server redis, which is the reference of the part redis",
    },
    Tool {
        program: "strace",
        package: "strace",
        part: "echo",
        leaves_out: "the count of system calls",
    },
];

impl Tool {
    /// Whether it is installed.
    pub fn is_there(&self) -> bool {
        find(self.program).is_some()
    }

    /// One line for whoever misses it.
    pub fn missing(&self) -> String {
        format!(
            "no {}, so {} is left out: `apt-get install {}`",
            self.program, self.leaves_out, self.package
        )
    }
}

/// Where `program` lies: on the PATH, or where Debian puts servers, which is not on every user's.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// What their names begin with; the process id follows.
const TEMP_PREFIX: &str = "greenroom-report-";

/// A folder for configurations, which goes away with this value.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// A new, empty one that only this user can enter.
    pub fn new() -> io::Result<TempDir> {
        use std::os::unix::fs::DirBuilderExt as _;
        let base = env::temp_dir();
        TempDir::remove_leftovers(&base);
        for attempt in 0..100 {
            let path = base.join(format!("{TEMP_PREFIX}{}-{attempt}", process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(TempDir(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!(
            "no free name for a folder in {}",
            base.display()
        )))
    }

    /// A process that a signal ended could not remove its own.
    fn remove_leftovers(base: &Path) {
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name
                .to_str()
                .and_then(|name| name.strip_prefix(TEMP_PREFIX)?.split_once('-'))
                .and_then(|(pid, _)| pid.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                // Another user's stays.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Writes a file in it, and returns where it lies.
    pub fn write(&self, name: &str, content: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed is in the system's temporary folder, where it does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port of 127.0.0.1 that nobody listens on right now, for programs that cannot choose one
/// themselves.
pub fn free_addr() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// A command for [`Server`] out of one that does not say where it listens: `arguments` is to listen
/// on `addr`. What it prints goes to the file `log`.
pub fn announced(arguments: &[&str], addr: SocketAddr, log: &Path) -> String {
    let words: Vec<String> = arguments.iter().map(|word| shell_quote(word)).collect();
    // It says so before it is true, which is why `connect` tries for a while. The shell becomes the
    // server, which keeps its process id.
    let script = format!(
        "echo listening on {addr}; exec {} >{} 2>&1",
        words.join(" "),
        shell_quote(&log.to_string_lossy())
    );
    format!("sh -c {}", shell_quote(&script))
}

/// Connects, as soon as the server accepts.
pub fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let deadline = Instant::now() + PROBE_TIMEOUT;
    loop {
        match TcpStream::connect(addr) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if Instant::now() > deadline {
                    return Err(error);
                }
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
}

/// A server under somebody else's load.
#[derive(Debug)]
pub struct Contender {
    /// What it is called in samples.
    pub name: String,
    /// The process.
    pub server: Server,
}

/// Starts the candidates where `plan` wants servers, and lets `probe` look whether each does what
/// is going to be measured. One that does not is left out, with a note.
pub fn start(
    part: &str,
    candidates: &[Candidate],
    plan: &Plan,
    probe: impl Fn(SocketAddr) -> io::Result<()>,
    record: &mut Record,
) -> io::Result<Vec<Contender>> {
    let start = |candidate: &Candidate| {
        let server = plan.start(candidate)?;
        probe(server.addr()).map_err(|error| candidate.failed(&error))?;
        Ok(Contender {
            name: candidate.name.clone(),
            server,
        })
    };
    let mut contenders = Vec::new();
    for candidate in candidates {
        match start(candidate) {
            Ok(contender) => contenders.push(contender),
            Err(error) => record.failed(part, &error)?,
        }
    }
    Ok(contenders)
}

/// What a load generator did in one slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// Requests that were answered.
    pub requests: f64,
    /// What else it says, by metric.
    pub figures: Vec<(&'static str, f64)>,
}

/// What the slices of one contender in one round add up to.
#[derive(Clone, Debug, Default)]
struct Total {
    cpu: Duration,
    requests: f64,
    slices: Vec<Slice>,
}

/// Loads the contenders by turns, as often in a round as `plan` has slices, and takes the CPU time
/// of each request; the other figures of a round are the means of its slices.
///
/// `load` gets the contender's place and address. A slice that fails is left out of the samples;
/// how many these were is noted. An error is one of the record's files.
pub fn race(
    (part, case): (&str, &str),
    contenders: &[Contender],
    plan: &Plan,
    load: impl Fn(usize, SocketAddr) -> io::Result<Slice>,
    record: &mut Record,
) -> io::Result<()> {
    let mut samples = Samples::new();
    let mut failures: Vec<(u32, String)> = vec![(0, String::new()); contenders.len()];
    for round in 0..plan.rounds {
        let mut totals = vec![Total::default(); contenders.len()];
        for turn in plan.turns(round, contenders.len()) {
            let Contender { server, .. } = &contenders[turn];
            let slice = (|| {
                let before = server.cpu_time()?;
                let slice = load(turn, server.addr())?;
                Ok::<_, io::Error>((server.cpu_time()? - before, slice))
            })();
            match slice {
                Ok((cpu, slice)) => {
                    let total = &mut totals[turn];
                    total.cpu += cpu;
                    total.requests += slice.requests;
                    total.slices.push(slice);
                }
                Err(error) => {
                    failures[turn].0 += 1;
                    failures[turn].1 = error.to_string();
                }
            }
        }
        print!("  round {:<2}", round + 1);
        for (Contender { name, .. }, total) in contenders.iter().zip(totals) {
            let Some(first) = total.slices.first() else {
                print!("  {name} failed");
                continue;
            };
            let cpu_ns = total.cpu.as_nanos() as f64 / total.requests;
            print!("  {name} {cpu_ns:.0} ns");
            samples.push(part, case, name, round, "cpu ns", cpu_ns);
            for (place, (metric, _)) in first.figures.iter().enumerate() {
                let values = total.slices.iter().map(|slice| slice.figures[place].1);
                let mean = values.sum::<f64>() / total.slices.len() as f64;
                samples.push(part, case, name, round, metric, mean);
            }
        }
        println!();
    }
    for (contender, (count, error)) in contenders.iter().zip(failures) {
        if count > 0 {
            let text = format!(
                "{case}: {}: {count} of {} slices rejected, the last one: {error}",
                contender.name,
                plan.rounds * plan.slices
            );
            record.failed(part, &io::Error::other(text))?;
        }
    }
    if let Some(part) = catalogue::part(part) {
        print!("{}", progress(&samples, part));
    }
    record.add(samples)
}

/// What a load generator printed; it runs on `cpu` alone if there is one, and an exit code other
/// than 0 is an error that quotes it.
pub fn run_load(command: &mut Command, cpu: Option<usize>) -> io::Result<String> {
    let cpu = cpu.map(|cpu| [cpu]);
    sys::bind_child(command, cpu.as_ref().map(|cpu| cpu.as_slice()))?;
    let output = command.stdin(Stdio::null()).output()?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = stderr.lines().chain(stdout.lines()).next().unwrap_or("");
    Err(io::Error::other(format!(
        "{} ended with {}: {said}",
        command.get_program().display(),
        output.status
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_value_and_leftovers_with_the_next() {
        // No process has this id: it is above the highest that Linux gives.
        let leftover = env::temp_dir().join(format!("{TEMP_PREFIX}4194305-0"));
        fs::create_dir_all(&leftover).unwrap();
        let folder = TempDir::new().unwrap();
        assert!(!leftover.exists());
        let path = folder.path().to_path_buf();
        folder.write("a", "b").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn an_announced_server_keeps_its_process_id_and_its_arguments() {
        let folder = TempDir::new().unwrap();
        let addr = free_addr().unwrap();
        let log = folder.path().join("it's a log");
        let arguments = ["sh", "-c", "echo $$ \"$0\"; exec sleep 60", "it's one"];
        let server = Server::start(&announced(&arguments, addr, &log)).unwrap();
        assert_eq!(server.addr(), addr);
        let expected = format!("{} it's one\n", server.pid());
        let deadline = Instant::now() + PROBE_TIMEOUT;
        while fs::read_to_string(&log).unwrap_or_default() != expected {
            assert!(Instant::now() < deadline, "{:?}", fs::read_to_string(&log));
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_load_that_fails_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such host >&2; exit 3"]);
        let error = run_load(&mut command, None).unwrap_err().to_string();
        assert!(error.contains("no such host"), "{error}");
        let mut command = Command::new("echo");
        assert_eq!(run_load(command.arg("fine"), None).unwrap(), "fine\n");
    }
}

//! What the figures were measured on: the machine, the versions of all peers, the state of the
//! source.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::report::runs::Record;

/// The part of the notes that is about all parts.
pub const PART: &str = "machine";

/// The packages of which the version matters, as Cargo.lock names them.
const PACKAGES: [&str; 15] = [
    "mio",
    "tokio",
    "monoio",
    "may",
    "actix",
    "actix-rt",
    "message-io",
    "ractor",
    "hyper",
    "may_minihttp",
    "ntex",
    "actix-web",
    "httparse",
    "crossbeam-channel",
    "hdrhistogram",
];
/// The programs, and the argument that makes each say its version.
const PROGRAMS: [(&str, &str); 8] = [
    ("rustc", "--version"),
    ("gcc", "--version"),
    ("redis-server", "--version"),
    ("redis-benchmark", "--version"),
    ("wrk", "--version"),
    ("nginx", "-v"),
    ("haproxy", "-v"),
    ("strace", "--version"),
];

/// Notes the machine and the versions; `root` is the repository.
pub fn describe(root: &Path, record: &mut Record) -> io::Result<()> {
    record.begin(PART)?;
    record.note(PART, "machine", &crate::rounds::machine())?;
    if let Some(memory) = memory_gib() {
        record.note(PART, "memory", &format!("{memory:.1} GiB"))?;
    }
    for (program, argument) in PROGRAMS {
        if let Some(version) = first_line(Command::new(program).arg(argument)) {
            record.note(PART, program, &version)?;
        }
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    for package in PACKAGES {
        let versions = locked_versions(&lock, package);
        if !versions.is_empty() {
            record.note(PART, package, &versions.join(" and "))?;
        }
    }
    Ok(())
}

/// Which commit is measured, and whether the source has changed since.
pub fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(root)
            .args(arguments)
            .stderr(Stdio::null())
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "not in a git repository".to_string();
    };
    // The report itself changes while it is written.
    match git(&["status", "--porcelain", "--", ".", ":!benches/report"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit} and changes that are not committed"),
    }
}

/// Now, in UTC, to the minute.
pub fn date() -> String {
    first_line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))
        .unwrap_or_else(|| "unknown".to_string())
}

/// The first line that a program prints, on whichever of its outputs.
fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let both = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&both);
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .map(str::to_string)
}

/// The versions of `package` that Cargo.lock holds.
fn locked_versions(lock: &str, package: &str) -> Vec<String> {
    let name = format!("name = \"{package}\"");
    lock.split("[[package]]")
        .filter(|entry| entry.lines().any(|line| line == name))
        .filter_map(|entry| {
            let line = entry
                .lines()
                .find_map(|line| line.strip_prefix("version = "))?;
            Some(line.trim_matches('"').to_string())
        })
        .collect()
}

fn memory_gib() -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / (1 << 20) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_may_be_locked_in_two_versions() {
        let lock = "
[[package]]
name = \"mio\"
version = \"0.8.11\"

[[package]]
name = \"mio-named-pipes\"
version = \"9.9.9\"

[[package]]
name = \"mio\"
version = \"1.0.4\"
";
        assert_eq!(locked_versions(lock, "mio"), ["0.8.11", "1.0.4"]);
        assert!(locked_versions(lock, "may").is_empty());
    }
}

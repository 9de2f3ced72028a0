//! `report`: runs the comparison, all of it or a part, and writes the report.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use greenroom_benches::catalogue::{self, PARTS, Part, Programs};
use greenroom_benches::foreign::TOOLS;
use greenroom_benches::raise_descriptor_limit;
use greenroom_benches::report::bars::BARS;
use greenroom_benches::report::measure::{Choice, measure};
use greenroom_benches::report::runs::Record;
use greenroom_benches::report::{machine, markdown, plots};
use greenroom_benches::rounds;

/// The repository, of which this package is a folder.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Compares greenroom with the C floor and its peers, in interleaved rounds, and writes a report.
///
/// What is measured replaces the same parts and cases in raw.csv; all else there stays, so that
/// parts can be run one by one. Nothing else should run on the machine meanwhile.
#[derive(Parser)]
struct Cli {
    /// Only these parts, with commas between [default: all]
    #[arg(long = "part", value_delimiter = ',', value_parser = parse_part)]
    parts: Vec<&'static Part>,
    /// Only cases whose name contains this
    #[arg(long, default_value = "", value_name = "SUBSTRING")]
    case: String,
    /// Rounds of each case [default: 3 to 9, by the part]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Two rounds, to see whether everything works
    #[arg(long)]
    quick: bool,
    /// Only these servers, with commas between; the C floor takes part in any case
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// The folder of the report [default: benches/report of the repository]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only renders these samples; measures nothing
    #[arg(long, value_name = "RAW_CSV")]
    from: Option<PathBuf>,
    /// Prints the table in a short form, for the project's README
    #[arg(long)]
    summary: bool,
    /// Does not build the programs that are measured
    #[arg(long)]
    no_build: bool,
}

fn parse_part(name: &str) -> Result<&'static Part, String> {
    catalogue::part(name).ok_or_else(|| {
        let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        format!("the parts are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> io::Result<()> {
    let root = Path::new(ROOT);
    let out = cli
        .out
        .clone()
        .unwrap_or_else(|| root.join("benches/report"));
    fs::create_dir_all(&out)?;
    let raw = cli.from.clone().unwrap_or_else(|| out.join("raw.csv"));
    let mut record = Record::open(raw, cli.from.is_some())?;
    if cli.from.is_none() {
        measure_all(cli, root, &mut record)?;
    }
    let samples = record.samples();
    let files = plots::all(samples);
    for (_, name, svg) in &files {
        fs::write(out.join(name), svg)?;
    }
    let plots: Vec<(&'static str, String)> = files
        .into_iter()
        .map(|(part, name, _)| (part, name))
        .collect();
    let report = out.join("README.md");
    fs::write(
        &report,
        markdown::report(samples, record.notes(), &BARS, &plots),
    )?;
    let table = match cli.summary {
        true => markdown::summary(samples, &BARS),
        false => markdown::table(samples, &BARS),
    };
    println!("\n{table}\nwritten: {}", report.display());
    Ok(())
}

fn measure_all(cli: &Cli, root: &Path, record: &mut Record) -> io::Result<()> {
    let programs = Programs::beside_this_one()?;
    if !cli.no_build {
        build(&programs, root)?;
    }
    raise_descriptor_limit()?;
    println!("{}", rounds::machine());
    for tool in TOOLS.iter().filter(|tool| !tool.is_there()) {
        println!("{}", tool.missing());
    }
    let parts: Vec<&Part> = match &cli.parts[..] {
        [] => PARTS.iter().collect(),
        parts => parts.to_vec(),
    };
    let choice = Choice {
        case: cli.case.clone(),
        rounds: cli.rounds,
        quick: cli.quick,
        servers: cli.servers.clone(),
    };
    machine::describe(root, record)?;
    for part in parts {
        println!("\n{}", part.title);
        measure(part, &choice, &programs, root, record)?;
    }
    Ok(())
}

/// Builds what is measured into the target folder in which this program lies. A peer's crate that
/// does not compile costs its part only, so a failed build is said and not the end.
fn build(programs: &Programs, root: &Path) -> io::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for arguments in [
        &["build", "--release", "--examples", "--keep-going"][..],
        &[
            "build",
            "--release",
            "-p",
            "greenroom-benches",
            "--bins",
            "--keep-going",
        ],
        &["build", "--release", "-p", "greenroom-peers"],
    ] {
        let status = Command::new(&cargo)
            .args(arguments)
            .arg("--target-dir")
            .arg(programs.target())
            .current_dir(root)
            .status()?;
        if !status.success() {
            println!(
                "`cargo {}` failed ({status}): what it builds is left out, or an older one is \
                 measured",
                arguments.join(" ")
            );
        }
    }
    Ok(())
}

//! Runs the parts, and goes on without whoever fails.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::catalogue::{Part, Programs};
use crate::echo::Shape;
use crate::fanout::{FanoutShape, Pace};
use crate::foreign::{self, TOOLS, TempDir, http, redis};
use crate::latency::OpenShape;
use crate::many::Counts;
use crate::report::machine;
use crate::report::markdown::progress;
use crate::report::runs::Record;
use crate::samples::Samples;
use crate::server::Candidate;
use crate::{connects, echo_cost, fanout, idle, latency, many, start, two};

/// What each peer reads into when messages are small: what its users would choose.
const BUFFER: usize = 4096;
/// ... and for messages of 16 KiB: as much as the C loop, so that each needs one read.
const LARGE_BUFFER: usize = 64 * 1024;
/// Idle connections to one server; 1,000 descriptors of 20,000 are left for all else.
const IDLE_CONNECTIONS: usize = 19_000;

/// What of the comparison is to be run.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Only cases whose name contains this.
    pub case: String,
    /// Instead of each part's own count.
    pub rounds: Option<u32>,
    /// Few rounds of everything.
    pub quick: bool,
    /// Only these servers, and the floors; empty: all.
    pub servers: Vec<String>,
}

impl Choice {
    fn rounds(&self, usual: u32) -> u32 {
        let quick = if self.quick { 2 } else { usual };
        self.rounds.unwrap_or(quick)
    }

    fn wants_case(&self, case: &str) -> bool {
        case.contains(&self.case)
    }

    fn wants_server(&self, server: &str) -> bool {
        // Without its control a reference tells half.
        let server = server.trim_end_matches(" again");
        self.servers.is_empty() || self.servers.iter().any(|wanted| wanted == server)
    }

    fn chosen(&self, candidates: Vec<Candidate>) -> Vec<Candidate> {
        candidates
            .into_iter()
            .filter(|candidate| self.wants_server(&candidate.name))
            .collect()
    }
}

/// Measures one part into `record`. Only files that cannot be written are an error: whatever else
/// goes wrong is noted there.
pub fn measure(
    part: &Part,
    choice: &Choice,
    programs: &Programs,
    root: &Path,
    record: &mut Record,
) -> io::Result<()> {
    // Of a run of some cases the earlier remarks on the others still hold.
    let only = match choice.case.as_str() {
        "" => {
            record.begin(part.name)?;
            String::new()
        }
        case => format!(", the cases with `{case}`"),
    };
    record.note(part.name, "measured", &format!("{}{only}", machine::date()))?;
    record.note(part.name, "commit", &machine::commit(root))?;
    if !choice.servers.is_empty() {
        record.note(part.name, "servers chosen", &choice.servers.join("; "))?;
    }
    for tool in TOOLS
        .iter()
        .filter(|tool| tool.part == part.name && !tool.is_there())
    {
        println!("  {}", tool.missing());
        record.note(part.name, "missing", &tool.missing())?;
    }
    let mut run = Run {
        part,
        choice,
        programs,
        record,
    };
    match run.measure() {
        Ok(()) => Ok(()),
        Err(error) => record.failed(part.name, &error),
    }
}

struct Run<'a> {
    part: &'a Part,
    choice: &'a Choice,
    programs: &'a Programs,
    record: &'a mut Record,
}

impl Run<'_> {
    fn measure(&mut self) -> io::Result<()> {
        match self.part.name {
            "echo" => self.echo(),
            "latency" => self.latency(),
            "http" => self.http(),
            "redis" => self.redis(),
            "idle" => self.idle(),
            "many" => self.many(),
            "fanout" => self.fanout(),
            "accept" => self.accept(),
            "start" => self.start(),
            "two" => self.two(),
            "messages" | "wake" | "timers" => self.in_process(),
            other => unreachable!("the catalogue has no part {other}"),
        }
    }

    /// Measures one case with all candidates that are chosen. One that fails is left out, and the
    /// rest begin again.
    fn case(
        &mut self,
        case: &str,
        candidates: Vec<Candidate>,
        measure: impl Fn(&[Candidate]) -> io::Result<Samples>,
    ) -> io::Result<()> {
        if !self.choice.wants_case(case) {
            return Ok(());
        }
        let mut left = self.choice.chosen(candidates);
        println!("{}: {case}", self.part.name);
        loop {
            match measure(&left) {
                Ok(samples) => {
                    print!("{}", progress(&samples, self.part));
                    return self.record.add(samples);
                }
                Err(error) => {
                    let named = io::Error::new(error.kind(), format!("{case}: {error}"));
                    self.record.failed(self.part.name, &named)?;
                    // An error says whose it is.
                    let message = error.to_string();
                    let culprit = left.iter().position(|candidate| {
                        message.starts_with(&format!("{}: ", candidate.name))
                    });
                    match culprit {
                        Some(culprit) => left.remove(culprit),
                        None => return Ok(()),
                    };
                }
            }
        }
    }

    fn echo(&mut self) -> io::Result<()> {
        let plan = echo_cost::plan(self.choice.rounds(9));
        for shape in [
            shape(64, 100, 1),
            shape(64, 1000, 1),
            shape(64, 100, 32),
            shape(16 * 1024, 100, 1),
        ] {
            let candidates = self.programs.echo(1, buffer(shape));
            self.case(&shape.to_string(), candidates, |candidates| {
                echo_cost::measure(candidates, shape, &plan)
            })?;
        }
        if foreign::find("strace").is_none() {
            return Ok(());
        }
        for shape in [shape(64, 1, 1), shape(64, 100, 1)] {
            let candidates = self.programs.echo(1, BUFFER);
            self.case(&shape.to_string(), candidates, |candidates| {
                echo_cost::syscalls(candidates, shape, &plan)
            })?;
        }
        Ok(())
    }

    fn latency(&mut self) -> io::Result<()> {
        let plan = latency::plan(self.choice.rounds(5));
        let shape = OpenShape::default();
        let case = format!(
            "{} B; {} connections",
            shape.message_bytes, shape.connections
        );
        let candidates = self.programs.echo(1, BUFFER);
        self.case(&case, candidates, |candidates| {
            latency::measure(candidates, shape, &plan)
        })
    }

    fn http(&mut self) -> io::Result<()> {
        if foreign::find("wrk").is_none() {
            return Ok(());
        }
        let folder = TempDir::new()?;
        let mut candidates = self.programs.http();
        candidates.extend(http::proxies(&folder)?);
        let candidates = self.choice.chosen(candidates);
        let plan = http::plan(self.choice.rounds(9));
        http::measure(&candidates, &plan, &self.choice.case, &folder, self.record)
    }

    fn redis(&mut self) -> io::Result<()> {
        if foreign::find("redis-benchmark").is_none() {
            return Ok(());
        }
        let folder = TempDir::new()?;
        let mut candidates = redis::servers(&folder)?;
        candidates.push(self.programs.redis());
        let candidates = self.choice.chosen(candidates);
        let plan = redis::plan(self.choice.rounds(9));
        redis::measure(&candidates, &plan, &self.choice.case, self.record)
    }

    fn idle(&mut self) -> io::Result<()> {
        let rounds = self.choice.rounds(3);
        let candidates = self.programs.echo(1, BUFFER);
        self.case(
            &format!("{IDLE_CONNECTIONS} connections"),
            candidates,
            |candidates| idle::samples(candidates, IDLE_CONNECTIONS, rounds),
        )
    }

    fn many(&mut self) -> io::Result<()> {
        let plan = many::plan(self.choice.rounds(5));
        let greenroom = self.programs.echo(1, BUFFER).into_iter().take(1).collect();
        let cases = "1000 active of 19000, processes, actors without sockets";
        self.case(cases, greenroom, |candidates| match candidates {
            [greenroom] => many::measure(greenroom, Counts::default(), &plan),
            _ => Ok(Samples::new()),
        })
    }

    fn fanout(&mut self) -> io::Result<()> {
        for (members, pace, threads) in [
            (1_000, Pace::OneAtATime, 1),
            (10_000, Pace::OneAtATime, 1),
            (1_000, Pace::OneAtATime, 2),
            (10_000, Pace::OneAtATime, 2),
            (1_000, Pace::Rate(2_000), 2),
            (1_000, Pace::Rate(4_000), 1),
        ] {
            let plan = fanout::plan(self.choice.rounds(5), threads);
            let shape = FanoutShape {
                members,
                pace,
                readers: 1,
                server_threads: threads,
            };
            let candidates = self.programs.fanout(threads as usize);
            self.case(&fanout_case(shape), candidates, |candidates| {
                fanout::measure(candidates, shape, &plan)
            })?;
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let plan = connects::plan(self.choice.rounds(9));
        let candidates = self.programs.echo(1, BUFFER);
        self.case("connect and close", candidates, |candidates| {
            connects::measure(candidates, &plan)
        })
    }

    fn start(&mut self) -> io::Result<()> {
        let plan = start::plan(self.choice.rounds(9));
        let candidates = self.programs.echo(2, BUFFER);
        self.case("process, in process; 2 pollers", candidates, |candidates| {
            start::measure(candidates, &plan)
        })
    }

    fn two(&mut self) -> io::Result<()> {
        let plan = two::plan(self.choice.rounds(9));
        for shape in [shape(64, 100, 1), shape(64, 1000, 1), shape(64, 100, 32)] {
            let candidates = self.programs.echo(2, BUFFER);
            self.case(&shape.to_string(), candidates, |candidates| {
                two::measure(candidates, shape, &plan)
            })?;
        }
        Ok(())
    }

    /// Rivals within one process: a program of its own prints the samples.
    fn in_process(&mut self) -> io::Result<()> {
        let mut command = Command::new(self.programs.peers());
        command.args(["messages", "--part", self.part.name]);
        command.args(["--rounds", &self.choice.rounds(9).to_string()]);
        println!("{}: one process with all rivals", self.part.name);
        let all = Samples::parse_csv(&foreign::run_load(&mut command, None)?)?;
        let mut chosen = Samples::new();
        for sample in all.iter().filter(|sample| {
            self.choice.wants_case(&sample.case) && self.choice.wants_server(&sample.server)
        }) {
            chosen.push(
                &sample.part,
                &sample.case,
                &sample.server,
                sample.round,
                &sample.metric,
                sample.value,
            );
        }
        print!("{}", progress(&chosen, self.part));
        self.record.add(chosen)
    }
}

fn shape(message_bytes: usize, connections: usize, pipeline: usize) -> Shape {
    Shape {
        connections,
        message_bytes,
        pipeline,
    }
}

fn buffer(shape: Shape) -> usize {
    if shape.message_bytes > BUFFER {
        LARGE_BUFFER
    } else {
        BUFFER
    }
}

fn fanout_case(shape: FanoutShape) -> String {
    let pace = match shape.pace {
        Pace::OneAtATime => "one line at a time".to_string(),
        Pace::Rate(rate) => format!("{rate} lines per second"),
    };
    let threads = match shape.server_threads {
        1 => String::new(),
        threads => format!("; {threads} threads"),
    };
    format!("{} members; {pace}{threads}", shape.members)
}

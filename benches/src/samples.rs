//! What was measured, one value at a time: the raw data that every table and plot is made from.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// One value of one round.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The kind of measurement: `echo`, `latency`, `http`, ...
    pub part: String,
    /// What was done: `64 B; 100 connections`.
    pub case: String,
    /// Who did it; `c` is the floor, `c again` its control.
    pub server: String,
    /// Counted from 0. Ratios are taken within one round.
    pub round: u32,
    /// What the value is, with its unit: `cpu ns`, `p99 us`, `bytes`.
    pub metric: String,
    /// The value.
    pub value: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample {
            part,
            case,
            server,
            round,
            metric,
            value,
        } = self;
        write!(f, "{part},{case},{server},{round},{metric},{value}")
    }
}

/// What names the values of all rounds of one server's one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series<'a> {
    /// As in [`Sample`].
    pub part: &'a str,
    /// As in [`Sample`].
    pub case: &'a str,
    /// As in [`Sample`].
    pub server: &'a str,
    /// As in [`Sample`].
    pub metric: &'a str,
}

/// Samples of one run, in the order in which they were taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    all: Vec<Sample>,
}

impl Samples {
    /// The names of the columns.
    pub const HEADER: &str = "part,case,server,round,metric,value";

    /// None yet.
    pub fn new() -> Samples {
        Samples::default()
    }

    /// Adds one.
    ///
    /// # Panics
    ///
    /// When a name has a comma or a line break in it, or the value is not finite.
    pub fn push(
        &mut self,
        part: &str,
        case: &str,
        server: &str,
        round: u32,
        metric: &str,
        value: f64,
    ) {
        for name in [part, case, server, metric] {
            assert!(
                !name.contains([',', '\n', '"']),
                "a comma, quote or line break in {name:?}"
            );
        }
        assert!(
            value.is_finite(),
            "{part} {case} {server} {metric}: {value}"
        );
        self.all.push(Sample {
            part: part.to_string(),
            case: case.to_string(),
            server: server.to_string(),
            round,
            metric: metric.to_string(),
            value,
        });
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Sample> {
        self.all.iter()
    }

    /// Adds those of another run or program.
    pub fn extend(&mut self, other: Samples) {
        self.all.extend(other.all);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The values of `series` by their round; of two in one round, the later.
    pub fn rounds(&self, series: Series<'_>) -> BTreeMap<u32, f64> {
        let Series {
            part,
            case,
            server,
            metric,
        } = series;
        self.iter()
            .filter(|sample| sample.part == part && sample.case == case)
            .filter(|sample| sample.server == server && sample.metric == metric)
            .map(|sample| (sample.round, sample.value))
            .collect()
    }

    /// Takes away all of one case.
    ///
    /// There is no way to replace a single server: a ratio is of one round, and the rounds of two
    /// runs have nothing in common but their numbers.
    pub fn forget_case(&mut self, part: &str, case: &str) {
        self.all
            .retain(|sample| sample.part != part || sample.case != case);
    }

    /// As CSV, without the header.
    pub fn to_csv(&self) -> String {
        let mut csv = String::new();
        for sample in &self.all {
            // Writing to a string cannot fail.
            let _ = writeln!(csv, "{sample}");
        }
        csv
    }

    /// Appends all to a file, which gets the header when it is new.
    pub fn append_csv(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if file.metadata()?.len() == 0 {
            writeln!(file, "{}", Samples::HEADER)?;
        }
        file.write_all(self.to_csv().as_bytes())
    }

    /// Writes all to a file in the place of what it held, with the header; at no time does the file
    /// hold a part of them.
    pub fn write_csv(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("csv.new");
        fs::write(&new, format!("{}\n{}", Samples::HEADER, self.to_csv()))?;
        fs::rename(&new, path)
    }

    /// Reads what `to_csv` or `append_csv` wrote; other lines are an error that names them.
    pub fn parse_csv(text: &str) -> io::Result<Samples> {
        let mut samples = Samples::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && *line != Samples::HEADER)
        {
            let bad =
                || io::Error::new(io::ErrorKind::InvalidData, format!("not a sample: {line}"));
            let fields: Vec<&str> = line.split(',').collect();
            let [part, case, server, round, metric, value] = fields[..] else {
                return Err(bad());
            };
            let round = round.parse().map_err(|_| bad())?;
            let value: f64 = value.parse().map_err(|_| bad())?;
            if !value.is_finite() {
                return Err(bad());
            }
            if line.contains('"') {
                return Err(bad());
            }
            samples.push(part, case, server, round, metric, value);
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let mut samples = Samples::new();
        samples.push("echo", "64 B; 100 connections", "c", 3, "cpu ns", 5_123.25);
        assert_eq!(Samples::parse_csv(&samples.to_csv()).unwrap(), samples);
        assert!(Samples::parse_csv("echo,64 B,c,0,cpu ns").is_err());
        assert!(Samples::parse_csv("echo,64 B,c,0,cpu ns,NaN").is_err());
        assert!(Samples::parse_csv("echo,\"64 B\",c,0,cpu ns,1").is_err());
    }
}

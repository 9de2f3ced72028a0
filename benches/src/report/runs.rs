//! What is measured, on disk at each moment: the samples, and what they do not say, which is when,
//! where and of what the parts were measured, and what went wrong.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::samples::Samples;

/// One remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The part it is about.
    pub part: String,
    /// `date`, `commit`, `missing`, `failed`, ...
    pub kind: String,
    /// One line.
    pub text: String,
}

/// The remarks on all parts; a file of lines `PART,KIND,TEXT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    all: Vec<Note>,
}

impl Notes {
    /// None yet.
    pub fn new() -> Notes {
        Notes::default()
    }

    /// Adds one; line breaks in `text` become `; `.
    ///
    /// # Panics
    ///
    /// When `part` or `kind` has a comma in it.
    pub fn push(&mut self, part: &str, kind: &str, text: &str) {
        assert!(!part.contains(',') && !kind.contains(','), "{part} {kind}");
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        self.all.push(Note {
            part: part.to_string(),
            kind: kind.to_string(),
            text: lines.join("; "),
        });
    }

    /// Those on `part`.
    pub fn of_part<'a>(&'a self, part: &'a str) -> impl Iterator<Item = &'a Note> {
        self.all.iter().filter(move |note| note.part == part)
    }

    /// Takes away all remarks on `part`.
    pub fn forget(&mut self, part: &str) {
        self.all.retain(|note| note.part != part);
    }

    /// Reads a file; one that does not exist has none.
    pub fn read(path: &Path) -> io::Result<Notes> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Notes::new()),
            Err(error) => return Err(error),
        };
        let mut notes = Notes::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let mut fields = line.splitn(3, ',');
            let (Some(part), Some(kind), Some(text)) =
                (fields.next(), fields.next(), fields.next())
            else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}: not a line PART,KIND,TEXT: {line}", path.display()),
                ));
            };
            notes.push(part, kind, text);
        }
        Ok(notes)
    }

    /// Writes a file in the place of what it held.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let lines: String = self
            .all
            .iter()
            .map(|Note { part, kind, text }| format!("{part},{kind},{text}\n"))
            .collect();
        let new = path.with_extension("new");
        fs::write(&new, lines)?;
        fs::rename(&new, path)
    }
}

/// The files that a report is made from. They hold all that was measured so far at each moment, so
/// that nothing is lost when somebody ends the program.
#[derive(Debug)]
pub struct Record {
    samples: Samples,
    notes: Notes,
    raw: PathBuf,
    runs: PathBuf,
    /// The parts and cases of this run: more samples of these are added, those of an earlier run
    /// replaced.
    measured: BTreeSet<(String, String)>,
}

impl Record {
    /// Goes on with the samples in `raw` and the notes in `runs.csv` beside it. Without such files
    /// it begins with none, unless the samples `must_exist`.
    pub fn open(raw: PathBuf, must_exist: bool) -> io::Result<Record> {
        let named = |error: io::Error| {
            let text = format!("cannot read {}: {error}", raw.display());
            io::Error::new(error.kind(), text)
        };
        let samples = match fs::read_to_string(&raw) {
            Ok(text) => Samples::parse_csv(&text).map_err(named)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => Samples::new(),
            Err(error) => return Err(named(error)),
        };
        let runs = raw.with_file_name("runs.csv");
        Ok(Record {
            samples,
            notes: Notes::read(&runs)?,
            raw,
            runs,
            measured: BTreeSet::new(),
        })
    }

    /// All samples.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// All remarks.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Takes away the remarks of earlier runs on `part`.
    pub fn begin(&mut self, part: &str) -> io::Result<()> {
        self.notes.forget(part);
        self.notes.write(&self.runs)
    }

    /// Adds a remark.
    pub fn note(&mut self, part: &str, kind: &str, text: &str) -> io::Result<()> {
        self.notes.push(part, kind, text);
        self.notes.write(&self.runs)
    }

    /// Says on the terminal and in the report what went wrong.
    pub fn failed(&mut self, part: &str, error: &io::Error) -> io::Result<()> {
        println!("  {error}");
        self.note(part, "failed", &error.to_string())
    }

    /// Adds samples; of their cases none of an earlier run remain.
    pub fn add(&mut self, samples: Samples) -> io::Result<()> {
        let new: BTreeSet<(String, String)> = samples
            .iter()
            .map(|sample| (sample.part.clone(), sample.case.clone()))
            .filter(|case| !self.measured.contains(case))
            .collect();
        for (part, case) in &new {
            self.samples.forget_case(part, case);
        }
        self.measured.extend(new);
        self.samples.extend(samples);
        self.samples.write_csv(&self.raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::TempDir;

    #[test]
    fn what_was_noted_is_read_again() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("runs.csv");
        assert_eq!(Notes::read(&path).unwrap(), Notes::new());
        let mut notes = Notes::new();
        notes.push("http", "failed", "ntex: no, not today\n  again");
        notes.push("redis", "date", "now");
        notes.write(&path).unwrap();
        assert_eq!(Notes::read(&path).unwrap(), notes);
        let note = notes.of_part("http").next().unwrap();
        assert_eq!(note.text, "ntex: no, not today; again");

        notes.forget("http");
        assert_eq!(notes.of_part("http").count(), 0);
        assert_eq!(notes.of_part("redis").count(), 1);
    }

    #[test]
    fn a_case_is_replaced_as_a_whole_and_others_stay() {
        let folder = TempDir::new().unwrap();
        let raw = folder.path().join("raw.csv");
        let parse = |text| Samples::parse_csv(text).unwrap();
        let before = "echo,a,c,0,cpu ns,1\necho,a,mio,0,cpu ns,2\necho,b,c,0,cpu ns,3";
        parse(before).write_csv(&raw).unwrap();

        let mut record = Record::open(raw.clone(), true).unwrap();
        record.add(parse("echo,a,c,0,cpu ns,9")).unwrap();
        // Of the same run: beside the first, not in its place.
        record.add(parse("echo,a,c,0,syscalls,2")).unwrap();
        assert_eq!(
            fs::read_to_string(&raw).unwrap(),
            format!(
                "{}\necho,b,c,0,cpu ns,3\necho,a,c,0,cpu ns,9\necho,a,c,0,syscalls,2\n",
                Samples::HEADER
            )
        );
    }

    #[test]
    fn samples_that_are_asked_for_have_to_exist() {
        let folder = TempDir::new().unwrap();
        let raw = folder.path().join("raw.csv");
        assert!(Record::open(raw.clone(), true).is_err());
        assert!(Record::open(raw, false).unwrap().samples().is_empty());
    }
}

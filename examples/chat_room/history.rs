//! What was said in a room lately, for those who come back.

use std::collections::VecDeque;
use std::str::FromStr;

/// Lines that are kept of a room, and bytes, each in both voices: with 100 rooms some 25 MiB at most.
pub(crate) const LINES_MAX: usize = 200;
pub(crate) const BYTES_MAX: usize = 256 << 10;

/// Where somebody wants to go on from: `0` is as far back as may be, `EPOCH.ID` is behind that line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Since {
    Ever,
    Line { epoch: u64, id: u64 },
}

impl FromStr for Since {
    type Err = ();

    fn from_str(text: &str) -> Result<Since, ()> {
        if text == "0" {
            return Ok(Since::Ever);
        }
        let (epoch, id) = text.split_once('.').ok_or(())?;
        Ok(Since::Line {
            epoch: u64::from_str_radix(epoch, 16).map_err(|_| ())?,
            id: id.parse().map_err(|_| ())?,
        })
    }
}

/// What there is of it.
pub(crate) struct Past<L> {
    pub(crate) lines: Vec<L>,
    /// How many more there were.
    pub(crate) missed: u64,
    /// That line is of another epoch: nobody knows what there was in between.
    pub(crate) restarted: bool,
}

/// Lines have numbers without gaps, from 1. A room that comes to an end takes its history along; one
/// of the same name that comes later, or after a restart of the server, has another epoch.
pub(crate) struct History<L> {
    pub(crate) epoch: u64,
    /// The number of the last line.
    pub(crate) last: u64,
    /// Each with its size.
    kept: VecDeque<(L, usize)>,
    bytes: usize,
}

impl<L: Clone> History<L> {
    pub(crate) fn new(epoch: u64) -> History<L> {
        History {
            epoch,
            last: 0,
            kept: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Keeps the line whose number is the next one, and which takes so many bytes.
    pub(crate) fn push(&mut self, line: L, bytes: usize) {
        self.last += 1;
        self.bytes += bytes;
        self.kept.push_back((line, bytes));
        while self.kept.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let oldest = self.kept.pop_front();
            self.bytes -= oldest.map_or(0, |(_, bytes)| bytes);
        }
    }

    pub(crate) fn since(&self, since: Since) -> Past<L> {
        let first = self.last - self.kept.len() as u64 + 1;
        let (seen, restarted) = match since {
            Since::Line { epoch, id } if epoch == self.epoch => (id.min(self.last), false),
            Since::Line { .. } => (first - 1, true),
            Since::Ever => (first - 1, false),
        };
        let from = first.max(seen + 1);
        let lines = self.kept.range((from - first) as usize..);
        Past {
            lines: lines.map(|(line, _)| line.clone()).collect(),
            missed: from - seen - 1,
            restarted,
        }
    }
}

//! What happened in a simulation, in its order.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::network::{CLIENT, Who};

/// Bytes of a piece of data that a trace keeps.
const EXCERPT_MAX: usize = 60;

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// ... to the connection of this number.
    Of(u32, OfConnection),
    Wakes {
        events: usize,
        woken: bool,
    },
    AcceptFails(&'static str),
    Note(String),
}

#[derive(Clone, Debug)]
pub(super) enum OfConnection {
    Connects(String),
    Refused(&'static str),
    Connected,
    Accepted,
    Receives {
        len: usize,
        excerpt: Box<[u8]>,
    },
    Sends {
        len: usize,
        of: usize,
        excerpt: Box<[u8]>,
    },
    ReceivesEnd,
    ReceivesReset,
    Shuts,
    Closes,
    Resets,
    IsReset {
        side: usize,
        why: &'static str,
    },
    Fails(&'static str),
    Sets(String),
}

#[derive(Clone, Debug)]
struct Entry {
    at: Duration,
    who: Option<Who>,
    what: What,
}

/// The last events of a run.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    kept: usize,
    entries: VecDeque<Entry>,
    /// How many there were before those.
    before: u64,
}

impl Recorder {
    pub(super) fn keep(&mut self, events: usize) {
        self.kept = events;
        self.trim();
    }

    pub(super) fn is_on(&self) -> bool {
        self.kept > 0
    }

    pub(super) fn push(&mut self, at: Duration, who: Option<Who>, what: What) {
        self.entries.push_back(Entry { at, who, what });
        self.trim();
    }

    fn trim(&mut self) {
        while self.entries.len() > self.kept {
            self.entries.pop_front();
            self.before += 1;
        }
    }

    pub(super) fn snapshot(&self, names: Vec<String>) -> Trace {
        Trace {
            entries: self.entries.iter().cloned().collect(),
            before: self.before,
            names,
        }
    }
}

/// The beginning of some data, to be shown.
pub(super) fn excerpt(bytes: &[u8]) -> Box<[u8]> {
    bytes[..bytes.len().min(EXCERPT_MAX)].into()
}

/// What has happened in a simulation: [`Display`](fmt::Display) gives a line for each event, with
/// the simulated time in seconds and who did it.
///
/// `c7` is the seventh connection. A poller is shown by the name of its system
/// ([`Builder::name`](crate::Builder::name)) and its number; what the network or the test did, by
/// `-`. The same seed gives the same text.
#[derive(Clone)]
pub struct Trace {
    entries: Vec<Entry>,
    before: u64,
    names: Vec<String>,
}

impl Trace {
    /// How many events it has. Earlier ones may have been forgotten, see
    /// [`Simulation::keep_trace`](crate::testing::Simulation::keep_trace).
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The last `events` of it.
    #[must_use]
    pub fn tail(&self, events: usize) -> Trace {
        let from = self.entries.len().saturating_sub(events);
        Trace {
            entries: self.entries[from..].to_vec(),
            before: self.before + from as u64,
            names: self.names.clone(),
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.before > 0 {
            writeln!(f, "... {} events before", self.before)?;
        }
        for Entry { at, who, what } in &self.entries {
            let who = match who {
                None => "-".to_owned(),
                Some(Who { process, poller }) => {
                    let name = self.names.get(usize::from(process.0));
                    format!("{}-{poller}", name.map_or("", String::as_str))
                }
            };
            let at = format!("{}.{:09}", at.as_secs(), at.subsec_nanos());
            writeln!(f, "{at:>16} {who:<12} {what}")?;
        }
        Ok(())
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Of(serial, what) => write!(f, "c{serial} {what}"),
            What::Wakes { events, woken } => {
                let by = if *woken { ", woken" } else { "" };
                write!(f, "is up, {events} ready{by}")
            }
            What::AcceptFails(why) => write!(f, "accept fails: {why}"),
            What::Note(text) => write!(f, "# {text}"),
        }
    }
}

impl fmt::Display for OfConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OfConnection::Connects(to) => write!(f, "connects to {to}"),
            OfConnection::Refused(why) => write!(f, "does not connect: {why}"),
            OfConnection::Connected => f.write_str("is connected"),
            OfConnection::Accepted => f.write_str("is accepted"),
            OfConnection::Receives { len, excerpt } => {
                write!(f, "receives {len}: {}", Excerpt(excerpt, *len))
            }
            OfConnection::Sends { len, of, excerpt } if len == of => {
                write!(f, "sends {len}: {}", Excerpt(excerpt, *len))
            }
            OfConnection::Sends { len, of, excerpt } => {
                write!(f, "sends {len} of {of}: {}", Excerpt(excerpt, *len))
            }
            OfConnection::ReceivesEnd => f.write_str("receives the end"),
            OfConnection::ReceivesReset => f.write_str("receives the reset"),
            OfConnection::Sets(option) => write!(f, "sets {option}"),
            OfConnection::Shuts => f.write_str("half-closes"),
            OfConnection::Closes => f.write_str("closes"),
            OfConnection::Resets => f.write_str("resets its peer"),
            OfConnection::IsReset { side, why } => {
                let end = if *side == CLIENT { "client" } else { "server" };
                write!(f, "is reset at its {end}'s end, {why}")
            }
            OfConnection::Fails(why) => write!(f, "fails: {why}"),
        }
    }
}

/// The beginning of some data, and how long that is.
struct Excerpt<'a>(&'a [u8], usize);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.0.len() < self.1 { "..." } else { "" };
        write!(f, "\"{}\"{more}", self.0.escape_ascii())
    }
}

//! What the simulated examples have in common: how much goes wrong, and on what they run.

#![allow(dead_code, reason = "each test program uses its part of it")]

use std::time::Duration;

use greenroom::System;
use greenroom::testing::{Fault, Faults, Random, Simulation};

/// Where the servers listen.
pub(crate) const ADDR: &str = "127.0.0.1:9000";

/// When all must have come to rest, faults having stopped.
pub(crate) const LIMIT: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Weather {
    Calm,
    /// What a client can tell only by the time that it takes.
    Harmless,
    /// Connections are lost at any byte; but for clients that die, no line of theirs is cut.
    Rough,
    /// The same, and clients die in the middle of a line.
    Deadly,
}

impl Weather {
    pub(crate) fn draw(random: &mut Random) -> Weather {
        use Weather::{Calm, Deadly, Harmless, Rough};
        *random.pick(&[Calm, Harmless, Rough, Deadly])
    }

    /// Whether connections may be lost.
    pub(crate) fn is_rough(self) -> bool {
        matches!(self, Weather::Rough | Weather::Deadly)
    }

    fn faults(self) -> Faults {
        match self {
            Weather::Calm => Faults::none(),
            Weather::Harmless => Faults::harmless(),
            Weather::Rough => Faults::all().without(Fault::Die),
            Weather::Deadly => Faults::all(),
        }
    }
}

/// A system of a few pollers whose mailboxes hold few messages or many, in this weather.
pub(crate) fn system(sim: &mut Simulation, weather: Weather) -> System {
    let pollers = sim.random().range(2..6) as usize;
    let bound = *sim.random().pick(&[2, 3, 8, 64, 1024]);
    let system = sim.system(System::builder().pollers(pollers).mailbox_bound(bound));
    sim.faults(weather.faults());
    system
}

/// From here on it is this weather.
pub(crate) fn set_faults(sim: &mut Simulation, weather: Weather) {
    sim.faults(weather.faults());
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Makes a text so long, such that no part of it could be taken for another one.
pub(crate) fn fill(text: &mut String, len: usize) {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";
    if let Some(missing) = len.checked_sub(text.len()) {
        let begin = text.len() % LETTERS.len();
        let letters = LETTERS.repeat((begin + missing).div_ceil(LETTERS.len()));
        text.push_str(&letters[begin..begin + missing]);
    }
}

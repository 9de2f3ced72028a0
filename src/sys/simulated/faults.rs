//! What may go wrong in a simulation, and how often.

use std::fmt;

use super::random::Random;

/// One thing that may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Bytes, connects and ends of streams take their time, each connection and direction its own:
    /// up to some 50 ms, now and then half a second. What two connections send is reordered, what
    /// one sends is not. Of datagrams each takes its own, in the order in which one socket sends them.
    Delay,
    /// A receive gets less than there is, a send takes less than it is given, and what was sent in
    /// one piece arrives in several.
    Split,
    /// A kernel buffer has room for a few bytes only, so that sends are refused early.
    SmallBuffers,
    /// The selector reports in any order, some of it later, and at times what is not so.
    Readiness,
    /// A signal interrupts a wait, a receive or a send (`EINTR`).
    Interrupt,
    /// A poller gets no processor for up to two seconds.
    Stall,
    /// A connect is lost on its way and made again a second later, as TCP does.
    LostConnect,
    /// A direction of a connection delivers nothing for up to some minutes: a reader that is stuck.
    Freeze,
    /// A connect is refused, or a connection is lost before it is accepted (`ECONNABORTED`).
    Refuse,
    /// Both ends see a reset, at any byte or at any time.
    Reset,
    /// A client dies in the middle: what it had sent up to some byte arrives, then the end of its
    /// stream, and whoever sends to it is reset.
    Die,
    /// There is no descriptor left for an accept or a connect (`EMFILE`).
    Exhaust,
    /// The kernel has no memory left for a send (`ENOBUFS`) or a registration (`ENOMEM`).
    NoMemory,
    /// The clock jumps ahead by up to ten seconds, as when a virtual machine was paused.
    ClockJump,
    /// [Offloaded](crate::Context::offload) work is refused as if as much waited as may.
    Busy,
    /// A datagram is lost on its way.
    LoseDatagram,
    /// A datagram arrives twice.
    DuplicateDatagram,
    /// A datagram arrives up to 100 ms later than those that were sent behind it.
    ReorderDatagrams,
    /// A name cannot be looked up for now.
    Lookup,
}

impl Fault {
    /// All of them, in the order of the declaration.
    pub(super) const ALL: [Fault; 19] = [
        Fault::Delay,
        Fault::Split,
        Fault::SmallBuffers,
        Fault::Readiness,
        Fault::Interrupt,
        Fault::Stall,
        Fault::LostConnect,
        Fault::Freeze,
        Fault::Refuse,
        Fault::Reset,
        Fault::Die,
        Fault::Exhaust,
        Fault::NoMemory,
        Fault::ClockJump,
        Fault::Busy,
        Fault::LoseDatagram,
        Fault::DuplicateDatagram,
        Fault::ReorderDatagrams,
        Fault::Lookup,
    ];

    /// Where the faults begin that a client can tell from a quiet day.
    const FIRST_HARMFUL: usize = Fault::Freeze as usize;

    /// Once in how many occasions it may happen, from seldom to often.
    fn odds(self) -> [u64; 3] {
        match self {
            Fault::Delay | Fault::SmallBuffers => [8, 2, 1],
            Fault::Split | Fault::Readiness => [50, 8, 2],
            Fault::Interrupt => [200, 50, 10],
            Fault::LostConnect => [100, 20, 5],
            Fault::Stall => [20_000, 2000, 200],
            Fault::Freeze => [2000, 500, 100],
            Fault::Refuse | Fault::Reset | Fault::Die => [50, 10, 3],
            Fault::Exhaust | Fault::Busy | Fault::Lookup => [100, 20, 5],
            Fault::LoseDatagram | Fault::DuplicateDatagram => [100, 20, 4],
            Fault::ReorderDatagrams => [50, 10, 3],
            Fault::NoMemory => [5000, 1000, 200],
            Fault::ClockJump => [100_000, 20_000, 5000],
        }
    }
}

/// A set of things that may go wrong: what
/// [`Simulation::faults`](crate::testing::Simulation::faults) is told.
///
/// Which of them do in one run, and how often, is drawn from its seed: a run in which all happen at
/// once hides what one of them would show alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// Nothing goes wrong: what is sent arrives at once and whole.
    #[must_use]
    pub fn none() -> Faults {
        Faults(0)
    }

    /// What a client of a correct server cannot tell but by the time it takes: all faults from
    /// [`Fault::Delay`] to [`Fault::LostConnect`].
    #[must_use]
    pub fn harmless() -> Faults {
        Faults((1 << Fault::FIRST_HARMFUL) - 1)
    }

    /// All faults: connections may be lost at any byte.
    #[must_use]
    pub fn all() -> Faults {
        Faults((1 << Fault::ALL.len()) - 1)
    }

    /// With this one, too.
    #[must_use]
    pub fn with(self, fault: Fault) -> Faults {
        Faults(self.0 | 1 << fault as u32)
    }

    /// Without this one.
    #[must_use]
    pub fn without(self, fault: Fault) -> Faults {
        Faults(self.0 & !(1 << fault as u32))
    }
}

/// How often each fault happens in a run.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Rates([u64; Fault::ALL.len()]);

impl Rates {
    /// One draw for each fault, in the set or not, so that taking one out changes no other.
    pub(crate) fn draw(faults: Faults, random: &mut Random) -> Rates {
        let mut rates = Rates::default();
        for fault in Fault::ALL {
            // In one run of four a fault that may happen does not.
            let [seldom, sometimes, often] = fault.odds();
            let rate = *random.pick(&[0, seldom, sometimes, often]);
            if faults.0 & 1 << fault as u32 != 0 {
                rates.0[fault as usize] = rate;
            }
        }
        rates
    }

    /// Once in how many occasions; 0 for never.
    #[inline]
    pub(crate) fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for fault in Fault::ALL {
            if self.of(fault) > 0 {
                write!(f, "{separator}{fault:?} 1/{}", self.of(fault))?;
                separator = ", ";
            }
        }
        if separator.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_a_set_in_the_order_of_the_declaration() {
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, place);
            assert_eq!(Faults::none().with(fault).without(fault), Faults::none());
        }
        assert_eq!(
            Faults::all()
                .without(Fault::ClockJump)
                .with(Fault::ClockJump),
            Faults::all()
        );
        assert_eq!(Faults::harmless().with(Fault::Delay), Faults::harmless());
        assert_ne!(Faults::harmless().with(Fault::Freeze), Faults::harmless());
    }

    #[test]
    fn taking_a_fault_out_changes_no_other() {
        for seed in 0..20 {
            let all = Rates::draw(Faults::all(), &mut Random::new(seed));
            let fewer = Faults::all().without(Fault::Stall);
            let fewer = Rates::draw(fewer, &mut Random::new(seed));
            for fault in Fault::ALL {
                if fault == Fault::Stall {
                    assert_eq!(fewer.of(fault), 0);
                } else {
                    assert_eq!(fewer.of(fault), all.of(fault));
                }
            }
        }
        assert_eq!(Rates::default().to_string(), "none");
    }
}

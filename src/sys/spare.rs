//! A descriptor in reserve.

use std::io;
use std::os::fd::OwnedFd;

use super::simulated::{Network, Process, simulate};
use super::socket;

/// A descriptor that is there to be given up: for the one accept that refuses a client when no other
/// is left. A socket, as what is accepted is: a duplicate of something would not help where the whole
/// system has run out of open files (`ENFILE`).
#[derive(Debug)]
pub(crate) struct Spare {
    _held: Held,
}

#[derive(Debug)]
enum Held {
    Fd { _fd: OwnedFd },
    Simulated { process: Process, network: u64 },
}

impl Spare {
    /// Takes one; of this program where it is simulated.
    ///
    /// # Errors
    ///
    /// When there is none, above all.
    pub(crate) fn open(simulated: Option<Process>) -> io::Result<Spare> {
        let held = match simulated {
            None => Held::Fd {
                _fd: socket::open(libc::AF_UNIX)?,
            },
            Some(process) => Held::Simulated {
                process,
                network: simulate(|network| network.take_spare(process))??,
            },
        };
        Ok(Spare { _held: held })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Held::Simulated { process, network } = *self {
            // Of a network that is over nothing is counted any more.
            let _ = simulate(|now: &mut Network| now.give_spare(process, network));
        }
    }
}

//! Which back end a system waits with, by choice, by the environment or by default.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;

/// The variable of the environment that replaces the default.
const VARIABLE: &str = "GREENROOM_SELECTOR";

/// How pollers wait for readiness: [`Builder::selector`](crate::Builder::selector).
///
/// They differ in cost alone: each is level-triggered, and all that a server observes is the same.
///
/// Every platform has every variant, so that a choice compiles everywhere;
/// [`Builder::build`](crate::Builder::build) refuses what the platform lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SelectorKind {
    /// epoll(7), of Linux, and the default there. A wait costs by what is ready.
    Epoll,
    /// kqueue(2), of the BSDs and macOS, and the default there. A wait costs by what is ready.
    Kqueue,
    /// poll(2), of every Unix, and the default where there is neither of the others. A wait costs
    /// by what is watched, ready or not. Measured on Linux it costs as much as epoll where most
    /// connections have something to do, at 100 of them as at 1,000. With 100 of 1,000 active a
    /// message costs half as much again, and with 10 of 1,000 four and a half times as much. So it
    /// is for some dozens of connections, or to rule out the other back ends.
    ///
    /// The system refuses to poll more descriptors than the process may have open at that moment:
    /// a program that lowers this limit below what it watches already ends its pollers.
    Poll,
}

impl SelectorKind {
    /// All there are, for messages and tests.
    pub(super) const ALL: [SelectorKind; 3] = [
        SelectorKind::Epoll,
        SelectorKind::Kqueue,
        SelectorKind::Poll,
    ];

    /// What a system uses that chooses none: the one named by the environment, else the
    /// platform's.
    pub(crate) fn of_environment() -> io::Result<SelectorKind> {
        match env::var_os(VARIABLE) {
            None => Ok(SelectorKind::of_platform()),
            Some(name) => SelectorKind::named(&name),
        }
    }

    fn of_platform() -> SelectorKind {
        if cfg!(target_os = "linux") {
            SelectorKind::Epoll
        } else if cfg!(any(
            target_vendor = "apple",
            target_os = "freebsd",
            target_os = "dragonfly",
            target_os = "netbsd",
            target_os = "openbsd"
        )) {
            SelectorKind::Kqueue
        } else {
            SelectorKind::Poll
        }
    }

    fn named(name: &OsStr) -> io::Result<SelectorKind> {
        let same = |kind: &SelectorKind| name == kind.name();
        SelectorKind::ALL.into_iter().find(same).ok_or_else(|| {
            let known = SelectorKind::ALL.map(SelectorKind::name).join(", ");
            let text = format!("{VARIABLE}={}: must be one of {known}", name.display());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    fn name(self) -> &'static str {
        match self {
            SelectorKind::Epoll => "epoll",
            SelectorKind::Kqueue => "kqueue",
            SelectorKind::Poll => "poll",
        }
    }

    /// For what this platform lacks.
    pub(super) fn unsupported(self) -> io::Error {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!("selector {self}: this platform has none"),
        )
    }
}

impl fmt::Display for SelectorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_has_the_name_that_it_is_displayed_by() {
        for kind in SelectorKind::ALL {
            let named = SelectorKind::named(OsStr::new(&kind.to_string()));
            assert_eq!(named.unwrap(), kind);
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_that_there_are() {
        for name in ["", "Epoll", "select"] {
            let error = SelectorKind::named(OsStr::new(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let text = format!("GREENROOM_SELECTOR={name}: must be one of epoll, kqueue, poll");
            assert_eq!(error.to_string(), text);
        }
    }
}

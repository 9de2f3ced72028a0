//! Sockets that this program was started with, as systemd and its like do it (socket activation): see
//! sd_listen_fds(3).
//!
//! Whoever starts the program binds its sockets before, and says in the environment how many there
//! are (`LISTEN_FDS`, from descriptor 3 on), for which process (`LISTEN_PID`) and what they are called
//! (`LISTEN_FDNAMES`). So connects wait while the program starts or is replaced, and it needs no
//! right to bind a low port.
//!
//! ```no_run
//! use greenroom::*;
//! # struct Echo; impl Actor for Echo { type Message = (); }
//!
//! fn main() -> std::io::Result<()> {
//!     let system = System::builder().build()?;
//!     let mut sockets = activation::sockets()?;
//!     match sockets.take("echo") {
//!         Some(listening) => system.listen_from(listening, ListenOptions::new(), |_peer| Echo)?,
//!         None => system.listen("127.0.0.1:9000", |_peer| Echo)?,
//!     };
//!     system.run()
//! }
//! ```

use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::listen_from::{ListenSockets, is_one_place};
use crate::sys::{Endpoint, fd_passing};

/// The first descriptor that is handed down.
const FIRST: i32 = 3;

/// The name of those that have none.
const UNKNOWN: &str = "unknown";

/// What this program was started with; each descriptor can be taken once. Those that are left are
/// closed when this is dropped.
#[derive(Debug, Default)]
pub struct Sockets {
    list: Vec<(String, OwnedFd)>,
}

/// Takes what this program was started with: nothing, where nobody says that there is something for
/// this process.
///
/// Once in the life of the process, whatever comes of it: descriptors have one owner. The environment
/// stays as it is, since to change it while threads run is not safe; a child that is started sees
/// another process's `LISTEN_PID`, and the descriptors are not handed down to it.
///
/// # Errors
///
/// When it was called before, when the variables do not say a number, or when a descriptor that they
/// speak of is not open.
pub fn sockets() -> Result<Sockets, ActivationError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Err(ActivationError::Taken);
    }
    let variable = |name| env::var_os(name);
    let count = count_for(
        process::id(),
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
    )?;
    let names = names_of(count, variable("LISTEN_FDNAMES"));
    let fds = fd_passing::inherited(FIRST, count)
        .map_err(|error| ActivationError::NotOpen { count, error })?;
    Ok(Sockets {
        list: names.into_iter().zip(fds).collect(),
    })
}

/// How many descriptors are for the process of this number.
fn count_for(
    pid: u32,
    listen_pid: Option<&OsStr>,
    listen_fds: Option<&OsStr>,
) -> Result<usize, ActivationError> {
    let (Some(for_pid), Some(count)) = (listen_pid, listen_fds) else {
        return Ok(0);
    };
    if number::<u32>("LISTEN_PID", for_pid)? != pid {
        return Ok(0);
    }
    // More than there can be are not open.
    number::<u16>("LISTEN_FDS", count).map(usize::from)
}

fn number<T: std::str::FromStr>(name: &'static str, value: &OsStr) -> Result<T, ActivationError> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| ActivationError::NotANumber {
        name,
        value: value.to_owned(),
    })
}

/// As many names as there are descriptors, in their order.
fn names_of(count: usize, names: Option<OsString>) -> Vec<String> {
    let names = names.unwrap_or_default();
    let names = names.to_string_lossy();
    let given = names
        .split(':')
        .map(|name| if name.is_empty() { UNKNOWN } else { name });
    given
        .chain(std::iter::repeat(UNKNOWN))
        .take(count)
        .map(str::to_owned)
        .collect()
}

impl Sockets {
    /// The names of those that are left, in their order; `unknown` for those without one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| &**name)
    }

    /// Takes all descriptors of a name, if there are any: for
    /// [`System::listen_from`](crate::System::listen_from), which says what is wrong if they do not
    /// listen, or listen on several addresses.
    pub fn take(&mut self, name: &str) -> Option<ListenSockets> {
        let fds = self.take_fds(name);
        (!fds.is_empty()).then(|| fds.into())
    }

    /// Takes all descriptors of a name as one listener for each address, in their order: a unit may say
    /// several addresses, which then share its name.
    ///
    /// # Errors
    ///
    /// When one of them does not listen; then those of that name are closed.
    pub fn take_each(&mut self, name: &str) -> io::Result<Vec<ListenSockets>> {
        let mut groups: Vec<(Endpoint, Vec<OwnedFd>)> = Vec::new();
        for fd in self.take_fds(name) {
            let one = ListenSockets::from(fd);
            let local = one.local_addr()?;
            let fds = one.into_fds();
            let found = groups
                .iter_mut()
                .find(|(known, _)| is_one_place(known, &local));
            match found {
                Some((_, group)) => group.extend(fds),
                None => groups.push((local, fds)),
            }
        }
        Ok(groups.into_iter().map(|(_, group)| group.into()).collect())
    }

    /// The same as bare descriptors: what is handed down may also be a connection
    /// ([`Handle::adopt`](crate::Handle::adopt)) or a pipe ([`Handle::watch`](crate::Handle::watch)).
    pub fn take_fds(&mut self, name: &str) -> Vec<OwnedFd> {
        let (taken, left) = std::mem::take(&mut self.list)
            .into_iter()
            .partition(|(known, _)| known == name);
        self.list = left;
        taken.into_iter().map(|(_, fd): (String, _)| fd).collect()
    }

    /// Takes all that are left, with their names, in their order.
    pub fn take_all(&mut self) -> Vec<(String, OwnedFd)> {
        std::mem::take(&mut self.list)
    }
}

/// What is wrong with what this program was started with.
#[derive(Debug)]
#[non_exhaustive]
pub enum ActivationError {
    /// They were taken before.
    Taken,
    /// A variable of the environment does not say a number.
    NotANumber {
        /// Which one.
        name: &'static str,
        /// What it says.
        value: OsString,
    },
    /// One of the descriptors from 3 on is not open.
    NotOpen {
        /// How many there should be.
        count: usize,
        /// What the kernel says.
        error: io::Error,
    },
}

impl fmt::Display for ActivationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ActivationError::Taken => {
                f.write_str("activation: the sockets of this process were taken before")
            }
            ActivationError::NotANumber { name, value } => {
                write!(
                    f,
                    "activation: {name} is {value:?}, which is no number that fits"
                )
            }
            ActivationError::NotOpen { count, error } => write!(
                f,
                "activation: LISTEN_FDS says {count}, but not all descriptors from {FIRST} on are open: {error}"
            ),
        }
    }
}

impl Error for ActivationError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ActivationError::NotOpen { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// For `?` in a function that returns [`io::Result`].
impl From<ActivationError> for io::Error {
    fn from(error: ActivationError) -> io::Error {
        let kind = match &error {
            ActivationError::NotOpen { error, .. } => error.kind(),
            _ => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(pid: &str, fds: &str) -> Result<usize, ActivationError> {
        count_for(7, Some(pid.as_ref()), Some(fds.as_ref()))
    }

    #[test]
    fn what_is_meant_for_another_process_is_let_be() {
        assert_eq!(count("7", "2").unwrap(), 2);
        assert_eq!(count("8", "2").unwrap(), 0);
        assert_eq!(count_for(7, None, Some("2".as_ref())).unwrap(), 0);
        assert_eq!(count_for(7, Some("7".as_ref()), None).unwrap(), 0);
        assert_eq!(count("8", "nonsense").unwrap(), 0, "nor looked at");
    }

    #[test]
    fn what_is_no_number_is_an_error_that_names_it() {
        for (pid, fds) in [("seven", "1"), ("7", ""), ("7", "-1"), ("7", "70000")] {
            let error = count(pid, fds).unwrap_err().to_string();
            let name = if pid == "7" {
                "LISTEN_FDS"
            } else {
                "LISTEN_PID"
            };
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn names_are_given_in_order_and_missing_ones_are_unknown() {
        let names = |count, text: &str| names_of(count, Some(text.into()));
        assert_eq!(names(2, "web:admin"), ["web", "admin"]);
        assert_eq!(names(3, "web"), ["web", "unknown", "unknown"]);
        assert_eq!(names(3, "web::admin"), ["web", "unknown", "admin"]);
        assert_eq!(names(1, "web:admin"), ["web"]);
        assert_eq!(names_of(1, None), ["unknown"]);
    }
}

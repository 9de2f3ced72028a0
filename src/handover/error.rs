//! Why a handover fails.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

/// Why a handover has failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandoverError {
    /// The kernel refused something.
    Io(io::Error),
    /// The process at the other end is another user's.
    Permission {
        /// Its user id.
        peer: u32,
        /// That of this process.
        own: u32,
    },
    /// The process at the other end speaks another version: one of the two is of an older or newer
    /// release whose handover is not the same. Stop the one that serves, and start the other.
    Version {
        /// What this process speaks.
        ours: u16,
        /// What the other one does.
        theirs: u16,
    },
    /// What the other end says makes no sense.
    Protocol,
    /// The other end did not say what it was to say in time.
    TimedOut,
    /// The other process has gone.
    Lost,
    /// The process that was to be replaced goes on, for this reason.
    Refused(String),
    /// Listeners of these names would be closed with whoever waits on them.
    Untaken(Vec<String>),
    /// A poller of this process is in a callback that does not return.
    Busy,
    /// The offer was ended here.
    Cancelled,
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("handover: ")?;
        match self {
            HandoverError::Io(error) => error.fmt(f),
            HandoverError::Permission { peer, own } => write!(
                f,
                "the other process is that of user {peer}, this one of user {own}; both must be the same user's"
            ),
            HandoverError::Version { ours, theirs } => write!(
                f,
                "the other process speaks version {theirs}, this one {ours}; stop the one that serves before starting the other"
            ),
            HandoverError::Protocol => f.write_str("the other end does not speak this protocol"),
            HandoverError::TimedOut => f.write_str("the other process did not answer in time"),
            HandoverError::Lost => f.write_str("the other process has gone"),
            HandoverError::Refused(reason) => write!(f, "the other process goes on: {reason}"),
            HandoverError::Untaken(names) => write!(
                f,
                "nobody has taken {}, and whoever waits there would be reset; take each, and drop those that are to be closed",
                names.join(", ")
            ),
            HandoverError::Busy => f.write_str(
                "a poller of this process has not answered, as a callback of it does not return",
            ),
            HandoverError::Cancelled => f.write_str("the offer was ended"),
        }
    }
}

impl Error for HandoverError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            HandoverError::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// For `?` in a function that returns [`io::Result`].
impl From<HandoverError> for io::Error {
    fn from(error: HandoverError) -> io::Error {
        let kind = match &error {
            HandoverError::Io(error) => error.kind(),
            HandoverError::Permission { .. } => ErrorKind::PermissionDenied,
            HandoverError::TimedOut | HandoverError::Busy => ErrorKind::TimedOut,
            HandoverError::Lost => ErrorKind::ConnectionReset,
            HandoverError::Version { .. } | HandoverError::Protocol => ErrorKind::InvalidData,
            HandoverError::Untaken(_) => ErrorKind::InvalidInput,
            HandoverError::Refused(_) | HandoverError::Cancelled => ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

//! Why TLS ended a connection, or did not begin one.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why TLS ended a connection ([`CloseReason::Tls`](crate::CloseReason::Tls)), or did not come to be
/// on one ([`ConnectErrorKind::Tls`](crate::ConnectErrorKind::Tls)).
///
/// Where it is an error of rustls, [`source`](Error::source) is that (`rustls::Error`).
#[derive(Debug, Clone)]
pub struct TlsError {
    /// Behind one pointer: it is the seldom end.
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: TlsErrorKind,
    /// What more there is to say, if `source` does not say it.
    after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What is wrong, of a [`TlsError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsErrorKind {
    /// The handshake was not done within its time: that of `tls::Server::handshake_deadline`, or, of
    /// a connect, [`ConnectOptions::timeout`](crate::ConnectOptions::timeout).
    Deadline,
    /// The peer closed or reset the connection before the handshake was done.
    Unfinished,
    /// What the peer sent is no TLS: mostly somebody who speaks plainly to a port for TLS, or the
    /// other way round.
    NotTls,
    /// The two have no version, cipher suite, signature or application protocol in common.
    Incompatible,
    /// The peer's certificate is not accepted: its issuer is not trusted, it is for another name, it
    /// has expired or is not valid yet, or there is none.
    Certificate,
    /// The peer sent a fatal alert: it does not accept our certificate, has nothing in common with
    /// us, or found an error.
    Alert,
    /// A record was changed on its way, or was never one: nothing of it was shown.
    BadRecord,
    /// The peer does not keep to the protocol.
    Misbehaved,
    /// The connection ended without the peer's `close_notify`: whether bytes are missing at the end
    /// cannot be known. Peers that close carelessly do this, and so does who cuts a stream short.
    Truncated,
    /// Our own side: its configuration, or the system's random numbers or clock.
    Local,
}

impl TlsErrorKind {
    /// The names of all kinds, for the counters.
    pub(crate) const NAMES: [&'static str; 10] = [
        "deadline",
        "unfinished",
        "not tls",
        "incompatible",
        "certificate",
        "alert",
        "bad record",
        "misbehaved",
        "truncated",
        "local",
    ];

    /// The place in [`NAMES`](TlsErrorKind::NAMES).
    pub(crate) fn place(self) -> usize {
        self as usize
    }

    /// A short name: what [`Stats::handshakes_failed_by`](crate::Stats::handshakes_failed_by)
    /// counts under.
    pub fn name(self) -> &'static str {
        TlsErrorKind::NAMES[self.place()]
    }
}

impl TlsError {
    pub(crate) fn new(kind: TlsErrorKind) -> TlsError {
        TlsError::with(kind, None, None)
    }

    #[cfg(feature = "tls")]
    pub(crate) fn of(kind: TlsErrorKind, source: impl Error + Send + Sync + 'static) -> TlsError {
        TlsError::with(kind, None, Some(Box::new(source)))
    }

    pub(crate) fn late(after: Duration) -> TlsError {
        TlsError::with(TlsErrorKind::Deadline, Some(after), None)
    }

    fn with(
        kind: TlsErrorKind,
        after: Option<Duration>,
        source: Option<Box<dyn Error + Send + Sync>>,
    ) -> TlsError {
        let inner = Inner {
            kind,
            after,
            source,
        };
        TlsError {
            inner: Arc::new(inner),
        }
    }

    /// What is wrong.
    pub fn kind(&self) -> TlsErrorKind {
        self.inner.kind
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind() {
            TlsErrorKind::Deadline => "TLS: the handshake was not done in time",
            TlsErrorKind::Unfinished => "TLS: the peer closed before the handshake was done",
            TlsErrorKind::NotTls => {
                "TLS: what came is no TLS (does the peer speak plainly, or another protocol?)"
            }
            TlsErrorKind::Incompatible => "TLS: nothing in common with the peer",
            TlsErrorKind::Certificate => "TLS: the peer's certificate is not accepted",
            TlsErrorKind::Alert => "TLS: the peer sent an alert",
            TlsErrorKind::BadRecord => "TLS: a bad record",
            TlsErrorKind::Misbehaved => "TLS: the peer does not keep to the protocol",
            TlsErrorKind::Truncated => {
                "TLS: truncated: the connection ended without the peer's close_notify"
            }
            TlsErrorKind::Local => "TLS: our side failed",
        })?;
        if let Some(after) = self.inner.after {
            write!(f, ", which is {after:?}")?;
        }
        match &self.inner.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.inner.source.as_deref()?;
        Some(source)
    }
}

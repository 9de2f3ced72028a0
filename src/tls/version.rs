//! The versions of TLS.

use std::fmt;

use rustls::{ProtocolVersion, SupportedProtocolVersion};

use super::error::ConfigError;

/// A version of TLS. What came before 1.2 is broken, and there is none of it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Version {
    /// TLS 1.2, with forward secrecy and authenticated encryption alone.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    pub(super) const ALL: [Version; 2] = [Version::Tls12, Version::Tls13];
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::Tls12 => "TLS 1.2",
            Version::Tls13 => "TLS 1.3",
        })
    }
}

impl TryFrom<ProtocolVersion> for Version {
    type Error = ProtocolVersion;

    /// # Errors
    ///
    /// It is another one.
    fn try_from(version: ProtocolVersion) -> Result<Version, ProtocolVersion> {
        match version {
            ProtocolVersion::TLSv1_2 => Ok(Version::Tls12),
            ProtocolVersion::TLSv1_3 => Ok(Version::Tls13),
            other => Err(other),
        }
    }
}

/// As rustls names them.
pub(super) fn supported(
    versions: &[Version],
) -> Result<Vec<&'static SupportedProtocolVersion>, ConfigError> {
    if versions.is_empty() {
        return Err(ConfigError::NoVersion);
    }
    let versions = versions.iter().map(|version| match version {
        Version::Tls12 => &rustls::version::TLS12,
        Version::Tls13 => &rustls::version::TLS13,
    });
    Ok(versions.collect())
}

//! Why a configuration cannot be made.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use rustls::pki_types::pem;

/// Where something stands that a configuration is made from: a file or bytes, and the line if it is
/// one of PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub(super) file: Option<PathBuf>,
    pub(super) line: Option<usize>,
}

impl Place {
    /// The file, or `None` for bytes that were given.
    pub fn file(&self) -> Option<&std::path::Path> {
        self.file.as_deref()
    }

    /// The line, from 1 on; `None` where it is no matter of a line.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// Bytes that were given.
    pub(super) fn bytes() -> Place {
        Place {
            file: None,
            line: None,
        }
    }

    pub(super) fn at(&self, line: usize) -> Place {
        Place {
            file: self.file.clone(),
            line: Some(line),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display())?,
            None => f.write_str("the bytes given")?,
        }
        match self.line {
            Some(line) => write!(f, ", line {line}"),
            None => Ok(()),
        }
    }
}

/// Why a configuration of TLS cannot be made: what is wrong where, and in its text what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read.
    Read {
        /// Which one.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file has more than 16 MiB: it is none of certificates.
    TooLong {
        /// Which one.
        file: PathBuf,
    },
    /// A section of PEM is malformed.
    Pem {
        /// Where it begins.
        place: Place,
        /// What is wrong with it.
        error: pem::Error,
    },
    /// There is no certificate.
    NoCertificate {
        /// Where it was looked for.
        place: Place,
        /// What is there in its place.
        found: String,
    },
    /// There is no private key.
    NoKey {
        /// Where it was looked for.
        place: Place,
        /// What is there in its place.
        found: String,
    },
    /// The private key is encrypted: it cannot be used without its passphrase.
    EncryptedKey {
        /// Where it begins.
        place: Place,
    },
    /// What is to be a certificate is none, or one of a kind that is not supported.
    Certificate {
        /// Where it begins.
        place: Place,
        /// What is wrong with it.
        error: rustls::Error,
    },
    /// What is to be a private key is none, or one of a kind that is not supported.
    Key {
        /// Where it begins.
        place: Place,
        /// What is wrong with it.
        error: rustls::Error,
    },
    /// The private key is not that of the first certificate.
    Mismatch {
        /// Where the certificate begins.
        certificate: Place,
        /// Where the key does.
        key: Place,
    },
    /// A server was given nothing to show to its clients.
    NoIdentity,
    /// A client was given no roots to trust.
    NoRoots,
    /// A protocol of ALPN has no bytes, or more than 255.
    Alpn {
        /// How many it has.
        len: usize,
    },
    /// No version of TLS is left.
    NoVersion,
    /// A text is neither the name of a host nor an IP address.
    ServerName {
        /// That text.
        name: String,
    },
    /// The certificates of a server that was made from a [`rustls::ServerConfig`] are not known here.
    Opaque,
    /// rustls does not take it.
    Rustls(rustls::Error),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tls: ")?;
        match self {
            ConfigError::Read { file, error } => {
                write!(f, "cannot read {}: {error}", file.display())
            }
            ConfigError::TooLong { file } => write!(
                f,
                "{} has more than 16 MiB; is it a file of certificates?",
                file.display()
            ),
            ConfigError::Pem { place, error } => {
                write!(f, "{place}: the section that begins there is not PEM: ")?;
                describe(error, f)
            }
            ConfigError::NoCertificate { place, found } => write!(
                f,
                "no certificate in {place}: expected a section \"-----BEGIN CERTIFICATE-----\", found {found}"
            ),
            ConfigError::NoKey { place, found } => write!(
                f,
                "no private key in {place}: expected a section \"-----BEGIN PRIVATE KEY-----\", found {found}"
            ),
            ConfigError::EncryptedKey { place } => write!(
                f,
                "the private key in {place} is encrypted; write it without a passphrase, readable by the server alone: \
                 openssl pkey -in ENCRYPTED -out KEY"
            ),
            ConfigError::Certificate { place, error } => {
                write!(f, "{place}: the certificate cannot be used: {error}")
            }
            ConfigError::Key { place, error } => write!(
                f,
                "{place}: the private key cannot be used: {error}; supported are ECDSA on P-256 and P-384, Ed25519, and RSA \
                 of 2048 to 8192 bits"
            ),
            ConfigError::Mismatch { certificate, key } => write!(
                f,
                "the private key in {key} does not belong to the certificate in {certificate}; the first certificate has to \
                 be that of the key, those of who signed it follow"
            ),
            ConfigError::NoIdentity => {
                f.write_str("a server needs a certificate: call identity on its builder")
            }
            ConfigError::NoRoots => f.write_str(
                "a client needs certificates that it trusts: call roots on its builder, for instance with Roots::platform()",
            ),
            ConfigError::Alpn { len } => write!(
                f,
                "a protocol of ALPN has 1 to 255 bytes, this one has {len}"
            ),
            ConfigError::NoVersion => f.write_str("at least one version of TLS must be allowed"),
            ConfigError::ServerName { name } => {
                write!(f, "{name:?} is neither the name of a host nor an IP address")
            }
            ConfigError::Opaque => f.write_str(
                "a server made from a rustls::ServerConfig has certificates of its own; give it another configuration by replace",
            ),
            ConfigError::Rustls(error) => write!(f, "{error}"),
        }
    }
}

/// In words: its own text shows bytes as numbers.
fn describe(error: &pem::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            let label = String::from_utf8_lossy(end_marker);
            write!(f, "there is no \"-----END {label}-----\"")
        }
        pem::Error::IllegalSectionStart { .. } => {
            f.write_str("its first line does not end in \"-----\"")
        }
        pem::Error::Base64Decode(_) => {
            f.write_str("between its first and last line is something other than base64")
        }
        other => write!(f, "{other}"),
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ConfigError::Read { error, .. } => Some(error),
            ConfigError::Pem { error, .. } => Some(error),
            ConfigError::Certificate { error, .. } | ConfigError::Key { error, .. } => Some(error),
            ConfigError::Rustls(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConfigError> for io::Error {
    fn from(error: ConfigError) -> io::Error {
        let kind = match &error {
            ConfigError::Read { error, .. } => error.kind(),
            ConfigError::Rustls(_) => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

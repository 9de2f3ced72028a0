//! TLS for listeners and for outgoing connections, by [rustls], versions 1.2 and 1.3.

mod client;
mod error;
mod failure;
mod identity;
mod info;
mod pem;
mod server;
mod session;
mod version;

#[cfg(test)]
mod tests;

pub use client::{Client, ClientBuilder};
pub use error::{ConfigError, Place};
pub use failure::{TlsError, TlsErrorKind};
pub use identity::{Identity, Roots};
pub use info::TlsInfo;
pub use rustls;
pub use server::{Server, ServerBuilder};
pub use version::Version;

pub(crate) use session::{RECORD, Session};

//! What the two sides of a connection have agreed on.

use std::fmt;

use rustls::pki_types::CertificateDer;
use rustls::{Connection, HandshakeKind};

use super::Version;

/// What the handshake of a connection has agreed on: [`Context::tls`](crate::Context::tls).
///
/// ```
/// use greenroom::*;
///
/// struct Line;
///
/// impl Actor for Line {
///     type Message = ();
///
///     fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
///         // The same actor may be on a plain connection.
///         if let Some(tls) = ctx.tls() {
///             println!("{:?} by {}", tls.version(), tls.cipher_suite());
///         }
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Copy)]
pub struct TlsInfo<'a> {
    connection: &'a Connection,
}

impl<'a> TlsInfo<'a> {
    pub(crate) fn of(connection: &'a Connection) -> TlsInfo<'a> {
        TlsInfo { connection }
    }

    /// The version of TLS; `None` only for one that [`Version`] does not know.
    pub fn version(&self) -> Option<Version> {
        let version = self.connection.protocol_version()?;
        Version::try_from(version).ok()
    }

    /// The name of the cipher suite as rustls writes it: `TLS13_AES_256_GCM_SHA384`.
    pub fn cipher_suite(&self) -> &'static str {
        let suite = self.connection.negotiated_cipher_suite();
        suite
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("unknown")
    }

    /// The application protocol that was agreed on by ALPN, as `b"h2"`; `None` where the two did not
    /// speak of one.
    pub fn alpn_protocol(&self) -> Option<&'a [u8]> {
        self.connection.alpn_protocol()
    }

    /// The name that the client asked for (SNI), on the server's side; `None` on the client's, and
    /// where the client named none, as one does that connects to an address.
    pub fn server_name(&self) -> Option<&'a str> {
        match self.connection {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        }
    }

    /// The peer's certificates, its own first; none where it has shown none, as most clients do. They
    /// have been checked as the configuration says.
    pub fn peer_certificates(&self) -> &'a [CertificateDer<'static>] {
        self.connection.peer_certificates().unwrap_or_default()
    }

    /// Whether it goes on from a session of before, without certificates being shown anew.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

impl fmt::Debug for TlsInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificates = self.peer_certificates().len();
        f.debug_struct("TlsInfo")
            .field("version", &self.version())
            .field("cipher_suite", &self.cipher_suite())
            .field(
                "alpn_protocol",
                &self.alpn_protocol().map(<[u8]>::escape_ascii),
            )
            .field("server_name", &self.server_name())
            .field("peer_certificates", &certificates)
            .field("is_resumed", &self.is_resumed())
            .finish()
    }
}

//! What a client is told.

use std::fmt;
use std::sync::{Arc, Mutex};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection};

use super::error::ConfigError;
use super::identity::{Identity, Roots, provider};
use super::server::{check_alpn, to_vecs};
use super::version::{Version, supported};
use crate::sync::lock;

/// TLS for outgoing connections: for [`ConnectOptions::tls`](crate::ConnectOptions::tls). A handle
/// that is cheap to clone; sessions are resumed among all connections of it.
///
/// Made by [`Client::builder`], or from an `Arc` of a [`rustls::ClientConfig`] for all that the
/// builder does not say. There is no option that trusts everybody: roots with the server's own certificate
/// do for a test, and for anything else there is rustls.
///
/// The whole handshake is part of the connect: it has to be over within
/// [`ConnectOptions::timeout`](crate::ConnectOptions::timeout).
///
/// ```no_run
/// use greenroom::tls;
///
/// let roots = tls::Roots::platform()?;
/// let client = tls::Client::builder().roots(roots).build()?;
/// # Ok::<(), tls::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Mutex<Current>>,
}

/// What new handshakes go by.
#[derive(Clone)]
struct Current {
    config: Arc<ClientConfig>,
    /// Whom to ask for, whatever the address.
    name: Option<ServerName<'static>>,
}

/// Two are equal when they are one.
impl PartialEq for Client {
    fn eq(&self, other: &Client) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Client {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("server_name", &lock(&self.shared).name)
            .finish_non_exhaustive()
    }
}

impl From<Arc<ClientConfig>> for Client {
    fn from(config: Arc<ClientConfig>) -> Client {
        Client::new(Current { config, name: None })
    }
}

impl From<ClientConfig> for Client {
    fn from(config: ClientConfig) -> Client {
        Client::from(Arc::new(config))
    }
}

impl Client {
    /// Nothing said yet but the defaults.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    fn new(current: Current) -> Client {
        Client {
            shared: Arc::new(Mutex::new(current)),
        }
    }

    /// Takes over everything that the other client has been told, for all handshakes that begin from now
    /// on, those of a [`Reconnect`](crate::Reconnect) or a [`Pool`](crate::Pool) among them:
    /// another certificate of its own, for instance. Connections that are there go on.
    pub fn replace(&self, other: &Client) {
        let current = lock(&other.shared).clone();
        let before = std::mem::replace(&mut *lock(&self.shared), current);
        // Freed with the lock released.
        drop(before);
    }

    /// For a connection to the host of that name or IP address; `None` where there is none, as with
    /// a Unix socket.
    pub(crate) fn connect(&self, host: Option<&str>) -> Result<ClientConnection, ConfigError> {
        let Current { config, name } = lock(&self.shared).clone();
        let name = match name {
            Some(name) => name,
            None => to_name(host.unwrap_or_default())?,
        };
        ClientConnection::new(config, name).map_err(ConfigError::Rustls)
    }
}

fn to_name(host: &str) -> Result<ServerName<'static>, ConfigError> {
    ServerName::try_from(host.to_owned()).map_err(|_| ConfigError::ServerName {
        name: host.to_owned(),
    })
}

/// What is said of a [`Client`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct ClientBuilder {
    roots: Option<Roots>,
    identity: Option<Identity>,
    alpn: Vec<Vec<u8>>,
    name: Option<String>,
    sessions: usize,
    versions: Vec<Version>,
}

impl Default for ClientBuilder {
    fn default() -> ClientBuilder {
        ClientBuilder {
            roots: None,
            identity: None,
            alpn: Vec::new(),
            name: None,
            sessions: 256,
            versions: Version::ALL.to_vec(),
        }
    }
}

impl ClientBuilder {
    /// By which a server's certificate has to be good. Called again, those as well.
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = Some(match self.roots {
            Some(before) => before.and(&roots),
            None => roots,
        });
        self
    }

    /// What is shown to a server that asks for a certificate. By default none.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The protocols that can be spoken, as ALPN names them, the best first. By default none.
    ///
    /// The server chooses one of these or fails the handshake; one that knows no ALPN does neither, and
    /// nothing is agreed on.
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = to_vecs(protocols);
        self
    }

    /// The name, or the IP address, that the server is asked for (SNI, for a name) and that its
    /// certificate has to be for. By default that which the connect was given. A connect to a Unix
    /// socket gives none, and fails where this does not either.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many servers, by their names, sessions are kept of, so that the next handshake is cheaper:
    /// up to 8 tickets of TLS 1.3 and one session of 1.2 for each. Past it the oldest is forgotten. By default
    /// 256, some KiB each where they are used. With 0 no session is resumed.
    pub fn session_cache(mut self, servers: usize) -> Self {
        self.sessions = servers;
        self
    }

    /// The versions that may be spoken. By default both.
    pub fn versions(mut self, versions: impl IntoIterator<Item = Version>) -> Self {
        self.versions = versions.into_iter().collect();
        self
    }

    /// The client that was described.
    ///
    /// # Errors
    ///
    /// No roots or no version were given, a protocol of ALPN is empty or too long, or the name of the
    /// server is neither a name nor an address.
    pub fn build(self) -> Result<Client, ConfigError> {
        let roots = self.roots.ok_or(ConfigError::NoRoots)?;
        check_alpn(&self.alpn)?;
        let name = self.name.as_deref().map(to_name).transpose()?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.store(), provider());
        // The roots are there, and lists of revoked certificates were not given: nothing is left to fail by.
        let verifier = verifier.build().map_err(|_| ConfigError::NoRoots)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&supported(&self.versions)?)
            .map_err(ConfigError::Rustls)?
            .with_webpki_verifier(verifier);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let shown = SingleCertAndKey::from(Arc::clone(identity.certified()));
                builder.with_client_cert_resolver(Arc::new(shown))
            }
        };
        config.alpn_protocols = self.alpn;
        config.resumption = match self.sessions {
            0 => Resumption::disabled(),
            servers => Resumption::in_memory_sessions(servers),
        };
        let config = Arc::new(config);
        Ok(Client::new(Current { config, name }))
    }
}

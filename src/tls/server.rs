//! What a server is told, and the handle by which it is told anew.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, SignatureScheme};

use super::error::ConfigError;
use super::identity::{Identity, Roots, provider};
use super::version::{Version, supported};
use crate::sync::lock;

/// TLS for the connections of a listener: for [`ListenOptions::tls`](crate::ListenOptions::tls). A
/// handle that is cheap to clone; all clones are told at once by [`reload`](Server::reload).
///
/// Made by [`Server::builder`], or from an `Arc` of a [`rustls::ServerConfig`] for all that the builder
/// does not say.
///
/// ```no_run
/// use greenroom::tls;
///
/// let identity = tls::Identity::from_files("fullchain.pem", "privkey.pem")?;
/// let server = tls::Server::builder().identity(identity).build()?;
/// # Ok::<(), tls::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Server {
    shared: Arc<Mutex<Current>>,
    deadline: Duration,
    per_turn: usize,
}

/// What new handshakes go by.
struct Current {
    config: Arc<ServerConfig>,
    /// `None` where the configuration is the user's own.
    identities: Option<Arc<Resolver>>,
}

/// Two are equal when they are one: told at once by a reload, with the same options of the handle.
impl PartialEq for Server {
    fn eq(&self, other: &Server) -> bool {
        let options = |server: &Server| (server.deadline, server.per_turn);
        Arc::ptr_eq(&self.shared, &other.shared) && options(self) == options(other)
    }
}

impl Eq for Server {}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identities = lock(&self.shared).identities.clone();
        let identities = identities.map(|resolver| lock(&resolver.0).all.clone());
        f.debug_struct("Server")
            .field("identities", &identities)
            .field("handshake_deadline", &self.deadline)
            .field("handshakes_per_turn", &self.per_turn)
            .finish_non_exhaustive()
    }
}

impl From<Arc<ServerConfig>> for Server {
    /// Everything holds that the configuration says, but for `max_early_data_size`: data in front of
    /// the handshake's end, which anybody may send once more, is not accepted. Clients that offer some
    /// are told so, and send it anew when the handshake is done.
    fn from(mut config: Arc<ServerConfig>) -> Server {
        if config.max_early_data_size > 0 {
            Arc::make_mut(&mut config).max_early_data_size = 0;
        }
        Server::new(config, None)
    }
}

impl From<ServerConfig> for Server {
    fn from(config: ServerConfig) -> Server {
        Server::from(Arc::new(config))
    }
}

impl Server {
    /// Nothing said yet but the defaults.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    fn new(config: Arc<ServerConfig>, identities: Option<Arc<Resolver>>) -> Server {
        Server {
            shared: Arc::new(Mutex::new(Current { config, identities })),
            deadline: Duration::from_secs(10),
            per_turn: 8,
        }
    }

    /// How long a handshake may take, from the accept to its end. By default 10 s: four round trips,
    /// of which a packet or two are lost and sent again. Past it the connection is closed, with no
    /// actor ever made. An option of this handle and of clones made from it.
    ///
    /// # Panics
    ///
    /// When it is 0: nobody could connect.
    #[must_use]
    pub fn handshake_deadline(mut self, after: Duration) -> Server {
        assert!(
            !after.is_zero(),
            "handshake_deadline: a handshake takes some time"
        );
        self.deadline = after;
        self
    }

    /// How many steps of handshakes a poller goes on with before it turns to its other connections
    /// again: a step is what one message of the client asks for, and a handshake has two. By default
    /// 8: the costly one takes some 100 microseconds with an ECDSA key, so that the others wait for
    /// about a millisecond. An option of this handle and of clones made from it.
    ///
    /// # Panics
    ///
    /// When it is 0: nobody could connect.
    #[must_use]
    pub fn handshakes_per_turn(mut self, handshakes: usize) -> Server {
        assert!(
            handshakes > 0,
            "handshakes_per_turn: at least one handshake must go on"
        );
        self.per_turn = handshakes;
        self
    }

    /// Shows these certificates in all handshakes that begin from now on, in place of those before;
    /// everything else stays. All at once: no handshake sees some of the old and some of the new.
    /// Connections that are there go on, and so do sessions: a client that resumes one is shown no
    /// certificate. Where that is not to be, because a key was stolen, there is
    /// [`replace`](Server::replace).
    ///
    /// To be called from any thread, as often as wanted. Files are read by
    /// [`Identity::from_files`], which fails before anything has changed:
    ///
    /// ```no_run
    /// # use greenroom::tls;
    /// fn renew(server: &tls::Server) -> Result<(), tls::ConfigError> {
    ///     server.reload([tls::Identity::from_files("fullchain.pem", "privkey.pem")?])
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// There is none among them, or the server was made from a [`rustls::ServerConfig`], for which there
    /// is [`replace`](Server::replace). What was shown before is shown as before.
    pub fn reload(
        &self,
        identities: impl IntoIterator<Item = Identity>,
    ) -> Result<(), ConfigError> {
        let identities = Identities::new(identities.into_iter().collect())?;
        let resolver = lock(&self.shared).identities.clone();
        let resolver = resolver.ok_or(ConfigError::Opaque)?;
        let before = std::mem::replace(&mut *lock(&resolver.0), Arc::new(identities));
        drop(before);
        Ok(())
    }

    /// Takes over everything that the other server has been told but the options of the handle, for all handshakes
    /// that begin from now on: its certificates, whom it trusts, its protocols. Connections that are there
    /// go on. Sessions of before are not resumed, so that who is no longer trusted gets in by none.
    ///
    /// ```no_run
    /// # use greenroom::tls;
    /// # fn example(server: &tls::Server, identity: tls::Identity) -> Result<(), tls::ConfigError> {
    /// let clients = tls::Roots::from_file("clients.pem")?;
    /// let builder = tls::Server::builder().identity(identity);
    /// server.replace(&builder.require_client_certificates(clients).build()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn replace(&self, other: &Server) {
        let (config, identities) = {
            let other = lock(&other.shared);
            (Arc::clone(&other.config), other.identities.clone())
        };
        let before = std::mem::replace(&mut *lock(&self.shared), Current { config, identities });
        // Freed with the lock released.
        drop(before);
    }

    /// For a connection that was accepted.
    pub(crate) fn accept(&self) -> Result<ServerConnection, rustls::Error> {
        let config = Arc::clone(&lock(&self.shared).config);
        ServerConnection::new(config)
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(crate) fn per_turn(&self) -> usize {
        self.per_turn
    }
}

/// What is said of a [`Server`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct ServerBuilder {
    identities: Vec<Identity>,
    clients: Clients,
    alpn: Vec<Vec<u8>>,
    tickets: bool,
    cache: usize,
    versions: Vec<Version>,
}

/// Whose certificates are asked for.
#[derive(Debug, Clone)]
enum Clients {
    Anyone,
    Optional(Roots),
    Required(Roots),
}

impl Default for ServerBuilder {
    fn default() -> ServerBuilder {
        ServerBuilder {
            identities: Vec::new(),
            clients: Clients::Anyone,
            alpn: Vec::new(),
            tickets: true,
            cache: 1024,
            versions: Version::ALL.to_vec(),
        }
    }
}

impl ServerBuilder {
    /// A certificate to show, with its key. Called again, one more.
    ///
    /// Which one a client is shown is chosen by the name that it asks for (SNI): one for that
    /// [name](Identity::names), or else one for `*.` and the rest of it, or else the first one given. The
    /// first one is therefore also what clients see that ask for no name or for another one. Of several for one
    /// name it is the first whose key the client can check, so that an ECDSA and an RSA certificate
    /// stand side by side.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Clients are asked for a certificate; one that is shown has to be good by these roots, and a
    /// client that shows none is served as well. By default none is asked for.
    pub fn accept_client_certificates(mut self, roots: Roots) -> Self {
        self.clients = Clients::Optional(roots);
        self
    }

    /// Clients have to show a certificate that is good by these roots; the handshakes of others fail.
    ///
    /// In TLS 1.3 a client learns that it was refused only after its own side of the handshake has
    /// ended, when it reads.
    pub fn require_client_certificates(mut self, roots: Roots) -> Self {
        self.clients = Clients::Required(roots);
        self
    }

    /// The protocols that are spoken here, as ALPN names them, the best first: `http/1.1`. By default
    /// none, and what clients offer is not looked at.
    ///
    /// The first of these that the client offers is agreed on. A client that offers some, but none of
    /// these, fails its handshake (`no_application_protocol`); one that offers nothing is served, with
    /// no protocol agreed on.
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = to_vecs(protocols);
        self
    }

    /// Whether clients are given tickets, by which they resume their session with a cheaper handshake:
    /// no certificate, no signature. On by default; a ticket holds for 12 hours, and its keys are made anew
    /// every 6 hours. Nothing is kept for them here, and they are of no use to another process.
    pub fn session_tickets(mut self, on: bool) -> Self {
        self.tickets = on;
        self
    }

    /// How many sessions are kept for clients that resume one without a ticket: those of TLS 1.2 that
    /// know none, and all where [`session_tickets`](ServerBuilder::session_tickets) is off. Past it the oldest is
    /// forgotten. By default 1,024, some 100 bytes for each from the start and some 200 more where one is
    /// kept, besides the certificate that its client has shown. With 0, none.
    ///
    /// With 0 and without tickets nobody resumes a session.
    pub fn session_cache(mut self, sessions: usize) -> Self {
        self.cache = sessions;
        self
    }

    /// The versions that may be spoken. By default both.
    pub fn versions(mut self, versions: impl IntoIterator<Item = Version>) -> Self {
        self.versions = versions.into_iter().collect();
        self
    }

    /// The server that was described.
    ///
    /// # Errors
    ///
    /// No identity or no version was given, or a protocol of ALPN is empty or too long.
    pub fn build(self) -> Result<Server, ConfigError> {
        let resolver = Arc::new(Resolver(Mutex::new(Arc::new(Identities::new(
            self.identities,
        )?))));
        check_alpn(&self.alpn)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&supported(&self.versions)?)
            .map_err(ConfigError::Rustls)?;
        let verifier =
            |roots: &Roots| WebPkiClientVerifier::builder_with_provider(roots.store(), provider());
        let verifier = match &self.clients {
            Clients::Anyone => Ok(WebPkiClientVerifier::no_client_auth()),
            Clients::Optional(roots) => verifier(roots).allow_unauthenticated().build(),
            Clients::Required(roots) => verifier(roots).build(),
        };
        // The roots are there, and lists of revoked certificates were not given: nothing is left to fail by.
        let verifier = verifier.map_err(|_| ConfigError::NoRoots)?;
        let mut config = builder
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = self.alpn;
        config.session_storage = match self.cache {
            0 => Arc::new(NoServerSessionStorage {}),
            sessions => ServerSessionMemoryCache::new(sessions),
        };
        if self.tickets {
            config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(ConfigError::Rustls)?;
        } else if self.cache == 0 {
            config.send_tls13_tickets = 0;
        }
        Ok(Server::new(Arc::new(config), Some(resolver)))
    }
}

pub(super) fn to_vecs<P: AsRef<[u8]>>(protocols: impl IntoIterator<Item = P>) -> Vec<Vec<u8>> {
    let protocols = protocols.into_iter();
    protocols.map(|name| name.as_ref().to_owned()).collect()
}

pub(super) fn check_alpn(protocols: &[Vec<u8>]) -> Result<(), ConfigError> {
    let mut lens = protocols.iter().map(Vec::len);
    match lens.find(|len| !(1..=255).contains(len)) {
        Some(len) => Err(ConfigError::Alpn { len }),
        None => Ok(()),
    }
}

/// What is shown at present.
#[derive(Debug)]
struct Resolver(Mutex<Arc<Identities>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Held for a count only: what is chosen from is this handshake's own.
        let identities = Arc::clone(&lock(&self.0));
        let chosen = identities.choose(hello.server_name(), hello.signature_schemes());
        Some(Arc::clone(chosen.certified()))
    }
}

/// Certificates, and which one is whose.
#[derive(Debug)]
pub(super) struct Identities {
    /// At least one.
    all: Vec<Identity>,
    /// By name, in the order in which they were given.
    named: HashMap<Box<str>, Vec<usize>>,
}

impl Identities {
    pub(super) fn new(all: Vec<Identity>) -> Result<Identities, ConfigError> {
        if all.is_empty() {
            return Err(ConfigError::NoIdentity);
        }
        let mut named: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (index, identity) in all.iter().enumerate() {
            for name in identity.names() {
                let indices = named.entry(name.into()).or_default();
                // A certificate may say a name twice.
                if indices.last() != Some(&index) {
                    indices.push(index);
                }
            }
        }
        Ok(Identities { all, named })
    }

    pub(super) fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> &Identity {
        let indices = name.and_then(|name| self.find(&name.to_ascii_lowercase()));
        let fits = |identity: &&Identity| identity.certified().key.choose_scheme(schemes).is_some();
        // Where none fits, the handshake is to fail by that.
        match indices {
            Some(indices) => {
                let mut these = indices.iter().map(|index| &self.all[*index]);
                these.find(fits).unwrap_or(&self.all[indices[0]])
            }
            None => self.all.iter().find(fits).unwrap_or(&self.all[0]),
        }
    }

    /// Those for a name in small letters.
    fn find(&self, name: &str) -> Option<&Vec<usize>> {
        let wild = || {
            let (_, rest) = name.split_once('.')?;
            self.named.get(&*format!("*.{rest}"))
        };
        self.named.get(name).or_else(wild)
    }
}

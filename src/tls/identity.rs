//! Who a server or a client is, and whom it trusts.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use super::error::{ConfigError, Place};
use super::pem::Pem;

/// ring, named wherever one is wanted: the process may have another one as its default, or none.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// Who a server or a client is: a certificate, those of who signed it, and its private key.
///
/// The chain begins with the certificate itself; what follows are those in between, up to but
/// without the root. As `fullchain.pem` and `privkey.pem` of an ACME client are. The key is ECDSA on P-256 or P-384,
/// Ed25519, or RSA of 2048 to 8192 bits, in PKCS #8, SEC 1 or PKCS #1, not encrypted. ECDSA is the
/// right choice where there is one: a handshake with RSA costs a server several times as much.
///
/// That the key is the certificate's is checked here. That the certificate has not expired is its
/// peers' to check. Cheap to clone.
///
/// ```no_run
/// # use greenroom::tls;
/// let identity = tls::Identity::from_files("fullchain.pem", "privkey.pem")?;
/// println!("for {}", identity.names().collect::<Vec<_>>().join(", "));
/// # Ok::<(), tls::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    names: Arc<[Box<str>]>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = &self.names;
        f.debug_struct("Identity")
            .field("names", names)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// From files in PEM format; both may be in one. Of several keys the first counts. Reads them
    /// here and now: for a start, or a thread that may wait for a disk.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or has no certificate or key; either is malformed or of a kind that
    /// is not supported; the key is encrypted, or not that of the first certificate.
    pub fn from_files(
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Identity, ConfigError> {
        Identity::new(&Pem::read(chain.as_ref())?, &Pem::read(key.as_ref())?)
    }

    /// From bytes in PEM format, as [`from_files`](Identity::from_files).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn from_pem(
        chain: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Identity, ConfigError> {
        Identity::new(&Pem::given(chain.as_ref()), &Pem::given(key.as_ref()))
    }

    fn new(chain: &Pem, key: &Pem) -> Result<Identity, ConfigError> {
        let (places, chain): (Vec<_>, Vec<_>) = chain.certificates()?.into_iter().unzip();
        let (key_place, key) = key.key()?;
        Identity::check(chain, places.into_iter().next(), key, key_place)
    }

    /// From certificates and a key in DER.
    ///
    /// # Errors
    ///
    /// There is no certificate; either is malformed or of a kind that is not supported; the key is
    /// not that of the first certificate.
    pub fn from_der(
        chain: impl IntoIterator<Item = CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Identity, ConfigError> {
        let chain = chain.into_iter().collect();
        Identity::check(chain, None, key, Place::bytes())
    }

    fn check(
        chain: Vec<CertificateDer<'static>>,
        first: Option<Place>,
        key: PrivateKeyDer<'static>,
        key_place: Place,
    ) -> Result<Identity, ConfigError> {
        let place = first.unwrap_or_else(Place::bytes);
        let Some(own) = chain.first() else {
            return Err(ConfigError::NoCertificate {
                place,
                found: "an empty chain".to_owned(),
            });
        };
        // By rustls first: its errors say more.
        let broken = |error| ConfigError::Certificate {
            place: place.clone(),
            error,
        };
        rustls::server::ParsedCertificate::try_from(own).map_err(broken)?;
        let names = EndEntityCert::try_from(own).map_or_else(
            |_| Arc::default(),
            |parsed| {
                let names = parsed.valid_dns_names();
                names
                    .map(|name| name.to_ascii_lowercase().into_boxed_str())
                    .collect()
            },
        );
        let key = match provider().key_provider.load_private_key(key) {
            Ok(key) => key,
            Err(error) => {
                return Err(ConfigError::Key {
                    place: key_place,
                    error,
                });
            }
        };
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| ConfigError::Mismatch {
            certificate: place,
            key: key_place,
        })?;
        Ok(Identity {
            certified: Arc::new(certified),
            names,
        })
    }

    /// The names of hosts that the certificate is for, in small letters; one that begins with `*.` is
    /// for any single label there.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// The certificate itself, and behind it those of who signed it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// The certificates that a client trusts its servers by, or a server its clients. Cheap to clone.
///
/// ```no_run
/// # use greenroom::tls;
/// let roots = tls::Roots::from_file("ca.pem")?;
/// # Ok::<(), tls::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Roots").field(&self.0.len()).finish()
    }
}

impl Roots {
    /// From a file in PEM format, all certificates of which are trusted. A self-signed certificate is
    /// its own root.
    ///
    /// # Errors
    ///
    /// The file cannot be read, has no certificate, or one that is malformed.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Roots, ConfigError> {
        Roots::new(Pem::read(path.as_ref())?.certificates()?)
    }

    /// From bytes in PEM format, as [`from_file`](Roots::from_file).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Roots, ConfigError> {
        Roots::new(Pem::given(pem.as_ref()).certificates()?)
    }

    /// From certificates in DER.
    ///
    /// # Errors
    ///
    /// There is none, or one is malformed.
    pub fn from_der(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Roots, ConfigError> {
        let certificates = certificates.into_iter();
        Roots::new(certificates.map(|der| (Place::bytes(), der)).collect())
    }

    fn new(certificates: Vec<(Place, CertificateDer<'static>)>) -> Result<Roots, ConfigError> {
        let mut roots = RootCertStore::empty();
        for (place, der) in certificates {
            let added = roots.add(der);
            added.map_err(|error| ConfigError::Certificate { place, error })?;
        }
        match roots.is_empty() {
            true => Err(ConfigError::NoRoots),
            false => Ok(Roots(Arc::new(roots))),
        }
    }

    /// Those that the system trusts: of the file that the environment variable `SSL_CERT_FILE` names, or
    /// else of the first there is of those that Linux distributions and BSDs keep, such as
    /// `/etc/ssl/certs/ca-certificates.crt`. Certificates in there that are of no use to rustls are
    /// left out. No system call of macOS, nor a directory of single certificates, is asked: there,
    /// name a file.
    ///
    /// # Errors
    ///
    /// There is no such file, it cannot be read, or nothing in it is of use.
    pub fn platform() -> Result<Roots, ConfigError> {
        let named = env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let usual = || BUNDLES.iter().map(PathBuf::from).find(|path| path.exists());
        let file = named.or_else(usual).unwrap_or_else(|| BUNDLES[0].into());
        let certificates = Pem::read(&file)?.certificates()?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.into_iter().map(|(_, der)| der));
        match roots.is_empty() {
            true => Err(ConfigError::NoRoots),
            false => Ok(Roots(Arc::new(roots))),
        }
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, others: &Roots) -> Roots {
        let roots = others.0.roots.iter().cloned();
        Arc::make_mut(&mut self.0).roots.extend(roots);
        self
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

/// Where systems keep what they trust: Debian, Fedora, older Red Hat, SUSE, Alpine and the BSDs.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

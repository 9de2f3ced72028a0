//! Certificates made for one test run, and a client that speaks TLS by rustls' own client side.
//! Beside `util`, for those that need it.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};

use greenroom::tls;
use greenroom::tls::rustls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// What a server for `localhost` and `127.0.0.1` shows, signed by itself. The signatures of its key
/// are all of one length, so that those of a simulation are.
pub fn identity() -> &'static rcgen::CertifiedKey<rcgen::KeyPair> {
    static IDENTITY: OnceLock<rcgen::CertifiedKey<rcgen::KeyPair>> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = rcgen::CertificateParams::new(names).expect("names that are names");
        let cert = params.self_signed(&key).expect("a certificate");
        rcgen::CertifiedKey {
            cert,
            signing_key: key,
        }
    })
}

pub fn server() -> tls::Server {
    let identity = identity();
    let identity =
        tls::Identity::from_pem(identity.cert.pem(), identity.signing_key.serialize_pem());
    let builder = tls::Server::builder().identity(identity.expect("what was just made"));
    builder.build().expect("a server")
}

/// Trusts [`server`].
pub fn client() -> tls::Client {
    let roots = tls::Roots::from_pem(identity().cert.pem()).expect("what was just made");
    tls::Client::builder()
        .roots(roots)
        .build()
        .expect("a client")
}

/// The same for rustls itself, in these versions.
pub fn client_config(versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(identity().cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(versions).expect("versions");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

pub fn session() -> ClientConnection {
    session_of(client_config(rustls::ALL_VERSIONS))
}

pub fn session_of(config: Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(config, name).expect("a client")
}

/// A client, blocking, in no hurry to read.
pub struct TlsClient {
    pub session: ClientConnection,
    pub socket: TcpStream,
}

impl TlsClient {
    /// The handshake is done on both sides once something has come.
    pub fn new(socket: TcpStream) -> TlsClient {
        TlsClient::with(socket, session())
    }

    pub fn with(mut socket: TcpStream, mut session: ClientConnection) -> TlsClient {
        session.complete_io(&mut socket).expect("a handshake");
        TlsClient { session, socket }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).expect("sent");
    }

    /// So many bytes.
    #[track_caller]
    pub fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream().read_exact(&mut bytes).expect("so many bytes");
        bytes
    }

    /// All up to the server's `close_notify`; an error where there is none.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Says that nothing follows.
    pub fn close_notify(&mut self) {
        self.session.send_close_notify();
        self.send_records();
    }

    /// Sends what the session has to say.
    pub fn send_records(&mut self) {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket).expect("sent");
        }
    }

    fn stream(&mut self) -> rustls::Stream<'_, ClientConnection, TcpStream> {
        rustls::Stream::new(&mut self.session, &mut self.socket)
    }
}

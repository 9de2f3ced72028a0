use std::error::Error as _;
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    AlertDescription, ClientConnection, Error, HandshakeKind, ServerConnection, SignatureScheme,
};

use super::server::Identities;
use super::*;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn new_ca() -> Issuer {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn roots(ca: &Issuer) -> Roots {
    Roots::from_pem(ca.pem()).unwrap()
}

/// Chain and key in PEM.
fn issue_pem(ca: &Issuer, names: &[&str], kind: &'static SignatureAlgorithm) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate_for(kind).unwrap();
    let params = CertificateParams::new(names).unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn issue(ca: &Issuer, names: &[&str]) -> Identity {
    issue_with(ca, names, &PKCS_ECDSA_P256_SHA256)
}

fn issue_with(ca: &Issuer, names: &[&str], kind: &'static SignatureAlgorithm) -> Identity {
    let (chain, key) = issue_pem(ca, names, kind);
    Identity::from_pem(chain, key).unwrap()
}

fn server_for(identity: &Identity) -> Server {
    let builder = Server::builder().identity(identity.clone());
    builder.build().unwrap()
}

fn client_of(ca: &Issuer) -> Client {
    Client::builder().roots(roots(ca)).build().unwrap()
}

/// Both ends of a connection.
struct Pair {
    server: ServerConnection,
    client: ClientConnection,
}

impl Pair {
    /// The handshake, and what follows it at once: the tickets. An error is that of the side that
    /// found it; the other one is told by an alert.
    fn new(server: &Server, client: &Client, host: &str) -> Result<Pair, Error> {
        let mut pair = Pair {
            server: server.accept().unwrap(),
            client: client.connect(Some(host)).unwrap(),
        };
        pair.go_on()?;
        assert!(!pair.server.is_handshaking() && !pair.client.is_handshaking());
        Ok(pair)
    }

    /// Until neither side has anything to say.
    fn go_on(&mut self) -> Result<(), Error> {
        while self.client.wants_write() || self.server.wants_write() {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            feed(&mut self.server, &bytes)?;
            bytes.clear();
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).unwrap();
            }
            feed(&mut self.client, &bytes)?;
        }
        Ok(())
    }

    /// The certificate that the client was shown.
    fn shown(&self) -> &CertificateDer<'static> {
        &self.client.peer_certificates().unwrap()[0]
    }

    fn kinds(&self) -> (HandshakeKind, HandshakeKind) {
        let server = self.server.handshake_kind().unwrap();
        (server, self.client.handshake_kind().unwrap())
    }

    fn is_resumed(&self) -> bool {
        let (server, client) = self.kinds();
        assert_eq!(server, client);
        server == HandshakeKind::Resumed
    }

    fn echo(&mut self) {
        self.client.writer().write_all(b"hello").unwrap();
        self.go_on().unwrap();
        let mut got = [0; 5];
        self.server.reader().read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
    }
}

fn feed<S>(to: &mut rustls::ConnectionCommon<S>, mut bytes: &[u8]) -> Result<(), Error>
where
    S: rustls::SideData,
{
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

fn shows(server: &Server, client: &Client, host: &str, identity: &Identity) {
    let pair = Pair::new(server, client, host).unwrap();
    assert_eq!(pair.shown(), &identity.chain()[0], "{host}");
}

#[test]
fn the_name_asked_for_chooses_the_certificate() {
    let ca = new_ca();
    let all = ["a.example", "*.b.example", "C.Example", "x.b.example"];
    let [a, b, c, xb] = all.map(|name| issue(&ca, &[name]));
    let builder = Server::builder().identity(a.clone()).identity(b.clone());
    let builder = builder.identity(c.clone()).identity(xb.clone());
    let server = builder.build().unwrap();
    let client = client_of(&ca);
    shows(&server, &client, "a.example", &a);
    shows(&server, &client, "A.EXAMPLE", &a);
    shows(&server, &client, "www.b.example", &b);
    shows(&server, &client, "WWW.B.example", &b);
    // The exact one before that with a star.
    shows(&server, &client, "x.b.example", &xb);
    shows(&server, &client, "c.example", &c);
}

#[test]
fn who_asks_for_nothing_or_another_name_is_shown_the_first_certificate() {
    let ca = new_ca();
    let names = [&["a.example", "192.0.2.7"][..], &["*.b.example"]];
    let [a, b] = names.map(|names| issue(&ca, names));
    let all = Identities::new(vec![a.clone(), b.clone()]).unwrap();
    let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
    let shown = |name| all.choose(name, &schemes).chain()[0].clone();
    assert_eq!(shown(None), a.chain()[0]);
    assert_eq!(shown(Some("other.example")), a.chain()[0]);
    // A star is one label, neither none nor two.
    assert_eq!(shown(Some("b.example")), a.chain()[0]);
    assert_eq!(shown(Some("x.y.b.example")), a.chain()[0]);
    assert_eq!(shown(Some("x.b.example")), b.chain()[0]);
    assert_eq!(shown(Some("")), a.chain()[0]);
    assert_eq!(shown(Some(".")), a.chain()[0]);

    // An address is not asked for by name, and is checked all the same.
    let server = server_for(&a);
    shows(&server, &client_of(&ca), "192.0.2.7", &a);
    let error = Pair::new(&server, &client_of(&ca), "192.0.2.8")
        .err()
        .unwrap();
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
}

#[test]
fn of_several_for_one_name_the_first_that_the_client_can_check_is_shown() {
    let ca = new_ca();
    let names = &["a.example"];
    let ecdsa = issue(&ca, names);
    let edwards = issue_with(&ca, names, &PKCS_ED25519);
    let all = Identities::new(vec![ecdsa.clone(), edwards.clone()]).unwrap();
    for name in [Some("a.example"), Some("b.example"), None] {
        let shown = |schemes: &[_]| all.choose(name, schemes).chain()[0].clone();
        let (p256, ed) = (
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ED25519,
        );
        assert_eq!(shown(&[ed, p256]), ecdsa.chain()[0]);
        assert_eq!(shown(&[ed]), edwards.chain()[0]);
        // The handshake fails by it: there is nothing that would do.
        assert_eq!(shown(&[]), ecdsa.chain()[0]);
    }
}

#[test]
fn all_kinds_of_keys_serve() {
    let ca = new_ca();
    for kind in [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ED25519,
    ] {
        let identity = issue_with(&ca, &["a.example"], kind);
        for version in Version::ALL {
            let builder = Client::builder().roots(roots(&ca)).versions([version]);
            let pair = Pair::new(
                &server_for(&identity),
                &builder.build().unwrap(),
                "a.example",
            );
            let spoken = pair.unwrap().server.protocol_version().unwrap();
            assert_eq!(Version::try_from(spoken), Ok(version));
        }
    }
}

#[test]
fn a_protocol_is_agreed_on_or_the_handshake_fails() {
    let ca = new_ca();
    let identity = issue(&ca, &["a.example"]);
    let builder = Server::builder().identity(identity.clone());
    let server = builder.alpn(["chat/2", "chat/1"]).build().unwrap();
    let agreed = |server: &Server, offered: &[&str]| -> Result<_, Error> {
        let builder = Client::builder().roots(roots(&ca)).alpn(offered);
        let pair = Pair::new(server, &builder.build().unwrap(), "a.example")?;
        assert_eq!(pair.server.alpn_protocol(), pair.client.alpn_protocol());
        Ok(pair.server.alpn_protocol().map(<[u8]>::to_vec))
    };
    // The server's first, whatever the client's order.
    let chat = agreed(&server, &["chat/1", "chat/2"]);
    assert_eq!(chat.unwrap().as_deref(), Some(&b"chat/2"[..]));
    assert_eq!(agreed(&server, &[]).unwrap(), None);
    assert_eq!(
        agreed(&server, &["h2"]).unwrap_err(),
        Error::NoApplicationProtocol
    );
    assert_eq!(agreed(&server_for(&identity), &["h2"]).unwrap(), None);
}

#[test]
fn clients_show_certificates_where_they_are_asked_to() {
    let (ca, clients, others) = (new_ca(), new_ca(), new_ca());
    let identity = issue(&ca, &["a.example"]);
    let builder = || Server::builder().identity(identity.clone());
    let none = builder().build().unwrap();
    let optional = builder().accept_client_certificates(roots(&clients));
    let optional = optional.build().unwrap();
    let required = builder().require_client_certificates(roots(&clients));
    let required = required.build().unwrap();

    let (good, bad) = (issue(&clients, &["one"]), issue(&others, &["one"]));
    for version in Version::ALL {
        let attempt = |server: &Server, shown: Option<&Identity>| -> Result<_, Error> {
            let mut builder = Client::builder().roots(roots(&ca)).versions([version]);
            if let Some(shown) = shown {
                builder = builder.identity(shown.clone());
            }
            let pair = Pair::new(server, &builder.build().unwrap(), "a.example")?;
            let seen = pair.server.peer_certificates();
            Ok(seen.map(|chain| chain[0].clone()))
        };
        let seen = Some(good.chain()[0].clone());
        assert_eq!(attempt(&none, None).unwrap(), None);
        assert_eq!(attempt(&none, Some(&good)).unwrap(), None);
        assert_eq!(attempt(&optional, None).unwrap(), None);
        assert_eq!(attempt(&optional, Some(&good)).unwrap(), seen);
        assert_eq!(attempt(&required, Some(&good)).unwrap(), seen);
        assert_eq!(
            attempt(&required, None).unwrap_err(),
            Error::NoCertificatesPresented
        );
        for server in [&optional, &required] {
            let error = attempt(server, Some(&bad)).unwrap_err();
            assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
        }
    }
}

#[test]
fn a_server_is_trusted_by_its_root_and_name_alone() {
    let (ca, other) = (new_ca(), new_ca());
    let identity = issue(&ca, &["a.example"]);
    let server = server_for(&identity);
    let error = Pair::new(&server, &client_of(&other), "a.example").err();
    assert!(matches!(error, Some(Error::InvalidCertificate(_))));
    let error = Pair::new(&server, &client_of(&ca), "b.example").err();
    assert!(matches!(error, Some(Error::InvalidCertificate(_))));
    // Roots are joined; and the name may be said in place of the address.
    let builder = Client::builder().roots(roots(&other)).roots(roots(&ca));
    let client = builder.server_name("a.example").build().unwrap();
    shows(&server, &client, "192.0.2.1", &identity);
    assert!(client.connect(None).is_ok());
    // A self-signed certificate is its own root.
    let own = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let identity = Identity::from_pem(own.cert.pem(), own.signing_key.serialize_pem()).unwrap();
    let trusting = Client::builder().roots(Roots::from_pem(own.cert.pem()).unwrap());
    let client = trusting.build().unwrap();
    shows(&server_for(&identity), &client, "a.example", &identity);
}

#[test]
fn only_the_versions_that_are_allowed_are_spoken() {
    let ca = new_ca();
    let identity = issue(&ca, &["a.example"]);
    for (here, there) in [
        (Version::Tls12, Version::Tls13),
        (Version::Tls13, Version::Tls12),
    ] {
        let builder = Server::builder().identity(identity.clone());
        let server = builder.versions([here]).build().unwrap();
        let builder = Client::builder().roots(roots(&ca)).versions([there]);
        let error = Pair::new(&server, &builder.build().unwrap(), "a.example").err();
        assert!(matches!(error, Some(Error::PeerIncompatible(_))));
        let pair = Pair::new(&server, &client_of(&ca), "a.example").unwrap();
        let spoken = pair.client.protocol_version().unwrap();
        assert_eq!(Version::try_from(spoken), Ok(here));
    }
}

#[test]
fn sessions_are_resumed_unless_switched_off() {
    let ca = new_ca();
    let identity = issue(&ca, &["a.example"]);
    let builder = || Server::builder().identity(identity.clone());
    for version in Version::ALL {
        let second = |builder: ServerBuilder, sessions| {
            let server = builder.build().unwrap();
            let client = Client::builder().roots(roots(&ca)).versions([version]);
            let client = client.session_cache(sessions).build().unwrap();
            let mut first = Pair::new(&server, &client, "a.example").unwrap();
            assert!(!first.is_resumed());
            first.echo();
            let mut second = Pair::new(&server, &client, "a.example").unwrap();
            second.echo();
            // Another server's name is another session.
            let builder = Client::builder().roots(roots(&ca)).versions([version]);
            let other = builder.server_name("a.example").build().unwrap();
            let other = Pair::new(&server, &other, "a.example").unwrap();
            assert!(!other.is_resumed());
            second.is_resumed()
        };
        assert!(second(builder(), 256));
        assert!(second(builder().session_cache(0), 256), "by tickets");
        assert!(
            second(builder().session_tickets(false), 256),
            "by the cache"
        );
        let off = || builder().session_tickets(false).session_cache(0);
        assert!(!second(off(), 256));
        assert!(!second(builder(), 0), "the client keeps none");
    }
}

#[test]
fn a_reload_is_for_new_handshakes() {
    let ca = new_ca();
    let [old, new, newer] = [(); 3].map(|()| issue(&ca, &["a.example"]));
    let server = server_for(&old);
    let clone = server.clone();
    let client = client_of(&ca);
    let mut before = Pair::new(&server, &client, "a.example").unwrap();
    // Begun, with no name asked for yet: it is shown what is shown then.
    let mut begun = Pair {
        server: server.accept().unwrap(),
        client: client_of(&ca).connect(Some("a.example")).unwrap(),
    };

    clone.reload([new.clone()]).unwrap();
    before.echo();
    assert_eq!(before.shown(), &old.chain()[0]);
    begun.go_on().unwrap();
    assert_eq!(begun.shown(), &new.chain()[0]);
    shows(&server, &client_of(&ca), "a.example", &new);
    // A session of before is resumed: no certificate is shown, and the client knows that of before.
    let mut resumed = Pair::new(&server, &client, "a.example").unwrap();
    assert!(resumed.is_resumed());
    assert_eq!(resumed.shown(), &old.chain()[0]);
    resumed.echo();

    // What fails changes nothing.
    assert!(matches!(server.reload([]), Err(ConfigError::NoIdentity)));
    shows(&server, &client_of(&ca), "a.example", &new);
    server.reload([newer.clone(), new]).unwrap();
    shows(&clone, &client_of(&ca), "a.example", &newer);
}

#[test]
fn replaced_everything_is_new_and_no_session_is_resumed() {
    let (ca, clients) = (new_ca(), new_ca());
    let identity = issue(&ca, &["a.example"]);
    let server = server_for(&identity);
    let client = client_of(&ca);
    let mut before = Pair::new(&server, &client, "a.example").unwrap();
    let builder = Server::builder().identity(identity.clone());
    let strict = builder.require_client_certificates(roots(&clients));
    server.clone().replace(&strict.build().unwrap());
    before.echo();
    let error = Pair::new(&server, &client, "a.example").err();
    assert_eq!(error, Some(Error::NoCertificatesPresented));

    // The client is told anew as well.
    let builder = Client::builder().roots(roots(&ca));
    let known = builder.identity(issue(&clients, &["one"])).build().unwrap();
    client.clone().replace(&known);
    let pair = Pair::new(&server, &client, "a.example").unwrap();
    assert!(!pair.is_resumed());
    assert!(pair.server.peer_certificates().is_some());
    // And reloads go on.
    let next = issue(&ca, &["a.example"]);
    server.reload([next.clone()]).unwrap();
    client.replace(&client_of(&ca));
    server.replace(&server_for(&next));
    shows(&server, &client, "a.example", &next);
}

#[test]
fn what_rustls_says_is_taken_as_it_is() {
    let ca = new_ca();
    let identity = issue(&ca, &["a.example"]);
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let certified = rustls::sign::SingleCertAndKey::from(Arc::clone(identity.certified()));
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certified));
    let server = Server::from(config.clone());
    assert!(matches!(
        server.reload([identity.clone()]),
        Err(ConfigError::Opaque)
    ));
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(&ca).store())
        .with_no_client_auth();
    let client = Client::from(Arc::new(config));
    Pair::new(&server, &client, "a.example").unwrap().echo();
    server.replace(&server_for(&identity));
    server.reload([identity.clone()]).unwrap();
    shows(&server, &client, "a.example", &identity);
}

#[test]
fn handles_of_one_server_are_equal() {
    let ca = new_ca();
    let identity = issue(&ca, &["a.example"]);
    let server = server_for(&identity);
    assert_eq!(server, server.clone());
    assert_ne!(server, server_for(&identity));
    assert_ne!(server, server.clone().handshakes_per_turn(1));
    let client = client_of(&ca);
    assert_eq!(client, client.clone());
    assert_ne!(client, client_of(&ca));
    // Nothing of a key is shown.
    let shown = format!("{server:?} {client:?} {identity:?}");
    assert!(
        shown.contains("a.example") && !shown.contains("key"),
        "{shown}"
    );
}

/// A directory of this test's own, which goes with it.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let name = format!("greenroom-tls-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_are_read_in_all_their_forms() {
    let ca = new_ca();
    let dir = Dir::new("forms");
    let (leaf, key) = issue_pem(&ca, &["a.example"], &PKCS_ECDSA_P256_SHA256);
    let chain = format!(
        "\n# ours\nsubject=a.example\n{leaf}\nits issuer\n{}",
        ca.pem()
    );
    let chain_file = dir.put("chain.pem", &chain);
    let key_file = dir.put("key.pem", &key);
    let identity = Identity::from_files(&chain_file, &key_file).unwrap();
    assert_eq!(identity.names().collect::<Vec<_>>(), ["a.example"]);
    assert_eq!(identity.chain().len(), 2);
    // Both in one, in either order, with the ends of lines of another system, or none at the end.
    for both in [format!("{leaf}{key}"), format!("{key}{leaf}")] {
        for text in [both.replace('\n', "\r\n"), both.trim_end().to_owned()] {
            let file = dir.put("both.pem", text);
            let both = Identity::from_files(&file, &file).unwrap();
            assert_eq!(both.chain().len(), 1);
        }
    }
    // In DER.
    let parsed = KeyPair::from_pem(&key).unwrap();
    let der = PrivateKeyDer::try_from(parsed.serialize_der()).unwrap();
    let same = Identity::from_der(identity.chain().to_vec(), der).unwrap();
    assert_eq!(same.chain(), identity.chain());
    // Roots: all that there are.
    let two = dir.put("roots.pem", format!("{}{}", new_ca().pem(), ca.pem()));
    let client = Client::builder().roots(Roots::from_file(&two).unwrap());
    let client = client.build().unwrap();
    Pair::new(&server_for(&same), &client, "a.example").unwrap();
}

fn text(result: Result<impl std::fmt::Debug, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn errors_say_what_is_wrong_where() {
    let ca = new_ca();
    let dir = Dir::new("errors");
    let (leaf, key) = issue_pem(&ca, &["a.example"], &PKCS_ECDSA_P256_SHA256);
    let chain_file = dir.put("chain.pem", &leaf);
    let key_file = dir.put("key.pem", &key);
    let from = |chain: &PathBuf, key: &PathBuf| Identity::from_files(chain, key);

    let absent = dir.0.join("absent.pem");
    let error = from(&absent, &key_file).unwrap_err();
    assert!(error.to_string().contains("absent.pem"), "{error}");
    assert!(error.source().is_some());
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);

    // The files in each other's place.
    let error = from(&key_file, &chain_file).unwrap_err();
    assert!(matches!(error, ConfigError::NoCertificate { .. }));
    assert!(
        error.to_string().contains("found only PRIVATE KEY"),
        "{error}"
    );
    let said = text(from(&chain_file, &chain_file));
    assert!(
        said.contains("no private key in") && said.contains("found only CERTIFICATE"),
        "{said}"
    );

    let empty = dir.put("empty.pem", "");
    let said = text(from(&empty, &key_file));
    assert!(said.contains("found nothing: it is empty"), "{said}");
    assert!(text(Roots::from_file(&empty)).contains("it is empty"));
    let der = dir.put("chain.der", new_ca().der());
    assert!(text(from(&der, &key_file)).contains("-inform der"));
    let prose = dir.put("prose.pem", "not a certificate");
    assert!(text(from(&prose, &key_file)).contains("nothing in PEM format"));

    // The second certificate is broken: its line.
    let lines = leaf.lines().count();
    let broken = leaf.replacen("-----\nMI", "-----\n!!", 1);
    let file = dir.put("broken.pem", format!("{leaf}{broken}"));
    let error = from(&file, &key_file).unwrap_err();
    let ConfigError::Pem { place, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(
        (place.file(), place.line()),
        (Some(&*file), Some(lines + 1))
    );
    let said = error.to_string();
    assert!(
        said.contains(&format!("broken.pem, line {}", lines + 1)),
        "{said}"
    );
    assert!(said.contains("other than base64"), "{said}");
    // Cut off, in the midst of the file and at its end.
    let open = leaf.lines().take(3).collect::<Vec<_>>().join("\n");
    for text_of in [open.clone(), format!("{open}\n{leaf}")] {
        let said = text(Identity::from_pem(&text_of, &key));
        assert!(said.contains("the bytes given, line 1: "), "{said}");
        assert!(said.contains("no \"-----END CERTIFICATE-----\""), "{said}");
    }
    let torn = leaf.replacen("CERTIFICATE-----", "CERTIFICATE--", 1);
    assert!(text(Identity::from_pem(torn, &key)).contains("does not end in \"-----\""));

    // Base64 of what is no certificate, or no key.
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = Identity::from_pem(nonsense, &key).unwrap_err();
    assert!(
        matches!(error, ConfigError::Certificate { .. }),
        "{error:?}"
    );
    let error = Roots::from_pem(format!("{leaf}{nonsense}")).unwrap_err();
    assert!(
        error.to_string().contains(&format!("line {}", lines + 1)),
        "{error}"
    );
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let error = Identity::from_pem(&leaf, nonsense).unwrap_err();
    assert!(matches!(error, ConfigError::Key { .. }), "{error:?}");
    for label in ["ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY"] {
        let locked = format!(
            "-----BEGIN {label}-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END {label}-----\n"
        );
        let error = Identity::from_pem(&leaf, locked).unwrap_err();
        assert!(
            matches!(error, ConfigError::EncryptedKey { .. }),
            "{error:?}"
        );
    }

    // Another's key; and the chain the wrong way round.
    let (_, other) = issue_pem(&ca, &["a.example"], &PKCS_ECDSA_P256_SHA256);
    let other = dir.put("other.pem", other);
    let error = from(&chain_file, &other).unwrap_err();
    assert!(matches!(error, ConfigError::Mismatch { .. }), "{error:?}");
    assert!(error.to_string().contains("other.pem, line 1"), "{error}");
    let turned = Identity::from_pem(format!("{}{leaf}", ca.pem()), &key);
    assert!(matches!(turned, Err(ConfigError::Mismatch { .. })));
    let parsed = KeyPair::from_pem(&key).unwrap();
    let der = PrivateKeyDer::try_from(parsed.serialize_der()).unwrap();
    let none = Identity::from_der([], der);
    assert!(matches!(none, Err(ConfigError::NoCertificate { .. })));

    // No file of certificates is that long; nothing of it is looked at.
    let file = fs::File::create(dir.0.join("long.pem")).unwrap();
    file.set_len((16 << 20) + 1).unwrap();
    let error = Roots::from_file(dir.0.join("long.pem")).unwrap_err();
    assert!(matches!(error, ConfigError::TooLong { .. }), "{error:?}");
}

#[test]
fn a_builder_refuses_what_cannot_work() {
    let ca = new_ca();
    let server = || Server::builder().identity(issue(&ca, &["a.example"]));
    let client = || Client::builder().roots(roots(&ca));
    let none = Server::builder().build();
    assert!(matches!(none, Err(ConfigError::NoIdentity)));
    let none = Client::builder().build();
    assert!(matches!(none, Err(ConfigError::NoRoots)));
    assert!(matches!(Roots::from_der([]), Err(ConfigError::NoRoots)));
    for name in [String::new(), "x".repeat(256)] {
        let built = server().alpn([&name]).build();
        assert!(matches!(built, Err(ConfigError::Alpn { len }) if len == name.len()));
        let built = client().alpn([&name]).build();
        assert!(matches!(built, Err(ConfigError::Alpn { .. })));
    }
    assert!(server().alpn(["x".repeat(255)]).build().is_ok());
    let built = server().versions([]).build();
    assert!(matches!(built, Err(ConfigError::NoVersion)));
    let built = client().versions([]).build();
    assert!(matches!(built, Err(ConfigError::NoVersion)));
    let built = client().server_name("not a name").build();
    assert!(matches!(built, Err(ConfigError::ServerName { .. })));
    let client = client().build().unwrap();
    for host in [None, Some(""), Some("a b")] {
        let refused = client.connect(host);
        assert!(matches!(refused, Err(ConfigError::ServerName { .. })));
    }
}

#[test]
fn an_alert_tells_the_client_why() {
    let (ca, clients) = (new_ca(), new_ca());
    let builder = Server::builder().identity(issue(&ca, &["a.example"]));
    let server = builder.require_client_certificates(roots(&clients));
    let mut pair = Pair {
        server: server.build().unwrap().accept().unwrap(),
        client: client_of(&ca).connect(Some("a.example")).unwrap(),
    };
    assert!(pair.go_on().is_err());
    let mut bytes = Vec::new();
    pair.server.write_tls(&mut bytes).unwrap();
    let told = feed(&mut pair.client, &bytes).unwrap_err();
    assert_eq!(
        told,
        Error::AlertReceived(AlertDescription::CertificateRequired)
    );
}

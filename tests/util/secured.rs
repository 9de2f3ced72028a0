//! Certificates of a small authority, and an actor for either side of a secured connection that
//! reports what it is told.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses its part of it"
)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use greenroom::tls::{self, TlsInfo, Version};
use greenroom::{
    Actor, Addr, CloseReason, ConnectOptions, Context, Input, ListenOptions, Listener, Outcome,
    Remote, System, TlsError, TlsErrorKind,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm,
};

/// After this a test that still waits has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

// ---- certificates -------------------------------------------------------------------------------

/// Who signs certificates.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM format.
pub struct Issued {
    pub chain: String,
    pub key: String,
}

impl Ca {
    pub fn new() -> Ca {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Authorities of one name are taken for one another.
        let key = KeyPair::generate().unwrap();
        let name = format!("authority {:?}", &key.public_key_raw()[..8]);
        params.distinguished_name.push(DnType::CommonName, name);
        Ca(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn roots(&self) -> tls::Roots {
        tls::Roots::from_pem(self.pem()).unwrap()
    }

    /// With an ECDSA key on P-256.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub fn issue_with(&self, names: &[&str], kind: &'static SignatureAlgorithm) -> Issued {
        self.sign(names, &KeyPair::generate_for(kind).unwrap())
    }

    /// For a key that is there.
    pub fn sign(&self, names: &[&str], key: &KeyPair) -> Issued {
        let of_them: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(of_them).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        Issued {
            chain: params.signed_by(key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Issued {
    pub fn identity(&self) -> tls::Identity {
        tls::Identity::from_pem(&self.chain, &self.key).unwrap()
    }

    pub fn der(&self) -> Vec<u8> {
        self.identity().chain()[0].to_vec()
    }

    /// Puts both into files of these names with `.pem` and `.key` behind.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let chain = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}.key"));
        fs::write(&chain, &self.chain).unwrap();
        fs::write(&key, &self.key).unwrap();
        (chain, key)
    }
}

// ---- an actor -----------------------------------------------------------------------------------

/// What was agreed on, as one side is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreed {
    pub version: Option<Version>,
    pub protocol: Option<String>,
    pub name: Option<String>,
    /// The peer's own certificate.
    pub peer: Option<Vec<u8>>,
    pub is_resumed: bool,
}

impl From<TlsInfo<'_>> for Agreed {
    fn from(info: TlsInfo<'_>) -> Agreed {
        let protocol = info.alpn_protocol();
        Agreed {
            version: info.version(),
            protocol: protocol.map(|name| String::from_utf8(name.to_vec()).unwrap()),
            name: info.server_name().map(str::to_owned),
            peer: info.peer_certificates().first().map(|der| der.to_vec()),
            is_resumed: info.is_resumed(),
        }
    }
}

/// Why a connection ended: in words, and by TLS if it was that.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub text: String,
    pub is_orderly: bool,
    pub tls: Option<TlsErrorKind>,
}

impl From<&CloseReason> for Ended {
    fn from(reason: &CloseReason) -> Ended {
        let tls = match reason {
            CloseReason::Tls(error) => Some(error.kind()),
            CloseReason::NotConnected(error) => of_tls(error),
            _ => None,
        };
        Ended {
            text: reason.to_string(),
            is_orderly: matches!(reason, CloseReason::PeerClosed | CloseReason::Finished),
            tls,
        }
    }
}

/// The kind of TLS's error that is behind another one.
fn of_tls(error: &(dyn Error + 'static)) -> Option<TlsErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<TlsError>() {
            return Some(error.kind());
        }
        // An error of io shows what is behind the one that it holds.
        let held = error.downcast_ref::<std::io::Error>();
        next = match held.and_then(std::io::Error::get_ref) {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

#[derive(Debug)]
pub enum Told {
    Opened(Addr<Peer>, Agreed),
    Input(Vec<u8>),
    ReadClosed,
    Closed(Ended),
}

/// What a [`Peer`] is to do.
pub enum Order {
    Write(Vec<u8>),
    Close,
    ShutdownWrite,
}

/// Reports what it is told. As a server it sends back what it gets, and closes at a line `bye`.
pub struct Peer {
    told: Sender<Told>,
    is_server: bool,
}

impl Peer {
    fn tell(&self, told: Told) {
        // A test that has seen enough drops its end.
        let _ = self.told.send(told);
    }
}

impl Actor for Peer {
    type Message = Order;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let agreed = ctx.tls().expect("TLS is below").into();
        self.tell(Told::Opened(ctx.addr(), agreed));
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let bytes = input.take_all();
        self.tell(Told::Input(bytes.to_vec()));
        if self.is_server {
            ctx.write(bytes);
            if bytes.ends_with(b"bye\n") {
                ctx.close();
            }
        }
        Ok(())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.tell(Told::ReadClosed);
        ctx.close();
        Ok(())
    }

    fn message(&mut self, order: Order, ctx: &mut Context<'_, Self>) -> Outcome {
        match order {
            Order::Write(bytes) => {
                ctx.write(bytes);
            }
            Order::Close => ctx.close(),
            Order::ShutdownWrite => ctx.shutdown_write(),
        }
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        self.tell(Told::Closed(reason.into()));
    }
}

/// What one [`Peer`] is told, in order; for a server, all of its connections.
pub struct Seen(Receiver<Told>);

impl Seen {
    #[track_caller]
    pub fn next(&self) -> Told {
        self.0.recv_timeout(DEADLINE).expect("something happens")
    }

    #[track_caller]
    pub fn opened(&self) -> (Addr<Peer>, Agreed) {
        match self.next() {
            Told::Opened(addr, agreed) => (addr, agreed),
            other => panic!("not opened: {other:?}"),
        }
    }

    /// These bytes, in as many pieces as they come.
    #[track_caller]
    pub fn input(&self, expected: &[u8]) {
        let mut got = Vec::new();
        while got.len() < expected.len() {
            match self.next() {
                Told::Input(more) => got.extend(more),
                other => panic!("no input: {other:?}, behind {got:?}"),
            }
        }
        assert_eq!(got, expected);
    }

    #[track_caller]
    pub fn read_closed(&self) {
        let told = self.next();
        assert!(matches!(told, Told::ReadClosed), "{told:?}");
    }

    #[track_caller]
    pub fn closed(&self) -> Ended {
        match self.next() {
            Told::Closed(ended) => ended,
            other => panic!("not closed: {other:?}"),
        }
    }
}

/// Listens on a free port of 127.0.0.1.
pub fn listen(system: &System, server: &tls::Server) -> (Listener, Seen) {
    let (told, seen) = channel();
    let options = ListenOptions::new().tls(server.clone());
    let listener = system.listen_with("127.0.0.1:0", options, move |_peer| Peer {
        told: told.clone(),
        is_server: true,
    });
    (listener.unwrap(), Seen(seen))
}

/// Connects to it.
pub fn connect(system: &System, to: impl Into<Remote>, client: &tls::Client) -> Seen {
    let (told, seen) = channel();
    let options = ConnectOptions::new().tls(client.clone());
    system.connect_with(to, options, move || Peer {
        told,
        is_server: false,
    });
    Seen(seen)
}

/// Waits for a count that nobody reports: it is looked at until it is this one.
#[track_caller]
pub fn wait_for_failures(system: &System, by: &str, count: u64) {
    let start = Instant::now();
    while system.stats().handshakes_failed_by[by] != count {
        let stats = system.stats();
        assert!(
            start.elapsed() < DEADLINE,
            "{:?}",
            stats.handshakes_failed_by
        );
        std::thread::yield_now();
    }
}

/// One poller.
pub fn system() -> System {
    System::builder().pollers(1).build().unwrap()
}

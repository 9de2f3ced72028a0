//! TLS. The first byte of an input says who meets what:
//!
//! - a server, and the rest as bytes;
//! - a client, and the rest as bytes;
//! - a server, and a client whose bytes are changed on their way: a count, for each change where, which and by what,
//!   and what the client says.
//!
//! Whatever comes, nobody is shown a byte that was not said, nor an orderly end before all of it.

#![no_main]

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use greenroom::testing::{Client, Simulation};
use greenroom::tls::rustls::pki_types::ServerName;
use greenroom::tls::rustls::{ClientConfig, ClientConnection, RootCertStore};
use greenroom::*;
use greenroom_fuzz::Numbers;
use libfuzzer_sys::fuzz_target;

const ADDR: &str = "127.0.0.1:9000";

struct Setup {
    server: tls::Server,
    client: tls::Client,
    config: Arc<ClientConfig>,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let cert = params.self_signed(&key).expect("a certificate");
    let identity = tls::Identity::from_pem(cert.pem(), key.serialize_pem()).expect("an identity");
    let trusted = tls::Roots::from_pem(cert.pem()).expect("a root");
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    Setup {
        server: tls::Server::builder()
            .identity(identity)
            .alpn(["echo"])
            .build()
            .expect("a server"),
        client: tls::Client::builder()
            .roots(trusted)
            .server_name("localhost")
            .build()
            .expect("a client"),
        config: Arc::new(
            ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth(),
        ),
    }
});

#[derive(Default)]
struct Seen {
    opened: bool,
    bytes: Vec<u8>,
    reason: Option<String>,
    is_orderly: bool,
}

/// Sends back what it gets, and keeps it for the test.
struct Echo {
    seen: Arc<Mutex<Seen>>,
}

impl Actor for Echo {
    type Message = ();

    fn opened(&mut self, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.seen.lock().unwrap().opened = true;
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.seen
            .lock()
            .unwrap()
            .bytes
            .extend_from_slice(input.bytes());
        ctx.write(input.take_all());
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        let mut seen = self.seen.lock().unwrap();
        assert!(
            seen.reason.replace(reason.to_string()).is_none(),
            "closed twice"
        );
        seen.is_orderly = matches!(reason, CloseReason::PeerClosed);
    }
}

fn begin() -> Simulation {
    let mut simulation = Simulation::new(1);
    simulation.keep_trace(0);
    simulation
}

/// The system ends with what is returned.
fn serve(simulation: &mut Simulation) -> (System, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = seen.clone();
    let system = simulation.system(System::builder().pollers(1));
    let options = ListenOptions::new().tls(SETUP.server.clone());
    let listener = system.listen_with(ADDR, options, move |_peer| Echo {
        seen: shared.clone(),
    });
    listener.expect("it listens");
    (system, seen)
}

fn tick(simulation: &mut Simulation) {
    simulation.run_for(Duration::from_millis(1));
}

/// Bytes to a server.
fn to_server(bytes: &[u8]) {
    let mut simulation = begin();
    let (_system, seen) = serve(&mut simulation);
    let client = simulation.client(ADDR);
    for piece in &greenroom_fuzz::cuts(bytes)[1..]
        .last()
        .cloned()
        .unwrap_or_default()
    {
        client.send(piece);
        tick(&mut simulation);
    }
    client.half_close();
    client.rest(&mut simulation);
    simulation.finish(Duration::from_secs(60));
    assert!(!seen.lock().unwrap().opened, "a handshake by chance");
}

/// Who sends these bytes to whoever connects.
struct Answer(Option<Vec<u8>>);

impl Actor for Answer {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        if let Some(bytes) = self.0.take() {
            ctx.write(bytes);
            ctx.shutdown_write();
        }
        Ok(())
    }
}

/// Bytes to a client.
fn to_client(bytes: &[u8]) {
    let mut simulation = begin();
    let system = simulation.system(System::builder().pollers(1));
    let bytes = bytes.to_vec();
    system
        .listen(ADDR, move |_peer| Answer(Some(bytes.clone())))
        .expect("it listens");
    let seen = Arc::new(Mutex::new(Seen::default()));
    let options = ConnectOptions::new().tls(SETUP.client.clone());
    simulation.connect_with(ADDR, options, Echo { seen: seen.clone() });
    simulation.run_for(Duration::from_secs(30));
    simulation.finish(Duration::from_secs(60));
    let seen = seen.lock().unwrap();
    assert!(!seen.opened, "a handshake by chance");
    assert!(seen.reason.is_some(), "a connect that was not told");
}

/// A change to what the client sends.
#[derive(Clone, Copy)]
enum Change {
    Flip(u8),
    Drop,
    Insert(u8),
    End,
    Reset,
}

struct Line {
    client: Client,
    changes: Vec<(usize, Change)>,
    sent: usize,
    is_cut: bool,
    numbers: Numbers,
}

impl Line {
    /// Sends what the client wrote, changed, in pieces.
    fn send(&mut self, simulation: &mut Simulation, bytes: &[u8]) {
        let mut changed = Vec::with_capacity(bytes.len());
        let mut end = None;
        for &byte in bytes {
            let change = self.changes.iter().find(|(at, _)| *at == self.sent);
            self.sent += 1;
            match change.map(|(_, change)| *change) {
                None => changed.push(byte),
                Some(Change::Flip(bits)) => changed.push(byte ^ bits.max(1)),
                Some(Change::Drop) => {}
                Some(Change::Insert(more)) => changed.extend([more, byte]),
                Some(last @ (Change::End | Change::Reset)) => {
                    end = Some(last);
                    break;
                }
            }
        }
        let mut rest = &changed[..];
        while !rest.is_empty() && !self.is_cut {
            let (piece, behind) = rest.split_at((1 + self.numbers.below(600)).min(rest.len()));
            self.client.send(piece);
            tick(simulation);
            rest = behind;
        }
        match end {
            Some(Change::End) => self.client.half_close(),
            Some(_) => self.client.reset(),
            None => return,
        }
        self.is_cut = true;
    }
}

fn changed(bytes: &[u8]) {
    let Some((count, mut bytes)) = bytes.split_first() else {
        return;
    };
    let mut changes = Vec::new();
    for _ in 0..count % 5 {
        let Some(([high, low, kind, value], rest)) = bytes.split_first_chunk() else {
            break;
        };
        let change = match kind % 5 {
            0 => Change::Flip(*value),
            1 => Change::Drop,
            2 => Change::Insert(*value),
            3 => Change::End,
            _ => Change::Reset,
        };
        // The flight of a client is some 600 bytes.
        changes.push((
            usize::from(u16::from_be_bytes([*high, *low])) % (700 + bytes.len()),
            change,
        ));
        bytes = rest;
    }
    let said = bytes;

    let mut simulation = begin();
    let (_system, seen) = serve(&mut simulation);
    let name = ServerName::try_from("localhost").expect("a name");
    let mut peer = ClientConnection::new(SETUP.config.clone(), name).expect("a client");
    let mut line = Line {
        client: simulation.client(ADDR),
        changes,
        sent: 0,
        is_cut: false,
        numbers: Numbers::new(greenroom_fuzz::seed(said)),
    };
    let mut heard = Vec::new();
    let mut is_said = false;
    let mut is_good = true;
    for _ in 0..1000 {
        let mut out = Vec::new();
        while peer.wants_write() {
            peer.write_tls(&mut out).expect("memory");
        }
        line.send(&mut simulation, &out);
        tick(&mut simulation);
        let came = line.client.received();
        let mut rest = &came[..];
        while !rest.is_empty() && is_good {
            peer.read_tls(&mut rest).expect("memory");
            is_good = peer.process_new_packets().is_ok();
            let _ = peer.reader().read_to_end(&mut heard);
        }
        if !is_good || line.is_cut || line.client.is_closed() {
            break;
        }
        if !peer.is_handshaking() && !is_said {
            peer.writer().write_all(said).expect("memory");
            is_said = true;
        }
        if is_said && heard.len() == said.len() && !peer.wants_write() {
            break;
        }
    }
    if is_good && !line.is_cut {
        peer.send_close_notify();
        let mut out = Vec::new();
        while peer.wants_write() {
            peer.write_tls(&mut out).expect("memory");
        }
        line.send(&mut simulation, &out);
    }
    line.client.half_close();
    line.client.rest(&mut simulation);
    simulation.finish(Duration::from_secs(60));

    let seen = seen.lock().unwrap();
    assert!(
        said.starts_with(&seen.bytes),
        "{:?} of {said:?}",
        seen.bytes
    );
    assert!(said.starts_with(&heard), "{heard:?} of {said:?}");
    assert!(seen.opened == seen.reason.is_some(), "{:?}", seen.reason);
    if seen.is_orderly {
        assert_eq!(seen.bytes, said, "an orderly end");
    }
    if line.changes.iter().all(|(at, _)| *at >= line.sent) {
        assert!(seen.is_orderly, "{:?}", seen.reason);
        assert_eq!(heard, said);
    }
}

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        None => {}
        Some((choice, rest)) => match choice % 3 {
            0 => to_server(rest),
            1 => to_client(rest),
            _ => changed(rest),
        },
    }
});

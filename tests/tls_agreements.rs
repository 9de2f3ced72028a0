//! What the two sides of a secured connection agree on, over real sockets: by certificates, names,
//! protocols and sessions, and from a reload on.

#[path = "util/secured.rs"]
mod secured;

use greenroom::tls::{self, Version};
use greenroom::{Addr, Listener, System, TlsErrorKind};

use secured::{Agreed, Ca, Issued, Order, Peer, Seen, connect, listen, system, wait_for_failures};

const NAME: &str = "a.example";

/// Both ends of a connection on which a word has gone there and back: by then each side has had all
/// that belongs to the handshake, the tickets of the server among them.
struct Line {
    client: Seen,
    addr: Addr<Peer>,
    /// As the client and as the server were told.
    agreed: (Agreed, Agreed),
}

fn line(system: &System, listener: &Listener, server: &Seen, client: &tls::Client) -> Line {
    let client = connect(system, listener.local_addr(), client);
    let (addr, by_client) = client.opened();
    addr.send(Order::Write(b"word".to_vec())).unwrap();
    client.input(b"word");
    let (_, by_server) = server.opened();
    server.input(b"word");
    Line {
        client,
        addr,
        agreed: (by_client, by_server),
    }
}

impl Line {
    fn still_goes_on(&self, server: &Seen) {
        self.addr.send(Order::Write(b"more".to_vec())).unwrap();
        self.client.input(b"more");
        server.input(b"more");
    }

    fn close(self, server: &Seen) {
        self.addr.send(Order::Close).unwrap();
        assert!(self.client.closed().is_orderly);
        server.read_closed();
        assert!(server.closed().is_orderly);
    }

    fn is_resumed(&self) -> bool {
        let (by_client, by_server) = &self.agreed;
        assert_eq!(by_client.is_resumed, by_server.is_resumed);
        by_client.is_resumed
    }

    /// The certificate that the client was shown.
    fn shown(&self) -> &[u8] {
        self.agreed.0.peer.as_deref().unwrap()
    }
}

fn server_of(issued: &Issued) -> tls::Server {
    let builder = tls::Server::builder().identity(issued.identity());
    builder.build().unwrap()
}

fn client(ca: &Ca) -> tls::ClientBuilder {
    tls::Client::builder().roots(ca.roots()).server_name(NAME)
}

#[test]
fn the_name_asked_for_chooses_the_certificate() {
    let ca = Ca::new();
    let [first, wild] = [NAME, "*.b.example"].map(|name| ca.issue(&[name, "127.0.0.1"]));
    let builder = tls::Server::builder().identity(first.identity());
    let server = builder.identity(wild.identity()).build().unwrap();
    let system = system();
    let (listener, seen) = listen(&system, &server);
    for (name, asked, shown) in [
        (NAME, Some(NAME), &first),
        ("WWW.b.example", Some("www.b.example"), &wild),
        ("127.0.0.1", None, &first),
    ] {
        let client = tls::Client::builder().roots(ca.roots()).server_name(name);
        let line = line(&system, &listener, &seen, &client.build().unwrap());
        assert_eq!(line.shown(), shown.der(), "{name}");
        assert_eq!(line.agreed.1.name.as_deref(), asked);
        assert_eq!(line.agreed.0.name, None);
        line.close(&seen);
    }
    // Without a name of its own it is that of the connect.
    let client = tls::Client::builder().roots(ca.roots()).build().unwrap();
    line(&system, &listener, &seen, &client).close(&seen);
}

#[test]
fn a_certificate_for_another_name_or_from_elsewhere_is_not_accepted() {
    let ca = Ca::new();
    let system = system();
    let (listener, _seen) = listen(&system, &server_of(&ca.issue(&[NAME])));
    let other_name = client(&ca).server_name("b.example");
    for client in [other_name, client(&Ca::new())] {
        let client = connect(&system, listener.local_addr(), &client.build().unwrap());
        let ended = client.closed();
        assert_eq!(ended.tls, Some(TlsErrorKind::Certificate), "{ended:?}");
    }
}

#[test]
fn a_protocol_is_agreed_on_or_nobody_is_served() {
    let ca = Ca::new();
    let issued = ca.issue(&[NAME]);
    let builder = tls::Server::builder().identity(issued.identity());
    let server = builder.alpn(["chat/2", "chat/1"]).build().unwrap();
    let system = system();
    let (listener, seen) = listen(&system, &server);
    for (offered, agreed) in [
        (&["chat/1", "chat/2"][..], Some("chat/2")),
        (&["chat/1"], Some("chat/1")),
        (&[], None),
    ] {
        let client = client(&ca).alpn(offered).build().unwrap();
        let line = line(&system, &listener, &seen, &client);
        assert_eq!(line.agreed.0.protocol.as_deref(), agreed);
        assert_eq!(line.agreed.1.protocol.as_deref(), agreed);
        line.close(&seen);
    }
    let client = client(&ca).alpn(["h2"]).build().unwrap();
    let client = connect(&system, listener.local_addr(), &client);
    let ended = client.closed();
    assert_eq!(ended.tls, Some(TlsErrorKind::Alert), "{ended:?}");
    wait_for_failures(&system, "incompatible", 1);
}

#[test]
fn clients_are_known_by_their_certificates() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let issued = ca.issue(&[NAME]);
    let (good, bad) = (clients.issue(&["one"]), Ca::new().issue(&["one"]));
    for version in [Version::Tls12, Version::Tls13] {
        let client = || client(&ca).versions([version]);
        let shows = |issued: &Issued| client().identity(issued.identity()).build().unwrap();
        let builder = || tls::Server::builder().identity(issued.identity());
        let asks = builder().accept_client_certificates(clients.roots());
        let requires = builder().require_client_certificates(clients.roots());

        let system = system();
        let (listener, seen) = listen(&system, &asks.build().unwrap());
        let anonymous = line(&system, &listener, &seen, &client().build().unwrap());
        assert_eq!(anonymous.agreed.1.peer, None);
        anonymous.close(&seen);
        let known = line(&system, &listener, &seen, &shows(&good));
        assert_eq!(known.agreed.1.peer, Some(good.der()));
        known.close(&seen);
        is_refused(connect(&system, listener.local_addr(), &shows(&bad)));

        let (listener, seen) = listen(&system, &requires.build().unwrap());
        let known = line(&system, &listener, &seen, &shows(&good));
        assert_eq!(known.agreed.1.peer, Some(good.der()));
        known.close(&seen);
        is_refused(connect(&system, listener.local_addr(), &shows(&bad)));
        let without = client().build().unwrap();
        is_refused(connect(&system, listener.local_addr(), &without));
        wait_for_failures(&system, "certificate", 3);
    }
}

/// The server has sent an alert. A client of TLS 1.3 has taken itself for connected by then.
fn is_refused(client: Seen) {
    let ended = match client.next() {
        secured::Told::Opened(..) => client.closed(),
        secured::Told::Closed(ended) => ended,
        other => panic!("{other:?}"),
    };
    assert_eq!(ended.tls, Some(TlsErrorKind::Alert), "{ended:?}");
}

#[test]
fn sessions_are_resumed() {
    let ca = Ca::new();
    let issued = ca.issue(&[NAME]);
    let system = system();
    for version in [Version::Tls12, Version::Tls13] {
        for has_tickets in [true, false] {
            let builder = tls::Server::builder().identity(issued.identity());
            let server = builder.session_tickets(has_tickets).build().unwrap();
            let (listener, seen) = listen(&system, &server);
            let client = client(&ca).versions([version]).build().unwrap();
            for is_resumed in [false, true, true] {
                let line = line(&system, &listener, &seen, &client);
                assert_eq!(line.is_resumed(), is_resumed, "{version}");
                assert_eq!(line.agreed.1.version, Some(version));
                // Known from the first time.
                assert_eq!(line.shown(), issued.der());
                line.close(&seen);
            }
        }
        let builder = tls::Server::builder().identity(issued.identity());
        let builder = builder.session_tickets(false).session_cache(0);
        let (listener, seen) = listen(&system, &builder.build().unwrap());
        let client = client(&ca).versions([version]).build().unwrap();
        for _ in 0..2 {
            let line = line(&system, &listener, &seen, &client);
            assert!(!line.is_resumed());
            line.close(&seen);
        }
    }
}

#[test]
fn a_reload_is_for_new_connections_and_those_that_are_there_go_on() {
    let ca = Ca::new();
    let [old, new] = [(); 2].map(|()| ca.issue(&[NAME]));
    let server = server_of(&old);
    let system = system();
    let (listener, seen) = listen(&system, &server);
    let before = line(&system, &listener, &seen, &client(&ca).build().unwrap());
    assert_eq!(before.shown(), old.der());

    // The handle that the listener was given is a clone of this one.
    server.reload([new.identity()]).unwrap();
    before.still_goes_on(&seen);
    let after = line(&system, &listener, &seen, &client(&ca).build().unwrap());
    assert_eq!(after.shown(), new.der());

    // What cannot be read changes nothing.
    let broken = tls::Identity::from_pem(&old.chain, &new.key).and_then(|it| server.reload([it]));
    assert!(matches!(broken, Err(tls::ConfigError::Mismatch { .. })));
    before.still_goes_on(&seen);
    after.still_goes_on(&seen);
    before.close(&seen);
    after.close(&seen);
    let after = line(&system, &listener, &seen, &client(&ca).build().unwrap());
    assert_eq!(after.shown(), new.der());
    after.close(&seen);
    assert_eq!(system.stats().handshakes_failed, 0);
}

/// Certificates are swapped all the time while clients come: each sees one of the two, whole, and none
/// fails.
#[test]
fn reloads_beside_handshakes_disturb_none() {
    let ca = Ca::new();
    let [one, other] = [(); 2].map(|()| ca.issue(&[NAME]));
    let server = server_of(&one);
    let system = system();
    let (listener, seen) = listen(&system, &server);
    let identities = [one.identity(), other.identity()];
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let swapping = std::thread::spawn(move || {
        let mut next = identities.iter().cycle();
        while let Err(std::sync::mpsc::TryRecvError::Empty) = stopped.try_recv() {
            server.reload(next.next().cloned()).unwrap();
        }
    });
    let mut shown = [0; 2];
    for _ in 0..100 {
        let line = line(&system, &listener, &seen, &client(&ca).build().unwrap());
        let which = [&one, &other].map(|issued| issued.der() == line.shown());
        assert_ne!(which[0], which[1]);
        shown[usize::from(which[1])] += 1;
        line.close(&seen);
    }
    drop(stop);
    swapping.join().unwrap();
    assert_eq!(shown[0] + shown[1], 100);
    assert_eq!(system.stats().handshakes_failed, 0);
}

#[test]
fn a_half_close_is_told_and_the_other_half_goes_on() {
    let ca = Ca::new();
    let system = system();
    let (listener, seen) = listen(&system, &server_of(&ca.issue(&[NAME])));
    let line = line(&system, &listener, &seen, &client(&ca).build().unwrap());
    line.addr.send(Order::Write(b"last".to_vec())).unwrap();
    line.addr.send(Order::ShutdownWrite).unwrap();
    seen.input(b"last");
    seen.read_closed();
    line.client.input(b"last");
    line.client.read_closed();
    assert!(line.client.closed().is_orderly);
    assert!(seen.closed().is_orderly);
}

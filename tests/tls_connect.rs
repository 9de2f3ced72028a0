//! Connecting out under TLS, what comes to nothing in it, and what else a connection meets before and
//! beside its actor: limits, proxies, a stop.

#[path = "util/tls.rs"]
mod tls_util;
mod util;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenroom::testing::Stage as OneActor;
use greenroom::tls::rustls;
use greenroom::*;
use tls_util::{TlsClient, client, server, session};
use util::*;

fn secured() -> ListenOptions {
    ListenOptions::new().tls(server())
}

fn stage(options: ListenOptions) -> Stage {
    Stage::listen(builder(1), "127.0.0.1:0", options, |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(input.take_all());
            Ok(())
        })
    })
}

/// Connects a probe; its events, `opened` the first of them if it comes to that.
fn call(
    system: &System,
    to: impl Into<Remote>,
    options: ConnectOptions,
) -> (Addr<Probe>, Receiver<Event>) {
    let (events, receiver) = channel();
    let addr = system.connect_with(to, options, move || Probe::new(events));
    (addr, receiver)
}

/// Tells why its connect came to nothing.
struct Caller(Sender<Told>);

type Told = Result<(), (ConnectErrorKind, Option<TlsErrorKind>, String)>;

impl Actor for Caller {
    type Message = ();

    fn opened(&mut self, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.0.send(Ok(()))?;
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        let CloseReason::NotConnected(error) = reason else {
            return;
        };
        let tls = error
            .source()
            .and_then(|source| source.downcast_ref::<std::io::Error>());
        let tls = tls
            .and_then(|io| io.get_ref())
            .and_then(|inner| inner.downcast_ref::<TlsError>());
        let told = (error.kind(), tls.map(TlsError::kind), error.to_string());
        let _ = self.0.send(Err(told));
    }
}

/// What comes of a connect with these options.
fn outcome(system: &System, to: impl Into<Remote>, options: ConnectOptions) -> Told {
    let (sender, outcome) = channel();
    system.connect_with(to, options, move || Caller(sender));
    next(&outcome)
}

// ---- what comes to nothing ----------------------------------------------------------------------

#[test]
fn a_certificate_that_is_not_accepted_is_told_with_what_is_wrong() {
    let stage = stage(secured());
    let to = stage.listener.local_addr();
    let mut strangers = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let name = &mut strangers.distinguished_name;
    name.push(rcgen::DnType::CommonName, "strangers");
    let key = rcgen::KeyPair::generate().unwrap();
    let strangers = strangers.self_signed(&key).unwrap();
    let strangers = tls::Roots::from_pem(strangers.pem()).unwrap();
    let strangers = tls::Client::builder().roots(strangers).build().unwrap();
    let roots = tls::Roots::from_pem(tls_util::identity().cert.pem()).unwrap();
    let other = tls::Client::builder()
        .roots(roots)
        .server_name("other.example");
    let other = other.build().unwrap();
    for (client, what) in [(strangers, "UnknownIssuer"), (other, "other.example")] {
        let options = ConnectOptions::new().tls(client);
        let (kind, tls, text) = outcome(&stage.system, to, options).unwrap_err();
        assert_eq!(kind, ConnectErrorKind::Tls);
        assert_eq!(tls, Some(TlsErrorKind::Certificate));
        assert!(text.contains(what), "{text}");
        assert!(text.contains("certificate is not accepted"), "{text}");
    }
    // The server is told by an alert.
    wait_until("both sides have counted", || {
        let by = stage.system.stats().handshakes_failed_by;
        (by["certificate"], by["alert"]) == (2, 2)
    });
    wait_until("all is over", || stage.is_over());
    assert_eq!(
        outcome(&stage.system, to, ConnectOptions::new().tls(client())),
        Ok(())
    );
}

#[test]
fn a_server_that_speaks_plainly_is_told_as_such() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_opened(|ctx| {
            ctx.write(b"220 mail.example at your service\r\n");
            Ok(())
        })
    });
    let to = stage.listener.local_addr();
    let options = ConnectOptions::new().tls(client());
    let (kind, tls, text) = outcome(&stage.system, to, options).unwrap_err();
    assert_eq!(
        (kind, tls),
        (ConnectErrorKind::Tls, Some(TlsErrorKind::NotTls)),
        "{text}"
    );
    assert!(text.contains("no TLS"), "{text}");
}

/// A listener that nobody accepts from but the test.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[test]
fn a_server_that_says_nothing_is_given_up_at_the_connects_deadline() {
    let system = builder(1).build().unwrap();
    let (_listener, to) = listener();
    let timeout = Duration::from_millis(100);
    let options = ConnectOptions::new().tls(client()).timeout(timeout);
    let (kind, tls, text) = outcome(&system, to, options).unwrap_err();
    assert_eq!(
        (kind, tls),
        (ConnectErrorKind::Tls, Some(TlsErrorKind::Deadline))
    );
    assert!(text.contains("100ms"), "{text}");
    wait_until("its socket is closed", || system.stats().connections == 0);
}

#[test]
fn a_server_that_closes_or_resets_in_the_handshake_is_told() {
    let system = builder(1).build().unwrap();
    let (listener, to) = listener();
    for resets in [false, true] {
        let (sender, told) = channel();
        let options = ConnectOptions::new().tls(client());
        system.connect_with(to, options, move || Caller(sender));
        let (mut socket, _) = listener.accept().unwrap();
        let mut hello = [0; 5];
        socket.read_exact(&mut hello).unwrap();
        assert_eq!(hello[0], 22, "a handshake");
        if resets {
            reset(socket);
        } else {
            let len = u16::from_be_bytes([hello[3], hello[4]]);
            socket.read_exact(&mut vec![0; len.into()]).unwrap();
            drop(socket);
        }
        let (kind, tls, _) = next(&told).unwrap_err();
        let expected = match resets {
            true => (ConnectErrorKind::Reset, None),
            false => (ConnectErrorKind::Tls, Some(TlsErrorKind::Unfinished)),
        };
        assert_eq!((kind, tls), expected);
    }
}

#[test]
fn a_unix_socket_needs_a_name_to_check_the_certificate_against() {
    let dir = TempDir::new();
    let endpoint = format!("unix:{}", dir.path().join("tls").display());
    let stage = Stage::listen(builder(1), &endpoint, secured(), |probe| probe);
    let to = stage.listener.local_addr();
    let options = ConnectOptions::new().tls(client());
    let (kind, tls, text) = outcome(&stage.system, to, options).unwrap_err();
    assert_eq!(
        (kind, tls),
        (ConnectErrorKind::Tls, Some(TlsErrorKind::Local)),
        "{text}"
    );
    let roots = tls::Roots::from_pem(tls_util::identity().cert.pem()).unwrap();
    let named = tls::Client::builder().roots(roots).server_name("localhost");
    let options = ConnectOptions::new().tls(named.build().unwrap());
    assert_eq!(outcome(&stage.system, to, options), Ok(()));
}

#[test]
fn a_close_by_address_and_a_stop_end_a_connect_in_its_handshake_at_once() {
    let system = builder(1).build().unwrap();
    let (listener, to) = listener();
    for stops in [false, true] {
        let (sender, told) = channel();
        let options = ConnectOptions::new().tls(client());
        let addr = system.connect_with(to, options, move || Caller(sender));
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0; 5]).unwrap();
        match stops {
            true => system.handle().stop(Duration::from_secs(60)),
            false => addr.close(),
        }
        let (kind, tls, _) = next(&told).unwrap_err();
        let expected = match stops {
            true => ConnectErrorKind::Stopped,
            false => ConnectErrorKind::Closed,
        };
        assert_eq!((kind, tls), (expected, None));
    }
    system.run().unwrap();
}

// ---- messages and data --------------------------------------------------------------------------

#[test]
fn megabytes_go_both_ways_between_two_of_our_own() {
    let stage = stage(secured());
    let options = ConnectOptions::new().tls(client());
    let (addr, events) = call(&stage.system, stage.listener.local_addr(), options);
    let len = 3 << 20;
    addr.send(Box::new(move |ctx| {
        for piece in pattern(len).chunks(100_000) {
            ctx.write(piece);
        }
        Ok(())
    }))
    .unwrap();
    // The message waited for the handshake.
    assert!(matches!(next(&events), Event::Opened(_)));
    let caller = Seen { addr, events };
    assert_same(&caller.read(len), &pattern(len));
}

#[test]
fn a_name_is_asked_for_and_protocols_are_agreed_on() {
    let identity = tls_util::identity();
    let identity =
        tls::Identity::from_pem(identity.cert.pem(), identity.signing_key.serialize_pem());
    let server = tls::Server::builder()
        .identity(identity.unwrap())
        .alpn(["b", "a"]);
    let options = ListenOptions::new().tls(server.build().unwrap());
    let stage = stage(options);
    let port = tcp_addr(&stage.listener).port();
    let roots = tls::Roots::from_pem(tls_util::identity().cert.pem()).unwrap();
    let client = tls::Client::builder()
        .roots(roots)
        .alpn(["a", "b"])
        .build()
        .unwrap();
    let to: Remote = format!("localhost:{port}").parse().unwrap();
    let (addr, events) = call(&stage.system, to, ConnectOptions::new().tls(client));
    let caller = Seen { addr, events };
    assert!(matches!(caller.next(), Event::Opened(_)));
    let ours = caller.run(|ctx| {
        let tls = ctx.tls().unwrap();
        let certificates = tls.peer_certificates().len();
        (
            tls.alpn_protocol().map(<[u8]>::to_vec),
            certificates,
            tls.server_name().is_none(),
        )
    });
    let theirs = stage.accepted().run(|ctx| {
        let tls = ctx.tls().unwrap();
        let name = tls.server_name().map(str::to_owned);
        (
            tls.alpn_protocol().map(<[u8]>::to_vec),
            name,
            tls.is_resumed(),
        )
    });
    assert_eq!(ours, (Some(b"b".to_vec()), 1, true));
    assert_eq!(
        theirs,
        (Some(b"b".to_vec()), Some("localhost".to_owned()), false)
    );
}

#[test]
fn plain_connections_have_no_tls_to_ask_of() {
    let stage = Stage::new();
    let (_client, seen) = stage.pair();
    assert!(seen.run(|ctx| ctx.tls().is_none()));
}

// ---- limits, proxies, stops ---------------------------------------------------------------------

#[test]
fn handshakes_count_for_the_limit_of_connections_and_are_refused_past_it_without_a_word() {
    let farewell = AtLimit::Refuse("too many\n".into());
    let stage = stage(secured().max_connections(2).at_limit(farewell));
    let held = [stage.client(), stage.client()];
    wait_until("both are there", || stage.listener.connections() == 2);
    let refused = stage.client();
    assert_eq!(read_to_end(refused), b"", "nobody could read it");
    drop(held);
    wait_until("there is room", || stage.listener.connections() == 0);
    let mut client = TlsClient::new(stage.client());
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    let stats = stage.system.stats();
    assert_eq!(
        (stats.refused, stats.handshakes_failed_by["unfinished"]),
        (1, 2)
    );
}

#[test]
fn handshakes_count_for_the_limit_of_a_source() {
    let options = secured()
        .max_per_source(1)
        .source_farewell("one is enough\n");
    let stage = stage(options);
    let held = stage.client();
    wait_until("it is there", || stage.listener.connections() == 1);
    assert_eq!(read_to_end(stage.client()), b"");
    drop(held);
    wait_until("there is room", || stage.listener.connections() == 0);
    TlsClient::new(stage.client());
}

#[test]
fn a_proxys_header_comes_in_the_clear_in_front_of_the_handshake() {
    let options = secured().proxy_protocol(ProxyProtocol::trusting(["127.0.0.0/8"]).unwrap());
    let stage = stage(options);
    for is_cut in [false, true] {
        let mut socket = stage.client();
        let mut session = session();
        let mut first = b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 80\r\n".to_vec();
        if is_cut {
            for byte in first.drain(..) {
                socket.write_all(&[byte]).unwrap();
            }
        }
        session.write_tls(&mut first).unwrap();
        socket.write_all(&first).unwrap();
        let mut client = TlsClient::with(socket, session);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        let seen = stage.accepted();
        let peer = seen.run(|ctx| ctx.peer().map(|peer| peer.to_string()));
        assert_eq!(peer.as_deref(), Some("192.0.2.7:4660"));
    }
}

#[test]
fn a_stop_ends_handshakes_at_once() {
    let stage = stage(secured());
    let mut hello = Vec::new();
    session().write_tls(&mut hello).unwrap();
    let silent = stage.client();
    let mut half_way = stage.client();
    half_way.write_all(&hello).unwrap();
    half_way.read_exact(&mut [0]).unwrap();
    wait_until("both are there", || stage.listener.connections() == 2);
    // Of an hour nobody waits for a minute.
    stage.system.handle().stop(Duration::from_secs(3600));
    let Stage { system, .. } = stage;
    system.run().unwrap();
    drop((silent, half_way));
}

#[test]
fn a_factory_that_panics_behind_the_handshake_ends_its_connection_alone() {
    struct Nobody;
    impl Actor for Nobody {
        type Message = ();
    }
    let system = builder(1).build().unwrap();
    let is_bad = AtomicBool::new(true);
    let make = move |_| {
        assert!(!is_bad.swap(false, Ordering::Relaxed), "on purpose");
        Nobody
    };
    let listener = system.listen_with("127.0.0.1:0", secured(), make).unwrap();
    let mut client = TlsClient::new(connect(&listener));
    client.read_to_end().expect_err("there is no close_notify");
    wait_until("it is over", || system.stats().connections == 0);
    assert_eq!(system.stats().panics, 1);
    // In the same slot: nothing of the one before is left in it.
    let mut client = TlsClient::new(connect(&listener));
    client.close_notify();
    assert_eq!(client.read_to_end().unwrap(), b"");
}

#[test]
fn many_handshakes_at_a_time_over_several_pollers_are_all_done() {
    // Each goes on when it is its turn, however long that takes on a busy machine.
    let server = server().handshake_deadline(Duration::from_secs(600));
    let options = ListenOptions::new().tls(server);
    let stage = Stage::listen(builder(2), "127.0.0.1:0", options, |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(input.take_all());
            Ok(())
        })
    });
    let mut clients: Vec<(TcpStream, rustls::ClientConnection)> =
        (0..200).map(|_| (stage.client(), session())).collect();
    for (socket, session) in &mut clients {
        session.write_tls(socket).unwrap();
    }
    for (socket, session) in clients {
        let mut client = TlsClient::with(socket, session);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        client.close_notify();
        assert_eq!(client.read_to_end().unwrap(), b"");
    }
    wait_until("all is over", || stage.is_over());
    assert_eq!(stage.system.stats().handshakes, 200);
}

#[test]
fn a_socket_under_tls_cannot_be_detached() {
    let stage = stage(secured());
    let mut client = TlsClient::new(stage.client());
    let seen = stage.accepted();
    let error = seen.run(|ctx| ctx.detach(|_| panic!("nobody gets it")).unwrap_err());
    assert!(matches!(error, DetachError::Secured), "{error}");
    client.send("hello");
    assert_eq!(client.read(5), b"hello", "it goes on");
}

#[test]
fn a_stage_has_no_network_to_secure_a_connect_on() {
    struct Idle;
    impl Actor for Idle {
        type Message = ();
        fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
            assert!(ctx.tls().is_none());
            Ok(())
        }
    }
    let stage = OneActor::new(Idle);
    assert!(stage.reason().is_none());
}

#[test]
fn sockets_that_listen_already_are_secured_as_well() {
    let system = builder(1).build().unwrap();
    let (socket, addr) = listener();
    let sockets = ListenSockets::from(socket);
    let _listener = system.listen_from(sockets, secured(), |_| Echo).unwrap();
    let mut client = TlsClient::new(TcpStream::connect(addr).unwrap());
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

// ---- a pool, and one that is made again ---------------------------------------------------------

/// A line each way.
struct Lines;

impl Exchange for Lines {
    type Request = &'static str;
    type Answer = String;

    fn request(&mut self, request: &'static str, output: &mut Vec<u8>) {
        output.extend_from_slice(request.as_bytes());
        output.push(b'\n');
    }

    fn answer(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Option<String>, Box<dyn Error + Send + Sync>> {
        let line = input.line(100)?;
        Ok(line.map(|line| String::from_utf8_lossy(line).into_owned()))
    }
}

/// What TLS says for itself on an idle connection, its tickets, is nothing that nobody asked for.
#[test]
fn a_pools_connections_are_secured_and_lent_again_or_thrown_away() {
    let stage = stage(secured());
    let to = Remote::from(stage.listener.local_addr());
    let options = ConnectOptions::new().tls(client());
    let make = move || Pool::new(to, || Lines).size(0, 1).connect_options(options);
    let pool = stage.system.spawn(make);
    let counts = || pool.ask(TIMEOUT, PoolMessage::counts).unwrap();
    for round in 1..=3 {
        for _ in 0..20 {
            let answer = pool.call_and_wait("hello", TIMEOUT);
            assert_eq!(answer, Ok("hello".to_owned()));
        }
        assert_eq!((counts().made, counts().idle), (round, 1));
        let served = stage.accepted();
        served.tell(move |ctx| {
            match round {
                1 => drop(ctx.write("unasked")),
                2 => ctx.close(),
                _ => ctx.abort(),
            }
            Ok(())
        });
        wait_until("it is thrown away", || counts().broken == round);
    }
}

/// Says hello, and what it was sent; what comes back is nothing to it.
struct Feed;

impl Actor for Feed {
    type Message = &'static str;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(ctx.tls().is_some());
        ctx.write("hello");
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        Ok(())
    }

    fn message(&mut self, text: &'static str, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(text);
        Ok(())
    }
}

#[test]
fn a_secured_connection_is_made_again() {
    let stage = stage(secured());
    let to = Remote::from(stage.listener.local_addr());
    let feed = stage.system.spawn(move || {
        Reconnect::new(to, || Feed)
            .connect_options(ConnectOptions::new().tls(client()))
            .backoff(Duration::from_millis(1), Duration::from_millis(10))
    });
    for _ in 0..3 {
        let served = stage.accepted();
        assert_eq!(served.read(5), b"hello");
        wait_until("a message gets through", || {
            let or_back = |reply| ReconnectMessage::or_back(" there", reply);
            feed.ask(TIMEOUT, or_back).unwrap().is_ok()
        });
        assert_eq!(served.read(6), b" there");
        served.addr.close();
    }
}

//! What comes over the wire under TLS: cut at every byte, changed on its way, never TLS at all, or
//! not at all. A connection that fails before it is secured has no actor; one that fails later ends
//! with the reason, and shows nothing from there on.

#[path = "util/tls.rs"]
mod tls_util;
mod util;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use greenroom::tls::rustls;
use greenroom::*;
use rustls::AlertDescription;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tls_util::{TlsClient, client_config, server, session, session_of};
use util::*;

fn secured() -> ListenOptions {
    ListenOptions::new().tls(server())
}

fn stage(prepare: impl Fn(Probe) -> Probe + Send + Sync + 'static) -> Stage {
    Stage::listen(builder(1), "127.0.0.1:0", secured(), prepare)
}

fn echoes(probe: Probe) -> Probe {
    probe.on_readable(|input, ctx| {
        ctx.write(input.take_all());
        Ok(())
    })
}

/// Waits until so many handshakes have failed in this way, and nothing is left of them.
#[track_caller]
fn until_failed(stage: &Stage, how: &str, times: u64) {
    wait_until("the handshake has failed", || {
        stage.system.stats().handshakes_failed_by[how] == times
    });
    wait_until("all is over", || stage.is_over());
    assert_eq!(stage.system.stats().opened, 0, "there never was an actor");
}

/// The alert that the server answers with, as far as a client without its keys can read it.
fn alert(mut socket: &TcpStream) -> Option<u8> {
    let mut got = Vec::new();
    // A reset behind the alert is as good as an end.
    let _ = socket.read_to_end(&mut got);
    let at = got.len().checked_sub(7)?;
    (got[at] == 21).then(|| got[at + 6])
}

/// The kind of TLS's own reason.
#[track_caller]
fn kind(reason: &CloseReason) -> TlsErrorKind {
    match reason {
        CloseReason::Tls(error) => error.kind(),
        other => panic!("{other:?}"),
    }
}

// ---- cut ----------------------------------------------------------------------------------------

#[test]
fn a_handshake_and_what_follows_may_be_cut_at_every_byte() {
    let stage = stage(echoes);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut session = session_of(client_config(&[version]));
        let mut socket = stage.client();
        socket.set_nodelay(true).unwrap();
        let mut echo = Vec::new();
        let mut is_sent = false;
        while echo.len() < 40_000 {
            if !session.is_handshaking() && !is_sent {
                session.writer().write_all(&pattern(40_000)).unwrap();
                is_sent = true;
            }
            let mut wire = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut wire).unwrap();
            }
            // All of the handshake, and of what follows the ends of records.
            let (single, rest) = wire.split_at(wire.len().min(2_000));
            for byte in single.chunks(1) {
                socket.write_all(byte).unwrap();
            }
            socket.write_all(rest).unwrap();
            let read = session.read_tls(&mut socket).unwrap();
            assert!(read > 0, "the server goes on");
            let state = session.process_new_packets().unwrap();
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            session.reader().read_exact(&mut plain).unwrap();
            echo.extend(plain);
        }
        assert_same(&echo, &pattern(40_000));
    }
}

#[test]
fn what_comes_with_the_last_message_of_a_handshake_is_shown_behind_opened() {
    let stage = stage(|probe| {
        probe.on_opened(|ctx| {
            ctx.write(b"welcome");
            Ok(())
        })
    });
    let mut socket = stage.client();
    let mut session = session();
    // Written before there are keys: rustls sends it with its last message.
    session.writer().write_all(b"in a hurry").unwrap();
    while session.wants_write() || session.is_handshaking() {
        if session.wants_write() {
            let mut wire = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut wire).unwrap();
            }
            socket.write_all(&wire).unwrap();
        } else {
            session.read_tls(&mut socket).unwrap();
            session.process_new_packets().unwrap();
            if !session.is_handshaking() {
                session.send_close_notify();
            }
        }
    }
    let probe = stage.accepted();
    assert_eq!(probe.read(10), b"in a hurry");
    assert!(matches!(probe.next(), Event::ReadClosed));
    assert!(matches!(probe.closed(), CloseReason::PeerClosed));
    let mut client = TlsClient { session, socket };
    assert_eq!(client.read_to_end().unwrap(), b"welcome");
}

#[test]
fn what_comes_with_the_last_message_of_a_handshake_is_no_silence() {
    let time = Duration::from_millis(100);
    let options = ConnectionOptions::new().first_bytes_timeout(time);
    let options = secured().connection(options);
    let stage = Stage::listen(builder(1), "127.0.0.1:0", options, move |probe| {
        // It takes its time for an answer.
        probe.on_readable(move |input, ctx| {
            input.take_all();
            ctx.set_timer(4 * time);
            Ok(())
        })
    });
    let (mut session, mut socket) = (session(), stage.client());
    // Written before there are keys: rustls sends it with its last message.
    session.writer().write_all(b"in a hurry").unwrap();
    session.complete_io(&mut socket).unwrap();
    let seen = stage.accepted();
    assert!(matches!(seen.next(), Event::Readable(bytes, false) if bytes == b"in a hurry"));
    let next = seen.next();
    assert!(matches!(next, Event::Timer(_)), "{next:?}");
}

#[test]
fn the_beginning_of_a_record_is_still_silence() {
    let options = ConnectionOptions::new().first_bytes_timeout(Duration::from_millis(300));
    let options = secured().connection(options);
    let stage = Stage::listen(builder(1), "127.0.0.1:0", options, |probe| probe);
    let mut client = TlsClient::new(stage.client());
    let seen = stage.accepted();
    // Of a record that never comes.
    client.socket.write_all(&[23, 3]).unwrap();
    let reason = seen.closed();
    assert!(matches!(reason, CloseReason::Silent(_)), "{reason}");
}

#[test]
fn records_larger_than_what_is_read_at_once_are_shown_whole() {
    let builder = builder(1).read_buffer(512);
    let stage = Stage::listen(builder, "127.0.0.1:0", secured(), |probe| {
        probe.on_readable(|input, ctx| {
            if let Some(frame) = input.frame(100_000, 100_000)? {
                ctx.write(frame);
            }
            Ok(())
        })
    });
    let mut client = TlsClient::new(stage.client());
    for _ in 0..3 {
        client.send(pattern(100_000));
        assert_same(&client.read(100_000), &pattern(100_000));
    }
}

// ---- before it is secured -----------------------------------------------------------------------

#[test]
fn who_speaks_plainly_to_a_port_for_tls_gets_an_alert() {
    let stage = stage(|probe| probe);
    for (times, hello) in (1..).zip([
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "SSH-2.0-x\r\n",
        "\0\0\0\0\0",
    ]) {
        let mut client = stage.client();
        client.write_all(hello.as_bytes()).unwrap();
        assert!(alert(&client).is_some(), "{hello:?}");
        drop(client);
        until_failed(&stage, "not tls", times);
    }
}

#[test]
fn a_peer_that_leaves_in_its_handshake_is_counted_and_leaves_nothing_behind() {
    let stage = stage(|probe| probe);
    let mut hello = Vec::new();
    session().write_tls(&mut hello).unwrap();
    let cuts = [0, 1, 5, 100, hello.len() - 1, hello.len()];
    for (times, cut) in (1..).zip(cuts) {
        let mut client = stage.client();
        client.write_all(&hello[..cut]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        drop(client);
        until_failed(&stage, "unfinished", times);
    }
}

#[test]
fn a_silent_peer_and_one_that_stops_half_way_are_closed_at_the_deadline() {
    let server = server().handshake_deadline(Duration::from_millis(50));
    let options = ListenOptions::new().tls(server);
    let stage = Stage::listen(builder(1), "127.0.0.1:0", options, |probe| probe);
    let mut hello = Vec::new();
    session().write_tls(&mut hello).unwrap();
    let mut clients = Vec::new();
    for sent in [&[][..], &hello[..50], &hello] {
        let mut client = stage.client();
        client.write_all(sent).unwrap();
        clients.push(client);
    }
    for client in &mut clients {
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
    }
    until_failed(&stage, "deadline", 3);
}

#[test]
fn a_client_that_does_not_trust_us_says_so() {
    let stage = stage(|probe| probe);
    let roots = rustls::RootCertStore::empty();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let mut session = session_of(config.into());
    let mut socket = stage.client();
    session.complete_io(&mut socket).unwrap_err();
    drop(socket);
    until_failed(&stage, "alert", 1);
}

#[test]
fn nothing_in_common_is_told_by_an_alert() {
    let identity = tls_util::identity();
    let identity =
        tls::Identity::from_pem(identity.cert.pem(), identity.signing_key.serialize_pem());
    let server = tls::Server::builder().identity(identity.unwrap());
    let server = server.versions([tls::Version::Tls13]).build().unwrap();
    let options = ListenOptions::new().tls(server);
    let stage = Stage::listen(builder(1), "127.0.0.1:0", options, |probe| probe);
    let mut session = session_of(client_config(&[&rustls::version::TLS12]));
    let mut socket = stage.client();
    let error = session.complete_io(&mut socket).unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    drop(socket);
    until_failed(&stage, "incompatible", 1);
}

#[test]
fn a_reset_in_the_handshake_leaves_nothing_behind() {
    let stage = stage(|probe| probe);
    let mut hello = Vec::new();
    session().write_tls(&mut hello).unwrap();
    let mut client = stage.client();
    client.write_all(&hello).unwrap();
    let mut first = [0];
    client.read_exact(&mut first).unwrap();
    reset(client);
    until_failed(&stage, "unfinished", 1);
}

// ---- once it is ---------------------------------------------------------------------------------

#[test]
fn a_changed_record_ends_the_connection_and_shows_nothing() {
    let stage = stage(|probe| probe);
    for at in [5, 12, 30] {
        let mut client = TlsClient::new(stage.client());
        client.send("good");
        let probe = stage.accepted();
        assert_eq!(probe.read(4), b"good");
        client
            .session
            .writer()
            .write_all(b"never to be shown")
            .unwrap();
        let mut record = Vec::new();
        client.session.write_tls(&mut record).unwrap();
        record[at] ^= 1;
        client.socket.write_all(&record).unwrap();
        let events = probe.to_the_end();
        let [Event::Closed(reason)] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(kind(reason), TlsErrorKind::BadRecord);
        // The server says why, behind its tickets.
        let error = client.read_to_end().unwrap_err();
        assert!(error.to_string().contains("BadRecordMac"), "{error}");
    }
    drop(stage.client());
    wait_until("all is over", || stage.system.stats().connections == 0);
}

#[test]
fn what_is_no_record_ends_the_connection() {
    let stage = stage(|probe| probe);
    for bytes in [
        &[0xff; 64][..],
        b"\x17\x03\x03\xff\xff",
        b"\x14\x03\x03\0\x02\x01\x01",
    ] {
        let mut client = TlsClient::new(stage.client());
        client.send("good");
        let probe = stage.accepted();
        assert_eq!(probe.read(4), b"good");
        client.socket.write_all(bytes).unwrap();
        let reason = probe.closed();
        assert!(
            matches!(
                kind(&reason),
                TlsErrorKind::BadRecord | TlsErrorKind::Misbehaved
            ),
            "{reason}"
        );
    }
}

#[test]
fn an_actor_that_writes_as_it_fails_sends_nothing_behind_the_alert() {
    let stage = stage(|probe| {
        probe.on_closed(|reason, ctx| {
            assert!(matches!(reason, CloseReason::Tls(_)));
            assert!(!ctx.has_socket());
            assert!(ctx.tls().is_some(), "what was agreed on is still known");
        })
    });
    let mut client = TlsClient::new(stage.client());
    client.send("good");
    let probe = stage.accepted();
    probe.read(4);
    client.socket.write_all(&[0; 64]).unwrap();
    let error = client.read_to_end().unwrap_err();
    assert!(error.to_string().contains("alert"), "{error}");
    kind(&probe.closed());
    assert_eq!(stage.system.stats().panics, 0);
}

#[test]
fn a_bad_record_ends_a_connection_with_much_to_say_once() {
    let stage = stage(|probe| {
        probe.on_readable(|input, ctx| {
            input.take_all();
            ctx.write(pattern(4 << 20));
            Ok(())
        })
    });
    for _ in 0..20 {
        let mut client = TlsClient::new(stage.client());
        client.send("go");
        let probe = stage.accepted();
        client.read(100_000);
        client.socket.write_all(&[0; 64]).unwrap();
        client.read_to_end().expect_err("it does not look whole");
        let events = probe.to_the_end();
        let ends = events
            .iter()
            .filter(|event| matches!(event, Event::Closed(_)));
        assert_eq!(ends.count(), 1, "{events:?}");
        let Some(Event::Closed(CloseReason::Tls(_))) = events.last() else {
            panic!("{events:?}")
        };
    }
    wait_until("all is over", || stage.is_over());
}

#[test]
fn a_fatal_alert_of_the_peer_is_the_reason() {
    let stage = stage(|probe| probe);
    let mut client = TlsClient::new(stage.client());
    client.send("good");
    let probe = stage.accepted();
    probe.read(4);
    // What the server answers with cannot be decrypted, which the client tells it.
    probe.run(|ctx| {
        ctx.write(b"changed on its way");
    });
    let mut wire = vec![0; 4096];
    while !client.session.wants_write() {
        let len = client.socket.read(&mut wire).unwrap();
        let mut record = wire[..len].to_vec();
        *record.last_mut().unwrap() ^= 1;
        client.session.read_tls(&mut &record[..]).unwrap();
        let _ = client.session.process_new_packets();
    }
    client.send_records();
    let reason = probe.closed();
    assert_eq!(kind(&reason), TlsErrorKind::Alert);
    let text = reason.to_string();
    let expected = format!("{:?}", AlertDescription::BadRecordMac);
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn a_flood_of_key_updates_ends_and_a_few_do_not() {
    let stage = stage(echoes);
    let mut client = TlsClient::new(stage.client());
    for _ in 0..5 {
        client.session.refresh_traffic_keys().unwrap();
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
    }
    let probe = stage.accepted();
    let mut flood = Vec::new();
    for _ in 0..1000 {
        client.session.refresh_traffic_keys().unwrap();
        client.session.write_tls(&mut flood).unwrap();
    }
    // It has ended long before it has read all this.
    let _ = client.socket.write_all(&flood);
    assert_eq!(kind(&probe.closed()), TlsErrorKind::Misbehaved);
}

#[test]
fn the_end_is_truncated_wherever_it_comes_without_close_notify() {
    let stage = stage(|probe| probe);
    for cut in [0, 3, 20] {
        let mut client = TlsClient::new(stage.client());
        client.send("whole");
        client.session.writer().write_all(b"in part").unwrap();
        let mut record = Vec::new();
        client.session.write_tls(&mut record).unwrap();
        client.socket.write_all(&record[..cut]).unwrap();
        half_close(&client.socket);
        let probe = stage.accepted();
        assert_eq!(probe.read(5), b"whole");
        let events = probe.to_the_end();
        let [Event::Closed(reason)] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(kind(reason), TlsErrorKind::Truncated);
    }
    wait_until("all is over", || stage.is_over());
}

#[test]
fn what_was_kept_is_not_shown_again_at_an_end_that_is_none() {
    let stage = stage(|probe| probe.on_readable(|_, _| Ok(())));
    let mut client = TlsClient::new(stage.client());
    client.send("half a frame");
    let probe = stage.accepted();
    assert!(matches!(probe.next(), Event::Readable(bytes, false) if bytes == b"half a frame"));
    half_close(&client.socket);
    let events = probe.to_the_end();
    let [Event::Closed(reason)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(kind(reason), TlsErrorKind::Truncated);
}

#[test]
fn a_reset_is_told_as_on_a_plain_connection() {
    let stage = stage(|probe| probe);
    let mut client = TlsClient::new(stage.client());
    client.send("good");
    let probe = stage.accepted();
    probe.read(4);
    reset(client.socket);
    assert!(matches!(probe.closed(), CloseReason::Reset));
}

// ---- configurations of the user's own -----------------------------------------------------------

/// Panics where it is asked for this name.
#[derive(Debug)]
struct Panics(Arc<CertifiedKey>);

const PANIC: &str = "panic.example";

impl ResolvesServerCert for Panics {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        assert_ne!(hello.server_name(), Some(PANIC), "on purpose");
        Some(self.0.clone())
    }
}

/// What a user tells rustls, with the certificate of [`server`].
fn own_config() -> rustls::ServerConfig {
    let identity = tls_util::identity();
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let certified = CertifiedKey::new(vec![identity.cert.der().clone()], key);
    rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Panics(Arc::new(certified))))
}

fn own_stage(config: rustls::ServerConfig) -> Stage {
    let options = ListenOptions::new().tls(tls::Server::from(config));
    Stage::listen(builder(1), "127.0.0.1:0", options, echoes)
}

#[test]
fn a_panic_in_a_configuration_ends_its_handshake_alone() {
    let stage = own_stage(own_config());
    let mut other = TlsClient::new(stage.client());
    let name = ServerName::try_from(PANIC).unwrap();
    let config = client_config(rustls::ALL_VERSIONS);
    let mut session = rustls::ClientConnection::new(config, name).unwrap();
    session.complete_io(&mut stage.client()).unwrap_err();
    wait_until("the handshake has failed", || {
        stage.system.stats().handshakes_failed_by["local"] == 1
    });
    assert_eq!(stage.system.stats().panics, 1);
    other.send("still there");
    assert_eq!(other.read(11), b"still there");
    let mut new = TlsClient::new(stage.client());
    new.send("come and go");
    assert_eq!(new.read(11), b"come and go");
}

#[test]
fn data_in_front_of_the_handshakes_end_is_not_accepted_and_so_not_lost() {
    let mut config = own_config();
    config.max_early_data_size = 1 << 14;
    let stage = own_stage(config);
    let mut config = client_config(&[&rustls::version::TLS13]);
    Arc::make_mut(&mut config).enable_early_data = true;
    for is_resumed in [false, true] {
        let mut session = session_of(config.clone());
        let early = session.early_data();
        let sent = early.is_some_and(|mut early| early.write_all(b"early").is_ok());
        let mut client = TlsClient::with(stage.client(), session);
        assert!(!sent || !client.session.is_early_data_accepted());
        client.send("late");
        assert_eq!(client.read(4), b"late");
        let kind = client.session.handshake_kind();
        assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), is_resumed);
    }
}

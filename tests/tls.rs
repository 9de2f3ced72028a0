//! TLS on a listener and on a connect: the same actors as on plain connections.

use std::sync::mpsc::channel;

use greenroom::tls::rustls;
use greenroom::*;

#[path = "util/tls.rs"]
mod tls_util;
mod util;

use tls_util::{TlsClient, client, client_config, server, session_of};
use util::{Event, Stage, builder, next};

/// Answers with what it is sent.
struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

fn secured() -> ListenOptions {
    ListenOptions::new().tls(server())
}

#[test]
fn an_actor_of_plain_connections_echoes_over_tls() {
    let system = builder(1).build().unwrap();
    let listener = system
        .listen_with("127.0.0.1:0", secured(), |_| Echo)
        .unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let session = session_of(client_config(&[version]));
        let mut client = TlsClient::with(util::connect(&listener), session);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        client.close_notify();
        assert_eq!(client.read_to_end().unwrap(), b"", "its end is told");
    }
    let stats = system.stats();
    assert_eq!((stats.handshakes, stats.handshakes_failed), (2, 0));
}

#[test]
fn megabytes_come_back_as_they_were_sent() {
    let system = builder(1).build().unwrap();
    let listener = system
        .listen_with("127.0.0.1:0", secured(), |_| Echo)
        .unwrap();
    let mut client = TlsClient::new(util::connect(&listener));
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 / 3) as u8).collect();
    for piece in sent.chunks(100_000) {
        client.send(piece);
        assert!(client.read(piece.len()) == piece);
    }
}

#[test]
fn a_connect_is_secured_before_its_actor_is_opened() {
    struct Caller(std::sync::mpsc::Sender<Vec<u8>>);
    impl Actor for Caller {
        type Message = Vec<u8>;

        fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
            assert_eq!(ctx.tls().unwrap().version(), Some(tls::Version::Tls13));
            ctx.write(b"opened ");
            Ok(())
        }

        fn message(&mut self, message: Vec<u8>, ctx: &mut Context<'_, Self>) -> Outcome {
            ctx.write(&message);
            Ok(())
        }

        fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
            self.0.send(input.take_all().to_vec())?;
            Ok(())
        }
    }
    let system = builder(1).build().unwrap();
    let listener = system
        .listen_with("127.0.0.1:0", secured(), |_| Echo)
        .unwrap();
    let (seen, got) = channel();
    let options = ConnectOptions::new().tls(client());
    let to = listener.local_addr().clone();
    let caller = system.connect_with(to, options, move || Caller(seen));
    // Long before the handshake is done: it waits for it.
    caller.send(b"message".to_vec()).unwrap();
    let mut all = Vec::new();
    while all.len() < 14 {
        all.extend(next(&got));
    }
    assert_eq!(all, b"opened message");
    assert_eq!(system.stats().handshakes, 2);
}

#[test]
fn the_peers_close_notify_is_its_half_close_and_ours_comes_back() {
    let stage = Stage::listen(builder(1), "127.0.0.1:0", secured(), |probe| {
        probe.on_read_closed(|ctx| {
            ctx.write(b"the last word");
            ctx.close();
            Ok(())
        })
    });
    let mut client = TlsClient::new(stage.client());
    client.send("all");
    client.close_notify();
    assert_eq!(client.read_to_end().unwrap(), b"the last word");
    let probe = stage.accepted();
    assert_eq!(probe.read(3), b"all");
    assert!(matches!(probe.next(), Event::ReadClosed));
    assert!(matches!(probe.closed(), CloseReason::PeerClosed));
}

#[test]
fn an_end_without_close_notify_is_told_as_such() {
    let stage = Stage::listen(builder(1), "127.0.0.1:0", secured(), |probe| probe);
    let mut client = TlsClient::new(stage.client());
    client.send("cut");
    util::half_close(&client.socket);
    let probe = stage.accepted();
    assert_eq!(probe.read(3), b"cut");
    match probe.until(|event| match event {
        Event::Closed(reason) => Some(reason),
        Event::ReadClosed => panic!("no orderly end was seen"),
        _ => None,
    }) {
        CloseReason::Tls(error) => assert_eq!(error.kind(), TlsErrorKind::Truncated),
        other => panic!("{other}"),
    }
    util::wait_until("it is counted", || {
        stage.system.stats().closed_by["tls"] == 1
    });
}
